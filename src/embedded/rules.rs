//! Rules for a block and its transactions that need no coins.
//!
//! The order matters: a block with several faults must be refused for the one that Bitcoin Core finds first.

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, Weight, script};
use sharechain::merkle::{self, Digest};
use std::collections::HashSet;

use super::reject::{Reject, TransactionReject};

/// Maximum amount, in satoshis: 21 million coins.
pub(super) const MONEY_MAX: u64 = 21_000_000 * 100_000_000;
/// Maximum signature operation cost (BIP 141); each legacy operation counts four.
pub(super) const SIGOPS_COST_MAX: usize = 80_000;
/// Confirmations before the outputs of a coinbase may be spent.
pub(super) const COINBASE_MATURITY: u32 = 100;
/// Lock times below are heights; from here on, seconds since 1970.
const LOCK_TIME_THRESHOLD: u32 = 500_000_000;
/// BIP 141: first bytes of an output script that commits to the witnesses, and its minimum length.
const COMMITMENT_START: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
const COMMITMENT_BYTES_MIN: usize = 38;

/// Checks that need no chain. The proof of work has been checked already.
pub(super) fn check_block(block: &Block, txids: &[Digest]) -> Result<(), Reject> {
    let (root, mutated) = merkle_root(txids);
    if block.header.merkle_root.to_byte_array() != root {
        return Err(Reject::MerkleRoot);
    }
    if mutated {
        return Err(Reject::DuplicateTransactions);
    }
    let stripped = Weight::from_vb((80 + varint_bytes(block.txdata.len()) + base_bytes(&block.txdata)) as u64);
    if block.txdata.is_empty() || stripped.is_none_or(|weight| weight > Weight::MAX_BLOCK) {
        return Err(Reject::BlockLength);
    }
    if !block.txdata[0].is_coinbase() {
        return Err(Reject::CoinbaseMissing);
    }
    if block.txdata[1..].iter().any(Transaction::is_coinbase) {
        return Err(Reject::CoinbaseMultiple);
    }
    block.txdata.iter().try_for_each(check_transaction)?;
    if block.txdata.iter().map(legacy_sigops).sum::<usize>() * 4 > SIGOPS_COST_MAX {
        return Err(Reject::SignatureOperations);
    }
    Ok(())
}

/// Checks that need only the parent's height and median time.
pub(super) fn check_in_context(block: &Block, height: u32, median_time_past: u32) -> Result<(), Reject> {
    // BIP 113: lock times are measured against the median time past.
    if !block.txdata.iter().all(|transaction| is_final(transaction, height, median_time_past)) {
        return Err(Reject::NonFinal);
    }
    let expected = height_script(height);
    if !block.txdata[0].input[0].script_sig.as_bytes().starts_with(expected.as_bytes()) {
        return Err(Reject::CoinbaseHeight);
    }
    check_witness_commitment(block)?;
    if block_weight(block) > Weight::MAX_BLOCK {
        return Err(Reject::Weight);
    }
    Ok(())
}

/// Checks of a transaction by itself.
pub(super) fn check_transaction(transaction: &Transaction) -> Result<(), TransactionReject> {
    if transaction.input.is_empty() {
        return Err(TransactionReject::NoInputs);
    }
    if transaction.output.is_empty() {
        return Err(TransactionReject::NoOutputs);
    }
    if transaction.base_size() as u64 * 4 > Weight::MAX_BLOCK.to_wu() {
        return Err(TransactionReject::Oversize);
    }
    let mut total: u64 = 0;
    for output in &transaction.output {
        let value = output.value.to_sat();
        if value > i64::MAX as u64 {
            return Err(TransactionReject::OutputNegative);
        }
        if value > MONEY_MAX {
            return Err(TransactionReject::OutputTooLarge);
        }
        // Cannot overflow: the total was within the limit, and so is the value.
        total += value;
        if total > MONEY_MAX {
            return Err(TransactionReject::OutputTotalTooLarge);
        }
    }
    let mut spent = HashSet::with_capacity(transaction.input.len());
    if !transaction.input.iter().all(|input| spent.insert(input.previous_output)) {
        return Err(TransactionReject::InputsDuplicate);
    }
    if transaction.is_coinbase() {
        if !(2..=100).contains(&transaction.input[0].script_sig.len()) {
            return Err(TransactionReject::CoinbaseLength);
        }
    } else if spent.contains(&OutPoint::null()) {
        return Err(TransactionReject::PrevoutNull);
    }
    Ok(())
}

