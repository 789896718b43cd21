//! Periodic messages: pings, and advertisements of our address.

use std::time::{Duration, Instant};

use super::{Advertise, Close, Peer};
use crate::message::{AddressRecord, Endpoint, Message};

/// Range of seconds between two pings. The reference's mean is 100 and it drops a peer after 100 s of silence, so two
/// quiet reference nodes often lose each other.
const PING_SECONDS: std::ops::Range<u64> = 30..60;

/// Mean seconds between two advertisements of our address. The reference's is 100 for each of its peers.
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
