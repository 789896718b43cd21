//! What keeps a connection alive and this node known: pings, and advertisements of where we are.

use std::time::{Duration, Instant};

use super::{Advertise, Close, Peer};
use crate::message::{AddressRecord, Endpoint, Message};

/// Seconds between two pings, at least and at most. The reference leaves 100 on average and drops a peer after 100 of
/// silence, so that two quiet ones lose each other often.
const PING_SECONDS: std::ops::Range<u64> = 30..60;

/// Seconds between two advertisements of us, on average. The reference's is 100 for each of its peers.
const ADVERTISE_SECONDS_MEAN: f64 = 600.0;

impl Peer {
    pub(super) fn ping(&mut self, now: Instant) -> Result<(), Close> {
        self.ping_due = Some(now + Duration::from_secs(self.random.u64(PING_SECONDS)));
        self.send(&Message::Ping)
    }

    pub(super) fn advertise(&mut self, now: Instant) -> Result<(), Close> {
        let seconds = -ADVERTISE_SECONDS_MEAN * (1.0 - self.random.f64()).ln();
        self.advertise_due = Some(now + Duration::from_secs_f64(seconds.clamp(1.0, 10.0 * ADVERTISE_SECONDS_MEAN)));
        let message = match self.local.advertise {
            Advertise::Nothing => {
                self.advertise_due = None;
                return Ok(());
            }
            Advertise::Port(port) => Message::AddrMe { port },
            Advertise::External(address) => {
                let (then, unix) = self.clock;
                let timestamp = unix + now.saturating_duration_since(then).as_secs();
                let endpoint = Endpoint { services: self.services.unwrap_or(0), address };
                Message::Addrs(vec![AddressRecord { timestamp, endpoint }])
            }
        };
        self.send(&message)
    }
}
