//! Clips at a provider that keeps files (Gemini's Files API): each uploaded once per credential, found again, given up in time.
//!
//! A handle belongs to the project of one credential, lives two days, and may be gone at any moment; so it is no part of a
//! journal key, and what it names is told by the clip's digest. The [`registry`] in the state says what was uploaded, also to
//! later processes. A row is written before an upload begins, with the name under which the file can be found: a process
//! killed at any point finds what it had uploaded in the provider's list and does not upload it again.
//!
//! All who need one clip wait for one upload ([`Once`]). Files are ours to delete only where the registry has them: a
//! project may hold other people's. What fails is told as what it means for the call ([`NotUploaded`]) and is retried by the
//! caller with its own patience; nothing here waits long but for a file that is being processed, and a stop ends every wait.
//! Rejected: uploading in advance for jobs that wait (it fills the store), and hashes of keys as names of credentials (they
//! would put something derived from a secret into the state): the label is used, as everywhere.

mod flight;
pub(crate) mod registry;
mod room;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::registry::{Key, Registry, Rows};
use crate::media::once::Once;
use crate::media::{Clip, MediaError, MediaErrorKind};
use crate::provider::credentials::Credential;
use crate::provider::gemini::files::{FileState, Files, FilesError, RemoteFile};
use crate::provider::http::Client;
use crate::provider::{Billed, CallError, CallErrorKind, Endpoint};
use crate::quota::NamedLimit;
use crate::state::{State, StateError};

/// Uploads at once: they share the line anyway, and each holds a piece of a file in memory.
const AT_ONCE: usize = 4;

/// Bounds of one provider's uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long a file may be processed before its item fails.
    pub deadline: Duration,
    /// What the provider keeps of one project, in bytes.
    pub storage_bytes: u64,
}

/// All uploads of a process. Clones are the same.
#[derive(Clone)]
pub struct Uploads(Arc<Inner>);

/// By the provider's identity and the clip's digest.
type Broken = HashMap<(Arc<str>, Arc<str>), String>;

struct Inner {
    registry: Registry,
    client: Client,
    /// By the provider's name.
    bounds: BTreeMap<String, Bounds>,
    flights: Once<Key, Result<(), NotUploaded>>,
    slots: Semaphore,
    /// How often there was no room, since there last was.
    refused: AtomicU32,
    told: AtomicBool,
    /// Clips that a provider could not process, with its words.
    broken: Mutex<Broken>,
}

/// Why a clip is not there for a credential.
#[derive(Debug, Clone)]
pub enum NotUploaded {
    /// The clip itself: the provider cannot process it, or its file is not what it was.
    Media(MediaError),
    /// Like a failed call.
    Call(CallError),
    /// Nothing has ever answered there, and the Files API's own attempts are used up.
    Nobody(CallError),
    /// It was uploaded and is not ready in time, or is gone again and again.
    Provider(String),
    /// The run stops.
    Stopped,
}

/// A clip that a call needs at a provider. While there is one, its file is not deleted to make room.
pub struct Use {
    inner: Arc<Inner>,
    key: Key,
    clip: Arc<Clip>,
}

/// Where a file goes, with which key.
#[derive(Debug, Clone)]
struct Place {
    endpoint: Endpoint,
    credential: Credential,
    bounds: Bounds,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Uploads")
    }
}

impl Uploads {
    /// The uploads that `state` knows of. `bounds`: by the provider's name.
    pub async fn open(state: Arc<State>, client: Client, bounds: BTreeMap<String, Bounds>) -> Result<Self, StateError> {
        Self::over(Rows::Embedded(state), client, bounds).await
    }

    /// The uploads of a fleet.
    #[cfg(feature = "fleet")]
    pub async fn shared(
        redis: crate::shared::Redis,
        claims: crate::shared::claims::Claims,
        client: Client,
        bounds: BTreeMap<String, Bounds>,
    ) -> Result<Self, StateError> {
        Self::over(Rows::Shared(redis, claims), client, bounds).await
    }

    async fn over(rows: Rows, client: Client, bounds: BTreeMap<String, Bounds>) -> Result<Self, StateError> {
        Ok(Self(Arc::new(Inner {
            registry: Registry::open(rows).await?,
            client,
            bounds,
            flights: Once::new(),
            slots: Semaphore::new(AT_ONCE),
            refused: AtomicU32::new(0),
            told: AtomicBool::new(false),
            broken: Mutex::default(),
        })))
    }

    /// Chooses the credential that has most of these clips, or has begun with them; of equal ones the first. From now on
    /// they are in use for it.
    pub(crate) fn choose(
        &self,
        endpoint: &Endpoint,
        credentials: &[&Credential],
        clips: &[&Arc<Clip>],
    ) -> (usize, Vec<Use>) {
        let identity: Arc<str> = endpoint.identity.as_str().into();
        let keys = |credential: &Credential| -> Vec<Key> {
            let credential: Arc<str> = credential.label.as_str().into();
            let key = |clip: &&Arc<Clip>| Key {
                identity: Arc::clone(&identity),
                credential: Arc::clone(&credential),
                sha256: Arc::clone(&clip.sha256),
            };
            clips.iter().map(key).collect()
        };
        let all: Vec<Vec<Key>> = credentials.iter().map(|credential| keys(credential)).collect();
        let chosen = self.0.registry.choose(&all, clips);
        let uses = all.into_iter().nth(chosen).unwrap_or_default().into_iter().zip(clips);
        let uses = uses.map(|(key, clip)| Use { inner: Arc::clone(&self.0), key, clip: Arc::clone(clip) });
        (chosen, uses.collect())
    }
}

