//! Properties of complete shares, and the rules that no recorded share covers (protocol section 18.3).

use ruint::aliases::U320;
use std::collections::HashSet;

use super::*;
use crate::map::Map;
use crate::pack::Reader;
use crate::rules::Layout;

mod properties;

pub(super) fn test_rules() -> ShareRules {
    ShareRules {
        identifier: *b"signet01",
        // Easy enough that nearly every header is a share.
        max_target: Target::MAX_256,
        segwit_activation_version: 33,
        newest_version: 99,
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb".into(),
        pow: pow_sha256d,
        no_votes_for_16_above: None,
    }
}

/// Target met by all but one in millions of hashes.
const EASY: Bits = Bits(0x20ff_ffff);

fn payee(index: u16) -> Payee {
    let mut hash = [7; 20];
    hash[..2].copy_from_slice(&index.to_be_bytes());
    Payee::from_pubkey_hash(&hash, &test_rules())
}

/// Weights of payees without donations.
fn weights(of: impl IntoIterator<Item = (Payee, u64)>) -> Weights {
    let by_payee: Map<_, _> = of.into_iter().map(|(payee, weight)| (payee, U320::from(weight))).collect();
    let total = by_payee.values().fold(U320::ZERO, |sum, weight| sum + weight);
    Weights { by_payee, total, donation: U320::ZERO }
}

fn paid(weights: &Weights, subsidy: u64, finder: &Payee) -> Vec<(String, u64)> {
    let payouts = Payouts::new(ShareVersion::V35, subsidy, weights, &test_rules()).unwrap();
    payouts.with_finder(finder).map(|(payee, amount)| (payee.to_string(), amount)).collect()
}

fn contents(version: ShareVersion) -> Contents {
    let additions = (version.rules().layout == Layout::Merged).then(Box::default);
    Contents {
        version,
        min_header: MinHeader { version: 0x2000_0000, previous_block: None, timestamp: 5, bits: EASY, nonce: 6 },
        share_info: ShareInfo {
            share_data: ShareData {
                previous: Some(ShareHash([1; 32])),
                coinbase: [3, 1, 2, 3].into(),
                nonce: 9,
                payout: payee(1).payout(version).unwrap(),
                subsidy: 5_000_000_000,
                donation: 0,
                stale_info: StaleInfo::NONE,
                desired_version: 35,
            },
            segwit_data: version
                .has_segwit(test_rules().segwit_activation_version)
                .then(|| SegwitData { txid_merkle_branch: [[2; 32]].into(), wtxid_merkle_root: [0; 32] }),
            transactions: version.lists_transactions().then(TransactionRefs::default),
            far_share_hash: None,
            max_bits: EASY,
            bits: EASY,
            timestamp: 1_000,
            absheight: 2,
            abswork: 3,
            additions: additions.clone(),
        },
        ref_merkle_branch: Box::default(),
        last_txout_nonce: 1 << 40,
        // 44 bytes after the last whole block, of which version 36 knows 35.
        hash_link: HashLink { state: [8; 32], extra_data: vec![0; additions.map_or(0, |_| 9)].into(), length: 300 },
        merkle_branch: [[3; 32]].into(),
    }
}

#[test]
fn equal_amounts_are_ordered_by_the_text_of_their_addresses() {
    let finder = payee(99);
    let outputs = paid(&weights((0..20).map(|index| (payee(index), 5))), 1_000_000, &finder);
    let others: Vec<_> = outputs.iter().filter(|(text, _)| text != finder.as_str()).collect();
    let others = &others[..others.len() - 1];
    assert!(others.iter().all(|(_, amount)| *amount == others[0].1));
    assert!(others.windows(2).all(|pair| pair[0].0.as_bytes() < pair[1].0.as_bytes()));
    assert_eq!(others.len(), 20);
}

#[test]
fn only_the_4000_largest_are_paid_with_the_donation_among_them_and_nobody_gets_the_rest() {
    // The finder is none of them, so 4501 payees and the donation compete for places.
    let all = weights((0..4500).map(|index| (payee(index), 1_000 + u64::from(index))));
    let outputs = paid(&all, 100_000_000_000, &payee(u16::MAX));
    assert_eq!(outputs.len(), 4000);
    let sum: u64 = outputs.iter().map(|(_, amount)| amount).sum();
    assert!(sum < 100_000_000_000, "what the smallest lost is not paid out (trap 24)");
    let largest: HashSet<String> = (502..4500).map(|index| payee(index).to_string()).collect();
    assert!(outputs[..3998].iter().all(|(text, _)| largest.contains(text)));
    assert_eq!(outputs[3998].0, payee(u16::MAX).as_str());
    assert_eq!(outputs[3999].0, donation_payee(ShareVersion::V35, &test_rules()).as_str());
}

