//! How a session behaves.

use std::time::Duration;

use crate::mining::difficulty::Difficulty;
use crate::mining::{vardiff, version_rolling};
use crate::v1::line::{LINE_BYTES_MAX, LINE_BYTES_MAX_BEFORE_AUTHORIZE};

/// When work that is worth less than the newest is to be dropped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropLateWork {
    /// Where that costs the device little.
    #[default]
    ByDevice,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// How a session behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// How difficulty is chosen.
    pub vardiff: vardiff::Config,
    /// Whether devices known by their user agent start at what suits them: their numbers are SHA-256 devices'.
    pub known_devices: bool,
    /// How long a connection may take to subscribe.
    pub subscribe_timeout: Duration,
    /// How long a connection may take to authorise.
    pub authorize_timeout: Duration,
    /// How long a miner may go without a good submission; `None` for as long as it likes, since the slowest do.
    pub idle_timeout: Option<Duration>,
    /// A job is sent at least this often: cgminer gives a silent pool up after 90 s, and the newest transactions are
    /// worth having. Each connection shortens it by up to a fifth, so that they do not all come at once.
    pub notify_interval: Duration,
    /// What difficulties told to miners are multiplied by: 1, and 65,536 for scrypt, where the field counts so.
    pub difficulty_scale: f64,
    /// Version bits that miners may roll, among those of [`version_rolling::VERSION_MASK`]; zero for none.
    pub version_mask: u32,
    /// Whether digits that firmware left out or added are understood.
    pub lenient: bool,
    /// When work that is worth less than the newest is to be dropped.
    pub drop_late_work: DropLateWork,
    /// Whether devices whose buffers are too small for the job are sent away; else they are only warned of.
    pub refuse_small_devices: bool,
    /// Worker names on one connection: a proxy's rigs. What comes under further names is put to the first one's account.
    pub workers_max: usize,
    /// Longest line taken from a miner that has authorised, in bytes.
    pub line_bytes_max: usize,
    /// Longest line taken before that: no handshake message needs more, and strangers get less room.
    pub line_bytes_max_before_authorize: usize,
    /// Lines that are no request before the connection is closed: some firmware sends one odd line, strangers send many.
    pub malformed_lines_max: u32,
    /// Refusals to authorise before the connection is closed: an owner who mistyped an address sees the reason by then.
    pub refused_names_max: u32,
    /// A miner whose submissions have all been invalid for so long gets a new job; for twice as long, it is told to
    /// reconnect; for three times as long, it is sent away.
    pub invalid_period: Duration,
    /// Lines that earn nothing, at a time: a proxy's workers, a stumbling device's invalid submissions.
    pub useless_lines_max: f64,
    /// How many of them a second a connection may send for long.
    pub useless_lines_per_second: f64,
    /// How often a connection may have a job's transactions, which are megabytes.
    pub transactions_interval: Duration,
    /// Most that a list of transactions may take: a full block in hex.
    pub transactions_bytes_max: usize,
}

impl Default for Config {
    /// The numbers that the field has settled on (the checklist names their sources).
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
            difficulty_scale: 1.0,
            version_mask: version_rolling::VERSION_MASK,
            lenient: true,
            drop_late_work: DropLateWork::ByDevice,
            refuse_small_devices: false,
            workers_max: 64,
            line_bytes_max: LINE_BYTES_MAX,
            line_bytes_max_before_authorize: LINE_BYTES_MAX_BEFORE_AUTHORIZE,
            malformed_lines_max: 3,
            refused_names_max: 16,
            invalid_period: Duration::from_secs(60),
            useless_lines_max: 256.0,
            useless_lines_per_second: 10.0,
            transactions_interval: Duration::from_secs(600),
            transactions_bytes_max: 8 * 1024 * 1024,
        }
    }
}
