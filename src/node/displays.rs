//! Wiring of what people look at: snapshot, graphs, the control socket.

use std::sync::Arc;
use stratum::server::Server;
use tokio::sync::watch;

use super::{Local, Wiring};
use crate::merged::{self, ChainStatus};
use crate::peers;
use crate::rates::Rates;
use crate::runtime::clock::unix_now;
use crate::runtime::log::Tail;
use crate::view::control;
use crate::view::control::routes::KeptBlocks;
use crate::view::graphs::{self, Graphs};
use crate::view::http::{SmallDevices, Sources};
use crate::view::snapshot::{self, Snapshot};
use crate::work::{self, WorkSet};

impl Wiring<'_> {
    /// Collects the figures that people look at.
    pub(super) fn take_snapshots(
        &self,
        work: &work::Config,
        local: &Local,
        merged: watch::Receiver<Arc<Vec<ChainStatus>>>,
    ) -> watch::Receiver<Arc<Snapshot>> {
        let shown = snapshot::Config {
            network: self.network,
            payout_address: work.default_payout.address.clone(),
            fee_percent: work.fee_percent,
            donation_percent: work.donation_percent,
        };
        let (figures_sender, snapshot) = watch::channel(Arc::new(Snapshot::new(&shown, unix_now())));
        let inputs = snapshot::Inputs {
            chain: self.sharechain.clone(),
            templates: self.daemon.templates.clone(),
            health: self.daemon.health.clone(),
            rates: local.rates.clone(),
            peers: local.peers.clone(),
            gate: local.gate.clone(),
            disk: self.disk.watch(),
            merged,
        };
        self.tasks.spawn("figures", snapshot::run(shown, inputs, figures_sender, self.tasks.stop_signal()));
        snapshot
    }

    /// Records the figures over time.
    pub(super) fn draw_graphs(
        &self,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        rates: watch::Receiver<Arc<Rates>>,
        traffic: Arc<peers::Traffic>,
    ) -> Graphs {
        let graphs = Graphs::default();
        let inputs = graphs::Inputs { snapshot, rates, chain: self.sharechain.clone(), traffic };
        let kept = (self.data_dir.clone(), self.disk.clone());
        self.tasks.spawn("graphs", graphs::run(graphs.clone(), inputs, kept, self.tasks.stop_signal()));
        graphs
    }

    /// Serves the control socket.
    pub(super) fn serve_control(&self, public: Sources, merged: &merged::Handle, log: Tail) {
        let (resubmitter, reports) = (self.daemon.resubmitter.clone(), self.daemon.reports.clone());
        let parents = KeptBlocks { chain: None, resubmitter, reports };
        let of_merged = merged.kept.iter().map(|kept| {
            let merged::KeptBlocks { chain, resubmitter, reports } = kept.clone();
            KeptBlocks { chain: Some(chain), resubmitter, reports }
        });
        let kept = std::iter::once(parents).chain(of_merged).collect();
        let router = control::routes::router(control::routes::Sources { public, kept, log });
        let control = control::server::run(router, self.data_dir.clone(), self.tasks.stop_signal());
        self.tasks.spawn("control", control);
    }
}

/// Look-up of the miners of `server` whose devices are too small for a job.
pub(super) fn small_devices(server: Arc<Server<WorkSet>>) -> SmallDevices {
    SmallDevices(Arc::new(move || server.small_devices()))
}
