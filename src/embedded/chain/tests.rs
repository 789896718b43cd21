//! The chain without a real daemon; the verdicts on invalid blocks are in `tests/parity`.

use super::*;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::sha256d;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, block, transaction,
};

use crate::embedded::TransactionReject;
use crate::template::{Template, TemplateTransaction};

const SPACING: Duration = Duration::from_secs(10);

/// Script that commits to the witnesses under `root`, with the reserved value zero (BIP 141).
fn commitment_to(root: &[u8; 32]) -> ScriptBuf {
    let commitment = sha256d::Hash::hash(&[&root[..], &[0; 32]].concat());
    ScriptBuf::from_bytes([&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], &commitment.as_byte_array()[..]].concat())
}

fn at(seconds: u64) -> Moment {
    Moment { unix: 1_700_000_000 + seconds, elapsed: Duration::from_secs(seconds) }
}

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// Solves a block from a template, as the node would. `salt` makes it differ from its siblings.
pub(in crate::embedded) fn solve(parts: &TemplateParts, salt: u32) -> Block {
    let template = Template::new(parts.clone(), &["csv", "segwit", "taproot"]).unwrap();
    let mut script = rules::height_script(template.height).into_bytes();
    script.push(4);
    script.extend(salt.to_le_bytes());
    let commitment = commitment_to(&template.witness_root.unwrap());
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(script),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0; 32]]),
    };
    let output = vec![
        TxOut { value: Amount::from_sat(template.coinbase_value), script_pubkey: anyone() },
        TxOut { value: Amount::ZERO, script_pubkey: commitment },
    ];
    let coinbase =
        Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output };
    let root = sharechain::merkle::fold(coinbase.compute_txid().to_byte_array(), &template.branch);
    let read = |one: &TemplateTransaction| bitcoin::consensus::encode::deserialize(&one.raw).unwrap();
    let mut header = Header {
        version: block::Version::from_consensus(template.version.cast_signed()),
        prev_blockhash: template.previous_block,
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: template.time,
        bits: template.bits,
        nonce: 0,
    };
    while !template.target.is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    Block { header, txdata: std::iter::once(coinbase).chain(template.transactions.iter().map(read)).collect() }
}

fn mine(chain: &mut Chain, now: Moment) -> Block {
    let block = solve(&chain.template(now), 0);
    assert_eq!(chain.submit(&serialize(&block), now), Verdict::Accepted);
    block
}

fn grown(height: u32) -> (Chain, Vec<Block>) {
    let mut chain = Chain::new(Rules::REGTEST, at(0));
    let blocks = (1..=height).map(|height| mine(&mut chain, at(u64::from(height)))).collect();
    (chain, blocks)
}

/// Spends the first output of `from`, to an output that all can spend.
fn spend(from: &Transaction, fee: u64) -> Transaction {
    let previous_output = OutPoint { txid: from.compute_txid(), vout: 0 };
    let value = from.output[0].value - Amount::from_sat(fee);
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() }],
        output: vec![TxOut { value, script_pubkey: anyone() }],
    }
}

#[test]
fn a_block_from_the_template_is_accepted_and_known_afterwards() {
    let mut chain = Chain::new(Rules::REGTEST, at(0));
    let block = mine(&mut chain, at(1));
    assert_eq!(chain.tip(), Tip { hash: block.block_hash(), height: 1 });
    assert_eq!(chain.submit(&serialize(&block), at(1)), Verdict::Duplicate);
    assert!(chain.is_in_best_chain(&block.block_hash()));
}

#[test]
fn a_chain_of_scrypt_takes_its_proof_of_work_and_keeps_the_names_of_blocks() {
    let mut chain = Chain::new(Rules { pow: Pow::Scrypt, ..Rules::REGTEST }, at(0));
    let mut block = solve(&chain.template(at(1)), 0);
    let limit = target_of(CompactTarget::from_consensus(LIMIT_BITS)).unwrap();
    let mut solved = |is_wanted: &dyn Fn(bool, bool) -> bool| {
        loop {
            block.header.nonce += 1;
            let bytes = <[u8; 80]>::try_from(serialize(&block.header)).unwrap();
            let is_met = |pow: Pow| Target::from_le_bytes(pow.function()(&bytes)) <= limit;
            if is_wanted(is_met(Pow::Sha256d), is_met(Pow::Scrypt)) {
                return block.clone();
            }
        }
    };
    let of_sha256d = solved(&|sha256d, scrypt| sha256d && !scrypt);
    assert_eq!(chain.submit(&serialize(&of_sha256d), at(1)), Verdict::Rejected(Reject::HighHash));
    let of_scrypt = solved(&|sha256d, scrypt| scrypt && !sha256d);
    assert_eq!(chain.submit(&serialize(&of_scrypt), at(1)), Verdict::Accepted);
    assert_eq!(chain.tip(), Tip { hash: of_scrypt.block_hash(), height: 1 });
    assert_eq!(chain.template(at(2)).previous_block, of_scrypt.block_hash());
}

#[test]
fn waiting_transactions_stand_in_the_next_block_and_their_fees_in_its_coinbase() {
    let (mut chain, blocks) = grown(101);
    let first = spend(&blocks[0].txdata[0], 1000);
    let second = spend(&first, 500);
    chain.submit_transaction(&serialize(&first)).unwrap();
    chain.submit_transaction(&serialize(&second)).unwrap();
    assert_eq!(chain.submit_transaction(&serialize(&first)), Err(TransactionError::Known));
    let template = chain.template(at(200));
    assert_eq!(template.coinbase_value, 5_000_001_500);
    let block = mine(&mut chain, at(200));
    assert_eq!(block.txdata[1..], [first, second]);
    assert_eq!(chain.transactions_waiting(), 0);
}

