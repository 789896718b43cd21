//! Whom to connect to and when: a few addresses of the book, and the nodes that the operator named.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Action, Now, Swarm};
use crate::p2p::addrs::{Group, exponential, groups_of};

/// Connections to addresses of the book, whatever the operator wants (protocol section 3.6).
const OUTGOING_MAX: usize = 10;
/// Connections to addresses of the book, those that are being made included.
const ATTEMPTS_MAX: usize = 30;
/// A permanent node is dialled again after the first of these, then after ever longer, up to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(300);

/// Why an address is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DialKind {
    /// The book has it.
    Book,
    /// The operator named it as one to be connected always.
    Permanent,
}

#[derive(Debug)]
struct Permanent {
    delay: Duration,
    /// When to dial it; none while it is dialled or connected.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Made,
    /// Through its handshake.
    Up,
}

/// What is being dialled and when to dial next.
#[derive(Debug)]
pub(super) struct Dialer {
    random: fastrand::Rng,
    wanted: usize,
    attempts: BTreeMap<SocketAddr, (DialKind, Stage)>,
    permanent: BTreeMap<SocketAddr, Permanent>,
    /// When the book may be asked next.
    next: Instant,
}

impl Dialer {
    pub(super) fn new(random: fastrand::Rng, wanted: usize, now: Instant) -> Self {
        Self {
            random,
            wanted: wanted.min(OUTGOING_MAX),
            attempts: BTreeMap::new(),
            permanent: BTreeMap::new(),
            next: now,
        }
    }

    /// Connections that are being made.
    pub(super) fn dialing(&self) -> usize {
        self.attempts.values().filter(|(_, stage)| *stage == Stage::Dialing).count()
    }

    pub(super) fn set_permanent(&mut self, addresses: &[SocketAddr], now: Instant) {
        self.permanent.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.permanent.entry(*address).or_insert(Permanent { delay: RETRY_FIRST, next: Some(now) });
        }
    }

    /// The address is our own.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.permanent.remove(&address);
    }

    pub(super) fn poll_timeout(&self, is_book_empty: bool) -> Option<Instant> {
        let book = (self.wants() && !is_book_empty).then_some(self.next);
        self.permanent.values().filter_map(|permanent| permanent.next).chain(book).min()
    }

    pub(super) fn note_made(&mut self, address: SocketAddr, kind: DialKind) {
        self.attempts.insert(address, (kind, Stage::Made));
    }

    /// The handshake is through. False if there are more connections than there may be, and this one is to be closed.
    pub(super) fn note_up(&mut self, address: SocketAddr, kind: DialKind) -> bool {
        if kind == DialKind::Book && self.up() >= OUTGOING_MAX {
            return false;
        }
        self.attempts.insert(address, (kind, Stage::Up));
        if let (DialKind::Permanent, Some(permanent)) = (kind, self.permanent.get_mut(&address)) {
            permanent.delay = RETRY_FIRST;
        }
        true
    }

    /// The connection could not be made, or is closed.
    pub(super) fn note_over(&mut self, address: SocketAddr, now: Instant) {
        self.attempts.remove(&address);
        if let Some(permanent) = self.permanent.get_mut(&address) {
            // Up to a fifth shorter or longer, so that two nodes do not call each other at the same time again and again.
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

    /// A permanent node that is due.
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
    /// Dials who is due.
    pub(super) fn dial(&mut self, now: Now) {
        while let Some(address) = self.dialer.due(now.instant) {
            self.actions.push_back(Action::Dial(address, DialKind::Permanent));
        }
        if !self.dialer.wants() || self.dialer.next > now.instant {
            return;
        }
        self.dialer.next = now.instant + Duration::from_secs_f64(exponential(&mut self.dialer.random));
        // One connection to each group, so that no neighbourhood has us for itself.
        let groups = groups_of(self.dialer.attempts.keys().copied());
        let (bans, resting, dialer, connections) = (&self.bans, &self.resting, &self.dialer, &self.connections);
        let may_try = |address: SocketAddr| {
            let ip = address.ip().to_canonical();
            !groups.contains(&Group::of(ip))
                && !bans.is_banned(ip, now.unix)
                && resting.get(&ip).is_none_or(|until| *until <= now.unix)
                && !dialer.permanent.contains_key(&address)
                && connections.values().all(|connection| connection.address != address)
        };
        if let Some(address) = self.book.pick(now.unix, may_try) {
            self.dialer.attempts.insert(address, (DialKind::Book, Stage::Dialing));
            self.actions.push_back(Action::Dial(address, DialKind::Book));
        }
    }
}
