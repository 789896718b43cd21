//! The node stops on a signal, promptly and without losing data.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use test_support::{Bitcoind, Node, StratumClient};

use crate::doors::{solved_getwork, submission_of};
use crate::{P2POOL, job_on_tip, miner_name};

/// Time limit required by the issue.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn sigterm_ends_the_node_in_under_two_seconds_with_success() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let exit = node.terminate();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
    assert!(miner.disconnected_within(Duration::from_secs(1)));
}

#[test]
fn ctrl_c_ends_the_node_in_under_two_seconds_with_success() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let exit = node.interrupt();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
}

#[test]
fn sigterm_ends_the_node_though_the_daemon_hangs() {
    let mut daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let _miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    daemon.pause();
    // Long enough for a call to hang.
    std::thread::sleep(Duration::from_secs(3));
    let exit = node.terminate();
    assert!(exit.took < LIMIT, "it took {:?}", exit.took);
    assert_eq!(exit.status.code(), Some(0), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_wait_in_sockets_when_the_node_is_asked_to_end_are_judged_and_kept() {
    let daemon = Bitcoind::start();
    let mut node = Node::start(P2POOL, &daemon);
    let (port, user) = (node.worker_port(), miner_name(1));
    let (polled, _) = solved_getwork(port, &user).await;
    let (kept_alive, _) = solved_getwork(port, &user).await;
    tokio::task::block_in_place(|| {
        let mut miner = StratumClient::ready(port, &user);
        let found = job_on_tip(&mut miner, &daemon).solve_block();
        // Connection that was served before.
        let mut old = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
        old.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("the node reads");
        std::thread::sleep(Duration::from_millis(300));
        node.pause();
        // Queued behind more than is handled in one turn.
        let noise = "{\"id\":1,\"method\":\"mining.ping\",\"params\":[]}\n".repeat(150);
        miner.raw_bytes(noise.as_bytes());
        miner.send_submission(&user, &found);
        old.write_all(submission_of(&kept_alive).as_bytes()).expect("the socket takes it");
        let mut new = TcpStream::connect(("127.0.0.1", port)).expect("the system accepts");
        new.write_all(submission_of(&polled).as_bytes()).expect("the socket takes it");
        node.ask_to_end();
        node.resume();
        let exit = node.wait_exit(Duration::from_secs(30));
        assert_eq!(exit.status.code(), Some(0), "{}", node.log());
    });
    let kept = ["block", "accepted", "stale"].map(|state| node.found_blocks(state).len());
    assert_eq!(kept.iter().sum::<usize>(), 3, "{kept:?}");
}
