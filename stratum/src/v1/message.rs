//! Parses requests and writes responses and notifications: JSON to types and back, no behaviour.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

use crate::mining::difficulty::Target;
use crate::mining::error::StratumError;
use crate::mining::extranonce::{EXTRANONCE1_SIZE, EXTRANONCE2_SIZE};
use crate::mining::submission::shown;

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
    Configure(Configure),
    /// `mining.extranonce.subscribe()`.
    SubscribeExtranonce,
    /// `mining.get_transactions(job)`.
    GetTransactions {
        /// The job's name.
        job: Cow<'a, str>,
    },
    /// `client.get_version()`: a proxy that asks what miners are asked.
    GetVersion,
    /// `mining.multi_version(count)`: an Antminer S9 that may send whole versions in `mining.submit`.
    MultiVersion,
    /// `mining.ping()`.
    Ping,
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
        /// The session that it would like to go on with.
        session: Option<Cow<'a, str>>,
    },
    /// `mining.suggest_difficulty(number)`, in the units that the coin's miners count in.
    SuggestDifficulty(f64),
    /// `mining.suggest_target(hex)`.
    SuggestTarget(Target),
    /// An answer to something that we sent.
    Answer {
        /// Its result, if that is a text: what a miner says to `client.get_version`.
        text: Option<Cow<'a, str>>,
    },
}

