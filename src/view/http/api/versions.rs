//! Share versions: the way from one to the next, and the messages of the authorities.

use serde::{Deserialize, Serialize};
use sharechain::chain::pool::Announcement;
use stratum::printable::escaped;
use utoipa::ToSchema;

use crate::view::snapshot::Snapshot;

/// Share versions, and the pool's way from one to the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShareVersions {
    /// Version of the newest share; null without shares.
    pub current: Option<u64>,
    /// Version of the shares that this node makes; null before it has a chain.
    pub next: Option<u64>,
    /// Version that the pool votes on; null if its network has none.
    pub target: Option<u64>,
    /// State of the change from version 35 to 36 on networks that have it: `voting` (35 is made, 36 voted for),
    /// `activated` (36 is made, and 35 again if too few vote for it) or `confirmed` (36 is made); null elsewhere.
    pub state: Option<String>,
    /// Fraction of the newest shares that vote for the target or a newer version.
    pub votes: f64,
    /// Fraction of the newest shares that have the target's version or a newer one.
    pub shares: f64,
    /// Fraction of the work of the oldest tenth of these shares that votes for exactly the target, without which no
    /// share of it may follow; null while there are too few shares.
    pub deciding_votes: Option<f64>,
    /// Number of the newest shares that were counted.
    pub counted: u32,
    /// Number of shares that have to be counted before anything is decided.
    pub counted_needed: u32,
    /// Number of shares until the target is confirmed; null unless it is activated.
    pub shares_until_confirmed: Option<u64>,
    /// What will happen and when, in sentences; null if there is nothing to vote on.
    pub outlook: Option<String>,
    /// Messages of the authorities in the newest shares, newest first; all signatures were verified.
    pub messages: Vec<AuthorityMessage>,
}

/// Message that the holder of one of two keys announces inside of shares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuthorityMessage {
    /// Digest that is signed, which identifies the message.
    pub id: String,
    /// Kind, such as `transition signal`, `announcement` or `emergency`.
    pub kind: String,
    /// Holder of the key that signed it: `first author` of P2Pool or `fork maintainer`.
    pub signer: String,
    /// Time as its author gives it.
    pub time: u32,
    /// Version to leave; empty if it names none.
    pub from: String,
    /// Version to change to; empty if it names none.
    pub to: String,
    /// Text for operators; may be empty.
    pub text: String,
    /// Urgency by its author: `info`, `recommended` or `required`.
    pub urgency: String,
    /// Address of a page about it, unchecked; null if it names none.
    pub url: Option<String>,
    /// Number of the newest shares that carry it.
    pub shares: u32,
    /// Hash of the newest share that carries it.
    pub share: String,
}

impl AuthorityMessage {
    fn of(announcement: &Announcement) -> Self {
        let text = |text: &str| escaped(text).into_owned();
        Self {
            id: announcement.id.clone(),
            kind: announcement.kind_name.clone(),
            signer: announcement.signer.clone(),
            time: announcement.time,
            from: text(&announcement.from),
            to: text(&announcement.to),
            text: text(&announcement.text),
            urgency: announcement.urgency.clone(),
            url: announcement.url.as_deref().map(text),
            shares: announcement.shares,
            share: announcement.share.to_string(),
        }
    }
}

impl ShareVersions {
    /// Returns the versions as of `snapshot`.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let succession = &snapshot.succession;
        Self {
            current: succession.version,
            next: succession.next,
            target: succession.target,
            state: succession.state().map(str::to_owned),
            votes: succession.vote_part(),
            shares: succession.share_part(),
            deciding_votes: succession.deciding,
            counted: succession.counted,
            counted_needed: succession.chain_length,
            shares_until_confirmed: succession.until_confirmed,
            outlook: succession.outlook.clone(),
            messages: snapshot.chain.announcements.iter().map(AuthorityMessage::of).collect(),
        }
    }
}
