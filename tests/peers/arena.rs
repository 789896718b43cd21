//! A node with a daemon, a miner and an honest peer in its own network, and attackers with their own addresses.

use bitcoin::hashes::Hash;
use sharechain::chain::Sharechain;
use sharechain::coin::{self, Network};
use sharechain::share::{Share, ShareHash};
use sharechain::testkit::Plan;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};
use test_support::peer_client::parse_shares;
use test_support::{
    Bitcoind, Hello, Namespace, Node, NodeBuilder, PeerClient, PeerError, ShareRequest, StratumClient, metric_value,
    wait_until,
};

/// Time limit for immediate reactions of the node, on a loaded machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

/// Payout address of the miner and of the node.
const PAYEE: &str = "tb1qqyqszqgpqyqszqgpqyqszqgpqyqszqgpw0yxjz";

/// Metric that counts offences.
pub(crate) const OFFENCES: &str = "p2p_offences_total";

/// Network of `tests/networks/easy.toml`.
static EASY: LazyLock<Network> =
    LazyLock::new(|| coin::from_toml(include_str!("../networks/easy.toml")).expect("the tests' own file is a network"));

/// The node and all honest participants.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) daemon: Bitcoind,
    pub(crate) node: Node,
    miner: StratumClient,
    user: String,
    /// Honest peer, connected from the start.
    pub(crate) friend: PeerClient,
}

/// Runs a case, and checks afterwards that miner and honest peer are served as before. Skips it if the user has opted
/// out of namespaces.
pub(crate) fn arena(args: &[&str], case: impl FnOnce(&mut Arena) + Send) {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(&["address", "add", "9.0.0.1/8", "dev", "lo"]);
    namespace.enter(|| {
        let mut arena = Arena::start(args);
        case(&mut arena);
        arena.check_service();
    });
}

