//! How much the cache may hold: room is made before something is put in, by removing what was used longest ago.
//!
//! All processes that share the directory share one number, the bytes in use, in a file that is also the lock for changing
//! it. It is only ever too high (a killed process gives nothing back), and when it says "full" the directory is counted
//! again, so no crash can make the cache grow beyond its cap. Entries are removed under that lock, and only those that
//! nobody has a lease on. Rejected: a database of entries (one more thing that can be damaged, for a list that the directory
//! is already), and a cleaner in the background (the cap would hold only on average).

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::SystemTime;

use super::MANIFEST;
use super::making::{self, Making};
use super::trouble::{failed, is_full};
use crate::media::MediaError;

/// A file takes whole blocks of this size.
const BLOCK: u64 = 4096;
/// When something has to go, a sixteenth of the cap goes, so that the next ones need no count.
const SLACK: u64 = 16;

/// The directory and its cap.
#[derive(Debug)]
pub(crate) struct Space {
    root: PathBuf,
    /// Most bytes; 0: no cap.
    cap: u64,
    /// Bytes of the disk that are left to others.
    keep_free: u64,
    started: Once,
}

/// Where entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// Frames, sound, clips.
    Prepared,
    /// What was fetched.
    Sources,
}

#[derive(Debug)]
struct Found {
    used: SystemTime,
    bytes: u64,
    dir: PathBuf,
}

impl Space {
    pub(crate) fn new(root: PathBuf, cap: u64, keep_free: u64) -> Self {
        Self { root, cap, keep_free, started: Once::new() }
    }

    pub(crate) fn cap(&self) -> Option<u64> {
        (self.cap > 0).then_some(self.cap)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The place of an entry.
    pub(crate) fn place(&self, area: Area, name: &str) -> PathBuf {
        let area = match area {
            Area::Prepared => "prepared",
            Area::Sources => "sources",
        };
        self.root.join(area).join(name)
    }

    /// A directory to make the entry `name` in; none while somebody else makes it. The first call removes what killed
    /// processes left. Blocking.
    pub(crate) fn begin(&self, name: &str) -> Result<Option<Making>, MediaError> {
        self.started.call_once(|| {
            // Counting sweeps; if it cannot, the first reservation says why.
            let counted = self.ledger().map(|mut ledger| ledger.write(self.count(None).0));
            if let Err(error) = counted {
                tracing::debug!(%error, "the media cache cannot be counted yet");
            }
        });
        self.with_room(BLOCK * 4, || Making::begin(&self.making(), name))
    }

    /// Whether somebody is making the entry `name`. Blocking.
    pub(crate) fn is_begun(&self, name: &str) -> bool {
        making::is_held(&self.making().join(name))
    }

    /// Sets so many bytes aside for an entry, in place of what was set aside for it before, and removes what was used longest
    /// ago if it has to; false if what is in use leaves no room. Blocking.
    pub(crate) fn reserve(&self, making: &Making, bytes: u64) -> Result<bool, MediaError> {
        let mut ledger = self.ledger().map_err(|error| failed(&self.root, bytes, &error))?;
        let before = making.reserved();
        let free = self.free();
        let fits = |others: u64, freed: u64, slack: u64| {
            let room = bytes.saturating_add(slack);
            (self.cap == 0 || others.saturating_add(room) <= self.cap)
                && (self.keep_free == 0 || free.saturating_add(freed) >= room.saturating_add(self.keep_free))
        };
        let mut others = ledger.read().map(|used| used.saturating_sub(before));
        if others.is_none_or(|others| !fits(others, 0, 0)) {
            let (mut left, mut found) = self.count(Some(making));
            let mut freed = 0;
            if !fits(left, freed, 0) {
                found.sort_by_key(|entry| entry.used);
                let mut oldest = found.into_iter();
                while !fits(left, freed, self.cap / SLACK)
                    && let Some(entry) = oldest.next()
                {
                    if self.remove(&entry.dir) {
                        left = left.saturating_sub(entry.bytes);
                        freed += entry.bytes;
                    }
                }
            }
            if !fits(left, freed, 0) {
                ledger.write(left.saturating_add(before));
                return Ok(false);
            }
            others = Some(left);
        }
        ledger.write(others.unwrap_or_default().saturating_add(bytes));
        making.reserve(bytes);
        Ok(true)
    }

    /// Does what writes to the cache; if the disk is full, removes what was used longest ago and does it once more.
    /// `bytes` are about to be needed. Blocking.
    pub(crate) fn with_room<T>(&self, bytes: u64, write: impl Fn() -> io::Result<T>) -> Result<T, MediaError> {
        let written = match write() {
            Err(error) if is_full(&error) => {
                self.make_room(bytes);
                write()
            }
            written => written,
        };
        written.map_err(|error| failed(&self.root, bytes, &error))
    }

    /// Removes entries of at least so many bytes in all, if there are. Blocking.
    pub(crate) fn make_room(&self, bytes: u64) {
        let Ok(mut ledger) = self.ledger() else { return };
        let (mut left, mut found) = self.count(None);
        found.sort_by_key(|entry| entry.used);
        let mut freed = 0;
        for entry in found {
            if freed >= bytes.saturating_add(BLOCK) {
                break;
            }
            if self.remove(&entry.dir) {
                left = left.saturating_sub(entry.bytes);
                freed += entry.bytes;
            }
        }
        ledger.write(left);
    }

    /// Bytes that the disk has left for this process.
    pub(super) fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.root).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn making(&self) -> PathBuf {
        self.root.join("making")
    }

