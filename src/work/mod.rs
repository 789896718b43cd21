//! `WorkSet`: what there is to mine, as a snapshot; implements [`stratum::Work`] and makes jobs per payout.

mod assemble;
pub mod gate;
mod goal;
mod publish;
pub mod target;
pub mod username;

pub use assemble::Ticket;
pub use gate::Gate;
pub use goal::Goal;
pub use publish::{Inputs, describe, publish};

use bitcoin::ScriptBuf;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use sharechain::chain::{NextShare, Tip, share_rules};
use sharechain::coin::Network;
use sharechain::coin::address::{self, AddressError};
use sharechain::merged::MergedWork;
use sharechain::merkle::Digest;
use sharechain::share::{
    self, GenerationError, Payee, PayeeError, Payouts, ScriptError, SegwitData, ShareData, ShareInfo, TransactionRefs,
};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;
use stratum::{Difficulty, Epochs, Offer, Refusal, Worker};
use thiserror::Error;

use crate::rates::Rates;
use crate::template::Template;
use assemble::Common;
use target::{Block, Miners};

/// Room in the coinbase script that height and flags leave for texts and the like.
const TEXTS_BYTES_MAX: usize = 80;

/// Bytes that one more output for a finder can take.
const OUTPUT_BYTES_MAX: usize = 8 + 1 + share::SCRIPT_BYTES_MAX;

/// Bytes of a coinbase after what the payouts fill: ref hash, nonces, lock time.
const COINBASE_END_BYTES: usize = 32 + 8 + 4;

/// Weight of a coinbase's witness: marker, flag, one item of 32 bytes.
const COINBASE_WITNESS_WEIGHT: u64 = 2 + 2 + 32;

/// Whom a job pays.
#[derive(Debug, Clone)]
pub struct Payout {
    /// The output script.
    pub script: ScriptBuf,
    /// The address: in lower case where case does not matter, so that one script is one payee.
    pub address: Arc<str>,
    /// The share difficulty that the miner asked for.
    pub share_difficulty: Option<Difficulty>,
}

/// Payouts are the same when the money goes to the same script; a wish about shares does not make another payee.
impl PartialEq for Payout {
    fn eq(&self, other: &Self) -> bool {
        self.script == other.script
    }
}

impl fmt::Display for Payout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Why nobody can be paid at an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayoutError {
    /// It is none, or not one of this network's that shares can pay.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The reference's way of holding addresses breaks this one.
    #[error("`{0}` cannot be paid: P2Pool's shares lose the zeros that its witness program begins with")]
    LeadingZeros(String),
}

impl Payout {
    /// Pays `text`.
    ///
    /// # Errors
    /// The reason why that cannot be. [`AddressError::NotAnAddress`] is for mere names.
    pub fn to_address(text: &str, network: &Network) -> Result<Self, PayoutError> {
        let script = address::script_of(text, &network.parent)?;
        // Base58 is what it is; bech32 may be written in either case, and payees are told apart by their text.
        let address = if script.is_witness_program() { text.to_ascii_lowercase() } else { text.to_owned() };
        // Shares hold addresses as text, and the script that peers make of it is the one that is paid (trap 27).
        let paid = Payee::from_address(&address, &share_rules(network))
            .and_then(|payee| payee.newest_script().map(<[u8]>::to_vec));
        match paid {
            Ok(paid) if paid == script.as_bytes() => {
                Ok(Self { script, address: address.into(), share_difficulty: None })
            }
            _ => Err(PayoutError::LeadingZeros(text.to_owned())),
        }
    }
}

/// What the operator decides about work.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network mined on.
    pub network: &'static Network,
    /// Who is paid when a worker's name is no address, and for the operator's fee.
    pub default_payout: Payout,
    /// Percentage of jobs that pay the operator instead of the worker.
    pub fee_percent: f64,
    /// Percentage of payouts that goes to the author of the reference.
    pub donation_percent: f64,
    /// Texts for the coinbase, checked by [`check_texts`].
    pub coinbase_texts: Vec<String>,
    /// Returns the time for shares, in seconds since 1970: [`unix_second`](crate::runtime::clock::unix_second), or what a test
    /// chooses.
    pub clock: fn() -> u32,
}

