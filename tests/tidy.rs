//! Checks the repository itself: imports follow the table in `src/lib.rs`, documentation and code agree, every file
//! states its purpose, and nothing is left unfinished.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/citations.rs"]
mod citations;
#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/options.rs"]
mod options;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/size.rs"]
mod size;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    collect(&path, files);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 10, "there are files to read");
    files
}

/// Existing ones among `folders`.
fn existing<'a>(folders: &[&'a str]) -> Vec<&'a str> {
    folders.iter().copied().filter(|folder| root().join(folder).is_dir()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names between backticks in `text`.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Imports allowed by a row of the table: rooms, each with the paths that its note limits it to, if it has one.
type Allowed = BTreeMap<String, BTreeSet<String>>;

/// Import table of `src/lib.rs`: room → rooms that it may import; `None` for a row that allows everything above.
fn import_table() -> BTreeMap<String, Option<Allowed>> {
    let text = read(&root().join("src/lib.rs"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut table = BTreeMap::new();
    for row in rows.skip(2) {
        let [room, _duty, allowed] = row.trim_end_matches('|').split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row} has a room, a duty and imports");
        };
        let is_open = allowed.contains("everything above");
        let room = quoted(room).pop_first().unwrap();
        table.insert(room, (!is_open).then(|| allowed_of(allowed)));
    }
    assert!(table.len() > 10, "the table is found: {table:?}");
    table
}

/// Parses "`a`, `b` (only `c`, `d`)".
fn allowed_of(text: &str) -> Allowed {
    let mut allowed = Allowed::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once('`') {
        let (room, after) = from.split_once('`').unwrap();
        let (note, after) = match after.strip_prefix(" (only ").and_then(|note| note.split_once(')')) {
            Some((note, after)) => (quoted(note), after),
            None => (BTreeSet::new(), after),
        };
        allowed.insert(room.to_owned(), note);
        rest = after;
    }
    allowed
}

/// Module of the root crate that a file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Code without comments and without `mod tests`.
fn code_of(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests").or_else(|| text.find("#[cfg(test)]\npub(crate) mod tests"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Paths of the crate named in `code`, without `crate::`: those of `use` one by one, and those in expressions.
fn paths_of(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let is_use = code[..at].ends_with("use ");
        let end = if is_use {
            rest.find(';')
        } else {
            rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
        };
        expand("", &rest[..end.unwrap_or(rest.len())], &mut paths);
    }
    paths
}

/// Adds the paths of a use tree such as `a::{b, c::{d, e}}`, each with `prefix`.
fn expand(prefix: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let tree = tree.trim();
    let Some((before, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        if !path.is_empty() {
            paths.insert(format!("{prefix}{path}"));
        }
        return;
    };
    let (inner, _) = inner.rsplit_once('}').unwrap();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{before}"), &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&format!("{prefix}{before}"), &inner[start..], paths);
}

#[test]
fn use_trees_are_taken_apart() {
    let mut paths = BTreeSet::new();
    expand("", "a::{b, c::{d, e as f}, self}", &mut paths);
    assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["a::b", "a::c::d", "a::c::e", "a::self"]);
    let found = paths_of("use crate::{x::Y, z};\nfn f() { crate::w::g(1) }");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["w::g", "x::Y", "z"]);
}

