//! Drives the [`Swarm`]: one task that opens its sockets, keeps its timers, passes its orders to the connections, and
//! forwards peers' shares to the share chain's owner.

use bitcoin::hashes::Hash;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use metrics::{counter, gauge};
use p2p::peer::{Advertise, Close, Direction, Local, Order, PROTOCOL_VERSION, Peer, PeerEvent};
use p2p::swarm::{self, Action, DialKind, Now, Parent, PeerId, Status, Swarm};
use p2p::transactions::{Transaction, Transactions};
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash, ShareRules};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::dial::{self, Host};
use super::link::{self, BatchPermit, LinkEvent, ORDERS_QUEUED_MAX};
use super::listed::RecentLists;
use super::traffic::Traffic;
use super::{COMMANDS_QUEUED_MAX, Command, Config, Handle, LatencyRequests, files, proofs, upnp};
use crate::chain::{self, ChainEvent, Query, Received};
use crate::runtime::accept::Acceptor;
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::{DiskHealth, Part};
use crate::runtime::sockets::{self, Port};
use crate::template::{Template, TemplateTransaction};

/// Queue capacity for events of connections. Each is handled in microseconds; a burst of all peers at once fits.
const HEARD_QUEUED_MAX: usize = 64;

/// Interval of attempts to open a taken port: the process that has it may be about to end.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// Interval of resolving hosts, and the shorter one after a failure or without an answer.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(600);
const RESOLVE_RETRY: Duration = Duration::from_secs(30);

/// Interval of saving addresses and bans: the maximum loss at an unexpected end.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum age of the published status.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Interval of logging a download's progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Interval of forgetting unused transactions, as in the reference.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of shares in a message that overtakes longer ones: a new tip and its ancestors, not a download.
const NEWS_SHARES_MAX: usize = 5;

/// Time that a stopping node waits for the removal of its port mapping and the end of its connections.
const LAST_WORDS: Duration = Duration::from_millis(1200);

/// Inputs of the P2P task.
#[derive(Debug)]
pub struct Inputs {
    /// Folder of addresses and bans. Until it is ours, they are only read, and no port is opened.
    pub data_dir: DataDir,
    /// Receives reports of failed writes.
    pub disk: DiskHealth,
    pub chain: chain::Handle,
    /// Templates of the daemon.
    pub templates: watch::Receiver<Option<Arc<Template>>>,
    /// Heights of the parent chain's blocks.
    pub heights: watch::Receiver<Arc<HashMap<Digest, u32>>>,
    /// Header of the block that templates build on.
    pub best_header: watch::Receiver<Option<[u8; 80]>>,
    /// Notified when a peer knows a better block.
    pub news: Arc<Notify>,
}

/// Prepares the network; nothing is opened or dialled before [`Network::run`].
pub fn new(config: Config, inputs: Inputs) -> (Handle, Network) {
    let (status_sender, status) = watch::channel(Arc::default());
    let (command_sender, commands) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let transactions = Arc::new(Transactions::new());
    let traffic = Arc::new(Traffic::default());
    let handle = Handle {
        status,
        commands: command_sender,
        transactions: transactions.clone(),
        traffic: traffic.clone(),
        latency_requests: LatencyRequests::default(),
    };
    // Subscribed here, so that no event is missed until the task runs.
    let events = inputs.chain.events.subscribe();
    (handle, Network { config, inputs, events, status: status_sender, commands, transactions, traffic })
}

/// The P2P task, not running yet.
#[derive(Debug)]
pub struct Network {
    config: Config,
    inputs: Inputs,
    events: broadcast::Receiver<ChainEvent>,
    status: watch::Sender<Arc<Status>>,
    commands: mpsc::Receiver<Command>,
    transactions: Arc<Transactions>,
    traffic: Arc<Traffic>,
}

