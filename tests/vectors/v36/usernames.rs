//! User names as the fork reads them, and where this node reads them otherwise.

use p2pool::work::{Origin, Payout, target, username};
use serde_json::Value;
use sharechain::chain::share_rules;
use sharechain::coin::{LITECOIN, LITECOIN_TESTNET, Network};
use sharechain::share::{self, Payee, ShareVersion};
use stratum::{Difficulty, Refusal, Worker};

use crate::vectors::support::{bytes_of, json, list_of, ran, str_of};

/// What a user name means for a share of version 36.
#[derive(Debug, PartialEq)]
enum Meaning {
    /// Kind and hash of the payee, script of the entry for the merged chain, and whether that was converted.
    Paid {
        kind: u8,
        hash: String,
        merged: Option<String>,
        is_converted: bool,
    },
    /// No address: the node is paid, or whoever is chosen instead.
    Other,
    Refused,
}

/// Reason why a row is read otherwise here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Difference {
    /// The fork drops parts of the worker's name, or mistakes an address with such a name for a name.
    Worker,
    /// An address was most likely meant: the fork pays another, or leaves one out, and says nothing. Refused here.
    Mistyped,
    /// The fork closes the connection: a share of version 36 cannot pay P2WSH (protocol-v36 trap 6). Refused here.
    WitnessScript,
    /// The fork keeps the miner's merged address in a share that pays another (protocol-v36 trap 11). Here the address
    /// is paid on both chains.
    MergedAlone,
    /// The fork takes a form for a name or ignores it; other forks read it.
    Form,
    /// White space around a name is left out here.
    Space,
    /// What is no difficulty is refused here.
    Difficulty,
    /// The fork calls an address that the miner gave converted.
    Origin,
}

/// Rows that are read otherwise here.
fn difference(index: usize) -> Option<Difference> {
    Some(match index {
        4 | 10 | 42..=44 | 49 => Difference::Worker,
        19 | 20 | 58 | 59 => Difference::Origin,
        22 | 23 | 61 => Difference::MergedAlone,
        27 | 68 => Difference::Space,
        28 | 29 | 67 => Difference::Mistyped,
        30..=33 | 69..=71 => Difference::Form,
        34 | 35 | 73 => Difference::WitnessScript,
        54 => Difference::Difficulty,
        _ => return None,
    })
}

const OF_MAIN: &Network = &Network { newest_version: 36, ..LITECOIN };
const OF_TEST: &Network = &Network { newest_version: 36, ..LITECOIN_TESTNET };

fn network_of(case: &Value) -> &'static Network {
    match str_of(&case["net"]) {
        "litecoin" => OF_MAIN,
        "litecoin_testnet" => OF_TEST,
        other => panic!("{other} is not a network of the vectors"),
    }
}

/// The node's own payout in the recordings: P2WPKH of twenty bytes 11.
fn own(network: &Network) -> Payout {
    let payee = Payee::from_hash(1, &[0x11; 20], &share_rules(network));
    Payout::to_address(payee.as_str(), network).unwrap()
}

/// Payee and entry in a share of version 36 that pays `payout`.
fn paid(payout: &Payout, network: &Network) -> Meaning {
    let payee = Payee::from_address(&payout.address, &share_rules(network)).unwrap();
    let Ok(share::Payout::Hash { hash, kind }) = payee.payout(ShareVersion::V36) else { panic!("{payout} is payable") };
    let entry = payout.merged.as_ref().unwrap();
    assert_eq!(entry.in_share().chain_id, 98);
    let merged = Some(hex::encode(&entry.in_share().script));
    Meaning::Paid { kind, hash: hex::encode(hash), merged, is_converted: entry.origin == Origin::Converted }
}

fn read(name: &str, network: &Network) -> Result<Worker<Payout>, Refusal> {
    username::parse(name, network, &own(network))
}

fn meaning(name: &str, network: &Network) -> Meaning {
    match read(name, network) {
        Ok(worker) if worker.payout == own(network) => Meaning::Other,
        Ok(worker) => paid(&worker.payout, network),
        Err(_) => Meaning::Refused,
    }
}

fn recorded(case: &Value) -> Meaning {
    if case["redistributed"].as_bool().unwrap() {
        return Meaning::Other;
    }
    let entries = case["merged_addresses"].as_array();
    let merged = entries.map(|entries| {
        assert_eq!((entries.len(), &entries[0]["chain_id"]), (1, &Value::from(98)));
        str_of(&entries[0]["script"]).to_owned()
    });
    let kind = u8::try_from(case["pubkey_type"].as_u64().unwrap()).unwrap();
    let is_converted = case["flags"]["auto_converted"].as_bool().unwrap_or_default();
    Meaning::Paid { kind, hash: str_of(&case["pubkey_hash"]).to_owned(), merged, is_converted }
}

