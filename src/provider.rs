//! What a model call is, before and after any provider's wire format.
//!
//! Each protocol is a pair of pure functions, a body builder and a reply parser ([`gemini`], [`openai`]); one
//! transport ([`http`]) carries both and is the only place that waits. A reply with HTTP 200 was paid for and is a
//! [`Reply`], however useless its text; everything else is a [`CallError`], typed by what to do about it. The official
//! SDKs were rejected as a base: they ignore the providers' own hints, retry what can never succeed, and resend after a
//! cut connection without saying so.

pub mod body;
pub mod credentials;
pub mod failure;
pub mod gemini;
pub mod hints;
pub mod http;
pub mod openai;
mod video;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::quota::NamedLimit;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::video::{VideoFrom, VideoSent, VideoWay};

/// Which protocol a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `generateContent` of the Gemini API.
    Gemini,
    /// `chat/completions` of OpenAI and of the servers compatible with it.
    Openai,
}

impl Protocol {
    /// The most output tokens that this request can be billed for, thinking included: what is sent as its maximum.
    pub fn max_billed_output(self, request: &Request) -> u32 {
        match self {
            Self::Gemini => gemini::max_billed_output(request),
            Self::Openai => openai::max_billed_output(request),
        }
    }
}

/// One seat of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Writes reasoning steps, their answers and a final answer; with feedback from the second try on.
    Generator,
    /// Draws a caption from the steps, without media.
    Summarizer,
    /// Scores the caption against the media.
    Evaluator,
}

impl Role {
    /// Every role, in the order of the loop.
    pub const ALL: [Self; 3] = [Self::Generator, Self::Summarizer, Self::Evaluator];

    /// The role's name in recipes, records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Summarizer => "summarizer",
            Self::Evaluator => "evaluator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much a model may think before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// Nothing is sent: the model's own default.
    Default,
    /// Turned off (Gemini 2.5: `thinkingBudget` 0; Gemini 3+: `thinkingLevel` MINIMAL; OpenAI: no field).
    Off,
    /// At most this many tokens, on top of the content's own maximum.
    Budget(u32),
}

/// Generation parameters of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Sampling temperature; absent: the model's default.
    pub temperature: Option<f64>,
    /// Nucleus sampling; absent: the model's default.
    pub top_p: Option<f64>,
    /// Most tokens of content in the reply, thinking not counted. Always sent: the money bound rests on it.
    pub max_output_tokens: u32,
    /// Thinking, apart from the content.
    pub thinking: Thinking,
    /// Seed sent to the provider: 31 bits, not negative.
    pub seed: u32,
}

/// A JSON schema the reply should follow. Providers that cannot take one are sent none.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Matches `[A-Za-z0-9_-]{1,64}`.
    pub name: &'static str,
    /// JSON Schema: an object with every property required and `additionalProperties: false`.
    pub schema: serde_json::Value,
}

/// One medium as it is sent: encoded once, shared by every call that shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// For example `image/jpeg` or `audio/wav`.
    pub mime: &'static str,
    /// Standard base64 with padding.
    pub base64: Bytes,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {} base64 bytes)", self.mime, self.base64.len())
    }
}

/// One part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A still, with its size in pixels (the money bound counts tiles).
    Image {
        /// The encoded image.
        blob: Blob,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A clip as a whole, with its length (the money bound counts seconds).
    Video {
        /// Where the provider finds it.
        from: VideoFrom,
        /// For example `video/mp4`.
        mime: &'static str,
        /// Length in milliseconds.
        duration_ms: u64,
        /// Whether its own sound is part of it.
        sound: bool,
    },
    /// Sound, with its length (the money bound counts seconds).
    Audio {
        /// The encoded sound.
        blob: Blob,
        /// Length in milliseconds.
        duration_ms: u64,
    },
}

