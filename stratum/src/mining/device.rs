//! Devices by user agent: the table of quirks, each with its symptom.
//!
//! A user agent is only a hint: several firmwares share `cgminer/…`, and proxies hide the miners behind them. So any
//! decision based on it must help where it is right and do no harm where it is wrong.

/// Capacity of a device for jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough for any job.
    Enough,
    /// Maximum size of the coinbase, in bytes.
    Coinbase(usize),
    /// Maximum size of the firmware's job structure, in bytes: 80 fixed, the coinbase, 32 for each step of the merkle
    /// branch, 2 of checksum.
    Job(usize),
}

impl Room {
    /// Maximum size of the coinbase with a merkle branch of `steps`, in bytes; `None` if unlimited.
    pub fn coinbase_bytes_max(self, steps: usize) -> Option<usize> {
        match self {
            Self::Enough => None,
            Self::Coinbase(bytes) => Some(bytes),
            Self::Job(bytes) => Some(bytes.saturating_sub(80 + 32 * steps + 2)),
        }
    }
}

/// A kind of device, identified by user agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    /// Name in logs and metrics.
    pub name: &'static str,
    /// Prefixes of its user agent, in lower case.
    prefixes: &'static [&'static str],
    /// Difficulty for its usual hash rate at one submission in ten seconds; `None` if that varies too much.
    pub start: Option<f64>,
    /// Difficulty of the slowest of its kind: not lowered below this before the first submission.
    pub slowest: f64,
    /// Capacity for jobs.
    pub room: Room,
    /// Set when it shows `client.show_message` to its owner. Others reject the unknown method.
    pub shows_messages: bool,
    /// Set when dropping work costs it seconds: every clean job flushes its queues.
    pub flushes_slowly: bool,
}

/// Any device not listed.
pub const UNKNOWN: Device = Device {
    name: "unknown",
    prefixes: &[],
    start: None,
    slowest: 0.0,
    room: Room::Enough,
    shows_messages: false,
    flushes_slowly: false,
};

