//! Parses requests and writes responses and notifications: conversion between JSON and types, no behaviour.

mod params;
mod quick;
mod write;

pub use write::{
    failure, get_version, notify_end, reconnect, set_difficulty, set_extranonce, set_version_mask, show_message,
    success, success_around, write_failure, write_success,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

use crate::mining::difficulty::Target;
use crate::mining::error::StratumError;
use crate::mining::submission::shown;
use params::{Params, number_of, text_of};
use quick::quick_submit;

/// Request id, kept as the JSON that came: bfgminer sends strings, and `null` where it wants no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'a>(Option<&'a str>);

impl Id<'_> {
    /// Id in an answer to a request without one.
    pub const NULL: Id<'static> = Id(Some("null"));

    /// Copies the id, for an answer that comes after other lines.
    pub fn to_kept(self) -> KeptId {
        KeptId(self.0.map(Box::from))
    }
}

/// [`Id`] that outlives its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptId(Option<Box<str>>);

impl KeptId {
    /// Returns the id as it came.
    pub fn id(&self) -> Id<'_> {
        Id(self.0.as_deref())
    }

    /// Length of the id, in bytes.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |id| id.len())
    }

    /// True if there is no id, or an empty one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A line from a miner.
#[derive(Debug)]
pub struct Request<'a> {
    /// Request id, echoed in the answer.
    pub id: Id<'a>,
    /// Parsed request, or the reason why its parameters are invalid.
    pub call: Result<Call<'a>, StratumError>,
}

/// Request of a miner.
#[derive(Debug, PartialEq)]
pub enum Call<'a> {
    /// `mining.authorize(name, password)`.
    Authorize {
        /// Worker name.
        name: Cow<'a, str>,
        /// Password; empty if missing.
        password: Cow<'a, str>,
    },
    /// `mining.configure(extensions, parameters)` (BIP 310).
    Configure(Configure),
    /// `mining.extranonce.subscribe()`.
    SubscribeExtranonce,
    /// `mining.get_transactions(job)`.
    GetTransactions {
        /// Job id.
        job: Cow<'a, str>,
    },
    /// `client.get_version()`: sent by proxies, though meant for miners.
    GetVersion,
    /// `mining.multi_version(count)`: from an Antminer S9, which may send whole versions in `mining.submit`.
    MultiVersion,
    /// `mining.ping()`.
    Ping,
    /// `mining.submit(name, job, extranonce2, ntime, nonce[, version bits])`.
    Submit {
        /// Worker name.
        name: Cow<'a, str>,
        /// Job id.
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
    /// `mining.set_merged_addresses({chain number: address})`, c2pool's.
    SetMergedAddresses(Vec<(u32, Box<str>)>),
    /// `mining.subscribe(user agent, session)`.
    Subscribe {
        /// User agent; empty if missing.
        user_agent: Cow<'a, str>,
        /// Id of the session to resume.
        session: Option<Cow<'a, str>>,
    },
    /// `mining.suggest_difficulty(number)`, in the unit of the coin's miners.
    SuggestDifficulty(f64),
    /// `mining.suggest_target(hex)`.
    SuggestTarget(Target),
    /// Answer to a request of the server.
    Answer {
        /// Result, if it is a string: the user agent in an answer to `client.get_version`.
        text: Option<Cow<'a, str>>,
    },
}

