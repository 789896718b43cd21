//! Shares from peers are checked in slices, with bounded responses and bounded memory.

use proptest::prelude::*;
use sharechain::chain::{Event, Sharechain};
use sharechain::share::{SegwitData, Share, ShareHash};
use sharechain::testkit::{Plan, START, attempts, bits_of, find, grow, info, network, share_on};
use std::net::SocketAddr;
use std::sync::Arc;

/// No timeout applies here.
const NOW: f64 = (START + 1_000_000) as f64;

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 9333))
}

/// Long enough that a share's hundredth ancestor is known wherever a check is due.
const LENGTH: u32 = 110;

/// Chain of this many shares, newest first.
fn newest_first(chain: &Sharechain) -> Vec<Arc<Share>> {
    let best = chain.choice().best.unwrap();
    chain.all().chain(best, u32::MAX).map(|hash| chain.share(hash).unwrap().clone()).collect()
}

fn verified_events(chain: &mut Sharechain) -> Vec<ShareHash> {
    std::iter::from_fn(|| chain.poll_event())
        .filter_map(|event| match event {
            Event::Verified(hash) => Some(hash),
            _ => None,
        })
        .collect()
}

#[test]
fn slices_of_any_length_verify_what_one_go_verifies() {
    let network = network(LENGTH, 35);
    let mut theirs = Sharechain::new(network);
    grow(&mut theirs, None, 2 * LENGTH + 10, &Plan::default());
    let shares = newest_first(&theirs);
    let in_one_go = {
        let mut chain = Sharechain::new(network);
        for reply in shares.chunks(40) {
            chain.add_all(reply.to_vec(), Some(address(1)), NOW);
            chain.think(NOW);
        }
        chain
    };
    for checks in [1, 2, 7, 50] {
        let mut chain = Sharechain::new(network);
        let mut slices = 0;
        for reply in shares.chunks(40) {
            chain.add_all(reply.to_vec(), Some(address(1)), NOW);
            loop {
                let mut left = checks;
                slices += 1;
                let before = chain.verified().len();
                let is_whole = chain.think_while(NOW, &mut || {
                    left -= 1;
                    left > 0
                });
                assert!(chain.verified().len() - before <= checks, "more checks than allowed");
                if is_whole {
                    break;
                }
            }
        }
        assert!(slices >= LENGTH as usize / checks);
        let sorted = |chain: &Sharechain| {
            let mut hashes: Vec<ShareHash> = chain.verified().iter().collect();
            hashes.sort_unstable();
            hashes
        };
        assert_eq!(sorted(&chain), sorted(&in_one_go), "{checks} checks a slice");
        assert_eq!(chain.choice(), in_one_go.choice(), "{checks} checks a slice");
        let told = verified_events(&mut chain);
        assert_eq!(told.len(), chain.verified().len(), "each is told once");
    }
}

#[test]
fn a_fresh_share_does_not_wait_for_a_chain_that_is_being_made_up() {
    let network = network(LENGTH, 35);
    let mut theirs = Sharechain::new(network);
    grow(&mut theirs, None, 2 * LENGTH + 10, &Plan::default());
    let best = theirs.choice().best;
    let fresh = share_on(&mut theirs, best, &Plan { timestamp: START + 50_000, ..Plan::default() });
    let mut chain = Sharechain::new(network);
    chain.add_all(newest_first(&theirs), Some(address(1)), NOW);
    assert!(!chain.think_while(NOW, &mut || false));
    chain.add(fresh.clone(), None, NOW);
    assert!(!chain.think_while(NOW, &mut || false), "nearly all is still to be done");
    assert_eq!(chain.choice().best, Some(fresh.hash()));
}

#[test]
fn a_slice_wants_no_parent_that_its_end_will_not_want() {
    let network = network(LENGTH, 35);
    let mut theirs = Sharechain::new(network);
    grow(&mut theirs, None, 2 * LENGTH + 10, &Plan::default());
    let mut shares = newest_first(&theirs);
    // The chain's first share is missing; the rest suffices.
    shares.pop();
    let mut chain = Sharechain::new(network);
    chain.add_all(shares, Some(address(1)), f64::from(START + 20 * LENGTH));
    while !chain.think_while(f64::from(START + 20 * LENGTH), &mut || false) {
        assert_eq!(chain.choice().wanted, []);
    }
}

