//! Tells a newcomer what happens: lines that stay, and on a terminal one status line that moves.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::block::{BlockReport, Outcome};
use crate::network::DEMO;
use crate::stats::Rates;

/// Accepted submissions after which only the totals are told.
const SUBMISSIONS_TOLD: u64 = 3;

/// Satoshis in a coin.
const COIN: f64 = 100_000_000.0;

/// Something to tell.
#[derive(Debug)]
pub(super) enum Chapter<'a> {
    Measuring,
    Listening { address: SocketAddr, hash_rate: f64, spacing: Duration },
    WaitingForMiners { address: SocketAddr, example: &'a str },
    Status { rates: &'a Rates },
    End { rates: &'a Rates },
}

/// What was told so far.
#[derive(Debug)]
pub(super) struct Story {
    on_terminal: bool,
    started: Instant,
    jobs: u64,
    accepted: u64,
    blocks: u64,
    blocks_lost: u64,
    /// Satoshis by payee.
    paid: BTreeMap<String, u64>,
    /// A status line stands on the terminal and must be cleared before the next line.
    status_shown: bool,
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            on_terminal: std::io::stdout().is_terminal(),
            started: Instant::now(),
            jobs: 0,
            accepted: 0,
            blocks: 0,
            blocks_lost: 0,
            paid: BTreeMap::new(),
            status_shown: false,
        }
    }

    pub(super) fn is_on_terminal(&self) -> bool {
        self.on_terminal
    }

    /// Blocks accepted so far.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn tell(&mut self, chapter: &Chapter<'_>) {
        match chapter {
            Chapter::Measuring => {
                self.line("P2Pool demo: a whole pool on a private chain inside this process. Nothing here is worth money.");
            }
            Chapter::Listening { address, hash_rate, spacing } => {
                self.line(&format!(
                    "Listening for miners on stratum+tcp://{address} (metrics: http://{address}/metrics)."
                ));
                self.line(&format!(
                    "This machine does {} with half its cores: the chain's difficulty starts so that this finds a block about \
                     every {} s, and follows the miners that come.",
                    show_rate(*hash_rate),
                    spacing.as_secs()
                ));
            }
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
                "First job{height}: the miner is to submit whatever reaches difficulty {}.",
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

    pub(super) fn refused(&mut self, reason: &str) {
        self.line(&format!("Submission refused: {reason}."));
    }

    pub(super) fn block(&mut self, report: &BlockReport, rates: &Rates) {
        let block = &report.block;
        match &report.outcome {
            Outcome::Accepted => {
                self.blocks += 1;
                *self.paid.entry(block.payee.clone()).or_default() += block.value;
                self.line(&format!(
                    "Block found at height {} by {}: pays {} {} to {} ({}).",
                    block.height,
                    worker_of(&block.finder),
                    show_coins(block.value),
                    DEMO.parent.symbol,
                    block.payee,
                    block.hash
                ));
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
            Outcome::Failed(_) => {}
        }
    }

    fn end(&mut self, rates: &Rates) {
        let seconds = self.started.elapsed().as_secs();
        self.line(&format!("The end, after {seconds} s. {}", self.status(rates)));
        let paid: Vec<String> = self
            .paid
            .iter()
            .map(|(payee, value)| format!("  {} {} to {payee}", show_coins(*value), DEMO.parent.symbol))
            .collect();
        for line in paid {
            self.line(&line);
        }
    }

    fn status(&self, rates: &Rates) -> String {
        let lost = if self.blocks_lost > 0 { format!(" ({} lost)", self.blocks_lost) } else { String::new() };
        format!(
            "Totals: {} accepted, {} late; {}{lost}; {} {} paid; {} by {}",
            // The miner hears of its submissions before the statistics do.
            counted(rates.accepted.max(self.accepted), "submission"),
            rates.late,
            counted(self.blocks, "block"),
            show_coins(self.paid.values().sum()),
            DEMO.parent.symbol,
            show_rate(rates.hash_rate),
            counted(rates.workers.len() as u64, "worker"),
        )
    }

    fn line(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        let clear = if std::mem::take(&mut self.status_shown) { "\r\x1b[2K" } else { "" };
        // Whoever closed the pipe does not want to be told that it is closed.
        let _ = writeln!(out, "{clear}{text}").and_then(|()| out.flush());
    }

    fn show_status(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Cut, since a line that wraps could not be cleared again.
        let text: String = text.chars().take(110).collect();
        let _ = write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush());
        self.status_shown = true;
    }
}

/// A worker's own name, without the address before it.
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

fn show_rate(hashes_per_second: f64) -> String {
    const UNITS: [&str; 7] = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s"];
    let mut rate = hashes_per_second;
    let mut unit = 0;
    while rate >= 1000.0 && unit + 1 < UNITS.len() {
        rate /= 1000.0;
        unit += 1;
    }
    format!("{rate:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_as_people_read_them() {
        assert_eq!(show_rate(5_250_000.0), "5.2 MH/s");
        assert_eq!(show_rate(0.0), "0.0 H/s");
        assert_eq!(show_rate(2e21), "2000.0 EH/s");
        assert_eq!(show_coins(5_000_000_000), "50");
        assert_eq!(show_coins(150_000_001), "1.50000001");
        assert_eq!(show_difficulty(0.000_976), "9.76e-4");
        assert_eq!(worker_of("bcrt1qxyz.cpu"), "cpu");
        assert_eq!(worker_of("me"), "me");
    }
}
