//! What happens to tasks and attempts: each operation loads where a task stands, asks the pure step, and writes down what follows.

use forge_api::{AttemptId, AttemptResult, LogState, OnRunnerLost, StartRequest, TaskState, Timestamp, TriggerKind};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Fate, Refused, StoreError, calendar, rows};
use crate::scheduler::deadline::{self, Open, Unreported};
use crate::scheduler::task::{self, Happening, Next, QueueClock, Refusal, Report, Retry, Standing};

/// The most tasks that one reconciling transaction acts on.
const RECONCILED_TASKS_MAX: u32 = 512;

/// The longest delay of another attempt, in milliseconds: a hundred years.
const DELAY_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;

/// When a deadline that could not be acted on is tried again, in milliseconds.
const DEADLINE_AGAIN_MS: i64 = 60_000;

/// A task's row, as far as its next step depends on it.
#[derive(Clone, Debug)]
pub(super) struct TaskRow {
    pub(super) number: u64,
    pub(super) standing: Standing,
    pub(super) open: Open,
    pub(super) grace_ms: u64,
    /// Not assigned before.
    pub(super) ready_at: Timestamp,
}

/// An attempt about to be made.
#[derive(Clone, Debug)]
pub(super) struct NewAttempt {
    pub(super) attempt: AttemptId,
    pub(super) runner: String,
    /// Of the runner's registration.
    pub(super) key: i64,
    pub(super) nonce: [u8; 16],
    pub(super) token_sha256: [u8; 32],
}

/// How an attempt's row stands.
#[derive(Clone, Debug)]
pub(super) struct AttemptRow {
    pub(super) closed: Option<String>,
    pub(super) newest: u32,
    pub(super) had_result: bool,
    pub(super) counted: bool,
}

/// Reads where a task stands.
pub(super) fn load(connection: &Connection, number: u64) -> Result<Option<TaskRow>, StoreError> {
    let sql = format!(
        "SELECT {}, t.ready_at FROM tasks t JOIN specs s ON s.id = t.spec WHERE t.number = ?1",
        rows::STANDING_COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let (standing, open, grace_ms) = rows::standing(row)?;
        Ok(TaskRow { number, standing, open, grace_ms, ready_at: rows::time(row, 15)? })
    };
    Ok(statement.query_row([number], read).optional()?)
}

fn existing(connection: &Connection, number: u64) -> Result<TaskRow, StoreError> {
    load(connection, number)?.ok_or(StoreError::Refused(Refused::NoTask))
}

/// Reads how an attempt stands.
pub(super) fn load_attempt(connection: &Connection, id: AttemptId) -> Result<AttemptRow, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT a.closed_at IS NOT NULL, coalesce(a.closed_why, ''), t.attempt, a.result IS NOT NULL, coalesce(a.counted, 0)
         FROM attempts a JOIN tasks t ON t.number = a.task WHERE a.task = ?1 AND a.attempt = ?2",
    )?;
    let found = statement.query_row(params![id.task, id.attempt], |row| {
        let closed: bool = row.get(0)?;
        let why: String = row.get(1)?;
        let (newest, had_result, counted) = (row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(AttemptRow { closed: closed.then_some(why), newest, had_result, counted })
    });
    found.optional()?.ok_or(StoreError::Refused(Refused::NoAttempt))
}

/// Refuses what a closed attempt may not do any more.
pub(super) fn live_attempt(connection: &Connection, id: AttemptId) -> Result<(), StoreError> {
    let AttemptRow { closed, newest, had_result: _, counted: _ } = load_attempt(connection, id)?;
    match closed {
        None => Ok(()),
        Some(_) if newest > id.attempt => Err(StoreError::Refused(Refused::Older { newest })),
        Some(reason) => Err(StoreError::Refused(Refused::Gone { reason })),
    }
}

