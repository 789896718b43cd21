//! Constant tables, one per network: P2Pool's constants, the parent chain's identifiers and ports, and our own ports.
//!
//! Public networks use P2Pool's values (protocol section 1): a node with a different table is on a different network.

use crate::rules::ShareVersion;
use ruint::aliases::U256;

pub mod address;
mod file;
mod merged_chain;
mod tables;

pub use file::{FieldError, from_toml};
pub use merged_chain::{DOGECOIN, DOGECOIN_TESTNET, MergedChain};
pub use tables::{
    BITCOIN, BITCOIN_REGTEST, BITCOIN_SIGNET, BITCOIN_TESTNET, BITCOIN_TESTNET4, DEMO, LITECOIN, LITECOIN_REGTEST,
    LITECOIN_TESTNET,
};

/// Proof-of-work hash of a header. A block's and a share's *name* is sha256d on every coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pow {
    /// SHA-256 twice.
    Sha256d,
    /// scrypt with N = 1024, r = 1, p = 1 and the header as both password and salt.
    Scrypt,
}

impl Pow {
    /// Returns the function that hashes a header to a raw digest, in the hash function's byte order.
    pub fn function(self) -> fn(&[u8; 80]) -> [u8; 32] {
        match self {
            Self::Sha256d => sha256d,
            Self::Scrypt => scrypt_1024,
        }
    }
}

fn sha256d(header: &[u8; 80]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(Sha256::digest(header)).into()
}

fn scrypt_1024(header: &[u8; 80]) -> [u8; 32] {
    // 2^10 = 1024.
    let params = scrypt::Params::new(10, 1, 1).expect("constant parameters, within scrypt's limits");
    let mut hash = [0; 32];
    scrypt::scrypt(header, header, &params, &mut hash).expect("32 bytes is a length that scrypt can give");
    hash
}

/// Block subsidy in base units, halved at intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subsidy {
    /// Subsidy of the first blocks, in base units.
    pub initial: u64,
    /// Blocks between halvings.
    pub halving_interval: u32,
}

impl Subsidy {
    /// Subsidy of a coin whose function is not known here: no reward counts as too high. Only shares below version 34
    /// are judged by it.
    pub const UNKNOWN: Self = Self { initial: u64::MAX, halving_interval: u32::MAX };

    /// Returns the subsidy of the block at `height`, in base units.
    pub fn at(self, height: u32) -> u64 {
        self.halved(u64::from(height))
    }

    /// P2Pool's `SUBSIDY_FUNC(height)`, which halves one block early when given a block's own height (trap 51). The
    /// excess-reward rule of share versions below 34 uses it.
    pub fn one_block_early(self, height: u32) -> u64 {
        self.halved(u64::from(height) + 1)
    }

    fn halved(self, height: u64) -> u64 {
        let halvings = u32::try_from(height / u64::from(self.halving_interval.max(1))).unwrap_or(u32::MAX);
        self.initial.checked_shr(halvings).unwrap_or(0)
    }
}

/// The parent chain: the coin whose blocks are mined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Ticker symbol, for display.
    pub symbol: &'static str,
    /// Message magic of the coin's P2P protocol, in wire order.
    pub magic: [u8; 4],
    /// Default P2P port of the daemon.
    pub p2p_port: u16,
    /// Default RPC port of the daemon.
    pub rpc_port: u16,
    /// Chain name in `getblockchaininfo`.
    pub rpc_chain: &'static str,
    /// The daemon's data directory below the user's home.
    pub data_folder: &'static str,
    /// The daemon's data directory below `~/Library/Application Support` on macOS.
    pub data_folder_macos: &'static str,
    /// The daemon's configuration file in its data directory.
    pub conf_name: &'static str,
    /// The chain's section in the configuration file.
    pub conf_section: &'static str,
    /// Folder of the chain below the daemon's data directory; empty for the main chain.
    pub datadir_folder: &'static str,
    /// Daemon option that selects this chain, for messages.
    pub daemon_option: &'static str,
    /// Version byte of base58 P2PKH addresses.
    pub address_version: u8,
    /// Version byte of base58 P2SH addresses.
    pub address_p2sh_version: u8,
    /// Version byte of an older spelling of P2SH addresses, which daemons still accept and shares never did.
    pub address_p2sh_version_old: Option<u8>,
    /// Human-readable part of segwit addresses (BIP 173).
    pub human_readable_part: &'static str,
    /// Hash of block 0, in display order.
    pub genesis: &'static str,
    /// Rules that `getblocktemplate` must be asked with (BIP 9).
    pub template_rules: &'static [&'static str],
    /// Value of `algo` in requests for templates, on a coin with several proofs of work.
    pub template_algo: Option<&'static str>,
    /// Oldest daemon version known to build valid blocks here, as in `getnetworkinfo`.
    pub version_min: u32,
    /// Expected seconds between blocks.
    pub block_period: u32,
    /// Proof-of-work hash.
    pub pow: Pow,
    /// Block subsidy.
    pub subsidy: Subsidy,
    /// Easiest and hardest difficulty for miners, as targets, lowest first.
    pub sane_target_range: (U256, U256),
    /// Factor applied to difficulties sent to miners (scrypt's are 65,536 times Bitcoin's).
    pub dumb_scrypt_diff: u32,
    /// Expected payout of a share, in base units, below which a miner gets harder shares.
    pub dust_threshold: u64,
    /// Largest stripped block in bytes.
    pub block_max_size: u32,
    /// Largest block in weight units.
    pub block_max_weight: u32,
}

