//! A share chain of version 36 on a real `litecoind`, beside Dogecoin's chain: blocks pay the window's miners on both, by
//! a computation of the test's own, and every node comes to the same.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, base58, script,
};
use p2pool::embedded::auxiliary::proof::ParentPow;
use p2pool::embedded::auxiliary::{Addresses, Calls, Config, Fate, Fault};
use serde_json::Value;
use sharechain::chain::share_rules;
use sharechain::coin::{self, Network};
use sharechain::share::{MARKER_SCRIPT, MergedCoinbase, Payee, Share, ShareHash};
use std::collections::{BTreeMap, HashMap};
use test_support::{Litecoind, Node, NodeBuilder, StratumClient, Submission, metric_value, wait_until};

use crate::daemons::{Aux, Auxes};
use crate::window::{LENGTH, NETWORK, due, paid, shares_of};
use crate::{LIMIT, P2POOL, commitment};

/// Addresses of Dogecoin's test network.
const ADDRESSES: Addresses = Addresses { pubkey_hash: 113, script_hash: 196, human_readable_part: None };

/// Dogecoin's number in shares.
const DOGECOIN: u32 = 98;

/// Bits that no hash of a test meets, and those that every hash meets that is a block of the parent chain.
const NO_HASH: u32 = 0x1d00_ffff;
const PARENTS_BLOCKS: u32 = 0x207f_ffff;

/// Fee of a transaction in Dogecoin's first block.
const FEE: u64 = 12_345;

/// Order in which the miners find blocks, again and again. Litecoin's miners 1 and 2 are one on Dogecoin. No one has as
/// much as the first, so that he alone can give the unit that the last output needs.
const TURNS: [usize; 10] = [0, 1, 0, 3, 0, 2, 0, 1, 3, 4];

/// A miner of the pool.
struct Miner {
    /// Index of its node.
    node: usize,
    user: String,
    /// Script that Dogecoin's blocks pay it.
    merged: ScriptBuf,
}

/// A script of Dogecoin.
fn merged_script(is_p2sh: bool, seed: u8) -> ScriptBuf {
    ScriptBuf::from(match is_p2sh {
        true => [&[0xa9, 20][..], &[seed; 20], &[0x87]].concat(),
        false => [&[0x76, 0xa9, 20][..], &[seed; 20], &[0x88, 0xac]].concat(),
    })
}

/// Miners with user names of all forms.
fn miners(network: &'static Network) -> [Miner; 5] {
    let rules = share_rules(network);
    // 0 is P2PKH, 1 P2WPKH, 2 P2SH (protocol-v36 section 3.1).
    let litecoin = |kind, seed| Payee::from_hash(kind, &[seed; 20], &rules).as_str().to_owned();
    let dogecoin = |version, seed| base58::encode_check(&[&[version][..], &[seed; 20]].concat());
    let miner = |node, user, merged| Miner { node, user: format!("{user}.rig+1e-9"), merged };
    [
        miner(0, format!("{},{}", litecoin(1, 1), dogecoin(ADDRESSES.pubkey_hash, 11)), merged_script(false, 11)),
        miner(0, litecoin(0, 2), merged_script(false, 2)),
        miner(1, litecoin(1, 2), merged_script(false, 2)),
        miner(1, litecoin(2, 3), merged_script(true, 3)),
        miner(2, format!("{}/98:{}", litecoin(0, 4), dogecoin(ADDRESSES.script_hash, 14)), merged_script(true, 14)),
    ]
}

/// Nodes of one network, their miners, and what these found.
struct Pool {
    daemon: Litecoind,
    network: &'static Network,
    nodes: Vec<Node>,
    miners: Vec<Miner>,
    clients: Vec<StratumClient>,
    /// Shares, each with the index of its miner.
    found: Vec<(ShareHash, usize)>,
    _folder: tempfile::TempDir,
}

impl Pool {
    /// Starts nodes that know one another, each with the options that `options_of` returns for its index. The miners of
    /// others are connected to the first.
    fn start(count: usize, options_of: impl Fn(usize) -> Vec<String>) -> Self {
        let daemon = Litecoind::start_with_mweb();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("payouts.toml");
        std::fs::write(&file, NETWORK).unwrap();
        let network: &'static Network = Box::leak(Box::new(coin::from_toml(NETWORK).unwrap()));
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..count {
            let options = options_of(index);
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let node = NodeBuilder::new(P2POOL, &daemon).network(file.to_str().unwrap()).args(&options);
            let node = nodes.iter().fold(node, |node, other| node.peer(other.pool_address()));
            nodes.push(node.start());
        }
        let miners = Vec::from(miners(network));
        let port = |miner: &Miner| nodes.get(miner.node).unwrap_or(&nodes[0]).worker_port();
        let clients = miners.iter().map(|miner| StratumClient::ready(port(miner), &miner.user)).collect();
        Self { daemon, network, nodes, miners, clients, found: Vec::new(), _folder: folder }
    }

