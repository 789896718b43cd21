//! A node's life: waits while another one runs on its data directory, then serves until it is stopped.
//!
//! A second process on one data directory is the next version of the first: it loads the share chain, follows the pool
//! and bitcoind, and has work ready, so that when the first one ends for any reason, it only has to open the ports.

use anyhow::{Context, Result, bail};
use metrics_exporter_prometheus::PrometheusHandle;
use sharechain::coin::Network;
use sharechain::rules::Layout;
use sharechain::share::{ShareVersion, Target};
use std::sync::Arc;
use std::time::Duration;
use stratum::server::admission::{CLOSING_MAX, Limits};
use tracing::{info, warn};

use super::saved_payout::saved_payout;
use super::{Config, Parts, Ports};
use crate::bitcoind::daemon;
use crate::blocks::journal::Journal;
use crate::chain;
use crate::front::MinerPort;
use crate::merged;
use crate::runtime::clock;
use crate::runtime::data_dir::DataDir;
use crate::runtime::disk::DiskHealth;
use crate::runtime::log::Tail;
use crate::runtime::sockets;
use crate::runtime::tasks::Tasks;
use crate::work::target::of_difficulty;
use crate::work::{self, Payout};

/// Minimum height of a chain at which the next block pays a window: before version 36, that begins at the grandparent.
const WINDOW_BEGINS: u32 = 2;

/// The same from version 36 on, whose windows begin at the parent (protocol-v36 section 4.1).
const FADING_WINDOW_BEGINS: u32 = 1;

/// Open files that are no connection of a miner, a reader or a peer: daemon, share store, logs, listeners.
const OWN_FILES: usize = 192;

/// Pause between requests to the daemon's wallet for an address.
const WALLET_PAUSE: Duration = Duration::from_secs(3);

/// Runs a node on `data_dir` until `stop`.
///
/// # Errors
/// The node cannot be started: a port is taken, a file cannot be read or written, or there is no payout address.
pub async fn run(
    mut config: Config,
    data_dir: DataDir,
    log: Tail,
    disk: DiskHealth,
    metrics: PrometheusHandle,
    tasks: &Tasks,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = std::pin::pin!(stop);
    let network = config.network;
    warn_of_visible_secrets(&config.visible_secrets);
    warn_of_open_files(&config, &data_dir);
    raise_file_limit(&mut config);
    if !data_dir.is_ours() {
        wait_for_turn(&data_dir, tasks);
    }
    let journal = Journal::open(Arc::default(), &data_dir, disk.clone()).context("cannot keep found blocks")?;
    let daemon = daemon::start(config.daemon.clone(), network, journal, tasks).await?;
    let default_payout = match known_payout(&config)? {
        Some(payout) => payout,
        None => tokio::select! {
            payout = wallet_payout(&config.daemon, network) => payout?,
            () = &mut stop => return Ok(()),
        },
    };
    if let Some(warning) = default_payout.merged_warning() {
        warn!("{warning}");
    }
    let ports = Ports::open(&config.front, &data_dir)?;
    let floor = easiest_target(&config);
    let merged = merged::start(&config.merged, floor, &data_dir, &disk, tasks).context("cannot mine merged chains")?;
    // Until the first work says what the next share can.
    merged.pays_miners.send_replace(network.newest_version >= ShareVersion::V36.number());
    let sharechain = super::load_sharechain(network, &data_dir, config.old_shares, &daemon, &disk, tasks).await?;
    warn_of_short_chain(&sharechain.0);
    let work = work::Config {
        network,
        default_payout,
        fee_percent: config.fee_percent,
        donation_percent: config.donation_percent,
        coinbase_texts: config.coinbase_texts,
        merged_pause: config.merged.pause,
        clock: clock::unix_second,
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        network = network.name,
        address = %format_args!("{:#}", work.default_payout),
        fee_percent = work.fee_percent,
        data_dir = %data_dir.path().display(),
        "P2Pool starts"
    );
    let parts = Parts {
        data_dir,
        disk,
        start_pool: config.start_pool,
        ports,
        web_static: config.front.web_static,
        web_hosts: config.web_hosts,
        work,
        stratum: config.stratum,
        merged,
        sharechain,
        p2p: Some(config.p2p),
        announce: config.announce,
        log,
        metrics,
    };
    let node = super::start(parts, daemon, tasks);
    stop.await;
    info!("stopping");
    // The last handle to the queue of blocks: the submitter ends when all senders are gone.
    drop(node);
    tasks.drain(super::GRACE).await;
    info!("stopped");
    Ok(())
}

