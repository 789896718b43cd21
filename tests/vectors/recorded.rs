//! The reference's own share file, and two shares from public networks.

use super::support::{address_rules, json, list_of, ran, rules_of, str_of, text};
use sharechain::share::{self, Share, ShareHash};
use std::collections::HashSet;

#[test]
fn every_line_of_the_references_share_file_is_a_good_share_or_the_hash_of_one() {
    let rules = rules_of(&json("shares_run17_v17_to_v35_segwit.json")["net"]);
    let (mut shares, mut marks) = (HashSet::<ShareHash>::new(), Vec::new());
    let mut count = 0;
    for line in text("share_store_run17.txt").lines() {
        match line.split_once(' ') {
            Some(("5", share)) => {
                let bytes = hex::decode(share).unwrap();
                let share = Share::from_bytes(&bytes, &rules).unwrap();
                assert_eq!(share.to_bytes(), bytes);
                shares.insert(share.hash());
            }
            Some(("2", hash)) => marks.push(hash.to_owned()),
            _ => panic!("unknown line {line}"),
        }
        count += 1;
    }
    let shares: HashSet<String> = shares.iter().map(ShareHash::to_string).collect();
    assert!(marks.iter().all(|hash| shares.contains(&format!("{hash:0>64}"))));
    ran("share_store_run17.txt", "lines", count);
}

#[test]
fn shares_of_public_networks_read_and_write_as_they_were_seen() {
    let file = json("public_shares.json");
    let cases = list_of(&file);
    for case in cases {
        let version = |key: &str| u8::try_from(case[key].as_u64().unwrap()).unwrap();
        let rules = address_rules(
            version("ADDRESS_VERSION"),
            version("ADDRESS_P2SH_VERSION"),
            str_of(&case["HUMAN_READABLE_PART"]),
        );
        let raw = hex::decode(str_of(&case["raw"])).unwrap();
        let contents = share::unpack(&raw, &rules).unwrap();
        assert_eq!(share::pack(&contents), raw);
        let shown = share::inspect(&raw, &rules).unwrap();
        assert_eq!(shown["version"], case["version"]);
        for (path, expected) in case["fields"].as_object().unwrap() {
            assert_eq!(shown["fields"].pointer(path), Some(expected), "{path}");
        }
    }
    ran("public_shares.json", "cases", cases.len());
}
