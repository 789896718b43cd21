//! Pools of nodes on distant hosts.

use sharechain::share::{ShareHash, StaleInfo};
use std::time::Duration;

use crate::near::{BEGINNING, check_chain, check_payouts, grow};
use crate::pool::Pool;

#[test]
fn nodes_with_delay_and_loss_between_them_have_one_chain() {
    let Some(mut pool) = Pool::far(3) else { return };
    let wire = pool.internet.as_ref().expect("they are on hosts of their own");
    wire.set(Duration::from_millis(80), 0.05);
    let shares = grow(&mut pool, BEGINNING + 6);
    check_payouts(&mut pool);
    for number in 0..3 {
        check_chain(&mut pool, number, &shares);
        pool.at(number, |member| assert_eq!(member.metric("p2p_offences_total"), 0.0));
    }
    let (packets, lost) = pool.internet.as_ref().expect("as before").packets();
    assert!(lost > 0, "none of {packets} packets was lost");
}

#[test]
fn a_torn_pool_agrees_on_the_heavier_side_and_tells_of_the_shares_that_went_to_waste() {
    let Some(mut pool) = Pool::far(3) else { return };
    pool.internet.as_ref().expect("they are on hosts of their own").set(Duration::from_millis(20), 0.0);
    let mut shares = grow(&mut pool, BEGINNING);
    pool.internet.as_ref().expect("as before").split(&[0, 1, 1]);
    let alone: Vec<ShareHash> = (0..3).map(|_| pool.mine(0)).collect();
    for turn in 0..9 {
        let share = pool.mine(1 + turn % 2);
        pool.wait_for_best(share, &[1, 2]);
        shares.push(share);
    }
    pool.wait_for_best(alone[2], &[0]);

    pool.internet.as_ref().expect("as before").join();
    let best = *shares.last().expect("there are many");
    pool.wait_for_best(best, &[0, 1, 2]);
    check_payouts(&mut pool);

    // Three of the first node's shares were wasted: exactly its next three announce one each.
    let mut told = Vec::new();
    for _ in 0..4 {
        let share = pool.mine(0);
        pool.wait_for_best(share, &[0, 1, 2]);
        shares.push(share);
        told.push(pool.at(1, |member| member.chain(share))[0].data().stale_info);
    }
    assert_eq!(told, [StaleInfo::ORPHAN, StaleInfo::ORPHAN, StaleInfo::ORPHAN, StaleInfo::NONE]);
    for number in 0..3 {
        check_chain(&mut pool, number, &shares);
    }
}
