//! `Template`: a checked `getblocktemplate` answer, with the transactions' merkle branch precomputed.

mod extension;
mod fit;
mod recent;
#[cfg(test)]
pub(crate) mod testing;

pub use extension::ExtensionError;
pub use fit::{NoRoom, Room, Selection};
pub use recent::{PARENTS_MAX, RecentTemplates, TEMPLATES_MAX, TemplateSender};

use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, CompactTarget, Target, Txid, Wtxid};
use bytes::Bytes;
use sharechain::merkle::{self, Digest};
use sharechain::share;
use std::fmt;
use std::sync::Arc;
use stratum::printable::escaped;
use thiserror::Error;

use fit::Removal;

/// Maximum weight of a block of Bitcoin and of most coins, in weight units (BIP 141).
pub const BLOCK_WEIGHT_MAX: u64 = 4_000_000;

/// Maximum size of an extension block, in bytes: that of Litecoin's MWEB, which has 50,000 inputs of 196 bytes that have
/// no weight, and 200,000 units of weight of at most 60 bytes.
pub const EXTENSION_BYTES_MAX: usize = 195 + 50_000 * 196 + 200_000 * 60;

/// Maximum signature operation cost of a block (BIP 141).
pub const BLOCK_SIGOPS_MAX: u64 = 80_000;

/// A transaction for the next block.
#[derive(Clone, PartialEq, Eq)]
pub struct TemplateTransaction {
    /// Serialised with witness, as in a block.
    pub raw: Bytes,
    /// Hash without witness.
    pub txid: Txid,
    /// Hash with witness.
    pub wtxid: Wtxid,
    /// Fee in satoshis.
    pub fee: u64,
    /// Weight units (BIP 141).
    pub weight: u64,
    /// Signature operation cost (BIP 141).
    pub sigops: u64,
}

impl fmt::Debug for TemplateTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateTransaction({}, fee {}, weight {})", self.txid, self.fee, self.weight)
    }
}

/// Fields of a daemon's template, before they are checked.
#[derive(Debug, Clone)]
pub struct TemplateParts {
    /// Block version proposed by the daemon.
    pub version: u32,
    /// Hash of the block to build on.
    pub previous_block: BlockHash,
    /// Height of the block to be mined.
    pub height: u32,
    /// Compact form of the block's target.
    pub bits: CompactTarget,
    /// The daemon's clock, seconds since 1970.
    pub time: u32,
    /// Earliest timestamp of the block: one above the median of the last eleven.
    pub time_min: u32,
    /// Maximum payout of the coinbase, in satoshis: subsidy and fees.
    pub coinbase_value: u64,
    /// Bytes that the daemon requests at the end of the coinbase script.
    pub coinbase_flags: Vec<u8>,
    /// In block order, without the coinbase.
    pub transactions: Vec<TemplateTransaction>,
    /// Maximum weight of the block, in weight units.
    pub weight_max: u64,
    /// Active soft forks; a leading `!` marks one that a miner must know (BIP 9).
    pub rules: Vec<String>,
    /// Script from the daemon's own coinbase, for checking our derivation.
    pub default_witness_commitment: Option<Vec<u8>>,
    /// Bytes after the block's transactions (Litecoin's extension block); empty on most coins.
    pub suffix: Vec<u8>,
}

/// Everything about the next block except its payouts. Immutable; shared by all jobs made from it.
#[derive(Debug, Clone)]
pub struct Template {
    /// Block version proposed by the daemon.
    pub version: u32,
    /// Hash of the block to build on.
    pub previous_block: BlockHash,
    /// Height of the block to be mined.
    pub height: u32,
    /// Compact form of the block's target.
    pub bits: CompactTarget,
    /// Target of the block in full; see [`Template::is_solved_by`] and [`Template::block_target`].
    pub target: Target,
    /// The daemon's clock, seconds since 1970.
    pub time: u32,
    /// Earliest timestamp of the block.
    pub time_min: u32,
    /// Maximum payout of the coinbase, in satoshis.
    pub coinbase_value: u64,
    /// Bytes that the daemon requests at the end of the coinbase script.
    pub coinbase_flags: Vec<u8>,
    /// In block order, without the coinbase.
    pub transactions: Arc<[TemplateTransaction]>,
    /// Maximum weight of the block, in weight units.
    pub weight_max: u64,
    /// Active soft forks, without their leading `!`.
    pub rules: Vec<String>,
    /// Merkle branch from the coinbase's txid to the header's merkle root.
    pub branch: Vec<Digest>,
    /// Bytes after the block's transactions: Litecoin's extension block; empty on most coins.
    pub suffix: Bytes,
    /// Order in which transactions beside an extension block are left out; `None` without one.
    removal: Option<Arc<Removal>>,
    /// Merkle branch from the coinbase to the root over wtxids, which is also in shares (protocol section 4.8).
    pub witness_branch: Vec<Digest>,
    /// Merkle root over the wtxids, the coinbase counting as zero (BIP 141); `None` before segwit.
    pub witness_root: Option<Digest>,
}

