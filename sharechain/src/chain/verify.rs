//! Checks that need ancestors (protocol section 5.2): a share must be exactly what its parent's chain requires.

use std::collections::HashMap;
use std::fmt;

use super::error::VerifyError;
use super::retarget::Requirements;
use super::view::{CoinbaseSize, KnownShare, View};
use super::votes;
use super::weights::Window;
use super::windows::Windows;
use crate::merged;
use crate::merkle::{self, Digest};
use crate::share::{
    Additions, GenerationError, Share, ShareInfo, TransactionRefs, coinbase_of, display_hex, read_messages,
};

/// Maximum lead in seconds of a share's timestamp over our clock.
const AHEAD_MAX: f64 = 600.0;
/// Number of earlier shares whose transactions may be referred to (section 5.3).
pub(super) const TRANSACTION_SHARES_MAX: u32 = 100;
/// Maximum naughty number of a naughty share's descendants (section 5.6).
const NAUGHTY_MAX: u8 = 6;
/// Bytes of a coinbase after its hash link's prefix: ref hash, nonce and lock time.
const COINBASE_END_BYTES: u64 = 44;

/// Results of a successful check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verified {
    /// See [`KnownShare::naughty`].
    pub(super) naughty: u8,
    /// Size of its coinbase.
    pub(super) coinbase: CoinbaseSize,
    /// Minimum protocol version of peers from now on, if this share's votes settled it.
    pub(super) minimum_protocol: Option<u32>,
    /// Correct `merkle_link`, if the received one differs and nothing in the share commits to it.
    pub(super) merkle_branch: Option<Box<[Digest]>>,
}

/// True if the timestamp of `share` is too far ahead of a clock at `now`. Either clock may be wrong, so this alone is
/// not misbehaviour.
pub fn is_early(share: &Share, now: f64) -> bool {
    is_time_early(share.timestamp(), now)
}

/// The same for a timestamp.
pub(super) fn is_time_early(timestamp: u32, now: f64) -> bool {
    f64::from(timestamp) > now + AHEAD_MAX
}

/// Checks `share` against its ancestors, at `now` (seconds since 1970). `minimum_protocol` is the current minimum of
/// peers. The order of the checks is the reference's.
pub(super) fn check(
    view: &View<'_>,
    windows: &mut Windows,
    share: &Share,
    now: f64,
    minimum_protocol: u32,
) -> Result<Verified, VerifyError> {
    if is_early(share, now) {
        return Err(VerifyError::Future { timestamp: share.timestamp(), now: format!("{now:.0}") });
    }
    let parent = match share.previous() {
        None => None,
        Some(previous) => Some(view.known.get(&previous).ok_or(VerifyError::MissingAncestors(previous))?),
    };
    let parent_share = parent.map(|parent| &*parent.share);
    if let Some(parent) = parent_share {
        votes::check_succession(view, share.version(), parent)?;
    }
    let next = Requirements::after(view, parent_share)
        .ok_or_else(|| VerifyError::MissingAncestors(share.previous().unwrap_or_else(|| share.hash())))?;
    let listed = share.info().transactions.as_ref().map(|refs| resolve(view, share, refs)).transpose()?;
    let payout_hash = share.info().additions.as_ref().and_then(|_| windows.payout_hash(view, parent_share));
    let wanted = info_wanted(view, share, &next, listed.as_deref(), payout_hash);
    compare(&wanted, share.info())?;
    if let Some(additions) = &share.info().additions {
        check_additions(view, windows, additions, share, parent_share)?;
    }

    let weights = windows
        .payouts
        .weights(view.window(share.version(), parent_share, share.block_target()), &|hash| view.entry(hash));
    let coinbase = coinbase_of(share.version(), &wanted, share.payee(), &weights, view.rules)?;
    let gentx_hash =
        coinbase.hash_link().gentx_hash(share.version(), share.ref_hash(), share.contents().last_txout_nonce);
    if gentx_hash != *share.gentx_hash() {
        return Err(VerifyError::Coinbase { wanted: gentx_hash, given: *share.gentx_hash() });
    }
    let merkle_branch = listed.as_ref().map(|listed| Box::<[Digest]>::from(merkle::branch_of_first(listed)));
    let merkle_branch = merkle_branch.filter(|branch| *branch != share.contents().merkle_branch);
    if merkle_branch.is_some() && share.info().segwit_data.is_none() {
        return Err(VerifyError::MerkleLink);
    }

    let needed = share.version().rules().minimum_protocol;
    let settled = minimum_protocol < needed
        && votes::may_raise_protocol(view, share.version())
        && parent_share.and_then(|parent| votes::window(view, parent)).is_some_and(|it| it.settle(share.version()));
    let size = coinbase.prefix().len() as u64 + COINBASE_END_BYTES;
    Ok(Verified {
        naughty: naughty(parent, takes_too_much(view, share, listed.as_deref())),
        // The reference measures without the witness and counts it four times.
        coinbase: CoinbaseSize { size, weight: 4 * size },
        minimum_protocol: settled.then_some(needed),
        // Any relaying peer could have changed it: neither the share's miner nor the sender is to blame.
        merkle_branch,
    })
}

