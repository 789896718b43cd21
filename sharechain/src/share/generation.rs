//! Derives *the* coinbase from share info and weights: used both to build our shares and to check all others.
//!
//! Two steps, because one block's work is prepared for hundreds of payout addresses: [`Payouts`] holds each payee's
//! amount from the window, which all of them share, and [`Coinbase`] adds the finder's part and writes the bytes.

use bitcoin::hashes::{Hash, sha256d};
use ruint::Uint;
use ruint::aliases::U320;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::donation::{RETURN_HEAD, donation_payee, donation_script};
use super::{HashLink, Payee, PayeeError, SegwitData, ShareInfo, ShareRules, ShareVersion};
use crate::map::Map;
use crate::merkle::Digest;
use crate::pack::Writer;
use crate::rules::{Donation, FindersPart, PayeeOrder};

/// The coinbase's only witness item, part of the witness commitment (section 4.8).
pub const WITNESS_RESERVED_VALUE: [u8; 32] = *b"[P2Pool][P2Pool][P2Pool][P2Pool]";

/// First bytes of a witness commitment's script (BIP 141): `OP_RETURN`, a push of 36 bytes, and its header.
const WITNESS_COMMITMENT_HEAD: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// Maximum number of payees in a coinbase; the smallest are dropped and get nothing (trap 24). Up to version 35 the
/// donation is one of them.
const PAYEES_MAX: usize = 4000;

/// Lock time, the end of every transaction.
const LOCK_TIME: [u8; 4] = [0; 4];

/// Weights of the payout window by payee: attempts times 65535 (protocol section 7).
///
/// `total` is the sum of all weights and of `donation`. A window of 2^16 shares stays below 2^290.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ListedWeights", into = "ListedWeights")]
pub struct Weights {
    /// Weight of each payee; an entry of 0 counts as absent.
    pub by_payee: Map<Payee, U320>,
    /// Sum of all weights and the donation.
    pub total: U320,
    /// Weight that payees gave to the donation address.
    pub donation: U320,
}

/// Serialised form of [`Weights`]: payees with their scripts.
#[derive(Clone, Serialize, Deserialize)]
struct ListedWeights {
    payees: Vec<PayeeWeight>,
    total: U320,
    donation: U320,
}

#[derive(Clone, Serialize, Deserialize)]
struct PayeeWeight {
    #[serde(with = "super::whole_payee")]
    payee: Payee,
    weight: U320,
}

impl From<Weights> for ListedWeights {
    fn from(weights: Weights) -> Self {
        let listed = |(payee, weight)| PayeeWeight { payee, weight };
        let Weights { by_payee, total, donation } = weights;
        Self { payees: by_payee.into_iter().map(listed).collect(), total, donation }
    }
}

impl From<ListedWeights> for Weights {
    fn from(listed: ListedWeights) -> Self {
        let ListedWeights { payees, total, donation } = listed;
        let by_payee = payees.into_iter().map(|PayeeWeight { payee, weight }| (payee, weight)).collect();
        Self { by_payee, total, donation }
    }
}

/// Reasons why a coinbase cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GenerationError {
    /// A payee of the window cannot be paid in this version: no share is possible until the payee leaves the window.
    #[error("payout: {0}")]
    Payee(#[from] PayeeError),
    /// The weights are not those of any window: a bug of the caller.
    #[error("weights of the payees exceed their total {0}")]
    Weights(U320),
}

/// Amount of each payee of a window, before the finder's part (section 4.8, steps 1 and 3).
#[derive(Debug, Clone)]
pub struct Payouts {
    version: ShareVersion,
    subsidy: u64,
    /// Finder's extra amount in satoshis; `None` if the finder gets nothing extra and has no output of its own.
    finders_part: Option<u64>,
    donation_payee: Payee,
    /// Ascending by amount, then in the version's order; excludes the donation.
    entries: Vec<Entry>,
    /// Sum of all entries' amounts.
    sum: u64,
}

