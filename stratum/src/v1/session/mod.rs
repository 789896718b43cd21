//! State machine of one miner: lines, work and time in; lines and events out. It does no I/O and reads no clock.

mod config;
mod credentials;
mod difficulty;
mod event;
mod handshake;
mod in_flight;
mod jobs;
mod merged;
mod outbox;
mod patience;
mod receipt;
mod submissions;

pub use config::{Config, DropLateWork};
pub use event::{Credentials, Disconnect, Event, HashRequest, JobTooBig};
pub use in_flight::{HASHES_PER_LINE_MAX, IN_FLIGHT_MAX};

use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mining::device::{self, Device};
use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::epochs::Epochs;
use crate::mining::extranonce::Lease;
use crate::mining::job::LastRoot;
use crate::mining::jobs::Jobs;
use crate::mining::memory::{Memory, Past, Settled};
use crate::mining::pow_budget::Earned;
use crate::mining::solution::Now;
use crate::mining::source::Source;
use crate::mining::submission::Submission;
use crate::mining::tally::{Client, Protocol, Writer};
use crate::mining::vardiff::Vardiff;
use crate::mining::work::{Work, Worker};
use crate::printable::Printable;
use crate::v1::message::{self, Call, Id, Request};
use credentials::Claim;
use in_flight::InFlight;
use outbox::Outbox;
use patience::Patience;
use submissions::Submitted;

/// Minimum time between two messages to a miner's owner.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// A worker, with the name that the miner uses for it.
#[derive(Debug)]
struct KnownWorker<P> {
    given: Box<str>,
    worker: Worker<P>,
    account: Writer,
}

impl<P: fmt::Display> KnownWorker<P> {
    /// Payout, shown in full: two that differ are shown differently.
    fn payout(&self) -> Arc<str> {
        format!("{:#}", self.worker.payout).into()
    }
}

