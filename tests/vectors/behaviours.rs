//! Reactions of a live reference node to 37 odd clients, and ours to the same.

use super::support::{bytes_of, json, list_of, ran, rules_of, str_of};
use p2p::message::{Command, Message, Version};
use p2p::peer::{Advertise, Close, Direction, Local, Order, Peer, PeerEvent, RequestId, Shared};
use p2p::transactions::Transactions;
use serde_json::Value;
use sharechain::share::{Share, ShareHash, ShareRules};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PREFIX: [u8; 8] = *b"sinetpre";

/// Messages sent by the reference at random or because of other events, and not because of the client: its best share
/// changed, it gossiped, it lacked addresses.
const CHANCE: [(&str, Command); 7] = [
    ("plain_handshake", Command::Shares),
    ("addrme", Command::GetAddrs),
    ("sharereq_unknown_hash", Command::Addrs),
    ("sharereq_dup_hashes", Command::Addrs),
    ("sharereq_dup_hashes", Command::AddrMe),
    ("shares_obsolete_type_9", Command::AddrMe),
    ("remember_then_forget", Command::GetAddrs),
];

/// Reason of our close where the reference closes: the metric's label of an offence, for which the reference bans (on
/// loopback it only disconnects, which is all that the recording shows), or none (section 3.1).
const CLOSED: [(&str, &str); 14] = [
    ("ping_before_version", "no_version"),
    ("bad_checksum_version", "checksum"),
    ("version_1300_too_old", "too_old"),
    ("version_3200_min_configured", "too_old"),
    ("version_twice", "second_version"),
    ("version_trailing_byte", "quiet"),
    ("ping_with_payload", "quiet"),
    ("sharereq_no_hashes", "quiet"),
    ("shares_unknown_type_99", "quiet"),
    ("shares_garbage_v35", "quiet"),
    ("remember_unknown_tx_hash", "quiet"),
    ("forget_unknown_tx", "quiet"),
    ("remember_tx_twice", "quiet"),
    ("handshake_silent_10s", "quiet"),
];

/// Case that the reference closes at once and this node does not: the header leads nowhere, and its proof of work is not
/// computed. One that would be the best is judged by the swarm.
const TOLERATED: &str = "bestblock_bad_pow";

fn word_of(close: &Close) -> &'static str {
    match close {
        Close::Quiet(_) | Close::Refusals(_) => "quiet",
        Close::Ourselves => "ourselves",
        Close::Offence(offence) => offence.word(),
    }
}

/// Messages of the reference in a case, except one whose long payload is truncated in the recording.
fn messages_of(received: &Value) -> Vec<Message> {
    let is_whole = |one: &&Value| !str_of(&one["payload_hex"]).contains("...");
    let parse = |one: &Value| Message::parse(str_of(&one["command"]), bytes_of(&one["payload_hex"]).into());
    list_of(received).iter().filter(is_whole).map(|one| parse(one).unwrap().expect("a command of ours")).collect()
}

/// Part of the reference's chain that is visible in its responses.
fn chain_of(cases: &[Value], rules: &ShareRules) -> HashMap<ShareHash, Arc<Share>> {
    let replies = cases.iter().flat_map(|case| messages_of(&case["received"]));
    let shares = replies.flat_map(|message| match message {
        Message::ShareReply { shares, .. } => shares,
        _ => Vec::new(),
    });
    let load = |wrapped: p2p::message::WrappedShare| {
        let share = Share::from_wrapped(wrapped.version, &wrapped.contents, rules).unwrap();
        (share.hash(), Arc::new(share))
    };
    shares.map(load).collect()
}

/// Response according to section 3.7, from the little chain available.
fn answer(
    chain: &HashMap<ShareHash, Arc<Share>>,
    hashes: &[ShareHash],
    parents: u64,
    stops: &[ShareHash],
) -> Vec<Arc<Share>> {
    let parents = parents.min(1000 / hashes.len() as u64);
    let mut shares = Vec::new();
    for hash in hashes {
        let mut next = Some(*hash);
        for _ in 0..=parents {
            let Some(share) = next.filter(|hash| !stops.contains(hash)).and_then(|hash| chain.get(&hash)) else {
                break;
            };
            shares.push(Arc::clone(share));
            next = share.previous();
        }
    }
    shares
}

