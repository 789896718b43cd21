//! Decodes blocks exactly as strictly as Bitcoin Core.
//!
//! The `bitcoin` package decodes everything except one oddity: a transaction without inputs and outputs, which Core
//! decodes and then refuses by name.

use bitcoin::blockdata::block::Header;
use bitcoin::consensus::Decodable;
use bitcoin::{Block, Transaction, VarInt, absolute, transaction};

/// Size of the smallest transaction, in bytes: version, two empty lists, lock time.
const TRANSACTION_BYTES_MIN: usize = 10;

/// Decodes a block; ignores bytes after its end, as Core does. `None` if it is malformed.
pub(super) fn block(bytes: &[u8]) -> Option<Block> {
    let mut rest = bytes;
    let header = Header::consensus_decode(&mut rest).ok()?;
    let count = usize::try_from(VarInt::consensus_decode(&mut rest).ok()?.0).ok()?;
    if count > rest.len() / TRANSACTION_BYTES_MIN {
        return None;
    }
    let mut txdata = Vec::with_capacity(count);
    for _ in 0..count {
        txdata.push(transaction(&mut rest)?);
    }
    Some(Block { header, txdata })
}

/// Decodes a transaction and advances `rest` past it.
pub(super) fn transaction(rest: &mut &[u8]) -> Option<Transaction> {
    if rest.get(4..6) == Some(&[0, 0]) {
        // Core takes a first zero for an empty list of inputs, and a second one for "no flags": only the lock time
        // follows.
        let version = transaction::Version(i32::consensus_decode(rest).ok()?);
        *rest = rest.get(2..)?;
        let lock_time = absolute::LockTime::from_consensus(u32::consensus_decode(rest).ok()?);
        return Some(Transaction { version, lock_time, input: Vec::new(), output: Vec::new() });
    }
    // With flags, an empty list of inputs has no witnesses, and Core calls that a superfluous witness record.
    Transaction::consensus_decode(rest).ok().filter(|transaction| !transaction.input.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_without_inputs_is_read_so_that_it_can_be_refused_by_name() {
        let bytes = [2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 99];
        let mut rest = &bytes[..];
        let read = transaction(&mut rest).unwrap();
        assert_eq!((read.version.0, read.lock_time.to_consensus_u32()), (2, 7));
        assert_eq!(rest, [99]);
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() {
        let mut bytes = vec![0; 80];
        bytes.extend([0xfe, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(block(&bytes), None);
    }

    #[test]
    fn bytes_after_the_end_are_left_alone() {
        let mut bytes = vec![0; 81];
        assert_eq!(block(&bytes).unwrap().txdata.len(), 0);
        bytes.push(1);
        assert!(block(&bytes).is_some());
    }
}
