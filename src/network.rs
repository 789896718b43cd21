//! One constant table per network: what it is called, its parent chain's identifiers and ports, and our own ports.

/// The parent chain: the coin whose blocks are mined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// Ticker symbol, for people.
    pub symbol: &'static str,
    /// Message magic of the coin's P2P protocol, in wire order.
    pub magic: [u8; 4],
    /// The daemon's own default P2P port.
    pub p2p_port: u16,
    /// The daemon's own default RPC port.
    pub rpc_port: u16,
    /// What `getblockchaininfo` calls this chain.
    pub rpc_chain: &'static str,
    /// The chain's section in `bitcoin.conf`, and its folder below the daemon's data directory; empty for the main chain.
    pub conf_section: &'static str,
    /// Folder of the chain below the daemon's data directory; empty for the main chain.
    pub datadir_folder: &'static str,
    /// The option that puts a daemon on this chain, for messages.
    pub daemon_option: &'static str,
    /// Version byte of base58 P2PKH addresses.
    pub address_version: u8,
    /// Version byte of base58 P2SH addresses.
    pub address_p2sh_version: u8,
    /// Human-readable part of segwit addresses (BIP 173).
    pub human_readable_part: &'static str,
    /// Hash of block 0, in display order.
    pub genesis: &'static str,
    /// Rules that `getblocktemplate` must be asked with (BIP 9).
    pub template_rules: &'static [&'static str],
    /// Expected seconds between blocks.
    pub block_period: u32,
}

/// A network that this node can serve: a parent chain and our own constants on top of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// What `--net` calls it.
    pub name: &'static str,
    /// The coin.
    pub parent: Parent,
    /// Where miners connect unless `--worker-port` says otherwise.
    pub worker_port: u16,
    /// Soft forks that templates may have active and that this code builds correct blocks for. A rule not listed here
    /// means that blocks might be invalid in a way that we do not know of, so it stops work.
    pub known_rules: &'static [&'static str],
    /// The difficulty (bdiff) that a connection starts at when nothing better is known of its miner.
    pub start_difficulty: f64,
}

/// Every soft fork that Bitcoin has had or named, and signet's block signature.
const BITCOIN_RULES: &[&str] =
    &["csv", "segwit", "segwit2x", "taproot", "testdummy", "signet", "bip16", "bip34", "bip65", "bip66"];

/// Bitcoin's main network.
pub const BITCOIN: Network = Network {
    name: "bitcoin",
    parent: Parent {
        symbol: "BTC",
        magic: [0xf9, 0xbe, 0xb4, 0xd9],
        p2p_port: 8333,
        rpc_port: 8332,
        rpc_chain: "main",
        conf_section: "main",
        datadir_folder: "",
        daemon_option: "-chain=main",
        address_version: 0,
        address_p2sh_version: 5,
        human_readable_part: "bc",
        genesis: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        template_rules: &["segwit"],
        block_period: 600,
    },
    worker_port: 9332,
    known_rules: BITCOIN_RULES,
    start_difficulty: 1024.0,
};

/// Bitcoin's third public test network.
pub const BITCOIN_TESTNET: Network = Network {
    name: "bitcoin_testnet",
    parent: Parent {
        symbol: "tBTC",
        magic: [0x0b, 0x11, 0x09, 0x07],
        p2p_port: 18333,
        rpc_port: 18332,
        rpc_chain: "test",
        conf_section: "test",
        datadir_folder: "testnet3",
        daemon_option: "-chain=test",
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb",
        genesis: "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        template_rules: &["segwit"],
        block_period: 600,
    },
    worker_port: 19332,
    known_rules: BITCOIN_RULES,
    start_difficulty: 1.0,
};

/// Bitcoin's fourth public test network (BIP 94).
pub const BITCOIN_TESTNET4: Network = Network {
    name: "bitcoin_testnet4",
    parent: Parent {
        symbol: "tBTC",
        magic: [0x1c, 0x16, 0x3f, 0x28],
        p2p_port: 48333,
        rpc_port: 48332,
        rpc_chain: "testnet4",
        conf_section: "testnet4",
        datadir_folder: "testnet4",
        daemon_option: "-chain=testnet4",
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb",
        genesis: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        template_rules: &["segwit"],
        block_period: 600,
    },
    worker_port: 19342,
    known_rules: BITCOIN_RULES,
    start_difficulty: 1.0,
};

/// Bitcoin's signet (BIP 325), the public one or a private one.
pub const BITCOIN_SIGNET: Network = Network {
    name: "bitcoin_signet",
    parent: Parent {
        symbol: "sBTC",
        magic: [0x0a, 0x03, 0xcf, 0x40],
        p2p_port: 38333,
        rpc_port: 38332,
        rpc_chain: "signet",
        conf_section: "signet",
        datadir_folder: "signet",
        daemon_option: "-chain=signet",
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "tb",
        genesis: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        template_rules: &["segwit", "signet"],
        block_period: 600,
    },
    worker_port: 19352,
    known_rules: BITCOIN_RULES,
    start_difficulty: 0.01,
};

/// A private chain of the real daemon, on which every other hash is a block.
pub const BITCOIN_REGTEST: Network = Network {
    name: "bitcoin_regtest",
    parent: Parent {
        symbol: "rBTC",
        magic: [0xfa, 0xbf, 0xb5, 0xda],
        p2p_port: 18444,
        rpc_port: 18443,
        rpc_chain: "regtest",
        conf_section: "regtest",
        datadir_folder: "regtest",
        daemon_option: "-chain=regtest",
        address_version: 111,
        address_p2sh_version: 196,
        human_readable_part: "bcrt",
        genesis: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        template_rules: &["segwit"],
        block_period: 600,
    },
    worker_port: 19443,
    known_rules: BITCOIN_RULES,
    start_difficulty: 0.001,
};

/// The chain inside the process that `p2pool demo` mines on: regtest's rules at a difficulty set from the machine's own
/// hash rate. Nothing outside the process speaks it, so its ports are never opened.
pub const DEMO: Network = Network {
    name: "demo",
    parent: Parent { symbol: "demo coins", daemon_option: "", block_period: 10, ..BITCOIN_REGTEST.parent },
    worker_port: 9332,
    known_rules: BITCOIN_RULES,
    start_difficulty: 0.001,
};

/// The networks that `--net` may name. The demo's is reached by its own subcommand.
pub const ALL: &[&Network] = &[&BITCOIN, &BITCOIN_TESTNET, &BITCOIN_TESTNET4, &BITCOIN_SIGNET, &BITCOIN_REGTEST];

/// The network that `--net` calls `name`.
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
    fn names_and_worker_ports_are_unique() {
        for (index, network) in ALL.iter().enumerate() {
            assert_eq!(by_name(network.name).map(|found| found.name), Some(network.name));
            for other in &ALL[index + 1..] {
                assert_ne!(network.worker_port, other.worker_port, "{} and {}", network.name, other.name);
            }
        }
    }
}
