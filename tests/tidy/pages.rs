//! The documentation agrees with the repository: links, tests and messages named in pages exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{existing, read, root, rust_files};

/// Files below `folder` whose names end with `ending`, without build outputs, recordings and hidden folders.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "data" {
            found.extend(files(&path, ending));
        } else if path.is_file() && name.ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// All pages of documentation in the repository.
fn pages() -> Vec<PathBuf> {
    let pages = files(&root(), ".md");
    assert!(pages.len() > 15, "{pages:?}");
    pages
}

/// Removes fenced code and code between backticks from `text`.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    });
    outside.map(|line| line.split('`').step_by(2).collect::<String>()).collect::<Vec<_>>().join("\n")
}

/// Anchors of a page, as made by GitHub from its headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = read(page);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |character: &char| character.is_alphanumeric() || [' ', '-', '_'].contains(character);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = prose(&read(&page));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            // Link to another site or to rustdoc.
            if target.contains("://") || target.contains("::") {
                continue;
            }
            count += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let is_there = file.exists() && (anchor.is_empty() || anchors(&file).contains(anchor));
            if !is_there {
                wrong.push(format!("{}: {target} leads nowhere", page.display()));
            }
        }
    }
    assert!(count > 50, "links are found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tests named in pages as `file::test`.
#[test]
fn every_test_that_a_page_names_exists() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for word in text.split('`').skip(1).step_by(2) {
            let Some((file, test)) = word.split_once(".rs::") else { continue };
            count += 1;
            let path = root().join(file).with_extension("rs");
            if !path.is_file() || !read(&path).contains(&format!("fn {test}(")) {
                wrong.push(format!("{}: there is no test {word}", page.display()));
            }
        }
    }
    assert!(count > 30, "tests are found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Source text of program and pages, with string literals over several lines joined.
fn program_text() -> String {
    let mut sources = rust_files(&existing(&["src", "stratum/src", "sharechain/src", "p2p/src"]));
    sources.extend(files(&root().join("src"), ".js"));
    let text = sources.iter().map(|path| read(path)).collect::<Vec<_>>().join("\n");
    let mut joined = String::with_capacity(text.len());
    let mut is_continued = false;
    for line in text.lines() {
        let line = if is_continued { line.trim_start() } else { line };
        is_continued = line.ends_with('\\') && !line.ends_with("\\\\");
        joined.push_str(if is_continued { &line[..line.len() - 1] } else { line });
        if !is_continued {
            joined.push('\n');
        }
    }
    joined
}

/// Each message is in backticks at the start of a table's row, with `…` for variable parts.
#[test]
fn every_message_that_troubleshooting_explains_is_the_programs() {
    let program = program_text();
    let page = read(&root().join("docs/operators/troubleshooting.md"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut wrong = Vec::new();
    let mut count = 0;
    for message in rows {
        count += 1;
        for part in message.split('…').map(str::trim).filter(|part| part.len() > 3) {
            if !program.contains(part) {
                wrong.push(format!("no message has `{part}` of `{message}`"));
            }
        }
    }
    assert!(count > 20, "messages are found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_a_short_read() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: what explains more belongs into docs/");
}
