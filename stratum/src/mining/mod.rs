//! What every protocol that miners speak has in common: jobs, submissions and their judge, difficulty, the memory of miners,
//! and [`work::Work`], which says what is mined.

pub mod device;
pub mod difficulty;
pub mod duplicates;
pub mod epochs;
pub mod error;
pub mod extranonce;
pub mod job;
pub mod judge;
pub mod memory;
pub mod midstate;
pub mod solution;
pub mod submission;
pub mod tally;
pub mod vardiff;
pub mod version_rolling;
pub mod work;
