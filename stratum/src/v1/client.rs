//! The miner's side of a connection, for tools and benchmarks that mine: takes lines of the pool, returns events and
//! request lines. Like [`Session`](super::session::Session) on the pool's side it does no I/O and reads no clock.

use serde_json::{Value, json};
use thiserror::Error;

use crate::mining::difficulty::{Difficulty, Target};
use crate::mining::midstate::{Midstate, double_sha256_of_pair};

/// Request ids; those of submissions start at the last.
const SUBSCRIBE: u64 = 1;
const AUTHORIZE: u64 = 2;
const CONFIGURE: u64 = 3;
const FIRST_SUBMISSION: u64 = 10;

/// Maximum length of a pool's reason, in characters.
const REASON_CHARACTERS_MAX: usize = 200;

/// Reason to close the connection to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClientError {
    /// A line is not JSON.
    #[error("the pool sent a line that is not JSON")]
    NotJson,
    /// The pool refused a request of the handshake.
    #[error("the pool refused {method}: {reason}")]
    Refused {
        /// Method of the request.
        method: &'static str,
        /// Reason given by the pool, without control characters.
        reason: String,
    },
    /// A field of a message is missing or malformed.
    #[error("the pool sent {message} without a usable {field}")]
    Unusable {
        /// Method of the message, or of the request that it answers.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A job came before the answer to `mining.subscribe`.
    #[error("the pool sent a job before it answered mining.subscribe")]
    NotSubscribed,
}

/// Event for a miner.
#[derive(Debug, Clone)]
pub enum ClientEvent {
    /// New job.
    Job(Box<ReceivedJob>),
    /// Result of a submission; a reason for refusal has no control characters. Answers come in the order of the
    /// submissions.
    Answered(Result<(), String>),
}

/// One connection to a pool, with the settings that apply to its next jobs.
#[derive(Debug)]
pub struct Client {
    extranonce1: Option<Vec<u8>>,
    extranonce2_size: usize,
    difficulty: Difficulty,
    version_mask: u32,
    next_submission: u64,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            extranonce1: None,
            extranonce2_size: 0,
            difficulty: Difficulty::new(1.0).expect("a positive constant"),
            version_mask: 0,
            next_submission: FIRST_SUBMISSION,
        }
    }
}

impl Client {
    /// Request that starts a session.
    pub fn subscribe(&self, user_agent: &str) -> String {
        request(SUBSCRIBE, "mining.subscribe", json!([user_agent]))
    }

    /// Request that names the worker to be paid.
    pub fn authorize(&self, name: &str, password: &str) -> String {
        request(AUTHORIZE, "mining.authorize", json!([name, password]))
    }

    /// Request to roll the version bits of `mask` (BIP 310).
    pub fn configure(&self, mask: u32) -> String {
        let options = json!({
            "version-rolling.mask": format!("{mask:08x}"),
            "version-rolling.min-bit-count": 2,
        });
        request(CONFIGURE, "mining.configure", json!([["version-rolling"], options]))
    }

    /// Request that submits `solved` for the worker `name`.
    pub fn submit(&mut self, name: &str, solved: &SolvedJob) -> String {
        let SolvedJob { job, extranonce2, time, nonce, version_bits } = solved;
        let mut params = vec![
            json!(name),
            json!(job),
            json!(hex::encode(extranonce2)),
            json!(format!("{time:08x}")),
            json!(format!("{nonce:08x}")),
        ];
        params.extend(version_bits.map(|bits| json!(format!("{bits:08x}"))));
        let id = self.next_submission;
        self.next_submission += 1;
        request(id, "mining.submit", params.into())
    }

    /// Version bits that may be rolled; zero until granted by the pool.
    pub fn version_mask(&self) -> u32 {
        self.version_mask
    }

