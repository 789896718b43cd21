//! Transactions known to this node, by full hash: those of its templates and those that peers asked it to remember
//! (protocol section 3.8).
//!
//! Only shares before version 34 name transactions. A node without any shares still forwards them, so every node must
//! accept them.

use bytes::Bytes;
use parking_lot::Mutex;
use sharechain::merkle::Digest;
use sharechain::pack::{Reader, UnpackError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use super::command::REMEMBERED_BYTES_MAX;
use super::frame::sha256d;

/// Overhead counted for a remembered transaction beyond its own bytes.
const OVERHEAD_BYTES: usize = 100;

/// Minimum size of a transaction: version, no inputs behind the marker, flag, no outputs, lock time.
pub(super) const TRANSACTION_BYTES_MIN: usize = 12;

/// Time for which a forgotten transaction is kept: a peer may name it before it learns that we dropped it.
pub const FORGOTTEN_KEPT: Duration = Duration::from_secs(20);

/// Maximum bytes of forgotten transactions kept.
const FORGOTTEN_BYTES_MAX: usize = REMEMBERED_BYTES_MAX;

/// Maximum bytes of transactions kept for all peers together: four times the limit of one peer. Beyond it, transactions
/// from peers are counted but not kept, and a share that names one ends the connection.
pub const KNOWN_BYTES_MAX: usize = 4 * REMEMBERED_BYTES_MAX;

/// Maximum bytes remembered for all peers together; beyond it the peer with the most is closed. Less than
/// [`KNOWN_BYTES_MAX`], so that there is always room for the others'.
pub const ALL_REMEMBERED_BYTES_MAX: usize = 3 * REMEMBERED_BYTES_MAX;

/// Minimum time between two searches for transactions without a holder.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// A transaction with its witness.
#[derive(Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Hash of all its bytes: its wtxid (a coinbase has another by Bitcoin's rules, but no coinbase is forwarded).
    pub hash: Digest,
    /// Serialised as included in a block.
    pub raw: Bytes,
}

impl Transaction {
    /// Copies a transaction out of a message, so that the message can be freed.
    pub fn from_message(raw: &Bytes) -> Transaction {
        Transaction { hash: sha256d(raw), raw: Bytes::copy_from_slice(raw) }
    }

    /// Size counted against [`REMEMBERED_BYTES_MAX`], in bytes.
    pub fn size(&self) -> usize {
        OVERHEAD_BYTES + self.raw.len()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({}, {} bytes)", sharechain::share::display_hex(&self.hash), self.raw.len())
    }
}

/// Transactions of one template, which peers with old share chains must remember for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateTransactions {
    /// In block order.
    pub transactions: Vec<Arc<Transaction>>,
    /// Transactions among them that were unknown before.
    pub learned: Vec<Digest>,
}

/// Known transactions. Shared by all connections; each call holds the lock for a few look-ups.
#[derive(Debug, Default)]
pub struct Transactions {
    state: Mutex<State>,
    /// Set when no share of the network lists transactions.
    are_unlisted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Digest, Arc<Transaction>>,
    known_bytes: usize,
    forgotten: HashMap<Digest, (Instant, Arc<Transaction>)>,
    /// Oldest first; may contain some that were wanted again since.
    forgotten_by_age: VecDeque<(Instant, Digest)>,
    forgotten_bytes: usize,
    /// Transactions that recent shares name.
    named: HashSet<Digest>,
    /// Time of the last search for transactions without a holder.
    searched_at: Option<Instant>,
}

impl State {
    fn add(&mut self, transaction: Arc<Transaction>) {
        self.known_bytes += transaction.size();
        self.known.insert(transaction.hash, transaction);
    }

    /// Finds a transaction. One that was forgotten recently becomes known again.
    fn find(&mut self, hash: &Digest) -> Option<&Arc<Transaction>> {
        if let Some((_, transaction)) = self.forgotten.remove(hash) {
            self.forgotten_bytes -= transaction.size();
            self.add(transaction);
        }
        self.known.get(hash)
    }

    /// Removes a transaction that is learned again from the forgotten ones.
    fn drop_forgotten(&mut self, hash: &Digest) {
        if let Some((_, transaction)) = self.forgotten.remove(hash) {
            self.forgotten_bytes -= transaction.size();
        }
    }

    fn forget(&mut self, hash: &Digest, now: Instant) {
        if let Some(transaction) = self.known.remove(hash) {
            self.known_bytes -= transaction.size();
            self.forgotten_bytes += transaction.size();
            self.forgotten.insert(*hash, (now, transaction));
            self.forgotten_by_age.push_back((now, *hash));
        }
    }

