//! One connection to a pool, and the thread that works on its jobs.

use anyhow::{Context, Result, anyhow, bail};
use futures::{SinkExt, StreamExt};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stratum::{Difficulty, Target};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::hasher::Hasher;
use crate::runtime::json_lines;

/// Most nonces tried before looking whether there is a new job.
const BATCH_MAX: u32 = 1 << 16;

/// Looks a second, at least: a slow miner is to work evenly, not in fits.
const BATCHES_PER_SECOND_MIN: f64 = 4.0;

/// Solved headers that may wait to be submitted.
const SOLVED_MAX: usize = 64;

/// What the miner tells of itself.
#[derive(Debug, Clone, PartialEq)]
pub enum MinerEvent {
    /// A job came, to be worked on at this difficulty.
    Job {
        /// As the pool counts it.
        difficulty: f64,
    },
    /// The pool's answer to a submission.
    Accepted,
    /// The pool's answer to a submission, and its reason.
    Refused(String),
}

/// Mines on the pool at `pool`, a host and port, as `name` until the connection ends, at no more than `pace` hashes per second.
///
/// # Errors
/// Why it ended.
pub async fn run(pool: &str, name: &str, password: &str, pace: f64, events: mpsc::Sender<MinerEvent>) -> Result<()> {
    let stream = TcpStream::connect(pool).await.with_context(|| format!("cannot connect to {pool}"))?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let mut reader = json_lines::reader(reader);
    let mut writer = json_lines::writer(writer);
    let mut client = Client::default();
    let (solved_sender, mut solved) = mpsc::channel(SOLVED_MAX);
    let bench = Bench::open(pace, &solved_sender);
    writer.send(json!({"id": 1, "method": "mining.subscribe", "params": [USER_AGENT]})).await?;
    writer.send(json!({"id": 2, "method": "mining.authorize", "params": [name, password]})).await?;
    loop {
        tokio::select! {
            line = reader.next() => {
                let line = line.ok_or_else(|| anyhow!("the pool closed the connection"))?.context("unreadable line")?;
                match client.handle(&line)? {
                    Some(News::Job(puzzle)) => {
                        let event = MinerEvent::Job { difficulty: client.difficulty };
                        bench.set(puzzle);
                        // Only the story is lost if nobody listens.
                        let _ = events.send(event).await;
                    }
                    Some(News::Answer(event)) => { let _ = events.send(event).await; }
                    None => {}
                }
            }
            Some(solved) = solved.recv() => {
                client.submitted += 1;
                writer.send(solved.into_request(name, client.submitted)).await?;
            }
        }
    }
}

const USER_AGENT: &str = concat!("p2pool-miner/", env!("CARGO_PKG_VERSION"));

/// Ids of submissions start here; below are those of the handshake.
const FIRST_SUBMISSION: u64 = 10;

/// What the pool has told so far.
#[derive(Debug)]
struct Client {
    extranonce1: Vec<u8>,
    extranonce2_size: usize,
    difficulty: f64,
    submitted: u64,
}

impl Default for Client {
    fn default() -> Self {
        Self { extranonce1: Vec::new(), extranonce2_size: 4, difficulty: 1.0, submitted: FIRST_SUBMISSION }
    }
}

enum News {
    Job(Puzzle),
    Answer(MinerEvent),
}

impl Client {
    fn handle(&mut self, line: &Value) -> Result<Option<News>> {
        let params = &line["params"];
        match line["method"].as_str() {
            Some("mining.set_difficulty") => {
                self.difficulty = params[0].as_f64().context("a difficulty that is no number")?;
                Ok(None)
            }
            Some("mining.notify") => Ok(Some(News::Job(self.puzzle(params)?))),
            Some(_) => Ok(None),
            None => self.handle_answer(line),
        }
    }

    fn handle_answer(&mut self, line: &Value) -> Result<Option<News>> {
        let refusal = line["error"][1].as_str().map(str::to_owned);
        match line["id"].as_u64() {
            Some(1) => {
                self.extranonce1 = hex::decode(line["result"][1].as_str().context("no extranonce1")?)?;
                let size = line["result"][2].as_u64().context("no extranonce2 size")?;
                self.extranonce2_size = usize::try_from(size)?.clamp(1, 8);
                Ok(None)
            }
            Some(2) if line["result"] != true => bail!("not authorised: {}", refusal.unwrap_or_default()),
            Some(id) if id >= FIRST_SUBMISSION => Ok(Some(News::Answer(match refusal {
                Some(reason) => MinerEvent::Refused(reason),
                None => MinerEvent::Accepted,
            }))),
            _ => Ok(None),
        }
    }

