//! The outputs of the root module: those that are not sensitive with their values, the others by name only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most bytes of values: a task's summary is a page, not an archive.
const VALUES_BYTES_MAX: usize = 256 * 1024;

/// `output -json`.
pub(crate) type Read = BTreeMap<String, One>;

#[derive(Debug, Deserialize)]
pub(crate) struct One {
    #[serde(default = "unless_said_otherwise")]
    sensitive: bool,
    #[serde(default)]
    value: Value,
}

/// An output that does not say whether it is sensitive is kept back.
const fn unless_said_otherwise() -> bool {
    true
}

/// What the summary holds.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Outputs {
    outputs: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sensitive_outputs: Vec<String>,
    /// Those whose values are too large.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs_left_out: Vec<String>,
}

impl From<Read> for Outputs {
    fn from(read: Read) -> Self {
        let (mut outputs, mut sensitive_outputs, mut outputs_left_out) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut room_bytes = VALUES_BYTES_MAX;
        for (name, One { sensitive, value }) in read {
            let value_bytes = value.to_string().len();
            if sensitive {
                sensitive_outputs.push(name);
            } else if value_bytes > room_bytes {
                outputs_left_out.push(name);
            } else {
                room_bytes -= value_bytes;
                outputs.insert(name, value);
            }
        }
        Self { outputs, sensitive_outputs, outputs_left_out }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sensitive_and_huge_values_stay_out() {
        let read: Read = serde_json::from_value(json!({
            "ip": { "sensitive": false, "type": "string", "value": "10.0.0.1" },
            "token": { "sensitive": true, "value": "hush" },
            "unsaid": { "value": "hush" },
            "page": { "sensitive": false, "value": "x".repeat(VALUES_BYTES_MAX) },
        }))
        .expect("they are outputs");
        let expected = json!({
            "outputs": { "ip": "10.0.0.1" }, "sensitive_outputs": ["token", "unsaid"], "outputs_left_out": ["page"]
        });
        assert_eq!(serde_json::to_value(Outputs::from(read)).expect("it is JSON"), expected);
    }
}
