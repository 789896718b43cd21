//! The control socket end to end: client against server, and against a node older than HTTP on the socket.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use futures::future::BoxFuture;
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
use super::routes::KeptBlocks;
use super::{Request, routes, server, socket_path};
use crate::blocks::found::{FoundBlocks, Standing};
use crate::blocks::journal::Journal;
use crate::blocks::submit::{self, Resubmitter};
use crate::blocks::{Chain, Finding, FoundBlock, Outcome, Reports, Route};
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::log::Tail;
use crate::runtime::tasks::Tasks;
use crate::runtime::users::Verdict;
use crate::view::http::api::{Ban, Bans, Blocks, Merged, Payouts, Peers, Summary};
use crate::view::http::{self, Budgets, Checker, Http, Login, Readers};
use crate::view::snapshot::Snapshot;

mod old_node;

/// Returns the sources of a node that has just started on `folder`.
fn sources(folder: &Path) -> routes::Sources {
    let public = http::testing::sources(folder);
    let kept = KeptBlocks { chain: None, resubmitter: Resubmitter::disconnected(), reports: Reports::new() };
    routes::Sources { public, kept: vec![kept], log: Tail::default() }
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

/// Route to a daemon that takes every block.
struct Taking;

impl Route for Taking {
    fn name(&self) -> &'static str {
        "rpc"
    }

    fn attempt<'a>(&'a self, _: &'a FoundBlock) -> BoxFuture<'a, Outcome> {
        Box::pin(std::future::ready(Outcome::Accepted))
    }
}

#[tokio::test]
async fn a_kept_block_of_any_chain_is_submitted_again_by_its_hash() {
    let (folder, blocks_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data_dir = DataDir::open(blocks_folder.path(), &BITCOIN_REGTEST).unwrap();
    let block = |seed: u8| FoundBlock {
        hash: BlockHash::from_byte_array([seed; 32]),
        previous_block: BlockHash::from_byte_array([0; 32]),
        height: 7,
        bytes: vec![seed].into(),
        finding: Finding { value: 1, payee: "payee".into(), finder: "finder".into(), is_ours: true },
        judged_at: None,
    };
    let merged = |name| Chain::merged(name, 240).unwrap();
    let chains = [Chain::default(), merged("dogecoin"), merged("namecoin")].map(Arc::new);
    let tasks = Tasks::new();
    let handles: Vec<submit::Handle> = (chains.iter().zip(1..))
        .map(|(chain, seed)| {
            let journal = Journal::open(chain.clone(), &data_dir, DiskHealth::new()).unwrap();
            journal.write(&block(seed)).unwrap().mark(&Outcome::Accepted).unwrap();
            let (routes, next_block) = (vec![Arc::new(Taking) as Arc<dyn Route>], watch::channel(None).1);
            submit::start(&tasks, submit::Inputs { journal, routes, next_block })
        })
        .collect();
    let kept = chains.iter().zip(&handles).map(|(chain, handle)| KeptBlocks {
        chain: chain.name().cloned(),
        resubmitter: handle.resubmitter.clone(),
        reports: handle.reports.clone(),
    });
    let sources = routes::Sources { kept: kept.collect(), ..sources(folder.path()) };
    let server = Server::start_with(folder.path(), sources).await;
    for (chain, seed) in [None, Some("dogecoin"), Some("namecoin")].into_iter().zip(1..) {
        let hash = block(seed).hash;
        let answer = server.ask(Request::Resubmit { hash }).await.unwrap();
        assert_eq!(answer.get("chain").and_then(Value::as_str), chain, "{answer}");
        assert_eq!(answer["verdict"]["outcome"], "accepted", "{answer}");
    }
    let refused = server.ask(Request::Resubmit { hash: block(4).hash }).await.unwrap_err();
    assert!(refused.starts_with("no bytes of block 0404"), "{refused}");
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
