//! Drives [`Wire`] over TCP: early news of blocks in, found blocks out, and a new connection when the old one is lost.

use bitcoin::BlockHash;
use bytes::Bytes;
use futures::future::BoxFuture;
use metrics::gauge;
use parking_lot::Mutex;
use sharechain::coin::Network;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::health::Monitor;
use super::rpc_route::NO_PARENT;
use super::wire::{Event, Fate, SUBMISSIONS_MAX, Wire};
use crate::blocks::Route;
use crate::blocks::{FoundBlock, Outcome};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::since_1970;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the daemon may take nothing of what we send.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a block's fate may take to become known: a slow disk verifies a full block in seconds.
const FATE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Blocks remembered as not taken at the first attempt.
const RETRIED_MAX: usize = 1024;

/// A block for the connection to hand over.
#[derive(Debug)]
struct Command {
    hash: BlockHash,
    previous: BlockHash,
    bytes: Bytes,
    /// Whether to hand it over only if the daemon has its parent: Core hangs up on a block without one, and with the
    /// connection goes the news of blocks.
    ask_first: bool,
    fate: oneshot::Sender<Result<Fate, String>>,
}

/// The daemon's P2P port as a way for blocks.
#[derive(Debug)]
pub struct P2pRoute {
    commands: mpsc::Sender<Command>,
    /// Blocks that did not get in at the first attempt: the daemon is asked for their parents before it gets them again.
    retried: Mutex<HashSet<BlockHash>>,
}

/// The connection's side of it.
#[derive(Debug)]
pub(super) struct Peer {
    target: String,
    magic: [u8; 4],
    monitor: Monitor,
    news: Arc<Notify>,
    commands: mpsc::Receiver<Command>,
}

/// Makes the two ends. The peer ends when its route is dropped, so that blocks on their way are not cut off by the stop.
pub(super) fn new(
    address: &str,
    port: u16,
    network: &Network,
    monitor: Monitor,
    news: Arc<Notify>,
) -> (Arc<P2pRoute>, Peer) {
    let (sender, commands) = mpsc::channel(SUBMISSIONS_MAX);
    let host = if address.contains(':') && !address.starts_with('[') { format!("[{address}]") } else { address.into() };
    let target = format!("{host}:{port}");
    let route = P2pRoute { commands: sender, retried: Mutex::default() };
    (Arc::new(route), Peer { target, magic: network.parent.magic, monitor, news, commands })
}

impl Route for P2pRoute {
    fn name(&self) -> &'static str {
        "p2p"
    }

    /// P2P can confirm a block, and never rejects one: the daemon says nothing, or hangs up, for many reasons.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (fate, told) = oneshot::channel();
            let (hash, previous, bytes) = (block.hash, block.previous_block, block.bytes.clone());
            let ask_first = self.retried.lock().contains(&hash);
            if self.commands.try_send(Command { hash, previous, bytes, ask_first, fate }).is_err() {
                return Outcome::Failed("too many blocks wait for the connection".to_owned());
            }
            let outcome = match timeout(FATE_TIMEOUT, told).await {
                Err(_) => Outcome::Failed(format!("nothing heard of it for {} s", FATE_TIMEOUT.as_secs())),
                Ok(Err(_)) => Outcome::Failed("bitcoind closed the connection".to_owned()),
                Ok(Ok(Err(reason))) => Outcome::Failed(reason),
                Ok(Ok(Ok(Fate::InChain))) => Outcome::Accepted,
                Ok(Ok(Ok(Fate::Displaced))) => Outcome::Stale,
                Ok(Ok(Ok(Fate::NotTaken))) => Outcome::Failed("bitcoind did not take it into its chain".to_owned()),
                Ok(Ok(Ok(Fate::Unconnected))) => Outcome::Waiting(NO_PARENT.to_owned()),
            };
            self.note(hash, &outcome);
            outcome
        })
    }
}

impl P2pRoute {
    fn note(&self, hash: BlockHash, outcome: &Outcome) {
        let mut retried = self.retried.lock();
        if outcome.is_final() {
            retried.remove(&hash);
            return;
        }
        if retried.len() >= RETRIED_MAX {
            // Of blocks that another route has settled meanwhile, most of them.
            retried.clear();
        }
        retried.insert(hash);
    }
}

