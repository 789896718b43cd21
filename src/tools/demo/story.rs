//! Explains events to a newcomer: lines that stay, and on a terminal a status line that changes.

use sharechain::coin::{DEMO, Parent, address};
use sharechain::share::{DONATION_SCRIPT, MARKER_SCRIPT, Share};
use std::collections::{BTreeMap, HashMap};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::merged::MergedBlock;
use crate::blocks::{BlockReport, FoundBlock, Outcome};
use crate::rates::Rates;
use crate::tools::mine::show_rate;

/// Number of accepted submissions after which only totals are shown.
const SUBMISSIONS_TOLD: u64 = 3;

/// Number of shares after which only totals are shown.
const SHARES_TOLD: u64 = 5;

/// Name of the donation output.
const DONATION: &str = "P2Pool's donation address, as there are no earlier shares yet";

/// Maximum satoshis lost to rounding when thousands are paid.
const ROUNDING_MAX: u64 = 10_000;

/// Satoshis in a coin.
const COIN: f64 = 100_000_000.0;

/// Part of the story.
#[derive(Debug)]
pub(super) enum Chapter<'a> {
    Measuring,
    Listening { address: SocketAddr, hash_rate: f64, block_spacing: Duration, share_spacing: Duration },
    Merged { names: &'a [&'a str] },
    WaitingForMiners { address: SocketAddr, example: &'a str },
    Status { rates: &'a Rates },
    End { rates: &'a Rates },
}

/// State of the story.
#[derive(Debug)]
pub(super) struct Story {
    on_terminal: bool,
    started: Instant,
    jobs: u64,
    accepted: u64,
    shares: u64,
    /// Of these, shares that solve a block.
    shares_of_blocks: u64,
    shares_late: u64,
    blocks: u64,
    blocks_lost: u64,
    /// Satoshis by payee.
    paid: BTreeMap<String, u64>,
    /// Number of merged chains' blocks and their base units, by chain and payee.
    merged: BTreeMap<(String, String), (u64, u64)>,
    /// The coin whose addresses are shown.
    coin: &'static Parent,
    /// Names of the demo's own miners, by address on any chain.
    names: HashMap<String, &'static str>,
    /// Set while a status line is on the terminal and must be cleared before the next line.
    status_shown: bool,
}

impl Story {
    /// Starts the story; `names` are those of the demo's own miners, by address on `coin` and on merged chains.
    pub(super) fn new(names: impl IntoIterator<Item = (String, &'static str)>, coin: &'static Parent) -> Self {
        Self {
            coin,
            names: names.into_iter().collect(),
            shares: 0,
            shares_of_blocks: 0,
            shares_late: 0,
            on_terminal: std::io::stdout().is_terminal(),
            started: Instant::now(),
            jobs: 0,
            accepted: 0,
            blocks: 0,
            blocks_lost: 0,
            paid: BTreeMap::new(),
            merged: BTreeMap::new(),
            status_shown: false,
        }
    }

    pub(super) fn is_on_terminal(&self) -> bool {
        self.on_terminal
    }

    /// Number of accepted blocks.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// True if the shares and submissions of `blocks` are all counted: each block is a share and a submission too, and
    /// those take longer to arrive.
    pub(super) fn is_complete(&self, rates: &Rates) -> bool {
        let blocks = self.blocks + self.blocks_lost;
        self.shares_of_blocks >= blocks && rates.accepted + rates.late >= blocks.max(self.accepted)
    }

    pub(super) fn print(&mut self, chapter: &Chapter<'_>) {
        match chapter {
            Chapter::Measuring => {
                self.line("P2Pool demo: a whole pool on a private chain inside this process. Nothing here is worth money.");
            }
            Chapter::Listening { address, hash_rate, block_spacing, share_spacing } => {
                self.line(&format!(
                    "Listening for miners on stratum+tcp://{address} (metrics: http://{address}/metrics)."
                ));
                self.line(&format!(
                    "At this machine's {} a share comes about every {:.1} s and a block every {} s; both follow the miners \
                     that come.",
                    show_rate(*hash_rate),
                    share_spacing.as_secs_f64(),
                    block_spacing.as_secs()
                ));
            }
            Chapter::Merged { names: [] } => {}
            Chapter::Merged { names } => self.line(&format!(
                "Merged mining: the same hashes also mine {}, private chains too. Each block names its payees.",
                names.join(" and ")
            )),
            Chapter::WaitingForMiners { address, example } => self.line(&format!(
                "Waiting for your miner: URL stratum+tcp://{address}, user name an address such as {example}, any password."
            )),
            Chapter::Status { rates } => {
                let status = self.status(rates);
                if self.on_terminal {
                    self.show_status(&status);
                } else {
                    self.line(&status);
                }
            }
            Chapter::End { rates } => self.end(rates),
        }
    }

    pub(super) fn job(&mut self, height: Option<u32>, difficulty: f64) {
        self.jobs += 1;
        if self.jobs == 1 {
            let height = height.map_or_else(String::new, |height| format!(" for block {height}"));
            self.line(&format!(
                "First job{height}: the miner submits every hash that reaches difficulty {}.",
                show_difficulty(difficulty)
            ));
        }
    }

    pub(super) fn accepted(&mut self) {
        self.accepted += 1;
        if self.accepted <= SUBMISSIONS_TOLD {
            self.line(&format!("Submission {} accepted: proof that the miner works, not yet a block.", self.accepted));
        }
    }

    pub(super) fn share(&mut self, share: &Share) {
        self.shares += 1;
        self.shares_of_blocks += u64::from(share.is_block());
        if self.shares == 1 {
            self.line("Hard submissions become shares: links of the chain that divides the next block among miners.");
        }
        if self.shares <= SHARES_TOLD {
            let payee = self.name_of(share.payee().as_str());
            self.line(&format!("Share {} found by {payee}.", share.absheight()));
        }
    }

    pub(super) fn late_share(&mut self) {
        self.shares_late += 1;
    }

    pub(super) fn refused(&mut self, reason: &str) {
        self.line(&format!("Submission refused: {reason}."));
    }

    pub(super) fn block(&mut self, report: &BlockReport, rates: &Rates) {
        let block = &report.block;
        match &report.outcome {
            Outcome::Accepted => {
                self.blocks += 1;
                self.line(&format!(
                    "Block found at height {} by {}: pays {} {} ({}).",
                    block.height,
                    worker_of(&block.finding.finder),
                    show_coins(block.finding.value),
                    DEMO.parent.symbol,
                    block.hash
                ));
                for (payee, value) in payouts_of(block, self.coin) {
                    let name = self.name_of(&payee);
                    self.line(&format!("  {:>12} to {name}", show_coins(value)));
                    *self.paid.entry(payee).or_default() += value;
                }
                let status = self.status(rates);
                self.line(&format!("  {status}"));
            }
            Outcome::Stale => {
                self.blocks_lost += 1;
                self.line(&format!("Block at height {} came too late: another one was first.", block.height));
            }
            Outcome::Rejected(reason) => {
                self.blocks_lost += 1;
                self.line(&format!("Block at height {} was rejected: {reason}.", block.height));
            }
            Outcome::Waiting(_) | Outcome::Failed(_) => {}
        }
    }

    /// Narrates a block of a merged chain, with its finder if that is known.
    pub(super) fn merged_block(&mut self, block: &MergedBlock, finder: Option<&str>) {
        let MergedBlock { chain, height, hash, value, payouts, pays_miners } = block;
        let finder = finder.map(|finder| format!(" by {}", worker_of(finder))).unwrap_or_default();
        let coins = show_coins(*value);
        let payees = match &payouts[..] {
            [(payee, _)] if !pays_miners => self.name_of(payee),
            payouts => counted(payouts.len() as u64, "miner"),
        };
        self.line(&format!("{chain} block found at height {height}{finder}: pays {coins} to {payees} ({hash})."));
        for (payee, value) in payouts {
            let name = self.name_of(payee);
            if *pays_miners {
                self.line(&format!("  {:>12} to {name}", show_coins(*value)));
            }
            let (count, paid) = self.merged.entry((chain.clone(), name)).or_default();
            *count += 1;
            *paid += value;
        }
    }

    fn end(&mut self, rates: &Rates) {
        let seconds = self.started.elapsed().as_secs();
        self.line(&format!("The end, after {seconds} s. {}", self.status(rates)));
        let paid: Vec<String> = self
            .paid
            .iter()
            .map(|(payee, value)| {
                let name = self.name_of(payee);
                format!("  {:>12} {} to {name}", show_coins(*value), DEMO.parent.symbol)
            })
            .collect();
        let merged = self.merged.iter().map(|((chain, payee), (count, value))| {
            format!("  {:>12} coins of {chain} to {payee}, in {}", show_coins(*value), counted(*count, "block"))
        });
        for line in paid.into_iter().chain(merged.collect::<Vec<_>>()) {
            self.line(&line);
        }
    }

    fn status(&self, rates: &Rates) -> String {
        let late = if self.shares_late > 0 { format!(" ({} late)", self.shares_late) } else { String::new() };
        let lost = if self.blocks_lost > 0 { format!(" ({} lost)", self.blocks_lost) } else { String::new() };
        format!(
            "Totals: {} accepted, {} late; {}{late}; {}{lost}; {} {} paid; {} by {}",
            // The miner knows of its submissions before the statistics do.
            counted(rates.accepted.max(self.accepted), "submission"),
            rates.late,
            counted(self.shares, "share"),
            counted(self.blocks, "block"),
            show_coins(self.paid.values().sum()),
            DEMO.parent.symbol,
            show_rate(rates.hash_rate),
            counted(rates.active_workers as u64, "worker"),
        )
    }

    /// Name of a payee: the demo's own miners by name, with the address.
    fn name_of(&self, address: &str) -> String {
        match self.names.get(address) {
            Some(name) => format!("{name} ({address})"),
            None => address.to_owned(),
        }
    }

    fn line(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        let clear = if std::mem::take(&mut self.status_shown) { "\r\x1b[2K" } else { "" };
        // A closed pipe is not an error worth reporting.
        let _ = writeln!(out, "{clear}{text}").and_then(|()| out.flush());
    }

    fn show_status(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Truncated, since a wrapped line could not be cleared again.
        let text: String = text.chars().take(110).collect();
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
        self.status_shown = true;
    }
}

/// Satoshis by payee in the coinbase of `block`, without empty outputs and those without an address.
fn payouts_of(block: &FoundBlock, coin: &Parent) -> Vec<(String, u64)> {
    let Ok(block) = bitcoin::consensus::deserialize::<bitcoin::Block>(&block.bytes) else { return Vec::new() };
    let Some(coinbase) = block.txdata.first() else { return Vec::new() };
    let paid = coinbase.output.iter().filter_map(|output| {
        let value = output.value.to_sat();
        if [&DONATION_SCRIPT[..], &MARKER_SCRIPT].contains(&output.script_pubkey.as_bytes()) {
            // Usually only the rounding remainder; the first blocks of a chain have no other payee.
            return (value > ROUNDING_MAX).then(|| (DONATION.to_owned(), value));
        }
        Some((address::of_script(&output.script_pubkey, coin)?, value))
    });
    paid.filter(|(_, value)| *value > 0).collect()
}

/// Worker's own name, without the address before it.
fn worker_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, worker)| worker)
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn show_coins(satoshis: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "there are fewer than 2^53 satoshis")]
    let coins = satoshis as f64 / COIN;
    format!("{coins}")
}

fn show_difficulty(difficulty: f64) -> String {
    if difficulty >= 0.01 { format!("{difficulty:.2}") } else { format!("{difficulty:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_as_people_read_them() {
        assert_eq!(show_coins(5_000_000_000), "50");
        assert_eq!(show_coins(150_000_001), "1.50000001");
        assert_eq!(show_difficulty(0.000_976), "9.76e-4");
        assert_eq!(worker_of("bcrt1qxyz.cpu"), "cpu");
        assert_eq!(worker_of("me"), "me");
    }
}
