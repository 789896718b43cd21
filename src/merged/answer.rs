//! Answers to `createauxblock` and `getauxblock`, checked field by field: a daemon may be another one than expected, or lie.

use serde_json::{Map, Value};
use sharechain::merged::{MergedBlock, MergedTarget};
use sharechain::merkle::Digest;
use sharechain::share::Target;
use std::sync::Arc;
use stratum::Printable;
use thiserror::Error;

/// Maximum length of a value that is quoted, in characters.
const QUOTED_MAX: usize = 80;

/// Maximum height of a block; daemons count in 32 bits with a sign.
const HEIGHT_MAX: u64 = i32::MAX as u64;

/// Maximum of what a block pays; daemons count in 64 bits with a sign.
const VALUE_MAX: u64 = i64::MAX as u64;

/// Target that stands for the share's own.
const SHARES_TARGET: &str = "p2pool";

/// Reason why an answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is not an object, and holds no block.
    #[error("it is {0} instead of a block to mine")]
    NoBlock(Printable),
    /// A required field is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A field is malformed or out of range.
    #[error("its {field} is {value} instead of {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: Printable,
        /// Description of usable values.
        expected: &'static str,
    },
    /// No hash meets its target.
    #[error("its target is 0, which no hash meets")]
    ZeroTarget,
}

/// Next block of a merged chain, as its daemon describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Number of the chain.
    pub chain_id: u32,
    /// Hash of the block, a raw digest.
    pub hash: Digest,
    /// Target for the parent block's proof of work.
    pub target: MergedTarget,
    /// Hash of its parent, a raw digest, if given.
    pub previous_block: Option<Digest>,
    /// Its height, if given.
    pub height: Option<u32>,
    /// What its coinbase pays, in the chain's base units, if given.
    pub value: Option<u64>,
}

impl Answer {
    /// Reads an answer. Hashes are big-endian, targets little-endian (protocol section 9.8).
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn read(answer: &Value) -> Result<Self, AnswerError> {
        let fields = answer.as_object().ok_or_else(|| AnswerError::NoBlock(quoted(answer)))?;
        let chain_id = required(fields, "chainid")?;
        let chain_id = chain_id
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong("chainid", chain_id, "a number below 2^32"))?;
        let hash = hash("hash", required(fields, "hash")?)?;
        let target = match fields.get("target") {
            Some(target) => target_of("target", target)?,
            None => target_of("_target", fields.get("_target").ok_or(AnswerError::Missing("target"))?)?,
        };
        let previous_block =
            optional(fields, "previousblockhash").map(|value| self::hash("previousblockhash", value)).transpose()?;
        let height = optional(fields, "height").map(|value| height("height", value, 1)).transpose()?;
        let value = optional(fields, "coinbasevalue").map(|value| {
            let number = value.as_u64().filter(|number| *number <= VALUE_MAX);
            number.ok_or_else(|| wrong("coinbasevalue", value, "a number below 2^63"))
        });
        Ok(Self { chain_id, hash, target, previous_block, height, value: value.transpose()? })
    }

    /// Completes the block of `chain`, which pays `payee`, by what the answer may lack.
    pub(super) fn into_block(
        self,
        chain: Arc<str>,
        payee: Arc<str>,
        previous_block: Digest,
        height: u32,
    ) -> MergedBlock {
        let Self { chain_id, hash, target, value, .. } = self;
        MergedBlock { chain, chain_id, hash, target, previous_block, height, value, payee }
    }
}

/// Reads the height of the daemon's best block, an answer to `getblockcount`.
pub(super) fn tip_height(answer: &Value) -> Result<u32, AnswerError> {
    // The next block has a height, too.
    height("answer", answer, 0).and_then(|height| match height.checked_add(1) {
        Some(next) if u64::from(next) <= HEIGHT_MAX => Ok(height),
        _ => Err(wrong("answer", answer, HEIGHTS)),
    })
}

/// Reads the hash of the daemon's best block, an answer to `getbestblockhash`.
pub(super) fn tip_hash(answer: &Value) -> Result<Digest, AnswerError> {
    hash("answer", answer)
}

const HEIGHTS: &str = "a height";

/// Form of hashes and targets.
pub(super) const DIGITS: &str = "64 hex digits";

pub(super) fn height(field: &'static str, value: &Value, min: u64) -> Result<u32, AnswerError> {
    let number = value.as_u64().filter(|number| (min..=HEIGHT_MAX).contains(number));
    number.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| wrong(field, value, HEIGHTS))
}

