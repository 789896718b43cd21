//! The ratchet over random histories, and its file.

use super::*;
use ShareVersion::{V34, V35, V36};
use proptest::prelude::*;

const LENGTH: u32 = 20;

/// A share of a made-up chain.
#[derive(Debug, Clone, Copy)]
struct Made {
    vote: u64,
    version: ShareVersion,
    work: u64,
    from_peer: bool,
}

/// A chain, oldest share first, of which shares below were forgotten.
#[derive(Debug, Clone, Default)]
struct History {
    shares: Vec<Made>,
    forgotten: u32,
}

impl History {
    fn height(&self) -> u32 {
        u32::try_from(self.shares.len()).unwrap()
    }

    /// Votes by work of the oldest tenth of a full window: those for 36, and all.
    fn oldest_work(&self) -> Option<(u64, u64)> {
        let below = self.shares.iter().rev().skip(LENGTH as usize * 9 / 10);
        let tenth: Vec<&Made> = below.take(LENGTH as usize / 10).collect();
        let sum = |of: &dyn Fn(&Made) -> bool| tenth.iter().filter(|made| of(made)).map(|made| made.work).sum::<u64>();
        (self.height() >= LENGTH).then(|| (sum(&|made| made.vote == 36), sum(&|_| true)))
    }

    fn window(&self) -> impl Iterator<Item = &Made> {
        self.shares.iter().rev().take(LENGTH as usize)
    }

    fn input(&self) -> RatchetInput {
        let count = |of: &dyn Fn(&Made) -> bool| u32::try_from(self.window().filter(|made| of(made)).count()).unwrap();
        RatchetInput {
            height: self.height(),
            absheight: self.forgotten + self.height(),
            chain_length: LENGTH,
            votes: count(&|made| made.vote >= 36),
            shares: count(&|made| made.version == V36),
            origins: 1 + count(&|made| made.vote >= 36 && made.from_peer),
            work_test: self.oldest_work().is_some_and(|(new, all)| new * 100 >= all * 60),
            parent: self.shares.last().map(|made| made.version),
        }
    }

    /// The check of a share of 36 after the chain, as every node makes it (protocol-v36 section 2.1).
    fn takes_36(&self) -> bool {
        match self.shares.last().map(|made| made.version) {
            None | Some(V36) => true,
            Some(_) => self.oldest_work().is_some_and(|(new, all)| new >= all * 60 / 100),
        }
    }
}

