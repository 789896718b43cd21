//! Outgoing connections: a few addresses of the book, and the nodes named by the operator.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Action, Now, PeerId, Swarm};
use crate::addrs::{Group, exponential, groups_of};
use crate::peer::Close;

/// Maximum connections to addresses of the book, whatever the operator configures (protocol section 3.6).
const OUTGOING_MAX: usize = 10;
/// Maximum connections to addresses of the book, including those being established.
const ATTEMPTS_MAX: usize = 30;
/// Initial retry delay of a permanent node; doubled up to the second value.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(300);

/// Mean time until a new node replaces the latest connection, which is the way out of a partition. The others stay, so
/// that an attacker who wants to be all our peers gets one connection at a time, and only briefly.
const ROTATION: Duration = Duration::from_secs(300);

/// Reason for dialling an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DialKind {
    /// An address of the book.
    Book,
    /// A node that the operator always wants connected.
    Permanent,
}

#[derive(Debug)]
struct Permanent {
    delay: Duration,
    /// Next dial; `None` while it is dialled or connected.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Made,
    /// Handshake complete.
    Up,
}

/// Dials in progress and their schedule.
#[derive(Debug)]
pub(super) struct Dialer {
    random: fastrand::Rng,
    wanted: usize,
    attempts: BTreeMap<SocketAddr, (DialKind, Stage)>,
    permanent: BTreeMap<SocketAddr, Permanent>,
    /// Earliest next dial from the book.
    next: Instant,
    /// Next dial from the book with all connections in place.
    next_rotation: Instant,
    /// Address of that dial, until its handshake is complete.
    rotating: Option<SocketAddr>,
}

impl Dialer {
    pub(super) fn new(mut random: fastrand::Rng, wanted: usize, now: Instant) -> Self {
        Self {
            next_rotation: now + ROTATION.mul_f64(exponential(&mut random)),
            rotating: None,
            random,
            wanted: wanted.min(OUTGOING_MAX),
            attempts: BTreeMap::new(),
            permanent: BTreeMap::new(),
            next: now,
        }
    }

    /// Number of connections being established.
    pub(super) fn dialing(&self) -> usize {
        self.attempts.values().filter(|(_, stage)| *stage == Stage::Dialing).count()
    }

    pub(super) fn set_permanent(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.permanent.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.permanent.entry(*address).or_insert(Permanent { delay: RETRY_FIRST, next: Some(now) });
        }
    }

    /// Removes an address that is our own.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.permanent.remove(&address);
    }

    pub(super) fn poll_timeout(&self, is_book_empty: bool) -> Option<Instant> {
        let next = if self.wants() { Some(self.next) } else { self.rotates().then_some(self.next_rotation) };
        let book = next.filter(|_| !is_book_empty);
        self.permanent.values().filter_map(|permanent| permanent.next).chain(book).min()
    }

    pub(super) fn on_dialled(&mut self, address: SocketAddr, kind: DialKind) {
        self.attempts.insert(address, (kind, Stage::Made));
    }

    /// Records a complete handshake. Returns false if the limit is exceeded and this connection is to be closed.
    pub(super) fn on_connected(&mut self, address: SocketAddr, kind: DialKind) -> bool {
        if kind == DialKind::Book && self.up() >= OUTGOING_MAX {
            return false;
        }
        self.attempts.insert(address, (kind, Stage::Up));
        if let (DialKind::Permanent, Some(permanent)) = (kind, self.permanent.get_mut(&address)) {
            permanent.delay = RETRY_FIRST;
        }
        true
    }

    /// Records a failed or closed connection.
    pub(super) fn on_closed(&mut self, address: SocketAddr, now: Instant) {
        self.attempts.remove(&address);
        self.rotating = self.rotating.filter(|rotating| *rotating != address);
        if let Some(permanent) = self.permanent.get_mut(&address) {
            // Up to a fifth shorter or longer, so that two nodes do not keep calling each other at the same time.
            permanent.next = Some(now + permanent.delay.mul_f64(0.8 + 0.4 * self.random.f64()));
            permanent.delay = (permanent.delay * 2).min(RETRY_LONGEST);
        }
    }

    fn up(&self) -> usize {
        self.attempts.values().filter(|attempt| **attempt == (DialKind::Book, Stage::Up)).count()
    }

    fn wants(&self) -> bool {
        let attempts = self.attempts.values().filter(|(kind, _)| *kind == DialKind::Book).count();
        self.up() < self.wanted && attempts < ATTEMPTS_MAX
    }

    /// True if all wanted connections exist, one of which may be replaced.
    fn rotates(&self) -> bool {
        self.wanted > 0 && self.up() >= self.wanted && self.up() < OUTGOING_MAX && self.rotating.is_none()
    }

    /// True if this connection is to replace another one; true only once.
    pub(super) fn takes_anothers_place(&mut self, address: SocketAddr) -> bool {
        let is_rotating = self.rotating == Some(address);
        if is_rotating {
            self.rotating = None;
        }
        is_rotating && self.up() > self.wanted
    }

    /// Returns a permanent node that is due.
    fn due(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_due = |permanent: &Permanent| permanent.next.is_some_and(|next| next <= now);
        let (address, permanent) = self.permanent.iter_mut().find(|(_, permanent)| is_due(permanent))?;
        if self.attempts.contains_key(address) {
            // The book led there before the operator did.
            permanent.next = Some(now + RETRY_LONGEST);
            return self.due(now);
        }
        permanent.next = None;
        self.attempts.insert(*address, (DialKind::Permanent, Stage::Dialing));
        Some(*address)
    }
}

