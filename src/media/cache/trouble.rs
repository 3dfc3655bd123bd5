//! What is said of a cache that cannot be used. None of it is ever an item's fault, and all of it names the directory.
//!
//! A directory that was set wrongly will not become right by itself: that is the setup's mistake, with the setting. A disk
//! that is full or broken is this machine's trouble, and may pass.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::Space;
use crate::media::{MediaError, MediaErrorKind};

impl Space {
    /// The error of an entry that is another one when it is read back. Never an item's fault either.
    pub(crate) fn damaged(&self) -> MediaError {
        let place = self.root().display();
        MediaError::worker(format!("the media cache {place} gives back other bytes than were written; check the disk"))
    }

    /// The error of a content that is removed again and again before it is used.
    pub(crate) fn too_small(&self) -> MediaError {
        let place = self.root().display();
        MediaError::worker(format!(
            "what is fetched is removed at once from the media cache {place}; raise media.cache_gib"
        ))
    }

    /// The error of a child process that met a full disk twice, with what there is to do.
    pub(crate) fn told(&self, error: MediaError, needed: u64) -> MediaError {
        let (place, free) = (self.root().display(), self.free());
        let MediaError { kind, message } = error;
        let message = format!(
            "{message}; the media cache {place} has no room: up to {needed} bytes are needed and {free} are free; free some \
             space there, or lower media.cache_gib"
        );
        MediaError { kind, message }
    }
}

/// Whether an error says that there is no room: on the disk, in a quota, or for a file of this process.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// An error of the cache directory, which is never an item's fault.
pub(crate) fn failed(root: &Path, needed: u64, error: &io::Error) -> MediaError {
    let place = root.display();
    let is_one_of = |errnos: &[Errno]| Errno::from_io_error(error).is_some_and(|errno| errnos.contains(&errno));
    if is_one_of(&[Errno::BADF, Errno::NOLCK, Errno::OPNOTSUPP]) {
        let message = format!(
            "the file system of the media cache {place} has no locks ({error}); set media.cache_dir to a local directory"
        );
        return MediaError::new(MediaErrorKind::Setup, message);
    }
    if is_one_of(&[Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOTDIR]) {
        let message = format!(
            "the media cache {place} cannot be written to ({error}); make it a directory that may be written to, or set \
             media.cache_dir to one"
        );
        return MediaError::new(MediaErrorKind::Setup, message);
    }
    if !is_full(error) {
        return MediaError::worker(format!("cannot write to the media cache {place}: {error}"));
    }
    let free = rustix::fs::statvfs(root).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let way_out = if error.kind() == io::ErrorKind::FileTooLarge {
        "raise the largest file size (ulimit -f)"
    } else {
        "free some space there, or lower media.cache_gib"
    };
    MediaError::worker(format!(
        "the media cache {place} has no room: {needed} bytes are needed and {free} are free ({error}); {way_out}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_used_is_a_mistake_of_the_setup_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().join("cache"), 0, 0);
        let root = space.root().display().to_string();
        for errno in [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOTDIR, Errno::NOLCK] {
            let error = failed(space.root(), 0, &errno.into());
            assert_eq!(error.kind, MediaErrorKind::Setup, "{error}");
            assert!(error.message.contains(&root) && error.message.contains("media.cache_dir"), "{error}");
        }
        for error in [failed(space.root(), 0, &Errno::IO.into()), space.damaged(), space.too_small()] {
            assert!(error.kind == MediaErrorKind::Worker && error.message.contains(&root), "{error}");
        }
    }
}
