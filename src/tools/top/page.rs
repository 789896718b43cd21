//! Layout and drawing of the page.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{self, Cell, Paragraph, Row, Table};

use super::merged;
use crate::view::control::answers::Overview;
use crate::view::control::words::{coins, hash_rate, percent, printable, share_version, short_number, span};
use crate::view::http::api::{Block, MergedBlock, Peer, Share, Worker};

/// Confirmations at which a coinbase can be spent.
const MATURE: u32 = 100;

/// List on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Miners,
    Shares,
    Peers,
    Blocks,
    Log,
}

/// State of the view.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shown {
    /// List shown alone; `None` for all.
    pub(super) panel: Option<Panel>,
    /// Number of its rows to skip.
    pub(super) scroll: usize,
    /// Reason why the page is out of date.
    pub(super) lost: Option<String>,
}

impl Shown {
    /// Shows this list from the top.
    pub(super) fn show(&mut self, panel: Option<Panel>) {
        self.panel = panel;
        self.scroll = 0;
    }

    /// Shows the next list.
    pub(super) fn show_next(&mut self) {
        self.show(match self.panel {
            None => Some(Panel::Miners),
            Some(Panel::Miners) => Some(Panel::Shares),
            Some(Panel::Shares) => Some(Panel::Peers),
            Some(Panel::Peers) => Some(Panel::Blocks),
            Some(Panel::Blocks) => Some(Panel::Log),
            Some(Panel::Log) => None,
        });
    }
}

/// Draws the page, with ages as of `now`.
pub(super) fn draw(frame: &mut Frame<'_>, overview: &Overview, shown: &Shown, now: f64) {
    let merged_height = merged::height(&overview.merged, frame.area().height);
    let heights = [2, 7, merged_height].map(Constraint::Length).into_iter();
    let [head, boxes, chains, lists, keys] =
        Layout::vertical(heights.chain([Constraint::Min(3), Constraint::Length(1)])).areas(frame.area());
    frame.render_widget(headline(overview, shown), head);
    summary(frame, boxes, overview);
    if merged_height > 0 {
        frame.render_widget(merged::lines(&overview.merged, chains.height, now), chains);
    }
    match shown.panel {
        Some(panel) => draw_panel(frame, lists, panel, overview, shown.scroll, now),
        None => {
            let [upper, middle, lower] =
                Layout::vertical([Constraint::Fill(3), Constraint::Fill(2), Constraint::Fill(2)]).areas(lists);
            let halves = |area| Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas::<2>(area);
            let ([miners, shares], [peers, blocks]) = (halves(upper), halves(middle));
            for (panel, area) in [
                (Panel::Miners, miners),
                (Panel::Shares, shares),
                (Panel::Peers, peers),
                (Panel::Blocks, blocks),
                (Panel::Log, lower),
            ] {
                draw_panel(frame, area, panel, overview, 0, now);
            }
        }
    }
    let help = "1 miners  2 shares  3 peers  4 blocks  5 log  0 all  arrows scroll  q quits";
    frame.render_widget(Paragraph::new(help).dim(), keys);
}

/// Node and uptime, and the most important problem.
fn headline(overview: &Overview, shown: &Shown) -> Paragraph<'static> {
    let about = &overview.summary.node;
    let node = format!("p2pool {} on {}", printable(&about.version), printable(&about.network));
    let version = share_version(&overview.summary.versions).map(|text| format!(", share version {text}"));
    let up = format!(", up {}, {}", span(about.uptime_seconds), printable(&about.daemon.version));
    let first = Line::from(vec![Span::from(node).bold(), Span::from(up), Span::from(version.unwrap_or_default())]);
    let troubles = [&shown.lost, &about.daemon.trouble, &about.waiting];
    let trouble = troubles.into_iter().flatten().next().map(|text| Line::from(printable(text)).red().bold());
    let warning = || overview.summary.warnings.first().map(|text| Line::from(printable(text)).yellow());
    let second = trouble.or_else(warning).unwrap_or_else(|| Line::from("miners are served").green());
    Paragraph::new(vec![first, second])
}

