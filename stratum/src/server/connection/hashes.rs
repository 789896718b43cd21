//! Proofs of work of one connection's submissions, on their way to the hashing threads and back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

use crate::mining::job::Unhashed;
use crate::server::hashing::{Hashers, Kind, Submitter};
use crate::v1::session::{HASHES_PER_LINE_MAX, HashRequest, IN_FLIGHT_MAX};

/// Maximum number of hashes in flight: the last line that does not wait may ask for several.
const HASHES_MAX: usize = IN_FLIGHT_MAX - 1 + HASHES_PER_LINE_MAX;

/// A computed hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hashed {
    /// Number of its request.
    pub(super) number: u32,
    pub(super) pow_hash: Result<[u8; 32], Unhashed>,
    /// Time at which the submission was read.
    pub(super) received: Instant,
}

/// Hashes of a connection. Created with the first: where proof of work is cheap, there is none.
#[derive(Debug)]
pub(super) struct Hashes {
    sender: mpsc::Sender<Hashed>,
    receiver: mpsc::Receiver<Hashed>,
    in_flight: usize,
}

impl Hashes {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(HASHES_MAX);
        Self { sender, receiver, in_flight: 0 }
    }

    /// Has the hash of a submission computed that was read at `received`.
    pub(super) fn request(
        &mut self,
        hashers: &Arc<Hashers>,
        submitter: Submitter,
        request: &HashRequest,
        received: Instant,
    ) {
        let &HashRequest { number, header, pow, is_earned } = request;
        self.in_flight += 1;
        let sender = self.sender.clone();
        hashers.hash(Kind::of_submission(is_earned), submitter, header, pow, move |pow_hash| {
            // There is room for all that the session asks for. The receiver is gone only with the runtime.
            let _ = sender.try_send(Hashed { number, pow_hash, received });
        });
    }

    /// Polls for the next hash.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Hashed> {
        if self.in_flight == 0 {
            return Poll::Pending;
        }
        match self.receiver.poll_recv(context) {
            Poll::Ready(Some(hashed)) => {
                self.in_flight -= 1;
                Poll::Ready(hashed)
            }
            // Never closed: this holds a sender.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Takes the next hash if it has come.
    pub(super) fn try_next(&mut self) -> Option<Hashed> {
        let hashed = self.receiver.try_recv().ok()?;
        self.in_flight -= 1;
        Some(hashed)
    }

    /// Waits for the next hash; `None` if there is none in flight.
    pub(super) async fn next(&mut self) -> Option<Hashed> {
        if self.in_flight == 0 {
            return None;
        }
        Some(poll_fn(|context| self.poll(context)).await)
    }
}
