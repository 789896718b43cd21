//! Transactions waiting for a block on the embedded chain.
//!
//! No replacement and no fee market: first come, first served, up to a bound.

use bitcoin::consensus::encode::serialize;
use bitcoin::{Transaction, Txid};
use bytes::Bytes;
use thiserror::Error;

use super::coins::{Changes, Coins, View};
use super::connect::{self, ChainContext};
use super::reject::{Reject, TransactionReject};
use super::{rules, scripts};
use crate::template::TemplateTransaction;

/// Maximum number: the demo sends a handful; a thousand are checked within milliseconds at a new tip.
const TRANSACTIONS_MAX: usize = 1000;
/// Maximum total weight, a quarter of a block: all fit into the next one beside any coinbase.
const WEIGHT_MAX: u64 = 1_000_000;
/// Maximum total signature operation cost: half a block's, which leaves room for the coinbase.
const SIGOPS_COST_MAX: usize = rules::SIGOPS_COST_MAX / 2;

/// Reason for refusing a transaction, in the words of Bitcoin Core's `sendrawtransaction`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// Not a transaction, or with bytes after its end.
    #[error("TX decode failed")]
    Undecodable,
    /// A coinbase is valid only in a block.
    #[error("coinbase")]
    Coinbase,
    /// The transaction is waiting already.
    #[error("txn-already-in-mempool")]
    Known,
    /// Another waiting transaction spends the same coin.
    #[error("txn-mempool-conflict")]
    Conflict,
    /// It cannot be in the next block.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// The mempool is full.
    #[error("mempool full")]
    Full,
}

#[derive(Debug)]
struct Entry {
    transaction: Transaction,
    template: TemplateTransaction,
}

/// Waiting transactions, each valid on the best chain after the ones before it.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    entries: Vec<Entry>,
    /// Changes of all of them together to the coins of the best chain.
    changes: Changes,
}

impl Mempool {
    /// Decodes and checks `raw`, and adds it.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub(super) fn submit(
        &mut self,
        raw: &[u8],
        coins: &Coins,
        place: &ChainContext<'_>,
    ) -> Result<Txid, TransactionError> {
        let mut rest = raw;
        let transaction = super::decode::transaction(&mut rest).ok_or(TransactionError::Undecodable)?;
        if !rest.is_empty() {
            return Err(TransactionError::Undecodable);
        }
        self.admit(transaction, coins, place, true)
    }

    /// Re-checks everything after a change of the best chain; `returned` are transactions of blocks that left it.
    pub(super) fn renew(&mut self, returned: Vec<Transaction>, coins: &Coins, place: &ChainContext<'_>) {
        let entries = std::mem::take(&mut self.entries);
        self.changes.clear();
        let waiting = returned.into_iter().chain(entries.into_iter().map(|entry| entry.transaction));
        for transaction in waiting {
            // Their scripts were checked at first, against outputs that the outpoints commit to. A transaction that
            // fails now is in the new chain, or has lost a coin to it: dropped silently, as in a daemon.
            drop(self.admit(transaction, coins, place, false));
        }
    }

    /// Returns the transactions in an order that is valid in a block.
    pub(super) fn for_template(&self) -> Vec<TemplateTransaction> {
        self.entries.iter().map(|entry| entry.template.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn admit(
        &mut self,
        transaction: Transaction,
        coins: &Coins,
        place: &ChainContext<'_>,
        check_scripts: bool,
    ) -> Result<Txid, TransactionError> {
        rules::check_transaction(&transaction).map_err(Reject::from)?;
        if transaction.is_coinbase() {
            return Err(TransactionError::Coinbase);
        }
        let txid = transaction.compute_txid();
        if self.entries.iter().any(|entry| entry.template.txid == txid) {
            return Err(TransactionError::Known);
        }
        let weight = transaction.weight().to_wu();
        if self.entries.len() >= TRANSACTIONS_MAX || self.weight() + weight > WEIGHT_MAX {
            return Err(TransactionError::Full);
        }
        if !rules::is_final(&transaction, place.height, place.median_time_past) {
            return Err(Reject::NonFinal.into());
        }
        let spent_by_other = |outpoint| matches!(self.changes.get(outpoint), Some(None));
        if transaction.input.iter().map(|input| &input.previous_output).any(spent_by_other) {
            return Err(TransactionError::Conflict);
        }
        let waiting_cost: u64 = self.entries.iter().map(|entry| entry.template.sigops).sum();
        let mut view = View::resume(coins, std::mem::take(&mut self.changes));
        let checked = match check(&transaction, &view, place, check_scripts) {
            Ok((_, cost)) if waiting_cost + cost as u64 > SIGOPS_COST_MAX as u64 => Err(TransactionError::Full),
            checked => checked.map_err(TransactionError::from),
        };
        if checked.is_ok() {
            view.add(&transaction, txid, place.height);
        }
        self.changes = view.into_changes();
        let (fee, sigops_cost) = checked?;
        let template = TemplateTransaction {
            raw: Bytes::from(serialize(&transaction)),
            txid,
            wtxid: transaction.compute_wtxid(),
            fee,
            weight,
            sigops: sigops_cost as u64,
        };
        self.entries.push(Entry { transaction, template });
        Ok(txid)
    }

    fn weight(&self) -> u64 {
        self.entries.iter().map(|entry| entry.template.weight).sum()
    }
}

/// Returns the transaction's fee and signature operation cost, if it is valid at `place`.
fn check(
    transaction: &Transaction,
    view: &View<'_>,
    place: &ChainContext<'_>,
    check_scripts: bool,
) -> Result<(u64, usize), Reject> {
    let inputs = connect::spend(transaction, view, place)?;
    if !inputs.sequence_locks_met {
        return Err(TransactionReject::NonFinal.into());
    }
    if check_scripts {
        scripts::check(transaction, &inputs.spent)?;
    }
    Ok((inputs.fee, connect::sigops_cost(transaction, &inputs.spent)))
}
