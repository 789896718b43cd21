//! `WorkSet`: a snapshot of the current work; implements [`stratum::Work`] and makes jobs per payout.

mod assemble;
mod block_templates;
pub mod gate;
mod goal;
mod jobs;
mod payout;
mod publish;
pub mod room;
pub mod target;
pub mod username;

pub use assemble::Ticket;
pub use gate::Gate;
pub use goal::Goal;
pub use payout::{MergedEntry, Origin, Payout, PayoutError};
pub use publish::{Inputs, Outputs, describe, publish};

use bitcoin::hashes::Hash;
use bytes::Bytes;
use parking_lot::Mutex;
use sharechain::chain::{NextShare, Tip, share_rules};
use sharechain::coin::Network;
use sharechain::merged::{COMMITMENT_BYTES, COMMITMENT_HEAD, MergedWork};
use sharechain::merkle::Digest;
use sharechain::share::{
    self, GenerationError, Payee, PayeeError, Payouts, ScriptError, SegwitData, ShareData, ShareInfo, TransactionRefs,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stratum::{Epochs, Job, JobParts, Offer, Refusal, Unannounced, Worker};
use thiserror::Error;
use tracing::warn;

use crate::merged::MergedJobs;
use crate::rates::Rates;
use crate::template::{NoRoom, Template};
use assemble::Common;
use block_templates::BlockTemplates;
use jobs::{Bounds, JobCache, JobKey};
use target::{Block, Miners};

/// Room in the coinbase script for texts and merged chains' commitment, beside height and flags.
const TEXTS_BYTES_MAX: usize = 80;

/// Part of it that the commitment takes, with the byte that pushes it.
const COMMITMENT_PUSH_BYTES: usize = COMMITMENT_BYTES + 1;

/// First bytes of the commitment ([`COMMITMENT_HEAD`]) in hex.
const COMMITMENT_HEAD_HEX: &str = "fabe6d6d";

/// Bounds of the jobs kept for miners with a connection. With the line that announces it, one takes 2 kB while the chain
/// is young, and 70 kB if it pays a thousand miners.
const ANNOUNCED: Bounds = Bounds { entries: 16 * 1024, bytes: 64 * 1024 * 1024 };

/// Bounds of the jobs kept for polling miners, 2 kB each.
const POLLED: Bounds = Bounds { entries: 8 * 1024, bytes: 16 * 1024 * 1024 };

/// Operator's settings for work.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network mined on.
    pub network: &'static Network,
    /// Payout when a worker's name is no address, and for the operator's fee.
    pub default_payout: Payout,
    /// Percentage of jobs that pay the operator instead of the worker.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
    /// Texts for the coinbase, checked by [`check_texts`].
    pub coinbase_texts: Vec<String>,
    /// Minimum time between two changes of jobs that only merged chains caused.
    pub merged_pause: Duration,
    /// Returns the time for shares, in seconds since 1970: [`unix_second`](crate::runtime::clock::unix_second), or a
    /// test's.
    pub clock: fn() -> u32,
}

/// Error of coinbase texts that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextsError {
    /// One text is too long for one push.
    #[error("text `{0}` is longer than 75 bytes")]
    TooLong(String),
    /// All texts together are too long.
    #[error("together they take {taken} bytes of the coinbase script, of which {free} are free{}",
        if *has_merged { " beside the commitment to the chains of --merged" } else { "" })]
    TooMany {
        /// Bytes that they take.
        taken: usize,
        /// Bytes that are free.
        free: usize,
        /// True if merged chains are mined.
        has_merged: bool,
    },
    /// A text looks like a commitment to merged chains.
    #[error(
        "text `{0}` contains {COMMITMENT_HEAD_HEX}, the mark of the commitment to merged chains: it stands in a coinbase \
         once, and the node writes it (--merged)"
    )]
    Commitment(String),
}

