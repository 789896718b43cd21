//! Hanging terminals, pipes and disks, and full disks: blocks and shares are still sent, the operator is notified, and
//! no data is missing afterwards.

use p2pool::chain::store::Store;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::{
    Bitcoind, HungDisk, Node, NodeBuilder, SmallDisk, StratumClient, free_port, metric_value, wait_until,
};

use crate::shares::{Pool, wpkh};
use crate::{P2POOL, job_on_tip, miner_name, wait_for_best};

/// Time limit on a loaded machine for what usually takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node stops within two seconds; this machine may be slow.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Fills the disk.
fn fill(mut pipe: impl Write + AsFd) {
    rustix::io::ioctl_fionbio(pipe.as_fd(), true).expect("a pipe");
    while match pipe.write(b"x") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    } {}
    rustix::io::ioctl_fionbio(pipe.as_fd(), false).expect("a pipe");
}

/// Finds a block on the daemon's best one, and checks that it is accepted.
fn mine(miner: &mut StratumClient, user: &str, daemon: &Bitcoind) {
    let found = job_on_tip(miner, daemon).solve_block();
    assert_eq!(miner.submit(user, &found), Ok(true));
    wait_for_best(daemon, found.hash);
}

fn wait_for_height(node: &Node, wanted: usize) {
    wait_until(&format!("the share chain has height {wanted}"), PATIENCE, || {
        metric_value(&node.metrics(), "sharechain_height ") == Some(wanted as f64)
    });
}

/// Disk state reported by `/health`; miners are served in any case.
fn disk_troubles(node: &Node) -> Vec<String> {
    let answer = node.get("/health");
    assert_eq!(answer.status, 200, "{answer:?}");
    let health: Value = serde_json::from_str(&answer.body).expect("JSON");
    let troubles = health["disk"].as_array().expect("a list");
    troubles.iter().map(|trouble| trouble.as_str().expect("text").to_owned()).collect()
}

fn is_store_in_trouble(node: &Node) -> bool {
    disk_troubles(node).iter().any(|trouble| trouble.contains("the share store cannot be written"))
}

/// Checks that pages and metrics agree with `/health`.
fn check_store_is_reported(node: &Node) {
    wait_until("the overview page warns", PATIENCE, || {
        let summary: Value = serde_json::from_str(&node.get("/api/v1/summary").body).expect("JSON");
        summary["warnings"].to_string().contains("the share store cannot be written")
    });
    assert_eq!(metric_value(&node.metrics(), "disk_trouble{part=\"share_store\"}"), Some(1.0));
}

/// Waits for the recovery, which is detected by files that are written once a minute.
fn wait_for_recovery(node: &Node) {
    wait_until("nothing is wrong with the store any more", PATIENCE, || !is_store_in_trouble(node));
    assert_eq!(metric_value(&node.metrics(), "disk_trouble{part=\"share_store\"}"), Some(0.0));
}

fn wait_for_stored(folder: &Path, shares: usize) {
    wait_until(&format!("{shares} shares are stored"), PATIENCE, || {
        Store::read_only(folder).expect("the store can be read").shares.len() == shares
    });
}

/// Waits until the node is connected to the other one.
fn wait_for_peer(node: &Node) {
    wait_until("the nodes are connected", PATIENCE, || {
        metric_value(&node.metrics(), "p2p_peers{direction=\"out\"}") == Some(1.0)
    });
}

#[test]
fn a_terminal_and_a_log_that_hang_delay_neither_blocks_nor_shares_nor_the_end() {
    let daemon = Bitcoind::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo, of coreutils").success());
    let log = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe that nobody reads");
    fill(&log);
    let (_reader, terminal) = std::io::pipe().expect("a pipe");
    fill(&terminal);
    let mut node = NodeBuilder::new(P2POOL, &daemon)
        .args(&["--debug", "--logfile", path.to_str().expect("a path of text")])
        .stderr(terminal.into())
        .start();
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    for height in 1..=3 {
        mine(&mut miner, &user, &daemon);
        wait_for_height(&node, height);
    }
    let exit = node.terminate();
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.took < END_LIMIT, "{exit:?}");
}

