//! Owner of the share chain as seen by the rest of the node: peers' shares in, resulting events out.

use p2pool::chain::store::Store;
use p2pool::chain::{ChainEvent, Config, Handle, Owner, ParentFeed, Query, Received, load, load_read_only};
use p2pool::runtime::disk::DiskHealth;
use sharechain::chain::Sharechain;
use sharechain::share::{Share, ShareHash};
use sharechain::testkit::{Plan, bits_of, find, grow, info, network, share_on};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Long enough that a share's hundredth ancestor is known wherever a check is due.
const LENGTH: u32 = 110;
/// Below the length from which shares are pruned.
const CHAIN: u32 = 225;

const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> u32 {
    u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn peer(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 9333))
}

/// Running owner.
struct Running {
    handle: Handle,
    events: broadcast::Receiver<ChainEvent>,
    solved: mpsc::Receiver<p2pool::chain::SolvedShare>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    _heights: HeightsEnds,
}

/// Other ends of the owner's channels to the daemon: open, and never used.
type HeightsEnds = (watch::Sender<Arc<HashMap<[u8; 32], u32>>>, mpsc::Receiver<[u8; 32]>);

type Loaded = Result<(Handle, Owner), p2pool::chain::StartError>;

impl Running {
    fn start(
        network: &'static sharechain::coin::Network,
        dir: &Path,
        load: impl FnOnce(&Config, ParentFeed) -> Loaded,
    ) -> Running {
        let config = Config { network, data_dir: dir.to_owned(), legacy: None, disk: DiskHealth::new() };
        let (wanted, wanted_heights) = mpsc::channel(1000);
        let (known_sender, known) = watch::channel(Arc::default());
        let (handle, mut owner) =
            load(&config, ParentFeed { wanted, known, templates: watch::channel(Arc::default()).1 }).unwrap();
        let stop = CancellationToken::new();
        let solved = owner.take_solved().unwrap();
        let events = handle.events.subscribe();
        let task = tokio::spawn(owner.run(stop.clone()));
        Running { handle, events, solved, task, stop, _heights: (known_sender, wanted_heights) }
    }

    async fn send(&self, shares: Vec<Arc<Share>>, host: u8) {
        self.handle.received.send(Received { shares, source: peer(host) }).await.unwrap();
    }

    async fn tip_is(&mut self, best: Option<ShareHash>) {
        let is_best = |tip: &Option<Arc<sharechain::chain::Tip>>| tip.as_ref().and_then(|tip| tip.best_hash()) == best;
        timeout(PATIENCE, self.handle.tips.wait_for(is_best)).await.expect("the tip comes").unwrap();
    }

    async fn event<T>(&mut self, mut pick: impl FnMut(ChainEvent) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = self.events.recv().await.ok().and_then(&mut pick) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("the event comes")
    }

    async fn ask(&self, hashes: Vec<ShareHash>, parents: u64) -> Vec<Arc<Share>> {
        let (reply, answer) = oneshot::channel();
        self.handle.queries.send(Query::Ancestry { hashes, parents, stops: Vec::new(), reply }).await.unwrap();
        timeout(PATIENCE, answer).await.expect("an answer comes").unwrap()
    }

