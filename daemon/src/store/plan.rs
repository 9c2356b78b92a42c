//! The facts of the queue, and what the planner makes of them, inside the writer's transaction.

use std::collections::BTreeMap;

use forge_api::{AttemptId, TaskState, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::work::{self, NewAttempt};
use super::writer::Planner;
use super::{Assigned, StoreError, rows};
use crate::scheduler::FREE_SLOTS_COUNTED_MAX;
use crate::scheduler::assign::{Concurrency, Group, Live, Need, Waiting};
use crate::scheduler::task::Happening;

/// What waits and what runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueFacts {
    pub(crate) groups: Vec<Group>,
    pub(crate) live: Vec<Live>,
    /// Projects that the planner does not know any more, and whether all that waits of them may run on global runners.
    pub(crate) removed: BTreeMap<String, bool>,
}

/// One choice of the planner, with what makes the attempt's token.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) task: u64,
    pub(crate) runner: String,
    pub(crate) nonce: [u8; 16],
}

/// From an attempt and its nonce to the hash of its token.
pub(crate) type TokenHash = dyn Fn(AttemptId, &[u8]) -> [u8; 32];

/// What the planner decided, and how an attempt's number and nonce become the hash of its token.
pub(crate) struct Plan {
    pub(crate) choices: Vec<Choice>,
    pub(crate) token_hash: Box<TokenHash>,
}

/// Reads the facts, asks, and stores the answers.
pub(super) fn assign(connection: &Connection, planner: &dyn Planner) -> Result<Vec<Assigned>, rusqlite::Error> {
    let now = planner.now();
    let groups = groups(connection, planner.free_slots().min(FREE_SLOTS_COUNTED_MAX), now)?;
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut removed = BTreeMap::new();
    for group in groups.iter().filter(|group| !planner.declares(&group.need.project)) {
        let may = taken_globally(connection, &group.need.project)?;
        removed.insert(group.need.project.clone(), may);
    }
    let plan = planner.plan(QueueFacts { groups, live: live(connection)?, removed });
    let mut assigned = Vec::new();
    for choice in plan.choices {
        match assign_one(connection, &choice, &*plan.token_hash, now) {
            Ok(one) => assigned.extend(one),
            Err(StoreError::Sql(error)) => return Err(error),
            Err(error) => tracing::error!(task = choice.task, %error, "a task could not be assigned"),
        }
    }
    Ok(assigned)
}

fn assign_one(
    connection: &Connection,
    choice: &Choice,
    token_hash: &TokenHash,
    now: Timestamp,
) -> Result<Option<Assigned>, StoreError> {
    let Some(row) = work::load(connection, choice.task)? else {
        return Ok(None);
    };
    // The compare of the compare-and-set: only a task that still waits is given away.
    if row.standing.state != TaskState::Queued {
        return Ok(None);
    }
    let attempt = AttemptId { task: choice.task, attempt: row.standing.attempt + 1 };
    let token_sha256 = token_hash(attempt, &choice.nonce);
    let new = NewAttempt { attempt, runner: choice.runner.clone(), nonce: choice.nonce, token_sha256 };
    let grace_ms = work::assign(connection, &row, &new, now, &Happening::Assign)?;
    Ok(Some(Assigned { attempt, runner: choice.runner.clone(), grace_ms, token_sha256 }))
}

/// Whether every task that waits of a project was made when that took global runners.
fn taken_globally(connection: &Connection, project: &str) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM tasks t INDEXED BY tasks_queue JOIN specs s ON s.id = t.spec
             WHERE t.state = 'queued' AND t.project = ?1 AND json_extract(s.json, '$.global_runners') = 0)",
        )?
        .query_row([project], |row| row.get(0))
}

pub(super) const LIVE: &str =
    "SELECT runner, project, template, count(*) FROM attempts WHERE closed_at IS NULL GROUP BY 1, 2, 3";

/// What runs, by runner, project and template.
pub(super) fn live(connection: &Connection) -> Result<Vec<Live>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(LIVE)?;
    let rows = statement.query_map([], |row| {
        Ok(Live { runner: row.get(0)?, project: row.get(1)?, template: row.get(2)?, attempts: row.get(3)? })
    })?;
    rows.collect()
}

