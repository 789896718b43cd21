//! What the operator says and what outlives a restart: permanent nodes, bans, the files of both.

use std::net::{IpAddr, SocketAddr};

use super::{Now, PeerId, Swarm};
use crate::bans::{Ban, NotBanned};
use crate::peer::Close;

impl Swarm {
    /// Nodes that are to be connected always (`-n`), outside the wanted number. Those named before and not now are not
    /// dialled again.
    pub fn set_permanent(&mut self, addresses: &[SocketAddr], now: Now) {
        self.dialer.set_permanent(addresses, now.instant);
    }

    /// A node that the operator or the network's table names as a first one to ask.
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

    /// `address` is where we can be reached ourselves: it is never dialled.
    pub fn note_own_address(&mut self, address: SocketAddr) {
        self.book.note_own(address);
        self.dialer.forget(address);
    }

    /// Takes over the address book's file; what was left out is told, one line each.
    pub fn load_addresses(&mut self, json: &str, now: Now) -> Vec<String> {
        self.book.load_json(json, now.unix)
    }

    /// The address book for its file.
    pub fn addresses_json(&self) -> String {
        self.book.to_json()
    }

    /// Takes over the ban list's file; what was left out is told, one line each.
    pub fn load_bans(&mut self, json: &str, now: Now) -> Vec<String> {
        self.bans.load_json(json, now.unix)
    }

    /// The ban list for its file, if it changed since it was last taken.
    pub fn take_changed_bans_json(&mut self) -> Option<String> {
        self.bans.take_changed_json()
    }

    /// The list that was taken last could not be written: it is given again.
    pub fn mark_bans_changed(&mut self) {
        self.bans.mark_changed();
    }

    /// Who is banned.
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
