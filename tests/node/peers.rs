//! Several nodes connected to each other, with one real bitcoind on a private signet.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use test_support::{Bitcoind, Node, NodeBuilder, free_port, metric_value, wait_until};

use crate::P2POOL;
use crate::shares::{Pool, check_chain, network_file, open_signet, own_address, wpkh};

/// Time limit for a share from one node's miner to another node's chain, on a loaded machine.
const RELAY_LIMIT: Duration = Duration::from_secs(10);

/// Time limit for a node to connect to an announced one and to download its chain.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// Prefix of every message of the network in `easy.toml`.
const PREFIX: &[u8] = b"\x65\x32\x65\x20\x70\x65\x65\x72";

fn builder(daemon: &Bitcoind) -> NodeBuilder {
    NodeBuilder::new(P2POOL, daemon).network(&network_file("easy.toml")).address(Some(&own_address().to_string()))
}

fn metric(node: &Node, name: &str) -> f64 {
    let metrics = node.metrics();
    metric_value(&metrics, name).unwrap_or_else(|| panic!("no {name} in:\n{metrics}"))
}

fn wait_for_metric(node: &Node, name: &str, limit: Duration, wanted: f64) {
    // A counter is absent before its first increment.
    wait_until(&format!("{name} becomes {wanted}"), limit, || metric_value(&node.metrics(), name) == Some(wanted));
}

fn wait_for_height(node: &Node, height: usize, limit: Duration) {
    wait_for_metric(node, "sharechain_height ", limit, f64::from(u32::try_from(height).expect("a short chain")));
}

#[test]
fn a_share_that_is_found_on_one_node_is_built_on_by_the_other() {
    let first = Pool::start(&[]);
    let second = builder(&first.daemon).peer(first.node.pool_address()).start();
    wait_for_metric(&first.node, "p2p_peers{direction=\"in\"}", JOIN_LIMIT, 1.0);
    wait_for_metric(&second, "p2p_peers{direction=\"out\"}", JOIN_LIMIT, 1.0);
    first.node.wait_for_log("connected to the pool", RELAY_LIMIT);
    second.wait_for_log("connected to the pool", RELAY_LIMIT);

    let second = Pool { daemon: open_signet(), node: second, network: first.network };
    let (mut here, mut there) = (first.miner(&wpkh(1), ""), second.miner(&wpkh(2), ""));
    let mut found = Vec::new();
    for round in 0..10 {
        // In turns, so that each share builds on one from the other node.
        let (finder, other) = if round % 2 == 0 { (&mut here, &mut there) } else { (&mut there, &mut here) };
        let old = other.client.job();
        let started = Instant::now();
        found.push(finder.mine_share());
        other.client.wait_for_job(|job| job.clean && job.coinbase_start != old.coinbase_start);
        println!("found, relayed, and a new job of the other node after {:?}", started.elapsed());
    }
    wait_for_height(&first.node, found.len(), RELAY_LIMIT);
    wait_for_height(&second.node, found.len(), RELAY_LIMIT);
    check_chain(&first.ledger(found[9]), &found);
    check_chain(&second.ledger(found[9]), &found);
    for node in [&first.node, &second.node] {
        assert_eq!(metric(node, "sharechain_refused_shares_total{"), 0.0);
        assert_eq!(metric_value(&node.metrics(), "p2p_offences_total").unwrap_or_default(), 0.0);
        assert!(metric(node, "p2p_messages_total{direction=\"in\",command=\"shares\"}") >= 5.0);
        assert!(metric(node, "p2p_bytes_total{direction=\"out\"}") > 1000.0);
    }
}

#[test]
fn nodes_meet_over_ipv6_as_well() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let daemon = open_signet();
    let first = builder(&daemon).pool_address(SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()))).start();
    let second = builder(&daemon).peer(first.pool_address()).start();
    wait_for_metric(&first, "p2p_peers{direction=\"in\"}", JOIN_LIMIT, 1.0);
    wait_for_metric(&second, "p2p_peers{direction=\"out\"}", JOIN_LIMIT, 1.0);
    second.wait_for_log("connected to the pool address=[::1]:", RELAY_LIMIT);
}

#[test]
fn a_node_that_joins_late_gets_the_chain_and_comes_back_after_a_crash() {
    let first = Pool::start(&[]);
    let mut miner = first.miner(&wpkh(1), "");
    let mut found: Vec<_> = (0..120).map(|_| miner.mine_share()).collect();
    let mut second = builder(&first.daemon).peer(first.node.pool_address()).start();
    let started = Instant::now();
    wait_for_height(&second, found.len(), JOIN_LIMIT);
    println!("120 shares after {:?}", started.elapsed());

    second.kill9();
    wait_for_metric(&first.node, "p2p_peers{direction=\"in\"}", RELAY_LIMIT, 0.0);
    found.extend((0..5).map(|_| miner.mine_share()));
    second.restart();
    wait_for_height(&second, found.len(), JOIN_LIMIT);
    found.push(miner.mine_share());
    wait_for_height(&second, found.len(), RELAY_LIMIT);
    // The latest share is on disk too, and the minimum length of a chain.
    let second = Pool { daemon: first.daemon, node: second, network: first.network };
    let ledger = second.ledger(found[found.len() - 1]);
    assert!(ledger.shares.len() >= 100, "{} shares are kept", ledger.shares.len());
}

