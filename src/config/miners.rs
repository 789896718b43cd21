//! Options about how miners are served: limits and difficulties, with the numbers that the field has settled on
//! (`stratum::checklist`).

use std::ops::RangeInclusive;
use stratum::mining::version_rolling::VERSION_MASK;
use stratum::server::Config;
use stratum::v1::session::DropLateWork;

use super::options::Opt;
use super::problems::Problems;
use super::values;

/// Seconds that a time limit may have.
const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;

/// Heading of the options beside those that most operators need.
const HEADING: &str = "How miners are served";

/// How much miners may do.
pub(super) fn load() -> Vec<Opt<Config>> {
    vec![
        Opt::seconds("share-rate", 0.1..=600.0, |config: &mut Config| &mut config.session.vardiff.interval)
            .short('s')
            .help("Seconds between the submissions of a miner that its difficulty is chosen for"),
        Opt::count("max-connections", |config: &mut Config| &mut config.limits.connections_max)
            .help("Most connections of miners in all"),
        Opt::count("max-connections-per-address", |config: &mut Config| &mut config.limits.connections_per_address_max)
            .help("Most connections of miners from one address; this machine's own are not counted"),
    ]
}

/// The rest, which most operators leave alone.
pub(super) fn serving() -> Vec<Opt<Config>> {
    [times(), choices(), bounds(), patience()].into_iter().flatten().map(|option| option.heading(HEADING)).collect()
}

fn times() -> Vec<Opt<Config>> {
    vec![
        Opt::number("max-connects-per-second", "COUNT", 0.01..=1e6, |config: &mut Config| {
            &mut config.limits.connections_per_second_max
        })
        .help(
            "New connections a second from one network, a /24 of IPv4 or a /64 of IPv6; a second's worth may come at \
             once; this machine's own are not counted",
        ),
        Opt::seconds("subscribe-timeout", SECONDS, |config: &mut Config| &mut config.session.subscribe_timeout)
            .help("How long a connection may take to subscribe"),
        Opt::seconds("authorize-timeout", SECONDS, |config: &mut Config| &mut config.session.authorize_timeout)
            .help("How long a connection may take to authorise"),
        Opt::optional("idle-timeout", "SECONDS", values::seconds(SECONDS), |config: &mut Config, timeout| {
            config.session.idle_timeout = Some(timeout);
        })
        .help("How long a miner may go without a good submission; the slowest take hours [default: no limit]"),
        Opt::seconds("write-timeout", SECONDS, |config: &mut Config| &mut config.write_timeout)
            .help("How long a miner may take nothing of what it is sent"),
        Opt::seconds("notify-interval", SECONDS, |config: &mut Config| &mut config.session.notify_interval)
            .help("A job is sent at least this often"),
    ]
}

fn choices() -> Vec<Opt<Config>> {
    let difficulty = |name, field| {
        Opt::field(name, "DIFFICULTY", values::difficulty, |value| values::show_number(value.get()), field)
    };
    vec![
        difficulty("min-difficulty", |config: &mut Config| &mut config.session.vardiff.min)
            .help("The least difficulty that is chosen for a miner"),
        difficulty("max-difficulty", |config: &mut Config| &mut config.session.vardiff.max)
            .help("The greatest difficulty that is chosen for a miner"),
        Opt::field(
            "version-mask",
            "HEX",
            mask,
            |mask| format!("{mask:08x}"),
            |config: &mut Config| &mut config.session.version_mask,
        )
        .help("Version bits that miners may roll; 0 for none"),
        Opt::field("late-work", "WHEN", late_work, late_work_word, |config: &mut Config| {
            &mut config.session.drop_late_work
        })
        .help(
            "When work that is not the best any more, but not stale, is to be dropped by miners: by-device, always or \
             never",
        ),
    ]
}

fn bounds() -> Vec<Opt<Config>> {
    let bytes = |name, least, field| Opt::field(name, "BYTES", values::bytes(least), usize::to_string, field);
    vec![
        Opt::count("max-names", |config: &mut Config| &mut config.session.workers_max)
            .help("Worker names on one connection; what comes under more goes to the first"),
        bytes("max-line", 1024, |config: &mut Config| &mut config.session.line_bytes_max)
            .help("Longest line taken of a miner that has authorised"),
        bytes("max-first-line", 1024, |config| &mut config.session.line_bytes_max_before_authorize)
            .help("Longest line taken of a miner that has not authorised"),
        Opt::count("max-malformed", |config: &mut Config| &mut config.session.malformed_lines_max)
            .help("Lines that are no request before a connection is closed"),
        Opt::count("max-refused-names", |config: &mut Config| &mut config.session.refused_names_max)
            .help("Names that are refused before a connection is closed"),
        bytes("max-unread", 16 * 1024, |config| &mut config.pending_bytes_max)
            .help("Bytes that wait for a miner to read them above which nothing more is read of it"),
        bytes("max-transactions", 0, |config| &mut config.session.transactions_bytes_max)
            .help("Most bytes that a list of a job's transactions may have"),
        Opt::seconds("transactions-interval", SECONDS, |config: &mut Config| &mut config.session.transactions_interval)
            .help("How often a connection may ask for a job's transactions"),
    ]
}

fn patience() -> Vec<Opt<Config>> {
    vec![
        Opt::seconds("invalid-period", SECONDS, |config: &mut Config| &mut config.session.invalid_period).help(
            "A miner with nothing but invalid submissions for so long gets a new job; after twice as long it is asked to \
             connect again, after three times as long it is sent away",
        ),
        Opt::number("max-useless-lines", "COUNT", 1.0..=1e9, |config: &mut Config| {
            &mut config.session.useless_lines_max
        })
        .help("Lines that earn nothing which a connection may send at a time"),
        Opt::number("useless-lines-per-second", "COUNT", 0.01..=1e9, |config: &mut Config| {
            &mut config.session.useless_lines_per_second
        })
        .help("The same for long, a second"),
        Opt::flag("strict", |config: &mut Config| config.session.lenient = false)
            .help("Refuse submissions whose digits firmware shortened, padded or wrote with 0x"),
        Opt::flag("refuse-small-devices", |config: &mut Config| config.session.refuse_small_devices = true).help(
            "Send devices away whose buffers are known to be too small for the jobs; else they are warned of",
        ),
        Opt::flag("no-known-devices", |config: &mut Config| config.session.known_devices = false)
            .help("Start every device at the same difficulty, whatever it calls itself"),
    ]
}

/// Reports what does not fit together.
pub(super) fn check(config: &Config, problems: &mut Problems) {
    let (min, max) = (config.session.vardiff.min, config.session.vardiff.max);
    if min.get() > max.get() {
        problems.add("min-difficulty", format!("{min} is more than --max-difficulty, {max}"));
    }
}

fn mask(text: &str) -> Result<u32, String> {
    // As TOML writes a number in hex.
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mask = u32::from_str_radix(digits, 16).ok().filter(|mask| mask & !VERSION_MASK == 0);
    mask.ok_or_else(|| format!("`{text}` is not of the bits {VERSION_MASK:08x} (BIP 320)"))
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
    found.ok_or_else(|| format!("`{text}` is none of by-device, always and never"))
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
