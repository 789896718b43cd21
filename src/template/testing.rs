//! Transactions and templates with an extension block, for tests.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use bytes::Bytes;

use super::{TemplateParts, TemplateTransaction};

/// Bytes of an extension block, with the mark of its presence.
pub(crate) const SUFFIX: [u8; 3] = [1, 0xaa, 0xbb];

fn bytes(inputs: impl IntoIterator<Item = OutPoint>, script: ScriptBuf) -> Transaction {
    let input = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.into_iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(1000), script_pubkey: script }],
    }
}

fn outputs_of(transactions: &[Txid]) -> impl Iterator<Item = OutPoint> {
    transactions.iter().map(|txid| OutPoint::new(*txid, 0))
}

/// A transaction that spends a confirmed output with this `number` and outputs of `parents`. Its weight is stated.
pub(crate) fn spending(number: u32, parents: &[Txid], fee: u64, weight: u64) -> TemplateTransaction {
    use bitcoin::hashes::Hash;
    let confirmed = OutPoint::new(Txid::from_byte_array([9; 32]), number);
    let transaction = bytes(std::iter::once(confirmed).chain(outputs_of(parents)), ScriptBuf::from_bytes(vec![0x51]));
    TemplateTransaction {
        txid: transaction.compute_txid(),
        wtxid: transaction.compute_wtxid(),
        fee,
        weight,
        sigops: 4,
        raw: serialize(&transaction).into(),
    }
}

/// The last transaction of a block with an extension block: spends the last one's output, and those of `peg_ins`.
pub(crate) fn hogex(peg_ins: &[Txid]) -> TemplateTransaction {
    use bitcoin::hashes::Hash;
    let last = OutPoint::new(Txid::from_byte_array([8; 32]), 0);
    let address = ScriptBuf::from_bytes([&[0x58, 0x20][..], &[7; 32]].concat());
    let transaction = bytes(std::iter::once(last).chain(outputs_of(peg_ins)), address);
    let plain = serialize(&transaction);
    // Flag 8 before the inputs, and a null MWEB transaction before the lock time.
    let (version, rest) = plain.split_at(4);
    let (rest, lock_time) = rest.split_at(rest.len() - 4);
    TemplateTransaction {
        txid: transaction.compute_txid(),
        wtxid: transaction.compute_wtxid(),
        fee: 500,
        weight: transaction.weight().to_wu(),
        sigops: 0,
        raw: Bytes::from([version, &[0, 8], rest, &[0], lock_time].concat()),
    }
}

/// Parts of a template with an extension block: `transactions`, and a HogEx that spends `peg_ins`.
pub(crate) fn with_extension(mut transactions: Vec<TemplateTransaction>, peg_ins: &[Txid]) -> TemplateParts {
    transactions.push(hogex(peg_ins));
    TemplateParts { transactions, suffix: SUFFIX.to_vec(), ..super::tests::parts() }
}
