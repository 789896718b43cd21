//! Submissions as fast as they are answered: one at a time and with many in flight, alone and beside hostile clients.

use anyhow::{Context, Result};
use parking_lot::Mutex;
use sharechain::coin::{BITCOIN_SIGNET, Network};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::child::{Child, Kind};
use super::hostile::{Attack, Hostility};
use super::miner::{Extranonce2, Grinder, LineReader, Lines, Miner, ServerLine};
use super::serve::{Served, address};
use super::socket::{connect, miner_address, read, write_all};
use super::table::{Row, Table};
use super::{Config, Measure, report};

/// Submissions in flight per connection in the pipelined measure.
const IN_FLIGHT: usize = 16;

/// Part of a phase that passes before measuring.
const WARM_UP: f64 = 0.2;

/// Maximum rates of submissions prepared for, per second: more than two cores can judge.
const RATE_MAX: [f64; 2] = [200_000.0, 900_000.0];

/// Takes the selected measures.
pub(super) async fn measure(config: &Config, table: &mut Table) -> Result<()> {
    report("starting the servers");
    let (mut node, bare) = start(config).await?;
    let mut accepted = 0;
    for (measure, in_flight, what) in
        [(Measure::Single, 1, "one at a time"), (Measure::Pipelined, IN_FLIGHT, "16 in flight")]
    {
        if !config.wants(measure) && !config.wants(Measure::Hostile) {
            continue;
        }
        let load = Load { in_flight, extranonce2: Extranonce2::Kept, attacks: &[] };
        let alone = Pair::measure(config, [&node, &bare], load, table).await?;
        accepted += alone.node.count;
        alone.add_rows(what, in_flight, table);
        if config.wants(measure) {
            let fresh = Load { extranonce2: Extranonce2::Fresh, ..load };
            let fresh = Pair::measure(config, [&node, &bare], fresh, table).await?;
            accepted += fresh.node.count;
            fresh.add_rows(&format!("{what}, new extranonce2"), in_flight, table);
        }
        if config.wants(Measure::Hostile) {
            let beset = Load { attacks: &Attack::MIXED, ..load };
            let beset = Pair::measure(config, [&node, &bare], beset, table).await?;
            accepted += beset.node.count;
            beset.add_row_beside(format!("{what}, beside {} hostile", config.hostile), &alone, table);
        }
    }
    let solutions = node.ask("solutions").await?.max(1);
    #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
    let each = accepted as f64 / solutions as f64;
    table.add(Row::new("submissions for a solution", "", each).must(each > 1000.0, "> 1000"));
    Ok(())
}

/// Takes the measure of each attack alone: the same load on both servers beside it, and without it.
pub(super) async fn measure_attacks(config: &Config, table: &mut Table) -> Result<()> {
    report("starting the servers");
    let (node, bare) = start(config).await?;
    for attacks in Attack::ALL.chunks(1) {
        let load = Load { in_flight: 1, extranonce2: Extranonce2::Kept, attacks: &[] };
        let beset = Load { attacks, ..load };
        let (mut alone, mut beside) = (Pair::default(), Pair::default());
        // In turn, so that a machine that changes its speed changes that of both.
        for round in 1..=config.rounds {
            alone.take_turn(config, [&node, &bare], load, round, table).await?;
            beside.take_turn(config, [&node, &bare], beset, round, table).await?;
        }
        // A run that breaks off later has shown what it has.
        report(format_args!(
            "beside {}: {:.2} of the bare server, {:.2} without",
            attacks[0],
            beside.ratio(),
            alone.ratio()
        ));
        let what = format!("one at a time, beside {} of {}", config.hostile, attacks[0]);
        beside.add_row_beside(what, &alone, table);
    }
    Ok(())
}

/// Starts both servers. The node takes clients' addresses from PROXY headers: limits are by network, and hostile clients
/// are of another network than miners.
async fn start(config: &Config) -> Result<(Child, Child)> {
    let served = Served { trusts_proxy: true, ..config.served };
    Ok((Child::start(Kind::Node(served)).await?, Child::start(Kind::Bare).await?))
}

/// Connects the miners that submit to the node.
pub(super) async fn join(config: &Config, node: &Child) -> Result<Vec<Submitter>> {
    let mut submitters = Vec::new();
    for number in 0..config.submitters {
        let name = name(&BITCOIN_SIGNET, number % config.addresses, number, config.difficulty());
        let client = node.trusts_proxy().then(|| miner_address(number));
        let joined = Miner::join(node.address, client, &name).await;
        let Miner { reader, writer, grinder, .. } = joined.with_context(|| format!("miner {number} is not served"))?;
        submitters.push(Submitter::new(reader, writer, Some(grinder)));
    }
    Ok(submitters)
}

