//! Share versions, their votes, the ratchet and the authorities' messages, as dashboards of version 36 read them
//! (protocol-v36 section 9.3).

use serde::Serialize;
use serde_json::value::RawValue;
use sharechain::chain::pool::{Announcement, Versions};
use sharechain::chain::{Ratchet, RatchetState, ratio};
use sharechain::merged::MergedKey;
use sharechain::share::ShareVersion;
use std::collections::BTreeMap;
use stratum::Printable;

use ruint::aliases::U320;

use super::integer;
use super::stats::HEIGHT_MIN;
use crate::view::snapshot::{ACCEPTANCE_PERCENT, ACTIVATION_PERCENT, Snapshot, Succession};

/// Kind of the messages that announce a change of version.
const TRANSITION: u8 = 0x20;

/// Maximum length of an announcement's texts in characters: their bytes on the wire.
const TEXT_MAX: usize = 220;

/// `/version_signaling`.
#[derive(Debug, Serialize)]
pub(super) struct Signaling {
    chain_height: u32,
    chain_length_required: u32,
    chain_ready: bool,
    chain_maturity: f64,
    lookbehind: u32,
    total_weight: Box<RawValue>,
    sampling_window_size: u32,
    sampling_signaling: f64,
    share_types: BTreeMap<String, ShareType>,
    current_share_type: u64,
    current_share_name: String,
    target_version: Option<u64>,
    target_version_name: Option<String>,
    target_percentage: f64,
    successor_version: Option<u64>,
    successor_name: Option<String>,
    versions: BTreeMap<String, VersionWeight>,
    full_chain_versions: BTreeMap<String, VersionCount>,
    #[serde(flatten)]
    overall: Overall,
    #[serde(flatten)]
    propagation: Propagation,
    show_transition: bool,
    is_transitioning: bool,
    transition_progress: f64,
    thresholds: Thresholds,
    status: &'static str,
    message: String,
    confirmation_window: u64,
    shares_since_activation: u64,
    auto_ratchet: Option<AutoRatchet>,
    transition_message: Option<TransitionMessage>,
    authority_announcements: Vec<AuthorityAnnouncement>,
    /// The reference warns of miners' addresses that it cannot convert; ours are refused when they connect.
    address_warnings: [(); 0],
}

/// Shares of the whole chain length that are of version 36 or vote for it.
#[derive(Debug, Serialize)]
struct Overall {
    overall_v36_votes: u32,
    overall_v36_vote_pct: f64,
    overall_v36_shares: u32,
    overall_v36_share_pct: f64,
    overall_total: u32,
}

/// Way of the votes for version 36 to the oldest tenth of the chain length.
#[derive(Debug, Serialize)]
struct Propagation {
    propagation_pct: f64,
    propagation_target: u32,
    deepest_v36_position: u32,
    v36_contiguous_from_tip: u32,
    current_type_count: u32,
    shares_to_window: u32,
    time_to_window_seconds: u64,
}

#[derive(Debug, Serialize)]
struct ShareType {
    name: String,
    count: u32,
    percentage: f64,
}

#[derive(Debug, Serialize)]
struct VersionWeight {
    weight: Box<RawValue>,
    percentage: f64,
}

#[derive(Debug, Serialize)]
struct VersionCount {
    count: u32,
    percentage: f64,
}

#[derive(Debug, Serialize)]
struct Thresholds {
    accept: u32,
    activate: u32,
}

/// State of the ratchet.
#[derive(Debug, Serialize)]
struct AutoRatchet {
    state: &'static str,
    persisted_state: &'static str,
    activated_at: Option<u64>,
    activated_height: Option<u64>,
    confirmed_at: Option<u64>,
    confirm_count: u64,
}

#[derive(Debug, Serialize)]
struct TransitionMessage {
    msg: String,
    url: String,
    urgency: String,
    from_ver: String,
    to_ver: String,
    timestamp: u32,
    verified: bool,
    authority: bool,
    signer: String,
}

