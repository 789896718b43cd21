//! The first message of either side (protocol section 3.3).

use bytes::Bytes;
use std::net::SocketAddr;

use super::{Close, Hello, Local, Offence, Peer, PeerEvent};
use crate::message::{Endpoint, Version};

/// Bytes kept of a peer's software name, as in the reference.
const SUB_VERSION_BYTES_MAX: usize = 512;

/// Our `version` message for `remote`: with our socket's address, not our public one.
pub(super) fn version_of(local: &Local, remote: SocketAddr, local_address: SocketAddr) -> Version {
    Version {
        version: local.protocol_version,
        services: 0,
        to: Endpoint { services: 0, address: remote },
        from: Endpoint { services: 0, address: local_address },
        nonce: local.nonce,
        sub_version: Bytes::copy_from_slice(local.sub_version.as_bytes()),
        mode: 1,
        best_share: local.best_share,
    }
}

impl Peer {
    pub(super) fn handle_version(&mut self, version: Version) -> Result<(), Close> {
        if self.is_connected() {
            return Err(self.close_for_order(Offence::SecondVersion));
        }
        let minimum = self.local.minimum_protocol;
        if version.version < minimum {
            return Err(Offence::TooOld { version: version.version, minimum }.into());
        }
        if version.nonce == self.local.nonce {
            return Err(Close::Ourselves);
        }
        self.services = Some(version.services);
        self.events.push_back(PeerEvent::Connected(Hello {
            version: version.version,
            services: version.services,
            nonce: version.nonce,
            sub_version: readable(&version.sub_version),
            best_share: version.best_share,
        }));
        Ok(())
    }

    /// Close for a message out of order in the handshake: nodes with share version 36 do not ban for it.
    pub(super) fn close_for_order(&self, offence: Offence) -> Close {
        if self.local.has_laxer_nodes { Close::Quiet(offence.to_string()) } else { offence.into() }
    }
}

/// Decodes untrusted bytes to printable text: other characters could move a terminal's cursor, or turn the direction of
/// what follows.
fn readable(bytes: &[u8]) -> String {
    let kept = &bytes[..bytes.len().min(SUB_VERSION_BYTES_MAX)];
    // Quotes and backslashes are escaped, too, but printable.
    let is_printable = |one: char| matches!(one, '"' | '\'' | '\\') || one.escape_debug().len() == 1;
    String::from_utf8_lossy(kept).chars().map(|one| if is_printable(one) { one } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_cannot_command_a_terminal() {
        assert_eq!(readable(b"16.0-192-g6dac42e-dirty"), "16.0-192-g6dac42e-dirty");
        assert_eq!(readable(b"\x1b[2Jx\xff"), "\u{fffd}[2Jx\u{fffd}");
        assert_eq!(readable("a\u{202e}b\u{7f}\"\\é".as_bytes()), "a\u{fffd}b\u{fffd}\"\\é");
        assert_eq!(readable(&[b'x'; 900]).len(), 512);
    }
}
