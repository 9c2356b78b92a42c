//! The audit log: who did what, when, from where, and with what result. A row is written in the transaction of what it tells of.
//!
//! The schema's triggers refuse every change of a row, and every removal of one that is younger than the retention. No row holds a secret:
//! answers, tokens and what a request's body says stay out.

use std::net::IpAddr;

use forge_api::{AuditAction, AuditActor, AuditEntry, AuditResult, Timestamp};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};
use serde_json::Value;

use super::{Store, StoreError, rows};

/// The most rows that one transaction forgets.
const FORGOTTEN_MAX: u32 = 5_000;

/// Who does something that is written down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// What kind.
    pub kind: AuditActor,
    /// The name that was proved; empty where none was.
    pub name: String,
    /// The address that the request came from.
    pub remote: Option<IpAddr>,
}

impl Actor {
    /// An actor that no request came from.
    pub fn new(kind: AuditActor, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), remote: None }
    }
}

/// The access token of this name.
impl From<&str> for Actor {
    fn from(name: &str) -> Self {
        Self::new(AuditActor::Access, name)
    }
}

/// Which project a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum About {
    /// None.
    Nothing,
    /// The one of this name.
    Project(String),
    /// The one of the task with this number.
    Task(u64),
}

/// What is written down beside when and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    pub(crate) actor: Actor,
    pub(crate) action: AuditAction,
    pub(crate) about: About,
    pub(crate) object: String,
    pub(crate) detail: Option<Value>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ended {
    /// It was done.
    Ok,
    /// It was not: the kind of the problem.
    Refused(String),
    /// The same, by the daemon's own fault.
    Failed(String),
}

/// Which rows a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditListing {
    pub(crate) project: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<AuditAction>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Only rows of these projects; `None` is every row.
    pub(crate) projects: Option<Seen>,
    /// Rows with a lower number.
    pub(crate) before: Option<u64>,
    pub(crate) limit: u32,
}

/// The rows that are not everybody's to see.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// Those of any project.
    Projects,
    /// Those of these.
    Only(Vec<String>),
}

impl Store {
    /// Writes down what no other operation does.
    pub(crate) async fn note(&self, note: Note, ended: Ended, now: Timestamp) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| record(connection, &note, &ended, now)).await
    }

    /// Rows of the audit log, newest first.
    pub(crate) async fn audit(&self, listing: AuditListing) -> Result<Vec<AuditEntry>, StoreError> {
        self.readers.read(move |connection| list(connection, &listing)).await
    }

    /// Forgets some of the rows from before `older_than`; answers whether there may be more.
    pub(crate) async fn forget_audit(&self, older_than: Timestamp) -> Result<bool, StoreError> {
        self.writer.execute(move |connection, _marks| forget(connection, older_than)).await
    }
}

/// Writes one row.
pub(super) fn record(connection: &Connection, note: &Note, ended: &Ended, now: Timestamp) -> Result<(), StoreError> {
    let Note { actor, action, about, object, detail } = note;
    let (project, task) = match about {
        About::Nothing => (None, None),
        About::Project(name) => (Some(name), None),
        About::Task(number) => (None, Some(number)),
    };
    let (result, problem) = match ended {
        Ended::Ok => (AuditResult::Ok, None),
        Ended::Refused(problem) => (AuditResult::Refused, Some(problem)),
        Ended::Failed(problem) => (AuditResult::Failed, Some(problem)),
    };
    connection
        .prepare_cached(
            "INSERT INTO audit (at, actor_kind, actor, remote, action, project, object, result, problem, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, coalesce(?6, (SELECT project FROM tasks WHERE number = ?7)), ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            now.unix_micros(),
            actor.kind.as_str(),
            actor.name,
            actor.remote.map(|remote| remote.to_string()),
            action.as_str(),
            project,
            task,
            object,
            result.as_str(),
            problem,
            detail.as_ref().map(rows::to_json).transpose()?
        ])?;
    Ok(())
}

