//! Metrics of the snapshot. Unknown values are NaN, which boards leave out.

use metrics::{Unit, describe_gauge, describe_histogram, gauge};

use super::{Estimate, Snapshot};

/// Describes the metrics.
pub(super) fn describe() {
    describe_histogram!("figures_seconds", Unit::Seconds, "Making the figures that pages and the like show");
    describe_gauge!("figures_payees", "Payees of the next block");
    describe_gauge!("figures_warnings", "What is wrong by the node's own words, as its pages tell");
    describe_gauge!(
        "figures_share_difficulty",
        "Difficulty of the easiest share that may follow, in the unit of the coin's miners"
    );
    describe_gauge!("figures_block_difficulty", "Difficulty (bdiff) of the next block, as the daemon counts it");
    describe_gauge!("figures_network_hash_rate", "Hashes per second of the whole network, by its difficulty");
    describe_gauge!("figures_pool_stale_ratio", "The part of the pool's shares of the last hour that was lost");
    describe_gauge!("figures_luck_ratio", "Blocks found against those expected of the share chain's work");
    describe_gauge!("figures_share_expected_seconds", "Seconds to this node's next share, on average");
    describe_gauge!("figures_block_expected_seconds", "Seconds to the pool's next block, on average");
    describe_gauge!(
        "figures_efficiency_ratio",
        "What this node's hashes earn against the pool's average, with the interval that it is in by 95 %"
    );
    describe_gauge!("figures_block_value_satoshis", "What the next block's coinbase pays in all");
    describe_gauge!("figures_payout_satoshis", "What the node's own address would get if a block were found now");
}

/// Sets the metrics.
#[expect(clippy::cast_precision_loss, reason = "counts of what fits into memory, and fewer than 2^53 satoshis")]
pub(super) fn record(snapshot: &Snapshot) {
    let set = |name: &'static str, value: Option<f64>| gauge!(name).set(value.unwrap_or(f64::NAN));
    let (block, pool, local) = (snapshot.block.as_ref(), snapshot.pool.as_ref(), &snapshot.local);
    set("figures_payees", Some(snapshot.payouts.len() as f64));
    set("figures_warnings", Some(snapshot.warnings.len() as f64));
    set("figures_share_difficulty", pool.map(|pool| snapshot.scale.show(pool.share_difficulty)));
    set("figures_block_difficulty", block.map(|block| block.difficulty));
    set("figures_network_hash_rate", block.map(|block| block.network_hash_rate));
    set("figures_pool_stale_ratio", pool.map(|pool| pool.hour.stale_proportion));
    set("figures_luck_ratio", pool.and_then(|pool| pool.luck.ratio));
    set("figures_share_expected_seconds", local.seconds_to_share);
    set("figures_block_expected_seconds", pool.and_then(|pool| pool.seconds_to_block));
    set("figures_block_value_satoshis", block.map(|block| block.value as f64));
    set("figures_payout_satoshis", Some(local.payout as f64));
    let bound = |bound: &'static str, of: fn(Estimate) -> f64| {
        gauge!("figures_efficiency_ratio", "bound" => bound).set(local.efficiency.map_or(f64::NAN, of));
    };
    bound("value", |estimate| estimate.value);
    bound("low", |estimate| estimate.low);
    bound("high", |estimate| estimate.high);
}
