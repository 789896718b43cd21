//! The product as its users run it: a child process with its own data directory and worker port.

use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::http::{self, Response};
use crate::ports::free_port;
use crate::signal;
use crate::stratum_client::StratumClient;

/// Timeout of a node's start until it serves miners, daemon and all, on a loaded machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Timeout of a process that is to end.
const EXIT_LIMIT: Duration = Duration::from_secs(30);

/// Options of a node's start.
#[derive(Debug, Clone)]
pub struct NodeBuilder {
    program: PathBuf,
    network: String,
    subcommand: Vec<String>,
    address: Option<String>,
    rpc_port: Option<u16>,
    p2p_port: Option<u16>,
    worker_port: Option<u16>,
    pool_address: Option<SocketAddr>,
    credentials: Option<(String, String)>,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    stderr: Option<Arc<OwnedFd>>,
}

impl NodeBuilder {
    /// Creates options for the given program (`env!("CARGO_BIN_EXE_p2pool")`) on the daemon's regtest chain, with its
    /// ports and credentials, and the payout address `daemon.payout_address(255)`.
    pub fn new(program: &str, daemon: &Daemon) -> Self {
        Self {
            program: program.into(),
            network: daemon.network().to_owned(),
            subcommand: Vec::new(),
            address: Some(daemon.payout_address(255)),
            rpc_port: Some(daemon.rpc_port()),
            p2p_port: Some(daemon.p2p_port()),
            worker_port: None,
            pool_address: Some(SocketAddr::from(([127, 0, 0, 1], free_port()))),
            credentials: Some(daemon.credentials()),
            args: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            stderr: None,
        }
    }

    /// Creates options for the demonstration, which needs no daemon.
    pub fn demo(program: &str) -> Self {
        Self {
            program: program.into(),
            network: "bitcoin_regtest".to_owned(),
            subcommand: vec!["demo".to_owned()],
            address: None,
            rpc_port: None,
            p2p_port: None,
            worker_port: None,
            pool_address: None,
            credentials: None,
            args: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            stderr: None,
        }
    }

    /// Sets another network than the daemon's regtest.
    pub fn network(mut self, name: &str) -> Self {
        self.network = name.to_owned();
        self
    }

    /// Sets the node's own payout address, or none.
    pub fn address(mut self, address: Option<&str>) -> Self {
        self.address = address.map(str::to_owned);
        self
    }

    /// Sets another RPC port than the daemon's: a proxy's.
    pub fn rpc_port(mut self, port: u16) -> Self {
        self.rpc_port = Some(port);
        self
    }

    /// Sets another P2P port than the daemon's: a proxy's.
    pub fn p2p_port(mut self, port: u16) -> Self {
        self.p2p_port = Some(port);
        self
    }

    /// Sets the worker port instead of a free one.
    pub fn worker_port(mut self, port: u16) -> Self {
        self.worker_port = Some(port);
        self
    }

    /// Sets its listening address for peers, instead of a free loopback port.
    pub fn pool_address(mut self, address: SocketAddr) -> Self {
        self.pool_address = Some(address);
        self
    }

    /// Adds a node to stay connected to.
    pub fn peer(self, address: SocketAddr) -> Self {
        self.args(&["-n", &address.to_string()])
    }

