//! `WorkSet`: what there is to mine, as a snapshot; implements [`stratum::Work`] and makes jobs per payout.

mod assemble;
mod publish;
mod target;
pub mod username;

pub use assemble::Ticket;
pub use publish::{Inputs, publish};

use bitcoin::ScriptBuf;
use bitcoin::hashes::Hash;
use dashmap::DashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stratum::{Difficulty, Epochs, Offer, Refusal, Worker};
use thiserror::Error;

use crate::address::{self, AddressError};
use crate::merkle::{self, Digest};
use crate::network::Network;
use crate::share::{
    self, GenerationError, Payee, PayeeError, Payouts, ScriptError, SegwitData, ShareData, ShareInfo, Target,
    TransactionRefs,
};
use crate::sharechain::{Tip, share_rules};
use crate::stats::Rates;
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

/// What there is to mine. Immutable but for the cache of the jobs made from it.
#[derive(Debug)]
pub struct WorkSet {
    config: Arc<Config>,
    tip: Arc<Tip>,
    rates: Arc<Rates>,
    epochs: Epochs,
    common: Arc<Common>,
    /// What all shares-to-be have in common of their coinbase script, segwit data and transactions.
    coinbase_script: Box<[u8]>,
    segwit_data: Option<SegwitData>,
    transactions: Option<TransactionRefs>,
    /// One job serves every connection with the same payout.
    jobs: DashMap<JobKey, Offer<Ticket>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JobKey {
    address: Arc<str>,
    /// Bits of the wished share difficulty.
    wish: Option<u64>,
    generation: u32,
}

impl WorkSet {
    /// Work on `template` that builds on `tip`.
    ///
    /// # Errors
    /// There is none.
    fn new(
        config: &Arc<Config>,
        template: &Arc<Template>,
        tip: Arc<Tip>,
        rates: Arc<Rates>,
        epochs: Epochs,
    ) -> Result<Self, WorkError> {
        if tip.next().is_none() {
            return Err(WorkError::ChainIncomplete);
        }
        let network = config.network;
        let rules = share_rules(network);
        let version = tip.version();
        let texts: Vec<&[u8]> = config.coinbase_texts.iter().map(String::as_bytes).collect();
        let mut coinbase_script = share::coinbase_script(template.height, &texts, &template.coinbase_flags)?.into_vec();
        // The first sixteen heights are pushed by a single byte, and Bitcoin wants at least two in the script.
        if coinbase_script.len() < 2 {
            coinbase_script.push(0);
        }
        let weights = tip.weights(block_target(template));
        let payouts_of = |value| Payouts::new(version, value, &weights, &rules);
        let segwit_of = |template: &Template| {
            tip.has_segwit().then(|| SegwitData {
                txid_merkle_branch: template.branch.clone().into(),
                wtxid_merkle_root: template.witness_root.unwrap_or_default(),
            })
        };
        let default_payee = Payee::from_address(&config.default_payout.address, &rules)?;
        let payouts = payouts_of(template.coinbase_value)?;
        let coinbase = payouts.coinbase(&coinbase_script, segwit_of(template).as_ref(), &default_payee)?;
        let coinbase_bytes = coinbase.prefix().len() + OUTPUT_BYTES_MAX + COINBASE_END_BYTES;
        // Each payee's script may count as one signature operation, at four units of cost.
        let sigops = 4 * (payouts.count() as u64 + 2);
        let trimmed = template.with_room_for(4 * coinbase_bytes as u64 + COINBASE_WITNESS_WEIGHT, sigops);
        let payouts = if trimmed.coinbase_value == template.coinbase_value {
            payouts
        } else {
            payouts_of(trimmed.coinbase_value)?
        };
        let hashes: Vec<Digest> = trimmed.transactions.iter().map(|one| one.wtxid.to_byte_array()).collect();
        Ok(Self {
            config: config.clone(),
            epochs,
            rates,
            coinbase_script: coinbase_script.into(),
            segwit_data: segwit_of(&trimmed),
            transactions: tip.transactions(&hashes),
            tip,
            common: Arc::new(Common {
                network,
                rules,
                payouts,
                merkle_branch: merkle::branch_of_first(&hashes),
                template: trimmed,
            }),
            jobs: DashMap::new(),
        })
    }

