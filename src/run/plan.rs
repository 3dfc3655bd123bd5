//! The corpus read once before anything is paid for: what counts, what is rejected, what changed.
//!
//! Two passes over the file instead of one: the first finds every bad line and every changed item at once and gives the
//! total that a progress bar needs; the second streams jobs. Both hold 32 bytes per item, not the items.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::directory::{Directory, Existing};
use super::{RunError, fingerprint};
use crate::corpus::Corpus;
use crate::job::{Item, Job};

/// 16 bytes that name an item or its content.
pub type Fingerprint = [u8; 16];

/// Items compared with the state in one transaction.
const CHUNK: usize = 1000;
/// Lines read between two looks at whether to stop.
const BREATH: u64 = 1000;
/// Rejected lines kept with their reasons; the others are counted.
const TOLD: usize = 100;

/// Where items come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of JSON lines.
    Corpus(PathBuf),
    /// One item.
    One(Box<Item>),
}

/// What a corpus holds.
#[derive(Debug, Default)]
pub struct Plan {
    /// Distinct items.
    pub items: u64,
    /// Lines that say again what a line before said.
    pub duplicates: u64,
    /// Lines that are no item.
    pub rejected: u64,
    /// The first of them, as `line N: reason`.
    pub reasons: Vec<String>,
    /// Items without a record, or with one to be replaced.
    pub pending: u64,
}

impl Plan {
    /// Reads the corpus, and compares it with what the directory has seen.
    ///
    /// # Errors
    /// The file cannot be read, or an item is not what it was.
    pub async fn make(
        source: &Source,
        directory: Option<(&Directory, &Existing)>,
        stop: &CancellationToken,
    ) -> Result<Self, RunError> {
        let mut plan = Self::default();
        let mut seen: HashMap<Fingerprint, Fingerprint> = HashMap::new();
        let mut chunk = Vec::new();
        for line in lines(source)? {
            let (number, result) = line.map_err(RunError::Failed)?;
            let item = match result {
                Ok(item) => item,
                Err(reason) => {
                    plan.reject(number, &reason);
                    continue;
                }
            };
            let (id, digest) = (item.id(), item.digest());
            match seen.entry(fingerprint(&id)) {
                Entry::Occupied(before) if *before.get() == fingerprint(&digest) => plan.duplicates += 1,
                Entry::Occupied(_) => plan.reject(number, &format!("id {id:?} was used before for another item")),
                Entry::Vacant(free) => {
                    free.insert(fingerprint(&digest));
                    plan.items += 1;
                    let has_record = |(_, existing): (_, &Existing)| {
                        let item = fingerprint(&id);
                        existing.taken.contains(&item) && !existing.retry.contains_key(&item)
                    };
                    plan.pending += u64::from(!directory.is_some_and(has_record));
                    chunk.push((id, digest));
                }
            }
            if chunk.len() >= CHUNK {
                compare(directory, std::mem::take(&mut chunk)).await?;
            }
            if number.is_multiple_of(BREATH) {
                tokio::task::yield_now().await;
                if stop.is_cancelled() {
                    return Ok(plan);
                }
            }
        }
        compare(directory, chunk).await?;
        Ok(plan)
    }

    fn reject(&mut self, number: u64, reason: &str) {
        self.rejected += 1;
        if self.reasons.len() < TOLD {
            self.reasons.push(format!("line {number}: {reason}"));
        }
    }
}

/// The items to be asked for again that are in the corpus, and among its first `limit` pending ones.
pub fn retried(source: &Source, existing: &Existing, limit: u64) -> Result<HashSet<Fingerprint>, RunError> {
    let (mut seen, mut retried) = (HashSet::new(), HashSet::new());
    for line in lines(source)? {
        let (_, Ok(item)) = line.map_err(RunError::Failed)? else { continue };
        let item = fingerprint(&item.id());
        let again = existing.retry.contains_key(&item);
        let pending = again || !existing.taken.contains(&item);
        if pending && seen.insert(item) && seen.len() as u64 <= limit && again {
            retried.insert(item);
        }
    }
    Ok(retried)
}

/// The jobs that have no record yet, in the corpus's order. Each is marked as taken.
pub fn pending<'a>(
    source: &Source,
    run: &'a str,
    existing: &'a mut Existing,
) -> Result<impl Iterator<Item = Result<Job, String>> + use<'a>, RunError> {
    Ok(lines(source)?.filter_map(move |line| match line {
        Err(error) => Some(Err(error)),
        Ok((_, Err(_))) => None,
        Ok((_, Ok(item))) => {
            let item_id = fingerprint(&item.id());
            let start = existing.again.get(&item_id).copied().unwrap_or_default();
            let job = || Job { again: start.again, ..Job::new(run, start.revision, item) };
            existing.taken.insert(item_id).then(|| Ok(job()))
        }
    }))
}

type Lines = Box<dyn Iterator<Item = Result<(u64, Result<Item, String>), String>> + Send>;

/// The lines of a source: an outer error ends the reading.
pub fn lines(source: &Source) -> Result<Lines, RunError> {
    Ok(match source {
        Source::One(item) => Box::new(std::iter::once(Ok((1, Ok((**item).clone()))))),
        Source::Corpus(path) => {
            let name = path.display().to_string();
            // A pipe would be empty the second time.
            if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                return Err(RunError::Setup(format!(
                    "--corpus {name} is read twice, which a pipe cannot be; write it to a file"
                )));
            }
            let corpus = Corpus::open(path).map_err(|e| RunError::Setup(format!("--corpus {name}: {e}")))?;
            Box::new(corpus.map(move |line| match line {
                Ok(line) => Ok((line.number, line.result)),
                Err(e) => Err(format!("{name}: {e}")),
            }))
        }
    })
}

