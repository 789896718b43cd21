//! `Announcement`: a message of the authorities that shares of the chain carry (protocol-v36 section 7).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::merkle::Digest;
use crate::share::{AuthorityMessage, Share, ShareHash, read_messages};

/// Newest shares of the chain whose messages are read: some four hours on Litecoin.
const SHARES_READ: usize = 1_000;

/// Maximum number of announcements.
const ANNOUNCEMENTS_MAX: usize = 10;

/// Message of an authority, with a verified signature. All texts are printable; they are not escaped for HTML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Digest that was signed, in hex: it identifies the message.
    pub id: String,
    /// Number of its kind.
    pub kind: u8,
    /// Name of its kind.
    pub kind_name: String,
    /// Flags as on the wire.
    pub flags: u8,
    /// Holder of the key that signed it.
    pub signer: String,
    /// Time as its author gives it, seconds since 1970.
    pub time: u32,
    /// Version to leave; empty if it names none.
    pub from: String,
    /// Version to change to; empty if it names none.
    pub to: String,
    /// Text for operators; may be empty.
    pub text: String,
    /// Urgency: `info`, `recommended` or `required`.
    pub urgency: String,
    /// Address of a page about it, of any scheme: show it as text.
    pub url: Option<String>,
    /// Votes that switch the chain, in percent, by its author.
    pub threshold: Option<u8>,
    /// Number of the shares that carry it, of those read.
    pub shares: u32,
    /// The newest of them.
    pub share: ShareHash,
}

impl Announcement {
    fn of(message: &AuthorityMessage, share: ShareHash) -> Announcement {
        let content = message.content();
        let unknown = || format!("message of kind {:#04x}", message.kind);
        Announcement {
            id: hex::encode(message.digest()),
            kind: message.kind,
            kind_name: message.kind_name().map_or_else(unknown, str::to_owned),
            flags: message.flags,
            signer: message.signer.name().to_owned(),
            time: message.timestamp,
            from: content.from,
            to: content.to,
            text: content.text,
            urgency: content.urgency.name().to_owned(),
            url: content.url,
            threshold: content.threshold,
            shares: 0,
            share,
        }
    }
}

/// Messages of the newest shares, each read and verified once.
#[derive(Debug, Default)]
pub(super) struct MessageLog(HashMap<ShareHash, Arc<[AuthorityMessage]>>);

impl MessageLog {
    /// Reads what is new in `shares`, the newest first, forgets what is no longer there, and returns all messages, the
    /// newest first by their authors' clocks. A new share costs the verification of three signatures at most.
    pub(super) fn update<'a>(&mut self, shares: impl Iterator<Item = &'a Arc<Share>>) -> Vec<Announcement> {
        let mut before = std::mem::take(&mut self.0);
        let mut found: BTreeMap<Digest, Announcement> = BTreeMap::new();
        for share in shares.take(SHARES_READ) {
            let blob = share.info().additions.as_ref().map_or(&[][..], |additions| &additions.message_data);
            if blob.is_empty() {
                continue;
            }
            // Verified shares carry none that cannot be read.
            let read = || read_messages(blob).unwrap_or_default().into();
            let messages = before.remove(&share.hash()).unwrap_or_else(read);
            for message in messages.iter() {
                let entry = found.entry(message.digest()).or_insert_with(|| Announcement::of(message, share.hash()));
                entry.shares += 1;
            }
            self.0.insert(share.hash(), messages);
        }
        let mut all: Vec<Announcement> = found.into_values().collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.time));
        all.truncate(ANNOUNCEMENTS_MAX);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Sharechain;
    use crate::share::Additions;
    use crate::testkit::{self, GENUINE_MESSAGE, Plan};

    /// Shares with these blobs, which nothing has checked.
    fn shares(blobs: &[&[u8]]) -> Vec<Arc<Share>> {
        let mut chain = Sharechain::new(testkit::network_of_versions(20, 36..=36, 100));
        let with = |(nonce, blob): (u32, &&[u8])| {
            let additions = Additions { message_data: (**blob).into(), ..Additions::default() };
            testkit::share_with(&mut chain, None, &Plan { nonce, ..Plan::default() }, additions)
        };
        (0..).zip(blobs).map(with).collect()
    }

    #[test]
    fn each_message_is_listed_once_with_its_newest_share_and_forgotten_with_the_last() {
        let genuine = hex::decode(GENUINE_MESSAGE).unwrap();
        let mut damaged = genuine.clone();
        damaged[300] ^= 1;
        let shares = shares(&[&[], &genuine, &damaged, &genuine, &[]]);
        let mut log = MessageLog::default();
        let found = log.update(shares.iter());
        let [one] = &found[..] else { panic!("{found:?}") };
        assert_eq!((one.shares, one.share, one.kind), (2, shares[1].hash(), 0x20));
        assert_eq!((&one.signer[..], &one.kind_name[..]), ("fork maintainer", "transition signal"));
        assert_eq!((&one.from[..], &one.to[..]), ("35", "36"));
        assert!(!one.text.is_empty(), "{one:?}");
        assert_eq!(log.0.len(), 3);
        assert_eq!(log.update(shares.iter()), found);
        let later = log.update(shares[2..].iter());
        assert_eq!((later[0].shares, later[0].share), (1, shares[3].hash()));
        assert!(log.update(shares[4..].iter()).is_empty() && log.0.is_empty());
    }
}
