//! Answers on the control socket.

use bitcoin::BlockHash;
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::overview::{self, Overview, Payouts};
use super::{Answer, BAN_HOURS_MAX, Request, socket_path, with_short_path};
use crate::bitcoind::Health;
use crate::blocks::Outcome;
use crate::blocks::Reports;
use crate::blocks::found::FoundBlocks;
use crate::blocks::submit::Resubmitter;
use crate::peers::{self, Command};
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::data_dir::DataDir;
use crate::runtime::json_lines;
use crate::runtime::log::Tail;
use crate::view::snapshot::Snapshot;
use crate::work::Gate;

/// Connections that may be open at a time.
const CONNECTIONS_MAX: usize = 16;

/// How long a connection may take over its next request.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long the part that an order goes to may take over it.
const ORDER_MAX: Duration = Duration::from_secs(5);

/// Found blocks in an answer: half a line's length of them.
const BLOCKS_LISTED_MAX: usize = 500;

/// Pause after an error of `accept`, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers are made from, and who carries orders out.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The network's name.
    pub network: &'static str,
    /// The pool's network, if this node takes part in it.
    pub p2p: Option<peers::Handle>,
    /// Whether there may be work.
    pub gate: watch::Receiver<Gate>,
    /// The daemon's condition.
    pub health: watch::Receiver<Health>,
    /// What miners do.
    pub rates: watch::Receiver<Arc<Rates>>,
    /// What pages show.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Found blocks.
    pub found: watch::Receiver<Arc<FoundBlocks>>,
    /// Submits blocks again.
    pub resubmitter: Resubmitter,
    /// Outcomes of submissions.
    pub reports: Reports,
    /// The last lines of the log.
    pub log: Tail,
}

/// Answers until `stop`, from when `data_dir` is this process's. A node without a control socket is still a node, so
/// trouble is only told.
pub async fn run(sources: Sources, data_dir: DataDir, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = data_dir.ours() => {}
    }
    let listener = match bind(data_dir.path()) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "no control socket: `p2pool peers` and the like will not work");
            return;
        }
    };
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Whoever comes beyond waits in the kernel's queue.
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("never closed"),
        };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept control connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (sources, stop) = (sources.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                ended = serve(stream, &sources) => if let Err(error) = ended {
                    debug!(%error, "control connection ended");
                }
            }
            drop(place);
        });
    }
    // Nobody else writes here while the directory is ours.
    let _ = fs::remove_file(socket_path(data_dir.path()));
    connections.close();
    connections.wait().await;
}

/// Opens the socket in `data_dir`, in place of one that an earlier run left. There is no instant in which it is there and
/// others than this user may open it.
fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let private = tempfile::Builder::new().prefix(".control-").tempdir_in(data_dir)?;
    let path = private.path().join("new");
    let listener = with_short_path(&path, |path| UnixListener::bind(path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    fs::rename(&path, socket_path(data_dir))?;
    Ok(listener)
}

async fn serve(stream: UnixStream, sources: &Sources) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let (mut requests, mut answers) = (json_lines::reader(reader), json_lines::writer(writer));
    while let Ok(Some(line)) = timeout(IDLE_MAX, requests.next()).await {
        let (answer, is_last) = match line {
            Ok(value) => match serde_json::from_value(value) {
                Ok(request) => (answer(request, sources).await, false),
                Err(error) => (Answer::Error(format!("not a request: {error}")), false),
            },
            Err(error) => (Answer::Error(format!("not a line of JSON: {error}")), true),
        };
        answers.send(value(&answer)).await?;
        if is_last {
            break;
        }
    }
    Ok(())
}

async fn answer(request: Request, sources: &Sources) -> Answer {
    let done = match (request, &sources.p2p) {
        (Request::Overview, _) => Ok(value(&page(sources))),
        (Request::Payouts, _) => Ok(value(&Payouts::new(&sources.snapshot.borrow(), &sources.rates.borrow()))),
        (Request::Blocks, _) => {
            let blocks = overview::blocks(&sources.found.borrow(), BLOCKS_LISTED_MAX);
            Ok(json!({ "symbol": sources.snapshot.borrow().symbol, "blocks": value(&blocks) }))
        }
        (Request::Resubmit { hash }, _) => resubmit(hash, sources).await,
        (Request::Status, None) => Ok(status(&p2p::Status::default(), sources)),
        (_, None) => Err("this node takes no part in the pool's network".to_owned()),
        (Request::Status, Some(p2p)) => {
            order(p2p, |reply| Command::Status { reply }).await.map(|peers| status(&peers, sources))
        }
        (Request::Peers, Some(p2p)) => {
            p2p.measure_latencies().await;
            order(p2p, |reply| Command::Status { reply }).await.map(|status| {
                json!({
                    "peers": value(&status.peers),
                    "incoming": status.incoming,
                    "outgoing": status.outgoing,
                    "dialing": status.dialing,
                    "addresses": status.addresses,
                })
            })
        }
        (Request::Bans, Some(p2p)) => {
            order(p2p, |reply| Command::ListBans { reply }).await.map(|bans| json!({ "bans": value(&bans) }))
        }
        (Request::Ban { hours, .. }, _) if !(0.0..=BAN_HOURS_MAX).contains(&hours) => {
            Err(format!("a ban lasts from 0 to {BAN_HOURS_MAX} hours"))
        }
        (Request::Ban { address, hours, reason }, Some(p2p)) => {
            let seconds = hours * 3600.0;
            let banned = order(p2p, |reply| Command::Ban { address, seconds, reason, reply }).await;
            banned.and_then(|banned| banned.map(|ban| value(&ban)).map_err(|error| error.to_string()))
        }
        (Request::Unban { address }, Some(p2p)) => unban(address, p2p).await,
        (Request::UnbanAll, Some(p2p)) => unban_all(p2p).await,
    };
    done.map_or_else(Answer::Error, Answer::Result)
}