impl Network {
    /// Runs until `stop`, then saves addresses and bans.
    pub async fn run(self, stop: CancellationToken) {
        let Network { config, inputs, mut events, status, mut commands, transactions, traffic } = self;
        let (heard_sender, mut heard) = mpsc::channel(HEARD_QUEUED_MAX);
        let mut driver = Driver::new(config, inputs, status, (transactions, traffic), heard_sender, stop.clone());
        driver.load().await;
        driver.begin();
        let mut status_ticks = ticks(STATUS_INTERVAL);
        let mut progress_ticks = ticks(PROGRESS_INTERVAL);
        let mut save_ticks = ticks(SAVE_INTERVAL);
        let mut forget_ticks = ticks(FORGET_INTERVAL);
        loop {
            driver.carry_out();
            let due = driver.swarm.poll_timeout();
            tokio::select! {
                // Sending a new tip to all peers comes before everything else.
                biased;
                () = stop.cancelled() => break,
                event = events.recv() => match event {
                    Ok(event) => driver.handle_chain(event),
                    Err(RecvError::Lagged(missed)) => driver.catch_up(missed),
                    Err(RecvError::Closed) => break,
                },
                Some(command) = commands.recv() => driver.handle_command(command),
                Ok(()) = driver.inputs.templates.changed() => driver.handle_template(),
                Ok(()) = driver.inputs.best_header.changed() => driver.handle_header(),
                Ok(()) = driver.inputs.heights.changed() => driver.handle_parent(),
                Ok(()) = driver.inputs.chain.needs.changed() => driver.handle_needs(),
                slot = chain_slot(&driver.inputs.chain.received), if driver.has_backlog() => match slot {
                    Some(slot) => driver.pass_on(slot),
                    None => break,
                },
                Some(done) = driver.under_way.next() => driver.handle_done(done),
                Some(heard) = heard.recv() => driver.handle_heard(heard),
                (stream, remote) = accept(driver.acceptor.as_mut()) => driver.handle_accepted(stream, remote),
                () = at(due) => driver.swarm.handle_timeout(now()),
                _ = status_ticks.tick() => driver.publish(),
                _ = progress_ticks.tick() => driver.report_progress(),
                _ = save_ticks.tick() => driver.save(),
                _ = forget_ticks.tick() => driver.forget_transactions(),
            }
        }
        heard.close();
        driver.end().await;
    }
}

/// Result of a background operation.
enum Completion {
    /// The previous process has ended and left these files.
    TakenOver(files::Loaded),
    /// The port was opened, or not.
    Bound(io::Result<TcpListener>),
    /// A connection was made, or not.
    Dialed(SocketAddr, DialKind, io::Result<TcpStream>),
    /// A host was resolved, or not.
    Resolved(Named, io::Result<Vec<SocketAddr>>),
    /// The chain has the share, or not.
    Knows(PeerId, ShareHash, bool),
    /// Shares for a peer's request.
    Ancestry(PeerId, [u8; 32], Vec<Arc<Share>>),
    /// Files were written, with these problems.
    Saved(Vec<String>),
}

/// Purpose of resolving a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    /// One of `-n`.
    Node(usize),
    /// A bootstrap address of the network.
    Bootstrap(usize),
    /// This node's own host.
    External,
}

/// A node named by the operator.
#[derive(Debug, Default)]
struct Node {
    /// Address, as of the last resolution.
    address: Option<SocketAddr>,
    /// Set when it has not answered there since.
    has_failed: bool,
    /// Last logged error of resolving it.
    trouble: Option<String>,
}

struct Driver {
    config: Config,
    inputs: Inputs,
    swarm: Swarm,
    rules: Arc<ShareRules>,
    nonce: u64,
    context: link::Context,
    links: HashMap<PeerId, mpsc::Sender<Order>>,
    tracker: TaskTracker,
    stop: CancellationToken,
    status: watch::Sender<Arc<Status>>,
    under_way: FuturesUnordered<BoxFuture<'static, Completion>>,
    acceptor: Option<Acceptor<TcpListener>>,
    is_port_taken: bool,
    nodes: Vec<Node>,
    external: Option<SocketAddr>,
    /// Address of the process that this one waits for: it has the newest shares.
    predecessor: Option<SocketAddr>,
    /// Peers' shares for the chain's owner: news, then requested ones.
    news: VecDeque<Batch>,
    replies: VecDeque<Batch>,
    /// Permit of the current event.
    permit: Option<BatchPermit>,
    lists: RecentLists,
    is_saving: bool,
    was_downloading: bool,
    had_peers: bool,
}

