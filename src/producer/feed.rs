//! Reads corpora on a thread of its own, one after the other, in batches.
//!
//! Reading blocks (a pipe may be silent for hours), and parsing keeps a core busy while the batches before are published.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use futures_util::{Stream, stream};
use tokio::sync::mpsc;

use super::Text;
use super::args::{ProducerArgs, STDIN};
use super::offsets::Offsets;
use super::rejects::Reject;
use crate::cli::Failure;
use crate::corpus::reader::{Place, Prefix, Question, Reader, Row};
use crate::job::Item;
use crate::media::{Listing, Store};

/// Most rows of a batch: a script of the shared state takes them all at once.
const ROWS: usize = 500;
/// Most bytes of a batch, so that long lines do not fill memory.
const BYTES: u64 = 4 << 20;
/// Batches read ahead.
const AHEAD: usize = 4;

/// A corpus that is open.
pub(super) struct Source {
    /// As it was named.
    pub(super) name: Text,
    /// Bytes of it; none: nobody knows.
    pub(super) bytes: Option<u64>,
    reader: Reader,
}

/// Some rows of one corpus.
pub(super) struct Batch {
    /// Which corpus, in the order given.
    pub(super) corpus: usize,
    /// Its name.
    pub(super) name: Text,
    pub(super) rows: Vec<Row>,
    /// How much was read of it with them.
    pub(super) place: Place,
}

impl Batch {
    /// Hands on its items with number, id and digest, each once. What is none, or is refused, is rejected; what is there twice is
    /// counted.
    pub(super) fn distinct(
        self,
        rejects: &mut Vec<Reject>,
        duplicates: &mut u64,
        mut take: impl FnMut(u64, String, &str, Item) -> Result<(), String>,
    ) {
        let mut seen: HashMap<String, String> = HashMap::with_capacity(self.rows.len());
        for row in self.rows {
            let mut reject = |reason, text| rejects.push(Reject::new(&self.name, row.number, reason, text));
            let item = match row.result {
                Ok(item) => item,
                Err(refused) => {
                    reject(refused.reason, Some(refused.text));
                    continue;
                }
            };
            let id = item.id();
            match seen.entry(id.clone()) {
                Entry::Occupied(before) if *before.get() == item.digest() => *duplicates += 1,
                Entry::Occupied(_) => {
                    reject(format!("id {id:?} was used before for another item: give one of them another id"), None);
                }
                Entry::Vacant(free) => {
                    let digest = free.insert(item.digest());
                    if let Err(reason) = take(row.number, id, digest, item) {
                        reject(reason, None);
                    }
                }
            }
        }
    }
}

/// Opens all corpora, each where it was left.
pub(super) async fn open(args: &ProducerArgs, store: &Store, offsets: &Offsets) -> Result<Vec<Source>, Failure> {
    let question = question(args)?;
    let mut sources = Vec::new();
    for (number, corpus) in args.corpora.iter().enumerate() {
        let failed = |error: std::io::Error| Failure::failed(format!("{corpus} {}", told(&error)));
        let name: Text = corpus.as_str().into();
        let (reader, bytes) = if corpus == STDIN {
            (Reader::stdin().map_err(failed)?, None)
        } else if corpus.starts_with("s3://") {
            let listing = Listing::open(store, corpus).await.map_err(|error| Failure::setup(error.message))?;
            let question = question.clone().ok_or_else(|| Failure::usage("give --query"))?;
            (Reader::prefix(Prefix::new(listing, question, tokio::runtime::Handle::current())), None)
        } else {
            let path = Path::new(corpus);
            let bytes = std::fs::metadata(path).map(|found| found.len()).map_err(failed)?;
            (Reader::open(path, offsets.of(number)).map_err(failed)?, Some(bytes))
        };
        sources.push(Source { name, bytes, reader });
    }
    Ok(sources)
}

fn question(args: &ProducerArgs) -> Result<Option<Question>, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--query-file {}: {error}", path.display())))
    };
    let text = match (&args.query, &args.query_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => read(path)?.trim_end().to_owned(),
        (None, None) => return Ok(None),
    };
    Question::new(text).map(Some).map_err(Failure::usage)
}

/// What the system says reads on after a name and a colon, what we say after the name alone.
fn told(error: &std::io::Error) -> String {
    if error.raw_os_error().is_some() { format!("cannot be read: {error}") } else { error.to_string() }
}

/// Reads on a thread that ends when nobody takes its batches any more. `most` rows are in one.
pub(super) fn start(sources: Vec<Source>, most: usize) -> impl Stream<Item = Result<Batch, String>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let thread = std::thread::Builder::new().name("corpus".to_owned());
    let failed = sender.clone();
    let read = move || {
        for (number, source) in sources.into_iter().enumerate() {
            if read(number, source, most.clamp(1, ROWS), &sender).is_none() {
                return;
            }
        }
    };
    if let Err(error) = thread.spawn(read) {
        // There is room: nothing was sent yet.
        drop(failed.try_send(Err(format!("no thread to read with: {error}"))));
    }
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|batch| (batch, receiver)) })
}

/// Reads one corpus to its end; none: nobody listens, or it cannot be read on.
fn read(corpus: usize, source: Source, most: usize, sender: &mpsc::Sender<Result<Batch, String>>) -> Option<()> {
    let Source { name, mut reader, .. } = source;
    loop {
        let (mut rows, began) = (Vec::with_capacity(most), reader.place());
        let mut ended = false;
        while rows.len() < most && reader.place().bytes.saturating_sub(began.bytes) < BYTES {
            match reader.next() {
                Some(Ok(row)) => rows.push(row),
                Some(Err(error)) => {
                    drop(sender.blocking_send(Err(format!("{name} {}", told(&error)))));
                    return None;
                }
                None => {
                    ended = true;
                    break;
                }
            }
        }
        let batch = Batch { corpus, name: name.clone(), rows, place: reader.place() };
        sender.blocking_send(Ok(batch)).ok()?;
        if ended {
            return Some(());
        }
    }
}
