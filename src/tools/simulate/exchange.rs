//! What the world and those who take part in it say to each other.

use p2p::swarm::Now;
use sharechain::share::ShareHash;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A moment of the simulation, as sans-IO parts want it told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Since the simulation began.
    pub(super) elapsed: Duration,
    /// The same, as durations are measured.
    pub(super) now: Instant,
    /// The same, in seconds since 1970.
    pub(super) unix: f64,
}

impl Moment {
    /// The same as swarms want it.
    pub(super) fn for_swarm(self) -> Now {
        Now { instant: self.now, unix: self.unix }
    }

    /// Whole seconds since 1970.
    pub(super) fn whole_unix(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since 1970")]
        let seconds = self.unix as u64;
        seconds
    }
}

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Socket(pub(super) u32);

impl Socket {
    pub(super) fn connection(self) -> usize {
        (self.0 / 2) as usize
    }

    pub(super) fn end(self) -> usize {
        (self.0 % 2) as usize
    }

    pub(super) fn other(self) -> Socket {
        Socket(self.0 ^ 1)
    }
}

/// A new connection, as one end sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// The agent's own end.
    pub(super) socket: Socket,
    /// Who is at the other.
    pub(super) remote: SocketAddr,
    /// How the other end sees this one.
    pub(super) local: SocketAddr,
    /// Whether the agent dialled.
    pub(super) is_outbound: bool,
}

/// What an agent wants done.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// Connect to `to`, from the address `from`.
    Dial {
        /// One of the agent's addresses; the port is chosen for it.
        from: SocketAddr,
        /// Whose listening address it should be.
        to: SocketAddr,
    },
    /// Write to a stream.
    Send(Socket, Bytes),
    /// Close a stream.
    Close(Socket),
    /// Nothing to be done: this share entered the agent's chain.
    Accepted(ShareHash),
    /// Nothing to be done: the agent found this share.
    Found(ShareHash),
}
