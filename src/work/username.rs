//! Parses `ADDRESS[.worker][/share difficulty][+pseudo-share difficulty]` (`_` also starts a worker, as in the old
//! node), and the same options in passwords: `d=`, `fd=` and `sd=`. On networks with a merged chain, a second address may
//! follow the first; so it may in the operator's own payout.

use sharechain::coin::Network;
use sharechain::coin::address::AddressError;
use std::borrow::Cow;
use stratum::printable::{Printable, escaped};
use stratum::{Difficulty, Refusal, Worker};

use super::payout::Origin;
use super::{Payout, PayoutError};

mod pair;

/// Maximum length of a name; a bech32 address with a worker and two difficulties has 120 characters.
pub const NAME_CHARACTERS_MAX: usize = 255;

/// Parses a user name. A name that is no address mines for `default`, as P2Pool does.
///
/// # Errors
/// An address that cannot be paid, or an invalid difficulty, each with the reason.
pub fn parse(name: &str, network: &Network, default: &Payout) -> Result<Worker<Payout>, Refusal> {
    let name = percent_decoded(name);
    let name = name.trim();
    if name.chars().count() > NAME_CHARACTERS_MAX {
        return Err(Refusal(format!("the name is longer than {NAME_CHARACTERS_MAX} characters")));
    }
    let (user, wishes) = split_wishes(name);
    let chain = network.paid_merged_chain();
    let (mut difficulty, mut share_difficulty, mut by_number) = (None, None, Vec::new());
    for (symbol, number) in &wishes {
        if let Some(address) = pair::by_number(number).filter(|_| chain.is_some() && *symbol == '/') {
            by_number.push(address);
            continue;
        }
        let wish = number.parse().ok().and_then(Difficulty::new).ok_or_else(|| {
            let number = escaped(number);
            Refusal(format!("`{symbol}{number}` is not a difficulty: a number above 0 is wanted"))
        })?;
        // The last one of each kind wins.
        *(if *symbol == '+' { &mut difficulty } else { &mut share_difficulty }) = Some(wish);
    }
    let Named { account, worker, payout, notice } = match chain {
        Some(chain) => pair::read(user, &by_number, network, chain, default)?,
        None => read(user, network, default)?,
    };
    let payout = Payout { share_difficulty, ..payout };
    // The payout comes from the name as it was sent; only what is shown is escaped.
    Ok(Worker { name: Printable::new(&statistics_name(account, worker)), payout, difficulty, notice })
}

/// Parses the operator's own payout: an address, and on networks with a merged chain one of that chain after it, if
/// another than the converted one is wanted. A text that is neither is refused, since what it says decides who is paid.
///
/// # Errors
/// The reason why it cannot be used.
pub fn operators_payout(text: &str, network: &Network) -> Result<Payout, Refusal> {
    match network.paid_merged_chain() {
        Some(chain) => pair::operators(text, network, chain),
        None => Payout::to_address(text, network).map_err(|error| Refusal(error.to_string())),
    }
}

/// What a name says besides difficulties.
#[derive(Debug)]
struct Named<'a> {
    /// Address or mere name, as sent.
    account: &'a str,
    worker: Option<&'a str>,
    payout: Payout,
    /// Message for the miner's owner.
    notice: Option<String>,
}

/// Reads the part `user` of a name before its difficulties, on a network without a merged chain.
fn read<'a>(user: &'a str, network: &Network, default: &Payout) -> Result<Named<'a>, Refusal> {
    let (account, worker) = split_worker(user);
    match Payout::to_address(account, network) {
        Ok(payout) => Ok(Named { account, worker, payout, notice: None }),
        Err(PayoutError::Address(AddressError::NotAnAddress(_))) => Ok(mere_name(user, default)),
        Err(error) => Err(Refusal(escaped(&error.to_string()).into_owned())),
    }
}

/// A name that is no address: its work pays `default`, whose entry on the merged chain comes with it.
fn mere_name<'a>(user: &'a str, default: &Payout) -> Named<'a> {
    let (account, worker) = split_worker(user);
    let notice = format!("`{}` is not an address: your work pays this node's own, {default}", escaped(account));
    Named { account, worker, payout: default.clone(), notice: Some(notice) }
}

/// Checks the address for this network's merged chain among `addresses`, given by chain numbers, as
/// [`with_merged_addresses`] does.
///
/// # Errors
/// The reason why it cannot be used.
pub fn check_merged_addresses(addresses: &[(u32, Box<str>)], network: &Network) -> Result<(), Refusal> {
    pair::merged_script(addresses, network).map(|_| ())
}

