//! Tests of blocks that miners make of templates, each rule broken once.

use super::tests::{SUBSIDY, at, chain, rules};
use super::*;
use crate::embedded::auxiliary::SpendError;
use crate::embedded::auxiliary::proof::ProofError;
use crate::embedded::auxiliary::proof::tests::Parts;
use bitcoin::absolute::LockTime;
use bitcoin::blockdata::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::{
    Amount, OutPoint, Sequence, Target, Transaction, TxIn, TxMerkleNode, TxOut, VarInt, Witness, merkle_tree, script,
    transaction,
};

/// A block as a miner makes it of a template.
struct Made {
    header: Header,
    transactions: Vec<Transaction>,
}

impl Made {
    fn of(template: &BlockTemplate) -> Self {
        let coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                script_sig: script::Builder::new().push_int(template.height.into()).push_slice(b"test").into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(template.value),
                script_pubkey: ScriptBuf::from_bytes(b"miner".to_vec()),
            }],
        };
        let others = template.transactions.iter().map(|(one, _)| one.clone());
        let transactions: Vec<_> = std::iter::once(coinbase).chain(others).collect();
        let header = Header {
            version: bitcoin::block::Version::from_consensus((template.version | 0x100).cast_signed()),
            prev_blockhash: template.previous,
            merkle_root: TxMerkleNode::all_zeros(),
            time: template.time,
            bits: template.bits,
            nonce: 0,
        };
        Self { header, transactions }.with_root()
    }

    fn with_root(mut self) -> Self {
        let txids = self.transactions.iter().map(|one| one.compute_txid().to_raw_hash());
        self.header.merkle_root = TxMerkleNode::from_raw_hash(merkle_tree::calculate_root(txids).unwrap());
        self
    }

    fn edit(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self.with_root()
    }

    fn hash(&self) -> BlockHash {
        self.header.block_hash()
    }

    /// The whole block, mined.
    fn bytes(&self) -> Vec<u8> {
        let mut parts = Parts::of(self.hash(), 98, 0);
        parts.mine(Target::from_compact(self.header.bits), ParentPow::Sha256d, true);
        self.with_proof(&parts.serialise())
    }

    fn with_proof(&self, proof: &[u8]) -> Vec<u8> {
        let transactions: Vec<u8> = self.transactions.iter().flat_map(serialize).collect();
        let count = serialize(&VarInt::from(self.transactions.len()));
        [&serialize(&self.header)[..], proof, &count, &transactions].concat()
    }
}

fn refused(rule: RuleError) -> Result<Fate, SubmitError> {
    Err(SubmitError::Rule(rule))
}

#[test]
fn a_block_made_of_a_template_is_the_tip_with_its_transactions_and_survives_a_restart() {
    let mut chain = chain();
    for second in 1..5 {
        chain.mine(at(second));
    }
    let empty = chain.template(at(5));
    assert_eq!((empty.version, empty.height, empty.value, empty.transactions.len()), (0x0062_0004, 5, SUBSIDY, 0));
    // Two of another miner's coinbases are mature; the third transaction spends what another left.
    let txids = [7, 8, 9].map(|fee| chain.spend(fee).unwrap());
    let template = chain.template(at(5));
    assert_eq!((template.value, template.changes), (SUBSIDY + 24, 3));
    assert_eq!(template.transactions.iter().map(|(one, _)| one.compute_txid()).collect::<Vec<_>>(), txids);
    let answer = template.answer();
    let depends = &answer["transactions"][2]["depends"];
    assert!(*depends == serde_json::json!([1]) || *depends == serde_json::json!([2]), "{depends}");
    assert_eq!(answer["transactions"][1]["depends"], serde_json::json!([]));
    assert_eq!(answer["target"], format!("7fffff{}", "00".repeat(29)), "the most significant byte is first");
    let block = Made::of(&template);
    chain.forget_created();
    assert_eq!(chain.submit_block(&block.bytes(), at(6)), Ok(Fate::Tip));
    assert_eq!(chain.submit_block(&block.bytes(), at(6)), Ok(Fate::Known));
    assert_eq!(chain.block(&block.hash()).unwrap().serialise(), block.bytes());
    assert_eq!(chain.balance(Script::from_bytes(b"miner")).immature, SUBSIDY + 24);
    assert!(chain.template(at(7)).transactions.is_empty(), "they are in the chain");
    let last = chain.submissions().last().unwrap().clone();
    assert_eq!(last, Submission { hash: block.hash(), verdict: Ok(Fate::Known) });
}

#[test]
fn a_block_on_an_old_tip_is_beside_the_chain_and_one_on_an_invalid_tip_is_refused() {
    let mut chain = chain();
    let late = Made::of(&chain.template(at(1)));
    chain.mine(at(2));
    assert_eq!(chain.submit_block(&late.bytes(), at(3)), Ok(Fate::Beside));
    let above = Made::of(&chain.template(at(4)));
    chain.invalidate(1);
    assert_eq!(chain.submit_block(&above.bytes(), at(5)), Err(SubmitError::Invalid));
}

