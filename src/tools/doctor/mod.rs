//! `p2pool doctor`: checks the setup of a node, with the node's options, and reports each result with advice. Starts
//! nothing and changes nothing.

mod machine;
mod merged;
mod refused;
mod room;

use serde::Serialize;
use sharechain::coin::Network;
use std::fmt::Write;
use std::net::SocketAddr;

use crate::bitcoind::CLOCK_OFF_MAX;
use crate::bitcoind::check::Diagnosis;
use crate::bitcoind::probe::{DaemonReport, Probe};
use crate::node;
use crate::node::saved_payout::saved_payout;
use crate::runtime::clock::unix_now;
use crate::runtime::sockets;
use crate::view::control::Request;
use crate::view::control::answers::Status;
use crate::view::control::client::{self, ControlError};
use crate::view::control::words::{printable, span};
use crate::view::http::api::Payouts;
use crate::work::Payout;
use room::{Payees, coinbase_room};

/// Difference between our clock and bitcoind's that gets a warning, in seconds. Shares more than 600 s ahead are
/// refused; a running node reports a difference of [`CLOCK_OFF_MAX`] as wrong.
const CLOCK_WORTH_A_LOOK: f64 = 5.0;
/// The same for bitcoind's clock and its peers', which may be the wrong ones; half of 600 s is an error.
const PEERS_CLOCK_OFF_MAX: f64 = 60.0;
const PEERS_CLOCK_WRONG_MIN: f64 = 300.0;

const CLOCK_ADVICE: &str = "synchronise the clock (timedatectl set-ntp true)";

/// Age of the tip, in seconds, from which a public chain gets a warning; reached by chance about once in six weeks.
const TIP_AGE_MAX: f64 = 5400.0;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No problem.
    Ok,
    /// A node works, but not optimally.
    Warning,
    /// A node does not work.
    Bad,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Subject of the check.
    pub name: &'static str,
    /// Result.
    pub state: State,
    /// Finding.
    pub text: String,
    /// Suggested fix, if one is needed.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, state: State::Ok, text: text.into(), advice: None }
    }

    fn warning(name: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Warning, text: text.into(), advice: Some(advice.into()) }
    }

    fn bad(name: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Bad, text: text.into(), advice: Some(advice.into()) }
    }
}

/// Results of all checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True if no check is bad.
    pub ok: bool,
    /// Checks in the order of the report.
    pub checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        Self { ok: checks.iter().all(|check| check.state != State::Bad), checks }
    }

    /// Formats the report as text.
    pub fn to_text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for check in &self.checks {
            let sign = match check.state {
                State::Ok => "ok     ",
                State::Warning => "warning",
                State::Bad => "BAD    ",
            };
            let _ = writeln!(text, "{sign}  {:<width$}  {}", check.name, printable(&check.text));
            if let Some(advice) = &check.advice {
                let _ = writeln!(text, "{:9}{:width$}  -> {}", "", "", printable(advice));
            }
        }
        let bad = self.checks.iter().filter(|check| check.state == State::Bad).count();
        let warnings = self.checks.iter().filter(|check| check.state == State::Warning).count();
        let _ = match (bad, warnings) {
            (0, 0) => writeln!(text, "all checks passed"),
            (0, warnings) => writeln!(text, "all checks passed, warnings: {warnings}"),
            (bad, _) => writeln!(text, "failed checks: {bad}, warnings: {warnings}"),
        };
        text
    }
}

/// Runs all checks.
pub async fn run(config: &node::Config) -> Report {
    let mut checks = vec![Check::ok("p2pool", format!("{} on {}", env!("CARGO_PKG_VERSION"), config.network.name))];
    let running = client::ask_for(&config.data_dir, &Request::Status).await;
    let pid = running.as_ref().map(|status: &Status| status.pid).ok();
    checks.push(running_node(config, &running));
    checks.extend(running.as_ref().ok().and_then(clock_of_running));
    checks.extend(running.as_ref().ok().and_then(|status| status.refused.as_ref()).map(refused::refused_shares));
    checks.extend(machine::data_dir(&config.data_dir, config.access));
    let files = config.stratum.limits.connections_max.saturating_add(node::service::files_reserved(config));
    checks.push(machine::open_files(files as u64));
    for miners in &config.front.miners {
        checks.push(port("worker port", miners.address, pid, State::Bad));
    }
    if let Some(address) = config.front.web {
        checks.push(port("web port", address, pid, State::Bad));
    }
    checks.push(port("p2pool port", config.p2p.listen, pid, State::Warning));
    let payouts: Option<Payouts> = client::ask_for(&config.data_dir, &Request::Payouts).await.ok();
    let payees = Payees::new(payouts.as_ref(), config.network);
    match Probe::new(&config.daemon, config.network) {
        Ok(probe) => checks.extend(daemon(&probe, config, &payees).await),
        Err(error) => {
            let advice = "set P2POOL_RPC_USER and P2POOL_RPC_PASSWORD to bitcoind's user and password, or run p2pool \
                          as bitcoind's user";
            checks.push(Check::bad("bitcoind RPC", error.to_string(), advice));
        }
    }
    checks.extend(merged::chains(config).await);
    Report::new(checks)
}

