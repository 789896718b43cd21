//! Rows about branches: blocks beside the best chain, reorganisations, and blocks whose parents are bad or missing.

use bitcoin::{Block, Witness};

use crate::draft::Draft;
use crate::wallet::Kind;
use crate::{World, first_output};

/// Valid block on any other; `salt` distinguishes it from its siblings.
fn on(parent: &Block, height: u32, salt: i64) -> Draft {
    Draft::new(parent.block_hash(), height, parent.header.time + crate::SPACING).pay(-salt)
}

pub(crate) fn rows(world: &mut World) {
    let base = world.draft();
    let base = world.good("the fork", base);
    let height = world.pair.tip().1;
    reorganisation_rows(world, &base, height);
    bad_branch_rows(world);
    missing_body_rows(world);
}

fn reorganisation_rows(world: &mut World, base: &Block, height: u32) {
    let coin = world.coin(Kind::Wpkh);
    let ours = world.wallet.spend(std::slice::from_ref(&coin), &[Kind::Tr], 0);
    let theirs = world.wallet.spend(&[coin], &[Kind::Pkh], 0);
    let a1 = world.bad("the first block of its height", "null", on(base, height + 1, 1).with([ours.clone()]).commit());
    let b1 = world.bad("the second one", "inconclusive", on(base, height + 1, 2).with([theirs.clone()]).commit());
    world.pair.row("the second one again", "duplicate", &b1);
    world.pair.row("the first one again", "duplicate", &a1);
    let child = world.wallet.spend(&[first_output(&theirs, Kind::Pkh)], &[Kind::True], 0);
    let b2 = world.bad("a child that overtakes", "null", on(&b1, height + 2, 0).with([child]));
    world.pair.row("the first one, now beside the best chain", "duplicate", &a1);
    let a2 = world.bad("the other branch catches up", "inconclusive", on(&a1, height + 2, 0));
    let spend = world.wallet.spend(&[first_output(&ours, Kind::Tr)], &[Kind::True], 0);
    let a3 = world.bad("and overtakes again", "null", on(&a2, height + 3, 0).with([spend]).commit());
    let lost = world.wallet.spend(&[first_output(&theirs, Kind::Pkh)], &[Kind::Tr], 0);
    let draft = on(&a3, height + 4, 0).with([lost]);
    world.bad("a coin of the lost branch", "bad-txns-inputs-missingorspent", draft);
    world.bad("far behind the tip", "inconclusive", on(base, height + 1, 3));
    drop(b2);
}

fn bad_branch_rows(world: &mut World) {
    let fork = world.draft();
    let fork = world.good("another fork", fork);
    let height = world.pair.tip().1;
    let tip = world.bad("its good child", "null", on(&fork, height + 1, 0));
    let bad = world.bad("a greedy sibling, not connected yet", "inconclusive", on(&fork, height + 1, -1));
    let over = world.bad("its child, which would overtake", "inconclusive", on(&bad, height + 2, 0));
    world.pair.row("the child again", "duplicate-invalid", &over);
    world.pair.row("the greedy sibling again", "duplicate-invalid", &bad);
    world.bad("a grandchild", "bad-prevblk", on(&over, height + 3, 0));
    // Two good blocks and a bad one: without a better tip than the old one, nothing changes.
    let tip2 = world.bad("the good branch grows", "null", on(&tip, height + 2, 0));
    let c1 = world.bad("a rival's first block", "inconclusive", on(&fork, height + 1, 5));
    let c2 = world.bad("its second one", "inconclusive", on(&c1, height + 2, 5));
    let c3 = world.bad("its third one, which is bad", "bad-cb-amount", on(&c2, height + 3, -1));
    world.pair.row("the third again", "duplicate-invalid", &c3);
    world.bad("another third one, which is good", "null", on(&c2, height + 3, 7));
    world.pair.row("the lost tip again", "duplicate", &tip2);
}

fn missing_body_rows(world: &mut World) {
    let height = world.pair.tip().1;
    let spend = world.spend(Kind::Wpkh);
    let parent = world.draft().with([spend]).commit().seal();
    let mut mutated = parent.clone();
    mutated.txdata[0].input[0].witness = Witness::from_slice(&[[3_u8; 32]]);
    world.pair.row("a parent with a mutated witness", "bad-witness-merkle-match", &mutated);
    let child = world.bad("a child of the header alone", "inconclusive", on(&parent, height + 2, 0));
    world.pair.row("the child again, still waiting", "duplicate", &child);
    world.bad("a bad child of the header alone", "bad-cb-height", on(&parent, height + 3, 0));
    world.pair.row("the parent as it was mined", "null", &parent);
    assert_eq!(world.pair.tip().0, child.block_hash(), "the waiting child is the tip now");
}
