//! Miners of stratum section 2.3, hashing in virtual time under a `Vardiff`: used by the tests and the plot.
//! Submissions are drawn as a Poisson process; every run is determined by its seed.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]

use std::time::{Duration, Instant};
use stratum::Difficulty;
use stratum::mining::device::{self, Device};
use stratum::mining::vardiff;

/// Wanted time between submissions: the node's default.
pub(crate) const INTERVAL_S: f64 = 3.0;

/// Model of a piece of hardware.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) user_agent: &'static str,
    /// Hashes per second.
    pub(crate) hash_rate: f64,
    /// Seconds from a job being sent to the first nonce of it: network, queues, flushes.
    pub(crate) delay_s: f64,
    /// Seconds before it hashes at all.
    pub(crate) boot_s: f64,
}

pub(crate) const PROFILES: &[Profile] = &[
    Profile { name: "ESP32", user_agent: "NerdMinerV2/1.6.3", hash_rate: 3.5e5, delay_s: 0.3, boot_s: 0.5 },
    Profile { name: "one CPU core, unknown", user_agent: "", hash_rate: 1e6, delay_s: 0.2, boot_s: 0.0 },
    Profile { name: "cpuminer", user_agent: "cpuminer/2.5.1", hash_rate: 2e7, delay_s: 0.2, boot_s: 0.0 },
    Profile { name: "Block Erupter USB", user_agent: "bfgminer/5.5.0", hash_rate: 3.3e8, delay_s: 1.0, boot_s: 1.0 },
    Profile { name: "Antminer U3", user_agent: "cgminer/4.11.1", hash_rate: 6.3e10, delay_s: 0.5, boot_s: 2.0 },
    Profile { name: "Antminer S1", user_agent: "cgminer/3.8.5", hash_rate: 1.8e11, delay_s: 1.0, boot_s: 3.0 },
    Profile { name: "Antminer S5", user_agent: "cgminer/4.8.0", hash_rate: 1.15e12, delay_s: 1.0, boot_s: 3.0 },
    Profile { name: "Bitaxe", user_agent: "bitaxe/BM1370/v2.9", hash_rate: 1.2e12, delay_s: 0.4, boot_s: 1.0 },
    Profile { name: "NerdQAxe", user_agent: "NerdQAxe++", hash_rate: 4.8e12, delay_s: 0.4, boot_s: 1.0 },
    Profile { name: "SP35", user_agent: "cgminer/4.10.0", hash_rate: 5.5e12, delay_s: 1.0, boot_s: 2.0 },
    Profile { name: "Antminer S9", user_agent: "bmminer/2.0.0", hash_rate: 1.35e13, delay_s: 0.5, boot_s: 2.0 },
    Profile { name: "Avalon Q", user_agent: "cgminer/4.11.1", hash_rate: 9e13, delay_s: 0.5, boot_s: 3.0 },
    Profile { name: "Whatsminer", user_agent: "whatsminer/v1.0", hash_rate: 1.1e14, delay_s: 0.5, boot_s: 3.0 },
    Profile { name: "Antminer S21", user_agent: "Antminer S21/1", hash_rate: 2e14, delay_s: 0.5, boot_s: 3.0 },
    Profile { name: "proxy of a farm", user_agent: "", hash_rate: 1e15, delay_s: 0.3, boot_s: 0.0 },
    Profile { name: "rental", user_agent: "NiceHash/1.0.0", hash_rate: 5e15, delay_s: 0.3, boot_s: 0.5 },
];

/// Result of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Time in seconds and value of each difficulty, including the first.
    pub(crate) changes: Vec<(f64, f64)>,
    /// Time of each submission, in seconds.
    pub(crate) submissions: Vec<f64>,
}

impl Run {
    /// Difficulty at `seconds`.
    pub(crate) fn at(&self, seconds: f64) -> f64 {
        self.changes.iter().rfind(|(at, _)| *at <= seconds).expect("the first is at zero").1
    }
}

/// Difficulty at which `hash_rate` gives one submission per interval.
pub(crate) fn ideal(hash_rate: f64) -> f64 {
    Difficulty::from_average_hashes(hash_rate * INTERVAL_S).expect("a rate").get()
}

/// Runs `profile` for `seconds`; `factor` of the time multiplies its hash rate.
pub(crate) fn simulate(profile: &Profile, seconds: f64, seed: u64, factor: impl Fn(f64) -> f64) -> Run {
    let difficulty = |value| Difficulty::new(value).expect("above zero");
    let config = vardiff::Config {
        interval: Duration::from_secs_f64(INTERVAL_S),
        start: difficulty(1024.0),
        min: difficulty(1e-5),
        max: difficulty(1e10),
    };
    let start = Instant::now();
    let mut vardiff = vardiff::Vardiff::new(config, start);
    let device: &Device = device::by_user_agent(profile.user_agent);
    if let Some(first) = device.start {
        vardiff.begin(difficulty(first), Difficulty::new(device.slowest).unwrap_or(config.min), start);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut run = Run { changes: vec![(0.0, vardiff.current().get())], submissions: Vec::new() };
    // Difficulty that the device works on now, and once the newest job has reached it.
    let mut working_on = vardiff.current();
    let mut underway: Vec<(f64, Difficulty)> = Vec::new();
    // Work until the next submission, in units of difficulty, is exponential; a change of jobs does not change that.
    let mut at = 0.0;
    let step = 0.02;
    let mut tick = 0_u64;
    while at < seconds {
        tick += 1;
        #[expect(clippy::cast_precision_loss, reason = "few ticks")]
        let now_s = tick as f64 * step;
        at = now_s;
        while underway.first().is_some_and(|(arrives, _)| *arrives <= at) {
            working_on = underway.remove(0).1;
        }
        let now = start + Duration::from_secs_f64(at);
        let rate = if at < profile.boot_s { 0.0 } else { profile.hash_rate * factor(at) };
        let expected = rate * step / working_on.average_hashes();
        // Maximum that a device reports, at any difficulty.
        let found = poisson(&mut random, expected).min(40);
        let mut changed = None;
        for _ in 0..found {
            run.submissions.push(at);
            vardiff.record(working_on, now);
            changed = vardiff.retarget(config.max, now).or(changed);
        }
        if vardiff.deadline().is_some_and(|deadline| deadline <= now) {
            changed = vardiff.retarget(config.max, now).or(changed);
        }
        if let Some(changed) = changed {
            run.changes.push((at, changed.get()));
            underway.push((at + profile.delay_s, changed));
        }
    }
    run
}

fn poisson(random: &mut fastrand::Rng, mean: f64) -> u32 {
    if mean > 30.0 {
        // Far more than any device reports.
        return 40;
    }
    let limit = (-mean).exp();
    let mut product = random.f64();
    let mut count = 0;
    while product > limit {
        product *= random.f64();
        count += 1;
    }
    count
}
