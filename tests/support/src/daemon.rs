//! A coin's real daemon for a test: private chain, private data directory, free loopback ports, removed when dropped.
//! `bitcoind` and `litecoind` are the same program in all that a test does to them; a [`Program`] is the difference.

use bitcoin::{BlockHash, ScriptBuf};
use bitcoincore_rpc::{Auth, Client, RpcApi};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::addresses::payout_address_with;
use crate::ports::free_port;
use crate::signal;

/// Salted hash of [`Daemon::credentials`] for `-rpcauth`: HMAC-SHA256 of the password under the salt.
const RPC_AUTH: &str =
    "-rpcauth=tester:00112233445566778899aabbccddeeff$1c86d9cd851ed8d84efab5cc1c7e8cd37a25e68481bee1216132218a2a2ab83f";

/// Starting takes under two seconds here; a loaded machine with a cold disk needs longer.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Number of starts with other ports when another process takes ours in between.
const START_ATTEMPTS: usize = 5;

/// What differs between the daemons of two coins.
#[derive(Debug)]
pub(crate) struct Program {
    /// Name of the file.
    pub(crate) name: &'static str,
    /// Environment variable that names another file.
    pub(crate) variable: &'static str,
    /// Folder below the tests' cache that may contain it, besides PATH.
    pub(crate) built: Option<&'static str>,
    /// What to do where it is missing.
    pub(crate) advice: &'static str,
    /// The node's `--net` for its regtest.
    pub(crate) network: &'static str,
    /// Human-readable part of regtest's segwit addresses.
    pub(crate) address_prefix: &'static str,
    /// Folder of `-chain=test` in the data directory.
    pub(crate) testnet_folder: &'static str,
    /// Arguments that the other daemon does not know.
    pub(crate) args: &'static [&'static str],
}

/// A running (or paused, or stopped) daemon. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct Daemon {
    program: &'static Program,
    child: Option<Child>,
    paused: bool,
    chain: String,
    args: Vec<String>,
    rpc_port: u16,
    p2p_port: u16,
    data_dir: TempDir,
}

impl Daemon {
    /// Starts `program` with further arguments on a fresh regtest chain, or on the chain that `-chain=` names.
    pub(crate) fn start_program(program: &'static Program, args: &[&str]) -> Self {
        let chain = args.iter().rev().find_map(|arg| arg.strip_prefix("-chain=")).unwrap_or("regtest").to_owned();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        for _ in 0..START_ATTEMPTS {
            let mut daemon = Self {
                program,
                child: None,
                paused: false,
                chain: chain.clone(),
                args: args.clone(),
                rpc_port: free_port(),
                p2p_port: free_port(),
                data_dir: tempfile::Builder::new()
                    .prefix(&format!("p2pool-{}-", program.name))
                    .tempdir()
                    .expect("the temporary folder can be written"),
            };
            if daemon.launch() {
                return daemon;
            }
            let log = daemon.output();
            assert!(log.contains("Unable to bind"), "{} did not start; it said:\n{log}", program.name);
        }
        panic!("{} found its ports taken {START_ATTEMPTS} times in a row", program.name);
    }

