//! The chain without its server.

use super::*;
use crate::embedded::auxiliary::proof::ProofError;
use crate::embedded::auxiliary::proof::tests::Parts;
use bitcoin::Target;

pub(super) const SUBSIDY: u64 = 10_000 * 100_000_000;

pub(super) fn rules() -> Rules {
    Rules {
        chain_id: 98,
        parent_pow: ParentPow::Sha256d,
        bits: Bits::Fixed(CompactTarget::from_consensus(0x207f_ffff)),
        subsidy: SUBSIDY,
        maturity: 3,
        renewal: Duration::from_secs(60),
        addresses: Addresses { pubkey_hash: 30, script_hash: 22, human_readable_part: None },
    }
}

pub(super) fn at(seconds: u64) -> Moment {
    Moment { unix: 1_700_000_000 + seconds, elapsed: Duration::from_secs(seconds) }
}

pub(super) fn chain() -> Chain {
    Chain::new(rules(), "test", at(0)).unwrap()
}

fn payout(name: u8) -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51, name])
}

fn proof_of(work: &AuxWork) -> Vec<u8> {
    let mut parts = Parts::of(work.hash, 98, 1);
    parts.mine(Target::from_compact(work.bits), ParentPow::Sha256d, true);
    parts.serialise()
}

fn submit(chain: &mut Chain, work: &AuxWork, now: Moment) -> Result<Fate, SubmitError> {
    chain.submit(work.hash, &proof_of(work), now)
}

#[test]
fn a_proven_block_is_the_tip_and_matures() {
    let mut chain = chain();
    let work = chain.create(&payout(1), at(1));
    assert_eq!((work.height, work.coinbase_value, work.previous), (1, SUBSIDY, chain.hash_at(0).unwrap()));
    assert_eq!(chain.confirmations(&work.hash), None);
    assert_eq!(submit(&mut chain, &work, at(2)), Ok(Fate::Tip));
    assert_eq!(chain.tip(), Tip { hash: work.hash, height: 1 });
    let block = chain.block(&work.hash).unwrap();
    assert_eq!(block.header.version.to_consensus(), 0x0062_0104);
    assert_eq!(block.serialised_header()[80..], proof_of(&work));
    for confirmations in 1..5 {
        assert_eq!(chain.confirmations(&work.hash), Some(confirmations));
        let balance = chain.balance(&payout(1));
        let expected = if confirmations < 3 { (0, SUBSIDY) } else { (SUBSIDY, 0) };
        assert_eq!((balance.mature, balance.immature), expected, "{confirmations}");
        chain.mine(at(3));
    }
}

#[test]
fn a_created_block_is_kept_for_each_payout_until_it_is_renewed() {
    let mut chain = chain();
    let first = chain.create(&payout(1), at(0));
    let other = chain.create(&payout(2), at(1));
    assert_ne!(first.hash, other.hash);
    assert_eq!(chain.create(&payout(1), at(60)), first);
    let renewed = chain.create(&payout(1), at(61));
    assert_ne!(renewed.hash, first.hash);
    assert_eq!(chain.create(&payout(1), at(62)), renewed);
    assert_eq!(submit(&mut chain, &first, at(63)), Ok(Fate::Tip), "earlier ones stay known");
}

#[test]
fn a_block_on_an_old_tip_has_a_good_proof_and_is_beside_the_chain_until_it_is_forgotten() {
    let mut chain = chain();
    let [late, lost] = [1, 2].map(|name| chain.create(&payout(name), at(0)));
    let tip = chain.mine(at(1));
    assert_eq!(submit(&mut chain, &late, at(2)), Ok(Fate::Beside));
    assert_eq!((chain.tip().hash, chain.confirmations(&late.hash)), (tip, Some(-1)));
    assert_eq!(chain.balance(&payout(1)), Balance::default());
    assert_eq!(submit(&mut chain, &late, at(2)), Ok(Fate::Known));
    // The next one that is created makes those on the old tip unknown.
    assert_eq!(chain.create(&payout(1), at(3)).height, 2);
    assert_eq!(submit(&mut chain, &lost, at(4)), Err(SubmitError::Unknown));
}

