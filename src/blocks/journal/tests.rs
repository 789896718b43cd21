//! A block survives a crash, whatever state its file is in.

use super::*;

fn block(seed: u8) -> FoundBlock {
    FoundBlock {
        hash: BlockHash::from_byte_array([seed; 32]),
        previous_block: BlockHash::from_byte_array([seed + 1; 32]),
        height: u32::from(seed),
        bytes: Bytes::from(vec![b'\n', seed, b'\n', 0xff]),
        finding: Finding {
            value: 5_000_000_000,
            payee: "bcrt1q\"\n".into(),
            finder: "worker é".into(),
            is_ours: seed % 2 == 1,
        },
        judged_at: None,
    }
}

/// Journal of a merged chain beside that of [`journal`].
fn merged(journal: &Journal, name: &str) -> Journal {
    let chain = Arc::new(Chain::merged(name, 240).unwrap());
    Journal::open(chain, &journal.data_dir, DiskHealth::new()).unwrap()
}

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::of_test(dir.path());
    (dir, journal)
}

#[test]
fn an_unfinished_block_is_found_again_whole() {
    let (_dir, journal) = journal();
    let entry = journal.write(&block(1)).unwrap();
    entry.sync().unwrap();
    let found = journal.unfinished().unwrap();
    assert_eq!(found.blocks, [(block(1), entry)]);
    assert!(found.damaged.is_empty());
}

#[test]
fn the_largest_block_with_an_extension_block_is_found_again() {
    let (_dir, journal) = journal();
    let bytes = vec![7; usize::try_from(BLOCK_WEIGHT_MAX).unwrap() + EXTENSION_BYTES_MAX];
    let largest = FoundBlock { bytes: bytes.into(), ..block(1) };
    journal.write(&largest).unwrap().sync().unwrap();
    let found = journal.unfinished().unwrap();
    assert!(found.damaged.is_empty());
    assert_eq!(found.blocks.len(), 1);
    assert!(found.blocks[0].0 == largest, "it has changed");
}

#[test]
fn an_accepted_block_is_kept_and_not_submitted_again() {
    let (dir, journal) = journal();
    for (seed, outcome) in [(1, Outcome::Accepted), (2, Outcome::Stale), (3, Outcome::Rejected("bad".into()))] {
        journal.write(&block(seed)).unwrap().mark(&outcome).unwrap();
    }
    let found = journal.unfinished().unwrap();
    let seeds = |blocks: &[(FoundBlock, Entry)]| blocks.iter().map(|(block, _)| block.height).collect::<Vec<_>>();
    assert_eq!((seeds(&found.blocks), seeds(&found.rejected)), (vec![2], vec![3]));
    let kept: Vec<_> = fs::read_dir(dir.path().join("found_blocks")).unwrap().map(|one| one.unwrap()).collect();
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().any(|one| one.file_name().to_string_lossy().ends_with(".rejected")));
}

#[test]
fn blocks_are_kept_with_their_fate_until_they_are_settled() {
    let (_dir, journal) = journal();
    for (seed, outcome) in [(1, Outcome::Accepted), (2, Outcome::Stale), (3, Outcome::Rejected("bad".into()))] {
        journal.write(&block(seed)).unwrap().mark(&outcome).unwrap();
    }
    journal.write(&block(4)).unwrap();
    let fates = || {
        let kept = journal.kept().unwrap();
        let word = |one: Kept| (one.block.height, one.outcome.map_or("open", |outcome| outcome.word()));
        kept.into_iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(fates(), [(4, "open"), (3, "rejected"), (2, "stale"), (1, "accepted")]);
    for seed in 1..=4 {
        journal.forget(&block(seed).hash).unwrap();
    }
    assert_eq!(fates(), [(4, "open"), (3, "rejected")], "files that may still be needed stay");
}

#[test]
fn of_what_is_kept_for_a_person_the_latest_stay() {
    let (dir, journal) = journal();
    let begin = SystemTime::now() - std::time::Duration::from_secs(1000);
    let count = LOOKED_AT_MAX + 3;
    for number in 0..count {
        let path = dir.path().join("found_blocks").join(format!("{number:07}-x.rejected"));
        let age = std::time::Duration::from_secs(number as u64);
        File::create(&path).unwrap().set_modified(begin + age).unwrap();
    }
    journal.write(&block(1)).unwrap();
    journal.prune().unwrap();
    let left = journal.paths().unwrap();
    assert_eq!(left.len(), LOOKED_AT_MAX + 1);
    assert!(left[0].to_string_lossy().ends_with(".block"), "a block on its way is never removed: {left:?}");
    assert!(left[1].to_string_lossy().contains("0000003-x"), "{left:?}");
}

#[test]
fn a_torn_file_is_set_aside_and_the_others_are_found() {
    let (_dir, journal) = journal();
    journal.write(&block(1)).unwrap();
    let torn = journal.write(&block(2)).unwrap();
    let bytes = fs::read(&torn.path).unwrap();
    fs::write(&torn.path, &bytes[..bytes.len() - 1]).unwrap();
    fs::write(journal.folder.join("0000003-short.block"), b"x").unwrap();
    let found = journal.unfinished().unwrap();
    assert_eq!(found.blocks.len(), 1);
    let reasons: Vec<_> = found.damaged.iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, [&DamageError::Checksum, &DamageError::Length(1)]);
    assert!(found.damaged.iter().all(|(path, _)| path.exists()));
    assert!(journal.unfinished().unwrap().damaged.is_empty());
}

