//! Rows about limits of a block: signature operations, weight, subsidy.

use bitcoin::{Amount, ScriptBuf, TxOut};

use crate::World;
use crate::draft::{Draft, subsidy};
use crate::wallet::Kind;

const WEIGHT_MAX: u64 = 4_000_000;

pub(crate) fn rows(world: &mut World) {
    let draft = with_sigops(world, 20_001);
    let many = world.bad("20 001 signature operations", "bad-blk-sigops", draft);
    world.pair.row("the same again", "bad-blk-sigops", &many);
    let draft = with_sigops(world, 20_000);
    world.good("20 000 signature operations", draft);
    // The coins determine the cost of a witness or a P2SH input: one each, and four.
    let spends: Vec<_> = (0..5).map(|_| world.spend(Kind::Wpkh)).collect();
    let draft = with_sigops(world, 19_999).with(spends.clone()).commit();
    let many = world.bad("one witness operation too many", "bad-blk-sigops", draft);
    world.pair.row("the same, now known", "duplicate-invalid", &many);
    let draft = with_sigops(world, 19_999).with(spends[..4].to_vec()).commit();
    world.good("as many witness operations as may be", draft);
    let spend = world.spend(Kind::Sh);
    let draft = with_sigops(world, 20_000).with([spend.clone()]);
    world.bad("one P2SH operation too many", "bad-blk-sigops", draft);
    let draft = with_sigops(world, 19_999).with([spend]);
    world.good("as many P2SH operations as may be", draft);

    // The witnesses are 36 weight units here, so the rest can be filled to the byte.
    let draft = padded(world, WEIGHT_MAX);
    assert_eq!(draft.block.weight().to_wu(), WEIGHT_MAX);
    world.good("4 000 000 weight units", draft);
    let draft = padded(world, WEIGHT_MAX + 4);
    let heavy = world.bad("4 000 004 weight units", "bad-blk-weight", draft);
    world.pair.row("the heavy block again", "duplicate-invalid", &heavy);
    let draft = padded(world, WEIGHT_MAX + 40);
    world.bad("1 000 001 bytes without witnesses", "bad-blk-length", draft);
}

/// Block whose coinbase has outputs with this many legacy signature operations in total.
fn with_sigops(world: &World, count: usize) -> Draft {
    let half = count / 2;
    world.draft().edit(|block| {
        for part in [half, count - half] {
            // OP_CHECKSIG, once for each.
            let script_pubkey = ScriptBuf::from_bytes(vec![0xac; part]);
            block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
        }
    })
}

/// Block with a commitment, padded by an output of the coinbase.
fn padded(world: &World, weight: u64) -> Draft {
    let with = |length: usize| {
        let mut script = vec![0; length];
        script[0] = 0x6a;
        world
            .draft()
            .edit(|block| {
                let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
                block.txdata[0].output.push(output);
            })
            .commit()
    };
    let start = 900_000;
    let missing = weight - with(start).block.weight().to_wu();
    assert_eq!(missing % 4, 0);
    with(start + usize::try_from(missing / 4).unwrap())
}

pub(crate) fn halving_rows(world: &mut World) {
    let halving = (world.pair.tip().1 / 150 + 1) * 150;
    world.grow_to(halving - 1);
    let before = i64::try_from(subsidy(halving - 1)).unwrap();
    let after = i64::try_from(subsidy(halving)).unwrap();
    let draft = world.draft().pay(before - after);
    world.bad("yesterday's subsidy", "bad-cb-amount", draft);
    let draft = world.draft();
    world.good("half of it", draft);
    let draft = world.draft().pay(1);
    world.bad("half and a satoshi", "bad-cb-amount", draft);
}
