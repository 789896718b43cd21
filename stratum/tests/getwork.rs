//! Polling miners: answers and submissions, in virtual time.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod fixture;

use sha2::digest::generic_array::GenericArray;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::getwork::{Ask, GetworkServer, Handed, Judged};
use stratum::mining::extranonce::Extranonces;
use stratum::mining::job::{Pow, Unhashed};
use stratum::mining::source::Source;
use stratum::mining::tally::Protocol;
use stratum::mining::vardiff;
use stratum::{Difficulty, Epochs, JobParts, Now, Offer, Refusal, StratumError, Tallies, Work, Worker};

use fixture::{UNIX, parts};

/// Makes one job for all; `+difficulty` in a name fixes its difficulty.
#[derive(Debug, Clone)]
struct FakeWork {
    epochs: Epochs,
    solution: f64,
}

impl FakeWork {
    fn parts<'a>(&self, head: &'a [u8], generation: u32) -> JobParts<'a> {
        JobParts {
            solution_target: Difficulty::new(self.solution).unwrap().target(),
            ..parts(u64::from(generation), head)
        }
    }
}

impl Work for FakeWork {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<String>, Refusal> {
        let (name, wish) = name.split_once('+').unwrap_or((name, ""));
        if name == "bad" {
            return Err(Refusal("bad cannot be paid".into()));
        }
        let difficulty = wish.parse().ok().and_then(Difficulty::new);
        Ok(Worker { name: name.into(), payout: name.to_owned(), difficulty, notice: None })
    }

    fn offer(&self, payout: &String, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        Ok(Offer::new(&self.parts(payout.as_bytes(), generation), ()))
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }
}

/// About 43 hashes for a submission, 4,300 for a solution.
const WORK: FakeWork = FakeWork { epochs: Epochs { stale: 0, late: 0, urgent: 0 }, solution: 1e-6 };

fn desk() -> GetworkServer<FakeWork> {
    desk_with(Arc::default())
}

fn desk_with(tallies: Arc<Tallies>) -> GetworkServer<FakeWork> {
    let difficulty = |value| Difficulty::new(value).unwrap();
    let config = vardiff::Config {
        interval: Duration::from_secs(3),
        start: difficulty(1e-8),
        min: difficulty(1e-9),
        max: difficulty(1e9),
    };
    GetworkServer::new(config, Extranonces::starting_at(7), tallies, true).unwrap()
}

/// Network of the miner.
fn home() -> Source {
    Source::of([192, 0, 2, 1].into())
}

/// Network of a stranger.
fn elsewhere() -> Source {
    Source::of([198, 51, 100, 1].into())
}

fn ask(name: &str) -> Ask<'_> {
    Ask { name, password: "x", source: home(), draw: 0, easiest: None }
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: UNIX + 5 }
}

/// Reverses the bytes of each four-byte word, as every getwork miner does first.
fn swapped(data: &[u8]) -> Vec<u8> {
    data.chunks_exact(4).flat_map(|word| word.iter().rev().copied()).collect()
}

fn hash_of(data: &[u8]) -> [u8; 32] {
    let mut hash: [u8; 32] = Sha256::digest(Sha256::digest(&swapped(data)[..80])).into();
    hash.reverse();
    hash
}

/// Tries nonces from `from` on until a hash meets the target and is above `not_below`, as a miner would.
fn mine(handed: &Handed, from: u32, not_below: Option<[u8; 32]>) -> (Vec<u8>, u32) {
    let mut target = handed.target;
    target.reverse();
    let mut data = handed.data.to_vec();
    for nonce in from.. {
        data[76..80].copy_from_slice(&nonce.to_be_bytes());
        let hash = hash_of(&data);
        if hash <= target && not_below.is_none_or(|floor| hash > floor) {
            return (data, nonce);
        }
    }
    unreachable!("one in forty hashes is good enough")
}

fn solution_target() -> [u8; 32] {
    Difficulty::new(WORK.solution).unwrap().target().to_be_bytes()
}

