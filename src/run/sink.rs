//! Appends records, and says when they are durable.
//!
//! A thread of its own writes what is waiting and calls fsync once for all of it. A write that fails half way is cut
//! off again, so that the file never holds a torn line in its middle.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::record::Record;

type Line = (String, oneshot::Sender<Result<(), String>>);

/// Most records made durable together.
const BATCH: usize = 256;
/// How long a first record waits for others to share its fsync: little beside the seconds its job took.
const GATHER: Duration = Duration::from_millis(10);

/// The records of a run.
#[derive(Debug)]
pub struct Sink {
    lines: Option<mpsc::Sender<Line>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Opens the file to append to.
    pub fn open(path: &Path) -> Result<Self, String> {
        let named = |e: std::io::Error| format!("{}: {e}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(named)?;
        let (lines, waiting) = mpsc::channel();
        let name = path.display().to_string();
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(move || write(file, &name, &waiting));
        Ok(Self { lines: Some(lines), thread: Some(thread.map_err(named)?) })
    }

    /// Appends a record; it is durable when this returns.
    pub async fn append(&self, record: &Record) -> Result<(), String> {
        let mut line = serde_json::to_string(record).map_err(|e| e.to_string())?;
        line.push('\n');
        let (written, done) = oneshot::channel();
        let sent = self.lines.as_ref().is_some_and(|lines| lines.send((line, written)).is_ok());
        let ended = || "the thread that writes records has ended".to_owned();
        if !sent {
            return Err(ended());
        }
        done.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes records panicked");
        }
    }
}

fn write(mut file: File, name: &str, waiting: &mpsc::Receiver<Line>) {
    while let Ok(first) = waiting.recv() {
        std::thread::sleep(GATHER);
        let batch: Vec<Line> = std::iter::once(first).chain(waiting.try_iter().take(BATCH - 1)).collect();
        let result = append(&mut file, &batch).map_err(|e| format!("{name}: {e}"));
        for (_, done) in batch {
            // Nobody listens when the run was aborted.
            drop(done.send(result.clone()));
        }
    }
}

fn append(file: &mut File, batch: &[Line]) -> std::io::Result<()> {
    let before = file.seek(SeekFrom::End(0))?;
    let text: String = batch.iter().map(|(line, _)| line.as_str()).collect();
    let result = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    if result.is_err() {
        file.set_len(before)?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::records::test_record;

    #[tokio::test]
    async fn records_of_many_jobs_are_whole_lines_and_there_when_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.jsonl");
        let sink = Sink::open(&path).unwrap();
        let records: Vec<Record> = (0..300).map(|n| test_record(&format!("item-{n}"))).collect();
        let appended = records.iter().map(|record| async {
            sink.append(record).await.unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(&format!("{:?}", record.item_id)), "{} is not there yet", record.item_id);
        });
        futures_util::future::join_all(appended).await;
        let text = std::fs::read_to_string(&path).unwrap();
        let mut found: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        found.sort_by_key(|record| record.item_id[5..].parse::<u32>().unwrap());
        assert_eq!(found, records);
    }

    #[tokio::test]
    async fn a_failure_is_told_with_the_files_name() {
        // Every write to this device fails for want of space.
        let path = Path::new("/dev/full");
        let sink = Sink::open(path).unwrap();
        let error = sink.append(&test_record("a")).await.unwrap_err();
        assert!(error.starts_with("/dev/full: "), "{error}");
    }
}
