//! A share chain of version 36 between nodes: it is mined, downloaded, kept and continued, and peers of protocol 3502
//! are let in until version 36 is final.

use bitcoin::hashes::Hash;
use p2pool::chain::store::Store;
use sharechain::chain::share_rules;
use sharechain::coin::{self, Network};
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use test_support::{
    Bitcoind, Hello, Namespace, Node, NodeBuilder, PeerClient, ShareRequest, StratumClient, metric_value, wait_until,
};

use crate::arena::{AT_ONCE, OFFENCES, address_of};

/// Shares before the second node joins: fewer than the chain's length of 40, at which version 36 becomes final.
const EARLY: u32 = 30;

/// Shares found while the second node is away: the chain is then longer than its length, but not yet pruned.
const LATER: u32 = 30;

/// Protocol version of nodes that know share version 36.
const NEW_PROTOCOL: u32 = 3600;

/// Protocol version of nodes that do not.
const OLD_PROTOCOL: u32 = 3502;

/// Payout address of the miner and of the nodes.
const PAYEE: &str = "tb1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpw0yxjz";

/// Time limit for a node to connect to another and to download its chain, on a loaded machine.
const JOIN_LIMIT: Duration = Duration::from_secs(40);

/// Network of `tests/networks/v36.toml`.
static NETWORK: LazyLock<Network> =
    LazyLock::new(|| coin::from_toml(include_str!("../networks/v36.toml")).expect("the tests' own file is a network"));

/// Options of a node at 9.0.0.`host`.
fn builder(daemon: &Bitcoind, host: u8) -> NodeBuilder {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "networks", "v36.toml"].iter().collect();
    NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), daemon)
        .network(file.to_str().expect("the repository's path is text"))
        .address(Some(PAYEE))
        .pool_address(SocketAddr::from(([9, 0, 0, host], 9333)))
}

/// A miner whose solutions are all shares.
struct Miner {
    client: StratumClient,
    user: String,
}

impl Miner {
    fn of(node: &Node) -> Self {
        // The highest difficulty, which the node lowers to that of a share.
        let user = format!("{PAYEE}.rig+1e9");
        Self { client: StratumClient::ready(node.worker_port(), &user), user }
    }

    /// Finds a share, and waits for work on top of it.
    fn mine(&mut self) -> ShareHash {
        self.client.poll();
        let job = self.client.job();
        let (share, block) = (job.submission_target(), job.block_target());
        let found = job.search(|hash| hash <= share && hash > block);
        assert_eq!(self.client.submit(&self.user, &found), Ok(true), "the miner's share is refused");
        self.client.wait_for_job(|next| next.clean && next.coinbase_start != job.coinbase_start);
        ShareHash(found.hash.to_byte_array())
    }

    /// Finds this many shares, and returns the last.
    fn mine_many(&mut self, count: u32) -> ShareHash {
        (0..count).map(|_| self.mine()).last().expect("one at least")
    }
}

fn hello(version: u32) -> Hello {
    Hello { version, ..Hello::default() }
}

/// Connects peer `number` to a node, without sending anything.
fn stranger(node: &Node, number: u8) -> PeerClient {
    PeerClient::connect_from(address_of(number), node.pool_address(), NETWORK.prefix).expect("the node listens")
}

fn metric(node: &Node, name: &str) -> f64 {
    metric_value(&node.metrics(), name).unwrap_or(0.0)
}

fn wait_for_height(node: &Node, height: u32) {
    wait_until(&format!("{} is at height {height}", node.pool_address()), JOIN_LIMIT, || {
        metric(node, "sharechain_height ") == f64::from(height)
    });
}

/// Number of shares that a node has on disk, all of version 36.
fn stored(node: &Node) -> usize {
    let loaded = Store::read_only(&node.data_dir().join("v36")).expect("the store can be read");
    assert_eq!(loaded.problems, [""; 0]);
    let rules = share_rules(&NETWORK);
    for share in &loaded.shares {
        let share = Share::from_bytes(&share.bytes, &rules).expect("an honest share");
        assert_eq!(share.version().number(), 36, "{}", share.hash());
    }
    loaded.shares.len()
}

