//! How a job travels: signed by the daemon (Ed25519 over [`SIGNED_JOB_CONTEXT`] and the JSON), then sealed with age to the one
//! runner that may open it.

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forge_api::{Job, SIGNED_JOB_CONTEXT, SealedJob, Secret};
use ring::signature::Ed25519KeyPair;

/// Why something could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The recipient's key is none.
    #[error("the public key is no age recipient: it begins with `age1` and `forge runner register` makes it")]
    Recipient,
    /// age refused.
    #[error("age could not encrypt: {0}")]
    Age(String),
    /// The job has no JSON form.
    #[error("the job could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An age recipient in its text form.
pub(crate) fn recipient(text: &str) -> Result<age::x25519::Recipient, SealError> {
    age::x25519::Recipient::from_str(text).map_err(|_| SealError::Recipient)
}

/// A text sealed to a public key, in base64.
pub(crate) fn seal_text(public_key: &str, text: &Secret) -> Result<String, SealError> {
    seal(public_key, text.reveal().as_bytes())
}

fn seal(public_key: &str, bytes: &[u8]) -> Result<String, SealError> {
    let sealed = age::encrypt(&recipient(public_key)?, bytes).map_err(|error| SealError::Age(error.to_string()))?;
    Ok(STANDARD.encode(sealed))
}

/// A job, signed and sealed.
pub(crate) fn seal_job(job: &Job, public_key: &str, signing: &Ed25519KeyPair) -> Result<SealedJob, SealError> {
    let json = serde_json::to_vec(job)?;
    let signature = STANDARD.encode(signing.sign(&[SIGNED_JOB_CONTEXT, &json].concat()));
    Ok(SealedJob { attempt: job.attempt, sealed: seal(public_key, &json)?, signature })
}