#[test]
fn no_coinbase_is_longer_than_four_thousand_of_the_longest_outputs() {
    // Witness programs of 40 bytes, and the longest script that a share may have.
    let longest = |index: u16| {
        let mut program = [0x77; 40];
        program[1..3].copy_from_slice(&index.to_be_bytes());
        let words = bech32::primitives::iter::ByteIterExt::bytes_to_fes(program.into_iter());
        let data = [bech32::Fe32::P].into_iter().chain(words);
        let hrp = bech32::Hrp::parse("tb").unwrap();
        let text: String =
            bech32::primitives::iter::Fe32IterExt::with_checksum::<bech32::Bech32>(data, &hrp).chars().collect();
        Payee::from_address(&text, &test_rules()).unwrap()
    };
    let all = weights((1..4500).map(|index| (longest(index), 1_000 + u64::from(index))));
    let mut info = contents(ShareVersion::V35).share_info;
    info.share_data.coinbase = vec![7; 100].into();
    let coinbase = coinbase_of(ShareVersion::V35, &info, &longest(1), &all, &test_rules()).unwrap();
    let size = coinbase.with_witness(&[0; 32], 0).len();
    assert!((203_000..205_000).contains(&size), "{size}");
}

#[test]
fn payees_of_no_satoshi_have_no_output_but_the_donation_always_has() {
    let outputs = paid(&weights([(payee(1), 1), (payee(2), 1_000_000)]), 100, &payee(3));
    assert_eq!(outputs.iter().map(|(_, amount)| *amount).collect::<Vec<_>>(), [99, 1]);
    // 100 // 200 is no satoshi for the finder either.
    let nothing = paid(&Weights::default(), 0, &payee(3));
    assert_eq!(nothing, [(donation_payee(ShareVersion::V35, &test_rules()).to_string(), 0)]);
}

#[test]
fn payees_of_no_satoshi_take_places_before_they_are_left_out() {
    // 4100 payees of which the smallest get nothing: they are dropped first, so the cut keeps the same as without them.
    let all = weights((0..4100).map(|index| (payee(index), if index < 200 { 1 } else { 1_000_000 })));
    let outputs = paid(&all, 10_000_000, &payee(4000));
    assert_eq!(outputs.len(), 3900 + 1);
}

#[test]
fn a_miner_who_is_paid_by_the_donation_address_is_part_of_the_donation() {
    let donation = donation_payee(ShareVersion::V35, &test_rules());
    let outputs = paid(&weights([(payee(1), 300), (donation.clone(), 700)]), 1_000_000, &donation);
    let first = 1_000_000 * 199 * 300 / (200 * 1000);
    assert_eq!(outputs, [(payee(1).to_string(), first), (donation.to_string(), 1_000_000 - first)]);
}

#[test]
fn spellings_in_upper_and_lower_case_are_paid_apart() {
    let lower = "tb1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqaqh7jw";
    let [lower, upper] =
        [lower.to_owned(), lower.to_uppercase()].map(|text| Payee::from_address(&text, &test_rules()).unwrap());
    let both = weights([(lower.clone(), 5), (upper.clone(), 5)]);
    let payouts = Payouts::new(ShareVersion::V35, 4_000, &both, &test_rules()).unwrap();
    let paid: Vec<_> = payouts.with_finder(&lower).collect();
    assert_eq!(paid[..2], [(&upper, 1990), (&lower, 1990 + 20)]);
    assert_eq!(upper.script(ShareVersion::V35), lower.script(ShareVersion::V35));
}

#[test]
fn a_payee_that_cannot_be_paid_stops_only_the_coinbases_that_would_pay_it() {
    // A program of 20 bytes with a leading zero nibble, which versions before 35 cannot write (lead0 vectors).
    let program = [&[0x0b][..], &[0xab; 19]].concat();
    let text = bech32::segwit::encode_v0(bech32::Hrp::parse("tb").unwrap(), &program).unwrap();
    let odd = Payee::from_address(&text, &test_rules()).unwrap();
    let of = |version, weight| {
        let payouts =
            Payouts::new(version, 4_000, &weights([(odd.clone(), weight), (payee(1), 1_000_000)]), &test_rules());
        payouts.unwrap().coinbase(&[1, 2], None, &payee(1))
    };
    assert!(matches!(of(ShareVersion::V34, 500_000), Err(GenerationError::Payee(PayeeError::LeadingZero { .. }))));
    assert!(of(ShareVersion::V35, 500_000).is_ok());
    assert!(of(ShareVersion::V34, 1).is_ok(), "no satoshi is paid, so its script is never built");
}

