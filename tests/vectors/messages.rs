//! Messages between peers: those of `pack.json`, and every frame of the recorded streams.

use super::support::{bytes_of, frames_of, json, list_of, number_of, ran, str_of};
use bytes::Bytes;
use p2p::frame::{Event, Frames, Verdict};
use p2p::message::{Command, Endpoint, Message, ReplyResult, WrappedShare};
use p2p::transactions::Transaction;
use ruint::aliases::U320;
use serde_json::{Value, json as value_of};
use sharechain::coin::BITCOIN;
use sharechain::share::display_hex;
use std::net::IpAddr;

pub(crate) const STREAMS: [&str; 4] = ["demo_p2p.jsonl", "extra_p2p.jsonl", "run17_p2p.jsonl", "run33_p2p.jsonl"];

fn text(text: impl AsRef<[u8]>) -> Value {
    format!("hex:{}", hex::encode(text)).into()
}

fn number(digest: &[u8; 32]) -> String {
    U320::from_le_slice(digest).to_string()
}

fn numbers<'a>(digests: impl IntoIterator<Item = &'a [u8; 32]>) -> Value {
    digests.into_iter().map(number).collect()
}

/// Address in the form printed by the reference: dotted, or eight whole groups.
fn address(endpoint: &Endpoint) -> Value {
    let ip = match endpoint.address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:04x}")).join(":"),
    };
    value_of!({
        "services": endpoint.services.to_string(),
        "address": text(ip),
        "port": endpoint.address.port().to_string(),
    })
}

fn shares(shares: &[WrappedShare]) -> Value {
    let one =
        |share: &WrappedShare| value_of!({ "type": share.version.to_string(), "contents": text(&share.contents) });
    shares.iter().map(one).collect()
}

fn result(result: ReplyResult) -> Value {
    text(match result {
        ReplyResult::Good => "good".into(),
        ReplyResult::TooLong => "too long".into(),
        ReplyResult::Reserved(code) => format!("unk{code}"),
    })
}

/// Message in the form of the vectors; the transactions in `remember_tx` as their number.
fn value(message: &Message) -> Value {
    match message {
        Message::Version(version) => value_of!({
            "version": version.version.to_string(),
            "services": version.services.to_string(),
            "addr_to": address(&version.to),
            "addr_from": address(&version.from),
            "nonce": version.nonce.to_string(),
            "sub_version": text(&version.sub_version),
            "mode": version.mode.to_string(),
            "best_share_hash": version.best_share.map(|hash| number(&hash.0)),
        }),
        Message::Ping => value_of!({}),
        Message::AddrMe { port } => value_of!({ "port": port.to_string() }),
        Message::Addrs(records) => {
            let one = |record: &p2p::message::AddressRecord| value_of!({ "timestamp": record.timestamp.to_string(), "address": address(&record.endpoint) });
            value_of!({ "addrs": records.iter().map(one).collect::<Value>() })
        }
        Message::GetAddrs { count } => value_of!({ "count": count.to_string() }),
        Message::Shares(list) => value_of!({ "shares": shares(list) }),
        Message::ShareReq { id, hashes, parents, stops } => value_of!({
            "id": number(id),
            "hashes": numbers(hashes.iter().map(|hash| &hash.0)),
            "parents": parents.to_string(),
            "stops": numbers(stops.iter().map(|hash| &hash.0)),
        }),
        Message::ShareReply { id, result: code, shares: list } => {
            value_of!({ "id": number(id), "result": result(*code), "shares": shares(list) })
        }
        Message::BestBlock { header } => {
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
            value_of!({ "header": {
                "version": word(0).to_string(),
                "previous_block": number(header[4..36].try_into().unwrap()),
                "merkle_root": number(header[36..68].try_into().unwrap()),
                "timestamp": word(68).to_string(),
                "bits": { "bits": format!("{:08x}", word(72)) },
                "nonce": word(76).to_string(),
            }})
        }
        Message::HaveTx(hashes) | Message::LosingTx(hashes) | Message::ForgetTx(hashes) => {
            value_of!({ "tx_hashes": numbers(hashes) })
        }
        Message::RememberTx { hashes, transactions } => {
            value_of!({ "tx_hashes": numbers(hashes), "txs": transactions.len() })
        }
    }
}

fn parse(command: &str, payload: Vec<u8>) -> Result<Message, p2p::message::MessageError> {
    Message::parse(command, payload.into()).map(|message| message.expect("a command of ours"))
}

