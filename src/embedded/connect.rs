//! The rules that need the coins: what a block's transactions spend, and what its coinbase may pay.

use bitcoin::{Block, OutPoint, Transaction, TxOut, Txid};
use std::collections::HashMap;

use super::coins::{Changes, Coin, Coins, View};
use super::reject::{Reject, TransactionReject};
use super::rules::{COINBASE_MATURITY, MONEY_MAX, SIGOPS_COST_MAX};
use super::scripts;

/// BIP 68: set, the sequence number locks nothing.
const SEQUENCE_DISABLED: u32 = 1 << 31;
/// BIP 68: set, the lock counts units of 512 seconds, else blocks.
const SEQUENCE_IN_TIME: u32 = 1 << 22;
/// BIP 68: the bits that count, and the power of two of seconds in a unit of time.
const SEQUENCE_MASK: u32 = 0xffff;
const SEQUENCE_UNIT: u32 = 9;

/// Where in the chain a transaction is to stand.
pub(super) struct ChainContext<'chain> {
    /// Height of the block.
    pub(super) height: u32,
    /// Median time of the eleven blocks before it.
    pub(super) median_time_past: u32,
    /// For a height below, the median time of the block there and the ten before it.
    pub(super) median_time_at: &'chain dyn Fn(u32) -> u32,
}

/// Finds what `block` does to the coins, and that it may.
///
/// # Errors
/// The first rule that it breaks, in Core's order: all that scripts say comes last, as Core checks them in parallel.
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

/// What a transaction's inputs amount to.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Satoshis that go in and do not come out.
    pub(super) fee: u64,
    /// What is spent, in input order.
    pub(super) spent: Vec<TxOut>,
    /// Whether all relative lock times have passed (BIP 68).
    pub(super) sequence_locks_met: bool,
}

/// Looks up what `transaction`, which is no coinbase, spends.
///
/// # Errors
/// Missing or immature coins, and outputs that are worth more than they.
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
        // Cannot overflow: each value was checked when its transaction was, and the total after each.
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
    // The version is unsigned where BIP 68 asks for "2 or above".
    if transaction.version.0.cast_unsigned() < 2 {
        return true;
    }
    transaction.input.iter().zip(coins).all(|(input, coin)| {
        let sequence = input.sequence.to_consensus_u32();
        let count = sequence & SEQUENCE_MASK;
        if sequence & SEQUENCE_DISABLED != 0 {
            true
        } else if sequence & SEQUENCE_IN_TIME != 0 {
            // Time counts from the median time before the block that made the coin.
            let from = (place.median_time_at)(coin.height.saturating_sub(1));
            u64::from(from) + (u64::from(count) << SEQUENCE_UNIT) <= u64::from(place.median_time_past)
        } else {
            coin.height + count <= place.height
        }
    })
}

/// BIP 141's cost of a transaction's signature operations, given what it spends (nothing for a coinbase).
pub(super) fn sigops_cost(transaction: &Transaction, spent: &[TxOut]) -> usize {
    let outpoints = transaction.input.iter().map(|input| input.previous_output);
    let spent: HashMap<OutPoint, &TxOut> = outpoints.zip(spent).collect();
    transaction.total_sigop_cost(|outpoint| spent.get(outpoint).copied().cloned())
}
