//! What is kept on disk, by content: `prepared/<sha256>-<kind>-<settings>-v<version>` (whole clips among them, see
//! `clip::kept`) and `sources/<sha256>` (only what was fetched), one directory each that is whole or not there. `making/` holds what is being made, `urls/` what is known of
//! URLs, `in-use` the number of bytes. Any number of processes may share the directory: see `making` for their locks, `turn`
//! for whose turn it is, and `space` for the cap.
//!
//! An entry is written beside its final place, synced, and renamed. The manifest holds a BLAKE3 digest of every file and
//! loading checks them: an entry that does not match is made again, never trusted. Frames and sound are plain files, so
//! that a person can look at what a model was shown; one packed file would save some syncs and hide that.

mod making;
mod space;
mod trouble;
mod turn;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

pub(crate) use self::making::{Lease, Making};
pub(crate) use self::space::{Area, Space, on_disk, size_of};
pub(crate) use self::trouble::failed;
pub(crate) use self::turn::Turn;
use super::decode::{Decoded, DecodedFrame, milliseconds};
use super::{Frame, Kind, MediaError, PREPARATION_VERSION, Prepared, Settings, Sound, Wants};
use crate::provider::Blob;

const MANIFEST: &str = "manifest.json";
/// The last use of an entry is noted no more often than this: reading must not mean writing.
const NOTED: Duration = Duration::from_mins(1);

/// Where prepared sources are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    space: Arc<Space>,
    settings: Settings,
    wants: Wants,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    sha256: String,
    bytes: u64,
    duration_ms: Option<u64>,
    frames: Vec<FrameEntry>,
    sound: Option<SoundEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FrameEntry {
    at_ms: u64,
    width: u32,
    height: u32,
    file: Entry,
}

#[derive(Debug, Serialize, Deserialize)]
struct SoundEntry {
    duration_ms: u64,
    trimmed: bool,
    file: Entry,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Notes that an entry was used now. Blocking; failing costs it some of its life.
pub(crate) fn note_use(dir: &Path) {
    let note = || {
        let manifest = File::options().append(true).open(dir.join(MANIFEST))?;
        let now = SystemTime::now();
        if now.duration_since(manifest.metadata()?.modified()?).is_ok_and(|age| age > NOTED) {
            manifest.set_modified(now)?;
        }
        io::Result::Ok(())
    };
    if let Err(error) = note() {
        tracing::debug!(%error, "the use of a cache entry is not noted");
    }
}

impl Cache {
    pub(crate) fn new(space: Arc<Space>, settings: Settings, wants: Wants) -> Self {
        Self { space, settings, wants }
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// What the entry of a source is called.
    pub(crate) fn name(&self, sha256: &str, kind: Kind) -> String {
        let settings = serde_json::to_vec(&(&self.settings, self.wants)).unwrap_or_default();
        let settings = &blake3::hash(&settings).to_hex()[..16];
        format!("{sha256}-{kind}-{settings}-v{PREPARATION_VERSION}")
    }

    /// The entry of a source, if it is there and undamaged. Blocking.
    pub(crate) fn load(&self, sha256: &str, kind: Kind) -> Option<Prepared> {
        let dir = self.space.place(Area::Prepared, &self.name(sha256, kind));
        let _lease = Lease::of(&dir)?;
        let prepared = self.read(&dir, sha256)?;
        note_use(&dir);
        Some(prepared)
    }

    fn read(&self, dir: &Path, sha256: &str) -> Option<Prepared> {
        let manifest: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
        if manifest.sha256 != sha256 {
            return None;
        }
        let frame = |(i, entry): (usize, &FrameEntry)| {
            let jpeg = blob("image/jpeg", &read(&dir.join(frame_name(i)), &entry.file)?);
            Some(Frame { at_ms: entry.at_ms, width: entry.width, height: entry.height, jpeg })
        };
        let frames = manifest.frames.iter().enumerate().map(frame).collect::<Option<Vec<_>>>()?;
        let sound = match &manifest.sound {
            None => None,
            Some(entry) => Some(Sound {
                blob: blob(self.settings.audio_format.mime(), &read(&dir.join(self.sound_name()), &entry.file)?),
                duration_ms: entry.duration_ms,
                trimmed: entry.trimmed,
            }),
        };
        let Manifest { sha256, bytes, duration_ms, .. } = manifest;
        Some(Prepared { sha256, bytes, duration_ms, frames, sound, clip: None })
    }

    /// Keeps what was decoded and gives it back as it would be loaded. Blocking. What finds no room below the cap is given
    /// back all the same, and not kept: a full cache costs time, not items.
    pub(crate) fn save(
        &self,
        making: &Making,
        sha256: &str,
        kind: Kind,
        bytes: u64,
        duration: Option<f64>,
        decoded: &Decoded,
    ) -> Result<Prepared, MediaError> {
        let dir = self.space.with_room(needed(decoded), || {
            let dir = making.entry()?;
            self.write(&dir, sha256, bytes, duration, decoded)?;
            Ok(dir)
        })?;
        let prepared = self.read(&dir, sha256).ok_or_else(|| self.space.damaged())?;
        let size = size_of(&dir);
        if self.space.reserve(making, size)? {
            let place = self.space.place(Area::Prepared, &self.name(sha256, kind));
            self.space.with_room(size, || making.publish(&place))?;
        } else {
            tracing::warn!(cache = %self.space.root().display(), "the media cache has no room; raise media.cache_gib");
        }
        Ok(prepared)
    }

    fn write(&self, dir: &Path, sha256: &str, bytes: u64, duration: Option<f64>, decoded: &Decoded) -> io::Result<()> {
        let frame = |(i, frame): (usize, &DecodedFrame)| {
            let file = write(&dir.join(frame_name(i)), &frame.jpeg)?;
            Ok(FrameEntry { at_ms: frame.at_ms, width: frame.width, height: frame.height, file })
        };
        let frames = decoded.frames.iter().enumerate().map(frame).collect::<io::Result<Vec<_>>>()?;
        let sound = match &decoded.sound {
            None => None,
            Some(sound) => Some(SoundEntry {
                duration_ms: sound.duration_ms,
                trimmed: sound.trimmed,
                file: write(&dir.join(self.sound_name()), &sound.bytes)?,
            }),
        };
        let duration_ms = duration.map(milliseconds);
        let manifest = Manifest { sha256: sha256.to_owned(), bytes, duration_ms, frames, sound };
        write(&dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        File::open(dir)?.sync_all()
    }

    fn sound_name(&self) -> String {
        format!("sound.{}", self.settings.audio_format.name())
    }
}

/// About what an entry takes: what a full disk is asked for.
fn needed(decoded: &Decoded) -> u64 {
    let frames = decoded.frames.iter().map(|frame| on_disk(frame.jpeg.len() as u64)).sum::<u64>();
    frames + decoded.sound.as_ref().map_or(0, |sound| on_disk(sound.bytes.len() as u64)) + on_disk(1)
}

fn frame_name(index: usize) -> String {
    format!("frame-{index:03}.jpg")
}

fn blob(mime: &'static str, bytes: &[u8]) -> Blob {
    Blob { mime, base64: STANDARD.encode(bytes).into() }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<Entry> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(Entry { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_string() })
}

fn read(path: &Path, entry: &Entry) -> Option<Vec<u8>> {
    if fs::symlink_metadata(path).ok()?.len() != entry.bytes {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    (blake3::hash(&bytes).to_string() == entry.blake3).then_some(bytes)
}
