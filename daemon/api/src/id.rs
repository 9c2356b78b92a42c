//! The id of an attempt: its task's number and the attempt's own, as in `42-1`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One try of a task on one runner. Written `TASK-ATTEMPT`; the first attempt is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task's number.
    pub task: u64,
    /// The attempt's number within its task, from 1.
    pub attempt: u32,
}

/// The text is not an attempt's id.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no attempt id such as 42-1")]
pub struct AttemptIdError {
    text: String,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.task, self.attempt)
    }
}

impl FromStr for AttemptId {
    type Err = AttemptIdError;

    fn from_str(text: &str) -> Result<Self, AttemptIdError> {
        let wrong = || AttemptIdError { text: text.to_owned() };
        let (task, attempt) = text.split_once('-').ok_or_else(wrong)?;
        let id = Self { task: task.parse().map_err(|_| wrong())?, attempt: attempt.parse().map_err(|_| wrong())? };
        // Only the canonical spelling is an id: `+1-1` and `01-1` would otherwise name the same attempt twice.
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

impl Serialize for AttemptId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AttemptId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for AttemptId {
    fn schema_name() -> Cow<'static, str> {
        "AttemptId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(0|[1-9][0-9]*)-(0|[1-9][0-9]*)$",
            "description": "An attempt: its task's number and its own, as in `42-1`."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        assert_eq!("42-1".parse::<AttemptId>().ok(), Some(AttemptId { task: 42, attempt: 1 }));
        for wrong in ["", "42", "42-", "-1", "042-1", "42-+1", "42-1-1", "../42-1"] {
            assert!(wrong.parse::<AttemptId>().is_err(), "{wrong}");
        }
    }
}
