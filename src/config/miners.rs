//! What the options say about how miners are served: limits and difficulties, with the numbers that the field has settled
//! on (`stratum::checklist`).

use clap::Args;
use sharechain::coin::Network;
use std::ops::RangeInclusive;
use std::time::Duration;
use stratum::Difficulty;
use stratum::mining::vardiff;
use stratum::server::limits::Limits;
use stratum::v1::session;
use stratum::v1::session::DropLateWork;

use super::{Problems, count, number};

/// Seconds that a time limit may have.
const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;

/// How much miners may do.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Seconds between the submissions of a miner that its difficulty is chosen for.
    #[arg(
        short,
        long,
        value_name = "SECONDS",
        default_value = "3",
        env = "P2POOL_SHARE_RATE",
        allow_negative_numbers = true
    )]
    share_rate: String,
    /// Most connections of miners in all.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "50000",
        env = "P2POOL_MAX_WORKERS",
        allow_negative_numbers = true
    )]
    max_workers: String,
    /// Most connections of miners from one address; this machine's own are not counted.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "4096",
        env = "P2POOL_MAX_WORKERS_PER_ADDRESS",
        allow_negative_numbers = true
    )]
    max_workers_per_address: String,
}

/// Options beside those that most operators need.
#[derive(Debug, Args)]
#[command(next_help_heading = "How miners are served")]
pub(super) struct MinerArgs {
    /// New connections a second from one network, a /24 of IPv4 or a /64 of IPv6; a second's worth may come at once;
    /// this machine's own are not counted.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "200",
        env = "P2POOL_MAX_CONNECTS_PER_SECOND",
        allow_negative_numbers = true
    )]
    max_connects_per_second: String,
    /// How long a connection may take to subscribe.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "15",
        env = "P2POOL_SUBSCRIBE_TIMEOUT",
        allow_negative_numbers = true
    )]
    subscribe_timeout: String,
    /// How long a connection may take to authorise.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "60",
        env = "P2POOL_AUTHORIZE_TIMEOUT",
        allow_negative_numbers = true
    )]
    authorize_timeout: String,
    /// How long a miner may go without a good submission; the slowest take hours [default: no limit].
    #[arg(long, value_name = "SECONDS", env = "P2POOL_IDLE_TIMEOUT", allow_negative_numbers = true)]
    idle_timeout: Option<String>,
    /// How long a miner may take nothing of what it is sent.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "60",
        env = "P2POOL_WRITE_TIMEOUT",
        allow_negative_numbers = true
    )]
    write_timeout: String,
    /// A job is sent at least this often.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "30",
        env = "P2POOL_NOTIFY_INTERVAL",
        allow_negative_numbers = true
    )]
    notify_interval: String,
    /// The least difficulty that is chosen for a miner.
    #[arg(
        long,
        value_name = "DIFFICULTY",
        default_value = "0.00001",
        env = "P2POOL_MIN_DIFFICULTY",
        allow_negative_numbers = true
    )]
    min_difficulty: String,
    /// The greatest difficulty that is chosen for a miner.
    #[arg(
        long,
        value_name = "DIFFICULTY",
        default_value = "1e10",
        env = "P2POOL_MAX_DIFFICULTY",
        allow_negative_numbers = true
    )]
    max_difficulty: String,
    /// Version bits that miners may roll; 0 for none.
    #[arg(
        long,
        value_name = "HEX",
        default_value = "1fffe000",
        env = "P2POOL_VERSION_MASK",
        allow_negative_numbers = true
    )]
    version_mask: String,
    /// When work that is not the best any more, but not stale, is to be dropped by miners: by-device, always or never.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "by-device",
        env = "P2POOL_LATE_WORK",
        allow_negative_numbers = true
    )]
    late_work: String,
    /// Worker names on one connection; what comes under more goes to the first.
    #[arg(long, value_name = "COUNT", default_value = "64", env = "P2POOL_MAX_NAMES", allow_negative_numbers = true)]
    max_names: String,
    /// Longest line taken of a miner that has authorised.
    #[arg(long, value_name = "BYTES", default_value = "16384", env = "P2POOL_MAX_LINE", allow_negative_numbers = true)]
    max_line: String,
    /// Longest line taken of a miner that has not authorised.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "4096",
        env = "P2POOL_MAX_FIRST_LINE",
        allow_negative_numbers = true
    )]
    max_first_line: String,
    /// Lines that are no request before a connection is closed.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "3",
        env = "P2POOL_MAX_MALFORMED",
        allow_negative_numbers = true
    )]
    max_malformed: String,
    /// Names that are refused before a connection is closed.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "16",
        env = "P2POOL_MAX_REFUSED_NAMES",
        allow_negative_numbers = true
    )]
    max_refused_names: String,
    /// A miner with nothing but invalid submissions for so long gets a new job; after twice as long it is asked to
    /// connect again, after three times as long it is sent away.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "60",
        env = "P2POOL_INVALID_PERIOD",
        allow_negative_numbers = true
    )]
    invalid_period: String,
    /// Lines that earn nothing which a connection may send at a time.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "256",
        env = "P2POOL_MAX_USELESS_LINES",
        allow_negative_numbers = true
    )]
    max_useless_lines: String,
    /// The same for long, a second.
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "10",
        env = "P2POOL_USELESS_LINES_PER_SECOND",
        allow_negative_numbers = true
    )]
    useless_lines_per_second: String,
    /// Bytes that wait for a miner to read them above which nothing more is read of it.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "262144",
        env = "P2POOL_MAX_UNREAD",
        allow_negative_numbers = true
    )]
    max_unread: String,
    /// How often a connection may ask for a job's transactions.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "600",
        env = "P2POOL_TRANSACTIONS_INTERVAL",
        allow_negative_numbers = true
    )]
    transactions_interval: String,
    /// Most bytes that a list of a job's transactions may have.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "8388608",
        env = "P2POOL_MAX_TRANSACTIONS",
        allow_negative_numbers = true
    )]
    max_transactions: String,
    /// Refuse submissions whose digits firmware shortened, padded or wrote with 0x.
    #[arg(long, env = "P2POOL_STRICT")]
    strict: bool,
    /// Send devices away whose buffers are known to be too small for the jobs; else they are warned of.
    #[arg(long, env = "P2POOL_REFUSE_SMALL_DEVICES")]
    refuse_small_devices: bool,
    /// Start every device at the same difficulty, whatever it calls itself.
    #[arg(long, env = "P2POOL_NO_KNOWN_DEVICES")]
    no_known_devices: bool,
}