#[test]
fn a_node_that_cannot_start_ends_although_its_terminal_hangs() {
    let daemon = Bitcoind::start();
    let (_reader, terminal) = std::io::pipe().expect("a pipe");
    fill(&terminal);
    let terminal = || terminal.try_clone().expect("a file descriptor").into();
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    let mut node = NodeBuilder::new(P2POOL, &daemon).worker_port(port).stderr(terminal()).spawn();
    assert_eq!(node.wait_exit(PATIENCE).status.code(), Some(1));
    let mut node = NodeBuilder::new(P2POOL, &daemon).args(&["--fee", "200"]).stderr(terminal()).spawn();
    assert_eq!(node.wait_exit(PATIENCE).status.code(), Some(2));
}

#[test]
fn a_disk_that_hangs_delays_neither_blocks_nor_shares_nor_the_end_and_loses_nothing() {
    let daemon = Bitcoind::start();
    let other = Node::start(P2POOL, &daemon);
    let data_dir = tempfile::Builder::new().prefix("p2pool-node-").tempdir().expect("a temporary folder");
    let folder = data_dir.path().join("bitcoin_regtest");
    // All files that the node writes while it runs.
    let files = ["shares", "log", "addrs", "bans", "graph_db", ".graphs", "stats", "found_blocks"];
    let disk = HungDisk::of(&files.map(|name| folder.join(name)));
    let builder = NodeBuilder::new(P2POOL, &daemon).peer(other.pool_address());
    let mut node = disk.under(builder).spawn_in(data_dir);
    node.wait_ready();
    wait_for_peer(&node);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine(&mut miner, &user, &daemon);
    wait_for_stored(&folder, 1);
    wait_until("the block is kept", PATIENCE, || node.found_blocks("accepted").len() == 1);

    disk.hang();
    for height in 2..=4 {
        mine(&mut miner, &user, &daemon);
        wait_for_height(&node, height);
        wait_for_height(&other, height);
    }
    assert_eq!(Store::read_only(&folder).expect("reading does not hang").shares.len(), 1, "the disk does not hang");
    wait_until("/health says that the store hangs", PATIENCE, || is_store_in_trouble(&node));
    check_store_is_reported(&node);
    mine(&mut miner, &user, &daemon);
    wait_for_height(&other, 5);
    assert_eq!(node.found_blocks("accepted").len(), 1, "the disk does not hang");
    wait_until("/health says that the journal hangs", PATIENCE, || {
        disk_troubles(&node).iter().any(|trouble| trouble.starts_with("the journal of found blocks"))
    });
    disk.mend();
    wait_for_recovery(&node);
    wait_for_stored(&folder, 5);
    wait_until("every block is kept", PATIENCE, || node.found_blocks("accepted").len() == 5);

    disk.hang();
    mine(&mut miner, &user, &daemon);
    wait_for_height(&other, 6);
    let exit = node.terminate();
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.took < END_LIMIT, "{exit:?}");
    assert!(node.log().contains("share store: not written before the end"), "{}", node.log());
}

