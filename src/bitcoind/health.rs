//! Tracks the daemon's condition, and declares it gone after too long without a template.

use metrics::gauge;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Health;
use crate::template::{Template, TemplateSender};

/// The only writer of health and templates. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Monitor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    health: watch::Sender<Health>,
    templates: TemplateSender,
    started: Instant,
    gone_after: Duration,
}

impl Monitor {
    /// Starts with unknown health. A daemon without a template within `gone_after` from now counts as gone.
    pub(super) fn new(health: watch::Sender<Health>, templates: TemplateSender, gone_after: Duration) -> Self {
        Self(Arc::new(Inner { health, templates, started: Instant::now(), gone_after }))
    }

    /// Records a template: the daemon is healthy.
    pub(super) fn succeeded(&self, template: Template) {
        let mut was_gone = false;
        self.0.health.send_modify(|health| {
            // Under the lock of health: a reader that sees the daemon back finds work there, and vice versa.
            self.0.templates.send(template);
            was_gone = health.gone;
            health.last_success = Some(Instant::now());
            health.gone = false;
            health.trouble = None;
        });
        gauge!("bitcoind_up").set(1.0);
        if was_gone {
            info!("bitcoind is back: miners are served again");
        }
    }

    /// Records the time that a template took.
    pub(super) fn took(&self, duration: Duration) {
        self.0.health.send_if_modified(|health| {
            // No reader waits for this.
            health.template_took = Some(duration);
            false
        });
    }

    /// Records the seconds by which our clock is ahead of the daemon's, and if that is too much for too long.
    pub(super) fn clock(&self, ahead: f64, is_off: bool) {
        gauge!("bitcoind_clock_ahead_seconds").set(ahead);
        #[expect(clippy::cast_possible_truncation, reason = "a difference of times, saturating")]
        let off = is_off.then_some(ahead.round() as i64);
        let mut before = off;
        self.0.health.send_if_modified(|health| {
            before = std::mem::replace(&mut health.clock_ahead, off);
            before != off
        });
        match (before, off) {
            (None, Some(ahead)) => warn!(
                seconds_ahead = ahead,
                "our clock and bitcoind's differ: one of them is wrong; set them (timedatectl set-ntp true)"
            ),
            (Some(_), None) => info!("our clock and bitcoind's agree again"),
            _ => {}
        }
    }

    /// Records a problem.
    pub(super) fn failed(&self, trouble: String) {
        self.0.health.send_if_modified(|health| {
            let changed = health.trouble.as_ref() != Some(&trouble);
            health.trouble = Some(trouble);
            changed
        });
    }

    /// Withdraws the template, whatever its age.
    pub(super) fn withdraw(&self) {
        self.0.templates.withdraw();
    }

    /// Records the daemon's user agent.
    pub(super) fn version(&self, version: String) {
        self.0.health.send_if_modified(|health| {
            let changed = health.version != version;
            health.version = version;
            changed
        });
    }

    /// Records the daemon's warnings.
    pub(super) fn warnings(&self, warnings: Vec<String>) {
        self.0.health.send_if_modified(|health| {
            let changed = health.warnings != warnings;
            health.warnings = warnings;
            changed
        });
    }

    /// Records if the P2P connection is up.
    pub(super) fn p2p_connected(&self, connected: bool) {
        self.0.health.send_if_modified(|health| std::mem::replace(&mut health.p2p_connected, connected) != connected);
    }

    /// Checks for a daemon that is gone, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut health = self.0.health.subscribe();
        loop {
            let (last, gone) = {
                let now = health.borrow_and_update();
                (now.last_success.unwrap_or(self.0.started), now.gone)
            };
            let deadline = tokio::time::Instant::from_std(last + self.0.gone_after);
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender is in `self`, so this is never closed.
                _ = health.changed() => {}
                () = tokio::time::sleep_until(deadline), if !gone => self.declare_gone(last),
            }
        }
    }

    fn declare_gone(&self, last: Instant) {
        let mut declared = false;
        self.0.health.send_if_modified(|health| {
            // A success may have come between the timer and here.
            declared = !health.gone && health.last_success.unwrap_or(self.0.started) == last;
            health.gone |= declared;
            if declared {
                self.withdraw();
            }
            declared
        });
        if declared {
            gauge!("bitcoind_up").set(0.0);
            let trouble = self.0.health.borrow().trouble.clone().unwrap_or_default();
            error!(after = ?self.0.gone_after, trouble, "bitcoind is gone: no work for miners until it is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::tests::{RULES, parts};

    #[test]
    fn a_wrong_clock_is_published_until_it_is_right() {
        let (health, seen) = watch::channel(Health::default());
        let monitor = Monitor::new(health, TemplateSender::default(), Duration::from_secs(60));
        let told = |ahead, is_off| {
            monitor.clock(ahead, is_off);
            seen.borrow().clock_ahead
        };
        assert_eq!([told(-700.4, false), told(-700.4, true), told(-0.2, false)], [None, Some(-700), None]);
    }

    #[tokio::test]
    async fn silence_makes_it_gone_and_a_template_brings_it_back() {
        let (health, mut seen) = watch::channel(Health::default());
        let templates = TemplateSender::default();
        let mut published = templates.newest();
        let monitor = Monitor::new(health, templates, Duration::from_millis(100));
        let stop = CancellationToken::new();
        let task = tokio::spawn(monitor.clone().run(stop.clone()));
        let template = Template::new(parts(), RULES).unwrap();
        monitor.succeeded(template.clone());
        assert!(published.borrow_and_update().is_some());
        monitor.failed("cut off".into());
        seen.wait_for(|health| health.gone).await.unwrap();
        published.wait_for(Option::is_none).await.unwrap();
        monitor.succeeded(template);
        assert!(!seen.borrow().gone && seen.borrow().trouble.is_none());
        assert!(published.borrow().is_some());
        seen.wait_for(|health| health.gone).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }
}
