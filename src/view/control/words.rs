//! Formats numbers and names for display.

use stratum::printable::escaped;

use crate::view::http::api::{AuthorityMessage, ShareVersions};

/// Formats a duration in its two largest units.
pub fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is right for a span")]
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, _) => format!("{hours} h {} min", minutes % 60),
        (days, ..) => format!("{days} d {} h", hours % 24),
    }
}

/// Formats the share version and the state of its change in one line; `None` on networks without that change.
pub fn share_version(versions: &ShareVersions) -> Option<String> {
    let (state, target) = (versions.state.as_deref()?, versions.target?);
    let current = versions.next.or(versions.current).map_or_else(|| "none yet".to_owned(), |next| next.to_string());
    let more = match (state, versions.shares_until_confirmed) {
        ("voting", _) => format!(" is voting, {} for it", percent(versions.votes)),
        ("activated", Some(left)) => format!(" is activated, {left} shares until confirmed"),
        (state, _) => format!(" is {}", printable(state)),
    };
    Some(format!("{current}; {target}{more}"))
}

/// Formats a message of an authority in one line.
pub fn authority_message(message: &AuthorityMessage) -> String {
    let AuthorityMessage { kind, signer, text, urgency, url, .. } = message;
    let url = url.as_ref().map_or_else(String::new, |url| format!(" ({url})"));
    printable(&format!("{kind} of the {signer}, {urgency}: {text}{url}"))
}

/// Formats hashes per second with three or more digits and a unit.
pub fn hash_rate(hashes: f64) -> String {
    format!("{}H/s", with_prefix(hashes))
}

/// Formats a difficulty or another plain number, as short as hash rates.
pub fn short_number(number: f64) -> String {
    if number.abs() < 1.0 && number != 0.0 {
        return format!("{number:.2e}");
    }
    with_prefix(number).trim_end().to_owned()
}

fn with_prefix(number: f64) -> String {
    const PREFIXES: [&str; 9] = ["", "k", "M", "G", "T", "P", "E", "Z", "Y"];
    let mut left = number;
    let mut at = 0;
    while left.abs() >= 999.95 && at + 1 < PREFIXES.len() {
        left /= 1000.0;
        at += 1;
    }
    let digits = match left.abs() {
        0.0 | 10.0..99.95 => 1,
        0.0..10.0 => 2,
        _ => 0,
    };
    format!("{left:.digits$} {}", PREFIXES[at])
}

/// Formats satoshis as coins.
pub fn coins(value: u64) -> String {
    format!("{}.{:08}", value / 100_000_000, value % 100_000_000)
}

/// Formats a fraction as a percentage.
pub fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Escapes what could steer a terminal.
pub fn printable(text: &str) -> String {
    escaped(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_their_precision() {
        let shown: Vec<String> = [0.0, 7.0, 950.0, 999.99, 12_345.0, 1.5e12, 6.02e23, 1e30].map(hash_rate).into();
        assert_eq!(
            shown,
            ["0.0 H/s", "7.00 H/s", "950 H/s", "1.00 kH/s", "12.3 kH/s", "1.50 TH/s", "602 ZH/s", "1000000 YH/s"]
        );
        assert_eq!([short_number(0.00123), short_number(88.0e12)], ["1.23e-3", "88.0 T"]);
        assert_eq!([coins(1), coins(312_500_000)], ["0.00000001", "3.12500000"]);
        assert_eq!([span(59.6), span(3700.0), span(-5.0)], ["1 min 0 s", "1 h 1 min", "0 s"]);
    }
}
