//! Shared by the daemon tests: a running back end, blocks mined by hand, and waiting with a time limit.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction,
};
use p2pool::bitcoind::credentials::Login;
use p2pool::bitcoind::daemon::{self, Config};
use p2pool::bitcoind::{Handle, Health};
use p2pool::blocks::journal::Journal;
use p2pool::blocks::{BlockReport, Finding, FoundBlock, Outcome};
use p2pool::runtime::data_dir::DataDir;
use p2pool::runtime::disk::DiskHealth;
use p2pool::runtime::secret::Secret;
use p2pool::runtime::tasks::Tasks;
use p2pool::template::Template;
use sharechain::coin::{BITCOIN_REGTEST, Network};
use sharechain::share::{WITNESS_RESERVED_VALUE, witness_commitment_script};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::{Bitcoind, free_port, payout_address};
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Every wait takes well under a second on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Back end with the handles that keep it running.
pub(crate) struct Backend {
    pub(crate) handle: Handle,
    pub(crate) tasks: Tasks,
    pub(crate) reports: broadcast::Receiver<BlockReport>,
    pub(crate) data_dir: Arc<TempDir>,
}

/// Connects to `daemon` by its cookie, as a node on the same machine would.
pub(crate) fn config(daemon: &Bitcoind) -> Config {
    let path = daemon.data_dir().join("bitcoin.conf");
    std::fs::write(&path, "# the cookie is beside me\n").unwrap();
    Config {
        rpc_port: Some(daemon.rpc_port()),
        p2p_port: Some(daemon.p2p_port()),
        config_path: Some(path),
        ..Config::local()
    }
}

/// As [`config`], with a P2P port without a listener.
pub(crate) fn config_without_p2p(daemon: &Bitcoind) -> Config {
    Config { p2p_port: Some(free_port()), ..config(daemon) }
}

pub(crate) fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login { user: user.to_owned(), password: Secret::new(password) })
}

pub(crate) async fn start(config: Config) -> Backend {
    start_in(config, &BITCOIN_REGTEST, Arc::new(TempDir::new().unwrap())).await
}

pub(crate) async fn start_in(config: Config, network: &'static Network, data_dir: Arc<TempDir>) -> Backend {
    let tasks = Tasks::new();
    let journal_dir = DataDir::open(data_dir.path(), network).unwrap();
    // A back end that was just stopped may hold it for another moment.
    tokio::spawn(journal_dir.clone().take_over());
    let journal = Journal::open(Arc::default(), &journal_dir, DiskHealth::new()).unwrap();
    let handle = daemon::start(config, network, journal, &tasks).await.unwrap();
    let reports = handle.reports.subscribe();
    Backend { handle, tasks, reports, data_dir }
}

impl Backend {
    /// Waits for a template accepted by `wanted`, starting with the current one.
    pub(crate) async fn template(&mut self, wanted: impl Fn(&Template) -> bool) -> Arc<Template> {
        let fits = |template: &Option<Arc<Template>>| template.as_ref().is_some_and(|one| wanted(one));
        let found = timeout(LIMIT, self.handle.templates.wait_for(fits)).await;
        found.expect("no template in time").unwrap().clone().unwrap()
    }

    pub(crate) async fn health(&mut self, wanted: impl Fn(&Health) -> bool) -> Health {
        let now = self.handle.health.borrow().clone();
        match timeout(LIMIT, self.handle.health.wait_for(|health| wanted(health))).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("health never became what was wanted; it was {now:?}"),
        }
    }

    /// Waits for a reported problem that contains `part`.
    pub(crate) async fn trouble(&mut self, part: &str) -> String {
        self.health(|health| health.trouble.as_ref().is_some_and(|text| text.contains(part))).await.trouble.unwrap()
    }

    /// Submits, and returns the reported outcomes up to the final one: by route, with the final one last.
    pub(crate) async fn submit(&mut self, block: &FoundBlock) -> Vec<(Option<&'static str>, Outcome)> {
        self.handle.blocks.send(block.clone()).await.unwrap();
        self.fate(block).await
    }

    pub(crate) async fn fate(&mut self, block: &FoundBlock) -> Vec<(Option<&'static str>, Outcome)> {
        let mut told = Vec::new();
        loop {
            let report = timeout(LIMIT, self.reports.recv()).await.expect("no report in time").unwrap();
            assert_eq!(report.block.hash, block.hash);
            told.push((report.route, report.outcome.clone()));
            if report.route.is_none() {
                return told;
            }
        }
    }

    pub(crate) async fn stop(self) -> Arc<TempDir> {
        let started = Instant::now();
        // Submission ends when the last sender of blocks is dropped.
        drop(self.handle);
        assert!(self.tasks.drain(Duration::from_secs(5)).await, "a task did not end");
        assert!(started.elapsed() < Duration::from_secs(2), "stopping took {:?}", started.elapsed());
        self.data_dir
    }
}

/// Names of the journal's files that end in `state`.
pub(crate) fn journalled(data_dir: &Path, state: &str) -> Vec<String> {
    let files = std::fs::read_dir(data_dir.join("found_blocks")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(state)).collect()
}

pub(crate) async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Valid block on `template`; different for each `seed`.
pub(crate) fn mine(template: &Template, seed: u8) -> FoundBlock {
    mine_paying(template, seed, template.coinbase_value)
}

/// As [`mine`], but pays `value` even if it is too much.
pub(crate) fn mine_paying(template: &Template, seed: u8, value: u64) -> FoundBlock {
    let script = payout_address(seed).script_pubkey();
    let mut output = vec![TxOut { value: Amount::from_sat(value), script_pubkey: script }];
    if let Some(commitment) = template.witness_root.as_ref().map(witness_commitment_script) {
        output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(commitment.to_vec()) });
    }
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(template.height)).push_slice([seed; 4]).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[WITNESS_RESERVED_VALUE]),
        }],
        output,
    };
    let root = sharechain::merkle::fold(coinbase.compute_txid().to_byte_array(), &template.branch);
    let mut header = Header {
        version: Version::from_consensus(template.version.cast_signed()),
        prev_blockhash: template.previous_block,
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: template.time.max(template.time_min),
        bits: template.bits,
        nonce: 0,
    };
    while !template.target.is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    let others = template.transactions.iter().map(|one| deserialize(&one.raw).unwrap());
    let block = Block { header, txdata: std::iter::once(coinbase).chain(others).collect() };
    assert_eq!(block.compute_merkle_root(), Some(header.merkle_root));
    FoundBlock {
        hash: header.block_hash(),
        previous_block: template.previous_block,
        height: template.height,
        bytes: serialize(&block).into(),
        finding: Finding { value, payee: payout_address(seed).to_string(), finder: "test".into(), is_ours: true },
        judged_at: None,
    }
}
