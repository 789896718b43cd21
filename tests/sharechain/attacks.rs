//! Attacks on the chain by peers: shares altered on their way, shares that make others look guilty, and false times.

use sharechain::chain::{Event, Sharechain};
use sharechain::coin::Network;
use sharechain::share::{Contents, Share, ShareHash, ShareVersion, pack};
use sharechain::testkit::{Plan, START, find, grow, info, network, share_on};
use std::net::SocketAddr;
use std::sync::Arc;

const LATER: u32 = START + 900;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 9333))
}

/// A pool's chain, and a copy of it at another node.
fn two_nodes(network: &'static Network) -> (Sharechain, Sharechain, ShareHash) {
    let mut theirs = Sharechain::new(network);
    let hashes = grow(&mut theirs, None, 40, &Plan::default());
    let mut ours = Sharechain::new(network);
    let shares = hashes.iter().map(|hash| theirs.share(*hash).unwrap().clone()).collect();
    ours.add_all(shares, Some(address(9)), f64::from(LATER));
    ours.think(f64::from(LATER));
    while ours.poll_event().is_some() {}
    (theirs, ours, hashes[39])
}

fn later(nonce: u32) -> Plan {
    Plan { timestamp: LATER, nonce, ..Plan::default() }
}

/// Adds a share sent by `host`, and returns whether it is new and which shares were refused from whom.
fn send(chain: &mut Sharechain, share: &Arc<Share>, host: u8) -> (bool, Vec<(ShareHash, u8)>) {
    let is_new = chain.add(share.clone(), Some(address(host)), f64::from(LATER));
    chain.think(f64::from(LATER));
    let refused = std::iter::from_fn(|| chain.poll_event()).filter_map(|event| match event {
        Event::Refused { hash, source: Some(SocketAddr::V4(source)), .. } => Some((hash, source.ip().octets()[3])),
        _ => None,
    });
    (is_new, refused.collect())
}

/// The share under the version before its own, which has the same fields: nothing in it commits to its version.
fn relabelled(share: &Share, chain: &Sharechain) -> Arc<Share> {
    let contents = Contents { version: ShareVersion::V34, ..share.contents().clone() };
    let altered = Share::check(contents, chain.rules()).unwrap();
    assert_eq!(altered.hash(), share.hash());
    Arc::new(altered)
}

#[test]
fn a_share_relabelled_on_its_way_is_blamed_on_its_sender_and_the_mined_one_is_taken_from_the_next_peer() {
    let (mut theirs, mut ours, top) = two_nodes(network(24, 35));
    let mined = share_on(&mut theirs, Some(top), &later(1));
    let altered = relabelled(&mined, &ours);
    assert_eq!(send(&mut ours, &altered, 1), (true, vec![(mined.hash(), 1)]));
    assert_eq!(send(&mut ours, &mined, 2), (true, vec![]));
    assert_eq!(ours.choice().best, Some(mined.hash()));
}

#[test]
fn a_share_relabelled_before_it_can_be_checked_gives_way_to_the_mined_one_without_blame_for_honest_peers() {
    let (mut theirs, mut ours, top) = two_nodes(network(24, 35));
    let parent = share_on(&mut theirs, Some(top), &later(1));
    theirs.add(parent.clone(), None, f64::from(LATER));
    theirs.think(f64::from(LATER));
    let mined = share_on(&mut theirs, Some(parent.hash()), &later(2));
    let altered = relabelled(&mined, &ours);
    assert_eq!(send(&mut ours, &altered, 1), (true, vec![]));
    assert_eq!(send(&mut ours, &mined, 2), (false, vec![]), "it counts as known");
    assert_eq!(send(&mut ours, &parent, 3), (true, vec![(mined.hash(), 1)]));
    // It comes again with the next share on top of it, at the latest.
    assert_eq!(send(&mut ours, &mined, 2), (true, vec![]));
    assert_eq!((ours.choice().best, ours.share(mined.hash())), (Some(mined.hash()), Some(&mined)));
}