impl Peer {
    /// Keeps a connection until the route is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut lost_told = false;
        gauge!("bitcoind_p2p_connected").set(0.0);
        loop {
            let Some(reason) = self.connection(&mut backoff, &mut lost_told).await else { return };
            self.monitor.p2p_connected(false);
            gauge!("bitcoind_p2p_connected").set(0.0);
            if lost_told {
                debug!(target = self.target, reason, "still no P2P connection to bitcoind");
            } else {
                lost_told = true;
                warn!(
                    target = self.target,
                    reason, "no P2P connection to bitcoind: blocks go out by RPC alone, and news of them comes later"
                );
            }
            if !self.idle(sleep(backoff.delay())).await {
                return;
            }
        }
    }

    /// One connection from beginning to end; says why it ended, or `None` if the route was dropped.
    async fn connection(&mut self, backoff: &mut Backoff, lost_told: &mut bool) -> Option<String> {
        let target = self.target.clone();
        let (connected, mut outcome) = oneshot::channel();
        tokio::spawn(async move {
            let _ = connected.send(timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await);
        });
        let stream = loop {
            tokio::select! {
                command = self.commands.recv() => refuse(command?),
                outcome = &mut outcome => match outcome {
                    Ok(Ok(Ok(stream))) => break stream,
                    Ok(Ok(Err(error))) => return Some(error.to_string()),
                    Ok(Err(_)) | Err(_) => return Some("connecting takes too long".to_owned()),
                },
            }
        };
        // Small messages must not wait for large ones: a block's ping follows it at once.
        let _ = stream.set_nodelay(true);
        match stream.peer_addr() {
            Ok(remote) => self.drive(stream, remote, backoff, lost_told).await,
            Err(error) => Some(error.to_string()),
        }
    }

    async fn drive(
        &mut self,
        stream: TcpStream,
        remote: SocketAddr,
        backoff: &mut Backoff,
        lost_told: &mut bool,
    ) -> Option<String> {
        let unix_time = since_1970().as_secs();
        let unix_time = i64::try_from(unix_time).unwrap_or(i64::MAX);
        let mut wire = Wire::new(self.magic, remote, unix_time, fastrand::u64(..), Instant::now());
        let (mut reader, mut writer) = stream.into_split();
        let mut buffer = vec![0; READ_BYTES];
        // Dropping what is left in here tells its waiters that the connection ended.
        let mut waiting: HashMap<BlockHash, oneshot::Sender<Result<Fate, String>>> = HashMap::new();
        let mut queued: VecDeque<Command> = VecDeque::new();
        loop {
            while let Some(bytes) = wire.poll_output() {
                match self.write(&mut writer, &bytes, &mut queued).await? {
                    Ok(()) => {}
                    Err(reason) => return Some(reason),
                }
            }
            while let Some(event) = wire.poll_event() {
                match event {
                    Event::Ready(user_agent) => {
                        backoff.reset();
                        *lost_told = false;
                        self.monitor.p2p_connected(true);
                        gauge!("bitcoind_p2p_connected").set(1.0);
                        info!(target = self.target, user_agent, "P2P connection to bitcoind is up");
                        // A block may have come while nobody listened.
                        self.news.notify_one();
                    }
                    Event::NewBlock(hash) => {
                        debug!(%hash, "bitcoind told of a block");
                        self.news.notify_one();
                    }
                    Event::Fate(hash, fate) => {
                        if let Some(waiter) = waiting.remove(&hash) {
                            // Gone if it waited too long.
                            let _ = waiter.send(Ok(fate));
                        }
                    }
                }
            }
            if let Some(command) = queued.pop_front() {
                let (hash, previous) = (command.hash, command.previous);
                if wire.submit(hash, previous, command.bytes.clone(), command.ask_first) {
                    waiting.insert(command.hash, command.fate);
                } else {
                    refuse(command);
                }
                continue;
            }
            let due = tokio::time::Instant::from_std(wire.poll_timeout());
            let step = tokio::select! {
                command = self.commands.recv() => {
                    queued.push_back(command?);
                    Ok(())
                }
                read = reader.read(&mut buffer) => match read {
                    Ok(0) => return Some("bitcoind closed the connection".to_owned()),
                    Ok(count) => wire.handle_bytes(&buffer[..count], Instant::now()),
                    Err(error) => return Some(error.to_string()),
                },
                () = sleep_until(due) => wire.handle_timeout(Instant::now()),
            };
            if let Err(error) = step {
                return Some(error.to_string());
            }
        }
    }

    /// Writes `bytes`, queueing commands meanwhile; `None` if the route was dropped, so that a daemon that takes nothing
    /// delays no stop.
    async fn write(
        &mut self,
        writer: &mut OwnedWriteHalf,
        bytes: &[u8],
        queued: &mut VecDeque<Command>,
    ) -> Option<Result<(), String>> {
        let written = timeout(WRITE_TIMEOUT, writer.write_all(bytes));
        tokio::pin!(written);
        loop {
            tokio::select! {
                biased;
                written = &mut written => return Some(match written {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("it takes nothing for {} s", WRITE_TIMEOUT.as_secs())),
                }),
                command = self.commands.recv() => match command? {
                    command if queued.len() < SUBMISSIONS_MAX => queued.push_back(command),
                    command => refuse(command),
                },
            }
        }
    }

    /// Waits for `pause`, refusing blocks meanwhile; says whether the route is still there.
    async fn idle(&mut self, pause: tokio::time::Sleep) -> bool {
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                command = self.commands.recv() => match command {
                    Some(command) => refuse(command),
                    None => return false,
                },
            }
        }
    }
}

fn refuse(command: Command) {
    let _ = command.fate.send(Err("no P2P connection".to_owned()));
}
