//! Conversations with a daemon: greetings, the fate of blocks, announcements, and frames that are refused.

use super::*;
use bitcoin::constants::genesis_block;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

fn frame(message: NetworkMessage) -> Vec<u8> {
    serialize(&RawNetworkMessage::new(Magic::from_bytes(MAGIC), message))
}

fn sent(wire: &mut Wire) -> Vec<NetworkMessage> {
    std::iter::from_fn(|| wire.poll_output())
        .map(|bytes| deserialize::<RawNetworkMessage>(&bytes).unwrap().into_payload())
        .collect()
}

fn ready(now: Instant) -> Wire {
    let mut wire = Wire::new(MAGIC, SocketAddr::from(([127, 0, 0, 1], 1)), 1_700_000_000, 7, now);
    let [NetworkMessage::Version(version)] = &sent(&mut wire)[..] else { panic!("no version") };
    let answer = [frame(NetworkMessage::Version(version.clone())), frame(NetworkMessage::Verack)].concat();
    // One byte at a time: the result must not depend on how the bytes are cut.
    for byte in answer {
        wire.handle_bytes(&[byte], now).unwrap();
    }
    assert_eq!(sent(&mut wire), [NetworkMessage::Verack, NetworkMessage::SendHeaders]);
    assert!(matches!(wire.poll_event(), Some(Event::Ready(_))));
    wire
}

fn genesis() -> Header {
    genesis_block(bitcoin::Network::Regtest).header
}

fn child(nonce: u32) -> Header {
    Header { prev_blockhash: genesis().block_hash(), nonce, ..genesis() }
}

/// Submits a block and sends `answers` between the two pongs; returns the fate.
fn fate(answers: &[Vec<Header>]) -> Fate {
    let now = Instant::now();
    let mut wire = ready(now);
    let ours = child(1).block_hash();
    assert!(wire.submit(ours, genesis().block_hash(), Bytes::from_static(&[1; 81]), false));
    wire.poll_output().unwrap();
    let [NetworkMessage::Ping(nonce)] = sent(&mut wire)[..] else { panic!("no ping") };
    wire.handle_bytes(&frame(NetworkMessage::Pong(nonce)), now).unwrap();
    let asked = sent(&mut wire);
    let [NetworkMessage::GetHeaders(question), NetworkMessage::Ping(nonce)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(question.locator_hashes, [genesis().block_hash()]);
    for answer in answers {
        wire.handle_bytes(&frame(NetworkMessage::Headers(answer.clone())), now).unwrap();
    }
    wire.handle_bytes(&frame(NetworkMessage::Pong(*nonce)), now).unwrap();
    let fates: Vec<_> = std::iter::from_fn(|| wire.poll_event())
        .filter_map(|event| if let Event::Fate(hash, fate) = event { Some((hash, fate)) } else { None })
        .collect();
    assert_eq!(fates.len(), 1);
    assert_eq!(fates[0].0, ours);
    fates[0].1
}

#[test]
fn a_blocks_fate_is_read_off_the_headers() {
    assert_eq!(fate(&[vec![child(1)]]), Fate::InChain);
    assert_eq!(fate(&[vec![child(2)]]), Fate::Displaced);
    assert_eq!(fate(&[vec![]]), Fate::NotTaken);
    assert_eq!(fate(&[vec![genesis()]]), Fate::Unconnected);
    assert_eq!(fate(&[]), Fate::Unconnected);
}

#[test]
fn a_block_that_is_offered_again_goes_out_only_to_a_daemon_with_its_parent() {
    let probe = |answer: &[Header]| {
        let now = Instant::now();
        let mut wire = ready(now);
        assert!(wire.submit(child(1).block_hash(), genesis().block_hash(), Bytes::from_static(b"the block"), true));
        let asked = sent(&mut wire);
        let [NetworkMessage::GetHeaders(_), NetworkMessage::Ping(nonce)] = &asked[..] else { panic!("{asked:?}") };
        wire.handle_bytes(&frame(NetworkMessage::Headers(answer.to_vec())), now).unwrap();
        wire.handle_bytes(&frame(NetworkMessage::Pong(*nonce)), now).unwrap();
        let fate = std::iter::from_fn(|| wire.poll_event())
            .find_map(|event| if let Event::Fate(_, fate) = event { Some(fate) } else { None });
        (wire.poll_output().is_some_and(|bytes| bytes.ends_with(b"the block")), fate)
    };
    let elsewhere = Header { prev_blockhash: child(9).block_hash(), ..genesis() };
    assert_eq!(probe(&[elsewhere]), (false, Some(Fate::Unconnected)));
    assert_eq!(probe(&[child(1)]), (false, Some(Fate::InChain)));
    assert_eq!(probe(&[child(2)]), (true, None));
    assert_eq!(probe(&[]), (true, None));
}

#[test]
fn announcements_do_not_confuse_the_answer() {
    let stranger = Header { prev_blockhash: child(9).block_hash(), ..genesis() };
    assert_eq!(fate(&[vec![stranger], vec![child(1)]]), Fate::InChain);
    assert_eq!(fate(&[vec![child(1)], vec![stranger]]), Fate::InChain);
}

#[test]
fn new_blocks_are_heard_however_they_are_announced_and_unknown_kinds_are_ignored() {
    let now = Instant::now();
    let mut wire = ready(now);
    let hash = genesis().block_hash();
    let inventory = vec![
        Inventory::Unknown { inv_type: 99, hash: [9; 32] },
        Inventory::Transaction(bitcoin::Txid::all_zeros()),
        Inventory::Block(hash),
        Inventory::WitnessBlock(hash),
        Inventory::CompactBlock(hash),
    ];
    wire.handle_bytes(&frame(NetworkMessage::Inv(inventory)), now).unwrap();
    wire.handle_bytes(&frame(NetworkMessage::Headers(vec![genesis()])), now).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| wire.poll_event()).collect();
    assert_eq!(events, vec![Event::NewBlock(hash); 4]);
    wire.handle_bytes(&frame(NetworkMessage::FeeFilter(1)), now).unwrap();
    assert_eq!(sent(&mut wire), []);
}

