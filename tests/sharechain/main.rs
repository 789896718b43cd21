//! Rules of the tracker that no recorded vector covers (protocol section 18.3), on forged chains.

#![allow(clippy::unwrap_used, reason = "a test can do nothing about an error but fail")]

#[path = "."]
mod sharechain {
    mod attacks;
    mod choice;
    mod owner;
    mod pruning;
    mod strangers;
    mod verification;
}