fn required<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<&'a Value, AnswerError> {
    fields.get(field).ok_or(AnswerError::Missing(field))
}

/// A field that may be missing or null.
fn optional<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

pub(super) fn hash(field: &'static str, value: &Value) -> Result<Digest, AnswerError> {
    let mut digest = value.as_str().and_then(digits).ok_or_else(|| wrong(field, value, DIGITS))?;
    digest.reverse();
    Ok(digest)
}

fn target_of(field: &'static str, value: &Value) -> Result<MergedTarget, AnswerError> {
    if value.as_str() == Some(SHARES_TARGET) {
        return Ok(MergedTarget::Share);
    }
    let bytes = value.as_str().and_then(digits).ok_or_else(|| wrong(field, value, DIGITS))?;
    if bytes == [0; 32] {
        return Err(AnswerError::ZeroTarget);
    }
    Ok(MergedTarget::Own(Target::from_le_bytes(&bytes)))
}

/// Decodes exactly 64 hex digits.
pub(super) fn digits(text: &str) -> Option<[u8; 32]> {
    // The decoder takes a prefix `0x`, too.
    let text = Some(text).filter(|text| text.bytes().all(|letter| letter.is_ascii_hexdigit()))?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn wrong(field: &'static str, value: &Value, expected: &'static str) -> AnswerError {
    AnswerError::Field { field, value: quoted(value), expected }
}

fn quoted(value: &Value) -> Printable {
    Printable::of_at_most(&value.to_string(), QUOTED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use stratum::printable::is_printable;

    /// An answer of Dogecoin Core, as of its documentation.
    fn answer() -> Value {
        json!({
            "hash": "0102030405060708091011121314151617181920212223242526272829303132",
            "chainid": 98,
            "previousblockhash": "f1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f1f2f3f4f5f6f7f8f9f0f1f2",
            "coinbasevalue": 1_000_000_000_000_u64,
            "bits": "1e0ffff0",
            "height": 371_337,
            "target": "000000000000000000000000000000000000000000000000000000f0ff0f0000",
        })
    }

    fn with(field: &str, value: Value) -> Result<Answer, AnswerError> {
        let mut answer = answer();
        answer[field] = value;
        Answer::read(&answer)
    }

    fn without(fields: &[&str]) -> Result<Answer, AnswerError> {
        let mut answer = answer();
        fields.iter().for_each(|field| drop(answer.as_object_mut().unwrap().remove(*field)));
        Answer::read(&answer)
    }

    #[test]
    fn hashes_are_big_endian_and_targets_little_endian() {
        let read = Answer::read(&answer()).unwrap();
        assert_eq!((read.chain_id, read.height, read.value), (98, Some(371_337), Some(1_000_000_000_000)));
        assert_eq!((read.hash[31], read.hash[0]), (0x01, 0x32));
        assert_eq!(read.previous_block.unwrap()[31], 0xf1);
        // The bits of the answer, which is a compact form of its target.
        let target = sharechain::share::Bits(0x1e0f_fff0).target();
        assert_eq!(read.target, MergedTarget::Own(target));
        let block = read.clone().into_block("doge".into(), "D8".into(), [1; 32], 2);
        assert_eq!(block.hash_in_hex(), answer()["hash"]);
    }

    #[test]
    fn the_other_name_of_the_target_counts_only_where_the_first_is_missing() {
        let one = json!("01".to_owned() + &"00".repeat(31));
        let mut namecoins = answer();
        namecoins["_target"] = one.clone();
        assert_eq!(Answer::read(&namecoins), Answer::read(&answer()));
        namecoins.as_object_mut().unwrap().remove("target");
        let target = Answer::read(&namecoins).unwrap().target;
        assert_eq!(
            target,
            MergedTarget::Own(Target::from_le_bytes(&{
                let mut bytes = [0; 32];
                bytes[0] = 1;
                bytes
            }))
        );
        namecoins["target"] = Value::Null;
        assert!(Answer::read(&namecoins).is_err(), "it is there, and cannot be read");
        assert_eq!(without(&["target"]), Err(AnswerError::Missing("target")));
    }

    #[test]
    fn the_word_p2pool_is_the_targets_of_the_shares() {
        assert_eq!(with("target", json!("p2pool")).unwrap().target, MergedTarget::Share);
        assert!(with("target", json!("P2Pool")).is_err());
    }

    #[test]
    fn height_parent_and_value_may_be_missing() {
        let read = without(&["height", "previousblockhash", "coinbasevalue", "bits"]).unwrap();
        assert_eq!((read.height, read.previous_block, read.value), (None, None, None));
        assert_eq!(with("height", Value::Null).unwrap().height, None);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_value() {
        let far = "00".repeat(33);
        for (field, value) in [
            ("chainid", json!(-1)),
            ("chainid", json!(4_294_967_296_u64)),
            ("chainid", json!("98")),
            ("chainid", json!(98.5)),
            ("hash", json!("00")),
            ("hash", json!(far)),
            ("hash", json!(format!("0x{}", "00".repeat(31)))),
            ("hash", json!(format!("0x{}", "00".repeat(32)))),
            ("hash", json!(format!("{}é", "0".repeat(62)))),
            ("hash", Value::Null),
            ("target", json!("1e0ffff0")),
            ("target", json!(5)),
            ("previousblockhash", json!("nothing")),
            ("height", json!(0)),
            ("height", json!(2_147_483_648_u64)),
            ("height", json!(1.5)),
            ("coinbasevalue", json!(-1)),
            ("coinbasevalue", json!(u64::MAX)),
            ("coinbasevalue", json!(25.0)),
        ] {
            let error = with(field, value.clone()).unwrap_err();
            assert!(matches!(&error, AnswerError::Field { field: named, .. } if *named == field), "{field}: {error}");
        }
        assert_eq!(without(&["chainid"]), Err(AnswerError::Missing("chainid")));
        assert_eq!(without(&["hash"]), Err(AnswerError::Missing("hash")));
        assert_eq!(with("target", json!("00".repeat(32))), Err(AnswerError::ZeroTarget));
        assert_eq!(Answer::read(&json!(null)).unwrap_err().to_string(), "it is null instead of a block to mine");
        let attack = Answer::read(&json!("<b>\u{1b}[31m".repeat(1000))).unwrap_err().to_string();
        assert!(attack.chars().all(is_printable) && attack.chars().count() < 150, "{attack}");
    }

    #[test]
    fn the_tip_s_height_leaves_room_for_the_next() {
        assert_eq!(tip_height(&json!(0)), Ok(0));
        assert_eq!(tip_height(&json!(2_147_483_646)), Ok(2_147_483_646));
        for wrong in [json!(2_147_483_647), json!(-1), json!("7"), json!(null)] {
            assert!(tip_height(&wrong).is_err(), "{wrong}");
        }
        assert!(tip_hash(&json!("11".repeat(32))).is_ok() && tip_hash(&json!("11".repeat(31))).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,70}".prop_map(Value::from),
            "[0-9a-fA-F]{64}".prop_map(Value::from),
            Just(Value::from(SHARES_TARGET)),
        ];
        let field = prop_oneof![
            Just("chainid".to_owned()),
            Just("hash".to_owned()),
            Just("target".to_owned()),
            Just("_target".to_owned()),
            Just("previousblockhash".to_owned()),
            Just("height".to_owned()),
            Just("coinbasevalue".to_owned()),
            ".{0,9}",
        ];
        leaf.prop_recursive(3, 32, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((field.clone(), inner), 0..9)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn hex_of(mut digest: Digest) -> String {
        digest.reverse();
        hex::encode(digest)
    }

    proptest! {
        #[test]
        fn any_json_is_an_answer_or_an_error_in_one_printable_line(json in any_json()) {
            if let Err(error) = Answer::read(&json) {
                let text = error.to_string();
                prop_assert!(text.chars().all(is_printable) && text.chars().count() < 200, "{}", text);
            }
        }

        #[test]
        fn what_a_daemon_writes_is_what_is_read(
            chain_id: u32,
            hash: Digest,
            target in proptest::option::of(any::<Digest>()),
            previous_block in proptest::option::of(any::<Digest>()),
            height in proptest::option::of(1..=i32::MAX.unsigned_abs()),
            value in proptest::option::of(0..=i64::MAX.unsigned_abs()),
            is_old: bool,
        ) {
            let target = target.filter(|bytes| *bytes != [0; 32]);
            let written = target.map_or(SHARES_TARGET.to_owned(), hex::encode);
            let mut json = json!({"chainid": chain_id, "hash": hex_of(hash)});
            json[if is_old { "_target" } else { "target" }] = written.into();
            if let Some(previous) = previous_block {
                json["previousblockhash"] = hex_of(previous).into();
            }
            json["height"] = height.into();
            json["coinbasevalue"] = value.into();
            let target = target.map_or(MergedTarget::Share, |bytes| MergedTarget::Own(Target::from_le_bytes(&bytes)));
            let answer = Answer { chain_id, hash, target, previous_block, height, value };
            prop_assert_eq!(Answer::read(&json), Ok(answer));
        }
    }
}
