//! Real daemons, a Stratum client and a node process for the tests.
