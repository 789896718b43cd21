//! Payouts of a share chain of version 36 on the parent chain, computed share by share with code of the tests' own.

use bitcoin::BlockHash;
use p2pool::chain::store::Store;
use serde_json::json;
use sharechain::chain::share_rules;
use sharechain::coin::Network;
use sharechain::share::{MARKER_SCRIPT, Payout, Share, ShareHash};
use std::collections::{BTreeMap, HashMap};
use test_support::{Litecoind, Node};

/// A private network of version 36 from its first share on, whose merged chain is Dogecoin's test network.
pub(crate) const NETWORK: &str = r#"
BASE = "litecoin_regtest"
NAME = "v36"
IDENTIFIER = "7633362d74657374"
PREFIX = "7633362d70726566"
START_VERSION = 36
NEWEST_VERSION = 36
CHAIN_LENGTH = 20
REAL_CHAIN_LENGTH = 20
TARGET_LOOKBEHIND = 10
"#;

/// Shares in a window.
pub(crate) const LENGTH: usize = 20;

/// Shares on a node's disk.
pub(crate) fn shares_of(node: &Node, network: &'static Network) -> HashMap<ShareHash, Share> {
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join("shares");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(node.data_dir().join(network.name).join("shares")).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let (_, loaded) = Store::open(copy.path()).unwrap();
    let rules = share_rules(network);
    let parsed = loaded.shares.iter().map(|stored| Share::from_bytes(&stored.bytes, &rules).unwrap());
    parsed.map(|share| (share.hash(), share)).collect()
}

/// Output script of a share's payee, from its fields (protocol-v36 section 3.3).
fn script_of(share: &Share) -> Vec<u8> {
    let Payout::Hash { hash, kind } = &share.data().payout else { panic!("{:?}", share.data().payout) };
    match kind {
        1 => [&[0, 20][..], hash].concat(),
        2 => [&[0xa9, 20][..], hash, &[0x87]].concat(),
        _ => [&[0x76, 0xa9, 20][..], hash, &[0x88, 0xac]].concat(),
    }
}

/// Outputs due in the coinbase of `share`, computed share by share (protocol-v36 sections 4.1 to 4.3).
pub(crate) fn due(share: &Share, shares: &HashMap<ShareHash, Share>) -> Vec<(Vec<u8>, u64)> {
    let scale = 1_u128 << 40;
    let per_share = scale - scale * 693_147 / (1_000_000 * (LENGTH as u128 / 4));
    let (mut left, mut total) = (scale, 0_u128);
    let mut weights: BTreeMap<Vec<u8>, u128> = BTreeMap::new();
    let mut at = share.previous();
    for _ in 0..LENGTH {
        let Some(below) = at.map(|hash| &shares[&hash]) else { break };
        let attempts = (u128::try_from(below.attempts().0).unwrap() * left) >> 40;
        *weights.entry(script_of(below)).or_default() += attempts * u128::from(65_535 - below.data().donation);
        total += attempts * 65_535;
        (at, left) = (below.previous(), (left * per_share) >> 40);
    }
    let subsidy = share.data().subsidy;
    let part = |weight: u128| u64::try_from(u128::from(subsidy) * weight / total).unwrap();
    let mut paid: Vec<(u64, Vec<u8>)> = weights.into_iter().map(|(script, weight)| (part(weight), script)).collect();
    paid.sort();
    let mut rest = subsidy - paid.iter().map(|(amount, _)| amount).sum::<u64>();
    if let Some((largest, _)) = paid.last_mut().filter(|_| rest == 0) {
        *largest -= 1;
        rest = 1;
        paid.sort();
    }
    let outputs = paid.into_iter().filter(|(amount, _)| *amount > 0).map(|(amount, script)| (script, amount));
    outputs.chain([(MARKER_SCRIPT.to_vec(), rest)]).collect()
}

/// Outputs of a block's coinbase as the daemon shows them, without the witness commitment and the ref hash.
pub(crate) fn paid(daemon: &Litecoind, hash: BlockHash) -> Vec<(Vec<u8>, u64)> {
    let block = daemon.call("getblock", json!([hash, 2]));
    let outputs = block["tx"][0]["vout"].as_array().unwrap();
    let output = |output: &serde_json::Value| {
        let amount = bitcoin::Amount::from_btc(output["value"].as_f64().unwrap()).unwrap().to_sat();
        (hex::decode(output["scriptPubKey"]["hex"].as_str().unwrap()).unwrap(), amount)
    };
    outputs[1..outputs.len() - 1].iter().map(output).collect()
}
