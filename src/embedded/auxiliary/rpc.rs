//! The daemon's methods, with the fields and errors of Dogecoin Core 1.14 and Namecoin Core.

use bitcoin::{BlockHash, Target};
use serde_json::{Map, Value, json};

use super::block::Block;
use super::chain::{AuxWork, Chain, Fate, SubmitError};
use super::config::{Config, Flavour, TargetForm};
use super::faults::Calls;
use crate::embedded::Moment;

/// Codes of errors, by their names in Bitcoin Core.
mod code {
    pub(super) const MISC_ERROR: i32 = -1;
    pub(super) const INVALID_ADDRESS_OR_KEY: i32 = -5;
    pub(super) const INVALID_PARAMETER: i32 = -8;
    pub(super) const WALLET_KEYPOOL_RAN_OUT: i32 = -12;
    pub(super) const WALLET_NOT_FOUND: i32 = -18;
    pub(super) const DESERIALIZATION_ERROR: i32 = -22;
    pub(super) const PARSE_ERROR: i32 = -32_700;
    pub(super) const INVALID_REQUEST: i32 = -32_600;
    pub(super) const METHOD_NOT_FOUND: i32 = -32_601;
}

/// A method: its name, its parameters as `help` shows them, and the numbers of parameters that it takes.
type Method = (&'static str, &'static str, &'static [usize]);

const METHODS: [Method; 14] = [
    ("createauxblock", "<address>", &[1]),
    ("getauxblock", "( hash auxpow )", &[0, 2]),
    ("getbestblockhash", "", &[0]),
    ("getblock", "\"blockhash\" ( verbosity )", &[1, 2]),
    ("getblockchaininfo", "", &[0]),
    ("getblockcount", "", &[0]),
    ("getblockhash", "height", &[1]),
    ("getblockheader", "\"blockhash\" ( verbose )", &[1, 2]),
    ("getblocktemplate", "( TemplateRequest )", &[0, 1]),
    ("getnetworkinfo", "", &[0]),
    ("help", "( \"command\" )", &[0, 1]),
    ("submitauxblock", "<hash> <auxpow>", &[2]),
    ("submitblock", "\"hexdata\" ( \"jsonparametersobject\" )", &[1, 2]),
    ("validateaddress", "\"address\"", &[1]),
];

/// Error of JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RpcError {
    pub(super) code: i32,
    pub(super) message: String,
}

impl RpcError {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// HTTP status that Bitcoin Core sends an error with.
    pub(super) fn status(&self) -> u16 {
        match self.code {
            code::INVALID_REQUEST => 400,
            code::METHOD_NOT_FOUND => 404,
            _ => 500,
        }
    }
}

pub(super) type Answer = Result<Value, RpcError>;

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: Value,
    pub(super) method: String,
    params: Vec<Value>,
}

impl Call {
    /// Parses the body of a request.
    pub(super) fn parse(body: &[u8]) -> Result<Self, RpcError> {
        let request: Value =
            serde_json::from_slice(body).map_err(|_| RpcError::new(code::PARSE_ERROR, "Parse error"))?;
        let Value::Object(mut request) = request else {
            return Err(RpcError::new(code::PARSE_ERROR, "Top-level object parse error"));
        };
        let Some(Value::String(method)) = request.remove("method") else {
            return Err(RpcError::new(code::INVALID_REQUEST, "Missing method"));
        };
        let params = match request.remove("params") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(params)) => params,
            Some(_) => return Err(RpcError::new(code::INVALID_REQUEST, "Params must be an array")),
        };
        Ok(Self { id: request.remove("id").unwrap_or_default(), method, params })
    }

    /// Name of the method, if there is one of that name.
    pub(super) fn known_method(&self) -> Option<&'static str> {
        METHODS.iter().find(|(name, ..)| *name == self.method).map(|(name, ..)| *name)
    }

    /// Group of the call.
    pub(super) fn group(&self) -> Calls {
        match self.method.as_str() {
            "createauxblock" | "getblocktemplate" => Calls::Work,
            "getauxblock" if self.params.is_empty() => Calls::Work,
            "getauxblock" | "submitauxblock" | "submitblock" => Calls::Submissions,
            _ => Calls::Queries,
        }
    }

    fn text(&self, index: usize) -> Result<&str, RpcError> {
        let not_text = || RpcError::new(code::MISC_ERROR, "JSON value is not a string as expected");
        self.params.get(index).and_then(Value::as_str).ok_or_else(not_text)
    }

    /// False if the optional parameter at `index` asks for serialised bytes.
    fn wants_fields(&self, index: usize) -> bool {
        !matches!(self.params.get(index), Some(Value::Bool(false))) && self.params.get(index) != Some(&json!(0))
    }
}

