//! Templates of the test daemon become blocks that it takes, and each value out of range is named.

use super::*;
use crate::embedded::Moment;
use crate::embedded::auxiliary::proof::ParentPow;
use crate::embedded::auxiliary::{Chain, Config, Fate, Rules};
use proptest::prelude::*;
use serde_json::json;
use sharechain::merged::{COMMITMENT_BYTES, MergedBlock, MergedTarget, MergedWork};
use std::time::Duration;
use stratum::printable::is_printable;

fn now() -> Moment {
    Moment { unix: 1_800_000_000, elapsed: Duration::from_secs(1000) }
}

/// A chain of some blocks, with transactions that wait.
fn chain(transactions: usize) -> Chain {
    let rules = Rules { parent_pow: ParentPow::Sha256d, maturity: 3, ..Config::dogecoin().rules };
    let mut chain = Chain::new(rules, "test", Moment { unix: 1_700_000_000, elapsed: Duration::ZERO }).unwrap();
    for _ in 0..5 {
        chain.mine(now());
    }
    for fee in 0..transactions {
        chain.spend(1000 + fee as u64).unwrap();
    }
    chain
}

fn read(answer: Value) -> Result<MergedTemplate, AnswerError> {
    serde_json::from_value::<TemplateAnswer>(answer).unwrap().check()
}

fn template(transactions: usize) -> Arc<MergedTemplate> {
    read(chain(transactions).template(now()).answer()).unwrap().into()
}

/// A coinbase of this value for the block at `height` below 17, with outputs to anyone.
fn coinbase(height: u32, value: u64) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 1];
    bytes.extend([0; 32]);
    bytes.extend([0xff; 4]);
    bytes.extend([2, 0x50 + u8::try_from(height).unwrap(), 0]);
    bytes.extend([0xff; 4]);
    bytes.push(1);
    bytes.extend(value.to_le_bytes());
    bytes.extend([1, 0x51, 0, 0, 0, 0]);
    bytes
}

/// A proof that a parent block of a coinbase alone commits to `hash` and meets an easy target.
fn proof_of(hash: Digest, target: Target) -> Vec<u8> {
    let block = MergedBlock {
        chain: "doge".into(),
        chain_id: 98,
        hash,
        target: MergedTarget::Own(target),
        previous_block: [0; 32],
        height: 1,
        value: None,
        payee: "miners".into(),
    };
    let work = MergedWork::new(vec![block]).unwrap();
    let commitment: [u8; COMMITMENT_BYTES] = work.commitment().unwrap();
    let mut parent = vec![1, 0, 0, 0, 1];
    parent.extend([0; 32]);
    parent.extend([0xff; 4]);
    parent.push(u8::try_from(COMMITMENT_BYTES + 1).unwrap());
    parent.push(u8::try_from(COMMITMENT_BYTES).unwrap());
    parent.extend(commitment);
    parent.extend([0xff; 4]);
    parent.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x51, 0, 0, 0, 0]);
    let mut header = [0; 80];
    header[36..68].copy_from_slice(&sha256d(&parent));
    for nonce in 0_u32.. {
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        if target.is_met_by(&sha256d(&header)) {
            break;
        }
    }
    work.proof(0, &parent, &[], &header).unwrap()
}

#[test]
fn the_daemon_takes_the_block_that_was_built_from_its_template() {
    for (count, kept) in [(0, 0), (1, 1), (7, 7), (7, 4), (7, 0)] {
        let mut chain = chain(count);
        let template: Arc<_> = read(chain.template(now()).answer()).unwrap().into();
        assert_eq!((template.chain_id(), template.version, template.height), (98, 0x0062_0004, 6));
        let fees: u64 = (0..kept as u64).map(|fee| 1000 + fee).sum();
        assert_eq!(template.value_with(kept), chain.rules().subsidy + fees);
        let block = template.block(coinbase(6, template.value_with(kept)), kept);
        assert_eq!(block.header()[..4], [4, 1, 0x62, 0]);
        assert_eq!(block.header()[76..], [0; 4]);
        assert_eq!(merkle::fold(sha256d(&block.coinbase), block.branch()), block.header()[36..68]);
        let bytes = block.bytes(&proof_of(block.hash(), template.target));
        assert!(is_whole(&bytes, &block.hash()) && !is_whole(&bytes[80..], &block.hash()));
        assert!(!is_whole(&bytes[..79], &block.hash()) && !is_whole(&bytes, &[7; 32]));
        assert_eq!(chain.submit_block(&bytes, now()), Ok(Fate::Tip), "{count} {kept}");
        // One unit more, and it is refused.
        let dear = template.block(coinbase(6, template.value_with(kept) + 1), kept);
        let refused = chain.submit_block(&dear.bytes(&proof_of(dear.hash(), template.target)), now());
        assert!(refused.unwrap_err().to_string().contains("the coinbase pays"));
    }
}

#[test]
fn transactions_make_room_for_the_coinbase_from_the_end() {
    let template = template(7);
    assert_eq!(template.fitting(1000, 100), Some(7));
    let room = 1_000_000 - 89 - PROOF_BYTES_MAX;
    let all: usize = template.transactions.iter().map(|one| one.raw.len()).sum();
    assert_eq!(template.fitting(room - all, 0), Some(7));
    assert_eq!(template.fitting(room - all + 1, 0), Some(6));
    assert_eq!(template.fitting(room, 0), Some(0));
    assert_eq!(template.fitting(room + 1, 0), None);
    assert_eq!(template.fitting(usize::MAX, 0), None);
    let mut answer = chain(7).template(now()).answer();
    (0..7).for_each(|index| answer["transactions"][index]["sigops"] = json!(5000));
    let heavy = read(answer).unwrap();
    let counts = [0, 5000, 5001, 20_000, 20_001].map(|sigops| heavy.fitting(1000, sigops));
    assert_eq!(counts, [Some(4), Some(3), Some(2), Some(0), None]);
}

