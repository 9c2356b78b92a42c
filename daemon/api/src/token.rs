//! Revoking a token of the tree by its hash.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /tokens/revoke`: refuse the token with this hash from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    /// `sha256:` and 64 hex digits, as in `access/NAME.toml`.
    pub hash: String,
}

/// What was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RevokedToken {
    /// The hash.
    pub hash: String,
    /// The files of the serving revision that still name it: they can go.
    pub files: Vec<String>,
}
