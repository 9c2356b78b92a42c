//! Making tasks: the idempotency key, the shared spec, and what `concurrency` says of other open tasks.

use forge_api::{AuditAction, TaskState, Timestamp, Trigger, TriggerKind};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Map, Value};

use super::audit::{self, About, Actor, Ended, Note};
use super::{Fate, Refused, StoreError, rows, work};
use crate::scheduler::assign::Concurrency;
use crate::scheduler::deadline::{self, Open};
use crate::scheduler::spec::TaskSpec;
use crate::scheduler::task::Happening;

/// A task about to be made.
#[derive(Debug)]
pub(crate) struct NewTask {
    pub(crate) spec: TaskSpec,
    pub(crate) revision: String,
    /// The author and the subject of its commit.
    pub(crate) revision_commit: Option<(String, String)>,
    pub(crate) trigger: Trigger,
    /// Who is written down for it.
    pub(crate) actor: Actor,
    pub(crate) variables: Map<String, Value>,
    pub(crate) arguments: Vec<String>,
    /// Sealed to the daemon itself.
    pub(crate) secret_answers: Option<Vec<u8>>,
    pub(crate) idempotency: Option<Idempotency>,
}

/// A request's key and what tells it from another request under the same key.
#[derive(Debug)]
pub(crate) struct Idempotency {
    pub(crate) key: String,
    pub(crate) request_mac: Vec<u8>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) replayed: bool,
    /// What happened to other tasks (`concurrency = "replace"`).
    pub(crate) others: Vec<Fate>,
}

/// Makes the task, or finds the one that an earlier request with the same key made.
pub(super) fn create(connection: &Connection, new: &NewTask, now: Timestamp) -> Result<Made, StoreError> {
    if let Some(idempotency) = &new.idempotency
        && let Some(number) = earlier(connection, new, idempotency)?
    {
        return Ok(Made { number, replayed: true, others: Vec::new() });
    }
    let others = open_tasks(connection, &new.spec)?;
    let spec = store_spec(connection, &new.spec)?;
    let skipped_for = match new.spec.concurrency {
        Concurrency::Skip => others.first().copied(),
        Concurrency::Queue | Concurrency::Parallel | Concurrency::Replace => None,
    };
    let number = insert(connection, new, spec, skipped_for, now)?;
    let note = Note {
        actor: new.actor.clone(),
        action: AuditAction::TaskCreate,
        about: About::Project(new.spec.project.clone()),
        object: format!("task {number}"),
        detail: Some(serde_json::json!({ "template": new.spec.template })),
    };
    audit::record(connection, &note, &Ended::Ok, now)?;
    if let Some(idempotency) = &new.idempotency {
        connection.prepare_cached("INSERT INTO idempotency_keys VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            new.spec.project,
            new.spec.template,
            idempotency.key,
            idempotency.request_mac,
            number,
            now.unix_micros()
        ])?;
    }
    let mut fates = Vec::new();
    if new.spec.concurrency == Concurrency::Replace {
        for other in others {
            let by = format!("task {number}, which replaces it (concurrency = \"replace\")");
            fates.push(work::happen(connection, other, &Happening::Cancel { by }, now)?);
        }
    }
    Ok(Made { number, replayed: false, others: fates })
}

