//! Faults on demand: what a daemon does that is slow, broken, or lies.

use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Group of calls that a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Calls {
    /// `createauxblock`, `getblocktemplate`, and `getauxblock` without parameters.
    Work,
    /// `submitauxblock`, `submitblock`, and `getauxblock` with parameters.
    Submissions,
    /// All others.
    Queries,
}

impl Calls {
    /// Every group.
    pub const ALL: [Self; 3] = [Self::Work, Self::Submissions, Self::Queries];
}

/// What the daemon does in place of answering.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Never answers.
    Hang,
    /// Makes the call after this time.
    Slow(Duration),
    /// Closes the connection.
    Disconnect,
    /// Answers with this HTTP status and a line of text.
    Status(u16),
    /// Answers with an error.
    Error {
        /// Code of the error.
        code: i32,
        /// Its text.
        message: String,
    },
    /// Answers with this body.
    Body(Vec<u8>),
    /// Sends half of its answer, and keeps the connection.
    HalfAnswer,
    /// Answers with a text of this many bytes.
    Huge(u64),
    /// Answers with this result.
    Result(Value),
    /// Makes the call, and changes a field of the result.
    Field(&'static str, Value),
    /// Makes the call, and leaves a field of the result out.
    Without(&'static str),
}

impl Fault {
    /// The daemon has just started.
    pub fn warming_up() -> Self {
        Self::Error { code: -28, message: "Loading block index...".to_owned() }
    }

    /// The daemon does not have the whole chain yet.
    pub fn downloading() -> Self {
        Self::Error { code: -10, message: "Dogecoin is downloading blocks...".to_owned() }
    }

    /// The daemon has no peers.
    pub fn not_connected() -> Self {
        Self::Error { code: -9, message: "Dogecoin is not connected!".to_owned() }
    }

    /// The target is 0: no proof of work meets it.
    pub fn target_zero(field: &'static str) -> Self {
        Self::Field(field, json!("00".repeat(32)))
    }

    /// The target is met by every hash.
    pub fn target_max(field: &'static str) -> Self {
        Self::Field(field, json!("ff".repeat(32)))
    }
}

/// A fault, and its order with the call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    /// Set if the call is made, too.
    pub(super) makes_call: bool,
}

/// The faults of a daemon, set and cleared while it runs.
#[derive(Debug, Default)]
pub struct Faults(Mutex<BTreeMap<Calls, Plan>>);

impl Faults {
    /// Calls of a group fail from now on, without an effect on the chain except by [`Fault::Slow`].
    pub fn set(&self, calls: Calls, fault: Fault) {
        let makes_call = matches!(fault, Fault::Slow(_) | Fault::Field(..) | Fault::Without(_));
        self.0.lock().insert(calls, Plan { fault, makes_call });
    }

    /// Calls of a group have their effect from now on, and fail after it.
    pub fn set_after(&self, calls: Calls, fault: Fault) {
        self.0.lock().insert(calls, Plan { fault, makes_call: true });
    }

    /// All calls fail from now on.
    pub fn set_all(&self, fault: &Fault) {
        for calls in Calls::ALL {
            self.set(calls, fault.clone());
        }
    }

    /// All calls are answered again; those that hang go on hanging.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub(super) fn plan(&self, calls: Calls) -> Option<Plan> {
        self.0.lock().get(&calls).cloned()
    }
}
