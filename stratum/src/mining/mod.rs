//! Common ground of the mining protocols: jobs, submissions and how they are judged, difficulty, the memory of past
//! sessions, and the trait [`work::Work`], the source of jobs.

pub mod device;
pub mod difficulty;
pub mod duplicates;
pub mod epochs;
pub mod error;
pub mod extranonce;
pub mod fair_map;
pub mod job;
pub mod jobs;
pub mod judge;
pub mod memory;
pub mod midstate;
pub mod pow_budget;
pub mod solution;
pub mod source;
pub mod submission;
pub mod tally;
pub mod token_buckets;
pub mod vardiff;
pub mod version_rolling;
pub mod work;
