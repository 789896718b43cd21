//! `MergedChain`: a chain whose blocks pay the pool's miners from share version 36 on, and its addresses (protocol-v36
//! sections 1.4 and 8.1).

use bitcoin::{Script, ScriptBuf};

use super::address::{self, AddressError, Prefixes};

/// Merged chain on which shares of version 36 name their miner's output script. It has no witness programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedChain {
    /// Name, in lower case.
    pub name: &'static str,
    /// Ticker symbol, for display.
    pub symbol: &'static str,
    /// Chain number in the proofs of merged mining and in shares.
    pub chain_id: u32,
    /// Version byte of P2PKH addresses.
    pub address_version: u8,
    /// Version byte of P2SH addresses.
    pub address_p2sh_version: u8,
}

/// Dogecoin's main network.
pub const DOGECOIN: MergedChain =
    MergedChain { name: "dogecoin", symbol: "DOGE", chain_id: 98, address_version: 30, address_p2sh_version: 22 };

/// Dogecoin's test network.
pub const DOGECOIN_TESTNET: MergedChain = MergedChain {
    name: "dogecoin_testnet",
    symbol: "tDOGE",
    chain_id: 98,
    address_version: 113,
    address_p2sh_version: 196,
};

impl MergedChain {
    /// Returns the script that pays `text` on this chain.
    ///
    /// # Errors
    /// [`AddressError::NotAnAddress`] for a plain name; every other error is for a text that was most likely meant as an
    /// address, of this chain or another.
    pub fn script_of(&self, text: &str) -> Result<ScriptBuf, AddressError> {
        address::parse(text, &self.prefixes())
    }

    /// Returns the address of `script` on this chain, if it is of a kind that [`Self::script_of`] reads.
    pub fn address_of(&self, script: &Script) -> Option<String> {
        address::text_of(script, &self.prefixes())
    }

    fn prefixes(&self) -> Prefixes {
        Prefixes {
            address_version: self.address_version,
            address_p2sh_version: self.address_p2sh_version,
            address_p2sh_version_old: None,
            human_readable_part: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P2PKH: &str = "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6e";
    const P2SH: &str = "A3viDLdhx1ZdyNFiDP2XVbkxHngHXSfhZX";

    #[test]
    fn addresses_of_both_networks_are_their_scripts() {
        let hash = "7e0a5bfd1efce7b00e78b1184c17d7eaecc0930f";
        for (chain, text, script) in [
            (&DOGECOIN, P2PKH, format!("76a914{hash}88ac")),
            (&DOGECOIN, P2SH, format!("a914{hash}87")),
            (&DOGECOIN_TESTNET, "nfgbpDkvZRjNPowbSZLXd1XYZh88GXgPyq", format!("76a914{hash}88ac")),
            (&DOGECOIN_TESTNET, "2N4jfYEVqVQC6GnWnUNyysR7qoZWRKUvWQg", format!("a914{hash}87")),
        ] {
            let script = ScriptBuf::from_hex(&script).unwrap();
            assert_eq!(chain.script_of(text), Ok(script.clone()), "{text}");
            assert_eq!(chain.address_of(&script).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_script_without_an_address_there_has_none() {
        for script in ["0014751e76e8199196d454941c45d1b3a323f1433bd6", "51", ""] {
            assert_eq!(DOGECOIN.address_of(&ScriptBuf::from_hex(script).unwrap()), None, "{script}");
        }
    }

    #[test]
    fn addresses_of_other_chains_and_mistyped_ones_are_named_as_such_and_names_are_not() {
        for foreign in [
            "LdrKq4oUQBJtekFvMzEQQyKMZwzBo4AhMA",
            "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
            "nfgbpDkvZRjNPowbSZLXd1XYZh88GXgPyq",
            "ltc1q3ydhr35drlhsa4lecregwwrchnzx9usgwzwkvs",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a",
            "ltcmweb1qqt3edeqln2nrfnlcw50tj704puxqa3q95lxlyn7d0md6g7g8z0e7cq7cadz6n9fng8xrh3gt4y47dxd9mp2vsfxll2wvppcvtt63",
        ] {
            let error = DOGECOIN.script_of(foreign).unwrap_err();
            assert!(matches!(error, AddressError::OtherNetwork { .. }), "{foreign}: {error}");
            assert!(error.to_string().ends_with("this one's look like D…, 9… or A…"), "{error}");
        }
        for typo in [
            "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8ef6f",
            "DGdY6D21dTGeWqNQQjh5NbwFKpjqD8",
            "A3viDLdhx1ZdyNFiDP2XVbkxHngHXSfhZO",
        ] {
            assert!(matches!(DOGECOIN.script_of(typo), Err(AddressError::Mistyped(..))), "{typo}");
        }
        for name in ["", "garage", "DOGE", "Dogecoin1", "rig-7"] {
            assert!(matches!(DOGECOIN.script_of(name), Err(AddressError::NotAnAddress(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,100}") {
            let _ = DOGECOIN.script_of(&text);
        }

        #[test]
        fn an_address_of_any_hash_reads_as_its_script(hash: [u8; 20], is_p2sh: bool) {
            let script = match is_p2sh {
                true => [&[0xa9, 20][..], &hash, &[0x87]].concat(),
                false => [&[0x76, 0xa9, 20][..], &hash, &[0x88, 0xac]].concat(),
            };
            let script = ScriptBuf::from(script);
            for chain in [&DOGECOIN, &DOGECOIN_TESTNET] {
                prop_assert_eq!(chain.script_of(&chain.address_of(&script).unwrap()), Ok(script.clone()));
            }
        }
    }
}
