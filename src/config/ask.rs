//! Arguments of the commands that query or control a running node.

use bitcoin::BlockHash;
use clap::{Args, Subcommand};
use std::net::IpAddr;
use std::time::Duration;

use super::Config;
use super::places::PlaceArgs;
use super::problems::Problems;
use super::values::{block_hash, ip_address, number, seconds};
use crate::tools::top;
use crate::view::control::client as control;
use crate::view::control::{BAN_HOURS_MAX, Request};

/// Arguments common to these commands.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl AskArgs {
    pub(super) fn config(&self, request: Request, problems: &mut Problems) -> Option<Config> {
        let (_, data_dir) = self.place.find(problems)?;
        Some(Config::Control(control::Config { data_dir, request, json: self.json }))
    }
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BlocksArgs {
    #[command(subcommand)]
    command: Option<BlocksCommand>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Subcommand)]
enum BlocksCommand {
    /// Submit a block again by every route, and show each result. The node keeps a block's bytes until it is mature or
    /// lost by as many blocks as its coin asks for (100 on Bitcoin).
    Resubmit {
        /// Hash of the block, as listed by `p2pool blocks`.
        #[arg(value_name = "HASH", value_parser = block_hash)]
        hash: BlockHash,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print a block in hex, for any bitcoind: `p2pool blocks export HASH | bitcoin-cli -stdin submitblock`. Of a
    /// merged chain's block, print the proof of work. Reads the data directory; no running node is needed.
    Export {
        /// Hash of the block, as listed by `p2pool blocks`.
        #[arg(value_name = "HASH", value_parser = block_hash)]
        hash: BlockHash,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

impl BlocksArgs {
    pub(super) fn config(self, problems: &mut Problems) -> Option<Config> {
        match self.command {
            None => self.ask.config(Request::Blocks, problems),
            Some(BlocksCommand::Resubmit { hash, ask }) => ask.config(Request::Resubmit { hash }, problems),
            Some(BlocksCommand::Export { hash, place }) => {
                let (_, data_dir) = place.find(problems)?;
                Some(Config::ExportBlock { data_dir, hash })
            }
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Refresh interval, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds(0.2..=3600.0),
          allow_negative_numbers = true)]
    interval: Duration,
    /// Print one snapshot as text and exit.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    ask: AskArgs,
}

impl TopArgs {
    pub(super) fn config(&self, problems: &mut Problems) -> Option<Config> {
        let (_, data_dir) = self.ask.place.find(problems)?;
        Some(Config::Top(top::Config { data_dir, interval: self.interval, json: self.ask.json, once: self.once }))
    }
}

#[derive(Debug, Args)]
pub(super) struct BanArgs {
    /// Address to ban; an IPv6 address stands for its /64.
    #[arg(value_name = "ADDRESS", value_parser = ip_address)]
    address: IpAddr,
    /// Duration of the ban, in hours.
    #[arg(long, value_name = "N", default_value = "24", value_parser = number(0.0..=BAN_HOURS_MAX),
          allow_negative_numbers = true)]
    hours: f64,
    /// Reason shown by `p2pool bans`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    ask: AskArgs,
}

impl BanArgs {
    pub(super) fn config(self, problems: &mut Problems) -> Option<Config> {
        let request = Request::Ban { address: self.address, hours: self.hours, reason: self.reason };
        self.ask.config(request, problems)
    }
}

#[derive(Debug, Args)]
pub(super) struct UnbanArgs {
    /// Address to unban, or `all`.
    #[arg(value_name = "ADDRESS|all", value_parser = unban)]
    address: Request,
    #[command(flatten)]
    ask: AskArgs,
}

impl UnbanArgs {
    pub(super) fn config(self, problems: &mut Problems) -> Option<Config> {
        self.ask.config(self.address, problems)
    }
}

fn unban(text: &str) -> Result<Request, String> {
    if text == "all" { Ok(Request::UnbanAll) } else { ip_address(text).map(|address| Request::Unban { address }) }
}
