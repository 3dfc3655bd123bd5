//! Waiting for a file that is being processed.

use std::sync::Arc;
use std::time::Duration;

use super::registry::{Key, Phase, Row};
use super::{FileState, Files, Inner, Lost, NotUploaded, Place};
use crate::media::MediaError;
use crate::provider::failure;

/// The first look comes so soon; each next one after half as long again.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

impl Inner {
    /// Looks again and again until a file is ready. The deadline counts the time in which it was seen being processed, also
    /// over several flights and processes, and ends no file before it was looked at once. A service that cannot be asked is
    /// an outage: the caller waits for it, and that time is none of the file's.
    pub(super) async fn until_ready(&self, key: &Key, mut row: Row, place: &Place, files: &Files) -> Result<(), Lost> {
        let (mut pause, mut seen, mut slept) = (FIRST, row.seen(), Duration::ZERO);
        while row.phase != Phase::Active {
            let Some(name) = row.name.clone() else { return Err(Lost::Gone) };
            let file = files.get(&name).await.map_err(|error| self.lost(error, place))?;
            if file.state == FileState::Failed {
                return Err(self.unusable(key, &name, file.error, place, files).await);
            }
            seen += slept;
            row = self.note(key, row.seen_for(seen), &file).await?;
            if row.phase != Phase::Active {
                if seen >= place.bounds.deadline {
                    return Err(too_long(place, seen));
                }
                slept = pause.min(place.bounds.deadline);
                tokio::time::sleep(slept).await;
                pause = (pause * 3 / 2).min(LONGEST);
            }
        }
        Ok(())
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

fn too_long(place: &Place, seen: Duration) -> Lost {
    let (provider, seconds) = (&place.endpoint.name, seen.as_secs());
    Lost::For(NotUploaded::Provider(format!(
        "{provider}: an uploaded clip is not ready after {seconds} s (providers.{provider}.upload_deadline_seconds)"
    )))
}
