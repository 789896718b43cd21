//! Transactions of a connection: those that the peer asked us to remember, those that it announced as known, and those
//! that we asked it to remember (protocol section 3.8, corrected in section 18.1).

use sharechain::merkle::Digest;
use sharechain::share::Share;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::{Close, Offence};
use crate::message::Message;
use crate::transactions::{REMEMBERED_BYTES_MAX, TemplateTransactions, Transaction, Transactions};

/// Maximum hashes kept of the peer's known transactions, as in the reference. A missing one is sent again.
const THEIRS_MAX: usize = 10_000;

/// A transaction remembered for a peer.
#[derive(Debug)]
struct Remembered {
    size: usize,
    /// Keeps it known. `None` if there was no room for it.
    _transaction: Option<Arc<Transaction>>,
}

/// Transactions of one connection.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    remembered: HashMap<Digest, Remembered>,
    remembered_bytes: usize,
    theirs: HashSet<Digest>,
    /// In order of arrival; may contain some that are gone.
    theirs_by_age: VecDeque<Digest>,
    ours: Option<Ours>,
}

/// Transactions of the current template that the peer remembers for us.
#[derive(Debug, Default)]
struct Ours {
    sent: Vec<Arc<Transaction>>,
    hashes: HashSet<Digest>,
    bytes: usize,
}

impl Forwarding {
    /// Bytes remembered for the peer.
    pub(super) fn remembered_bytes(&self) -> usize {
        self.remembered_bytes
    }

    /// Drops what the peer announced and asked us to remember: no share needs it any more.
    pub(super) fn release(&mut self) {
        if !self.remembered.is_empty() || !self.theirs.is_empty() {
            *self = Forwarding { ours: self.ours.take(), ..Forwarding::default() };
        }
    }

    /// Handles `have_tx`.
    pub(super) fn handle_have(&mut self, hashes: Vec<Digest>) {
        for hash in hashes {
            if self.theirs.insert(hash) {
                self.theirs_by_age.push_back(hash);
            }
            while self.theirs.len() > THEIRS_MAX {
                let Some(oldest) = self.theirs_by_age.pop_front() else { break };
                self.theirs.remove(&oldest);
            }
        }
        if self.theirs_by_age.len() > 2 * THEIRS_MAX {
            self.theirs_by_age.retain(|hash| self.theirs.contains(hash));
        }
    }

    /// Handles `losing_tx`.
    pub(super) fn handle_losing(&mut self, hashes: &[Digest]) {
        for hash in hashes {
            self.theirs.remove(hash);
        }
    }

    /// Handles `remember_tx`. Returns the transactions that were new to this node. With `is_lax`, hashes of unknown
    /// transactions are skipped.
    pub(super) fn handle_remember(
        &mut self,
        hashes: Vec<Digest>,
        transactions: &[bytes::Bytes],
        known: &Transactions,
        now: Instant,
        is_lax: bool,
    ) -> Result<Vec<Digest>, Close> {
        known.make_room(transactions.iter().map(bytes::Bytes::len).sum(), now);
        for hash in hashes {
            let Some(transaction) = known.find(&hash) else {
                if is_lax {
                    continue;
                }
                return Err(unknown(&hash));
            };
            self.remember(hash, transaction.size(), Some(transaction))?;
        }
        let mut learned = Vec::new();
        for raw in transactions {
            let transaction = Transaction::from_message(raw);
            let (hash, size) = (transaction.hash, transaction.size());
            let kept = known.learn(transaction);
            if let Some((_, true)) = kept {
                learned.push(hash);
            }
            self.remember(hash, size, kept.map(|(transaction, _)| transaction))?;
        }
        Ok(learned)
    }

    fn remember(&mut self, hash: Digest, size: usize, transaction: Option<Arc<Transaction>>) -> Result<(), Close> {
        let remembered = Remembered { size, _transaction: transaction };
        if self.remembered.insert(hash, remembered).is_some() {
            let hash = sharechain::share::display_hex(&hash);
            return Err(Close::Quiet(format!("transaction {hash} remembered twice")));
        }
        self.remembered_bytes += size;
        if self.remembered_bytes >= REMEMBERED_BYTES_MAX {
            return Err(Offence::TooMuchToRemember(self.remembered_bytes).into());
        }
        Ok(())
    }

    /// Handles `forget_tx`. With `is_lax`, hashes that were not remembered are skipped.
    pub(super) fn handle_forget(&mut self, hashes: &[Digest], is_lax: bool) -> Result<(), Close> {
        for hash in hashes {
            let Some(gone) = self.remembered.remove(hash) else {
                if is_lax {
                    continue;
                }
                let hash = sharechain::share::display_hex(hash);
                return Err(Close::Quiet(format!("transaction {hash} forgotten without being remembered")));
            };
            self.remembered_bytes -= gone.size;
        }
        Ok(())
    }

