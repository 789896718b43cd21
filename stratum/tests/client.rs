//! A client mines against a session: both sides understand each other.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test may begin at the clock's time")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod fixture;

use std::sync::Arc;
use std::time::Instant;
use stratum::mining::extranonce::Extranonces;
use stratum::mining::job::sha256d;
use stratum::v1::client::{Client, ClientError, ClientEvent, ReceivedJob, SolvedJob};
use stratum::v1::session::Config;
use stratum::{Difficulty, Epochs, JobParts, Memory, Now, Offer, Refusal, Session, Target, Work, Worker};

use fixture::{UNIX, parts};

#[derive(Debug)]
struct OneJob;

impl Work for OneJob {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<String>, Refusal> {
        if name == "bad" {
            return Err(Refusal("bad cannot be paid".into()));
        }
        // About 43 hashes.
        Ok(Worker { name: name.into(), payout: name.to_owned(), difficulty: Difficulty::new(1e-8), notice: None })
    }

    fn offer(&self, payout: &String, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let parts = JobParts {
            coinbase_tail: &[7; 90],
            previous_block: std::array::from_fn(|byte| u8::try_from(byte).unwrap()),
            solution_target: Difficulty::new(1e9).unwrap().target(),
            ..parts(u64::from(generation), payout.as_bytes())
        };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        Epochs { stale: 1, late: 0, urgent: 0 }
    }
}

/// Client and session, connected without a socket.
struct Pair {
    client: Client,
    session: Session<OneJob>,
    now: Now,
}

impl Pair {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), unix: UNIX };
        let lease = Extranonces::starting_at(0x0102_0304).lease().unwrap();
        let memory = Arc::<Memory<()>>::default();
        let mut config = Config::default();
        config.vardiff.min = Difficulty::new(1e-9).unwrap();
        let session = Session::new(Arc::new(config), memory, lease, Arc::new(OneJob), 7, now);
        Self { client: Client::default(), session, now }
    }

    /// Passes a line of the client to the session, and the answers back; returns the client's events.
    fn send(&mut self, line: &str) -> Result<Vec<ClientEvent>, ClientError> {
        self.session.handle_line(line.trim_end().as_bytes(), self.now).unwrap();
        while self.session.poll_event().is_some() {}
        let bytes: Vec<u8> = std::iter::from_fn(|| self.session.poll_line()).flatten().collect();
        let mut events = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            events.extend(self.client.handle_line(line)?);
        }
        Ok(events)
    }

    fn join(&mut self) -> ReceivedJob {
        self.send(&self.client.subscribe("test/1")).unwrap();
        let events = self.send(&self.client.authorize("alice", "x")).unwrap();
        match &events[..] {
            [ClientEvent::Job(job)] => ReceivedJob::clone(job),
            other => panic!("{other:?}"),
        }
    }
}

/// Searches for a nonce with these bits of the version.
fn mine(job: &ReceivedJob, version_bits: Option<u32>) -> SolvedJob {
    let extranonce2 = job.extranonce2(5);
    let mut header = job.header(&extranonce2);
    let version = job.version | version_bits.unwrap_or(0);
    header[..4].copy_from_slice(&version.to_le_bytes());
    let is_found = |nonce: &u32| {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        Target::from_le_bytes(sha256d(&header)) <= job.target()
    };
    let nonce = (0..).find(is_found).unwrap();
    SolvedJob { job: job.name.clone(), extranonce2, time: job.time, nonce, version_bits }
}

#[test]
fn what_a_client_mines_is_accepted_once() {
    let mut pair = Pair::new();
    let job = pair.join();
    assert_eq!(job.difficulty, Difficulty::new(1e-8).unwrap());
    let line = pair.client.submit("alice", &mine(&job, None));
    assert!(matches!(pair.send(&line).unwrap()[..], [ClientEvent::Answered(Ok(()))]));
    match &pair.send(&line).unwrap()[..] {
        [ClientEvent::Answered(Err(reason))] => assert!(reason.contains("duplicate"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn version_bits_are_rolled_as_far_as_granted() {
    let mut pair = Pair::new();
    pair.send(&pair.client.configure(0xffff_ffff)).unwrap();
    let job = pair.join();
    assert_eq!(pair.client.version_mask(), 0x1fff_e000);
    let line = pair.client.submit("alice", &mine(&job, Some(0x0000_2000)));
    assert!(matches!(pair.send(&line).unwrap()[..], [ClientEvent::Answered(Ok(()))]));
}

#[test]
fn a_name_that_cannot_be_paid_ends_the_connection() {
    let mut pair = Pair::new();
    pair.send(&pair.client.subscribe("test/1")).unwrap();
    let refused = pair.send(&pair.client.authorize("bad", "x")).unwrap_err();
    assert!(refused.to_string().contains("bad cannot be paid"), "{refused}");
}
