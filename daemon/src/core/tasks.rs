//! The user's side: making, showing, ending and repeating tasks.

use std::sync::Arc;

use forge_api::{AuditAction, CreateTask, CreatedTask, LogState, Page, RetryTask, Task, Why};
use forge_config::meant::{Project, Template};

use super::{
    Actor, Applied, Core, CoreError, Counters, LogReader, Origin, TaskFilter, cursor_number, internal, refused, stored,
};
use crate::components;
use crate::logs::{Attempts, Expectation};
use crate::scheduler::spec::TaskSpec;
use crate::scheduler::task::Happening;
use crate::scheduler::{assign, project_facts, why, words};
use crate::store::{Idempotency, Listing, Made, NewTask, Note, RetryWhen, StillRuns, WriterStats};

/// The most items of a page.
const PAGE_ITEMS_MAX: u32 = 500;

/// The most bytes of an idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The most arguments that a trigger appends, and the most bytes of all of them.
const ARGUMENTS_MAX: usize = 256;
const ARGUMENTS_BYTES_MAX: usize = 64 * 1024;

impl Core {
    /// Makes a task from a template of the revision that serves.
    pub async fn create_task(
        &self,
        project: &str,
        template: &str,
        request: CreateTask,
        origin: impl Into<Origin>,
        idempotency_key: Option<String>,
    ) -> Result<CreatedTask, CoreError> {
        let applied = self.inner.scheduler.applied();
        let idempotency = idempotency_key.map(|key| self.idempotency(key, &request)).transpose()?;
        self.store_task(self.new_task(&applied, project, template, request, origin, idempotency)?).await
    }

    /// Makes the task.
    async fn store_task(&self, new: NewTask) -> Result<CreatedTask, CoreError> {
        let made = self.make_task(new).await?;
        Ok(CreatedTask { task: self.task(made.number).await?, replayed: made.replayed })
    }

    /// Makes the task, or finds the one that was made before; that one may be forgotten by now.
    pub(super) async fn make_task(&self, new: NewTask) -> Result<Made, CoreError> {
        let made = self.inner.store.create(new, self.now()).await;
        let made = made.map_err(|error| refused(error, "task", "", None))?;
        self.inner.scheduler.after(&made.others);
        if !made.replayed {
            self.inner.scheduler.changed().tasks([made.number]);
        }
        Ok(made)
    }

    /// A task about to be made, from a template of a revision.
    pub(super) fn new_task(
        &self,
        applied: &Applied,
        project: &str,
        template: &str,
        request: CreateTask,
        origin: impl Into<Origin>,
        idempotency: Option<Idempotency>,
    ) -> Result<NewTask, CoreError> {
        let Origin { trigger, actor } = origin.into();
        if self.inner.scheduler.is_draining() {
            return Err(CoreError::ShuttingDown);
        }
        self.check_space()?;
        let (project, template) = find_template(applied, project, template)?;
        check_arguments(&template, &request)?;
        let answers = template
            .check_answers(&request.variables)
            .map_err(|errors| CoreError::InvalidAnswers(errors.iter().map(ToString::to_string).collect()))?;
        let secret_answers = if answers.secret.is_empty() {
            None
        } else {
            let json = serde_json::to_vec(&answers.secret).map_err(internal)?;
            Some(age::encrypt(&self.inner.keys.store().to_public(), &json).map_err(internal)?)
        };
        Ok(NewTask {
            spec: TaskSpec::of(&applied.tree, &project, &template).map_err(internal)?,
            revision: applied.revision.clone(),
            revision_commit: applied.commit.as_ref().map(|commit| (commit.author.clone(), commit.subject.clone())),
            trigger,
            actor,
            variables: answers.plain,
            arguments: request.arguments,
            secret_answers,
            idempotency,
        })
    }

    fn check_space(&self) -> Result<(), CoreError> {
        let free_bytes = self.inner.logs.free_bytes().map_err(internal)?;
        let reserve_bytes = self.inner.log_limits.disk_reserve_bytes;
        if free_bytes < reserve_bytes { Err(CoreError::StorageFull { free_bytes, reserve_bytes }) } else { Ok(()) }
    }

