//! A Stratum v1 miner over TCP, written from the protocol and checked against mainnet blocks. It shares no code with
//! the product's own Stratum front, so that a test passes wrongly only if both are wrong in the same way.

use bitcoin::Target;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Timeout of a reply or a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// Error of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientError {
    /// The server refused, with its error triple's code and text.
    Refused {
        /// Code, such as 21 for a stale job.
        code: i64,
        /// Text for people.
        reason: String,
    },
    /// The connection ended.
    Disconnected,
    /// No reply in time.
    TimedOut,
}

impl ClientError {
    /// Code of a refusal, for comparisons.
    pub fn code(&self) -> Option<i64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Disconnected | Self::TimedOut => None,
        }
    }

    /// Text of a refusal, or of another error.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused { reason, .. } => reason.clone(),
            other => format!("{other:?}"),
        }
    }
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { code, reason } => write!(f, "refused with {code}: {reason}"),
            Self::Disconnected => f.write_str("disconnected"),
            Self::TimedOut => f.write_str("timed out"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Message that is no reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Method, such as `mining.notify`.
    pub method: String,
    pub params: Value,
}

/// Work of one `mining.notify`, with the connection's state at that time.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Job id.
    pub id: String,
    /// Hash of the previous block in Stratum's word-swapped hex.
    pub previous_block: String,
    /// Coinbase before the extranonces.
    pub coinbase_start: Vec<u8>,
    /// Coinbase after the extranonces.
    pub coinbase_end: Vec<u8>,
    /// Hashes that fold the coinbase's id into the merkle root.
    pub branch: Vec<[u8; 32]>,
    pub version: u32,
    /// Compact target of the block.
    pub bits: u32,
    /// Time of the block, seconds since 1970.
    pub time: u32,
    /// True if older jobs are void.
    pub clean: bool,
    /// Difficulty of the connection when the job arrived: it applies to the job.
    pub difficulty: f64,
    /// Extranonce1 of the connection.
    pub extranonce1: Vec<u8>,
    /// Size of an extranonce2 in bytes.
    pub extranonce2_size: usize,
}

/// Fields of a `mining.submit`, in hex as on the wire, so that a test may spoil any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    pub job_id: String,
    /// Miner's part of the extranonce.
    pub extranonce2: String,
    /// Time in eight hex digits.
    pub time: String,
    /// Nonce in eight hex digits.
    pub nonce: String,
    /// Rolled version bits, if rolling was agreed.
    pub version_bits: Option<String>,
    /// Hash of the header, for comparison with the daemon's.
    pub hash: bitcoin::BlockHash,
}

impl Job {
    /// Parses the parameters of a `mining.notify`.
    fn parse(params: &Value, difficulty: f64, extranonce1: &[u8], extranonce2_size: usize) -> Option<Self> {
        let text = |index: usize| params.get(index).and_then(Value::as_str);
        Some(Self {
            id: text(0)?.to_owned(),
            previous_block: text(1)?.to_owned(),
            coinbase_start: unhex(text(2)?)?,
            coinbase_end: unhex(text(3)?)?,
            branch: params
                .get(4)?
                .as_array()?
                .iter()
                .map(|hash| unhex(hash.as_str()?)?.try_into().ok())
                .collect::<Option<_>>()?,
            version: u32::from_str_radix(text(5)?, 16).ok()?,
            bits: u32::from_str_radix(text(6)?, 16).ok()?,
            time: u32::from_str_radix(text(7)?, 16).ok()?,
            clean: params.get(8)?.as_bool()?,
            difficulty,
            extranonce1: extranonce1.to_owned(),
            extranonce2_size,
        })
    }

    /// Whole coinbase, as miners hash it: without witness data.
    pub fn coinbase(&self, extranonce2: &[u8]) -> Vec<u8> {
        [&self.coinbase_start[..], &self.extranonce1, extranonce2, &self.coinbase_end].concat()
    }

