//! Recorded dialogues of two reference nodes, with our state machine in the place of either.
//!
//! The other side's frames are fed as recorded. Frames that the played side sent on its own must be sent by ours;
//! decisions of its node (a new template, a better share, gossip) are ordered at the recorded moment, and the resulting
//! frames must equal the recorded ones, byte for byte. Differences allowed, and their reasons:
//!
//! - the order of hashes within `have_tx`, `losing_tx` and `forget_tx`, and which transaction of `remember_tx` is
//!   first: the reference keeps them in Python's sets, which are unordered;
//! - the ids of requests, which are random: responses are fed with our ids in their place;
//! - pings except the first, and repeated advertisements: both sides send them at random times, ours at others;
//! - the arrival time of the other side's frames: the recorder was between both, so the played side may have sent a
//!   frame before it received the previous one. A `have_tx` of transactions that it then sends in full was still in
//!   transit.
//!
//! Nonces, ports, times and the software's name are taken from the recording, so they need no mask.

use super::messages::STREAMS;
use super::support::{RecordedFrame, frames_of, json, ran, rules_of};
use bytes::Bytes;
use p2p::message::{Message, WrappedShare};
use p2p::peer::{Advertise, Direction, Local, Order, Peer, PeerEvent, RequestId, Shared};
use p2p::transactions::{TemplateTransactions, Transaction, Transactions};
use sharechain::chain::share_rules;
use sharechain::coin::BITCOIN_REGTEST;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareRules};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PREFIX: [u8; 8] = *b"sinetpre";

/// Share rules of the recordings' network. The demonstration ran on regtest.
fn rules_for(file: &str) -> ShareRules {
    match file {
        "demo_p2p.jsonl" => share_rules(&BITCOIN_REGTEST),
        "run33_p2p.jsonl" => rules_of(&json("shares_run33_v33_to_v35_segwit.json")["net"]),
        _ => rules_of(&json("shares_run17_v17_to_v35_segwit.json")["net"]),
    }
}

#[derive(Debug, Clone)]
struct Spoken {
    time: f64,
    is_mine: bool,
    message: Message,
}

fn spoken(frame: &RecordedFrame, client_is_mine: bool) -> Spoken {
    let message = Message::parse(&frame.command, frame.payload.clone()).unwrap().unwrap();
    Spoken { time: frame.time, is_mine: frame.is_client == client_is_mine, message }
}

/// Sorts the parts of a message that have no order.
fn sorted(message: &Message) -> Message {
    let hashes = |hashes: &[Digest]| {
        let mut hashes = hashes.to_vec();
        hashes.sort_unstable();
        hashes
    };
    match message {
        Message::HaveTx(list) => Message::HaveTx(hashes(list)),
        Message::LosingTx(list) => Message::LosingTx(hashes(list)),
        Message::ForgetTx(list) => Message::ForgetTx(hashes(list)),
        Message::RememberTx { hashes: list, transactions } => {
            let mut transactions = transactions.clone();
            transactions.sort_unstable();
            Message::RememberTx { hashes: hashes(list), transactions }
        }
        Message::ShareReq { hashes, parents, stops, .. } => {
            Message::ShareReq { id: [0; 32], hashes: hashes.clone(), parents: *parents, stops: stops.clone() }
        }
        other => other.clone(),
    }
}

/// The played side: our state machine, and the recorded state of its node.
struct Player {
    peer: Peer,
    rules: ShareRules,
    known: Transactions,
    /// All transactions in the recording.
    raw: HashMap<Digest, Bytes>,
    template: Vec<Arc<Transaction>>,
    held: Vec<Arc<Transaction>>,
    /// Frames of the other side that passed the recorder, but may not have arrived.
    under_way: VecDeque<Message>,
    /// Recorded ids of requests, with ours.
    ids: HashMap<[u8; 32], [u8; 32]>,
    asked: HashSet<[u8; 32]>,
    start: (Instant, f64),
    now: Instant,
    heard: usize,
}

