//! Disk trouble in one place: the parts that write report failures, which pages, `/health` and metrics show.
//!
//! A part that cannot write keeps working and retries; this module only holds the latest report of each. Reporting
//! never blocks.

use metrics::{describe_gauge, gauge};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A part of the node that writes to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The journal of found blocks.
    Journal,
    /// The share store.
    ShareStore,
    /// The records of found blocks (`found_blocks.json`).
    FoundBlocks,
    /// Peer addresses and bans.
    Peers,
    /// The graphs.
    Graphs,
    /// The log file.
    Log,
}

impl Part {
    pub const ALL: [Self; 6] =
        [Self::Journal, Self::ShareStore, Self::FoundBlocks, Self::Peers, Self::Graphs, Self::Log];

    /// Label in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::ShareStore => "share_store",
            Self::FoundBlocks => "found_blocks",
            Self::Peers => "peers",
            Self::Graphs => "graphs",
            Self::Log => "log",
        }
    }

    /// Consequence for the operator if the node stops before the part can write again.
    fn at_stake(self) -> &'static str {
        match self {
            Self::Journal => "a block found now is still sent to bitcoind, but not again after a restart",
            Self::ShareStore => "new shares still go to peers, but a restart has to download them",
            Self::FoundBlocks => "a restart forgets the status of the latest found blocks",
            Self::Peers => "a restart forgets the latest peers and bans",
            Self::Graphs => "a restart forgets the latest points of the graphs",
            Self::Log => "log lines are lost",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "the journal of found blocks",
            Self::ShareStore => "the share store",
            Self::FoundBlocks => "the records of found blocks",
            Self::Peers => "the list of peers and bans",
            Self::Graphs => "the graphs",
            Self::Log => "the log file",
        })
    }
}

/// Parts that cannot write at present, each with the error of its latest attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles(BTreeMap<Part, String>);

impl Troubles {
    /// One sentence per part, for the operator.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |(part, trouble): (&Part, &String)| {
            format!("{part} cannot be written ({trouble}): {}; free some disk space or check the disk", part.at_stake())
        };
        self.0.iter().map(sentence).collect()
    }
}

/// Collects the parts' reports on the disk. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskHealth(Arc<watch::Sender<Arc<Troubles>>>);

impl Default for DiskHealth {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Arc::default())))
    }
}

impl DiskHealth {
    /// Starts without trouble.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the result of a part's latest write: the error, or `None` on success. The part itself logs it.
    pub fn report(&self, part: Part, trouble: Option<String>) {
        self.0.send_if_modified(|troubles| {
            if troubles.0.get(&part) == trouble.as_ref() {
                return false;
            }
            gauge!("disk_trouble", "part" => part.word()).set(if trouble.is_some() { 1.0 } else { 0.0 });
            let troubles = Arc::make_mut(troubles);
            match trouble {
                Some(trouble) => troubles.0.insert(part, trouble),
                None => troubles.0.remove(&part),
            };
            true
        });
    }

    /// Subscribes to the parts that cannot write.
    pub fn watch(&self) -> watch::Receiver<Arc<Troubles>> {
        self.0.subscribe()
    }
}

/// Describes the metrics of this module.
pub fn describe() {
    describe_gauge!("disk_trouble", "1 while a part of the node cannot write to the disk, by part");
    for part in Part::ALL {
        gauge!("disk_trouble", "part" => part.word()).set(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_in_trouble_until_it_reports_success() {
        let disk = DiskHealth::new();
        let mut watch = disk.watch();
        disk.clone().report(Part::ShareStore, Some("No space left on device".into()));
        disk.report(Part::Log, Some("Input/output error".into()));
        assert!(watch.has_changed().unwrap());
        let sentences = watch.borrow_and_update().sentences();
        assert_eq!(sentences.len(), 2);
        assert!(
            sentences[0].starts_with("the share store cannot be written (No space left on device): "),
            "{sentences:?}"
        );
        disk.report(Part::ShareStore, Some("No space left on device".into()));
        assert!(!watch.has_changed().unwrap(), "nothing has changed");
        disk.report(Part::ShareStore, None);
        disk.report(Part::Peers, None);
        let sentences = watch.borrow_and_update().sentences();
        assert_eq!(sentences.len(), 1);
        assert!(sentences[0].starts_with("the log file cannot be written (Input/output error): "), "{sentences:?}");
        disk.report(Part::Log, None);
        assert_eq!(watch.borrow_and_update().sentences(), Vec::<String>::new());
    }

    #[test]
    fn metric_labels_differ() {
        let words: std::collections::BTreeSet<_> = Part::ALL.map(Part::word).into();
        assert_eq!(words.len(), Part::ALL.len());
    }
}