#[test]
fn what_a_miner_finds_by_the_target_is_accepted_and_credited_once() {
    let tallies = Arc::<Tallies>::default();
    let desk = desk_with(tallies.clone());
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, Some(solution_target()));
    let judged = desk.judge(Some(WORK.epochs()), &data, home(), now());
    assert_eq!(judged.verdict, Ok(()));
    assert!(judged.solution.is_none());
    assert!(!judged.credit.unwrap().is_late);
    let again: Judged<()> = desk.judge(Some(WORK.epochs()), &data, home(), now());
    assert_eq!(again.verdict, Err(StratumError::Duplicate));
    assert!(again.credit.is_none());
    let tallies = tallies.take();
    assert_eq!(tallies.len(), 1);
    assert_eq!((&*tallies[0].worker, &*tallies[0].payee), ("alice", "alice"));
    assert_eq!((tallies[0].totals().accepted, tallies[0].totals().refused), (1, 1));
    assert_eq!((tallies[0].client.difficulty(), tallies[0].client.protocol), (1e-8, Protocol::Getwork));
    drop(desk);
    assert!(tallies[0].is_over());
}

#[test]
fn a_solution_comes_with_all_that_finishes_it() {
    let desk = desk();
    let handed = desk.hand_out(&FakeWork { solution: 1e-8, ..WORK }, ask("alice"), now()).unwrap();
    let (data, nonce) = mine(&handed, 0, None);
    // The submission may come without the padding.
    let solution = desk.judge(Some(WORK.epochs()), &data[..80], home(), now()).solution.unwrap();
    assert_eq!(solution.solved.header[..], swapped(&data)[..80]);
    assert_eq!(solution.solved.header[76..], nonce.to_le_bytes());
    let coinbase = [b"alice".as_slice(), &solution.extranonces, &[0; 4]].concat();
    let mut root: [u8; 32] = Sha256::digest(Sha256::digest(coinbase)).into();
    for sibling in [[3; 32], [4; 32]] {
        root = Sha256::digest(Sha256::digest([root, sibling].concat())).into();
    }
    assert_eq!(solution.solved.header[36..68], root);
}

#[test]
fn data_is_a_padded_header_and_midstate_its_first_half_hashed() {
    let handed = desk().hand_out(&WORK, ask("alice"), now()).unwrap();
    let header = swapped(&handed.data);
    // Hashing the 128 bytes as two blocks of SHA-256, as devices do, gives the hash of the header.
    let mut state: [u32; 8] =
        std::array::from_fn(|word| u32::from_le_bytes(handed.midstate[4 * word..4 * word + 4].try_into().unwrap()));
    sha2::compress256(&mut state, &[GenericArray::clone_from_slice(&header[64..128])]);
    let hash: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    assert_eq!(hash, Sha256::digest(&header[..80]).to_vec());
    assert_eq!(header[68..72], (UNIX + 5).to_le_bytes(), "as late as the clock, to leave room for rolling");
}

#[test]
fn no_two_answers_have_the_same_coinbase() {
    let desk = desk();
    let roots: std::collections::HashSet<Vec<u8>> =
        (0..1000).map(|_| desk.hand_out(&WORK, ask("alice"), now()).unwrap().data[36..68].to_vec()).collect();
    assert_eq!(roots.len(), 1000);
}

#[test]
fn hardware_gets_nothing_easier_than_it_can_report_and_nothing_harder_than_a_solution() {
    let desk = desk();
    let easiest = Difficulty::new(1.0);
    let handed = desk.hand_out(&FakeWork { solution: 4.0, ..WORK }, Ask { easiest, ..ask("blade") }, now()).unwrap();
    let mut target = handed.target;
    target.reverse();
    assert_eq!(target, Difficulty::new(1.0).unwrap().target().to_be_bytes());
    let handed = desk.hand_out(&WORK, Ask { easiest, ..ask("blade") }, now()).unwrap();
    let mut target = handed.target;
    target.reverse();
    assert_eq!(target, solution_target(), "on an easy chain a solution is below difficulty 1");
}

