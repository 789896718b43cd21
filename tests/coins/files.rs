//! Network files of the repository: all can be read, and DigiByte's say what the specification says.

use sharechain::coin::{self, Network, Pow};
use std::collections::BTreeSet;
use std::fs;

use crate::{repository, text};

/// Network of a file of the repository.
pub(crate) fn network(file: &str) -> Network {
    coin::from_toml(&text(file)).unwrap_or_else(|errors| panic!("{file}: {errors:?}"))
}

#[test]
fn every_network_file_of_the_repository_can_be_read() {
    let mut names = BTreeSet::new();
    for folder in ["docs/networks", "tests/networks"] {
        for entry in fs::read_dir(repository(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let file = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
                let network = network(&file);
                assert_eq!(path.file_stem().unwrap().to_str(), Some(network.name), "{file} is named like its network");
                assert!(coin::by_name(network.name).is_none(), "{file}: there is a built-in network of that name");
                names.insert(network.name);
            }
        }
    }
    assert!(names.len() >= 5, "{names:?}");
}

/// Cell of the table of DigiByte's constants (protocol-v36 section 1.3), by row and column.
fn cell(row: &str, column: usize) -> String {
    let page = text("docs/protocol-v36.md");
    let (_, section) = page.split_once("### 1.3 ").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut rows = section.lines().filter(|line| line.starts_with('|')).map(cells);
    let found = rows.find(|cells| cells[0] == row).unwrap_or_else(|| panic!("no row {row:?}"));
    found[column].replace('`', "")
}

#[test]
fn digibytes_files_have_the_constants_of_the_specification() {
    for (file, column) in [("docs/networks/digibyte.toml", 1), ("docs/networks/dgb.toml", 2)] {
        let net = network(file);
        let cell = |row| cell(row, column);
        let identifiers = format!("{} / {}", hex::encode(net.identifier), hex::encode(net.prefix));
        assert_eq!(identifiers, cell("IDENTIFIER / PREFIX"), "{file}");
        assert_eq!(format!("{} / {}", net.p2p_port, net.worker_port), cell("ports P2P / worker"), "{file}");
        assert_eq!(
            format!("{}, {}, {}, {}", net.share_period, net.chain_length, net.target_lookbehind, net.spread),
            cell("SHARE_PERIOD, CHAIN_LENGTH, LOOKBEHIND, SPREAD"),
            "{file}"
        );
        assert_eq!(net.real_chain_length, net.chain_length, "{file}");
        assert_eq!(net.segwit_activation_version.to_string(), cell("SEGWIT_ACTIVATION_VERSION"), "{file}");
        let parent = &net.parent;
        assert_eq!(
            format!("{} / {}", parent.block_max_size, parent.block_max_weight),
            cell("BLOCK_MAX_SIZE / WEIGHT").replace(|space: char| space.is_whitespace(), "").replace('/', " / "),
            "{file}"
        );
        let minimum = cell("minimum / announced protocol");
        assert_eq!(Some(net.minimum_protocol_version.to_string().as_str()), minimum.split(' ').next(), "{file}");
        assert_eq!(Some(net.protocol_version.to_string().as_str()), minimum.rsplit(' ').next(), "{file}");
        // The coin is the same for both, and stands in the first column.
        let coin = format!(
            "P2PKH {}, P2SH {}, hrp {}, P2P magic {}:{}, RPC {}, period {} s, templates need \"algo\":\"{}\"",
            parent.address_version,
            parent.address_p2sh_version,
            parent.human_readable_part,
            hex::encode(parent.magic),
            parent.p2p_port,
            parent.rpc_port,
            parent.block_period,
            parent.template_algo.unwrap_or_default(),
        );
        assert_eq!(coin, self::cell("parent", 1), "{file}");
        assert_eq!((parent.pow, parent.dumb_scrypt_diff), (Pow::Scrypt, 65_536), "{file}");
        assert_eq!(net.max_target.bit_len(), 236, "{file}: 2^256 / 2^20 - 1");
        assert!(net.bootstrap_addresses.is_empty() && net.start_version == 35, "{file}");
    }
}

#[test]
fn the_page_lists_every_key_that_a_file_may_have_and_no_other() {
    let source = text("sharechain/src/coin/file.rs");
    let (code, _) = source.split_once("#[cfg(test)]").unwrap();
    let is_key = |word: &&str| {
        word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let known: BTreeSet<&str> = code.split('"').skip(1).step_by(2).filter(is_key).collect();
    let page = text("docs/networks/README.md");
    let (_, table) = page.split_once("## The keys").unwrap();
    let keys = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let listed: BTreeSet<&str> = keys.flat_map(|cell| cell.split('`')).filter(is_key).collect();
    assert!(listed.len() > 30, "{listed:?}");
    assert_eq!(listed, known);
}
