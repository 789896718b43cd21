//! Hashing threads: costly proofs of work are computed beside the event loop, the most valuable first.
//!
//! A hash of a miner that has earned it comes before one of a stranger, and both before those of peers' shares; none
//! waits for ever. Within each kind, sources take turns, and within a source its connections. All queues are bounded, and
//! the one who holds most pays when one is full.
//!
//! Threads are the runtime's blocking ones: one is started when there is work and fewer than the maximum run, and ends
//! when there is none. So a chain with a cheap proof of work has none of them, and what is queued is hashed even when the
//! node stops.

mod fair_queue;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;
use tokio::task;

use super::metrics;
use crate::mining::job::{PowFunction, Unhashed};
use crate::mining::pow_budget::BUDGET;
use crate::mining::source::Source;
use crate::sync::Mutex;
use fair_queue::FairQueue;

/// Maximum number of queued hashes of one source that none of its miners has earned: as many as the source can pay for at
/// once.
pub const QUEUED_UNPROVEN_OF_SOURCE_MAX: usize = 4096;
const _: () = assert!(QUEUED_UNPROVEN_OF_SOURCE_MAX as f64 == BUDGET.burst);

/// Turns after which the order of kinds begins again.
const TURNS: u8 = 8;

/// Kind of a hash, in the order in which they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Submission of a miner that has earned its hash by credited ones.
    Proven,
    /// Submission of a miner of which nothing good is known yet: at least one in eight.
    Unproven,
    /// A peer's share: at least one in eight.
    Share,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Proven, Self::Unproven, Self::Share];

    /// Maximum number of queued hashes of this kind. Any submission may be a block, so miners that have earned theirs are
    /// practically never refused: a farm of 5,000 devices that were all held up, with a dozen submissions each.
    const fn queued_max(self) -> usize {
        match self {
            Self::Proven => 65_536,
            Self::Unproven => 16_384,
            // Each peer waits for one at a time.
            Self::Share => 4096,
        }
    }

    /// Maximum number of queued hashes of this kind of one source.
    const fn queued_of_source_max(self) -> usize {
        match self {
            // One source may be the only farm.
            Self::Proven => self.queued_max(),
            // What its budget pays for.
            Self::Unproven => QUEUED_UNPROVEN_OF_SOURCE_MAX,
            Self::Share => self.queued_max() / 2,
        }
    }

    /// Returns the kind of a submission whose hash the miner has earned or not.
    pub fn of_submission(is_earned: bool) -> Self {
        if is_earned { Self::Proven } else { Self::Unproven }
    }

    /// Label for metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unproven => "unproven",
            Self::Share => "share",
        }
    }
}

/// One of those that take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitter {
    /// Network that it comes from.
    pub source: Source,
    /// Number among those of its source: of a connection, for instance.
    pub number: u64,
}

/// Receives the hash, on the hashing thread; at once if there is no room for it.
type Reply = Box<dyn FnOnce(Result<[u8; 32], Unhashed>) + Send>;

/// A hash to be computed.
struct Order {
    kind: Kind,
    header: [u8; 80],
    pow: PowFunction,
    queued: Instant,
    reply: Reply,
}

/// The hashing threads and their queues.
pub struct Hashers {
    backlog: Mutex<Backlog<Order>>,
    threads_max: usize,
}

impl fmt::Debug for Hashers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashers").field("threads_max", &self.threads_max).finish_non_exhaustive()
    }
}

impl Default for Hashers {
    /// As many threads as there are cores, less one for the rest of the node; at least one.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new((cores - 1).max(1))
    }
}

impl Hashers {
    /// Creates at most `threads_max` threads, once there is work for them.
    pub fn new(threads_max: usize) -> Self {
        Self { backlog: Mutex::new(Backlog::new()), threads_max }
    }

    /// Maximum number of threads.
    pub fn threads_max(&self) -> usize {
        self.threads_max
    }

    /// Has `pow` of `header` computed, and passes it to `reply`, which must not block. To be called on a thread of a
    /// tokio runtime.
    pub fn hash(
        self: &Arc<Self>,
        kind: Kind,
        submitter: Submitter,
        header: [u8; 80],
        pow: PowFunction,
        reply: impl FnOnce(Result<[u8; 32], Unhashed>) + Send + 'static,
    ) {
        let order = Order { kind, header, pow, queued: Instant::now(), reply: Box::new(reply) };
        let (pushed, queued) = {
            let mut backlog = self.backlog.lock();
            (backlog.push(kind, submitter, order, self.threads_max), backlog.len(kind))
        };
        metrics::pow_queued(kind.word(), queued);
        if pushed.starts_thread {
            let thread = HashingThread { hashers: self.clone(), has_finished: false };
            task::spawn_blocking(move || thread.run());
        }
        if let Some(refused) = pushed.refused {
            metrics::pow_refused(kind.word());
            (refused.reply)(Err(Unhashed));
        }
    }

