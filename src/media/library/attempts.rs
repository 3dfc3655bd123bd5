//! Work of child processes that is worth a second attempt.
//!
//! A decoder that is killed from outside once may have had bad luck; killed twice, it is the item's fault, or one clip would
//! stop its run for ever. A disk that is full gets room and one more attempt; full again, it is this machine's fault, with
//! the bytes needed and free. Frames, sound and clips share this, so that none of them blames an item for a disk.

use super::super::{MediaError, MediaErrorKind};
use super::{Inner, blocking};

impl Inner {
    /// Does what child processes do, once more where that may help. Cancel safe if `attempt` is.
    pub(super) async fn attempts<T, F>(&self, attempt: impl Fn() -> F + Send) -> Result<T, MediaError>
    where
        F: Future<Output = Result<T, MediaError>> + Send,
    {
        let (mut killed, mut full) = (false, false);
        let needed = self.limits.max_output_bytes();
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if error.kind == MediaErrorKind::Killed && !killed {
                killed = true;
            } else if is_full(&error) && !full {
                full = true;
                let space = self.cache.space().clone();
                blocking(move || {
                    space.make_room(needed);
                    Ok(())
                })
                .await?;
            } else if is_full(&error) {
                return Err(self.cache.space().told(error, needed));
            } else {
                return Err(error);
            }
            tracing::debug!(%error, "a preparation begins once more");
        }
    }
}

/// Whether a child process met a full disk.
fn is_full(error: &MediaError) -> bool {
    let words = ["No space left on device", "Disk quota exceeded"];
    error.kind == MediaErrorKind::Worker && words.iter().any(|words| error.message.contains(words))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::{Library, Limits, Settings, Wants};
    use super::*;

    /// What becomes of work whose attempts end like this, and how many were made.
    async fn ends(ends: Vec<Result<u8, MediaError>>) -> (Result<u8, MediaError>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        let library = Library::new(cache, Settings::default(), Wants::default(), Limits::default());
        let (all, left) = (ends.len(), Mutex::new(ends.into_iter()));
        let attempt = || {
            let end = left.lock().unwrap().next().unwrap();
            async move { end }
        };
        let ended = library.0.attempts(attempt).await;
        let made = all - left.lock().unwrap().len();
        (ended, made)
    }

    #[tokio::test]
    async fn one_kill_and_one_full_disk_cost_an_attempt_each_and_the_next_is_the_end() {
        let full = || MediaError::worker("ffmpeg cannot write: No space left on device (os error 28)");
        let killed = || MediaError::new(MediaErrorKind::Killed, "was killed");
        let (broken, missing) = (|| MediaError::invalid("moov atom not found"), || MediaError::worker("no ffmpeg"));
        assert_eq!(ends(vec![Ok(1)]).await, (Ok(1), 1));
        assert_eq!(ends(vec![Err(killed()), Ok(2)]).await, (Ok(2), 2));
        assert_eq!(ends(vec![Err(full()), Ok(2)]).await, (Ok(2), 2));
        assert_eq!(ends(vec![Err(killed()), Err(full()), Ok(3)]).await, (Ok(3), 3));
        for last in [broken(), missing()] {
            assert_eq!(ends(vec![Err(last.clone()), Ok(2)]).await, (Err(last.clone()), 1));
            assert_eq!(ends(vec![Err(full()), Err(last.clone()), Ok(3)]).await, (Err(last), 2));
        }
        assert_eq!(ends(vec![Err(killed()), Err(killed()), Ok(3)]).await, (Err(killed()), 2));
        let (ended, made) = ends(vec![Err(full()), Err(full()), Ok(3)]).await;
        let error = ended.unwrap_err();
        assert_eq!((error.kind, made), (MediaErrorKind::Worker, 2), "nobody's item is blamed");
        for words in ["/cache has no room", "bytes are needed and", "are free", "media.cache_gib"] {
            assert!(error.message.contains(words), "{error}");
        }
    }
}