fn running_node(config: &node::Config, running: &Result<Status, ControlError>) -> Check {
    match running {
        Ok(status) => Check::ok("node", format!("running, process {}", status.pid)),
        Err(ControlError::NotRunning(_)) => Check::ok("node", format!("none running on {}", config.data_dir.display())),
        Err(error) => Check::warning("node", error.to_string(), "run the same version of p2pool as the node's user"),
    }
}

/// Reports a problem of the clock found by a running node, which also compares it with the pool's shares.
fn clock_of_running(status: &Status) -> Option<Check> {
    let trouble = status.clock.as_deref()?;
    Some(Check::bad("node's clock", trouble, CLOCK_ADVICE))
}

/// Checks that a port is free, or in use while a node runs.
fn port(name: &'static str, address: SocketAddr, running: Option<u32>, if_taken: State) -> Check {
    match (sockets::bind(address), running) {
        (Ok(_), None) => Check::ok(name, format!("{address} is free")),
        (Ok(_), Some(_)) => Check::warning(
            name,
            format!("{address} is not open, although a node is running"),
            "check whether the node was started with these options",
        ),
        (Err(error), Some(_)) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Check::ok(name, format!("{address} is open, most likely by the running node"))
        }
        (Err(error), _) => {
            let advice = "stop the program that uses it, or choose another port";
            Check { state: if_taken, ..Check::bad(name, format!("cannot listen on {address}: {error}"), advice) }
        }
    }
}

async fn daemon(probe: &Probe, config: &node::Config, payees: &Payees) -> Vec<Check> {
    let found = match probe.look().await {
        Ok(found) => found,
        Err(diagnosis) => {
            return vec![Check::bad("bitcoind RPC", diagnosis.to_string(), advice_for(&diagnosis, probe))];
        }
    };
    let mut checks = vec![Check::ok("bitcoind RPC", format!("{} at {}", found.user_agent, probe.rpc_target()))];
    checks.push(chain(&found, config.network));
    checks.push(p2p(probe).await);
    checks.push(peers(&found, config.network));
    checks.push(clock(&found));
    for warning in &found.warnings {
        checks.push(Check::warning("bitcoind", format!("bitcoind warns: {warning}"), "see bitcoind's log"));
    }
    checks.push(match probe.template().await {
        Ok(template) => coinbase_room(&template, payees),
        Err(reason) => Check::bad("template", reason, "no work without a template: see bitcoind's log"),
    });
    checks.push(payout(probe, config).await);
    checks
}

fn advice_for(diagnosis: &Diagnosis, probe: &Probe) -> String {
    match diagnosis {
        Diagnosis::Unreachable { .. } => format!(
            "start bitcoind, or set --bitcoind-address and --bitcoind-rpc-port; {} was tried",
            probe.rpc_target()
        ),
        Diagnosis::WrongPassword { .. } => {
            "correct P2POOL_RPC_USER and P2POOL_RPC_PASSWORD, or run p2pool as bitcoind's user".to_owned()
        }
        other if other.passes_by_itself() => "wait".to_owned(),
        _ => "see bitcoind's log".to_owned(),
    }
}

fn chain(found: &DaemonReport, network: &Network) -> Check {
    let chain = &found.chain;
    match &found.diagnosis {
        Some(diagnosis @ (Diagnosis::WrongChain { .. } | Diagnosis::TooOld { .. })) => {
            Check::bad("chain", diagnosis.to_string(), "start the right bitcoind")
        }
        Some(diagnosis) => Check::bad("chain", diagnosis.to_string(), "wait"),
        None => {
            let age = found.tip_time.map(|time| (unix_now() - whole(time)).max(0.0));
            let at = format!("{} at height {}", chain.chain, chain.blocks);
            match age {
                Some(age) if network.persist && age > TIP_AGE_MAX => Check::warning(
                    "chain",
                    format!("{at}, tip is {} old", span(age)),
                    "check that bitcoind has peers and receives blocks",
                ),
                Some(age) => Check::ok("chain", format!("{at}, tip is {} old", span(age))),
                None => Check::ok("chain", at),
            }
        }
    }
}

