//! Merkle roots and branches, as Bitcoin and P2Pool use them.
//!
//! A node is `sha256d(left || right)` over raw 32-byte digests; an odd level repeats its last element.

use bitcoin::hashes::{Hash, sha256d};

/// Raw 32-byte digest, in the byte order of the hash function's output.
pub type Digest = [u8; 32];

/// Returns the root over `leaves`; all zeroes for an empty list (P2Pool's `merkle_hash`, protocol section 2).
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => [0; 32],
        [first, rest @ ..] => fold(*first, &branch_of_first(rest)),
    }
}

/// Returns the siblings on the path from the first leaf to the root, where `rest` are the leaves after the first.
///
/// The branch does not depend on the first leaf, so a coinbase can change without rehashing the block's transactions.
pub fn branch_of_first(rest: &[Digest]) -> Vec<Digest> {
    let mut branch = Vec::new();
    // `level` omits its first element, which depends on the unknown leaf.
    let mut level = rest.to_vec();
    while let Some((sibling, others)) = level.split_first() {
        branch.push(*sibling);
        level = others.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&pair[0]))).collect();
    }
    branch
}

/// Returns the root of a tree whose first leaf is `leaf`, given that leaf's `branch`.
pub fn fold(leaf: Digest, branch: &[Digest]) -> Digest {
    branch.iter().fold(leaf, |left, right| node(&left, right))
}

/// Returns the parent node of `left` and `right`.
pub fn node(left: &Digest, right: &Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    sha256d::Hash::hash(&both).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive_root(leaves: &[Digest]) -> Digest {
        let mut level = leaves.to_vec();
        while level.len() > 1 {
            if level.len() % 2 == 1 {
                level.push(level[level.len() - 1]);
            }
            level = level.chunks(2).map(|pair| node(&pair[0], &pair[1])).collect();
        }
        level[0]
    }

    #[test]
    fn branch_of_the_first_leaf_leads_to_the_same_root_for_every_size() {
        for count in 1..70u8 {
            let leaves: Vec<Digest> = (0..count).map(|index| [index; 32]).collect();
            assert_eq!(root(&leaves), naive_root(&leaves), "{count} leaves");
        }
    }

    #[test]
    fn no_leaves_have_a_zero_root() {
        assert_eq!(root(&[]), [0; 32]);
    }
}
