//! Checks that need ancestors: each rule refuses exactly what violates it.

use sharechain::chain::{Event, Sharechain, VerifyError, replay};
use sharechain::share::{Bits, Share, ShareHash, ShareInfo, ShareVersion, TransactionRefs, pack};
use sharechain::testkit::{Plan, START, find, grow, info, network, share_on};
use std::sync::Arc;

fn events(chain: &mut Sharechain) -> Vec<Event> {
    std::iter::from_fn(|| chain.poll_event()).collect()
}

/// Result of the tracker for a share.
fn verdict(chain: &mut Sharechain, share: &Arc<Share>) -> Result<(), VerifyError> {
    let now = f64::from(share.timestamp());
    events(chain);
    chain.add(Arc::clone(share), Some("10.0.0.1:9333".parse().unwrap()), now);
    chain.think(now);
    for event in events(chain) {
        match event {
            Event::Verified(hash) if hash == share.hash() => return Ok(()),
            Event::Refused { hash, source, error } if hash == share.hash() => {
                assert!(source.is_some());
                assert!(!chain.all().contains(&hash), "a bad share stayed");
                return Err(error);
            }
            _ => {}
        }
    }
    panic!("nothing was said to {}", share.hash());
}

fn changed(chain: &mut Sharechain, plan: &Plan, change: impl FnOnce(&mut ShareInfo)) -> Result<(), VerifyError> {
    let tip = chain.tip();
    let mut info = info(chain, &tip, plan);
    change(&mut info);
    let share = find(chain, &tip, plan, info);
    verdict(chain, &share)
}

fn digest(number: u8) -> [u8; 32] {
    [number; 32]
}

