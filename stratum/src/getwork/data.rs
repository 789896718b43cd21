//! `data`: a header with SHA-256's padding, in words of reversed bytes, as getwork sends and receives it.

use super::Handed;
use crate::mining::difficulty::Target;
use crate::mining::midstate::Midstate;

/// Size of `data`, in bytes: a header with SHA-256's padding.
pub const DATA_BYTES: usize = 128;

/// Padding after a header: a one bit, zeros, and its length of 640 bits, in the byte order of `data`.
const PADDING: [u8; DATA_BYTES - 80] = {
    let mut padding = [0; DATA_BYTES - 80];
    padding[3] = 0x80;
    padding[44] = 0x80;
    padding[45] = 0x02;
    padding
};

pub(super) fn render(header: &[u8; 80], target: Target) -> Handed {
    let mut data = [0; DATA_BYTES];
    data[..80].copy_from_slice(header);
    reverse_words(&mut data[..80]);
    data[80..].copy_from_slice(&PADDING);
    let mut midstate = [0; 32];
    for (bytes, word) in midstate.chunks_exact_mut(4).zip(Midstate::new(&header[..64]).chaining_value()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut target = target.to_be_bytes();
    target.reverse();
    Handed { data, midstate, target }
}

/// Header in a miner's `data`; some miners leave out the padding.
pub(super) fn header_of(data: &[u8]) -> Option<[u8; 80]> {
    if data.len() != DATA_BYTES && data.len() != 80 {
        return None;
    }
    let mut header: [u8; 80] = data[..80].try_into().expect("at least 80 bytes");
    reverse_words(&mut header);
    Some(header)
}

/// Merkle root in a header.
pub(super) fn root_of(header: &[u8; 80]) -> [u8; 32] {
    header[36..68].try_into().expect("32 of the header's 80 bytes")
}

fn reverse_words(bytes: &mut [u8]) {
    bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
}
