//! Requests of polling miners: JSON-RPC calls, credentials and the device, all written by strangers.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use stratum::getwork::DATA_BYTES;

/// JSON-RPC call.
#[derive(Debug, Deserialize)]
pub struct Call<'a> {
    /// Identifier to echo, as it was written.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// Name of the method.
    pub method: String,
    #[serde(default)]
    params: Value,
}

/// Content of a `getwork` call.
#[derive(Debug, PartialEq, Eq)]
pub enum Getwork {
    /// The miner wants work.
    Ask,
    /// The miner submits this data.
    Submit(Vec<u8>),
    /// What it submits is not the hex of a header.
    Malformed,
}

impl<'a> Call<'a> {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// It is not a JSON-RPC call.
    pub fn parse(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// Reads the parameters of `getwork`.
    pub fn getwork(&self) -> Getwork {
        let Some(data) = self.params.get(0) else { return Getwork::Ask };
        let data = data.as_str().filter(|data| data.len() <= 2 * DATA_BYTES);
        data.and_then(|data| hex::decode(data).ok()).map_or(Getwork::Malformed, Getwork::Submit)
    }
}

/// User name and password.
#[derive(Debug, PartialEq, Eq)]
pub struct Login {
    /// User name, as in `mining.authorize`.
    pub name: String,
    /// The password.
    pub password: String,
}

impl Login {
    /// Parses the credentials of HTTP basic authentication.
    pub fn parse(authorization: &[u8]) -> Option<Self> {
        let (scheme, encoded) = str::from_utf8(authorization).ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }

    /// Credentials of a request, if any.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(header::AUTHORIZATION)?.as_bytes())
    }
}

/// Properties of a device, by user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    /// ASICMINER's Blades and Cubes: they need short answers over HTTP/1.0.
    pub(super) is_tiny: bool,
    /// Checks every hash itself, so any difficulty is possible.
    pub(super) is_cpu: bool,
}

impl Device {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        Self {
            is_tiny: agent.starts_with("Jephis PIC Miner") || agent.starts_with("BE Cube BTC Miner"),
            is_cpu: agent.starts_with("cpuminer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_asks_submits_or_is_malformed() {
        let getwork = |params: &str| {
            let body = format!(r#"{{"method":"getwork","params":{params},"id":0}}"#);
            Call::parse(body.as_bytes()).unwrap().getwork()
        };
        assert_eq!([getwork("[]"), getwork("{}"), getwork("null")], [Getwork::Ask, Getwork::Ask, Getwork::Ask]);
        assert_eq!(getwork(r#"["00ff"]"#), Getwork::Submit(vec![0, 0xff]));
        for malformed in
            [r#"["zz"]"#.to_owned(), "[7]".to_owned(), format!(r#"["{}"]"#, "0".repeat(2 * DATA_BYTES + 2))]
        {
            assert_eq!(getwork(&malformed), Getwork::Malformed);
        }
        assert!(Call::parse(b"{").is_err());
    }

    #[test]
    fn credentials_are_those_of_basic_authentication() {
        let parse = |text: &str| Login::parse(text.as_bytes());
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let login = |name: &str, password: &str| Some(Login { name: name.into(), password: password.into() });
        assert_eq!(parse(&format!("Basic {}", encode("a.rig:x:y"))), login("a.rig", "x:y"));
        assert_eq!(parse(&format!("basic  {} ", encode("a"))), login("a", ""));
        for other in ["Basic", "Basic !", "Bearer YQ==", &format!("Basic {}", BASE64_STANDARD.encode([0xff]))] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
