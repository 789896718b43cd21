//! Diagnoses the daemon in one line, and how soon to try again.

use sharechain::coin::Network;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::{error, info, warn};

use super::responses::{ChainInfo, ConversionError, NetworkInfo, printable};
use super::rpc::{Rpc, RpcError, code};
use crate::template::Template;

/// Interval at which an unchanged message is repeated.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);

/// A problem with the daemon.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Diagnosis {
    /// No process listens there.
    #[error(
        "cannot reach bitcoind's RPC at {target} ({reason}): is it running, with server=1, and is this its RPC port?"
    )]
    Unreachable {
        /// Address and port.
        target: String,
        /// Error text of the system.
        reason: String,
    },
    /// HTTP 401.
    #[error("wrong password: bitcoind at {target} refuses {origin}")]
    WrongPassword {
        /// Address and port.
        target: String,
        /// Source of the password.
        origin: String,
    },
    /// The daemon serves another chain.
    #[error(
        "wrong chain: bitcoind is on `{theirs}`, but {network} needs `{ours}` (start bitcoind with {option}, or choose another --net)"
    )]
    WrongChain {
        /// Chain of the daemon.
        theirs: String,
        /// Chain that is needed.
        ours: &'static str,
        /// Our network.
        network: &'static str,
        /// Option that puts the daemon on the right chain.
        option: &'static str,
    },
    /// The daemon does not have the whole chain yet.
    #[error(
        "bitcoind is still syncing: block {blocks} of {headers}, {percent:.1} % verified; mining starts when it is done"
    )]
    Syncing {
        /// Height of its best block.
        blocks: u32,
        /// Height of its best header.
        headers: u32,
        /// Verified part of the chain, in percent.
        percent: f64,
    },
    /// The daemon reports that it is syncing, without details.
    #[error("bitcoind is still syncing: {0}")]
    SyncingUntold(String),
    /// The daemon is starting.
    #[error("bitcoind is warming up: {0}")]
    WarmingUp(String),
    /// The daemon has no peer to relay a block to.
    #[error("bitcoind has no peers: a block could not leave it")]
    NoPeers,
    /// The daemon may not enforce the current rules.
    #[error(
        "the daemon, {}, is too old: {} or newer is needed (--allow-obsolete-bitcoind tries anyway)",
        shown(*.version), shown(*.needed)
    )]
    TooOld {
        /// Its version, in the format of `getnetworkinfo`.
        version: u32,
        /// Oldest acceptable version.
        needed: u32,
    },
    /// The template is unusable.
    #[error("bitcoind's template is unusable: {0}")]
    Template(ConversionError),
    /// Any other error of a call.
    #[error(transparent)]
    Other(RpcError),
}

/// Formats a version for display; Litecoin's begin with a zero.
fn shown(version: u32) -> String {
    let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

impl From<RpcError> for Diagnosis {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Unreachable { target, reason, .. } => Self::Unreachable { target, reason },
            RpcError::Unauthorized { target, origin, .. } => Self::WrongPassword { target, origin },
            RpcError::Daemon { code: code::WARMING_UP, message, .. } => Self::WarmingUp(message),
            RpcError::Daemon { code: code::NOT_CONNECTED, .. } => Self::NoPeers,
            RpcError::Daemon { code: code::INITIAL_DOWNLOAD, message, .. } => Self::SyncingUntold(message),
            other => Self::Other(other),
        }
    }
}

impl Diagnosis {
    /// Maximum wait before trying again: short where waiting helps, long where the operator must act, which takes a
    /// restart.
    pub fn retry_max(&self) -> Duration {
        match self {
            Self::WrongChain { .. } | Self::TooOld { .. } | Self::Template(_) => Duration::from_secs(30),
            Self::Unreachable { .. } | Self::WarmingUp(_) => Duration::from_secs(3),
            _ => Duration::from_secs(10),
        }
    }

    /// True if it passes by itself, and so is no reason for a warning.
    pub fn passes_by_itself(&self) -> bool {
        matches!(self, Self::Syncing { .. } | Self::SyncingUntold(_) | Self::WarmingUp(_))
    }

    /// True if work must stop at once, however recent the last template: it was made for another chain or other rules.
    pub fn stops_work(&self) -> bool {
        matches!(self, Self::WrongChain { .. } | Self::Template(_))
    }
}

