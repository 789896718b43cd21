//! Makes the share-to-be and its `Job` from work and a payout, and finishes both when the job is solved.

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash;
use sharechain::coin::Network;
use sharechain::share::{
    Bits, CheckError, Draft, DraftError, MinHeader, Payouts, Share, ShareHash, ShareInfo, ShareRules, Target,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stratum::mining::midstate::Midstate;
use stratum::mining::version_rolling::VERSION_MASK;
use stratum::{JobId, JobParts, Offer};

use super::{Goal, Payout, target};
use crate::runtime::clock::since_1970;
use crate::template::Template;

/// Bits that the top of a block's version must be (BIP 9), so that no bit is a signal by accident.
const VERSION_TOP_BITS: u32 = 0x2000_0000;

/// How far a share's time may lie ahead of the clock: less than the 600 s that peers bear (protocol section 5.2), since
/// their clocks may be behind ours.
const AHEAD_MAX_S: u32 = 300;

/// What all jobs made of one template and one tip have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) network: &'static Network,
    pub(super) rules: ShareRules,
    /// What the daemon sent.
    pub(super) source: Arc<Template>,
    /// What the block is made of: all of it that fits beside our coinbase.
    pub(super) template: Arc<Template>,
    /// What blocks a hash may be good enough for.
    pub(super) goals: Box<[(Goal, Target)]>,
    /// Who gets how much before the finder's part.
    pub(super) payouts: Payouts,
}

/// What a job needs to become a share and a block, whenever its solution comes. The coinbase is not in it: it is derived
/// again, so that hundreds of payouts times minutes of jobs stay small.
#[derive(Debug)]
pub struct Ticket {
    common: Arc<Common>,
    payout: Payout,
    info: Box<ShareInfo>,
    /// Whether a share of it could be told to anyone.
    makes_shares: bool,
}

impl Ticket {
    /// What the block is made of.
    pub fn template(&self) -> &Template {
        &self.common.template
    }

    /// The same, to be kept.
    pub(super) fn shared_template(&self) -> &Arc<Template> {
        &self.common.template
    }

    /// Whom the share pays as its finder.
    pub fn payout(&self) -> &Payout {
        &self.payout
    }

    /// The share that the share-to-be builds on.
    pub fn previous_share(&self) -> Option<ShareHash> {
        self.info.share_data.previous
    }

    /// All that a hash may be good enough for, with the targets: the share, the block, merged chains' blocks.
    fn goals(&self) -> impl Iterator<Item = (Goal, Target)> {
        let share = self.makes_shares.then(|| (Goal::Share, self.info.bits.target()));
        share.into_iter().chain(self.common.goals.iter().copied())
    }

    /// What a solution with this proof of work is.
    pub fn reached(&self, pow_hash: &[u8; 32]) -> Vec<Goal> {
        self.goals().filter(|(_, target)| target.is_met_by(pow_hash)).map(|(goal, _)| goal).collect()
    }

    /// Whom the block of `draft` pays, in words.
    pub fn payees_in_words(&self, draft: &Draft) -> String {
        // The donation address is always among them, most often with nothing but what rounding leaves.
        match self.common.payouts.with_finder(draft.payee()).count() - 1 {
            0 | 1 => self.payout.address.to_string(),
            others => format!("{} and {} more", self.payout.address, others - 1),
        }
    }

    /// The share-to-be again, with its coinbase.
    ///
    /// # Errors
    /// None that making the job did not have.
    pub fn draft(&self) -> Result<Draft, DraftError> {
        Draft::new((*self.info).clone(), &self.common.payouts, &self.common.template.witness_branch, &self.common.rules)
    }

    /// The share that `header` and its extranonces make of `draft`.
    ///
    /// # Errors
    /// It is none: not hard enough, in the first place.
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

    /// The whole block, as it goes over the wire.
    pub fn block(&self, draft: &Draft, header: &[u8; 80], extranonces: [u8; 8]) -> Vec<u8> {
        let transactions = &self.common.template.transactions;
        let coinbase = draft.coinbase_bytes(u64::from_le_bytes(extranonces));
        let size: usize = transactions.iter().map(|transaction| transaction.raw.len()).sum();
        let mut block = Vec::with_capacity(80 + 9 + coinbase.len() + size);
        block.extend_from_slice(header);
        block.extend_from_slice(&serialize(&VarInt::from(transactions.len() + 1)));
        block.extend_from_slice(&coinbase);
        for transaction in transactions.iter() {
            block.extend_from_slice(&transaction.raw);
        }
        block.extend_from_slice(&self.common.template.suffix);
        block
    }
}

/// A job on `common` with the share-to-be that `info` describes.
pub(super) fn offer(
    common: &Arc<Common>,
    payout: &Payout,
    info: ShareInfo,
    now: u32,
) -> Result<Offer<Ticket>, DraftError> {
    // A share's time is above its parent's, whatever the clock says: a miner far too fast for its chain runs ahead, until
    // nobody would take its shares any more. It goes on looking for blocks.
    let makes_shares = info.timestamp <= now.saturating_add(AHEAD_MAX_S);
    let draft = Draft::new(info, &common.payouts, &common.template.witness_branch, &common.rules)?;
    let template = &common.template;
    let head = draft.coinbase_head();
    let ticket =
        Ticket { common: common.clone(), payout: payout.clone(), info: Box::new(draft.info().clone()), makes_shares };
    let easiest = ticket.goals().map(|(_, target)| target).max().expect("there is a block to find");
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
        solution_target: target::of_miners(easiest),
        pow: common.network.parent.pow.function(),
    };
    Ok(Offer::new(&parts, ticket))
}

/// SHA-256 after the coinbase's head, from where the hash link left off: the head is kilobytes, and hashed once.
fn midstate(draft: &Draft, head: &[u8]) -> Midstate {
    let link = draft.hash_link();
    let hashed = link.length - link.length % 64;
    let rest = usize::try_from(hashed).expect("a coinbase fits into memory");
    Midstate::resume(&link.state, hashed, &head[rest..])
}

/// Numbers that are never used again, also not after a restart: they start at the clock's microseconds.
fn next_job_id() -> JobId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since_1970 = since_1970();
    let start = u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX / 2);
    // Only the first call finds it at zero; whoever loses that race takes what the winner stored.
    let _ = NEXT.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
    JobId(NEXT.fetch_add(1, Ordering::Relaxed))
}
