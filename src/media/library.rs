//! Sources made ready once per content: in memory, else on disk, else by one decode that all callers share.
//!
//! Locks are held only for map operations. A broken content is remembered too, so that a thousand questions on one broken
//! clip decode it once; a fault of this machine is not, as it may pass.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::memory::Memory;
use super::once::{Once, Recent};
use super::source::{self, Identity};
use super::{Kind, Limits, MediaError, MediaErrorKind, Prepared, Settings, decode, probe};

/// Base64 held for sources that nobody uses at the moment.
const MEMORY_BYTES: usize = 256 << 20;
const REMEMBERED_FILES: usize = 100_000;
const REMEMBERED_FAILURES: usize = 10_000;

pub(crate) type Key = (Arc<str>, Kind);
type Outcome = Result<Arc<Prepared>, MediaError>;

/// How often each way to a prepared source was taken, since the library was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files hashed.
    pub hashed: u64,
    /// ffprobe runs.
    pub probes: u64,
    /// ffmpeg runs.
    pub decodes: u64,
    /// Sources found in memory.
    pub memory_hits: u64,
    /// Sources found in the cache directory.
    pub disk_hits: u64,
}

/// Makes sources ready and shares them. Cheap to clone: clones are the same library.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    settings: Settings,
    limits: Limits,
    cache: Cache,
    slots: Semaphore,
    hashing: Semaphore,
    hashes: Once<Identity, Result<Arc<str>, MediaError>>,
    flights: Once<Key, Outcome>,
    known: Mutex<Recent<Identity, Arc<str>>>,
    failures: Mutex<Recent<Key, MediaError>>,
    memory: Mutex<Memory>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hashed: AtomicU64,
    probes: AtomicU64,
    decodes: AtomicU64,
    memory_hits: AtomicU64,
    disk_hits: AtomicU64,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Library {
    /// A library over `cache_dir`, which is made when it is first needed and may be shared by processes.
    pub fn new(cache_dir: PathBuf, settings: Settings, limits: Limits) -> Self {
        let slots = limits.slots();
        Self(Arc::new(Inner {
            cache: Cache::new(cache_dir, settings.clone()),
            settings,
            limits,
            slots: Semaphore::new(slots),
            hashing: Semaphore::new(slots),
            hashes: Once::new(),
            flights: Once::new(),
            known: Mutex::new(Recent::new(REMEMBERED_FILES)),
            failures: Mutex::new(Recent::new(REMEMBERED_FAILURES)),
            memory: Mutex::new(Memory::new(MEMORY_BYTES)),
            counts: Counts::default(),
        }))
    }

    /// The source at `uri` (a path or a `file:` URI) as a model is shown it.
    ///
    /// Everyone who asks for the same content while it is being prepared shares one preparation. Errors: see
    /// [`MediaErrorKind`]; the message names the file. Cancel safe: a dropped call leaves the others their result, and
    /// the last one dropped ends the child process.
    pub async fn prepare(&self, uri: &str, kind: Kind) -> Outcome {
        self.prepare_unnamed(uri, kind).await.map_err(|error| error.about(&source::display_name(uri)))
    }

    /// How often each way was taken so far.
    pub fn stats(&self) -> Stats {
        let counts = &self.0.counts;
        Stats {
            hashed: counts.hashed.load(Ordering::Relaxed),
            probes: counts.probes.load(Ordering::Relaxed),
            decodes: counts.decodes.load(Ordering::Relaxed),
            memory_hits: counts.memory_hits.load(Ordering::Relaxed),
            disk_hits: counts.disk_hits.load(Ordering::Relaxed),
        }
    }

    async fn prepare_unnamed(&self, uri: &str, kind: Kind) -> Outcome {
        let path = source::locate(uri)?;
        let max_bytes = self.0.limits.max_source_bytes();
        let (file, identity) = blocking(move || source::open(&path, max_bytes)).await?;
        let file = Arc::new(file);
        let sha256 = self.0.clone().digest(&file, &identity).await?;
        let key = (sha256, kind);
        if let Some(prepared) = self.0.remembered(&key) {
            return prepared;
        }
        let inner = &self.0;
        let make = || inner.clone().make(key.clone(), file, identity).boxed();
        inner.flights.run(key.clone(), make).await
    }
}

impl Inner {
    async fn digest(self: Arc<Self>, file: &Arc<File>, identity: &Identity) -> Result<Arc<str>, MediaError> {
        if let Some(known) = lock(&self.known).get(identity) {
            return Ok(known);
        }
        let (inner, file, key) = (self.clone(), file.clone(), identity.clone());
        let work = async move {
            let _slot = acquire(&inner.hashing).await?;
            if let Some(known) = lock(&inner.known).get(&key) {
                return Ok(known);
            }
            inner.counts.hashed.fetch_add(1, Ordering::Relaxed);
            let (sha256, key) = blocking(move || Ok((source::hash(&file, &key)?, key))).await?;
            let sha256: Arc<str> = sha256.into();
            lock(&inner.known).insert(key, sha256.clone());
            Ok(sha256)
        };
        self.hashes.run(identity.clone(), || work.boxed()).await
    }

    /// What is known of a content without touching the disk.
    fn remembered(&self, key: &Key) -> Option<Outcome> {
        if let Some(prepared) = lock(&self.memory).get(key) {
            self.counts.memory_hits.fetch_add(1, Ordering::Relaxed);
            return Some(Ok(prepared));
        }
        lock(&self.failures).get(key).map(Err)
    }

    async fn make(self: Arc<Self>, key: Key, file: Arc<File>, identity: Identity) -> Outcome {
        // It may have been finished between the look at the memory and the start of this flight.
        if let Some(outcome) = self.remembered(&key) {
            return outcome;
        }
        let (inner, (sha256, kind)) = (self.clone(), key.clone());
        if let Some(prepared) = blocking(move || Ok(inner.cache.load(&sha256, kind))).await? {
            self.counts.disk_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(self.keep(key, prepared));
        }
        match self.clone().decode(&key, file, identity).await {
            Ok(prepared) => Ok(self.keep(key, prepared)),
            Err(error) => {
                if error.kind == MediaErrorKind::Invalid {
                    lock(&self.failures).insert(key, error.clone());
                }
                Err(error)
            }
        }
    }

    async fn decode(self: Arc<Self>, key: &Key, file: Arc<File>, identity: Identity) -> Result<Prepared, MediaError> {
        let _slot = acquire(&self.slots).await?;
        let inner = self.clone();
        let workspace = blocking(move || {
            inner.cache.sweep();
            inner.cache.workspace()
        })
        .await?;
        let input = || file.try_clone().map_err(|error| MediaError::worker(format!("cannot share a file: {error}")));
        self.counts.probes.fetch_add(1, Ordering::Relaxed);
        let plan = probe::run(input()?, workspace.path(), key.1, &self.limits).await?;
        self.counts.decodes.fetch_add(1, Ordering::Relaxed);
        let decoded = decode::run(input()?, workspace.path(), &plan, &self.settings, &self.limits).await?;
        let (inner, (sha256, kind)) = (self.clone(), key.clone());
        blocking(move || {
            source::unchanged(&file, &identity)?;
            drop(workspace);
            inner.cache.save(&sha256, kind, &identity, plan.duration, &decoded)
        })
        .await
    }

    fn keep(&self, key: Key, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        lock(&self.memory).insert(key, &prepared);
        prepared
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn acquire(slots: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, MediaError> {
    slots.acquire().await.map_err(|_| MediaError::worker("the media library is closed"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
) -> Result<T, MediaError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(MediaError::worker(format!("file work ended early: {error}"))))
}
