//! A share chain of version 36 on a real `litecoind`: blocks that it accepts, their payouts by a computation of the
//! test's own, and a second node that checks every share.

use bitcoin::hashes::Hash;
use sharechain::chain::share_rules;
use sharechain::coin::{self, Network};
use sharechain::share::{Payee, ShareHash};
use test_support::{Litecoind, NodeBuilder, StratumClient, metric_value, wait_until};

use crate::window::{NETWORK, due, paid, shares_of};
use crate::{LIMIT, P2POOL, job_on_tip, miner_name};

/// Blocks that the miners find, more than a window.
const BLOCKS: usize = 27;

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
        let solution = job_on_tip(&mut miners[turn], &daemon).solve_hard_block_with_scrypt();
        assert_eq!(miners[turn].submit(&users[turn], &solution), Ok(true));
        wait_until("litecoind has the block", LIMIT, || daemon.best_block_hash() == solution.hash);
        found.push(solution.hash);
    }

    let hashes: Vec<ShareHash> = found.iter().map(|hash| ShareHash(hash.to_byte_array())).collect();
    for node in [&node, &other] {
        let mut shares = shares_of(node, network);
        wait_until("the shares are kept", LIMIT, || {
            shares = shares_of(node, network);
            hashes.iter().all(|hash| shares.contains_key(hash))
        });
        for (block, share) in found.iter().zip(&hashes).map(|(block, hash)| (block, &shares[hash])) {
            assert_eq!(share.version().number(), 36);
            assert_eq!(paid(&daemon, *block), due(share, &shares), "{block}");
        }
        assert_eq!(metric_value(&node.metrics(), "sharechain_refused_shares_total{"), Some(0.0));
    }
}
