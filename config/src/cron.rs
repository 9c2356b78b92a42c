//! When a schedule fires: five fields in a time zone, and what they mean on the two days a year on which clocks are set. Pure.
//!
//! A schedule whose hour is `*` (or `*/1`) means the time that passes: it goes on as if no clock were set, and skips what does not exist.
//! One that names hours means the clock on the wall, once a day each: a time that does not exist comes at the end of the gap, and one that
//! comes twice counts the first time. So a nightly job runs every night once, and a job of every ten minutes runs every ten minutes.

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};
use std::sync::LazyLock;

/// The zones, built in: what a tree means does not depend on the files of the machine that reads it.
pub(crate) static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Farther apart two readings of one moment's clock never were: Samoa once left out a day.
const CLOCK_SET_BY_MAX: SignedDuration = SignedDuration::from_hours(26);

/// More changes of a zone's clock are not looked through for one firing: two a year, over the four years in which every date comes once.
const CLOCK_CHANGES_MAX: usize = 16;

/// When a schedule fires.
#[derive(Clone, Debug)]
pub struct Cron {
    fields: Crontab,
    zone: TimeZone,
    /// It means the time that passes, and not the clock on the wall.
    is_of_every_hour: bool,
}

/// It is no time, or no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{cron}` in {timezone} is no time of a schedule")]
pub struct CronError {
    cron: String,
    timezone: String,
}

/// The fields alone, in UTC.
pub(crate) fn parse(cron: &str) -> Result<Crontab, cronexpr::Error> {
    let mut options = ParseOptions::default();
    options.fallback_timezone_option = FallbackTimezoneOption::UTC;
    cronexpr::parse_crontab_with(cron, options)
}

impl Cron {
    /// Five fields, and the IANA name of a zone.
    ///
    /// # Errors
    /// One of them is none; what the check of a tree let pass never is.
    pub fn new(cron: &str, timezone: &str) -> Result<Self, CronError> {
        let wrong = || CronError { cron: cron.to_owned(), timezone: timezone.to_owned() };
        let fields = parse(cron).map_err(|_| wrong())?;
        let zone = ZONES.get(timezone).map_err(|_| wrong())?;
        let hour = cron.split_ascii_whitespace().nth(1).unwrap_or_default();
        Ok(Self { fields, zone, is_of_every_hour: matches!(hour, "*" | "*/1") })
    }

    /// The first firing after a moment, both in seconds since 1970, UTC; `None` when there is none any more.
    pub fn next(&self, after_unix_seconds: i64) -> Option<i64> {
        let after = Timestamp::from_second(after_unix_seconds).ok()?;
        let next = if self.is_of_every_hour { self.next_passing(after) } else { self.next_on_the_wall(after) };
        next.map(Timestamp::as_second)
    }

    /// The next reading of a clock that the fields name.
    fn next_reading(&self, after: DateTime) -> Option<DateTime> {
        let as_utc = after.to_zoned(TimeZone::UTC).ok()?.timestamp();
        let found = self.fields.find_next(MakeTimestamp::from_second(as_utc.as_second()).ok()?).ok()?;
        let second = found.timestamp().as_second();
        Some(TimeZone::UTC.to_datetime(Timestamp::from_second(second).ok()?))
    }

