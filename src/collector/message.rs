//! A record as it arrived: only what collecting needs is read of it, the rest is passed on as it is.
//!
//! The record goes into its shard byte for byte as the worker wrote it. Parsing it whole was rejected: it costs five times
//! as much, and a field that a newer worker added would be lost on the way.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::index::{Item, Mark};
use crate::message::VERSION;
use crate::record::{ByTry, ErrorKind, Status};

/// Longest name of a run; it is a folder's.
const LONGEST_RUN: usize = 128;

/// A record on its way into a shard.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) run: String,
    pub(super) item: Item,
    pub(super) mark: Mark,
    pub(super) cost_nano_usd: u64,
    pub(super) recipe_digest: String,
    pub(super) tries: ByTry,
    /// The journal's keys of the replies it rests on.
    pub(super) keys: Vec<String>,
    body: Vec<u8>,
    record: Range<usize>,
    job: Option<Range<usize>>,
}

/// Why a message is no record that anybody could collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

/// A row without its body; where in it the record is, and the job.
type Parts = (Row, Range<usize>, Option<Range<usize>>);

#[derive(Deserialize)]
struct Message<'a> {
    version: u32,
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(borrow, default)]
    job: Option<&'a RawValue>,
}

/// The part of a record that collecting needs.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) run: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) item_id: Cow<'a, str>,
    pub(super) revision: u32,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) cost_nano_usd: u64,
    #[serde(borrow, default)]
    pub(super) recipe_digest: Cow<'a, str>,
    #[serde(borrow, default)]
    tries: Vec<Try<'a>>,
    #[serde(default)]
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Try<'a> {
    #[serde(default)]
    score: Option<u8>,
    #[serde(borrow, default)]
    calls: Vec<Call<'a>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    fallback_for: Option<Own<'a>>,
}

#[derive(Deserialize)]
struct Own<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Failed {
    kind: ErrorKind,
}

impl Head<'_> {
    /// What became of its job.
    pub(super) fn end(&self) -> (Status, Option<ErrorKind>) {
        (self.status, self.error.as_ref().map(|error| error.kind))
    }

    /// The journal's keys, each once; of a redirect both, joined by a colon.
    pub(super) fn keys(&self) -> Vec<String> {
        let calls = || self.tries.iter().flat_map(|t| &t.calls);
        let redirect = |call: &Call<'_>| call.fallback_for.as_ref().map(|own| format!("{}:{}", own.key, call.key));
        let mut keys: Vec<String> =
            calls().map(|call| call.key.to_string()).chain(calls().filter_map(redirect)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl Row {
    /// Reads a message.
    pub(super) fn read(body: Vec<u8>) -> Result<Self, (Vec<u8>, Dead)> {
        match Self::parts(&body) {
            Ok((mut row, record, job)) => {
                row.record = record;
                row.job = job;
                // Between tokens only: a string has no such bytes.
                let mut body = body;
                for byte in &mut body {
                    if matches!(*byte, b'\n' | b'\r') {
                        *byte = b' ';
                    }
                }
                row.body = body;
                Ok(row)
            }
            Err(dead) => Err((body, dead)),
        }
    }

    /// A record that was in a shard already, with its job.
    pub(super) fn again(line: &str, job: Option<&str>) -> Option<Self> {
        let mut row = Self::of(&serde_json::from_str(line).ok()?).ok()?;
        row.record = 0..line.len();
        row.body = line.as_bytes().to_vec();
        if let Some(job) = job {
            row.job = Some(row.body.len()..row.body.len() + job.len());
            row.body.extend_from_slice(job.as_bytes());
        }
        Some(row)
    }

    /// The record, as a line without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.body[self.record.clone()]
    }

    /// Its job, where it may be asked for again.
    pub(super) fn job(&self) -> Option<&[u8]> {
        self.job.clone().map(|job| &self.body[job])
    }

    fn parts(body: &[u8]) -> Result<Parts, Dead> {
        let text = std::str::from_utf8(body).map_err(|e| dead("not_json", &e))?;
        let message: Message<'_> = serde_json::from_str(text).map_err(|e| unreadable(text, &e))?;
        if message.version > VERSION {
            return Err(newer(u64::from(message.version)));
        }
        let head: Head<'_> = serde_json::from_str(message.record.get()).map_err(|e| dead("not_a_record", &e))?;
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + raw.get().len()
        };
        let job = message.job.filter(|job| job.get() != "null");
        Ok((Self::of(&head)?, place(message.record), job.map(place)))
    }

    fn of(head: &Head<'_>) -> Result<Self, Dead> {
        let run = head.run.as_ref();
        let unsafe_name = run.is_empty() || run.starts_with('.') || run.contains(['/', '\\']);
        if unsafe_name || run.len() > LONGEST_RUN || run.contains(char::is_control) {
            return Err(dead("bad_run", &format!("the run's name {run:?} cannot be a folder's")));
        }
        let Some(mark) = Mark::new(head.revision, head.status) else {
            return Err(dead("not_a_record", &format!("revision {} is beyond all use", head.revision)));
        };
        Ok(Self {
            run: run.to_owned(),
            item: Item::new(&head.item_id),
            mark,
            cost_nano_usd: head.cost_nano_usd,
            recipe_digest: head.recipe_digest.to_string(),
            tries: ByTry::of(head.status, head.tries.iter().map(|t| t.score.is_some())),
            keys: head.keys(),
            body: Vec::new(),
            record: 0..0,
            job: None,
        })
    }
}

