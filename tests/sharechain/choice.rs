//! Choice of the best share: punished and naughty heads, incomplete chains, stale accounting.

use sharechain::chain::{Event, KnownTransaction, Sharechain};
use sharechain::share::{Bits, ShareHash, ShareVersion, StaleInfo, Target};
use sharechain::testkit::{Plan, START, attempts, bits_of, grow, network, share_on};
use std::sync::Arc;

fn add(chain: &mut Sharechain, parent: ShareHash, plan: &Plan) -> ShareHash {
    let timestamp = chain.share(parent).unwrap().timestamp() + 10;
    let share = share_on(chain, Some(parent), &Plan { timestamp, ..plan.clone() });
    chain.add(Arc::clone(&share), None, f64::from(timestamp));
    chain.think(f64::from(timestamp));
    share.hash()
}

/// Every block takes more than its subsidy without fees: naughty below version 34, whose transactions are listed.
fn greedy(nonce: u32) -> Plan {
    Plan { subsidy: 6_000_000_000, nonce, ..Plan::default() }
}

#[test]
fn a_naughty_head_is_left_for_its_parent_and_taints_five_generations() {
    let mut chain = Sharechain::new(network(64, 33));
    let honest = grow(&mut chain, None, 30, &Plan::default());
    let last = *honest.last().unwrap();
    let mut naughty = add(&mut chain, last, &greedy(1));
    assert_eq!(chain.known(naughty).unwrap().naughty, 1);
    assert_eq!(chain.choice().best, Some(last));
    assert_eq!(chain.choice().punish_aggressively, -1);
    for generation in 2..=6 {
        naughty = add(&mut chain, naughty, &Plan::default());
        assert_eq!(chain.known(naughty).unwrap().naughty, generation);
        assert_eq!(chain.choice().best, Some(last), "generation {generation}");
    }
    // The seventh is forgiven, and its chain is longest.
    naughty = add(&mut chain, naughty, &Plan::default());
    assert_eq!(chain.known(naughty).unwrap().naughty, 0);
    assert_eq!(chain.choice().best, Some(naughty));
}

#[test]
fn from_a_naughty_head_the_way_leads_to_the_deepest_honest_descendant() {
    let mut chain = Sharechain::new(network(64, 33));
    let honest = grow(&mut chain, None, 30, &Plan::default());
    let last = *honest.last().unwrap();
    let naughty = add(&mut chain, last, &greedy(1));
    let naughty = add(&mut chain, naughty, &greedy(2));
    add(&mut chain, naughty, &greedy(3));
    assert_eq!(chain.choice().best, Some(last));
    let sibling = add(&mut chain, last, &Plan { nonce: 4, ..Plan::default() });
    assert_eq!(chain.choice().best, Some(sibling));
    let deeper = add(&mut chain, sibling, &Plan::default());
    assert_eq!(chain.choice().best, Some(deeper));
}

#[test]
fn known_fees_excuse_a_reward_and_an_unknown_fee_excuses_any() {
    let of = |known: Option<KnownTransaction>| {
        let mut chain = Sharechain::new(network(64, 33));
        chain.facts_mut().transactions.extend(known.map(|known| ([9; 32], known)));
        let plan = Plan { transactions: vec![[9; 32]], ..greedy(1) };
        let first = grow(&mut chain, None, 1, &plan)[0];
        chain.known(first).unwrap().naughty
    };
    assert_eq!(of(None), 0);
    assert_eq!(of(Some(KnownTransaction { fee: None, stripped_size: 100 })), 0);
    assert_eq!(of(Some(KnownTransaction { fee: Some(1_000_000_000), stripped_size: 100 })), 0);
    assert_eq!(of(Some(KnownTransaction { fee: Some(999_999_999), stripped_size: 100 })), 1);
}

#[test]
fn an_overweight_block_is_punished_while_its_transactions_are_known() {
    let mut chain = Sharechain::new(network(64, 33));
    let honest = grow(&mut chain, None, 30, &Plan::default());
    let last = *honest.last().unwrap();
    let head = add(&mut chain, last, &Plan { transactions: vec![[9; 32]], ..Plan::default() });
    assert_eq!(chain.choice().best, Some(head));
    // Stripped bytes count four times: one million is the limit.
    chain.facts_mut().transactions.insert([9; 32], KnownTransaction { fee: None, stripped_size: 999_900 });
    let now = f64::from(START + 1000);
    chain.think(now);
    assert_eq!(chain.choice().heads.last().unwrap().punishment, 1);
    // The way up from its parent leads to it again, where the reference loops; we stay on its parent.
    assert_eq!(chain.choice().best, Some(last));
}

