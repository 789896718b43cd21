//! A million random submissions, each judged twice: by a session, and by an independent checker written from the
//! protocol alone. It builds the whole coinbase, hashes plainly, and compares big integers.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use num_bigint::BigUint;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use stratum::mining::extranonce::Extranonces;
use stratum::mining::midstate::Midstate;
use stratum::mining::vardiff;
use stratum::v1::session::Config;
use stratum::{Difficulty, Epochs, Event, JobId, JobParts, Now, Offer, Refusal, Session, Work, Worker};

const SUBMISSIONS: usize = 1_000_000;

/// Submissions of one session before the next, so that names, masks and difficulties vary.
const PER_SESSION: usize = 2_000;

const UNIX: u32 = 1_700_000_000;

/// Header bits that may be rolled (BIP 320).
const ROLLED: u32 = 0x1fff_e000;

#[derive(Debug, Clone, PartialEq)]
struct Payee;

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("payee")
    }
}

/// A job, as the checker keeps it.
#[derive(Debug, Clone)]
struct Plain {
    head: Vec<u8>,
    tail: Vec<u8>,
    branch: Vec<[u8; 32]>,
    previous: [u8; 32],
    stale_epoch: u64,
}

fn plain(id: u64, stale_epoch: u64) -> Plain {
    let mut random = fastrand::Rng::with_seed(id);
    Plain {
        head: (0..random.usize(40..400)).map(|_| random.u8(..)).collect(),
        tail: (0..random.usize(4..40)).map(|_| random.u8(..)).collect(),
        branch: (0..random.usize(0..4)).map(|_| std::array::from_fn(|_| random.u8(..))).collect(),
        previous: std::array::from_fn(|_| random.u8(..)),
        stale_epoch,
    }
}

#[derive(Debug, Clone, Copy)]
struct RandomWork {
    first_id: u64,
    stale_epoch: u64,
}

impl Work for RandomWork {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        let difficulty = name.split_once('+').and_then(|(_, number)| Difficulty::new(number.parse().ok()?));
        Ok(Worker { name: name.into(), payout: Payee, difficulty, notice: None })
    }

    fn offer(&self, _payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let id = self.first_id + u64::from(generation);
        let plain = plain(id, self.stale_epoch);
        let parts = JobParts {
            id: JobId(id),
            coinbase_head: &plain.head,
            coinbase_midstate: Midstate::new(&plain.head),
            coinbase_tail: &plain.tail,
            branch: &plain.branch,
            version: 0x2000_0000,
            previous_block: plain.previous,
            bits: 0x1d00_ffff,
            time: UNIX,
            time_min: UNIX - 600,
            // Some 2^-20 of all submissions.
            solution_target: Difficulty::new(f64::exp2(-12.0)).unwrap().target(),
            extra_target: None,
            pow: stratum::mining::job::Pow::Sha256d,
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs { stale: self.stale_epoch, ..Epochs::default() }
    }
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

/// True if `hash` times `difficulty` is at most 0xffff · 2^208, exactly: a float is an integer times a power of two.
fn meets(hash: &[u8; 32], difficulty: f64) -> bool {
    let bits = difficulty.to_bits();
    let mantissa = BigUint::from((bits & ((1 << 52) - 1)) | (1 << 52));
    let exponent = i64::try_from(bits >> 52).unwrap() - 1075;
    let shift = exponent.unsigned_abs();
    let (left, right) = (BigUint::from_bytes_le(hash) * mantissa, BigUint::from(0xffff_u32) << 208_u32);
    if exponent < 0 { left <= right << shift } else { left << shift <= right }
}

/// State of one session in the checker.
#[derive(Default)]
struct Checker {
    jobs: HashMap<u64, Plain>,
    seen: HashSet<[u8; 32]>,
    difficulty: f64,
    mask: u32,
    stale_epoch: u64,
}

#[derive(Debug, Clone)]
struct Fields {
    job: String,
    extranonce2: String,
    time: String,
    nonce: String,
    bits: Option<String>,
}

impl Checker {
    /// Returns the error code expected, or zero.
    fn judge(&mut self, fields: &Fields, extranonce1: [u8; 4], now: u32) -> i64 {
        let strict = |digits: &str| {
            let plain = digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).unwrap())
        };
        let job = (fields.job.len() == 16).then(|| u64::from_str_radix(&fields.job, 16).ok()).flatten();
        let Some(job) = job.and_then(|id| self.jobs.get(&id)) else { return 21 };
        let (Some(extranonce2), Some(time), Some(nonce)) =
            (strict(&fields.extranonce2), strict(&fields.time), strict(&fields.nonce))
        else {
            return 20;
        };
        let rolled = match &fields.bits {
            None => 0,
            Some(bits) => match strict(bits) {
                None => return 20,
                Some(bits) => bits,
            },
        };
        if time < UNIX - 600 || time > (now + 7200).clamp(UNIX, UNIX + 7000) || rolled & !self.mask != 0 {
            return 20;
        }
        let mut coinbase = job.head.clone();
        coinbase.extend(extranonce1);
        coinbase.extend(extranonce2.to_be_bytes());
        coinbase.extend(&job.tail);
        let mut root = sha256d(&coinbase);
        for sibling in &job.branch {
            root = sha256d(&[root, *sibling].concat());
        }
        let mut header = (0x2000_0000 | rolled).to_le_bytes().to_vec();
        header.extend(job.previous);
        header.extend(root);
        for number in [time, 0x1d00_ffff, nonce] {
            header.extend(number.to_le_bytes());
        }
        let hash = sha256d(&header);
        if self.seen.contains(&hash) {
            22
        } else if !meets(&hash, self.difficulty) {
            23
        } else {
            self.seen.insert(hash);
            if job.stale_epoch == self.stale_epoch { 0 } else { 21 }
        }
    }
}

