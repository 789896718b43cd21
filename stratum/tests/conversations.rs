//! Conversations with a session, line by line, in virtual time: requests, answers, and their order.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::midstate::Midstate;
use stratum::mining::vardiff;
use stratum::v1::session::Config;
use stratum::{
    Difficulty, Disconnect, Epochs, Event, JobId, JobParts, Memory, Now, Offer, Refusal, Scale, Session, Tally, Target,
    Work, Worker,
};

const UNIX: u32 = 1_700_000_000;

#[derive(Debug, Clone, PartialEq)]
struct Payee(String);

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payee = self.0.split('|').next().unwrap_or_default();
        if f.alternate() { self.0.fmt(f) } else { payee.fmt(f) }
    }
}

/// Names are `payee.worker`, with `+difficulty` if wanted; the payee `bad` cannot be paid. Payees with an address on the
/// merged chain 98 are `payee|address`.
#[derive(Debug, Clone)]
struct FakeWork {
    epochs: Epochs,
    height: u64,
    /// Number of the snapshot: each makes its own jobs.
    number: u64,
    /// Minimum difficulty of solutions.
    solution: f64,
    difficulty_scale: Scale,
    /// Extra bytes in the coinbase.
    padding: usize,
}

impl FakeWork {
    fn first() -> Self {
        Self {
            epochs: Epochs::default(),
            height: 1,
            number: 1,
            solution: 1e6,
            difficulty_scale: Scale::default(),
            padding: 0,
        }
    }
}

