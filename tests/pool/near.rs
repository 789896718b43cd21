//! Pools of nodes on one machine.

use sharechain::share::{ShareHash, StaleInfo};
use test_support::wait_until;

use crate::pool::{AGREEMENT, Pool};

/// Rounds of all miners before a test goes on: enough for heads to be compared by work.
pub(crate) const BEGINNING: usize = 9;

/// Has the miners find shares in turn, each on top of the last one.
pub(crate) fn grow(pool: &mut Pool, count: usize) -> Vec<ShareHash> {
    let everybody: Vec<usize> = (0..pool.members.len()).collect();
    (0..count)
        .map(|turn| {
            let share = pool.mine(turn % everybody.len());
            pool.wait_for_best(share, &everybody);
            share
        })
        .collect()
}

/// Checks that these are all shares of a node's chain.
pub(crate) fn check_chain(pool: &mut Pool, number: usize, shares: &[ShareHash]) {
    let tip = *shares.last().expect("a chain has shares");
    let chain = pool.at(number, |member| member.chain(tip));
    let hashes: Vec<ShareHash> = chain.iter().rev().map(sharechain::share::Share::hash).collect();
    assert_eq!(hashes, shares, "the chain of node {number}");
}

/// Checks that the next jobs of all nodes have the same payouts.
pub(crate) fn check_payouts(pool: &mut Pool) {
    let first = pool.payouts(0);
    assert!(first.len() > 3, "several miners are paid: {first:?}");
    for number in 1..pool.members.len() {
        assert_eq!(pool.payouts(number), first, "what the next job of node {number} pays");
    }
}

#[test]
fn three_nodes_have_one_chain_and_the_next_job_of_each_pays_the_same() {
    let mut pool = Pool::near(3);
    let shares = grow(&mut pool, BEGINNING + 6);
    check_payouts(&mut pool);
    for number in 0..3 {
        check_chain(&mut pool, number, &shares);
        pool.at(number, |member| {
            assert_eq!(member.metric("p2p_offences_total"), 0.0);
            assert_eq!(member.metric("sharechain_own_shares_total{kind=\"in_time\"}"), 5.0);
        });
    }
}

#[test]
fn a_node_that_joins_late_gets_the_whole_chain() {
    let mut pool = Pool::near(2);
    let mut shares = grow(&mut pool, 40);
    pool.join(&[]);
    pool.wait_for_best(shares[39], &[2]);
    shares.push(pool.mine(2));
    pool.wait_for_best(shares[40], &[0, 1]);
    check_chain(&mut pool, 2, &shares);
    check_payouts(&mut pool);
}

#[test]
fn a_killed_node_comes_back_and_catches_up() {
    let mut pool = Pool::near(2);
    let mut shares = grow(&mut pool, BEGINNING);
    pool.at(1, |member| member.node.kill9());
    shares.extend((0..6).map(|_| pool.mine(0)));
    pool.at(1, |member| {
        member.node.restart();
        member.reconnect_miner();
    });
    pool.wait_for_best(shares[BEGINNING + 5], &[1]);
    shares.push(pool.mine(1));
    pool.wait_for_best(shares[BEGINNING + 6], &[0]);

    // Also kill the one that was dialled, so that the other has to reconnect.
    pool.at(0, |member| member.node.kill9());
    shares.extend((0..6).map(|_| pool.mine(1)));
    pool.at(0, |member| {
        member.node.restart();
        member.reconnect_miner();
    });
    pool.wait_for_best(shares[BEGINNING + 12], &[0]);
    check_chain(&mut pool, 0, &shares);
}

#[test]
fn two_nodes_that_were_apart_agree_on_the_heavier_chain() {
    let mut pool = Pool::near(2);
    let mut shares = grow(&mut pool, BEGINNING);
    // A partition, as far as the pool goes: while one is down the other mines, and vice versa.
    pool.at(1, |member| member.node.kill9());
    let lighter: Vec<ShareHash> = (0..4).map(|_| pool.mine(0)).collect();
    pool.at(0, |member| {
        wait_until("its shares are on disk", AGREEMENT, || member.metric("sharechain_height ") == 13.0);
        assert!(member.node.terminate().status.success());
    });
    pool.at(1, |member| {
        member.node.restart();
        member.reconnect_miner();
    });
    shares.extend((0..9).map(|_| pool.mine(1)));
    pool.at(0, |member| {
        member.node.restart();
        member.reconnect_miner();
    });
    let best = *shares.last().expect("there are many");
    pool.wait_for_best(best, &[0, 1]);
    for number in 0..2 {
        check_chain(&mut pool, number, &shares);
    }
    // The finder still has the four wasted shares.
    assert_eq!(pool.at(0, |member| member.chain(lighter[3])).len(), BEGINNING + 4);
    let next = pool.mine(1);
    pool.wait_for_best(next, &[0, 1]);
    assert_eq!(pool.at(0, |member| member.chain(next))[0].data().stale_info, StaleInfo::NONE);
}
