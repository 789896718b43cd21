//! Consistent chains of shares for tests, without proof of work, and transactions.

use bytes::Bytes;
use sharechain::chain::share_rules;
use sharechain::coin::{BITCOIN_REGTEST, Pow};
use sharechain::share::{
    Bits, Contents, HashLink, MinHeader, Payee, Payout, SegwitData, Share, ShareData, ShareHash, ShareInfo, ShareRules,
    ShareVersion, StaleInfo,
};
use std::sync::Arc;

/// 16 attempts.
pub(super) const USUAL: Bits = Bits(0x2010_0000);

pub(super) fn rules() -> ShareRules {
    // Every hash meets the target.
    ShareRules { pow: |_| [0; 32], ..share_rules(&BITCOIN_REGTEST) }
}

/// Creates a share on top of another; `nonce` distinguishes siblings.
pub(super) fn child(previous: Option<&Share>, nonce: u32, bits: Bits) -> Arc<Share> {
    let rules = rules();
    let absheight = previous.map_or(1, |previous| previous.absheight() + 1);
    let contents = Contents {
        version: ShareVersion::V35,
        min_header: MinHeader {
            version: 0x2000_0000,
            previous_block: Some([7; 32]),
            timestamp: absheight,
            bits: Bits(0x1d00_ffff),
            nonce,
        },
        share_info: ShareInfo {
            share_data: ShareData {
                previous: previous.map(Share::hash),
                coinbase: [3, 1, 2, 3].into(),
                nonce,
                payout: Payout::Address(Payee::from_pubkey_hash(&[4; 20], &rules).as_str().into()),
                subsidy: 5_000_000_000,
                donation: 0,
                stale_info: StaleInfo::NONE,
                desired_version: 35,
            },
            segwit_data: ShareVersion::V35
                .has_segwit(rules.segwit_activation_version)
                .then(|| SegwitData { txid_merkle_branch: Box::default(), wtxid_merkle_root: [0; 32] }),
            transactions: None,
            far_share_hash: None,
            max_bits: bits,
            bits,
            timestamp: absheight,
            absheight,
            abswork: 0,
            additions: None,
        },
        ref_merkle_branch: Box::default(),
        last_txout_nonce: 0,
        hash_link: HashLink { state: [8; 32], extra_data: Box::default(), length: 300 },
        merkle_branch: Box::default(),
    };
    Arc::new(Share::check(contents, &rules).unwrap())
}

/// A chain of `count` shares, oldest first.
pub(super) fn chain(count: u32, nonce: u32, bits: Bits) -> Vec<Arc<Share>> {
    extend(&[], count, nonce, bits)
}

/// `count` shares on top of `below`, oldest first.
pub(super) fn extend(below: &[Arc<Share>], count: u32, nonce: u32, bits: Bits) -> Vec<Arc<Share>> {
    let mut top = below.last().cloned();
    let mut shares = Vec::new();
    for _ in 0..count {
        let share = child(top.as_deref(), nonce, bits);
        top = Some(share.clone());
        shares.push(share);
    }
    shares
}

/// Answer of a peer with `chain`, oldest first: `hash` and up to `parents` below it, newest first.
pub(super) fn answer(chain: &[Arc<Share>], hash: ShareHash, parents: u64, stops: &[ShareHash]) -> Vec<Arc<Share>> {
    let Some(at) = chain.iter().position(|share| share.hash() == hash) else { return Vec::new() };
    let newest_first = chain[..=at].iter().rev().take_while(|share| !stops.contains(&share.hash()));
    newest_first.take(usize::try_from(parents).unwrap() + 1).cloned().collect()
}

/// A transaction of about this many bytes, with a hash of its own.
pub(super) fn transaction(number: u8, bytes: u32) -> Bytes {
    let mut raw = vec![1, 0, 0, 0, 1];
    raw.extend([number; 36]);
    raw.push(0xfe);
    raw.extend(bytes.to_le_bytes());
    raw.resize(raw.len() + bytes as usize, 0);
    raw.extend([0; 4 + 1 + 4]);
    raw.into()
}

/// The hash of block names.
pub(super) fn sha256d() -> fn(&[u8; 80]) -> [u8; 32] {
    Pow::Sha256d.function()
}
