//! Fields used of the daemon's answers, and the conversion of a `getblocktemplate` answer to a [`Template`].

use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, CompactTarget, Txid, Wtxid};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use stratum::Printable;
use thiserror::Error;

use crate::template::{EXTENSION_BYTES_MAX, Template, TemplateError, TemplateParts, TemplateTransaction};

/// Minimum weight of a transaction, which bounds their number: 60 bytes without a witness.
const TRANSACTION_WEIGHT_MIN: u64 = 240;

/// Maximum size of the coinbase flags, in bytes: a coinbase script has at most 100, some of them for the height.
const FLAGS_BYTES_MAX: usize = 80;

/// Maximum length of a text that is shown or logged, in characters.
const TEXT_MAX: usize = 1000;

/// Maximum size of a witness commitment script, in bytes; Core's has 38.
const COMMITMENT_BYTES_MAX: usize = 100;

/// Answer to `getblocktemplate`.
#[derive(Debug, Clone, Deserialize)]
pub struct BlockTemplate {
    version: i32,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(rename = "previousblockhash")]
    previous_block: BlockHash,
    transactions: Vec<BlockTemplateTransaction>,
    #[serde(default, rename = "coinbaseaux")]
    coinbase_aux: BTreeMap<String, String>,
    #[serde(rename = "coinbasevalue")]
    coinbase_value: u64,
    /// Id for a long poll that is answered once there is a newer template.
    #[serde(rename = "longpollid")]
    pub long_poll_id: Option<String>,
    #[serde(rename = "mintime")]
    time_min: u32,
    #[serde(rename = "curtime")]
    time: u32,
    bits: String,
    height: u32,
    /// Maximum weight of a block by the daemon's rules (BIP 145).
    #[serde(rename = "weightlimit")]
    weight_limit: Option<u64>,
    default_witness_commitment: Option<String>,
    /// Litecoin's extension block.
    mweb: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct BlockTemplateTransaction {
    data: String,
    txid: Txid,
    hash: Wtxid,
    fee: u64,
    weight: u64,
    sigops: u64,
}

impl BlockTemplate {
    /// The daemon's clock, in seconds since 1970; `None` where the chain's time is ahead of it and given instead.
    pub fn clock(&self) -> Option<u32> {
        (self.time > self.time_min).then_some(self.time)
    }
}