#[test]
fn each_rule_is_broken_once_and_named() {
    let mut chain = chain();
    for second in 1..5 {
        chain.mine(at(second));
    }
    let young = chain.hash_at(4).and_then(|hash| chain.block(&hash)).unwrap().transactions[0].compute_txid();
    chain.spend(5).unwrap();
    let template = chain.template(at(5));
    let clock = u32::try_from(at(5).unix).unwrap();
    let median = chain.median_time(&template.previous);
    let made = |edit: &dyn Fn(&mut Made)| Made::of(&template).edit(|made| edit(made));
    let second = template.transactions[0].0.clone();
    let of_second = |edit: &dyn Fn(&mut Transaction)| {
        let mut changed = second.clone();
        edit(&mut changed);
        (changed.compute_txid(), made(&|made| made.transactions[1] = changed.clone()))
    };
    let missing = of_second(&|one| one.input[0].previous_output.vout = 9);
    let immature = of_second(&|one| one.input[0].previous_output = OutPoint { txid: young, vout: 0 });
    let signed = of_second(&|one| one.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51]));
    let dear = of_second(&|one| one.output[0].value += Amount::from_sat(6));
    let again = of_second(&|one| one.input.push(one.input[0].clone()));
    let coinbase = made(&|made| made.transactions[1] = made.transactions[0].clone());
    let other_coinbase = of_second(&|one| {
        one.input[0].previous_output = OutPoint::null();
        one.input[0].script_sig = ScriptBuf::from_bytes(vec![1, 2]);
    });
    let sigops = |made: &mut Made| {
        made.transactions[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0xae; 1001]);
    };
    let value = template.value + 1;
    let cases = [
        (
            made(&|made| made.header.version = bitcoin::block::Version::from_consensus(0x0063_0104)),
            RuleError::ChainId(0x0063_0104),
        ),
        (coinbase, RuleError::Twice(Made::of(&template).transactions[0].compute_txid())),
        (other_coinbase.1, RuleError::SecondCoinbase(other_coinbase.0)),
        (made(&|made| drop(made.transactions.remove(0))), RuleError::CoinbaseMissing),
        (
            made(&|made| made.transactions[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x55])),
            RuleError::CoinbaseScript(1),
        ),
        (made(&sigops), RuleError::Sigops(20_020)),
        (made(&|made| made.header.prev_blockhash = BlockHash::all_zeros()), RuleError::Parent(BlockHash::all_zeros())),
        (
            made(&|made| made.header.bits = CompactTarget::from_consensus(0x207f_fffe)),
            RuleError::Bits(CompactTarget::from_consensus(0x207f_fffe)),
        ),
        (made(&|made| made.header.time = median), RuleError::TimeTooOld { time: median, median }),
        (made(&|made| made.header.time = clock + 7201), RuleError::TimeTooNew(clock + 7201)),
        (
            made(&|made| made.transactions[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x56, 1])),
            RuleError::Height(5),
        ),
        (missing.1, SpendError::Missing(missing.0).into()),
        (immature.1, SpendError::Immature(immature.0).into()),
        (signed.1, SpendError::Script(signed.0).into()),
        (dear.1, SpendError::AboveInputs(dear.0).into()),
        (again.1, SpendError::Missing(again.0).into()),
        (
            made(&|made| made.transactions[0].output[0].value += Amount::from_sat(1)),
            RuleError::CoinbaseValue { paid: value, allowed: value - 1 },
        ),
    ];
    for (block, rule) in cases {
        assert!(!rule.word().is_empty() && !rule.to_string().is_empty());
        assert_eq!(chain.submit_block(&block.bytes(), at(5)), refused(rule));
    }
    let mut other_root = Made::of(&template);
    other_root.header.merkle_root = TxMerkleNode::all_zeros();
    assert_eq!(chain.submit_block(&other_root.bytes(), at(5)), refused(RuleError::MerkleRoot));
    let large = made(&|made| {
        made.transactions[0].output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
    });
    assert!(matches!(chain.submit_block(&large.bytes(), at(5)), Err(SubmitError::Rule(RuleError::Size(_)))));
    assert_eq!(chain.submit_block(&Made::of(&template).bytes(), at(5)), Ok(Fate::Tip), "and nothing was wrong with it");
}

#[test]
fn the_proof_is_of_this_block_and_meets_its_target() {
    let mut chain = chain();
    let block = Made::of(&chain.template(at(1)));
    let other = Parts::of(BlockHash::all_zeros(), 98, 0);
    let verdict = chain.submit_block(&block.with_proof(&other.serialise()), at(1));
    assert_eq!(verdict, refused(ProofError::RootMissing.into()));
    let mut weak = Parts::of(block.hash(), 98, 0);
    weak.mine(Target::from_compact(block.header.bits), ParentPow::Sha256d, false);
    let verdict = chain.submit_block(&block.with_proof(&weak.serialise()), at(1));
    assert_eq!(verdict, refused(ProofError::HighHash.into()));
    // Without the flag in its version, a block proves itself.
    let mut alone = Made::of(&chain.template(at(1)));
    alone.header.version = bitcoin::block::Version::from_consensus(0x0062_0004);
    let target = Target::from_compact(alone.header.bits);
    let mut verdicts = Vec::new();
    while !verdicts.contains(&Ok(Fate::Tip)) {
        let is_met = Target::from_le_bytes(alone.hash().to_byte_array()) <= target;
        let verdict = chain.submit_block(&alone.with_proof(&[]), at(1));
        assert_eq!(verdict, if is_met { Ok(Fate::Tip) } else { refused(RuleError::HighHash) });
        verdicts.push(verdict);
        alone.header.nonce += 1;
    }
}

#[test]
fn bytes_that_are_no_block_are_refused_wherever_they_end() {
    let mut chain = Chain::new(rules(), "test", at(0)).unwrap();
    let bytes = Made::of(&chain.template(at(1))).bytes();
    for length in 0..bytes.len() {
        let verdict = chain.submit_block(&bytes[..length], at(1));
        assert!(matches!(verdict, Err(SubmitError::Decode(DecodeError::Part(_) | DecodeError::NoInputs))), "{length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(chain.submit_block(&longer, at(1)), Err(SubmitError::Decode(DecodeError::TrailingBytes(1))));
    assert_eq!(chain.submit_block(&bytes, at(1)), Ok(Fate::Tip));
}