/// Gives a task to a runner; answers with its `runner_grace`.
pub(super) fn assign(
    connection: &Connection,
    row: &TaskRow,
    new: &NewAttempt,
    now: Timestamp,
    happening: &Happening,
) -> Result<u64, StoreError> {
    step(row, happening)?;
    let open = Open { state: TaskState::Assigned, assigned_at: Some(now), started_at: None, ..row.open.clone() };
    let micros = now.unix_micros();
    connection
        .prepare_cached(
            "UPDATE tasks SET state = 'assigned', attempt = ?2, assigned_at = ?3, started_at = NULL, deadline_at = ?4
             WHERE number = ?1 AND state = 'queued'",
        )?
        .execute(params![row.number, new.attempt.attempt, micros, deadline_micros(&open)])?;
    connection
        .prepare_cached(
            "INSERT INTO attempts (task, attempt, runner, project, template, nonce, token_sha256, grace_ms, assigned_at, runner_key)
             SELECT number, ?2, ?3, project, template, ?4, ?5, ?6, ?7, ?8 FROM tasks WHERE number = ?1",
        )?
        .execute(params![
            row.number,
            new.attempt.attempt,
            new.runner,
            new.nonce.as_slice(),
            new.token_sha256.as_slice(),
            row.grace_ms,
            micros,
            new.key
        ])?;
    Ok(row.grace_ms)
}

fn step(row: &TaskRow, happening: &Happening) -> Result<Next, StoreError> {
    task::step(&row.standing, happening).map_err(|refusal| {
        StoreError::Refused(match refusal {
            Refusal::Ended => Refused::Ended { state: row.standing.state },
            Refusal::StillOpen | Refusal::NotNow => Refused::Open { state: row.standing.state },
        })
    })
}

fn deadline_micros(open: &Open) -> Option<i64> {
    deadline::deadline(open).map(Timestamp::unix_micros)
}

/// Has something happen to a task and writes down what follows.
pub(super) fn happen(
    connection: &Connection,
    number: u64,
    happening: &Happening,
    now: Timestamp,
) -> Result<Fate, StoreError> {
    let row = existing(connection, number)?;
    let next = step(&row, happening)?;
    let live = AttemptId { task: number, attempt: row.standing.attempt };
    let runner = connection
        .prepare_cached("SELECT runner FROM attempts WHERE task = ?1 AND attempt = ?2 AND closed_at IS NULL")?
        .query_row(params![live.task, live.attempt], |row| row.get::<_, String>(0))
        .optional()?;
    let mut fate = Fate { task: number, state: row.standing.state, attempt: live, runner, closed: false };
    match next {
        Next::Stay => {}
        Next::Intent { by } => {
            let open = Open { cancel_at: Some(now), ..row.open };
            connection
                .prepare_cached("UPDATE tasks SET cancel_by = ?2, cancel_at = ?3, deadline_at = ?4 WHERE number = ?1")?
                .execute(params![number, by, now.unix_micros(), deadline_micros(&open)])?;
        }
        Next::Advance(state) => {
            advance(connection, &row, state, now)?;
            fate.state = state;
        }
        Next::End { state, reason } => {
            close_attempt(connection, live, reason.as_deref().unwrap_or("its task succeeded"), now)?;
            connection
                .prepare_cached(
                    "UPDATE tasks SET state = ?2, reason = ?3, finished_at = ?4, deadline_at = NULL, secret_answers = NULL
                     WHERE number = ?1",
                )?
                .execute(params![number, state.as_str(), reason, now.unix_micros()])?;
            fate.state = state;
            fate.closed = true;
        }
        Next::Ask => {
            close_attempt(connection, live, "it has planned, and its task waits for approval", now)?;
            let open = Open { state: TaskState::AwaitingApproval, queued_at: now, ..row.open };
            connection
                .prepare_cached(
                    "UPDATE tasks SET state = 'awaiting_approval', queued_at = ?2, deadline_at = ?3, resume_attempt = NULL,
                         approved_by = NULL, approved_at = NULL WHERE number = ?1",
                )?
                .execute(params![number, now.unix_micros(), deadline_micros(&open)])?;
            fate.state = TaskState::AwaitingApproval;
            fate.closed = true;
        }
        Next::Resume { by } => {
            let open = Open { state: TaskState::Queued, queued_at: now, ..row.open };
            connection
                .prepare_cached(
                    "UPDATE tasks SET state = 'queued', queued_at = ?2, ready_at = ?2, delay_ms = 0, deadline_at = ?3, assigned_at = NULL,
                         started_at = NULL, summary = NULL, resume_attempt = attempt, approved_by = ?4, approved_at = ?2 WHERE number = ?1",
                )?
                .execute(params![number, now.unix_micros(), deadline_micros(&open), by])?;
            fate.state = TaskState::Queued;
            fate.closed = true;
        }
        Next::Requeue { delay_ms, queue, retry } => {
            close_attempt(connection, live, "its task went back to the queue", now)?;
            requeue(connection, &row, delay_ms, queue, retry, now)?;
            if let Happening::Retry { by, .. } | Happening::RunNow { by } = happening {
                connection
                    .prepare_cached("UPDATE tasks SET trigger_kind = ?2, trigger_by = ?3 WHERE number = ?1")?
                    .execute(params![number, rows::to_name(&TriggerKind::Retry)?, by])?;
            }
            fate.state = TaskState::Queued;
            fate.closed = true;
        }
    }
    Ok(fate)
}

