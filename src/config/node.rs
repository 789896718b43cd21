//! Options of a node.

use clap::Args;
use sharechain::coin;
use std::path::PathBuf;

use super::daemon::{self, CREDENTIALS, PASSWORD};
use super::options::{Given, Opt, Part, within};
use super::places::PlaceArgs;
use super::problems::Problems;
use super::{announcing, front, log, merged, miners, peers, values};
use crate::node::Config;
use crate::runtime::access::Access;
use crate::work;
use crate::work::username::operators_payout;

/// Options with a secret: masked by `config check`, and reported if they stand on the command line.
pub(super) const SECRETS: [&str; 4] = [PASSWORD, CREDENTIALS, announcing::HOOK, announcing::WEBHOOK];

/// Options of a node.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    given: Given<Config>,
    /// bitcoind's RPC user and password, or the password alone. Other users can read arguments in the process list:
    /// prefer P2POOL_RPC_USER and P2POOL_RPC_PASSWORD, bitcoin.conf or the cookie.
    #[arg(value_name = "[USER] PASSWORD", num_args = 0.., conflicts_with = PASSWORD)]
    credentials: Vec<String>,
}

impl NodeArgs {
    /// Returns the node's configuration. All options are checked, even after an error.
    pub(super) fn node(&self, problems: &mut Problems) -> Option<Config> {
        let (network, data_dir) = self.place.find(problems)?;
        let mut config = Config::on(network, data_dir);
        self.given.apply(&mut config, problems);
        daemon::login(&self.credentials, &mut config.daemon, problems);
        front::check(&config.front, problems);
        miners::check(&config.stratum, problems);
        check_texts_beside_merged(&config, problems);
        let has_password = config.merged.chains.iter().any(merged::is_fixed);
        let secrets = SECRETS.into_iter().chain(has_password.then_some(merged::CHAINS));
        config.visible_secrets = secrets.filter(|option| problems.is_on_command_line(option)).collect();
        Some(config)
    }
}

impl Part for Config {
    fn base() -> Self {
        Self::on(&coin::BITCOIN, PathBuf::new())
    }

    fn options() -> Vec<Opt<Self>> {
        let log = within(log::options(), |config: &mut Self| &mut config.log);
        let front = within(front::options(), |config: &mut Self| &mut config.front);
        let load = within(miners::load(), |config: &mut Self| &mut config.stratum);
        let peers = within(peers::options(), |config: &mut Self| &mut config.p2p);
        let merged = within(merged::options(), |config: &mut Self| &mut config.merged);
        let daemon = within(daemon::options(), |config: &mut Self| &mut config.daemon);
        let serving = within(miners::serving(), |config: &mut Self| &mut config.stratum);
        log.chain(own())
            .chain(front)
            .chain([web_host()])
            .chain(payouts())
            .chain(load)
            .chain([no_local_exemption()])
            .chain(peers)
            .chain([start_pool()])
            .chain(daemon)
            .chain(merged)
            .chain(serving)
            .chain(announcing::options())
            .collect()
    }
}

fn own() -> Vec<Opt<Config>> {
    vec![
        Opt::flag("datadir-group-access", |config: &mut Config| config.access = Access::Group).help(
            "Let the group of the user that runs the node read the data directory and the log (modes 750 and 640 instead \
             of 700 and 600) and use the control socket",
        ),
        Opt::setter("address", "ADDRESS", values::text, |config: &mut Config, text| {
            let payout = operators_payout(&text, config.network).map_err(|refusal| refusal.0)?;
            config.address = Some(payout);
            Ok(())
        })
        .short('a')
        .help(
            "Payout address for miners whose user name is not an address; where shares name miners on a merged chain, an \
             address there may follow (LTC_ADDRESS,DOGE_ADDRESS) instead of one with the same key [default: an address \
             of bitcoind's wallet, if it has one]",
        ),
        Opt::path("old-shares", "DIR", |config: &mut Config, folder| config.old_shares = Some(folder)).help(
            "Data directory of an old P2Pool node (with files shares.0, shares.1, …) to import shares from at startup",
        ),
        Opt::list("coinbtext", "TEXT", None, coinbase_text, |config: &mut Config, texts| {
            work::check_texts(&texts, false).map_err(|error| error.to_string())?;
            config.coinbase_texts = texts;
            Ok(())
        })
        .help("Text for the coinbase of your blocks; may be given several times"),
    ]
}

fn payouts() -> Vec<Opt<Config>> {
    vec![
        Opt::number("fee", "PERCENT", 0.0..=100.0, |config: &mut Config| &mut config.fee_percent)
            .short('f')
            .help("Percentage of the miners' work that pays you instead"),
        Opt::number("give-author", "PERCENT", 0.0..=100.0, |config: &mut Config| &mut config.donation_percent).help(
            "Percentage of your miners' payouts donated to the author of the original P2Pool (whose default was 0.5)",
        ),
    ]
}

fn web_host() -> Opt<Config> {
    Opt::list("web-host", "NAME", Some(','), values::host_name, |config: &mut Config, names| {
        config.web_hosts = names;
        Ok(())
    })
    .help(
        "Name at which browsers may do more than read, beside addresses and this machine's own name; miners may use any; \
         may be given several times",
    )
}

fn start_pool() -> Opt<Config> {
    Opt::flag("start-pool", |config: &mut Config| config.start_pool = true).help(
        "Serve work without peers and before the pool's shares are downloaded; only for the first node of a new pool",
    )
}

fn no_local_exemption() -> Opt<Config> {
    Opt::flag("no-local-exemption", |config: &mut Config| config.stratum.limits.exempts_loopback = false).help(
        "Limit miners and readers from this machine, too: behind a Tor service or an SSH tunnel, everyone connects from it",
    )
}

fn coinbase_text(text: &str) -> Result<String, String> {
    let texts = [text.to_owned()];
    work::check_texts(&texts, false).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Reports texts that leave no room for the commitment to merged chains.
fn check_texts_beside_merged(config: &Config, problems: &mut Problems) {
    if !config.merged.chains.is_empty() {
        let checked = work::check_texts(&config.coinbase_texts, true);
        problems.take("coinbtext", checked.map_err(|error| error.to_string()));
    }
}
