//! Proofs recorded from the Python node, and proofs built by hand with every part open to change.

use super::*;
use bitcoin::hashes::sha256d;
use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::Value;
use std::io::Read;

/// Parts of a proof, serialised by hand.
#[derive(Debug, Clone)]
pub(in crate::embedded::auxiliary) struct Parts {
    pub(in crate::embedded::auxiliary) script: Vec<u8>,
    pub(in crate::embedded::auxiliary) coinbase_siblings: Vec<Digest>,
    pub(in crate::embedded::auxiliary) coinbase_index: u32,
    pub(in crate::embedded::auxiliary) chain_siblings: Vec<Digest>,
    pub(in crate::embedded::auxiliary) chain_index: u32,
    pub(in crate::embedded::auxiliary) version: u32,
    pub(in crate::embedded::auxiliary) nonce: u32,
}

fn node(left: Digest, right: Digest) -> Digest {
    sha256d::Hash::hash(&[left, right].concat()).to_byte_array()
}

fn slot_by_definition(nonce: u32, chain_id: u32, levels: u32) -> u32 {
    let numbers = [1_103_515_245_u128, 12_345];
    let seed = u128::from(nonce) * numbers[0] + numbers[1] + u128::from(chain_id);
    u32::try_from((seed * numbers[0] + numbers[1]) % (1 << levels)).unwrap()
}

/// Root of the tree above `block` in slot `index`, as written in a coinbase.
fn root_above(block: Digest, index: u32, siblings: &[Digest]) -> Digest {
    let mut root = siblings.iter().enumerate().fold(block, |below, (height, sibling)| {
        if index >> height & 1 == 1 { node(*sibling, below) } else { node(below, *sibling) }
    });
    root.reverse();
    root
}

impl Parts {
    /// A proof for `block`, in a tree of `levels` and with two transactions beside the coinbase. Not mined.
    pub(in crate::embedded::auxiliary) fn of(block: BlockHash, chain_id: u32, levels: u32) -> Self {
        Self::with_nonce(block, chain_id, levels, 0)
    }

    fn with_nonce(block: BlockHash, chain_id: u32, levels: u32, tree_nonce: u32) -> Self {
        let chain_index = slot_by_definition(tree_nonce, chain_id, levels);
        let chain_siblings: Vec<Digest> =
            (0..levels).map(|level| sha256d::Hash::hash(&level.to_le_bytes()).to_byte_array()).collect();
        let root = root_above(block.to_byte_array(), chain_index, &chain_siblings);
        let size = 1_u32 << levels;
        let tree = [&MARK[..], &root[..], &size.to_le_bytes(), &tree_nonce.to_le_bytes()].concat();
        let script = [&[3, 1, 2, 3, 44][..], &tree, b"a pool"].concat();
        let coinbase_siblings = vec![[7; 32], [8; 32]];
        let version = 0x2000_0000;
        Self { script, coinbase_siblings, coinbase_index: 0, chain_siblings, chain_index, version, nonce: 0 }
    }

    fn coinbase(&self) -> Vec<u8> {
        let mut bytes = vec![1, 0, 0, 0, 1];
        bytes.extend([0; 32]);
        bytes.extend([0xff; 4]);
        bytes.push(u8::try_from(self.script.len()).unwrap());
        bytes.extend(&self.script);
        bytes.extend([0xff; 4]);
        // One output, to anyone.
        bytes.push(1);
        bytes.extend(5_000_000_000_u64.to_le_bytes());
        bytes.extend([1, 0x51, 0, 0, 0, 0]);
        bytes
    }

    fn header(&self) -> [u8; 80] {
        let hash = sha256d::Hash::hash(&self.coinbase()).to_byte_array();
        let root = self.coinbase_siblings.iter().fold(hash, |left, right| node(left, *right));
        let ends = [1_700_000_000, 0x1d00_ffff, self.nonce].map(u32::to_le_bytes).concat();
        [&self.version.to_le_bytes()[..], &[9; 32], &root, &ends].concat().try_into().unwrap()
    }