/// Reason why an answer to `getblocktemplate` is not a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConversionError {
    /// A field is malformed.
    #[error("getblocktemplate's {field} is unusable: {reason}")]
    Field {
        /// Name of the field, with an index in lists.
        field: String,
        /// Cause.
        reason: String,
    },
    /// All fields are well-formed, but the template cannot become a valid block.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl BlockTemplate {
    /// Height of the block to be mined.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Decodes and checks the answer. Blocks may weigh `weight_max` at most, and no more than the daemon says. Takes
    /// milliseconds for a full block, so keep it off the event loop.
    ///
    /// # Errors
    /// The first unusable field, by name.
    pub fn into_template(self, known_rules: &[&str], weight_max: u64) -> Result<Template, ConversionError> {
        let weight_max = self.weight_limit.map_or(weight_max, |limit| limit.min(weight_max));
        // A byte weighs a unit at least: a transaction, or an extension block, with nothing beside it.
        let bytes_max = usize::try_from(weight_max).unwrap_or(usize::MAX);
        if self.transactions.len() as u64 > weight_max / TRANSACTION_WEIGHT_MIN {
            let reason = format!("{} are more than fit into a block", self.transactions.len());
            return Err(ConversionError::Field { field: "transactions".to_owned(), reason });
        }
        let transactions = self.transactions.into_iter().enumerate().map(|(index, one)| {
            let field = || format!("transactions[{index}].data");
            let raw = Bytes::from(decode(&one.data, bytes_max, field)?);
            let BlockTemplateTransaction { txid, hash: wtxid, fee, weight, sigops, .. } = one;
            Ok(TemplateTransaction { raw, txid, wtxid, fee, weight, sigops })
        });
        let transactions = transactions.collect::<Result<Vec<_>, ConversionError>>()?;
        let mut coinbase_flags = Vec::new();
        for (name, value) in &self.coinbase_aux {
            coinbase_flags.extend(decode(value, FLAGS_BYTES_MAX, || format!("coinbaseaux.{name}"))?);
        }
        if coinbase_flags.len() > FLAGS_BYTES_MAX {
            let reason = format!("{} bytes do not fit into a coinbase", coinbase_flags.len());
            return Err(ConversionError::Field { field: "coinbaseaux".to_owned(), reason });
        }
        let bits = u32::from_str_radix(&self.bits, 16)
            .map_err(|error| ConversionError::Field { field: "bits".to_owned(), reason: error.to_string() })?;
        let commitment = |hex: String| decode(&hex, COMMITMENT_BYTES_MAX, || "default_witness_commitment".to_owned());
        let parts = TemplateParts {
            version: self.version.cast_unsigned(),
            previous_block: self.previous_block,
            height: self.height,
            bits: CompactTarget::from_consensus(bits),
            time: self.time,
            time_min: self.time_min,
            coinbase_value: self.coinbase_value,
            coinbase_flags,
            transactions,
            weight_max,
            rules: self.rules,
            default_witness_commitment: self.default_witness_commitment.map(commitment).transpose()?,
            suffix: match &self.mweb {
                // Preceded by a byte that marks its presence (protocol section 14.2).
                Some(mweb) => [vec![1], decode(mweb, EXTENSION_BYTES_MAX, || "mweb".to_owned())?].concat(),
                None => Vec::new(),
            },
        };
        Ok(Template::new(parts, known_rules)?)
    }
}

fn decode(hex: &str, bytes_max: usize, field: impl Fn() -> String) -> Result<Vec<u8>, ConversionError> {
    if hex.len() > 2 * bytes_max {
        let reason = format!("{} bytes are more than the {bytes_max} expected at most", hex.len() / 2);
        return Err(ConversionError::Field { field: field(), reason });
    }
    Vec::from_hex(hex).map_err(|error| ConversionError::Field { field: field(), reason: error.to_string() })
}

/// Escapes and shortens a text of the daemon, which may repeat what strangers sent it.
pub(super) fn printable(text: &str) -> String {
    Printable::of_at_most(text, TEXT_MAX).to_string()
}

fn deserialize_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| printable(&text))
}

/// Answer to `getblockchaininfo`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ChainInfo {
    /// `main`, `test`, `testnet4`, `signet` or `regtest`.
    #[serde(deserialize_with = "deserialize_text")]
    pub chain: String,
    /// Height of the best block.
    pub blocks: u32,
    /// Height of the best header.
    pub headers: u32,
    /// Estimate of the verified part of the chain, 0 to 1.
    #[serde(rename = "verificationprogress")]
    pub verification_progress: f64,
    /// Set while the daemon considers itself catching up.
    #[serde(rename = "initialblockdownload")]
    pub initial_block_download: bool,
}

/// Answer to `getnetworkinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NetworkInfo {
    /// Version as one number: 220000 is 22.0, 319900 is 31.99.
    pub version: u32,
    /// User agent of the daemon, such as `/Satoshi:31.0.0/`.
    #[serde(rename = "subversion", deserialize_with = "deserialize_text")]
    pub user_agent: String,
    /// Current warnings.
    #[serde(default)]
    pub warnings: Warnings,
}

/// Warnings of a daemon: a list from version 28 on, before that one string, empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Warnings {
    /// From version 28 on.
    List(Vec<String>),
    /// Before version 28.
    Text(String),
}