#[test]
fn nodes_find_each_other_again_when_the_one_that_was_dialled_restarts() {
    let mut first = Pool::start(&[]);
    let second = builder(&first.daemon).peer(first.node.pool_address()).start();
    wait_for_metric(&second, "p2p_peers{direction=\"out\"}", JOIN_LIMIT, 1.0);
    assert_eq!(first.node.terminate().status.code(), Some(0));
    second.wait_for_log("no peer is left", RELAY_LIMIT);
    first.node.restart();
    wait_for_metric(&second, "p2p_peers{direction=\"out\"}", JOIN_LIMIT, 1.0);
    let share = first.miner(&wpkh(1), "").mine_share();
    wait_for_height(&second, 1, RELAY_LIMIT);
    let second = Pool { daemon: first.daemon, node: second, network: first.network };
    check_chain(&second.ledger(share), &[share]);
}

#[test]
fn a_port_that_is_taken_is_told_once_and_tried_again() {
    let daemon = open_signet();
    let port = free_port();
    let holder = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let node = builder(&daemon).pool_address(([127, 0, 0, 1], port).into()).start();
    node.wait_for_log("cannot listen for peers", RELAY_LIMIT);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!node.log().contains("listening for peers"));
    assert_eq!(node.log().matches("cannot listen for peers").count(), 1);
    drop(holder);
    node.wait_for_log("listening for peers", RELAY_LIMIT);
    // Meanwhile it could have been sent: others are served, too.
    let other = builder(&daemon).peer(node.pool_address()).start();
    wait_for_metric(&other, "p2p_peers{direction=\"out\"}", JOIN_LIMIT, 1.0);
}

/// Returns whether the node closes the connection within `limit`.
fn hangs_up(stream: &mut TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout above zero");
    let until = Instant::now() + limit;
    let mut read = [0; 1024];
    while Instant::now() < until {
        match stream.read(&mut read) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

#[test]
fn whoever_speaks_another_protocol_is_dropped() {
    let daemon = open_signet();
    let node = builder(&daemon).start();
    let connect = || TcpStream::connect(node.pool_address()).expect("the node listens");
    let mut browser = connect();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").expect("connected");
    let mut silent = connect();
    let mut rude = connect();
    // A whole message, but the wrong first one; the checksum is that of no bytes.
    let ping = [PREFIX, b"ping\0\0\0\0\0\0\0\0", &[0; 4], b"\x5d\xf6\xe0\xe2"].concat();
    rude.write_all(&ping).expect("connected");
    assert!(hangs_up(&mut rude, RELAY_LIMIT));
    wait_for_metric(&node, "p2p_offences_total{kind=\"no_version\"}", RELAY_LIMIT, 1.0);
    // These have ten seconds to send `version`.
    assert!(hangs_up(&mut browser, Duration::from_secs(20)));
    assert!(hangs_up(&mut silent, Duration::from_secs(20)));
    assert_eq!(metric(&node, "p2p_peers{direction=\"in\"}"), 0.0);
    assert_eq!(metric(&node, "p2p_bans "), 0.0, "this machine is never banned");
}

#[test]
fn bans_and_addresses_outlive_the_node() {
    let daemon = open_signet();
    let mut node = builder(&daemon).start();
    node.terminate();
    let folder = node.data_dir().join("easy");
    let until = 4e9;
    let ban = format!("[{{\"address\": \"192.0.2.1\", \"until\": {until}, \"score\": 2, \"reason\": \"a test\"}}]");
    std::fs::write(folder.join("bans.json"), ban).expect("the data directory can be written");
    for _ in 0..2 {
        node.restart();
        wait_for_metric(&node, "p2p_bans ", RELAY_LIMIT, 1.0);
        assert_eq!(node.terminate().status.code(), Some(0));
    }
    let bans = std::fs::read_to_string(folder.join("bans.json")).expect("the file is still there");
    assert!(bans.contains("192.0.2.1") && bans.contains("a test"), "{bans}");
    assert!(folder.join("addrs").exists(), "the address book is kept at the end");
    let temporary = std::fs::read_dir(&folder)
        .expect("a folder")
        .flatten()
        .any(|entry| entry.path().extension().is_some_and(|extension| extension == "new"));
    assert!(!temporary, "nothing half-written is left behind");
}