#[test]
fn an_answer_is_newest_first_and_ends_before_a_stop_and_at_its_bounds() {
    let mut chain = Sharechain::new(network(24, 35));
    let hashes = grow(&mut chain, None, 60, &Plan::default());
    let ask = |hashes: &[ShareHash], parents: u64, stops: &[ShareHash]| -> Vec<ShareHash> {
        chain.ancestry(hashes, parents, stops).iter().map(|share| share.hash()).collect()
    };
    assert_eq!(ask(&[hashes[50]], 2, &[]), [hashes[50], hashes[49], hashes[48]]);
    assert_eq!(ask(&[hashes[50]], 10, &[hashes[48]]), [hashes[50], hashes[49]]);
    assert_eq!(ask(&[hashes[50]], 10, &[hashes[50]]), []);
    assert_eq!(ask(&[hashes[1]], 10, &[]), [hashes[1], hashes[0]]);
    assert_eq!(ask(&[hashes[9], hashes[3]], 1, &[]), [hashes[9], hashes[8], hashes[3], hashes[2]]);
    // The latency probe, and an empty request (protocol section 3.7).
    assert_eq!(ask(&[ShareHash([0; 32])], 0, &[]), []);
    assert_eq!(ask(&[], u64::MAX, &[]), []);
    assert_eq!(ask(&[hashes[59]], u64::MAX, &[]).len(), 60);
    assert!(ask(&vec![hashes[59]; 30], u64::MAX, &[]).len() <= 1000 + 30);
    assert_eq!(ask(&vec![hashes[59]; 100_000], u64::MAX, &[]).len(), 2000);
}

#[test]
fn stops_are_heads_and_shares_ten_below_them_and_at_most_a_hundred() {
    let mut chain = Sharechain::new(network(24, 35));
    let hashes = grow(&mut chain, None, 60, &Plan::default());
    assert_eq!(chain.stops(), [hashes[59], hashes[49]]);
    for (nonce, parent) in (1..).zip(&hashes) {
        let share = share_on(&mut chain, Some(*parent), &Plan { nonce, timestamp: START + 700, ..Plan::default() });
        chain.add(share, Some(address(1)), NOW);
    }
    chain.think(NOW);
    let stops = chain.stops();
    assert_eq!(stops.len(), 100);
    assert_eq!(Some(stops[0]), chain.choice().best);
}

#[test]
fn a_batch_in_any_order_is_added_whole() {
    let network = network(24, 35);
    let mut theirs = Sharechain::new(network);
    grow(&mut theirs, None, 60, &Plan::default());
    let mut random = fastrand::Rng::with_seed(4);
    let mut shares = newest_first(&theirs);
    random.shuffle(&mut shares);
    shares.extend_from_within(..10);
    let mut chain = Sharechain::new(network);
    assert_eq!(chain.add_all(shares.clone(), Some(address(1)), NOW), 60);
    assert_eq!(chain.add_all(shares, Some(address(1)), NOW), 0);
    chain.think(NOW);
    assert_eq!(chain.choice().best, theirs.choice().best);
}

/// Every second share of a chain with little work: each is a separate branch.
fn worthless(network: &'static sharechain::coin::Network, count: u32) -> Vec<Arc<Share>> {
    let mut chain = Sharechain::new(network);
    grow(&mut chain, None, 2 * count, &Plan { payee: 66, nonce: 66, ..Plan::default() });
    newest_first(&chain).into_iter().step_by(2).collect()
}

#[test]
fn a_flood_of_unconnected_shares_stays_bounded_and_the_best_chain_untouched() {
    let network = network(16, 35);
    let mut chain = Sharechain::new(network);
    let hashes = grow(&mut chain, None, 42, &Plan::default());
    let flood = worthless(network, 1500);
    for (number, some) in flood.chunks(30).enumerate() {
        let host = u8::try_from(number % 40).unwrap();
        chain.add_all(some.to_vec(), Some(address(host)), NOW + number as f64);
        chain.think(NOW);
        chain.bound();
        assert!(chain.all().len() <= chain.shares_max());
        assert!(chain.all().heads().len() <= 513, "{} heads", chain.all().heads().len());
        let of_one = |host: u8| {
            let heads = chain.all().heads().iter();
            heads.filter(|head| chain.known(**head).unwrap().source == Some(address(host))).count()
        };
        assert!((0..40).all(|host| of_one(host) <= 64));
        assert_eq!(chain.choice().best, hashes.last().copied());
        assert!(hashes.iter().all(|hash| chain.all().contains(hash) && chain.verified().contains(hash)));
    }
}

#[test]
fn one_address_cannot_crowd_out_what_others_send() {
    let network = network(16, 35);
    let mut chain = Sharechain::new(network);
    grow(&mut chain, None, 42, &Plan::default());
    let flood = worthless(network, 600);
    let (theirs, flood) = flood.split_at(20);
    chain.add_all(theirs.to_vec(), Some(address(1)), NOW);
    chain.add_all(flood.to_vec(), Some(address(2)), NOW);
    chain.think(NOW);
    chain.bound();
    assert!(theirs.iter().all(|share| chain.all().contains(&share.hash())));
}

