//! The newest revisions of the configuration that were applied or refused.

use forge_api::ConfigRevision;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Store, StoreError, rows};

/// The newest revisions that are kept.
pub(crate) const REVISIONS_KEPT: u32 = 100;

impl Store {
    /// The newest revisions with their numbers, those before `before` where it is given; the newest first.
    pub(crate) async fn config_revisions(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, ConfigRevision)>, StoreError> {
        self.readers.read(move |connection| newest(connection, before, limit)).await
    }
}

/// Writes one down, and forgets the oldest beyond what is kept. The same refusal once more is no news.
pub(super) fn record(connection: &Connection, revision: &ConfigRevision) -> Result<(), StoreError> {
    let last = connection
        .prepare_cached("SELECT body FROM config_revisions ORDER BY number DESC LIMIT 1")?
        .query_row([], |row| rows::json::<ConfigRevision>(row, 0))
        .optional()?;
    if last.is_some_and(|last| ConfigRevision { at: revision.at, ..last } == *revision) {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO config_revisions (body) VALUES (?1)")?
        .execute([rows::to_json(revision)?])?;
    connection
        .prepare_cached("DELETE FROM config_revisions WHERE number <= (SELECT max(number) FROM config_revisions) - ?1")?
        .execute([REVISIONS_KEPT])?;
    Ok(())
}

fn newest(connection: &Connection, before: Option<u64>, limit: u32) -> Result<Vec<(u64, ConfigRevision)>, StoreError> {
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let mut statement = connection
        .prepare_cached("SELECT number, body FROM config_revisions WHERE number < ?1 ORDER BY number DESC LIMIT ?2")?;
    let found = statement.query_map(params![before, limit], |row| Ok((row.get(0)?, rows::json(row, 1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use forge_api::{RevisionState, Timestamp};

    use super::*;
    use crate::store::open;

    #[test]
    fn the_newest_are_kept_and_the_same_refusal_is_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let revision = |name: u32, at| ConfigRevision {
            revision: name.to_string(),
            commit: None,
            at: Timestamp::from_unix_micros(at),
            state: RevisionState::Refused,
            changes: Vec::new(),
            changes_cut: false,
            diagnostics: Vec::new(),
        };
        record(&connection, &revision(0, 1)).expect("recorded");
        record(&connection, &revision(0, 2)).expect("no news");
        assert_eq!(newest(&connection, None, 10).expect("listed"), [(1, revision(0, 1))]);
        for name in 1..=REVISIONS_KEPT + 5 {
            record(&connection, &revision(name, 3)).expect("recorded");
        }
        let all = newest(&connection, None, 1_000).expect("listed");
        assert_eq!((all.len() as u32, all[0].1.revision.as_str()), (REVISIONS_KEPT, "105"));
        let second = newest(&connection, Some(all[1].0), 1).expect("listed");
        assert_eq!(second, all[2..3]);
    }
}