    fn idempotency(&self, key: String, request: &CreateTask) -> Result<Idempotency, CoreError> {
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(CoreError::Invalid {
                detail: format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
                hint: Some("send a random one, such as a UUID".to_owned()),
            });
        }
        // The request may hold secret answers: only its MAC is kept.
        let json = serde_json::to_vec(request).map_err(internal)?;
        Ok(Idempotency { key, request_mac: self.inner.keys.request_mac(&json) })
    }

    /// A page of tasks, newest first.
    pub async fn tasks(&self, filter: TaskFilter, cursor: Option<String>, limit: u32) -> Result<Page<Task>, CoreError> {
        let before = cursor_number(cursor)?;
        let limit = limit.clamp(1, PAGE_ITEMS_MAX);
        let TaskFilter { project, state, template, visible } = filter;
        // One more than asked for says whether there is another page.
        let listing = Listing { project, state, template, visible, before, limit: limit + 1 };
        let mut items = self.inner.store.tasks(listing).await.map_err(stored)?;
        let more = items.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        items.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next_cursor = items.last().filter(|_| more).map(|task| task.number.to_string());
        Ok(Page { items: self.with_log_bytes(items).await?, next_cursor })
    }

    /// One task.
    pub async fn task(&self, number: u64) -> Result<Task, CoreError> {
        let task = self.inner.store.task(number).await.map_err(stored)?;
        let mut task = task.ok_or_else(|| no_task(number))?;
        // One system call at most: no other thread has to be woken for that.
        task.log_bytes = self.log_bytes(&task);
        task.template_removed = is_removed(&self.inner.scheduler.applied(), &task);
        Ok(task)
    }

    fn log_bytes(&self, task: &Task) -> u64 {
        let id = forge_api::AttemptId { task: task.number, attempt: task.attempt };
        if task.attempt > 0 { self.inner.logs.length(id) } else { 0 }
    }

    async fn with_log_bytes(&self, mut tasks: Vec<Task>) -> Result<Vec<Task>, CoreError> {
        let core = self.clone();
        let work = move || {
            let applied = core.inner.scheduler.applied();
            for task in &mut tasks {
                task.log_bytes = core.log_bytes(task);
                task.template_removed = is_removed(&applied, task);
            }
            tasks
        };
        tokio::task::spawn_blocking(work).await.map_err(internal)
    }

    /// Why a task is where it is, for who may see everything.
    pub async fn why(&self, number: u64) -> Result<Why, CoreError> {
        self.why_for(None, number).await
    }

    /// Why a task is where it is, for who sees `visible` projects (`None` is all): it tells nothing of other projects' runners.
    pub(crate) async fn why_for(&self, visible: Option<&[String]>, number: u64) -> Result<Why, CoreError> {
        self.whys_for(visible, vec![number]).await?.pop().ok_or_else(|| no_task(number))
    }

    /// The same of several tasks at once; those that do not exist are left out.
    pub(crate) async fn whys_for(&self, visible: Option<&[String]>, numbers: Vec<u64>) -> Result<Vec<Why>, CoreError> {
        let all = self.inner.store.circumstances(numbers, self.now()).await.map_err(stored)?;
        let mut candidates = self.candidates().await?;
        if let Some(visible) = visible {
            let sees = |own: &str| visible.iter().any(|seen| seen == own);
            // Whoever runs one of the tasks is named in it, whosever it has become since.
            let runs = |name: &str| all.iter().any(|one| one.task.runner.as_deref() == Some(name));
            candidates
                .retain(|candidate| candidate.facts.project.as_deref().is_none_or(sees) || runs(&candidate.facts.name));
        }
        let applied = self.inner.scheduler.applied();
        let declared = project_facts(&applied);
        let (storage_full, now) = (self.inner.scheduler.is_storage_full(), self.now());
        let whys = all.iter().map(|circumstances| {
            let Task { number, attempt, ref project, .. } = circumstances.task;
            let removed = || assign::removed_project(circumstances.global_runners);
            let situation = why::Situation {
                candidates: &candidates,
                project: declared.get(project).copied().unwrap_or_else(removed),
                lease: self.inner.scheduler.lease_facts(forge_api::AttemptId { task: number, attempt }),
                storage_full,
                has_rules: applied.applied_at.is_some(),
                now,
            };
            why::why(circumstances, &situation)
        });
        Ok(whys.collect())
    }

    /// Asks for a task's end. Asking again changes nothing; a task that ended is a conflict.
    pub async fn cancel(&self, number: u64, by: impl Into<Actor>) -> Result<Task, CoreError> {
        let note = self.task_note(AuditAction::TaskCancel, number, by.into());
        self.happen(number, Happening::Cancel { by: note.actor.name.clone() }, note).await
    }

    /// Queues a task that ended again, with its own revision and commit. Where its last attempt may still run it waits until that cannot be, unless
    /// the request says otherwise.
    pub async fn retry(&self, number: u64, by: impl Into<Actor>, request: &RetryTask) -> Result<Task, CoreError> {
        let note = self.task_note(AuditAction::TaskRetry, number, by.into());
        self.check_space()?;
        if self.inner.store.secret_answers_gone(number).await.map_err(stored)? {
            return Err(CoreError::Conflict {
                detail: format!("task {number} had secret answers, and those were deleted when it ended"),
                hint: Some("run its template anew with `forge run`".to_owned()),
            });
        }
        self.need_plugin_of(number).await?;
        let by = note.actor.name.clone();
        let when = if request.now { RetryWhen::Now } else { RetryWhen::Over };
        let retried = self.inner.store.retry(number, when, note, self.now()).await;
        let (fate, still_runs) = retried.map_err(|error| refused(error, "task", &number.to_string(), None))?;
        match (when, still_runs) {
            (_, None) => tracing::info!(task = number, by, "another attempt was asked for"),
            (RetryWhen::Over, Some(StillRuns { attempt, runner, until })) => {
                tracing::info!(task = number, by, attempt, runner, %until, "another attempt was asked for, and waits until the last one cannot run any more");
            }
            (RetryWhen::Now, Some(StillRuns { attempt, runner, until })) => {
                tracing::warn!(task = number, by, attempt, runner, %until, "another attempt runs at once as it was asked for, and the last one may still run");
            }
        }
        self.inner.scheduler.after(&[fate]);
        self.task(number).await
    }

    /// A task that ended long ago may need a component that no revision has named since.
    async fn need_plugin_of(&self, number: u64) -> Result<(), CoreError> {
        let Some((plugin, sha256)) = self.inner.store.plugin_of_task(number).await.map_err(stored)? else {
            return Ok(());
        };
        let applied = self.inner.scheduler.applied();
        if applied.tree.plugins.values().any(|plugin| plugin.sha256.hex() == sha256) {
            return Ok(());
        }
        let (folder, digest, now) = (self.inner.plugin_dir.clone(), sha256.clone(), self.now());
        let is_there = tokio::task::spawn_blocking(move || components::need(&folder, &digest, now));
        if is_there.await.map_err(internal)?.map_err(|error| internal(format!("plugin {sha256}: {error}")))? {
            return Ok(());
        }
        Err(CoreError::Conflict {
            detail: format!(
                "task {number} ran with a component of plugin {plugin} ({sha256}) that no revision has named for 30 days: it was removed"
            ),
            hint: Some("run its template anew with `forge run`, with the component that the tree names now".to_owned()),
        })
    }

    async fn happen(&self, number: u64, happening: Happening, note: Note) -> Result<Task, CoreError> {
        let fate = self.inner.store.happen(number, happening, note, self.now()).await;
        let fate = fate.map_err(|error| refused(error, "task", &number.to_string(), None))?;
        self.inner.scheduler.after(&[fate]);
        self.task(number).await
    }

    /// The log of a task's newest attempt, or of the one asked for.
    pub async fn log(&self, number: u64, attempt: Option<u32>) -> Result<LogReader, CoreError> {
        let (newest, _) = self.look(number, attempt).await?;
        Ok(LogReader {
            logs: Arc::clone(&self.inner.logs),
            attempts: Arc::new(self.clone()),
            clock: self.inner.clock.clone(),
            task: number,
            asked: attempt,
            attempt: newest,
        })
    }

    /// What metrics show.
    pub async fn counters(&self) -> Result<Counters, CoreError> {
        let tasks = self.inner.store.counts().await.map_err(stored)?;
        let projects = project_facts(&self.inner.scheduler.applied());
        let oldest_ready = self.inner.store.oldest_ready(projects, self.now()).await.map_err(stored)?;
        let oldest_delivery = self.inner.store.oldest_delivery().await.map_err(stored)?;
        let mut runners: Vec<(forge_api::RunnerStatus, u64)> = Vec::new();
        for candidate in self.candidates().await? {
            match runners.iter_mut().find(|(status, _)| *status == candidate.facts.status) {
                Some((_, count)) => *count += 1,
                None => runners.push((candidate.facts.status, 1)),
            }
        }
        Ok(Counters {
            tasks,
            runners,
            fenced_writes: self.inner.scheduler.fenced_writes(),
            parked_claims: self.inner.scheduler.parked_claims(),
            log_bytes: self.inner.logs.taken_bytes(),
            oldest_ready_ms: oldest_ready.map_or(0, |since| self.now().millis_since(since)),
            assignments: self.inner.scheduler.assignments(),
            lease_expiries: self.inner.scheduler.lease_expiries(),
            jobs_refused: self.inner.scheduler.jobs_refused(),
            deliveries: self.inner.store.delivery_counts().await.map_err(stored)?,
            oldest_delivery_ms: oldest_delivery.map_or(0, |since| self.now().millis_since(since)),
            tries: self.inner.scheduler.tries(),
            clock_skew_ms_max: self.inner.scheduler.clock_skew_ms_max(),
            runner_disk_free_bytes_min: self.inner.scheduler.runner_disk_free_bytes_min(),
            disk_free_bytes: self.inner.logs.free_bytes().ok(),
            disk_reserve_bytes: self.inner.log_limits.disk_reserve_bytes,
        })
    }
}