/// Draws a submission: mostly valid, sometimes not.
fn draw(random: &mut fastrand::Rng, jobs: &[u64], before: &[Fields]) -> Fields {
    if !before.is_empty() && random.u8(..) < 16 {
        return before[random.usize(..before.len())].clone();
    }
    // Devices keep a job and an extranonce2 for a while; some keep the extranonce2 on the next job.
    let [of_last, kept] = [(), ()].map(|()| before.last().filter(|_| random.bool()));
    let job = match (random.u8(..), of_last) {
        (0..6, _) => format!("{:016x}", random.u64(..)),
        (6, _) => "1".to_owned(),
        (7.., Some(last)) => last.job.clone(),
        (7.., None) => format!("{:016x}", jobs[random.usize(..jobs.len())]),
    };
    let time = match random.u8(..) {
        0..8 => random.u32(UNIX - 620..UNIX - 580),
        8..16 => random.u32(UNIX + 6980..UNIX + 7020),
        16..20 => random.u32(..),
        _ => random.u32(UNIX - 600..=UNIX + 7000),
    };
    let bits = match random.u8(..) {
        0..100 => None,
        100..110 => Some(format!("{:08x}", random.u32(..))),
        _ => Some(format!("{:08x}", random.u32(..) & ROLLED)),
    };
    let mut fields = Fields {
        job,
        extranonce2: kept.map_or_else(|| format!("{:08x}", random.u32(..)), |last| last.extranonce2.clone()),
        time: format!("{time:08x}"),
        nonce: format!("{:08X}", random.u32(..)),
        bits,
    };
    let odd = ["", "zz000000", "123", "000000000", "0x000000", "ä0000000"][random.usize(..6)].to_owned();
    match random.u8(..) {
        0 => fields.extranonce2 = odd,
        1 => fields.time = odd,
        2 => fields.nonce = odd,
        3 => fields.bits = Some(odd),
        _ => {}
    }
    fields
}

fn line(fields: &Fields, id: usize) -> String {
    let Fields { job, extranonce2, time, nonce, bits } = fields;
    let bits = bits.as_ref().map(|bits| format!(",\"{bits}\"")).unwrap_or_default();
    format!(
        r#"{{"id":{id},"method":"mining.submit","params":["name","{job}","{extranonce2}","{time}","{nonce}"{bits}]}}"#
    )
}

