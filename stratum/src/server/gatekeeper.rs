//! Check of user names and passwords, implemented by the user of this crate, and the service of a port that has one.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::mining::work::Refusal;
use crate::v1::session::{self, Credentials};

/// Running check: allowed, or the reason for a refusal.
pub type Check<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + 'a>>;

/// Decides which users may mine on a port.
pub trait Gatekeeper: fmt::Debug + Send + Sync + 'static {
    /// Checks `credentials` from `source`. The check may take as long as it needs, but must not block its thread: other
    /// connections go on meanwhile. It is dropped when the connection ends.
    fn check(&self, credentials: Credentials, source: IpAddr) -> Check<'_>;
}

/// Settings for the connections of a port.
#[derive(Debug, Clone)]
pub struct PortService {
    pub(super) session: Arc<session::Config>,
    pub(super) gatekeeper: Option<Arc<dyn Gatekeeper>>,
}

impl PortService {
    /// Creates a service with these session settings, for users that `gatekeeper` allows; without one for all.
    pub fn new(session: session::Config, gatekeeper: Option<Arc<dyn Gatekeeper>>) -> Self {
        let session = session::Config { checks_credentials: gatekeeper.is_some(), ..session };
        Self { session: Arc::new(session), gatekeeper }
    }
}
