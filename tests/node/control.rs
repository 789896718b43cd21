//! Console commands that query a running node, and their output.

use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use test_support::{Bitcoind, Node, NodeBuilder, wait_until};

use crate::P2POOL;

const SOON: Duration = Duration::from_secs(15);

/// Runs a subcommand against the node on `datadir`.
fn ask(datadir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(P2POOL);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("P2POOL_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).args(["--net", "bitcoin_regtest", "--datadir"]).arg(datadir);
    command.output().expect("the program can be run")
}

fn told(datadir: &Path, arguments: &[&str]) -> String {
    let output = ask(datadir, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn refused(datadir: &Path, arguments: &[&str]) -> String {
    let output = ask(datadir, arguments);
    assert!(!output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn peers_are_listed_and_addresses_banned_and_let_in_again() {
    let daemon = Bitcoind::start();
    let first = Node::start(P2POOL, &daemon);
    assert!(told(first.data_dir(), &["peers"]).starts_with("no peers;"));
    let second = NodeBuilder::new(P2POOL, &daemon).peer(first.pool_address()).start();
    wait_until("they are connected", SOON, || told(first.data_dir(), &["peers"]).contains("p2pool-rs"));
    let peers: Value = serde_json::from_str(&told(second.data_dir(), &["peers", "--json"])).expect("JSON");
    assert_eq!(peers["peers"][0]["address"], first.pool_address().to_string());

    let datadir = first.data_dir();
    assert_eq!(told(datadir, &["bans"]), "no address is banned\n");
    let banned = told(datadir, &["ban", "192.0.2.7", "--hours", "2", "--reason", "bad manners"]);
    assert!(banned.contains("192.0.2.7") && banned.contains("bad manners") && banned.contains("you"), "{banned}");
    let bans: Value = serde_json::from_str(&told(datadir, &["bans", "--json"])).expect("JSON");
    assert_eq!(bans["bans"][0]["address"], "192.0.2.7");
    wait_until("miners are served", SOON, || told(datadir, &["status"]).contains("miners are served"));
    assert!(refused(datadir, &["ban", "127.0.0.1"]).contains("this machine"));
    assert!(refused(datadir, &["unban", "192.0.2.8"]).contains("192.0.2.8 is not banned"));
    told(datadir, &["unban", "192.0.2.7"]);
    told(datadir, &["ban", "192.0.2.9"]);
    assert_eq!(told(datadir, &["unban", "all"]), "1 ban lifted\n");
    assert_eq!(told(datadir, &["bans"]), "no address is banned\n");
}

#[test]
fn a_ban_outlives_the_node_that_was_told_of_it() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    told(node.data_dir(), &["ban", "2001:db8::1"]);
    node.terminate();
    let message = refused(node.data_dir(), &["bans"]);
    assert!(message.contains("no p2pool runs on"), "{message}");
    node.restart();
    assert!(told(node.data_dir(), &["bans"]).contains("2001:db8::"));
}

/// GETs JSON over a control socket.
fn get(socket: &Path, path: &str) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the node listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
}

#[test]
fn the_control_socket_speaks_http_and_no_port_takes_its_orders() {
    let node = NodeBuilder::demo(P2POOL).args(&["--no-miner"]).start();
    let socket = node.data_dir().join("control");
    let status = get(&socket, "/control/v1/status");
    assert_eq!((&status["pid"], &status["summary"]["node"]["network"]), (&node.pid().into(), &"demo".into()));
    let payouts: Value = serde_json::from_str(&node.get("/api/v1/payouts").body).expect("JSON");
    assert_eq!(get(&socket, "/api/v1/payouts")["symbol"], payouts["symbol"]);
    for path in ["status", "overview", "peers", "bans"] {
        let path = format!("/control/v1/{path}");
        assert!(get(&socket, &path).is_object());
        assert_eq!(node.get(&path).status, 404, "{path}");
    }
}
