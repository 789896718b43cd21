//! HTTP basic authentication of readers (RFC 7617), for operators who do not want everyone to read. Miners' calls on the
//! same port are not covered: a miner's user name is its payout address.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Client;
use super::api::Problem;
use super::refusals::Refused;
use crate::runtime::users::Verdict;

/// Maximum length of name and password together, encoded, in bytes: they are hashed at our cost.
const CREDENTIALS_BYTES_MAX: usize = 1024;

/// Seconds after which a client may try again whose password was not checked for others that wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Function behind a [`Checker`]: takes name, password and the client's address.
pub type Check = dyn Fn(String, String, IpAddr) -> BoxFuture<'static, Verdict> + Send + Sync;

/// Checks names and passwords. It bounds its own cost, and slows clients that guess.
#[derive(Clone)]
pub struct Checker(pub Arc<Check>);

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checker")
    }
}

/// Readers who have to give a password.
#[derive(Debug, Clone)]
pub struct Login {
    pub checker: Checker,
    /// Set if `/metrics` is open to everyone.
    pub opens_metrics: bool,
    /// Set if `/health` is open to everyone.
    pub opens_health: bool,
}

impl Login {
    /// True for routes that ask for no password. The pages' own scripts and styles are public; they show nothing alone.
    fn opens(&self, route: &str) -> bool {
        match route {
            "/metrics" => self.opens_metrics,
            "/health" => self.opens_health,
            "/favicon.ico" => true,
            route => route.starts_with("/assets/"),
        }
    }
}

/// Name and password of a request.
#[derive(Debug, PartialEq, Eq)]
struct Credentials {
    name: String,
    password: String,
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > CREDENTIALS_BYTES_MAX {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':')?;
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

/// Answers a request if its route is open, or its name and password are right.
pub(super) async fn ask(State(login): State<Login>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if login.opens(route) {
        return next.run(request).await;
    }
    let (Some(client), Some(credentials)) =
        (request.extensions().get::<Client>().copied(), Credentials::of(request.headers()))
    else {
        return challenge("these pages ask for a name and a password");
    };
    match (login.checker.0)(credentials.name, credentials.password, client.0).await {
        Verdict::Accepted => next.run(request).await,
        Verdict::Refused => challenge("wrong name or password"),
        Verdict::Busy => busy(),
    }
}

fn challenge(detail: &str) -> Response {
    Refused::Login.count();
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"P2Pool pages\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Answer to a password that is not checked now. No challenge: a browser would forget a password that may be right.
fn busy() -> Response {
    Refused::Login.count();
    let detail = "too many passwords are being checked: try again in a few seconds";
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{get, post};
    use futures::FutureExt;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::view::http::testing::{ask, status_of};
    use crate::view::http::{Budgets, Http, Readers};

    /// Lets `alice` in with the password `it's:me`, and has no time for `bob`.
    fn checker() -> Checker {
        let verdict = |name: &str, password: &str| match (name, password) {
            ("alice", "it's:me") => Verdict::Accepted,
            ("bob", _) => Verdict::Busy,
            _ => Verdict::Refused,
        };
        Checker(Arc::new(move |name, password, _| async move { verdict(&name, &password) }.boxed()))
    }

    fn node(readers: Readers) -> Http {
        let page = || get(async || "page");
        let pages = ["/", "/api/v1/summary", "/metrics", "/health", "/assets/app.js", "/favicon.ico", "/static/x.js"];
        let pages = pages.into_iter().fold(Router::new(), |router, path| router.route(path, page())).fallback(page());
        let miners = Router::new().route("/", post(async || "work")).route("/LP", get(async || "work"));
        Http::new(miners.merge(readers.guard(pages)), CancellationToken::new())
    }

    fn with_login(opens_metrics: bool, opens_health: bool) -> Readers {
        let login = Login { checker: checker(), opens_metrics, opens_health };
        Readers { budgets: Some(Budgets::new(true)), login: Some(login) }
    }

    fn basic(credentials: &str) -> String {
        format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials))
    }

    async fn status(node: &Http, request: &str, lines: &str) -> u16 {
        status_of(&ask(node, [192, 0, 2, 1], request, lines).await)
    }

    #[tokio::test]
    async fn pages_and_api_ask_for_a_password_and_miners_calls_do_not() {
        let node = node(with_login(false, false));
        for path in ["/", "/api/v1/summary", "/metrics", "/health", "/static/x.js", "/unknown", "/assets/../metrics"] {
            let request = format!("GET {path}");
            let answer = ask(&node, [192, 0, 2, 1], &request, "").await;
            assert_eq!(status_of(&answer), 401, "{path}");
            assert!(answer.contains("\r\nWww-Authenticate: Basic realm="), "{answer}");
            assert_eq!(status(&node, &request, &basic("alice:it's:me")).await, 200, "{path}");
        }
        for request in ["POST /", "GET /LP", "GET /assets/app.js", "GET /favicon.ico"] {
            assert_eq!(status(&node, request, "").await, 200, "{request}");
        }
    }

    #[tokio::test]
    async fn monitoring_can_be_left_open() {
        let node = node(with_login(true, true));
        assert_eq!((status(&node, "GET /metrics", "").await, status(&node, "GET /health", "").await), (200, 200));
        assert_eq!(status(&node, "GET /api/v1/summary", "").await, 401);
    }

    #[tokio::test]
    async fn without_a_list_of_users_everyone_reads() {
        assert_eq!(status(&node(Readers::default()), "GET /api/v1/summary", "").await, 200);
    }

    #[tokio::test]
    async fn credentials_that_are_none_let_no_one_in() {
        let node = node(with_login(false, false));
        for lines in [
            basic("alice:wrong"),
            basic("alice"),
            basic(":it's:me"),
            basic(&format!("alice:{}", "x".repeat(2000))),
            "Authorization: Basic ???\r\n".to_owned(),
            "Authorization: Basic\r\n".to_owned(),
            "Authorization: Bearer YWxpY2U6aXQnczptZQ==\r\n".to_owned(),
            format!("{}{}", basic("alice:it's:me"), basic("alice:it's:me")),
        ] {
            assert_eq!(status(&node, "GET /api/v1/summary", &lines).await, 401, "{lines}");
        }
        assert_eq!(status(&node, "GET /api/v1/summary", &basic("alice:it's:me").replace("Basic", "bASIC")).await, 200);
    }

    #[tokio::test]
    async fn a_password_that_is_not_checked_in_time_is_not_called_wrong() {
        let node = node(with_login(false, false));
        let answer = ask(&node, [192, 0, 2, 1], "GET /", &basic("bob:it's:me")).await;
        assert_eq!(status_of(&answer), 429);
        assert!(answer.contains("\r\nRetry-After: 5\r\n") && !answer.contains("Www-Authenticate"), "{answer}");
    }
}