#[derive(Debug, Serialize)]
struct AuthorityAnnouncement {
    r#type: String,
    type_id: u8,
    timestamp: u32,
    age: i64,
    verified: bool,
    authority: bool,
    signer: String,
    text: String,
    urgency: String,
    url: String,
}

/// Returns `None` while the chain is too short.
pub(super) fn signaling(snapshot: &Snapshot) -> Option<Signaling> {
    let (chain, succession) = (&snapshot.chain, &snapshot.succession);
    let current = chain.version.filter(|_| chain.height >= HEIGHT_MIN)?;
    let (versions, length, counted) = (&chain.versions, succession.chain_length, succession.counted);
    let is_full = counted >= length;
    // Before the oldest tenth of a full chain length exists: the last hour.
    let weights = if is_full { &versions.deciding } else { &chain.votes };
    let total = weights.values().copied().fold(U320::ZERO, |sum, weight| sum + weight);
    let successor = succession.target.filter(|target| *target > current.number());
    let voted = weights.iter().max_by_key(|(_, weight)| **weight).map(|(version, _)| *version);
    let target = successor.or(voted);
    let sampling = succession.deciding.filter(|_| is_full).unwrap_or_default() * 100.0;
    let voted_percent = voted.map_or(0.0, |voted| ratio(weights[&voted], total) * 100.0);
    let progress = Progress::of(snapshot, successor, sampling);
    Some(Signaling {
        chain_height: chain.height,
        chain_length_required: length,
        chain_ready: chain.height >= length,
        chain_maturity: percent(counted, length),
        lookbehind: chain.height.min(length / 10),
        total_weight: integer(total),
        sampling_window_size: length / 10,
        sampling_signaling: rounded(sampling),
        share_types: versions.by_version.iter().map(|(version, count)| share_type(*version, *count, counted)).collect(),
        current_share_type: current.number(),
        current_share_name: name_of(current.number()),
        target_version: target,
        target_version_name: target.map(name_of),
        target_percentage: rounded(if successor.is_some() { sampling } else { voted_percent }),
        successor_version: successor,
        successor_name: successor.map(name_of),
        versions: weights.iter().map(|(version, weight)| version_weight(*version, *weight, total)).collect(),
        full_chain_versions: versions
            .by_vote
            .iter()
            .map(|(version, votes)| {
                let percentage = percent(votes.shares, counted);
                (version.to_string(), VersionCount { count: votes.shares, percentage })
            })
            .collect(),
        overall: Overall::of(versions),
        propagation: Propagation::of(versions, current.number(), succession),
        show_transition: progress.is_shown,
        is_transitioning: progress.is_transitioning,
        transition_progress: rounded(progress.percent),
        thresholds: Thresholds { accept: ACCEPTANCE_PERCENT, activate: ACTIVATION_PERCENT },
        status: progress.status,
        message: succession.outlook.clone().unwrap_or_else(|| "No change of the share version is possible.".to_owned()),
        confirmation_window: Ratchet::confirm_needed(length),
        shares_since_activation: succession.ratchet.map_or(0, |ratchet| ratchet.confirm_count()),
        auto_ratchet: auto_ratchet(succession),
        transition_message: transition_message(&chain.announcements),
        authority_announcements: announcements(&chain.announcements, snapshot.time),
        address_warnings: [],
    })
}

impl Overall {
    fn of(versions: &Versions) -> Self {
        let v36 = ShareVersion::V36.number();
        let (votes, shares) = (versions.votes_from(v36), versions.shares_from(v36));
        Self {
            overall_v36_votes: votes,
            overall_v36_vote_pct: percent(votes, versions.shares),
            overall_v36_shares: shares,
            overall_v36_share_pct: percent(shares, versions.shares),
            overall_total: versions.shares,
        }
    }
}

impl Propagation {
    /// `current` is the version of the best share.
    fn of(versions: &Versions, current: u64, succession: &Succession) -> Self {
        let oldest = versions.oldest_vote_from(ShareVersion::V36.number());
        let way = succession.chain_length * 9 / 10;
        let left = way.saturating_sub(oldest);
        Self {
            propagation_pct: percent(oldest.min(way), way),
            propagation_target: way,
            deepest_v36_position: oldest,
            v36_contiguous_from_tip: versions.unbroken,
            current_type_count: versions.by_version.get(&current).copied().unwrap_or_default(),
            shares_to_window: left,
            time_to_window_seconds: u64::from(left) * u64::from(succession.share_period),
        }
    }
}