fn code(answer: &str) -> i64 {
    match answer.split_once("\"error\":[") {
        Some((_, rest)) => rest.split(',').next().unwrap().parse().unwrap(),
        None => {
            assert!(answer.contains("\"result\":true"), "{answer}");
            0
        }
    }
}

fn session(number: u64, tally: &mut HashMap<i64, usize>) {
    let mut random = fastrand::Rng::with_seed(number);
    // Between a quarter and all of them are good enough.
    let difficulty = f64::exp2(-32.0 + 2.0 * random.f64());
    let config = Config {
        vardiff: vardiff::Config { min: Difficulty::new(1e-12).unwrap(), ..Config::default().vardiff },
        lenient: false,
        useless_lines_max: 1e9,
        ..Config::default()
    };
    let mut work = RandomWork { first_id: number << 32, stale_epoch: 0 };
    let now = Now { instant: Instant::now(), unix: UNIX + random.u32(..60) };
    let first = random.u32(..);
    let lease = Extranonces::starting_at(first).lease().unwrap();
    let mut session = Session::new(Arc::new(config), Arc::default(), lease, Arc::new(work), number, now);
    let mask = [0, ROLLED, 0x00ff_e000][random.usize(..3)];
    let mut checker = Checker { difficulty, mask, ..Checker::default() };
    let mut jobs = Vec::new();
    let handshake = [
        r#"{"id":1,"method":"mining.subscribe","params":["x"]}"#.to_owned(),
        format!(
            r#"{{"id":2,"method":"mining.configure","params":[["version-rolling"],{{"version-rolling.mask":"{mask:08x}"}}]}}"#
        ),
        format!(r#"{{"id":3,"method":"mining.authorize","params":["name+{difficulty}","x"]}}"#),
    ];
    for line in handshake {
        session.handle_line(line.as_bytes(), now).unwrap();
    }
    while session.poll_line().is_some() {}
    jobs.push(work.first_id);
    checker.jobs.insert(work.first_id, plain(work.first_id, 0));
    let mut before = Vec::new();
    for id in 0..PER_SESSION {
        if random.u32(..400) == 0 {
            work.first_id += 1000;
            work.stale_epoch += 1;
            session.handle_work(Arc::new(work), now).unwrap();
            while session.poll_line().is_some() {}
            jobs.push(work.first_id);
            checker.jobs.insert(work.first_id, plain(work.first_id, work.stale_epoch));
            checker.stale_epoch = work.stale_epoch;
        }
        let fields = draw(&mut random, &jobs, &before);
        session.handle_line(line(&fields, id).as_bytes(), now).unwrap();
        let answer = String::from_utf8(session.poll_line().unwrap().to_vec()).unwrap();
        let expected = checker.judge(&fields, first.to_be_bytes(), now.unix);
        assert!(answer.starts_with(&format!("{{\"id\":{id},")), "{answer}");
        assert_eq!(code(&answer), expected, "session {number}, {fields:?}: {answer}");
        *tally.entry(expected).or_default() += 1;
        before.push(fields);
        while let Some(event) = session.poll_event() {
            if let Event::Judged { verdict, .. } = event {
                assert_eq!(verdict == "accepted", expected == 0);
            }
        }
        while session.poll_line().is_some() {}
    }
}

#[test]
fn a_naive_checker_agrees_with_every_verdict_over_a_million_submissions() {
    let mut tally = HashMap::new();
    for number in 0..(SUBMISSIONS / PER_SESSION) as u64 {
        session(number, &mut tally);
    }
    assert_eq!(tally.values().sum::<usize>(), SUBMISSIONS);
    for (code, least) in [(0, SUBMISSIONS / 10), (20, 1000), (21, 1000), (22, 1000), (23, SUBMISSIONS / 20)] {
        assert!(tally[&code] >= least, "every verdict occurs often: {tally:?}");
    }
}