    pub(in crate::embedded::auxiliary) fn serialise(&self) -> Vec<u8> {
        let branch = |siblings: &[Digest], index: u32| {
            [&[u8::try_from(siblings.len()).unwrap()][..], siblings.as_flattened(), &index.to_le_bytes()].concat()
        };
        let coinbase_branch = branch(&self.coinbase_siblings, self.coinbase_index);
        let chain_branch = branch(&self.chain_siblings, self.chain_index);
        [&self.coinbase()[..], &[0xab; 32], &coinbase_branch, &chain_branch, &self.header()].concat()
    }

    /// Finds a nonce whose proof of work meets `target`, or does not meet it.
    pub(in crate::embedded::auxiliary) fn mine(&mut self, target: Target, pow: ParentPow, is_met: bool) {
        while (Target::from_le_bytes(pow.hash(&self.header())) <= target) != is_met {
            self.nonce += 1;
        }
    }

    fn verdict(&self, claim: &Claim) -> Result<(), ProofError> {
        AuxProof::parse(&self.serialise()).unwrap().check(claim)
    }
}

fn block() -> BlockHash {
    BlockHash::hash(b"a block of a merged chain")
}

/// Claim that any header of the right form proves.
fn claim() -> Claim {
    Claim { block: block(), chain_id: 98, target: Target::from_le_bytes([0xff; 32]), pow: ParentPow::Sha256d }
}

fn unpacked(packed: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    text
}

/// Target whose first eight digits are these.
fn target_of(digits: u32) -> Target {
    let mut bytes = [0xff; 32];
    bytes[..4].copy_from_slice(&digits.to_be_bytes());
    Target::from_be_bytes(bytes)
}

#[test]
fn every_proof_that_the_python_node_submitted_is_good() {
    let text = unpacked(include_bytes!("../../../../tests/vectors/data/mm35_auxsubmit.jsonl.gz"));
    let (mut count, mut too_hard) = (0, 0);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let chain_id = u32::try_from(line["chainid"].as_u64().unwrap()).unwrap();
        // The targets of the recording; 16-fold harder ones refuse most proofs.
        let digits = match chain_id {
            1 => 0x3fff,
            98 => 0x1fff,
            _ => 0xfff,
        };
        let block = line["params"][0].as_str().unwrap().parse().unwrap();
        let proof = AuxProof::parse(&hex::decode(line["params"][1].as_str().unwrap()).unwrap()).unwrap();
        let claim = Claim { block, chain_id, target: target_of(digits), pow: ParentPow::Sha256d };
        assert_eq!(proof.check(&claim), Ok(()), "{line}");
        let harder = proof.check(&Claim { target: target_of(digits / 16), ..claim });
        too_hard += usize::from(harder == Err(ProofError::HighHash));
        let other = Claim { chain_id: if chain_id == 1 { 6 } else { 1 }, ..claim };
        assert!(matches!(proof.check(&other), Err(ProofError::Slot { .. })), "one slot is one chain's");
        assert_eq!(proof.check(&Claim { block: self::block(), ..claim }), Err(ProofError::RootMissing));
        count += 1;
    }
    assert_eq!(count, 279);
    assert!((230..279).contains(&too_hard), "{too_hard}");
}

