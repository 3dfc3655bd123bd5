//! The record: what one job ends as, whatever went wrong with it.
//!
//! The content of a record is all of it but the worker, the times and the attempts: a replayed record has the same
//! content, byte for byte ([`Record::content`]). A reply's cost is shown in the record of the job that paid for it and
//! is 0 with `cached` everywhere else, so that the costs of a data set add up to the ledger. One flat serde type was
//! preferred to a type per status: readers of data sets want the same columns in every row.

mod tries;

use serde::{Deserialize, Serialize};

pub use tries::{ByTry, Tried};

use crate::provider::{Role, Usage};
use crate::recipe::GiveUp;

/// Version of the record's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A try reached the threshold.
    Accepted,
    /// All tries were used, or the job was given up (`gave_up`); the best one is kept.
    Exhausted,
    /// A role's replies were blocked until its asks were used up, before any try was scored.
    Blocked,
    /// It could not be done; `error` says why.
    Failed,
    /// An operator called it off.
    Cancelled,
}

impl Status {
    /// The name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Exhausted => "exhausted",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What went wrong with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// A role gave no usable reply within its asks.
    Unparsable,
    /// A role's replies were blocked until its asks were used up.
    Blocked,
    /// The provider could not be reached until the job's deadline.
    Provider,
    /// The provider refuses this request and always will.
    Refused,
    /// A medium is not there.
    NotFound,
    /// A medium is broken, or not what the item says it is.
    InvalidMedia,
    /// A medium may not be read.
    Denied,
    /// A medium could not be had for now: its server or its disk fails. `--retry failed` asks again.
    Unavailable,
}

impl ErrorKind {
    /// The name in records and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unparsable => "unparsable",
            Self::Blocked => "blocked",
            Self::Provider => "provider",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::InvalidMedia => "invalid_media",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a job is blocked or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordError {
    /// The kind.
    pub kind: ErrorKind,
    /// One sentence.
    pub message: String,
    /// The role it happened to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    /// The try it happened in, from 1.
    #[serde(rename = "try", skip_serializing_if = "Option::is_none", default)]
    pub try_index: Option<u32>,
}

/// One medium of the job, as it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordMedium {
    /// Its name in the item.
    pub name: String,
    /// `video` or `audio`.
    pub kind: String,
    /// As given in the corpus, without query or credentials.
    pub uri: String,
    /// SHA-256 of the source in hex; absent when it could not be read.
    pub sha256: Option<String>,
    /// Size of the source.
    pub bytes: Option<u64>,
    /// Length of the source.
    pub duration_s: Option<f64>,
    /// Key frames shown, in seconds.
    pub frames_s: Vec<f64>,
    /// Seconds of sound prepared; absent without sound.
    pub audio_s: Option<f64>,
    /// Whether the sound was longer than the recipe's limit.
    pub audio_trimmed: bool,
    /// The clip as a whole, where a role is shown it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clip: Option<RecordClip>,
}

/// A clip as it was handed to providers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordClip {
    /// Its size.
    pub bytes: u64,
    /// Its length.
    pub duration_s: f64,
    /// Whether the source was longer than the recipe's limit.
    pub trimmed: bool,
    /// Whether it was made smaller than the source, to the recipe's limit.
    pub smaller: bool,
    /// Whether it has sound.
    pub sound: bool,
}

/// What became of one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was used.
    Used,
    /// It could not be read as what was asked for.
    Unparsable,
    /// It was blocked or empty.
    Blocked,
    /// It was cut at the maximum output.
    Truncated,
}

