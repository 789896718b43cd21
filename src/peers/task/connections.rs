//! Connections of the P2P task: accepted and dialled ones, what they report, and what they are ordered to do.

use metrics::counter;
use p2p::peer::{Advertise, Close, Direction, Local, Order, Peer, PeerEvent};
use p2p::swarm::{self, PeerId};
use std::net::SocketAddr;
use std::time::Duration;
use stratum::printable::escaped;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::sleep;
use tracing::{debug, info};

use super::{Completion, Driver, now};
use crate::peers::link::{self, LinkEvent, ORDERS_QUEUED_MAX};
use crate::peers::{proofs, upnp};
use crate::runtime::accept::Acceptor;
use crate::runtime::sockets::{self, Port};

/// Interval of attempts to open a taken port: the process that has it may be about to end.
pub(super) const BIND_RETRY: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn order(&mut self, peer: PeerId, order: Order) {
        let Some(orders) = self.links.get(&peer) else { return };
        if let Order::Shares(shares) = &order {
            counter!("p2p_shares_relayed_total").increment(shares.len() as u64);
        }
        // An ended connection will report its reason in a moment: that may be an offence.
        if let Err(TrySendError::Full(_)) = orders.try_send(order) {
            let close = Close::Quiet(format!("its queue of {ORDERS_QUEUED_MAX} orders is full"));
            debug!(peer = peer.0, %close, "peer dropped");
            self.links.remove(&peer);
            self.swarm.handle_closed(peer, &close, now());
        }
    }

    pub(super) fn handle_heard(&mut self, heard: LinkEvent) {
        let now = now();
        match heard {
            LinkEvent::Event(peer, event, permit) => {
                match &event {
                    PeerEvent::Connected(hello) => debug!(
                        peer = peer.0,
                        version = hello.version,
                        software = %escaped(&hello.sub_version),
                        "peer connected"
                    ),
                    PeerEvent::Shares(shares) | PeerEvent::Replied { shares: Ok(shares), .. } => {
                        counter!("p2p_shares_received_total").increment(shares.len() as u64);
                    }
                    _ => {}
                }
                let is_shown = matches!(event, PeerEvent::Connected(_) | PeerEvent::Latency(_));
                self.permit = permit;
                self.swarm.handle_event(peer, event, now);
                if is_shown {
                    self.publish();
                }
            }
            LinkEvent::Closed(peer, close) => {
                // Not if the swarm closed it: then it knows.
                if self.links.remove(&peer).is_some() {
                    note_close(&close);
                    debug!(peer = peer.0, reason = %close, "connection ended");
                    self.swarm.handle_closed(peer, &close, now);
                }
                self.publish();
            }
        }
    }

    pub(super) fn bind(&mut self, after: Duration) {
        let (address, data_dir) = (self.config.listen, self.inputs.data_dir.clone());
        self.start(async move {
            sleep(after).await;
            match Port::open(address, &data_dir) {
                Ok(port) => Completion::Bound(Ok(port.listener("peers").await)),
                Err(error) => Completion::Bound(Err(error)),
            }
        });
    }

    pub(super) fn note_bound(&mut self, listener: TcpListener) {
        let address = listener.local_addr().unwrap_or(self.config.listen);
        info!(%address, "listening for peers");
        self.is_port_taken = false;
        self.acceptor = Some(Acceptor::new(listener, "peers"));
        // Useless where only this machine can connect.
        if self.config.upnp && !address.ip().is_loopback() {
            self.tracker.spawn(upnp::run(address.port(), self.stop.clone()));
        }
    }

    pub(super) fn handle_accepted(&mut self, stream: TcpStream, remote: SocketAddr) {
        match self.swarm.handle_incoming(remote, now()) {
            Ok(peer) => self.connect(peer, stream, remote, Direction::Inbound),
            Err(refused) => {
                let reason = match refused {
                    swarm::Refused::Banned => "banned",
                    swarm::Refused::Full(_) => "full",
                    swarm::Refused::Group => "neighbourhood",
                    swarm::Refused::Refusals => "refused_shares",
                };
                counter!("p2p_refused_connections_total", "reason" => reason).increment(1);
                debug!(%remote, reason = %refused, "connection refused");
            }
        }
    }

    /// Starts a new connection.
    pub(super) fn connect(&mut self, id: PeerId, stream: TcpStream, remote: SocketAddr, direction: Direction) {
        let local_address = match stream.local_addr() {
            Ok(address) => sockets::canonical(address),
            Err(error) => {
                debug!(%remote, %error, "connection lost at once");
                return self.swarm.handle_closed(id, &Close::Quiet(error.to_string()), now());
            }
        };
        debug!(peer = id.0, %remote, ?direction, "connection made");
        let now = now();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970, saturating")]
        let unix = now.unix as u64;
        let seed = fastrand::u64(..);
        let local = self.local(id);
        let peer = Peer::new(local, self.rules.clone(), remote, local_address, direction, seed, now.instant, unix);
        let (orders, ordered) = mpsc::channel(ORDERS_QUEUED_MAX);
        self.links.insert(id, orders);
        self.tracker.spawn(link::run(id, stream, peer, ordered, self.context.clone()));
    }

    /// Returns this node's current self-description, for one connection.
    fn local(&self, id: PeerId) -> Local {
        let tip = self.inputs.chain.tips.borrow().clone();
        let best = tip.as_ref().and_then(|tip| tip.best());
        let address = self.acceptor.as_ref().and_then(|acceptor| acceptor.listener().local_addr().ok());
        let port = address.map(|address| address.port());
        let advertise = match (port, self.external) {
            (Some(_), Some(address)) if self.config.advertise => Advertise::External(address),
            (Some(port), None) if self.config.advertise => Advertise::Port(port),
            _ => Advertise::Nothing,
        };
        Local {
            prefix: self.config.network.prefix,
            protocol_version: self.config.network.protocol_version,
            sub_version: concat!("p2pool-rs/", env!("CARGO_PKG_VERSION")).to_owned(),
            nonce: self.nonce,
            best_share: best.map(|best| best.hash()),
            best_version: best.map(|best| best.version().number()),
            minimum_protocol: *self.inputs.chain.minimum_protocol.borrow(),
            has_laxer_nodes: self.config.network.has_laxer_nodes(),
            advertise,
            shared: self.swarm.shared(id).hashing_with(proofs::hasher(&self.inputs.hashers, id, self.config.network)),
        }
    }
}

/// Counts an offence, or too many refused shares, that ended a connection.
pub(super) fn note_close(close: &Close) {
    match close {
        Close::Offence(offence) => counter!("p2p_offences_total", "kind" => offence.word()).increment(1),
        Close::Refusals(_) => {
            counter!("p2p_peers_let_go_total").increment(1);
            info!(reason = %close, "peer let go for an hour, without a ban");
        }
        Close::Quiet(_) | Close::Ourselves => {}
    }
}
