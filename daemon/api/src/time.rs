//! A moment in UTC with microseconds, as every answer of the API shows it (RFC 3339).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: microseconds since the Unix epoch, UTC. It says nothing of how it was read: whoever has the clock makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is not a moment in RFC 3339.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no RFC 3339 time such as 2026-01-31T09:00:00.000000Z")]
pub struct TimestampError {
    text: String,
}

impl Timestamp {
    /// The moment `micros` microseconds after the Unix epoch.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// This moment moved by `millis` milliseconds; the ends of the range stand still.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Milliseconds from `other` to this moment, negative when `other` is later.
    pub const fn millis_after(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0) / 1_000
    }

    /// Milliseconds from `earlier` to this moment, 0 when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> u64 {
        let micros = self.0.saturating_sub(earlier.0);
        if micros < 0 { 0 } else { (micros / 1_000) as u64 }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.6}"),
            // Out of the calendar's range (years beyond 9999): only a corrupt store could hold it.
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| TimestampError { text: text.to_owned() })?;
        Ok(Self(moment.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A moment in UTC with microseconds (RFC 3339)."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_keeps_its_microseconds_on_the_wire() {
        let moment = Timestamp::from_unix_micros(1_700_000_000_000_001);
        assert_eq!(moment.to_string(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(moment.to_string().parse::<Timestamp>().ok(), Some(moment));
        assert_eq!(Timestamp::from_unix_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn what_is_no_time_says_so() {
        let error = "yesterday".parse::<Timestamp>().expect_err("no time");
        assert!(error.to_string().contains("yesterday"), "{error}");
    }
}