    fn puzzle(&self, params: &Value) -> Result<Puzzle> {
        let text = |index: usize| params[index].as_str().with_context(|| format!("notify lacks parameter {index}"));
        let number = |index: usize| Ok::<_, anyhow::Error>(u32::from_str_radix(text(index)?, 16)?);
        let mut previous_block: [u8; 32] =
            hex::decode(text(1)?)?.try_into().map_err(|_| anyhow!("a previous block that is no hash"))?;
        previous_block.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let branch = params[4].as_array().context("no merkle branch")?;
        let branch = branch.iter().map(|digest| Ok(hex::decode(digest.as_str().context("a digest that is no text")?)?));
        let difficulty = Difficulty::new(self.difficulty).context("a difficulty that is not above 0")?;
        Ok(Puzzle {
            job: text(0)?.to_owned(),
            coinbase_head: [hex::decode(text(2)?)?, self.extranonce1.clone()].concat(),
            coinbase_tail: hex::decode(text(3)?)?,
            branch: branch.collect::<Result<_>>()?,
            extranonce2_size: self.extranonce2_size,
            version: number(5)?,
            previous_block,
            bits: number(6)?,
            time: number(7)?,
            target: difficulty.target(),
        })
    }
}

/// A job as a miner sees it.
#[derive(Debug, Clone)]
struct Puzzle {
    job: String,
    coinbase_head: Vec<u8>,
    coinbase_tail: Vec<u8>,
    branch: Vec<Vec<u8>>,
    extranonce2_size: usize,
    version: u32,
    previous_block: [u8; 32],
    bits: u32,
    time: u32,
    target: Target,
}

impl Puzzle {
    fn header(&self, extranonce2: &[u8]) -> [u8; 80] {
        let coinbase = [&self.coinbase_head[..], extranonce2, &self.coinbase_tail].concat();
        let root = self
            .branch
            .iter()
            .fold(double_sha256(&coinbase), |root, sibling| double_sha256(&[&root[..], sibling].concat()));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_block);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header
    }

    fn extranonce2(&self, number: u64) -> Vec<u8> {
        number.to_be_bytes()[8 - self.extranonce2_size..].to_vec()
    }
}

fn double_sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// A header that meets its job's target.
#[derive(Debug)]
struct SolvedPuzzle {
    job: String,
    extranonce2: Vec<u8>,
    time: u32,
    nonce: u32,
}

impl SolvedPuzzle {
    fn into_request(self, name: &str, id: u64) -> Value {
        let extranonce2 = hex::encode(self.extranonce2);
        let (time, nonce) = (format!("{:08x}", self.time), format!("{:08x}", self.nonce));
        json!({"id": id, "method": "mining.submit", "params": [name, self.job, extranonce2, time, nonce]})
    }
}

/// Where the thread finds its work. Dropping it sends it home.
#[derive(Debug)]
struct Bench(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Grows with every change, so that the thread can look without the lock.
    round: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    puzzle: Option<Puzzle>,
    closed: bool,
}

impl Bench {
    fn open(pace: f64, solved: &mpsc::Sender<SolvedPuzzle>) -> Self {
        let shared = Arc::<Shared>::default();
        let (bench, solved) = (shared.clone(), solved.clone());
        std::thread::spawn(move || grind(&bench, pace, &solved));
        Self(shared)
    }

    fn set(&self, puzzle: Puzzle) {
        self.change(|state| state.puzzle = Some(puzzle));
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

/// Nonces to be tried at a time at `pace` hashes per second.
fn batch(pace: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let batch = (pace / BATCHES_PER_SECOND_MIN).clamp(1.0, f64::from(BATCH_MAX)) as u32;
    batch
}

/// Works on the newest puzzle until the bench closes, and rests so that it does not exceed its pace.
fn grind(shared: &Shared, pace: f64, solved: &mpsc::Sender<SolvedPuzzle>) {
    loop {
        let (puzzle, round) = {
            let mut state = shared.state.lock();
            shared.changed.wait_while(&mut state, |state| state.puzzle.is_none() && !state.closed);
            if state.closed {
                return;
            }
            (state.puzzle.clone().expect("waited for it"), shared.round.load(Ordering::Acquire))
        };
        let batch = batch(pace);
        let is_current = || shared.round.load(Ordering::Acquire) == round;
        let mut number = 0;
        while is_current() {
            let extranonce2 = puzzle.extranonce2(number);
            let mut hasher = Hasher::new(&puzzle.header(&extranonce2));
            let mut first = 0_u32;
            while is_current() {
                let started = Instant::now();
                let last = first.saturating_add(batch - 1);
                let mut from = first;
                while let Some(nonce) = hasher.search(from..=last, puzzle.target) {
                    let (job, extranonce2) = (puzzle.job.clone(), extranonce2.clone());
                    let found = SolvedPuzzle { job, extranonce2, time: puzzle.time, nonce };
                    if solved.blocking_send(found).is_err() {
                        return;
                    }
                    if nonce == last {
                        break;
                    }
                    from = nonce + 1;
                }
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