    /// What the next block is made of.
    pub fn template(&self) -> &Template {
        &self.common.template
    }

    /// What the next share builds on.
    pub fn tip(&self) -> &Tip {
        &self.tip
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
        let next = self.tip.next().ok_or_else(|| Refusal(WorkError::ChainIncomplete.to_string()))?;
        let version = self.tip.version();
        let common = &self.common;
        let miners = Miners {
            submissions: self.rates.accepted,
            node_rate: self.rates.hash_rate,
            payee_rate: self.rates.payees.get(&payout.address).copied().unwrap_or_default(),
            pool_rate: self.tip.rate(),
        };
        let block = Block {
            attempts: f64::from(block_target(&common.template).attempts().0),
            value: common.template.coinbase_value,
        };
        let donation_percent = self.config.donation_percent;
        let desired = target::desired(payout.share_difficulty, miners, block, donation_percent, common.network);
        let (max_bits, bits) = next.targets(desired);
        let named = |payout: &Payout| Payee::from_address(&payout.address, &common.rules)?.payout(version);
        // As in the old node: what an old share version cannot name mines for the operator.
        let share_payout = named(payout)
            .or_else(|_| named(&self.config.default_payout))
            .map_err(|error| Refusal(error.to_string()))?;
        let timestamp =
            next.timestamp(version, now).ok_or_else(|| Refusal("the share chain's clock has run out".to_owned()))?;
        Ok(ShareInfo {
            share_data: ShareData {
                previous: self.tip.best_hash(),
                coinbase: self.coinbase_script.clone(),
                nonce: fastrand::u32(..),
                payout: share_payout,
                subsidy: common.template.coinbase_value,
                donation: donation(donation_percent, fastrand::f64()),
                stale_info: self.tip.stale_info(),
                desired_version: self.tip.desired_version(),
            },
            segwit_data: self.segwit_data.clone(),
            transactions: self.transactions.clone(),
            far_share_hash: next.far_share_hash,
            max_bits,
            bits,
            timestamp,
            absheight: next.absheight,
            abswork: next.abswork(bits),
        })
    }
}

impl stratum::Work for WorkSet {
    type Payout = Payout;
    type Ticket = Ticket;

    fn authorize(&self, name: &str, _password: &str) -> Result<Worker<Payout>, Refusal> {
        username::parse(name, self.config.network, &self.config.default_payout)
    }

    fn offer(&self, payout: &Payout, generation: u32, draw: u32) -> Result<Offer<Ticket>, Refusal> {
        let payout = if self.goes_to_operator(draw) { &self.config.default_payout } else { payout };
        let wish = payout.share_difficulty.map(|wish| wish.get().to_bits());
        let key = JobKey { address: payout.address.clone(), wish, generation };
        // The map's lock is held while the job is made, some microseconds: whoever comes meanwhile wants the same one.
        let offer = self.jobs.entry(key).or_try_insert_with(|| {
            let now = unix_now();
            let info = self.share_info(payout, now)?;
            assemble::offer(&self.common, payout, info, now).map_err(|error| Refusal(error.to_string()))
        })?;
        Ok(offer.clone())
    }

    fn epochs(&self) -> Epochs {
        self.epochs
    }
}

/// The template's target in the share chain's own numbers.
fn block_target(template: &Template) -> Target {
    Target::from_be_bytes(&template.target.to_be_bytes())
}

/// A percentage in 65535ths, rounded up or down by chance so that it is right on average (protocol section 9.3).
fn donation(percent: f64, draw: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 65535, saturating")]
    let donation = (65535.0 * percent / 100.0 + draw) as u16;
    donation
}

/// The clock, to the nearest second.
fn unix_now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from((now.as_millis() + 500) / 1000).unwrap_or(u32::MAX)
}