/// Checks that `texts` fit into the coinbase script, with merged chains' commitment if it `has_merged`, and that none
/// passes for such a commitment, of which verifiers accept one alone.
///
/// # Errors
/// They do not fit, or one looks like a commitment.
pub fn check_texts(texts: &[String], has_merged: bool) -> Result<(), TextsError> {
    // No text has the bytes themselves, since they are not UTF-8.
    let is_commitment = |text: &&String| text.to_ascii_lowercase().contains(COMMITMENT_HEAD_HEX);
    if let Some(marked) = texts.iter().find(is_commitment) {
        return Err(TextsError::Commitment(marked.clone()));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > 75) {
        return Err(TextsError::TooLong(long.clone()));
    }
    let free = if has_merged { TEXTS_BYTES_MAX - COMMITMENT_PUSH_BYTES } else { TEXTS_BYTES_MAX };
    let taken = texts.iter().map(|text| text.len() + 1).sum();
    if taken > free { Err(TextsError::TooMany { taken, free, has_merged }) } else { Ok(()) }
}

/// Reason why there is no work despite template and tip.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkError {
    /// Too little of the chain is known to derive the next share's fields.
    #[error("the share chain is not known far enough back")]
    ChainIncomplete,
    /// No coinbase can be built on this tip.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The coinbase script cannot be built.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// This share version cannot pay the operator's own address.
    #[error(transparent)]
    Payee(#[from] PayeeError),
    /// The coinbase does not fit beside the template's extension block.
    #[error(transparent)]
    Room(#[from] NoRoom),
}

/// Inputs of work: plain data, so that work can be made wherever these are.
#[derive(Debug, Clone)]
pub struct WorkParts {
    /// Template of the parent chain's next block.
    pub template: Arc<Template>,
    /// Mandatory fields and payouts of the next share, if its block has the template's target.
    pub next_share: NextShare,
    /// Next blocks of merged chains.
    pub merged: Arc<MergedJobs>,
}

impl WorkParts {
    /// Creates the parts for a block like `template` whose share builds on `tip`.
    ///
    /// # Errors
    /// [`WorkError::ChainIncomplete`].
    pub fn new(template: &Arc<Template>, tip: &Tip, merged: Arc<MergedWork>) -> Result<Self, WorkError> {
        Self::with_jobs(template, tip, |_| Arc::new(merged.into()))
    }

    /// Same as [`Self::new`] with what `merged_jobs` makes of merged chains' blocks for the next share.
    ///
    /// # Errors
    /// [`WorkError::ChainIncomplete`].
    pub(crate) fn with_jobs(
        template: &Arc<Template>,
        tip: &Tip,
        merged_jobs: impl FnOnce(&NextShare) -> Arc<MergedJobs>,
    ) -> Result<Self, WorkError> {
        let next_share = tip.next_share(template.block_target()).ok_or(WorkError::ChainIncomplete)?;
        let merged = merged_jobs(&next_share);
        Ok(Self { template: template.clone(), next_share, merged })
    }
}

/// Current work. Immutable except for the cache of its jobs.
#[derive(Debug)]
pub struct WorkSet {
    config: Arc<Config>,
    next_share: NextShare,
    rates: Arc<Rates>,
    epochs: Epochs,
    made: Instant,
    common: Arc<Common>,
    blocks: BlockTemplates,
    /// Common coinbase script, segwit data and transactions of all shares-to-be.
    coinbase_script: Box<[u8]>,
    segwit_data: Option<SegwitData>,
    transactions: Option<TransactionRefs>,
    /// One job serves every connection with the same payout.
    jobs: JobCache<Offer<Ticket>>,
    /// Jobs of polling miners.
    polled: JobCache<Arc<Job<Ticket>>>,
    /// Last rendered list of transactions: megabytes, so only one is kept at a time.
    rendered: Arc<Mutex<Option<Rendered>>>,
}

/// A template's transactions as a JSON list of hex.
#[derive(Debug)]
struct Rendered {
    template: Arc<Template>,
    list: Bytes,
}

impl WorkSet {
    /// Creates work from `parts`; `before` is the previous work, whose results are reused if the template is the same.
    ///
    /// # Errors
    /// No work can be made.
    pub fn new(
        config: &Arc<Config>,
        parts: WorkParts,
        rates: Arc<Rates>,
        epochs: Epochs,
        before: Option<&Self>,
    ) -> Result<Self, WorkError> {
        let WorkParts { template, next_share, merged } = parts;
        let network = config.network;
        let rules = share_rules(network);
        let commitments = commitments(&merged.work, &config.coinbase_texts);
        let coinbase_script = coinbase_script(template.height, &commitments, flags(&template, &merged.work))?;
        if has_foreign_commitment(&template, &merged.work)
            && !before.is_some_and(|before| has_foreign_commitment(&before.common.template, &before.common.merged.work))
        {
            warn!(
                "bitcoind's coinbase flags hold a commitment to merged chains beside ours: they are left out, since a \
                 coinbase has one alone; turn off whatever adds them to the template"
            );
        }
        let payouts_of = |value| Payouts::new(next_share.version, value, &next_share.weights, &rules);
        let segwit_of = |template: &Template| {
            next_share.has_segwit.then(|| SegwitData {
                txid_merkle_branch: template.branch.clone().into(),
                wtxid_merkle_root: template.witness_root.unwrap_or_default(),
            })
        };
        let default_payee = Payee::from_address(&config.default_payout.address, &rules)?;
        let payouts = payouts_of(template.coinbase_value)?;
        let coinbase = payouts.coinbase(&coinbase_script, segwit_of(&template).as_ref(), &default_payee)?;
        let kept = template.fitting(room::of_coinbase(coinbase.prefix().len(), payouts.count()))?;
        let value = template.coinbase_value;
        let blocks = BlockTemplates::new(template, kept, before.map(|before| &before.blocks));
        let trimmed = blocks.current().clone();
        let payouts = if trimmed.coinbase_value == value { payouts } else { payouts_of(trimmed.coinbase_value)? };
        let hashes = || -> Vec<Digest> { trimmed.transactions.iter().map(|one| one.wtxid.to_byte_array()).collect() };
        Ok(Self {
            config: config.clone(),
            epochs,
            made: Instant::now(),
            rates,
            coinbase_script,
            segwit_data: segwit_of(&trimmed),
            transactions: next_share.transactions(hashes),
            next_share,
            common: Arc::new(Common { network, rules, payouts, merged, template: trimmed }),
            blocks,
            jobs: JobCache::new(ANNOUNCED),
            polled: JobCache::new(POLLED),
            rendered: before.map(|before| before.rendered.clone()).unwrap_or_default(),
        })
    }

    /// Template of the next block.
    pub fn template(&self) -> &Template {
        &self.common.template
    }

    /// Mandatory fields of the next share.
    pub fn next_share(&self) -> &NextShare {
        &self.next_share
    }

    /// Payouts of a block found by `finder` now, the donation last.
    pub fn payees(&self, finder: &Payee) -> Vec<(String, u64)> {
        let payees = self.common.payouts.with_finder(finder);
        payees.map(|(payee, value)| (payee.as_str().to_owned(), value)).collect()
    }

    /// Payout of a job for a miner of `payout`, and whether that is the operator's.
    fn payout_of<'a>(&'a self, payout: &'a Payout, draw: u32) -> (&'a Payout, bool) {
        let is_fee = self.goes_to_operator(draw);
        (if is_fee { &self.config.default_payout } else { payout }, is_fee)
    }

    /// Makes a job that pays `payout`, and `finish`es it.
    fn make<R>(&self, payout: &Payout, finish: impl FnOnce(&JobParts<'_>, Ticket) -> R) -> Result<R, Refusal> {
        let now = (self.config.clock)();
        let info = self.share_info(payout, now)?;
        assemble::job(&self.common, payout, info, now, finish).map_err(|error| Refusal(error.to_string()))
    }

    fn memory(job: &Job<Ticket>) -> usize {
        job.memory() + job.ticket().memory()
    }

    /// True if the operator's fee takes this draw: `draw` is uniform over all 32-bit numbers.
    fn goes_to_operator(&self, draw: u32) -> bool {
        f64::from(draw) < self.config.fee_percent / 100.0 * 4_294_967_296.0
    }

    /// Payee of a share for a miner of `payout`, and its form in the share. As in the old node, payouts that an old share
    /// version cannot express go to the operator.
    fn payee_of<'a>(&'a self, payout: &'a Payout) -> Result<(&'a Payout, share::Payout), PayeeError> {
        let in_share = |payout: &'a Payout| {
            let named = Payee::from_address(&payout.address, &self.common.rules)?.payout(self.next_share.version)?;
            Ok((payout, named))
        };
        in_share(payout).or_else(|_| in_share(&self.config.default_payout))
    }

    /// Builds the share-to-be that pays `payout` as its finder.
    fn share_info(&self, payout: &Payout, now: u32) -> Result<ShareInfo, Refusal> {
        let (next, common) = (&self.next_share, &self.common);
        let required = &next.requirements;
        let miners = Miners {
            submissions: self.rates.accepted,
            node_rate: self.rates.hash_rate,
            payee_rate: self.rates.payees.get(&payout.address).map_or(0.0, |done| done.hash_rate),
            pool_rate: next.pool_rate,
        };
        let block = Block {
            window: target::window(next, common.template.block_target(), common.network),
            value: common.template.coinbase_value,
        };
        let donation_percent = self.config.donation_percent;
        let desired =
            target::desired(jobs::rounded(payout.share_difficulty), miners, block, donation_percent, common.network);
        let (max_bits, bits) = required.targets(next.version, now, desired);
        let (payee, share_payout) = self.payee_of(payout).map_err(|error| Refusal(error.to_string()))?;
        let mut additions = next.additions();
        if let Some(additions) = &mut additions {
            // Of the payee that is paid: another one's would teach peers a wrong pair (protocol-v36 traps 8 and 11).
            additions.merged_addresses = payee.merged.iter().map(|entry| entry.in_share()).collect();
            additions.merged_coinbase_info = common.merged.entry().cloned().into_iter().collect();
        }
        let timestamp = next.timestamp(now).ok_or_else(|| Refusal("the share chain's clock has run out".to_owned()))?;
        Ok(ShareInfo {
            share_data: ShareData {
                previous: next.previous,
                coinbase: self.coinbase_script.clone(),
                nonce: fastrand::u32(..),
                payout: share_payout,
                subsidy: common.template.coinbase_value,
                donation: donation(donation_percent, fastrand::f64()),
                stale_info: next.stale_info,
                desired_version: next.desired_version,
            },
            segwit_data: self.segwit_data.clone(),
            transactions: self.transactions.clone(),
            far_share_hash: required.far_share_hash,
            max_bits,
            bits,
            timestamp,
            absheight: required.absheight,
            abswork: required.abswork(bits),
            additions,
        })
    }
}

