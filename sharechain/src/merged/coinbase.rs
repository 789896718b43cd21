//! The canonical coinbase of a merged block (protocol-v36 section 8.3): every node derives the same bytes from the
//! window's weights, so that a share can be checked to pay all miners on the merged chain too.

use ruint::Uint;
use ruint::aliases::U320;

use super::payee::{MergedKey, MergedWeights, converted};
use crate::pack::Writer;
use crate::script::Script;
use crate::share::{MARKER_SCRIPT, push_number};

/// Script of the output before the last, of value 0: `OP_RETURN` and a text of 20 bytes.
const TEXT_SCRIPT: &[u8; 22] = b"\x6a\x14P2Pool merged mining";

/// End of the canonical coinbase script, after the height.
const SCRIPT_END: &[u8] = b"/P2Pool v36/";

/// Bytes of a coinbase besides its miners' outputs, rounded up.
const FIXED_BYTES: usize = 128;

/// Outputs of the canonical coinbase for one table of weights and one value. The same for each height and coinbase
/// script, so they are computed once for a merged chain's template and tip.
///
/// The marker rule: the last output must get at least one unit. If the miners' amounts leave nothing, the miner with
/// the largest amount gives one. With several of that amount, the reference picks one by the order of a dictionary,
/// which other nodes cannot know (protocol-v36 trap 9); these outputs then take it from the one with the largest
/// script, as c2pool does, and [`is_undefined`](Self::is_undefined) reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedOutputs {
    /// Miners in ascending order of scripts, with amounts before the marker rule.
    miners: Vec<(Script, u64)>,
    /// Indices of the miners that the marker rule could take a unit from, by descending script; empty if the last
    /// output has at least one without it.
    givers: Vec<usize>,
    /// Amount of the last output before the marker rule.
    rest: u64,
}

impl MergedOutputs {
    /// Divides `value` base units of the merged chain by `weights`: the donation's part first, then the remainder among
    /// all miners that the chain can pay. `None` if the weights exceed their total, which no window's do.
    pub fn new(weights: &MergedWeights, value: u64) -> Option<MergedOutputs> {
        let donated = if weights.total.is_zero() { 0 } else { part(value, weights.donation, weights.total)? };
        let reward = value - donated;
        // Weights are added first, and divided once (protocol-v36 trap 23).
        let mut weighed: Vec<(Script, U320)> = Vec::with_capacity(weights.by_key.len());
        let mut accepted = U320::ZERO;
        for (key, weight) in &weights.by_key {
            let script = match key {
                MergedKey::Merged(script) => Some(script.clone()),
                MergedKey::Parent(script) => converted(script.as_bytes()),
            };
            // The weight of a miner that the chain cannot pay falls to the others.
            let Some(script) = script.filter(|_| !weight.is_zero()) else { continue };
            accepted = accepted.checked_add(*weight)?;
            weighed.push((script, *weight));
        }
        weighed.sort_unstable();
        weighed.dedup_by(|(script, weight), (first, sum)| {
            let is_same = script == first;
            if is_same {
                *sum += *weight;
            }
            is_same
        });
        let mut miners = Vec::with_capacity(weighed.len());
        let mut sum = 0_u64;
        for (script, weight) in weighed {
            let amount = part(reward, weight, accepted)?;
            if amount > 0 {
                sum += amount;
                miners.push((script, amount));
            }
        }
        let rest = value - sum;
        let largest = miners.iter().map(|(_, amount)| *amount).max().filter(|_| rest == 0);
        let is_giver = |index: &usize| Some(miners[*index].1) == largest;
        let givers = (0..miners.len()).rev().filter(is_giver).collect();
        Some(MergedOutputs { miners, givers, rest })
    }

    /// True if the reference does not define these outputs: publish no `merged_coinbase_info` with them.
    pub fn is_undefined(&self) -> bool {
        self.givers.len() > 1
    }

    /// Returns the miners' scripts with their amounts in base units, in the order of the outputs.
    pub fn miners(&self) -> impl Iterator<Item = (&Script, u64)> {
        self.miners_of(self.givers.first().copied())
    }

    /// Amount of the last output, in base units.
    pub fn donation(&self) -> u64 {
        self.rest + u64::from(!self.givers.is_empty())
    }

    /// Builds the coinbase with `script` as its input's script: [`canonical_script`], or another one that the share
    /// then has to carry.
    pub fn coinbase(&self, script: &[u8]) -> Vec<u8> {
        self.coinbase_of(self.givers.first().copied(), script)
    }

    /// Returns each coinbase that a node might take for the canonical one: usually [`coinbase`](Self::coinbase) alone,
    /// which is always the first, and one for each possible giver if the outputs are undefined.
    pub(super) fn candidates(&self, script: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        let others = self.givers.iter().skip(1).map(|giver| self.coinbase_of(Some(*giver), script));
        std::iter::once_with(|| self.coinbase(script)).chain(others)
    }

