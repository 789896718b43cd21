//! Peers' shares that a running node refused: one network may be hostile or out of date, several are a split of the share
//! chain as it begins.

use sharechain::chain::SPLIT_NETWORKS_MIN;

use super::Check;
use crate::view::control::answers::RefusedShares;

const NAME: &str = "refused shares";

/// Judges the shares that were refused within the last hour.
pub(super) fn refused_shares(refused: &RefusedShares) -> Check {
    let RefusedShares { shares, networks, reasons } = refused;
    if *shares == 0 {
        return Check::ok(NAME, "none of peers' shares within the last hour");
    }
    let mut ranked: Vec<(&str, usize)> = reasons.iter().map(|(reason, shares)| (reason.as_str(), *shares)).collect();
    ranked.sort_by_key(|(_, shares)| std::cmp::Reverse(*shares));
    let listed: Vec<String> = ranked.iter().map(|(reason, shares)| format!("{reason} {shares}")).collect();
    let text = format!(
        "{} within the last hour, from peers of {}; by reason: {}",
        counted(*shares, "share"),
        counted(*networks, "network"),
        listed.join(", ")
    );
    if *networks < SPLIT_NETWORKS_MIN {
        return Check::ok(NAME, format!("{text}; a peer with a fault of its own"));
    }
    let (meaning, advice) = meaning(ranked.first().map_or("", |(reason, _)| *reason));
    Check::warning(NAME, format!("{text}; {meaning}"), advice)
}

/// Likely cause of refusals for a reason by several networks, and what to do.
fn meaning(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "payout_hash" => (
            "these nodes compute payouts from other weights, as a branch of p2pool-merged-v36 does: the pool may be splitting",
            "compare the best share with that of other nodes (/api/v1/shares and their pages); if most of the pool builds on \
             shares that are refused here, update p2pool or report it, for your shares may be refused there",
        ),
        "merged_coinbase" => (
            "nodes that disagree about merged payees, or mine several merged chains; such a share is lost for its miner",
            "nothing while these are few; if most of the pool's shares are refused, update p2pool or report it",
        ),
        "version" => (
            "part of the pool has changed to another share version",
            "update p2pool, and see the votes for versions on the first page",
        ),
        "timestamp" => (
            "clocks differ",
            "synchronise this machine's clock (timedatectl set-ntp true); shares of others with wrong clocks are theirs to lose",
        ),
        "bits" | "far_share_hash" | "height" | "work" => (
            "a miner's node is wrong, and c2pool nodes, which do not check this, pass its shares on",
            "nothing while these are few; if most of the pool builds on such shares, update p2pool or report it",
        ),
        _ => (
            "these nodes follow other rules: the pool may be splitting",
            "update p2pool; if it is the latest version, report it with the log lines `share refused`",
        ),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn check(networks: usize, reasons: &[(&str, usize)]) -> Check {
        let shares = reasons.iter().map(|(_, shares)| shares).sum();
        let reasons = reasons.iter().map(|(reason, shares)| ((*reason).to_owned(), *shares)).collect();
        refused_shares(&RefusedShares { shares, networks, reasons })
    }

    #[test]
    fn refusals_are_reported_with_count_reasons_and_networks() {
        assert_eq!(check(0, &[]), Check::ok(NAME, "none of peers' shares within the last hour"));
        let one = check(1, &[("bits", 1)]);
        assert_eq!(one.state, State::Ok);
        assert!(
            one.text.starts_with("1 share within the last hour, from peers of 1 network; by reason: bits 1"),
            "{one:?}"
        );
        let few = check(2, &[("bits", 1), ("payout_hash", 7)]);
        assert_eq!((few.state, few.advice), (State::Ok, None));
        assert!(few.text.contains("8 shares") && few.text.contains("payout_hash 7, bits 1"), "{}", few.text);
    }

    #[test]
    fn several_networks_are_a_split_and_the_most_frequent_reason_says_which() {
        let split = check(SPLIT_NETWORKS_MIN, &[("bits", 1), ("payout_hash", 7)]);
        assert_eq!(split.state, State::Warning);
        assert!(split.text.contains("the pool may be splitting"), "{}", split.text);
        assert!(split.advice.unwrap().contains("compare the best share"));
        let c2pool = check(5, &[("bits", 9), ("payout_hash", 7)]);
        assert!(c2pool.text.contains("c2pool"), "{}", c2pool.text);
        let meanings: Vec<&str> = sharechain::chain::REFUSAL_LABELS.map(|label| meaning(label).1).to_vec();
        assert!(meanings.iter().all(|advice| !advice.is_empty()));
    }
}
