//! Blocks of merged chains are found beside the parent's.

use bitcoin::{CompactTarget, Target};
use p2pool::embedded::auxiliary::proof::ParentPow;
use p2pool::embedded::auxiliary::{Config, TargetForm};
use test_support::{Bitcoind, Litecoind, Node, NodeBuilder, StratumClient, mine_blocks, payout_address, wait_until};

use crate::daemons::{Aux, Auxes};
use crate::{
    EVERY_HASH, LIMIT, P2POOL, commitment, every_hash, job_for, miner_name, record, solve, start, submit_easy,
    wait_for_standing,
};

fn targets(chains: &[&Aux]) -> Vec<Target> {
    chains.iter().map(|chain| chain.target()).collect()
}

#[test]
fn three_chains_of_different_difficulties_are_mined_at_once() {
    let auxes = Auxes::new();
    let easy = auxes.start("easy", 1, EVERY_HASH);
    let medium = auxes.start("medium", 98, 0x2000_ffff);
    let hard = auxes.start("hard", 6, 0x1f00_ffff);
    let chains = [&easy, &medium, &hard];
    let daemon = Bitcoind::start();
    let node = start(&daemon, &chains);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let [easy_target, medium_target, hard_target] = targets(&chains).try_into().unwrap();
    let (user, parent) = (miner_name(1), daemon.height());

    // No block of the parent, and none of the harder chains.
    let job = job_for(&mut miner, &chains);
    let found = job.search(|hash| hash <= easy_target && hash > job.block_target() && hash > medium_target);
    submit_easy(&mut miner, &user, &found);
    easy.wait_for_height(1);
    assert_eq!((medium.height(), hard.height(), daemon.height()), (0, 0, parent));

    // One header for the parent and two chains.
    let job = job_for(&mut miner, &chains);
    let found = job.search(|hash| hash <= medium_target && hash > hard_target && hash <= job.block_target());
    let created = [easy.created(), medium.created()];
    assert_eq!(miner.submit(&user, &found), Ok(true));
    easy.wait_for_height(2);
    medium.wait_for_height(1);
    wait_until("the parent has the block, too", LIMIT, || daemon.best_block_hash() == found.hash);
    assert_eq!(([easy.tip(), medium.tip()], hard.height()), (created, 0));

    // One header for all of them.
    let job = job_for(&mut miner, &chains);
    let created: Vec<_> = chains.iter().map(|chain| chain.created()).collect();
    let found = solve(&job, hard_target.min(job.block_target()), true);
    assert_eq!(miner.submit(&user, &found), Ok(true));
    hard.wait_for_height(1);
    easy.wait_for_height(3);
    medium.wait_for_height(2);
    wait_until("the parent has the block, too", LIMIT, || daemon.best_block_hash() == found.hash);
    for (chain, hash) in chains.iter().zip(created) {
        assert_eq!(chain.tip(), hash, "{}", chain.name());
        let record = wait_for_standing(&node, chain, hash, "confirming");
        assert_eq!(
            (record["payee"].as_str(), record["finder"].as_str()),
            (Some(&*chain.payee()), user.split('+').next())
        );
        let each = chain.daemon().config().rules.subsidy;
        assert_eq!(chain.paid(), each * u64::from(chain.height()), "{}", chain.name());
    }
    // The daemons judged every proof; none was refused.
    for chain in chains {
        let bad = chain.daemon().chain(|chain, _| chain.submissions().filter(|one| one.verdict.is_err()).count());
        assert_eq!(bad, 0, "{}", chain.name());
    }
}

#[test]
fn new_blocks_of_merged_chains_replace_jobs_without_dropping_them_and_late_work_still_counts() {
    let auxes = Auxes::new();
    let (one, other) = (auxes.start("one", 1, EVERY_HASH), auxes.start("other", 2, EVERY_HASH));
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&one, &other]);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let before = job_for(&mut miner, &[&one, &other]);
    one.mine(1);
    let after = job_for(&mut miner, &[&one, &other]);
    assert!(!after.clean, "jobs before are worth as much to the parent and to the other chain");
    assert_eq!(after.previous_block, before.previous_block);
    // Of the old job, the other chain's block still counts, and the first one's is beside its chain.
    let (late, created) = (solve(&before, every_hash(), false), other.created());
    submit_easy(&mut miner, &user, &late);
    other.wait_for_height(1);
    assert_eq!(other.tip(), created);
    assert_eq!(one.height(), 1);

    // A job on a parent that has been replaced is stale, but its header is as good a proof as before.
    let old = job_for(&mut miner, &[&one, &other]);
    mine_blocks(&daemon, 1, &payout_address(7).script_pubkey());
    miner.wait_for_job(|job| job.previous_block != old.previous_block);
    let stale = solve(&old, every_hash(), false);
    let created = one.created();
    assert!(miner.submit(&user, &stale).is_err(), "it is stale for the parent");
    one.wait_for_height(2);
    assert_eq!(one.tip(), created);
}

