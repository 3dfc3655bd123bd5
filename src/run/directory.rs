//! The output directory: `records.jsonl`, `records.superseded.jsonl`, and the state in `.aurelia/`.
//!
//! A directory belongs to one run and one recipe, and an item of it never changes: what was paid for one question must
//! not be filed under another. The state lives inside it, or in a file shared on purpose (`[shared] url`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pin::{folder_name, pin, same_state};
use super::plan::Fingerprint;
use super::records::{self, Fate, Head, cut_torn_line, read_heads, records_path};
use super::{Options, RunError, fingerprint};
use crate::config::{Config, Shared};
use crate::job::Again;
use crate::recipe::Recipe;
use crate::record::Status;
use crate::state::State;

/// An open output directory.
#[derive(Debug)]
pub struct Directory {
    /// The folder.
    pub path: PathBuf,
    /// The run's name.
    pub run: String,
    /// What its money is booked under: the directory, whatever runs are in it.
    pub place: String,
    /// Its state.
    pub state: Arc<State>,
    /// Keeps other processes out, wherever their state is.
    _lock: File,
}

/// What the directory holds of a run.
#[derive(Debug, Default)]
pub struct Existing {
    /// Items with a record, or taken since.
    pub taken: HashSet<Fingerprint>,
    /// Records by status.
    pub by_status: BTreeMap<Status, u64>,
    /// Those of `taken` that are to be asked for again, with their status.
    pub retry: HashMap<Fingerprint, Status>,
    /// What items whose record was superseded start with.
    pub again: HashMap<Fingerprint, Start>,
}

/// Where an item's next job starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start {
    /// Its revision.
    pub revision: u32,
    /// What it may use beyond the recipe.
    pub again: Again,
}

/// Where the state is.
pub fn state_path(config: &Config, out: &Path) -> PathBuf {
    // A fleet's state is refused before this is asked.
    if let Shared::Embedded(path) = &config.shared { path.clone() } else { out.join(".aurelia").join("state.sqlite") }
}

/// Where the media of a directory are kept that are prepared with this configuration.
pub fn media_path(config: &Config, out: &Path) -> PathBuf {
    config.media.cache_dir.clone().unwrap_or_else(|| own_media(out))
}

fn own_media(out: &Path) -> PathBuf {
    out.join(".aurelia").join("media")
}

impl Directory {
    #[cfg(test)]
    pub(super) fn for_test(path: &Path, state: Arc<State>) -> Self {
        fs::create_dir_all(path.join(".aurelia")).unwrap();
        let lock = crate::state::hold(&path.join("directory")).unwrap();
        Self { path: path.to_owned(), run: "r".to_owned(), place: ".".to_owned(), state, _lock: lock }
    }

    /// Makes or opens the directory, takes its lock, and checks that run and recipe are the same.
    pub async fn open(config: &Config, recipe: &Recipe, options: &Options) -> Result<Self, RunError> {
        if !matches!(config.shared, Shared::Output | Shared::Embedded(_)) {
            let message = "[shared] url names the state of a fleet, and this command keeps its own: set it to \"\" or \
                           \"embedded:PATH\", or enqueue the corpus with aurelia-producer";
            return Err(RunError::Setup(message.to_owned()));
        }
        let path = options.out.clone();
        let failed = |e: std::io::Error| RunError::Failed(format!("{}: {e}", path.display()));
        let inner = path.join(".aurelia");
        fs::create_dir_all(&inner).map_err(failed)?;
        let lock = crate::state::hold(&inner.join("directory"))?;
        let state_path = state_path(config, &path);
        same_state(&inner, &config.shared)?;
        let state = Arc::new(State::open(&state_path)?);
        // The directory may be moved with its state.
        let place = if matches!(config.shared, Shared::Embedded(_)) {
            fs::canonicalize(&path).map_err(failed)?.display().to_string()
        } else {
            ".".to_owned()
        };
        let name = if let Some(name) = &options.name { name.clone() } else { folder_name(&path).map_err(failed)? };
        let run = pin(&state, &place, name, recipe, options).await?;
        Ok(Self { path, run, place, state, _lock: lock })
    }

    /// Where its records are.
    pub fn records_path(&self) -> PathBuf {
        records_path(&self.path)
    }

    /// Where prepared media are kept.
    pub fn media_cache(&self) -> PathBuf {
        own_media(&self.path)
    }

