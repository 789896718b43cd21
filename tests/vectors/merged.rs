//! Merkle tree of merged chains' blocks, its commitment in a coinbase, and proofs of work for their daemons.

use super::support::{bytes_of, digest_of, digests_of, json, list_of, number_of, ran, str_of, text};
use bitcoin::Transaction;
use bitcoin::consensus::Decodable;
use serde_json::Value;
use sharechain::merged::{COMMITMENT_BYTES, COMMITMENT_HEAD, MergedBlock, MergedTarget, MergedWork};
use sharechain::merkle::Digest;
use sharechain::share::{Target, coinbase_script};
use std::collections::BTreeMap;

fn block(chain_id: u32, hash: Digest) -> MergedBlock {
    MergedBlock {
        chain: "recorded".into(),
        chain_id,
        hash,
        target: MergedTarget::Own(Target::MAX_256),
        previous_block: [0; 32],
        height: 0,
        value: None,
        payee: "recorded".into(),
    }
}

#[test]
fn chains_stand_in_the_tree_as_recorded() {
    let file = json("auxpow.json");
    let cases = list_of(&file["trees"]);
    for case in cases {
        let block = |id: &Value| block(number_of(id).to(), digest_of(&case["hashes"][number_of(id).to_string()]));
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

/// A recorded submission: the chain's number, its block's hash and the proof.
type Submission = (u32, Digest, Vec<u8>);

/// Parts of a proof of work, read with no code of ours but this.
struct Proof {
    coinbase: Vec<u8>,
    branch: Vec<Digest>,
    header: [u8; 80],
}

impl Proof {
    fn read(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        Transaction::consensus_decode(&mut rest).unwrap();
        let (coinbase, rest) = bytes.split_at(bytes.len() - rest.len());
        // After the hash of the parent block; all recorded trees have few levels.
        let count = usize::from(rest[32]);
        let branch = rest[33..33 + 32 * count].chunks_exact(32).map(|one| one.try_into().unwrap()).collect();
        let header = rest[rest.len() - 80..].try_into().unwrap();
        Self { coinbase: coinbase.to_vec(), branch, header }
    }

    /// Commitment to all chains' blocks in the coinbase.
    fn commitment(&self) -> Vec<u8> {
        let at = self.coinbase.windows(4).position(|four| *four == COMMITMENT_HEAD).unwrap();
        self.coinbase[at..at + COMMITMENT_BYTES].to_vec()
    }
}

#[test]
fn proofs_of_work_are_as_recorded() {
    // Submissions to the daemons, by the commitment that they share.
    let mut recorded: BTreeMap<Vec<u8>, Vec<Submission>> = BTreeMap::new();
    for line in text("mm35_auxsubmit.jsonl").lines() {
        let call: Value = serde_json::from_str(line).unwrap();
        let (chain_id, bytes) = (number_of(&call["chainid"]).to(), bytes_of(&call["params"][1]));
        let one = (chain_id, digest_of(&call["params"][0]), bytes);
        recorded.entry(Proof::read(&one.2).commitment()).or_default().push(one);
    }
    let mut count = 0;
    for (commitment, calls) in recorded {
        let hashes: BTreeMap<u32, Digest> = calls.iter().map(|(chain_id, hash, _)| (*chain_id, *hash)).collect();
        // Of other trees, only some blocks were solved, so that the rest is unknown.
        if hashes.len() < 3 {
            continue;
        }
        let blocks = hashes.iter().map(|(chain_id, hash)| block(*chain_id, *hash)).collect();
        let work = MergedWork::new(blocks).unwrap();
        assert_eq!(work.commitment().unwrap().to_vec(), commitment);
        for (chain_id, _, bytes) in calls {
            let Proof { coinbase, branch, header } = Proof::read(&bytes);
            let index = work.blocks().iter().position(|block| block.chain_id == chain_id).unwrap();
            assert_eq!(hex::encode(work.proof(index, &coinbase, &branch, &header).unwrap()), hex::encode(bytes));
            count += 1;
        }
    }
    ran("mm35_auxsubmit.jsonl", "proofs", count);
}
