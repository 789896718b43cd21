//! Ban list: banned addresses, durations and reasons.
//!
//! Each offence adds one to the score of its address and bans it for a base time by the square of the score (protocol
//! section 3.9). The reference means to forgive one offence an hour but never does, because of a misspelt name.

use ipnet::IpNet;
use sharechain::chain::FUTURE_REASON;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Base ban of an offence, in seconds.
pub const OFFENCE_SECONDS: u32 = 3600;
/// Base ban of a failed share request, in seconds.
pub const FAILED_REQUEST_SECONDS: u32 = 30;

/// Maximum number of entries. Each address was connected at least once, so filling the list takes a real network.
const ENTRIES_MAX: usize = 10_000;
/// Maximum score: 3600 s times its square is more than a year.
const SCORE_MAX: u32 = 100;
/// Seconds after which one offence is forgiven.
const FORGIVEN_SECONDS: f64 = 3600.0;
/// Maximum length of a stored reason, in characters: part of it may come from the peer.
const REASON_CHARS_MAX: usize = 200;

/// Ban list.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    entries: HashMap<IpAddr, Entry>,
    whitelist: Vec<IpNet>,
    changed: bool,
}

/// Offences of one address.
#[derive(Debug, Clone)]
struct Entry {
    until: f64,
    score: u32,
    /// Start of the current forgiveness interval.
    forgiven: f64,
    reason: String,
    by_operator: bool,
}

/// A banned address: an entry of the ban list and of its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ban {
    /// Banned address; for IPv6 the first of its /64, all of which is banned.
    pub address: IpAddr,
    /// End of the ban, seconds since 1970.
    pub until: f64,
    /// Offences that are not forgiven yet.
    #[serde(default)]
    pub score: u32,
    /// Reason for the ban.
    #[serde(default)]
    pub reason: String,
    /// Set when the operator banned it.
    #[serde(default)]
    pub by_operator: bool,
}

/// Reasons why an address cannot be banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotBanned {
    /// The address is this machine.
    #[error("{0} is this machine, which is never banned")]
    Loopback(IpAddr),
    /// The address is on the whitelist.
    #[error("{0} is on the whitelist and never banned")]
    Whitelisted(IpAddr),
}

impl Bans {
    /// Creates an empty list. Addresses in `whitelist` are always accepted.
    pub fn new(whitelist: impl IntoIterator<Item = impl Into<IpNet>>) -> Self {
        Self { whitelist: whitelist.into_iter().map(|network| canonical(network.into())).collect(), ..Self::default() }
    }

    /// True if `address` is on the whitelist.
    pub fn is_whitelisted(&self, address: IpAddr) -> bool {
        // An IPv4 address counts as such in either form.
        let address = address.to_canonical();
        self.whitelist.iter().any(|network| network.contains(&address))
    }

    /// True if `address` is banned at `now`, in seconds since 1970.
    pub fn is_banned(&self, address: IpAddr, now: f64) -> bool {
        !self.is_whitelisted(address) && self.entries.get(&ban_key(address)).is_some_and(|entry| entry.until > now)
    }

    /// Records an offence with a base ban of `base_seconds`, and bans its address.
    ///
    /// # Errors
    /// This machine and addresses on the whitelist are not banned, only disconnected.
    pub fn offend(&mut self, address: IpAddr, base_seconds: u32, reason: &str, now: f64) -> Result<Ban, NotBanned> {
        let key = self.bannable(address)?;
        self.make_room(&key, now);
        let entry = self.entries.entry(key).or_insert_with(|| Entry::new(now));
        entry.forgive(now);
        entry.score = (entry.score + 1).min(SCORE_MAX);
        if entry.score == 1 {
            entry.forgiven = now;
        }
        let until = now + f64::from(base_seconds) * f64::from(entry.score * entry.score);
        // A small offence does not shorten the ban of a greater one.
        if until > entry.until {
            entry.until = until;
            entry.reason = reason.chars().take(REASON_CHARS_MAX).collect();
        }
        self.changed = true;
        Ok(entry.as_ban(key))
    }

