//! The gate: opens and closes work as a whole, so that no node of a network that others mine on mines a chain of its
//! own by mistake.

use p2p::Status;
use sharechain::chain::Tip;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

/// Time for which miners are kept after the last peer is gone. P2Pool disconnects them at once, which brings a farm
/// back for every reconnect; shares found in a minute alone are few, and are sent to the next peer.
pub const PEERLESS_MAX: Duration = Duration::from_secs(60);

/// State of the gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Work may be given out.
    Open,
    /// No work, for this reason: what the node waits for, with numbers.
    Closed(Arc<str>),
}

impl Gate {
    /// Reason why it is closed, if it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Closed(reason) => Some(reason),
        }
    }
}

/// Inputs of the decision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolReadiness {
    /// Number of peers that exchange shares with this node.
    pub peers: usize,
    /// Number of addresses to try.
    pub addresses: usize,
    /// Set if there is a share to build on.
    pub has_best: bool,
    /// Progress of the first download, while it runs.
    pub download: Option<Download>,
}

/// Progress of a download of shares.
#[derive(Debug, Clone, PartialEq)]
pub struct Download {
    /// Shares downloaded.
    pub have: u64,
    /// Estimated total of shares.
    pub wanted: u64,
    /// Estimated remaining time in seconds, if known.
    pub seconds_left: Option<f64>,
}

impl PoolReadiness {
    fn of(status: &Status, tip: Option<&Tip>) -> Self {
        let download = status.downloading.map(|progress| Download {
            have: progress.have.into(),
            wanted: progress.wanted_estimate.into(),
            seconds_left: progress.seconds_left,
        });
        let has_best = tip.is_some_and(|tip| tip.best().is_some());
        Self { peers: status.peers.len(), addresses: status.addresses, has_best, download }
    }
}

/// Opens and closes `gate` until `stop`, by the state of peers and share chain.
pub async fn keep(
    mut keeper: GateKeeper,
    mut peers: watch::Receiver<Arc<Status>>,
    mut tips: watch::Receiver<Option<Arc<Tip>>>,
    gate: watch::Sender<Gate>,
    stop: CancellationToken,
) {
    loop {
        let status = peers.borrow_and_update().clone();
        let tip = tips.borrow_and_update().clone();
        let decided = keeper.decide(&PoolReadiness::of(&status, tip.as_deref()), Instant::now());
        gate.send_if_modified(|gate| {
            let is_news = *gate != decided;
            *gate = decided;
            is_news
        });
        let timeout = keeper.poll_timeout();
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = peers.changed() => {}
            Ok(()) = tips.changed() => {}
            () = sleep_until(timeout.unwrap_or_else(Instant::now).into()), if timeout.is_some() => {}
            // All senders are gone, so nothing can change any more.
            else => return stop.cancelled().await,
        }
    }
}

/// Decides on the gate. Free of I/O: the time is an argument.
#[derive(Debug)]
pub struct GateKeeper {
    is_guarded: bool,
    /// Time at which there last was a peer; `None` before the first.
    peer_seen: Option<Instant>,
    /// End of the wait for another peer, while it lasts.
    closes_at: Option<Instant>,
}

impl GateKeeper {
    /// Creates a keeper for a network that `persists` (has other miners), unless the operator starts it (`start_pool`).
    pub fn new(persists: bool, start_pool: bool) -> Self {
        Self { is_guarded: persists && !start_pool, peer_seen: None, closes_at: None }
    }

    /// Returns the state at `now`.
    pub fn decide(&mut self, situation: &PoolReadiness, now: Instant) -> Gate {
        let has_peer = situation.peers > 0;
        if has_peer {
            self.peer_seen = Some(now);
        }
        let end = self.peer_seen.map(|seen| seen + PEERLESS_MAX);
        self.closes_at = end.filter(|end| !has_peer && *end > now);
        if !self.is_guarded {
            return Gate::Open;
        }
        let reason = if !situation.has_best && has_peer {
            waiting_for_shares(situation)
        } else if !has_peer && (self.closes_at.is_none() || !situation.has_best) {
            waiting_for_peer(situation.addresses, self.peer_seen.is_some())
        } else {
            return Gate::Open;
        };
        Gate::Closed(reason.into())
    }

    /// Time at which [`Self::decide`] may change without any event.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.closes_at.filter(|_| self.is_guarded)
    }
}