#[test]
fn each_field_that_follows_from_the_ancestors_is_refused_by_name_if_it_does_not() {
    let mut chain = Sharechain::new(network(24, 35));
    grow(&mut chain, None, 120, &Plan::default());
    let plan = Plan { timestamp: START + 5000, ..Plan::default() };
    let name = |verdict: Result<(), VerifyError>| match verdict {
        Err(VerifyError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(changed(&mut chain, &plan, |info| info.absheight += 1)), "absheight");
    assert_eq!(name(changed(&mut chain, &plan, |info| info.abswork ^= 1)), "abswork");
    assert_eq!(name(changed(&mut chain, &plan, |info| info.far_share_hash = None)), "far_share_hash");
    assert_eq!(name(changed(&mut chain, &plan, |info| info.max_bits = Bits(0x2101_0000))), "max_bits");
    // The same target in other compact bits is a different target (trap 15).
    assert_eq!(name(changed(&mut chain, &plan, |info| info.bits = Bits(0x2200_00ff))), "bits");
    assert_eq!(name(changed(&mut chain, &plan, |info| info.timestamp = START)), "timestamp");
    assert_eq!(changed(&mut chain, &plan, |_| {}), Ok(()));
}

#[test]
fn the_far_share_is_the_hundredth_ancestor() {
    let mut chain = Sharechain::new(network(24, 35));
    let hashes = grow(&mut chain, None, 102, &Plan::default());
    let far = |height: usize| chain.share(hashes[height - 1]).unwrap().info().far_share_hash;
    assert_eq!((far(100), far(101), far(102)), (None, Some(hashes[0]), Some(hashes[1])));
}

#[test]
fn shares_from_the_future_wait_unblamed_until_their_time_is_near() {
    let network = network(24, 35);
    let mut theirs = Sharechain::new(network);
    let parents = grow(&mut theirs, None, 40, &Plan::default());
    let made = theirs.share(parents[39]).unwrap().timestamp();
    let first = share_on(&mut theirs, Some(parents[39]), &Plan { timestamp: made + 700, ..Plan::default() });
    theirs.add(Arc::clone(&first), None, f64::from(made + 700));
    let early = [vec![first.hash()], grow(&mut theirs, Some(first.hash()), 2, &Plan::default())].concat();
    let mut chain = Sharechain::new(network);
    let now = f64::from(made);
    let add = |chain: &mut Sharechain, hashes: &[ShareHash]| {
        let shares = hashes.iter().map(|hash| theirs.share(*hash).unwrap().clone()).collect();
        chain.add_all(shares, Some("10.0.0.1:9333".parse().unwrap()), now)
    };
    add(&mut chain, &parents);
    chain.think(now);
    events(&mut chain);
    assert_eq!(chain.choice().best, Some(parents[39]));

    add(&mut chain, &early);
    chain.think(now);
    let mut told: Vec<ShareHash> = events(&mut chain)
        .into_iter()
        .filter_map(|event| match event {
            Event::Early { hash, source: Some(_), error: VerifyError::Future { .. } } => Some(hash),
            Event::Verified(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort();
    let mut wanted = early.clone();
    wanted.sort();
    assert_eq!(told, wanted);
    chain.think(now + 5.0);
    chain.prune(now + 5.0);
    assert_eq!(events(&mut chain), [], "once is enough, and no parent is missing");
    assert_eq!(chain.choice().best, Some(parents[39]));

    let time = |hash: ShareHash| f64::from(theirs.share(hash).unwrap().timestamp());
    chain.think(time(early[0]) - 600.5);
    assert_eq!(chain.choice().best, Some(parents[39]));
    chain.think(time(early[1]) - 600.0);
    assert_eq!(chain.choice().best, Some(early[1]), "what is near by now, without being sent again");
    chain.think(time(early[2]) - 600.0);
    assert_eq!(chain.choice().best, Some(early[2]));
    assert!(events(&mut chain).iter().all(|event| matches!(event, Event::Verified(_) | Event::TipChanged(_))));
}

#[test]
fn the_chain_below_shares_from_the_future_is_sought() {
    let network = network(24, 35);
    let mut theirs = Sharechain::new(network);
    let hashes = grow(&mut theirs, None, 40, &Plan::default());
    let top = theirs.share(hashes[39]).unwrap().clone();
    let mut chain = Sharechain::new(network);
    let now = f64::from(top.timestamp()) - 605.0;
    chain.add(top, None, now);
    chain.think(now);
    assert_eq!(chain.choice().wanted.iter().map(|wanted| wanted.hash).collect::<Vec<_>>(), [hashes[38]]);
}

#[test]
fn stored_shares_stay_when_our_clock_was_set_back() {
    let network = network(24, 35);
    let mut source = Sharechain::new(network);
    let hashes = grow(&mut source, None, 40, &Plan::default());
    let mut chain = Sharechain::new(network);
    for hash in &hashes {
        assert!(chain.load(Arc::clone(source.share(*hash).unwrap()), true));
    }
    let now = f64::from(START - 86_400);
    chain.think(now);
    assert!(!chain.recheck(40, now));
    assert_eq!(chain.verified().len(), 40);
    assert!(!events(&mut chain).iter().any(|event| matches!(event, Event::Refused { .. } | Event::Early { .. })));
}

#[test]
fn a_coinbase_that_pays_another_window_is_refused() {
    let mut chain = Sharechain::new(network(24, 35));
    grow(&mut chain, None, 30, &Plan::default());
    let tip = chain.tip();
    let plan = Plan { timestamp: START + 400, ..Plan::default() };
    let info = info(&chain, &tip, &plan);
    // The coinbase is that of a chain not mined yet.
    let fresh = Sharechain::new(network(24, 35)).tip();
    let share = find(&chain, &fresh, &plan, info);
    assert!(matches!(verdict(&mut chain, &share), Err(VerifyError::Coinbase { .. })));
}

#[test]
fn transactions_are_referred_to_in_the_latest_of_a_hundred_shares() {
    let mut chain = Sharechain::new(network(24, 33));
    let at = |chain: &Sharechain, transactions: Vec<[u8; 32]>| {
        let height = u32::try_from(chain.all().len()).unwrap();
        Plan { transactions, timestamp: START + 10 * height, vote: Some(33), ..Plan::default() }
    };
    let refs = |share: &Share| share.info().transactions.clone().unwrap();
    let mine = |chain: &mut Sharechain, transactions: Vec<[u8; 32]>| {
        let best = chain.choice().best;
        let share = share_on(chain, best, &at(chain, transactions));
        assert_eq!(verdict(chain, &share), Ok(()));
        refs(&share)
    };
    assert_eq!(mine(&mut chain, vec![digest(1), digest(2)]).new_hashes.len(), 2);
    for _ in 0..98 {
        mine(&mut chain, vec![]);
    }
    // 99 shares back, then 100 shares back, then too far.
    assert_eq!(*mine(&mut chain, vec![digest(2)]).refs, [(99, 1)]);
    // The share that has just referred to it did not list it.
    assert_eq!(*mine(&mut chain, vec![digest(2)]).refs, [(100, 1)]);
    let again = mine(&mut chain, vec![digest(2)]);
    assert_eq!((&*again.refs, &*again.new_hashes), (&[(0, 0)][..], &[digest(2)][..]));
    // Of two shares that list it, the later one.
    assert_eq!(*mine(&mut chain, vec![digest(2), digest(1)]).refs, [(1, 0), (0, 0)]);

    let plan = at(&chain, vec![digest(2)]);
    let anew = TransactionRefs { new_hashes: [digest(2)].into(), refs: [(0, 0)].into() };
    let refused = changed(&mut chain, &plan, |info| info.transactions = Some(anew));
    assert!(matches!(refused, Err(VerifyError::Field { field: "new_transaction_hashes", .. })), "{refused:?}");
    let nowhere = TransactionRefs { new_hashes: [].into(), refs: [(3, 7)].into() };
    let refused = changed(&mut chain, &plan, |info| info.transactions = Some(nowhere));
    assert_eq!(refused, Err(VerifyError::TransactionRef { back: 3, index: 7 }));
}

#[test]
fn a_share_whose_merkle_link_was_changed_on_the_way_is_taken_and_passed_on_as_its_miner_made_it() {
    let mut chain = Sharechain::new(network(24, 33));
    let plan = Plan { transactions: vec![digest(1), digest(2), digest(3)], vote: Some(33), ..Plan::default() };
    let honest = share_on(&mut chain, None, &plan);
    assert!(honest.info().segwit_data.is_some(), "or the header commits to it");
    for hashes in [0, 1, 2, 5] {
        let mut chain = Sharechain::new(network(24, 33));
        let mut contents = honest.contents().clone();
        contents.merkle_branch = vec![[0xbb; 32]; hashes].into();
        let changed = Arc::new(Share::from_bytes(&pack(&contents), chain.rules()).unwrap());
        assert_eq!(changed.hash(), honest.hash());
        assert_ne!(changed.to_bytes(), honest.to_bytes());
        assert_eq!(verdict(&mut chain, &changed), Ok(()), "{hashes}");
        assert_eq!(**chain.share(honest.hash()).unwrap(), *honest, "{hashes}");
    }
}

#[test]
fn votes_are_counted_in_the_tenth_of_the_chain_nine_tenths_back() {
    // Of 40 shares, the window is the 4 from the 36th ancestor of the parent down.
    let mut chain = Sharechain::new(network(40, 33));
    let vote = |version| Plan { vote: Some(version), ..Plan::default() };
    grow(&mut chain, None, 10, &vote(33));
    let best = chain.choice().best;
    grow(&mut chain, best, 4, &vote(35));
    let best = chain.choice().best;
    grow(&mut chain, best, 35, &vote(33));
    // The parent has height 49: its 36th ancestor has height 13, so three of four shares of the window vote for 35.
    assert_eq!(chain.tip().version(), ShareVersion::V33);
    let best = chain.choice().best;
    grow(&mut chain, best, 1, &vote(33));
    assert_eq!(chain.tip().version(), ShareVersion::V35);
    // One share later, the window has moved too.
    let best = chain.choice().best;
    grow(&mut chain, best, 1, &vote(33));
    assert_eq!(chain.share(chain.choice().best.unwrap()).unwrap().version(), ShareVersion::V35);
    // The protocol required by version 35 was settled by the same votes.
    assert!(events(&mut chain).contains(&Event::MinimumProtocol(3500)));
    assert_eq!(chain.minimum_protocol(), 3500);
}

#[test]
fn an_unverified_share_of_a_replay_is_listed_as_such_and_a_repeated_one_as_a_duplicate() {
    let network = network(24, 35);
    let mut chain = Sharechain::new(network);
    let hashes = grow(&mut chain, None, 6, &Plan::default());
    let hex = |hash: ShareHash| hex::encode(chain.share(hash).unwrap().to_bytes());
    let mut bad = chain.share(hashes[2]).unwrap().to_bytes();
    *bad.last_mut().unwrap() ^= 1;
    let lines = [hex(hashes[0]), hex(hashes[1]), "xyz".into(), hex(hashes[1]), hex(hashes[4]), hex::encode(bad)];
    let mut out = Vec::new();
    replay(network, lines.join("\n").as_bytes(), &mut out).unwrap();
    let printed: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<&str> = printed[..6].iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts[..2], ["ok", "ok"]);
    assert!(verdicts[2].starts_with("not hex"), "{}", verdicts[2]);
    assert_eq!(verdicts[3..5], ["duplicate", "unverified"]);
    assert_ne!(verdicts[5], "ok");
    assert_eq!(printed[6]["best"], hashes[1].to_string());
    assert_eq!((&printed[6]["verified"], &printed[6]["unverified"]), (&2.into(), &1.into()));
}

#[test]
fn on_a_scrypt_network_work_is_judged_by_scrypt_and_shares_are_named_by_sha256d() {
    let easy = format!("BASE = \"litecoin_regtest\"\nMAX_TARGET = \"{}\"", "f".repeat(64));
    let mut chain = Sharechain::new(Box::leak(Box::new(sharechain::coin::from_toml(&easy).unwrap())));
    let hashes = grow(&mut chain, None, 3, &Plan::default());
    assert_eq!(chain.choice().best, hashes.last().copied());
    let share = chain.share(hashes[2]).unwrap();
    let name = sharechain::coin::Pow::Sha256d.function()(&share.header());
    let work = sharechain::coin::Pow::Scrypt.function()(&share.header());
    assert_eq!((share.hash(), *share.pow_hash()), (ShareHash(name), work));
}
