//! What is left out beside an extension block is the cheapest, never what the block or another transaction needs.

use super::super::testing::{hogex, spending, with_extension};
use super::super::tests::{RULES, parts};
use super::super::{BLOCK_WEIGHT_MAX, Template, TemplateError, TemplateParts};
use super::*;
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

fn template(transactions: Vec<TemplateTransaction>, peg_ins: &[Txid]) -> Arc<Template> {
    Arc::new(Template::new(with_extension(transactions, peg_ins), RULES).unwrap())
}

/// A coinbase beside which everything of `template` fits except for `missing` weight units, a whole number of steps.
fn coinbase_for(template: &Template, missing: u64) -> Room {
    let left = template.room().without(template.used()).weight;
    Room { weight: left / WEIGHT_STEP * WEIGHT_STEP + missing, sigops: 100 }
}

/// Indices left out where `missing` weight units have to go.
fn left_out(template: &Template, missing: u64) -> Vec<usize> {
    match template.fitting(coinbase_for(template, missing)).unwrap() {
        Selection::Without(left_out) => left_out.into_vec(),
        other @ Selection::First(_) => panic!("{other:?} with an extension block"),
    }
}

fn fees(rates: &[u64]) -> Vec<TemplateTransaction> {
    rates.iter().zip(0..).map(|(rate, number)| spending(number, &[], rate * 500_000, 500_000)).collect()
}

#[test]
fn the_cheapest_go_first_wherever_they_are_and_the_last_transaction_stays() {
    let template = template(fees(&[5, 1, 7, 3, 2, 6, 4]), &[]);
    assert_eq!(left_out(&template, 0), [0; 0], "nothing is left out without need");
    assert_eq!(left_out(&template, 1000), [1]);
    assert_eq!(left_out(&template, 501_000), [1, 4]);
    assert_eq!(left_out(&template, 3_400_000), [0, 1, 2, 3, 4, 5, 6]);
    assert!(Arc::ptr_eq(&template.keeping(&Selection::Without([].into())), &template));
}

#[test]
fn peg_ins_stay_with_their_ancestors_however_little_they_pay() {
    let grandparent = spending(0, &[], 0, 500_000);
    let parent = spending(1, &[grandparent.txid], 0, 500_000);
    let dear = spending(2, &[], 9_000_000, 500_000);
    let peg_in = spending(3, &[parent.txid], 0, 500_000);
    let child = spending(4, &[parent.txid], 10, 500_000);
    let txid = peg_in.txid;
    let template = template(vec![grandparent, parent, dear, peg_in, child], &[txid]);
    let own = hogex(&[txid]).weight;
    assert_eq!(template.pinned().unwrap().weight, 1_500_000 + own);
    assert_eq!(left_out(&template, 1000), [4]);
    assert_eq!(left_out(&template, 501_000), [2, 4]);
    let left = template.room().without(template.pinned().unwrap());
    assert_eq!(template.fitting(left), Ok(Selection::Without([2, 4].into())), "to the last weight unit");
    let needed = Room { weight: left.weight + 1, ..left };
    let error = template.fitting(needed).unwrap_err();
    assert_eq!(error, NoRoom { needed, left, weight_max: BLOCK_WEIGHT_MAX });
    let shown = error.to_string();
    for part in [needed.weight, left.weight, BLOCK_WEIGHT_MAX - needed.weight].map(|number| number.to_string()) {
        assert!(shown.contains(&part), "{shown}");
    }
    let needed = Room { sigops: left.sigops + 1, weight: 0 };
    assert_eq!(template.fitting(needed), Err(NoRoom { needed, left, weight_max: BLOCK_WEIGHT_MAX }));
}

#[test]
fn a_child_pays_for_its_parents_and_goes_with_the_cheap_ones() {
    // A cheap parent with a dear child, a dear parent with a cheap child, and others: in the order of a daemon.
    let saved = spending(0, &[], 500, 500_000);
    let saving = spending(1, &[saved.txid], 900_000_000, 500_000);
    let dear = spending(2, &[], 400_000_000, 500_000);
    let between = spending(3, &[], 300_000_000, 500_000);
    let both = spending(4, &[saving.txid, dear.txid], 2000, 500_000);
    let cheap = spending(5, &[dear.txid], 1000, 500_000);
    let template = template(vec![saved, saving, dear, between, both, cheap], &[]);
    assert_eq!(left_out(&template, 1000), [5]);
    assert_eq!(left_out(&template, 501_000), [4, 5]);
    assert_eq!(left_out(&template, 1_001_000), [3, 4, 5]);
    assert_eq!(left_out(&template, 1_501_000), [2, 3, 4, 5]);
    // Parent and child are left out together, and the parent comes back since there is room for it.
    assert_eq!(left_out(&template, 2_001_000), [1, 2, 3, 4, 5]);
}

