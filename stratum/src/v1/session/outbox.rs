//! What is still to be sent, in order: shared pieces of jobs, and answers in a row.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

use crate::mining::error::StratumError;
use crate::v1::message::{self, Id};

/// Queue of a connection's output.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lines: VecDeque<Bytes>,
    /// Answers after all of `lines`.
    answers: BytesMut,
    bytes: usize,
}

impl Outbox {
    /// Takes the next bytes: a shared piece of a job, or all answers in a row.
    pub(super) fn poll(&mut self) -> Option<Bytes> {
        let piece = match self.lines.pop_front() {
            Some(piece) => piece,
            None if self.answers.is_empty() => return None,
            // The buffer goes with it: an idle session holds none.
            None => std::mem::take(&mut self.answers).freeze(),
        };
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Bytes that [`Self::poll`] has.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a piece behind all that is queued.
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

    /// Answers a request with an error.
    pub(super) fn refuse(&mut self, id: Id<'_>, error: &StratumError) {
        let before = self.answers.len();
        message::write_failure(&mut self.answers, id, error);
        self.bytes += self.answers.len() - before;
    }
}