/// Easiest target that the miners' ports let miners submit for, where their names do not ask for less.
fn easiest_target(config: &Config) -> Target {
    let session = config.stratum.session;
    let easiest = |port: &MinerPort| of_difficulty(port.policy.session(session).vardiff.min);
    config.front.miners.iter().map(easiest).max().unwrap_or(Target::MAX_256)
}

/// Warns of secrets that stand on the command line.
fn warn_of_visible_secrets(options: &[&str]) {
    for option in options {
        warn!(
            option,
            "a secret stands on the command line, where others on this machine can read it: the environment, a \
             configuration file or @FILE keep it to yourself"
        );
    }
}

/// Warns of a data directory or log file that others can read, or the group cannot although it should.
fn warn_of_open_files(config: &Config, data_dir: &DataDir) {
    let folder = data_dir.path();
    let log_elsewhere = config.log.logfile.as_deref().filter(|path| !path.starts_with(folder));
    for path in [Some(folder), log_elsewhere].into_iter().flatten() {
        if let Some(problem) = data_dir.access().problem(path) {
            warn!(path = %path.display(), mode = format!("{:o}", problem.mode), fix = problem.fix, "{}", problem.text);
        }
    }
}

/// Open files that `config` needs besides the connections at its ports for miners and pages, which so can take none of
/// them from the daemon, the disk and the peers.
pub fn files_reserved(config: &Config) -> usize {
    let peers = config.p2p.incoming_max.saturating_add(config.p2p.outgoing + config.p2p.nodes.len());
    // Each request may read a file of the operator's pages.
    let pages = config.front.web_static.as_ref().map_or(0, |_| config.stratum.limits.http_max);
    peers.saturating_add(OWN_FILES + CLOSING_MAX).saturating_add(pages)
}

/// Raises the limit of open files as far as the system allows, and fits the number of connections to it.
fn raise_file_limit(config: &mut Config) {
    let reserved = files_reserved(config);
    match sockets::raise_file_limit() {
        Ok(files) => fit_connections(&mut config.stratum.limits, files, reserved),
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
}

/// Lowers the limit of connections to what a limit of `files` open files (`None` is unlimited) leaves beside the
/// `reserved` ones.
fn fit_connections(limits: &mut Limits, files: Option<u64>, reserved: usize) {
    let files_max = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    let room = files_max.saturating_sub(reserved).max(1);
    if limits.connections_max > room {
        warn!(
            files,
            reserved,
            served = room,
            asked = limits.connections_max,
            "fewer connections of miners than --max-connections are served: this process may not have more files open \
             (ulimit -n, LimitNOFILE=)"
        );
        limits.connections_max = room;
    }
    // Readers of pages never take all places.
    limits.http_max = limits.http_max.min(limits.connections_max.div_ceil(2));
}

/// Logs which process holds the data directory, and takes it over when that ends.
fn wait_for_turn(data_dir: &DataDir, tasks: &Tasks) {
    let path = data_dir.path().display().to_string();
    match data_dir.holder_pid() {
        Some(pid) => info!(
            pid,
            data_dir = path,
            "another p2pool runs on this data directory: this one gets ready, waits for it, and takes over when it ends"
        ),
        None => info!(
            data_dir = path,
            "another process has this data directory: this one gets ready, waits for it, and takes over when it ends"
        ),
    }
    let (data_dir, stop) = (data_dir.clone(), tasks.stop_signal());
    tasks.spawn("takeover", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = data_dir.clone().take_over() => info!(data_dir = path, "the other process has ended: taking over"),
        }
    });
}

/// Returns the payout address that the operator gave, or else that of an old node.
fn known_payout(config: &Config) -> Result<Option<Payout>> {
    if let Some(payout) = &config.address {
        return Ok(Some(payout.clone()));
    }
    let saved = saved_payout(&config.data_dir, config.network).context("the payout address of an old node")?;
    if let Some(payout) = &saved {
        warn!(address = %payout.address, "paying the address imported from an old node; -a chooses another");
    }
    Ok(saved)
}

