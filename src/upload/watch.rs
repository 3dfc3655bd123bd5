//! Waiting for a file that is being processed.

use std::sync::Arc;
use std::time::Duration;

use super::registry::{Key, Phase, Row, now};
use super::{FileState, Files, FilesError, Inner, Lost, NotUploaded, Place};
use crate::media::MediaError;
use crate::provider::failure;

/// The first look comes so soon; each next one after half as long again.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

impl Inner {
    /// Looks again and again until a file is ready. What cannot be seen for a while is looked at again; the deadline runs
    /// from when the file was there, also over several processes, and ends no file before it was looked at once.
    pub(super) async fn until_ready(&self, key: &Key, mut row: Row, place: &Place, files: &Files) -> Result<(), Lost> {
        let mut pause = FIRST;
        loop {
            if row.phase == Phase::Active {
                return Ok(());
            }
            let Some(name) = row.name.clone() else { return Err(Lost::Gone) };
            let mut hint = None;
            match files.get(&name).await {
                Ok(file) if file.state == FileState::Failed => {
                    return Err(self.unusable(key, &name, file.error, place, files).await);
                }
                Ok(file) => row = self.note(key, row, &file).await?,
                Err(FilesError::Throttled { retry_after }) => hint = retry_after,
                Err(FilesError::Unavailable(message)) => {
                    tracing::debug!(%message, "an uploaded clip cannot be looked at");
                }
                Err(error) => return Err(self.lost(error, place)),
            }
            if row.phase == Phase::Active {
                return Ok(());
            }
            let waited = Duration::from_secs(u64::try_from(now() - row.since).unwrap_or(0));
            if waited >= place.bounds.deadline {
                let (provider, seconds) = (&place.endpoint.name, waited.as_secs());
                return Err(Lost::For(NotUploaded::Provider(format!(
                    "{provider}: an uploaded clip is not ready after {seconds} s (providers.{provider}.upload_deadline_seconds)"
                ))));
            }
            tokio::time::sleep(hint.unwrap_or(pause).min(place.bounds.deadline)).await;
            pause = (pause * 3 / 2).min(LONGEST);
        }
    }

    /// The provider cannot process a clip: nobody uploads it again in this process.
    async fn unusable(&self, key: &Key, name: &str, words: Option<String>, place: &Place, files: &Files) -> Lost {
        self.discard(name, files).await;
        self.registry.forget(key).await;
        let words = words.map(|words| failure::words(&words)).filter(|words| !words.is_empty());
        let words = words.unwrap_or_else(|| "it does not say why".to_owned());
        let message = format!("{} cannot process the clip: {words}", place.endpoint.name);
        self.broken().insert((Arc::clone(&key.identity), Arc::clone(&key.sha256)), message.clone());
        Lost::For(NotUploaded::Media(MediaError::invalid(message)))
    }
}
