//! Shares of a connection: received, requested and sent ones.

use sharechain::share::{CheckError, FormatError, Share, ShareHash, UnprovenShare, VersionError};
use std::sync::Arc;
use std::time::Instant;

use super::outgoing::Outgoing;
use super::{Announcement, Close, Offence, Peer, PeerEvent, forwarding};
use crate::limits::Kind;
use crate::message::{Message, ReplyResult, WrappedShare, replies_that_fit};
use crate::transactions::Transactions;

impl Peer {
    /// Checks shares as far as possible without ancestors, and returns them with the number of those that were skipped
    /// because they cannot be used. Those of obsolete versions are skipped, as in the reference, and a proof of work that
    /// is known is not computed again.
    pub(super) fn load(&mut self, shares: &[WrappedShare], now: Instant) -> Result<(Vec<Arc<Share>>, usize), Close> {
        let mut loaded = Vec::with_capacity(shares.len());
        let (mut unknown, mut unreadable) = (0, None);
        for wrapped in shares {
            match UnprovenShare::from_wrapped(wrapped.version, &wrapped.contents, &self.rules) {
                Ok(share) => loaded.push(Arc::new(self.prove(share, now)?)),
                Err(CheckError::Format(FormatError::Version(VersionError::Obsolete(_)))) => {}
                // Nothing was read, and the rate of shares is limited.
                Err(CheckError::Format(FormatError::Version(VersionError::Unknown(_))))
                    if self.local.has_laxer_nodes =>
                {
                    unknown += 1;
                }
                Err(error) if self.local.has_laxer_nodes && !error.is_misbehaviour() => {
                    unreadable.get_or_insert((error, 0)).1 += 1;
                }
                Err(error) => return Err(close_for(error)),
            }
        }
        let Some((error, count)) = unreadable else { return Ok((loaded, unknown)) };
        self.note_unreadable(close_for(error), now)?;
        Ok((loaded, unknown + count))
    }

    /// The same for an answer to a request: one share that cannot be used empties it, as in the reference (protocol-v36
    /// section 9.1).
    pub(super) fn load_answer(&mut self, shares: &[WrappedShare], now: Instant) -> Result<Vec<Arc<Share>>, Close> {
        let (loaded, skipped) = self.load(shares, now)?;
        Ok(if skipped == 0 { loaded } else { Vec::new() })
    }

    fn prove(&mut self, share: UnprovenShare, now: Instant) -> Result<Share, Close> {
        let known = self.local.shared.proofs.find(&share.hash());
        let pow_hash = match known {
            Some(pow_hash) => pow_hash,
            None => {
                self.limits.take(Kind::Work, 1, now)?;
                match &self.local.shared.hasher {
                    Some(hasher) => hasher.hash(&share.header()),
                    None => (self.rules.pow)(&share.header()),
                }
            }
        };
        let share = share.prove(pow_hash).map_err(close_for)?;
        if known.is_none() {
            self.local.shared.proofs.note(&share);
        }
        Ok(share)
    }

    pub(super) fn handle_request(
        &mut self,
        id: [u8; 32],
        hashes: Vec<ShareHash>,
        parents: u64,
        stops: Vec<ShareHash>,
        now: Instant,
    ) -> Result<(), Close> {
        if hashes.is_empty() {
            // Trap 39: the reference divides by their number, and disconnects.
            return Err(Close::Quiet("share request without hashes".into()));
        }
        self.limits.take(Kind::Served, hashes.len(), now)?;
        if hashes.iter().all(|hash| hash.0 == [0; 32]) {
            // Trap 41: no node has this share; the peer measures the response time.
            return self.answer(id, Vec::new(), now);
        }
        self.requests.asked()?;
        self.events.push_back(PeerEvent::Asked { id, hashes, parents, stops });
        Ok(())
    }

    /// Answers with as many of `shares` as fit; the peer requests the rest. The reference would report that all of them
    /// together are too long.
    pub(super) fn answer(&mut self, id: [u8; 32], mut shares: Vec<Arc<Share>>, now: Instant) -> Result<(), Close> {
        let count = replies_that_fit(&shares);
        if count == 0 && !shares.is_empty() {
            return self.send(&Message::ShareReply { id, result: ReplyResult::TooLong, shares: Vec::new() });
        }
        shares.truncate(count);
        self.limits.count(Kind::Served, count as f64, now);
        self.send_later(Outgoing::Reply { id, shares })
    }

    pub(super) fn send_shares(&mut self, shares: &Announcement, known: &Transactions) -> Result<(), Close> {
        // Shares without their transactions would cost us the connection. Peers that miss them request them, and
        // answers need no transactions.
        let mut sent: Vec<&Arc<Share>> = shares.iter().filter(|share| forwarding::has_all_of(known, share)).collect();
        let around = self.forwarding.around_shares(&sent, known).or_else(|| {
            sent.retain(|share| !share.version().lists_transactions());
            self.forwarding.around_shares(&sent, known)
        });
        let (before, after) = around.map_or((None, None), |around| (around.before, around.after));
        let sent = if sent.len() == shares.len() { shares.clone() } else { sent.into_iter().cloned().collect() };
        before.iter().try_for_each(|message| self.send(message))?;
        for index in 0..sent.messages() {
            self.send_later(Outgoing::Shares { announcement: sent.clone(), index })?;
        }
        after.iter().try_for_each(|message| self.send(message))
    }
}

/// Maximum length of a reason, in characters: an address of megabytes may be part of it.
const REASON_CHARS_MAX: usize = 300;

fn close_for(error: CheckError) -> Close {
    if error.is_misbehaviour() {
        return Offence::Share(error).into();
    }
    Close::Quiet(error.to_string().chars().take(REASON_CHARS_MAX).collect())
}
