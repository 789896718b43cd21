//! Promises of the chain that need no real daemon beside it; the verdicts on bad blocks are in `tests/parity`.
