//! Parses requests and writes responses and notifications: JSON to types and back, no behaviour.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

use crate::error::StratumError;
use crate::submission::shown;

/// Parameters read of any request; NiceHash and MiningRigRentals append their own, which are ignored.
const PARAMETERS_MAX: usize = 16;

/// Extensions read of one `mining.configure`; four exist.
const EXTENSIONS_MAX: usize = 16;

/// A request's id as it came, whatever JSON type it is: bfgminer sends strings, and `null` for what it wants no answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(Option<&'a str>);

impl Id<'_> {
    /// The id of an answer to something that has none.
    pub const NULL: Id<'static> = Id(Some("null"));
}

/// One line from a miner.
#[derive(Debug)]
pub struct Request<'a> {
    /// To be echoed.
    pub id: Id<'a>,
    /// What is asked for.
    pub call: Result<Call<'a>, StratumError>,
}

/// What a miner asks for.
#[derive(Debug, PartialEq)]
pub enum Call<'a> {
    /// `mining.authorize(name, password)`.
    Authorize {
        /// The worker's name.
        name: Cow<'a, str>,
        /// Empty when there is none.
        password: Cow<'a, str>,
    },
    /// `mining.configure(extensions, parameters)` (BIP 310).
    Configure {
        /// The extensions asked for.
        extensions: Vec<String>,
        /// The mask that the miner can roll, if it said one.
        version_rolling_mask: Option<u32>,
    },
    /// `mining.submit(name, job, extranonce2, ntime, nonce[, version bits])`.
    Submit {
        /// The worker's name.
        name: Cow<'a, str>,
        /// The job's name.
        job: Cow<'a, str>,
        /// Hex, as sent.
        extranonce2: Cow<'a, str>,
        /// Hex, as sent.
        time: Cow<'a, str>,
        /// Hex, as sent.
        nonce: Cow<'a, str>,
        /// Hex, as sent.
        version_bits: Option<Cow<'a, str>>,
    },
    /// `mining.subscribe(user agent, session)`.
    Subscribe {
        /// What the miner calls itself; empty when it does not say.
        user_agent: Cow<'a, str>,
    },
    /// An answer to something that we sent; nothing is to be done.
    Answer,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Parses one line.
    ///
    /// # Errors
    /// The line is no JSON object with a method. A known method with bad parameters is no error here but in
    /// [`Request::call`], since it can be answered.
    pub fn parse(line: &'a [u8]) -> Result<Self, StratumError> {
        let text = std::str::from_utf8(line).map_err(|_| StratumError::Malformed("not UTF-8".into()))?;
        // serde would take a list for an object, too.
        if !text.trim_start().starts_with('{') {
            return Err(StratumError::Malformed("not a JSON-RPC object".into()));
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
            // serde's own text may quote the whole line; its place is enough.
            StratumError::Malformed(format!("not a JSON-RPC object (at byte {})", error.column()))
        })?;
        // An absent id and `"id":null` are told apart: the former is a notification, which gets no answer.
        let id = Id(match envelope.id {
            Some(raw) => Some(raw.get()),
            None if has_null_id(text) => Some("null"),
            None => None,
        });
        let Some(method) = envelope.method else {
            return Ok(Self { id, call: Ok(Call::Answer) });
        };
        let params = Params::parse(envelope.params);
        let call = match &*method {
            "mining.authorize" => params.and_then(|params| {
                Ok(Call::Authorize { name: params.text(0, "worker name")?, password: params.text_or_empty(1) })
            }),
            "mining.configure" => params.and_then(|params| params.configure()),
            "mining.submit" => params.and_then(|params| {
                Ok(Call::Submit {
                    name: params.text(0, "worker name")?,
                    job: params.text(1, "job")?,
                    extranonce2: params.text(2, "extranonce2")?,
                    time: params.text(3, "ntime")?,
                    nonce: params.text(4, "nonce")?,
                    version_bits: match params.0.get(5) {
                        Some(raw) if raw.get() != "null" => Some(params.text(5, "version bits")?),
                        _ => None,
                    },
                })
            }),
            "mining.subscribe" => params.map(|params| Call::Subscribe { user_agent: params.text_or_empty(0) }),
            other => Err(StratumError::UnknownMethod(shown(other))),
        };
        Ok(Self { id, call })
    }
}

