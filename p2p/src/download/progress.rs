//! Progress of a download, for the status.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Download;

/// Averaging time of the download rate.
pub(super) const RATE_TIME: Duration = Duration::from_secs(10);

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    /// Shares of the chain that are present.
    pub have: u32,
    /// Estimated total: the length of the chain, up to the number kept.
    pub wanted_estimate: u32,
    /// Recent download rate, in shares per second.
    pub per_second: f64,
    /// Seconds left at that rate; `None` while the rate is 0.
    pub seconds_left: Option<f64>,
}

impl Download {
    /// Progress of the longest download; `None` while nothing is missing.
    pub fn progress(&self, now: Instant) -> Option<Progress> {
        let branch = self.searches.iter().map(|search| search.branch).max_by_key(|branch| branch.shares)?;
        let height = self.best.map_or(0, |(height, _)| height);
        let have = u32::try_from(branch.shares).unwrap_or(u32::MAX).max(height);
        let recent = self.came.iter().filter(|(at, _)| now.saturating_duration_since(*at) < RATE_TIME);
        let (count, since) =
            recent.fold((0_usize, now), |(count, since), (at, shares)| (count + shares, since.min(*at)));
        let seconds = now.saturating_duration_since(since).as_secs_f64().max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 shares")]
        let per_second = count as f64 / seconds;
        let claimed = if branch.top == 0 { u32::MAX } else { branch.top };
        let wanted_estimate = claimed.min(self.depth_max()).max(have);
        let seconds_left = (per_second > 0.0).then(|| f64::from(wanted_estimate - have) / per_second);
        Some(Progress { have, wanted_estimate, per_second, seconds_left })
    }
}
