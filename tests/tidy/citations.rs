//! Citations in the code resolve: `docs/contributing.md` says how to cite.

use std::collections::BTreeSet;

use crate::{existing, read, root, rust_files};

/// Folders whose comments cite the specifications.
const CODE: [&str; 6] = ["src", "stratum", "sharechain", "p2p", "tests", "benches"];

/// Standards with their own section numbers.
const STANDARDS: [&str; 4] = ["BIP", "FIPS", "NIST", "RFC"];

/// Section of a specification that lists its traps.
const TRAPS: [(&str, &str); 2] = [("protocol", "15"), ("protocol-v36", "10")];

/// Reference to a specification: "section 4.9" (or "§4.9"), or "trap 27".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Citation {
    /// Name of the page below `docs/`, without `.md`.
    page: &'static str,
    /// `section` or `trap`.
    kind: &'static str,
    number: String,
}

/// Strips the punctuation around a word.
fn bare(word: &str) -> &str {
    word.trim_matches(|character: char| !character.is_alphanumeric())
}

/// Returns a number such as 4.9, if `word` is one.
fn number(word: &str) -> Option<String> {
    let word = bare(word);
    let is_number = word.starts_with(|first: char| first.is_ascii_digit())
        && word.chars().all(|character| character.is_ascii_digit() || character == '.');
    is_number.then(|| word.to_owned())
}

/// Returns the page meant by a citation, by the words before it; `None` for a standard's section.
fn page_before(words: &[&str]) -> Option<&'static str> {
    let is_standard = |word: &&str| STANDARDS.contains(&bare(word));
    if words.iter().rev().take(2).any(is_standard) {
        return None;
    }
    match words.last().map(|word| bare(word).to_ascii_lowercase()).as_deref() {
        Some("protocol-v36") => Some("protocol-v36"),
        Some("stratum") => Some("stratum"),
        _ => Some("protocol"),
    }
}

/// Returns all citations in the source `text`. Lines are joined first, as a citation may span two.
fn citations(text: &str) -> Vec<Citation> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']));
    let joined = lines.collect::<Vec<_>>().join(" ").replace('§', "section ");
    let words: Vec<&str> = joined.split_whitespace().collect();
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let kind = match bare(word).to_ascii_lowercase().as_str() {
            "section" | "sections" => "section",
            "trap" | "traps" => "trap",
            _ => continue,
        };
        let Some(page) = page_before(&words[..at]) else { continue };
        let is_list = bare(word).ends_with('s');
        let mut rest = &words[at + 1..];
        while let [first, after @ ..] = rest
            && let Some(number) = number(first)
        {
            found.push(Citation { page, kind, number });
            rest = match after {
                _ if !first.ends_with(|last: char| last.is_ascii_digit() || last == ',') => break,
                [joint, more @ ..] if ["and", "or", "to"].contains(joint) => more,
                more if is_list && first.ends_with(',') => more,
                _ => break,
            };
        }
    }
    found
}

/// Returns all citable sections and traps in the specification `page`.
fn citable(page: &'static str) -> BTreeSet<Citation> {
    let list = TRAPS.iter().find(|(name, _)| *name == page).map(|(_, section)| *section);
    let mut found = BTreeSet::new();
    let mut chapter = None;
    for line in read(&root().join("docs").join(page).with_extension("md")).lines() {
        let heading = line.trim_start_matches('#');
        let first = heading.split_whitespace().next().and_then(number);
        if heading.len() < line.len() {
            if line.starts_with("## ") {
                chapter = first.clone();
            }
            found.extend(first.map(|number| Citation { page, kind: "section", number }));
        } else if list.is_some() && chapter.as_deref() == list && line.contains(". ") {
            found.extend(first.map(|number| Citation { page, kind: "trap", number }));
        }
    }
    found
}

/// Returns all citable sections and traps.
fn all_citable() -> BTreeSet<Citation> {
    ["protocol", "protocol-v36", "stratum"].into_iter().flat_map(citable).collect()
}

#[test]
fn every_citation_resolves() {
    let citable = all_citable();
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in rust_files(&existing(&CODE)) {
        for Citation { page, kind, number } in citations(&read(&path)) {
            count += 1;
            if !citable.contains(&Citation { page, kind, number: number.clone() }) {
                wrong.push(format!("{}: docs/{page}.md has no {kind} {number}", path.display()));
            }
        }
    }
    assert!(count > 150, "citations are found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_citation_that_does_not_resolve_is_noticed() {
    let citable = all_citable();
    // Spelled so that this file does not find itself.
    let (word, snare) = ("sectio\u{6e}", "tra\u{70}");
    let wrong = |text: &str| citations(text).into_iter().filter(|one| !citable.contains(one)).count();
    for good in [
        format!("(protocol {word} 4.9)"),
        format!("/// {word}s 3.1 and 3.2),"),
        format!("/// (protocol {word}\n    /// 5.5)."),
        format!("//! {word} 2, \"truncation\""),
        format!("{word} 4.8) and 99 others, {word} 7, 99 others, {word} 6). 600 s"),
        format!("(protocol-v36 {word} 6.3, stratum {word} 2.3, {snare}s 1 to 53, protocol-v36 {snare} 13)"),
    ] {
        assert!(!citations(&good).is_empty() && wrong(&good) == 0, "{good}");
    }
    for bad in [
        format!("(protocol {word} 4.99)"),
        format!("/// {word}s 3.1 and 99),"),
        format!("/// {word}s 3.1, 99 and 4.8),"),
        format!("/// (protocol {word}\n    /// 5.55)."),
        format!("(stratum {word} 4.9)"),
        format!("{snare} 54"),
        format!("{snare} 0"),
        format!("protocol-v36 {word} 18.1"),
    ] {
        assert_eq!(wrong(&bad), 1, "{bad}");
    }
    for foreign in [format!("(RFC 2812 {word} 1.2.1)"), format!("FIPS 180-4, {word} 5.3.3"), format!("a {snare} for")] {
        assert!(citations(&foreign).is_empty(), "{foreign}");
    }
}