/// User name of the miners with this number.
pub(super) fn name(network: &Network, account: u32, number: u32, difficulty: &str) -> String {
    // The hardest share that the pool allows: their submissions are not to be solutions.
    format!("{}.w{number}/1+{difficulty}", address(network, account))
}

/// Number of submissions in a time.
#[derive(Debug, Default)]
pub(super) struct Rate {
    pub(super) count: u64,
    pub(super) time: Duration,
    pub(super) cpu: Duration,
}

#[expect(clippy::cast_precision_loss, reason = "figures to be read")]
impl Rate {
    pub(super) fn per_second(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }

    /// Server's CPU time per submission, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
    }
}

/// Load of the submitters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) in_flight: usize,
    pub(super) extranonce2: Extranonce2,
    /// What hostile clients do besides; without any there are none.
    pub(super) attacks: &'static [Attack],
}

/// Results of the same load on both servers.
#[derive(Debug, Default)]
struct Pair {
    node: Rate,
    bare: Rate,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.node.per_second() / self.bare.per_second()
    }

    /// Adds its rows to the table: submissions per second, and the cost of each.
    fn add_rows(&self, what: &str, in_flight: usize, table: &mut Table) {
        let least = if in_flight == 1 { 0.7 } else { 0.15 };
        let [node_cpu, bare_cpu] = [&self.node, &self.bare].map(Rate::cpu_us);
        table.add(
            Row::new(format!("submissions, {what}"), "/s", self.node.per_second())
                .beside(self.bare.per_second())
                .at_least(least),
        );
        table.add(
            Row::new(format!("server's CPU for each, {what}"), "µs", node_cpu)
                .beside(bare_cpu)
                .must(node_cpu <= bare_cpu + 4.0, "≤ bare + 4"),
        );
    }

    /// Adds the row of this load beside hostile clients; `alone` is the same load without them.
    fn add_row_beside(&self, what: String, alone: &Self, table: &mut Table) {
        let change = (self.ratio() / alone.ratio() - 1.0) * 100.0;
        table.add(
            Row::new(what, "/s", self.node.per_second())
                .beside(self.bare.per_second())
                .must(change >= -20.0, &format!("≥ {:.2}: {change:+.0} %", alone.ratio() * 0.8)),
        );
    }

    async fn measure(config: &Config, servers: [&Child; 2], load: Load, table: &mut Table) -> Result<Self> {
        let mut pair = Self::default();
        for round in 1..=config.rounds {
            pair.take_turn(config, servers, load, round, table).await?;
        }
        Ok(pair)
    }

    /// Puts the load on one server after the other.
    async fn take_turn(
        &mut self,
        config: &Config,
        [node, bare]: [&Child; 2],
        load: Load,
        round: u32,
        table: &mut Table,
    ) -> Result<()> {
        let Load { in_flight, extranonce2, attacks } = load;
        let fresh = if extranonce2 == Extranonce2::Fresh { ", each with a new extranonce2" } else { "" };
        // Connected again, for a job takes a limited number of submissions.
        let node_submitters = grind(config, load, join(config, node).await?).await?;
        let mut bare_submitters = Vec::new();
        for submitter in &node_submitters {
            let (reader, writer) = connect(bare.address, None).await?;
            bare_submitters.push(Submitter { lines: submitter.lines.clone(), ..Submitter::new(reader, writer, None) });
        }
        for (server, submitters, rate) in
            [(bare, bare_submitters, &mut self.bare), (node, node_submitters, &mut self.node)]
        {
            let who = if server.is_node() { "node" } else { "bare" };
            let beside = if let [attack] = attacks {
                format!(" beside {attack}")
            } else if attacks.is_empty() {
                String::new()
            } else {
                " beside hostile clients".to_owned()
            };
            report(format_args!("{in_flight} in flight{fresh}{beside}, round {round}, {who}"));
            let hostility = (!attacks.is_empty()).then(|| Hostility::start(server, config.hostile, attacks));
            put_on(config, server, submitters, in_flight, rate, table).await?;
            drop(hostility);
        }
        Ok(())
    }
}