    /// Has a miner solve a job for a block of the parent chain, on its tip and for Dogecoin as well. The first share of
    /// all has no window, and no miner to be paid.
    fn solve(&mut self, miner: usize) -> Submission {
        let tip = self.daemon.best_block_hash();
        let is_first = self.found.is_empty();
        let is_wanted = |job: &test_support::Job| {
            job.previous_block_hash() == tip && (is_first || commitment(&job.coinbase_start).is_some())
        };
        let job = self.clients[miner].try_wait_for_job(is_wanted, LIMIT).expect("there is work for both chains");
        job.solve_hard_block_with_scrypt()
    }

    /// Has a miner find a block, and waits until all nodes have its share.
    fn find(&mut self, miner: usize) {
        let solution = self.solve(miner);
        assert_eq!(self.clients[miner].submit(&self.miners[miner].user, &solution), Ok(true));
        wait_until("litecoind has the block", LIMIT, || self.daemon.best_block_hash() == solution.hash);
        self.found.push((ShareHash(solution.hash.to_byte_array()), miner));
        for node in &self.nodes {
            wait_until("a node has the share", LIMIT, || {
                let height = metric_value(&node.metrics(), "sharechain_height ");
                height.is_some_and(|height| height >= f64::from(u32::try_from(self.found.len()).unwrap()))
            });
        }
    }

    /// Waits until jobs are for the next block of Dogecoin: a new block of the parent chain brings what the nodes know.
    fn refresh(&self, dogecoin: &Aux) {
        let next = dogecoin.height() + 1;
        for node in &self.nodes {
            wait_until("a node knows Dogecoin's tip", LIMIT, || {
                let shown: Value = serde_json::from_str(&node.get("/api/v1/merged").body).unwrap();
                let chains = shown["chains"].as_array().unwrap();
                chains.iter().any(|chain| chain["name"] == dogecoin.name() && chain["height"] == next)
            });
        }
        self.daemon.mine(1);
    }

    /// Has a miner find a block of both chains. Returns Dogecoin's.
    fn find_both(&mut self, dogecoin: &Aux, miner: usize) -> BlockHash {
        self.refresh(dogecoin);
        let height = dogecoin.height();
        self.find(miner);
        dogecoin.wait_for_height(height + 1);
        dogecoin.tip()
    }

    /// Checks every share that a node keeps: its block, and its entry for Dogecoin. Returns all of them.
    fn check_shares(&self, node: &Node) -> HashMap<ShareHash, Share> {
        let (last, _) = self.found.last().unwrap();
        wait_until("the last share is kept", LIMIT, || shares_of(node, self.network).contains_key(last));
        let shares = shares_of(node, self.network);
        for (hash, miner) in &self.found {
            let share = &shares[hash];
            assert_eq!(share.version().number(), 36);
            assert_eq!(paid(&self.daemon, BlockHash::from_byte_array(hash.0)), due(share, &shares), "{hash:?}");
            let entries: Vec<_> = additions(share).merged_addresses.iter().collect();
            let [entry] = entries[..] else { panic!("{entries:?}") };
            assert_eq!((entry.chain_id, &*entry.script), (DOGECOIN, self.miners[*miner].merged.as_bytes()));
        }
        assert_eq!(metric_value(&node.metrics(), "sharechain_refused_shares_total{"), Some(0.0));
        shares
    }
}

fn additions(share: &Share) -> &sharechain::share::Additions {
    share.info().additions.as_ref().unwrap()
}

