//! Merged chains in forged shares of version 36: where the payee is paid there, and blocks that pay the window.

use bitcoin::hashes::{Hash, sha256d};

use super::hash160;
use crate::chain::Tip;
use crate::merged::{COMMITMENT_HEAD, DOGECOIN, MergedOutputs, canonical_script};
use crate::share::{MergedAddress, MergedCoinbase, Target};

/// Start of every coinbase script.
const SCRIPT_START: [u8; 2] = [1, 1];

/// Entry that pays the payee of this number on Dogecoin, by another hash than on the parent chain.
pub fn merged_address(payee: u32) -> MergedAddress {
    let mut hash = hash160(payee);
    hash.reverse();
    MergedAddress { chain_id: DOGECOIN, script: [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat().into() }
}

/// Block of Dogecoin at `height` with `value` base units and no other transactions, whose canonical coinbase pays the
/// window of the next share on `tip`.
///
/// # Panics
/// If too little of the chain is known to build on it, or the next share is below version 36.
pub fn merged_block(tip: &Tip, value: u64, height: u64) -> MergedCoinbase {
    let next = tip.next_share(Target::BEYOND).expect("the whole window is known");
    let weights = &next.additions.expect("a version with merged weights").merged.weights;
    let outputs = MergedOutputs::new(weights, value).expect("weights of a window");
    let coinbase = outputs.coinbase(&canonical_script(height));
    let mut header = [0; 80];
    header[36..68].copy_from_slice(sha256d::Hash::hash(&coinbase).as_byte_array());
    MergedCoinbase { chain_id: DOGECOIN, value, height, header, branch: Box::default(), script: Box::default() }
}

/// Coinbase script that commits to the first of `blocks`, if there is any, in a tree of its own.
pub(super) fn script(blocks: &[MergedCoinbase]) -> Box<[u8]> {
    let Some(block) = blocks.first() else { return SCRIPT_START.into() };
    let mut root = sha256d::Hash::hash(&block.header).to_byte_array();
    root.reverse();
    [&SCRIPT_START[..], &COMMITMENT_HEAD, &root, &1_u32.to_le_bytes(), &[0; 4]].concat().into()
}
