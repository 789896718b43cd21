//! Admission of connections: each is counted from its acceptance to its end, whatever it speaks. Where there is no room
//! for one more, it is not the newcomer that is refused: the oldest connection of the largest network that has earned
//! nothing is closed.

mod crowd;
mod limits;

pub use limits::Limits;

use ipnet::IpNet;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::metrics;
use crate::mining::source::Source;
use crate::mining::token_buckets::{Allowance, TokenBuckets};
use crowd::{Crowd, Member, Number};

/// Maximum number of connections without a first byte. High enough for a farm that reconnects all at once to a busy
/// machine; each takes some 2 kB.
const SILENT_MAX: usize = 8 * 1024;

/// Maximum number of TLS handshakes at a time; each takes some 40 kB.
const TLS_MAX: usize = 1024;

/// Share of the HTTP connections that one network may hold.
const HTTP_PER_NETWORK: usize = 4;

/// Maximum number of connections being closed for others at a time; while there are as many, newcomers are refused.
/// The caller's limit of open files needs room for these.
pub const CLOSING_MAX: usize = 64;

/// Time without pressure after which an episode of it is over, and the next one is logged again.
const EPISODE_ENDS_AFTER: Duration = Duration::from_secs(60);

/// What a connection without a credited submission is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Has sent nothing yet.
    Silent,
    /// In a TLS handshake.
    Tls,
    /// Speaks HTTP.
    Http,
    /// Speaks Stratum.
    Stratum,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Silent, Self::Tls, Self::Http, Self::Stratum];

    /// Label for metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Stratum => "stratum",
        }
    }
}

/// Limit that a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// Connections of the whole server, none of which can be closed for this one.
    #[error("{0} connections are open already")]
    Server(usize),
    /// Connections of the address.
    #[error("{0} connections from this address are open already")]
    Address(usize),
    /// New connections of the network that contains the address.
    #[error("more than a second's worth of connections from this network came at once")]
    Network,
}

impl Full {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Server(_) => "server_full",
            Self::Address(_) => "address_full",
            Self::Network => "network_too_fast",
        }
    }
}

/// Counts of all open connections, and the right to close those that have earned nothing.
pub struct Admission {
    limits: Limits,
    trusted: Vec<IpNet>,
    stop: CancellationToken,
    /// New connections left to each network.
    newcomers: TokenBuckets,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: Number,
    open: usize,
    /// Connections that were closed for others, and are still open.
    closing: usize,
    by_host: HashMap<Source, usize>,
    /// Connections that have earned nothing, by [`Kind`].
    crowds: [Crowd; Kind::ALL.len()],
    /// Time of the last connection closed or refused for lack of room.
    pressed: Option<Instant>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Admission {
    /// Creates the admission of a server that ends at `stop`. Connections from `trusted` networks are limited in total
    /// alone, and never closed for others.
    pub fn new(limits: Limits, trusted: Vec<IpNet>, stop: CancellationToken) -> Arc<Self> {
        let state =
            State { next: 0, open: 0, closing: 0, by_host: HashMap::new(), crowds: Default::default(), pressed: None };
        let per_second = limits.connections_per_second_max;
        let newcomers = TokenBuckets::new(Allowance { burst: per_second.max(1.0), per_second }, false);
        Arc::new(Self { limits, trusted, stop, newcomers, state: Mutex::new(state) })
    }

    /// Admits a connection from `address` that has just been accepted.
    ///
    /// # Errors
    /// The limit that it exceeds.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        self.enter_at(address, self.is_exempt(address), Instant::now())
    }