/// Position of the next block in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextBlock {
    /// Hash of the block to build on.
    pub previous_block: BlockHash,
    pub height: u32,
}

/// Reason why a template is unusable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The compact target expands to zero, or to more than 256 bits.
    #[error("bits {0:08x} are not a valid target")]
    Bits(u32),
    /// The transactions leave no room for a coinbase.
    #[error("its transactions weigh {0}, more than the {1} of a block")]
    Weight(u64, u64),
    /// The transactions do not fit their extension block.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// The daemon's witness commitment differs from ours.
    #[error("the daemon's witness commitment {theirs} differs from ours, {ours}")]
    Commitment {
        /// Commitment from the daemon, in hex.
        theirs: String,
        /// Commitment to the template's transactions, in hex.
        ours: String,
    },
    /// An active soft fork that every miner must know is unknown to this version: its blocks would break a rule.
    #[error(
        "soft fork rule `{0}` is active and this version does not know it: no blocks can be made safely; update p2pool"
    )]
    UnknownRule(String),
}

impl Template {
    /// Checks `parts` and computes the data shared by all jobs.
    ///
    /// # Errors
    /// A template that cannot become a valid block, with the wrong value.
    pub fn new(parts: TemplateParts, known_rules: &[&str]) -> Result<Self, TemplateError> {
        let target = target_of(parts.bits).ok_or(TemplateError::Bits(parts.bits.to_consensus()))?;
        let weight = fit::sum(&parts.transactions).weight;
        if weight > parts.weight_max {
            return Err(TemplateError::Weight(weight, parts.weight_max));
        }
        // The reference stops for any unknown rule (protocol section 9.3); only those with `!` ask something of miners
        // (BIP 9).
        let required = |rule: &String| rule.strip_prefix('!').map(str::to_owned);
        if let Some(unknown) = parts.rules.iter().filter_map(required).find(|rule| !known_rules.contains(&&**rule)) {
            return Err(TemplateError::UnknownRule(escaped(&unknown).into_owned()));
        }
        let name = |rule: String| rule.strip_prefix('!').map(str::to_owned).unwrap_or(rule);
        let rules: Vec<String> = parts.rules.into_iter().map(name).collect();
        let has_extension = !parts.suffix.is_empty();
        let removal = has_extension.then(|| Removal::new(&parts.transactions).map(Arc::new)).transpose()?;
        let witness_branch = witness_branch(&parts.transactions);
        let has_segwit = rules.iter().any(|rule| rule == "segwit");
        let witness_root = has_segwit.then(|| merkle::fold([0; 32], &witness_branch));
        if let (Some(theirs), Some(root)) = (&parts.default_witness_commitment, &witness_root) {
            let ours = commitment_script(root);
            if *theirs != ours {
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                return Err(TemplateError::Commitment { theirs: hex(theirs), ours: hex(&ours) });
            }
        }
        Ok(Self {
            version: parts.version,
            previous_block: parts.previous_block,
            height: parts.height,
            bits: parts.bits,
            target,
            time: parts.time,
            time_min: parts.time_min,
            coinbase_value: parts.coinbase_value,
            coinbase_flags: parts.coinbase_flags,
            branch: branch(&parts.transactions),
            transactions: parts.transactions.into(),
            weight_max: parts.weight_max,
            rules,
            suffix: parts.suffix.into(),
            removal,
            witness_branch,
            witness_root,
        })
    }

