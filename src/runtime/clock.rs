//! The system clock, read only here. Computations get the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970; 0 if the clock is set before that.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970.
pub fn unix_now() -> f64 {
    since_1970().as_secs_f64()
}

/// Nearest whole second since 1970, as in shares and blocks.
pub fn unix_second() -> u32 {
    u32::try_from((since_1970().as_millis() + 500) / 1000).unwrap_or(u32::MAX)
}