    /// Header of 80 bytes that is hashed.
    pub fn header(&self, extranonce2: &[u8], version: u32, time: u32, nonce: u32) -> [u8; 80] {
        let mut root = sha256d(&self.coinbase(extranonce2));
        for hash in &self.branch {
            root = sha256d(&[root, *hash].concat());
        }
        let mut header = [0; 80];
        header[..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&self.previous_bytes());
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&time.to_le_bytes());
        header[72..76].copy_from_slice(&self.bits.to_le_bytes());
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        header
    }

    /// Hash of the previous block.
    pub fn previous_block_hash(&self) -> bitcoin::BlockHash {
        bitcoin::hashes::Hash::from_byte_array(self.previous_bytes())
    }

    fn previous_bytes(&self) -> [u8; 32] {
        let mut previous = unhex(&self.previous_block).expect("the server sends hex");
        // Stratum shows the hash as eight words, each with its bytes reversed.
        previous.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        previous.try_into().expect("a hash has 32 bytes")
    }

    /// Target of the block.
    pub fn block_target(&self) -> Target {
        Target::from_compact(bitcoin::CompactTarget::from_consensus(self.bits))
    }

    /// Target of submissions.
    pub fn submission_target(&self) -> Target {
        target_of(self.difficulty)
    }

    /// Searches until `wanted` accepts a hash; with a random extranonce2, so that searches of a job do not overlap.
    pub fn search(&self, mut wanted: impl FnMut(Target) -> bool) -> Submission {
        self.search_with(self.version, self.time, None, &mut wanted)
    }

    /// Finds a submission that meets the connection's difficulty.
    pub fn solve(&self) -> Submission {
        let target = self.submission_target();
        self.search(|hash| hash <= target)
    }

    /// Finds a submission that is a block and meets the connection's difficulty too.
    pub fn solve_block(&self) -> Submission {
        let target = self.submission_target().min(self.block_target());
        self.search(|hash| hash <= target)
    }

    /// Finds a worthless submission: neither a block nor up to the connection's difficulty.
    pub fn solve_worthless(&self) -> Submission {
        let target = self.submission_target().max(self.block_target());
        assert!(target < Target::from_be_bytes([0xff; 32]), "every hash is worth something at this difficulty");
        self.search(|hash| hash > target)
    }

    /// Like [`Self::solve`], with the time moved and with rolled version bits.
    pub fn solve_rolled(&self, seconds: i64, version_bits: Option<(u32, u32)>) -> Submission {
        let time = u32::try_from(i64::from(self.time) + seconds).expect("a time of this century");
        let target = self.submission_target();
        let version = version_bits.map_or(self.version, |(bits, mask)| (self.version & !mask) | (bits & mask));
        self.search_with(version, time, version_bits.map(|(bits, _)| bits), &mut |hash| hash <= target)
    }

    fn search_with(
        &self,
        version: u32,
        time: u32,
        version_bits: Option<u32>,
        wanted: &mut dyn FnMut(Target) -> bool,
    ) -> Submission {
        loop {
            let extranonce2: Vec<u8> = (0..self.extranonce2_size).map(|_| fastrand::u8(..)).collect();
            let mut header = self.header(&extranonce2, version, time, 0);
            // The first 64 bytes do not change with the nonce, so they are hashed once.
            let start = Sha256::new().chain_update(&header[..64]);
            for nonce in 0..u32::MAX {
                header[76..].copy_from_slice(&nonce.to_le_bytes());
                let inner = start.clone().chain_update(&header[64..]).finalize();
                let hash: [u8; 32] = Sha256::digest(inner).into();
                if wanted(Target::from_le_bytes(hash)) {
                    let version_bits = version_bits.map(|bits| format!("{bits:08x}"));
                    return Submission { version_bits, ..self.submission(&extranonce2, &header) };
                }
            }
        }
    }

    /// Like [`Self::solve_block`], on a chain whose proof of work is scrypt. Difficulties are 65,536 times as high there.
    pub fn solve_block_with_scrypt(&self) -> Submission {
        self.solve_with_scrypt(target_of(self.difficulty / 65_536.0).min(self.block_target()))
    }

    /// The same with one hash of sixteen: on a private chain shares soon are harder than blocks, and a connection's
    /// difficulty is that of the easier of both.
    pub fn solve_hard_block_with_scrypt(&self) -> Submission {
        let mut target = [0xff; 32];
        target[0] = 0x0f;
        self.solve_with_scrypt(Target::from_be_bytes(target).min(self.block_target()))
    }

    fn solve_with_scrypt(&self, target: Target) -> Submission {
        let params = scrypt::Params::new(10, 1, 1).expect("within scrypt's limits");
        let extranonce2: Vec<u8> = (0..self.extranonce2_size).map(|_| fastrand::u8(..)).collect();
        let mut header = self.header(&extranonce2, self.version, self.time, 0);
        for nonce in 0..u32::MAX {
            header[76..].copy_from_slice(&nonce.to_le_bytes());
            let mut work = [0; 32];
            scrypt::scrypt(&header, &header, &params, &mut work).expect("32 bytes are a length that it can make");
            if Target::from_le_bytes(work) <= target {
                return self.submission(&extranonce2, &header);
            }
        }
        panic!("no nonce meets {target:?}");
    }

    /// Submission of a header of this job, with the header's name as its hash.
    fn submission(&self, extranonce2: &[u8], header: &[u8; 80]) -> Submission {
        let number = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).expect("four bytes");
        Submission {
            job_id: self.id.clone(),
            extranonce2: hex(extranonce2),
            time: format!("{:08x}", number(68)),
            nonce: format!("{:08x}", number(76)),
            version_bits: None,
            hash: bitcoin::hashes::Hash::from_byte_array(sha256d(header)),
        }
    }
}