    fn ledger(&self) -> io::Result<Ledger> {
        fs::create_dir_all(&self.root)?;
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(self.root.join("in-use"))?;
        making::hold(&file)?;
        Ok(Ledger(file))
    }

    /// Bytes of everything but one entry in the making, and the entries that may be removed. What nobody works on any more is removed on the way.
    ///
    /// What is being made is counted first: an entry that is finished meanwhile is then counted twice, never missed.
    fn count(&self, except: Option<&Making>) -> (u64, Vec<Found>) {
        let mut total = 0;
        for entry in fs::read_dir(self.making()).into_iter().flatten().flatten() {
            let dir = entry.path();
            if except.is_none_or(|making| making.dir() != dir) && !making::remove_if_abandoned(&dir) {
                total += size_of(&dir).max(making::reserved(&dir));
            }
        }
        let mut found = Vec::new();
        for area in [Area::Prepared, Area::Sources] {
            for entry in fs::read_dir(self.place(area, "")).into_iter().flatten().flatten() {
                let dir = entry.path();
                let used = fs::metadata(dir.join(MANIFEST)).and_then(|manifest| manifest.modified());
                let (used, bytes) = (used.unwrap_or(SystemTime::UNIX_EPOCH), size_of(&dir));
                total += bytes;
                found.push(Found { used, bytes, dir });
            }
        }
        (total, found)
    }

    fn remove(&self, dir: &Path) -> bool {
        let removed = || {
            fs::create_dir_all(self.making())?;
            let aside = tempfile::Builder::new().prefix("removed-").tempdir_in(self.making())?;
            making::take_out(dir, &aside.path().join("entry"))
        };
        removed().unwrap_or_else(|error| {
            // Without room for a directory to move it to, it is removed where it is; what is left of it does not load.
            is_full(&error) && making::take_out(dir, &dir.with_extension("removed")).unwrap_or(false) && {
                drop(fs::remove_dir_all(dir.with_extension("removed")));
                true
            }
        })
    }
}

/// Bytes on disk of a directory and all below it.
pub(crate) fn size_of(dir: &Path) -> u64 {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => on_disk(metadata.size()),
        Err(_) => 0,
    });
    BLOCK + below.sum::<u64>()
}

/// What a file of so many bytes takes.
pub(crate) fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The number of bytes in use, under its lock.
struct Ledger(File);