/// Rows, newest first.
pub(super) fn list(connection: &Connection, listing: &AuditListing) -> Result<Vec<AuditEntry>, StoreError> {
    let (sql, values) = list_sql(listing)?;
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params_from_iter(values), |row| {
        Ok(AuditEntry {
            id: row.get(0)?,
            at: rows::time(row, 1)?,
            actor_kind: rows::named(row, 2)?,
            actor: row.get(3)?,
            remote: row.get(4)?,
            action: rows::named(row, 5)?,
            project: row.get(6)?,
            object: row.get(7)?,
            result: rows::named(row, 8)?,
            problem: row.get(9)?,
            detail: rows::maybe_json(row, 10)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What reads a listing, along the index that leaves the fewest rows.
fn list_sql(listing: &AuditListing) -> Result<(String, Vec<Sql>), StoreError> {
    let AuditListing { project, actor, action, since, until, projects, before, limit } = listing;
    let (mut clauses, mut values): (Vec<&str>, Vec<Sql>) = (Vec::new(), Vec::new());
    let mut keep = |clause, value: Option<Sql>| {
        if let Some(value) = value {
            clauses.push(clause);
            values.push(value);
        }
    };
    keep("project = ?", project.clone().map(Sql::from));
    keep("actor = ?", actor.clone().map(Sql::from));
    keep("action = ?", action.map(|action| Sql::from(action.as_str().to_owned())));
    keep("at >= ?", since.map(|since| Sql::from(since.unix_micros())));
    keep("at < ?", until.map(|until| Sql::from(until.unix_micros())));
    keep("id < ?", before.map(|before| Sql::from(i64::try_from(before).unwrap_or(i64::MAX))));
    match projects {
        None => {}
        Some(Seen::Projects) => keep("project IS NOT NULL AND ?", Some(Sql::from(1_i64))),
        Some(Seen::Only(names)) => {
            keep("project IN (SELECT value FROM json_each(?))", Some(Sql::from(rows::to_json(names)?)));
        }
    }
    let index = match (action, actor) {
        // By far the most rows are of this action: they are never far.
        (Some(AuditAction::TaskCreate) | None, None) => "",
        (Some(AuditAction::TaskCreate) | None, Some(_)) => "INDEXED BY audit_of_actor",
        (Some(_), _) => {
            // The index holds no others.
            clauses.push("action <> 'task.create'");
            "INDEXED BY audit_of_action"
        }
    };
    let wanted = if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    values.push(Sql::from(i64::from(*limit)));
    let sql = format!(
        "SELECT id, at, actor_kind, actor, remote, action, project, object, result, problem, detail FROM audit {index}
         {wanted} ORDER BY id DESC LIMIT ?"
    );
    Ok((sql, values))
}

fn forget(connection: &Connection, older_than: Timestamp) -> Result<bool, StoreError> {
    connection
        .prepare_cached("UPDATE audit_retention SET older_than = ?1 WHERE older_than < ?1")?
        .execute([older_than.unix_micros()])?;
    // Their numbers grow with their times: what is old stands at the beginning.
    let gone = connection
        .prepare_cached(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?2) AND at < ?1
                 AND at < (SELECT older_than FROM audit_retention)",
        )?
        .execute(params![older_than.unix_micros(), FORGOTTEN_MAX])?;
    Ok(gone > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::open;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros)
    }

    fn note(action: AuditAction, project: Option<&str>) -> Note {
        let about = project.map_or(About::Nothing, |project| About::Project(project.to_owned()));
        Note { actor: Actor::from("ann"), action, about, object: "runner ny-1".to_owned(), detail: None }
    }

    fn database() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        for (moment, action, project) in [
            (10, AuditAction::RunnerDrain, Some("shop")),
            (20, AuditAction::RunnerResume, Some("bank")),
            (30, AuditAction::TokenRevoke, None),
        ] {
            record(&connection, &note(action, project), &Ended::Ok, at(moment)).expect("recorded");
        }
        (folder, connection)
    }

    #[test]
    fn what_somebody_did_and_where_something_was_done_is_found_without_a_walk() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        let plan = |listing: &AuditListing| {
            let (sql, _) = list_sql(listing).expect("SQL");
            let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
            let steps = explained.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
            steps.expect("a plan").join("; ")
        };
        let listing = AuditListing { limit: 50, ..AuditListing::default() };
        let (eve, revokes) = (Some("eve".to_owned()), Some(AuditAction::TokenRevoke));
        let of_shop =
            |listing: AuditListing| AuditListing { project: Some("shop".to_owned()), before: Some(7), ..listing };
        for (listing, index) in [
            (AuditListing { actor: eve.clone(), ..listing.clone() }, "audit_of_actor (actor=?"),
            (AuditListing { action: revokes, ..listing.clone() }, "audit_of_action (action=?"),
            (AuditListing { actor: eve, action: revokes, ..listing.clone() }, "audit_of_action (action=?"),
            (listing.clone(), "audit_of_project (project=?"),
        ] {
            if listing.actor.is_some() || listing.action.is_some() {
                let plan = plan(&listing);
                assert!(plan.starts_with("SEARCH") && plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
            }
            let plan = plan(&of_shop(listing));
            assert!(plan.starts_with("SEARCH") && plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn no_row_is_changed_replaced_or_removed_before_its_time() {
        let (_folder, connection) = database();
        for sql in [
            "UPDATE audit SET actor = 'bob'",
            "UPDATE audit SET id = 100 WHERE id = 1",
            "DELETE FROM audit",
            "DELETE FROM audit WHERE id = 3",
            "INSERT OR REPLACE INTO audit (id, at, actor_kind, actor, action, object, result)
             VALUES (1, 1, 'access', 'bob', 'task.create', '', 'ok')",
        ] {
            let refused = connection.execute_batch(sql).expect_err(sql).to_string();
            assert!(refused.contains("append-only"), "{sql}: {refused}");
        }
        assert!(forget(&connection, at(20)).expect("forgotten"));
        assert!(!forget(&connection, at(20)).expect("nothing more"));
        let kept: Vec<_> = list(&connection, &AuditListing { limit: 9, ..AuditListing::default() }).expect("listed");
        assert_eq!(kept.iter().map(|row| row.id).collect::<Vec<_>>(), [3, 2]);
        let back = connection.execute_batch("UPDATE audit_retention SET older_than = 0").expect_err("backwards");
        assert!(back.to_string().contains("append-only"), "{back}");
        connection.execute_batch("DELETE FROM audit").expect_err("the others are too young");
    }

    #[test]
    fn a_listing_keeps_what_it_is_asked_for() {
        let (_folder, connection) = database();
        let ids = |listing: AuditListing| {
            let found = list(&connection, &AuditListing { limit: 9, ..listing }).expect("listed");
            found.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        let none = AuditListing::default;
        assert_eq!(ids(none()), [3, 2, 1]);
        assert_eq!(ids(AuditListing { project: Some("shop".to_owned()), ..none() }), [1]);
        assert!(ids(AuditListing { actor: Some("bob".to_owned()), ..none() }).is_empty());
        assert_eq!(ids(AuditListing { action: Some(AuditAction::RunnerResume), ..none() }), [2]);
        assert_eq!(ids(AuditListing { since: Some(at(20)), ..none() }), [3, 2]);
        assert_eq!(ids(AuditListing { until: Some(at(20)), ..none() }), [1]);
        assert_eq!(ids(AuditListing { before: Some(3), ..none() }), [2, 1]);
        assert_eq!(ids(AuditListing { projects: Some(Seen::Projects), ..none() }), [2, 1]);
        assert_eq!(ids(AuditListing { projects: Some(Seen::Only(vec!["shop".to_owned()])), ..none() }), [1]);
        assert!(ids(AuditListing { projects: Some(Seen::Only(Vec::new())), ..none() }).is_empty());
    }
}
