//! Templates: everything of the next block but its coinbase, as `getblocktemplate` of Dogecoin Core 1.14 gives it.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxOut, Txid, Witness,
    transaction,
};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

use super::ledger::{ANYONE, Ledger, sigops};
use super::rules::{BLOCK_BYTES_MAX, SIGOPS_MAX};

/// Maximum number of transactions that wait for a block.
const WAITING_MAX: usize = 1000;

/// Maximum number of bits remembered.
const OFFERED_MAX: usize = 1000;

/// Everything of the next block but its coinbase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockTemplate {
    /// Version, with the number of the chain, and without the flag of an auxiliary proof.
    pub version: u32,
    /// Block that it builds on.
    pub previous: BlockHash,
    /// Height.
    pub height: u32,
    /// Target in compact form.
    pub bits: CompactTarget,
    /// Time, in seconds since 1970.
    pub time: u32,
    /// Earliest time.
    pub time_min: u32,
    /// Satoshis that the coinbase may pay: subsidy and fees.
    pub value: u64,
    /// Other transactions, in order, each with its fee in satoshis.
    pub transactions: Vec<(Transaction, u64)>,
    /// Number of changes of the transactions so far.
    pub changes: u64,
}

impl BlockTemplate {
    /// The answer to `getblocktemplate`.
    pub fn answer(&self) -> Value {
        let mut places: HashMap<Txid, usize> = HashMap::new();
        let mut transactions = Vec::new();
        for (index, (transaction, fee)) in self.transactions.iter().enumerate() {
            let txid = transaction.compute_txid();
            let depends: Vec<usize> =
                transaction.input.iter().filter_map(|input| places.get(&input.previous_output.txid).copied()).collect();
            // Counted from 1, as the coinbase has 0.
            places.insert(txid, index + 1);
            transactions.push(json!({
                "data": hex::encode(serialize(transaction)),
                "txid": txid.to_string(),
                "hash": transaction.compute_wtxid().to_string(),
                "depends": depends,
                "fee": fee,
                "sigops": sigops(transaction),
                "weight": transaction.weight().to_wu(),
            }));
        }
        json!({
            "capabilities": ["proposal"],
            "version": self.version,
            "rules": [],
            "vbavailable": {},
            "vbrequired": 0,
            "previousblockhash": self.previous.to_string(),
            "transactions": transactions,
            "coinbaseaux": { "flags": hex::encode(b"\x06/P2SH/") },
            "coinbasevalue": self.value,
            "longpollid": format!("{}{}", self.previous, self.changes),
            "target": hex::encode(Target::from_compact(self.bits).to_be_bytes()),
            "mintime": self.time_min,
            "mutable": ["time", "transactions", "prevblock"],
            "noncerange": "00000000ffffffff",
            "sigoplimit": SIGOPS_MAX,
            "sizelimit": BLOCK_BYTES_MAX,
            "curtime": self.time,
            "bits": format!("{:08x}", self.bits.to_consensus()),
            "height": self.height,
        })
    }
}

/// Transactions that wait for a block.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    transactions: Vec<Transaction>,
    changes: u64,
}

impl Waiting {
    /// Number of changes so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Those that the next block can have, with their fees; `ledger` is then as after them.
    pub(super) fn next(&self, ledger: &mut Ledger) -> Vec<(Transaction, u64)> {
        let transactions = self.transactions.iter();
        transactions.filter_map(|one| Some((one.clone(), ledger.spend(one, one.compute_txid()).ok()?))).collect()
    }

    /// Adds one that spends the oldest output that anyone can spend, for this fee. `None` if there is none, or too many
    /// wait.
    pub(super) fn add(&mut self, ledger: &mut Ledger, fee: u64) -> Option<Txid> {
        self.next(ledger);
        if self.transactions.len() >= WAITING_MAX {
            return None;
        }
        let (outpoint, value) = ledger.spendable(fee)?;
        let transaction = spending(outpoint, value - fee);
        let txid = transaction.compute_txid();
        self.transactions.push(transaction);
        self.changes += 1;
        Some(txid)
    }
}

/// A transaction that spends an output of anyone's to anyone.
fn spending(previous_output: OutPoint, value: u64) -> Transaction {
    let input =
        TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness: Witness::new() };
    let output = TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::from_bytes(ANYONE.to_vec()) };
    Transaction {
        version: transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

/// Bits that were given out, each for the blocks on one parent. They follow from the chain in a real daemon, which knows
/// them after a restart as well.
#[derive(Debug, Default)]
pub(super) struct Offered(VecDeque<(BlockHash, CompactTarget)>);

impl Offered {
    pub(super) fn add(&mut self, parent: BlockHash, bits: CompactTarget) {
        if self.has(parent, bits) {
            return;
        }
        if self.0.len() == OFFERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back((parent, bits));
    }

    pub(super) fn has(&self, parent: BlockHash, bits: CompactTarget) -> bool {
        self.0.iter().rev().any(|offered| *offered == (parent, bits))
    }
}
