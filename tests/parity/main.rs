//! The embedded chain and the real bitcoind give the same verdict on a table of good and broken blocks.

#![expect(clippy::unwrap_used, reason = "all of this is a test, and a panic is how it fails")]

mod branches;
mod draft;
mod headers;
mod limits;
mod pair;
mod shape;
mod spends;
mod wallet;

use bitcoin::{Block, OutPoint, Transaction};
use std::collections::HashMap;

use draft::Draft;
use pair::Pair;
use wallet::{Coin, KINDS, Kind, Wallet, coins_of};

/// Blocks that both get before the table: enough for a few mature coinbases.
const BLOCKS_BEFORE: u32 = 110;
/// Time between blocks of the good chain.
const SPACING: u32 = 60;
const TIME_FIRST: u32 = pair::NOW - 100_000;
/// Coins of each kind available to the table.
const COINS_PER_KIND: usize = 40;

/// The two chains, and their spendable coins.
pub(crate) struct World {
    pub(crate) pair: Pair,
    pub(crate) wallet: Wallet,
    coins: HashMap<Kind, Vec<Coin>>,
    /// Coinbases of the first blocks, oldest first, with their heights.
    pub(crate) coinbases: Vec<(u32, Coin)>,
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { pair: Pair::start(), wallet: Wallet::new(), coins: HashMap::new(), coinbases: Vec::new() };
        for height in 1..=BLOCKS_BEFORE {
            let block = world.draft().seal();
            world.pair.extend(&block);
            world.coinbases.push((height, coins_of(&block.txdata[0], &[Kind::True]).remove(0)));
        }
        let mut fan_outs = Vec::new();
        for kind in KINDS {
            let (_, coin) = world.coinbases.remove(0);
            let kinds = [kind; COINS_PER_KIND];
            let fan_out = world.wallet.spend(&[coin], &kinds, 0);
            world.coins.insert(kind, coins_of(&fan_out, &kinds));
            fan_outs.push(fan_out);
        }
        let block = world.draft().with(fan_outs).seal();
        world.pair.extend(&block);
        world
    }

    /// Valid block on the tip, to be altered.
    pub(crate) fn draft(&self) -> Draft {
        let (tip, height) = self.pair.tip();
        Draft::new(tip, height + 1, TIME_FIRST + (height + 1) * SPACING)
    }

    /// Coin not used by any other row.
    pub(crate) fn coin(&mut self, kind: Kind) -> Coin {
        self.coins.get_mut(&kind).unwrap().pop().unwrap()
    }

    /// Transaction that spends such a coin to an output that anyone can spend, without a fee.
    pub(crate) fn spend(&mut self, kind: Kind) -> Transaction {
        let coin = self.coin(kind);
        self.wallet.spend(&[coin], &[Kind::True], 0)
    }

    pub(crate) fn good(&mut self, name: &str, draft: Draft) -> Block {
        self.bad(name, "null", draft)
    }

    pub(crate) fn bad(&mut self, name: &str, reason: &str, draft: Draft) -> Block {
        let block = draft.seal();
        self.pair.row(name, reason, &block);
        block
    }

    /// Extends the chain to this height with empty blocks.
    pub(crate) fn grow_to(&mut self, height: u32) {
        while self.pair.tip().1 < height {
            let block = self.draft().seal();
            self.pair.extend(&block);
        }
    }
}

/// First output of a transaction, as a coin.
pub(crate) fn first_output(transaction: &Transaction, kind: Kind) -> Coin {
    let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
    Coin { outpoint, output: transaction.output[0].clone(), kind }
}

#[test]
fn the_embedded_chain_and_bitcoind_give_the_same_verdict_on_every_block() {
    let mut world = World::new();
    headers::rows(&mut world);
    shape::rows(&mut world);
    shape::witness_rows(&mut world);
    spends::rows(&mut world);
    spends::script_rows(&mut world);
    spends::lock_rows(&mut world);
    limits::rows(&mut world);
    branches::rows(&mut world);
    limits::halving_rows(&mut world);
    world.pair.finish();
}
