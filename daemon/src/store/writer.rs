//! The one writer: a thread that takes operations in turn, many to a transaction, and answers after the commit.
//!
//! At the end of each batch that changed what could run, the [`Planner`] gives waiting tasks to runners that ask, in the same
//! transaction: creating a task and assigning it, or finishing one and assigning the next, costs one commit.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Assigned, StoreError, Teller, open, outbox, plan};
use crate::histogram::{self, Histogram};

/// The most operations of one transaction.
const BATCH_OPERATIONS_MAX: usize = 1_024;

/// The most operations that wait for the writer; beyond it callers wait.
const QUEUE_OPERATIONS_MAX: usize = 8_192;

/// A checkpoint is asked for after this many commits.
const COMMITS_PER_CHECKPOINT: u64 = 256;

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
    /// The choices are stored for good.
    fn committed(&self, assigned: Vec<Assigned>);
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

trait Operation: Send {
    fn run(&mut self, connection: &Connection, marks: &mut Marks);
    fn succeeded(&self) -> bool;
    /// Why it failed.
    fn failure(&self) -> Option<&StoreError>;
    /// It is taken back, for this.
    fn refuse(&mut self, error: StoreError);
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Typed<T, F> {
    work: Option<F>,
    value: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
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

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Writer {
    operations: mpsc::Sender<Box<dyn Operation>>,
    stats: Arc<WriterStats>,
}

/// The writer's thread; joined at drain.
pub(crate) struct WriterThread {
    operations: mpsc::WeakSender<Box<dyn Operation>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
}

impl std::fmt::Debug for WriterThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriterThread")
    }
}

impl WriterThread {
    /// Has everything written that was asked for until now, closes the store and waits for it; it blocks.
    pub(crate) fn join(self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(operations) = self.operations.upgrade() {
            let (reply, _answer) = oneshot::channel();
            let work = |_: &Connection, _: &mut Marks| Ok(());
            // It only wakes the writer; one that is gone already needs no waking.
            let _woken = operations.blocking_send(Box::new(Typed { work: Some(work), value: None, reply }));
        }
        // A panic of theirs has been reported by the panic hook already.
        let _writer = self.thread.join();
        let _checkpointer = self.checkpointer.join();
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        connection: Connection,
        path: PathBuf,
        planner: Arc<dyn Planner>,
        lock: open::FolderLock,
    ) -> Result<(Self, WriterThread), StoreError> {
        let checkpoints = open::open_checkpointer(&path)?;
        let (due, dues) = std::sync::mpsc::sync_channel::<()>(1);
        let spawning = |source| StoreError::Thread { source };
        let checkpointer = std::thread::Builder::new()
            .name("forge-checkpoint".to_owned())
            .spawn(move || {
                while dues.recv().is_ok() {
                    checkpoint(&checkpoints, "PASSIVE");
                }
                checkpoint(&checkpoints, "TRUNCATE");
            })
            .map_err(spawning)?;
        let (operations, queue) = mpsc::channel(QUEUE_OPERATIONS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let stats = Arc::new(WriterStats {
            batches: Histogram::new(histogram::BATCH),
            times: Histogram::new(histogram::MICROS),
            failures: AtomicU64::new(0),
        });
        let counting = Arc::clone(&stats);
        let thread = std::thread::Builder::new()
            .name("forge-store".to_owned())
            .spawn(move || {
                let _lock = lock;
                write_all(&connection, queue, &*planner, &due, &Watch { stopping: &stopping, stats: &counting });
                drop(connection);
            })
            .map_err(spawning)?;
        let weak = operations.downgrade();
        Ok((Self { operations, stats }, WriterThread { operations: weak, stop, thread, checkpointer }))
    }

    /// What the writer did since the start.
    pub(super) fn stats(&self) -> &WriterStats {
        &self.stats
    }

    /// Has `work` done in the writer's next transaction and answers after its commit.
    pub(super) async fn execute<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Marks) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let operation = Box::new(Typed { work: Some(work), value: None, reply });
        self.operations.send(operation).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn checkpoint(connection: &Connection, mode: &str) {
    let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_row| Ok(()));
    if let Err(error) = done {
        tracing::warn!(%error, "the store's checkpoint failed; it is tried again after the next commits");
    }
}

