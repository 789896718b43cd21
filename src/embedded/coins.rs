//! The unspent outputs, and views on top of them that can be thrown away or applied.

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use std::collections::HashMap;

/// Longer scripts can never be run (`MAX_SCRIPT_SIZE`), so their outputs are not kept.
const SCRIPT_BYTES_MAX: usize = 10_000;

/// An output that may be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// Height of the block that made it.
    pub(super) height: u32,
    /// Whether a coinbase made it.
    pub(super) coinbase: bool,
}

/// For each outpoint touched, what stands there afterwards: a coin, or nothing.
pub(super) type Changes = HashMap<OutPoint, Option<Coin>>;

/// The unspent outputs of the best chain.
#[derive(Debug, Default)]
pub(super) struct Coins(HashMap<OutPoint, Coin>);

impl Coins {
    /// Makes the changes and gives those that undo them.
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

/// The coins as they will be after some more transactions.
#[derive(Debug)]
pub(super) struct View<'coins> {
    below: &'coins Coins,
    changes: Changes,
}

impl<'coins> View<'coins> {
    pub(super) fn new(below: &'coins Coins) -> Self {
        Self { below, changes: Changes::new() }
    }

    /// On top of changes that a view made before.
    pub(super) fn resume(below: &'coins Coins, changes: Changes) -> Self {
        Self { below, changes }
    }

    pub(super) fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        match self.changes.get(outpoint) {
            Some(changed) => changed.as_ref(),
            None => self.below.0.get(outpoint),
        }
    }

    /// Spends what `transaction` spends, if it is no coinbase, and adds what it makes.
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
