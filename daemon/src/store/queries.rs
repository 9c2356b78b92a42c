//! What readers ask: tasks, their logs' state, counts, and what a claim delivers. None of it waits for the writer.

use std::collections::{BTreeMap, BTreeSet};

use forge_api::{Attempt, AttemptId, AttemptResult, Carry, LogState, Task, TaskOutcome, TaskState, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::Value as Sql};

use super::work::{self, StillRuns, TaskRow};
use super::{StoreError, WaitingTold, news, plan, rows};
use crate::scheduler::assign::{self, Concurrency, Live, ProjectFacts};
use crate::scheduler::deadline::Open;
use crate::scheduler::spec::TaskSpec;
use crate::scheduler::task::Standing;

/// Which tasks a listing shows; the numbers below `before`, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    pub(crate) project: Option<String>,
    pub(crate) state: Option<TaskState>,
    pub(crate) template: Option<String>,
    pub(crate) visible: Option<Vec<String>>,
    pub(crate) before: Option<u64>,
    pub(crate) limit: u32,
}

/// One task.
pub(super) fn task(connection: &Connection, number: u64) -> Result<Option<Task>, StoreError> {
    let sql = format!("SELECT {} FROM tasks t WHERE t.number = ?1", rows::TASK_COLUMNS);
    Ok(connection.prepare_cached(&sql)?.query_row([number], rows::task).optional()?)
}

/// Tasks, newest first.
pub(super) fn tasks(connection: &Connection, listing: &Listing) -> Result<Vec<Task>, StoreError> {
    let asked = |name: &String| listing.project.as_ref().is_none_or(|project| project == name);
    let visible = listing.visible.as_ref();
    let projects: Option<BTreeSet<String>> =
        visible.map(|visible| visible.iter().filter(|name| asked(name)).cloned().collect());
    if let Some(state) = listing.state {
        return in_state(connection, listing, state, projects);
    }
    let Some(projects) = projects else { return page(connection, listing) };
    // Each project's newest stand in an index; the newest of those are the newest of all.
    let mut found = Vec::new();
    for project in projects {
        let of_project = Listing { project: Some(project), visible: None, ..listing.clone() };
        found.extend(page(connection, &of_project)?);
    }
    found.sort_by_key(|task| std::cmp::Reverse(task.number));
    found.truncate(usize::try_from(listing.limit).unwrap_or(usize::MAX));
    Ok(found)
}

const NEXT_PROJECT_IN_STATE: &str = "SELECT project FROM tasks INDEXED BY tasks_state_template
     WHERE state = ?1 AND project > ?2 ORDER BY project LIMIT 1";

const NEXT_TEMPLATE_IN_STATE: &str = "SELECT template FROM tasks INDEXED BY tasks_state_template
     WHERE state = ?1 AND project = ?2 AND template > ?3 ORDER BY template LIMIT 1";

const NUMBERS_IN_STATE: &str = "SELECT number FROM tasks INDEXED BY tasks_state_template
     WHERE state = ?1 AND project = ?2 AND template = ?3 AND number > ?4 AND number < ?5 ORDER BY number DESC LIMIT ?6";