/// Replaces the worker's address on the merged chain by the one among `addresses`, given by chain numbers
/// (`mining.set_merged_addresses`). `default` is the node's own payout, which no miner may change.
///
/// # Errors
/// The reason why it cannot be used.
pub fn with_merged_addresses(
    worker: Worker<Payout>,
    addresses: &[(u32, Box<str>)],
    network: &Network,
    default: &Payout,
) -> Result<Worker<Payout>, Refusal> {
    let (script, chain) = pair::merged_script(addresses, network)?;
    // Else the share would pay the node here and the miner there (protocol-v36 trap 11).
    if worker.payout.script == default.script {
        let text = format!("your work pays this node's own address, {default}: use yours as the user name");
        return Err(Refusal(text));
    }
    let chosen = worker.payout.merged.as_ref().filter(|merged| merged.origin == Origin::Explicit).cloned();
    let payout = worker.payout.with_merged(&script, chain);
    let replaced = chosen.filter(|chosen| payout.merged.as_ref() != Some(chosen));
    let notice = replaced.zip(payout.merged.as_ref()).map(|(old, new)| {
        let (symbol, merged_symbol) = (network.parent.symbol, chain.symbol);
        format!("{merged_symbol} will go to {}, not to {}; {symbol} will go to {payout}", new.address, old.address)
    });
    Ok(Worker { payout, notice, ..worker })
}

/// Names by which a user name may be known, without its difficulties: with its worker, and the account (an address or
/// a mere name) alone, which are the same without a worker. If it has two addresses, either of them is an account, too.
pub fn accounts(name: &str) -> Vec<String> {
    let name = percent_decoded(name);
    let name = name.trim();
    let user = name.find(['+', '/']).map_or(name, |end| &name[..end]);
    let (account, worker) = split_worker(user);
    let whole = [statistics_name(account, worker), account.to_owned()];
    whole.into_iter().chain(pair::accounts(user)).collect()
}

fn statistics_name(address: &str, worker: Option<&str>) -> String {
    worker.map_or_else(|| address.to_owned(), |worker| format!("{address}.{worker}"))
}

/// Returns `password` without the difficulties at its end that [`with_password`] reads.
pub fn without_difficulties(password: &str) -> String {
    let decoded = percent_decoded(password);
    let mut rest = &*decoded;
    while let Some((before, last)) = rest.rsplit_once(PARTS_OF_PASSWORD)
        && last.split_once('=').is_some_and(|(key, number)| is_wish(key) && difficulty(number).is_some())
    {
        rest = before;
    }
    rest.to_owned()
}

/// Separators of the parts of a password.
const PARTS_OF_PASSWORD: [char; 4] = [',', ';', '&', ' '];

/// True if `key` stands for a difficulty in a password.
fn is_wish(key: &str) -> bool {
    ["d", "diff", "fd", "sd"].iter().any(|known| key.trim().eq_ignore_ascii_case(known))
}

fn difficulty(number: &str) -> Option<Difficulty> {
    number.trim().parse().ok().and_then(Difficulty::new)
}

/// Adds difficulties from `password` that the name left out: `d=` or `fd=` for a fixed difficulty, `sd=` for that of
/// shares. Marketplaces let their customers set little else. The rest of a password is ignored.
pub fn with_password(mut worker: Worker<Payout>, password: &str) -> Worker<Payout> {
    let password = percent_decoded(password);
    let wish = |keys: &[&str]| {
        let found = password.split(PARTS_OF_PASSWORD).filter_map(|part| part.split_once('=')).filter(|(key, _)| {
            let key = key.trim();
            keys.iter().any(|wanted| key.eq_ignore_ascii_case(wanted))
        });
        // The last one that is a difficulty wins, as in names.
        found.rev().find_map(|(_, number)| difficulty(number))
    };
    worker.difficulty = worker.difficulty.or_else(|| wish(&["fd"])).or_else(|| wish(&["d", "diff"]));
    worker.payout.share_difficulty = worker.payout.share_difficulty.or_else(|| wish(&["sd"]));
    worker
}

/// Decodes names that firmware encodes as part of a URL: `%2F` for `/`, `%2B` for `+`. Anything else stays as it is.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = code.filter(|code| code.iter().all(u8::is_ascii_hexdigit)).and_then(|code| {
            let mut byte = [0];
            hex::decode_to_slice(code, &mut byte).ok().map(|()| byte[0])
        });
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Splits off the `+number` and `/number` parts, in any order.
fn split_wishes(name: &str) -> (&str, Vec<(char, String)>) {
    let end = name.find(['+', '/']).unwrap_or(name.len());
    let (user, mut rest) = name.split_at(end);
    let mut wishes: Vec<(char, String)> = Vec::new();
    while let Some(symbol) = rest.chars().next() {
        let after = &rest[1..];
        let end = after.find(['+', '/']).unwrap_or(after.len());
        let number = &after[..end];
        match wishes.last_mut() {
            // The plus in `+1e+3` belongs to the exponent.
            Some((_, before)) if symbol == '+' && awaits_exponent(before) => {
                before.push('+');
                before.push_str(number);
            }
            _ => wishes.push((symbol, number.to_owned())),
        }
        rest = &after[end..];
    }
    (user, wishes)
}

