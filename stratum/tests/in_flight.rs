//! Conversations on a chain whose proof of work is costly: the hash comes later than the submission, in any order, and
//! the verdict is that of the time of receipt.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::job::{Pow, Unhashed, sha256d};
use stratum::mining::midstate::Midstate;
use stratum::v1::session::{Config, HashRequest, IN_FLIGHT_MAX};
use stratum::{Difficulty, Disconnect, Epochs, Event, JobId, JobParts, Memory, Now, Offer, Refusal, Session};
use stratum::{Solution, Work, Worker};

const UNIX: u32 = 1_700_000_000;

const EASY: f64 = 1.6e-9;

/// Hashes of these first bytes: anything earns credit below `WORTHLESS`, and a `BLOCK` is a solution.
const GOOD: [u8; 32] = hash_ending_in(0x10);
const BLOCK: [u8; 32] = hash_ending_in(0x01);
const WORTHLESS: [u8; 32] = hash_ending_in(0xff);

/// Hash whose most significant byte is the given one.
const fn hash_ending_in(byte: u8) -> [u8; 32] {
    let mut hash = [0xee; 32];
    hash[31] = byte;
    hash
}

/// Tests make up the hashes, and this is not called.
fn costly(header: &[u8; 80]) -> [u8; 32] {
    sha256d(header)
}

#[derive(Debug, Clone, PartialEq)]
struct Payee;

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payee")
    }
}

/// Work of a block at a height.
#[derive(Debug)]
struct AtHeight(u8);

impl Work for AtHeight {
    type Payout = Payee;
    type Ticket = u8;

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        match name {
            "bad" => Err(Refusal("not this one".into())),
            // Any other keeps the difficulty of a hash that ends in 0x24 or less.
            "varied" => Ok(Worker { name: name.into(), payout: Payee, difficulty: None, notice: None }),
            _ => Ok(Worker { name: name.into(), payout: Payee, difficulty: Difficulty::new(EASY), notice: None }),
        }
    }

    fn offer(&self, _payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<u8>, Refusal> {
        let head = [&[self.0], &generation.to_le_bytes()[..]].concat();
        let parts = JobParts {
            id: JobId(u64::from(self.0) * 1000 + u64::from(generation)),
            coinbase_head: &head,
            coinbase_midstate: Midstate::new(&head),
            coinbase_tail: &[0; 4],
            branch: &[[3; 32]],
            version: 0x2000_0000,
            previous_block: [self.0; 32],
            bits: 0x1d00_ffff,
            time: UNIX,
            time_min: UNIX - 600,
            solution_target: stratum::Target::from_le_bytes(hash_ending_in(0x02)),
            extra_target: None,
            pow: Pow::Costly(costly),
        };
        Ok(Offer::new(&parts, self.0))
    }

    fn epochs(&self) -> Epochs {
        Epochs { stale: u64::from(self.0), ..Epochs::default() }
    }
}

struct Miner {
    session: Session<AtHeight>,
    name: String,
    now: Now,
    /// Hashes that were asked for, oldest first.
    requests: VecDeque<HashRequest>,
    solutions: Vec<Solution<u8>>,
    verdicts: Vec<(&'static str, bool)>,
}

impl Miner {
    fn new() -> Self {
        Self::named("rig")
    }

    /// A miner with its first job, at height 1.
    fn named(name: &str) -> Self {
        let mut config = Config { known_devices: false, ..Config::default() };
        config.vardiff.min = Difficulty::new(1e-12).unwrap();
        config.vardiff.start = Difficulty::new(EASY).unwrap();
        let now = Now { instant: Instant::now(), unix: UNIX };
        let lease = Extranonces::starting_at(1).lease().unwrap();
        let memory = Arc::<Memory<u8>>::default();
        let session = Session::new(Arc::new(config), memory, lease, Arc::new(AtHeight(1)), 7, now);
        let session = session.with_address(IpAddr::from([192, 0, 2, 1]));
        let (requests, solutions, verdicts) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut miner = Self { session, name: name.to_owned(), now, requests, solutions, verdicts };
        miner.say("mining.subscribe", &json!(["test"]), 1).unwrap();
        miner.say("mining.authorize", &json!([name, "x"]), 2).unwrap();
        miner.lines();
        miner
    }

