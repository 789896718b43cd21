//! Forges real shares that fit their ancestors, on a network where nearly every hash is good enough: for the
//! simulation, tests and benchmarks.

mod merged;

pub use merged::{merged_address, merged_block};

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::chain::{Sharechain, Tip};
use crate::coin::{Network, from_toml};
use crate::merkle::{Digest, branch_of_first, fold};
use crate::share::{
    Additions, Attempts, Bits, Draft, MergedAddress, MergedCoinbase, MinHeader, Payee, Payouts, SegwitData, Share,
    ShareData, ShareHash, ShareInfo, StaleInfo, Target,
};

/// Start time of the forged chains, seconds since 1970.
pub const START: u32 = 1_700_000_000;

/// A message of an authority, in hex: the transition message of Litecoin's main network, by the fork's maintainer.
pub const GENUINE_MESSAGE: &str = "017c9299b7c4579e67c0e7670dfc9c4207c045f7c7cc28f8eee9a11e1779f41440b240f6c66376d03d5ecd2d03a896ab93135f354ac8\
    95032c72486ee15202bfbaea01e595d5ef8c49a8c66a0a5da39fa1e5ef4ad669874582380dc0915f8eafb7697b55f6ba8208c017ccd1\
    12710cf8f06cd6b17fb9f22889c6c1dcbbf636e0c70963ee8ad00825f95b9f6c7d42089ba271155b8d8420e38d6d8925f91cd348c7e5\
    17a9461fd1574e990d682cedc4c5c646612b0d91c6662afb91c2d157859230d6185e31e8c2c4e98273f824e3c48f9d372f5fc65bfcd8\
    d10e1ff729f9b87c9c841a1f087055703d1e85b9039c3cd87184a66abf589c0642f3243cba67b5aa3ed7154f75350af5752652795709\
    b7537f3a18f05bfaa2a88895e3e2afe7195a2f39f67ba0ccb3f7ab6779ffdb0ddf02fed2d661fb474b6fc5cafa76dc087cd6927bf559\
    5237e7531927b2e6f688584c5608d6905347460bf82e5449eede31dae5a848199a2fd6166f3c0e";

/// Creates a network with this chain length and a share every ten seconds, whose fresh chains begin with share version
/// `start_version`.
pub fn network(chain_length: u32, start_version: u64) -> &'static Network {
    network_of_period(chain_length, 10, start_version)
}

/// Like [`network`], with a share every `share_period` seconds. Leaked for the life of the process: create few.
///
/// # Panics
/// If no network can have these numbers.
pub fn network_of_period(chain_length: u32, share_period: u32, start_version: u64) -> &'static Network {
    network_with(chain_length, share_period, start_version..=start_version.max(35), Target::MAX_256)
}

/// Like [`network`], where each share takes at least `attempts` hashes.
///
/// # Panics
/// If no network can have these numbers.
pub fn network_of_work(chain_length: u32, start_version: u64, attempts: u64) -> &'static Network {
    network_with(chain_length, 10, start_version..=start_version.max(35), bits_of(attempts).target())
}

/// Like [`network_of_work`], with these share versions: the first on a fresh chain, and the newest. Networks of the same
/// chain length and work are one network, of which some nodes know fewer versions than others.
///
/// # Panics
/// If no network can have these numbers.
pub fn network_of_versions(chain_length: u32, versions: RangeInclusive<u64>, attempts: u64) -> &'static Network {
    network_with(chain_length, 10, versions, bits_of(attempts).target())
}

