//! The state machine of one miner: lines, work and time in; lines and events out. It knows no socket and no clock.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

use crate::difficulty::Difficulty;
use crate::duplicates::Duplicates;
use crate::epochs::Epochs;
use crate::error::StratumError;
use crate::extranonce::{EXTRANONCE2_SIZE, Lease};
use crate::job::{Job, Jobs};
use crate::line::{LINE_BYTES_MAX, LINE_BYTES_MAX_BEFORE_AUTHORIZE};
use crate::message::{self, Call, Id, Request};
use crate::submission::{Solved, Submission, shown};
use crate::vardiff::{self, Vardiff};
use crate::version_rolling;
use crate::work::{Refusal, Work, Worker};

/// Worker names on one connection: a proxy's rigs. More is a proxy that should open a second connection.
pub const WORKERS_MAX: usize = 64;

/// Lines that are no request before the connection is closed: some firmware sends one odd line, strangers send many.
pub const MALFORMED_MAX: u32 = 3;

/// How a session behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// How difficulty is chosen.
    pub vardiff: vardiff::Config,
    /// How long a connection may take to subscribe.
    pub subscribe_timeout: Duration,
    /// How long a connection may take to authorise.
    pub authorize_timeout: Duration,
    /// A job is sent at least this often: cgminer gives a silent pool up after 90 s, and the newest transactions are
    /// worth having.
    pub notify_interval: Duration,
    /// What difficulties told to miners are multiplied by: 1, and 65,536 for scrypt, where the field counts so.
    pub difficulty_scale: f64,
}

/// The two clocks, as arguments.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// For header times: seconds since 1970.
    pub unix: u32,
}

/// Why a connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disconnect {
    /// Too many lines that are no request.
    #[error("{MALFORMED_MAX} malformed lines, the last one {0}")]
    Malformed(StratumError),
    /// It did not subscribe or authorise in time.
    #[error("handshake not finished in time")]
    HandshakeTimeout,
    /// There is no work for it.
    #[error("no work: {0}")]
    NoWork(Refusal),
}

