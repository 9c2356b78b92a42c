//! Transactions: many operations in one, each of which can fail alone, and the planner's turn at the end.
//!
//! At the end of each batch that changed what could run, the [`Planner`] gives waiting tasks to runners that ask, in the same
//! transaction: creating a task and assigning it, or finishing one and assigning the next, costs one commit.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forge_api::AttemptId;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Assigned, Delivery, StoreError, Teller, outbox, plan, queries};
use crate::histogram::{self, Histogram};

/// A checkpoint is asked for after this many commits.
const COMMITS_PER_CHECKPOINT: u64 = 256;

/// A transaction that gives away no more attempts than this has their jobs made ready while it is being committed. It is the first to read
/// what they are made of, which more of them would have everybody wait for.
const FORETOLD_MAX: usize = 4;

/// Those who are to hear that a transaction is committed, by runner; dropped, they hear that it is not.
pub(crate) type ToldWhenCommitted = BTreeMap<String, oneshot::Sender<()>>;

/// Who decides which waiting task goes to which runner.
pub(crate) trait Planner: Teller + Send + Sync + 'static {
    /// How many tasks could be given away right now; 0 spares the store the question.
    fn free_slots(&self) -> u32;
    /// Whether the configuration has a project of this name.
    fn declares(&self, project: &str) -> bool;
    /// Chooses; it must not block on anything that waits for the store.
    fn plan(&self, facts: plan::QueueFacts) -> plan::Plan;
    /// A runner that was chosen is registered no more, or takes nothing more: its claim is no longer to be counted on.
    fn outdated(&self, runner: &str);
    /// A runner's claim may make these ready. They are stored, and not for good yet: it gives nothing out before it is told so. `None` when
    /// it does not wait any more.
    fn foretell(&self, _runner: &str, _deliveries: Vec<(AttemptId, Delivery)>) -> Option<oneshot::Sender<()>> {
        None
    }
    /// The choices are stored for good; `foretold` were told of theirs before.
    fn committed(&self, assigned: Vec<Assigned>, foretold: ToldWhenCommitted);
    /// This moment.
    fn now(&self) -> forge_api::Timestamp;
}

/// Whom a batch tells of what happens in it.
struct Telling {
    /// Whether there is anybody; `None` while nobody knows.
    tells: Option<bool>,
    /// The same as the store knows it.
    told: Option<bool>,
    /// Whether deliveries were made.
    any: bool,
}

/// What an operation says about itself beside its answer.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Set when more could run now than before.
    pub(super) replan: bool,
}

/// What is done in a transaction beside others.
pub(super) trait Operation: Send {
    fn run(&mut self, connection: &Connection, marks: &mut Marks);
    fn succeeded(&self) -> bool;
    /// Why it failed.
    fn failure(&self) -> Option<&StoreError>;
    /// It is taken back, for this.
    fn refuse(&mut self, error: StoreError);
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

/// One with its answer.
pub(super) struct Typed<T, F> {
    work: Option<F>,
    value: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Typed<T, F> {
    /// What does `work` and answers to `reply`.
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), value: None, reply }
    }
}

impl<T, F> Operation for Typed<T, F>
where
    T: Send,
    F: FnOnce(&Connection, &mut Marks) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, connection: &Connection, marks: &mut Marks) {
        // One that panics is refused like one that fails: a dead writer would be a dead daemon. The hook has reported it.
        self.value = self.work.take().map(|work| {
            let worked = std::panic::catch_unwind(AssertUnwindSafe(|| work(connection, marks)));
            worked.unwrap_or(Err(StoreError::Panicked))
        });
    }

    fn succeeded(&self) -> bool {
        matches!(self.value, Some(Ok(_)))
    }

    fn failure(&self) -> Option<&StoreError> {
        self.value.as_ref().and_then(|value| value.as_ref().err())
    }

    fn refuse(&mut self, error: StoreError) {
        self.value = Some(Err(error));
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let answer = match (self.value, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Ok(_)), Err(error)) => Err(StoreError::Commit(error)),
            (Some(Err(error)), _) => Err(error),
            (None, _) => Err(StoreError::Closed),
        };
        // A caller that hung up needs no answer; what it asked for is done all the same.
        let _caller = self.reply.send(answer);
    }
}