/// Shares for the chain's owner. The permit limits what their sender may send.
struct Batch {
    received: Received,
    _permit: Option<BatchPermit>,
}

impl Driver {
    fn new(
        config: Config,
        inputs: Inputs,
        status: watch::Sender<Arc<Status>>,
        (known, traffic): (Arc<Transactions>, Arc<Traffic>),
        heard: mpsc::Sender<LinkEvent>,
        stop: CancellationToken,
    ) -> Self {
        let network = config.network;
        let mut random = fastrand::Rng::new();
        let nonce = random.u64(..);
        let swarm = swarm::Config {
            chain_length: network.chain_length,
            pow: network.parent.pow.function(),
            outgoing_wanted: config.outgoing,
            incoming_max: config.incoming_max,
            whitelist: config.whitelist.clone(),
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let heavy = Arc::new(Semaphore::new((cores - 1).max(1)));
        let large = Arc::new(Semaphore::new(link::LARGE_MESSAGES_MAX));
        Self {
            swarm: Swarm::new(swarm, random, now()),
            rules: Arc::new(inputs.chain.rules()),
            nonce,
            context: link::Context {
                known,
                traffic,
                heard,
                heavy,
                at_risk: inputs.chain.at_risk.clone(),
                large,
                stop: stop.child_token(),
            },
            links: HashMap::new(),
            tracker: TaskTracker::new(),
            stop,
            status,
            under_way: FuturesUnordered::new(),
            acceptor: None,
            is_port_taken: false,
            nodes: config.nodes.iter().map(|_| Node::default()).collect(),
            external: None,
            predecessor: (!inputs.data_dir.is_ours()).then(|| dial::reachable(config.listen)),
            news: VecDeque::new(),
            replies: VecDeque::new(),
            permit: None,
            lists: RecentLists::default(),
            is_saving: false,
            was_downloading: false,
            had_peers: false,
            config,
            inputs,
        }
    }

    /// Loads addresses and bans of earlier runs.
    async fn load(&mut self) {
        let loaded = files::load(self.inputs.data_dir.path()).await;
        self.take_up(loaded);
    }

    fn take_up(&mut self, (addresses, bans): files::Loaded) {
        let now = now();
        let mut problems = Vec::new();
        for (text, take) in
            [(addresses, Swarm::load_addresses as fn(&mut Swarm, &str, Now) -> Vec<String>), (bans, Swarm::load_bans)]
        {
            match text {
                Ok(Some(text)) => problems.extend(take(&mut self.swarm, &text, now)),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        for problem in problems {
            warn!(%problem, "cannot read saved peers");
        }
    }

    /// Opens the port, resolves hosts, and reads the current inputs.
    fn begin(&mut self) {
        self.bind(Duration::ZERO);
        if self.predecessor.is_some() {
            self.keep_connected();
            let data_dir = self.inputs.data_dir.clone();
            self.start(async move {
                data_dir.ours().await;
                Completion::TakenOver(files::load(data_dir.path()).await)
            });
        }
        (0..self.config.nodes.len()).for_each(|index| self.resolve(Named::Node(index), Duration::ZERO));
        (0..self.config.bootstrap.len()).for_each(|index| self.resolve(Named::Bootstrap(index), Duration::ZERO));
        if self.config.external.is_some() {
            self.resolve(Named::External, Duration::ZERO);
        }
        let tip = self.inputs.chain.tips.borrow().clone();
        if let Some(tip) = tip {
            let best: Vec<Arc<Share>> = tip.best().cloned().into_iter().collect();
            self.swarm.mark_shared(best.iter().map(|share| share.hash()));
            self.swarm.handle_tip(&best, tip.height());
        }
        self.tracker.spawn(proofs::note_loaded(self.inputs.chain.clone(), self.swarm.proofs().clone()));
        self.note_listing();
        self.handle_template();
        self.handle_header();
        self.handle_needs();
    }

    /// Executes the swarm's actions.
    fn carry_out(&mut self) {
        while let Some(action) = self.swarm.poll_action() {
            match action {
                Action::Order(peer, order) => self.order(peer, order),
                Action::Disconnect(peer, close) => {
                    // Its connection ends when the order queue closes.
                    if self.links.remove(&peer).is_some() {
                        note_close(&close);
                        debug!(peer = peer.0, %close, "peer disconnected");
                    }
                }
                Action::Dial(address, kind) => {
                    debug!(%address, ?kind, "dialling");
                    let dialing = dial::connect(address);
                    self.start(async move { Completion::Dialed(address, kind, dialing.await) });
                }
                Action::Shares { peer, shares } => {
                    let queue = if shares.len() <= NEWS_SHARES_MAX { &mut self.news } else { &mut self.replies };
                    let received = Received { shares, source: peer };
                    queue.push_back(Batch { received, _permit: self.permit.take() });
                }
                Action::Knows { peer, hash } => {
                    let (reply, answer) = oneshot::channel();
                    let asked = ask(self.inputs.chain.queries.clone(), Query::Knows { hash, reply }, answer);
                    // If the chain has ended, the answer no longer matters.
                    self.start(async move { Completion::Knows(peer, hash, asked.await.unwrap_or(true)) });
                }
                Action::Ancestry { peer, id, hashes, parents, stops } => {
                    let (reply, answer) = oneshot::channel();
                    let query = Query::Ancestry { hashes, parents, stops, reply };
                    let asked = ask(self.inputs.chain.queries.clone(), query, answer);
                    self.start(async move { Completion::Ancestry(peer, id, asked.await.unwrap_or_default()) });
                }
                Action::BestHeader(header) => self.note_header(&header),
            }
        }
        self.permit = None;
    }

    fn start(&mut self, future: impl Future<Output = Completion> + Send + 'static) {
        self.under_way.push(Box::pin(future));
    }

    fn order(&mut self, peer: PeerId, order: Order) {
        let Some(orders) = self.links.get(&peer) else { return };
        if let Order::Shares(shares) = &order {
            counter!("p2p_shares_relayed_total").increment(shares.len() as u64);
        }
        // An ended connection will report its reason in a moment: that may be an offence.
        if let Err(TrySendError::Full(_)) = orders.try_send(order) {
            let close = Close::Quiet(format!("its queue of {ORDERS_QUEUED_MAX} orders is full"));
            debug!(peer = peer.0, %close, "peer dropped");
            self.links.remove(&peer);
            self.swarm.handle_closed(peer, &close, now());
        }
    }

    fn handle_heard(&mut self, heard: LinkEvent) {
        let now = now();
        match heard {
            LinkEvent::Event(peer, event, permit) => {
                match &event {
                    PeerEvent::Connected(hello) => debug!(
                        peer = peer.0,
                        version = hello.version,
                        software = %stratum::printable::escaped(&hello.sub_version),
                        "peer connected"
                    ),
                    PeerEvent::Shares(shares) | PeerEvent::Replied { shares: Ok(shares), .. } => {
                        counter!("p2p_shares_received_total").increment(shares.len() as u64);
                    }
                    _ => {}
                }
                let is_shown = matches!(event, PeerEvent::Connected(_) | PeerEvent::Latency(_));
                self.permit = permit;
                self.swarm.handle_event(peer, event, now);
                if is_shown {
                    self.publish();
                }
            }
            LinkEvent::Closed(peer, close) => {
                // Not if the swarm closed it: then it knows.
                if self.links.remove(&peer).is_some() {
                    note_close(&close);
                    debug!(peer = peer.0, reason = %close, "connection ended");
                    self.swarm.handle_closed(peer, &close, now);
                }
                self.publish();
            }
        }
    }

    fn handle_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::TipChanged { newest_first, .. } => {
                let height = self.inputs.chain.tips.borrow().as_ref().map_or(0, |tip| tip.height());
                self.swarm.handle_tip(&newest_first, height);
                self.note_listing();
            }
            ChainEvent::Accepted { share, .. } => {
                self.lists.note(&share);
                self.swarm.handle_accepted(&share);
            }
            ChainEvent::Refused { hash, source, reason } => {
                self.swarm.handle_refused(hash, source, &reason, now());
            }
            ChainEvent::Block { share, .. } => self.swarm.handle_block(&share, now()),
            ChainEvent::Late(_) => {}
        }
    }

    /// Continues from the current tip after missed events.
    fn catch_up(&mut self, missed: u64) {
        debug!(missed, "events of the share chain were missed");
        let tip = self.inputs.chain.tips.borrow().clone();
        if let Some(tip) = tip {
            let best: Vec<Arc<Share>> = tip.best().cloned().into_iter().collect();
            self.swarm.handle_tip(&best, tip.height());
            self.note_listing();
        }
    }

    /// Keeps in mind whether peers' transactions are needed.
    fn note_listing(&mut self) {
        let (tip, minimum) = (self.inputs.chain.tips.borrow().clone(), *self.inputs.chain.minimum_protocol.borrow());
        self.context.known.set_listed(self.lists.are_in_use(tip.as_deref(), minimum));
    }

    fn handle_command(&mut self, command: Command) {
        let now = now();
        match command {
            Command::Status { reply } => drop(reply.send(Arc::new(self.swarm.status(now)))),
            Command::MeasureLatencies { reply } => {
                self.swarm.measure_latencies(now);
                self.publish();
                let _ = reply.send(());
            }
            Command::ListBans { reply } => drop(reply.send(self.swarm.list_bans(now))),
            Command::Ban { address, seconds, reason, reply } => {
                let banned = self.swarm.ban(address, seconds, &reason, now);
                if banned.is_ok() {
                    info!(%address, seconds, reason, "banned by the operator");
                }
                let _ = reply.send(banned);
                self.save();
            }
            Command::Unban { address, reply } => {
                let was_banned = self.swarm.unban(address);
                if was_banned {
                    info!(%address, "ban lifted by the operator");
                }
                let _ = reply.send(was_banned);
                self.save();
            }
        }
        self.carry_out();
        self.publish();
    }

    fn handle_template(&mut self) {
        let template = self.inputs.templates.borrow_and_update().clone();
        let Some(template) = template else { return };
        let transactions = self.context.known.set_template(template.transactions.iter().map(forwarded));
        self.handle_parent();
        self.swarm.handle_template(transactions);
    }

    fn handle_parent(&mut self) {
        let heights = self.inputs.heights.borrow_and_update().clone();
        let template = self.inputs.templates.borrow().clone();
        let Some(template) = template else { return };
        let best_height = heights.values().copied().max().unwrap_or_default().max(template.height.saturating_sub(1));
        self.swarm.handle_parent(Parent {
            heights,
            best_height,
            previous_block: template.previous_block.to_byte_array(),
            target: template.block_target(),
        });
    }

    fn handle_header(&mut self) {
        let header = *self.inputs.best_header.borrow_and_update();
        if let Some(header) = header {
            self.swarm.handle_own_header(header);
        }
    }

    /// Handles a better block known to a peer or to our own daemon.
    fn note_header(&self, header: &[u8; 80]) {
        if self.inputs.best_header.borrow().as_ref() != Some(header) {
            debug!("a peer announced a new block: polling the daemon");
            self.inputs.news.notify_one();
        }
    }

    fn handle_needs(&mut self) {
        let needs = self.inputs.chain.needs.borrow_and_update().clone();
        self.swarm.handle_needs(&needs.wanted, &needs.stops, now());
    }

    fn has_backlog(&self) -> bool {
        !self.news.is_empty() || !self.replies.is_empty()
    }

    fn pass_on(&mut self, slot: mpsc::OwnedPermit<Received>) {
        let Some(batch) = self.news.pop_front().or_else(|| self.replies.pop_front()) else { return };
        let count = batch.received.shares.len();
        slot.send(batch.received);
        self.swarm.handle_taken(count, now());
    }

    fn handle_done(&mut self, done: Completion) {
        let now = now();
        match done {
            Completion::TakenOver(loaded) => {
                // Else we would connect to ourselves.
                self.predecessor = None;
                self.keep_connected();
                self.take_up(loaded);
            }
            Completion::Bound(Ok(listener)) => self.note_bound(listener),
            Completion::Bound(Err(error)) => {
                if !self.is_port_taken {
                    self.is_port_taken = true;
                    warn!(
                        address = %self.config.listen,
                        %error,
                        "cannot listen for peers: trying again every second; until then no peer can connect to this node"
                    );
                }
                self.bind(BIND_RETRY);
            }
            Completion::Dialed(address, kind, Ok(stream)) => {
                let peer = self.swarm.handle_dialed(address, kind, now);
                self.connect(peer, stream, address, Direction::Outbound);
            }
            Completion::Dialed(address, kind, Err(error)) => {
                debug!(%address, %error, "cannot connect");
                if kind == DialKind::Permanent {
                    let nodes = self.nodes.iter_mut().filter(|node| node.address == Some(address));
                    nodes.for_each(|node| node.has_failed = true);
                }
                self.swarm.handle_dial_failed(address, now);
            }
            Completion::Resolved(named, found) => self.note_resolved(named, found),
            Completion::Knows(peer, hash, is_known) => self.swarm.handle_known(peer, hash, is_known, now),
            Completion::Ancestry(peer, id, shares) => self.swarm.handle_answer(peer, id, shares),
            Completion::Saved(problems) => {
                self.is_saving = false;
                self.note_saved(problems);
            }
        }
    }

    fn bind(&mut self, after: Duration) {
        let (address, data_dir) = (self.config.listen, self.inputs.data_dir.clone());
        self.start(async move {
            sleep(after).await;
            match Port::open(address, &data_dir) {
                Ok(port) => Completion::Bound(Ok(port.listener("peers").await)),
                Err(error) => Completion::Bound(Err(error)),
            }
        });
    }

    fn note_bound(&mut self, listener: TcpListener) {
        let address = listener.local_addr().unwrap_or(self.config.listen);
        info!(%address, "listening for peers");
        self.is_port_taken = false;
        self.acceptor = Some(Acceptor::new(listener, "peers"));
        // Useless where only this machine can connect.
        if self.config.upnp && !address.ip().is_loopback() {
            self.tracker.spawn(upnp::run(address.port(), self.stop.clone()));
        }
    }

    fn handle_accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        match self.swarm.handle_incoming(remote, now()) {
            Ok(peer) => self.connect(peer, stream, remote, Direction::Inbound),
            Err(refused) => {
                let reason = match refused {
                    swarm::Refused::Banned => "banned",
                    swarm::Refused::Full(_) => "full",
                    swarm::Refused::Group => "neighbourhood",
                };
                counter!("p2p_refused_connections_total", "reason" => reason).increment(1);
                debug!(%remote, reason = %refused, "connection refused");
            }
        }
    }

