//! Pages, JSON, metrics and the console show merged chains, and never their credentials.

use serde_json::Value;
use std::process::Command;
use test_support::{Bitcoind, StratumClient, wait_until};

use crate::daemons::Auxes;
use crate::{EVERY_HASH, LIMIT, P2POOL, every_hash, job_for, miner_name, solve, start, submit_easy, wait_for_standing};

#[test]
fn a_merged_chain_is_shown_with_its_payee_and_its_blocks_and_the_password_is_nowhere() {
    let auxes = Auxes::new();
    let chain = auxes.start("aux", 1, EVERY_HASH);
    let daemon = Bitcoind::start();
    let node = start(&daemon, &[&chain]);
    let mut miner = StratumClient::ready(node.worker_port(), &miner_name(1));
    let job = job_for(&mut miner, &[&chain]);
    let created = chain.created();
    submit_easy(&mut miner, &miner_name(1), &solve(&job, every_hash(), false));
    wait_for_standing(&node, &chain, created, "confirming");
    let json = |path: &str| -> Value { serde_json::from_str(&node.get(path).body).unwrap() };
    let is_listed = || {
        let blocks = json("/api/v1/merged")["blocks"].clone();
        blocks.as_array().unwrap().iter().any(|block| block["hash"] == created.to_string() && block["chain"] == "aux")
    };
    wait_until("its block is listed", LIMIT, is_listed);
    assert!(json("/recent_blocks").as_array().unwrap().is_empty(), "the original lists the parent's blocks");
    let metrics = node.metrics();
    assert!(metrics.contains("merged_blocks_total{chain=\"aux\",outcome=\"accepted\"} 1"), "{metrics}");
    let password = chain.daemon().config().password.expose().to_owned();
    let top = Command::new(P2POOL)
        .args(["top", "--once", "--net", "bitcoin_regtest", "--datadir"])
        .arg(node.data_dir())
        .output()
        .unwrap();
    let top = String::from_utf8_lossy(&top.stdout).into_owned();
    assert!(top.contains("aux"), "{top}");
    let everything = [node.log(), metrics, top, node.get("/api/v1/merged").body];
    assert!(everything.iter().all(|text| !text.contains(&password)));
}