/// One model call: media first, role instructions after them, so that all roles of a clip share a prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Whose turn it is; never sent.
    pub role: Role,
    /// Model name as the provider knows it.
    pub model: String,
    /// System instruction, if the recipe has one.
    pub system: Option<String>,
    /// Media, then text. Shared, since retries send them again.
    pub parts: Arc<[Part]>,
    /// Generation parameters.
    pub params: Params,
    /// Reply schema.
    pub schema: Option<Schema>,
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was done, and there is text.
    Stop,
    /// The maximum output was reached: the text is cut, or empty when thinking used it all.
    Truncated,
    /// Blocked; holds the provider's reason, for example `SAFETY` or `content_filter`.
    Blocked(String),
    /// Done, but without any text.
    Empty,
    /// Any other reason, known or not, as the provider names it.
    Other(String),
}

/// Tokens as the provider reports them. An absent counter is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All input tokens, cached ones and audio included.
    pub input_tokens: u64,
    /// Input tokens served from the provider's cache.
    pub cached_tokens: u64,
    /// Input tokens that are audio.
    pub audio_tokens: u64,
    /// Output tokens, thinking included: it is billed as output.
    pub output_tokens: u64,
    /// Output tokens spent on thinking.
    pub thinking_tokens: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            audio_tokens: self.audio_tokens.saturating_add(other.audio_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            thinking_tokens: self.thinking_tokens.saturating_add(other.thinking_tokens),
        }
    }
}

/// A reply that was paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The answer, without thoughts; empty when there is none.
    pub text: String,
    /// Why the model stopped.
    pub finish: Finish,
    /// What it is billed for.
    pub usage: Usage,
    /// The model that really answered.
    pub model_version: Option<String>,
    /// The provider's id of the reply.
    pub response_id: Option<String>,
    /// From the first byte sent to the last received, in milliseconds.
    pub latency_ms: u64,
}

/// What kind of failure a call met; each kind has one consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// Too fast: the account waits, then the call is sent again.
    Throttled,
    /// The day's quota is used up: the account waits for its reset.
    DayExhausted,
    /// The provider or the way to it failed (5xx, cut, timeout): again, with backoff.
    Unavailable,
    /// The provider will never take this request: the item fails at once.
    Refused,
    /// The credential is refused (401, 403, revoked, billing): the run's fault, not the item's.
    KeyRefused,
    /// The provider knows no such model or address (404): the run's fault, not the item's.
    ModelUnknown,
    /// An uploaded file that the request names is not there for this credential: deleted, expired, another project's. It
    /// is uploaded again.
    FileGone,
    /// An uploaded file that the request names is not ready yet: it is waited for.
    FileNotReady,
}

/// Whether a failed call may have been billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Billed {
    /// It never left, or was answered with an error.
    No,
    /// It was sent and its end was not seen.
    Unknown,
}

/// A call that brought no reply. The message never holds a key, media or prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What to do about it.
    pub kind: CallErrorKind,
    /// Whether money may have gone.
    pub billed: Billed,
    /// What happened, in one sentence: status, the provider's own words, cut to a readable length.
    pub message: String,
    /// When the provider says to come back.
    pub retry_after: Option<Duration>,
    /// Of a call that was too fast: the limit that the provider names.
    pub limit: NamedLimit,
}

/// Where a provider is and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name in the configuration.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Without a trailing slash. Gemini: without the version; OpenAI: with it (`/v1`).
    pub base_url: String,
    /// Gemini's path segment, for example `v1beta`; unused by OpenAI.
    pub api_version: String,
    /// Part of every journal key, so that a simulator never answers for the real thing.
    pub identity: String,
    /// How it is given whole clips.
    pub video: VideoWay,
    /// The largest clip, in bytes, that goes inside a request.
    pub inline_bytes: u64,
}

/// How long a call may take at each stage, and how much it may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// From sending until the response head.
    pub first_byte: Duration,
    /// Between two pieces of the response body.
    pub idle: Duration,
    /// The whole call.
    pub total: Duration,
    /// A longer reply is an error.
    pub max_reply_bytes: usize,
    /// A PEM bundle trusted beside the system's certificates.
    pub extra_ca_file: Option<std::path::PathBuf>,
}