fn advance(connection: &Connection, row: &TaskRow, state: TaskState, now: Timestamp) -> Result<(), StoreError> {
    let open = Open { state, started_at: Some(now), ..row.open.clone() };
    connection
        .prepare_cached("UPDATE tasks SET state = ?2, started_at = ?3, deadline_at = ?4 WHERE number = ?1")?
        .execute(params![row.number, state.as_str(), now.unix_micros(), deadline_micros(&open)])?;
    connection
        .prepare_cached("UPDATE attempts SET started_at = ?3 WHERE task = ?1 AND attempt = ?2")?
        .execute(params![row.number, row.standing.attempt, now.unix_micros()])?;
    Ok(())
}

/// What the newest attempt of a task may still run, though that is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StillRuns {
    pub(crate) attempt: u32,
    pub(crate) runner: String,
    /// Its runner's word may come before.
    pub(crate) until: Timestamp,
}

/// What the newest attempt of a task may still run at `now`: it began, was closed, and its runner has not said how it ended.
pub(super) fn still_runs(
    connection: &Connection,
    row: &TaskRow,
    now: Timestamp,
) -> Result<Option<StillRuns>, StoreError> {
    let TaskRow { number, standing: Standing { attempt, on_runner_lost, .. }, open: Open { timeout_ms, .. }, .. } = row;
    let found = connection
        .prepare_cached(
            "SELECT runner, started_at, closed_at, grace_ms FROM attempts WHERE task = ?1 AND attempt = ?2
             AND started_at IS NOT NULL AND closed_at IS NOT NULL AND result IS NULL",
        )?
        .query_row(params![number, attempt], |row| {
            let (started_at, closed_at, grace_ms) = (rows::time(row, 1)?, rows::time(row, 2)?, row.get(3)?);
            let (on_runner_lost, timeout_ms) = (*on_runner_lost, *timeout_ms);
            let unreported = Unreported { started_at, closed_at, on_runner_lost, timeout_ms, grace_ms };
            Ok(StillRuns { attempt: *attempt, runner: row.get(0)?, until: deadline::runs_until(unreported) })
        })
        .optional()?;
    Ok(found.filter(|still_runs| still_runs.until > now))
}

/// When a person's retry of a task runs that may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryWhen {
    /// Once nothing of it runs.
    Over,
    /// At once, beside it.
    Now,
}