/// Outputs due in the coinbase of Dogecoin's block of a share on `previous`, computed share by share, where each share
/// has an entry and votes for version 36 (protocol-v36 sections 8.2 and 8.3).
fn due_on_dogecoin(previous: Option<ShareHash>, shares: &HashMap<ShareHash, Share>, value: u64) -> Vec<(Vec<u8>, u64)> {
    let mut weights: BTreeMap<Vec<u8>, u128> = BTreeMap::new();
    let (mut donated, mut total) = (0_u128, 0_u128);
    let mut at = previous;
    for _ in 0..LENGTH {
        let Some(share) = at.map(|hash| &shares[&hash]) else { break };
        assert!(share.data().desired_version >= 36);
        let attempts = u128::try_from(share.attempts().0).unwrap();
        let donation = u128::from(share.data().donation);
        let entry = additions(share).merged_addresses.iter().find(|entry| entry.chain_id == DOGECOIN).unwrap();
        *weights.entry(entry.script.to_vec()).or_default() += attempts * (65_535 - donation);
        donated += attempts * donation;
        total += attempts * 65_535;
        at = share.previous();
    }
    let part = |whole: u64, weight: u128, all: u128| u64::try_from(u128::from(whole) * weight / all).unwrap();
    let reward = value - part(value, donated, total);
    let all: u128 = weights.values().sum();
    let mut outputs: Vec<(Vec<u8>, u64)> =
        weights.into_iter().map(|(script, weight)| (script, part(reward, weight, all))).collect();
    outputs.retain(|(_, amount)| *amount > 0);
    let mut rest = value - outputs.iter().map(|(_, amount)| amount).sum::<u64>();
    if rest == 0 {
        let (_, largest) = outputs.iter_mut().max_by_key(|(script, amount)| (*amount, script.clone())).unwrap();
        *largest -= 1;
        rest = 1;
    }
    outputs.push((b"\x6a\x14P2Pool merged mining".to_vec(), 0));
    outputs.push((MARKER_SCRIPT.to_vec(), rest));
    outputs
}

fn outputs_of(coinbase: &Transaction) -> Vec<(Vec<u8>, u64)> {
    coinbase.output.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect()
}

/// Checks what a share says of Dogecoin's block: its coinbase pays what is due, its header has that coinbase, and the
/// share's own coinbase has that header (protocol-v36 section 6.4).
fn check_claim(claim: &MergedCoinbase, share: &Share, shares: &HashMap<ShareHash, Share>) {
    let script = script::Builder::new().push_int(claim.height.try_into().unwrap());
    let script = ScriptBuf::from([script.as_bytes(), b"/P2Pool v36/"].concat());
    assert_eq!((claim.chain_id, &*claim.script), (DOGECOIN, script.as_bytes()));
    let output = |(script, amount): (Vec<u8>, u64)| TxOut {
        value: Amount::from_sat(amount),
        script_pubkey: ScriptBuf::from(script),
    };
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: script,
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let coinbase = Transaction {
        version: Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: due_on_dogecoin(share.previous(), shares, claim.value).into_iter().map(output).collect(),
    };
    let txid = coinbase.compute_txid().to_byte_array();
    let join = |left: [u8; 32], right: &[u8; 32]| sha256d::Hash::hash(&[left, *right].concat()).to_byte_array();
    assert_eq!(claim.branch.iter().fold(txid, join), claim.header[36..68]);
    let mut root = sha256d::Hash::hash(&claim.header).to_byte_array();
    root.reverse();
    assert_eq!(commitment(&share.data().coinbase), Some((root, 1)));
}

/// Checks a block of Dogecoin that a miner found with a share on `previous`. Returns its value.
fn check_block(
    dogecoin: &Aux,
    hash: BlockHash,
    previous: Option<ShareHash>,
    shares: &HashMap<ShareHash, Share>,
) -> u64 {
    let block = dogecoin.daemon().chain(|chain, _| chain.block(&hash).cloned()).unwrap();
    let value = block.coinbase_value();
    assert_eq!(outputs_of(&block.transactions[0]), due_on_dogecoin(previous, shares, value), "{hash}");
    value
}

/// Starts a daemon of Dogecoin's test network whose blocks are too hard for now. It has coins to spend.
fn start_dogecoin(auxes: &Auxes) -> Aux {
    let mut config = Config::dogecoin();
    config.rules.parent_pow = ParentPow::Scrypt;
    config.rules.addresses = ADDRESSES;
    let maturity = config.rules.maturity;
    let dogecoin = auxes.start_with("dogecoin", config);
    dogecoin.mine(maturity + 1);
    set_bits(&dogecoin, NO_HASH);
    dogecoin
}

/// Gives Dogecoin's next blocks these bits, from a new tip on.
fn set_bits(dogecoin: &Aux, bits: u32) {
    dogecoin.daemon().chain(|chain, _| chain.set_bits(CompactTarget::from_consensus(bits)).unwrap());
    dogecoin.mine(1);
}

/// Options of a node that mines Dogecoin for the miners or not at all.
fn options(dogecoin: &Aux) -> Vec<String> {
    let chain = format!("{},name={},mode=payouts", dogecoin.daemon().url_with_login(), dogecoin.name());
    ["--merged", &chain, "--merged-pause", "0.2"].map(str::to_owned).into()
}

/// Checks that the daemon refused no block, and that each one was at its tip.
fn check_submissions(dogecoin: &Aux) {
    dogecoin.daemon().chain(|chain, _| {
        for one in chain.submissions() {
            assert!(matches!(one.verdict, Ok(Fate::Tip | Fate::Known)), "{one:?}");
        }
    });
}