/// Payee and amount in satoshis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    // The order of the fields defines the order of the outputs: trap 23.
    amount: u64,
    payee: Payee,
}

impl Entry {
    /// Key of the order by output script, whatever the text.
    fn by_script(&self, version: ShareVersion) -> (u64, &[u8]) {
        (self.amount, self.payee.script(version).unwrap_or_default())
    }
}

impl Payouts {
    /// Divides `subsidy` satoshis by `weights`, for shares of `version`.
    ///
    /// # Errors
    /// [`GenerationError::Weights`].
    pub fn new(
        version: ShareVersion,
        subsidy: u64,
        weights: &Weights,
        rules: &ShareRules,
    ) -> Result<Payouts, GenerationError> {
        let donation_payee = donation_payee(version, rules);
        let (finders_part, of) = match version.rules().finder {
            FindersPart::HalfPercent => (Some(subsidy / 200), (199, 200)),
            FindersPart::None => (None, (1, 1)),
        };
        let share_of = Division::new(subsidy, weights.total, of);
        let mut entries: Vec<Entry> = Vec::with_capacity(weights.by_payee.len() + 1);
        let mut sum = 0u64;
        for (payee, weight) in &weights.by_payee {
            // A weight of 0 is not an entry, so it takes none of the 4000 places either.
            if weight.is_zero() || *payee == donation_payee {
                // The donation address's earnings as a miner are part of the remainder.
                continue;
            }
            let amount = share_of.amount(*weight).ok_or(GenerationError::Weights(weights.total))?;
            sum = sum.checked_add(amount).ok_or(GenerationError::Weights(weights.total))?;
            entries.push(Entry { amount, payee: payee.clone() });
        }
        if sum > subsidy - finders_part.unwrap_or(0) {
            return Err(GenerationError::Weights(weights.total));
        }
        match version.rules().order {
            PayeeOrder::Text => entries.sort_unstable(),
            PayeeOrder::Script => {
                entries.sort_unstable_by(|one, other| one.by_script(version).cmp(&other.by_script(version)))
            }
        }
        let mut payouts = Payouts { version, subsidy, finders_part, donation_payee, entries, sum };
        if version.rules().donation == Donation::Marker && payouts.subsidy > 0 {
            let earned = weights.by_payee.get(&payouts.donation_payee).and_then(|weight| share_of.amount(*weight));
            payouts.mark(earned.unwrap_or(0));
        }
        Ok(payouts)
    }

    /// If nothing is left for the donation, beside what its address `earned` as a miner, takes one satoshi for it from
    /// the payee of the largest amount (protocol-v36 section 4.3).
    fn mark(&mut self, earned: u64) {
        let version = self.version;
        let earner = Entry { amount: earned, payee: self.donation_payee.clone() };
        let is_missing = self.subsidy - self.sum == earned;
        // Of a larger amount of its own it would pay itself.
        let largest = self.entries.last_mut().filter(|largest| largest.by_script(version) > earner.by_script(version));
        let Some(largest) = largest.filter(|_| is_missing) else { return };
        largest.amount -= 1;
        self.sum -= 1;
        self.entries.sort_unstable_by(|one, other| one.by_script(version).cmp(&other.by_script(version)));
    }

    /// Version of the shares with these payouts.
    pub fn version(&self) -> ShareVersion {
        self.version
    }

    /// Number of payees, excluding finder and donation.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Amount divided, in satoshis.
    pub fn subsidy(&self) -> u64 {
        self.subsidy
    }