/// The newest tasks in a state, of these projects or of all. Each template's stand in an index, newest first; the newest of those are
/// the newest of all, and only they are read.
fn in_state(
    connection: &Connection,
    listing: &Listing,
    state: TaskState,
    projects: Option<BTreeSet<String>>,
) -> Result<Vec<Task>, StoreError> {
    let projects = match (projects, &listing.project) {
        (Some(projects), _) => projects,
        (None, Some(project)) => BTreeSet::from([project.clone()]),
        (None, None) => following(connection, NEXT_PROJECT_IN_STATE, &[state.as_str()])?,
    };
    let before = listing.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
    let wanted = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    let mut find = connection.prepare_cached(NUMBERS_IN_STATE)?;
    let mut newest: Vec<i64> = Vec::new();
    for project in projects {
        let templates = match &listing.template {
            Some(template) => BTreeSet::from([template.clone()]),
            None => following(connection, NEXT_TEMPLATE_IN_STATE, &[state.as_str(), &project])?,
        };
        for template in templates {
            // What is older than a full page of others is on no page with them.
            let after = newest.get(wanted.saturating_sub(1)).copied().unwrap_or_default();
            let found = find
                .query_map(params![state.as_str(), project, template, after, before, listing.limit], |row| {
                    row.get(0)
                })?;
            newest.extend(found.collect::<Result<Vec<i64>, _>>()?);
            newest.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
            newest.truncate(wanted);
        }
    }
    let numbers = newest.into_iter().filter_map(|number| u64::try_from(number).ok());
    Ok(numbers.map(|number| task(connection, number)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The names that follow each other in an index below these values: a step along it each.
fn following(connection: &Connection, next: &str, below: &[&str]) -> Result<BTreeSet<String>, StoreError> {
    let mut next = connection.prepare_cached(next)?;
    let mut found = BTreeSet::new();
    let mut last = String::new();
    while let Some(name) = {
        let values = below.iter().copied().chain([last.as_str()]);
        next.query_row(rusqlite::params_from_iter(values), |row| row.get::<_, String>(0)).optional()?
    } {
        last.clone_from(&name);
        found.insert(name);
    }
    Ok(found)
}

/// A page of every project's tasks or of one's, whatever their states.
fn page(connection: &Connection, listing: &Listing) -> Result<Vec<Task>, StoreError> {
    let (sql, values) = page_sql(listing);
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(rusqlite::params_from_iter(values), rows::task)?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn page_sql(listing: &Listing) -> (String, Vec<Sql>) {
    let mut sql = format!("SELECT {} FROM tasks t WHERE true", rows::TASK_COLUMNS);
    let mut values: Vec<Sql> = Vec::new();
    let mut and = |condition: &str, value: Sql| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(project) = &listing.project {
        and("t.project = ?", Sql::Text(project.clone()));
    }
    if let Some(template) = &listing.template {
        and("t.template = ?", Sql::Text(template.clone()));
    }
    if let Some(before) = listing.before {
        and("t.number < ?", Sql::Integer(i64::try_from(before).unwrap_or(i64::MAX)));
    }
    sql.push_str(" ORDER BY t.number DESC LIMIT ?");
    values.push(Sql::Integer(i64::from(listing.limit)));
    (sql, values)
}

const COUNTS: &str = "SELECT state, tasks FROM task_counts";

/// How many tasks stand in each state.
pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<TaskState, u64>, StoreError> {
    let mut counts: BTreeMap<TaskState, u64> = TaskState::ALL.into_iter().map(|state| (state, 0)).collect();
    let mut statement = connection.prepare_cached(COUNTS)?;
    for row in statement.query_map([], |row| Ok((rows::named(row, 0)?, row.get(1)?)))? {
        let (state, count) = row?;
        counts.insert(state, count);
    }
    Ok(counts)
}

const READY: &str =
    "SELECT project, template, concurrency, resume_attempt IS NOT NULL, ready_at FROM tasks INDEXED BY tasks_ready
     WHERE state = 'queued' AND ready_at <= ?1 ORDER BY ready_at";

/// Since when the oldest task waits that only lacks a runner: neither the delay of a retry holds it, nor its project's limit, nor another task
/// or a plan of its template.
pub(super) fn oldest_ready(
    connection: &Connection,
    projects: &BTreeMap<String, ProjectFacts>,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let live = plan::live(connection)?;
    let mut planned: BTreeMap<(String, String), bool> = BTreeMap::new();
    let mut statement = connection.prepare_cached(READY)?;
    let mut rows = statement.query([now.unix_micros()])?;
    while let Some(row) = rows.next()? {
        let (project, template): (String, String) = (row.get(0)?, row.get(1)?);
        let (concurrency, resumes) = (rows::named(row, 2)?, row.get(3)?);
        if !assign::has_room(concurrency, (&project, &template), projects, &live) {
            continue;
        }
        let is_planned = match planned.get(&(project.clone(), template.clone())) {
            Some(known) => *known,
            None => {
                let is_planned = plan::asking(connection, &project, &template)?.is_some();
                planned.insert((project, template), is_planned);
                is_planned
            }
        };
        if !(is_planned && assign::plan_holds(concurrency, resumes)) {
            return Ok(Some(rows::time(row, 4)?));
        }
    }
    Ok(None)
}

/// Tasks of one need that are served before a task of their template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) required_tag: Option<String>,
    pub(crate) tasks: u64,
}

/// What `why` reads of a task.
#[derive(Clone, Debug)]
pub(crate) struct Circumstances {
    pub(crate) task: Task,
    pub(crate) standing: Standing,
    pub(crate) open: Open,
    pub(crate) grace_ms: u64,
    pub(crate) concurrency: Concurrency,
    pub(crate) ready_at: Timestamp,
    /// What its last attempt may still run.
    pub(crate) still_runs: Option<StillRuns>,
    /// Whether its project took global runners when it was made.
    pub(crate) global_runners: bool,
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) live: Vec<Live>,
    /// Tasks of the same template that take turns with it, or run beside it as it does, and could go now but for a runner: those that are
    /// served before it, [`AHEAD_COUNTED_MAX`] at most.
    pub(crate) ahead: Vec<Ahead>,
    /// A live task of the same template.
    pub(crate) running_sibling: Option<u64>,
    /// A task of the same template that has planned and is not done, and keeps this one waiting.
    pub(crate) asking_sibling: Option<u64>,
    /// Which webhook targets have heard that it waits.
    pub(crate) told: Vec<WaitingTold>,
}

// Without the index's name SQLite walks the whole history of attempts for the smallest number.
const RUNNING_SIBLING: &str = "SELECT min(task) FROM attempts INDEXED BY attempts_live
     WHERE closed_at IS NULL AND project = ?1 AND template = ?2 AND task <> ?3";

/// How many of the tasks that are served before one are counted: nobody waits otherwise for more.
pub(crate) const AHEAD_COUNTED_MAX: u64 = 1_000;

/// Everything that `why` reads of those of these tasks that exist, in their order.
pub(super) fn circumstances(
    connection: &Connection,
    numbers: &[u64],
    now: Timestamp,
) -> Result<Vec<Circumstances>, StoreError> {
    let live = plan::live(connection)?;
    let found = numbers.iter().filter_map(|number| circumstances_of(connection, *number, &live, now).transpose());
    found.collect()
}

fn circumstances_of(
    connection: &Connection,
    number: u64,
    live: &[Live],
    now: Timestamp,
) -> Result<Option<Circumstances>, StoreError> {
    let Some(task) = task(connection, number)? else {
        return Ok(None);
    };
    let sql = format!(
        "SELECT {}, t.concurrency, t.ready_at, t.deadline_at, t.priority,
             coalesce(json_extract(s.json, '$.global_runners'), 1)
         FROM tasks t JOIN specs s ON s.id = t.spec WHERE t.number = ?1",
        rows::STANDING_COLUMNS
    );
    let read = |row: &Row<'_>| {
        let more = (rows::named(row, 15)?, rows::time(row, 16)?, rows::maybe_time(row, 17)?, row.get::<_, i32>(18)?);
        Ok((rows::standing(row)?, more, row.get::<_, bool>(19)?))
    };
    let ((standing, open, grace_ms), (concurrency, ready_at, deadline_at, priority), global_runners) =
        connection.prepare_cached(&sql)?.query_row([number], read)?;
    let ahead = ahead(connection, &task, priority, (concurrency, standing.resumes), now)?;
    let running_sibling = connection
        .prepare_cached(RUNNING_SIBLING)?
        .query_row(params![task.project, task.template, number], |row| row.get(0))?;
    let asking_sibling = if assign::plan_holds(concurrency, standing.resumes) {
        plan::asking(connection, &task.project, &task.template)?.filter(|other| *other != number)
    } else {
        None
    };
    let row = TaskRow { number, standing, open, grace_ms, ready_at };
    let still_runs = work::still_runs(connection, &row, now)?;
    let TaskRow { standing, open, .. } = row;
    let told = news::waiting_told(connection, number)?;
    Ok(Some(Circumstances {
        task,
        standing,
        open,
        grace_ms,
        concurrency,
        ready_at,
        still_runs,
        global_runners,
        deadline_at,
        live: live.to_vec(),
        ahead,
        running_sibling,
        asking_sibling,
        told,
    }))
}

fn ahead(
    connection: &Connection,
    task: &Task,
    priority: i32,
    (concurrency, resumes): (Concurrency, bool),
    now: Timestamp,
) -> Result<Vec<Ahead>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT required_tag, count(*) FROM (SELECT required_tag FROM tasks WHERE state = 'queued' AND project = ?1 AND template = ?2
             AND (priority > ?3 OR priority = ?3 AND number < ?4) AND ready_at <= ?5
             AND (concurrency = 'parallel') = ?6 AND (resume_attempt IS NOT NULL) = ?7 LIMIT ?8) GROUP BY required_tag",
    )?;
    let is_parallel = concurrency == Concurrency::Parallel;
    let found = statement.query_map(
        params![
            task.project,
            task.template,
            priority,
            task.number,
            now.unix_micros(),
            is_parallel,
            resumes,
            AHEAD_COUNTED_MAX
        ],
        |row| {
            let required_tag = Some(row.get(0)?).filter(|tag: &String| !tag.is_empty());
            Ok(Ahead { required_tag, tasks: row.get(1)? })
        },
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What a claim delivers, before secrets are resolved.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) spec: TaskSpec,
    pub(crate) revision: String,
    pub(crate) commit: Option<String>,
    pub(crate) variables: serde_json::Map<String, serde_json::Value>,
    pub(crate) arguments: Vec<String>,
    pub(crate) secret_answers: Option<Vec<u8>>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) runner: String,
    /// What an earlier attempt left for this one, approved.
    pub(crate) resume: Option<Carry>,
}

