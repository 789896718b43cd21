//! The servers under load: this program, as processes of their own.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::Served;

/// Timeout of a server's start: it forges a chain first.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Timeout of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Kind of server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `p2pool bench serve`.
    Node(Served),
    /// `p2pool bench bare`.
    Bare,
}

/// Server process. Ends when dropped.
#[derive(Debug)]
pub(super) struct Child {
    /// Address that it listens on.
    pub(super) address: SocketAddr,
    kind: Kind,
    process: tokio::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a server, and waits until it listens.
    pub(super) async fn start(kind: Kind) -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let mut command = Command::new(program);
        command.arg("bench");
        match kind {
            Kind::Node(Served { payees, transactions, trusts_proxy, scrypt }) => command
                .arg("serve")
                .args([format!("--payees={payees}"), format!("--transactions={transactions}")])
                .args(trusts_proxy.then_some("--trust-proxy"))
                .args(scrypt.then_some("--scrypt")),
            Kind::Bare => command.arg("bare"),
        };
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a server")?;
        let input = process.stdin.take().context("the server has no input")?;
        let output = process.stdout.take().context("the server has no output")?;
        let mut output = BufReader::new(output).lines();
        let line = timeout(START_TIMEOUT, output.next_line()).await.context("the server does not start")??;
        let address = line.context("the server ended at once")?.parse().context("the server gives no address")?;
        Ok(Self { address, kind, process, input, output })
    }

    /// True for the node.
    pub(super) fn is_node(&self) -> bool {
        matches!(self.kind, Kind::Node(_))
    }

    /// True for a node that takes clients' addresses from their PROXY headers.
    pub(super) fn trusts_proxy(&self) -> bool {
        matches!(self.kind, Kind::Node(Served { trusts_proxy: true, .. }))
    }

    /// Sends a line, and returns the answer.
    pub(super) async fn ask(&mut self, line: &str) -> Result<u64> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.context("the server takes no orders")?;
        let answer = timeout(ANSWER_TIMEOUT, self.output.next_line()).await.context("the server does not answer")??;
        answer.context("the server ended")?.parse().context("the server answers with no number")
    }

    /// Triggers a new job, and returns the time at which it became known. `line` is the job of the bare server.
    pub(super) async fn new_job(&mut self, line: &str) -> Result<u64> {
        if self.is_node() { self.ask("block").await } else { self.ask(&format!("job {line}")).await }
    }

    /// CPU time used so far, including the kernel's part.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let text = self.read("stat")?;
        // The second field is a name of arbitrary bytes.
        let fields: Vec<&str> = text[text.rfind(')').context("an unknown format")?..].split(' ').collect();
        ensure!(fields.len() > 13, "an unknown format of /proc");
        let ticks = fields[12].parse::<u32>()? + fields[13].parse::<u32>()?;
        let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
        Ok(Duration::from_secs(1) * ticks / per_second)
    }

    /// Memory in use, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    fn read(&self, name: &str) -> Result<String> {
        let id = self.process.id().context("the server ended")?;
        std::fs::read_to_string(format!("/proc/{id}/{name}")).context("cannot read of the server in /proc")
    }
}
