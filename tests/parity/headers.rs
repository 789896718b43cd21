//! Rows about the header: proof of work, bits, time, version, parent.

use bitcoin::blockdata::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, consensus};

use crate::World;
use crate::draft::{mine, mine_badly};

pub(crate) fn rows(world: &mut World) {
    let good = world.draft().seal();
    world.pair.row("an unmet target", "high-hash", &mine_badly(good.clone()));
    for (name, bits) in
        [("a target beyond the limit", 0x2100_ffff), ("a negative target", 0x2080_0001), ("a target of zero", 0)]
    {
        let mut block = good.clone();
        block.header.bits = CompactTarget::from_consensus(bits);
        world.pair.row(name, "high-hash", &block);
    }
    let with_bits = |bits| {
        let mut block = good.clone();
        block.header.bits = CompactTarget::from_consensus(bits);
        mine(block)
    };
    world.pair.row("harder bits than asked for", "bad-diffbits", &with_bits(0x2000_ffff));
    world.pair.row("bits one below", "bad-diffbits", &with_bits(0x207f_fffe));
    let bytes = consensus::serialize(&good);
    world.pair.row_bytes("a block cut short", "Block decode failed", &bytes[..bytes.len() - 1]);
    world.pair.row_bytes("no block at all", "Block decode failed", &bytes[..40]);
    let orphan = world.draft().edit(|block| block.header.prev_blockhash = BlockHash::from_byte_array([1; 32]));
    world.bad("an unknown parent", "prev-blk-not-found", orphan);
    for version in [3, 2, 1, 0, -1] {
        let old = world.draft().edit(|block| block.header.version = Version::from_consensus(version));
        world.bad(&format!("version {version}"), &format!("bad-version(0x{version:08x})"), old);
    }
    let draft = world.draft().edit(|block| block.header.version = Version::from_consensus(4));
    world.good("version 4", draft);
    let draft = world.draft().edit(|block| block.header.version = Version::from_consensus(0x7fff_ffff));
    world.good("all version bits", draft);
    let trailing = [consensus::serialize(&world.draft().seal()), vec![1, 2, 3]].concat();
    world.pair.row_bytes("bytes after the end", "null", &trailing);
    world.pair.row_bytes("the tip again", "duplicate", &trailing);
    time_rows(world);
}

fn time_rows(world: &mut World) {
    // Blocks are a minute apart, so the median of eleven is five minutes before the tip.
    let median = world.draft().block.header.time - 6 * crate::SPACING;
    let now = world.pair.now();
    let at = |world: &World, time| world.draft().edit(|block| block.header.time = time);
    let draft = at(world, median);
    world.bad("the median time itself", "time-too-old", draft);
    let draft = at(world, 1);
    world.bad("long ago", "time-too-old", draft);
    let draft = at(world, now + 7201);
    let early = world.bad("two hours and a second ahead", "time-too-new", draft);
    let draft = at(world, u32::MAX);
    world.bad("the end of time", "time-too-new", draft);
    world.pair.row("the early block again", "time-too-new", &early);
    world.pair.set_now(now + 1);
    world.pair.row("the early block a second later", "null", &early);
    let draft = at(world, now + 7201);
    world.good("two hours ahead", draft);
    let draft = at(world, median + 2 * crate::SPACING + 1);
    world.good("just after the median time", draft);
}