    /// Handles a line of the pool, with or without its line end. Unknown messages are ignored.
    ///
    /// # Errors
    /// The connection is unusable and to be closed.
    pub fn handle_line(&mut self, line: &[u8]) -> Result<Option<ClientEvent>, ClientError> {
        let value: Value = serde_json::from_slice(line).map_err(|_| ClientError::NotJson)?;
        let params = &value["params"];
        match value["method"].as_str() {
            Some("mining.notify") => return self.job(params).map(|job| Some(ClientEvent::Job(Box::new(job)))),
            Some("mining.set_difficulty") => {
                let difficulty = params[0].as_f64().and_then(Difficulty::new);
                self.difficulty = difficulty.ok_or(unusable("mining.set_difficulty", "difficulty"))?;
            }
            Some("mining.set_extranonce") => self.set_extranonce("mining.set_extranonce", &params[0], &params[1])?,
            Some("mining.set_version_mask") => {
                self.version_mask = number(&params[0]).ok_or(unusable("mining.set_version_mask", "mask"))?;
            }
            Some(_) => {}
            None => return self.handle_answer(&value),
        }
        Ok(None)
    }

    fn handle_answer(&mut self, answer: &Value) -> Result<Option<ClientEvent>, ClientError> {
        let result = &answer["result"];
        let granted = match &answer["error"] {
            Value::Null if *result != false && !result.is_null() => Ok(()),
            error => Err(reason(error)),
        };
        let of_handshake =
            |method| granted.clone().map(|()| None).map_err(|reason| ClientError::Refused { method, reason });
        match answer["id"].as_u64() {
            Some(SUBSCRIBE) => {
                of_handshake("mining.subscribe")?;
                self.set_extranonce("mining.subscribe", &result[1], &result[2])?;
                Ok(None)
            }
            Some(AUTHORIZE) => of_handshake("mining.authorize"),
            Some(CONFIGURE) => {
                if result["version-rolling"] == true {
                    let mask = number(&result["version-rolling.mask"]);
                    self.version_mask = mask.ok_or(unusable("mining.configure", "mask"))?;
                }
                Ok(None)
            }
            Some(FIRST_SUBMISSION..) => Ok(Some(ClientEvent::Answered(granted))),
            _ => Ok(None),
        }
    }

    /// Applies from the next job on.
    fn set_extranonce(&mut self, message: &'static str, one: &Value, size: &Value) -> Result<(), ClientError> {
        let size = size.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| (1..=8).contains(size));
        self.extranonce2_size = size.ok_or(unusable(message, "size of extranonce2, which is 1 to 8 bytes"))?;
        self.extranonce1 = Some(bytes(one).ok_or(unusable(message, "extranonce1"))?);
        Ok(())
    }

    fn job(&self, params: &Value) -> Result<ReceivedJob, ClientError> {
        let extranonce1 = self.extranonce1.as_ref().ok_or(ClientError::NotSubscribed)?;
        let field = |field| unusable("mining.notify", field);
        let mut head = Midstate::new(&bytes(&params[2]).ok_or(field("coinbase"))?);
        head.update(extranonce1);
        let mut previous_block = hash(&params[1]).ok_or(field("previous block"))?;
        // Sent as eight words, each with its bytes reversed.
        previous_block.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let branch = params[4].as_array().and_then(|branch| branch.iter().map(hash).collect());
        Ok(ReceivedJob {
            name: params[0].as_str().ok_or(field("name"))?.to_owned(),
            head,
            tail: bytes(&params[3]).ok_or(field("coinbase"))?,
            branch: branch.ok_or(field("merkle branch"))?,
            extranonce2_size: self.extranonce2_size,
            version: number(&params[5]).ok_or(field("version"))?,
            previous_block,
            bits: number(&params[6]).ok_or(field("bits"))?,
            time: number(&params[7]).ok_or(field("time"))?,
            is_clean: params[8] == true,
            difficulty: self.difficulty,
        })
    }
}

/// A job as received by a miner. The constant part of its coinbase is hashed already.
#[derive(Debug, Clone)]
pub struct ReceivedJob {
    /// Identifier chosen by the pool.
    pub name: String,
    /// Coinbase before the extranonce2.
    head: Midstate,
    /// Coinbase after the extranonce2.
    tail: Vec<u8>,
    branch: Vec<[u8; 32]>,
    extranonce2_size: usize,
    /// Block version, before rolling.
    pub version: u32,
    previous_block: [u8; 32],
    /// Target of the block in compact form.
    pub bits: u32,
    /// Header time, in seconds since 1970.
    pub time: u32,
    /// Set when earlier jobs are void.
    pub is_clean: bool,
    /// Difficulty required of its submissions.
    pub difficulty: Difficulty,
}

