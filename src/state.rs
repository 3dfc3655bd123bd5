//! The one SQLite file of the embedded default: journal, ledger, items and runs.
//!
//! A thread of its own owns the connection. It takes what is waiting, runs it in ONE transaction, makes it durable and
//! only then answers, so that a hundred calls in flight share one fsync and nobody acts on what a crash could undo. An
//! error fails its whole batch: the callers either try again (a reply that was paid for) or do without (a reservation),
//! and both are right for a disk that is full. Reads are no part of a batch and see only what is durable. A pool of connections was rejected, since SQLite has one writer anyway.
//!
//! One process holds a state at a time (`PATH.lock`), which lets claims and quota windows live in memory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS runs (
  run TEXT PRIMARY KEY, directory TEXT NOT NULL, recipe_digest TEXT NOT NULL, recipe TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS items (
  run TEXT NOT NULL, item_id TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (run, item_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (
  key BLOB PRIMARY KEY, role TEXT NOT NULL, item_id TEXT NOT NULL, payer TEXT NOT NULL, request TEXT NOT NULL,
  reply TEXT NOT NULL, cost INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS redirects (
  from_key BLOB NOT NULL, to_key BLOB NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
  PRIMARY KEY (from_key, to_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS replies_by_item ON replies (item_id, role);
CREATE TABLE IF NOT EXISTS calls (
  id INTEGER PRIMARY KEY, run TEXT NOT NULL, account TEXT NOT NULL, sent_at INTEGER NOT NULL, tokens INTEGER NOT NULL,
  bound INTEGER NOT NULL, cost INTEGER NOT NULL, state INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS uploads (
  identity TEXT NOT NULL, credential TEXT NOT NULL, sha256 TEXT NOT NULL, display_name TEXT NOT NULL,
  phase INTEGER NOT NULL, name TEXT, uri TEXT, bytes INTEGER NOT NULL, expires_at INTEGER, since INTEGER NOT NULL,
  last_used INTEGER NOT NULL, PRIMARY KEY (identity, credential, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (account, sent_at);
CREATE INDEX IF NOT EXISTS calls_open ON calls (state) WHERE state = 0;
";

/// Most operations made durable together.
const BATCH: usize = 256;
/// What is said when nobody answers.
const ENDED: &str = "the state's thread has ended";
/// How long a first operation waits for others to share its fsync, which costs more CPU than all else of a call. A model
/// takes a thousand times as long to answer.
const GATHER: Duration = Duration::from_millis(3);

/// Why the state could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds it.
    #[error("{path} is in use by {holder}; wait for it to end, or stop it")]
    Held {
        /// The state file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// It was written by a newer version.
    #[error(
        "{path} has schema {found}, this program knows {known}; use the version of aurelia that wrote it, or another directory"
    )]
    Newer {
        /// The state file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The file system or SQLite failed: full disk, missing rights, a damaged file.
    #[error("{path}: {message}")]
    Failed {
        /// The state file.
        path: PathBuf,
        /// What failed.
        message: String,
    },
}

#[cfg(feature = "fleet")]
impl StateError {
    /// The same for one more who waits.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Failed { path, message } => Self::Failed { path: path.clone(), message: message.clone() },
            other => Self::Failed { path: "state".into(), message: other.to_string() },
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), String>) + Send>;
/// Given no connection, it is not run and fails with its batch.
type Operation = Box<dyn FnOnce(Option<&Connection>) -> (Done, Result<(), String>) + Send>;

/// What waits for the thread.
enum Work {
    /// Part of the next transaction.
    Write(Operation),
    /// Outside of any.
    Read(Box<dyn FnOnce(&Connection) + Send>),
}

/// A handle to the state; the thread ends when the last one is dropped.
pub struct State {
    path: PathBuf,
    operations: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    _lock: Option<File>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({})", self.path.display())
    }
}

impl State {
    /// Opens or makes the state at `path` and holds it for this process alone.
    ///
    /// # Errors
    /// [`StateError::Held`] names the process that has it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |message: String| StateError::Failed { path: path.to_owned(), message };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        }
        let lock = hold(path)?;
        let connection = Connection::open(path).map_err(|e| failed(e.to_string()))?;
        prepare(&connection, path)?;
        Ok(Self::start(path, connection, Some(lock)))
    }

    /// Opens an existing state to look at, beside a process that may be writing it.
    pub fn open_to_read(path: &Path) -> Result<Self, StateError> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = |e: rusqlite::Error| StateError::Failed { path: path.to_owned(), message: e.to_string() };
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
        Ok(Self::start(path, connection, None))
    }

    fn start(path: &Path, connection: Connection, lock: Option<File>) -> Self {
        let (operations, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || serve(&connection, &waiting))
            .map_err(|e| tracing::error!(error = %e, "no thread for the state"))
            .ok();
        Self { path: path.to_owned(), operations: Some(operations), thread, _lock: lock }
    }

    /// Runs `operation` in the next transaction and returns when it is durable.
    ///
    /// Cancel safety: once sent, the operation is carried out whether or not the answer is awaited.
    ///
    /// # Errors
    /// [`StateError::Failed`] when this operation, another of its batch, or the commit failed: nothing was changed.
    pub async fn call<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, answered) = oneshot::channel();
        let operation: Operation = Box::new(move |connection| {
            let not_run = || Err("another operation of its batch failed".to_owned());
            let result = connection.map_or_else(not_run, |c| operation(c).map_err(|e| e.to_string()));
            let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
            let done: Done = Box::new(move |committed| {
                let result = committed.and(result);
                // Nobody listens when the caller was cancelled; what was to be durable is.
                drop(answer.send(result));
            });
            (done, outcome)
        });
        let failed = |message: String| StateError::Failed { path: self.path.clone(), message };
        self.send(Work::Write(operation));
        answered.await.unwrap_or_else(|_| Err(ENDED.to_owned())).map_err(failed)
    }

    /// Runs `operation` in a later transaction; nobody learns how it ended.
    pub fn later(&self, operation: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static) {
        self.send(Work::Write(Box::new(move |connection| {
            let outcome = connection.map_or(Ok(()), |c| operation(c).map_err(|e| e.to_string()));
            let done: Done = Box::new(drop);
            (done, outcome)
        })));
    }

    /// Runs `query` on what is durable. It does not share the fate of what is written beside it: a full disk can be read.
    ///
    /// # Errors
    /// [`StateError::Failed`] when the query failed.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, answered) = oneshot::channel();
        self.send(Work::Read(Box::new(move |connection| {
            // Nobody listens when the caller was cancelled.
            drop(answer.send(query(connection).map_err(|e| e.to_string())));
        })));
        let failed = |message: String| StateError::Failed { path: self.path.clone(), message };
        answered.await.unwrap_or_else(|_| Err(ENDED.to_owned())).map_err(failed)
    }

    /// Work that cannot be sent is dropped, and its answer with it.
    fn send(&self, work: Work) {
        if let Some(operations) = &self.operations {
            drop(operations.send(work));
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        drop(self.operations.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the state's thread panicked");
        }
    }
}

/// Takes the lock beside the state, or says who has it.
pub fn hold(path: &Path) -> Result<File, StateError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let failed = |e: std::io::Error| StateError::Failed { path: PathBuf::from(&lock_path), message: e.to_string() };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            write!(file, "process {} on {}, since {}", std::process::id(), host.trim(), jiff::Timestamp::now())
                .map_err(failed)?;
            file.sync_all().map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut holder)).map_err(failed)?;
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
            Err(StateError::Held { path: path.to_owned(), holder })
        }
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