#[test]
fn messages_read_and_write_as_recorded() {
    let file = json("pack.json");
    let cases = list_of(&file["messages"]);
    for case in cases {
        let command = str_of(&case["command"]);
        let payload = bytes_of(&case["payload"]);
        let message = parse(command, payload.clone()).unwrap();
        let mut expected = case["value"].clone();
        if let Some(transactions) = expected.get_mut("txs") {
            *transactions = list_of(transactions).len().into();
        }
        assert_eq!(value(&message), expected, "{command}");
        assert_eq!(message.to_payload(), payload, "{command}");
        assert_eq!(hex::encode(message.to_frame(BITCOIN.prefix)), case["frame"], "{command}");
        // No byte may be missing except at the end of `version`, and none be left over.
        let accepted = |payload: &[u8]| parse(command, payload.to_vec()).is_ok();
        let longer = [&payload[..], &[0]].concat();
        assert!(!accepted(&longer), "{command} with a byte too many");
        for short in 0..payload.len() {
            let is_read = command == "version" && short > payload.len() - 32;
            assert_eq!(accepted(&payload[..short]), is_read, "{command} of {short} bytes");
        }
    }
    ran("pack.json", "messages", cases.len());
}

#[test]
fn transactions_in_messages_are_known_by_the_hash_of_all_their_bytes() {
    let file = json("pack.json");
    let cases = list_of(&file["txs"]);
    for case in cases {
        let raw = bytes_of(&case["packed"]);
        let message = parse("remember_tx", [&[0, 1], &raw[..]].concat()).unwrap();
        let Message::RememberTx { transactions, .. } = &message else { panic!("{message:?}") };
        assert_eq!(transactions[..], [Bytes::from(raw.clone())]);
        let transaction = Transaction::from_message(&transactions[0]);
        assert_eq!(display_hex(&transaction.hash), case["hash256"]);
        assert_eq!(transaction.size(), 100 + raw.len());
    }
    ran("pack.json", "transactions", cases.len());
}

#[test]
fn addresses_and_results_read_as_recorded_wherever_they_stand() {
    let file = json("pack.json");
    let mut count = 0;
    for case in list_of(&file["pack"]) {
        let packed = case.get("packed").or(case.get("bad_input")).map(bytes_of);
        let read = |before: &[u8], after: &[u8], command: &str| {
            let packed = packed.clone().unwrap();
            let message = parse(command, [before, &packed, after].concat())?;
            assert_eq!(message.to_payload(), [before, &packed, after].concat());
            Ok::<_, p2p::message::MessageError>(value(&message))
        };
        match str_of(&case["type"]) {
            // Our types cannot represent an address that cannot be written.
            "ipaddr" if packed.is_none() => {}
            "ipaddr" => {
                let value = read(&[&[1][..], &[0; 16]].concat(), &[0x24, 0x75], "addrs").unwrap();
                assert_eq!(value["addrs"][0]["address"]["address"], case["value"]);
            }
            "address_type" => {
                let value = read(&[&[1][..], &[0; 8]].concat(), &[], "addrs").unwrap();
                assert_eq!(value["addrs"][0]["address"], case["value"]);
            }
            "sharereply_result" => match (read(&[0; 32], &[0], "sharereply"), case.get("value")) {
                (Ok(value), Some(expected)) => assert_eq!(value["result"], *expected),
                (read, expected) => assert!(read.is_err() && expected.is_none(), "{case}"),
            },
            _ => continue,
        }
        count += 1;
    }
    ran("pack.json", "addresses and results of messages", count);
}

#[test]
fn every_recorded_frame_is_read_and_written_as_the_same_bytes() {
    for file in STREAMS {
        let frames = frames_of(file);
        let mut commands = std::collections::BTreeSet::new();
        for recorded in &frames {
            let message = parse(&recorded.command, recorded.payload.to_vec()).unwrap();
            assert_eq!(message.command().word(), recorded.command);
            assert_eq!(message.to_payload(), recorded.payload, "{} at {}", recorded.command, recorded.time);
            let frame = message.to_frame(*b"sinetpre");
            assert_eq!(hex::encode(&frame[24..28]), recorded.checksum);
            commands.insert(message.command().word());
            // Also through the frame decoder, a few bytes at a time.
            let mut frames = Frames::new(*b"sinetpre");
            let mut found = Vec::new();
            for mut piece in frame.chunks(1 + frame.len() / 7) {
                while let Some(event) = frames.take(&mut piece, |command| Verdict::Take(command.bytes_max())).unwrap() {
                    found.push(event);
                }
            }
            assert!(matches!(&found[..], [Event::Frame(frame)] if frame.payload == recorded.payload));
        }
        ran(file, "frames", frames.len());
        assert!(commands.len() >= 8, "{file} has only {commands:?}");
    }
    assert!(Command::from_word("foobar").is_none());
    assert_eq!(number_of(&"7".into()), U320::from(7));
}