#[test]
fn a_long_worthless_chain_gives_way_to_one_with_more_work() {
    let network = network(16, 35);
    let mut chain = Sharechain::new(network);
    // Its shares took thirty times the work each; its lower end is still to be downloaded.
    let hard = {
        let mut theirs = Sharechain::new(network);
        grow(&mut theirs, None, 100, &Plan { target: bits_of(1000).target(), ..Plan::default() });
        newest_first(&theirs)[..99].to_vec()
    };
    let long = {
        let mut theirs = Sharechain::new(network);
        grow(&mut theirs, None, 1400, &Plan { payee: 66, ..Plan::default() });
        newest_first(&theirs)[..1399].to_vec()
    };
    let work = |shares: &[Arc<Share>]| shares.iter().fold(attempts(0).0, |sum, share| sum + share.attempts().0);
    assert!(work(&hard) > work(&long));
    chain.add_all(hard.clone(), Some(address(1)), NOW);
    for some in long.chunks(100) {
        chain.add_all(some.to_vec(), Some(address(2)), NOW);
        chain.bound();
        assert!(chain.all().len() <= chain.shares_max());
    }
    assert!(hard.iter().all(|share| chain.all().contains(&share.hash())));
    // The other was cut from its top, and no further than necessary.
    assert!(chain.all().len() > chain.shares_max() * 3 / 4);
    assert!(!chain.all().contains(&long[0].hash()) && chain.all().contains(&long[1398].hash()));
}

/// Share on top of `parent`, or of an unknown one, whose proof of work commits to this many bytes.
fn long_share(chain: &mut Sharechain, parent: Option<ShareHash>, nonce: u32, bytes: usize) -> Arc<Share> {
    let plan = Plan { nonce, timestamp: START + 900, ..Plan::default() };
    let tip = chain.tip_at(parent.or(chain.choice().best));
    let mut info = info(chain, &tip, &plan);
    let branch = vec![[nonce.to_le_bytes()[0]; 32]; bytes / 32].into();
    info.segwit_data = Some(SegwitData { txid_merkle_branch: branch, wtxid_merkle_root: [0; 32] });
    if parent.is_none() {
        info.share_data.previous = Some(ShareHash([nonce.to_le_bytes()[0]; 32]));
    }
    find(chain, &tip, &plan, info)
}

#[test]
fn loose_shares_are_bounded_in_bytes_and_the_network_with_the_most_loses_its_longest_first() {
    let network = network(16, 35);
    let mut chain = Sharechain::new(network);
    let hashes = grow(&mut chain, None, 42, &Plan::default());
    let honest = {
        let mut theirs = Sharechain::new(network);
        grow(&mut theirs, None, 100, &Plan { target: bits_of(1000).target(), ..Plan::default() });
        newest_first(&theirs)[..10].to_vec()
    };
    let few = worthless(network, 20);
    let long: Vec<_> =
        (1..=6).map(|nonce| long_share(&mut chain, None, nonce, 14_000_000 + 32_000 * nonce as usize)).collect();
    let address = |network: u8, host: u8| SocketAddr::from(([10, 0, network, host], 9333));
    // A new download of hard shares, and some shares of a worthless chain.
    chain.add_all(honest.clone(), Some(address(1, 1)), NOW);
    chain.add_all(few.clone(), Some(address(2, 1)), NOW);
    let send = |chain: &mut Sharechain, share: &Arc<Share>, network, host| {
        chain.add(share.clone(), Some(address(network, host)), NOW);
        chain.think(NOW);
        chain.bound().len()
    };
    // Hosts of one network share its limit: of three with 14 MB each the longest is dropped, which is the last.
    assert_eq!(send(&mut chain, &long[0], 3, 1), 0);
    assert_eq!(send(&mut chain, &long[1], 3, 2), 0);
    assert_eq!(send(&mut chain, &long[2], 3, 3), 1);
    assert!(!chain.all().contains(&long[2].hash()));
    // Another network has its own limit, and only the total is exceeded: the largest holder loses.
    assert_eq!(send(&mut chain, &long[3], 4, 1), 0);
    assert_eq!(send(&mut chain, &long[4], 4, 2), 0);
    assert!(chain.loose_bytes() < 60_000_000);
    assert_eq!(send(&mut chain, &long[2], 5, 1), 0);
    assert_eq!(send(&mut chain, &long[5], 6, 1), 1);
    assert!(!chain.all().contains(&long[4].hash()), "the longest of the network with most");
    assert!(chain.loose_bytes() < 80_000_000, "{}", chain.loose_bytes());
    // The others lost nothing.
    let kept = honest.iter().chain(&few).chain([&long[0], &long[1], &long[2], &long[3], &long[5]]);
    assert!(kept.into_iter().all(|share| chain.all().contains(&share.hash())));
    assert!(hashes.iter().all(|hash| chain.verified().contains(hash)));
}

