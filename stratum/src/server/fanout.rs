//! Measures the time that new work takes to reach the first and the last connection.

use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// Newest work that has reached a connection.
#[derive(Debug)]
struct ReachedWork {
    made: Instant,
    last: Instant,
}

/// Tracks successive snapshots of work through the connections.
#[derive(Debug, Default)]
pub(super) struct Fanout(Mutex<Option<ReachedWork>>);

/// Times known once work reaches its first connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reached {
    /// From the creation of this work to its first connection.
    pub(super) first: Duration,
    /// From the creation of the previous work to its last connection.
    pub(super) last: Option<Duration>,
}

impl Fanout {
    /// Records that a connection was sent its job of the work of `made` at `at`. A connection so slow that others have
    /// newer work already is ignored.
    pub(super) fn sent(&self, made: Instant, at: Instant) -> Option<Reached> {
        let mut wave = self.0.lock();
        match &mut *wave {
            Some(wave) if made < wave.made => None,
            Some(wave) if made == wave.made => {
                wave.last = wave.last.max(at);
                None
            }
            _ => {
                let before = wave.replace(ReachedWork { made, last: at });
                let last = before.map(|before| before.last.saturating_duration_since(before.made));
                Some(Reached { first: at.saturating_duration_since(made), last })
            }
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn model_one_connection_is_the_first_and_none_is_missed() {
        loom::model(|| {
            let (start, fanout) = (Instant::now(), Arc::<Fanout>::default());
            let late = start + Duration::from_millis(5);
            let other = {
                let fanout = fanout.clone();
                loom::thread::spawn(move || fanout.sent(start, late))
            };
            let ours = fanout.sent(start, start);
            let theirs = other.join().expect("it does not panic");
            assert_eq!([ours, theirs].into_iter().flatten().count(), 1);
            let next = fanout.sent(start + Duration::from_secs(1), start + Duration::from_secs(1));
            assert_eq!(next.expect("the first of the next work").last, Some(late - start));
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn each_work_is_told_of_with_its_first_connection_and_with_the_last_one_of_that_before() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let fanout = Fanout::default();
        let first = Some(Reached { first: Duration::from_millis(2), last: None });
        assert_eq!(fanout.sent(at(0), at(2)), first);
        assert_eq!(fanout.sent(at(0), at(9)), None);
        assert_eq!(fanout.sent(at(0), at(5)), None);
        let last = Some(Duration::from_millis(9));
        assert_eq!(fanout.sent(at(100), at(101)), Some(Reached { first: Duration::from_millis(1), last }));
        assert_eq!(fanout.sent(at(0), at(150)), None, "it reads slowly, and newer work is on its way to it");
        let last = Some(Duration::from_millis(1));
        assert_eq!(fanout.sent(at(200), at(200)), Some(Reached { first: Duration::ZERO, last }));
    }
}