impl Core {
    /// What the store's writer did since the start.
    pub(crate) fn writer_stats(&self) -> &WriterStats {
        self.inner.store.writer_stats()
    }
}

impl Attempts for Core {
    fn look(
        &self,
        number: u64,
        attempt: Option<u32>,
    ) -> futures_util::future::BoxFuture<'_, Result<(u32, Expectation), CoreError>> {
        Box::pin(async move {
            let task = self.inner.store.task(number).await.map_err(stored)?.ok_or_else(|| no_task(number))?;
            let attempt = attempt.unwrap_or(task.attempt);
            if attempt == 0 {
                let expectation = if task.state.is_final() { Expectation::Nothing } else { Expectation::More };
                return Ok((0, expectation));
            }
            let id = forge_api::AttemptId { task: number, attempt };
            let view = self.inner.store.attempt(id).await.map_err(stored)?.ok_or_else(|| CoreError::NotFound {
                what: "attempt",
                name: id.to_string(),
                nearest: None,
            })?;
            let expectation = match (view.closed, view.log_state) {
                (_, LogState::Whole | LogState::Damaged) => Expectation::Nothing,
                (false, LogState::Open) => Expectation::More,
                // It never started, so that there is nothing to hand in.
                (true, LogState::Open) if !view.started => Expectation::Nothing,
                (true, LogState::Open) => Expectation::Rest,
            };
            Ok((attempt, expectation))
        })
    }

    fn changes(&self, number: u64) -> tokio::sync::watch::Receiver<()> {
        self.inner.scheduler.changes(number)
    }
}

