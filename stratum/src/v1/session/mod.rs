//! The state machine of one miner: lines, work and time in; lines and events out. It knows no socket and no clock.

mod config;
mod difficulty;
mod event;
mod handshake;
mod outbox;
mod patience;

pub use config::{Config, DropLateWork};
pub use event::{Disconnect, Event, JobTooBig};

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::device::{self, Device};
use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::extranonce::Lease;
use crate::mining::job::{Job, Jobs, LastRoot};
use crate::mining::judge::{self, Basis, Judgement};
use crate::mining::memory::{Memory, Past};
use crate::mining::solution::{Now, Solution};
use crate::mining::submission::{Solved, Submission, shown};
use crate::mining::tally::{Client, Protocol, Writer};
use crate::mining::vardiff::Vardiff;
use crate::mining::version_rolling;
use crate::mining::work::{Work, Worker};
use crate::v1::message::{self, Call, Id, Request};
use outbox::Outbox;
use patience::{Patience, Remedy};

/// A miner's owner is told something no more often than this.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// A worker under the name that the miner uses for it.
#[derive(Debug)]
struct KnownWorker<P> {
    given: Box<str>,
    worker: Worker<P>,
    account: Writer,
}

/// One miner.
#[derive(Debug)]
pub struct Session<W: Work> {
    config: Arc<Config>,
    memory: Arc<Memory<W::Ticket>>,
    extranonce1: Lease,
    /// What the miner may quote to go on with this session.
    name: u64,
    /// Whom the jobs that an earlier session left pay.
    resumed: Option<Arc<str>>,
    work: Arc<W>,
    /// The epochs of the last job sent; `None` before the first.
    told: Option<Epochs>,
    /// Of the next job out of `work`.
    generation: u32,
    started: Instant,
    notified: Instant,
    /// From one job to the next.
    refresh: Duration,
    subscribed: bool,
    subscribed_to_extranonce: bool,
    /// Antminer S9: it may send whole versions.
    multi_version: bool,
    user_agent: Arc<str>,
    client: Arc<Client>,
    device: &'static Device,
    asked_version: bool,
    warned_of_size: bool,
    /// The first one's payout is the connection's.
    workers: Vec<KnownWorker<W::Payout>>,
    /// That payout, as it shows itself; empty before there is one.
    payee: Arc<str>,
    /// Negotiated version bits; zero before.
    mask: u32,
    /// Whether the mask is still to be told.
    mask_untold: bool,
    jobs: Jobs<W::Ticket>,
    last_root: LastRoot,
    vardiff: Vardiff,
    /// What an earlier session left, or the miner suggested: it wins over what is known of its kind.
    start: Option<Difficulty>,
    /// The difficulty that the miner was last told, and the target that it means.
    announced: Option<(Difficulty, Target)>,
    suggested: Option<Instant>,
    malformed: u32,
    refusals: u32,
    patience: Patience,
    credited: Instant,
    messaged: Option<Instant>,
    transactions_sent: Option<Instant>,
    random: fastrand::Rng,
    outbox: Outbox,
    events: VecDeque<Event<W::Ticket>>,
}