    /// Starts a new connection.
    fn connect(&mut self, id: PeerId, stream: TcpStream, remote: SocketAddr, direction: Direction) {
        let local_address = match stream.local_addr() {
            Ok(address) => sockets::canonical(address),
            Err(error) => {
                debug!(%remote, %error, "connection lost at once");
                return self.swarm.handle_closed(id, &Close::Quiet(error.to_string()), now());
            }
        };
        debug!(peer = id.0, %remote, ?direction, "connection made");
        let now = now();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
        let unix = now.unix as u64;
        let seed = fastrand::u64(..);
        let local = self.local(id);
        let peer = Peer::new(local, self.rules.clone(), remote, local_address, direction, seed, now.instant, unix);
        let (orders, ordered) = mpsc::channel(ORDERS_QUEUED_MAX);
        self.links.insert(id, orders);
        self.tracker.spawn(link::run(id, stream, peer, ordered, self.context.clone()));
    }

    /// Returns this node's current self-description, for one connection.
    fn local(&self, id: PeerId) -> Local {
        let tip = self.inputs.chain.tips.borrow().clone();
        let best = tip.as_ref().and_then(|tip| tip.best());
        let address = self.acceptor.as_ref().and_then(|acceptor| acceptor.listener().local_addr().ok());
        let port = address.map(|address| address.port());
        let advertise = match (port, self.external) {
            (Some(_), Some(address)) if self.config.advertise => Advertise::External(address),
            (Some(port), None) if self.config.advertise => Advertise::Port(port),
            _ => Advertise::Nothing,
        };
        Local {
            prefix: self.config.network.prefix,
            protocol_version: PROTOCOL_VERSION,
            sub_version: concat!("p2pool-rs/", env!("CARGO_PKG_VERSION")).to_owned(),
            nonce: self.nonce,
            best_share: best.map(|best| best.hash()),
            best_version: best.map(|best| best.version().number()),
            minimum_protocol: *self.inputs.chain.minimum_protocol.borrow(),
            advertise,
            shared: self.swarm.shared(id),
        }
    }