#[test]
fn a_head_that_solves_its_block_gains_its_own_work_and_asks_to_be_overtaken() {
    let mut chain = Sharechain::new(network(24, 35));
    let shares = grow(&mut chain, None, 10, &Plan::default());
    let parent = shares[8];
    let before = chain.choice().best;
    // Received later and as deep, yet chosen.
    let easy = Plan { block_bits: Bits(0x2100_ffff), nonce: 5, ..Plan::default() };
    let block = add(&mut chain, parent, &easy);
    assert_ne!(before, Some(block));
    assert_eq!(chain.choice().best, Some(block));
    assert_eq!(chain.choice().heads.last().unwrap().punishment, -1);
    assert!(std::iter::from_fn(|| chain.poll_event()).any(|event| event == Event::Block(block)));
}

#[test]
fn a_chain_without_its_beginning_is_verified_as_soon_as_a_window_lies_below() {
    let network = network(24, 35);
    let mut source = Sharechain::new(network);
    let hashes = grow(&mut source, None, 60, &Plan::default());
    let mut chain = Sharechain::new(network);
    let now = f64::from(START + 600);
    for (index, hash) in hashes.iter().enumerate().skip(10) {
        chain.add(Arc::clone(source.share(*hash).unwrap()), Some("10.0.0.1:1".parse().unwrap()), now);
        chain.think(now);
        let height = index - 9;
        assert_eq!(chain.choice().best.is_some(), height > 24, "height {height}");
        if height <= 24 {
            let wanted: Vec<_> = chain.choice().wanted.iter().map(|wanted| wanted.hash).collect();
            assert_eq!(wanted, [hashes[9]]);
            assert!(chain.choice().wanted[0].source.is_some());
        }
    }
    // Of the 50 shares, only those with a whole window below them are verified.
    assert_eq!(chain.choice().best, hashes.last().copied());
    assert_eq!(chain.verified().len(), 50 - 24);
    // The rest arrives in one batch, oldest first, and is verified down to the chain's length only.
    for hash in &hashes[..10] {
        chain.add(Arc::clone(source.share(*hash).unwrap()), None, now);
    }
    chain.think(now);
    assert_eq!(chain.all().height(*hashes.last().unwrap()), 60);
    assert_eq!(chain.verified().len(), 26);
    assert!(chain.choice().wanted.is_empty());
}

#[test]
fn a_chain_that_arrives_at_once_is_verified_one_chain_length_deep() {
    let network = network(24, 35);
    let mut source = Sharechain::new(network);
    let hashes = grow(&mut source, None, 60, &Plan::default());
    let mut chain = Sharechain::new(network);
    for hash in hashes.iter().rev() {
        chain.add(Arc::clone(source.share(*hash).unwrap()), None, f64::from(START));
    }
    chain.think(f64::from(START + 600));
    assert_eq!(chain.verified().len(), 24);
    assert_eq!(chain.choice().best, hashes.last().copied());
    assert_eq!(chain.verified().last(hashes[59]), Some(hashes[35]));
}

#[test]
fn a_bad_share_below_a_good_child_is_not_verified_and_cannot_be_removed() {
    let network = network(24, 35);
    let mut other = Sharechain::new(network);
    grow(&mut other, None, 3, &Plan { payee: 2, ..Plan::default() });
    let tip = other.tip();
    let plan = Plan { timestamp: START + 100, ..Plan::default() };
    let mut info = sharechain::testkit::info(&other, &tip, &plan);
    info.absheight += 1;
    let bad = sharechain::testkit::find(&other, &tip, &plan, info);
    other.add(Arc::clone(&bad), None, f64::from(START));
    let child = share_on(&mut other, Some(bad.hash()), &plan);
    other.add(Arc::clone(&child), None, f64::from(START));
    other.think(f64::from(START + 600));
    // The child fits its parent, so it is verified at once; its parent, tried next, fails, and stays in the middle.
    assert!(other.all().contains(&bad.hash()));
    assert!(!other.verified().contains(&bad.hash()));
}

