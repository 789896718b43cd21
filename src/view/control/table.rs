//! Answers as text for people: tables with aligned columns, and sentences where a table would be empty.

use serde::Deserialize;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

use super::Request;
use super::overview::{BlockEntry, Payouts};
use super::words::{coins, hash_rate, percent, printable, span};

/// Space between columns.
const GAP: &str = "  ";

/// The text for a person. What an older or newer node leaves out is shown as missing.
pub(super) fn render(request: &Request, result: Value, now: f64) -> String {
    match request {
        Request::Status => status(read(result)),
        Request::Overview => overview(&result),
        Request::Payouts => payouts(&read(result)),
        Request::Blocks => blocks(&read(result), now),
        Request::Resubmit { .. } => resubmitted(&read(result)),
        Request::Peers => peers(&read(result), now),
        Request::Bans => bans(read::<Bans>(result).bans, now),
        Request::Ban { .. } => bans(vec![read(result)], now),
        Request::Unban { address } => format!("{address} may connect again\n"),
        Request::UnbanAll => match read::<Unbanned>(result).unbanned {
            1 => "1 ban lifted\n".to_owned(),
            count => format!("{count} bans lifted\n"),
        },
    }
}

fn read<T: Default + for<'de> Deserialize<'de>>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_default()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peers {
    peers: Vec<Peer>,
    dialing: u64,
    addresses: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Peer {
    address: Option<SocketAddr>,
    is_incoming: bool,
    is_permanent: bool,
    sub_version: String,
    protocol_version: u32,
    since: f64,
    shares_received: u64,
    shares_sent: u64,
    latency: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bans {
    bans: Vec<Ban>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ban {
    address: Option<IpAddr>,
    until: f64,
    score: u32,
    reason: String,
    by_operator: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unbanned {
    unbanned: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    version: String,
    pid: u32,
    network: String,
    waiting: Option<String>,
    daemon: String,
    trouble: Option<String>,
    clock: Option<String>,
    peers: u64,
    banned: u64,
    addresses: u64,
    workers: u64,
    hash_rate: f64,
    pool_hash_rate: Option<f64>,
    shares: u64,
    stale_shares: u64,
    height: u64,
    blocks: u64,
}

fn status(status: Status) -> String {
    let work = match (&status.trouble, &status.waiting) {
        (_, Some(waiting)) => printable(waiting),
        (Some(trouble), None) => printable(trouble),
        (None, None) => "miners are served".to_owned(),
    };
    let rows = [
        (
            "node",
            format!("p2pool {} on {}, process {}", printable(&status.version), printable(&status.network), status.pid),
        ),
        ("work", work),
        ("bitcoind", printable(&status.daemon)),
        ("peers", format!("{}, of {} known addresses; {} banned", status.peers, status.addresses, status.banned)),
        ("miners", format!("{} workers, {}", status.workers, hash_rate(status.hash_rate))),
        (
            "shares",
            format!("{} of ours, {} of them lost; {} in the chain", status.shares, status.stale_shares, status.height),
        ),
        ("pool", status.pool_hash_rate.map_or_else(|| "too few shares to tell".to_owned(), hash_rate)),
        ("blocks", format!("{} found that are remembered", status.blocks)),
    ];
    let clock = status.clock.as_deref().map(|clock| ("clock", printable(clock)));
    let rows = rows.iter().chain(&clock);
    rows.map(|(name, text)| format!("{name:<8}{GAP}{text}\n")).collect()
}

fn peers(told: &Peers, now: f64) -> String {
    if told.peers.is_empty() {
        return format!("no peers; {} known addresses, {} being tried\n", told.addresses, told.dialing);
    }
    let rows = told.peers.iter().map(|peer| {
        let direction = match (peer.is_incoming, peer.is_permanent) {
            (true, _) => "in",
            (false, true) => "out, -n",
            (false, false) => "out",
        };
        [
            peer.address.map_or_else(String::new, |address| address.to_string()),
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

/// For programs that want the page as text: `p2pool top` draws it.
fn overview(result: &Value) -> String {
    format!("{result:#}\n")
}

fn payouts(told: &Payouts) -> String {
    let Some(height) = told.height else {
        return "nobody is paid: there is no block to mine\n".to_owned();
    };
    let head = format!(
        "block {height} would pay {} {}; whoever finds it gets a 200th of that, the others share the rest:\n",
        coins(told.value),
        printable(&told.symbol)
    );
    let rows = told.payouts.iter().map(|payout| {
        let who = if payout.is_local { "mined here" } else { "" };
        [coins(payout.amount), percent(payout.part), printable(&payout.address), who.to_owned()]
    });
    head + &table([told.symbol.as_str(), "part", "address", ""], rows)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Blocks {
    symbol: String,
    blocks: Vec<BlockEntry>,
}

fn blocks(told: &Blocks, now: f64) -> String {
    if told.blocks.is_empty() {
        return "no block has been found yet\n".to_owned();
    }
    let rows = told.blocks.iter().map(|block| {
        [
            block.height.map_or_else(|| "?".to_owned(), |height| height.to_string()),
            format!("{} ago", span(now - block.found_at)),
            standing(block),
            coins(block.value),
            if block.is_ours { printable(&block.finder) } else { format!("{} (not ours)", printable(&block.finder)) },
            block.routes.join(", "),
            printable(&block.hash),
        ]
    });
    table(["height", "found", "standing", told.symbol.as_str(), "finder", "routes", "hash"], rows)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resubmitted {
    hash: String,
    routes: Vec<Attempt>,
    verdict: Option<Attempt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    route: String,
    outcome: String,
    reason: Option<String>,
}

impl Attempt {
    fn words(&self) -> String {
        let reason = self.reason.as_deref().map(|reason| format!(" ({})", printable(reason)));
        format!("{}{}", printable(&self.outcome), reason.unwrap_or_default())
    }
}

fn resubmitted(told: &Resubmitted) -> String {
    let hash = printable(&told.hash);
    let verdict = match &told.verdict {
        Some(verdict) => format!("block {hash}: {}\n", verdict.words()),
        None => format!("block {hash} is being submitted; `p2pool blocks` shows what becomes of it\n"),
    };
    let route = |route: &Attempt| format!("  {:<5}{GAP}{}\n", printable(&route.route), route.words());
    verdict + &told.routes.iter().map(route).collect::<String>()
}

fn standing(block: &BlockEntry) -> String {
    match block.standing.as_str() {
        "confirming" => format!("{} of 100", block.confirmations),
        other => printable(other),
    }
}

fn bans(told: Vec<Ban>, now: f64) -> String {
    if told.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let rows = told.iter().map(|ban| {
        let by = if ban.by_operator { "you".to_owned() } else { format!("node, offences: {}", ban.score) };
        [ban.address.map_or_else(String::new, |one| one.to_string()), span(ban.until - now), by, printable(&ban.reason)]
    });
    table(["address", "for another", "by", "reason"], rows)
}

/// Columns as wide as their widest cell; the last one as it is.
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
    use serde_json::json;

    #[test]
    fn peers_stand_in_columns_and_steer_no_terminal() {
        let result = json!({"peers": [
            {"address": "192.0.2.1:9333", "is_incoming": false, "is_permanent": true, "sub_version": "unknown \u{1b}[2J",
             "protocol_version": 3501, "since": 1000.0, "shares_received": 12, "shares_sent": 3, "latency": 0.0312},
            {"address": "[2001:db8::1]:9333", "is_incoming": true, "sub_version": "35.0", "protocol_version": 3501,
             "since": 97_300.0},
        ]});
        let text = render(&Request::Peers, result, 97_360.0);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let column = lines[0].find("connected").unwrap();
        assert!(lines[1][column..].starts_with("1 d 2 h") && lines[2][column..].starts_with("1 min 0 s"), "{text}");
        assert!(lines[1].contains("31 ms") && lines[1].contains("out, -n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn payouts_and_blocks_stand_in_columns_in_coins() {
        let result = json!({"symbol": "BTC", "height": 7, "value": 312_500_000, "payouts": [
            {"address": "bc1qa", "amount": 300_000_000, "part": 0.96, "is_local": true},
            {"address": "bc1qb", "amount": 12_500_000, "part": 0.04, "is_local": false},
        ]});
        let text = render(&Request::Payouts, result, 0.0);
        assert!(text.starts_with("block 7 would pay 3.12500000 BTC;"), "{text}");
        assert!(text.contains("3.00000000  96.0 %  bc1qa    mined here\n"), "{text}");
        assert!(text.ends_with("0.12500000  4.0 %   bc1qb\n"), "{text}");
        assert!(render(&Request::Payouts, json!({}), 0.0).starts_with("nobody is paid"));
        let result = json!({"symbol": "BTC", "blocks": [
            {"height": 7, "found_at": 40.0, "standing": "confirming", "confirmations": 3, "value": 1, "finder": "al\u{1b}ice",
             "is_ours": true, "routes": ["rpc accepted", "p2p accepted"], "hash": "00ab"},
            {"found_at": 0.0, "standing": "orphaned", "finder": "peer 192.0.2.1:9333", "hash": "00cd"},
        ]});
        let text = render(&Request::Blocks, result, 100.0);
        assert!(text.contains("3 of 100") && text.contains("rpc accepted, p2p accepted"), "{text}");
        assert!(text.contains("orphaned") && text.contains("(not ours)") && !text.contains('\u{1b}'), "{text}");
        assert!(render(&Request::Blocks, json!({"blocks": []}), 0.0).starts_with("no block"));
    }

    #[test]
    fn a_block_submitted_again_shows_what_each_route_brought() {
        let request = Request::Resubmit { hash: "00".repeat(32).parse().unwrap() };
        let result = json!({"hash": "00ab", "verdict": {"outcome": "rejected", "reason": "bad-cb-\u{1b}amount"}, "routes": [
            {"route": "rpc", "outcome": "rejected", "reason": "bad-cb-amount"},
            {"route": "p2p", "outcome": "failed", "reason": "no P2P connection"},
        ]});
        let text = render(&request, result, 0.0);
        assert!(text.starts_with("block 00ab: rejected (bad-cb-\u{fffd}amount)\n  rpc    rejected"), "{text}");
        assert!(text.ends_with("  p2p    failed (no P2P connection)\n"), "{text}");
        let text = render(&request, json!({"hash": "00ab", "routes": [], "verdict": null}), 0.0);
        assert!(text.contains("is being submitted"), "{text}");
    }

    #[test]
    fn nothing_to_show_is_said_in_words() {
        let text = render(&Request::Peers, json!({"peers": [], "addresses": 7, "dialing": 2}), 0.0);
        assert_eq!(text, "no peers; 7 known addresses, 2 being tried\n");
        assert_eq!(render(&Request::Bans, json!({"bans": []}), 0.0), "nobody is banned\n");
        assert_eq!(render(&Request::UnbanAll, json!({"unbanned": 1}), 0.0), "1 ban lifted\n");
    }

    #[test]
    fn a_ban_tells_how_long_it_lasts_who_made_it_and_why() {
        let result = json!({"bans": [
            {"address": "192.0.2.1", "until": 90_000.0, "reason": "spam", "by_operator": true},
            {"address": "2001:db8::", "until": 3600.0, "score": 2, "reason": "bad share"},
        ]});
        let text = render(&Request::Bans, result, 0.0);
        assert!(text.contains("1 d 1 h") && text.contains("you"), "{text}");
        assert!(text.contains("1 h 0 min") && text.contains("node, offences: 2"), "{text}");
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_far_as_it_goes() {
        assert!(render(&Request::Status, json!({"pid": 7, "news": true}), 0.0).contains("process 7"));
        let status = |clock| render(&Request::Status, json!({ "clock": clock }), 0.0);
        assert!(
            status(Some("ours is wrong")).ends_with("clock     ours is wrong\n"),
            "{}",
            status(Some("ours is wrong"))
        );
        assert!(!status(None).contains("clock"));
        assert_eq!(render(&Request::Bans, json!(null), 0.0), "nobody is banned\n");
    }
}