impl Ledger {
    fn read(&mut self) -> Option<u64> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        (&mut self.0).take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// A number that cannot be written is taken away, so that the next one counts.
    fn write(&mut self, used: u64) {
        let written = self.0.rewind().and_then(|()| self.0.write_all(format!("{used:20}\n").as_bytes()));
        if written.is_err() {
            drop(self.0.set_len(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;
    use crate::media::cache::making::Lease;

    fn entry(space: &Space, area: Area, name: &str, bytes: usize, age: u64) -> PathBuf {
        let dir = space.place(area, name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("data"), vec![1; bytes]).unwrap();
        fs::write(dir.join(MANIFEST), "{}").unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(dir.join(MANIFEST)).unwrap().set_modified(used).unwrap();
        dir
    }

    fn space(cap: u64) -> (tempfile::TempDir, Space) {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().join("cache"), cap, 0);
        (dir, space)
    }

    #[test]
    fn the_longest_unused_goes_first_whatever_it_is_and_what_is_in_use_stays() {
        let (_dir, space) = space(400 << 10);
        let old = entry(&space, Area::Sources, "old", 92 << 10, 400);
        let used = entry(&space, Area::Prepared, "used", 92 << 10, 300);
        let middle = entry(&space, Area::Prepared, "middle", 92 << 10, 200);
        let young = entry(&space, Area::Sources, "young", 92 << 10, 100);
        let lease = Lease::of(&used).unwrap();
        let making = space.begin("new").unwrap().unwrap();
        assert!(space.reserve(&making, 90 << 10).unwrap());
        let there = || [&old, &used, &middle, &young].map(|dir| dir.exists());
        assert_eq!(there(), [false, true, false, true], "a slack of a sixteenth goes as well");
        assert!(!space.reserve(&making, 401 << 10).unwrap());
        drop((lease, making));
        assert_eq!(fs::read_dir(space.making()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_set_aside_counts_until_it_is_given_back_or_its_owner_is_gone() {
        let (_dir, space) = space(100 << 10);
        let [first, second] = ["a", "b"].map(|name| space.begin(name).unwrap().unwrap());
        assert!(space.reserve(&first, 80 << 10).unwrap());
        assert!(space.reserve(&first, 90 << 10).unwrap(), "its own does not count against it");
        let other = Space::new(space.root.clone(), space.cap, 0);
        assert!(!other.reserve(&second, 40 << 10).unwrap(), "another process sees it too");
        assert!(space.reserve(&first, 40 << 10).unwrap());
        assert!(other.reserve(&second, 40 << 10).unwrap());
        drop(first);
        assert!(other.reserve(&second, 90 << 10).unwrap(), "a new count does not find what is gone");
    }

    #[test]
    fn what_lies_in_the_making_counts_once() {
        let (_dir, space) = space(100 << 10);
        let making = space.begin("a").unwrap().unwrap();
        fs::write(making.entry().unwrap().join("data"), vec![1; 60 << 10]).unwrap();
        fs::remove_file(space.root.join("in-use")).unwrap();
        assert!(space.reserve(&making, 70 << 10).unwrap());
        let next = space.begin("b").unwrap().unwrap();
        fs::remove_file(space.root.join("in-use")).unwrap();
        assert!(!space.reserve(&next, 40 << 10).unwrap() && space.reserve(&next, 20 << 10).unwrap());
    }

    #[test]
    fn a_wrong_number_is_counted_again_before_anything_goes() {
        let (_dir, space) = space(100 << 10);
        let dir = entry(&space, Area::Prepared, "a", 10 << 10, 10);
        for wrong in ["99999999999999", "", "x", "18446744073709551615"] {
            let making = space.begin("new").unwrap().unwrap();
            fs::write(space.root.join("in-use"), wrong).unwrap();
            assert!(space.reserve(&making, 20 << 10).unwrap() && dir.exists(), "{wrong:?}");
        }
    }

    #[test]
    fn a_full_disk_makes_room_and_then_says_what_is_needed() {
        let (_dir, space) = space(0);
        let (old, young) = (entry(&space, Area::Prepared, "o", 9000, 9), entry(&space, Area::Sources, "y", 9000, 5));
        let tries = std::cell::Cell::new(0);
        let full = || {
            tries.set(tries.get() + 1);
            io::Result::<()>::Err(Errno::NOSPC.into())
        };
        let error = space.with_room(5000, full).unwrap_err();
        assert_eq!((tries.get(), old.exists(), young.exists()), (2, false, true));
        let root = space.root.display().to_string();
        for words in [&*root, "5000 bytes are needed", "are free", "media.cache_gib"] {
            assert!(error.message.contains(words), "{error}");
        }
        for errno in [Errno::DQUOT, Errno::FBIG] {
            assert!(
                space.with_room(1, || io::Result::<()>::Err(errno.into())).unwrap_err().message.contains("no room")
            );
        }
    }

    #[test]
    fn the_rest_of_the_disk_is_left_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().to_owned(), 0, u64::MAX / 2);
        let entry = entry(&space, Area::Prepared, "a", 100, 1);
        let making = space.begin("new").unwrap().unwrap();
        assert!(!space.reserve(&making, 1).unwrap() && !entry.exists());
        assert!(Space::new(dir.path().to_owned(), 0, 1).reserve(&making, 1).unwrap());
    }
}