#[test]
fn a_score_samples_a_sixteenth_of_the_chain_from_its_end_on() {
    // Of 32 shares two are sampled: those 30 and 31 below the head.
    let network = network(32, 35);
    let mut chain = Sharechain::new(network);
    for height in 1..=40_u8 {
        let best = chain.choice().best;
        let timestamp = START + 10 * u32::from(height);
        let block = [height; 32];
        let plan = Plan { timestamp, previous_block: Some(block), ..Plan::default() };
        let share = share_on(&mut chain, best, &plan);
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
    }
    // The head has height 40, so the sampled shares have heights 10 and 9.
    let rate = |chain: &mut Sharechain, known: &[(u8, u32)]| {
        let facts = chain.facts_mut();
        facts.best_height = 1000;
        facts.heights = known.iter().map(|(block, height)| ([*block; 32], *height)).collect();
        chain.tail_score().unwrap().rate.unwrap()
    };
    let work = chain
        .all()
        .work_between(chain.choice().best.unwrap(), chain.all().ancestor(chain.choice().best.unwrap(), 30).unwrap())
        .own;
    assert_eq!(work, attempts(30));
    assert_eq!(rate(&mut chain, &[(10, 1000)]), 30.0 / 600.0);
    assert_eq!(rate(&mut chain, &[(9, 998)]), 30.0 / (3.0 * 600.0));
    assert_eq!(rate(&mut chain, &[(11, 1000), (8, 1000)]), 30.0 / (1001.0 * 600.0));
    // Each block that shares build on is requested once.
    assert_eq!(chain.wanted_heights().len(), 38);
    assert!(chain.wanted_heights().is_empty());
}

#[test]
fn our_lost_shares_are_announced_once_each() {
    let mut chain = Sharechain::new(network(24, 35));
    let shares = grow(&mut chain, None, 5, &Plan::default());
    let now = f64::from(START + 60);
    let on = |chain: &mut Sharechain, parent, nonce, stale_info| {
        let timestamp = START + 60;
        share_on(chain, Some(parent), &Plan { nonce, timestamp, stale_info, payee: 2, ..Plan::default() })
    };
    // Our share on an old parent never enters the best chain; another one arrives late.
    let orphan = on(&mut chain, shares[2], 1, StaleInfo::NONE);
    assert!(chain.add_own(orphan, false, now));
    chain.think(now);
    assert_eq!(chain.own().next_stale_info(), StaleInfo::ORPHAN);
    let dead = on(&mut chain, shares[3], 2, StaleInfo::NONE);
    assert!(chain.add_own(dead, true, now));
    chain.think(now);
    let counts = chain.own().counts();
    assert_eq!((counts.made, counts.orphan, counts.dead), (2, 1, 1));
    // Our next share announces the orphan, and the one after it the dead share.
    for stale_info in [StaleInfo::ORPHAN, StaleInfo::DOA, StaleInfo::NONE] {
        assert_eq!(chain.tip().next_share(Target::MAX_256).unwrap().stale_info, stale_info);
        let best = chain.choice().best.unwrap();
        let share = on(&mut chain, best, 9, stale_info);
        chain.add_own(share, false, now);
        chain.think(now);
    }
    let counts = chain.own().counts();
    assert_eq!((counts.made, counts.orphan, counts.dead), (5, 1, 1));
}

#[test]
fn a_late_share_of_ours_stays_out_where_four_were_before() {
    let mut chain = Sharechain::new(network(24, 35));
    let parent = grow(&mut chain, None, 3, &Plan::default())[2];
    let now = f64::from(START);
    for nonce in 1..=4 {
        let share = share_on(&mut chain, Some(parent), &Plan { nonce, timestamp: START + 50, ..Plan::default() });
        assert!(chain.add_own(share, true, now));
    }
    let share = share_on(&mut chain, Some(parent), &Plan { nonce: 5, timestamp: START + 50, ..Plan::default() });
    assert!(!chain.add_own(share, true, now));
    assert_eq!(chain.own().counts().dead, 5);
}

#[test]
fn shares_from_the_store_are_trusted_first_and_checked_later() {
    let network = network(24, 35);
    let mut source = Sharechain::new(network);
    let hashes = grow(&mut source, None, 40, &Plan { block_bits: bits_of(100_000), ..Plan::default() });
    let mut chain = Sharechain::new(network);
    for hash in &hashes {
        assert!(chain.load(Arc::clone(source.share(*hash).unwrap()), true));
    }
    chain.think(f64::from(START));
    assert_eq!(chain.choice().best, hashes.last().copied());
    assert_eq!(chain.verified().len(), 40);
    let now = f64::from(START + 1000);
    assert!(chain.recheck(30, now));
    assert!(!chain.recheck(30, now));
    assert_eq!(chain.verified().len(), 40);
    assert_eq!(chain.tip().version(), ShareVersion::V35);
}
