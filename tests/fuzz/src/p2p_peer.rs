//! Any sequence of a peer's messages and the swarm's orders, with time passing in between: never panics, and memory
//! stays within its bounds.
//!
//! Input: the start of the connection, then steps of a kind, a length and that many bytes. Frames get the right prefix
//! and checksum, and answers the id of a request, since a fuzzer finds neither; one kind of step sends raw bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2p::frame::encode;
use p2p::message::{AddressRecord, Command, Endpoint, Message, Version};
use p2p::peer::{Advertise, Close, Direction, Local, Order, Peer, PeerEvent, RequestId, Shared};
use p2p::transactions::{KNOWN_BYTES_MAX, TemplateTransactions, Transaction, Transactions};
use sharechain::share::{Share, ShareHash, ShareRules, Target, pow_sha256d};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PREFIX: [u8; 8] = *b"sinetpre";

/// Maximum number of shares kept for later orders.
const SHARES_MAX: usize = 16;

/// A peer's own limit on its send queue, and the longest message that is queued on top of it.
const OUTPUT_BYTES_MAX: usize = 8_000_000 + 32_000_028;

fn rules() -> Arc<ShareRules> {
    Arc::new(ShareRules {
        identifier: *b"sinet001",
        max_target: Target::MAX_256,
        newest_version: 36,
        segwit_activation_version: 15,
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb".into(),
        pow: pow_sha256d,
        no_votes_for_16_above: None,
    })
}

struct Bench {
    peer: Peer,
    known: Transactions,
    shares: Vec<Arc<Share>>,
    /// Identifier of the last request sent.
    asked_them: [u8; 32],
    /// Identifier of the last request received.
    asked_us: [u8; 32],
    reads: bool,
    /// Bytes fed to the connection.
    fed: usize,
    now: Instant,
    start: Instant,
}

impl Bench {
    fn new(mode: u8, shared: Shared) -> Bench {
        let local = Local {
            prefix: PREFIX,
            protocol_version: 3501,
            sub_version: "fuzz".into(),
            nonce: 1,
            best_share: None,
            best_version: (mode & 1 == 0).then_some(35),
            minimum_protocol: 1400,
            has_laxer_nodes: mode & 32 != 0,
            advertise: match mode & 6 {
                0 => Advertise::Nothing,
                2 => Advertise::Port(9333),
                _ => Advertise::External(([1, 2, 3, 4], 9333).into()),
            },
            shared,
        };
        let now = Instant::now();
        let (remote, here) = (([10, 0, 0, 1], 5000).into(), ([10, 0, 0, 2], 9333).into());
        let peer = Peer::new(local, rules(), remote, here, Direction::Inbound, u64::from(mode), now, 1_700_000_000);
        let mut bench = Bench {
            peer,
            known: Transactions::new(),
            shares: Vec::new(),
            asked_them: [0; 32],
            asked_us: [0; 32],
            reads: mode & 16 == 0,
            fed: 0,
            now,
            start: now,
        };
        if mode & 8 == 0 {
            let endpoint = Endpoint { services: 0, address: remote };
            let hello = Message::Version(Version {
                version: 3501,
                services: 0,
                to: endpoint,
                from: endpoint,
                nonce: 2,
                sub_version: Default::default(),
                mode: 1,
                best_share: None,
            });
            bench.feed(&hello.to_frame(PREFIX)).expect("a good handshake");
        }
        bench
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), Close> {
        self.fed += bytes.len();
        self.peer.handle_bytes(bytes, &self.known, self.now)
    }