impl Player {
    fn new(file: &str, mine: &Message, talk: &[Spoken]) -> Player {
        let Message::Version(version) = mine else { panic!("{mine:?} first") };
        // The frames after the first ping show whether and how it advertises.
        let second = talk.iter().filter(|one| one.is_mine).nth(2).map(|one| &one.message);
        let advertise = match second {
            Some(Message::AddrMe { port }) => Advertise::Port(*port),
            Some(Message::Addrs(records)) => Advertise::External(records[0].endpoint.address),
            _ => Advertise::Nothing,
        };
        let local = Local {
            prefix: PREFIX,
            protocol_version: version.version,
            sub_version: String::from_utf8(version.sub_version.to_vec()).unwrap(),
            nonce: version.nonce,
            best_share: version.best_share,
            // All of these chains begin with version 17 or 33.
            best_version: version.best_share.map(|_| 17),
            minimum_protocol: 3200,
            has_laxer_nodes: false,
            advertise,
            shared: Shared::default(),
        };
        let rules = rules_for(file);
        let (remote, local_address) = (version.to.address, version.from.address);
        // The demonstration ran with its own clock, whose time is in the advertisement.
        let unix = match second {
            Some(Message::Addrs(records)) => records[0].timestamp,
            _ => 0,
        };
        let now = Instant::now();
        let direction = Direction::Outbound;
        let peer = Peer::new(local, Arc::new(rules.clone()), remote, local_address, direction, 7, now, unix);
        let raw = talk.iter().filter_map(|one| match &one.message {
            Message::RememberTx { transactions, .. } => Some(transactions),
            _ => None,
        });
        let raw = raw.flatten().map(|raw| (Transaction::from_message(raw).hash, raw.clone())).collect();
        Player {
            peer,
            rules,
            known: Transactions::new(),
            raw,
            template: Vec::new(),
            held: Vec::new(),
            under_way: VecDeque::new(),
            ids: HashMap::new(),
            asked: HashSet::new(),
            start: (now, talk[0].time),
            now,
            heard: 0,
        }
    }

    /// A transaction that the node must have had at this moment. If the recording lacks it, only its hash matters.
    fn transaction(&mut self, hash: &Digest) -> Arc<Transaction> {
        let raw = self.raw.get(hash).cloned().unwrap_or_default();
        let (transaction, _) = self.known.learn(Transaction { hash: *hash, raw }).expect("there is room");
        self.held.push(Arc::clone(&transaction));
        transaction
    }

    /// Delivers frames of the other side, up to the first for which `is_later` returns true.
    fn arrive(&mut self, is_later: impl Fn(&Message) -> bool) {
        while self.under_way.front().is_some_and(|message| !is_later(message)) {
            let mut message = self.under_way.pop_front().unwrap();
            let count = match &mut message {
                Message::ShareReply { id, shares, .. } => {
                    *id = self.ids[&*id];
                    Some(shares.len())
                }
                Message::Shares(shares) => {
                    // A node knows the transactions of its own shares; the recording does not show their origin.
                    for share in shares.iter() {
                        self.know_all_of(share);
                    }
                    Some(shares.len())
                }
                Message::RememberTx { hashes, .. } => {
                    let hashes = hashes.clone();
                    hashes.iter().for_each(|hash| drop(self.transaction(hash)));
                    None
                }
                _ => None,
            };
            self.peer.handle_bytes(&message.to_frame(PREFIX), &self.known, self.now).unwrap_or_else(|close| {
                panic!("closed by {}: {close}", message.command());
            });
            self.heard += 1;
            while let Some(event) = self.peer.poll_event() {
                match event {
                    PeerEvent::Shares(shares) => assert_eq!(Some(shares.len()), count),
                    PeerEvent::Replied { shares, .. } => assert_eq!(shares.map(|shares| shares.len()).ok(), count),
                    PeerEvent::Asked { id, .. } => assert!(self.asked.insert(id)),
                    _ => {}
                }
            }
        }
    }

    fn load(&self, shares: &[WrappedShare]) -> Vec<Arc<Share>> {
        let load = |one: &WrappedShare| Share::from_wrapped(one.version, &one.contents, &self.rules).unwrap();
        shares.iter().map(|one| Arc::new(load(one))).collect()
    }

    fn know_all_of(&mut self, share: &WrappedShare) {
        for hash in new_hashes(&self.load(std::slice::from_ref(share))) {
            self.transaction(&hash);
        }
    }

    fn order(&mut self, order: Order) {
        self.peer.handle_order(order, &self.known, self.now).unwrap();
    }

    /// Next message sent, without those sent at random times.
    fn next(&mut self) -> Option<Message> {
        let frame = self.peer.poll_frame()?;
        let word = String::from_utf8(frame[8..20].to_vec()).unwrap();
        Some(Message::parse(word.trim_end_matches('\0'), frame.slice(28..)).unwrap().unwrap())
    }