pub(super) const NEXT_GROUP: &str = "SELECT project, template, required_tag FROM tasks INDEXED BY tasks_queue
     WHERE state = 'queued' AND (project, template, required_tag) > (?1, ?2, ?3)
     ORDER BY project, template, required_tag LIMIT 1";

pub(super) const HEADS: &str = "SELECT number, priority, concurrency FROM tasks INDEXED BY tasks_queue
     WHERE state = 'queued' AND project = ?1 AND template = ?2 AND required_tag = ?3 AND ready_at <= ?4
         AND resume_attempt IS NULL
     ORDER BY priority DESC, number LIMIT ?5";

/// What waits and may go now: each group by a step along the queue's own index, never by reading all of it.
pub(super) fn groups(connection: &Connection, tasks_max: u32, now: Timestamp) -> Result<Vec<Group>, rusqlite::Error> {
    let mut next_group = connection.prepare_cached(NEXT_GROUP)?;
    let mut heads = connection.prepare_cached(HEADS)?;
    let mut groups = Vec::new();
    let mut last: (String, String, String) = Default::default();
    while let Some(key) = next_group
        .query_row(params![last.0, last.1, last.2], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?
    {
        last = key;
        let waiting = heads
            .query_map(params![last.0, last.1, last.2, now.unix_micros(), tasks_max], |row| {
                Ok(Waiting { task: row.get(0)?, priority: row.get(1)?, concurrency: rows::named(row, 2)? })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        let (approved, others) = in_turn(connection, &last, waiting, now)?;
        for (waiting, resume) in [(approved, true), (others, false)] {
            if !waiting.is_empty() {
                let required_tag = Some(last.2.clone()).filter(|tag| !tag.is_empty());
                let need = Need { project: last.0.clone(), required_tag, resume };
                groups.push(Group { need, template: last.1.clone(), waiting });
            }
        }
    }
    Ok(groups)
}

pub(super) const APPROVED: &str = "SELECT number, priority, concurrency FROM tasks INDEXED BY tasks_resume
     WHERE state = 'queued' AND resume_attempt IS NOT NULL AND project = ?1 AND template = ?2 AND required_tag = ?3
         AND ready_at <= ?4
     ORDER BY number";

pub(super) const ASKING: &str = "SELECT min(number) FROM (
         SELECT number FROM tasks INDEXED BY tasks_state_template
         WHERE state = 'awaiting_approval' AND project = ?1 AND template = ?2
         UNION ALL
         SELECT number FROM tasks INDEXED BY tasks_resume
         WHERE state = 'queued' AND resume_attempt IS NOT NULL AND project = ?1 AND template = ?2)";

/// The oldest task of a template whose plan waits for a person's word, or for the runner that is to do it.
pub(super) fn asking(connection: &Connection, project: &str, template: &str) -> Result<Option<u64>, rusqlite::Error> {
    connection.prepare_cached(ASKING)?.query_row(params![project, template], |row| row.get(0))
}

/// What of a group may go now: what was approved, and nothing else of the template meanwhile. A plan holds its template's one
/// place, so that nothing changes what it has planned for; only a template that runs in parallel has no such place. The two need
/// different runners, so they stand apart.
fn in_turn(
    connection: &Connection,
    (project, template, required_tag): &(String, String, String),
    mut others: Vec<Waiting>,
    now: Timestamp,
) -> Result<(Vec<Waiting>, Vec<Waiting>), rusqlite::Error> {
    let is_held = asking(connection, project, template)?.is_some();
    if !is_held {
        return Ok((Vec::new(), others));
    }
    others.retain(|waiting| waiting.concurrency == Concurrency::Parallel);
    let approved = connection
        .prepare_cached(APPROVED)?
        .query_map(params![project, template, required_tag, now.unix_micros()], |row| {
            Ok(Waiting { task: row.get(0)?, priority: row.get(1)?, concurrency: rows::named(row, 2)? })
        })?
        .collect::<Result<_, _>>()?;
    Ok((approved, others))
}
