//! A share chain of version 36 on a real `litecoind`: blocks that it accepts, their payouts by a computation of the
//! test's own, and a second node that checks every share.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use p2pool::chain::store::Store;
use serde_json::json;
use sharechain::chain::share_rules;
use sharechain::coin::{self, Network};
use sharechain::share::{MARKER_SCRIPT, Payee, Payout, Share, ShareHash};
use std::collections::{BTreeMap, HashMap};
use test_support::{Litecoind, Node, NodeBuilder, StratumClient, metric_value, wait_until};

use crate::{LIMIT, P2POOL, job_on_tip, miner_name};

/// Shares in a window.
const LENGTH: usize = 20;

/// Blocks that the miners find, more than a window.
const BLOCKS: usize = 27;

/// A private network of version 36 from its first share on.
const NETWORK: &str = r#"
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

/// Shares on a node's disk.
fn shares_of(node: &Node, network: &'static Network) -> HashMap<ShareHash, Share> {
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
fn due(share: &Share, shares: &HashMap<ShareHash, Share>) -> Vec<(Vec<u8>, u64)> {
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
fn paid(daemon: &Litecoind, hash: BlockHash) -> Vec<(Vec<u8>, u64)> {
    let block = daemon.call("getblock", json!([hash, 2]));
    let outputs = block["tx"][0]["vout"].as_array().unwrap();
    let output = |output: &serde_json::Value| {
        let amount = bitcoin::Amount::from_btc(output["value"].as_f64().unwrap()).unwrap().to_sat();
        (hex::decode(output["scriptPubKey"]["hex"].as_str().unwrap()).unwrap(), amount)
    };
    outputs[1..outputs.len() - 1].iter().map(output).collect()
}

#[test]
fn blocks_of_version_36_pay_the_window_to_the_litoshi_and_other_nodes_agree_with_every_share() {
    let daemon = Litecoind::start_with_mweb();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v36.toml");
    std::fs::write(&file, NETWORK).unwrap();
    let network: &'static Network = Box::leak(Box::new(coin::from_toml(NETWORK).unwrap()));
    let net = file.to_str().unwrap();
    let node = NodeBuilder::new(P2POOL, &daemon).network(net).start();
    let other = NodeBuilder::new(P2POOL, &daemon).network(net).peer(node.pool_address()).start();

    let rules = share_rules(network);
    let users: Vec<String> =
        (0..3).map(|kind| miner_name(Payee::from_hash(kind, &[kind + 1; 20], &rules).as_str())).collect();
    let mut miners: Vec<_> = users.iter().map(|user| StratumClient::ready(node.worker_port(), user)).collect();
    let mut found = Vec::new();
    for number in 0..BLOCKS {
        // Of the three kinds in turn, one more often than the others.
        let turn = [0, 1, 0, 2][number % 4];
        let solution = job_on_tip(&mut miners[turn], &daemon).solve_block_with_scrypt();
        assert_eq!(miners[turn].submit(&users[turn], &solution), Ok(true));
        wait_until("litecoind has the block", LIMIT, || daemon.best_block_hash() == solution.hash);
        found.push(solution.hash);
    }

    let last = ShareHash(found[BLOCKS - 1].to_byte_array());
    for node in [&node, &other] {
        wait_until("the last share is kept", LIMIT, || shares_of(node, network).contains_key(&last));
        let shares = shares_of(node, network);
        for hash in &found {
            let share = &shares[&ShareHash(hash.to_byte_array())];
            assert_eq!(share.version().number(), 36);
            assert_eq!(paid(&daemon, *hash), due(share, &shares), "{hash}");
        }
        assert_eq!(metric_value(&node.metrics(), "sharechain_refused_shares_total"), None);
    }
}
