//! Options of the Stratum server: limits and difficulties. The defaults are common practice (`stratum::checklist`).

use std::ops::RangeInclusive;
use stratum::Difficulty;
use stratum::mining::version_rolling::VERSION_MASK;
use stratum::server::Config;
use stratum::v1::session::DropLateWork;

use super::options::Opt;
use super::problems::Problems;
use super::values;

/// Range of a time limit, in seconds.
const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;

/// Heading of the options that most operators leave alone.
const HEADING: &str = "How miners are served";

/// Options of load: submission rate and connections.
pub(super) fn load() -> Vec<Opt<Config>> {
    vec![
        Opt::seconds("share-rate", 0.1..=600.0, |config: &mut Config| &mut config.session.vardiff.interval)
            .short('s')
            .help("Target time between a miner's submissions; sets its difficulty"),
        Opt::count("max-connections", |config: &mut Config| &mut config.limits.connections_max)
            .help("Maximum number of connections at the ports for miners and pages"),
        Opt::count("max-connections-per-address", |config: &mut Config| &mut config.limits.connections_per_address_max)
            .help("Maximum number of connections from one IPv4 address or IPv6 /64, except from this machine"),
    ]
}

/// Remaining options, which most operators leave alone.
pub(super) fn serving() -> Vec<Opt<Config>> {
    [times(), choices(), bounds(), patience()].into_iter().flatten().map(|option| option.heading(HEADING)).collect()
}

fn times() -> Vec<Opt<Config>> {
    vec![
        Opt::number("max-connects-per-second", "COUNT", 0.01..=1e6, |config: &mut Config| {
            &mut config.limits.connections_per_second_max
        })
        .help(
            "Maximum new connections per second from one IPv4 /24 or IPv6 /64, except from this machine; bursts of one \
             second's worth are allowed",
        ),
        Opt::count("max-http-connections", |config: &mut Config| &mut config.limits.http_max)
            .help("Maximum number of HTTP connections, of which one network may hold a quarter"),
        Opt::count("max-uncredited-per-network", |config: &mut Config| &mut config.limits.uncredited_per_network_max)
            .help(
                "Maximum number of connections from one IPv4 /24, IPv6 /48 or /64 without a credited submission since \
                 --uncredited-grace; beyond, the oldest is closed",
            ),
        Opt::seconds("uncredited-grace", SECONDS, |config: &mut Config| &mut config.limits.grace)
            .help("Time within which a miner is expected to have a submission credited"),
        Opt::seconds("subscribe-timeout", SECONDS, |config: &mut Config| &mut config.session.subscribe_timeout)
            .help("Time limit for a connection to subscribe"),
        Opt::seconds("authorize-timeout", SECONDS, |config: &mut Config| &mut config.session.authorize_timeout)
            .help("Time limit for a connection to authorise"),
        Opt::optional("idle-timeout", "SECONDS", values::seconds(SECONDS), |config: &mut Config, timeout| {
            config.session.idle_timeout = Some(timeout);
        })
        .help(
            "Time without a valid submission after which a miner is disconnected; the slowest miners need hours \
             [default: no limit]",
        ),
        Opt::seconds("write-timeout", SECONDS, |config: &mut Config| &mut config.write_timeout)
            .help("Time after which a miner that reads nothing is disconnected"),
        Opt::seconds("notify-interval", SECONDS, |config: &mut Config| &mut config.session.notify_interval)
            .help("Maximum time between two jobs"),
    ]
}

fn choices() -> Vec<Opt<Config>> {
    vec![
        difficulty("min-difficulty", |config| &mut config.session.vardiff.min)
            .derived(|config| vec![shown(config.session.vardiff.min, config)])
            .help(
                "Minimum difficulty chosen for a miner, in its unit: on scrypt networks 1 is 65,536 hashes \
                 [default: 0.00001; on scrypt networks the coin's limit, 0.015 on litecoin]",
            ),
        difficulty("max-difficulty", |config| &mut config.session.vardiff.max)
            .derived(|config| vec![shown(config.session.vardiff.max, config)])
            .help(
                "Maximum difficulty chosen for a miner, in the same unit [default: 1e10; on scrypt networks the coin's \
                 limit, 1.5e10 on litecoin]",
            ),
        Opt::field(
            "version-mask",
            "HEX",
            mask,
            |mask| format!("{mask:08x}"),
            |config: &mut Config| &mut config.session.version_mask,
        )
        .help("Version bits that miners may roll (BIP 320); 0 for none"),
        Opt::field("late-work", "WHEN", late_work, late_work_word, |config: &mut Config| {
            &mut config.session.drop_late_work
        })
        .help("When miners must drop work that is outdated but not stale: by-device, always or never"),
    ]
}

