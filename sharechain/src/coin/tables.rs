//! Constants of the built-in networks (protocol sections 1.1 and 1.2).

use ruint::aliases::U256;

use super::{DOGECOIN, DOGECOIN_TESTNET, Network, Parent, Pow, Subsidy};

/// 2^`bits` - 1.
const fn ones(bits: usize) -> U256 {
    U256::MAX.wrapping_shr(256 - bits)
}

/// 2^`bits` / `divisor` - 1.
const fn share_of(bits: usize, divisor: u64) -> U256 {
    // Subtracting one from the numerator changes the quotient only if the divisor is a power of two; none here is.
    let mut limbs = *ones(bits).as_limbs();
    let mut rest = 0_u128;
    let mut index = 4;
    while index > 0 {
        index -= 1;
        let part = (rest << 64) | limbs[index] as u128;
        // The remainder is below the 64-bit divisor, so each limb's quotient fits one limb.
        #[allow(clippy::cast_possible_truncation)]
        let quotient = (part / divisor as u128) as u64;
        limbs[index] = quotient;
        rest = part % divisor as u128;
    }
    U256::from_limbs(limbs).wrapping_sub(U256::ONE)
}

const BITCOIN_SUBSIDY: Subsidy = Subsidy { initial: 5_000_000_000, halving_interval: 210_000 };

