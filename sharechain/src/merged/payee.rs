//! Payees on a merged chain (protocol-v36 sections 8.1 and 8.2): conversion of parent scripts, the key of each share,
//! and the weights by key.

use ruint::aliases::U320;
use serde::{Deserialize, Serialize};

use super::first_seen::FirstSeen;
use super::script_kinds::{self, Kind};
use crate::map::Map;
use crate::script::Script;
use crate::share::Attempts;

/// Denominator of a share's `donation`.
const WHOLE: u32 = 65_535;

/// Returns the script on a merged chain for the payee of `parent_script`: the same pubkey hash or script hash. `None`
/// if the merged chain cannot pay this kind (protocol-v36 section 8.1).
pub fn converted(parent_script: &[u8]) -> Option<Script> {
    match script_kinds::of(parent_script)? {
        Kind::P2pkh | Kind::P2sh => Some(parent_script.into()),
        Kind::P2wpkh(hash) => Some(script_kinds::p2pkh(hash)[..].into()),
    }
}

/// Payee of the merged weights. Keys of different kinds are different even if their bytes are equal; the merged
/// coinbase may still pay both with one output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MergedKey {
    /// Script of the merged chain, paid as it is.
    Merged(Script),
    /// Script of the parent chain, paid by [`converted`]. The key of each share below version 36.
    Parent(Script),
}

/// Key of one share, and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareKey {
    /// Key that the share's weight counts for.
    pub key: MergedKey,
    /// True if the share has no entry for the chain, so that the key depends on what this node has seen: it holds as
    /// long as [`FirstSeen::generation`]. Nodes can disagree about windows with such a share (protocol-v36 trap 8).
    pub is_looked_up: bool,
}

/// Returns the key on the merged chain `chain` of a share of version 36 or later with the payee `script` and these
/// `merged_addresses` (chain, script), in the order of protocol-v36 section 8.2. The key of an earlier share is always
/// [`MergedKey::Parent`].
pub fn key_of<'a>(
    chain: u32,
    script: &[u8],
    merged_addresses: impl IntoIterator<Item = (u32, &'a [u8])>,
    seen: &FirstSeen,
) -> ShareKey {
    // Of this chain's entries the first counts, even with an empty script.
    if let Some((_, merged)) = merged_addresses.into_iter().find(|(id, _)| *id == chain) {
        return ShareKey { key: MergedKey::Merged(merged.into()), is_looked_up: false };
    }
    let key = match seen.find(chain, script) {
        Some(merged) => MergedKey::Merged(merged.clone()),
        None => MergedKey::Parent(script.into()),
    };
    ShareKey { key, is_looked_up: true }
}

/// Weights on a merged chain by key: attempts times 65535, undecayed, of the shares that vote for version 36 or later
/// (protocol-v36 section 8.2).
///
/// `total` is the sum of all weights and of `donation`. A window of 2^16 shares stays below 2^288.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ListedWeights", into = "ListedWeights")]
pub struct MergedWeights {
    /// Weight of each key; a weight of 0 counts as absent.
    pub by_key: Map<MergedKey, U320>,
    /// Sum of all weights and the donation.
    pub total: U320,
    /// Weight that miners gave to the donation address.
    pub donation: U320,
}

/// Serialised form of [`MergedWeights`].
#[derive(Clone, Serialize, Deserialize)]
struct ListedWeights {
    keys: Vec<ListedKey>,
    total: U320,
    donation: U320,
}

#[derive(Clone, Serialize, Deserialize)]
struct ListedKey {
    is_merged: bool,
    /// In hex.
    script: String,
    weight: U320,
}

impl From<MergedWeights> for ListedWeights {
    fn from(weights: MergedWeights) -> Self {
        let listed = |(key, weight)| {
            let (is_merged, script) = match &key {
                MergedKey::Merged(script) => (true, script),
                MergedKey::Parent(script) => (false, script),
            };
            ListedKey { is_merged, script: hex::encode(script.as_bytes()), weight }
        };
        let MergedWeights { by_key, total, donation } = weights;
        Self { keys: by_key.into_iter().map(listed).collect(), total, donation }
    }
}

impl TryFrom<ListedWeights> for MergedWeights {
    type Error = hex::FromHexError;

    fn try_from(listed: ListedWeights) -> Result<Self, Self::Error> {
        let key = |ListedKey { is_merged, script, weight }| {
            let script = Script::from(&hex::decode(script)?[..]);
            Ok((if is_merged { MergedKey::Merged(script) } else { MergedKey::Parent(script) }, weight))
        };
        let ListedWeights { keys, total, donation } = listed;
        Ok(Self { by_key: keys.into_iter().map(key).collect::<Result<_, Self::Error>>()?, total, donation })
    }
}