/// One reply a try rests on, used or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordCall {
    /// Who was asked.
    pub role: Role,
    /// Which ask, from 0.
    pub ask: u32,
    /// What became of the reply.
    pub outcome: Outcome,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The model asked for.
    pub model: String,
    /// The model that answered.
    pub model_version: Option<String>,
    /// The journal's key, in hex.
    pub key: String,
    /// Where the recipe's fallback was asked: the model that it stands in for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fallback_for: Option<FallbackFor>,
    /// Whether another job, or an earlier call of this one, paid for it.
    pub cached: bool,
    /// Times it was sent; 0 for a reply from the journal. Not content.
    pub attempts: u32,
    /// Why the model stopped, in the words of [`crate::provider::Finish`].
    pub finish_reason: String,
    /// What was billed.
    pub usage: Usage,
    /// What it cost this job.
    pub cost_nano_usd: u64,
    /// How long the reply took when it was paid for. Not content.
    pub latency_ms: u64,
}

/// A role's own model, which was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackFor {
    /// Its provider's name in the configuration.
    pub provider: String,
    /// The model.
    pub model: String,
    /// The journal's key of the request to it, under which the redirect to `key` is.
    pub key: String,
}

/// One try of the loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// From 1.
    pub index: u32,
    /// The steps; empty when the generator gave none.
    pub reasoning_steps: Vec<String>,
    /// An answer to each step.
    pub reasoning_answers: Vec<String>,
    /// The answer to the question.
    pub final_answer: Option<String>,
    /// The caption drawn from the steps.
    pub caption: Option<String>,
    /// 1..=10; absent when no verdict was reached.
    pub score: Option<u8>,
    /// What the evaluator says is wrong, when the recipe asks.
    pub critique: Option<String>,
    /// Whether a step reveals the answer.
    pub leak: Option<bool>,
    /// Whether the final answer is the corpus's; absent without one.
    pub answer_match: Option<bool>,
    /// The replies it rests on.
    pub calls: Vec<RecordCall>,
}

/// One job's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the run.
    pub run: String,
    /// blake3 of run, item id and revision, in hex.
    pub job_id: String,
    /// The item's id, given or derived from its content.
    pub item_id: String,
    /// How often the item was asked for again.
    pub revision: u32,
    /// How it ended.
    pub status: Status,
    /// The question.
    pub query: String,
    /// The item's task, if it names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<String>,
    /// The media.
    pub media: Vec<RecordMedium>,
    /// Index of the scored try with the highest score, the first on ties.
    pub best_try: Option<u32>,
    /// Its score.
    pub score: Option<u8>,
    /// The recipe's threshold.
    pub threshold: u8,
    /// The best try's steps.
    pub reasoning_steps: Vec<String>,
    /// The best try's answers to the steps.
    pub reasoning_answers: Vec<String>,
    /// The best try's answer.
    pub final_answer: Option<String>,
    /// The best try's caption.
    pub caption: Option<String>,
    /// All tries.
    pub tries: Vec<Try>,
    /// Sum over the replies this job paid for.
    pub usage: Usage,
    /// Sum over the replies this job paid for, in nano-dollars.
    pub cost_nano_usd: u64,
    /// Digest of the resolved recipe.
    pub recipe_digest: String,
    /// Why it is blocked or failed.
    pub error: Option<RecordError>,
    /// The recipe's rule by which it is exhausted before its tries were used up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gave_up: Option<GiveUp>,
    /// The item's own, untouched.
    pub metadata: serde_json::Value,
    /// Who ran it. Not content.
    pub worker: String,
    /// RFC 3339, UTC. Not content.
    pub started_at: jiff::Timestamp,
    /// RFC 3339, UTC. Not content.
    pub finished_at: jiff::Timestamp,
}

impl Record {
    /// The record without what a replay may change: worker, times, attempts and latencies.
    pub fn content(&self) -> Self {
        let mut content = self.clone();
        content.worker.clear();
        content.started_at = jiff::Timestamp::UNIX_EPOCH;
        content.finished_at = jiff::Timestamp::UNIX_EPOCH;
        for call in content.tries.iter_mut().flat_map(|t| &mut t.calls) {
            call.attempts = 0;
            call.latency_ms = 0;
        }
        content
    }
}