/// What a live attempt needs; `None` once it is closed.
pub(super) fn delivery(connection: &Connection, id: AttemptId) -> Result<Option<Delivery>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.json, t.revision, t.commit_id, t.variables, t.arguments, t.secret_answers, a.nonce, a.runner,
             (SELECT p.result FROM attempts p WHERE p.task = t.number AND p.attempt = t.resume_attempt)
         FROM attempts a JOIN tasks t ON t.number = a.task JOIN specs s ON s.id = t.spec
         WHERE a.task = ?1 AND a.attempt = ?2 AND a.closed_at IS NULL",
    )?;
    let found = statement.query_row(params![id.task, id.attempt], |row| {
        Ok(Delivery {
            spec: rows::json(row, 0)?,
            revision: row.get(1)?,
            commit: row.get(2)?,
            variables: rows::json(row, 3)?,
            arguments: rows::json(row, 4)?,
            secret_answers: row.get(5)?,
            nonce: row.get(6)?,
            runner: row.get(7)?,
            resume: rows::maybe_json::<AttemptResult>(row, 8)?.and_then(|planned| planned.carry),
        })
    });
    Ok(found.optional()?)
}

/// An attempt as its own requests and its log's readers see it.
#[derive(Clone, Debug)]
pub(crate) struct AttemptView {
    pub(crate) token_sha256: Vec<u8>,
    pub(crate) runner: String,
    pub(crate) started: bool,
    pub(crate) closed: bool,
    pub(crate) result: Option<AttemptResult>,
    pub(crate) log_state: LogState,
    pub(crate) resends: u32,
}