/// Draws the boxes of the pool, this node and the next block.
fn summary(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let [pool, node, block] = Layout::horizontal([Constraint::Fill(1); 3]).areas(area);
    frame.render_widget(Paragraph::new(pool_lines(overview)).block(widgets::Block::bordered().title(" Pool ")), pool);
    frame.render_widget(
        Paragraph::new(local_lines(overview)).block(widgets::Block::bordered().title(" This node ")),
        node,
    );
    frame.render_widget(
        Paragraph::new(block_lines(overview)).block(widgets::Block::bordered().title(" Next block ")),
        block,
    );
}

fn pool_lines(overview: &Overview) -> Vec<Line<'static>> {
    let pool = &overview.summary.pool;
    let Some(rate) = pool.hash_rate else { return vec![Line::from("too few shares to tell").dim()] };
    let found = overview.summary.blocks.found;
    vec![
        fact("rate", hash_rate(rate)),
        fact("stale", pool.stale_proportion.map_or_else(unknown, percent)),
        fact("share", format!("difficulty {}", pool.share_difficulty.map_or_else(unknown, short_number))),
        fact("to block", pool.seconds_to_block.map_or_else(unknown, span)),
        fact("luck", format!("{}, {found} blocks", pool.luck.map_or_else(unknown, percent))),
    ]
}

fn unknown() -> String {
    "-".to_owned()
}

fn local_lines(overview: &Overview) -> Vec<Line<'static>> {
    let (local, symbol) = (&overview.summary.local, &overview.summary.node.symbol);
    let late = if local.hash_rate > 0.0 { local.late_hash_rate / local.hash_rate } else { 0.0 };
    let efficiency = local
        .efficiency
        .as_ref()
        .map_or_else(unknown, |of| format!("{} ({} to {})", percent(of.value), percent(of.low), percent(of.high)));
    let shares = &local.shares;
    vec![
        fact("rate", format!("{}, {} late", hash_rate(local.hash_rate), percent(late))),
        fact("shares", format!("{} ({} orphan, {} dead)", shares.total, shares.orphan, shares.dead)),
        fact("effic.", efficiency),
        fact("to share", local.seconds_to_share.map_or_else(unknown, span)),
        fact("payout", format!("{} {}", coins(local.expected_payout), printable(symbol))),
    ]
}

fn block_lines(overview: &Overview) -> Vec<Line<'static>> {
    let Some(block) = &overview.summary.block else { return vec![Line::from("nothing to mine").red()] };
    // Named where the coin's miners, and the other boxes, use another.
    let unit = if overview.summary.node.difficulty_scale > 1 { " bdiff" } else { "" };
    vec![
        fact("height", block.height.to_string()),
        fact("pays", format!("{} {}", coins(block.value), printable(&overview.summary.node.symbol))),
        fact("txs", block.transactions.to_string()),
        fact("diff.", format!("{}{unit}", short_number(block.difficulty))),
        fact("network", hash_rate(block.network_hash_rate)),
    ]
}

