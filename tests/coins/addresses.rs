//! Addresses of every kind on every network, as the coins' own daemons give them.
//!
//! Litecoin's are of litecoind 0.21.2.1 (Debian's package) without a network, on `-chain=main`, `test` and `regtest`:
//! `getnewaddress "" legacy`, `p2sh-segwit`, `bech32` and `mweb`, and `createmultisig` with `legacy` and `bech32` for
//! P2SH and P2WSH; scripts are `scriptPubKey` of `getaddressinfo` and `validateaddress`. The old spellings and the taproot
//! addresses (of BIP 350's key) are valid to its `validateaddress`. Bitcoin's are those of BIP 173 and of bitcoind,
//! DigiByte's were computed apart from this program.

use bitcoin::ScriptBuf;
use p2pool::work::{Payout, username};
use sharechain::chain::share_rules;
use sharechain::coin::address::{self, AddressError};
use sharechain::coin::{
    ALL, BITCOIN, BITCOIN_REGTEST, BITCOIN_TESTNET, LITECOIN, LITECOIN_REGTEST, LITECOIN_TESTNET, Network,
};
use sharechain::share::Payee;

use crate::files::network;

/// Addresses that can be paid: network, text, script.
const PAYABLE: &[(&Network, &str, &str)] = &[
    (&BITCOIN, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "76a91477bff20c60e522dfaa3350c39b030a5d004e839a88ac"),
    (&BITCOIN, "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", "a914b472a266d0bd89c13706a4132ccfb16f7c3b9fcb87"),
    (&BITCOIN, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        &BITCOIN,
        "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (&BITCOIN_REGTEST, "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "76a914243f1394f44554f4ce3fd68649c19adc483ce92488ac"),
    (&BITCOIN_TESTNET, "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "0014751e76e8199196d454941c45d1b3a323f1433bd6"),
    (
        &BITCOIN_TESTNET,
        "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
        "00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262",
    ),
    (&LITECOIN, "LacqQfZn4UfPwNokFv5fiXrsvssUXnmsrW", "76a914a8ddbb73378d8ef9df57a6a53815b2e574ffe53c88ac"),
    (&LITECOIN, "MWvnducby3MqdzbVnUvzzZWuES4LdmDYRM", "a914fc99b2bbac68fbce11eff2d1267dadd4f49a11fa87"),
    (&LITECOIN, "MQ78cUhPSf8EtiY4pKjbL2Y6gHdAreTvf5", "a914b1c5a6e259bbaf7522a42a781ca8194e6fa9849b87"),
    (&LITECOIN, "ltc1qlz6a3kzhg4nc8ryh25fa7ag8rejnm22m5wwdnk", "0014f8b5d8d8574567838c975513df75071e653da95b"),
    (
        &LITECOIN,
        "ltc1qdkth6a0k4g3xyugnkx0cn8sn3cha8eaelc4pxt24a8wn44zk3xeqez3e5y",
        "00206d977d75f6aa22627113b19f899e138e2fd3e7b9fe2a132d55e9dd3ad45689b2",
    ),
    (&LITECOIN_TESTNET, "mzqacSpTg1sy6ijiSwLcuLGTHvZsfDN25L", "76a914d3f031752f542c8088b6c3314fded88e24e5753588ac"),
    (&LITECOIN_TESTNET, "QbzMG3K89xKnanEYj9AoW2eMi2gfGUh3Ew", "a914a8c4b192f2f92cdd588cef75ea600f7b79089d6387"),
    (&LITECOIN_TESTNET, "QUV9dWhWpfEGP62fbaS4qixadtGnfZiA4A", "a91456760ace4b21a310896961dd73eb43ec44c6626887"),
    (&LITECOIN_TESTNET, "tltc1qlv8yvrjjt6r759auereqfdku6tm3q4aehzperq", "0014fb0e460e525e87ea17bcc8f204b6dcd2f71057b9"),
    (
        &LITECOIN_TESTNET,
        "tltc1qm2267zeshzmtk0gp9nccehand4qn400hse5y39krwnzagydr6zkqxjaf9s",
        "0020da95af0b30b8b6bb3d012cf18cdfb36d413abdf786684896c374c5d411a3d0ac",
    ),
    (&LITECOIN_REGTEST, "n2FGgndpWUyWKvRqH61LuXbZgqsmKhwCuh", "76a914e36356c27441103ba36849e24d09208bf61a4eb988ac"),
    (&LITECOIN_REGTEST, "QVpHu4wi325Nu122pGvCBsmTXLNckMYQ2x", "a914650cf924ddc196694259c45a72d3a114412d1b5c87"),
    (&LITECOIN_REGTEST, "QhYKhBn9jvXrSMyAtuSHtLhhU6NDgLz2HL", "a914e5a95363a1694e7476b59f4f8eb2b702d283444e87"),
    (&LITECOIN_REGTEST, "rltc1qj3nukztlgyxyjepxryae5dl8uv6l2t45dxjrts", "00149467cb097f410c496426193b9a37e7e335f52eb4"),
    (
        &LITECOIN_REGTEST,
        "rltc1qkf9wxj27jf6yw6wkcvuudecl09p07aavezr9s2j0k4e37rjuvncqdtwzhw",
        "0020b24ae3495e92744769d6c339c6e71f7942ff77acc886582a4fb5731f0e5c64f0",
    ),
];

/// P2SH addresses in a spelling that the daemon still accepts, and in the one of today.
const OLD_SPELLINGS: &[(&Network, &str, &str)] = &[
    (&LITECOIN, "3HtzJbHRVYGp6DGAiSkFWPHhMb2is4Hn8k", "MQ78cUhPSf8EtiY4pKjbL2Y6gHdAreTvf5"),
    (&LITECOIN_TESTNET, "2N18PWVqGoZBBEuGcyUQ3m2X9VVpxjPtSww", "QUV9dWhWpfEGP62fbaS4qixadtGnfZiA4A"),
    (&LITECOIN_REGTEST, "2NEBZaAuuipUmJBD8GoQGoeGGKhvPkSnzwx", "QhYKhBn9jvXrSMyAtuSHtLhhU6NDgLz2HL"),
];

/// Addresses of the extension block.
const MWEB: &[(&Network, &str)] = &[
    (
        &LITECOIN,
        "ltcmweb1qqt3edeqln2nrfnlcw50tj704puxqa3q95lxlyn7d0md6g7g8z0e7cq7cadz6n9fng8xrh3gt4y47dxd9mp2vsfxll2wvppcvtt63\
         6mzsvqvuhjn3",
    ),
    (
        &LITECOIN_TESTNET,
        "tmweb1qqf9vgsfyrkpfjlzw8fhgv69c0szjawq08qvqtnk38laz5n6sgrxqsqn43x330hzypmcn29uhjrmvc9sjunuwncd3gdg2t9u4273z3qr\
         3jug4dg6d",
    ),
    (
        &LITECOIN_REGTEST,
        "tmweb1qq0352ak0n4ecu7yj2r7cj8rgp9t0rru77djmee8x4p79duurnxzp5qhqx0wg0dpq0ap9v62c4a48zxc6ju0lj0d4urql62l00c726hf\
         9gqxkw5js",
    ),
];

/// Taproot addresses.
const TAPROOT: &[(&Network, &str)] = &[
    (&BITCOIN, "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
    (&LITECOIN, "ltc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpj6zg2"),
    (&LITECOIN_TESTNET, "tltc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq2a7uhl"),
    (&LITECOIN_REGTEST, "rltc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqsyzyjh"),
];

/// True if shares of `network` may pay `text`, which its peers decide as the reference does.
fn shares_can_pay(text: &str, network: &Network) -> bool {
    Payee::from_address(text, &share_rules(network)).is_ok()
}

/// Reason why a miner of this name is refused. A mere name is not: its work pays the node.
fn refusal(name: &str, network: &Network) -> Option<String> {
    let (_, node, _) = PAYABLE.iter().find(|(of, ..)| of.name == network.name).unwrap();
    let node = Payout::to_address(node, network).unwrap();
    username::parse(name, network, &node).err().map(|refusal| refusal.0)
}

#[test]
fn every_kind_pays_the_script_that_the_coins_daemon_says_and_so_do_shares() {
    for (network, text, script) in PAYABLE {
        let script = ScriptBuf::from_hex(script).unwrap();
        assert_eq!(address::script_of(text, &network.parent), Ok(script.clone()), "{text}");
        assert_eq!(address::of_script(&script, &network.parent).as_deref(), Some(*text));
        let payee = Payee::from_address(text, &share_rules(network)).unwrap();
        assert_eq!(payee.newest_script(), Ok(script.as_bytes()), "{text}");
        if script.is_p2wsh() && network.newest_version >= 36 {
            // Shares of version 36 hold 20 bytes.
            assert!(Payout::to_address(text, network).unwrap_err().to_string().contains("P2WSH"), "{text}");
            continue;
        }
        let payout = Payout::to_address(text, network).unwrap();
        assert_eq!((&*payout.address, payout.script), (*text, script));
        assert_eq!(refusal(&format!("{text}.rig1+0.5"), network), None);
    }
}

#[test]
fn an_address_is_paid_on_the_networks_that_share_its_prefix_and_is_named_foreign_on_all_others() {
    for (own, text, script) in PAYABLE {
        for other in ALL {
            let (ours, theirs) = (&own.parent, &other.parent);
            let script = ScriptBuf::from_hex(script).unwrap();
            let shares_prefix = if script.is_p2pkh() {
                ours.address_version == theirs.address_version
            } else if script.is_p2sh() {
                ours.address_p2sh_version == theirs.address_p2sh_version
            } else {
                ours.human_readable_part == theirs.human_readable_part
            };
            let read = address::script_of(text, theirs);
            assert_eq!(shares_can_pay(text, other), shares_prefix, "{text} in shares of {}", other.name);
            if shares_prefix {
                assert_eq!(read, Ok(script));
            } else {
                let is_named =
                    matches!(read, Err(AddressError::OtherNetwork { .. } | AddressError::OldSpelling { .. }));
                assert!(is_named, "{text} on {}: {read:?}", other.name);
            }
        }
    }
}

#[test]
fn an_old_spelling_is_refused_with_the_new_one_since_shares_that_have_it_are_void() {
    for (network, old, new) in OLD_SPELLINGS {
        assert!(!shares_can_pay(old, network), "the reference refuses {old}");
        assert!(shares_can_pay(new, network));
        if network.paid_merged_chain().is_some_and(|chain| chain.script_of(old).is_ok()) {
            // Also an address of the merged chain, whose script it is on both.
            let node = Payout::to_address(new, network).unwrap();
            assert_eq!(&*username::parse(old, network, &node).unwrap().payout.address, *new);
            continue;
        }
        let reason = refusal(&format!("{old}.rig1"), network).unwrap();
        assert!(reason.contains(&format!("use `{new}`")) && reason.contains(old), "{reason}");
    }
}

#[test]
fn an_address_of_the_extension_block_is_refused_with_the_reason_and_never_taken_for_a_name() {
    for (network, text) in MWEB {
        assert!(!shares_can_pay(text, network));
        for name in [(*text).to_owned(), text.to_ascii_uppercase(), format!("{text}.rig1+0.5"), format!("{text}x")] {
            let reason = refusal(&name, network).unwrap();
            let part = network.parent.human_readable_part;
            assert!(reason.contains("MWEB") && reason.contains(&format!("use a {part}1q… address")), "{reason}");
        }
        assert!(refusal(text, &BITCOIN).is_some());
    }
    for name in ["ltcmweb1", "ltcmweb1rig", "tmweb1-garage-rig-number-3"] {
        assert_eq!(refusal(name, &LITECOIN), None, "{name} is a mere name");
    }
}

#[test]
fn taproot_is_refused_with_the_reason_on_every_network() {
    for (network, text) in TAPROOT {
        assert!(!shares_can_pay(text, network));
        let reason = refusal(text, network).unwrap();
        assert!(reason.contains("taproot") && reason.contains(network.parent.human_readable_part), "{reason}");
    }
}

#[test]
fn a_typo_in_an_address_pays_nobody() {
    for (network, text, _) in PAYABLE {
        // Behind the human-readable part and the separator, or the first characters of base58.
        let start = text.find("1q").filter(|_| text.len() > 36).map_or(3, |at| at + 2);
        for at in start..text.len() {
            for with in ['q', 'p', '7', 'z'] {
                let mut typo = (*text).to_owned();
                typo.replace_range(at..=at, &with.to_string());
                if typo != *text {
                    let read = address::script_of(&typo, &network.parent);
                    assert!(matches!(read, Err(AddressError::Mistyped(..))), "{typo} on {}: {read:?}", network.name);
                }
            }
        }
    }
}

#[test]
fn a_coin_by_file_has_addresses_of_its_own() {
    for file in ["docs/networks/digibyte.toml", "docs/networks/dgb.toml"] {
        let digibyte = network(file);
        let read = |text: &str| address::script_of(text, &digibyte.parent).map(|script| script.to_hex_string());
        let hash = "b1c5a6e259bbaf7522a42a781ca8194e6fa9849b";
        assert_eq!(read("DMM4vJjdF3riY3kLKw5DdX6N6CUJexPPrF"), Ok(format!("76a914{hash}88ac")));
        assert_eq!(read("SdVyQta8g19dXMMC8n4jdf5KrqySBL2n9C"), Ok(format!("a914{hash}87")));
        let old = read("3HtzJbHRVYGp6DGAiSkFWPHhMb2is4Hn8k").unwrap_err().to_string();
        assert!(old.contains("use `SdVyQta8g19dXMMC8n4jdf5KrqySBL2n9C`"), "{old}");
        let taproot = read("dgb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqlussds").unwrap_err();
        assert!(taproot.to_string().contains("use a dgb1q… address"), "{taproot}");
        let foreign = read("LacqQfZn4UfPwNokFv5fiXrsvssUXnmsrW").unwrap_err();
        assert!(foreign.to_string().contains("look like D…, S… or dgb1q…"), "{foreign}");
        for typo in [
            "DMM4vJjdF3riY3kLKw5DdX6N6CUJexPPrG",
            "SdVyQta8g19dXMMC8n4jdf5KrqySBL2n9D",
            "dgb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqlussdt",
        ] {
            assert!(matches!(read(typo), Err(AddressError::Mistyped(..))), "{typo}");
        }
    }
}
