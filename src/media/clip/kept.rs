//! Clips on disk, beside the prepared sources: `<sha256>-clip-<settings>-v<version>`, whole or not there.
//!
//! An entry holds what a source is handed over as, and the file where one was made. The file's SHA-256 is in the manifest
//! and is checked when it is loaded, unless this process has hashed that very file before. It is held open with a lease for
//! as long as somebody uses it, so that what was checked is what is handed over, and what is open counts against the cap.
//! What nobody uses is remembered without its file: holding those of the latest clips open was rejected, as the entries
//! behind them are removed to make room, and open files that have no name any more fill a disk that nobody counts.
//! The settings in the name are those of clips alone: another number of key frames makes no clip anew.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use super::Shape;
use crate::media::cache::{Area, Cache, Lease, Making, failed, note_use, size_of};
use crate::media::once::Recent;
use crate::media::source::{self, Identity, Roots};
use crate::media::{MediaError, PREPARATION_VERSION, Settings};

const MANIFEST: &str = "manifest.json";
const FILE: &str = "clip.mp4";

/// Digests of files that this process has hashed.
pub(crate) type Hashed = Mutex<Recent<Identity, Arc<str>>>;

/// What a content is handed over as, and the file made for it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) shape: Shape,
    /// None: the source itself.
    pub(crate) made: Option<Made>,
}

/// A file that was made, open.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) file: Arc<File>,
    pub(crate) identity: Identity,
    pub(crate) sha256: Arc<str>,
    /// Keeps it in the cache.
    pub(crate) lease: Arc<Lease>,
}

/// What is remembered of a content: a file that was made only as long as somebody has it open.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    shape: Shape,
    made: Option<Unheld>,
}

/// A file that was made, as long as somebody else has it open.
#[derive(Debug, Clone)]
struct Unheld {
    file: Weak<File>,
    lease: Weak<Lease>,
    identity: Identity,
    sha256: Arc<str>,
}

impl Kept {
    pub(crate) fn known(&self) -> Known {
        let made = self.made.as_ref().map(|made| Unheld {
            file: Arc::downgrade(&made.file),
            lease: Arc::downgrade(&made.lease),
            identity: made.identity.clone(),
            sha256: made.sha256.clone(),
        });
        Known { shape: self.shape, made }
    }
}

impl Known {
    /// The same; none where its file has to be loaded.
    pub(crate) fn kept(self) -> Option<Kept> {
        let made = match self.made {
            None => None,
            Some(Unheld { file, lease, identity, sha256 }) => {
                Some(Made { file: file.upgrade()?, lease: lease.upgrade()?, identity, sha256 })
            }
        };
        Some(Kept { shape: self.shape, made })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sha256: String,
    mime: String,
    duration_ms: u64,
    source_ms: u64,
    trimmed: bool,
    smaller: bool,
    sound: bool,
    made: Option<String>,
}

/// The entry of a content, if it is there and undamaged. Blocking.
pub(crate) fn load(cache: &Cache, sha256: &str, silent: bool, settings: &Settings, hashed: &Hashed) -> Option<Kept> {
    let dir = cache.space().place(Area::Prepared, &name(sha256, silent, settings));
    let kept = read(&dir, sha256, hashed)?;
    note_use(&dir);
    Some(kept)
}

fn read(dir: &Path, sha256: &str, hashed: &Hashed) -> Option<Kept> {
    let lease = Lease::of(dir)?;
    let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let made = match &manifest.made {
        None => None,
        Some(expected) => Some(open(&dir.join(FILE), lease, hashed).ok().filter(|made| *made.sha256 == **expected)?),
    };
    let Manifest { duration_ms, source_ms, trimmed, smaller, sound, .. } = manifest;
    let mime = super::container::known_mime(&manifest.mime)?;
    let shape = Shape { mime, duration_ms, source_ms, trimmed, smaller, sound };
    (manifest.sha256 == sha256).then_some(Kept { shape, made })
}

/// Keeps a shape and the file made for it (below the directory of `making`), and gives them back as they would be loaded.
/// What finds no room below the cap is given back all the same, and not kept. Blocking.
pub(crate) fn save(
    cache: &Cache,
    making: &Making,
    sha256: &str,
    silent: bool,
    settings: &Settings,
    hashed: &Hashed,
    (shape, made): (Shape, Option<&Path>),
) -> Result<Kept, MediaError> {
    let space = cache.space();
    let entry = space.with_room(0, || making.entry())?;
    let digest = match made {
        None => None,
        Some(made) => {
            let to = entry.join(FILE);
            let kept = || fs::rename(made, &to).and_then(|()| File::open(&to)?.sync_all());
            kept().map_err(|error| failed(space.root(), 0, &error))?;
            let made = source::open(&to, &Roots::All, u64::MAX);
            let digest = made.and_then(|(file, identity)| digest(&file, &identity, hashed));
            // Whatever is wrong with it, it was made here.
            let unread = |error: MediaError| {
                MediaError::worker(format!("a clip in the media cache {}: {error}", space.root().display()))
            };
            Some(digest.map_err(unread)?.to_string())
        }
    };
    let Shape { mime, duration_ms, source_ms, trimmed, smaller, sound } = shape;
    let (sha, mime) = (sha256.to_owned(), mime.to_owned());
    let manifest = Manifest { sha256: sha, mime, duration_ms, source_ms, trimmed, smaller, sound, made: digest };
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    space.with_room(text.len() as u64, || write(&entry.join(MANIFEST), &text))?;
    let kept = read(&entry, sha256, hashed).ok_or_else(|| space.damaged())?;
    let size = size_of(&entry);
    if space.reserve(making, size)? {
        let place = space.place(Area::Prepared, &name(sha256, silent, settings));
        space.with_room(size, || making.publish(&place))?;
    }
    Ok(kept)
}

/// Written and synced, the directory too.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn open(path: &Path, lease: Lease, hashed: &Hashed) -> Result<Made, MediaError> {
    let (file, identity) = source::open(path, &Roots::All, u64::MAX)?;
    let sha256 = digest(&file, &identity, hashed)?;
    Ok(Made { file: Arc::new(file), identity, sha256, lease: Arc::new(lease) })
}

/// The file's SHA-256; read only if this process has not hashed it before.
fn digest(file: &File, identity: &Identity, hashed: &Hashed) -> Result<Arc<str>, MediaError> {
    let lock = || hashed.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = lock().get(identity) {
        return Ok(known);
    }
    let sha256: Arc<str> = source::hash(file, identity)?.into();
    lock().insert(identity.clone(), sha256.clone());
    Ok(sha256)
}

/// What the entry of a content is called.
pub(crate) fn name(sha256: &str, silent: bool, settings: &Settings) -> String {
    let what = if silent { "silent" } else { "clip" };
    let settings = format!("{} {}", settings.clip_mib, settings.clip_seconds);
    let settings = &blake3::hash(settings.as_bytes()).to_hex()[..16];
    format!("{sha256}-{what}-{settings}-v{PREPARATION_VERSION}")
}