/// Largest hash that meets a difficulty: difficulty 1 is `0xffff << 208`.
pub fn target_of(difficulty: f64) -> Target {
    assert!(difficulty > 0.0, "difficulty {difficulty}");
    let ratio = f64::from(0xffff_u32) / difficulty;
    // A float is a 53-bit integer times a power of two, and so is the target.
    let bits = ratio.to_bits();
    let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
    let shift = i64::try_from(bits >> 52).expect("eleven bits") - 1075 + 208;
    let (bytes, bit) = (shift.div_euclid(8), shift.rem_euclid(8));
    let shifted = (mantissa << bit).to_le_bytes();
    let mut target = [0_u8; 32];
    for (index, byte) in (0_i64..).zip(shifted) {
        let Ok(place) = usize::try_from(index + bytes) else { continue };
        match target.get_mut(place) {
            Some(slot) => *slot = byte,
            None if byte == 0 => {}
            None => return Target::from_le_bytes([0xff; 32]),
        }
    }
    Target::from_le_bytes(target)
}

/// A connection to a Stratum server.
#[derive(Debug)]
pub struct StratumClient {
    stream: TcpStream,
    received: Vec<u8>,
    next_id: u64,
    notifications: VecDeque<Notification>,
    disconnected: bool,
    /// Difficulty last set; 1 until then, as in the protocol.
    pub difficulty: f64,
    /// Extranonce1, once subscribed.
    pub extranonce1: Vec<u8>,
    /// Size of an extranonce2 in bytes, once subscribed.
    pub extranonce2_size: usize,
    /// Version bits that may be rolled, once agreed.
    pub version_mask: Option<u32>,
    /// All jobs so far, the latest last.
    pub jobs: Vec<Job>,
}