/// The coinbase that [`check`] compares a share's with, complete.
pub(super) fn coinbase_of_solved(
    view: &View<'_>,
    window: &mut Window,
    share: &Share,
) -> Result<Vec<u8>, GenerationError> {
    let parent = share.previous().and_then(|previous| view.share(previous)).map(|parent| &**parent);
    let weights = window.weights(view.window(share.version(), parent, share.block_target()), &|hash| view.entry(hash));
    let coinbase = coinbase_of(share.version(), share.info(), share.payee(), &weights, view.rules)?;
    let nonce = share.contents().last_txout_nonce;
    Ok(match share.info().segwit_data {
        Some(_) => coinbase.with_witness(share.ref_hash(), nonce),
        None => coinbase.stripped(share.ref_hash(), nonce),
    })
}

/// The same without witness, as in the share's own proof.
pub(super) fn stripped_coinbase(
    view: &View<'_>,
    window: &mut Window,
    share: &Share,
) -> Result<Vec<u8>, GenerationError> {
    let parent = share.previous().and_then(|previous| view.share(previous)).map(|parent| &**parent);
    let weights = window.weights(view.window(share.version(), parent, share.block_target()), &|hash| view.entry(hash));
    let coinbase = coinbase_of(share.version(), share.info(), share.payee(), &weights, view.rules)?;
    Ok(coinbase.stripped(share.ref_hash(), share.contents().last_txout_nonce))
}

/// Computes the required info of `share`, given its miner's choices.
fn info_wanted(
    view: &View<'_>,
    share: &Share,
    next: &Requirements,
    listed: Option<&[Digest]>,
    merged_payout_hash: Option<Digest>,
) -> ShareInfo {
    let given = share.info();
    let (max_bits, bits) = next.targets(share.version(), given.timestamp, given.bits.target());
    ShareInfo {
        share_data: given.share_data.clone(),
        segwit_data: given.segwit_data.clone(),
        transactions: listed.map(|listed| {
            let before = share.previous().into_iter().flat_map(|previous| view.chain(previous, TRANSACTION_SHARES_MAX));
            let lists = before.map(|share| share.info().transactions.as_ref().map_or(&[][..], |refs| &refs.new_hashes));
            canonical_refs(lists, listed)
        }),
        far_share_hash: next.far_share_hash,
        max_bits,
        bits,
        // If no timestamp is possible, the comparison fails for any.
        timestamp: next.timestamp(share.version(), given.timestamp).unwrap_or(0),
        absheight: next.absheight,
        abswork: next.abswork(bits),
        additions: given.additions.clone().map(|additions| Box::new(Additions { merged_payout_hash, ..*additions })),
    }
}

/// Finds the first field in which `given` differs from `wanted`. The miner's choices were copied, and are equal.
fn compare(wanted: &ShareInfo, given: &ShareInfo) -> Result<(), VerifyError> {
    fn same<T: PartialEq + fmt::Debug>(field: &'static str, wanted: &T, given: &T) -> Result<(), VerifyError> {
        if wanted == given {
            return Ok(());
        }
        Err(VerifyError::Field { field, wanted: format!("{wanted:?}"), given: format!("{given:?}") })
    }
    if wanted.transactions != given.transactions {
        let nothing = TransactionRefs::default();
        let wanted = wanted.transactions.as_ref().unwrap_or(&nothing);
        let given = given.transactions.as_ref().unwrap_or(&nothing);
        same_list("new_transaction_hashes", &wanted.new_hashes, &given.new_hashes, display_hex)?;
        same_list("transaction_hash_refs", &wanted.refs, &given.refs, |pair| format!("{pair:?}"))?;
    }
    same("far_share_hash", &wanted.far_share_hash, &given.far_share_hash)?;
    same("max_bits", &wanted.max_bits, &given.max_bits)?;
    same("bits", &wanted.bits, &given.bits)?;
    same("timestamp", &wanted.timestamp, &given.timestamp)?;
    same("absheight", &wanted.absheight, &given.absheight)?;
    same("abswork", &wanted.abswork, &given.abswork)?;
    let payout_hash = |info: &ShareInfo| {
        let additions = info.additions.as_ref();
        additions.map(|additions| additions.merged_payout_hash.as_ref().map_or_else(|| "none".to_owned(), display_hex))
    };
    same("merged_payout_hash", &payout_hash(wanted), &payout_hash(given))
}

/// Checks the fields of version 36 that nothing else depends on: messages, and proofs of merged blocks. Both cost less
/// than the coinbase of the share itself unless they are long, and a share is only checked after its proof of work.
fn check_additions(
    view: &View<'_>,
    windows: &mut Windows,
    additions: &Additions,
    share: &Share,
    parent: Option<&Share>,
) -> Result<(), VerifyError> {
    if !additions.message_data.is_empty() {
        read_messages(&additions.message_data)?;
    }
    // Earlier there is no whole window.
    let has_window = parent.is_some_and(|parent| view.all.height(parent.hash()) >= view.network.real_chain_length);
    if has_window && !additions.merged_coinbase_info.is_empty() {
        let weights = windows.merged(view, parent);
        merged::verify(&share.data().coinbase, &additions.merged_coinbase_info, |_| &weights.weights)?;
    }
    Ok(())
}

