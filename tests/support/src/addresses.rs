//! Addresses that tests pay, and the keys behind them.

use bitcoin::bech32::{Hrp, segwit};
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, KnownHrp, Network};

/// Regtest P2WPKH address for each seed, as a miner's own.
pub fn payout_address(seed: u8) -> Address {
    let key = CompressedPublicKey::from_private_key(&Secp256k1::new(), &private_key(0x40, seed))
        .expect("made as a compressed key");
    Address::p2wpkh(&key, KnownHrp::Regtest)
}

/// [`payout_address`] as the coin with this human-readable part writes it.
pub(crate) fn payout_address_with(prefix: &str, seed: u8) -> String {
    let program = payout_address(seed).witness_program().expect("it is a segwit address");
    let prefix = Hrp::parse(prefix).expect("a coin's own is well formed");
    segwit::encode_v0(prefix, program.program().as_bytes()).expect("20 bytes are a program of version 0")
}

pub(crate) fn private_key(kind: u8, seed: u8) -> bitcoin::PrivateKey {
    let mut bytes = [kind; 32];
    bytes[31] = seed;
    bitcoin::PrivateKey::new(
        SecretKey::from_slice(&bytes).expect("in the range of the curve's order"),
        Network::Regtest,
    )
}