impl Use {
    /// The address of the uploaded file, ready to be used; uploaded if it is not there. Cancel safe: the last one dropped
    /// of all who wait for a file ends its upload, which is found again.
    pub(crate) async fn uri(
        &self,
        endpoint: &Endpoint,
        credential: &Credential,
        stop: &CancellationToken,
    ) -> Result<Arc<str>, NotUploaded> {
        let inner = &self.inner;
        for _ in 0..3 {
            if let Some(uri) = inner.registry.ready(&self.key) {
                return Ok(uri);
            }
            let Some(bounds) = inner.bounds.get(&endpoint.name).copied() else {
                return Err(NotUploaded::Provider(format!("provider {} takes no uploads", endpoint.name)));
            };
            let place = Place { endpoint: endpoint.clone(), credential: credential.clone(), bounds };
            let (key, clip, own) = (self.key.clone(), Arc::clone(&self.clip), stop.clone());
            let fly = || Arc::clone(inner).fly(key, place, clip, own).boxed();
            match inner.flights.run(self.key.clone(), fly).await {
                // Of the one who began it, who had to stop.
                Err(NotUploaded::Stopped) if !stop.is_cancelled() => {}
                ended => ended?,
            }
        }
        let ready = inner.registry.ready(&self.key);
        ready.ok_or_else(|| NotUploaded::Provider(format!("{}: an uploaded clip does not stay", endpoint.name)))
    }

    /// Whether the file is still at `uri`, and good for a call that begins now.
    pub(crate) fn is_at(&self, uri: &str) -> bool {
        self.inner.registry.ready(&self.key).as_deref() == Some(uri)
    }

    /// The provider says that the file at `uri` is not there: it is forgotten, so that it is uploaded again.
    pub(crate) async fn gone(&self, uri: &str) {
        self.inner.registry.forget_at(&self.key, uri).await;
    }

    /// The file may not be ready, or not be there: it is looked at before it is used again.
    pub(crate) fn doubt(&self) {
        self.inner.registry.doubt(&self.key);
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.inner.registry.release(&self.key);
    }
}

/// Why one way to a file ended.
enum Lost {
    /// The file is not there any more.
    Gone,
    For(NotUploaded),
}

impl From<NotUploaded> for Lost {
    fn from(no: NotUploaded) -> Self {
        Self::For(no)
    }
}

impl Inner {
    /// What an error of the Files API means.
    fn lost(&self, error: FilesError, place: &Place) -> Lost {
        let name = &place.endpoint.name;
        let call = |kind, message: String| Lost::For(NotUploaded::Call(call_error(kind, message, None)));
        let unheard = match &error {
            // hyper's word for a connection that never stood.
            FilesError::Unavailable(message) => message.contains("(Connect)"),
            FilesError::Local(_) | FilesError::Stopped => true,
            _ => false,
        };
        if !unheard {
            self.client.heard(&place.endpoint);
        }
        match error {
            FilesError::StorageFull { .. } => self.full(place),
            FilesError::KeyRefused(message) => call(CallErrorKind::KeyRefused, message),
            FilesError::Gone => Lost::Gone,
            FilesError::Refused(message) => call(CallErrorKind::Refused, message),
            FilesError::Throttled { retry_after } => {
                let message = format!("{name}: uploads are throttled");
                Lost::For(NotUploaded::Call(call_error(CallErrorKind::Unavailable, message, retry_after)))
            }
            FilesError::Unavailable(message) if !self.client.has_answered(&place.endpoint) => {
                Lost::For(NotUploaded::Nobody(unavailable(&message, None)))
            }
            FilesError::Unavailable(message) => call(CallErrorKind::Unavailable, message),
            FilesError::Local(message) => {
                Lost::For(NotUploaded::Media(MediaError::new(MediaErrorKind::Worker, message)))
            }
            FilesError::Stopped => Lost::For(NotUploaded::Stopped),
        }
    }

    /// There is no room at a provider: told once, and met like an outage.
    fn full(&self, place: &Place) -> Lost {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let Place { endpoint, credential, .. } = place;
        let (name, label) = (&endpoint.name, &credential.label);
        let message = format!(
            "{name}: the file store of {label} is full, and no file in it is ours to delete; waiting until some expire"
        );
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("{message}");
        }
        self.client.heard(endpoint);
        Lost::For(NotUploaded::Call(unavailable(&message, None)))
    }

    fn broken(&self) -> std::sync::MutexGuard<'_, Broken> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn call_error(kind: CallErrorKind, message: String, retry_after: Option<Duration>) -> CallError {
    CallError { kind, billed: Billed::No, message, retry_after, limit: NamedLimit::default() }
}

fn unavailable(message: &str, retry_after: Option<Duration>) -> CallError {
    call_error(CallErrorKind::Unavailable, message.to_owned(), retry_after)
}

#[cfg(test)]
mod tests;
