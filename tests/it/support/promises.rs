//! What every run keeps, whatever a test is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::workdir::read;

/// Checks a test's folder: one record per item, each a record; the money of records is in a ledger; no key anywhere.
pub(super) fn check(dir: &Path, secrets: &BTreeSet<String>, key_files: &BTreeSet<PathBuf>) {
    let mut files = Vec::new();
    walk(dir, &mut files);
    let (mut shown, mut booked) = (0, 0);
    for path in &files {
        match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            "records.jsonl" => {
                let mut seen = BTreeSet::new();
                for record in read(path) {
                    assert!(
                        seen.insert((record.run.clone(), record.item_id.clone())),
                        "{} has item {} of run {} twice",
                        path.display(),
                        record.item_id,
                        record.run
                    );
                    shown += record.cost_nano_usd;
                }
            }
            name if name.ends_with(".sqlite") => booked += ledger(path),
            _ => {}
        }
        if !key_files.contains(path) {
            no_secret(&path.display().to_string(), &fs::read(path).unwrap_or_default(), secrets);
        }
    }
    assert!(shown <= booked, "records show {shown} nano-dollars and the ledgers only {booked}");
}

/// No key is to be seen in these bytes.
pub(super) fn no_secret(place: &str, bytes: &[u8], secrets: &BTreeSet<String>) {
    for secret in secrets {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{place} shows a key");
    }
}

/// All money that a state's ledger holds, calls without an end at their bound.
pub(crate) fn ledger(state: &Path) -> u64 {
    let connection = rusqlite::Connection::open(state).unwrap();
    let sql = "SELECT coalesce(sum(CASE state WHEN 0 THEN bound ELSE cost END), 0) FROM calls";
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_or(0, |sum| u64::try_from(sum).unwrap())
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

mod tests {
    use super::*;

    fn checked(name: &str, text: &str) -> std::thread::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("out").join(name), text).unwrap();
        std::panic::catch_unwind(|| check(dir.path(), &["a-key".to_owned()].into(), &BTreeSet::new()))
    }

    /// A record that cost so much.
    fn line(cost: u64) -> String {
        let record = serde_json::json!({
            "schema_version": 1, "run": "r", "job_id": "j", "item_id": "i", "revision": 0, "status": "exhausted", "query": "q",
            "media": [], "best_try": null, "score": null, "threshold": 6, "reasoning_steps": [], "reasoning_answers": [],
            "final_answer": null, "caption": null, "tries": [], "usage": aurelia::provider::Usage::default(),
            "cost_nano_usd": cost, "recipe_digest": "d", "error": null, "metadata": null, "worker": "w",
            "started_at": "2026-11-23T00:00:00Z", "finished_at": "2026-11-23T00:00:00Z"
        });
        format!("{record}\n")
    }

    #[test]
    fn a_broken_promise_is_found() {
        assert!(checked("records.jsonl", &line(0)).is_ok());
        assert!(checked("notes.txt", "harmless").is_ok());
        assert!(checked("notes.txt", "it is a-key, look").is_err(), "a key");
        assert!(checked("records.jsonl", &(line(0) + &line(0))).is_err(), "an item twice");
        assert!(checked("records.jsonl", &line(5)).is_err(), "money that no ledger knows");
        assert!(checked("records.jsonl", "{}\n").is_err(), "no record");
    }
}
