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
    #[error("its signature is not the pinned daemon's: if the daemon was set up anew, register this runner again")]
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
    use super::*;

    #[test]
    fn jobs_of_every_version_that_was_sealed_and_signed_are_opened() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/wire");
        let mut opened = 0;
        for version in std::fs::read_dir(folder).expect("testdata/wire") {
            let path = version.expect("an entry").path().join("sealed-job.json");
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let kept: serde_json::Value = serde_json::from_str(&text).expect("JSON");
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
