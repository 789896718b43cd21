//! Send queue of a connection.

use bytes::Bytes;
use sharechain::share::Share;
use std::sync::Arc;

use super::Announcement;
use crate::frame::HEADER_BYTES;
use crate::message::reply_frame;

/// Maximum charge of a message with shares: eight may wait, whatever their length.
const CHARGE_MAX: usize = 1_000_000;

/// Message in the send queue. Shares are in memory anyway, so messages with shares are encoded only when sent.
#[derive(Debug)]
pub(super) enum Outgoing {
    Frame(Bytes),
    Shares { announcement: Announcement, index: usize },
    Reply { id: [u8; 32], shares: Vec<Arc<Share>> },
}

impl Outgoing {
    /// Size of the frame in bytes, possibly approximate.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Outgoing::Frame(frame) => frame.len(),
            Outgoing::Shares { announcement, index } => announcement.message(*index).iter().map(share_bytes).sum(),
            Outgoing::Reply { shares, .. } => shares.iter().map(share_bytes).sum(),
        }
    }

    /// Size counted against the queue. A share of millions of bytes is no sign of a peer that does not read.
    pub(super) fn charge(&self) -> usize {
        match self {
            Outgoing::Frame(frame) => frame.len(),
            _ => self.bytes().clamp(HEADER_BYTES, CHARGE_MAX),
        }
    }

    pub(super) fn into_frame(self, prefix: [u8; 8]) -> Bytes {
        match self {
            Outgoing::Frame(frame) => frame,
            Outgoing::Shares { announcement, index } => announcement.frame(index, prefix),
            Outgoing::Reply { id, shares } => reply_frame(prefix, id, &shares),
        }
    }
}

fn share_bytes(share: &Arc<Share>) -> usize {
    share.wire_bytes()
}