/// What the writer did since the start, for metrics.
#[derive(Debug)]
pub(crate) struct WriterStats {
    /// How many operations shared each commit.
    pub(crate) batches: Histogram,
    /// How long each transaction took, in microseconds.
    pub(crate) times: Histogram,
    /// Transactions that could not be committed.
    pub(crate) failures: AtomicU64,
}

impl WriterStats {
    pub(super) fn new() -> Self {
        Self {
            batches: Histogram::new(histogram::BATCH),
            times: Histogram::new(histogram::MICROS),
            failures: AtomicU64::new(0),
        }
    }
}

/// Makes transactions of operations, one after the other.
pub(super) struct Transactions {
    connection: Connection,
    planner: Arc<dyn Planner>,
    stats: Arc<WriterStats>,
    replan: bool,
    told: Option<bool>,
    made: u64,
}

impl Transactions {
    pub(super) fn new(connection: Connection, planner: Arc<dyn Planner>, stats: Arc<WriterStats>) -> Self {
        Self { connection, planner, stats, replan: false, told: None, made: 0 }
    }

    /// Makes one of all of these, and answers them; whether a checkpoint is due.
    pub(super) fn make(&mut self, mut batch: Vec<Box<dyn Operation>>) -> bool {
        let planner = &*self.planner;
        let mut marks = Marks { replan: self.replan };
        let mut telling = Telling { tells: planner.tells(), told: self.told, any: false };
        let began = Instant::now();
        let outcome = transact(&self.connection, &mut batch, &mut marks, &mut telling, planner);
        self.stats.times.time(began.elapsed());
        self.stats.batches.count(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let (committed, assigned, foretold) = match outcome {
            Ok((assigned, foretold)) => {
                self.told = telling.tells.or(self.told);
                (Ok(()), assigned, foretold)
            }
            Err(error) => {
                telling.any = false;
                tracing::error!(%error, operations = batch.len(), "the store could not commit");
                self.stats.failures.fetch_add(1, Ordering::Relaxed);
                (Err(Arc::new(error)), Vec::new(), ToldWhenCommitted::new())
            }
        };
        // A pass that gave something away may have looked at the head of a long queue only: the next batch looks again.
        self.replan = !assigned.is_empty();
        if !assigned.is_empty() {
            planner.committed(assigned, foretold);
        }
        for operation in batch {
            operation.answer(committed.clone());
        }
        if telling.any {
            planner.put_out();
        }
        self.made += 1;
        self.made.is_multiple_of(COMMITS_PER_CHECKPOINT)
    }

    /// What they are made on.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn transact(
    connection: &Connection,
    batch: &mut [Box<dyn Operation>],
    marks: &mut Marks,
    telling: &mut Telling,
    planner: &dyn Planner,
) -> Result<(Vec<Assigned>, ToldWhenCommitted), rusqlite::Error> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = (|| {
        if let Some(tells) = telling.tells
            && telling.told != Some(tells)
        {
            outbox::set_tells(connection, tells)?;
        }
        for operation in batch.iter_mut() {
            run_one(connection, operation, marks, telling, planner)?;
        }
        if marks.replan && planner.free_slots() > 0 { assign(connection, planner) } else { Ok(Vec::new()) }
    })();
    let committed = done.and_then(|assigned| {
        let foretold = foretell(connection, planner, &assigned);
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok((assigned, foretold))
    });
    match committed {
        Ok(done) => Ok(done),
        Err(error) => {
            // SQLite itself may have: there is none any more then.
            if !connection.is_autocommit()
                && let Err(rollback) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(error = %rollback, "the store could not roll back");
            }
            Err(error)
        }
    }
}

