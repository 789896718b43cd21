//! The book's file, in the reference's format.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::entry::Entry;
use super::scope::{canonical, may_be_shared};
use super::{ADDRESSES_MAX, AddressBook};

impl AddressBook {
    /// Serialises the book in the reference's format: `[[host, port], [services, first_seen, last_seen]]` each
    /// (protocol section 12). Addresses that failed and never answered are left out.
    pub fn to_json(&self) -> String {
        let worth = self.entries.iter().filter(|(_, entry)| entry.answered || entry.failures == 0);
        let mut lines: Vec<(&SocketAddr, &Entry)> = worth.collect();
        lines.sort_unstable_by_key(|(address, _)| **address);
        let values = lines.into_iter().map(|(address, entry)| {
            serde_json::json!([
                [address.ip().to_string(), address.port()],
                [entry.services, entry.first_seen, entry.last_seen]
            ])
        });
        Value::Array(values.collect()).to_string()
    }

    /// Loads a file written by this program or a reference node. Unusable entries are skipped and reported, one line
    /// each, ten at most.
    pub fn load_json(&mut self, json: &str, now: f64) -> Vec<String> {
        const PROBLEMS_MAX: usize = 10;
        let values: Vec<Value> = match serde_json::from_str(json) {
            Ok(values) => values,
            Err(error) => return vec![format!("cannot parse the address book: {error}")],
        };
        let mut problems = Vec::new();
        let mut left_out = 0_usize;
        for value in values {
            let Some((address, mut entry)) = entry_of(&value, now) else {
                left_out += 1;
                if problems.len() < PROBLEMS_MAX {
                    let text: String = value.to_string().chars().take(100).collect();
                    problems.push(format!("address skipped: {text}"));
                }
                continue;
            };
            // The file may be older than our own data.
            if let Some(known) = self.entries.get_mut(&address) {
                known.first_seen = known.first_seen.min(entry.first_seen);
                known.last_seen = known.last_seen.max(entry.last_seen);
            } else if self.entries.len() < ADDRESSES_MAX && !self.is_own(address) {
                entry.source = None;
                self.insert(address, entry);
            }
        }
        if left_out > problems.len() {
            problems.push(format!("and {} more", left_out - problems.len()));
        }
        problems
    }
}

/// `[[host, port], [services, first_seen, last_seen]]`, times no later than `now`.
fn entry_of(value: &Value, now: f64) -> Option<(SocketAddr, Entry)> {
    let [address, facts] = value.as_array()?.as_slice() else { return None };
    let [host, port] = address.as_array()?.as_slice() else { return None };
    let [services, first_seen, last_seen] = facts.as_array()?.as_slice() else { return None };
    let host: IpAddr = host.as_str()?.parse().ok()?;
    let address = canonical(SocketAddr::new(host, u16::try_from(port.as_u64()?).ok()?));
    if !may_be_shared(address, None) {
        return None;
    }
    let entry = Entry {
        services: services.as_u64()?,
        first_seen: first_seen.as_f64()?.min(now),
        last_seen: last_seen.as_f64()?.min(now),
        source: None,
        answered: false,
        failures: 0,
        retry_at: 0.0,
    };
    Some((address, entry))
}
