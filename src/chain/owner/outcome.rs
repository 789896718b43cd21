//! Outcome of a choice, for the rest of the node: tip, needs, events, solved shares, and the state of our clock.

use metrics::{counter, gauge};
use sharechain::chain::{Event, Ratchet, RatchetState, VerifyError};
use sharechain::share::ShareHash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

use super::Owner;
use crate::chain::{ChainEvent, Needs, SolvedShare};
use crate::runtime::clock::unix_now;

/// Minimum time for which a wrong clock stays reported in the log.
const EARLY_REPORTED_MIN: Duration = Duration::from_secs(60);

/// Shares sent to peers with a new tip (protocol section 3.7).
const RELAYED_MAX: u32 = 5;

/// Maximum age of a solved share: an older one is downloaded history, its block in the parent chain or lost for good.
const SOLVED_AGE_MAX: f64 = 3600.0;

/// Maximum time a solved share waits for the height of its previous block, and maximum number that wait.
const SOLVED_WAIT_MAX: Duration = Duration::from_secs(60);
const SOLVED_WAITING_MAX: usize = 256;

impl Owner {
    pub(super) async fn note_events(&mut self) {
        let mut verified = Vec::new();
        let mut checked = 0;
        while let Some(event) = self.chain.poll_event() {
            checked += u64::from(matches!(event, Event::Verified(_) | Event::Refused { .. }));
            match event {
                Event::Verified(hash) => {
                    verified.push(hash);
                    self.accepted(hash);
                }
                Event::Refused { hash, source, error } => self.refused(hash, source, &error),
                Event::Early { hash, source, error } => {
                    counter!("sharechain_early_shares_total").increment(1);
                    debug!(share = %hash, ?source, %error, "share waits for its time");
                }
                Event::Block(hash) => self.solved(hash).await,
                Event::TipChanged(best) => debug!(best = ?best, "tip changed"),
                Event::MinimumProtocol(version) => {
                    info!(version, "peers must speak this protocol version from now on");
                    self.minimum_protocol.send_replace(version);
                }
                Event::Ratchet { ratchet, changed_from } => {
                    self.log_ratchet(&ratchet, changed_from);
                    self.ratchet_file.save(ratchet).await;
                }
                Event::ParentWanted(_) | Event::Reissue => {}
            }
        }
        counter!("sharechain_checked_shares_total").increment(checked);
        let (again, new): (Vec<_>, Vec<_>) = verified.into_iter().partition(|hash| self.saved.contains(hash));
        self.save(&new);
        if let Some(store) = self.store.as_ref().filter(|_| !again.is_empty()) {
            store.append_verified(again);
        }
        // Also when more urgent input never pauses.
        self.store_unsaved();
    }

    fn accepted(&self, hash: ShareHash) {
        let Some(share) = self.chain.share(hash) else { return };
        let is_own = self.own_hashes.contains(&hash);
        if is_own {
            info!(height = share.absheight(), share = %hash, payee = %share.payee(), "share found");
        }
        let _ = self.events.send(ChainEvent::Accepted { share: share.clone(), is_own });
    }

    fn refused(&mut self, hash: ShareHash, source: Option<std::net::SocketAddr>, error: &VerifyError) {
        counter!("sharechain_refused_shares_total", "reason" => error.label()).increment(1);
        if let Some(source) = source {
            self.refused_sources.note(hash, source.ip(), error, unix_now());
        }
        if self.own_hashes.contains(&hash) {
            error!(share = %hash, %error, "a share of our own does not fit its ancestors");
        } else {
            warn!(share = %hash, ?source, %error, "share refused");
        }
        let reason: Arc<str> = error.to_string().into();
        let _ = self.events.send(ChainEvent::Refused { hash, source, reason });
        if !self.chain.all().contains(&hash) {
            self.forget(vec![hash]);
        }
    }

    /// Passes on a verified share that solves its block by its header; the consumer decides what it is worth.
    async fn solved(&mut self, hash: ShareHash) {
        let Some(known) = self.chain.known(hash).cloned() else { return };
        debug!(share = %hash, "a share of the chain is a block");
        if f64::from(known.share.timestamp()) < unix_now() - SOLVED_AGE_MAX {
            return;
        }
        if self.solved_waiting.len() == SOLVED_WAITING_MAX {
            self.solved_waiting.pop_front();
        }
        self.solved_waiting.push_back((hash, Instant::now()));
        match self.chain.solution_of(hash) {
            Some(Ok(solution)) => {
                let is_own = self.own_hashes.contains(&hash);
                let solved = SolvedShare {
                    share: known.share,
                    coinbase: solution.coinbase,
                    transactions: solution.transactions,
                    source: known.source,
                    is_own,
                };
                // A missing consumer is no mistake.
                let _ = self.solved.send(solved).await;
            }
            Some(Err(error)) => error!(share = %hash, %error, "the coinbase of a verified share cannot be made again"),
            None => {}
        }
    }