#[test]
fn trees_of_the_python_node_lead_to_their_roots() {
    let text = unpacked(include_bytes!("../../../../tests/vectors/data/auxpow.json.gz"));
    let file: Value = serde_json::from_str(&text).unwrap();
    let digest = |value: &Value| -> Digest {
        let mut bytes = hex::decode(value.as_str().unwrap()).unwrap();
        bytes.reverse();
        bytes.try_into().unwrap()
    };
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let mut count = 0;
    for tree in file["trees"].as_array().unwrap() {
        for link in tree["links"].as_array().unwrap() {
            let chain_id = number(&link["chain_id"]);
            let block = BlockHash::from_byte_array(digest(&tree["hashes"][chain_id.to_string()]));
            let parts = Parts {
                script: hex::decode(tree["coinbase_script_h500"].as_str().unwrap()).unwrap(),
                chain_siblings: link["branch"].as_array().unwrap().iter().map(digest).collect(),
                chain_index: number(&link["index"]),
                // None of the chains has the number 0x7fff.
                version: 0x7fff_0000,
                ..Parts::of(block, chain_id, 0)
            };
            assert_eq!(parts.verdict(&Claim { block, chain_id, ..claim() }), Ok(()), "{link}");
            count += 1;
        }
    }
    assert!(count > 12, "{count}");
    // Random parts: it parses, and is no proof.
    let packed = hex::decode(file["aux_pow"]["packed"].as_str().unwrap()).unwrap();
    assert_eq!(AuxProof::parse(&packed).unwrap().check(&claim()), Err(ProofError::MerkleRoot));
}

proptest! {
    #[test]
    fn a_proof_holds_in_a_tree_of_any_size(chain_id in 0_u32..0x2000, levels in 0_u32..=30, nonce: u32) {
        let parts = Parts::with_nonce(block(), chain_id, levels, nonce);
        prop_assert_eq!(parts.verdict(&Claim { chain_id, ..claim() }), Ok(()));
    }

    #[test]
    fn a_proof_with_any_bit_changed_is_refused(levels in 0_u32..5, at in 0_usize..1000, bit in 0_u8..8) {
        let parts = Parts::of(block(), 98, levels);
        let good = parts.serialise();
        let (at, header) = (at % good.len(), good.len() - 80);
        let mut bytes = good.clone();
        bytes[at] ^= 1 << bit;
        let verdict = AuxProof::parse(&bytes).map(|proof| proof.check(&claim()));
        // The hash of the parent block, and what of the header only its own chain looks at.
        let ignored = parts.coinbase().len()..parts.coinbase().len() + 32;
        let is_free = ignored.contains(&at) || (header + 4..header + 36).contains(&at) || at >= header + 68;
        let is_version = (header..header + 4).contains(&at);
        prop_assert!(is_version || (verdict == Ok(Ok(()))) == is_free, "byte {} of {}: {:?}", at, good.len(), verdict);
    }

    #[test]
    fn bytes_of_any_kind_are_judged_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cut in 0_usize..1000,
    ) {
        let _ = AuxProof::parse(&bytes).map(|proof| proof.check(&claim()));
        let good = Parts::of(block(), 98, 3).serialise();
        let cut = cut % good.len();
        prop_assert!(AuxProof::parse(&good[..cut]).is_err());
        let spliced = [&good[..cut], &bytes[..]].concat();
        let _ = AuxProof::parse(&spliced).map(|proof| proof.check(&claim()));
    }
}

#[test]
fn each_rule_refuses_with_its_own_reason() {
    let good = Parts::of(block(), 98, 2);
    let at = find(&good.script, &MARK).unwrap();
    let edited = |edit: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        edit(&mut parts);
        parts.verdict(&claim())
    };
    assert_eq!(edited(&|_| {}), Ok(()));
    assert_eq!(edited(&|parts| parts.coinbase_index = 1), Err(ProofError::NotCoinbase(1)));
    assert_eq!(edited(&|parts| parts.version = 98 << 16 | 0x104), Err(ProofError::OwnParent(98)));
    assert_eq!(edited(&|parts| parts.version = 98 << 17), Ok(()));
    let long = edited(&|parts| parts.chain_siblings.resize(31, [0; 32]));
    assert_eq!(long, Err(ProofError::ChainBranchLength(31)));
    assert_eq!(edited(&|parts| parts.script[at + 4] ^= 1), Err(ProofError::RootMissing));
    assert_eq!(edited(&|parts| parts.chain_index ^= 1), Err(ProofError::RootMissing));
    assert_eq!(edited(&|parts| parts.script.extend(MARK)), Err(ProofError::TwoMarks));
    assert_eq!(edited(&|parts| drop(parts.script.splice(..0, MARK))), Err(ProofError::TwoMarks));
    assert_eq!(edited(&|parts| parts.script.insert(at + 4, 0)), Err(ProofError::MarkElsewhere));
    assert_eq!(edited(&|parts| parts.script.truncate(at + 4 + 32 + 7)), Err(ProofError::SizeMissing));
    assert_eq!(edited(&|parts| parts.script[at + 36] = 8), Err(ProofError::Size { size: 8, branch: 2 }));
    let wrong = edited(&|parts| parts.script[at + 40] = 1);
    let slots = [1, 0].map(|nonce| slot_by_definition(nonce, 98, 2));
    assert_ne!(slots[0], slots[1]);
    assert_eq!(wrong, Err(ProofError::Slot { found: slots[1], expected: slots[0] }));
}