    /// Active rules that are not among `known_rules`; none of them asks anything of miners.
    pub fn unknown_rules(&self, known_rules: &[&str]) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str).filter(|rule| !known_rules.contains(rule))
    }

    /// Target of the block in the share chain's type.
    pub fn block_target(&self) -> share::Target {
        share::Target::from_be_bytes(&self.target.to_be_bytes())
    }

    /// True if a header with this `pow_hash` solves the block.
    pub fn is_solved_by(&self, pow_hash: &[u8; 32]) -> bool {
        Target::from_le_bytes(*pow_hash) <= self.target
    }

    /// Room of the block for its coinbase and all other transactions.
    pub fn room(&self) -> Room {
        Room::of_block(self.weight_max)
    }

    /// Transactions that fit beside a coinbase that needs `coinbase`.
    ///
    /// # Errors
    /// [`NoRoom`] beside an extension block and what that needs.
    pub fn fitting(&self, coinbase: Room) -> Result<Selection, NoRoom> {
        if let Some(removal) = &self.removal {
            return removal.left_out(&self.transactions, self.weight_max, coinbase).map(Selection::Without);
        }
        let mut left = self.room().without(coinbase);
        let fits = |one: &&TemplateTransaction| {
            let room = Room::of(one);
            let fits = room.fits(left);
            if fits {
                left = left.without(room);
            }
            fits
        };
        // Stops at the first that does not fit, since later ones may spend its outputs.
        Ok(Selection::First(self.transactions.iter().take_while(fits).count()))
    }

    /// Copy of this template with only the `kept` transactions, and without the others' fees.
    pub fn keeping(self: &Arc<Self>, kept: &Selection) -> Arc<Self> {
        if self.left_out(kept).next().is_none() {
            return self.clone();
        }
        let fees = self.left_out(kept).fold(0_u64, |fees, one| fees.saturating_add(one.fee));
        let is_kept = |(index, one): (usize, &TemplateTransaction)| kept.has(index).then(|| one.clone());
        let transactions: Arc<[TemplateTransaction]> =
            self.transactions.iter().enumerate().filter_map(is_kept).collect();
        let witness_branch = witness_branch(&transactions);
        Arc::new(Self {
            coinbase_value: self.coinbase_value.saturating_sub(fees),
            branch: branch(&transactions),
            witness_root: self.witness_root.map(|_| merkle::fold([0; 32], &witness_branch)),
            witness_branch,
            removal: self.removal.as_ref().map(|_| Arc::new(Removal::of_rest(&transactions))),
            transactions,
            rules: self.rules.clone(),
            coinbase_flags: self.coinbase_flags.clone(),
            suffix: self.suffix.clone(),
            ..**self
        })
    }

    /// Transactions that a block with the `kept` ones leaves out.
    pub fn left_out(&self, kept: &Selection) -> impl Iterator<Item = &TemplateTransaction> {
        self.transactions.iter().enumerate().filter(|(index, _)| !kept.has(*index)).map(|(_, one)| one)
    }

    /// Room that all transactions take.
    pub fn used(&self) -> Room {
        fit::sum(self.transactions.iter())
    }

    /// Room that the transactions take which the extension block needs: its HogEx, peg-ins and their ancestors. `None`
    /// without an extension block.
    pub fn pinned(&self) -> Option<Room> {
        self.removal.as_ref().map(|removal| removal.pinned())
    }

    /// True if a miner that works on `previous` needs this template at once: P2Pool's new-work rule (protocol section
    /// 9.2) leaves mere changes of fees and transactions to the next refresh.
    pub fn supersedes(&self, previous: &Self) -> bool {
        self.version != previous.version
            || self.previous_block != previous.previous_block
            || self.bits != previous.bits
            || (previous.transactions.is_empty() && !self.transactions.is_empty())
    }
}

fn branch(transactions: &[TemplateTransaction]) -> Vec<Digest> {
    let txids: Vec<Digest> = transactions.iter().map(|one| one.txid.to_byte_array()).collect();
    merkle::branch_of_first(&txids)
}

