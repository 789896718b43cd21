//! Unusually long shares: extended in transit, or mined so.

use p2pool::chain::store::Store;
use sharechain::chain::Sharechain;
use sharechain::share::{Contents, SegwitData, Share, ShareHash, pack};
use sharechain::testkit::{self, share_on};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use test_support::peer_client::{parse_shares, reply_payload, shares_payload};
use test_support::{Node, PeerClient, ShareRequest, metric_value, wait_until};

use crate::arena::{OFFENCES, arena, plan};

/// Number of shares in the chain at the start of the cases.
const LENGTH: usize = 6;

/// Time limit for megabytes to pass three nodes, on a loaded machine.
const AGREEMENT: Duration = Duration::from_secs(40);

/// Extends a share without any work: 3.8 MB under the same hash.
fn inflated(share: &Share) -> Vec<u8> {
    let merkle_branch = vec![[0x99; 32]; 120_000].into();
    pack(&Contents { merkle_branch, ..share.contents().clone() })
}

/// Share on top of `parent` whose proof of work commits to five megabytes.
fn mined_long(chain: &mut Sharechain, parent: ShareHash) -> Arc<Share> {
    let tip = chain.tip_at(Some(parent));
    let mut info = testkit::info(chain, &tip, &plan(3));
    let txid_merkle_branch = vec![[0x55; 32]; 5_000_000 / 32].into();
    info.segwit_data = Some(SegwitData { txid_merkle_branch, wtxid_merkle_root: [0; 32] });
    testkit::find(chain, &tip, &plan(3), info)
}

fn send(peer: &mut PeerClient, share: &[u8]) {
    peer.send("shares", &shares_payload(&[share.to_vec()]));
}

fn metric(node: &Node, name: &str) -> f64 {
    metric_value(&node.metrics(), name).unwrap_or(0.0)
}

/// Waits until the best shares of all nodes have this height.
fn wait_for_height(nodes: &[&Node], height: usize) {
    for node in nodes {
        wait_until(&format!("{} is at height {height}", node.pool_address()), AGREEMENT, || {
            metric(node, "sharechain_height ") == height as f64
        });
    }
}

/// Bytes that a node has on disk for each share.
fn stored(node: &Node) -> HashMap<ShareHash, Box<[u8]>> {
    let loaded = Store::read_only(&node.data_dir().join("easy")).expect("the store can be read");
    assert_eq!(loaded.problems, [""; 0]);
    loaded.shares.into_iter().map(|share| (share.hash, share.bytes)).collect()
}

#[test]
fn inflated_shares_go_through_three_nodes_as_they_were_mined_and_so_does_one_mined_long_and_all_outlive_a_restart() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let middle = arena.neighbour(2, arena.node.pool_address());
        let last = arena.neighbour(3, middle.pool_address());
        wait_for_height(&[&middle, &last], LENGTH);
        let mut chain = arena.chain(tip);
        let parent = share_on(&mut chain, Some(tip), &plan(1));
        chain.add(parent.clone(), None, 0.0);
        let child = share_on(&mut chain, Some(parent.hash()), &plan(2));
        chain.add(child.clone(), None, 0.0);

        // The child before its parent, both 3.8 MB long.
        let mut vandal = arena.acquaintance(1);
        send(&mut vandal, &inflated(&child));
        let request = ShareRequest::parse(&vandal.wait_for("sharereq"));
        assert_eq!(request.hashes, [parent.hash().0]);
        vandal.send("sharereply", &reply_payload(request.id, &[inflated(&parent)]));
        let passed_on = arena.friend.try_wait_for(AGREEMENT, |frame| {
            frame.command == "shares" && parse_shares(&frame.payload) == [child.to_bytes(), parent.to_bytes()]
        });
        assert!(passed_on.is_ok(), "the honest peer does not get them as they were mined");
        wait_for_height(&[&arena.node, &middle, &last], LENGTH + 2);

        let long = mined_long(&mut chain, child.hash());
        assert!(long.to_bytes().len() > 5_000_000);
        let mut miner = arena.acquaintance(2);
        send(&mut miner, &long.to_bytes());
        let passed_on = arena.friend.try_wait_for(AGREEMENT, |frame| {
            frame.command == "shares" && parse_shares(&frame.payload) == [long.to_bytes()]
        });
        assert!(passed_on.is_ok(), "the honest peer does not get the long share");
        wait_for_height(&[&arena.node, &middle, &last], LENGTH + 3);
        // A peer that requests it gets it, with its ancestors.
        let fetched = arena.fetch(long.hash());
        assert_eq!((fetched.len(), &fetched[0]), (LENGTH + 3, &long.to_bytes()));
        arena.check_tolerated(&mut vandal);
        arena.check_tolerated(&mut miner);
        for node in [&middle, &last] {
            assert_eq!(metric(node, OFFENCES), 0.0, "an honest neighbour is blamed");
            assert_eq!(metric(node, "p2p_bans "), 0.0);
        }

        // From its own disk, as no other node is left.
        drop((middle, last));
        assert_eq!(arena.node.terminate().status.code(), Some(0));
        let kept = stored(&arena.node);
        for share in [&parent, &child, &long] {
            assert!(kept.get(&share.hash()).is_some_and(|bytes| **bytes == share.to_bytes()), "{}", share.hash());
        }
        arena.node.restart();
        arena.meet_again();
        wait_for_height(&[&arena.node], LENGTH + 3);
    });
}

#[test]
fn loose_shares_that_anyone_made_longer_take_no_more_memory_than_they_were_mined_with() {
    arena(&[], |arena| {
        let tip = arena.mine_many(LENGTH);
        let before = arena.node.memory_peak();
        let mut chain = arena.chain(tip);
        let tip_of = chain.tip_at(Some(tip));
        let mut vandals = [arena.acquaintance(1), arena.acquaintance(2)];
        // Below the limit of what a peer may send at once.
        for count in 0..36_u8 {
            let mut info = testkit::info(&chain, &tip_of, &plan(3));
            info.share_data.previous = Some(ShareHash([count + 1; 32]));
            let share = testkit::find(&chain, &tip_of, &plan(3), info);
            send(&mut vandals[usize::from(count % 2)], &inflated(&share));
        }
        wait_until("all are taken", AGREEMENT, || arena.metric("sharechain_shares ") == (LENGTH + 36) as f64);
        assert_eq!(arena.metric(OFFENCES), 0.0, "this is no offence");
        // Of 138 MB, a few messages that are being read, and memory not yet returned by the allocator.
        let gained = arena.node.memory_peak() - before;
        assert!(gained < 100_000_000, "it gained {gained} bytes");
    });
}
