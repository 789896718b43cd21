//! The system's clock, read here alone. What is reckoned with a time gets it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970. A clock that stands before is as good as none: 0.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970.
pub fn unix_now() -> f64 {
    since_1970().as_secs_f64()
}

/// The nearest whole second since 1970, as shares and blocks bear it.
pub fn unix_second() -> u32 {
    u32::try_from((since_1970().as_millis() + 500) / 1000).unwrap_or(u32::MAX)
}
