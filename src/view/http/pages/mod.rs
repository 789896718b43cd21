//! The pages: files that are embedded as they stand, and one frame that each page's address gets.
//!
//! Nothing is built, nothing is fetched from elsewhere, and nothing that the node says becomes markup: `app.js` finds the
//! page for the address and draws it from `/api/v1`. Beside the `/api/v1` answers there is text for `curl`.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::LazyLock;

use super::Sources;

/// What a page may do: show what this node serves, and ask it; nothing else, whatever a stranger's name holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The frame of every page.
const SHELL: Asset = Asset { kind: "text/html; charset=utf-8", bytes: include_bytes!("assets/shell.html") };

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file.
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

/// Files by their paths.
const ASSETS: &[(&str, Asset)] = assets! {
    "image/svg+xml" => "icon.svg";
    STYLE => "style.css";
    SCRIPT => "api.js", "app.js", "chain.js", "dom.js", "format.js", "parts.js", "plot.js", "range.js",
        "views/address.js", "views/blocks.js", "views/graphs.js", "views/miners.js", "views/overview.js", "views/payouts.js",
        "views/peers.js", "views/share.js", "views/sharechain.js";
};

/// Paths that are pages, as `app.js` knows them, beside `/`.
const PAGES: &[&str] = &["/sharechain", "/share/{hash}", "/miners", "/payouts", "/blocks", "/graphs", "/peers"];

/// Names each file's content.
static TAGS: LazyLock<HashMap<&'static [u8], String>> = LazyLock::new(|| {
    let files = ASSETS.iter().map(|(_, asset)| asset).chain([&SHELL]);
    files.map(|asset| (asset.bytes, format!("\"{}\"", hex::encode(&Sha256::digest(asset.bytes)[..12])))).collect()
});

/// The routes of pages and of their files.
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

/// A page's frame.
pub(super) async fn shell(headers: HeaderMap) -> Response {
    serve(SHELL, &headers, StatusCode::OK)
}

/// What is not there: a page for readers, a word for programs.
async fn missing(headers: HeaderMap) -> Response {
    if accepts(&headers, "text/html") {
        return serve(SHELL, &headers, StatusCode::NOT_FOUND);
    }
    (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
}

/// Whether text is wanted rather than a page.
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
        // Asked for again each time, and sent again when it changed: an upgrade is seen at once.
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

/// An address' page.
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
