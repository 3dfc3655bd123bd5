//! Clips on disk, beside the prepared sources: `<sha256>-clip-<settings>-v<version>`, whole or not there.
//!
//! An entry holds what a source is handed over as, and the file where one was made. The file's SHA-256 is in the manifest
//! and is checked when it is loaded; from then on it is held open, so that what was checked is what is handed over, even
//! where the entry is removed to make room. The settings in the name are those of clips alone: another number of key frames
//! makes no clip anew.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Shape;
use crate::media::cache::{Area, Cache, Lease, Making, failed, note_use, size_of};
use crate::media::source::{self, Identity, Roots};
use crate::media::{MediaError, PREPARATION_VERSION, Settings};

const MANIFEST: &str = "manifest.json";
const FILE: &str = "clip.mp4";

/// What a content is handed over as, and the file made for it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) shape: Shape,
    /// None: the source itself.
    pub(crate) made: Option<Made>,
}

/// A file that was made, open.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) file: Arc<File>,
    pub(crate) identity: Identity,
    pub(crate) sha256: Arc<str>,
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
pub(crate) fn load(cache: &Cache, sha256: &str, silent: bool, settings: &Settings) -> Option<Kept> {
    let dir = cache.space().place(Area::Prepared, &name(sha256, silent, settings));
    let _lease = Lease::of(&dir)?;
    let kept = read(&dir, sha256)?;
    note_use(&dir);
    Some(kept)
}

fn read(dir: &Path, sha256: &str) -> Option<Kept> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let made = match &manifest.made {
        None => None,
        Some(expected) => Some(open(&dir.join(FILE)).ok().filter(|made| *made.sha256 == **expected)?),
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
    shape: Shape,
    made: Option<&Path>,
) -> Result<Kept, MediaError> {
    let space = cache.space();
    let entry = space.with_room(0, || making.entry())?;
    let digest = match made {
        None => None,
        Some(made) => {
            let to = entry.join(FILE);
            let kept = || fs::rename(made, &to).and_then(|()| File::open(&to)?.sync_all());
            kept().map_err(|error| failed(space.root(), 0, &error))?;
            Some(open(&to)?.sha256.to_string())
        }
    };
    let Shape { mime, duration_ms, source_ms, trimmed, smaller, sound } = shape;
    let (sha, mime) = (sha256.to_owned(), mime.to_owned());
    let manifest = Manifest { sha256: sha, mime, duration_ms, source_ms, trimmed, smaller, sound, made: digest };
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    space.with_room(text.len() as u64, || write(&entry.join(MANIFEST), &text))?;
    let kept = read(&entry, sha256).ok_or_else(|| {
        MediaError::worker("the media cache gives back another clip than was written; check the disk")
    })?;
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

fn open(path: &Path) -> Result<Made, MediaError> {
    let (file, identity) = source::open(path, &Roots::All, u64::MAX)?;
    let sha256 = source::hash(&file, &identity)?.into();
    Ok(Made { file: Arc::new(file), identity, sha256 })
}

/// What the entry of a content is called.
pub(crate) fn name(sha256: &str, silent: bool, settings: &Settings) -> String {
    let what = if silent { "silent" } else { "clip" };
    let settings = format!("{} {}", settings.clip_mib, settings.clip_seconds);
    let settings = &blake3::hash(settings.as_bytes()).to_hex()[..16];
    format!("{sha256}-{what}-{settings}-v{PREPARATION_VERSION}")
}
