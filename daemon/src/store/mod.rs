//! What Forge remembers: SQLite behind a face of operations. SQL appears nowhere else, and time comes in as an argument.
//!
//! One writer thread commits many operations at once and answers after the commit (`synchronous=FULL`); readers have
//! connections of their own. Nothing here decides: the pure steps of the scheduler do, inside the writer's transactions.

mod audit;
mod calendar;
pub(crate) mod copies;
mod create;
mod deliveries;
mod error;
mod events;
mod insight;
mod integrations;
mod load;
mod news;
mod open;
mod outbox;
mod plan;
mod queries;
mod readers;
mod retain;
mod revisions;
pub(crate) mod revocations;
mod rows;
mod runners;
mod schedules;
mod seed;
mod sessions;
mod transaction;
mod work;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forge_api::{AttemptId, AttemptResult, Carry, LogState, RefusedJob, StartRequest, Task, TaskState, Timestamp};

use crate::scheduler::assign::ProjectFacts;
use crate::scheduler::task::Happening;

pub use audit::Actor;
pub(crate) use audit::{About, AuditListing, Ended, Note, Seen};
pub(crate) use calendar::CalendarSet;
pub(crate) use create::{Idempotency, Made, NewTask};
use deliveries::Still;
pub(crate) use deliveries::{Came, DeliveryListing, Due, DueOfTarget, Kept, payload};
pub use error::{Refused, StoreError};
pub(crate) use events::NewEvent;
pub(crate) use news::{RunnerNews, RunnerTold, WaitingGroup, WaitingTold};
pub(crate) use outbox::{Teller, Tidings};
pub(crate) use plan::{Choice, Plan, QueueFacts};
pub(crate) use queries::{AHEAD_COUNTED_MAX, Ahead, AttemptView, Circumstances, Delivery, Listing};
pub(crate) use retain::Keep;
pub(crate) use revisions::REVISIONS_KEPT;
pub(crate) use runners::{ContactRow, Held, NewRegistration, Registered, Registration};
pub(crate) use schedules::{Fired, NewFiring, ScheduleKey, ScheduleRow};
pub use seed::seed_history;
pub(crate) use sessions::{NewSession, SESSION_IDLE_MS, SessionRow};
pub(crate) use transaction::{Planner, ToldWhenCommitted, WriterStats};
pub(crate) use work::{Finished, LiveAttempt, RetryWhen, StillRuns};
pub(crate) use writer::WriterThread;

/// An attempt that was made and is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) attempt: AttemptId,
    pub(crate) runner: String,
    pub(crate) grace_ms: u64,
    /// The hash of the attempt's own token.
    pub(crate) token_sha256: [u8; 32],
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) task: u64,
    pub(crate) state: TaskState,
    pub(crate) attempt: AttemptId,
    /// The runner of its live attempt, from before.
    pub(crate) runner: Option<String>,
    /// Whether that attempt was closed by it.
    pub(crate) closed: bool,
}

/// The store's face; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    writer: writer::Writer,
    readers: Arc<readers::Readers>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// A data folder that is ours, its schema up to date.
pub(crate) struct Opened {
    path: PathBuf,
    connection: rusqlite::Connection,
    lock: open::FolderLock,
}

impl Opened {
    /// Takes the folder and opens the database; it blocks.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let lock = open::lock(data_dir)?;
        let path = open::database_path(data_dir);
        let connection = open::open_writer(&path)?;
        Ok(Self { path, connection, lock })
    }

    /// Starts the writer and the readers.
    pub(crate) fn serve(self, planner: Arc<dyn Planner>) -> Result<(Store, WriterThread), StoreError> {
        let readers = Arc::new(readers::Readers::open(&self.path)?);
        let (writer, thread) = writer::Writer::start(self.connection, self.path, planner, self.lock)?;
        Ok((Store { writer, readers }, thread))
    }

    /// The same without threads: who asks writes and reads. What one caller does then has always the same order.
    pub(crate) fn serve_here(self, planner: Arc<dyn Planner>) -> Result<(Store, WriterThread), StoreError> {
        let readers = Arc::new(readers::Readers::open(&self.path)?.here());
        let (writer, thread) = writer::Writer::here(self.connection, planner, self.lock);
        Ok((Store { writer, readers }, thread))
    }
}

