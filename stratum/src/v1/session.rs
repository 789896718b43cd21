//! The state machine of one miner: lines, work and time in; lines and events out. It knows no socket and no clock.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

use crate::mining::device::{self, Device};
use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::epochs::Epochs;
use crate::mining::error::StratumError;
use crate::mining::extranonce::{EXTRANONCE2_SIZE, Lease};
use crate::mining::job::{HandedOut, Job, Jobs, LastRoot};
use crate::mining::judge::{self, Basis, Judgement};
use crate::mining::memory::{Memory, Past};
use crate::mining::submission::{Solved, Submission, shown};
use crate::mining::tally::{Client, Credit, Protocol, Tally, Writer};
use crate::mining::vardiff::{self, Vardiff};
use crate::mining::version_rolling;
use crate::mining::work::{Refusal, Work, Worker};
use crate::v1::line::{LINE_BYTES_MAX, LINE_BYTES_MAX_BEFORE_AUTHORIZE};
use crate::v1::message::{self, Call, Configure, Id, Request};

/// Submissions in a row that are no proof of work before anything is done about a miner.
const INVALID_SUBMISSIONS: u32 = 8;

/// A miner's owner is told something no more often than this.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(60);

/// A suggestion makes a job of its own no more often than this; else it holds from the next one on.
const SUGGESTION_INTERVAL: Duration = Duration::from_secs(10);

/// When work that is worth less than the newest is to be dropped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropLateWork {
    /// Where that costs the device little.
    #[default]
    ByDevice,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How a session behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// How difficulty is chosen.
    pub vardiff: vardiff::Config,
    /// Whether devices known by their user agent start at what suits them: their numbers are SHA-256 devices'.
    pub known_devices: bool,
    /// How long a connection may take to subscribe.
    pub subscribe_timeout: Duration,
    /// How long a connection may take to authorise.
    pub authorize_timeout: Duration,
    /// How long a miner may go without a good submission; `None` for as long as it likes, since the slowest do.
    pub idle_timeout: Option<Duration>,
    /// A job is sent at least this often: cgminer gives a silent pool up after 90 s, and the newest transactions are
    /// worth having. Each connection shortens it by up to a fifth, so that they do not all come at once.
    pub notify_interval: Duration,
    /// What difficulties told to miners are multiplied by: 1, and 65,536 for scrypt, where the field counts so.
    pub difficulty_scale: f64,
    /// Version bits that miners may roll, among those of [`version_rolling::VERSION_MASK`]; zero for none.
    pub version_mask: u32,
    /// Whether digits that firmware left out or added are understood.
    pub lenient: bool,
    /// When work that is worth less than the newest is to be dropped.
    pub drop_late_work: DropLateWork,
    /// Whether devices whose buffers are too small for the job are sent away; else they are only warned of.
    pub refuse_small_devices: bool,
    /// Worker names on one connection: a proxy's rigs. What comes under further names is put to the first one's account.
    pub workers_max: usize,
    /// Longest line taken from a miner that has authorised, in bytes.
    pub line_bytes_max: usize,
    /// Longest line taken before that: no handshake message needs more, and strangers get less room.
    pub line_bytes_max_before_authorize: usize,
    /// Lines that are no request before the connection is closed: some firmware sends one odd line, strangers send many.
    pub malformed_lines_max: u32,
    /// Refusals to authorise before the connection is closed: an owner who mistyped an address sees the reason by then.
    pub refused_names_max: u32,
    /// A miner whose submissions have all been invalid for so long gets a new job; for twice as long, it is told to
    /// reconnect; for three times as long, it is sent away.
    pub invalid_period: Duration,
    /// Lines that earn nothing, at a time: a proxy's workers, a stumbling device's invalid submissions.
    pub useless_lines_max: f64,
    /// How many of them a second a connection may send for long.
    pub useless_lines_per_second: f64,
    /// How often a connection may have a job's transactions, which are megabytes.
    pub transactions_interval: Duration,
    /// Most that a list of transactions may take: a full block in hex.
    pub transactions_bytes_max: usize,
}

