//! The files of records: read line by line, cut where a crash tore them, written anew when some are superseded.
//!
//! Memory does not grow with them. A last line without its end is no record: it is cut by the process that owns the
//! directory, and left alone by those who only look.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::fingerprint;
use super::plan::Fingerprint;
use crate::record::{ErrorKind, Record, Status};

/// The part of a record that resuming needs.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) run: String,
    pub(super) item_id: String,
    pub(super) status: Status,
    pub(super) revision: u32,
    pub(super) error: Option<HeadError>,
}

#[derive(Deserialize)]
pub(super) struct HeadError {
    pub(super) kind: ErrorKind,
}

/// What becomes of a record when the file is written anew.
pub(super) enum Fate {
    Keep,
    Move,
    Drop,
}

/// Where records are in an output directory.
pub fn records_path(out: &Path) -> PathBuf {
    out.join("records.jsonl")
}

/// Where those are that `--retry` replaced.
pub fn superseded_path(out: &Path) -> PathBuf {
    out.join("records.superseded.jsonl")
}

/// Calls `visit` with each record until it returns something.
pub fn read_records<T>(
    path: &Path,
    mut visit: impl FnMut(Record) -> Result<Option<T>, String>,
) -> Result<Option<T>, String> {
    let mut found = None;
    for_each_line(path, |number, line| {
        let record = serde_json::from_str(line).map_err(|e| unreadable(path, number, &e.to_string()))?;
        if found.is_none() {
            found = visit(record)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Items of an output directory that have a record, for those who only look.
pub fn items_with_record(out: &Path) -> Result<HashSet<Fingerprint>, String> {
    let mut items = HashSet::new();
    read_heads(&records_path(out), |head, _| {
        items.insert(fingerprint(&head.item_id));
        Ok(())
    })?;
    Ok(items)
}

/// Temporary files that become results are made as any other file is.
pub fn readable_by_all() -> tempfile::Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = tempfile::Builder::new();
    builder.permissions(fs::Permissions::from_mode(0o666));
    builder
}

/// Writes the records anew: what is moved is in `superseded` before it is gone from `records`.
pub(super) fn rewrite(records: &Path, superseded: &Path, mut fate: impl FnMut(&Head) -> Fate) -> Result<(), String> {
    if !records.exists() {
        return Ok(());
    }
    let at = |path: &Path, e: &std::io::Error| format!("{}: {e}", path.display());
    let folder = records.parent().unwrap_or(Path::new("."));
    let keep = readable_by_all().tempfile_in(folder).map_err(|e| at(folder, &e))?;
    let moved = OpenOptions::new().create(true).append(true).open(superseded).map_err(|e| at(superseded, &e))?;
    let (mut keep, mut moved) = (BufWriter::new(keep), BufWriter::new(moved));
    read_heads(records, |head, line| match fate(&head) {
        Fate::Keep => writeln!(keep, "{line}").map_err(|e| at(records, &e)),
        Fate::Move => writeln!(moved, "{line}").map_err(|e| at(superseded, &e)),
        Fate::Drop => Ok(()),
    })?;
    let moved = moved.into_inner().map_err(|e| at(superseded, e.error()))?;
    moved.sync_all().map_err(|e| at(superseded, &e))?;
    let keep = keep.into_inner().map_err(|e| at(records, e.error()))?;
    keep.as_file().sync_all().map_err(|e| at(records, &e))?;
    keep.persist(records).map_err(|e| at(records, &e.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(folder, &e))
}

/// Cuts what a crash left of a line that was being written.
pub(super) fn cut_torn_line(path: &Path) -> std::io::Result<()> {
    let Ok(mut file) = OpenOptions::new().read(true).write(true).open(path) else { return Ok(()) };
    let mut end = file.metadata()?.len();
    let whole = end;
    let mut buffer = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(4096);
        let piece = &mut buffer[..usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        if let Some(position) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + position as u64 + 1;
            break;
        }
        end = start;
    }
    if end < whole {
        tracing::warn!(path = %path.display(), bytes = whole - end, "cut a line that a crash left unfinished");
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(())
}

pub(super) fn read_heads(path: &Path, mut visit: impl FnMut(Head, &str) -> Result<(), String>) -> Result<(), String> {
    for_each_line(path, |number, line| {
        let head = serde_json::from_str(line).map_err(|e| unreadable(path, number, &e.to_string()))?;
        visit(head, line)
    })
}

fn for_each_line(path: &Path, mut visit: impl FnMut(u64, &str) -> Result<(), String>) -> Result<(), String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = reader.read_line(&mut line).map_err(|e| unreadable(path, number, &e.to_string()))?;
        // A last line without its end is being written by somebody else just now.
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        visit(number, line.trim_end())?;
    }
    Ok(())
}

fn unreadable(path: &Path, number: u64, why: &str) -> String {
    format!("{} line {number} is not a record ({why}); move the line or the file away", path.display())
}

/// A record of an item, with nothing in it.
#[cfg(test)]
pub(crate) fn test_record(item_id: &str) -> Record {
    Record {
        schema_version: crate::record::SCHEMA_VERSION,
        run: "r".to_owned(),
        job_id: item_id.to_owned(),
        item_id: item_id.to_owned(),
        revision: 0,
        status: Status::Accepted,
        query: String::new(),
        task: None,
        media: Vec::new(),
        best_try: None,
        score: None,
        threshold: 6,
        reasoning_steps: Vec::new(),
        reasoning_answers: Vec::new(),
        final_answer: None,
        caption: None,
        tries: Vec::new(),
        usage: crate::provider::Usage::default(),
        cost_nano_usd: 0,
        recipe_digest: String::new(),
        error: None,
        gave_up: None,
        metadata: serde_json::Value::Null,
        worker: String::new(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        finished_at: jiff::Timestamp::UNIX_EPOCH,
    }
}
