//! Announces found blocks of all chains where the operator asked for it: by a command, by a webhook, on IRC. Nothing waits for it,
//! and nothing is sent elsewhere.

mod hook;
pub mod irc;
mod webhook;

use serde::Serialize;
use sharechain::coin::Network;
use std::sync::Arc;
use std::time::Duration;
use stratum::printable::escaped;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::blocks::Finding;
use crate::blocks::found::{Event, EventKind};
use crate::runtime::secret::Secret;
use crate::runtime::tasks::Tasks;

/// Destinations of announcements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Command line for `sh`, run at every event of a found block.
    pub hook: Option<Secret>,
    /// An `http` or `https` URL that every event is posted to.
    pub webhook: Option<Secret>,
    /// IRC channel where accepted blocks are announced.
    pub irc: Option<irc::Config>,
}

/// Maximum attempts to deliver one event, and the pause after the first of them; it doubles each time.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Starts a task for each destination in `config`.
pub fn start(config: Config, network: &'static Network, events: &broadcast::Sender<Event>, tasks: &Tasks) {
    let stop = tasks.stop_signal();
    if let Some(command) = config.hook {
        tasks.spawn("announce by hook", hook::run(command, network, events.subscribe(), stop.clone()));
    }
    if let Some(url) = config.webhook {
        let delivery = webhook::run(url, network, events.subscribe(), webhook::Pace::default(), stop.clone());
        tasks.spawn("announce by webhook", delivery);
    }
    if let Some(config) = config.irc {
        let tls = irc::public_roots();
        tasks.spawn("announce on irc", irc::run(config, tls, network, events.subscribe(), stop));
    }
}

/// Announcement of an event: fields for programs, and text under the names that chat services read.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Announcement {
    /// `found`, `accepted`, `mature`, `stale`, `orphaned` or `rejected`.
    event: &'static str,
    network: &'static str,
    /// Name of the merged chain that the block is of; absent for the parent chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<Arc<str>>,
    hash: String,
    height: Option<u32>,
    /// Total of the coinbase, in satoshis of its chain.
    value: u64,
    payee: String,
    finder: String,
    /// True if a miner of this node found it.
    is_ours: bool,
    /// Time at which this node learnt of it, in seconds since 1970.
    found_at: f64,
    /// Blocks from it to the tip.
    confirmations: u32,
    /// The event as a sentence (Slack, Matrix bridges).
    text: String,
    /// Same as `text` (Discord).
    content: String,
    /// Names come from strangers and must mention no one (Discord).
    allowed_mentions: Mentions,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Mentions {
    parse: [&'static str; 0],
}

impl Announcement {
    fn new(event: &Event, network: &Network) -> Self {
        let record = &*event.record;
        let Finding { value, payee, finder, is_ours } = &record.finding;
        let (payee, finder) = (printable(payee), printable(finder));
        let height = record.height.map_or_else(|| "?".to_owned(), |height| height.to_string());
        let happened = match event.kind {
            EventKind::Rejected if record.chain.is_some() => "was rejected by its daemon",
            EventKind::Found => "was found",
            EventKind::Accepted => "is in the chain",
            EventKind::Mature => "is mature: what it pays can be spent",
            EventKind::Stale => "is stale: another block of its height was first",
            EventKind::Orphaned => "was orphaned: its payouts are lost",
            EventKind::Rejected => "was rejected: it breaks a consensus rule",
        };
        let (coins, hash) = (coins(*value), record.hash);
        let (network, symbol) = (network.name, network.parent.symbol);
        let text = match &record.chain {
            None => format!("{network} block {height} {happened}. {coins} {symbol}, found by {finder}: {hash}"),
            // Its coinbase pays an address of the operator's, not the miners in the window.
            Some(chain) => format!(
                "{chain} block {height}, merged-mined with {network}, {happened}. {coins} coins to {payee}, found by \
                 {finder}: {hash}"
            ),
        };
        Self {
            event: event.kind.word(),
            network,
            chain: record.chain.clone(),
            hash: record.hash.to_string(),
            height: record.height,
            value: *value,
            payee,
            finder,
            is_ours: *is_ours,
            found_at: record.found_at,
            confirmations: record.confirmations,
            content: text.clone(),
            text,
            allowed_mentions: Mentions::default(),
        }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("plain strings and numbers always become JSON")
    }
}

/// Returns the next event, skipping those missed by lagging; `None` after the last.
async fn next(events: &mut broadcast::Receiver<Event>, whom: &str, stop: &CancellationToken) -> Option<Event> {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return None,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => return Some(event),
            Err(RecvError::Lagged(missed)) => warn!(missed, whom, "announcements of found blocks skipped: too slow"),
            Err(RecvError::Closed) => {
                debug!(whom, "no more events of found blocks");
                return None;
            }
        }
    }
}