#[test]
fn what_was_left_out_before_a_large_one_comes_back_beside_it() {
    let small = [10, 20, 30].map(|fee| spending(u32::try_from(fee).unwrap(), &[], fee, 400)).to_vec();
    let large = [spending(1, &[], 1_000_000, 400_000), spending(2, &[], 900_000_000, 3_400_000)];
    let template = template([&small[..], &large].concat(), &[]);
    assert_eq!(left_out(&template, 5000), [3]);
}

#[test]
fn signature_operations_count_as_well() {
    let transactions =
        (0..10).map(|number| TemplateTransaction { sigops: 8000, ..spending(number, &[], u64::from(number), 400) });
    let template = template(transactions.collect(), &[]);
    let coinbase = Room { weight: 4000, sigops: 8001 };
    assert_eq!(template.fitting(coinbase), Ok(Selection::Without([0, 1].into())));
}

#[test]
fn tips_that_pay_a_few_more_leave_out_the_same() {
    let transactions = (0..4400).map(|number| spending(number, &[], u64::from(number), 900)).collect();
    let template = template(transactions, &[]);
    let kept = |weight| template.fitting(Room { weight, sigops: 100 }).unwrap();
    assert_eq!(kept(50_001), kept(51_000));
    assert_ne!(kept(51_001), kept(51_000));
}

#[test]
fn what_is_kept_of_a_template_loses_nothing_more() {
    let template = template(fees(&[5, 1, 7, 3, 2, 6, 4]), &[]);
    let coinbase = coinbase_for(&template, 501_000);
    let kept = template.keeping(&template.fitting(coinbase).unwrap());
    assert_eq!(kept.transactions.len(), 6);
    assert_eq!(kept.suffix, template.suffix);
    assert_eq!(kept.fitting(coinbase), Ok(Selection::Without([].into())));
    assert!(kept.fitting(coinbase_for(&template, 1_501_000)).is_err());
}

#[test]
fn a_long_chain_and_a_wide_family_are_ordered_at_once() {
    let mut chain = vec![spending(0, &[], 1, 240)];
    for number in 1..16_000 {
        let parent = chain[chain.len() - 1].txid;
        // Each pays more than all before it: one package, joined sixteen thousand times.
        chain.push(spending(number, &[parent], 2 * u64::from(number), 240));
    }
    let started = std::time::Instant::now();
    let template = template(chain, &[]);
    let left_out = left_out(&template, 1_000_000);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    // The first ones come back.
    assert!(left_out.iter().copied().eq(left_out[0]..16_000));
}

#[test]
fn a_template_that_does_not_fit_its_extension_block_is_refused_with_the_reason() {
    let (parent, stranger) = (spending(0, &[], 1, 400), spending(1, &[], 1, 400));
    let child = spending(2, &[parent.txid], 1, 400);
    let refused = |change: &dyn Fn(&mut TemplateParts)| {
        let mut parts = with_extension(vec![parent.clone(), child.clone()], &[child.txid]);
        change(&mut parts);
        match Template::new(parts, RULES).unwrap_err() {
            TemplateError::Extension(error) => error,
            other => panic!("{other}"),
        }
    };
    let txid = hogex(&[child.txid]).txid;
    assert_eq!(refused(&|parts| parts.transactions.clear()), ExtensionError::NoTransactions);
    assert!(matches!(refused(&|parts| drop(parts.transactions.pop())), ExtensionError::NotHogEx(..)));
    assert!(matches!(refused(&|parts| parts.transactions.swap(0, 1)), ExtensionError::Order { .. }));
    let unknown = refused(&|parts| parts.transactions[2] = hogex(&[child.txid, stranger.txid]));
    assert!(matches!(unknown, ExtensionError::UnknownPegIn { output, .. } if output.txid == stranger.txid));
    // Cut anywhere before its end, or with a first output that is no HogAddr.
    let raw = hogex(&[child.txid]).raw;
    for length in 0..raw.len() - 5 {
        let error = refused(&|parts| parts.transactions[2].raw = raw.slice(..length));
        assert!(error.to_string().contains(&txid.to_string()), "{length}: {error}");
    }
    let at = raw.len() - 5 - 34;
    let other = [&raw[..at], &[0x59], &raw[at + 1..]].concat();
    let error = refused(&|parts| parts.transactions[2].raw = Bytes::from(other.clone()));
    assert_eq!(error, ExtensionError::NotHogEx(txid, "its first output is no HogAddr"));
    // Without an extension block nothing is read.
    let parts = TemplateParts { suffix: Vec::new(), transactions: vec![child.clone(), parent.clone()], ..parts() };
    assert!(Template::new(parts, RULES).is_ok());
}

