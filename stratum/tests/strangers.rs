//! What a stranger may try against sessions: repeated submissions, the extranonces of others, garbage where proof of
//! work is costly, floods. Each test names the bound that it proves.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod fixture;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::job::{Pow, sha256d};
use stratum::mining::pow_budget::BUDGET;
use stratum::v1::session::Config;
use stratum::{Difficulty, Epochs, Event, JobParts, Memory, Now, Offer, Refusal, Session, Work, Worker};

use fixture::{UNIX, parts};

#[derive(Debug, Clone, PartialEq)]
struct Payee;

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payee")
    }
}

/// Work whose jobs all miners share. Every hash earns credit, and none is a solution.
#[derive(Debug)]
struct Shared {
    pow: Pow,
    difficulty: f64,
}

impl Work for Shared {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        Ok(Worker { name: name.into(), payout: Payee, difficulty: Difficulty::new(self.difficulty), notice: None })
    }

    fn offer(&self, _payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let head = [b"coinbase", &generation.to_le_bytes()[..]].concat();
        let parts = JobParts {
            solution_target: Difficulty::new(1e12).unwrap().target(),
            extra_target: None,
            pow: self.pow,
            ..parts(u64::from(generation), &head)
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs::default()
    }
}

/// A server without sockets.
struct Server {
    work: Arc<Shared>,
    config: Arc<Config>,
    memory: Arc<Memory<()>>,
    extranonces: Extranonces,
    started: Instant,
    seeds: Cell<u64>,
}

impl Server {
    fn new(pow: Pow, difficulty: f64) -> Self {
        let mut config = Config::default();
        config.vardiff.min = Difficulty::new(1e-12).unwrap();
        Self {
            work: Arc::new(Shared { pow, difficulty }),
            config: Arc::new(config),
            memory: Arc::default(),
            extranonces: Extranonces::starting_at(1),
            started: Instant::now(),
            seeds: Cell::new(1),
        }
    }

    fn at(&self, seconds: u64) -> Now {
        Now { instant: self.started + Duration::from_secs(seconds), unix: UNIX }
    }

    /// Connects a miner, which quotes `session` if it has one.
    fn connect(&self, address: [u8; 4], session: Option<&str>, now: Now) -> Miner {
        self.seeds.set(self.seeds.get() + 1);
        let (config, memory, work) = (self.config.clone(), self.memory.clone(), self.work.clone());
        let lease = self.extranonces.lease().unwrap();
        let session_of = Session::new(config, memory, lease, work, self.seeds.get(), now);
        let mut miner = Miner {
            session: session_of.with_address(IpAddr::from(address)),
            name: String::new(),
            extranonce1: String::new(),
            now,
            is_open: true,
            credits: 0,
        };
        let params: Vec<&str> = ["test"].into_iter().chain(session).collect();
        let subscribed = miner.call("mining.subscribe", &json!(params));
        miner.name = subscribed["result"][0][0][1].as_str().unwrap().to_owned();
        miner.extranonce1 = subscribed["result"][1].as_str().unwrap().to_owned();
        assert_eq!(miner.call("mining.authorize", &json!(["worker", "x"]))["result"], true);
        miner
    }
}

struct Miner {
    session: Session<Shared>,
    /// Id of the session.
    name: String,
    extranonce1: String,
    now: Now,
    is_open: bool,
    credits: usize,
}

impl Miner {
    fn call(&mut self, method: &str, params: &Value) -> Value {
        let line = json!({"id": 7, "method": method, "params": params}).to_string();
        self.is_open &= self.session.handle_line(line.as_bytes(), self.now).is_ok();
        self.act_on_events();
        self.lines().into_iter().find(|line| line["id"] == 7).unwrap()
    }

