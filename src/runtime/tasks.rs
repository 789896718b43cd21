//! Named tasks, the stop signal, and a drain with a grace period that reports how each task ended.

use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error_span, warn};

/// Starts the node's tasks and stops them together. Clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the node is to stop. Tasks select on it and end by themselves.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts `task` under `name`. A panic in it stops the node: running on without one of its parts would be worse.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop_on_panic = StopOnPanic(self.stop.clone(), name);
        let named = async move {
            let _guard = stop_on_panic;
            task.await;
            debug!(task = name, "task ended");
        };
        self.tracker.spawn(named.instrument(error_span!("task", name)))
    }

    /// Cancels the stop signal.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops every task and waits up to `grace` for them; returns true if all ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop();
        self.tracker.close();
        let drained = tokio::time::timeout(grace, self.tracker.wait()).await.is_ok();
        if !drained {
            warn!(tasks = self.tracker.len(), ?grace, "some tasks did not end in time");
        }
        drained
    }
}

#[derive(Debug)]
struct StopOnPanic(CancellationToken, &'static str);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        // Also reached when the runtime drops an unfinished task at exit; only a panic is reported.
        if std::thread::panicking() {
            tracing::error!(task = self.1, "task panicked: stopping the node");
            self.0.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_heed_the_stop_signal() {
        let tasks = Tasks::new();
        let stop = tasks.stop_signal();
        tasks.spawn("heeding", async move { stop.cancelled().await });
        assert!(tasks.drain(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn drain_gives_up_on_a_task_that_does_not() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", std::future::pending());
        assert!(!tasks.drain(Duration::from_millis(10)).await);
    }

    #[tokio::test]
    async fn a_panic_stops_the_others() {
        let tasks = Tasks::new();
        let stop = tasks.stop_signal();
        tasks.spawn("panicking", async { panic!("on purpose") });
        tokio::time::timeout(Duration::from_secs(5), stop.cancelled()).await.unwrap();
    }
}