    /// Admits a connection of a trusted proxy, whose client is not known yet: see [`Place::is_of`].
    ///
    /// # Errors
    /// The limit that it exceeds.
    pub fn enter_proxy(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        self.enter_at(address, true, Instant::now())
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Number of open connections of all kinds.
    pub fn connections(&self) -> usize {
        self.state.lock().open
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        (self.limits.exempts_loopback && address.is_loopback())
            || self.trusted.iter().any(|network| network.contains(&address))
    }

    fn enter_at(self: &Arc<Self>, address: IpAddr, is_exempt: bool, now: Instant) -> Result<Place, Full> {
        if !is_exempt && !self.newcomers.take(Source::of(address), now) {
            metrics::refused(Full::Network.word());
            return Err(Full::Network);
        }
        let mut evicted = None;
        let entered = self.state.lock().enter(&self.limits, address, is_exempt, now, &mut evicted);
        let number = entered.inspect_err(|full| metrics::refused(full.word()))?;
        let kind = (!is_exempt).then_some(Kind::Silent);
        let place =
            Place { admission: self.clone(), number, address, kind: Mutex::new(kind), ended: self.stop.child_token() };
        if kind.is_some() {
            let member = Member { address, since: now, ended: place.ended.clone() };
            self.insert(Kind::Silent, number, member, now);
        }
        if let Some((kind, member)) = evicted {
            evict(kind, "full", &member);
        }
        Ok(place)
    }

    /// Adds a connection to those of `kind`, and closes others of them if there are too many now.
    fn insert(&self, kind: Kind, number: Number, member: Member, now: Instant) {
        let mut state = self.state.lock();
        let address = member.address;
        state.crowds[kind as usize].insert(number, member);
        metrics::uncredited(kind.word(), state.crowds[kind as usize].len());
        let (in_all, in_network, grace) = match kind {
            Kind::Silent => (SILENT_MAX, SILENT_MAX, Duration::ZERO),
            Kind::Tls => (TLS_MAX, TLS_MAX, Duration::ZERO),
            Kind::Http => (self.limits.http_max, self.limits.http_max / HTTP_PER_NETWORK, Duration::ZERO),
            Kind::Stratum => (usize::MAX, self.limits.uncredited_per_network_max, self.limits.grace),
        };
        let crowd = &state.crowds[kind as usize];
        let before = now.checked_sub(grace).unwrap_or(now);
        let beyond = crowd.beyond(address, in_network, before).map(|number| (number, "network"));
        let crowded = || (crowd.len() > in_all).then(|| crowd.largest()).flatten().map(|(_, number)| (number, "full"));
        let Some((number, reason)) = beyond.or_else(crowded) else { return };
        let evicted = state.close(kind, number);
        if reason == "full" {
            state.note_pressure(now);
        }
        drop(state);
        if let Some(member) = evicted {
            evict(kind, reason, &member);
        }
    }
}

/// Ends a connection for another.
fn evict(kind: Kind, reason: &'static str, member: &Member) {
    metrics::evicted(kind.word(), reason);
    member.ended.cancel();
}

impl State {
    /// Counts a new connection, and returns its number. If it takes the place of another, that is `evicted`.
    fn enter(
        &mut self,
        limits: &Limits,
        address: IpAddr,
        is_exempt: bool,
        now: Instant,
        evicted: &mut Option<(Kind, Member)>,
    ) -> Result<Number, Full> {
        let host = Source::host(address);
        let from_host = self.by_host.get(&host).copied().unwrap_or(0);
        if !is_exempt && from_host >= limits.connections_per_address_max {
            return Err(Full::Address(from_host));
        }
        if self.open >= limits.connections_max.saturating_add(CLOSING_MAX) {
            self.note_pressure(now);
            return Err(Full::Server(self.open));
        }
        // Those that are being closed count no longer.
        if self.open - self.closing >= limits.connections_max {
            self.note_pressure(now);
            let (kind, number) = self.victim(limits.grace, now).ok_or(Full::Server(self.open))?;
            *evicted = self.close(kind, number).map(|member| (kind, member));
        }
        self.open += 1;
        *self.by_host.entry(host).or_insert(0) += 1;
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// The connection to close for another: the oldest that has earned nothing within the time of grace, else the
    /// oldest of the largest network.
    fn victim(&self, grace: Duration, now: Instant) -> Option<(Kind, Number)> {
        let all = || Kind::ALL.into_iter().map(|kind| (kind, &self.crowds[kind as usize]));
        let past_grace = all()
            .filter_map(|(kind, crowd)| Some((crowd.oldest()?, kind)))
            .min_by_key(|((number, _), _)| *number)
            .filter(|((_, since), _)| now.saturating_duration_since(*since) > grace)
            .map(|((number, _), kind)| (kind, number));
        past_grace.or_else(|| {
            let largest = all().filter_map(|(kind, crowd)| Some((crowd.largest()?, kind)));
            largest.max_by_key(|((size, _), _)| *size).map(|((_, number), kind)| (kind, number))
        })
    }

    /// Takes a connection out of its crowd; `None` if it is to be closed, or has earned its place.
    fn take(&mut self, kind: Kind, number: Number) -> Option<Member> {
        let member = self.crowds[kind as usize].remove(number)?;
        metrics::uncredited(kind.word(), self.crowds[kind as usize].len());
        Some(member)
    }

    fn close(&mut self, kind: Kind, number: Number) -> Option<Member> {
        let member = self.take(kind, number)?;
        self.closing += 1;
        Some(member)
    }

    /// Logs the first of a row of connections that are closed or refused for lack of room.
    fn note_pressure(&mut self, now: Instant) {
        let was_quiet = self.pressed.is_none_or(|at| now.saturating_duration_since(at) > EPISODE_ENDS_AFTER);
        self.pressed = Some(now);
        if was_quiet {
            let [silent, tls, http, stratum] = Kind::ALL.map(|kind| self.crowds[kind as usize].len());
            warn!(
                open = self.open,
                silent,
                tls,
                http,
                stratum,
                "connections are full: new ones take the place of those without a credited submission, largest network \
                 first (--max-connections, --max-http-connections)"
            );
        }
    }
}

/// An admitted connection; dropping it frees its place.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    number: Number,
    address: IpAddr,
    /// The crowd that it is in; `None` if it cannot be closed for others.
    kind: Mutex<Option<Kind>>,
    ended: CancellationToken,
}

impl Place {
    /// Address of the client.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Cancelled when the connection is to end: its place is needed, or the server stops.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// True if the connection is to end because its place is needed.
    pub fn is_evicted(&self) -> bool {
        self.ended.is_cancelled() && !self.admission.stop.is_cancelled()
    }

