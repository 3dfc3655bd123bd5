//! Prepared sources on disk: one directory each, `<sha256>-<kind>-<settings>-v<version>`, that is whole or not there.
//!
//! An entry is written beside its final place, synced, and renamed. The manifest holds a BLAKE3 digest of every file and
//! loading checks them: an entry that does not match is made again, never trusted. Frames and sound are plain files, so
//! that a person can look at what a model was shown; one packed file would save some syncs and hide that.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::decode::{Decoded, DecodedFrame, milliseconds};
use super::source::Identity;
use super::{Frame, Kind, MediaError, PREPARATION_VERSION, Prepared, Settings, Sound, wav};
use crate::provider::Blob;

const MANIFEST: &str = "manifest.json";
const TEMPORARY: &str = ".making-";
/// Far longer than any preparation may take: what is older was left by a process that was killed.
const ABANDONED: Duration = Duration::from_hours(24);

/// Where prepared sources are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    settings: Settings,
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

impl Cache {
    pub(crate) fn new(root: PathBuf, settings: Settings) -> Self {
        Self { root, settings }
    }

    /// A directory of its own inside the cache, removed when dropped. Blocking.
    pub(crate) fn workspace(&self) -> Result<TempDir, MediaError> {
        fs::create_dir_all(&self.root).map_err(|error| failed(&self.root, &error))?;
        tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.root).map_err(|error| failed(&self.root, &error))
    }

    /// Removes what killed processes left behind more than a day ago. Blocking; errors only leave it there.
    pub(crate) fn sweep(&self) {
        let abandoned = |entry: &fs::DirEntry| {
            let age = entry.metadata().and_then(|m| m.modified()).map(|m| SystemTime::now().duration_since(m));
            matches!(age, Ok(Ok(age)) if age > ABANDONED)
        };
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY)
                && abandoned(&entry)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::debug!(%error, "an abandoned cache entry stays");
            }
        }
    }

    /// The entry of a source, if it is there and undamaged. Blocking.
    pub(crate) fn load(&self, sha256: &str, kind: Kind) -> Option<Prepared> {
        let dir = self.place(sha256, kind);
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
                wav: blob("audio/wav", &read(&dir.join(SOUND), &entry.file)?),
                duration_ms: entry.duration_ms,
                trimmed: entry.trimmed,
            }),
        };
        let Manifest { sha256, bytes, duration_ms, .. } = manifest;
        Some(Prepared { sha256, bytes, duration_ms, frames, sound })
    }

    /// Keeps what was decoded and gives it back as it would be loaded. Blocking.
    pub(crate) fn save(
        &self,
        sha256: &str,
        kind: Kind,
        identity: &Identity,
        duration: Option<f64>,
        decoded: &Decoded,
    ) -> Result<Prepared, MediaError> {
        let making = self.workspace()?;
        self.write(making.path(), sha256, identity.bytes, duration, decoded)
            .and_then(|()| self.publish(making.path(), &self.place(sha256, kind)))
            .map_err(|error| failed(&self.root, &error))?;
        self.load(sha256, kind).ok_or_else(|| {
            MediaError::worker("the media cache gives back other bytes than were written; check the disk")
        })
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
                duration_ms: sound.samples.len() as u64 / 2 * 1000 / u64::from(self.settings.audio_rate.max(1)),
                trimmed: sound.trimmed,
                file: write(&dir.join(SOUND), &wav::mono(&sound.samples, self.settings.audio_rate))?,
            }),
        };
        let duration_ms = duration.map(milliseconds);
        let manifest = Manifest { sha256: sha256.to_owned(), bytes, duration_ms, frames, sound };
        write(&dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        File::open(dir)?.sync_all()
    }

    /// Renames into place. An entry in the way is one that did not load, or an equal one of another process.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        if fs::rename(from, to).is_err() {
            let aside = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&self.root)?;
            match fs::rename(to, aside.path().join("damaged")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::rename(from, to)?,
            }
        }
        File::open(&self.root)?.sync_all()
    }

    fn place(&self, sha256: &str, kind: Kind) -> PathBuf {
        let Settings { max_frames, frame_size, audio_rate, audio_seconds } = self.settings;
        let settings = blake3::hash(format!("{max_frames} {frame_size} {audio_rate} {audio_seconds}").as_bytes());
        let settings = &settings.to_hex()[..16];
        self.root.join(format!("{sha256}-{kind}-{settings}-v{PREPARATION_VERSION}"))
    }
}

const SOUND: &str = "sound.wav";

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

fn failed(root: &Path, error: &io::Error) -> MediaError {
    MediaError::worker(format!("cannot write to the media cache {}: {error}", root.display()))
}
