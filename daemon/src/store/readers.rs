//! A few read-only connections: what is asked never waits for the writer, and the writer never for what is asked.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{StoreError, open};

/// How many reads run at a time.
const READERS: usize = 4;

/// The connections that are free.
pub(super) struct Readers {
    free: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Whether all is read by who asks.
    reads_here: bool,
}

/// A connection that is lent; it comes back whatever happens to the read.
struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let ended = connection.prepare_cached("ROLLBACK").and_then(|mut statement| statement.execute([]));
            if let Err(error) = ended {
                // There is none to end where BEGIN itself had failed.
                tracing::debug!(%error, "a read's transaction had ended before");
            }
            self.readers.free().push(connection);
        }
    }
}

impl Readers {
    /// Opens them all.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let free = (0..READERS).map(|_| open::open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { free: Mutex::new(free), permits: Arc::new(Semaphore::new(READERS)), reads_here: false })
    }

    /// The same without threads.
    pub(super) fn here(self) -> Self {
        Self { reads_here: true, ..self }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A poisoned lock still holds good connections: a reader's panic changes nothing.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_then(read, |found| found).await
    }

    /// Reads on a thread that may block, and goes on there with what was found, when the connection is free again.
    pub(super) async fn read_then<T: Send + 'static, U: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<U, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        let work = move || Ok(then(readers.read_with(permit, read)?));
        if self.reads_here {
            return work();
        }
        let reading = tokio::task::spawn_blocking(work);
        reading.await.map_err(|_| StoreError::Closed)?
    }

    /// Reads what every request asks: one row by its key, which lies in memory. Another thread would take longer to wake than it takes to
    /// read, so that it is read here; where all connections are lent it waits for one as [`Readers::read`] does.
    pub(super) async fn read_row<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => self.read_with(permit, read),
            Err(_none_is_free) => self.read(read).await,
        }
    }

    /// Reads on this thread. Connection and permit are given back here, the connection first: a caller that hangs up changes nothing.
    fn read_with<T>(
        &self,
        _permit: OwnedSemaphorePermit,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lent = Lent { readers: self, connection: Some(self.free().pop().ok_or(StoreError::Closed)?) };
        let connection = lent.connection.as_ref().ok_or(StoreError::Closed)?;
        connection.prepare_cached("BEGIN")?.execute([])?;
        // What panics has been reported by the panic hook; its connection is as good as before.
        std::panic::catch_unwind(AssertUnwindSafe(|| read(connection))).unwrap_or(Err(StoreError::Panicked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readers(folder: &Path) -> Arc<Readers> {
        let path = open::database_path(folder);
        drop(open::open_writer(&path).expect("a database"));
        Arc::new(Readers::open(&path).expect("opens"))
    }

    fn one(connection: &Connection) -> Result<u32, StoreError> {
        Ok(connection.query_row("SELECT 1", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_read_that_panics_costs_no_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = readers(folder.path());
        for _ in 0..2 * READERS {
            let panicked = readers.read(|_connection| -> Result<u32, StoreError> { panic!("on purpose") }).await;
            assert!(matches!(panicked, Err(StoreError::Panicked)));
        }
        let panicked = readers.read_row(|_connection| -> Result<u32, StoreError> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(StoreError::Panicked)));
        assert_eq!(readers.read(one).await.expect("still reads"), 1);
        assert_eq!(readers.read_row(one).await.expect("still reads"), 1);
        assert_eq!((readers.free().len(), readers.permits.available_permits()), (READERS, READERS));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_hangs_up_takes_no_connection_from_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = readers(folder.path());
        let gate = Arc::new(std::sync::Barrier::new(READERS + 1));
        for _ in 0..READERS {
            let (reading, entered) = (Arc::clone(&gate), Arc::new(tokio::sync::Notify::new()));
            let inside = Arc::clone(&entered);
            let read = readers.read(move |_connection| {
                inside.notify_one();
                reading.wait();
                Ok(())
            });
            tokio::select! {
                _ = read => panic!("it waits at the gate"),
                () = entered.notified() => {}
            }
        }
        let next = tokio::spawn({
            let readers = Arc::clone(&readers);
            async move { (readers.read(one).await, readers.read_row(one).await) }
        });
        let row = tokio::spawn(async move { readers.read_row(one).await });
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(move || gate.wait()).await.expect("the gate opens");
        let next = next.await.expect("no panic");
        assert_eq!((next.0.expect("it waited for a connection"), next.1.expect("one is free")), (1, 1));
        assert_eq!(row.await.expect("no panic").expect("it waited for a connection"), 1);
    }
}