/// One miner, from its connection's first line to its last. A driver passes lines, work and time in, and lines and
/// events out.
///
/// # Driving it
///
/// After each call of `handle_line`, `handle_work`, `handle_timeout`, `handle_credentials` or `handle_hash`, whatever it
/// returned, the driver
///
/// 1. takes **all events** from [`Self::poll_event`] and acts on them, then
/// 2. takes **all bytes** from [`Self::poll_line`] and writes them in this order, and then
/// 3. asks [`Self::poll_timeout`] when to call [`Self::handle_timeout`]. Earlier calls are harmless; any may move it.
///
/// Between the calls:
///
/// - **An event is processed before the answer of the same line is written.** The node then has the
///   [`Solution`](crate::Solution), and it cannot be lost with the connection. If the node is behind, the driver waits:
///   it neither drops the event nor writes the answer.
/// - Lines are handled in the order in which they came; several may be handled before their answers are written, as
///   long as the events of each line are processed before the next. Lines are limited to [`Self::line_bytes_max`],
///   which changes when the miner authorises.
/// - Lines are handled only as fast as answers are written: [`Self::queued_bytes`] is bounded only by the driver's
///   input.
/// - While [`Self::is_waiting_for_check`], lines wait, too: an answer in a handshake comes before those to later
///   requests. Work and timeouts are handled as usual.
/// - Where proof of work is costly, [`Event::Hash`] asks for it. The driver computes it elsewhere, so that lines of this
///   and other connections are handled meanwhile, and passes it to [`Self::handle_hash`], in any order. A submission is
///   judged as of its receipt: by the newest work, the difficulty and the time then. While
///   [`Self::is_waiting_for_hashes`], lines wait.
/// - [`Self::handle_work`] is called with the newest work only, once everything before it is written. So a slow reader
///   gets the newest job next, and those in between are never made.
/// - After `Err(Disconnect)` only [`Self::handle_last_line`] is called: for lines that were in flight when the driver
///   decided to close, perhaps with a block. Their events and answers are processed as usual; the driver limits their
///   number. Hashes that are awaited are passed to [`Self::handle_last_hash`]: one may be a block. Queued output is written
///   if the miner reads it, and then the connection is closed.
/// - [`Self::close`] is called last, so that the miner can resume its jobs on its next connection.
///
/// The driver of this crate is `server::connection`.
#[derive(Debug)]
pub struct Session<W: Work> {
    config: Arc<Config>,
    memory: Arc<Memory<W::Ticket>>,
    extranonce1: Lease,
    /// Network of the miner, among which budgets are shared out; `None` for no such limits.
    source: Option<Source>,
    /// Costly hashes that the miner has earned.
    earned: Earned,
    /// Id that the miner may quote to resume this session.
    name: u64,
    /// Payout of the jobs left by an earlier session, as shown in full.
    resumed: Option<Arc<str>>,
    work: Arc<W>,
    /// Epochs of the last job sent; `None` before the first.
    told: Option<Epochs>,
    /// Generation of the next job from `work`.
    generation: u32,
    started: Instant,
    notified: Instant,
    /// Time from one job to the next.
    refresh: Duration,
    subscribed: bool,
    subscribed_to_extranonce: bool,
    /// Antminer S9: submissions may have whole versions.
    multi_version: bool,
    user_agent: Printable,
    client: Arc<Client>,
    device: &'static Device,
    asked_version: bool,
    warned_of_size: bool,
    /// The payout of the first worker applies to the connection.
    workers: Vec<KnownWorker<W::Payout>>,
    /// That payout, as displayed; empty before there is one.
    payee: Arc<str>,
    /// Addresses on merged chains, by chain number, that the miner set for the connection.
    merged_addresses: Box<[(u32, Box<str>)]>,
    /// Time of the last job sent for such a change.
    remerged: Option<Instant>,
    /// Requests to authorise whose credentials are being checked, oldest first.
    claims: VecDeque<Claim>,
    /// Negotiated version bits; zero without.
    mask: u32,
    /// Set while the mask has not been sent yet.
    mask_untold: bool,
    jobs: Jobs<W::Ticket>,
    /// Submissions whose proof of work is awaited; always empty where that is cheap.
    in_flight: InFlight<W::Ticket>,
    last_root: LastRoot,
    vardiff: Vardiff,
    /// Difficulty left by an earlier session or suggested by the miner: takes precedence over that of the device.
    start: Option<Difficulty>,
    /// Difficulty last sent to the miner, and its target.
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
    /// Creates the session of a new connection. `seed` is for the draws passed to [`Work::offer`] and the session's id,
    /// so each session needs another; `memory` is shared by all sessions of a server.
    pub fn new(
        config: Arc<Config>,
        memory: Arc<Memory<W::Ticket>>,
        extranonce1: Lease,
        work: Arc<W>,
        seed: u64,
        now: Now,
    ) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let name = memory.session_id(seed);
        Self {
            vardiff: Vardiff::new(config.vardiff, now.instant),
            patience: Patience::new(&config, now.instant),
            refresh: config.notify_interval,
            config,
            memory,
            extranonce1,
            source: None,
            earned: Earned::default(),
            name,
            resumed: None,
            work,
            told: None,
            generation: 0,
            started: now.instant,
            notified: now.instant,
            subscribed: false,
            subscribed_to_extranonce: false,
            multi_version: false,
            user_agent: Printable::default(),
            client: Client::new(Protocol::Stratum, now.instant),
            device: &device::UNKNOWN,
            asked_version: false,
            warned_of_size: false,
            workers: Vec::new(),
            payee: "".into(),
            merged_addresses: Box::default(),
            remerged: None,
            claims: VecDeque::new(),
            mask: 0,
            mask_untold: false,
            jobs: Jobs::new(),
            in_flight: InFlight::new(),
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

    /// Limits what the session may cost by the network of its miner's `address`: submissions that are worth nothing where
    /// proof of work is costly, and what is remembered of it after its end.
    #[must_use]
    pub fn with_address(self, address: IpAddr) -> Self {
        Self { source: Some(Source::of(address)), ..self }
    }

    /// Ends the session and remembers the state with which the miner can resume it.
    pub fn close(self, now: Now) {
        let difficulty = self.vardiff.settled();
        if let (Some(worker), Some(difficulty)) = (self.workers.first(), difficulty) {
            let name = &worker.worker.name;
            let miner = Settled { source: self.source, name, user_agent: &self.user_agent };
            self.memory.keep_difficulty(miner, difficulty, now.instant);
        }
        if self.has_jobs() {
            let payout = self.workers.first().map(KnownWorker::payout);
            let Self { extranonce1, resumed, jobs, source, .. } = self;
            // Jobs of an earlier session that this one never took over still pay the same payout.
            let payout = resumed.or(payout).unwrap_or_default();
            let past = Past { extranonce1, payout, jobs: jobs.into_resumable(), difficulty, source };
            self.memory.keep(self.name, past, now.instant);
        }
    }

    /// Id that the miner may quote to resume this session.
    pub fn id(&self) -> u64 {
        self.name
    }

    /// True if there is a job that a submission may be for.
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Maximum length of the next line, in bytes.
    pub fn line_bytes_max(&self) -> usize {
        if self.workers.is_empty() { self.config.line_bytes_max_before_authorize } else { self.config.line_bytes_max }
    }

    /// User agent of the miner; empty until sent.
    pub fn user_agent(&self) -> &str {
        &self.user_agent
    }

    /// Kind of device, by user agent.
    pub fn device(&self) -> &'static Device {
        self.device
    }

