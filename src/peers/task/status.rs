//! Status of the P2P task: published, measured and logged.

use metrics::gauge;
use std::sync::Arc;
use stratum::printable::escaped;
use tracing::{info, warn};

use super::{Driver, now};

impl Driver {
    pub(super) fn publish(&mut self) {
        let status = self.swarm.status(now());
        let incoming = status.peers.iter().filter(|peer| peer.is_incoming).count();
        set("p2p_peers", Some(("direction", "in")), incoming);
        set("p2p_peers", Some(("direction", "out")), status.peers.len() - incoming);
        set("p2p_bans", None, status.banned.len());
        set("p2p_addresses", None, status.addresses);
        let missing = status.downloading.map_or(0, |progress| progress.wanted_estimate.saturating_sub(progress.have));
        gauge!("p2p_download_shares_missing").set(f64::from(missing));
        let rate = status.downloading.map_or(0.0, |progress| progress.per_second);
        gauge!("p2p_download_shares_per_second").set(rate);
        let has_peers = !status.peers.is_empty();
        if has_peers != self.had_peers {
            self.had_peers = has_peers;
            match status.peers.first() {
                Some(first) => info!(
                    address = %first.address,
                    software = %escaped(&first.sub_version),
                    "connected to the pool"
                ),
                None => warn!("no peer is left: looking for others"),
            }
        }
        let status = Arc::new(status);
        self.status.send_if_modified(|told| {
            let has_changed = **told != *status;
            *told = status;
            has_changed
        });
    }

    pub(super) fn report_progress(&mut self) {
        let progress = self.swarm.status(now()).downloading;
        match progress {
            Some(progress) => {
                let seconds_left = progress.seconds_left.map(f64::ceil);
                info!(
                    have = progress.have,
                    of_about = progress.wanted_estimate,
                    per_second = progress.per_second.round(),
                    seconds_left,
                    "downloading shares"
                );
            }
            None if self.was_downloading => info!("all shares downloaded"),
            None => {}
        }
        self.was_downloading = progress.is_some();
    }
}

fn set(name: &'static str, label: Option<(&'static str, &'static str)>, value: usize) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 of anything")]
    let value = value as f64;
    match label {
        Some((label, word)) => gauge!(name, label => word).set(value),
        None => gauge!(name).set(value),
    }
}