    /// Lines sent to the miner.
    fn lines(&mut self) -> Vec<Value> {
        let bytes: Vec<u8> = std::iter::from_fn(|| self.session.poll_line()).flatten().collect();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Submits, and returns the code of the refusal; 0 if it was accepted.
    fn submit(&mut self, job: u64, extranonce2: u32, nonce: u32) -> i64 {
        let fields =
            [format!("{job:016x}"), format!("{extranonce2:08x}"), format!("{UNIX:08x}"), format!("{nonce:08x}")];
        let params: Vec<&str> = ["worker"].into_iter().chain(fields.iter().map(|field| &**field)).collect();
        let answer = self.call("mining.submit", &json!(params));
        if answer["result"] == true { 0 } else { answer["error"][0].as_i64().unwrap() }
    }

    /// Computes proofs of work on the spot, and counts credits.
    fn act_on_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Hash(request) => {
                    let hash = (request.pow)(&request.header);
                    self.is_open &= self.session.handle_hash(request.number, Ok(hash), self.now).is_ok();
                }
                Event::Judged { credit: Some(_), .. } => self.credits += 1,
                _ => {}
            }
        }
    }

    /// Number of credits since the last call.
    fn credits(&mut self) -> usize {
        self.act_on_events();
        std::mem::take(&mut self.credits)
    }
}

const HOME: [u8; 4] = [192, 0, 2, 1];
const ELSEWHERE: [u8; 4] = [198, 51, 100, 1];

const DUPLICATE: i64 = 22;

#[test]
fn a_submission_counts_once_on_its_connection_and_after_it_was_resumed_any_number_of_times() {
    let server = Server::new(Pow::Sha256d, 1e-12);
    let mut miner = server.connect(HOME, None, server.at(0));
    assert_eq!([miner.submit(0, 1, 1), miner.submit(0, 1, 1)], [0, DUPLICATE]);
    assert_eq!(miner.submit(0, 1, 2), 0);
    assert_eq!(miner.credits(), 2);
    for seconds in 1..20 {
        let (name, extranonce1) = (miner.name.clone(), miner.extranonce1.clone());
        miner.session.close(server.at(seconds));
        miner = server.connect(HOME, Some(&name), server.at(seconds));
        assert_eq!(miner.extranonce1, extranonce1, "it was resumed");
        assert_eq!([miner.submit(0, 1, 1), miner.submit(0, 1, 2)], [DUPLICATE; 2]);
    }
    assert_eq!(miner.credits(), 0);
}

#[test]
fn a_submission_of_another_connection_is_another_header() {
    // One hash in two earns credit, so a header that differs gets another verdict sooner or later.
    let server = Server::new(Pow::Sha256d, 2.0_f64.powi(-31));
    let mut one = server.connect(HOME, None, server.at(0));
    let mut two = server.connect(ELSEWHERE, None, server.at(0));
    assert_ne!(one.extranonce1, two.extranonce1);
    let accepted: Vec<u32> = (0..200).filter(|nonce| one.submit(0, 1, *nonce) == 0).collect();
    let repeated = accepted.iter().filter(|nonce| two.submit(0, 1, **nonce) == 0).count();
    assert!(accepted.len() > 50 && repeated < accepted.len() - 10, "{repeated} of {}", accepted.len());
    // Nor does a connection that was not resumed get the extranonce of the one before.
    let gone = one.extranonce1.clone();
    one.session.close(server.at(1));
    assert_ne!(server.connect(HOME, None, server.at(1)).extranonce1, gone);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Coinbases differ as long as extranonces do: among all connections that are open or may be resumed, and any that
    /// ended while their jobs may still be submitted.
    #[test]
    fn no_extranonce_is_used_twice_while_a_job_made_with_it_may_be_submitted(steps in prop::collection::vec((0..4_u8, 0..8_usize), 1..200)) {
        let server = Server::new(Pow::Sha256d, 1e-12);
        let (mut open, mut ended): (Vec<Miner>, Vec<(String, String)>) = (Vec::new(), Vec::new());
        let mut used = HashSet::new();
        for (kind, index) in steps {
            match kind {
                0 | 1 => {
                    let miner = server.connect(HOME, None, server.at(0));
                    prop_assert!(used.insert(miner.extranonce1.clone()), "{} is new", miner.extranonce1);
                    open.push(miner);
                }
                2 if !open.is_empty() => {
                    let miner = open.swap_remove(index % open.len());
                    ended.push((miner.name.clone(), miner.extranonce1.clone()));
                    miner.session.close(server.at(0));
                }
                3 if !ended.is_empty() => {
                    let (name, extranonce1) = ended.swap_remove(index % ended.len());
                    let miner = server.connect(ELSEWHERE, Some(&name), server.at(0));
                    prop_assert_eq!(&miner.extranonce1, &extranonce1);
                    // Each session is resumed once.
                    let again = server.connect(ELSEWHERE, Some(&name), server.at(0));
                    prop_assert!(used.insert(again.extranonce1.clone()));
                    open.extend([miner, again]);
                }
                _ => {}
            }
            let live: HashSet<&String> = open.iter().map(|miner| &miner.extranonce1).collect();
            prop_assert_eq!(live.len(), open.len());
        }
    }
}

