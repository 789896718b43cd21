//! Bodies of requests: read as a whole before any handler runs, also by paths that have no use for them. A handler thus
//! never waits for a client, and what follows on the connection is the next request.

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

use super::api::Problem;
use super::refusals::Refused;

/// Maximum time for a whole body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a body, in bytes. Paths that use theirs have lower limits.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Reads the body of a request, and passes the request on.
pub(super) async fn read_whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let whole = match timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(refusal)) => return closing(refusal),
        Err(_) => {
            let detail = format!("the request's body did not arrive within {BODY_TIMEOUT:?}");
            return closing(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
        }
    };
    next.run(Request::from_parts(parts, whole)).await
}

async fn collect(body: Body) -> Result<Body, Problem> {
    if body.is_end_stream() {
        return Ok(body);
    }
    let too_large = || {
        let detail = format!("the request's body has more than {BODY_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // As declared: nothing has to be sent to be refused.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        if whole.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Body::from(whole.freeze()))
}

/// Refuses a request whose body was not read, and closes the connection: its rest is no request.
fn closing(refusal: Problem) -> Response {
    Refused::Body.count();
    ([(header::CONNECTION, HeaderValue::from_static("close"))], refusal).into_response()
}
