//! A small CPU miner for tests and demonstrations: an ordinary Stratum client, independent of the node it mines on.

mod client;
mod hasher;

pub use client::{Miner, MinerEvent, run};
pub use hasher::measure;

use sharechain::coin::Pow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep};
use tracing::{debug, info, warn};

/// Pause before reconnecting to a lost pool.
const PAUSE: Duration = Duration::from_secs(3);

/// Queue capacity for the threads' events.
const EVENTS_MAX: usize = 1024;

/// Interval of the line with the hash rate.
const RATE_INTERVAL: Duration = Duration::from_secs(60);

/// Configuration of the miner.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Host and port of the pool.
    pub pool: String,
    /// User name to mine as.
    pub user: String,
    /// Password of the user.
    pub password: String,
    /// Number of threads, each with its own connection.
    pub threads: u32,
    /// Maximum hashes per second of all threads together.
    pub pace: f64,
    /// Proof of work of the pool's coin.
    pub pow: Pow,
}

/// Mines until `stop`; reconnects whenever the pool is lost.
pub async fn mine(config: &Config, stop: impl Future<Output = ()>) {
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let miner = Miner {
        pool: config.pool.clone(),
        name: config.user.clone(),
        password: config.password.clone(),
        pow: config.pow,
        pace: config.pace / f64::from(config.threads),
        hashes: Arc::default(),
    };
    let mut threads = JoinSet::new();
    for _ in 0..config.threads {
        threads.spawn(keep_mining(miner.clone(), events.clone()));
    }
    info!(pool = config.pool, user = config.user, threads = config.threads, "mining");
    let started = Instant::now();
    let mut rate = interval_at((started + RATE_INTERVAL).into(), RATE_INTERVAL);
    let mut hashes = 0;
    let mut stop = std::pin::pin!(stop);
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = rate.tick() => {
                let before = std::mem::replace(&mut hashes, miner.hashes.load(Ordering::Relaxed));
                info!(hash_rate = rate_of(hashes - before, RATE_INTERVAL), accepted, refused, "still mining");
            }
            Some(event) = heard.recv() => match event {
                MinerEvent::Job { difficulty } => debug!(difficulty, "new job"),
                MinerEvent::Accepted => {
                    accepted += 1;
                    info!(accepted, refused, "submission accepted");
                }
                MinerEvent::Refused(reason) => {
                    refused += 1;
                    warn!(accepted, refused, reason, "submission refused");
                }
            },
        }
    }
    let hash_rate = rate_of(miner.hashes.load(Ordering::Relaxed), started.elapsed());
    info!(hash_rate, accepted, refused, "stopped");
}

async fn keep_mining(miner: Miner, events: mpsc::Sender<MinerEvent>) {
    loop {
        if let Err(error) = run(&miner, events.clone()).await {
            warn!(pool = miner.pool, error = format!("{error:#}"), "no pool: retrying in {PAUSE:?}");
        }
        sleep(PAUSE).await;
    }
}

fn rate_of(hashes: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    let hashes = hashes as f64;
    show_rate(hashes / time.as_secs_f64())
}

/// Hash rate with the unit that fits.
pub fn show_rate(hashes_per_second: f64) -> String {
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
    fn rates_are_shown_in_the_unit_that_fits() {
        assert_eq!(show_rate(5_250_000.0), "5.2 MH/s");
        assert_eq!(show_rate(0.0), "0.0 H/s");
        assert_eq!(show_rate(2e21), "2000.0 EH/s");
        assert_eq!(rate_of(128_400, RATE_INTERVAL), "2.1 kH/s");
    }
}
