//! `RecentTemplates`: the one memory of templates and their transactions, for all who need more than the newest template.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use sharechain::merkle::Digest;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

use super::{NextBlock, Template, TemplateTransaction};

/// Maximum number of templates kept, for the latest two parent blocks: minutes of them.
pub const TEMPLATES_MAX: usize = 20;

/// Maximum number of parent blocks of which templates are kept.
pub const PARENTS_MAX: usize = 2;

/// The latest templates. A transaction in several of them is in memory once. Immutable; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RecentTemplates {
    /// Latest last.
    templates: VecDeque<Arc<Template>>,
    /// By the hash over all of their bytes.
    transactions: Arc<HashMap<Digest, TemplateTransaction>>,
}

impl RecentTemplates {
    /// The template, with the bytes of those of its transactions that are known already shared.
    fn pooled(&self, template: Template) -> Template {
        let shared = |one: &TemplateTransaction| match self.find(&one.wtxid.to_byte_array()) {
            Some(known) => TemplateTransaction { raw: known.raw.clone(), ..one.clone() },
            None => one.clone(),
        };
        Template { transactions: template.transactions.iter().map(shared).collect(), ..template }
    }

    /// These and `template`, without those that are then too many or too old.
    fn with(&self, template: Arc<Template>) -> Self {
        let mut transactions = HashMap::clone(&self.transactions);
        transactions.extend(template.transactions.iter().map(|one| (one.wtxid.to_byte_array(), one.clone())));
        let mut templates = self.templates.clone();
        templates.push_back(template);
        let before = templates.len();
        let mut parents: Vec<BlockHash> = Vec::new();
        for template in templates.iter().rev() {
            if !parents.contains(&template.previous_block) {
                parents.push(template.previous_block);
            }
        }
        parents.truncate(PARENTS_MAX);
        templates.retain(|template| parents.contains(&template.previous_block));
        while templates.len() > TEMPLATES_MAX {
            templates.pop_front();
        }
        if templates.len() < before {
            let still: HashSet<Digest> = (templates.iter())
                .flat_map(|template| template.transactions.iter().map(|one| one.wtxid.to_byte_array()))
                .collect();
            transactions.retain(|wtxid, _| still.contains(wtxid));
        }
        Self { templates, transactions: Arc::new(transactions) }
    }

    /// Templates of blocks on `parent`, a raw digest; the latest first.
    pub fn on(&self, parent: &Digest) -> impl Iterator<Item = &Arc<Template>> {
        self.templates.iter().rev().filter(|template| template.previous_block.to_byte_array() == *parent)
    }

    /// The transaction with this hash over all of its bytes.
    pub fn find(&self, wtxid: &Digest) -> Option<&TemplateTransaction> {
        self.transactions.get(wtxid)
    }

    /// All transactions, each once, by the hash over all of their bytes.
    pub fn transactions(&self) -> impl Iterator<Item = (&Digest, &TemplateTransaction)> {
        self.transactions.iter()
    }
}

/// Publishes the templates of a daemon: the newest at once, then the recent ones.
#[derive(Debug)]
pub struct TemplateSender {
    newest: watch::Sender<Option<Arc<Template>>>,
    next_block: watch::Sender<Option<NextBlock>>,
    recent: watch::Sender<Arc<RecentTemplates>>,
}

impl Default for TemplateSender {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(None),
            next_block: watch::Sender::new(None),
            recent: watch::Sender::new(Arc::default()),
        }
    }
}

impl TemplateSender {
    /// Publishes a template.
    pub fn send(&self, template: Template) {
        let before = self.recent.borrow().clone();
        let template = Arc::new(before.pooled(template));
        self.newest.send_replace(Some(template.clone()));
        let next = Some(NextBlock { previous_block: template.previous_block, height: template.height });
        self.next_block.send_if_modified(|published| std::mem::replace(published, next) != next);
        self.recent.send_replace(Arc::new(before.with(template)));
    }

    /// Withdraws the newest template: nothing is to be mined. The recent ones stay known.
    pub fn withdraw(&self) {
        self.newest.send_if_modified(|template| template.take().is_some());
        self.next_block.send_if_modified(|next| next.take().is_some());
    }

    /// The newest template; `None` before the first, and while it is withdrawn.
    pub fn newest(&self) -> watch::Receiver<Option<Arc<Template>>> {
        self.newest.subscribe()
    }

    /// Position of the block that the newest template is for. Its subscribers are not woken by mere new transactions.
    pub fn next_block(&self) -> watch::Receiver<Option<NextBlock>> {
        self.next_block.subscribe()
    }

    /// The recent templates.
    pub fn recent(&self) -> watch::Receiver<Arc<RecentTemplates>> {
        self.recent.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::TemplateParts;
    use super::super::tests::{RULES, parts, transaction};
    use super::*;

    fn template(parent: u8, transactions: u8) -> Template {
        let previous_block = BlockHash::from_byte_array([parent; 32]);
        let transactions = (0..transactions).map(transaction).collect();
        Template::new(TemplateParts { previous_block, transactions, ..parts() }, RULES).unwrap()
    }

    #[test]
    fn templates_of_the_last_two_parents_are_held_and_no_transaction_twice() {
        let sender = TemplateSender::default();
        let recent = sender.recent();
        for number in 0..30_u8 {
            sender.send(template(number / 10, 20));
            let parents: HashSet<BlockHash> =
                recent.borrow().templates.iter().map(|template| template.previous_block).collect();
            assert!(parents.len() <= PARENTS_MAX && recent.borrow().templates.len() <= TEMPLATES_MAX);
        }
        assert_eq!(recent.borrow().templates.len(), TEMPLATES_MAX);
        let first = recent.borrow().templates[0].clone();
        let newest = sender.newest().borrow().clone().unwrap();
        assert_eq!(first.transactions[3].raw.as_ptr(), newest.transactions[3].raw.as_ptr());
        sender.send(template(8, 2));
        sender.send(template(9, 2));
        assert_eq!((recent.borrow().templates.len(), recent.borrow().transactions.len()), (2, 2));
        assert_eq!(recent.borrow().on(&[9; 32]).count(), 1);
        sender.withdraw();
        assert!(sender.newest().borrow().is_none() && recent.borrow().templates.len() == 2);
    }

    #[test]
    fn the_next_block_is_announced_once_however_many_templates_there_are_for_it() {
        let sender = TemplateSender::default();
        let mut next = sender.next_block();
        let mut announced =
            || next.has_changed().unwrap().then(|| next.borrow_and_update().map(|next| next.previous_block));
        let parent = |seed| Some(Some(BlockHash::from_byte_array([seed; 32])));
        sender.send(template(1, 0));
        assert_eq!(announced(), parent(1));
        sender.send(template(1, 2));
        assert_eq!(announced(), None);
        sender.send(template(2, 2));
        assert_eq!(announced(), parent(2));
        sender.withdraw();
        assert_eq!(announced(), Some(None));
        sender.send(template(2, 2));
        assert_eq!(announced(), parent(2), "the daemon is back");
    }
}
