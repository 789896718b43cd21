//! A download with scripted peers: what is requested from whom, and what wrong, late and missing answers cost.

use super::*;
use crate::message::ReplyResult;
use crate::peer::RequestFailed;
use crate::test_shares::{USUAL, answer, chain, extend};
use proptest::prelude::*;
use sharechain::share::{Bits, Share};
use std::sync::Arc;

const CHAIN_LENGTH: u32 = 1000;
const SECOND: Duration = Duration::from_secs(1);
const FAILED: RequestFailed = RequestFailed::Refused(ReplyResult::Reserved(2));
const TOO_LONG: RequestFailed = RequestFailed::Refused(ReplyResult::TooLong);

fn download() -> Download {
    Download::new(CHAIN_LENGTH, fastrand::Rng::with_seed(5))
}

fn address(number: u64) -> SocketAddr {
    format!("9.{number}.0.1:9333").parse().unwrap()
}

fn add(download: &mut Download, number: u64, now: Instant) -> PeerId {
    download.add_peer(PeerId(number), address(number), now);
    PeerId(number)
}

fn wanted(hash: ShareHash, source: Option<SocketAddr>, bits: Bits) -> Wanted {
    Wanted { hash, source, timestamp: 0, target: bits.target() }
}

fn asks(download: &mut Download) -> Vec<Ask> {
    std::iter::from_fn(|| download.poll_ask()).collect()
}

fn give(download: &mut Download, ask: &Ask, shares: &[Arc<Share>], now: Instant) -> Outcome {
    let shares = answer(shares, ask.hash, ask.parents, &ask.stops);
    download.handle_reply(ask.peer, ask.request, Ok(shares), now)
}

#[test]
fn a_chain_comes_from_one_peer_answer_by_answer_without_a_pause() {
    let mut download = download();
    let shares = chain(1801, 0, USUAL);
    let mut now = Instant::now();
    let peer = add(&mut download, 1, now);
    download.ask_announced(peer, shares[1800].hash(), now);
    let mut came: Vec<Arc<Share>> = Vec::new();
    let mut parents = Vec::new();
    while let Some(ask) = download.poll_ask() {
        now += SECOND / 10;
        parents.push(ask.parents);
        let Outcome::Shares(shares) = give(&mut download, &ask, &shares, now) else { panic!("shares") };
        download.taken(shares.len(), now);
        came.extend(shares);
        let progress = download.progress(now);
        assert!(progress.is_none_or(|progress| progress.wanted_estimate == 1801), "{progress:?}");
    }
    assert_eq!(parents, [0, 499, 499, 499, 499], "the owner said nothing all the time");
    assert!(came.iter().eq(shares.iter().rev()), "each share came once, newest first");
    assert_eq!(download.progress(now), None);
}

#[test]
fn the_peer_that_told_of_a_chain_is_asked_first_and_the_stops_go_with_the_question() {
    let mut download = download();
    let shares = chain(3, 0, USUAL);
    let now = Instant::now();
    for number in 1..6 {
        add(&mut download, number, now);
    }
    let stops: Vec<ShareHash> = (0..120u8).map(|number| ShareHash([number; 32])).collect();
    download.set_needs(&[wanted(shares[2].hash(), Some(address(4)), USUAL)], &stops, now);
    let asks = asks(&mut download);
    assert_eq!(asks.len(), 1);
    assert_eq!((asks[0].peer, asks[0].parents, asks[0].stops.len()), (PeerId(4), 499, STOPS_MAX));
    assert_eq!(asks[0].stops[..], stops[..STOPS_MAX]);
}

#[test]
fn several_chains_are_asked_for_at_several_peers_the_hardest_first() {
    let mut download = download();
    let now = Instant::now();
    let hashes = [ShareHash([1; 32]), ShareHash([2; 32]), ShareHash([3; 32])];
    let needs = [
        wanted(hashes[0], None, Bits(0x2030_0000)),
        wanted(hashes[1], None, Bits(0x2010_0000)),
        wanted(hashes[2], None, Bits(0x2020_0000)),
    ];
    download.set_needs(&needs, &[], now);
    add(&mut download, 1, now);
    assert_eq!(asks(&mut download)[0].hash, hashes[1]);
    add(&mut download, 2, now);
    assert_eq!(asks(&mut download)[0].hash, hashes[2]);
}

