//! Renders answers as text: tables with aligned columns, and sentences in place of empty tables.

mod merged;

pub(super) use merged::section as merged_section;

use serde::Deserialize;
use serde_json::Value;

use super::Request;
use super::answers::{Resubmitted, Status, Unbanned};
use super::words::{authority_message, coins, hash_rate, percent, printable, share_version, span};
use crate::blocks::Outcome;
use crate::view::http::api::{Ban, Bans, Block, Blocks, Payouts, Peers, Route};

const GAP: &str = "  ";

/// Renders an answer as text.
///
/// # Errors
/// The answer does not parse.
pub(super) fn render(request: &Request, answer: Value, now: f64) -> Result<String, serde_json::Error> {
    Ok(match request {
        Request::Status => status(&read(answer)?),
        // JSON for programs: `p2pool top` draws the page.
        Request::Overview => format!("{answer:#}\n"),
        Request::Payouts => payouts(&read(answer)?),
        Request::Blocks => blocks(&read(answer)?, now),
        Request::Merged => merged::page(&read(answer)?, now),
        Request::Resubmit { .. } => resubmitted(&read(answer)?),
        Request::Peers => peers(&read(answer)?, now),
        Request::Bans => bans(&read::<Bans>(answer)?.bans, now),
        Request::Ban { .. } => bans(&[read(answer)?], now),
        Request::Unban { address } => format!("{address} may connect again\n"),
        Request::UnbanAll => match read::<Unbanned>(answer)?.unbanned {
            1 => "1 ban lifted\n".to_owned(),
            count => format!("{count} bans lifted\n"),
        },
    })
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

fn status(status: &Status) -> String {
    let summary = &status.summary;
    let (node, pool, local, peers) = (&summary.node, &summary.pool, &summary.local, &summary.peers);
    let work = match (&node.waiting, &node.daemon.trouble) {
        (Some(reason), _) | (None, Some(reason)) => printable(reason),
        (None, None) if node.serving => "miners are served".to_owned(),
        (None, None) => "bitcoind has not answered yet".to_owned(),
    };
    let lost = local.shares.orphan + local.shares.dead;
    let rows = [
        (
            "node",
            format!("p2pool {} on {}, process {}", printable(&node.version), printable(&node.network), status.pid),
        ),
        ("work", work),
        ("bitcoind", printable(&node.daemon.version)),
        (
            "peers",
            format!("{}, of {} known addresses; {} banned", peers.incoming + peers.outgoing, peers.known, peers.banned),
        ),
        ("miners", format!("{} workers, {}", local.workers, hash_rate(local.hash_rate))),
        ("shares", format!("{} of ours, {lost} of them lost; {} in the chain", local.shares.total, pool.shares)),
        ("pool", pool.hash_rate.map_or_else(|| "too few shares to tell".to_owned(), hash_rate)),
        ("blocks", format!("{} found among the known shares", summary.blocks.found)),
    ];
    let merged = (summary.merged.chains > 0).then(|| ("merged", merged::brief(&summary.merged)));
    let clock = status.clock.as_deref().map(|clock| ("clock", printable(clock)));
    let versions = &summary.versions;
    let version = share_version(versions).map(|version| ("version", version));
    let messages: Vec<_> = versions.messages.iter().map(|one| ("message", authority_message(one))).collect();
    let rows = rows.iter().chain(&merged).chain(&version).chain(&messages).chain(&clock);
    rows.map(|(name, text)| format!("{name:<8}{GAP}{text}\n")).collect()
}

fn peers(told: &Peers, now: f64) -> String {
    if told.peers.is_empty() {
        return format!("no peers; {} known addresses, {} being tried\n", told.known_addresses, told.dialing);
    }
    let rows = told.peers.iter().map(|peer| {
        let direction = match (peer.is_incoming, peer.is_permanent) {
            (true, _) => "in",
            (false, true) => "out, -n",
            (false, false) => "out",
        };
        [
            printable(&peer.address),
            direction.to_owned(),
            span(now - peer.since),
            peer.latency.map_or_else(|| "-".to_owned(), |seconds| format!("{:.0} ms", seconds * 1000.0)),
            peer.shares_received.to_string(),
            peer.shares_sent.to_string(),
            peer.protocol_version.to_string(),
            printable(&peer.sub_version),
        ]
    });
    let head = ["address", "direction", "connected", "latency", "shares from", "shares to", "protocol", "software"];
    table(head, rows)
}

fn payouts(told: &Payouts) -> String {
    let Some(value) = told.block_value else {
        return "no payouts: there is no block to mine\n".to_owned();
    };
    let finder = if told.finder_percent > 0.0 {
        format!("; its finder gets {} % of that, and all share the rest", told.finder_percent)
    } else {
        String::new()
    };
    let head = format!("the next block would pay {} {}{finder}:\n", coins(value), printable(&told.symbol));
    let rows = told.payouts.iter().map(|payout| {
        let local = if payout.is_local { "mined here" } else { "" };
        [coins(payout.amount), percent(payout.fraction), printable(&payout.address), local.to_owned()]
    });
    head + &table([told.symbol.as_str(), "part", "address", ""], rows)
}

fn blocks(told: &Blocks, now: f64) -> String {
    if told.blocks.is_empty() {
        return "no block has been found yet\n".to_owned();
    }
    let rows = told.blocks.iter().map(|block| {
        let finder = block.finder.as_deref().map_or_else(unknown, printable);
        [
            block.height.map_or_else(unknown, |height| height.to_string()),
            format!("{} ago", span(now - block.time)),
            standing(block),
            block.value.map_or_else(unknown, coins),
            if block.is_own { finder } else { format!("{finder} (not ours)") },
            block.routes.iter().map(route).collect::<Vec<_>>().join(", "),
            printable(&block.hash),
        ]
    });
    table(["height", "found", "standing", told.symbol.as_str(), "finder", "routes", "hash"], rows)
}

fn unknown() -> String {
    "?".to_owned()
}

fn route(route: &Route) -> String {
    format!("{} {}", printable(&route.route), printable(&route.outcome))
}

fn standing(block: &Block) -> String {
    match (block.state.as_deref(), block.confirmations) {
        (Some("confirming"), Some(confirmations)) => format!("{confirmations} of 100"),
        (Some(state), _) => printable(state),
        (None, _) => "not followed".to_owned(),
    }
}

fn resubmitted(told: &Resubmitted) -> String {
    let block = match &told.chain {
        Some(chain) => format!("block {} of {}", told.hash, printable(chain)),
        None => format!("block {}", told.hash),
    };
    let verdict = match &told.verdict {
        Some(verdict) => format!("{block}: {}\n", outcome(verdict)),
        None => format!("{block} is being submitted; `p2pool blocks` shows its state\n"),
    };
    let attempts = told.routes.iter();
    verdict
        + &attempts
            .map(|attempt| format!("  {:<5}{GAP}{}\n", printable(&attempt.route), outcome(&attempt.outcome)))
            .collect::<String>()
}

fn outcome(outcome: &Outcome) -> String {
    let reason = outcome.reason().map(|reason| format!(" ({})", printable(reason)));
    format!("{}{}", outcome.word(), reason.unwrap_or_default())
}

fn bans(told: &[Ban], now: f64) -> String {
    if told.is_empty() {
        return "no address is banned\n".to_owned();
    }
    let rows = told.iter().map(|ban| {
        let by = if ban.by_operator { "you".to_owned() } else { format!("node, offences: {}", ban.score) };
        [printable(&ban.address), span(ban.until - now), by, printable(&ban.reason)]
    });
    table(["address", "for another", "by", "reason"], rows)
}

/// Pads columns to their widest cell, except the last.
fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: impl Iterator<Item = [String; COLUMNS]>) -> String {
    let rows: Vec<[String; COLUMNS]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join(GAP).trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::control::answers::Attempt;
    use crate::view::http::api::{AuthorityMessage, Connections, Daemon, Node, Payout, Peer, ShareVersions, Summary};
    use serde::Serialize;

    fn shown(request: &Request, answer: impl Serialize, now: f64) -> String {
        render(request, serde_json::to_value(answer).unwrap(), now).unwrap()
    }

    #[test]
    fn peers_stand_in_columns_and_steer_no_terminal() {
        let permanent = Peer {
            address: "192.0.2.1:9333".into(),
            is_permanent: true,
            sub_version: "unknown \u{1b}[2J".into(),
            since: 1000.0,
            latency: Some(0.0312),
            ..Peer::default()
        };
        let incoming = Peer { is_incoming: true, since: 97_300.0, ..Peer::default() };
        let text = shown(&Request::Peers, Peers { peers: vec![permanent, incoming], ..Peers::default() }, 97_360.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("connected").unwrap();
        assert!(lines[1][column..].starts_with("1 d 2 h") && lines[2][column..].starts_with("1 min 0 s"), "{text}");
        assert!(lines[1].contains("31 ms") && lines[1].contains("out, -n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn payouts_and_blocks_stand_in_columns_in_coins() {
        let payout = |address: &str, amount, fraction, is_local| Payout {
            address: address.into(),
            amount,
            fraction,
            is_local,
            ..Payout::default()
        };
        let mut payouts = Payouts {
            symbol: "BTC".into(),
            block_value: Some(312_500_000),
            share_version: 35,
            finder_percent: 0.5,
            merged_symbol: None,
            total: 2,
            payouts: vec![payout("bc1qa", 300_000_000, 0.96, true), payout("bc1qb", 12_500_000, 0.04, false)],
        };
        let text = shown(&Request::Payouts, &payouts, 0.0);
        assert!(text.starts_with("the next block would pay 3.12500000 BTC; its finder gets 0.5 % of that"), "{text}");
        assert!(text.contains("3.00000000  96.0 %  bc1qa    mined here\n"), "{text}");
        assert!(text.ends_with("0.12500000  4.0 %   bc1qb\n"), "{text}");
        payouts.finder_percent = 0.0;
        let text = shown(&Request::Payouts, &payouts, 0.0);
        assert!(text.starts_with("the next block would pay 3.12500000 BTC:\n"), "{text}");
        payouts.block_value = None;
        assert!(shown(&Request::Payouts, &payouts, 0.0).starts_with("no payouts"));

        let route = |name: &str| Route { route: name.into(), outcome: "accepted".into(), ..Route::default() };
        let confirming = Block {
            height: Some(7),
            time: 40.0,
            state: Some("confirming".into()),
            confirmations: Some(3),
            value: Some(1),
            finder: Some("al\u{1b}ice".into()),
            is_own: true,
            routes: vec![route("rpc"), route("p2p")],
            ..Block::default()
        };
        let orphaned =
            Block { state: Some("orphaned".into()), finder: Some("peer 192.0.2.1:9333".into()), ..Block::default() };
        let blocks = vec![confirming, orphaned, Block::default()];
        let text = shown(&Request::Blocks, Blocks { symbol: "BTC".into(), total: 3, blocks }, 100.0);
        assert!(text.contains("3 of 100") && text.contains("rpc accepted, p2p accepted"), "{text}");
        assert!(text.contains("orphaned") && text.contains("(not ours)") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("not followed"), "{text}");
        assert!(shown(&Request::Blocks, Blocks::default(), 0.0).starts_with("no block"));
    }

    #[test]
    fn a_block_submitted_again_shows_what_each_route_brought() {
        let hash = "00".repeat(32).parse().unwrap();
        let request = Request::Resubmit { hash };
        let attempt = |route: &str, outcome| Attempt { route: route.into(), outcome };
        let rejected = || Outcome::Rejected("bad-cb-\u{1b}amount".into());
        let routes = vec![attempt("rpc", rejected()), attempt("p2p", Outcome::Failed("no P2P connection".into()))];
        let text = shown(&request, Resubmitted { chain: None, hash, routes, verdict: Some(rejected()) }, 0.0);
        let begin = format!("block {hash}: rejected (bad-cb-\\u{{1b}}amount)\n  rpc    rejected");
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with("  p2p    failed (no P2P connection)\n"), "{text}");
        let text = shown(&request, Resubmitted { chain: None, hash, routes: Vec::new(), verdict: None }, 0.0);
        assert!(text.contains("is being submitted"), "{text}");
        let merged =
            Resubmitted { chain: Some("dogecoin".into()), hash, routes: Vec::new(), verdict: Some(Outcome::Accepted) };
        assert_eq!(shown(&request, merged, 0.0), format!("block {hash} of dogecoin: accepted\n"));
    }

    #[test]
    fn nothing_to_show_is_said_in_words() {
        let text = shown(&Request::Peers, Peers { known_addresses: 7, dialing: 2, ..Peers::default() }, 0.0);
        assert_eq!(text, "no peers; 7 known addresses, 2 being tried\n");
        assert_eq!(shown(&Request::Bans, Bans::default(), 0.0), "no address is banned\n");
        assert_eq!(shown(&Request::UnbanAll, Unbanned { unbanned: 1 }, 0.0), "1 ban lifted\n");
    }

    #[test]
    fn a_ban_tells_how_long_it_lasts_who_made_it_and_why() {
        let spam = Ban { until: 90_000.0, reason: "spam".into(), by_operator: true, ..Ban::default() };
        let share = Ban { until: 3600.0, score: 2, reason: "bad share".into(), ..Ban::default() };
        let text = shown(&Request::Bans, Bans { total: 2, bans: vec![spam, share] }, 0.0);
        assert!(text.contains("1 d 1 h") && text.contains("you"), "{text}");
        assert!(text.contains("1 h 0 min") && text.contains("node, offences: 2"), "{text}");
    }

    #[test]
    fn the_status_says_what_keeps_miners_waiting() {
        let of = |serving, waiting: Option<&str>, trouble: Option<&str>| {
            let daemon = Daemon { trouble: trouble.map(str::to_owned), ..Daemon::default() };
            let node = Node { serving, waiting: waiting.map(str::to_owned), daemon, ..Node::default() };
            let peers = Connections { incoming: 1, outgoing: 2, ..Connections::default() };
            let summary = Summary { node, peers, ..Summary::default() };
            shown(&Request::Status, Status { pid: 7, summary, ..Status::default() }, 0.0)
        };
        let text = of(true, None, None);
        assert!(text.contains("process 7") && text.contains("work      miners are served"), "{text}");
        assert!(text.contains("peers     3, of 0") && !text.contains("clock"), "{text}");
        assert!(of(false, None, None).contains("bitcoind has not answered yet"));
        assert!(of(false, None, Some("it is away")).contains("work      it is away"));
        assert!(of(false, Some("for a peer"), Some("it is away")).contains("work      for a peer"));
        let clock = Status { clock: Some("ours is wrong".into()), ..Status::default() };
        assert!(shown(&Request::Status, clock, 0.0).ends_with("clock     ours is wrong\n"));
    }

    #[test]
    fn the_status_has_the_share_version_where_it_changes_and_messages_steer_no_terminal() {
        let of = |versions: ShareVersions| {
            let summary = Summary { versions, ..Summary::default() };
            shown(&Request::Status, Status { summary, ..Status::default() }, 0.0)
        };
        assert!(!of(ShareVersions { next: Some(35), ..ShareVersions::default() }).contains("version "));
        let message = AuthorityMessage {
            kind: "announcement".into(),
            signer: "fork maintainer".into(),
            urgency: "info".into(),
            text: "up\u{1b}[2J".into(),
            url: Some("a:b".into()),
            ..AuthorityMessage::default()
        };
        let mut versions = ShareVersions {
            next: Some(35),
            target: Some(36),
            state: Some("voting".into()),
            votes: 0.625,
            messages: vec![message],
            ..ShareVersions::default()
        };
        let text = of(versions.clone());
        assert!(text.contains("version   35; 36 is voting, 62.5 % for it\n"), "{text}");
        assert!(text.contains("message   announcement of the fork maintainer, info: up\\u{1b}[2J (a:b)\n"), "{text}");
        (versions.next, versions.state) = (Some(36), Some("activated".into()));
        versions.shares_until_confirmed = Some(7);
        assert!(of(versions.clone()).contains("version   36; 36 is activated, 7 shares until confirmed\n"));
        (versions.state, versions.shares_until_confirmed) = (Some("confirmed".into()), None);
        assert!(of(versions).contains("version   36; 36 is confirmed\n"));
    }

    #[test]
    fn an_answer_of_a_newer_version_is_shown_and_one_of_another_form_is_an_error() {
        let mut answer = serde_json::to_value(Status { pid: 7, ..Status::default() }).unwrap();
        answer["news"] = true.into();
        assert!(render(&Request::Status, answer, 0.0).unwrap().contains("process 7"));
        assert!(render(&Request::Bans, Value::Null, 0.0).is_err());
    }
}