#[test]
fn a_chain_without_an_address_pays_its_daemons_wallet() {
    let auxes = Auxes::new();
    let early = Config { creates: false, ..Config::namecoin() };
    let chain = auxes.start_with("early", early);
    let daemon = Bitcoind::start();
    let option = format!("{},name=early", chain.daemon().url_with_login());
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--merged", &option]).start();
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let job = miner.try_wait_for_job(|job| commitment(&job.coinbase_start).is_some(), LIMIT).unwrap();
    let found = solve(&job, chain.target().min(job.block_target()), true);
    assert_eq!(miner.submit(&miner_name(1), &found), Ok(true));
    chain.wait_for_height(1);
    let wallet = chain.daemon().config().wallet_script();
    let balance = chain.daemon().chain(|chain, _| chain.balance(&wallet));
    assert_eq!(balance.immature, chain.daemon().config().rules.subsidy);
    wait_for_standing(&node, &chain, chain.tip(), "confirming");
}

#[test]
fn the_word_p2pool_stands_for_the_shares_target() {
    let auxes = Auxes::new();
    let chain = auxes.start_with("word", Config { target: TargetForm::Word, ..Config::namecoin() });
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let job = job_for(&mut miner, &[&chain]);
    // On regtest every hash is a share; the daemon wants its own target in spite of the word.
    let found = solve(&job, chain.target().min(job.block_target()), true);
    assert_eq!(miner.submit(&miner_name(1), &found), Ok(true));
    chain.wait_for_height(1);
    wait_for_standing(&node, &chain, chain.tip(), "confirming");
}

#[test]
fn dogecoin_is_mined_beside_litecoin_with_scrypt() {
    let auxes = Auxes::new();
    let dogecoin = auxes.start_dogecoin(ParentPow::Scrypt, 0x207f_ffff);
    let daemon = Litecoind::start_with_mweb();
    let node = NodeBuilder::new(P2POOL, &daemon).args(&["--merged", &dogecoin.option()]).start();
    let user = format!("{}.rig+1e-9", daemon.payout_address(1));
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let parent = daemon.height();
    let job = job_for(&mut miner, &[&dogecoin]);
    let created = dogecoin.created();
    assert!(job.block_target() <= Target::from(CompactTarget::from_consensus(0x207f_ffff)));
    let found = job.solve_block_with_scrypt();
    assert_eq!(miner.submit(&user, &found), Ok(true));
    dogecoin.wait_for_height(1);
    assert_eq!(dogecoin.tip(), created);
    wait_until("litecoind has the block, too", LIMIT, || daemon.height() > parent);
    assert_eq!(dogecoin.paid(), dogecoin.daemon().config().rules.subsidy);
}

#[test]
fn a_merged_block_is_followed_until_its_coinbase_can_be_spent_or_it_is_lost() {
    let auxes = Auxes::new();
    let chain = auxes.start_dogecoin(ParentPow::Sha256d, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    let user = miner_name(1);
    let mut miner = StratumClient::ready(node.worker_port(), &user);
    let mut find = || {
        let job = job_for(&mut miner, &[&chain]);
        let (created, height) = (chain.created(), chain.height());
        submit_easy(&mut miner, &user, &solve(&job, every_hash(), false));
        chain.wait_for_height(height + 1);
        assert_eq!(chain.tip(), created);
        created
    };
    let lost = find();
    wait_for_standing(&node, &chain, lost, "confirming");
    chain.daemon().chain(|chain, now| chain.reorganise(1, now));
    wait_for_standing(&node, &chain, lost, "orphaned");

    let kept = find();
    wait_for_standing(&node, &chain, kept, "confirming");
    chain.mine(238);
    let confirmations = |node: &Node| record(node, &chain, kept).map(|record| record["standing"].clone());
    // One block before it is mature.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(confirmations(&node), Some("confirming".into()));
    chain.mine(1);
    wait_for_standing(&node, &chain, kept, "mature");
}