/// A template of transactions that spend each other's outputs at random, about as heavy as a block.
fn any_template() -> impl Strategy<Value = (Arc<Template>, Vec<Txid>)> {
    let one = (prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0..100_000_u64, 1..100_u64, any::<u8>());
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let sum: u64 = all.iter().map(|one| one.2).sum::<u64>().max(1);
        let (mut transactions, mut peg_ins) = (Vec::<TemplateTransaction>::new(), Vec::new());
        for ((parents, fee, weight, kind), number) in all.iter().zip(0..) {
            let parents: Vec<Txid> = match transactions.len() {
                0 => Vec::new(),
                count => parents.iter().map(|parent| transactions[parent.index(count)].txid).collect(),
            };
            let mut one = spending(number, &parents, *fee, weight * 3_980_000 / sum);
            one.sigops = u64::from(*kind) * 16;
            if kind % 8 == 0 {
                peg_ins.push(one.txid);
            }
            transactions.push(one);
        }
        (template(transactions, &peg_ins), peg_ins)
    })
}

proptest! {
    #[test]
    fn blocks_fit_keep_parents_and_peg_ins_and_lose_no_more_than_they_must(
        (full, peg_ins) in any_template(), part in 0..1000_u64, sigops in 0..80_000_u64,
    ) {
        let coinbase = Room { weight: full.room().weight * part * part / 1_000_000, sigops: sigops * part / 1000 };
        let pinned = full.pinned().unwrap();
        let kept = match full.fitting(coinbase) {
            Ok(kept) => kept,
            Err(error) => {
                prop_assert!(!coinbase.fits(full.room().without(pinned)), "{error}");
                return Ok(());
            }
        };
        prop_assert!(coinbase.fits(full.room().without(pinned)));
        let block = full.keeping(&kept);
        let index_of: HashMap<Txid, usize> =
            full.transactions.iter().enumerate().map(|(index, one)| (one.txid, index)).collect();
        let parents = |index: usize| -> Vec<usize> {
            let raw = &full.transactions[index].raw;
            // HogEx is no transaction that the package can read.
            let read = bitcoin::consensus::deserialize::<bitcoin::Transaction>(raw);
            let inputs = read.map(|one| one.input).unwrap_or_default();
            inputs.iter().filter_map(|input| index_of.get(&input.previous_output.txid).copied()).collect()
        };
        let count = full.transactions.len();
        prop_assert!(kept.has(count - 1), "HogEx stays");
        prop_assert_eq!(&block.transactions.last().unwrap().raw, &full.transactions[count - 1].raw);
        for peg_in in &peg_ins {
            prop_assert!(kept.has(index_of[peg_in]));
        }
        // The same transactions in the same order.
        let expected = (0..count).filter(|index| kept.has(*index)).map(|index| full.transactions[index].txid);
        let expected: Vec<Txid> = expected.collect();
        let made: Vec<Txid> = block.transactions.iter().map(|one| one.txid).collect();
        prop_assert_eq!(made, expected);
        for index in (0..count).filter(|index| kept.has(*index)) {
            prop_assert!(parents(index).into_iter().all(|parent| kept.has(parent)), "{} has its parents", index);
        }
        let used = block.used();
        prop_assert!(used.and(coinbase).fits(full.room()));
        let lost: u64 = full.left_out(&kept).map(|one| one.fee).sum();
        prop_assert_eq!(block.coinbase_value + lost, full.coinbase_value);
        let rounded = coinbase.weight.next_multiple_of(WEIGHT_STEP).min(full.room().weight - pinned.weight);
        let room = full.room().without(Room { weight: rounded, ..coinbase });
        for index in (0..count).filter(|index| !kept.has(*index)) {
            let fits = used.and(Room::of(&full.transactions[index])).fits(room);
            let could_come_back = fits && parents(index).into_iter().all(|parent| kept.has(parent));
            prop_assert!(!could_come_back, "{} was left out without need", index);
        }
        // Branches and commitments are those of a template that never had more.
        let TemplateParts { rules, .. } = parts();
        let transactions = block.transactions.to_vec();
        let alone = TemplateParts { transactions, rules, ..with_extension(Vec::new(), &[]) };
        let alone = Template::new(alone, RULES).unwrap();
        prop_assert_eq!((&block.branch, block.witness_root), (&alone.branch, alone.witness_root));
        prop_assert_eq!(&block.witness_branch, &alone.witness_branch);
    }

    #[test]
    fn malformed_transactions_are_refused_and_never_panic(raw in prop::collection::vec(any::<u8>(), 0..100)) {
        let one = spending(0, &[], 1, 400);
        let broken = TemplateTransaction { raw: raw.into(), txid: Txid::from_byte_array([3; 32]), ..one };
        let _ = Template::new(with_extension(vec![broken.clone()], &[]), RULES);
        let mut parts = with_extension(Vec::new(), &[]);
        parts.transactions = vec![broken];
        prop_assert!(Template::new(parts, RULES).is_err());
    }
}
