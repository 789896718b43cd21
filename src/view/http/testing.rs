//! Sources of a node that has just started, and connections, for tests and fuzz targets: a pair of pipes takes the place
//! of a socket.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sharechain::coin::BITCOIN_REGTEST;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Http, Listeners, Readers, SmallDevices, Sources};
use crate::bitcoind::Health;
use crate::blocks::Finding;
use crate::blocks::found::{Record, Standing};
use crate::chain;
use crate::merged::{ChainStatus, Mode, State};
use crate::peers::{self, Command};
use crate::runtime::disk::DiskHealth;
use crate::view::graphs::Graphs;
use crate::view::snapshot::share::Finder;
use crate::view::snapshot::{Config, Snapshot};
use crate::work::Gate;

/// Returns a handle to a P2P task that only keeps bans.
fn bans_alone() -> peers::Handle {
    let (commands, mut ordered) = mpsc::channel(1);
    tokio::spawn(async move {
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
    let status = watch::channel(Arc::default()).1;
    peers::Handle {
        status,
        commands,
        transactions: Arc::default(),
        traffic: Arc::default(),
        latency_requests: peers::LatencyRequests::default(),
    }
}

/// Returns the sources of a node that has just started on `folder`. They need a runtime.
pub fn sources(folder: &Path) -> Sources {
    let network = &BITCOIN_REGTEST;
    let shown = Config { network, payout_address: "node".into(), fee_percent: 0.0, donation_percent: 0.0 };
    let mut snapshot = Snapshot::new(&shown, 0.0);
    snapshot.waiting = Some("for a peer".into());
    let disk = DiskHealth::new();
    let config = chain::Config { network, data_dir: folder.to_owned(), legacy: None, disk: disk.clone() };
    let parent = chain::ParentFeed {
        wanted: mpsc::channel(1).0,
        known: watch::channel(Arc::default()).1,
        templates: watch::channel(Arc::default()).1,
    };
    let (chain, _) = chain::load(&config, parent).expect("an empty chain");
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    Sources {
        metrics: recorder.handle(),
        meters: Arc::default(),
        health: watch::channel(Health::default()).1,
        disk: disk.watch(),
        gate: watch::channel(Gate::Closed("for a peer".into())).1,
        rates: watch::channel(Arc::default()).1,
        small_devices: SmallDevices(Arc::new(Vec::new)),
        network,
        snapshot: watch::channel(Arc::new(snapshot)).1,
        found: watch::channel(Arc::default()).1,
        merged_found: watch::channel(Arc::default()).1,
        graphs: Graphs::default(),
        shares: Finder::new(chain.clone()),
        chain,
        p2p: Some(bans_alone()),
        web_static: None,
        listeners: Listeners::default(),
        readers: Readers::default(),
        stop: CancellationToken::new(),
    }
}

/// Returns the status of a merged chain that is mined.
pub fn merged_chain(name: &str) -> ChainStatus {
    ChainStatus {
        name: name.into(),
        chain_id: Some(98),
        daemon: "127.0.0.1:22555".into(),
        version: "/Shibetoshi:1.14.9/".into(),
        mode: Some(Mode::Address),
        payee: "DOperator1".into(),
        state: State::Mining,
        height: Some(5_000_000),
        difficulty: Some(16.0),
        value: Some(1_000_000_000_000),
        answered_at: Some(1000.0),
        work_since: Some(990.0),
        failures: 2,
        trouble: None,
    }
}

/// Returns the record of a block of a merged chain. `number` makes its hash, and is the time at which it was found.
pub fn merged_block(chain: &str, number: u8, standing: Standing) -> Record {
    Record {
        hash: BlockHash::from_byte_array([number; 32]),
        chain: Some(chain.into()),
        previous_block: None,
        height: Some(5_000_000 + u32::from(number)),
        finding: Finding { value: 0, payee: "DOperator1".into(), finder: "alice.rig".into(), is_ours: true },
        found_at: f64::from(number),
        routes: Vec::new(),
        verdict: None,
        not_submitted: None,
        standing,
        standing_since: f64::from(number),
        confirmations: 0,
        is_settled: false,
    }
}

/// Bytes that a pipe buffers in each direction.
const PIPE_BYTES: usize = 1024;

/// Connects from an address; the task ends with the connection.
pub fn connect(http: &Http, address: impl Into<IpAddr>) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    let (http, address) = (http.clone(), address.into());
    (client, tokio::spawn(async move { http.serve(server, address).await }))
}

/// Reads until the server closes.
pub async fn read_all(mut client: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("answers of tests are text")
}

/// Sends bytes from an address while the server answers, and returns all answers until it closes.
pub async fn converse(http: &Http, address: impl Into<IpAddr>, bytes: &[u8]) -> String {
    let (client, _) = connect(http, address);
    let (reader, mut writer) = tokio::io::split(client);
    // The server may close before it has read everything.
    let sending = async {
        let _ = writer.write_all(bytes).await;
    };
    tokio::join!(read_all(reader), sending).0
}

/// Sends one request with further header lines, each with its end, and returns the answer.
pub async fn ask(http: &Http, address: impl Into<IpAddr>, request: &str, lines: &str) -> String {
    let bytes = format!("{request} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
    converse(http, address, bytes.as_bytes()).await
}

/// Returns the status of an answer.
pub fn status_of(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}
