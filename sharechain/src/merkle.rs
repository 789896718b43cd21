//! Merkle roots and branches, as Bitcoin and P2Pool use them.
//!
//! A node is `sha256d(left || right)` over raw 32-byte digests; an odd level repeats its last element.

use bitcoin::hashes::{Hash, sha256d};

/// A raw 32-byte digest, in the order that the hash function produced it.
pub type Digest = [u8; 32];

/// The root over `leaves`; all zeroes for none (P2Pool's `merkle_hash`, protocol section 2).
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => [0; 32],
        [first, rest @ ..] => fold(*first, &branch_of_first(rest)),
    }
}

/// The siblings on the way from the first leaf to the root, where `rest` are the leaves after the first.
///
/// The first leaf itself never matters: this is what lets a coinbase change without hashing the block's transactions
/// again.
pub fn branch_of_first(rest: &[Digest]) -> Vec<Digest> {
    let mut branch = Vec::new();
    // `level` always leaves out its first element, which the unknown leaf determines.
    let mut level = rest.to_vec();
    while let Some((sibling, others)) = level.split_first() {
        branch.push(*sibling);
        level = others.chunks(2).map(|pair| node(&pair[0], pair.get(1).unwrap_or(&pair[0]))).collect();
    }
    branch
}

/// The root that `leaf`, being the first of its tree, has by way of `branch`.
pub fn fold(leaf: Digest, branch: &[Digest]) -> Digest {
    branch.iter().fold(leaf, |left, right| node(&left, right))
}

/// The node above two others.
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