/// Texts for the coinbase that do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextsError {
    /// One text is too long for one push.
    #[error("text `{0}` is longer than 75 bytes")]
    TooLong(String),
    /// All together are.
    #[error("together they take {0} bytes of the coinbase script, of which {TEXTS_BYTES_MAX} are free")]
    TooMany(usize),
}

/// Whether `texts` fit into the coinbase script.
///
/// # Errors
/// They do not.
pub fn check_texts(texts: &[String]) -> Result<(), TextsError> {
    if let Some(long) = texts.iter().find(|text| text.len() > 75) {
        return Err(TextsError::TooLong(long.clone()));
    }
    let bytes = texts.iter().map(|text| text.len() + 1).sum();
    if bytes > TEXTS_BYTES_MAX { Err(TextsError::TooMany(bytes)) } else { Ok(()) }
}

/// Why there is no work although there are template and tip.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WorkError {
    /// Too little of the chain is known to tell what the next share must carry.
    #[error("the share chain is not known far enough back")]
    ChainIncomplete,
    /// Nobody can build a coinbase on this tip.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The coinbase script cannot be made.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The operator's own address cannot be paid in this version.
    #[error(transparent)]
    Payee(#[from] PayeeError),
}

/// What work is made of: all of it plain data, so that it can be made wherever these are.
#[derive(Debug, Clone)]
pub struct WorkParts {
    /// The parent chain's next block.
    pub template: Arc<Template>,
    /// What the next share must carry, and pays by, if its block has the template's target.
    pub next_share: NextShare,
    /// The next blocks of merged chains.
    pub merged: Arc<MergedWork>,
}

impl WorkParts {
    /// For a block like `template` whose share builds on `tip`.
    ///
    /// # Errors
    /// [`WorkError::ChainIncomplete`].
    pub fn new(template: &Arc<Template>, tip: &Tip, merged: Arc<MergedWork>) -> Result<Self, WorkError> {
        let next_share = tip.next_share(template.block_target()).ok_or(WorkError::ChainIncomplete)?;
        Ok(Self { template: template.clone(), next_share, merged })
    }
}

/// What there is to mine. Immutable but for the cache of the jobs made from it.
#[derive(Debug)]
pub struct WorkSet {
    config: Arc<Config>,
    next_share: NextShare,
    rates: Arc<Rates>,
    epochs: Epochs,
    made: Instant,
    common: Arc<Common>,
    /// What all shares-to-be have in common of their coinbase script, segwit data and transactions.
    coinbase_script: Box<[u8]>,
    segwit_data: Option<SegwitData>,
    transactions: Option<TransactionRefs>,
    /// One job serves every connection with the same payout.
    jobs: DashMap<JobKey, Offer<Ticket>>,
    /// The transactions that somebody asked for last: megabytes, so there is one such list at a time.
    rendered: Arc<Mutex<Option<Rendered>>>,
}

