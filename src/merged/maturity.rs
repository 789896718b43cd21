//! Depth at which a merged chain's coinbase can be spent.

/// Chains whose depth is not Bitcoin's, by chain number: Dogecoin's `nCoinbaseMaturity` is 240 from its block 145,000
/// on (`src/chainparams.cpp` of Dogecoin Core).
const DEPTHS: [(u32, u32); 1] = [(98, 240)];

/// `COINBASE_MATURITY` of Bitcoin Core, which Namecoin and most other chains kept.
const USUAL: u32 = 100;

/// Depth that is safe for every chain, while the chain's number is unknown.
pub(super) const UNKNOWN: u32 = 240;

/// Confirmations at which a coinbase of the chain with this number can be spent.
pub fn confirmations_mature(chain_id: u32) -> u32 {
    DEPTHS.iter().find(|(id, _)| *id == chain_id).map_or(USUAL, |(_, depth)| *depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dogecoins_coinbases_mature_later_than_those_of_others() {
        assert!(DEPTHS.iter().all(|(_, depth)| *depth <= UNKNOWN) && USUAL <= UNKNOWN);
        assert_eq!([98, 1, 0, u32::MAX].map(confirmations_mature), [240, 100, 100, 100]);
    }
}