fn witness_branch(transactions: &[TemplateTransaction]) -> Vec<Digest> {
    let wtxids: Vec<Digest> = transactions.iter().map(|one| one.wtxid.to_byte_array()).collect();
    merkle::branch_of_first(&wtxids)
}

/// `OP_RETURN <aa21a9ed || sha256d(witness root || reserved value)>` (BIP 141), with the zeros that daemons reserve.
fn commitment_script(witness_root: &Digest) -> Vec<u8> {
    let mut preimage = [0; 64];
    preimage[..32].copy_from_slice(witness_root);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(sha256d::Hash::hash(&preimage).as_byte_array());
    script
}

/// Expands `bits`; refuses what Bitcoin refuses: negative, zero, and more than 256 bits.
pub(crate) fn target_of(bits: CompactTarget) -> Option<Target> {
    let raw = bits.to_consensus();
    let (exponent, mantissa) = (raw >> 24, raw & 0x007f_ffff);
    let negative = raw & 0x0080_0000 != 0;
    let overflows =
        mantissa != 0 && (exponent > 34 || (mantissa > 0xff && exponent > 33) || (mantissa > 0xffff && exponent > 32));
    let target = Target::from_compact(bits);
    (!negative && !overflows && target != Target::ZERO).then_some(target)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const RULES: &[&str] = &["csv", "segwit", "taproot"];

    pub(crate) fn parts() -> TemplateParts {
        TemplateParts {
            version: 0x2000_0000,
            previous_block: BlockHash::from_byte_array([7; 32]),
            height: 101,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            time: 1_700_000_000,
            time_min: 1_699_999_000,
            coinbase_value: 5_000_000_000,
            coinbase_flags: Vec::new(),
            transactions: Vec::new(),
            weight_max: BLOCK_WEIGHT_MAX,
            rules: vec!["csv".into(), "!segwit".into(), "taproot".into()],
            default_witness_commitment: None,
            suffix: Vec::new(),
        }
    }

    pub(crate) fn transaction(seed: u8) -> TemplateTransaction {
        weighing(seed, 1000)
    }

    fn weighing(seed: u8, weight: u64) -> TemplateTransaction {
        TemplateTransaction {
            raw: Bytes::from(vec![seed; 10]),
            txid: Txid::from_byte_array([seed; 32]),
            wtxid: Wtxid::from_byte_array([seed + 100; 32]),
            fee: 1000,
            weight,
            sigops: 4,
        }
    }

    #[test]
    fn a_rule_that_miners_must_know_is_refused_by_name_if_this_version_does_not() {
        for (rule, shown) in [("!quantum", "quantum"), ("!\u{1b}[2J", r"\u{1b}[2J"), ("!", ""), ("!!segwit", "!segwit")]
        {
            let mut parts = parts();
            parts.rules.push(rule.into());
            assert_eq!(Template::new(parts, RULES).unwrap_err(), TemplateError::UnknownRule(shown.into()));
        }
    }

    #[test]
    fn work_goes_on_with_an_unknown_rule_that_asks_nothing_of_miners() {
        let mut parts = parts();
        parts.rules.push("quantum".into());
        let template = Template::new(parts, RULES).unwrap();
        assert_eq!(template.unknown_rules(RULES).collect::<Vec<_>>(), ["quantum"]);
        assert_eq!(template.rules, ["csv", "segwit", "taproot", "quantum"]);
        assert!(template.witness_root.is_some(), "a rule is known with and without its mark");
    }

    #[test]
    fn bits_that_bitcoin_would_refuse_are_refused() {
        for bits in [0, 0x0380_0001, 0xff12_3456, 0x2300_0001, 0x0100_0000] {
            let parts = TemplateParts { bits: CompactTarget::from_consensus(bits), ..parts() };
            assert_eq!(Template::new(parts, RULES).unwrap_err(), TemplateError::Bits(bits), "{bits:08x}");
        }
    }

    #[test]
    fn too_heavy_a_template_is_refused() {
        let transactions = vec![weighing(1, 2_000_000), weighing(2, 2_000_001)];
        let parts = TemplateParts { transactions, ..parts() };
        assert_eq!(Template::new(parts, RULES).unwrap_err(), TemplateError::Weight(4_000_001, 4_000_000));
    }

    #[test]
    fn a_coin_with_larger_blocks_has_room_for_what_others_leave_out() {
        let transactions = vec![weighing(1, 2_000_000), weighing(2, 2_000_001), weighing(3, 400)];
        let parts = TemplateParts { transactions, weight_max: 4_100_000, ..parts() };
        let template = Template::new(parts, RULES).unwrap();
        let first = |weight| template.fitting(Room { weight, sigops: 400 }).unwrap();
        assert_eq!(first(4000), Selection::First(3));
        assert_eq!(first(100_000), Selection::First(1));
    }

    #[test]
    fn a_witness_commitment_that_is_not_ours_is_refused() {
        let parts = TemplateParts { default_witness_commitment: Some(vec![0x6a]), ..parts() };
        assert!(matches!(Template::new(parts, RULES), Err(TemplateError::Commitment { .. })));
    }

    #[test]
    fn the_empty_block_has_the_commitment_that_core_gives_it() {
        // Core's default_witness_commitment for a template without transactions, on every chain.
        let core = "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9";
        let script: Vec<u8> =
            (0..core.len()).step_by(2).map(|at| u8::from_str_radix(&core[at..at + 2], 16).unwrap()).collect();
        let parts = TemplateParts { default_witness_commitment: Some(script), ..parts() };
        assert!(Template::new(parts, RULES).is_ok());
    }

    #[test]
    fn transactions_that_a_large_coinbase_leaves_no_room_for_go_with_their_fees() {
        let transactions = vec![weighing(1, 2_000_000), weighing(2, 1_990_000), weighing(3, 400)];
        let full = Arc::new(Template::new(TemplateParts { transactions, ..parts() }, RULES).unwrap());
        let first = |weight, sigops| full.fitting(Room { weight, sigops }).unwrap();
        assert_eq!(first(4000, 400), Selection::First(3), "nothing is left out without need");
        assert!(Arc::ptr_eq(&full.keeping(&Selection::First(3)), &full));
        assert_eq!(first(40_000, 400), Selection::First(1), "what follows a left-out transaction may depend on it");
        let fewer = full.keeping(&Selection::First(1));
        assert_eq!(fewer.coinbase_value, full.coinbase_value - 2000);
        let alone = TemplateParts { transactions: vec![weighing(1, 2_000_000)], ..parts() };
        let alone = Template::new(alone, RULES).unwrap();
        assert_eq!((&fewer.branch, fewer.witness_root), (&alone.branch, alone.witness_root));
        assert_eq!(first(4000, BLOCK_SIGOPS_MAX - 8), Selection::First(2));
        assert_eq!(first(BLOCK_WEIGHT_MAX, 0), Selection::First(0));
    }

    #[test]
    fn weights_and_fees_beyond_any_block_are_refused_and_do_no_harm() {
        let transactions = vec![weighing(1, 1 << 63), weighing(2, 1 << 63)];
        let parts_of = |transactions| TemplateParts { transactions, ..parts() };
        let error = Template::new(parts_of(transactions), RULES).unwrap_err();
        assert_eq!(error, TemplateError::Weight(u64::MAX, BLOCK_WEIGHT_MAX));
        let dear = TemplateTransaction { fee: u64::MAX, ..weighing(1, 400) };
        let full = Arc::new(Template::new(parts_of(vec![dear.clone(), dear]), RULES).unwrap());
        assert_eq!(full.keeping(&Selection::First(0)).coinbase_value, 0);
    }

    #[test]
    fn new_transactions_alone_do_not_supersede_but_the_first_ones_and_a_new_block_do() {
        let empty = Template::new(parts(), RULES).unwrap();
        let one = Template::new(TemplateParts { transactions: vec![weighing(1, 400)], ..parts() }, RULES).unwrap();
        let two =
            Template::new(TemplateParts { transactions: vec![weighing(1, 400), weighing(2, 400)], ..parts() }, RULES)
                .unwrap();
        let next =
            Template::new(TemplateParts { previous_block: BlockHash::from_byte_array([8; 32]), ..parts() }, RULES)
                .unwrap();
        assert!(one.supersedes(&empty));
        assert!(!two.supersedes(&one));
        assert!(next.supersedes(&empty));
    }
}
