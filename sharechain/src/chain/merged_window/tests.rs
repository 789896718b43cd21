//! Weights on a merged chain and the payout hash equal a naive walk, whatever comes and goes.

use super::*;
use crate::chain::windows::Windows;
use crate::chain::{Ratchet, Sharechain};
use crate::coin::Network;
use crate::merged::DOGECOIN;
use crate::merkle::Digest;
use crate::share::{MergedAddress, Weights, payout_hash};
use crate::testkit::{self, Plan};
use proptest::prelude::*;
use ruint::aliases::U320;
use std::sync::LazyLock;

const LENGTH: u32 = 24;

fn network() -> &'static Network {
    testkit::network_of_versions(LENGTH, 35..=36, 100)
}

/// Node that makes version 36 as long as enough shares vote for it.
fn node(network: &'static Network) -> Sharechain {
    let mut node = Sharechain::new(network);
    node.set_ratchet(Ratchet::from_json(r#"{"state": "confirmed"}"#).unwrap());
    node
}

fn entry(chain_id: u32, script: &[u8]) -> MergedAddress {
    MergedAddress { chain_id, script: script.into() }
}

/// Entries of each sort.
fn entries(sort: u64) -> Vec<MergedAddress> {
    match sort {
        0 => vec![entry(DOGECOIN, b"one")],
        1 => vec![entry(7, b"elsewhere"), entry(DOGECOIN, b"two"), entry(DOGECOIN, b"three")],
        2 => vec![entry(DOGECOIN, b""), entry(DOGECOIN, b"after an empty one")],
        3 => vec![entry(7, b"elsewhere")],
        _ => Vec::new(),
    }
}

/// Adds a share on `parent` without checking it.
fn add_on(node: &mut Sharechain, parent: Option<ShareHash>, plan: &Plan) -> Arc<Share> {
    let timestamp = parent.map_or(testkit::START, |parent| node.share(parent).unwrap().timestamp() + 10);
    let share = testkit::share_on(node, parent, &Plan { timestamp, ..plan.clone() });
    node.add(share.clone(), None, f64::from(timestamp));
    share
}

/// Network, and a chain on it with many forks, of both versions, parents first.
static FOREST: LazyLock<(&Network, Vec<Arc<Share>>)> = LazyLock::new(|| {
    let network = network();
    let mut node = node(network);
    let mut shares: Vec<Arc<Share>> = Vec::new();
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for number in 0..180_u32 {
        let back = if random(6) == 0 { random(8) } else { 0 };
        let parent = shares.len().checked_sub(1 + usize::try_from(back).unwrap());
        let plan = Plan {
            payee: u32::try_from(random(5)).unwrap(),
            donation: if random(3) == 0 { u16::try_from(random(65_536)).unwrap() } else { 0 },
            // In some parts of the chain, too few votes for 36.
            vote: Some(if random(10) < if number % 90 < 40 { 9 } else { 1 } { 36 + random(2) } else { 35 }),
            merged_addresses: entries(random(9)),
            nonce: number,
            ..Plan::default()
        };
        shares.push(add_on(&mut node, parent.map(|parent| shares[parent].hash()), &plan));
    }
    (network, shares)
});

fn naive(view: &View<'_>, start: ShareHash, length: u32) -> MergedWindowWeights {
    let mut wanted = MergedWindowWeights::default();
    let voters = view.chain(start, length).filter(|share| share.data().desired_version >= 36);
    for share in voters {
        let script = share.payee().script(share.version()).unwrap();
        let additions = share.info().additions.as_ref();
        let own = additions.and_then(|it| it.merged_addresses.iter().find(|entry| entry.chain_id == DOGECOIN));
        let key = match (own, view.first_seen.find(DOGECOIN, script)) {
            (Some(own), _) => MergedKey::Merged(own.script[..].into()),
            (None, Some(seen)) if additions.is_some() => MergedKey::Merged(seen.clone()),
            _ => MergedKey::Parent(script.into()),
        };
        wanted.looked_up += u32::from(additions.is_some() && own.is_none());
        let (attempts, donation) = (share.attempts().0, U320::from(share.data().donation));
        *wanted.weights.by_key.entry(key).or_default() += attempts * (U320::from(65_535) - donation);
        wanted.weights.donation += attempts * donation;
        wanted.weights.total += attempts * U320::from(65_535);
    }
    wanted.weights.by_key.retain(|_, weight| !weight.is_zero());
    wanted
}

fn naive_hash(view: &View<'_>, start: ShareHash, length: u32) -> Option<Digest> {
    let mut weights = Weights::default();
    let voters = view.chain(start, length).filter(|share| share.data().desired_version >= 36);
    for share in voters {
        let (attempts, donation) = (share.attempts().0, U320::from(share.data().donation));
        let payee = share.payee().by_script(share.version()).clone();
        *weights.by_payee.entry(payee).or_default() += attempts * (U320::from(65_535) - donation);
        weights.donation += attempts * donation;
        weights.total += attempts * U320::from(65_535);
    }
    payout_hash(&weights)
}

#[test]
fn the_forest_has_all_sorts_of_shares() {
    let shares = &FOREST.1;
    let count = |of: &dyn Fn(&Share) -> bool| shares.iter().filter(|share| of(share)).count();
    let votes = |share: &Share| share.data().desired_version >= 36;
    let counts = [true, false].map(|is_new| {
        let of_version = |share: &Share| (share.version() == ShareVersion::V36) == is_new;
        [count(&|share| of_version(share) && votes(share)), count(&|share| of_version(share) && !votes(share))]
    });
    assert!(counts.iter().flatten().all(|count| *count > 10), "{counts:?}");
    let mut node = node(FOREST.0);
    shares.iter().for_each(|share| assert!(node.add(share.clone(), None, 0.0)));
    assert!(shares.iter().any(|share| node.all.height(share.hash()) > 2 * LENGTH + u32::try_from(REACH).unwrap()));
}

proptest! {
    #[test]
    fn weights_and_hash_equal_a_naive_walk_while_shares_come_and_go_in_any_order(
        joined in 0usize..180,
        steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>(), 0usize..60), 1..60),
    ) {
        let (network, shares) = &*FOREST;
        let (mut node, mut windows) = (node(network), Windows::default());
        let mut merged = MergedWindow::new(DOGECOIN);
        shares[..joined].iter().for_each(|share| assert!(node.add(share.clone(), None, 0.0)));
        let mut start = None;
        for (step, index, count) in steps {
            let at = index.index(shares.len());
            match step {
                // Some shares, whose parents may come later or never.
                0 | 1 => shares[at..].iter().take(1 + count).for_each(|share| { node.add(share.clone(), None, 0.0); }),
                // All ends of chains but a few, or all descendants.
                2 => shares[at..].iter().rev().take(1 + count).for_each(|share| { node.forget(share.hash()); }),
                // The oldest shares, as pruning does.
                3 => shares.iter().take(count).for_each(|share| { node.forget(share.hash()); }),
                // Up or down a little, or anywhere.
                4 | 5 => start = start.map(|start: usize| (start + count % 9).min(shares.len() - 1)),
                6 | 7 => start = start.map(|start| start.saturating_sub(count % 9)),
                _ => start = Some(at),
            }
            let share = shares[*start.get_or_insert(at)].clone();
            let Some(known) = node.share(share.hash()) else { continue };
            let view = node.view();
            let length = view.all.height(share.hash()).min(LENGTH);
            let wanted = naive(&view, share.hash(), length);
            let found = merged.weights(&view, Some(share.hash()));
            prop_assert_eq!(&*found, &wanted);
            prop_assert!(Arc::ptr_eq(&found, &merged.weights(&view, Some(share.hash()))));
            prop_assert_eq!(&*windows.merged(&view, Some(known)), &wanted);
            prop_assert_eq!(windows.payout_hash(&view, Some(known)), naive_hash(&view, share.hash(), length));
        }
        prop_assert_eq!(&*merged.weights(&node.view(), None), &MergedWindowWeights::default());
    }
}