/// Returns the problem of a daemon that gave these answers; `None` if there is none.
pub fn diagnose(chain: &ChainInfo, node: &NetworkInfo, network: &Network, allow_obsolete: bool) -> Option<Diagnosis> {
    let parent = &network.parent;
    if chain.chain != parent.rpc_chain {
        return Some(Diagnosis::WrongChain {
            theirs: chain.chain.clone(),
            ours: parent.rpc_chain,
            network: network.name,
            option: parent.daemon_option,
        });
    }
    if node.version < network.parent.version_min && !allow_obsolete {
        return Some(Diagnosis::TooOld { version: node.version, needed: network.parent.version_min });
    }
    // The daemon calls a chain whose tip is a day old "initial download" too; on the main chain it then gives no
    // templates, but a paused test chain is mined on as it is.
    if chain.initial_block_download && (parent.rpc_chain == "main" || chain.blocks < chain.headers) {
        let percent = chain.verification_progress * 100.0;
        return Some(Diagnosis::Syncing { blocks: chain.blocks, headers: chain.headers, percent });
    }
    None
}

/// Queries the daemon's state.
///
/// # Errors
/// The problem with the daemon.
pub async fn check(rpc: &Rpc, network: &Network, allow_obsolete: bool) -> Result<NetworkInfo, Diagnosis> {
    let chain: ChainInfo = rpc.call("getblockchaininfo", Vec::new()).await?;
    let node: NetworkInfo = rpc.call("getnetworkinfo", Vec::new()).await?;
    diagnose(&chain, &node, network, allow_obsolete).map_or(Ok(node), Err)
}

/// Logs the daemon's problem, once per change and once a minute.
#[derive(Debug, Default)]
pub(super) struct TroubleLog(Option<(String, Instant)>);

impl TroubleLog {
    /// Logs `diagnosis`, unless it was just logged.
    pub(super) fn report(&mut self, diagnosis: &Diagnosis, now: Instant) {
        let message = diagnosis.to_string();
        // Progress changes all the time, and is not logged for that.
        let key = if diagnosis.passes_by_itself() { "passes by itself" } else { &message };
        if !self.is_news(key, now) {
            return;
        }
        if diagnosis.passes_by_itself() {
            info!("{message}");
        } else if diagnosis.stops_work() {
            error!("{message}");
        } else {
            warn!("{message}");
        }
    }

    /// Resets after a success; returns true if a problem was logged before.
    pub(super) fn all_well(&mut self) -> bool {
        self.0.take().is_some()
    }

    fn is_news(&mut self, message: &str, now: Instant) -> bool {
        let news =
            self.0.as_ref().is_none_or(|(said, when)| said != message || now.duration_since(*when) >= REPEAT_INTERVAL);
        if news {
            self.0 = Some((message.to_owned(), now));
        }
        news
    }
}

/// Maximum number of unknown rules that are remembered; further ones are not logged.
const RULES_MAX: usize = 64;

/// Logs each unknown soft fork rule once.
#[derive(Debug, Default)]
pub(super) struct RuleLog(BTreeSet<String>);

impl RuleLog {
    /// Logs the rules of `template` that are not among `known` and have not been logged.
    pub(super) fn report(&mut self, template: &Template, known: &[&str]) {
        for rule in self.news(template, known) {
            warn!(
                %rule,
                "an active soft fork is unknown to this version: it asks nothing of miners, so work goes on; see if there \
                 is an update"
            );
        }
    }

