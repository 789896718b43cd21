//! `Secret`: a text that is never formatted.

use std::fmt;

/// A password, a URL with a token, a command with credentials: formatted as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_formatted_wherever_it_is() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:#?} {:?}", Some(&secret), [&secret]).matches("hunter2").count(), 0);
        assert_eq!(secret.expose(), "hunter2");
    }
}
