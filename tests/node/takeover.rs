//! Two processes on one data directory: the second waits, and takes over when the first ends.

use sharechain::share::ShareHash;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use test_support::{Bitcoind, Node, NodeBuilder, StratumClient, wait_until};

use crate::shares::{Pool, check_chain, wpkh};
use crate::{P2POOL, mine_one, miner_name};

const SOON: Duration = Duration::from_secs(15);

/// Starts a second process for the pool's node, and waits until it is ready with this many shares from the first.
fn successor(pool: &Pool) -> Node {
    let second = pool.node.spawn_successor();
    let line = second.wait_for_log("waits for it, and takes over when it ends", SOON);
    assert!(line.contains(&format!("pid={}", pool.node.pid())), "{line}");
    second.wait_for_log("connected to the pool", SOON);
    second
}

#[test]
fn a_second_process_takes_over_with_every_share_when_the_first_is_asked_to_end() {
    let mut pool = Pool::start(&[]);
    let mut found: Vec<ShareHash> = {
        let mut miner = pool.miner(&wpkh(1), "");
        (0..8).map(|_| miner.mine_share()).collect()
    };
    let second = successor(&pool);
    // These reach the second process over the network or from disk.
    {
        let mut miner = pool.miner(&wpkh(1), "");
        found.extend((0..4).map(|_| miner.mine_share()));
    }
    assert!(pool.node.serves_miners(), "the first still serves, and alone");
    let asked = Instant::now();
    let mut first = std::mem::replace(&mut pool.node, second);
    let exit = first.terminate();
    assert_eq!(exit.status.code(), Some(0));
    pool.node.wait_ready();
    let gap = asked.elapsed();
    println!("served again {gap:?} after SIGTERM; the first process took {:?} to end", exit.took);
    pool.wait_for_height(12);
    found.push(pool.miner(&wpkh(2), "").mine_share());
    check_chain(&pool.ledger(found[12]), &found);
    // Shares from before and after the takeover are on disk.
    pool.wait_for_height(13);
    pool.node.terminate();
    pool.node.restart();
    pool.wait_for_height(13);
    assert!(gap < SOON, "{gap:?}");
}

/// Reconnects as miners do, without back-off, until a submission is accepted.
fn mine_until_accepted(port: u16, user: &str, since: Instant) -> Duration {
    while since.elapsed() < SOON {
        if TcpStream::connect(("127.0.0.1", port)).is_ok()
            && let Ok(mut miner) = StratumClient::try_connect(port)
            && miner.subscribe().is_ok()
            && miner.authorize(user, "x").is_ok()
        {
            let found = miner.wait_for_job(|_| true).solve();
            if miner.submit(user, &found).is_ok() {
                return since.elapsed();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no submission was accepted within {SOON:?}");
}

#[test]
fn a_miner_that_comes_back_is_served_moments_after_the_first_process_was_told_to_end() {
    let mut pool = Pool::start(&[]);
    let user = format!("{}.rig+0.00001", wpkh(3));
    let mut gaps = Vec::new();
    for kill in [false, true, false] {
        let second = successor(&pool);
        let mut miner = StratumClient::ready(pool.node.worker_port(), &user);
        let found = miner.wait_for_job(|_| true).solve();
        assert_eq!(miner.submit(&user, &found), Ok(true));
        let port = pool.node.worker_port();
        let mut first = std::mem::replace(&mut pool.node, second);
        let asked = Instant::now();
        let ending = std::thread::spawn(move || {
            if kill {
                first.kill9();
            } else {
                first.terminate();
            }
        });
        assert!(miner.disconnected_within(SOON));
        gaps.push(mine_until_accepted(port, &user, asked));
        ending.join().expect("it ends");
    }
    println!("from SIGTERM, SIGKILL, SIGTERM to the first accepted submission: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(5)), "{gaps:?}");
}

#[test]
fn a_block_that_a_killed_process_left_is_delivered_by_the_one_that_takes_over() {
    let mut daemon = Bitcoind::start();
    let mut first = Node::start(P2POOL, &daemon);
    let second = first.spawn_successor();
    second.wait_for_log("takes over when it ends", SOON);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(first.worker_port(), &user);
    let found = crate::job_on_tip(&mut miner, &daemon).solve_block();
    daemon.pause();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    wait_until("the block is on disk", SOON, || !first.found_blocks("block").is_empty());
    first.kill9();
    second.wait_for_log("submitting a block of an earlier run", SOON);
    daemon.resume();
    crate::wait_for_best(&daemon, found.hash);
    wait_until("the block is settled", SOON, || second.found_blocks("accepted").len() == 1);
    second.wait_ready();
    let mut miner = StratumClient::ready(second.worker_port(), &user);
    mine_one(&mut miner, &user, &daemon, &second, &test_support::payout_address(1));
}

#[test]
fn a_waiting_process_can_be_told_to_end_and_leaves_the_first_alone() {
    let daemon = Bitcoind::start();
    let first = Node::start(P2POOL, &daemon);
    let mut second = first.spawn_successor();
    second.wait_for_log("takes over when it ends", SOON);
    let exit = second.terminate();
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.took < Duration::from_secs(2), "it took {:?}", exit.took);
    assert!(first.serves_miners());
    StratumClient::ready(first.worker_port(), &miner_name(1));
}

#[test]
fn another_network_of_the_same_name_in_the_same_folder_is_refused() {
    let pool = Pool::start(&[]);
    let text = include_str!("../networks/easy.toml").replacen("IDENTIFIER = \"", "IDENTIFIER = \"ff", 1);
    // The identifier has eight bytes: drop the surplus at its end.
    let at = text.find("IDENTIFIER = \"ff").expect("just written") + "IDENTIFIER = \"".len() + 16;
    let text = format!("{}{}", &text[..at], &text[at + 2..]);
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let file = folder.path().join("other.toml");
    std::fs::write(&file, text).expect("the temporary folder can be written");
    let mut other = NodeBuilder::new(P2POOL, &pool.daemon)
        .network(file.to_str().expect("text"))
        .address(Some(&wpkh(9).to_string()))
        .spawn_on(&pool.node);
    let exit = other.wait_exit(SOON);
    assert_ne!(exit.status.code(), Some(0));
    assert!(other.log().contains("for another network"), "{}", other.log());
}
