//! Names of objects, and the digests that stand beside them: both are checked when they are made, so that a wrong one cannot travel.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many characters a name has at most.
pub const NAME_CHARS_MAX: usize = 63;

/// A name of an object: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// The text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_CHARS_MAX`] characters.
    #[error("a name has at most {NAME_CHARS_MAX} characters, and this one has {0}")]
    TooLong(usize),
    /// It begins with a dash.
    #[error("a name begins with a letter or a digit, not with `-`")]
    LeadingDash,
    /// A character that no name holds.
    #[error("a name holds a-z, 0-9 and `-`, and {0:?} is none of them")]
    Character(char),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name nearest to `text`, for a hint: lower case, with a dash for what no name holds. `None` when nothing is left.
    pub fn nearest_to(text: &str) -> Option<Self> {
        let mut near = String::new();
        for character in text.chars().flat_map(char::to_lowercase) {
            if near.len() == NAME_CHARS_MAX {
                break;
            }
            if character.is_ascii_lowercase() || character.is_ascii_digit() {
                near.push(character);
            } else if !near.is_empty() && !near.ends_with('-') {
                near.push('-');
            }
        }
        near.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let wrong = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-');
        if let Some(character) = text.chars().find(wrong) {
            return Err(NameError::Character(character));
        }
        if text.starts_with('-') {
            return Err(NameError::LeadingDash);
        }
        match text.len() {
            0..=NAME_CHARS_MAX => Ok(Self(text.to_owned())),
            length => Err(NameError::TooLong(length)),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A SHA-256, written `sha256:` and 64 hex digits in tokens' hashes, bare hex for plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// The text is no SHA-256. The text itself is left out: people paste tokens where hashes belong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 hex digits, with or without `sha256:` before them")]
pub struct DigestError;

impl Digest {
    /// The digest as 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        let mut bytes = [0; 32];
        if hex.len() != bytes.len() * 2 {
            return Err(DigestError);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = digit(pair[0]).zip(digit(pair[1])).ok_or(DigestError)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_when_it_is_made() {
        for good in ["a", "0", "new-york-1", "a-", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().expect("a name").to_string(), good);
        }
        for (wrong, error) in [
            ("", NameError::Empty),
            ("-a", NameError::LeadingDash),
            ("New", NameError::Character('N')),
            ("a_b", NameError::Character('_')),
            ("ü", NameError::Character('ü')),
            ("../a", NameError::Character('.')),
            (&"a".repeat(64), NameError::TooLong(64)),
        ] {
            assert_eq!(wrong.parse::<Name>(), Err(error), "{wrong}");
        }
    }

    #[test]
    fn the_nearest_name_is_a_name() {
        for (text, near) in [("Deploy_App", Some("deploy-app")), ("  x ", Some("x")), ("__", None), ("Ü1", Some("1"))]
        {
            assert_eq!(Name::nearest_to(text).as_ref().map(Name::as_str), near, "{text}");
        }
    }

    #[test]
    fn a_digest_reads_both_spellings() {
        let hex = "0f".repeat(32);
        let digest = Digest([0x0f; 32]);
        assert_eq!(hex.parse(), Ok(digest));
        assert_eq!(format!("sha256:{}", hex.to_uppercase()).parse(), Ok(digest));
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        for wrong in ["", "sha256:", "sha256:0f", "md5:0f", &"é".repeat(32), &"g".repeat(64)] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
        }
    }
}