/// A template's transactions as a JSON list of hex.
#[derive(Debug)]
struct Rendered {
    template: Arc<Template>,
    list: Bytes,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JobKey {
    address: Arc<str>,
    /// Bits of the wished share difficulty.
    wish: Option<u64>,
    generation: u32,
}

impl WorkSet {
    /// Work on `parts`; `before` is what there was, which spares work where the template is the same.
    ///
    /// # Errors
    /// There is none.
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
        let coinbase_script = coinbase_script(&template, &commitments(&merged, &config.coinbase_texts))?;
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
        let coinbase_bytes = coinbase.prefix().len() + OUTPUT_BYTES_MAX + COINBASE_END_BYTES;
        // Each payee's script may count as one signature operation, at four units of cost.
        let sigops = 4 * (payouts.count() as u64 + 2);
        let kept = template.fitting(4 * coinbase_bytes as u64 + COINBASE_WITNESS_WEIGHT, sigops);
        let trimmed = match before.map(|before| &before.common) {
            // Tips change far more often than templates: hashing all transactions again would be in vain.
            Some(before) if Arc::ptr_eq(&before.source, &template) && before.template.transactions.len() == kept => {
                before.template.clone()
            }
            _ => template.truncated(kept),
        };
        let payouts = if trimmed.coinbase_value == template.coinbase_value {
            payouts
        } else {
            payouts_of(trimmed.coinbase_value)?
        };
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
            common: Arc::new(Common {
                network,
                rules,
                payouts,
                goals: goal::of_blocks(&trimmed, &merged),
                source: template,
                template: trimmed,
            }),
            jobs: DashMap::new(),
            rendered: before.map(|before| before.rendered.clone()).unwrap_or_default(),
        })
    }

    /// What the next block is made of.
    pub fn template(&self) -> &Template {
        &self.common.template
    }

    /// What the next share must carry.
    pub fn next_share(&self) -> &NextShare {
        &self.next_share
    }

    /// Who would be paid what if this node found a block now for `finder`, the donation last.
    pub fn payees(&self, finder: &Payee) -> Vec<(String, u64)> {
        let payees = self.common.payouts.with_finder(finder);
        payees.map(|(payee, value)| (payee.as_str().to_owned(), value)).collect()
    }

    /// Whether this draw is one of those that the operator's fee takes: `draw` is uniform over all 32-bit numbers.
    fn goes_to_operator(&self, draw: u32) -> bool {
        f64::from(draw) < self.config.fee_percent / 100.0 * 4_294_967_296.0
    }

    /// The share-to-be that pays `payout` as its finder.
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
            attempts: f64::from(common.template.block_target().attempts().0),
            value: common.template.coinbase_value,
        };
        let donation_percent = self.config.donation_percent;
        let desired = target::desired(payout.share_difficulty, miners, block, donation_percent, common.network);
        let (max_bits, bits) = required.targets(desired);
        let named = |payout: &Payout| Payee::from_address(&payout.address, &common.rules)?.payout(next.version);
        // As in the old node: what an old share version cannot name mines for the operator.
        let share_payout = named(payout)
            .or_else(|_| named(&self.config.default_payout))
            .map_err(|error| Refusal(error.to_string()))?;
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

    fn offer(&self, payout: &Payout, generation: u32, draw: u32) -> Result<Offer<Ticket>, Refusal> {
        let is_fee = self.goes_to_operator(draw);
        let payout = if is_fee { &self.config.default_payout } else { payout };
        let wish = payout.share_difficulty.map(|wish| wish.get().to_bits());
        let key = JobKey { address: payout.address.clone(), wish, generation };
        // The map's lock is held while the job is made, some microseconds: whoever comes meanwhile wants the same one.
        let offer = self.jobs.entry(key).or_try_insert_with(|| {
            let now = (self.config.clock)();
            let info = self.share_info(payout, now)?;
            assemble::offer(&self.common, payout, info, now).map_err(|error| Refusal(error.to_string()))
        })?;
        Ok(Offer { is_fee, ..offer.clone() })
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

/// What the coinbase script commits to beside the height, in its order: merged chains' blocks come first, for their
/// daemons look for them right after the height.
fn commitments(merged: &MergedWork, texts: &[String]) -> Vec<Box<[u8]>> {
    let merged = merged.commitment().map(Box::from);
    merged.into_iter().chain(texts.iter().map(|text| text.as_bytes().into())).collect()
}

fn coinbase_script(template: &Template, commitments: &[Box<[u8]>]) -> Result<Box<[u8]>, ScriptError> {
    let items: Vec<&[u8]> = commitments.iter().map(|item| &**item).collect();
    let mut script = share::coinbase_script(template.height, &items, &template.coinbase_flags)?.into_vec();
    // The first sixteen heights are pushed by a single byte, and Bitcoin wants at least two in the script.
    if script.len() < 2 {
        script.push(0);
    }
    Ok(script.into())
}

/// A percentage in 65535ths, rounded up or down by chance so that it is right on average (protocol section 9.3).
fn donation(percent: f64, draw: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65535, saturating")]
    let donation = (65535.0 * percent / 100.0 + draw) as u16;
    donation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::unix_second;
    use crate::template::tests::{RULES, parts};
    use crate::template::{BLOCK_WEIGHT_MAX, TemplateParts, TemplateTransaction};
    use bitcoin::consensus::deserialize;
    use bitcoin::{Block as BitcoinBlock, Transaction};
    use sharechain::chain::Sharechain;
    use sharechain::coin::BITCOIN_REGTEST;
    use sharechain::merged::MergedBlock;
    use sharechain::share::{Draft, Share, Target};
    use stratum::Work;
    use stratum::mining::job::LastRoot;
    use stratum::mining::submission::Submission;

    const NODE: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";
    const MINER: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

    fn payout(address: &str) -> Payout {
        Payout::to_address(address, &BITCOIN_REGTEST).unwrap()
    }

    fn config(fee_percent: f64) -> Arc<Config> {
        Arc::new(Config {
            network: &BITCOIN_REGTEST,
            default_payout: payout(NODE),
            fee_percent,
            donation_percent: 0.0,
            coinbase_texts: vec!["hello".to_owned()],
            clock: unix_second,
        })
    }

    /// A template at `height` with one segwit transaction: any will do that has a witness.
    fn template(height: u32) -> Arc<Template> {
        let raw = concat!(
            "01000000000101db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b",
            "000000001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fe",
            "a7ad0402e8bd8ad6d77c88ac02473044022047ac8e878352d3ebbde1c94ce3a10d057c24175747116f8288e5d794d12d482f0220",
            "217f36a485cae903c713331d877c1f64677e3622ad4010726870540656fe9dcb012103ad1d8e89212f0b92c74d23bb710c00662a",
            "d1470198ac48c43f7d6f93a2a2687392040000"
        );
        let raw = hex::decode(raw).unwrap();
        let transaction: Transaction = deserialize(&raw).unwrap();
        let transactions = vec![TemplateTransaction {
            txid: transaction.compute_txid(),
            wtxid: transaction.compute_wtxid(),
            fee: 1000,
            weight: transaction.weight().to_wu(),
            sigops: 4,
            raw: Bytes::from(raw),
        }];
        let parts = TemplateParts { height, time: unix_second(), transactions, ..parts() };
        Template::new(parts, RULES).unwrap().into()
    }

    fn work_on(chain: &mut Sharechain, template: &Arc<Template>, config: &Arc<Config>) -> WorkSet {
        chain.think(f64::from(unix_second()));
        let parts = WorkParts::new(template, &chain.tip(), Arc::default()).unwrap();
        WorkSet::new(config, parts, Arc::default(), Epochs::default(), None).unwrap()
    }

    fn fresh(fee_percent: f64) -> WorkSet {
        work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template(101), &config(fee_percent))
    }

    /// Solves a job; on regtest every other nonce does.
    fn solve(offer: &Offer<Ticket>) -> (Draft, [u8; 80], Share) {
        let ticket = offer.job.ticket();
        let draft = ticket.draft().unwrap();
        for nonce in 0.. {
            let submission =
                Submission { extranonce2: [5, 6, 7, 8], time: ticket.template().time, nonce, version_bits: None };
            let solved =
                submission.solve(&offer.job, [1, 2, 3, 4], 0, unix_second(), &mut LastRoot::default()).unwrap();
            if ticket.reached(&solved.pow_hash).contains(&Goal::Share) {
                let share = ticket.share(&draft, &solved.header, [1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
                assert_eq!(share.hash().0, solved.hash, "miner and share hash the same header");
                return (draft, solved.header, share);
            }
        }
        unreachable!("some nonce solves it")
    }

    #[test]
    fn the_block_is_one_that_bitcoin_would_take() {
        for height in [1, 16, 17, 101, 850_000] {
            let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template(height), &config(0.0));
            let offer = work.offer(&payout(MINER), 0, 0).unwrap();
            let (draft, header, _) = solve(&offer);
            let bytes = offer.job.ticket().block(&draft, &header, [1, 2, 3, 4, 5, 6, 7, 8]);
            let block: BitcoinBlock = deserialize(&bytes).unwrap();
            assert!(block.check_merkle_root());
            assert!(block.check_witness_commitment());
            assert_eq!(block.txdata.len(), 2);
            let coinbase = &block.txdata[0];
            assert!(coinbase.is_coinbase());
            let script = &coinbase.input[0].script_sig;
            assert!(script.len() >= 2);
            // The package does not read the opcodes that push the first sixteen heights.
            let height_is_there = match u8::try_from(height) {
                Ok(small @ 1..=16) => script.as_bytes()[0] == 0x50 + small,
                _ => block.bip34_block_height() == Ok(u64::from(height)),
            };
            assert!(height_is_there, "{script}");
            assert!(height < 17 || coinbase.input[0].script_sig.as_bytes().ends_with(b"\x05hello"));
            let paid: u64 = coinbase.output.iter().map(|output| output.value.to_sat()).sum();
            assert_eq!(paid, parts().coinbase_value);
            assert!(coinbase.output.iter().any(|output| output.script_pubkey == payout(MINER).script));
        }
    }

    #[test]
    fn our_own_shares_fit_the_chain_that_checks_everyones() {
        let mut chain = Sharechain::new(&BITCOIN_REGTEST);
        let miners = [MINER, NODE, "2N3oefVeg6stiTb5Kh3ozCSkaqmx91FDbsm"];
        for round in 0..12 {
            let work = work_on(&mut chain, &template(101), &config(0.0));
            let (_, _, share) = solve(&work.offer(&payout(miners[round % 3]), 0, 0).unwrap());
            let (hash, height) = (share.hash(), share.absheight());
            assert_eq!(height, u32::try_from(round).unwrap() + 1);
            chain.add_own(Arc::new(share), false, f64::from(unix_second()));
            chain.think(f64::from(unix_second()));
            assert!(chain.verified().contains(&hash), "share {round} was refused: {:?}", chain.poll_event());
            assert_eq!(chain.choice().best, Some(hash));
        }
        let work = work_on(&mut chain, &template(101), &config(0.0));
        let finder = Payee::from_address(MINER, &share_rules(&BITCOIN_REGTEST)).unwrap();
        let payees = work.payees(&finder);
        assert!(
            miners.iter().all(|miner| payees.iter().any(|(payee, value)| payee == miner && *value > 0)),
            "{payees:?}"
        );
    }

    #[test]
    fn connections_with_the_same_payout_share_a_job_and_generations_and_wishes_do_not() {
        let work = fresh(0.0);
        let first = work.offer(&payout(MINER), 0, 0).unwrap();
        assert!(Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 0, 1).unwrap().job));
        assert!(!Arc::ptr_eq(&first.job, &work.offer(&payout(MINER), 1, 0).unwrap().job));
        let wish = Payout { share_difficulty: Difficulty::new(1e-9), ..payout(MINER) };
        assert!(!Arc::ptr_eq(&first.job, &work.offer(&wish, 0, 0).unwrap().job));
        assert_ne!(first.job.id(), work.offer(&payout(NODE), 0, 0).unwrap().job.id());
    }

    #[test]
    fn a_job_made_again_has_other_coinbase_bytes() {
        let work = fresh(0.0);
        let heads: Vec<Vec<u8>> = (0..3)
            .map(|generation| {
                work.offer(&payout(MINER), generation, 0).unwrap().job.ticket().draft().unwrap().coinbase_head()
            })
            .collect();
        assert!(heads[0] != heads[1] && heads[1] != heads[2]);
    }

    #[test]
    fn the_fee_takes_its_percentage_of_jobs() {
        let work = fresh(2.5);
        let mut random = fastrand::Rng::with_seed(1);
        let taken = (0..100_000).filter(|_| work.goes_to_operator(random.u32(..))).count();
        assert!((2300..2700).contains(&taken), "{taken}");
        assert_eq!(work.offer(&payout(MINER), 0, 0).unwrap().job.ticket().payout(), &payout(NODE));
        assert!(!fresh(0.0).goes_to_operator(0));
        assert!(fresh(100.0).goes_to_operator(u32::MAX));
    }

    #[test]
    fn a_large_coinbase_pushes_transactions_out_and_their_fees_with_them() {
        let full = Arc::new(Template {
            transactions: [
                TemplateTransaction { weight: BLOCK_WEIGHT_MAX - 8000, ..template(101).transactions[0].clone() },
                TemplateTransaction { weight: 7000, ..template(101).transactions[0].clone() },
            ]
            .into(),
            ..Template::clone(&template(101))
        });
        let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &full, &config(0.0));
        assert_eq!(work.template().transactions.len(), 1);
        assert_eq!(work.template().coinbase_value, full.coinbase_value - 1000);
    }

    #[test]
    fn what_shares_cannot_pay_is_refused_with_the_reason() {
        let refused = |address: &str| Payout::to_address(address, &BITCOIN_REGTEST).unwrap_err().to_string();
        let zeros = {
            let mut program = [7; 32];
            program[0] = 0;
            let hrp = bech32::Hrp::parse("bcrt").unwrap();
            bech32::segwit::encode_v0(hrp, &program).unwrap()
        };
        assert!(refused(&zeros).contains("zeros"), "{}", refused(&zeros));
        let nibble = {
            let mut program = [7; 32];
            program[0] = 6;
            bech32::segwit::encode_v0(bech32::Hrp::parse("bcrt").unwrap(), &program).unwrap()
        };
        assert!(refused(&nibble).contains("zeros"), "{}", refused(&nibble));
        assert!(refused("bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6").contains("taproot"));
        assert!(refused("nobody").contains("not an address"));
    }

    #[test]
    fn a_jobs_transactions_are_listed_in_order_and_rendered_once() {
        let template = Arc::new(template(101));
        let work = work_on(&mut Sharechain::new(&BITCOIN_REGTEST), &template, &config(0.0));
        let offer = work.offer(&payout(MINER), 0, 0).unwrap();
        let list = work.transactions(offer.job.ticket()).unwrap();
        let listed: Vec<String> = serde_json::from_slice(&list).unwrap();
        let raw: Vec<String> = template.transactions.iter().map(|transaction| hex::encode(&transaction.raw)).collect();
        assert_eq!(listed, raw);
        assert_eq!(work.transactions(offer.job.ticket()).unwrap().as_ptr(), list.as_ptr());
    }

    #[test]
    fn one_script_is_one_payee_however_it_is_written() {
        assert_eq!(payout(&MINER.to_uppercase()).address, payout(MINER).address);
    }

    #[test]
    fn a_merged_chains_easier_target_makes_solutions_and_its_commitment_follows_the_height() {
        let block = MergedBlock { chain: "other".into(), chain_id: 98, hash: [7; 32], target: Target::MAX_256 };
        let merged = Arc::new(MergedWork::new(vec![block]).unwrap());
        let mut chain = Sharechain::new(&BITCOIN_REGTEST);
        chain.think(f64::from(unix_second()));
        let template = template(850_000);
        let parts = WorkParts::new(&template, &chain.tip(), merged.clone()).unwrap();
        let work = WorkSet::new(&config(0.0), parts, Arc::default(), Epochs::default(), None).unwrap();
        let offer = work.offer(&payout(MINER), 0, 0).unwrap();
        let ticket = offer.job.ticket();
        let hard = |first: u8| [[0xff; 31].as_slice(), &[first]].concat().try_into().unwrap();
        assert_eq!(ticket.reached(&hard(0xff)), [Goal::Merged(0)], "no share and no block of the parent chain");
        assert_eq!(ticket.reached(&hard(0)), [Goal::Share, Goal::Block, Goal::Merged(0)]);
        assert_eq!(offer.job.solution_target(), stratum::Target::from_le_bytes([0xff; 32]));
        let script = &ticket.draft().unwrap().info().share_data.coinbase.clone();
        assert_eq!(script[..5], [3, 0x50, 0xf8, 0x0c, 44]);
        assert_eq!(script[5..49], merged.commitment().unwrap());
        assert!(script.ends_with(b"\x05hello"));
    }

    #[test]
    fn donations_are_right_on_average() {
        assert_eq!(donation(0.0, 0.999), 0);
        assert_eq!(donation(100.0, 0.5), 65535);
        let mut random = fastrand::Rng::with_seed(1);
        let sum: u32 = (0..10_000).map(|_| u32::from(donation(0.5, random.f64()))).sum();
        assert!((f64::from(sum) / 10_000.0 - 65535.0 * 0.005).abs() < 0.1, "{sum}");
    }

    #[test]
    fn texts_that_do_not_fit_are_refused_by_name() {
        let long = "x".repeat(76);
        assert_eq!(check_texts(std::slice::from_ref(&long)), Err(TextsError::TooLong(long)));
        assert_eq!(check_texts(&["x".repeat(60), "y".repeat(60)]), Err(TextsError::TooMany(122)));
        assert_eq!(check_texts(&["x".repeat(75)]), Ok(()));
    }
}
