//! Reasons for which the embedded chain refuses a block, in the words of Bitcoin Core's `submitblock`.

use thiserror::Error;

/// Reason for refusing a block (BIP 22 leaves the words to the daemon; these are Bitcoin Core's).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the text beside each variant is its documentation, and the one that miners will read")]
pub enum Reject {
    #[error("Block decode failed")]
    Undecodable,
    #[error("high-hash")]
    HighHash,
    #[error("bad-txnmrklroot")]
    MerkleRoot,
    #[error("bad-txns-duplicate")]
    DuplicateTransactions,
    #[error("bad-blk-length")]
    BlockLength,
    #[error("bad-cb-missing")]
    CoinbaseMissing,
    #[error("bad-cb-multiple")]
    CoinbaseMultiple,
    #[error("bad-blk-sigops")]
    SignatureOperations,
    #[error("duplicate-invalid")]
    KnownInvalid,
    #[error("prev-blk-not-found")]
    PreviousUnknown,
    #[error("bad-prevblk")]
    PreviousInvalid,
    #[error("bad-diffbits")]
    Bits,
    #[error("time-too-old")]
    TimeTooOld,
    #[error("time-too-new")]
    TimeTooNew,
    #[error("bad-version(0x{0:08x})")]
    Version(i32),
    #[error("bad-txns-nonfinal")]
    NonFinal,
    #[error("bad-cb-height")]
    CoinbaseHeight,
    #[error("bad-witness-nonce-size")]
    WitnessNonceSize,
    #[error("bad-witness-merkle-match")]
    WitnessCommitment,
    #[error("unexpected-witness")]
    UnexpectedWitness,
    #[error("bad-blk-weight")]
    Weight,
    #[error("bad-txns-BIP30")]
    OverwritesCoin,
    #[error("bad-cb-amount")]
    CoinbaseAmount,
    #[error("{0}")]
    Transaction(#[from] TransactionReject),
    /// A script fails. In the brackets Core has the error of its script interpreter, here it is ours.
    #[error("block-script-verify-flag-failed ({0})")]
    Script(String),
    /// A spend in a form that this chain cannot judge. Core might accept it; accepting it unjudged would be worse.
    #[error("embedded-chain-unsupported-script ({0})")]
    UnsupportedScript(String),
    /// The parent is so deep that the data for leaving the best chain there is gone. Core would keep such a branch.
    #[error("embedded-chain-too-deep")]
    TooDeep,
}

/// Reason for refusing a transaction, regardless of its scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "as above")]
pub enum TransactionReject {
    #[error("bad-txns-vin-empty")]
    NoInputs,
    #[error("bad-txns-vout-empty")]
    NoOutputs,
    #[error("bad-txns-oversize")]
    Oversize,
    #[error("bad-txns-vout-negative")]
    OutputNegative,
    #[error("bad-txns-vout-toolarge")]
    OutputTooLarge,
    #[error("bad-txns-txouttotal-toolarge")]
    OutputTotalTooLarge,
    #[error("bad-txns-inputs-duplicate")]
    InputsDuplicate,
    #[error("bad-cb-length")]
    CoinbaseLength,
    #[error("bad-txns-prevout-null")]
    PrevoutNull,
    #[error("bad-txns-inputs-missingorspent")]
    InputsMissingOrSpent,
    #[error("bad-txns-premature-spend-of-coinbase")]
    PrematureSpend,
    #[error("bad-txns-inputvalues-outofrange")]
    InputValues,
    #[error("bad-txns-in-belowout")]
    InBelowOut,
    #[error("bad-txns-accumulated-fee-outofrange")]
    AccumulatedFee,
    #[error("bad-txns-nonfinal")]
    NonFinal,
}

impl Reject {
    /// True if the body is invalid, not the header: another body with the same header may be valid, so the header must
    /// not be remembered as invalid (CVE-2012-2459).
    pub(super) fn blames_body_alone(&self) -> bool {
        matches!(
            self,
            Self::MerkleRoot
                | Self::DuplicateTransactions
                | Self::WitnessNonceSize
                | Self::WitnessCommitment
                | Self::UnexpectedWitness
        )
    }
}

/// Result of judging a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The block is the new tip of the best chain. `submitblock` returns `null`.
    Accepted,
    /// The block was known already, in the best chain or not.
    Duplicate,
    /// The block may be valid, but another chain is better: it was stored, not connected.
    Inconclusive,
    /// The block breaks a rule.
    Rejected(Reject),
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.write_str("null"),
            Self::Duplicate => f.write_str("duplicate"),
            Self::Inconclusive => f.write_str("inconclusive"),
            Self::Rejected(reject) => reject.fmt(f),
        }
    }
}
