//! User names on networks with a merged chain: `ADDRESS,MERGED_ADDRESS[.worker]`, in either order, one address alone, or
//! `ADDRESS/98:MERGED_ADDRESS` with the number of the chain (protocol-v36 section 8.6).

use bitcoin::ScriptBuf;
use sharechain::coin::address::AddressError;
use sharechain::coin::{MergedChain, Network};
use stratum::Refusal;
use stratum::printable::escaped;

use super::{Named, mere_name, split_worker, statistics_name};
use crate::work::{Payout, PayoutError};

/// Characters between two addresses; some firmware cannot type a comma.
const SEPARATORS: [char; 4] = [',', '|', ';', ' '];

/// Minimum length of a text that may have been meant as an address: a human-readable part of two letters, a separator,
/// and the eleven digits from which a text looks like bech32.
const ADDRESS_CHARACTERS_MIN: usize = 14;

/// Minimum length of an address, of a version byte and a hash in base58.
const BASE58_CHARACTERS_MIN: usize = 25;

/// Minimum length of a text that looks like the beginning of an address: firmware cuts long names.
const CUT_CHARACTERS_MIN: usize = 16;

/// Part of a user name between separators.
#[derive(Debug)]
struct Piece<'a> {
    /// Offset of its first byte in the user name.
    start: usize,
    /// Text before its worker.
    text: &'a str,
    worker: Option<&'a str>,
    is_address: bool,
}

/// Addresses of a user name.
#[derive(Debug, Default)]
struct Found<'a> {
    parent: Option<(&'a str, Payout)>,
    merged: Option<(&'a str, ScriptBuf)>,
    /// True if the merged chain's came first.
    is_swapped: bool,
    /// Numbers of chains that are not paid here.
    other_chains: Vec<u32>,
}

/// Address in a text, if there is one.
enum Kind {
    Parent(Payout),
    Merged(ScriptBuf),
    Name,
}

/// Splits `98:ADDRESS` into the chain's number and the address; `None` for another form, such as a difficulty.
pub(super) fn by_number(text: &str) -> Option<(u32, &str)> {
    let (number, address) = text.split_once(':')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_number)?, address))
}

/// Reads the part `user` of a name before its difficulties, and addresses given `by_number`. A name without addresses
/// mines for `default`.
///
/// # Errors
/// A text that was most likely meant as an address and cannot be paid, or two addresses of one chain.
pub(super) fn read<'a>(
    user: &'a str,
    by_number: &[(u32, &'a str)],
    network: &Network,
    chain: &MergedChain,
    default: &Payout,
) -> Result<Named<'a>, Refusal> {
    let mut found = Found::default();
    let mut pieces = Vec::new();
    for (start, piece) in split(user) {
        let (text, worker) = split_worker(piece);
        let is_address = found.take(text, network, chain)?;
        pieces.push(Piece { start, text, worker, is_address });
    }
    let last = pieces.iter().rposition(|piece| piece.is_address);
    let mut worker = match last.map(|last| &pieces[last]) {
        // All that follows the last address belongs to its worker.
        Some(Piece { start, text, worker: Some(_), .. }) => {
            Some(user[start + text.len() + 1..].trim()).filter(|worker| !worker.is_empty())
        }
        _ => pieces.iter().rev().find_map(|piece| piece.worker),
    };
    for (number, text) in by_number {
        let (text, worker_there) = split_worker(text);
        found.take_by_number(*number, text, chain)?;
        worker = worker_there.or(worker);
    }
    if found.parent.is_none() && found.merged.is_none() {
        return Ok(mere_name(user, default));
    }
    let of_worker = last.filter(|last| pieces[*last].worker.is_some());
    let names: Vec<&str> = pieces
        .iter()
        .take(of_worker.map_or(pieces.len(), |last| last + 1))
        .filter(|piece| !piece.is_address && !piece.text.is_empty())
        .map(|piece| piece.text)
        .collect();
    if let Some(cut) = names.iter().find(|name| is_cut(name)) {
        let problem = format!("`{cut}` is not an address, perhaps a part of one: some firmware cuts long names");
        return Err(Refusal(problem));
    }
    found.into_named(&names, worker, network, chain)
}

