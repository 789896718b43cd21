//! Rules that need the coins: inputs of a block's transactions, and the value of its coinbase.

use bitcoin::{Block, OutPoint, Transaction, TxOut, Txid};
use std::collections::HashMap;

use super::coins::{Changes, Coin, Coins, View};
use super::reject::{Reject, TransactionReject};
use super::rules::{COINBASE_MATURITY, MONEY_MAX, SIGOPS_COST_MAX};
use super::scripts;

/// BIP 68: if set, the sequence number locks nothing.
const SEQUENCE_DISABLED: u32 = 1 << 31;
/// BIP 68: if set, the lock counts units of 512 seconds, else blocks.
const SEQUENCE_IN_TIME: u32 = 1 << 22;
/// BIP 68: the bits that count; below, the binary logarithm of the unit of time in seconds.
const SEQUENCE_MASK: u32 = 0xffff;
const SEQUENCE_UNIT: u32 = 9;

/// Position of a transaction in the chain.
pub(super) struct ChainContext<'chain> {
    /// Height of the block.
    pub(super) height: u32,
    /// Median time of the eleven blocks before it.
    pub(super) median_time_past: u32,
    /// Returns the median time of the block at a lower height and the ten before it.
    pub(super) median_time_at: &'chain dyn Fn(u32) -> u32,
}

/// Computes the changes of `block` to the coins, and checks it.
///
/// # Errors
/// The first rule that it breaks, in Core's order: scripts come last, as Core checks them in parallel.
pub(super) fn connect(
    block: &Block,
    txids: &[Txid],
    coins: &Coins,
    place: &ChainContext<'_>,
    subsidy: u64,
) -> Result<Changes, Reject> {
    let mut view = View::new(coins);
    for (transaction, txid) in block.txdata.iter().zip(txids) {
        let mut outputs = 0..u32::try_from(transaction.output.len()).expect("a block has fewer bytes than this");
        if outputs.any(|vout| view.get(&OutPoint { txid: *txid, vout }).is_some()) {
            return Err(Reject::OverwritesCoin);
        }
    }
    let mut fees = 0;
    let mut sigops = 0;
    let mut scripts_to_check = Vec::with_capacity(block.txdata.len());
    for (transaction, txid) in block.txdata.iter().zip(txids) {
        let mut spent = Vec::new();
        if !transaction.is_coinbase() {
            let inputs = spend(transaction, &view, place)?;
            fees += inputs.fee;
            if fees > MONEY_MAX {
                return Err(TransactionReject::AccumulatedFee.into());
            }
            if !inputs.sequence_locks_met {
                return Err(TransactionReject::NonFinal.into());
            }
            spent = inputs.spent;
        }
        sigops += sigops_cost(transaction, &spent);
        if sigops > SIGOPS_COST_MAX {
            return Err(Reject::SignatureOperations);
        }
        view.add(transaction, *txid, place.height);
        scripts_to_check.push((transaction, spent));
    }
    let paid: u64 = block.txdata[0].output.iter().map(|output| output.value.to_sat()).sum();
    if paid > fees + subsidy {
        return Err(Reject::CoinbaseAmount);
    }
    let spending = scripts_to_check.iter().skip(1);
    spending.into_iter().try_for_each(|(transaction, spent)| scripts::check(transaction, spent))?;
    Ok(view.into_changes())
}

/// Inputs of a transaction, summed up.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Inputs minus outputs, in satoshis.
    pub(super) fee: u64,
    /// Spent outputs, in input order.
    pub(super) spent: Vec<TxOut>,
    /// Set if all relative lock times have passed (BIP 68).
    pub(super) sequence_locks_met: bool,
}

/// Looks up the outputs that `transaction`, which is no coinbase, spends.
///
/// # Errors
/// Missing or immature coins, or outputs worth more than the inputs.
pub(super) fn spend(
    transaction: &Transaction,
    view: &View<'_>,
    place: &ChainContext<'_>,
) -> Result<Inputs, TransactionReject> {
    let coins: Option<Vec<&Coin>> = transaction.input.iter().map(|input| view.get(&input.previous_output)).collect();
    let coins = coins.ok_or(TransactionReject::InputsMissingOrSpent)?;
    let mut value_in = 0;
    for coin in &coins {
        if coin.coinbase && place.height - coin.height < COINBASE_MATURITY {
            return Err(TransactionReject::PrematureSpend);
        }
        // Cannot overflow: each value was checked with its transaction, and the total after each.
        value_in += coin.output.value.to_sat();
        if value_in > MONEY_MAX {
            return Err(TransactionReject::InputValues);
        }
    }
    let value_out: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
    let fee = value_in.checked_sub(value_out).ok_or(TransactionReject::InBelowOut)?;
    let sequence_locks_met = sequence_locks_met(transaction, &coins, place);
    let spent = coins.into_iter().map(|coin| coin.output.clone()).collect();
    Ok(Inputs { fee, spent, sequence_locks_met })
}

fn sequence_locks_met(transaction: &Transaction, coins: &[&Coin], place: &ChainContext<'_>) -> bool {
    // The version is unsigned in BIP 68's "2 or above".
    if transaction.version.0.cast_unsigned() < 2 {
        return true;
    }
    transaction.input.iter().zip(coins).all(|(input, coin)| {
        let sequence = input.sequence.to_consensus_u32();
        let count = sequence & SEQUENCE_MASK;
        if sequence & SEQUENCE_DISABLED != 0 {
            true
        } else if sequence & SEQUENCE_IN_TIME != 0 {
            // Time counts from the median time before the block that created the coin.
            let from = (place.median_time_at)(coin.height.saturating_sub(1));
            u64::from(from) + (u64::from(count) << SEQUENCE_UNIT) <= u64::from(place.median_time_past)
        } else {
            coin.height + count <= place.height
        }
    })
}

/// Signature operation cost of a transaction (BIP 141), given the outputs that it spends (none for a coinbase).
pub(super) fn sigops_cost(transaction: &Transaction, spent: &[TxOut]) -> usize {
    let outpoints = transaction.input.iter().map(|input| input.previous_output);
    let spent: HashMap<OutPoint, &TxOut> = outpoints.zip(spent).collect();
    transaction.total_sigop_cost(|outpoint| spent.get(outpoint).copied().cloned())
}