impl Swarm {
    /// Dials all due addresses.
    pub(super) fn dial(&mut self, now: Now) {
        while let Some(address) = self.dialer.due(now.instant) {
            self.actions.push_back(Action::Dial(address, DialKind::Permanent));
        }
        let is_rotation = !self.dialer.wants();
        if is_rotation {
            if !self.dialer.rotates() || self.dialer.next_rotation > now.instant {
                return;
            }
            self.dialer.next_rotation = now.instant + ROTATION.mul_f64(exponential(&mut self.dialer.random));
        } else if self.dialer.next > now.instant {
            return;
        } else {
            self.dialer.next = now.instant + Duration::from_secs_f64(exponential(&mut self.dialer.random));
        }
        // One connection per group, so that no single group has all our connections.
        let groups = groups_of(self.dialer.attempts.keys().copied());
        let (bans, resting, dialer, connections) = (&self.bans, &self.resting, &self.dialer, &self.connections);
        let refusals = self.has_enough_in_excess(now).then_some(&self.refusals);
        let may_try = |address: SocketAddr| {
            let ip = address.ip().to_canonical();
            !groups.contains(&Group::of(ip))
                && !bans.is_banned(ip, now.unix)
                && resting.get(&ip).is_none_or(|until| *until <= now.unix)
                && !dialer.permanent.contains_key(&address)
                && connections.values().all(|connection| connection.address != address)
                && refusals.is_none_or(|refusals| !refusals.is_excess(ip, false, now.instant))
        };
        if let Some(address) = self.book.pick(now.unix, may_try) {
            self.dialer.attempts.insert(address, (DialKind::Book, Stage::Dialing));
            self.dialer.rotating = is_rotation.then_some(address);
            self.actions.push_back(Action::Dial(address, DialKind::Book));
        }
    }

    /// Handles a complete handshake with an address of the book: if it was dialled as a replacement, the latest
    /// connection before it is closed.
    pub(super) fn make_room(&mut self, newcomer: PeerId, now: Now) {
        let Some(address) = self.connections.get(&newcomer).map(|connection| connection.address) else { return };
        if !self.dialer.takes_anothers_place(address) {
            return;
        }
        let others = self.connections.iter().rev();
        let mut others =
            others.filter(|(peer, other)| **peer != newcomer && other.dialed == Some(DialKind::Book) && other.is_up());
        if let Some(peer) = others.next().map(|(peer, _)| *peer) {
            self.disconnect(peer, Close::Quiet("replaced by another node".into()), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::peer::{Hello, PeerEvent};
    use crate::swarm::Config;
    use sharechain::coin::Pow;

    fn hello(nonce: u64) -> PeerEvent {
        PeerEvent::Connected(Hello { version: 3501, services: 0, nonce, sub_version: String::new(), best_share: None })
    }

    /// Returns the dialled peers, in the order of their dials.
    fn dialled(swarm: &Swarm) -> Vec<PeerId> {
        swarm.connections.iter().filter(|(_, peer)| peer.dialed.is_some()).map(|(peer, _)| *peer).collect()
    }

    #[test]
    fn one_place_goes_to_another_node_now_and_then_and_the_others_stay() {
        let mut now = Now { instant: Instant::now(), unix: 1.7e9 };
        let begin = now.instant;
        let config = Config {
            chain_length: 100,
            pow: Pow::Sha256d.function(),
            outgoing_wanted: 4,
            incoming_max: 10,
            whitelist: Vec::new(),
            has_laxer_nodes: false,
        };
        let mut swarm = Swarm::new(config, fastrand::Rng::with_seed(5), now);
        for group in 1..=40 {
            swarm.add_bootstrap(SocketAddr::new(Ipv4Addr::new(50, group, 1, 1).into(), 9333), now);
        }
        let (mut nonce, mut first, mut made) = (0, Vec::new(), 0);
        while let Some(due) = swarm.poll_timeout().filter(|due| *due < begin + Duration::from_secs(4 * 3600)) {
            now = Now { instant: due, unix: 1.7e9 + (due - begin).as_secs_f64() };
            swarm.handle_timeout(now);
            while let Some(action) = swarm.poll_action() {
                if let Action::Dial(address, kind) = action {
                    let peer = swarm.handle_dialed(address, kind, now);
                    nonce += 1;
                    swarm.handle_event(peer, hello(nonce), now);
                    made += 1;
                    let places = dialled(&swarm);
                    assert!(places.len() <= 4, "{places:?}");
                    if places.len() == 4 && first.is_empty() {
                        first = places;
                    }
                }
            }
        }
        // 48 are expected in four hours.
        assert!((30..80).contains(&made), "{made}");
        let last = dialled(&swarm);
        assert_eq!(last[..3], first[..3], "all but the last stay");
        assert_ne!(last[3], first[3]);
    }
}