    /// Sets other credentials than the daemon's, or none on the command line.
    pub fn credentials(mut self, credentials: Option<(&str, &str)>) -> Self {
        self.credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Sets a variable of the node's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets a command that runs it: the program and its arguments are appended. It must become the node, not start it.
    pub fn wrapped(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Redirects its standard error from its log here to a file.
    pub fn stderr(mut self, file: OwnedFd) -> Self {
        self.stderr = Some(Arc::new(file));
        self
    }

    /// Starts it and waits until it serves miners.
    pub fn start(self) -> Node {
        let node = self.spawn();
        node.wait_ready();
        node
    }

    /// Starts it without waiting.
    pub fn spawn(self) -> Node {
        let data_dir =
            tempfile::Builder::new().prefix("p2pool-node-").tempdir().expect("the temporary folder can be written");
        let worker_port = self.worker_port.unwrap_or_else(free_port);
        self.launch(Arc::new(data_dir), worker_port)
    }

    /// Starts it on a prepared data directory, without waiting.
    pub fn spawn_in(self, data_dir: TempDir) -> Node {
        let worker_port = self.worker_port.unwrap_or_else(free_port);
        self.launch(Arc::new(data_dir), worker_port)
    }

    /// Starts it on another node's data directory, without waiting.
    pub fn spawn_on(self, other: &Node) -> Node {
        let worker_port = self.worker_port.unwrap_or_else(free_port);
        self.launch(Arc::clone(&other.data_dir), worker_port)
    }

    fn launch(self, data_dir: Arc<TempDir>, worker_port: u16) -> Node {
        let mut node = Node { builder: self, data_dir, worker_port, child: None, log: Arc::default(), marked: 0 };
        node.launch();
        node
    }
}

/// A running (or ended) node. Dropping it kills it and removes its files; if the test fails, its log is printed.
#[derive(Debug)]
pub struct Node {
    builder: NodeBuilder,
    data_dir: Arc<TempDir>,
    worker_port: u16,
    child: Option<Child>,
    log: Arc<Log>,
    /// Number of log lines that belong to earlier runs.
    marked: usize,
}

/// End of a node's process.
#[derive(Debug)]
pub struct Exit {
    pub status: ExitStatus,
    /// Time since the signal, or since the call that waited for it.
    pub took: Duration,
}

/// Lines printed by a node, on either stream, in order of arrival.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Node {
    /// Starts a node with the defaults of [`NodeBuilder::new`] and waits until it serves miners.
    pub fn start(program: &str, daemon: &Daemon) -> Self {
        NodeBuilder::new(program, daemon).start()
    }

    /// Port for miners.
    pub fn worker_port(&self) -> u16 {
        self.worker_port
    }

    /// Listening address for peers.
    pub fn pool_address(&self) -> SocketAddr {
        self.builder.pool_address.expect("the demonstration has no peers")
    }

    /// Its `--datadir`.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Files of found blocks in the journal with one state: `block` while open, then `accepted`, `stale` or `rejected`.
    pub fn found_blocks(&self, state: &str) -> Vec<PathBuf> {
        // A network by file is called as its file in the tests.
        let network = Path::new(&self.builder.network).file_stem().expect("a network has a name");
        let folder = self.data_dir().join(network).join("found_blocks");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let in_state = |path: &PathBuf| path.extension().is_some_and(|extension| extension == state);
        entries.flatten().map(|entry| entry.path()).filter(in_state).collect()
    }

    /// Waits until miners are served.
    pub fn wait_ready(&self) {
        let start = Instant::now();
        while start.elapsed() < READY_LIMIT {
            if self.serves_miners() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the node serves no miners after {READY_LIMIT:?}; it said:\n{}", self.log());
    }

    /// True if a new connection can subscribe. A node without work hangs up instead, once it knows that the client is a
    /// miner: the port serves HTTP too.
    pub fn serves_miners(&self) -> bool {
        StratumClient::try_connect(self.worker_port).is_ok_and(|mut probe| probe.subscribe().is_ok())
    }

    /// Everything printed by this run so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().expect("no code panics while it holds this lock")[self.marked..].join("\n")
    }

    /// Waits until this run has printed a line that contains `text`, and returns the line.
    pub fn wait_for_log(&self, text: &str, timeout: Duration) -> String {
        let until = Instant::now() + timeout;
        let mut lines = self.log.lines.lock().expect("no code panics while it holds this lock");
        loop {
            if let Some(line) = lines[self.marked..].iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = lines[self.marked..].join("\n");
                drop(lines);
                panic!("no line with {text:?} within {timeout:?}; the node said:\n{log}");
            }
            lines = self.log.grown.wait_timeout(lines, left).expect("no code panics while it holds this lock").0;
        }
    }

    /// GETs a path of the worker port.
    pub fn get(&self, path: &str) -> Response {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// GETs a path of the worker port, if it is open yet.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_get(&self, path: &str) -> std::io::Result<Response> {
        http::get(self.worker_address(), path)
    }

