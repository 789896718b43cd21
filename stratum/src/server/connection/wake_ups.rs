//! Rare wake-ups of a connection: its end, new work, and the clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{ReusableBoxFuture, WaitForCancellationFuture};

use super::hashes::Hashed;
use crate::mining::work::Refusal;
use crate::server::wake_filter::WakeFilter;

/// Alarm of a connection without a deadline.
const FAR_AWAY: Duration = Duration::from_secs(86_400);

/// Reason for waking up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WakeUp {
    /// Bytes were read or written.
    Socket,
    /// Other connections had their turn; more lines are buffered.
    Turn,
    /// New work is available.
    Work,
    /// Credentials were checked, with this result.
    Checked(Result<(), Refusal>),
    /// The proof of work of a submission was computed.
    Hashed(Hashed),
    /// The source of work has closed.
    NoWork,
    /// The deadline may have passed, or an earlier one that no longer applies.
    Alarm,
    /// The server is stopping, or another connection needs the place.
    Ended,
}

/// Rare wake-ups of a connection. Created once per connection, so that no wait allocates.
pub(super) struct WakeUps<'a, 'place, T> {
    filter: WakeFilter,
    ended: Pin<&'a mut WaitForCancellationFuture<'place>>,
    work: ReusableBoxFuture<'static, Option<watch::Receiver<T>>>,
    /// Reset only to an earlier time: it may ring before the deadline.
    alarm: Pin<&'a mut Sleep>,
}

impl<'a, 'place, T: Send + Sync + 'static> WakeUps<'a, 'place, T> {
    /// Creates the wake-ups of `ended`, `work` and `alarm`.
    pub(super) fn new(
        ended: Pin<&'a mut WaitForCancellationFuture<'place>>,
        work: watch::Receiver<T>,
        alarm: Pin<&'a mut Sleep>,
    ) -> Self {
        Self { filter: WakeFilter::new(), ended, work: ReusableBoxFuture::new(changed(work)), alarm }
    }

    /// Makes the alarm ring at `deadline` or earlier.
    pub(super) fn ring_by(&mut self, deadline: Instant) {
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
            self.filter.ring();
        }
    }

    /// Polls for the first wake-up that is ready.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<WakeUp> {
        let Self { filter, ended, work, alarm } = self;
        filter.poll(context, |context| {
            if ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(WakeUp::Ended);
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

/// Waits for a change of `receiver`, and returns it.
async fn changed<T>(mut receiver: watch::Receiver<T>) -> Option<watch::Receiver<T>> {
    receiver.changed().await.ok().map(|()| receiver)
}
