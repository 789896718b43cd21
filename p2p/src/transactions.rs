//! The transactions that this node knows, by the hash of all their bytes: those of its templates and those that peers
//! asked it to remember (protocol section 3.8).
//!
//! Only shares before version 34 name transactions. A node that has no shares yet forwards them all the same, so every
//! node must take them.

use bytes::Bytes;
use parking_lot::Mutex;
use sharechain::merkle::Digest;
use sharechain::pack::{Reader, UnpackError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use super::command::REMEMBERED_BYTES_MAX;
use super::frame::sha256d;

/// What a remembered transaction counts beyond its own bytes.
const OVERHEAD_BYTES: usize = 100;

/// Fewest bytes of a transaction: version, no inputs behind the marker, flag, no outputs, lock time.
pub(super) const TRANSACTION_BYTES_MIN: usize = 12;

/// How long a transaction is kept after it was forgotten: a peer may name it before it hears that we lost it.
pub const FORGOTTEN_KEPT: Duration = Duration::from_secs(20);

/// Bytes of forgotten transactions that are kept so long.
const FORGOTTEN_BYTES_MAX: usize = REMEMBERED_BYTES_MAX;

/// Bytes of transactions that are kept for all peers together: four that have us remember as much as they may. Beyond
/// it, what peers send is counted but not kept, and a share that names it ends the connection.
pub const KNOWN_BYTES_MAX: usize = 4 * REMEMBERED_BYTES_MAX;

/// A transaction with its witness.
#[derive(Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Hash of all its bytes: its wtxid (a coinbase has another by Bitcoin's rules, but no coinbase is forwarded).
    pub hash: Digest,
    /// As it goes into a block.
    pub raw: Bytes,
}

impl Transaction {
    /// The transaction of these bytes, which are copied: they are a slice of a message that is not to stay.
    pub fn from_message(raw: &Bytes) -> Transaction {
        Transaction { hash: sha256d(raw), raw: Bytes::copy_from_slice(raw) }
    }

    /// What it counts against [`REMEMBERED_BYTES_MAX`], in bytes.
    pub fn size(&self) -> usize {
        OVERHEAD_BYTES + self.raw.len()
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({}, {} bytes)", sharechain::share::display_hex(&self.hash), self.raw.len())
    }
}

/// The transactions of one template: what peers of old share chains are to remember for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateTransactions {
    /// In block order.
    pub transactions: Vec<Arc<Transaction>>,
    /// Those among them that this node did not know before.
    pub learned: Vec<Digest>,
}

/// What this node knows. Shared by all connections; each call holds its lock for a few look-ups.
#[derive(Debug, Default)]
pub struct Transactions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Digest, Arc<Transaction>>,
    known_bytes: usize,
    forgotten: HashMap<Digest, (Instant, Arc<Transaction>)>,
    /// Oldest first; may hold some that were wanted again since.
    forgotten_by_age: VecDeque<(Instant, Digest)>,
    forgotten_bytes: usize,
}

impl State {
    fn add(&mut self, transaction: Arc<Transaction>) {
        self.known_bytes += transaction.size();
        self.known.insert(transaction.hash, transaction);
    }

    /// Finds a transaction. One that was forgotten a moment ago is known again: somebody names it.
    fn find(&mut self, hash: &Digest) -> Option<&Arc<Transaction>> {
        if let Some((_, transaction)) = self.forgotten.remove(hash) {
            self.forgotten_bytes -= transaction.size();
            self.add(transaction);
        }
        self.known.get(hash)
    }

    /// A transaction that is learned again has not been forgotten any more.
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
    /// Knows nothing.
    pub fn new() -> Transactions {
        Transactions::default()
    }

    /// Takes a template's transactions and says which of them are new. They are known at least as long as somebody holds
    /// the answer.
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

    /// Takes a peer's transaction: the one known under its hash, which is new if the flag says so. None if there is no
    /// room for it ([`KNOWN_BYTES_MAX`]).
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

    /// The transaction with this hash, if it is known or was forgotten a moment ago.
    pub fn find(&self, hash: &Digest) -> Option<Arc<Transaction>> {
        self.state.lock().find(hash).cloned()
    }

    /// Whether [`Transactions::find`] finds it.
    pub fn knows(&self, hash: &Digest) -> bool {
        self.state.lock().find(hash).is_some()
    }

    /// The hashes of all that is known, in no order.
    pub fn hashes(&self) -> Vec<Digest> {
        self.state.lock().known.keys().copied().collect()
    }

    /// Bytes that all that is known counts.
    pub fn known_bytes(&self) -> usize {
        self.state.lock().known_bytes
    }

    /// Forgets all that nobody holds (no peer remembers it, it is in no template that is held) and that recent shares do
    /// not name either. Says what was forgotten. To be called every ten seconds or so, as the reference does.
    pub fn forget_old(&self, named: &HashSet<Digest>, now: Instant) -> Vec<Digest> {
        let mut state = self.state.lock();
        let is_old = |one: &Arc<Transaction>| Arc::strong_count(one) == 1 && !named.contains(&one.hash);
        let lost: Vec<Digest> = state.known.values().filter(|one| is_old(one)).map(|one| one.hash).collect();
        for hash in &lost {
            state.forget(hash, now);
        }
        state.expire(now);
        lost
    }
}

/// Takes one transaction off `reader`, with or without witness, and says which bytes it is.
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
    // No count is allocated for, and each element that is not there ends the loop with an error.
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

    /// A small transaction of its own hash.
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
        // ...one that is learned again is news...
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
        // Templates are ours.
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
        // No witness behind a marker would be read as one thing and hashed as another.
        assert!(read(&mut Reader::new(&[0; 12])).is_err());
    }
}
