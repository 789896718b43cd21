//! Hosts of the P2P task: nodes named by the operator, bootstrap nodes and this node's own, resolved again and again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Completion, Driver, now};
use crate::peers::dial::{self, Host};

/// Interval of resolving hosts, and the shorter one after a failure or without an answer.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(600);
const RESOLVE_RETRY: Duration = Duration::from_secs(30);

/// Purpose of resolving a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// One of `-n`.
    Node(usize),
    /// A bootstrap address of the network.
    Bootstrap(usize),
    /// This node's own host.
    External,
}

/// A node named by the operator.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Address, as of the last resolution.
    pub(super) address: Option<SocketAddr>,
    /// Set when it has not answered there since.
    pub(super) has_failed: bool,
    /// Last logged error of resolving it.
    trouble: Option<String>,
}

impl Driver {
    pub(super) fn resolve(&mut self, named: Named, after: Duration) {
        let host: Option<Host> = match named {
            Named::Node(index) => self.config.nodes.get(index).cloned(),
            Named::Bootstrap(index) => self.config.bootstrap.get(index).cloned(),
            Named::External => self.config.external.clone(),
        };
        let Some(host) = host else { return };
        self.start(async move {
            sleep(after).await;
            Completion::Resolved(named, host.resolve().await)
        });
    }

    pub(super) fn note_resolved(&mut self, named: Named, found: io::Result<Vec<SocketAddr>>) {
        let now = now();
        let mut again = if found.is_ok() { RESOLVE_INTERVAL } else { RESOLVE_RETRY };
        match named {
            Named::Node(index) => {
                let node = &mut self.nodes[index];
                match &found {
                    Ok(addresses) => {
                        node.trouble = None;
                        node.address = dial::choose(addresses, node.address, node.has_failed);
                        if std::mem::take(&mut node.has_failed) {
                            again = RESOLVE_RETRY;
                        }
                        if addresses.len() > 1 {
                            again = RESOLVE_RETRY;
                        }
                    }
                    Err(error) => {
                        let trouble = error.to_string();
                        if node.trouble.as_ref() != Some(&trouble) {
                            warn!(node = %self.config.nodes[index], error = trouble, "cannot find the node's address");
                            node.trouble = Some(trouble);
                        }
                    }
                }
                self.keep_connected();
            }
            Named::Bootstrap(index) => match found {
                Ok(addresses) => addresses.into_iter().for_each(|address| self.swarm.add_bootstrap(address, now)),
                Err(error) => debug!(host = %self.config.bootstrap[index], %error, "cannot resolve a bootstrap host"),
            },
            Named::External => match found {
                Ok(addresses) => {
                    addresses.iter().for_each(|address| self.swarm.note_own_address(*address));
                    self.external = addresses.first().copied();
                }
                Err(error) => debug!(%error, "cannot resolve our own host"),
            },
        }
        self.resolve(named, again);
    }

    /// Passes the addresses to stay connected to on to the swarm.
    pub(super) fn keep_connected(&mut self) {
        let named = self.nodes.iter().filter_map(|node| node.address);
        let addresses: Vec<SocketAddr> = named.chain(self.predecessor).collect();
        self.swarm.set_permanent(&addresses, now());
    }
}
