//! The control socket end to end: client against server, and against a node older than HTTP on the socket.

use serde_json::{Value, json};
use sharechain::coin::BITCOIN_REGTEST;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::answers::{Overview, Status, Unbanned};
use super::client::{self, ControlError};
use super::{Request, routes, server, socket_path};
use crate::blocks::Reports;
use crate::blocks::found::{FoundBlocks, Standing};
use crate::blocks::submit::Resubmitter;
use crate::runtime::data_dir::DataDir;
use crate::runtime::log::Tail;
use crate::runtime::users::Verdict;
use crate::view::http::api::{Ban, Bans, Blocks, Merged, Payouts, Peers, Summary};
use crate::view::http::{self, Budgets, Checker, Http, Login, Readers};
use crate::view::snapshot::Snapshot;

/// Returns the sources of a node that has just started on `folder`.
fn sources(folder: &Path) -> routes::Sources {
    let public = http::testing::sources(folder);
    let (resubmitter, reports) = (Resubmitter::disconnected(), Reports::new());
    routes::Sources { public, resubmitter, reports, log: Tail::default() }
}

/// A running control socket.
struct Server {
    folder: PathBuf,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, sources(folder)).await
    }

    async fn start_with(folder: &Path, sources: routes::Sources) -> Self {
        let data_dir = DataDir::open(folder, &BITCOIN_REGTEST).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(server::run(routes::router(sources), data_dir, stop.clone()));
        let server = Self { folder: folder.to_owned(), stop, running };
        while matches!(client::ask(folder, &Request::Status).await, Err(ControlError::NotRunning(_))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    async fn ask(&self, request: Request) -> Result<Value, String> {
        client::ask(&self.folder, &request).await.map_err(|error| error.to_string())
    }

    /// Sends these bytes, and returns everything received until the connection ends.
    async fn send(&self, bytes: &str) -> String {
        let mut stream = UnixStream::connect(socket_path(&self.folder)).await.unwrap();
        // A server that has read enough answers and resets the connection.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Sends a request as curl does, and returns the answer's status and JSON.
    async fn curl(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let answer = self.send(&format!("{head}{form}Content-Length: {length}\r\n\r\n{body}")).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (status.unwrap_or_else(|| panic!("{answer}")), serde_json::from_str(body).unwrap_or_default())
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        assert!(!socket_path(&self.folder).exists());
    }
}

fn ban(address: IpAddr, hours: f64) -> Request {
    Request::Ban { address, hours, reason: "spam".into() }
}

#[tokio::test]
async fn bans_come_and_go_and_mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let banned = server.ask(ban(address, 2.0)).await.unwrap();
    assert_eq!((banned["address"].as_str(), banned["until"].as_f64()), (Some("192.0.2.1"), Some(7200.0)));
    assert_eq!(server.ask(Request::Bans).await.unwrap()["bans"][0]["reason"], "spam");
    let loopback = "127.0.0.1".parse().unwrap();
    let refused = server.ask(ban(loopback, 2.0)).await.unwrap_err();
    assert_eq!(refused, p2p::bans::NotBanned::Loopback(loopback).to_string());
    assert!(server.ask(ban(address, f64::NAN)).await.unwrap_err().contains("not a ban"));
    assert!(server.ask(ban(address, -1.0)).await.unwrap_err().contains("`hours` is -1"));
    assert_eq!(server.ask(Request::Unban { address }).await, Ok(json!({"unbanned": 1})));
    assert!(server.ask(Request::Unban { address }).await.unwrap_err().contains("192.0.2.1 is not banned"));
    server.ask(ban("2001:db8::1".parse().unwrap(), 2.0)).await.unwrap();
    let first = server.ask(Request::Bans).await.unwrap()["bans"][0]["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(server.ask(Request::Unban { address: first }).await, Ok(json!({"unbanned": 1})));
    server.ask(ban(address, 2.0)).await.unwrap();
    assert_eq!(server.ask(Request::UnbanAll).await, Ok(json!({"unbanned": 1})));
    server.end().await;
}

#[tokio::test]
async fn every_answer_has_the_form_that_its_reader_knows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let status: Status = client::ask_for(folder.path(), &Request::Status).await.unwrap();
    assert_eq!((status.pid, status.summary.node.waiting.as_deref()), (std::process::id(), Some("for a peer")));
    let overview: Overview = client::ask_for(folder.path(), &Request::Overview).await.unwrap();
    assert_eq!(overview.summary.node.network, "bitcoin_regtest");
    client::ask_for::<Payouts>(folder.path(), &Request::Payouts).await.unwrap();
    client::ask_for::<Blocks>(folder.path(), &Request::Blocks).await.unwrap();
    client::ask_for::<Merged>(folder.path(), &Request::Merged).await.unwrap();
    client::ask_for::<Peers>(folder.path(), &Request::Peers).await.unwrap();
    client::ask_for::<Bans>(folder.path(), &Request::Bans).await.unwrap();
    client::ask_for::<Unbanned>(folder.path(), &Request::UnbanAll).await.unwrap();
    let hash = "00".repeat(32).parse().unwrap();
    assert!(server.ask(Request::Resubmit { hash }).await.unwrap_err().contains("too busy"));
    let Err(error) = client::ask_for::<Bans>(folder.path(), &Request::Status).await else { panic!("another form") };
    assert!(matches!(error, ControlError::Unreadable(..)), "{error}");
    server.end().await;
}

#[tokio::test]
async fn the_list_of_blocks_ends_with_those_of_merged_chains_where_there_are_any() {
    let folder = tempfile::tempdir().unwrap();
    let listed = async |request| {
        let config = client::Config { data_dir: folder.path().to_owned(), request, json: false };
        client::run(&config, 60.0).await.unwrap()
    };
    let server = Server::start(folder.path()).await;
    assert_eq!(listed(Request::Blocks).await, "no block has been found yet\n");
    server.end().await;

    let mut sources = sources(folder.path());
    let mut snapshot = Snapshot::clone(&sources.public.snapshot.borrow());
    snapshot.merged = Arc::new(vec![http::testing::merged_chain("doge")]);
    sources.public.snapshot = watch::channel(Arc::new(snapshot)).1;
    let blocks = vec![Arc::new(http::testing::merged_block("doge", 1, Standing::Stale))];
    sources.public.merged_found = watch::channel(Arc::new(FoundBlocks { blocks })).1;
    let server = Server::start_with(folder.path(), sources).await;
    let text = listed(Request::Blocks).await;
    assert!(text.starts_with("no block has been found yet\n\nof merged chains, paid to the operator"), "{text}");
    assert!(text.contains("doge   5000001  59 s ago  stale"), "{text}");
    let text = listed(Request::Status).await;
    assert!(text.contains("merged    1 of 1 chains mined; blocks found: 1\n"), "{text}");
    server.end().await;
}

#[tokio::test]
async fn curl_reads_what_everyone_may_read_and_gives_orders() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (status, summary) = server.curl("GET", "/api/v1/summary", "").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_value::<Summary>(summary).unwrap().node.network, "bitcoin_regtest");
    let (status, ban) = server.curl("POST", "/control/v1/bans", r#"{"address":"192.0.2.7"}"#).await;
    assert_eq!((status, ban["until"].as_f64()), (200, Some(24.0 * 3600.0)), "{ban}");
    let (status, listed) = server.curl("GET", "/control/v1/bans", "").await;
    assert_eq!((status, &listed["bans"][0]), (200, &ban));
    for (method, path, body, status, part) in [
        ("POST", "/control/v1/bans", "nonsense", 400, "not a ban"),
        ("POST", "/control/v1/bans", r#"{"address":"192.0.2.7","days":2}"#, 400, "days"),
        ("POST", "/control/v1/bans", r#"{"address":"127.0.0.1"}"#, 409, "this machine"),
        ("POST", "/control/v1/bans", &"x".repeat(5000), 413, ""),
        ("DELETE", "/control/v1/bans/nonsense", "", 400, "no IP address"),
        ("DELETE", "/control/v1/bans/192.0.2.8", "", 404, "is not banned"),
        ("POST", "/control/v1/blocks/nonsense/resubmit", "", 400, "64 hex digits"),
        ("GET", "/control/v1/nonsense", "", 404, "docs/api.md"),
        ("GET", "/api/v1/nonsense", "", 404, "openapi"),
    ] {
        let (answered, problem) = server.curl(method, path, body).await;
        assert_eq!(answered, status, "{method} {path}: {problem}");
        assert_eq!(problem["status"], status, "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{method} {path}: {problem}");
    }
    assert_eq!(server.curl("DELETE", "/control/v1/bans", "").await, (200, json!({"unbanned": 1})));
    server.end().await;
}

/// Returns method, path and body of a curl command in the documentation.
fn curl_call(line: &str) -> (String, String, String) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |option: &str| words.iter().skip_while(|word| **word != option).nth(1).copied();
    let path = words.iter().find_map(|word| word.strip_prefix("http://localhost")).unwrap();
    let body = after("-d").map(|body| body.trim_matches('\''));
    let method = after("-X").unwrap_or(if body.is_some() { "POST" } else { "GET" });
    (method.to_owned(), path.to_owned(), body.unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_request_that_the_documentation_shows_is_served() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md"));
    let examples = page.lines().filter(|line| line.starts_with("curl --unix-socket ")).map(curl_call);
    let rows = page.lines().filter_map(|line| {
        let (method, path) = line.strip_prefix("| `")?.split('`').next()?.split_once(' ')?;
        let body = if method == "POST" { r#"{"address":"192.0.2.7"}"# } else { "" };
        path.starts_with("/control/").then(|| (method.to_owned(), path.to_owned(), body.to_owned()))
    });
    let (examples, rows): (Vec<_>, Vec<_>) = (examples.collect(), rows.collect());
    assert_eq!((examples.len(), rows.len()), (6, 8));
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    for (method, path, body) in examples.into_iter().chain(rows) {
        let filled = path.replace("ADDRESS", "192.0.2.7").replace("HASH", &"0".repeat(64));
        let (status, answer) = server.curl(&method, &filled, &body).await;
        // There is no submitter here.
        let expected = if path.ends_with("/resubmit") { 503 } else { 200 };
        assert_eq!(status, expected, "{method} {filled}: {answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn a_node_without_the_pools_network_takes_no_orders_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = sources(folder.path());
    sources.public.p2p = None;
    let router = routes::router(sources);
    let http = Http::new(router, CancellationToken::new());
    for path in ["/control/v1/peers", "/control/v1/bans"] {
        let answer = over_tcp(&http, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("no part in the pool's network"), "{answer}");
    }
    assert!(over_tcp(&http, "GET", "/control/v1/status").await.starts_with("HTTP/1.1 200 "));
}

/// Returns the answer to a request over the network.
async fn over_tcp(http: &Http, method: &str, path: &str) -> String {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let http = http.clone();
    tokio::spawn(async move { http.serve(server, IpAddr::from([192, 0, 2, 1])).await });
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn orders_cannot_be_given_over_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let http = Http::new(http::pages(sources(folder.path()).public), CancellationToken::new());
    for (method, path) in [
        ("GET", "status"),
        ("GET", "overview"),
        ("GET", "peers"),
        ("GET", "bans"),
        ("POST", "bans"),
        ("DELETE", "bans"),
        ("DELETE", "bans/192.0.2.1"),
        ("POST", "blocks/00/resubmit"),
    ] {
        let answer = over_tcp(&http, method, &format!("/control/v1/{path}")).await;
        // Unknown paths with another method than GET are refused by their method first.
        let expected = if method == "GET" { "HTTP/1.1 404 " } else { "HTTP/1.1 405 " };
        assert!(answer.starts_with(expected), "{method} {path}: {answer}");
    }
    assert!(over_tcp(&http, "GET", "/api/v1/summary").await.starts_with("HTTP/1.1 200 "), "public paths are served");
}

#[tokio::test]
async fn only_its_user_may_open_it_and_one_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(socket_path(folder.path()), "left behind").unwrap();
    let server = Server::start(folder.path()).await;
    let mode = fs::metadata(socket_path(folder.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(
        names.filter(|name| name.to_string_lossy().contains("control")).count(),
        1,
        "the private folder is gone"
    );
    server.end().await;
}

#[tokio::test]
async fn the_nodes_own_user_reads_without_password_and_budget() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources = sources(folder.path());
    let nobody = Checker(Arc::new(|_, _, _| Box::pin(async { Verdict::Refused })));
    let login = Login { checker: nobody, opens_metrics: false, opens_health: false };
    sources.public.readers = Readers { budgets: Some(Budgets::new(false)), login: Some(login) };
    let public = Http::new(http::pages(sources.public.clone()), CancellationToken::new());
    let control = Http::new(routes::router(sources), CancellationToken::new());
    for path in ["/api/v1/summary", "/metrics", "/health", "/local_stats", "/"] {
        assert!(over_tcp(&public, "GET", path).await.starts_with("HTTP/1.1 401 "), "{path}");
        assert!(!over_tcp(&control, "GET", path).await.starts_with("HTTP/1.1 401 "), "{path}");
    }
    for _ in 0..600 {
        // Each costs a hundredth of a second.
        assert!(over_tcp(&control, "GET", "/api/v1/shares/x").await.starts_with("HTTP/1.1 400 "));
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_works_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let deep: PathBuf = [folder.path(), Path::new(&"d".repeat(120)), Path::new(&"e".repeat(120))].iter().collect();
    let server = Server::start(&deep).await;
    server.ask(Request::Status).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn clients_that_say_nothing_hold_up_neither_others_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut silent = Vec::new();
    for part in ["", "GET /control/v1/sta", "POST /control/v1/bans HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"] {
        let mut stream = UnixStream::connect(socket_path(folder.path())).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    server.ask(Request::Status).await.unwrap();
    let head = "x".repeat(40_000);
    assert!(server.send(&format!("GET /{head} HTTP/1.1\r\n\r\n")).await.starts_with("HTTP/1.1 4"));
    tokio::time::timeout(Duration::from_secs(2), server.end()).await.expect("it ends despite open connections");
}

#[tokio::test]
async fn a_node_that_does_not_run_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = client::ask(folder.path(), &Request::Peers).await.unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)));
    assert!(error.to_string().contains(&folder.path().display().to_string()));
    // A node that was killed leaves its socket behind.
    drop(std::os::unix::net::UnixListener::bind(socket_path(folder.path())).unwrap());
    let error = client::ask(folder.path(), &Request::Peers).await.unwrap_err();
    assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
    let long = folder.path().join("x".repeat(150));
    assert!(matches!(client::ask(&long, &Request::Peers).await, Err(ControlError::NotRunning(_))));
}

#[tokio::test]
async fn what_speaks_neither_protocol_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_path(folder.path())).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        }
    });
    let error = client::ask(folder.path(), &Request::Status).await.unwrap_err();
    assert!(matches!(error, ControlError::Connection(..)), "{error}");
}

