//! Round trips to peers, measured on demand and at most once per [`LATENCY_KEPT`].

use std::time::{Duration, Instant};

use super::{Action, Now, PeerId, Swarm};
use crate::peer::Order;

/// Time for which a peer's latency is valid: however often it is requested, a peer gets only a few small requests in
/// this time.
pub const LATENCY_KEPT: Duration = Duration::from_secs(10);

/// Round trip of one connection.
#[derive(Debug, Default)]
pub(super) struct Latency {
    last: Option<Duration>,
    measured_at: Option<Instant>,
    is_measuring: bool,
}

impl Latency {
    /// Quickest round trip of the last measurement, in seconds.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.last.as_ref().map(Duration::as_secs_f64)
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_measuring && self.measured_at.is_none_or(|at| now.saturating_duration_since(at) >= LATENCY_KEPT)
    }
}

impl Swarm {
    /// Measures the latency of each peer that was not measured within [`LATENCY_KEPT`]. [`Swarm::is_measuring`] is true
    /// until all of them answered or timed out.
    pub fn measure_latencies(&mut self, now: Now) {
        for (peer, connection) in &mut self.connections {
            if connection.is_up() && connection.latency.is_due(now.instant) {
                connection.latency.is_measuring = true;
                connection.latency.measured_at = Some(now.instant);
                self.actions.push_back(Action::Order(*peer, Order::MeasureLatency));
            }
        }
    }

    /// True while a latency is being measured.
    pub fn is_measuring(&self) -> bool {
        self.connections.values().any(|connection| connection.latency.is_measuring)
    }

    pub(super) fn note_latency(&mut self, peer: PeerId, latency: Option<Duration>) {
        if let Some(connection) = self.connections.get_mut(&peer) {
            connection.latency.is_measuring = false;
            connection.latency.last = latency;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{World, host};
    use super::*;
    use crate::peer::{Close, PeerEvent};

    fn measured(world: &mut World) -> Vec<PeerId> {
        world.swarm.measure_latencies(world.now);
        let orders = world.done().into_iter().filter_map(|action| match action {
            Action::Order(peer, Order::MeasureLatency) => Some(peer),
            _ => None,
        });
        orders.collect()
    }

    fn latencies(world: &World) -> Vec<Option<f64>> {
        world.swarm.status(world.now).peers.iter().map(|peer| peer.latency).collect()
    }

    #[test]
    fn however_often_latencies_are_asked_for_a_peer_is_measured_once_in_a_while() {
        let mut world = World::usual();
        let peers = [world.accept(host(1)), world.accept(host(2))];
        // Its handshake is incomplete.
        world.swarm.handle_incoming(host(3), world.now).unwrap();
        assert_eq!((measured(&mut world), world.swarm.is_measuring()), (peers.to_vec(), true));
        assert_eq!(latencies(&world), [None, None]);
        for peer in peers {
            assert_eq!(measured(&mut world), []);
            world.event(peer, PeerEvent::Latency(Some(Duration::from_millis(20))));
        }
        assert!(!world.swarm.is_measuring());
        assert_eq!(latencies(&world), [Some(0.02), Some(0.02)]);
        assert_eq!(measured(&mut world), []);
        world.pass(LATENCY_KEPT);
        assert_eq!(measured(&mut world), peers);
        // One did not answer in time; the other keeps its value until it does.
        world.event(peers[0], PeerEvent::Latency(None));
        assert_eq!((latencies(&world), world.swarm.is_measuring()), (vec![None, Some(0.02)], true));
    }

    #[test]
    fn a_connection_that_ends_is_not_waited_for() {
        let mut world = World::usual();
        let peer = world.accept(host(1));
        assert_eq!(measured(&mut world), [peer]);
        world.swarm.handle_closed(peer, &Close::Quiet("gone".into()), world.now);
        assert!(!world.swarm.is_measuring());
        world.event(peer, PeerEvent::Latency(None));
    }
}
