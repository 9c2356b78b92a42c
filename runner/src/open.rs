//! Opening a sealed job: unsealed with the runner's key, its signature checked against the daemon's pinned key, and every
//! claim inside compared with what this runner knows, before anything in it is believed.

use std::io::Read as _;

use age::x25519::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{AttemptId, JSON_BODY_BYTES_MAX, Job, SIGNED_JOB_CONTEXT, SealedJob, Timestamp};
use ring::signature::{ED25519, UnparsedPublicKey};

/// How far the daemon's clock and this machine's may differ before a job counts as expired, in milliseconds.
const CLOCK_SKEW_MS_MAX: i64 = 5 * 60 * 1_000;

/// Why a sealed job is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// Not base64.
    #[error("its {0} is no base64")]
    Encoding(&'static str),
    /// Sealed to another key, or damaged.
    #[error(
        "it is not sealed to this runner's key, or it is damaged ({0}): if private_key_file was replaced, register again"
    )]
    Sealed(String),
    /// Longer than any job is.
    #[error("it is longer than {JSON_BODY_BYTES_MAX} bytes")]
    TooLong,
    /// Signed by someone else.
    #[error(
        "its signature is not the pinned daemon's: if the daemon was set up anew, remove daemon.key in tmp_path and register this runner again"
    )]
    Signature,
    /// Signed, and not a job that this version reads.
    #[error("it is no job that this version reads ({0}): runner and daemon must be of fitting versions")]
    Json(String),
    /// For another runner.
    #[error("it is for the runner {0:?}")]
    Runner(String),
    /// The envelope names another attempt.
    #[error("its envelope names attempt {envelope}, its inside {inside}")]
    Attempt {
        /// As the envelope says.
        envelope: AttemptId,
        /// As the signed job says.
        inside: AttemptId,
    },
    /// Came too late.
    #[error("it expired at {0}: check the clocks of daemon and runner")]
    Expired(Timestamp),
}

/// What opens jobs: kept for the life of a runner.
pub struct Opener {
    /// This runner's name.
    pub runner: String,
    /// This runner's private key.
    pub identity: Identity,
    /// The daemon's pinned public key.
    pub signing_key: Vec<u8>,
}

impl Opener {
    /// Opens `sealed` at the moment `now`.
    pub fn open(&self, sealed: &SealedJob, now: Timestamp) -> Result<Job, OpenError> {
        let bytes = STANDARD.decode(&sealed.sealed).map_err(|_| OpenError::Encoding("sealed part"))?;
        let signature = STANDARD.decode(&sealed.signature).map_err(|_| OpenError::Encoding("signature"))?;
        let json = unseal(&self.identity, &bytes)?;
        let signed = [SIGNED_JOB_CONTEXT, &json].concat();
        UnparsedPublicKey::new(&ED25519, &self.signing_key)
            .verify(&signed, &signature)
            .map_err(|_| OpenError::Signature)?;
        let job: Job = serde_json::from_slice(&json).map_err(|error| OpenError::Json(without_values(&error)))?;
        if job.runner != self.runner {
            return Err(OpenError::Runner(job.runner));
        }
        if job.attempt != sealed.attempt {
            return Err(OpenError::Attempt { envelope: sealed.attempt, inside: job.attempt });
        }
        if job.expires_at.plus_millis(CLOCK_SKEW_MS_MAX) < now {
            return Err(OpenError::Expired(job.expires_at));
        }
        Ok(job)
    }
}

/// Where the JSON is wrong, without showing a value of it.
fn without_values(error: &serde_json::Error) -> String {
    format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
}

