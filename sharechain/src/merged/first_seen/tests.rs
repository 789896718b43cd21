//! The table of merged addresses against a naive list, and its bounds.

use super::*;
use proptest::prelude::*;

fn hash(number: u32) -> ShareHash {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_le_bytes());
    ShareHash(digest)
}

/// Parent scripts: two pubkey hashes, each as P2WPKH and as P2PKH, and a script of no kind.
fn parents() -> Vec<Vec<u8>> {
    let of = |hash: u8| [[&[0, 20][..], &[hash; 20]].concat(), script_kinds::p2pkh(&[hash; 20]).to_vec()];
    [of(1), of(2)].into_iter().flatten().chain([b"odd".to_vec()]).collect()
}

/// Naive table: pairs in the order in which each began to be known, with the shares that teach it.
#[derive(Default)]
struct Naive(Vec<(Vec<u8>, Vec<u8>, Vec<u32>)>);

impl Naive {
    fn add(&mut self, share: u32, parent: &[u8], merged: &[u8]) {
        let keys = std::iter::once(parent.to_vec()).chain(normalised(parent).map(|script| script.to_vec()));
        for key in keys {
            match self.0.iter_mut().find(|(of, to, _)| *of == key && to == merged) {
                Some((_, _, shares)) => shares.push(share),
                None => self.0.push((key, merged.to_vec(), vec![share])),
            }
        }
    }

    fn remove(&mut self, share: u32) {
        self.0.iter_mut().for_each(|(_, _, shares)| shares.retain(|one| *one != share));
        self.0.retain(|(_, _, shares)| !shares.is_empty());
    }

    fn find(&self, script: &[u8]) -> Option<Vec<u8>> {
        let exact = |script: &[u8]| self.0.iter().find(|(of, _, _)| of == script).map(|(_, to, _)| to.clone());
        exact(script).or_else(|| exact(&normalised(script)?))
    }
}

fn answers(seen: &FirstSeen) -> Vec<Option<Vec<u8>>> {
    parents().iter().map(|script| seen.find(DOGECOIN, script).map(|merged| merged.as_bytes().to_vec())).collect()
}

proptest! {
    #[test]
    fn answers_are_those_of_a_naive_list_and_nothing_is_left_in_the_end(
        steps in prop::collection::vec((any::<bool>(), 0u32..12, 0usize..5, 0u8..4), 0..80),
    ) {
        let (mut seen, mut naive, mut known) = (FirstSeen::default(), Naive::default(), Vec::new());
        for (adds, share, parent, merged) in steps {
            let (before, generation) = (answers(&seen), seen.generation());
            if adds {
                let script = &parents()[parent];
                seen.add(hash(share), script, [(DOGECOIN, &[merged][..])]);
                if !known.contains(&share) {
                    known.push(share);
                    naive.add(share, script, &[merged]);
                }
            } else {
                seen.remove(&hash(share));
                known.retain(|one| *one != share);
                naive.remove(share);
            }
            prop_assert_eq!(answers(&seen), parents().iter().map(|script| naive.find(script)).collect::<Vec<_>>());
            prop_assert!(answers(&seen) == before || seen.generation() != generation);
            prop_assert_eq!(seen.memory_bytes() == 0, known.is_empty());
        }
        known.iter().for_each(|share| seen.remove(&hash(*share)));
        prop_assert!(seen.rows.is_empty() && seen.lessons.is_empty());
        prop_assert_eq!(seen.memory_bytes(), 0);
    }
}

#[test]
fn the_first_entry_wins_until_its_last_share_is_gone() {
    let mut seen = FirstSeen::default();
    seen.add(hash(1), b"miner", [(DOGECOIN, &b"first"[..])]);
    seen.add(hash(2), b"miner", [(DOGECOIN, &b"second"[..])]);
    seen.add(hash(3), b"miner", [(DOGECOIN, &b"first"[..])]);
    let generation = seen.generation();
    seen.remove(&hash(1));
    assert_eq!(seen.find(DOGECOIN, b"miner").unwrap().as_bytes(), b"first");
    assert_eq!(seen.generation(), generation, "the same answer from another share");
    seen.remove(&hash(3));
    assert_eq!(seen.find(DOGECOIN, b"miner").unwrap().as_bytes(), b"second");
    assert_ne!(seen.generation(), generation);
}

#[test]
fn only_one_entry_of_a_share_is_kept_and_only_for_dogecoin() {
    let mut seen = FirstSeen::default();
    let entries = (0..10_000_u32).map(|number| (if number < 5_000 { number % 98 } else { DOGECOIN }, &b"merged"[..]));
    seen.add(hash(1), b"miner", entries.chain([(DOGECOIN, &[7; 5_000][..])]));
    assert!(seen.memory_bytes() < 600, "{}", seen.memory_bytes());
    assert_eq!(seen.find(97, b"miner"), None);
    seen.add(hash(2), b"empty first", [(DOGECOIN, &b""[..]), (DOGECOIN, b"second")]);
    assert_eq!(seen.find(DOGECOIN, b"empty first").unwrap().as_bytes(), b"second");
}

#[test]
fn above_the_bound_the_longest_scripts_go_and_those_of_miners_stay() {
    let mut seen = FirstSeen::default();
    let miners = 500;
    for share in 0..miners {
        seen.add(hash(share), &share.to_le_bytes(), [(DOGECOIN, &[1; 25][..])]);
    }
    let long = vec![2; 20_000_000];
    for share in miners..miners + 10 {
        seen.add(hash(share), &share.to_le_bytes(), [(DOGECOIN, &long[..])]);
        assert!(seen.memory_bytes() <= FIRST_SEEN_BYTES_MAX);
    }
    assert!((0..miners).all(|share| seen.find(DOGECOIN, &share.to_le_bytes()).is_some()));
    for share in 0..miners + 10 {
        seen.remove(&hash(share));
    }
    assert_eq!(seen.memory_bytes(), 0);
}
