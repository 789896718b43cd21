//! Unspent outputs, and overlays on them that can be dropped or applied.

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use std::collections::HashMap;

/// Longer scripts can never be executed (`MAX_SCRIPT_SIZE`), so their outputs are not kept.
const SCRIPT_BYTES_MAX: usize = 10_000;

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// Height of the block that created it.
    pub(super) height: u32,
    /// Set if a coinbase created it.
    pub(super) coinbase: bool,
}

/// New state of each outpoint touched: a coin, or none.
pub(super) type Changes = HashMap<OutPoint, Option<Coin>>;

/// Unspent outputs of the best chain.
#[derive(Debug, Default)]
pub(super) struct Coins(HashMap<OutPoint, Coin>);

impl Coins {
    /// Applies the changes and returns those that undo them.
    pub(super) fn apply(&mut self, changes: Changes) -> Changes {
        changes
            .into_iter()
            .map(|(outpoint, after)| {
                let before = match after {
                    Some(coin) => self.0.insert(outpoint, coin),
                    None => self.0.remove(&outpoint),
                };
                (outpoint, before)
            })
            .collect()
    }
}

/// The coins after some more transactions.
#[derive(Debug)]
pub(super) struct View<'coins> {
    below: &'coins Coins,
    changes: Changes,
}

impl<'coins> View<'coins> {
    pub(super) fn new(below: &'coins Coins) -> Self {
        Self { below, changes: Changes::new() }
    }

    /// Creates a view with the changes of an earlier one.
    pub(super) fn resume(below: &'coins Coins, changes: Changes) -> Self {
        Self { below, changes }
    }

    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        match self.changes.get(outpoint) {
            Some(changed) => changed.as_ref(),
            None => self.below.0.get(outpoint),
        }
    }

    /// Spends the inputs of `transaction`, unless it is a coinbase, and adds its outputs.
    pub(super) fn add(&mut self, transaction: &Transaction, txid: Txid, height: u32) {
        let coinbase = transaction.is_coinbase();
        if !coinbase {
            for input in &transaction.input {
                self.changes.insert(input.previous_output, None);
            }
        }
        for (vout, output) in (0_u32..).zip(&transaction.output) {
            let script = &output.script_pubkey;
            if !script.is_op_return() && script.len() <= SCRIPT_BYTES_MAX {
                let coin = Coin { output: output.clone(), height, coinbase };
                self.changes.insert(OutPoint { txid, vout }, Some(coin));
            }
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }
}