fn waiting_for_peer(addresses: usize, had_one: bool) -> String {
    let known = match addresses {
        0 => "no address of one is known (name one with -n)".to_owned(),
        1 => "the only known address did not answer yet".to_owned(),
        more => format!("none of {} known addresses answered yet", Grouped(more as u64)),
    };
    let lost = if had_one { "the last one is gone, and " } else { "" };
    format!("waiting for a peer: {lost}{known}")
}

fn waiting_for_shares(situation: &PoolReadiness) -> String {
    let Some(download) = &situation.download else {
        let peers =
            if situation.peers == 1 { "the peer has".to_owned() } else { format!("{} peers have", situation.peers) };
        return format!("waiting for shares: {peers} announced none yet (--start-pool begins a network)");
    };
    let (have, wanted) = (Grouped(download.have), Grouped(download.wanted));
    match download.seconds_left {
        Some(seconds) => format!("downloading shares: {have} of about {wanted}, {seconds:.0} s left"),
        None => format!("downloading shares: {have} of about {wanted}"),
    }
}

/// Formats a number with thousands separators.
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

    fn good() -> PoolReadiness {
        PoolReadiness { peers: 1, addresses: 5, has_best: true, download: None }
    }

    fn reason(gate: &Gate) -> &str {
        gate.reason().expect("it is closed")
    }

    #[test]
    fn without_peers_and_shares_of_others_it_is_closed_only_where_others_are_expected() {
        let now = Instant::now();
        let alone = PoolReadiness::default();
        assert_eq!(GateKeeper::new(false, false).decide(&alone, now), Gate::Open);
        assert_eq!(GateKeeper::new(true, true).decide(&alone, now), Gate::Open);
        let mut keeper = GateKeeper::new(true, false);
        assert!(reason(&keeper.decide(&alone, now)).contains("no address of one is known"));
        let known = PoolReadiness { addresses: 1234, ..alone };
        assert_eq!(
            reason(&keeper.decide(&known, now)),
            "waiting for a peer: none of 1,234 known addresses answered yet"
        );
        assert_eq!(keeper.decide(&good(), now), Gate::Open);
    }

    #[test]
    fn shares_of_an_earlier_run_are_not_mined_on_before_a_peer_is_there() {
        let gate = GateKeeper::new(true, false).decide(&PoolReadiness { peers: 0, ..good() }, Instant::now());
        assert!(reason(&gate).starts_with("waiting for a peer"));
    }

    #[test]
    fn while_shares_are_downloaded_it_says_how_many_are_missing() {
        let now = Instant::now();
        let mut keeper = GateKeeper::new(true, false);
        let mut told = |have, seconds_left| {
            let download = Some(Download { have, wanted: 8640, seconds_left });
            reason(&keeper.decide(&PoolReadiness { has_best: false, download, ..good() }, now)).to_owned()
        };
        assert_eq!(told(0, None), "downloading shares: 0 of about 8,640");
        assert_eq!(told(4321, Some(12.3)), "downloading shares: 4,321 of about 8,640, 12 s left");
        let nothing = keeper.decide(&PoolReadiness { has_best: false, ..good() }, now);
        assert!(reason(&nothing).starts_with("waiting for shares: the peer has announced none yet"));
    }

    #[tokio::test]
    async fn it_follows_what_is_known_of_peers() {
        let (peers_sender, peers) = watch::channel(Arc::new(Status::default()));
        let mut chain = sharechain::chain::Sharechain::new(&sharechain::coin::BITCOIN_REGTEST);
        chain.think(0.0);
        let (_tips_sender, tips) = watch::channel(Some(chain.tip()));
        let (sender, mut gate) = watch::channel(Gate::Open);
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(GateKeeper::new(true, false), peers, tips, sender, stop.clone()));
        let closed = gate.wait_for(|gate| *gate != Gate::Open).await.unwrap().clone();
        assert!(reason(&closed).contains("no address of one is known"));
        peers_sender.send_replace(Arc::new(Status { addresses: 3, ..Status::default() }));
        let told = |part: &'static str| move |gate: &Gate| gate.reason().is_some_and(|reason| reason.contains(part));
        gate.wait_for(told("none of 3 known addresses")).await.unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    #[test]
    fn a_lost_peer_closes_it_only_when_no_other_came_for_a_minute() {
        let start = Instant::now();
        let mut keeper = GateKeeper::new(true, false);
        let alone = PoolReadiness { peers: 0, ..good() };
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