    /// Number of hashes that wait for a thread.
    pub fn queued(&self) -> usize {
        let backlog = self.backlog.lock();
        Kind::ALL.into_iter().map(|kind| backlog.len(kind)).sum()
    }

    /// Computes `pow` of `header` behind all submissions, and blocks the thread until then: to be called off the event
    /// loop, on a thread of a tokio runtime.
    pub fn hash_share(self: &Arc<Self>, submitter: Submitter, header: &[u8; 80], pow: PowFunction) -> [u8; 32] {
        let (sender, receiver) = sync_channel(1);
        self.hash(Kind::Share, submitter, *header, pow, move |hash| {
            // The receiver waits below.
            let _ = sender.send(hash);
        });
        match receiver.recv() {
            Ok(Ok(hash)) => hash,
            // No room, or no threads any more: the caller's does it.
            Ok(Err(Unhashed)) | Err(_) => pow(header),
        }
    }

    /// Computes hashes until none is queued.
    fn work(&self) {
        while let Some((order, queued)) = self.next() {
            let Order { kind, header, pow, queued: since, reply } = order;
            metrics::pow_queued(kind.word(), queued);
            metrics::pow_begins(kind.word(), since.elapsed());
            reply(Ok(pow(&header)));
        }
    }

    /// Takes the next order, and the number of its kind that is left; `None` ends the thread.
    fn next(&self) -> Option<(Order, usize)> {
        let mut backlog = self.backlog.lock();
        let order = backlog.next()?;
        let left = backlog.len(order.kind);
        Some((order, left))
    }
}

/// A thread that was counted. If it never runs, since the runtime has ended, what is queued is refused: nothing waits for
/// a thread that does not come.
struct HashingThread {
    hashers: Arc<Hashers>,
    has_finished: bool,
}

impl HashingThread {
    fn run(mut self) {
        self.hashers.work();
        self.has_finished = true;
    }
}

impl Drop for HashingThread {
    fn drop(&mut self) {
        while !self.has_finished
            && let Some((order, _)) = self.hashers.next()
        {
            (order.reply)(Err(Unhashed));
        }
    }
}

/// Queues of all kinds, and the number of threads that work on them.
#[derive(Debug)]
struct Backlog<T> {
    queues: [FairQueue<T>; Kind::ALL.len()],
    turn: u8,
    threads: usize,
}

/// What adding an item led to.
#[derive(Debug, PartialEq, Eq)]
struct Pushed<T> {
    /// Item without room, this one or another.
    refused: Option<T>,
    /// Set if the caller must start a thread, which takes items until there is none.
    starts_thread: bool,
}

impl<T> Backlog<T> {
    fn new() -> Self {
        let queue = |kind: Kind| FairQueue::new(kind.queued_max(), kind.queued_of_source_max());
        Self { queues: Kind::ALL.map(queue), turn: 0, threads: 0 }
    }

    fn len(&self, kind: Kind) -> usize {
        self.queues[kind as usize].len()
    }

    fn push(&mut self, kind: Kind, submitter: Submitter, item: T, threads_max: usize) -> Pushed<T> {
        let refused = self.queues[kind as usize].push(submitter, item);
        let starts_thread = self.threads < threads_max;
        self.threads += usize::from(starts_thread);
        Pushed { refused, starts_thread }
    }

