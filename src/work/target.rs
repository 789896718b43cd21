//! Share difficulty of a payout: the node's own choice within the chain's limits (protocol section 9.4). Also converts
//! targets between the share chain and the miners: the two libraries know nothing of each other.

use sharechain::chain::NextShare;
use sharechain::coin::Network;
use sharechain::rules::Layout;
use sharechain::share::Target;
use stratum::Difficulty;

/// Maximum part of the pool's shares that one node aims for, so that a farm does not fill the chain alone.
const NODE_SHARES_MAX: f64 = 0.0167;

/// Part of the pool's hash rate from which a node counts as the pool (as in the old node): it would only slow itself.
const ALONE: f64 = 0.9;

/// Weight of one hash without a donation.
const WEIGHT_OF_HASH: f64 = 65_535.0;

/// Number of submissions from which the node's own hash rate is known well enough: to 14 %.
const SUBMISSIONS_KNOWN: u64 = 50;

/// Miners' rates when work is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Miners {
    /// Number of submissions that the rates are based on.
    pub(super) submissions: u64,
    /// Hash rate of all miners of this node, per second.
    pub(super) node_rate: f64,
    /// Hash rate of the payee in question, per second.
    pub(super) payee_rate: f64,
    /// Hash rate of the whole pool, per second; `None` while its chain is younger than an hour.
    pub(super) pool_rate: Option<f64>,
}

/// Block being mined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    /// Average number of hashes that its reward is shared out by: one of them gets `value / window`.
    pub(super) window: f64,
    /// Its reward, in base units.
    pub(super) value: u64,
}

/// Hashes that a block on top of `next` shares its reward out by. Before version 36, a window ends where its shares
/// have as much work as SPREAD blocks need. From version 36 on, its length is fixed and its shares fade, so it is the
/// work that they still count for (protocol-v36 section 4.1); the reference left its rule at SPREAD blocks.
pub(super) fn window(next: &NextShare, block_target: Target, network: &Network) -> f64 {
    match next.version.rules().layout {
        Layout::Classic => f64::from(block_target.attempts().0) * f64::from(network.spread),
        Layout::Merged => f64::from(next.weights.total) / WEIGHT_OF_HASH,
    }
}

/// Target that a share should have; the chain clips it. A share difficulty in the user name alone decides.
pub(super) fn desired(
    wish: Option<Difficulty>,
    miners: Miners,
    block: Block,
    donation_percent: f64,
    network: &Network,
) -> Target {
    if let Some(wish) = wish {
        return of_difficulty(wish);
    }
    let mut attempts = 0.0_f64;
    let is_alone = miners.pool_rate.is_none_or(|pool_rate| miners.node_rate >= ALONE * pool_rate);
    if miners.submissions >= SUBMISSIONS_KNOWN && !is_alone {
        attempts = attempts.max(miners.node_rate * f64::from(network.share_period) / NODE_SHARES_MAX);
    }
    if let Some(pool_rate) = miners.pool_rate.filter(|rate| *rate > 0.0) {
        #[expect(clippy::cast_precision_loss, reason = "a wish needs no more than 53 bits")]
        let (value, dust) = (block.value as f64, network.parent.dust_threshold as f64);
        let expected = miners.payee_rate / pool_rate * value * (1.0 - donation_percent / 100.0);
        if expected < dust {
            // Fewer and heavier shares: one of them pays more than dust.
            attempts = attempts.max(block.window * dust / value);
        }
    }
    Difficulty::from_average_hashes(attempts).map_or(Target::MAX_256, of_difficulty)
}

/// Share chain target for `difficulty`, rounded down.
pub fn of_difficulty(difficulty: Difficulty) -> Target {
    Target::from_le_bytes(&difficulty.target().to_le_bytes())
}

