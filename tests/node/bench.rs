//! Small run of `p2pool bench stratum`: everything is measured, and no submission, job or connection is lost.

use serde_json::Value;
use std::process::Command;

use crate::P2POOL;

#[test]
fn every_measure_is_taken_and_no_submission_rejected() {
    let output = Command::new(P2POOL)
        .args(["bench", "stratum", "--json", "--submitters", "60", "--connections", "20", "--listeners", "20"])
        .args(["--addresses", "5", "--rate", "100", "--joining", "200", "--seconds", "0.5", "--rounds", "1"])
        // More hostile clients than may connect in a second: they are of another network than the miners.
        .args(["--hold", "2", "--held", "20", "--churn", "2", "--hostile", "100", "--payees", "10"])
        .args(["--transactions", "20"])
        .output()
        .expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(table["wrongs"], serde_json::json!([]));
    let rows = table["rows"].as_array().expect("rows");
    for part in [
        "submissions, one at a time",
        "server's CPU for each, one at a time",
        "submissions, one at a time, new extranonce2",
        "server's CPU for each, one at a time, new extranonce2",
        "submissions, 16 in flight",
        "server's CPU for each, 16 in flight",
        "submissions, 16 in flight, new extranonce2",
        "server's CPU for each, 16 in flight, new extranonce2",
        "one at a time, beside 100 hostile",
        "16 in flight, beside 100 hostile",
        "one at a time, beside 100 of slow lines",
        "one at a time, beside 100 of silent connections",
        "one at a time, beside 100 of noise",
        "one at a time, beside 100 of useless requests",
        "one at a time, beside 100 of slow bodies",
        "one at a time, beside 100 of slow readers",
        "one at a time, beside 100 of getwork difficulties",
        "submissions for a solution",
        "bytes for 20",
        "new connections",
        "memory of one",
        "jobs without news",
        "answers at 100/s, 99 % within",
        "lost of 20",
        "memory grown",
    ] {
        let row = rows.iter().find(|row| row["measure"].as_str().is_some_and(|measure| measure.contains(part)));
        let row = row.unwrap_or_else(|| panic!("no `{part}` in {table:#}"));
        assert!(row["node"].is_number(), "{row}");
    }
}

#[test]
fn a_measure_that_nobody_knows_is_refused_with_those_there_are() {
    let output = Command::new(P2POOL).args(["bench", "stratum", "--only", "speed"]).output().expect("the program runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("`speed` is not one of single, pipelined"), "{errors}");
}

#[test]
fn scrypt_submissions_are_measured_beside_the_bare_hash_and_none_is_rejected() {
    let output = Command::new(P2POOL)
        .args(["bench", "stratum", "--json", "--scrypt", "--submitters", "20", "--addresses", "5"])
        .args(["--seconds", "0.5", "--rounds", "1", "--payees", "10", "--transactions", "20"])
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let table: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(table["wrongs"], serde_json::json!([]));
    let rows = table["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 7, "{table:#}");
    let figures = |name: &str| {
        let row = rows.iter().find(|row| row["measure"].as_str().is_some_and(|measure| measure.contains(name)));
        let row = row.unwrap_or_else(|| panic!("no `{name}` in {table:#}"));
        [&row["node"], &row["bare"]].map(|figure| figure.as_f64().unwrap_or_default())
    };
    assert!(figures("scrypt submissions, of one thread").iter().all(|rate| *rate > 0.0), "{table:#}");
    // Each takes a hash: the server cannot be cheaper than half of the bare one, whatever the machine does meanwhile.
    let [served, bare] = figures("server's CPU for each, scrypt");
    assert!(served > bare / 2.0, "{table:#}");
    let [within, _] = figures("99 % within");
    assert!(within > 0.0, "{table:#}");
}
