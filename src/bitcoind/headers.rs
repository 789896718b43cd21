//! Publishes the header of the block that templates build on, for announcements to peers (protocol section 3.10).

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::rpc::Rpc;
use crate::template::Template;

/// Serialised block header.
pub type RawHeader = [u8; 80];

/// Publishes the header of each template's previous block until `stop`. Headers that cannot be fetched are skipped:
/// peers learn of the block from other nodes.
pub(super) async fn run(
    rpc: Rpc,
    mut templates: watch::Receiver<Option<Arc<Template>>>,
    headers: watch::Sender<Option<RawHeader>>,
    stop: CancellationToken,
) {
    let mut asked = None;
    loop {
        let previous = templates.borrow_and_update().as_ref().map(|template| template.previous_block);
        if let Some(previous) = previous.filter(|previous| asked != Some(*previous)) {
            // A hanging daemon must not delay the stop.
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                answer = rpc.raw_header(&previous) => answer,
            };
            match answer.map(|hex| decode(&hex)) {
                Ok(Some(header)) if header.block_hash() == previous => {
                    asked = Some(previous);
                    headers.send_replace(Some(raw(&header)));
                }
                Ok(_) => debug!(block = %previous, "bitcoind returned the header of another block"),
                Err(error) => debug!(block = %previous, %error, "cannot fetch the header of the best block"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = templates.changed() => if changed.is_err() { return },
        }
    }
}

/// Parses a header in hex.
fn decode(hex: &str) -> Option<Header> {
    encode::deserialize_hex(hex).ok()
}

fn raw(header: &Header) -> RawHeader {
    encode::serialize(header).try_into().expect("a header has 80 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::constants::genesis_block;

    #[test]
    fn a_header_survives_the_way_through_hex_and_anything_else_is_none() {
        let header = genesis_block(bitcoin::Network::Regtest).header;
        let hex = encode::serialize_hex(&header);
        assert_eq!(decode(&hex), Some(header));
        assert_eq!(raw(&header).len(), 80);
        for wrong in ["", "00", &hex[2..], &format!("{hex}00"), "zz"] {
            assert_eq!(decode(wrong), None);
        }
    }
}