    /// Forgets transactions without a holder that no recent share names, and returns their hashes.
    fn forget_unheld(&mut self, now: Instant) -> Vec<Digest> {
        let is_old = |one: &&Arc<Transaction>| Arc::strong_count(one) == 1 && !self.named.contains(&one.hash);
        let lost: Vec<Digest> = self.known.values().filter(is_old).map(|one| one.hash).collect();
        for hash in &lost {
            self.forget(hash, now);
        }
        self.expire(now);
        lost
    }

    fn expire(&mut self, now: Instant) {
        while let Some((since, hash)) = self.forgotten_by_age.front().copied() {
            if now < since + FORGOTTEN_KEPT && self.forgotten_bytes <= FORGOTTEN_BYTES_MAX {
                break;
            }
            self.forgotten_by_age.pop_front();
            if self.forgotten.get(&hash).is_some_and(|(when, _)| *when == since)
                && let Some((_, gone)) = self.forgotten.remove(&hash)
            {
                self.forgotten_bytes -= gone.size();
            }
        }
    }
}

impl Transactions {
    /// Creates an empty set.
    pub fn new() -> Transactions {
        Transactions::default()
    }

    /// True if shares of the network may list transactions. While they do not, peers' transactions are not needed, and
    /// messages about them are ignored.
    pub fn are_listed(&self) -> bool {
        !self.are_unlisted.load(Ordering::Relaxed)
    }

    /// Sets whether shares of the network may list transactions.
    pub fn set_listed(&self, are_listed: bool) {
        self.are_unlisted.store(!are_listed, Ordering::Relaxed);
    }

    /// Drops transactions without a holder if there is no room for `bytes` more: what a peer had remembered and forgotten
    /// again does not take the room of others.
    pub(crate) fn make_room(&self, bytes: usize, now: Instant) {
        let mut state = self.state.lock();
        let is_soon = state.searched_at.is_some_and(|at| now.saturating_duration_since(at) < ROOM_INTERVAL);
        if state.known_bytes + bytes <= KNOWN_BYTES_MAX || is_soon {
            return;
        }
        state.searched_at = Some(now);
        state.forget_unheld(now);
    }

    /// Records a template's transactions and reports the new ones. They stay known at least as long as the returned
    /// value is held.
    pub fn set_template(&self, template: impl IntoIterator<Item = Transaction>) -> Arc<TemplateTransactions> {
        let mut state = self.state.lock();
        let mut learned = Vec::new();
        let transactions = template
            .into_iter()
            .map(|transaction| {
                if let Some(known) = state.known.get(&transaction.hash) {
                    return Arc::clone(known);
                }
                let transaction = Arc::new(transaction);
                state.drop_forgotten(&transaction.hash);
                state.add(Arc::clone(&transaction));
                learned.push(transaction.hash);
                transaction
            })
            .collect();
        Arc::new(TemplateTransactions { transactions, learned })
    }

    /// Records a peer's transaction and returns the one known under its hash, with a flag that is set if it is new.
    /// `None` if there is no room for it ([`KNOWN_BYTES_MAX`]).
    pub fn learn(&self, transaction: Transaction) -> Option<(Arc<Transaction>, bool)> {
        let mut state = self.state.lock();
        if let Some(known) = state.known.get(&transaction.hash) {
            return Some((Arc::clone(known), false));
        }
        state.drop_forgotten(&transaction.hash);
        if state.known_bytes + transaction.size() > KNOWN_BYTES_MAX {
            return None;
        }
        let transaction = Arc::new(transaction);
        state.add(Arc::clone(&transaction));
        Some((transaction, true))
    }

    /// Returns the transaction with this hash, if it is known or was forgotten recently.
    pub fn find(&self, hash: &Digest) -> Option<Arc<Transaction>> {
        self.state.lock().find(hash).cloned()
    }

    /// True if [`Transactions::find`] finds it.
    pub fn knows(&self, hash: &Digest) -> bool {
        self.state.lock().find(hash).is_some()
    }

    /// Returns the hashes of all known transactions, in no particular order.
    pub fn hashes(&self) -> Vec<Digest> {
        self.state.lock().known.keys().copied().collect()
    }

    /// Total size of the known transactions, in bytes.
    pub fn known_bytes(&self) -> usize {
        self.state.lock().known_bytes
    }

    /// Forgets transactions without a holder (a peer's memory or a held template) that recent shares do not name
    /// either, and returns their hashes. Call about every ten seconds, as the reference does.
    pub fn forget_old(&self, named: &HashSet<Digest>, now: Instant) -> Vec<Digest> {
        let mut state = self.state.lock();
        state.named.clone_from(named);
        state.forget_unheld(now)
    }
}

