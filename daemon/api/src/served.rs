//! What the revision that serves holds, object by object, as `GET /config/objects` answers and `forge config diff ... live` compares.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The objects of the revision that serves. No secret is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServedConfig {
    /// The revision; empty while an empty tree serves.
    pub revision: String,
    /// The fields of each object, in the words of its file, by the file's path without `.toml`.
    pub objects: BTreeMap<String, Map<String, Value>>,
}