    /// Returns each payee's amount if `finder` finds the share, in the order of the outputs; the donation comes last,
    /// even with an amount of 0 (steps 2 to 5).
    pub fn with_finder<'a>(&'a self, finder: &'a Payee) -> impl Iterator<Item = (&'a Payee, u64)> {
        let finders_part = self.finders_part.filter(|_| *finder != self.donation_payee);
        let old = finders_part.and_then(|_| self.entries.iter().position(|entry| entry.payee == *finder));
        let amount = finders_part.unwrap_or(0) + old.map_or(0, |index| self.entries[index].amount);
        let new = (amount, finder);
        // Position among the others, which keep their order.
        let place = self.entries.partition_point(|entry| (entry.amount, &entry.payee) < new);
        let (before, after) = self.entries.split_at(place);
        let others = |entries: &'a [Entry], from: usize| {
            let skipped = old.and_then(|old| old.checked_sub(from));
            entries.iter().enumerate().filter(move |(index, _)| Some(*index) != skipped).map(|(_, entry)| entry)
        };
        let of_donation = match self.version.rules().donation {
            Donation::Pubkey => 1,
            Donation::Marker => 0,
        };
        let count = self.entries.len() + usize::from(old.is_none() && finders_part.is_some()) + of_donation;
        let donation = self.subsidy - self.sum - finders_part.unwrap_or(0);
        others(before, 0)
            .map(|entry| (&entry.payee, entry.amount))
            .chain(finders_part.map(|_| (finder, amount)))
            .chain(others(after, place).map(|entry| (&entry.payee, entry.amount)))
            // `[-4000:]` counts the donation, always present and last, and payees of amount 0, which go first.
            .skip(count.saturating_sub(PAYEES_MAX))
            .filter(|(_, amount)| *amount > 0)
            .chain(std::iter::once((&self.donation_payee, donation)))
    }

    /// Builds the coinbase of a share found by `finder`, with the script and segwit data of its share info.
    ///
    /// # Errors
    /// [`GenerationError::Payee`].
    pub fn coinbase(
        &self,
        script: &[u8],
        segwit: Option<&SegwitData>,
        finder: &Payee,
    ) -> Result<Coinbase, GenerationError> {
        // A payee's output takes at most 51 bytes; everything else about 350.
        let mut writer = Writer::with_capacity(400 + 34 * self.entries.len());
        writer.u32(1);
        writer.count(1);
        writer.bytes(&[0; 32]);
        writer.u32(u32::MAX);
        writer.varstr(script);
        writer.u32(u32::MAX);
        // The number of outputs is known only after writing them: at most 4003, so the count takes one byte or three,
        // and is inserted afterwards.
        let outputs_at = writer.at();
        let mut outputs = 1;
        if let Some(segwit) = segwit {
            outputs += 1;
            write_output(&mut writer, 0, &witness_commitment_script(&segwit.wtxid_merkle_root));
        }
        for (payee, amount) in self.with_finder(finder) {
            outputs += 1;
            let is_donation = *payee == self.donation_payee;
            let script = if is_donation { donation_script(self.version) } else { payee.script(self.version)? };
            write_output(&mut writer, amount, script);
        }
        writer.bytes(&RETURN_HEAD);
        let mut prefix = writer.into_bytes();
        let mut count = Writer::default();
        count.count(outputs);
        prefix.splice(outputs_at..outputs_at, count.into_bytes());
        Ok(Coinbase { version: self.version, prefix })
    }
}

/// Derives the coinbase that a share must have: the one place for our own shares and for all others.
///
/// `info` must have all its fields; `weights` are those of the window defined by its parent and its block's target.
///
/// # Errors
/// [`GenerationError`].
pub fn coinbase_of(
    version: ShareVersion,
    info: &ShareInfo,
    finder: &Payee,
    weights: &Weights,
    rules: &ShareRules,
) -> Result<Coinbase, GenerationError> {
    let data = &info.share_data;
    Payouts::new(version, data.subsidy, weights, rules)?.coinbase(&data.coinbase, info.segwit_data.as_ref(), finder)
}

