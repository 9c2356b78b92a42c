//! The facts of the queue, and what the planner makes of them, inside the writer's transaction.

use std::collections::{BTreeMap, BTreeSet};

use forge_api::{AttemptId, TaskState, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::transaction::Planner;
use super::work::{self, NewAttempt};
use super::{Assigned, StoreError, rows};
use crate::scheduler::FREE_SLOTS_COUNTED_MAX;
use crate::scheduler::assign::{self, Group, Live, Need, Waiting};
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
    /// Of the registration that asked: another one of the same name did not.
    pub(crate) key: i64,
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
    let plan = loop {
        let Some(plan) = ask(connection, planner, now)? else { return Ok(Vec::new()) };
        let outdated = outdated(connection, &plan.choices)?;
        if outdated.is_empty() {
            break plan;
        }
        // Nothing of it is stored: what was meant for them is another's.
        for runner in outdated {
            planner.outdated(&runner);
        }
    };
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

/// What the planner makes of the queue as it is; `None` when nothing waits.
fn ask(connection: &Connection, planner: &dyn Planner, now: Timestamp) -> Result<Option<Plan>, rusqlite::Error> {
    let groups = groups(connection, planner.free_slots().min(FREE_SLOTS_COUNTED_MAX), now)?;
    if groups.is_empty() {
        return Ok(None);
    }
    let mut removed = BTreeMap::new();
    for group in groups.iter().filter(|group| !planner.declares(&group.need.project)) {
        let may = taken_globally(connection, &group.need.project)?;
        removed.insert(group.need.project.clone(), may);
    }
    Ok(Some(planner.plan(QueueFacts { groups, live: live(connection)?, removed })))
}

/// Chosen runners that are not what they were when they asked: the claims are known beside the store, and an operation of this very
/// transaction may have removed or drained one.
fn outdated(connection: &Connection, choices: &[Choice]) -> Result<BTreeSet<String>, rusqlite::Error> {
    let mut takes = connection.prepare_cached("SELECT 1 FROM runners WHERE key = ?1 AND NOT draining")?;
    let asked: BTreeMap<i64, &str> = choices.iter().map(|choice| (choice.key, choice.runner.as_str())).collect();
    let mut outdated = BTreeSet::new();
    for (key, runner) in asked {
        if !takes.exists([key])? {
            outdated.insert(runner.to_owned());
        }
    }
    Ok(outdated)
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
    let new = NewAttempt { attempt, runner: choice.runner.clone(), key: choice.key, nonce: choice.nonce, token_sha256 };
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
     ORDER BY priority DESC, number";

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

/// What of a group may go now: what was approved, and what that does not hold. The two need different runners, so they stand apart.
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
    others.retain(|waiting| !assign::plan_holds(waiting.concurrency, false));
    let approved = connection
        .prepare_cached(APPROVED)?
        .query_map(params![project, template, required_tag, now.unix_micros()], |row| {
            Ok(Waiting { task: row.get(0)?, priority: row.get(1)?, concurrency: rows::named(row, 2)? })
        })?
        .collect::<Result<_, _>>()?;
    Ok((approved, others))
}

#[cfg(test)]
#[path = "why_and_assign_tests.rs"]
mod why_and_assign_tests;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::transaction::ToldWhenCommitted;
    use super::super::{Teller, open};
    use super::*;

    /// Gives every task to the first of those whose claims wait: each a name and the registration that asked.
    struct First(Mutex<Vec<(&'static str, i64)>>);

    impl Teller for First {}

    impl Planner for First {
        fn free_slots(&self) -> u32 {
            1
        }
        fn declares(&self, _project: &str) -> bool {
            true
        }
        fn plan(&self, facts: QueueFacts) -> Plan {
            let parked = self.0.lock().expect("whole");
            let waiting = facts.groups.iter().flat_map(|group| &group.waiting);
            let choices = parked.first().map(|(name, key)| {
                let choose = |waiting: &Waiting| Choice {
                    task: waiting.task,
                    runner: (*name).to_owned(),
                    key: *key,
                    nonce: [0; 16],
                };
                waiting.map(choose).collect()
            });
            Plan { choices: choices.unwrap_or_default(), token_hash: Box::new(|_id, _nonce| [0; 32]) }
        }
        fn outdated(&self, runner: &str) {
            self.0.lock().expect("whole").retain(|(name, _)| *name != runner);
        }
        fn committed(&self, _assigned: Vec<Assigned>, _foretold: ToldWhenCommitted) {}
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_micros(5)
        }
    }

    #[test]
    fn what_is_drained_removed_or_registered_anew_is_passed_over_whatever_its_claim_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = open::open_writer(&open::database_path(folder.path())).expect("a database");
        connection
            .execute_batch(
                "INSERT INTO specs VALUES (1, x'00', '{}', 1000, 1000, 1000, 'fail', 0, 0, 1000, '[]');
                 INSERT INTO tasks (project, template, state, required_tag, priority, concurrency, revision, trigger_kind,
                     trigger_by, variables, arguments, had_secret_answers, spec, retries_left, created_at, queued_at, ready_at,
                     deadline_at)
                 VALUES ('shop', 'many', 'queued', '', 0, 'parallel', 'r', 'user', 'ann', '{}', '[]', 0, 1, 0, 1, 1, 1, 9);
                 INSERT INTO runners (key, name, token_sha256, public_key, registered_at, tags, token_max, own_max, one_off,
                     draining, version)
                 VALUES (1, 'drained', x'01', '', 1, '[]', 0, 0, 0, 1, ''), (3, 'anew', x'03', '', 1, '[]', 0, 0, 0, 0, ''),
                     (4, 'stays', x'04', '', 1, '[]', 0, 0, 0, 0, '');",
            )
            .expect("a task that waits, and runners");
        let gone = vec![("drained", 1), ("removed", 2), ("anew", 2)];
        let planner = First(Mutex::new(gone.clone()));
        assert_eq!(assign(&connection, &planner).expect("planned"), []);
        let planner = First(Mutex::new([gone, vec![("stays", 4)]].concat()));
        let assigned = assign(&connection, &planner).expect("planned");
        assert_eq!(assigned.iter().map(|one| one.runner.as_str()).collect::<Vec<_>>(), ["stays"]);
    }
}