/// Reads the operator's own payout: `ADDRESS` or `ADDRESS,MERGED_ADDRESS`, in every form that user names may have.
///
/// # Errors
/// A part is no address, there are two of one chain, or none of the parent's.
pub(super) fn operators(text: &str, network: &Network, chain: &MergedChain) -> Result<Payout, Refusal> {
    let mut parts = text.split('/');
    let mut found = Found::default();
    let pieces = parts.next().unwrap_or_default().split(SEPARATORS).map(str::trim).filter(|piece| !piece.is_empty());
    for piece in pieces {
        if !found.take(piece, network, chain)? {
            return Err(refusal(&PayoutError::from(AddressError::NotAnAddress(piece.to_owned()))));
        }
    }
    for part in parts {
        let (number, address) = by_number(part.trim()).ok_or_else(|| {
            let (part, number) = (escaped(part), chain.chain_id);
            Refusal(format!("`/{part}` is not the address of a chain by its number, /{number}:ADDRESS"))
        })?;
        if number != chain.chain_id {
            return Err(Refusal(format!("chain {number} is not paid by this pool, only {}", chain.chain_id)));
        }
        found.take_by_number(number, address, chain)?;
    }
    let (_, payout) = found.parent.ok_or_else(|| {
        let (symbol, merged_symbol) = (network.parent.symbol, chain.symbol);
        Refusal(format!("the {symbol} address is missing: {symbol}_ADDRESS,{merged_symbol}_ADDRESS"))
    })?;
    Ok(match found.merged {
        Some((_, script)) => payout.with_merged(&script, chain),
        None => payout,
    })
}

impl<'a> Found<'a> {
    /// Takes `text` if it is an address; returns false if it is a mere name.
    fn take(&mut self, text: &'a str, network: &Network, chain: &MergedChain) -> Result<bool, Refusal> {
        match kind_of(text, network, chain, self.parent.is_some())? {
            Kind::Parent(payout) => {
                if let Some((other, _)) = self.parent.as_ref().filter(|(_, other)| other.script != payout.script) {
                    return Err(two_addresses(network.parent.symbol, other, text));
                }
                self.is_swapped = self.merged.is_some() && self.parent.is_none();
                self.parent.get_or_insert((text, payout));
            }
            Kind::Merged(script) => self.take_merged(text, script, chain)?,
            Kind::Name => return Ok(false),
        }
        Ok(true)
    }

    fn take_merged(&mut self, text: &'a str, script: ScriptBuf, chain: &MergedChain) -> Result<(), Refusal> {
        if let Some((other, _)) = self.merged.as_ref().filter(|(_, other)| *other != script) {
            return Err(two_addresses(chain.symbol, other, text));
        }
        self.merged.get_or_insert((text, script));
        Ok(())
    }

    /// Takes `text` as an address on the chain with this number.
    fn take_by_number(&mut self, number: u32, text: &'a str, chain: &MergedChain) -> Result<(), Refusal> {
        if number != chain.chain_id {
            self.other_chains.push(number);
            return Ok(());
        }
        let script = chain.script_of(text).map_err(|error| not_on(chain, &error))?;
        self.take_merged(text, script, chain)
    }

    /// Combines the addresses. `names` are the texts that are none.
    fn into_named(
        self,
        names: &[&'a str],
        worker: Option<&'a str>,
        network: &Network,
        chain: &MergedChain,
    ) -> Result<Named<'a>, Refusal> {
        let (symbol, merged_symbol) = (network.parent.symbol, chain.symbol);
        let form = format!("{symbol}_ADDRESS,{merged_symbol}_ADDRESS");
        let (account, payout, mut notices) = match (self.parent, self.merged) {
            (Some((text, payout)), Some((_, script))) => (text, payout.with_merged(&script, chain), Vec::new()),
            (Some((text, payout)), None) => {
                let notice = conversion(&payout, &form);
                (text, payout, notice.into_iter().collect())
            }
            (None, Some((text, script))) => {
                let payout = Payout::to_merged(&script, chain, network).map_err(|error| refusal(&error))?;
                let same = if script.is_p2sh() { "script" } else { "key" };
                let notice = format!(
                    "{symbol} will go to {payout}, which has the same {same} as {text}: for another, use {form}"
                );
                (names.first().copied().unwrap_or(text), payout, vec![notice])
            }
            (None, None) => return Err(Refusal("the name has no address".to_owned())),
        };
        if self.is_swapped {
            let merged = payout.merged.as_ref().map_or("", |merged| &merged.address);
            notices.push(format!("{symbol} will go to {payout}, {merged_symbol} to {merged}: they were swapped"));
        }
        notices.extend(names.iter().take(1).map(|name| format!("`{}` is not an address", escaped(name))));
        notices.extend(self.other_chains.first().map(|number| format!("chain {number} is not paid by this pool")));
        let notice = (!notices.is_empty()).then(|| notices.join("; "));
        Ok(Named { account, worker, payout, notice })
    }
}