#[test]
fn a_share_that_was_mined_long_joins_the_chain_also_when_its_child_comes_first() {
    let network = network(16, 35);
    let mut theirs = Sharechain::new(network);
    let hashes = grow(&mut theirs, None, 42, &Plan::default());
    let mut chain = Sharechain::new(network);
    chain.add_all(newest_first(&theirs), Some(address(1)), NOW);
    chain.think(NOW);
    assert_eq!(chain.loose_bytes(), 0, "all belong to the pool");
    let parent = long_share(&mut theirs, hashes.last().copied(), 1, 5_000_000);
    assert!(parent.wire_bytes() > 5_000_000);
    theirs.add(parent.clone(), None, NOW);
    theirs.think(NOW);
    let child = long_share(&mut theirs, Some(parent.hash()), 2, 5_000_000);
    chain.add(child.clone(), Some(address(2)), NOW);
    chain.think(NOW);
    assert_eq!(chain.bound(), []);
    assert_eq!(chain.loose_bytes(), child.memory_bytes());
    chain.add(parent.clone(), Some(address(2)), NOW);
    chain.think(NOW);
    assert_eq!(chain.bound(), []);
    assert_eq!((chain.choice().best, chain.loose_bytes()), (Some(child.hash()), 0));
    assert!(chain.verified().contains(&parent.hash()));
}

#[test]
fn shares_below_one_that_belongs_to_the_pool_are_not_loose_in_whatever_order_they_come() {
    let network = network(LENGTH, 35);
    let mut theirs = Sharechain::new(network);
    grow(&mut theirs, None, 2 * LENGTH + 10, &Plan::default());
    let shares = newest_first(&theirs);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..4 {
        let mut chain = Sharechain::new(network);
        let mut left = shares.clone();
        random.shuffle(&mut left);
        let mut sum = 0;
        for share in left {
            sum += share.memory_bytes();
            chain.add(share, Some(address(1)), NOW);
            assert!(chain.loose_bytes() <= sum);
            if random.u8(..16) == 0 {
                chain.think(NOW);
                chain.bound();
            }
        }
        assert!(chain.verified().is_empty() || chain.loose_bytes() < sum);
        chain.think(NOW);
        assert_eq!((chain.choice().best, chain.loose_bytes()), (theirs.choice().best, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn whatever_strangers_send_the_best_chain_stays_and_memory_is_bounded(
        seed in any::<u64>(),
        steps in prop::collection::vec((0_usize..5, 0_u8..6), 20..60),
    ) {
        let network = network(16, 35);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut chain = Sharechain::new(network);
        let hashes = grow(&mut chain, None, 40, &Plan::default());
        let best = chain.choice().best;
        let mut loose = worthless(network, 700);
        random.shuffle(&mut loose);
        let mut sides = hashes[..30].to_vec();
        for (number, (kind, host)) in (1_u32..).zip(steps) {
            let source = Some(address(host));
            if kind == 0 {
                // Valid, but of little work: side branches far below the best share.
                for nonce in 0..20 {
                    let parent = sides[random.usize(..sides.len())];
                    if chain.all().contains(&parent) && chain.all().height(parent) < 34 {
                        let plan = Plan { nonce: 100 * number + nonce, timestamp: START + 900, ..Plan::default() };
                        let share = share_on(&mut chain, Some(parent), &plan);
                        sides.push(share.hash());
                        chain.add(share, source, NOW);
                    }
                }
            } else {
                let some = loose.split_off(loose.len().saturating_sub(25));
                chain.add_all(some, source, NOW);
            }
            chain.think_while(NOW, &mut || random.u8(..4) > 0);
            let removed = chain.bound();
            prop_assert!(chain.all().len() <= chain.shares_max());
            prop_assert!(removed.iter().all(|hash| !chain.all().contains(hash) && !chain.verified().contains(hash)));
            prop_assert!(hashes.iter().all(|hash| chain.verified().contains(hash)));
            prop_assert!(chain.choice().best.is_some_and(|best| chain.all().contains(&best)));
        }
        while !chain.think_while(NOW, &mut || true) {}
        prop_assert_eq!(chain.choice().best, best);
    }
}
