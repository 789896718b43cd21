//! Tests of work sets: jobs, shares and blocks that are made of them.

use super::*;
use crate::runtime::clock::unix_second;
use crate::template::testing::{SUFFIX, spending, with_extension};
use crate::template::tests::{RULES, parts};
use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts, TemplateTransaction};
use bitcoin::consensus::deserialize;
use bitcoin::{Block as BitcoinBlock, Transaction};
use ruint::aliases::U320;
use sharechain::chain::Sharechain;
use sharechain::coin::{BITCOIN_REGTEST, Network, Parent, Pow};
use sharechain::merged::{MergedBlock, MergedTarget};
use sharechain::share::{Draft, Share, Target, Weights};
use stratum::mining::job::LastRoot;
use stratum::mining::submission::Submission;
use stratum::{Difficulty, Work};

const NODE: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";
const MINER: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

fn payout(address: &str) -> Payout {
    Payout::to_address(address, &BITCOIN_REGTEST).unwrap()
}

fn config(fee_percent: f64) -> Arc<Config> {
    Arc::new(Config {
        network: &BITCOIN_REGTEST,
        default_payout: payout(NODE),
        fee_percent,
        donation_percent: 0.0,
        coinbase_texts: vec!["hello".to_owned()],
        merged_pause: crate::merged::PAUSE,
        clock: unix_second,
    })
}

/// A template at `height` with one segwit transaction: any with a witness will do.
fn template(height: u32) -> Arc<Template> {
    let raw = concat!(
        "01000000000101db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b",
        "000000001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fe",
        "a7ad0402e8bd8ad6d77c88ac02473044022047ac8e878352d3ebbde1c94ce3a10d057c24175747116f8288e5d794d12d482f0220",
        "217f36a485cae903c713331d877c1f64677e3622ad4010726870540656fe9dcb012103ad1d8e89212f0b92c74d23bb710c00662a",
        "d1470198ac48c43f7d6f93a2a2687392040000"
    );
    let raw = hex::decode(raw).unwrap();
    let transaction: Transaction = deserialize(&raw).unwrap();
    let transactions = vec![TemplateTransaction {
        txid: transaction.compute_txid(),
        wtxid: transaction.compute_wtxid(),
        fee: 1000,
        weight: transaction.weight().to_wu(),
        sigops: 4,
        raw: Bytes::from(raw),
    }];
    let parts = TemplateParts { height, time: unix_second(), transactions, ..parts() };
    Template::new(parts, RULES).unwrap().into()
}

fn work_on(chain: &mut Sharechain, template: &Arc<Template>, config: &Arc<Config>) -> WorkSet {
    chain.think(f64::from(unix_second()));
    let parts = WorkParts::new(template, &chain.tip(), Arc::default()).unwrap();
    WorkSet::new(config, parts, Arc::default(), Epochs::default(), None).unwrap()
}

fn fresh(fee_percent: f64) -> WorkSet {
    work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template(101), &config(fee_percent))
}

