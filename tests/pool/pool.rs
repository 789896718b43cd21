//! Several nodes with connected daemons, and queries to them.

use bitcoin::hashes::Hash;
use bitcoin::{Address, Transaction, WPubkeyHash, WitnessProgram, WitnessVersion};
use sharechain::chain::share_rules;
use sharechain::coin::{self, Network};
use sharechain::share::{Share, ShareHash};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use test_support::{
    Bitcoind, Hello, Internet, Job, Node, NodeBuilder, PeerClient, ShareRequest, StratumClient, metric_value,
    wait_until,
};

/// Time limit until all nodes agree, on a loaded machine.
pub(crate) const AGREEMENT: Duration = Duration::from_secs(20);

/// Port of every daemon on its own host.
const DAEMON_PORT: u16 = 38_333;

/// Port of every node on its own host.
const POOL_PORT: u16 = 9333;

/// Network of `tests/networks/easy.toml`.
pub(crate) static EASY: LazyLock<Network> =
    LazyLock::new(|| coin::from_toml(include_str!("../networks/easy.toml")).expect("the tests' own file is a network"));

/// Path of a file in `tests/networks`.
pub(crate) fn network_file(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "networks", name].iter().collect();
    path.to_str().expect("the repository's path is text").to_owned()
}

/// P2WPKH address on a signet, a different one for each seed.
pub(crate) fn payee(seed: u8) -> Address {
    let hash = WPubkeyHash::from_byte_array([seed; 20]);
    let program = WitnessProgram::new(WitnessVersion::V0, hash.as_byte_array()).expect("a hash has 20 bytes");
    Address::from_witness_program(program, bitcoin::KnownHrp::Testnets)
}

/// Node with its daemon and its miner.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) daemon: Bitcoind,
    pub(crate) node: Node,
    miner: StratumClient,
    user: String,
}

/// All members. The others know the address of the first.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) members: Vec<Member>,
    pub(crate) internet: Option<Internet>,
}

impl Pool {
    /// Starts this many members on the loopback interface.
    pub(crate) fn near(count: usize) -> Self {
        let mut pool = Self { members: Vec::new(), internet: None };
        for _ in 0..count {
            pool.join(&[]);
        }
        pool
    }

    /// Starts this many members on separate hosts. `None` if the user has opted out of namespaces.
    pub(crate) fn far(count: usize) -> Option<Self> {
        let mut pool = Self { members: Vec::new(), internet: Some(Internet::new(count)?) };
        for _ in 0..count {
            pool.join(&[]);
        }
        Some(pool)
    }

    /// Adds a member that knows the addresses of all others.
    pub(crate) fn join(&mut self, args: &[&str]) {
        let number = self.members.len();
        let member = match &self.internet {
            Some(internet) => {
                let host = |number| internet.address(number).to_string();
                let mut daemon_args = vec![format!("-bind={}:{DAEMON_PORT}", host(number))];
                daemon_args.extend((0..number).map(|other| format!("-addnode={}:{DAEMON_PORT}", host(other))));
                let address = SocketAddr::from((internet.address(number), POOL_PORT));
                let peers = (0..number).map(|other| SocketAddr::from((internet.address(other), POOL_PORT))).collect();
                internet.on(number, || Member::start(number, daemon_args, Some(address), peers, args))
            }
            None => {
                let daemon_args =
                    self.members.iter().map(|other| format!("-addnode=127.0.0.1:{}", other.daemon.p2p_port()));
                let peers = self.members.iter().map(|other| other.node.pool_address()).collect();
                Member::start(number, daemon_args.collect(), None, peers, args)
            }
        };
        self.members.push(member);
    }

    /// Runs a closure with a member, on its host.
    pub(crate) fn at<T: Send>(&mut self, number: usize, action: impl FnOnce(&mut Member) -> T + Send) -> T {
        let member = &mut self.members[number];
        match &self.internet {
            Some(internet) => internet.on(number, || action(member)),
            None => action(member),
        }
    }

    /// Has a member's miner find a share, and waits for work on top of it.
    pub(crate) fn mine(&mut self, number: usize) -> ShareHash {
        self.at(number, Member::mine)
    }