/// Acts on events of the connection as the swarm would.
fn act(peer: &mut Peer, chain: &HashMap<ShareHash, Arc<Share>>, known: &Transactions, now: Instant) {
    while let Some(event) = peer.poll_event() {
        let orders = match event {
            PeerEvent::Connected(hello) => {
                let unknown = hello.best_share.filter(|hash| !chain.contains_key(hash));
                let request = unknown.map(|hash| Order::Request {
                    request: RequestId(1),
                    hashes: vec![hash],
                    parents: 0,
                    stops: Vec::new(),
                });
                [Order::Keep].into_iter().chain(request).chain([Order::Template(Arc::default())]).collect()
            }
            PeerEvent::Asked { id, hashes, parents, stops } => {
                vec![Order::Answer { id, shares: answer(chain, &hashes, parents, &stops) }]
            }
            PeerEvent::WantsAddresses(_) => vec![Order::Addresses(Vec::new())],
            _ => Vec::new(),
        };
        for order in orders {
            peer.handle_order(order, known, now).unwrap();
        }
    }
}

/// Connection in the state of the reference: its messages in this case, or, if it did not get to send any, those of the
/// other cases.
fn local_of(version: &Version) -> Local {
    Local {
        prefix: PREFIX,
        protocol_version: version.version,
        sub_version: String::from_utf8(version.sub_version.to_vec()).unwrap(),
        nonce: version.nonce,
        best_share: version.best_share,
        best_version: Some(35),
        minimum_protocol: 3500,
        has_laxer_nodes: false,
        advertise: Advertise::Port(19_444),
        shared: Shared::default(),
    }
}

#[test]
fn odd_clients_are_treated_as_the_reference_treats_them() {
    let rules = Arc::new(rules_of(&json("shares_mm35_mergedmining.json")["net"]));
    let file = json("behaviour.json");
    let cases = list_of(&file["p2p"]);
    let chain = chain_of(cases, &rules);
    let Message::Version(usual) = &messages_of(&cases[0]["received"])[0] else { panic!("no version") };
    let mut closed = Vec::new();
    for case in cases {
        let name = str_of(&case["name"]);
        let mut expected = messages_of(&case["received"]);
        let version = match expected.first() {
            Some(Message::Version(version)) => version.clone(),
            _ => usual.clone(),
        };
        let (start, known) = (Instant::now(), Transactions::new());
        let (remote, local_address) = (version.to.address, version.from.address);
        let local = local_of(&version);
        let mut peer = Peer::new(local, Arc::clone(&rules), remote, local_address, Direction::Inbound, 7, start, 0);
        let mut ended = None;
        for sent in list_of(&case["sent"]) {
            let now = start + Duration::from_secs_f64(sent["t"].as_f64().unwrap());
            assert_eq!(ended, None, "{name} was closed before its last message");
            ended = peer.handle_bytes(&bytes_of(&sent["hex"]), &known, now).err();
            act(&mut peer, &chain, &known, now);
        }
        if name == "handshake_silent_10s" {
            assert_eq!(peer.poll_timeout(), Some(start + Duration::from_secs(10)));
            ended = peer.handle_timeout(start + Duration::from_secs(10), 10).err();
        }

        let is_closed = !case["closed"].is_null() && name != TOLERATED;
        assert_eq!(ended.is_some(), is_closed, "{name}: {ended:?}, the reference {}", case["closed"]);
        if let Some(close) = &ended {
            closed.push((name, word_of(close)));
        }
        let mut ours = Vec::new();
        while let Some(frame) = peer.poll_frame() {
            let word = String::from_utf8(frame[8..20].to_vec()).unwrap();
            let payload = frame.slice(28..);
            ours.push(Message::parse(word.trim_end_matches('\0'), payload).unwrap().unwrap());
        }
        if expected.is_empty() {
            // It aborts the connection with data still in its buffer; our queued data may or may not be sent.
            assert!(matches!(ours[..], [Message::Version(_)]), "{name}: {ours:?}");
            continue;
        }
        if name == "sharereq_best_500_parents" {
            // Its response is the truncated payload: 203 shares, where our little chain has three.
            let answer = ours.pop();
            assert!(matches!(answer, Some(Message::ShareReply { shares, .. }) if shares.len() == 3), "{ours:?}");
        }
        let mut seen = Vec::new();
        expected.retain(|message| {
            let is_first = !seen.contains(&message.command());
            seen.push(message.command());
            // The first `addrme` is the advertisement that every client gets.
            let is_advertisement = message.command() == Command::AddrMe && is_first;
            !CHANCE.contains(&(name, message.command())) || is_advertisement
        });
        for message in ours.iter_mut().chain(&mut expected) {
            // A request's id is random.
            if let Message::ShareReq { id, .. } = message {
                *id = [0; 32];
            }
        }
        assert_eq!(ours, expected, "{name}");
    }
    assert_eq!(closed, CLOSED);
    ran("behaviour.json", "p2p", cases.len());
}
