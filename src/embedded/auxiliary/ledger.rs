//! Unspent outputs of a branch, and what its next block's transactions do to them.

use bitcoin::{BlockHash, OutPoint, Script, Transaction, TxOut, Txid};
use std::collections::{HashMap, HashSet};
use thiserror::Error;

use super::tree::Tree;

/// Script that anyone can spend from, `OP_TRUE`: the only kind that this daemon lets miners spend.
pub(super) const ANYONE: [u8; 1] = [0x51];

/// Reason why a transaction cannot spend its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpendError {
    /// An output that it spends is unknown, or spent.
    #[error("transaction {0} spends an output that is missing or spent")]
    Missing(Txid),
    /// An output that it spends cannot be spent yet.
    #[error("transaction {0} spends a coinbase that is not mature")]
    Immature(Txid),
    /// A script refuses.
    #[error("transaction {0} may not spend one of its inputs")]
    Script(Txid),
    /// It pays more than it has.
    #[error("the outputs of transaction {0} are above its inputs")]
    AboveInputs(Txid),
}

impl SpendError {
    /// Dogecoin Core's word for it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "bad-txns-inputs-missingorspent",
            Self::Immature(_) => "bad-txns-premature-spend-of-coinbase",
            Self::Script(_) => "mandatory-script-verify-flag-failed",
            Self::AboveInputs(_) => "bad-txns-in-belowout",
        }
    }
}

/// An unspent output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Coin {
    output: TxOut,
    /// Height of the block that made it.
    height: u32,
    is_coinbase: bool,
}

impl Coin {
    fn is_mature(&self, height: u32, maturity: u32) -> bool {
        !self.is_coinbase || height.saturating_sub(self.height) >= maturity
    }
}

/// Unspent outputs of a branch.
#[derive(Debug)]
pub(super) struct Ledger {
    coins: HashMap<OutPoint, Coin>,
    /// Height of the next block.
    height: u32,
    maturity: u32,
}

impl Ledger {
    /// The outputs of the branch that ends in `tip`. Takes a walk over all of it.
    pub(super) fn at(tree: &Tree, tip: BlockHash, maturity: u32) -> Self {
        let mut ledger = Self { coins: HashMap::new(), height: 0, maturity };
        for block in tree.branch(tip) {
            for transaction in &block.transactions {
                transaction.input.iter().for_each(|input| drop(ledger.coins.remove(&input.previous_output)));
                ledger.add(transaction, transaction.compute_txid());
            }
            ledger.height = block.height + 1;
        }
        ledger
    }

    /// Makes `transaction` part of the next block, and returns its fee.
    pub(super) fn spend(&mut self, transaction: &Transaction, txid: Txid) -> Result<u64, SpendError> {
        let mut paid_in = 0_u64;
        let mut spent = HashSet::new();
        for input in &transaction.input {
            let coin = self.coins.get(&input.previous_output).filter(|_| spent.insert(input.previous_output));
            let coin = coin.ok_or(SpendError::Missing(txid))?;
            if !coin.is_mature(self.height, self.maturity) {
                return Err(SpendError::Immature(txid));
            }
            if coin.output.script_pubkey.as_bytes() != ANYONE || !input.script_sig.is_empty() {
                return Err(SpendError::Script(txid));
            }
            paid_in = paid_in.saturating_add(coin.output.value.to_sat());
        }
        let fee = paid_in.checked_sub(sum(&transaction.output)).ok_or(SpendError::AboveInputs(txid))?;
        spent.iter().for_each(|outpoint| drop(self.coins.remove(outpoint)));
        self.add(transaction, txid);
        Ok(fee)
    }

    /// The oldest output that anyone can spend in the next block, of more than `value`.
    pub(super) fn spendable(&self, value: u64) -> Option<(OutPoint, u64)> {
        let is_spendable = |coin: &Coin| {
            coin.output.script_pubkey.as_bytes() == ANYONE
                && coin.is_mature(self.height, self.maturity)
                && coin.output.value.to_sat() > value
        };
        let coins = self.coins.iter().filter(|(_, coin)| is_spendable(coin));
        let oldest = coins.min_by_key(|(outpoint, coin)| (coin.height, **outpoint))?;
        Some((*oldest.0, oldest.1.output.value.to_sat()))
    }

    fn add(&mut self, transaction: &Transaction, txid: Txid) {
        for (vout, output) in (0_u32..).zip(&transaction.output) {
            let coin = Coin { output: output.clone(), height: self.height, is_coinbase: transaction.is_coinbase() };
            self.coins.insert(OutPoint { txid, vout }, coin);
        }
    }
}

/// Satoshis of all outputs.
pub(super) fn sum(outputs: &[TxOut]) -> u64 {
    outputs.iter().fold(0, |sum, output| sum.saturating_add(output.value.to_sat()))
}

/// Signature operations that a transaction counts for, by the rules of before BIP 16.
pub(super) fn sigops(transaction: &Transaction) -> usize {
    let of = |script: &Script| script.count_sigops_legacy();
    let inputs = transaction.input.iter().map(|input| of(&input.script_sig));
    inputs.chain(transaction.output.iter().map(|output| of(&output.script_pubkey))).sum()
}