    fn resolve(&mut self, named: Named, after: Duration) {
        let host: Option<Host> = match named {
            Named::Node(index) => self.config.nodes.get(index).cloned(),
            Named::Bootstrap(index) => self.config.bootstrap.get(index).cloned(),
            Named::External => self.config.external.clone(),
        };
        let Some(host) = host else { return };
        self.start(async move {
            sleep(after).await;
            Completion::Resolved(named, host.resolve().await)
        });
    }

    fn note_resolved(&mut self, named: Named, found: io::Result<Vec<SocketAddr>>) {
        let now = now();
        let mut again = if found.is_ok() { RESOLVE_INTERVAL } else { RESOLVE_RETRY };
        match named {
            Named::Node(index) => {
                let node = &mut self.nodes[index];
                match &found {
                    Ok(addresses) => {
                        node.trouble = None;
                        node.address = dial::choose(addresses, node.address, node.has_failed);
                        if std::mem::take(&mut node.has_failed) {
                            again = RESOLVE_RETRY;
                        }
                        if addresses.len() > 1 {
                            again = RESOLVE_RETRY;
                        }
                    }
                    Err(error) => {
                        let trouble = error.to_string();
                        if node.trouble.as_ref() != Some(&trouble) {
                            warn!(node = %self.config.nodes[index], error = trouble, "cannot find the node's address");
                            node.trouble = Some(trouble);
                        }
                    }
                }
                self.keep_connected();
            }
            Named::Bootstrap(index) => match found {
                Ok(addresses) => addresses.into_iter().for_each(|address| self.swarm.add_bootstrap(address, now)),
                Err(error) => debug!(host = %self.config.bootstrap[index], %error, "cannot resolve a bootstrap host"),
            },
            Named::External => match found {
                Ok(addresses) => {
                    addresses.iter().for_each(|address| self.swarm.note_own_address(*address));
                    self.external = addresses.first().copied();
                }
                Err(error) => debug!(%error, "cannot resolve our own host"),
            },
        }
        self.resolve(named, again);
    }