    /// Bans `address` for `seconds` from `now` by order of the operator.
    ///
    /// # Errors
    /// This machine and addresses on the whitelist are not banned.
    pub fn ban(&mut self, address: IpAddr, seconds: f64, reason: &str, now: f64) -> Result<Ban, NotBanned> {
        let key = self.bannable(address)?;
        self.make_room(&key, now);
        let entry = self.entries.entry(key).or_insert_with(|| Entry::new(now));
        entry.until = now + seconds.max(0.0);
        entry.reason = reason.chars().take(REASON_CHARS_MAX).collect();
        entry.by_operator = true;
        self.changed = true;
        Ok(entry.as_ban(key))
    }

    /// Removes all offences of `address`; false if there were none.
    pub fn unban(&mut self, address: IpAddr) -> bool {
        let was_known = self.entries.remove(&ban_key(address)).is_some();
        self.changed |= was_known;
        was_known
    }

    /// Returns the bans in force at `now`, the longest first.
    pub fn list(&self, now: f64) -> Vec<Ban> {
        let banned = self.entries.iter().filter(|(_, entry)| entry.until > now);
        let mut bans: Vec<Ban> = banned.map(|(key, entry)| entry.as_ban(*key)).collect();
        bans.sort_by(|one, other| other.until.total_cmp(&one.until).then_with(|| one.address.cmp(&other.address)));
        bans
    }

    /// Forgives one offence per hour. Call it every few minutes.
    pub fn forgive(&mut self, now: f64) {
        let before = self.entries.len();
        for entry in self.entries.values_mut() {
            entry.forgive(now);
        }
        self.entries.retain(|_, entry| entry.is_worth_keeping(now));
        self.changed |= self.entries.len() != before;
    }

    /// Marks the list as changed, after a failed write.
    pub fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Returns the list as JSON if it changed since the last call.
    pub fn take_changed_json(&mut self) -> Option<String> {
        std::mem::take(&mut self.changed).then(|| self.to_json())
    }

    /// Serialises all offenders to JSON, including those whose ban is over but not forgiven yet.
    pub fn to_json(&self) -> String {
        let mut bans: Vec<Ban> = self.entries.iter().map(|(key, entry)| entry.as_ban(*key)).collect();
        bans.sort_by_key(|ban| ban.address);
        serde_json::to_string_pretty(&bans).expect("numbers and strings become JSON")
    }

    /// Loads the output of [`to_json`](Self::to_json). Unreadable entries are skipped and reported, one line each.
    pub fn load_json(&mut self, json: &str, now: f64) -> Vec<String> {
        let values: Vec<serde_json::Value> = match serde_json::from_str(json) {
            Ok(values) => values,
            Err(error) => return vec![format!("cannot parse the ban list: {error}")],
        };
        let mut problems = Vec::new();
        for value in values {
            let ban = match serde_json::from_value::<Ban>(value) {
                Ok(ban) if ban.until.is_finite() => ban,
                Ok(ban) => {
                    problems.push(format!("ban of {} has no end", ban.address));
                    continue;
                }
                Err(error) => {
                    problems.push(format!("ban skipped: {error}"));
                    continue;
                }
            };
            if !ban.by_operator && ban.reason.contains(FUTURE_REASON) {
                // Earlier versions banned for this, though most likely our own clock was wrong.
                self.changed = true;
                continue;
            }
            let Ok(key) = self.bannable(ban.address) else { continue };
            if self.entries.len() >= ENTRIES_MAX {
                problems.push(format!("more than {ENTRIES_MAX} bans: the rest is skipped"));
                break;
            }
            let entry = Entry {
                until: ban.until,
                score: ban.score.min(SCORE_MAX),
                forgiven: now,
                reason: ban.reason.chars().take(REASON_CHARS_MAX).collect(),
                by_operator: ban.by_operator,
            };
            if entry.is_worth_keeping(now) {
                self.entries.insert(key, entry);
            }
        }
        problems
    }

    fn bannable(&self, address: IpAddr) -> Result<IpAddr, NotBanned> {
        let address = address.to_canonical();
        if address.is_loopback() {
            Err(NotBanned::Loopback(address))
        } else if self.is_whitelisted(address) {
            Err(NotBanned::Whitelisted(address))
        } else {
            Ok(ban_key(address))
        }
    }

