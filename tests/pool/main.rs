//! Nodes that are a pool together, each with a bitcoind and miners of its own: on the loopback interface, and on hosts with
//! a slow, lossy or torn network between them.

mod blocks;
mod far;
mod near;
mod pool;