/// Everything is looked at, whatever is wrong before it.
pub(super) fn stratum(
    load: &LoadArgs,
    args: &MinerArgs,
    network: Option<&'static Network>,
    problems: &mut Problems,
) -> Option<stratum::server::Config> {
    let share_rate = problems.take("--share-rate", number(&load.share_rate, 0.1..=600.0));
    let connections_max = problems.take("--max-workers", count(&load.max_workers));
    let per_address = problems.take("--max-workers-per-address", count(&load.max_workers_per_address));
    let per_second = problems.take("--max-connects-per-second", number(&args.max_connects_per_second, 0.01..=1e6));
    let mut seconds = |option, text: &str| problems.take(option, number(text, SECONDS)).map(Duration::from_secs_f64);
    let subscribe_timeout = seconds("--subscribe-timeout", &args.subscribe_timeout);
    let authorize_timeout = seconds("--authorize-timeout", &args.authorize_timeout);
    let write_timeout = seconds("--write-timeout", &args.write_timeout);
    let notify_interval = seconds("--notify-interval", &args.notify_interval);
    let invalid_period = seconds("--invalid-period", &args.invalid_period);
    let transactions_interval = seconds("--transactions-interval", &args.transactions_interval);
    let idle_timeout = match &args.idle_timeout {
        Some(text) => seconds("--idle-timeout", text).map(Some),
        None => Some(None),
    };
    let min = problems.take("--min-difficulty", difficulty(&args.min_difficulty));
    let max = problems.take("--max-difficulty", difficulty(&args.max_difficulty));
    if let (Some(min), Some(max)) = (min, max)
        && min.get() > max.get()
    {
        problems.add("--min-difficulty", format!("{min} is more than --max-difficulty, {max}"));
    }
    let version_mask = problems.take("--version-mask", mask(&args.version_mask));
    let drop_late_work = problems.take("--late-work", late_work(&args.late_work));
    let workers_max = problems.take("--max-names", count(&args.max_names));
    let line_bytes_max = problems.take("--max-line", bytes(&args.max_line, 1024));
    let line_bytes_max_before_authorize = problems.take("--max-first-line", bytes(&args.max_first_line, 1024));
    let malformed_lines_max = problems.take("--max-malformed", small_count(&args.max_malformed));
    let refused_names_max = problems.take("--max-refused-names", small_count(&args.max_refused_names));
    let useless_lines_max = problems.take("--max-useless-lines", number(&args.max_useless_lines, 1.0..=1e9));
    let useless_lines_per_second =
        problems.take("--useless-lines-per-second", number(&args.useless_lines_per_second, 0.01..=1e9));
    let pending_bytes_max = problems.take("--max-unread", bytes(&args.max_unread, 16 * 1024));
    let transactions_bytes_max = problems.take("--max-transactions", bytes(&args.max_transactions, 0));
    let base = network.map(base)?;
    Some(stratum::server::Config {
        session: session::Config {
            vardiff: vardiff::Config {
                interval: Duration::from_secs_f64(share_rate?),
                min: min?,
                max: max?,
                ..base.session.vardiff
            },
            known_devices: base.session.known_devices && !args.no_known_devices,
            subscribe_timeout: subscribe_timeout?,
            authorize_timeout: authorize_timeout?,
            idle_timeout: idle_timeout?,
            notify_interval: notify_interval?,
            version_mask: version_mask?,
            lenient: !args.strict,
            drop_late_work: drop_late_work?,
            refuse_small_devices: args.refuse_small_devices,
            workers_max: workers_max?,
            line_bytes_max: line_bytes_max?,
            line_bytes_max_before_authorize: line_bytes_max_before_authorize?,
            malformed_lines_max: malformed_lines_max?,
            refused_names_max: refused_names_max?,
            invalid_period: invalid_period?,
            useless_lines_max: useless_lines_max?,
            useless_lines_per_second: useless_lines_per_second?,
            transactions_interval: transactions_interval?,
            transactions_bytes_max: transactions_bytes_max?,
            ..base.session
        },
        limits: Limits {
            connections_max: connections_max?,
            connections_per_address_max: per_address?,
            connections_per_second_max: per_second?,
        },
        write_timeout: write_timeout?,
        pending_bytes_max: pending_bytes_max?,
    })
}

