//! How busy the runners were, minute by minute.

use forge_api::{LoadSample, Timestamp};
use rusqlite::{Connection, params};

use super::{Store, StoreError};

const MINUTE_MICROS: i64 = 60_000_000;

/// How long samples are kept, in minutes: 7 days.
const KEPT_MINUTES: i64 = 7 * 24 * 60;

/// The most samples of one answer: with more, several minutes become one sample of their highest numbers.
const SAMPLES_MAX: i64 = 1_440;

impl Store {
    /// Keeps a sample, and forgets the oldest. A second one of the same minute takes the place of the first.
    pub(crate) async fn record_load(&self, sample: LoadSample) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| record(connection, &sample)).await
    }

    /// The samples from `since` on, the oldest first.
    pub(crate) async fn load(&self, since: Timestamp, now: Timestamp) -> Result<Vec<LoadSample>, StoreError> {
        self.readers.read(move |connection| samples(connection, since, now)).await
    }
}

fn record(connection: &Connection, sample: &LoadSample) -> Result<(), StoreError> {
    let minute = sample.at.unix_micros().div_euclid(MINUTE_MICROS);
    connection.prepare_cached("INSERT OR REPLACE INTO load_samples VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        minute,
        sample.queued,
        sample.running,
        sample.slots,
        sample.runners_online
    ])?;
    connection.prepare_cached("DELETE FROM load_samples WHERE minute <= ?1")?.execute([minute - KEPT_MINUTES])?;
    Ok(())
}

fn samples(connection: &Connection, since: Timestamp, now: Timestamp) -> Result<Vec<LoadSample>, StoreError> {
    let minute = |moment: Timestamp| moment.unix_micros().div_euclid(MINUTE_MICROS);
    let (since, now) = (minute(since), minute(now));
    let together = now.saturating_sub(since).max(1).saturating_add(SAMPLES_MAX - 1) / SAMPLES_MAX;
    let mut statement = connection.prepare_cached(
        "SELECT min(minute), max(queued), max(running), iif(count(slots) < count(*), NULL, max(slots)), max(runners_online)
         FROM load_samples WHERE minute > ?1 GROUP BY minute / ?2 ORDER BY 1",
    )?;
    let found = statement.query_map([since, together], |row| {
        Ok(LoadSample {
            at: Timestamp::from_unix_micros(row.get::<_, i64>(0)?.saturating_mul(MINUTE_MICROS)),
            queued: row.get(1)?,
            running: row.get(2)?,
            slots: row.get(3)?,
            runners_online: row.get(4)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_unix_micros(minute * MINUTE_MICROS)
    }

    #[test]
    fn a_week_is_kept_and_long_times_come_in_fewer_samples() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let last = 30_000;
        for minute in 1..=last {
            let queued = u64::from(minute == last - 100);
            let slots = (minute != last).then_some(4);
            let sample = LoadSample { at: at(minute), queued, running: 1, slots, runners_online: 2 };
            record(&connection, &sample).expect("recorded");
        }
        let hour = samples(&connection, at(last - 60), at(last)).expect("listed");
        assert_eq!((hour.len(), hour[0].at, hour[59].slots), (60, at(last - 59), None));
        let week = samples(&connection, at(0), at(last)).expect("listed");
        assert!(week[0].at > at(last - KEPT_MINUTES - 1), "{:?}", week[0]);
        assert!(week.len() <= 1_441 && week.iter().map(|sample| sample.queued).sum::<u64>() == 1, "a peak is not lost");
    }
}
