//! Room for a file where a project's files have a greatest size in all.
//!
//! What is in the registry is ours; nothing else is ever deleted. The least recently used file goes first, and none that a
//! call uses. Files that only waiting jobs need are spared as well, until there was no room for several times: jobs that each
//! hold one clip and wait for another would wait for ever.
//!
//! Nothing is held while a provider is asked: a file that is to go is taken out of the registry, counts until it is gone
//! ([`Leaving`](super::registry::Leaving)), and only then its room is taken, by whoever is first. So a delete that hangs holds up
//! the upload that needs it and no other. Rejected: one lock around it all (one hanging delete held up every upload), and
//! taking the room before the delete is done (what is kept would pass the limit where it fails).

use std::sync::atomic::Ordering;

use super::registry::{Key, Leaving, Room, Row};
use super::{Files, FilesError, Inner, Lost, NotUploaded, Place, unavailable};

/// So often in a row there is no room before files are deleted that a job will need again.
const SPARED: u32 = 8;

impl Inner {
    /// Makes room for a file and takes it by writing its row.
    pub(super) async fn make_room(&self, key: &Key, row: &Row, place: &Place, files: &Files) -> Result<(), Lost> {
        loop {
            match self.registry.take_room(key, row, place.bounds.storage_bytes, self.jobs_wait()) {
                Room::Taken => break,
                Room::After(leaving) => self.delete(leaving, place, files).await?,
                Room::Soon => {
                    // What is there was taken once: a delete that hangs is no wrong address.
                    self.client.heard(&place.endpoint);
                    let name = &place.endpoint.name;
                    let message = format!("{name}: room for an upload is being made");
                    return Err(Lost::For(NotUploaded::Call(unavailable(&message, None))));
                }
                Room::None => return Err(self.full(place)),
            }
        }
        let written = self.registry.put(key, row).await;
        written.map_err(|error| Lost::For(NotUploaded::Call(unavailable(&format!("the state: {error}"), None))))
    }

    /// Deletes files of so many bytes in all, as far as there are any; says whether it has deleted one.
    pub(super) async fn free(&self, key: &Key, bytes: u64, place: &Place, files: &Files) -> Result<bool, Lost> {
        let mut freed = 0;
        while freed < bytes
            && let Some(leaving) = self.registry.victim(key, self.jobs_wait())
        {
            let size = leaving.row().bytes;
            self.delete(leaving, place, files).await?;
            freed += size;
        }
        Ok(freed > 0)
    }

    /// Whether files that only waiting jobs need may go.
    fn jobs_wait(&self) -> bool {
        self.refused.load(Ordering::Relaxed) >= SPARED
    }

    async fn delete(&self, leaving: Leaving<'_>, place: &Place, files: &Files) -> Result<(), Lost> {
        let row = leaving.row();
        let name = match &row.name {
            Some(name) => Some(name.clone()),
            None => self.find(row, place, files).await?.map(|file| file.name),
        };
        if let Some(name) = name {
            match files.delete(&name).await {
                Ok(()) | Err(FilesError::Gone) => {}
                Err(error) => return Err(self.lost(error, place)),
            }
        }
        tracing::debug!(bytes = row.bytes, "an uploaded clip that nobody needs was deleted to make room");
        leaving.gone().await;
        Ok(())
    }
}
