//! Foundation of all other rooms: tasks, log, metrics, sockets, the data directory, and the disk's health.

pub mod accept;
pub mod access;
pub mod backoff;
pub mod clock;
pub mod data_dir;
pub mod disk;
pub mod files;
pub mod json_lines;
pub mod log;
pub mod metrics;
pub mod secret;
pub mod sockets;
pub mod tasks;
pub mod users;