/// Every soft fork that Bitcoin had or named, and signet's block signature.
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
        data_folder: ".bitcoin",
        data_folder_macos: "Bitcoin",
        conf_name: "bitcoin.conf",
        conf_section: "main",
        datadir_folder: "",
        daemon_option: "-chain=main",
        address_version: 0,
        address_p2sh_version: 5,
        address_p2sh_version_old: None,
        human_readable_part: "bc",
        genesis: "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        template_rules: &["segwit"],
        template_algo: None,
        // 22.0 introduced taproot's activation.
        version_min: 220_000,
        block_period: 600,
        pow: Pow::Sha256d,
        subsidy: BITCOIN_SUBSIDY,
        sane_target_range: (share_of(224, 1_000_000), ones(224)),
        dumb_scrypt_diff: 1,
        dust_threshold: 100_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0xfc70_035c_7a81_bc6f_u64.to_be_bytes(),
    prefix: 0x2472_ef18_1efc_d37b_u64.to_be_bytes(),
    p2p_port: 9333,
    worker_port: 9332,
    share_period: 30,
    chain_length: 8640,
    real_chain_length: 8640,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(224),
    persist: true,
    protocol_version: 3502,
    minimum_protocol_version: 3301,
    segwit_activation_version: 33,
    newest_version: 35,
    merged_chain: None,
    start_version: 35,
    bootstrap_addresses: &[
        "ml.toom.im",
        "ml.toom.im:9336",
        "ml.toom.im:9334",
        "btc-fork.coinpool.pw:9335",
        "crypto.office-on-the.net:9335",
        "btc.p2pool.leblancnet.us",
    ],
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
        data_folder: ".bitcoin",
        data_folder_macos: "Bitcoin",
        conf_name: "bitcoin.conf",
        conf_section: "test",
        datadir_folder: "testnet3",
        daemon_option: "-chain=test",
        address_version: 111,
        address_p2sh_version: 196,
        address_p2sh_version_old: None,
        human_readable_part: "tb",
        genesis: "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        template_rules: &["segwit"],
        template_algo: None,
        // 22.0 introduced taproot's activation.
        version_min: 220_000,
        block_period: 600,
        pow: Pow::Sha256d,
        subsidy: BITCOIN_SUBSIDY,
        sane_target_range: (share_of(224, 100_000_000), ones(224)),
        dumb_scrypt_diff: 1,
        dust_threshold: 100_000_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0x5fc2_be2d_4f0d_6bfb_u64.to_be_bytes(),
    prefix: 0x3f60_57a1_5036_f441_u64.to_be_bytes(),
    p2p_port: 19333,
    worker_port: 19332,
    share_period: 30,
    chain_length: 360,
    real_chain_length: 360,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(224),
    persist: false,
    protocol_version: 3502,
    minimum_protocol_version: 3200,
    segwit_activation_version: 15,
    newest_version: 35,
    merged_chain: None,
    start_version: 35,
    bootstrap_addresses: &["forre.st", "liteco.in", "78.158.149.247"],
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
        data_folder: ".bitcoin",
        data_folder_macos: "Bitcoin",
        conf_name: "bitcoin.conf",
        conf_section: "testnet4",
        datadir_folder: "testnet4",
        daemon_option: "-chain=testnet4",
        address_version: 111,
        address_p2sh_version: 196,
        address_p2sh_version_old: None,
        human_readable_part: "tb",
        genesis: "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        template_rules: &["segwit"],
        template_algo: None,
        // 22.0 introduced taproot's activation.
        version_min: 220_000,
        block_period: 600,
        pow: Pow::Sha256d,
        subsidy: BITCOIN_SUBSIDY,
        sane_target_range: (share_of(224, 100_000_000), ones(224)),
        dumb_scrypt_diff: 1,
        dust_threshold: 100_000_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0xe1b3_a7f2_094c_6d58_u64.to_be_bytes(),
    prefix: 0x9c41_d805_7be2_6fa3_u64.to_be_bytes(),
    p2p_port: 19343,
    worker_port: 19342,
    share_period: 30,
    chain_length: 360,
    real_chain_length: 360,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(224),
    persist: false,
    protocol_version: 3502,
    minimum_protocol_version: 3500,
    segwit_activation_version: 15,
    newest_version: 35,
    merged_chain: None,
    start_version: 35,
    bootstrap_addresses: &[],
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
        data_folder: ".bitcoin",
        data_folder_macos: "Bitcoin",
        conf_name: "bitcoin.conf",
        conf_section: "signet",
        datadir_folder: "signet",
        daemon_option: "-chain=signet",
        address_version: 111,
        address_p2sh_version: 196,
        address_p2sh_version_old: None,
        human_readable_part: "tb",
        genesis: "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        template_rules: &["segwit", "signet"],
        template_algo: None,
        // 22.0 introduced taproot's activation.
        version_min: 220_000,
        block_period: 600,
        pow: Pow::Sha256d,
        subsidy: BITCOIN_SUBSIDY,
        sane_target_range: (share_of(224, 1_000_000), ones(236)),
        dumb_scrypt_diff: 1,
        dust_threshold: 100_000_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0x47d9_0e5a_b8c3_1f62_u64.to_be_bytes(),
    prefix: 0xb60f_3d92_ae71_58c4_u64.to_be_bytes(),
    p2p_port: 19353,
    worker_port: 19352,
    share_period: 30,
    chain_length: 360,
    real_chain_length: 360,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(236),
    persist: false,
    protocol_version: 3502,
    minimum_protocol_version: 3500,
    segwit_activation_version: 15,
    newest_version: 35,
    merged_chain: None,
    start_version: 35,
    bootstrap_addresses: &[],
    known_rules: BITCOIN_RULES,
    start_difficulty: 0.01,
};

