//! A block of a merged chain, and how one is made.

use bitcoin::absolute::LockTime;
use bitcoin::blockdata::block::Header;
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, VarInt,
    Witness, block, script, transaction,
};

/// Version of a block, beside chain number and flag.
const BASE_VERSION: u32 = 4;

/// Flag in the version of a block with an auxiliary proof of work.
pub(super) const AUX_FLAG: u32 = 0x100;

/// A block, with its auxiliary proof of work once there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Header, whose hash names the block.
    pub header: Header,
    /// Distance from the genesis block.
    pub height: u32,
    /// Transactions, the coinbase first.
    pub transactions: Vec<Transaction>,
    /// Serialised proof; blocks of other miners have none here.
    pub proof: Option<Vec<u8>>,
}

/// Content of a new block.
#[derive(Debug)]
pub(super) struct NewBlock {
    pub(super) chain_id: u16,
    pub(super) previous: BlockHash,
    pub(super) height: u32,
    pub(super) time: u32,
    pub(super) bits: CompactTarget,
    /// Different for each block of a chain, so that its merkle root is, too.
    pub(super) extra_nonce: u64,
    /// Satoshis that the coinbase pays.
    pub(super) value: u64,
    pub(super) payout: ScriptBuf,
}

impl NewBlock {
    /// Makes the block: its nonce is 0, since the proof of work is the parent's.
    pub(super) fn make(self) -> Block {
        let height = i64::from(self.height);
        let script = script::Builder::new().push_int(height).push_slice(self.extra_nonce.to_le_bytes());
        let input = TxIn {
            previous_output: OutPoint::null(),
            script_sig: script.into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output = TxOut { value: Amount::from_sat(self.value), script_pubkey: self.payout };
        let coinbase = Transaction {
            version: transaction::Version::ONE,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![output],
        };
        let version = version(self.chain_id) | AUX_FLAG;
        let header = Header {
            version: block::Version::from_consensus(version.cast_signed()),
            prev_blockhash: self.previous,
            // That of a single transaction is its id.
            merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
            time: self.time,
            bits: self.bits,
            nonce: 0,
        };
        Block { header, height: self.height, transactions: vec![coinbase], proof: None }
    }
}

/// Version of a chain's blocks, without the flag.
pub(super) fn version(chain_id: u16) -> u32 {
    u32::from(chain_id) << 16 | BASE_VERSION
}

impl Block {
    /// Name of the block.
    pub fn hash(&self) -> BlockHash {
        self.header.block_hash()
    }

    /// Satoshis that the coinbase pays.
    pub fn coinbase_value(&self) -> u64 {
        self.transactions.first().map_or(0, |coinbase| coinbase.output.iter().map(|output| output.value.to_sat()).sum())
    }

    /// Serialised header, with the proof.
    pub(super) fn serialised_header(&self) -> Vec<u8> {
        let mut bytes = serialize(&self.header);
        bytes.extend(self.proof.iter().flatten());
        bytes
    }

    /// The whole block, serialised.
    pub(super) fn serialise(&self) -> Vec<u8> {
        let mut bytes = self.serialised_header();
        bytes.extend(serialize(&VarInt::from(self.transactions.len())));
        bytes.extend(self.transactions.iter().flat_map(serialize));
        bytes
    }
}
