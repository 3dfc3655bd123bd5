//! `manifest.json`: what a data set consists of. What is not in it is not part of the data set.
//!
//! Its counts are those of the latest record of each item. Older records stay in their shards: where `superseded` is not 0, a
//! reader takes of each item the record with the highest revision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{ByTry, Status};
use crate::shared::runs::Collected;

/// Its name in the folder of a run.
pub const NAME: &str = "manifest.json";
/// Version of its shape.
pub const SCHEMA_VERSION: u32 = 1;

/// A data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The run's name.
    pub run: String,
    /// The recipe of its records.
    pub recipe_digest: String,
    /// Version of the records' shape.
    pub record_schema_version: u32,
    /// All items of the run are enqueued.
    pub sealed: bool,
    /// Every job has a record or was purged, and no more will come.
    pub complete: bool,
    /// Jobs purged by a cancel.
    pub purged: u64,
    /// The counts.
    #[serde(flatten)]
    pub totals: Totals,
    /// In the order in which they were written.
    pub shards: Vec<Shard>,
    /// Who wrote it last; another word with every write, so that no two manifests are alike.
    pub writer: String,
}

/// Counts of a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records.
    pub jobs: u64,
    /// Items with a record.
    pub items: u64,
    /// Records of items that have a later one.
    pub superseded: u64,
    /// Items by the status of their latest record.
    pub by_status: BTreeMap<Status, u64>,
    /// Sum over all records.
    pub cost_nano_usd: u64,
    /// The tries of all records by their place in the loop; the first entry is of try 1.
    #[serde(default)]
    pub tries: ByTry,
    /// Replies that records rest on and that were not in the journal any more.
    pub replies_missing: u64,
}

/// A shard with what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The records.
    #[serde(flatten)]
    pub records: Part,
    /// Its records by status.
    pub by_status: BTreeMap<Status, u64>,
    /// Money in its records.
    pub cost_nano_usd: u64,
    /// The ids of its records, for the collector.
    pub ids: Part,
    /// The jobs of its records that may be asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Part>,
    /// The replies that its records rest on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies: Option<Part>,
    /// What is still to be done about its replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies_due: Option<Due>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Lines, or ids.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its digest in hex.
    pub blake3: String,
}

/// What is still to be done about the replies of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Due {
    /// The journal could not be read: they are packed later.
    Pack,
    /// They are packed, and the journal is not yet told how long to keep them.
    Expire,
}

impl Manifest {
    pub(super) fn new(run: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            run: run.to_owned(),
            record_schema_version: crate::record::SCHEMA_VERSION,
            ..Self::default()
        }
    }

    /// Reads one.
    pub(super) fn read(path: &str, bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|e| format!("{path} is not a manifest ({e}); put it right, or move it away with its shards"))?;
        if manifest.schema_version > SCHEMA_VERSION {
            let version = manifest.schema_version;
            return Err(format!("{path} has version {version}, newer than {SCHEMA_VERSION}; use a newer aurelia"));
        }
        Ok(manifest)
    }

    /// As it is written, under a word that no other has.
    pub(super) fn write(&mut self) -> Result<Vec<u8>, String> {
        self.writer = unique();
        serde_json::to_vec_pretty(self).map_err(|e| e.to_string())
    }

    /// All that belongs to it.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(Shard::parts).map(|part| part.name.as_str())
    }

    /// The number of the shard after all that are listed.
    pub(super) fn next(&self) -> u32 {
        self.shards.iter().filter_map(Shard::number).max().map_or(0, |last| last.saturating_add(1))
    }

    /// What the registry of runs is told.
    pub(super) fn collected(&self) -> Collected {
        Collected {
            jobs: self.totals.jobs,
            by_status: self.totals.by_status.clone(),
            cost_nano_usd: self.totals.cost_nano_usd,
            tries: self.totals.tries.clone(),
            complete: self.complete,
        }
    }
}

impl Shard {
    fn parts(&self) -> impl Iterator<Item = &Part> {
        [Some(&self.records), Some(&self.ids), self.retry.as_ref(), self.replies.as_ref()].into_iter().flatten()
    }

    /// All its bytes, with what lies beside it.
    pub(super) fn bytes(&self) -> u64 {
        self.parts().map(|part| part.bytes).sum()
    }

    pub(super) fn number(&self) -> Option<u32> {
        Kind::of(&self.records.name).map(|(_, number)| number)
    }
}

/// What a file beside the manifest holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ids,
    Replies,
    Retry,
    Records,
}

impl Kind {
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Ids, "ids-", ".bin"),
        (Self::Replies, "replies-", ".jsonl.zst"),
        (Self::Retry, "retry-", ".jsonl.zst"),
        (Self::Records, "records-", ".jsonl.zst"),
    ];

    /// The name of this kind of a shard's file.
    pub(super) fn name(self, number: u32) -> String {
        let (_, before, after) = Self::ALL[self as usize];
        format!("{before}{number:05}{after}")
    }

    /// What a name says.
    pub(super) fn of(name: &str) -> Option<(Self, u32)> {
        Self::ALL.iter().find_map(|(kind, before, after)| {
            let number = name.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?;
            (kind.name(number) == name).then_some((*kind, number))
        })
    }
}

/// A word that nobody else comes upon.
pub(super) fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = jiff::Timestamp::now().as_nanosecond();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let draw = crate::retry::jitter().to_bits();
    let text = format!("{now} {} {count} {draw} {:?}", std::process::id(), std::thread::current().id());
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (kind, ..) in Kind::ALL {
            for number in [0, 7, 99_999, 100_000] {
                assert_eq!(Kind::of(&kind.name(number)), Some((kind, number)));
            }
        }
        assert_eq!(Kind::Records.name(12), "records-00012.jsonl.zst");
        for other in ["records-12.jsonl.zst", "records-00012.jsonl", "notes.txt", "manifest.json"] {
            assert_eq!(Kind::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_manifest_that_is_none_of_ours_is_not_written_over() {
        assert!(Manifest::read("m", b"{}").unwrap_err().contains("m is not a manifest"));
        let mut manifest = Manifest::new("r");
        let bytes = manifest.write().unwrap();
        assert_eq!(Manifest::read("m", &bytes).unwrap(), manifest);
        manifest.schema_version = 2;
        assert!(Manifest::read("m", &manifest.write().unwrap()).unwrap_err().contains("newer aurelia"));
    }
}
