//! Share serialisation for every version: each field occurs here once, in the order of protocol section 4.2.

use bitcoin::hashes::{Hash, sha256d};
use thiserror::Error;

use super::{
    Additions, Bits, Contents, HashLink, MergedAddress, MergedCoinbase, MinHeader, Payout, SegwitData, ShareData,
    ShareHash, ShareInfo, ShareRules, ShareVersion, StaleInfo, TransactionRefs, VersionError,
};
use crate::merkle::{self, Digest};
use crate::pack::{Reader, UnpackError, Writer};
use crate::rules::{Layout, PayeeForm};

/// From this length on, the bit count would not fit SHA-256's 64 bits; no coinbase is that long.
const HASH_LINK_LENGTH_MAX: u64 = (1 << 61) - 64;

/// Parse error of a share. None of these is misbehaviour: they come from obsolete versions.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// Unknown version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// Contents not in the format of their version.
    #[error("share of version {version}: {error}")]
    Contents {
        /// Version number in the wrapper.
        version: ShareVersion,
        /// Parse error of the contents.
        error: UnpackError,
    },
    /// The wrapper itself (version and contents) cannot be parsed.
    #[error(transparent)]
    Wrapper(UnpackError),
    /// The sentinel for none in place of segwit data: a share of a segwit version has no merkle root without them
    /// (section 4.2).
    #[error("share of version {0} has no segwit_data")]
    NoSegwitData(ShareVersion),
}

/// Reads one share's wrapper (section 4.1) and returns version number and contents, both unchecked.
///
/// # Errors
/// [`UnpackError`].
pub fn read_wrapped<'a>(reader: &mut Reader<'a>) -> Result<(u64, &'a [u8]), UnpackError> {
    Ok((reader.varint("share.type")?, reader.varstr("share.contents")?))
}

/// Writes a share in its wrapper.
pub fn write_wrapped(writer: &mut Writer, contents: &Contents) {
    writer.varint(contents.version.number());
    writer.count(contents_bytes(contents));
    write_contents(writer, contents);
}

fn contents_bytes(contents: &Contents) -> usize {
    let mut length = Writer::counting();
    write_contents(&mut length, contents);
    length.at()
}

/// Size of a share in its wrapper, in bytes.
pub(super) fn wire_bytes(contents: &Contents) -> usize {
    let inner = contents_bytes(contents);
    let mut head = Writer::counting();
    head.varint(contents.version.number());
    head.count(inner);
    head.at() + inner
}

/// Parses a share in its wrapper, without trailing bytes.
///
/// # Errors
/// [`FormatError`].
pub fn unpack(bytes: &[u8], rules: &ShareRules) -> Result<Contents, FormatError> {
    let mut reader = Reader::new(bytes);
    let (version, contents) = read_wrapped(&mut reader).map_err(FormatError::Wrapper)?;
    reader.finish("share").map_err(FormatError::Wrapper)?;
    unpack_contents(version, contents, rules)
}

/// Parses the contents of a share of version number `version` into the bounded form: where segwit data commits to the
/// block's transactions, a longer `merkle_link` is cut to the length of the txid branch.
///
/// # Errors
/// [`FormatError`].
pub fn unpack_contents(version: u64, bytes: &[u8], rules: &ShareRules) -> Result<Contents, FormatError> {
    if version > rules.newest_version {
        return Err(VersionError::Unknown(version).into());
    }
    let version = ShareVersion::from_number(version)?;
    let mut reader = Reader::new(bytes);
    let contents = read_contents(&mut reader, version, rules)
        .and_then(|contents| reader.finish("share.contents").map(|()| contents))
        .map_err(|error| FormatError::Contents { version, error })?;
    let is_sentinel = |data: &SegwitData| data.txid_merkle_branch.is_empty() && data.wtxid_merkle_root == [0xff; 32];
    if contents.share_info.segwit_data.as_ref().is_some_and(is_sentinel) {
        return Err(FormatError::NoSegwitData(version));
    }
    Ok(contents)
}

