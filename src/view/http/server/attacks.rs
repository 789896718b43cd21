//! What strangers may try on a connection, each with the bound that it meets. Time is virtual.

use super::*;
use axum::body::{Body, Bytes};
use axum::routing::{any, get};
use futures::stream;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::view::http::body::{BODY_BYTES_MAX, BODY_TIMEOUT};
use crate::view::http::connection::WRITE_TIMEOUT;
use crate::view::http::testing::{connect, converse, read_all};

/// Size of the answer of `/large`.
const LARGE: usize = 1 << 20;

/// A server with a path for each kind of handler.
fn server() -> Http {
    let endless =
        || async { Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from("data: x\n\n")))) };
    let router = Router::new()
        .route("/", any(async || "ignores the body"))
        .route("/echo", any(async |body: Bytes| body))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/endless", get(endless));
    Http::new(router, CancellationToken::new())
}

/// Address of a client.
const CLIENT: [u8; 4] = [192, 0, 2, 1];

/// Sends `bytes`, then a byte each second, and returns the seconds until the server closes, with its answer.
async fn trickle(bytes: &str) -> (f64, String) {
    let (client, serving) = connect(&server(), CLIENT);
    let (reader, mut writer) = tokio::io::split(client);
    writer.write_all(bytes.as_bytes()).await.unwrap();
    let started = Instant::now();
    tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let answer = read_all(reader).await;
    serving.await.unwrap();
    (started.elapsed().as_secs_f64(), answer)
}

