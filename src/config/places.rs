//! Which node: its network, its data directory, its configuration file.

use clap::Args;
use sharechain::coin::{self, Network};
use std::fs;
use std::path::{Path, PathBuf};

use super::problems::Problems;

/// The option that names the configuration file.
pub(super) const FILE_OPTION: &str = "config";

/// Which network.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// The network: bitcoin, bitcoin_testnet, bitcoin_testnet4, bitcoin_signet, bitcoin_regtest, litecoin,
    /// litecoin_testnet, litecoin_regtest; or a file with the constants of another one.
    #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", value_parser = net)]
    net: Net,
}

/// Which node.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// A TOML file with options of the node by their names. The command line and the environment win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Short for the network's test network: `--net bitcoin --testnet` is `--net bitcoin_testnet`.
    #[arg(long)]
    testnet: bool,
    /// The node's data directory, with a folder per network: found blocks, shares, the log.
    #[arg(long, value_name = "DIR", default_value = "data")]
    datadir: PathBuf,
}

/// What stands after `--net`.
#[derive(Debug, Clone)]
enum Net {
    /// A network that is built in, or whose test network is.
    BuiltIn(String),
    /// The one that a file describes.
    OfFile(&'static Network),
}

impl NetworkArgs {
    pub(super) fn find(&self, testnet: bool) -> Result<&'static Network, String> {
        match (&self.net, testnet) {
            (Net::BuiltIn(name), true) => built_in(&format!("{name}_testnet")),
            (Net::BuiltIn(name), false) => built_in(name),
            (Net::OfFile(network), false) => Ok(network),
            (Net::OfFile(_), true) => Err("--testnet does not go with a network's file".to_owned()),
        }
    }
}

impl PlaceArgs {
    /// The network and its own folder.
    pub(super) fn find(&self, problems: &mut Problems) -> Option<(&'static Network, PathBuf)> {
        let network = problems.take("net", self.network.find(self.testnet))?;
        // Nothing can be said of a node on another network than it is to be on.
        (!problems.is_wrong("net")).then(|| (network, self.datadir.join(network.name)))
    }
}

fn built_in(name: &str) -> Result<&'static Network, String> {
    coin::by_name(name).ok_or_else(|| {
        let known = coin::ALL.iter().map(|network| network.name).collect::<Vec<_>>().join(", ");
        format!("no network `{name}`; there are {known}, and files whose names end in .toml")
    })
}

fn net(text: &str) -> Result<Net, String> {
    let is_file = Path::new(text).extension().is_some_and(|extension| extension == "toml");
    match built_in(text).or_else(|error| built_in(&format!("{text}_testnet")).map_err(|_| error)) {
        Ok(_) => Ok(Net::BuiltIn(text.to_owned())),
        Err(_) if is_file => of_file(text),
        Err(error) => Err(error),
    }
}

fn of_file(name: &str) -> Result<Net, String> {
    let text = fs::read_to_string(name).map_err(|error| format!("cannot read `{name}`: {error}"))?;
    match coin::from_toml(&text) {
        // Read two or three times in the life of the process, and kept as the tables are that it stands for.
        Ok(network) => Ok(Net::OfFile(Box::leak(Box::new(network)))),
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(|error| format!("{name}: {error}")).collect();
            Err(errors.join("; "))
        }
    }
}
