//! Abuse of transaction forwarding.

use test_support::peer_client::{hashes_with_count, var_int};

use crate::arena::arena;

/// Unknown transaction without witness, of about this many bytes.
fn transaction(bytes: usize) -> Vec<u8> {
    let mut transaction = 1_u32.to_le_bytes().to_vec();
    transaction.push(1);
    transaction.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(32));
    transaction.extend(0_u32.to_le_bytes());
    transaction.extend(var_int(0));
    transaction.extend(u32::MAX.to_le_bytes());
    transaction.push(1);
    transaction.extend(0_u64.to_le_bytes());
    transaction.extend(var_int(bytes as u64));
    transaction.extend(vec![0x6a; bytes]);
    transaction.extend(0_u32.to_le_bytes());
    transaction
}

/// Payload of `remember_tx`.
fn remember(hashes: &[[u8; 32]], transactions: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = hashes_with_count(hashes);
    payload.extend(var_int(transactions.len() as u64));
    payload.extend(transactions.concat());
    payload
}

#[test]
fn transactions_may_be_told_at_any_time() {
    arena(&[], |arena| {
        let mut teller = arena.acquaintance(1);
        let one = transaction(200);
        let hash =
            bitcoin::hashes::Hash::to_byte_array(<bitcoin::hashes::sha256d::Hash as bitcoin::hashes::Hash>::hash(&one));
        teller.send("have_tx", &hashes_with_count(&[[1; 32], [2; 32]]));
        teller.send("losing_tx", &hashes_with_count(&[[2; 32], [3; 32]]));
        teller.send("remember_tx", &remember(&[], &[one, transaction(200)]));
        teller.send("forget_tx", &hashes_with_count(&[hash]));
        arena.check_tolerated(&mut teller);
    });
}

#[test]
fn where_no_share_lists_transactions_megabytes_of_them_take_no_memory_and_are_no_offence() {
    arena(&[], |arena| {
        arena.mine_many(2);
        let before = arena.node.memory_peak();
        let mut heavy = arena.acquaintance(1);
        // 2 MB in each message.
        for _ in 0..13 {
            let transactions: Vec<Vec<u8>> = (0..20).map(|_| transaction(100_000)).collect();
            heavy.send("remember_tx", &remember(&[], &transactions));
        }
        // Nor does it matter whether one was told before.
        let payload = remember(&[], &[transaction(200)]);
        heavy.send("remember_tx", &payload);
        heavy.send("remember_tx", &payload);
        heavy.send("remember_tx", &remember(&[[7; 32]], &[]));
        heavy.send("forget_tx", &hashes_with_count(&[[8; 32]]));
        heavy.ask_for_shares(&test_support::ShareRequest::of([0; 32], 0));
        arena.check_tolerated(&mut heavy);
        let gained = arena.node.memory_peak() - before;
        assert!(gained < 24_000_000, "it gained {gained} bytes");
    });
}

#[test]
fn hashes_of_transactions_without_end_take_little_memory() {
    arena(&[], |arena| {
        let before = arena.node.memory_peak();
        let mut verbose = arena.acquaintance(1);
        for round in 0..20_u8 {
            let hashes: Vec<[u8; 32]> = (0..20_000_u32)
                .map(|number| {
                    let mut hash = [round; 32];
                    hash[..4].copy_from_slice(&number.to_le_bytes());
                    hash
                })
                .collect();
            verbose.send("have_tx", &hashes_with_count(&hashes));
        }
        arena.check_service();
        let gained = arena.node.memory_peak() - before;
        assert!(gained < 24_000_000, "it gained {gained} bytes");
    });
}
