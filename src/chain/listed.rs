//! Transactions by which shares that list theirs are judged: those of the recent templates.

use sharechain::chain::KnownTransaction;
use sharechain::merkle::Digest;
use std::collections::HashMap;

use crate::template::{RecentTemplates, TemplateTransaction};

/// The transactions of `templates`, by the hash over all of their bytes.
pub(super) fn known_transactions(templates: &RecentTemplates) -> HashMap<Digest, KnownTransaction> {
    templates.transactions().map(|(wtxid, one)| (*wtxid, known(one))).collect()
}

fn known(one: &TemplateTransaction) -> KnownTransaction {
    // Weight counts the stripped size three times and the full size once.
    let stripped = one.weight.saturating_sub(one.raw.len() as u64) / 3;
    KnownTransaction { fee: Some(one.fee), stripped_size: u32::try_from(stripped).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::{Transaction, Witness};

    #[test]
    fn the_stripped_size_follows_from_weight_and_size() {
        let raw = concat!(
            "01000000000101db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b",
            "000000001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fe",
            "a7ad0402e8bd8ad6d77c88ac02473044022047ac8e878352d3ebbde1c94ce3a10d057c24175747116f8288e5d794d12d482f0220",
            "217f36a485cae903c713331d877c1f64677e3622ad4010726870540656fe9dcb012103ad1d8e89212f0b92c74d23bb710c00662a",
            "d1470198ac48c43f7d6f93a2a2687392040000"
        );
        let raw = hex::decode(raw).unwrap();
        let mut transaction: Transaction = deserialize(&raw).unwrap();
        let one = TemplateTransaction {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            fee: 1000,
            weight: transaction.weight().to_wu(),
            sigops: 4,
            raw: raw.into(),
        };
        transaction.input[0].witness = Witness::new();
        let stripped_size = u32::try_from(serialize(&transaction).len()).unwrap();
        assert_eq!(known(&one), KnownTransaction { fee: Some(1000), stripped_size });
    }
}
