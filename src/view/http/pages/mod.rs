//! The web pages: embedded static files, and one HTML shell that every page's path returns.
//!
//! There is no build step, nothing is fetched from other hosts, and no data becomes markup: `app.js` selects the page
//! for the path and draws it from `/api/v1`. Clients such as `curl` get plain text where they ask for it.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::LazyLock;

use super::Sources;

/// Content security policy: pages may load and query only this node, whatever a stranger's name contains.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// HTML shell of every page.
const SHELL: Asset = Asset { kind: "text/html; charset=utf-8", bytes: include_bytes!("assets/shell.html") };

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// An embedded file.
#[derive(Debug, Clone, Copy)]
struct Asset {
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($kind:expr => $($path:literal),+;)+) => {
        &[$($((concat!("/assets/", $path), Asset { kind: $kind, bytes: include_bytes!(concat!("assets/", $path)) })),+),+]
    };
}

/// Embedded files by path.
const ASSETS: &[(&str, Asset)] = assets! {
    "image/svg+xml" => "icon.svg";
    STYLE => "style.css";
    SCRIPT => "api.js", "app.js", "chain.js", "dom.js", "format.js", "merged.js", "parts.js", "plot.js", "range.js",
        "versions.js", "views/address.js", "views/blocks.js", "views/graphs.js", "views/miners.js", "views/overview.js", "views/payouts.js",
        "views/peers.js", "views/share.js", "views/sharechain.js";
};

/// Paths of pages other than `/`, as in `app.js`.
const PAGES: &[&str] = &["/sharechain", "/share/{hash}", "/miners", "/payouts", "/blocks", "/graphs", "/peers"];

/// ETag of each file.
static TAGS: LazyLock<HashMap<&'static [u8], String>> = LazyLock::new(|| {
    let files = ASSETS.iter().map(|(_, asset)| asset).chain([&SHELL]);
    files.map(|asset| (asset.bytes, format!("\"{}\"", hex::encode(&Sha256::digest(asset.bytes)[..12])))).collect()
});

/// Returns the router of pages and their files.
pub(super) fn routes() -> Router<Sources> {
    let mut router = Router::new();
    for path in PAGES {
        router = router.route(path, get(shell));
    }
    for (path, asset) in ASSETS {
        router =
            router.route(path, get(move |headers: HeaderMap| async move { serve(*asset, &headers, StatusCode::OK) }));
    }
    router
        .route("/favicon.ico", get(|headers: HeaderMap| async move { serve(ASSETS[0].1, &headers, StatusCode::OK) }))
        .fallback(get(missing))
}

/// Serves the HTML shell.
pub(super) async fn shell(headers: HeaderMap) -> Response {
    serve(SHELL, &headers, StatusCode::OK)
}

/// Answers unknown paths: with a page for browsers, with text for programs.
async fn missing(headers: HeaderMap) -> Response {
    if accepts(&headers, "text/html") {
        return serve(SHELL, &headers, StatusCode::NOT_FOUND);
    }
    (StatusCode::NOT_FOUND, "no such page\n").into_response()
}

/// Returns true if the client prefers text to a page.
pub(super) fn wants_text(headers: &HeaderMap) -> bool {
    accepts(headers, "text/plain") && !accepts(headers, "text/html")
}

fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains(kind))
}

fn serve(asset: Asset, headers: &HeaderMap, status: StatusCode) -> Response {
    let tag = TAGS.get(asset.bytes).map_or("", String::as_str);
    let head = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Revalidated on each request, so that an upgrade takes effect at once.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "Accept"),
        (header::ETAG, tag),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if status == StatusCode::OK
        && !tag.is_empty()
        && known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag))
    {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (status, head, asset.bytes).into_response()
}

/// Page of a payout address.
pub(super) async fn address(headers: HeaderMap, path: Path<String>, state: axum::extract::State<Sources>) -> Response {
    if wants_text(&headers) { super::address_text(state, path).await } else { shell(headers).await }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_is_served_and_together_they_are_small() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/view/http/pages");
        let mut found = Vec::new();
        files(&folder.join("assets"), &mut found);
        let mut names: Vec<&str> =
            found.iter().map(|path| path.strip_prefix(folder.to_str().unwrap()).unwrap()).collect();
        names.retain(|name| *name != "/assets/shell.html");
        names.sort_unstable();
        let mut served: Vec<&str> = ASSETS.iter().map(|(path, _)| *path).collect();
        served.sort_unstable();
        assert_eq!(served, names);
        let bytes: usize = ASSETS.iter().map(|(_, asset)| asset.bytes.len()).sum();
        assert!(bytes < 150_000, "{bytes} bytes");
    }

    #[test]
    fn the_frame_and_the_style_fetch_nothing_from_elsewhere() {
        for (path, asset) in ASSETS.iter().chain([&("/", SHELL)]) {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let foreign = text
                .match_indices("://")
                .filter(|(at, _)| !text[..*at].ends_with("http") || !text[at + 3..].starts_with("www.w3.org/2000/svg"));
            assert_eq!(foreign.count(), 0, "{path} names another host");
        }
    }

    #[test]
    fn what_did_not_change_is_not_sent_again() {
        let first = serve(SHELL, &HeaderMap::new(), StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(serve(SHELL, &headers, StatusCode::OK).status(), StatusCode::NOT_MODIFIED);
        headers.insert(header::IF_NONE_MATCH, header::HeaderValue::from_static("\"other\""));
        assert_eq!(serve(SHELL, &headers, StatusCode::OK).status(), StatusCode::OK);
    }

    #[test]
    fn text_is_for_those_who_ask_for_it() {
        let with = |value| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, header::HeaderValue::from_static(value));
            wants_text(&headers)
        };
        assert!(with("text/plain"));
        assert!(!with("*/*"));
        assert!(!with("text/html,application/xhtml+xml,text/plain;q=0.8,*/*;q=0.5"));
        assert!(!wants_text(&HeaderMap::new()));
    }
}