impl Work for FakeWork {
    type Payout = Payee;
    type Ticket = u64;

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        let (name, difficulty) = match name.split_once('+') {
            Some((name, number)) => (name, Difficulty::new(number.parse().unwrap())),
            None => (name, None),
        };
        let payee = name.split('.').next().unwrap_or_default();
        if payee == "bad" {
            return Err(Refusal("bad cannot be paid".into()));
        }
        let notice = (payee == "node").then(|| "the node is paid".to_owned());
        Ok(Worker { name: name.into(), payout: Payee(payee.into()), difficulty, notice })
    }

    fn check_merged_addresses(&self, addresses: &[(u32, Box<str>)]) -> Result<(), Refusal> {
        match addresses {
            [(98, text)] if **text != *"bad" => Ok(()),
            _ => Err(Refusal(format!("{addresses:?} cannot be paid"))),
        }
    }

    fn with_merged_addresses(
        &self,
        worker: Worker<Payee>,
        addresses: &[(u32, Box<str>)],
    ) -> Result<Worker<Payee>, Refusal> {
        self.check_merged_addresses(addresses)?;
        let notice = Some(format!("{} is paid there", addresses[0].1));
        Ok(Worker { payout: Payee(format!("{}|{}", worker.payout, addresses[0].1)), notice, ..worker })
    }

    fn offer(&self, payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<u64>, Refusal> {
        let id = self.number * 1000 + u64::from(generation);
        let head = [payout.0.as_bytes(), &id.to_le_bytes(), &vec![0; self.padding]].concat();
        Ok(Offer::new(
            &JobParts {
                id: JobId(id),
                coinbase_head: &head,
                coinbase_midstate: Midstate::new(&head),
                coinbase_tail: &[0; 4],
                branch: &[[3; 32], [4; 32]],
                version: 0x2000_0000,
                previous_block: [u8::try_from(self.height).unwrap(); 32],
                bits: 0x1d00_ffff,
                time: UNIX,
                time_min: UNIX - 600,
                solution_target: Difficulty::new(self.solution).unwrap().target(),
                extra_target: None,
                pow: stratum::mining::job::Pow::Sha256d,
            },
            self.height,
        ))
    }

    fn transactions(&self, _ticket: &u64) -> Option<Bytes> {
        Some(Bytes::from_static(br#"["0100","0200"]"#))
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }
}

/// State shared by the sessions of one server.
struct Shared {
    extranonces: Extranonces,
    memory: Arc<Memory<u64>>,
    start: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self { extranonces: Extranonces::starting_at(0x0102_0304), memory: Arc::default(), start: Instant::now() }
    }
}

struct Conversation {
    session: Session<FakeWork>,
    start: Instant,
    elapsed: Duration,
    work: FakeWork,
    events: Vec<Event<u64>>,
}

/// A job as received by a miner.
#[derive(Debug, Clone)]
struct Job {
    params: Value,
}

impl Job {
    fn id(&self) -> &str {
        self.params[0].as_str().unwrap()
    }

    fn clean(&self) -> bool {
        self.params[8].as_bool().unwrap()
    }

    /// True if its coinbase pays `payee`.
    fn pays(&self, payee: &str) -> bool {
        self.params[2].as_str().unwrap().starts_with(&(hex_of(payee) + &self.id()[14..16]))
    }
}

impl Conversation {
    /// Id of the session.
    fn name(&self) -> String {
        format!("{:016x}", self.session.id())
    }

    fn start(work: FakeWork) -> Self {
        Self::start_with(work, |_| {}, &Shared::default())
    }

    fn start_with(work: FakeWork, change: impl FnOnce(&mut Config), shared: &Shared) -> Self {
        let start = shared.start;
        let difficulty = |value| Difficulty::new(value).unwrap();
        let mut config = Config {
            vardiff: vardiff::Config {
                interval: Duration::from_secs(3),
                // About 43 hashes: quickly found by a test.
                start: difficulty(1e-8),
                min: difficulty(1e-9),
                max: difficulty(1e12),
            },
            known_devices: false,
            difficulty_scale: work.difficulty_scale,
            ..Config::default()
        };
        change(&mut config);
        let lease = shared.extranonces.lease().unwrap();
        let now = Now { instant: start, unix: UNIX };
        let session = Session::new(Arc::new(config), shared.memory.clone(), lease, Arc::new(work.clone()), 7, now);
        Self { session, start, elapsed: Duration::ZERO, work, events: Vec::new() }
    }

    /// Starts a conversation with a subscribed and authorised miner; returns it with its first job.
    fn mining() -> (Self, Job) {
        let mut conversation = Self::start(FakeWork::first());
        conversation.send(r#"{"id":1,"method":"mining.subscribe","params":["test"]}"#);
        conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice.rig","x"]}"#);
        let job = conversation.job();
        conversation.answers();
        (conversation, job)
    }

    fn now(&self) -> Now {
        let seconds = u32::try_from(self.elapsed.as_secs()).unwrap();
        Now { instant: self.start + self.elapsed, unix: UNIX + seconds }
    }

    fn send(&mut self, line: &str) {
        self.try_send(line.as_bytes()).unwrap();
    }

    fn try_send(&mut self, line: &[u8]) -> Result<(), Disconnect> {
        let result = self.session.handle_line(line, self.now());
        self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
        result
    }

    fn wait(&mut self, duration: Duration) -> Result<(), Disconnect> {
        self.elapsed += duration;
        self.session.handle_timeout(self.now())
    }

    fn change_work(&mut self, change: impl FnOnce(&mut FakeWork)) {
        self.work.number += 1;
        change(&mut self.work);
        let work = Arc::new(self.work.clone());
        let now = self.now();
        self.session.handle_work(work, now).unwrap();
    }

    fn next_block(&mut self) {
        self.change_work(|work| {
            work.height += 1;
            work.epochs.stale += 1;
        });
    }

    /// Takes everything sent since the last call.
    fn answers(&mut self) -> Vec<Value> {
        let bytes: Vec<u8> = std::iter::from_fn(|| self.session.poll_line()).flatten().collect();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "whole lines are sent: {text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn answer(&mut self) -> Value {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "one answer is expected: {answers:?}");
        answers.remove(0)
    }

    /// Takes everything sent, and returns the last job in it.
    fn job(&mut self) -> Job {
        let answers = self.answers();
        let notify = answers.iter().rfind(|answer| answer["method"] == "mining.notify");
        Job { params: notify.unwrap_or_else(|| panic!("no job in {answers:?}"))["params"].clone() }
    }

    /// Tallies of the workers, in the order in which they joined.
    fn tallies(&self) -> Vec<&Arc<Tally>> {
        let joined = self.events.iter().filter_map(|event| match event {
            Event::Joined(tally) => Some(tally),
            _ => None,
        });
        joined.collect()
    }

    /// Credited difficulties, and whether each was late.
    fn credits(&self) -> Vec<(f64, bool)> {
        let credits = self.events.iter().filter_map(|event| match event {
            Event::Judged { credit, .. } => credit.map(|credit| (credit.difficulty.get(), credit.is_late)),
            _ => None,
        });
        credits.collect()
    }

    /// Workers with the number of their credited submissions.
    fn credited(&self) -> Vec<(&str, u64)> {
        let counted = self.tallies().into_iter().map(|tally| (&*tally.worker, tally.totals()));
        counted
            .map(|(worker, totals)| (worker, totals.accepted + totals.late))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Subscribes as `user_agent` and authorises as `name`; returns what was sent after the answers.
    fn join(&mut self, user_agent: &str, name: &str) -> Vec<Value> {
        self.send(&json!({"id": 1, "method": "mining.subscribe", "params": [user_agent]}).to_string());
        self.send(&json!({"id": 2, "method": "mining.authorize", "params": [name, "x"]}).to_string());
        self.answers().split_off(2)
    }

    /// Headers that were passed on, with the name of the worker.
    fn solutions(&self) -> Vec<([u8; 80], &str)> {
        let solutions = self.events.iter().filter_map(|event| match event {
            Event::Solution(solution) => Some((solution.solved.header, &*solution.worker)),
            _ => None,
        });
        solutions.collect()
    }

    fn submit(&mut self, name: &str, job: &str, solved: &Solved) -> Value {
        let params = json!([name, job, solved.extranonce2, solved.time, solved.nonce]);
        self.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        self.answers().into_iter().find(|answer| answer["id"] == 9).unwrap()
    }
}

#[derive(Debug, Clone)]
struct Solved {
    extranonce2: String,
    time: String,
    nonce: String,
    /// Difficulty of the hash.
    difficulty: f64,
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// Naive reconstruction of the header, without code of the session.
fn header_of(job: &Job, extranonce2: u32, time: u32, nonce: u32, version: u32) -> [u8; 80] {
    let text = |index: usize| job.params[index].as_str().unwrap();
    let mut coinbase = hex::decode(text(2)).unwrap();
    coinbase.extend([1, 2, 3, 4]);
    coinbase.extend(extranonce2.to_be_bytes());
    coinbase.extend(hex::decode(text(3)).unwrap());
    let mut root = sha256d(&coinbase).to_vec();
    for sibling in job.params[4].as_array().unwrap() {
        root.extend(hex::decode(sibling.as_str().unwrap()).unwrap());
        root = sha256d(&root).to_vec();
    }
    let mut previous = hex::decode(text(1)).unwrap();
    previous.chunks_mut(4).for_each(<[u8]>::reverse);
    let bits = u32::from_str_radix(text(6), 16).unwrap();
    let header =
        [&version.to_le_bytes()[..], &previous, &root, &time.to_le_bytes(), &bits.to_le_bytes(), &nonce.to_le_bytes()];
    header.concat().try_into().unwrap()
}

/// Returns the first nonce whose difficulty `wanted` accepts.
fn solve(job: &Job, wanted: impl Fn(f64) -> bool) -> Solved {
    solve_from(0, job, wanted)
}

fn solve_from(first: u32, job: &Job, wanted: impl Fn(f64) -> bool) -> Solved {
    (first..)
        .map(|nonce: u32| (nonce, Target::from_le_bytes(sha256d(&header_of(job, 5, UNIX, nonce, 0x2000_0000)))))
        .map(|(nonce, hash)| (nonce, hash.difficulty()))
        .find(|(_, difficulty)| wanted(*difficulty))
        .map(|(nonce, difficulty)| Solved {
            extranonce2: "00000005".into(),
            time: format!("{UNIX:08x}"),
            nonce: format!("{nonce:08x}"),
            difficulty,
        })
        .unwrap()
}

fn good(job: &Job) -> Solved {
    solve(job, |difficulty| difficulty >= 1e-8)
}

fn code(answer: &Value) -> i64 {
    assert_eq!(answer["result"], Value::Null, "{answer}");
    answer["error"][0].as_i64().unwrap()
}

#[test]
fn the_handshake_answers_in_order_and_then_gives_difficulty_and_job() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":["cgminer/4.11.1"]}"#);
    let name = conversation.name();
    assert_eq!(
        conversation.answer(),
        json!({"id": 1, "error": null, "result": [
            [["mining.set_difficulty", name], ["mining.notify", name]], "01020304", 4
        ]})
    );
    assert_eq!(conversation.session.user_agent(), "cgminer/4.11.1");
    conversation.send(r#"{"id":"auth","method":"mining.authorize","params":["alice.rig","x"]}"#);
    let answers = conversation.answers();
    assert_eq!(answers[0], json!({"id": "auth", "result": true, "error": null}));
    assert_eq!(answers[1], json!({"id": null, "method": "mining.set_difficulty", "params": [1e-8]}));
    assert_eq!(answers[2]["method"], "mining.notify");
    assert_eq!(answers[2]["params"][8], true);
    assert_eq!(answers.len(), 3);
}

#[test]
fn authorising_before_subscribing_works_too() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.authorize","params":["alice"]}"#);
    assert_eq!(conversation.answer()["result"], true);
    conversation.send(r#"{"id":2,"method":"mining.subscribe","params":["x/1"]}"#);
    let methods: Vec<Value> = conversation.answers().iter().map(|answer| answer["method"].clone()).collect();
    assert_eq!(methods, [Value::Null, "mining.set_difficulty".into(), "mining.notify".into()]);
}

#[test]
fn a_second_subscribe_gets_the_same_answer_and_no_second_job() {
    let (mut conversation, _) = Conversation::mining();
    conversation.send(r#"{"id":3,"method":"mining.subscribe","params":[]}"#);
    assert_eq!(conversation.answer()["result"][1], "01020304");
}

#[test]
fn configure_answers_every_extension_that_was_asked_for_and_no_other() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(
        r#"{"id":1,"method":"mining.configure","params":[["version-rolling","minimum-difficulty","subscribe-extranonce","info","dance"],{"version-rolling.mask":"ffffffff","version-rolling.min-bit-count":"2","minimum-difficulty.value":2}]}"#,
    );
    assert_eq!(
        conversation.answer()["result"],
        json!({
            "version-rolling": true, "version-rolling.mask": "1fffe000", "minimum-difficulty": true,
            "subscribe-extranonce": true, "info": true, "dance": false,
        })
    );
    // Only its own answer comes before that of `mining.subscribe`.
    conversation.send(r#"{"id":2,"method":"mining.subscribe","params":["x/1"]}"#);
    let answers = conversation.answers();
    assert_eq!(answers[0]["id"], 2);
    assert_eq!(answers[1], json!({"id": null, "method": "mining.set_version_mask", "params": ["1fffe000"]}));
    conversation.send(
        r#"{"id":3,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"00000fff"}]}"#,
    );
    assert_eq!(conversation.answer()["result"], json!({"version-rolling": false}));
}

#[test]
fn a_refused_submission_is_told_of_with_its_worker_and_the_reason() {
    let (mut conversation, job) = Conversation::mining();
    let solved = solve(&job, |difficulty| difficulty >= 2e-8);
    conversation.submit("alice.rig", job.id(), &solved);
    conversation.submit("alice.rig", job.id(), &solved);
    conversation.submit("alice.rig", "ffff", &solved);
    let tally = conversation.tallies()[0];
    assert_eq!((&*tally.worker, &*tally.payee, &*tally.client.user_agent()), ("alice.rig", "alice", "test"));
    assert_eq!(tally.take_reasons(), [("duplicate", 1), ("job_not_found", 1)]);
    assert_eq!((tally.totals().accepted, tally.totals().refused), (1, 2));
    assert!(!tally.is_over());
    let Conversation { session, events, .. } = conversation;
    drop(session);
    assert!(events.iter().any(|event| matches!(event, Event::Joined(tally) if tally.is_over())));
}

#[test]
fn a_good_submission_is_accepted_and_credited_with_what_was_required() {
    let (mut conversation, job) = Conversation::mining();
    let solved = solve(&job, |difficulty| difficulty >= 2e-8);
    let answer = conversation.submit("alice.rig", job.id(), &solved);
    assert_eq!(answer, json!({"id": 9, "result": true, "error": null}));
    assert_eq!(conversation.credits(), [(1e-8, false)]);
    assert_eq!(conversation.credited(), [("alice.rig", 1)]);
    let totals = conversation.tallies()[0].totals();
    assert_eq!((totals.difficulty, totals.late_hashes, totals.fee_hashes), (1e-8, 0.0, 0.0));
    assert!((totals.best / solved.difficulty - 1.0).abs() < 1e-9);
    assert!(solved.difficulty >= 2e-8);
}

#[test]
fn the_same_submission_again_is_a_duplicate() {
    let (mut conversation, job) = Conversation::mining();
    let solved = good(&job);
    assert_eq!(conversation.submit("alice.rig", job.id(), &solved)["result"], true);
    assert_eq!(code(&conversation.submit("alice.rig", job.id(), &solved)), 22);
}

#[test]
fn a_hash_above_the_target_is_low_difficulty() {
    let (mut conversation, job) = Conversation::mining();
    let solved = solve(&job, |difficulty| difficulty < 1e-8);
    let answer = conversation.submit("alice.rig", job.id(), &solved);
    assert_eq!(code(&answer), 23);
    assert!(answer["error"][1].as_str().unwrap().contains("0.00000001"), "{answer}");
}

#[test]
fn an_unknown_job_is_told_from_a_stale_one() {
    let (mut conversation, job) = Conversation::mining();
    let solved = good(&job);
    for name in ["ffffffffffffffff", "", "zz", "1"] {
        let answer = conversation.submit("alice.rig", name, &solved);
        assert_eq!(code(&answer), 21);
        assert!(answer["error"][1].as_str().unwrap().contains("not found"), "{answer}");
    }
    conversation.next_block();
    let newer = conversation.job();
    assert!(newer.clean(), "the old work is worth nothing");
    let answer = conversation.submit("alice.rig", job.id(), &solved);
    assert_eq!(code(&answer), 21);
    assert!(answer["error"][1].as_str().unwrap().contains("stale"), "{answer}");
    let solved = good(&newer);
    assert_eq!(conversation.submit("alice.rig", newer.id(), &solved)["result"], true);
}

/// Returns a job of the miner `alice` for which every credited submission is a solution.
fn easy() -> (Conversation, Job) {
    easy_with(|_| {})
}

fn easy_with(change: impl FnOnce(&mut Config)) -> (Conversation, Job) {
    let work = FakeWork { solution: 1e-8, ..FakeWork::first() };
    let mut conversation = Conversation::start_with(work, change, &Shared::default());
    let job = Job { params: conversation.join("test", "alice")[1]["params"].clone() };
    (conversation, job)
}

/// Returns the first nonce from `first` on that makes a solution of a header with this time and version.
fn easy_nonce(job: &Job, first: u32, time: u32, version: u32) -> u32 {
    let target = |nonce| Target::from_le_bytes(sha256d(&header_of(job, 5, time, nonce, version)));
    (first..).find(|nonce| target(*nonce).difficulty() >= 1e-8).unwrap()
}

#[test]
fn a_solution_under_a_name_that_is_refused_is_passed_on_once_and_earns_nothing() {
    let (mut conversation, job) = easy();
    let solved = good(&job);
    assert_eq!(code(&conversation.submit("bad.rig", job.id(), &solved)), 24);
    assert_eq!(code(&conversation.submit("bad.rig", job.id(), &solved)), 24);
    let another = solve_from(1_000_000, &job, |difficulty| difficulty >= 1e-8);
    assert_eq!(code(&conversation.submit("bob", job.id(), &another)), 24, "paid elsewhere");
    let weak = solve(&job, |difficulty| difficulty < 1e-8);
    assert_eq!(code(&conversation.submit("bob", job.id(), &weak)), 24);
    let nonce = |solved: &Solved| u32::from_str_radix(&solved.nonce, 16).unwrap();
    let header = |solved: &Solved| header_of(&job, 5, UNIX, nonce(solved), 0x2000_0000);
    assert_eq!(conversation.solutions(), [(header(&solved), "alice"), (header(&another), "alice")]);
    assert!(conversation.credits().is_empty());
    // The same solution again, under the right name, is a duplicate.
    assert_eq!(code(&conversation.submit("alice", job.id(), &solved)), 22);
}

#[test]
fn a_solution_whose_version_or_late_time_is_refused_is_passed_on() {
    let (mut conversation, job) = easy();
    let late = UNIX + stratum::mining::submission::TIME_ROLL_MAX_S + 100;
    let early = UNIX - 601;
    for (time, version, bits, is_passed_on) in [
        (UNIX, 0x2000_2000, Some("00002000"), true),
        (UNIX, 0x2000_4000, Some("20004000"), true),
        (UNIX, 0x0000_0004, Some("00000004"), true),
        (late, 0x2000_0000, None, true),
        (early, 0x2000_0000, None, false),
    ] {
        let before = conversation.solutions().len();
        let nonce = easy_nonce(&job, 0, time, version);
        let mut params = json!(["alice", job.id(), "00000005", format!("{time:08x}"), format!("{nonce:08x}")]);
        params.as_array_mut().unwrap().extend(bits.map(Value::from));
        conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        assert_eq!(code(&conversation.answer()), 20, "{time} {version:x}");
        let passed_on: Vec<_> = conversation.solutions().split_off(before);
        let expected = [(header_of(&job, 5, time, nonce, version), "alice")];
        assert_eq!(passed_on, expected[..usize::from(is_passed_on)], "{time} {version:x}");
    }
    assert!(conversation.credits().is_empty());
}

#[test]
fn a_solution_with_digits_that_a_strict_server_refuses_is_passed_on() {
    let (mut conversation, job) = easy_with(|config| config.lenient = false);
    let nonce = easy_nonce(&job, 0, UNIX, 0x2000_0000);
    let params = json!(["alice", job.id(), "00000005", format!("{UNIX:08x}"), format!("0x{nonce:x}")]);
    conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
    assert_eq!(code(&conversation.answer()), 20);
    assert_eq!(conversation.solutions(), [(header_of(&job, 5, UNIX, nonce, 0x2000_0000), "alice")]);
}

#[test]
fn at_the_end_submissions_are_judged_and_nothing_else_is_done() {
    let (mut conversation, job) = easy();
    let now = conversation.now();
    let submission = |solved: &Solved| {
        let params = json!(["alice", job.id(), solved.extranonce2, solved.time, solved.nonce]);
        json!({"id": 9, "method": "mining.submit", "params": params}).to_string()
    };
    let last = |conversation: &mut Conversation, line: &str| {
        let is_credited = conversation.session.handle_last_line(line.as_bytes(), now);
        conversation.events.extend(std::iter::from_fn(|| conversation.session.poll_event()));
        is_credited
    };
    assert!(last(&mut conversation, &submission(&good(&job))));
    assert_eq!(conversation.answer(), json!({"id": 9, "result": true, "error": null}));
    assert!(!last(&mut conversation, &submission(&solve(&job, |difficulty| difficulty < 1e-8))));
    assert_eq!(code(&conversation.answer()), 23);
    assert_eq!((conversation.solutions().len(), conversation.credits().len()), (1, 1));
    for line in [r#"{"id":3,"method":"mining.suggest_difficulty","params":[8]}"#, "", "{"] {
        assert!(!last(&mut conversation, line), "{line}");
        assert!(conversation.answers().is_empty(), "{line}");
    }
}

#[test]
fn a_stale_solution_is_passed_on_all_the_same() {
    let mut conversation = Conversation::start(FakeWork { solution: 1e-7, ..FakeWork::first() });
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice"]}"#);
    let job = conversation.job();
    conversation.next_block();
    conversation.answers();
    let solved = solve(&job, |difficulty| difficulty >= 1e-7);
    assert_eq!(code(&conversation.submit("alice", job.id(), &solved)), 21);
    let solution = conversation.events.iter().find_map(|event| match event {
        Event::Solution(solution) => Some(solution),
        _ => None,
    });
    let solution = solution.expect("a late solution may still be a block");
    assert_eq!(*solution.job.ticket(), 1);
    assert_eq!(solution.extranonces, [1, 2, 3, 4, 0, 0, 0, 5]);
    assert_eq!(code(&conversation.submit("alice", job.id(), &solved)), 22);
    let solutions = conversation.events.iter().filter(|event| matches!(event, Event::Solution(_)));
    assert_eq!(solutions.count(), 1, "duplicates are refused before anything is passed on");
}

#[test]
fn submitting_before_subscribing_or_authorising_is_refused() {
    let (_, job) = Conversation::mining();
    let solved = good(&job);
    let mut conversation = Conversation::start(FakeWork::first());
    assert_eq!(code(&conversation.submit("alice", job.id(), &solved)), 25);
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    assert_eq!(code(&conversation.submit("alice", job.id(), &solved)), 24);
}

#[test]
fn fields_of_the_wrong_form_are_refused_by_name() {
    let (mut conversation, job) = Conversation::mining();
    let solved = good(&job);
    for (broken, name) in [
        (Solved { extranonce2: "zz05".into(), ..solved.clone() }, "extranonce2"),
        (Solved { nonce: "".into(), ..solved.clone() }, "nonce"),
        (Solved { time: "xyz".into(), ..solved.clone() }, "ntime"),
        (Solved { time: format!("{:08x}", UNIX - 601), ..solved.clone() }, "ntime"),
        (Solved { time: format!("{:08x}", UNIX + 7001), ..solved.clone() }, "ntime"),
    ] {
        let answer = conversation.submit("alice.rig", job.id(), &broken);
        assert_eq!(code(&answer), 20);
        assert!(answer["error"][1].as_str().unwrap().starts_with(name), "{answer}");
    }
}

#[test]
fn version_bits_count_only_inside_the_negotiated_mask() {
    let (mut conversation, job) = Conversation::mining();
    let submit = |conversation: &mut Conversation, bits: &str, nonce: u32| {
        let params = json!(["alice.rig", job.id(), "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}"), bits]);
        conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        conversation.answers().into_iter().find(|answer| answer["id"] == 9).unwrap()
    };
    assert_eq!(code(&submit(&mut conversation, "00002000", 0)), 20, "not negotiated");
    conversation.send(
        r#"{"id":3,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"1fffe000"}]}"#,
    );
    conversation.answers();
    assert_eq!(code(&submit(&mut conversation, "40000000", 0)), 20, "outside the mask");
    let nonce = (0..)
        .find(|nonce| {
            let header = header_of(&job, 5, UNIX, *nonce, 0x2000_2000);
            Target::from_le_bytes(sha256d(&header)).difficulty() >= 1e-8
        })
        .unwrap();
    assert_eq!(submit(&mut conversation, "00002000", nonce)["result"], true);
}

#[test]
fn a_second_worker_of_the_same_payee_is_credited_under_its_own_name() {
    let (mut conversation, job) = Conversation::mining();
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice.second",""]}"#);
    assert_eq!(conversation.answer()["result"], true);
    conversation.submit("alice.second", job.id(), &good(&job));
    // A proxy that never authorised this name: the job pays the same, so it counts.
    conversation.submit("alice.third", job.id(), &solve_from(1_000_000, &job, |difficulty| difficulty >= 1e-8));
    assert_eq!(conversation.credited(), [("alice.second", 1), ("alice.third", 1)]);
}

#[test]
fn a_second_payee_on_one_connection_is_refused_with_the_reason() {
    let (mut conversation, job) = Conversation::mining();
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["bob.rig",""]}"#);
    let answer = conversation.answer();
    assert_eq!(code(&answer), 24);
    let text = answer["error"][1].as_str().unwrap();
    assert!(text.contains("bob") && text.contains("alice"), "{text}");
    assert_eq!(code(&conversation.submit("bob.rig", job.id(), &good(&job))), 24);
    assert_eq!(conversation.submit("alice.rig", job.id(), &good(&job))["result"], true);
}

fn hex_of(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A request for the jobs of the connection to pay `address` on the chain 98.
fn set_merged(address: &str) -> String {
    json!({"id": 9, "method": "mining.set_merged_addresses", "params": [{"98": address}]}).to_string()
}

#[test]
fn addresses_on_merged_chains_that_are_set_before_authorising_hold_for_the_jobs() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(&set_merged("bad"));
    let answer = conversation.answer();
    assert_eq!(code(&answer), 20);
    assert!(answer["error"][1].as_str().unwrap().contains("cannot be paid"), "{answer}");
    conversation.send(&set_merged("D1"));
    assert_eq!(conversation.answer()["result"], true);
    conversation.send(&set_merged("D2"));
    assert_eq!(conversation.answer()["result"], true);
    let lines = conversation.join("cgminer/4.11.1", "alice");
    let job = Job { params: lines[1]["params"].clone() };
    assert!(job.pays("alice|D2"), "{lines:?}");
    assert_eq!(conversation.submit("alice", job.id(), &good(&job))["result"], true);
    assert_eq!(&*conversation.tallies()[0].payee, "alice", "statistics are by the payee alone");
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice.other","x"]}"#);
    assert_eq!(conversation.answers()[0]["result"], true, "it is paid alike");
    assert_eq!(
        conversation.submit("alice.third", job.id(), &solve_from(1_000_000, &job, |difficulty| difficulty >= 1e-8))["result"],
        true
    );
}

#[test]
fn addresses_on_merged_chains_may_change_and_the_next_jobs_pay_them() {
    let (mut conversation, first) = Conversation::mining();
    assert!(first.pays("alice"));
    conversation.send(&set_merged("D1"));
    let lines = conversation.answers();
    assert_eq!((&lines[0]["id"], &lines[0]["result"]), (&json!(9), &json!(true)));
    let notify = lines.iter().find(|line| line["method"] == "mining.notify");
    let job = Job { params: notify.unwrap()["params"].clone() };
    assert!(job.pays("alice|D1") && !job.clean(), "{lines:?}");
    assert_eq!(
        conversation.submit("alice.rig", first.id(), &good(&first))["result"],
        true,
        "the last one is still his"
    );
    conversation.send(&set_merged("D1"));
    assert_eq!(conversation.answer()["result"], true, "nothing changes");
    conversation.send(&set_merged("D2"));
    assert_eq!(conversation.answer()["result"], true, "too soon for another job");
    conversation.send(&set_merged("bad"));
    assert_eq!(code(&conversation.answer()), 20);
    conversation.wait(Duration::from_secs(30)).unwrap();
    assert!(conversation.job().pays("alice|D2"));
    conversation.send(&set_merged("D1"));
    assert!(conversation.job().pays("alice|D1"));
}

#[test]
fn whoever_resumes_a_session_for_another_address_on_a_merged_chain_does_not_get_its_jobs() {
    for (set, is_credited) in [("D1", true), ("D2", false)] {
        let shared = Shared::default();
        let mut first = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
        first.send(&set_merged("D1"));
        first.answers();
        first.join("cgminer/4.11.1", "alice");
        first.wait(Duration::from_secs(30)).unwrap();
        let (job, name) = (first.job(), first.name());
        first.session.close(Now { instant: shared.start, unix: UNIX });
        let work = FakeWork { number: 2, ..FakeWork::first() };
        let mut second = Conversation::start_with(work, |_| {}, &shared);
        second.send(&set_merged(set));
        second.send(&json!({"id": 1, "method": "mining.subscribe", "params": ["cgminer/4.11.1", name]}).to_string());
        second.send(r#"{"id":2,"method":"mining.authorize","params":["alice","x"]}"#);
        second.answers();
        assert_eq!(second.submit("alice", job.id(), &good(&job))["result"] == true, is_credited, "{set}");
    }
}

#[test]
fn a_name_that_cannot_be_paid_is_refused_with_the_reason_and_another_may_follow() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":["x/1"]}"#);
    conversation.answers();
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["bad.rig",""]}"#);
    let answer = conversation.answer();
    assert_eq!(code(&answer), 24);
    assert!(answer["error"][1].as_str().unwrap().contains("bad cannot be paid"), "{answer}");
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice",""]}"#);
    assert_eq!(conversation.answers().len(), 3);
}

#[test]
fn more_workers_than_a_connection_may_carry_go_to_the_first_ones_account() {
    let (mut conversation, job) = Conversation::mining();
    for number in 1..Config::default().workers_max {
        conversation.send(&format!(r#"{{"id":3,"method":"mining.authorize","params":["alice.{number}"]}}"#));
        assert_eq!(conversation.answer()["result"], true);
    }
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice.more"]}"#);
    assert_eq!(conversation.answer()["result"], true);
    assert_eq!(conversation.submit("alice.more", job.id(), &good(&job))["result"], true);
    assert_eq!(conversation.credited(), [("alice.rig", 1)]);
    assert_eq!(conversation.tallies().len(), Config::default().workers_max);
}

#[test]
fn a_difficulty_in_the_name_is_announced_and_kept() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice+0.5"]}"#);
    let answers = conversation.answers();
    assert!(answers.contains(&json!({"id": null, "method": "mining.set_difficulty", "params": [0.5]})), "{answers:?}");
    for _ in 0..20 {
        conversation.wait(Duration::from_secs(31)).unwrap();
        let answers = conversation.answers();
        assert!(answers.iter().all(|answer| answer["method"] == "mining.notify"), "{answers:?}");
    }
}

#[test]
fn scrypt_miners_are_told_difficulties_in_their_own_units() {
    let mut conversation = Conversation::start(FakeWork { difficulty_scale: Scale::new(65_536), ..FakeWork::first() });
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice+0.5"]}"#);
    let answers = conversation.answers();
    let told = answers.iter().find(|answer| answer["method"] == "mining.set_difficulty").unwrap();
    assert_eq!(told["params"][0], 32_768.0, "names are in bdiff, messages are not");
}

#[test]
fn scrypt_miners_ask_in_their_own_units_and_are_refused_in_them() {
    let mut conversation = Conversation::start(FakeWork { difficulty_scale: Scale::new(65_536), ..FakeWork::first() });
    let configure =
        r#"{"id":1,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":0.125}]}"#;
    conversation.send(configure);
    assert_eq!(conversation.answer()["result"], json!({"minimum-difficulty": true}));
    let lines = conversation.join("x/1", "alice");
    assert_eq!(lines[0]["params"][0], 0.125, "the connection would start lower");
    conversation.send(r#"{"id":2,"method":"mining.suggest_difficulty","params":[0.25]}"#);
    let lines = conversation.answers();
    assert_eq!((&lines[1]["method"], &lines[1]["params"][0]), (&json!("mining.set_difficulty"), &json!(0.25)));
    let job = Job { params: lines[2]["params"].clone() };
    // 0.25 takes 2^14 hashes; the easier of two difficulties counts for a while, but not one that takes 43.
    let refused = conversation.submit("alice", job.id(), &solve(&job, |difficulty| difficulty < 1e-8));
    assert_eq!(code(&refused), 23);
    let text = refused["error"][1].as_str().unwrap();
    assert!(text.starts_with("low difficulty: 0.00") && text.ends_with(" is less than 0.25"), "{text}");
}

#[test]
fn difficulty_never_exceeds_what_a_solution_needs() {
    let mut conversation = Conversation::start(FakeWork { solution: 0.25, ..FakeWork::first() });
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice+1000"]}"#);
    let answers = conversation.answers();
    let told = answers.iter().find(|answer| answer["method"] == "mining.set_difficulty").unwrap();
    assert_eq!(told["params"][0], 0.25);
}

#[test]
fn a_refresh_comes_in_time_with_a_new_job_and_leaves_the_old_one_good() {
    let (mut conversation, first) = Conversation::mining();
    assert!(conversation.session.poll_timeout() <= conversation.start + Duration::from_secs(30));
    // One submission, so that silence does not lower the difficulty.
    conversation.submit("alice.rig", first.id(), &good(&first));
    conversation.wait(Duration::from_secs(30)).unwrap();
    let second = conversation.job();
    assert!(!second.clean());
    assert_ne!(first.id(), second.id());
    assert_ne!(first.params[2], second.params[2], "the same coinbase would make miners do the same work again");
    let solved = solve_from(1_000_000, &first, |difficulty| difficulty >= 1e-8);
    assert_eq!(conversation.submit("alice.rig", first.id(), &solved)["result"], true);
}

#[test]
fn urgent_work_is_told_at_once_without_cleaning_and_other_changes_wait() {
    let (mut conversation, _) = Conversation::mining();
    conversation.change_work(|_| {});
    assert!(conversation.answers().is_empty(), "no job is sent");
    conversation.change_work(|work| work.epochs.urgent += 1);
    assert!(!conversation.job().clean());
}

#[test]
fn work_that_is_dropped_for_better_is_cleaned_and_still_credited_as_late() {
    let (mut conversation, job) = Conversation::mining();
    conversation.change_work(|work| {
        work.height += 1;
        work.epochs.late += 1;
    });
    assert!(conversation.job().clean());
    assert_eq!(conversation.submit("alice.rig", job.id(), &good(&job))["result"], true);
    assert_eq!(conversation.credits(), [(1e-8, true)]);
    assert_eq!((conversation.tallies()[0].totals().accepted, conversation.tallies()[0].totals().late), (0, 1));
}

#[test]
fn a_silent_miner_gets_an_easier_job_and_its_old_submissions_count_for_what_they_are() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice"]}"#);
    let job = conversation.job();
    conversation.wait(Duration::from_secs(24)).unwrap();
    let answers = conversation.answers();
    assert_eq!(answers[0]["method"], "mining.set_difficulty");
    assert_eq!(answers[1]["method"], "mining.notify");
    let lowered = answers[0]["params"][0].as_f64().unwrap();
    assert!(lowered < 1e-8, "{lowered}");
    // Firmware that applies the lower difficulty at once submits hashes below the old job's difficulty.
    let solved = solve(&job, |difficulty| (lowered..1e-8).contains(&difficulty));
    assert_eq!(conversation.submit("alice", job.id(), &solved)["result"], true);
    assert_eq!(conversation.credits(), [(lowered, false)], "credited with the difficulty that it met");
    assert_eq!(conversation.tallies()[0].client.difficulty(), lowered);
}

#[test]
fn a_raised_difficulty_leaves_submissions_of_older_jobs_good() {
    let (mut conversation, job) = Conversation::mining();
    let mut raised = None;
    let mut accepted = 0;
    for number in 0..20 {
        let solved = solve_from(number * 1_000_000, &job, |difficulty| difficulty >= 1e-8);
        let params = json!(["alice.rig", job.id(), solved.extranonce2, solved.time, solved.nonce]);
        conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        for answer in conversation.answers() {
            if answer["method"] == "mining.set_difficulty" {
                raised = answer["params"][0].as_f64();
            } else if answer["id"] == 9 {
                assert_eq!(answer["result"], true, "{answer}");
                accepted += 1;
            }
        }
    }
    assert_eq!(accepted, 20);
    assert!(raised.is_some_and(|raised| raised > 1e-8), "{raised:?}");
}

#[test]
fn a_handshake_that_is_not_finished_in_time_ends() {
    let mut conversation = Conversation::start(FakeWork::first());
    assert!(conversation.wait(Duration::from_secs(14)).is_ok());
    assert_eq!(conversation.wait(Duration::from_secs(1)), Err(Disconnect::HandshakeTimeout));
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    assert!(conversation.wait(Duration::from_secs(59)).is_ok());
    assert_eq!(conversation.wait(Duration::from_secs(1)), Err(Disconnect::HandshakeTimeout));
}

#[test]
fn garbage_is_answered_and_ends_the_connection_when_it_goes_on() {
    let mut conversation = Conversation::start(FakeWork::first());
    for _ in 1..Config::default().malformed_lines_max {
        conversation.send("this is no JSON");
        let answer = conversation.answer();
        assert_eq!((&answer["id"], code(&answer)), (&Value::Null, 20));
    }
    conversation.send("");
    assert!(matches!(conversation.try_send(b"\xff\xff"), Err(Disconnect::Malformed(_))));
}

#[test]
fn unknown_methods_are_answered_and_do_no_harm() {
    let (mut conversation, _) = Conversation::mining();
    for _ in 0..10 {
        conversation.send(r#"{"id":5,"method":"mining.dance","params":[]}"#);
        assert_eq!(code(&conversation.answer()), -3);
    }
}

fn methods(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["method"].as_str().unwrap_or("answer")).collect()
}

/// cgminer, bfgminer and cpuminer quote their earlier session, and repeat the submissions in flight.
#[test]
fn a_miner_whose_line_was_cut_goes_on_where_it_was() {
    let shared = Shared::default();
    let mut first = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    first.join("cgminer/4.11.1", "alice");
    first.wait(Duration::from_secs(30)).unwrap();
    let job = first.job();
    let done = good(&job);
    assert_eq!(first.submit("alice", job.id(), &done)["result"], true);
    let name = first.name();
    first.session.close(Now { instant: shared.start, unix: UNIX });

    let mut stranger = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    stranger.send(r#"{"id":1,"method":"mining.subscribe","params":["cgminer/4.11.1"]}"#);
    assert_eq!(stranger.answer()["result"][1], "01020305", "the extranonce1 of a resumable session is not reused");

    let mut second = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    let line = json!({"id": 0, "method": "mining.subscribe", "params": ["cgminer/4.11.1", name]}).to_string();
    second.send(&line);
    assert_eq!(second.answer()["result"][1], "01020304");
    second.send(r#"{"id":2,"method":"mining.authorize","params":["alice","x"]}"#);
    second.answers();
    assert_eq!(code(&second.submit("alice", job.id(), &done)), 22, "it was credited before the line was cut");
    let retried = solve_from(1_000_000, &job, |difficulty| difficulty >= 1e-8);
    assert_eq!(second.submit("alice", job.id(), &retried)["result"], true);

    let mut third = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    third.send(&line);
    assert_ne!(third.answer()["result"][1], "01020304", "a session is resumed once");
}

#[test]
fn whoever_resumes_a_session_for_another_payee_does_not_get_its_jobs() {
    let shared = Shared::default();
    let mut first = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    first.join("cgminer/4.11.1", "alice");
    first.wait(Duration::from_secs(30)).unwrap();
    let (job, name) = (first.job(), first.name());
    first.session.close(Now { instant: shared.start, unix: UNIX });
    let mut second = Conversation::start_with(FakeWork { height: 2, number: 2, ..FakeWork::first() }, |_| {}, &shared);
    second.send(&json!({"id": 1, "method": "mining.subscribe", "params": ["cgminer/4.11.1", name]}).to_string());
    second.send(r#"{"id":2,"method":"mining.authorize","params":["bob","x"]}"#);
    second.answers();
    assert_eq!(code(&second.submit("bob", job.id(), &good(&job))), 21);
    assert!(second.solutions().is_empty() && second.credits().is_empty());
}

#[test]
fn a_solution_of_a_resumed_session_is_passed_on_whatever_name_it_comes_under() {
    let shared = Shared::default();
    let work = FakeWork { solution: 1e-8, ..FakeWork::first() };
    let mut first = Conversation::start_with(work.clone(), |_| {}, &shared);
    let job = Job { params: first.join("cgminer/4.11.1", "alice")[1]["params"].clone() };
    let name = first.name();
    first.session.close(Now { instant: shared.start, unix: UNIX });
    let subscribe = |conversation: &mut Conversation, session: &str| {
        let params = json!(["cgminer/4.11.1", session]);
        conversation.send(&json!({"id": 1, "method": "mining.subscribe", "params": params}).to_string());
        let answer = conversation.answer();
        assert_eq!(answer["result"][1], "01020304", "it is resumed");
        answer["result"][0][0][1].as_str().unwrap().to_owned()
    };
    // A connection lost again before it authorises has lost nothing.
    let mut second = Conversation::start_with(work.clone(), |_| {}, &shared);
    let session = subscribe(&mut second, &name);
    let solved = good(&job);
    assert_eq!(code(&second.submit("alice", job.id(), &solved)), 24, "not authorised");
    assert_eq!(second.solutions().len(), 1);
    assert_eq!(second.solutions()[0].1, "alice", "the job's payee");
    second.session.close(Now { instant: shared.start, unix: UNIX });

    let mut third = Conversation::start_with(FakeWork { height: 2, number: 2, ..work }, |_| {}, &shared);
    subscribe(&mut third, &session);
    third.send(r#"{"id":2,"method":"mining.authorize","params":["bob","x"]}"#);
    third.answers();
    let another = solve_from(1_000_000, &job, |difficulty| difficulty >= 1e-8);
    for _ in 0..2 {
        assert_eq!(code(&third.submit("bob", job.id(), &another)), 21, "it does not pay bob");
    }
    third.submit("bob", job.id(), &solved);
    assert_eq!(third.solutions().len(), 1, "each is passed on once");
    assert!(third.credits().is_empty());
}

#[test]
fn a_settled_difficulty_is_remembered_for_the_next_connection() {
    let shared = Shared::default();
    let mut first = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    first.join("bitaxe/x", "alice");
    first.wait(Duration::from_secs(30)).unwrap();
    let job = first.job();
    // Evenly, once in three quarters of a second, until it is settled.
    for number in 0..60_u32 {
        first.elapsed += Duration::from_millis(750);
        let solved = solve_from(number * 1_000_000, &job, |difficulty| difficulty >= 1e-8);
        assert_eq!(first.submit("alice", job.id(), &solved)["result"], true);
    }
    let now = first.now();
    first.session.close(now);
    let mut second = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    let told = second.join("bitaxe/x", "alice")[0]["params"][0].as_f64().unwrap();
    assert!(told != 1e-8, "not the default of 1e-8: {told}");
}

/// bfgminer: takes the first line after `mining.subscribe` for its answer, so earlier requests with a null id get none.
#[test]
fn bfgminers_dialogue() {
    let mut conversation = Conversation::start(FakeWork::first());
    let target = format!("00000000ffff{}", "0".repeat(52));
    conversation.send(&format!(r#"{{"id":null,"method":"mining.suggest_target","params":["{target}"]}}"#));
    conversation.send(r#"{"id":null,"method":"mining.capabilities","params":[{"notify":[]}]}"#);
    conversation.send(r#"{"id":0,"method":"mining.subscribe","params":["bfgminer/5.5.0"]}"#);
    assert_eq!(conversation.answer()["id"], 0);
    conversation.send(r#"{"id":"auth","method":"mining.authorize","params":["alice.bfg","x"]}"#);
    let answers = conversation.answers();
    assert_eq!(answers[0], json!({"id": "auth", "result": true, "error": null}));
    assert_eq!(answers[1]["params"][0], 1.0, "the target that it suggested");
    let job = answers[2]["params"][0].as_str().unwrap();
    conversation.send(&format!(r#"{{"id":"txlist{job}","method":"mining.get_transactions","params":["{job}"]}}"#));
    let answer = conversation.answer();
    assert_eq!(answer, json!({"id": format!("txlist{job}"), "result": ["0100", "0200"], "error": null}));
    conversation.send(&format!(r#"{{"id":7,"method":"mining.get_transactions","params":["{job}"]}}"#));
    assert_eq!(code(&conversation.answer()), 20, "megabytes are not sent at every request");
}

/// cgminer with `USE_VMASK` (Dragonmint): configures first, and leaves the pool if that fails.
#[test]
fn a_cgminer_that_configures_first_is_answered_first() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(
        r#"{"id":0,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}"#,
    );
    assert_eq!(
        conversation.answer(),
        json!({"id": 0, "result": {"version-rolling": true, "version-rolling.mask": "1fffe000"}, "error": null})
    );
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":["cgminer/4.11.1"]}"#);
    assert_eq!(methods(&conversation.answers()), ["answer", "mining.set_version_mask"]);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice","x"]}"#);
    assert_eq!(methods(&conversation.answers()), ["answer", "mining.set_difficulty", "mining.notify"]);
    conversation.send(r#"{"id":3,"method":"mining.suggest_difficulty","params":[64]}"#);
    assert_eq!(methods(&conversation.answers()), ["answer", "mining.set_difficulty", "mining.notify"]);
}

/// Bitaxe: handshake in one piece, suggests a difficulty, and sends version bits XORed with the job's version.
#[test]
fn esp_miners_dialogue() {
    let mut conversation = Conversation::start(FakeWork::first());
    for line in [
        r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}"#,
        r#"{"id":2,"method":"mining.subscribe","params":["bitaxe/BM1370/v2.9.0"]}"#,
        r#"{"id":3,"method":"mining.authorize","params":["alice.bitaxe","x"]}"#,
    ] {
        conversation.send(line);
    }
    let answers = conversation.answers();
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).filter(|id| !id.is_null()).collect();
    assert_eq!(ids, [1, 2, 3], "in the order of the requests");
    let job = Job { params: answers.last().unwrap()["params"].clone() };
    conversation.send(r#"{"id":4,"method":"mining.extranonce.subscribe","params":[]}"#);
    assert_eq!(conversation.answer()["result"], true);
    let version = u32::from_str_radix(job.params[5].as_str().unwrap(), 16).unwrap();
    let rolled = version | 0x0060_2000;
    let nonce = (0..)
        .find(|nonce| Target::from_le_bytes(sha256d(&header_of(&job, 5, UNIX, *nonce, rolled))).difficulty() >= 1e-8)
        .unwrap();
    let bits = format!("{:08x}", rolled ^ version);
    let params = json!(["alice.bitaxe", job.id(), "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}"), bits]);
    conversation.send(&json!({"id": 5, "method": "mining.submit", "params": params}).to_string());
    assert_eq!(conversation.answers()[0], json!({"id": 5, "result": true, "error": null}));
    // Its answer to a ping, which needs no answer.
    conversation.send(r#"{"id":42,"method":"pong","params":[]}"#);
    assert!(conversation.answers().is_empty());
}

/// Antminer S9, stock firmware: `mining.multi_version` instead of `mining.configure`, then whole versions.
#[test]
fn an_s9_may_send_whole_versions() {
    let mut conversation = Conversation::start(FakeWork::first());
    let lines = conversation.join("bmminer/2.0.0", "alice");
    let job = Job { params: lines[1]["params"].clone() };
    conversation.send(r#"{"method":"mining.multi_version","params":[1]}"#);
    assert!(conversation.answers().is_empty());
    let submit = |conversation: &mut Conversation, version: u32| {
        let nonce = (0..)
            .find(|nonce| {
                Target::from_le_bytes(sha256d(&header_of(&job, 5, UNIX, *nonce, version))).difficulty() >= 1e-8
            })
            .unwrap();
        let version = format!("{version:08x}");
        let params = json!(["alice", job.id(), "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}"), version]);
        conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        conversation.answers().into_iter().find(|answer| answer["id"] == 9).unwrap()
    };
    assert_eq!(submit(&mut conversation, 0x2000_0000)["result"], true);
    assert_eq!(submit(&mut conversation, 0x2000_4000)["result"], true);
    // Old firmware rolls bits that make the version negative.
    assert_eq!(code(&submit(&mut conversation, 0x8000_0000)), 20);
}

/// Antminer S9, stock: copies the job into 8,192 bytes, unchecked; S19: 755; NiceHash: 500; Bitaxe: slow beyond 6,500.
#[test]
fn a_device_that_cannot_hold_the_job_is_warned_of_once() {
    for (user_agent, fits, too_much, shown) in [
        ("bmminer/2.0.0", 7900, 8100, false),
        ("Antminer S19j Pro", 600, 800, false),
        ("Antminer S21/1", 2100, 2300, false),
        ("whatsminer/v1.0", 6400, 6600, false),
        ("NiceHash/1.0.0", 400, 600, false),
        ("bitaxe/BM1370", 6400, 6600, true),
        ("NerdMinerV2", 200, 300, false),
        ("cgminer/4.11.1", 30_000, 0, false),
    ] {
        let warned = |padding: usize| {
            let mut conversation = Conversation::start(FakeWork { padding, ..FakeWork::first() });
            let mut lines = conversation.join(user_agent, "alice");
            conversation.wait(Duration::from_secs(31)).unwrap();
            lines.extend(conversation.answers());
            let events = conversation.events.iter().filter(|event| matches!(event, Event::JobTooBig(_))).count();
            (events, methods(&lines).contains(&"client.show_message"))
        };
        assert_eq!(warned(fits), (0, false), "{user_agent}");
        if too_much > 0 {
            assert_eq!(warned(too_much), (1, shown), "{user_agent}");
        }
    }
    let work = FakeWork { padding: 800, ..FakeWork::first() };
    let refuse = |config: &mut Config| config.refuse_small_devices = true;
    let mut refused = Conversation::start_with(work, refuse, &Shared::default());
    refused.send(r#"{"id":1,"method":"mining.subscribe","params":["Antminer S19"]}"#);
    let end = refused.try_send(br#"{"id":2,"method":"mining.authorize","params":["alice"]}"#);
    assert_eq!(end, Err(Disconnect::SmallDevice));
}

#[test]
fn known_devices_start_where_they_belong() {
    for (user_agent, start) in
        [("NerdMinerV2", 0.001), ("bitaxe/x", 1024.0), ("Antminer S21/1", 262_144.0), ("something else", 1e-8)]
    {
        let known = |config: &mut Config| config.known_devices = true;
        let mut conversation = Conversation::start_with(FakeWork::first(), known, &Shared::default());
        assert_eq!(conversation.join(user_agent, "alice")[0]["params"][0], start, "{user_agent}");
    }
}

/// Antminer S1 to S5: every clean job flushes deep queues, so late work is not cleaned, though stale work is.
#[test]
fn old_cgminers_keep_late_work() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.join("cgminer/3.8.5", "alice");
    conversation.change_work(|work| {
        work.height += 1;
        work.epochs.late += 1;
    });
    assert!(!conversation.job().clean());
    conversation.next_block();
    assert!(conversation.job().clean());
}

/// bmminer leaves out leading zeros; some proxies send `0x`, capitals, or JSON numbers.
#[test]
fn digits_are_understood_as_firmware_writes_them() {
    let (mut conversation, job) = Conversation::mining();
    for (number, write) in [
        (0, (|nonce| json!(format!("0x{nonce:08X}"))) as fn(u32) -> Value),
        (1, |nonce| json!(format!("{nonce:x}"))),
        (2, |nonce| json!(nonce)),
        (3, |nonce| json!(format!("{nonce:08x}00000000"))),
    ] {
        let nonce = u32::from_str_radix(&solve_from(number << 20, &job, |d| d >= 1e-8).nonce, 16).unwrap();
        let params = json!(["alice.rig", job.id(), "0X00000005", UNIX, write(nonce)]);
        conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
        let answers = conversation.answers();
        assert_eq!(answers.iter().find(|answer| answer["id"] == 9).unwrap()["result"], true, "{params}");
    }
}

#[test]
fn a_changed_extranonce1_is_told_to_subscribers_right_before_a_job() {
    let shared = Shared::default();
    let mut conversation = Conversation::start_with(FakeWork::first(), |_| {}, &shared);
    let lines = conversation.join("bmminer/2.0.0", "alice");
    let old = Job { params: lines[1]["params"].clone() };
    let now = conversation.now();
    let other = shared.extranonces.lease().unwrap();
    assert_eq!(conversation.session.change_extranonce1(other, now), Ok(false), "it would not know");
    conversation.send(r#"{"id":3,"method":"mining.extranonce.subscribe","params":[]}"#);
    assert_eq!(conversation.answer()["result"], true);
    let other = shared.extranonces.lease().unwrap();
    assert_eq!(conversation.session.change_extranonce1(other, now), Ok(true));
    let lines = conversation.answers();
    assert_eq!(methods(&lines), ["mining.set_extranonce", "mining.notify"]);
    assert_eq!(lines[0]["params"], json!(["01020306", 4]));
    // The old job keeps its extranonce1.
    assert_eq!(conversation.submit("alice", old.id(), &good(&old))["result"], true);
}

#[test]
fn suggestions_are_honoured_again_and_again_but_not_all_the_time() {
    let (mut conversation, _) = Conversation::mining();
    let suggest = |conversation: &mut Conversation, line: &str| {
        conversation.send(line);
        let lines = conversation.answers();
        assert_eq!(lines[0]["result"], true);
        lines.iter().find(|line| line["method"] == "mining.set_difficulty").map(|line| line["params"][0].clone())
    };
    let line = r#"{"id":5,"method":"mining.suggest_difficulty","params":["0.25"]}"#;
    assert_eq!(suggest(&mut conversation, line), Some(json!(0.25)));
    let line = r#"{"id":6,"method":"mining.suggest_difficulty(0.5)","params":[]}"#;
    assert_eq!(suggest(&mut conversation, line), None, "too soon: with the next job");
    conversation.elapsed += Duration::from_secs(11);
    let line = r#"{"id":7,"method":"mining.suggest_difficulty","params":[2]}"#;
    assert_eq!(suggest(&mut conversation, line), Some(json!(2.0)));
    conversation.send(r#"{"id":8,"method":"mining.suggest_difficulty","params":[-1]}"#);
    assert_eq!(code(&conversation.answer()), 20);
}

#[test]
fn a_minimum_difficulty_is_kept() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(
        r#"{"id":9,"method":"mining.configure","params":[["minimum-difficulty"],{"minimum-difficulty.value":5}]}"#,
    );
    assert_eq!(conversation.answer()["result"], json!({"minimum-difficulty": true}));
    let lines = conversation.join("x/1", "alice");
    assert_eq!(lines[0]["params"][0], 5.0);
    for _ in 0..10 {
        conversation.wait(Duration::from_secs(31)).unwrap();
        assert!(!methods(&conversation.answers()).contains(&"mining.set_difficulty"));
    }
}

/// Collects the texts of events that drivers log or show.
fn words(conversation: &Conversation) -> Vec<String> {
    let mut words = vec![conversation.session.user_agent().to_owned()];
    for event in &conversation.events {
        match event {
            Event::NotUnderstood(what) => words.push(what.to_string()),
            Event::Solution(solution) => words.push(solution.worker.to_string()),
            Event::Joined(tally) => words.extend([tally.worker.to_string(), tally.client.user_agent().to_string()]),
            Event::JobTooBig(too_big) => words.extend([too_big.worker.to_string(), too_big.user_agent.clone()]),
            _ => {}
        }
    }
    words
}

#[test]
fn whatever_a_miner_calls_itself_or_asks_for_is_printable_where_it_is_logged_or_shown() {
    const ATTACK: &str = "NerdMiner\n\u{1b}[31m\u{202e}\u{200b}";
    let mut conversation = Conversation::start(FakeWork { solution: 1e-8, padding: 600, ..FakeWork::first() });
    let name = format!("alice.{ATTACK}<b>");
    for (method, params) in [
        (ATTACK, json!([])),
        ("mining.authorize", json!([[ATTACK]])),
        ("mining.submit", json!({ ATTACK: 1 })),
        ("mining.suggest_difficulty", json!([ATTACK])),
        ("mining.suggest_target", json!([ATTACK])),
        ("mining.configure", json!([ATTACK])),
        ("mining.configure", json!([["version-rolling"], {"version-rolling.mask": ATTACK}])),
        ("mining.subscribe", json!([ATTACK])),
        ("mining.authorize", json!([name])),
    ] {
        conversation.send(&json!({"id": 1, "method": method, "params": params}).to_string());
    }
    let job = conversation.job();
    let solved = solve(&job, |difficulty| difficulty >= 1e-8);
    assert_eq!(conversation.submit(&name, job.params[0].as_str().unwrap(), &solved)["result"], true);
    let words = words(&conversation);
    assert_eq!(words.iter().filter(|text| text.contains(r"\u{202e}")).count(), 13, "{words:#?}");
    for text in words {
        assert!(text.chars().all(stratum::printable::is_printable), "{text:?}");
    }
    let tally = conversation.tallies()[0];
    assert_eq!(&*tally.worker, r"alice.NerdMiner\n\u{1b}[31m\u{202e}\u{200b}\u{3c}b\u{3e}");
    assert_eq!(tally.totals().accepted, 1, "a submission is matched by the name as it was sent");
    let long = "x".repeat(10_000);
    conversation.send(&json!({"id": 1, "method": "mining.subscribe", "params": [long]}).to_string());
    assert_eq!(conversation.session.user_agent().chars().count(), 129);
}

#[test]
fn a_miner_without_a_name_is_asked_for_one_and_pings_are_answered() {
    let mut conversation = Conversation::start(FakeWork::first());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":[]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice"]}"#);
    let lines = conversation.answers();
    assert_eq!(*methods(&lines).last().unwrap(), "client.get_version");
    conversation.send(r#"{"id":1,"result":"cgminer/4.12.0","error":null}"#);
    assert_eq!(conversation.session.user_agent(), "cgminer/4.12.0");
    assert_eq!(conversation.session.device().name, "cgminer");
    conversation.send(r#"{"id":42,"method":"mining.ping","params":[]}"#);
    assert_eq!(conversation.answer(), json!({"id": 42, "result": "pong", "error": null}));
}

#[test]
fn messages_go_to_devices_that_show_them_and_to_no_others() {
    for (user_agent, shows) in [("cgminer/4.11.1", true), ("bfgminer/5.5", true), ("cpuminer/2.5.1", false)] {
        let mut conversation = Conversation::start(FakeWork::first());
        let lines = conversation.join(user_agent, "node");
        assert_eq!(methods(&lines).contains(&"client.show_message"), shows, "{user_agent}");
    }
}

#[test]
fn a_device_with_nothing_but_invalid_submissions_is_helped_and_then_sent_away() {
    let (mut conversation, job) = Conversation::mining();
    let mut helped = Vec::new();
    let mut end = Ok(());
    for nonce in 0..30_u32 {
        conversation.elapsed += Duration::from_secs(10);
        let solved = solve_from(nonce << 16, &job, |difficulty| difficulty < 1e-9);
        let params = json!(["alice.rig", job.id(), solved.extranonce2, solved.time, solved.nonce]);
        end =
            conversation.try_send(json!({"id": 9, "method": "mining.submit", "params": params}).to_string().as_bytes());
        let lines = conversation.answers();
        helped.extend(methods(&lines).into_iter().filter(|method| *method != "answer").map(str::to_owned));
        if end.is_err() {
            break;
        }
    }
    assert_eq!(helped, ["mining.notify", "client.reconnect"]);
    assert_eq!(end, Err(Disconnect::Invalid));
}

#[test]
fn lines_that_earn_nothing_are_borne_up_to_a_limit_and_good_submissions_without() {
    let (mut conversation, job) = Conversation::mining();
    for number in 0..600 {
        let solved = solve_from(number << 16, &job, |difficulty| difficulty >= 1e-8);
        conversation.submit("alice.rig", job.id(), &solved);
    }
    let line = br#"{"id":5,"method":"mining.ping","params":[]}"#;
    let sent = (0..1000).take_while(|_| conversation.try_send(line).is_ok()).count();
    assert!((200..=256).contains(&sent), "{sent}");
    assert_eq!(conversation.try_send(line), Err(Disconnect::Flood));
}

#[test]
fn names_tried_in_vain_end_the_connection_after_a_while() {
    let mut conversation = Conversation::start(FakeWork::first());
    let line = br#"{"id":5,"method":"mining.authorize","params":["bad"]}"#;
    let tried = (0..100).take_while(|_| conversation.try_send(line).is_ok()).count();
    assert_eq!(tried, 15);
}

/// A conversation on a port whose users have passwords, subscribed and with alice's password sent.
fn asking() -> Conversation {
    let asks = |config: &mut Config| config.checks_credentials = true;
    let mut conversation = Conversation::start_with(FakeWork::first(), asks, &Shared::default());
    conversation.send(r#"{"id":1,"method":"mining.subscribe","params":["test"]}"#);
    conversation.send(r#"{"id":2,"method":"mining.authorize","params":["alice.rig","hunter2"]}"#);
    conversation
}

impl Conversation {
    fn check(&mut self, result: Result<(), &str>) -> Result<(), Disconnect> {
        let result = result.map_err(|reason| Refusal(reason.to_owned()));
        let handled = self.session.handle_credentials(result, self.now());
        self.events.extend(std::iter::from_fn(|| self.session.poll_event()));
        handled
    }

    /// Names and passwords that were to be checked.
    fn asked(&self) -> Vec<(&str, &str)> {
        let asked = self.events.iter().filter_map(|event| match event {
            Event::Credentials(asked) => Some((&*asked.name, &*asked.password)),
            _ => None,
        });
        asked.collect()
    }
}

#[test]
fn a_user_whose_password_is_right_is_answered_after_the_check_and_mines() {
    let mut conversation = asking();
    assert_eq!(conversation.asked(), [("alice.rig", "hunter2")]);
    assert!(!format!("{:?}", conversation.events).contains("hunter2"), "passwords do not belong in logs");
    assert_eq!(conversation.answer()["id"], 1, "no answer before the check");
    assert!(conversation.session.is_waiting_for_check());
    // New work and timeouts come meanwhile.
    conversation.next_block();
    conversation.wait(Duration::from_secs(30)).unwrap();
    conversation.check(Ok(())).unwrap();
    assert!(!conversation.session.is_waiting_for_check());
    let answers = conversation.answers();
    assert_eq!(answers[0], json!({"id": 2, "result": true, "error": null}));
    assert_eq!(answers.last().unwrap()["method"], "mining.notify");
}

#[test]
fn a_wrong_password_makes_no_worker_and_a_few_end_the_connection() {
    let mut conversation = asking();
    conversation.answers();
    for left in [3, 2, 1, 0] {
        let handled = conversation.check(Err("wrong"));
        assert_eq!(handled.is_ok(), left > 0, "{handled:?}");
        let answer = conversation.answer();
        assert_eq!((code(&answer), &answer["error"][1]), (24, &json!("not authorised: wrong")));
        if left > 0 {
            conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice.rig","guess"]}"#);
        }
    }
    assert_eq!((conversation.tallies().len(), conversation.session.worker()), (0, None));
    // One of the field's typos is not an attack.
    let mut conversation = asking();
    conversation.check(Err("wrong")).unwrap();
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":["alice.rig","right"]}"#);
    conversation.check(Ok(())).unwrap();
    conversation.job();
}

#[test]
fn a_check_has_as_long_as_a_handshake_may_take() {
    let asks = |config: &mut Config| config.checks_credentials = true;
    let mut conversation = Conversation::start_with(FakeWork::first(), asks, &Shared::default());
    // The line with the subscription may wait behind this one.
    conversation.send(r#"{"id":1,"method":"mining.authorize","params":["alice","x"]}"#);
    assert!(conversation.wait(Duration::from_secs(59)).is_ok());
    assert_eq!(conversation.wait(Duration::from_secs(1)), Err(Disconnect::HandshakeTimeout));
}

#[test]
fn a_name_that_gave_no_password_is_credited_to_the_one_that_did() {
    let mut conversation = asking();
    conversation.check(Ok(())).unwrap();
    let job = conversation.job();
    let solved = solve(&job, |difficulty| difficulty >= 1e-8);
    assert_eq!(conversation.submit("alice.other", job.id(), &solved)["result"], true);
    assert_eq!(conversation.credited(), [("alice.rig", 1)]);
    // Without a check it is a worker like others.
    let (mut conversation, job) = Conversation::mining();
    assert_eq!(conversation.submit("alice.other", job.id(), &solved)["result"], true);
    assert_eq!(conversation.credited(), [("alice.other", 1)]);
}

#[test]
fn what_waits_for_checks_is_bounded() {
    let mut conversation = asking();
    conversation.check(Ok(())).unwrap();
    conversation.answers();
    let most = Config::default().workers_max;
    for number in 0..most {
        let params = json!([format!("alice.{number}"), "x"]);
        conversation.send(&json!({"id": number, "method": "mining.authorize", "params": params}).to_string());
    }
    assert_eq!(conversation.answers(), Vec::<Value>::new());
    conversation.send(r#"{"id":"more","method":"mining.authorize","params":["alice.more","x"]}"#);
    let answer = conversation.answer();
    assert_eq!((&answer["id"], code(&answer)), (&json!("more"), 24));
    assert_eq!(conversation.asked().len(), 2, "one at a time");
    for number in 0..most {
        conversation.check(Ok(())).unwrap();
        assert_eq!(conversation.answer(), json!({"id": number, "result": true, "error": null}));
    }
    let long = json!(["alice", "x".repeat(513)]);
    conversation.send(&json!({"id": 8, "method": "mining.authorize", "params": long}).to_string());
    assert_eq!(code(&conversation.answer()), 24);
    assert_eq!(conversation.asked().len(), most + 1);
}

#[test]
fn a_password_in_a_request_that_is_not_understood_is_not_repeated() {
    let mut conversation = asking();
    conversation.check(Ok(())).unwrap();
    conversation.answers();
    conversation.send(r#"{"id":3,"method":"mining.authorize","params":{"user":"alice","pass":"hunter2"}}"#);
    let answer = conversation.answer().to_string();
    let reported: Vec<_> =
        conversation.events.iter().filter(|event| matches!(event, Event::NotUnderstood(_))).collect();
    assert!(!answer.contains("hunter2") && !format!("{reported:?}").contains("hunter2"), "{answer} {reported:?}");
    assert_eq!(reported.len(), 1);
}

#[test]
fn idle_miners_are_kept_unless_the_operator_says_otherwise() {
    let (mut conversation, _) = Conversation::mining();
    conversation.wait(Duration::from_secs(86_400)).unwrap();
    let limit = |config: &mut Config| config.idle_timeout = Some(Duration::from_secs(600));
    let mut conversation = Conversation::start_with(FakeWork::first(), limit, &Shared::default());
    conversation.join("x/1", "alice");
    assert!(conversation.wait(Duration::from_secs(599)).is_ok());
    assert_eq!(conversation.wait(Duration::from_secs(1)), Err(Disconnect::Idle));
}

#[test]
fn version_rolling_can_be_narrowed_or_forbidden() {
    for (allowed, result) in [
        (0x00ff_e000, json!({"version-rolling": true, "version-rolling.mask": "00ffe000"})),
        (0, json!({"version-rolling": false})),
    ] {
        let narrow = |config: &mut Config| config.version_mask = allowed;
        let mut conversation = Conversation::start_with(FakeWork::first(), narrow, &Shared::default());
        conversation.send(r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{}]}"#);
        assert_eq!(conversation.answer()["result"], result);
    }
}

/// cgminer, cpuminer and ESP-Miner apply a difficulty with the next job, bfgminer and some firmwares a lower one at
/// once; all of them work on the old job until the new one reaches them, and deep queues longer.
#[test]
fn no_submission_is_rejected_because_the_difficulty_changed() {
    for (applies_at_once, delay) in [(false, 0), (true, 0), (false, 3), (true, 3), (false, 12), (true, 12)] {
        let mut conversation = Conversation::start(FakeWork::first());
        let mut inbox: std::collections::VecDeque<(u32, Value)> =
            conversation.join("x/1", "alice").into_iter().map(|line| (0, line)).collect();
        let (mut job, mut own, mut next) = (None::<Job>, 1e-8, 1e-8);
        let (mut nonce, mut submitted, mut changes) = (0_u32, 0, 0);
        // Quarters of a second; the hash rate leaps up and down by a factor of thirty every minute.
        for tick in 0..2400_u32 {
            while inbox.front().is_some_and(|(due, _)| *due <= tick) {
                let line = inbox.pop_front().unwrap().1;
                match line["method"].as_str() {
                    Some("mining.set_difficulty") => {
                        next = line["params"][0].as_f64().unwrap();
                        changes += 1;
                        if applies_at_once && next < own {
                            own = next;
                        }
                    }
                    Some("mining.notify") => {
                        job = Some(Job { params: line["params"].clone() });
                        own = next;
                    }
                    _ => {}
                }
            }
            conversation.wait(Duration::from_millis(250)).unwrap();
            let hashes = if tick / 240 % 2 == 0 { 5 } else { 150 };
            for _ in 0..hashes {
                let Some(job) = &job else { continue };
                nonce += 1;
                let header = header_of(job, 5, UNIX, nonce, 0x2000_0000);
                // The last digits of a float do not matter to a miner either.
                if Target::from_le_bytes(sha256d(&header)).difficulty() >= own * (1.0 + 1e-9) {
                    let params = json!(["alice", job.id(), "00000005", format!("{UNIX:08x}"), format!("{nonce:08x}")]);
                    conversation.send(&json!({"id": 9, "method": "mining.submit", "params": params}).to_string());
                    submitted += 1;
                }
            }
            for line in conversation.answers() {
                if line["id"] == 9 {
                    assert_eq!(line["result"], true, "{line} at {tick}, {applies_at_once}, {delay}");
                } else {
                    inbox.push_back((tick + delay, line));
                }
            }
        }
        assert!(submitted > 100 && changes > 8, "{submitted} submissions, {changes} changes");
    }
}

/// Dialogues with miners in the field, line by line, from `hardware/dialogues`: `$…` stands for a value that the miner
/// knows by then, `job` and `difficulty` for any of these.
#[test]
fn dialogues_of_the_field_go_as_they_should() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hardware/dialogues");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} names its miner", path.display());
        let mut conversation = Conversation::start(FakeWork::first());
        let (mut heard, mut job, mut nonce) = (std::collections::VecDeque::new(), None::<Job>, 0);
        for line in text.lines() {
            let wrong = |what: &dyn fmt::Display| panic!("{}: `{line}`: {what}", path.display());
            if let Some(said) = line.strip_prefix("> ") {
                let said = match &job {
                    Some(job) if said.contains("$nonce") => {
                        let value: Value = serde_json::from_str(said).unwrap();
                        let bits = value["params"][5].as_str().map_or(0, |bits| u32::from_str_radix(bits, 16).unwrap());
                        let is_good = |nonce: &u32| {
                            let header = header_of(job, 5, UNIX, *nonce, 0x2000_0000 | bits);
                            Target::from_le_bytes(sha256d(&header)).difficulty() >= 1e-8
                        };
                        nonce = (nonce + 1..).find(is_good).unwrap();
                        said.replace("$job", job.id())
                            .replace("$extranonce2", "00000005")
                            .replace("$time", &format!("{UNIX:08x}"))
                            .replace("$nonce", &format!("{nonce:08x}"))
                    }
                    _ => said.to_owned(),
                };
                conversation.send(&said);
                heard.extend(conversation.answers());
            } else if let Some(expected) = line.strip_prefix("< ") {
                let Some(line) = heard.pop_front() else { wrong(&"no line was sent") };
                match expected {
                    "job" if line["method"] == "mining.notify" => job = Some(Job { params: line["params"].clone() }),
                    "difficulty" if line["method"] == "mining.set_difficulty" => {}
                    "job" | "difficulty" => wrong(&line),
                    _ if line
                        != serde_json::from_str::<Value>(&expected.replace("$session", &conversation.name()))
                            .unwrap() =>
                    {
                        wrong(&line)
                    }
                    _ => {}
                }
            }
        }
        assert!(heard.is_empty(), "{}: more was sent: {heard:?}", path.display());
        count += 1;
    }
    assert!(count >= 6, "{count} dialogues");
}

proptest! {
    /// cgminer queues difficulties, and applies one with each job.
    #[test]
    fn a_difficulty_is_always_followed_by_a_job_before_the_next(
        steps in proptest::collection::vec((0..5_u8, 0..60_u64), 1..40)
    ) {
        let mut conversation = Conversation::start(FakeWork::first());
        let mut said = conversation.join("cgminer/4.11.1", "alice");
        let mut job = Job { params: said[1]["params"].clone() };
        for (kind, value) in steps {
            match kind {
                0 => conversation.next_block(),
                1 => conversation.change_work(|work| work.epochs.urgent += 1),
                2 => conversation.wait(Duration::from_secs(value)).unwrap(),
                3 => conversation.send(&format!(
                    r#"{{"id":5,"method":"mining.suggest_difficulty","params":[{}]}}"#, f64::exp2(-20.0 - value as f64 / 8.0)
                )),
                _ => {
                    let nonce = format!("{value:08x}");
                    let params = json!(["alice", job.id(), "00000000", format!("{UNIX:08x}"), nonce]);
                    let line = json!({"id": 9, "method": "mining.submit", "params": params}).to_string();
                    // Nearly all of these are invalid, so the connection is closed at some point.
                    if conversation.try_send(line.as_bytes()).is_err() {
                        break;
                    }
                }
            }
            let lines = conversation.answers();
            if let Some(notify) = lines.iter().rfind(|line| line["method"] == "mining.notify") {
                job = Job { params: notify["params"].clone() };
            }
            said.extend(lines);
        }
        let mut jobs = std::collections::HashSet::new();
        let mut coinbases = std::collections::HashSet::new();
        for pair in said.windows(2) {
            if pair[0]["method"] == "mining.set_difficulty" {
                prop_assert_eq!(&pair[1]["method"], "mining.notify");
            }
        }
        for notify in said.iter().filter(|line| line["method"] == "mining.notify") {
            prop_assert!(jobs.insert(notify["params"][0].clone()), "every job has a name of its own");
            prop_assert!(coinbases.insert(notify["params"][2].clone()), "and a coinbase");
        }
    }
}

proptest! {
    #[test]
    fn no_line_makes_a_session_panic(lines in proptest::collection::vec("\\PC{0,80}", 0..10)) {
        let (mut conversation, _) = Conversation::mining();
        for line in lines {
            if conversation.try_send(line.as_bytes()).is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_naive_checker_agrees_with_every_verdict(
        submissions in proptest::collection::vec((0..4u32, UNIX - 700..UNIX + 8000, 0..6u32), 1..40)
    ) {
        let (mut conversation, job) = Conversation::mining();
        let mut seen = std::collections::HashSet::new();
        for (extranonce2, time, nonce) in submissions {
            let solved = Solved {
                extranonce2: format!("{extranonce2:08x}"),
                time: format!("{time:08x}"),
                nonce: format!("{nonce:08x}"),
                difficulty: 0.0,
            };
            let answer = conversation.submit("alice.rig", job.id(), &solved);
            let hash = Target::from_le_bytes(sha256d(&header_of(&job, extranonce2, time, nonce, 0x2000_0000)));
            let expected = if !(UNIX - 600..=UNIX + 7000).contains(&time) {
                Some(20)
            } else if seen.contains(&(extranonce2, time, nonce)) {
                Some(22)
            } else if hash.difficulty() < 1e-8 {
                Some(23)
            } else {
                seen.insert((extranonce2, time, nonce));
                None
            };
            prop_assert_eq!(answer["error"][0].as_i64(), expected);
            prop_assert_eq!(answer["result"] == true, expected.is_none());
        }
    }
}