async fn p2p(probe: &Probe) -> Check {
    let target = probe.p2p_target();
    match probe.shake_hands().await {
        Ok(user_agent) => Check::ok("bitcoind P2P", format!("{user_agent} at {target}")),
        Err(reason) => Check::warning(
            "bitcoind P2P",
            format!("{target}: {reason}"),
            "without it, blocks are sent by RPC alone and received later: let bitcoind listen (listen=1, and bind= or \
             whitelist=127.0.0.1), or set --bitcoind-p2p-port",
        ),
    }
}

fn peers(found: &DaemonReport, network: &Network) -> Check {
    match found.connections {
        0 if network.persist => Check::bad(
            "bitcoind peers",
            "none: bitcoind could not announce a block",
            "check bitcoind's network: firewall, -connect, -proxy",
        ),
        count @ 1..=3 if network.persist => Check::warning(
            "bitcoind peers",
            format!("{count}"),
            "eight or more propagate a block faster: see bitcoind's -maxconnections and -addnode",
        ),
        count => Check::ok("bitcoind peers", format!("{count}")),
    }
}

fn clock(found: &DaemonReport) -> Check {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let peers_offset = found.peers_offset as f64;
    let ours = found.clock.map(|(ahead, exact)| (ahead.abs() - exact).max(0.0)).unwrap_or_default();
    let finding = match found.clock {
        Some((ahead, _)) => format!("{ahead:+.1} s against bitcoind's, whose peers differ by {peers_offset:+} s"),
        None => format!("bitcoind's peers differ by {peers_offset:+} s"),
    };
    if ours > CLOCK_OFF_MAX || peers_offset.abs() >= PEERS_CLOCK_WRONG_MIN {
        Check::bad("clock", finding, CLOCK_ADVICE)
    } else if ours > CLOCK_WORTH_A_LOOK || peers_offset.abs() > PEERS_CLOCK_OFF_MAX {
        Check::warning("clock", finding, CLOCK_ADVICE)
    } else {
        Check::ok("clock", finding)
    }
}

async fn payout(probe: &Probe, config: &node::Config) -> Check {
    const NAME: &str = "payout address";
    if let Some(payout) = &config.address {
        return chosen_payout(NAME, payout, "");
    }
    match saved_payout(&config.data_dir, config.network) {
        Ok(Some(payout)) => return chosen_payout(NAME, &payout, ", imported from an old node"),
        Ok(None) => {}
        Err(error) => return Check::bad(NAME, format!("{error:#}"), "set -a ADDRESS"),
    }
    match probe.has_wallet().await {
        Ok(true) => Check::ok(NAME, "an address of bitcoind's wallet; -a ADDRESS sets another"),
        Ok(false) => Check::bad(NAME, "none set, and bitcoind has no wallet", "set -a ADDRESS"),
        Err(reason) => Check::bad(NAME, reason, "set -a ADDRESS"),
    }
}

