//! What people and programs see of a running node: one snapshot of it, graphs, pages and JSON over HTTP, the control socket.

pub mod control;
pub mod graphs;
pub mod http;
pub mod snapshot;
