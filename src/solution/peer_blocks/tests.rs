//! A peer's block is rebuilt byte by byte where possible, and never wrongly.

use super::*;
use crate::runtime::clock::unix_second;
use crate::template::testing::{SUFFIX, spending, with_extension};
use crate::template::{BLOCK_WEIGHT_MAX, Selection, TemplateParts, TemplateSender};
use crate::work::{Config, Payout, Ticket, WorkParts, WorkSet};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use proptest::prelude::*;
use sharechain::chain::Sharechain;
use sharechain::coin::{Network, from_toml};
use std::collections::HashMap;
use stratum::mining::job::LastRoot;
use stratum::mining::submission::Submission;
use stratum::{Epochs, Work};

// A pubkey hash, which every share version can hold.
const MINER: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";

fn network(version: u64) -> &'static Network {
    let text = format!(
        "BASE = \"bitcoin_regtest\"\nNAME = \"solved\"\nSTART_VERSION = {version}\nMINIMUM_PROTOCOL_VERSION = 1400\n"
    );
    Box::leak(Box::new(from_toml(&text).unwrap()))
}

fn transaction(number: u32) -> TemplateTransaction {
    let input = TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([9; 32]), number),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[7; 64]]),
    };
    let output = TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    let transaction =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] };
    TemplateTransaction {
        txid: transaction.compute_txid(),
        wtxid: transaction.compute_wtxid(),
        fee: 100,
        weight: transaction.weight().to_wu(),
        sigops: 1,
        raw: serialize(&transaction).into(),
    }
}

fn template(count: u32, change: impl FnOnce(&mut TemplateParts)) -> Arc<Template> {
    let mut parts = TemplateParts {
        version: 0x2000_0000,
        previous_block: BlockHash::from_byte_array([7; 32]),
        height: 101,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        time: unix_second(),
        time_min: 0,
        coinbase_value: 5_000_000_000,
        coinbase_flags: Vec::new(),
        transactions: (0..count).map(transaction).collect(),
        weight_max: BLOCK_WEIGHT_MAX,
        rules: vec!["csv".into(), "!segwit".into(), "taproot".into()],
        default_witness_commitment: None,
        suffix: Vec::new(),
    };
    change(&mut parts);
    Arc::new(Template::new(parts, &["csv", "segwit", "taproot"]).unwrap())
}

/// Returns a share of another node, made from `template` on top of `chain`, that solves its block; and the block.
fn found(network: &'static Network, chain: &mut Sharechain, template: &Arc<Template>) -> (SolvedShare, Vec<u8>) {
    let now = f64::from(unix_second());
    let config = Config {
        network,
        default_payout: Payout::to_address(MINER, network).unwrap(),
        fee_percent: 0.0,
        donation_percent: 1.0,
        coinbase_texts: Vec::new(),
        merged_pause: crate::merged::PAUSE,
        clock: unix_second,
    };
    chain.think(now);
    let parts = WorkParts::new(template, &chain.tip(), Arc::default()).unwrap();
    let work = WorkSet::new(&Arc::new(config), parts, Arc::default(), Epochs::default(), None).unwrap();
    let offer = work.offer(&Payout::to_address(MINER, network).unwrap(), 0, 0).unwrap();
    let ticket: &Ticket = offer.job.ticket();
    let draft = ticket.draft().unwrap();
    let extranonces = [1, 2, 3, 4, 5, 6, 7, 8];
    let (share, header) = (0..)
        .find_map(|nonce| {
            let submission = Submission { extranonce2: [5, 6, 7, 8], time: template.time, nonce, version_bits: None };
            let solved = submission.solve(&offer.job, [1, 2, 3, 4], 0, unix_second(), &mut LastRoot::default()).ok()?;
            let is_block = template.is_solved_by(&solved.pow_hash);
            let share = ticket.share(&draft, &solved.header, extranonces).ok().filter(|_| is_block)?;
            Some((Arc::new(share), solved.header))
        })
        .unwrap();
    let block = ticket.block(&draft, &header, extranonces);
    // State after the check of a peer's share.
    chain.add(share.clone(), Some("10.0.0.1:9333".parse().unwrap()), now);
    chain.think(now);
    assert!(chain.verified().contains(&share.hash()));
    let solution = chain.solution_of(share.hash()).unwrap().unwrap();
    let solved = SolvedShare {
        source: chain.known(share.hash()).unwrap().source,
        share,
        coinbase: solution.coinbase,
        transactions: solution.transactions,
        is_own: false,
    };
    (solved, block)
}