/// Judges the operator's payout, with its address on the merged chain; `origin` is the end of the sentence.
fn chosen_payout(name: &'static str, payout: &Payout, origin: &str) -> Check {
    match payout.merged_warning() {
        Some(warning) => Check::warning(name, format!("{payout:#}{origin}"), warning),
        None => Check::ok(name, format!("{payout:#}{origin}")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitcoind::responses::ChainInfo;
    use sharechain::coin::{BITCOIN, BITCOIN_REGTEST, LITECOIN};

    fn found() -> DaemonReport {
        DaemonReport {
            user_agent: "/Satoshi:31.0.0/".into(),
            diagnosis: None,
            chain: ChainInfo {
                chain: "main".into(),
                blocks: 900_000,
                headers: 900_000,
                verification_progress: 1.0,
                initial_block_download: false,
            },
            tip_time: None,
            connections: 10,
            peers_offset: 0,
            warnings: Vec::new(),
            clock: Some((0.1, 0.2)),
        }
    }

    fn states<const COUNT: usize>(checks: [Check; COUNT]) -> [State; COUNT] {
        checks.map(|check| check.state)
    }

    #[test]
    fn clocks_are_judged_by_what_shares_are_refused_for() {
        let clock = |clock, peers_offset| clock_of(clock, peers_offset).state;
        fn clock_of(clock: Option<(f64, f64)>, peers_offset: i64) -> Check {
            super::clock(&DaemonReport { clock, peers_offset, ..found() })
        }
        assert_eq!(clock(Some((0.3, 0.1)), 1), State::Ok);
        assert_eq!(clock(Some((9.0, 8.0)), 0), State::Ok, "the answer took so long that nothing is known");
        assert_eq!(clock(Some((-20.0, 0.1)), 0), State::Warning);
        assert_eq!(clock(Some((60.1, 0.1)), 0), State::Warning);
        assert_eq!(clock(Some((-60.2, 0.1)), 0), State::Bad);
        assert_eq!(clock(Some((400.0, 0.1)), 0), State::Bad);
        assert_eq!(clock(None, 90), State::Warning);
        assert_eq!(clock(Some((0.0, 0.1)), -3600), State::Bad);
    }

    #[test]
    fn a_running_node_that_takes_its_clock_for_wrong_is_bad() {
        let status = Status { clock: Some("our clock is wrong".into()), ..Status::default() };
        let check = clock_of_running(&status).unwrap();
        assert_eq!((check.state, &*check.text), (State::Bad, "our clock is wrong"));
        assert_eq!(clock_of_running(&Status::default()), None);
    }

    #[test]
    fn a_lonely_daemon_is_bad_where_there_are_others() {
        let with = |connections| DaemonReport { connections, ..found() };
        let checks = [peers(&with(0), &BITCOIN), peers(&with(2), &BITCOIN), peers(&with(0), &BITCOIN_REGTEST)];
        assert_eq!(states(checks), [State::Bad, State::Warning, State::Ok]);
    }

    #[test]
    fn an_old_tip_is_told_where_others_mine() {
        let old = DaemonReport { tip_time: Some(1_700_000_000), ..found() };
        assert_eq!(states([chain(&old, &BITCOIN), chain(&old, &BITCOIN_REGTEST)]), [State::Warning, State::Ok]);
        let syncing = Diagnosis::Syncing { blocks: 1, headers: 2, percent: 50.0 };
        let syncing = DaemonReport { diagnosis: Some(syncing), ..found() };
        let check = chain(&syncing, &BITCOIN);
        assert_eq!((check.state, check.advice.as_deref()), (State::Bad, Some("wait")));
    }

    #[test]
    fn a_report_is_only_bad_if_a_node_does_not_work() {
        let warned = Report::new(vec![Check::ok("a", "fine"), Check::warning("b", "so so", "do this")]);
        assert!(warned.ok);
        let text = warned.to_text();
        assert!(text.contains("ok       a  fine\n") && text.contains("-> do this\n"), "{text}");
        assert!(text.ends_with("warnings: 1\n"), "{text}");
        let bad = Report::new(vec![Check::bad("a", "broken \u{1b}[2J", "mend it")]);
        assert!(!bad.ok && bad.to_text().contains("BAD      a  broken \\u{1b}[2J"), "{}", bad.to_text());
    }

    #[test]
    fn a_payout_that_strangers_may_spend_on_the_merged_chain_gets_a_warning() {
        let network = &Network { newest_version: 36, ..LITECOIN };
        let judged = |text: &str| chosen_payout("payout address", &Payout::to_address(text, network).unwrap(), "");
        let check = judged("M9yc8NzsGcgMduDUs1xEi1Lsnbjgt3JZT2");
        assert_eq!(check.state, State::Warning);
        assert!(check.advice.unwrap().contains("-a M9yc8NzsGcgMduDUs1xEi1Lsnbjgt3JZT2,DOGE_ADDRESS"));
        let check = judged("LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhMA");
        assert!(check.state == State::Ok && check.text.contains(" (DOGE: D"), "{check:?}");
    }

    #[test]
    fn a_port_that_is_taken_is_fine_if_our_node_has_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let checks = [None, Some(7)].map(|pid| port("worker port", address, pid, State::Bad));
        assert_eq!(states(checks), [State::Bad, State::Ok]);
        drop(taken);
        let checks = [None, Some(7)].map(|pid| port("worker port", address, pid, State::Bad));
        assert_eq!(states(checks), [State::Ok, State::Warning]);
    }
}