/// The daemon as its methods see it.
#[derive(Debug)]
pub(super) struct Methods<'a> {
    pub(super) config: &'a Config,
    pub(super) chain: &'a mut Chain,
    pub(super) now: Moment,
}

impl Methods<'_> {
    /// Makes a call.
    pub(super) fn answer(&mut self, call: &Call) -> Answer {
        let Some((name, usage, counts)) = self.method(&call.method) else {
            return Err(RpcError::new(code::METHOD_NOT_FOUND, "Method not found"));
        };
        if !counts.contains(&call.params.len()) {
            return Err(RpcError::new(code::MISC_ERROR, format!("{name} {usage}")));
        }
        match name {
            "createauxblock" => self.create(call.text(0)?),
            "getauxblock" if call.params.is_empty() => self.create_for_wallet(),
            "getauxblock" => self.check_wallet().and_then(|()| self.submit(call.text(0)?, call.text(1)?)),
            "submitauxblock" => self.submit(call.text(0)?, call.text(1)?),
            "getblocktemplate" => self.template(call),
            "submitblock" => self.submit_block(call.text(0)?),
            "getbestblockhash" => Ok(json!(self.chain.tip().hash)),
            "getblock" => self.block(call),
            "getblockheader" => self.header(call),
            "getblockcount" => Ok(json!(self.chain.tip().height)),
            "getblockhash" => self.block_hash(call),
            "getblockchaininfo" => Ok(self.chain_info()),
            "getnetworkinfo" => Ok(self.network_info()),
            "validateaddress" => Ok(self.validate(call.text(0)?)),
            _ => Ok(json!(self.help(call.text(0).unwrap_or_default()))),
        }
    }

    fn methods(&self) -> impl Iterator<Item = Method> {
        let Config { creates, templates, .. } = *self.config;
        METHODS.into_iter().filter(move |(name, ..)| match *name {
            "createauxblock" | "submitauxblock" => creates,
            "getblocktemplate" | "submitblock" => templates,
            _ => true,
        })
    }

    fn method(&self, wanted: &str) -> Option<Method> {
        self.methods().find(|(name, ..)| *name == wanted)
    }

    fn help(&self, command: &str) -> String {
        if command.is_empty() {
            let lines: Vec<String> = self.methods().map(|(name, usage, _)| format!("{name} {usage}")).collect();
            return lines.join("\n");
        }
        match self.method(command) {
            Some((name, usage, _)) => format!("{name} {usage}"),
            None => format!("help: unknown command: {command}"),
        }
    }

    fn create(&mut self, address: &str) -> Answer {
        let Some(script) = self.config.rules.addresses.script(address) else {
            return Err(match self.config.flavour {
                Flavour::Dogecoin => RpcError::new(code::INVALID_PARAMETER, "Invalid coinbase payout address"),
                Flavour::Namecoin => {
                    RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Error: Invalid coinbase payout address")
                }
            });
        };
        let work = self.chain.create(&script, self.now);
        Ok(self.work(&work))
    }

    fn create_for_wallet(&mut self) -> Answer {
        self.check_wallet()?;
        let work = self.chain.create(&self.config.wallet_script(), self.now);
        Ok(self.work(&work))
    }

    fn check_wallet(&self) -> Result<(), RpcError> {
        if self.config.wallet {
            return Ok(());
        }
        Err(match self.config.flavour {
            Flavour::Dogecoin => {
                RpcError::new(code::WALLET_KEYPOOL_RAN_OUT, "Error: Keypool ran out, please call keypoolrefill first")
            }
            Flavour::Namecoin => RpcError::new(
                code::WALLET_NOT_FOUND,
                "No wallet is loaded. Load a wallet using loadwallet or create a new one with createwallet.",
            ),
        })
    }

    fn work(&self, work: &AuxWork) -> Value {
        let target = match self.config.target {
            TargetForm::Digits => hex::encode(Target::from_compact(work.bits).to_le_bytes()),
            TargetForm::Word => "p2pool".to_owned(),
        };
        let target_name = match self.config.flavour {
            Flavour::Dogecoin => "target",
            Flavour::Namecoin => "_target",
        };
        json!({
            "hash": work.hash,
            "chainid": self.config.rules.chain_id,
            "previousblockhash": work.previous,
            "coinbasevalue": work.coinbase_value,
            "bits": format!("{:08x}", work.bits.to_consensus()),
            "height": work.height,
            target_name: target,
        })
    }

    /// True for every good proof, also of a block that is beside the best chain; false for every other.
    fn submit(&mut self, hash: &str, proof: &str) -> Answer {
        let unknown = || RpcError::new(code::INVALID_PARAMETER, "block hash unknown");
        let Ok(hash) = hash.parse() else {
            return Err(match self.config.flavour {
                Flavour::Dogecoin => unknown(),
                Flavour::Namecoin => RpcError::new(code::INVALID_PARAMETER, "invalid block hash hex"),
            });
        };
        // Up to the first character that is no digit, as both programs read it.
        let digits = proof.bytes().take_while(u8::is_ascii_hexdigit).count() & !1;
        let proof = hex::decode(&proof[..digits]).expect("an even number of digits");
        match self.chain.submit(hash, &proof, self.now) {
            Ok(_) => Ok(json!(true)),
            Err(SubmitError::Unknown) => Err(unknown()),
            Err(SubmitError::Decode(_)) => {
                Err(RpcError::new(code::MISC_ERROR, "CDataStream::read(): end of data: iostream error"))
            }
            Err(SubmitError::Rule(_) | SubmitError::Invalid) => Ok(json!(false)),
        }
    }

    fn template(&mut self, call: &Call) -> Answer {
        let mode = match call.params.first() {
            None | Some(Value::Null) => &Value::Null,
            Some(Value::Object(request)) => request.get("mode").unwrap_or(&Value::Null),
            Some(_) => return Err(RpcError::new(code::MISC_ERROR, "JSON value is not an object as expected")),
        };
        if !mode.is_null() && mode != "template" {
            return Err(RpcError::new(code::INVALID_PARAMETER, "Invalid mode"));
        }
        Ok(self.chain.template(self.now).answer())
    }

    /// Null for a block that is the tip now, else a word (BIP 22).
    fn submit_block(&mut self, digits: &str) -> Answer {
        let unreadable = || RpcError::new(code::DESERIALIZATION_ERROR, "Block decode failed");
        let bytes = hex::decode(digits).map_err(|_| unreadable())?;
        match self.chain.submit_block(&bytes, self.now) {
            Ok(Fate::Tip) => Ok(Value::Null),
            Ok(Fate::Known) => Ok(json!("duplicate")),
            Ok(Fate::Beside) => Ok(json!("inconclusive")),
            Err(SubmitError::Rule(error)) => Ok(json!(error.word())),
            Err(SubmitError::Invalid) => Ok(json!("duplicate-invalid")),
            Err(SubmitError::Decode(_) | SubmitError::Unknown) => Err(unreadable()),
        }
    }

    fn find(&self, call: &Call) -> Result<(BlockHash, &Block), RpcError> {
        let found = call.text(0)?.parse().ok().and_then(|hash| Some((hash, self.chain.block(&hash)?)));
        found.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Block not found"))
    }

    fn block(&self, call: &Call) -> Answer {
        let (hash, block) = self.find(call)?;
        let bytes = block.serialise();
        if !call.wants_fields(1) {
            return Ok(json!(hex::encode(bytes)));
        }
        let mut fields = self.header_fields(hash, block);
        let transactions: Vec<_> =
            block.transactions.iter().map(|transaction| json!(transaction.compute_txid())).collect();
        fields.insert("size".to_owned(), json!(bytes.len()));
        fields.insert("tx".to_owned(), json!(transactions));
        Ok(Value::Object(fields))
    }

    fn header(&self, call: &Call) -> Answer {
        let (hash, block) = self.find(call)?;
        if call.wants_fields(1) {
            Ok(Value::Object(self.header_fields(hash, block)))
        } else {
            Ok(json!(hex::encode(block.serialised_header())))
        }
    }

    fn header_fields(&self, hash: BlockHash, block: &Block) -> Map<String, Value> {
        let header = &block.header;
        let confirmations = self.chain.confirmations(&hash);
        let version = header.version.to_consensus();
        let fields = json!({
            "hash": hash,
            "confirmations": confirmations,
            "height": block.height,
            "version": version,
            "versionHex": format!("{version:08x}"),
            "merkleroot": header.merkle_root,
            "time": header.time,
            "mediantime": self.chain.median_time(&hash),
            "nonce": header.nonce,
            "bits": format!("{:08x}", header.bits.to_consensus()),
            "difficulty": Target::from_compact(header.bits).difficulty_float(),
            "chainwork": self.chain.work(&hash).map(|work| hex::encode(work.to_be_bytes())),
        });
        let Value::Object(mut fields) = fields else { return Map::new() };
        if block.height > 0 {
            fields.insert("previousblockhash".to_owned(), json!(header.prev_blockhash));
        }
        let next = self.chain.hash_at(block.height + 1).filter(|_| confirmations.is_some_and(|number| number > 0));
        if let Some(next) = next {
            fields.insert("nextblockhash".to_owned(), json!(next));
        }
        fields
    }

    fn block_hash(&self, call: &Call) -> Answer {
        let height = call.params[0].as_u64().and_then(|height| u32::try_from(height).ok());
        let hash = height.and_then(|height| self.chain.hash_at(height));
        let out_of_range = || RpcError::new(code::INVALID_PARAMETER, "Block height out of range");
        hash.map(|hash| json!(hash)).ok_or_else(out_of_range)
    }

    fn chain_info(&self) -> Value {
        let tip = self.chain.tip();
        let bits = self.chain.block(&tip.hash).map(|block| block.header.bits);
        json!({
            "chain": "regtest",
            "blocks": tip.height,
            "headers": tip.height,
            "bestblockhash": tip.hash,
            "difficulty": bits.map(|bits| Target::from_compact(bits).difficulty_float()),
            "mediantime": self.chain.median_time(&tip.hash),
            "verificationprogress": 1,
            "initialblockdownload": false,
            "chainwork": self.chain.work(&tip.hash).map(|work| hex::encode(work.to_be_bytes())),
            "pruned": false,
            "warnings": "",
        })
    }

    fn network_info(&self) -> Value {
        let (version, agent) = match self.config.flavour {
            Flavour::Dogecoin => (1_140_900, "/Shibetoshi:1.14.9/"),
            Flavour::Namecoin => (280_000, "/Satoshi:28.0.0/"),
        };
        json!({
            "version": version,
            "subversion": agent,
            "protocolversion": 70_016,
            "connections": 8,
            "networkactive": true,
            "timeoffset": 0,
            "relayfee": 0.001,
            "warnings": "",
        })
    }

    fn validate(&self, address: &str) -> Value {
        match self.config.rules.addresses.script(address) {
            Some(script) => {
                json!({ "isvalid": true, "address": address, "scriptPubKey": hex::encode(script.as_bytes()) })
            }
            None => json!({ "isvalid": false }),
        }
    }
}
