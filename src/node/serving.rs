//! How miners of a network are served where nothing else is said: difficulties, their bounds and their scale.

use ruint::aliases::U256;
use sharechain::coin::{Network, Pow};
use stratum::{Difficulty, Scale, Target};

/// Returns the settings of the miners' connections on `network`.
pub fn serving(network: &Network) -> stratum::server::Config {
    let mut config = stratum::server::Config::default();
    let (parent, session) = (&network.parent, &mut config.session);
    session.difficulty_scale = Scale::new(parent.dumb_scrypt_diff);
    let is_sha256d = parent.pow == Pow::Sha256d;
    let vardiff = &mut session.vardiff;
    if !is_sha256d {
        // The defaults suit SHA-256 devices. Others get what P2Pool holds to be sane (protocol section 1.2).
        let (hardest, easiest) = parent.sane_target_range;
        vardiff.min = difficulty(easiest).unwrap_or(vardiff.min);
        vardiff.max = difficulty(hardest).unwrap_or(vardiff.max);
    }
    let start = network.start_difficulty.max(vardiff.min.get()).min(vardiff.max.get());
    vardiff.start = Difficulty::new(start).expect("a positive constant");
    // What suits SHA-256 devices on a network where they are used.
    session.known_devices = network.start_difficulty >= 1.0 && is_sha256d;
    config
}

/// Difficulty of a target; `None` for the target that no hash meets.
fn difficulty(target: U256) -> Option<Difficulty> {
    Difficulty::new(Target::from_le_bytes(target.to_le_bytes()).difficulty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{ALL, BITCOIN, LITECOIN, LITECOIN_REGTEST, LITECOIN_TESTNET};

    /// Start, minimum and maximum as miners see them.
    fn shown(network: &Network) -> [f64; 3] {
        let session = serving(network).session;
        let vardiff = session.vardiff;
        [vardiff.start, vardiff.min, vardiff.max].map(|bdiff| session.difficulty_scale.show(bdiff.get()))
    }

    #[test]
    fn bitcoins_bounds_are_those_of_the_field() {
        assert_eq!(shown(&BITCOIN), [1024.0, 1e-5, 1e10]);
        assert!(serving(&BITCOIN).session.known_devices);
    }

    #[test]
    fn litecoins_bounds_are_a_thousand_and_a_quadrillion_hashes_in_scrypt_miners_units() {
        let [start, min, max] = shown(&LITECOIN);
        assert_eq!(start, 32_768.0);
        assert!((min * 65_536.0 / 1e3 - 1.0).abs() < 1e-4, "{min}");
        assert!((max * 65_536.0 / 1e15 - 1.0).abs() < 1e-4, "{max}");
        assert!(!serving(&LITECOIN).session.known_devices, "the table is for SHA-256 devices");
        // 2^17 and 2 hashes; a processor finds the first in a minute.
        let [_, min, _] = shown(&LITECOIN_TESTNET);
        assert!((min / 2.0 - 1.0).abs() < 1e-4, "{min}");
        let [_, min, _] = shown(&LITECOIN_REGTEST);
        assert!((min * 32_768.0 - 1.0).abs() < 1e-4, "{min}");
    }

    #[test]
    fn miners_start_within_the_bounds_on_every_network() {
        for network in ALL {
            let [start, min, max] = shown(network);
            assert!(min <= start && start <= max, "{}: {start}, {min} to {max}", network.name);
        }
        let odd = Network { start_difficulty: 1e9, ..LITECOIN };
        let [start, _, max] = shown(&odd);
        assert_eq!(start, max);
    }
}
