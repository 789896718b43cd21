//! Submissions whose proof of work is scrypt, beside the bare hash: what the way to the hashing threads and back costs.

use anyhow::{Context, Result};
use sharechain::coin::Pow;
use std::hint::black_box;
use std::time::{Duration, Instant};
use stratum::server::hashing::Hashers;

use super::child::{Child, Kind};
use super::crowd::Crowd;
use super::miner::Extranonce2;
use super::submit::{Load, Rate, grind, join, put_on};
use super::table::{Row, Table};
use super::{Config, report};

/// Submissions in flight per connection: as many as make the hashing threads never wait, whoever's turn it is.
const IN_FLIGHT: usize = 4;

/// Maximum rate of the latency measure, per second: as for other coins, the generator keeps up with it.
const RATE_MAX: f64 = 100_000.0;

/// Minimum of the submissions per second on one hashing thread, relative to the bare hash's rate on one core.
const LEAST: f64 = 0.9;

/// Takes all measures. The server's turns alternate with those of the bare hash on one core, while the server is idle.
pub(super) async fn measure(config: &Config, table: &mut Table) -> Result<()> {
    report("starting the server");
    let node = Child::start(Kind::Node(config.served)).await?;
    let load = Load { in_flight: IN_FLIGHT, extranonce2: Extranonce2::Kept, attacks: &[] };
    let (mut served, mut bare) = (Rate::default(), Rate::default());
    for round in 1..=config.rounds {
        report(format_args!("scrypt, round {round}, the bare hash"));
        hash(config.phase, &mut bare).await?;
        let submitters = grind(config, load, join(config, &node).await?).await?;
        report(format_args!("scrypt, round {round}, node"));
        put_on(config, &node, submitters, IN_FLIGHT, &mut served, table).await?;
    }
    let threads = Hashers::default().threads_max();
    #[expect(clippy::cast_precision_loss, reason = "a handful of cores")]
    let per_thread = served.per_second() / threads as f64;
    table.add(Row::new("scrypt, hashing threads", "", threads as f64));
    table.add(Row::new("scrypt submissions", "/s", served.per_second()));
    table
        .add(Row::new("scrypt submissions, of one thread", "/s", per_thread).beside(bare.per_second()).at_least(LEAST));
    table.add(Row::new("server's CPU for each, scrypt", "µs", served.cpu_us()).beside(bare.cpu_us()));
    answer_at(config, &node, served.per_second() / 2.0, table).await
}

/// Computes bare hashes on one core for a phase.
async fn hash(phase: Duration, bare: &mut Rate) -> Result<()> {
    let hashing = tokio::task::spawn_blocking(move || {
        let (begin, mut count, mut header) = (Instant::now(), 0_u64, [0; 80]);
        while begin.elapsed() < phase {
            header[..8].copy_from_slice(&count.to_le_bytes());
            black_box(Pow::Scrypt.function()(&header));
            count += 1;
        }
        (count, begin.elapsed())
    });
    let (count, took) = hashing.await.context("the hash failed")?;
    bare.count += count;
    bare.time += took;
    bare.cpu += took;
    Ok(())
}

/// Measures the times of answers at this many submissions per second.
async fn answer_at(config: &Config, node: &Child, rate: f64, table: &mut Table) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within these bounds")]
    let rate = rate.clamp(1.0, RATE_MAX) as u32;
    report(format_args!("scrypt, {rate} submissions a second"));
    let mut miners = Crowd::new(config.addresses, config.difficulty());
    // Each submits about once a second: a late answer is late, and no error.
    miners.join(node, rate.min(config.connections), config.joining).await;
    let phase = config.phase * config.rounds;
    let mut lines = miners.grind(rate, phase);
    let answers = miners.answers(&mut lines, rate, phase).await?;
    for (what, percent) in [("half", 50), ("99 %", 99), ("all", 100)] {
        let within = answers[(answers.len() * percent / 100).min(answers.len() - 1)];
        table.add(Row::new(format!("scrypt answers at {rate}/s, {what} within"), "ms", within));
    }
    miners.leave(table);
    Ok(())
}
