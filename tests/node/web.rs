//! Strangers on the web side of a real node: pages of other sites, and requests that never end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use test_support::{Bitcoind, NodeBuilder};

use crate::{P2POOL, miner_name};

/// Time limit for an answer; the node gives a body 10 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Call for work, which is valid JSON whatever its content type.
const CALL: &str = r#"{"id":1,"method":"getwork","params":[]}"#;

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// Sends a call for work with further header lines, and returns the answer.
fn call(port: u16, lines: &str) -> String {
    use base64::Engine;
    let login = base64::prelude::BASE64_STANDARD.encode(format!("{}:x", miner_name(1)));
    let head = format!("POST / HTTP/1.1\r\nAuthorization: Basic {login}\r\nConnection: close\r\n{lines}");
    let mut stream = connect(port);
    write!(stream, "{head}Content-Length: {}\r\n\r\n{CALL}", CALL.len()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers and closes");
    answer
}

#[test]
fn a_page_of_another_site_gets_no_work_from_a_node_that_serves_miners_under_any_name() {
    let daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--web-host", "pool.example"]).start();
    let port = node.worker_port();
    let same_origin = |host: &str| format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
    for lines in [
        "Host: whatever.example.net:9332\r\n".to_owned(),
        "Host: whatever.example.net\r\nContent-Type: application/x-www-form-urlencoded\r\n".to_owned(),
        same_origin("pool.example:9332"),
        same_origin("127.0.0.1:9332"),
    ] {
        let answer = call(port, &lines);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"midstate\""), "{lines}: {answer}");
    }
    for lines in [
        "Host: 127.0.0.1:9332\r\nOrigin: https://evil.example\r\nContent-Type: text/plain\r\n".to_owned(),
        "Host: 127.0.0.1:9332\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
        // Its own name, pointed here.
        same_origin("evil.example:9332"),
    ] {
        let answer = call(port, &lines);
        assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("midstate"), "{lines}: {answer}");
    }
}

#[test]
fn bodies_that_never_arrive_hold_no_connection_and_nobody_else_up() {
    let daemon = Bitcoind::start();
    let node = NodeBuilder::new(P2POOL, &daemon).start();
    let mut held = Vec::new();
    for path in ["/", "/api/v1/summary", "/static/nothing", "/long-polling"] {
        for _ in 0..50 {
            let mut stream = connect(node.worker_port());
            write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{{")
                .expect("the node reads");
            held.push((path, stream));
        }
    }
    assert_eq!(node.get("/health").status, 200, "others are answered meanwhile");
    for (path, mut stream) in held {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{path}: the node closes: {error}"));
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
    }
    let refused = node.metrics();
    assert!(refused.contains("http_refused_total{reason=\"body\"} 200"), "{refused}");
}
