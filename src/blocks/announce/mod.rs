//! Tells of found blocks outside of this process, as far as the operator asked for it: to a command, to a web address, on
//! IRC. Nothing waits for it, and nothing is told to anybody else.

mod hook;
pub mod irc;
mod webhook;

use serde::Serialize;
use sharechain::coin::Network;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::blocks::Finding;
use crate::blocks::found::{Event, EventKind};
use crate::runtime::tasks::Tasks;

/// Whom to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// A command line for `sh`, run at everything that happens to a found block.
    pub hook: Option<String>,
    /// An `http` or `https` address that it is posted to.
    pub webhook: Option<String>,
    /// A channel that is told of accepted blocks.
    pub irc: Option<irc::Config>,
}

/// Attempts to tell of one event, and the pause after the first of them, twice as long each time.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Starts telling whom `config` names.
pub fn start(config: Config, network: &'static Network, events: &broadcast::Sender<Event>, tasks: &Tasks) {
    let stop = tasks.stop_signal();
    if let Some(command) = config.hook {
        tasks.spawn("announce by hook", hook::run(command, network, events.subscribe(), stop.clone()));
    }
    if let Some(url) = config.webhook {
        let telling = webhook::run(url, network, events.subscribe(), webhook::Pace::default(), stop.clone());
        tasks.spawn("announce by webhook", telling);
    }
    if let Some(config) = config.irc {
        let tls = irc::public_roots();
        tasks.spawn("announce on irc", irc::run(config, tls, network, events.subscribe(), stop));
    }
}

/// What is told of an event: JSON for programs, and words for people under the names that chat services look for.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Announcement {
    /// What happened: `found`, `accepted`, `mature`, `stale`, `orphaned`, `rejected`.
    event: &'static str,
    /// The network's name.
    network: &'static str,
    /// The block's hash.
    hash: String,
    /// Its height, if known.
    height: Option<u32>,
    /// What its coinbase pays in all, in satoshis.
    value: u64,
    /// Whom it pays.
    payee: String,
    /// Who found it.
    finder: String,
    /// Whether miners of this node found it.
    is_ours: bool,
    /// When this node heard of it, in seconds since 1970.
    found_at: f64,
    /// Blocks from it to the tip.
    confirmations: u32,
    /// The same in words (Slack, Matrix bridges).
    text: String,
    /// And once more (Discord).
    content: String,
    /// Names come from strangers and must call nobody (Discord).
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
            EventKind::Found => "was found",
            EventKind::Accepted => "is in the chain",
            EventKind::Mature => "is mature: what it pays can be spent",
            EventKind::Stale => "is stale: another was there first",
            EventKind::Orphaned => "was orphaned: it pays nobody",
            EventKind::Rejected => "was rejected: it breaks a rule",
        };
        let coins = coins(*value);
        let symbol = network.parent.symbol;
        let text =
            format!("{} block {height} {happened}. {coins} {symbol}, found by {finder}: {}", network.name, record.hash);
        Self {
            event: event.kind.word(),
            network: network.name,
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

/// The next event, however many were missed before it; `None` when there will be none.
async fn next(events: &mut broadcast::Receiver<Event>, whom: &str, stop: &CancellationToken) -> Option<Event> {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return None,
            event = events.recv() => event,
        };
        match event {
            Ok(event) => return Some(event),
            Err(RecvError::Lagged(missed)) => warn!(missed, whom, "too slow to be told of every found block"),
            Err(RecvError::Closed) => {
                debug!(whom, "nobody tells of found blocks any more");
                return None;
            }
        }
    }
}

/// Satoshis as coins.
fn coins(value: u64) -> String {
    format!("{}.{:08}", value / 100_000_000, value % 100_000_000)
}

/// What others said, without what would steer a terminal or a protocol of lines.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::found::{Record, Standing};
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use sharechain::coin::BITCOIN;
    use std::sync::Arc;

    pub(super) fn event(kind: EventKind, finder: &str) -> Event {
        let record = Record {
            hash: BlockHash::from_byte_array([0xab; 32]),
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
        let told = Announcement::new(&event(EventKind::Accepted, "eve\r\nQUIT \u{1b}[2J"), &BITCOIN);
        assert!(!told.json().contains("\\r") && !told.text.contains('\u{1b}'));
        let json: serde_json::Value = serde_json::from_str(&told.json()).unwrap();
        assert_eq!((&json["event"], &json["height"]), (&"accepted".into(), &850_000.into()));
        assert_eq!(json["allowed_mentions"]["parse"], serde_json::json!([]));
        assert!(
            told.text.starts_with("bitcoin block 850000 is in the chain. 3.12500001 BTC, found by eve"),
            "{}",
            told.text
        );
    }
}
