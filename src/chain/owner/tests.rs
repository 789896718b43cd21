//! The chain goes on, and ends, whatever the disk does.

use super::*;
use crate::chain::{load, ratchet_file};
use crate::template::TemplateSender;
use sharechain::chain::Ratchet;
use sharechain::coin::Network;
use sharechain::share::Share;
use sharechain::testkit::{Plan, grow, network, network_of_versions};
use std::path::Path;

const PATIENCE: Duration = Duration::from_secs(20);

/// Several times the capacity of the store's queue in a test, and fewer than are pruned.
const SHARES: u32 = 225;

/// An owner whose disk hangs until the sender is dropped.
fn hanging(dir: &Path, network: &'static Network) -> (Handle, Owner, std::sync::mpsc::Sender<()>) {
    let mut store = Store::open(dir).unwrap().0;
    let release = store.hang();
    let (wanted, _) = mpsc::channel(1000);
    let (_, known) = watch::channel(Arc::new(HashMap::new()));
    let parent = ParentFeed { wanted, known, templates: TemplateSender::default().recent() };
    let chain = Sharechain::new(network);
    let config = Config { network, data_dir: dir.to_owned(), legacy: None, disk: DiskHealth::new() };
    let (handle, owner) = Owner::new(chain, Some(store), parent, &config).unwrap();
    (handle, owner, release)
}

/// A chain whose newest share is a minute old, oldest first.
fn chain_of(network: &'static Network, count: u32) -> (Sharechain, Vec<Arc<Share>>) {
    let mut chain = Sharechain::new(network);
    let timestamp = now_seconds() - 60 - 10 * count;
    let hashes = grow(&mut chain, None, count, &Plan { timestamp, ..Plan::default() });
    let shares = hashes.iter().map(|hash| chain.share(*hash).unwrap().clone()).collect();
    (chain, shares)
}

async fn tip_is(handle: &mut Handle, best: ShareHash) {
    let is_best = |tip: &Option<Arc<Tip>>| tip.as_ref().and_then(|tip| tip.best_hash()) == Some(best);
    timeout(PATIENCE, handle.tips.wait_for(is_best)).await.expect("the chain goes on").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_delays_neither_the_chain_nor_its_end() {
    let network = network(110, 35);
    let (mut theirs, shares) = chain_of(network, SHARES);
    let own = grow(&mut theirs, shares.last().map(|share| share.hash()), 2, &Plan::default());
    let own: Vec<Arc<Share>> = own.iter().map(|hash| theirs.share(*hash).unwrap().clone()).collect();
    let dir = tempfile::tempdir().unwrap();
    let (mut handle, mut owner, release) = hanging(dir.path(), network);
    let stop = CancellationToken::new();
    let _solved = owner.take_solved();
    let (_heights, known) = watch::channel(Arc::default());
    owner.parent.known = known;
    let running = tokio::spawn(owner.run(stop.clone()));
    for some in shares.chunks(10) {
        let received = Received { shares: some.to_vec(), source: ([10, 0, 0, 1], 9333).into() };
        handle.received.send(received).await.unwrap();
    }
    tip_is(&mut handle, shares.last().unwrap().hash()).await;
    for share in &own {
        handle.own.send(share.clone(), Instant::now()).await.unwrap();
        tip_is(&mut handle, share.hash()).await;
    }
    assert!(handle.at_risk.contains(own[0].hash()));
    assert!(Store::read_only(dir.path()).unwrap().shares.len() < 2);

    // The disk works again: all are stored.
    drop(release);
    let stored = async {
        while Store::read_only(dir.path()).unwrap().shares.len() < SHARES as usize + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, stored).await.expect("all are stored");
    assert!(!handle.at_risk.contains(own[0].hash()));
    stop.cancel();
    drop(handle);
    timeout(PATIENCE, running).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_a_store_that_hangs() {
    let network = network(110, 35);
    let (_, shares) = chain_of(network, SHARES);
    let dir = tempfile::tempdir().unwrap();
    let (mut handle, mut owner, _release) = hanging(dir.path(), network);
    let stop = CancellationToken::new();
    let _solved = owner.take_solved();
    let (_heights, known) = watch::channel(Arc::default());
    owner.parent.known = known;
    let running = tokio::spawn(owner.run(stop.clone()));
    let received = Received { shares: shares.clone(), source: ([10, 0, 0, 1], 9333).into() };
    handle.received.send(received).await.unwrap();
    tip_is(&mut handle, shares.last().unwrap().hash()).await;
    stop.cancel();
    timeout(PATIENCE, running).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_store_that_hangs_is_bounded_by_the_chain() {
    let network = network(110, 35);
    let (theirs, shares) = chain_of(network, SHARES);
    let dir = tempfile::tempdir().unwrap();
    let (_handle, mut owner, _release) = hanging(dir.path(), network);
    owner.chain = theirs;
    let hashes: Vec<ShareHash> = shares.iter().map(|share| share.hash()).collect();
    owner.save(&hashes.iter().rev().copied().collect::<Vec<_>>());
    owner.save(&hashes);
    let (queued, left) = (owner.saved.len(), owner.unsaved.len());
    assert!(queued > 0 && left > 0 && queued + left == hashes.len(), "{queued} {left}");
    assert!(hashes[..queued].iter().all(|hash| owner.saved.contains(hash)), "parents go first");
    assert!(owner.unsaved.iter().eq(&hashes[queued..]), "parents wait first");
    // Shares that the chain forgets no longer wait, and never reach the store.
    owner.forget(hashes[queued + 1..].to_vec());
    assert_eq!((owner.saved.len(), owner.unsaved.len(), owner.unsaved_set.len()), (queued, 1, 1));
    owner.forget(hashes.clone());
    assert_eq!((owner.saved.len(), owner.unsaved.len(), owner.unsaved_set.len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activated_share_version_is_saved_and_lasts_over_a_restart() {
    let network = network_of_versions(20, 35..=36, 100);
    let (_, shares) = chain_of(network, 22);
    let dir = tempfile::tempdir().unwrap();
    let config = Config { network, data_dir: dir.path().to_owned(), legacy: None, disk: DiskHealth::new() };
    let (_heights, known) = watch::channel(Arc::default());
    let parent = || {
        let (wanted, _) = mpsc::channel(1000);
        ParentFeed { wanted, known: known.clone(), templates: TemplateSender::default().recent() }
    };
    let (mut handle, mut owner) = load(&config, parent()).unwrap();
    assert_eq!(owner.chain.ratchet().map(Ratchet::state), Some(RatchetState::Voting));
    let (_solved, stop) = (owner.take_solved(), CancellationToken::new());
    let running = tokio::spawn(owner.run(stop.clone()));
    let received = Received { shares: shares.clone(), source: ([10, 0, 0, 1], 9333).into() };
    handle.received.send(received).await.unwrap();
    tip_is(&mut handle, shares.last().unwrap().hash()).await;
    assert_eq!(handle.tips.borrow().as_ref().map(|tip| tip.version()), Some(ShareVersion::V36));
    stop.cancel();
    timeout(PATIENCE, running).await.expect("the owner ends").unwrap();
    let saved = ratchet_file::read(dir.path()).unwrap().expect("it is saved before the end");
    assert_eq!(saved.state(), RatchetState::Activated);

    let (_, owner) = load(&config, parent()).unwrap();
    assert_eq!(owner.chain.ratchet().map(Ratchet::state), Some(RatchetState::Activated));
    // The store does not say that a peer sent its shares.
    assert_eq!(owner.tips.borrow().as_ref().map(|tip| tip.version()), Some(ShareVersion::V36));
}
