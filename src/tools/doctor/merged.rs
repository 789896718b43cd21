//! The doctor's look at merged chains. Without them a node works, so nothing of theirs is worse than a warning.

use futures::future::join_all;
use sharechain::merged::{DOGECOIN, MergedBlock, MergedTarget, MergedWork};
use std::ops::RangeInclusive;

use super::Check;
use crate::bitcoind::rpc::RpcError;
use crate::merged::{DaemonReport, Findings, Mode, Trouble, probe};
use crate::node;
use crate::view::control::words::{coins, short_number};

const NAME: &str = "merged chain";

/// Upper halves of block versions that begin with the bits 001 of BIP 9; miners roll others of them (BIP 320).
const VERSION_TOPS: RangeInclusive<u32> = 0x2000..=0x3fff;

/// Checks the daemons of merged chains, their work, and whether all can be mined together.
pub(super) async fn chains(config: &node::Config) -> Vec<Check> {
    let reports = join_all(config.merged.chains.iter().map(probe)).await;
    let session = config.stratum.session;
    let floor = config.front.miners.iter().map(|port| port.policy.session(session).vardiff.min.get());
    let floor = floor.fold(f64::INFINITY, f64::min);
    let alone = reports.iter().flat_map(|report| daemon(report, floor));
    alone.chain(reports.iter().filter_map(mistakable)).chain(collisions(&reports)).collect()
}

/// Judges one daemon; `floor` is the least of the ports' minimum difficulties (bdiff).
fn daemon(report: &DaemonReport, floor: f64) -> Vec<Check> {
    let DaemonReport { chain, daemon, payee, .. } = report;
    let Findings { version, download, is_address_foreign, block, templates } = match &report.findings {
        Ok(findings) => findings,
        Err(trouble) => return vec![troubled(&format!("{chain} at {daemon}"), trouble)],
    };
    let mut checks = vec![Check::ok(NAME, format!("{chain}: {version} at {daemon}"))];
    if let Some((blocks, headers)) = download {
        let text = format!("{chain}: it has {blocks} blocks of {headers}, and downloads the others");
        checks.push(Check::warning(NAME, text, "wait"));
    }
    if *is_address_foreign && !matches!(block, Err(Trouble::Address { .. })) {
        let text = format!("{chain}: {payee} is no address of its chain, says the daemon");
        checks.push(Check::warning(NAME, text, "correct address= of --merged"));
    }
    match block {
        Ok(block) => checks.push(work(report, block, floor)),
        Err(Trouble::Syncing(_)) if download.is_some() => {}
        Err(trouble) => checks.push(troubled(chain, trouble)),
    }
    let is_dogecoin = block.as_ref().is_ok_and(|block| block.chain_id == DOGECOIN);
    match templates {
        Some(Ok(())) => {
            let text = format!("{chain}: its blocks can pay the miners, once shares are of version 36");
            checks.push(Check::ok(NAME, text));
        }
        Some(Err(trouble)) if is_dogecoin => checks.push(troubled(chain, trouble)),
        Some(Err(_)) | None => {}
    }
    checks
}

/// Judges the work of a chain.
fn work(report: &DaemonReport, block: &MergedBlock, floor: f64) -> Check {
    let MergedBlock { chain_id, height, value, .. } = block;
    let difficulty = match block.target {
        MergedTarget::Own(target) => Some(stratum::Target::from_le_bytes(target.to_le_bytes()).difficulty()),
        MergedTarget::Share => None,
    };
    let shown = difficulty.map_or("that of shares".to_owned(), |bdiff| format!("{} (bdiff)", short_number(bdiff)));
    let value = value.map(|value| format!("{} ", coins(value))).unwrap_or_default();
    let method = match report.mode {
        Mode::Address => "createauxblock",
        Mode::Wallet => "getauxblock",
        Mode::Payouts => "getblocktemplate",
    };
    let text = format!(
        "{}: chain number {chain_id}, height {height}, difficulty {shown}; pays {value}to {} ({method})",
        report.chain, report.payee
    );
    if difficulty.is_some_and(|difficulty| difficulty < floor) {
        let text = format!(
            "{text}; its target is easier than the ports' minimum difficulty, {} (bdiff), so not all of its blocks are found",
            short_number(floor)
        );
        return Check::warning(NAME, text, "lower the minimum of a port (min=, --min-difficulty), or leave it at that");
    }
    Check::ok(NAME, text)
}