impl Default for Warnings {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Warnings {
    /// List of warnings. A developers' build is not one (protocol section 13.2).
    pub fn texts(self) -> Vec<String> {
        let texts = match self {
            Self::List(texts) => texts,
            Self::Text(text) => vec![text],
        };
        let texts = texts.iter().filter(|text| !text.is_empty() && !text.contains("pre-release test build"));
        texts.map(|text| printable(text)).collect()
    }
}

/// Answer to `getblockheader`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BlockHeaderInfo {
    /// Blocks from it to the tip, itself included; -1 if it is not in the best chain.
    pub confirmations: i64,
    /// Height of the block.
    pub height: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::BLOCK_WEIGHT_MAX;
    use serde_json::{Value, json};

    const RULES: &[&str] = &["csv", "segwit", "taproot", "signet"];

    fn answer() -> Value {
        json!({
            "version": 536870912, "rules": ["csv", "!segwit", "taproot"], "vbavailable": {}, "vbrequired": 0,
            "previousblockhash": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
            "transactions": [], "coinbaseaux": {}, "coinbasevalue": 5000000000_u64,
            "longpollid": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e22061",
            "mintime": 1296688603, "curtime": 1700000000, "bits": "207fffff", "height": 1,
            "default_witness_commitment":
                "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9",
        })
    }

    fn convert(answer: Value) -> Result<Template, ConversionError> {
        serde_json::from_value::<BlockTemplate>(answer).unwrap().into_template(RULES, BLOCK_WEIGHT_MAX)
    }

    #[test]
    fn core_s_empty_template_is_read() {
        let template = convert(answer()).unwrap();
        assert_eq!((template.height, template.version), (1, 0x2000_0000));
        assert_eq!(template.bits.to_consensus(), 0x207f_ffff);
        assert_eq!((template.time_min, template.time), (1_296_688_603, 1_700_000_000));
        assert!(template.witness_root.is_some());
    }

    #[test]
    fn coinbaseaux_becomes_the_flags_and_a_signet_challenge_does_no_harm() {
        let mut answer = answer();
        answer["coinbaseaux"] = json!({"flags": "0011"});
        answer["signet_challenge"] = json!("51");
        answer["rules"] = json!(["!segwit", "!signet"]);
        assert_eq!(convert(answer).unwrap().coinbase_flags, [0x00, 0x11]);
    }

    #[test]
    fn a_daemons_warnings_are_read_in_both_forms_and_its_being_a_test_build_is_none() {
        let of = |warnings: Value| {
            let answer = json!({"version": 310_000, "subversion": "/Satoshi:31.0.0/", "warnings": warnings});
            serde_json::from_value::<NetworkInfo>(answer).unwrap().warnings.texts()
        };
        let test_build = "This is a pre-release test build - use at your own risk";
        assert_eq!(of(json!(["unknown new rules activated (versionbit 5)", test_build])).len(), 1);
        assert_eq!(of(json!("disk space is low")), ["disk space is low"]);
        assert!(of(json!("")).is_empty() && of(json!([])).is_empty() && of(json!(test_build)).is_empty());
        let without = json!({"version": 310_000, "subversion": "/Satoshi:31.0.0/"});
        assert!(serde_json::from_value::<NetworkInfo>(without).unwrap().warnings.texts().is_empty());
    }

