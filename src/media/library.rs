//! Sources made ready once per content: in memory, else on disk, else by one decode that all callers share.
//!
//! Locks are held only for map operations. A broken content is remembered too, so that a thousand questions on one broken
//! clip decode it once; a fault of this machine is not, as it may pass.

mod attempts;
mod clips;
mod decoded;

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::cache::{Cache, Lease, Space};
use super::clip::kept;
use super::memory::Memory;
use super::once::{Once, Recent};
use super::source::{self, Identity, Origin, Place, Remote, Roots, Store};
use super::stats::{Counts, Stats};
use super::{Kind, Limits, MediaError, Prepared, Settings, Wants};
use crate::lock::lock;

/// Base64 held for sources that nobody uses at the moment.
const MEMORY_BYTES: usize = 256 << 20;
const REMEMBERED_FILES: usize = 100_000;
const REMEMBERED_FAILURES: usize = 10_000;

pub(crate) type Key = (Arc<str>, Kind);
type Outcome = Result<Arc<Prepared>, MediaError>;

/// Makes sources ready and shares them. Cheap to clone: clones are the same library.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    settings: Settings,
    wants: Wants,
    limits: Limits,
    roots: Roots,
    /// None: no server is allowed.
    remote: Option<Arc<Remote>>,
    cache: Cache,
    slots: Semaphore,
    hashing: Semaphore,
    hashes: Once<Identity, Result<Arc<str>, MediaError>>,
    flights: Once<Key, Outcome>,
    clip_flights: Once<Key, Result<kept::Kept, MediaError>>,
    clips: Mutex<Recent<Key, kept::Known>>,
    known: kept::Hashed,
    failures: Mutex<Recent<Key, MediaError>>,
    memory: Mutex<Memory>,
    counts: Counts,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Library {
    /// A library over `cache_dir`, which is made when it is first needed and may be shared by processes. It reads every
    /// file of this machine and asks no server.
    pub fn new(cache_dir: PathBuf, settings: Settings, wants: Wants, limits: Limits) -> Self {
        let space = Arc::new(Space::new(cache_dir, limits.cache_bytes, limits.keep_free_bytes));
        Self::assemble(space, settings, wants, limits, (Roots::All, None))
    }

    /// The same with sources of its own. Errors: one sentence, for an `extra_ca_file` that cannot be used.
    pub fn with_store(
        cache_dir: PathBuf,
        settings: Settings,
        wants: Wants,
        limits: Limits,
        store: Store,
    ) -> Result<Self, String> {
        let space = Arc::new(Space::new(cache_dir, limits.cache_bytes, limits.keep_free_bytes));
        let roots = Roots::of(&store.allow);
        let remote = if source::any_remote(&store.allow) {
            Some(Arc::new(Remote::new(store, limits.max_source_bytes(), Arc::clone(&space))?))
        } else {
            None
        };
        Ok(Self::assemble(space, settings, wants, limits, (roots, remote)))
    }

    fn assemble(
        space: Arc<Space>,
        settings: Settings,
        wants: Wants,
        limits: Limits,
        (roots, remote): (Roots, Option<Arc<Remote>>),
    ) -> Self {
        let slots = limits.slots();
        Self(Arc::new(Inner {
            cache: Cache::new(space, settings.clone(), wants),
            roots,
            remote,
            settings,
            wants,
            limits,
            slots: Semaphore::new(slots),
            hashing: Semaphore::new(slots),
            hashes: Once::new(),
            flights: Once::new(),
            clip_flights: Once::new(),
            clips: Mutex::new(Recent::new(REMEMBERED_FILES)),
            known: Mutex::new(Recent::new(REMEMBERED_FILES)),
            failures: Mutex::new(Recent::new(REMEMBERED_FAILURES)),
            memory: Mutex::new(Memory::new(MEMORY_BYTES)),
            counts: Counts::default(),
        }))
    }

    /// The source at `uri` (a path, a `file:`, an `https:` or an `s3:` URI) as a model is shown it.
    ///
    /// Everyone who asks for the same content while it is being prepared shares one preparation. Errors: see
    /// [`MediaErrorKind`](super::MediaErrorKind); the message names the file. Cancel safe: a dropped call leaves the others
    /// their result, and the last one dropped ends the child process.
    pub async fn prepare(&self, uri: &str, kind: Kind) -> Outcome {
        self.prepare_unnamed(uri, kind).await.map_err(|error| error.about(&source::display_name(uri)))
    }

    /// How often each way was taken so far.
    pub fn stats(&self) -> Stats {
        let fetched = self.0.remote.as_ref().map_or_else(Stats::default, |remote| remote.stats());
        self.0.counts.stats(fetched)
    }

    async fn prepare_unnamed(&self, uri: &str, kind: Kind) -> Outcome {
        let inner = &self.0;
        let (sha256, from) = match source::locate(uri)? {
            Place::Local(path) => {
                let max_bytes = inner.limits.max_source_bytes();
                let opener = inner.clone();
                let (file, identity) = blocking(move || source::open(&path, &opener.roots, max_bytes)).await?;
                let file = Arc::new(file);
                (inner.clone().digest(&file, &identity).await?, From::Open(Source { file, identity, lease: None }))
            }
            Place::Remote(origin) => {
                let Some(remote) = inner.remote.clone() else { return Err(source::refused(&origin)) };
                (remote.digest(&origin).await?, From::Remote(remote, origin))
            }
        };
        if !inner.wants.clip || kind == Kind::Audio {
            let kind = if kind == Kind::Silent { Kind::Video } else { kind };
            return inner.decoded((sha256, kind), from).await;
        }
        let source = inner.open(&sha256, from).await?;
        let (clip, source_ms) = inner.clip((sha256.clone(), kind), &source, uri).await?;
        let shown = if inner.wants.frames || inner.wants.sound {
            (*inner.decoded((sha256, Kind::Video), From::Open(source)).await?).clone()
        } else {
            let (sha256, bytes, duration_ms) = (sha256.to_string(), source.identity.bytes, Some(source_ms));
            Prepared { sha256, bytes, duration_ms, frames: Vec::new(), sound: None, clip: None }
        };
        Ok(Arc::new(Prepared { clip: Some(clip), ..shown }))
    }
}