#[test]
fn blocks_of_both_chains_pay_the_window_to_the_last_unit_and_three_nodes_agree_with_every_share() {
    let auxes = Auxes::new();
    let dogecoin = start_dogecoin(&auxes);
    let options_of = |index| {
        // The miner at the last node donates a part.
        let donation = if index == 2 { "1" } else { "0" };
        [options(&dogecoin), vec!["--give-author".to_owned(), donation.to_owned()]].concat()
    };
    let mut pool = Pool::start(3, options_of);
    for number in 0..=LENGTH + 1 {
        pool.find(TURNS[number % TURNS.len()]);
    }
    dogecoin.daemon().chain(|chain, _| chain.spend(FEE)).expect("there are coins");
    set_bits(&dogecoin, PARENTS_BLOCKS);
    // One at each node.
    let blocks: Vec<BlockHash> = [0, 3, 4].map(|miner| pool.find_both(&dogecoin, miner)).into();

    for node in &pool.nodes {
        let shares = pool.check_shares(node);
        let ancestors = |share: &Share| std::iter::successors(share.previous(), |hash| shares[hash].previous()).count();
        for (hash, _) in &pool.found {
            let share = &shares[hash];
            let claims = &additions(share).merged_coinbase_info;
            assert!(claims.len() == 1 || (claims.is_empty() && ancestors(share) < LENGTH), "{claims:?}");
            claims.iter().for_each(|claim| check_claim(claim, share, &shares));
        }
        let of_blocks = &pool.found[pool.found.len() - blocks.len()..];
        let mut values = Vec::new();
        for ((share, _), hash) in of_blocks.iter().zip(&blocks) {
            let share = &shares[share];
            let header: bitcoin::block::Header = deserialize(&additions(share).merged_coinbase_info[0].header).unwrap();
            assert_eq!(header.block_hash(), *hash);
            values.push(check_block(&dogecoin, *hash, share.previous(), &shares));
        }
        let subsidy = dogecoin.daemon().config().rules.subsidy;
        assert_eq!(values, [subsidy + FEE, subsidy, subsidy]);
    }

    // The finder's node dies between solution and submission.
    let folder = pool.nodes[2].data_dir().join(pool.network.name).join("merged").join("dogecoin").join("found_blocks");
    let is_kept = || {
        std::fs::read_dir(&folder).is_ok_and(|files| {
            files.flatten().any(|file| file.path().extension().is_some_and(|state| state == "block"))
        })
    };
    wait_until("nothing waits to be submitted", LIMIT, || !is_kept());
    pool.refresh(&dogecoin);
    let height = dogecoin.height();
    dogecoin.faults().set(Calls::Submissions, Fault::Hang);
    let solution = pool.solve(4);
    assert_eq!(pool.clients[4].submit(&pool.miners[4].user, &solution), Ok(true));
    wait_until("the block is on disk", LIMIT, is_kept);
    pool.nodes[2].kill9();
    assert_eq!(dogecoin.height(), height);
    dogecoin.faults().clear();
    pool.nodes[2].restart();
    dogecoin.wait_for_height(height + 1);
    let previous = pool.found.last().map(|(hash, _)| *hash);
    check_block(&dogecoin, dogecoin.tip(), previous, &shares_of(&pool.nodes[0], pool.network));
    check_submissions(&dogecoin);
}

#[test]
fn beside_a_second_merged_chain_the_miners_are_paid_and_no_share_claims_it() {
    let auxes = Auxes::new();
    let dogecoin = start_dogecoin(&auxes);
    let mut config = Config::namecoin();
    config.rules.parent_pow = ParentPow::Scrypt;
    let namecoin = auxes.start_with("namecoin", config);
    let mut pool = Pool::start(1, |_| [options(&dogecoin), vec!["--merged".to_owned(), namecoin.option()]].concat());
    // From the first job on there are two chains.
    pool.refresh(&namecoin);
    for number in 0..=LENGTH {
        pool.find(TURNS[number % TURNS.len()]);
    }
    set_bits(&dogecoin, PARENTS_BLOCKS);
    let hash = pool.find_both(&dogecoin, 0);
    let shares = pool.check_shares(&pool.nodes[0]);
    assert!(shares.values().all(|share| additions(share).merged_coinbase_info.is_empty()));
    let (last, _) = pool.found.last().unwrap();
    check_block(&dogecoin, hash, shares[last].previous(), &shares);
    wait_until("the other chain has blocks, too", LIMIT, || namecoin.paid() > 0);
    check_submissions(&dogecoin);
}
