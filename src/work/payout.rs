//! Whom a job pays.

use bitcoin::ScriptBuf;
use sharechain::chain::share_rules;
use sharechain::coin::Network;
use sharechain::coin::address::{self, AddressError};
use sharechain::share::Payee;
use std::fmt;
use std::sync::Arc;
use stratum::Difficulty;
use thiserror::Error;

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
