//! The checks a share passes or fails alone, without its ancestors (protocol section 5.1).

use std::collections::HashSet;
use thiserror::Error;

use super::format::{self, FormatError};
use super::{
    Bits, Contents, Payee, PayeeError, Payout, Share, ShareHash, ShareRules, ShareVersion, Target, TransactionRefs,
    VersionError,
};
use crate::merkle::{self, Digest};
use crate::pack::Writer;

/// Least and most bytes of a coinbase script, Bitcoin's own rule.
const COINBASE_BYTES: std::ops::RangeInclusive<usize> = 2..=100;

/// A reference to a transaction must lead less far back than this, in shares.
const TRANSACTION_REF_SHARES_MAX: u64 = 110;

/// Why bytes are not a share that could stand in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckError {
    /// They are in no share's form.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The coinbase's script has a length that Bitcoin forbids.
    #[error("share_data.coinbase has {0} bytes, which should be 2 to 100")]
    CoinbaseLength(usize),
    /// Its payout is not one that this network could pay.
    #[error("share_data.address: {0}")]
    Payee(#[from] PayeeError),
    /// It is younger than a past hard fork, but votes for the version before.
    #[error("share_data.desired_version is 16 at absheight {0}, after that fork's end")]
    VotesFor16(u32),
    /// A transaction that is looked for too far back.
    #[error("share_info.transaction_hash_refs leads {0} shares back, more than 109")]
    RefTooFar(u64),
    /// Its references to its own transaction hashes are not exactly all of these.
    #[error("share_info.transaction_hash_refs does not refer to exactly the {0} new_transaction_hashes")]
    RefsDoNotMatch(usize),
    /// It is easier than the network allows.
    #[error("share target {0} is above the network's maximum", bits.target())]
    TargetTooEasy {
        /// The target in its compact form.
        bits: Bits,
    },
    /// Its proof of work is missing.
    #[error("pow hash {} is above the share target {target}", super::display_hex(pow_hash))]
    ProofOfWork {
        /// The hash of its header.
        pow_hash: Digest,
        /// What it should not exceed.
        target: Target,
    },
}

impl CheckError {
    /// Whether no honest node would have sent it, so that its sender is banned; else it is only disconnected.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            CheckError::TargetTooEasy { .. }
                | CheckError::ProofOfWork { .. }
                | CheckError::Format(FormatError::Version(VersionError::Obsolete(_)))
        )
    }
}

impl Share {
    /// The share that `bytes` are, version and contents, if it passes all checks that it can pass alone.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn from_bytes(bytes: &[u8], rules: &ShareRules) -> Result<Share, CheckError> {
        Share::check(format::unpack(bytes, rules)?, rules)
    }

    /// As [`Share::from_bytes`], of a version number and contents that were read off already.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn from_wrapped(version: u64, contents: &[u8], rules: &ShareRules) -> Result<Share, CheckError> {
        Share::check(format::unpack_contents(version, contents, rules)?, rules)
    }

    /// Its bytes, version and contents, as they were read but for what the bounded form cuts off.
    pub fn to_bytes(&self) -> Vec<u8> {
        format::pack(&self.contents)
    }

    /// The same share with another `merkle_link`, which nothing in it commits to.
    ///
    /// # Panics
    /// If it has no segwit data: then the header commits to it.
    pub(crate) fn with_merkle_branch(&self, merkle_branch: Box<[Digest]>) -> Share {
        assert!(self.info().segwit_data.is_some(), "the merkle_link of share {} is committed to", self.hash);
        let mut share = self.clone();
        share.contents.merkle_branch = merkle_branch;
        share.wire_bytes = format::wire_bytes(&share.contents);
        share
    }

    /// Appends those bytes.
    pub fn write(&self, writer: &mut Writer) {
        format::write_wrapped(writer, &self.contents);
    }

    /// The share of these contents, if it passes all checks that it can pass alone, in the reference's order (section
    /// 5.1 from step 3).
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn check(contents: Contents, rules: &ShareRules) -> Result<Share, CheckError> {
        let payee = check_parts(&contents, rules)?;
        let share = Share::derive(contents, payee, rules);
        let bits = share.info().bits;
        let target = bits.target();
        if target > rules.max_target {
            return Err(CheckError::TargetTooEasy { bits });
        }
        if !target.is_met_by(&share.pow_hash) {
            return Err(CheckError::ProofOfWork { pow_hash: share.pow_hash, target });
        }
        Ok(share)
    }

    /// All that follows from the contents alone (section 5.1 step 7 and section 4.10).
    pub(super) fn derive(contents: Contents, payee: Payee, rules: &ShareRules) -> Share {
        let info = &contents.share_info;
        let ref_hash = format::ref_hash(info, &contents.ref_merkle_branch, rules);
        let gentx_hash = contents.hash_link.gentx_hash(&ref_hash, contents.last_txout_nonce);
        // Trap 9: with segwit the root comes from the txids, not from the hashes of the whole transactions.
        let branch = info.segwit_data.as_ref().map_or(&contents.merkle_branch, |segwit| &segwit.txid_merkle_branch);
        let merkle_root = merkle::fold(gentx_hash, branch);
        let header = contents.min_header.complete(&merkle_root);
        Share {
            payee,
            ref_hash,
            gentx_hash,
            merkle_root,
            // Trap 8: sha256d on every coin.
            hash: ShareHash(super::pow_sha256d(&header)),
            pow_hash: (rules.pow)(&header),
            attempts: info.bits.target().attempts(),
            wire_bytes: format::wire_bytes(&contents),
            contents,
        }
    }
}

/// Steps 3 to 6, which need no hashing.
fn check_parts(contents: &Contents, rules: &ShareRules) -> Result<Payee, CheckError> {
    let info = &contents.share_info;
    let data = &info.share_data;
    if !COINBASE_BYTES.contains(&data.coinbase.len()) {
        return Err(CheckError::CoinbaseLength(data.coinbase.len()));
    }
    let payee = payee_of(&data.payout, contents.version, rules)?;
    if rules.no_votes_for_16_above.is_some_and(|limit| info.absheight > limit) && data.desired_version == 16 {
        return Err(CheckError::VotesFor16(info.absheight));
    }
    if let Some(transactions) = &info.transactions {
        check_refs(transactions)?;
    }
    Ok(payee)
}

/// The payee of a share, whose script must be one that its version can write (section 18.2 on 5.1 step 4).
pub(super) fn payee_of(payout: &Payout, version: ShareVersion, rules: &ShareRules) -> Result<Payee, PayeeError> {
    let payee = match payout {
        Payout::PubkeyHash(hash) => Payee::from_pubkey_hash(hash, rules),
        Payout::Address(text) => Payee::from_address(text, rules)?,
    };
    payee.script(version)?;
    Ok(payee)
}

fn check_refs(transactions: &TransactionRefs) -> Result<(), CheckError> {
    let mut own = HashSet::new();
    for (share_count, tx_count) in &transactions.refs {
        if *share_count >= TRANSACTION_REF_SHARES_MAX {
            return Err(CheckError::RefTooFar(*share_count));
        }
        if *share_count == 0 {
            own.insert(*tx_count);
        }
    }
    let count = transactions.new_hashes.len();
    if own.len() == count && own.iter().all(|index| *index < count as u64) {
        Ok(())
    } else {
        Err(CheckError::RefsDoNotMatch(count))
    }
}
