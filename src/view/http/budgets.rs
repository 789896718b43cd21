//! What readers of pages may cost, for each network and in total, so that pages never take the processor or the uplink
//! from mining. A request is charged for what it did cost, so that no list has to name the expensive paths.

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use stratum::mining::source::Source;
use stratum::mining::token_buckets::{Allowance, Bucket, TokenBuckets};

use super::Client;
use super::api::Problem;
use super::refusals::Refused;

/// Processor time of the readers of one network, in seconds.
const NETWORK: Allowance = Allowance { burst: 5.0, per_second: 0.1 };

/// Processor time of all readers, in seconds.
const TOTAL: Allowance = Allowance { burst: 10.0, per_second: 0.5 };

/// Part of the total that is kept for networks that have their budget almost whole.
const KEPT_FOR_LIGHT: f64 = 0.5;

/// Part of its budget that a network has left while it counts as light.
const LIGHT: f64 = 0.9;

/// Bytes of answers that cost as much as a second of processor time: a network may read 2 MB/s, all may read 10 MB/s.
const BYTES_PER_SECOND: f64 = 20e6;

/// Price of each request beside its handler and its bytes, in seconds: reading it, and the system calls around it.
const REQUEST: f64 = 20e-6;

/// Price of looking up a share, in seconds: look-ups are made one at a time, with a pause of this length.
const SHARE_LOOKUP: f64 = 0.01;

/// Budgets of all readers. Clones share them.
#[derive(Debug, Clone)]
pub struct Budgets {
    exempts_loopback: bool,
    accounts: Arc<Accounts>,
}

impl Budgets {
    /// Whole budgets for everyone. `exempts_loopback` lets readers on this machine cost what they like.
    pub fn new(exempts_loopback: bool) -> Self {
        Self { exempts_loopback, accounts: Arc::default() }
    }

    fn limits(&self, client: Client) -> bool {
        !(self.exempts_loopback && client.0.is_loopback())
    }

    /// Takes `cost` seconds of processor time off the budget of a client's network.
    fn charge(&self, client: Client, cost: f64) {
        if self.limits(client) {
            self.accounts.charge(client.network(), cost, Instant::now());
        }
    }
}

/// Answers a request if its network can pay, and charges it: the processor time of its handler and the bytes of its
/// answer.
pub(super) async fn limit(State(budgets): State<Budgets>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().copied().filter(|client| budgets.limits(*client));
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(client) = client.filter(|_| route != "/health") else { return next.run(request).await };
    if let Err(wait) = budgets.accounts.admit(client.network(), Instant::now()) {
        return too_many(wait);
    }
    let looks_up =
        route.starts_with("/web/share") || matches!(route, "/web/payout_address/{hash}" | "/api/v1/shares/{hash}");
    budgets.charge(client, if looks_up { REQUEST + SHARE_LOOKUP } else { REQUEST });
    let bill = Bill { budgets: budgets.clone(), client, spent: Duration::ZERO };
    let response = Metered { handling: Box::pin(next.run(request)), bill }.await;
    budgets.charge(client, bytes_of(&response) / BYTES_PER_SECOND);
    response
}

/// Size of an answer; of one that is read from a file, as it declares it. Event streams count as nothing.
fn bytes_of(response: &Response) -> f64 {
    if response.body().is_end_stream() {
        return 0.0;
    }
    let declared = || response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    #[expect(clippy::cast_precision_loss, reason = "a price")]
    let bytes = response.body().size_hint().exact().or_else(declared).unwrap_or(0) as f64;
    bytes
}

fn too_many(wait: Duration) -> Response {
    Refused::Budget.count();
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    let detail = format!("this network has asked for more than its share: try again in {seconds} s");
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&seconds.to_string()).ok().map(|seconds| (header::RETRY_AFTER, seconds)));
    // Pages of other origins may read this as they may read what they asked for.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Measures the processor time of a handler.
struct Metered<F> {
    handling: Pin<Box<F>>,
    bill: Bill,
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let started = thread_time();
        let polled = self.handling.as_mut().poll(context);
        self.bill.spent += thread_time().saturating_sub(started);
        polled
    }
}

/// Time that a handler took, charged when it ends, also because its client is gone.
struct Bill {
    budgets: Budgets,
    client: Client,
    spent: Duration,
}

impl Drop for Bill {
    fn drop(&mut self) {
        self.budgets.charge(self.client, self.spent.as_secs_f64());
    }
}

/// Processor time of this thread. Time of the clock would charge readers for the load of the machine.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// All budgets, as of given times.
#[derive(Debug)]
struct Accounts {
    total: Mutex<Bucket>,
    networks: TokenBuckets,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { total: Mutex::default(), networks: TokenBuckets::new(NETWORK, false) }
    }
}

impl Accounts {
    /// Returns the time until `network` may ask again, if it may not now. While the total runs low, networks that have
    /// taken much wait for those that have not.
    fn admit(&self, network: Source, now: Instant) -> Result<(), Duration> {
        let (own, total) = (self.networks.bucket(network), *self.total.lock());
        let (left, total_left) = (own.left(NETWORK, now), total.left(TOTAL, now));
        if left <= 0.0 {
            Err(own.wait(0.0, NETWORK, now))
        } else if total_left <= 0.0 {
            Err(total.wait(0.0, TOTAL, now))
        } else if total_left < TOTAL.burst * KEPT_FOR_LIGHT && left < NETWORK.burst * LIGHT {
            Err(own.wait(NETWORK.burst * LIGHT, NETWORK, now))
        } else {
            Ok(())
        }
    }