impl Default for Config {
    /// The numbers that the field has settled on (the checklist names their sources).
    fn default() -> Self {
        let difficulty = |value| Difficulty::new(value).expect("a positive constant");
        Self {
            vardiff: vardiff::Config {
                interval: Duration::from_secs(3),
                start: difficulty(1024.0),
                // An ESP32 finds one of these in a second or two.
                min: difficulty(1e-5),
                // Ten exahashes a second on one connection.
                max: difficulty(1e10),
            },
            known_devices: true,
            subscribe_timeout: Duration::from_secs(15),
            authorize_timeout: Duration::from_secs(60),
            idle_timeout: None,
            notify_interval: Duration::from_secs(30),
            difficulty_scale: 1.0,
            version_mask: version_rolling::VERSION_MASK,
            lenient: true,
            drop_late_work: DropLateWork::ByDevice,
            refuse_small_devices: false,
            workers_max: 64,
            line_bytes_max: LINE_BYTES_MAX,
            line_bytes_max_before_authorize: LINE_BYTES_MAX_BEFORE_AUTHORIZE,
            malformed_lines_max: 3,
            refused_names_max: 16,
            invalid_period: Duration::from_secs(60),
            useless_lines_max: 256.0,
            useless_lines_per_second: 10.0,
            transactions_interval: Duration::from_secs(600),
            transactions_bytes_max: 8 * 1024 * 1024,
        }
    }
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
    #[error("too many malformed lines, the last one {0}")]
    Malformed(StratumError),
    /// It did not subscribe or authorise in time.
    #[error("handshake not finished in time")]
    HandshakeTimeout,
    /// There is no work for it.
    #[error("no work: {0}")]
    NoWork(Refusal),
    /// It sent too many lines that earn nothing.
    #[error("a flood of lines that earn nothing")]
    Flood,
    /// Its submissions have been invalid for minutes.
    #[error("nothing but invalid submissions")]
    Invalid,
    /// It tried too many names that cannot be paid.
    #[error("too many names were refused")]
    Refused,
    /// It has not submitted anything good for too long.
    #[error("no submission for too long")]
    Idle,
    /// Its buffers are too small for the job, and it would crash or mine nothing.
    #[error("a device that cannot hold the job")]
    SmallDevice,
}

/// What happened on a session, for others to act on.
#[derive(Debug)]
pub enum Event<T> {
    /// A submission good enough to leave the session. Comes before the answer to it is sent.
    Solution(Box<Solution<T>>),
    /// A submission was judged.
    Judged {
        /// How, a word of a fixed set.
        verdict: &'static str,
        /// What was put to its worker's account.
        credit: Option<Credit>,
    },
    /// There is another worker, and this is what it will do.
    Joined(Arc<Tally>),
    /// A name was authorised or refused, a word of a fixed set.
    Authorized(&'static str),
    /// A device got a job that its firmware most likely cannot hold. Comes once for a session.
    JobTooBig(Box<JobTooBig>),
    /// A method that nobody knows, or parameters in a shape that nobody sends: how the list of quirks grows.
    NotUnderstood(Box<str>),
    /// A miner went on with an earlier session.
    Resumed,
}

/// A job that is too big for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobTooBig {
    /// Whose device it is.
    pub worker: Arc<str>,
    /// What kind of device.
    pub device: &'static str,
    /// What it calls itself.
    pub user_agent: String,
    /// Bytes of the job's coinbase.
    pub coinbase_bytes: usize,
    /// Bytes that it can hold.
    pub coinbase_bytes_max: usize,
}

