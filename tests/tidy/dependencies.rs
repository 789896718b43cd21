//! The program's dependencies are those allowed by `.deny.toml`, as `cargo deny` would check.

use spdx::{Expression, ParseMode};
use std::collections::BTreeSet;
use std::process::Command;

use crate::{read, root};

/// Strings at `section.name` in `.deny.toml`, or those under `key` of each table there.
fn list(config: &toml::Table, section: &str, name: &str, key: Option<&str>) -> BTreeSet<String> {
    let entries = config[section][name].as_array().unwrap();
    let text = |entry: &toml::Value| key.map_or(entry, |key| &entry[key]).as_str().unwrap().to_owned();
    let found: BTreeSet<String> = entries.iter().map(text).collect();
    assert!(!found.is_empty(), "{section}.{name} is empty");
    found
}

/// Crate built into the program, on any platform, as listed by `cargo tree`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    /// Source, if not crates.io: a path, or the address of a repository or registry.
    source: Option<String>,
    licence: String,
}

fn crates() -> BTreeSet<Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = [
        "tree",
        "--locked",
        "--package=p2pool",
        "--all-features",
        "--target=all",
        "--edges=normal,build",
        "--prefix=none",
        "--no-dedupe",
        "--format={p}|{l}",
    ];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let read = |line: &str| {
        let (package, licence) = line.split_once('|').unwrap();
        let notes = package.split('(').skip(1).filter_map(|rest| rest.split(')').next());
        Crate {
            name: package.split(' ').next().unwrap().to_owned(),
            source: notes.into_iter().find(|note| *note != "proc-macro").map(str::to_owned),
            licence: licence.to_owned(),
        }
    };
    text.lines().map(read).collect()
}

#[test]
fn every_crate_of_the_program_has_a_licence_and_a_source_that_are_allowed() {
    let config: toml::Table = read(&root().join(".deny.toml")).parse().unwrap();
    let allowed = list(&config, "licenses", "allow", None);
    let denied = list(&config, "bans", "deny", Some("crate"));
    let exceptions = config["licenses"]["exceptions"].as_array().unwrap();
    let is_excepted = |name: &str, licence: &str| {
        exceptions.iter().any(|exception| {
            exception["crate"].as_str() == Some(name)
                && exception["allow"].as_array().unwrap().iter().any(|one| one.as_str() == Some(licence))
        })
    };

    let crates = crates();
    assert!(crates.len() > 200, "crates are found: {}", crates.len());
    let mut wrong = Vec::new();
    for Crate { name, source, licence } in &crates {
        if denied.contains(name) {
            wrong.push(format!("{name} is banned"));
        }
        let is_allowed = Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|wanted| {
                let id = wanted.license.to_string();
                allowed.contains(&id) || is_excepted(name, &id)
            })
        });
        if !is_allowed {
            wrong.push(format!("{name} has licence {licence:?}"));
        }
        // The workspace's own crates are paths.
        let is_ours = |source: &String| root().join(source).starts_with(root());
        if let Some(source) = source.as_ref().filter(|source| !is_ours(source)) {
            wrong.push(format!("{name} comes from {source}, and not from crates.io"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