fn prepare(connection: &Connection, path: &Path) -> Result<(), StateError> {
    let failed = |e: rusqlite::Error| StateError::Failed { path: path.to_owned(), message: e.to_string() };
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA_VERSION {
        return Err(StateError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    // FULL: a commit that was answered survives a power cut, not only a kill.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(SCHEMA).map_err(failed)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)
}

fn serve(connection: &Connection, waiting: &mpsc::Receiver<Work>) {
    let (mut commits, mut operations) = (0_u64, 0_u64);
    while let Ok(first) = waiting.recv() {
        let first = match first {
            Work::Read(query) => {
                query(connection);
                continue;
            }
            write @ Work::Write(_) => write,
        };
        std::thread::sleep(GATHER);
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for work in std::iter::once(first).chain(waiting.try_iter().take(BATCH - 1)) {
            match work {
                Work::Write(operation) => writes.push(operation),
                Work::Read(query) => reads.push(query),
            }
        }
        if !writes.is_empty() {
            commits += 1;
            operations += writes.len() as u64;
            transact(connection, writes);
        }
        for query in reads {
            query(connection);
        }
    }
    tracing::debug!(commits, operations, "the state is closed");
}

fn transact(connection: &Connection, writes: Vec<Operation>) {
    let mut done = Vec::new();
    let mut outcome = connection.execute_batch("BEGIN").map_err(|e| e.to_string());
    for operation in writes {
        // A full disk makes SQLite roll back by itself: what ran after it would be committed on its own, and told as failed.
        let (finish, result) = operation(outcome.is_ok().then_some(connection));
        outcome = outcome.and(result);
        done.push(finish);
    }
    let outcome = outcome.and_then(|()| connection.execute_batch("COMMIT").map_err(|e| e.to_string()));
    if outcome.is_err()
        && !connection.is_autocommit()
        && let Err(e) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(error = %e, "the state's transaction could not be rolled back");
    }
    for finish in done {
        finish(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(c: &Connection) -> rusqlite::Result<i64> {
        c.query_row("SELECT count(*) FROM items", [], |r| r.get(0))
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.sqlite");
        let state = State::open(&path).unwrap();
        state.call(|c| c.execute("INSERT INTO items VALUES ('r', 'a', 'd')", [])).await.unwrap();
        drop(state);
        let state = State::open(&path).unwrap();
        assert_eq!(state.call(count).await.unwrap(), 1);
        // A kill loses nothing in any case; that a power cut does not either is for the disk's own word (2: FULL).
        let synchronous = |c: &Connection| c.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0));
        assert_eq!(state.call(synchronous).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_second_holder_is_told_who_has_the_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.sqlite");
        let held = State::open(&path).unwrap();
        let error = State::open(&path).unwrap_err();
        assert!(
            matches!(&error, StateError::Held { holder, .. } if holder.contains(&std::process::id().to_string())),
            "{error}"
        );
        drop(held);
        State::open(&path).unwrap();
    }

    #[tokio::test]
    async fn a_failed_operation_changes_nothing_and_the_next_one_works() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.sqlite")).unwrap();
        let failed = state
            .call(|c| {
                c.execute("INSERT INTO items VALUES ('r', 'a', 'd')", [])?;
                c.execute("INSERT INTO nowhere VALUES (1)", [])
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(state.call(count).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn after_a_failed_operation_nothing_of_its_batch_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.sqlite")).unwrap();
        let (open, closed) = mpsc::channel::<()>();
        let (holds, held) = oneshot::channel();
        // The thread is held until both are waiting, so that they share a batch.
        let hold = state.read(move |_| {
            holds.send(()).ok();
            closed.recv().ok();
            Ok(())
        });
        // What SQLite does of itself when the disk is full.
        let full = state.call(|c| c.execute_batch("ROLLBACK; INSERT INTO nowhere VALUES (1)"));
        let next = state.call(|c| c.execute("INSERT INTO items VALUES ('r', 'a', 'd')", []));
        let release = async {
            tokio::task::yield_now().await;
            open.send(()).unwrap();
        };
        let batch = async {
            held.await.unwrap();
            tokio::join!(full, next, release)
        };
        let (hold, (full, next, ())) = tokio::join!(hold, batch);
        hold.unwrap();
        assert!(full.is_err() && next.is_err());
        assert_eq!(state.read(count).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_read_is_answered_beside_a_write_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.sqlite")).unwrap();
        let (open, closed) = mpsc::channel::<()>();
        // The thread is held until both are waiting, so that they are taken together.
        let hold = state.read(move |_| {
            closed.recv().ok();
            Ok(())
        });
        let fails = state.call(|c| c.execute("INSERT INTO nowhere VALUES (1)", []));
        let release = async {
            tokio::task::yield_now().await;
            open.send(()).unwrap();
        };
        let (held, failed, read, ()) = tokio::join!(hold, fails, state.read(count), release);
        held.unwrap();
        assert!(failed.is_err());
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_read_sees_nothing_that_was_not_committed() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.sqlite")).unwrap();
        let (open, closed) = mpsc::channel::<()>();
        let hold = state.read(move |_| {
            closed.recv().ok();
            Ok(())
        });
        let insert = state.call(|c| c.execute("INSERT INTO items VALUES ('r', 'a', 'd')", []));
        let fails = state.call(|c| c.execute("INSERT INTO nowhere VALUES (1)", []));
        let release = async {
            tokio::task::yield_now().await;
            open.send(()).unwrap();
        };
        let (_, inserted, _, read, ()) = tokio::join!(hold, insert, fails, state.read(count), release);
        assert!(inserted.is_err(), "it shares the batch of the one that failed");
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_state_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.sqlite");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(State::open(&path), Err(StateError::Newer { found: 99, .. })));
    }
}