/// A network that this node can serve: a parent chain, and the share chain's constants on top of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Name in `--net`.
    pub name: &'static str,
    /// Parent chain.
    pub parent: Parent,
    /// Part of every share's hash, so that shares of one network are void on another.
    pub identifier: [u8; 8],
    /// Message magic of the share network, in wire order.
    pub prefix: [u8; 8],
    /// Default port for share peers.
    pub p2p_port: u16,
    /// Default port for miners, see `--worker-port`.
    pub worker_port: u16,
    /// Target seconds between shares.
    pub share_period: u32,
    /// Shares that a chain needs before it is judged by work; votes are counted over as many.
    pub chain_length: u32,
    /// Maximum length of the payout window, in shares.
    pub real_chain_length: u32,
    /// Shares over which the retarget measures the pool's rate.
    pub target_lookbehind: u32,
    /// Maximum work in the payout window, in blocks.
    pub spread: u32,
    /// Hardest target that the retarget may set.
    pub min_target: U256,
    /// Easiest target of a share.
    pub max_target: U256,
    /// True for a public network: no work without peers.
    pub persist: bool,
    /// Protocol version that nodes of the network announce.
    pub protocol_version: u32,
    /// Lowest accepted protocol version of a peer; rises with the share version (protocol section 5.5).
    pub minimum_protocol_version: u32,
    /// First share version with segwit data; 0: none.
    pub segwit_activation_version: u64,
    /// Newest share version of the network: a share of a newer one is unknown there.
    pub newest_version: u64,
    /// Chain whose blocks can pay the miners of shares of version 36, on a network that has them:
    /// [`Network::paid_merged_chain`].
    pub merged_chain: Option<&'static MergedChain>,
    /// Version of the first share on a new network.
    pub start_version: u64,
    /// Addresses of the first peers: `host` or `host:port`.
    pub bootstrap_addresses: &'static [&'static str],
    /// Soft forks that templates may have active and that this code builds correct blocks for. An unlisted rule stops
    /// work: blocks might be invalid in a way unknown to this code.
    pub known_rules: &'static [&'static str],
    /// Initial difficulty (bdiff) of a connection whose miner's hash rate is unknown.
    pub start_difficulty: f64,
}

impl Network {
    /// Version that votes can switch the chain to after `version`, if the network has it.
    pub fn successor(&self, version: ShareVersion) -> Option<ShareVersion> {
        version.rules().successor.filter(|next| next.number() <= self.newest_version)
    }

    /// Merged chain on which shares may name their miner's script; `None` before version 36 (protocol-v36 section 8.1).
    pub fn paid_merged_chain(&self) -> Option<&'static MergedChain> {
        self.merged_chain.filter(|_| self.newest_version >= ShareVersion::V36.number())
    }

    /// True if a share may follow one of its successor's version without any vote (protocol-v36 section 2.1).
    pub fn has_steps_back(&self) -> bool {
        self.newest_version >= ShareVersion::V36.number()
    }

    /// True if honest nodes of the network check less than this one does, so that they pass on shares which this one must
    /// refuse: c2pool, on networks with share version 36 (protocol-v36 traps 20 to 28). Their senders are
    /// not banned for it.
    pub fn has_laxer_nodes(&self) -> bool {
        self.newest_version >= ShareVersion::V36.number()
    }
}

/// Networks available in `--net`. The demo network is reached by its own subcommand.
pub const ALL: &[&Network] = &[
    &BITCOIN,
    &BITCOIN_TESTNET,
    &BITCOIN_TESTNET4,
    &BITCOIN_SIGNET,
    &BITCOIN_REGTEST,
    &LITECOIN,
    &LITECOIN_TESTNET,
    &LITECOIN_REGTEST,
];