#[test]
fn without_a_mark_the_root_begins_within_the_first_bytes() {
    let marked = Parts::of(block(), 98, 1);
    let at = find(&marked.script, &MARK).unwrap();
    for (bytes, verdict) in [(0, Ok(())), (20, Ok(())), (21, Err(ProofError::RootTooLate(21)))] {
        let script = [&vec![0; bytes][..], &marked.script[at + 4..]].concat();
        assert_eq!(Parts { script, ..marked.clone() }.verdict(&claim()), verdict);
    }
}

#[test]
fn a_coinbase_of_another_block_proves_nothing() {
    let good = Parts::of(block(), 98, 0);
    let mut bytes = good.serialise();
    let other = Parts { coinbase_siblings: vec![[1; 32]], ..good };
    let header = bytes.len() - 80;
    bytes[header..].copy_from_slice(&other.header());
    assert_eq!(AuxProof::parse(&bytes).unwrap().check(&claim()), Err(ProofError::MerkleRoot));
}

#[test]
fn the_parents_own_function_judges_its_proof_of_work() {
    let target = target_of(0x07ff_ffff);
    for pow in [ParentPow::Sha256d, ParentPow::Scrypt] {
        let claim = Claim { target, pow, ..claim() };
        let mut parts = Parts::of(block(), 98, 0);
        parts.mine(target, pow, false);
        assert_eq!(parts.verdict(&claim), Err(ProofError::HighHash), "{pow:?}");
        parts.mine(target, pow, true);
        assert_eq!(parts.verdict(&claim), Ok(()), "{pow:?}");
    }
}

#[test]
fn litecoins_genesis_block_has_its_proof_of_work() {
    let header = "010000000000000000000000000000000000000000000000000000000000000000000000d9ced4ed1130f7b7faad9be25323ff\
                  afa33232a17c3edf6cfd97bee6bafbdd97b9aa8e4ef0ff0f1ecd513f7c";
    let header = hex::decode(header).unwrap().try_into().unwrap();
    let target = Target::from_compact(bitcoin::CompactTarget::from_consensus(0x1e0f_fff0));
    assert!(Target::from_le_bytes(ParentPow::Scrypt.hash(&header)) <= target);
    assert!(Target::from_le_bytes(ParentPow::Sha256d.hash(&header)) > target);
}

#[test]
fn bytes_after_the_end_and_witnesses_are_no_proof() {
    let good = Parts::of(block(), 98, 0).serialise();
    let more = [&good[..], &[0]].concat();
    assert_eq!(AuxProof::parse(&more), Err(DecodeError::TrailingBytes(1)));
    let with_witness = [&good[..4], &[0, 1], &good[4..]].concat();
    assert_eq!(AuxProof::parse(&with_witness), Err(DecodeError::NoInputs));
    let header_cut = &good[..good.len() - 1];
    assert_eq!(AuxProof::parse(header_cut), Err(DecodeError::Part("header of the parent block")));
}

#[test]
fn a_branch_that_the_bytes_cannot_hold_takes_no_memory() {
    let parts = Parts::of(block(), 98, 0);
    let mut bytes = [&parts.coinbase()[..], &[0; 32]].concat();
    bytes.extend([0xff; 9]);
    assert_eq!(AuxProof::parse(&bytes), Err(DecodeError::Part("branch of the coinbase")));
}
