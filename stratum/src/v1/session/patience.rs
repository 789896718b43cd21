//! Limits on connections that earn nothing: a budget of useless lines, and remedies for invalid submissions.

use std::time::Instant;

use super::config::Config;
use super::event::Disconnect;

/// Invalid submissions in a row before any remedy is tried.
const INVALID_SUBMISSIONS: u32 = 8;

/// Remedy for a miner whose submissions are all invalid, as in ckpool: a new job first, a new connection next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    SendJob,
    Reconnect,
}

/// A connection's budget, and its invalid submissions since the last good one.
#[derive(Debug)]
pub(super) struct Patience {
    /// Useless lines that may still be sent.
    allowance: f64,
    allowance_at: Instant,
    invalid: u32,
    invalid_since: Instant,
    /// Remedies tried so far.
    steps: u32,
}

impl Patience {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self { allowance: config.useless_lines_max, allowance_at: now, invalid: 0, invalid_since: now, steps: 0 }
    }

    /// Charges a useless line to the budget.
    ///
    /// # Errors
    /// The budget is spent.
    pub(super) fn spend(&mut self, config: &Config, now: Instant) -> Result<(), Disconnect> {
        let seconds = now.saturating_duration_since(self.allowance_at).as_secs_f64();
        self.allowance_at = now;
        let earned = self.allowance + seconds * config.useless_lines_per_second;
        self.allowance = earned.min(config.useless_lines_max) - 1.0;
        if self.allowance < 0.0 { Err(Disconnect::Flood) } else { Ok(()) }
    }

    /// Resets the invalid submissions after a valid one.
    pub(super) fn restore(&mut self) {
        self.invalid = 0;
    }

    /// Tolerates an invalid submission for a while, and returns the remedy once one is due; never while the miner is
    /// not `is_mining`.
    ///
    /// # Errors
    /// The budget is spent, or no remedy has helped.
    pub(super) fn tolerate(
        &mut self,
        config: &Config,
        is_mining: bool,
        now: Instant,
    ) -> Result<Option<Remedy>, Disconnect> {
        self.spend(config, now)?;
        if self.invalid == 0 {
            self.invalid_since = now;
            self.steps = 0;
        }
        self.invalid = self.invalid.saturating_add(1);
        let due = self.invalid_since + config.invalid_period.saturating_mul(self.steps + 1);
        if self.invalid < INVALID_SUBMISSIONS || now < due || !is_mining {
            return Ok(None);
        }
        self.steps += 1;
        match self.steps {
            1 => Ok(Some(Remedy::SendJob)),
            2 => Ok(Some(Remedy::Reconnect)),
            _ => Err(Disconnect::Invalid),
        }
    }
}
