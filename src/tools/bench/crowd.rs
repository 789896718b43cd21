//! Thousands of connections: the rate at which they are accepted, their memory, the latency of answers, and the time
//! until the last of them has a new job.

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use sharechain::coin::BITCOIN_SIGNET;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::child::Child;
use super::miner::{Extranonce2, Grinder, LineReader, Lines, Miner, ServerLine};
use super::socket::{connect, read};
use super::submit::name;
use super::table::{Row, Table};
use super::{Config, Measure, SMALL_PAYEES, clock_ns, report};

/// Minimum duration for judging the growth of memory: before, it is dominated by first jobs.
const JUDGED_FROM: Duration = Duration::from_secs(600);

/// Pause before memory is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// Number of new jobs in a measure; the median counts.
const JOB_ROUNDS: usize = 9;

/// Timeout of a new job: later ones count as missed.
const JOB_TIMEOUT: Duration = Duration::from_secs(15);

/// Pause between new jobs.
const JOB_PAUSE: Duration = Duration::from_millis(300);

/// Interval of new blocks while connections are held, in seconds: that of shares in a pool.
const HELD_JOB_INTERVAL: u64 = 30;

/// Interval of checks for due submissions.
const PACE: Duration = Duration::from_micros(100);

/// Mean time between two jobs of a connection without news: the notify interval, shortened by up to a fifth.
const REFRESH_S: f64 = 0.9 * 30.0;

/// Results from all members of a crowd.
#[derive(Debug, Default)]
struct Heed {
    /// Number of members that have the newest job.
    jobs: AtomicU64,
    /// Time at which the last of them received it.
    last_job_ns: AtomicU64,
    /// Times from a submission to its answer, in nanoseconds.
    answers: Mutex<Vec<u64>>,
    wrongs: Mutex<Vec<String>>,
    /// Set while connections are being closed on purpose.
    closing: AtomicBool,
}

#[derive(Debug)]
struct Member {
    writer: OwnedWriteHalf,
    /// Due time of the unanswered submission.
    due_ns: Arc<AtomicU64>,
    listening: AbortHandle,
    /// `None` for the bare server, which gives no work.
    grinder: Option<Grinder>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// A new connection.
struct Joined {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    grinder: Option<Grinder>,
    job: String,
}

/// Connections to one server.
#[derive(Debug)]
pub(super) struct Crowd {
    heed: Arc<Heed>,
    members: VecDeque<Member>,
    /// Longest line of a job.
    job: String,
    /// Total time of connecting.
    joined_in: Duration,
    addresses: u32,
    /// Difficulty that its members ask for.
    difficulty: &'static str,
    next: u32,
}

impl Crowd {
    pub(super) fn new(addresses: u32, difficulty: &'static str) -> Self {
        Self {
            heed: Arc::default(),
            members: VecDeque::new(),
            job: String::new(),
            joined_in: Duration::ZERO,
            addresses,
            difficulty,
            next: 0,
        }
    }

    /// Adds `count` connections, at most `per_second`; returns the number of failures.
    pub(super) async fn join(&mut self, server: &Child, count: u32, per_second: u32) -> u32 {
        let begin = Instant::now();
        let (is_node, address) = (server.is_node(), server.address);
        let mut joining = JoinSet::new();
        for number in 0..count {
            sleep_until(begin + Duration::from_secs(1) * number / per_second).await;
            let name = name(&BITCOIN_SIGNET, self.next % self.addresses, self.next, self.difficulty);
            self.next = self.next.wrapping_add(1);
            joining.spawn(async move { Self::join_one(is_node, address, &name).await });
        }
        let mut failed = 0;
        while let Some(joined) = joining.join_next().await {
            match joined.map_err(anyhow::Error::from).flatten() {
                Ok(Joined { reader, writer, grinder, job }) => {
                    if job.len() > self.job.len() {
                        self.job = job;
                    }
                    let due_ns = Arc::<AtomicU64>::default();
                    let listening = tokio::spawn(listen(reader, due_ns.clone(), self.heed.clone()));
                    self.members.push_back(Member { writer, due_ns, listening: listening.abort_handle(), grinder });
                }
                Err(error) => {
                    failed += 1;
                    self.heed.wrongs.lock().push(format!("a connection was not accepted: {error:#}"));
                }
            }
        }
        self.joined_in = begin.elapsed();
        failed
    }

