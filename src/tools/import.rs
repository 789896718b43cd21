//! Imports the data directory of a Python P2Pool node: shares, addresses of peers, payout address, graphs, state of the
//! share version's ratchet. The old directory is left unchanged.

use anyhow::{Context, Result, bail};
use p2p::addrs::AddressBook;
use sharechain::chain::{Sharechain, share_rules};
use sharechain::coin::Network;
use sharechain::share::{Share, ShareHash};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::chain::ratchet_file;
use crate::chain::store::{Store, legacy};
use crate::node::saved_payout;
use crate::runtime::access::Access;
use crate::runtime::data_dir::DataDir;
use crate::runtime::files;
use crate::view::graphs::file;
use crate::work::Payout;

/// File name of the address book, the old node's and ours.
const ADDRESSES: &str = "addrs";

/// File name of the graphs, the old node's and ours.
const GRAPHS: &str = "graph_db";

/// Maximum size of an address book that is read, in bytes.
const BOOK_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Source and destination of an import.
#[derive(Debug, Clone)]
pub struct Config {
    pub network: &'static Network,
    /// The new node's folder for the network.
    pub data_dir: PathBuf,
    /// The old node's data directory, or its folder for the network.
    pub from: PathBuf,
    /// Users that may read the new files.
    pub access: Access,
}

/// Imports everything found, and returns a report.
///
/// # Errors
/// If there is nothing to import, a node runs on the new directory, or reading or writing fails.
pub fn run(config: &Config, now: f64) -> Result<String> {
    let from = old_folder(&config.from, config.network)?;
    let data_dir = DataDir::open_for(config.access, &config.data_dir, config.network)?;
    if !data_dir.is_ours() {
        let holder = data_dir.holder_pid().map_or_else(String::new, |pid| format!(" (process {pid})"));
        bail!("a node runs on {}{holder}: stop it first", config.data_dir.display());
    }
    let mut report = format!("from {} to {}:\n", from.display(), config.data_dir.display());
    let mut line = |name: &str, text: String| {
        let _ = writeln!(report, "{name:<16}{text}");
    };
    line("shares", shares(&from, data_dir.path(), config.network)?);
    line("addresses", addresses(&from, data_dir.path(), now)?);
    line("payout address", payout_address(&from, data_dir.path(), config.network)?);
    line("graphs", graphs(&from, data_dir.path())?);
    line("share version", ratchet(&from, data_dir.path(), config.network)?);
    Ok(report)
}

/// Folder of the old node's files: `from` itself, or the network's below it.
fn old_folder(from: &Path, network: &Network) -> Result<PathBuf> {
    let has_files = |folder: &Path| {
        let names = [ADDRESSES, saved_payout::FILE, GRAPHS, ratchet_file::NAME];
        names.iter().any(|name| folder.join(name).is_file()) || has_shares(folder)
    };
    let below = from.join(network.name);
    let found = [from.to_owned(), below.clone()].into_iter().find(|folder| has_files(folder));
    let nothing = || format!("no data of an old P2Pool node in {} or {}", from.display(), below.display());
    found.with_context(nothing)
}

fn has_shares(folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(folder) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("shares."))
}

fn shares(from: &Path, to: &Path, network: &'static Network) -> Result<String> {
    if !has_shares(from) {
        return Ok("none".to_owned());
    }
    let legacy = legacy::read(from)?;
    let rules = share_rules(network);
    let verified: HashSet<ShareHash> = legacy.verified.iter().copied().collect();
    let (mut store, _) = Store::open(to)?;
    let (mut taken, mut known, mut foreign, mut first) = (0_u64, 0_u64, 0_u64, None);
    for bytes in &legacy.shares {
        match Share::from_bytes(bytes, &rules) {
            Ok(share) if store.contains(share.hash()) => known += 1,
            Ok(share) => {
                // Its arrival time is unknown. The old node kept its bytes unchanged, even non-canonical ones.
                store.append_share(share.hash(), &share.to_bytes(), 0, verified.contains(&share.hash()))?;
                taken += 1;
            }
            Err(error) => {
                foreign += 1;
                first.get_or_insert(error);
            }
        }
    }
    store.sync()?;
    let mut report = format!("{taken} imported");
    if known > 0 {
        let _ = write!(report, ", {known} already known");
    }
    if let Some(error) = first {
        let _ = write!(report, ", {foreign} left out (the first: {error})");
    }
    for problem in &legacy.problems {
        let _ = write!(report, "; {problem}");
    }
    Ok(report)
}

fn addresses(from: &Path, to: &Path, now: f64) -> Result<String> {
    let Some(theirs) = read(&from.join(ADDRESSES), BOOK_BYTES_MAX)? else { return Ok("none".to_owned()) };
    let mut book = AddressBook::new(fastrand::Rng::new());
    if let Some(ours) = read(&to.join(ADDRESSES), BOOK_BYTES_MAX)? {
        book.load_json(&ours, now);
    }
    let before = book.len();
    let problems = book.load_json(&theirs, now);
    replace(&to.join(ADDRESSES), &book.to_json())?;
    let mut report = format!("{} imported, {} in all", book.len() - before, book.len());
    for problem in problems {
        let _ = write!(report, "; {problem}");
    }
    Ok(report)
}

