//! The payout address that `p2pool import` imported from an old node.

use anyhow::{Context, Result};
use sharechain::coin::Network;
use std::path::Path;

use crate::runtime::files;
use crate::work::Payout;

/// File name of the payout address, the old node's and ours.
pub const FILE: &str = "cached_payout_address";

/// Maximum size of the address file, in bytes.
pub const BYTES_MAX: u64 = 1000;

/// Returns the imported payout address, for a node that is given none.
///
/// # Errors
/// The address cannot be read or paid.
pub fn saved_payout(data_dir: &Path, network: &'static Network) -> Result<Option<Payout>> {
    let path = data_dir.join(FILE);
    let text = files::read(&path, BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(text) = text else { return Ok(None) };
    let payout = Payout::to_address(text.trim(), network);
    payout.map(Some).with_context(|| format!("{}: give another with -a, or remove the file", path.display()))
}
