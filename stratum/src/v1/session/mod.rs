//! The state machine of one miner: lines, work and time in; lines and events out. It knows no socket and no clock.

mod config;
mod difficulty;
mod event;
mod handshake;
mod jobs;
mod outbox;
mod patience;
mod submissions;

pub use config::{Config, DropLateWork};
pub use event::{Disconnect, Event, JobTooBig};

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::device::{self, Device};
use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::epochs::Epochs;
use crate::mining::extranonce::Lease;
use crate::mining::job::{Jobs, LastRoot};
use crate::mining::memory::{Memory, Past};
use crate::mining::solution::Now;
use crate::mining::submission::Submission;
use crate::mining::tally::{Client, Protocol, Writer};
use crate::mining::vardiff::Vardiff;
use crate::mining::work::{Work, Worker};
use crate::v1::message::{self, Call, Id, Request};
use outbox::Outbox;
use patience::Patience;

/// A miner's owner is told something no more often than this.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// A worker under the name that the miner uses for it.
#[derive(Debug)]
struct KnownWorker<P> {
    given: Box<str>,
    worker: Worker<P>,
    account: Writer,
}

/// One miner, from its connection's first line to its last. It does no I/O and reads no clock: a driver carries lines,
/// work and time in, and lines and events out.
///
/// # Driving it
///
/// After each call of `handle_line`, `handle_work` or `handle_timeout`, whatever it returned, the driver
///
/// 1. takes **all events** from [`Self::poll_event`] and acts on them, then
/// 2. takes **all bytes** from [`Self::poll_line`] and writes them in this order, and then
/// 3. asks [`Self::poll_timeout`] by when to call [`Self::handle_timeout`]. Earlier calls do no harm. Any call may move it.
///
/// Between the calls:
///
/// - **An event is acted upon before the answer of the same line is written.** A [`Solution`](crate::Solution) is with the
///   node by then, and no longer lost with the connection. A driver that has to wait there, since the node is behind, waits:
///   it neither drops the event nor writes the answer.
/// - Lines are handled in the order in which they came; several may be handled before their answers are written, as long as
///   their events are acted upon one line after the other. A line may be as long as [`Self::line_bytes_max`], which changes
///   when the miner authorises.
/// - Lines are handled only as fast as answers are written: [`Self::queued_bytes`] has no bound of its own but what the
///   driver hands in.
/// - [`Self::handle_work`] is called with the newest work only, once everything before it is written. So a slow reader gets
///   the newest job next, and those between are never made.
/// - `Err(Disconnect)` means that nothing but [`Self::handle_last_line`] is called any more: for lines that were under way
///   when the driver decided to close, the solution of a block perhaps. Their events and answers are treated as ever; the
///   driver bounds how many it hears. What is queued is written if the miner takes it, and then the connection is closed.
/// - [`Self::close`] is called last, so that the miner can go on with its jobs on its next connection.
///
/// The driver of this crate is `server::connection`.
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
}