#[test]
fn a_flood_of_good_submissions_is_credited_once_each_and_gets_the_next_job_before_it_is_refused() {
    let server = Server::new(Pow::Sha256d, 1e-12);
    let mut miner = server.connect(HOME, None, server.at(0));
    let sent = (0..100_000).find(|nonce| {
        assert_eq!(miner.submit(0, 1, *nonce), 0);
        miner.session.poll_timeout() <= miner.now.instant
    });
    let sent = sent.expect("the next job is due");
    miner.session.handle_timeout(miner.now).unwrap();
    assert!(miner.lines().iter().any(|line| line["method"] == "mining.notify"));
    assert_eq!(miner.credits(), sent as usize + 1);
    // It goes on with the old job all the same.
    let all = 120_000;
    let refused = (sent + 1..all).filter(|nonce| miner.submit(0, 1, *nonce) != 0).count();
    assert!(refused > 0);
    assert_eq!(miner.credits(), (all - sent - 1) as usize - refused);
    assert!((0..all).all(|nonce| miner.submit(0, 1, nonce) != 0), "nothing is credited a second time");
    assert_eq!((miner.credits(), miner.submit(1, 1, 0)), (0, 0));
}

thread_local! {
    static HASHES: Cell<usize> = const { Cell::new(0) };
}

/// Counts its calls.
fn counted(header: &[u8; 80]) -> [u8; 32] {
    HASHES.set(HASHES.get() + 1);
    sha256d(header)
}

#[test]
fn a_repeated_submission_is_refused_before_its_proof_of_work_is_computed() {
    let server = Server::new(Pow::Costly(counted), 1e-12);
    let mut miner = server.connect(HOME, None, server.at(0));
    assert_eq!(miner.submit(0, 1, 1), 0);
    let before = HASHES.get();
    for _ in 0..100 {
        assert_eq!(miner.submit(0, 1, 1), DUPLICATE);
    }
    assert_eq!(HASHES.get(), before);
}

#[test]
fn garbage_costs_a_bounded_number_of_hashes_however_often_a_network_connects() {
    // No hash of the test is good enough.
    let server = Server::new(Pow::Costly(counted), 1e9);
    let before = HASHES.get();
    let mut lines = 0;
    for connection in 0..100_u8 {
        let mut miner = server.connect([192, 0, 2, connection], None, server.at(0));
        for nonce in 0..1000 {
            if miner.is_open {
                assert_ne!(miner.submit(0, 1, nonce), 0);
                lines += 1;
            }
        }
        assert!(!miner.is_open, "useless lines are limited on each connection");
    }
    assert!(lines > 20_000);
    assert_eq!((HASHES.get() - before) as f64, BUDGET.burst);
    // A second later it is a second's worth.
    let (before, mut miner) = (HASHES.get(), server.connect([192, 0, 2, 200], None, server.at(1)));
    while miner.is_open {
        miner.submit(0, 1, u32::try_from(HASHES.get()).unwrap());
    }
    assert_eq!((HASHES.get() - before) as f64, BUDGET.per_second);
    // Others have budgets of their own.
    let (before, mut miner) = (HASHES.get(), server.connect(ELSEWHERE, None, server.at(1)));
    miner.submit(0, 1, 1);
    assert_eq!(HASHES.get() - before, 1);
}

#[test]
fn a_miner_whose_work_counts_is_credited_although_its_network_has_spent_its_budget() {
    let server = Server::new(Pow::Costly(counted), 1e-12);
    let mut miner = server.connect(HOME, None, server.at(0));
    assert_eq!(miner.submit(0, 1, 0), 0);
    let hopeless = Server { work: Arc::new(Shared { pow: Pow::Costly(counted), difficulty: 1e9 }), ..server };
    for address in 0..50 {
        let mut stranger = hopeless.connect([192, 0, 2, address], None, hopeless.at(0));
        (0..256).for_each(|nonce| assert_ne!(stranger.submit(0, 1, nonce), 0));
    }
    assert!((1..1000).all(|nonce| miner.submit(0, 1, nonce) == 0));
}