fn network_with(
    chain_length: u32,
    share_period: u32,
    versions: RangeInclusive<u64>,
    max_target: Target,
) -> &'static Network {
    let lookbehind = (chain_length / 2).clamp(2, 200);
    let (start_version, newest) = versions.into_inner();
    // What the newest version needs, so that nodes do not refuse each other.
    let protocol = if newest < 36 { 3502 } else { 3600 };
    let text = format!(
        "BASE = \"bitcoin_signet\"\nNAME = \"forged\"\nCHAIN_LENGTH = {chain_length}\nREAL_CHAIN_LENGTH = {chain_length}\n\
         TARGET_LOOKBEHIND = {lookbehind}\nSHARE_PERIOD = {share_period}\nSTART_VERSION = {start_version}\nNEWEST_VERSION = {newest}\n\
         PROTOCOL_VERSION = {protocol}\nMINIMUM_PROTOCOL_VERSION = 1400\nMAX_TARGET = \"{:064x}\"\n",
        max_target.0
    );
    Box::leak(Box::new(from_toml(&text).expect("numbers that a network can have")))
}

/// Choices of a forged share's miner.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Payee: the address derived from this number.
    pub payee: u32,
    /// Wanted timestamp, seconds since 1970; later if the parent's time requires it.
    pub timestamp: u32,
    /// Wanted share target.
    pub target: Target,
    /// Block target; by default too hard for any share to be a block.
    pub block_bits: Bits,
    /// Parent block.
    pub previous_block: Option<Digest>,
    /// Block subsidy in satoshis.
    pub subsidy: u64,
    /// Donation in 65535ths.
    pub donation: u16,
    /// Announcement of a lost share.
    pub stale_info: StaleInfo,
    /// Version to vote for, if not the default.
    pub vote: Option<u64>,
    /// Hashes of the block's other transactions.
    pub transactions: Vec<Digest>,
    /// Where the payee is paid on merged chains; used from version 36 on.
    pub merged_addresses: Vec<MergedAddress>,
    /// Blocks of merged chains that the share proves, from version 36 on; the coinbase script commits to the first.
    pub merged_coinbase_info: Vec<MergedCoinbase>,
    /// Nonce that distinguishes otherwise equal shares.
    pub nonce: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            payee: 1,
            timestamp: START,
            target: Target::MAX_256,
            block_bits: Bits(0x1d00_ffff),
            previous_block: None,
            subsidy: 5_000_000_000,
            donation: 0,
            stale_info: StaleInfo::NONE,
            vote: None,
            transactions: Vec::new(),
            merged_addresses: Vec::new(),
            merged_coinbase_info: Vec::new(),
            nonce: 0,
        }
    }
}

fn hash160(payee: u32) -> [u8; 20] {
    let mut hash = [7; 20];
    hash[..4].copy_from_slice(&payee.to_le_bytes());
    hash
}

/// Builds the info of a share on `tip` by `plan`.
///
/// # Panics
/// If too little of the chain is known to build on it.
pub fn info(chain: &Sharechain, tip: &Tip, plan: &Plan) -> ShareInfo {
    let rules = chain.rules();
    let next = tip.next_share(plan.block_bits.target()).expect("the whole window is known");
    let (version, required) = (next.version, &next.requirements);
    let (max_bits, bits) = required.targets(version, plan.timestamp, plan.target);
    let payee = Payee::from_pubkey_hash(&hash160(plan.payee), rules);
    let payout = payee.payout(version).expect("every version can hold a pubkey hash");
    ShareInfo {
        share_data: ShareData {
            previous: next.previous,
            coinbase: merged::script(&plan.merged_coinbase_info),
            nonce: plan.nonce,
            payout,
            subsidy: plan.subsidy,
            donation: plan.donation,
            stale_info: plan.stale_info,
            desired_version: plan.vote.unwrap_or(next.desired_version),
        },
        segwit_data: next.has_segwit.then(|| SegwitData {
            txid_merkle_branch: branch_of_first(&plan.transactions).into(),
            wtxid_merkle_root: [0; 32],
        }),
        transactions: next.transactions(|| plan.transactions.clone()),
        far_share_hash: required.far_share_hash,
        max_bits,
        bits,
        timestamp: next.timestamp(plan.timestamp).expect("centuries are left"),
        absheight: required.absheight,
        abswork: required.abswork(bits),
        additions: next.additions().map(|additions| {
            let merged_addresses = plan.merged_addresses.clone().into();
            let merged_coinbase_info = plan.merged_coinbase_info.clone().into();
            Box::new(Additions { merged_addresses, merged_coinbase_info, ..*additions })
        }),
    }
}