/// A person asks for another attempt, or has the one that they asked for run at once. Also answers what may still run.
pub(super) fn retry(
    connection: &Connection,
    number: u64,
    by: &str,
    when: RetryWhen,
    now: Timestamp,
) -> Result<(Fate, Option<StillRuns>), StoreError> {
    let row = existing(connection, number)?;
    let still_runs = still_runs(connection, &row, now)?;
    let waits = row.standing.state == TaskState::Queued && still_runs.is_some() && row.ready_at > now;
    let until = still_runs.as_ref().map(|still_runs| still_runs.until);
    let happening = match when {
        RetryWhen::Now if waits => Happening::RunNow { by: by.to_owned() },
        RetryWhen::Now => Happening::Retry { by: by.to_owned(), runs_on_ms: 0 },
        RetryWhen::Over => {
            let runs_on_ms = until.map_or(0, |until| until.millis_since(now));
            Happening::Retry { by: by.to_owned(), runs_on_ms }
        }
    };
    Ok((happen(connection, number, &happening, now)?, still_runs))
}

/// Its runner has said how the newest attempt ended: a task that waits for nothing else goes on.
fn wait_no_more(connection: &Connection, row: &TaskRow, now: Timestamp) -> Result<(), StoreError> {
    let open = Open { queued_at: row.open.queued_at.min(now), ..row.open.clone() };
    connection
        .prepare_cached(
            "UPDATE tasks SET queued_at = ?2, ready_at = min(ready_at, ?3), delay_ms = 0, deadline_at = ?4
             WHERE number = ?1 AND state = 'queued'",
        )?
        .execute(params![row.number, open.queued_at.unix_micros(), now.unix_micros(), deadline_micros(&open)])?;
    Ok(())
}

fn close_attempt(connection: &Connection, id: AttemptId, why: &str, now: Timestamp) -> Result<(), StoreError> {
    let began = connection
        .prepare_cached(
            "UPDATE attempts SET closed_at = ?3, closed_why = ?4
             WHERE task = ?1 AND attempt = ?2 AND closed_at IS NULL RETURNING started_at IS NOT NULL",
        )?
        .query_row(params![id.task, id.attempt, now.unix_micros(), why], |row| row.get(0))
        .optional()?;
    // However it ends, what a one-off runner began is its only task; what never began costs it nothing.
    if began.unwrap_or(false) {
        end_one_off(connection, id)?;
    }
    Ok(())
}

/// The key of an attempt's runner, when that is a one-off one.
///
/// A machine that took the name after the attempt is another one: its predecessor's late report is nothing to it.
fn one_off_runner(connection: &Connection, id: AttemptId) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT r.key FROM attempts a JOIN runners r ON r.key = a.runner_key
         WHERE a.task = ?1 AND a.attempt = ?2 AND r.one_off",
    )?;
    Ok(statement.query_row(params![id.task, id.attempt], |row| row.get(0)).optional()?)
}

/// A one-off runner has had its task: its registration ends with it. Whether the attempt's runner is such a one.
fn end_one_off(connection: &Connection, id: AttemptId) -> Result<bool, StoreError> {
    let found = one_off_runner(connection, id)?;
    if let Some(key) = found {
        connection.prepare_cached("UPDATE runners SET draining = 1 WHERE key = ?1")?.execute([key])?;
    }
    Ok(found.is_some())
}