impl Arena {
    fn start(args: &[&str]) -> Self {
        let daemon = Bitcoind::start_with(&["-chain=signet", "-signetchallenge=51"]);
        let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "networks", "easy.toml"].iter().collect();
        let node = NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), &daemon)
            .network(file.to_str().expect("the repository's path is text"))
            .address(Some(PAYEE))
            .pool_address(SocketAddr::from(([9, 0, 0, 1], 9333)))
            .args(args)
            .start();
        // The highest difficulty, which the node lowers to that of a share: all of the miner's solutions are shares.
        let user = format!("{PAYEE}.rig+1e9");
        let miner = StratumClient::ready(node.worker_port(), &user);
        let friend = meet(&node);
        Self { daemon, node, miner, user, friend }
    }

    /// Starts another node with the same daemon at 9.0.0.`host`, connected to the one at `peer`.
    pub(crate) fn neighbour(&self, host: u8, peer: SocketAddr) -> Node {
        let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "networks", "easy.toml"].iter().collect();
        NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), &self.daemon)
            .network(file.to_str().expect("the repository's path is text"))
            .address(Some(PAYEE))
            .pool_address(SocketAddr::from(([9, 0, 0, host], 9333)))
            .args(&["--outgoing-conns", "0"])
            .peer(peer)
            .start()
    }

    /// Waits until miner and honest peer are connected again, after a restart of the node.
    pub(crate) fn meet_again(&mut self) {
        self.miner = StratumClient::ready(self.node.worker_port(), &self.user);
        self.friend = meet(&self.node);
    }

    pub(crate) fn prefix(&self) -> [u8; 8] {
        EASY.prefix
    }

    /// Connects from the address of attacker `number`, without sending anything.
    pub(crate) fn stranger(&self, number: u8) -> PeerClient {
        PeerClient::connect_from(address_of(number), self.node.pool_address(), EASY.prefix)
            .expect("the node listens for peers")
    }

    /// Connects from the address of attacker `number`, and completes the handshake.
    pub(crate) fn acquaintance(&self, number: u8) -> PeerClient {
        let mut stranger = self.stranger(number);
        stranger.shake_hands(&Hello::default());
        stranger
    }

    /// Sum of a metric's series.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric_value(&self.node.metrics(), name).unwrap_or(0.0)
    }

    /// Has the miner find a share, and waits for work on top of it.
    pub(crate) fn mine(&mut self) -> ShareHash {
        // Work on top of a peer's share comes a moment after the share.
        std::thread::sleep(Duration::from_millis(100));
        self.miner.poll();
        let job = self.miner.job();
        let (share, block) = (job.submission_target(), job.block_target());
        let found = job.search(|hash| hash <= share && hash > block);
        assert_eq!(self.miner.submit(&self.user, &found), Ok(true), "the miner's share is refused");
        self.miner.wait_for_job(|next| next.clean && next.coinbase_start != job.coinbase_start);
        ShareHash(found.hash.to_byte_array())
    }

    /// Has the miner find this many shares. The last is the best.
    pub(crate) fn mine_many(&mut self, count: usize) -> ShareHash {
        (0..count).map(|_| self.mine()).last().expect("one at least")
    }

    /// Returns the chain from `tip` down, newest first, serialised.
    pub(crate) fn fetch(&mut self, tip: ShareHash) -> Vec<Vec<u8>> {
        self.friend.ask_for_shares(&ShareRequest::of(tip.0, 1000))
    }

    /// Returns the same as a share chain, to forge shares on.
    pub(crate) fn chain(&mut self, tip: ShareHash) -> Sharechain {
        let mut chain = Sharechain::new(&EASY);
        for wrapped in self.fetch(tip).iter().rev() {
            chain.add(Arc::new(parse(wrapped)), None, unix_now().as_secs_f64());
        }
        chain.think(unix_now().as_secs_f64());
        assert_eq!(chain.choice().best, Some(tip));
        chain
    }

    /// Height of the node's best share.
    pub(crate) fn height(&self) -> f64 {
        self.metric("sharechain_height ")
    }

    /// Checks that the miner's next share is accepted, and that the honest peer, still connected, gets it at once.
    pub(crate) fn check_service(&mut self) {
        let share = self.mine();
        self.friend
            .try_wait_for(AT_ONCE, |frame| {
                frame.command == "shares"
                    && parse_shares(&frame.payload).iter().any(|wrapped| parse(wrapped).hash() == share)
            })
            .unwrap_or_else(|error| panic!("the honest peer does not get share {share}: {error:?}"));
    }

    /// Checks that the attempt is counted as an offence, ends the connection and bans its address.
    pub(crate) fn check_ban(&self, culprit: &mut PeerClient, offence: &str) {
        let address = culprit.local().ip();
        assert!(culprit.disconnected_within(AT_ONCE), "the connection stands");
        self.check_offence(offence);
        assert!(self.is_locked_out(address), "{address} is let in again");
    }

    /// Waits until an offence of this kind is counted.
    pub(crate) fn check_offence(&self, offence: &str) {
        let series = format!("{OFFENCES}{{kind=\"{offence}\"}}");
        wait_until(&format!("{series} counts"), AT_ONCE, || self.metric(&series) >= 1.0);
    }

    /// Checks that the attempt ends the connection within `limit`, without a ban.
    pub(crate) fn check_disconnect(&self, culprit: &mut PeerClient, limit: Duration) {
        let address = culprit.local().ip();
        assert!(culprit.disconnected_within(limit), "the connection stands");
        assert!(!self.is_locked_out(address), "{address} is not let in again");
        assert_eq!(self.metric(OFFENCES), 0.0, "this is no offence");
    }

    /// Checks that the attempt has no consequence.
    pub(crate) fn check_tolerated(&self, peer: &mut PeerClient) {
        assert!(peer.is_connected(), "the connection has ended; the node said:\n{}", self.node.log());
        assert_eq!(self.metric(OFFENCES), 0.0, "this is no offence");
    }

    /// Returns whether connections from an address are closed at once.
    fn is_locked_out(&self, address: IpAddr) -> bool {
        match PeerClient::connect_from(address, self.node.pool_address(), EASY.prefix) {
            Err(_) => true,
            Ok(mut again) => again.next_frame(AT_ONCE) == Err(PeerError::Disconnected),
        }
    }
}

/// Connects the honest peer.
fn meet(node: &Node) -> PeerClient {
    let mut friend = PeerClient::connect_from(address_of(200), node.pool_address(), EASY.prefix)
        .expect("the node accepts an honest peer");
    friend.shake_hands(&Hello::default());
    friend
}

/// Address of attacker `number`, each in another /16; a public one, since private ones are allowed more
/// connections.
pub(crate) fn address_of(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(9, number, 0, 1))
}

/// Parses a share made by the node or forged.
pub(crate) fn parse(wrapped: &[u8]) -> Share {
    let rules = Sharechain::new(&EASY).rules().clone();
    Share::from_bytes(wrapped, &rules).expect("an honest share")
}

/// Plan of a forged share with the present time.
pub(crate) fn plan(payee: u32) -> Plan {
    Plan { payee, timestamp: unix_now().as_secs().try_into().expect("the clock is right"), ..Plan::default() }
}

/// Time since 1970.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970")
}