    fn expect(&mut self, expected: &Message) {
        let sent = self.next().unwrap_or_else(|| panic!("nothing sent instead of {}", expected.command()));
        if let (Message::ShareReq { id: ours, .. }, Message::ShareReq { id: recorded, .. }) = (&sent, expected) {
            self.ids.insert(*recorded, *ours);
        }
        assert_eq!(sorted(&sent), sorted(expected));
    }

    fn tick(&mut self, time: f64) {
        self.now = self.start.0 + Duration::from_secs_f64(time - self.start.1);
        self.peer.handle_timeout(self.now, 0).unwrap();
        while let Some(message) = self.next() {
            assert!(matches!(message, Message::Ping | Message::AddrMe { .. } | Message::Addrs(_)), "{message:?}");
        }
    }
}

fn new_hashes(shares: &[Arc<Share>]) -> Vec<Digest> {
    let refs = shares.iter().filter_map(|share| share.info().transactions.as_ref());
    refs.flat_map(|refs| refs.new_hashes.iter().copied()).collect()
}

/// Returns whether the `remember_tx` at the front of `mine` belongs to the `shares` after it, not to a template: it is
/// forgotten right after them, or was empty.
fn goes_around(mine: &[&Message]) -> bool {
    match mine {
        [Message::RememberTx { hashes, transactions }, Message::Shares(shares), after @ ..] if hashes.is_empty() => {
            let sent: HashSet<Digest> = transactions.iter().map(|raw| Transaction::from_message(raw).hash).collect();
            let forgotten = match after {
                [Message::ForgetTx(hashes), ..] => hashes.iter().copied().collect(),
                _ => HashSet::new(),
            };
            !shares.is_empty() && sent == forgotten || transactions.is_empty()
        }
        _ => false,
    }
}

fn play(file: &str, client_is_mine: bool) -> usize {
    let talk: Vec<Spoken> = frames_of(file).iter().map(|frame| spoken(frame, client_is_mine)).collect();
    let first = talk.iter().find(|one| one.is_mine).unwrap();
    let mut player = Player::new(file, &first.message, &talk);
    player.expect(&first.message);
    let (mut checked, mut is_told, mut is_greeted) = (1, false, false);
    let mut skip_until = 0;
    for (index, one) in talk.iter().enumerate() {
        if !one.is_mine {
            player.under_way.push_back(one.message.clone());
            continue;
        }
        if std::ptr::eq(one, first) || index < skip_until {
            continue;
        }
        let at = format!("{file} frame {index}, {}", one.message.command());
        println!("{at}");
        // Messages of the played side from here on, with their positions.
        let ahead: Vec<(usize, &Message)> = talk
            .iter()
            .enumerate()
            .skip(index)
            .filter(|(_, one)| one.is_mine)
            .map(|(at, one)| (at, &one.message))
            .take(4)
            .collect();
        let mine: Vec<&Message> = ahead.iter().map(|(_, message)| *message).collect();
        let taken = if !is_greeted {
            // The other side's `version` had arrived.
            player.arrive(|message| !matches!(message, Message::Version(_)));
            is_greeted = true;
            player.order(Order::Keep);
            player.expect(&one.message);
            if matches!(mine[1], Message::AddrMe { .. } | Message::Addrs(_)) {
                player.expect(mine[1]);
                2
            } else {
                1
            }
        } else if !is_told && matches!(one.message, Message::HaveTx(_)) {
            is_told = true;
            let (Message::HaveTx(hashes), Message::RememberTx { transactions, .. }) = (mine[0], mine[1]) else {
                panic!("{at}: no remember_tx")
            };
            hashes.iter().for_each(|hash| drop(player.transaction(hash)));
            let hashes: Vec<Digest> = transactions.iter().map(|raw| Transaction::from_message(raw).hash).collect();
            player.template = hashes.iter().map(|hash| player.transaction(hash)).collect();
            let transactions = player.template.clone();
            player.order(Order::Template(Arc::new(TemplateTransactions { transactions, learned: Vec::new() })));
            player.expect(mine[0]);
            player.expect(mine[1]);
            2
        } else {
            speak(&mut player, &mine, one.time)
        };
        checked += taken;
        skip_until = ahead[taken - 1].0 + 1;
        assert_eq!(player.next(), None, "{at}: more was sent");
    }
    player.arrive(|_| false);
    let theirs = talk.iter().filter(|one| !one.is_mine).count();
    assert_eq!((checked, player.heard), (talk.len() - theirs, theirs), "{file}");
    talk.len()
}