fn recent(templates: &[&Arc<Template>]) -> Arc<RecentTemplates> {
    let sender = TemplateSender::default();
    templates.iter().for_each(|template| sender.send(Template::clone(template)));
    sender.recent().borrow().clone()
}

fn nothing() -> TransactionLookup {
    Arc::new(|_| None)
}

#[test]
fn a_peers_block_from_a_template_that_is_held_here_is_made_again_to_the_byte() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    for count in [0, 1, 2, 3, 7, 8, 100] {
        let theirs = template(count, |_| {});
        let (solved, block) = found(network, &mut chain, &theirs);
        let other = template(count + 5, |parts| parts.transactions.reverse());
        let made = block_of(&recent(&[&theirs, &other]), &solved, &nothing()).unwrap();
        assert_eq!(made.bytes, block, "{count} transactions");
        assert_eq!((made.height, made.previous_block), (101, theirs.previous_block));
        assert_eq!(made.hash.to_byte_array(), solved.share.hash().0);
    }
}

#[test]
fn a_block_of_a_templates_first_part_is_made_too() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    let full = template(40, |_| {});
    for kept in [0, 1, 17, 31, 32, 39] {
        let (solved, block) = found(network, &mut chain, &full.keeping(&Selection::First(kept)));
        assert_eq!(block_of(&recent(&[&full]), &solved, &nothing()).unwrap().bytes, block, "{kept} kept");
    }
}

#[test]
fn what_cannot_be_a_block_is_refused_with_its_reason() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    let theirs = template(12, |_| {});
    let (solved, _) = found(network, &mut chain, &theirs);
    let reason = |ours: &Arc<Template>| block_of(&recent(&[ours]), &solved, &nothing()).unwrap_err();
    assert_eq!(block_of(&recent(&[]), &solved, &nothing()), Err(NoBlock::UnknownParent));
    let elsewhere = template(12, |parts| parts.previous_block = BlockHash::from_byte_array([8; 32]));
    assert_eq!(reason(&elsewhere), NoBlock::UnknownParent);
    let harder = template(12, |parts| parts.bits = CompactTarget::from_consensus(0x1d00_ffff));
    assert_eq!(reason(&harder), NoBlock::NotHardEnough);
    assert_eq!(reason(&template(11, |_| {})), NoBlock::OtherTransactions);
    assert_eq!(reason(&template(12, |parts| parts.transactions.swap(3, 4))), NoBlock::OtherTransactions);
    let witnesses = template(12, |parts| parts.transactions[2].wtxid = bitcoin::Wtxid::from_byte_array([1; 32]));
    assert_eq!(reason(&witnesses), NoBlock::OtherWitnesses);
}

/// A template with an extension block; its transactions weigh `weight` each, and the middle one is a peg-in.
fn extended(count: u32, weight: u64) -> Arc<Template> {
    let transactions: Vec<_> = (0..count).map(|number| spending(number, &[], u64::from(number), weight)).collect();
    let peg_in = transactions[transactions.len() / 2].txid;
    let TemplateParts { transactions, suffix, .. } = with_extension(transactions, &[peg_in]);
    template(0, |parts| {
        parts.transactions = transactions;
        parts.suffix = suffix;
    })
}