#[test]
fn a_slow_peer_gets_company_and_its_late_answer_does_no_harm() {
    let mut download = download();
    let shares = chain(10, 0, USUAL);
    let mut now = Instant::now();
    let slow = add(&mut download, 1, now);
    download.set_needs(&[wanted(shares[9].hash(), Some(address(1)), USUAL)], &[], now);
    let first = asks(&mut download).remove(0);
    assert_eq!(first.peer, slow);
    add(&mut download, 2, now);
    assert!(asks(&mut download).is_empty(), "patience");
    now = download.poll_timeout().unwrap();
    download.handle_timeout(now);
    let second = asks(&mut download).remove(0);
    assert_eq!((second.peer, second.hash), (PeerId(2), first.hash));
    assert!(matches!(give(&mut download, &second, &shares, now), Outcome::Shares(shares) if shares.len() == 10));
    assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing);
    assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing, "nor does a second one");
}

#[test]
fn a_lost_peers_question_goes_to_another() {
    let mut download = download();
    let now = Instant::now();
    add(&mut download, 1, now);
    download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
    assert_eq!(asks(&mut download)[0].peer, PeerId(1));
    add(&mut download, 2, now);
    download.remove_peer(PeerId(1), now);
    assert_eq!(asks(&mut download)[0].peer, PeerId(2));
}

#[test]
fn what_nobody_has_is_asked_for_again_after_ever_longer_pauses() {
    let mut download = download();
    let mut now = Instant::now();
    add(&mut download, 1, now);
    add(&mut download, 2, now);
    download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        for _ in 0..2 {
            let ask = asks(&mut download).remove(0);
            assert_eq!(give(&mut download, &ask, &[], now), Outcome::Nothing);
        }
        assert!(asks(&mut download).is_empty());
        let due = download.poll_timeout().unwrap();
        pauses.push((due - now).as_secs());
        now = due;
        download.handle_timeout(now);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    add(&mut download, 3, now);
    assert!(asks(&mut download).iter().any(|ask| ask.peer == PeerId(3)) || download.poll_timeout().is_some());
}

#[test]
fn an_answer_to_another_question_is_an_offence() {
    let shares = chain(9, 0, USUAL);
    let others = chain(9, 1, USUAL);
    let reversed: Vec<_> = shares.iter().rev().cloned().collect();
    let gap: Vec<_> = reversed.iter().take(1).chain(reversed.iter().skip(2)).cloned().collect();
    for wrong in [others.clone(), shares.clone(), reversed[1..].to_vec(), gap] {
        let mut download = download();
        let now = Instant::now();
        let peer = add(&mut download, 1, now);
        download.set_needs(&[wanted(shares[8].hash(), None, USUAL)], &[], now);
        let ask = asks(&mut download).remove(0);
        assert!(matches!(download.handle_reply(peer, ask.request, Ok(wrong), now), Outcome::NotAsked(_)));
    }
    let mut download = download();
    let now = Instant::now();
    let peer = add(&mut download, 1, now);
    download.ask_announced(peer, shares[8].hash(), now);
    let ask = asks(&mut download).remove(0);
    assert!(matches!(download.handle_reply(peer, ask.request, Ok(reversed), now), Outcome::NotAsked(_)), "too many");
}

#[test]
fn a_failed_answer_makes_the_next_question_smaller() {
    let mut download = download();
    let now = Instant::now();
    let peer = add(&mut download, 1, now);
    add(&mut download, 2, now);
    download.set_needs(&[wanted(ShareHash([1; 32]), Some(address(1)), USUAL)], &[], now);
    let ask = asks(&mut download).remove(0);
    assert_eq!(download.handle_reply(peer, ask.request, Err(FAILED), now), Outcome::Failed);
    let again = asks(&mut download).remove(0);
    assert_eq!((again.peer, again.parents), (PeerId(2), 249));
}