/// What the writer's thread shares with the others.
struct Watch<'a> {
    stopping: &'a AtomicBool,
    stats: &'a WriterStats,
}

fn write_all(
    connection: &Connection,
    mut queue: mpsc::Receiver<Box<dyn Operation>>,
    planner: &dyn Planner,
    checkpoint_due: &std::sync::mpsc::SyncSender<()>,
    watch: &Watch<'_>,
) {
    let mut commits: u64 = 0;
    let mut replan = false;
    let mut told = None;
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_OPERATIONS_MAX {
            match queue.try_recv() {
                Ok(next) => batch.push(next),
                Err(_empty) => break,
            }
        }
        let mut marks = Marks { replan };
        let mut telling = Telling { tells: planner.tells(), told, any: false };
        let began = Instant::now();
        let outcome = transact(connection, &mut batch, &mut marks, &mut telling, planner);
        watch.stats.times.time(began.elapsed());
        watch.stats.batches.count(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let (committed, assigned) = match outcome {
            Ok(assigned) => {
                told = telling.tells.or(told);
                (Ok(()), assigned)
            }
            Err(error) => {
                telling.any = false;
                tracing::error!(%error, operations = batch.len(), "the store could not commit");
                watch.stats.failures.fetch_add(1, Ordering::Relaxed);
                (Err(Arc::new(error)), Vec::new())
            }
        };
        // A pass that gave something away may have looked at the head of a long queue only: the next batch looks again.
        replan = !assigned.is_empty();
        if !assigned.is_empty() {
            planner.committed(assigned);
        }
        for operation in batch {
            operation.answer(committed.clone());
        }
        if telling.any {
            planner.put_out();
        }
        commits += 1;
        if commits.is_multiple_of(COMMITS_PER_CHECKPOINT) {
            // One that is due already is enough.
            let _due = checkpoint_due.try_send(());
        }
        if watch.stopping.load(Ordering::SeqCst) && queue.is_empty() {
            break;
        }
    }
}