/// Known devices; the first match counts.
pub const ALL: &[Device] = &[
    // NerdMiner and SparkMiner: buffers of 512 digits for each half of the coinbase; beyond, zero hash rate
    // (NerdMiner_v2 PR 807, SparkMiner issue 25).
    Device {
        name: "nerdminer",
        prefixes: &["nerdminer", "sparkminer"],
        start: Some(0.001),
        room: Room::Coinbase(256),
        ..UNKNOWN
    },
    Device { name: "cpuminer", prefixes: &["cpuminer"], start: Some(0.0625), ..UNKNOWN },
    // NerdQAxe: a Bitaxe with more chips.
    Device {
        name: "nerdqaxe",
        prefixes: &["nerdqaxe", "nerdaxe", "nerdoctaxe"],
        start: Some(8192.0),
        slowest: 1.0,
        room: Room::Coinbase(6500),
        ..UNKNOWN
    },
    // Bitaxe: a 16 kB coinbase works, but slows every job change; it also drops a second job with an active id, submits
    // version bits XORed, and stays with a silent pool forever.
    Device {
        name: "bitaxe",
        prefixes: &["bitaxe", "esp-miner"],
        start: Some(1024.0),
        slowest: 1.0,
        room: Room::Coinbase(6500),
        shows_messages: true,
        ..UNKNOWN
    },
    // Antminer S21: 2,250 bytes on every released version.
    Device {
        name: "antminer_s21",
        prefixes: &["antminer s21"],
        start: Some(262_144.0),
        slowest: 256.0,
        room: Room::Coinbase(2250),
        ..UNKNOWN
    },
    // Antminer S17 and S19, stock firmware: about 755 bytes; beyond, rejects or no hashing at all. Counts its own late
    // nonces as rejected when the difficulty changes without a job.
    Device {
        name: "antminer_s19",
        prefixes: &["antminer s19", "antminer s17", "antminer t17", "antminer t19", "antminer"],
        start: Some(262_144.0),
        slowest: 256.0,
        room: Room::Coinbase(755),
        ..UNKNOWN
    },
    // Antminer S9 and T9, stock firmware: copies the job into a static buffer of 8,192 bytes, unchecked ("S9s may crash
    // when this is close to 226" payouts). Reports nothing below difficulty 16; sends whole versions after
    // `mining.multi_version`.
    Device {
        name: "antminer_s9",
        prefixes: &["bmminer"],
        start: Some(32_768.0),
        slowest: 16.0,
        room: Room::Job(8192),
        ..UNKNOWN
    },
    // Whatsminer: 6,500 bytes tested; user names over 127 characters overflow; no extranonce2 over 8 bytes.
    Device {
        name: "whatsminer",
        prefixes: &["whatsminer", "btminer"],
        start: Some(262_144.0),
        slowest: 256.0,
        room: Room::Coinbase(6500),
        ..UNKNOWN
    },
    // Braiins OS: 2,250 bytes, untested above; older ones leave `min-bit-count` out of `mining.configure`.
    Device {
        name: "braiins",
        prefixes: &["bosminer", "braiins"],
        start: Some(262_144.0),
        slowest: 64.0,
        room: Room::Coinbase(2250),
        ..UNKNOWN
    },
    Device {
        name: "vnish",
        prefixes: &["xminer-1."],
        start: Some(262_144.0),
        slowest: 64.0,
        room: Room::Coinbase(16_000),
        ..UNKNOWN
    },
    Device {
        name: "epic",
        prefixes: &["powerplay-bm"],
        start: Some(262_144.0),
        slowest: 64.0,
        room: Room::Coinbase(16_000),
        ..UNKNOWN
    },
    // NiceHash: drops orders with more than 500 bytes; no difficulty below half a million; no short job names, no
    // extranonce2 below 4 bytes.
    Device {
        name: "nicehash",
        prefixes: &["nicehash"],
        start: Some(524_288.0),
        slowest: 524_288.0,
        room: Room::Coinbase(500),
        ..UNKNOWN
    },
    Device {
        name: "miningrigrentals",
        prefixes: &["miningrigrentals", "mrr"],
        start: Some(1_048_576.0),
        slowest: 1.0,
        ..UNKNOWN
    },
    // Antminer S1 to S5 and others on cgminer 3 and early 4: deep queues, flushed with every clean job; difficulty as
    // `floor(log2)`. Spondoolies' SP50 among them holds 1,024 bytes of coinbase, and is indistinguishable.
    Device {
        name: "cgminer_old",
        prefixes: &[
            "cgminer/3",
            "cgminer/4.0",
            "cgminer/4.1.",
            "cgminer/4.2",
            "cgminer/4.3",
            "cgminer/4.4",
            "cgminer/4.5",
            "cgminer/4.6",
            "cgminer/4.7",
            "cgminer/4.8",
            "cgminer/4.9",
            "cgminer bitmain",
        ],
        start: Some(1024.0),
        shows_messages: true,
        flushes_slowly: true,
        ..UNKNOWN
    },
    // cgminer since 4.10: from a USB stick to an Avalon 10. Queues difficulties: the second of two applies a job late.
    // Takes any unknown line before the answer to `mining.authorize` for that answer.
    Device { name: "cgminer", prefixes: &["cgminer"], start: Some(1024.0), shows_messages: true, ..UNKNOWN },
    // bfgminer: string ids, TLS first, drops difficulty at once (error 23 makes it stop doing so).
    Device { name: "bfgminer", prefixes: &["bfgminer"], start: Some(1.0), shows_messages: true, ..UNKNOWN },
];

/// Returns the device with this user agent.
pub fn by_user_agent(user_agent: &str) -> &'static Device {
    let starts_with = |prefix: &str| {
        user_agent.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    ALL.iter().find(|device| device.prefixes.iter().copied().any(starts_with)).unwrap_or(&UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_seen_in_the_field_are_told_apart() {
        for (user_agent, name) in [
            ("NerdMinerV2/1.6.3", "nerdminer"),
            ("cpuminer/2.5.1", "cpuminer"),
            ("bitaxe/BM1370/v2.9.0", "bitaxe"),
            ("NerdQAxe++/BM1370/v1.0", "nerdqaxe"),
            ("Antminer S21/49.0.1.3", "antminer_s21"),
            ("Antminer S19j Pro/1.0", "antminer_s19"),
            ("bmminer/2.0.0", "antminer_s9"),
            ("whatsminer/v1.0", "whatsminer"),
            ("bosminer-plus-tuner 0.2.0", "braiins"),
            ("xminer-1.2.3", "vnish"),
            ("PowerPlay-BM/1.4", "epic"),
            ("NiceHash/1.0.0", "nicehash"),
            ("cgminer/4.8.0", "cgminer_old"),
            ("cgminer/4.11.1", "cgminer"),
            ("cgminer/4.1.2", "cgminer_old"),
            ("bfgminer/5.5.0-34", "bfgminer"),
            ("", "unknown"),
            ("ﬀ", "unknown"),
        ] {
            assert_eq!(by_user_agent(user_agent).name, name, "{user_agent}");
        }
    }

    #[test]
    fn an_s9_holds_about_222_payouts_and_no_more() {
        // Outputs of 34 bytes beside some 200 of the rest, and a branch of twelve steps.
        let room = by_user_agent("bmminer/2.0.0").room.coinbase_bytes_max(12).unwrap();
        assert_eq!((room - 200) / 34, 221);
        assert_eq!(UNKNOWN.room.coinbase_bytes_max(12), None);
    }
}