fn awaits_exponent(number: &str) -> bool {
    number.strip_suffix(['e', 'E']).is_some_and(|mantissa| mantissa.parse::<f64>().is_ok())
}

/// Splits the worker off the address, at the first separator of either kind. The old node looked for a `_` first, and
/// paid itself for `ADDRESS.rig_2`.
fn split_worker(user: &str) -> (&str, Option<&str>) {
    match user.split_once(['.', '_']) {
        Some((address, worker)) => (address, (!worker.is_empty()).then_some(worker)),
        None => (user, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sharechain::coin::BITCOIN;

    const ADDRESS: &str = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";

    fn default() -> Payout {
        Payout::to_address("3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy", &BITCOIN).unwrap()
    }

    fn parsed(name: &str) -> Worker<Payout> {
        parse(name, &BITCOIN, &default()).unwrap()
    }

    fn wishes(name: &str) -> (Option<f64>, Option<f64>) {
        let worker = parsed(name);
        (worker.difficulty.map(Difficulty::get), worker.payout.share_difficulty.map(Difficulty::get))
    }

    #[test]
    fn an_address_with_and_without_worker() {
        for (name, statistics_name) in [
            (ADDRESS.to_owned(), ADDRESS.to_owned()),
            (format!(" {ADDRESS} "), ADDRESS.to_owned()),
            (format!("{ADDRESS}.rig1"), format!("{ADDRESS}.rig1")),
            (format!("{ADDRESS}_rig1"), format!("{ADDRESS}.rig1")),
            (format!("{ADDRESS}_rig.1"), format!("{ADDRESS}.rig.1")),
            (format!("{ADDRESS}.rig_2"), format!("{ADDRESS}.rig_2")),
            (format!("{ADDRESS}._"), format!("{ADDRESS}._")),
            (format!("{ADDRESS}.rig1.x"), format!("{ADDRESS}.rig1.x")),
            (format!("{ADDRESS}."), ADDRESS.to_owned()),
            (format!("{ADDRESS}.rig1+5/7"), format!("{ADDRESS}.rig1")),
        ] {
            let worker = parsed(&name);
            assert_eq!(&*worker.name, statistics_name, "{name}");
            assert_eq!(&*worker.payout.address, ADDRESS, "{name}");
        }
    }

    #[test]
    fn difficulties_in_either_order_with_fractions_and_exponents() {
        for (suffix, difficulty, share_difficulty) in [
            ("", None, None),
            ("+1000", Some(1000.0), None),
            ("/1000", None, Some(1000.0)),
            ("/1000+2.5", Some(2.5), Some(1000.0)),
            ("+0.001/1e6", Some(0.001), Some(1e6)),
            ("+1e-3", Some(0.001), None),
            ("+1e+3", Some(1000.0), None),
            ("+1e+3+4", Some(4.0), None),
            ("+1+2/3/4", Some(2.0), Some(4.0)),
        ] {
            assert_eq!(wishes(&format!("{ADDRESS}{suffix}")), (difficulty, share_difficulty), "{suffix}");
            assert_eq!(wishes(&format!("{ADDRESS}.w{suffix}")), (difficulty, share_difficulty), ".w{suffix}");
        }
    }

    #[test]
    fn what_is_no_difficulty_is_refused_by_name() {
        for suffix in ["+", "/", "+abc", "/-1", "+0", "+nan", "+inf", "/1e999", "+1e"] {
            let refusal = parse(&format!("{ADDRESS}{suffix}"), &BITCOIN, &default()).unwrap_err();
            assert!(refusal.0.contains(&format!("`{suffix}`")), "{suffix}: {refusal}");
        }
    }

    #[test]
    fn names_that_firmware_encoded_are_understood() {
        assert_eq!(wishes(&format!("{ADDRESS}%2Erig%2B5%2f7")), (Some(5.0), Some(7.0)));
        assert_eq!(&*parsed("100%").name, "100%");
        assert_eq!(&*parsed("%zz%4").name, "%zz%4");
        assert_eq!(&*parsed("%ff").name, "%ff", "what is no text stays as it was");
    }

    #[test]
    fn passwords_may_wish_what_names_did_not() {
        let wishes = |name: &str, password: &str| {
            let worker = with_password(parsed(name), password);
            (worker.difficulty.map(Difficulty::get), worker.payout.share_difficulty.map(Difficulty::get))
        };
        assert_eq!(wishes(ADDRESS, "x"), (None, None));
        assert_eq!(wishes(ADDRESS, "d=1024"), (Some(1024.0), None));
        assert_eq!(wishes(ADDRESS, "x,D=0.5;sd=2e6"), (Some(0.5), Some(2e6)));
        assert_eq!(wishes(ADDRESS, "diff=4 fd=8"), (Some(8.0), None));
        assert_eq!(wishes(ADDRESS, "x%2Cd%3D16"), (Some(16.0), None));
        assert_eq!(wishes(&format!("{ADDRESS}+1/2"), "d=3,sd=4"), (Some(1.0), Some(2.0)));
        for free_text in ["d=", "d=abc", "d=-1", "d=0", "fd=inf", "hunter2=d", "d"] {
            assert_eq!(wishes(ADDRESS, free_text), (None, None), "{free_text}");
        }
    }

    #[test]
    fn an_account_is_a_user_name_without_worker_and_difficulties() {
        for (name, accounts_of_name) in [
            ("garage", ["garage", "garage"]),
            (" garage.rig1+8/9 ", ["garage.rig1", "garage"]),
            ("garage_rig.1", ["garage.rig.1", "garage"]),
            ("garage/1000", ["garage", "garage"]),
            ("garage%2Erig%2B5", ["garage.rig", "garage"]),
            ("two words, or more", ["two words, or more", "two words, or more"]),
            ("", ["", ""]),
        ] {
            assert_eq!(accounts(name)[..], accounts_of_name, "{name}");
            if let Ok(worker) = parse(name, &BITCOIN, &default()) {
                assert_eq!(accounts(name)[0], *worker.name, "it is the name in statistics");
            }
        }
    }

    #[test]
    fn a_password_may_be_followed_by_difficulties() {
        for (given, password) in [
            ("secret", "secret"),
            ("secret,d=1024", "secret"),
            ("secret;D=1;sd=2e6", "secret"),
            ("secret%2Cd%3D16", "secret"),
            ("two words d=4", "two words"),
            ("two words", "two words"),
            ("a=b,c", "a=b,c"),
            ("secret,d=", "secret,d="),
            ("secret,x=1", "secret,x=1"),
            ("d=1024", "d=1024"),
            ("", ""),
        ] {
            assert_eq!(without_difficulties(given), password, "{given}");
        }
    }

    #[test]
    fn a_mere_name_mines_for_the_node_and_keeps_its_name() {
        let worker = parsed("garage.rig1+8");
        assert_eq!(&*worker.name, "garage.rig1");
        assert_eq!(worker.payout, default());
        assert_eq!(worker.difficulty.map(Difficulty::get), Some(8.0));
        assert_eq!(parsed("").payout, default());
        assert!(worker.notice.unwrap().contains("garage"));
        assert_eq!(parsed(ADDRESS).notice, None);
    }

    #[test]
    fn an_address_that_cannot_be_paid_is_refused_with_the_reason() {
        let refused = |name: &str| parse(name, &BITCOIN, &default()).unwrap_err().0;
        assert!(refused("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3.rig").contains("mistyped"));
        assert!(refused("mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn+5").contains("another network"));
        assert!(refused("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0").contains("taproot"));
    }

    #[test]
    fn a_name_is_stored_without_markup_and_escape_codes_and_pays_the_address_all_the_same() {
        for (worker, shown) in [
            ("a\n\u{1b}]0;x\u{7}b", r"a\n\u{1b}]0;x\u{7}b"),
            ("<img src=x>", r"\u{3c}img src=x\u{3e}"),
            ("a\u{202e}b\u{200b}", r"a\u{202e}b\u{200b}"),
            ("%3Cb%0A", r"\u{3c}b"),
            ("Küche", "Küche"),
        ] {
            let parsed = parsed(&format!("{ADDRESS}.{worker}"));
            assert_eq!(&*parsed.name, format!("{ADDRESS}.{shown}"), "{worker}");
            assert_eq!(&*parsed.payout.address, ADDRESS);
        }
        let refused = |name: &str| parse(name, &BITCOIN, &default()).unwrap_err().0;
        assert!(!refused(&format!("{ADDRESS}+\u{1b}")).contains('\u{1b}'));
        assert!(!parsed("\u{1b}[2J").notice.unwrap().contains('\u{1b}'));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert!(parse(&"x".repeat(NAME_CHARACTERS_MAX + 1), &BITCOIN, &default()).is_err());
    }

    proptest! {
        #[test]
        fn no_name_makes_it_panic(name in "\\PC{0,300}") {
            let _ = parse(&name, &BITCOIN, &default());
        }

        #[test]
        fn whatever_follows_a_good_address_is_never_paid_to_another(suffix in "[._/+][a-z0-9._/+]{0,30}") {
            if let Ok(worker) = parse(&format!("{ADDRESS}{suffix}"), &BITCOIN, &default()) {
                prop_assert_eq!(&*worker.payout.address, ADDRESS);
            }
        }
    }
}