fn transact(
    connection: &Connection,
    batch: &mut [Box<dyn Operation>],
    marks: &mut Marks,
    telling: &mut Telling,
    planner: &dyn Planner,
) -> Result<Vec<Assigned>, rusqlite::Error> {
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
    match done.and_then(|assigned| connection.prepare_cached("COMMIT")?.execute([]).map(|_| assigned)) {
        Ok(assigned) => Ok(assigned),
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
mod tests {
    use super::*;
    use crate::store::events::{self, NewEvent};

    /// Panics whenever it is asked.
    struct Panics;

    impl Teller for Panics {}

    impl Planner for Panics {
        fn free_slots(&self) -> u32 {
            1
        }
        fn declares(&self, _project: &str) -> bool {
            true
        }
        fn plan(&self, _facts: plan::QueueFacts) -> plan::Plan {
            panic!("on purpose")
        }
        fn outdated(&self, _runner: &str) {}
        fn committed(&self, _assigned: Vec<Assigned>) {}
        fn now(&self) -> forge_api::Timestamp {
            panic!("on purpose")
        }
    }

    fn start(folder: &std::path::Path, planner: Arc<dyn Planner>) -> (Writer, WriterThread) {
        let lock = open::lock(folder).expect("ours");
        let path = open::database_path(folder);
        let connection = open::open_writer(&path).expect("a database");
        Writer::start(connection, path, planner, lock).expect("starts")
    }

    async fn stop(writer: Writer, thread: WriterThread) {
        drop(writer);
        tokio::task::spawn_blocking(move || thread.join()).await.expect("it ends");
    }

    /// Tells one target of everything but of what it panics over, while it is told that it may.
    #[derive(Default)]
    struct Tells(AtomicBool);

    impl Teller for Tells {
        fn tells(&self) -> Option<bool> {
            self.0.load(Ordering::SeqCst).then_some(true)
        }
        fn targets(&self, tidings: &outbox::Tidings<'_>) -> Vec<String> {
            assert_ne!(tidings.event, "config.failed", "on purpose");
            vec!["ops".to_owned()]
        }
    }

    impl Planner for Tells {
        fn free_slots(&self) -> u32 {
            0
        }
        fn declares(&self, _project: &str) -> bool {
            true
        }
        fn plan(&self, _facts: plan::QueueFacts) -> plan::Plan {
            panic!("there is no slot")
        }
        fn outdated(&self, _runner: &str) {}
        fn committed(&self, _assigned: Vec<Assigned>) {}
        fn now(&self) -> forge_api::Timestamp {
            forge_api::Timestamp::from_unix_micros(7)
        }
    }

    async fn happens(writer: &Writer, event: &'static str) -> Result<(), StoreError> {
        let now = forge_api::Timestamp::from_unix_micros(1);
        let event = NewEvent { event, at: now, body: serde_json::json!({}), runner: None, targets: None };
        writer.execute(move |connection, _marks| events::record(connection, &event)).await
    }

    async fn told(writer: &Writer) -> Vec<String> {
        let told = writer.execute(|connection, _marks| {
            let sql = "SELECT e.event FROM deliveries d JOIN events e ON e.id = d.event ORDER BY d.number";
            let mut statement = connection.prepare(sql)?;
            let found = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(found)
        });
        told.await.expect("read")
    }

    #[tokio::test]
    async fn what_cannot_be_put_out_is_taken_back_and_nothing_of_its_neighbours() {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = Arc::new(Tells::default());
        planner.0.store(true, Ordering::SeqCst);
        let (writer, thread) = start(folder.path(), planner);
        let (first, second, third) = tokio::join!(
            happens(&writer, "config.applied"),
            happens(&writer, "config.failed"),
            happens(&writer, "runner.online")
        );
        assert!(first.is_ok() && third.is_ok());
        assert!(matches!(second, Err(StoreError::Panicked)), "{second:?}");
        assert_eq!(told(&writer).await, ["config.applied", "runner.online"]);
        stop(writer, thread).await;
    }

    #[tokio::test]
    async fn what_happens_while_no_tree_serves_is_told_when_one_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let planner = Arc::new(Tells::default());
        planner.0.store(true, Ordering::SeqCst);
        let (writer, thread) = start(folder.path(), Arc::clone(&planner) as Arc<dyn Planner>);
        happens(&writer, "config.applied").await.expect("kept");
        planner.0.store(false, Ordering::SeqCst);
        happens(&writer, "runner.online").await.expect("kept");
        assert_eq!(told(&writer).await, ["config.applied"], "nobody knows to whom");
        planner.0.store(true, Ordering::SeqCst);
        happens(&writer, "runner.idle").await.expect("kept");
        assert_eq!(told(&writer).await, ["config.applied", "runner.online", "runner.idle"]);
        stop(writer, thread).await;
    }

    #[tokio::test]
    async fn what_panics_in_the_writer_changes_nothing_and_ends_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (writer, thread) = start(folder.path(), Arc::new(Panics));
        let insert = "INSERT INTO registration_uses VALUES (?1, 1)";
        let panicked = writer
            .execute(move |connection, _marks| -> Result<(), StoreError> {
                connection.execute(insert, [vec![1_u8]])?;
                panic!("on purpose")
            })
            .await;
        assert!(matches!(panicked, Err(StoreError::Panicked)));
        let kept = writer.execute(move |connection, marks| {
            marks.replan = true;
            Ok(connection.execute(insert, [vec![2_u8]])?)
        });
        assert_eq!(kept.await.expect("it writes on, and its planner's panic is its own"), 1);
        let count = writer.execute(|connection, _marks| {
            Ok(connection.query_row("SELECT count(*) FROM registration_uses", [], |row| row.get::<_, u32>(0))?)
        });
        assert_eq!(count.await.expect("counts"), 1);
        stop(writer, thread).await;
    }
}
