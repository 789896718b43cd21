//! Tolerance for messages that cannot be read, on networks whose nodes send such (protocol-v36 section 9.1):
//! they are skipped, up to a number an hour.

use std::time::Instant;

use super::{Close, Peer, PeerEvent};
use crate::command::Command;
use crate::frame::Frame;
use crate::message::{MessageError, Problem};

/// Messages within an hour that cannot be read, or have shares that cannot be read, above which the connection is closed.
const UNREADABLE_MAX: u32 = 30;

impl Peer {
    /// Handles a message that cannot be parsed: an error where that ends the connection.
    pub(super) fn skip_unreadable(&mut self, error: MessageError, frame: &Frame, now: Instant) -> Result<(), Close> {
        let is_tolerated = self.local.has_laxer_nodes
            && matches!(error.problem, Problem::Form(_))
            && matches!(frame.command, Command::Shares | Command::ShareReply | Command::RememberTx);
        if !is_tolerated {
            return Err(error.into());
        }
        self.note_unreadable(error.into(), now)?;
        if frame.command == Command::ShareReply {
            self.end_request(&frame.payload);
        }
        Ok(())
    }

    /// Counts a message of which at least a part cannot be read; `close` has the reason.
    pub(super) fn note_unreadable(&mut self, close: Close, now: Instant) -> Result<(), Close> {
        if self.unreadable.note(now) > UNREADABLE_MAX {
            return Err(Close::Quiet(format!("more than {UNREADABLE_MAX} messages an hour cannot be read: {close}")));
        }
        Ok(())
    }

    /// Ends the request that an unreadable answer is for: its peer has nothing of use.
    fn end_request(&mut self, payload: &[u8]) {
        let id = payload.first_chunk::<32>();
        if let Some((request, _)) = id.and_then(|id| self.requests.replied(id)) {
            self.events.push_back(PeerEvent::Replied { request, shares: Ok(Vec::new()) });
        }
    }
}