/// Finds the submissions of the node's `submitters` for a phase.
pub(super) async fn grind(config: &Config, load: Load, submitters: Vec<Submitter>) -> Result<Vec<Submitter>> {
    let Load { in_flight, extranonce2, .. } = load;
    let seconds = config.phase.as_secs_f64() * (1.0 + WARM_UP);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "millions at most")]
    let each =
        (RATE_MAX[usize::from(in_flight > 1)] * seconds / f64::from(config.submitters)) as usize + 10 * in_flight;
    let mut grinding = JoinSet::new();
    for mut submitter in submitters {
        grinding.spawn_blocking(move || {
            if let Some(grinder) = &mut submitter.grinder {
                submitter.lines = grinder.lines(each, extranonce2);
            }
            submitter
        });
    }
    let mut submitters = Vec::new();
    while let Some(submitter) = grinding.join_next().await {
        submitters.push(submitter.context("the grinder failed")?);
    }
    Ok(submitters)
}

/// State shared by all submitters of a phase.
#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    wrongs: Mutex<Vec<String>>,
    over: AtomicBool,
    /// Notified when a submitter has run out of submissions.
    dry: Notify,
}

/// Runs one phase of load, and adds its results to `rate`.
pub(super) async fn put_on(
    config: &Config,
    server: &Child,
    submitters: Vec<Submitter>,
    in_flight: usize,
    rate: &mut Rate,
    table: &mut Table,
) -> Result<()> {
    let tally = Arc::new(Tally::default());
    let mut tasks = JoinSet::new();
    for submitter in submitters {
        tasks.spawn(submitter.run(in_flight, tally.clone()));
    }
    tokio::time::sleep(config.phase.mul_f64(WARM_UP)).await;
    let (cpu, count, begin) = (server.cpu()?, tally.accepted.load(Ordering::Relaxed), Instant::now());
    tokio::select! {
        () = tokio::time::sleep(config.phase) => {}
        () = tally.dry.notified() => {}
    }
    rate.time += begin.elapsed();
    rate.count += tally.accepted.load(Ordering::Relaxed) - count;
    rate.cpu += server.cpu()? - cpu;
    tally.over.store(true, Ordering::Relaxed);
    while let Some(submitter) = tasks.join_next().await {
        submitter.context("a submitter failed")?;
    }
    table.wrongs.append(&mut tally.wrongs.lock());
    Ok(())
}

#[derive(Debug)]
pub(super) struct Submitter {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    ear: LineReader,
    lines: Lines,
    /// Source of submissions. The bare server gets the node's again and again.
    grinder: Option<Grinder>,
}

impl Submitter {
    /// Starts without submissions.
    fn new(reader: OwnedReadHalf, writer: OwnedWriteHalf, grinder: Option<Grinder>) -> Self {
        Self { reader, writer, ear: LineReader::default(), lines: Lines::default(), grinder }
    }

    /// Submits until the phase is over and everything answered, or the connection is lost.
    async fn run(mut self, in_flight: usize, tally: Arc<Tally>) {
        let mut flying = 0;
        loop {
            if flying < in_flight && !tally.over.load(Ordering::Relaxed) {
                if self.grinder.is_none() && self.lines.is_spent() {
                    self.lines.rewind();
                }
                let lines = self.lines.take(in_flight - flying);
                let count = lines.len();
                let written = write_all(&self.writer, lines).await;
                if count == 0 {
                    tally.dry.notify_one();
                    tally.over.store(true, Ordering::Relaxed);
                }
                if let Err(error) = written {
                    tally.wrongs.lock().push(format!("a submitter was cut off: {error}"));
                    return;
                }
                flying += count / self.lines.bytes_each();
            }
            if flying == 0 {
                return;
            }
            let (mut accepted, mut rejected) = (0, 0);
            let Self { reader, ear, .. } = &mut self;
            let heard = read(reader, |bytes| {
                ear.hear(bytes, |heard| match heard {
                    ServerLine::Accepted => accepted += 1,
                    ServerLine::Rejected(text) => {
                        rejected += 1;
                        tally.wrongs.lock().push(format!("a valid submission was rejected: {text}"));
                    }
                    ServerLine::Job { .. } | ServerLine::Other => {}
                });
            });
            if let Err(error) = heard.await {
                tally.wrongs.lock().push(format!("a submitter was cut off: {error}"));
                return;
            }
            flying -= accepted + rejected;
            tally.accepted.fetch_add(accepted as u64, Ordering::Relaxed);
        }
    }
}