fn earlier(connection: &Connection, new: &NewTask, idempotency: &Idempotency) -> Result<Option<u64>, StoreError> {
    let NewTask { spec, trigger, .. } = new;
    // A delivery that comes again is the same one whether its task is still kept or not; a person's key names a task.
    let outlives_its_task = trigger.kind == TriggerKind::Integration;
    let found = connection
        .prepare_cached(
            "SELECT k.task, k.request_mac FROM idempotency_keys k
             WHERE k.project = ?1 AND k.template = ?2 AND k.key = ?3
                 AND (?4 OR EXISTS (SELECT 1 FROM tasks t WHERE t.number = k.task))",
        )?
        .query_row(params![spec.project, spec.template, idempotency.key, outlives_its_task], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()?;
    match found {
        Some((task, request_mac)) if request_mac == idempotency.request_mac => Ok(Some(task)),
        Some((task, _)) => Err(StoreError::Refused(Refused::KeyReused { task })),
        None => {
            // A key whose task is gone by retention is free again.
            connection
                .prepare_cached("DELETE FROM idempotency_keys WHERE project = ?1 AND template = ?2 AND key = ?3")?
                .execute(params![spec.project, spec.template, idempotency.key])?;
            Ok(None)
        }
    }
}

fn open_tasks(connection: &Connection, spec: &TaskSpec) -> Result<Vec<u64>, StoreError> {
    match spec.concurrency {
        Concurrency::Queue | Concurrency::Parallel => return Ok(Vec::new()),
        Concurrency::Skip | Concurrency::Replace => {}
    }
    let mut statement = connection.prepare_cached(
        "SELECT number FROM tasks INDEXED BY tasks_open
         WHERE deadline_at IS NOT NULL AND project = ?1 AND template = ?2 ORDER BY number",
    )?;
    let numbers = statement.query_map(params![spec.project, spec.template], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

fn store_spec(connection: &Connection, spec: &TaskSpec) -> Result<i64, StoreError> {
    let json = rows::to_json(spec)?;
    let sha256 = ring::digest::digest(&ring::digest::SHA256, json.as_bytes());
    let known = connection
        .prepare_cached("SELECT id FROM specs WHERE sha256 = ?1")?
        .query_row([sha256.as_ref()], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    connection
        .prepare_cached(
            "INSERT INTO specs (sha256, json, timeout_ms, queue_timeout_ms, runner_grace_ms, on_runner_lost,
                                retry_attempts, retry_delay_ms, approval_timeout_ms, webhooks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            sha256.as_ref(),
            json,
            spec.timeout_ms,
            spec.queue_timeout_ms,
            spec.runner_grace_ms,
            work::rule_name(spec.on_runner_lost)?,
            spec.retry_attempts,
            spec.retry_delay_ms,
            spec.approval_timeout_ms,
            rows::to_json(&spec.webhooks)?
        ])?;
    Ok(connection.last_insert_rowid())
}

fn insert(
    connection: &Connection,
    new: &NewTask,
    spec: i64,
    skipped_for: Option<u64>,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let state = if skipped_for.is_some() { TaskState::Skipped } else { TaskState::Queued };
    let reason = skipped_for.map(|other| format!("task {other} of this template is open (concurrency = \"skip\")"));
    let open = Open {
        state,
        queued_at: now,
        assigned_at: None,
        started_at: None,
        cancel_at: None,
        timeout_ms: new.spec.timeout_ms,
        queue_timeout_ms: new.spec.queue_timeout_ms,
        approval_timeout_ms: new.spec.approval_timeout_ms,
    };
    let micros = now.unix_micros();
    connection
        .prepare_cached(
            "INSERT INTO tasks (project, template, state, reason, required_tag, priority, concurrency, revision,
                 trigger_kind, trigger_by, variables, arguments, secret_answers, had_secret_answers, spec, retries_left,
                 created_at, queued_at, ready_at, finished_at, deadline_at, revision_author, revision_subject, schedule)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?17, ?17, ?18, ?19, ?20, ?21, ?22)",
        )?
        .execute(params![
            new.spec.project,
            new.spec.template,
            state.as_str(),
            reason,
            new.spec.required_tag.as_deref().unwrap_or_default(),
            new.spec.priority,
            rows::to_name(&new.spec.concurrency)?,
            new.revision,
            rows::to_name(&new.trigger.kind)?,
            new.trigger.by,
            rows::to_json(&new.variables)?,
            rows::to_json(&new.arguments)?,
            new.secret_answers.as_ref().filter(|_| !state.is_final()),
            new.secret_answers.is_some(),
            spec,
            new.spec.retry_attempts,
            micros,
            state.is_final().then_some(micros),
            deadline::deadline(&open).map(Timestamp::unix_micros),
            new.revision_commit.as_ref().map(|(author, _)| author),
            new.revision_commit.as_ref().map(|(_, subject)| subject),
            (new.trigger.kind == TriggerKind::Schedule).then_some(&new.trigger.by),
        ])?;
    u64::try_from(connection.last_insert_rowid()).map_err(|_| StoreError::Sql(rusqlite::Error::InvalidQuery))
}