fn payout_address(from: &Path, to: &Path, network: &'static Network) -> Result<String> {
    let Some(text) = read(&from.join(saved_payout::FILE), saved_payout::BYTES_MAX)? else {
        return Ok("none (set -a ADDRESS)".to_owned());
    };
    match Payout::to_address(text.trim(), network) {
        Ok(payout) => {
            replace(&to.join(saved_payout::FILE), &payout.address)?;
            Ok(format!("{}, used unless -a sets another", payout.address))
        }
        Err(error) => Ok(format!("left out: {error} (set -a ADDRESS)")),
    }
}

fn graphs(from: &Path, to: &Path) -> Result<String> {
    let path = from.join(GRAPHS);
    if !path.is_file() {
        return Ok("none".to_owned());
    }
    if to.join(GRAPHS).exists() {
        return Ok("left out: this node already has graphs, which are kept".to_owned());
    }
    match file::read(&path) {
        Ok(sources) => {
            let count = sources.iter().filter(|source| !source.is_empty()).count();
            file::write(&sources, to)?;
            Ok(format!("{count} imported"))
        }
        Err(error) => Ok(format!("left out: {error}")),
    }
}

fn ratchet(from: &Path, to: &Path, network: &'static Network) -> Result<String> {
    if !from.join(ratchet_file::NAME).exists() {
        return Ok("none".to_owned());
    }
    if Sharechain::new(network).ratchet().is_none() {
        return Ok(format!("left out: {} does not change from share version 35 to 36", network.name));
    }
    if to.join(ratchet_file::NAME).exists() {
        return Ok("left out: this node already has a state of its own, which is kept".to_owned());
    }
    match ratchet_file::read(from) {
        Ok(None) => Ok("none".to_owned()),
        Ok(Some(ratchet)) => {
            replace(&to.join(ratchet_file::NAME), &ratchet.to_json())?;
            Ok(format!("{} imported", ratchet.state().word()))
        }
        Err(problem) => Ok(format!("left out: {problem}")),
    }
}

/// Reads a file of the old node or ours; `None` if there is none.
fn read(path: &Path, bytes_max: u64) -> Result<Option<String>> {
    files::read(path, bytes_max).with_context(|| format!("cannot read {}", path.display()))
}

