//! Floods of connections: miners keep their places, newcomers get one, and found blocks reach the daemon.

use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, free_port, metric_value, wait_until};

use crate::{P2POOL, job_on_tip, miner_name, wait_for_best};

/// Open files of the node: room for some three hundred connections.
const FILES: &str = "--nofile=640";

/// Connections of a flood, more than twice as many as there is room for.
const FLOOD: u8 = 250;

/// Networks that a flood comes from: none exceeds the limit of new connections per second.
const NETWORKS: std::ops::Range<u8> = 1..4;

/// Starts a node to which this machine is a stranger like any other, with few open files.
fn node(daemon: &Bitcoind) -> Node {
    let limited = ["prlimit", FILES];
    let node = NodeBuilder::new(P2POOL, daemon).args(&["--no-local-exemption", "--max-connects-per-second", "1000"]);
    node.wrapped(&limited).start()
}

/// Connects from 127.0.`network`.`host`; `None` if the node refuses.
fn connect(node: &Node, network: u8, host: u8) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, network, host), 0));
    socket.bind(&from.into()).expect("every address of 127/8 is this machine's");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, node.worker_port())).into()).ok()?;
    Some(socket.into())
}

/// Opens a flood of connections that send `text`, and then nothing more.
fn flood(node: &Node, text: &[u8]) -> Vec<TcpStream> {
    let mut flood = Vec::new();
    for network in NETWORKS {
        for host in 1..=FLOOD {
            let Some(mut stream) = connect(node, network, host) else { continue };
            // It may be closed already.
            let _ = stream.write_all(text);
            flood.push(stream);
        }
    }
    flood
}

fn evicted(node: &Node, kind: &str) -> f64 {
    let series = |reason: &str| format!("stratum_connections_evicted_total{{kind=\"{kind}\",reason=\"{reason}\"}}");
    let metrics = node.metrics();
    ["full", "network"].iter().filter_map(|reason| metric_value(&metrics, &series(reason))).sum()
}

/// A miner that mined before the flood goes on and finds a block, another one joins, and pages answer.
fn check(kind: &str, text: &[u8]) {
    let daemon = Bitcoind::start();
    let node = node(&daemon);
    let (name, newcomer) = (miner_name(1), miner_name(2));
    let mut miner = StratumClient::ready(node.worker_port(), &name);
    let first = job_on_tip(&mut miner, &daemon).solve_block();
    assert_eq!(miner.submit(&name, &first), Ok(true));
    wait_for_best(&daemon, first.hash);

    let held = flood(&node, text);
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    assert_eq!(miner.submit(&name, &found), Ok(true));
    wait_for_best(&daemon, found.hash);

    let mut newcomer_client = StratumClient::ready(node.worker_port(), &newcomer);
    let found = job_on_tip(&mut newcomer_client, &daemon).solve_block();
    assert_eq!(newcomer_client.submit(&newcomer, &found), Ok(true));
    wait_for_best(&daemon, found.hash);
    assert!(evicted(&node, kind) > 100.0, "{}", node.metrics());
    assert!(node.log().matches("connections are full").count() <= 1, "{}", node.log());
    drop(held);
}

#[test]
fn a_block_goes_out_while_the_node_can_open_no_file() {
    let daemon = Bitcoind::start();
    // Of the two routes RPC alone.
    let node = NodeBuilder::new(P2POOL, &daemon).p2p_port(free_port()).start();
    let name = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &name);
    wait_until("the connection for blocks is open", Duration::from_secs(30), || {
        metric_value(&node.metrics(), "bitcoind_rpc_standing_connection ") == Some(1.0)
    });
    let found = job_on_tip(&mut miner, &daemon).solve_block();
    let limited = Command::new("prlimit").args(["--pid", &node.pid().to_string(), "--nofile=3:"]).status();
    assert!(limited.is_ok_and(|status| status.success()));
    assert_eq!(miner.submit(&name, &found), Ok(true));
    wait_for_best(&daemon, found.hash);
}

#[test]
fn slow_bodies_take_no_places_of_miners_and_no_files_of_the_daemon() {
    check("http", b"POST / HTTP/1.1\r\nHost: pool\r\nContent-Length: 1000\r\n\r\n{");
}

#[test]
fn silent_connections_take_no_places_of_miners() {
    check("silent", b"");
}

#[test]
fn miners_that_never_mine_take_no_places_of_those_that_do() {
    check("stratum", b"{\"id\": 1, \"method\": \"mining.subscribe\", \"params\": [\"x\"]}\n");
}