#[test]
fn a_ref_merkle_link_leads_from_the_shares_own_ref_hash_to_the_one_in_the_coinbase() {
    let mut linked = contents(ShareVersion::V35);
    linked.ref_merkle_branch = [[5; 32], [6; 32]].into();
    let bytes = pack(&linked);
    let share = Share::from_bytes(&bytes, &test_rules()).unwrap();
    assert_eq!(share.to_bytes(), bytes);
    let plain = ref_hash(share.info(), &[], &test_rules());
    assert_eq!(*share.ref_hash(), crate::merkle::fold(plain, &[[5; 32], [6; 32]]));
    let first = sha256d::Hash::hash(&[plain, [5; 32]].concat()).to_byte_array();
    assert_eq!(*share.ref_hash(), sha256d::Hash::hash(&[first, [6; 32]].concat()).to_byte_array());
}

/// Returns the share with this number of hashes in the branch that nothing commits to.
fn with_branch(contents: &Contents, hashes: usize) -> Vec<u8> {
    pack(&Contents { merkle_branch: vec![[9; 32]; hashes].into(), ..contents.clone() })
}

#[test]
fn a_share_that_anyone_made_longer_is_read_as_short_as_it_was_under_the_same_hash() {
    for version in [ShareVersion::V33, ShareVersion::V34, ShareVersion::V35] {
        let honest = Share::check(contents(version), &test_rules()).unwrap();
        let inflated = with_branch(honest.contents(), 120_000);
        assert!(inflated.len() > 3_800_000);
        let read = Share::from_bytes(&inflated, &test_rules()).unwrap();
        assert_eq!(read.hash(), honest.hash());
        assert_eq!(read.to_bytes().len(), honest.to_bytes().len());
        assert_eq!(read.memory_bytes(), honest.memory_bytes());
        // It is cut, not refused: the rest must still be in the format of a share.
        assert!(Share::from_bytes(&inflated[..inflated.len() - 1], &test_rules()).is_err());
        let shorter = with_branch(honest.contents(), 0);
        assert_eq!(Share::from_bytes(&shorter, &test_rules()).unwrap().to_bytes(), shorter);
    }
}

#[test]
fn a_merkle_link_that_the_header_commits_to_stays_as_long_as_it_is() {
    let without_segwit = ShareRules { segwit_activation_version: 0, ..test_rules() };
    let plain = contents(ShareVersion::V17);
    let long = with_branch(&plain, 120_000);
    let read = Share::from_bytes(&long, &without_segwit).unwrap();
    assert_eq!(read.to_bytes(), long);
    assert_ne!(read.hash(), Share::check(plain, &without_segwit).unwrap().hash());
}

#[test]
fn memory_is_counted_by_what_a_share_holds_and_not_by_its_bytes() {
    let mut long = contents(ShareVersion::V35);
    let bytes_of_one = Share::check(long.clone(), &test_rules()).unwrap().memory_bytes();
    assert!((900..1_400).contains(&bytes_of_one), "{bytes_of_one}");
    long.share_info.segwit_data =
        Some(SegwitData { txid_merkle_branch: vec![[1; 32]; 156_251].into(), wtxid_merkle_root: [0; 32] });
    long.ref_merkle_branch = vec![[1; 32]; 10].into();
    long.merkle_branch = vec![[1; 32]; 101].into();
    let long = Share::check(long, &test_rules()).unwrap();
    assert_eq!(long.memory_bytes(), bytes_of_one + 32 * (156_250 + 10 + 100));
    let mut listing = contents(ShareVersion::V33);
    let bytes_of_one = Share::check(listing.clone(), &test_rules()).unwrap().memory_bytes();
    let refs = vec![(1, 2); 100_000].into();
    listing.share_info.transactions = Some(TransactionRefs { new_hashes: [].into(), refs });
    let listing = Share::check(listing, &test_rules()).unwrap();
    assert_eq!(listing.memory_bytes(), bytes_of_one + 16 * 100_000);
    assert!(listing.to_bytes().len() < 201_000);
}

#[test]
fn every_value_of_stale_info_is_kept() {
    for value in 0..=255 {
        let mut odd = contents(ShareVersion::V35);
        odd.share_info.share_data.stale_info = StaleInfo(value);
        let share = Share::from_bytes(&pack(&odd), &test_rules()).unwrap();
        assert_eq!(share.data().stale_info, StaleInfo(value));
    }
    assert_eq!(StaleInfo(17).name().as_deref(), Some("unk17"));
    assert_eq!(StaleInfo(0).name(), None);
}