    /// The node's `--net` for the regtest chain of this daemon.
    pub fn network(&self) -> &'static str {
        self.program.network
    }

    /// [`payout_address`](crate::payout_address) as this coin writes it: the script is the same.
    pub fn payout_address(&self, seed: u8) -> String {
        payout_address_with(self.program.address_prefix, seed)
    }

    /// Port of its JSON-RPC.
    pub fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// Port for peers.
    pub fn p2p_port(&self) -> u16 {
        self.p2p_port
    }

    /// URL of its JSON-RPC.
    pub fn rpc_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    /// Its data directory (`-datadir`; a chain's files are in a folder below it).
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// User and password that survive a restart, unlike the cookie's.
    pub fn credentials(&self) -> (String, String) {
        ("tester".to_owned(), "not-secret".to_owned())
    }

    /// User and password from its cookie file: a new password after each start.
    pub fn cookie(&self) -> (String, String) {
        self.read_cookie().expect("a running daemon has a cookie")
    }

    /// Client for its JSON-RPC. A call that takes over 15 s fails.
    pub fn client(&self) -> Client {
        let (user, password) = self.cookie();
        Client::new(&self.rpc_address(), Auth::UserPass(user, password)).expect("the address is well formed")
    }

    /// Calls a method that must succeed.
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Calls a method that may fail.
    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, bitcoincore_rpc::Error> {
        call_by(&self.client(), method, params)
    }

    /// Calls a wallet's method that must succeed.
    pub fn call_wallet(&self, wallet: &str, method: &str, params: Value) -> Value {
        let (user, password) = self.cookie();
        let address = format!("{}/wallet/{wallet}", self.rpc_address());
        let client = Client::new(&address, Auth::UserPass(user, password)).expect("the address is well formed");
        call_by(&client, method, params).unwrap_or_else(|error| panic!("{method} of wallet {wallet}: {error}"))
    }

    /// Tip of its best chain.
    pub fn best_block_hash(&self) -> BlockHash {
        self.client().get_best_block_hash().expect("a running daemon knows its tip")
    }

    /// Height of its best chain.
    pub fn height(&self) -> u64 {
        self.client().get_block_count().expect("a running daemon knows its height")
    }

    /// A block's coinbase as `getblock` shows it, with `txid` and `vout`.
    pub fn coinbase(&self, hash: &BlockHash) -> Value {
        self.call("getblock", json!([hash, 2]))["tx"][0].take()
    }

    /// Ids of the transactions in its mempool.
    pub fn mempool(&self) -> Vec<bitcoin::Txid> {
        self.client().get_raw_mempool().expect("a running daemon has a mempool")
    }

    /// Stops it in an orderly way, and waits for its end. Its files stay, for [`Self::restart`].
    pub fn stop(&mut self) {
        self.resume();
        self.call("stop", json!([]));
        let mut child = self.child.take().expect("it answered, so it runs");
        assert!(signal::wait(&mut child, START_LIMIT).is_some(), "{} does not stop", self.program.name);
    }

    /// Kills it like a power cut (SIGKILL), paused or not. Its files stay, for [`Self::restart`].
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
        self.paused = false;
    }

    /// Freezes it (SIGSTOP): connections stay open and unanswered, as behind a dead network.
    pub fn pause(&mut self) {
        signal::send(self.child.as_ref().expect("only a running daemon can be paused"), Signal::STOP);
        self.paused = true;
    }

    /// Continues it after [`Self::pause`].
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused)
            && let Some(child) = &self.child
        {
            signal::send(child, Signal::CONT);
        }
    }

    /// Restarts it (killing it first if it runs) on the same ports and files.
    pub fn restart(&mut self) {
        self.kill();
        // Another process may hold one of our ports for a moment, such as a client whose connection is being torn down.
        for _ in 0..START_ATTEMPTS {
            if self.launch() {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        panic!("{} did not start again; it said:\n{}", self.program.name, self.output());
    }

    /// Restarts it with other extra arguments.
    pub fn restart_with(&mut self, args: &[&str]) {
        self.args = args.iter().map(|&arg| arg.to_owned()).collect();
        self.restart();
    }

    /// Its printed output, and the end of its log.
    pub fn output(&self) -> String {
        let printed = std::fs::read_to_string(self.data_dir().join("printed.txt")).unwrap_or_default();
        let log = std::fs::read_to_string(self.chain_dir().join("debug.log")).unwrap_or_default();
        let tail = log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        format!("{printed}\n{tail}")
    }

    /// Starts the process and waits until its RPC answers. Returns false if it ended instead.
    fn launch(&mut self) -> bool {
        // A cookie left by a kill would be read before the new one is written.
        let _ = std::fs::remove_file(self.cookie_file());
        let printed = File::create(self.data_dir().join("printed.txt")).expect("the data directory can be written");
        let mut command = Command::new(self.program.find());
        command
            .arg(format!("-datadir={}", self.data_dir().display()))
            .arg(format!("-bind=127.0.0.1:{}", self.p2p_port))
            .arg("-rpcbind=127.0.0.1")
            .arg("-rpcallowip=127.0.0.1")
            .arg(format!("-rpcport={}", self.rpc_port))
            .arg(RPC_AUTH)
            .args(["-listen=1", "-listenonion=0", "-discover=0", "-dnsseed=0"])
            .args(["-server=1", "-daemon=0", "-printtoconsole=0", "-dbcache=16", "-par=1", "-rpcthreads=8"])
            .args(self.program.args)
            .args(&self.args)
            // Debian's litecoind makes files in the home folder.
            .env("HOME", self.data_dir())
            .stdin(Stdio::null())
            .stdout(printed.try_clone().expect("a file can be opened twice"))
            .stderr(printed);
        if !self.args.iter().any(|arg| arg.starts_with("-chain=")) {
            command.arg("-chain=regtest");
        }
        if self.chain == "regtest" {
            command.arg("-acceptnonstdtxn=1");
        }
        if !self.args.iter().any(|arg| arg.starts_with("-connect=") || arg.starts_with("-addnode=")) {
            command.arg("-connect=0");
        }
        self.child = Some(command.spawn().expect("it was found, so it can be run"));
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            let child = self.child.as_mut().expect("set above");
            if child.try_wait().expect("our own child can be waited for").is_some() {
                self.child = None;
                return false;
            }
            if self.read_cookie().is_some() && self.try_call("getblockchaininfo", json!([])).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} does not answer after {START_LIMIT:?}; it said:\n{}", self.program.name, self.output());
    }

    fn chain_dir(&self) -> PathBuf {
        match self.chain.as_str() {
            "main" => self.data_dir().to_owned(),
            "test" => self.data_dir().join(self.program.testnet_folder),
            chain => self.data_dir().join(chain),
        }
    }

    fn cookie_file(&self) -> PathBuf {
        self.chain_dir().join(".cookie")
    }

    fn read_cookie(&self) -> Option<(String, String)> {
        let text = std::fs::read_to_string(self.cookie_file()).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too, so there is no need to resume it.
        self.kill();
    }
}

