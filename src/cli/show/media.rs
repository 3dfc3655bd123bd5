//! Where the files lie that were prepared of an item's media.
//!
//! Entries of the media cache are named by content, so what any recipe made of it is found; which of them an item was shown
//! is said by the record. Anything may be gone by now: the cache makes room.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::record::Record;

/// What is kept of one medium.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    /// Its name in the item.
    name: String,
    /// As the record has it.
    uri: String,
    /// The cache.
    cache: PathBuf,
    /// Directories in it: what was prepared, and the source where it was fetched.
    prepared: Vec<PathBuf>,
}

/// What `cache` keeps of a record's media.
pub(super) fn kept(cache: &Path, record: &Record) -> Vec<Kept> {
    let of = |medium: &crate::record::RecordMedium| Kept {
        name: medium.name.clone(),
        uri: medium.uri.clone(),
        cache: cache.to_owned(),
        prepared: medium.sha256.as_deref().map_or_else(Vec::new, |sha256| entries(cache, sha256)),
    };
    record.media.iter().map(of).collect()
}

fn entries(cache: &Path, sha256: &str) -> Vec<PathBuf> {
    let names = |area: &str| fs::read_dir(cache.join(area)).into_iter().flatten().flatten();
    let mine = |name: &str| name.strip_prefix(sha256).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let all = names("prepared").chain(names("sources"));
    let mut found: Vec<_> = all.filter(|e| e.file_name().to_str().is_some_and(mine)).map(|e| e.path()).collect();
    found.sort();
    found
}

impl Kept {
    pub(super) fn text(&self) -> String {
        let mut text = format!("medium {:?}: {}\n", self.name, self.uri);
        for place in &self.prepared {
            text += &format!("  in {}\n", place.display());
        }
        if self.prepared.is_empty() {
            text += &format!("  nothing of it is kept in {} now\n", self.cache.display());
        }
        text
    }
}