fn requeue(
    connection: &Connection,
    row: &TaskRow,
    delay_ms: u64,
    queue: QueueClock,
    retry: Retry,
    now: Timestamp,
) -> Result<(), StoreError> {
    let delay_ms = delay_ms.min(DELAY_MS_MAX);
    let ready_at = now.plus_millis(i64::try_from(delay_ms).unwrap_or(i64::MAX));
    let queued_at = match queue {
        QueueClock::GoesOn => row.open.queued_at,
        // A delay is no wait for a runner: one that is longer than queue_timeout must not expire the task.
        QueueClock::Restarts => ready_at,
    };
    let open = Open { state: TaskState::Queued, queued_at, cancel_at: None, ..row.open.clone() };
    let retries = match retry {
        Retry::Free => "retries_left",
        Retry::Spent => "max(retries_left - 1, 0)",
        Retry::Renewed => "(SELECT s.retry_attempts FROM specs s WHERE s.id = tasks.spec)",
    };
    // A plan that was carried out, wholly or in part, or that was given up: the next attempt plans anew, and asks again.
    let approval = match queue {
        QueueClock::GoesOn => "",
        QueueClock::Restarts => "resume_attempt = NULL, approved_by = NULL, approved_at = NULL,",
    };
    let sql = format!(
        "UPDATE tasks SET {approval} state = 'queued', reason = NULL, exit_code = NULL, summary = NULL, cancel_by = NULL,
             cancel_at = NULL, assigned_at = NULL, started_at = NULL, finished_at = NULL, queued_at = ?2, ready_at = ?3,
             delay_ms = ?5, deadline_at = ?4, retries_left = {retries} WHERE number = ?1"
    );
    connection.prepare_cached(&sql)?.execute(params![
        row.number,
        queued_at.unix_micros(),
        ready_at.unix_micros(),
        deadline_micros(&open),
        delay_ms
    ])?;
    Ok(())
}

/// The attempt's process is about to run, or its commit has become known. Answers whether a cancel is pending.
pub(super) fn start(
    connection: &Connection,
    id: AttemptId,
    request: &StartRequest,
    now: Timestamp,
) -> Result<bool, StoreError> {
    live_attempt(connection, id)?;
    if let Some(session) = &request.session {
        bind_to_session(connection, id, session)?;
    }
    happen(connection, id.task, &Happening::Start, now)?;
    pin(connection, id.task, request.commit.as_deref())?;
    let cancel = connection
        .prepare_cached("SELECT cancel_by IS NOT NULL FROM tasks WHERE number = ?1")?
        .query_row([id.task], |row| row.get(0))?;
    Ok(cancel)
}

/// The first process that says it begins the attempt is the only one that may: a copy of its runner was given the same job.
fn bind_to_session(connection: &Connection, id: AttemptId, session: &str) -> Result<(), StoreError> {
    let bound = connection
        .prepare_cached(
            "UPDATE attempts SET session = ?3 WHERE task = ?1 AND attempt = ?2 AND coalesce(session, ?3) = ?3",
        )?
        .execute(params![id.task, id.attempt, session])?;
    if bound == 1 {
        return Ok(());
    }
    let reason = "another process with its runner's token began it: each runner needs a token and a key of its own";
    Err(StoreError::Refused(Refused::Gone { reason: reason.to_owned() }))
}

/// Keeps the commit that the first attempt resolved; later ones change nothing.
fn pin(connection: &Connection, number: u64, commit: Option<&str>) -> Result<(), StoreError> {
    if let Some(commit) = commit {
        connection
            .prepare_cached("UPDATE tasks SET commit_id = ?2 WHERE number = ?1 AND commit_id IS NULL")?
            .execute(params![number, commit])?;
    }
    Ok(())
}

/// What became of an attempt's report.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) fate: Fate,
    /// Whether it decided something.
    pub(crate) counted: bool,
    /// Whether it is the report that was kept.
    pub(crate) is_first: bool,
    /// Whether its runner is a one-off one, which leaves once this is acknowledged.
    pub(crate) one_off: bool,
}