fn page(sources: &Sources) -> Overview {
    if let Some(p2p) = &sources.p2p {
        p2p.refresh_latencies();
    }
    let log = sources.log.lines(overview::LOG_MAX);
    let (snapshot, rates, found) = (sources.snapshot.borrow(), sources.rates.borrow(), sources.found.borrow());
    Overview::new(&snapshot, &rates, &found, log, unix_now())
}

fn status(peers: &p2p::Status, sources: &Sources) -> Value {
    let health = sources.health.borrow().clone();
    let rates = sources.rates.borrow().clone();
    let snapshot = sources.snapshot.borrow().clone();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "network": sources.network,
        "waiting": sources.gate.borrow().reason(),
        "daemon": health.version,
        "trouble": health.trouble,
        "clock": snapshot.clock,
        "peers": peers.peers.len(),
        "banned": peers.banned.len(),
        "addresses": peers.addresses,
        "downloading": value(&peers.downloading),
        "workers": rates.active_workers,
        "hash_rate": rates.hash_rate,
        "pool_hash_rate": snapshot.pool.as_ref().map(|pool| pool.hour.hash_rate),
        "shares": snapshot.local.shares,
        "stale_shares": snapshot.local.orphan + snapshot.local.dead,
        "height": snapshot.chain.height,
        "blocks": sources.found.borrow().blocks.len(),
    })
}

