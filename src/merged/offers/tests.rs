//! Offers of daemons and of the node, alone and together.

use super::*;
use crate::merged::template::TemplateAnswer;
use serde_json::json;
use sharechain::merged::MergedKey;
use sharechain::share::{Bits, Target};

fn template(previous: u8, time: u32) -> Offer {
    let answer = json!({
        "version": 0x0062_0004,
        "previousblockhash": format!("{previous:02x}").repeat(32),
        "transactions": [],
        "coinbasevalue": 1_000_000,
        "target": "00".repeat(4) + "ffff" + &"00".repeat(26),
        "curtime": time,
        "bits": "1d00ffff",
        "height": 7,
    });
    let template = serde_json::from_value::<TemplateAnswer>(answer).unwrap().check().unwrap().into();
    Offer::Template { chain: "doge".into(), template }
}

fn made(chain_id: u32, hash: u8) -> Offer {
    Offer::Made(Arc::new(MergedBlock {
        chain: "other".into(),
        chain_id,
        hash: [hash; 32],
        target: MergedTarget::Own(Target::MAX_256),
        previous_block: [9; 32],
        height: 3,
        value: None,
        payee: "N8".into(),
    }))
}

fn weights() -> MergedWeights {
    let mut weights = MergedWeights::default();
    for script in [&b"one"[..], b"two", b"two"] {
        weights.count(MergedKey::Merged(script.into()), Bits(0x1d00_ffff).target().attempts(), 7);
    }
    weights
}

#[test]
fn a_template_alone_is_news_on_another_block_only() {
    let offers = |list: &[Offer]| MergedOffers::from(list.to_vec());
    let before = offers(&[template(1, 100), made(1, 1)]);
    assert!(!offers(&[template(1, 200), made(1, 1)]).supersedes(&before), "refreshed");
    assert!(offers(&[template(2, 100), made(1, 1)]).supersedes(&before));
    assert!(offers(&[template(1, 100), made(1, 2)]).supersedes(&before));
    assert!(offers(&[template(1, 100)]).supersedes(&before));
    assert!(offers(&[made(98, 1), made(1, 1)]).supersedes(&before), "made by the daemon now");
    assert!(MergedOffers::default().supersedes(&before) && !before.supersedes(&before));
    assert!(before.has_template() && !offers(&[made(1, 1)]).has_template());
}

#[test]
fn one_chain_that_pays_the_miners_is_in_shares_if_all_nodes_agree() {
    let alone = MergedOffers::from(vec![template(1, 100)]);
    let jobs = alone.jobs(Some(&weights()), true);
    let block = &jobs.work.blocks()[0];
    assert_eq!((&*block.payee, block.value, block.height, block.chain_id), ("2 miners", Some(1_000_000), 7, 98));
    let entry = jobs.entry().unwrap();
    assert_eq!((entry.header[4..36].to_vec(), entry.value), (vec![1; 32], 1_000_000));
    assert_eq!(jobs.left_out, None);
    let doubtful = alone.jobs(Some(&weights()), false);
    assert_eq!((doubtful.entry(), &doubtful.work), (None, &jobs.work));
    let two = MergedOffers::from(vec![made(1, 1), template(1, 100)]).jobs(Some(&weights()), true);
    assert_eq!((two.entry(), two.work.blocks()[1].hash), (None, block.hash), "other nodes could not check it");
}

#[test]
fn what_is_submitted_is_a_proof_or_the_whole_block() {
    let jobs = MergedOffers::from(vec![made(1, 1), template(1, 100)]).jobs(Some(&weights()), true);
    let (coinbase, header) = ([7; 100], [8; 80]);
    let (first, proof) = jobs.solved(0, &coinbase, &[], &header).unwrap();
    assert_eq!((&*first.chain, &proof), ("other", &jobs.work.proof(0, &coinbase, &[], &header).unwrap()));
    let (second, whole) = jobs.solved(1, &coinbase, &[], &header).unwrap();
    assert_eq!(&*second.chain, "doge");
    assert!(crate::merged::template::is_whole(&whole, &second.hash));
    let proof = jobs.work.proof(1, &coinbase, &[], &header).unwrap();
    assert_eq!(whole[80..80 + proof.len()], proof);
    assert_eq!(whole[80 + proof.len()], 1, "one transaction follows");
    assert_eq!(jobs.solved(2, &coinbase, &[], &header), None);
}

#[test]
fn without_weights_a_template_is_left_out_and_all_else_is_mined() {
    let offers = MergedOffers::from(vec![template(1, 100), made(1, 1)]);
    for weights in [None, Some(MergedWeights::default())] {
        let jobs = offers.jobs(weights.as_ref(), true);
        assert_eq!(jobs.work.blocks().len(), 1);
        assert_eq!(&*jobs.work.blocks()[0].chain, "other");
        assert_eq!((jobs.left_out.clone(), jobs.entry()), (Some(("doge".into(), NotPaid::NoMiner)), None));
        assert!(jobs.solved(0, &[], &[], &[0; 80]).is_some() && jobs.solved(1, &[], &[], &[0; 80]).is_none());
    }
    assert_eq!(MergedOffers::default().jobs(None, true), MergedJobs::default());
}

#[test]
fn work_of_daemons_becomes_offers_and_the_same_work_again() {
    let work = MergedWork::new(vec![made(5, 1).stand_in(), made(98, 2).stand_in()]).unwrap();
    let jobs = MergedOffers::from(work.clone()).jobs(None, false);
    assert_eq!(*jobs.work, work);
    assert_eq!(MergedJobs::from(Arc::new(work)), jobs);
}