impl stratum::Work for WorkSet {
    type Payout = Payout;
    type Ticket = Ticket;

    fn authorize(&self, name: &str, password: &str) -> Result<Worker<Payout>, Refusal> {
        let worker = username::parse(name, self.config.network, &self.config.default_payout)?;
        Ok(username::with_password(worker, password))
    }

    fn check_merged_addresses(&self, addresses: &[(u32, Box<str>)]) -> Result<(), Refusal> {
        username::check_merged_addresses(addresses, self.config.network)
    }

    fn with_merged_addresses(
        &self,
        worker: Worker<Payout>,
        addresses: &[(u32, Box<str>)],
    ) -> Result<Worker<Payout>, Refusal> {
        let Config { network, default_payout, .. } = &*self.config;
        username::with_merged_addresses(worker, addresses, network, default_payout)
    }

    fn offer(&self, payout: &Payout, generation: u32, draw: u32) -> Result<Offer<Ticket>, Refusal> {
        let (payout, is_fee) = self.payout_of(payout, draw);
        let offer = self.jobs.get_or_make(JobKey::new(payout, generation), || {
            let offer = self.make(payout, Offer::new)?;
            let bytes = offer.line.len() + Self::memory(&offer.job);
            Ok((offer, bytes))
        })?;
        Ok(Offer { is_fee, ..offer })
    }

