//! The secrets of a plugin's own `[config]`: the guest is told of placeholders, and its processes get what they stand for.
//!
//! A guest copies texts that others write: a survey's answer into a variable, a file of the repository into standard input. So a placeholder
//! ends in random digits that are new for each attempt: no such text can name a secret and have it filled in. What a command line would show
//! to everyone on the machine is refused; what a guest writes into the workspace stays as it wrote it, since it may read that back.

use std::collections::BTreeMap;
use std::io;

use forge_api::Secret;
use serde_json::Value;

use crate::files;

/// The placeholders of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Placeholders(Vec<Placeholder>);

#[derive(Debug)]
struct Placeholder {
    field: String,
    /// As the guest is told.
    text: String,
    secret: Secret,
}

impl Placeholders {
    /// One for each secret, by its field.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> io::Result<Self> {
        if secrets.is_empty() {
            return Ok(Self::default());
        }
        let digits = files::random_hex::<8>()?;
        let placeholder = |(field, secret): (&String, &Secret)| Placeholder {
            field: field.clone(),
            text: format!("{{{{secret:{field}:{digits}}}}}"),
            secret: secret.clone(),
        };
        Ok(Self(secrets.iter().map(placeholder).collect()))
    }

    /// The plugin's `[config]` as its guest is told.
    pub(crate) fn told(&self, config: &Value) -> Value {
        let mut config = config.clone();
        if let Value::Object(fields) = &mut config {
            fields.extend(self.0.iter().map(|one| (one.field.clone(), Value::from(one.text.as_str()))));
        }
        config
    }

    /// The field of a placeholder that stands in the text.
    pub(crate) fn field_in(&self, text: &str) -> Option<&str> {
        self.0.iter().find(|one| text.contains(&one.text)).map(|one| one.field.as_str())
    }

    /// The text with each placeholder replaced.
    pub(crate) fn fill_text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, one| text.replace(&one.text, one.secret.reveal()))
    }

    /// The same of bytes that need not be text.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.iter().fold(bytes.to_vec(), |bytes, one| replace(&bytes, one.text.as_bytes(), one.secret.reveal()))
    }
}

fn replace(bytes: &[u8], wanted: &[u8], with: &str) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(wanted.len()).position(|window| window == wanted) {
        let (before, from) = rest.split_at(at);
        replaced.extend_from_slice(before);
        replaced.extend_from_slice(with.as_bytes());
        rest = from.get(wanted.len()..).unwrap_or_default();
    }
    replaced.extend_from_slice(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn placeholders() -> Placeholders {
        let secrets = [("token", "s3cr3t"), ("pin", "1234-5678")];
        let secrets = secrets.map(|(field, value)| (field.to_owned(), Secret::new(value))).into();
        Placeholders::new(&secrets).expect("there is randomness")
    }

    #[test]
    fn the_guest_is_told_of_placeholders_and_they_are_filled_in() {
        let placeholders = placeholders();
        let told = placeholders.told(&json!({ "token": "{{secret:token}}", "pin": "{{secret:pin}}", "room": "ops" }));
        assert_eq!(told["room"], "ops");
        let [token, pin] = ["token", "pin"].map(|field| told[field].as_str().expect("a text").to_owned());
        assert!(token.starts_with("{{secret:token:") && token.ends_with("}}"), "{token}");
        assert_eq!(placeholders.fill_text(&format!("{token}/{pin}/{token}")), "s3cr3t/1234-5678/s3cr3t");
        let bytes = [b"\xff", token.as_bytes(), b"\xfe"].concat();
        assert_eq!(placeholders.fill(&bytes), b"\xffs3cr3t\xfe");
        assert_eq!(placeholders.field_in(&format!("--pin={pin}")), Some("pin"));
        assert!(!format!("{placeholders:?}").contains("s3cr3t"));
    }

    #[test]
    fn what_a_stranger_wrote_names_no_secret() {
        let placeholders = placeholders();
        for text in ["{{secret:token}}", "{{secret:token:0000000000000000}}", "{{secret:", ""] {
            assert_eq!(placeholders.fill_text(text), text);
            assert_eq!(placeholders.field_in(text), None);
        }
        let other = self::placeholders().told(&json!({}))["token"].as_str().expect("a text").to_owned();
        assert_eq!(placeholders.fill_text(&other), other, "each attempt has its own");
    }
}
