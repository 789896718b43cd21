//! All peers together, without I/O: accepting, dialling, announcements, requests and relaying.
//!
//! ```text
//!  connections, PeerEvents ──▶          ──▶ Dial, Order, Disconnect ──▶ connections
//!                              Swarm
//!  tips, needs, blocks ──────▶          ──▶ Shares, Knows, Ancestry ──▶ owner of the share chain
//! ```
//!
//! The caller calls a `handle_…` for each event and then executes all actions of [`Swarm::poll_action`]. A peer is gone
//! for the swarm as soon as it returns [`Action::Disconnect`]; later events from it are ignored.

mod best_header;
mod dial;
mod gossip;
mod latency;
mod operator;
mod refused;
mod relay;
mod shared;
mod shares;
mod status;

use ipnet::IpNet;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash, Target};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addrs::{AddressBook, AddressScope, Group};
use super::bans::Bans;
use super::download::Download;
use super::limits::Limits;
use super::peer::{Close, Direction, Hello, Offence, Order, PeerEvent};
use super::refusals::Refusals;
use super::transactions::TemplateTransactions;

use self::best_header::BestHeader;
pub use self::dial::DialKind;
use self::dial::Dialer;
pub use self::latency::LATENCY_KEPT;
use self::latency::Latency;
use self::relay::Relay;
use self::shared::Common;
pub use self::shared::UNFINISHED_BYTES_MAX;
pub use self::status::{PeerStatus, Status};
pub use super::peer::PeerId;

/// Maximum incoming connections from one group (protocol section 3.6). This machine and its local network are exempt.
const INCOMING_PER_GROUP_MAX: usize = 3;
/// Seconds before an outdated node is dialled again: it is not updated sooner.
const OLD_NODE_REST: f64 = 6.0 * 3600.0;
/// Maximum number of addresses excluded from dialling.
const RESTING_MAX: usize = 1000;
/// Seconds before an address is dialled that leads to a peer already connected.
const DUPLICATE_REST: f64 = 3600.0;
/// Seconds before a lost peer is dialled again.
const LOST_REST: f64 = 60.0;
/// Interval for forgiving offences and unverified shares.
const FORGIVE_INTERVAL: Duration = Duration::from_secs(3600);

/// Current time, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Monotonic time, for durations.
    pub instant: Instant,
    /// Seconds since 1970, for times that are sent or stored.
    pub unix: f64,
}

/// Configuration of a swarm.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of shares in a whole chain.
    pub chain_length: u32,
    /// Proof-of-work hash of a block header.
    pub pow: fn(&[u8; 80]) -> Digest,
    /// Connections to maintain to addresses of the book; 10 at most.
    pub outgoing_wanted: usize,
    /// Maximum number of incoming connections.
    pub incoming_max: usize,
    /// Addresses that are always accepted and never banned.
    pub whitelist: Vec<IpNet>,
    /// True if honest nodes of the network check less than this one, and pass on shares that it refuses: these are no
    /// offence.
    pub has_laxer_nodes: bool,
}

/// Action for the caller.
#[derive(Debug, Clone)]
pub enum Action {
    /// Connect to this address; then call [`Swarm::handle_dialed`] or [`Swarm::handle_dial_failed`].
    Dial(SocketAddr, DialKind),
    /// Pass an order to a peer.
    Order(PeerId, Order),
    /// Close a connection, without any further event for it; a ban is recorded already.
    Disconnect(PeerId, Close),
    /// Pass these to the share chain's owner, then call [`Swarm::handle_taken`].
    Shares {
        /// Sender of the shares.
        peer: SocketAddr,
        /// Shares, newest first.
        shares: Vec<Arc<Share>>,
    },
    /// Ask the owner whether it has a share that a peer announced; then call [`Swarm::handle_known`].
    Knows {
        /// The peer.
        peer: PeerId,
        /// The announced share.
        hash: ShareHash,
    },
    /// Ask the owner for shares that a peer requests; then call [`Swarm::handle_answer`].
    Ancestry {
        /// The requesting peer.
        peer: PeerId,
        /// Identifier, to be returned.
        id: [u8; 32],
        /// Wanted shares, at least one.
        hashes: Vec<ShareHash>,
        /// Number of ancestors of each.
        parents: u64,
        /// Shares to stop before.
        stops: Vec<ShareHash>,
    },
    /// There is a better block header to build on.
    BestHeader([u8; 80]),
}

