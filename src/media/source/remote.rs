//! Sources on servers: allowed, resolved once, fetched once, kept by their content.
//!
//! All of it is the same for every protocol; how each is asked is in `way`. A source's content is known by a strong entity tag: another process asks with `If-None-Match`, and an answer of 304 costs no
//! download, even when only the prepared entry is left. Within one process a URL is asked again after [`FRESH`].

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::address::Reach;
use super::answer::{Body, Down, Got};
use super::download;
use super::index::{Index, Known, now_ms};
use super::outage::Outages;
use super::way::Ways;
use super::web::WebUrl;
use super::{Identity, Origin, Roots, Store};
use crate::lock::lock;
use crate::media::cache::{Area, Lease, Making, Space, Turn, note_use};
use crate::media::library::blocking;
use crate::media::once::{Once, Recent};
use crate::media::stats::Stats;
use crate::media::{MediaError, MediaErrorKind};
use crate::retry;

/// A URL is asked for changes no more often.
const FRESH: Duration = Duration::from_mins(10);
const REMEMBERED: usize = 100_000;
/// The content of an entry, beside its manifest.
pub(super) const DATA: &str = "data";
const MANIFEST: &str = "manifest.json";

/// Fetches sources. Shared by all of a library.
pub(crate) struct Remote {
    pub(super) store: Store,
    pub(super) max_bytes: u64,
    pub(super) space: Arc<Space>,
    index: Index,
    swept: std::sync::Once,
    pub(super) ways: Ways,
    slots: Semaphore,
    fresh: Mutex<Recent<String, (Arc<str>, Instant)>>,
    /// What this process has hashed itself.
    hashed: Mutex<Recent<Arc<str>, Identity>>,
    flights: Once<(String, Want), Result<Arc<str>, MediaError>>,
    pub(super) outages: Outages,
    pub(crate) counts: Counts,
}

/// How often each way was taken.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) downloads: AtomicU64,
    pub(crate) unchanged: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What a fetch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Want {
    /// To know which content a URL has.
    Digest,
    /// To have it here.
    Content,
}

/// A fetched source, open. While this lives it stays in the cache.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    /// Whether this process has hashed it.
    pub(crate) verified: bool,
    pub(crate) lease: Lease,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sha256: String,
    bytes: u64,
}