#[test]
fn a_name_can_fix_its_difficulty() {
    let desk = desk();
    let handed = desk.hand_out(&WORK, ask("alice+2e-7"), now()).unwrap();
    let mut target = handed.target;
    target.reverse();
    assert_eq!(target, Difficulty::new(2e-7).unwrap().target().to_be_bytes());
}

#[test]
fn a_rolled_time_is_taken_and_an_altered_header_is_not() {
    let desk = desk();
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let mut rolled = handed.clone();
    rolled.data[68..72].copy_from_slice(&(UNIX + 60).to_be_bytes());
    let (data, _) = mine(&rolled, 0, None);
    assert_eq!(desk.judge(Some(WORK.epochs()), &data, home(), now()).verdict, Ok(()));

    let refused = |at: usize| {
        let mut data = handed.data.to_vec();
        data[at] ^= 1;
        desk.judge(Some(WORK.epochs()), &data, home(), now()).verdict.unwrap_err()
    };
    assert!(matches!(refused(1), StratumError::VersionBits { .. }), "version");
    assert!(matches!(refused(5), StratumError::Parameters(_)), "previous block");
    assert!(matches!(refused(40), StratumError::JobNotFound(_)), "merkle root");
    assert!(matches!(refused(68), StratumError::TimeRange { .. }), "time");
    assert!(matches!(refused(72), StratumError::Parameters(_)), "bits");
    assert!(matches!(
        desk.judge(Some(WORK.epochs()), &[0; 81], home(), now()).verdict,
        Err(StratumError::Parameters(_))
    ));
}

#[test]
fn work_on_an_old_block_is_stale_and_still_counted_and_weak_work_is_not() {
    let desk = desk();
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    let newer = FakeWork { epochs: Epochs { stale: 1, late: 0, urgent: 0 }, ..WORK };
    let judged = desk.judge(Some(newer.epochs()), &data, home(), now());
    assert!(matches!(judged.verdict, Err(StratumError::Stale(_))));
    assert!(judged.credit.unwrap().is_late, "it was hash rate");

    let weak = (0..u32::MAX).find_map(|nonce| {
        let mut data = handed.data.to_vec();
        data[76..80].copy_from_slice(&nonce.to_be_bytes());
        desk.judge(Some(WORK.epochs()), &data, home(), now()).verdict.err()
    });
    assert!(matches!(weak, Some(StratumError::LowDifficulty { .. })));
}

#[test]
fn who_cannot_be_paid_gets_no_work_and_what_is_too_old_is_forgotten() {
    let desk = desk();
    assert_eq!(desk.hand_out(&WORK, ask("bad"), now()), Err(Refusal("bad cannot be paid".into())));
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    let later = Now { instant: Instant::now() + stratum::mining::job::JOB_LIFE * 2, ..now() };
    assert!(matches!(desk.judge(Some(WORK.epochs()), &data, home(), later).verdict, Err(StratumError::JobNotFound(_))));
}

#[test]
fn a_solution_is_judged_while_there_is_no_work() {
    let desk = desk();
    let easy = FakeWork { solution: 1e-8, ..WORK };
    let handed = desk.hand_out(&easy, ask("alice"), now()).unwrap();
    let (data, nonce) = mine(&handed, 0, None);
    let judged = desk.judge(None, &data, home(), now());
    assert_eq!(judged.verdict, Ok(()));
    assert!(judged.solution.is_some() && !judged.credit.unwrap().is_late);
    // The epochs that made the work stale are kept while there is no work.
    let newer = FakeWork { epochs: Epochs { stale: 1, late: 0, urgent: 0 }, ..easy };
    desk.hand_out(&newer, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, nonce + 1, None);
    let judged = desk.judge(None, &data, home(), now());
    assert!(matches!(judged.verdict, Err(StratumError::Stale(_))));
    assert!(judged.solution.is_some(), "a block on the old parent is still a block");
}

