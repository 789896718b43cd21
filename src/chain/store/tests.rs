//! The store's guarantees: nothing synced is lost, damage costs only what it hit, and the store does not grow.

use proptest::prelude::*;
use sharechain::share::{SHARE_BYTES_MAX, ShareHash};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::Record;
use super::segment::{self, HEADER_BYTES, header_of};
use super::{Loaded, SEGMENT_BYTES_MAX, Store, StoreError};

/// Returns a distinct hash for each number.
fn hash(number: u32) -> ShareHash {
    let mut digest = [7; 32];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    ShareHash(digest)
}

/// Returns `length` share bytes, distinct for each number.
fn bytes(number: u32, length: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

fn append(store: &mut Store, numbers: impl IntoIterator<Item = u32>, length: usize) {
    for number in numbers {
        store.append_share(hash(number), &bytes(number, length), number, false).unwrap();
    }
}

fn reopen(dir: &Path) -> Loaded {
    Store::open(dir).unwrap().1
}

fn numbers(loaded: &Loaded) -> Vec<u32> {
    loaded.shares.iter().map(|share| share.time_seen).collect()
}

/// The store's segments, oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let folder = dir.join("shares");
    segment::list(&folder).unwrap().0.into_iter().map(|name| folder.join(name.file_name())).collect()
}

fn damaged_files(dir: &Path) -> usize {
    segment::list(&dir.join("shares")).unwrap().1.len()
}

#[test]
fn shares_and_marks_come_back_in_the_order_in_which_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!(loaded, Loaded::default());
    append(&mut store, [3, 1, 2, 1], 100);
    store.append_verified(hash(2)).unwrap();
    store.append_verified(hash(3)).unwrap();
    store.append_verified(hash(9)).unwrap();
    store.sync().unwrap();
    drop(store);
    let loaded = reopen(dir.path());
    assert_eq!(numbers(&loaded), [3, 1, 2]);
    assert_eq!(*loaded.shares[0].bytes, *bytes(3, 100));
    assert_eq!(loaded.verified, [hash(3), hash(2)]);
    assert_eq!(loaded.problems, [""; 0]);
    let (mut store, again) = Store::open(dir.path()).unwrap();
    assert_eq!(again, loaded);
    append(&mut store, [4], 100);
    assert_eq!(files(dir.path()).len(), 1, "a start does not begin a new file");
    assert_eq!(numbers(&reopen(dir.path())), [3, 1, 2, 4]);
}

#[test]
fn a_write_cut_short_at_any_byte_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, 0..3, 60);
    let before_last = store.bytes_on_disk();
    store.append_verified(hash(1)).unwrap();
    append(&mut store, [3], 60);
    drop(store);
    let path = &files(dir.path())[0];
    let whole = fs::read(path).unwrap();
    for length in 0..whole.len() {
        fs::write(path, &whole[..length]).unwrap();
        let loaded = reopen(dir.path());
        let kept = numbers(&loaded);
        assert_eq!(kept, (0..u32::try_from(kept.len()).unwrap()).collect::<Vec<_>>(), "{length}");
        assert!(length < usize::try_from(before_last).unwrap() || kept.len() == 3, "{length}: {kept:?}");
        assert!(loaded.problems.len() <= 1, "{:?}", loaded.problems);
        // The torn tail is gone: new shares follow the intact ones, and the next start finds no damage.
        let (mut store, _) = Store::open(dir.path()).unwrap();
        append(&mut store, [9], 60);
        let again = reopen(dir.path());
        assert_eq!(numbers(&again).last(), Some(&9));
        assert_eq!(again.problems, [""; 0], "{length}");
        assert_eq!(damaged_files(dir.path()), 0, "a torn tail is no damage");
        files(dir.path()).iter().for_each(|file| fs::remove_file(file).unwrap());
    }
}

