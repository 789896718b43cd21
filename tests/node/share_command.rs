//! `p2pool share`: decodes a share, and replays a recorded chain with every check.

use serde_json::Value;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

use crate::P2POOL;
use crate::restart::recording;

const RUN17: &str = "shares_run17_v17_to_v35_segwit.json";
const LEAD0: &str = "shares_lead0_v35_padding.json";

/// Recorded chain, and a folder with its network file and shares.
struct Recorded {
    shares: Vec<Value>,
    best: Value,
    folder: TempDir,
}

impl Recorded {
    fn new(name: &str) -> Self {
        let mut file: Value = serde_json::from_str(&recording(name)).expect("JSON");
        let Value::Array(shares) = file["shares"].take() else { panic!("{name} lists no shares") };
        let constants = file["net"].as_object().expect("constants by name");
        let mut toml = format!("BASE = \"bitcoin_signet\"\nSTART_VERSION = {}\n", shares[0]["version"]);
        for (key, value) in constants {
            toml.push_str(&format!("{key} = {value}\n"));
        }
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let lines: Vec<String> =
            shares.iter().map(|share| format!("{} {}\n", text(&share["raw"]), share["time_seen"])).collect();
        std::fs::write(folder.path().join("net.toml"), toml).expect("the temporary folder can be written");
        std::fs::write(folder.path().join("shares.txt"), lines.concat()).expect("the temporary folder can be written");
        Self { shares, best: file["best"].take(), folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("the folder's path is text").to_owned()
    }

    /// Checks that the output of a replay equals the recording.
    fn check(&self, output: &Output) {
        let lines: Vec<Value> = said(output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), self.shares.len() + 1);
        for (line, share) in lines.iter().zip(&self.shares) {
            assert_eq!(line["verdict"], "ok", "{line}");
            for (key, recorded) in [
                ("hash", &share["hash"]),
                ("version", &share["version"]),
                ("height", &share["tracker_height"]),
                ("previous", &share["fields"]["share_info"]["share_data"]["previous_share_hash"]),
                ("absheight", &share["absheight"]),
                ("abswork", &share["abswork"]),
                ("pow_hash", &share["pow_hash"]),
                ("gentx_hash", &share["gentx_hash"]),
                ("ref_hash", &share["ref_hash"]),
                ("max_target", &share["max_target"]),
                ("target", &share["target"]),
                ("payouts", &share["payouts"]),
            ] {
                assert_eq!(line[key], *recorded, "{key} of {}", share["hash"]);
            }
        }
        let end = &lines[self.shares.len()];
        assert_eq!(end["best"], self.best);
        assert_eq!(end["height"], self.shares.len());
        assert_eq!((&end["verified"], &end["unverified"]), (&self.shares.len().into(), &0.into()));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} should be a text"))
}

fn p2pool(args: &[&str]) -> Output {
    Command::new(P2POOL).args(args).stdin(Stdio::null()).output().expect("the product can be run")
}

/// Standard output of a successful command.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("it says UTF-8")
}

/// Standard error of a failed command.
fn complained(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).expect("it says UTF-8")
}

#[test]
fn a_recorded_chain_is_replayed_with_every_field_as_recorded() {
    for name in [RUN17, LEAD0] {
        let recorded = Recorded::new(name);
        let output = p2pool(&["share", "replay", "--net", &recorded.path("net.toml"), &recorded.path("shares.txt")]);
        recorded.check(&output);
    }
}

