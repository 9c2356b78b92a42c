//! The one writer: a thread that takes operations in turn, many to a transaction, and answers after the commit; or none, for a simulation.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::transaction::{Marks, Operation, Planner, Transactions, Typed, WriterStats};
use super::{StoreError, open};

/// The most operations of one transaction.
const BATCH_OPERATIONS_MAX: usize = 1_024;

/// The most operations that wait for the writer; beyond it callers wait.
const QUEUE_OPERATIONS_MAX: usize = 8_192;

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Writer {
    way: Way,
    stats: Arc<WriterStats>,
}

#[derive(Clone)]
enum Way {
    /// To a thread of its own.
    Thread(mpsc::Sender<Box<dyn Operation>>),
    /// None: who asks does it, one operation a transaction. Nothing then depends on which thread is faster.
    Here(Arc<Mutex<Option<Here>>>),
}

/// A writer without a thread, with what it keeps for as long as it writes.
struct Here {
    transactions: Transactions,
    _lock: open::FolderLock,
}

/// The writer's thread; joined at drain.
pub(crate) struct WriterThread(Joined);

enum Joined {
    Thread {
        operations: mpsc::WeakSender<Box<dyn Operation>>,
        stop: Arc<AtomicBool>,
        thread: JoinHandle<()>,
        checkpointer: JoinHandle<()>,
    },
    Here(Arc<Mutex<Option<Here>>>),
}

impl std::fmt::Debug for WriterThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriterThread")
    }
}

impl WriterThread {
    /// Has everything written that was asked for until now, closes the store and waits for it; it blocks.
    pub(crate) fn join(self) {
        let (operations, stop, thread, checkpointer) = match self.0 {
            Joined::Thread { operations, stop, thread, checkpointer } => (operations, stop, thread, checkpointer),
            Joined::Here(here) => {
                drop(whole(&here).take());
                return;
            }
        };
        stop.store(true, Ordering::SeqCst);
        if let Some(operations) = operations.upgrade() {
            let (reply, _answer) = oneshot::channel();
            let work = |_: &Connection, _: &mut Marks| Ok(());
            // It only wakes the writer; one that is gone already needs no waking.
            let _woken = operations.blocking_send(Box::new(Typed::new(work, reply)));
        }
        // A panic of theirs has been reported by the panic hook already.
        let _writer = thread.join();
        let _checkpointer = checkpointer.join();
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
        let stats = Arc::new(WriterStats::new());
        let mut transactions = Transactions::new(connection, planner, Arc::clone(&stats));
        let thread = std::thread::Builder::new()
            .name("forge-store".to_owned())
            .spawn(move || {
                let _lock = lock;
                write_all(&mut transactions, queue, &due, &stopping);
                drop(transactions);
            })
            .map_err(spawning)?;
        let weak = operations.downgrade();
        let joined = Joined::Thread { operations: weak, stop, thread, checkpointer };
        Ok((Self { way: Way::Thread(operations), stats }, WriterThread(joined)))
    }

    /// Writes without a thread.
    pub(super) fn here(
        connection: Connection,
        planner: Arc<dyn Planner>,
        lock: open::FolderLock,
    ) -> (Self, WriterThread) {
        let stats = Arc::new(WriterStats::new());
        let transactions = Transactions::new(connection, planner, Arc::clone(&stats));
        let here = Arc::new(Mutex::new(Some(Here { transactions, _lock: lock })));
        (Self { way: Way::Here(Arc::clone(&here)), stats }, WriterThread(Joined::Here(here)))
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
        let operation = Box::new(Typed::new(work, reply));
        match &self.way {
            Way::Thread(operations) => operations.send(operation).await.map_err(|_| StoreError::Closed)?,
            Way::Here(here) => {
                let mut here = whole(here);
                let transactions = &mut here.as_mut().ok_or(StoreError::Closed)?.transactions;
                if transactions.make(vec![operation]) {
                    checkpoint(transactions.connection(), "PASSIVE");
                }
            }
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn checkpoint(connection: &Connection, mode: &str) {
    let done = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_row| Ok(()));
    if let Err(error) = done {
        tracing::warn!(%error, "the store's checkpoint failed; it is tried again after the next commits");
    }
}

/// A poisoned lock still holds a good connection: what panics in an operation is caught, and the planner's panic is its own.
fn whole(here: &Mutex<Option<Here>>) -> MutexGuard<'_, Option<Here>> {
    here.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(
    transactions: &mut Transactions,
    mut queue: mpsc::Receiver<Box<dyn Operation>>,
    checkpoint_due: &std::sync::mpsc::SyncSender<()>,
    stopping: &AtomicBool,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_OPERATIONS_MAX {
            match queue.try_recv() {
                Ok(next) => batch.push(next),
                Err(_empty) => break,
            }
        }
        if transactions.make(batch) {
            // One that is due already is enough.
            let _due = checkpoint_due.try_send(());
        }
        if stopping.load(Ordering::SeqCst) && queue.is_empty() {
            break;
        }
    }
}
