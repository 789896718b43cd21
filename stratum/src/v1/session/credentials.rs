//! Requests to authorise that wait for the driver to check name and password.

use crate::mining::error::StratumError;
use crate::mining::solution::Now;
use crate::mining::work::{Refusal, Work};
use crate::v1::message::{Id, KeptId};

use super::Session;
use super::event::{Credentials, Disconnect, Event};

/// Maximum length of a name, a password, or the id of their request, in bytes: what waits for a check is kept.
const CREDENTIAL_BYTES_MAX: usize = 512;

/// Request to authorise that waits for the check of its credentials.
#[derive(Debug)]
pub(super) struct Claim {
    id: KeptId,
    credentials: Credentials,
}

impl<W: Work> Session<W> {
    /// True if lines wait for the check of the first credentials. Afterwards no line waits for a check: it may be a
    /// block.
    pub fn is_waiting_for_check(&self) -> bool {
        self.workers.is_empty() && !self.claims.is_empty()
    }

    /// Number of refused requests to authorise after which the connection is closed.
    pub(super) fn refusals_max(&self) -> u32 {
        if self.config.checks_credentials && self.workers.is_empty() {
            self.config.refused_passwords_max
        } else {
            self.config.refused_names_max
        }
    }

    /// Has the driver check `name` and `password`, after those that wait already.
    pub(super) fn claim(&mut self, id: Id<'_>, name: &str, password: &str, now: Now) -> Result<(), Disconnect> {
        let kept = id.to_kept();
        if [name.len(), password.len(), kept.len()].into_iter().any(|length| length > CREDENTIAL_BYTES_MAX) {
            let problem = format!("name or password has more than {CREDENTIAL_BYTES_MAX} bytes");
            return self.answer_authorize(id, Err(StratumError::Unauthorized(problem)), now);
        }
        if self.claims.len() >= self.config.workers_max.max(1) {
            let problem = "too many names wait for the check of their passwords";
            return self.answer_authorize(id, Err(StratumError::Unauthorized(problem.into())), now);
        }
        let credentials = Credentials { name: name.into(), password: password.into() };
        self.claims.push_back(Claim { id: kept, credentials });
        if self.claims.len() == 1 {
            self.ask_for_check();
        }
        Ok(())
    }

    /// Takes the result of the check that [`Event::Credentials`] asked for: authorises the worker, or refuses it for the
    /// given reason.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn handle_credentials(&mut self, checked: Result<(), Refusal>, now: Now) -> Result<(), Disconnect> {
        let Some(Claim { id, credentials }) = self.claims.pop_front() else { return Ok(()) };
        self.ask_for_check();
        let result = match checked {
            Ok(()) => self.add_worker(&credentials.name, &credentials.password),
            Err(refusal) => Err(StratumError::Unauthorized(refusal.to_string())),
        };
        self.answer_authorize(id.id(), result, now)
    }

    /// Has the driver check the oldest credentials that wait.
    fn ask_for_check(&mut self) {
        if let Some(claim) = self.claims.front() {
            self.events.push_back(Event::Credentials(claim.credentials.clone()));
        }
    }
}