/// Takes an attempt's report. One of a closed attempt is kept and does not count; the same one again changes nothing.
pub(super) fn finish(
    connection: &Connection,
    id: AttemptId,
    result: &AttemptResult,
    log: LogState,
    now: Timestamp,
) -> Result<Finished, StoreError> {
    let attempt = load_attempt(connection, id)?;
    let row = existing(connection, id.task)?;
    let unchanged = Fate { task: id.task, state: row.standing.state, attempt: id, runner: None, closed: false };
    if attempt.had_result {
        let one_off = one_off_runner(connection, id)?.is_some();
        return Ok(Finished { fate: unchanged, counted: attempt.counted, is_first: false, one_off });
    }
    // A one-off runner leaves after its first report, whether it counts or not.
    let one_off = end_one_off(connection, id)?;
    let json = rows::to_json(result)?;
    let keep = |counted: bool| -> Result<(), StoreError> {
        connection
            .prepare_cached(
                "UPDATE attempts SET result = ?3, result_at = ?4, counted = ?5,
                     log_state = iif(log_state = 'open', ?6, log_state)
                 WHERE task = ?1 AND attempt = ?2",
            )?
            .execute(params![id.task, id.attempt, json, now.unix_micros(), counted, rows::to_name(&log)?])?;
        Ok(())
    };
    if attempt.closed.is_some() {
        keep(false)?;
        if row.standing.state == TaskState::Queued && row.standing.attempt == id.attempt {
            wait_no_more(connection, &row, now)?;
        }
        return Ok(Finished { fate: unchanged, counted: false, is_first: true, one_off });
    }
    let happening = Happening::Report(Report {
        outcome: result.outcome,
        reason: result.reason.clone(),
        no_retry: result.no_retry,
        retry_after_ms: result.retry_after_ms,
        nothing_ran: result.nothing_ran,
    });
    let fate = happen(connection, id.task, &happening, now)?;
    keep(true)?;
    pin(connection, id.task, result.commit.as_deref())?;
    if fate.state == TaskState::AwaitingApproval {
        // How its process ended says nothing of what was not done yet.
        let summary = result.summary.as_ref().map(rows::to_json).transpose()?;
        connection
            .prepare_cached("UPDATE tasks SET summary = ?2 WHERE number = ?1")?
            .execute(params![id.task, summary])?;
    }
    if fate.state.is_final() {
        let summary = result.summary.as_ref().map(rows::to_json).transpose()?;
        connection
            .prepare_cached("UPDATE tasks SET exit_code = ?2, summary = ?3 WHERE number = ?1")?
            .execute(params![id.task, result.exit_code, summary])?;
    }
    Ok(Finished { fate, counted: true, is_first: true, one_off })
}

/// A person decides about what an attempt has planned: the newest one, and the one that was looked at where that is named.
pub(super) fn decide(
    connection: &Connection,
    number: u64,
    attempt: Option<u32>,
    happening: &Happening,
    now: Timestamp,
) -> Result<Fate, StoreError> {
    let Standing { state, attempt: newest, .. } = existing(connection, number)?.standing;
    let is_another = state == TaskState::AwaitingApproval && attempt.is_some_and(|attempt| attempt != newest);
    if is_another {
        Err(StoreError::Refused(Refused::Older { newest }))
    } else {
        happen(connection, number, happening, now)
    }
}

/// Those of `here` that no open task will go on with.
pub(super) fn unwanted_carries(connection: &Connection, here: Vec<AttemptId>) -> Result<Vec<AttemptId>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM tasks WHERE number = ?1 AND deadline_at IS NOT NULL AND (attempt = ?2 OR resume_attempt = ?2)",
    )?;
    let mut unwanted = Vec::new();
    for id in here {
        if !statement.exists(params![id.task, id.attempt])? {
            unwanted.push(id);
        }
    }
    Ok(unwanted)
}

pub(super) const DUE: &str = "SELECT number FROM tasks WHERE deadline_at <= ?1 ORDER BY deadline_at LIMIT ?2";

