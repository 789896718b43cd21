//! Grinds headers on the CPU.

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;
use std::time::{Duration, Instant};
use stratum::Target;

/// Initial chaining value of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A header to find a nonce for. Its first 64 bytes are hashed once.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    midstate: [u32; 8],
    /// Last 16 bytes of the header and SHA-256's padding for 80 bytes.
    second_block: [u8; 64],
}

impl Hasher {
    pub(super) fn new(header: &[u8; 80]) -> Self {
        let mut midstate = INITIAL;
        compress256(&mut midstate, &[*GenericArray::from_slice(&header[..64])]);
        let mut second_block = [0; 64];
        second_block[..16].copy_from_slice(&header[64..]);
        second_block[16] = 0x80;
        second_block[56..].copy_from_slice(&(80 * 8_u64).to_be_bytes());
        Self { midstate, second_block }
    }

    /// Hash of the header with `nonce`.
    pub(super) fn hash(&mut self, nonce: u32) -> [u8; 32] {
        self.second_block[12..16].copy_from_slice(&nonce.to_le_bytes());
        let mut inner = self.midstate;
        compress256(&mut inner, &[*GenericArray::from_slice(&self.second_block)]);
        let mut block = [0; 64];
        write_words(&mut block, &inner);
        block[32] = 0x80;
        block[56..].copy_from_slice(&(32 * 8_u64).to_be_bytes());
        let mut outer = INITIAL;
        compress256(&mut outer, &[*GenericArray::from_slice(&block)]);
        let mut hash = [0; 32];
        write_words(&mut hash, &outer);
        hash
    }

    /// Returns the first of `nonces` whose hash meets `target`.
    pub(super) fn search(&mut self, nonces: std::ops::RangeInclusive<u32>, target: Target) -> Option<u32> {
        nonces.into_iter().find(|nonce| target.is_met_by(&self.hash(*nonce)))
    }
}

fn write_words(bytes: &mut [u8], words: &[u32; 8]) {
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
}

/// Measures the hashes per second of one thread for `duration`.
pub fn measure(duration: Duration) -> f64 {
    const BATCH: u32 = 20_000;
    let mut hasher = Hasher::new(&[0; 80]);
    let mut hashes = 0_u32;
    let started = Instant::now();
    while started.elapsed() < duration {
        // An unreachable target, so that the whole batch is hashed.
        hasher.search(hashes..=hashes + BATCH - 1, Target::from_le_bytes([0; 32]));
        hashes = hashes.wrapping_add(BATCH) % (u32::MAX - BATCH);
    }
    f64::from(hashes) / started.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::constants::genesis_block;
    use bitcoin::hashes::Hash;

    #[test]
    fn the_genesis_block_has_the_hash_that_everybody_knows() {
        let block = genesis_block(bitcoin::Network::Bitcoin);
        let header: [u8; 80] = serialize(&block.header).try_into().unwrap();
        assert_eq!(Hasher::new(&header).hash(block.header.nonce), block.block_hash().to_byte_array());
    }

    #[test]
    fn a_search_finds_the_nonce_that_solves_the_genesis_block() {
        let block = genesis_block(bitcoin::Network::Bitcoin);
        let header: [u8; 80] = serialize(&block.header).try_into().unwrap();
        let target = Target::from_le_bytes(block.header.target().to_le_bytes());
        let nonce = block.header.nonce;
        assert_eq!(Hasher::new(&header).search(nonce - 1000..=nonce + 1000, target), Some(nonce));
        assert_eq!(Hasher::new(&header).search(nonce - 1000..=nonce - 1, target), None);
    }
}
