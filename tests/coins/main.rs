//! Coins and networks: their addresses.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod addresses;
