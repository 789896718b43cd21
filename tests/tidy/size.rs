//! Files and functions stay short enough to be read in one go. Longer ones are listed; the list may only shrink.

use std::collections::BTreeMap;

use crate::{read, root, rust_files};

/// Maximum length of a file, in lines, including its tests.
const FILE_LINES_MAX: usize = 500;

/// Maximum length of a function, in lines from its name to its closing brace.
const FUNCTION_LINES_MAX: usize = 80;

/// Longer files, with their maximum lengths: split one when you work on it, and remove it from the list.
const LONG_FILES: &[(&str, usize)] = &[];

/// Longer functions, as `file::function`, with their maximum lengths.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Folders of the program and its libraries.
const SOURCES: [&str; 4] = ["p2p/src", "sharechain/src", "src", "stratum/src"];

/// Compares files or functions that are too long with the list of exceptions.
fn check(kind: &str, max: usize, found: &BTreeMap<String, usize>, listed: &[(&str, usize)]) {
    let listed: BTreeMap<&str, usize> = listed.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, lines) in found.iter().filter(|(_, lines)| **lines > max) {
        match listed.get(name.as_str()) {
            None => wrong.push(format!("{name} has {lines} lines, more than {max}")),
            Some(most) if lines > most => wrong.push(format!("{name} grew from {most} lines to {lines}: split it")),
            Some(_) => {}
        }
    }
    for name in listed.keys().filter(|name| found.get(**name).is_none_or(|lines| *lines <= max)) {
        wrong.push(format!("{name} is short now: take it off the list of long {kind}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lengths of the functions in `text`, by name. As formatted by rustfmt, a function ends at the first closing brace
/// that is indented like its start.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let Some((before, after)) = trimmed.split_once("fn ") else { continue };
        let is_function = before.split_whitespace().all(|word| {
            ["async", "const", "unsafe", "extern", "pub"].contains(&word)
                || word.starts_with("pub(")
                || word.ends_with(')')
        });
        let name: String = after.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
        // A function on one line is short.
        let is_short = line.ends_with('}') || line.ends_with(';');
        if !is_function || name.is_empty() || is_short || trimmed.starts_with("//") {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[at..].iter().position(|line| *line == closing) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn no_file_grows_beyond_what_is_read_in_one_go() {
    let mut found = BTreeMap::new();
    for path in rust_files(&SOURCES) {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        found.insert(name, read(&path).lines().count());
    }
    check("files", FILE_LINES_MAX, &found, LONG_FILES);
}

#[test]
fn no_function_grows_beyond_a_screen() {
    let mut found = BTreeMap::new();
    for path in rust_files(&SOURCES) {
        let file = path.strip_prefix(root()).unwrap().display().to_string();
        for (name, lines) in functions(&read(&path)) {
            let longest = found.entry(format!("{file}::{name}")).or_default();
            *longest = lines.max(*longest);
        }
    }
    assert!(found.len() > 1000, "functions are found: {}", found.len());
    check("functions", FUNCTION_LINES_MAX, &found, LONG_FUNCTIONS);
}

#[test]
fn a_function_is_as_long_as_it_looks() {
    let text = "impl A {\n    pub(super) async fn one(\n        &self,\n    ) -> u8 {\n        fn two() {}\n        if true {\n        }\n    }\n}\n";
    assert_eq!(functions(text), [("one".to_owned(), 7)]);
}