#[test]
fn a_flipped_byte_anywhere_costs_at_most_one_record_and_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, 0..4, 40);
    store.append_verified(hash(0)).unwrap();
    store.append_verified(hash(1)).unwrap();
    append(&mut store, 4..6, 40);
    drop(store);
    let path = &files(dir.path())[0];
    let whole = fs::read(path).unwrap();
    for at in 0..whole.len() {
        fs::remove_dir_all(dir.path().join("shares")).unwrap();
        fs::create_dir(dir.path().join("shares")).unwrap();
        let mut bad = whole.clone();
        bad[at] ^= 0x81;
        fs::write(path, &bad).unwrap();
        let loaded = reopen(dir.path());
        assert_eq!(loaded.problems.len(), 1, "byte {at}: {:?}", loaded.problems);
        let lost = 6 - loaded.shares.len() + (2 - loaded.verified.len());
        let lost_share_was_verified = loaded.shares.iter().all(|share| share.time_seen > 0)
            || loaded.shares.iter().all(|share| share.time_seen != 1);
        assert!(lost <= 1 || lost == 2 && lost_share_was_verified, "byte {at} cost {lost}");
        if at < HEADER_BYTES {
            assert_eq!(lost, 0, "byte {at} of the header");
        }
        let again = reopen(dir.path());
        assert_eq!(again.problems, [""; 0], "byte {at}");
        assert_eq!((again.shares, again.verified), (loaded.shares, loaded.verified));
        let set_aside = damaged_files(dir.path());
        assert!(set_aside == 1 || numbers(&reopen(dir.path())) == [0, 1, 2, 3, 4], "byte {at}: {set_aside} set aside");
    }
}

#[test]
fn a_damaged_stretch_in_the_middle_of_a_full_store_costs_only_what_it_covers() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, 0..2500, 1200);
    drop(store);
    let paths = files(dir.path());
    assert!(paths.len() > 2);
    let mut bad = fs::read(&paths[1]).unwrap();
    bad[100_000..104_096].fill(0);
    fs::write(&paths[1], &bad).unwrap();
    let loaded = reopen(dir.path());
    assert!((2495..2500).contains(&loaded.shares.len()), "{}", loaded.shares.len());
    assert_eq!(loaded.problems.len(), 1);
    let again = reopen(dir.path());
    assert_eq!((again.shares, again.problems.len(), damaged_files(dir.path())), (loaded.shares, 0, 1));
}

#[test]
fn a_later_programs_store_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, 0..1500, 1200);
    drop(store);
    let paths = files(dir.path());
    let newest = paths.last().unwrap();
    let mut later = fs::read(newest).unwrap();
    later[..HEADER_BYTES].copy_from_slice(&header_of(2));
    later.extend_from_slice(b"torn");
    fs::write(newest, &later).unwrap();
    let before: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Version { version: 2, .. }));
    assert!(error.to_string().contains("has share store format 2, this program knows only 1"), "{error}");
    assert_eq!(paths.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>(), before);
    assert_eq!(files(dir.path()), paths);
}

#[test]
fn a_long_run_takes_no_more_than_twice_what_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let window = 2000;
    for number in 0..12_000u32 {
        append(&mut store, [number], 1200);
        store.append_verified(hash(number)).unwrap();
        // Every tenth share stays wanted, so that no segment ever dies by itself.
        if number >= window && !(number - window).is_multiple_of(10) {
            store.forget(&[hash(number - window)]).unwrap();
        }
        let wanted = store.shares() as u64 * 1310;
        assert!(store.bytes_on_disk() <= 2 * wanted + 2 * SEGMENT_BYTES_MAX, "{number}: {}", store.bytes_on_disk());
    }
    let on_disk: u64 = files(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, store.bytes_on_disk());
    let shares = store.shares();
    drop(store);
    let loaded = reopen(dir.path());
    assert!(loaded.shares.len() >= shares);
    assert_eq!(loaded.shares.len(), loaded.verified.len());
    assert!(numbers(&loaded).is_sorted(), "copies keep their place in the order");
    assert_eq!(loaded.problems, [""; 0]);
}

