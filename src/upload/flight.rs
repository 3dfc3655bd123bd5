//! One clip's way to a provider: what was begun before is finished first, and nothing is sent that is there already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::registry::{Key, Phase, Row};
use super::{Files, FilesError, Inner, Lost, NotUploaded, Place, RemoteFile, unavailable};
use crate::media::{self, Clip, MediaError};

impl Inner {
    /// Brings a clip to a provider. A stop ends it at once, whatever it waits for: what it had begun is found again.
    pub(super) async fn fly(
        self: Arc<Self>,
        key: Key,
        place: Place,
        clip: Arc<Clip>,
        stop: CancellationToken,
    ) -> Result<(), NotUploaded> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(NotUploaded::Stopped),
            done = self.bring(&key, &place, &clip, &stop) => done,
        }
    }

    /// What was begun before is finished first.
    async fn bring(
        &self,
        key: &Key,
        place: &Place,
        clip: &Arc<Clip>,
        stop: &CancellationToken,
    ) -> Result<(), NotUploaded> {
        if let Some(words) = self.broken().get(&(Arc::clone(&key.identity), Arc::clone(&key.sha256))) {
            return Err(NotUploaded::Media(MediaError::invalid(words.clone())));
        }
        if clip.bytes > place.bounds.storage_bytes {
            let name = &place.endpoint.name;
            return Err(NotUploaded::Media(MediaError::invalid(format!(
                "a clip of {} bytes is larger than all that {name} keeps (providers.{name}.storage_gb): set media.clip_mib",
                clip.bytes
            ))));
        }
        let files = Files::new(&self.client, &place.endpoint, &place.credential);
        let alone = self.registry.alone(key).await;
        let _alone = alone.map_err(|error| NotUploaded::Call(unavailable(&format!("the state: {error}"), None)))?;
        for _ in 0..2 {
            match self.attempt(key, place, &files, clip, stop).await {
                Ok(()) => return Ok(()),
                Err(Lost::Gone) => self.registry.forget(key).await,
                Err(Lost::For(no)) => return Err(no),
            }
        }
        let name = &place.endpoint.name;
        Err(NotUploaded::Provider(format!("{name}: an uploaded clip is gone as soon as it is there")))
    }

    async fn attempt(
        &self,
        key: &Key,
        place: &Place,
        files: &Files,
        clip: &Arc<Clip>,
        stop: &CancellationToken,
    ) -> Result<(), Lost> {
        let row = self.registry.get(key).filter(|row| !row.ends_soon());
        let row = match row {
            Some(row) if row.phase != Phase::Uploading => row,
            Some(row) => match self.find(&row, place, files).await? {
                Some(file) if file.bytes == clip.bytes || file.bytes == 0 => self.note(key, row, &file).await?,
                _ => self.send(key, row, place, files, clip, stop).await?,
            },
            None => {
                let row = Row::begun(display_name(&key.sha256), clip.bytes);
                self.send(key, row, place, files, clip, stop).await?
            }
        };
        self.until_ready(key, row, place, files).await
    }

    /// The file of an upload whose end was not seen.
    pub(super) async fn find(&self, row: &Row, place: &Place, files: &Files) -> Result<Option<RemoteFile>, Lost> {
        let all = files.list().await.map_err(|error| self.lost(error, place))?;
        Ok(all.into_iter().find(|file| file.display_name == row.display_name))
    }

    /// Uploads, with the row written first.
    async fn send(
        &self,
        key: &Key,
        row: Row,
        place: &Place,
        files: &Files,
        clip: &Arc<Clip>,
        stop: &CancellationToken,
    ) -> Result<Row, Lost> {
        self.make_room(key, &row, place, files).await?;
        let file = blocking(clip, Clip::open).await?;
        let upload = async || {
            let _slot = self.slots.acquire().await;
            files.upload(&file, clip.bytes, clip.mime, &row.display_name, stop).await
        };
        let mut sent = upload().await;
        // Others upload while room is made.
        if matches!(sent, Err(FilesError::StorageFull { .. })) && self.free(key, clip.bytes, place, files).await? {
            sent = upload().await;
        }
        let uploaded = match sent {
            Ok(uploaded) => {
                self.refused.store(0, Ordering::Relaxed);
                uploaded.file
            }
            Err(error) => {
                // What is certainly not there is not looked for.
                if matches!(error, FilesError::StorageFull { .. } | FilesError::Refused(_) | FilesError::KeyRefused(_))
                {
                    self.registry.forget(key).await;
                }
                blocking(clip, Clip::unchanged).await?;
                return Err(self.lost(error, place));
            }
        };
        if let Err(changed) = blocking(clip, Clip::unchanged).await {
            self.discard(&uploaded.name, files).await;
            self.registry.forget(key).await;
            return Err(changed.into());
        }
        self.note(key, row, &uploaded).await
    }

    /// Writes down what the provider says of a file.
    pub(super) async fn note(&self, key: &Key, row: Row, file: &RemoteFile) -> Result<Row, Lost> {
        let row = row.with(file);
        let written = self.registry.put(key, &row).await;
        written.map_err(|error| Lost::For(NotUploaded::Call(unavailable(&format!("the state: {error}"), None))))?;
        Ok(row)
    }

    /// Deletes what is of no use to anybody; that it stays until it expires is no harm.
    pub(super) async fn discard(&self, name: &str, files: &Files) {
        if let Err(error) = files.delete(name).await {
            tracing::debug!(?error, "a file that is of no use could not be deleted");
        }
    }
}

async fn blocking<T: Send + 'static>(
    clip: &Arc<Clip>,
    work: fn(&Clip) -> Result<T, MediaError>,
) -> Result<T, NotUploaded> {
    let clip = Arc::clone(clip);
    let done = media::blocking(move || work(&clip)).await;
    done.map_err(|error| NotUploaded::Media(error.about("a clip")))
}

/// A name that no other upload has, by which this one is found in the provider's list.
fn display_name(sha256: &str) -> String {
    static UPLOADS: AtomicU64 = AtomicU64::new(0);
    let count = UPLOADS.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let unique = blake3::hash(format!("{now} {} {count}", std::process::id()).as_bytes()).to_hex();
    format!("aurelia-{}-{}", &sha256[..sha256.len().min(32)], &unique[..24])
}
