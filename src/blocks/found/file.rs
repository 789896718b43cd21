//! The records on disk: one JSON file beside the chain's journal, replaced atomically.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FoundBlocks, Record};
use crate::runtime::files;

/// The file's name in the chain's folder.
const NAME: &str = "found_blocks.json";

/// The only format so far.
const VERSION: u32 = 1;

/// Maximum size of the file, in bytes: a thousand records of some kilobytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Content<T> {
    version: u32,
    blocks: Vec<T>,
}

/// Reads the records in `folder`; none if there is no file. A damaged file is set aside under a new name and reported:
/// it must not prevent a start, and the journal has the latest blocks.
pub(super) fn load(folder: &Path) -> (Vec<Record>, Option<String>) {
    let path = folder.join(NAME);
    match read(&path) {
        Ok(records) => (records, None),
        Err(error) => {
            let aside = path.with_extension("json.damaged");
            let moved = match fs::rename(&path, &aside) {
                Ok(()) => format!("set aside as {}", aside.display()),
                Err(error) => format!("cannot be set aside: {error}"),
            };
            (Vec::new(), Some(format!("{}: {error}; {moved}", path.display())))
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let Some(text) = files::read(path, FILE_BYTES_MAX)? else { return Ok(Vec::new()) };
    let content: Content<Record> = serde_json::from_str(&text)?;
    if content.version != VERSION {
        return Err(io::Error::other(format!("unknown format {}", content.version)));
    }
    Ok(content.blocks)
}

/// Writes the records to `folder`. A crash leaves the old file or the new one.
///
/// # Errors
/// The error of the disk, with the file's name.
pub(super) fn save(folder: &Path, blocks: &FoundBlocks) -> Result<(), (PathBuf, io::Error)> {
    let path = folder.join(NAME);
    let content = Content { version: VERSION, blocks: blocks.blocks.iter().map(Arc::as_ref).collect::<Vec<&Record>>() };
    let written = files::replace(&path, |file| Ok(serde_json::to_writer(file, &content)?));
    written.map_err(|error| (path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::found::{RouteReport, Standing, Verdict};
    use crate::blocks::{Finding, Outcome};
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn record() -> Record {
        let outcome = Outcome::Rejected("bad-cb-amount".into());
        Record {
            hash: BlockHash::from_byte_array([1; 32]),
            chain: None,
            previous_block: None,
            height: Some(7),
            finding: Finding {
                value: 5_000_000_000,
                payee: "payee \"é\"".into(),
                finder: "finder".into(),
                is_ours: true,
            },
            found_at: 1.5,
            routes: vec![RouteReport {
                route: "rpc".into(),
                attempts: 3,
                at: 2.0,
                outcome: Outcome::Failed("no".into()),
            }],
            verdict: Some(Verdict { at: 3.0, outcome }),
            not_submitted: None,
            standing: Standing::Rejected,
            standing_since: 3.0,
            confirmations: 0,
            is_settled: true,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), (Vec::new(), None));
        save(folder.path(), &FoundBlocks { blocks: vec![Arc::new(record())] }).unwrap();
        assert_eq!(load(folder.path()), (vec![record()], None));
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        let wanted = format!(
            r#"{{"version":1,"blocks":[{{"hash":"{}","previous_block":null,"height":7,"value":5000000000,"#,
            "01".repeat(32)
        ) + r#""payee":"payee \"é\"","finder":"finder","is_ours":true,"found_at":1.5,"#
            + r#""routes":[{"route":"rpc","attempts":3,"at":2.0,"outcome":"failed","reason":"no"}],"#
            + r#""verdict":{"at":3.0,"outcome":"rejected","reason":"bad-cb-amount"},"not_submitted":null,"#
            + r#""standing":"rejected","standing_since":3.0,"confirmations":0,"is_settled":true}]}"#;
        assert_eq!(text, wanted, "the format of every version");
    }

    #[test]
    fn a_merged_chains_record_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let merged = Record { chain: Some("dogecoin".into()), ..record() };
        save(folder.path(), &FoundBlocks { blocks: vec![Arc::new(merged.clone())] }).unwrap();
        assert_eq!(load(folder.path()), (vec![merged], None));
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert!(text.contains(r#"","chain":"dogecoin","previous_block":null"#), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_set_aside_and_reported() {
        for text in ["nonsense", r#"{"version":2,"blocks":[]}"#, r#"{"version":1,"blocks":[{"hash":1}]}"#] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(NAME), text).unwrap();
            let (records, problem) = load(folder.path());
            assert_eq!(records, []);
            assert!(problem.unwrap().contains("set aside as"), "{text}");
            assert_eq!(load(folder.path()), (Vec::new(), None));
        }
    }
}
