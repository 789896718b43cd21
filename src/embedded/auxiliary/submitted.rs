//! A whole block as a miner submits it, taken apart: header, auxiliary proof of work, transactions.

use bitcoin::blockdata::block::Header;
use bitcoin::consensus::{Decodable, deserialize};
use bitcoin::{Transaction, VarInt};

use super::block::{AUX_FLAG, Block};
use super::proof::{AuxProof, DecodeError, HEADER_BYTES, array, transaction};

/// A block that is not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submitted {
    pub(super) header: Header,
    /// Proof of work of a parent block, and its bytes; without one, the header's own counts.
    pub(super) proof: Option<(AuxProof, Vec<u8>)>,
    pub(super) transactions: Vec<Transaction>,
    /// Size of the whole block, in bytes.
    pub(super) size: usize,
}

impl Submitted {
    /// Parses a block, to the last byte.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        let header: [u8; HEADER_BYTES] = array(&mut rest, "header")?;
        let header: Header = deserialize(&header).map_err(|_| DecodeError::Part("header"))?;
        let has_proof = header.version.to_consensus().cast_unsigned() & AUX_FLAG != 0;
        let proof = has_proof.then(|| proof(&mut rest)).transpose()?;
        let count = VarInt::consensus_decode(&mut rest).map_err(|_| DecodeError::Part("number of transactions"))?.0;
        let mut transactions = Vec::new();
        for _ in 0..count {
            transactions.push(transaction(&mut rest, "list of transactions")?);
        }
        match rest.len() {
            0 => Ok(Self { header, proof, transactions, size: bytes.len() }),
            more => Err(DecodeError::TrailingBytes(more)),
        }
    }

    /// A block that this daemon made, with the proof that its miner found.
    pub(super) fn created(block: Block, proof: &[u8]) -> Result<Self, DecodeError> {
        let parsed = AuxProof::parse(proof)?;
        let size = block.serialise().len() + proof.len();
        let Block { header, transactions, .. } = block;
        Ok(Self { header, proof: Some((parsed, proof.to_vec())), transactions, size })
    }

    /// The block at its place in the chain.
    pub(super) fn at(self, height: u32) -> Block {
        let Self { header, proof, transactions, .. } = self;
        Block { header, height, transactions, proof: proof.map(|(_, bytes)| bytes) }
    }
}

/// Takes a proof and its bytes from the start of `rest`.
fn proof(rest: &mut &[u8]) -> Result<(AuxProof, Vec<u8>), DecodeError> {
    let bytes = *rest;
    let proof = AuxProof::read(rest)?;
    Ok((proof, bytes[..bytes.len() - rest.len()].to_vec()))
}
