//! Drives the [`Swarm`]: one task that opens its sockets, keeps its timers, passes its orders to the connections, and
//! forwards peers' shares to the share chain's owner.

mod connections;
mod hosts;
mod inputs;
mod saving;
mod status;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use p2p::peer::{Direction, Order};
use p2p::swarm::{self, Action, DialKind, Now, PeerId, Status, Swarm};
use p2p::transactions::Transactions;
use sharechain::merkle::Digest;
use sharechain::share::{Share, ShareHash, ShareRules};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::server::hashing::Hashers;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::dial;
use super::link::{self, BatchPermit, LinkEvent};
use super::listed::RecentLists;
use super::traffic::Traffic;
use super::{COMMANDS_QUEUED_MAX, Command, Config, Handle, LatencyRequests, files, proofs};
use crate::chain::{self, ChainEvent, Query, Received};
use crate::runtime::accept::Acceptor;
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::template::Template;
use connections::{BIND_RETRY, note_close};
use hosts::{Named, Node};

/// Queue capacity for events of connections. Each is handled in microseconds; a burst of all peers at once fits.
const HEARD_QUEUED_MAX: usize = 64;

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
    /// Threads for costly proofs of work.
    pub hashers: Arc<Hashers>,
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
            has_laxer_nodes: network.has_laxer_nodes(),
        };
        Self {
            swarm: Swarm::new(swarm, random, now()),
            rules: Arc::new(inputs.chain.rules()),
            nonce,
            context: link::Context {
                known,
                traffic,
                heard,
                heavy: link::heavy_messages(),
                at_risk: inputs.chain.at_risk.clone(),
                large: Arc::new(Semaphore::new(link::LARGE_MESSAGES_MAX)),
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

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: unix_now() }
}