/// Looks up a network by its name in `--net`.
pub fn by_name(name: &str) -> Option<&'static Network> {
    ALL.iter().copied().find(|network| network.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::constants::genesis_block;

    #[test]
    fn parent_constants_agree_with_the_bitcoin_package() {
        let kinds = [
            (&BITCOIN, bitcoin::Network::Bitcoin),
            (&BITCOIN_TESTNET, bitcoin::Network::Testnet),
            (&BITCOIN_TESTNET4, bitcoin::Network::Testnet4),
            (&BITCOIN_SIGNET, bitcoin::Network::Signet),
            (&BITCOIN_REGTEST, bitcoin::Network::Regtest),
            (&DEMO, bitcoin::Network::Regtest),
        ];
        for (ours, theirs) in kinds {
            assert_eq!(ours.parent.magic, theirs.magic().to_bytes(), "{}", ours.name);
            assert_eq!(ours.parent.genesis, genesis_block(theirs).block_hash().to_string(), "{}", ours.name);
            assert_eq!(ours.parent.rpc_chain, theirs.to_core_arg(), "{}", ours.name);
        }
    }

    #[test]
    fn names_ports_and_identifiers_are_unique() {
        for (index, network) in ALL.iter().enumerate() {
            assert_eq!(by_name(network.name).map(|found| found.name), Some(network.name));
            for other in &ALL[index + 1..] {
                let names = format!("{} and {}", network.name, other.name);
                assert_ne!(network.worker_port, other.worker_port, "{names}");
                assert_ne!(network.p2p_port, other.p2p_port, "{names}");
                assert_ne!(network.identifier, other.identifier, "{names}");
                assert_ne!(network.prefix, other.prefix, "{names}");
            }
        }
    }

    #[test]
    fn litecoins_networks_announce_the_protocol_of_version_36_and_have_laxer_nodes() {
        for network in ALL.iter().chain(&[&DEMO]) {
            let is_litecoin = network.name.starts_with("litecoin");
            assert_eq!(network.protocol_version, if is_litecoin { 3600 } else { 3502 }, "{}", network.name);
            assert_eq!(network.has_laxer_nodes(), is_litecoin, "{}", network.name);
            assert!(network.minimum_protocol_version <= network.protocol_version, "{}", network.name);
        }
    }

    #[test]
    fn shares_of_litecoins_networks_name_dogecoins_scripts_once_they_have_version_36() {
        for network in ALL.iter().chain(&[&DEMO]) {
            let of_36 = Network { newest_version: 36, ..(*network).clone() };
            let of_35 = Network { newest_version: 35, ..(*network).clone() };
            assert_eq!(of_36.paid_merged_chain().is_some(), network.name.starts_with("litecoin"), "{}", network.name);
            assert_eq!(of_35.paid_merged_chain(), None);
        }
        assert_eq!(LITECOIN.merged_chain, Some(&DOGECOIN));
        assert_eq!(LITECOIN_TESTNET.merged_chain, Some(&DOGECOIN_TESTNET));
        assert_eq!(LITECOIN_REGTEST.merged_chain, Some(&DOGECOIN_TESTNET));
    }

    #[test]
    fn the_subsidy_halves_at_the_block_that_halves_it_and_p2pools_one_block_early() {
        let subsidy = BITCOIN.parent.subsidy;
        assert_eq!((subsidy.at(209_999), subsidy.at(210_000)), (5_000_000_000, 2_500_000_000));
        assert_eq!(
            (subsidy.one_block_early(209_998), subsidy.one_block_early(209_999)),
            (5_000_000_000, 2_500_000_000)
        );
        assert_eq!(subsidy.at(u32::MAX), 0);
    }

    #[test]
    fn scrypt_names_litecoins_genesis_below_its_target() {
        let header = concat!(
            "0100000000000000000000000000000000000000000000000000000000000000000000",
            "00d9ced4ed1130f7b7faad9be25323ffafa33232a17c3edf6cfd97bee6bafbdd97b9aa",
            "8e4ef0ff0f1ecd513f7c",
        );
        let header = <[u8; 80]>::try_from(hex::decode(header).unwrap()).unwrap();
        let name = U256::from_le_bytes(Pow::Sha256d.function()(&header));
        assert_eq!(format!("{name:064x}"), LITECOIN.parent.genesis);
        let work = U256::from_le_bytes(Pow::Scrypt.function()(&header));
        assert_eq!(format!("{work:064x}"), "0000050c34a64b415b6b15b37f2216634b5b1669cb9a2e38d76f7213b0671e00");
    }

    #[test]
    fn derived_targets_are_those_that_p2pool_prints() {
        assert_eq!(format!("{:064x}", LITECOIN_TESTNET.max_target), format!("0{}b", "c".repeat(62)));
        assert_eq!(LITECOIN_TESTNET.parent.sane_target_range.0, U256::from(1_u128 << 127));
        assert_eq!(BITCOIN.max_target.bit_len(), 224);
    }
}
