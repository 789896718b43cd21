//! Output scripts, of any length and of either chain: shared bytes that are cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Bytes of a script that its debug form shows.
const SHOWN_BYTES: usize = 64;

/// Output script. Compared and ordered by its bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Script(Arc<[u8]>);

impl Script {
    /// Bytes of the script.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Script {
    fn from(bytes: &[u8]) -> Script {
        Script(bytes.into())
    }
}

impl Borrow<[u8]> for Script {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.0.split_at(self.0.len().min(SHOWN_BYTES));
        f.write_str(&hex::encode(shown))?;
        if rest.is_empty() { Ok(()) } else { write!(f, "… ({} bytes)", self.0.len()) }
    }
}