fn fact(name: &'static str, text: String) -> Line<'static> {
    Line::from(vec![Span::from(format!("{name:<9}")).dim(), Span::from(text)])
}

fn draw_panel(frame: &mut Frame<'_>, area: Rect, panel: Panel, overview: &Overview, scroll: usize, now: f64) {
    match panel {
        Panel::Miners => {
            let title = format!(" Miners: {} active of {} ", overview.summary.local.workers, overview.workers.total);
            let rows = overview.workers.workers.iter().map(|one| worker(one, now));
            let head = ["rate", "late", "refused", "seen", "worker"];
            let widths = [10, 7, 7, 14].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
            list(frame, area, title, &head, rows.skip(scroll), widths);
        }
        Panel::Shares => {
            let rows = overview.shares.shares.iter().map(|one| share(one, now));
            let head = ["height", "age", "diff.", "share", "payee"];
            let widths = [9, 14, 8, 9].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
            list(frame, area, " Shares ".to_owned(), &head, rows.skip(scroll), widths);
        }
        Panel::Peers => {
            let peers = &overview.peers.peers;
            let title = format!(" Peers: {}, {} banned ", peers.len(), overview.summary.peers.banned);
            let rows = peers.iter().map(|one| peer(one, now));
            let head = ["dir.", "latency", "connected", "shares", "address and software"];
            let widths = [4, 8, 14, 7].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
            list(frame, area, title, &head, rows.skip(scroll), widths);
        }
        Panel::Blocks => {
            let pools = overview.blocks.blocks.iter().map(|one| (one.time, block(one, now)));
            let merged = overview.merged.blocks.iter().map(|one| (one.time, merged_block(one, now)));
            let mut newest_first: Vec<_> = pools.chain(merged).collect();
            newest_first.sort_by(|(one, _), (other, _)| other.total_cmp(one));
            let rows = newest_first.into_iter().map(|(_, row)| row);
            let head = ["height", "found", "standing", "finder and hash"];
            let widths = [9, 14, 11].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
            list(frame, area, " Blocks found ".to_owned(), &head, rows.skip(scroll), widths);
        }
        Panel::Log => {
            let room = usize::from(area.height.saturating_sub(2));
            let end = overview.log.len().saturating_sub(scroll);
            let lines = overview.log[..end].iter().rev().take(room).rev();
            let lines: Vec<Line<'_>> = lines.map(|line| log_line(line)).collect();
            frame.render_widget(Paragraph::new(lines).block(widgets::Block::bordered().title(" Log ")), area);
        }
    }
}

fn list<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    head: &[&'static str],
    rows: impl Iterator<Item = Row<'a>>,
    widths: impl Iterator<Item = Constraint>,
) {
    let room = usize::from(area.height.saturating_sub(3));
    let head = Row::new(head.iter().map(|name| Cell::from(*name))).style(Style::new().add_modifier(Modifier::DIM));
    let table = Table::new(rows.take(room), widths).header(head).block(widgets::Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn worker(worker: &Worker, now: f64) -> Row<'static> {
    let late = if worker.hash_rate > 0.0 { percent(worker.late_hash_rate / worker.hash_rate) } else { unknown() };
    let row = Row::new([
        right(hash_rate(worker.hash_rate)),
        right(late),
        right(worker.refused.values().sum::<u64>().to_string()),
        right(span(now - worker.last_seen)),
        Cell::from(brief(&printable(&worker.name))),
    ]);
    if worker.hash_rate > 0.0 { row } else { row.style(Style::new().add_modifier(Modifier::DIM)) }
}

fn share(share: &Share, now: f64) -> Row<'static> {
    let row = Row::new([
        right(share.height.to_string()),
        right(span(now - f64::from(share.time))),
        right(short_number(share.difficulty)),
        Cell::from(tail(&printable(&share.hash))),
        Cell::from(brief(&printable(&share.payee))),
    ]);
    if share.is_block {
        row.style(Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD))
    } else if !share.is_best {
        row.style(Style::new().fg(Color::Red))
    } else if share.is_own {
        row.style(Style::new().fg(Color::Green))
    } else {
        row
    }
}

fn peer(peer: &Peer, now: f64) -> Row<'static> {
    Row::new([
        Cell::from(if peer.is_incoming { "in" } else { "out" }),
        right(peer.latency.map_or_else(unknown, |seconds| format!("{:.0} ms", seconds * 1000.0))),
        right(span(now - peer.since)),
        right(peer.shares_received.to_string()),
        Cell::from(format!("{} {}", printable(&peer.address), printable(&peer.sub_version))),
    ])
}

