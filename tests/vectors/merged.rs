//! Merkle tree of merged chains' blocks, and its commitment in a coinbase.

use super::support::{bytes_of, digest_of, digests_of, json, list_of, number_of, ran, str_of};
use sharechain::merged::{MergedBlock, MergedTarget, MergedWork};
use sharechain::share::{Target, coinbase_script};

#[test]
fn chains_stand_in_the_tree_as_recorded() {
    let file = json("auxpow.json");
    let cases = list_of(&file["trees"]);
    for case in cases {
        let block = |id: &serde_json::Value| MergedBlock {
            chain: "recorded".into(),
            chain_id: number_of(id).to(),
            hash: digest_of(&case["hashes"][number_of(id).to_string()]),
            target: MergedTarget::Own(Target::MAX_256),
            previous_block: [0; 32],
            height: 0,
            value: None,
            payee: "recorded".into(),
        };
        let work = MergedWork::new(list_of(&case["chain_ids"]).iter().map(block).collect()).unwrap();
        let commitment = work.commitment().unwrap();
        assert_eq!(commitment.to_vec(), bytes_of(&case["coinbase_blob"]), "{}", case["chain_ids"]);
        assert_eq!(hex::encode(&commitment[4..36]), str_of(&case["merkle_root"]));
        assert_eq!(u64::from(commitment[36]) | u64::from(commitment[37]) << 8, case["size"].as_u64().unwrap());
        assert_eq!(*coinbase_script(500, &[&commitment], b"").unwrap(), *bytes_of(&case["coinbase_script_h500"]));
        for link in list_of(&case["links"]) {
            let of_chain = |block: &MergedBlock| u64::from(block.chain_id) == link["chain_id"].as_u64().unwrap();
            let place = work.place(work.blocks().iter().position(of_chain).unwrap()).unwrap();
            assert_eq!(u64::from(place.index), link["index"].as_u64().unwrap());
            assert_eq!(place.branch, digests_of(&link["branch"]));
        }
    }
    ran("auxpow.json", "trees", cases.len());
}