#[test]
fn a_peers_block_with_an_extension_block_is_made_again_from_the_same_template() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    // With room for all of them, and without.
    for (count, weight, kept) in [(9, 400, 10), (40, BLOCK_WEIGHT_MAX / 40 - 20, 40)] {
        let full = extended(count, weight);
        let (solved, block) = found(network, &mut chain, &full);
        let made = block_of(&recent(&[&full]), &solved, &nothing()).unwrap();
        assert_eq!(made.bytes, block);
        let last = &full.transactions[count as usize].raw;
        assert!(made.bytes.ends_with(&[last, &SUFFIX[..]].concat()));
        let others = full.transactions.iter().filter(|one| contains(&block, &one.raw)).count();
        assert_eq!(others, kept, "of {count} and the last one");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn an_extension_block_goes_with_the_transaction_that_commits_to_it_only() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    let full = extended(9, 400);
    let (solved, _) = found(network, &mut chain, &full);
    assert_eq!(block_of(&recent(&[&extended(10, 400)]), &solved, &nothing()), Err(NoBlock::OtherTransactions));
    // The same transactions without an extension block are no block here.
    let plain = template(0, |parts| parts.transactions = full.transactions[..5].to_vec());
    let (solved, _) = found(network, &mut chain, &plain);
    assert_eq!(block_of(&recent(&[&full]), &solved, &nothing()), Err(NoBlock::MissingExtension));
    // A block that lists what it has, in an order that only its finder knows.
    let old = self::network(33);
    let mut chain = Sharechain::new(old);
    let (solved, block) = found(old, &mut chain, &full);
    assert!(solved.transactions.is_some());
    assert_eq!(block_of(&recent(&[&full]), &solved, &nothing()).unwrap().bytes, block);
}

#[test]
fn a_block_that_lists_its_transactions_is_made_of_those_known_from_anywhere() {
    for version in [17, 33] {
        let network = network(version);
        let mut chain = Sharechain::new(network);
        // The second share refers to transactions that the first one lists.
        for count in [6, 10] {
            let theirs = template(count, |_| {});
            let (solved, block) = found(network, &mut chain, &theirs);
            assert_eq!(solved.transactions.as_ref().map(|listed| listed.len()), Some(count as usize));
            let ours = template(4, |_| {});
            let missing = NoBlock::MissingTransactions(count as usize - 4, count as usize);
            assert_eq!(block_of(&recent(&[&ours]), &solved, &nothing()), Err(missing));
            let of_peers: HashMap<Digest, Bytes> =
                (0..count).map(transaction).map(|one| (one.wtxid.to_byte_array(), one.raw)).collect();
            let known: TransactionLookup = Arc::new(move |wtxid| of_peers.get(wtxid).cloned());
            let made = block_of(&recent(&[&ours]), &solved, &known).unwrap();
            assert_eq!(made.bytes, block, "version {version}");
        }
    }
}

#[tokio::test]
async fn peers_blocks_go_the_way_of_our_own_and_our_own_do_not_go_twice() {
    let network = network(35);
    let mut chain = Sharechain::new(network);
    let theirs = template(3, |_| {});
    let (solved, block) = found(network, &mut chain, &theirs);
    let (solved_sender, solved_receiver) = mpsc::channel(4);
    let (_templates, templates) = watch::channel(recent(&[&theirs]));
    let inputs = Inputs { templates, known: nothing(), sightings: mpsc::channel(1).0 };
    let (blocks, mut made) = mpsc::channel(4);
    let task = tokio::spawn(run(solved_receiver, inputs, blocks));
    solved_sender.send(SolvedShare { is_own: true, ..solved.clone() }).await.unwrap();
    solved_sender.send(solved).await.unwrap();
    drop(solved_sender);
    task.await.unwrap();
    assert_eq!(made.recv().await.unwrap().bytes, block);
    assert_eq!(made.recv().await, None);
}

proptest! {
    #[test]
    fn a_branch_tells_how_many_leaves_it_is_of(count in 0_usize..300, more in 0_usize..300) {
        let leaves: Vec<Digest> = (0..count + more).map(|number| {
            let mut leaf = [3; 32];
            leaf[..8].copy_from_slice(&(number as u64).to_le_bytes());
            leaf
        }).collect();
        let branch = merkle::branch_of_first(&leaves[..count]);
        prop_assert_eq!(first_with_branch(&leaves, &branch), Some(count));
        if let Some(last) = branch.len().checked_sub(1) {
            let mut other = branch;
            other[last][0] ^= 1;
            prop_assert_eq!(first_with_branch(&leaves, &other), None);
        }
    }
}