impl StratumClient {
    /// Connects to a server on the loopback interface.
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap_or_else(|error| panic!("no Stratum server on port {port}: {error}"))
    }

    /// Connects, if a server listens.
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            next_id: 1,
            notifications: VecDeque::new(),
            disconnected: false,
            difficulty: 1.0,
            extranonce1: Vec::new(),
            extranonce2_size: 0,
            version_mask: None,
            jobs: Vec::new(),
        })
    }

    /// Connects, subscribes, authorizes (which must succeed) and waits for a job.
    pub fn ready(port: u16, user: &str) -> Self {
        let mut client = Self::connect(port);
        client.subscribe().expect("subscribing needs nothing");
        client.authorize(user, "x").unwrap_or_else(|error| panic!("authorizing {user:?}: {error}"));
        client.wait_for_job(|_| true);
        client
    }

    /// Sends `mining.subscribe` and stores the result.
    pub fn subscribe(&mut self) -> Result<Value, ClientError> {
        let granted = self.request("mining.subscribe", json!(["test-support/0.1"]))?;
        self.extranonce1 = granted[1].as_str().and_then(unhex).expect("extranonce1 is hex");
        self.extranonce2_size =
            granted[2].as_u64().and_then(|size| usize::try_from(size).ok()).expect("extranonce2's size is a number");
        Ok(granted)
    }

    /// Sends `mining.authorize`.
    pub fn authorize(&mut self, user: &str, password: &str) -> Result<bool, ClientError> {
        self.request("mining.authorize", json!([user, password])).map(|result| result == json!(true))
    }

    /// Requests version rolling (BIP 310), and stores the granted mask.
    pub fn configure(&mut self, mask: u32) -> Result<Value, ClientError> {
        let wish = json!([["version-rolling"], {
            "version-rolling.mask": format!("{mask:08x}"),
            "version-rolling.min-bit-count": 2,
        }]);
        let granted = self.request("mining.configure", wish)?;
        if granted["version-rolling"] == json!(true) {
            let mask = granted["version-rolling.mask"].as_str().expect("a grant names its mask");
            self.version_mask = Some(u32::from_str_radix(mask, 16).expect("a mask is hex"));
        }
        Ok(granted)
    }

    /// Sends `mining.submit` for `user`.
    pub fn submit(&mut self, user: &str, submission: &Submission) -> Result<bool, ClientError> {
        let mut params = json!([user, submission.job_id, submission.extranonce2, submission.time, submission.nonce]);
        if let (Some(bits), Some(list)) = (&submission.version_bits, params.as_array_mut()) {
            list.push(json!(bits));
        }
        self.request("mining.submit", params).map(|result| result == json!(true))
    }

    /// Sends `mining.submit` for `user`, without waiting.
    pub fn send_submission(&mut self, user: &str, submission: &Submission) {
        let params = json!([user, submission.job_id, submission.extranonce2, submission.time, submission.nonce]);
        self.raw(&json!({ "id": 0, "method": "mining.submit", "params": params }).to_string());
    }

    /// Sends a request and waits for its reply.
    pub fn request(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let id = json!(self.next_id);
        self.next_id += 1;
        self.raw(&json!({ "id": id, "method": method, "params": params }).to_string());
        let reply = self.reply(&id)?;
        outcome(&reply)
    }

    /// Sends one raw line. A closed connection is noticed by the caller that waits for the answer.
    pub fn raw(&mut self, line: &str) {
        self.raw_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends raw bytes.
    pub fn raw_bytes(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).is_err() {
            // Data sent by the server before it hung up may still be read, so do not give up the connection yet.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Waits for the whole reply with this id.
    pub fn reply(&mut self, id: &Value) -> Result<Value, ClientError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.read_message(until)?;
            if message["id"] == *id && message.get("method").is_none() {
                return Ok(message);
            }
        }
    }

    /// Waits for the next reply of any id: for requests without one.
    pub fn any_reply(&mut self) -> Result<Value, ClientError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.read_message(until)?;
            if message.get("method").is_none() {
                return Ok(message);
            }
        }
    }

    /// Returns the next message that is no reply and was not returned before.
    pub fn next_notification(&mut self, timeout: Duration) -> Result<Notification, ClientError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(notification) = self.notifications.pop_front() {
                return Ok(notification);
            }
            self.read_message(until)?;
        }
    }

    /// Latest job.
    pub fn job(&self) -> Job {
        self.jobs.last().expect("wait_for_job was called before").clone()
    }

    /// Waits until the latest job satisfies `wanted`.
    pub fn wait_for_job(&mut self, wanted: impl Fn(&Job) -> bool) -> Job {
        self.try_wait_for_job(wanted, PATIENCE)
            .unwrap_or_else(|error| panic!("waiting for a job: {error}; the latest is {:?}", self.jobs.last()))
    }

    /// Waits for at most `timeout` until the latest job satisfies `wanted`.
    pub fn try_wait_for_job(&mut self, wanted: impl Fn(&Job) -> bool, timeout: Duration) -> Result<Job, ClientError> {
        let until = Instant::now() + timeout;
        // Arrived messages count before stored ones.
        self.poll();
        loop {
            if let Some(job) = self.jobs.last().filter(|job| wanted(job)) {
                return Ok(job.clone());
            }
            self.read_message(until)?;
        }
    }

    /// Waits until `mining.set_difficulty` has set a difficulty that satisfies `wanted`.
    pub fn wait_for_difficulty(&mut self, wanted: impl Fn(f64) -> bool) -> f64 {
        let until = Instant::now() + PATIENCE;
        while !wanted(self.difficulty) {
            let latest = self.difficulty;
            self.read_message(until).unwrap_or_else(|error| panic!("difficulty is {latest}: {error}"));
        }
        self.difficulty
    }

    /// Reads what has arrived, without waiting. Returns false if the connection has ended.
    pub fn poll(&mut self) -> bool {
        while self.read_message(Instant::now() + Duration::from_millis(1)).is_ok() {}
        !self.disconnected
    }

    /// True if the server closes the connection within `timeout`.
    pub fn disconnected_within(&mut self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            match self.read_message(until) {
                Ok(_) => {}
                Err(error) => return error == ClientError::Disconnected,
            }
        }
    }

    /// Reads one message, and updates the connection's state.
    fn read_message(&mut self, until: Instant) -> Result<Value, ClientError> {
        let line = self.read_line(until)?;
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON: {line:?}: {error}"));
        if let Some(method) = message["method"].as_str() {
            let params = message["params"].clone();
            match method {
                "mining.set_difficulty" => {
                    self.difficulty = params[0].as_f64().expect("a difficulty is a number");
                }
                "mining.set_version_mask" => {
                    let mask = params[0].as_str().expect("a mask is text");
                    self.version_mask = Some(u32::from_str_radix(mask, 16).expect("a mask is hex"));
                }
                "mining.notify" => {
                    let job = Job::parse(&params, self.difficulty, &self.extranonce1, self.extranonce2_size)
                        .unwrap_or_else(|| panic!("not a job: {params}"));
                    self.jobs.push(job);
                }
                _ => {}
            }
            self.notifications.push_back(Notification { method: method.to_owned(), params });
        }
        Ok(message)
    }

    fn read_line(&mut self, until: Instant) -> Result<String, ClientError> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8(line).expect("the server sends UTF-8"));
            }
            if self.disconnected {
                return Err(ClientError::Disconnected);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut);
            }
            self.stream.set_read_timeout(Some(left)).expect("longer than zero");
            let mut chunk = [0; 16_384];
            match self.stream.read(&mut chunk) {
                Ok(0) => self.disconnected = true,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.disconnected = true,
            }
        }
    }
}