#[test]
fn a_share_with_another_branch_that_nothing_commits_to_is_as_good_as_the_mined_one() {
    let (mut theirs, mut ours, top) = two_nodes(network(24, 35));
    let mined = share_on(&mut theirs, Some(top), &Plan { transactions: vec![[7; 32]], ..later(1) });
    let merkle_branch = vec![[9; 32]; 1_000].into();
    let bytes = pack(&Contents { merkle_branch, ..mined.contents().clone() });
    let altered = Arc::new(Share::from_bytes(&bytes, ours.rules()).unwrap());
    assert!(altered.hash() == mined.hash() && altered != mined && altered.wire_bytes() == mined.wire_bytes());
    assert_eq!(send(&mut ours, &altered, 1), (true, vec![]));
    assert_eq!(send(&mut ours, &mined, 2), (false, vec![]));
    assert_eq!(ours.choice().best, Some(mined.hash()));
    // A node that gets it from this one takes it, too.
    let (_, mut others, _) = two_nodes(network(24, 35));
    assert_eq!(send(&mut others, &ours.ancestry(&[mined.hash()], 0, &[])[0], 3), (true, vec![]));
}

#[test]
fn a_share_that_could_not_be_checked_is_not_passed_on_for_this_node_would_be_blamed() {
    let (mut theirs, mut ours, top) = two_nodes(network(24, 35));
    // An attacker keeps the parent to itself, and gives this node a bad share on top of it.
    let parent = share_on(&mut theirs, Some(top), &later(1));
    theirs.add(parent.clone(), None, f64::from(LATER));
    theirs.think(f64::from(LATER));
    let tip = theirs.tip_at(Some(parent.hash()));
    let mut lie = info(&theirs, &tip, &later(2));
    lie.absheight += 1;
    let bad = find(&theirs, &tip, &later(2), lie);
    assert_eq!(send(&mut ours, &bad, 1), (true, vec![]));
    assert_eq!(ours.ancestry(&[bad.hash()], 10, &[]), []);
    // With the parent it can be checked, and its sender is known.
    assert_eq!(send(&mut ours, &parent, 2), (true, vec![(bad.hash(), 1)]));
    assert_eq!(ours.ancestry(&[parent.hash()], 1, &[]).len(), 2);
}

#[test]
fn false_times_make_a_share_easier_by_a_tenth_at_most_and_reach_ten_minutes_ahead() {
    let network = network(24, 35);
    let mut chain = Sharechain::new(network);
    // Shares come too fast, so that they become harder.
    let mut top = None;
    for number in 0..90 {
        let share = share_on(&mut chain, top, &Plan { timestamp: START + number, nonce: number, ..Plan::default() });
        top = Some(share.hash());
        chain.add(share, None, f64::from(START + number));
        chain.think(f64::from(START + number));
    }
    let now = START + 90;
    assert_eq!(chain.choice().best, top);
    let work = |share: &Share| f64::from(u32::try_from(share.min_attempts().0).unwrap());
    let mut last = work(chain.share(top.unwrap()).unwrap());
    assert!(last > 500.0, "{last}");
    let honest = top;
    let mut mind = Sharechain::new(network);
    for hash in chain.all().chain(top.unwrap(), u32::MAX).collect::<Vec<_>>().into_iter().rev() {
        mind.load(chain.share(hash).unwrap().clone(), true);
    }
    mind.think(f64::from(now));
    for leap in 1..=10 {
        let timestamp = START + 10_000_000 * leap;
        let share = share_on(&mut mind, top, &Plan { timestamp, nonce: leap, ..Plan::default() });
        assert!(work(&share) >= 0.89 * last, "from {last} to {}", work(&share));
        last = work(&share);
        top = Some(share.hash());
        mind.add(share.clone(), None, f64::from(timestamp));
        mind.think(f64::from(timestamp));
        // Here, where the clock is right, it waits, and nobody is blamed.
        chain.add(share, Some(address(1)), f64::from(now));
        chain.think(f64::from(now));
        assert_eq!(chain.choice().best, honest);
        assert!(!std::iter::from_fn(|| chain.poll_event()).any(|event| matches!(event, Event::Refused { .. })));
    }
}

#[test]
fn a_time_before_the_parents_is_refused() {
    let (mut theirs, mut ours, top) = two_nodes(network(24, 35));
    let tip = theirs.tip_at(Some(top));
    for timestamp in [0, theirs.share(top).unwrap().timestamp()] {
        let mut lie = info(&theirs, &tip, &later(1));
        lie.timestamp = timestamp;
        let share = find(&theirs, &tip, &later(1), lie);
        assert_eq!(send(&mut ours, &share, 1), (true, vec![(share.hash(), 1)]));
    }
}
