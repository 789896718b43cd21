//! Round trip to a peer, measured as in the reference: by requests for a share that cannot exist, which every node
//! answers at once with an empty reply (protocol section 3.7, trap 41).

use sharechain::share::ShareHash;
use std::time::{Duration, Instant};

use super::{Close, Offence, Peer, PeerEvent};
use crate::message::Message;

/// Consecutive requests of one measurement; the quickest answer counts.
const PROBES: u32 = 3;

/// Maximum duration of a measurement. Later answers are ignored; the connection stays, since a node may answer the rest
/// of the protocol and not this.
pub const MEASUREMENT_TIMEOUT: Duration = Duration::from_secs(3);

/// A running measurement.
#[derive(Debug)]
pub(super) struct Measurement {
    /// Identifier of the pending request.
    id: [u8; 32],
    sent: Instant,
    /// Requests that follow it.
    left: u32,
    best: Option<Duration>,
    deadline: Instant,
}

impl Peer {
    /// Starts a measurement, unless one is running.
    pub(super) fn measure_latency(&mut self, now: Instant) -> Result<(), Close> {
        if self.measurement.is_some() {
            return Ok(());
        }
        self.probe(PROBES - 1, None, now + MEASUREMENT_TIMEOUT, now)
    }

    fn probe(&mut self, left: u32, best: Option<Duration>, deadline: Instant, now: Instant) -> Result<(), Close> {
        let mut id = [0; 32];
        self.random.fill(&mut id);
        self.measurement = Some(Measurement { id, sent: now, left, best, deadline });
        self.send(&Message::ShareReq { id, hashes: vec![ShareHash([0; 32])], parents: 0, stops: Vec::new() })
    }

    /// Handles an answer with `shares` shares. Returns false if `id` is not of the measurement.
    pub(super) fn note_probed(&mut self, id: &[u8; 32], shares: usize, now: Instant) -> Result<bool, Close> {
        let Some(Measurement { sent, left, best, deadline, .. }) = self.measurement.take_if(|probe| probe.id == *id)
        else {
            return Ok(false);
        };
        if shares > 0 {
            return Err(Offence::TooMany { what: "shares", count: shares, limit: 0 }.into());
        }
        let took = now.saturating_duration_since(sent);
        let best = best.map_or(took, |best| best.min(took));
        match left.checked_sub(1) {
            Some(left) => self.probe(left, Some(best), deadline, now)?,
            None => self.events.push_back(PeerEvent::Latency(Some(best))),
        }
        Ok(true)
    }

    /// Deadline of the running measurement.
    pub(super) fn measurement_deadline(&self) -> Option<Instant> {
        self.measurement.as_ref().map(|measurement| measurement.deadline)
    }

    /// Ends an overdue measurement with the answers so far.
    pub(super) fn end_measurement(&mut self, now: Instant) {
        if let Some(measurement) = self.measurement.take_if(|measurement| now >= measurement.deadline) {
            self.events.push_back(PeerEvent::Latency(measurement.best));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Talk, offence};
    use super::*;
    use crate::message::ReplyResult;
    use crate::peer::{Order, RequestId};

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Returns the identifier of the only request that was sent.
    fn probe(talk: &mut Talk) -> [u8; 32] {
        match &talk.said()[..] {
            [Message::ShareReq { id, hashes, parents: 0, stops }] => {
                assert_eq!((&hashes[..], &stops[..]), (&[ShareHash([0; 32])][..], &[][..]));
                *id
            }
            said => panic!("{said:?}"),
        }
    }

    fn reply(id: [u8; 32]) -> Message {
        Message::ShareReply { id, result: ReplyResult::Good, shares: Vec::new() }
    }

    #[test]
    fn the_quickest_of_three_answers_is_the_latency() {
        let mut talk = Talk::connected(Some(35));
        talk.order(Order::MeasureLatency).unwrap();
        for took in [30, 10, 20] {
            let id = probe(&mut talk);
            assert_eq!(talk.peer.poll_event(), None);
            talk.now += took * MILLISECOND;
            talk.hear(&reply(id)).unwrap();
        }
        assert_eq!((talk.said(), talk.peer.poll_event()), (vec![], Some(PeerEvent::Latency(Some(10 * MILLISECOND)))));
        talk.order(Order::MeasureLatency).unwrap();
        probe(&mut talk);
    }

    #[test]
    fn one_measurement_is_under_way_at_a_time() {
        let mut talk = Talk::connected(Some(35));
        talk.order(Order::MeasureLatency).unwrap();
        let id = probe(&mut talk);
        for _ in 0..100 {
            talk.order(Order::MeasureLatency).unwrap();
        }
        assert_eq!(talk.said(), []);
        talk.hear(&reply([7; 32])).unwrap();
        assert_eq!((talk.said(), talk.peer.poll_event()), (vec![], None), "an answer to nothing");
        talk.hear(&reply(id)).unwrap();
        probe(&mut talk);
    }

    #[test]
    fn a_peer_that_does_not_answer_has_no_latency_and_stays() {
        let mut talk = Talk::connected(Some(35));
        talk.order(Order::MeasureLatency).unwrap();
        let id = probe(&mut talk);
        talk.wait(2).unwrap();
        assert_eq!(talk.peer.poll_timeout(), Some(talk.now + Duration::from_secs(1)));
        talk.wait(1).unwrap();
        assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Latency(None)));
        talk.hear(&reply(id)).unwrap();
        assert_eq!((talk.said(), talk.peer.poll_event()), (vec![], None), "it came too late");
        talk.wait(20).unwrap();
        // The third request is lost: the quickest of the first two counts.
        talk.order(Order::MeasureLatency).unwrap();
        for _ in 0..2 {
            let id = probe(&mut talk);
            talk.now += MILLISECOND;
            talk.hear(&reply(id)).unwrap();
        }
        talk.wait(3).unwrap();
        assert_eq!(talk.peer.poll_event(), Some(PeerEvent::Latency(Some(MILLISECOND))));
    }

    #[test]
    fn a_share_that_cannot_exist_is_not_answered_with_shares() {
        let mut talk = Talk::connected(Some(35));
        talk.order(Order::MeasureLatency).unwrap();
        let id = probe(&mut talk);
        let shares =
            vec![crate::message::WrappedShare { version: 35, contents: bytes::Bytes::from_static(b"no share") }];
        let answered = talk.hear(&Message::ShareReply { id, result: ReplyResult::Good, shares });
        assert_eq!(offence(answered), "too_many");
    }

    #[test]
    fn requests_for_shares_go_on_beside_a_measurement() {
        let mut talk = Talk::connected(Some(35));
        let hashes = vec![ShareHash([1; 32])];
        let order = Order::Request { request: RequestId(1), hashes, parents: 0, stops: Vec::new() };
        talk.order(order).unwrap();
        let [Message::ShareReq { id: request, .. }] = talk.said()[..] else { panic!() };
        talk.order(Order::MeasureLatency).unwrap();
        let id = probe(&mut talk);
        talk.hear(&reply(id)).unwrap();
        talk.hear(&reply(request)).unwrap();
        let answered = PeerEvent::Replied { request: RequestId(1), shares: Ok(Vec::new()) };
        assert_eq!(talk.peer.poll_event(), Some(answered));
    }
}
