//! Data from a daemon over Bitcoin's P2P protocol, in pieces, with blocks handed over and time passing in between.
//!
//! Input: steps of a kind, a length and that many bytes. Frames get the right magic and checksum, since a fuzzer never
//! finds a checksum; one kind of step sends bytes as they are.
#![no_main]

use bitcoin::BlockHash;
use bitcoin::hashes::{Hash, sha256d};
use libfuzzer_sys::fuzz_target;
use p2pool::bitcoind::wire::Wire;
use std::time::{Duration, Instant};

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

const COMMANDS: [&str; 10] =
    ["version", "verack", "ping", "pong", "inv", "headers", "getdata", "sendheaders", "reject", "alert"];

fuzz_target!(|input: &[u8]| {
    let mut now = Instant::now();
    let mut wire = Wire::new(MAGIC, ([127, 0, 0, 1], 8333).into(), 1_700_000_000, 1, now);
    let mut rest = input;
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
        let (payload, next) = after.split_at(length);
        rest = next;
        let ended = match head[0] {
            kind @ 0..=99 => {
                let frame = frame(COMMANDS[usize::from(kind) % COMMANDS.len()], payload);
                // In two pieces, as a socket may.
                let (first, second) = frame.split_at(frame.len() * usize::from(kind) / 100);
                wire.handle_bytes(first, now).and_then(|()| wire.handle_bytes(second, now)).is_err()
            }
            100..=149 => wire.handle_bytes(payload, now).is_err(),
            150..=199 => {
                let hash = |bytes: &[u8]| BlockHash::from_byte_array(sha256d::Hash::hash(bytes).to_byte_array());
                let previous = payload
                    .first_chunk::<32>()
                    .map_or(BlockHash::all_zeros(), |bytes| BlockHash::from_byte_array(*bytes));
                wire.submit(hash(payload), previous, payload.to_vec().into(), payload.len() % 2 == 1);
                false
            }
            seconds => {
                now += Duration::from_secs(u64::from(seconds - 199));
                wire.handle_timeout(now).is_err()
            }
        };
        while wire.poll_output().is_some() {}
        while wire.poll_event().is_some() {}
        if ended {
            return;
        }
        let _ = (wire.is_ready(), wire.poll_timeout());
    }
});

fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    let mut name = [0; 12];
    name[..command.len()].copy_from_slice(command.as_bytes());
    frame.extend_from_slice(&name);
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&sha256d::Hash::hash(payload).to_byte_array()[..4]);
    frame.extend_from_slice(payload);
    frame
}
