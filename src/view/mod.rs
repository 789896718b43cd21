//! Views of a running node: snapshot, graphs, pages and JSON over HTTP, the control socket.

pub mod control;
pub mod graphs;
pub mod http;
pub mod snapshot;