    fn make_room(&mut self, key: &IpAddr, now: f64) {
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(key) {
            return;
        }
        self.forgive(now);
        while self.entries.len() >= ENTRIES_MAX {
            let ends_first = self.entries.iter().min_by(|(_, one), (_, other)| {
                one.by_operator.cmp(&other.by_operator).then(one.until.total_cmp(&other.until))
            });
            let Some(key) = ends_first.map(|(key, _)| *key) else { break };
            self.entries.remove(&key);
        }
    }
}

impl Entry {
    fn new(now: f64) -> Self {
        Self { until: now, score: 0, forgiven: now, reason: String::new(), by_operator: false }
    }

    fn forgive(&mut self, now: f64) {
        let hours = ((now - self.forgiven) / FORGIVEN_SECONDS).floor();
        if hours >= 1.0 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating, and not negative")]
            let hours_whole = hours as u32;
            self.score = self.score.saturating_sub(hours_whole);
            self.forgiven += hours * FORGIVEN_SECONDS;
        } else if now < self.forgiven {
            // The clock was set back.
            self.forgiven = now;
        }
    }

    fn is_worth_keeping(&self, now: f64) -> bool {
        self.score > 0 || self.until > now
    }

    fn as_ban(&self, address: IpAddr) -> Ban {
        Ban {
            address,
            until: self.until,
            score: self.score,
            reason: self.reason.clone(),
            by_operator: self.by_operator,
        }
    }
}

