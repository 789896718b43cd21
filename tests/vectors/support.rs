//! Reads the vectors, and compares the number of cases of every test with the manifest.

use bytes::Bytes;
use flate2::read::GzDecoder;
use ruint::aliases::U320;
use serde_json::Value;
use sharechain::merkle::Digest;
use sharechain::share::{ShareRules, Target, pow_sha256d};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "vectors"].iter().collect()
}

/// Text of a vector file, which is stored compressed.
pub(crate) fn text(file: &str) -> String {
    let compressed = std::fs::File::open(folder().join("data").join(format!("{file}.gz"))).expect(file);
    let mut text = String::new();
    GzDecoder::new(compressed).read_to_string(&mut text).expect(file);
    text
}

pub(crate) fn json(file: &str) -> Value {
    serde_json::from_str(&text(file)).expect(file)
}

fn manifest() -> BTreeMap<String, BTreeMap<String, usize>> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Reports that `count` cases of a part of a file were run, and compares it with the manifest.
pub(crate) fn ran(file: &str, part: &str, count: usize) {
    let listed = manifest().get(file).and_then(|parts| parts.get(part)).copied();
    assert_eq!(Some(count), listed, "cases run of {file}, {part}, against the manifest");
}

#[test]
fn the_manifest_lists_every_file() {
    let files: BTreeSet<String> = std::fs::read_dir(folder().join("data"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().strip_suffix(".gz").map(str::to_owned))
        .collect();
    assert_eq!(files, manifest().into_keys().collect());
}

pub(crate) fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} should be a text"))
}

pub(crate) fn list_of(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} should be a list"))
}

pub(crate) fn bytes_of(value: &Value) -> Vec<u8> {
    hex::decode(str_of(value)).unwrap()
}

/// Parses a number, or one as decimal text (in which Python may leave an `L` at the end).
pub(crate) fn number_of(value: &Value) -> U320 {
    match value.as_str() {
        Some(text) => text.trim_end_matches('L').parse().unwrap(),
        None => U320::from(value.as_u64().unwrap()),
    }
}

/// Parses a raw digest in the form of the vectors: as an integer, most significant digit first.
pub(crate) fn digest_of(value: &Value) -> Digest {
    let mut bytes = bytes_of(value);
    bytes.reverse();
    bytes.try_into().unwrap()
}

pub(crate) fn digests_of(value: &Value) -> Vec<Digest> {
    list_of(value).iter().map(digest_of).collect()
}

/// Frame of a recorded stream between two nodes.
#[derive(Debug, Clone)]
pub(crate) struct RecordedFrame {
    /// Time in seconds since 1970.
    pub time: f64,
    /// Set if the node that made the connection sent it.
    pub is_client: bool,
    pub command: String,
    pub payload: Bytes,
    pub checksum: String,
}

/// All frames of a stream, in the order in which they passed the recorder.
pub(crate) fn frames_of(file: &str) -> Vec<RecordedFrame> {
    let text = text(file);
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line.get("command").is_some())
        .map(|line| {
            assert_eq!(line["checksum_ok"], true);
            RecordedFrame {
                time: line["t"].as_f64().unwrap(),
                is_client: line["direction"] == "c2s",
                command: str_of(&line["command"]).into(),
                payload: bytes_of(&line["payload_hex"]).into(),
                checksum: str_of(&line["checksum"]).into(),
            }
        })
        .collect()
}

/// Share rules given by the `net` of a recorded chain.
pub(crate) fn rules_of(net: &Value) -> ShareRules {
    let byte = |key: &str| u8::try_from(net[key].as_u64().unwrap()).unwrap();
    ShareRules {
        identifier: bytes_of(&net["IDENTIFIER"]).try_into().unwrap(),
        max_target: Target::from_be_bytes(&bytes_of(&net["MAX_TARGET"]).try_into().unwrap()),
        newest_version: 36,
        segwit_activation_version: net["SEGWIT_ACTIVATION_VERSION"].as_u64().unwrap(),
        address_version: byte("ADDRESS_VERSION"),
        address_p2sh_version: byte("ADDRESS_P2SH_VERSION"),
        human_readable_part: str_of(&net["HUMAN_READABLE_PART"]).into(),
        pow: pow_sha256d,
        no_votes_for_16_above: None,
    }
}

/// Rules of a public network, as far as addresses are concerned.
pub(crate) fn address_rules(address_version: u8, address_p2sh_version: u8, human_readable_part: &str) -> ShareRules {
    ShareRules {
        identifier: [0; 8],
        max_target: Target::MAX_256,
        newest_version: 36,
        segwit_activation_version: 17,
        address_version,
        address_p2sh_version,
        human_readable_part: human_readable_part.into(),
        pow: pow_sha256d,
        no_votes_for_16_above: None,
    }
}
