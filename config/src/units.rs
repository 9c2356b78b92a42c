//! Durations, sizes and moments as people write them. A number without a unit is refused: nobody remembers which one is meant.

use std::str::FromStr as _;

use toml::value::{Datetime, Offset};

/// The longest duration: about a hundred years, far from what overflows a clock.
pub const DURATION_MS_MAX: u64 = 100 * 366 * 24 * 60 * 60 * 1_000;

/// The units of a duration, the longest names first so that `ms` is not read as `m`.
const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The units of a size.
const SIZE_UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// The text is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number at its beginning.
    #[error("it does not begin with a whole number")]
    NoNumber,
    /// There is no unit behind the number.
    #[error("it has no unit")]
    NoUnit {
        /// The units that there are, as an example.
        units: &'static str,
    },
    /// The unit is none that Forge knows.
    #[error("{unit:?} is no unit")]
    UnknownUnit {
        /// What stands behind the number.
        unit: String,
        /// The units that there are, as an example.
        units: &'static str,
    },
    /// It is more than Forge counts.
    #[error("it is too large")]
    TooLarge,
}

/// Examples of durations, with every unit.
const DURATION_EXAMPLES: &str = "\"500ms\", \"30s\", \"10m\", \"2h\" or \"90d\"";

/// Examples of sizes, with every unit.
const SIZE_EXAMPLES: &str = "\"512B\", \"64KiB\", \"64MiB\", \"1GiB\" or \"1TiB\"";

impl UnitError {
    /// What to write instead.
    pub fn hint(&self) -> String {
        match self {
            Self::NoUnit { units } | Self::UnknownUnit { units, .. } => format!("write it as {units}"),
            Self::NoNumber => "write a whole number and a unit, as in \"30s\" or \"64MiB\"".to_owned(),
            Self::TooLarge => "write a smaller one".to_owned(),
        }
    }
}

/// The milliseconds of a duration such as `500ms`, `30s`, `10m`, `2h` or `90d`.
pub fn duration_ms(text: &str) -> Result<u64, UnitError> {
    match in_units(text, DURATION_UNITS, DURATION_EXAMPLES)? {
        ms if ms <= DURATION_MS_MAX => Ok(ms),
        _ => Err(UnitError::TooLarge),
    }
}

/// A duration as people write it, in the largest unit that is exact.
pub(crate) fn duration_text(ms: u64) -> String {
    let exact = DURATION_UNITS.iter().rev().find(|(_, factor)| ms.is_multiple_of(*factor) && ms >= *factor);
    exact.map_or_else(|| "0s".to_owned(), |(unit, factor)| format!("{}{unit}", ms / factor))
}

/// The bytes of a size such as `64MiB`.
pub fn size_bytes(text: &str) -> Result<u64, UnitError> {
    in_units(text, SIZE_UNITS, SIZE_EXAMPLES)
}

fn in_units(text: &str, known: &[(&str, u64)], units: &'static str) -> Result<u64, UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Err(UnitError::NoUnit { units });
    }
    let Some((_, factor)) = known.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units });
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(UnitError::TooLarge)
}

/// The microseconds since the Unix epoch of an RFC 3339 time with a zone; `None` when it is none.
pub(crate) fn moment_unix_micros(text: &str) -> Option<i64> {
    let moment = Datetime::from_str(text).ok()?;
    let (date, time, offset) = (moment.date?, moment.time?, moment.offset?);
    let offset_minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_from_epoch(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = days * 1_440 + i64::from(time.hour) * 60 + i64::from(time.minute) - offset_minutes;
    let seconds = minutes * 60 + i64::from(time.second.unwrap_or(0));
    Some(seconds * 1_000_000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000))
}

/// A size as people write it, in the largest unit that is exact.
pub(crate) fn size_text(bytes: u64) -> String {
    let exact = SIZE_UNITS.iter().filter(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    exact
        .max_by_key(|(_, factor)| *factor)
        .map_or_else(|| "0B".to_owned(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A moment as people write it, in UTC.
pub(crate) fn moment_text(unix_micros: i64) -> String {
    jiff::Timestamp::from_microsecond(unix_micros).map_or_else(|_| unix_micros.to_string(), |moment| moment.to_string())
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that a leap day is a year's last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("2h", 7_200_000), ("90d", 7_776_000_000), ("0s", 0)]
        {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for (ms, text) in [(0, "0s"), (500, "500ms"), (90_000, "90s"), (86_400_000, "1d"), (7_200_000, "2h")] {
            assert_eq!(duration_text(ms), text);
        }
        assert_eq!(duration_ms("30"), Err(UnitError::NoUnit { units: DURATION_EXAMPLES }));
        assert_eq!(duration_ms("-1s"), Err(UnitError::NoNumber));
        assert_eq!(duration_ms("1w"), Err(UnitError::UnknownUnit { unit: "w".into(), units: DURATION_EXAMPLES }));
        assert_eq!(duration_ms("99999999999999999999s"), Err(UnitError::TooLarge));
        assert_eq!(duration_ms("99999999d"), Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes_are_powers_of_two() {
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("64MiB", 67_108_864), ("1GiB", 1_073_741_824)] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for (bytes, text) in [(0, "0B"), (512, "512B"), (1 << 26, "64MiB"), (3 << 30, "3GiB"), (1536, "1536B")] {
            assert_eq!(size_text(bytes), text);
        }
        assert!(matches!(size_bytes("64MB"), Err(UnitError::UnknownUnit { .. })));
        assert_eq!(size_bytes("99999999TiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn moments_have_a_zone() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-14T22:13:20.000001Z", Some(1_700_000_000_000_001)),
            ("2024-02-29T01:00:00+01:00", Some(1_709_164_800_000_000)),
            ("1969-12-31T23:59:59Z", Some(-1_000_000)),
            ("2027-01-31", None),
            ("2027-01-31T00:00:00", None),
            ("tomorrow", None),
        ] {
            assert_eq!(moment_unix_micros(text), micros, "{text}");
        }
        assert_eq!(moment_text(1_709_164_800_000_000), "2024-02-29T00:00:00Z");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (duration_ms(&text), size_bytes(&text), moment_unix_micros(&text));
        }
    }
}
