//! Output queue, in order: shared pieces of jobs, and answers in a row.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

use crate::mining::error::StratumError;
use crate::v1::message::{self, Id};

/// Output queue of a connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lines: VecDeque<Bytes>,
    /// Answers that follow all of `lines`.
    answers: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Takes the next bytes: a shared piece of a job, or all answers in a row.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        let piece = match self.lines.pop_front() {
            Some(piece) => piece,
            None if self.answers.is_empty() => return None,
            // Hands over the buffer: an idle session holds none.
            None => std::mem::take(&mut self.answers).freeze(),
        };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Number of bytes that [`Self::poll`] has left.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a piece to the queue.
    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if !self.answers.is_empty() {
            self.lines.push_back(std::mem::take(&mut self.answers).freeze());
        }
        self.lines.push_back(piece);
    }

    /// Answers a request with `true`, or with the error.
    pub(super) fn answer(&mut self, id: Id<'_>, result: Result<(), StratumError>) {
        match result {
            Ok(()) => self.grant(id, "true"),
            Err(error) => self.refuse(id, &error),
        }
    }

    /// Answers a request with `result`, which is JSON.
    pub(super) fn grant(&mut self, id: Id<'_>, result: &str) {
        let before = self.answers.len();
        message::write_success(&mut self.answers, id, result);
        self.bytes += self.answers.len() - before;
    }

    /// Refuses a request with an error.
    pub(super) fn refuse(&mut self, id: Id<'_>, error: &StratumError) {
        let before = self.answers.len();
        message::write_failure(&mut self.answers, id, error);
        self.bytes += self.answers.len() - before;
    }
}