fn dead(reason: &'static str, detail: &(impl ToString + ?Sized)) -> Dead {
    Dead { reason, detail: detail.to_string() }
}

fn newer(version: u64) -> Dead {
    let detail = format!("version {version}, and this collector reads {VERSION}: put it back once that is newer");
    dead("newer", &detail)
}

/// What is wrong with a message that has not the shape of one.
fn unreadable(text: &str, error: &serde_json::Error) -> Dead {
    #[derive(Deserialize)]
    struct Version {
        version: Option<u64>,
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Err(error) => dead("not_json", &error),
        Ok(_) => match serde_json::from_str::<Version>(text) {
            Ok(Version { version: Some(version) }) if version > u64::from(VERSION) => newer(version),
            _ => dead("not_a_record", error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Item as JobItem, Job};
    use crate::message::RecordMessage;
    use crate::record::Record;
    use crate::run::records::test_record;

    fn body(status: Status) -> (RecordMessage, Vec<u8>) {
        let item = JobItem::from_line(r#"{"id":"a","video":"file:///a.mp4","query":"Q?"}"#).unwrap();
        let record = Record { status, metadata: serde_json::json!({"f": 0.1}), ..test_record("a") };
        let message = RecordMessage::new(record, &Job::new("r", 0, item));
        let body = serde_json::to_vec(&message).unwrap();
        (message, body)
    }

    #[test]
    fn a_record_is_passed_on_byte_for_byte_with_its_job() {
        let (message, bytes) = body(Status::Failed);
        let row = Row::read(bytes).unwrap();
        assert_eq!(row.line(), serde_json::to_vec(&message.record).unwrap());
        assert_eq!(row.job().unwrap(), serde_json::to_vec(&message.job.unwrap()).unwrap());
        assert_eq!(Row::read(body(Status::Accepted).1).unwrap().job(), None);
    }

    #[test]
    fn a_record_over_several_lines_becomes_one() {
        let (message, _) = body(Status::Failed);
        let row = Row::read(serde_json::to_vec_pretty(&message).unwrap()).unwrap();
        assert!(!row.line().contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Record>(row.line()).unwrap(), message.record);
    }

    #[test]
    fn what_is_no_record_is_dead_with_a_reason() {
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = serde_json::to_value(body(Status::Failed).0).unwrap();
            change(&mut value);
            serde_json::to_vec(&value).unwrap()
        };
        for (bytes, reason) in [
            (b"\xff".to_vec(), "not_json"),
            (b"{\"version\":1".to_vec(), "not_json"),
            (b"{}".to_vec(), "not_a_record"),
            (b"[1]".to_vec(), "not_a_record"),
            (changed(&|m| m["version"] = 2.into()), "newer"),
            (br#"{"version":3,"shape":"other"}"#.to_vec(), "newer"),
            (changed(&|m| m["record"]["status"] = "odd".into()), "not_a_record"),
            (changed(&|m| m["record"]["run"] = "../x".into()), "bad_run"),
            (changed(&|m| m["record"]["run"] = "..".into()), "bad_run"),
            (changed(&|m| m["record"]["run"] = "".into()), "bad_run"),
        ] {
            let (back, dead) = Row::read(bytes.clone()).unwrap_err();
            assert_eq!((dead.reason, back), (reason, bytes), "{}", dead.detail);
        }
    }
}