/// Parameters of `mining.configure`.
#[derive(Debug, Default, PartialEq)]
pub struct Configure {
    /// Requested extensions.
    pub extensions: Vec<String>,
    /// Mask that the miner can roll, if given.
    pub version_rolling_mask: Option<u32>,
    /// Minimum difficulty, in the unit of the coin's miners.
    pub minimum_difficulty: Option<f64>,
    /// Software name in `info`.
    pub software: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Parses one line.
    ///
    /// # Errors
    /// The line is not a JSON object with a method. A known method with bad parameters is reported in [`Request::call`]
    /// instead, since it can be answered.
    pub fn parse(line: &'a [u8]) -> Result<Self, StratumError> {
        let text = std::str::from_utf8(line).map_err(|_| StratumError::Malformed("not UTF-8".into()))?;
        if let Some(request) = quick_submit(text) {
            return Ok(request);
        }
        // serde would accept a list for an object, too.
        if !text.trim_start().starts_with('{') {
            return Err(StratumError::Malformed("not a JSON-RPC object".into()));
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| {
            // serde's own text may quote the whole line; the position is enough.
            StratumError::Malformed(format!("not a JSON-RPC object (at byte {})", error.column()))
        })?;
        // An absent id differs from `"id":null`: the former marks a notification, which gets no answer.
        let id = Id(match envelope.id {
            Some(raw) => Some(raw.get()),
            None if has_null_id(text) => Some("null"),
            None => None,
        });
        let Some(method) = envelope.method else {
            let text = envelope.result.and_then(|raw| text_of(raw.get()));
            return Ok(Self { id, call: Ok(Call::Answer { text }) });
        };
        let params = Params::parse(envelope.params);
        let mut wants_answer = true;
        let call = match &*method {
            // What is no list may have a password in it, and errors are logged.
            "mining.authorize" => params
                .map_err(|_| StratumError::Parameters("name and password are not a list".into()))
                .and_then(|params| {
                    Ok(Call::Authorize { name: params.text(0, "worker name")?, password: params.text_or_empty(1) })
                }),
            "mining.configure" => params.and_then(|params| params.configure()),
            "mining.extranonce.subscribe" => params.map(|_| Call::SubscribeExtranonce),
            "mining.get_transactions" => {
                params.and_then(|params| Ok(Call::GetTransactions { job: params.text(0, "job")? }))
            }
            "mining.ping" => params.map(|_| Call::Ping),
            "mining.multi_version" => params.map(|_| Call::MultiVersion),
            "client.get_version" => params.map(|_| Call::GetVersion),
            // ESP-Miner's answer to `mining.ping`.
            "pong" | "mining.pong" => return Ok(Self { id: Id(None), call: Ok(Call::Answer { text: None }) }),
            "mining.set_merged_addresses" => params.and_then(|params| params.merged_addresses()),
            "mining.submit" => params.and_then(|params| params.submit()),
            "mining.subscribe" => params.map(|params| Call::Subscribe {
                user_agent: params.text_or_empty(0),
                session: Some(params.text_or_empty(1)).filter(|session| !session.is_empty()),
            }),
            "mining.suggest_difficulty" => {
                wants_answer = false;
                params.and_then(|params| params.number(0).map(Call::SuggestDifficulty))
            }
            "mining.suggest_target" => {
                wants_answer = false;
                params.and_then(|params| params.target(0).map(Call::SuggestTarget))
            }
            other => {
                wants_answer = false;
                // Old cgminer forks write `mining.suggest_difficulty(1000)`.
                match other.strip_prefix("mining.suggest_difficulty(").and_then(|rest| rest.strip_suffix(')')) {
                    Some(number) => number_of(number).map(Call::SuggestDifficulty),
                    None => Err(StratumError::UnknownMethod(shown(other))),
                }
            }
        };
        // bfgminer sends `"id":null` with `mining.suggest_target` and `mining.capabilities` before `mining.subscribe`,
        // and takes the first line it receives for the answer to the latter.
        let id = if id == Id::NULL && !wants_answer { Id(None) } else { id };
        Ok(Self { id, call })
    }
}