/// Mines `count` blocks by the daemon itself, paying `script`, and returns their hashes.
pub fn mine_blocks(daemon: &Daemon, count: usize, script: &ScriptBuf) -> Vec<BlockHash> {
    // The daemon requires a checksum, and returns it for a raw script without one.
    let descriptor = format!("raw({})", script.to_hex_string());
    let described = daemon.call("getdescriptorinfo", json!([descriptor]));
    let checked = described["descriptor"].as_str().expect("a descriptor with its checksum").to_owned();
    let mut hashes = Vec::new();
    // In portions: a hundred blocks take seconds on a busy machine, and a call may take 15.
    while hashes.len() < count {
        let portion = (count - hashes.len()).min(25);
        let mined = daemon.call("generatetodescriptor", json!([portion, checked]));
        let mined: Vec<BlockHash> = serde_json::from_value(mined).expect("a list of block hashes");
        hashes.extend(mined);
    }
    hashes
}

fn call_by(client: &Client, method: &str, params: Value) -> Result<Value, bitcoincore_rpc::Error> {
    let params = match params {
        Value::Array(params) => params,
        Value::Null => Vec::new(),
        single => vec![single],
    };
    client.call(method, &params)
}

impl Program {
    /// Path of the file: its variable, else from PATH, else the one that the tests built.
    pub(crate) fn find(&self) -> PathBuf {
        if let Some(named) = std::env::var_os(self.variable).filter(|named| !named.is_empty()) {
            return named.into();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .filter(|named| !named.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
            .unwrap_or_else(|| "/root/.cache".into());
        let built = self.built.map(|folder| cache.join("p2pool-tests").join(folder).join("bin"));
        std::env::split_paths(&path)
            .chain(built)
            .map(|folder| folder.join(self.name))
            .find(|file| file.is_file())
            .unwrap_or_else(|| panic!("no {}: neither in ${} nor in PATH. {}", self.name, self.variable, self.advice))
    }
}