    fn miners_of(&self, giver: Option<usize>) -> impl Iterator<Item = (&Script, u64)> {
        let given = move |index| u64::from(Some(index) == giver);
        self.miners.iter().enumerate().map(move |(index, (script, amount))| (script, amount - given(index)))
    }

    fn coinbase_of(&self, giver: Option<usize>, script: &[u8]) -> Vec<u8> {
        let outputs: usize = self.miners.iter().map(|(script, _)| 17 + script.as_bytes().len()).sum();
        let mut writer = Writer::with_capacity(FIXED_BYTES + script.len() + outputs);
        writer.u32(1);
        writer.count(1);
        writer.bytes(&[0; 32]);
        writer.u32(u32::MAX);
        writer.varstr(script);
        writer.u32(u32::MAX);
        writer.count(self.miners.len() + 2);
        for (script, amount) in self.miners_of(giver) {
            writer.u64(amount);
            writer.varstr(script.as_bytes());
        }
        writer.u64(0);
        writer.varstr(TEXT_SCRIPT);
        writer.u64(self.donation());
        // What the miners donate, and the rests of divisions.
        writer.varstr(&MARKER_SCRIPT);
        writer.u32(0);
        writer.into_bytes()
    }
}

/// Builds the canonical coinbase of a block of `value` base units at `height`, with `script` as its input's script
/// instead of the canonical one if given. Callers that create work check [`MergedOutputs::is_undefined`] first. `None`
/// as for [`MergedOutputs::new`].
pub fn canonical_coinbase(weights: &MergedWeights, value: u64, height: u64, script: Option<&[u8]>) -> Option<Vec<u8>> {
    let outputs = MergedOutputs::new(weights, value)?;
    Some(match script {
        Some(script) => outputs.coinbase(script),
        None => outputs.coinbase(&canonical_script(height)),
    })
}

/// Returns the canonical script of the coinbase's input: the height, as BIP 34 encodes it, and the reference's name.
pub fn canonical_script(height: u64) -> Vec<u8> {
    let mut script = match i64::try_from(height) {
        Ok(height) => push_number(height),
        // The topmost bit is set, so that a zero follows to keep the number positive.
        Err(_) => [&[9][..], &height.to_le_bytes(), &[0]].concat(),
    };
    script.extend_from_slice(SCRIPT_END);
    script
}

