//! Drafts of blocks: valid by default, so that each row of the table breaks exactly one rule.

use bitcoin::absolute::LockTime;
use bitcoin::blockdata::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Target, Transaction, TxIn, TxMerkleNode,
    TxOut, Witness, opcodes, transaction,
};

pub(crate) const LIMIT_BITS: u32 = 0x207f_ffff;

/// Block on `parent` whose header is not mined yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) block: Block,
}

/// Maximum payout of the coinbase at this height on regtest, without fees.
pub(crate) fn subsidy(height: u32) -> u64 {
    5_000_000_000 >> (height / 150)
}

impl Draft {
    /// Block with only a coinbase, which pays the full amount to an output that anyone can spend.
    pub(crate) fn new(parent: BlockHash, height: u32, time: u32) -> Self {
        let anyone = Builder::new().push_opcode(opcodes::OP_TRUE).into_script();
        let coinbase = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::null(),
                // The extra byte keeps the script at two bytes or more below height 17.
                script_sig: Builder::new().push_int(height.into()).push_int(0).into_script(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value: Amount::from_sat(subsidy(height)), script_pubkey: anyone }],
        };
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(LIMIT_BITS),
            nonce: 0,
        };
        Self { block: Block { header, txdata: vec![coinbase] } }
    }

    pub(crate) fn with(mut self, transactions: impl IntoIterator<Item = Transaction>) -> Self {
        self.block.txdata.extend(transactions);
        self
    }

    /// Changes the coinbase's payout by this many satoshis.
    pub(crate) fn pay(mut self, more: i64) -> Self {
        let value = &mut self.coinbase().output[0].value;
        *value = Amount::from_sat(value.to_sat().checked_add_signed(more).unwrap());
        self
    }

    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Block)) -> Self {
        change(&mut self.block);
        self
    }

    pub(crate) fn coinbase(&mut self) -> &mut Transaction {
        &mut self.block.txdata[0]
    }

    /// Adds the witness commitment (BIP 141), as the last output.
    pub(crate) fn commit(self) -> Self {
        let script = self.commitment();
        self.commit_to(script)
    }

    pub(crate) fn commit_to(mut self, script: ScriptBuf) -> Self {
        self.coinbase().output.push(TxOut { value: Amount::ZERO, script_pubkey: script });
        self.coinbase().input[0].witness = Witness::from_slice(&[[0; 32]]);
        self
    }

    /// Script of the witness commitment under a reserved value of zeroes.
    pub(crate) fn commitment(&self) -> ScriptBuf {
        let root = self.block.witness_root().unwrap();
        let hash = Block::compute_witness_commitment(&root, &[0; 32]);
        let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        script.extend_from_slice(hash.as_byte_array());
        ScriptBuf::from_bytes(script)
    }

    /// Computes the merkle root and mines.
    pub(crate) fn seal(mut self) -> Block {
        self.block.header.merkle_root = merkle_root(&self.block);
        mine(self.block)
    }
}

/// Implemented here, since the `bitcoin` package does not compute it for blocks without transactions.
pub(crate) fn merkle_root(block: &Block) -> TxMerkleNode {
    let mut level: Vec<[u8; 32]> = block.txdata.iter().map(|one| one.compute_txid().to_byte_array()).collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| sha256d::Hash::hash(&[pair[0], pair[pair.len() - 1]].concat()).to_byte_array())
            .collect();
    }
    TxMerkleNode::from_byte_array(level.first().copied().unwrap_or([0; 32]))
}

/// Finds a nonce for the header as it is, under its own bits or regtest's limit, whichever is harder.
pub(crate) fn mine(mut block: Block) -> Block {
    let limit = Target::from_compact(CompactTarget::from_consensus(LIMIT_BITS));
    let target = Target::from_compact(block.header.bits).min(limit);
    while !target.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}

/// Finds a nonce under which the hash does not even meet the limit.
pub(crate) fn mine_badly(mut block: Block) -> Block {
    let limit = Target::from_compact(CompactTarget::from_consensus(LIMIT_BITS));
    while limit.is_met_by(block.block_hash()) {
        block.header.nonce += 1;
    }
    block
}