/// An event in the life of a node.
#[derive(Debug, Clone)]
enum Step {
    /// Peers find shares that vote so, of the version that the rules give them.
    Peers { count: usize, vote: u64, work: u64 },
    /// This node finds shares.
    Own { count: usize },
    /// Another branch wins, this many shares shorter.
    ShorterBranch(usize),
    /// The chain is pruned.
    Prune,
    /// A restart: the store does not say who sent a share.
    Restart,
    /// A restart without the store.
    LostChain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vote = prop_oneof![3 => Just(36_u64), 2 => Just(35), 1 => Just(37)];
    let step = prop_oneof![
        8 => (1_usize..30, vote, 1_u64..40).prop_map(|(count, vote, work)| Step::Peers { count, vote, work }),
        4 => (1_usize..30).prop_map(|count| Step::Own { count }),
        1 => (1_usize..4).prop_map(Step::ShorterBranch),
        2 => Just(Step::Prune),
        1 => Just(Step::Restart),
        1 => prop::bool::weighted(0.2).prop_map(|lost| if lost { Step::LostChain } else { Step::Restart }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A node, and its twin that is started again from the saved file before every decision.
#[derive(Debug, Default)]
struct Node {
    ratchet: Ratchet,
    saved: String,
    history: History,
}

impl Node {
    /// Decides for the next share, and checks what must hold of every decision.
    fn decide(&mut self) -> Result<ShareVersion, TestCaseError> {
        let (input, before) = (self.history.input(), self.ratchet);
        let mut twin = match &*self.saved {
            "" => Ratchet::default(),
            saved => Ratchet::from_json(saved).unwrap(),
        };
        let decision = self.ratchet.next(&input, 7);
        prop_assert_eq!(twin.next(&input, 7).version, decision.version);
        prop_assert_eq!(twin.state(), self.ratchet.state(), "{:?} {:?}", twin, self.ratchet);
        prop_assert_eq!(decision.changed_from.is_some(), before.state() != self.ratchet.state());
        if decision.is_unsaved {
            self.saved = self.ratchet.to_json();
        }
        if decision.version == V36 {
            prop_assert!(self.history.takes_36(), "{:?} mints an invalid share", self.ratchet);
            prop_assert!(self.ratchet.state() != RatchetState::Voting);
        }
        if decision.changed_from == Some(RatchetState::Voting) {
            prop_assert!(input.height >= LENGTH && self.history.window().any(|made| made.vote >= 36 && made.from_peer));
        }
        // Once confirmed, always: only activation is taken back.
        prop_assert!(!before.is_confirmed() || self.ratchet.is_confirmed());
        prop_assert_eq!(self.ratchet.version_after(&input), decision.version);
        Ok(decision.version)
    }

    fn find(&mut self, made: Made) -> Result<(), TestCaseError> {
        self.history.shares.push(made);
        self.decide().map(|_| ())
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Peers { count, vote, work } => {
                for _ in 0..count {
                    let version = if vote >= 36 && self.history.takes_36() { V36 } else { V35 };
                    self.find(Made { vote, version, work, from_peer: true })?;
                }
            }
            Step::Own { count } => {
                for _ in 0..count {
                    let version = self.decide()?;
                    self.find(Made { vote: 36, version, work: 10, from_peer: false })?;
                }
            }
            Step::ShorterBranch(count) => {
                let left = self.history.shares.len().saturating_sub(count);
                self.history.shares.truncate(left);
                self.decide()?;
            }
            Step::Prune => {
                let surplus = self.history.shares.len().saturating_sub(2 * LENGTH as usize + 10);
                self.history.shares.drain(..surplus);
                self.history.forgotten += u32::try_from(surplus).unwrap();
                self.decide()?;
            }
            Step::Restart | Step::LostChain => {
                if matches!(step, Step::LostChain) {
                    self.history = History::default();
                }
                self.history.shares.iter_mut().for_each(|made| made.from_peer = false);
                self.ratchet = match &*self.saved {
                    "" => Ratchet::default(),
                    saved => Ratchet::from_json(saved).unwrap(),
                };
                self.decide()?;
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_history_leads_to_an_invalid_share_nor_to_other_decisions_after_a_restart(steps in steps()) {
        let mut node = Node::default();
        node.decide()?;
        for step in &steps {
            node.take(step)?;
        }
    }

    #[test]
    fn a_node_that_is_alone_on_its_chain_never_activates(counts in prop::collection::vec(1_usize..60, 1..6)) {
        let mut node = Node::default();
        for count in counts {
            node.take(&Step::Own { count })?;
            node.take(&Step::Restart)?;
            prop_assert_eq!(node.ratchet.state(), RatchetState::Voting);
        }
    }

    #[test]
    fn saved_and_read_it_is_the_same(steps in steps()) {
        let mut node = Node::default();
        for step in &steps {
            node.take(step)?;
            let read = Ratchet::from_json(&node.ratchet.to_json()).unwrap();
            prop_assert_eq!(read.to_json(), node.ratchet.to_json());
        }
    }
}

fn voting(count: usize, version: ShareVersion, from_peer: bool) -> Vec<Made> {
    vec![Made { vote: 36, version, work: 10, from_peer }; count]
}

#[test]
fn a_fresh_node_activates_at_once_on_a_chain_of_36_that_one_peer_sent() {
    let history = History { shares: voting(2 * LENGTH as usize + 10, V36, true), forgotten: 1_000_000 };
    let mut ratchet = Ratchet::default();
    let decision = ratchet.next(&history.input(), 5);
    assert_eq!((decision.version, decision.changed_from), (V36, Some(RatchetState::Voting)));
    assert_eq!((ratchet.state(), ratchet.confirm_count()), (RatchetState::Activated, u64::from(LENGTH + 10)));
    assert_eq!((ratchet.activated_at(), ratchet.confirmed_at()), (Some(5), None));
}

#[test]
fn stored_shares_activate_when_a_peer_has_sent_one_or_the_file_says_so() {
    let mut history = History { shares: voting(2 * LENGTH as usize, V36, false), forgotten: 1000 };
    let mut ratchet = Ratchet::default();
    assert_eq!(ratchet.next(&history.input(), 5).version, V35);
    let mut from_file = Ratchet::from_json(r#"{"state": "activated"}"#).unwrap();
    assert_eq!(from_file.next(&history.input(), 5).version, V36);
    history.shares.extend(voting(1, V36, true));
    assert_eq!(ratchet.next(&history.input(), 5).version, V36);
}

#[test]
fn a_pruned_chain_confirms_by_its_absheight() {
    let mut history = History { shares: voting(2 * LENGTH as usize + 10, V36, true), forgotten: 1_000_000 };
    let mut ratchet = Ratchet::default();
    for number in 0..LENGTH {
        let decision = ratchet.next(&history.input(), u64::from(number));
        assert_eq!(ratchet.is_confirmed(), number >= LENGTH - 10, "{number}");
        assert!(decision.is_unsaved || number % 2 == 1 || number >= LENGTH - 10, "{number}");
        history.forgotten += 1;
    }
    assert_eq!((ratchet.confirmed_at(), ratchet.confirm_count()), (Some(10), Ratchet::confirm_needed(LENGTH)));
}

#[test]
fn another_chain_counts_no_more_than_its_shares_and_an_older_share_nothing() {
    let mut ratchet = Ratchet::default();
    let mut input = History { shares: voting(LENGTH as usize, V36, true), forgotten: 100 }.input();
    ratchet.next(&input, 5);
    let mut count_at = |absheight, height| {
        (input.absheight, input.height) = (absheight, height);
        input.shares = 0;
        ratchet.next(&input, 5);
        ratchet.confirm_count()
    };
    assert_eq!(count_at(121, 21), 1);
    assert_eq!(count_at(119, 20), 1);
    assert_eq!(count_at(122, 22), 2);
    assert_eq!(count_at(900, 30), 32);
    assert_eq!(count_at(40, 25), 32, "a chain that begins elsewhere");
    assert_eq!(count_at(41, 26), 33);
}

#[test]
fn percentages_are_rounded_down_and_only_full_windows_count() {
    use RatchetState::{Activated, Confirmed, Voting};
    let base = RatchetInput {
        height: 1000,
        absheight: 1000,
        chain_length: 1000,
        votes: 950,
        shares: 950,
        origins: 2,
        work_test: true,
        parent: Some(V35),
    };
    let state_after = |input: RatchetInput, state: &str| {
        let mut ratchet = Ratchet::from_json(&format!(r#"{{"state": "{state}"}}"#)).unwrap();
        let version = ratchet.next(&input, 5).version;
        (ratchet.state(), version)
    };
    assert_eq!(state_after(base, "voting"), (Activated, V36));
    for missing in [
        RatchetInput { votes: 949, ..base },
        RatchetInput { height: 999, votes: 999, ..base },
        RatchetInput { origins: 1, ..base },
        RatchetInput { work_test: false, ..base },
    ] {
        assert_eq!(state_after(missing, "voting"), (Voting, V35), "{missing:?}");
    }
    assert_eq!(state_after(RatchetInput { votes: 500, ..base }, "activated"), (Activated, V36));
    assert_eq!(state_after(RatchetInput { votes: 499, ..base }, "activated"), (Voting, V35));
    assert_eq!(state_after(RatchetInput { votes: 499, ..base }, "confirmed"), (Confirmed, V35));
    assert_eq!(
        state_after(RatchetInput { votes: 499, height: 999, parent: Some(V36), ..base }, "activated"),
        (Activated, V36)
    );
    // 36 follows neither a version before 35 nor, without the votes of work, 35.
    assert_eq!(state_after(RatchetInput { parent: Some(V34), ..base }, "confirmed"), (Confirmed, V35));
    assert_eq!(state_after(RatchetInput { work_test: false, ..base }, "confirmed"), (Confirmed, V35));
    assert_eq!(state_after(RatchetInput { height: 999, ..base }, "confirmed"), (Confirmed, V35));
    // An empty chain.
    assert_eq!(state_after(RatchetInput::default(), "confirmed"), (Confirmed, V36));
    assert_eq!(state_after(RatchetInput::default(), "activated"), (Activated, V35));
}

#[test]
fn activation_is_taken_back_with_all_that_was_counted() {
    let mut ratchet = Ratchet::default();
    let input = History { shares: voting(30, V36, true), forgotten: 0 }.input();
    ratchet.next(&input, 5);
    assert_eq!(ratchet.confirm_count(), 10);
    let decision = ratchet.next(&RatchetInput { votes: 9, ..input }, 6);
    assert_eq!((decision.version, decision.changed_from), (V35, Some(RatchetState::Activated)));
    assert!(decision.is_unsaved);
    assert_eq!(ratchet, Ratchet::default());
}

#[test]
fn the_forks_file_is_read_and_ours_has_its_keys() {
    let text = r#"{"state": "confirmed", "activated_at": 1771000000, "activated_height": 8640,
        "confirmed_at": 1771500000, "confirm_count": 17290, "note": {"of": ["a later version"]}}"#;
    let ratchet = Ratchet::from_json(text).unwrap();
    assert_eq!((ratchet.state(), ratchet.confirm_count()), (RatchetState::Confirmed, 17_290));
    let ours: serde_json::Value = serde_json::from_str(&ratchet.to_json()).unwrap();
    let mut theirs: serde_json::Value = serde_json::from_str(text).unwrap();
    theirs.as_object_mut().unwrap().remove("note");
    theirs["counted_to"] = serde_json::Value::Null;
    assert_eq!(ours, theirs);
    assert_eq!(Ratchet::from_json("{}").unwrap(), Ratchet::default());
    for wrong in ["", "[1]", r#"{"state": "on"}"#, r#"{"confirm_count": -1}"#, r#"{"confirm_count": 1e30}"#] {
        assert!(Ratchet::from_json(wrong).is_err(), "{wrong}");
    }
}