/// Acts on every deadline that has passed.
pub(super) fn reconcile(connection: &Connection, now: Timestamp) -> Result<Vec<Fate>, StoreError> {
    let due: Vec<u64> = connection
        .prepare_cached(DUE)?
        .query_map(params![now.unix_micros(), RECONCILED_TASKS_MAX], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut fates = Vec::new();
    for number in due {
        let acted = existing(connection, number).and_then(|row| match deadline::at_deadline(&row.open) {
            Some(happening) => happen(connection, number, &happening, now).map(Some),
            None => Ok(None),
        });
        match acted {
            Ok(fate) => fates.extend(fate),
            // That of one task must not keep the others waiting.
            Err(error) if error.is_everyones() => return Err(error),
            Err(error) => {
                tracing::error!(task = number, %error, "a task's deadline could not be acted on; it is tried again");
                let again = now.plus_millis(DEADLINE_AGAIN_MS);
                connection
                    .prepare_cached("UPDATE tasks SET deadline_at = ?2 WHERE number = ?1")?
                    .execute(params![number, again.unix_micros()])?;
            }
        }
    }
    Ok(fates)
}

// Without the index's name SQLite reads every task that waits, and this is asked after each step of any task.
pub(super) const NEXT_READY: &str =
    "SELECT min(ready_at) FROM tasks INDEXED BY tasks_ready WHERE state = 'queued' AND ready_at > ?1";

/// The next moment at which [`reconcile`] or the queue has something to do.
pub(super) fn next_moment(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let deadline: Option<i64> = connection
        .prepare_cached("SELECT min(deadline_at) FROM tasks WHERE deadline_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    let ready: Option<i64> = connection.prepare_cached(NEXT_READY)?.query_row([now.unix_micros()], |row| row.get(0))?;
    Ok(deadline.into_iter().chain(ready).min().map(Timestamp::from_unix_micros))
}

/// An attempt that was live when the daemon started.
#[derive(Clone, Debug)]
pub(crate) struct LiveAttempt {
    pub(crate) attempt: AttemptId,
    pub(crate) runner: String,
    pub(crate) grace_ms: u64,
    /// The hash of its own token.
    pub(crate) token_sha256: [u8; 32],
}

/// Gives what is with a runner the time to report.
pub(super) fn let_report(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT {}, t.number FROM tasks t JOIN specs s ON s.id = t.spec WHERE t.state IN ('assigned', 'running')",
        rows::STANDING_COLUMNS
    );
    let held: Vec<(u64, Option<i64>)> = connection
        .prepare(&sql)?
        .query_map([], |row| {
            let (_standing, open, grace_ms) = rows::standing(row)?;
            let moment = deadline::after_boot(&open, grace_ms, now).map(Timestamp::unix_micros);
            Ok((row.get(15)?, moment))
        })?
        .collect::<Result<_, _>>()?;
    for (number, moment) in held {
        connection
            .prepare_cached("UPDATE tasks SET deadline_at = ?2 WHERE number = ?1")?
            .execute(params![number, moment])?;
    }
    Ok(())
}

/// Makes a boot's start of it: what is with a runner gets time to report, everything else that is due is acted on.
pub(super) fn boot(connection: &Connection, now: Timestamp) -> Result<Vec<LiveAttempt>, StoreError> {
    calendar::begin(connection, now)?;
    loop {
        let fates = reconcile(connection, now)?;
        if fates.is_empty() {
            break;
        }
        tracing::info!(tasks = fates.len(), "deadlines passed while the daemon was away");
    }
    let mut statement = connection
        .prepare_cached("SELECT task, attempt, runner, grace_ms, token_sha256 FROM attempts WHERE closed_at IS NULL")?;
    let live = statement.query_map([], |row| {
        let attempt = AttemptId { task: row.get(0)?, attempt: row.get(1)? };
        Ok(LiveAttempt { attempt, runner: row.get(2)?, grace_ms: row.get(3)?, token_sha256: row.get(4)? })
    })?;
    Ok(live.collect::<Result<_, _>>()?)
}

/// The name of a rule as a spec's row keeps it.
pub(super) fn rule_name(rule: OnRunnerLost) -> Result<String, StoreError> {
    Ok(rows::to_name(&rule)?)
}