#[test]
fn the_limits_are_the_daemons_if_they_are_lower_than_the_chains() {
    for (limit, room) in [(json!(500_000), 500_000), (json!(32_000_000), 1_000_000), (Value::Null, 1_000_000)] {
        let mut answer = chain(0).template(now()).answer();
        answer["sizelimit"] = limit;
        let read = read(answer).unwrap();
        assert_eq!(read.fitting(room - 89 - PROOF_BYTES_MAX, 0), Some(0));
        assert_eq!(read.fitting(room - 88 - PROOF_BYTES_MAX, 0), None);
    }
}

#[test]
fn values_out_of_range_are_named() {
    let base = chain(1).template(now()).answer();
    assert_eq!(read(base.clone()).unwrap().transactions.len(), 1);
    let mut reversed = hex::decode(base["target"].as_str().unwrap()).unwrap();
    reversed.reverse();
    let long = "12".repeat(100_000);
    for (field, value) in [
        ("version", json!(-1)),
        ("version", json!(1_u64 << 31)),
        ("previousblockhash", json!("00")),
        ("previousblockhash", json!(format!("0x{}", "0".repeat(62)))),
        ("coinbasevalue", json!(0)),
        ("coinbasevalue", json!(999)),
        ("coinbasevalue", json!(VALUE_MAX + 1)),
        ("coinbasevalue", json!(u64::MAX)),
        ("target", json!(hex::encode(reversed))),
        ("target", json!("00".repeat(31) + "01")),
        ("target", json!("20000000")),
        ("target", json!(long)),
        ("bits", json!("207fff")),
        ("bits", json!("20ffffff")),
        ("bits", json!("1e0ffff0")),
        ("curtime", json!(1)),
        ("curtime", json!(1_u64 << 32)),
        ("height", json!(0)),
        ("height", json!(1_u64 << 31)),
        ("sizelimit", json!(0)),
        ("sigoplimit", json!(0)),
        ("default_witness_commitment", json!("6a24aa21a9ed")),
    ] {
        let mut answer = base.clone();
        answer[field] = value;
        let error = read(answer).unwrap_err().to_string();
        let named = if field == "bits" { "bits" } else { field };
        assert!(error.contains(named), "{field}: {error}");
        assert!(error.chars().all(is_printable) && error.chars().count() < 250, "{error}");
    }
    let mut zero = base.clone();
    (zero["target"], zero["bits"]) = (json!("00".repeat(32)), json!("20000000"));
    assert_eq!(read(zero), Err(AnswerError::ZeroTarget));
    let mut ruled = base.clone();
    ruled["rules"] = json!(["csv", "!segwit"]);
    assert!(read(ruled.clone()).unwrap_err().to_string().contains("!segwit"));
    ruled["rules"] = json!(["csv"]);
    assert!(read(ruled).is_ok());
    for (field, value) in
        [("txid", json!("11".repeat(32))), ("data", json!("00")), ("data", json!("0")), ("fee", json!(u64::MAX))]
    {
        let mut answer = base.clone();
        answer["transactions"][0][field] = value;
        assert!(read(answer).is_err(), "{field}");
    }
    let mut many = base.clone();
    many["transactions"] = vec![base["transactions"][0].clone(); 16_667].into();
    assert!(read(many).unwrap_err().to_string().contains("number of transactions"));
}

#[test]
fn values_of_other_types_are_refused_when_they_are_parsed() {
    let base = chain(1).template(now()).answer();
    let fields =
        ["version", "previousblockhash", "transactions", "coinbasevalue", "target", "curtime", "bits", "height"];
    for field in fields {
        for value in [json!({}), json!([7]), json!(true)] {
            let mut answer = base.clone();
            answer[field] = value;
            assert!(serde_json::from_value::<TemplateAnswer>(answer).is_err(), "{field}");
        }
        let mut without = base.clone();
        without.as_object_mut().unwrap().remove(field);
        assert!(serde_json::from_value::<TemplateAnswer>(without).is_err(), "{field}");
    }
}

proptest! {
    #[test]
    fn whatever_the_numbers_are_the_kept_transactions_and_their_value_are_in_range(
        fees in proptest::collection::vec(0_u64..1 << 60, 0..7), value in any::<u64>(),
        coinbase in 0_usize..2_000_000, sigops in 0_u64..40_000,
    ) {
        let mut answer = chain(fees.len()).template(now()).answer();
        for (index, fee) in fees.iter().enumerate() {
            answer["transactions"][index]["fee"] = json!(fee);
        }
        answer["coinbasevalue"] = json!(value);
        if let Ok(template) = read(answer) {
            let sum: u64 = fees.iter().sum();
            prop_assert_eq!(template.value_with(0), value - sum);
            prop_assert_eq!(template.value_with(fees.len()), value);
            prop_assert!(template.fitting(coinbase, sigops).is_none_or(|kept| kept <= fees.len()));
        }
    }
}
