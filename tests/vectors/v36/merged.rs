//! Merged payouts of version 36: scripts, canonical coinbases, weights, and the proofs in recorded shares.

use crate::vectors::support::{bytes_of, digest_of, json, list_of, number_of, ran, str_of};
use ruint::aliases::U320;
use serde_json::Value;
use sharechain::merged::{
    DOGECOIN, FirstSeen, MergedKey, MergedWeights, canonical_coinbase, converted, key_of, verify,
};
use sharechain::share::MergedCoinbase;
use sharechain::share::{Bits, ShareHash, pow_sha256d};
use std::collections::BTreeMap;

/// Numbers below 2^64, as a number or as text.
fn u64_of(value: &Value) -> u64 {
    number_of(value).to()
}

fn bits_of(value: &Value) -> Bits {
    Bits(u32::from_str_radix(str_of(value), 16).unwrap())
}

/// Key of a recorded weight: a parent script, or `MERGED:` and a script.
fn key_written(text: &str) -> MergedKey {
    let script = |digits| hex::decode(digits).unwrap()[..].into();
    match text.strip_prefix("MERGED:") {
        Some(digits) => MergedKey::Merged(script(digits)),
        None => MergedKey::Parent(script(text)),
    }
}

fn weights_written(recorded: &Value) -> MergedWeights {
    let by_key = recorded["weights"].as_object().unwrap();
    MergedWeights {
        by_key: by_key.iter().map(|(key, weight)| (key_written(key), number_of(weight))).collect(),
        total: number_of(&recorded["total_weight"]),
        donation: number_of(&recorded["donation_weight"]),
    }
}

/// The same in a comparable form, without weights of 0, which are no entries.
fn listed(weights: &MergedWeights) -> (BTreeMap<MergedKey, U320>, U320, U320) {
    let by_key = weights.by_key.iter().filter(|(_, weight)| !weight.is_zero());
    (by_key.map(|(key, weight)| (key.clone(), *weight)).collect(), weights.total, weights.donation)
}

#[test]
fn scripts_are_converted_as_recorded() {
    let file = json("addresses_v36.json");
    let cases = list_of(&file["cases"]);
    for case in cases {
        let recorded = case["normalized_for_merged"].as_str().map(str::to_owned);
        let own = converted(&bytes_of(&case["script"])).map(|script| hex::encode(script.as_bytes()));
        assert_eq!(own, recorded, "{}", case["address"]);
    }
    ran("addresses_v36.json", "merged scripts", cases.len());
}

#[test]
fn canonical_coinbases_are_as_recorded() {
    let file = json("merged_coinbase.json");
    let cases = list_of(&file["cases"]);
    for case in cases {
        let (value, height) = (u64_of(&case["coinbase_value"]), u64_of(&case["block_height"]));
        let coinbase = canonical_coinbase(&weights_written(case), value, height, None).unwrap();
        assert_eq!(hex::encode(&coinbase), str_of(&case["tx_hex"]), "{}", case["name"]);
        let transaction: bitcoin::Transaction = bitcoin::consensus::deserialize(&coinbase).unwrap();
        assert_eq!(transaction.compute_txid().to_string(), str_of(&case["txid"]));
    }
    ran("merged_coinbase.json", "cases", cases.len());
}

/// What merged payouts need of a recorded share.
struct Recorded {
    hash: ShareHash,
    script: Vec<u8>,
    bits: Bits,
    donation: u16,
    desired_version: u64,
    /// `merged_addresses`; `None` below version 36.
    entries: Option<Vec<(u32, Vec<u8>)>>,
}

impl Recorded {
    fn key(&self, seen: &FirstSeen) -> MergedKey {
        match &self.entries {
            Some(entries) => {
                let entries = entries.iter().map(|(chain, script)| (*chain, &script[..]));
                key_of(DOGECOIN, &self.script, entries, seen).key
            }
            None => MergedKey::Parent(self.script[..].into()),
        }
    }

    fn teach(&self, seen: &mut FirstSeen) {
        let entries = self.entries.iter().flatten().map(|(chain, script)| (*chain, &script[..]));
        seen.add(self.hash, &self.script, entries);
    }
}

/// Weights of the newest `count` of `shares`, which stand oldest first.
fn weights_of(shares: &[Recorded], count: usize, seen: &FirstSeen) -> MergedWeights {
    let mut weights = MergedWeights::default();
    for share in shares.iter().rev().take(count).filter(|share| share.desired_version >= 36) {
        weights.count(share.key(seen), share.bits.target().attempts(), share.donation);
    }
    weights
}

