//! Room for a file, and the files that go to make it.

use super::{Books, Key, Registry, Row};

/// What became of a wish for room.
pub(in crate::upload) enum Room<'a> {
    /// It is taken: the row counts from now on.
    Taken,
    /// This file has to go first.
    After(Leaving<'a>),
    /// There is none, but files are about to go.
    Soon,
    /// There is none, and no file may go.
    None,
}

/// A file that is being deleted: nobody is given it any more, and it counts until it is [`gone`](Self::gone). Dropped before,
/// it is the first that the next one in need of room tries to delete.
pub(in crate::upload) struct Leaving<'a> {
    registry: &'a Registry,
    key: Key,
    row: Row,
}

/// What the books know of such a file. Its display name is its own.
pub(super) struct Entry {
    key: Key,
    row: Row,
    /// Whether somebody deletes it now.
    busy: bool,
}

impl Leaving<'_> {
    pub(in crate::upload) fn row(&self) -> &Row {
        &self.row
    }

    /// It is deleted.
    pub(in crate::upload) async fn gone(self) {
        self.registry.books().leaving.retain(|entry| entry.row.display_name != self.row.display_name);
        // There may be a new file of the same clip by now.
        self.registry.forget_named(&self.key, &self.row.display_name).await;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut books = self.registry.books();
        let mine = books.leaving.iter_mut().filter(|entry| entry.row.display_name == self.row.display_name);
        mine.for_each(|entry| entry.busy = false);
    }
}

impl Registry {
    /// A file that goes was last used then, or before.
    fn unused_since(&self) -> i64 {
        super::now().saturating_sub(self.rows.spared_seconds())
    }

    /// Takes room for a file where all files of its credential may have `most` bytes.
    pub(in crate::upload) fn take_room(&self, key: &Key, row: &Row, most: u64, jobs_wait: bool) -> Room<'_> {
        let mut books = self.books();
        if books.stored_beside(key).saturating_add(row.bytes) <= most {
            books.rows.insert(key.clone(), row.clone());
            return Room::Taken;
        }
        if let Some((key, row)) = books.take_victim(key, jobs_wait, self.unused_since()) {
            return Room::After(Leaving { registry: self, key, row });
        }
        if books.leaving.iter().any(|entry| entry.key.is_of(key)) { Room::Soon } else { Room::None }
    }

    /// The file of the same credential that may go first, to be deleted; with `jobs_wait`, also one that a job needs, but no
    /// call.
    pub(in crate::upload) fn victim(&self, key: &Key, jobs_wait: bool) -> Option<Leaving<'_>> {
        let (key, row) = self.books().take_victim(key, jobs_wait, self.unused_since())?;
        Some(Leaving { registry: self, key, row })
    }
}

impl Key {
    /// Whether it is of the same credential.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.identity == other.identity && self.credential == other.credential
    }

    /// Whether it is another file of the same credential.
    fn is_beside(&self, other: &Self) -> bool {
        self.is_of(other) && self.sha256 != other.sha256
    }
}

impl Books {
    /// What a credential's files take, but for this one.
    pub(super) fn stored_beside(&self, key: &Key) -> u64 {
        let others = self.rows.iter().filter(|(other, _)| other.is_beside(key)).map(|(_, row)| row);
        let leaving = self.leaving.iter().filter(|entry| entry.key.is_of(key)).map(|entry| &entry.row);
        others.chain(leaving).filter(|row| !row.is_over()).map(|row| row.bytes).sum()
    }

    /// The file of the same credential that was not used for longest and that nobody needs.
    pub(super) fn needed_least(&self, key: &Key, jobs_wait: bool, unused_since: i64) -> Option<Key> {
        let free = |other: &Key| {
            self.needs.get(other).is_none_or(|need| {
                need.uses == 0 && (jobs_wait || need.clips.iter().all(|clip| clip.strong_count() == 0))
            })
        };
        let others = self
            .rows
            .iter()
            .filter(|(other, row)| other.is_beside(key) && free(other) && row.last_used <= unused_since);
        others.min_by_key(|(_, row)| row.last_used).map(|(other, _)| other.clone())
    }

    /// A file whose delete was given up, else the one that is needed least; from now on it leaves.
    fn take_victim(&mut self, key: &Key, jobs_wait: bool, unused_since: i64) -> Option<(Key, Row)> {
        if let Some(entry) = self.leaving.iter_mut().find(|entry| !entry.busy && entry.key.is_of(key)) {
            entry.busy = true;
            return Some((entry.key.clone(), entry.row.clone()));
        }
        let key = self.needed_least(key, jobs_wait, unused_since)?;
        let row = self.rows.remove(&key)?;
        self.leaving.push(Entry { key: key.clone(), row: row.clone(), busy: true });
        Some((key, row))
    }
}