impl MergedWeights {
    /// Counts a share with this key, work and `donation` (in 65535ths).
    pub fn count(&mut self, key: MergedKey, attempts: Attempts, donation: u16) {
        let (total, donated) = (attempts.0 * U320::from(WHOLE), attempts.0 * U320::from(donation));
        *self.by_key.entry(key).or_default() += total - donated;
        self.total += total;
        self.donation += donated;
    }

    /// Takes back what [`count`](Self::count) did for the same share.
    pub(crate) fn count_out(&mut self, key: &MergedKey, attempts: Attempts, donation: u16) {
        let (total, donated) = (attempts.0 * U320::from(WHOLE), attempts.0 * U320::from(donation));
        if let Some(weight) = self.by_key.get_mut(key) {
            *weight -= total - donated;
        }
        self.total -= total;
        self.donation -= donated;
    }

    /// True if no miner has any weight, so that shares are not checked for this chain (protocol-v36 section 6.4).
    pub fn is_empty(&self) -> bool {
        self.total.is_zero() || self.by_key.values().all(U320::is_zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merged::DOGECOIN;
    use crate::share::ShareHash;
    use proptest::prelude::*;

    fn key(script: &[u8], entries: &[(u32, &[u8])], seen: &FirstSeen) -> ShareKey {
        key_of(DOGECOIN, script, entries.iter().copied(), seen)
    }

    fn merged(script: &[u8]) -> MergedKey {
        MergedKey::Merged(script.into())
    }

    #[test]
    fn a_shares_own_first_entry_decides_even_an_empty_one() {
        let mut seen = FirstSeen::default();
        seen.add(ShareHash([1; 32]), b"miner", [(DOGECOIN, &b"taught"[..])]);
        let own = key(b"miner", &[(7, b"other"), (DOGECOIN, b"first"), (DOGECOIN, b"second")], &seen);
        assert_eq!(own, ShareKey { key: merged(b"first"), is_looked_up: false });
        let empty = key(b"miner", &[(DOGECOIN, b""), (DOGECOIN, b"second")], &seen);
        assert_eq!(empty, ShareKey { key: merged(b""), is_looked_up: false });
        let none = key(b"miner", &[(7, b"other")], &seen);
        assert_eq!(none, ShareKey { key: merged(b"taught"), is_looked_up: true });
        let stranger = key(b"stranger", &[], &seen);
        assert_eq!(stranger, ShareKey { key: MergedKey::Parent(b"stranger"[..].into()), is_looked_up: true });
    }

    #[test]
    fn a_witness_programs_script_is_looked_up_as_it_is_and_then_as_a_pubkey_hash() {
        let witness = [&[0, 20][..], &[7; 20]].concat();
        let legacy = script_kinds::p2pkh(&[7; 20]);
        let mut seen = FirstSeen::default();
        seen.add(ShareHash([1; 32]), &legacy, [(DOGECOIN, &b"by pubkey hash"[..])]);
        assert_eq!(key(&witness, &[], &seen).key, merged(b"by pubkey hash"));
        seen.add(ShareHash([2; 32]), &witness, [(DOGECOIN, &b"by witness"[..])]);
        assert_eq!(key(&witness, &[], &seen).key, merged(b"by witness"));
        assert_eq!(key(&legacy, &[], &seen).key, merged(b"by pubkey hash"));
    }

    #[test]
    fn weights_are_empty_without_a_share_and_if_all_is_donated() {
        let mut weights = MergedWeights::default();
        assert!(weights.is_empty());
        weights.count(merged(b"donor"), Attempts(U320::from(9)), u16::MAX);
        assert!(weights.is_empty());
        weights.count(merged(b"miner"), Attempts(U320::from(9)), u16::MAX - 1);
        assert!(!weights.is_empty());
        assert_eq!((weights.total, weights.donation), (U320::from(18 * 65_535), U320::from(9 * (65_535 + 65_534))));
    }

    proptest! {
        #[test]
        fn a_converted_script_keeps_its_hash_and_is_converted_to_itself(
            hash: [u8; 20], kind in 0usize..3, other in prop::collection::vec(any::<u8>(), 0..45),
        ) {
            let witness = [&[0, 20][..], &hash].concat();
            let legacy = [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat();
            let pay_to_script = [&[0xa9, 20][..], &hash, &[0x87]].concat();
            let (from, to) = [(&witness, &legacy), (&legacy, &legacy), (&pay_to_script, &pay_to_script)][kind];
            prop_assert_eq!(converted(from), Some(to.as_slice().into()));
            if let Some(script) = converted(&other) {
                prop_assert_eq!(converted(script.as_bytes()), Some(script));
            }
            prop_assert_eq!(converted(&[&[0, 32][..], &hash, &[0; 12]].concat()), None);
        }
    }
}
