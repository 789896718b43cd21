//! Modules of a folder import each other in one direction: two that need each other are one file, or share a third.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::{code_of, expand, read, root};

/// Remaining circles, by folder; the list may only shrink.
const KNOWN: &[(&str, &[&str])] = &[];

/// Paths that begin with `crate::` or `super::` in `code`.
fn relative_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            // Already matched: `super::super::`, or part of a longer word.
            if code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let rest = &code[at..];
            let is_use = code[..at].ends_with("use ");
            let end = if is_use {
                rest.find(';')
            } else {
                rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_' && letter != ':')
            };
            expand("", &rest[..end.unwrap_or(rest.len())], &mut paths);
        }
    }
    paths
}

/// Sources of the module `name` in `folder`: its file, and the files in its folder.
fn sources(folder: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = vec![folder.join(name).with_extension("rs")];
    let mut folders = vec![folder.join(name)];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.retain(|path| path.is_file() && path.file_name().is_some_and(|name| name != "tests.rs"));
    found
}

/// Modules of `folder`, each with the others that it imports.
fn imports_among(library: &Path, folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        if is_module && !["lib", "main", "mod", "tests"].contains(&name.as_str()) {
            names.insert(name);
        }
    }
    let inside = folder.strip_prefix(library).unwrap();
    let absolute: String = std::iter::once("crate::".to_owned())
        .chain(inside.iter().map(|part| format!("{}::", part.to_string_lossy())))
        .collect();
    let of_module = |name: &String| {
        let mut imported = BTreeSet::new();
        for path in sources(folder, name) {
            let depth = path.strip_prefix(folder).unwrap().iter().count();
            let ups = if path.file_name().is_some_and(|name| name == "mod.rs") { depth - 1 } else { depth };
            let relative = "super::".repeat(ups);
            for import in relative_paths(&code_of(&read(&path))) {
                let inside = import.strip_prefix(&absolute).or_else(|| import.strip_prefix(&relative));
                let other = inside.and_then(|inside| inside.split("::").next());
                imported.extend(other.filter(|other| names.contains(*other) && other != name).map(str::to_owned));
            }
        }
        (name.clone(), imported)
    };
    names.iter().map(of_module).collect()
}

/// All modules reachable from `start`.
fn reachable<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut left: Vec<&str> = imports[start].iter().map(String::as_str).collect();
    while let Some(name) = left.pop() {
        if found.insert(name) {
            left.extend(imports[name].iter().map(String::as_str));
        }
    }
    found
}

fn circles(library: &Path, folder: &Path, found: &mut BTreeSet<(String, Vec<String>)>) {
    let imports = imports_among(library, folder);
    for name in imports.keys() {
        let others = reachable(&imports, name);
        if others.contains(name.as_str()) {
            let circle = others.into_iter().filter(|other| reachable(&imports, other).contains(name.as_str()));
            let shown = folder.strip_prefix(root()).unwrap().display().to_string();
            found.insert((shown, circle.map(str::to_owned).collect()));
        }
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            circles(library, &path, found);
        }
    }
}

#[test]
fn files_beside_each_other_import_in_one_direction() {
    let mut found = BTreeSet::new();
    for library in ["p2p/src", "sharechain/src", "src", "stratum/src"] {
        circles(&root().join(library), &root().join(library), &mut found);
    }
    let known: BTreeSet<(String, Vec<String>)> = KNOWN
        .iter()
        .map(|(folder, names)| ((*folder).to_owned(), names.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "these import each other: {new:?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "no circles any more, take them off the list: {gone:?}");
}

#[test]
fn a_circle_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("one.rs", "use super::two::A;");
    write("two.rs", "fn f() { crate::three::g() }");
    write("three.rs", "use super::{x, one::B};");
    write("four.rs", "use super::one::C;");
    let imports = imports_among(folder.path(), folder.path());
    assert_eq!(reachable(&imports, "four"), BTreeSet::from(["one", "two", "three"]));
    assert!(reachable(&imports, "one").contains("one"));
}
