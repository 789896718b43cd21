//! Attackers: one withholds shares, one floods nodes with bad ones, one tries to become every peer of a node.

use p2p::message::{AddressRecord, Endpoint};
use p2p::peer::{Direction, Order, Peer, PeerEvent, Shared};
use p2p::transactions::Transactions;
use sharechain::chain::Sharechain;
use sharechain::share::Share;
use sharechain::testkit::{self, Plan};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::exchange::{Command, Moment, Opened, Socket};
use super::node::Node;

/// Interval of a flooder's waves.
const WAVE_INTERVAL: Duration = Duration::from_secs(10);
/// Number of shares in a wave.
const WAVE: u32 = 20;
/// Interval at which an eclipser announces its addresses and dials its victims again.
const PUSH_INTERVAL: Duration = Duration::from_secs(20);
/// Number of addresses announced at once.
const PUSHED: usize = 100;

/// Mines like Eyal and Sirer's selfish miner: withholds its shares while it is ahead, and publishes them when the
/// others are about to catch up.
#[derive(Debug)]
pub(super) struct Withholder {
    node: Node,
    /// All shares known to it, including its secret ones.
    mind: Sharechain,
    /// Unpublished part of its own branch, oldest first.
    secret: VecDeque<Arc<Share>>,
    /// Set while its branch is public and as long as the others'.
    racing: bool,
    /// Height of the public chain at its last reaction.
    seen: u32,
}

impl Withholder {
    /// Starts with the shares that the node has.
    pub(super) fn new(node: Node, mind: Sharechain) -> Self {
        let seen = height_of(&node);
        Self { node, mind, secret: VecDeque::new(), racing: false, seen }
    }

    /// Reacts to newly published shares.
    fn react(&mut self, at: Moment) {
        let public = height_of(&self.node);
        if public <= self.seen {
            return;
        }
        self.seen = public;
        let chain = self.node.chain();
        let news = chain.choice().best.into_iter().flat_map(|best| chain.all().chain(best, u32::MAX));
        let mut news: Vec<_> = news.take_while(|hash| !self.mind.all().contains(hash)).collect();
        news.reverse();
        for share in news.iter().filter_map(|hash| chain.share(*hash)) {
            self.mind.add(Arc::clone(share), None, at.unix);
        }
        self.think(at);
        // The finder of this share decided the race.
        self.racing = false;
        let Some(secret) = self.secret.back().map(|share| share.absheight()) else { return };
        if secret < public {
            self.secret.clear();
        } else if secret <= public + 1 {
            self.racing = secret == public;
            self.publish(u32::MAX, at);
        } else {
            self.publish(public, at);
        }
    }

    /// Publishes its branch up to and including this height.
    fn publish(&mut self, height: u32, at: Moment) {
        let mut shares = Vec::new();
        while self.secret.front().is_some_and(|share| share.absheight() <= height)
            && let Some(share) = self.secret.pop_front()
        {
            self.node.take_own(Arc::clone(&share), at);
            shares.push(share);
        }
        shares.reverse();
        // In a race its node prefers the others' share, seen earlier, and would not send its own.
        for some in shares.chunks(5).rev() {
            self.node.push(some, at);
        }
        self.seen = height_of(&self.node);
    }

    fn think(&mut self, at: Moment) {
        self.mind.think(at.unix);
        self.mind.prune(at.unix);
        while self.mind.poll_event().is_some() {}
    }
}

/// Height of a node's best chain.
fn height_of(node: &Node) -> u32 {
    let chain = node.chain();
    chain.choice().best.and_then(|best| chain.share(best)).map_or(0, |best| best.absheight())
}

impl Agent for Withholder {
    fn node(&self) -> &Node {
        &self.node
    }

    fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        self.node.received(socket, bytes, at);
        self.react(at);
    }

    fn timeout(&mut self, at: Moment) {
        self.node.timeout(at);
        self.react(at);
    }

    fn find(&mut self, nonce: u32, at: Moment) {
        // Its own branch if that is as long as the public one, which its mind saw first.
        let parent = self.secret.back().map(|share| share.hash()).or(self.mind.choice().best);
        let share = testkit::share_on(&mut self.mind, parent, &self.node.plan(nonce, at));
        self.node.note_found(share.hash());
        self.mind.add(Arc::clone(&share), None, at.unix);
        self.think(at);
        self.secret.push_back(share);
        if std::mem::take(&mut self.racing) {
            self.publish(u32::MAX, at);
        }
    }
}

/// Kind of bad shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Junk {
    /// Shares that do not fit their ancestors.
    Misfits,
    /// Shares with unknown parents.
    Orphans,
    /// Shares without proof of work.
    Idle,
}

/// Sends bad shares to every peer, and otherwise behaves like a node.
#[derive(Debug)]
pub(super) struct Flooder {
    node: Node,
    junk: Junk,
    next: Instant,
    nonce: u32,
    /// Chain of shares whose parents only it knows.
    nursery: Sharechain,
    commands: VecDeque<Command>,
    /// Number of bad shares sent, counted once per peer.
    sent: u64,
}

impl Flooder {
    /// Starts flooding at `next`.
    pub(super) fn new(node: Node, junk: Junk, nursery: Sharechain, next: Instant) -> Self {
        Self { node, junk, next, nonce: u32::MAX / 2, nursery, commands: VecDeque::new(), sent: 0 }
    }

    fn wave(&mut self, at: Moment) {
        let peers = self.node.sockets().count() as u64;
        if peers == 0 {
            return;
        }
        self.sent += peers * u64::from(WAVE);
        match self.junk {
            Junk::Misfits => {
                let shares: Vec<_> = (0..WAVE).map(|_| self.misfit(at)).collect();
                self.node.push(&shares, at);
            }
            Junk::Orphans => {
                for _ in 0..WAVE {
                    self.nonce += 1;
                    let plan = self.node.plan(self.nonce, at);
                    // The first of the two is never sent.
                    let parent = testkit::share_on(&mut self.nursery, None, &plan);
                    self.nursery.add(Arc::clone(&parent), None, at.unix);
                    let share = testkit::share_on(&mut self.nursery, Some(parent.hash()), &plan);
                    self.node.push(&[share], at);
                }
                self.nursery = Sharechain::new(self.node.network());
            }
            Junk::Idle => {
                self.nonce += 1;
                let bytes = self.node.frame_without_work(WAVE, self.nonce, at);
                let sockets: Vec<Socket> = self.node.sockets().collect();
                self.commands.extend(sockets.into_iter().map(|socket| Command::Send(socket, bytes.clone())));
            }
        }
    }

    /// Makes a well-formed share whose claimed height is one too high.
    fn misfit(&mut self, at: Moment) -> Arc<Share> {
        self.nonce += 1;
        let plan: Plan = self.node.plan(self.nonce, at);
        let chain = self.node.chain_mut();
        let tip = chain.tip();
        let mut info = testkit::info(chain, &tip, &plan);
        info.absheight += 1;
        testkit::find(chain, &tip, &plan, info)
    }
}

impl Agent for Flooder {
    fn node(&self) -> &Node {
        &self.node
    }

    fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    fn timeout(&mut self, at: Moment) {
        if self.next <= at.now {
            self.next = at.now + WAVE_INTERVAL;
            self.wave(at);
        }
        self.node.timeout(at);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout().into_iter().chain([self.next]).min()
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.node.poll_command().or_else(|| self.commands.pop_front())
    }

    fn bad_shares_sent(&self) -> u64 {
        self.sent
    }
}

/// Owns many addresses in a few networks, and tries to be every peer of its victims: dials them, announces only its own
/// addresses, and sends no shares.
#[derive(Debug)]
pub(super) struct Eclipser {
    /// Used only for its version message.
    node: Node,
    addresses: Vec<SocketAddr>,
    victims: Vec<SocketAddr>,
    peers: BTreeMap<Socket, Peer>,
    known: Transactions,
    rng: fastrand::Rng,
    next: Instant,
    commands: VecDeque<Command>,
}

