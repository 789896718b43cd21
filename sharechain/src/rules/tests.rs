//! Rows of the table, and a version with other rules than all others.

use super::*;
use crate::chain::{Counting, Entry, Event, Query, Sharechain, VerifyError, Window};
use crate::share::{Draft, MinHeader, Payee, Payouts, Share, ShareHash, Target, donation_payee, pack, unpack};
use crate::testkit::{self, Plan};
use ruint::aliases::U320;
use std::collections::HashMap;
use std::sync::Arc;

#[test]
fn numbers_lead_to_versions_and_back() {
    for version in ShareVersion::ALL {
        assert_eq!(ShareVersion::from_number(version.number()), Ok(*version));
    }
    assert_eq!(ShareVersion::from_number(16), Err(VersionError::Obsolete(16)));
    assert_eq!(ShareVersion::from_number(18), Err(VersionError::Unknown(18)));
    assert_eq!(ShareVersion::from_number(37), Err(VersionError::Unknown(37)));
}

#[test]
fn timestamps_of_version_17_stay_within_two_periods_of_the_parent() {
    let stamp = |version: ShareVersion, desired| version.timestamp(desired, Some(1000), 30);
    for (desired, of_17, of_32) in [(0, 1001, 1001), (1001, 1001, 1001), (1059, 1059, 1059), (1060, 1059, 1060)] {
        assert_eq!(stamp(ShareVersion::V17, desired), of_17);
        assert_eq!(stamp(ShareVersion::V32, desired), of_32);
    }
    assert_eq!(ShareVersion::V17.timestamp(5, None, 30), 5);
}

#[test]
fn transactions_are_listed_until_peers_need_a_protocol_that_only_shares_without_them_need() {
    for minimum in [1400, 3200, 3300, 3301, 3499] {
        assert!(ShareVersion::may_list_transactions(minimum), "{minimum}");
    }
    assert!(!ShareVersion::may_list_transactions(3500) && !ShareVersion::may_list_transactions(3600));
}

#[test]
fn segwit_begins_with_the_version_that_the_network_says() {
    let active = |activation| ShareVersion::ALL[..5].iter().map(move |version| version.has_segwit(activation));
    assert!(active(33).eq([false, false, true, true, true]));
    assert!(active(15).eq([true; 5]));
    assert!(active(0).eq([false; 5]));
}

const LENGTH: u32 = 40;

/// Adds `share` to `chain` as a peer's, and returns the resulting event.
fn verdict(chain: &mut Sharechain, share: &Arc<Share>) -> Option<Event> {
    let now = f64::from(share.timestamp());
    chain.add(Arc::clone(share), Some("192.0.2.1:9333".parse().unwrap()), now);
    chain.think(now);
    std::iter::from_fn(|| chain.poll_event())
        .find(|event| matches!(event, Event::Verified(hash) | Event::Refused { hash, .. } if *hash == share.hash()))
}

/// Payouts of the toy's window for `subsidy`, computed share by share: from the newest down, each counts 1 - ln 2 /
/// 10 of the one before.
fn naive(chain: &[Arc<Share>], subsidy: u64) -> HashMap<Payee, u64> {
    let scale = 1_u128 << 40;
    let per_share = scale - scale * 693_147 / (1_000_000 * u128::from(LENGTH / 4));
    let (mut left, mut total) = (scale, 0);
    let mut by_payee = HashMap::<Payee, u128>::new();
    for share in chain.iter().rev().take(LENGTH as usize) {
        let weight = ((u128::try_from(share.attempts().0).unwrap() * left) >> 40) * 65_535;
        *by_payee.entry(share.payee().clone()).or_default() += weight;
        total += weight;
        left = (left * per_share) >> 40;
    }
    by_payee
        .into_iter()
        .map(|(payee, weight)| (payee, u64::try_from(u128::from(subsidy) * weight / total).unwrap()))
        .collect()
}

#[test]
fn a_version_with_other_rules_mines_a_chain_that_another_node_verifies() {
    // Enough hashes per share that a tenth of them is more than none.
    let network = testkit::network_of_work(LENGTH, TOY.number, 500);
    let (mut miner, mut other) = (Sharechain::new(network), Sharechain::new(network));
    let mut chain: Vec<Arc<Share>> = Vec::new();
    for number in 0..3 * LENGTH {
        let plan = Plan { payee: number % 3, timestamp: testkit::START + 10 * number, ..Plan::default() };
        let share = testkit::share_on(&mut miner, chain.last().map(|share| share.hash()), &plan);
        assert_eq!(share.version(), ShareVersion::Toy);
        assert_eq!(unpack(&pack(share.contents()), miner.rules()).unwrap(), *share.contents());
        assert_eq!(verdict(&mut miner, &share), Some(Event::Verified(share.hash())));
        assert_eq!(verdict(&mut other, &share), Some(Event::Verified(share.hash())));
        chain.push(share);
    }
    assert_eq!(other.tip().best_hash(), chain.last().map(|share| share.hash()));

    let (tip, subsidy) = (miner.tip(), 625_000_001);
    let weights = tip.weights(Target::MAX_256);
    let payouts = Payouts::new(tip.version(), subsidy, &weights, miner.rules()).unwrap();
    let finder = Payee::from_pubkey_hash(&[0x5a; 20], miner.rules());
    let mut paid: HashMap<Payee, u64> =
        payouts.with_finder(&finder).map(|(payee, amount)| (payee.clone(), amount)).collect();
    let rest = paid.remove(&donation_payee(ShareVersion::Toy, miner.rules())).unwrap();
    assert_eq!(paid, naive(&chain, subsidy), "the parent counts most, and the finder gets nothing extra");
    assert_eq!(rest + paid.values().sum::<u64>(), subsidy);

    // A coinbase that pays the window of another version is refused.
    let plan = Plan { timestamp: testkit::START + 10 * 3 * LENGTH, ..Plan::default() };
    let look = |hash: ShareHash| miner.share(hash).map(|share| Entry::of(share));
    let start = chain.last().and_then(|share| share.previous());
    let query = Query { start, shares_max: LENGTH - 1, counting: Counting::UpTo(U320::MAX) };
    let weights = Window::default().weights(query, &look);
    let payouts = Payouts::new(ShareVersion::Toy, plan.subsidy, &weights, miner.rules()).unwrap();
    let draft = Draft::new(testkit::info(&miner, &tip, &plan), &payouts, &[], miner.rules()).unwrap();
    let header = |nonce| MinHeader {
        version: 0x2000_0000,
        previous_block: None,
        timestamp: plan.timestamp,
        bits: plan.block_bits,
        nonce,
    };
    let mut found = (0..).map(|nonce| draft.clone().finish(header(nonce), 0, miner.rules()));
    let share = Arc::new(found.find_map(Result::ok).unwrap());
    let verdict = verdict(&mut other, &share);
    assert!(matches!(verdict, Some(Event::Refused { error: VerifyError::Coinbase { .. }, .. })), "{verdict:?}");
}