#[test]
fn a_new_answer_of_the_table_moves_the_weight_of_a_share_without_an_entry() {
    let mut node = node(network());
    let plan = |payee, merged_addresses| Plan { payee, merged_addresses, ..Plan::default() };
    let silent = add_on(&mut node, None, &plan(1, Vec::new()));
    let other = add_on(&mut node, Some(silent.hash()), &plan(2, vec![entry(DOGECOIN, b"other")]));
    let mut window = MergedWindow::new(DOGECOIN);
    let by_parent = MergedKey::Parent(silent.payee().script(ShareVersion::V36).unwrap().into());
    let before = window.weights(&node.view(), Some(other.hash()));
    assert_eq!((before.weights.by_key.len(), before.looked_up), (2, 1));
    assert!(before.weights.by_key.contains_key(&by_parent));

    // An answer for somebody else changes nothing.
    let stranger = add_on(&mut node, Some(other.hash()), &plan(3, vec![entry(DOGECOIN, b"stranger")]));
    assert!(Arc::ptr_eq(&before, &window.weights(&node.view(), Some(other.hash()))));
    let teacher = add_on(&mut node, Some(stranger.hash()), &plan(1, vec![entry(DOGECOIN, b"taught")]));
    let taught = window.weights(&node.view(), Some(other.hash()));
    assert!(!taught.weights.by_key.contains_key(&by_parent));
    assert!(taught.weights.by_key.contains_key(&MergedKey::Merged(b"taught"[..].into())));
    assert_eq!((taught.weights.total, taught.looked_up), (before.weights.total, 1));
    let whole = window.weights(&node.view(), Some(teacher.hash()));
    assert_eq!((whole.weights.by_key.len(), whole.looked_up), (3, 1));

    assert!(node.forget(teacher.hash()));
    assert_eq!(window.weights(&node.view(), Some(other.hash())), before);
}

