//! A small CPU miner for tests and demonstrations: an ordinary Stratum client, independent of the node it mines on.

mod client;
mod hasher;

pub use client::{MinerEvent, run};
pub use hasher::measure;

use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

/// Pause before reconnecting to a lost pool.
const PAUSE: Duration = Duration::from_secs(3);

/// Queue capacity for the threads' events.
const EVENTS_MAX: usize = 1024;

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
}

/// Mines until `stop`; reconnects whenever the pool is lost.
pub async fn mine(config: &Config, stop: impl Future<Output = ()>) {
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let mut threads = JoinSet::new();
    for _ in 0..config.threads {
        threads.spawn(keep_mining(config.clone(), events.clone()));
    }
    info!(pool = config.pool, user = config.user, threads = config.threads, "mining");
    let mut stop = std::pin::pin!(stop);
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    loop {
        tokio::select! {
            () = &mut stop => break,
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
    info!(accepted, refused, "stopped");
}

async fn keep_mining(config: Config, events: mpsc::Sender<MinerEvent>) {
    let pace = config.pace / f64::from(config.threads);
    loop {
        if let Err(error) = run(&config.pool, &config.user, &config.password, pace, events.clone()).await {
            warn!(pool = config.pool, error = format!("{error:#}"), "no pool: retrying in {PAUSE:?}");
        }
        sleep(PAUSE).await;
    }
}
