//! The simulated network between nodes: byte streams with latency, bandwidth and loss, and partitions that stall them.

use std::time::Duration;

use fastrand::Rng;

/// Delay of a lost segment beyond a round trip: Linux' shortest retransmission timeout.
const RETRANSMISSION_MIN: Duration = Duration::from_millis(200);

/// Quality of links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Conditions {
    /// One-way latency, median over all links.
    pub(super) latency: Duration,
    /// Standard deviation of the logarithm of latencies: 0 makes all links alike.
    pub(super) spread: f64,
    /// Maximum extra delay of a message, as a part of its link's latency.
    pub(super) jitter: f64,
    /// Bytes per second in each direction.
    pub(super) bandwidth: f64,
    /// Probability that a message is lost once. Streams lose nothing: it arrives later, and delays what follows.
    pub(super) loss: f64,
}

impl Conditions {
    /// Links of this median latency, otherwise like those between homes: latencies differ by a factor of about 1.5, 20
    /// Mbit/s, one message in a thousand is lost.
    pub(super) fn of_latency(latency: Duration) -> Self {
        Self { latency, spread: 0.4, jitter: 0.1, bandwidth: 2_500_000.0, loss: 0.001 }
    }

    /// Draws a link's latency.
    pub(super) fn draw(&self, rng: &mut Rng) -> Duration {
        // Box-Muller transform.
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        self.latency.mul_f64((self.spread * normal).exp())
    }
}

/// One direction of a connection.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    latency: Duration,
    /// Time at which the sender's line is free again.
    free: Duration,
    /// Arrival of the last message: none overtakes another.
    last: Duration,
}

impl Pipe {
    pub(super) fn new(latency: Duration) -> Self {
        Self { latency, free: Duration::ZERO, last: Duration::ZERO }
    }

    /// Returns the arrival time of a message of this size sent at `now`.
    pub(super) fn arrival(&mut self, bytes: usize, now: Duration, conditions: &Conditions, rng: &mut Rng) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a message, not an exabyte")]
        let sending = Duration::from_secs_f64(bytes as f64 / conditions.bandwidth);
        self.free = self.free.max(now) + sending;
        let mut way = self.latency.mul_f64(1.0 + conditions.jitter * rng.f64());
        if rng.f64() < conditions.loss {
            way += 2 * self.latency + RETRANSMISSION_MIN;
        }
        self.last = self.last.max(self.free + way);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_in_order_after_the_latency_and_one_after_another() {
        let latency = Duration::from_millis(100);
        let conditions = Conditions { loss: 0.5, bandwidth: 1000.0, ..Conditions::of_latency(latency) };
        let mut rng = Rng::with_seed(1);
        let mut pipe = Pipe::new(latency);
        let mut before = Duration::ZERO;
        for message in 1..=50 {
            let arrival = pipe.arrival(100, Duration::ZERO, &conditions, &mut rng);
            assert!(arrival >= before && arrival >= latency + message * Duration::from_millis(100));
            before = arrival;
        }
    }

    #[test]
    fn half_of_all_links_are_faster_than_the_median() {
        let conditions = Conditions::of_latency(Duration::from_millis(100));
        let mut rng = Rng::with_seed(2);
        let faster = (0..2000).filter(|_| conditions.draw(&mut rng) < conditions.latency).count();
        assert!((900..1100).contains(&faster), "{faster}");
    }
}
