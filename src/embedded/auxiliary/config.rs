//! Settings of a daemon: which chain it has, and which program it answers like.

use bitcoin::CompactTarget;
use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, ScriptBuf};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::addresses::Addresses;
use super::chain::{Bits, Rules};
use super::proof::ParentPow;
use crate::runtime::secret::Secret;

/// Satoshis in a coin.
const COIN: u64 = 100_000_000;

/// Renewal of created blocks, as in both programs.
const RENEWAL: Duration = Duration::from_secs(60);

/// The easiest bits: every other hash is a block.
const EASIEST_BITS: u32 = 0x207f_ffff;

/// Program whose names of fields and errors the daemon has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Dogecoin Core 1.14.
    Dogecoin,
    /// Namecoin Core.
    Namecoin,
}

/// Target that the daemon gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// The block's own, least significant byte first.
    Digits,
    /// The word `p2pool`, which stands for the target of the next share (protocol section 9.8).
    Word,
}

/// Settings of a daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the chain; different ones have different genesis blocks.
    pub name: String,
    /// Program that it answers like.
    pub flavour: Flavour,
    /// Rules of its chain.
    pub rules: Rules,
    /// Address to listen on. Port 0 for any free one.
    pub listen: SocketAddr,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// Set if it has `createauxblock` and `submitauxblock`; early programs had only `getauxblock`.
    pub creates: bool,
    /// Set if it has `getblocktemplate` and `submitblock`, as Dogecoin Core has them: other chains' blocks hold a witness
    /// commitment as well, which these do not.
    pub templates: bool,
    /// Set if it has a wallet, which `getauxblock` pays.
    pub wallet: bool,
    /// Form of the target.
    pub target: TargetForm,
}

impl Config {
    /// A chain like Dogecoin, on any free port.
    pub fn dogecoin() -> Self {
        let rules = Rules {
            chain_id: 98,
            parent_pow: ParentPow::Scrypt,
            bits: Bits::Fixed(CompactTarget::from_consensus(EASIEST_BITS)),
            subsidy: 10_000 * COIN,
            maturity: 240,
            renewal: RENEWAL,
            addresses: Addresses { pubkey_hash: 30, script_hash: 22, human_readable_part: None },
        };
        Self::new("Dogecoin", Flavour::Dogecoin, rules)
    }

    /// A chain like Namecoin, on any free port.
    pub fn namecoin() -> Self {
        let rules = Rules {
            chain_id: 1,
            parent_pow: ParentPow::Sha256d,
            bits: Bits::Fixed(CompactTarget::from_consensus(EASIEST_BITS)),
            subsidy: 25 * COIN / 8,
            maturity: 100,
            renewal: RENEWAL,
            addresses: Addresses { pubkey_hash: 52, script_hash: 13, human_readable_part: Some("nc") },
        };
        Self::new("Namecoin", Flavour::Namecoin, rules)
    }

    fn new(name: &str, flavour: Flavour, rules: Rules) -> Self {
        Self {
            name: name.to_owned(),
            flavour,
            rules,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            user: "merged".to_owned(),
            password: Secret::new("private"),
            creates: true,
            templates: flavour == Flavour::Dogecoin,
            wallet: true,
            target: TargetForm::Digits,
        }
    }

    /// Script of an address without an owner, made from `owner`.
    pub fn script_of(&self, owner: &str) -> ScriptBuf {
        ScriptBuf::new_p2pkh(&PubkeyHash::hash(owner.as_bytes()))
    }

    /// Text of that address.
    pub fn address_of(&self, owner: &str) -> String {
        self.rules.addresses.text(&self.script_of(owner)).expect("P2PKH has an address on every chain")
    }

    /// Script that `getauxblock` pays.
    pub fn wallet_script(&self) -> ScriptBuf {
        self.script_of(&format!("wallet of {}", self.name))
    }
}
