//! Nodes that form a pool, each with its own bitcoind and miner: on the loopback interface, and on separate hosts with
//! a slow, lossy or partitioned network between them.

mod blocks;
mod far;
mod near;
mod pool;