/// Formats satoshis as coins.
fn coins(value: u64) -> String {
    format!("{}.{:08}", value / 100_000_000, value % 100_000_000)
}

/// Escapes what could steer a terminal or inject lines into a protocol.
fn printable(text: &str) -> String {
    escaped(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::found::{Record, Standing};
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use sharechain::coin::BITCOIN;

    /// The same event of a merged chain.
    pub(super) fn merged(event: Event) -> Event {
        let record = Record { chain: Some("dogecoin".into()), ..Record::clone(&event.record) };
        Event { record: Arc::new(record), ..event }
    }

    pub(super) fn event(kind: EventKind, finder: &str) -> Event {
        let record = Record {
            hash: BlockHash::from_byte_array([0xab; 32]),
            chain: None,
            previous_block: None,
            height: Some(850_000),
            finding: Finding { value: 312_500_001, payee: "bc1qpayee".into(), finder: finder.into(), is_ours: true },
            found_at: 1.5,
            routes: Vec::new(),
            verdict: None,
            not_submitted: None,
            standing: Standing::Confirming,
            standing_since: 1.5,
            confirmations: 1,
            is_settled: false,
        };
        Event { kind, record: Arc::new(record) }
    }

    #[test]
    fn an_announcement_says_everything_and_steers_nothing() {
        let announced = Announcement::new(&event(EventKind::Accepted, "eve\r\nQUIT \u{1b}[2J"), &BITCOIN);
        for text in [&announced.text[..], &announced.finder] {
            assert!(!text.contains(char::is_control), "{announced:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&announced.json()).unwrap();
        assert_eq!((&json["event"], &json["height"]), (&"accepted".into(), &850_000.into()));
        assert_eq!(json["allowed_mentions"]["parse"], serde_json::json!([]));
        assert!(
            announced.text.starts_with("bitcoin block 850000 is in the chain. 3.12500001 BTC, found by eve"),
            "{}",
            announced.text
        );
    }

    #[test]
    fn a_merged_chains_block_says_so_and_who_is_paid() {
        let announced = Announcement::new(&merged(event(EventKind::Accepted, "alice")), &BITCOIN);
        assert_eq!(
            announced.text,
            "dogecoin block 850000, merged-mined with bitcoin, is in the chain. 3.12500001 coins to bc1qpayee, found by alice: "
                .to_owned()
                + &"ab".repeat(32)
        );
        let json: serde_json::Value = serde_json::from_str(&announced.json()).unwrap();
        assert_eq!((&json["chain"], &json["network"]), (&"dogecoin".into(), &"bitcoin".into()));
        let rejected = Announcement::new(&merged(event(EventKind::Rejected, "alice")), &BITCOIN);
        assert!(rejected.text.contains("rejected by its daemon"), "{}", rejected.text);
        let parent = Announcement::new(&event(EventKind::Accepted, "alice"), &BITCOIN).json();
        let begin = r#"{"event":"accepted","network":"bitcoin","hash":"ab"#;
        assert!(parent.starts_with(begin) && !parent.contains("chain\":"), "as in every version: {parent}");
    }
}