#[test]
fn a_block_whose_rename_was_cut_short_is_not_lost() {
    let (_dir, journal) = journal();
    let mut entry = journal.write(&block(1)).unwrap();
    fs::rename(&entry.path, entry.path.with_extension("tmp")).unwrap();
    assert_eq!(journal.unfinished().unwrap().blocks, [(block(1), entry.clone())]);
    entry.mark(&Outcome::Accepted).unwrap();
}

#[test]
fn a_file_begins_with_the_line_that_every_version_reads() {
    let bytes = encode(&block(1));
    let line = String::from_utf8(bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec()).unwrap();
    let (hash, previous) = ("01".repeat(32), "02".repeat(32));
    let wanted =
        format!(r#"{{"version":1,"hash":"{hash}","height":1,"previous_block":"{previous}","value":5000000000,"#)
            + r#""payee":"bcrt1q\"\n","finder":"worker é","is_ours":true}"#;
    assert_eq!(line, wanted);
    let old = line.replace(r#","is_ours":true"#, "");
    assert!(serde_json::from_str::<Header>(&old).unwrap().finding.is_ours, "files older than the field");
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = encode(&block(1));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(decode(bad).is_err(), "byte {at}");
    }
    assert_eq!(decode(good).unwrap(), block(1));
}

#[test]
fn each_chain_keeps_its_own_blocks_and_any_of_them_is_found_by_its_hash() {
    let (dir, parent) = journal();
    let (first, second) = (merged(&parent, "dogecoin"), merged(&parent, "namecoin"));
    parent.write(&block(1)).unwrap();
    first.write(&block(2)).unwrap();
    second.write(&block(3)).unwrap().mark(&Outcome::Stale).unwrap();
    for (journal, seed) in [(&parent, 1), (&first, 2), (&second, 3)] {
        let found = journal.unfinished().unwrap();
        assert_eq!(found.blocks.iter().map(|(block, _)| block.height).collect::<Vec<_>>(), [seed]);
        assert!(journal.find(&block(4).hash).unwrap().is_none());
    }
    assert!(parent.find(&block(2).hash).unwrap().is_none() && first.find(&block(1).hash).unwrap().is_none());
    let names = |folder: &str| fs::read_dir(dir.path().join(folder).join("found_blocks")).unwrap().count();
    assert_eq!([names(""), names("merged/dogecoin"), names("merged/namecoin")], [1; 3]);
    for seed in 1..=3 {
        assert_eq!(read(dir.path(), &block(seed).hash).unwrap(), Some(block(seed)));
    }
    assert_eq!(read(dir.path(), &block(4).hash).unwrap(), None);
}

#[test]
fn one_chains_journal_that_cannot_be_read_hides_no_block_of_another() {
    let (dir, parent) = journal();
    merged(&parent, "dogecoin").write(&block(2)).unwrap();
    fs::create_dir(dir.path().join("merged/empty")).unwrap();
    fs::write(dir.path().join("merged/a-file"), b"x").unwrap();
    fs::remove_dir(&parent.folder).unwrap();
    assert_eq!(read(dir.path(), &block(2).hash).unwrap(), Some(block(2)));
    let error = read(dir.path(), &block(1).hash).unwrap_err().to_string();
    assert!(error.contains("cannot list") && !error.contains("merged"), "the parent chain's comes first: {error}");
}

#[test]
fn a_merged_chains_finished_files_are_limited_and_the_parent_chains_are_not() {
    let (_dir, parent) = journal();
    let merged = merged(&parent, "dogecoin");
    for journal in [&parent, &merged] {
        let begin = SystemTime::now() - std::time::Duration::from_secs(10_000);
        for (number, state) in
            (0..MERGED_FINISHED_MAX as u64 + 2).flat_map(|number| [(number, ACCEPTED), (number, STALE)])
        {
            let path = journal.folder.join(format!("{number:07}-x.{state}"));
            File::create(&path).unwrap().set_modified(begin + std::time::Duration::from_secs(number)).unwrap();
        }
        journal.write(&block(1)).unwrap();
        journal.prune().unwrap();
    }
    assert_eq!(parent.paths().unwrap().len(), 2 * MERGED_FINISHED_MAX + 5);
    let left = merged.paths().unwrap();
    assert_eq!(left.len(), 2 * MERGED_FINISHED_MAX + 1);
    assert!(
        left[0].to_string_lossy().ends_with(".block") && left[1].to_string_lossy().contains("0000002-x"),
        "{left:?}"
    );
}

#[test]
fn another_proof_of_a_merged_chains_block_replaces_the_rejected_one() {
    let (_dir, parent) = journal();
    let merged = merged(&parent, "dogecoin");
    merged.write(&block(1)).unwrap().mark(&Outcome::Rejected("bad proof".into())).unwrap();
    let other = FoundBlock { bytes: Bytes::from_static(b"another"), ..block(1) };
    let mut entry = merged.write(&other).unwrap();
    let found = merged.unfinished().unwrap();
    assert_eq!((found.blocks, found.rejected.len()), (vec![(other.clone(), entry.clone())], 0));
    entry.mark(&Outcome::Accepted).unwrap();
    assert_eq!(merged.find(&other.hash).unwrap().unwrap().0, other);
}