/// Solves a job; on regtest every other nonce does.
fn solve(offer: &Offer<Ticket>) -> (Draft, [u8; 80], Share) {
    let ticket = offer.job.ticket();
    let draft = ticket.draft().unwrap();
    for nonce in 0.. {
        let submission =
            Submission { extranonce2: [5, 6, 7, 8], time: ticket.template().time, nonce, version_bits: None };
        let solved = submission.solve(&offer.job, [1, 2, 3, 4], 0, unix_second(), &mut LastRoot::default()).unwrap();
        if ticket.reached(&solved.pow_hash).contains(&Goal::Share) {
            let share = ticket.share(&draft, &solved.header, [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
            assert_eq!(share.hash().0, solved.hash, "miner and share hash the same header");
            return (draft, solved.header, share);
        }
    }
    unreachable!("some nonce solves it")
}

#[test]
fn the_block_is_one_that_bitcoin_would_take() {
    for height in [1, 16, 17, 101, 850_000] {
        let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template(height), &config(0.0));
        let offer = work.offer(&payout(MINER), 0, 0).unwrap();
        let (draft, header, _) = solve(&offer);
        let bytes = offer.job.ticket().block(&draft, &header, [1, 2, 3, 4, 5, 6, 7, 8]);
        let block: BitcoinBlock = deserialize(&bytes).unwrap();
        assert!(block.check_merkle_root());
        assert!(block.check_witness_commitment());
        assert_eq!(block.txdata.len(), 2);
        let coinbase = &block.txdata[0];
        assert!(coinbase.is_coinbase());
        let script = &coinbase.input[0].script_sig;
        assert!(script.len() >= 2);
        // The package does not read the opcodes that push the first sixteen heights.
        let height_is_there = match u8::try_from(height) {
            Ok(small @ 1..=16) => script.as_bytes()[0] == 0x50 + small,
            _ => block.bip34_block_height() == Ok(u64::from(height)),
        };
        assert!(height_is_there, "{script}");
        assert!(height < 17 || coinbase.input[0].script_sig.as_bytes().ends_with(b"\x05hello"));
        let paid: u64 = coinbase.output.iter().map(|output| output.value.to_sat()).sum();
        assert_eq!(paid, parts().coinbase_value);
        assert!(coinbase.output.iter().any(|output| output.script_pubkey == payout(MINER).script));
    }
}

#[test]
fn our_own_shares_fit_the_chain_that_checks_everyones() {
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    let miners = [MINER, NODE, "2N3oefVeg6stiTb5Kh3ozCSkaqmx91FDbsm"];
    for round in 0..12 {
        let work = work_on(&mut chain, &template(101), &config(0.0));
        let (_, _, share) = solve(&work.offer(&payout(miners[round % 3]), 0, 0).unwrap());
        let (hash, height) = (share.hash(), share.absheight());
        assert_eq!(height, u32::try_from(round).unwrap() + 1);
        chain.add_own(Arc::new(share), false, f64::from(unix_second()));
        chain.think(f64::from(unix_second()));
        assert!(chain.verified().contains(&hash), "share {round} was refused: {:?}", chain.poll_event());
        assert_eq!(chain.choice().best, Some(hash));
    }
    let work = work_on(&mut chain, &template(101), &config(0.0));
    let finder = Payee::from_address(MINER, &share_rules(&BITCOIN_REGTEST)).unwrap();
    let payees = work.payees(&finder);
    assert!(miners.iter().all(|miner| payees.iter().any(|(payee, value)| payee == miner && *value > 0)), "{payees:?}");
}

#[test]
fn connections_with_the_same_payout_share_a_job_and_generations_and_wishes_do_not() {
    let work = fresh(0.0);
    let first = work.offer(&payout(MINER), 0, 0).unwrap();
    assert!(Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 0, 1).unwrap().job));
    assert!(!Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 1, 0).unwrap().job));
    let wish = Payout { share_difficulty: Difficulty::new(1e-9), ..payout(MINER) };
    assert!(!Arc::ptr_eq(&first.job, &work.offer(&wish, 0, 0).unwrap().job));
    assert_ne!(first.job.id(), work.offer(&payout(NODE), 0, 0).unwrap().job.id());
}

#[test]
fn twenty_thousand_wishes_make_some_dozens_of_jobs_and_none_is_harder_than_wished() {
    let work = fresh(0.0);
    let mut made = std::collections::HashSet::new();
    for number in 0..20_000 {
        // From 1 to a million.
        let wish = Difficulty::new(f64::powf(1e6, f64::from(number) / 20_000.0)).unwrap();
        let wanted = jobs::rounded(Some(wish)).unwrap();
        assert!(wanted <= wish && wanted.get() > wish.get() * 0.84);
        let payout = Payout { share_difficulty: Some(wish), ..payout(MINER) };
        made.insert(work.job(&payout, 0).unwrap().job.id());
        made.insert(work.offer(&payout, 0, 0).unwrap().job.id());
    }
    let (announced, polled) = (work.jobs.size(), work.polled.size());
    assert_eq!((announced.0, polled.0, made.len()), (80, 80, 160), "four for each power of two");
    assert!(polled.1 < announced.1 && announced.1 < 400_000, "{polled:?} and {announced:?} bytes");
}