/// Share of a chain file, with its `merged_coinbase_info`.
fn share_of(share: &Value) -> (Recorded, Vec<MergedCoinbase>) {
    let info = &share["fields"]["share_info"];
    let entries = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let address = |entry: &Value| (number_of(&entry["chain_id"]).to(), bytes_of(&entry["script"]));
    let coinbase = |entry: &Value| MergedCoinbase {
        chain_id: number_of(&entry["chain_id"]).to(),
        value: u64_of(&entry["coinbase_value"]),
        height: u64_of(&entry["block_height"]),
        header: bytes_of(&entry["block_header"]).try_into().unwrap(),
        branch: list_of(&entry["coinbase_merkle_branch"]).iter().map(digest_of).collect(),
        script: bytes_of(&entry["coinbase_script"]).into(),
    };
    let recorded = Recorded {
        hash: ShareHash(digest_of(&share["hash"])),
        script: bytes_of(&share["script"]),
        bits: bits_of(&info["bits"]),
        donation: number_of(&info["donation"]).to(),
        desired_version: u64_of(&info["desired_version"]),
        entries: Some(entries(&info["merged_addresses"]).iter().map(address).collect()),
    };
    (recorded, entries(&info["merged_coinbase_info"]).iter().map(coinbase).collect())
}

#[test]
fn recorded_shares_prove_their_merged_coinbases() {
    let file = json("shares_v36_merged.json");
    let window = usize::try_from(u64_of(&file["net"]["REAL_CHAIN_LENGTH"])).unwrap();
    let (mut before, mut seen) = (Vec::new(), FirstSeen::default());
    let (mut proofs, mut tables) = (0, 0);
    for share in list_of(&file["shares"]) {
        let (recorded, infos) = share_of(share);
        let weights = weights_of(&before, window, &seen);
        if share.get("merged_weights_98").is_some() {
            assert_eq!(listed(&weights), listed(&weights_written(&share["merged_weights_98"])), "{}", share["hash"]);
            tables += 1;
        }
        let script = bytes_of(&share["fields"]["share_info"]["coinbase"]);
        assert_eq!(verify(&script, &infos, |_| &weights), Ok(()), "{}", share["hash"]);
        for info in &infos {
            assert!(script.windows(32).any(|root| root.iter().rev().eq(&pow_sha256d(&info.header))));
            let other = MergedCoinbase { value: info.value + 1, ..info.clone() };
            assert_eq!(verify(&script, &[other], |_| &weights).unwrap_err().reason(), "merkle_root");
        }
        proofs += infos.len();
        recorded.teach(&mut seen);
        before.push(recorded);
    }
    before.iter().for_each(|share| seen.remove(&share.hash));
    assert_eq!(seen.memory_bytes(), 0);
    ran("shares_v36_merged.json", "merged coinbases", proofs);
    ran("shares_v36_merged.json", "merged weights", tables);
}

#[test]
fn merged_weights_of_long_windows_are_as_recorded() {
    let file = json("weights_v36.json");
    let mut seen = FirstSeen::default();
    let mut shares = Vec::new();
    for (index, row) in list_of(&file["shares"]).iter().enumerate() {
        let column = |column: usize| row[column].as_u64().unwrap();
        let payee = usize::try_from(column(1)).unwrap();
        let merged = (column(5) == 1).then(|| (DOGECOIN, bytes_of(&file["merged_script_98"][payee])));
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&index.to_le_bytes());
        let share = Recorded {
            hash: ShareHash(hash),
            script: bytes_of(&file["scripts"][payee]),
            bits: Bits(u32::try_from(column(0)).unwrap()),
            donation: u16::try_from(column(2)).unwrap(),
            desired_version: column(3),
            entries: (column(4) >= 36).then(|| merged.into_iter().collect()),
        };
        share.teach(&mut seen);
        shares.push(share);
    }
    // Queries with a limit were made of the decayed weights alone.
    let queries = list_of(&file["queries"]).iter().filter(|query| query.get("merged_98").is_some());
    let mut answered = 0;
    for query in queries {
        let [start, count] = ["start", "max_shares"].map(|key| usize::try_from(u64_of(&query[key])).unwrap());
        let weights = weights_of(&shares[..=start], count, &seen);
        assert_eq!(listed(&weights), listed(&weights_written(&query["merged_98"])), "{count} from {start}");
        answered += 1;
    }
    ran("weights_v36.json", "merged queries", answered);
}
