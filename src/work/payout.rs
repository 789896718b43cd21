//! The payout of a job: its miner's output script, and the one on the network's merged chain.

use bitcoin::{Script, ScriptBuf};
use sharechain::chain::share_rules;
use sharechain::coin::address::{self, AddressError};
use sharechain::coin::{MergedChain, Network};
use sharechain::merged::converted;
use sharechain::share::{MergedAddress, Payee, ShareVersion, donation_script};
use std::fmt;
use std::hash::{Hash, Hasher};
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
    /// The miner on the network's merged chain; `None` if shares of the network name none. It belongs to the payee: a
    /// payee that replaces another brings its own (protocol-v36 trap 11).
    pub merged: Option<Arc<MergedEntry>>,
}

/// Payouts are equal if they pay the same scripts (protocol-v36 trap 12), whatever share difficulty is requested.
impl PartialEq for Payout {
    fn eq(&self, other: &Self) -> bool {
        self.script == other.script && self.merged == other.merged
    }
}

/// The address, which names the payee in statistics; `{:#}` adds the one on the merged chain.
impl fmt::Display for Payout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        match self.merged.as_ref().filter(|_| f.alternate()) {
            Some(merged) => write!(f, " ({}: {})", merged.symbol, merged.address),
            None => Ok(()),
        }
    }
}

/// Entry of a share for the miner on a merged chain (protocol-v36 section 8.1).
#[derive(Debug, Clone)]
pub struct MergedEntry {
    /// Chain number in shares.
    pub chain_id: u32,
    /// Ticker symbol of the chain.
    pub symbol: &'static str,
    pub script: ScriptBuf,
    /// Address of the script on that chain.
    pub address: Arc<str>,
    pub origin: Origin,
}

/// Origin of a miner's script on a merged chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The miner named it.
    Explicit,
    /// Converted from the parent chain's.
    Converted,
}

/// Entries are equal if they pay the same script, wherever that is from.
impl PartialEq for MergedEntry {
    fn eq(&self, other: &Self) -> bool {
        (self.chain_id, &self.script) == (other.chain_id, &other.script)
    }
}

impl Eq for MergedEntry {}

impl Hash for MergedEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.chain_id, &self.script).hash(state);
    }
}

impl MergedEntry {
    /// Creates the entry for `script` on `chain`; `None` if the script has no address there.
    fn new(script: &Script, chain: &MergedChain, origin: Origin) -> Option<Self> {
        let address = chain.address_of(script)?.into();
        Some(Self { chain_id: chain.chain_id, symbol: chain.symbol, script: script.to_owned(), address, origin })
    }

    /// True if strangers may be able to spend what it is paid: a P2SH address of the parent chain is usually a SegWit
    /// wallet's, and its script protects nothing on a chain without witnesses (protocol-v36 trap 32).
    pub fn is_unsafe(&self) -> bool {
        self.origin == Origin::Converted && self.script.is_p2sh()
    }

    /// The entry as part of a share.
    pub fn in_share(&self) -> MergedAddress {
        MergedAddress { chain_id: self.chain_id, script: self.script.as_bytes().into() }
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
    /// Shares of version 36 have room for a hash of 20 bytes alone (protocol-v36 trap 6).
    #[error(
        "`{0}` is a P2WSH address, which shares of version 36 cannot pay; use the address of a single key ({1}1q… with \
         {2} characters) or a P2SH address"
    )]
    WitnessScript(String, &'static str, usize),
    /// Nodes of version 36 leave its output out of coinbases of version 35, and the amount is lost (protocol-v36 trap
    /// 16).
    #[error(
        "`{0}` is the donation address of share version 36, whose payouts in shares of version 35 are lost; use another \
         (operators donate with --give-author)"
    )]
    Donation(String),
}

