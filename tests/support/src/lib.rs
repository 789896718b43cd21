//! Real daemons, a Stratum client and a node process for the tests: the product's surroundings. They share no code with
//! it, so that a mistake in the product cannot hide behind the same mistake here.
//!
//! Everything panics with a message instead of returning errors: a test can only fail on them.

mod bitcoind;
mod browser;
mod coins;
mod http;
mod hung_disk;
mod internet;
mod namespace;
mod node;
pub mod peer_client;
mod ports;
mod proxy;
mod signal;
mod stratum_client;

pub use bitcoind::{Bitcoind, mine_blocks};
pub use browser::Browser;
pub use coins::{Spender, payout_address};
pub use http::{Response, get, get_with};
pub use hung_disk::{HungDisk, SmallDisk};
pub use internet::Internet;
pub use namespace::Namespace;
pub use node::{Exit, Node, NodeBuilder, metric_value, wait_until};
pub use peer_client::{Frame, Hello, PeerClient, PeerError, PeerListener, ShareRequest};
pub use ports::free_port;
pub use proxy::{Fault, HttpProxy, TcpProxy};
pub use stratum_client::{ClientError, Job, Notification, StratumClient, Submission, target_of};
