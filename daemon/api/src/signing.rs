//! The daemon's signing key changes hands: how a runner learns of the next key from the one that it has pinned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a change's Ed25519 signature covers is these bytes, the old public key and the new one: it passes for nothing else.
const KEY_CHANGE_CONTEXT: &[u8] = b"forge signing key change v1\n";

/// One change of the key that jobs are signed with, in the old key's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyChange {
    /// The public Ed25519 key until then, in base64.
    pub from: String,
    /// The public Ed25519 key from then on, in base64.
    pub to: String,
    /// The old key's Ed25519 signature over [`KeyChange::signed_bytes`], in base64.
    pub signature: String,
}

impl KeyChange {
    /// What the old key signs; both keys are raw, 32 bytes each.
    pub fn signed_bytes(from: &[u8], to: &[u8]) -> Vec<u8> {
        [KEY_CHANGE_CONTEXT, from, to].concat()
    }
}