/// Progress of the change, in the reference's words.
struct Progress {
    status: &'static str,
    percent: f64,
    is_transitioning: bool,
    is_shown: bool,
}

impl Progress {
    /// `sampling` is the percentage of the deciding work that votes for the `successor` of the best share's version.
    fn of(snapshot: &Snapshot, successor: Option<u64>, sampling: f64) -> Self {
        let (versions, succession) = (&snapshot.chain.versions, &snapshot.succession);
        let state = state_of(succession);
        let is_active = matches!(state, Some("voting" | "activated"));
        let is_transitioning = successor.is_some();
        let since = succession.ratchet.map_or(0, |ratchet| ratchet.confirm_count());
        let needed = Ratchet::confirm_needed(succession.chain_length).max(1);
        let oldest = versions.oldest_vote_from(ShareVersion::V36.number());
        let way = succession.chain_length * 9 / 10;
        let is_short = succession.counted < succession.chain_length;
        #[expect(clippy::cast_precision_loss, reason = "numbers of shares")]
        let confirmed = (since as f64 * 100.0 / needed as f64).min(100.0);
        let (status, percent) = if !is_transitioning && !is_active {
            ("no_transition", 100.0)
        } else if !is_transitioning {
            ("confirming", confirmed)
        } else if is_short {
            ("building_chain", percent(succession.counted, succession.chain_length))
        } else if sampling >= f64::from(ACTIVATION_PERCENT) {
            ("activating", 100.0)
        } else if sampling >= f64::from(ACCEPTANCE_PERCENT) {
            ("signaling_strong", sampling)
        } else if sampling > 0.0 {
            ("signaling", sampling)
        } else if oldest > 0 && oldest < way {
            ("propagating", percent(oldest, way))
        } else {
            ("waiting", 0.0)
        };
        let is_shown = (is_transitioning || is_active) && state != Some("confirmed");
        Self { status, percent, is_transitioning, is_shown }
    }
}

/// State of the ratchet as the reference shows it: one that was confirmed, while most shares are old, is voting.
fn state_of(succession: &Succession) -> Option<&'static str> {
    let is_confirmed = succession.ratchet.is_some_and(|ratchet| ratchet.state() == RatchetState::Confirmed);
    if is_confirmed && succession.counted > 0 && succession.share_part() < 0.5 {
        return Some("voting");
    }
    succession.state()
}

fn auto_ratchet(succession: &Succession) -> Option<AutoRatchet> {
    let (ratchet, state) = (succession.ratchet?, succession.state()?);
    Some(AutoRatchet {
        state: state_of(succession).unwrap_or(state),
        persisted_state: state,
        activated_at: ratchet.activated_at(),
        activated_height: ratchet.activated_height(),
        confirmed_at: ratchet.confirmed_at(),
        confirm_count: ratchet.confirm_count(),
    })
}

fn transition_message(announcements: &[Announcement]) -> Option<TransitionMessage> {
    let newest = announcements.iter().find(|one| one.kind == TRANSITION)?;
    Some(TransitionMessage {
        msg: harmless(&newest.text),
        url: harmless(newest.url.as_deref().unwrap_or_default()),
        urgency: newest.urgency.clone(),
        from_ver: harmless(&newest.from),
        to_ver: harmless(&newest.to),
        timestamp: newest.time,
        // Others are not kept.
        verified: true,
        authority: true,
        signer: newest.signer.clone(),
    })
}

