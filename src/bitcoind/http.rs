//! One HTTP request over a connection of its own, with an answer of bounded size. Redirects are not followed: they could
//! carry the password to another host.

use axum::body::Body;
use axum::http::header::InvalidHeaderValue;
use axum::http::{HeaderValue, Request, StatusCode, header};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures::StreamExt;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::credentials::Login;

/// Maximum size of an answer's status line and headers, in bytes.
const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Reason why a request has no answer.
#[derive(Debug, Error)]
pub(super) enum PostError {
    /// There is no connection, or it broke.
    #[error("{0}")]
    Broken(String),
    /// The answer is too long; what came of it is dropped.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

/// Value of the header `Authorization`.
pub(super) fn authorization(login: &Login) -> Result<HeaderValue, InvalidHeaderValue> {
    let login = BASE64_STANDARD.encode(format!("{}:{}", login.user, login.password.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {login}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Posts the JSON text `body` to `path` at `target`, an address with a port. Waits without limit: the caller has a
/// timeout, and dropping the future closes the connection.
pub(super) async fn post(
    target: &str,
    path: &str,
    login: &Login,
    body: Vec<u8>,
    answer_bytes_max: usize,
) -> Result<(StatusCode, Vec<u8>), PostError> {
    let unusable = |error: &dyn std::fmt::Display| PostError::Broken(error.to_string());
    let request = Request::post(path)
        .header(header::HOST, target)
        .header(header::AUTHORIZATION, authorization(login).map_err(|error| unusable(&error))?)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Body::from(body))
        .map_err(|error| unusable(&error))?;
    let stream = TcpStream::connect(target).await.map_err(|error| unusable(&error))?;
    let mut client = http1::Builder::new();
    client.max_buf_size(HEADERS_BYTES_MAX);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(|error| unusable(&error))?;
    // Its errors come out of the request, too.
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await.map_err(|error| unusable(&error))?;
    let status = answer.status();
    if usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX) > answer_bytes_max {
        return Err(PostError::TooLong(answer_bytes_max));
    }
    let mut pieces = Body::new(answer.into_body()).into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| unusable(&error))?;
        if piece.len() > answer_bytes_max - bytes.len() {
            return Err(PostError::TooLong(answer_bytes_max));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((status, bytes))
}