/// Notice of the address on the merged chain that `payout` has for want of one in the name; `form` is that of a name
/// with one.
fn conversion(payout: &Payout, form: &str) -> Option<String> {
    let entry = payout.merged.as_ref()?;
    let (symbol, address) = (entry.symbol, &entry.address);
    Some(if entry.is_unsafe() {
        format!(
            "warning: {symbol} will go to {address}, from which anybody can take them if {payout} is a SegWit wallet's: \
             use {form}"
        )
    } else {
        format!("{symbol} will go to {address}, which has the same key as {payout}: for another, use {form}")
    })
}

/// Finds the address that `text` is. If it is none, but was most likely meant as one, it is refused for the reason of the
/// chain that it was meant for: the merged one if `is_merged_wanted`.
fn kind_of(text: &str, network: &Network, chain: &MergedChain, is_merged_wanted: bool) -> Result<Kind, Refusal> {
    if text.len() < ADDRESS_CHARACTERS_MIN {
        return Ok(Kind::Name);
    }
    let of_merged = match chain.script_of(text) {
        Ok(script) => return Ok(Kind::Merged(script)),
        Err(error) => error,
    };
    let of_parent = match Payout::to_address(text, network) {
        Ok(payout) => return Ok(Kind::Parent(payout)),
        Err(error) => error,
    };
    let is_name = |error: &AddressError| matches!(error, AddressError::NotAnAddress(_));
    let is_parents = !matches!(&of_parent, PayoutError::Address(error) if is_name(error));
    match (is_parents, !is_name(&of_merged)) {
        (false, false) => Ok(Kind::Name),
        (true, true) if !is_merged_wanted => Err(refusal(&of_parent)),
        (_, true) => Err(not_on(chain, &of_merged)),
        (true, false) => Err(refusal(&of_parent)),
    }
}

fn refusal(error: &PayoutError) -> Refusal {
    Refusal(escaped(&error.to_string()).into_owned())
}

fn not_on(chain: &MergedChain, error: &AddressError) -> Refusal {
    Refusal(format!("{} address: {}", chain.symbol, escaped(&error.to_string())))
}

fn two_addresses(symbol: &str, one: &str, other: &str) -> Refusal {
    Refusal(format!("`{one}` and `{other}` are two {symbol} addresses: name the one to be paid"))
}

/// Pieces of `user` between separators, with their offsets.
fn split(user: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    user.split(SEPARATORS).map(move |piece| {
        let start = next;
        // Each separator is one byte.
        next += piece.len() + 1;
        (start, piece)
    })
}

/// True if `text` has the random mix of letters and digits of an address, and is too short for one.
fn is_cut(text: &str) -> bool {
    (CUT_CHARACTERS_MIN..BASE58_CHARACTERS_MIN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Accounts of a name `user` with several addresses, without its difficulties: the first two, each with its worker and
/// alone.
pub(super) fn accounts(user: &str) -> Vec<String> {
    let pieces: Vec<_> = split(user).map(|(_, piece)| split_worker(piece)).collect();
    let worker = pieces.iter().rev().find_map(|(_, worker)| *worker);
    let is_long = |text: &&str| text.len() >= BASE58_CHARACTERS_MIN;
    let texts = pieces.iter().map(|(text, _)| *text).filter(is_long).take(2);
    texts.filter(|_| pieces.len() > 1).flat_map(|text| [statistics_name(text, worker), text.to_owned()]).collect()
}

/// Finds the address for the chain that this network's shares name among `addresses`, given by chain numbers.
///
/// # Errors
/// It is not there, or not an address of that chain.
pub(super) fn merged_script(
    addresses: &[(u32, Box<str>)],
    network: &Network,
) -> Result<(ScriptBuf, &'static MergedChain), Refusal> {
    let chain = network.paid_merged_chain().ok_or_else(|| Refusal("this pool pays no merged chain".to_owned()))?;
    let (_, text) = addresses.iter().find(|(number, _)| *number == chain.chain_id).ok_or_else(|| {
        Refusal(format!("this pool pays {}, chain {}, for which there is no address", chain.name, chain.chain_id))
    })?;
    Ok((chain.script_of(text.trim()).map_err(|error| not_on(chain, &error))?, chain))
}

#[cfg(test)]
mod tests;