    /// Passes the addresses to stay connected to on to the swarm.
    fn keep_connected(&mut self) {
        let named = self.nodes.iter().filter_map(|node| node.address);
        let addresses: Vec<SocketAddr> = named.chain(self.predecessor).collect();
        self.swarm.set_permanent(&addresses, now());
    }

    fn publish(&mut self) {
        let status = self.swarm.status(now());
        let incoming = status.peers.iter().filter(|peer| peer.is_incoming).count();
        set("p2p_peers", Some(("direction", "in")), incoming);
        set("p2p_peers", Some(("direction", "out")), status.peers.len() - incoming);
        set("p2p_bans", None, status.banned.len());
        set("p2p_addresses", None, status.addresses);
        let missing = status.downloading.map_or(0, |progress| progress.wanted_estimate.saturating_sub(progress.have));
        gauge!("p2p_download_shares_missing").set(f64::from(missing));
        let rate = status.downloading.map_or(0.0, |progress| progress.per_second);
        gauge!("p2p_download_shares_per_second").set(rate);
        let has_peers = !status.peers.is_empty();
        if has_peers != self.had_peers {
            self.had_peers = has_peers;
            match status.peers.first() {
                Some(first) => info!(
                    address = %first.address,
                    software = %stratum::printable::escaped(&first.sub_version),
                    "connected to the pool"
                ),
                None => warn!("no peer is left: looking for others"),
            }
        }
        let status = Arc::new(status);
        self.status.send_if_modified(|told| {
            let has_changed = **told != *status;
            *told = status;
            has_changed
        });
    }

