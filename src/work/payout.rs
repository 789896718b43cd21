//! The payout of a job.

use bitcoin::ScriptBuf;
use sharechain::chain::share_rules;
use sharechain::coin::Network;
use sharechain::coin::address::{self, AddressError};
use sharechain::share::Payee;
use std::fmt;
use std::sync::Arc;
use stratum::Difficulty;
use thiserror::Error;

/// Output script and address paid by a job.
#[derive(Debug, Clone)]
pub struct Payout {
    pub script: ScriptBuf,
    /// Address, in lower case where case does not matter, so that one script is one payee.
    pub address: Arc<str>,
    /// Share difficulty requested by the miner.
    pub share_difficulty: Option<Difficulty>,
}

/// Payouts are equal if they pay the same script, whatever share difficulty is requested.
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

/// Reason why an address cannot be paid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PayoutError {
    /// It is not an address, or not one of this network that shares can pay.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The reference's representation of addresses corrupts this one.
    #[error("`{0}` cannot be paid: P2Pool's shares lose the zeros that its witness program begins with")]
    LeadingZeros(String),
}

impl Payout {
    /// Parses `text` as an address.
    ///
    /// # Errors
    /// The address cannot be paid. [`AddressError::NotAnAddress`] is for mere names.
    pub fn to_address(text: &str, network: &Network) -> Result<Self, PayoutError> {
        let script = address::script_of(text, &network.parent)?;
        // Base58 is case-sensitive; bech32 may be written in either case, and payees are distinguished by their text.
        let address = if script.is_witness_program() { text.to_ascii_lowercase() } else { text.to_owned() };
        // Shares hold addresses as text, and the script that peers derive from it is paid (trap 27).
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
