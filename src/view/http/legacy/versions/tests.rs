//! Dashboards get the state of each phase of the change, and texts of strangers become no markup.

use super::*;
use crate::view::snapshot::Config;
use serde_json::Value;
use sharechain::chain::pool::{PoolView, VoteCount};
use sharechain::coin::LITECOIN;
use sharechain::share::ShareHash;
use std::sync::Arc;

const LENGTH: u32 = 1000;

/// A node on a chain of `count` shares of version 35, the newest `votes` of which vote for 36, and with them `deciding`
/// percent of the oldest tenth's work.
fn voting(count: u32, votes: u32, deciding: u64) -> Snapshot {
    let config = Config { network: &LITECOIN, payout_address: "".into(), fee_percent: 0.0, donation_percent: 0.0 };
    let work = |work| U320::from(work);
    let versions = Versions {
        shares: count,
        by_version: BTreeMap::from([(35, count)]),
        by_vote: BTreeMap::from([
            (35, VoteCount { shares: count - votes, oldest: count }),
            (36, VoteCount { shares: votes, oldest: votes }),
        ]),
        deciding: BTreeMap::from([(35, work(100 - deciding)), (36, work(deciding))]),
        unbroken: votes,
        ..Versions::default()
    };
    let chain = PoolView { version: Some(ShareVersion::V35), height: count, versions, ..PoolView::default() };
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let succession = Succession {
        version: Some(35),
        next: Some(35),
        target: Some(36),
        ratchet: Some(Ratchet::default()),
        counted: count,
        chain_length: LENGTH,
        share_period: 15,
        votes,
        deciding: (count >= LENGTH).then_some(deciding as f64 / 100.0),
        outlook: Some("what will be".into()),
        ..Succession::default()
    };
    Snapshot { chain: Arc::new(chain), succession, ..Snapshot::new(&config, 0.0) }
}

fn shown(snapshot: &Snapshot) -> Value {
    serde_json::to_value(signaling(snapshot)).unwrap()
}

#[test]
fn each_phase_of_the_change_has_the_references_word() {
    let phase = |count, votes, deciding| {
        let shown = shown(&voting(count, votes, deciding));
        (shown["status"].as_str().unwrap().to_owned(), shown["transition_progress"].as_f64().unwrap())
    };
    assert_eq!(phase(500, 500, 0), ("building_chain".into(), 50.0));
    assert_eq!(phase(LENGTH, 0, 0), ("waiting".into(), 0.0));
    assert_eq!(phase(LENGTH, 450, 0), ("propagating".into(), 50.0));
    assert_eq!(phase(LENGTH, 950, 30), ("signaling".into(), 30.0));
    assert_eq!(phase(LENGTH, 980, 60), ("signaling_strong".into(), 60.0));
    assert_eq!(phase(LENGTH, LENGTH, 96), ("activating".into(), 100.0));
    assert_eq!(signaling(&voting(9, 9, 0)).map(|_| ()), None);

    let mut changed = voting(LENGTH, LENGTH, 100);
    let mut chain = PoolView::clone(&changed.chain);
    (chain.version, chain.versions.by_version) = (Some(ShareVersion::V36), BTreeMap::from([(36, LENGTH)]));
    changed.chain = Arc::new(chain);
    changed.succession.shares = LENGTH;
    let ratchet = |state| Ratchet::from_json(&format!(r#"{{"state": "{state}", "confirm_count": 500}}"#)).ok();
    changed.succession.ratchet = ratchet("activated");
    let confirming = shown(&changed);
    assert_eq!((&confirming["status"], &confirming["transition_progress"]), (&"confirming".into(), &25.0.into()));
    assert_eq!(
        (&confirming["auto_ratchet"]["state"], &confirming["successor_version"]),
        (&"activated".into(), &Value::Null)
    );
    changed.succession.ratchet = ratchet("confirmed");
    let done = shown(&changed);
    assert_eq!((&done["status"], &done["show_transition"]), (&"no_transition".into(), &false.into()));
    changed.succession.shares = 499;
    let deserted = &shown(&changed)["auto_ratchet"];
    assert_eq!((&deserted["state"], &deserted["persisted_state"]), (&"voting".into(), &"confirmed".into()));
}

#[test]
fn votes_are_given_by_work_and_by_number() {
    let shown = shown(&voting(LENGTH, 450, 25));
    assert_eq!(shown["versions"]["36"], serde_json::json!({"weight": 25, "percentage": 25.0}));
    assert_eq!(shown["full_chain_versions"]["36"], serde_json::json!({"count": 450, "percentage": 45.0}));
    let name = "PaddingBugfixShare";
    assert_eq!(shown["share_types"]["35"], serde_json::json!({"name": name, "count": 1000, "percentage": 100.0}));
    assert_eq!((&shown["target_version"], &shown["target_percentage"]), (&36.into(), &25.0.into()));
    assert_eq!((&shown["shares_to_window"], &shown["time_to_window_seconds"]), (&450.into(), &6750.into()));
    assert_eq!((&shown["overall_v36_votes"], &shown["overall_v36_vote_pct"]), (&450.into(), &45.0.into()));
    assert_eq!(shown["message"], "what will be");
}

#[test]
fn messages_are_given_with_their_signer_and_become_no_markup() {
    let message = |kind: u8, time: u32| Announcement {
        id: String::new(),
        kind,
        kind_name: "a kind".into(),
        flags: 9,
        signer: "fork maintainer".into(),
        time,
        from: "35".into(),
        to: "36".into(),
        text: "<b>update</b>".into(),
        urgency: "required".into(),
        url: Some("javascript:alert('x')".into()),
        threshold: None,
        shares: 1,
        share: ShareHash([0; 32]),
    };
    let mut snapshot = voting(LENGTH, 0, 0);
    snapshot.time = 1000.0;
    let chain = PoolView {
        announcements: vec![message(0x10, 900), message(TRANSITION, 800), message(TRANSITION, 700)],
        ..PoolView::clone(&snapshot.chain)
    };
    snapshot.chain = Arc::new(chain);
    let shown = shown(&snapshot);
    assert!(!shown.to_string().contains('<') && !shown.to_string().contains('\''), "{shown}");
    let newest = &shown["transition_message"];
    assert_eq!(
        (&newest["timestamp"], &newest["to_ver"], &newest["urgency"]),
        (&800.into(), &"36".into(), &"required".into())
    );
    let others = shown["authority_announcements"].as_array().unwrap();
    assert_eq!(others.len(), 1);
    assert_eq!(
        (&others[0]["type_id"], &others[0]["age"], &others[0]["signer"]),
        (&16.into(), &100.into(), &"fork maintainer".into())
    );
}

#[test]
fn the_status_of_version_36_is_null_and_zero_where_there_is_none() {
    let mut snapshot = voting(LENGTH, 0, 0);
    snapshot.succession.ratchet = None;
    let status = serde_json::to_value(v36_status(&snapshot, None)).unwrap();
    assert_eq!(status["auto_ratchet"], Value::Null);
    assert_eq!(
        (&status["share_chain"]["v35_shares"], &status["share_chain"]["v36_percentage"]),
        (&1000.into(), &0.0.into())
    );
    assert!(status.get("merged_pplns_chain_98").is_none());
    snapshot.merged_weights = Some(Arc::default());
    let status = serde_json::to_value(v36_status(&snapshot, Some(98))).unwrap();
    assert_eq!(status["merged_pplns_chain_98"]["total_miners"], 0);
}