#[test]
fn polling_miners_with_the_same_payout_share_a_job_that_is_not_rendered() {
    let work = fresh(2.5);
    let first = work.job(&payout(MINER), u32::MAX).unwrap();
    assert!(Arc::ptr_eq(&first.job, &work.job(&payout(MINER), u32::MAX).unwrap().job));
    assert!(!first.is_fee && first.job.ticket().payout() == &payout(MINER));
    let fee = work.job(&payout(MINER), 0).unwrap();
    assert!(fee.is_fee && fee.job.ticket().payout() == &payout(NODE));
    assert_eq!(work.jobs.size(), (0, 0), "no line was rendered");
}

#[test]
fn a_job_made_again_has_other_coinbase_bytes() {
    let work = fresh(0.0);
    let heads: Vec<Vec<u8>> = (0..3)
        .map(|generation| {
            work.offer(&payout(MINER), generation, 0).unwrap().job.ticket().draft().unwrap().coinbase_head()
        })
        .collect();
    assert!(heads[0] != heads[1] && heads[1] != heads[2]);
}

#[test]
fn the_fee_takes_its_percentage_of_jobs() {
    let work = fresh(2.5);
    let mut random = fastrand::Rng::with_seed(1);
    let taken = (0..100_000).filter(|_| work.goes_to_operator(random.u32(..))).count();
    assert!((2300..2700).contains(&taken), "{taken}");
    assert_eq!(work.offer(&payout(MINER), 0, 0).unwrap().job.ticket().payout(), &payout(NODE));
    assert!(!fresh(0.0).goes_to_operator(0));
    assert!(fresh(100.0).goes_to_operator(u32::MAX));
}

#[test]
fn a_large_coinbase_pushes_transactions_out_and_their_fees_with_them() {
    let weighing = |weight| TemplateTransaction { weight, ..template(101).transactions[0].clone() };
    let transactions = vec![weighing(BLOCK_WEIGHT_MAX - 8000), weighing(7000)];
    let parts = TemplateParts { time: unix_second(), transactions, ..parts() };
    let full = Arc::new(Template::new(parts, RULES).unwrap());
    let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &full, &config(0.0));
    assert_eq!(work.template().transactions.len(), 1);
    assert_eq!(work.template().coinbase_value, full.coinbase_value - 1000);
}

/// A full template with an extension block, a peg-in and its parent, which pay the least.
fn extended() -> Arc<Template> {
    let parent = spending(0, &[], 0, 1_000_000);
    let peg_in = spending(1, &[parent.txid], 0, 1_000_000);
    let dear = spending(2, &[], 2_000_000, 1_000_000);
    let cheap = spending(3, &[], 1_000_000, BLOCK_WEIGHT_MAX - 3_001_500);
    let peg_ins = [peg_in.txid];
    let parts = with_extension(vec![parent, peg_in, cheap, dear], &peg_ins);
    Template::new(TemplateParts { time: unix_second(), ..parts }, RULES).unwrap().into()
}

#[test]
fn beside_an_extension_block_a_large_coinbase_pushes_the_cheapest_out_and_not_what_the_block_needs() {
    let full = extended();
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    let work = work_on(&mut chain, &full, &config(0.0));
    assert_eq!(work.template().transactions.len(), 4);
    assert_eq!(work.template().coinbase_value, full.coinbase_value - 1_000_000);
    let offer = work.offer(&payout(MINER), 0, 0).unwrap();
    let (draft, header, share) = solve(&offer);
    assert_eq!(share.data().subsidy, work.template().coinbase_value);
    let bytes = offer.job.ticket().block(&draft, &header, [1, 2, 3, 4, 5, 6, 7, 8]);
    let others: Vec<u8> = [0, 1, 3, 4].iter().flat_map(|index| full.transactions[*index].raw.to_vec()).collect();
    assert!(bytes.ends_with(&[&others[..], &SUFFIX].concat()));
    assert_eq!(bytes[80], 5);
    // The same choice is not made and hashed again for each tip.
    let parts = WorkParts::new(&full, &chain.tip(), Arc::default()).unwrap();
    let next = WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), Some(&work)).unwrap();
    assert!(Arc::ptr_eq(&next.common.template, &work.common.template));
}

