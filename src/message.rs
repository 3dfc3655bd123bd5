//! What travels between the programs of a fleet: jobs to workers, records to the collector.
//!
//! A message carries its version. A newer one than ours is not broken: a newer worker will read it, so it waits. Anything
//! that no worker will ever read is a dead letter, with the reason as a word to sort by.

use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::journal::Carried;
use crate::record::Record;

/// Version of the messages written here.
pub const VERSION: u32 = 1;
/// The oldest version read.
const OLDEST: u32 = 1;
/// Longest job message in bytes: questions are text, and media are named, not sent.
pub const LONGEST_JOB: usize = 64 * 1024;
/// The same with the replies that it carries.
const LONGEST_LOADED: usize = 1 << 20;

/// A job on its way to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobMessage {
    /// [`VERSION`].
    pub version: u32,
    /// Digest of the run's recipe.
    pub recipe: String,
    /// What to do.
    pub job: Job,
    /// When it was first enqueued, in seconds since the epoch.
    pub enqueued_at: i64,
    /// For how many seconds it was worked on in deliveries that ended with the job put back, unfinished.
    #[serde(default)]
    pub worked_seconds: u64,
    /// Replies that were paid for and could not be stored: whoever takes the job stores them first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried: Vec<Carried>,
}

/// A record on its way to the collector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordMessage {
    /// [`VERSION`].
    pub version: u32,
    /// The record.
    pub record: Record,
    /// The job, where it may be asked for again: its record was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// Why a message of a job cannot be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// A newer version wrote it: it waits for a newer worker.
    Newer(u32),
    /// Nobody will ever read it: the reason, as a word, and in detail.
    Dead(&'static str, String),
}

impl JobMessage {
    /// A job as it is enqueued now.
    pub fn new(recipe: impl Into<String>, job: Job) -> Self {
        Self {
            version: VERSION,
            recipe: recipe.into(),
            job,
            enqueued_at: jiff::Timestamp::now().as_second(),
            worked_seconds: 0,
            carried: Vec::new(),
        }
    }

    /// As it is sent; too long for a message: why.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let body = serde_json::to_vec(self).map_err(|e| e.to_string())?;
        let most = if self.carried.is_empty() { LONGEST_JOB } else { LONGEST_LOADED };
        if body.len() > most {
            let bytes = body.len();
            return Err(format!("as a message it has {bytes} bytes, more than {most}: shorten its texts or metadata"));
        }
        Ok(body)
    }

    /// Reads one.
    pub fn decode(body: &[u8]) -> Result<Self, Unreadable> {
        let too_long = || {
            let detail = format!("{} bytes, more than {LONGEST_JOB}", body.len());
            Unreadable::Dead("too_long", detail)
        };
        if body.len() > LONGEST_LOADED {
            return Err(too_long());
        }
        let value: serde_json::Value =
            serde_json::from_slice(body).map_err(|e| Unreadable::Dead("not_json", e.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version > u64::from(VERSION) => {
                return Err(Unreadable::Newer(u32::try_from(version).unwrap_or(u32::MAX)));
            }
            Some(version) if version < u64::from(OLDEST) => {
                let detail = format!("version {version}, and the oldest that is read is {OLDEST}");
                return Err(Unreadable::Dead("too_old", detail));
            }
            Some(_) => {}
            None => return Err(Unreadable::Dead("not_a_job", "it has no version".to_owned())),
        }
        let message: Self = serde_json::from_value(value).map_err(|e| Unreadable::Dead("not_a_job", e.to_string()))?;
        if message.carried.is_empty() && body.len() > LONGEST_JOB { Err(too_long()) } else { Ok(message) }
    }
}

impl RecordMessage {
    /// A record with the job it came from.
    pub fn new(record: Record, job: &Job) -> Self {
        let job = (record.status != crate::record::Status::Accepted).then(|| job.clone());
        Self { version: VERSION, record, job }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> JobMessage {
        let item =
            crate::job::Item::from_line(r#"{"id":"a","video":"file:///a.mp4","query":"What happens?"}"#).unwrap();
        JobMessage::new("digest", Job::new("run", 0, item))
    }

    fn with(change: impl FnOnce(&mut serde_json::Value)) -> Result<JobMessage, Unreadable> {
        let mut value = serde_json::to_value(message()).unwrap();
        change(&mut value);
        JobMessage::decode(&serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        assert_eq!(JobMessage::decode(&message().encode().unwrap()).unwrap(), message());
    }

    #[test]
    fn a_job_may_be_longer_for_the_replies_it_carries_and_for_nothing_else() {
        let spaces = " ".repeat(LONGEST_JOB);
        let text = format!("{}{spaces}", serde_json::to_string(&message()).unwrap());
        assert!(matches!(JobMessage::decode(text.as_bytes()), Err(Unreadable::Dead("too_long", _))));
        let reply = crate::provider::Reply {
            text: "a".repeat(LONGEST_JOB),
            finish: crate::provider::Finish::Stop,
            usage: crate::provider::Usage::default(),
            model_version: None,
            response_id: None,
            latency_ms: 1,
        };
        let stored =
            crate::journal::Stored { reply, payer: "p".to_owned(), cost: crate::price::Nano(1), clips: Vec::new() };
        let key = crate::journal::Canonical::new(
            "i",
            "m",
            crate::provider::Role::Generator,
            "x",
            crate::journal::key::Sample { item: 0, try_index: 1 },
        )
        .key();
        let loaded = JobMessage { carried: vec![Carried { key, stored }], ..message() };
        assert_eq!(JobMessage::decode(&loaded.encode().unwrap()).unwrap(), loaded);
    }

    #[test]
    fn what_no_worker_can_read_is_dead_and_what_a_newer_one_can_waits() {
        let word = |result: Result<JobMessage, Unreadable>| match result.unwrap_err() {
            Unreadable::Dead(word, _) => word,
            Unreadable::Newer(_) => "newer",
        };
        assert_eq!(word(JobMessage::decode(b"\xff{")), "not_json");
        assert_eq!(word(JobMessage::decode(&vec![b' '; LONGEST_LOADED + 1])), "too_long");
        assert_eq!(word(JobMessage::decode(b"{}")), "not_a_job");
        assert_eq!(word(with(|m| m["version"] = 0.into())), "too_old");
        assert_eq!(word(with(|m| m["job"]["item"]["query"] = "".into())), "not_a_job");
        assert_eq!(word(with(|m| m["version"] = 2.into())), "newer");
    }
}