impl Payout {
    /// Parses `text` as an address. On a network with a merged chain, the miner's address there is converted from it.
    ///
    /// # Errors
    /// The address cannot be paid. [`AddressError::NotAnAddress`] is for mere names.
    pub fn to_address(text: &str, network: &Network) -> Result<Self, PayoutError> {
        let script = address::script_of(text, &network.parent)?;
        if network.newest_version >= ShareVersion::V36.number() {
            check_for_36(text, &script, network)?;
        }
        // Base58 is case-sensitive; bech32 may be written in either case, and payees are distinguished by their text.
        let address = if script.is_witness_program() { text.to_ascii_lowercase() } else { text.to_owned() };
        // Shares hold addresses as text, and the script that peers derive from it is paid (trap 27).
        let paid = Payee::from_address(&address, &share_rules(network))
            .and_then(|payee| payee.newest_script().map(<[u8]>::to_vec));
        match paid {
            Ok(paid) if paid == script.as_bytes() => {
                let merged = network.paid_merged_chain().and_then(|chain| {
                    let converted = converted(script.as_bytes())?;
                    MergedEntry::new(Script::from_bytes(converted.as_bytes()), chain, Origin::Converted)
                });
                Ok(Self { script, address: address.into(), share_difficulty: None, merged: merged.map(Arc::new) })
            }
            _ => Err(PayoutError::LeadingZeros(text.to_owned())),
        }
    }

    /// Pays the script of a merged chain's address, and the same pubkey hash or script hash on the parent chain
    /// (protocol-v36 section 8.6).
    ///
    /// # Errors
    /// That cannot be paid.
    pub fn to_merged(script: &Script, chain: &MergedChain, network: &Network) -> Result<Self, PayoutError> {
        let not_an_address = || AddressError::NotAnAddress(script.to_hex_string());
        let address = address::of_script(script, &network.parent).ok_or_else(not_an_address)?;
        Ok(Self::to_address(&address, network)?.with_merged(script, chain))
    }

    /// Warning for the operator if strangers may be able to spend what this payout gets on the merged chain.
    pub fn merged_warning(&self) -> Option<String> {
        let entry = self.merged.as_ref().filter(|entry| entry.is_unsafe())?;
        let (symbol, address) = (entry.symbol, &entry.address);
        Some(format!(
            "{symbol} goes to {address}, from which anybody can take it if {self} is a SegWit wallet's: name an address of \
             your own with -a {self},{symbol}_ADDRESS"
        ))
    }

    /// The same payout with an address of the miner's choice on `chain`: `script`, as read by
    /// [`MergedChain::script_of`].
    #[must_use]
    pub fn with_merged(self, script: &Script, chain: &MergedChain) -> Self {
        let entry = MergedEntry::new(script, chain, Origin::Explicit);
        Self { merged: entry.map(Arc::new).or(self.merged), ..self }
    }
}

