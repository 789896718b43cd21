//! Writes responses and notifications.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::Id;
use crate::mining::error::StratumError;
use crate::mining::extranonce::{EXTRANONCE1_SIZE, EXTRANONCE2_SIZE};

/// Appends the answer to a request, or nothing if the request has no id. `result` is JSON.
pub fn write_success(out: &mut BytesMut, id: Id<'_>, result: &str) {
    let Some(id) = id.0 else { return };
    const PARTS: [&str; 3] = ["{\"id\":", ",\"result\":", ",\"error\":null}\n"];
    out.reserve(id.len() + result.len() + PARTS.iter().map(|part| part.len()).sum::<usize>());
    for part in [PARTS[0], id, PARTS[1], result, PARTS[2]] {
        out.put_slice(part.as_bytes());
    }
}

/// Appends the refusal of a request, or nothing if the request has no id. The error is always a list, the only form
/// that all miners parse.
pub fn write_failure(out: &mut BytesMut, id: Id<'_>, error: &StratumError) {
    let Some(id) = id.0 else { return };
    let text = Value::from(error.to_string());
    out.put_slice(format!("{{\"id\":{id},\"result\":null,\"error\":[{},{text},null]}}\n", error.code()).as_bytes());
}

/// Returns the answer to a request, or `None` if the request has no id. `result` is JSON.
pub fn success(id: Id<'_>, result: &str) -> Option<Bytes> {
    let mut out = BytesMut::new();
    write_success(&mut out, id, result);
    (!out.is_empty()).then(|| out.freeze())
}

/// Returns the parts of an answer before and after its result, for results that are shared.
pub fn success_around(id: Id<'_>) -> Option<(Bytes, Bytes)> {
    let id = id.0?;
    Some((format!("{{\"id\":{id},\"result\":").into(), Bytes::from_static(b",\"error\":null}\n")))
}

/// Returns the refusal of a request, or `None` if the request has no id.
pub fn failure(id: Id<'_>, error: &StratumError) -> Option<Bytes> {
    let mut out = BytesMut::new();
    write_failure(&mut out, id, error);
    (!out.is_empty()).then(|| out.freeze())
}

/// `mining.set_difficulty`, in the unit of the coin's miners.
pub fn set_difficulty(difficulty: f64) -> Bytes {
    // A JSON number: serde_json writes whole floats as `1.0`, tiny ones with an exponent; miners read both.
    let number = Value::from(difficulty);
    format!("{{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[{number}]}}\n").into()
}

/// `mining.set_version_mask` (BIP 310).
pub fn set_version_mask(mask: u32) -> Bytes {
    format!("{{\"id\":null,\"method\":\"mining.set_version_mask\",\"params\":[\"{mask:08x}\"]}}\n").into()
}

/// `mining.set_extranonce`: applies from the next job on.
pub fn set_extranonce(extranonce1: [u8; EXTRANONCE1_SIZE]) -> Bytes {
    let extranonce1 = hex::encode(extranonce1);
    format!("{{\"id\":null,\"method\":\"mining.set_extranonce\",\"params\":[\"{extranonce1}\",{EXTRANONCE2_SIZE}]}}\n")
        .into()
}

/// `client.show_message`, truncated to the length that miners can show.
pub fn show_message(text: &str) -> Bytes {
    const CHARACTERS_MAX: usize = 200;
    let text = Value::from(text.chars().filter(|one| !one.is_control()).take(CHARACTERS_MAX).collect::<String>());
    format!("{{\"id\":null,\"method\":\"client.show_message\",\"params\":[{text}]}}\n").into()
}

/// `client.reconnect` to the same host: cgminer refuses other hosts and an empty name, but accepts an empty list.
pub fn reconnect() -> Bytes {
    Bytes::from_static(b"{\"id\":null,\"method\":\"client.reconnect\",\"params\":[]}\n")
}

/// `client.get_version`. The id is a number, since cgminer parses it as one.
pub fn get_version() -> Bytes {
    Bytes::from_static(b"{\"id\":1,\"method\":\"client.get_version\",\"params\":[]}\n")
}

/// End of a `mining.notify`, after the shared part in [`crate::mining::job::Offer::line`].
pub fn notify_end(clean_jobs: bool) -> Bytes {
    Bytes::from_static(if clean_jobs { b"true]}\n" } else { b"false]}\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_that_miners_parse() {
        let answer = failure(Id(Some("4")), &StratumError::UnknownMethod("a\"b".into())).unwrap();
        let value: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(value, serde_json::json!({"id": 4, "result": null, "error": [-3, "method `a\"b` not found", null]}));
    }

    #[test]
    fn tiny_difficulties_stay_numbers() {
        for value in [1.0, 0.001, 4.656_542_373_906_925e-10, 1e12] {
            let line = set_difficulty(value);
            let line = String::from_utf8(line.to_vec()).unwrap();
            let number = line.split(['[', ']']).nth(1).unwrap();
            assert_eq!(number.parse(), Ok(value), "{line}");
        }
    }
}