    /// Name of the first worker; `None` before one is authorised.
    pub fn worker(&self) -> Option<&Printable> {
        self.workers.first().map(|known| &known.worker.name)
    }

    /// Returns the next bytes to send, in order: a shared piece of a job, or all answers in a row.
    pub fn poll_line(&mut self) -> Option<Bytes> {
        self.outbox.poll()
    }

    /// Number of bytes that [`Self::poll_line`] has left.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<W::Ticket>> {
        self.events.pop_front()
    }

    /// Time at which to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        if !self.is_mining() {
            let authorize_by = self.started + self.config.authorize_timeout;
            // A miner that authorises first may have subscribed in a line that waits.
            let may_have_subscribed = self.subscribed || self.is_waiting_for_check();
            return if may_have_subscribed { authorize_by } else { authorize_by.min(self.subscribe_by()) };
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
    /// The connection is to be closed, after the queued output is sent.
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
                let submitted = self.judge(id, &name, &job, now, |mask, lenient| {
                    Submission::parse(&extranonce2, &time, &nonce, version_bits.as_deref(), mask, lenient)
                });
                match submitted {
                    Submitted::Credited => self.retarget(now),
                    Submitted::Useless => self.tolerate(now),
                    Submitted::InFlight => Ok(()),
                }
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

    /// Handles a line that was in flight when the driver decided to close: submissions are judged as usual, other
    /// requests ignored. Returns true if the line earned anything, or may do so once its proof of work has come; the
    /// caller limits those that do not.
    pub fn handle_last_line(&mut self, line: &[u8], now: Now) -> bool {
        let Ok(Request { id, call: Ok(Call::Submit { name, job, extranonce2, time, nonce, version_bits }) }) =
            Request::parse(line)
        else {
            return false;
        };
        let submitted = self.judge(id, &name, &job, now, |mask, lenient| {
            Submission::parse(&extranonce2, &time, &nonce, version_bits.as_deref(), mask, lenient)
        });
        submitted != Submitted::Useless
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
            Call::SetMergedAddresses(addresses) => self.set_merged_addresses(id, addresses, now),
            Call::Submit { .. } => unreachable!("handled before"),
            Call::Subscribe { user_agent, session } => self.subscribe(id, &user_agent, session.as_deref(), now),
            Call::SubscribeExtranonce => {
                self.subscribed_to_extranonce = true;
                self.outbox.grant(id, "true");
                Ok(())
            }
            Call::SuggestDifficulty(number) => self.suggest(id, self.config.difficulty_scale.read(number), now),
            Call::SuggestTarget(target) => self.suggest(id, Difficulty::new(target.difficulty()), now),
        }
    }

    /// Takes a new snapshot; sends a job at once if it is urgent.
    ///
    /// # Errors
    /// There is no job for this miner any more.
    pub fn handle_work(&mut self, work: Arc<W>, now: Now) -> Result<(), Disconnect> {
        let changed = self.told.is_some_and(|told| told != work.epochs());
        self.work = work;
        self.generation = 0;
        if changed { self.send_job(now) } else { Ok(()) }
    }

    /// Handles elapsed deadlines: ends a slow handshake, refreshes a job, lowers the difficulty of a silent miner.
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

    /// Gives the miner another extranonce1, if it has subscribed to changes: for a server that hands its miners on.
    /// Returns false, and drops the lease, if it has not.
    ///
    /// # Errors
    /// There is no job for this miner any more.
    pub fn change_extranonce1(&mut self, extranonce1: Lease, now: Now) -> Result<bool, Disconnect> {
        if !self.subscribed_to_extranonce || !self.is_mining() {
            return Ok(false);
        }
        // Applies from the next job on, which is therefore sent directly after it.
        self.outbox.push(message::set_extranonce(extranonce1.bytes()));
        self.extranonce1 = extranonce1;
        self.send_job(now).map(|()| true)
    }

    /// Shows a message to the miner's owner, if the device supports it and was not shown another one lately.
    pub fn show_message(&mut self, text: &str, now: Now) {
        let lately = self.messaged.is_some_and(|at| now.instant.saturating_duration_since(at) < MESSAGE_INTERVAL);
        if self.device.shows_messages && self.is_mining() && !lately {
            self.messaged = Some(now.instant);
            self.outbox.push(message::show_message(text));
        }
    }

    /// Asks the miner to reconnect: the server is stopping, perhaps for a restart.
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