fn replace(path: &Path, text: &str) -> Result<()> {
    files::replace(path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use sharechain::chain::Ratchet;
    use sharechain::coin::{BITCOIN, from_toml};
    use sharechain::share::{pack, unpack};
    use sharechain::testkit;
    use std::io::Read;

    const ADDRESS: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";

    /// The network of the recorded shares.
    fn recorded_network() -> &'static Network {
        Box::leak(Box::new(from_toml(include_str!("../../tests/networks/run17.toml")).unwrap()))
    }

    fn recorded() -> Vec<u8> {
        let packed = include_bytes!("../../tests/vectors/data/share_store_run17.txt.gz");
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn import(network: &'static Network, from: &Path, to: &Path) -> Result<String> {
        run(&Config { network, data_dir: to.to_owned(), from: from.to_owned(), access: Access::Owner }, 2e9)
    }

    #[test]
    fn an_old_nodes_shares_are_taken_over_once() {
        let network = recorded_network();
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = old.path().join(network.name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("shares.0"), recorded()).unwrap();
        // By the folder above, as given to the old node with --datadir.
        let report = import(network, old.path(), new.path()).unwrap();
        assert!(report.contains("240 imported\n"), "{report}");
        assert!(report.contains("addresses       none"), "{report}");
        let stored = Store::read_only(new.path()).unwrap();
        assert_eq!((stored.shares.len(), stored.verified.len()), (240, 240));
        let report = import(network, &folder, new.path()).unwrap();
        assert!(report.contains("0 imported, 240 already known"), "{report}");
        assert_eq!(fs::read(folder.join("shares.0")).unwrap(), recorded(), "the old node's files stay");
    }

    #[test]
    fn a_share_that_anyone_made_longer_is_taken_over_as_it_was_mined() {
        let network = recorded_network();
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lines = String::from_utf8(recorded()).unwrap();
        let line = lines.lines().find_map(|line| line.strip_prefix("5 ")).unwrap();
        let mined = hex::decode(line).unwrap();
        let mut contents = unpack(&mined, &share_rules(network)).unwrap();
        contents.merkle_branch = vec![[9; 32]; 1_000].into();
        let line = format!("5 {}\n", hex::encode(pack(&contents)));
        fs::write(old.path().join("shares.0"), line).unwrap();
        let report = import(network, old.path(), new.path()).unwrap();
        assert!(report.contains("1 imported\n"), "{report}");
        assert_eq!(Store::read_only(new.path()).unwrap().shares[0].bytes.len(), mined.len());
    }

    #[test]
    fn shares_of_another_network_are_left_out_and_told() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(old.path().join("shares.0"), recorded()).unwrap();
        let report = import(&BITCOIN, old.path(), new.path()).unwrap();
        assert!(report.contains("0 imported, 240 left out (the first: "), "{report}");
    }

    #[test]
    fn addresses_are_joined_and_a_payout_address_is_paid_from_then_on() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let entry = |host: &str| format!("[[\"{host}\", 9333], [0, 1500000000, 1600000000]]");
        fs::write(old.path().join("addrs"), format!("[{}, {}]", entry("192.0.2.1"), entry("198.51.100.2"))).unwrap();
        fs::write(new.path().join("addrs"), format!("[{}]", entry("192.0.2.1"))).unwrap();
        fs::write(old.path().join("cached_payout_address"), format!("{ADDRESS}\n")).unwrap();
        let report = import(&BITCOIN, old.path(), new.path()).unwrap();
        assert!(report.contains("1 imported, 2 in all"), "{report}");
        assert!(report.contains(ADDRESS), "{report}");
        let saved = saved_payout::saved_payout(new.path(), &BITCOIN).unwrap().unwrap();
        assert_eq!(&*saved.address, ADDRESS);
        let mut book = AddressBook::new(fastrand::Rng::with_seed(1));
        assert_eq!(book.load_json(&fs::read_to_string(new.path().join("addrs")).unwrap(), 2e9), [""; 0]);
        assert_eq!(book.len(), 2);
    }

    #[test]
    fn graphs_are_taken_over_where_there_are_none_yet() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let views =
            r#"{"local_hash_rate": {"last_hour": {"last_bin_end": 1600000000.0, "bin_width": 24.0, "bins": BINS}}}"#;
        let bins = format!("[{}]", vec![r#"{"null": [48.0, 2]}"#; 150].join(","));
        fs::write(old.path().join("graph_db"), views.replace("BINS", &bins)).unwrap();
        let report = import(&BITCOIN, old.path(), new.path()).unwrap();
        assert!(report.contains("graphs          1 imported"), "{report}");
        let taken = file::read(&new.path().join("graph_db")).unwrap();
        assert_eq!(taken.iter().filter(|source| !source.is_empty()).count(), 1);
        let report = import(&BITCOIN, old.path(), new.path()).unwrap();
        assert!(report.contains("which are kept"), "{report}");
        fs::write(old.path().join("graph_db"), "nonsense").unwrap();
        fs::remove_file(new.path().join("graph_db")).unwrap();
        assert!(import(&BITCOIN, old.path(), new.path()).unwrap().contains("graphs          left out: "));
    }

    #[test]
    fn the_ratchet_is_taken_over_once_and_only_where_there_is_one() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let network = testkit::network_of_versions(20, 35..=36, 100);
        let theirs = r#"{"state": "activated", "activated_at": 1700000000, "activated_height": 40,
                         "confirmed_at": null, "confirm_count": 20}"#;
        fs::write(old.path().join(ratchet_file::NAME), theirs).unwrap();
        assert!(import(network, old.path(), new.path()).unwrap().contains("share version   activated imported\n"));
        let taken = fs::read_to_string(new.path().join(ratchet_file::NAME)).unwrap();
        assert_eq!(Ratchet::from_json(&taken).unwrap(), Ratchet::from_json(theirs).unwrap());
        assert!(import(network, old.path(), new.path()).unwrap().contains("which is kept"));
        fs::remove_file(new.path().join(ratchet_file::NAME)).unwrap();
        fs::write(old.path().join(ratchet_file::NAME), r#"{"state": "on"}"#).unwrap();
        assert!(import(network, old.path(), new.path()).unwrap().contains("share version   left out: "));
        let elsewhere = tempfile::tempdir().unwrap();
        let report = import(&BITCOIN, old.path(), elsewhere.path()).unwrap();
        assert!(report.contains("left out: bitcoin does not change"), "{report}");
        assert!(!elsewhere.path().join(ratchet_file::NAME).exists());
    }

    #[test]
    fn an_address_that_cannot_be_paid_is_never_paid() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(old.path().join("cached_payout_address"), "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn").unwrap();
        let report = import(&BITCOIN, old.path(), new.path()).unwrap();
        assert!(report.contains("payout address  left out: "), "{report}");
        assert!(saved_payout::saved_payout(new.path(), &BITCOIN).unwrap().is_none());
        fs::write(new.path().join("cached_payout_address"), "nonsense").unwrap();
        assert!(saved_payout::saved_payout(new.path(), &BITCOIN).is_err());
    }

    #[test]
    fn a_folder_without_anything_and_one_with_a_running_node_are_refused() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let error = import(&BITCOIN, old.path(), new.path()).unwrap_err().to_string();
        assert!(error.contains(&old.path().display().to_string()), "{error}");
        fs::write(old.path().join("addrs"), "[]").unwrap();
        let _running = DataDir::open(new.path(), &BITCOIN).unwrap();
        let error = import(&BITCOIN, old.path(), new.path()).unwrap_err().to_string();
        assert!(error.contains("stop it first"), "{error}");
    }
}