    fn charge(&self, network: Source, cost: f64, now: Instant) {
        self.total.lock().spend(cost, TOTAL, now);
        self.networks.spend(network, cost, now);
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::view::http::testing::{ask, status_of};
    use crate::view::http::{Http, Readers};

    fn network(number: u16) -> Source {
        let [high, low] = number.to_be_bytes();
        Source::of([10, high, low, 1].into())
    }

    #[test]
    fn a_network_that_takes_too_much_waits_and_others_do_not() {
        let (accounts, now) = (Accounts::default(), Instant::now());
        accounts.charge(network(1), NETWORK.burst + 0.2, now);
        let wait = accounts.admit(network(1), now).unwrap_err();
        assert!((wait.as_secs_f64() - 2.0).abs() < 1e-6, "{wait:?}");
        assert_eq!(accounts.admit(network(2), now), Ok(()));
        assert_eq!(accounts.admit(network(1), now + Duration::from_millis(2010)), Ok(()));
    }

    #[test]
    fn readers_of_many_networks_cannot_take_more_than_the_total_and_the_lightest_wait_least() {
        let (accounts, now) = (Accounts::default(), Instant::now());
        let mut spent = 0.0;
        for second in 0..60 {
            let now = now + Duration::from_secs(second);
            for heavy in 0..200 {
                if accounts.admit(network(heavy), now).is_ok() {
                    accounts.charge(network(heavy), 0.05, now);
                    spent += 0.05;
                }
            }
        }
        assert!(spent <= TOTAL.burst + 60.0 * TOTAL.per_second + 0.05, "{spent} s");
        // The kept half of the total goes to those that have hardly asked.
        let (accounts, heavy, light) = (Accounts::default(), network(1), network(2));
        (10..20).for_each(|other| accounts.charge(network(other), 0.55, now));
        accounts.charge(heavy, 0.6, now);
        assert!(accounts.admit(heavy, now).is_err());
        assert_eq!(accounts.admit(light, now), Ok(()));
    }

    #[test]
    fn a_scraper_every_second_and_a_page_that_draws_every_five_never_wait() {
        let (accounts, start) = (Accounts::default(), Instant::now());
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            assert_eq!(accounts.admit(network(1), now), Ok(()), "after {second} s");
            // 5 ms and 300 kB; the pages of five readers behind one address, 20 ms and 700 kB each.
            accounts.charge(network(1), 0.005 + 3e5 / BYTES_PER_SECOND, now);
            if second % 5 == 0 {
                accounts.charge(network(1), 5.0 * (0.02 + 7e5 / BYTES_PER_SECOND), now);
            }
        }
    }

    /// A node with a path whose answer has 10 MB, and paths of a small one.
    fn node(exempts_loopback: bool) -> Http {
        let small = || get(async || "small");
        let router = Router::new()
            .route("/large", get(async || vec![b'x'; 10_000_000]))
            .route("/small", small())
            .route("/health", small())
            .route("/api/v1/shares/{hash}", small());
        let readers = Readers { budgets: Some(Budgets::new(exempts_loopback)), login: None };
        Http::new(readers.guard(router), CancellationToken::new())
    }

    #[tokio::test]
    async fn a_reader_who_takes_too_much_is_asked_to_wait_and_health_and_others_are_answered() {
        let node = node(true);
        let (reader, neighbour, other) = ([192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 1]);
        let mut answered = 0;
        while status_of(&ask(&node, reader, "GET /large", "").await) == 200 {
            answered += 1;
        }
        // Ten are paid for; the budget grows by a fifth of one in each second that the test takes.
        assert!((10..20).contains(&answered), "{answered} answers");
        let refused = ask(&node, reader, "GET /small", "").await;
        assert_eq!(status_of(&refused), 429);
        assert!(
            refused.contains("\r\nRetry-After: ") && refused.contains("\r\nAccess-Control-Allow-Origin: *"),
            "{refused}"
        );
        assert_eq!(status_of(&ask(&node, neighbour, "GET /small", "").await), 429, "of the same network");
        assert_eq!(status_of(&ask(&node, reader, "GET /health", "").await), 200);
        assert_eq!(status_of(&ask(&node, other, "GET /small", "").await), 200);
    }

    #[tokio::test]
    async fn this_machine_pays_nothing_unless_it_is_to() {
        for (exempts_loopback, expected) in [(true, 200), (false, 429)] {
            let node = node(exempts_loopback);
            for _ in 0..11 {
                ask(&node, [127, 0, 0, 1], "GET /large", "").await;
            }
            assert_eq!(status_of(&ask(&node, [127, 0, 0, 1], "GET /small", "").await), expected);
        }
    }

    #[tokio::test]
    async fn looking_up_shares_one_by_one_is_charged_before_it_is_done() {
        let node = node(true);
        let mut count = 0;
        while status_of(&ask(&node, [192, 0, 2, 1], "GET /api/v1/shares/x", "").await) == 200 {
            count += 1;
            assert!(count < 1000, "nobody pays");
        }
        assert!(count >= 100, "{count} look-ups");
    }

    #[tokio::test]
    async fn a_handler_is_charged_for_its_processor_time_also_when_its_client_is_gone() {
        let (budgets, client, start) = (Budgets::new(true), Client([192, 0, 2, 1].into()), Instant::now());
        let bill = Bill { budgets: budgets.clone(), client, spent: Duration::ZERO };
        let mut handling = Box::pin(Metered {
            handling: Box::pin(async {
                let started = thread_time();
                while thread_time() - started < Duration::from_millis(5) {}
                std::future::pending::<()>().await;
            }),
            bill,
        });
        assert!((&mut handling).now_or_never().is_none());
        drop(handling);
        let left = budgets.accounts.networks.bucket(client.network()).left(NETWORK, start);
        assert!(left <= NETWORK.burst - 0.005, "{left} s are left");
    }
}