    fn next_on_the_wall(&self, after: Timestamp) -> Option<Timestamp> {
        let mut reading = self.zone.to_datetime(after);
        let is_near = |change: Timestamp| after.duration_since(change) <= CLOCK_SET_BY_MAX;
        if self.zone.preceding(after).next().is_some_and(|change| is_near(change.timestamp())) {
            // What the clock read before may come after: it was set since.
            reading = reading.checked_sub(CLOCK_SET_BY_MAX).ok()?;
        }
        loop {
            reading = self.next_reading(reading)?;
            let moment = match self.zone.to_ambiguous_timestamp(reading).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(reading).ok()?,
                // The end of the gap: the first moment of the clock's new time.
                AmbiguousOffset::Gap { before, .. } => {
                    let within = before.to_timestamp(reading).ok()?;
                    // A change at that very moment is looked for, too: the one that is meant.
                    let later = within.checked_add(SignedDuration::from_secs(1)).ok()?;
                    self.zone.preceding(later).next().map_or(within, |change| change.timestamp())
                }
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(reading).ok()?,
            };
            if moment > after {
                return Some(moment);
            }
        }
    }

    fn next_passing(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        for _ in 0..CLOCK_CHANGES_MAX {
            let offset = self.zone.to_offset(from);
            let reading = self.next_reading(offset.to_datetime(from))?;
            let moment = offset.to_timestamp(reading).ok()?;
            match self.zone.following(from).next() {
                // The clock is set before: from there on it reads otherwise. A second less, since what comes is later than `from`.
                Some(change) if change.timestamp() <= moment => {
                    let offset = self.zone.to_offset(change.timestamp());
                    let before = change.timestamp().checked_sub(SignedDuration::from_secs(1)).ok()?;
                    let reading = self.next_reading(offset.to_datetime(before))?;
                    let moment = offset.to_timestamp(reading).ok()?;
                    let next = self.zone.following(change.timestamp()).next();
                    if next.is_none_or(|next| moment < next.timestamp()) {
                        return Some(moment);
                    }
                    from = change.timestamp();
                }
                Some(_) | None => return Some(moment),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firings(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::new(cron, zone).expect("a time");
        let mut at = after.parse::<Timestamp>().expect("a moment").as_second();
        let mut found = Vec::new();
        for _ in 0..count {
            at = cron.next(at).expect("there is a next");
            found.push(Timestamp::from_second(at).expect("a moment").to_string());
        }
        found
    }

    #[test]
    fn a_time_comes_in_its_zone() {
        let found = firings("30 4 * * MON-FRI", "Europe/Berlin", "2026-06-05T00:00:00Z", 2);
        assert_eq!(found, ["2026-06-05T02:30:00Z", "2026-06-08T02:30:00Z"], "04:30 in summer, and not at the weekend");
        assert_eq!(firings("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
        let kiritimati = firings("0 0 1 1 *", "Pacific/Kiritimati", "2026-06-01T00:00:00Z", 1);
        assert_eq!(kiritimati, ["2026-12-31T10:00:00Z"]);
        assert_eq!(
            firings("0 12 * * *", "UTC", "2026-01-01T12:00:00Z", 1),
            ["2026-01-02T12:00:00Z"],
            "after, and not at"
        );
    }

    /// On 2026-03-29 Berlin's clocks go from 02:00 to 03:00, which is 01:00 UTC.
    #[test]
    fn a_time_that_does_not_exist_comes_at_the_end_of_the_gap() {
        let nightly = firings("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(
            nightly,
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            "every night once"
        );
        let at_its_begin = firings("0 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2);
        assert_eq!(at_its_begin, ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]);
        // Cairo's clocks go from 24:00 to 01:00.
        let midnight = firings("0 0 * * *", "Africa/Cairo", "2026-04-22T23:00:00Z", 3);
        assert_eq!(midnight, ["2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z", "2026-04-25T21:00:00Z"]);
        let two = firings("10,50 2,3 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", 3);
        assert_eq!(
            two,
            ["2026-03-29T01:00:00Z", "2026-03-29T01:10:00Z", "2026-03-29T01:50:00Z"],
            "both of the gap are one"
        );
    }

    /// On 2026-10-25 Berlin's clocks go from 03:00 back to 02:00, which is 01:00 UTC.
    #[test]
    fn a_time_that_comes_twice_counts_the_first_time() {
        let nightly = firings("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(nightly, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn what_means_every_hour_goes_on_as_if_no_clock_were_set() {
        let half_hours = |after| firings("*/30 * * * *", "Europe/Berlin", after, 5);
        let spring = half_hours("2026-03-29T00:10:00Z");
        let expected = ["00:30", "01:00", "01:30", "02:00", "02:30"];
        assert_eq!(spring, expected.map(|time| format!("2026-03-29T{time}:00Z")));
        let autumn = half_hours("2026-10-24T23:50:00Z");
        assert_eq!(autumn[0], "2026-10-25T00:00:00Z");
        let expected = ["00:30", "01:00", "01:30", "02:00"];
        assert_eq!(autumn[1..], expected.map(|time| format!("2026-10-25T{time}:00Z")));
        // Lord Howe's clocks are set by half an hour.
        let hourly = firings("15 * * * *", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 3);
        assert_eq!(hourly, ["2026-10-03T14:45:00Z", "2026-10-03T16:15:00Z", "2026-10-03T17:15:00Z"]);
    }

    #[test]
    fn a_day_that_a_zone_left_out_has_its_firing_at_its_end() {
        // Samoa went from the 29th to the 31st of December 2011.
        let daily = firings("0 8 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
        assert_eq!(daily, ["2011-12-29T18:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T18:00:00Z"]);
    }

    #[test]
    fn what_is_no_time_is_said() {
        assert!(Cron::new("61 * * * *", "UTC").is_err());
        assert_eq!(
            Cron::new("0 4 * * *", "Mars/Olympus").expect_err("no zone").to_string(),
            "`0 4 * * *` in Mars/Olympus is no time of a schedule"
        );
    }
}