#[test]
fn a_share_too_long_to_be_real_is_refused_and_the_longest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let error = store.append_share(hash(0), &bytes(0, SHARE_BYTES_MAX + 1), 0, false).unwrap_err();
    assert!(matches!(error, StoreError::TooLong { length, .. } if length == SHARE_BYTES_MAX + 1));
    append(&mut store, [1], 100);
    append(&mut store, 2..4, SHARE_BYTES_MAX);
    append(&mut store, [4], 100);
    store.append_verified(hash(2)).unwrap();
    drop(store);
    let (mut store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!((numbers(&loaded), loaded.problems.len()), (vec![1, 2, 3, 4], 0));
    assert_eq!((&loaded.verified[..], loaded.shares[2].bytes.len()), (&[hash(2)][..], SHARE_BYTES_MAX));
    let lengths = || files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).collect::<Vec<_>>();
    assert_eq!(lengths().iter().filter(|length| **length > SEGMENT_BYTES_MAX).count(), 2, "{:?}", lengths());
    let first = files(dir.path())[0].clone();
    // A segment frees its space even when written last, and takes no other share with it.
    store.forget(&[hash(2)]).unwrap();
    append(&mut store, [5], SHARE_BYTES_MAX);
    store.forget(&[hash(3), hash(5)]).unwrap();
    assert!(lengths().iter().all(|length| *length < SEGMENT_BYTES_MAX), "{:?}", lengths());
    assert_eq!(files(dir.path())[0], first, "nothing had to be copied");
    assert_eq!(numbers(&reopen(dir.path())), [1, 4]);
}

#[test]
fn damage_to_a_long_share_costs_it_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, [1], 100);
    append(&mut store, [2], 5_000_000);
    append(&mut store, [3], 100);
    drop(store);
    let long = &files(dir.path())[1];
    let mut content = fs::read(long).unwrap();
    content[2_000_000] ^= 1;
    fs::write(long, content).unwrap();
    let loaded = reopen(dir.path());
    assert_eq!((numbers(&loaded), loaded.problems.len(), damaged_files(dir.path())), (vec![1, 3], 1, 1));
    // An incomplete record at the end.
    let (mut store, _) = Store::open(dir.path()).unwrap();
    append(&mut store, [4], 5_000_000);
    drop(store);
    let last = files(dir.path()).pop().unwrap();
    fs::File::options().write(true).open(&last).unwrap().set_len(3_000_000).unwrap();
    let loaded = reopen(dir.path());
    assert_eq!((numbers(&loaded), loaded.problems.len(), damaged_files(dir.path())), (vec![1, 3], 1, 1));
}

#[test]
fn a_mark_inside_a_copy_that_is_not_in_use_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("shares")).unwrap();
    for (id, sequence, verified) in [(0, 5, false), (1, 1, true)] {
        let mut content = header_of(segment::VERSION).to_vec();
        let name = segment::Name { id, salt: 3 };
        Record::Share { hash: hash(1), sequence, time_seen: 1, verified, bytes: b"share" }.write(3, &mut content);
        fs::write(dir.path().join("shares").join(name.file_name()), content).unwrap();
    }
    let (mut store, loaded) = Store::open(dir.path()).unwrap();
    assert_eq!((numbers(&loaded), &loaded.verified[..]), (vec![1], &[][..]));
    store.append_verified(hash(1)).unwrap();
    assert_eq!(reopen(dir.path()).verified, [hash(1)]);
}

#[test]
fn damaged_files_do_not_pile_up_without_end() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let (mut store, _) = Store::open(dir.path()).unwrap();
        append(&mut store, 0..2, 40);
        drop(store);
        let path = files(dir.path()).pop().unwrap();
        let mut bad = fs::read(&path).unwrap();
        bad[HEADER_BYTES + 3] ^= 1;
        fs::write(&path, &bad).unwrap();
    }
    let problems = reopen(dir.path()).problems;
    assert_eq!(damaged_files(dir.path()), 16);
    assert!(problems.iter().any(|problem| problem.contains("more than 16 damaged files")), "{problems:?}");
}

#[test]
fn a_full_store_loads_in_well_under_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let start = Instant::now();
    for number in 0..17_300 {
        append(&mut store, [number], 1200);
        store.append_verified(hash(number)).unwrap();
    }
    store.sync().unwrap();
    println!("writing 17,300 shares and marks and syncing took {:?}", start.elapsed());
    drop(store);
    let start = Instant::now();
    let loaded = reopen(dir.path());
    let took = start.elapsed();
    println!("loading 17,300 shares took {took:?}");
    assert_eq!((loaded.shares.len(), loaded.verified.len()), (17_300, 17_300));
    // Twenty times the duration on an idle machine.
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32, usize),
    Verify(u32),
    Forget(Vec<u32>),
    Sync,
    Restart,
    /// Power loss: this part of the unsynced data survives, followed by this many bytes of rubbish.
    Crash(f64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..60u32;
    prop_oneof![
        // Long shares, so that a few steps fill segments.
        8 => (number.clone(), 1usize..200_000).prop_map(|(number, length)| Step::Append(number, length)),
        4 => number.clone().prop_map(Step::Verify),
        3 => prop::collection::vec(number, 1..20).prop_map(Step::Forget),
        2 => Just(Step::Sync),
        1 => Just(Step::Restart),
        2 => (0.0..1.0, 0usize..100).prop_map(|(part, rubbish)| Step::Crash(part, rubbish)),
    ]
}