fn block(block: &Block, now: f64) -> Row<'static> {
    let (standing, color) = match block.state.as_deref() {
        Some("confirming") => (format!("{} of {MATURE}", block.confirmations.unwrap_or_default()), Color::Green),
        Some("mature") => ("mature".to_owned(), Color::Green),
        Some("submitted") => ("submitted".to_owned(), Color::Yellow),
        Some(other) => (printable(other), Color::Red),
        None => ("-".to_owned(), Color::Reset),
    };
    let finder = block.finder.as_deref().map_or_else(unknown, |finder| brief(&printable(finder)));
    Row::new([
        right(block.height.map_or_else(|| "?".to_owned(), |height| height.to_string())),
        right(span(now - block.time)),
        Cell::from(standing).style(Style::new().fg(color)),
        Cell::from(format!("{finder} {}", tail(&printable(&block.hash)))),
    ])
}

/// A block of a merged chain, whose name is before its finder's.
fn merged_block(block: &MergedBlock, now: f64) -> Row<'static> {
    let (standing, color) = match &block.state[..] {
        "confirming" => (format!("{} conf.", block.confirmations), Color::Green),
        "mature" => ("mature".to_owned(), Color::Green),
        "submitted" => ("submitted".to_owned(), Color::Yellow),
        other => (printable(other), Color::Red),
    };
    let (chain, finder) = (printable(&block.chain), brief(&printable(&block.finder)));
    Row::new([
        right(block.height.map_or_else(|| "?".to_owned(), |height| height.to_string())),
        right(span(now - block.time)),
        Cell::from(standing).style(Style::new().fg(color)),
        Cell::from(format!("{chain}: {finder} {}", tail(&printable(&block.hash)))),
    ])
}

fn log_line(line: &str) -> Line<'static> {
    let text = Line::from(printable(line));
    if line.contains("ERROR") {
        text.red()
    } else if line.contains("WARN") {
        text.yellow()
    } else {
        text
    }
}

/// Shortens a long name to both ends: addresses share a prefix, and the worker's name is at the end.
fn brief(name: &str) -> String {
    const BEGIN: usize = 8;
    const END: usize = 20;
    let length = name.chars().count();
    if length <= BEGIN + END + 1 {
        return name.to_owned();
    }
    let begin: String = name.chars().take(BEGIN).collect();
    let end: String = name.chars().skip(length - END).collect();
    format!("{begin}\u{2026}{end}")
}