impl<W: Work> Session<W> {
    /// A connection that was just made. `seed` feeds the draws that [`Work::offer`] is given and the session's name;
    /// `memory` is what all sessions of a server share.
    pub fn new(
        config: Arc<Config>,
        memory: Arc<Memory<W::Ticket>>,
        extranonce1: Lease,
        work: Arc<W>,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            vardiff: Vardiff::new(config.vardiff, now.instant),
            patience: Patience::new(&config, now.instant),
            refresh: config.notify_interval,
            config,
            memory,
            extranonce1,
            name: random.u64(..),
            resumed: None,
            work,
            told: None,
            generation: 0,
            started: now.instant,
            notified: now.instant,
            subscribed: false,
            subscribed_to_extranonce: false,
            multi_version: false,
            user_agent: "".into(),
            client: Client::new(Protocol::Stratum, now.instant),
            device: &device::UNKNOWN,
            asked_version: false,
            warned_of_size: false,
            workers: Vec::new(),
            payee: "".into(),
            mask: 0,
            mask_untold: false,
            jobs: Jobs::new(),
            last_root: LastRoot::default(),
            start: None,
            announced: None,
            suggested: None,
            malformed: 0,
            refusals: 0,
            credited: now.instant,
            messaged: None,
            transactions_sent: None,
            random,
            outbox: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    /// Ends the session, and leaves what a later one of the same miner can go on with.
    pub fn close(self, now: Now) {
        let difficulty = self.vardiff.settled();
        if let (Some(worker), Some(difficulty)) = (self.workers.first(), difficulty) {
            self.memory.keep_difficulty(&worker.worker.name, &self.user_agent, difficulty, now.instant);
        }
        if self.has_jobs() {
            let Self { extranonce1, resumed, payee, jobs, .. } = self;
            // An earlier session's jobs that this one did not come to take over are still for the same payee.
            let payee = resumed.unwrap_or(payee);
            let past = Past { extranonce1, payee, jobs: jobs.into_resumable(), difficulty };
            self.memory.keep(self.name, past, now.instant);
        }
    }

    /// Whether there is a job that a submission may be for.
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Longest line to accept now.
    pub fn line_bytes_max(&self) -> usize {
        if self.workers.is_empty() { self.config.line_bytes_max_before_authorize } else { self.config.line_bytes_max }
    }

    /// What the miner calls itself; empty until it says.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    /// What kind of device that means.
    pub fn device(&self) -> &'static Device {
        self.device
    }

    /// The name of the first worker, once there is one.
    pub fn worker(&self) -> Option<&Arc<str>> {
        self.workers.first().map(|known| &known.worker.name)
    }

    /// The next bytes to send, in order: a shared piece of a job, or all answers in a row.
    pub fn poll_line(&mut self) -> Option<Bytes> {
        self.outbox.poll()
    }