/// The planner's turn, in a savepoint too: one that panics gives nothing away and takes back nothing of the operations.
fn assign(connection: &Connection, planner: &dyn Planner) -> Result<Vec<Assigned>, rusqlite::Error> {
    connection.prepare_cached("SAVEPOINT assigning")?.execute([])?;
    let planned = std::panic::catch_unwind(AssertUnwindSafe(|| plan::assign(connection, planner)));
    let assigned = match planned {
        Ok(assigned) => assigned?,
        Err(_reported) => {
            connection.prepare_cached("ROLLBACK TO assigning")?.execute([])?;
            Vec::new()
        }
    };
    connection.prepare_cached("RELEASE assigning")?.execute([])?;
    Ok(assigned)
}

/// Tells the claims of few attempts what their jobs are made of: those are sealed while the disk is waited for. What cannot be told now is
/// read when it is committed.
fn foretell(connection: &Connection, planner: &dyn Planner, assigned: &[Assigned]) -> ToldWhenCommitted {
    if assigned.len() > FORETOLD_MAX {
        return ToldWhenCommitted::new();
    }
    let told = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut of_runner: BTreeMap<&str, Vec<(AttemptId, Delivery)>> = BTreeMap::new();
        for Assigned { attempt, runner, .. } in assigned {
            let delivery = queries::delivery(connection, *attempt)?.ok_or(StoreError::Closed)?;
            of_runner.entry(runner).or_default().push((*attempt, delivery));
        }
        let told = of_runner
            .into_iter()
            .filter_map(|(runner, deliveries)| Some((runner.to_owned(), planner.foretell(runner, deliveries)?)));
        Ok::<_, StoreError>(told.collect())
    }));
    told.unwrap_or(Err(StoreError::Panicked)).unwrap_or_else(|error| {
        tracing::warn!(%error, "jobs are not made ready ahead");
        ToldWhenCommitted::new()
    })
}

/// One operation in a savepoint of its own: its failure takes back what it did, and nothing of its neighbours.
fn run_one(
    connection: &Connection,
    operation: &mut Box<dyn Operation>,
    marks: &mut Marks,
    telling: &mut Telling,
    planner: &dyn Planner,
) -> Result<(), rusqlite::Error> {
    connection.prepare_cached("SAVEPOINT operation")?.execute([])?;
    operation.run(connection, marks);
    if !operation.succeeded() {
        if connection.is_autocommit() {
            return Err(taken_back(operation.failure()));
        }
        connection.prepare_cached("ROLLBACK TO operation")?.execute([])?;
    } else if telling.tells == Some(true) {
        // In the same savepoint, and right after it: an event shows its task as it was then.
        let put_out = || outbox::put_out(connection, planner, planner.now());
        let put_out = std::panic::catch_unwind(AssertUnwindSafe(put_out));
        match put_out.map_or(Err(StoreError::Panicked), |put_out| put_out.map_err(StoreError::from)) {
            Ok(any) => telling.any |= any,
            Err(error) => {
                tracing::error!(%error, "what happened could not be put out to webhook targets, and is taken back");
                if connection.is_autocommit() {
                    return Err(taken_back(Some(&error)));
                }
                connection.prepare_cached("ROLLBACK TO operation")?.execute([])?;
                operation.refuse(error);
            }
        }
    }
    connection.prepare_cached("RELEASE operation")?.execute([])?;
    Ok(())
}

/// What the others of a transaction hear that SQLite has taken back as a whole, as it does when the disk is full.
fn taken_back(cause: Option<&StoreError>) -> rusqlite::Error {
    let is_full = cause.is_some_and(StoreError::is_full);
    let code = if is_full { rusqlite::ffi::SQLITE_FULL } else { rusqlite::ffi::SQLITE_IOERR };
    let words = cause.map(|cause| format!("the transaction was taken back: {cause}"));
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), words)
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
