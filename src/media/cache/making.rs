//! An entry in the making: a directory with a name of its own, locked by whoever works in it.
//!
//! The lock is an advisory one (flock) on the directory itself: the kernel drops it with its holder, however that ends,
//! so a killed process blocks nobody, and what it left can be told from what is being made. Rejected: lock files with
//! process ids (ids come again, and containers share directories but not ids) and ages (a guess that is wrong both ways).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longest wait for a lock that is only ever held for a moment.
const MOMENT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(1);
/// So many entries may be in the way of one, as others publish the same at once.
const REPLACED: u32 = 100;

/// A directory to make one entry in. Dropped, all that was not published is removed.
#[derive(Debug)]
pub(crate) struct Making {
    dir: PathBuf,
    _lock: File,
    /// Bytes that are set aside for it.
    reserved: AtomicU64,
}

impl Making {
    /// The directory `name` below `area`, empty; none while somebody else is at it. Blocking.
    pub(crate) fn begin(area: &Path, name: &str) -> io::Result<Option<Self>> {
        let dir = area.join(name);
        loop {
            fs::create_dir_all(area)?;
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let Some(lock) = if_there(File::open(&dir))? else { continue };
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) if is_at(&lock, &dir)? => {
                    clear(&dir)?;
                    return Ok(Some(Self { dir, _lock: lock, reserved: AtomicU64::new(0) }));
                }
                // Its last owner has just removed it.
                Ok(()) => {}
            }
        }
    }

    /// Where files of the child processes go.
    pub(crate) fn work(&self) -> io::Result<PathBuf> {
        self.sub("work")
    }

    /// What becomes the entry.
    pub(crate) fn entry(&self) -> io::Result<PathBuf> {
        self.sub("entry")
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Notes what is set aside, for this process and, beside the entry, for those who count.
    pub(super) fn reserve(&self, bytes: u64) {
        self.reserved.store(bytes, Ordering::Relaxed);
        if let Err(error) = fs::write(self.dir.join(RESERVED), bytes.to_string()) {
            tracing::debug!(%error, "what is set aside cannot be noted; what is written counts");
        }
    }

    /// Puts the entry into its place, durably. One in the way is damaged, or an equal one of another process.
    pub(crate) fn publish(&self, to: &Path) -> io::Result<()> {
        let (entry, area) = (self.entry()?, to.parent().unwrap_or(to));
        File::open(&entry)?.sync_all()?;
        fs::create_dir_all(area)?;
        let mut tries = 0;
        while let Err(error) = fs::rename(&entry, to) {
            tries += 1;
            if tries > REPLACED {
                return Err(error);
            }
            // It may be gone, and the next one there, between these two.
            if_there(fs::rename(to, self.dir.join(format!("replaced-{tries}"))))?;
        }
        File::open(area)?.sync_all()
    }

    fn sub(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.dir.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(dir),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, "an unfinished cache entry stays until somebody sweeps");
        }
    }
}

const RESERVED: &str = "reserved";

/// What was set aside for the entry that is made in `dir`.
pub(super) fn reserved(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(RESERVED)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether somebody works in `dir`. Blocking. The look itself takes the lock for a moment, and whoever finds it taken then
/// looks again.
pub(super) fn is_held(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Removes `dir` if nobody works in it. Blocking.
pub(super) fn remove_if_abandoned(dir: &Path) -> bool {
    let abandoned = || {
        let lock = File::open(dir)?;
        if lock.try_lock().is_err() || !is_at(&lock, dir)? {
            return Ok(false);
        }
        fs::remove_dir_all(dir)?;
        io::Result::Ok(true)
    };
    abandoned().unwrap_or(false)
}

/// An entry that is in use: as long as this lives, nobody removes it.
#[derive(Debug)]
pub(crate) struct Lease {
    _lock: File,
}

impl Lease {
    /// A lease on the entry in `dir`; none if there is none, or it is just being removed. Blocking, for a moment.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        for _ in 0..MOMENT.as_millis() / STEP.as_millis() {
            let lock = File::open(dir).ok()?;
            match lock.try_lock_shared() {
                Ok(()) => return is_at(&lock, dir).ok()?.then_some(Self { _lock: lock }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(STEP),
                Err(TryLockError::Error(_)) => return None,
            }
        }
        None
    }
}

/// Takes the entry in `dir` out of use by moving it to `to`; false if somebody uses it. Blocking.
pub(super) fn take_out(dir: &Path, to: &Path) -> io::Result<bool> {
    let Some(lock) = if_there(File::open(dir))? else { return Ok(false) };
    if lock.try_lock().is_err() || !is_at(&lock, dir)? {
        return Ok(false);
    }
    fs::rename(dir, to)?;
    Ok(true)
}

/// An exclusive lock on a file that is only ever held for a moment. Blocking.
pub(super) fn hold(file: &File) -> io::Result<()> {
    let began = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if began.elapsed() < MOMENT * 6 => std::thread::sleep(STEP),
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Whether what was opened and locked is still what the path names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let Some(there) = if_there(fs::metadata(path))? else { return Ok(false) };
    let mine = file.metadata()?;
    Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino()))
}

fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_works_on_an_entry_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || Making::begin(dir.path(), "a").unwrap();
        let first = begin().unwrap();
        fs::write(first.work().unwrap().join("x"), "x").unwrap();
        assert!(begin().is_none() && is_held(&dir.path().join("a")));
        assert!(!remove_if_abandoned(&dir.path().join("a")));
        drop(first);
        assert!(!dir.path().join("a").exists() && !is_held(&dir.path().join("a")));
        assert!(begin().is_some());
    }

    #[test]
    fn what_a_dead_owner_left_is_cleared_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/work")).unwrap();
        fs::write(dir.path().join("a/work/sound.pcm"), "x").unwrap();
        fs::create_dir_all(dir.path().join("b/entry")).unwrap();
        let making = Making::begin(dir.path(), "a").unwrap().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
        assert!(remove_if_abandoned(&dir.path().join("b")) && !dir.path().join("b").exists());
        drop(making);
    }

    #[test]
    fn an_entry_in_use_is_not_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let (making, place) =
            (Making::begin(&dir.path().join("making"), "a").unwrap().unwrap(), dir.path().join("kept/a"));
        fs::write(making.entry().unwrap().join("data"), "1").unwrap();
        let lease = Lease::of(&making.entry().unwrap()).unwrap();
        making.publish(&place).unwrap();
        drop(making);
        let out = dir.path().join("out");
        assert!(!take_out(&place, &out).unwrap(), "the lease moved with the entry");
        let second = Lease::of(&place).unwrap();
        drop(lease);
        assert!(!take_out(&place, &out).unwrap());
        drop(second);
        assert!(take_out(&place, &out).unwrap() && out.join("data").exists() && Lease::of(&place).is_none());
    }

    #[test]
    fn an_entry_in_the_way_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("kept/a");
        for content in ["1", "2"] {
            let making = Making::begin(&dir.path().join("making"), "a").unwrap().unwrap();
            fs::write(making.entry().unwrap().join("data"), content).unwrap();
            making.publish(&place).unwrap();
        }
        assert_eq!(fs::read_to_string(place.join("data")).unwrap(), "2");
        assert_eq!(fs::read_dir(dir.path().join("making")).unwrap().count(), 0);
    }

    #[test]
    fn many_may_publish_the_same_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (area, place) = (dir.path().join("making"), dir.path().join("kept/a"));
        let together = std::sync::Barrier::new(8);
        let publish = |thread: u32| {
            let once = || {
                let making = Making::begin(&area, &format!("{thread}"))?.unwrap();
                fs::write(making.entry()?.join("data"), "1")?;
                together.wait();
                making.publish(&place)
            };
            // All come to the barrier as often, whatever fails.
            let ends: Vec<_> = (0..50).map(|_| once()).collect();
            ends.into_iter().collect::<io::Result<()>>()
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8)
                .map(|thread| {
                    scope.spawn({
                        let publish = &publish;
                        move || publish(thread)
                    })
                })
                .collect();
            for thread in all {
                thread.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_to_string(place.join("data")).unwrap(), "1");
    }
}