    fn report_progress(&mut self) {
        let progress = self.swarm.status(now()).downloading;
        match progress {
            Some(progress) => {
                let seconds_left = progress.seconds_left.map(f64::ceil);
                info!(
                    have = progress.have,
                    of_about = progress.wanted_estimate,
                    per_second = progress.per_second.round(),
                    seconds_left,
                    "downloading shares"
                );
            }
            None if self.was_downloading => info!("all shares downloaded"),
            None => {}
        }
        self.was_downloading = progress.is_some();
    }

    /// Saves addresses and bans, unless a save is running.
    fn save(&mut self) {
        if !self.inputs.data_dir.is_ours() || std::mem::replace(&mut self.is_saving, true) {
            return;
        }
        let saving = self.saving();
        self.start(async move { Completion::Saved(saving.await) });
    }

    fn saving(&mut self) -> impl Future<Output = Vec<String>> + Send + 'static {
        let (addresses, bans) = (self.swarm.addresses_json(), self.swarm.take_changed_bans_json());
        files::save(self.inputs.data_dir.path().to_owned(), addresses, bans)
    }

    fn note_saved(&mut self, problems: Vec<String>) {
        for problem in &problems {
            warn!(%problem, "cannot save peers");
        }
        if !problems.is_empty() {
            self.swarm.mark_bans_changed();
        }
        self.inputs.disk.report(Part::Peers, problems.into_iter().next());
    }

    fn forget_transactions(&mut self) {
        let lost = self.context.known.forget_old(&self.lists.transactions(), Instant::now());
        self.swarm.handle_forgotten(lost);
    }

    /// Ends connections, removes the port mapping, and saves addresses and bans.
    async fn end(mut self) {
        self.context.stop.cancel();
        self.links.clear();
        self.acceptor = None;
        let tracker = self.tracker.clone();
        tracker.close();
        // Concurrently, for a hanging disk must not keep connections and the port mapping from an orderly end.
        if tokio::time::timeout(LAST_WORDS, futures::future::join(self.save_last(), tracker.wait())).await.is_err() {
            debug!(left = tracker.len(), "some connections, or the saving of peers, did not end in time");
        }
    }

    async fn save_last(&mut self) {
        // A running save must not be overtaken, nor cut off by the end of the process.
        while self.is_saving
            && let Some(done) = self.under_way.next().await
        {
            if matches!(done, Completion::Saved(_)) {
                self.handle_done(done);
            }
        }
        if self.inputs.data_dir.is_ours() {
            let problems = self.saving().await;
            self.note_saved(problems);
        }
    }
}