#[test]
fn without_room_beside_an_extension_block_there_is_no_work_and_the_reason_has_the_numbers() {
    let peg_in = spending(1, &[], 5_000_000, BLOCK_WEIGHT_MAX - 2000);
    let peg_ins = [peg_in.txid];
    let full = Arc::new(Template::new(with_extension(vec![peg_in], &peg_ins), RULES).unwrap());
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    chain.think(f64::from(unix_second()));
    let parts = WorkParts::new(&full, &chain.tip(), Arc::default()).unwrap();
    let error = WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None).unwrap_err();
    let WorkError::Room(reason) = &error else { panic!("{error}") };
    assert!(reason.needed.weight > reason.left.weight && reason.left.weight < 2000, "{error}");
    assert!(error.to_string().contains("-blockmaxweight=399"), "{error}");
}

#[test]
fn the_room_that_the_doctor_expects_is_at_least_what_work_needs() {
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    chain.think(f64::from(unix_second()));
    let parts = WorkParts::new(&template(101), &chain.tip(), Arc::default()).unwrap();
    for count in [0, 1, 300] {
        let mut parts = parts.clone();
        let payees = (0..count).map(|number: u32| {
            let hash: [u8; 20] = bitcoin::hashes::hash160::Hash::hash(&number.to_le_bytes()).to_byte_array();
            (Payee::from_pubkey_hash(&hash, &share_rules(&BITCOIN_REGTEST)), U320::from(1))
        });
        let weights = Weights { by_payee: payees.collect(), total: U320::from(count), donation: U320::ZERO };
        parts.next_share.weights = Arc::new(weights);
        let work = WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None).unwrap();
        let offer = work.offer(&payout(MINER), 0, 0).unwrap();
        let coinbase = offer.job.ticket().draft().unwrap().coinbase_bytes(0).len() as u64;
        let expected = room::expected(std::iter::repeat_n(25, count as usize + 1)).weight;
        assert!(
            (4 * coinbase..4 * coinbase + 900).contains(&expected),
            "{count}: {coinbase} bytes, {expected} expected"
        );
    }
}

#[test]
fn what_shares_cannot_pay_is_refused_with_the_reason() {
    let refused = |address: &str| Payout::to_address(address, &BITCOIN_REGTEST).unwrap_err().to_string();
    let zeros = {
        let mut program = [7; 32];
        program[0] = 0;
        let hrp = bech32::Hrp::parse("bcrt").unwrap();
        bech32::segwit::encode_v0(hrp, &program).unwrap()
    };
    assert!(refused(&zeros).contains("zeros"), "{}", refused(&zeros));
    let nibble = {
        let mut program = [7; 32];
        program[0] = 6;
        bech32::segwit::encode_v0(bech32::Hrp::parse("bcrt").unwrap(), &program).unwrap()
    };
    assert!(refused(&nibble).contains("zeros"), "{}", refused(&nibble));
    assert!(refused("bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6").contains("taproot"));
    assert!(refused("nobody").contains("not an address"));
}

#[test]
fn a_jobs_transactions_are_listed_in_order_and_rendered_once() {
    let template = Arc::new(template(101));
    let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template, &config(0.0));
    let offer = work.offer(&payout(MINER), 0, 0).unwrap();
    let list = work.transactions(offer.job.ticket()).unwrap();
    let listed: Vec<String> = serde_json::from_slice(&list).unwrap();
    let raw: Vec<String> = template.transactions.iter().map(|transaction| hex::encode(&transaction.raw)).collect();
    assert_eq!(listed, raw);
    assert_eq!(work.transactions(offer.job.ticket()).unwrap().as_ptr(), list.as_ptr());
}

