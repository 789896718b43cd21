//! Errors in the options, collected so that all are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// Error in one option.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Option as the operator wrote it: on the command line, as a variable, in a file.
    place: String,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// Source of a value; each takes precedence over those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Command line.
    CommandLine,
    /// File of arguments, named on the command line as `@FILE`.
    ArgumentFile,
    /// Environment variable of that name.
    Environment(String),
    /// Configuration file.
    File {
        /// Path as given.
        path: String,
        /// Line number, from 1.
        line: usize,
    },
    /// Built-in default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::ArgumentFile => f.write_str("argument file"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "{path} line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Collected errors.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Label and source of each given option, by its id.
    pub(super) sources: BTreeMap<String, (String, Source)>,
    pub(super) found: Vec<ConfigError>,
    /// Ids of options with an error.
    wrong: BTreeSet<String>,
}

impl Problems {
    pub(super) fn add(&mut self, option: &str, problem: impl Into<String>) {
        let place = self.sources.get(option).map_or_else(|| format!("--{option}"), |(place, _)| place.clone());
        self.found.push(ConfigError::new(place, problem));
        self.mark(option);
    }

    /// Marks the option as wrong; its error was already reported.
    pub(super) fn mark(&mut self, option: &str) {
        self.wrong.insert(option.to_owned());
    }

    pub(super) fn is_wrong(&self, option: &str) -> bool {
        self.wrong.contains(option)
    }

    pub(super) fn take<T>(&mut self, option: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(option, problem)).ok()
    }

    /// Returns the source of the option's value.
    pub(super) fn source(&self, option: &str) -> Source {
        self.sources.get(option).map_or(Source::Default, |(_, source)| source.clone())
    }

    pub(super) fn is_on_command_line(&self, option: &str) -> bool {
        self.source(option) == Source::CommandLine
    }
}
