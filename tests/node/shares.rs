//! Miners find shares, and shares determine a block's payouts: with a real bitcoind on a private signet, where blocks
//! are harder than shares and a CPU finds either in a moment.

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network as Chain, PubkeyHash, ScriptHash, WPubkeyHash, WitnessProgram, WitnessVersion};
use serde_json::Value;
use sharechain::coin::{self, Network};
use sharechain::share::{ShareHash, StaleInfo};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;
use test_support::{Bitcoind, Job, Node, NodeBuilder, StratumClient, Submission, metric_value, wait_until};

use crate::ledger::{Ledger, address_of, attempts, share_hash};
use crate::{P2POOL, wait_for_best};

/// Time limit until a miner's share is in the share chain.
const CHAIN_LIMIT: Duration = Duration::from_secs(10);

/// Network of `tests/networks/easy.toml`.
static EASY: LazyLock<Network> =
    LazyLock::new(|| coin::from_toml(include_str!("../networks/easy.toml")).expect("the tests' own file is a network"));

/// Path of a file in `tests/networks`.
pub(crate) fn network_file(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "networks", name].iter().collect();
    path.to_str().expect("the repository's path is text").to_owned()
}

/// Daemon on a private signet without a signing key, so that any block is valid.
pub(crate) fn open_signet() -> Bitcoind {
    Bitcoind::start_with(&["-chain=signet", "-signetchallenge=51"])
}

/// P2WPKH address on a signet, a different one for each seed.
pub(crate) fn wpkh(seed: u8) -> Address {
    let hash = WPubkeyHash::from_byte_array([seed; 20]);
    let program = WitnessProgram::new(WitnessVersion::V0, hash.as_byte_array()).expect("a hash has 20 bytes");
    Address::from_witness_program(program, bitcoin::KnownHrp::Testnets)
}

/// The node's own address.
pub(crate) fn own_address() -> Address {
    wpkh(0xff)
}

/// A daemon and a node.
pub(crate) struct Pool {
    pub(crate) daemon: Bitcoind,
    pub(crate) node: Node,
    pub(crate) network: &'static Network,
}

impl Pool {
    pub(crate) fn start(args: &[&str]) -> Self {
        let daemon = open_signet();
        let node = NodeBuilder::new(P2POOL, &daemon)
            .network(&network_file("easy.toml"))
            .address(Some(&own_address().to_string()))
            .args(args)
            .start();
        Self { daemon, node, network: &EASY }
    }

    pub(crate) fn miner(&self, payee: &Address, suffix: &str) -> Miner {
        let user = format!("{payee}.rig{suffix}+1e9");
        Miner { client: StratumClient::ready(self.node.worker_port(), &user), user, payee: payee.clone() }
    }

    pub(crate) fn ledger(&self, with: ShareHash) -> Ledger {
        Ledger::with(&self.node, self.network, with)
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.node.metrics();
        metric_value(&metrics, name).unwrap_or_else(|| panic!("no {name} in:\n{metrics}"))
    }

    /// Waits until the best chain has this many shares.
    pub(crate) fn wait_for_height(&self, height: usize) {
        let wanted = f64::from(u32::try_from(height).expect("a short chain"));
        wait_until(&format!("the share chain has height {height}"), CHAIN_LIMIT, || {
            self.metric("sharechain_height ") == wanted
        });
    }
}

/// Miner that requests the highest difficulty, lowered by the node to that of a share: all its submissions are shares.
pub(crate) struct Miner {
    pub(crate) client: StratumClient,
    pub(crate) user: String,
    pub(crate) payee: Address,
}

impl Miner {
    /// Submits a solution that must be accepted.
    fn submit(&mut self, found: &Submission) -> ShareHash {
        assert_eq!(self.client.submit(&self.user, found), Ok(true));
        share_hash(found.hash)
    }

    /// Waits until it must replace `old` by another coinbase.
    pub(crate) fn wait_for_change(&mut self, old: &Job) -> Job {
        self.client.wait_for_job(|job| job.clean && job.coinbase_start != old.coinbase_start)
    }

    /// Finds a share on the latest job, and waits for the job after it.
    pub(crate) fn mine_share(&mut self) -> ShareHash {
        let job = self.client.job();
        let share = self.submit(&solve_share(&job));
        self.wait_for_change(&job);
        share
    }
}

/// Submission that is a share and not a block.
pub(crate) fn solve_share(job: &Job) -> Submission {
    let (share, block) = (job.submission_target(), job.block_target());
    assert!(block < share, "a share must be easier than a block");
    job.search(|hash| hash <= share && hash > block)
}

/// Checks that the chain below the last of these shares has exactly these shares.
pub(crate) fn check_chain(ledger: &Ledger, shares: &[ShareHash]) {
    let mut chain: Vec<ShareHash> =
        ledger.chain(shares.last().copied()).into_iter().map(sharechain::share::Share::hash).collect();
    chain.reverse();
    assert_eq!(chain, shares);
}

