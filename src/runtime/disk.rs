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
    /// The state of the ratchet between share versions (`v36_ratchet.json`).
    Ratchet,
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
    pub const ALL: [Self; 7] =
        [Self::Journal, Self::ShareStore, Self::Ratchet, Self::FoundBlocks, Self::Peers, Self::Graphs, Self::Log];

    /// Label in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::ShareStore => "share_store",
            Self::Ratchet => "ratchet",
            Self::FoundBlocks => "found_blocks",
            Self::Peers => "peers",
            Self::Graphs => "graphs",
            Self::Log => "log",
        }
    }

    /// Consequence for the operator if the node stops before the part can write again.
    fn at_stake(self, is_merged: bool) -> &'static str {
        match self {
            Self::Journal if is_merged => {
                "a block found now is still sent to the chain's daemon, but not again after a restart"
            }
            Self::Journal => "a block found now is still sent to bitcoind, but not again after a restart",
            Self::ShareStore => "new shares still go to peers, but a restart has to download them",
            Self::Ratchet => "a restart decides from the share chain alone which share version to make",
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
            Self::Ratchet => "the share version made last",
            Self::FoundBlocks => "the records of found blocks",
            Self::Peers => "the list of peers and bans",
            Self::Graphs => "the graphs",
            Self::Log => "the log file",
        })
    }
}

/// Parts that cannot write at present, of all chains or of one merged chain, each with the error of its latest attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles(BTreeMap<(Part, Option<Arc<str>>), String>);

impl Troubles {
    /// One sentence per part, for the operator.
    pub fn sentences(&self) -> Vec<String> {
        let sentence = |((part, chain), trouble): (&(Part, Option<Arc<str>>), &String)| {
            let of_chain = chain.as_ref().map(|chain| format!(" of the merged chain {chain}")).unwrap_or_default();
            let at_stake = part.at_stake(chain.is_some());
            format!(
                "{part}{of_chain} cannot be written ({trouble}): {at_stake}; free some disk space or check the disk"
            )
        };
        self.0.iter().map(sentence).collect()
    }
}

/// Collects the parts' reports on the disk. Clones share it.
#[derive(Debug, Clone)]
pub struct DiskHealth {
    troubles: Arc<watch::Sender<Arc<Troubles>>>,
    /// Merged chain whose parts report through this clone.
    chain: Option<Arc<str>>,
}

impl Default for DiskHealth {
    fn default() -> Self {
        Self { troubles: Arc::new(watch::Sender::new(Arc::default())), chain: None }
    }
}

impl DiskHealth {
    /// Starts without trouble.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a clone for the parts of a merged chain, whose reports are kept apart; of none for `None`.
    pub fn for_chain(&self, chain: Option<Arc<str>>) -> Self {
        Self { troubles: self.troubles.clone(), chain }
    }

    /// Records the result of a part's latest write: the error, or `None` on success. The part itself logs it.
    pub fn report(&self, part: Part, trouble: Option<String>) {
        let key = (part, self.chain.clone());
        self.troubles.send_if_modified(|troubles| {
            if troubles.0.get(&key) == trouble.as_ref() {
                return false;
            }
            let troubles = Arc::make_mut(troubles);
            match trouble {
                Some(trouble) => troubles.0.insert(key, trouble),
                None => troubles.0.remove(&key),
            };
            let is_in_trouble = troubles.0.keys().any(|(other, _)| *other == part);
            gauge!("disk_trouble", "part" => part.word()).set(if is_in_trouble { 1.0 } else { 0.0 });
            true
        });
    }

    /// Subscribes to the parts that cannot write.
    pub fn watch(&self) -> watch::Receiver<Arc<Troubles>> {
        self.troubles.subscribe()
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
    fn one_chains_success_does_not_hide_anothers_trouble() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let gauge = || recorder.handle().render().lines().find(|line| line.contains("journal")).map(str::to_owned);
        metrics::with_local_recorder(&recorder, || {
            let disk = DiskHealth::new();
            let merged = disk.for_chain(Some("dogecoin".into()));
            merged.report(Part::Journal, Some("Permission denied".into()));
            disk.report(Part::Journal, Some("Input/output error".into()));
            let sentences = disk.watch().borrow().sentences();
            assert!(sentences[0].starts_with("the journal of found blocks cannot be written (Input"), "{sentences:?}");
            let begin =
                "the journal of found blocks of the merged chain dogecoin cannot be written (Permission denied): ";
            assert!(sentences[1].starts_with(begin) && !sentences[1].contains("bitcoind"), "{sentences:?}");
            disk.report(Part::Journal, None);
            assert_eq!(disk.watch().borrow().sentences(), sentences[1..]);
            assert_eq!(gauge().as_deref(), Some("disk_trouble{part=\"journal\"} 1"));
            merged.report(Part::Journal, None);
            assert_eq!(disk.watch().borrow().sentences(), Vec::<String>::new());
            assert_eq!(gauge().as_deref(), Some("disk_trouble{part=\"journal\"} 0"));
        });
    }

    #[test]
    fn metric_labels_differ() {
        let words: std::collections::BTreeSet<_> = Part::ALL.map(Part::word).into();
        assert_eq!(words.len(), Part::ALL.len());
    }
}
