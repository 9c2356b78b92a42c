//! Keys, tokens, and the values that only a job may see: where they come from, and how they travel.
//!
//! Nothing here prints a secret, and no error repeats one.

mod age_value;
mod job;
mod keys;
mod resolve;
mod seal;
mod token;

pub(crate) use age_value::Identity;
pub use age_value::{new_identity, open_for_project, seal_for_project};
pub(crate) use job::{Parts, build};
pub(crate) use keys::Keys;
pub use keys::{KeysError, RotatedKey, rotate_signing_key};
pub(crate) use resolve::Resolver;
pub use resolve::{SECRET_BYTES_MAX, SecretError};
pub use seal::SealError;
pub(crate) use seal::{recipient, seal_job, seal_text};
pub use token::{NoRandomness, TokenKind, digest_of, new_token};
pub(crate) use token::{random_bytes, same_digest};