pub(super) fn no_task(number: u64) -> CoreError {
    CoreError::NotFound { what: "task", name: number.to_string(), nearest: None }
}

/// Whether the configuration has lost a task's template. An empty tree that serves for want of a good one has lost nothing.
fn is_removed(applied: &Applied, task: &Task) -> bool {
    let project = applied.tree.projects.get(task.project.as_str());
    let is_there = project.is_some_and(|project| project.templates.contains_key(task.template.as_str()));
    applied.applied_at.is_some() && !is_there
}

fn find_template(applied: &Applied, project: &str, template: &str) -> Result<(Arc<Project>, Arc<Template>), CoreError> {
    let projects = &applied.tree.projects;
    let found = projects.get(project).ok_or_else(|| CoreError::NotFound {
        what: "project",
        name: project.to_owned(),
        nearest: words::nearest(project, projects.keys().map(forge_config::Name::as_str)),
    })?;
    let templates = &found.templates;
    let template = templates.get(template).ok_or_else(|| CoreError::NotFound {
        what: "template",
        name: format!("{project}/{template}"),
        nearest: words::nearest(template, templates.keys().map(forge_config::Name::as_str))
            .map(|nearest| format!("{project}/{nearest}")),
    })?;
    Ok((Arc::clone(found), Arc::clone(template)))
}

fn check_arguments(template: &Template, request: &CreateTask) -> Result<(), CoreError> {
    let bytes: usize = request.arguments.iter().map(String::len).sum();
    if !request.arguments.is_empty() && !template.allow_arguments {
        return Err(CoreError::Invalid {
            detail: format!("template {} takes no arguments", template.name.as_str()),
            hint: Some("leave them out, or write `allow_arguments = true` in the template".to_owned()),
        });
    }
    if request.arguments.len() > ARGUMENTS_MAX || bytes > ARGUMENTS_BYTES_MAX {
        return Err(CoreError::Invalid {
            detail: format!(
                "a trigger appends {ARGUMENTS_MAX} arguments of {ARGUMENTS_BYTES_MAX} bytes in all at most"
            ),
            hint: Some("put long input into a survey answer or a file of the repository".to_owned()),
        });
    }
    if request.arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(CoreError::Invalid { detail: "an argument holds a NUL byte".to_owned(), hint: None });
    }
    Ok(())
}
