//! Derives *the* coinbase from share info and weights: used to build our shares and to check everyone's.

use ruint::aliases::U320;
use std::collections::HashMap;

use super::Payee;

/// Who found how much of the payout window: attempts times 65535 (protocol section 7).
///
/// `total` is the sum of all weights and of `donation`. A window of 2^16 shares stays below 2^290.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weights {
    /// What each payee has; entries of 0 count as absent.
    pub by_payee: HashMap<Payee, U320>,
    /// All of it.
    pub total: U320,
    /// What the payees gave to the donation address.
    pub donation: U320,
}
