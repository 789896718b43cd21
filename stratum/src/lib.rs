//! Stratum
