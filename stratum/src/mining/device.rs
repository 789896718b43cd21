//! What is known of devices by what they call themselves: the table of quirks, each with its symptom.
//!
//! A user agent is a hint and no proof: several firmwares share `cgminer/…`, and proxies hide what is behind them. So
//! whatever is decided by it only helps where it is right, and does no harm where it is wrong.

/// How much of a job a device can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As much as anybody sends.
    Enough,
    /// A coinbase of so many bytes.
    Coinbase(usize),
    /// The firmware's job structure of so many bytes: 80 of its own, the coinbase, 32 for each step of the merkle branch,
    /// and 2 of checksum.
    Job(usize),
}

impl Room {
    /// Bytes of coinbase that fit beside a merkle branch of `steps`; `None` if any do.
    pub fn coinbase_bytes_max(self, steps: usize) -> Option<usize> {
        match self {
            Self::Enough => None,
            Self::Coinbase(bytes) => Some(bytes),
            Self::Job(bytes) => Some(bytes.saturating_sub(80 + 32 * steps + 2)),
        }
    }
}

/// A kind of device, as far as it can be told by its user agent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Device {
    /// What operators and metrics call it.
    pub name: &'static str,
    /// What its user agent begins with, in lower case.
    prefixes: &'static [&'static str],
    /// Difficulty that suits its usual hash rate at one submission in ten seconds; `None` where that can be anything.
    pub start: Option<f64>,
    /// Easiest difficulty that it is started at while it is silent, since none of its kind is slower.
    pub slowest: f64,
    /// What it can hold of a job.
    pub room: Room,
    /// Whether it shows `client.show_message` to its owner. Others take the unknown method amiss.
    pub shows_messages: bool,
    /// Whether dropping work costs it seconds: its queues are flushed with every clean job.
    pub flushes_slowly: bool,
}

/// Everything else.
pub const UNKNOWN: Device = Device {
    name: "unknown",
    prefixes: &[],
    start: None,
    slowest: 0.0,
    room: Room::Enough,
    shows_messages: false,
    flushes_slowly: false,
};

/// What is known; the first match counts.
pub const ALL: &[Device] = &[
    // NerdMiner and SparkMiner: buffers of 512 digits for each half of the coinbase; beyond, zero hash rate (NerdMiner_v2
    // PR 807, SparkMiner issue 25).
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
    // Bitaxe: 16 kB works, but slows every change of jobs down; it also drops a second job of an active name, submits
    // version bits XORed, and stays with a silent pool for ever.
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
    // Antminer S1 to S5 and what else ran cgminer 3 and early 4: deep queues, flushed with every clean job; difficulty as
    // `floor(log2)`. Spondoolies' SP50 among them holds 1,024 bytes of coinbase, and cannot be told apart.
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
    // Takes whatever it cannot read before the answer to `mining.authorize` for that answer.
    Device { name: "cgminer", prefixes: &["cgminer"], start: Some(1024.0), shows_messages: true, ..UNKNOWN },
    // bfgminer: string ids, TLS first, difficulty dropped at once (it learns from error 23 that it must not).
    Device { name: "bfgminer", prefixes: &["bfgminer"], start: Some(1.0), shows_messages: true, ..UNKNOWN },
];

/// The device that calls itself `user_agent`.
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
        // Outputs of 34 bytes beside some 200 of the rest, and twelve steps of the branch.
        let room = by_user_agent("bmminer/2.0.0").room.coinbase_bytes_max(12).unwrap();
        assert_eq!((room - 200) / 34, 221);
        assert_eq!(UNKNOWN.room.coinbase_bytes_max(12), None);
    }
}