    fn say(&mut self, method: &str, params: &Value, id: u32) -> Result<(), Disconnect> {
        let line = json!({"id": id, "method": method, "params": params}).to_string();
        let handled = self.session.handle_line(line.as_bytes(), self.now);
        self.act_on_events();
        handled
    }

    fn act_on_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Hash(request) => self.requests.push_back(*request),
                Event::Solution(solution) => self.solutions.push(*solution),
                Event::Judged { verdict, credit } => self.verdicts.push((verdict, credit.is_some())),
                _ => {}
            }
        }
    }

    /// Submits under `id`, which is the nonce as well.
    fn submit(&mut self, job: u64, id: u32) {
        self.submit_as(&self.name.clone(), job, UNIX, id).unwrap();
    }

    fn submit_as(&mut self, name: &str, job: u64, time: u32, id: u32) -> Result<(), Disconnect> {
        let params = json!([name, format!("{job:016x}"), "00000005", format!("{time:08x}"), format!("{id:08x}")]);
        self.say("mining.submit", &params, id)
    }

    /// Passes the hash of the oldest request.
    fn hash(&mut self, hash: [u8; 32]) {
        let request = self.requests.pop_front().expect("a hash was asked for");
        self.answer(&request, Ok(hash)).unwrap();
    }

    fn answer(&mut self, request: &HashRequest, hash: Result<[u8; 32], Unhashed>) -> Result<(), Disconnect> {
        let handled = self.session.handle_hash(request.number, hash, self.now);
        self.act_on_events();
        handled
    }

    fn next_block(&mut self, height: u8) {
        self.session.handle_work(Arc::new(AtHeight(height)), self.now).unwrap();
        self.act_on_events();
    }

    fn lines(&mut self) -> Vec<Value> {
        let bytes: Vec<u8> = std::iter::from_fn(|| self.session.poll_line()).flatten().collect();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Answers since the last call: the id and the code of the refusal; 0 if it was accepted.
    fn answers(&mut self) -> Vec<(u64, i64)> {
        let answers = self.lines().into_iter().filter(|line| line["id"].is_u64());
        answers.map(|line| (line["id"].as_u64().unwrap(), line["error"][0].as_i64().unwrap_or(0))).collect()
    }
}

const JOB: u64 = 1000;
const STALE: i64 = 21;
const DUPLICATE: i64 = 22;
const LOW: i64 = 23;
const BUSY: i64 = 20;

#[test]
fn a_submission_is_answered_when_its_hash_has_come_and_other_requests_meanwhile() {
    let mut miner = Miner::new();
    miner.submit(JOB, 10);
    miner.say("mining.ping", &json!([]), 11).unwrap();
    assert_eq!(miner.answers(), [(11, 0)]);
    assert_eq!((miner.session.hashes_awaited(), miner.verdicts.len()), (1, 0));
    miner.hash(GOOD);
    assert_eq!((miner.answers(), miner.session.hashes_awaited()), (vec![(10, 0)], 0));
    assert_eq!(miner.verdicts, [("accepted", true)]);
    assert!(miner.solutions.is_empty());
    // A hash that is not awaited changes nothing.
    let unknown = HashRequest { number: 0, header: [0; 80], pow: costly, is_earned: false };
    miner.answer(&unknown, Ok(BLOCK)).unwrap();
    assert_eq!((miner.answers().len(), miner.solutions.len(), miner.verdicts.len()), (0, 0, 1));
}

#[test]
fn hashes_come_in_any_order_and_each_goes_to_its_submission() {
    let mut miner = Miner::new();
    (10..14).for_each(|id| miner.submit(JOB, id));
    let requests: Vec<HashRequest> = miner.requests.drain(..).collect();
    for (index, hash) in [(2, WORTHLESS), (0, GOOD), (3, BLOCK), (1, GOOD)] {
        miner.answer(&requests[index], Ok(hash)).unwrap();
    }
    assert_eq!(miner.answers(), [(12, LOW), (10, 0), (13, 0), (11, 0)]);
    let [solution] = &miner.solutions[..] else { panic!("{:?}", miner.solutions) };
    assert_eq!((solution.solved.header, solution.solved.pow_hash), (requests[3].header, BLOCK));
    assert_eq!((solution.solved.hash, *solution.job.ticket()), (sha256d(&requests[3].header), 1));
}