#[test]
fn a_solution_whose_version_or_late_time_is_refused_comes_out_once() {
    let desk = desk();
    let handed = desk.hand_out(&FakeWork { solution: 1e-8, ..WORK }, ask("alice"), now()).unwrap();
    let altered = |at: usize, value: u32| {
        let mut altered = handed.clone();
        altered.data[at..at + 4].copy_from_slice(&value.to_be_bytes());
        mine(&altered, 0, None).0
    };
    let late = UNIX + stratum::mining::submission::TIME_ROLL_MAX_S + 100;
    for data in [altered(0, 0x2000_2000), altered(68, late)] {
        let judged = desk.judge(None, &data, home(), now());
        assert!(matches!(judged.verdict, Err(StratumError::VersionBits { .. } | StratumError::TimeRange { .. })));
        assert!(judged.credit.is_none());
        let solution = judged.solution.expect("it may be a block");
        assert_eq!(solution.solved.header[..], swapped(&data)[..80]);
        let again = desk.judge(None, &data, home(), now());
        assert!(again.verdict.is_err() && again.solution.is_none());
    }
    // None of these can be a block.
    for data in [altered(4, 7), altered(72, 0x207f_ffff), altered(68, UNIX - 601)] {
        let judged = desk.judge(None, &data, home(), now());
        assert!(judged.verdict.is_err() && judged.solution.is_none());
    }
}

