//! `docs/operators/options.md` is generated from the command line: `UPDATE_OPTIONS=1 cargo test --test tidy` writes it.

use clap::{Arg, ArgAction, Command};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::{read, root};

/// The page above this line is written by hand.
const MARK: &str =
    "<!-- Made from the command line by tests/tidy/options.rs: UPDATE_OPTIONS=1 cargo test --test tidy -->";

/// Heading of the options without a group.
const MAIN: &str = "Options";

/// Escapes text for a table's cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*")
}

/// Splits help into the text and the default that it names.
fn without_default(help: &str) -> (String, Option<&str>) {
    let Some((before, rest)) = help.split_once("[default: ") else { return (help.to_owned(), None) };
    let Some((default, after)) = rest.split_once(']') else { return (help.to_owned(), None) };
    (format!("{}{after}", before.trim_end()), Some(default))
}

/// Formats an option or argument: `-w`, `--worker-port PORT`.
fn spelling(arg: &Arg) -> String {
    let names: Vec<&str> = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let value = if matches!(arg.get_action(), ArgAction::SetTrue) { String::new() } else { names.join(" ") };
    let long = arg.get_long().map(|long| format!("--{long}"));
    let last = [long, Some(value)].into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    format!("{short}`{}`", last.replace('|', "\\|"))
}

/// Formats one row of a table.
fn row(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, named) = without_default(&help);
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .filter(|value| !value.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue))
        .collect();
    let default = if defaults.is_empty() { named.map(cell).unwrap_or_default() } else { cell(&defaults.join(" ")) };
    format!("| {} | {default} | {} |\n", spelling(arg), cell(&help))
}

/// Options and arguments of `command`, without hidden and general ones.
fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_general = |arg: &Arg| ["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(move |arg| !arg.is_hide_set() && !is_general(arg))
}

/// Formats the options and arguments of `command` that are not in `known`, in tables by group.
fn tables(command: &Command, known: &BTreeMap<String, String>) -> String {
    let mut groups: BTreeMap<(usize, &str), String> = BTreeMap::new();
    let mut order: Vec<&str> = vec![MAIN];
    for arg in shown(command).filter(|arg| known.get(arg.get_id().as_str()) != Some(&row(arg))) {
        let heading = arg.get_help_heading().filter(|heading| !["Options", "Arguments"].contains(heading));
        // A subcommand's additional options have no group.
        let group = heading.filter(|_| known.is_empty()).unwrap_or(MAIN);
        if !order.contains(&group) {
            order.push(group);
        }
        let place = order.iter().position(|one| *one == group).unwrap_or_default();
        groups.entry((place, group)).or_default().push_str(&row(arg));
    }
    let mut text = String::new();
    for ((_, group), rows) in groups {
        if group != MAIN {
            let _ = write!(text, "\n### {group}\n");
        }
        let _ = write!(text, "\n| option | default | meaning |\n| --- | --- | --- |\n{rows}");
    }
    text
}

/// Subcommands that are not hidden.
fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// Formats `command` and its subcommands, each with a heading. `own` has the rows of the program's options, by name.
fn section(command: &Command, name: &str, own: &BTreeMap<String, String>, text: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## `{name}`\n\n{}\n", about.trim());
    let takes_all = own.keys().all(|id| command.get_arguments().any(|arg| arg.get_id().as_str() == *id));
    if takes_all {
        text.push_str("\nTakes every option of `p2pool`, and:\n");
    }
    let none = BTreeMap::new();
    text.push_str(&tables(command, if takes_all { own } else { &none }));
    if let Some(help) = command.get_after_help() {
        let _ = write!(text, "\n```text\n{}\n```\n", help.to_string().trim());
    }
    for subcommand in subcommands(command) {
        section(subcommand, &format!("{name} {}", subcommand.get_name()), own, text);
    }
}

/// Returns the generated part of the page.
fn rendered() -> String {
    let mut command = p2pool::config::command();
    command.build();
    let own: BTreeMap<String, String> = shown(&command).map(|arg| (arg.get_id().to_string(), row(arg))).collect();
    let mut text = String::new();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## `p2pool`\n\n{about}\n{}", tables(&command, &BTreeMap::new()));
    for subcommand in subcommands(&command) {
        section(subcommand, &format!("p2pool {}", subcommand.get_name()), &own, &mut text);
    }
    text
}

#[test]
fn the_options_page_is_the_command_lines() {
    let path = root().join("docs/operators/options.md");
    let page = read(&path);
    let head = page.split(MARK).next().unwrap_or_default();
    let made = format!("{head}{MARK}\n{}", rendered());
    if std::env::var_os("UPDATE_OPTIONS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let page = read(&path);
    let differs = page.lines().zip(made.lines()).find(|(is, should)| is != should);
    assert!(page == made, "UPDATE_OPTIONS=1 cargo test --test tidy writes {}: {differs:?}", path.display());
}