#[test]
fn one_script_is_one_payee_however_it_is_written() {
    assert_eq!(payout(&MINER.to_uppercase()).address, payout(MINER).address);
}

fn merged_block(chain_id: u32, target: MergedTarget) -> MergedBlock {
    MergedBlock {
        chain: "other".into(),
        chain_id,
        hash: [7; 32],
        target,
        previous_block: [6; 32],
        height: 1000,
        value: Some(50),
        payee: "other's address".into(),
    }
}

#[test]
fn a_merged_chains_easier_target_makes_solutions_and_its_commitment_follows_the_height() {
    let block = merged_block(98, MergedTarget::Own(Target::MAX_256));
    let merged = Arc::new(MergedWork::new(vec![block]).unwrap());
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    chain.think(f64::from(unix_second()));
    let template = template(850_000);
    let parts = WorkParts::new(&template, &chain.tip(), merged.clone()).unwrap();
    let work = WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None).unwrap();
    let offer = work.offer(&payout(MINER), 0, 0).unwrap();
    let ticket = offer.job.ticket();
    let hard = |first: u8| [[0xff; 31].as_slice(), &[first]].concat().try_into().unwrap();
    assert_eq!(ticket.reached(&hard(0xff)), [Goal::Merged(0)], "no share and no block of the parent chain");
    assert_eq!(ticket.reached(&hard(0)), [Goal::Share, Goal::Block, Goal::Merged(0)]);
    assert_eq!(offer.job.solution_target(), stratum::Target::from_le_bytes([0xff; 32]));
    let script = &ticket.draft().unwrap().info().share_data.coinbase.clone();
    assert_eq!(script[..5], [3, 0x50, 0xf8, 0x0c, 44]);
    assert_eq!(script[5..49], merged.commitment().unwrap());
    assert!(script.ends_with(b"\x05hello"));
}

#[test]
fn a_merged_chains_target_is_extra_and_the_word_p2pool_is_the_shares_own() {
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    chain.think(f64::from(unix_second()));
    let template = template(850_000);
    let mut job = |target| {
        let merged = Arc::new(MergedWork::new(vec![merged_block(98, target)]).unwrap());
        let parts = WorkParts::new(&template, &chain.tip(), merged).unwrap();
        WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None)
            .unwrap()
            .offer(&payout(MINER), 0, 0)
            .unwrap()
            .job
    };
    let share = job(MergedTarget::Share);
    let own = share.ticket().draft().unwrap().info().bits.target();
    assert_eq!(share.solution_target(), target::of_miners(own.max(template.block_target())));
    let hash: [u8; 32] = own.to_le_bytes();
    assert!(share.ticket().reached(&hash).ends_with(&[Goal::Merged(0)]), "a share is a block of it");
    let hard = Target::from_le_bytes(&[[0xff; 20].as_slice(), &[0; 12]].concat().try_into().unwrap());
    let job = job(MergedTarget::Own(hard));
    assert_eq!(job.solution_target(), share.solution_target(), "harder than the others");
    let hash = hard.to_le_bytes();
    assert_eq!(job.ticket().reached(&hash), [Goal::Share, Goal::Block, Goal::Merged(0)]);
}

#[test]
fn donations_are_right_on_average() {
    assert_eq!(donation(0.0, 0.999), 0);
    assert_eq!(donation(100.0, 0.5), 65535);
    let mut random = fastrand::Rng::with_seed(1);
    let sum: u32 = (0..10_000).map(|_| u32::from(donation(0.5, random.f64()))).sum();
    assert!((f64::from(sum) / 10_000.0 - 65535.0 * 0.005).abs() < 0.1, "{sum}");
}