/// Unit of a ban: an IPv4 address, or an IPv6 /64, the smallest assignment to one customer.
fn ban_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// Converts a network of one IPv4 address in IPv6 form to IPv4.
fn canonical(network: IpNet) -> IpNet {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_canonical().into() } else { network }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: f64 = 1.7e9;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_offence_costs_the_base_by_the_square_of_the_score() {
        let mut bans = Bans::default();
        let until = |bans: &mut Bans, base| bans.offend(ip("9.9.9.9"), base, "bad", NOW).unwrap().until - NOW;
        assert_eq!(until(&mut bans, FAILED_REQUEST_SECONDS), 30.0);
        assert_eq!(until(&mut bans, OFFENCE_SECONDS), 4.0 * 3600.0);
        assert_eq!(until(&mut bans, OFFENCE_SECONDS), 9.0 * 3600.0);
        // A smaller offence does not shorten the ban.
        assert_eq!(until(&mut bans, FAILED_REQUEST_SECONDS), 9.0 * 3600.0);
        assert!(bans.is_banned(ip("9.9.9.9"), NOW + 8.9 * 3600.0) && !bans.is_banned(ip("9.9.9.9"), NOW + 32_400.0));
        assert!(bans.is_banned(ip("::ffff:9.9.9.9"), NOW), "the same address");
        assert!(!bans.is_banned(ip("9.9.9.8"), NOW));
    }

    #[test]
    fn an_offence_is_forgiven_each_hour() {
        let mut bans = Bans::default();
        for _ in 0..3 {
            bans.offend(ip("9.9.9.9"), FAILED_REQUEST_SECONDS, "bad", NOW).unwrap();
        }
        bans.forgive(NOW + 7300.0);
        assert_eq!(bans.offend(ip("9.9.9.9"), 1, "bad", NOW + 7300.0).unwrap().score, 2);
        bans.forgive(NOW + 5.0 * 3600.0);
        assert!(bans.entries.is_empty(), "nothing is left of it");
    }

    #[test]
    fn this_machine_and_the_whitelist_are_never_banned() {
        let mut bans = Bans::new([ip("9.9.9.9"), ip("::ffff:8.8.8.8")]);
        let mut offend = |address: &str| bans.offend(ip(address), 3600, "bad", NOW);
        assert!(matches!(offend("127.0.0.1"), Err(NotBanned::Loopback(_))));
        assert!(matches!(offend("::1"), Err(NotBanned::Loopback(_))));
        assert!(matches!(offend("::ffff:127.3.2.1"), Err(NotBanned::Loopback(_))));
        assert!(matches!(offend("9.9.9.9"), Err(NotBanned::Whitelisted(_))));
        assert!(matches!(offend("8.8.8.8"), Err(NotBanned::Whitelisted(_))));
        assert!(bans.ban(ip("9.9.9.9"), 60.0, "", NOW).is_err());
        assert!(bans.list(NOW).is_empty());
    }

    #[test]
    fn a_whole_ipv6_network_is_banned_at_once() {
        let mut bans = Bans::default();
        bans.offend(ip("2001:db8:1:2:3:4:5:6"), 3600, "bad", NOW).unwrap();
        assert!(bans.is_banned(ip("2001:db8:1:2::1"), NOW) && !bans.is_banned(ip("2001:db8:1:3::1"), NOW));
        assert!(bans.unban(ip("2001:db8:1:2::77")) && !bans.is_banned(ip("2001:db8:1:2::1"), NOW));
    }

    #[test]
    fn the_operator_bans_and_unbans() {
        let mut bans = Bans::default();
        bans.ban(ip("9.9.9.9"), 60.0, "because", NOW).unwrap();
        assert_eq!(bans.list(NOW)[0].reason, "because");
        assert!(bans.list(NOW + 61.0).is_empty());
        assert!(bans.unban(ip("9.9.9.9")) && !bans.unban(ip("9.9.9.9")));
    }

    #[test]
    fn bans_outlive_a_restart_and_a_damaged_line_costs_only_itself() {
        let mut bans = Bans::default();
        bans.offend(ip("9.9.9.9"), 3600, "its share \"x\"\nis bad", NOW).unwrap();
        bans.ban(ip("2001:db8::"), 60.0, "", NOW).unwrap();
        let json = bans.take_changed_json().unwrap();
        assert!(bans.take_changed_json().is_none(), "nothing changed since");
        bans.mark_changed();
        assert_eq!(bans.take_changed_json().as_ref(), Some(&json), "it could not be written");
        let mut again = Bans::default();
        assert!(again.load_json(&json, NOW).is_empty());
        assert_eq!(again.list(NOW), bans.list(NOW));
        let damaged = json.replacen("9.9.9.9", "9.9.9", 1);
        let mut again = Bans::default();
        assert_eq!((again.load_json(&damaged, NOW).len(), again.list(NOW).len()), (1, 1));
        assert_eq!(again.load_json("{", NOW).len(), 1);
    }

    #[test]
    fn bans_of_earlier_versions_for_shares_ahead_of_our_clock_are_lifted() {
        let reason = format!(
            "invalid share: {}: timestamp 1700000601 is more than 600 s after our clock, 1700000000",
            "0".repeat(64)
        );
        let mut bans = Bans::default();
        bans.offend(ip("9.9.9.9"), 3600, &reason, NOW).unwrap();
        bans.offend(ip("8.8.8.8"), 3600, "invalid share: bits is 1 and should be 2", NOW).unwrap();
        bans.ban(ip("7.7.7.7"), 60.0, &reason, NOW).unwrap();
        let mut again = Bans::default();
        assert!(again.load_json(&bans.to_json(), NOW).is_empty());
        let banned: Vec<IpAddr> = again.list(NOW).into_iter().map(|ban| ban.address).collect();
        assert_eq!(banned, [ip("8.8.8.8"), ip("7.7.7.7")], "the operator's bans stay");
        assert!(again.take_changed_json().is_some(), "the file drops them");
    }

    #[test]
    fn memory_is_bounded_and_the_operators_bans_stay() {
        let mut bans = Bans::default();
        bans.ban(ip("9.9.9.9"), 1.0, "", NOW).unwrap();
        for number in 0..12_000u32 {
            bans.offend(IpAddr::V4((0x0a00_0000 + number).into()), 3600, "bad", NOW + 0.5).unwrap();
        }
        assert!(bans.entries.len() <= ENTRIES_MAX && bans.is_banned(ip("9.9.9.9"), NOW + 0.9));
    }

    proptest! {
        #[test]
        fn nothing_in_a_ban_file_panics(json in ".{0,200}", until in any::<f64>(), score in any::<u32>()) {
            let mut bans = Bans::default();
            bans.load_json(&json, NOW);
            bans.load_json(&format!(r#"[{{"address":"1.2.3.4","until":{until:e},"score":{score}}}]"#), NOW);
            let _ = bans.offend(ip("1.2.3.4"), u32::MAX, "bad", NOW);
            bans.forgive(until);
            bans.list(until);
        }
    }
}