/// A private chain of the real daemon, where every other hash is a block.
pub const BITCOIN_REGTEST: Network = Network {
    name: "bitcoin_regtest",
    parent: Parent {
        symbol: "rBTC",
        magic: [0xfa, 0xbf, 0xb5, 0xda],
        p2p_port: 18444,
        rpc_port: 18443,
        rpc_chain: "regtest",
        data_folder: ".bitcoin",
        data_folder_macos: "Bitcoin",
        conf_name: "bitcoin.conf",
        conf_section: "regtest",
        datadir_folder: "regtest",
        daemon_option: "-chain=regtest",
        address_version: 111,
        address_p2sh_version: 196,
        address_p2sh_version_old: None,
        human_readable_part: "bcrt",
        genesis: "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        template_rules: &["segwit"],
        template_algo: None,
        // 22.0 introduced taproot's activation.
        version_min: 220_000,
        block_period: 600,
        pow: Pow::Sha256d,
        subsidy: Subsidy { halving_interval: 150, ..BITCOIN_SUBSIDY },
        sane_target_range: (share_of(224, 1000), ones(255)),
        dumb_scrypt_diff: 1,
        dust_threshold: 100_000_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0x5ad2_c6ec_bd7d_9372_u64.to_be_bytes(),
    prefix: 0x8f2c_8d54_b327_8bc8_u64.to_be_bytes(),
    p2p_port: 19444,
    worker_port: 19443,
    share_period: 30,
    chain_length: 360,
    real_chain_length: 360,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(255),
    persist: false,
    protocol_version: 3502,
    minimum_protocol_version: 3200,
    segwit_activation_version: 15,
    newest_version: 35,
    merged_chain: None,
    start_version: 35,
    bootstrap_addresses: &[],
    known_rules: BITCOIN_RULES,
    start_difficulty: 0.001,
};

/// In-process chain of `p2pool demo`: regtest's rules at a difficulty derived from the machine's own hash rate. It is
/// never exposed outside the process, so its ports are never opened.
pub const DEMO: Network = Network {
    name: "demo",
    parent: Parent { symbol: "demo coins", daemon_option: "", block_period: 10, ..BITCOIN_REGTEST.parent },
    identifier: 0x6465_6d6f_2073_6861_u64.to_be_bytes(),
    prefix: 0x6465_6d6f_2070_6565_u64.to_be_bytes(),
    worker_port: 9332,
    // Short enough to watch the window fill and payouts slide through it.
    share_period: 2,
    chain_length: 120,
    real_chain_length: 120,
    target_lookbehind: 20,
    // A share takes one core a good part of a second: the first shares come soon, and not all at once.
    max_target: ones(236),
    minimum_protocol_version: 3500,
    ..BITCOIN_REGTEST
};

/// Every soft fork that Litecoin had or named.
const LITECOIN_RULES: &[&str] = &["csv", "segwit", "taproot", "mweb", "testdummy", "bip16", "bip34", "bip65", "bip66"];

/// Litecoin's main network.
pub const LITECOIN: Network = Network {
    name: "litecoin",
    parent: Parent {
        symbol: "LTC",
        magic: [0xfb, 0xc0, 0xb6, 0xdb],
        p2p_port: 9333,
        rpc_port: 9332,
        rpc_chain: "main",
        data_folder: ".litecoin",
        data_folder_macos: "Litecoin",
        conf_name: "litecoin.conf",
        conf_section: "main",
        datadir_folder: "",
        daemon_option: "-chain=main",
        address_version: 48,
        address_p2sh_version: 50,
        // As Bitcoin's.
        address_p2sh_version_old: Some(5),
        human_readable_part: "ltc",
        genesis: "12a765e31ffd4059bada1e25190f6e98c99d9714d334efa41a195a7e7e04bfe2",
        template_rules: &["segwit", "mweb"],
        template_algo: None,
        // 0.21.2 introduced the extension block.
        version_min: 210_200,
        block_period: 150,
        pow: Pow::Scrypt,
        subsidy: Subsidy { initial: 5_000_000_000, halving_interval: 840_000 },
        sane_target_range: (share_of(256, 1_000_000_000_000_000), share_of(256, 1000)),
        dumb_scrypt_diff: 65_536,
        dust_threshold: 3_000_000,
        block_max_size: 1_000_000,
        block_max_weight: 4_000_000,
    },
    identifier: 0xe037_d5b8_c692_3410_u64.to_be_bytes(),
    prefix: 0x7208_c1a5_3ef6_29b0_u64.to_be_bytes(),
    p2p_port: 9326,
    worker_port: 9327,
    share_period: 15,
    chain_length: 8640,
    real_chain_length: 8640,
    target_lookbehind: 200,
    spread: 3,
    min_target: U256::ZERO,
    max_target: ones(236),
    persist: true,
    protocol_version: 3600,
    minimum_protocol_version: 3301,
    segwit_activation_version: 17,
    newest_version: 36,
    merged_chain: Some(&DOGECOIN),
    start_version: 35,
    bootstrap_addresses: &[
        "ml.toom.im",
        "usa.p2p-spb.xyz",
        "102.160.209.121",
        "5.188.104.245",
        "20.127.82.115",
        "31.25.241.224",
        "20.113.157.65",
        "20.106.76.227",
        "15.218.180.55",
        "173.79.139.224",
        "174.60.78.162",
        "crypto.office-on-the.net",
        "ltc.p2pool.leblancnet.us",
        "51.148.43.34",
        "68.131.29.131",
        "87.102.46.100",
        "89.237.60.231",
        "95.79.35.133",
        "96.255.61.32",
        "174.56.93.93",
        "178.238.236.130",
        "194.190.93.235",
    ],
    known_rules: LITECOIN_RULES,
    start_difficulty: 0.5,
};

/// Litecoin's public test network.
pub const LITECOIN_TESTNET: Network = Network {
    name: "litecoin_testnet",
    parent: Parent {
        symbol: "tLTC",
        magic: [0xfd, 0xd2, 0xc8, 0xf1],
        p2p_port: 19335,
        rpc_port: 19332,
        rpc_chain: "test",
        conf_section: "test",
        datadir_folder: "testnet4",
        daemon_option: "-chain=test",
        address_version: 111,
        address_p2sh_version: 58,
        address_p2sh_version_old: Some(196),
        human_readable_part: "tltc",
        genesis: "4966625a4b2851d9fdee139e56211a0d88575f59ed816ff5e6a63deb4e3e29a0",
        // As in P2Pool: `1<<128-1` is 2^127 in Python, since `-` binds tighter.
        sane_target_range: (ones(127).wrapping_add(U256::ONE), ones(239).wrapping_add(U256::ONE)),
        dust_threshold: 100_000_000,
        ..LITECOIN.parent
    },
    identifier: 0xcca5_e24e_c640_8b1e_u64.to_be_bytes(),
    prefix: 0xad96_14f6_466a_39cf_u64.to_be_bytes(),
    p2p_port: 19338,
    worker_port: 19327,
    share_period: 4,
    chain_length: 400,
    real_chain_length: 400,
    max_target: share_of(256, 20),
    persist: false,
    merged_chain: Some(&DOGECOIN_TESTNET),
    bootstrap_addresses: &["forre.st"],
    start_difficulty: 0.001,
    ..LITECOIN
};

/// A private chain of Litecoin's daemon. The reference has no such network: identifier, prefix and ports are ours.
pub const LITECOIN_REGTEST: Network = Network {
    name: "litecoin_regtest",
    parent: Parent {
        symbol: "rLTC",
        magic: [0xfa, 0xbf, 0xb5, 0xda],
        p2p_port: 19444,
        rpc_port: 19443,
        rpc_chain: "regtest",
        conf_section: "regtest",
        datadir_folder: "regtest",
        daemon_option: "-chain=regtest",
        human_readable_part: "rltc",
        genesis: "530827f38f93b43ed12af0b3ad25a288dc02ed74d6d7857862df51fc56c416f9",
        subsidy: Subsidy { initial: 5_000_000_000, halving_interval: 150 },
        sane_target_range: (share_of(224, 1000), ones(255)),
        ..LITECOIN_TESTNET.parent
    },
    identifier: 0x2b8e_64d1_f09a_375c_u64.to_be_bytes(),
    prefix: 0xd513_7ac0_68f2_b94e_u64.to_be_bytes(),
    p2p_port: 19464,
    worker_port: 19463,
    share_period: 30,
    chain_length: 360,
    real_chain_length: 360,
    max_target: ones(255),
    minimum_protocol_version: 3500,
    bootstrap_addresses: &[],
    ..LITECOIN_TESTNET
};
