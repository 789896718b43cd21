//! Builds the share-to-be and its `Job` from work and a payout, and completes both when the job is solved.

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use sharechain::coin::{Network, Pow};
use sharechain::merged::MergedBlock;
use sharechain::share::{
    Bits, CheckError, Draft, DraftError, MinHeader, Payouts, Share, ShareHash, ShareInfo, ShareRules, Target,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stratum::mining::job;
use stratum::mining::midstate::Midstate;
use stratum::mining::version_rolling::VERSION_MASK;
use stratum::{JobId, JobParts};

use super::{Goal, Payout, goal, target};
use crate::merged::MergedJobs;
use crate::runtime::clock::since_1970;
use crate::template::Template;

/// Value of a block version's top bits (BIP 9), so that no bit is a signal by accident.
const VERSION_TOP_BITS: u32 = 0x2000_0000;

/// Maximum lead of a share's time over the clock: less than the 600 s that peers tolerate (protocol section 5.2), since
/// their clocks may be behind ours.
const AHEAD_MAX_S: u32 = 300;

/// Common parts of all jobs from one template and one tip.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) network: &'static Network,
    pub(super) rules: ShareRules,
    /// Template of the block: everything that fits beside our coinbase.
    pub(super) template: Arc<Template>,
    /// Next blocks of merged chains.
    pub(super) merged: Arc<MergedJobs>,
    /// Payouts before the finder's part.
    pub(super) payouts: Payouts,
}

/// Data for turning a solution of a job into a share and a block, whenever it comes. The coinbase is derived again
/// instead of stored, so that hundreds of payouts times minutes of jobs stay small.
#[derive(Debug)]
pub struct Ticket {
    common: Arc<Common>,
    payout: Payout,
    info: Box<ShareInfo>,
    /// False if peers would not accept a share of it.
    makes_shares: bool,
}

impl Ticket {
    /// Template of the block.
    pub fn template(&self) -> &Template {
        &self.common.template
    }

    /// Shared template of the block.
    pub(super) fn shared_template(&self) -> &Arc<Template> {
        &self.common.template
    }

    /// Payout of the share's finder.
    pub fn payout(&self) -> &Payout {
        &self.payout
    }

    /// Hash of the share that the share-to-be builds on.
    pub fn previous_share(&self) -> Option<ShareHash> {
        self.info.share_data.previous
    }

    /// Memory that it takes beside its own size, in bytes, without what it shares.
    pub(super) fn memory(&self) -> usize {
        let ShareInfo { share_data, segwit_data, transactions, additions, .. } = &*self.info;
        let branch = segwit_data.as_ref().map_or(0, |segwit| size_of_val(&*segwit.txid_merkle_branch));
        let refs = transactions.as_ref().map_or(0, |all| size_of_val(&*all.new_hashes) + size_of_val(&*all.refs));
        let added = additions.as_ref().map_or(0, |additions| additions.memory_bytes());
        size_of::<ShareInfo>() + share_data.coinbase.len() + self.payout.script.len() + branch + refs + added
    }

    /// Everything that a hash may solve, with targets: the share, the block, merged chains' blocks.
    fn goals(&self) -> impl Iterator<Item = (Goal, Target)> {
        let Common { template, merged, .. } = &*self.common;
        goal::all(template, &merged.work, self.info.bits.target(), self.makes_shares)
    }

    /// Goals that a solution with this proof of work reaches.
    pub fn reached(&self, pow_hash: &[u8; 32]) -> Vec<Goal> {
        self.goals().filter(|(_, target)| target.is_met_by(pow_hash)).map(|(goal, _)| goal).collect()
    }

    /// Describes the payees of the block of `draft`.
    pub fn payees_in_words(&self, draft: &Draft) -> String {
        // The donation address is always among them, usually with only the rounding remainder.
        match self.common.payouts.with_finder(draft.payee()).count() - 1 {
            0 | 1 => self.payout.address.to_string(),
            others => format!("{} and {} more", self.payout.address, others - 1),
        }
    }

    /// Builds the share-to-be with its coinbase again.
    ///
    /// # Errors
    /// Only those that making the job would have had.
    pub fn draft(&self) -> Result<Draft, DraftError> {
        Draft::new((*self.info).clone(), &self.common.payouts, &self.common.template.witness_branch, &self.common.rules)
    }

