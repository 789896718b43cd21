//! Checks of a single share, without its ancestors (protocol section 5.1).

use std::collections::HashSet;
use thiserror::Error;

use super::format::{self, FormatError};
use super::{
    Bits, Contents, Payee, PayeeError, Payout, Share, ShareHash, ShareRules, ShareVersion, Target, TransactionRefs,
    VersionError,
};
use crate::merkle::{self, Digest};
use crate::pack::Writer;

/// Length of a coinbase script in bytes, Bitcoin's own rule.
const COINBASE_BYTES: std::ops::RangeInclusive<usize> = 2..=100;

/// A transaction reference must lead less far back than this, in shares.
const TRANSACTION_REF_SHARES_MAX: u64 = 110;

/// Reasons why bytes are not a share that could be part of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckError {
    /// The bytes are not in the format of a share.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Length of the coinbase script is outside Bitcoin's limits.
    #[error("share_data.coinbase has {0} bytes, which should be 2 to 100")]
    CoinbaseLength(usize),
    /// Payout that this network could never pay.
    #[error("share_data.address: {0}")]
    Payee(#[from] PayeeError),
    /// Vote for version 16 after the hard fork that replaced it.
    #[error("share_data.desired_version is 16 at absheight {0}, after that fork's end")]
    VotesFor16(u32),
    /// Transaction reference too far back.
    #[error("share_info.transaction_hash_refs leads {0} shares back, more than 109")]
    RefTooFar(u64),
    /// The references to the share's own transaction hashes do not match them exactly.
    #[error("share_info.transaction_hash_refs does not refer to exactly the {0} new_transaction_hashes")]
    RefsDoNotMatch(usize),
    /// Hash link with more or fewer bytes than its version's ending leaves open (protocol-v36 section 3.4).
    #[error("hash_link.extra_data has {given} bytes and should have {wanted}")]
    HashLink {
        /// Required length.
        wanted: usize,
        /// Length in the share.
        given: usize,
    },
    /// Target easier than the one that the share itself calls the easiest.
    #[error("share target {} is above its max_target {}", bits.target(), max_bits.target())]
    TargetAboveMax {
        /// Target in its compact form.
        bits: Bits,
        /// Easiest target in its compact form.
        max_bits: Bits,
    },
    /// Target easier than the network allows.
    #[error("share target {0} is above the network's maximum", bits.target())]
    TargetTooEasy {
        /// Target in its compact form.
        bits: Bits,
    },
    /// Insufficient proof of work.
    #[error("pow hash {} is above the share target {target}", super::display_hex(pow_hash))]
    ProofOfWork {
        /// Hash of the header.
        pow_hash: Digest,
        /// The share's target.
        target: Target,
    },
}

impl CheckError {
    /// True if no honest node sends such a share: the sender is banned. Otherwise it is only disconnected.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            CheckError::TargetTooEasy { .. }
                | CheckError::TargetAboveMax { .. }
                | CheckError::ProofOfWork { .. }
                | CheckError::Format(FormatError::Version(VersionError::Obsolete(_)))
        )
    }
}