/// Number of answers in a text.
fn answers_in(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_does_not_come_holds_a_connection_for_ten_seconds() {
    let limit = FIRST_REQUEST_TIMEOUT.as_secs_f64();
    for begun in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] {
        let (seconds, answer) = trickle(begun).await;
        assert!((limit..limit + 0.1).contains(&seconds), "{begun:?}: {seconds} s");
        assert_eq!(answer, "", "{begun:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_a_minute_between_two_requests_and_no_longer() {
    for begun in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] {
        let (mut client, serving) = connect(&server(), CLIENT);
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert!(client.read(&mut [0; 512]).await.unwrap() > 0);
            sleep(NEXT_REQUEST_TIMEOUT - Duration::from_secs(1)).await;
            assert!(!serving.is_finished(), "a request may still come");
        }
        client.write_all(begun.as_bytes()).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(serving.is_finished(), "{begun:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_refused_after_ten_seconds_whatever_the_path_does_with_it() {
    let limit = BODY_TIMEOUT.as_secs_f64();
    for path in ["/", "/echo", "/nowhere"] {
        for (method, framing) in [("POST", "Content-Length: 9999"), ("GET", "Content-Length: 9999")] {
            let (seconds, answer) = trickle(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n")).await;
            assert!((limit..limit + 0.1).contains(&seconds), "{method} {path}: {seconds} s");
            assert!(answer.starts_with("HTTP/1.1 408 "), "{method} {path}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_is_bounded_whatever_the_path_does_with_it_and_however_it_is_framed() {
    let http = server();
    let declared = |path| format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let chunked =
        |path| format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(100));
    for path in ["/", "/echo", "/nowhere"] {
        for request in [declared(path), chunked(path)] {
            let answer = converse(&http, CLIENT, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{path}: {answer}");
            assert_eq!(answers_in(&answer), 1, "the rest of a body is no request: {answer}");
        }
    }
    let body = "x".repeat(BODY_BYTES_MAX);
    let whole = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {BODY_BYTES_MAX}\r\n\r\n{body}"
    );
    assert!(converse(&http, CLIENT, whole.as_bytes()).await.ends_with(&body));
}

#[tokio::test]
async fn heads_are_bounded_in_bytes_and_lines() {
    let http = server();
    let long = "x".repeat(HEADER_BYTES_MAX);
    for (head, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(101)), "431"),
        (format!("{long} / HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
    ] {
        let answer = converse(&http, CLIENT, head.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}…: {answer}", &head[..40]);
        assert_eq!(answers_in(&answer), 1, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_answer_is_closed_after_twenty_seconds() {
    let limit = WRITE_TIMEOUT.as_secs_f64();
    for path in ["/large", "/endless"] {
        // One that reads nothing, and one that reads a byte a second.
        for reads in [false, true] {
            let (mut client, serving) = connect(&server(), CLIENT);
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            let started = Instant::now();
            while !serving.is_finished() {
                sleep(Duration::from_secs(1)).await;
                if reads {
                    let _ = client.read_u8().await;
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            assert!((limit..limit + 1.5).contains(&seconds), "{path}: {seconds} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_on_a_slow_line_gets_its_whole_answer() {
    let (mut client, _serving) = connect(&server(), CLIENT);
    client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut received, mut part) = (0, [0; 20_000]);
    while client.read_exact(&mut part).await.is_ok() {
        received += part.len();
        sleep(Duration::from_secs(1)).await;
    }
    assert!(received > LARGE - part.len(), "{received} bytes");
}

#[tokio::test(start_paused = true)]
async fn answers_of_clients_that_do_not_take_them_are_bounded_in_total_and_the_network_with_most_pays() {
    let http = Http { answers: Slots::new(3 * LARGE), ..server() };
    let ask = async |address: [u8; 4]| {
        let (mut client, serving) = connect(&http, address);
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        sleep(Duration::from_millis(1)).await;
        (client, serving)
    };
    let strangers = [ask([198, 51, 100, 1]).await, ask([198, 51, 100, 2]).await, ask([198, 51, 100, 3]).await];
    let (client, reading) = ask([192, 0, 2, 1]).await;
    let ended: Vec<bool> = strangers.iter().map(|(_, serving)| serving.is_finished()).collect();
    assert_eq!((ended, reading.is_finished()), (vec![true, false, false], false));
    // An answer that is taken gives its room back.
    let taking = tokio::spawn(read_all(client));
    sleep(Duration::from_millis(1)).await;
    let another = ask([203, 0, 113, 1]).await;
    assert!(!strangers[1].1.is_finished() && !another.1.is_finished());
    taking.abort();
}

#[tokio::test(start_paused = true)]
async fn requests_sent_ahead_wait_until_the_answers_before_them_are_taken() {
    let (http, calls) = (server(), Arc::new(AtomicUsize::new(0)));
    let counting = calls.clone();
    let counted = get(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        async { vec![b'x'; LARGE] }
    });
    let http = Http::new(Router::new().route("/counted", counted), http.stop);
    let (mut client, _serving) = connect(&http, CLIENT);
    let requests = "GET /counted HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let sent = timeout(Duration::from_secs(1), client.write_all(requests.as_bytes())).await;
    assert!(sent.is_err(), "they are not read ahead without bound");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// Requests that two readers may take for different ones (request smuggling), each with the number of answers until the
/// connection ends, and the first one's status.
const AMBIGUOUS: &[(&str, &str, usize, &str)] = &[
    ("length and chunks", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1, "200"),
    ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 1, "200"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 1, "400"),
    ("a list of lengths", "Content-Length: 0, 0\r\n\r\n", 1, "400"),
    ("a length with a sign", "Content-Length: +0\r\n\r\n", 1, "400"),
    ("a negative length", "Content-Length: -1\r\n\r\n", 1, "400"),
    ("a length in hex", "Content-Length: 0x0\r\n\r\n", 1, "400"),
    ("no length", "Content-Length: \r\n\r\n", 1, "400"),
    ("a length that overflows", "Content-Length: 18446744073709551616\r\n\r\n", 1, "400"),
    ("another coding", "Transfer-Encoding: gzip\r\n\r\n", 1, "400"),
    ("chunked is not the last coding", "Transfer-Encoding: chunked, gzip\r\n\r\n", 1, "400"),
    ("a coding that only begins so", "Transfer-Encoding: xchunked\r\n\r\n", 1, "400"),
    ("a coding in a separate line", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 1, "400"),
    ("space before a colon", "Content-Length : 0\r\n\r\n", 1, "400"),
    ("a folded line", "X: y\r\n folded\r\n\r\n", 1, "400"),
    ("a line that begins with space", " Content-Length: 0\r\n\r\n", 1, "400"),
    ("a name with a control character", "X\x01: y\r\n\r\n", 1, "400"),
    ("a value with a zero byte", "X: a\0b\r\n\r\n", 1, "400"),
    ("a value with a lone carriage return", "X: a\rb\r\n\r\n", 1, "400"),
    ("a chunk size with a sign", "Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n", 1, "400"),
    ("a chunk size with a prefix", "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", 1, "400"),
    ("no chunk size", "Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n", 1, "400"),
    ("a chunk size that overflows", "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\nx", 1, "400"),
    ("a chunk longer than its size", "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", 1, "400"),
    ("a line feed in a chunk extension", "Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n", 1, "400"),
    ("an upgrade to another protocol", "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 2, "200"),
    ("lines that end with a line feed", "X: y\nContent-Length: 0\n\n", 2, "200"),
    ("a chunk extension", "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n", 2, "200"),
    ("trailers", "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n", 2, "200"),
    ("the same length twice", "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 2, "200"),
    (
        "a body of a path that has no use for one",
        "Content-Length: 34\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        2,
        "200",
    ),
];

#[tokio::test(start_paused = true)]
async fn a_request_is_either_refused_or_ends_where_every_reader_sees_its_end() {
    let http = server();
    for (what, rest, answers, status) in AMBIGUOUS {
        let next = "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = converse(&http, CLIENT, format!("POST / HTTP/1.1\r\nHost: x\r\n{rest}{next}").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert_eq!(answers_in(&answer), *answers, "{what}: {answer}");
        assert!(!answer.contains(" 404 "), "{what}: part of a body was read as a request: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_protocols_and_old_versions_are_refused_or_answered_once() {
    let http = server();
    for (request, status) in [
        ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", "400"),
        ("GET /\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "400"),
    ] {
        let answer = converse(&http, CLIENT, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert_eq!(answers_in(&answer), 1, "{request:?}: {answer}");
    }
    assert_eq!(converse(&http, CLIENT, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "", "HTTP/2 is closed");
    let old = converse(&http, CLIENT, b"GET / HTTP/1.0\r\n\r\nGET /echo HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.starts_with("HTTP/1.0 200 "), old.matches("HTTP/1.").count()), (true, 1), "{old}");
}