/// Extracts a reply's result, or its error triple.
fn outcome(reply: &Value) -> Result<Value, ClientError> {
    match &reply["error"] {
        Value::Null => Ok(reply["result"].clone()),
        error => Err(ClientError::Refused {
            code: error[0].as_i64().unwrap_or_else(|| panic!("an error is a triple that starts with a code: {reply}")),
            reason: error[1].as_str().unwrap_or_else(|| panic!("an error triple has a text: {reply}")).to_owned(),
        }),
    }
}

fn sha256d(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(bytes)).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    bitcoin::hex::FromHex::from_hex(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converts a hash from explorers' to Stratum's form: the bytes reversed as a whole, then within each word.
    fn stratum_form(displayed: &str) -> String {
        let mut bytes = unhex(displayed).expect("hex");
        bytes.reverse();
        bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        hex(&bytes)
    }

    fn displayed(header: &[u8]) -> String {
        let mut hash = sha256d(header);
        hash.reverse();
        hex(&hash)
    }

    /// Block 170 of the main chain: the first one with a payment, so its merkle tree has a branch.
    fn block_170() -> Job {
        let coinbase = "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0704ffff001d0102\
                        ffffffff0100f2052a01000000434104d46c4968bde02899d2aa0963367c7a6ce34eec332b32e42e5f3407e052d64ac6\
                        25da6f0718e7b302140434bd725706957c092db53805b821a85b23a7ac61725bac00000000";
        let coinbase = unhex(coinbase).expect("hex");
        let mut payment: [u8; 32] = unhex("f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16")
            .expect("hex")
            .try_into()
            .expect("32 bytes");
        payment.reverse();
        Job {
            id: "170".to_owned(),
            previous_block: stratum_form("000000002a22cfee1f2c846adbd12b3e183d4f97683f85dad08a79780a84bd55"),
            coinbase_start: coinbase[..42].to_vec(),
            extranonce1: coinbase[42..44].to_vec(),
            extranonce2_size: 5,
            coinbase_end: coinbase[49..].to_vec(),
            branch: vec![payment],
            version: 1,
            bits: 0x1d00_ffff,
            time: 1_231_731_025,
            clean: true,
            difficulty: 1.0,
        }
    }

    #[test]
    fn headers_are_those_of_the_main_chain() {
        let job = block_170();
        let extranonce2 = unhex("ff001d0102").expect("hex");
        let header = job.header(&extranonce2, job.version, job.time, 1_889_418_792);
        assert_eq!(displayed(&header), "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee");
        assert!(Target::from_le_bytes(sha256d(&header)) <= job.block_target());
    }

    #[test]
    fn a_found_submission_has_the_hash_that_its_fields_give() {
        let job = Job { difficulty: 1e-6, ..block_170() };
        for found in [job.solve(), job.solve_rolled(7, Some((0x2000, 0x1fff_e000)))] {
            let number = |text: &str| u32::from_str_radix(text, 16).expect("hex");
            let bits = found.version_bits.as_deref().map_or(0, number);
            let extranonce2 = unhex(&found.extranonce2).expect("hex");
            let header = job.header(&extranonce2, job.version | bits, number(&found.time), number(&found.nonce));
            assert_eq!(displayed(&header), found.hash.to_string());
            assert!(Target::from_le_bytes(sha256d(&header)) <= target_of(1e-6));
        }
    }

    #[test]
    fn targets_are_the_inverse_of_difficulties() {
        let one = format!("{:064x}", target_of(1.0));
        assert_eq!(one, format!("00000000ffff{:052}", 0));
        assert_eq!(format!("{:064x}", target_of(65_535.0)), format!("000000000001{:052}", 0));
        assert_eq!(format!("{:064x}", target_of(0.5)), format!("00000001fffe{:052}", 0));
        assert_eq!(format!("{:064x}", target_of(1.0 / 65_536.0)), format!("0000ffff{:056}", 0));
        assert_eq!(target_of(1e-12), Target::from_be_bytes([0xff; 32]));
    }
}