#[test]
fn a_submission_that_came_before_a_block_is_not_stale_although_its_hash_comes_after() {
    let mut miner = Miner::new();
    miner.submit(JOB, 10);
    miner.next_block(2);
    miner.submit(JOB, 11);
    miner.hash(GOOD);
    miner.hash(GOOD);
    assert_eq!(miner.answers(), [(10, 0), (11, STALE)]);
    assert_eq!(miner.verdicts, [("accepted", true), ("stale", true)]);
}

#[test]
fn a_difficulty_that_was_raised_meanwhile_does_not_refuse_what_was_sent_before() {
    let mut miner = Miner::named("varied");
    miner.submit(JOB, 10);
    miner.say("mining.suggest_difficulty", &json!([1e6]), 11).unwrap();
    assert!(miner.lines().iter().any(|line| line["method"] == "mining.set_difficulty"));
    // The next job requires more, also if less is required again by then.
    miner.submit(JOB + 1, 12);
    miner.hash(GOOD);
    miner.hash(GOOD);
    assert_eq!(miner.answers(), [(10, 0), (12, LOW)]);
}

#[test]
fn a_submission_whose_job_is_dropped_before_its_hash_comes_counts_and_its_block_is_not_lost() {
    let mut miner = Miner::new();
    miner.submit(JOB, 10);
    miner.submit(JOB, 11);
    for height in 2..100 {
        miner.next_block(height);
    }
    miner.submit(JOB, 12);
    miner.lines();
    miner.hash(GOOD);
    miner.hash(BLOCK);
    assert_eq!(miner.answers(), [(10, 0), (11, 0)]);
    assert_eq!((miner.solutions.len(), *miner.solutions[0].job.ticket()), (1, 1));
    assert!(miner.requests.is_empty(), "that job is unknown");
}

#[test]
fn a_header_in_flight_is_a_duplicate_and_so_it_is_afterwards() {
    let mut miner = Miner::new();
    miner.submit(JOB, 10);
    let params = json!(["rig", format!("{JOB:016x}"), "00000005", format!("{UNIX:08x}"), format!("{:08x}", 10)]);
    miner.say("mining.submit", &params, 11).unwrap();
    assert_eq!((miner.answers(), miner.requests.len()), (vec![(11, DUPLICATE)], 1));
    miner.hash(BLOCK);
    miner.say("mining.submit", &params, 12).unwrap();
    assert_eq!((miner.answers(), miner.requests.len()), (vec![(10, 0), (12, DUPLICATE)], 0));
    assert_eq!((miner.solutions.len(), miner.verdicts.iter().filter(|(_, credit)| *credit).count()), (1, 1));
}

#[test]
fn what_is_no_block_whatever_its_hash_is_refused_without_one() {
    let mut miner = Miner::new();
    miner.submit_as("rig", 77, UNIX, 10).unwrap();
    miner.submit_as("rig", JOB, UNIX - 601, 11).unwrap();
    let malformed = json!(["rig", format!("{JOB:016x}"), "00000005", format!("{UNIX:08x}"), "nonce"]);
    miner.say("mining.submit", &malformed, 12).unwrap();
    let answers = miner.answers();
    assert!(answers.len() == 3 && answers.iter().all(|(_, code)| *code != 0), "{answers:?}");
    assert!(miner.requests.is_empty() && miner.session.hashes_awaited() == 0);
}

