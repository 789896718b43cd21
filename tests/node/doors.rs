//! Other services on the worker ports: getwork, TLS, proxies, ports with their own difficulties, a separate web port.

use bitcoin::hashes::Hash;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, free_port, payout_address, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{P2POOL, miner_name, wait_for_best};

const PATIENCE: Duration = Duration::from_secs(10);

/// HTTP response.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Unparsed head.
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Base64 of `name` and a password, as sent by a miner.
fn basic(name: &str) -> String {
    use base64::Engine;
    format!("Authorization: Basic {}\r\n", base64::prelude::BASE64_STANDARD.encode(format!("{name}:x")))
}

/// Sends one request, and reads until the other side closes.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, first_lines: &str, body: &str) -> Answer {
    let length = body.len();
    let request =
        format!("{first_lines}Host: pool.example:9332\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("the node reads");
    let mut bytes = Vec::new();
    // With TLS, the connection may end without close_notify.
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes)).await.expect("the node answers");
    let text = String::from_utf8(bytes).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Getwork call without a name, for tests that ignore its response.
pub(crate) fn submission_of(data: &str) -> String {
    let body = json!({"id": 7, "method": "getwork", "params": [data]}).to_string();
    format!("POST / HTTP/1.1\r\nHost: pool.example:9332\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Work for `name`, solved as a block: the data to submit, and the block's hash.
pub(crate) async fn solved_getwork(port: u16, name: &str) -> (String, bitcoin::BlockHash) {
    solve(&getwork(port, name, "User-Agent: cpuminer/2.5.1\r\n", json!([])).await.json()["result"])
}

/// Response to a solution without a name.
pub(crate) async fn submit_nameless(port: u16, data: &str) -> Value {
    let body = json!({"id": 7, "method": "getwork", "params": [data]}).to_string();
    ask(connect(port).await, "POST / HTTP/1.1\r\n", &body).await.json()
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.expect("the node listens")
}

async fn getwork(port: u16, name: &str, more: &str, params: Value) -> Answer {
    let head = format!("POST / HTTP/1.1\r\n{more}{}", basic(name));
    ask(connect(port).await, &head, &json!({"id": 7, "method": "getwork", "params": params}).to_string()).await
}

fn swapped(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks_exact(4).flat_map(|word| word.iter().rev().copied()).collect()
}

/// Tries nonces until the hash meets the target of the work, as a getwork miner would; returns the data to submit and
/// the block's hash.
fn solve(work: &Value) -> (String, bitcoin::BlockHash) {
    let text = |name: &str| hex::decode(work[name].as_str().expect("text")).expect("hex");
    let (mut data, mut target) = (text("data"), text("target"));
    target.reverse();
    for nonce in 0_u32.. {
        data[76..80].copy_from_slice(&nonce.to_be_bytes());
        let hash: [u8; 32] = Sha256::digest(Sha256::digest(&swapped(&data)[..80])).into();
        let mut number = hash;
        number.reverse();
        if number[..] <= target[..] {
            return (hex::encode(data), bitcoin::BlockHash::from_byte_array(hash));
        }
    }
    unreachable!("regtest's targets are easy")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_getwork_miner_polls_finds_a_block_and_hears_of_the_next() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let (port, name) = (node.worker_port(), miner_name(1));
    let answer = getwork(port, &name, "User-Agent: cpuminer/2.5.1\r\n", json!([])).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("X-Long-Polling"), Some("/long-polling"), "{answer:?}");
    assert_eq!(answer.header("X-Roll-Ntime"), Some("expire=100"), "{answer:?}");
    assert_eq!(answer.header("X-Stratum"), Some("stratum+tcp://pool.example:9332"), "{answer:?}");
    assert_eq!(answer.header("X-Is-P2pool"), Some("true"), "{answer:?}");
    let told = answer.json();
    assert_eq!((&told["id"], &told["error"]), (&json!(7), &Value::Null));
    assert_eq!(told["result"]["hash1"].as_str().map(str::len), Some(128));

    let waiting = tokio::spawn({
        let head = format!("GET /long-polling HTTP/1.1\r\n{}", basic(&name));
        async move { ask(connect(port).await, &head, "").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "there is nothing new to tell");

    let (data, hash) = solve(&told["result"]);
    let answer = getwork(port, &name, "User-Agent: cpuminer/2.5.1\r\n", json!([data])).await;
    assert_eq!(answer.json()["result"], true, "{answer:?}");
    tokio::task::block_in_place(|| wait_for_best(&daemon, hash));
    let next = timeout(PATIENCE, waiting).await.expect("the long poll ends").expect("it does not panic").json();
    assert_ne!(next["result"]["data"], told["result"]["data"]);
    let again = getwork(port, &name, "", json!([data])).await;
    assert_eq!(again.json()["result"], false);
    assert!(again.header("X-Reject-Reason").is_some(), "{again:?}");
    let metrics = tokio::task::block_in_place(|| node.metrics());
    assert!(metrics.contains("stratum_submissions_total{verdict=\"accepted\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn getwork_asks_who_is_paid_and_says_what_is_wrong() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let port = node.worker_port();
    let call = json!({"id": 1, "method": "getwork", "params": []}).to_string();
    let nobody = ask(connect(port).await, "POST / HTTP/1.1\r\n", &call).await;
    assert_eq!((nobody.status, nobody.header("Www-Authenticate").is_some()), (401, true), "{nobody:?}");
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt08q";
    let typo = getwork(port, address, "", json!([])).await.json();
    assert_eq!(typo["error"]["code"], 24, "{typo}");
    let head = format!("POST / HTTP/1.1\r\n{}", basic(&miner_name(1)));
    let unknown = ask(connect(port).await, &head, r#"{"id":"a","method":"getblock","params":[]}"#).await.json();
    assert_eq!((&unknown["id"], &unknown["error"]["code"]), (&json!("a"), &json!(-32601)));
    let none = ask(connect(port).await, &head, "{").await.json();
    assert_eq!(none["error"]["code"], -32700);
    let junk = getwork(port, &miner_name(1), "", json!(["zz"])).await.json();
    assert_eq!(junk["error"]["code"], 20, "{junk}");
    // A Blade reads HTTP 1.0 and few fields.
    let blade = getwork(port, &miner_name(1), "User-Agent: Jephis PIC Miner\r\n", json!([])).await;
    assert!(blade.head.starts_with("HTTP/1.0 200"), "{blade:?}");
    assert!(blade.json()["result"].get("identifier").is_none());
}

/// Certificate for `localhost` in `dir`, with its key beside it.
fn certificate(dir: &std::path::Path) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it can be made");
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("the temporary folder can be written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("the temporary folder can be written");
    (certificate, key, made.cert.der().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn stratum_and_pages_are_served_over_tls_on_the_same_port() {
    let daemon = Bitcoind::start();
    let dir = tempfile::tempdir().expect("there is a temporary folder");
    let (certificate, key, trusted) = certificate(dir.path());
    let files = [certificate.to_str().expect("its path is text"), key.to_str().expect("its path is text")];
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--worker-tls", files[0], files[1]]).start();
    let mut roots = RootCertStore::empty();
    roots.add(trusted).expect("our own certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the defaults")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let greet = || async {
        let name = ServerName::try_from("localhost").expect("a name");
        connector.connect(name, connect(node.worker_port()).await).await.expect("the node speaks TLS")
    };
    let health = ask(greet().await, "GET /health HTTP/1.1\r\n", "").await;
    assert_eq!(health.status, 200, "{health:?}");

    let mut miner = greet().await;
    let lines = format!(
        "{}\n{}\n",
        json!({"id": 1, "method": "mining.subscribe", "params": ["tls/1"]}),
        json!({"id": 2, "method": "mining.authorize", "params": [miner_name(1), "x"]}),
    );
    miner.write_all(lines.as_bytes()).await.expect("the node reads");
    let mut said = String::new();
    let heard = async {
        let mut some = [0; 4096];
        while !said.contains("mining.notify\",\"params") {
            let count = miner.read(&mut some).await.expect("the connection stands");
            assert!(count > 0, "the connection ended: {said}");
            said.push_str(std::str::from_utf8(&some[..count]).expect("text"));
        }
    };
    timeout(PATIENCE, heard).await.expect("a job comes");
    // Also in plain text on the same port.
    tokio::task::block_in_place(|| StratumClient::ready(node.worker_port(), &miner_name(2)));
}

#[test]
fn a_certificate_that_cannot_be_used_is_an_error_that_names_the_file() {
    let daemon = Bitcoind::start();
    let dir = tempfile::tempdir().expect("there is a temporary folder");
    let (_, key, _) = certificate(dir.path());
    let missing = dir.path().join("missing.pem");
    let files = [missing.to_str().expect("its path is text"), key.to_str().expect("its path is text")];
    let mut node = NodeBuilder::new(P2POOL, &daemon).args(&["--worker-tls", files[0], files[1]]).spawn();
    let exit = node.wait_exit(PATIENCE);
    assert_eq!(exit.status.code(), Some(1));
    assert!(node.log().contains("missing.pem"), "{}", node.log());
}

/// Log line of a connection that begins with a PROXY header.
fn announce(node: &Node) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.worker_port())).expect("the node listens");
    let line = json!({"id": 1, "method": "mining.authorize", "params": [miner_name(1), "x"]});
    let text = format!("PROXY TCP4 203.0.113.7 198.51.100.1 51234 9332\r\n{line}\n");
    // An untrusted sender is disconnected at once.
    let _ = stream.write_all(text.as_bytes());
    let mut answer = [0; 1];
    let _ = std::io::Read::read(&mut stream, &mut answer);
}

#[test]
fn only_a_trusted_proxy_says_whose_connection_it_passes_on() {
    let daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--proxy-protocol", "127.0.0.0/8", "--debug"]).start();
    announce(&node);
    node.wait_for_log("203.0.113.7", PATIENCE);
    // Without a header it is the proxy's own connection, such as a health check.
    StratumClient::ready(node.worker_port(), &miner_name(2));

    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--proxy-protocol", "192.0.2.1", "--debug"]).start();
    announce(&node);
    // An invalid request.
    node.wait_for_log("http connection ended", PATIENCE);
    assert!(!node.log().contains("203.0.113.7"), "a stranger was believed");
}

#[test]
fn each_worker_port_has_its_own_difficulty_and_pages_may_be_elsewhere() {
    let daemon = Bitcoind::start();
    let (easy, web) = (free_port(), free_port());
    // Higher difficulties would be lowered to that of a share.
    let terms = format!("127.0.0.1:{easy},start=1e-10,min=1e-11");
    let web_port = format!("127.0.0.1:{web}");
    let args = ["-w", &terms, "--web-port", &web_port];
    let node = NodeBuilder::new(P2POOL, &daemon).args(&args).spawn();
    node.wait_for_log("listening for pages and metrics", PATIENCE);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    wait_until("miners are served", PATIENCE, || {
        runtime.block_on(async { ask(connect(web).await, "GET /health HTTP/1.1\r\n", "").await.status == 200 })
    });
    let user = format!("{}.rig", payout_address(1));
    assert_eq!(StratumClient::ready(easy, &user).difficulty, 1e-10);
    assert!(StratumClient::ready(node.worker_port(), &user).difficulty > 4e-10);

    runtime.block_on(async {
        let metrics = ask(connect(web).await, "GET /metrics HTTP/1.1\r\n", "").await;
        assert!(metrics.body.contains("stratum_connections"), "{metrics:?}");
        for port in [easy, node.worker_port()] {
            for page in ["/metrics", "/health", "/"] {
                let hidden = ask(connect(port).await, &format!("GET {page} HTTP/1.1\r\n"), "").await;
                assert!(matches!(hidden.status, 404 | 405), "{page} is on a miners' port: {hidden:?}");
            }
        }
        // No miners on this port.
        let mut miner = connect(web).await;
        miner.write_all(b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n").await.expect("it can be sent");
        let started = Instant::now();
        let end = timeout(PATIENCE, miner.read(&mut [0; 1])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?} after {:?}", started.elapsed());
    });
}