#[test]
fn an_answer_that_would_be_too_long_is_asked_for_in_smaller_parts_of_the_same_peer_without_a_pause() {
    let mut download = download();
    let now = Instant::now();
    let peer = add(&mut download, 1, now);
    let shares = chain(9, 0, USUAL);
    download.set_needs(&[wanted(shares[8].hash(), None, USUAL)], &[], now);
    let mut parents = Vec::new();
    let last = loop {
        let ask = asks(&mut download).remove(0);
        parents.push(ask.parents);
        if ask.parents == 0 {
            break ask;
        }
        assert_eq!(download.handle_reply(peer, ask.request, Err(TOO_LONG), now), Outcome::Nothing);
    };
    assert_eq!(parents, [499, 249, 124, 62, 31, 15, 7, 3, 1, 0]);
    assert!(matches!(give(&mut download, &last, &shares, now), Outcome::Shares(shares) if shares.len() == 1));
    // If not even one share can be sent, other peers are asked.
    let hash = ShareHash([1; 32]);
    download.set_needs(&[wanted(hash, None, USUAL)], &[], now);
    for _ in 0..9 {
        let ask = asks(&mut download).remove(0);
        download.handle_reply(peer, ask.request, Err(TOO_LONG), now);
    }
    let ask = asks(&mut download).remove(0);
    add(&mut download, 2, now);
    assert_eq!(download.handle_reply(peer, ask.request, Err(TOO_LONG), now), Outcome::Nothing);
    assert_eq!(asks(&mut download)[0].peer, PeerId(2));
}

#[test]
fn an_answer_that_comes_late_because_it_is_long_still_counts() {
    let mut download = download();
    let mut now = Instant::now();
    let peer = add(&mut download, 1, now);
    let shares = chain(1, 0, USUAL);
    download.set_needs(&[wanted(shares[0].hash(), None, USUAL)], &[], now);
    let first = asks(&mut download).remove(0);
    now += REPLY_MAX;
    download.handle_timeout(now);
    assert!(matches!(give(&mut download, &first, &shares, now), Outcome::Shares(shares) if shares.len() == 1));
    assert_eq!(give(&mut download, &first, &shares, now), Outcome::Nothing, "once");
    // Not from a peer that was not asked, nor after its connection ended.
    download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
    let first = asks(&mut download).remove(0);
    now += REPLY_MAX;
    download.handle_timeout(now);
    assert_eq!(download.handle_reply(PeerId(7), first.request, Ok(shares), now), Outcome::Nothing);
    download.remove_peer(peer, now);
    assert!(download.late.is_empty());
}

#[test]
fn the_owner_is_not_flooded() {
    let mut download = download();
    let now = Instant::now();
    let shares = chain(5 * 500, 0, USUAL);
    let chains: Vec<_> = (1..20).map(|nonce| extend(&shares, 1, nonce, USUAL)).collect();
    let needs: Vec<_> = chains.iter().map(|chain| wanted(chain[0].hash(), None, USUAL)).collect();
    download.set_needs(&needs, &[], now);
    for number in 0..20 {
        add(&mut download, number, now);
    }
    let asked = asks(&mut download);
    assert_eq!(asked.len(), SHARES_IN_FLIGHT_MAX / 500, "and the rest waits");
    for ask in &asked {
        let chain = chains.iter().find(|chain| chain[0].hash() == ask.hash).unwrap();
        let whole: Vec<_> = shares.iter().chain(chain).cloned().collect();
        assert!(matches!(give(&mut download, ask, &whole, now), Outcome::Shares(_)));
    }
    assert!(asks(&mut download).is_empty(), "nothing was taken");
    download.taken(1000, now);
    assert_eq!(asks(&mut download).len(), 2);
}

#[test]
fn a_chain_of_easy_shares_is_left_alone_once_there_is_one_to_compare_with() {
    let now = Instant::now();
    let easy = Bits(0x207f_0000);
    let mut cold = download();
    add(&mut cold, 1, now);
    cold.set_needs(&[wanted(ShareHash([1; 32]), None, easy)], &[], now);
    assert_eq!(asks(&mut cold).len(), 1, "nothing to compare with");
    let mut warm = download();
    add(&mut warm, 1, now);
    warm.set_best(Some((2 * CHAIN_LENGTH, Bits(0x1f01_0000).target().attempts())));
    warm.set_needs(&[wanted(ShareHash([1; 32]), None, easy)], &[], now);
    assert!(asks(&mut warm).is_empty());
    // One hard share above many easy ones gets a first answer, and no second.
    let shares = chain(600, 0, easy);
    warm.set_needs(&[wanted(shares[599].hash(), None, Bits(0x1f01_0000))], &[], now);
    let ask = asks(&mut warm).remove(0);
    assert!(matches!(give(&mut warm, &ask, &shares, now), Outcome::Shares(_)));
    let next = shares[99].hash();
    warm.set_needs(&[wanted(next, None, Bits(0x1f01_0000))], &[], now + SECOND);
    assert!(asks(&mut warm).is_empty());
}

