//! Orders of the operator and persistent state: permanent nodes, bans, and their files.

use std::net::{IpAddr, SocketAddr};

use super::{Now, PeerId, Swarm};
use crate::bans::{Ban, NotBanned};
use crate::peer::Close;

impl Swarm {
    /// Sets the nodes to keep connected (`-n`), in addition to the wanted number. Nodes set before and missing now are
    /// not dialled again.
    pub fn set_permanent(&mut self, addresses: &[SocketAddr], now: Now) {
        self.dialer.set_permanent(addresses, now.instant);
    }

    /// Adds a node from the operator or the network's table as a first one to ask.
    pub fn add_bootstrap(&mut self, address: SocketAddr, now: Now) {
        if !self.book.contains(address) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a time since 1970, saturating"
            )]
            self.book.learn(address, 0, now.unix as u64, None, now.unix);
        }
    }

    /// Marks `address` as our own: it is never dialled.
    pub fn note_own_address(&mut self, address: SocketAddr) {
        self.book.note_own(address);
        self.dialer.forget(address);
    }

    /// Loads the address book's file; returns one line for each skipped entry.
    pub fn load_addresses(&mut self, json: &str, now: Now) -> Vec<String> {
        self.book.load_json(json, now.unix)
    }

    /// Serialises the address book for its file.
    pub fn addresses_json(&self) -> String {
        self.book.to_json()
    }

    /// Loads the ban list's file; returns one line for each skipped entry.
    pub fn load_bans(&mut self, json: &str, now: Now) -> Vec<String> {
        self.bans.load_json(json, now.unix)
    }

    /// Serialises the ban list for its file, if it changed since the last call.
    pub fn take_changed_bans_json(&mut self) -> Option<String> {
        self.bans.take_changed_json()
    }

    /// Marks the ban list as changed, after a failed write.
    pub fn mark_bans_changed(&mut self) {
        self.bans.mark_changed();
    }

    /// Returns the bans in force.
    pub fn list_bans(&self, now: Now) -> Vec<Ban> {
        self.bans.list(now.unix)
    }

    /// Bans an address for the operator, and disconnects it.
    ///
    /// # Errors
    /// This machine and addresses on the whitelist are not banned.
    pub fn ban(&mut self, address: IpAddr, seconds: f64, reason: &str, now: Now) -> Result<Ban, NotBanned> {
        let ban = self.bans.ban(address, seconds, reason, now.unix)?;
        let banned = self.connections.iter().filter(|(_, peer)| self.bans.is_banned(peer.address.ip(), now.unix));
        let banned: Vec<PeerId> = banned.map(|(id, _)| *id).collect();
        for peer in banned {
            self.disconnect(peer, Close::Quiet("banned by the operator".into()), now);
        }
        Ok(ban)
    }

    /// Ends the ban of an address; false if there was none.
    pub fn unban(&mut self, address: IpAddr) -> bool {
        self.bans.unban(address)
    }
}