/// What `mining.configure` asks for.
#[derive(Debug, Default, PartialEq)]
pub struct Configure {
    /// The extensions asked for.
    pub extensions: Vec<String>,
    /// The mask that the miner can roll, if it said one.
    pub version_rolling_mask: Option<u32>,
    /// The easiest difficulty that it wants, in the units that the coin's miners count in.
    pub minimum_difficulty: Option<f64>,
    /// What `info` says of its software.
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
    /// The line is no JSON object with a method. A known method with bad parameters is no error here but in
    /// [`Request::call`], since it can be answered.
    pub fn parse(line: &'a [u8]) -> Result<Self, StratumError> {
        let text = std::str::from_utf8(line).map_err(|_| StratumError::Malformed("not UTF-8".into()))?;
        if let Some(request) = quick_submit(text) {
            return Ok(request);
        }
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
            let text = envelope.result.and_then(|raw| text_of(raw.get()));
            return Ok(Self { id, call: Ok(Call::Answer { text }) });
        };
        let params = Params::parse(envelope.params);
        let mut wants_answer = true;
        let call = match &*method {
            "mining.authorize" => params.and_then(|params| {
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
            // ESP-Miner answers `mining.ping` so.
            "pong" | "mining.pong" => return Ok(Self { id: Id(None), call: Ok(Call::Answer { text: None }) }),
            "mining.submit" => params.and_then(|params| {
                Ok(Call::Submit {
                    name: params.text(0, "worker name")?,
                    job: params.text(1, "job")?,
                    extranonce2: params.text(2, "extranonce2")?,
                    time: params.digits(3, "ntime")?,
                    nonce: params.digits(4, "nonce")?,
                    version_bits: match params.0.get(5) {
                        Some(raw) if raw.get() != "null" => Some(params.digits(5, "version bits")?),
                        _ => None,
                    },
                })
            }),
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
                params.and_then(|params| {
                    let digits = params.text(0, "target")?;
                    Target::from_hex(&digits)
                        .map(Call::SuggestTarget)
                        .ok_or_else(|| StratumError::Parameters(format!("target `{}` is not hex", shown(&digits))))
                })
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
        // bfgminer sends `"id":null` with `mining.suggest_target` and `mining.capabilities` before `mining.subscribe`, and
        // takes the first line that comes back for the answer to the latter.
        let id = if id == Id::NULL && !wants_answer { Id(None) } else { id };
        Ok(Self { id, call })
    }
}

/// `mining.submit` as nearly all miners write it: read without a list in between. `None` for whatever is written in
/// another way, which is not to say that it is wrong.
fn quick_submit(text: &str) -> Option<Request<'_>> {
    const STRINGS_MAX: usize = 6;
    // Looked at all at once, which is quicker than at each byte where it is read.
    let is_odd = |odd: bool, byte: &u8| odd | (*byte < 0x20) | (*byte == b'\\');
    if text.as_bytes().iter().fold(false, is_odd) {
        return None;
    }
    let mut scan = Scan { text, at: 0 };
    let (mut id, mut is_submit, mut params) = (None, false, None);
    scan.take(b'{')?;
    loop {
        let key = scan.string()?;
        scan.take(b':')?;
        match key {
            "id" if id.is_none() => id = Some(scan.simple()?),
            "method" if !is_submit => is_submit = scan.string()? == "mining.submit",
            "params" if params.is_none() => {
                let mut strings = [None; STRINGS_MAX];
                scan.take(b'[')?;
                for slot in &mut strings {
                    *slot = Some(scan.string()?);
                    if scan.peek()? == b']' {
                        break;
                    }
                    scan.take(b',')?;
                }
                scan.take(b']')?;
                params = Some(strings);
            }
            _ => return None,
        }
        match scan.peek()? {
            b',' => scan.at += 1,
            b'}' => break,
            _ => return None,
        }
    }
    scan.take(b'}')?;
    if scan.peek().is_some() || !is_submit {
        return None;
    }
    let [Some(name), Some(job), Some(extranonce2), Some(time), Some(nonce), version_bits] = params? else {
        return None;
    };
    let call = Call::Submit {
        name: name.into(),
        job: job.into(),
        extranonce2: extranonce2.into(),
        time: time.into(),
        nonce: nonce.into(),
        version_bits: version_bits.map(Into::into),
    };
    Some(Request { id: Id(id), call: Ok(call) })
}

/// A cursor over simple JSON without control characters and backslashes; each step is `None` where it is not simple.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if byte != b' ' {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        found.then_some(())
    }

    /// A string.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let rest = &self.text.as_bytes()[self.at..];
        let length = memchr::memchr(b'"', rest)?;
        let string = self.text.get(self.at..self.at + length)?;
        self.at += length;
        self.take(b'"')?;
        Some(string)
    }

    /// A string or a whole number, as it is written.
    fn simple(&mut self) -> Option<&'a str> {
        if self.peek()? == b'"' {
            let start = self.at;
            self.string()?;
            return self.text.get(start..self.at);
        }
        let rest = &self.text.as_bytes()[self.at..];
        let length = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let number = self.text.get(self.at..self.at + length)?;
        self.at += length;
        // JSON knows no leading zeros; what begins with them is refused by the thorough parser.
        (length == 1 || !number.is_empty() && !number.starts_with('0')).then_some(number)
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

    /// Hex digits, or the number that they stand for, as some proxies send it.
    fn digits(&self, index: usize, name: &str) -> Result<Cow<'a, str>, StratumError> {
        match self.0.get(index).and_then(|raw| raw.get().parse::<u32>().ok()) {
            Some(number) => Ok(Cow::Owned(format!("{number:08x}"))),
            None => self.text(index, name),
        }
    }

    /// A number, or a string with one.
    fn number(&self, index: usize) -> Result<f64, StratumError> {
        let raw = self.0.get(index).ok_or_else(|| StratumError::Parameters("the number is missing".into()))?.get();
        number_of(&text_of(raw).unwrap_or(Cow::Borrowed(raw)))
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
        // `version-rolling.min-bit-count` is not looked at: whoever can roll less than it wants is told the mask all the
        // same. Braiins OS leaves it out, others send it as a string.
        let version_rolling_mask = match options.get("version-rolling.mask") {
            None | Some(Value::Null) => None,
            Some(given) => Some(mask_of(given).ok_or_else(|| {
                let given = shown(&given.to_string());
                StratumError::Parameters(format!("version-rolling.mask `{given}` is not a hex number"))
            })?),
        };
        let minimum_difficulty = options
            .get("minimum-difficulty.value")
            .and_then(|given| given.as_f64().or_else(|| given.as_str().and_then(|text| number_of(text).ok())));
        let software = options.get("info.sw-version").and_then(Value::as_str).map(str::to_owned);
        Ok(Call::Configure(Configure { extensions, version_rolling_mask, minimum_difficulty, software }))
    }
}

