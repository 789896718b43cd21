//! Access to the worker ports: users with passwords, and networks.

use serde_json::json;
use std::path::Path;
use std::time::Duration;
use test_support::{Bitcoind, NodeBuilder, StratumClient, free_port, wait_until};

use crate::{P2POOL, miner_name};

const PATIENCE: Duration = Duration::from_secs(20);

/// Hash of `hunter2`, made by libxcrypt as `htpasswd -nbB -C 4` does.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the temporary folder can be written");
}

/// Answers of the port to `user` with this password: over Stratum whether it is admitted, over HTTP the status.
fn login(port: u16, user: &str, password: &str) -> (bool, u16) {
    let mut miner = StratumClient::connect(port);
    miner.subscribe().expect("anyone may subscribe");
    let answer = miner.authorize(user, password);
    if let Err(refusal) = &answer {
        assert_eq!(refusal.code(), Some(24), "{refusal:?}");
    }
    let is_admitted = answer == Ok(true);
    if is_admitted {
        miner.wait_for_job(|_| true);
    }
    (is_admitted, getwork(port, user, password))
}

/// Status of the answer to a call of `getwork`.
fn getwork(port: u16, user: &str, password: &str) -> u16 {
    use base64::Engine;
    use std::io::{Read, Write};
    let credentials = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
    let body = json!({"id": 7, "method": "getwork", "params": []}).to_string();
    let length = body.len();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    let head = format!("POST / HTTP/1.1\r\nHost: pool.example\r\nAuthorization: Basic {credentials}\r\n");
    write!(stream, "{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}").expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
}

#[test]
fn only_users_with_the_right_password_mine_on_a_port_with_users() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("users");
    write(&users, &format!("# farm\ngarage:{HASH}\n"));
    let port = free_port();
    let terms = format!("127.0.0.1:{port},users={}", users.display());
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["-w", &terms, "--debug"]).start();
    assert_eq!(login(port, "garage.rig1+0.001", "hunter2,d=5"), (true, 200));
    assert_eq!(login(port, "garage.rig1", "hunter3"), (false, 401));
    assert_eq!(login(port, &miner_name(1), "hunter2"), (false, 401));
    // The other port is open to all.
    assert_eq!(login(node.worker_port(), &miner_name(1), "x"), (true, 200));
    let mut guesser = StratumClient::connect(port);
    guesser.subscribe().expect("anyone may subscribe");
    for guess in 0..4 {
        assert!(guesser.authorize("garage", &format!("guess {guess}")).is_err());
    }
    assert!(guesser.disconnected_within(PATIENCE));

    // With one password for everyone else, an address is paid itself.
    write(&users, &format!("*:{HASH}\n"));
    node.hang_up();
    wait_until("the new users may mine", PATIENCE, || login(port, &miner_name(1), "hunter2") == (true, 200));
    write(&users, "garage:oops\n");
    node.wait_for_log("cannot read the users again", PATIENCE);
    assert_eq!(login(port, &miner_name(1), "hunter2"), (true, 200));
    let log = node.log();
    assert!(!log.contains("hunter2") && !log.contains(&HASH[7..]) && !log.contains("oops"), "{log}");
}

#[test]
fn a_network_that_may_not_use_a_port_is_counted_and_served_nothing() {
    let daemon = Bitcoind::start();
    let (denied, allowed) = (free_port(), free_port());
    let terms = [
        format!("127.0.0.1:{denied},allow=10.0.0.0/8,allow=192.168.0.0/16"),
        format!("127.0.0.1:{allowed},allow=127.0.0.0/8,deny=10.0.0.0/8"),
    ];
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["-w", &terms[0], "-w", &terms[1]]).start();
    let mut stranger = StratumClient::connect(denied);
    assert!(stranger.disconnected_within(PATIENCE));
    assert_eq!(login(allowed, &miner_name(1), "x"), (true, 200));
    let metrics = node.metrics();
    assert!(metrics.contains("stratum_connections_refused_total{reason=\"denied\"} 1"), "{metrics}");
    assert!(!node.log().contains("this port is not for"), "what strangers do is logged for debugging alone");
}

#[test]
fn a_node_does_not_start_with_users_that_it_cannot_read() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let users = folder.path().join("users");
    write(&users, &format!("garage:{HASH}\nhunter2\n"));
    let terms = format!("127.0.0.1:1,users={}", users.display());
    for words in [&["--net", "bitcoin_regtest"][..], &["config", "check"], &["demo"]] {
        let mut command = std::process::Command::new(P2POOL);
        let output = command.args(words).args(["-w", &terms]).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(&format!("--worker-port: `{}` line 2: not NAME:HASH", users.display())), "{text}");
        assert!(!text.contains("hunter2") && !text.contains(&HASH[7..]), "{text}");
    }
}