/// Reasons for refusing a connection on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Banned address.
    #[error("banned")]
    Banned,
    /// Maximum number of incoming connections.
    #[error("all {0} incoming connections are taken")]
    Full(usize),
    /// Maximum number of incoming connections from its group.
    #[error("{INCOMING_PER_GROUP_MAX} connections from its address group already")]
    Group,
    /// Too many shares from there were refused within the hour.
    #[error("more than {} of its shares were refused within an hour", crate::refusals::REFUSED_SHARES_MAX)]
    Refusals,
}

/// Facts about the parent chain for relaying.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Heights of blocks that shares build on.
    pub heights: Arc<HashMap<Digest, u32>>,
    /// Greatest height seen.
    pub best_height: u32,
    /// Block that the current template builds on.
    pub previous_block: Digest,
    /// Target of the template's block.
    pub target: Target,
}

impl Parent {
    /// True if a share's solved block is recent enough to matter to a bitcoind (protocol section 3.7).
    fn is_recent(&self, share: &Share) -> bool {
        let Some(previous) = share.contents().min_header.previous_block else { return false };
        let height = self.heights.get(&previous).copied().unwrap_or_default();
        let is_near = i64::from(height) - i64::from(self.best_height) > -5;
        is_near || self.previous_block == previous || self.previous_block == share.hash().0
    }
}

/// One connection.
#[derive(Debug)]
struct Connection {
    address: SocketAddr,
    /// `None` if the peer opened it.
    dialed: Option<DialKind>,
    since: f64,
    /// The peer's own data, after its `version`.
    hello: Option<Hello>,
    shares_received: u64,
    shares_sent: u64,
    answers_pending: usize,
    limits: Limits,
    latency: Latency,
}

impl Connection {
    fn is_up(&self) -> bool {
        self.hello.is_some()
    }
}

/// State of all peers.
#[derive(Debug)]
pub struct Swarm {
    config: Config,
    random: fastrand::Rng,
    book: AddressBook,
    bans: Bans,
    refusals: Refusals,
    /// Hosts of outdated nodes, and the end of their exclusion from dialling, seconds since 1970.
    resting: HashMap<IpAddr, f64>,
    connections: BTreeMap<PeerId, Connection>,
    next_peer: u64,
    common: Common,
    dialer: Dialer,
    download: Download,
    relay: Relay,
    best_header: BestHeader,
    parent: Option<Parent>,
    best_share: Option<ShareHash>,
    template: Arc<TemplateTransactions>,
    next_get_addresses: Instant,
    next_forgive: Instant,
    actions: VecDeque<Action>,
}

impl Swarm {
    /// Creates a swarm without peers. Random draws come from `random`.
    pub fn new(config: Config, mut random: fastrand::Rng, now: Now) -> Self {
        let mut fork = || random.fork();
        let book = AddressBook::new(fork());
        let download = Download::new(config.chain_length, fork());
        let dialer = Dialer::new(fork(), config.outgoing_wanted, now.instant);
        Self {
            book,
            download,
            dialer,
            bans: Bans::new(config.whitelist.iter().copied()),
            refusals: Refusals::default(),
            relay: Relay::new(config.chain_length),
            common: Common::new(config.chain_length),
            best_header: BestHeader::new(config.pow),
            config,
            random,
            resting: HashMap::new(),
            connections: BTreeMap::new(),
            next_peer: 0,
            parent: None,
            best_share: None,
            template: Arc::default(),
            next_get_addresses: now.instant,
            next_forgive: now.instant + FORGIVE_INTERVAL,
            actions: VecDeque::new(),
        }
    }