/// What happened on a session, for others to act on.
#[derive(Debug)]
pub enum Event<T> {
    /// A submission good enough to leave the session. Comes before the answer to it is sent.
    Solution(Solution<T>),
    /// A submission met its difficulty.
    Credited(Credit),
    /// A submission got this verdict, a word of a fixed set.
    Verdict(&'static str),
    /// A name was authorised or refused, a word of a fixed set.
    Authorized(&'static str),
}

/// A submission that is worth more than an answer.
#[derive(Debug)]
pub struct Solution<T> {
    /// The job that it solves; its ticket has what is needed to finish it.
    pub job: Arc<Job<T>>,
    /// The header and its hashes.
    pub solved: Solved,
    /// The eight bytes between the coinbase's head and tail.
    pub extranonces: [u8; 8],
    /// Who found it.
    pub worker: Arc<str>,
}

/// Work to put to somebody's account.
#[derive(Debug, Clone, PartialEq)]
pub struct Credit {
    /// Whose.
    pub worker: Arc<str>,
    /// Whom the work pays, as the payout shows itself.
    pub payee: Arc<str>,
    /// What was required of it, not what it achieved.
    pub difficulty: Difficulty,
    /// Whether it came for work that had been dropped: it is hash rate all the same.
    pub late: bool,
}

/// One miner.
#[derive(Debug)]
pub struct Session<W: Work> {
    config: Config,
    extranonce1: Lease,
    work: Arc<W>,
    /// The epochs of the last job sent; `None` before the first.
    told: Option<Epochs>,
    /// Of the next job out of `work`.
    generation: u32,
    started: Instant,
    notified: Instant,
    subscribed: bool,
    user_agent: String,
    /// The first one's payout is the connection's.
    workers: Vec<Worker<W::Payout>>,
    /// That payout, as it shows itself; empty before there is one.
    payee: Arc<str>,
    /// Negotiated version bits; zero before.
    mask: u32,
    jobs: Jobs<W::Ticket>,
    duplicates: Duplicates,
    vardiff: Vardiff,
    /// The difficulty that the miner was last told.
    announced: Option<Difficulty>,
    malformed: u32,
    random: fastrand::Rng,
    lines: VecDeque<Bytes>,
    events: VecDeque<Event<W::Ticket>>,
}

impl<W: Work> Session<W> {
    /// A connection that was just made. `seed` feeds the draws that [`Work::offer`] is given.
    pub fn new(config: Config, extranonce1: Lease, work: Arc<W>, seed: u64, now: Now) -> Self {
        Self {
            config,
            extranonce1,
            work,
            told: None,
            generation: 0,
            started: now.instant,
            notified: now.instant,
            subscribed: false,
            user_agent: String::new(),
            workers: Vec::new(),
            payee: "".into(),
            mask: 0,
            jobs: Jobs::new(),
            duplicates: Duplicates::default(),
            vardiff: Vardiff::new(config.vardiff, now.instant),
            announced: None,
            malformed: 0,
            random: fastrand::Rng::with_seed(seed),
            lines: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Longest line to accept now.
    pub fn line_bytes_max(&self) -> usize {
        if self.workers.is_empty() { LINE_BYTES_MAX_BEFORE_AUTHORIZE } else { LINE_BYTES_MAX }
    }

    /// What the miner calls itself; empty until it says.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    /// The name of the first worker, once there is one.
    pub fn worker(&self) -> Option<&Arc<str>> {
        self.workers.first().map(|worker| &worker.name)
    }

    /// The next bytes to send, in order.
    pub fn poll_line(&mut self) -> Option<Bytes> {
        self.lines.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event<W::Ticket>> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        if !self.is_mining() {
            let authorize_by = self.started + self.config.authorize_timeout;
            return if self.subscribed { authorize_by } else { authorize_by.min(self.subscribe_by()) };
        }
        let notify = self.notified + self.config.notify_interval;
        self.vardiff.deadline().map_or(notify, |vardiff| vardiff.min(notify))
    }

    /// Handles one line without its line end.
    ///
    /// # Errors
    /// The connection is to be closed, after sending what is still to be sent.
    pub fn handle_line(&mut self, line: &[u8], now: Now) -> Result<(), Disconnect> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(error) => {
                self.malformed += 1;
                self.lines.extend(message::failure(Id::NULL, &error));
                return if self.malformed < MALFORMED_MAX { Ok(()) } else { Err(Disconnect::Malformed(error)) };
            }
        };
        let id = request.id;
        match request.call {
            Ok(Call::Answer) => Ok(()),
            Ok(Call::Authorize { name, password }) => self.authorize(id, &name, &password, now),
            Ok(Call::Configure { extensions, version_rolling_mask }) => {
                self.configure(id, &extensions, version_rolling_mask);
                Ok(())
            }
            Ok(Call::Submit { name, job, extranonce2, time, nonce, version_bits }) => {
                let verdict = self.submit(&name, &job, now, |mask| {
                    Submission::parse(&extranonce2, &time, &nonce, version_bits.as_deref(), mask)
                });
                self.events
                    .push_back(Event::Verdict(verdict.as_ref().map_or_else(StratumError::word, |()| "accepted")));
                self.answer(id, verdict);
                self.retarget(now)
            }
            Ok(Call::Subscribe { user_agent }) => self.subscribe(id, &user_agent, now),
            Err(error) => {
                self.answer(id, Err(error));
                Ok(())
            }
        }
    }

    /// Takes a new snapshot; tells the miner if it must know at once.
    ///
    /// # Errors
    /// There is no job for this miner any more.
    pub fn handle_work(&mut self, work: Arc<W>, now: Now) -> Result<(), Disconnect> {
        let changed = self.told.is_some_and(|told| told != work.epochs());
        self.work = work;
        self.generation = 0;
        if changed { self.send_job(now) } else { Ok(()) }
    }

    /// Does what the time demands: closes a dawdling handshake, refreshes a job, lowers the difficulty of a silent miner.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), Disconnect> {
        if !self.is_mining() {
            return if now.instant >= self.poll_timeout() { Err(Disconnect::HandshakeTimeout) } else { Ok(()) };
        }
        self.retarget(now)?;
        if now.instant >= self.notified + self.config.notify_interval { self.send_job(now) } else { Ok(()) }
    }

    fn subscribe_by(&self) -> Instant {
        self.started + self.config.subscribe_timeout
    }

    fn is_mining(&self) -> bool {
        self.subscribed && !self.workers.is_empty()
    }

    fn answer(&mut self, id: Id<'_>, result: Result<(), StratumError>) {
        self.lines.extend(match result {
            Ok(()) => message::success(id, "true"),
            Err(error) => message::failure(id, &error),
        });
    }

    fn subscribe(&mut self, id: Id<'_>, user_agent: &str, now: Now) -> Result<(), Disconnect> {
        const USER_AGENT_CHARACTERS_MAX: usize = 128;
        self.user_agent =
            user_agent.chars().filter(|character| !character.is_control()).take(USER_AGENT_CHARACTERS_MAX).collect();
        let extranonce1 = hex::encode(self.extranonce1.bytes());
        // Both subscriptions, for clients that look for either; miners that resume would quote the second value.
        let result = format!(
            r#"[[["mining.set_difficulty","{extranonce1}"],["mining.notify","{extranonce1}"]],"{extranonce1}",{EXTRANONCE2_SIZE}]"#
        );
        self.lines.extend(message::success(id, &result));
        self.subscribed = true;
        self.start_mining(now)
    }

    fn authorize(&mut self, id: Id<'_>, name: &str, password: &str, now: Now) -> Result<(), Disconnect> {
        let result = self.add_worker(name, password);
        self.events.push_back(Event::Authorized(if result.is_ok() { "authorized" } else { "refused" }));
        self.answer(id, result.map(|_| ()));
        self.start_mining(now)
    }

    /// Sends the first job as soon as it is known where to and for whom.
    fn start_mining(&mut self, now: Now) -> Result<(), Disconnect> {
        if self.is_mining() && self.told.is_none() { self.send_job(now) } else { Ok(()) }
    }

    fn configure(&mut self, id: Id<'_>, extensions: &[String], asked: Option<u32>) {
        let mut result = serde_json::Map::new();
        let mut mask = None;
        // Every name that was asked for is answered, and no other: cgminer logs an error for each extra one.
        for extension in extensions {
            let mut granted = false;
            if extension == "version-rolling" {
                mask = version_rolling::negotiate(asked);
                if let Some(mask) = mask {
                    result.insert("version-rolling.mask".into(), format!("{mask:08x}").into());
                    granted = true;
                }
                self.mask = mask.unwrap_or(0);
            }
            result.insert(extension.clone(), granted.into());
        }
        self.lines.extend(message::success(id, &serde_json::Value::from(result).to_string()));
        self.lines.extend(mask.map(message::set_version_mask));
    }

    /// Authorises `name`, and says which worker it is.
    fn add_worker(&mut self, name: &str, password: &str) -> Result<usize, StratumError> {
        let worker =
            self.work.authorize(name, password).map_err(|refusal| StratumError::Unauthorized(refusal.to_string()))?;
        if let Some(primary) = self.workers.first()
            && primary.payout != worker.payout
        {
            return Err(StratumError::Unauthorized(format!(
                "`{}` is to be paid at {}, but this connection's jobs pay {}: give it a connection of its own",
                shown(name),
                worker.payout,
                primary.payout
            )));
        }
        if let Some(difficulty) = worker.difficulty {
            self.vardiff.fix(difficulty);
        }
        if let Some(index) = self.workers.iter().position(|known| known.name == worker.name) {
            return Ok(index);
        }
        if self.workers.len() == WORKERS_MAX {
            return Err(StratumError::Unauthorized(format!("more than {WORKERS_MAX} workers on one connection")));
        }
        if self.workers.is_empty() {
            self.payee = worker.payout.to_string().into();
        }
        self.workers.push(worker);
        Ok(self.workers.len() - 1)
    }

    /// Whom a submission under `name` is credited to. Proxies submit under names that they never authorised: these count
    /// as authorised if their jobs would be the same.
    fn submitter(&mut self, name: &str) -> Result<Arc<str>, StratumError> {
        if self.workers.is_empty() {
            return Err(StratumError::Unauthorized("send mining.authorize first".into()));
        }
        let known = self.workers.iter().position(|worker| *worker.name == *name);
        let index = match known {
            Some(index) => index,
            None => self.add_worker(name, "")?,
        };
        Ok(self.workers[index].name.clone())
    }

    /// Judges a submission. Checks what costs nothing first, and tells duplicates before anything is passed on; what is
    /// a solution is passed on even if it came too late for the miner to be paid for it.
    fn submit(
        &mut self,
        name: &str,
        job: &str,
        now: Now,
        parse: impl FnOnce(u32) -> Result<Submission, StratumError>,
    ) -> Result<(), StratumError> {
        if !self.subscribed {
            return Err(StratumError::NotSubscribed);
        }
        let worker = self.submitter(name)?;
        let handed_out = self.jobs.find(job).ok_or_else(|| StratumError::JobNotFound(shown(job)))?;
        let submission = parse(self.mask)?;
        let extranonce1 = self.extranonce1.bytes();
        let solved = submission.solve(&handed_out.job, extranonce1, self.mask, now.unix)?;
        if self.duplicates.contains(&solved.hash) {
            return Err(StratumError::Duplicate);
        }
        // Several firmwares apply a lower difficulty at once, not from the next job on: that must not cost them.
        let credited = if handed_out.target.is_met_by(&solved.pow_hash) {
            Some(handed_out.difficulty)
        } else {
            self.announced.filter(|announced| announced.target().is_met_by(&solved.pow_hash))
        };
        let is_solution = handed_out.job.solution_target.is_met_by(&solved.pow_hash);
        if is_solution || credited.is_some() {
            self.duplicates.insert(&solved.hash);
        }
        if is_solution {
            let mut extranonces = [0; 8];
            extranonces[..4].copy_from_slice(&extranonce1);
            extranonces[4..].copy_from_slice(&submission.extranonce2);
            let job = handed_out.job.clone();
            let worker = worker.clone();
            self.events.push_back(Event::Solution(Solution { job, solved, extranonces, worker }));
        }
        let Some(difficulty) = credited else {
            return Err(StratumError::LowDifficulty {
                achieved: format!("{:.6}", crate::difficulty::Target::from_le_bytes(solved.pow_hash).difficulty()),
                required: handed_out.difficulty.to_string(),
            });
        };
        let newest = self.work.epochs();
        let stale = handed_out.epochs.stale != newest.stale;
        let late = handed_out.epochs.drops_for(newest);
        self.events.push_back(Event::Credited(Credit { worker, payee: self.payee.clone(), difficulty, late }));
        self.vardiff.record(difficulty, now.instant);
        if stale { Err(StratumError::Stale(shown(job))) } else { Ok(()) }
    }

    fn retarget(&mut self, now: Now) -> Result<(), Disconnect> {
        let Some(announced) = self.announced else { return Ok(()) };
        // What the current job is capped at is what the next one most likely is, too.
        let ceiling = self
            .jobs
            .newest()
            .map_or(announced, |newest| Difficulty::new(newest.job.solution_target.difficulty()).unwrap_or(announced));
        // A difficulty only ever changes together with a job: devices apply it to the next one they get.
        if self.vardiff.retarget(ceiling, now.instant).is_some() { self.send_job(now) } else { Ok(()) }
    }

    fn send_job(&mut self, now: Now) -> Result<(), Disconnect> {
        let draw = self.random.u32(..);
        let offer = self.work.offer(&self.workers[0].payout, self.generation, draw).map_err(Disconnect::NoWork)?;
        self.generation += 1;
        let epochs = self.work.epochs();
        let wanted = self.vardiff.current();
        // Harder than a solution would lose solutions.
        let ceiling = offer.job.solution_target;
        let (difficulty, target) = match Difficulty::new(ceiling.difficulty()) {
            Some(capped) if wanted.target() < ceiling => (capped, ceiling),
            _ => (wanted, wanted.target()),
        };
        if self.announced != Some(difficulty) {
            self.announced = Some(difficulty);
            self.lines.push_back(message::set_difficulty(difficulty.get() * self.config.difficulty_scale));
        }
        let clean = self.told.is_none_or(|told| told.drops_for(epochs));
        self.lines.push_back(offer.line);
        self.lines.push_back(message::notify_end(clean));
        self.jobs.add(offer.job, difficulty, target, epochs, now.instant);
        self.told = Some(epochs);
        self.notified = now.instant;
        Ok(())
    }
}