/// Serialises a share in its wrapper, as sent to peers, stored, and read by [`unpack`]. Contents from [`unpack`] give
/// back their original bytes, cut to the bounded form.
pub fn pack(contents: &Contents) -> Vec<u8> {
    let mut writer = Writer::with_capacity(wire_bytes(contents));
    write_wrapped(&mut writer, contents);
    writer.into_bytes()
}

/// Preimage of the ref hash: the network's identifier and the share info (section 4.4); from version 36 on the messages
/// too.
pub fn ref_type(info: &ShareInfo, rules: &ShareRules) -> Vec<u8> {
    let mut writer = Writer::with_capacity(512);
    writer.bytes(&rules.identifier);
    write_share_info(&mut writer, info);
    if let Some(additions) = &info.additions {
        writer.varstr(&additions.message_data);
    }
    writer.into_bytes()
}

/// Hash in the coinbase's last output, which commits to the share info through `ref_merkle_branch` (section 4.4).
pub fn ref_hash(info: &ShareInfo, ref_merkle_branch: &[Digest], rules: &ShareRules) -> Digest {
    merkle::fold(sha256d::Hash::hash(&ref_type(info, rules)).to_byte_array(), ref_merkle_branch)
}

fn read_contents(reader: &mut Reader, version: ShareVersion, rules: &ShareRules) -> Result<Contents, UnpackError> {
    let min_header = read_min_header(reader)?;
    let share_info = read_share_info(reader, version, rules)?;
    let merkle_branch_max = merkle_branch_max(&share_info);
    let mut contents = Contents {
        version,
        min_header,
        share_info,
        ref_merkle_branch: reader.hashes("ref_merkle_link.branch")?,
        last_txout_nonce: reader.u64("last_txout_nonce")?,
        hash_link: read_hash_link(reader, version)?,
        merkle_branch: reader.first_hashes("merkle_link.branch", merkle_branch_max)?,
    };
    if let Some(additions) = &mut contents.share_info.additions {
        additions.message_data = reader.varstr("message_data")?.into();
    }
    Ok(contents)
}

/// Maximum length kept of the `merkle_link` (field 28) of a share with this info: the bounded form.
///
/// With segwit data the header's merkle root follows from the txid branch, and no proof of work commits to this one:
/// any peer could inflate another miner's share to megabytes under the same hash. Both cover the same transactions, so
/// an honest one is as long as the txid branch and stays unchanged. Without segwit data the header commits to it.
fn merkle_branch_max(info: &ShareInfo) -> usize {
    info.segwit_data.as_ref().map_or(usize::MAX, |segwit| segwit.txid_merkle_branch.len())
}

fn write_contents(writer: &mut Writer, contents: &Contents) {
    let header = &contents.min_header;
    writer.varint(u64::from(header.version));
    writer.hash_or_none(header.previous_block.as_ref());
    writer.u32(header.timestamp);
    writer.u32(header.bits.0);
    writer.u32(header.nonce);
    write_share_info(writer, &contents.share_info);
    writer.hashes(&contents.ref_merkle_branch);
    writer.u64(contents.last_txout_nonce);
    writer.bytes(&contents.hash_link.state);
    let additions = contents.share_info.additions.as_ref();
    if additions.is_some() {
        writer.varstr(&contents.hash_link.extra_data);
    }
    writer.varint(contents.hash_link.length);
    writer.hashes(&contents.merkle_branch);
    if let Some(additions) = additions {
        writer.varstr(&additions.message_data);
    }
}

fn read_min_header(reader: &mut Reader) -> Result<MinHeader, UnpackError> {
    let field = "min_header.version";
    let at = reader.at();
    let value = reader.varint(field)?;
    // Trap 1: a varint here, but four bytes in the header, where the reference fails too.
    let version = u32::try_from(value).map_err(|_| UnpackError::Impossible { field, at, value })?;
    Ok(MinHeader {
        version,
        previous_block: reader.hash_or_none("min_header.previous_block")?,
        timestamp: reader.u32("min_header.timestamp")?,
        bits: Bits(reader.u32("min_header.bits")?),
        nonce: reader.u32("min_header.nonce")?,
    })
}

