//! Dependencies of a template whose block has an extension block (Litecoin's MWEB): what must be in the block with it.
//!
//! The last transaction, HogEx, spends the last HogEx's output and then every peg-in of the block, in order, and its
//! first output commits to the extension block. The extension block is made for these peg-ins: with any other set of
//! them the block breaks a rule. All other transactions are free (protocol section 18.2).

use bitcoin::consensus::Decodable;
use bitcoin::consensus::encode::Error as DecodeError;
use bitcoin::{OutPoint, TxIn, TxOut, Txid, WitnessVersion};
use std::collections::HashMap;
use thiserror::Error;

use super::TemplateTransaction;

/// Flag of a serialised transaction with MWEB data; HogEx has it with a null MWEB transaction.
const MWEB_FLAG: u8 = 8;

/// Reason why a template does not fit its extension block.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtensionError {
    /// There is no transaction at all.
    #[error("it has an extension block and no transaction that commits to it (HogEx)")]
    NoTransactions,
    /// The last transaction is not HogEx.
    #[error("its last transaction {0} does not commit to the extension block (HogEx): {1}")]
    NotHogEx(Txid, &'static str),
    /// HogEx spends what the template does not have.
    #[error("its HogEx {hogex} spends output {output}, which none of its transactions has")]
    UnknownPegIn {
        /// The template's HogEx.
        hogex: Txid,
        /// Output that it spends.
        output: OutPoint,
    },
    /// A transaction comes before one whose output it spends.
    #[error("its transaction {child} comes before {parent}, whose output it spends")]
    Order {
        /// The spending transaction.
        child: Txid,
        /// The transaction that it spends an output of.
        parent: Txid,
    },
    /// A transaction's bytes cannot be read.
    #[error("its transaction {txid} cannot be read: {reason}")]
    Unreadable {
        /// Id from the daemon.
        txid: Txid,
        /// Cause.
        reason: String,
    },
}

/// Which transactions spend outputs of which others, and which must be in the block. Indices are those of the template.
#[derive(Debug, Clone, Default)]
pub(super) struct Dependencies {
    /// Parents of all transactions, one after the other.
    parents: Vec<u32>,
    /// End of each transaction's parents.
    ends: Vec<u32>,
    /// True for HogEx, peg-ins and their ancestors.
    pinned: Vec<bool>,
}

impl Dependencies {
    /// Reads the inputs of all transactions, the last of which is HogEx.
    ///
    /// # Errors
    /// The transactions do not fit their extension block, or each other.
    pub(super) fn new(transactions: &[TemplateTransaction]) -> Result<Self, ExtensionError> {
        let last = transactions.last().ok_or(ExtensionError::NoTransactions)?;
        let index_of: HashMap<Txid, usize> =
            transactions.iter().enumerate().map(|(index, one)| (one.txid, index)).collect();
        let mut parents = Vec::new();
        let mut ends = Vec::with_capacity(transactions.len());
        for (index, one) in transactions.iter().enumerate() {
            for input in read(one)?.inputs {
                let parent = input.previous_output.txid;
                match index_of.get(&parent) {
                    Some(earlier) if *earlier < index => parents.push(number(*earlier)),
                    Some(_) => return Err(ExtensionError::Order { child: one.txid, parent }),
                    None => {}
                }
            }
            ends.push(number(parents.len()));
        }
        check_hogex(last, &index_of)?;
        let mut found = Self { parents, ends, pinned: vec![false; transactions.len()] };
        found.pin(transactions.len() - 1);
        Ok(found)
    }

    /// Marks a transaction and its ancestors.
    fn pin(&mut self, index: usize) {
        let mut pending = vec![index];
        while let Some(index) = pending.pop() {
            if !std::mem::replace(&mut self.pinned[index], true) {
                pending.extend(self.parents_of(index));
            }
        }
    }

    /// Transactions of the template whose outputs the one at `index` spends; one with several such outputs repeats.
    pub(super) fn parents_of(&self, index: usize) -> impl Iterator<Item = usize> {
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.parents[begin as usize..self.ends[index] as usize].iter().map(|parent| *parent as usize)
    }

    /// True if the block needs the transaction at `index`.
    pub(super) fn is_pinned(&self, index: usize) -> bool {
        self.pinned[index]
    }
}

/// Start of a transaction: flags, inputs, and the bytes after them.
struct Start<'a> {
    flags: u8,
    inputs: Vec<TxIn>,
    rest: &'a [u8],
}

/// Reads a transaction up to its inputs. HogEx's end is no Bitcoin transaction's, so nothing beyond is read here.
fn read(transaction: &TemplateTransaction) -> Result<Start<'_>, ExtensionError> {
    let parse = || {
        let mut rest = &transaction.raw[..];
        i32::consensus_decode(&mut rest)?;
        let inputs = Vec::<TxIn>::consensus_decode(&mut rest)?;
        // An empty list is the mark of a transaction with flags (BIP 144).
        if !inputs.is_empty() {
            return Ok(Start { flags: 0, inputs, rest });
        }
        let flags = u8::consensus_decode(&mut rest)?;
        let inputs = Vec::<TxIn>::consensus_decode(&mut rest)?;
        Ok(Start { flags, inputs, rest })
    };
    let unreadable =
        |error: DecodeError| ExtensionError::Unreadable { txid: transaction.txid, reason: error.to_string() };
    parse().map_err(unreadable)
}

fn check_hogex(hogex: &TemplateTransaction, index_of: &HashMap<Txid, usize>) -> Result<(), ExtensionError> {
    let wrong = |reason| Err(ExtensionError::NotHogEx(hogex.txid, reason));
    let Start { flags, inputs, mut rest } = read(hogex)?;
    if flags & MWEB_FLAG == 0 {
        return wrong("it lacks the MWEB flag");
    }
    let unreadable = |error: DecodeError| ExtensionError::Unreadable { txid: hogex.txid, reason: error.to_string() };
    let outputs = Vec::<TxOut>::consensus_decode(&mut rest).map_err(unreadable)?;
    if outputs.first().and_then(|output| output.script_pubkey.witness_version()) != Some(WitnessVersion::V8) {
        return wrong("its first output is no HogAddr");
    }
    // The first input is the last block's HogEx, except in the first block with an extension block.
    let unknown = |input: &&TxIn| !index_of.contains_key(&input.previous_output.txid);
    match inputs.iter().skip(1).find(unknown) {
        Some(input) => Err(ExtensionError::UnknownPegIn { hogex: hogex.txid, output: input.previous_output }),
        None => Ok(()),
    }
}

/// Index as stored: all transactions and inputs of a block are below 2^32.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