    /// Returns the messages that announce the current template.
    pub(super) fn template(&mut self, template: &TemplateTransactions, known: &Transactions) -> Vec<Message> {
        let Some(ours) = &mut self.ours else {
            let mut ours = Ours::default();
            let sent = ours.add(&template.transactions);
            self.ours = Some(ours);
            let transactions = sent.iter().map(|one| one.raw.clone()).collect();
            return vec![Message::HaveTx(known.hashes()), Message::RememberTx { hashes: Vec::new(), transactions }];
        };
        let mut messages = Vec::new();
        let gone = ours.retain(&template.transactions);
        if !gone.is_empty() {
            messages.push(Message::ForgetTx(gone));
        }
        let added = ours.add(&template.transactions);
        if !added.is_empty() {
            let (theirs, others): (Vec<_>, Vec<_>) = added.iter().partition(|one| self.theirs.contains(&one.hash));
            messages.push(Message::RememberTx {
                hashes: theirs.iter().map(|one| one.hash).collect(),
                transactions: others.iter().map(|one| one.raw.clone()).collect(),
            });
        }
        if !template.learned.is_empty() {
            messages.push(Message::HaveTx(template.learned.clone()));
        }
        messages
    }

    /// True if the peer received a template, and must receive later ones.
    pub(super) fn has_begun(&self) -> bool {
        self.ours.is_some()
    }

    /// Returns the messages before and after a `shares` with these shares; `None` if we lack a transaction that they
    /// name, or these exceed what a peer may be given.
    pub(super) fn around_shares(&self, shares: &[&Arc<Share>], known: &Transactions) -> Option<CompanionMessages> {
        let (mut wanted, mut seen, mut to_send) = (false, HashSet::new(), Vec::new());
        let mut bytes = self.ours.as_ref().map_or(0, |ours| ours.bytes);
        let is_told = |hash: &Digest| self.ours.as_ref().is_some_and(|ours| ours.hashes.contains(hash));
        for refs in shares.iter().filter_map(|share| share.info().transactions.as_ref()) {
            for hash in refs.new_hashes.iter().filter(|hash| seen.insert(**hash)) {
                let transaction = known.find(hash)?;
                if self.theirs.contains(hash) {
                    continue;
                }
                wanted = true;
                if !is_told(hash) {
                    bytes += transaction.size();
                    to_send.push(transaction);
                }
            }
        }
        if bytes >= REMEMBERED_BYTES_MAX {
            return None;
        }
        Some(CompanionMessages {
            // The reference also sends an empty one if the template has everything that the peer lacks.
            before: wanted.then(|| Message::RememberTx {
                hashes: Vec::new(),
                transactions: to_send.iter().map(|one| one.raw.clone()).collect(),
            }),
            after: (!to_send.is_empty()).then(|| Message::ForgetTx(to_send.iter().map(|one| one.hash).collect())),
        })
    }
}

#[cfg(test)]
impl Forwarding {
    /// Number of hashes kept of the peer's known transactions, and number in the order of their age.
    pub(super) fn theirs_kept(&self) -> (usize, usize) {
        (self.theirs.len(), self.theirs_by_age.len())
    }
}

/// Messages around a `shares`.
#[derive(Debug)]
pub(super) struct CompanionMessages {
    pub(super) before: Option<Message>,
    pub(super) after: Option<Message>,
}

impl Ours {
    /// Keeps only the transactions in `template`, and returns the removed ones.
    fn retain(&mut self, template: &[Arc<Transaction>]) -> Vec<Digest> {
        let stays: HashSet<&Digest> = template.iter().map(|one| &one.hash).collect();
        let (sent, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sent).into_iter().partition(|one| stays.contains(&one.hash));
        self.sent = sent;
        for one in &gone {
            self.hashes.remove(&one.hash);
            self.bytes -= one.size();
        }
        gone.iter().map(|one| one.hash).collect()
    }

    /// Adds the transactions in `template` that a peer must remember, and returns the added ones.
    fn add(&mut self, template: &[Arc<Transaction>]) -> Vec<Arc<Transaction>> {
        let mut added = Vec::new();
        for one in template {
            if self.bytes + one.size() < REMEMBERED_BYTES_MAX && self.hashes.insert(one.hash) {
                self.bytes += one.size();
                added.push(Arc::clone(one));
            }
        }
        self.sent.extend_from_slice(&added);
        added
    }
}

/// Checks that every transaction first named by a peer's share is known.
pub(super) fn check_share(share: &Share, known: &Transactions) -> Result<(), Close> {
    missing(known, share).map_or(Ok(()), |hash| Err(unknown(hash)))
}

/// True if we have every transaction first named by a share.
pub(super) fn has_all_of(known: &Transactions, share: &Share) -> bool {
    missing(known, share).is_none()
}

fn missing<'a>(known: &Transactions, share: &'a Share) -> Option<&'a Digest> {
    let refs = share.info().transactions.as_ref()?;
    refs.new_hashes.iter().find(|hash| !known.knows(hash))
}

fn unknown(hash: &Digest) -> Close {
    Close::Quiet(format!("transaction {} is unknown", sharechain::share::display_hex(hash)))
}