/// Requests to a node older than HTTP on the socket, each with its answer, recorded from version 0.1.0 of 2026-11-29.
const RECORDED: &str = include_str!("old_node.json");

/// Answers as that node did: lines of JSON, and a closed connection for anything else.
async fn old_node(listener: UnixListener) {
    let recorded: Vec<(Value, Value)> = serde_json::from_str(RECORDED).unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(request) = serde_json::from_str::<Value>(&line) else {
                let error = "{\"error\":\"not a line of JSON: expected value at line 1 column 1\"}\n";
                let _ = writer.write_all(error.as_bytes()).await;
                break;
            };
            let answer = recorded.iter().find(|(recorded, _)| *recorded == request);
            let (_, answer) = answer.unwrap_or_else(|| panic!("{request} is not recorded"));
            let _ = writer.write_all(format!("{answer}\n").as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn every_command_understands_an_old_node_during_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    tokio::spawn(old_node(UnixListener::bind(socket_path(folder.path())).unwrap()));
    let shown = async |request: Request| {
        let config = client::Config { data_dir: folder.path().to_owned(), request, json: false };
        client::run(&config, 1_795_939_700.0).await.map_err(|error| error.to_string())
    };
    let status = shown(Request::Status).await.unwrap();
    for part in
        ["p2pool 0.1.0 on demo, process 14180", "miners are served", "embedded chain", "16 of ours, 0 of them lost"]
    {
        assert!(status.contains(part), "{part} is missing in:\n{status}");
    }
    let payouts = shown(Request::Payouts).await.unwrap();
    assert!(payouts.starts_with("the next block would pay 50.00000000 demo coins"), "{payouts}");
    assert!(
        payouts.contains("29.89110098  59.8 %  bcrt1qge9hc79cg58awj3c350udyw2z9rkcvx3wtqkxg  mined here"),
        "{payouts}"
    );
    let blocks = shown(Request::Blocks).await.unwrap();
    assert!(blocks.contains("1 of 100") && blocks.contains(".alice  embedded accepted  00000019391613"), "{blocks}");
    let hash = "00000019391613680260b273daa0952167ebb37579dee0a31877f054691299ac".parse().unwrap();
    assert!(shown(Request::Resubmit { hash }).await.unwrap().contains("accepted\n  embedded  accepted"));
    let hash = "00".repeat(32).parse().unwrap();
    assert!(shown(Request::Resubmit { hash }).await.unwrap_err().starts_with("no bytes of block 0000"));
    let peers = shown(Request::Peers).await.unwrap();
    assert!(peers.contains("127.0.0.1:57234  in") && peers.contains("3501      p2pool-rs/0.1.0"), "{peers}");
    let address = "192.0.2.7".parse().unwrap();
    let banned = shown(Request::Ban { address, hours: 48.0, reason: "bad manners".into() }).await.unwrap();
    assert!(banned.contains("192.0.2.7  1 d 23 h     you  bad manners"), "{banned}");
    assert_eq!(shown(Request::Bans).await.unwrap(), banned);
    assert_eq!(shown(Request::Unban { address }).await.unwrap(), "192.0.2.7 may connect again\n");
    let address = "192.0.2.8".parse().unwrap();
    assert!(shown(Request::Unban { address }).await.unwrap_err().contains("192.0.2.8 is not banned"));
    assert_eq!(shown(Request::UnbanAll).await.unwrap(), "1 ban lifted\n");
}

#[tokio::test]
async fn programs_read_an_old_nodes_answers_in_todays_form() {
    let folder = tempfile::tempdir().unwrap();
    tokio::spawn(old_node(UnixListener::bind(socket_path(folder.path())).unwrap()));
    let overview: Overview = client::ask_for(folder.path(), &Request::Overview).await.unwrap();
    let summary = &overview.summary;
    assert_eq!((summary.node.network.as_str(), summary.node.serving), ("demo", true));
    assert!(summary.node.uptime_seconds > 10.0 && summary.node.uptime_seconds < 100.0, "{summary:?}");
    assert!(summary.pool.hash_rate.is_some_and(|rate| rate > 1e6), "{summary:?}");
    assert_eq!(summary.local.workers, 3);
    assert!(
        summary.local.efficiency.is_some() && summary.block.as_ref().is_some_and(|block| block.value == 5_000_000_000)
    );
    assert_eq!((overview.workers.total, overview.workers.workers.len()), (3, 2));
    assert!(overview.workers.workers[0].name.contains("bcrt1") && overview.workers.workers[0].hash_rate > 0.0);
    assert!(overview.shares.shares[0].is_best && overview.shares.shares[0].height > 0);
    assert_eq!(overview.blocks.blocks[0].routes[0].outcome, "accepted");
    assert_eq!((overview.blocks.symbol.as_str(), overview.log.len()), ("demo coins", 2));
    let payouts: Payouts = client::ask_for(folder.path(), &Request::Payouts).await.unwrap();
    assert_eq!((payouts.total, payouts.block_value), (4, Some(5_000_000_000)));
    let bans: Bans = client::ask_for(folder.path(), &Request::Bans).await.unwrap();
    let expected = Ban { reason: "bad manners".into(), by_operator: true, ..bans.bans[0].clone() };
    assert_eq!(bans.bans, [expected]);
}
