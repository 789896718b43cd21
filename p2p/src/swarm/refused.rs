//! Shares that do not fit their ancestors, and what follows for their senders: a ban, or, on networks whose honest nodes
//! pass such shares on, nothing up to a number an hour.

use sharechain::share::ShareHash;
use std::net::{IpAddr, SocketAddr};

use super::{DialKind, Now, PeerId, Swarm};
use crate::peer::{Close, Offence};
use crate::refusals::REFUSED_SHARES_MAX;

/// Number of dialled nodes beyond the limit that stay connected: a miner whose shares only this node refuses must not be
/// able to cut it off from all honest nodes, which pass them on.
const KEPT_MIN: usize = 3;

impl Swarm {
    /// Handles a share from `source` that does not fit its ancestors.
    pub fn handle_refused(&mut self, hash: ShareHash, source: Option<SocketAddr>, reason: &str, now: Now) {
        let Some(source) = source else { return };
        let sender = self.connections.iter().find(|(_, connection)| connection.address == source).map(|(id, _)| *id);
        if self.config.has_laxer_nodes {
            return self.tolerate_refused(sender, source.ip(), now);
        }
        let reason = format!("{hash}: {reason}");
        // An honest node may have it from an attacker, unable to check it yet, and has to answer a request with it.
        let is_answer = self.relay.answerer_of(hash).is_some_and(|peer| sender.is_none_or(|sender| sender == peer));
        let offence = if is_answer { Offence::InvalidAnswer(reason) } else { Offence::InvalidShare(reason) };
        match sender {
            Some(peer) => self.disconnect(peer, Close::Offence(offence), now),
            // Disconnected, but still to be banned.
            None => {
                let base_seconds = u32::try_from(offence.ban().as_secs()).unwrap_or(u32::MAX);
                let _ = self.bans.offend(source.ip(), base_seconds, &offence.to_string(), now.unix);
            }
        }
    }

    fn tolerate_refused(&mut self, sender: Option<PeerId>, ip: IpAddr, now: Now) {
        if self.bans.is_whitelisted(ip) {
            return;
        }
        self.refusals.note(ip, now.instant);
        let Some(peer) = sender else { return };
        let is_let_go = match self.connections.get(&peer).map(|connection| connection.dialed) {
            None | Some(Some(DialKind::Permanent)) => false,
            Some(Some(DialKind::Book)) => {
                self.refusals.is_excess(ip, false, now.instant) && self.dialled_in_excess(now) > KEPT_MIN
            }
            Some(None) => self.refusals.is_excess(ip, true, now.instant),
        };
        if is_let_go {
            self.disconnect(peer, Close::Refusals(REFUSED_SHARES_MAX), now);
        }
    }

    /// True if a connection from `ip` is refused, because too many shares from there were refused within the hour.
    pub(super) fn is_let_go(&self, ip: IpAddr, now: Now) -> bool {
        !self.bans.is_whitelisted(ip) && self.refusals.is_excess(ip, true, now.instant)
    }

    /// True if no node beyond the limit is dialled: enough of them are connected.
    pub(super) fn has_enough_in_excess(&self, now: Now) -> bool {
        self.dialled_in_excess(now) >= KEPT_MIN
    }

    /// Number of dialled nodes beyond the limit.
    fn dialled_in_excess(&self, now: Now) -> usize {
        let dialled = self.up().filter(|(_, connection)| connection.dialed == Some(DialKind::Book));
        dialled.filter(|(_, node)| self.refusals.is_excess(node.address.ip(), false, now.instant)).count()
    }
}
