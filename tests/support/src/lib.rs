//! Real daemons, a Stratum client and a node process for the tests: the product's surroundings. They share no code with
//! it, so that a mistake in the product cannot hide behind the same mistake here.
//!
//! Everything panics with a message instead of returning errors: a test can only fail on them.

mod addresses;
mod bitcoind;
mod browser;
mod coins;
mod daemon;
mod http;
mod hung_disk;
mod internet;
mod litecoind;
mod namespace;
mod node;
pub mod peer_client;
mod ports;
mod proxy;
mod signal;
mod stratum_client;

pub use addresses::payout_address;
pub use bitcoind::Bitcoind;
pub use browser::Browser;
pub use coins::Spender;
pub use daemon::{Daemon, mine_blocks};
pub use http::{Response, get, get_with};
pub use hung_disk::{HungDisk, SmallDisk};
pub use internet::Internet;
pub use litecoind::Litecoind;
pub use namespace::Namespace;
pub use node::{Exit, Node, NodeBuilder, metric_value, wait_until};
pub use peer_client::{Frame, Hello, PeerClient, PeerError, PeerListener, ShareRequest};
pub use ports::free_port;
pub use proxy::{Fault, HttpProxy, TcpProxy};
pub use stratum_client::{ClientError, Job, Notification, StratumClient, Submission, target_of};
