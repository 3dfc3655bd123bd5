//! Clips inside requests: each encoded once, shared by all requests that hold it, and bounded in all.
//!
//! A call may wait for a quota for long and holds its clips meanwhile, so what is encoded has one bound for the process.
//! A request takes the room for all its clips while it has the turn: were two of them to take it piece by piece, each
//! could hold what the other waits for.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::media::{Clip, MediaError, MediaErrorKind};

/// Most bytes of clips in one request: providers take 100 MB of body in all, base64 included (Gemini, since 2026).
pub(super) const MOST_PER_REQUEST: u64 = 64 << 20;
/// Most KiB of base64 at once; more than one request can hold.
const ROOM_KIB: usize = 256 << 10;

/// Encoded clips.
#[derive(Debug)]
pub(super) struct Inline {
    room: Arc<Semaphore>,
    turn: tokio::sync::Mutex<()>,
    held: Mutex<HashMap<Arc<str>, Weak<Encoded>>>,
}

#[derive(Debug)]
struct Encoded {
    base64: String,
    _room: OwnedSemaphorePermit,
}

/// What a request's bytes rest on.
struct Shared(Arc<Encoded>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.base64.as_bytes()
    }
}

impl Inline {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_KIB)), turn: tokio::sync::Mutex::default(), held: Mutex::default() }
    }

    /// The base64 of these clips, at most [`MOST_PER_REQUEST`] bytes of them. Waits for room. Cancel safe.
    ///
    /// # Errors
    /// A file is not what was hashed any more, or cannot be read.
    pub(super) async fn encoded(&self, clips: &[&Arc<Clip>]) -> Result<Vec<Bytes>, MediaError> {
        let found: Option<Vec<_>> = clips.iter().map(|clip| self.get(&clip.sha256)).collect();
        if let Some(found) = found {
            return Ok(found.into_iter().map(shared).collect());
        }
        let _turn = self.turn.lock().await;
        let mut all = Vec::with_capacity(clips.len());
        for clip in clips {
            let encoded = match self.get(&clip.sha256) {
                Some(encoded) => encoded,
                None => self.encode(clip).await?,
            };
            all.push(encoded);
        }
        Ok(all.into_iter().map(shared).collect())
    }

    async fn encode(&self, clip: &Arc<Clip>) -> Result<Arc<Encoded>, MediaError> {
        let kib = u32::try_from(clip.bytes.div_ceil(3) * 4 / 1024 + 1).unwrap_or(u32::MAX);
        let closed = |_| MediaError::new(MediaErrorKind::Worker, "no clip is encoded any more");
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await.map_err(closed)?;
        let clip = Arc::clone(clip);
        let sha256 = Arc::clone(&clip.sha256);
        let work = tokio::task::spawn_blocking(move || base64_of(&clip)).await;
        let base64 = work.unwrap_or_else(|error| {
            Err(MediaError::new(MediaErrorKind::Worker, format!("reading a clip ended early: {error}")))
        })?;
        let encoded = Arc::new(Encoded { base64, _room: room });
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, encoded| encoded.strong_count() > 0);
        held.insert(sha256, Arc::downgrade(&encoded));
        Ok(encoded)
    }

    fn get(&self, sha256: &str) -> Option<Arc<Encoded>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(sha256)?.upgrade()
    }
}

fn shared(encoded: Arc<Encoded>) -> Bytes {
    Bytes::from_owner(Shared(encoded))
}

/// Blocking. What is read is what was hashed, or it is an error.
fn base64_of(clip: &Clip) -> Result<String, MediaError> {
    let mut bytes = Vec::with_capacity(usize::try_from(clip.bytes).unwrap_or(0));
    clip.open()?
        .take(clip.bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| MediaError::new(MediaErrorKind::Worker, format!("cannot read a clip: {error}")))?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != *clip.sha256 {
        return Err(MediaError::new(MediaErrorKind::Invalid, "changes while it is read"));
    }
    Ok(STANDARD.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::clip_of_file;

    #[tokio::test]
    async fn a_clip_is_encoded_once_for_all_who_hold_it_and_its_room_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::write(&path, vec![7; 5000]).unwrap();
        let clip = Arc::new(clip_of_file(&path));
        let inline = Inline::new();
        let first = inline.encoded(&[&clip]).await.unwrap();
        let second = inline.encoded(&[&clip, &clip]).await.unwrap();
        assert_eq!(first[0].as_ptr(), second[1].as_ptr());
        assert_eq!(first[0], STANDARD.encode(vec![7; 5000]));
        assert_eq!(inline.room.available_permits(), ROOM_KIB - 7);
        drop((first, second));
        assert_eq!(inline.room.available_permits(), ROOM_KIB);
    }

    #[tokio::test]
    async fn a_file_that_was_written_to_since_it_was_hashed_is_not_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        std::fs::write(&path, "before").unwrap();
        let clip = Arc::new(clip_of_file(&path));
        std::fs::write(&path, "after it").unwrap();
        let error = Inline::new().encoded(&[&clip]).await.unwrap_err();
        assert_eq!((error.kind, &*error.message), (MediaErrorKind::Invalid, "changes while it is read"));
        // Another file under the same name changes nothing.
        std::fs::write(&path, "before").unwrap();
        let clip = Arc::new(clip_of_file(&path));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        assert_eq!(Inline::new().encoded(&[&clip]).await.unwrap()[0], STANDARD.encode("before"));
    }
}