impl Store {
    /// Makes a task, or finds the one that an earlier request made.
    pub(crate) async fn create(&self, new: NewTask, now: Timestamp) -> Result<Made, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let made = create::create(connection, &new, now)?;
                marks.replan |= !made.replayed;
                Ok(made)
            })
            .await
    }

    /// A person asks for another attempt of a task. What may still run of the last one is written down with it.
    pub(crate) async fn retry(
        &self,
        number: u64,
        when: RetryWhen,
        note: Note,
        now: Timestamp,
    ) -> Result<(Fate, Option<StillRuns>), StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let (fate, still_runs) = work::retry(connection, number, &note.actor.name, when, now)?;
                let detail = still_runs.as_ref().map(|StillRuns { attempt, runner, until }| {
                    let words = match when {
                        RetryWhen::Over => "it waits until nothing of it can run",
                        RetryWhen::Now => "it runs at once, beside what may still run",
                    };
                    serde_json::json!({ "may_still_run": { "attempt": attempt, "runner": runner, "until": until }, "retry": words })
                });
                audit::record(connection, &Note { detail, ..note }, &Ended::Ok, now)?;
                marks.replan = true;
                Ok((fate, still_runs))
            })
            .await
    }

    /// Has something happen to a task that somebody asked for.
    pub(crate) async fn happen(
        &self,
        number: u64,
        happening: Happening,
        note: Note,
        now: Timestamp,
    ) -> Result<Fate, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let fate = work::happen(connection, number, &happening, now)?;
                audit::record(connection, &note, &Ended::Ok, now)?;
                marks.replan = true;
                Ok(fate)
            })
            .await
    }

    /// A person decides about what a task has planned; `attempt` is the one that was looked at, where it is named.
    pub(crate) async fn decide(
        &self,
        number: u64,
        attempt: Option<u32>,
        happening: Happening,
        note: Note,
        now: Timestamp,
    ) -> Result<Fate, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let fate = work::decide(connection, number, attempt, &happening, now)?;
                audit::record(connection, &note, &Ended::Ok, now)?;
                marks.replan = true;
                Ok(fate)
            })
            .await
    }

    /// Those of `here` that no open task will go on with.
    pub(crate) async fn unwanted_carries(&self, here: Vec<AttemptId>) -> Result<Vec<AttemptId>, StoreError> {
        self.writer.execute(move |connection, _marks| work::unwanted_carries(connection, here)).await
    }

    /// Has something happen to a task, if this attempt is still its live one.
    pub(crate) async fn happen_to_attempt(
        &self,
        id: AttemptId,
        happening: Happening,
        now: Timestamp,
    ) -> Result<Fate, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                work::live_attempt(connection, id)?;
                let fate = work::happen(connection, id.task, &happening, now)?;
                marks.replan = true;
                Ok(fate)
            })
            .await
    }

    /// Waits for a commit of the writer that changes nothing: the proof that it takes its turns.
    pub(crate) async fn turn(&self) -> Result<(), StoreError> {
        self.writer.execute(|_connection, _marks| Ok(())).await
    }

    /// The attempt's process is about to run; answers whether a cancel is pending.
    pub(crate) async fn start(&self, id: AttemptId, request: StartRequest, now: Timestamp) -> Result<bool, StoreError> {
        self.writer.execute(move |connection, _marks| work::start(connection, id, &request, now)).await
    }

    /// Takes an attempt's report; `log` is what is known of its log already.
    pub(crate) async fn finish(
        &self,
        id: AttemptId,
        result: AttemptResult,
        log: LogState,
        now: Timestamp,
    ) -> Result<Finished, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let finished = work::finish(connection, id, &result, log, now)?;
                marks.replan = true;
                Ok(finished)
            })
            .await
    }

    /// Acts on every deadline that has passed; also answers when there is something to do next.
    pub(crate) async fn reconcile(&self, now: Timestamp) -> Result<(Vec<Fate>, Option<Timestamp>), StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let fates = work::reconcile(connection, now)?;
                // A retry's delay may be over, too.
                marks.replan = true;
                Ok((fates, work::next_moment(connection, now)?))
            })
            .await
    }

    /// Makes a boot's start of what is open; answers with the live attempts.
    pub(crate) async fn boot(&self, now: Timestamp) -> Result<Vec<LiveAttempt>, StoreError> {
        self.writer.execute(move |connection, _marks| work::boot(connection, now)).await
    }

    /// Shows `decide` what a runner holds, inside the writer's turn; when it answers true, waiting tasks are looked at.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        key: i64,
        decide: impl FnOnce(Registration, Vec<Held>) -> (T, bool) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let registration = runners::by_key(connection, key)?;
                let held = runners::held(connection, &registration.name)?;
                let (answer, replan) = decide(registration, held);
                marks.replan |= replan;
                Ok(answer)
            })
            .await
    }

    /// Ends what a runner was given and does not begin, when `may_speak` says that it is the runner's own process that says so.
    pub(crate) async fn refuse<E: Send + 'static>(
        &self,
        key: i64,
        jobs: Vec<RefusedJob>,
        may_speak: impl FnOnce(&Registration) -> Result<(), E> + Send + 'static,
        now: Timestamp,
    ) -> Result<Result<Vec<Fate>, E>, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let registration = runners::by_key(connection, key)?;
                if let Err(refusal) = may_speak(&registration) {
                    return Ok(Err(refusal));
                }
                marks.replan = true;
                runners::refuse(connection, &registration.name, &jobs, now).map(Ok)
            })
            .await
    }

    /// Registers a runner; `is_away` says whether nobody is heard of under its name.
    pub(crate) async fn register(
        &self,
        new: NewRegistration,
        is_away: impl FnOnce(&str) -> bool + Send + 'static,
        note: Note,
        now: Timestamp,
    ) -> Result<Registered, StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                let registered = runners::register(connection, &new, is_away, now)?;
                let detail = Some(serde_json::json!({ "registered": registered.as_str() }));
                audit::record(connection, &Note { detail, ..note }, &Ended::Ok, now)?;
                Ok(registered)
            })
            .await
    }

    /// The new token was used.
    pub(crate) async fn promote(&self, key: i64, token_sha256: [u8; 32], now: Timestamp) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| runners::promote(connection, key, &token_sha256, now)).await
    }

    /// Forgets a runner; what it holds is lost.
    pub(crate) async fn remove_runner(
        &self,
        name: String,
        reason: String,
        note: Note,
        now: Timestamp,
    ) -> Result<Vec<Fate>, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                marks.replan = true;
                let fates = runners::remove(connection, &name, &reason, now)?;
                audit::record(connection, &note, &Ended::Ok, now)?;
                Ok(fates)
            })
            .await
    }

    /// Lets a runner take nothing new, or again.
    pub(crate) async fn set_draining(
        &self,
        name: String,
        draining: bool,
        note: Note,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, marks| {
                marks.replan = true;
                runners::set_draining(connection, &name, draining, now)?;
                audit::record(connection, &note, &Ended::Ok, now)
            })
            .await
    }

    /// Stores what runners said last.
    pub(crate) async fn store_contacts(&self, contacts: Vec<ContactRow>) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| runners::store_contacts(connection, &contacts)).await
    }

    /// Ends the turn of one-off runners that got no task; answers with their names.
    pub(crate) async fn end_unused_runners(
        &self,
        silent_before: Timestamp,
        wait_ms: impl Fn(&str) -> u64 + Send + 'static,
        is_away: impl Fn(&str) -> bool + Send + 'static,
        now: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        self.writer
            .execute(move |connection, _marks| runners::end_unused(connection, silent_before, wait_ms, is_away, now))
            .await
    }

    /// Forgets runners that are gone for good; `is_away` says whether nobody is heard of under a name.
    pub(crate) async fn expire_runners(
        &self,
        one_off_before: Timestamp,
        away_before: Timestamp,
        declared: Vec<String>,
        is_away: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                runners::expire(connection, one_off_before, away_before, &declared, is_away)
            })
            .await
    }

    /// Forgets some of the history beyond `keep`; no task when all is done.
    pub(crate) async fn forget_tasks(&self, keep: Keep) -> Result<retain::Forgotten, StoreError> {
        let numbers = self.readers.read(move |connection| retain::beyond(connection, &keep)).await?;
        if numbers.is_empty() {
            return Ok(retain::Forgotten::default());
        }
        self.writer.execute(move |connection, _marks| retain::forget_tasks(connection, &numbers)).await
    }

    /// Forgets what nothing refers to, and what is over.
    pub(crate) async fn sweep(&self, keys_before: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                sessions::sweep(connection, now)?;
                retain::sweep(connection, keys_before)
            })
            .await
    }

    /// Forgets some of the old deliveries and events; answers whether there may be more.
    pub(crate) async fn forget_told(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .execute(move |connection, _marks| Ok(deliveries::forget(connection, now)? | events::forget(connection)?))
            .await
    }

    /// The oldest deliveries that are due for each target but those that are `supplied`, at most `limit` of each; and when the next is, that
    /// is not due yet.
    pub(crate) async fn due(
        &self,
        now: Timestamp,
        supplied: HashSet<String>,
        limit: u32,
    ) -> Result<(Vec<DueOfTarget>, Option<Timestamp>), StoreError> {
        self.readers
            .read(move |connection| {
                let mut found = Vec::new();
                for target in deliveries::targets_due(connection, now)? {
                    if !supplied.contains(&target) {
                        let numbers = deliveries::due(connection, &target, now, limit)?;
                        found.push(DueOfTarget { target, numbers });
                    }
                }
                Ok((found, deliveries::next_moment(connection, now)?))
            })
            .await
    }

    /// Writes down what a try of a delivery came to, if it was tried so often before.
    pub(crate) async fn tried(
        &self,
        number: i64,
        tries: Option<u32>,
        came: Came,
        exchanges: String,
        now: Timestamp,
    ) -> Result<Kept, StoreError> {
        self.writer
            .execute(move |connection, _marks| deliveries::tried(connection, number, tries, &came, &exchanges, now))
            .await
    }

    /// Records an event for one target, and answers with the delivery's id.
    pub(crate) async fn record_one(&self, event: NewEvent, note: Note) -> Result<Option<String>, StoreError> {
        let recorded = self.writer.execute(move |connection, _marks| {
            events::record(connection, &event)?;
            let number = connection.last_insert_rowid();
            audit::record(connection, &note, &Ended::Ok, event.at)?;
            Ok(number)
        });
        let event = recorded.await?;
        // It was put out with the operation itself.
        self.readers.read(move |connection| deliveries::of_event(connection, event)).await
    }

    /// What waits and could go now.
    pub(crate) async fn waiting(&self, now: Timestamp) -> Result<Vec<WaitingGroup>, StoreError> {
        self.readers.read(move |connection| news::waiting(connection, now)).await
    }

    /// Tells targets that a task waits.
    pub(crate) async fn tell_waiting(
        &self,
        number: u64,
        targets: Vec<String>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| news::tell_waiting(connection, number, &targets, now)).await
    }

    /// Every registered runner, and what was last told of it.
    pub(crate) async fn runners_told(&self, now: Timestamp) -> Result<Vec<RunnerTold>, StoreError> {
        self.readers.read(move |connection| news::runners(connection, now)).await
    }

    /// Has something told of a runner.
    pub(crate) async fn tell_runner(
        &self,
        (key, name): (i64, String),
        news: RunnerNews,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| news::tell_runner(connection, (key, &name), &news, now)).await
    }

    /// A delivery, if it is still to be sent; one that says what is true no more is ended.
    pub(crate) async fn still_due(&self, number: i64, now: Timestamp) -> Result<Option<Due>, StoreError> {
        match self.readers.read(move |connection| deliveries::still_due(connection, number)).await? {
            Still::Due(due) => Ok(Some(due)),
            Still::Ended => Ok(None),
            Still::Untrue(why) => {
                let came = Came::Ended { state: forge_api::DeliveryState::Skipped, message: Some(why.to_owned()) };
                self.tried(number, None, came, "[]".to_owned(), now).await?;
                Ok(None)
            }
        }
    }

    /// Writes down a request to an integration.
    pub(crate) async fn record_request(
        &self,
        project: String,
        integration: String,
        request: forge_api::IntegrationRequest,
    ) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| integrations::record(connection, &project, &integration, &request))
            .await
    }

    /// The newest requests to an integration.
    pub(crate) async fn integration_requests(
        &self,
        project: String,
        integration: String,
    ) -> Result<Vec<forge_api::IntegrationRequest>, StoreError> {
        self.readers.read(move |connection| integrations::newest(connection, &project, &integration)).await
    }

    /// Every schedule that was ever looked at.
    pub(crate) async fn schedules(&self) -> Result<BTreeMap<ScheduleKey, ScheduleRow>, StoreError> {
        self.readers.read(schedules::all).await
    }

    /// Begins to look at a schedule, or at what it means by now.
    pub(crate) async fn begin_schedule(
        &self,
        key: ScheduleKey,
        meaning: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| schedules::begin(connection, &key, &meaning, now)).await
    }

    /// Forgets a schedule that the tree has not any more.
    pub(crate) async fn forget_schedule(&self, key: ScheduleKey) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| schedules::forget(connection, &key)).await
    }

    /// Fires a schedule.
    pub(crate) async fn fire(&self, new: NewFiring, now: Timestamp) -> Result<Fired, StoreError> {
        self.writer
            .execute(move |connection, marks| {
                let fired = schedules::fire(connection, &new, now)?;
                marks.replan |= matches!(fired, Fired::Made(..));
                Ok(fired)
            })
            .await
    }

    /// Has a delivery sent once more.
    pub(crate) async fn redeliver(&self, id: String, note: Note, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .execute(move |connection, _marks| {
                deliveries::redeliver(connection, &id, now)?;
                audit::record(connection, &note, &Ended::Ok, now)
            })
            .await
    }

    /// Deliveries, newest first, with their numbers.
    pub(crate) async fn deliveries(
        &self,
        listing: DeliveryListing,
    ) -> Result<Vec<(i64, forge_api::WebhookDelivery)>, StoreError> {
        self.readers.read(move |connection| deliveries::list(connection, &listing)).await
    }

    /// One delivery.
    pub(crate) async fn delivery(&self, id: String) -> Result<Option<forge_api::WebhookDelivery>, StoreError> {
        self.readers.read(move |connection| deliveries::show(connection, &id)).await
    }

    /// How many deliveries of each target stand in each state.
    pub(crate) async fn delivery_counts(
        &self,
    ) -> Result<BTreeMap<String, BTreeMap<forge_api::DeliveryState, u64>>, StoreError> {
        self.readers.read(deliveries::counts).await
    }

    /// Since when the oldest delivery waits.
    pub(crate) async fn oldest_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        self.readers.read(deliveries::oldest_waiting).await
    }

    /// Lets the database have so many pages at most: a disk of that size, for a test of what happens when it is full.
    pub(crate) async fn limit_pages(&self, pages_max: u32) -> Result<(), StoreError> {
        let limit = move |connection: &rusqlite::Connection, _: &mut transaction::Marks| {
            Ok(connection.pragma_update_and_check(None, "max_page_count", pages_max, |_row| Ok(()))?)
        };
        self.writer.execute(limit).await
    }

    /// Keeps what is known of an attempt's log.
    pub(crate) async fn set_log_state(&self, id: AttemptId, state: LogState, resends: u32) -> Result<(), StoreError> {
        self.writer.execute(move |connection, _marks| retain::set_log_state(connection, id, state, resends)).await
    }

    /// One task.
    pub(crate) async fn task(&self, number: u64) -> Result<Option<Task>, StoreError> {
        self.readers.read(move |connection| queries::task(connection, number)).await
    }

    /// Tasks, newest first.
    pub(crate) async fn tasks(&self, listing: Listing) -> Result<Vec<Task>, StoreError> {
        self.readers.read(move |connection| queries::tasks(connection, &listing)).await
    }

    /// How many tasks stand in each state.
    pub(crate) async fn counts(&self) -> Result<BTreeMap<TaskState, u64>, StoreError> {
        self.readers.read(queries::counts).await
    }

    /// Since when the oldest task waits that only lacks a runner.
    pub(crate) async fn oldest_ready(
        &self,
        projects: BTreeMap<String, ProjectFacts>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.readers.read(move |connection| queries::oldest_ready(connection, &projects, now)).await
    }

    /// What the writer did since the start.
    pub(crate) fn writer_stats(&self) -> &WriterStats {
        self.writer.stats()
    }

    /// What `why` reads of those of these tasks that exist, in their order.
    pub(crate) async fn circumstances(
        &self,
        numbers: Vec<u64>,
        now: Timestamp,
    ) -> Result<Vec<Circumstances>, StoreError> {
        self.readers.read(move |connection| queries::circumstances(connection, &numbers, now)).await
    }

    /// Makes something of what those of the attempts need that are still live, on a thread that may block.
    pub(crate) async fn with_deliveries<T: Send + 'static>(
        &self,
        ids: Vec<AttemptId>,
        make: impl Fn(AttemptId, Delivery) -> T + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        let read = move |connection: &rusqlite::Connection| {
            let found = ids.into_iter().filter_map(|id| match queries::delivery(connection, id) {
                Ok(found) => found.map(|delivery| Ok((id, delivery))),
                Err(error) => Some(Err(error)),
            });
            found.collect::<Result<Vec<_>, _>>()
        };
        let make_all = move |found: Vec<_>| found.into_iter().map(|(id, delivery)| make(id, delivery)).collect();
        self.readers.read_then(read, make_all).await
    }

    /// What an approved attempt is to go on with, while it is live.
    pub(crate) async fn resume(&self, id: AttemptId) -> Result<Option<Carry>, StoreError> {
        let found = move |connection: &rusqlite::Connection| queries::delivery(connection, id);
        Ok(self.readers.read(found).await?.and_then(|delivery| delivery.resume))
    }

    /// One attempt.
    pub(crate) async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptView>, StoreError> {
        self.readers.read(move |connection| queries::attempt(connection, id)).await
    }

    /// What a runner holds.
    pub(crate) async fn held(&self, runner: String) -> Result<Vec<Held>, StoreError> {
        self.readers.read(move |connection| runners::held(connection, &runner)).await
    }

    /// The runner of a token, and whether the token is a new one.
    pub(crate) async fn runner_by_token(
        &self,
        token_sha256: [u8; 32],
    ) -> Result<Option<(Registration, bool)>, StoreError> {
        self.readers.read(move |connection| runners::by_token(connection, &token_sha256)).await
    }

    /// The runner of a name.
    pub(crate) async fn runner_by_name(&self, name: String) -> Result<Option<Registration>, StoreError> {
        self.readers.read(move |connection| runners::by_name(connection, &name)).await
    }

    /// All registered runners and what runs.
    pub(crate) async fn runners(&self) -> Result<(Vec<Registration>, Vec<crate::scheduler::assign::Live>), StoreError> {
        self.readers.read(|connection| Ok((runners::all(connection)?, plan::live(connection)?))).await
    }

    /// Whether an open task names the component.
    pub(crate) async fn open_task_uses_plugin(&self, sha256: String) -> Result<bool, StoreError> {
        self.readers.read(move |connection| queries::open_task_uses_plugin(connection, &sha256)).await
    }

    /// The name and the digest of the plugin that a task runs.
    pub(crate) async fn plugin_of_task(&self, number: u64) -> Result<Option<(String, String)>, StoreError> {
        self.readers.read(move |connection| queries::plugin_of_task(connection, number)).await
    }

    /// Whether a task was made with secret answers that are gone now.
    pub(crate) async fn secret_answers_gone(&self, number: u64) -> Result<bool, StoreError> {
        self.readers.read(move |connection| queries::secret_answers_gone(connection, number)).await
    }

    /// Which templates have history.
    pub(crate) async fn templates_with_history(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.readers.read(queries::templates_with_history).await
    }
}