    /// Reads what is there of this run, and cuts a torn last line. Beside a single clip's answer each recipe is a run of its
    /// own. Asked for again is what has one of these statuses, but for what an unfinished retry has asked for already.
    pub fn records(&self, retry: &BTreeSet<Status>) -> Result<Existing, RunError> {
        let (records, superseded) = (self.records_path(), self.superseded_path());
        for path in [&records, &superseded] {
            cut_torn_line(path).map_err(|e| RunError::Failed(format!("{}: {e}", path.display())))?;
        }
        let unfinished = fs::read_to_string(self.retry_marker()).is_ok_and(|marker| marker == names(retry));
        let mut existing = Existing::default();
        let mine = |head: &Head| head.run == self.run;
        read_heads(&superseded, |head, _| {
            if mine(&head) {
                let start = existing.again.entry(fingerprint(&head.item_id)).or_default();
                start.revision = start.revision.max(head.revision.saturating_add(1));
                start.again = more(start.again, &head);
            }
            Ok(())
        })
        .map_err(RunError::Failed)?;
        let mut stale = HashSet::new();
        read_heads(&records, |head, _| {
            let item = fingerprint(&head.item_id);
            if mine(&head) && existing.again.get(&item).is_some_and(|start| head.revision < start.revision) {
                stale.insert(item);
            } else if mine(&head) {
                existing.taken.insert(item);
                *existing.by_status.entry(head.status).or_default() += 1;
                if retry.contains(&head.status) && !unfinished {
                    existing.retry.insert(item, head.status);
                }
            }
            Ok(())
        })
        .map_err(RunError::Failed)?;
        if !stale.is_empty() {
            // A kill while they were moved left them in both files.
            self.rewrite(|head| if stale.contains(&fingerprint(&head.item_id)) { Fate::Drop } else { Fate::Keep })?;
        }
        Ok(existing)
    }

    /// Moves the records of `items` to the superseded ones, so that their next job takes their place.
    pub fn supersede(
        &self,
        items: &HashSet<Fingerprint>,
        retry: &BTreeSet<Status>,
        existing: &mut Existing,
    ) -> Result<(), RunError> {
        let mut starts = HashMap::new();
        let before = &existing.again;
        self.rewrite(|head| {
            let item = fingerprint(&head.item_id);
            if !items.contains(&item) {
                return Fate::Keep;
            }
            let again = more(before.get(&item).copied().unwrap_or_default().again, head);
            starts.insert(item, Start { revision: head.revision.saturating_add(1), again });
            Fate::Move
        })?;
        for item in starts.keys() {
            existing.taken.remove(item);
            if let Some(count) = existing.retry.remove(item).and_then(|status| existing.by_status.get_mut(&status)) {
                *count = count.saturating_sub(1);
            }
        }
        existing.by_status.retain(|_, count| *count > 0);
        existing.again.extend(starts);
        fs::write(self.retry_marker(), names(retry)).map_err(|e| self.failed(&e))
    }

    /// Forgets this run's records, which its jobs then write again from the journal.
    pub fn forget(&self, existing: &mut Existing) -> Result<(), RunError> {
        self.rewrite(|_| Fate::Drop)?;
        existing.taken.clear();
        existing.by_status.clear();
        Ok(())
    }

    /// A retry is over: the same command asks again for what has those statuses now.
    pub fn retry_is_over(&self) -> Result<(), RunError> {
        match fs::remove_file(self.retry_marker()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.failed(&e)),
            _ => Ok(()),
        }
    }

    fn rewrite(&self, mut fate: impl FnMut(&Head) -> Fate) -> Result<(), RunError> {
        let fate = |head: &Head| if head.run == self.run { fate(head) } else { Fate::Keep };
        records::rewrite(&self.records_path(), &self.superseded_path(), fate).map_err(RunError::Failed)
    }

    fn superseded_path(&self) -> PathBuf {
        records::superseded_path(&self.path)
    }

    fn retry_marker(&self) -> PathBuf {
        self.path.join(".aurelia").join("retry")
    }

    fn failed(&self, error: &std::io::Error) -> RunError {
        RunError::Failed(format!("{}: {error}", self.path.display()))
    }
}

fn more(again: Again, head: &Head) -> Again {
    again.after(head.status, head.error.as_ref().map(|error| error.kind))
}

