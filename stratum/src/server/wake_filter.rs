//! Filters wake-ups: polls rarely ready futures only after one of them has woken the task.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Stands between a task and futures that are rarely ready. Polling a server's stop, its next work and a clock takes
/// locks that all connections share; a task that wakes for each submission polls them only after one of them has called
/// the waker.
#[derive(Debug)]
pub(super) struct WakeFilter {
    inside: Arc<Inside>,
    waker: Waker,
    /// The task's waker, as stored in `inside`.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Inside {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Inside {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl WakeFilter {
    /// Creates a filter that counts as woken, so that the futures behind it are polled once.
    pub(super) fn new() -> Self {
        let inside = Arc::new(Inside { has_rung: AtomicBool::new(true), task: Mutex::new(None) });
        Self { waker: inside.clone().into(), inside, task: None }
    }

    /// Makes the next [`Self::poll`] go through: a future behind it was changed by its owner.
    pub(super) fn ring(&self) {
        self.inside.has_rung.store(true, Ordering::Release);
    }

    /// Polls `rare` if one of its futures has called the waker since the last poll, or if it was ready then.
    pub(super) fn poll<T>(&mut self, context: &Context<'_>, rare: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            self.task = Some(context.waker().clone());
            self.inside.task.lock().clone_from(&self.task);
        }
        // Read first: a write would take the cache line from the threads that wake.
        if !self.inside.has_rung.load(Ordering::Relaxed) || !self.inside.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let ready = rare(&mut Context::from_waker(&self.waker));
        if ready.is_ready() {
            // Others may be ready as well.
            self.ring();
        }
        ready
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Counts its wake-ups.
    #[derive(Debug, Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A future that another thread makes ready.
    #[derive(Debug)]
    struct Flag {
        is_set: AtomicBool,
        waker: Mutex<Option<Waker>>,
    }

    impl Flag {
        fn set(&self) {
            self.is_set.store(true, Ordering::Release);
            if let Some(waker) = self.waker.lock().take() {
                waker.wake();
            }
        }

        fn poll(&self, context: &Context<'_>) -> Poll<()> {
            *self.waker.lock() = Some(context.waker().clone());
            if self.is_set.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    #[test]
    fn model_no_wake_up_is_lost() {
        loom::model(|| {
            let flag = Arc::new(Flag { is_set: AtomicBool::new(false), waker: Mutex::new(None) });
            let setter = {
                let flag = flag.clone();
                loom::thread::spawn(move || flag.set())
            };
            let mut filter = WakeFilter::new();
            // The task moves to another waker in between, as between two executors.
            let tasks = [Arc::<Task>::default(), Arc::<Task>::default()];
            let mut poll = |task: &Arc<Task>| {
                let waker = Waker::from(task.clone());
                filter.poll(&Context::from_waker(&waker), |context| flag.poll(context)).is_ready()
            };
            let saw = tasks.each_ref().map(&mut poll).contains(&true);
            setter.join().expect("the setter does not panic");
            if !saw {
                assert!(tasks[1].0.load(Ordering::SeqCst) > 0, "asleep for ever");
                assert!(poll(&tasks[1]), "woken without the reason in sight");
            }
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;
    use tokio::sync::Notify;

    #[test]
    fn what_did_not_ring_is_not_asked_again() {
        let mut bell = WakeFilter::new();
        let asked = AtomicU32::new(0);
        let mut context = Context::from_waker(Waker::noop());
        let mut kept = None;
        let mut ask = |bell: &mut WakeFilter, answer: Poll<u8>| {
            bell.poll(&context, |inner| {
                asked.fetch_add(1, Ordering::Relaxed);
                kept = Some(inner.waker().clone());
                answer
            })
        };
        assert_eq!(ask(&mut bell, Poll::Pending), Poll::Pending);
        assert_eq!(ask(&mut bell, Poll::Pending), Poll::Pending);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        bell.ring();
        assert_eq!(ask(&mut bell, Poll::Ready(7)), Poll::Ready(7));
        assert_eq!(ask(&mut bell, Poll::Ready(8)), Poll::Ready(8), "what was ready is asked for more");
        assert_eq!(ask(&mut bell, Poll::Pending), Poll::Pending);
        assert_eq!(ask(&mut bell, Poll::Pending), Poll::Pending);
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        kept.take().unwrap().wake();
        context = Context::from_waker(Waker::noop());
        assert!(bell.poll(&context, |_| Poll::Ready(())).is_ready(), "it has called");
    }

    #[tokio::test]
    async fn a_call_wakes_the_task_that_asked_last() {
        let called = Arc::new(Notify::new());
        let mut bell = WakeFilter::new();
        let mut waiting = Box::pin({
            let called = called.clone();
            async move { called.notified().await }
        });
        // First asked for by another task, which then hands it on.
        assert!(bell.poll(&Context::from_waker(Waker::noop()), |context| waiting.as_mut().poll(context)).is_pending());
        let task = tokio::spawn(async move {
            poll_fn(|context| bell.poll(context, |context| waiting.as_mut().poll(context))).await;
        });
        tokio::task::yield_now().await;
        called.notify_one();
        tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
    }
}