    /// Bytes that [`Self::poll_line`] has for whoever asks.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.bytes()
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
        let mut next = self.notified + self.refresh;
        if let Some(idle_timeout) = self.config.idle_timeout {
            next = next.min(self.credited + idle_timeout);
        }
        self.vardiff.deadline().map_or(next, |vardiff| vardiff.min(next))
    }

    /// Handles one line without its line end.
    ///
    /// # Errors
    /// The connection is to be closed, after sending what is still to be sent.
    pub fn handle_line(&mut self, line: &[u8], now: Now) -> Result<(), Disconnect> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return self.patience.spend(&self.config, now.instant);
        }
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(error) => {
                self.malformed += 1;
                self.outbox.refuse(Id::NULL, &error);
                return if self.malformed < self.config.malformed_lines_max {
                    self.patience.spend(&self.config, now.instant)
                } else {
                    Err(Disconnect::Malformed(error))
                };
            }
        };
        let id = request.id;
        match request.call {
            Ok(Call::Submit { name, job, extranonce2, time, nonce, version_bits }) => {
                let is_credited = self.judge(id, &name, &job, now, |mask, lenient| {
                    Submission::parse(&extranonce2, &time, &nonce, version_bits.as_deref(), mask, lenient)
                });
                if is_credited { self.retarget(now) } else { self.tolerate(now) }
            }
            Ok(call) => {
                self.patience.spend(&self.config, now.instant)?;
                self.handle_call(id, call, now)
            }
            Err(error) => {
                self.events.push_back(Event::NotUnderstood(error.to_string().into()));
                self.outbox.refuse(id, &error);
                self.patience.spend(&self.config, now.instant)
            }
        }
    }

    /// Handles a line that was under way when it was decided to close the connection: a submission is judged and answered as
    /// ever, and nothing else is done any more. Returns whether the line earned anything; the caller bounds those that do not.
    pub fn handle_last_line(&mut self, line: &[u8], now: Now) -> bool {
        let Ok(Request { id, call: Ok(Call::Submit { name, job, extranonce2, time, nonce, version_bits }) }) =
            Request::parse(line)
        else {
            return false;
        };
        self.judge(id, &name, &job, now, |mask, lenient| {
            Submission::parse(&extranonce2, &time, &nonce, version_bits.as_deref(), mask, lenient)
        })
    }

    /// Judges a submission and answers it. Returns whether it was credited.
    fn judge(
        &mut self,
        id: Id<'_>,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> bool {
        let (credit, result) = match self.submit(name, job, now, parse) {
            Ok(Judgement { verdict, credit, .. }) => (credit, verdict.answer(|| shown(job))),
            Err(error) => (None, Err(error)),
        };
        let word = result.as_ref().map_or_else(StratumError::word, |()| "accepted");
        self.events.push_back(Event::Judged { verdict: word, credit });
        if credit.is_none()
            && let Some(known) = self.workers.iter_mut().find(|known| *known.given == *name)
        {
            known.account.refuse(word, now.instant);
        }
        self.outbox.answer(id, result);
        credit.is_some()
    }

    fn handle_call(&mut self, id: Id<'_>, call: Call<'_>, now: Now) -> Result<(), Disconnect> {
        match call {
            Call::Answer { text } => {
                if let Some(text) =
                    text.filter(|text| self.asked_version && self.user_agent.is_empty() && *text != "pong")
                {
                    self.is_called(&text);
                }
                Ok(())
            }
            Call::Authorize { name, password } => self.authorize(id, &name, &password, now),
            Call::Configure(asked) => {
                self.configure(id, &asked);
                Ok(())
            }
            Call::GetTransactions { job } => {
                self.send_transactions(id, &job, now);
                Ok(())
            }
            Call::GetVersion => {
                self.outbox.grant(id, concat!("\"p2pool-stratum/", env!("CARGO_PKG_VERSION"), "\""));
                Ok(())
            }
            Call::MultiVersion => {
                self.multi_version = true;
                self.outbox.grant(id, "true");
                Ok(())
            }
            Call::Ping => {
                self.outbox.grant(id, "\"pong\"");
                Ok(())
            }
            Call::Submit { .. } => unreachable!("handled before"),
            Call::Subscribe { user_agent, session } => self.subscribe(id, &user_agent, session.as_deref(), now),
            Call::SubscribeExtranonce => {
                self.subscribed_to_extranonce = true;
                self.outbox.grant(id, "true");
                Ok(())
            }
            Call::SuggestDifficulty(number) => {
                self.suggest(id, Difficulty::new(number / self.config.difficulty_scale), now)
            }
            Call::SuggestTarget(target) => self.suggest(id, Difficulty::new(target.difficulty()), now),
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
        if self.config.idle_timeout.is_some_and(|idle_timeout| now.instant >= self.credited + idle_timeout) {
            return Err(Disconnect::Idle);
        }
        self.retarget(now)?;
        if now.instant >= self.notified + self.refresh { self.send_job(now) } else { Ok(()) }
    }

    /// Gives the miner another extranonce1, if it has asked to be told: for a server that hands its miners on. Says
    /// whether it could be done; if not, the lease is lost.
    ///
    /// # Errors
    /// There is no job for this miner any more.
    pub fn change_extranonce1(&mut self, extranonce1: Lease, now: Now) -> Result<bool, Disconnect> {
        if !self.subscribed_to_extranonce || !self.is_mining() {
            return Ok(false);
        }
        // Holds from the next job on, which therefore comes directly behind.
        self.outbox.push(message::set_extranonce(extranonce1.bytes()));
        self.extranonce1 = extranonce1;
        self.send_job(now).map(|()| true)
    }

    /// Shows the miner's owner a message, if the device can and was not shown another one lately.
    pub fn show_message(&mut self, text: &str, now: Now) {
        let lately = self.messaged.is_some_and(|at| now.instant.saturating_duration_since(at) < MESSAGE_INTERVAL);
        if self.device.shows_messages && self.is_mining() && !lately {
            self.messaged = Some(now.instant);
            self.outbox.push(message::show_message(text));
        }
    }

    /// Tells the miner to connect anew: the server is going, and may be back.
    pub fn reconnect(&mut self) {
        if self.told.is_some() {
            self.outbox.push(message::reconnect());
        }
    }

    fn subscribe_by(&self) -> Instant {
        self.started + self.config.subscribe_timeout
    }

    fn is_mining(&self) -> bool {
        self.subscribed && !self.workers.is_empty()
    }

    fn send_transactions(&mut self, id: Id<'_>, job: &str, now: Now) {
        let seconds = self.config.transactions_interval.as_secs();
        let lately = self
            .transactions_sent
            .is_some_and(|at| now.instant.saturating_duration_since(at) < self.config.transactions_interval);
        let result = if lately {
            Err(StratumError::TooOften { method: "mining.get_transactions", seconds })
        } else {
            let found = self.jobs.find(job).ok_or_else(|| StratumError::JobNotFound(shown(job)));
            found.and_then(|index| {
                let transactions = self.work.transactions(self.jobs.at(index).job.ticket());
                transactions
                    .filter(|list| list.len() <= self.config.transactions_bytes_max)
                    .ok_or(StratumError::Unavailable("transactions are not given out here"))
            })
        };
        match result {
            Ok(list) => {
                self.transactions_sent = Some(now.instant);
                // The list is shared with whoever else asks; only what is around it is this connection's own.
                if let Some((head, tail)) = message::success_around(id) {
                    self.outbox.push(head);
                    self.outbox.push(list);
                    self.outbox.push(tail);
                }
            }
            Err(error) => self.outbox.refuse(id, &error),
        }
    }

    /// Judges a submission by its job. Checks what costs nothing first. A solution is passed on even if it earns the miner
    /// nothing: because it came too late, or because its name, time or version bits are refused.
    fn submit(
        &mut self,
        name: &str,
        job: &str,
        now: Now,
        parse: impl Fn(u32, bool) -> Result<Submission, StratumError>,
    ) -> Result<Judgement, StratumError> {
        if !self.subscribed {
            return Err(StratumError::NotSubscribed);
        }
        let worker = self.submitter(name);
        let Some(index) = self.jobs.find(job) else {
            worker?;
            return Err(StratumError::JobNotFound(shown(job)));
        };
        let handed_out = self.jobs.at(index);
        let mut mask = self.mask;
        let mut submission = match parse(mask, self.config.lenient) {
            Ok(submission) => submission,
            Err(error) => {
                if let Ok(understood) = parse(mask, true) {
                    self.pass_on_refused(index, &understood, now.instant);
                }
                worker?;
                return Err(error);
            }
        };
        if self.multi_version
            && mask == 0
            && let Some(full) = submission.version_bits
            && let Some(bits) = version_rolling::bits_of_version(handed_out.job.version, full)
        {
            submission.version_bits = Some(bits);
            mask = version_rolling::VERSION_MASK & self.config.version_mask;
        }
        let extranonce1 = handed_out.extranonce1;
        let solved = submission.solve(&handed_out.job, extranonce1, mask, now.unix, &mut self.last_root);
        let (worker, solved) = match (worker, solved) {
            (Ok(worker), Ok(solved)) if !handed_out.pays_other => (worker, solved),
            (worker, solved) => {
                let pays_other = handed_out.pays_other;
                self.pass_on_refused(index, &submission, now.instant);
                worker?;
                if !pays_other {
                    solved?;
                }
                return Err(StratumError::JobNotFound(shown(job)));
            }
        };
        let basis = Basis {
            solution_target: handed_out.job.solution_target,
            required: handed_out.difficulty,
            credited: self.worth(handed_out, &solved),
            epochs: handed_out.epochs,
            newest: self.work.epochs(),
            is_fee: handed_out.is_fee,
        };
        let judgement = judge::judge(&solved, &basis, &mut self.jobs.seen(index));
        if judgement.is_solution {
            let extranonces = submission.extranonces(extranonce1);
            let worker = self.workers[worker].worker.name.clone();
            self.pass_on(index, solved, extranonces, worker, now.instant);
        }
        if let Some(credit) = &judgement.credit {
            self.workers[worker].account.credit(credit, now.instant);
            self.vardiff.record(credit.difficulty, now.instant);
            self.patience.restore();
            self.credited = now.instant;
        }
        Ok(judgement)
    }

    fn pass_on(&mut self, index: usize, solved: Solved, extranonces: [u8; 8], worker: Arc<str>, judged: Instant) {
        let job = self.jobs.at(index).job.clone();
        self.events.push_back(Event::Solution(Box::new(Solution { job, solved, extranonces, worker, judged })));
    }

    /// Passes on a submission for the job at `index` that is refused for something else than its hash, if it is a solution.
    fn pass_on_refused(&mut self, index: usize, submission: &Submission, judged: Instant) {
        let handed_out = self.jobs.at(index);
        let extranonce1 = handed_out.extranonce1;
        let solved = submission.solution_although_refused(&handed_out.job, extranonce1, &mut self.last_root);
        let target = handed_out.job.solution_target;
        let salvaged = solved.and_then(|solved| judge::salvage(solved, target, &mut self.jobs.seen(index)));
        let Some(solved) = salvaged else { return };
        let extranonces = submission.extranonces(extranonce1);
        // Never a name that was refused: nothing is known of what is in it.
        let worker = match self.workers.first() {
            Some(first) => first.worker.name.clone(),
            None => self.resumed.as_ref().unwrap_or(&self.payee).clone(),
        };
        self.pass_on(index, solved, extranonces, worker, judged);
    }

    fn tolerate(&mut self, now: Now) -> Result<(), Disconnect> {
        match self.patience.tolerate(&self.config, self.is_mining(), now.instant)? {
            Some(Remedy::SendJob) => self.send_job(now)?,
            Some(Remedy::Reconnect) => self.reconnect(),
            None => {}
        }
        Ok(())
    }

    fn send_job(&mut self, now: Now) -> Result<(), Disconnect> {
        let draw = self.random.u32(..);
        let payout = &self.workers[0].worker.payout;
        let offer = self.work.offer(payout, self.generation, draw).map_err(Disconnect::NoWork)?;
        self.generation += 1;
        let too_big = self.measure(&offer.job);
        if too_big.is_some() && self.config.refuse_small_devices {
            return Err(Disconnect::SmallDevice);
        }
        let epochs = self.work.epochs();
        let wanted = self.vardiff.current();
        // Harder than a solution would lose solutions.
        let ceiling = offer.job.solution_target;
        let (difficulty, target) = match offer.job.solution_difficulty {
            Some(capped) if wanted.target() < ceiling => (capped, ceiling),
            _ => (wanted, wanted.target()),
        };
        // cgminer queues difficulties and applies one with each job: so never two before one.
        if self.announced.is_none_or(|(announced, _)| announced != difficulty) {
            self.outbox.push(message::set_difficulty(difficulty.get() * self.config.difficulty_scale));
        }
        self.announced = Some((difficulty, target));
        self.client.is_told(difficulty);
        let is_late = self.told.is_some_and(|told| told.drops_for(epochs));
        let clean = match self.config.drop_late_work {
            _ if self.told.is_none_or(|told| told.stale != epochs.stale) => true,
            DropLateWork::Always => is_late,
            DropLateWork::Never => false,
            DropLateWork::ByDevice => is_late && !self.device.flushes_slowly,
        };
        self.outbox.push(offer.line);
        self.outbox.push(message::notify_end(clean));
        self.jobs.add(offer.job, offer.is_fee, difficulty, epochs, self.extranonce1.bytes(), now.instant);
        self.told = Some(epochs);
        self.notified = now.instant;
        self.refresh = self.config.notify_interval.mul_f64(1.0 - 0.2 * self.random.f64());
        if let Some(too_big) = too_big {
            self.show_message(&too_big.to_string(), now);
            self.events.push_back(Event::JobTooBig(too_big));
        }
        Ok(())
    }

    /// Whether the job is too big for the device, when that is found for the first time.
    fn measure(&mut self, job: &Job<W::Ticket>) -> Option<Box<JobTooBig>> {
        let coinbase_bytes_max = self.device.room.coinbase_bytes_max(job.branch.len())?;
        let coinbase_bytes = job.coinbase_bytes();
        if self.warned_of_size || coinbase_bytes <= coinbase_bytes_max {
            return None;
        }
        self.warned_of_size = true;
        Some(Box::new(JobTooBig {
            worker: self.workers[0].worker.name.clone(),
            device: self.device.name,
            user_agent: self.user_agent.to_string(),
            coinbase_bytes,
            coinbase_bytes_max,
        }))
    }
}
