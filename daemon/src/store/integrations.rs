//! What came to integrations: the newest requests of each, and what became of them.

use forge_api::{IntegrationRequest, Timestamp};
use rusqlite::{Connection, params};

use super::{StoreError, rows};

/// The newest requests of each integration that are kept.
pub(crate) const REQUESTS_KEPT: u32 = 100;

/// Writes a request down, and forgets the oldest beyond what is kept.
pub(super) fn record(
    connection: &Connection,
    project: &str,
    integration: &str,
    request: &IntegrationRequest,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO integration_requests (project, integration, at, delivery, outcome, message, task)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            project,
            integration,
            request.at.unix_micros(),
            request.delivery,
            rows::to_name(&request.outcome)?,
            request.message,
            request.task
        ])?;
    connection
        .prepare_cached(
            "DELETE FROM integration_requests WHERE project = ?1 AND integration = ?2 AND number <=
                 (SELECT number FROM integration_requests WHERE project = ?1 AND integration = ?2
                  ORDER BY number DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![project, integration, REQUESTS_KEPT])?;
    Ok(())
}

/// The newest requests first.
pub(super) fn newest(
    connection: &Connection,
    project: &str,
    integration: &str,
) -> Result<Vec<IntegrationRequest>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT at, delivery, outcome, message, task FROM integration_requests
         WHERE project = ?1 AND integration = ?2 ORDER BY number DESC",
    )?;
    let found = statement.query_map(params![project, integration], |row| {
        Ok(IntegrationRequest {
            at: Timestamp::from_unix_micros(row.get(0)?),
            delivery: row.get(1)?,
            outcome: rows::named(row, 2)?,
            message: row.get(3)?,
            task: row.get(4)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use forge_api::IntegrationOutcome;

    use super::*;
    use crate::store::open;

    #[test]
    fn the_newest_of_each_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let request = |number: u32| IntegrationRequest {
            at: Timestamp::from_unix_micros(i64::from(number)),
            delivery: Some(format!("d{number}")),
            outcome: IntegrationOutcome::NotMatched,
            message: "no".to_owned(),
            task: None,
        };
        record(&connection, "shop", "other", &request(0)).expect("recorded");
        for number in 0..REQUESTS_KEPT + 5 {
            record(&connection, "shop", "push", &request(number)).expect("recorded");
        }
        let kept = newest(&connection, "shop", "push").expect("read");
        assert_eq!(kept.len(), REQUESTS_KEPT as usize);
        assert_eq!(kept.first().and_then(|request| request.delivery.clone()), Some("d104".to_owned()));
        assert_eq!(newest(&connection, "shop", "other").expect("read").len(), 1);
    }
}