/// Checks that a node sends peer `peer` its whole chain from `tip` down, all of version 36.
fn check_download(peer: &mut PeerClient, tip: ShareHash, length: u32) {
    let shares = peer.ask_for_shares(&ShareRequest::of(tip.0, 1000));
    assert_eq!(shares.len(), length as usize);
    let rules = share_rules(&NETWORK);
    let mut wanted = Some(tip);
    for wrapped in &shares {
        let share = Share::from_bytes(wrapped, &rules).expect("an honest share");
        assert_eq!((Some(share.hash()), share.version().number()), (wanted, 36));
        wanted = share.previous();
    }
    assert_eq!(wanted, None, "the first share of the chain has no parent");
}

/// Checks that a node announces the new protocol, and has refused no share and banned no peer.
fn check_peace(node: &Node) {
    let announced = || {
        let stats: serde_json::Value = serde_json::from_str(&node.get("/local_stats").body).ok()?;
        stats["protocol_version"].as_u64()
    };
    wait_until("there are statistics", JOIN_LIMIT, || announced().is_some());
    assert_eq!(announced(), Some(u64::from(NEW_PROTOCOL)));
    assert_eq!(metric(node, "sharechain_refused_shares_total"), 0.0);
    assert_eq!(metric(node, "p2p_bans "), 0.0);
}

/// Runs a case where peers have addresses of their own. Skips it if the user has opted out of namespaces.
fn apart(case: impl FnOnce() + Send) {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(&["address", "add", "9.0.0.1/8", "dev", "lo"]);
    namespace.enter(case);
}

#[test]
fn a_chain_of_version_36_is_downloaded_kept_and_continued_and_old_peers_are_let_in_until_it_is_final() {
    apart(|| {
        let daemon = Bitcoind::start_with(&["-chain=signet", "-signetchallenge=51"]);
        let mut first = builder(&daemon, 1).start();
        let mut miner = Miner::of(&first);
        let early = miner.mine_many(EARLY);
        wait_for_height(&first, EARLY);

        let mut old = stranger(&first, 1);
        assert_eq!(old.shake_hands(&hello(OLD_PROTOCOL)).version, NEW_PROTOCOL);
        check_download(&mut old, early, EARLY);

        let mut second = builder(&daemon, 2).args(&["--outgoing-conns", "0"]).peer(first.pool_address()).start();
        wait_for_height(&second, EARLY);
        let mut reader = stranger(&second, 2);
        assert_eq!(reader.shake_hands(&hello(NEW_PROTOCOL)).version, NEW_PROTOCOL);
        check_download(&mut reader, early, EARLY);

        // Part of the chain is then on its disk, and the rest comes from the first node.
        assert_eq!(second.terminate().status.code(), Some(0));
        assert_eq!(stored(&second), EARLY as usize);
        let last = miner.mine_many(LATER);
        second.restart();
        wait_for_height(&second, EARLY + LATER);
        let mut reader = stranger(&second, 2);
        reader.shake_hands(&hello(NEW_PROTOCOL));
        check_download(&mut reader, last, EARLY + LATER);
        for node in [&first, &second] {
            check_peace(node);
            assert_eq!(metric(node, OFFENCES), 0.0, "an old peer is no offender");
        }

        // Version 36 is final: connections stand, and new ones of old peers end without a ban.
        assert!(old.is_connected(), "the connection has ended; the node said:\n{}", first.log());
        for (node, number) in [(&first, 3), (&second, 4)] {
            let mut late = stranger(node, number);
            late.say_hello(&hello(OLD_PROTOCOL));
            assert!(late.disconnected_within(AT_ONCE), "the connection stands");
            let too_old = format!("{OFFENCES}{{kind=\"too_old\"}}");
            wait_until(&format!("{too_old} counts"), AT_ONCE, || metric(node, &too_old) == 1.0);
            assert_eq!(metric(node, OFFENCES), 1.0, "and nothing else");
            let mut upgraded = stranger(node, number);
            assert_eq!(upgraded.shake_hands(&hello(NEW_PROTOCOL)).version, NEW_PROTOCOL);
            assert!(upgraded.is_connected());
            check_peace(node);
        }

        // Alone, from its disk, the second node goes on with the chain.
        assert_eq!(first.terminate().status.code(), Some(0));
        assert_eq!(second.terminate().status.code(), Some(0));
        assert_eq!(stored(&second), (EARLY + LATER) as usize);
        second.restart();
        wait_for_height(&second, EARLY + LATER);
        Miner::of(&second).mine();
        wait_for_height(&second, EARLY + LATER + 1);
        check_peace(&second);
    });
}