impl Remote {
    /// Errors: an `extra_ca_file` that cannot be used.
    pub(crate) fn new(store: Store, max_bytes: u64, space: Arc<Space>) -> Result<Self, String> {
        let slots = store.downloads.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            ways: Ways::new(&store)?,
            max_bytes,
            index: Index::new(space.root().join("urls")),
            swept: std::sync::Once::new(),
            space,
            slots: Semaphore::new(slots),
            fresh: Mutex::new(Recent::new(REMEMBERED)),
            hashed: Mutex::new(Recent::new(REMEMBERED)),
            flights: Once::new(),
            outages: Outages::new(store.outage, store.policy.max),
            counts: Counts::default(),
            store,
        })
    }

    /// Which content a URL has now, in hex. Everyone who asks at once shares one fetch. Cancel safe.
    pub(crate) async fn digest(self: &Arc<Self>, origin: &Origin) -> Result<Arc<str>, MediaError> {
        self.store.check(origin)?;
        let key = self.ways.key(origin).await?;
        let known = lock(&self.fresh).get(&key);
        if let Some((sha256, _)) = known.filter(|(_, at)| at.elapsed() < FRESH) {
            return Ok(sha256);
        }
        self.shared(origin, Want::Digest).await
    }

    /// The content, open; fetched if it is not here. Cancel safe. Errors: it is another one by now.
    pub(crate) async fn open(self: &Arc<Self>, origin: &Origin, sha256: &Arc<str>) -> Result<Fetched, MediaError> {
        self.store.check(origin)?;
        for _ in 0..3 {
            let (remote, wanted) = (self.clone(), sha256.clone());
            if let Some(fetched) = blocking(move || Ok(remote.kept(&wanted))).await? {
                return Ok(fetched);
            }
            let now = self.shared(origin, Want::Content).await?;
            if now != *sha256 {
                return Err(MediaError::new(MediaErrorKind::Unavailable, "changes on its server while it is read"));
            }
        }
        Err(self.space.too_small())
    }

    /// Removes a content that is not what it was. Blocking.
    pub(crate) fn discard(&self, sha256: &str) {
        drop(fs::remove_file(self.space.place(Area::Sources, sha256).join(MANIFEST)));
    }

    async fn shared(self: &Arc<Self>, origin: &Origin, want: Want) -> Result<Arc<str>, MediaError> {
        let key = self.ways.key(origin).await?;
        let make = || self.clone().fetch(origin.clone(), key.clone(), want).boxed();
        self.flights.run((key.clone(), want), make).await
    }

    async fn fetch(self: Arc<Self>, origin: Origin, key: String, want: Want) -> Result<Arc<str>, MediaError> {
        self.swept.call_once(|| self.index.sweep());
        let (began, mut failing) = (now_ms(), None);
        loop {
            let Down { message, hint } = match self.once(&origin, &key, want, began).await? {
                Ok(sha256) => {
                    lock(&self.fresh).insert(key, (Arc::clone(&sha256), Instant::now()));
                    return Ok(sha256);
                }
                Err(down) => down,
            };
            // Its host may answer others: a source that alone fails has the same patience, and no more.
            let now = Instant::now();
            let left = self.store.outage.saturating_sub(now.duration_since(*failing.get_or_insert(now)));
            let pause = self.outages.pause(&origin.place(), hint, retry::jitter(), now);
            let Some(pause) = pause.filter(|pause| *pause <= left) else {
                return Err(origin.unavailable(&message));
            };
            tracing::debug!(?origin, ?pause, reason = %message, "a source waits for its server");
            tokio::time::sleep(pause).await;
        }
    }

    /// One fetch since `began`, by whoever's turn it is.
    async fn once(
        self: &Arc<Self>,
        origin: &Origin,
        key: &str,
        want: Want,
        began: u64,
    ) -> Result<Result<Arc<str>, Down>, MediaError> {
        let (remote, of) = (self.clone(), key.to_owned());
        // Another process may have asked while this one waited for its turn.
        let look = move || {
            let known = remote.index.read(&of)?;
            let here =
                || want == Want::Digest || Lease::of(&remote.space.place(Area::Sources, &known.sha256)).is_some();
            (known.checked_ms >= began && here()).then_some(known)
        };
        // Another process has its lock for a download alone, and then for what it takes to keep it.
        let patience = self.store.total + self.store.idle;
        match self.space.turn(&format!("url-{key}"), &self.slots, patience, look).await? {
            Turn::Done(known) => Ok(Ok(known.sha256.into())),
            Turn::Mine(making, slot) => self.ask(origin, key, want, making, slot).await,
        }
    }

    async fn ask(
        self: &Arc<Self>,
        origin: &Origin,
        key: &str,
        want: Want,
        making: Making,
        slot: SemaphorePermit<'_>,
    ) -> Result<Result<Arc<str>, Down>, MediaError> {
        // The queue for a slot is over: it is no part of the download's time.
        let deadline = Instant::now() + self.store.total;
        let (remote, of) = (self.clone(), key.to_owned());
        let known = blocking(move || Ok(remote.index.read(&of))).await?.filter(|_| want == Want::Digest);
        let etag = known.as_ref().and_then(|known| known.etag.clone());
        let making = Arc::new(making);
        let got = download::run(self, origin, making.clone(), etag, deadline).await;
        drop(slot);
        let (remote, key) = (self.clone(), key.to_owned());
        match (got?, known) {
            (Got::Unchanged, Some(known)) => {
                self.counts.unchanged.fetch_add(1, Ordering::Relaxed);
                blocking(move || {
                    let known = Known { checked_ms: now_ms(), ..known };
                    remote.index.write(&key, &known);
                    Ok(Ok(known.sha256.into()))
                })
                .await
            }
            (Got::Unchanged, None) => Err(MediaError::worker("an answer of 304 to a request without a tag")),
            (Got::Body(body), _) => {
                self.counts.downloads.fetch_add(1, Ordering::Relaxed);
                blocking(move || remote.keep(&key, &making, body).map(Ok)).await
            }
            (Got::Down(down), _) => Ok(Err(down)),
        }
    }

    /// Puts what was fetched into its place. Blocking.
    fn keep(&self, key: &str, making: &Making, body: Body) -> Result<Arc<str>, MediaError> {
        let Body { sha256, bytes, etag } = body;
        let sha256: Arc<str> = sha256.into();
        let place = self.space.place(Area::Sources, &sha256);
        self.space.with_room(bytes, || {
            let dir = making.entry()?;
            let manifest = serde_json::to_vec(&Manifest { sha256: sha256.to_string(), bytes })?;
            fs::write(dir.join(MANIFEST), manifest)?;
            File::open(dir.join(MANIFEST))?.sync_all()?;
            making.publish(&place)
        })?;
        if let Ok((_, identity)) = super::open(&place.join(DATA), &Roots::All, u64::MAX) {
            lock(&self.hashed).insert(sha256.clone(), identity);
        }
        let known = Known { sha256: sha256.to_string(), bytes, etag, checked_ms: now_ms() };
        self.index.write(key, &known);
        Ok(sha256)
    }

    /// A content that is in the cache. Blocking.
    fn kept(&self, sha256: &Arc<str>) -> Option<Fetched> {
        let dir = self.space.place(Area::Sources, sha256);
        let lease = Lease::of(&dir)?;
        let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        let (file, identity) = super::open(&dir.join(DATA), &Roots::All, u64::MAX).ok()?;
        if manifest.sha256 != **sha256 || manifest.bytes != identity.bytes {
            return None;
        }
        note_use(&dir);
        let verified = lock(&self.hashed).get(sha256).is_some_and(|known| known == identity);
        Some(Fetched { file, identity, verified, lease })
    }

    /// What it did so far; nothing of decoding.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            downloads: self.counts.downloads.load(Ordering::Relaxed),
            unchanged: self.counts.unchanged.load(Ordering::Relaxed),
            downloaded_bytes: self.counts.bytes.load(Ordering::Relaxed),
            ..Stats::default()
        }
    }

    /// Whether a URL is that of a public host, as it is written and as the settings name it.
    pub(crate) fn is_public(&self, url: &WebUrl) -> bool {
        self.store.reach(url) == Reach::Public && url.check_host(Reach::Public).is_ok()
    }
}

/// Where the content of an entry lies.
pub(super) fn data(dir: &Path) -> std::path::PathBuf {
    dir.join(DATA)
}
