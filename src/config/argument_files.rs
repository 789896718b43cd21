//! `@FILE` on the command line, replaced by the words in FILE: P2Pool's way of keeping a password out of the process
//! list. Lines are split at white space; there are no quotes and no comments.

use argfile::Argument;
use std::cell::Cell;
use std::ffi::OsString;

use super::problems::ConfigError;

/// Maximum number of files read; more means a file that includes itself.
const FILES_MAX: usize = 64;

/// Replaces each `@FILE` in `arguments` by the words in the file. Files may include others.
pub(super) fn expand(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, ConfigError> {
    let read = Cell::new(0);
    let words = |text: &str, prefix| {
        read.set(read.get() + 1);
        // Ends the recursion of a file that includes itself.
        let words = if read.get() > FILES_MAX { "" } else { text };
        words.split_whitespace().map(|word| Argument::parse(word, prefix)).collect()
    };
    let expanded = argfile::expand_args_from(arguments.into_iter(), words, argfile::PREFIX);
    let expanded = expanded.map_err(|error| ConfigError::new("@FILE", format!("cannot be read: {error}")))?;
    if read.get() > FILES_MAX {
        let problem =
            format!("more than {FILES_MAX} files, or nested more than {FILES_MAX} deep: does one include itself?");
        return Err(ConfigError::new("@FILE", problem));
    }
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn expanded(argument: &str) -> Result<Vec<OsString>, String> {
        expand([argument.into()]).map_err(|error| error.to_string())
    }

    #[test]
    fn argument_files_are_read_word_by_word_and_may_nest() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, outer) = (folder.path().join("inner"), folder.path().join("outer"));
        fs::write(&inner, "alice\nsecret\n").unwrap();
        fs::write(&outer, format!("--testnet\n\n  --fee 1.5\t@{} last\n", inner.display())).unwrap();
        let words = expanded(&format!("@{}", outer.display())).unwrap();
        assert_eq!(words, ["--testnet", "--fee", "1.5", "alice", "secret", "last"]);
        assert_eq!(expanded("alice@example").unwrap(), ["alice@example"]);
    }

    #[test]
    fn a_file_that_cannot_be_read_or_names_itself_is_an_error() {
        assert!(expanded("@/no/such/file").unwrap_err().contains("`/no/such/file`"));
        let folder = tempfile::tempdir().unwrap();
        let looped = folder.path().join("looped");
        fs::write(&looped, format!("a @{0} @{0}", looped.display())).unwrap();
        assert!(expanded(&format!("@{}", looped.display())).unwrap_err().contains("nested more than"));
    }
}