#[test]
fn a_solution_outlives_the_name_that_it_was_made_for_and_is_credited_to_it() {
    let tallies = Arc::<Tallies>::default();
    let desk = desk_with(tallies.clone());
    let handed = desk.hand_out(&FakeWork { solution: 1e-8, ..WORK }, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    // As many names of the same network as are remembered evict the first one.
    for number in 0..stratum::getwork::MINERS_MAX {
        desk.hand_out(&WORK, ask(&format!("other{number}")), now()).unwrap();
    }
    assert!(tallies.take().iter().any(|tally| &*tally.worker == "alice" && tally.is_over()));
    let judged = desk.judge(Some(WORK.epochs()), &data, home(), now());
    assert_eq!(judged.verdict, Ok(()));
    assert_eq!(&*judged.solution.expect("it may be a block").worker, "alice");
    let again = desk.judge(Some(WORK.epochs()), &data, home(), now());
    assert_eq!((again.verdict, again.solution.is_none()), (Err(StratumError::Duplicate), true), "it is returned once");
    let [alice] = &tallies.take()[..] else { panic!("alice has an account again") };
    assert_eq!((&*alice.worker, &*alice.payee, alice.totals().accepted), ("alice", "alice", 1));
}

#[test]
fn a_stranger_with_a_hundred_thousand_requests_pushes_out_no_answer_of_another() {
    let desk = desk();
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let stranger =
        |number: usize| Ask { source: elsewhere(), ..ask(if number.is_multiple_of(2) { "mallory" } else { "alice" }) };
    let first = desk.hand_out(&WORK, stranger(0), now()).unwrap();
    for number in 1..=stratum::getwork::ANSWERS_MAX {
        desk.hand_out(&WORK, stranger(number), now()).unwrap();
    }
    let (data, _) = mine(&handed, 0, None);
    let judged = desk.judge(Some(WORK.epochs()), &data, home(), now());
    assert_eq!(judged.verdict, Ok(()));
    assert!(judged.credit.is_some());
    let (data, _) = mine(&first, 0, None);
    let judged = desk.judge(Some(WORK.epochs()), &data, elsewhere(), now());
    assert!(matches!(judged.verdict, Err(StratumError::JobNotFound(_))), "he pushed out his own");
}

#[test]
fn a_stranger_with_any_number_of_names_changes_nobody_elses_difficulty() {
    // One instant, so that the node has no time to change its mind.
    let (desk, now) = (desk(), now());
    let target = |handed: &Handed| handed.target;
    let wanted = target(&desk.hand_out(&WORK, ask("alice+2e-8"), now).unwrap());
    // Found under a difficulty of its own choice, then left to the node.
    for _ in 0..3 {
        let handed = desk.hand_out(&WORK, ask("alice+2e-8"), now).unwrap();
        assert_eq!(desk.judge(None, &mine(&handed, 0, None).0, home(), now).verdict, Ok(()));
    }
    let by_node = target(&desk.hand_out(&WORK, ask("alice"), now).unwrap());
    assert_ne!(by_node, wanted, "a wish is for one answer");
    for number in 0..2 * stratum::getwork::MINERS_MAX {
        let name = format!("mallory{number}");
        desk.hand_out(&WORK, Ask { source: elsewhere(), ..ask(&name) }, now).unwrap();
    }
    // Her name in a stranger's mouth is another miner's.
    for wish in ["alice+5e-7", "alice+9e-7"] {
        desk.hand_out(&WORK, Ask { source: elsewhere(), ..ask(wish) }, now).unwrap();
    }
    assert_eq!(target(&desk.hand_out(&WORK, ask("alice"), now).unwrap()), by_node);
}

#[test]
fn a_submission_counts_once_wherever_it_comes_from() {
    let desk = desk();
    let handed = desk.hand_out(&WORK, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    assert_eq!(desk.judge(None, &data, home(), now()).verdict, Ok(()));
    // The same with the padding left out, from another network, after other names and answers.
    desk.hand_out(&WORK, Ask { source: elsewhere(), ..ask("mallory") }, now()).unwrap();
    for (data, source) in [(&data[..], elsewhere()), (&data[..80], home()), (&data[..80], elsewhere())] {
        let judged = desk.judge(None, data, source, now());
        assert_eq!(judged.verdict, Err(StratumError::Duplicate));
        assert!(judged.credit.is_none() && judged.solution.is_none());
    }
    // Once the set of submissions is dropped, so is the answer.
    let later = Now { instant: Instant::now() + stratum::mining::job::JOB_LIFE * 2, ..now() };
    assert!(matches!(desk.judge(None, &data, home(), later).verdict, Err(StratumError::JobNotFound(_))));
}

/// Number of calls of [`counted`] on this thread.
fn hashes() -> usize {
    HASHES.get()
}

thread_local! {
    static HASHES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Counts its calls.
fn counted(header: &[u8; 80]) -> [u8; 32] {
    HASHES.set(HASHES.get() + 1);
    stratum::mining::job::sha256d(header)
}

/// [`WORK`] on a chain with a costly proof of work.
#[derive(Debug)]
struct Costly;

impl Work for Costly {
    type Payout = String;
    type Ticket = ();

    fn authorize(&self, name: &str, password: &str) -> Result<Worker<String>, Refusal> {
        WORK.authorize(name, password)
    }

    fn offer(&self, payout: &String, generation: u32, _draw: u32) -> Result<Offer<()>, Refusal> {
        let parts = JobParts { pow: Pow::Costly(counted), ..WORK.parts(payout.as_bytes(), generation) };
        Ok(Offer::new(&parts, ()))
    }

    fn epochs(&self) -> Epochs {
        WORK.epochs()
    }
}

fn costly_desk() -> GetworkServer<Costly> {
    let difficulty = |value| Difficulty::new(value).unwrap();
    let (start, min, max) = (difficulty(1e-8), difficulty(1e-9), difficulty(1e9));
    let config = vardiff::Config { interval: Duration::from_secs(3), start, min, max };
    GetworkServer::new(config, Extranonces::starting_at(7), Arc::default(), true).unwrap()
}

#[test]
fn a_repeated_submission_is_refused_before_its_proof_of_work_is_computed() {
    let desk = costly_desk();
    let handed = desk.hand_out(&Costly, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    assert_eq!(desk.judge(None, &data, home(), now()).verdict, Ok(()));
    let before = hashes();
    for _ in 0..100 {
        assert_eq!(desk.judge(None, &data, elsewhere(), now()).verdict, Err(StratumError::Duplicate));
    }
    assert_eq!(hashes(), before);
}

#[test]
fn garbage_of_a_network_costs_a_bounded_number_of_hashes_and_does_not_cost_a_miner_its_credit() {
    let desk = costly_desk();
    let handed = desk.hand_out(&Costly, ask("alice"), now()).unwrap();
    let (data, nonce) = mine(&handed, 0, None);
    assert_eq!(desk.judge(None, &data, home(), now()).verdict, Ok(()));
    let mut garbage = desk.hand_out(&Costly, ask("mallory"), now()).unwrap().data.to_vec();
    let (at, before) = (now(), hashes());
    let mut refused = 0;
    for nonce in 0..20_000_u32 {
        garbage[76..80].copy_from_slice(&nonce.to_be_bytes());
        // Every name of the network is tried, and headers that would be refused anyway.
        garbage[68..72].copy_from_slice(&(if nonce % 2 == 0 { UNIX } else { UNIX + 100_000 }).to_be_bytes());
        refused += usize::from(desk.judge(None, &garbage, home(), at).verdict == Err(StratumError::Worthless));
    }
    // A few of them were good by chance, and earned more.
    let bound = stratum::mining::pow_budget::BUDGET.burst * 1.2;
    assert!((hashes() - before) as f64 <= bound, "{} hashes", hashes() - before);
    assert!(refused > 5000);
    // Its neighbour has earned its own.
    let (data, _) = mine(&handed, nonce + 1, None);
    assert_eq!(desk.judge(None, &data, home(), at).verdict, Ok(()));
    // So has everyone else.
    let handed = desk.hand_out(&Costly, Ask { source: elsewhere(), ..ask("bob") }, at).unwrap();
    assert_eq!(desk.judge(None, &mine(&handed, 0, None).0, elsewhere(), at).verdict, Ok(()));
}

#[test]
fn a_header_in_flight_is_a_duplicate_until_its_hash_has_come_and_afterwards_if_it_counted() {
    let desk = costly_desk();
    let handed = desk.hand_out(&Costly, ask("alice"), now()).unwrap();
    let (data, _) = mine(&handed, 0, None);
    let prepared = desk.prepare(None, &data, home(), now()).unwrap();
    assert!(prepared.costly_pow().is_some() && !prepared.is_earned() && &**prepared.worker() == "alice");
    assert_eq!(desk.prepare(None, &data, elsewhere(), now()).err(), Some(StratumError::Duplicate));
    // There was no room for its hash: it may come again.
    let judged = desk.conclude(prepared, Err(Unhashed));
    assert!(judged.verdict == Err(StratumError::Busy) && judged.credit.is_none() && judged.solution.is_none());
    let prepared = desk.prepare(None, &data, home(), now()).unwrap();
    assert!(prepared.is_earned(), "what it paid for was given back");
    let hash = prepared.pow_hash();
    let judged = desk.conclude(prepared, Ok(hash));
    assert!(judged.verdict == Ok(()) && judged.credit.is_some());
    assert_eq!(desk.prepare(None, &data, home(), now()).err(), Some(StratumError::Duplicate));
}

#[test]
fn a_submission_that_came_before_a_block_is_not_stale_although_its_hash_comes_after() {
    let desk = costly_desk();
    let handed = desk.hand_out(&Costly, ask("alice"), now()).unwrap();
    let (data, nonce) = mine(&handed, 0, None);
    let newest = Some(WORK.epochs());
    let before = desk.prepare(newest, &data, home(), now()).unwrap();
    let next = Some(Epochs { stale: WORK.epochs().stale + 1, ..WORK.epochs() });
    let (data, _) = mine(&handed, nonce + 1, None);
    let after = desk.prepare(next, &data, home(), now()).unwrap();
    let hashes = [before.pow_hash(), after.pow_hash()];
    assert_eq!(desk.conclude(before, Ok(hashes[0])).verdict, Ok(()));
    assert!(matches!(desk.conclude(after, Ok(hashes[1])).verdict, Err(StratumError::Stale(_))));
}