impl ReceivedJob {
    /// Target that submissions must meet.
    pub fn target(&self) -> Target {
        self.difficulty.target()
    }

    /// Encodes `number` as an extranonce2 of the size set by the pool.
    pub fn extranonce2(&self, number: u64) -> Vec<u8> {
        number.to_be_bytes()[8 - self.extranonce2_size..].to_vec()
    }

    /// Builds the header with this extranonce2; the nonce in its last four bytes is zero.
    pub fn header(&self, extranonce2: &[u8]) -> [u8; 80] {
        let mut coinbase = self.head.clone();
        coinbase.update(extranonce2);
        coinbase.update(&self.tail);
        let root =
            self.branch.iter().fold(coinbase.finish_double(), |root, sibling| double_sha256_of_pair(&root, sibling));
        let mut header = [0; 80];
        header[..4].copy_from_slice(&self.version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_block);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&self.time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header
    }
}

/// A miner's result for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolvedJob {
    /// Identifier of the job.
    pub job: String,
    /// Extranonce2 used in the coinbase.
    pub extranonce2: Vec<u8>,
    /// Header time.
    pub time: u32,
    /// Header nonce.
    pub nonce: u32,
    /// Rolled version bits, if rolling was granted.
    pub version_bits: Option<u32>,
}

fn request(id: u64, method: &str, params: Value) -> String {
    format!("{}\n", json!({ "id": id, "method": method, "params": params }))
}

fn unusable(message: &'static str, field: &'static str) -> ClientError {
    ClientError::Unusable { message, field }
}

/// Text of an error: the second element of a list, or any other JSON.
fn reason(error: &Value) -> String {
    let text = error[1].as_str().map_or_else(|| error.to_string(), str::to_owned);
    text.chars().filter(|letter| !letter.is_control()).take(REASON_CHARACTERS_MAX).collect()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    hex::decode(value.as_str()?).ok()
}

fn hash(value: &Value) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(value.as_str()?, &mut hash).ok()?;
    Some(hash)
}