    /// Takes the next item; `None` ends the calling thread.
    fn next(&mut self) -> Option<T> {
        self.turn = (self.turn + 1) % TURNS;
        // Its own turn for each kind that others would starve.
        let first = match self.turn {
            0 => Kind::Share,
            4 => Kind::Unproven,
            _ => Kind::Proven,
        };
        let mut kinds = [first].into_iter().chain(Kind::ALL);
        let item = kinds.find_map(|kind| self.queues[kind as usize].pop());
        self.threads -= usize::from(item.is_none());
        item
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn model_each_hash_is_computed_once_and_none_waits_without_a_thread() {
        loom::model(|| {
            let backlog = Arc::new(Mutex::new(Backlog::new()));
            let (computed, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let submit = |number: u64| {
                let (backlog, computed, running) = (backlog.clone(), computed.clone(), running.clone());
                loom::thread::spawn(move || {
                    let submitter = Submitter { source: Source::of([192, 0, 2, 1].into()), number };
                    let pushed = backlog.lock().push(Kind::Unproven, submitter, number, 1);
                    assert_eq!(pushed.refused, None);
                    if !pushed.starts_thread {
                        return;
                    }
                    // The thread that the caller starts.
                    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one thread at a time");
                    loop {
                        let mut backlog = backlog.lock();
                        if backlog.next().is_none() {
                            running.fetch_sub(1, Ordering::SeqCst);
                            return;
                        }
                        drop(backlog);
                        computed.fetch_add(1, Ordering::SeqCst);
                    }
                })
            };
            for thread in [submit(1), submit(2)] {
                thread.join().expect("no thread panics");
            }
            assert_eq!(computed.load(Ordering::SeqCst), 2);
            let backlog = backlog.lock();
            assert_eq!((backlog.len(Kind::Unproven), backlog.threads), (0, 0));
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::mining::job::sha256d;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    fn by(network: u8, number: u64) -> Submitter {
        Submitter { source: Source::of([192, 0, network, 1].into()), number }
    }

    #[test]
    fn what_miners_have_earned_comes_first_and_nothing_waits_for_ever() {
        let mut backlog = Backlog::new();
        for number in 0..100 {
            for kind in Kind::ALL {
                assert_eq!(backlog.push(kind, by(1, number), kind, 1).refused, None);
            }
        }
        let first: Vec<Kind> = (0..80).filter_map(|_| backlog.next()).collect();
        let count = |kind| first.iter().filter(|one| **one == kind).count();
        assert_eq!([count(Kind::Proven), count(Kind::Unproven), count(Kind::Share)], [60, 10, 10]);
        // Without earned ones, strangers' submissions come before shares.
        while backlog.len(Kind::Proven) > 0 {
            backlog.next();
        }
        let before = [Kind::Unproven, Kind::Share].map(|kind| backlog.len(kind));
        (0..40).for_each(|_| assert!(backlog.next().is_some()));
        let after = [Kind::Unproven, Kind::Share].map(|kind| backlog.len(kind));
        assert_eq!([before[0] - after[0], before[1] - after[1]], [35, 5]);
    }

    #[test]
    fn a_farm_whose_devices_all_submit_at_once_is_refused_nothing_and_pays_itself_for_more() {
        let mut backlog = Backlog::new();
        for device in 0..5000 {
            for _ in 0..12 {
                assert_eq!(backlog.push(Kind::Proven, by(1, device), 1, 1).refused, None);
            }
        }
        let refused = (0..10_000).filter(|_| backlog.push(Kind::Proven, by(1, 0), 1, 1).refused.is_some()).count();
        assert_eq!(60_000 + 10_000 - refused, Kind::Proven.queued_max());
        assert_eq!(backlog.push(Kind::Proven, by(2, 0), 2, 1).refused, Some(1), "of the farm, not of another miner");
        assert!((0..2).any(|_| backlog.next() == Some(2)), "networks take turns");
    }

    #[test]
    fn threads_are_started_up_to_the_maximum_and_end_when_nothing_is_left() {
        let mut backlog = Backlog::new();
        let started = (0..5).filter(|number| backlog.push(Kind::Share, by(1, *number), (), 2).starts_thread).count();
        assert_eq!(started, 2);
        assert_eq!((0..5).filter_map(|_| backlog.next()).count(), 5);
        assert_eq!((backlog.next(), backlog.next(), backlog.threads), (None, None, 0));
        assert!(backlog.push(Kind::Share, by(1, 1), (), 2).starts_thread);
    }

    #[tokio::test]
    async fn every_hash_is_answered_those_without_room_too() {
        let hashers = Arc::new(Hashers::new(1));
        let (sender, receiver) = channel();
        let count = QUEUED_UNPROVEN_OF_SOURCE_MAX + 500;
        for number in 0..count {
            let sender = sender.clone();
            let mut header = [0; 80];
            header[..8].copy_from_slice(&number.to_le_bytes());
            let pow: PowFunction = |header| {
                std::thread::sleep(Duration::from_micros(10));
                sha256d(header)
            };
            hashers.hash(Kind::Unproven, by(1, 1), header, pow, move |hash| {
                let _ = sender.send((header, hash));
            });
        }
        drop(sender);
        let answers = task::spawn_blocking(move || receiver.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(answers.len(), count);
        assert!(answers.iter().all(|(header, hash)| hash.is_err() || *hash == Ok(sha256d(header))));
        let refused = answers.iter().filter(|(_, hash)| hash.is_err()).count();
        assert!(refused <= 500, "{refused} refused, of 500 beyond the bound");
    }

    #[tokio::test]
    async fn a_peers_share_is_hashed_while_its_caller_waits() {
        let hashers = Arc::new(Hashers::new(1));
        let share = task::spawn_blocking(move || hashers.hash_share(by(2, 1), &[2; 80], sha256d));
        assert_eq!(share.await.unwrap(), sha256d(&[2; 80]));
    }

    #[test]
    fn nothing_waits_for_the_threads_of_a_runtime_that_has_ended() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _context = handle.enter();
        let hashers = Arc::new(Hashers::new(1));
        assert_eq!(hashers.hash_share(by(1, 1), &[3; 80], sha256d), sha256d(&[3; 80]));
    }
}
