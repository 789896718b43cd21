//! `Midstate`: resumable SHA-256, so that a common prefix of many messages is hashed once.

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

/// SHA-256 block size in bytes.
const BLOCK: usize = 64;

/// Initial chaining value of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 state after a prefix of the message.
#[derive(Debug, Clone)]
pub struct Midstate {
    state: [u32; 8],
    /// Bytes that do not fill a block yet.
    rest: [u8; BLOCK],
    rest_len: usize,
    /// Total bytes hashed so far.
    length: u64,
}

impl Midstate {
    /// Creates the state after `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        let mut midstate = Self { state: INITIAL, rest: [0; BLOCK], rest_len: 0, length: 0 };
        midstate.update(prefix);
        midstate
    }

    /// Creates the state after `hashed` bytes of whole blocks, with the chaining value `state` (words in big-endian
    /// order), followed by `rest`.
    ///
    /// # Panics
    /// If `hashed` is not a multiple of 64.
    pub fn resume(state: &[u8; 32], hashed: u64, rest: &[u8]) -> Self {
        assert_eq!(hashed % BLOCK as u64, 0, "chaining values exist only after whole blocks");
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(state.chunks_exact(4)) {
            *word = u32::from_be_bytes(bytes.try_into().expect("chunks of four"));
        }
        let mut midstate = Self { state: words, rest: [0; BLOCK], rest_len: 0, length: hashed };
        midstate.update(rest);
        midstate
    }

    /// Adds `bytes`.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.rest_len > 0 {
            let (fill, behind) = bytes.split_at(bytes.len().min(BLOCK - self.rest_len));
            self.rest[self.rest_len..self.rest_len + fill.len()].copy_from_slice(fill);
            self.rest_len += fill.len();
            bytes = behind;
            if self.rest_len < BLOCK {
                return;
            }
            compress256(&mut self.state, &[GenericArray::clone_from_slice(&self.rest)]);
            self.rest_len = 0;
        }
        let blocks = bytes.chunks_exact(BLOCK);
        let left = blocks.remainder();
        for block in blocks {
            compress256(&mut self.state, std::slice::from_ref(GenericArray::from_slice(block)));
        }
        self.rest[..left.len()].copy_from_slice(left);
        self.rest_len = left.len();
    }

    /// Chaining value after the whole blocks so far; there must be no bytes left over.
    pub(crate) fn chaining_value(&self) -> [u32; 8] {
        debug_assert_eq!(self.rest_len, 0, "chaining values exist only after whole blocks");
        self.state
    }

    /// Double SHA-256 of all bytes so far.
    pub fn finish_double(self) -> [u8; 32] {
        hashed_again(self.finish())
    }

    /// SHA-256 of all bytes so far.
    pub fn finish(mut self) -> [u8; 32] {
        let bits = self.length * 8;
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        // Pads up to eight bytes before the end of a block, where the length goes.
        let zeros = (BLOCK + BLOCK - 8 - self.rest_len - 1) % BLOCK + 1;
        padding[zeros..zeros + 8].copy_from_slice(&bits.to_be_bytes());
        self.update(&padding[..zeros + 8]);
        bytes_of(self.state)
    }
}

/// Double SHA-256 of two concatenated hashes: one step up a merkle tree. A submission takes a dozen of them, so this
/// and the next two functions avoid the buffers of the general one.
pub(crate) fn double_sha256_of_pair(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut blocks = [GenericArray::from([0; BLOCK]); 2];
    blocks[0][..32].copy_from_slice(left);
    blocks[0][32..].copy_from_slice(right);
    blocks[1][0] = 0x80;
    blocks[1][BLOCK - 8..].copy_from_slice(&512_u64.to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &blocks);
    hashed_again(bytes_of(state))
}

/// Double SHA-256 of a block header: the block hash.
pub(crate) fn double_sha256_of_header(header: &[u8; 80]) -> [u8; 32] {
    let mut blocks = [GenericArray::from([0; BLOCK]); 2];
    blocks[0].copy_from_slice(&header[..BLOCK]);
    blocks[1][..80 - BLOCK].copy_from_slice(&header[BLOCK..]);
    blocks[1][80 - BLOCK] = 0x80;
    blocks[1][BLOCK - 8..].copy_from_slice(&640_u64.to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &blocks);
    hashed_again(bytes_of(state))
}

/// SHA-256 of a hash.
fn hashed_again(hash: [u8; 32]) -> [u8; 32] {
    let mut block = GenericArray::from([0; BLOCK]);
    block[..32].copy_from_slice(&hash);
    block[32] = 0x80;
    block[BLOCK - 8..].copy_from_slice(&256_u64.to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    bytes_of(state)
}

fn bytes_of(state: [u32; 8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn double_sha256(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(Sha256::digest(bytes)).into()
    }

    proptest! {
        #[test]
        fn pairs_headers_and_what_follows_a_midstate_are_hashed_twice(
            bytes in proptest::collection::vec(any::<u8>(), 80)
        ) {
            let header: [u8; 80] = bytes.clone().try_into().unwrap();
            prop_assert_eq!(double_sha256_of_header(&header), double_sha256(&bytes));
            prop_assert_eq!(Midstate::new(&bytes).finish_double(), double_sha256(&bytes));
            let (left, right) = (header[..32].try_into().unwrap(), header[32..64].try_into().unwrap());
            prop_assert_eq!(double_sha256_of_pair(left, right), double_sha256(&bytes[..64]));
        }

        #[test]
        fn however_the_bytes_are_cut_the_hash_is_sha_256(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400
        ) {
            let (before, after) = bytes.split_at(cut.min(bytes.len()));
            let mut midstate = Midstate::new(before);
            midstate.update(after);
            prop_assert_eq!(midstate.finish(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        }

        #[test]
        fn a_chaining_value_goes_on_where_it_stopped(
            bytes in proptest::collection::vec(any::<u8>(), 64..400), blocks in 1usize..6
        ) {
            let hashed = (64 * blocks).min(bytes.len() / 64 * 64);
            let before = Midstate::new(&bytes[..hashed]);
            let mut state = [0; 32];
            for (to, word) in state.chunks_exact_mut(4).zip(before.state) {
                to.copy_from_slice(&word.to_be_bytes());
            }
            let resumed = Midstate::resume(&state, hashed as u64, &bytes[hashed..]);
            prop_assert_eq!(resumed.finish(), <[u8; 32]>::from(Sha256::digest(&bytes)));
        }
    }
}