#[test]
fn texts_that_do_not_fit_are_refused_by_name() {
    let long = "x".repeat(76);
    assert_eq!(check_texts(std::slice::from_ref(&long), false), Err(TextsError::TooLong(long)));
    let too_many = TextsError::TooMany { taken: 122, free: 80, has_merged: false };
    assert_eq!(check_texts(&["x".repeat(60), "y".repeat(60)], false), Err(too_many));
    assert_eq!(check_texts(&["x".repeat(75)], false), Ok(()));
}

#[test]
fn beside_merged_chains_texts_have_what_their_commitment_leaves() {
    assert_eq!(check_texts(&["x".repeat(30), "abc".to_owned()], true), Ok(()));
    let error = check_texts(&["x".repeat(30), "abcd".to_owned()], true).unwrap_err().to_string();
    assert!(error.starts_with("together they take 36 bytes of the coinbase script, of which 35 are free"), "{error}");
    assert!(error.contains("beside the commitment to the chains of --merged"), "{error}");
    // The longest height, texts that are just allowed, and the commitment keep all their bytes.
    let block = merged_block(98, MergedTarget::Own(Target::MAX_256));
    let merged = MergedWork::new(vec![block]).unwrap();
    let commitments = commitments(&merged, &["x".repeat(34)]);
    let script = coinbase_script(u32::MAX, &commitments, &[0; 15]).unwrap();
    assert_eq!(script.len(), 6 + COMMITMENT_PUSH_BYTES + 35 + 14);
    assert!(script[6 + COMMITMENT_PUSH_BYTES..].starts_with(&[&[34][..], &[b'x'; 34]].concat()));
}

#[test]
fn texts_that_pass_for_merged_chains_commitment_are_refused() {
    for text in ["fabe6d6d", "x FABE6d6D y"] {
        for has_merged in [false, true] {
            let refused = check_texts(&["hello".to_owned(), text.to_owned()], has_merged);
            assert_eq!(refused, Err(TextsError::Commitment(text.to_owned())));
        }
    }
}

#[test]
fn flags_with_a_commitment_of_others_are_left_out_beside_ours_alone() {
    let flags = [&COMMITMENT_HEAD[..], &[7; 40]].concat();
    let template = |coinbase_flags: &[u8]| -> Arc<Template> {
        let parts = TemplateParts { coinbase_flags: coinbase_flags.to_vec(), time: unix_second(), ..parts() };
        Template::new(parts, RULES).unwrap().into()
    };
    let merged = Arc::new(MergedWork::new(vec![merged_block(98, MergedTarget::Share)]).unwrap());
    let mut chain = Sharechain::new(&BITCOIN_REGTEST);
    chain.think(f64::from(unix_second()));
    let mut script = |flags: &[u8], merged: &Arc<MergedWork>| {
        let parts = WorkParts::new(&template(flags), &chain.tip(), merged.clone()).unwrap();
        WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None).unwrap().coinbase_script
    };
    let beside = script(&flags, &merged);
    assert!(beside.ends_with(b"\x05hello"), "{beside:?}");
    assert_eq!(memchr::memmem::find_iter(&beside, &COMMITMENT_HEAD).count(), 1);
    assert!(
        script(&flags, &Arc::default()).ends_with(&flags),
        "without merged chains they are the daemon's own affair"
    );
    assert!(script(&flags[1..], &merged).ends_with(&flags[1..]), "others stay");
}

#[test]
fn only_jobs_of_scrypt_chains_are_hashed_beside_the_event_loop() {
    let scrypt: &'static Network = Box::leak(Box::new(Network {
        parent: Parent { pow: Pow::Scrypt, ..BITCOIN_REGTEST.parent.clone() },
        ..BITCOIN_REGTEST.clone()
    }));
    for (network, is_costly) in [(&BITCOIN_REGTEST, false), (scrypt, true)] {
        let config = Arc::new(Config { network, ..Config::clone(&config(0.0)) });
        let work = work_on(&mut Sharechain::new(network), &template(101), &config);
        let job = work.job(&payout(MINER), 0).unwrap().job;
        assert_eq!(job.has_costly_pow(), is_costly, "{:?}", network.parent.pow);
    }
}

mod merged_entries;
