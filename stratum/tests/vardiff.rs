//! Difficulty over time for hardware in the field, in virtual time: seeded, so that failures are reproducible.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod hardware;

use hardware::{PROFILES, Profile, ideal, simulate};

const SEEDS: u64 = 40;

fn unknown(hash_rate: f64) -> Profile {
    Profile { name: "unknown", user_agent: "", hash_rate, delay_s: 0.3, boot_s: 0.0 }
}

/// Returns the number of runs further off than `factor` at `seconds`, and that of all runs.
fn far_off(profiles: &[Profile], seconds: f64, factor: f64) -> (u32, u32) {
    let (mut far, mut all) = (0, 0);
    for profile in profiles {
        for seed in 0..SEEDS {
            let run = simulate(profile, seconds, seed, |_| 1.0);
            let ratio = run.at(seconds) / ideal(profile.hash_rate);
            all += 1;
            if !(1.0 / factor..=factor).contains(&ratio) {
                far += 1;
                eprintln!(
                    "{} {:e} H/s, seed {seed}: {ratio:.2} after {seconds} s: {:?}",
                    profile.name, profile.hash_rate, run.changes
                );
            }
        }
    }
    (far, all)
}

#[test]
fn from_a_megahash_to_a_petahash_it_is_right_within_a_minute() {
    let profiles: Vec<Profile> = (0..=18).map(|half| unknown(f64::powf(10.0, 6.0 + 0.5 * f64::from(half)))).collect();
    let (far, all) = far_off(&profiles, 60.0, 2.0);
    assert!(far * 100 <= all, "{far} of {all} are off by more than a factor of two");
    assert_eq!(far_off(&profiles, 60.0, 4.0).0, 0);
}

#[test]
fn below_a_megahash_it_is_right_within_three() {
    let profiles: Vec<Profile> = [2e4, 5e4, 1e5, 2e5, 5e5].map(unknown).into();
    let (far, all) = far_off(&profiles, 180.0, 2.0);
    assert!(far * 100 <= all, "{far} of {all} are off by more than a factor of two");
}

#[test]
fn every_profile_of_hardware_is_right_within_a_minute() {
    // A rental is kept above the minimum of its marketplace.
    let (far, all) = far_off(PROFILES, 60.0, 2.0);
    assert!(far * 100 <= all, "{far} of {all} are off by more than a factor of two");
}

#[test]
fn a_steady_miner_is_left_alone() {
    const HOURS: f64 = 4.0;
    let mut changes = 0;
    for profile in PROFILES {
        for seed in 0..3 {
            let run = simulate(profile, HOURS * 3600.0, seed, |_| 1.0);
            let late: Vec<_> = run.changes.iter().filter(|(at, _)| *at > 300.0).collect();
            changes += late.len();
            assert!(late.len() <= 3, "{} seed {seed} oscillates: {late:?}", profile.name);
        }
    }
    let hours = HOURS * 3.0 * f64::from(u32::try_from(PROFILES.len()).unwrap());
    let changes = f64::from(u32::try_from(changes).unwrap());
    assert!(changes / hours < 0.25, "{changes} changes in {hours} hours");
}

#[test]
fn a_miner_that_changes_its_speed_is_followed_in_both_directions() {
    for (factor, within) in [(30.0, 60.0), (4.0, 180.0), (0.25, 240.0), (0.01, 420.0)] {
        for seed in 0..SEEDS {
            let profile = unknown(1e12);
            let run = simulate(&profile, 600.0 + within, seed, |at| if at < 600.0 { 1.0 } else { factor });
            let ratio = run.at(600.0 + within) / ideal(1e12 * factor);
            assert!((0.3..=3.3).contains(&ratio), "{factor} times, seed {seed}: {ratio:.2}: {:?}", run.changes);
        }
    }
}

#[test]
fn a_miner_that_comes_back_from_a_pause_does_not_flood() {
    for seed in 0..SEEDS {
        let profile = Profile { user_agent: "bmminer/2.0.0", ..unknown(1.35e13) };
        let run = simulate(&profile, 1000.0, seed, |at| f64::from(u8::from(!(300.0..900.0).contains(&at))));
        let back = run.submissions.iter().filter(|at| (900.0..910.0).contains(*at)).count();
        assert!(back < 1000, "seed {seed}: {back} submissions in the first ten seconds");
        let ratio = run.at(960.0) / ideal(1.35e13);
        assert!((0.4..=2.5).contains(&ratio), "seed {seed}: {ratio:.2}");
    }
}
