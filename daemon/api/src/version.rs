//! Versions of Forge, as daemon and runner say them to each other.

use std::fmt;
use std::str::FromStr;

/// A version, `MAJOR.MINOR.PATCH`. What follows (`-rc.1`, `+build`) is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

/// The text is no version.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no version such as 1.2.3")]
pub struct VersionError {
    text: String,
}

impl Version {
    /// A version of three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether what a peer says of itself is certainly older than `minimum`. One that says nothing, or nothing that can be read (a
    /// build of someone's own, say), is not.
    pub fn is_older(said: &str, minimum: Self) -> bool {
        said.parse::<Self>().is_ok_and(|version| version < minimum)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError { text: text.to_owned() };
        let core = text.split(['-', '+']).next().unwrap_or_default();
        let numbers: Option<Vec<u32>> = core
            .split('.')
            .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?)
            .collect();
        match numbers.as_deref() {
            Some([major, minor, patch]) => Ok(Self::new(*major, *minor, *patch)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let minimum = Version::new(0, 10, 2);
        for older in ["0.9.99", "0.10.1", "0.0.0", "0.9.0-rc.1"] {
            assert!(Version::is_older(older, minimum), "{older}");
        }
        for other in
            ["0.10.2", "0.10.10", "1.0.0", "0.10.2-rc.1+7", "", "test", "0.9", "0.9.x", "+0.9.1", "0.9.99999999999"]
        {
            assert!(!Version::is_older(other, minimum), "{other}");
        }
        assert_eq!(minimum.to_string().parse::<Version>().expect("its own text"), minimum);
        assert!("1.2".parse::<Version>().expect_err("two numbers").to_string().contains("1.2.3"));
    }
}