/// Requests an address of the daemon's wallet, once the daemon answers.
async fn wallet_payout(config: &daemon::Config, network: &'static Network) -> Result<Payout> {
    let mut reported = String::new();
    loop {
        match daemon::wallet_address(config, network).await {
            Ok(Some(text)) => {
                return Ok(Payout::to_address(&text, network)?);
            }
            Ok(None) => bail!(
                "bitcoind has no wallet to take a payout address from: say with -a ADDRESS who is to be paid when a \
                 miner's user name is no address"
            ),
            Err(error) => {
                let error = error.to_string();
                if error != reported {
                    warn!(%error, "waiting for bitcoind's wallet to give a payout address (or restart with -a ADDRESS)");
                    reported = error;
                }
            }
        }
        tokio::time::sleep(WALLET_PAUSE).await;
    }
}

/// Logs that blocks pay little or nothing to miners while the share chain has hardly begun.
fn warn_of_short_chain(sharechain: &chain::Handle) {
    let warning = sharechain.tips.borrow().as_ref().and_then(|tip| short_chain(tip.height(), tip.version()));
    if let Some(warning) = warning {
        warn!("{warning}");
    }
}

/// Warning of a chain so short, at `height`, that the block of a share of `version` on top of it pays no window.
fn short_chain(height: u32, version: ShareVersion) -> Option<&'static str> {
    match version.rules().layout {
        Layout::Classic => (height < WINDOW_BEGINS).then_some(
            "the share chain is empty: by P2Pool's rules a block found before its third share pays almost everything to \
             the donation address of P2Pool's author",
        ),
        Layout::Merged => (height < FADING_WINDOW_BEGINS).then_some(
            "the share chain is empty: by the rules of share version 36 a block found with its first share pays \
             everything to the donation address of P2Pool's authors",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stratum::server::PortPolicy;

    #[test]
    fn connections_are_limited_to_what_open_files_leave_room_for() {
        let served = |asked, files| {
            let mut limits = Limits { connections_max: asked, ..Limits::default() };
            fit_connections(&mut limits, files, 256);
            (limits.connections_max, limits.http_max)
        };
        assert_eq!(served(50_000, None), (50_000, 4096));
        assert_eq!(served(50_000, Some(1_048_576)), (50_000, 4096));
        assert_eq!(served(50_000, Some(4096)), (4096 - 256, 1920));
        assert_eq!(served(50_000, Some(10)), (1, 1));
    }

    #[test]
    fn a_chain_is_short_until_the_next_block_pays_a_window() {
        let warned = |version| [0, 1, 2].map(|height| short_chain(height, version).is_some());
        assert_eq!(warned(ShareVersion::V35), [true, true, false]);
        assert_eq!(warned(ShareVersion::V36), [true, false, false]);
        assert!(short_chain(0, ShareVersion::V36).unwrap().contains("pays everything"));
    }

    #[test]
    fn the_port_for_the_smallest_devices_decides_which_targets_are_too_easy() {
        let mut config = Config::on(&sharechain::coin::BITCOIN_REGTEST, "data".into());
        let own = config.stratum.session.vardiff.min;
        assert_eq!(easiest_target(&config), of_difficulty(own));
        let policy = |min| PortPolicy { min: Some(min), ..PortPolicy::default() };
        config.front.miners[0].policy = policy(8.0);
        config.front.miners.push(MinerPort { policy: policy(0.5), ..config.front.miners[0].clone() });
        let easiest = stratum::Target::from_le_bytes(easiest_target(&config).to_le_bytes());
        let half = config.stratum.session.difficulty_scale.read(0.5).unwrap();
        assert!((easiest.difficulty() / half.get() - 1.0).abs() < 1e-9, "{easiest:?}");
    }

    #[test]
    fn what_peers_and_pages_need_is_reserved() {
        let mut config = Config::on(&sharechain::coin::BITCOIN_REGTEST, "data".into());
        let reserved = files_reserved(&config);
        config.p2p.incoming_max += 100;
        assert_eq!(files_reserved(&config), reserved + 100);
        config.front.web_static = Some("pages".into());
        assert_eq!(files_reserved(&config), reserved + 100 + config.stratum.limits.http_max);
    }
}