/// Finds the share with this `info`.
///
/// # Panics
/// If the network's targets are too hard to find one.
pub fn find(chain: &Sharechain, tip: &Tip, plan: &Plan, info: ShareInfo) -> Arc<Share> {
    let rules = chain.rules();
    let weights = tip.weights(plan.block_bits.target());
    let payouts = Payouts::new(tip.version(), plan.subsidy, &weights, rules).expect("all payees can be paid");
    let draft = Draft::new(info, &payouts, &branch_of_first(&plan.transactions), rules).expect("the payee can be paid");
    let header = |nonce| MinHeader {
        version: 0x2000_0000,
        previous_block: plan.previous_block,
        timestamp: plan.timestamp,
        bits: plan.block_bits,
        nonce,
    };
    // Only the header depends on the nonce: a share may take megabytes to hash.
    let gentx_hash = draft.hash_link().gentx_hash(draft.version(), draft.ref_hash(), 0);
    let segwit = draft.info().segwit_data.as_ref();
    let merkle_root = match segwit {
        Some(segwit) => fold(gentx_hash, &segwit.txid_merkle_branch),
        None => fold(gentx_hash, &branch_of_first(&plan.transactions)),
    };
    let target = draft.info().bits.target();
    let is_found = |nonce: &u32| target.is_met_by(&(rules.pow)(&header(*nonce).complete(&merkle_root)));
    let nonce = (0..u32::MAX).find(is_found).expect("nearly every hash is good enough");
    Arc::new(draft.finish(header(nonce), 0, rules).expect("it was just found"))
}

/// Forges a share on top of `parent`.
///
/// # Panics
/// If too little of the chain is known to build on it.
pub fn share_on(chain: &mut Sharechain, parent: Option<ShareHash>, plan: &Plan) -> Arc<Share> {
    let tip = chain.tip_at(parent);
    let info = info(chain, &tip, plan);
    find(chain, &tip, plan, info)
}

/// Forges a share of version 36 on top of `parent` with these fields of its version, which need not be valid.
///
/// # Panics
/// If too little of the chain is known to build on it.
pub fn share_with(chain: &mut Sharechain, parent: Option<ShareHash>, plan: &Plan, additions: Additions) -> Arc<Share> {
    let tip = chain.tip_at(parent);
    let info = ShareInfo { additions: Some(Box::new(additions)), ..info(chain, &tip, plan) };
    find(chain, &tip, plan, info)
}

/// Adds shares on top of `parent`, ten seconds apart, choosing after each, and returns their hashes.
///
/// # Panics
/// If `parent` is unknown.
pub fn grow(chain: &mut Sharechain, parent: Option<ShareHash>, count: u32, plan: &Plan) -> Vec<ShareHash> {
    let mut parent = parent;
    let mut hashes = Vec::new();
    for _ in 0..count {
        let timestamp =
            parent.map_or(plan.timestamp, |parent| chain.share(parent).expect("the parent is here").timestamp() + 10);
        let share = share_on(chain, parent, &Plan { timestamp, ..plan.clone() });
        hashes.push(share.hash());
        parent = Some(share.hash());
        chain.add(share, None, f64::from(timestamp));
        chain.think(f64::from(timestamp));
    }
    hashes
}

/// Compact form of the target that takes this many hashes on average.
pub fn bits_of(attempts: u64) -> Bits {
    let hashes = ruint::aliases::U320::from(1) << 256;
    Bits::from_target(Target(hashes / ruint::aliases::U320::from(attempts)))
}

/// Converts a number of hashes to work.
pub fn attempts(number: u64) -> Attempts {
    Attempts(ruint::aliases::U320::from(number))
}
