//! Lines in the log about chains' troubles: one for each episode, and few for a daemon that fails and recovers all the
//! time.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

use super::{Mode, State};

/// Maximum number of lines within [`WINDOW`].
const LINES_MAX: usize = 4;

/// Window in which lines are counted.
const WINDOW: Duration = Duration::from_secs(240);

/// State of a chain, as far as its change is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) state: State,
    /// Kind of its trouble, if there is any.
    pub(super) trouble: Option<&'static str>,
    /// How work is asked for, and with it who is paid; `None` until known.
    pub(super) mode: Option<Mode>,
}

/// Condition that the log has of one chain, and the times of its last lines.
#[derive(Debug)]
pub(super) struct Episodes {
    logged: Condition,
    lines: VecDeque<Instant>,
}

impl Default for Episodes {
    fn default() -> Self {
        Self { logged: Condition { state: State::Starting, trouble: None, mode: None }, lines: VecDeque::new() }
    }
}

impl Episodes {
    /// True if `condition` is to be logged. What is put off, because there were many lines, comes later if it lasts.
    pub(super) fn is_news(&mut self, condition: Condition, now: Instant) -> bool {
        while self.lines.front().is_some_and(|line| now.duration_since(*line) >= WINDOW) {
            self.lines.pop_front();
        }
        if condition == self.logged || self.lines.len() >= LINES_MAX {
            return false;
        }
        self.lines.push_back(now);
        self.logged = condition;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(state: State, trouble: Option<&'static str>) -> Condition {
        Condition { state, trouble, mode: None }
    }

    #[test]
    fn an_episode_is_one_line_however_long_it_lasts() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!episodes.is_news(condition(State::Starting, None), start), "there is nothing to say yet");
        let down = condition(State::Starting, Some("unreachable"));
        assert!(episodes.is_news(down, start));
        assert!((1..1000).all(|second| !episodes.is_news(down, at(second))));
        assert!(episodes.is_news(condition(State::LeftOut, Some("unreachable")), at(1000)));
        assert!(episodes.is_news(condition(State::Mining, None), at(1001)));
        assert!(episodes.is_news(condition(State::Mining, Some("easy")), at(1002)));
        let paying = Condition { mode: Some(Mode::Payouts), ..condition(State::Mining, Some("easy")) };
        assert!(episodes.is_news(paying, at(2000)), "others are paid now");
    }

    #[test]
    fn a_daemon_that_fails_all_the_time_fills_no_log() {
        let (mut episodes, start) = (Episodes::default(), Instant::now());
        let (up, down) = (condition(State::Mining, None), condition(State::Waiting, Some("timeout")));
        let lines = (0..3600).filter(|second| {
            let condition = if second % 2 == 0 { up } else { down };
            episodes.is_news(condition, start + Duration::from_secs(*second))
        });
        assert!((4..=60).contains(&lines.count()), "one a minute");
        // What lasts is logged in the end.
        let end = start + Duration::from_secs(3600) + WINDOW;
        assert!(episodes.is_news(up, end) || episodes.logged == up);
    }
}