/// Warns of a chain whose number the version of a parent block can have in its upper half. Daemons take such a block for
/// one of their own chain and refuse its proof.
fn mistakable(report: &DaemonReport) -> Option<Check> {
    let block = report.findings.as_ref().ok()?.block.as_ref().ok()?;
    let text = format!(
        "{}: its chain number, {}, can be the upper half of a parent block's version: its daemon may refuse proofs",
        report.chain, block.chain_id
    );
    let advice = "expect rejected blocks; with --version-mask 0, only of the number 8192 (0x2000)";
    VERSION_TOPS.contains(&block.chain_id).then(|| Check::warning(NAME, text, advice))
}

/// Reports chains that cannot be mined beside those before them.
fn collisions(reports: &[DaemonReport]) -> Vec<Check> {
    let mut mined: Vec<MergedBlock> = Vec::new();
    let mut checks = Vec::new();
    for report in reports {
        let Some(block) = report.findings.as_ref().ok().and_then(|findings| findings.block.as_ref().ok()) else {
            continue;
        };
        mined.push(block.clone());
        if let Err(error) = MergedWork::new(mined.clone()) {
            mined.pop();
            let text = format!("{} is left out: {error}", report.chain);
            checks.push(Check::warning(NAME, text, "remove one of the two from --merged, or correct its URL"));
        }
    }
    checks
}

fn troubled(subject: &str, trouble: &Trouble) -> Check {
    Check { advice: advice(trouble).map(str::to_owned), ..Check::warning(NAME, format!("{subject}: {trouble}"), "") }
}

