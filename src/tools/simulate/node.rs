//! One simulated node: the real node's share chain, swarm and peers, driven by the world instead of tasks.

use p2p::message::{Message, WrappedShare};
use p2p::peer::{Advertise, Close, Direction, Local, Order, Peer, Shared};
use p2p::swarm::{Action, Config, DialKind, PeerId, Swarm};
use p2p::transactions::Transactions;
use sharechain::chain::{Event, Sharechain, parents_first};
use sharechain::coin::Network;
use sharechain::pack::Reader;
use sharechain::share::{Share, ShareHash, ShareRules, Target, pack, read_wrapped};
use sharechain::testkit::{self, Plan};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;

use super::conduct::Conduct;
use super::exchange::{Command, Moment, Opened, Socket};

/// Interval of choices without events. The real node's is shorter, which would cost a simulation more than it shows.
const THINK_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of shares sent to peers with a new tip (protocol section 3.7).
const RELAYED_MAX: u32 = 5;
/// Number of outgoing connections, the node's default.
const OUTGOING: usize = 6;
const INCOMING: usize = 40;

/// All shares, so that nodes which received the same bytes keep them once. Each node has parsed and checked them
/// itself.
#[derive(Debug, Clone, Default)]
pub(super) struct ShareCache(Arc<Mutex<HashMap<ShareHash, Arc<Share>>>>);

impl ShareCache {
    fn same(&self, share: Arc<Share>) -> Arc<Share> {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shelf.entry(share.hash()).or_insert_with(|| Arc::clone(&share));
        if **kept == *share { Arc::clone(kept) } else { share }
    }
}

/// Parts of a node.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) network: &'static Network,
    /// Listening address.
    pub(super) address: SocketAddr,
    /// Number of the payee of its shares.
    pub(super) payee: u32,
    pub(super) shelf: ShareCache,
    pub(super) rng: Rng,
}

#[derive(Debug)]
struct Link {
    socket: Socket,
    peer: Peer,
}

#[derive(Debug)]
pub(super) struct Node {
    network: &'static Network,
    address: SocketAddr,
    payee: u32,
    chain: Sharechain,
    rules: Arc<ShareRules>,
    swarm: Swarm,
    links: BTreeMap<PeerId, Link>,
    sockets: HashMap<Socket, PeerId>,
    dialing: HashMap<SocketAddr, DialKind>,
    /// Accepted connection, which opens next.
    accepted: Option<PeerId>,
    /// Peers that may have output.
    busy: BTreeSet<PeerId>,
    known: Transactions,
    nonce: u64,
    rng: Rng,
    think_at: Instant,
    shelf: ShareCache,
    commands: VecDeque<Command>,
    offences: Vec<(SocketAddr, String)>,
    conduct: Conduct,
}

impl Node {
    /// Creates a node with these shares, which knows the addresses `bootstrap`.
    pub(super) fn new(mut parts: Parts, shares: &[Arc<Share>], bootstrap: &[SocketAddr], at: Moment) -> Self {
        let network = parts.network;
        let mut chain = Sharechain::new(network);
        for share in shares {
            chain.load(Arc::clone(share), true);
        }
        chain.think(at.unix);
        while chain.poll_event().is_some() {}
        let config = Config {
            chain_length: network.chain_length,
            pow: network.parent.pow.function(),
            outgoing_wanted: OUTGOING,
            incoming_max: INCOMING,
            whitelist: Vec::new(),
            has_laxer_nodes: network.has_laxer_nodes(),
        };
        let now = at.for_swarm();
        let mut swarm = Swarm::new(config, parts.rng.fork(), now);
        swarm.note_own_address(parts.address);
        swarm.mark_shared(shares.iter().map(|share| share.hash()));
        for address in bootstrap {
            swarm.add_bootstrap(*address, now);
        }
        let mut node = Self {
            network,
            address: parts.address,
            payee: parts.payee,
            rules: Arc::new(chain.rules().clone()),
            chain,
            swarm,
            links: BTreeMap::new(),
            sockets: HashMap::new(),
            dialing: HashMap::new(),
            accepted: None,
            busy: BTreeSet::new(),
            known: Transactions::new(),
            nonce: parts.rng.u64(..),
            think_at: at.now + THINK_INTERVAL.mul_f64(parts.rng.f64()),
            rng: parts.rng,
            shelf: parts.shelf,
            commands: VecDeque::new(),
            offences: Vec::new(),
            conduct: Conduct::default(),
        };
        node.announce_tip();
        node
    }