#[test]
fn each_check_names_what_fails_and_only_lies_about_work_are_misbehaviour() {
    let rules = ShareRules { max_target: Bits(0x1f03_ffff).target(), ..test_rules() };
    let check = |change: &dyn Fn(&mut Contents)| {
        let mut changed = contents(ShareVersion::V35);
        change(&mut changed);
        let error = Share::check(changed, &rules).unwrap_err();
        (error.to_string(), error.is_misbehaviour())
    };
    let easy = check(&|_| ());
    assert!(easy.0.starts_with("share target ffffff0000") && easy.1, "{easy:?}");
    let (text, is_misbehaviour) = check(&|changed| changed.share_info.bits = Bits(0x1d00_ffff));
    assert!(text.contains("is above the share target 00000000ffff") && is_misbehaviour, "{text}");
    let huge = check(&|changed| changed.share_info.bits = Bits(0xff12_3456));
    assert!(huge.1, "{huge:?}");

    let innocent = |change: &dyn Fn(&mut Contents), expected: &str| {
        assert_eq!(check(change), (expected.to_owned(), false));
    };
    innocent(
        &|changed| changed.share_info.share_data.coinbase = [1].into(),
        "share_data.coinbase has 1 bytes, which should be 2 to 100",
    );
    innocent(
        &|changed| changed.share_info.share_data.coinbase = [1; 101].into(),
        "share_data.coinbase has 101 bytes, which should be 2 to 100",
    );
    innocent(
        &|changed| changed.share_info.share_data.payout = Payout::Address("nobody".into()),
        "share_data.address: \"nobody\" is no address",
    );
}

#[test]
fn votes_for_version_16_end_with_the_fork_that_they_were_for() {
    let rules = ShareRules { no_votes_for_16_above: Some(3_927_800), ..test_rules() };
    let check = |absheight, desired_version| {
        let mut changed = contents(ShareVersion::V17);
        changed.share_info.absheight = absheight;
        changed.share_info.share_data.desired_version = desired_version;
        Share::check(changed, &rules).err()
    };
    assert_eq!(check(3_927_801, 16), Some(CheckError::VotesFor16(3_927_801)));
    assert_eq!(check(3_927_800, 16), None);
    assert_eq!(check(3_927_801, 17), None);
}

#[test]
fn references_to_own_transactions_are_exactly_all_of_them() {
    let check = |refs: &[(u64, u64)]| {
        let mut changed = contents(ShareVersion::V33);
        let new_hashes = [[1; 32], [2; 32]].into();
        changed.share_info.transactions = Some(TransactionRefs { new_hashes, refs: refs.into() });
        Share::check(changed, &test_rules()).err()
    };
    assert_eq!(check(&[(0, 0), (0, 1)]), None);
    assert_eq!(check(&[(0, 1), (3, 900), (0, 0), (109, 0)]), None);
    assert_eq!(check(&[(0, 0)]), Some(CheckError::RefsDoNotMatch(2)));
    assert_eq!(check(&[(0, 0), (0, 2)]), Some(CheckError::RefsDoNotMatch(2)));
    assert_eq!(check(&[(0, 0), (0, 1), (0, 2)]), Some(CheckError::RefsDoNotMatch(2)));
    assert_eq!(check(&[(0, 0), (0, 1), (110, 0)]), Some(CheckError::RefTooFar(110)));
}

#[test]
fn versions_and_sentinels_that_no_share_has_are_refused() {
    let bytes = pack(&contents(ShareVersion::V35));
    let (_, inner) = read_wrapped(&mut Reader::new(&bytes)).unwrap();
    for (version, is_misbehaviour) in [(16, true), (18, false), (36, false)] {
        let error = Share::from_wrapped(version, inner, &test_rules()).unwrap_err();
        assert_eq!(error.is_misbehaviour(), is_misbehaviour, "{error}");
    }
    let mut sentinel = contents(ShareVersion::V35);
    sentinel.share_info.segwit_data =
        Some(SegwitData { txid_merkle_branch: Box::default(), wtxid_merkle_root: [0xff; 32] });
    let error = unpack(&pack(&sentinel), &test_rules()).unwrap_err();
    assert_eq!(error, FormatError::NoSegwitData(ShareVersion::V35));
}

#[test]
fn a_mistake_in_the_bytes_is_named_by_its_field() {
    let bytes = pack(&contents(ShareVersion::V35));
    let (_, inner) = read_wrapped(&mut Reader::new(&bytes)).unwrap();
    for (cut, field) in [
        (3, "min_header.version"),
        (20, "min_header.previous_block"),
        (60, "share_data.previous_share_hash"),
        (inner.len() - 1, "merkle_link.branch"),
        (inner.len() - 40, "hash_link.state"),
    ] {
        let error = unpack_contents(35, &inner[..cut], &test_rules()).unwrap_err().to_string();
        assert!(error.contains(field), "{cut}: {error}");
    }
    let longer = [inner, &[0]].concat();
    let error = unpack_contents(35, &longer, &test_rules()).unwrap_err().to_string();
    assert!(error.contains("1 bytes follow the end of share.contents"), "{error}");
}
