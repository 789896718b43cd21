//! Parsers for each kind of value, whose errors quote the value, and formatting of defaults.

use bitcoin::BlockHash;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use stratum::{Difficulty, Scale};

use crate::peers::Host;

/// Parser of a value.
pub(super) trait Parse<T>: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {}

impl<T, F: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static> Parse<T> for F {}

/// Parser of a number in `range`.
pub(super) fn number(range: RangeInclusive<f64>) -> impl Parse<f64> {
    move |text: &str| {
        let value = text.parse().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| format!("`{text}` is not a number from {} to {}", range.start(), range.end()))
    }
}

/// Parser of a duration in seconds, in `range`.
pub(super) fn seconds(range: RangeInclusive<f64>) -> impl Parse<Duration> {
    let number = number(range);
    move |text: &str| number(text).map(Duration::from_secs_f64)
}

/// Parser of a whole number in `range`.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Parse<T>
where
    T: TryFrom<u64> + Into<u64> + Copy + Send + Sync + 'static,
{
    let (least, most) = ((*range.start()).into(), (*range.end()).into());
    move |text: &str| {
        let value = text.parse().ok().filter(|value| (least..=most).contains(value));
        let value = value.and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| format!("`{text}` is not a whole number from {least} to {most}"))
    }
}

/// Parser of a whole number from 0 to `most`.
pub(super) fn count_to(most: usize) -> impl Parse<usize> {
    move |text: &str| {
        let value = text.parse().ok().filter(|value| *value <= most);
        value.ok_or_else(|| format!("`{text}` is not a whole number from 0 to {most}"))
    }
}

/// Parses a whole number above 0.
pub(super) fn count<T: std::str::FromStr + Default + PartialOrd>(text: &str) -> Result<T, String> {
    let value = text.parse().ok().filter(|value| *value > T::default());
    value.ok_or_else(|| format!("`{text}` is not a whole number above 0"))
}

/// Parser of a number of bytes, from `least` to 1 GiB.
pub(super) fn bytes(least: usize) -> impl Parse<usize> {
    const MOST: usize = 1 << 30;
    move |text: &str| {
        let value = text.parse().ok().filter(|bytes| (least..=MOST).contains(bytes));
        value.ok_or_else(|| format!("`{text}` is not a number of bytes from {least} to {MOST}"))
    }
}

/// Parses a number of megabytes, and returns bytes.
pub(super) fn megabytes(text: &str) -> Result<u64, String> {
    let megabytes = number(0.0..=1e6)(text)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10^12")]
    let bytes = (megabytes * 1e6) as u64;
    Ok(bytes)
}

/// Parses a difficulty in the unit of the network's miners.
pub(super) fn difficulty(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().and_then(Difficulty::new).map(Difficulty::get);
    number.ok_or_else(|| format!("`{text}` is not a difficulty, such as 1024 or 0.001"))
}

/// Returns the difficulty that the network's miners know by `number`.
pub(super) fn on_scale(number: f64, scale: Scale) -> Result<Difficulty, String> {
    scale.read(number).ok_or_else(|| format!("`{number}` is not a difficulty, such as 1024 or 0.001"))
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{text}` is not a port"))
}

/// Parses a host, with `default_port` if it has no port.
pub(super) fn host(text: &str, default_port: u16) -> Result<Host, String> {
    let wrong = || format!("`{text}` is not HOST[:PORT], such as pool.example or 192.0.2.1:9333");
    Host::parse(text, default_port).ok_or_else(wrong)
}

/// Checks a host and returns it as written: the default port is not known yet.
pub(super) fn host_text(text: &str) -> Result<String, String> {
    host(text, 1).map(|_| text.to_owned())
}

/// Parses `[ADDRESS:]PORT`.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let problem = || format!("`{text}` is not [ADDRESS:]PORT, such as 9332 or 127.0.0.1:9332");
    match text.rsplit_once(':') {
        None => Ok((Ipv6Addr::UNSPECIFIED, text.parse().map_err(|_| problem())?).into()),
        Some((host, port)) => {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let host: IpAddr =
                if host == "localhost" { [127, 0, 0, 1].into() } else { host.parse().map_err(|_| problem())? };
            Ok((host, port.parse().map_err(|_| problem())?).into())
        }
    }
}

/// Parses a network; a bare address is a network of one.
pub(super) fn ip_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse()
        .ok()
        .or_else(address)
        .ok_or_else(|| format!("`{text}` is not an address or network, such as 192.0.2.1 or 192.0.2.0/24"))
}

/// Parses an IP address, with or without a port as in the output of `p2pool peers`.
pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .map(|address| address.to_canonical())
        .map_err(|_| format!("`{text}` is not an IP address"))
}

pub(super) fn block_hash(text: &str) -> Result<BlockHash, String> {
    text.parse().map_err(|_| format!("`{text}` is not a block hash (64 hex digits, see `p2pool blocks`)"))
}

/// Parses a name of a host, without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let is_part =
        |part: &str| !part.is_empty() && part.chars().all(|one| one.is_ascii_alphanumeric() || "-_".contains(one));
    if text.split('.').all(is_part) { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a host name")) }
}

pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// Formats a number, from 10^9 with an exponent.
pub(super) fn show_number(number: f64) -> String {
    if number >= 1e9 { format!("{number:e}") } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_refused_with_its_value() {
        for (problem, told) in [
            (number(0.0..=100.0)("nan").unwrap_err(), "`nan` is not a number from 0 to 100"),
            (seconds(0.1..=600.0)("-1").unwrap_err(), "`-1`"),
            (whole::<u32>(1..=100)("101").unwrap_err(), "`101` is not a whole number from 1 to 100"),
            (count_to(10)("11").unwrap_err(), "`11` is not a whole number from 0 to 10"),
            (count::<u32>("0").unwrap_err(), "`0`"),
            (bytes(1024)("10").unwrap_err(), "`10`"),
            (megabytes("1e7").unwrap_err(), "`1e7`"),
            (difficulty("0").unwrap_err(), "`0`"),
            (port("0").unwrap_err(), "`0`"),
            (ip_address("somebody").unwrap_err(), "`somebody`"),
        ] {
            assert!(problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn ports_to_listen_on_with_and_without_address() {
        for (text, address) in [
            ("1234", "[::]:1234"),
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::1]:1234", "[::1]:1234"),
            ("localhost:1234", "127.0.0.1:1234"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "65536", "1.2.3:5", "host.example:1", ":1"] {
            assert!(listen_address(text).unwrap_err().contains(&format!("`{text}`")), "{text}");
        }
    }

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        assert_eq!(ip_network("192.0.2.1").unwrap(), "192.0.2.1/32".parse().unwrap());
        assert_eq!(ip_network("2001:db8::/32").unwrap(), "2001:db8::/32".parse().unwrap());
        assert!(ip_network("proxy.example").unwrap_err().contains("`proxy.example`"));
    }

    #[test]
    fn a_default_is_shown_as_people_write_it() {
        assert_eq!([1e-5, 0.75, 3.0, 1e10].map(show_number), ["0.00001", "0.75", "3", "1e10"]);
    }
}