#[test]
fn a_wrong_proof_changes_nothing_and_is_remembered_with_its_reason() {
    let mut chain = chain();
    let work = chain.create(&payout(1), at(0));
    let mut weak = Parts::of(work.hash, 98, 1);
    weak.mine(Target::from_compact(work.bits), ParentPow::Sha256d, false);
    let other = Parts::of(work.hash, 1, 1).serialise();
    let expected = [
        Err(SubmitError::Rule(ProofError::HighHash.into())),
        Err(SubmitError::Decode(DecodeError::Part("coinbase transaction"))),
    ];
    let verdicts = [weak.serialise(), vec![1]].map(|proof| chain.submit(work.hash, &proof, at(1)));
    assert_eq!(verdicts, expected);
    assert!(matches!(
        chain.submit(work.hash, &other, at(1)),
        Err(SubmitError::Rule(RuleError::Proof(
            ProofError::Slot { found: 1, expected: 0 } | ProofError::Slot { found: 0, expected: 1 }
        )))
    ));
    assert_eq!(chain.tip().height, 0);
    let remembered: Vec<_> = chain.submissions().map(|one| one.verdict.clone()).collect();
    assert_eq!(remembered[..2], expected);
    assert_eq!(submit(&mut chain, &work, at(2)), Ok(Fate::Tip), "still known");
}

#[test]
fn a_reorganisation_takes_a_block_out_of_the_best_chain() {
    let mut chain = chain();
    let work = chain.create(&payout(1), at(0));
    submit(&mut chain, &work, at(1)).unwrap();
    chain.mine(at(2));
    chain.reorganise(2, at(3));
    assert_eq!((chain.tip().height, chain.confirmations(&work.hash)), (3, Some(-1)));
    assert_eq!(chain.balance(&payout(1)), Balance::default());
    chain.reorganise(100, at(4));
    assert_eq!(chain.tip().height, 4, "the genesis block stays");
    assert_eq!(submit(&mut chain, &work, at(5)), Ok(Fate::Known));
}

#[test]
fn an_invalidated_block_and_those_upon_it_are_refused() {
    let mut chain = chain();
    let work = chain.create(&payout(1), at(0));
    submit(&mut chain, &work, at(1)).unwrap();
    let above = chain.create(&payout(1), at(2));
    chain.invalidate(1);
    assert_eq!((chain.tip().height, chain.confirmations(&work.hash)), (0, Some(-1)));
    assert_eq!(submit(&mut chain, &above, at(3)), Err(SubmitError::Invalid));
    let fresh = chain.create(&payout(1), at(4));
    assert_eq!((fresh.height, submit(&mut chain, &fresh, at(5))), (1, Ok(Fate::Tip)));
    chain.invalidate(100);
    assert_eq!(chain.tip().height, 0);
}

#[test]
fn of_equal_branches_the_first_wins_and_work_decides_not_length() {
    let mut chain = chain();
    let genesis = chain.hash_at(0).unwrap();
    let easy = CompactTarget::from_consensus(0x207f_ffff);
    let first = chain.mine(at(1));
    chain.mine_on(genesis, easy, at(2));
    assert_eq!(chain.tip().hash, first);
    for _ in 0..3 {
        chain.mine(at(3));
    }
    let hard = chain.mine_on(genesis, CompactTarget::from_consensus(0x2000_ffff), at(4));
    assert_eq!(chain.tip(), Tip { hash: hard, height: 1 });
}

#[test]
fn a_restart_forgets_what_was_created_and_the_number_of_created_blocks_is_bounded() {
    let mut chain = chain();
    let work = chain.create(&payout(1), at(0));
    chain.forget_created();
    assert_eq!(submit(&mut chain, &work, at(1)), Err(SubmitError::Unknown));
    let first = chain.create(&payout(0), at(2));
    for number in 1..1000_u16 {
        chain.create(&ScriptBuf::from_bytes(number.to_be_bytes().to_vec()), at(2));
    }
    assert_eq!(chain.create(&payout(0), at(2)), first);
    chain.create(&payout(7), at(2));
    assert_eq!(submit(&mut chain, &first, at(3)), Err(SubmitError::Unknown));
}

#[test]
fn times_rise_and_bits_follow_the_rule() {
    let mut chain = chain();
    for _ in 0..20 {
        chain.mine(at(0));
    }
    let tip = chain.tip().hash;
    assert!(chain.block(&tip).unwrap().header.time > chain.median_time(&chain.hash_at(19).unwrap()));
    assert_eq!(chain.set_bits(CompactTarget::from_consensus(0)), Err(BitsError(0)));
    let harder = CompactTarget::from_consensus(0x1f00_ffff);
    chain.set_bits(harder).unwrap();
    assert_eq!(chain.create(&payout(1), at(1)).bits, harder);
    let bits = Bits::Adaptive { hash_rate: 1e6, spacing: Duration::from_secs(10) };
    let mut adaptive = Chain::new(Rules { bits, ..rules() }, "test", at(0)).unwrap();
    let target = |work: AuxWork| Target::from_compact(work.bits);
    let first = target(adaptive.create(&payout(1), at(0)));
    for second in 1..30 {
        adaptive.mine(at(second));
    }
    assert!(target(adaptive.create(&payout(1), at(30))) < first, "blocks came too fast");
}
