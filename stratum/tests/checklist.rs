//! The table in `CHECKLIST.md` has all lines, and the tests that it names exist.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::path::Path;

#[test]
fn every_line_is_answered_by_tests_that_exist_or_by_a_reason() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = include_str!("../CHECKLIST.md");
    let mut number = 0;
    let mut named = 0;
    for row in text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")) {
        let [given, wanted, here, shown] = row.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        let Ok(given) = given.parse::<u32>() else { continue };
        number += 1;
        assert_eq!(given, number, "lines are in order");
        assert!(!wanted.is_empty() && !here.is_empty(), "line {number} is answered");
        let tests: Vec<_> = shown.split('`').filter_map(|name| name.split_once(".rs::")).collect();
        for (file, test) in &tests {
            let path = workspace.join(format!("{file}.rs"));
            let code = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(code.contains(&format!("fn {test}(")), "line {number}: no test `{test}` in {file}.rs");
        }
        named += tests.len();
        let has_reason = ["Not done: ", "Outside this crate"].iter().any(|start| here.starts_with(start));
        let is_measured = shown.starts_with("Measured") || here.starts_with("At the log level");
        assert!(!tests.is_empty() || has_reason || is_measured, "line {number} names no test and gives no reason");
    }
    assert_eq!(number, 62);
    assert!(named > 60, "{named} tests are named");
}