fn read_hash_link(reader: &mut Reader, version: ShareVersion) -> Result<HashLink, UnpackError> {
    let state = reader.array("hash_link.state")?;
    let extra_data = match version.rules().layout {
        Layout::Classic => Box::default(),
        Layout::Merged => reader.varstr("hash_link.extra_data")?.into(),
    };
    let field = "hash_link.length";
    let at = reader.at();
    let length = reader.varint(field)?;
    if length > HASH_LINK_LENGTH_MAX {
        return Err(UnpackError::Impossible { field, at, value: length });
    }
    Ok(HashLink { state, extra_data, length })
}

fn read_share_info(reader: &mut Reader, version: ShareVersion, rules: &ShareRules) -> Result<ShareInfo, UnpackError> {
    let share_data = read_share_data(reader, version)?;
    let segwit_data = if version.has_segwit(rules.segwit_activation_version) {
        Some(SegwitData {
            txid_merkle_branch: reader.hashes("segwit_data.txid_merkle_link.branch")?,
            wtxid_merkle_root: reader.array("segwit_data.wtxid_merkle_root")?,
        })
    } else {
        None
    };
    let transactions = if version.lists_transactions() { Some(read_transaction_refs(reader)?) } else { None };
    let layout = version.rules().layout;
    let mut additions = match layout {
        Layout::Classic => None,
        Layout::Merged => Some(Box::<Additions>::default()),
    };
    if let Some(additions) = &mut additions {
        additions.merged_addresses = read_merged_addresses(reader)?;
    }
    let mut info = ShareInfo {
        share_data,
        segwit_data,
        transactions,
        far_share_hash: reader.hash_or_none("share_info.far_share_hash")?.map(ShareHash),
        max_bits: Bits(reader.u32("share_info.max_bits")?),
        bits: Bits(reader.u32("share_info.bits")?),
        timestamp: reader.u32("share_info.timestamp")?,
        absheight: reader.u32("share_info.absheight")?,
        abswork: match layout {
            Layout::Classic => reader.u128("share_info.abswork")?,
            Layout::Merged => reader.varint("share_info.abswork")?.into(),
        },
        additions,
    };
    if let Some(additions) = &mut info.additions {
        additions.merged_coinbase_info = read_merged_coinbases(reader)?;
        additions.merged_payout_hash = reader.hash_or_none("share_info.merged_payout_hash")?;
    }
    Ok(info)
}

fn read_merged_addresses(reader: &mut Reader) -> Result<Box<[MergedAddress]>, UnpackError> {
    let field = "share_info.merged_addresses";
    // A number and the length of a script.
    let count = reader.count(field, 5)?;
    (0..count)
        .map(|_| Ok(MergedAddress { chain_id: reader.u32(field)?, script: reader.varstr(field)?.into() }))
        .collect()
}

fn read_merged_coinbases(reader: &mut Reader) -> Result<Box<[MergedCoinbase]>, UnpackError> {
    let field = "share_info.merged_coinbase_info";
    // A number, two varints, a header and two lengths.
    let count = reader.count(field, 88)?;
    let read = |_| {
        Ok(MergedCoinbase {
            chain_id: reader.u32(field)?,
            value: reader.varint(field)?,
            height: reader.varint(field)?,
            header: reader.array(field)?,
            branch: reader.hashes(field)?,
            script: reader.varstr(field)?.into(),
        })
    };
    (0..count).map(read).collect()
}

fn write_share_info(writer: &mut Writer, info: &ShareInfo) {
    let layout = if info.additions.is_some() { Layout::Merged } else { Layout::Classic };
    write_share_data(writer, &info.share_data, layout);
    if let Some(segwit) = &info.segwit_data {
        writer.hashes(&segwit.txid_merkle_branch);
        writer.bytes(&segwit.wtxid_merkle_root);
    }
    if let Some(transactions) = &info.transactions {
        writer.hashes(&transactions.new_hashes);
        // Trap 2: the count is in pairs.
        writer.count(transactions.refs.len());
        for (share_count, tx_count) in &transactions.refs {
            writer.varint(*share_count);
            writer.varint(*tx_count);
        }
    }
    if let Some(additions) = &info.additions {
        writer.count(additions.merged_addresses.len());
        for entry in &additions.merged_addresses {
            writer.u32(entry.chain_id);
            writer.varstr(&entry.script);
        }
    }
    writer.hash_or_none(info.far_share_hash.as_ref().map(|hash| &hash.0));
    writer.u32(info.max_bits.0);
    writer.u32(info.bits.0);
    writer.u32(info.timestamp);
    writer.u32(info.absheight);
    match &info.additions {
        None => writer.u128(info.abswork),
        Some(additions) => {
            // By protocol-v36 trap 3 no larger number is read, and no draft has one.
            writer.varint(u64::try_from(info.abswork).unwrap_or(u64::MAX));
            write_merged_coinbases(writer, &additions.merged_coinbase_info);
            writer.hash_or_none(additions.merged_payout_hash.as_ref());
        }
    }
}

