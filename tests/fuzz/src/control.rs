//! Any bytes on the control socket, which also serves all public paths: each request gets an answer of HTTP, or the
//! connection is closed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p2pool::bitcoind::Health;
use p2pool::blocks::Reports;
use p2pool::blocks::submit::Resubmitter;
use p2pool::chain::{self, ParentFeed};
use p2pool::peers::{self, Command};
use p2pool::runtime::disk::DiskHealth;
use p2pool::runtime::log::Tail;
use p2pool::view::control::routes;
use p2pool::view::graphs::Graphs;
use p2pool::view::http::{self, Http, Listeners, Readers, SmallDevices};
use p2pool::view::snapshot::share::Finder;
use p2pool::view::snapshot::{Config, Snapshot};
use p2pool::work::Gate;
use sharechain::coin::BITCOIN_REGTEST;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Time until a client hangs up, on a clock that runs ahead while all tasks wait.
const CLIENT_WAITS: Duration = Duration::from_secs(3600);

/// A node's HTTP, and the runtime that it needs.
struct Bench {
    runtime: Runtime,
    http: Http,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// Handle to a P2P task that only keeps bans.
fn bans_alone(runtime: &Runtime) -> peers::Handle {
    let (commands, mut ordered) = mpsc::channel(1);
    runtime.spawn(async move {
        let mut bans = p2p::bans::Bans::default();
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
    peers::Handle {
        status: watch::channel(Arc::default()).1,
        commands,
        transactions: Arc::default(),
        traffic: Arc::default(),
        latency_requests: peers::LatencyRequests::default(),
    }
}

impl Bench {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let network = &BITCOIN_REGTEST;
        let disk = DiskHealth::new();
        let parent = ParentFeed {
            wanted: mpsc::channel(1).0,
            known: watch::channel(Arc::default()).1,
            templates: watch::channel(Arc::default()).1,
        };
        let folder = tempfile::tempdir().expect("a folder for the chain");
        let config = chain::Config { network, data_dir: folder.path().into(), legacy: None, disk: disk.clone() };
        let (chain, _) = {
            let _context = runtime.enter();
            chain::load(&config, parent).expect("an empty chain")
        };
        let shown = Config { network, payout_address: "node".into(), fee_percent: 0.0, donation_percent: 0.0 };
        let public = http::Sources {
            metrics: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
            meters: Arc::default(),
            health: watch::channel(Health::default()).1,
            disk: disk.watch(),
            gate: watch::channel(Gate::Closed("for a peer".into())).1,
            rates: watch::channel(Arc::default()).1,
            small_devices: SmallDevices(Arc::new(Vec::new)),
            network,
            snapshot: watch::channel(Arc::new(Snapshot::new(&shown, 0.0))).1,
            found: watch::channel(Arc::default()).1,
            graphs: Graphs::default(),
            shares: Finder::new(chain.clone()),
            chain,
            p2p: Some(bans_alone(&runtime)),
            web_static: None,
            listeners: Listeners::default(),
            readers: Readers::default(),
            stop: CancellationToken::new(),
        };
        let (resubmitter, reports) = (Resubmitter::disconnected(), Reports::new());
        let router = routes::router(routes::Sources { public, resubmitter, reports, log: Tail::default() });
        Self { runtime, http: Http::new(router, CancellationToken::new()) }
    }

    /// Sends `request`, and returns what came back until the connection ended or the client hung up.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 16);
            let http = self.http.clone();
            let serving = tokio::spawn(async move { http.serve(server, Ipv4Addr::LOCALHOST.into()).await });
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(CLIENT_WAITS, async {
                let (mut reader, mut writer) = tokio::io::split(&mut client);
                let send = async {
                    // A server that has read enough closes the connection.
                    let _ = writer.write_all(request).await;
                    let _ = writer.shutdown().await;
                };
                let receive = async {
                    let _ = reader.read_to_end(&mut answer).await;
                };
                tokio::join!(send, receive)
            })
            .await;
            drop(client);
            serving.await.expect("a connection does not panic");
            answer
        })
    }
}

fuzz_target!(|request: &[u8]| {
    BENCH.with_borrow_mut(|bench| {
        let answer = bench.get_or_insert_with(Bench::new).answer(request);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    });
});