    /// Builds the share of `draft`, `header` and its extranonces.
    ///
    /// # Errors
    /// It is not a valid share, most likely not hard enough.
    pub fn share(&self, draft: &Draft, header: &[u8; 80], extranonces: [u8; 8]) -> Result<Share, CheckError> {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let header = MinHeader {
            version: word(0),
            previous_block: Some(self.common.template.previous_block.to_byte_array()),
            timestamp: word(68),
            bits: Bits(word(72)),
            nonce: word(76),
        };
        draft.finish(header, u64::from_le_bytes(extranonces), &self.common.rules)
    }

    /// Returns a merged chain's block that a solution reached ([`Goal::Merged`]), and what its daemon takes: the proof of
    /// its work, or the whole block.
    pub fn merged_block(
        &self,
        index: usize,
        draft: &Draft,
        header: &[u8; 80],
        extranonces: [u8; 8],
    ) -> Option<(&MergedBlock, Vec<u8>)> {
        let Common { merged, template, .. } = &*self.common;
        let coinbase = draft.coinbase().stripped(draft.ref_hash(), u64::from_le_bytes(extranonces));
        merged.solved(index, &coinbase, &template.branch, header)
    }

    /// Serializes the whole block for the wire.
    pub fn block(&self, draft: &Draft, header: &[u8; 80], extranonces: [u8; 8]) -> Vec<u8> {
        let transactions = &self.common.template.transactions;
        let coinbase = draft.coinbase_bytes(u64::from_le_bytes(extranonces));
        let suffix = &self.common.template.suffix;
        let size: usize = transactions.iter().map(|transaction| transaction.raw.len()).sum();
        let mut block = Vec::with_capacity(80 + 9 + coinbase.len() + size + suffix.len());
        block.extend_from_slice(header);
        block.extend_from_slice(&serialize(&VarInt::from(transactions.len() + 1)));
        block.extend_from_slice(&coinbase);
        for transaction in transactions.iter() {
            block.extend_from_slice(&transaction.raw);
        }
        block.extend_from_slice(suffix);
        block
    }
}

/// Builds a job on `common` for the share-to-be described by `info`, and `finish`es it.
pub(super) fn job<R>(
    common: &Arc<Common>,
    payout: &Payout,
    info: ShareInfo,
    now: u32,
    finish: impl FnOnce(&JobParts<'_>, Ticket) -> R,
) -> Result<R, DraftError> {
    // A share's time is above its parent's, whatever the clock says: a miner far too fast for its chain runs ahead,
    // until no peer would accept its shares. It goes on looking for blocks.
    let makes_shares = info.timestamp <= now.saturating_add(AHEAD_MAX_S);
    let draft = Draft::new(info, &common.payouts, &common.template.witness_branch, &common.rules)?;
    let template = &common.template;
    let head = draft.coinbase_head();
    let ticket =
        Ticket { common: common.clone(), payout: payout.clone(), info: Box::new(draft.info().clone()), makes_shares };
    let easiest = |of_merged: bool| {
        let goals = ticket.goals().filter(|(goal, _)| matches!(goal, Goal::Merged(_)) == of_merged);
        goals.map(|(_, target)| target).max().map(target::of_miners)
    };
    let (solution_target, extra_target) = (easiest(false).expect("there is a block to find"), easiest(true));
    let parts = JobParts {
        id: next_job_id(),
        coinbase_head: &head,
        coinbase_midstate: midstate(&draft, &head),
        coinbase_tail: &draft.coinbase().tail(),
        branch: &template.branch,
        version: (template.version & !VERSION_MASK) | VERSION_TOP_BITS,
        previous_block: template.previous_block.to_byte_array(),
        bits: template.bits.to_consensus(),
        time: template.time,
        time_min: template.time_min,
        solution_target,
        // A merged chain's daemon names any target it likes.
        extra_target,
        pow: match common.network.parent.pow {
            Pow::Sha256d => job::Pow::Sha256d,
            pow @ Pow::Scrypt => job::Pow::Costly(pow.function()),
        },
    };
    Ok(finish(&parts, ticket))
}

/// Continues SHA-256 from the hash link over the coinbase's head, which is kilobytes long and hashed only once.
fn midstate(draft: &Draft, head: &[u8]) -> Midstate {
    let link = draft.hash_link();
    let hashed = link.length - link.length % 64;
    let rest = usize::try_from(hashed).expect("a coinbase fits into memory");
    Midstate::resume(&link.state, hashed, &head[rest..])
}

/// Returns a number that is never used again, even after a restart: they start at the clock's microseconds.
fn next_job_id() -> JobId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since_1970 = since_1970();
    let start = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX / 2);
    // Only the first call finds it at zero; a caller that loses that race uses what the winner stored.
    let _ = NEXT.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
    JobId(NEXT.fetch_add(1, Ordering::Relaxed))
}