    /// Waits until the connection's place is needed.
    pub async fn evicted(&self) {
        self.ended.cancelled().await;
        if !self.is_evicted() {
            std::future::pending().await
        }
    }

    /// Admits the client of a proxy's connection in its stead.
    ///
    /// # Errors
    /// The limit that the client exceeds.
    pub fn is_of(self, client: IpAddr) -> Result<Self, Full> {
        let admission = self.admission.clone();
        drop(self);
        admission.enter(client)
    }

    /// Notes what the connection is at.
    pub fn becomes(&self, kind: Kind) {
        let mut current = self.kind.lock();
        let Some(before) = *current else { return };
        let member = self.admission.state.lock().take(before, self.number);
        // One that is being closed stays so.
        let Some(member) = member else { return };
        *current = Some(kind);
        self.admission.insert(kind, self.number, member, Instant::now());
    }

    /// Notes a credited submission: from now on, the connection is closed for no other.
    pub fn credit(&self) {
        let mut kind = self.kind.lock();
        let Some(before) = *kind else { return };
        if self.admission.state.lock().take(before, self.number).is_some() {
            *kind = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.open -= 1;
        if let Some(kind) = *self.kind.get_mut()
            && state.take(kind, self.number).is_none()
        {
            state.closing -= 1;
        }
        let host = Source::host(self.address);
        if let Some(count) = state.by_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                state.by_host.remove(&host);
            }
        }
    }
}

#[cfg(test)]
mod tests;