/// Compares a wanted difficulty with a recorded target, which was computed in doubles.
fn assert_wish(wish: Option<Difficulty>, recorded: &Value, name: &str) {
    assert_eq!(wish.is_some(), !recorded.is_null(), "{name}");
    if let Some(wish) = wish {
        let (ours, theirs) = (target::of_difficulty(wish).to_hex(), str_of(recorded));
        let digits = theirs.bytes().take_while(|digit| *digit == b'0').count() + 12;
        assert_eq!(ours[..digits], theirs[..digits], "{name}");
    }
}

/// Checks a row whose job pays the node's fee: the node's own entry is in the share, not the miner's as in the fork.
fn check_fee(case: &Value, network: &Network) {
    let Meaning::Paid { kind, hash, merged, .. } = recorded(case) else { panic!("{case} pays the node") };
    let own = own(network);
    let Meaning::Paid { kind: own_kind, hash: own_hash, merged: own_merged, .. } = paid(&own, network) else {
        panic!("it can be paid")
    };
    assert_eq!((kind, hash), (own_kind, own_hash));
    assert_ne!(merged, own_merged, "trap 11 of the fork: the miner's, or none");
    assert_eq!(own_merged, Some(format!("76a914{}88ac", "11".repeat(20))));
}

/// Checks how a row is read that the fork reads otherwise.
fn check_difference(case: &Value, difference: Difference, network: &Network) {
    let name = str_of(&case["username"]);
    let (ours, theirs) = (meaning(name, network), recorded(case));
    let shown = read(name, network).map(|worker| worker.name.to_string());
    match difference {
        Difference::Worker => {
            let whole = name.split(',').next_back().unwrap().split_once(['.', '_']).unwrap().1;
            assert!(matches!(ours, Meaning::Paid { .. }) && shown.unwrap().ends_with(&format!(".{whole}")), "{name}");
            assert!(ours == theirs || theirs == Meaning::Other, "{name}: {ours:?}, {theirs:?}");
        }
        Difference::Mistyped | Difference::WitnessScript | Difference::Difficulty => {
            assert_eq!(ours, Meaning::Refused, "{name}");
        }
        Difference::MergedAlone => {
            assert_eq!(theirs, Meaning::Other);
            assert_eq!(ours, meaning(name.trim_start_matches(','), network), "{name}");
            assert!(matches!(ours, Meaning::Paid { .. }));
        }
        Difference::Form => {
            let Meaning::Paid { merged: Some(merged), is_converted, .. } = &ours else { panic!("{name}: {ours:?}") };
            let theirs = match &theirs {
                Meaning::Paid { merged, .. } => merged.as_ref(),
                _ => None,
            };
            assert!(!is_converted && Some(merged) != theirs, "{name}: {ours:?}");
            assert_eq!(hex::decode(merged).unwrap()[3..23], bytes_of(&Value::from(GIVEN)), "{name}");
        }
        Difference::Space => {
            assert_eq!(ours, meaning(name.trim(), network));
            assert_eq!(shown.unwrap(), name.trim());
        }
        Difference::Origin => {
            let (Meaning::Paid { is_converted: false, .. }, Meaning::Paid { kind, hash, merged, .. }) = (&ours, theirs)
            else {
                panic!("{name}: {ours:?}")
            };
            assert_eq!(ours, Meaning::Paid { kind, hash, merged, is_converted: false });
            assert_eq!(shown.unwrap(), str_of(&case["user"]));
        }
    }
}

/// Hash of the merged chain's addresses in the rows that have one.
const GIVEN: &str = "7e0a5bfd1efce7b00e78b1184c17d7eaecc0930f";

#[test]
fn user_names_mean_what_they_mean_to_the_fork_except_where_it_is_wrong() {
    let file = json("usernames_v36.json");
    let cases = list_of(&file["cases"]);
    for (index, case) in cases.iter().enumerate() {
        let (name, network) = (str_of(&case["username"]), network_of(case));
        if case["node_owner_fee_taken"].as_bool().unwrap_or_default() {
            check_fee(case, network);
            continue;
        }
        if let Ok(worker) = read(name, network) {
            assert_wish(worker.difficulty, &case["pseudoshare_target"], name);
            assert_wish(worker.payout.share_difficulty, &case["share_target"], name);
        }
        if let Some(difference) = difference(index) {
            check_difference(case, difference, network);
            continue;
        }
        assert_eq!(meaning(name, network), recorded(case), "row {index}: {name}");
        assert_eq!(&*read(name, network).unwrap().name, str_of(&case["user"]), "row {index}: {name}");
    }
    ran("usernames_v36.json", "cases", cases.len());
}
