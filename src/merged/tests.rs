//! Chains from the configuration to a mature block, against daemons that answer from a script.

use super::testing::{Scripted, bare};
use super::*;
use crate::blocks::found::EventKind;
use crate::blocks::{Finding, FoundBlock};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use serde_json::{Value, json};
use sharechain::coin::BITCOIN_REGTEST;
use tokio::time::timeout;

/// Every wait takes a second or two on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);

fn answer(chain_id: u32, hash: u8, height: u32) -> Value {
    let mut answer = bare(chain_id, hash);
    answer["height"] = json!(height);
    answer["previousblockhash"] = json!(format!("{hash:02x}").repeat(32));
    answer
}

fn block(hash: u8) -> FoundBlock {
    FoundBlock {
        hash: BlockHash::from_byte_array([hash; 32]),
        previous_block: BlockHash::from_byte_array([hash; 32]),
        height: 7,
        bytes: Bytes::from_static(&[1, 2, 3]),
        finding: Finding { value: 5, payee: "D8".into(), finder: "worker".into(), is_ours: true },
        judged_at: None,
    }
}

#[tokio::test]
async fn a_chain_is_mined_and_its_block_submitted_once_and_followed_to_the_chains_maturity() {
    let (script, chain) = Scripted::start(Some("D8")).await;
    let (silent, mut other) = Scripted::start(None).await;
    silent.stop();
    other.name = "other".into();
    script.answers("createauxblock", answer(98, 1, 7));
    script.answers("submitauxblock", json!(true));
    script.answers("getblockheader", json!({"confirmations": 100, "height": 7}));
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path(), &BITCOIN_REGTEST).unwrap();
    let tasks = Tasks::new();
    let config = Config { chains: vec![other, chain], ..Config::default() };
    let mut handle = start(&config, Target::MAX_256, &data_dir, &DiskHealth::new(), &tasks).unwrap();
    let mut events = handle.events.subscribe();
    timeout(LIMIT, handle.work.wait_for(|work| work.all().len() == 1)).await.unwrap().unwrap();
    let known =
        |status: &Arc<Vec<ChainStatus>>| status.iter().all(|chain| chain.trouble.is_some() || chain.height.is_some());
    let status = timeout(LIMIT, handle.status.wait_for(|status| status.len() == 2 && known(status))).await;
    let status = status.unwrap().unwrap().clone();
    let shown: Vec<_> = status.iter().map(|chain| (&*chain.name, chain.state, chain.chain_id)).collect();
    assert_eq!(shown, [("other", State::Starting, None), ("doge", State::Mining, Some(98))]);

    assert_eq!(handle.blocks.send("doge", block(1)), Ok(Sent::New));
    assert_eq!(
        handle.blocks.send("doge", block(1)),
        Ok(Sent::Again),
        "another proof, in case that the first is rejected"
    );
    assert_eq!(handle.blocks.send("third", block(1)), Err(NotSent::NoChain));
    let mut next = async || timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    let first = next().await;
    assert_eq!((first.kind, first.record.chain.as_deref()), (EventKind::Found, Some("doge")));
    assert_eq!(next().await.kind, EventKind::Accepted);
    // A hundred blocks are not enough on Dogecoin. A new tip leads to another look.
    script.answers("getblockheader", json!({"confirmations": 240, "height": 7}));
    script.answers("createauxblock", answer(98, 2, 247));
    assert_eq!(next().await.kind, EventKind::Mature);
    let found = timeout(LIMIT, handle.found.wait_for(|found| found.blocks.len() == 1)).await.unwrap().unwrap().clone();
    assert_eq!((found.blocks[0].hash, found.blocks[0].chain.as_deref()), (block(1).hash, Some("doge")));
    assert!(dir.path().join("merged/doge/found_blocks").is_dir());
    drop(handle);
    assert!(tasks.drain(LIMIT).await);
}

#[tokio::test]
async fn without_chains_there_is_nothing_to_commit_to() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path(), &BITCOIN_REGTEST).unwrap();
    let tasks = Tasks::new();
    let handle = start(&Config::default(), Target::MAX_256, &data_dir, &DiskHealth::new(), &tasks).unwrap();
    assert_eq!((handle.work.borrow().all().len(), handle.status.borrow().len()), (0, 0));
    assert!(!dir.path().join("merged").exists());
    drop(handle);
    assert!(tasks.drain(LIMIT).await);
}

#[tokio::test]
async fn a_name_that_leads_out_of_the_data_directory_is_refused() {
    let (_script, chain) = Scripted::start(None).await;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::open(dir.path(), &BITCOIN_REGTEST).unwrap();
    let config = Config { chains: vec![ChainConfig { name: "../x".into(), ..chain }], ..Config::default() };
    let started = start(&config, Target::MAX_256, &data_dir, &DiskHealth::new(), &Tasks::new());
    assert!(started.unwrap_err().to_string().contains("../x"));
}