/// serde takes `"id":null` and no id alike for an `Option`.
fn has_null_id(text: &str) -> bool {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(default, deserialize_with = "present")]
        id: bool,
    }
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
    }
    serde_json::from_str::<OnlyId>(text).is_ok_and(|only| only.id)
}

struct Params<'a>(Vec<&'a RawValue>);

impl<'a> Params<'a> {
    fn parse(raw: Option<&'a RawValue>) -> Result<Self, StratumError> {
        let Some(raw) = raw else { return Ok(Self(Vec::new())) };
        let mut all: Vec<&RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| StratumError::Parameters(format!("`{}` is not a list", shown(raw.get()))))?;
        all.truncate(PARAMETERS_MAX);
        Ok(Self(all))
    }

    fn text(&self, index: usize, name: &str) -> Result<Cow<'a, str>, StratumError> {
        let raw = self.0.get(index).ok_or_else(|| StratumError::Parameters(format!("{name} is missing")))?.get();
        text_of(raw).ok_or_else(|| StratumError::Parameters(format!("{name} `{}` is not a string", shown(raw))))
    }

    fn text_or_empty(&self, index: usize) -> Cow<'a, str> {
        self.0.get(index).and_then(|raw| text_of(raw.get())).unwrap_or_default()
    }

    fn configure(&self) -> Result<Call<'a>, StratumError> {
        let list = self.0.first().map_or("[]", |raw| raw.get());
        let mut extensions: Vec<String> = serde_json::from_str(list)
            .map_err(|_| StratumError::Parameters(format!("extensions `{}` are not a list of names", shown(list))))?;
        extensions.truncate(EXTENSIONS_MAX);
        let options: Value = match self.0.get(1) {
            Some(raw) => serde_json::from_str(raw.get()).unwrap_or(Value::Null),
            None => Value::Null,
        };
        let version_rolling_mask = match options.get("version-rolling.mask") {
            None | Some(Value::Null) => None,
            Some(given) => {
                Some(given.as_str().and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| {
                    let given = shown(&given.to_string());
                    StratumError::Parameters(format!("version-rolling.mask `{given}` is not a hex number"))
                })?)
            }
        };
        Ok(Call::Configure { extensions, version_rolling_mask })
    }
}

/// The text of a JSON string, borrowed unless it has escapes.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The answer to a request, or nothing if it wants none. `result` is JSON.
pub fn success(id: Id<'_>, result: &str) -> Option<Bytes> {
    let id = id.0?;
    Some(format!("{{\"id\":{id},\"result\":{result},\"error\":null}}\n").into())
}

/// The refusal of a request, or nothing if it wants no answer. Always in the shape of a list: it is the only one that
/// all miners parse.
pub fn failure(id: Id<'_>, error: &StratumError) -> Option<Bytes> {
    let id = id.0?;
    let text = Value::from(error.to_string());
    Some(format!("{{\"id\":{id},\"result\":null,\"error\":[{},{text},null]}}\n", error.code()).into())
}

/// `mining.set_difficulty`, in the units that the coin's miners count in.
pub fn set_difficulty(difficulty: f64) -> Bytes {
    // As a JSON number: serde_json writes whole floats as `1.0`, tiny ones with an exponent; miners read both.
    let number = Value::from(difficulty);
    format!("{{\"id\":null,\"method\":\"mining.set_difficulty\",\"params\":[{number}]}}\n").into()
}

/// `mining.set_version_mask` (BIP 310).
pub fn set_version_mask(mask: u32) -> Bytes {
    format!("{{\"id\":null,\"method\":\"mining.set_version_mask\",\"params\":[\"{mask:08x}\"]}}\n").into()
}