/// Script that commits to the witnesses of a block (BIP 141).
pub fn witness_commitment_script(wtxid_merkle_root: &Digest) -> [u8; 38] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(wtxid_merkle_root);
    both[32..].copy_from_slice(&WITNESS_RESERVED_VALUE);
    let mut script = [0; 38];
    script[..6].copy_from_slice(&WITNESS_COMMITMENT_HEAD);
    script[6..].copy_from_slice(sha256d::Hash::hash(&both).as_byte_array());
    script
}

fn write_output(writer: &mut Writer, amount: u64, script: &[u8]) {
    writer.u64(amount);
    writer.varstr(script);
}

/// `S·(n·W) // (d·T)`, where n/d is the window's part (199/200): one division (trap 14), in the fewest limbs that hold
/// the total.
enum Division {
    /// The total weight is 0.
    Nothing,
    /// n·S, and d·T below 2^176: every real window.
    Narrow(Uint<256, 4>, Uint<256, 4>),
    /// All other totals, which untrusted targets can produce.
    Wide(Uint<512, 8>, Uint<512, 8>),
}

impl Division {
    fn new(subsidy: u64, total: U320, (parts, of): (u64, u64)) -> Division {
        if total.is_zero() {
            return Division::Nothing;
        }
        // d takes 8 bits, n·S takes 72, and a weight is at most the total.
        if total.bit_len() <= 168 {
            let by = Uint::<256, 4>::from(subsidy) * Uint::from(parts);
            Division::Narrow(by, Uint::<256, 4>::from(total) * Uint::from(of))
        } else {
            let by = Uint::<512, 8>::from(subsidy) * Uint::from(parts);
            Division::Wide(by, Uint::<512, 8>::from(total) * Uint::from(of))
        }
    }

    /// Returns `None` for a total of 0 or an amount beyond u64, which no real weight leads to.
    fn amount(&self, weight: U320) -> Option<u64> {
        match self {
            Division::Nothing => None,
            Division::Narrow(by, divisor) => {
                // A weight above its total is refused before it could overflow.
                let weight = (weight.bit_len() <= 168).then(|| Uint::<256, 4>::from(weight))?;
                u64::try_from(weight * *by / *divisor).ok()
            }
            Division::Wide(by, divisor) => u64::try_from(Uint::<512, 8>::from(weight) * *by / *divisor).ok(),
        }
    }
}

/// Coinbase without its last 44 bytes: the 40 chosen by the share and its miner, and the lock time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coinbase {
    version: ShareVersion,
    prefix: Vec<u8>,
}

impl Coinbase {
    /// Stripped transaction up to its ref hash: the input of the hash link.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Hash link that proves the coinbase.
    pub fn hash_link(&self) -> HashLink {
        HashLink::of_prefix(self.version, &self.prefix)
    }

    /// Stripped transaction up to `last_txout_nonce`: the part before a miner's extranonces.
    pub fn head(&self, ref_hash: &Digest) -> Vec<u8> {
        [&self.prefix[..], ref_hash].concat()
    }

    /// Stripped transaction after `last_txout_nonce`.
    pub fn tail(&self) -> [u8; 4] {
        LOCK_TIME
    }

    /// Complete transaction without witness; its hash is the txid.
    pub fn stripped(&self, ref_hash: &Digest, last_txout_nonce: u64) -> Vec<u8> {
        [&self.prefix[..], ref_hash, &last_txout_nonce.to_le_bytes(), &LOCK_TIME].concat()
    }

    /// Complete transaction as included in a block with witnesses.
    pub fn with_witness(&self, ref_hash: &Digest, last_txout_nonce: u64) -> Vec<u8> {
        let stripped = self.stripped(ref_hash, last_txout_nonce);
        let (version, rest) = stripped.split_at(4);
        let (inputs_and_outputs, lock_time) = rest.split_at(rest.len() - LOCK_TIME.len());
        // Marker and flag; one item of 32 bytes for the only input.
        [version, &[0, 1], inputs_and_outputs, &[1, 32], &WITNESS_RESERVED_VALUE, lock_time].concat()
    }
}
