//! Types exchanged between the world and its agents.

use p2p::swarm::Now;
use sharechain::share::ShareHash;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A moment of the simulation, in the forms that sans-IO parts take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Time since the start of the simulation.
    pub(super) elapsed: Duration,
    /// The same as an instant.
    pub(super) now: Instant,
    /// The same in seconds since 1970.
    pub(super) unix: f64,
}

impl Moment {
    /// The same for swarms.
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

/// A new connection, seen from one end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opened {
    /// The agent's own end.
    pub(super) socket: Socket,
    /// Address of the other end.
    pub(super) remote: SocketAddr,
    /// Address of this end as seen by the other.
    pub(super) local: SocketAddr,
    /// True if the agent dialled.
    pub(super) is_outbound: bool,
}

/// Command of an agent to the world.
#[derive(Debug, Clone)]
pub(super) enum Command {
    /// Connects to `to` from the address `from`.
    Dial {
        /// One of the agent's addresses; the world chooses the port.
        from: SocketAddr,
        /// Listening address to dial.
        to: SocketAddr,
    },
    /// Writes to a stream.
    Send(Socket, Bytes),
    /// Closes a stream.
    Close(Socket),
    /// Reports that this share entered the agent's chain.
    Accepted(ShareHash),
    /// Reports that the agent found this share.
    Found(ShareHash),
}
