//! Work last sent to each long-polling miner, so that one that missed news gets it at once.

use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use stratum::Epochs;
use stratum::mining::fair_map::FairMap;
use stratum::mining::source::Source;

/// Maximum number of miners remembered. Beyond, those of the network with the most are forgotten: they may miss news,
/// and wait for more.
const POLLERS_MAX: usize = 16 * 1024;

/// Identity of a long-polling miner: its address, and a hash of its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Poller(IpAddr, u64);

/// Epochs last sent to each miner.
#[derive(Debug, Default)]
pub(super) struct Pollers {
    served: Mutex<FairMap<Poller, Epochs>>,
    hasher: RandomState,
}

impl Pollers {
    /// Returns the miner that sent `headers` from `client`.
    pub(super) fn poller(&self, client: IpAddr, headers: &HeaderMap) -> Poller {
        Poller(
            client,
            self.hasher.hash_one(headers.get(header::AUTHORIZATION).map(|credentials| credentials.as_bytes())),
        )
    }

    /// Number of the miners of this name, among those of their network whose hashes take turns.
    pub(super) fn number_of(&self, worker: &str) -> u64 {
        self.hasher.hash_one(worker)
    }

    /// Records that `poller` has the work of `epochs`.
    pub(super) fn note(&self, poller: Poller, epochs: Epochs) {
        let mut served = self.served.lock();
        served.insert(Source::of(poller.0), poller, epochs, 1);
        while served.len() > POLLERS_MAX {
            served.evict();
        }
    }

    /// Returns what was last sent to `poller`, if it is remembered.
    pub(super) fn served(&self, poller: Poller) -> Option<Epochs> {
        self.served.lock().get(&poller).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_with_any_number_of_names_pushes_out_no_poller_of_others() {
        let pollers = Pollers::default();
        let quiet = pollers.poller([192, 0, 2, 1].into(), &HeaderMap::new());
        let epochs = Epochs { stale: 7, ..Epochs::default() };
        pollers.note(quiet, epochs);
        for number in 0..2 * POLLERS_MAX {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, number.into())]);
            pollers.note(pollers.poller([198, 51, 100, 1].into(), &headers), Epochs::default());
        }
        assert_eq!(pollers.served(quiet), Some(epochs));
        assert_eq!(pollers.served.lock().len(), POLLERS_MAX);
    }
}