    fn news(&mut self, template: &Template, known: &[&str]) -> Vec<String> {
        let mut news = Vec::new();
        for rule in template.unknown_rules(known) {
            let rule = printable(rule);
            if self.0.len() < RULES_MAX && self.0.insert(rule.clone()) {
                news.push(rule);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitcoind::responses::Warnings;
    use crate::bitcoind::rpc::BITCOIND;
    use crate::template::tests::{RULES, parts};
    use crate::template::{TemplateError, TemplateParts};
    use sharechain::coin::{BITCOIN, BITCOIN_REGTEST};

    fn chain(name: &str) -> ChainInfo {
        ChainInfo {
            chain: name.into(),
            blocks: 800_000,
            headers: 800_000,
            verification_progress: 1.0,
            initial_block_download: false,
        }
    }

    fn node(version: u32) -> NetworkInfo {
        NetworkInfo { version, user_agent: "/Satoshi/".into(), warnings: Warnings::default() }
    }

    #[test]
    fn a_healthy_daemon_passes() {
        assert_eq!(diagnose(&chain("main"), &node(310_000), &BITCOIN, false), None);
    }

    #[test]
    fn a_wrong_chain_is_told_with_both_names() {
        let text = diagnose(&chain("main"), &node(310_000), &BITCOIN_REGTEST, false).unwrap().to_string();
        assert!(text.contains("`main`") && text.contains("`regtest`") && text.contains("-chain=regtest"), "{text}");
    }

    #[test]
    fn syncing_is_told_with_its_progress() {
        let syncing =
            ChainInfo { blocks: 400_000, verification_progress: 0.25, initial_block_download: true, ..chain("main") };
        let text = diagnose(&syncing, &node(310_000), &BITCOIN, false).unwrap().to_string();
        assert!(text.contains("400000 of 800000") && text.contains("25.0 %"), "{text}");
    }

    #[test]
    fn a_private_chain_that_has_only_paused_is_mined_on() {
        let paused = ChainInfo { initial_block_download: true, blocks: 0, headers: 0, ..chain("regtest") };
        assert_eq!(diagnose(&paused, &node(310_000), &BITCOIN_REGTEST, false), None);
    }

    #[test]
    fn too_old_a_daemon_is_told_what_is_needed_unless_it_is_allowed() {
        let diagnosis = diagnose(&chain("main"), &node(210_100), &BITCOIN, false).unwrap();
        assert!(diagnosis.to_string().starts_with("the daemon, 21.1, is too old: 22.0"), "{diagnosis}");
        assert_eq!(diagnose(&chain("main"), &node(210_100), &BITCOIN, true), None);
    }

    #[test]
    fn a_starting_or_lonely_daemon_is_waited_for() {
        let daemon = |code| {
            let (daemon, message) = (BITCOIND.into(), "Loading".into());
            Diagnosis::from(RpcError::Daemon { daemon, method: "m", code, message })
        };
        assert_eq!(daemon(-28), Diagnosis::WarmingUp("Loading".into()));
        assert_eq!(daemon(-9), Diagnosis::NoPeers);
        assert_eq!(daemon(-10), Diagnosis::SyncingUntold("Loading".into()));
        assert!(matches!(daemon(-1), Diagnosis::Other(_)));
    }

    #[test]
    fn a_message_is_repeated_only_when_it_changes_or_a_minute_has_passed() {
        let (mut teller, now) = (TroubleLog::default(), Instant::now());
        assert!(teller.is_news("a", now));
        assert!(!teller.is_news("a", now + Duration::from_secs(59)));
        assert!(teller.is_news("b", now + Duration::from_secs(59)));
        assert!(!teller.is_news("b", now + Duration::from_secs(60)));
        assert!(teller.is_news("b", now + Duration::from_secs(119)));
        assert!(teller.all_well());
        assert!(teller.is_news("b", now + Duration::from_secs(120)));
    }

    #[test]
    fn an_unknown_rule_is_logged_once_and_escaped() {
        let with = |rules: &[&str]| {
            let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
            Template::new(TemplateParts { rules, ..parts() }, RULES).unwrap()
        };
        let mut log = RuleLog::default();
        assert_eq!(log.news(&with(&["segwit", "quantum"]), RULES), ["quantum"]);
        assert_eq!(log.news(&with(&["quantum", "!segwit", "\u{1b}[2J\n"]), RULES), [r"\u{1b}[2J\n"]);
        assert_eq!(log.news(&with(&["quantum", "\u{1b}[2J\n"]), RULES), [""; 0]);
        let many: Vec<String> = (0..1000).map(|number| format!("rule{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(log.news(&with(&many), RULES).len(), RULES_MAX - 2);
    }

    #[test]
    fn an_unknown_rule_stops_work_at_once() {
        let unknown = TemplateError::UnknownRule("quantum".into());
        assert!(Diagnosis::Template(ConversionError::Template(unknown)).stops_work());
        assert!(!Diagnosis::NoPeers.stops_work());
    }
}