#[test]
fn pings_are_answered_and_sent_and_silence_ends_the_connection() {
    let now = Instant::now();
    let mut wire = ready(now);
    wire.handle_bytes(&frame(NetworkMessage::Ping(5)), now).unwrap();
    assert_eq!(sent(&mut wire), [NetworkMessage::Pong(5)]);
    assert_eq!(wire.poll_timeout(), now + PING_INTERVAL);
    wire.handle_timeout(now + PING_INTERVAL).unwrap();
    assert!(matches!(sent(&mut wire)[..], [NetworkMessage::Ping(_)]));
    assert_eq!(wire.handle_timeout(now + SILENCE_MAX), Err(WireError::Silent(SILENCE_MAX)));
}

#[test]
fn a_daemon_that_never_greets_is_given_up() {
    let now = Instant::now();
    let mut wire = Wire::new(MAGIC, SocketAddr::from(([127, 0, 0, 1], 1)), 0, 0, now);
    assert_eq!(wire.poll_timeout(), now + HANDSHAKE_MAX);
    assert!(wire.handle_timeout(now + HANDSHAKE_MAX).is_err());
}

#[test]
fn a_wrong_magic_a_wrong_checksum_and_a_giant_length_are_refused_at_once() {
    let now = Instant::now();
    let good = frame(NetworkMessage::Ping(1));
    let mut magic = good.clone();
    magic[0] ^= 1;
    assert!(matches!(ready(now).handle_bytes(&magic, now), Err(WireError::Magic(_))));
    let mut checksum = good.clone();
    checksum[20] ^= 1;
    assert_eq!(ready(now).handle_bytes(&checksum, now), Err(WireError::Checksum("ping".into())));
    let mut giant = good;
    giant[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    // Refused by the header alone, before any of the payload.
    assert!(matches!(ready(now).handle_bytes(&giant[..24], now), Err(WireError::Oversized(_))));
}

#[test]
fn a_count_of_headers_that_are_not_there_is_an_error_and_no_allocation() {
    let now = Instant::now();
    let mut wire = ready(now);
    wire.send_raw("headers", &[0xff; 9]);
    let bytes = wire.poll_output().unwrap();
    assert!(matches!(wire.handle_bytes(&bytes, now), Err(WireError::Unreadable { .. })));
}

#[test]
fn a_block_that_the_daemon_asks_for_is_served_and_another_is_not() {
    let now = Instant::now();
    let mut wire = ready(now);
    wire.submit(child(1).block_hash(), genesis().block_hash(), Bytes::from_static(b"the block"), false);
    while wire.poll_output().is_some() {}
    let wanted = vec![Inventory::WitnessBlock(child(1).block_hash()), Inventory::Block(child(2).block_hash())];
    wire.handle_bytes(&frame(NetworkMessage::GetData(wanted)), now).unwrap();
    assert!(wire.poll_output().unwrap().ends_with(b"the block"));
    assert!(matches!(sent(&mut wire)[..], [NetworkMessage::NotFound(_)]));
}