/// Notes new items, and refuses changed ones by name.
async fn compare(directory: Option<(&Directory, &Existing)>, chunk: Vec<(String, String)>) -> Result<(), RunError> {
    let Some((directory, _)) = directory.filter(|_| !chunk.is_empty()) else { return Ok(()) };
    let run = directory.run.clone();
    let changed: Vec<String> = directory
        .state
        .call(move |c| {
            let mut insert = c.prepare_cached("INSERT OR IGNORE INTO items VALUES (?1, ?2, ?3)")?;
            let mut select = c.prepare_cached("SELECT digest FROM items WHERE run = ?1 AND item_id = ?2")?;
            let mut changed = Vec::new();
            for (id, digest) in chunk {
                let known = insert.execute((&run, &id, &digest))? == 0;
                if known && select.query_row((&run, &id), |r| r.get::<_, String>(0))? != digest {
                    changed.push(id);
                }
            }
            Ok(changed)
        })
        .await?;
    if changed.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = changed.iter().take(5).map(|id| format!("{id:?}")).collect();
    Err(RunError::Setup(format!(
        "{} item(s) changed since this directory was begun: {}; give changed items another id, or use another --out",
        changed.len(),
        shown.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::State;

    fn corpus(dir: &tempfile::TempDir, lines: &[&str]) -> Source {
        let path = dir.path().join("items.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        Source::Corpus(path)
    }

    fn directory(dir: &tempfile::TempDir) -> Directory {
        let state = Arc::new(State::open(&dir.path().join("state.sqlite")).unwrap());
        Directory::for_test(dir.path(), state)
    }

    async fn make(source: &Source, directory: Option<&Directory>) -> Result<Plan, RunError> {
        let existing = Existing::default();
        Plan::make(source, directory.map(|d| (d, &existing)), &CancellationToken::new()).await
    }

    const A: &str = r#"{"id":"a","video":"a.mp4","query":"why"}"#;
    const B: &str = r#"{"id":"b","video":"a.mp4","query":"who"}"#;
    const OTHER_A: &str = r#"{"id":"a","video":"a.mp4","query":"where"}"#;

    #[tokio::test]
    async fn every_bad_line_is_told_with_its_number_and_the_rest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let source = corpus(&dir, &[A, "{", B, A, OTHER_A]);
        let plan = make(&source, None).await.unwrap();
        assert_eq!((plan.items, plan.duplicates, plan.rejected), (2, 1, 2));
        assert!(plan.reasons[0].starts_with("line 2: "), "{:?}", plan.reasons);
        assert_eq!(plan.reasons[1], "line 5: id \"a\" was used before for another item");
    }

    #[tokio::test]
    async fn reasons_are_kept_for_the_first_hundred_and_counted_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let lines: Vec<&str> = std::iter::once(A).chain(std::iter::repeat_n("{", 150)).collect();
        let plan = make(&corpus(&dir, &lines), None).await.unwrap();
        assert_eq!((plan.rejected, plan.reasons.len()), (150, TOLD));
    }

    #[tokio::test]
    async fn a_changed_item_is_refused_by_name_and_a_new_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(&dir);
        make(&corpus(&dir, &[A]), Some(&directory)).await.unwrap();
        make(&corpus(&dir, &[A, B]), Some(&directory)).await.unwrap();
        let error = make(&corpus(&dir, &[B, OTHER_A]), Some(&directory)).await.unwrap_err();
        let RunError::Setup(message) = error else { panic!("{error}") };
        assert!(message.starts_with("1 item(s) changed since this directory was begun: \"a\";"), "{message}");
    }

    #[test]
    fn only_items_of_the_corpus_within_the_limit_are_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = corpus(&dir, &[A, B]);
        let items = ["a", "b", "elsewhere"].map(|id| (fingerprint(id), crate::record::Status::Failed));
        let existing =
            Existing { taken: items.iter().map(|i| i.0).collect(), retry: items.into(), ..Existing::default() };
        assert_eq!(retried(&source, &existing, 9).unwrap(), HashSet::from([fingerprint("a"), fingerprint("b")]));
        assert_eq!(retried(&source, &existing, 1).unwrap(), HashSet::from([fingerprint("a")]));
    }

    #[test]
    fn jobs_come_in_order_once_each_and_without_those_that_have_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let c = A.replace("\"a\",", "\"c\",");
        let source = corpus(&dir, &[&c, A, "{", B, &c]);
        let mut existing = Existing::default();
        existing.taken.insert(fingerprint("a"));
        let start = super::super::directory::Start { revision: 3, ..Default::default() };
        existing.again.insert(fingerprint("b"), start);
        let jobs: Vec<Job> = pending(&source, "r", &mut existing).unwrap().map(Result::unwrap).collect();
        let found: Vec<_> = jobs.iter().map(|job| (job.run.as_str(), job.item_id.as_str(), job.revision)).collect();
        assert_eq!(found, [("r", "c", 0), ("r", "b", 3)]);
        assert!(existing.taken.contains(&fingerprint("c")), "a job that was handed out is taken");
    }
}