#[test]
fn on_a_full_disk_blocks_land_and_shares_go_out_and_when_there_is_room_again_all_is_stored() {
    let daemon = Bitcoind::start();
    let other = Node::start(P2POOL, &daemon);
    let builder = NodeBuilder::new(P2POOL, &daemon).peer(other.pool_address());
    let Some((disk, node)) = SmallDisk::spawn(builder, 4) else { return };
    node.wait_ready();
    wait_for_peer(&node);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine(&mut miner, &user, &daemon);
    let folder = disk.path(&node, "bitcoin_regtest");
    wait_for_stored(&folder, 1);

    disk.fill(&node);
    let mut found = 1;
    // The last page of a file has room for some shares.
    while found < 40 && (found < 4 || !is_store_in_trouble(&node)) {
        mine(&mut miner, &user, &daemon);
        found += 1;
        wait_for_height(&node, found);
        wait_for_height(&other, found);
    }
    assert!(is_store_in_trouble(&node), "after {found} shares: {:?}", disk_troubles(&node));
    assert!(disk_troubles(&node).iter().any(|trouble| trouble.contains("No space left on device")));
    check_store_is_reported(&node);
    disk.free(&node);
    wait_for_recovery(&node);
    mine(&mut miner, &user, &daemon);
    wait_for_stored(&folder, found + 1);
}

#[test]
fn a_node_starts_on_a_full_disk() {
    let daemon = Bitcoind::start();
    let data_dir = tempfile::Builder::new().prefix("p2pool-node-").tempdir().expect("a temporary folder");
    let folder = data_dir.path().join("bitcoin_regtest");
    let disk = HungDisk::of(std::slice::from_ref(&folder));
    let mut node = disk.under(NodeBuilder::new(P2POOL, &daemon)).spawn_in(data_dir);
    node.wait_ready();
    assert_eq!(node.terminate().status.code(), Some(0));
    disk.fill();
    node.restart();
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    mine(&mut miner, &user, &daemon);
    wait_for_height(&node, 1);
    wait_until("/health says that the disk is full", PATIENCE, || is_store_in_trouble(&node));
    disk.mend();
    wait_for_recovery(&node);
    wait_for_stored(&folder, 1);
}

/// Upper bound, in seconds, of the histogram bucket that contains `part` of the values; `None` above the last one.
fn quantile(metrics: &str, name: &str, part: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?.split_once("\"} "))
        .filter_map(|(bound, count)| Some((bound.parse().ok()?, count.parse().ok()?)))
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (_, count) = *buckets.last()?;
    buckets.iter().find(|(_, below)| *below >= part * count).map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
}

#[test]
fn an_own_share_is_stored_or_sent_soon_after_its_miners_answer() {
    let pool = Pool::start(&[]);
    let mut miner = pool.miner(&wpkh(1), "");
    let started = Instant::now();
    let shares: usize = 150;
    for _ in 0..shares {
        miner.mine_share();
        // Pages are requested meanwhile.
        pool.node.get("/api/v1/summary");
    }
    pool.wait_for_height(shares);
    let metrics = pool.node.metrics();
    let name = "sharechain_own_share_durable_seconds";
    assert_eq!(metric_value(&metrics, &format!("{name}_count")), Some(shares as f64));
    let at = |part| quantile(&metrics, name, part);
    println!(
        "{shares} own shares in {:?}; stored or sent within: half {:?} s, 99 % {:?} s, all {:?} s",
        started.elapsed(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    // The wait is for the duration under test, not for this machine.
    assert!(at(0.99).is_some_and(|bound| bound <= 5.0), "{metrics}");
}

#[test]
fn a_found_block_is_on_disk_or_with_bitcoind_soon_after_its_miners_answer() {
    let daemon = Bitcoind::start();
    let node = Node::start(P2POOL, &daemon);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let blocks: usize = 40;
    for _ in 0..blocks {
        mine(&mut miner, &user, &daemon);
    }
    let name = "bitcoind_block_safe_seconds";
    let count = || metric_value(&node.metrics(), &format!("{name}_count"));
    wait_until("every block is measured", PATIENCE, || count() == Some(blocks as f64));
    let metrics = node.metrics();
    let at = |part| quantile(&metrics, name, part);
    println!("{blocks} found blocks safe within: half {:?} s, 99 % {:?} s, all {:?} s", at(0.5), at(0.99), at(1.0));
    // The wait is for the duration under test, not for this machine.
    assert!(at(0.99).is_some_and(|bound| bound <= 5.0), "{metrics}");
}
