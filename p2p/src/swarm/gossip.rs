//! Address gossip: announcements, requests and answers (protocol section 3.5).

use std::net::SocketAddr;
use std::time::Duration;

use super::{Action, Now, PeerId, Swarm};
use crate::addrs::{ADDRESSES_WANTED, AddressScope, exponential, is_reference_loopback};
use crate::limits::Kind;
use crate::message::{AddressRecord, Endpoint};
use crate::peer::Order;

/// Probability that an address is relayed.
const FORWARD_PART: f64 = 0.8;
/// Addresses requested at a time.
const ASKED_FOR: u32 = 8;
/// Maximum addresses in an answer.
const TOLD_MAX: u32 = 100;
/// Mean seconds between two requests.
const ASK_SECONDS: f64 = 20.0;

impl Swarm {
    pub(super) fn note_addresses(&mut self, peer: PeerId, records: Vec<AddressRecord>, now: Now) {
        for record in records {
            let Some(connection) = self.connections.get_mut(&peer) else { return };
            if connection.limits.take(Kind::Stored, 1, now.instant).is_err() {
                return;
            }
            let source = connection.address.ip();
            let AddressRecord { timestamp, endpoint } = record;
            self.book.learn(endpoint.address, endpoint.services, timestamp, Some(source), now.unix);
            self.forward(peer, record, now);
        }
    }

    pub(super) fn note_port(&mut self, peer: PeerId, port: u16, now: Now) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        let Some(hello) = &connection.hello else { return };
        let (ip, services) = (connection.address.ip(), hello.services);
        if is_reference_loopback(ip) {
            // Only the next node knows how it sees this host.
            if connection.limits.take(Kind::Forwarded, 1, now.instant).is_ok() && self.random.f64() < FORWARD_PART {
                self.order_random(|_| Some(Order::AddressOfMe(port)));
            }
            return;
        }
        if connection.limits.take(Kind::Stored, 1, now.instant).is_err() {
            return;
        }
        let address = SocketAddr::new(ip, port);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
        let timestamp = now.unix as u64;
        self.book.learn(address, services, timestamp, Some(ip), now.unix);
        self.forward(peer, AddressRecord { timestamp, endpoint: Endpoint { services, address } }, now);
    }

    pub(super) fn send_addresses(&mut self, peer: PeerId, count: u32, now: Now) {
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        if connection.limits.take(Kind::Answered, 1, now.instant).is_err() {
            return;
        }
        let count = usize::try_from(count.min(TOLD_MAX)).unwrap_or_default();
        let known = self.book.good_peers(count, connection.address.ip(), now.unix).into_iter();
        let records = known.map(|known| AddressRecord {
            timestamp: known.last_seen,
            endpoint: Endpoint { services: known.services, address: known.address },
        });
        self.actions.push_back(Action::Order(peer, Order::Addresses(records.collect())));
    }

    pub(super) fn wants_addresses(&self) -> bool {
        self.book.len() < ADDRESSES_WANTED && self.up().next().is_some()
    }

    pub(super) fn ask_for_addresses(&mut self, now: Now) {
        let seconds = ASK_SECONDS * exponential(&mut self.random);
        self.next_get_addresses = now.instant + Duration::from_secs_f64(seconds);
        self.order_random(|_| Some(Order::GetAddresses(ASKED_FOR)));
    }

    /// Relays a record to a random peer, possibly its sender, as in the reference; not to one outside the address's
    /// scope.
    fn forward(&mut self, teller: PeerId, record: AddressRecord, now: Now) {
        if self.random.f64() >= FORWARD_PART {
            return;
        }
        let Some(connection) = self.connections.get_mut(&teller) else { return };
        if connection.limits.take(Kind::Forwarded, 1, now.instant).is_err() {
            return;
        }
        let Some(reach) = AddressScope::of(record.endpoint.address.ip()) else { return };
        self.order_random(|address| {
            let is_reachable = AddressScope::of(address.ip()).is_some_and(|peer| reach >= peer);
            is_reachable.then(|| Order::Addresses(vec![record]))
        });
    }

    /// Sends a random peer an order, if `order` returns one for its address.
    fn order_random(&mut self, order: impl FnOnce(SocketAddr) -> Option<Order>) {
        let up: Vec<(PeerId, SocketAddr)> = self.up().map(|(peer, connection)| (peer, connection.address)).collect();
        let Some((peer, address)) = self.random.choice(up) else { return };
        self.actions.extend(order(address).map(|order| Action::Order(peer, order)));
    }
}