/// Has the player send the first of `mine` with the frames that belong to it; returns the number of frames.
fn speak(player: &mut Player, mine: &[&Message], time: f64) -> usize {
    // Frames that X reported as missing: all others have arrived.
    let in_full: HashSet<Digest> = mine
        .iter()
        .take(2)
        .flat_map(|message| match message {
            Message::RememberTx { transactions, .. } => {
                transactions.iter().map(|raw| Transaction::from_message(raw).hash).collect()
            }
            _ => Vec::new(),
        })
        .collect();
    let is_around = goes_around(mine);
    let lacking: HashSet<Digest> = match mine {
        [_, Message::Shares(shares), ..] if is_around && in_full.is_empty() => {
            new_hashes(&player.load(shares)).into_iter().collect()
        }
        _ => in_full,
    };
    player.arrive(|message| match message {
        Message::HaveTx(hashes) => hashes.iter().any(|hash| lacking.contains(hash)),
        _ => false,
    });
    player.tick(time);
    match mine[0] {
        Message::Ping => 1,
        Message::AddrMe { port } => {
            player.order(Order::AddressOfMe(*port));
            player.expect(mine[0]);
            1
        }
        Message::Addrs(records) => {
            player.order(Order::Addresses(records.clone()));
            player.expect(mine[0]);
            1
        }
        Message::GetAddrs { count } => {
            player.order(Order::GetAddresses(*count));
            player.expect(mine[0]);
            1
        }
        Message::BestBlock { header } => {
            player.order(Order::BestBlock(*header));
            player.expect(mine[0]);
            1
        }
        Message::ShareReq { hashes, parents, stops, .. } => {
            let (hashes, stops) = (hashes.clone(), stops.clone());
            player.order(Order::Request { request: RequestId(1), hashes, parents: *parents, stops });
            player.expect(mine[0]);
            1
        }
        Message::ShareReply { id, shares, .. } => {
            assert!(player.asked.remove(id), "an answer to nothing");
            let shares = player.load(shares);
            player.order(Order::Answer { id: *id, shares });
            player.expect(mine[0]);
            1
        }
        Message::HaveTx(hashes) => {
            hashes.iter().for_each(|hash| drop(player.transaction(hash)));
            player.order(Order::Have(hashes.clone().into()));
            player.expect(mine[0]);
            1
        }
        Message::LosingTx(hashes) => {
            player.order(Order::Losing(hashes.clone().into()));
            player.expect(mine[0]);
            1
        }
        Message::Shares(shares) => {
            shares.iter().for_each(|share| player.know_all_of(share));
            let shares = player.load(shares);
            player.order(Order::Shares(shares.into()));
            player.expect(mine[0]);
            1
        }
        Message::RememberTx { transactions, .. } if is_around => {
            let Message::Shares(shares) = mine[1] else { panic!("no shares behind remember_tx") };
            shares.iter().for_each(|share| player.know_all_of(share));
            let shares = player.load(shares);
            player.order(Order::Shares(shares.into()));
            let count = if transactions.is_empty() { 2 } else { 3 };
            mine[..count].iter().for_each(|message| player.expect(message));
            count
        }
        Message::ForgetTx(_) | Message::RememberTx { .. } => new_template(player, mine),
        Message::Version(_) => panic!("a second version"),
    }
}

/// Transactions forgotten, remembered and then announced belong to a new template.
fn new_template(player: &mut Player, mine: &[&Message]) -> usize {
    let mut count = 0;
    let mut transactions = player.template.clone();
    if let Some(Message::ForgetTx(hashes)) = mine.get(count) {
        count += 1;
        transactions.retain(|one| !hashes.contains(&one.hash));
    }
    let mut added = HashSet::new();
    if let Some(Message::RememberTx { hashes, transactions: raw }) = mine.get(count)
        && !goes_around(&mine[count..])
    {
        count += 1;
        let sent = raw.iter().map(|raw| Transaction::from_message(raw).hash);
        added = hashes.iter().copied().chain(sent).collect();
        transactions.extend(added.iter().map(|hash| player.transaction(hash)));
    }
    let mut learned = Vec::new();
    if let Some(Message::HaveTx(hashes)) = mine.get(count)
        && hashes.iter().all(|hash| added.contains(hash))
    {
        count += 1;
        learned = hashes.clone();
    }
    player.template = transactions.clone();
    player.order(Order::Template(Arc::new(TemplateTransactions { transactions, learned })));
    mine[..count].iter().for_each(|message| player.expect(message));
    count
}

#[test]
fn recorded_dialogues_are_spoken_the_same_from_either_side() {
    for file in STREAMS {
        for client_is_mine in [true, false] {
            ran(file, "frames", play(file, client_is_mine));
        }
    }
}