/// Returns the end of a hash, as hashes begin with zeros.
fn tail(hash: &str) -> String {
    let length = hash.chars().count();
    hash.chars().skip(length.saturating_sub(8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::http::api::{Blocks, Local, Merged, MergedChain, NextBlock, Node, Pool, Summary, Workers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const NOW: f64 = 10_000.0;

    fn drawn(overview: &Overview, shown: &Shown, size: (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw(frame, overview, shown, NOW)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells.chunks(usize::from(size.0));
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn overview() -> Overview {
        let worker = |number: u32| Worker {
            name: format!("worker{number}\u{1b}"),
            hash_rate: 1e12,
            last_seen: NOW - 5.0,
            ..Worker::default()
        };
        let block = Block {
            hash: "00000000000000000000feedbeef".into(),
            height: Some(850_000),
            time: NOW - 3600.0,
            finder: Some("alice".into()),
            state: Some("orphaned".into()),
            ..Block::default()
        };
        Overview {
            summary: Summary {
                node: Node { version: "9.9".into(), network: "bitcoin".into(), ..Node::default() },
                pool: Pool { hash_rate: Some(5e15), ..Pool::default() },
                local: Local { hash_rate: 2e12, workers: 30, ..Local::default() },
                ..Summary::default()
            },
            workers: Workers { total: 31, workers: (0..30).map(worker).collect() },
            blocks: Blocks { total: 1, blocks: vec![block], ..Blocks::default() },
            log: (0..50).map(|number| format!("INFO line {number}")).collect(),
            ..Overview::default()
        }
    }

    #[test]
    fn the_page_tells_rates_miners_blocks_and_the_latest_log_and_steers_no_terminal() {
        let text = drawn(&overview(), &Shown::default(), (120, 50));
        for part in [
            "p2pool 9.9 on bitcoin",
            "5.00 PH/s",
            "30 active of 31",
            "worker0",
            "orphaned",
            "alice feedbeef",
            "INFO line 49",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("INFO line 0\n"));
    }

    #[test]
    fn the_difficulty_of_a_block_has_its_unit_where_miners_use_another() {
        let drawn_on = |difficulty_scale| {
            let mut overview = overview();
            overview.summary.node.difficulty_scale = difficulty_scale;
            overview.summary.block = Some(NextBlock { difficulty: 92.3e6, ..NextBlock::default() });
            drawn(&overview, &Shown::default(), (80, 50))
        };
        let (bitcoin, litecoin) = (drawn_on(1), drawn_on(65_536));
        assert!(bitcoin.contains("92.3 M") && !bitcoin.contains("bdiff"), "{bitcoin}");
        assert!(litecoin.contains("92.3 M bdiff"), "{litecoin}");
    }

    #[test]
    fn merged_chains_have_lines_and_their_blocks_stand_among_the_pools() {
        let chain = MergedChain { name: "doge".into(), state: "mining".into(), ..MergedChain::default() };
        let block = |time, hash: &str| MergedBlock {
            chain: "doge".into(),
            hash: hash.into(),
            time,
            finder: "bob".into(),
            state: "confirming".into(),
            confirmations: 7,
            ..MergedBlock::default()
        };
        let blocks = vec![block(NOW - 60.0, "00aaaaaaaa"), block(NOW - 7200.0, "00bbbbbbbb")];
        let merged = Merged { chains: vec![chain], total: 2, blocks };
        let text = drawn(&Overview { merged, ..overview() }, &Shown::default(), (120, 50));
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in:\n{text}"));
        assert!(place("pays the operator at") < place(" Miners: "), "{text}");
        assert!(place("doge: bob aaaaaaaa") < place("alice feedbeef"), "{text}");
        assert!(place("alice feedbeef") < place("doge: bob bbbbbbbb"), "{text}");
        assert!(text.contains("7 conf."), "{text}");
        assert!(!drawn(&overview(), &Shown::default(), (120, 50)).contains("pays the operator"));
    }

    #[test]
    fn a_long_name_shows_both_its_ends() {
        assert_eq!(brief("bcrt1qr83n7nuugyr7fxh7df59952e65tve6yzsa3w40.bob"), "bcrt1qr8\u{2026}2e65tve6yzsa3w40.bob");
        assert_eq!(brief("garage"), "garage");
    }

    #[test]
    fn one_list_has_the_whole_room_and_scrolls() {
        let shown = Shown { panel: Some(Panel::Miners), scroll: 25, lost: None };
        let text = drawn(&overview(), &shown, (100, 40));
        assert!(text.contains("worker25") && text.contains("worker29") && !text.contains("worker24"), "{text}");
        let beyond = Shown { panel: Some(Panel::Log), scroll: 1000, lost: None };
        assert!(drawn(&overview(), &beyond, (100, 40)).contains(" Log "));
    }

    #[test]
    fn a_node_that_went_away_is_told_over_what_it_said_last() {
        let shown = Shown { lost: Some("no p2pool runs on data".into()), ..Shown::default() };
        let text = drawn(&overview(), &shown, (120, 50));
        assert!(text.contains("no p2pool runs on data") && text.contains("5.00 PH/s"), "{text}");
    }

    #[test]
    fn the_smallest_windows_are_drawn_without_panic() {
        for size in [(1, 1), (20, 5), (80, 24), (300, 3)] {
            for panel in [None, Some(Panel::Miners), Some(Panel::Log)] {
                drawn(&overview(), &Shown { panel, ..Shown::default() }, size);
            }
        }
    }
}