/// `value·weight // total`. `None` if the weight exceeds the total or both are 0.
fn part(value: u64, weight: U320, total: U320) -> Option<u64> {
    /// 64 and 320 bits.
    type Wide = Uint<384, 6>;
    if weight > total || total.is_zero() {
        return None;
    }
    // The division of every real window.
    if let (Ok(weight), Ok(total)) = (u128::try_from(weight), u128::try_from(total))
        && let Some(product) = weight.checked_mul(u128::from(value))
    {
        return u64::try_from(product / total).ok();
    }
    u64::try_from(Wide::from(value) * Wide::from(weight) / Wide::from(total)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Transaction;
    use bitcoin::consensus::deserialize;
    use proptest::prelude::*;

    fn merged(script: &[u8]) -> MergedKey {
        MergedKey::Merged(script.into())
    }

    fn weights_of(keys: impl IntoIterator<Item = (MergedKey, U320)>, donation: U320) -> MergedWeights {
        let mut weights = MergedWeights { donation, total: donation, ..MergedWeights::default() };
        for (key, weight) in keys {
            weights.total += weight;
            *weights.by_key.entry(key).or_default() += weight;
        }
        weights
    }

    fn amounts(coinbase: &[u8]) -> Vec<u64> {
        deserialize::<Transaction>(coinbase).unwrap().output.iter().map(|output| output.value.to_sat()).collect()
    }

    #[test]
    fn of_equal_largest_amounts_the_largest_script_gives_and_the_tie_is_reported() {
        let three = ["a", "b", "c"].map(|name| (merged(name.as_bytes()), U320::from(5)));
        let outputs = MergedOutputs::new(&weights_of(three.clone(), U320::ZERO), 300).unwrap();
        assert!(outputs.is_undefined());
        assert_eq!(amounts(&outputs.coinbase(b"")), [100, 100, 99, 0, 1]);
        let candidates: Vec<_> = outputs.candidates(b"").map(|coinbase| amounts(&coinbase)).collect();
        assert_eq!(candidates, [[100, 100, 99, 0, 1], [100, 99, 100, 0, 1], [99, 100, 100, 0, 1]]);
        // Amounts with a rest, or with a donation, need no marker.
        for (value, donation) in [(301, 0), (300, 1)] {
            let outputs = MergedOutputs::new(&weights_of(three.clone(), U320::from(donation)), value).unwrap();
            assert!(!outputs.is_undefined());
            assert_eq!(outputs.candidates(b"").count(), 1);
        }
        let one_ahead = three.into_iter().chain([(merged(b"aa"), U320::from(15))]);
        let outputs = MergedOutputs::new(&weights_of(one_ahead, U320::ZERO), 300).unwrap();
        assert!(!outputs.is_undefined());
        assert_eq!(amounts(&outputs.coinbase(b"")), [50, 149, 50, 50, 0, 1]);
    }

    #[test]
    fn a_miner_who_gives_all_he_has_keeps_his_output() {
        let weights = weights_of([(merged(b"only"), U320::from(7))], U320::ZERO);
        assert_eq!(amounts(&canonical_coinbase(&weights, 1, 5, None).unwrap()), [0, 0, 1]);
    }

    #[test]
    fn every_height_is_pushed_as_a_positive_number() {
        let start = |height| canonical_script(height)[..canonical_script(height).len() - SCRIPT_END.len()].to_vec();
        assert_eq!(start(0), [0]);
        assert_eq!(start(16), [0x60]);
        assert_eq!(start(128), [2, 128, 0]);
        assert_eq!(start(i64::MAX.unsigned_abs()), [8, 255, 255, 255, 255, 255, 255, 255, 127]);
        assert_eq!(start(1 << 63), [9, 0, 0, 0, 0, 0, 0, 0, 128, 0]);
        assert_eq!(start(u64::MAX), [9, 255, 255, 255, 255, 255, 255, 255, 255, 0]);
    }

    #[test]
    fn weights_beyond_their_total_are_refused() {
        let mut weights = weights_of([(merged(b"a"), U320::from(5))], U320::from(5));
        weights.donation = U320::from(11);
        assert_eq!(MergedOutputs::new(&weights, 1), None);
        weights.donation = U320::ZERO;
        weights.by_key = [(merged(b"a"), U320::MAX), (merged(b"b"), U320::from(1))].into_iter().collect();
        assert_eq!(MergedOutputs::new(&weights, 1), None);
    }

    /// Weights up to the largest of a window of 2^16 shares of the hardest target.
    fn weight() -> impl Strategy<Value = U320> {
        (any::<[u64; 5]>(), 0usize..=288).prop_map(|(limbs, bits)| U320::from_limbs(limbs) >> (320 - bits))
    }

    fn key() -> impl Strategy<Value = MergedKey> {
        let hash = 0u8..4;
        (0u8..5, hash).prop_map(|(kind, hash)| {
            let hash = [hash; 20];
            let legacy = [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat();
            match kind {
                0 => merged(&legacy),
                1 => merged(&hash[..usize::from(hash[0])]),
                2 => MergedKey::Parent(legacy[..].into()),
                3 => MergedKey::Parent([&[0, 20][..], &hash].concat()[..].into()),
                _ => MergedKey::Parent([&[0, 32][..], &hash, &[1; 12]].concat()[..].into()),
            }
        })
    }

    proptest! {
        #[test]
        fn a_part_is_the_same_in_both_widths(value: u64, weight: u64, more: u64, shift in 0usize..=256) {
            let (weight, total) = (U320::from(weight), U320::from(weight) + U320::from(more));
            prop_assume!(!total.is_zero());
            let narrow = part(value, weight, total);
            prop_assert_eq!(part(value, weight << shift, total << shift), narrow);
            prop_assert!(narrow.is_some_and(|amount| amount <= value));
            prop_assert_eq!(part(value, total + U320::from(1), total), None);
        }

        #[test]
        fn outputs_pay_exactly_the_value_in_order(
            keys in prop::collection::vec((key(), weight()), 0..12), donation in weight(), value: u64, height: u64,
        ) {
            let weights = weights_of(keys, donation);
            let outputs = MergedOutputs::new(&weights, value).unwrap();
            let coinbase = outputs.coinbase(&canonical_script(height));
            prop_assert_eq!(&coinbase, &canonical_coinbase(&weights, value, height, None).unwrap());
            let decoded: Transaction = deserialize(&coinbase).unwrap();
            let sum: u128 = decoded.output.iter().map(|output| u128::from(output.value.to_sat())).sum();
            prop_assert_eq!(sum, u128::from(value));
            let (miners, last) = decoded.output.split_at(decoded.output.len() - 2);
            prop_assert!(miners.is_sorted_by(|one, two| one.script_pubkey.as_bytes() < two.script_pubkey.as_bytes()));
            prop_assert_eq!(last[0].script_pubkey.as_bytes(), &TEXT_SCRIPT[..]);
            prop_assert_eq!(last[1].script_pubkey.as_bytes(), &MARKER_SCRIPT[..]);
            prop_assert_eq!(last[1].value.to_sat(), outputs.donation());
            prop_assert!(value == 0 || outputs.donation() > 0);
            let shown: Vec<_> = outputs.miners().map(|(script, amount)| (script.as_bytes(), amount)).collect();
            let paid: Vec<_> = miners.iter().map(|out| (out.script_pubkey.as_bytes(), out.value.to_sat())).collect();
            prop_assert_eq!(shown, paid);
        }
    }
}