fn mask_of(given: &Value) -> Option<u32> {
    let digits = given.as_str()?;
    u32::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
}

fn number_of(text: &str) -> Result<f64, StratumError> {
    text.trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0)
        .ok_or_else(|| StratumError::Parameters(format!("`{}` is not a number above 0", shown(text))))
}

/// The text of a JSON string, borrowed unless it has escapes.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Appends the answer to a request, or nothing if it wants none. `result` is JSON.
pub fn write_success(out: &mut BytesMut, id: Id<'_>, result: &str) {
    let Some(id) = id.0 else { return };
    const PARTS: [&str; 3] = ["{\"id\":", ",\"result\":", ",\"error\":null}\n"];
    out.reserve(id.len() + result.len() + PARTS.iter().map(|part| part.len()).sum::<usize>());
    for part in [PARTS[0], id, PARTS[1], result, PARTS[2]] {
        out.put_slice(part.as_bytes());
    }
}

/// Appends the refusal of a request, or nothing if it wants no answer. Always in the shape of a list: it is the only one
/// that all miners parse.
pub fn write_failure(out: &mut BytesMut, id: Id<'_>, error: &StratumError) {
    let Some(id) = id.0 else { return };
    let text = Value::from(error.to_string());
    out.put_slice(format!("{{\"id\":{id},\"result\":null,\"error\":[{},{text},null]}}\n", error.code()).as_bytes());
}

/// The answer to a request, or nothing if it wants none. `result` is JSON.
pub fn success(id: Id<'_>, result: &str) -> Option<Bytes> {
    let mut out = BytesMut::new();
    write_success(&mut out, id, result);
    (!out.is_empty()).then(|| out.freeze())
}

/// What stands before and behind the result in an answer, for results that are shared.
pub fn success_around(id: Id<'_>) -> Option<(Bytes, Bytes)> {
    let id = id.0?;
    Some((format!("{{\"id\":{id},\"result\":").into(), Bytes::from_static(b",\"error\":null}\n")))
}

/// The refusal of a request, or nothing if it wants no answer.
pub fn failure(id: Id<'_>, error: &StratumError) -> Option<Bytes> {
    let mut out = BytesMut::new();
    write_failure(&mut out, id, error);
    (!out.is_empty()).then(|| out.freeze())
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

/// `mining.set_extranonce`: holds from the next job on.
pub fn set_extranonce(extranonce1: [u8; EXTRANONCE1_SIZE]) -> Bytes {
    let extranonce1 = hex::encode(extranonce1);
    format!("{{\"id\":null,\"method\":\"mining.set_extranonce\",\"params\":[\"{extranonce1}\",{EXTRANONCE2_SIZE}]}}\n")
        .into()
}

/// `client.show_message`, shortened to what miners have room for.
pub fn show_message(text: &str) -> Bytes {
    const CHARACTERS_MAX: usize = 200;
    let text = Value::from(text.chars().filter(|one| !one.is_control()).take(CHARACTERS_MAX).collect::<String>());
    format!("{{\"id\":null,\"method\":\"client.show_message\",\"params\":[{text}]}}\n").into()
}

/// `client.reconnect` to where the miner is already: cgminer refuses other hosts, and an empty name, but no empty list.
pub fn reconnect() -> Bytes {
    Bytes::from_static(b"{\"id\":null,\"method\":\"client.reconnect\",\"params\":[]}\n")
}

/// `client.get_version`. The id is a number, since cgminer reads it as one.
pub fn get_version() -> Bytes {
    Bytes::from_static(b"{\"id\":1,\"method\":\"client.get_version\",\"params\":[]}\n")
}

/// How a `mining.notify` ends, after the shared part in [`crate::mining::job::Offer::line`].
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
            // One key more sends it the long way.
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
