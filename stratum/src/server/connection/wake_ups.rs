//! Wake-ups of a connection that seldom come: the server's end, other work, and the clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{ReusableBoxFuture, WaitForCancellationFuture};

use crate::server::wake_filter::WakeFilter;

/// When the clock wakes a connection that has nothing to wait for.
const FAR_AWAY: Duration = Duration::from_secs(86_400);

/// Why a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeUp {
    /// Bytes were read or written.
    Socket,
    /// Other connections had their turn; more lines are here already.
    Turn,
    /// There is other work.
    Work,
    /// No more work will come.
    NoWork,
    /// The deadline may have passed, or one before it that no longer holds.
    Alarm,
    /// The server is stopping.
    Stopped,
}

/// What a connection waits for beside its socket. Made once for its life, so that no wait allocates.
pub(super) struct WakeUps<'a, 'server, T> {
    filter: WakeFilter,
    stopped: Pin<&'a mut WaitForCancellationFuture<'server>>,
    work: ReusableBoxFuture<'static, Option<watch::Receiver<T>>>,
    /// Reset only to ring earlier: it may well ring in vain.
    alarm: Pin<&'a mut Sleep>,
}

impl<'a, 'server, T: Send + Sync + 'static> WakeUps<'a, 'server, T> {
    /// Wakes when `stopped` or `alarm` is ready, or there is more in `work`.
    pub(super) fn new(
        stopped: Pin<&'a mut WaitForCancellationFuture<'server>>,
        work: watch::Receiver<T>,
        alarm: Pin<&'a mut Sleep>,
    ) -> Self {
        Self { filter: WakeFilter::new(), stopped, work: ReusableBoxFuture::new(changed(work)), alarm }
    }

    /// Rings at `deadline`, or before.
    pub(super) fn ring_by(&mut self, deadline: Instant) {
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
            self.filter.ring();
        }
    }

    /// The first of them that has come.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<WakeUp> {
        let Self { filter, stopped, work, alarm } = self;
        filter.poll(context, |context| {
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(WakeUp::Stopped);
            }
            if let Poll::Ready(receiver) = work.poll(context) {
                let Some(receiver) = receiver else { return Poll::Ready(WakeUp::NoWork) };
                work.set(changed(receiver));
                return Poll::Ready(WakeUp::Work);
            }
            alarm.as_mut().poll(context).map(|()| {
                alarm.as_mut().reset(Instant::now() + FAR_AWAY);
                WakeUp::Alarm
            })
        })
    }
}

/// Waits until `receiver` has something new, and gives it back.
async fn changed<T>(mut receiver: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}