/// Compares two lists, which may have a million entries; an error shows the first difference.
fn same_list<T: PartialEq>(
    field: &'static str,
    wanted: &[T],
    given: &[T],
    show: impl Fn(&T) -> String,
) -> Result<(), VerifyError> {
    if wanted == given {
        return Ok(());
    }
    let equal = wanted.iter().zip(given).take_while(|(wanted, given)| wanted == given).count();
    let shown = |list: &[T]| {
        let entry = list.get(equal).map_or_else(|| "none".to_owned(), &show);
        format!("a list of {} whose entry {equal} is {entry}", list.len())
    };
    Err(VerifyError::Field { field, wanted: shown(wanted), given: shown(given) })
}

/// Resolves a share's references to transaction hashes.
pub(super) fn resolve(
    view: &View<'_>,
    share: &Share,
    transactions: &TransactionRefs,
) -> Result<Vec<Digest>, VerifyError> {
    let ancestors: Vec<&Share> = match share.previous() {
        // References lead less than 110 shares back, or the share would have failed its own checks.
        Some(previous) => view.chain(previous, 110).map(|share| &**share).collect(),
        None => Vec::new(),
    };
    let find = |back: u64, index: u64| {
        let hashes = match usize::try_from(back).ok()?.checked_sub(1) {
            None => transactions,
            Some(ancestor) => ancestors.get(ancestor)?.info().transactions.as_ref()?,
        };
        hashes.new_hashes.get(usize::try_from(index).ok()?).copied()
    };
    transactions
        .refs
        .iter()
        .map(|(back, index)| find(*back, *index).ok_or(VerifyError::TransactionRef { back: *back, index: *index }))
        .collect()
}

/// The only valid references to these transactions (section 5.3): to the latest share that lists one, otherwise to a
/// new entry. `before` are the lists of the shares below, from the parent down.
pub(super) fn canonical_refs<'a>(before: impl Iterator<Item = &'a [Digest]>, listed: &[Digest]) -> TransactionRefs {
    let mut places: HashMap<Digest, (u64, u64)> = HashMap::new();
    if !listed.is_empty() {
        for (back, hashes) in (1..).zip(before.take(TRANSACTION_SHARES_MAX as usize)) {
            for (index, hash) in (0..).zip(hashes) {
                places.entry(*hash).or_insert((back, index));
            }
        }
    }
    let mut new_hashes = Vec::new();
    let refs = listed.iter().map(|hash| {
        places.get(hash).copied().unwrap_or_else(|| {
            new_hashes.push(*hash);
            (0, new_hashes.len() as u64 - 1)
        })
    });
    let refs = refs.collect();
    TransactionRefs { new_hashes: new_hashes.into(), refs }
}

/// True if all of a share's fees are known and it takes more than subsidy and fees (section 5.2, step 5).
fn takes_too_much(view: &View<'_>, share: &Share, listed: Option<&[Digest]>) -> bool {
    let Some(listed) = listed else { return false };
    let fees = listed.iter().try_fold(0_u128, |sum, hash| {
        let fee = view.facts.transactions.get(hash)?.fee?;
        Some(sum + u128::from(fee))
    });
    let Some(fees) = fees else { return false };
    let height = view.facts.height(share.contents().min_header.previous_block.as_ref()).saturating_add(1);
    // Trap 51: the reference's own subsidy function, given the block's height.
    let subsidy = view.network.parent.subsidy.one_block_early(height);
    u128::from(share.data().subsidy) > u128::from(subsidy) + fees
}

/// Inheritance takes precedence over a share's own fault (section 5.6).
fn naughty(parent: Option<&KnownShare>, takes_too_much: bool) -> u8 {
    match parent.map_or(0, |parent| parent.naughty) {
        0 => u8::from(takes_too_much),
        NAUGHTY_MAX.. => 0,
        inherited => inherited + 1,
    }
}

/// Punishment of a share in the choice of the best (section 5.6): -1 for a solved block, 0 for most, more for naughty
/// shares and for those whose block would be too large.
pub(super) fn punishment(view: &View<'_>, known: &KnownShare) -> i32 {
    let share = &known.share;
    if share.is_block() {
        return -1;
    }
    if known.naughty != 0 {
        return i32::from(known.naughty);
    }
    i32::from(is_overweight(view, share))
}

fn is_overweight(view: &View<'_>, share: &Share) -> bool {
    let Some(refs) = &share.info().transactions else { return false };
    let Ok(listed) = resolve(view, share, refs) else { return false };
    let stripped = listed
        .iter()
        .try_fold(0_u64, |sum, hash| Some(sum + u64::from(view.facts.transactions.get(hash)?.stripped_size)));
    let Some(stripped) = stripped else { return false };
    let coinbase = view.coinbase_size(share.version());
    let parent = &view.network.parent;
    4 * stripped + 320 + coinbase.weight > u64::from(parent.block_max_weight)
        || stripped + 80 + coinbase.size > u64::from(parent.block_max_size)
}