    #[test]
    fn what_the_daemon_says_is_escaped_and_shortened_where_it_is_read() {
        let attack = format!("<b>\n\u{1b}[31m{}", "x".repeat(5000));
        let node = json!({"version": 310_000, "subversion": &attack, "warnings": [&attack]});
        let node: NetworkInfo = serde_json::from_value(node).unwrap();
        let chain = json!({"chain": &attack, "blocks": 1, "headers": 1, "verificationprogress": 1.0,
            "initialblockdownload": false});
        let chain: ChainInfo = serde_json::from_value(chain).unwrap();
        for text in node.warnings.texts().into_iter().chain([node.user_agent, chain.chain]) {
            assert!(
                text.starts_with(r"\u{3c}b\u{3e}\n\u{1b}[31mxxx") && text.chars().count() == TEXT_MAX + 1,
                "{text}"
            );
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        let transaction = json!({"data": "zz", "txid": "00".repeat(32), "hash": "00".repeat(32), "fee": 1,
            "weight": 400, "depends": [], "sigops": 0});
        for (field, value, named) in [
            ("bits", json!("207fffffff"), "bits"),
            ("coinbaseaux", json!({"flags": "0"}), "coinbaseaux.flags"),
            ("coinbaseaux", json!({"a": "00".repeat(60), "b": "00".repeat(60)}), "coinbaseaux"),
            ("coinbaseaux", json!({"a": "00".repeat(81)}), "coinbaseaux.a"),
            ("default_witness_commitment", json!("00".repeat(101)), "default_witness_commitment"),
            ("transactions", json!([transaction]), "transactions[0].data"),
        ] {
            let mut answer = answer();
            answer[field] = value;
            match convert(answer).unwrap_err() {
                ConversionError::Field { field, .. } => assert_eq!(field, named),
                other @ ConversionError::Template(_) => panic!("{named}: {other}"),
            }
        }
    }

    #[test]
    fn an_extension_block_may_be_larger_than_the_block_but_not_than_its_own_rules_allow() {
        let with = |bytes: usize| {
            let mut answer = answer();
            answer["mweb"] = json!("00".repeat(bytes));
            convert(answer)
        };
        // The size is right; that there are no transactions for it comes after that.
        let wrong = with(EXTENSION_BYTES_MAX).unwrap_err();
        assert!(matches!(wrong, ConversionError::Template(TemplateError::Extension(_))), "{wrong}");
        let refused = with(EXTENSION_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("mweb") && refused.contains(&EXTENSION_BYTES_MAX.to_string()), "{refused}");
    }

    #[test]
    fn blocks_are_as_heavy_as_both_the_network_and_the_daemon_allow() {
        let of = |limit: Value, weight_max: u64| {
            let mut answer = answer();
            answer["weightlimit"] = limit;
            serde_json::from_value::<BlockTemplate>(answer)
                .unwrap()
                .into_template(RULES, weight_max)
                .unwrap()
                .weight_max
        };
        assert_eq!(of(json!(4_000_000), 128_000_000), 4_000_000);
        assert_eq!(of(json!(128_000_000), 4_000_000), 4_000_000);
        assert_eq!(of(Value::Null, 128_000_000), 128_000_000);
    }

    #[test]
    fn the_limit_of_a_block_bounds_its_transactions() {
        let transaction = json!({
            "data": "00".repeat(4_000_001), "txid": "11".repeat(32), "hash": "11".repeat(32), "fee": 0, "weight": 240,
            "sigops": 0,
        });
        let mut answer = answer();
        answer["transactions"] = json!([transaction]);
        let of = |weight_max| {
            let answer = serde_json::from_value::<BlockTemplate>(answer.clone()).unwrap();
            answer.into_template(RULES, weight_max).map_err(|error| error.to_string())
        };
        assert!(of(4_000_000).unwrap_err().contains("more than the 4000000 expected"));
        assert!(of(239).unwrap_err().contains("1 are more than fit"));
        // It is read as a whole; that the commitment is not this block's comes after that.
        assert!(of(8_000_000).unwrap_err().contains("witness commitment"));
    }

    #[test]
    fn an_unknown_rule_stops_work_only_if_miners_must_know_it() {
        let with = |rule: &str| {
            let mut answer = answer();
            answer["rules"] = json!(["!segwit", rule]);
            convert(answer)
        };
        let refused = ConversionError::Template(TemplateError::UnknownRule("quantum".to_owned()));
        assert_eq!(with("!quantum").unwrap_err(), refused);
        assert_eq!(with("quantum").unwrap().rules, ["segwit", "quantum"]);
    }
}
