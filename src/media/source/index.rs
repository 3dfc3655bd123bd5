//! What is known of URLs, across processes: which content each had, and the tag to ask whether it still has it.
//!
//! One small file per URL, named by the URL's hash, as a URL may hold a credential. An entry outlives the content: a tag
//! that still holds says which prepared entry to use, without the source. One that is damaged or gone costs a download.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Entries that nobody asked for in so long are removed at start.
const KEPT: Duration = Duration::from_hours(24 * 30);

/// What a URL had when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// The server's strong entity tag, if it gave one.
    pub(super) etag: Option<String>,
    /// When, in milliseconds since 1970.
    pub(super) checked_ms: u64,
}

/// The directory of these files.
#[derive(Debug)]
pub(super) struct Index(PathBuf);

impl Index {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Blocking.
    pub(super) fn read(&self, url: &str) -> Option<Known> {
        let known: Known = serde_json::from_slice(&fs::read(self.file(url)).ok()?).ok()?;
        (known.sha256.len() == 64 && known.sha256.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(known)
    }

    /// Blocking. What cannot be written is only asked for again.
    pub(super) fn write(&self, url: &str, known: &Known) {
        let write = || {
            fs::create_dir_all(&self.0)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec(known)?)?;
            file.persist(self.file(url))?;
            std::io::Result::Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "what is known of a URL is not kept");
        }
    }

    /// Removes old entries. Blocking.
    pub(super) fn sweep(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).map(|at| SystemTime::now().duration_since(at));
            if matches!(age, Ok(Ok(age)) if age > KEPT) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn file(&self, url: &str) -> PathBuf {
        self.0.join(Path::new(url)).with_extension("json")
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_again_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path().join("urls"));
        let known = Known { sha256: "a".repeat(64), bytes: 5, etag: Some("\"x\"".into()), checked_ms: now_ms() };
        assert_eq!(index.read("u"), None);
        index.write("u", &known);
        assert_eq!((index.read("u"), index.read("v")), (Some(known.clone()), None));
        for damaged in ["", "{", "{\"sha256\":\"../../etc\",\"bytes\":1,\"etag\":null,\"checked_ms\":1}"] {
            fs::write(index.file("u"), damaged).unwrap();
            assert_eq!(index.read("u"), None, "{damaged}");
        }
        index.write("u", &known);
        let old = SystemTime::now() - KEPT - Duration::from_mins(1);
        fs::File::options().write(true).open(index.file("u")).unwrap().set_modified(old).unwrap();
        index.sweep();
        assert_eq!(index.read("u"), None);
    }
}