fn number(value: &Value) -> Option<u32> {
    u32::from_str_radix(value.as_str()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mining::midstate::double_sha256_of_header;
    use proptest::prelude::*;

    fn answer(id: u64, result: &str) -> String {
        format!(r#"{{"id":{id},"result":{result},"error":null}}"#)
    }

    fn subscribed(extranonce1: &str, size: usize) -> Client {
        let mut client = Client::default();
        let granted = answer(SUBSCRIBE, &format!(r#"[[["mining.notify","1"]],"{extranonce1}",{size}]"#));
        assert!(client.handle_line(granted.as_bytes()).unwrap().is_none());
        client
    }

    fn job(client: &mut Client, line: &str) -> ReceivedJob {
        match client.handle_line(line.as_bytes()) {
            Ok(Some(ClientEvent::Job(job))) => *job,
            other => panic!("{other:?}"),
        }
    }

    /// The job of block 170 of the main chain: the first one with a payment, so its merkle tree has a branch.
    const BLOCK_170: &str = r#"{"id":null,"method":"mining.notify","params":["170",
        "0a84bd55d08a7978683f85da183d4f97dbd12b3e1f2c846a2a22cfee00000000",
        "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff",
        "ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e5f3407e052d64ac625da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac00000000",
        ["169e1e83e930853391bc6f35f605c6754cfead57cf8387639d3b4096c54f18f4"],"00000001","1d00ffff","496ab951",true]}"#;

    #[test]
    fn headers_are_those_of_the_main_chain() {
        let mut client = subscribed("0704", 6);
        let job = job(&mut client, BLOCK_170);
        assert!(job.is_clean);
        let mut header = job.header(&hex::decode("ffff001d0102").unwrap());
        header[76..].copy_from_slice(&1_889_418_792_u32.to_le_bytes());
        let hash = double_sha256_of_header(&header);
        let shown = hex::encode(hash.iter().rev().copied().collect::<Vec<u8>>());
        assert_eq!(shown, "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee");
        assert!(job.target().is_met_by(&hash), "at difficulty 1, which holds until another is set");
    }

    #[test]
    fn difficulty_and_extranonces_hold_from_the_next_job_on() {
        let mut client = subscribed("0704", 6);
        let before = job(&mut client, BLOCK_170);
        for line in [
            r#"{"id":null,"method":"mining.set_difficulty","params":[512]}"#,
            r#"{"id":null,"method":"mining.set_extranonce","params":["0705",2]}"#,
        ] {
            assert!(client.handle_line(line.as_bytes()).unwrap().is_none());
        }
        let after = job(&mut client, BLOCK_170);
        assert_eq!((before.difficulty.get(), after.difficulty.get()), (1.0, 512.0));
        assert_eq!((before.extranonce2(5).len(), after.extranonce2(5)), (6, vec![0, 5]));
        assert_ne!(before.header(&[0; 6]), after.header(&[0; 6]));
    }

    #[test]
    fn what_is_found_is_submitted_as_miners_do() {
        let mut client = Client::default();
        let solved = SolvedJob {
            job: "6b\"01".into(),
            extranonce2: vec![0, 0, 0, 9],
            time: 0x496a_b951,
            nonce: 7,
            version_bits: None,
        };
        let lines = [
            client.submit("alice", &solved),
            client.submit("alice", &SolvedJob { version_bits: Some(0x2000), ..solved.clone() }),
        ];
        assert_eq!(
            lines[0],
            "{\"id\":10,\"method\":\"mining.submit\",\"params\":[\"alice\",\"6b\\\"01\",\"00000009\",\"496ab951\",\"00000007\"]}\n"
        );
        assert!(lines[1].starts_with("{\"id\":11,") && lines[1].ends_with("\"00002000\"]}\n"), "{}", lines[1]);
    }

    #[test]
    fn answers_are_those_to_submissions_and_a_refused_handshake_is_an_error() {
        let mut client = Client::default();
        let mut hear = |line: &str| client.handle_line(line.as_bytes());
        assert!(matches!(hear(&answer(10, "true")), Ok(Some(ClientEvent::Answered(Ok(()))))));
        let refused = hear(r#"{"id":11,"result":null,"error":[21,"stale\u001b[2J job",null]}"#);
        assert!(
            matches!(&refused, Ok(Some(ClientEvent::Answered(Err(reason)))) if reason == "stale[2J job"),
            "{refused:?}"
        );
        assert!(matches!(hear(&answer(12, "false")), Ok(Some(ClientEvent::Answered(Err(_))))));
        let refused = hear(r#"{"id":2,"result":null,"error":[24,"who?",null]}"#);
        assert_eq!(refused.unwrap_err().to_string(), "the pool refused mining.authorize: who?");
    }

    #[test]
    fn a_message_that_is_of_no_use_is_named_with_its_field() {
        let mut client = subscribed("0704", 6);
        let mut wrong = |line: &str| client.handle_line(line.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            wrong(&BLOCK_170.replace("1d00ffff", "1d00fffg")),
            "the pool sent mining.notify without a usable bits"
        );
        assert_eq!(
            wrong(r#"{"method":"mining.set_difficulty","params":[0]}"#),
            "the pool sent mining.set_difficulty without a usable difficulty"
        );
        assert_eq!(wrong("GET /"), "the pool sent a line that is not JSON");
        let early = Client::default().handle_line(BLOCK_170.as_bytes());
        assert_eq!(early.unwrap_err(), ClientError::NotSubscribed);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_client_panic(line in "(\\{\"(id|method|params|result)\":)?[\\[\\]\\{\\}\",:0-9a-z\\\\u.]{0,80}") {
            let _ = subscribed("00", 4).handle_line(line.as_bytes());
        }
    }
}
