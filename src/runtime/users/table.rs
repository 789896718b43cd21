//! The file's content: names with bcrypt hashes, and the answers to what was checked against them.

use bcrypt::HashParts;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

use crate::runtime::files;

/// Maximum size of the file, in bytes: 50,000 users.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Name of the line that holds for all users without a line of their own.
const EVERYONE: &str = "*";

/// Maximum cost of a hash. Each further one doubles the time of a check; this one takes about a second.
const COST_MAX: u32 = 14;

/// Maximum number of answers of each kind that are remembered.
const ANSWERS_MAX: usize = 16 * 1024;

/// Reason why a file of users cannot be used. Never contains a hash.
#[derive(Debug, Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("cannot read the users in `{path}`: {error}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// A line is wrong.
    #[error("`{path}` line {line}: {problem}")]
    Line {
        /// Path of the file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// The file has no users.
    #[error("`{0}` has no users; make it with htpasswd -B")]
    Empty(PathBuf),
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LineProblem {
    /// There is no colon, or nothing before it.
    #[error("not NAME:HASH")]
    Form,
    /// The name is in an earlier line.
    #[error("the name is given twice")]
    Twice,
    /// The hash is of another kind, or damaged.
    #[error("not a bcrypt hash ($2y$…, $2b$… or $2a$…); make it with htpasswd -B")]
    Hash,
    /// The hash takes too long to check.
    #[error("the cost of the hash is above {COST_MAX}: each login would take seconds")]
    Cost,
}

/// Compares a password with a hash. Blocks for as long as the hash's cost wants.
pub(super) type Matches = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// Comparison with bcrypt.
pub(super) fn bcrypt() -> Matches {
    Arc::new(|password, hash| bcrypt::verify(password, hash).unwrap_or(false))
}

/// Digest of a user and a password.
pub(super) type Digest = [u8; 32];

/// Users of one reading of the file.
pub(super) struct Table {
    hashes: HashMap<Box<str>, Arc<str>>,
    /// Hash that passwords of unknown users are compared with: the time shows no difference.
    decoy: Arc<str>,
    /// Differs for each reading, so that no answer outlives it.
    salt: [u8; 16],
    answers: Mutex<Answers>,
    matches: Matches,
}

/// Digests by their answers.
#[derive(Default)]
struct Answers {
    accepted: HashSet<Digest>,
    refused: HashSet<Digest>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Hashes do not belong in logs.
        f.debug_struct("Table").field("users", &self.len()).finish_non_exhaustive()
    }
}

/// Password to check.
pub(super) struct Claim {
    pub(super) digest: Digest,
    /// Hash to compare with.
    hash: Arc<str>,
    is_user: bool,
    password: Box<str>,
}

impl Table {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path, matches: Matches) -> Result<Self, UsersError> {
        let wrong = |error| UsersError::Read { path: path.to_owned(), error };
        let text = files::read(path, FILE_BYTES_MAX + 1).map_err(wrong)?;
        let text = text.ok_or_else(|| wrong(io::ErrorKind::NotFound.into()))?;
        if u64::try_from(text.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
            return Err(wrong(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes"))));
        }
        let mut hashes = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let added = add(&mut hashes, line.trim());
            added.map_err(|problem| UsersError::Line { path: path.to_owned(), line: index + 1, problem })?;
        }
        let decoy = hashes.values().next().cloned().ok_or_else(|| UsersError::Empty(path.to_owned()))?;
        let mut salt = [0; 16];
        fastrand::Rng::new().fill(&mut salt);
        Ok(Self { hashes, decoy, salt, answers: Mutex::default(), matches })
    }

    /// Number of lines with a user.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn matches(&self) -> Matches {
        self.matches.clone()
    }

    /// Looks up the user with one of `names`, whose password is to be checked.
    pub(super) fn claim(&self, names: &[&str], password: &str) -> Claim {
        let mut known = names.iter().filter(|name| **name != EVERYONE).copied().chain([EVERYONE]);
        let found = known.find_map(|name| Some((name, self.hashes.get(name)?)));
        let name = found.map(|(name, _)| name).or(names.first().copied()).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update(self.salt);
        // No name or password in UTF-8 has this byte.
        for part in [name, password] {
            digest.update(part);
            digest.update([0xff]);
        }
        digest.update([u8::from(found.is_some())]);
        Claim {
            digest: digest.finalize().into(),
            hash: found.map_or(&self.decoy, |(_, hash)| hash).clone(),
            is_user: found.is_some(),
            password: password.into(),
        }
    }

    /// Remembered answer to `claim`.
    pub(super) fn answer(&self, claim: &Claim) -> Option<bool> {
        let answers = self.answers.lock();
        if answers.accepted.contains(&claim.digest) {
            return Some(true);
        }
        answers.refused.contains(&claim.digest).then_some(false)
    }

    /// Checks the password of `claim`, and remembers the answer. Blocks.
    pub(super) fn check(&self, claim: &Claim) -> bool {
        let is_right = (self.matches)(&claim.password, &claim.hash) && claim.is_user;
        let mut answers = self.answers.lock();
        let same = if is_right { &mut answers.accepted } else { &mut answers.refused };
        if same.len() >= ANSWERS_MAX {
            same.clear();
        }
        same.insert(claim.digest);
        is_right
    }
}

/// Adds the user of a line, if it has one.
fn add(hashes: &mut HashMap<Box<str>, Arc<str>>, line: &str) -> Result<(), LineProblem> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (name, hash) = line.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or(LineProblem::Form)?;
    if cost(hash).ok_or(LineProblem::Hash)? > COST_MAX {
        return Err(LineProblem::Cost);
    }
    match hashes.insert(name.into(), hash.into()) {
        Some(_) => Err(LineProblem::Twice),
        None => Ok(()),
    }
}

/// Cost of a bcrypt hash; `None` if it is none.
fn cost(hash: &str) -> Option<u32> {
    let [_, kind, cost, _]: [&str; 4] = hash.split('$').collect::<Vec<_>>().try_into().ok()?;
    let is_bcrypt = ["2a", "2b", "2y"].contains(&kind) && hash.parse::<HashParts>().is_ok();
    cost.parse().ok().filter(|_| is_bcrypt)
}
