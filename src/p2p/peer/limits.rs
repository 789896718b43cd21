//! How much a peer may send.
