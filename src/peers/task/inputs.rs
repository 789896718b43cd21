//! Inputs of the P2P task: events and needs of the share chain, templates and blocks of the daemon.

use bitcoin::hashes::Hash;
use p2p::swarm::Parent;
use p2p::transactions::Transaction;
use sharechain::share::Share;
use std::sync::Arc;
use tokio::sync::mpsc;
use tracing::debug;

use super::{Driver, now};
use crate::chain::{ChainEvent, Received};
use crate::template::TemplateTransaction;

impl Driver {
    pub(super) fn handle_chain(&mut self, event: ChainEvent) {
        match event {
            ChainEvent::TipChanged { newest_first, .. } => {
                let height = self.inputs.chain.tips.borrow().as_ref().map_or(0, |tip| tip.height());
                self.swarm.handle_tip(&newest_first, height);
                self.note_listing();
            }
            ChainEvent::Accepted { share, .. } => {
                self.lists.note(&share);
                self.swarm.handle_accepted(&share);
            }
            ChainEvent::Refused { hash, source, reason } => {
                self.swarm.handle_refused(hash, source, &reason, now());
            }
            ChainEvent::Block { share, .. } => self.swarm.handle_block(&share, now()),
            ChainEvent::Late(_) => {}
        }
    }

    /// Continues from the current tip after missed events.
    pub(super) fn catch_up(&mut self, missed: u64) {
        debug!(missed, "events of the share chain were missed");
        let tip = self.inputs.chain.tips.borrow().clone();
        if let Some(tip) = tip {
            let best: Vec<Arc<Share>> = tip.best().cloned().into_iter().collect();
            self.swarm.handle_tip(&best, tip.height());
            self.note_listing();
        }
    }

    /// Keeps in mind whether peers' transactions are needed.
    pub(super) fn note_listing(&mut self) {
        let (tip, minimum) = (self.inputs.chain.tips.borrow().clone(), *self.inputs.chain.minimum_protocol.borrow());
        self.context.known.set_listed(self.lists.are_in_use(tip.as_deref(), minimum));
    }

    pub(super) fn handle_template(&mut self) {
        let template = self.inputs.templates.borrow_and_update().clone();
        let Some(template) = template else { return };
        let transactions = self.context.known.set_template(template.transactions.iter().map(forwarded));
        self.handle_parent();
        self.swarm.handle_template(transactions);
    }

    pub(super) fn handle_parent(&mut self) {
        let heights = self.inputs.heights.borrow_and_update().clone();
        let template = self.inputs.templates.borrow().clone();
        let Some(template) = template else { return };
        let best_height = heights.values().copied().max().unwrap_or_default().max(template.height.saturating_sub(1));
        self.swarm.handle_parent(Parent {
            heights,
            best_height,
            previous_block: template.previous_block.to_byte_array(),
            target: template.block_target(),
        });
    }

    pub(super) fn handle_header(&mut self) {
        let header = *self.inputs.best_header.borrow_and_update();
        if let Some(header) = header {
            self.swarm.handle_own_header(header);
        }
    }

    /// Handles a better block known to a peer or to our own daemon.
    pub(super) fn note_header(&self, header: &[u8; 80]) {
        if self.inputs.best_header.borrow().as_ref() != Some(header) {
            debug!("a peer announced a new block: polling the daemon");
            self.inputs.news.notify_one();
        }
    }

    pub(super) fn handle_needs(&mut self) {
        let needs = self.inputs.chain.needs.borrow_and_update().clone();
        self.swarm.handle_needs(&needs.wanted, &needs.stops, now());
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.news.is_empty() || !self.replies.is_empty()
    }

    pub(super) fn pass_on(&mut self, slot: mpsc::OwnedPermit<Received>) {
        let Some(batch) = self.news.pop_front().or_else(|| self.replies.pop_front()) else { return };
        let count = batch.received.shares.len();
        slot.send(batch.received);
        self.swarm.handle_taken(count, now());
    }
}

/// Converts a template's transaction for peers.
fn forwarded(one: &TemplateTransaction) -> Transaction {
    Transaction { hash: one.wtxid.to_byte_array(), raw: one.raw.clone() }
}