impl std::fmt::Display for JobTooBig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { device, coinbase_bytes, coinbase_bytes_max, .. } = self;
        write!(
            f,
            "P2Pool's coinbase of {coinbase_bytes} bytes is too big for this firmware ({device} holds \
             {coinbase_bytes_max}): it may hash nothing or crash"
        )
    }
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
    /// When its submission was judged.
    pub judged: Instant,
}

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
    /// Invalid submissions since the last good one.
    invalid: u32,
    invalid_since: Instant,
    /// Steps taken about them.
    invalid_steps: u32,
    credited: Instant,
    /// Lines that earn nothing which may still be sent.
    allowance: f64,
    allowance_at: Instant,
    messaged: Option<Instant>,
    transactions_sent: Option<Instant>,
    random: fastrand::Rng,
    lines: VecDeque<Bytes>,
    /// Answers after all of `lines`.
    answers: BytesMut,
    queued_bytes: usize,
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
            allowance: config.useless_lines_max,
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
            invalid: 0,
            invalid_since: now.instant,
            invalid_steps: 0,
            credited: now.instant,
            allowance_at: now.instant,
            messaged: None,
            transactions_sent: None,
            random,
            lines: VecDeque::new(),
            answers: BytesMut::new(),
            queued_bytes: 0,
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
        let piece = match self.lines.pop_front() {
            Some(piece) => piece,
            None if self.answers.is_empty() => return None,
            // The buffer goes with it: an idle session holds none.
            None => std::mem::take(&mut self.answers).freeze(),
        };
        self.queued_bytes -= piece.len();
        Some(piece)
    }

    /// Bytes that [`Self::poll_line`] has for whoever asks.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
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
            return self.spend(now);
        }
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(error) => {
                self.malformed += 1;
                self.refuse(Id::NULL, &error);
                return if self.malformed < self.config.malformed_lines_max {
                    self.spend(now)
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
                self.spend(now)?;
                self.handle_call(id, call, now)
            }
            Err(error) => {
                self.events.push_back(Event::NotUnderstood(error.to_string().into()));
                self.refuse(id, &error);
                self.spend(now)
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
        self.answer(id, result);
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
                self.grant(id, concat!("\"p2pool-stratum/", env!("CARGO_PKG_VERSION"), "\""));
                Ok(())
            }
            Call::MultiVersion => {
                self.multi_version = true;
                self.grant(id, "true");
                Ok(())
            }
            Call::Ping => {
                self.grant(id, "\"pong\"");
                Ok(())
            }
            Call::Submit { .. } => unreachable!("handled before"),
            Call::Subscribe { user_agent, session } => self.subscribe(id, &user_agent, session.as_deref(), now),
            Call::SubscribeExtranonce => {
                self.subscribed_to_extranonce = true;
                self.grant(id, "true");
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
        self.push(message::set_extranonce(extranonce1.bytes()));
        self.extranonce1 = extranonce1;
        self.send_job(now).map(|()| true)
    }

    /// Shows the miner's owner a message, if the device can and was not shown another one lately.
    pub fn show_message(&mut self, text: &str, now: Now) {
        let lately = self.messaged.is_some_and(|at| now.instant.saturating_duration_since(at) < MESSAGE_INTERVAL);
        if self.device.shows_messages && self.is_mining() && !lately {
            self.messaged = Some(now.instant);
            self.push(message::show_message(text));
        }
    }

    /// Tells the miner to connect anew: the server is going, and may be back.
    pub fn reconnect(&mut self) {
        if self.told.is_some() {
            self.push(message::reconnect());
        }
    }

    fn subscribe_by(&self) -> Instant {
        self.started + self.config.subscribe_timeout
    }

    fn is_mining(&self) -> bool {
        self.subscribed && !self.workers.is_empty()
    }

    /// Takes the price of a line that earns nothing.
    fn spend(&mut self, now: Now) -> Result<(), Disconnect> {
        let seconds = now.instant.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance_at = now.instant;
        let Config { useless_lines_max, useless_lines_per_second, .. } = *self.config;
        self.allowance = (self.allowance + seconds * useless_lines_per_second).min(useless_lines_max) - 1.0;
        if self.allowance < 0.0 { Err(Disconnect::Flood) } else { Ok(()) }
    }

    /// Bears an invalid submission for a while: such as ckpool does, a new job first, a new connection next.
    fn tolerate(&mut self, now: Now) -> Result<(), Disconnect> {
        self.spend(now)?;
        if self.invalid == 0 {
            self.invalid_since = now.instant;
            self.invalid_steps = 0;
        }
        self.invalid = self.invalid.saturating_add(1);
        let due = self.invalid_since + self.config.invalid_period.saturating_mul(self.invalid_steps + 1);
        if self.invalid < INVALID_SUBMISSIONS || now.instant < due || !self.is_mining() {
            return Ok(());
        }
        self.invalid_steps += 1;
        match self.invalid_steps {
            1 => self.send_job(now),
            2 => {
                self.reconnect();
                Ok(())
            }
            _ => Err(Disconnect::Invalid),
        }
    }

    /// Queues a piece behind all that is queued.
    fn push(&mut self, piece: Bytes) {
        self.queued_bytes += piece.len();
        if !self.answers.is_empty() {
            self.lines.push_back(std::mem::take(&mut self.answers).freeze());
        }
        self.lines.push_back(piece);
    }

    fn answer(&mut self, id: Id<'_>, result: Result<(), StratumError>) {
        match result {
            Ok(()) => self.grant(id, "true"),
            Err(error) => self.refuse(id, &error),
        }
    }

    fn grant(&mut self, id: Id<'_>, result: &str) {
        let before = self.answers.len();
        message::write_success(&mut self.answers, id, result);
        self.queued_bytes += self.answers.len() - before;
    }

    fn refuse(&mut self, id: Id<'_>, error: &StratumError) {
        let before = self.answers.len();
        message::write_failure(&mut self.answers, id, error);
        self.queued_bytes += self.answers.len() - before;
    }

    fn is_called(&mut self, user_agent: &str) {
        const USER_AGENT_CHARACTERS_MAX: usize = 128;
        let shown = user_agent.chars().filter(|character| !character.is_control()).take(USER_AGENT_CHARACTERS_MAX);
        self.user_agent = shown.collect::<String>().into();
        self.device = device::by_user_agent(&self.user_agent);
        self.client.is_called(self.user_agent.clone());
    }

    fn subscribe(&mut self, id: Id<'_>, user_agent: &str, session: Option<&str>, now: Now) -> Result<(), Disconnect> {
        if !user_agent.is_empty() {
            self.is_called(user_agent);
        }
        if let Some(session) = session.and_then(|session| u64::from_str_radix(session, 16).ok())
            && self.told.is_none()
        {
            self.resume(session, now);
        }
        let extranonce1 = hex::encode(self.extranonce1.bytes());
        let name = self.name;
        // Both subscriptions, for clients that look for either; the name is what miners quote to resume.
        let result = format!(
            r#"[[["mining.set_difficulty","{name:016x}"],["mining.notify","{name:016x}"]],"{extranonce1}",{EXTRANONCE2_SIZE}]"#
        );
        self.grant(id, &result);
        self.subscribed = true;
        // cpuminer and bfgminer take the first line after `mining.subscribe` for its answer, so what a configure before it
        // brought about is told only now.
        if std::mem::take(&mut self.mask_untold) {
            self.push(message::set_version_mask(self.mask));
        }
        self.start_mining(now)
    }

    /// Goes on with an earlier session, if it is known: the same extranonce1, so that what the miner still has under way
    /// counts.
    fn resume(&mut self, session: u64, now: Now) {
        let Some(past) = self.memory.take(session, now.instant) else { return };
        self.extranonce1 = past.extranonce1;
        self.jobs = past.jobs;
        self.jobs.forget_old(now.instant);
        self.start = self.start.or(past.difficulty);
        self.resumed = Some(past.payee);
        self.events.push_back(Event::Resumed);
    }

    fn authorize(&mut self, id: Id<'_>, name: &str, password: &str, now: Now) -> Result<(), Disconnect> {
        let result = self.add_worker(name, password);
        self.events.push_back(Event::Authorized(if result.is_ok() { "authorized" } else { "refused" }));
        self.refusals += u32::from(result.is_err());
        let notice = result.as_ref().ok().and_then(|index| self.workers[*index].worker.notice.clone());
        self.answer(id, result.map(|_| ()));
        if self.refusals >= self.config.refused_names_max {
            return Err(Disconnect::Refused);
        }
        self.start_mining(now)?;
        if let Some(notice) = notice {
            self.show_message(&notice, now);
        }
        Ok(())
    }

    /// Sends the first job as soon as it is known where to and for whom.
    fn start_mining(&mut self, now: Now) -> Result<(), Disconnect> {
        if !self.is_mining() || self.told.is_some() {
            return Ok(());
        }
        if self.resumed.take().is_some_and(|payee| payee != self.payee) {
            // The session is resumed under another name: its jobs earn that name nothing, but may still be blocks.
            self.jobs.disown();
        }
        self.credited = now.instant;
        let known =
            self.start.or_else(|| self.memory.difficulty(&self.workers[0].worker.name, &self.user_agent, now.instant));
        let of_kind = self.device.start.filter(|_| self.config.known_devices).and_then(Difficulty::new);
        let slowest = Difficulty::new(self.device.slowest).filter(|_| self.config.known_devices);
        match known {
            _ if self.suggested.is_some() => {}
            Some(known) => self.vardiff.remember(known, now.instant),
            None => {
                let start = of_kind.unwrap_or(self.config.vardiff.start);
                self.vardiff.begin(start, slowest.unwrap_or(self.config.vardiff.min), now.instant);
            }
        }
        self.send_job(now)?;
        if self.user_agent.is_empty() {
            self.asked_version = true;
            self.push(message::get_version());
        }
        Ok(())
    }

    fn configure(&mut self, id: Id<'_>, asked: &Configure) {
        let mut result = serde_json::Map::new();
        let mut mask = None;
        // Every name that was asked for is answered, and no other: cgminer logs an error for each extra one.
        for extension in &asked.extensions {
            let granted = match extension.as_str() {
                "version-rolling" => {
                    mask = version_rolling::negotiate(asked.version_rolling_mask, self.config.version_mask);
                    self.mask = mask.unwrap_or(0);
                    if let Some(mask) = mask {
                        result.insert("version-rolling.mask".into(), format!("{mask:08x}").into());
                    }
                    mask.is_some()
                }
                "minimum-difficulty" => {
                    let min = asked.minimum_difficulty.map(|min| min / self.config.difficulty_scale);
                    let min = min.and_then(Difficulty::new);
                    min.inspect(|min| self.vardiff.raise_min(*min)).is_some()
                }
                "subscribe-extranonce" => {
                    self.subscribed_to_extranonce = true;
                    true
                }
                "info" => {
                    if let Some(software) = asked.software.as_ref().filter(|_| self.user_agent.is_empty()) {
                        self.is_called(software);
                    }
                    true
                }
                _ => false,
            };
            result.insert(extension.clone(), granted.into());
        }
        self.grant(id, &serde_json::Value::from(result).to_string());
        if let Some(mask) = mask {
            if self.subscribed { self.push(message::set_version_mask(mask)) } else { self.mask_untold = true }
        }
    }

    fn suggest(&mut self, id: Id<'_>, wish: Option<Difficulty>, now: Now) -> Result<(), Disconnect> {
        let Some(wish) = wish else {
            self.refuse(id, &StratumError::Parameters("that is no difficulty".into()));
            return Ok(());
        };
        self.grant(id, "true");
        self.vardiff.suggest(wish, now.instant);
        let lately = self.suggested.is_some_and(|at| now.instant.saturating_duration_since(at) < SUGGESTION_INTERVAL);
        let changes = self.announced.is_some_and(|(announced, _)| announced != self.vardiff.current());
        if !lately {
            self.suggested = Some(now.instant);
        }
        // A difficulty only ever changes together with a job.
        if changes && !lately { self.send_job(now) } else { Ok(()) }
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
                    self.push(head);
                    self.push(list);
                    self.push(tail);
                }
            }
            Err(error) => self.refuse(id, &error),
        }
    }

    /// Authorises `name`, and says which worker it is.
    fn add_worker(&mut self, name: &str, password: &str) -> Result<usize, StratumError> {
        let worker =
            self.work.authorize(name, password).map_err(|refusal| StratumError::Unauthorized(refusal.to_string()))?;
        if let Some(primary) = self.workers.first()
            && primary.worker.payout != worker.payout
        {
            return Err(StratumError::Unauthorized(format!(
                "`{}` is to be paid at {}, but this connection's jobs pay {}: give it a connection of its own",
                shown(name),
                worker.payout,
                primary.worker.payout
            )));
        }
        if let Some(difficulty) = worker.difficulty {
            self.vardiff.fix(difficulty);
        }
        if let Some(index) = self.workers.iter().position(|known| *known.given == *name) {
            return Ok(index);
        }
        if self.workers.len() >= self.config.workers_max.max(1) {
            return Ok(0);
        }
        if self.workers.is_empty() {
            self.payee = worker.payout.to_string().into();
        }
        let (tally, account) = Tally::new(worker.name.clone(), self.payee.clone(), self.client.clone());
        self.events.push_back(Event::Joined(tally));
        self.workers.push(KnownWorker { given: name.into(), worker, account });
        Ok(self.workers.len() - 1)
    }

    /// Whom a submission under `name` is credited to. Proxies submit under names that they never authorised: these count
    /// as authorised if their jobs would be the same.
    fn submitter(&mut self, name: &str) -> Result<usize, StratumError> {
        if self.workers.is_empty() {
            return Err(StratumError::Unauthorized("send mining.authorize first".into()));
        }
        match self.workers.iter().position(|known| *known.given == *name) {
            Some(index) => Ok(index),
            // Reading a name costs more than checking a submission: whoever has this many is not read any more.
            None if self.workers.len() >= self.config.workers_max.max(1) => Ok(0),
            None => self.add_worker(name, ""),
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
            self.invalid = 0;
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

    /// The difficulty that a submission is credited with: that of its own job, or the newest if that is lower.
    ///
    /// Several firmwares apply a lower difficulty at once, not from the next job on, and must not lose by it
    /// (ESP-Miner issue 212).
    fn worth(&self, handed_out: &HandedOut<W::Ticket>, solved: &Solved) -> Option<Difficulty> {
        let (announced, announced_target) = self.announced?;
        let own = if handed_out.difficulty == announced { announced_target } else { handed_out.difficulty.target() };
        // What it takes to be a solution is always enough, whatever rounding makes of it.
        let own = if own < handed_out.job.solution_target
            && handed_out.difficulty.get() >= handed_out.job.solution_target.difficulty()
        {
            handed_out.job.solution_target
        } else {
            own
        };
        if own.is_met_by(&solved.pow_hash) {
            Some(handed_out.difficulty)
        } else {
            announced_target.is_met_by(&solved.pow_hash).then_some(announced)
        }
    }

    fn retarget(&mut self, now: Now) -> Result<(), Disconnect> {
        let Some((announced, _)) = self.announced else { return Ok(()) };
        // What the current job is capped at is what the next one most likely is, too.
        let ceiling =
            self.jobs.newest().map_or(announced, |newest| newest.job.solution_difficulty.unwrap_or(announced));
        // A difficulty only ever changes together with a job: devices apply it to the next one they get.
        if self.vardiff.retarget(ceiling, now.instant).is_some() { self.send_job(now) } else { Ok(()) }
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
            self.push(message::set_difficulty(difficulty.get() * self.config.difficulty_scale));
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
        self.push(offer.line);
        self.push(message::notify_end(clean));
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