    pub(super) fn chain(&self) -> &Sharechain {
        &self.chain
    }

    pub(super) fn chain_mut(&mut self) -> &mut Sharechain {
        &mut self.chain
    }

    pub(super) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub(super) fn swarm_mut(&mut self) -> &mut Swarm {
        &mut self.swarm
    }

    /// Offences that this node recorded, by peer.
    pub(super) fn offences(&self) -> &[(SocketAddr, String)] {
        &self.offences
    }

    pub(super) fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    pub(super) fn conduct_mut(&mut self) -> &mut Conduct {
        &mut self.conduct
    }

    /// Own ends of its connections.
    pub(super) fn sockets(&self) -> impl Iterator<Item = Socket> {
        self.links.values().map(|link| link.socket)
    }

    /// Parameters of an own share.
    pub(super) fn plan(&self, nonce: u32, at: Moment) -> Plan {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970")]
        let timestamp = at.unix as u32;
        let stale_info = self.chain.own().next_stale_info();
        let (vote, previous_block) = (self.conduct.vote(), self.conduct.parent_block(at.whole_unix()));
        Plan { payee: self.payee, timestamp, stale_info, nonce, vote, previous_block, ..Plan::default() }
    }

    pub(super) fn network(&self) -> &'static Network {
        self.network
    }

    /// Creates the node's end of a connection, as if its nonce were `nonce`.
    pub(super) fn peer_with(
        &mut self,
        nonce: u64,
        shared: Shared,
        opened: &Opened,
        direction: Direction,
        at: Moment,
    ) -> Peer {
        let best = self.chain.choice().best.and_then(|best| self.chain.share(best));
        let myself = Local {
            prefix: self.network.prefix,
            protocol_version: self.network.protocol_version,
            sub_version: "simulated".to_owned(),
            nonce,
            best_share: best.map(|best| best.hash()),
            best_version: best.map(|best| best.version().number()),
            minimum_protocol: self.chain.minimum_protocol(),
            has_laxer_nodes: self.network.has_laxer_nodes(),
            advertise: Advertise::Port(self.address.port()),
            shared,
        };
        let (rules, seed) = (Arc::clone(&self.rules), self.rng.u64(..));
        Peer::new(myself, rules, opened.remote, opened.local, direction, seed, at.now, at.whole_unix())
    }

    /// Builds a message of `count` shares without proof of work.
    pub(super) fn frame_without_work(&mut self, count: u32, nonce: u32, at: Moment) -> Bytes {
        // Highest possible difficulty.
        let plan = Plan { target: Target(Default::default()), ..self.plan(nonce, at) };
        let best = self.chain.choice().best;
        let share = testkit::share_on(&mut self.chain, best, &plan);
        let mut contents = share.contents().clone();
        let mut shares = Vec::new();
        while shares.len() < count as usize {
            contents.min_header.nonce = contents.min_header.nonce.wrapping_add(1);
            let bytes = Bytes::from(pack(&contents));
            if Share::from_bytes(&bytes, &self.rules).is_err()
                && let Ok((version, contents)) = read_wrapped(&mut Reader::new(&bytes))
            {
                shares.push(WrappedShare { version, contents: bytes.slice_ref(contents) });
            }
        }
        Message::Shares(shares).to_frame(self.network.prefix)
    }

    /// Adds an own share and announces it to peers if it is the best.
    pub(super) fn take_own(&mut self, share: Arc<Share>, at: Moment) {
        let is_late = share.previous() != self.chain.choice().best;
        let share = self.shelf.same(share);
        if self.conduct.is_lax() {
            self.take_unchecked(share, None, at);
        } else {
            self.chain.add_own(share, is_late, at.unix);
        }
        self.think(at);
        self.work(at);
    }

    /// Sends shares, newest first, to all peers, bypassing the swarm.
    pub(super) fn push(&mut self, shares: &[Arc<Share>], at: Moment) {
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in peers {
            self.act(Action::Order(peer, Order::Shares(shares.to_vec().into())), at);
        }
        self.work(at);
    }

    /// Reports a found share to the world, but not to the swarm.
    pub(super) fn note_found(&mut self, share: ShareHash) {
        self.commands.push_back(Command::Found(share));
    }

    fn think(&mut self, at: Moment) {
        let now = at.for_swarm();
        self.conduct.note_block(&mut self.chain, at.whole_unix());
        self.chain.think(at.unix);
        let mut has_new_tip = false;
        while let Some(event) = self.chain.poll_event() {
            match event {
                Event::Verified(hash) => {
                    if let Some(share) = self.chain.share(hash) {
                        self.swarm.handle_accepted(share);
                    }
                    self.commands.push_back(Command::Accepted(hash));
                }
                Event::Refused { hash, source, error } => {
                    self.swarm.handle_refused(hash, source, &error.to_string(), now);
                }
                Event::TipChanged(_) => has_new_tip = true,
                Event::Early { .. }
                | Event::Block(_)
                | Event::ParentWanted(_)
                | Event::Reissue
                | Event::MinimumProtocol(_)
                | Event::Ratchet { .. } => {}
            }
        }
        if has_new_tip {
            self.announce_tip();
        }
        self.chain.bound();
        self.swarm.handle_needs(&self.chain.choice().wanted, &self.chain.stops(), now);
    }

    fn announce_tip(&mut self) {
        let Some(best) = self.chain.choice().best else { return };
        let all = self.chain.all();
        let newest_first: Vec<Arc<Share>> =
            all.chain(best, RELAYED_MAX).filter_map(|hash| self.chain.share(hash).cloned()).collect();
        self.swarm.handle_tip(&newest_first, all.height(best));
    }

    /// Continues until no peer or swarm has output.
    fn work(&mut self, at: Moment) {
        loop {
            if let Some(peer) = self.busy.pop_first() {
                self.drain(peer, at);
            } else if let Some(action) = self.swarm.poll_action() {
                self.act(action, at);
            } else {
                return;
            }
        }
    }

    /// Handles a peer's output.
    fn drain(&mut self, id: PeerId, at: Moment) {
        let Some(link) = self.links.get_mut(&id) else { return };
        while let Some(frame) = link.peer.poll_frame() {
            self.commands.push_back(Command::Send(link.socket, frame));
        }
        while let Some(event) = link.peer.poll_event() {
            self.swarm.handle_event(id, event, at.for_swarm());
        }
    }

    fn act(&mut self, action: Action, at: Moment) {
        let now = at.for_swarm();
        match action {
            Action::Dial(to, kind) => {
                self.dialing.insert(to, kind);
                self.commands.push_back(Command::Dial { from: self.address, to });
            }
            Action::Order(peer, order) => {
                let Some(link) = self.links.get_mut(&peer) else { return };
                let done = link.peer.handle_order(order, &self.known, at.now);
                self.busy.insert(peer);
                self.check(peer, done, at);
            }
            Action::Disconnect(peer, close) => {
                self.drain(peer, at);
                self.hang_up(peer, &close);
            }
            Action::Shares { peer, shares } => {
                let shares: Vec<Arc<Share>> = shares.into_iter().map(|share| self.shelf.same(share)).collect();
                let count = shares.len();
                let new = if self.conduct.is_lax() {
                    let sorted = parents_first(shares).into_iter();
                    sorted.filter(|share| self.take_unchecked(Arc::clone(share), Some(peer), at)).count()
                } else {
                    self.chain.add_all(shares, Some(peer), at.unix)
                };
                if new > 0 {
                    self.think(at);
                }
                self.swarm.handle_taken(count, now);
            }
            Action::Knows { peer, hash } => {
                let is_known = self.chain.all().contains(&hash);
                self.swarm.handle_known(peer, hash, is_known, now);
            }
            Action::Ancestry { peer, id, hashes, parents, stops } => {
                let shares = self.chain.ancestry(&hashes, parents, &stops);
                self.swarm.handle_answer(peer, id, shares);
            }
            Action::BestHeader(_) => {}
        }
    }

    /// Closes the connection if a step failed.
    fn check(&mut self, id: PeerId, done: Result<(), Close>, at: Moment) {
        if let Err(close) = done {
            // Earlier events still count.
            self.drain(id, at);
            self.swarm.handle_closed(id, &close, at.for_swarm());
            self.hang_up(id, &close);
        }
    }

    fn hang_up(&mut self, id: PeerId, close: &Close) {
        let Some(link) = self.links.remove(&id) else { return };
        self.sockets.remove(&link.socket);
        self.commands.push_back(Command::Close(link.socket));
        if let Close::Offence(offence) = close {
            self.offences.push((link.peer.remote(), offence.to_string()));
        }
    }

    /// See `Agent::accepts`.
    pub(super) fn accepts(&mut self, from: SocketAddr, at: Moment) -> bool {
        self.accepted = self.swarm.handle_incoming(from, at.for_swarm()).ok();
        self.accepted.is_some()
    }

    /// See `Agent::connected`.
    pub(super) fn connected(&mut self, opened: Opened, at: Moment) {
        let Opened { socket, remote, is_outbound, .. } = opened;
        let (id, direction) = if is_outbound {
            let kind = self.dialing.remove(&remote).unwrap_or(DialKind::Book);
            (self.swarm.handle_dialed(remote, kind, at.for_swarm()), Direction::Outbound)
        } else {
            let Some(id) = self.accepted.take() else { return };
            (id, Direction::Inbound)
        };
        let peer = self.peer_with(self.nonce, self.swarm.shared(id), &opened, direction, at);
        self.links.insert(id, Link { socket, peer });
        self.sockets.insert(socket, id);
        self.busy.insert(id);
        self.work(at);
    }

    /// See `Agent::unreachable`.
    pub(super) fn unreachable(&mut self, address: SocketAddr, at: Moment) {
        self.dialing.remove(&address);
        self.swarm.handle_dial_failed(address, at.for_swarm());
        self.work(at);
    }

    /// See `Agent::received`.
    pub(super) fn received(&mut self, socket: Socket, bytes: &[u8], at: Moment) {
        let Some(id) = self.sockets.get(&socket).copied() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        let done = link.peer.handle_bytes(bytes, &self.known, at.now);
        self.busy.insert(id);
        self.check(id, done, at);
        self.work(at);
    }

    /// See `Agent::closed`.
    pub(super) fn closed(&mut self, socket: Socket, at: Moment) {
        let Some(id) = self.sockets.get(&socket).copied() else { return };
        let close = Close::Quiet("closed by the peer".to_owned());
        self.check(id, Err(close), at);
        self.work(at);
    }

    /// See `Agent::timeout`.
    pub(super) fn timeout(&mut self, at: Moment) {
        let due = |link: &Link| link.peer.poll_timeout().is_some_and(|when| when <= at.now);
        let due: Vec<PeerId> = self.links.iter().filter(|(_, link)| due(link)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(link) = self.links.get_mut(&id) {
                let done = link.peer.handle_timeout(at.now, at.whole_unix());
                self.busy.insert(id);
                self.check(id, done, at);
            }
        }
        if self.swarm.poll_timeout().is_some_and(|when| when <= at.now) {
            self.swarm.handle_timeout(at.for_swarm());
        }
        if self.think_at <= at.now {
            self.think_at = at.now + THINK_INTERVAL;
            self.chain.prune(at.unix);
            self.think(at);
        }
        self.work(at);
    }

    /// See `Agent::poll_timeout`.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.links.values().filter_map(|link| link.peer.poll_timeout());
        peers.chain(self.swarm.poll_timeout()).chain([self.think_at]).min()
    }

    /// See `Agent::poll_command`.
    pub(super) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Takes a share on a verified one as verified; returns false if it was present.
    fn take_unchecked(&mut self, share: Arc<Share>, source: Option<SocketAddr>, at: Moment) -> bool {
        if !share.previous().is_some_and(|parent| self.chain.verified().contains(&parent)) {
            return self.chain.add(share, source, at.unix);
        }
        let is_new = self.chain.load(Arc::clone(&share), true);
        if is_new {
            self.swarm.handle_accepted(&share);
            self.commands.push_back(Command::Accepted(share.hash()));
        }
        is_new
    }

    /// See `Agent::find`.
    pub(super) fn find(&mut self, nonce: u32, at: Moment) {
        self.conduct.steer(&mut self.chain);
        let plan = self.plan(nonce, at);
        let share = self.conduct.find(&mut self.chain, &plan);
        self.note_found(share.hash());
        self.take_own(share, at);
    }
}