impl Share {
    /// Parses a share, version and contents, and runs all checks that need no ancestors.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn from_bytes(bytes: &[u8], rules: &ShareRules) -> Result<Share, CheckError> {
        Share::check(format::unpack(bytes, rules)?, rules)
    }

    /// Like [`Share::from_bytes`], for a version number and contents that were read already.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn from_wrapped(version: u64, contents: &[u8], rules: &ShareRules) -> Result<Share, CheckError> {
        Share::check(format::unpack_contents(version, contents, rules)?, rules)
    }

    /// Serialises the share, version and contents: the bytes that it was read from, cut to the bounded form.
    pub fn to_bytes(&self) -> Vec<u8> {
        format::pack(&self.contents)
    }

    /// Returns the same share with another `merkle_link`, which nothing in the share commits to.
    ///
    /// # Panics
    /// If the share has no segwit data: then the header commits to the link.
    pub(crate) fn with_merkle_branch(&self, merkle_branch: Box<[Digest]>) -> Share {
        assert!(self.info().segwit_data.is_some(), "the merkle_link of share {} is committed to", self.hash);
        let mut share = self.clone();
        share.contents.merkle_branch = merkle_branch;
        share.wire_bytes = format::wire_bytes(&share.contents);
        share
    }

    /// Appends the bytes of [`Share::to_bytes`] to `writer`.
    pub fn write(&self, writer: &mut Writer) {
        format::write_wrapped(writer, &self.contents);
    }

    /// Builds a share from its contents after all checks that need no ancestors, in the reference's order (section 5.1
    /// from step 3).
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn check(contents: Contents, rules: &ShareRules) -> Result<Share, CheckError> {
        let share = UnprovenShare::check(contents, rules)?;
        let pow_hash = (rules.pow)(&share.header());
        share.prove(pow_hash)
    }

    /// Derives all values that depend on the contents alone (section 5.1 step 7 and section 4.10). `pow` is the
    /// proof-of-work hash of a header.
    pub(super) fn derive(
        contents: Contents,
        payee: Payee,
        rules: &ShareRules,
        pow: impl FnOnce(&[u8; 80]) -> Digest,
    ) -> Share {
        let info = &contents.share_info;
        let ref_hash = format::ref_hash(info, &contents.ref_merkle_branch, rules);
        let gentx_hash = contents.hash_link.gentx_hash(contents.version, &ref_hash, contents.last_txout_nonce);
        // Trap 9: with segwit the root is over the txids, not over the hashes of the full transactions.
        let branch = info.segwit_data.as_ref().map_or(&contents.merkle_branch, |segwit| &segwit.txid_merkle_branch);
        let merkle_root = merkle::fold(gentx_hash, branch);
        let header = contents.min_header.complete(&merkle_root);
        let pow_hash = pow(&header);
        Share {
            payee,
            ref_hash,
            gentx_hash,
            merkle_root,
            // Trap 8: sha256d on every coin.
            hash: ShareHash(super::pow_sha256d(&header)),
            pow_hash,
            attempts: info.bits.target().attempts(),
            wire_bytes: format::wire_bytes(&contents),
            contents,
        }
    }
}

/// A share that passed all checks except its proof of work, which takes a third of a millisecond with scrypt. Its hash
/// tells if the proof is known already.
#[derive(Debug, Clone)]
pub struct UnprovenShare(Share);

impl UnprovenShare {
    /// Like [`Share::from_wrapped`], without the proof of work.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn from_wrapped(version: u64, contents: &[u8], rules: &ShareRules) -> Result<UnprovenShare, CheckError> {
        UnprovenShare::check(format::unpack_contents(version, contents, rules)?, rules)
    }

    fn check(contents: Contents, rules: &ShareRules) -> Result<UnprovenShare, CheckError> {
        let payee = check_parts(&contents, rules)?;
        let bits = contents.share_info.bits;
        if bits.target() > rules.max_target {
            return Err(CheckError::TargetTooEasy { bits });
        }
        let max_bits = contents.share_info.max_bits;
        if bits.target() > max_bits.target() {
            return Err(CheckError::TargetAboveMax { bits, max_bits });
        }
        // Replaced by the real one in `prove`, the only way to the share.
        Ok(UnprovenShare(Share::derive(contents, payee, rules, |_| [0xff; 32])))
    }

    /// Hash of the share: it identifies the header, on every coin.
    pub fn hash(&self) -> ShareHash {
        self.0.hash()
    }

    /// Block header, whose proof-of-work hash is to be computed.
    pub fn header(&self) -> [u8; 80] {
        self.0.header()
    }

    /// Returns the share if the proof-of-work hash of its header, `pow_hash`, meets its target.
    ///
    /// # Errors
    /// [`CheckError::ProofOfWork`].
    pub fn prove(self, pow_hash: Digest) -> Result<Share, CheckError> {
        let share = Share { pow_hash, ..self.0 };
        let target = share.target();
        if target.is_met_by(&pow_hash) { Ok(share) } else { Err(CheckError::ProofOfWork { pow_hash, target }) }
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
    let (wanted, given) = (contents.hash_link.extra_bytes(contents.version), contents.hash_link.extra_data.len());
    if wanted != given {
        return Err(CheckError::HashLink { wanted, given });
    }
    Ok(payee)
}

/// Returns a share's payee, whose script must be one that its version can write (section 18.2 on 5.1 step 4).
pub(super) fn payee_of(payout: &Payout, version: ShareVersion, rules: &ShareRules) -> Result<Payee, PayeeError> {
    let payee = match payout {
        Payout::PubkeyHash(hash) => Payee::from_pubkey_hash(hash, rules),
        Payout::Address(text) => Payee::from_address(text, rules)?,
        Payout::Hash { hash, kind } => Payee::from_hash(*kind, hash, rules),
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
