//! Options that select a node: network, data directory, configuration file.

use clap::Args;
use sharechain::coin::{self, Network};
use std::fs;
use std::path::{Path, PathBuf};

use super::problems::Problems;

/// Option of the configuration file.
pub(super) const FILE_OPTION: &str = "config";

/// Option of the network.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// Network: bitcoin, bitcoin_testnet, bitcoin_testnet4, bitcoin_signet, bitcoin_regtest, litecoin,
    /// litecoin_testnet, litecoin_regtest, or a TOML file with the constants of another one.
    #[arg(long, value_name = "NAME|FILE", default_value = "bitcoin", value_parser = net)]
    net: Net,
}

/// Options that select a node.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// TOML file with the node's options; the command line and the environment take precedence.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Use the network's test network: `--net bitcoin --testnet` is `--net bitcoin_testnet`.
    #[arg(long)]
    testnet: bool,
    /// Data directory, with a folder per network for found blocks, shares and the log.
    #[arg(long, value_name = "DIR", default_value = "data")]
    datadir: PathBuf,
}

/// Value of `--net`.
#[derive(Debug, Clone)]
enum Net {
    /// Built-in network, or the name of one that only has a built-in test network.
    BuiltIn(String),
    /// Network described by a file.
    OfFile(&'static Network),
}

impl NetworkArgs {
    pub(super) fn find(&self, testnet: bool) -> Result<&'static Network, String> {
        match (&self.net, testnet) {
            (Net::BuiltIn(name), true) => built_in(&format!("{name}_testnet")),
            (Net::BuiltIn(name), false) => built_in(name),
            (Net::OfFile(network), false) => Ok(network),
            (Net::OfFile(_), true) => Err("--testnet does not go with a network file".to_owned()),
        }
    }
}

impl PlaceArgs {
    /// Returns the network and its data directory.
    pub(super) fn find(&self, problems: &mut Problems) -> Option<(&'static Network, PathBuf)> {
        let network = problems.take("net", self.network.find(self.testnet))?;
        // After an error in the network, checks of the node would use the wrong one.
        (!problems.is_wrong("net")).then(|| (network, self.datadir.join(network.name)))
    }
}

fn built_in(name: &str) -> Result<&'static Network, String> {
    coin::by_name(name).ok_or_else(|| {
        let known = coin::ALL.iter().map(|network| network.name).collect::<Vec<_>>().join(", ");
        format!("unknown network `{name}`: expected one of {known}, or a .toml file")
    })
}

/// Parses the network of a tool, as `--net` names it.
pub(super) fn network(text: &str) -> Result<&'static Network, String> {
    NetworkArgs { net: net(text)? }.find(false)
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
        // Leaked, as built-in networks are static; the file is read two or three times in the life of the process.
        Ok(network) => Ok(Net::OfFile(Box::leak(Box::new(network)))),
        Err(errors) => {
            let errors: Vec<String> = errors.iter().map(|error| format!("{name}: {error}")).collect();
            Err(errors.join("; "))
        }
    }
}