fn write_merged_coinbases(writer: &mut Writer, entries: &[MergedCoinbase]) {
    writer.count(entries.len());
    for entry in entries {
        writer.u32(entry.chain_id);
        writer.varint(entry.value);
        writer.varint(entry.height);
        writer.bytes(&entry.header);
        writer.hashes(&entry.branch);
        writer.varstr(&entry.script);
    }
}

fn read_share_data(reader: &mut Reader, version: ShareVersion) -> Result<ShareData, UnpackError> {
    Ok(ShareData {
        previous: reader.hash_or_none("share_data.previous_share_hash")?.map(ShareHash),
        coinbase: reader.varstr("share_data.coinbase")?.into(),
        nonce: reader.u32("share_data.nonce")?,
        payout: match version.rules().payee {
            PayeeForm::Address => Payout::Address(read_address(reader)?),
            PayeeForm::PubkeyHash => Payout::PubkeyHash(reader.array("share_data.pubkey_hash")?),
            PayeeForm::Script => Payout::Hash {
                hash: reader.array("share_data.pubkey_hash")?,
                kind: reader.u8("share_data.pubkey_type")?,
            },
        },
        subsidy: match version.rules().layout {
            Layout::Classic => reader.u64("share_data.subsidy")?,
            Layout::Merged => reader.varint("share_data.subsidy")?,
        },
        donation: reader.u16("share_data.donation")?,
        stale_info: StaleInfo(reader.u8("share_data.stale_info")?),
        desired_version: reader.varint("share_data.desired_version")?,
    })
}

fn write_share_data(writer: &mut Writer, data: &ShareData, layout: Layout) {
    writer.hash_or_none(data.previous.as_ref().map(|hash| &hash.0));
    writer.varstr(&data.coinbase);
    writer.u32(data.nonce);
    match &data.payout {
        Payout::PubkeyHash(hash) => writer.bytes(hash),
        Payout::Address(text) => writer.varstr(text.as_bytes()),
        Payout::Hash { hash, kind } => {
            writer.bytes(hash);
            writer.u8(*kind);
        }
    }
    match layout {
        Layout::Classic => writer.u64(data.subsidy),
        Layout::Merged => writer.varint(data.subsidy),
    }
    writer.u16(data.donation);
    writer.u8(data.stale_info.0);
    writer.varint(data.desired_version);
}

/// The reference accepts any bytes, but only ASCII can be an address, so everything else is refused here.
fn read_address(reader: &mut Reader) -> Result<Box<str>, UnpackError> {
    let field = "share_data.address";
    let at = reader.at();
    let bytes = reader.varstr(field)?;
    let offence = bytes.iter().find(|byte| !byte.is_ascii());
    match (std::str::from_utf8(bytes), offence) {
        (Ok(text), None) => Ok(text.into()),
        (_, offence) => {
            let value = u64::from(offence.copied().unwrap_or_default());
            Err(UnpackError::Impossible { field, at, value })
        }
    }
}

fn read_transaction_refs(reader: &mut Reader) -> Result<TransactionRefs, UnpackError> {
    let new_hashes = reader.hashes("share_info.new_transaction_hashes")?;
    let field = "share_info.transaction_hash_refs";
    let pairs = reader.count(field, 2)?;
    let refs = (0..pairs).map(|_| Ok((reader.varint(field)?, reader.varint(field)?))).collect::<Result<_, _>>()?;
    Ok(TransactionRefs { new_hashes, refs })
}