/// Shares that a store may and must hold.
#[derive(Debug, Default)]
struct Model {
    /// Every length that a share ever had.
    ever: BTreeMap<u32, BTreeSet<usize>>,
    ever_verified: BTreeSet<u32>,
    /// Length of each wanted share, and whether it is synced.
    wanted: BTreeMap<u32, (usize, bool)>,
    synced: BTreeMap<u32, (usize, bool)>,
}

impl Model {
    fn check(&mut self, loaded: &Loaded, must: &BTreeMap<u32, (usize, bool)>) {
        let verified: BTreeSet<_> = loaded.verified.iter().copied().collect();
        let mut found = BTreeMap::new();
        for share in &loaded.shares {
            let number = share.time_seen;
            assert_eq!(share.hash, hash(number));
            assert_eq!(*share.bytes, *bytes(number, share.bytes.len()), "share {number} is as it was written");
            assert!(self.ever[&number].contains(&share.bytes.len()));
            assert!(!verified.contains(&share.hash) || self.ever_verified.contains(&number));
            let before = found.insert(number, (share.bytes.len(), verified.contains(&share.hash)));
            assert_eq!(before, None, "share {number} came once");
        }
        for (number, (length, is_verified)) in must {
            let (found_length, found_verified) = found.get(number).expect("what was synced is there");
            assert_eq!(found_length, length, "share {number}");
            assert!(*found_verified || !is_verified, "share {number} stays verified");
        }
        // Forgotten shares may come back, and are then wanted until they are forgotten again.
        self.wanted = found.clone();
        self.synced = found;
    }
}

fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap().0;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(number, length) => {
                store.append_share(hash(number), &bytes(number, length), number, false).unwrap();
                model.ever.entry(number).or_default().insert(length);
                model.wanted.entry(number).or_insert((length, false));
            }
            Step::Verify(number) => {
                store.append_verified(hash(number)).unwrap();
                if let Some((_, verified)) = model.wanted.get_mut(&number) {
                    *verified = true;
                    model.ever_verified.insert(number);
                }
            }
            Step::Forget(numbers) => {
                store.forget(&numbers.iter().map(|number| hash(*number)).collect::<Vec<_>>()).unwrap();
                for number in numbers {
                    model.wanted.remove(&number);
                    model.synced.remove(&number);
                }
                let live: u64 = store.segments.values().map(|usage| usage.live).sum();
                assert!(store.bytes_on_disk() <= 2 * live + 2 * SEGMENT_BYTES_MAX);
            }
            Step::Sync => {
                store.sync().unwrap();
                model.synced = model.wanted.clone();
            }
            Step::Restart => {
                drop(store);
                let (next, loaded) = Store::open(dir.path()).unwrap();
                assert_eq!(loaded.problems, [""; 0]);
                let must = model.wanted.clone();
                model.check(&loaded, &must);
                store = next;
            }
            Step::Crash(part, rubbish) => {
                crash(&store, part, rubbish);
                drop(store);
                let (next, loaded) = Store::open(dir.path()).unwrap();
                let must = model.synced.clone();
                model.check(&loaded, &must);
                store = next;
            }
        }
        assert_eq!(store.shares(), model.wanted.len());
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]
fn crash(store: &Store, part: f64, rubbish: usize) {
    let Some(current) = &store.current else { return };
    let path = store.folder.join(current.name.file_name());
    let mut content = fs::read(&path).unwrap();
    let unsynced = content.len() - current.synced as usize;
    content.truncate(current.synced as usize + (unsynced as f64 * part) as usize);
    content.extend(std::iter::repeat_n(0xf7, rubbish));
    fs::write(path, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_and_wherever_the_power_fails_the_store_holds_what_it_promised(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        run(steps);
    }
}
