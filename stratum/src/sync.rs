//! Locks and atomics of the hand-written concurrency: those of the system, or in unit tests with the feature `loom` those
//! of a model checker that tries all orders in which threads may run, and all values that they may see. Never outside
//! tests: `cargo build --all-features`, which operators use, has the feature too.

#[cfg(not(all(test, feature = "loom")))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(all(test, feature = "loom")))]
pub(crate) use std::sync::atomic;

#[cfg(all(test, feature = "loom"))]
pub(crate) use loom::sync::atomic;
#[cfg(all(test, feature = "loom"))]
pub(crate) use modelled::Mutex;

#[cfg(all(test, feature = "loom"))]
mod modelled {
    /// Loom's lock with the interface of `parking_lot`.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("no test panics while it holds a lock")
        }
    }
}
