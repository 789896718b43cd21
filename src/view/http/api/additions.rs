//! Fields that shares of version 36 have beside the others (protocol-v36 section 3.1).

use bitcoin::Script;
use bitcoin::hashes::{Hash, sha256d};
use serde::Serialize;
use sharechain::coin::Network;
use sharechain::share::{Additions, MergedAddress, MergedCoinbase, display_hex};
use utoipa::ToSchema;

/// Maximum number of entries of each list in an answer: an honest share has one for each merged chain.
const ENTRIES_MAX: usize = 20;

/// Fields of share version 36.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ShareAdditions {
    /// Payees of the share's miner on merged chains, 20 at most.
    merged_addresses: Vec<MergedPayee>,
    /// Blocks of merged chains that the share's work is for, with a proof that they pay the miners, 20 at most.
    merged_blocks: Vec<MergedShareBlock>,
    /// Commitment to the weights on the merged chain; null if there are none.
    merged_payout_hash: Option<String>,
    /// Size of the authorities' messages that the share carries, in bytes; 0 without any. `/api/v1/summary` has their
    /// texts.
    message_bytes: usize,
}

/// Payee on a merged chain.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct MergedPayee {
    /// Chain id of the merged chain.
    chain_id: u32,
    /// Name of the merged chain, if its blocks can pay the miners.
    chain: Option<String>,
    /// Output script, hex.
    script: String,
    /// Address of the script; null if it has none, or the chain is another.
    address: Option<String>,
}

/// Block of a merged chain that a share's work is for.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct MergedShareBlock {
    /// Chain id of the merged chain.
    chain_id: u32,
    /// Name of the merged chain, if its blocks can pay the miners.
    chain: Option<String>,
    /// Height of the block.
    height: u64,
    /// Total of its coinbase, in hundred-millionths of the chain's coin.
    value: u64,
    /// Hash of the block.
    hash: String,
}

/// Name of the merged chain with this id, if its blocks can pay the miners.
fn chain_name(network: &Network, chain_id: u32) -> Option<String> {
    let chain = network.paid_merged_chain().filter(|chain| chain.chain_id == chain_id)?;
    Some(chain.name.to_owned())
}

impl ShareAdditions {
    /// Returns the fields of a share of `network`.
    pub(super) fn of(additions: &Additions, network: &Network) -> Self {
        let payee = |entry: &MergedAddress| MergedPayee {
            chain_id: entry.chain_id,
            chain: chain_name(network, entry.chain_id),
            script: hex::encode(&entry.script),
            address: network
                .paid_merged_chain()
                .filter(|chain| chain.chain_id == entry.chain_id)
                .and_then(|chain| chain.address_of(Script::from_bytes(&entry.script))),
        };
        let block = |entry: &MergedCoinbase| MergedShareBlock {
            chain_id: entry.chain_id,
            chain: chain_name(network, entry.chain_id),
            height: entry.height,
            value: entry.value,
            hash: display_hex(&sha256d::Hash::hash(&entry.header).to_byte_array()),
        };
        Self {
            merged_addresses: additions.merged_addresses.iter().take(ENTRIES_MAX).map(payee).collect(),
            merged_blocks: additions.merged_coinbase_info.iter().take(ENTRIES_MAX).map(block).collect(),
            merged_payout_hash: additions.merged_payout_hash.as_ref().map(display_hex),
            message_bytes: additions.message_data.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{DOGECOIN, LITECOIN};

    #[test]
    fn addresses_are_those_of_the_chain_that_can_pay_miners_and_lists_are_bounded() {
        let network = Network { newest_version: 36, merged_chain: Some(&DOGECOIN), ..LITECOIN };
        let script = hex::decode(format!("76a914{}88ac", "07".repeat(20))).unwrap();
        let entry = |chain_id| MergedAddress { chain_id, script: script.clone().into() };
        let block =
            MergedCoinbase { chain_id: 98, value: 5, height: 6, header: [0; 80], branch: [].into(), script: [].into() };
        let additions = Additions {
            merged_addresses: (0..1000).map(|number| entry(98 + number)).collect(),
            merged_coinbase_info: [block].into(),
            ..Additions::default()
        };
        let shown = ShareAdditions::of(&additions, &network);
        assert_eq!(shown.merged_addresses.len(), ENTRIES_MAX);
        let [doge, other] = &shown.merged_addresses[..2] else { panic!("{shown:?}") };
        assert!(doge.address.as_ref().is_some_and(|address| address.starts_with('D')), "{doge:?}");
        assert_eq!((doge.chain.as_deref(), &other.chain, &other.address), (Some("dogecoin"), &None, &None));
        let block = &shown.merged_blocks[0];
        assert_eq!((block.value, block.height, block.hash.len()), (5, 6, 64));
        assert_eq!((shown.merged_payout_hash, shown.message_bytes), (None, 0));
    }
}
