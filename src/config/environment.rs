//! Environment variables of the options; their names are derived from those of the options.

use clap::{Arg, Command};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Prefix of the variables' names.
const PREFIX: &str = "P2POOL_";

/// Positional arguments that have a variable.
const ARGUMENTS: [&str; 2] = ["url", "hash"];

/// Renamed options with their former names, which still work on the command line, as variables and in a file.
const OLD_NAMES: [(&str, &str); 3] = [
    ("max-connections", "max-workers"),
    ("max-connections-per-address", "max-workers-per-address"),
    // A value of its own kind, which the parser knows.
    ("merged", "merged_addr"),
];

/// Variables with the prefix of options, by name.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Variables of this process. An empty variable counts as not set.
    pub fn of_process() -> Self {
        let names = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        names.collect()
    }

    /// Returns name and value of the variable of `arg`.
    pub(super) fn find(&self, arg: &Arg) -> Option<(String, &OsStr)> {
        let old = OLD_NAMES.iter().find(|(new, _)| arg.get_long() == Some(new)).map(|(_, old)| variable(old));
        let (name, value) =
            [variable_of(arg), old].into_iter().flatten().find_map(|name| self.0.get_key_value(&name))?;
        Some((name.clone(), value))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(variables.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect())
    }
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('-', "_").to_uppercase())
}

fn variable_of(arg: &Arg) -> Option<String> {
    let id = arg.get_id().as_str();
    arg.get_long().or_else(|| ARGUMENTS.contains(&id).then_some(id)).map(variable)
}

/// Sets variable and former name of each option of `command` and its subcommands.
pub(super) fn name_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let old = OLD_NAMES.iter().find(|(new, _)| arg.get_long() == Some(new));
            let arg = match variable_of(&arg) {
                // The value may be a secret.
                Some(name) => arg.env(name).hide_env_values(true),
                None => arg,
            };
            match old {
                Some((_, old)) => arg.alias(old),
                None => arg,
            }
        })
        .mut_subcommands(name_variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Collects the arguments of `command` and its subcommands with the names of their variables.
    fn variables(command: &Command, found: &mut BTreeSet<(String, String)>) {
        for arg in command.get_arguments() {
            let name = arg.get_long().unwrap_or(arg.get_id().as_str());
            let old = OLD_NAMES.iter().find(|(new, _)| *new == name).map(|(_, old)| *old);
            for name in [Some(name), old].into_iter().flatten() {
                let variable = variable(name);
                let environment: Environment = [(variable.clone(), "1")].into_iter().collect();
                if environment.find(arg).is_some() {
                    found.insert((name.to_owned(), variable));
                }
            }
        }
        command.get_subcommands().for_each(|command| variables(command, found));
    }

    #[test]
    fn every_variable_that_ever_was_an_option_still_is() {
        let mut found = BTreeSet::new();
        variables(&crate::config::command(), &mut found);
        let old = include_str!("names_of_old.txt").lines().map(|line| line.split_once(' ').unwrap());
        let gone: Vec<_> =
            old.filter(|(option, variable)| !found.contains(&((*option).to_owned(), (*variable).to_owned()))).collect();
        assert!(gone.is_empty(), "{gone:?} are not read any more");
    }

    #[test]
    fn every_option_can_come_from_the_environment() {
        fn check(command: &Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let name = format!("P2POOL_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(name.as_str()), "--{long}");
                assert!(arg.is_hide_env_values_set(), "the help does not show what --{long} is set to");
            }
            command.get_subcommands().for_each(check);
        }
        check(&crate::config::command());
    }

    #[test]
    fn a_variable_that_is_empty_is_not_set() {
        let environment: Environment =
            [("P2POOL_FEE", ""), ("P2POOL_NET", "litecoin"), ("FEE", "1")].into_iter().collect();
        assert_eq!(environment.0.keys().collect::<Vec<_>>(), ["P2POOL_NET"]);
    }
}