fn announcements(announcements: &[Announcement], now: f64) -> Vec<AuthorityAnnouncement> {
    let others = announcements.iter().filter(|one| one.kind != TRANSITION);
    #[expect(clippy::cast_possible_truncation, reason = "a time since 1970")]
    let of = |one: &Announcement| AuthorityAnnouncement {
        r#type: one.kind_name.clone(),
        type_id: one.kind,
        timestamp: one.time,
        age: now as i64 - i64::from(one.time),
        verified: true,
        authority: true,
        signer: one.signer.clone(),
        text: harmless(&one.text),
        urgency: one.urgency.clone(),
        url: harmless(one.url.as_deref().unwrap_or_default()),
    };
    others.map(of).collect()
}

/// Old front ends put texts into pages as they are.
fn harmless(text: &str) -> String {
    Printable::of_at_most(text, TEXT_MAX).to_string()
}

fn version_weight(version: u64, weight: U320, of: U320) -> (String, VersionWeight) {
    let percentage = ratio(weight, of) * 100.0;
    (version.to_string(), VersionWeight { weight: integer(weight), percentage })
}

fn share_type(version: u64, count: u32, of: u32) -> (String, ShareType) {
    (version.to_string(), ShareType { name: name_of(version), count, percentage: percent(count, of) })
}

/// Name of a share version in the reference.
fn name_of(version: u64) -> String {
    let known = ShareVersion::from_number(version);
    known.map_or_else(|_| format!("V{version}"), |version| version.rules().name.to_owned())
}

fn percent(count: u32, of: u32) -> f64 {
    if of == 0 { 0.0 } else { rounded(f64::from(count) * 100.0 / f64::from(of)) }
}

/// Rounds to hundredths.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// `/v36_status`.
#[derive(Debug, Serialize)]
pub(super) struct V36Status {
    auto_ratchet: Option<AutoRatchet>,
    share_chain: Option<ShareChain>,
    /// Miners connect with addresses of their own each; there is no current one.
    current_miner_merged_addresses: Option<()>,
    /// Weights on merged chains, by `merged_pplns_chain_ID`.
    #[serde(flatten)]
    weights: BTreeMap<String, MergedWeights>,
}

#[derive(Debug, Serialize)]
struct ShareChain {
    height: u32,
    sample_size: u32,
    v35_shares: u32,
    v36_shares: u32,
    v36_with_explicit_merged_addr: u32,
    v36_with_message_data: u32,
    v36_with_payout_hash: u32,
    v36_percentage: f64,
}

#[derive(Debug, Serialize)]
struct MergedWeights {
    total_miners: usize,
    explicit_merged_addr_miners: usize,
    auto_convert_miners: usize,
    total_weight: Box<RawValue>,
    donation_weight: Box<RawValue>,
}

/// Returns the state of version 36; with nulls and zeros on a network without it. `chain_id` is that of the network's
/// merged chain.
pub(super) fn v36_status(snapshot: &Snapshot, chain_id: Option<u32>) -> V36Status {
    let (versions, counted) = (&snapshot.chain.versions, snapshot.succession.counted);
    let new = versions.shares_from(ShareVersion::V36.number());
    let share_chain = (counted > 0).then(|| ShareChain {
        height: snapshot.chain.height,
        sample_size: counted,
        v35_shares: counted - new,
        v36_shares: new,
        v36_with_explicit_merged_addr: versions.with_merged_address,
        v36_with_message_data: versions.with_messages,
        v36_with_payout_hash: versions.with_payout_hash,
        v36_percentage: percent(new, counted),
    });
    let weights = chain_id.zip(snapshot.merged_weights.as_ref()).map(|(chain_id, window)| {
        let weights = &window.weights;
        let explicit = weights.by_key.keys().filter(|key| matches!(key, MergedKey::Merged(_))).count();
        let summed = MergedWeights {
            total_miners: weights.by_key.len(),
            explicit_merged_addr_miners: explicit,
            auto_convert_miners: weights.by_key.len() - explicit,
            total_weight: integer(weights.total),
            donation_weight: integer(weights.donation),
        };
        (format!("merged_pplns_chain_{chain_id}"), summed)
    });
    V36Status {
        auto_ratchet: auto_ratchet(&snapshot.succession),
        share_chain,
        current_miner_merged_addresses: None,
        weights: weights.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