/// Where the bytes of a content come from.
enum From {
    Open(Source),
    Remote(Arc<Remote>, Origin),
}

/// An open source.
#[derive(Clone)]
struct Source {
    file: Arc<File>,
    identity: Identity,
    /// Keeps what was fetched in the cache.
    lease: Option<Arc<Lease>>,
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

    /// How long another process may take to make one entry: its queue is no part of it, nor is a download. A clip takes the
    /// most children, six one after the other (read, copied, encoded twice, and what was made read again), and begins once more
    /// after a kill and once after a full disk.
    fn patience(&self) -> Duration {
        (self.limits.probe_timeout() + self.limits.prepare_timeout()) * 18
    }

    /// The content, open. What was fetched by another process is checked before it is trusted.
    async fn open(self: &Arc<Self>, sha256: &Arc<str>, from: From) -> Result<Source, MediaError> {
        let (remote, origin) = match from {
            From::Open(source) => return Ok(source),
            From::Remote(remote, origin) => (remote, origin),
        };
        for _ in 0..2 {
            let fetched = remote.open(&origin, sha256).await?;
            let (file, identity) = (Arc::new(fetched.file), fetched.identity);
            if fetched.verified || self.clone().digest(&file, &identity).await? == *sha256 {
                return Ok(Source { file, identity, lease: Some(Arc::new(fetched.lease)) });
            }
            let (remote, sha256) = (remote.clone(), sha256.clone());
            blocking(move || {
                remote.discard(&sha256);
                Ok(())
            })
            .await?;
        }
        Err(self.cache.space().damaged())
    }
}

pub(crate) async fn acquire(slots: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, MediaError> {
    slots.acquire().await.map_err(|_| MediaError::worker("the media library is closed"))
}

/// File work on a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
) -> Result<T, MediaError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(MediaError::worker(format!("file work ended early: {error}"))))
}
