//! A real bitcoind and an embedded chain side by side: every block goes to both, and their results must agree.

use bitcoin::{Block, BlockHash, consensus};
use bitcoincore_rpc::{Client, RpcApi};
use p2pool::embedded::{Chain, Moment, Rules, Verdict};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;
use test_support::Bitcoind;

/// Clock of both at the start, in seconds since 1970.
pub(crate) const NOW: u32 = 1_700_100_000;

/// Prefix of Core's error for a script that fails; the rest, in brackets, differs between interpreters.
const SCRIPT_FAILED: &str = "block-script-verify-flag-failed";

/// Minimum number of rows compared: as many as when the table was made.
const ROWS_MIN: usize = 150;

struct Row {
    name: String,
    expected: String,
    daemon: String,
    ours: String,
    same_tip: bool,
}

impl Row {
    fn agrees(&self) -> bool {
        self.same_tip && self.daemon == self.ours && self.daemon == self.expected
    }
}

/// The two chains, and the table of their results.
pub(crate) struct Pair {
    // Dropped with the pair, which ends it.
    _daemon: Bitcoind,
    client: Client,
    chain: Chain,
    now: u32,
    rows: Vec<Row>,
}

impl Pair {
    pub(crate) fn start() -> Self {
        // Two threads: Core then checks all scripts of a block after everything else, as on any real machine.
        let daemon = Bitcoind::start_with(&["-par=2", &format!("-mocktime={NOW}")]);
        let client = daemon.client();
        let chain = Chain::new(Rules::REGTEST, moment(NOW));
        Self { _daemon: daemon, client, chain, now: NOW, rows: Vec::new() }
    }

    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    pub(crate) fn set_now(&mut self, now: u32) {
        let _: Value = self.client.call("setmocktime", &[json!(now)]).unwrap();
        self.now = now;
    }

    /// Tip of the embedded chain; the same as the daemon's unless a row has failed.
    pub(crate) fn tip(&self) -> (BlockHash, u32) {
        let tip = self.chain.tip();
        (tip.hash, tip.height)
    }

    /// Submits a block to both; both must return `expected`.
    pub(crate) fn row(&mut self, name: &str, expected: &str, block: &Block) {
        self.row_bytes(name, expected, &consensus::serialize(block));
    }

    pub(crate) fn row_bytes(&mut self, name: &str, expected: &str, bytes: &[u8]) {
        let daemon = self.ask_daemon(bytes);
        let ours = self.chain.submit(bytes, moment(self.now));
        let ours = if ours == Verdict::Accepted { "null".to_owned() } else { plain(&ours.to_string()) };
        let same_tip = self.client.get_best_block_hash().unwrap() == self.chain.tip().hash;
        self.rows.push(Row { name: name.to_owned(), expected: expected.to_owned(), daemon, ours, same_tip });
        // With different tips every further row would differ too.
        assert!(same_tip, "the tips differ:\n{}", self.table());
    }

    /// Submits a good block to both without its own row.
    pub(crate) fn extend(&mut self, block: &Block) {
        let bytes = consensus::serialize(block);
        let daemon = self.ask_daemon(&bytes);
        let ours = self.chain.submit(&bytes, moment(self.now));
        let both = daemon == "null" && ours == Verdict::Accepted;
        assert!(both, "a block that the table stands on: bitcoind {daemon}, ours {ours}\n{}", self.table());
    }

    fn ask_daemon(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        match self.client.call::<Value>("submitblock", &[json!(hex)]) {
            Ok(Value::Null) => "null".to_owned(),
            Ok(answer) => plain(answer.as_str().unwrap()),
            Err(bitcoincore_rpc::Error::JsonRpc(bitcoincore_rpc::jsonrpc::Error::Rpc(error))) => error.message,
            Err(error) => panic!("submitblock: {error}"),
        }
    }

    /// Fails with the whole table if the two differed anywhere, or from the expectation.
    pub(crate) fn finish(self) {
        let wrong = self.rows.iter().filter(|row| !row.agrees()).count();
        println!("{} rows", self.rows.len());
        assert_eq!(wrong, 0, "verdicts differ in {wrong} of {} rows:\n{}", self.rows.len(), self.table());
        assert!(self.rows.len() >= ROWS_MIN, "the table shrank to {} rows", self.rows.len());
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mark = if row.agrees() { " " } else { "✗" };
            let tip = if row.same_tip { "" } else { "  TIPS DIFFER" };
            let Row { name, expected, daemon, ours, .. } = row;
            writeln!(table, "{mark} {number:3} {name}").unwrap();
            writeln!(table, "        expected {expected} | bitcoind {daemon} | ours {ours}{tip}").unwrap();
        }
        table
    }
}

/// Removes the brackets, whose contents differ between interpreters.
fn plain(verdict: &str) -> String {
    if verdict.starts_with(SCRIPT_FAILED) { SCRIPT_FAILED.to_owned() } else { verdict.to_owned() }
}

fn moment(now: u32) -> Moment {
    Moment { unix: now.into(), elapsed: Duration::ZERO }
}