    /// Returns the next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.order_requests();
        self.actions.pop_front()
    }

    /// Turns the download's requests into orders, so that they are sent in their original order.
    fn order_requests(&mut self) {
        while let Some(ask) = self.download.poll_ask() {
            let order =
                Order::Request { request: ask.request, hashes: vec![ask.hash], parents: ask.parents, stops: ask.stops };
            self.actions.push_back(Action::Order(ask.peer, order));
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let get_addresses = self.wants_addresses().then_some(self.next_get_addresses);
        let dial = self.dialer.poll_timeout(self.book.is_empty());
        let others = [get_addresses, dial, self.download.poll_timeout(), self.relay.poll_timeout()];
        others.into_iter().flatten().chain([self.next_forgive]).min()
    }

    /// Performs everything due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.download.handle_timeout(now.instant);
        self.dial(now);
        self.repeat_blocks(now);
        if self.wants_addresses() && self.next_get_addresses <= now.instant {
            self.ask_for_addresses(now);
        }
        if self.next_forgive <= now.instant {
            self.next_forgive = now.instant + FORGIVE_INTERVAL;
            self.bans.forgive(now.unix);
            self.download.forgive();
            self.resting.retain(|_, until| *until > now.unix);
        }
    }

    /// Handles an incoming connection from `remote`.
    ///
    /// # Errors
    /// If the connection is to be closed at once.
    pub fn handle_incoming(&mut self, remote: SocketAddr, now: Now) -> Result<PeerId, Refused> {
        let ip = remote.ip();
        if self.bans.is_banned(ip, now.unix) {
            return Err(Refused::Banned);
        }
        if self.is_let_go(ip, now) {
            return Err(Refused::Refusals);
        }
        if !self.bans.is_whitelisted(ip) {
            let incoming = || {
                let incoming = self.connections.values().filter(|connection| connection.dialed.is_none());
                incoming.filter(|connection| !self.bans.is_whitelisted(connection.address.ip()))
            };
            if incoming().count() >= self.config.incoming_max {
                return Err(Refused::Full(self.config.incoming_max));
            }
            let group = Group::of(ip);
            let neighbours = incoming().filter(|connection| Group::of(connection.address.ip()) == group);
            if !AddressScope::is_near(ip) && neighbours.count() >= INCOMING_PER_GROUP_MAX {
                return Err(Refused::Group);
            }
        }
        Ok(self.connect(remote, None, now))
    }

    /// Handles the success of an [`Action::Dial`].
    pub fn handle_dialed(&mut self, address: SocketAddr, kind: DialKind, now: Now) -> PeerId {
        self.dialer.on_dialled(address, kind);
        self.connect(address, Some(kind), now)
    }

    /// Handles the failure of an [`Action::Dial`].
    pub fn handle_dial_failed(&mut self, address: SocketAddr, now: Now) {
        self.dialer.on_closed(address, now.instant);
        self.book.failed(address, now.unix);
    }

    /// Handles a closed connection, except after [`Action::Disconnect`].
    pub fn handle_closed(&mut self, peer: PeerId, close: &Close, now: Now) {
        let Some(connection) = self.connections.remove(&peer) else { return };
        self.download.remove_peer(peer, now.instant);
        let address = connection.address;
        if connection.dialed.is_some() {
            self.dialer.on_closed(address, now.instant);
            if connection.is_up() {
                self.book.rest(address, now.unix + LOST_REST);
            } else if self.up().any(|(_, other)| other.address.ip() == address.ip()) {
                // A reference node hangs up before its `version` on a node that it is connected with.
                self.book.rest(address, now.unix + DUPLICATE_REST);
            } else {
                self.book.failed(address, now.unix);
            }
        }
        match close {
            // Refusals are counted already.
            Close::Quiet(_) | Close::Refusals(_) => {}
            Close::Ourselves => {
                if connection.dialed.is_some() {
                    self.book.note_own(address);
                    self.dialer.forget(address);
                }
            }
            // It is harmless but incompatible: no ban, but no more dials either.
            Close::Offence(Offence::TooOld { .. }) => {
                if self.resting.len() < RESTING_MAX {
                    self.resting.insert(address.ip().to_canonical(), now.unix + OLD_NODE_REST);
                }
            }
            Close::Offence(offence) => {
                let base_seconds = u32::try_from(offence.ban().as_secs()).unwrap_or(u32::MAX);
                // Addresses that cannot be banned are still disconnected.
                let _ = self.bans.offend(address.ip(), base_seconds, &offence.to_string(), now.unix);
            }
        }
    }

    /// Handles an event of a peer.
    pub fn handle_event(&mut self, peer: PeerId, event: PeerEvent, now: Now) {
        if !self.connections.contains_key(&peer) {
            return;
        }
        match event {
            PeerEvent::Connected(hello) => self.note_connected(peer, hello, now),
            PeerEvent::Shares(shares) => self.note_shares(peer, shares),
            PeerEvent::Replied { request, shares } => self.note_reply(peer, request, shares, now),
            PeerEvent::Asked { id, hashes, parents, stops } => self.note_asked(peer, id, hashes, parents, stops, now),
            PeerEvent::Addresses(records) => self.note_addresses(peer, records, now),
            PeerEvent::AdvertisesPort(port) => self.note_port(peer, port, now),
            PeerEvent::WantsAddresses(count) => self.send_addresses(peer, count, now),
            PeerEvent::BestBlock(header) => self.note_header(peer, header, now),
            PeerEvent::OverBudget => self.relieve_memory(now),
            PeerEvent::Latency(latency) => self.note_latency(peer, latency),
            PeerEvent::TransactionsLearned(hashes) => {
                let hashes: Arc<[Digest]> = hashes.into();
                self.order_all(|_| Order::Have(hashes.clone()));
            }
        }
    }

    /// Updates the facts about the parent chain.
    pub fn handle_parent(&mut self, parent: Parent) {
        self.parent = Some(parent);
    }

    /// Handles a new template.
    pub fn handle_template(&mut self, template: Arc<TemplateTransactions>) {
        self.template = template;
        let template = self.template.clone();
        self.order_all(|_| Order::Template(template.clone()));
    }

    /// Handles forgotten transactions.
    pub fn handle_forgotten(&mut self, hashes: Vec<Digest>) {
        if !hashes.is_empty() {
            let hashes: Arc<[Digest]> = hashes.into();
            self.order_all(|_| Order::Losing(hashes.clone()));
        }
    }

    fn connect(&mut self, address: SocketAddr, dialed: Option<DialKind>, now: Now) -> PeerId {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let limits = Limits::new(self.rates_of(address, dialed.is_none(), now), now.instant);
        let connection = Connection {
            address,
            dialed,
            since: now.unix,
            hello: None,
            shares_received: 0,
            shares_sent: 0,
            answers_pending: 0,
            limits,
            latency: Latency::default(),
        };
        self.connections.insert(peer, connection);
        peer
    }

    fn disconnect(&mut self, peer: PeerId, close: Close, now: Now) {
        self.handle_closed(peer, &close, now);
        self.actions.push_back(Action::Disconnect(peer, close));
    }

    fn note_connected(&mut self, peer: PeerId, hello: Hello, now: Now) {
        let is_duplicate =
            self.up().any(|(_, other)| other.hello.as_ref().is_some_and(|other| other.nonce == hello.nonce));
        let Some(connection) = self.connections.get(&peer) else { return };
        if connection.is_up() {
            return;
        }
        let (address, dialed, announced) = (connection.address, connection.dialed, hello.best_share);
        if dialed.is_some() {
            self.book.answered(address, hello.services, now.unix);
        }
        if is_duplicate {
            self.disconnect(peer, Close::Quiet("already connected to this node".into()), now);
            // The remote port of an incoming connection is not a listening port.
            if dialed.is_some() {
                self.book.answered(address, hello.services, now.unix);
                self.book.rest(address, now.unix + DUPLICATE_REST);
            }
            return;
        }
        if dialed.is_some_and(|kind| !self.dialer.on_connected(address, kind)) {
            self.disconnect(peer, Close::Quiet("more connections than wanted".into()), now);
            return;
        }
        if let Some(connection) = self.connections.get_mut(&peer) {
            connection.hello = Some(hello);
        }
        self.download.add_peer(peer, address, now.instant);
        self.make_room(peer, now);
        self.actions.push_back(Action::Order(peer, Order::Keep));
        match announced.filter(|announced| Some(*announced) != self.best_share) {
            // The template follows once it is known whether to request the share, in the reference's order.
            Some(hash) => self.actions.push_back(Action::Knows { peer, hash }),
            None => self.order_template(peer),
        }
    }

    fn order_template(&mut self, peer: PeerId) {
        self.actions.push_back(Action::Order(peer, Order::Template(self.template.clone())));
    }

    /// Sends an order to each peer with a complete handshake.
    fn order_all(&mut self, order: impl Fn(PeerId) -> Order) {
        let up = self.connections.iter().filter(|(_, connection)| connection.is_up());
        self.actions.extend(up.map(|(peer, _)| Action::Order(*peer, order(*peer))));
    }

    /// Connections with a complete handshake.
    fn up(&self) -> impl Iterator<Item = (PeerId, &Connection)> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.is_up())
            .map(|(peer, connection)| (*peer, connection))
    }

    fn direction(connection: &Connection) -> Direction {
        if connection.dialed.is_some() { Direction::Outbound } else { Direction::Inbound }
    }
}

#[cfg(test)]
mod tests;