/// How miners of `network` are served unless somebody says otherwise.
pub(super) fn base(network: &Network) -> stratum::server::Config {
    let defaults = session::Config::default();
    let start = Difficulty::new(network.start_difficulty).expect("a positive constant");
    let dumb_scrypt_diff = network.parent.dumb_scrypt_diff;
    stratum::server::Config {
        session: session::Config {
            vardiff: vardiff::Config { start, ..defaults.vardiff },
            // What suits SHA-256 devices on a network where they are used.
            known_devices: network.start_difficulty >= 1.0 && dumb_scrypt_diff == 1,
            difficulty_scale: f64::from(dumb_scrypt_diff),
            ..defaults
        },
        ..stratum::server::Config::default()
    }
}

fn difficulty(text: &str) -> Result<Difficulty, String> {
    let difficulty = text.parse().ok().and_then(Difficulty::new);
    difficulty.ok_or_else(|| format!("`{text}` is no difficulty, such as 1024 or 0.001"))
}

fn mask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16)
        .ok()
        .filter(|mask| mask & !stratum::mining::version_rolling::VERSION_MASK == 0)
        .ok_or_else(|| {
            format!("`{text}` is not of the bits {:08x} (BIP 320)", stratum::mining::version_rolling::VERSION_MASK)
        })
}

fn late_work(text: &str) -> Result<DropLateWork, String> {
    match text {
        "by-device" => Ok(DropLateWork::ByDevice),
        "always" => Ok(DropLateWork::Always),
        "never" => Ok(DropLateWork::Never),
        _ => Err(format!("`{text}` is none of by-device, always and never")),
    }
}

fn bytes(text: &str, least: usize) -> Result<usize, String> {
    const MOST: usize = 1 << 30;
    text.parse()
        .ok()
        .filter(|bytes| (least..=MOST).contains(bytes))
        .ok_or_else(|| format!("`{text}` is not a number of bytes from {least} to {MOST}"))
}

fn small_count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::arguments::RunArgs;

    #[test]
    fn without_options_miners_are_served_as_the_checklist_says() {
        let mut problems = Problems::default();
        let arguments = <RunArgs as clap::Args>::augment_args(clap::Command::new("test"))
            .try_get_matches_from(["test"])
            .map(|matches| <RunArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap())
            .unwrap();
        let network = sharechain::coin::by_name("bitcoin").unwrap();
        let config = stratum(&arguments.load, &arguments.miners, Some(network), &mut problems).unwrap();
        let session = session::Config { vardiff: base(network).session.vardiff, ..session::Config::default() };
        assert_eq!(config.session, session);
        assert_eq!(config.write_timeout, stratum::server::Config::default().write_timeout);
        assert_eq!(config.pending_bytes_max, stratum::server::Config::default().pending_bytes_max);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_value() {
        for (problem, told) in [
            (mask("ffffffff").unwrap_err(), "`ffffffff`"),
            (late_work("sometimes").unwrap_err(), "`sometimes`"),
            (bytes("10", 1024).unwrap_err(), "`10`"),
            (small_count("0").unwrap_err(), "`0`"),
            (difficulty("0").unwrap_err(), "`0`"),
        ] {
            assert!(problem.contains(told), "{problem}");
        }
        assert_eq!(mask("0"), Ok(0));
    }
}