    async fn join_one(is_node: bool, address: SocketAddr, name: &str) -> Result<Joined> {
        if is_node {
            let Miner { reader, writer, job, grinder } = Miner::join(address, None, name).await?;
            Ok(Joined { reader, writer, grinder: Some(grinder), job })
        } else {
            let (reader, writer) = connect(address, None).await?;
            Ok(Joined { reader, writer, grinder: None, job: String::new() })
        }
    }

    /// Time from a new job to its arrival at the last member, in milliseconds: the median of several.
    async fn new_jobs(&self, server: &mut Child, job: &str) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..JOB_ROUNDS {
            times.push(self.new_job(server, job).await?);
            sleep(JOB_PAUSE).await;
        }
        times.sort_by(f64::total_cmp);
        Ok(times[JOB_ROUNDS / 2])
    }

    async fn new_job(&self, server: &mut Child, job: &str) -> Result<f64> {
        let heed = &self.heed;
        let count = self.members.len() as u64;
        heed.jobs.store(0, Ordering::SeqCst);
        heed.last_job_ns.store(0, Ordering::SeqCst);
        let known = server.new_job(job).await?;
        let begin = Instant::now();
        while heed.jobs.load(Ordering::SeqCst) < count && begin.elapsed() < JOB_TIMEOUT {
            sleep(Duration::from_millis(5)).await;
        }
        let missed = count.saturating_sub(heed.jobs.load(Ordering::SeqCst));
        if missed > 0 {
            heed.wrongs.lock().push(format!("{missed} of {count} connections missed a job"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let took = heed.last_job_ns.load(Ordering::SeqCst).saturating_sub(known) as f64;
        Ok(took / 1e6)
    }

    /// Finds each member's submissions for this `time` at `rate` per second in all.
    pub(super) fn grind(&mut self, rate: u32, time: Duration) -> Vec<Lines> {
        #[expect(clippy::cast_precision_loss, reason = "thousands at most")]
        let each = time.as_secs_f64() * f64::from(rate) / self.members.len() as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful")]
        let each = 2 + (1.2 * each) as usize;
        let grinders = self.members.iter_mut().filter_map(|member| member.grinder.as_mut());
        grinders.map(|grinder| grinder.lines(each, Extranonce2::Kept)).collect()
    }

    /// Submits `lines`, one of each member in turn, at `rate` per second in all; returns the latencies of the answers
    /// in milliseconds, sorted, counted from when each was due.
    pub(super) async fn answers(&mut self, lines: &mut Vec<Lines>, rate: u32, time: Duration) -> Result<Vec<f64>> {
        self.heed.answers.lock().clear();
        let (members, mut all) = (std::mem::take(&mut self.members), std::mem::take(lines));
        // On a thread of its own: the runtime's clock is too coarse, and its threads are busy.
        let pace = move || {
            let sent = pace(&members, &mut all, rate, time);
            (members, all, sent)
        };
        let (members, all, sent) = tokio::task::spawn_blocking(pace).await.context("the pacemaker failed")?;
        (self.members, *lines) = (members, all);
        let sent = sent?;
        let waiting = Instant::now();
        while (self.heed.answers.lock().len() as u64) < sent && waiting.elapsed() < JOB_TIMEOUT {
            sleep(Duration::from_millis(10)).await;
        }
        #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
        let mut answers: Vec<f64> = self.heed.answers.lock().iter().map(|ns| *ns as f64 / 1e6).collect();
        let missing = sent.saturating_sub(answers.len() as u64);
        if missing > 0 {
            self.heed.wrongs.lock().push(format!("{missing} submissions were not answered"));
        }
        answers.sort_by(f64::total_cmp);
        ensure!(!answers.is_empty(), "nothing was answered");
        Ok(answers)
    }

    /// Closes all connections, and reports their errors.
    pub(super) fn leave(mut self, table: &mut Table) {
        self.heed.closing.store(true, Ordering::SeqCst);
        self.members.clear();
        table.wrongs.append(&mut self.heed.wrongs.lock());
    }
}

/// Submits `lines` of `members` for `time`, at `rate` per second in all; returns the number sent.
fn pace(members: &VecDeque<Member>, lines: &mut [Lines], rate: u32, time: Duration) -> Result<u64> {
    let begin_ns = clock_ns();
    let gap_ns = 1_000_000_000 / u64::from(rate);
    let end_ns = begin_ns + u64::try_from(time.as_nanos())?;
    let mut sent = 0;
    while clock_ns() < end_ns {
        std::thread::sleep(PACE);
        while begin_ns + sent * gap_ns <= clock_ns() {
            let index = usize::try_from(sent % members.len() as u64)?;
            let (member, line) = (&members[index], lines[index].take(1));
            ensure!(!line.is_empty(), "more submissions were due than were prepared");
            let before = member.due_ns.swap(begin_ns + sent * gap_ns, Ordering::SeqCst);
            ensure!(before == 0, "a submission was not answered until the next one was due");
            let written = member.writer.try_write(line).context("a connection was lost")?;
            ensure!(written == line.len(), "a connection takes no whole line");
            sent += 1;
        }
    }
    Ok(sent)
}

/// Reads the messages for one member.
async fn listen(mut reader: OwnedReadHalf, due_ns: Arc<AtomicU64>, heed: Arc<Heed>) {
    let mut ear = LineReader::default();
    loop {
        let heard = read(&mut reader, |bytes| {
            ear.hear(bytes, |heard| match heard {
                ServerLine::Job { clean: true } => {
                    heed.last_job_ns.fetch_max(clock_ns(), Ordering::SeqCst);
                    heed.jobs.fetch_add(1, Ordering::SeqCst);
                }
                ServerLine::Accepted => {
                    let due = due_ns.swap(0, Ordering::SeqCst);
                    heed.answers.lock().push(clock_ns().saturating_sub(due));
                }
                ServerLine::Rejected(text) => {
                    due_ns.store(0, Ordering::SeqCst);
                    heed.wrongs.lock().push(format!("a valid submission was rejected: {text}"));
                }
                ServerLine::Job { clean: false } | ServerLine::Other => {}
            });
        });
        if let Err(error) = heard.await {
            if !heed.closing.load(Ordering::SeqCst) {
                heed.wrongs.lock().push(format!("a connection was lost: {error}"));
            }
            return;
        }
    }
}

/// Measures a new block for connections that share one payout address.
pub(super) async fn measure_small_jobs(config: &Config, table: &mut Table) -> Result<()> {
    report(format_args!("a new job for {} connections", config.listeners));
    let (mut node, mut bare) = config.start(SMALL_PAYEES).await?;
    let mut miners = Crowd::new(1, config.difficulty());
    miners.join(&node, config.listeners, config.joining).await;
    let mut others = Crowd::new(1, config.difficulty());
    others.join(&bare, config.listeners, config.joining).await;
    let job = miners.job.clone();
    let bare_took = others.new_jobs(&mut bare, &job).await?;
    let took = miners.new_jobs(&mut node, &job).await?;
    add_jobs(table, config.listeners, job.len() + 1, took, bare_took);
    miners.leave(table);
    others.leave(table);
    Ok(())
}

fn add_jobs(table: &mut Table, count: u32, bytes: usize, took: f64, bare_took: f64) {
    table.add(
        Row::new(format!("a job of {bytes} bytes for {count}"), "ms", took)
            .beside(bare_took)
            .must(took <= 1.3 * bare_took + 15.0, "≤ 1.3 bare + 15"),
    );
}

/// Takes all measures of one crowd.
pub(super) async fn measure(config: &Config, table: &mut Table) -> Result<()> {
    let (mut node, mut bare) = config.start(config.served.payees).await?;
    let count = config.connections;
    let before = node.memory()?;
    report(format_args!("{count} connections, {} a second", config.joining));
    let mut miners = Crowd::new(config.addresses, config.difficulty());
    let failed = miners.join(&node, count, config.joining).await;
    let joined = f64::from(count - failed) / miners.joined_in.as_secs_f64();
    sleep(SETTLE).await;
    let memory = node.memory()?.saturating_sub(before);
    let job = miners.job.clone();

    let phase = config.phase * config.rounds;
    let mut lines = Vec::new();
    let mut answers = None;
    if config.wants(Measure::Latency) {
        report(format_args!("{} submissions a second", config.rate));
        lines = miners.grind(config.rate, phase);
        answers = Some(miners.answers(&mut lines, config.rate, phase).await?);
    }
    let mut took = None;
    if config.wants(Measure::BigJobs) {
        report(format_args!("a new job for {count} connections"));
        took = Some(miners.new_jobs(&mut node, &job).await?);
    }
    miners.leave(table);

    report("the same on the bare server");
    let mut others = Crowd::new(1, config.difficulty());
    let bare_failed = others.join(&bare, count, config.joining).await;
    let bare_joined = f64::from(count - bare_failed) / others.joined_in.as_secs_f64();
    sleep(SETTLE).await;
    if config.wants(Measure::Joining) {
        let target = format!("0 failures: {failed}");
        let joined = Row::new(format!("new connections, {} wanted", config.joining), "/s", joined);
        table.add(joined.beside(bare_joined).must(failed == 0, &target));
    }
    if config.wants(Measure::Memory) {
        #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
        let each = |bytes: u64| bytes as f64 / 1024.0 / f64::from(count);
        let idle = Row::new(format!("memory of one of {count} idle"), "KiB", each(memory));
        table.add(idle.must(each(memory) <= 8.0, "≤ 8"));
        #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
        let per_minute = (job.len() + 1) as f64 * 60.0 / REFRESH_S / 1024.0;
        table.add(Row::new("jobs without news, of a connection", "KiB/min", per_minute));
    }
    if let Some(answers) = answers {
        lines.iter_mut().for_each(Lines::rewind);
        let bare_answers = others.answers(&mut lines, config.rate, phase).await?;
        for (what, percent) in [("half", 50), ("99 %", 99), ("all", 100)] {
            let within = |answers: &[f64]| answers[(answers.len() * percent / 100).min(answers.len() - 1)];
            let row = Row::new(format!("answers at {}/s, {what} within", config.rate), "ms", within(&answers));
            let row = row.beside(within(&bare_answers));
            table.add(if percent == 99 { row.must(within(&answers) < 5.0, "< 5") } else { row });
        }
    }
    if let Some(took) = took {
        let bare_took = others.new_jobs(&mut bare, &job).await?;
        add_jobs(table, count, job.len() + 1, took, bare_took);
    }
    others.leave(table);
    Ok(())
}

/// Measures many connections over a long time, with some replaced all along.
pub(super) async fn measure_hold(config: &Config, table: &mut Table) -> Result<()> {
    let Config { held, churn, hold, .. } = *config;
    report(format_args!("{held} connections for {} s, {churn} replaced per second", hold.as_secs()));
    let (mut node, _bare) = config.start(config.served.payees).await?;
    let mut crowd = Crowd::new(config.addresses, config.difficulty());
    let mut failed = crowd.join(&node, held, config.joining).await;
    let begin = Instant::now();
    let mut half = None;
    let mut second = 0;
    while begin.elapsed() < hold {
        second += 1;
        sleep_until(begin + Duration::from_secs(second)).await;
        crowd.members.drain(..(churn as usize).min(crowd.members.len()));
        failed += crowd.join(&node, churn, config.joining).await;
        if second % HELD_JOB_INTERVAL == 0 {
            let job = crowd.job.clone();
            crowd.new_job(&mut node, &job).await?;
        }
        if half.is_none() && begin.elapsed() >= hold / 2 {
            half = Some((node.memory()?, Instant::now()));
        }
    }
    let (memory, at) = half.context("the time is too short to hold connections")?;
    #[expect(clippy::cast_precision_loss, reason = "figures to be read")]
    let grown = (node.memory()? as f64 - memory as f64) / 1e6 / at.elapsed().as_secs_f64() * 60.0;
    let lost = crowd.heed.wrongs.lock().len();
    let kept = Row::new(format!("lost of {held} in {} s", hold.as_secs()), "", f64::from(failed) + lost as f64);
    table.add(kept.must(failed == 0 && lost == 0, "0"));
    let grown_row = Row::new("memory grown in its second half", "MB/min", grown);
    table.add(if hold >= JUDGED_FROM { grown_row.must(grown < 1.0, "< 1") } else { grown_row });
    crowd.leave(table);
    Ok(())
}