/// How a `mining.notify` ends, after the shared part in [`crate::job::Offer::line`].
pub fn notify_end(clean_jobs: bool) -> Bytes {
    Bytes::from_static(if clean_jobs { b"true]}\n" } else { b"false]}\n" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Request<'_> {
        Request::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn an_id_is_echoed_as_it_came() {
        for id in ["1", "\"auth\"", "null", "1.50", "[1]", "\"tx\\u0041\""] {
            let line = format!("{{\"id\":{id},\"method\":\"mining.subscribe\",\"params\":[]}}");
            let answer = success(parse(&line).id, "true").unwrap();
            assert_eq!(answer, format!("{{\"id\":{id},\"result\":true,\"error\":null}}\n"));
        }
    }

    #[test]
    fn a_notification_gets_no_answer() {
        assert_eq!(success(parse(r#"{"method":"mining.subscribe"}"#).id, "true"), None);
    }

    #[test]
    fn real_miners_lines_are_understood() {
        assert_eq!(
            parse(r#"{"id": 1, "method": "mining.subscribe", "params": ["cpuminer/2.5.1"]}"#).call,
            Ok(Call::Subscribe { user_agent: "cpuminer/2.5.1".into() })
        );
        assert_eq!(
            parse(r#"{"id": "auth", "method": "mining.authorize", "params": ["addr.worker", "x"]}"#).call,
            Ok(Call::Authorize { name: "addr.worker".into(), password: "x".into() })
        );
        assert_eq!(
            parse(r#"{"params":["u","6b01","0300000000000000","6b011085","e758d500","00c00000","extra"],"id":1,"method":"mining.submit"}"#).call,
            Ok(Call::Submit {
                name: "u".into(),
                job: "6b01".into(),
                extranonce2: "0300000000000000".into(),
                time: "6b011085".into(),
                nonce: "e758d500".into(),
                version_bits: Some("00c00000".into()),
            })
        );
        assert_eq!(
            parse(r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"ffffffff"}]}"#).call,
            Ok(Call::Configure { extensions: vec!["version-rolling".into()], version_rolling_mask: Some(u32::MAX) })
        );
        assert_eq!(parse(r#"{"id":42,"result":"pong","error":null}"#).call, Ok(Call::Answer));
    }

    #[test]
    fn bad_parameters_are_named() {
        let text = |line: &str| parse(line).call.unwrap_err().to_string();
        assert_eq!(
            text(r#"{"id":1,"method":"mining.authorize","params":[]}"#),
            "bad parameters: worker name is missing"
        );
        assert_eq!(
            text(r#"{"id":1,"method":"mining.submit","params":["a",7]}"#),
            "bad parameters: job `7` is not a string"
        );
        assert_eq!(text(r#"{"id":1,"method":"mining.submit","params":{}}"#), "bad parameters: `{}` is not a list");
        assert_eq!(
            text(
                r#"{"id":1,"method":"mining.configure","params":[["version-rolling"],{"version-rolling.mask":"xyz"}]}"#
            ),
            "bad parameters: version-rolling.mask `\"xyz\"` is not a hex number"
        );
        assert_eq!(text(r#"{"id":1,"method":"mining.dance","params":[]}"#), "method `mining.dance` not found");
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for line in [&b"GET / HTTP/1.1"[..], b"[]", b"{\"id\":1", b"\xff\xfe", b"7"] {
            assert!(matches!(Request::parse(line), Err(StratumError::Malformed(_))), "{line:?}");
        }
    }

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

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&line);
        }

        #[test]
        fn no_json_makes_the_parser_panic(
            method in "mining\\.(submit|authorize|subscribe|configure)",
            params in "(\\[|\\{|\")?[\\[\\]\\{\\}\",:0-9a-z\\\\u]{0,60}"
        ) {
            let _ = Request::parse(format!("{{\"id\":1,\"method\":\"{method}\",\"params\":{params}}}").as_bytes());
        }
    }
}