/// Submits a block again, and reports what the routes bring within a few seconds.
async fn resubmit(hash: BlockHash, sources: &Sources) -> Result<Value, String> {
    let mut reports = sources.reports.subscribe();
    sources.resubmitter.resubmit(hash).await.map_err(|error| error.to_string())?;
    let mut routes: Vec<Attempt> = Vec::new();
    let mut verdict: Option<Outcome> = None;
    let listen = async {
        while !verdict.as_ref().is_some_and(Outcome::is_final) {
            let report = match reports.recv().await {
                Ok(report) => report,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            match report.route {
                _ if report.block.hash != hash => {}
                Some(route) => {
                    routes.retain(|known| known.route != route);
                    routes.push(Attempt { route, outcome: report.outcome });
                }
                None => verdict = Some(report.outcome),
            }
        }
    };
    // No answer in time is an answer, too: the attempts go on.
    let _ = timeout(ORDER_MAX, listen).await;
    Ok(json!({ "hash": hash, "routes": value(&routes), "verdict": value(&verdict) }))
}

/// One route's latest outcome.
#[derive(Debug, Serialize)]
struct Attempt {
    route: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

async fn unban(address: IpAddr, p2p: &peers::Handle) -> Result<Value, String> {
    if order(p2p, |reply| Command::Unban { address, reply }).await? {
        Ok(json!({ "unbanned": 1 }))
    } else {
        Err(format!("{address} is not banned; `p2pool bans` lists who is"))
    }
}

async fn unban_all(p2p: &peers::Handle) -> Result<Value, String> {
    let mut unbanned = 0_u64;
    for ban in order(p2p, |reply| Command::ListBans { reply }).await? {
        let address = ban.address;
        unbanned += u64::from(order(p2p, |reply| Command::Unban { address, reply }).await?);
    }
    Ok(json!({ "unbanned": unbanned }))
}

/// Has an order carried out, and says what came of it.
async fn order<T>(p2p: &peers::Handle, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, String> {
    let (reply, replied) = oneshot::channel();
    let carried_out = async {
        p2p.commands.send(make(reply)).await.ok()?;
        replied.await.ok()
    };
    match timeout(ORDER_MAX, carried_out).await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err("the node is stopping".to_owned()),
        Err(_) => Err("the node is too busy just now: try again".to_owned()),
    }
}

fn value(one: &impl Serialize) -> Value {
    serde_json::to_value(one).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::control::client;
    use p2p::bans::{Bans, NotBanned};
    use sharechain::coin::BITCOIN_REGTEST;
    use std::path::PathBuf;
    use tokio::sync::mpsc;

    fn shown() -> crate::view::snapshot::Config {
        crate::view::snapshot::Config {
            network: &BITCOIN_REGTEST,
            payout_address: "node".into(),
            fee_percent: 0.0,
            donation_percent: 0.0,
        }
    }

    /// A server in `folder`, with bans behind it and nothing else.
    fn start(folder: &Path, stop: &CancellationToken) -> tokio::task::JoinHandle<()> {
        let (commands, mut ordered) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut bans = Bans::default();
            while let Some(command) = ordered.recv().await {
                match command {
                    Command::Status { reply } => drop(reply.send(Arc::default())),
                    Command::MeasureLatencies { reply } => drop(reply.send(())),
                    Command::ListBans { reply } => drop(reply.send(bans.list(0.0))),
                    Command::Ban { address, seconds, reason, reply } => {
                        drop(reply.send(bans.ban(address, seconds, &reason, 0.0)));
                    }
                    Command::Unban { address, reply } => drop(reply.send(bans.unban(address))),
                }
            }
        });
        let status = watch::channel(Arc::default()).1;
        let sources = Sources {
            network: "bitcoin_regtest",
            p2p: Some(peers::Handle {
                status,
                commands,
                transactions: Arc::default(),
                traffic: Arc::default(),
                latency_requests: peers::LatencyRequests::default(),
            }),
            gate: watch::channel(Gate::Closed("waiting for a peer".into())).1,
            health: watch::channel(Health::default()).1,
            rates: watch::channel(Arc::default()).1,
            snapshot: watch::channel(Arc::new(Snapshot::new(&shown(), 0.0))).1,
            found: watch::channel(Arc::default()).1,
            resubmitter: Resubmitter::of_nobody(),
            reports: Reports::new(),
            log: Tail::default(),
        };
        let data_dir = DataDir::open(folder, &BITCOIN_REGTEST).unwrap();
        tokio::spawn(run(sources, data_dir, stop.clone()))
    }

    async fn ask(folder: &Path, request: Request) -> Answer {
        let started = tokio::time::Instant::now();
        loop {
            match client::ask(folder, &request).await {
                Ok(answer) => return answer,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(10), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn bans_come_and_go_and_mistakes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let server = start(folder.path(), &stop);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let ban = |address, hours| Request::Ban { address, hours, reason: "spam".into() };
        let Answer::Result(banned) = ask(folder.path(), ban(address, 2.0)).await else { panic!() };
        assert_eq!((banned["address"].as_str(), banned["until"].as_f64()), (Some("192.0.2.1"), Some(7200.0)));
        let Answer::Result(bans) = ask(folder.path(), Request::Bans).await else { panic!() };
        assert_eq!(bans["bans"][0]["reason"], "spam");
        let loopback = "127.0.0.1".parse().unwrap();
        let refused = ask(folder.path(), ban(loopback, 2.0)).await;
        assert_eq!(refused, Answer::Error(NotBanned::Loopback(loopback).to_string()));
        assert!(matches!(ask(folder.path(), ban(address, f64::NAN)).await, Answer::Error(_)));
        assert_eq!(ask(folder.path(), Request::Unban { address }).await, Answer::Result(json!({"unbanned": 1})));
        assert!(matches!(ask(folder.path(), Request::Unban { address }).await, Answer::Error(_)));
        let Answer::Result(status) = ask(folder.path(), Request::Status).await else { panic!() };
        assert_eq!(status["waiting"], "waiting for a peer");
        stop.cancel();
        server.await.unwrap();
        assert!(!socket_path(folder.path()).exists());
    }

    #[tokio::test]
    async fn only_its_user_may_open_it_and_one_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(socket_path(folder.path()), "left behind").unwrap();
        let _listener = bind(folder.path()).unwrap();
        let mode = fs::metadata(socket_path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "the private folder is gone");
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_works_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let deep: PathBuf = [folder.path(), Path::new(&"d".repeat(120)), Path::new(&"e".repeat(120))].iter().collect();
        let stop = CancellationToken::new();
        let server = start(&deep, &stop);
        assert!(matches!(ask(&deep, Request::Status).await, Answer::Result(_)));
        stop.cancel();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let server = start(folder.path(), &stop);
        ask(folder.path(), Request::Status).await;
        for (line, part) in [("{\"command\":\"fly\"}\n", "fly"), ("nonsense\n", "not a line of JSON")] {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = UnixStream::connect(socket_path(folder.path())).await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("{\"error\"") && answer.contains(part), "{answer}");
        }
        stop.cancel();
        server.await.unwrap();
    }
}