/// Checks that `script` can be paid in shares of version 36 and 35, between which the chain may change.
fn check_for_36(text: &str, script: &Script, network: &Network) -> Result<(), PayoutError> {
    if script.is_p2wsh() {
        let part = network.parent.human_readable_part;
        // The separator, the version, 20 bytes in 32 digits, and a checksum of 6.
        return Err(PayoutError::WitnessScript(text.to_owned(), part, part.len() + 2 + 32 + 6));
    }
    if script.as_bytes() == donation_script(ShareVersion::V36) {
        return Err(PayoutError::Donation(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN, LITECOIN};

    const NETWORK: &Network = &LITECOIN;
    const P2PKH: &str = "LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhMA";
    const P2SH: &str = "M9yc8NzsGcgMduDUs1xEi1Lsnbjgt3JZT2";
    const P2WPKH: &str = "ltc1q3ydhr35drlhsa4lecregwwrchnzx9usgwzwkvs";
    const P2WSH: &str = "ltc1q00pvzpszzmkp6cmeug3y93gk9gr02wuqv8amdxtagntp486tge6qutvn8p";
    const DOGECOIN_P2PKH: &str = "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6e";
    const DOGECOIN_P2SH: &str = "A3viDLdhx1ZdyNFiDP2XVbkxHngHXSfhZX";

    fn payout(text: &str) -> Payout {
        Payout::to_address(text, NETWORK).unwrap()
    }

    fn entry(payout: &Payout) -> &MergedEntry {
        payout.merged.as_deref().unwrap()
    }

    #[test]
    fn an_address_brings_the_same_hash_on_the_merged_chain() {
        let hash = "cc533dd21d798e9c25a180d907f52cd081d52e52";
        assert_eq!(entry(&payout(P2PKH)).script.to_hex_string(), format!("76a914{hash}88ac"));
        let witness = "891b71c68d1fef0ed7f9c0f2873878bcc462f208";
        assert_eq!(entry(&payout(P2WPKH)).script.to_hex_string(), format!("76a914{witness}88ac"));
        let script = "16c788343114338f70b413d6fbbdbed9187614c8";
        assert_eq!(entry(&payout(P2SH)).script.to_hex_string(), format!("a914{script}87"));
        for text in [P2PKH, P2WPKH, P2SH] {
            let payout = payout(text);
            let entry = entry(&payout);
            assert_eq!((entry.chain_id, entry.origin), (98, Origin::Converted));
            assert_eq!(entry.is_unsafe(), text == P2SH, "{text}");
            assert_eq!(&*entry.in_share().script, entry.script.as_bytes());
            assert!(entry.address.starts_with(['D', '9', 'A']), "{}", entry.address);
        }
        let of_35 = Network { newest_version: 35, ..LITECOIN };
        assert_eq!(Payout::to_address(P2PKH, &of_35).unwrap().merged, None, "no share can name it");
        assert_eq!(Payout::to_address("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", &BITCOIN).unwrap().merged, None);
    }

    #[test]
    fn payouts_with_other_addresses_on_the_merged_chain_are_not_equal() {
        let chain = NETWORK.paid_merged_chain().unwrap();
        let script = |text| chain.script_of(text).unwrap();
        let converted = payout(P2PKH);
        let explicit = converted.clone().with_merged(&script(DOGECOIN_P2PKH), chain);
        let other = converted.clone().with_merged(&script(DOGECOIN_P2SH), chain);
        assert!(converted != explicit && explicit != other && converted != other);
        let same = converted.clone().with_merged(&entry(&converted).script, chain);
        assert_eq!(entry(&same).origin, Origin::Explicit);
        assert_eq!(same, converted, "the same scripts are paid");
        assert!(!entry(&other).is_unsafe(), "the miner chose it");
        assert_eq!((converted.merged_warning(), other.merged_warning()), (None, None));
        let warning = payout(P2SH).merged_warning().unwrap();
        assert!(warning.contains(&format!("-a {P2SH},DOGE_ADDRESS")), "{warning}");
        assert_eq!(explicit.to_string(), P2PKH);
        assert_eq!(format!("{explicit:#}"), format!("{P2PKH} (DOGE: {DOGECOIN_P2PKH})"));
    }

    #[test]
    fn an_address_of_the_merged_chain_pays_the_same_hash_on_the_parent_chain() {
        let chain = NETWORK.paid_merged_chain().unwrap();
        for (text, first) in [(DOGECOIN_P2PKH, 'L'), (DOGECOIN_P2SH, 'M')] {
            let script = chain.script_of(text).unwrap();
            let payout = Payout::to_merged(&script, chain, NETWORK).unwrap();
            assert!(payout.address.starts_with(first), "{payout}");
            assert_eq!(payout.script, script);
            assert_eq!((&*entry(&payout).address, entry(&payout).origin), (text, Origin::Explicit));
        }
        assert!(Payout::to_merged(&ScriptBuf::new(), chain, NETWORK).is_err());
    }

    #[test]
    fn addresses_that_shares_of_version_36_or_35_cannot_pay_are_refused_with_the_reason() {
        let refused = |text: &str| Payout::to_address(text, NETWORK).unwrap_err().to_string();
        let reason = refused(P2WSH);
        assert!(reason.contains("P2WSH") && reason.contains("(ltc1q… with 43 characters)"), "{reason}");
        assert_eq!(P2WPKH.len(), 43);
        assert!(refused("MLhSmVQxMusLE3pjGFvp4unFckgjeD8LUA").contains("donation address"));
        let of_35 = Network { newest_version: 35, ..LITECOIN };
        assert!(Payout::to_address(P2WSH, &of_35).is_ok(), "version 35 can");
        assert!(Payout::to_address("MLhSmVQxMusLE3pjGFvp4unFckgjeD8LUA", &of_35).is_ok());
        let chain = NETWORK.paid_merged_chain().unwrap();
        let donation = chain.script_of("A5EZCT4tUrtoKuvJaWbtVQADzdUKdtsqpr").unwrap();
        assert!(matches!(Payout::to_merged(&donation, chain, NETWORK), Err(PayoutError::Donation(_))));
    }
}