/// Advice, where the trouble's own words have none.
fn advice(trouble: &Trouble) -> Option<&'static str> {
    match trouble {
        Trouble::Rpc(RpcError::Unreachable { .. } | RpcError::Timeout { .. }) => {
            Some("start the daemon (server=1), or correct host and port of --merged")
        }
        Trouble::Rpc(RpcError::Unauthorized { .. }) => {
            Some("correct user and password of --merged, or the file of login-file=")
        }
        Trouble::Rpc(RpcError::Credentials(_)) => {
            Some("start the daemon, if the file is its cookie; else correct login-file=, or the file")
        }
        Trouble::WarmingUp(_) | Trouble::Syncing(_) => Some("wait"),
        Trouble::NoPeers(_) => Some("check the daemon's network: firewall, -connect, -addnode"),
        Trouble::Answer { .. } | Trouble::Rpc(_) => {
            Some("check that host and port of --merged are those of a merged chain's daemon, and see its log")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use sharechain::share::Target;

    fn block(chain_id: u32, target: MergedTarget) -> MergedBlock {
        MergedBlock {
            chain: "doge".into(),
            chain_id,
            hash: [1; 32],
            target,
            previous_block: [2; 32],
            height: 5,
            value: Some(1_000_000_000_000),
            payee: "D8".into(),
        }
    }

    fn report(chain: &str, change: impl FnOnce(&mut Findings)) -> DaemonReport {
        let block = Ok(block(98, MergedTarget::Share));
        let version = "/Shibetoshi:1.14.9/".into();
        let mut findings = Findings { version, download: None, is_address_foreign: false, block, templates: None };
        change(&mut findings);
        DaemonReport {
            chain: chain.into(),
            daemon: "127.0.0.1:22555".into(),
            mode: Mode::Address,
            payee: "D8".into(),
            findings: Ok(findings),
        }
    }

    fn states(checks: &[Check]) -> Vec<State> {
        checks.iter().map(|check| check.state).collect()
    }

    #[test]
    fn a_chain_that_is_mined_is_shown_with_its_payee() {
        let checks = daemon(&report("doge", |_| {}), 1.0);
        assert_eq!(states(&checks), [State::Ok, State::Ok]);
        assert_eq!(checks[0].text, "doge: /Shibetoshi:1.14.9/ at 127.0.0.1:22555");
        assert_eq!(
            checks[1].text,
            "doge: chain number 98, height 5, difficulty that of shares; pays 10000.00000000 to D8 (createauxblock)"
        );
    }

    #[test]
    fn templates_are_reported_and_missed_on_dogecoin_alone() {
        let with = |chain_id, templates| {
            daemon(
                &report("doge", |findings| {
                    findings.block = Ok(block(chain_id, MergedTarget::Share));
                    findings.templates = Some(templates);
                }),
                1.0,
            )
        };
        let able = with(98, Ok(()));
        assert_eq!(able[2].text, "doge: its blocks can pay the miners, once shares are of version 36");
        let refused = Trouble::NoTemplates { message: "Method not found".to_owned() };
        assert_eq!(states(&with(98, Err(refused.clone()))), [State::Ok, State::Ok, State::Warning]);
        assert_eq!(states(&with(1, Err(refused))), [State::Ok, State::Ok]);
    }

    #[test]
    fn a_target_easier_than_every_port_allows_is_a_warning_with_both_difficulties() {
        let with = |floor| {
            let own = MergedTarget::Own(Target::MAX_256);
            daemon(&report("doge", |findings| findings.block = Ok(block(98, own))), floor).remove(1)
        };
        let check = with(0.5);
        assert_eq!(check.state, State::Warning);
        assert!(check.text.contains("easier than the ports' minimum difficulty, 5.00e-1 (bdiff)"), "{}", check.text);
        assert_eq!(with(1e-12).state, State::Ok);
    }

    #[test]
    fn trouble_is_a_warning_with_advice_unless_it_has_its_own() {
        let gone = Trouble::Syncing("downloading".to_owned());
        let missing = DaemonReport { findings: Err(gone.clone()), ..report("doge", |_| {}) };
        let checks = daemon(&missing, 1.0);
        assert_eq!((states(&checks), checks[0].advice.as_deref()), (vec![State::Warning], Some("wait")));
        assert!(checks[0].text.starts_with("doge at 127.0.0.1:22555: "), "{}", checks[0].text);
        let syncing = report("doge", |findings| {
            findings.download = Some((5, 16));
            findings.block = Err(gone);
        });
        let checks = daemon(&syncing, 1.0);
        assert_eq!(states(&checks), [State::Ok, State::Warning]);
        assert!(checks[1].text.contains("5 blocks of 16"), "{}", checks[1].text);
        let wallet = report("doge", |findings| findings.block = Err(Trouble::NoGet));
        assert_eq!(daemon(&wallet, 1.0)[1].advice, None);
    }

    #[test]
    fn a_foreign_address_is_reported_once() {
        let foreign = |block| {
            daemon(
                &report("doge", |findings| {
                    findings.is_address_foreign = true;
                    findings.block = block;
                }),
                1.0,
            )
        };
        let checks = foreign(Ok(block(98, MergedTarget::Share)));
        assert_eq!(states(&checks), [State::Ok, State::Warning, State::Ok]);
        let refused = Trouble::Address { address: stratum::Printable::new("D8"), message: "Invalid".to_owned() };
        assert_eq!(states(&foreign(Err(refused))), [State::Ok, State::Warning]);
    }

    #[test]
    fn a_number_that_a_parents_version_can_have_is_a_warning() {
        let warned = |id| {
            let report = report("doge", |findings| findings.block = Ok(block(id, MergedTarget::Share)));
            mistakable(&report).map(|check| check.state)
        };
        assert_eq!([1, 98, 0x1fff, 0x4000, 0x2000_0000].map(warned), [None; 5]);
        assert_eq!([0x2000, 0x2abc, 0x3fff].map(warned), [Some(State::Warning); 3]);
    }

    #[test]
    fn chains_that_exclude_each_other_are_reported_and_the_first_is_mined() {
        let of = |chain: &str, id| report(chain, |findings| findings.block = Ok(block(id, MergedTarget::Share)));
        assert_eq!(collisions(&[of("a", 98), of("b", 1)]), []);
        let silent = DaemonReport { findings: Err(Trouble::NoGet), ..of("c", 98) };
        let checks = collisions(&[silent, of("a", 98), of("b", 98), of("d", 98 + (1 << 31))]);
        assert_eq!(states(&checks), [State::Warning, State::Warning]);
        assert!(checks[0].text.starts_with("b is left out: two merged chains have the chain number 98"), "{checks:?}");
        assert!(checks[1].text.starts_with("d is left out: these merged chains' numbers"), "{checks:?}");
    }
}