/// Reads one transaction, with or without witness, and returns its bytes.
///
/// # Errors
/// [`UnpackError`].
pub(super) fn read<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], UnpackError> {
    let from = reader.at();
    reader.u32("tx.version")?;
    let mut inputs = reader.varint("tx.tx_ins")?;
    let has_witness = inputs == 0;
    if has_witness {
        let at = reader.at();
        if reader.u8("tx.flag")? == 0 {
            return Err(UnpackError::Impossible { field: "tx.flag", at, value: 0 });
        }
        inputs = reader.varint("tx.tx_ins")?;
    }
    // Counts are not used for allocation, and each missing element ends the loop with an error.
    for _ in 0..inputs {
        reader.bytes("tx_in.previous_output", 36)?;
        reader.varstr("tx_in.script")?;
        reader.u32("tx_in.sequence")?;
    }
    for _ in 0..reader.varint("tx.tx_outs")? {
        reader.u64("tx_out.value")?;
        reader.varstr("tx_out.script")?;
    }
    if has_witness {
        for _ in 0..inputs {
            for _ in 0..reader.varint("tx.witness")? {
                reader.varstr("tx.witness.item")?;
            }
        }
    }
    reader.u32("tx.lock_time")?;
    Ok(reader.since(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small transaction with a hash of its own.
    fn transaction(number: u8) -> Transaction {
        let mut raw = vec![1, 0, 0, 0, 1];
        raw.extend([number; 36]);
        raw.extend([0; 4 + 1 + 1 + 4]);
        raw[41] = 0;
        Transaction::from_message(&raw.into())
    }

    #[test]
    fn a_template_says_what_is_new_and_is_known_while_it_is_held() {
        let known = Transactions::new();
        let now = Instant::now();
        let first = known.set_template([transaction(1), transaction(2)]);
        assert_eq!(first.learned, [transaction(1).hash, transaction(2).hash]);
        let second = known.set_template([transaction(2), transaction(3)]);
        assert_eq!(second.learned, [transaction(3).hash]);
        assert!(known.forget_old(&HashSet::new(), now).is_empty());
        drop(first);
        assert_eq!(known.forget_old(&HashSet::new(), now), [transaction(1).hash]);
        assert_eq!(known.hashes().len(), 2);
        assert_eq!(known.known_bytes(), 2 * transaction(1).size());
    }

    #[test]
    fn what_recent_shares_name_is_not_forgotten() {
        let known = Transactions::new();
        known.learn(transaction(1));
        let named = HashSet::from([transaction(1).hash]);
        assert!(known.forget_old(&named, Instant::now()).is_empty());
        assert!(known.knows(&transaction(1).hash));
    }

    #[test]
    fn what_was_forgotten_is_found_for_20_seconds_and_then_is_known_again() {
        let known = Transactions::new();
        let start = Instant::now();
        for number in 1..=3 {
            known.learn(transaction(number));
        }
        assert_eq!(known.forget_old(&HashSet::new(), start).len(), 3);
        assert_eq!((known.hashes().len(), known.known_bytes()), (0, 0));
        // One that is named is known again...
        assert_eq!(known.find(&transaction(1).hash).map(|one| one.hash), Some(transaction(1).hash));
        assert_eq!(known.hashes(), [transaction(1).hash]);
        // ...one that is learned again is new...
        assert!(known.learn(transaction(2)).is_some_and(|(_, is_new)| is_new));
        known.forget_old(&HashSet::from([transaction(1).hash, transaction(2).hash]), start + FORGOTTEN_KEPT);
        // ...and one that is neither is gone.
        assert!(!known.knows(&transaction(3).hash));
        assert_eq!(known.known_bytes(), 2 * transaction(1).size());
    }

    #[test]
    fn strangers_cannot_have_more_kept_than_there_is_room_for() {
        let known = Transactions::new();
        let big = |number: u8| Transaction { hash: [number; 32], raw: vec![0; KNOWN_BYTES_MAX / 4].into() };
        for number in 1..=3 {
            assert!(known.learn(big(number)).is_some());
        }
        assert_eq!(known.learn(big(4)), None);
        assert!(known.learn(big(3)).is_some_and(|(_, is_new)| !is_new));
        // Our own templates are exempt.
        assert_eq!(known.set_template([transaction(1)]).learned.len(), 1);
        known.forget_old(&HashSet::new(), Instant::now());
        assert!(known.state.lock().forgotten_bytes <= FORGOTTEN_BYTES_MAX);
    }

    #[test]
    fn transactions_end_where_bitcoin_says_and_counts_are_not_believed() {
        let plain = transaction(5).raw;
        let mut reader = Reader::new(&plain);
        assert_eq!(read(&mut reader).map(<[u8]>::len), Ok(plain.len()));
        for short in 0..plain.len() {
            assert!(read(&mut Reader::new(&plain[..short])).is_err());
        }
        let endless = [&[1, 0, 0, 0, 0xff][..], &[0xff; 8], &[0; 100]].concat();
        assert!(read(&mut Reader::new(&endless)).is_err());
        // A marker without a witness would parse as one transaction and hash as another.
        assert!(read(&mut Reader::new(&[0; 12])).is_err());
    }
}