/// Miners' form of a share chain target; the same hashes meet both.
pub(super) fn of_miners(target: Target) -> stratum::Target {
    stratum::Target::from_le_bytes(target.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruint::aliases::U320;
    use sharechain::chain::Sharechain;
    use sharechain::coin::{BITCOIN, BITCOIN_REGTEST};
    use sharechain::share::{ShareVersion, Weights};

    const BLOCK: Block = Block { window: 3e23, value: 312_500_000 };

    fn miners() -> Miners {
        Miners { submissions: 0, node_rate: 0.0, payee_rate: 0.0, pool_rate: None }
    }

    fn attempts(miners: Miners) -> f64 {
        let target = desired(None, miners, BLOCK, 0.0, &BITCOIN);
        f64::from(target.attempts().0)
    }

    #[test]
    fn a_wish_decides_alone() {
        let wish = Difficulty::new(1000.0);
        let rich = Miners { submissions: 1000, node_rate: 1e18, payee_rate: 1e18, pool_rate: Some(1e18) };
        let target = desired(wish, rich, BLOCK, 0.0, &BITCOIN);
        assert_eq!(target.to_hex(), desired(wish, miners(), BLOCK, 0.0, &BITCOIN).to_hex());
        assert_eq!(&target.to_hex()[..16], "00000000004188f5");
    }

    #[test]
    fn while_nothing_is_known_the_easiest_is_wished() {
        assert_eq!(desired(None, miners(), BLOCK, 0.0, &BITCOIN), Target::MAX_256);
        let few =
            Miners { submissions: SUBMISSIONS_KNOWN - 1, node_rate: 1e15, payee_rate: 1e15, pool_rate: Some(1e16) };
        assert_eq!(desired(None, few, BLOCK, 0.0, &BITCOIN), Target::MAX_256);
    }

    #[test]
    fn a_farm_takes_a_sixtieth_of_the_shares_at_most() {
        let farm = Miners { submissions: 50, node_rate: 1e15, payee_rate: 1e15, pool_rate: Some(1e16) };
        let wanted = 1e15 * 30.0 / NODE_SHARES_MAX;
        assert!((attempts(farm) / wanted - 1.0).abs() < 0.001);
        let alone = Miners { pool_rate: Some(1.05e15), ..farm };
        assert_eq!(desired(None, alone, BLOCK, 0.0, &BITCOIN), Target::MAX_256);
    }

    #[test]
    fn a_reward_is_shared_out_by_what_the_windows_shares_count_for() {
        let next = Sharechain::new(&BITCOIN_REGTEST).tip().next_share(Target::BEYOND).unwrap();
        let block_target = of_difficulty(Difficulty::new(1e6).unwrap());
        let blocks = f64::from(block_target.attempts().0) * 3.0;
        assert_eq!(window(&next, block_target, &BITCOIN_REGTEST).to_bits(), blocks.to_bits());
        let weights = |hashes: u64| Weights { total: U320::from(hashes * 65_535), ..Weights::default() };
        let fading = |hashes| NextShare { version: ShareVersion::V36, weights: weights(hashes).into(), ..next.clone() };
        assert_eq!(window(&fading(1_000_000), block_target, &BITCOIN_REGTEST).to_bits(), 1e6_f64.to_bits());
        assert_eq!(window(&fading(0), block_target, &BITCOIN_REGTEST).to_bits(), 0.0_f64.to_bits(), "a new chain");
    }

    #[test]
    fn a_payee_who_would_get_dust_gets_fewer_and_heavier_shares() {
        let small = Miners { payee_rate: 1e9, pool_rate: Some(1e16), ..miners() };
        let wanted = 1e23 * 3.0 * 100_000.0 / 312_500_000.0;
        assert!((attempts(small) / wanted - 1.0).abs() < 0.001);
        let big = Miners { payee_rate: 1e15, pool_rate: Some(1e16), ..miners() };
        assert_eq!(desired(None, big, BLOCK, 0.0, &BITCOIN), Target::MAX_256);
    }
}