#[test]
fn shares_before_version_36_count_by_their_parents_script_if_they_vote_for_it() {
    let mut node = Sharechain::new(testkit::network(LENGTH, 35));
    let mut parent = None;
    for (payee, vote) in [(1, 36), (2, 35), (1, 37), (3, 36)] {
        let plan = Plan { payee, vote: Some(vote), merged_addresses: entries(0), ..Plan::default() };
        parent = Some(add_on(&mut node, parent, &plan).hash());
    }
    let found = MergedWindow::new(DOGECOIN).weights(&node.view(), parent);
    assert_eq!((found.weights.by_key.len(), found.looked_up), (2, 0));
    assert!(found.weights.by_key.keys().all(|key| matches!(key, MergedKey::Parent(_))));
    assert_eq!(*found, naive(&node.view(), parent.unwrap(), LENGTH));
}

#[test]
fn an_answer_holds_for_one_start_and_one_length() {
    let (network, shares) = &*FOREST;
    let mut whole = node(network);
    shares.iter().for_each(|share| assert!(whole.add(share.clone(), None, 0.0)));
    let start = shares.iter().max_by_key(|share| whole.all.height(share.hash())).unwrap();
    let chain: Vec<Arc<Share>> = whole.view().chain(start.hash(), LENGTH).cloned().collect();
    let (upper, lower) = chain.split_at(7);
    let (mut node, mut windows) = (node(network), Windows::default());
    for part in [upper, lower] {
        part.iter().for_each(|share| assert!(node.add(share.clone(), None, 0.0)));
        let view = node.view();
        let answers = (windows.payout_hash(&view, Some(start)), windows.merged(&view, Some(start)));
        let length = view.all.height(start.hash());
        assert_eq!(answers.0, naive_hash(&view, start.hash(), length));
        assert_eq!(*answers.1, naive(&view, start.hash(), length));
        // Nothing is read again, so a share that cannot be found does no harm.
        let blind = View { known: &Map::default(), ..view };
        assert_eq!((windows.payout_hash(&blind, Some(start)), windows.merged(&blind, Some(start))), answers);
        // Neither for another share.
        windows.payout_hash(&view, Some(&chain[1]));
        windows.merged(&view, Some(&chain[1]));
        assert_eq!((windows.payout_hash(&view, Some(start)), windows.merged(&view, Some(start))), answers);
    }
}
