//! A daemon of a merged chain, inside this process, for tests and for `p2pool demo --merged`.
//!
//! ```text
//! HTTP ──▶ server ──▶ faults ──▶ rpc ──▶ Chain (under a short lock) ──▶ tip: watch<Tip>
//! ```
//!
//! It is built as if it were one: it has a chain with branches, keeps the blocks that it creates as Dogecoin Core does,
//! gives templates for those that miners make themselves, and judges each block and its proof by the published rules, with
//! code of its own ([`proof`]). Faults come on demand.

mod addresses;
mod block;
mod chain;
mod config;
mod created;
mod faults;
mod ledger;
pub mod proof;
mod rpc;
mod rules;
mod server;
mod submitted;
mod template;
mod tree;

pub use addresses::Addresses;
pub use block::Block;
pub use chain::{AuxWork, Balance, Bits, BitsError, Chain, Fate, Rules, Submission, SubmitError};
pub use config::{Config, Flavour, TargetForm};
pub use faults::{Calls, Fault, Faults};
pub use ledger::SpendError;
pub use rules::RuleError;
pub use template::BlockTemplate;

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Moment, Tip, moment};
use crate::runtime::sockets;
use crate::runtime::tasks::Tasks;
use rpc::{Answer, Call, Methods};
use server::{PortState, Reserved};

/// Reason why a daemon does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The rules are unusable.
    #[error(transparent)]
    Bits(#[from] BitsError),
    /// The port is in use, or not allowed.
    #[error("cannot listen on {address}: {error}; choose another port")]
    Listen {
        /// Address of the port.
        address: SocketAddr,
        /// Cause.
        error: io::Error,
    },
}

/// What handle and connections share.
#[derive(Debug)]
struct Shared {
    config: Config,
    chain: Mutex<Chain>,
    started: Instant,
    tip: watch::Sender<Tip>,
    faults: Faults,
    /// Number of calls of each method.
    calls: Mutex<BTreeMap<&'static str, u64>>,
    port: Reserved,
}

impl Shared {
    fn with_chain<T>(&self, work: impl FnOnce(&mut Chain, Moment) -> T) -> T {
        let mut chain = self.chain.lock();
        let result = work(&mut chain, moment(self.started));
        let tip = chain.tip();
        // Sent while the chain is locked, so that tips are sent in order.
        self.tip.send_if_modified(|last| std::mem::replace(last, tip) != tip);
        result
    }

    fn call(&self, call: &Call) -> Answer {
        self.with_chain(|chain, now| Methods { config: &self.config, chain, now }.answer(call))
    }

    fn count(&self, call: &Call) {
        if let Some(method) = call.known_method() {
            *self.calls.lock().entry(method).or_default() += 1;
        }
    }
}

/// Handle to a daemon, which stops when the handle is dropped.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
    state: watch::Sender<PortState>,
    opened: watch::Receiver<bool>,
    _stop: DropGuard,
}

impl Daemon {
    /// Starts a daemon with a new chain.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, tasks: &Tasks) -> Result<Self, StartError> {
        let address = config.listen;
        let listen = |error| StartError::Listen { address, error };
        let started = Instant::now();
        let chain = Chain::new(config.rules.clone(), &config.name, moment(started))?;
        let listener = sockets::bind(address).map_err(listen)?;
        let port = Reserved::with(&listener).map_err(listen)?;
        let shared = Arc::new(Shared {
            config,
            tip: watch::Sender::new(chain.tip()),
            chain: Mutex::new(chain),
            started,
            faults: Faults::default(),
            calls: Mutex::default(),
            port,
        });
        let (state, wanted) = watch::channel(PortState { is_open: true, round: 0 });
        let (opening, opened) = watch::channel(true);
        let stop: CancellationToken = tasks.stop_signal().child_token();
        tasks.spawn("merged chain", server::run(shared.clone(), listener, wanted, opening, stop.clone()));
        Ok(Self { shared, state, opened, _stop: stop.drop_guard() })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.shared.port.address()
    }

    /// URL without the login.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// URL with user and password.
    pub fn url_with_login(&self) -> String {
        let Config { user, password, .. } = self.config();
        format!("http://{user}:{}@{}/", password.expose(), self.address())
    }

    /// Looks at the chain, or changes it, at this moment. The lock is held meanwhile.
    pub fn chain<T>(&self, work: impl FnOnce(&mut Chain, Moment) -> T) -> T {
        self.shared.with_chain(work)
    }

    /// Subscribes to changes of the tip.
    pub fn tips(&self) -> watch::Receiver<Tip> {
        self.shared.tip.subscribe()
    }

    /// Faults, to be set and cleared.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Number of calls of a method so far, those that met a fault included.
    pub fn calls(&self, method: &str) -> u64 {
        self.shared.calls.lock().get(method).copied().unwrap_or(0)
    }

    /// Ends all connections and refuses new ones, as when the daemon is not running. The port stays reserved.
    pub async fn close(&self) {
        self.turn(false).await;
    }

    /// Listens again after [`Self::close`]. What was created before is forgotten.
    pub async fn open(&self) {
        self.chain(|chain, _| chain.forget_created());
        self.turn(true).await;
    }

    /// Ends all connections and forgets what was created, as when the daemon restarts at once.
    pub async fn restart(&self) {
        self.close().await;
        self.open().await;
    }

    async fn turn(&self, is_open: bool) {
        self.state.send_modify(|state| *state = PortState { is_open, round: state.round + 1 });
        // Fails if the daemon has stopped, which refuses connections as well.
        let _ = self.opened.clone().wait_for(|opened| *opened == is_open).await;
    }
}

#[cfg(test)]
mod tests;
