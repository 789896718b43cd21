//! Arbitrary input at arbitrary times: a session answers or closes, and sends at most one line per line.
//!
//! Input: steps of a kind and a length. Some kinds send that many of the following bytes as a line; others send a valid
//! request with values from the input, provide new work, or advance the time. If the first kind is 255, names need
//! passwords, and every third one is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::vardiff;
use stratum::v1::session::Config;
use stratum::{Difficulty, Epochs, Event, JobId, JobParts, Now, Offer, Refusal, Session, Work, Worker};

#[derive(Debug, Clone, PartialEq)]
struct Payee(String);

impl fmt::Display for Payee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug)]
struct FakeWork {
    epochs: Epochs,
    time: u32,
}

impl Work for FakeWork {
    type Payout = Payee;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payee>, Refusal> {
        if name.starts_with("bad") {
            return Err(Refusal("cannot be paid".into()));
        }
        let difficulty = name.split_once('+').and_then(|(_, number)| Difficulty::new(number.parse().ok()?));
        Ok(Worker { name: name.into(), payout: Payee(name.into()), difficulty, notice: None })
    }

    fn offer(&self, payout: &Payee, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let parts = JobParts {
            id: JobId(self.epochs.stale << 32 | u64::from(generation)),
            coinbase_head: payout.0.as_bytes(),
            coinbase_midstate: stratum::mining::midstate::Midstate::new(payout.0.as_bytes()),
            coinbase_tail: &[0; 4],
            branch: &[[3; 32]],
            version: 0x2000_0000,
            previous_block: [7; 32],
            bits: 0x1d00_ffff,
            time: self.time,
            time_min: self.time - 600,
            // Met by one hash in a few, so that solutions occur.
            solution_target: stratum::Target::from_le_bytes([0x7f; 32]),
            extra_target: None,
            pow: stratum::mining::job::Pow::Sha256d,
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }
}

const START: u32 = 1_700_000_000;

fuzz_target!(|input: &[u8]| {
    let start = Instant::now();
    let mut elapsed = Duration::ZERO;
    let mut work = FakeWork { epochs: Epochs::default(), time: START };
    let now = |elapsed: Duration| Now {
        instant: start + elapsed,
        unix: START + u32::try_from(elapsed.as_secs()).unwrap_or(0),
    };
    let lease = Extranonces::starting_at(1).lease().expect("the only lease");
    let config = Config { checks_credentials: input.first() == Some(&255), ..config() };
    let mut session =
        Session::new(Arc::new(config), Arc::default(), lease, Arc::new(FakeWork { ..work }), 7, now(elapsed));
    let mut rest = input;
    let (mut asked, mut answered) = (0, 0);
    while let Some((head, after)) = rest.split_first_chunk::<2>() {
        let (bytes, next) = after.split_at(usize::from(head[1]).min(after.len()));
        rest = next;
        let result = match head[0] {
            // A driver handles no line while the first check runs.
            kind if asked > answered && (kind % 4 == 0 || session.is_waiting_for_check()) => {
                answered += 1;
                let is_wrong = answered % 3 == 0;
                session.handle_credentials(if is_wrong { Err(Refusal("wrong".into())) } else { Ok(()) }, now(elapsed))
            }
            0..=79 => session.handle_line(bytes, now(elapsed)),
            80..=199 => session.handle_line(request(head[0], bytes).as_bytes(), now(elapsed)),
            200..=214 => {
                work.epochs.stale += u64::from(head[0] % 2);
                work.epochs.late += u64::from(head[0] % 5 == 0);
                work.epochs.urgent += u64::from(head[0] % 3);
                work.time = now(elapsed).unix;
                session.handle_work(Arc::new(FakeWork { ..work }), now(elapsed))
            }
            _ => {
                elapsed += Duration::from_millis(37 * u64::from(head[1]));
                session.handle_timeout(now(elapsed))
            }
        };
        // A notification comes in two parts, so lines are complete only once everything is read.
        let said: Vec<_> = std::iter::from_fn(|| session.poll_line()).collect();
        assert!(
            said.last().is_none_or(|part| part.ends_with(
                b"
"
            )),
            "whole lines"
        );
        while let Some(event) = session.poll_event() {
            asked += u32::from(matches!(event, Event::Credentials(_)));
        }
        assert!(asked <= answered + 1, "one at a time");
        if result.is_err() {
            return;
        }
        let _ = (session.poll_timeout(), session.line_bytes_max(), session.user_agent(), session.worker());
    }
});

/// Builds a well-formed request, so that the code behind the parser is reached at once.
fn request(kind: u8, bytes: &[u8]) -> String {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let name: String =
        bytes.iter().take(12).filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(*byte)).collect();
    match kind {
        80..=94 => r#"{"id":1,"method":"mining.subscribe","params":["fuzz"]}"#.into(),
        95..=109 => format!(r#"{{"id":2,"method":"mining.authorize","params":["{name}+0.0000001","x"]}}"#),
        110..=124 => format!(
            r#"{{"id":3,"method":"mining.configure","params":[["version-rolling"],{{"version-rolling.mask":"{:02x}{:02x}e0{:02x}"}}]}}"#,
            byte(0),
            byte(1),
            byte(2)
        ),
        125..=134 => format!(r#"{{"id":4,"method":"mining.suggest_difficulty","params":[{}.{}]}}"#, byte(0), byte(1)),
        _ => {
            let job = u64::from(byte(0) % 4) << 32 | u64::from(byte(1) % 4);
            let time = START + u32::from(byte(2));
            format!(
                r#"{{"id":5,"method":"mining.submit","params":["{name}+0.0000001","{job:016x}","0000{:02x}{:02x}","{time:08x}","{:02x}{:02x}0000","00{:02x}e000"]}}"#,
                byte(3),
                byte(4),
                byte(5),
                byte(6),
                byte(7)
            )
        }
    }
}

fn config() -> Config {
    let difficulty = |value| Difficulty::new(value).expect("it is above zero");
    Config {
        vardiff: vardiff::Config {
            interval: Duration::from_secs(3),
            start: difficulty(1e-9),
            min: difficulty(1e-10),
            max: difficulty(1e12),
        },
        ..Config::default()
    }
}
