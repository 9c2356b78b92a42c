//! Secrets in the tree and in the settings: where a value comes from, what a project may name, and a text that cannot be printed.
//!
//! Nothing here reads a file or a variable: the daemon does, after it asked [`SecretsAllow`].

use std::fmt;

use crate::name::Name;

/// What the secrets of `webhooks/` go by where a project's would go by its name: in `[secrets.allow.webhooks]` of forge.toml and with
/// `forge secret encrypt --project webhooks`. No project may have this name.
pub const WEBHOOK_SECRETS: &str = "webhooks";

/// The same for `plugins/`: all projects that use a plugin share the secrets of its `[config]`.
pub const PLUGIN_SECRETS: &str = "plugins";

/// Where a secret's value comes from. It holds no clear secret but for survey answers, which never come from the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretValue {
    /// Encrypted in the tree.
    Age(String),
    /// A file on the daemon's host.
    File(String),
    /// A variable of the daemon's environment.
    Env(String),
    /// A file in systemd's credentials directory.
    Credential(String),
}

/// What knows whether an age value of the tree opens. The daemon hands it in, since this crate reads no identity.
pub trait AgeValues: fmt::Debug + Send + Sync {
    /// Whether `armored` opens, and was encrypted for `project`.
    ///
    /// # Errors
    /// Why it does not, without repeating any of it.
    fn check(&self, project: &Name, armored: &str) -> Result<(), AgeRefusal>;
}

/// Why an age value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgeRefusal {
    /// Whether the value or the daemon's host is to be mended.
    pub cause: AgeCause,
    /// What is wrong, as the end of a sentence that begins with the value's key.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What keeps an age value from opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeCause {
    /// The value itself: it was encrypted to others, or for another project, or is not whole.
    Value,
    /// The daemon's identity: it is missing or cannot be read.
    Identity,
}

/// Why a text is no age recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// It is the private half.
    #[error("this is an age identity, the private half of a key, and it stands here in clear")]
    Identity,
    /// It does not look like one.
    #[error(
        "this is no age recipient: one begins with `age1` and has {RECIPIENT_CHARS} characters, all of them lower-case letters and digits"
    )]
    Shape,
    /// Its checksum is wrong.
    #[error("this is no age recipient: its checksum is wrong, so a character was lost or changed")]
    Checksum,
}

impl RecipientError {
    /// What to do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Identity => "make a new one with `forge secret keygen`, and commit only the recipient that it prints",
            Self::Shape | Self::Checksum => "copy the whole recipient that `forge secret keygen` printed",
        }
    }
}

/// How many characters an X25519 recipient has.
const RECIPIENT_CHARS: usize = 62;

/// The characters of bech32, by value.
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Whether `text` is a whole age recipient.
///
/// # Errors
/// Why it is none.
pub fn check_recipient(text: &str) -> Result<(), RecipientError> {
    if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
        return Err(RecipientError::Identity);
    }
    let data = text.strip_prefix("age1").filter(|_| text.len() == RECIPIENT_CHARS).ok_or(RecipientError::Shape)?;
    // What bech32 computes its checksum over: the prefix `age`, expanded, and then the data.
    let mut values: Vec<u32> = [3, 3, 3, 0, 1, 7, 5].to_vec();
    for letter in data.bytes() {
        let value = BECH32.iter().position(|known| *known == letter).ok_or(RecipientError::Shape)?;
        values.push(u32::try_from(value).map_err(|_| RecipientError::Shape)?);
    }
    let checksum = values.into_iter().fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ value;
        [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3]
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| top >> bit & 1 == 1)
            .fold(sum, |sum, (_, generator)| sum ^ generator)
    });
    if checksum == 1 { Ok(()) } else { Err(RecipientError::Checksum) }
}

/// A secret text of the settings. `Debug` shows dots, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; whoever calls this answers for where it goes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(...)")
    }
}

/// What `file`, `env` and `credential` values of one project may name: `[secrets.allow.<project>]` of forge.toml. Empty allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretsAllow {
    /// Absolute paths; a `*` stands for any text within one part of the path.
    pub files: Vec<String>,
    /// Names of the daemon's own variables; a `*` stands for any text.
    pub env: Vec<String>,
    /// Names of systemd credentials; a `*` stands for any text.
    pub credentials: Vec<String>,
}

impl SecretsAllow {
    /// Whether a value may come from there. An age value needs no leave: only who holds the identity opens it.
    pub fn allows(&self, value: &SecretValue) -> bool {
        match value {
            SecretValue::Age(_) => true,
            SecretValue::File(path) => self.allows_file(path),
            SecretValue::Env(name) => self.env.iter().any(|pattern| wildcard_matches(pattern, name)),
            SecretValue::Credential(name) => self.credentials.iter().any(|pattern| wildcard_matches(pattern, name)),
        }
    }

    /// Whether a `file` value may name `path`. A path with `.` or `..` in it is never allowed: it says one thing and means another.
    pub fn allows_file(&self, path: &str) -> bool {
        path.starts_with('/')
            && !path.split('/').any(|part| part == "." || part == "..")
            && self.files.iter().any(|pattern| {
                let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
                pattern.len() == path.len()
                    && pattern.iter().zip(&path).all(|(pattern, part)| wildcard_matches(pattern, part))
            })
    }
}

/// Whether `text` is what `pattern` says, where each `*` stands for any text. Linear in both: no pattern makes it slow.
fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = rest.split('*').collect();
    // `split` yields at least one piece, and the last one must stand at the very end.
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_one_part_of_a_path() {
        let allow = SecretsAllow { files: vec!["/etc/forge/shop/*".into()], ..SecretsAllow::default() };
        for (path, allowed) in [
            ("/etc/forge/shop/token", true),
            ("/etc/forge/shop/", true),
            ("/etc/forge/shop/a/b", false),
            ("/etc/forge/shop/../other", false),
            ("/etc/forge/shop/..", false),
            ("/etc/forge/other/token", false),
            ("etc/forge/shop/token", false),
        ] {
            assert_eq!(allow.allows_file(path), allowed, "{path}");
        }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let nothing = SecretsAllow::default();
        assert!(!nothing.allows(&SecretValue::Env("HOME".into())));
        assert!(!nothing.allows(&SecretValue::Credential("a".into())));
        assert!(nothing.allows(&SecretValue::Age("...".into())));
    }

    #[test]
    fn stars_match_any_text() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("a*b*c", "aXbYbZc", true),
            ("ab*ba", "aba", false),
            ("*x", "xx", true),
        ] {
            assert_eq!(wildcard_matches(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_secret_text_is_not_printed() {
        assert_eq!(format!("{:?}", SecretText::new("hunter2")), "SecretText(...)");
    }

    #[test]
    fn a_recipient_is_whole_or_refused() {
        let good = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert_eq!(check_recipient(good), Ok(()));
        assert_eq!(check_recipient(&good.replace('7', "6")), Err(RecipientError::Checksum));
        assert_eq!(check_recipient(&good[..61]), Err(RecipientError::Shape));
        assert_eq!(check_recipient("ssh-ed25519 AAAA"), Err(RecipientError::Shape));
        assert_eq!(check_recipient(&format!("age1{}", "B".repeat(58))), Err(RecipientError::Shape));
        assert_eq!(check_recipient("AGE-SECRET-KEY-1QQ"), Err(RecipientError::Identity));
    }
}
