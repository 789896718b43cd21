//! Files of the P2P task: addresses and bans, read at the start and saved now and then.

use futures::stream::StreamExt;
use p2p::swarm::{Now, Swarm};
use tracing::warn;

use super::{Completion, Driver, now};
use crate::peers::files;
use crate::runtime::disk::Part;

impl Driver {
    /// Loads addresses and bans of earlier runs.
    pub(super) async fn load(&mut self) {
        let loaded = files::load(self.inputs.data_dir.path()).await;
        self.take_up(loaded);
    }

    pub(super) fn take_up(&mut self, (addresses, bans): files::Loaded) {
        let now = now();
        let mut problems = Vec::new();
        for (text, take) in
            [(addresses, Swarm::load_addresses as fn(&mut Swarm, &str, Now) -> Vec<String>), (bans, Swarm::load_bans)]
        {
            match text {
                Ok(Some(text)) => problems.extend(take(&mut self.swarm, &text, now)),
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        for problem in problems {
            warn!(%problem, "cannot read saved peers");
        }
    }

    /// Saves addresses and bans, unless a save is running.
    pub(super) fn save(&mut self) {
        if !self.inputs.data_dir.is_ours() || std::mem::replace(&mut self.is_saving, true) {
            return;
        }
        let saving = self.saving();
        self.start(async move { Completion::Saved(saving.await) });
    }

    fn saving(&mut self) -> impl Future<Output = Vec<String>> + Send + 'static {
        let (addresses, bans) = (self.swarm.addresses_json(), self.swarm.take_changed_bans_json());
        files::save(self.inputs.data_dir.path().to_owned(), addresses, bans)
    }

    pub(super) fn note_saved(&mut self, problems: Vec<String>) {
        for problem in &problems {
            warn!(%problem, "cannot save peers");
        }
        if !problems.is_empty() {
            self.swarm.mark_bans_changed();
        }
        self.inputs.disk.report(Part::Peers, problems.into_iter().next());
    }

    pub(super) async fn save_last(&mut self) {
        // A running save must not be overtaken, nor cut off by the end of the process.
        while self.is_saving
            && let Some(done) = self.under_way.next().await
        {
            if matches!(done, Completion::Saved(_)) {
                self.handle_done(done);
            }
        }
        if self.inputs.data_dir.is_ours() {
            let problems = self.saving().await;
            self.note_saved(problems);
        }
    }
}
