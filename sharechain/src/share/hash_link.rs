//! SHA-256 midstate links, which prove a share's coinbase without carrying it (protocol section 4.5).
//!
//! A link holds SHA-256's state after the coinbase's whole blocks. The bytes after them are the same in every coinbase,
//! so a verifier resumes from the state, adds those bytes, and ends with the bytes that the share itself commits to. From
//! version 36 on the common bytes are fewer than a block, so a link also carries those before them.

use bitcoin::hashes::{Hash, sha256};
use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

use super::donation::constant_ending;
use super::{HashLink, ShareVersion};
use crate::merkle::Digest;

/// SHA-256's block size in bytes.
const BLOCK_BYTES: usize = 64;

/// SHA-256's initial state (FIPS 180-4).
const INITIAL_STATE: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl HashLink {
    /// Creates the link of a coinbase's prefix: the stripped transaction of a share of `version` without its last 44
    /// bytes.
    pub fn of_prefix(version: ShareVersion, prefix: &[u8]) -> HashLink {
        let ending = constant_ending(version);
        debug_assert!(prefix.ends_with(ending));
        let mut link = HashLink::of_bytes(prefix);
        let (_, tail) = prefix.split_at(prefix.len() - link.unhashed());
        link.extra_data = tail[..link.extra_bytes(version)].into();
        link
    }

    /// Number of bytes after the last whole block.
    fn unhashed(&self) -> usize {
        usize::try_from(self.length % BLOCK_BYTES as u64).expect("less than a block")
    }

    /// Number of bytes that `extra_data` must have in a share of `version`: those after the last whole block, without
    /// the constant ending (protocol-v36 section 3.4).
    pub(super) fn extra_bytes(&self, version: ShareVersion) -> usize {
        self.unhashed().saturating_sub(constant_ending(version).len())
    }

    /// Creates the link of any bytes, without the tail, which the verifier must know.
    pub fn of_bytes(bytes: &[u8]) -> HashLink {
        let mut state = INITIAL_STATE;
        let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            compress256(&mut state, &[GenericArray::from(*block)]);
        }
        HashLink { state: state_bytes(&state), extra_data: Box::default(), length: bytes.len() as u64 }
    }

    /// Returns the txid of the coinbase of a share of `version` that ends with `ref_hash`, `last_txout_nonce` and a lock
    /// time of 0.
    pub fn gentx_hash(&self, version: ShareVersion, ref_hash: &Digest, last_txout_nonce: u64) -> Digest {
        let mut data = [0; 44];
        data[..32].copy_from_slice(ref_hash);
        data[32..40].copy_from_slice(&last_txout_nonce.to_le_bytes());
        let ending = constant_ending(version);
        if self.extra_data.is_empty() {
            return self.double_hash(ending, &data);
        }
        self.double_hash(&[&self.extra_data[..], ending].concat(), &data)
    }

    /// Returns the double hash of the linked bytes followed by `data`, where `ending` are the last linked bytes (at
    /// least those after the last whole block).
    pub fn double_hash(&self, ending: &[u8], data: &[u8]) -> Digest {
        let buffered = &ending[ending.len() - self.unhashed().min(ending.len())..];

        // SHA-256's padding: a one bit, zeroes, and the length in bits.
        let mut rest = Vec::with_capacity(buffered.len() + data.len() + 2 * BLOCK_BYTES);
        rest.extend_from_slice(buffered);
        rest.extend_from_slice(data);
        rest.push(0x80);
        rest.resize((rest.len() + 8).next_multiple_of(BLOCK_BYTES) - 8, 0);
        // The format refuses lengths whose bit count does not fit.
        let bits = self.length.wrapping_add(data.len() as u64).wrapping_mul(8);
        rest.extend_from_slice(&bits.to_be_bytes());

        let mut state = self.words();
        let (blocks, _) = rest.as_chunks::<BLOCK_BYTES>();
        for block in blocks {
            compress256(&mut state, &[GenericArray::from(*block)]);
        }
        sha256::Hash::hash(&state_bytes(&state)).to_byte_array()
    }

    fn words(&self) -> [u32; 8] {
        let (words, _) = self.state.as_chunks::<4>();
        std::array::from_fn(|index| u32::from_be_bytes(words[index]))
    }
}

fn state_bytes(state: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, word) in bytes.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::sha256d;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_link_leads_to_the_hash_of_the_whole(
            head in prop::collection::vec(any::<u8>(), 0..300), ref_hash: [u8; 32], nonce: u64, is_36: bool,
        ) {
            let version = if is_36 { ShareVersion::V36 } else { ShareVersion::V35 };
            let prefix = [&head[..], constant_ending(version)].concat();
            let whole = [&prefix[..], &ref_hash, &nonce.to_le_bytes(), &[0; 4]].concat();
            let link = HashLink::of_prefix(version, &prefix);
            prop_assert_eq!(link.extra_data.len(), if is_36 { (prefix.len() % 64).saturating_sub(35) } else { 0 });
            prop_assert_eq!(link.gentx_hash(version, &ref_hash, nonce), sha256d::Hash::hash(&whole).to_byte_array());
        }

        #[test]
        fn no_link_makes_it_panic(state: [u8; 32], extra: Vec<u8>, length: u64, ref_hash: [u8; 32]) {
            let link = HashLink { state, extra_data: extra.into(), length };
            for version in ShareVersion::ALL {
                let _ = link.gentx_hash(*version, &ref_hash, 0);
            }
        }
    }
}