    fn job(&self, payout: &Payout, draw: u32) -> Result<Unannounced<Ticket>, Refusal> {
        let (payout, is_fee) = self.payout_of(payout, draw);
        let job = self.polled.get_or_make(JobKey::new(payout, 0), || {
            let job = Arc::new(self.make(payout, Job::new)?);
            let bytes = Self::memory(&job);
            Ok((job, bytes))
        })?;
        Ok(Unannounced { job, is_fee })
    }

    fn ticket_memory(&self, ticket: &Ticket) -> usize {
        ticket.memory()
    }

    fn transactions(&self, ticket: &Ticket) -> Option<Bytes> {
        let template = ticket.shared_template();
        let mut rendered = self.rendered.lock();
        if let Some(known) = rendered.as_ref().filter(|known| Arc::ptr_eq(&known.template, template)) {
            return Some(known.list.clone());
        }
        let digits: usize = template.transactions.iter().map(|transaction| 2 * transaction.raw.len() + 3).sum();
        let mut list = String::with_capacity(digits + 2);
        list.push('[');
        for transaction in template.transactions.iter() {
            list.push_str(if list.len() > 1 { ",\"" } else { "\"" });
            list.push_str(&hex::encode(&transaction.raw));
            list.push('"');
        }
        list.push(']');
        let list = Bytes::from(list);
        *rendered = Some(Rendered { template: template.clone(), list: list.clone() });
        Some(list)
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }

    fn made(&self) -> Option<Instant> {
        Some(self.made)
    }
}

/// Commitments in the coinbase script after the height, in order: merged chains' blocks come first, as their daemons
/// look for them right after the height.
fn commitments(merged: &MergedWork, texts: &[String]) -> Vec<Box<[u8]>> {
    let merged = merged.commitment().map(Box::from);
    merged.into_iter().chain(texts.iter().map(|text| text.as_bytes().into())).collect()
}

/// True if the template's flags hold a commitment to merged chains, beside ours.
fn has_foreign_commitment(template: &Template, merged: &MergedWork) -> bool {
    merged.commitment().is_some() && memchr::memmem::find(&template.coinbase_flags, &COMMITMENT_HEAD).is_some()
}

/// Flags for the coinbase script: those of the template, without a second commitment to merged chains.
fn flags<'a>(template: &'a Template, merged: &MergedWork) -> &'a [u8] {
    if has_foreign_commitment(template, merged) { &[] } else { &template.coinbase_flags }
}

fn coinbase_script(height: u32, commitments: &[Box<[u8]>], flags: &[u8]) -> Result<Box<[u8]>, ScriptError> {
    let items: Vec<&[u8]> = commitments.iter().map(|item| &**item).collect();
    let mut script = share::coinbase_script(height, &items, flags)?.into_vec();
    // The first sixteen heights are pushed by a single byte, and Bitcoin requires at least two in the script.
    if script.len() < 2 {
        script.push(0);
    }
    Ok(script.into())
}

/// Converts a percentage to 65535ths, rounded at random so that it is right on average (protocol section 9.3).
fn donation(percent: f64, draw: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65535, saturating")]
    let donation = (65535.0 * percent / 100.0 + draw) as u16;
    donation
}

#[cfg(test)]
mod tests;