fn names(retry: &BTreeSet<Status>) -> String {
    retry.iter().map(|status| status.name()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ErrorKind, Record};
    use crate::run::records::test_record;

    struct Bench {
        dir: tempfile::TempDir,
        directory: Directory,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
            let directory = Directory::for_test(dir.path(), state);
            Self { dir, directory }
        }

        /// What a run with `--retry` does before its first job.
        fn retry(&self, status: Status) -> Existing {
            let statuses = BTreeSet::from([status]);
            let mut existing = self.directory.records(&statuses).unwrap();
            let all: HashSet<Fingerprint> = existing.retry.keys().copied().collect();
            self.directory.supersede(&all, &statuses, &mut existing).unwrap();
            existing
        }

        fn write(&self, name: &str, records: &[Record], rest: &str) {
            let lines: String = records.iter().map(|r| serde_json::to_string(r).unwrap() + "\n").collect();
            fs::write(self.dir.path().join(name), lines + rest).unwrap();
        }

        fn read(&self, name: &str) -> Vec<(String, u32)> {
            let text = fs::read_to_string(self.dir.path().join(name)).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
            let records = text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap());
            records.map(|record| (record.item_id, record.revision)).collect()
        }
    }

    fn ended(item: &str, status: Status, revision: u32) -> Record {
        Record { revision, status, ..test_record(item) }
    }

    fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
        expected.iter().map(|(item, revision)| ((*item).to_owned(), *revision)).collect()
    }

    #[test]
    fn a_torn_last_line_is_cut_however_long_it_is() {
        for torn in [1, 4_095, 4_096, 4_097, 10_000] {
            let bench = Bench::new();
            bench.write("records.jsonl", &[test_record("a")], &"x".repeat(torn));
            let existing = bench.directory.records(&BTreeSet::new()).unwrap();
            assert_eq!(existing.taken.len(), 1, "{torn}");
            assert_eq!(bench.read("records.jsonl"), pairs(&[("a", 0)]), "{torn}");
        }
    }

    #[test]
    fn a_file_that_is_one_torn_line_is_emptied() {
        let bench = Bench::new();
        bench.write("records.jsonl", &[], &"x".repeat(9_000));
        assert!(bench.directory.records(&BTreeSet::new()).unwrap().taken.is_empty());
        assert_eq!(bench.read("records.jsonl"), pairs(&[]));
    }

    #[test]
    fn a_line_in_the_middle_that_is_no_record_is_named() {
        let bench = Bench::new();
        bench.write("records.jsonl", &[test_record("a")], "{\"half\n");
        let RunError::Failed(message) = bench.directory.records(&BTreeSet::new()).unwrap_err() else { panic!() };
        assert!(message.contains("records.jsonl line 2 is not a record"), "{message}");
    }

    #[test]
    fn what_is_asked_for_again_moves_out_of_the_way_and_the_rest_stays() {
        let bench = Bench::new();
        let records =
            [ended("a", Status::Failed, 0), ended("b", Status::Accepted, 0), ended("c", Status::Exhausted, 0)];
        bench.write("records.jsonl", &records, "");
        let existing = bench.retry(Status::Failed);
        assert_eq!(bench.read("records.jsonl"), pairs(&[("b", 0), ("c", 0)]));
        assert_eq!(bench.read("records.superseded.jsonl"), pairs(&[("a", 0)]));
        assert_eq!(existing.taken, [fingerprint("b"), fingerprint("c")].into());
        assert_eq!(existing.again[&fingerprint("a")].revision, 1);
        assert_eq!(existing.by_status, BTreeMap::from([(Status::Accepted, 1), (Status::Exhausted, 1)]));
    }

    #[test]
    fn a_kill_between_the_two_files_supersedes_a_record_once() {
        let bench = Bench::new();
        let records = [ended("a", Status::Failed, 0), ended("b", Status::Accepted, 0)];
        bench.write("records.jsonl", &records, "");
        bench.write("records.superseded.jsonl", &records[..1], "{\"torn");
        let existing = bench.retry(Status::Failed);
        assert_eq!(bench.read("records.jsonl"), pairs(&[("b", 0)]));
        assert_eq!(bench.read("records.superseded.jsonl"), pairs(&[("a", 0)]));
        assert_eq!(existing.again[&fingerprint("a")].revision, 1);
    }

    #[test]
    fn a_retry_that_was_stopped_does_not_ask_a_third_time_for_what_it_finished() {
        let bench = Bench::new();
        bench.write("records.jsonl", &[ended("a", Status::Failed, 0), ended("b", Status::Failed, 0)], "");
        bench.retry(Status::Failed);
        // The run wrote one record, and was stopped before the other.
        bench.write("records.jsonl", &[ended("a", Status::Failed, 1)], "");
        let again = bench.retry(Status::Failed);
        assert_eq!(again.taken, [fingerprint("a")].into());
        assert_eq!(bench.read("records.jsonl"), pairs(&[("a", 1)]));
        bench.directory.retry_is_over().unwrap();
        assert_eq!(bench.retry(Status::Failed).again[&fingerprint("a")].revision, 2);
    }

    #[test]
    fn only_what_was_used_up_is_given_once_more() {
        let bench = Bench::new();
        let failed = |item, kind| Record {
            error: Some(crate::record::RecordError { kind, message: String::new(), role: None, try_index: None }),
            ..ended(item, Status::Failed, 0)
        };
        let records = [
            failed("absent", ErrorKind::NotFound),
            failed("garbled", ErrorKind::Unparsable),
            ended("worn", Status::Exhausted, 0),
        ];
        bench.write("records.superseded.jsonl", &records, "");
        let existing = bench.directory.records(&BTreeSet::new()).unwrap();
        let again = |item| existing.again[&fingerprint(item)].again;
        assert_eq!(again("absent"), Again { tries: 0, asks: 0 });
        assert_eq!(again("garbled"), Again { tries: 0, asks: 1 });
        assert_eq!(again("worn"), Again { tries: 1, asks: 0 });
    }

    #[test]
    fn a_record_of_the_new_revision_counts_and_can_be_superseded_again() {
        let bench = Bench::new();
        bench.write("records.superseded.jsonl", &[ended("a", Status::Failed, 0)], "");
        bench.write("records.jsonl", &[ended("a", Status::Failed, 1)], "");
        let kept = bench.directory.records(&BTreeSet::new()).unwrap();
        assert_eq!(kept.taken, [fingerprint("a")].into());
        let again = bench.retry(Status::Failed);
        assert_eq!(again.again[&fingerprint("a")].revision, 2);
        assert_eq!(bench.read("records.superseded.jsonl"), pairs(&[("a", 0), ("a", 1)]));
    }
}