/// Decrypts what was sealed to `identity`.
pub(crate) fn unseal(identity: &Identity, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let wrong = |error: &dyn std::fmt::Display| OpenError::Sealed(error.to_string());
    let decryptor = age::Decryptor::new_buffered(sealed).map_err(|error| wrong(&error))?;
    let reader = decryptor.decrypt(std::iter::once(identity as &dyn age::Identity)).map_err(|error| wrong(&error))?;
    let mut opened = Vec::new();
    let bytes_max = JSON_BODY_BYTES_MAX as u64;
    reader.take(bytes_max + 1).read_to_end(&mut opened).map_err(|error| wrong(&error))?;
    if opened.len() as u64 > bytes_max { Err(OpenError::TooLong) } else { Ok(opened) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::Value;

    use super::*;

    /// A daemon that signs and a runner that opens.
    struct Sides {
        daemon: Ed25519KeyPair,
        opener: Opener,
    }

    /// The runner that the kept job is for, and the moment when it expires.
    const RUNNER: &str = "ny-1";

    impl Sides {
        fn new() -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
            let daemon = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
            let signing_key = daemon.public_key().as_ref().to_vec();
            let opener = Opener { runner: RUNNER.to_owned(), identity: Identity::generate(), signing_key };
            Self { daemon, opener }
        }

        fn signature(&self, context: &[u8], json: &[u8]) -> String {
            STANDARD.encode(self.daemon.sign(&[context, json].concat()).as_ref())
        }

        fn seal(&self, json: &[u8]) -> String {
            let recipient = self.opener.identity.to_public();
            let recipients = std::iter::once(&recipient as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(recipients).expect("one");
            let mut sealed = Vec::new();
            let mut writer = encryptor.wrap_output(&mut sealed).expect("it writes");
            writer.write_all(json).expect("it writes");
            writer.finish().expect("it ends");
            STANDARD.encode(sealed)
        }

        /// A job as the daemon sends it.
        fn sent(&self, json: &[u8]) -> SealedJob {
            let attempt = AttemptId { task: 42, attempt: 1 };
            SealedJob { attempt, sealed: self.seal(json), signature: self.signature(SIGNED_JOB_CONTEXT, json) }
        }
    }

    fn kept_job() -> (Value, Timestamp) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wire/0.1.0/job.json");
        let job: Value = serde_json::from_slice(&std::fs::read(path).expect("a job")).expect("JSON");
        let expires_at = job["expires_at"].as_str().expect("a moment").parse().expect("a moment");
        (job, expires_at)
    }

    fn bytes(job: &Value) -> Vec<u8> {
        serde_json::to_vec(job).expect("JSON")
    }

    /// Everything in `value`, as JSON pointers.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        let inside: Vec<(String, &Value)> = match value {
            Value::Object(fields) => {
                fields.iter().map(|(name, inside)| (name.replace('~', "~0").replace('/', "~1"), inside)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(index, inside)| (index.to_string(), inside)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for (name, inside) in inside {
            let at = format!("{at}/{name}");
            pointers(inside, &at, found);
            found.push(at);
        }
    }

    /// Another value of the same kind.
    fn changed(value: &Value) -> Value {
        match value {
            Value::Null => Value::from("x"),
            Value::Bool(truth) => Value::from(!truth),
            Value::Number(number) => Value::from(number.as_u64().expect("whole") + 1),
            Value::String(text) => Value::from(format!("{text}x")),
            Value::Array(items) => items.iter().chain([&Value::Null]).cloned().collect(),
            Value::Object(fields) => {
                let mut fields = fields.clone();
                fields.insert("another".to_owned(), Value::Null);
                Value::Object(fields)
            }
        }
    }

    #[test]
    fn a_job_of_which_anything_is_changed_is_refused() {
        let sides = Sides::new();
        let (job, now) = kept_job();
        let sent = sides.sent(&bytes(&job));
        assert!(sides.opener.open(&sent, now).is_ok(), "as it was sent it is opened");
        let mut all = Vec::new();
        pointers(&job, "", &mut all);
        for field in
            ["/token", "/plugin/sha256", "/plugin/grants/programs/0", "/repository/key/login_password/password"]
        {
            assert!(all.iter().any(|found| found == field), "{field} is looked at");
        }
        let refused = |changed: &Value, what: &str| {
            let forged = SealedJob { sealed: sides.seal(&bytes(changed)), ..sent.clone() };
            assert_eq!(sides.opener.open(&forged, now), Err(OpenError::Signature), "{what}");
        };
        for at in &all {
            let mut forged = job.clone();
            let value = forged.pointer_mut(at).expect("it is there");
            *value = changed(value);
            refused(&forged, &format!("{at} changed"));
            let mut forged = job.clone();
            let (parent, name) = at.rsplit_once('/').expect("below something");
            match forged.pointer_mut(parent).expect("it is there") {
                Value::Object(fields) => {
                    let name = name.replace("~1", "/").replace("~0", "~");
                    fields.remove(&name).expect("it was there");
                }
                Value::Array(items) => {
                    items.remove(name.parse().expect("an index"));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => panic!("{parent} holds nothing"),
            }
            refused(&forged, &format!("{at} taken out"));
        }
        refused(&changed(&job), "a field more");
    }

    #[test]
    fn a_job_that_is_signed_and_not_for_this_runner_now_is_refused() {
        let sides = Sides::new();
        let (job, expires_at) = kept_job();
        let json = bytes(&job);
        let sent = sides.sent(&json);
        let refused = |opener: &Opener, sent: &SealedJob| opener.open(sent, expires_at).expect_err("refused");

        let envelope = AttemptId { task: 42, attempt: 2 };
        let inside = sent.attempt;
        let crossed = SealedJob { attempt: envelope, ..sent.clone() };
        assert_eq!(refused(&sides.opener, &crossed), OpenError::Attempt { envelope, inside });

        let late = expires_at.plus_millis(CLOCK_SKEW_MS_MAX);
        assert!(sides.opener.open(&sent, late).is_ok(), "clocks may differ by five minutes");
        let later = late.plus_millis(1);
        assert_eq!(sides.opener.open(&sent, later), Err(OpenError::Expired(expires_at)));

        let Opener { runner: _, identity: _, signing_key } = &sides.opener;
        let keyed = |runner: &str, identity: Identity, signing_key: &[u8]| Opener {
            runner: runner.to_owned(),
            identity,
            signing_key: signing_key.to_owned(),
        };
        let stranger = keyed(RUNNER, Identity::generate(), signing_key);
        assert!(matches!(refused(&stranger, &sent), OpenError::Sealed(_)));
        let namesake = keyed("ny-2", sides.opener.identity.clone(), signing_key);
        assert_eq!(refused(&namesake, &sent), OpenError::Runner(RUNNER.to_owned()));
        let of_another_daemon = keyed(RUNNER, sides.opener.identity.clone(), &Sides::new().opener.signing_key);
        assert_eq!(refused(&of_another_daemon, &sent), OpenError::Signature);
        // Signed by the daemon for another purpose.
        for context in [&b"forge job v2\n"[..], b"forge carry v1\n", b""] {
            let signature = sides.signature(context, &json);
            assert_eq!(refused(&sides.opener, &SealedJob { signature, ..sent.clone() }), OpenError::Signature);
        }
        assert!(matches!(refused(&sides.opener, &sides.sent(b"{}")), OpenError::Json(_)));
    }

    #[test]
    fn a_job_that_is_damaged_or_too_long_is_refused() {
        let sides = Sides::new();
        let (job, now) = kept_job();
        let sent = sides.sent(&bytes(&job));
        let refused = |sent: &SealedJob| sides.opener.open(sent, now).expect_err("refused");
        let not_sealed = SealedJob { sealed: format!("{}!", sent.sealed), ..sent.clone() };
        assert_eq!(refused(&not_sealed), OpenError::Encoding("sealed part"));
        let not_signed = SealedJob { signature: "no base64".to_owned(), ..sent.clone() };
        assert_eq!(refused(&not_signed), OpenError::Encoding("signature"));
        let empty = SealedJob { sealed: String::new(), ..sent.clone() };
        assert!(matches!(refused(&empty), OpenError::Sealed(_)));
        let mut sealed = STANDARD.decode(&sent.sealed).expect("base64");
        *sealed.last_mut().expect("a byte") ^= 1;
        assert!(matches!(refused(&SealedJob { sealed: STANDARD.encode(sealed), ..sent }), OpenError::Sealed(_)));
        let mut longest = bytes(&job);
        longest.resize(JSON_BODY_BYTES_MAX, b' ');
        assert!(sides.opener.open(&sides.sent(&longest), now).is_ok(), "as long as a job may be");
        longest.push(b' ');
        assert_eq!(refused(&sides.sent(&longest)), OpenError::TooLong);
    }

    #[test]
    fn jobs_of_every_version_that_was_sealed_and_signed_are_opened() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wire");
        let mut opened = 0;
        for version in std::fs::read_dir(folder).expect("testdata/wire") {
            let path = version.expect("an entry").path().join("sealed-job.json");
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let kept: Value = serde_json::from_str(&text).expect("JSON");
            let of = |field: &str| kept[field].as_str().expect("a text").to_owned();
            let opener = Opener {
                runner: of("runner"),
                identity: of("identity").parse().expect("an identity"),
                signing_key: STANDARD.decode(of("signing_key")).expect("base64"),
            };
            let sealed: SealedJob = serde_json::from_value(kept["sealed"].clone()).expect("a sealed job");
            let opened_at = of("opened_at").parse().expect("a moment");
            let job = opener.open(&sealed, opened_at).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!((job.project.as_str(), job.template.as_str()), ("shop", "hello"));
            // A byte of it changed is no longer what the daemon signed.
            let mut signature = STANDARD.decode(&sealed.signature).expect("base64");
            signature[7] ^= 1;
            let forged = SealedJob { signature: STANDARD.encode(&signature), ..sealed };
            assert_eq!(opener.open(&forged, opened_at), Err(OpenError::Signature));
            opened += 1;
        }
        assert!(opened >= 1, "there is none");
    }
}