/// One attempt.
pub(super) fn attempt(connection: &Connection, id: AttemptId) -> Result<Option<AttemptView>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT token_sha256, runner, closed_at IS NOT NULL, result, log_state, resends, started_at IS NOT NULL
         FROM attempts WHERE task = ?1 AND attempt = ?2",
    )?;
    let found = statement.query_row(params![id.task, id.attempt], |row| {
        Ok(AttemptView {
            token_sha256: row.get(0)?,
            runner: row.get(1)?,
            closed: row.get(2)?,
            result: rows::maybe_json(row, 3)?,
            log_state: rows::named(row, 4)?,
            resends: row.get(5)?,
            started: row.get(6)?,
        })
    });
    Ok(found.optional()?)
}

/// Every attempt of a task, the oldest first; the lengths of their logs are known elsewhere.
pub(super) fn attempts(connection: &Connection, task: u64) -> Result<Vec<Attempt>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT attempt, runner, assigned_at, started_at, closed_at, closed_why, result, result_at, counted, log_state
         FROM attempts WHERE task = ?1 ORDER BY attempt",
    )?;
    let found = statement.query_map([task], |row| {
        let report: Option<AttemptResult> = rows::maybe_json(row, 6)?;
        Ok(Attempt {
            number: row.get(0)?,
            runner: row.get(1)?,
            assigned_at: rows::time(row, 2)?,
            started_at: rows::maybe_time(row, 3)?,
            closed_at: rows::maybe_time(row, 4)?,
            closed_why: row.get(5)?,
            reported_at: rows::maybe_time(row, 7)?,
            outcome: report.as_ref().map(|report| report.outcome),
            exit_code: report.as_ref().and_then(|report| report.exit_code),
            reason: report.and_then(|report| report.reason),
            counted: row.get(8)?,
            log_state: rows::named(row, 9)?,
            log_bytes: 0,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// How a template's newest finished tasks went, the newest first.
pub(super) fn outcomes(
    connection: &Connection,
    project: &str,
    template: &str,
    limit: u32,
) -> Result<Vec<TaskOutcome>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT number, state, started_at, finished_at FROM tasks INDEXED BY tasks_template
         WHERE project = ?1 AND template = ?2 AND deadline_at IS NULL AND finished_at IS NOT NULL
         ORDER BY number DESC LIMIT ?3",
    )?;
    let found = statement.query_map(params![project, template, limit], |row| {
        let (started_at, finished_at) = (rows::maybe_time(row, 2)?, rows::time(row, 3)?);
        Ok(TaskOutcome {
            number: row.get(0)?,
            state: rows::named(row, 1)?,
            duration_ms: started_at.map(|started_at| finished_at.millis_since(started_at)),
            finished_at,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// How long an attempt's log is by its own report; 0 before it.
pub(super) fn reported_log_bytes(connection: &Connection, id: AttemptId) -> Result<u64, rusqlite::Error> {
    let found: Option<Option<u64>> = connection
        .prepare_cached("SELECT result ->> '$.log_length' FROM attempts WHERE task = ?1 AND attempt = ?2")?
        .query_row(params![id.task, id.attempt], |row| row.get(0))
        .optional()?;
    Ok(found.flatten().unwrap_or_default())
}

/// Whether an open task names the component.
pub(super) fn open_task_uses_plugin(connection: &Connection, sha256: &str) -> Result<bool, StoreError> {
    // Many tasks share a spec: its JSON is read once.
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM specs s WHERE s.id IN (SELECT t.spec FROM tasks t WHERE t.deadline_at IS NOT NULL)
         AND s.json ->> '$.plugin.sha256' = ?1)",
    )?;
    Ok(statement.query_row([sha256], |row| row.get(0))?)
}

/// The name and the digest of the plugin that a task runs.
pub(super) fn plugin_of_task(connection: &Connection, number: u64) -> Result<Option<(String, String)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.json ->> '$.plugin.name', s.json ->> '$.plugin.sha256' FROM specs s
         WHERE s.id = (SELECT t.spec FROM tasks t WHERE t.number = ?1)",
    )?;
    Ok(statement.query_row([number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// Whether a task was made with secret answers that are gone now.
pub(super) fn secret_answers_gone(connection: &Connection, number: u64) -> Result<bool, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT had_secret_answers AND secret_answers IS NULL FROM tasks WHERE number = ?1")?;
    Ok(statement.query_row([number], |row| row.get(0)).optional()?.unwrap_or_default())
}

/// Which templates have history.
pub(super) fn templates_with_history(connection: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut next = connection.prepare_cached(
        "SELECT project, template FROM tasks INDEXED BY tasks_template WHERE (project, template) > (?1, ?2)
         ORDER BY project, template LIMIT 1",
    )?;
    let mut found: Vec<(String, String)> = Vec::new();
    let mut last: (String, String) = Default::default();
    while let Some(key) = next.query_row(params![last.0, last.1], |row| Ok((row.get(0)?, row.get(1)?))).optional()? {
        last = key;
        found.push(last.clone());
    }
    Ok(found)
}

#[cfg(test)]
#[path = "plans_tests.rs"]
mod plans_tests;
