//! Identity of a connection.

/// Identifier of a connection, from the dial or accept on. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PeerId(pub u64);
