//! Room for a file where a project's files have a greatest size in all.
//!
//! What is in the registry is ours; nothing else is ever deleted. The least recently used file goes first, and none that a
//! call uses. Files that only waiting jobs need are spared as well, until there was no room for several times: jobs that each
//! hold one clip and wait for another would wait for ever.

use std::sync::atomic::Ordering;

use super::registry::{Key, Row};
use super::{Files, FilesError, Inner, Lost, NotUploaded, Place, unavailable};

/// So often in a row there is no room before files are deleted that a job will need again.
const SPARED: u32 = 8;

impl Inner {
    /// Makes room for a file and takes it by writing its row.
    pub(super) async fn make_room(&self, key: &Key, row: &Row, place: &Place, files: &Files) -> Result<(), Lost> {
        let _room = self.room.lock().await;
        while self.registry.stored_beside(key).saturating_add(row.bytes) > place.bounds.storage_bytes {
            if self.delete_one(key, place, files).await?.is_none() {
                return Err(self.full(place));
            }
        }
        let written = self.registry.put(key, row).await;
        written.map_err(|error| Lost::For(NotUploaded::Call(unavailable(&format!("the state: {error}"), None))))?;
        Ok(())
    }

    /// Deletes files of so many bytes in all, as far as there are any; says whether it has deleted one.
    pub(super) async fn free(&self, key: &Key, bytes: u64, place: &Place, files: &Files) -> Result<bool, Lost> {
        let _room = self.room.lock().await;
        let mut freed = 0;
        while freed < bytes
            && let Some(more) = self.delete_one(key, place, files).await?
        {
            freed += more;
        }
        Ok(freed > 0)
    }

    /// Deletes the file that is needed least; its size.
    async fn delete_one(&self, key: &Key, place: &Place, files: &Files) -> Result<Option<u64>, Lost> {
        let jobs_wait = self.refused.load(Ordering::Relaxed) >= SPARED;
        let Some((victim, row)) = self.registry.victim(key, jobs_wait) else { return Ok(None) };
        let name = match &row.name {
            Some(name) => Some(name.clone()),
            None => self.find(&row, place, files).await?.map(|file| file.name),
        };
        if let Some(name) = name {
            match files.delete(&name).await {
                Ok(()) | Err(FilesError::Gone) => {}
                Err(error) => return Err(self.lost(error, place)),
            }
        }
        tracing::debug!(bytes = row.bytes, "an uploaded clip that nobody needs was deleted to make room");
        self.registry.forget(&victim).await;
        Ok(Some(row.bytes))
    }
}
