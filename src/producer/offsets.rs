//! How far the corpora were read and enqueued, in a small file, so that a run that goes on need not read all again.
//!
//! It only saves reading: what it says is believed only while the run is the one it was written for (made at the same time,
//! its queue never lost since) and the corpus is the file it was (length, time of change, first block). It is replaced
//! whole, about once a second. Where lines were rejected, it is believed only together with the file that has them, as
//! they would otherwise be forgotten.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::args::{ProducerArgs, STDIN};
use super::enqueue::Done;
use super::rejects::Mark;
use crate::cli::{Failure, say};
use crate::corpus::reader::Place;
use crate::shared::runs::RunInfo;

const VERSION: u32 = 1;
/// Between two writes.
const PAUSE: Duration = Duration::from_secs(1);
/// Of a corpus, what is looked at whether it is the same.
const BLOCK: u64 = 64 * 1024;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    version: u32,
    run: String,
    created_at: i64,
    generation: u64,
    rejected: u64,
    rejects: Option<Mark>,
    corpora: Vec<Part>,
}

/// Of one corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    corpus: String,
    stamp: Option<Stamp>,
    place: Place,
}

/// By which a file is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    changed_ns: u64,
    block: String,
}

/// How far the corpora were read.
#[derive(Debug)]
pub(super) struct Offsets {
    path: Option<PathBuf>,
    now: Written,
    written: Option<Instant>,
}

impl Offsets {
    /// What is noted of a run.
    pub(super) fn open(args: &ProducerArgs, run: &RunInfo) -> Result<Self, Failure> {
        let mut offsets = Self::none(args)?;
        offsets.now.created_at = run.created_at;
        offsets.now.generation = run.generation;
        offsets.path = path(args);
        let before = offsets.path.as_deref().filter(|_| !args.from_start).and_then(read);
        if let Some(before) = before {
            offsets.go_on(before, args.rejects.as_deref());
        }
        Ok(offsets)
    }

    /// Nothing: all is read from its start.
    pub(super) fn none(args: &ProducerArgs) -> Result<Self, Failure> {
        let part = |corpus: &String| {
            let is_file = corpus != STDIN && !corpus.starts_with("s3://");
            let stamp = is_file.then(|| stamp(Path::new(corpus))).transpose();
            let stamp = stamp.map_err(|error| Failure::failed(format!("{corpus} cannot be read: {error}")))?;
            Ok(Part { corpus: corpus.clone(), stamp, place: Place::default() })
        };
        let corpora = args.corpora.iter().map(part).collect::<Result<_, Failure>>()?;
        let now = Written {
            version: VERSION,
            run: args.run.clone(),
            created_at: 0,
            generation: 0,
            rejected: 0,
            rejects: None,
            corpora,
        };
        Ok(Self { path: None, now, written: None })
    }

    fn go_on(&mut self, before: Written, rejects: Option<&Path>) {
        let same_run = before.version == VERSION
            && before.run == self.now.run
            && before.created_at == self.now.created_at
            && before.generation == self.now.generation;
        let known =
            |part: &Part, old: &Part| part.stamp.is_some() && (&part.corpus, &part.stamp) == (&old.corpus, &old.stamp);
        let all_known = before
            .corpora
            .iter()
            .zip(&self.now.corpora)
            .all(|(old, part)| old.place == Place::default() || known(part, old));
        let whole =
            before.rejected == 0 || (all_known && before.rejects.as_ref().is_some_and(|mark| mark.stands(rejects)));
        if !same_run || !whole {
            return;
        }
        for (part, old) in self.now.corpora.iter_mut().zip(before.corpora) {
            if known(part, &old) {
                part.place = old.place;
            }
        }
        self.now.rejected = before.rejected;
        self.now.rejects = before.rejects.filter(|_| before.rejected > 0);
    }

    /// After what a corpus is read.
    pub(super) fn of(&self, corpus: usize) -> Place {
        self.now.corpora.get(corpus).map_or_else(Place::default, |part| part.place)
    }

    /// Lines rejected of what is not read again.
    pub(super) fn rejected(&self) -> u64 {
        self.now.rejected
    }

    /// What of the file of rejected lines belongs to them.
    pub(super) fn rejects(&self) -> Option<&Mark> {
        self.now.rejects.as_ref()
    }

    /// Bytes read of all corpora.
    pub(super) fn bytes(&self) -> u64 {
        self.now.corpora.iter().map(|part| part.place.bytes).sum()
    }

    /// A batch is confirmed, and all before it.
    pub(super) fn advance(&mut self, done: &Done, rejects: Option<Mark>) -> Result<(), Failure> {
        if let Some(part) = self.now.corpora.get_mut(done.corpus) {
            part.place = done.place;
        }
        self.now.rejected += done.rejects.len() as u64;
        self.now.rejects = rejects;
        if self.written.is_none_or(|written| written.elapsed() >= PAUSE) { self.write() } else { Ok(()) }
    }

    /// Writes what is known. A folder that cannot be written to costs time at the next start, no more: it is said once.
    pub(super) fn write(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = serde_json::to_vec(&self.now).map_err(|error| Failure::failed(error.to_string()))?;
        if let Err(error) = replace(path, &text) {
            say(&format!(
                "warning: {} cannot be written ({error}), so the same command would read all again; give --state FILE\n",
                path.display()
            ));
            self.path = None;
        }
        self.written = Some(Instant::now());
        Ok(())
    }
}

fn path(args: &ProducerArgs) -> Option<PathBuf> {
    args.state.clone().or_else(|| {
        let first = args.corpora.iter().find(|corpus| *corpus != STDIN && !corpus.starts_with("s3://"))?;
        Some(PathBuf::from(format!("{first}.aurelia-{}", args.run)))
    })
}

fn read(path: &Path) -> Option<Written> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.persist(path)?;
    Ok(())
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    let changed = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut block = Vec::new();
    if found.is_file() {
        file.take(BLOCK).read_to_end(&mut block)?;
    }
    Ok(Stamp {
        bytes: found.len(),
        changed_ns: u64::try_from(changed.as_nanos()).unwrap_or(u64::MAX),
        block: blake3::hash(&block).to_hex().to_string(),
    })
}
