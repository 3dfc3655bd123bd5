//! One call as both protocols mean it, and the answer to it before it is put into either's words.

use serde_json::Value;

use super::blob::{Kind, Medium};
use super::directive::Style;
use super::draw;
use super::fault::Fault;
use super::models::{Model, PromptTokens};
use super::prompt::Prompt;
use super::script;
use crate::provider::Protocol;

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    /// Server-sent events.
    Events,
    /// Gemini's JSON array of chunks.
    Array,
}

/// Thinking as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thinking {
    Off,
    On,
    Budget(u64),
}

/// A generation call that passed all checks.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) model: Model,
    /// All texts, in order; the system's last.
    pub(crate) text: String,
    pub(crate) media: Vec<Medium>,
    pub(crate) wants_json: bool,
    pub(crate) schema: Option<Value>,
    pub(crate) max_output: Option<u64>,
    pub(crate) thinking: Thinking,
    pub(crate) delivery: Delivery,
    /// OpenAI streams tell the usage only when asked to.
    pub(crate) stream_usage: bool,
}

/// A refusal in a protocol's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// For the statistics: a word that is the same for all refusals of its kind.
    pub(crate) kind: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stop,
    Length,
    Safety,
    Recitation,
    /// The prompt was blocked: there is no answer.
    Blocked,
    NoCandidates,
    /// Ended well, with nothing in it.
    Empty,
    /// Thinking took all the room.
    EmptyLength,
    /// A reason nobody knows.
    Unknown,
}

/// An answer before it is put into words of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) end: End,
    pub(crate) prompt: PromptTokens,
    /// Of the content.
    pub(crate) output: u64,
    pub(crate) thoughts: u64,
}

impl Call {
    /// Tokens of the prompt, by modality: text at four characters per token.
    pub(crate) fn prompt_tokens(&self) -> PromptTokens {
        let of =
            |kind| -> u64 { self.media.iter().filter(|medium| medium.kind == kind).map(|medium| medium.tokens).sum() };
        let sound: u64 = self.media.iter().map(|medium| medium.sound_tokens).sum();
        PromptTokens {
            text: text_tokens(&self.text),
            image: of(Kind::Image),
            audio: of(Kind::Audio) + sound,
            video: of(Kind::Video),
            document: of(Kind::Document),
        }
    }

    /// Names the reply schema asks for at its top.
    pub(crate) fn properties(&self) -> Vec<String> {
        let members = self.schema.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        members.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// What makes two calls the same request: model, texts, media and schema, but no seed and no other parameter.
    pub(crate) fn identity(&self) -> u128 {
        let media: Vec<[u8; 16]> = self.media.iter().map(|medium| medium.digest.to_le_bytes()).collect();
        let schema = self.schema.as_ref().map(Value::to_string).unwrap_or_default();
        let mut parts = vec![self.model.name.as_bytes(), self.text.as_bytes(), schema.as_bytes()];
        parts.extend(media.iter().map(<[u8; 16]>::as_slice));
        draw::digest(&parts)
    }

    /// Decoded bytes of all media.
    pub(crate) fn media_bytes(&self) -> u64 {
        self.media.iter().map(|medium| medium.bytes).sum()
    }
}

fn text_tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

/// Answers a call, well or with the reply fault given.
pub(crate) fn compose(call: &Call, prompt: &Prompt, style: Style, fault: Option<Fault>) -> Answer {
    let full = script::write(prompt, &call.text, call.schema.as_ref(), call.wants_json, style);
    let (text, end) = spoil(full, fault);
    let tokens = call.prompt_tokens();
    let wanted = thoughts(call, tokens.total());
    let most = call.max_output.unwrap_or(u64::MAX);
    let thoughts =
        if end == End::EmptyLength && call.thinking != Thinking::Off { most.min(65_536) } else { wanted.min(most) };
    let room = most - thoughts;
    let (text, end) = if room == 0 && matches!(end, End::Stop | End::Length) {
        (String::new(), End::EmptyLength)
    } else if text_tokens(&text) > room {
        let kept = usize::try_from(room.saturating_mul(4)).unwrap_or(usize::MAX);
        (text.chars().take(kept).collect(), End::Length)
    } else {
        (text, end)
    };
    let (output, thoughts) =
        if matches!(end, End::Blocked | End::NoCandidates) { (0, 0) } else { (text_tokens(&text), thoughts) };
    Answer { output, thoughts, text, end, prompt: tokens }
}

/// What a reply fault makes of a good text.
fn spoil(full: String, fault: Option<Fault>) -> (String, End) {
    let none = String::new;
    match fault {
        Some(Fault::Safety) => (none(), End::Safety),
        Some(Fault::Recitation) => (none(), End::Recitation),
        Some(Fault::Blocked) => (none(), End::Blocked),
        Some(Fault::NoCandidates) => (none(), End::NoCandidates),
        Some(Fault::Empty) => (none(), End::Empty),
        Some(Fault::EmptyLength) => (none(), End::EmptyLength),
        Some(Fault::UnknownFinish) => (none(), End::Unknown),
        Some(Fault::Truncated) => (full.chars().take(full.chars().count() / 2).collect(), End::Length),
        Some(Fault::Prose) => ("I looked at it closely, but there is little to say for certain.".to_owned(), End::Stop),
        Some(Fault::ScoreRange) => (r#"{"score": 11}"#.to_owned(), End::Stop),
        Some(Fault::ScoreFraction) => (r#"{"score": 7.5}"#.to_owned(), End::Stop),
        Some(Fault::ScoreWord) => (r#"{"score": "high"}"#.to_owned(), End::Stop),
        Some(Fault::ScoreTwo) => ("{\"score\": 4}\nOn second thoughts:\n{\"score\": 8}".to_owned(), End::Stop),
        _ => (full, End::Stop),
    }
}

/// Thought tokens, from the prompt's size alone so that a re-ask costs the same.
fn thoughts(call: &Call, prompt: u64) -> u64 {
    let by_itself = match call.model.protocol {
        Protocol::Gemini => call.model.gemini_major() >= 2 && !call.model.name.contains("2.5-flash-lite"),
        Protocol::Openai => call.model.reasons(),
    };
    let usual = 48 + prompt % 64;
    match call.thinking {
        Thinking::On if by_itself => usual,
        Thinking::Off | Thinking::On => 0,
        Thinking::Budget(most) => usual.min(most),
    }
}