    async fn knows(&self, hash: ShareHash) {
        let known = async {
            loop {
                let (reply, answer) = oneshot::channel();
                self.handle.queries.send(Query::Knows { hash, reply }).await.unwrap();
                if answer.await.unwrap() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, known).await.expect("it comes to be known");
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
    }
}

/// Chain whose newest share is a minute old.
fn recent_chain(network: &'static sharechain::coin::Network, count: u32) -> Sharechain {
    let mut chain = Sharechain::new(network);
    grow(&mut chain, None, count, &Plan { timestamp: now() - 60 - 10 * count, ..Plan::default() });
    chain
}

fn hashes(shares: &[Arc<Share>]) -> Vec<ShareHash> {
    shares.iter().map(|share| share.hash()).collect()
}

fn newest_first(chain: &Sharechain) -> Vec<Arc<Share>> {
    let best = chain.choice().best.unwrap();
    chain.all().chain(best, u32::MAX).map(|hash| chain.share(hash).unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_peers_send_in_replies_is_made_our_own_and_outlives_a_restart() {
    let network = network(LENGTH, 35);
    let theirs = recent_chain(network, CHAIN);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    let shares = newest_first(&theirs);
    for reply in shares.chunks(25) {
        node.send(reply.to_vec(), 1).await;
    }
    node.tip_is(theirs.choice().best).await;
    // The oldest shares arrive after there are enough for a choice.
    node.knows(shares[shares.len() - 1].hash()).await;
    let answer = node.ask(vec![shares[0].hash()], 400).await;
    assert_eq!(hashes(&answer), hashes(&shares));
    node.stop().await;

    let loaded = Store::read_only(dir.path()).unwrap();
    assert_eq!(loaded.shares.len(), CHAIN as usize, "also those that no payout needs yet");
    assert!(loaded.verified.len() >= LENGTH as usize, "{}", loaded.verified.len());
    let mut node = Running::start(network, dir.path(), load);
    node.tip_is(theirs.choice().best).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_parents_are_told_until_they_come() {
    let network = network(LENGTH, 35);
    let theirs = recent_chain(network, CHAIN);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    let shares = newest_first(&theirs);
    node.send(shares[..25].to_vec(), 7).await;
    let needs = &mut node.handle.needs;
    let wanted = {
        let told = timeout(PATIENCE, needs.wait_for(|needs| !needs.wanted.is_empty())).await.unwrap().unwrap();
        assert_eq!(told.stops, [shares[0].hash(), shares[10].hash()]);
        told.wanted.clone()
    };
    assert_eq!((wanted.len(), wanted[0].hash, wanted[0].source), (1, shares[25].hash(), Some(peer(7))));
    node.send(shares[25..].to_vec(), 8).await;
    timeout(PATIENCE, node.handle.needs.wait_for(|needs| needs.wanted.is_empty())).await.unwrap().unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_tip_is_told_with_what_was_not_told_before_and_with_who_sent_it() {
    let network = network(24, 35);
    let mut theirs = recent_chain(network, 60);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    let told = |event| match event {
        ChainEvent::TipChanged { newest_first, sources } => Some((newest_first, sources)),
        _ => None,
    };
    node.send(newest_first(&theirs), 1).await;
    let (shares, sources) = node.event(told).await;
    assert_eq!(shares[..], newest_first(&theirs)[..5]);
    assert_eq!(sources[..], [Some(peer(1)); 5]);
    let fresh = grow_by(&mut theirs, 2);
    node.send(vec![fresh[1].clone(), fresh[0].clone()], 2).await;
    let (shares, sources) = node.event(told).await;
    assert_eq!(shares[..], [fresh[1].clone(), fresh[0].clone()]);
    assert_eq!(sources[..], [Some(peer(2)); 2]);
    let own = grow_by(&mut theirs, 1);
    node.handle.own.send(own[0].clone(), Instant::now()).await.unwrap();
    let (shares, sources) = node.event(told).await;
    assert_eq!((&shares[..], &sources[..]), (&own[..], &[None][..]));
    node.stop().await;

    // Peers have the shares from before the start.
    let mut node = Running::start(network, dir.path(), load);
    let fresh = grow_by(&mut theirs, 1);
    node.send(fresh.clone(), 3).await;
    assert_eq!(node.event(told).await.0[..], fresh[..]);
    node.stop().await;
}

fn grow_by(chain: &mut Sharechain, count: u32) -> Vec<Arc<Share>> {
    let best = chain.choice().best;
    let hashes = grow(chain, best, count, &Plan::default());
    hashes.iter().map(|hash| chain.share(*hash).unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_does_not_fit_is_told_with_its_sender() {
    let network = network(24, 35);
    let mut theirs = recent_chain(network, 60);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    node.send(newest_first(&theirs), 1).await;
    node.tip_is(theirs.choice().best).await;
    let tip = theirs.tip();
    let plan = Plan { timestamp: now(), ..Plan::default() };
    let mut wrong = info(&theirs, &tip, &plan);
    wrong.absheight += 1;
    let bad = find(&theirs, &tip, &plan, wrong);
    node.send(vec![bad.clone()], 9).await;
    let (hash, source, reason) = node
        .event(|event| match event {
            ChainEvent::Refused { hash, source, reason } => Some((hash, source, reason)),
            _ => None,
        })
        .await;
    assert_eq!((hash, source), (bad.hash(), Some(peer(9))));
    assert!(reason.contains("absheight"), "{reason}");
    let (reply, answer) = oneshot::channel();
    node.handle.queries.send(Query::Knows { hash, reply }).await.unwrap();
    assert!(!answer.await.unwrap());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_ahead_of_our_clock_are_blamed_on_it_if_three_networks_send_them_and_are_taken_later() {
    let network = network(24, 35);
    let mut theirs = recent_chain(network, 60);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    node.send(newest_first(&theirs), 1).await;
    node.tip_is(theirs.choice().best).await;
    let best = theirs.choice().best;
    let share = share_on(&mut theirs, best, &Plan { timestamp: now() + 610, ..Plan::default() });
    let send = async |network: u8, host: u8| {
        let source = SocketAddr::from(([10, 0, network, host], 9333));
        node.handle.received.send(Received { shares: vec![share.clone()], source }).await.unwrap();
    };
    send(1, 1).await;
    send(1, 2).await;
    send(2, 1).await;
    let mut early = node.handle.early.clone();
    timeout(PATIENCE, early.wait_for(|early| early.networks == 2)).await.expect("both are counted").unwrap();
    assert_eq!(early.borrow().behind(), None);
    send(3, 1).await;
    timeout(PATIENCE, early.wait_for(|early| early.behind().is_some())).await.expect("our clock is blamed").unwrap();
    node.tip_is(Some(share.hash())).await;
    timeout(PATIENCE, early.wait_for(|early| early.networks == 0)).await.expect("it is right again").unwrap();
    while let Ok(event) = node.events.try_recv() {
        assert!(!matches!(event, ChainEvent::Refused { .. }), "{event:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_solves_its_block_comes_with_its_coinbase_and_is_told_once_its_parent_is_known_to_be_recent() {
    let network = network(24, 35);
    let mut theirs = recent_chain(network, 60);
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    node.send(newest_first(&theirs), 1).await;
    node.tip_is(theirs.choice().best).await;
    let plan = Plan { timestamp: now(), block_bits: bits_of(1), previous_block: Some([5; 32]), ..Plan::default() };
    let best = theirs.choice().best;
    let block = share_on(&mut theirs, best, &plan);
    assert!(block.is_block());
    node.send(vec![block.clone()], 4).await;
    let solved = timeout(PATIENCE, node.solved.recv()).await.unwrap().unwrap();
    assert_eq!((solved.share.hash(), solved.source, solved.is_own), (block.hash(), Some(peer(4)), false));
    let coinbase: bitcoin::Transaction = bitcoin::consensus::deserialize(&solved.coinbase).unwrap();
    assert_eq!(coinbase.compute_txid().as_ref() as &[u8; 32], block.gentx_hash());
    assert_eq!(coinbase.input[0].witness.len(), 1);
    node._heights.0.send_replace(Arc::new(HashMap::from([([5; 32], 100), ([6; 32], 103)])));
    let told = node
        .event(|event| match event {
            ChainEvent::Block { share, source } => Some((share.hash(), source)),
            _ => None,
        })
        .await;
    assert_eq!(told, (block.hash(), Some(peer(4))));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_shares_and_questions_do_not_wait_for_a_big_download() {
    let network = network(400, 35);
    let mut theirs = recent_chain(network, 810);
    let best = theirs.choice().best;
    let fresh = share_on(&mut theirs, best, &Plan { timestamp: now(), ..Plan::default() });
    let dir = tempfile::tempdir().unwrap();
    let mut node = Running::start(network, dir.path(), load);
    node.send(newest_first(&theirs), 1).await;
    node.tip_is(theirs.choice().best).await;
    // The tip is known as soon as one share of the chain is verified.
    node.handle.own.send(fresh.clone(), Instant::now()).await.unwrap();
    node.tip_is(Some(fresh.hash())).await;
    assert_eq!(node.ask(vec![fresh.hash()], 5).await.len(), 6);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_beside_another_gets_the_store_later_and_loses_nothing() {
    let network = network(LENGTH, 35);
    let mut theirs = recent_chain(network, CHAIN);
    let dir = tempfile::tempdir().unwrap();
    let mut old = Running::start(network, dir.path(), load);
    for reply in newest_first(&theirs).chunks(50) {
        old.send(reply.to_vec(), 1).await;
    }
    old.tip_is(theirs.choice().best).await;
    // After the next choice all of it is on disk.
    let stored = async {
        while Store::read_only(dir.path()).unwrap().shares.len() < CHAIN as usize {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, stored).await.unwrap();

    let mut new = Running::start(network, dir.path(), load_read_only);
    new.tip_is(theirs.choice().best).await;
    let for_both = grow_by(&mut theirs, 1);
    old.send(for_both.clone(), 1).await;
    old.tip_is(theirs.choice().best).await;
    let for_new = grow_by(&mut theirs, 1);
    new.send(vec![for_both[0].clone(), for_new[0].clone()], 2).await;
    new.tip_is(theirs.choice().best).await;
    let for_old =
        share_on(&mut theirs, Some(for_both[0].hash()), &Plan { nonce: 5, timestamp: now(), ..Plan::default() });
    old.send(vec![for_old.clone()], 1).await;
    old.event(|event| match event {
        ChainEvent::Accepted { share, .. } => (share.hash() == for_old.hash()).then_some(()),
        _ => None,
    })
    .await;
    old.stop().await;

    new.handle.attach_store(dir.path()).await.unwrap();
    let own = grow_by(&mut theirs, 1);
    new.handle.own.send(own[0].clone(), Instant::now()).await.unwrap();
    new.tip_is(theirs.choice().best).await;
    assert_eq!(new.ask(vec![for_old.hash()], 0).await.len(), 1, "what the other wrote meanwhile is here");
    new.stop().await;
    let stored: Vec<ShareHash> = Store::read_only(dir.path()).unwrap().shares.iter().map(|share| share.hash).collect();
    for share in [&for_both[0], &for_new[0], &for_old, &own[0]] {
        assert!(stored.contains(&share.hash()));
    }
    assert_eq!(stored.len(), CHAIN as usize + 4);
}
