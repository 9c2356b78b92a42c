//! A target's secrets: what stands for them in the guest's sight, and how they get into a request and out of an answer again.
//!
//! A guest copies texts that strangers write: a task's variables into a message, an answer into the next request. So a placeholder ends
//! in random digits that are new for each try: no stranger's text can name a secret and have it sent along.

use std::collections::BTreeMap;

use forge_api::Secret;
use serde_json::{Map, Value};

use super::policy::Refusal;
use crate::hex;
use crate::secrets::{NoRandomness, random_bytes};

/// What a placeholder begins and ends with.
const BEGIN: &str = "{{secret:";
const END: &str = "}}";

/// What a field of the plugin's own `[config]` is called by beside those of the target.
const OF_PLUGIN: &str = "plugin:";

/// What stands in an answer where a secret came back.
const MASK: &[u8] = b"***";
/// A shorter text would mask much that is none.
const MASKED_BYTES_MIN: usize = 4;

/// The secrets of one target, for one try.
#[derive(Debug)]
pub struct TargetSecrets {
    fields: BTreeMap<String, Secret>,
    plugin_fields: BTreeMap<String, Secret>,
    own: Option<Secret>,
    nonce: String,
}

impl TargetSecrets {
    /// The secrets of `[config]` by field, and the target's own `secret`.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(fields: BTreeMap<String, Secret>, own: Option<Secret>) -> Result<Self, NoRandomness> {
        Ok(Self { fields, plugin_fields: BTreeMap::new(), own, nonce: hex::encode(&random_bytes::<8>()?) })
    }

    /// With the secrets of the plugin's own `[config]` by field, which all its targets share.
    #[must_use]
    pub fn with_plugin(self, plugin_fields: BTreeMap<String, Secret>) -> Self {
        Self { plugin_fields, ..self }
    }

    /// The target's own `secret`.
    pub fn own(&self) -> Option<&Secret> {
        self.own.as_ref()
    }

    /// What stands for a field's secret during this try.
    pub fn placeholder(&self, field: &str) -> String {
        format!("{BEGIN}{field}:{}{END}", self.nonce)
    }

    /// The target's `[config]` as its guest is told.
    pub fn config_json(&self, config: &Map<String, Value>) -> String {
        let mut config = config.clone();
        for field in self.fields.keys() {
            config.insert(field.clone(), self.placeholder(field).into());
        }
        Value::Object(config).to_string()
    }

    /// The plugin's own `[config]` as its guest is told.
    pub fn plugin_config_json(&self, config: &Map<String, Value>) -> String {
        let mut config = config.clone();
        for field in self.plugin_fields.keys() {
            config.insert(field.clone(), self.placeholder(&format!("{OF_PLUGIN}{field}")).into());
        }
        Value::Object(config).to_string()
    }

    /// The secret that a placeholder's field names.
    fn of(&self, field: &str) -> Option<&Secret> {
        let of_plugin = || self.plugin_fields.get(field.strip_prefix(OF_PLUGIN)?);
        self.fields.get(field).or_else(of_plugin)
    }

    /// A text of the guest as people read it: without the random digits.
    pub fn shown(&self, text: &str) -> String {
        text.replace(&format!(":{}{END}", self.nonce), END)
    }

    /// Where the first placeholder stands.
    pub fn find(&self, text: &str) -> Option<usize> {
        self.next(text.as_bytes(), 0).map(|(start, _, _)| start)
    }

    /// The next placeholder from `from` on: where it begins, its field, and where it ends.
    fn next<'a>(&self, bytes: &'a [u8], from: usize) -> Option<(usize, &'a [u8], usize)> {
        let tail = format!(":{}{END}", self.nonce).into_bytes();
        let mut at = from;
        while let Some(found) = position(bytes.get(at..)?, &tail) {
            let (field_end, end) = (at + found, at + found + tail.len());
            // The begin that is nearest before: whatever stands before that is text.
            let start = bytes.get(from..field_end)?.windows(BEGIN.len()).rposition(|window| window == BEGIN.as_bytes());
            if let Some(start) = start.map(|start| start + from) {
                return Some((start, bytes.get(start + BEGIN.len()..field_end)?, end));
            }
            at = end;
        }
        None
    }

    /// The bytes with each placeholder replaced. What only looks like one stays as it is.
    ///
    /// # Errors
    /// A placeholder names a field that has no secret.
    pub fn fill(&self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut filled = Vec::with_capacity(bytes.len());
        let mut from = 0;
        while let Some((start, field, end)) = self.next(bytes, from) {
            let field = String::from_utf8_lossy(field);
            let secret = self.of(&field).ok_or_else(|| Refusal::NoSecret(field.into_owned()))?;
            filled.extend_from_slice(bytes.get(from..start).unwrap_or_default());
            filled.extend_from_slice(secret.reveal().as_bytes());
            from = end;
        }
        filled.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Ok(filled)
    }

    /// A text with each placeholder replaced.
    ///
    /// # Errors
    /// As for [`TargetSecrets::fill`].
    pub fn fill_text(&self, text: &str) -> Result<Secret, Refusal> {
        let filled = self.fill(text.as_bytes())?;
        // Texts put into a text where texts stood: it is one again.
        Ok(Secret::new(String::from_utf8_lossy(&filled)))
    }

    /// How much longer than a bound an answer has to be read, so that no half secret is left at its end.
    pub fn longest_bytes(&self) -> usize {
        self.all().map(<[u8]>::len).max().unwrap_or(0)
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.fields
            .values()
            .chain(self.plugin_fields.values())
            .chain(&self.own)
            .map(|secret| secret.reveal().as_bytes())
    }

    /// At most the first `bytes_max` bytes of an answer, with each secret masked that came back in it.
    pub fn mask(&self, bytes: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut secrets: Vec<&[u8]> = self.all().filter(|secret| secret.len() >= MASKED_BYTES_MIN).collect();
        // One secret may begin like another: the longer one is the one that is there.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut masked = Vec::with_capacity(bytes.len().min(bytes_max));
        let mut at = 0;
        while at < bytes.len().min(bytes_max) {
            let rest = bytes.get(at..).unwrap_or_default();
            match secrets.iter().find(|secret| rest.starts_with(secret)) {
                Some(secret) => {
                    masked.extend_from_slice(MASK);
                    at += secret.len();
                }
                None => {
                    masked.extend(rest.first());
                    at += 1;
                }
            }
        }
        masked
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> TargetSecrets {
        let fields = [("token", "s3cr3t"), ("longer", "s3cr3t-and-more"), ("short", "ab")];
        let fields = fields.map(|(field, value)| (field.to_owned(), Secret::new(value))).into_iter().collect();
        TargetSecrets::new(fields, Some(Secret::new("own-secret"))).expect("there is randomness")
    }

    fn filled(secrets: &TargetSecrets, text: &str) -> Result<String, Refusal> {
        secrets.fill_text(text).map(|secret| secret.reveal().to_owned())
    }

    #[test]
    fn placeholders_of_this_try_are_replaced_and_no_others() {
        let secrets = secrets();
        let token = secrets.placeholder("token");
        assert_eq!(filled(&secrets, &format!("Bearer {token}, {token}!")).as_deref(), Ok("Bearer s3cr3t, s3cr3t!"));
        for text in ["{{secret:token}}", "{{secret:token:0000000000000000}}", "{{secret:", "}}", ""] {
            assert_eq!(filled(&secrets, text).as_deref(), Ok(text), "a stranger wrote it");
        }
        let nested = format!("{{{{secret:{token}}}}}");
        assert_eq!(filled(&secrets, &nested).as_deref(), Ok("{{secret:s3cr3t}}"));
        assert_eq!(filled(&secrets, &secrets.placeholder("other")), Err(Refusal::NoSecret("other".to_owned())));
        assert_eq!(secrets.shown(&token), "{{secret:token}}");
        assert_eq!(secrets.find(&format!("ab{token}")), Some(2));
    }

    #[test]
    fn the_guest_is_told_of_placeholders() {
        let secrets = secrets();
        let config = json!({ "token": "{{secret:token}}", "room": "ops" });
        let told: Value =
            serde_json::from_str(&secrets.config_json(config.as_object().expect("a table"))).expect("JSON");
        assert_eq!(told["room"], "ops");
        assert_eq!(told["token"], secrets.placeholder("token"));
        assert_ne!(secrets.placeholder("token"), self::secrets().placeholder("token"), "each try has its own");
    }

    #[test]
    fn a_plugins_own_secrets_stand_beside_those_of_its_targets() {
        let shared = BTreeMap::from([("token".to_owned(), Secret::new("of-the-plugin"))]);
        let secrets = secrets().with_plugin(shared);
        let config = json!({ "token": "{{secret:token}}", "room": "ops" });
        let told: Value =
            serde_json::from_str(&secrets.plugin_config_json(config.as_object().expect("a table"))).expect("JSON");
        assert_eq!(told["room"], "ops");
        let token = told["token"].as_str().expect("a placeholder");
        assert_eq!(filled(&secrets, token).as_deref(), Ok("of-the-plugin"));
        assert_eq!(filled(&secrets, &secrets.placeholder("token")).as_deref(), Ok("s3cr3t"));
        assert_eq!(secrets.mask(b"it is of-the-plugin", 100), b"it is ***");
    }

    #[test]
    fn secrets_that_come_back_are_masked() {
        let secrets = secrets();
        let masked = |text: &str, max| String::from_utf8(secrets.mask(text.as_bytes(), max)).expect("it is text");
        assert_eq!(masked("a s3cr3t-and-more, s3cr3t, own-secret, ab", 100), "a ***, ***, ***, ab");
        assert_eq!(masked("1234s3cr3t", 6), "1234***", "no half of it is left at the cut");
        assert_eq!(masked("123456789", 6), "123456");
        assert_eq!(secrets.longest_bytes(), "s3cr3t-and-more".len());
        assert!(!format!("{secrets:?}").contains("s3cr3t"));
    }
}