/// True if a transaction's lock time permits a block of this height after this median time.
pub(super) fn is_final(transaction: &Transaction, height: u32, median_time_past: u32) -> bool {
    let lock_time = transaction.lock_time.to_consensus_u32();
    let now = if lock_time < LOCK_TIME_THRESHOLD { height } else { median_time_past };
    lock_time == 0 || lock_time < now || transaction.input.iter().all(|input| input.sequence.is_final())
}

/// Required start of a coinbase script (BIP 34): a push of the height, in the shortest form.
pub(super) fn height_script(height: u32) -> ScriptBuf {
    script::Builder::new().push_int(i64::from(height)).into_script()
}

/// Last output of the coinbase in the form of a witness commitment (BIP 141).
fn commitment_of(coinbase: &Transaction) -> Option<&[u8]> {
    let scripts = coinbase.output.iter().map(|output| output.script_pubkey.as_bytes());
    let mut commitments = scripts.filter(|s| s.len() >= COMMITMENT_BYTES_MIN && s.starts_with(&COMMITMENT_START));
    commitments.next_back().map(|script| &script[COMMITMENT_START.len()..COMMITMENT_BYTES_MIN])
}

/// Adds the reserved value of zeros to a coinbase that commits to witnesses without carrying one, as Core's
/// `submitblock` does for miners that leave it out.
pub(super) fn add_missing_reserved_value(block: &mut Block) {
    let Some(coinbase) = block.txdata.first_mut() else { return };
    let bare = coinbase.input.iter().all(|input| input.witness.is_empty());
    if bare
        && commitment_of(coinbase).is_some()
        && let Some(input) = coinbase.input.first_mut()
    {
        input.witness.push([0; 32]);
    }
}

fn check_witness_commitment(block: &Block) -> Result<(), Reject> {
    let coinbase = &block.txdata[0];
    let Some(commitment) = commitment_of(coinbase) else {
        let bare = block.txdata.iter().flat_map(|transaction| &transaction.input).all(|input| input.witness.is_empty());
        return if bare { Ok(()) } else { Err(Reject::UnexpectedWitness) };
    };
    let witness = &coinbase.input[0].witness;
    let reserved = witness.nth(0).filter(|value| witness.len() == 1 && value.len() == 32);
    let reserved = reserved.ok_or(Reject::WitnessNonceSize)?;
    let mut wtxids: Vec<Digest> = vec![[0; 32]];
    wtxids.extend(block.txdata[1..].iter().map(|transaction| transaction.compute_wtxid().to_byte_array()));
    let mut preimage = merkle::root(&wtxids).to_vec();
    preimage.extend_from_slice(reserved);
    if sha256d::Hash::hash(&preimage).as_byte_array() != commitment {
        return Err(Reject::WitnessCommitment);
    }
    Ok(())
}

/// Returns the merkle root, and true if another list of leaves could have the same one (CVE-2012-2459: two equal
/// neighbours on some level).
fn merkle_root(leaves: &[Digest]) -> (Digest, bool) {
    let mut mutated = false;
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        mutated |= level.chunks_exact(2).any(|pair| pair[0] == pair[1]);
        level = level.chunks(2).map(|pair| merkle::root(&[pair[0], pair[pair.len() - 1]])).collect();
    }
    (merkle::root(&level), mutated)
}

/// Signature operations in the scripts themselves, by the legacy count.
fn legacy_sigops(transaction: &Transaction) -> usize {
    let inputs = transaction.input.iter().map(|input| input.script_sig.count_sigops_legacy());
    let outputs = transaction.output.iter().map(|output| output.script_pubkey.count_sigops_legacy());
    inputs.chain(outputs).sum()
}

fn base_bytes(transactions: &[Transaction]) -> usize {
    transactions.iter().map(Transaction::base_size).sum()
}

fn block_weight(block: &Block) -> Weight {
    let frame = 4 * (80 + varint_bytes(block.txdata.len())) as u64;
    Weight::from_wu(frame) + block.txdata.iter().map(Transaction::weight).sum::<Weight>()
}

fn varint_bytes(count: usize) -> usize {
    bitcoin::VarInt::from(count).size()
}