/// serde does not distinguish `"id":null` from a missing id in an `Option`.
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
            Ok(Call::Subscribe { user_agent: "cpuminer/2.5.1".into(), session: None })
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
            Ok(Call::Configure(Configure {
                extensions: vec!["version-rolling".into()],
                version_rolling_mask: Some(u32::MAX),
                ..Configure::default()
            }))
        );
        assert_eq!(
            parse(r#"{"id":42,"result":"pong","error":null}"#).call,
            Ok(Call::Answer { text: Some("pong".into()) })
        );
    }

    #[test]
    fn the_quick_way_and_the_thorough_one_read_the_same() {
        let fields = r#"["u","6b01","03000000","6b011085","e758d500"]"#;
        for line in [
            format!(r#"{{"id":1,"method":"mining.submit","params":{fields}}}"#),
            format!(r#" {{ "params" : {fields} , "id" : "x" , "method" : "mining.submit" }} "#),
        ] {
            let quick = quick_submit(&line).unwrap();
            // An extra key sends it through the full parser.
            let long = line.trim().replacen('{', r#"{"jsonrpc":"2.0","#, 1);
            assert!(quick_submit(&long).is_none());
            let long = parse(&long);
            assert_eq!((quick.id, quick.call), (long.id, long.call));
        }
        for odd in [
            format!(r#"{{"id":01,"method":"mining.submit","params":{fields}}}"#),
            format!(r#"{{"id":1,"method":"mining.submit","params":{fields}}}}}"#),
            format!(r#"{{"id":1,"id":2,"method":"mining.submit","params":{fields}}}"#),
            r#"{"id":1,"method":"mining.submit","params":["u"]}"#.to_owned(),
        ] {
            assert!(quick_submit(&odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn suggestions_come_as_numbers_strings_and_in_the_method() {
        for params in ["[1000.5]", "[\"1000.5\"]"] {
            let line = format!("{{\"id\":1,\"method\":\"mining.suggest_difficulty\",\"params\":{params}}}");
            assert_eq!(parse(&line).call, Ok(Call::SuggestDifficulty(1000.5)));
        }
        assert_eq!(
            parse(r#"{"id":1,"method":"mining.suggest_difficulty(64)","params":[]}"#).call,
            Ok(Call::SuggestDifficulty(64.0))
        );
        let target = format!("00000000ffff{}", "0".repeat(52));
        let line = format!("{{\"id\":null,\"method\":\"mining.suggest_target\",\"params\":[\"{target}\"]}}");
        let request = parse(&line);
        assert_eq!(success(request.id, "true"), None, "bfgminer would take it for the answer to mining.subscribe");
        let Ok(Call::SuggestTarget(target)) = request.call else { panic!("{request:?}") };
        assert_eq!(target.difficulty(), 1.0);
        for bad in ["[]", "[0]", "[-1]", "[\"x\"]", "[null]", "[1e999]"] {
            let line = format!("{{\"id\":1,\"method\":\"mining.suggest_difficulty\",\"params\":{bad}}}");
            assert!(parse(&line).call.is_err(), "{bad}");
        }
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
    fn merged_addresses_come_by_chain_number_and_are_bounded() {
        let parsed = |params: &str| {
            let line = format!(r#"{{"id":1,"method":"mining.set_merged_addresses","params":{params}}}"#);
            match parse(&line).call {
                Ok(Call::SetMergedAddresses(mut addresses)) => {
                    addresses.sort();
                    Ok(addresses)
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        let read = |params: &str| parsed(params).unwrap();
        assert_eq!(read(r#"[{"98":"D1"}]"#), [(98, "D1".into())]);
        assert_eq!(read(r#"[{"98":"D1","63":"P\u0031"},"extra"]"#), [(63, "P1".into()), (98, "D1".into())]);
        assert_eq!(read("[{}]"), []);
        let many = (0..9).map(|number| format!("\"{number}\":\"D\"")).collect::<Vec<_>>().join(",");
        let long = format!(r#"[{{"98":"{}"}}]"#, "D".repeat(129));
        for bad in ["[]", "[[]]", r#"["D1"]"#, r#"[{"x":"D1"}]"#, r#"[{"-1":"D1"}]"#, r#"[{"98":7}]"#, "{}", &long] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert!(parsed(&format!("[{{{many}}}]")).is_err());
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for line in [&b"GET / HTTP/1.1"[..], b"[]", b"{\"id\":1", b"\xff\xfe", b"7"] {
            assert!(matches!(Request::parse(line), Err(StratumError::Malformed(_))), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&line);
        }

        #[test]
        fn no_json_makes_the_parser_panic(
            method in "mining\\.(submit|authorize|subscribe|configure|set_merged_addresses)",
            params in "(\\[|\\{|\")?[\\[\\]\\{\\}\",:0-9a-z\\\\u]{0,60}"
        ) {
            let _ = Request::parse(format!("{{\"id\":1,\"method\":\"{method}\",\"params\":{params}}}").as_bytes());
        }
    }
}