#[test]
fn shares_may_come_from_standard_input() {
    let recorded = Recorded::new(LEAD0);
    let mut child = Command::new(P2POOL)
        .args(["share", "replay", "--net", &recorded.path("net.toml"), "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the product can be run");
    let lines = std::fs::read(recorded.path("shares.txt")).expect("it was just written");
    let mut stdin = child.stdin.take().expect("piped");
    let writing = std::thread::spawn(move || stdin.write_all(&lines));
    let output = child.wait_with_output().expect("our own child can be waited for");
    writing.join().expect("writing does not panic").expect("it reads all of its input");
    recorded.check(&output);
}

#[test]
fn a_share_whose_parent_never_comes_is_unverified_and_a_spoiled_line_is_told() {
    let recorded = Recorded::new(LEAD0);
    let raw = |index: usize| text(&recorded.shares[index]["raw"]);
    let file = recorded.path("some.txt");
    let lines = [raw(0), "no hex", raw(2), &raw(1)[..100], raw(0)].join("\n");
    std::fs::write(&file, lines).expect("the temporary folder can be written");
    let output = p2pool(&["share", "replay", "--net", &recorded.path("net.toml"), &file]);
    let lines: Vec<Value> = said(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let verdicts: Vec<&str> = lines[..5].iter().map(|line| text(&line["verdict"])).collect();
    assert_eq!((verdicts[0], verdicts[2], verdicts[4]), ("ok", "unverified", "duplicate"));
    assert!(verdicts[1].contains("hex"), "{verdicts:?}");
    assert!(!["ok", "unverified", "duplicate"].contains(&verdicts[3]), "{verdicts:?}");
    assert_eq!(
        (&lines[5]["height"], &lines[5]["verified"], &lines[5]["unverified"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!(lines[5]["best"], recorded.shares[0]["hash"]);
}

#[test]
fn a_share_is_shown_decoded_from_hex_and_from_a_file() {
    let recorded = Recorded::new(RUN17);
    for index in [0, 60, 150, 271] {
        let share = &recorded.shares[index];
        let raw = text(&share["raw"]);
        let shown = said(&p2pool(&["share", "inspect", "--net", &recorded.path("net.toml"), raw]));
        let file = recorded.path("one.txt");
        std::fs::write(&file, format!("{raw}\n")).expect("the temporary folder can be written");
        assert_eq!(said(&p2pool(&["share", "inspect", "--net", &recorded.path("net.toml"), &file])), shown);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(shown["verdict"], "ok");
        for key in [
            "hash",
            "version",
            "pow_hash",
            "gentx_hash",
            "ref_hash",
            "header_hex",
            "merkle_root",
            "max_target",
            "target",
            "block_target",
            "absheight",
            "abswork",
            "address",
            "new_script",
            "attempts",
            "min_attempts",
        ] {
            assert_eq!(shown[key], share[key], "{key} of share {index}");
        }
        check_contained(&share["fields"], &shown["fields"], &format!("share {index}"));
    }
}

/// Checks that `shown` contains everything of `recorded`, at the same place.
fn check_contained(recorded: &Value, shown: &Value, at: &str) {
    match recorded {
        Value::Object(fields) => {
            for (key, value) in fields {
                check_contained(value, &shown[key], &format!("{at}.{key}"));
            }
        }
        value => assert_eq!(value, shown, "{at}"),
    }
}

#[test]
fn what_is_no_hex_and_no_file_is_named() {
    let complaint = complained(&p2pool(&["share", "inspect", "--net", "bitcoin", "0123456789abcdefg"]));
    assert!(complaint.contains("0123456789abcdefg") && complaint.contains("hex"), "{complaint}");
    let complaint = complained(&p2pool(&["share", "inspect", "--net", "bitcoin", "2305010203"]));
    assert!(!complaint.is_empty() && !complaint.contains("panicked"), "{complaint}");
    let complaint = complained(&p2pool(&["share", "replay", "--net", "bitcoin", "/no/such/file"]));
    assert!(complaint.contains("/no/such/file"), "{complaint}");
}

#[test]
fn every_mistake_of_a_network_file_is_named() {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let file = folder.path().join("bad.toml");
    let bad = "BASE = \"bitcoin_signet\"\nSHARE_PERIOD = \"often\"\nIDENTIFIER = \"12\"\nCOLOUR = \"red\"\n";
    std::fs::write(&file, bad).expect("the temporary folder can be written");
    let file = file.to_str().expect("the folder's path is text");
    for args in [&["share", "replay", "--net", file, "-"][..], &["--net", file, "-a", "x"][..]] {
        let complaint = complained(&p2pool(args));
        for field in ["SHARE_PERIOD", "IDENTIFIER", "COLOUR"] {
            assert!(complaint.contains(field), "{field} is not named in:\n{complaint}");
        }
    }
}
