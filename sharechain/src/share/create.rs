//! Creates our own shares: a draft for each piece of work, completed by the miner's solution.

use thiserror::Error;

use super::generation::{Coinbase, GenerationError, Payouts};
use super::{
    CheckError, Contents, HashLink, MinHeader, Payee, PayeeError, Payout, Share, ShareInfo, ShareRules, ShareVersion,
    check, format,
};
use crate::merkle::Digest;
use crate::rules::{Layout, PayeeForm};

/// Reasons why a draft cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DraftError {
    /// The miner's address cannot be paid in a share of this version.
    #[error(transparent)]
    Payee(#[from] PayeeError),
    /// The chain's work does not fit a share of this version any more (protocol-v36 trap 3).
    #[error("abswork {0} is 2^64 or more, which a share of this version cannot hold")]
    Abswork(u128),
    /// The coinbase cannot be built.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// Share-to-be: everything except the header, the nonce in its coinbase and the proof of work.
#[derive(Debug, Clone)]
pub struct Draft {
    version: ShareVersion,
    info: ShareInfo,
    payee: Payee,
    merkle_branch: Box<[Digest]>,
    coinbase: Coinbase,
    hash_link: HashLink,
    ref_hash: Digest,
}

impl Draft {
    /// Creates the draft of a share with this info and these `payouts` (of the same version and subsidy).
    /// `merkle_branch` is the coinbase's branch over the full hashes of the other transactions.
    ///
    /// # Errors
    /// [`DraftError`].
    ///
    /// # Panics
    /// If the info is not in the form of the payouts' version, or has a different subsidy: both are bugs of the caller.
    pub fn new(
        info: ShareInfo,
        payouts: &Payouts,
        merkle_branch: &[Digest],
        rules: &ShareRules,
    ) -> Result<Draft, DraftError> {
        let version = payouts.version();
        assert!(has_form_of(&info, version, rules), "share info {info:?} is not in the form of version {version}");
        assert_eq!(info.share_data.subsidy, payouts.subsidy(), "one subsidy for the payouts and the share");
        if version.rules().layout == Layout::Merged && u64::try_from(info.abswork).is_err() {
            return Err(DraftError::Abswork(info.abswork));
        }
        let payee = check::payee_of(&info.share_data.payout, version, rules)?;
        let coinbase = payouts.coinbase(&info.share_data.coinbase, info.segwit_data.as_ref(), &payee)?;
        Ok(Draft {
            version,
            payee,
            merkle_branch: merkle_branch.into(),
            hash_link: coinbase.hash_link(),
            coinbase,
            ref_hash: format::ref_hash(&info, &[], rules),
            info,
        })
    }

    /// Version of the share-to-be.
    pub fn version(&self) -> ShareVersion {
        self.version
    }

    /// Share info that the share will commit to.
    pub fn info(&self) -> &ShareInfo {
        &self.info
    }

    /// Payee of the finder's part.
    pub fn payee(&self) -> &Payee {
        &self.payee
    }

    /// Coinbase that the miner hashes.
    pub fn coinbase(&self) -> &Coinbase {
        &self.coinbase
    }

    /// Hash link that proves the coinbase.
    pub fn hash_link(&self) -> &HashLink {
        &self.hash_link
    }

    /// Commitment to the share info.
    pub fn ref_hash(&self) -> &Digest {
        &self.ref_hash
    }

    /// Stripped coinbase up to the miner's eight bytes.
    pub fn coinbase_head(&self) -> Vec<u8> {
        self.coinbase.head(&self.ref_hash)
    }

    /// Complete coinbase as the block needs it.
    pub fn coinbase_bytes(&self, last_txout_nonce: u64) -> Vec<u8> {
        match self.info.segwit_data {
            Some(_) => self.coinbase.with_witness(&self.ref_hash, last_txout_nonce),
            None => self.coinbase.stripped(&self.ref_hash, last_txout_nonce),
        }
    }

    /// Completes the share of a solution: `header` as hashed, whose merkle root follows from `last_txout_nonce`.
    ///
    /// # Errors
    /// [`CheckError`], usually because the header does not meet the share's target.
    pub fn finish(&self, header: MinHeader, last_txout_nonce: u64, rules: &ShareRules) -> Result<Share, CheckError> {
        let contents = Contents {
            version: self.version,
            min_header: header,
            share_info: self.info.clone(),
            ref_merkle_branch: Box::default(),
            last_txout_nonce,
            hash_link: self.hash_link.clone(),
            merkle_branch: self.merkle_branch.clone(),
        };
        Share::check(contents, rules)
    }
}

/// True if `info` has exactly the fields of a share of `version`: any others would not survive serialisation.
fn has_form_of(info: &ShareInfo, version: ShareVersion, rules: &ShareRules) -> bool {
    let has_payee = match (&info.share_data.payout, version.rules().payee) {
        (Payout::Address(_), PayeeForm::Address)
        | (Payout::PubkeyHash(_), PayeeForm::PubkeyHash)
        | (Payout::Hash { .. }, PayeeForm::Script) => true,
        (Payout::Address(_) | Payout::PubkeyHash(_) | Payout::Hash { .. }, _) => false,
    };
    has_payee
        && info.additions.is_some() == (version.rules().layout == Layout::Merged)
        && info.segwit_data.is_some() == version.has_segwit(rules.segwit_activation_version)
        && info.transactions.is_some() == version.lists_transactions()
}
