//! Counts of what is refused, by reason.

use metrics::{counter, describe_counter};

pub(super) fn describe() {
    describe_counter!("http_refused_total", "Requests that were refused and connections that were closed, by reason");
    Refused::ALL.iter().for_each(|reason| counter!("http_refused_total", "reason" => reason.word()).absolute(0));
}

/// Reason for refusing a request or closing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The body was too large, too slow or broken.
    Body,
    /// The network of the client has asked for too much.
    Budget,
    /// A browser sent it for a page of another site.
    CrossSite,
    /// Another client needed the slot.
    Evicted,
    /// Name or password was missing or wrong, or could not be checked in time.
    Login,
    /// The first request did not come, or an answer was not taken.
    Slow,
}

impl Refused {
    const ALL: [Self; 6] = [Self::Body, Self::Budget, Self::CrossSite, Self::Evicted, Self::Login, Self::Slow];

    const fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Budget => "budget",
            Self::CrossSite => "cross_site",
            Self::Evicted => "evicted",
            Self::Login => "login",
            Self::Slow => "slow",
        }
    }

    pub(super) fn count(self) {
        counter!("http_refused_total", "reason" => self.word()).increment(1);
    }
}
