//! Measurements of peers' latencies, on request.

use p2p::peer::MEASUREMENT_TIMEOUT;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::{Command, Handle};

/// Minimum time between two requests to the P2P task, over all callers: strangers may ask. The swarm limits how often a
/// peer is measured ([`p2p::swarm::LATENCY_KEPT`]).
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time that a caller waits: a measurement's timeout, and some for a busy node.
const WAIT_MAX: Duration = MEASUREMENT_TIMEOUT.saturating_add(Duration::from_secs(1));

/// Time of the last request to the P2P task. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LatencyRequests(Arc<Mutex<Option<Instant>>>);

impl Handle {
    /// Measures peers' latencies, except recent ones, and waits until they are in [`Handle::status`]: four seconds at
    /// most.
    pub async fn measure_latencies(&self) {
        let measured = async {
            let mut last = self.latency_requests.0.lock().await;
            if let Some(begun) = self.request(&mut last) {
                let _ = begun.await;
            }
            // Held until here, so that no other caller reads the old status.
            drop(last);
            let _ = self.status.clone().wait_for(|status| !status.is_measuring).await;
        };
        // On a timeout the status has what was measured so far.
        let _ = timeout(WAIT_MAX, measured).await;
    }

    /// Starts measuring peers' latencies, except recent ones, without waiting for the result.
    pub fn refresh_latencies(&self) {
        if let Ok(mut last) = self.latency_requests.0.try_lock() {
            self.request(&mut last);
        }
    }

    /// Requests a measurement, unless there was one recently or the task is busy; the receiver fires once it has begun.
    fn request(&self, last: &mut Option<Instant>) -> Option<oneshot::Receiver<()>> {
        if last.is_some_and(|last| last.elapsed() < REQUEST_INTERVAL) {
            return None;
        }
        let (reply, begun) = oneshot::channel();
        self.commands.try_send(Command::MeasureLatencies { reply }).ok()?;
        *last = Some(Instant::now());
        Some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2p::Status;
    use tokio::sync::{mpsc, watch};

    fn handle() -> (Handle, mpsc::Receiver<Command>, watch::Sender<Arc<Status>>) {
        let (status_sender, status) = watch::channel(Arc::default());
        let (commands, commanded) = mpsc::channel(16);
        let handle = Handle {
            status,
            commands,
            transactions: Arc::default(),
            traffic: Arc::default(),
            latency_requests: LatencyRequests::default(),
        };
        (handle, commanded, status_sender)
    }

    fn begin(command: Command, status: &watch::Sender<Arc<Status>>) {
        let Command::MeasureLatencies { reply } = command else { panic!("{command:?}") };
        status.send_replace(Arc::new(Status { is_measuring: true, ..Status::default() }));
        reply.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_caller_waits_until_the_measurement_has_ended() {
        let (handle, mut commanded, status) = handle();
        let caller = tokio::spawn(async move { handle.measure_latencies().await });
        begin(commanded.recv().await.unwrap(), &status);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!caller.is_finished());
        status.send_replace(Arc::default());
        caller.await.unwrap();
    }

    #[tokio::test]
    async fn a_measurement_that_does_not_end_holds_nobody_up_for_long() {
        let (handle, mut commanded, status) = handle();
        let started = Instant::now();
        let caller = tokio::spawn(async move { handle.measure_latencies().await });
        begin(commanded.recv().await.unwrap(), &status);
        caller.await.unwrap();
        assert_eq!(started.elapsed().as_secs(), WAIT_MAX.as_secs());
    }

    #[tokio::test]
    async fn many_callers_make_one_request_a_second() {
        let (handle, mut commanded, _status) = handle();
        for _ in 0..100 {
            handle.refresh_latencies();
        }
        assert!(commanded.try_recv().is_ok());
        assert!(commanded.try_recv().is_err());
        tokio::time::sleep(REQUEST_INTERVAL).await;
        handle.refresh_latencies();
        assert!(commanded.try_recv().is_ok());
    }
}
