//! Text about merged chains: their condition, who is paid for their blocks, and the blocks that were found.

use super::{route, table, unknown};
use crate::view::control::words::{coins, printable, short_number, span};
use crate::view::http::api::{Merged, MergedBlock, MergedChain, MergedSummary};

/// Renders chains and blocks.
pub(super) fn page(merged: &Merged, now: f64) -> String {
    if merged.chains.is_empty() {
        return "no merged chain is configured (--merged)\n".to_owned();
    }
    let rows = merged.chains.iter().map(|chain| {
        [
            printable(&chain.name),
            state(&chain.state),
            chain.height.map_or_else(unknown, |height| height.to_string()),
            difficulty(chain),
            chain.work_since.map_or_else(unknown, |since| span(now - since)),
            format!("{}, {} lost", chain.found, chain.lost),
            chain.seconds_to_block.map_or_else(unknown, span),
            chain.failures.to_string(),
            printable(&chain.version),
            printable(&chain.payee),
        ]
    });
    let head =
        ["chain", "state", "height", "difficulty", "work", "found", "next in", "failures", "daemon", "blocks pay"];
    let chains = table(head, rows);
    let troubles = merged.chains.iter().filter_map(|chain| {
        let trouble = chain.trouble.as_deref()?;
        Some(format!("{}: {}\n", printable(&chain.name), printable(trouble)))
    });
    let miners = match (pays_miners(merged).count(), merged.chains.len()) {
        (0, _) => "their blocks pay the operator of this node: miners get nothing of them\n",
        (paying, all) if paying == all => "their blocks pay the miners of the pool\n",
        _ => {
            "`blocks pay` names the payees of their blocks: the miners of the pool, or the operator of this node alone\n"
        }
    };
    chains + &troubles.collect::<String>() + miners + "\n" + &blocks(&merged.blocks, now)
}

/// Renders the blocks of merged chains for the end of the list of the pool's blocks; empty without such chains.
pub(in crate::view::control) fn section(merged: &Merged, now: f64) -> String {
    if merged.chains.is_empty() {
        return String::new();
    }
    let payee = if pays_miners(merged).next().is_none() { ", paid to the operator of this node" } else { "" };
    format!("\nof merged chains{payee}:\n{}", blocks(&merged.blocks, now))
}

/// Chains whose blocks pay the miners.
fn pays_miners(merged: &Merged) -> impl Iterator<Item = &MergedChain> {
    merged.chains.iter().filter(|chain| chain.mode.as_deref() == Some("payouts"))
}

/// Renders the numbers in one line.
pub(super) fn brief(merged: &MergedSummary) -> String {
    let MergedSummary { chains, mined, left_out, found } = merged;
    let left_out =
        if *left_out > 0 { format!(", {left_out} left out (`p2pool merged` says why)") } else { String::new() };
    format!("{mined} of {chains} chains mined{left_out}; blocks found: {found}")
}

fn blocks(blocks: &[MergedBlock], now: f64) -> String {
    if blocks.is_empty() {
        return "no block of a merged chain has been found yet\n".to_owned();
    }
    let rows = blocks.iter().map(|block| {
        [
            printable(&block.chain),
            block.height.map_or_else(unknown, |height| height.to_string()),
            format!("{} ago", span(now - block.time)),
            standing(block),
            block.value.map_or_else(unknown, coins),
            printable(&block.payee),
            printable(&block.finder),
            block.routes.iter().map(route).collect::<Vec<_>>().join(", "),
            printable(&block.hash),
        ]
    });
    table(["chain", "height", "found", "standing", "coins", "pays", "finder", "routes", "hash"], rows)
}

fn standing(block: &MergedBlock) -> String {
    match (&block.state[..], block.confirmations) {
        ("confirming", confirmations) => match block.maturity {
            Some(maturity) => format!("{confirmations} of {maturity}"),
            None => format!("confirmations: {confirmations}"),
        },
        (state, _) => printable(state),
    }
}

fn difficulty(chain: &MergedChain) -> String {
    match (chain.difficulty, &chain.state[..]) {
        (Some(difficulty), _) => short_number(difficulty),
        (None, "mining" | "waiting") => "a share's".to_owned(),
        (None, _) => unknown(),
    }
}

fn state(state: &str) -> String {
    printable(state).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged() -> Merged {
        let doge = MergedChain {
            name: "doge".into(),
            state: "mining".into(),
            payee: "DOperator1".into(),
            version: "/Shib\u{1b}[2J/".into(),
            height: Some(5_000_001),
            difficulty: Some(21.3e6),
            work_since: Some(88.0),
            found: 3,
            lost: 1,
            ..MergedChain::default()
        };
        let nmc = MergedChain {
            name: "nmc".into(),
            state: "left_out".into(),
            payee: "the daemon's wallet".into(),
            trouble: Some("no answer\u{1b}[2J".into()),
            ..MergedChain::default()
        };
        let block = MergedBlock {
            chain: "doge".into(),
            hash: "feed".into(),
            height: Some(5_000_000),
            time: 40.0,
            finder: "al\u{1b}ice".into(),
            payee: "DOperator1".into(),
            value: Some(1_000_000_000_000),
            state: "confirming".into(),
            confirmations: 7,
            maturity: Some(240),
            ..MergedBlock::default()
        };
        Merged { chains: vec![doge, nmc], total: 1, blocks: vec![block] }
    }

    #[test]
    fn merged_chains_are_listed_with_who_is_paid_and_steer_no_terminal() {
        let text = page(&merged(), 100.0);
        for part in [
            "mining    5000001  21.3 M      12 s  3, 1 lost",
            "nmc    left out",
            "nmc: no answer\\u{1b}[2J\n",
            "the daemon's wallet\n",
            "miners get nothing of them\n",
            "7 of 240  10000.00000000  DOperator1  al\\u{1b}ice",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let shares = MergedChain { state: "mining".into(), ..MergedChain::default() };
        assert_eq!(difficulty(&shares), "a share's");
        assert!(page(&Merged::default(), 0.0).starts_with("no merged chain"));
        let mut paying = merged();
        paying.chains[0].mode = Some("payouts".to_owned());
        assert!(page(&paying, 100.0).contains("`blocks pay` names the payees"));
        assert!(section(&paying, 100.0).starts_with("\nof merged chains:\n"));
        paying.chains.truncate(1);
        assert!(page(&paying, 100.0).contains("their blocks pay the miners of the pool\n"));
    }

    #[test]
    fn the_list_of_blocks_names_those_of_merged_chains_apart() {
        let text = section(&merged(), 100.0);
        assert!(text.starts_with("\nof merged chains, paid to the operator"), "{text}");
        assert!(text.contains("doge   5000000  1 min 0 s ago  7 of 240"), "{text}");
        assert!(section(&Merged { blocks: Vec::new(), ..merged() }, 0.0).ends_with("has been found yet\n"));
        assert_eq!(section(&Merged::default(), 0.0), "");
    }

    #[test]
    fn the_status_counts_merged_chains() {
        let all = MergedSummary { chains: 3, mined: 3, left_out: 0, found: 7 };
        assert_eq!(brief(&all), "3 of 3 chains mined; blocks found: 7");
        let some = MergedSummary { mined: 1, left_out: 2, ..all };
        assert!(brief(&some).starts_with("1 of 3 chains mined, 2 left out ("), "{}", brief(&some));
    }
}