#[test]
fn a_host_that_sends_what_never_proves_good_is_asked_no_more_whatever_its_port() {
    let mut download = download();
    let now = Instant::now();
    let peer = add(&mut download, 1, now);
    let mut accepted = 0;
    while download.note_unasked(peer, 5) {
        accepted += 5;
    }
    assert!((4000..=4010).contains(&accepted), "{accepted}");
    download.remove_peer(peer, now);
    let again = PeerId(2);
    download.add_peer(again, SocketAddr::new(address(1).ip(), 77), now);
    assert!(!download.note_unasked(again, 1));
    download.set_needs(&[wanted(ShareHash([1; 32]), None, USUAL)], &[], now);
    assert!(asks(&mut download).is_empty());
    for _ in 0..6 {
        download.note_verified(again);
    }
    assert!(download.note_unasked(again, 1));
    download.forgive();
    assert!(download.note_unasked(again, 1000));
}

#[test]
fn a_share_that_the_owner_lost_is_asked_for_again() {
    let mut download = download();
    let shares = chain(3, 0, USUAL);
    let now = Instant::now();
    add(&mut download, 1, now);
    let needs = [wanted(shares[2].hash(), None, USUAL)];
    download.set_needs(&needs, &[], now);
    let ask = asks(&mut download).remove(0);
    give(&mut download, &ask, &shares, now);
    download.set_needs(&needs, &[], now);
    assert!(asks(&mut download).is_empty(), "it may not have seen it yet");
    let due = download.poll_timeout().unwrap();
    assert_eq!(due, now + DELIVERED_FOR);
    download.handle_timeout(due);
    assert_eq!(asks(&mut download).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Peers answer in any order, late, wrongly, not at all, or disconnect; one is honest, so the chain arrives.
    #[test]
    fn the_chain_comes_if_one_peer_has_it(seed in any::<u64>(), length in 1u32..1200) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut download = Download::new(600, random.fork());
        let shares = chain(length, 0, USUAL);
        let mut now = Instant::now();
        let mut owned: HashSet<ShareHash> = HashSet::new();
        for number in 0..4 {
            add(&mut download, number, now);
        }
        let mut open: Vec<Ask> = Vec::new();
        let mut steps = 0;
        while owned.len() < shares.len() {
            steps += 1;
            prop_assert!(steps < 3000, "{} of {length} came", owned.len());
            let missing = shares.iter().rev().find(|share| !owned.contains(&share.hash())).unwrap();
            download.set_needs(&[wanted(missing.hash(), None, USUAL)], &[], now);
            open.extend(asks(&mut download));
            let promised: u64 = open.iter().map(|ask| ask.parents + 1).sum();
            prop_assert!(promised <= SHARES_IN_FLIGHT_MAX as u64);
            if open.is_empty() || random.f64() < 0.3 {
                let due = download.poll_timeout().unwrap_or(now).max(now);
                now = due.min(now + SECOND);
                download.handle_timeout(now);
                continue;
            }
            let ask = open.swap_remove(random.usize(..open.len()));
            prop_assert!(download.peers.contains_key(&ask.peer));
            match (ask.peer, random.u8(..5)) {
                (PeerId(0), _) | (_, 0) => {
                    if let Outcome::Shares(came) = give(&mut download, &ask, &shares, now) {
                        download.taken(came.len(), now);
                        owned.extend(came.iter().map(|share| share.hash()));
                    }
                }
                (_, 1) => drop(give(&mut download, &ask, &[], now)),
                (_, 2) => {}
                (peer, what) => {
                    let wrong = if what == 3 { Err(FAILED) } else { Ok(vec![shares[0].clone(), shares[0].clone()]) };
                    download.handle_reply(peer, ask.request, wrong, now);
                    download.remove_peer(peer, now);
                    open.retain(|ask| ask.peer != peer);
                    download.add_peer(peer, address(peer.0), now);
                }
            }
        }
    }
}
