//! Grinds headers on the CPU.

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;
use sharechain::coin::Pow;
use std::time::{Duration, Instant};
use stratum::Target;

/// Initial chaining value of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// A header to find a nonce for.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    /// The first 64 bytes are hashed once.
    Sha256d {
        midstate: [u32; 8],
        /// Last 16 bytes of the header and SHA-256's padding for 80 bytes.
        second_block: [u8; 64],
    },
    /// All of the header is password and salt: nothing of it is hashed once.
    Scrypt([u8; 80]),
}

impl Hasher {
    pub(super) fn new(pow: Pow, header: &[u8; 80]) -> Self {
        match pow {
            Pow::Sha256d => {
                let mut midstate = INITIAL;
                compress256(&mut midstate, &[*GenericArray::from_slice(&header[..64])]);
                let mut second_block = [0; 64];
                second_block[..16].copy_from_slice(&header[64..]);
                second_block[16] = 0x80;
                second_block[56..].copy_from_slice(&(80 * 8_u64).to_be_bytes());
                Self::Sha256d { midstate, second_block }
            }
            Pow::Scrypt => Self::Scrypt(*header),
        }
    }

    /// Hash of the header with `nonce`.
    pub(super) fn hash(&mut self, nonce: u32) -> [u8; 32] {
        match self {
            Self::Sha256d { midstate, second_block } => {
                second_block[12..16].copy_from_slice(&nonce.to_le_bytes());
                sha256d_from(*midstate, second_block)
            }
            Self::Scrypt(header) => {
                header[76..].copy_from_slice(&nonce.to_le_bytes());
                Pow::Scrypt.function()(header)
            }
        }
    }

    /// Returns the first of `nonces` whose hash meets `target`.
    pub(super) fn search(&mut self, nonces: std::ops::RangeInclusive<u32>, target: Target) -> Option<u32> {
        nonces.into_iter().find(|nonce| target.is_met_by(&self.hash(*nonce)))
    }
}

fn sha256d_from(midstate: [u32; 8], second_block: &[u8; 64]) -> [u8; 32] {
    let mut inner = midstate;
    compress256(&mut inner, &[*GenericArray::from_slice(second_block)]);
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

fn write_words(bytes: &mut [u8], words: &[u32; 8]) {
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&word.to_be_bytes());
    }
}

/// Number of nonces that one thread tries without a look at the clock or for a new job: a small part of a second.
pub(super) fn batch_max(pow: Pow) -> u32 {
    match pow {
        Pow::Sha256d => 1 << 16,
        Pow::Scrypt => 1 << 7,
    }
}

/// Measures the hashes per second of one thread for `duration`.
pub fn measure(pow: Pow, duration: Duration) -> f64 {
    let batch = batch_max(pow);
    let mut hasher = Hasher::new(pow, &[0; 80]);
    let mut hashes = 0_u32;
    let started = Instant::now();
    while started.elapsed() < duration {
        // An unreachable target, so that the whole batch is hashed.
        hasher.search(hashes..=hashes + batch - 1, Target::from_le_bytes([0; 32]));
        hashes = hashes.wrapping_add(batch) % (u32::MAX - batch);
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
        assert_eq!(Hasher::new(Pow::Sha256d, &header).hash(block.header.nonce), block.block_hash().to_byte_array());
    }

    #[test]
    fn a_search_finds_the_nonce_that_solves_the_genesis_block() {
        let block = genesis_block(bitcoin::Network::Bitcoin);
        let header: [u8; 80] = serialize(&block.header).try_into().unwrap();
        let target = Target::from_le_bytes(block.header.target().to_le_bytes());
        let nonce = block.header.nonce;
        assert_eq!(Hasher::new(Pow::Sha256d, &header).search(nonce - 1000..=nonce + 1000, target), Some(nonce));
        assert_eq!(Hasher::new(Pow::Sha256d, &header).search(nonce - 1000..=nonce - 1, target), None);
    }

    #[test]
    fn a_search_with_scrypt_finds_the_nonce_that_solves_litecoins_genesis_block() {
        // From Litecoin's sources: version 1, no previous block, root, time, bits.
        let mut header = [0; 80];
        header[0] = 1;
        let root = "d9ced4ed1130f7b7faad9be25323ffafa33232a17c3edf6cfd97bee6bafbdd97";
        hex::decode_to_slice(root, &mut header[36..68]).unwrap();
        header[68..72].copy_from_slice(&1_317_972_665_u32.to_le_bytes());
        header[72..76].copy_from_slice(&0x1e0f_fff0_u32.to_le_bytes());
        let nonce = 2_084_524_493;
        let target = bitcoin::Target::from_compact(bitcoin::CompactTarget::from_consensus(0x1e0f_fff0));
        let target = Target::from_le_bytes(target.to_le_bytes());
        let mut hasher = Hasher::new(Pow::Scrypt, &header);
        assert_eq!(hasher.search(nonce - 20..=nonce + 20, target), Some(nonce));
        assert_eq!(hasher.search(nonce - 20..=nonce - 1, target), None);
    }
}
