//! What is wrong with the options that were given, collected so that it is reported all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

/// One thing wrong with what was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// The option as it was given: on the command line, as a variable, in a file.
    place: String,
    problem: String,
}

impl ConfigError {
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// Where a value comes from; each wins over those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The command line.
    CommandLine,
    /// The variable of that name.
    Environment(String),
    /// A file.
    File {
        /// Its path, as it was given.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// Nobody gave it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "{path} line {line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// What each option that was given is called there and where it comes from, by its id.
    pub(super) sources: BTreeMap<String, (String, Source)>,
    pub(super) found: Vec<ConfigError>,
    /// The ids of options that are wrong.
    wrong: BTreeSet<String>,
}

impl Problems {
    pub(super) fn add(&mut self, option: &str, problem: impl Into<String>) {
        let place = self.sources.get(option).map_or_else(|| format!("--{option}"), |(place, _)| place.clone());
        self.found.push(ConfigError::new(place, problem));
        self.mark(option);
    }

    /// Notes that the option is wrong, which was reported.
    pub(super) fn mark(&mut self, option: &str) {
        self.wrong.insert(option.to_owned());
    }

    pub(super) fn is_wrong(&self, option: &str) -> bool {
        self.wrong.contains(option)
    }

    pub(super) fn take<T>(&mut self, option: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.add(option, problem)).ok()
    }

    /// Where the option's value comes from.
    pub(super) fn source(&self, option: &str) -> Source {
        self.sources.get(option).map_or(Source::Default, |(_, source)| source.clone())
    }

    pub(super) fn is_on_command_line(&self, option: &str) -> bool {
        self.source(option) == Source::CommandLine
    }
}
