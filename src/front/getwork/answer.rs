//! Answers to polling miners: JSON-RPC over HTTP, with the fields and headers that devices look for.

use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use stratum::getwork::Handed;

use super::request::Device;

/// Time for which a miner may roll the time of one answer, as in P2Pool.
const ROLL_NTIME: &str = "expire=100";

/// Second half of a double SHA-256's input, the same for all; miners expect it and ignore it.
const HASH1: &str = "0000000000000000000000000000000000000000000000000000000000000000\
                     0000008000000000000000000000000000000000000000000000000000010000";

/// JSON-RPC answer; the id is echoed unchanged.
#[derive(Serialize)]
struct Answer<'a, R> {
    result: R,
    error: Option<Failure>,
    id: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Failure {
    code: i32,
    message: String,
}

/// Job, with its fields in the order that ASICMINER's Block Erupter Blade parses.
#[derive(Serialize)]
pub(super) struct Fields {
    target: String,
    data: String,
    midstate: String,
    hash1: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submitold: Option<bool>,
}

impl Fields {
    pub(super) fn new(handed: &Handed, identifier: String, device: Device) -> Self {
        Self {
            target: hex::encode(handed.target),
            data: hex::encode(handed.data),
            midstate: hex::encode(handed.midstate),
            hash1: HASH1,
            identifier: (!device.is_tiny).then_some(identifier),
            submitold: (!device.is_tiny).then_some(true),
        }
    }
}

/// Answers a call with `result`.
pub(super) fn answered<R: Serialize>(
    id: Option<&RawValue>,
    result: R,
    device: Device,
    headers: &HeaderMap,
) -> Response {
    let mut response = json(&Answer { result, error: None, id }, device);
    let given = response.headers_mut();
    given.insert("x-long-polling", HeaderValue::from_static("/long-polling"));
    given.insert("x-roll-ntime", HeaderValue::from_static(ROLL_NTIME));
    given.insert("x-is-p2pool", HeaderValue::from_static("true"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some(url) = host.and_then(|host| HeaderValue::from_str(&format!("stratum+tcp://{host}")).ok()) {
        given.insert("x-stratum", url);
    }
    response
}

/// Answers a call with an error.
pub(super) fn failed(id: Option<&RawValue>, device: Device, code: i32, message: String) -> Response {
    json(&Answer { result: (), error: Some(Failure { code, message }), id }, device)
}

/// Answers a call above the limit of its network; miners try again after some seconds.
pub(super) fn too_many(id: Option<&RawValue>, device: Device) -> Response {
    let message = "too many requests from your network: poll less often, or use Stratum".to_owned();
    let mut response = failed(id, device, CODE_TOO_MANY, message);
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Error code of a call above the limit.
const CODE_TOO_MANY: i32 = -32005;

fn json<R: Serialize>(answer: &Answer<'_, R>, device: Device) -> Response {
    let body = serde_json::to_vec(answer).expect("plain data becomes JSON");
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if device.is_tiny {
        *response.version_mut() = Version::HTTP_10;
    }
    response
}

/// bfgminer sends its user name only after a challenge.
pub(super) fn challenge() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"P2Pool: your address is the user name\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the user name says who is paid: ADDRESS[.worker]\n").into_response()
}