/// Counts an offence that ended a connection.
fn note_close(close: &Close) {
    if let Close::Offence(offence) = close {
        counter!("p2p_offences_total", "kind" => offence.word()).increment(1);
    }
}

/// Queries the share chain's owner; `None` if it has ended.
async fn ask<T>(queries: mpsc::Sender<Query>, query: Query, answer: oneshot::Receiver<T>) -> Option<T> {
    queries.send(query).await.ok()?;
    answer.await.ok()
}

async fn chain_slot(received: &mpsc::Sender<Received>) -> Option<mpsc::OwnedPermit<Received>> {
    received.clone().reserve_owned().await.ok()
}

/// Returns the next connection; pending while the port is not open.
async fn accept(acceptor: Option<&mut Acceptor<TcpListener>>) -> (TcpStream, SocketAddr) {
    match acceptor {
        Some(acceptor) => acceptor.next().await,
        None => std::future::pending().await,
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Converts a template's transaction for peers.
fn forwarded(one: &TemplateTransaction) -> Transaction {
    Transaction { hash: one.wtxid.to_byte_array(), raw: one.raw.clone() }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn set(name: &'static str, label: Option<(&'static str, &'static str)>, value: usize) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 of anything")]
    let value = value as f64;
    match label {
        Some((label, word)) => gauge!(name, label => word).set(value),
        None => gauge!(name).set(value),
    }
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_now() }
}