    /// Waits until this is the best share of these members.
    pub(crate) fn wait_for_best(&mut self, share: ShareHash, numbers: &[usize]) {
        for &number in numbers {
            let what = format!("{share} is the best share of node {number}");
            self.at(number, |member| wait_until(&what, AGREEMENT, || member.best_share() == Some(share)));
        }
    }

    /// Payouts of a member's next job, in satoshis.
    pub(crate) fn payouts(&mut self, number: usize) -> Vec<(Vec<u8>, u64)> {
        self.at(number, |member| {
            // The same miner everywhere, since the finder gets more.
            payouts(&StratumClient::ready(member.node.worker_port(), &format!("{}.probe+1e9", payee(0x77))).job())
        })
    }
}

impl Member {
    fn start(
        number: usize,
        daemon_args: Vec<String>,
        address: Option<SocketAddr>,
        peers: Vec<SocketAddr>,
        args: &[&str],
    ) -> Self {
        let mut all = vec!["-chain=signet", "-signetchallenge=51"];
        all.extend(daemon_args.iter().map(String::as_str));
        let daemon = Bitcoind::start_with(&all);
        let mut builder = NodeBuilder::new(env!("CARGO_BIN_EXE_p2pool"), &daemon)
            .network(&network_file("easy.toml"))
            .address(Some(&payee(0xff).to_string()))
            .args(args);
        if let Some(address) = address {
            builder = builder.pool_address(address);
        }
        let node = peers.into_iter().fold(builder, NodeBuilder::peer).start();
        let user = format!("{}.rig+1e9", payee(u8::try_from(number + 1).expect("a test has few nodes")));
        let miner = StratumClient::ready(node.worker_port(), &user);
        Self { daemon, node, miner, user }
    }

    fn mine(&mut self) -> ShareHash {
        let (share, job) = self.solve(|job| {
            let (share, block) = (job.submission_target(), job.block_target());
            job.search(|hash| hash <= share && hash > block)
        });
        self.miner.wait_for_job(|next| next.clean && next.coinbase_start != job.coinbase_start);
        share
    }

    /// Has the miner find a block, which is a share too, without waiting for its acceptance.
    pub(crate) fn mine_block(&mut self) -> bitcoin::BlockHash {
        let (share, _) = self.solve(Job::solve_block);
        bitcoin::BlockHash::from_byte_array(share.0)
    }

    fn solve(&mut self, search: impl FnOnce(&Job) -> test_support::Submission) -> (ShareHash, Job) {
        self.miner.poll();
        let job = self.miner.job();
        let found = search(&job);
        assert_eq!(self.miner.submit(&self.user, &found), Ok(true));
        (ShareHash(found.hash.to_byte_array()), job)
    }

    /// Connects the miner again, after a restart of the node.
    pub(crate) fn reconnect_miner(&mut self) {
        self.miner = StratumClient::ready(self.node.worker_port(), &self.user);
    }

    /// Best share announced by the node to a new peer.
    pub(crate) fn best_share(&self) -> Option<ShareHash> {
        let mut probe = PeerClient::connect(self.node.pool_address(), EASY.prefix);
        let hello = Hello::parse(&probe.wait_for("version"));
        (hello.best_share != [0; 32]).then_some(ShareHash(hello.best_share))
    }

    /// Returns the node's chain from `tip` down, newest first.
    pub(crate) fn chain(&self, tip: ShareHash) -> Vec<Share> {
        let rules = share_rules(&EASY);
        let mut probe = PeerClient::connect(self.node.pool_address(), EASY.prefix);
        probe.shake_hands(&Hello::default());
        let shares = probe.ask_for_shares(&ShareRequest::of(tip.0, 1000));
        shares.iter().map(|bytes| Share::from_bytes(bytes, &rules).expect("a node keeps shares only")).collect()
    }

    /// Sum of a metric's series.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric_value(&self.node.metrics(), name).unwrap_or(0.0)
    }
}

/// Outputs of a job's coinbase, without the last one, which holds the share's own hash.
fn payouts(job: &Job) -> Vec<(Vec<u8>, u64)> {
    let bytes = job.coinbase(&vec![0; job.extranonce2_size]);
    let coinbase: Transaction = bitcoin::consensus::deserialize(&bytes).expect("a coinbase is a transaction");
    let outputs = &coinbase.output[..coinbase.output.len() - 1];
    outputs.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect()
}
