//! One connection to a pool, and the thread that works on its jobs.

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use parking_lot::{Condvar, Mutex};
use sharechain::coin::Pow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stratum::v1::client::{Client, ClientEvent, ReceivedJob, SolvedJob};
use stratum::{Difficulty, Target};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LinesCodec};

use super::hasher::{Hasher, batch_max};

/// Maximum size of a line, in bytes: a job whose coinbase pays thousands fits.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Minimum number of checks per second: a slow miner is to work evenly, not in bursts.
const BATCHES_PER_SECOND_MIN: f64 = 4.0;

/// Queue capacity for solved headers.
const SOLVED_MAX: usize = 64;

/// Event of a miner.
#[derive(Debug, Clone, PartialEq)]
pub enum MinerEvent {
    /// A job arrived.
    Job {
        /// Difficulty as counted by the pool.
        difficulty: f64,
    },
    /// The pool accepted a submission.
    Accepted,
    /// The pool refused a submission, with its reason.
    Refused(String),
}

/// A miner: where and how it mines.
#[derive(Debug, Clone)]
pub struct Miner {
    /// Host and port of the pool.
    pub pool: String,
    /// User name.
    pub name: String,
    /// Password of the user.
    pub password: String,
    /// Proof of work of the pool's coin.
    pub pow: Pow,
    /// Maximum hashes per second.
    pub pace: f64,
    /// Counts the hashes made.
    pub hashes: Arc<AtomicU64>,
}

/// Mines until the connection ends.
///
/// # Errors
/// The reason why it ended.
pub async fn run(miner: &Miner, events: mpsc::Sender<MinerEvent>) -> Result<()> {
    let Miner { pool, name, password, .. } = miner;
    let stream = TcpStream::connect(pool).await.with_context(|| format!("cannot connect to {pool}"))?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = FramedRead::new(reader, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    let mut client = Client::default();
    let (solved_sender, mut solved) = mpsc::channel(SOLVED_MAX);
    let bench = Bench::open(miner, &solved_sender);
    let hello = [client.subscribe(USER_AGENT), client.authorize(name, password)].concat();
    writer.write_all(hello.as_bytes()).await?;
    loop {
        tokio::select! {
            line = lines.next() => {
                let line = line.ok_or_else(|| anyhow!("the pool closed the connection"))?.context("unreadable line")?;
                let event = match client.handle_line(line.as_bytes())? {
                    Some(ClientEvent::Job(job)) => {
                        let event = MinerEvent::Job { difficulty: job.difficulty.get() };
                        bench.set(*job);
                        event
                    }
                    Some(ClientEvent::Answered(Ok(()))) => MinerEvent::Accepted,
                    Some(ClientEvent::Answered(Err(reason))) => MinerEvent::Refused(reason),
                    None => continue,
                };
                // Without a receiver only the event is lost.
                let _ = events.send(event).await;
            }
            Some(solved) = solved.recv() => writer.write_all(client.submit(name, &solved).as_bytes()).await?,
        }
    }
}

const USER_AGENT: &str = concat!("p2pool-miner/", env!("CARGO_PKG_VERSION"));

/// Work for the thread. Dropping it ends the thread.
#[derive(Debug)]
struct Bench(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Incremented with every change, so that the thread can check without the lock.
    round: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    job: Option<ReceivedJob>,
    closed: bool,
}

impl Bench {
    fn open(miner: &Miner, solved: &mpsc::Sender<SolvedJob>) -> Self {
        let shared = Arc::<Shared>::default();
        let (bench, miner, solved) = (shared.clone(), miner.clone(), solved.clone());
        std::thread::spawn(move || grind(&bench, &miner, &solved));
        Self(shared)
    }

    fn set(&self, job: ReceivedJob) {
        self.change(|state| state.job = Some(job));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock());
        self.0.round.fetch_add(1, Ordering::Release);
        self.0.changed.notify_all();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.change(|state| state.closed = true);
    }
}

/// Number of nonces per batch at `pace` hashes per second.
fn batch(pow: Pow, pace: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let batch = (pace / BATCHES_PER_SECOND_MIN).clamp(1.0, f64::from(batch_max(pow))) as u32;
    batch
}

/// Target that a job's submissions must meet. Pools of scrypt coins send difficulties 65,536 times as high as the same
/// target has on Bitcoin (protocol section 10.3).
fn target(pow: Pow, difficulty: Difficulty) -> Target {
    let scale = match pow {
        Pow::Sha256d => 1.0,
        Pow::Scrypt => 65_536.0,
    };
    // Below the smallest positive number every hash will do.
    Difficulty::new(difficulty.get() / scale).map_or(Target::MAX, Difficulty::target)
}

/// Works on the newest job until the bench closes, with pauses to keep its pace.
fn grind(shared: &Shared, miner: &Miner, solved: &mpsc::Sender<SolvedJob>) {
    let (pow, pace) = (miner.pow, miner.pace);
    let batch = batch(pow, pace);
    loop {
        let (job, round) = {
            let mut state = shared.state.lock();
            shared.changed.wait_while(&mut state, |state| state.job.is_none() && !state.closed);
            if state.closed {
                return;
            }
            (state.job.clone().expect("waited for it"), shared.round.load(Ordering::Acquire))
        };
        let target = target(pow, job.difficulty);
        let is_current = || shared.round.load(Ordering::Acquire) == round;
        let mut number = 0;
        while is_current() {
            let extranonce2 = job.extranonce2(number);
            let mut hasher = Hasher::new(pow, &job.header(&extranonce2));
            let mut first = 0_u32;
            while is_current() {
                let started = Instant::now();
                let last = first.saturating_add(batch - 1);
                let mut from = first;
                while let Some(nonce) = hasher.search(from..=last, target) {
                    let (name, extranonce2) = (job.name.clone(), extranonce2.clone());
                    let found = SolvedJob { job: name, extranonce2, time: job.time, nonce, version_bits: None };
                    if solved.blocking_send(found).is_err() {
                        return;
                    }
                    if nonce == last {
                        break;
                    }
                    from = nonce + 1;
                }
                miner.hashes.fetch_add(u64::from(last - first) + 1, Ordering::Relaxed);
                let due = Duration::from_secs_f64(f64::from(batch) / pace.max(1.0));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
                match last.checked_add(1) {
                    Some(next) => first = next,
                    None => break,
                }
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrypt_pools_difficulty_is_65536_times_as_easy() {
        let difficulty = |value| Difficulty::new(value).unwrap();
        assert_eq!(target(Pow::Sha256d, difficulty(1.0)), difficulty(1.0).target());
        assert_eq!(target(Pow::Scrypt, difficulty(65_536.0)), difficulty(1.0).target());
        assert_eq!(target(Pow::Scrypt, difficulty(f64::from_bits(1))), Target::MAX);
    }

    #[test]
    fn a_batch_is_short_at_every_pace() {
        for (pow, pace, nonces) in [
            (Pow::Sha256d, f64::INFINITY, 65_536),
            (Pow::Sha256d, 100_000.0, 25_000),
            (Pow::Scrypt, f64::INFINITY, 128),
            (Pow::Scrypt, 100.0, 25),
            (Pow::Scrypt, 1.0, 1),
        ] {
            assert_eq!(batch(pow, pace), nonces, "{pow:?} at {pace} hashes per second");
        }
    }
}