#[test]
fn three_miners_find_shares_and_every_block_pays_them_by_the_window_to_the_satoshi() {
    let pool = Pool::start(&[]);
    let p2pkh = Address::p2pkh(PubkeyHash::from_byte_array([0x11; 20]), Chain::Signet);
    let p2sh = Address::p2sh_from_hash(ScriptHash::from_byte_array([0x22; 20]), Chain::Signet);
    // Two of them request heavier shares, so that weights differ and a block's work is less than the whole chain's.
    let mut miners = [pool.miner(&p2pkh, ""), pool.miner(&p2sh, "/0.00006"), pool.miner(&wpkh(0x33), "/1")];
    let (mut found, mut finders, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..36_usize {
        let which = round % 7 % 3;
        let jobs = [0, 1, 2].map(|each: usize| miners[each].client.job());
        let wants_block = round % 12 == 11;
        let solved = if wants_block { jobs[which].solve_block() } else { solve_share(&jobs[which]) };
        found.push(miners[which].submit(&solved));
        finders.push(miners[which].payee.clone());
        // All receive it at once, and must drop their work.
        for (miner, old) in miners.iter_mut().zip(&jobs) {
            miner.wait_for_change(old);
        }
        if wants_block {
            wait_for_best(&pool.daemon, solved.hash);
            blocks.push(solved.hash);
            pool.wait_for_height(found.len());
            for miner in &mut miners {
                miner.client.wait_for_job(|job| job.previous_block_hash() == solved.hash);
            }
        }
    }

    let ledger = pool.ledger(found[35]);
    // Any job after a share builds on that share: nothing was late.
    check_chain(&ledger, &found);
    for (share, finder) in found.iter().zip(&finders) {
        let share = ledger.share(*share);
        assert_eq!(address_of(share), finder.to_string());
        assert_eq!(share.data().stale_info, StaleInfo::NONE);
    }
    assert_eq!(pool.metric("sharechain_own_shares_total{kind=\"in_time\"}"), 36.0);
    assert_eq!(pool.metric("sharechain_own_shares_total{kind=\"late\"}"), 0.0);
    assert_eq!(pool.metric("sharechain_refused_shares_total{"), 0.0);
    assert_eq!(pool.metric("sharechain_height "), 36.0);
    let weights: std::collections::BTreeSet<u32> =
        found.iter().map(|share| ledger.share(*share).info().bits.0).collect();
    assert!(weights.len() >= 3, "all shares weigh the same: {weights:x?}");

    assert_eq!(blocks.len(), 3);
    assert_eq!(pool.daemon.height(), 3);
    for (index, hash) in blocks.iter().enumerate() {
        let due = ledger.check_block(&pool.daemon, &pool.daemon.block(hash), &finders[index * 12 + 11]);
        assert_eq!(due.outputs.len(), 4, "three miners and the donation: {due:?}");
    }
    let last = ledger.due(ledger.share(share_hash(blocks[2])));
    assert!(last.is_cut && last.window < 34, "the window ends within the chain: {last:?}");
}

#[test]
fn the_first_shares_of_a_chain_pay_the_finder_and_the_donation_alone() {
    let pool = Pool::start(&[]);
    let mut miner = pool.miner(&wpkh(1), "");
    for _ in 0..3 {
        let tip = pool.daemon.best_block_hash();
        let found = miner.client.wait_for_job(|job| job.previous_block_hash() == tip).solve_block();
        let old = miner.client.job();
        let share = miner.submit(&found);
        wait_for_best(&pool.daemon, found.hash);
        miner.wait_for_change(&old);
        let ledger = pool.ledger(share);
        let due = ledger.check_block(&pool.daemon, &pool.daemon.block(&found.hash), &miner.payee);
        let amounts: Vec<u64> = due.outputs.iter().map(|(_, amount)| *amount).collect();
        if ledger.share(share).absheight() < 3 {
            assert_eq!(amounts, [25_000_000, 4_975_000_000]);
        } else {
            assert_eq!(amounts, [5_000_000_000, 0]);
        }
    }
}

#[test]
fn a_share_that_comes_late_is_credited_counted_and_announced() {
    let pool = Pool::start(&[]);
    let (mut quick, mut slow) = (pool.miner(&wpkh(1), ""), pool.miner(&wpkh(2), ""));
    let mut found = Vec::new();
    // Heads are compared by the work five shares back, so on a chain this short the earlier of two wins, regardless of
    // what builds on the other.
    for _ in 0..8 {
        let old = slow.client.job();
        found.push(quick.mine_share());
        slow.wait_for_change(&old);
    }
    // Both work on the same share; the slow one's solution arrives after the quick one's became the tip.
    let old = slow.client.job();
    let late = solve_share(&old);
    found.push(quick.mine_share());
    slow.wait_for_change(&old);
    let late = slow.submit(&late);
    wait_until("the late share is counted", CHAIN_LIMIT, || {
        pool.metric("sharechain_own_shares_total{kind=\"late\"}") == 1.0
    });
    // Possibly found before the node knew the late one; exactly one of the next shares announces it.
    for _ in 0..4 {
        found.push(quick.mine_share());
    }
    let ledger = pool.ledger(found[12]);
    check_chain(&ledger, &found);
    assert_eq!(ledger.share(late).previous(), Some(found[7]));
    let announced: Vec<StaleInfo> = found.iter().map(|share| ledger.share(*share).data().stale_info).collect();
    let told: Vec<usize> = (0..13).filter(|index| announced[*index] != StaleInfo::NONE).collect();
    assert!(matches!(told[..], [9 | 10]), "{announced:?}");
    assert_eq!(announced[told[0]], StaleInfo::DOA);
    assert_eq!(pool.metric("sharechain_own_shares_total{kind=\"in_time\"}"), 13.0);
    assert_eq!(pool.metric("sharechain_own_shares_total{kind=\"late\"}"), 1.0);
    assert_eq!(pool.metric("sharechain_height "), 13.0);
}

#[test]
fn a_share_difficulty_in_the_user_name_is_that_of_its_shares_within_the_chains_limits() {
    let pool = Pool::start(&[]);
    let easiest = attempts(0x1f03_ffff);
    let mut found = Vec::new();
    for suffix in ["", "/0.00001", "/0.00002", "/1000", "/0.0000001"] {
        found.push(pool.miner(&wpkh(1), suffix).mine_share());
    }
    let ledger = pool.ledger(found[4]);
    check_chain(&ledger, &found);
    let hashes: Vec<f64> =
        found.iter().map(|share| attempts(ledger.share(*share).info().bits.0).to::<u64>() as f64).collect();
    let easiest = easiest.to::<u64>() as f64;
    // Difficulty 1 is about 2^32 hashes. A share is never easier than the chain's minimum, nor 30 times harder.
    let wanted = [easiest, 42_950.6, 85_901.3, 30.0 * easiest, easiest];
    for (hashes, wanted) in hashes.iter().zip(wanted) {
        // A wish is rounded down to a power of 2^(1/4).
        let part = hashes / wanted;
        assert!(part > 0.84 && part < 1.001, "{hashes} is not {wanted}");
    }
}

#[test]
fn a_fee_of_half_the_work_makes_about_half_of_the_shares_the_operators() {
    let pool = Pool::start(&["--fee", "50"]);
    let mut miner = pool.miner(&wpkh(1), "");
    let found: Vec<ShareHash> = (0..60).map(|_| miner.mine_share()).collect();
    let ledger = pool.ledger(found[59]);
    check_chain(&ledger, &found);
    let (own, payee) = (own_address().to_string(), miner.payee.to_string());
    let payees: Vec<String> = found.iter().map(|share| address_of(ledger.share(*share))).collect();
    assert!(payees.iter().all(|address| *address == own || *address == payee), "{payees:?}");
    // Outside of these bounds by chance once in ten million runs.
    let operators = payees.iter().filter(|address| **address == own).count();
    assert!((10..=50).contains(&operators), "{operators} of 60");
    // Also by count: all submissions are shares here, so the part of the hashes is the same.
    let counted = || {
        let summary: Value = serde_json::from_str(&pool.node.get("/api/v1/summary").body).expect("JSON");
        let number = |name: &str| summary["local"][name].as_f64().expect("a number");
        (number("hashes"), number("fee_hashes"))
    };
    // Pages are updated a moment after the metrics.
    wait_until("the fee is counted", CHAIN_LIMIT, || counted().1 > 0.0);
    assert!(pool.metric("stats_fee_hashes_total ") > 0.0);
    let (hashes, fee) = counted();
    let part = fee / hashes;
    assert!((0.1..0.9).contains(&part), "{part} of the hashes, {operators} of 60 shares");
}

#[test]
fn without_a_fee_no_share_is_the_operators() {
    let pool = Pool::start(&[]);
    let mut miner = pool.miner(&wpkh(1), "");
    let found: Vec<ShareHash> = (0..20).map(|_| miner.mine_share()).collect();
    let ledger = pool.ledger(found[19]);
    for share in &found {
        let share = ledger.share(*share);
        assert_eq!(address_of(share), miner.payee.to_string());
        // The default donation is zero.
        assert_eq!(share.data().donation, 0);
    }
}

#[test]
fn what_is_given_to_the_author_stands_in_the_shares_and_is_paid() {
    let pool = Pool::start(&["--give-author", "10"]);
    let mut miner = pool.miner(&wpkh(1), "");
    let mut found: Vec<ShareHash> = (0..6).map(|_| miner.mine_share()).collect();
    let old = miner.client.job();
    let block = old.solve_block();
    found.push(miner.submit(&block));
    wait_for_best(&pool.daemon, block.hash);
    let ledger = pool.ledger(found[6]);
    check_chain(&ledger, &found);
    for share in &found {
        // A tenth of 65535 is 6553.5, rounded up or down at random.
        assert!(matches!(ledger.share(*share).data().donation, 6553 | 6554));
    }
    let due = ledger.check_block(&pool.daemon, &pool.daemon.block(&block.hash), &miner.payee);
    let (_, donated) = due.outputs.last().expect("the donation is always there");
    // Part of the sum besides the finder's share.
    assert!((497_400_000..497_600_000).contains(donated), "{due:?}");
}