    fn step(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Close> {
        match kind {
            0..=129 => {
                let command = Command::ALL[usize::from(kind) % Command::ALL.len()];
                let mut payload = bytes.to_vec();
                if let (Command::ShareReply, Some(id)) = (command, payload.first_chunk_mut::<32>()) {
                    *id = self.asked_them;
                }
                let frame = encode(PREFIX, command.word(), &payload);
                let (first, second) = frame.split_at(frame.len() * usize::from(kind) / 130);
                self.feed(first)?;
                self.feed(second)
            }
            130..=149 => self.feed(bytes),
            150..=199 => match self.order(kind, bytes) {
                Some(order) => self.peer.handle_order(order, &self.known, self.now),
                None => Ok(()),
            },
            200..=209 => {
                let named: HashSet<_> = self.known.hashes().into_iter().take(usize::from(kind - 200)).collect();
                let lost = self.known.forget_old(&named, self.now);
                self.peer.handle_order(Order::Losing(lost.into()), &self.known, self.now)
            }
            seconds => {
                self.now += Duration::from_secs(u64::from(seconds - 209));
                let unix = 1_700_000_000 + (self.now - self.start).as_secs();
                self.peer.handle_timeout(self.now, unix)
            }
        }
    }

    fn order(&mut self, kind: u8, bytes: &[u8]) -> Option<Order> {
        let hashes: Vec<_> = bytes.chunks_exact(32).map(|hash| <[u8; 32]>::try_from(hash).expect("32 bytes")).collect();
        let first = bytes.first().copied().unwrap_or(0);
        Some(match kind % 12 {
            0 => Order::Shares(self.shares.iter().take(usize::from(first)).cloned().collect()),
            1 => Order::Request {
                request: RequestId(u64::from(first)),
                hashes: hashes.first().map(|hash| vec![ShareHash(*hash)])?,
                parents: u64::from(first),
                stops: hashes[1..].iter().copied().map(ShareHash).collect(),
            },
            2 => Order::Answer {
                id: self.asked_us,
                shares: self
                    .shares
                    .iter()
                    .cycle()
                    .take(usize::from(first).min(4 * self.shares.len()))
                    .cloned()
                    .collect(),
            },
            3 => Order::Addresses(vec![
                AddressRecord {
                    timestamp: 1,
                    endpoint: Endpoint { services: 0, address: ([1, 2, 3, first], 5).into() },
                };
                usize::from(first)
            ]),
            4 => Order::AddressOfMe(u16::from(first)),
            5 => Order::GetAddresses(8),
            6 => Order::BestBlock([first; 80]),
            7 => {
                // Transactions announced by the peer, so that a share may name them.
                let known = self.known.hashes();
                let chosen = known.iter().skip(usize::from(first) % 4).take(50);
                let transactions: Vec<Arc<Transaction>> = chosen.filter_map(|hash| self.known.find(hash)).collect();
                let learned = transactions.iter().map(|one| one.hash).take(usize::from(first) % 3).collect();
                Order::Template(Arc::new(TemplateTransactions { transactions, learned }))
            }
            8 => Order::Have(hashes.into()),
            9 => Order::Keep,
            10 => Order::Losing(hashes.into()),
            _ => Order::MeasureLatency,
        })
    }

    fn drain(&mut self) {
        while let Some(event) = self.peer.poll_event() {
            match event {
                PeerEvent::Shares(shares) | PeerEvent::Replied { shares: Ok(shares), .. } => {
                    assert!(shares.len() <= 1_001);
                    let room = SHARES_MAX - self.shares.len();
                    self.shares.extend(shares.into_iter().take(room));
                }
                PeerEvent::Asked { id, hashes, .. } => {
                    assert!(!hashes.is_empty());
                    self.asked_us = id;
                }
                PeerEvent::WantsAddresses(count) => assert!(count <= 100),
                _ => {}
            }
        }
        assert!(self.peer.output_bytes() <= OUTPUT_BYTES_MAX);
        assert!(self.known.known_bytes() <= KNOWN_BYTES_MAX);
        while let Some(frame) = self.reads.then(|| self.peer.poll_frame()).flatten() {
            let word = std::str::from_utf8(&frame[8..20]).expect("our commands are text").trim_end_matches('\0');
            let message = Message::parse(word, frame.slice(28..)).expect("we can read what we write");
            if let Some(Message::ShareReq { id, .. }) = message {
                self.asked_them = id;
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((mode, mut rest)) = input.split_first() else { return };
    let shared = Shared::default();
    let mut bench = Bench::new(*mode, shared.clone());
    bench.drain();
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
        let (bytes, next) = after.split_at(length);
        rest = next;
        let ended = bench.step(head[0], bytes);
        bench.drain();
        // More than the input, where a frame that is made of it continues one that announced too much.
        assert!(shared.unfinished_bytes() <= bench.fed);
        if let Err(close) = ended {
            assert!(!close.to_string().is_empty());
            break;
        }
        let _ = (bench.peer.poll_timeout(), bench.peer.unfinished());
    }
    drop(bench);
    assert_eq!(shared.unfinished_bytes(), 0);
});