/// Option with a difficulty in the unit of the network's miners.
fn difficulty(name: &'static str, field: fn(&mut Config) -> &mut Difficulty) -> Opt<Config> {
    Opt::setter(name, "DIFFICULTY", values::difficulty, move |config: &mut Config, number| {
        *field(config) = values::on_scale(number, config.session.difficulty_scale)?;
        Ok(())
    })
}

/// Formats a difficulty in the unit of the network's miners.
fn shown(difficulty: Difficulty, config: &Config) -> String {
    values::show_number(config.session.difficulty_scale.show(difficulty.get()))
}

fn bounds() -> Vec<Opt<Config>> {
    let bytes = |name, least, field| Opt::field(name, "BYTES", values::bytes(least), usize::to_string, field);
    vec![
        Opt::count("max-names", |config: &mut Config| &mut config.session.workers_max)
            .help("Maximum worker names per connection; further ones count as the first"),
        bytes("max-line", 1024, |config: &mut Config| &mut config.session.line_bytes_max)
            .help("Maximum length of a line from an authorised miner"),
        bytes("max-first-line", 1024, |config| &mut config.session.line_bytes_max_before_authorize)
            .help("Maximum length of a line before authorisation"),
        Opt::count("max-malformed", |config: &mut Config| &mut config.session.malformed_lines_max)
            .help("Malformed lines before a connection is closed"),
        Opt::count("max-refused-names", |config: &mut Config| &mut config.session.refused_names_max)
            .help("Refused worker names before a connection is closed"),
        bytes("max-unread", 16 * 1024, |config| &mut config.pending_bytes_max)
            .help("Unsent bytes for a miner above which no more requests are read from it"),
        bytes("max-transactions", 0, |config| &mut config.session.transactions_bytes_max)
            .help("Maximum size of the response to mining.get_transactions"),
        Opt::seconds("transactions-interval", SECONDS, |config: &mut Config| &mut config.session.transactions_interval)
            .help("Minimum time between two mining.get_transactions requests of a connection"),
    ]
}

fn patience() -> Vec<Opt<Config>> {
    vec![
        Opt::seconds("invalid-period", SECONDS, |config: &mut Config| &mut config.session.invalid_period).help(
            "Time with only invalid submissions after which a miner gets a new job; after twice as long it is asked to \
             reconnect, after three times as long it is disconnected",
        ),
        Opt::number("max-useless-lines", "COUNT", 1.0..=1e9, |config: &mut Config| {
            &mut config.session.useless_lines_max
        })
        .help("Maximum burst of useless lines from a connection"),
        Opt::number("useless-lines-per-second", "COUNT", 0.01..=1e9, |config: &mut Config| {
            &mut config.session.useless_lines_per_second
        })
        .help("Maximum sustained rate of useless lines from a connection, per second"),
        Opt::flag("strict", |config: &mut Config| config.session.lenient = false)
            .help("Refuse submissions with hex fields that the firmware shortened, padded or prefixed with 0x"),
        Opt::flag("refuse-small-devices", |config: &mut Config| config.session.refuse_small_devices = true).help(
            "Disconnect devices whose buffers are known to be too small for the jobs, instead of logging a warning",
        ),
        Opt::flag("no-known-devices", |config: &mut Config| config.session.known_devices = false)
            .help("Start all devices at the same difficulty, regardless of their user agent"),
    ]
}

/// Reports options that contradict each other.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let (min, max) = (config.session.vardiff.min, config.session.vardiff.max);
    if min.get() > max.get() {
        let [min, max] = [min, max].map(|one| config.session.difficulty_scale.show(one.get()));
        problems.add("min-difficulty", format!("{min} is more than --max-difficulty, {max}"));
    }
}

fn mask(text: &str) -> Result<u32, String> {
    // TOML's prefix of hex numbers is accepted.
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mask = u32::from_str_radix(digits, 16).ok().filter(|mask| mask & !VERSION_MASK == 0);
    mask.ok_or_else(|| format!("`{text}` is not a mask within {VERSION_MASK:08x} (BIP 320)"))
}

fn late_work_word(when: &DropLateWork) -> String {
    let word = match when {
        DropLateWork::ByDevice => "by-device",
        DropLateWork::Always => "always",
        DropLateWork::Never => "never",
    };
    word.to_owned()
}

fn late_work(text: &str) -> Result<DropLateWork, String> {
    let all = [DropLateWork::ByDevice, DropLateWork::Always, DropLateWork::Never];
    let found = all.into_iter().find(|when| late_work_word(when) == text);
    found.ok_or_else(|| format!("`{text}` is not one of by-device, always, never"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_value() {
        for (problem, told) in [(mask("ffffffff").unwrap_err(), "`ffffffff`"), (late_work("now").unwrap_err(), "`now`")]
        {
            assert!(problem.contains(told), "{problem}");
        }
        assert_eq!((mask("0"), mask("0x1fffe000")), (Ok(0), Ok(VERSION_MASK)));
    }
}