impl Eclipser {
    /// Starts at `next`.
    pub(super) fn new(
        node: Node,
        addresses: Vec<SocketAddr>,
        victims: Vec<SocketAddr>,
        rng: fastrand::Rng,
        next: Instant,
    ) -> Self {
        let (peers, known, commands) = (BTreeMap::new(), Transactions::new(), VecDeque::new());
        Self { node, addresses, victims, peers, known, rng, next, commands }
    }

    fn some_of_mine(&mut self, count: usize, at: Moment) -> Vec<AddressRecord> {
        let pick = |address: SocketAddr| AddressRecord {
            timestamp: at.whole_unix(),
            endpoint: Endpoint { services: 0, address },
        };
        (0..count.min(PUSHED)).map(|_| pick(self.addresses[self.rng.usize(..self.addresses.len())])).collect()
    }

    fn drain(&mut self, socket: Socket, at: Moment) {
        let mut asked = Vec::new();
        if let Some(peer) = self.peers.get_mut(&socket) {
            while let Some(event) = peer.poll_event() {
                match event {
                    PeerEvent::WantsAddresses(count) => asked.push(count as usize),
                    // Honest answer of a node without shares.
                    PeerEvent::Asked { id, .. } => {
                        let _ = peer.handle_order(Order::Answer { id, shares: Vec::new() }, &self.known, at.now);
                    }
                    _ => {}
                }
            }
        }
        for count in asked {
            self.send_shares(socket, count, at);
        }
        if let Some(peer) = self.peers.get_mut(&socket) {
            while let Some(frame) = peer.poll_frame() {
                self.commands.push_back(Command::Send(socket, frame));
            }
        }
    }

    fn send_shares(&mut self, socket: Socket, count: usize, at: Moment) {
        let records = self.some_of_mine(count, at);
        if let Some(peer) = self.peers.get_mut(&socket) {
            let _ = peer.handle_order(Order::Addresses(records), &self.known, at.now);
        }
    }

    fn hang_up(&mut self, socket: Socket) {
        self.peers.remove(&socket);
        self.commands.push_back(Command::Close(socket));
    }
}

impl Agent for Eclipser {
    fn node(&self) -> &Node {
        &self.node
    }

    fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    fn accepts(&mut self, _: SocketAddr, _: Moment) -> bool {
        true
    }

    fn connected(&mut self, opened: Opened, at: Moment) {
        let direction = if opened.is_outbound { Direction::Outbound } else { Direction::Inbound };
        // To its peers, each of its addresses is a node of its own.
        let nonce = self.rng.u64(..);
        let peer = self.node.peer_with(nonce, Shared::default(), &opened, direction, at);
        self.peers.insert(opened.socket, peer);
        self.drain(opened.socket, at);
    }

    fn unreachable(&mut self, _: SocketAddr, _: Moment) {}

    fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        let Some(peer) = self.peers.get_mut(&socket) else { return };
        if peer.handle_bytes(bytes, &self.known, at.now).is_err() {
            return self.hang_up(socket);
        }
        self.drain(socket, at);
    }

    fn closed(&mut self, socket: Socket, _: Moment) {
        self.peers.remove(&socket);
    }

    fn timeout(&mut self, at: Moment) {
        let sockets: Vec<Socket> = self.peers.keys().copied().collect();
        let is_wave = self.next <= at.now;
        for socket in sockets {
            let Some(peer) = self.peers.get_mut(&socket) else { continue };
            let is_due = peer.poll_timeout().is_some_and(|when| when <= at.now);
            if is_due && peer.handle_timeout(at.now, at.whole_unix()).is_err() {
                self.hang_up(socket);
                continue;
            }
            if is_wave {
                self.send_shares(socket, PUSHED, at);
            }
            if is_due || is_wave {
                self.drain(socket, at);
            }
        }
        if is_wave {
            self.next = at.now + PUSH_INTERVAL;
            for victim in &self.victims {
                let from = self.addresses[self.rng.usize(..self.addresses.len())];
                self.commands.push_back(Command::Dial { from, to: *victim });
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter_map(Peer::poll_timeout).chain([self.next]).min()
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    fn find(&mut self, _: u32, _: Moment) {}
}