#[test]
fn a_block_in_a_refused_submission_is_passed_on_after_its_refusal() {
    let mut miner = Miner::new();
    miner.submit_as("bad", JOB, UNIX, 10).unwrap();
    // Ahead of the clock: a block once it has caught up.
    miner.submit_as("rig", JOB, UNIX + 100_000, 11).unwrap();
    let answers = miner.answers();
    assert!(answers.len() == 2 && answers.iter().all(|(_, code)| *code != 0), "{answers:?}");
    miner.hash(WORTHLESS);
    miner.hash(BLOCK);
    assert_eq!((miner.answers().len(), miner.solutions.len()), (0, 1));
    assert_eq!(&*miner.solutions[0].worker, "rig", "never a refused name");
    assert!(miner.verdicts.iter().all(|(verdict, credit)| *verdict != "accepted" && !credit));
}

#[test]
fn lines_wait_while_as_many_hashes_are_in_flight_as_may_be() {
    let mut miner = Miner::new();
    for id in 0..u32::try_from(IN_FLIGHT_MAX).unwrap() {
        assert!(!miner.session.is_waiting_for_hashes());
        miner.submit(JOB, 100 + id);
    }
    assert!(miner.session.is_waiting_for_hashes());
    miner.hash(GOOD);
    assert!(!miner.session.is_waiting_for_hashes());
}

#[test]
fn a_submission_for_which_there_was_no_room_is_refused_may_come_again_and_costs_the_miner_nothing() {
    let mut miner = Miner::new();
    for id in 0..1000 {
        miner.submit(JOB, 10);
        let request = miner.requests.pop_front().expect("it is no duplicate");
        miner.answer(&request, Err(Unhashed)).unwrap_or_else(|end| panic!("closed after {id}: {end}"));
        assert_eq!(miner.answers(), [(10, BUSY)]);
        // Not even a new job or a new connection is suggested.
        miner.now.instant += Duration::from_millis(300);
    }
    assert!(miner.verdicts.iter().all(|verdict| *verdict == ("busy", false)));
    miner.submit(JOB, 10);
    miner.hash(GOOD);
    assert_eq!(miner.answers(), [(10, 0)]);
}

#[test]
fn who_has_earned_its_hashes_is_known_to_the_hashing_threads() {
    let mut miner = Miner::new();
    miner.submit(JOB, 10);
    assert!(!miner.requests[0].is_earned, "nothing is known of it");
    miner.hash(GOOD);
    (11..14).for_each(|id| miner.submit(JOB, id));
    let earned: Vec<bool> = miner.requests.iter().map(|request| request.is_earned).collect();
    assert_eq!(earned, [true, true, false], "two for each that was credited");
}

#[test]
fn a_miner_with_many_in_flight_all_good_is_never_refused() {
    let mut miner = Miner::new();
    let mut id = 0;
    for _ in 0..200 {
        while !miner.session.is_waiting_for_hashes() {
            id += 1;
            miner.submit(JOB, id);
        }
        while !miner.requests.is_empty() {
            miner.hash(GOOD);
        }
    }
    assert_eq!(miner.verdicts.len(), 200 * IN_FLIGHT_MAX);
    assert!(miner.verdicts.iter().all(|verdict| *verdict == ("accepted", true)));
}

#[test]
fn the_last_hashes_of_a_closing_connection_are_judged_and_useless_ones_reported() {
    let mut miner = Miner::new();
    (10..13).for_each(|id| miner.submit(JOB, id));
    let params = json!(["rig", format!("{JOB:016x}"), "00000005", format!("{UNIX:08x}"), format!("{:08x}", 13)]);
    let line = json!({"id": 13, "method": "mining.submit", "params": params}).to_string();
    assert!(miner.session.handle_last_line(line.as_bytes(), miner.now), "it may be worth something");
    miner.act_on_events();
    let requests: Vec<HashRequest> = miner.requests.drain(..).collect();
    let hashes = [Ok(WORTHLESS), Ok(GOOD), Err(Unhashed), Ok(BLOCK)];
    let worth = requests.iter().zip(hashes).map(|(request, hash)| miner.session.handle_last_hash(request.number, hash));
    let worth: Vec<bool> = worth.collect();
    assert_eq!(worth, [false, true, true, true]);
    miner.act_on_events();
    assert_eq!((miner.solutions.len(), miner.session.hashes_awaited()), (1, 0));
}
