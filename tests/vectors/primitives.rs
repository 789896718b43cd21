//! Byte primitives of `pack.json`, except those of messages between peers (`messages`).

use super::support::{bytes_of, json, list_of, number_of, ran, rules_of, str_of};
use ruint::aliases::U320;
use serde_json::{Value, json as value_of};
use sharechain::pack::{Reader, UnpackError, Writer};
use sharechain::share::{self, Bits, StaleInfo, display_hex};

/// Name of a vector in errors.
const FIELD: &str = "vector";

/// Parses `bytes` as a type; returns the value in the form of the vectors, and its serialisation. `None` for types of
/// other modules.
fn through(kind: &str, bytes: &[u8]) -> Option<Result<(Value, Vec<u8>), UnpackError>> {
    let mut reader = Reader::new(bytes);
    let mut writer = Writer::default();
    let mut read = || -> Result<Option<Value>, UnpackError> {
        Ok(Some(match kind {
            "varint" => {
                let value = reader.varint(FIELD)?;
                writer.varint(value);
                value.to_string().into()
            }
            "varstr" => {
                let value = reader.varstr(FIELD)?;
                writer.varstr(value);
                format!("hex:{}", hex::encode(value)).into()
            }
            "int0_little" | "int0_big" => "0".into(),
            "int8_little" | "int8_big" => {
                let value = reader.u8(FIELD)?;
                writer.u8(value);
                value.to_string().into()
            }
            "int16_little" => {
                let value = reader.u16(FIELD)?;
                writer.u16(value);
                value.to_string().into()
            }
            "int16_big" => {
                let value = reader.u16_big_endian(FIELD)?;
                writer.u16_big_endian(value);
                value.to_string().into()
            }
            "int32_little" => {
                let value = reader.u32(FIELD)?;
                writer.u32(value);
                value.to_string().into()
            }
            "int64_little" => {
                let value = reader.u64(FIELD)?;
                writer.u64(value);
                value.to_string().into()
            }
            "int128_little" => {
                let value = reader.u128(FIELD)?;
                writer.u128(value);
                value.to_string().into()
            }
            "int160_little" => {
                let value: [u8; 20] = reader.array(FIELD)?;
                writer.bytes(&value);
                U320::from_le_slice(&value).to_string().into()
            }
            "int256_little" => {
                let value: [u8; 32] = reader.array(FIELD)?;
                writer.bytes(&value);
                U320::from_le_slice(&value).to_string().into()
            }
            "possiblynone0_int256" => {
                let value = reader.hash_or_none(FIELD)?;
                writer.hash_or_none(value.as_ref());
                value.map(|hash| U320::from_le_slice(&hash).to_string()).into()
            }
            "fixedstr4" => {
                let value: [u8; 4] = reader.array(FIELD)?;
                writer.bytes(&value);
                format!("hex:{}", hex::encode(value)).into()
            }
            "list_int8" => {
                let count = reader.count(FIELD, 1)?;
                let values = (0..count).map(|_| reader.u8(FIELD)).collect::<Result<Vec<_>, _>>()?;
                writer.varstr(&values);
                values.iter().map(u8::to_string).collect()
            }
            "list_int16" => {
                let count = reader.count(FIELD, 2)?;
                let values = (0..count).map(|_| reader.u16(FIELD)).collect::<Result<Vec<_>, _>>()?;
                writer.count(count);
                values.iter().for_each(|value| writer.u16(*value));
                values.iter().map(u16::to_string).collect()
            }
            "list_varint_mul2" => {
                let count = 2 * reader.count(FIELD, 2)?;
                let values = (0..count).map(|_| reader.varint(FIELD)).collect::<Result<Vec<_>, _>>()?;
                writer.count(count / 2);
                values.iter().for_each(|value| writer.varint(*value));
                values.iter().map(u64::to_string).collect()
            }
            "stale_info" => {
                let value = StaleInfo(reader.u8(FIELD)?);
                writer.u8(value.0);
                value.name().map(|name| format!("hex:{}", hex::encode(name))).into()
            }
            "floatinginteger" => {
                let value = Bits(reader.u32(FIELD)?);
                writer.u32(value.0);
                value_of!({ "bits": value.to_string() })
            }
            _ => return Ok(None),
        }))
    };
    let value = read();
    match value {
        Ok(None) => None,
        Ok(Some(value)) => Some(reader.finish(FIELD).map(|()| (value, writer.into_bytes()))),
        Err(error) => Some(Err(error)),
    }
}