#[test]
fn imports_obey_the_table() {
    let table = import_table();
    let mut wrong = Vec::new();
    for path in rust_files(&["src"]) {
        let room = module_of(&path);
        let is_tests = path.file_name().is_some_and(|name| name == "tests.rs");
        if room == "lib" || room == "main" || is_tests {
            continue;
        }
        let Some(allowed) = table.get(&room) else {
            wrong.push(format!("{room} is not in the table of src/lib.rs"));
            continue;
        };
        let Some(allowed) = allowed else { continue };
        for import in paths_of(&code_of(&read(&path))) {
            let (other, inside) = import.split_once("::").unwrap_or((&import, ""));
            if other == room {
                continue;
            }
            let is_allowed = allowed.get(other).is_some_and(|note| {
                note.is_empty() || note.iter().any(|only| inside == only || inside.starts_with(&format!("{only}::")))
            });
            if !is_allowed {
                wrong.push(format!("{}: {room} imports {import}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_table_has_no_cycle() {
    let mut left = import_table();
    left.retain(|_, allowed| allowed.is_some());
    while !left.is_empty() {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, allowed)| allowed.iter().flatten().all(|(import, _)| !left.contains_key(import)))
            .map(|(module, _)| module.clone())
            .collect();
        assert!(!free.is_empty(), "these import each other: {left:?}");
        for module in free {
            left.remove(&module);
        }
    }
}

#[test]
fn stratum_knows_nothing_of_the_node_and_only_its_server_knows_tokio() {
    for path in rust_files(&["stratum/src"]) {
        let code = code_of(&read(&path));
        for word in ["p2pool::", "bitcoin::", "bitcoincore_rpc"] {
            assert!(!code.contains(word), "{} says {word}", path.display());
        }
        let is_server = path.components().any(|component| component.as_os_str() == "server");
        assert!(is_server || !code.contains("tokio"), "{} says tokio", path.display());
    }
}

#[test]
fn what_operators_build_has_no_parts_of_the_models() {
    // They build with all features, that of the models among them.
    for path in rust_files(&["stratum/src"]) {
        for line in read(&path).lines().filter(|line| line.contains("feature = \"loom\"")) {
            assert!(line.contains("all(test, "), "{} is not limited to tests: {line}", path.display());
        }
    }
    let manifest = read(&root().join("stratum/Cargo.toml"));
    assert!(manifest.lines().any(|line| line == "loom = []"), "the feature brings no crate into the program");
}

#[test]
fn every_file_says_why_it_exists() {
    for path in rust_files(&["src", "p2p", "sharechain", "stratum", "tests"]) {
        assert!(read(&path).starts_with("//! "), "{} has no header comment", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelled so that this file does not find itself.
    let marks = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "unimplemented\u{21}", "todo\u{21}"];
    for path in rust_files(&["src", "p2p", "sharechain", "stratum", "tests"]) {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} says {mark}", path.display());
        }
    }
}

#[test]
fn tests_are_left_out_only_where_the_full_run_has_them() {
    // Spelled so that this file does not find itself.
    let (ignored, long) = ("#[ignor\u{65}", "#[ignor\u{65} = \"long: tests/run.sh --full\"]");
    let mut count = 0;
    for path in rust_files(&["src", "p2p", "sharechain", "stratum", "tests"]) {
        for line in read(&path).lines().filter(|line| line.contains(ignored)) {
            assert_eq!(line.trim(), long, "{}: the only reason to leave a test out", path.display());
            count += 1;
        }
    }
    assert!(count > 0, "the full run has tests of its own");
    let script = read(&root().join("tests/run.sh"));
    assert!(script.contains("--run-ignored all") && script.contains("--include-ignored"), "run.sh runs them");
}

/// Names of metrics described in the code.
fn described_metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in rust_files(&["src", "stratum/src"]) {
        let code = code_of(&read(&path));
        for kind in ["describe_counter!(", "describe_gauge!(", "describe_histogram!("] {
            let described =
                code.split(kind).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            names.extend(described.map(str::to_owned));
        }
    }
    assert!(names.len() > 30, "metrics are found");
    names
}

/// Names of metrics recorded in the code, where the name is in the macro.
fn counted_metrics() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in rust_files(&["src", "stratum/src"]) {
        let code = code_of(&read(&path));
        for kind in ["counter!(", "gauge!(", "histogram!("] {
            for (at, _) in code.match_indices(kind) {
                let is_described = code[..at].ends_with("describe_");
                let name =
                    code[at + kind.len()..].trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
                names.extend(name.filter(|_| !is_described).map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn every_metric_is_explained_and_on_a_board_or_in_an_alert_and_the_reverse() {
    let described = described_metrics();
    let counted = counted_metrics();
    let unexplained: Vec<&String> = counted.difference(&described).collect();
    assert!(unexplained.is_empty(), "nothing describes {unexplained:?}");

    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("grafana/boards")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(root().join("grafana/alerts.yml"));
    assert!(files.len() > 3, "{files:?}");
    let parts: BTreeSet<&str> =
        described.iter().filter_map(|name| name.split_once('_')).map(|(part, _)| part).collect();
    let mut shown = BTreeSet::new();
    for path in files {
        let text = read(&path);
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let names = words.filter(|word| word.split_once('_').is_some_and(|(part, _)| parts.contains(part)));
        shown.extend(names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()));
    }
    let unknown: Vec<&String> = shown.difference(&described).collect();
    assert!(unknown.is_empty(), "boards or alerts have what there is not: {unknown:?}");
    let unseen: Vec<&String> = described.difference(&shown).collect();
    assert!(unseen.is_empty(), "on no board and in no alert of grafana/: {unseen:?}");
}
