//! Behaviour of a connection beyond the recorded conversations: here the shares and the peer that its tests use.

mod connection;
mod memory;
mod shares;
mod tolerance;

use super::*;
use crate::message::{Endpoint, Version};
use sharechain::merkle::Digest;
use sharechain::rules::PayeeForm;
use sharechain::share::{
    Bits, CheckError, Contents, HashLink, MinHeader, Payout, Share, ShareData, ShareHash, ShareInfo, ShareVersion,
    StaleInfo, Target, TransactionRefs, pow_sha256d,
};
use std::cell::Cell;

use crate::message::WrappedShare;

const PREFIX: [u8; 8] = *b"sinetpre";

/// Target met by all but one in millions of hashes.
const EASY: Bits = Bits(0x20ff_ffff);

thread_local! {
    /// Number of proofs of work computed by this test.
    static HASHED: Cell<usize> = const { Cell::new(0) };
}

fn counted_pow(header: &[u8; 80]) -> Digest {
    HASHED.set(HASHED.get() + 1);
    pow_sha256d(header)
}

fn rules() -> ShareRules {
    ShareRules {
        identifier: *b"signet01",
        max_target: Target::MAX_256,
        newest_version: 35,
        segwit_activation_version: 0,
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb".into(),
        pow: counted_pow,
        no_votes_for_16_above: None,
    }
}

/// Creates a share with a hash of its own, the first to name these transactions.
fn share(version: ShareVersion, number: u32, new_hashes: &[Digest]) -> Arc<Share> {
    share_of(version, number, new_hashes, EASY).expect("it meets its target")
}

fn share_of(version: ShareVersion, number: u32, new: &[Digest], bits: Bits) -> Result<Arc<Share>, CheckError> {
    let refs = (0..new.len() as u64).map(|index| (0, index)).collect();
    let payout = if version.rules().payee == PayeeForm::Address {
        Payout::Address("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn".into())
    } else {
        Payout::PubkeyHash([4; 20])
    };
    let share_data = ShareData {
        previous: None,
        coinbase: [3, 1, 2, 3].into(),
        nonce: number,
        payout,
        subsidy: 50,
        donation: 0,
        stale_info: StaleInfo::NONE,
        desired_version: 35,
    };
    let share_info = ShareInfo {
        share_data,
        segwit_data: None,
        transactions: version.lists_transactions().then(|| TransactionRefs { new_hashes: new.into(), refs }),
        far_share_hash: None,
        max_bits: bits,
        bits,
        timestamp: 1_000,
        absheight: 1,
        abswork: 3,
        additions: None,
    };
    let contents = Contents {
        version,
        min_header: MinHeader { version: 4, previous_block: None, timestamp: 5, bits: EASY, nonce: 6 },
        share_info,
        ref_merkle_branch: Box::default(),
        last_txout_nonce: 7,
        hash_link: HashLink { state: [8; 32], extra_data: Box::default(), length: 300 },
        merkle_branch: Box::default(),
    };
    Share::from_bytes(&sharechain::share::pack(&contents), &rules()).map(Arc::new)
}

fn wrap<'a>(shares: impl IntoIterator<Item = &'a Arc<Share>>) -> Vec<WrappedShare> {
    shares.into_iter().map(|share| WrappedShare::of(share)).collect()
}

pub(super) struct Talk {
    pub(super) peer: Peer,
    known: Transactions,
    start: Instant,
    pub(super) now: Instant,
}

fn hello(version: u32, nonce: u64) -> Message {
    let endpoint = Endpoint { services: 0, address: ([127, 0, 0, 1], 1).into() };
    Message::Version(Version {
        version,
        services: 5,
        to: endpoint,
        from: endpoint,
        nonce,
        sub_version: Bytes::from_static(b"test"),
        mode: 1,
        best_share: None,
    })
}

impl Talk {
    fn new(best_version: Option<u64>) -> Talk {
        Talk::with(best_version, Shared::default())
    }

    fn with(best_version: Option<u64>, shared: Shared) -> Talk {
        let local = Local {
            prefix: PREFIX,
            protocol_version: 3502,
            sub_version: "ours".into(),
            nonce: 99,
            best_share: None,
            best_version,
            minimum_protocol: 3500,
            has_laxer_nodes: false,
            advertise: Advertise::External("[2001:db8::1]:9333".parse().unwrap()),
            shared,
        };
        let now = Instant::now();
        let (remote, here) = (([10, 0, 0, 1], 5000).into(), ([10, 0, 0, 2], 9333).into());
        let peer = Peer::new(local, Arc::new(rules()), remote, here, Direction::Inbound, 3, now, 1_000_000);
        Talk { peer, known: Transactions::new(), start: now, now }
    }

    /// Completes the handshake, and drops its messages and events.
    pub(super) fn connected(best_version: Option<u64>) -> Talk {
        Talk::connected_with(best_version, Shared::default())
    }

    fn connected_with(best_version: Option<u64>, shared: Shared) -> Talk {
        let mut talk = Talk::with(best_version, shared);
        talk.hear(&hello(3501, 1)).unwrap();
        talk.order(Order::Keep).unwrap();
        talk.said();
        assert!(matches!(talk.peer.poll_event(), Some(PeerEvent::Connected(_))));
        talk
    }

    /// A connection of a network whose honest nodes check less than this one.
    fn lax() -> Talk {
        let mut talk = Talk::connected(None);
        talk.peer.local.has_laxer_nodes = true;
        talk
    }

    pub(super) fn hear(&mut self, message: &Message) -> Result<(), Close> {
        self.peer.handle_bytes(&message.to_frame(PREFIX), &self.known, self.now)
    }

    pub(super) fn order(&mut self, order: Order) -> Result<(), Close> {
        self.peer.handle_order(order, &self.known, self.now)
    }

    /// Returns the messages sent since the last call.
    pub(super) fn said(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.peer.poll_frame())
            .map(|frame| {
                let word = std::str::from_utf8(&frame[8..20]).unwrap().trim_end_matches('\0').to_owned();
                Message::parse(&word, frame.slice(28..)).unwrap().unwrap()
            })
            .collect()
    }

    pub(super) fn wait(&mut self, seconds: u64) -> Result<(), Close> {
        self.now += Duration::from_secs(seconds);
        let unix = 1_000_000 + (self.now - self.start).as_secs();
        self.peer.handle_timeout(self.now, unix)
    }
}

pub(super) fn offence(result: Result<(), Close>) -> &'static str {
    match result {
        Ok(()) => "nothing",
        Err(Close::Quiet(_) | Close::Refusals(_)) => "quiet",
        Err(Close::Ourselves) => "ourselves",
        Err(Close::Offence(offence)) => offence.word(),
    }
}
