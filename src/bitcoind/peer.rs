//! Drives [`Wire`] over TCP: early news of blocks in, found blocks out, and reconnects when the connection is lost.

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

/// Maximum time for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum time for a write without progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum time until a block's fate is known: a slow disk verifies a full block in seconds.
const FATE_TIMEOUT: Duration = Duration::from_secs(20);

/// Size of the read buffer, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Maximum number of blocks remembered as not accepted at the first attempt.
const RETRIED_MAX: usize = 1024;

/// A block for the connection to submit.
#[derive(Debug)]
struct Command {
    hash: BlockHash,
    previous: BlockHash,
    bytes: Bytes,
    /// Set to submit it only if the daemon has its parent: Core disconnects after a block without one, and the
    /// connection is needed for news of blocks.
    ask_first: bool,
    fate: oneshot::Sender<Result<Fate, String>>,
}

/// The daemon's P2P port as a route for blocks.
#[derive(Debug)]
pub struct P2pRoute {
    commands: mpsc::Sender<Command>,
    /// Blocks not accepted at the first attempt: for the next, the daemon is asked for their parents first.
    retried: Mutex<HashSet<BlockHash>>,
}

/// Task that keeps the connection.
#[derive(Debug)]
pub(super) struct Peer {
    target: String,
    magic: [u8; 4],
    monitor: Monitor,
    news: Arc<Notify>,
    commands: mpsc::Receiver<Command>,
}

/// Creates the route and its task, which ends when the route is dropped: a stop does not cut off blocks in flight.
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

    /// P2P can confirm a block, but never rejects one: the daemon stays silent, or disconnects, for many reasons.
    fn attempt<'a>(&'a self, block: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let (fate, told) = oneshot::channel();
            let (hash, previous, bytes) = (block.hash, block.previous_block, block.bytes.clone());
            let ask_first = self.retried.lock().contains(&hash);
            if self.commands.try_send(Command { hash, previous, bytes, ask_first, fate }).is_err() {
                return Outcome::Failed("too many blocks are queued for the connection".to_owned());
            }
            let outcome = match timeout(FATE_TIMEOUT, told).await {
                Err(_) => Outcome::Failed(format!("no answer within {} s", FATE_TIMEOUT.as_secs())),
                Ok(Err(_)) => Outcome::Failed("bitcoind closed the connection".to_owned()),
                Ok(Ok(Err(reason))) => Outcome::Failed(reason),
                Ok(Ok(Ok(Fate::InChain))) => Outcome::Accepted,
                Ok(Ok(Ok(Fate::Displaced))) => Outcome::Stale,
                Ok(Ok(Ok(Fate::NotTaken))) => Outcome::Failed("bitcoind did not add it to its chain".to_owned()),
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
            // Most of them were settled by another route meanwhile.
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
                    reason, "no P2P connection to bitcoind: blocks go out by RPC only, new ones are noticed later"
                );
            }
            if !self.idle(sleep(backoff.delay())).await {
                return;
            }
        }
    }

    /// Runs one connection; returns the reason for its end, or `None` if the route was dropped.
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
                    Ok(Err(_)) | Err(_) => return Some("connecting timed out".to_owned()),
                },
            }
        };
        // Small messages must not be delayed: a block is followed by a ping.
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
        // Dropping a sender in here notifies its receiver that the connection has ended.
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
                        // A block may have come while there was no connection.
                        self.news.notify_one();
                    }
                    Event::NewBlock(hash) => {
                        debug!(%hash, "bitcoind announced a block");
                        self.news.notify_one();
                    }
                    Event::Fate(hash, fate) => {
                        if let Some(waiter) = waiting.remove(&hash) {
                            // Fails if the attempt has timed out.
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

    /// Writes `bytes` and queues commands meanwhile; `None` if the route was dropped, so that a daemon that does not
    /// read cannot delay a stop.
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
                    Err(_) => Err(format!("no progress in writing for {} s", WRITE_TIMEOUT.as_secs())),
                }),
                command = self.commands.recv() => match command? {
                    command if queued.len() < SUBMISSIONS_MAX => queued.push_back(command),
                    command => refuse(command),
                },
            }
        }
    }

    /// Waits for `pause`, refusing blocks meanwhile; returns false if the route was dropped.
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