#[test]
fn primitives_read_and_write_as_recorded() {
    let file = json("pack.json");
    let (mut good, mut bad, mut elsewhere) = (0, 0, 0);
    for case in list_of(&file["pack"]) {
        let kind = str_of(&case["type"]);
        if let Some(packed) = case["packed"].as_str() {
            let packed = hex::decode(packed).unwrap();
            match through(kind, &packed) {
                Some(Ok((value, written))) => {
                    assert_eq!(value, case["value"], "{kind}");
                    assert_eq!(hex::encode(written), case["packed"], "{kind}");
                    good += 1;
                }
                Some(Err(error)) => panic!("{case}: {error}"),
                None => elsewhere += 1,
            }
        } else if let Some(input) = case["bad_input"].as_str() {
            // The reference accepts some that are too short; we refuse them all (section 2, "truncation").
            match through(kind, &hex::decode(input).unwrap()) {
                Some(result) => {
                    assert!(result.is_err(), "{case}");
                    bad += 1;
                }
                None => elsewhere += 1,
            }
        } else {
            // Values out of range for our types.
            elsewhere += 1;
        }
    }
    ran("pack.json", "primitives", good);
    ran("pack.json", "primitives refused", bad);
    ran("pack.json", "primitives of other modules, or that no type holds", elsewhere);
}

#[test]
fn a_shares_header_and_hash_link_read_as_recorded() {
    // They replace those of a real share.
    let shares = json("shares_lead0_v35_padding.json");
    let rules = rules_of(&shares["net"]);
    let raw = bytes_of(&shares["shares"][0]["raw"]);
    let contents = share::unpack(&raw, &rules).unwrap();
    let inner = {
        let mut reader = Reader::new(&raw);
        share::read_wrapped(&mut reader).unwrap().1.to_vec()
    };
    let header_bytes = 4 + 1 + 32 + 4 + 4 + 4;
    let file = json("pack.json");
    let (mut headers, mut links) = (0, 0);
    for case in list_of(&file["pack"]) {
        let Some(packed) = case["packed"].as_str().map(|packed| hex::decode(packed).unwrap()) else { continue };
        match str_of(&case["type"]) {
            "small_block_header" => {
                let changed = [&packed[..], &inner[header_bytes..]].concat();
                let result = share::unpack_contents(35, &changed, &rules);
                let value = &case["value"];
                if number_of(&value["version"]).bit_len() > 32 {
                    assert!(result.is_err(), "a header cannot hold {case}");
                } else {
                    let header = result.unwrap().min_header;
                    assert_eq!(header.version.to_string(), value["version"]);
                    let previous = header.previous_block.map(|hash| U320::from_le_slice(&hash).to_string());
                    assert_eq!(Value::from(previous), value["previous_block"]);
                    assert_eq!(header.timestamp.to_string(), value["timestamp"]);
                    assert_eq!(header.bits.to_string(), value["bits"]["bits"]);
                    assert_eq!(header.nonce.to_string(), value["nonce"]);
                }
                headers += 1;
            }
            "block_header" => {
                // The whole header is the small one, with the root in the middle and a fixed version.
                let value = &case["value"];
                let mut small = Writer::default();
                small.varint(u64::from(u32::from_le_bytes(packed[..4].try_into().unwrap())));
                small.bytes(&packed[4..36]);
                small.bytes(&packed[68..]);
                let changed = [small.as_bytes(), &inner[header_bytes..]].concat();
                let header = share::unpack_contents(35, &changed, &rules).unwrap().min_header;
                let root = packed[36..68].try_into().unwrap();
                assert_eq!(header.complete(&root)[..], packed);
                let hash = share::pow_sha256d(&header.complete(&root));
                assert_eq!(display_hex(&hash), case["hash256"]);
                assert_eq!(header.version.to_string(), value["version"]);
                headers += 1;
            }
            "hash_link" => {
                let mut changed = contents.clone();
                changed.hash_link.state = packed[..32].try_into().unwrap();
                changed.hash_link.length = case["value"]["length"].as_str().unwrap().parse().unwrap();
                let bytes = share::pack(&changed);
                assert!(bytes.windows(packed.len()).any(|window| window == packed));
                assert_eq!(share::unpack(&bytes, &rules).unwrap(), changed);
                links += 1;
            }
            _ => {}
        }
    }
    ran("pack.json", "headers", headers);
    ran("pack.json", "hash links", links);
}