    /// GETs a path of the worker port as text.
    pub fn get_text(&self, path: &str) -> Response {
        http::get_as(self.worker_address(), path, "text/plain").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Text of `/metrics`.
    pub fn metrics(&self) -> String {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{response:?}");
        response.body
    }

    /// Peak of its memory so far, in bytes (`VmHWM`).
    pub fn memory_peak(&self) -> u64 {
        let child = self.child.as_ref().expect("only a running node has memory");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("our own child is there");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux reports it");
        let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        kilobytes.expect("in kilobytes") * 1024
    }

    /// Kills it like a power cut.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("our own child can be waited for");
        }
    }

    /// Freezes it (SIGSTOP): incoming data waits in its sockets.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues it after [`Self::pause`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGTERM, without waiting.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> Exit {
        self.signal_and_wait(Signal::TERM)
    }

    /// Sends SIGINT, like Ctrl-C, and waits for its end.
    pub fn interrupt(&mut self) -> Exit {
        self.signal_and_wait(Signal::INT)
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> Exit {
        let start = Instant::now();
        let mut child = self.child.take().expect("only a running node can end");
        let Some(status) = signal::wait(&mut child, timeout) else {
            self.child = Some(child);
            panic!("the node has not ended after {timeout:?}; it said:\n{}", self.log());
        };
        // The last lines may still be in the pipe.
        std::thread::sleep(Duration::from_millis(100));
        Exit { status, took: start.elapsed() }
    }

    /// True while the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Restarts it on the same data directory and worker port, killing it first if it runs, and waits until it serves
    /// miners.
    pub fn restart(&mut self) {
        self.respawn();
        self.wait_ready();
    }

    /// Like [`Self::restart`], without waiting.
    pub fn respawn(&mut self) {
        self.kill9();
        self.launch();
    }

    /// Like [`Self::restart`], without some of the further arguments that it was started with.
    pub fn restart_without(&mut self, args: &[&str]) {
        self.builder.args.retain(|arg| !args.contains(&arg.as_str()));
        self.restart();
    }

    /// Starts another process with the same data directory, ports and arguments, as for an upgrade, without waiting.
    pub fn spawn_successor(&self) -> Self {
        self.builder.clone().launch(Arc::clone(&self.data_dir), self.worker_port)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("only a running node has one").id()
    }

    fn worker_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.worker_port))
    }

    fn signal(&self, which: Signal) {
        signal::send(self.child.as_ref().expect("only a running node can be signalled"), which);
    }

    fn signal_and_wait(&mut self, which: Signal) -> Exit {
        let start = Instant::now();
        self.signal(which);
        let exit = self.wait_exit(EXIT_LIMIT);
        // wait_exit lingers for the last lines, which is not the node's time.
        let lingered = exit.took.min(Duration::from_millis(100));
        Exit { took: start.elapsed().saturating_sub(lingered), ..exit }
    }

    fn launch(&mut self) {
        let builder = &self.builder;
        let mut command = match builder.wrapper.split_first() {
            Some((wrapper, words)) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(&builder.program);
                command
            }
            None => Command::new(&builder.program),
        };
        // Variables of the test's environment must not configure the node.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("P2POOL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.args(&builder.subcommand);
        if builder.subcommand.is_empty() {
            command.args(["--net", &builder.network, "--bitcoind-address", "127.0.0.1"]);
        }
        command.arg("--datadir").arg(self.data_dir.path());
        command.arg("-w").arg(self.worker_address().to_string());
        if let Some(address) = &builder.address {
            command.args(["-a", address]);
        }
        if let Some(port) = builder.rpc_port {
            command.args(["--bitcoind-rpc-port", &port.to_string()]);
        }
        if let Some(port) = builder.p2p_port {
            command.args(["--bitcoind-p2p-port", &port.to_string()]);
        }
        if let Some(address) = builder.pool_address {
            // Neither hosts outside of the test nor the machine's router may be reached.
            command.args(["--p2pool-port", &address.to_string(), "--no-bootstrap", "--disable-upnp"]);
        }
        command.args(&builder.args);
        if let Some((user, password)) = &builder.credentials {
            command.args([user, password]);
        }
        command.envs(builder.environment.iter().map(|(name, value)| (name, value)));
        // Files of the user's home, such as bitcoin.conf, must not be found.
        command.env("HOME", self.data_dir.path());
        let stderr = builder.stderr.as_ref().map(|file| file.try_clone().expect("there are file descriptors left"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr.map_or_else(Stdio::piped, Stdio::from));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", builder.program.display()));
        self.marked = self.log.lines.lock().expect("no code panics while it holds this lock").len();
        self.log.follow(child.stdout.take().expect("piped"));
        if let Some(stderr) = child.stderr.take() {
            self.log.follow(stderr);
        }
        self.child = Some(child);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            println!("--- the node said:\n{}\n---", self.log());
        }
    }
}

impl Log {
    /// Collects the lines of a stream until it ends.
    fn follow(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.lines.lock().expect("no code panics while it holds this lock").push(text);
                log.grown.notify_all();
                line.clear();
            }
        });
    }
}

/// Sums a metric's series whose line starts with `prefix`, such as `stratum_submissions_total{` or a full series name.
pub fn metric_value(metrics: &str, prefix: &str) -> Option<f64> {
    let values: Vec<f64> = metrics
        .lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Waits until `condition` holds, checking ten times a second.
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within {timeout:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