#[test]
fn transactions_that_could_not_stand_in_the_next_block_are_refused() {
    let (mut chain, blocks) = grown(101);
    let mut refused = |transaction: &Transaction| chain.submit_transaction(&serialize(transaction)).unwrap_err();
    let reject = |reject: TransactionReject| TransactionError::Rejected(reject.into());
    let good = spend(&blocks[0].txdata[0], 0);
    assert_eq!(refused(&blocks[0].txdata[0]), TransactionError::Coinbase);
    // Block 3's coinbase would be 99 blocks deep.
    assert_eq!(refused(&spend(&blocks[2].txdata[0], 0)), reject(TransactionReject::PrematureSpend));
    assert_eq!(refused(&spend(&spend(&good, 0), 0)), reject(TransactionReject::InputsMissingOrSpent));
    let mut rich = good.clone();
    rich.output[0].value += Amount::from_sat(1);
    assert_eq!(refused(&rich), reject(TransactionReject::InBelowOut));
    let mut locked = good.clone();
    (locked.lock_time, locked.input[0].sequence) = (LockTime::from_consensus(102), Sequence::ZERO);
    assert_eq!(refused(&locked), TransactionError::Rejected(Reject::NonFinal));
    assert_eq!(chain.submit_transaction(&[1, 2, 3]), Err(TransactionError::Undecodable));
    chain.submit_transaction(&serialize(&good)).unwrap();
    let conflict = spend(&blocks[0].txdata[0], 7);
    assert_eq!(chain.submit_transaction(&serialize(&conflict)), Err(TransactionError::Conflict));
}

#[test]
fn transactions_of_a_block_that_loses_its_place_wait_again() {
    let (mut chain, blocks) = grown(101);
    let fork = chain.template(at(102));
    chain.submit_transaction(&serialize(&spend(&blocks[0].txdata[0], 9))).unwrap();
    mine(&mut chain, at(102));
    assert_eq!(chain.transactions_waiting(), 0);
    let rival = solve(&fork, 1);
    assert_eq!(chain.submit(&serialize(&rival), at(103)), Verdict::Inconclusive);
    let next = TemplateParts { previous_block: rival.block_hash(), height: fork.height + 1, ..fork };
    assert_eq!(chain.submit(&serialize(&solve(&next, 0)), at(104)), Verdict::Accepted);
    assert_eq!(chain.transactions_waiting(), 1);
    assert_eq!(chain.template(at(105)).coinbase_value, 5_000_000_009);
}

#[test]
fn memory_for_old_blocks_is_given_back_and_branches_from_there_are_refused() {
    let mut chain = Chain::new(Rules::REGTEST, at(0));
    let early = chain.template(at(1));
    mine(&mut chain, at(1));
    let side = solve(&early, 1);
    assert_eq!(chain.submit(&serialize(&side), at(2)), Verdict::Inconclusive);
    for height in 2..=u64::from(REORGANISATION_DEPTH_MAX) + 10 {
        mine(&mut chain, at(height));
    }
    let bodies = chain.nodes.values().filter(|node| node.body.is_some()).count();
    assert!(bodies <= REORGANISATION_DEPTH_MAX as usize + 1, "{bodies} bodies are kept");
    assert!(!chain.nodes.contains_key(&side.block_hash()), "the old branch is kept");
    assert_eq!(chain.submit(&serialize(&solve(&early, 2)), at(400)), Verdict::Rejected(Reject::TooDeep));
}

#[test]
fn a_script_that_cannot_be_judged_is_refused() {
    let (mut chain, blocks) = grown(101);
    let mut odd = spend(&blocks[0].txdata[0], 0);
    // OP_1 OP_1 OP_ADD is not a miniscript.
    odd.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51, 0x51, 0x93]);
    chain.submit_transaction(&serialize(&odd)).unwrap();
    let refused = chain.submit_transaction(&serialize(&spend(&odd, 0)));
    assert!(matches!(refused, Err(TransactionError::Rejected(Reject::UnsupportedScript(_)))), "{refused:?}");
}

fn hashes(bits: CompactTarget) -> u64 {
    let work = Target::from_compact(bits).to_work().to_be_bytes();
    u64::from_be_bytes(work[24..].try_into().unwrap())
}

#[test]
fn an_adaptive_chain_takes_the_bits_that_it_offered_and_no_others() {
    let difficulty = Difficulty::Adaptive { hash_rate: 100.0, spacing: SPACING };
    let mut chain = Chain::new(Rules { pow: Pow::Sha256d, difficulty, halving_interval: 210_000 }, at(0));
    let first = chain.template(at(0));
    // 100 hashes a second for ten seconds, and the first block four times easier.
    assert_eq!(hashes(first.bits), 250);
    assert_eq!(chain.until_easing(at(0)), Some(Duration::from_secs(20)));
    let eased = chain.template(at(20));
    assert_eq!(hashes(eased.bits), 125);
    let easiest = TemplateParts { bits: CompactTarget::from_consensus(LIMIT_BITS), ..eased.clone() };
    assert_eq!(chain.submit(&serialize(&solve(&easiest, 0)), at(21)), Verdict::Rejected(Reject::Bits));
    // A miner that has not received the easing yet does not lose its block.
    assert_eq!(chain.submit(&serialize(&solve(&first, 0)), at(21)), Verdict::Accepted);
}

#[test]
fn a_template_is_never_earlier_than_the_chain_allows() {
    let (mut chain, _) = grown(20);
    // The clock was set back by a day.
    let template = chain.template(Moment { unix: 1_699_900_000, elapsed: Duration::from_secs(21) });
    assert_eq!(template.time, template.time_min);
    assert!(template.time > 1_700_000_000);
}
