//! Settings of a session.

use std::time::Duration;

use crate::mining::difficulty::{Difficulty, Scale};
use crate::mining::{vardiff, version_rolling};
use crate::v1::line::{LINE_BYTES_MAX, LINE_BYTES_MAX_BEFORE_AUTHORIZE};

/// Policy for dropping work at once that is worth less than the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropLateWork {
    /// Only where that costs the device little.
    #[default]
    ByDevice,
    /// On every device.
    Always,
    /// On no device.
    Never,
}

/// Settings of a session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Settings of variable difficulty.
    pub vardiff: vardiff::Config,
    /// Set to start devices known by their user agent at a suitable difficulty; the table is for SHA-256 devices.
    pub known_devices: bool,
    /// Maximum time to subscribe after connecting.
    pub subscribe_timeout: Duration,
    /// Maximum time to authorise after connecting.
    pub authorize_timeout: Duration,
    /// Maximum time without a valid submission; `None` for no limit, as the slowest miners need.
    pub idle_timeout: Option<Duration>,
    /// Maximum time between jobs: cgminer gives a silent pool up after 90 s, and the newest transactions are worth
    /// having. Each connection shortens it by up to a fifth, so that jobs are not sent to all at once.
    pub notify_interval: Duration,
    /// Scale of the difficulties in messages from and to miners; those in user names are not scaled (protocol trap 48).
    pub difficulty_scale: Scale,
    /// Version bits that miners may roll, a subset of [`version_rolling::VERSION_MASK`]; zero for none.
    pub version_mask: u32,
    /// Set to accept submissions with digits left out or added by firmware.
    pub lenient: bool,
    /// Policy for dropping work that is worth less than the newest.
    pub drop_late_work: DropLateWork,
    /// Set to disconnect devices whose buffers are too small for the job; otherwise they are only reported.
    pub refuse_small_devices: bool,
    /// Maximum number of worker names per connection, such as a proxy's rigs; the first is credited for further ones.
    pub workers_max: usize,
    /// Maximum length of a line from a miner that has authorised, in bytes.
    pub line_bytes_max: usize,
    /// The same before authorisation: no handshake message needs more, and strangers get less room.
    pub line_bytes_max_before_authorize: usize,
    /// Malformed lines before the connection is closed: some firmware sends one odd line, strangers send many.
    pub malformed_lines_max: u32,
    /// Refused names before the connection is closed: enough for the owner of a mistyped address to see the reason.
    pub refused_names_max: u32,
    /// Set to have the driver check name and password of each `mining.authorize`
    /// ([`Event::Credentials`](super::Event::Credentials)).
    pub checks_credentials: bool,
    /// Refused user names and passwords before the connection is closed, while none was accepted.
    pub refused_passwords_max: u32,
    /// Time of only invalid submissions after which a miner gets a new job; after twice as long it is asked to
    /// reconnect, after three times as long it is disconnected.
    pub invalid_period: Duration,
    /// Burst of useless lines allowed: a proxy's workers, the invalid submissions of a stumbling device.
    pub useless_lines_max: f64,
    /// Sustained rate of useless lines allowed, per second.
    pub useless_lines_per_second: f64,
    /// Minimum time between two lists of transactions on a connection, which are megabytes each.
    pub transactions_interval: Duration,
    /// Maximum size of a list of transactions, in bytes: a full block in hex.
    pub transactions_bytes_max: usize,
}

impl Default for Config {
    /// Values that the field has settled on (the checklist names their sources).
    fn default() -> Self {
        let difficulty = |value| Difficulty::new(value).expect("a positive constant");
        Self {
            vardiff: vardiff::Config {
                interval: Duration::from_secs(3),
                start: difficulty(1024.0),
                // An ESP32 finds one of these in a second or two.
                min: difficulty(1e-5),
                // Ten exahashes a second on one connection.
                max: difficulty(1e10),
            },
            known_devices: true,
            subscribe_timeout: Duration::from_secs(15),
            authorize_timeout: Duration::from_secs(60),
            idle_timeout: None,
            notify_interval: Duration::from_secs(30),
            difficulty_scale: Scale::default(),
            version_mask: version_rolling::VERSION_MASK,
            lenient: true,
            drop_late_work: DropLateWork::ByDevice,
            refuse_small_devices: false,
            workers_max: 64,
            line_bytes_max: LINE_BYTES_MAX,
            line_bytes_max_before_authorize: LINE_BYTES_MAX_BEFORE_AUTHORIZE,
            malformed_lines_max: 3,
            refused_names_max: 16,
            checks_credentials: false,
            refused_passwords_max: 4,
            invalid_period: Duration::from_secs(60),
            useless_lines_max: 256.0,
            useless_lines_per_second: 10.0,
            transactions_interval: Duration::from_secs(600),
            transactions_bytes_max: 8 * 1024 * 1024,
        }
    }
}