    /// Announces solved shares once it is known that their blocks may count.
    pub(super) fn send_solved(&mut self) {
        let (chain, events) = (&self.chain, &self.events);
        self.solved_waiting.retain(|(hash, since)| {
            let Some(known) = chain.known(*hash) else { return false };
            let is_sent = chain.may_be_block(*hash);
            if is_sent {
                let _ = events.send(ChainEvent::Block { share: known.share.clone(), source: known.source });
            }
            !is_sent && since.elapsed() < SOLVED_WAIT_MAX
        });
    }

    pub(super) fn publish(&mut self) {
        let stale_info = self.chain.own().next_stale_info();
        let ratchet = self.chain.ratchet().map(Ratchet::state);
        let state = (self.chain.choice().best, stale_info, ratchet);
        if self.announced == Some(state) {
            return;
        }
        self.announced = Some(state);
        let tip = self.chain.tip();
        if let Some(before) = self.next_version.replace(tip.version()).filter(|before| *before != tip.version()) {
            info!(version = %tip.version(), %before, "shares of another version are made from now on");
        }
        let number = u32::try_from(tip.version().number()).unwrap_or(u32::MAX);
        gauge!("sharechain_next_version").set(f64::from(number));
        gauge!("sharechain_ratchet_state").set(match ratchet {
            None => 0.0,
            Some(RatchetState::Voting) => 1.0,
            Some(RatchetState::Activated) => 2.0,
            Some(RatchetState::Confirmed) => 3.0,
        });
        gauge!("sharechain_height").set(f64::from(tip.height()));
        gauge!("sharechain_pool_hash_rate").set(tip.rate().unwrap_or_default());
        if let Some(best) = tip.best() {
            gauge!("sharechain_tip_timestamp_seconds").set(f64::from(best.timestamp()));
        }
        self.tips.send_replace(Some(tip));
        self.chain.prepare();
    }

    fn log_ratchet(&self, ratchet: &Ratchet, changed_from: Option<RatchetState>) {
        let height = self.chain.choice().best.map_or(0, |best| self.chain.all().height(best));
        match (changed_from, ratchet.state()) {
            (None, _) => debug!(height, counted = ratchet.confirm_count(), "share version 36 is being confirmed"),
            (Some(_), RatchetState::Activated) => info!(
                height,
                "share version 36 is activated: 95 % of the last shares vote for it, so this node makes it from now on"
            ),
            (Some(_), RatchetState::Confirmed) => info!(
                height,
                "share version 36 is confirmed: peers must know it, and a fresh share chain begins with it"
            ),
            (Some(_), RatchetState::Voting) => warn!(
                height,
                "share version 36 is given up: less than half of the last shares vote for it, so this node makes \
                 version 35 again"
            ),
        }
    }

    /// Announces a new tip, with the shares below it not announced yet, for peers.
    pub(super) fn relay(&mut self) {
        let best = self.chain.choice().best;
        if self.relayed_tip == best {
            return;
        }
        self.relayed_tip = best;
        let Some(best) = best else { return };
        let hashes: Vec<ShareHash> =
            self.chain.all().chain(best, RELAYED_MAX).take_while(|hash| !self.relayed.contains(hash)).collect();
        self.relayed.extend(&hashes);
        let known: Vec<_> = hashes.iter().filter_map(|hash| self.chain.known(*hash)).collect();
        let _ = self.events.send(ChainEvent::TipChanged {
            newest_first: known.iter().map(|known| known.share.clone()).collect(),
            sources: known.iter().map(|known| known.source).collect(),
        });
    }

    pub(super) fn publish_needs(&self) {
        let needs = Needs { wanted: self.chain.choice().wanted.clone(), stops: self.chain.stops() };
        self.needs.send_if_modified(|told| {
            let changed = **told != needs;
            if changed {
                *told = Arc::new(needs);
            }
            changed
        });
    }

    /// Publishes how many shares of peers were refused within the last hour.
    pub(super) fn publish_refused(&mut self) {
        let lately = self.refused_sources.at(unix_now());
        gauge!("sharechain_refused_hour_shares").set(whole(lately.shares));
        gauge!("sharechain_refused_hour_networks").set(whole(lately.networks));
        self.refused.send_if_modified(|before| {
            let has_changed = *before != lately;
            *before = lately;
            has_changed
        });
    }

    /// Publishes the lead of peers' shares over our clock, and logs when it starts and ceases to prove our clock wrong.
    pub(super) fn publish_early(&mut self) {
        let early = self.early_sources.at(unix_now());
        self.early.send_replace(early);
        gauge!("sharechain_early_networks").set(whole(early.networks));
        match (self.early_reported, early.behind()) {
            (None, Some(seconds)) => {
                self.early_reported = Some(Instant::now());
                warn!(
                    seconds,
                    networks = early.networks,
                    "our clock is wrong: peers' shares are ahead of it and cannot be used; set it (timedatectl set-ntp true)"
                );
            }
            // Not sooner: a peer that sends such shares could fill the log.
            (Some(since), None) if early.networks == 0 && since.elapsed() >= EARLY_REPORTED_MIN => {
                self.early_reported = None;
                info!("peers' shares are not ahead of our clock any more");
            }
            _ => {}
        }
    }
}

fn whole(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
