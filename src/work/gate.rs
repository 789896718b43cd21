//! The gate: whether there may be work at all. On a network that others mine on, nobody is to mine a chain of their own
//! by mistake.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long miners are kept when the last peer is gone. P2Pool sends them away at once, and brings a farm back for every
/// reconnect; shares found in a minute alone are few, and are told to the next peer.
pub const PEERLESS_MAX: Duration = Duration::from_secs(60);

/// Whether there may be work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// There may.
    Open,
    /// There may not, for this reason: what is waited for, with numbers.
    Closed(Arc<str>),
}

impl Gate {
    /// What is waited for, if it is closed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Closed(reason) => Some(reason),
        }
    }
}

/// What the decision is made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Situation {
    /// Peers that shares are exchanged with.
    pub peers: usize,
    /// Addresses where there may be one.
    pub addresses: usize,
    /// Whether there is a share to build on.
    pub has_best: bool,
    /// How far the first download is, while there is one.
    pub download: Option<Download>,
}

/// How far a download of shares is.
#[derive(Debug, Clone, PartialEq)]
pub struct Download {
    /// Shares that are here.
    pub have: u64,
    /// Shares that there will be, as far as can be told.
    pub wanted: u64,
    /// Seconds that the rest will take, once that can be told.
    pub seconds_left: Option<f64>,
}

/// Opens and closes the gate. Free of I/O: the time is an argument.
#[derive(Debug)]
pub struct Keeper {
    is_guarded: bool,
    /// When there last was a peer; none before the first.
    peer_seen: Option<Instant>,
    has_peer: bool,
}

impl Keeper {
    /// One for a network that `persists` (others are expected on it), unless the operator means to begin it (`start_pool`).
    pub fn new(persists: bool, start_pool: bool) -> Self {
        Self { is_guarded: persists && !start_pool, peer_seen: None, has_peer: false }
    }

    /// What holds at `now`.
    pub fn decide(&mut self, situation: &Situation, now: Instant) -> Gate {
        self.has_peer = situation.peers > 0;
        if self.has_peer {
            self.peer_seen = Some(now);
        }
        if !self.is_guarded {
            return Gate::Open;
        }
        let peerless = self.peer_seen.map(|seen| now.saturating_duration_since(seen));
        let reason = if !situation.has_best && self.has_peer {
            waiting_for_shares(situation)
        } else if peerless.is_none_or(|peerless| peerless >= PEERLESS_MAX) || !situation.has_best {
            waiting_for_peer(situation.addresses, peerless)
        } else {
            return Gate::Open;
        };
        Gate::Closed(reason.into())
    }

    /// When [`Self::decide`] may say something else although nothing happened.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.peer_seen.filter(|_| self.is_guarded && !self.has_peer).map(|seen| seen + PEERLESS_MAX)
    }
}

fn waiting_for_peer(addresses: usize, peerless: Option<Duration>) -> String {
    let known = match addresses {
        0 => "no address of one is known (name one with -n)".to_owned(),
        1 => "the only known address did not answer yet".to_owned(),
        more => format!("none of {} known addresses answered yet", Grouped(more as u64)),
    };
    match peerless {
        None => format!("waiting for a peer: {known}"),
        Some(_) => format!("waiting for a peer: the last one is gone, and {known}"),
    }
}

fn waiting_for_shares(situation: &Situation) -> String {
    let Some(download) = &situation.download else {
        let peers =
            if situation.peers == 1 { "the peer has".to_owned() } else { format!("{} peers have", situation.peers) };
        return format!("waiting for shares: {peers} told of none yet (--start-pool begins a network)");
    };
    let (have, wanted) = (Grouped(download.have), Grouped(download.wanted));
    match download.seconds_left {
        Some(seconds) => format!("downloading shares: {have} of about {wanted}, {seconds:.0} s left"),
        None => format!("downloading shares: {have} of about {wanted}"),
    }
}

/// A number with its thousands apart.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return self.0.fmt(f);
        }
        write!(f, "{},{:03}", Grouped(self.0 / 1000), self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn good() -> Situation {
        Situation { peers: 1, addresses: 5, has_best: true, download: None }
    }

    fn reason(gate: &Gate) -> &str {
        gate.reason().expect("it is closed")
    }

    #[test]
    fn without_peers_and_shares_of_others_it_is_closed_only_where_others_are_expected() {
        let now = Instant::now();
        let alone = Situation::default();
        assert_eq!(Keeper::new(false, false).decide(&alone, now), Gate::Open);
        assert_eq!(Keeper::new(true, true).decide(&alone, now), Gate::Open);
        let mut keeper = Keeper::new(true, false);
        assert!(reason(&keeper.decide(&alone, now)).contains("no address of one is known"));
        let known = Situation { addresses: 1234, ..alone };
        assert_eq!(
            reason(&keeper.decide(&known, now)),
            "waiting for a peer: none of 1,234 known addresses answered yet"
        );
        assert_eq!(keeper.decide(&good(), now), Gate::Open);
    }

    #[test]
    fn shares_of_an_earlier_run_are_not_mined_on_before_a_peer_is_there() {
        let gate = Keeper::new(true, false).decide(&Situation { peers: 0, ..good() }, Instant::now());
        assert!(reason(&gate).starts_with("waiting for a peer"));
    }

    #[test]
    fn while_shares_are_downloaded_it_says_how_many_are_missing() {
        let now = Instant::now();
        let mut keeper = Keeper::new(true, false);
        let mut told = |have, seconds_left| {
            let download = Some(Download { have, wanted: 8640, seconds_left });
            reason(&keeper.decide(&Situation { has_best: false, download, ..good() }, now)).to_owned()
        };
        assert_eq!(told(0, None), "downloading shares: 0 of about 8,640");
        assert_eq!(told(4321, Some(12.3)), "downloading shares: 4,321 of about 8,640, 12 s left");
        let nothing = keeper.decide(&Situation { has_best: false, ..good() }, now);
        assert!(reason(&nothing).starts_with("waiting for shares: the peer has told of none yet"));
    }

    #[test]
    fn a_lost_peer_closes_it_only_when_no_other_came_for_a_minute() {
        let start = Instant::now();
        let mut keeper = Keeper::new(true, false);
        let alone = Situation { peers: 0, ..good() };
        assert_eq!(keeper.decide(&good(), start), Gate::Open);
        assert_eq!(keeper.poll_timeout(), None);
        let lost = start + 100 * SECOND;
        keeper.decide(&good(), lost);
        assert_eq!(keeper.decide(&alone, lost + SECOND), Gate::Open);
        assert_eq!(keeper.poll_timeout(), Some(lost + PEERLESS_MAX));
        assert_eq!(keeper.decide(&alone, lost + 59 * SECOND), Gate::Open);
        let gate = keeper.decide(&alone, lost + PEERLESS_MAX);
        assert_eq!(
            reason(&gate),
            "waiting for a peer: the last one is gone, and none of 5 known addresses answered yet"
        );
        assert_eq!(keeper.decide(&good(), lost + 70 * SECOND), Gate::Open);
    }
}
