//! Requests that change something, such as miners' calls, are not taken from pages of other sites: a browser sends what
//! any page asks for, and to wherever a stranger's domain name points (DNS rebinding).
//!
//! Miners send none of the headers by which a browser is known, and whatever host name their configuration has, so only
//! browsers' requests are checked. Reading is open to all sites, as with the original P2Pool.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tracing::debug;

use super::api::Problem;
use super::refusals::Refused;

/// Relation of a page to the site that it asks, as told by browsers since 2020 to 2023.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Paths that hold a connection and hand out work, whatever their method.
const LONG_POLLING: [&str; 2] = ["/long-polling", "/LP"];

/// Content types that a form can send to any site without being asked first.
const FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Host names under which browsers may change something, beside addresses and `localhost`. Other names may be a
/// stranger's that points here.
#[derive(Debug, Clone)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// This machine's own names, and `more`.
    pub fn new(more: impl IntoIterator<Item = String>) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
        let first = own.split('.').next().unwrap_or_default().to_owned();
        let own = [format!("{first}.local"), first, own];
        Self(own.into_iter().chain(more.into_iter().map(|name| name.to_ascii_lowercase())).collect())
    }

    /// True if `host` is an address, or one of the names, with or without a port.
    fn include(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, rest)) => {
                return address.parse::<Ipv6Addr>().is_ok() && (rest.is_empty() || rest.starts_with(':'));
            }
            None => host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase(),
        };
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || !name.is_empty() && self.0.contains(&name)
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new([])
    }
}

/// Refuses requests that a browser sends for a page of another site, unless they only read.
pub(super) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    if only_reads(&request) {
        return next.run(request).await;
    }
    match refusal(request.headers(), &hosts) {
        None => next.run(request).await,
        Some(reason) => {
            Refused::CrossSite.count();
            debug!(reason, "request of a browser refused");
            Problem::new(StatusCode::FORBIDDEN, reason).into_response()
        }
    }
}

fn only_reads(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && !LONG_POLLING.contains(&request.uri().path())
}

/// Returns the reason to refuse a request that changes something; `None` if it is not a browser's, or of a page of this
/// node.
fn refusal(headers: &HeaderMap, hosts: &Hosts) -> Option<&'static str> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (origin, site) = (text(&header::ORIGIN), text(&SEC_FETCH_SITE));
    // Browsers that send neither: their forms are refused, and they ask before anything that is no form.
    let is_old_browser = headers.contains_key(header::REFERER)
        || text(&header::USER_AGENT).is_some_and(|agent| agent.starts_with("Mozilla/"));
    if origin.is_none() && site.is_none() && !is_old_browser {
        return None;
    }
    let host = text(&header::HOST).unwrap_or_default();
    let same_host =
        |origin: &str| origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host));
    let kind = text(&header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if headers.get_all(header::HOST).iter().count() != 1 || headers.get_all(header::ORIGIN).iter().count() > 1 {
        Some("one `Host` and one `Origin` are expected")
    } else if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        Some("a page of another site may not do this")
    } else if origin.is_some_and(|origin| !same_host(origin)) {
        Some("`Origin` is not this site")
    } else if !hosts.include(host) {
        Some("`Host` is not known to be this node: see --web-host")
    } else if FORMS.iter().any(|form| kind.eq_ignore_ascii_case(form)) {
        Some("forms are not taken")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::{any, get, post};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::view::http::Http;
    use crate::view::http::testing::{ask, status_of};

    fn node() -> Http {
        let router = Router::new()
            .route("/", get(async || "page").post(async || "work"))
            .route("/long-polling", any(async || "work"))
            .route("/bans", post(async || "order").delete(async || "order"));
        Http::at(Hosts::new(["Pool.Example.com".to_owned()]), router, CancellationToken::new())
    }

    /// Everything that changes something or hands out work.
    const CHANGES: [&str; 5] = ["POST /", "POST /bans", "DELETE /bans", "POST /long-polling", "GET /long-polling"];

    async fn statuses(lines: &str) -> Vec<u16> {
        let node = node();
        let mut statuses = Vec::new();
        for request in CHANGES {
            statuses.push(status_of(&ask(&node, [192, 0, 2, 1], request, lines).await));
        }
        statuses.dedup();
        statuses
    }

    #[tokio::test]
    async fn miners_are_served_under_any_host_name_and_with_any_content_type() {
        for lines in [
            "",
            "Host: whatever.example.net:9332\r\n",
            "Host: whatever.example.net\r\nUser-Agent: cpuminer/2.5.1\r\nContent-Type: application/json\r\n",
            "Host: whatever.example.net\r\nUser-Agent: curl/8.5.0\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            "Host: whatever.example.net\r\nUser-Agent: Jephis PIC Miner\r\nContent-Type: text/plain\r\n",
        ] {
            assert_eq!(statuses(lines).await, [200], "{lines}");
        }
    }

    #[tokio::test]
    async fn a_page_of_another_site_changes_nothing_and_gets_no_work() {
        for lines in [
            "Host: 192.0.2.9:9332\r\nOrigin: https://evil.example\r\n",
            "Host: 192.0.2.9:9332\r\nOrigin: http://192.0.2.9\r\n",
            "Host: 192.0.2.9:9332\r\nOrigin: http://192.0.2.9:9333\r\n",
            "Host: 192.0.2.9:9332\r\nOrigin: null\r\n",
            "Host: 192.0.2.9:9332\r\nOrigin: http://192.0.2.9:9332\r\nOrigin: https://evil.example\r\n",
            "Host: 192.0.2.9:9332\r\nHost: evil.example\r\nOrigin: http://192.0.2.9:9332\r\n",
            "Host: 192.0.2.9:9332\r\nSec-Fetch-Site: cross-site\r\n",
            "Host: 192.0.2.9:9332\r\nSec-Fetch-Site: same-site\r\n",
            "Host: localhost:9332\r\nOrigin: http://localhost:9332\r\nSec-Fetch-Site: cross-site\r\n",
            "Origin: http://192.0.2.9:9332\r\n",
            // Browsers that send neither: a form is all that they send unasked.
            "Host: 192.0.2.9\r\nUser-Agent: Mozilla/4.0 (MSIE 7.0)\r\nContent-Type: text/plain\r\n",
            "Host: 192.0.2.9\r\nReferer: http://evil.example/\r\nContent-Type: multipart/form-data; boundary=x\r\n",
        ] {
            assert_eq!(statuses(lines).await, [403], "{lines}");
        }
    }

    #[tokio::test]
    async fn a_strangers_name_that_points_here_changes_nothing() {
        let same_origin =
            |host: &str| format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
        for host in [
            "evil.example:9332",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0x7f.1",
            "",
            "[::1].evil",
            "::1",
        ] {
            assert_eq!(statuses(&same_origin(host)).await, [403], "{host}");
        }
        for host in
            ["192.0.2.9:9332", "[2001:db8::1]:9332", "localhost:9332", "pool.example.com", "POOL.example.com.:9332"]
        {
            assert_eq!(statuses(&same_origin(host)).await, [200], "{host}");
        }
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_eq!(statuses(&same_origin(&own)).await, [200], "{own}");
    }

    #[tokio::test]
    async fn every_site_may_read() {
        let lines = "Host: evil.example\r\nOrigin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n";
        assert_eq!(status_of(&ask(&node(), [192, 0, 2, 1], "GET /", lines).await), 200);
    }
}
