//! `BlockTemplates`: templates of blocks, which have as much of a daemon's template as fits beside a coinbase. Hashing the
//! transactions of a full block takes milliseconds, and tips change far more often than templates. Most tips keep what
//! the last one did; those that pay a few miners more or fewer go back and forth between selections.

use std::sync::Arc;

use crate::template::{Selection, Template};

/// Maximum number of selections remembered of one template. Each takes 120 bytes a transaction, a megabyte at most.
const SELECTIONS_MAX: usize = 4;

/// A selection of the daemon's transactions, and the template of a block that has them.
#[derive(Debug)]
struct Made {
    kept: Selection,
    template: Arc<Template>,
}

/// Templates of blocks, all made from one template of the daemon.
#[derive(Debug)]
pub(super) struct BlockTemplates {
    source: Arc<Template>,
    current: Arc<Made>,
    /// Others, the last used first.
    others: Box<[Arc<Made>]>,
}

impl BlockTemplates {
    /// Creates the template of a block that keeps `kept` of `source`, unless `before` has it.
    pub(super) fn new(source: Arc<Template>, kept: Selection, before: Option<&Self>) -> Self {
        let known = before
            .filter(|before| Arc::ptr_eq(&before.source, &source))
            .into_iter()
            .flat_map(|before| std::iter::once(&before.current).chain(&before.others));
        let (same, mut others): (Vec<_>, Vec<_>) = known.cloned().partition(|made| made.kept == kept);
        others.truncate(SELECTIONS_MAX - 1);
        let current =
            same.into_iter().next().unwrap_or_else(|| Arc::new(Made { template: source.keeping(&kept), kept }));
        Self { source, current, others: others.into() }
    }

    /// Template of the current block.
    pub(super) fn current(&self) -> &Arc<Template> {
        &self.current.template
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::testing::{spending, with_extension};
    use crate::template::tests::RULES;

    #[test]
    fn what_tips_keep_of_a_template_is_hashed_once_for_each_of_the_last_few_selections() {
        let template = || {
            let transactions = (0..8).map(|number| spending(number, &[], u64::from(number), 400)).collect();
            Arc::new(Template::new(with_extension(transactions, &[]), RULES).unwrap())
        };
        let source = template();
        let without = |index: usize| Selection::Without([index].into());
        let mut last = BlockTemplates::new(source.clone(), without(0), None);
        let mut made = vec![last.current().clone()];
        for index in 1..SELECTIONS_MAX {
            last = BlockTemplates::new(source.clone(), without(index), Some(&last));
            made.push(last.current().clone());
        }
        for (index, made) in made.iter().enumerate().chain(made.iter().enumerate().rev()) {
            last = BlockTemplates::new(source.clone(), without(index), Some(&last));
            assert!(Arc::ptr_eq(last.current(), made), "{index}");
            assert_eq!(made.transactions.len(), source.transactions.len() - 1);
            assert!(made.transactions.iter().all(|one| one.txid != source.transactions[index].txid), "{index}");
        }
        // The longest unused one goes for another.
        last = BlockTemplates::new(source.clone(), without(SELECTIONS_MAX), Some(&last));
        assert_eq!(1 + last.others.len(), SELECTIONS_MAX);
        let oldest = &made[SELECTIONS_MAX - 1];
        last = BlockTemplates::new(source.clone(), without(SELECTIONS_MAX - 1), Some(&last));
        assert!(!Arc::ptr_eq(last.current(), oldest) && last.current().branch == oldest.branch);
        // Nothing is taken from another template, however alike.
        let next = BlockTemplates::new(template(), without(0), Some(&last));
        assert!(!Arc::ptr_eq(next.current(), &made[0]) && next.others.is_empty());
    }
}
