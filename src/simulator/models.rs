//! The models the simulator plays, and its own books.
//!
//! The prices are written out here a second time, apart from `config/prices.toml`, and the arithmetic is its own: a test
//! that compares the program's spend with the simulator's must not compare a table with itself. Every listed price is
//! a whole number of nano-dollars per token, so a call's cost is exact and nothing is rounded.

use serde::{Deserialize, Serialize};

use crate::provider::Protocol;

/// What one token costs, in nano-dollars, and what the model can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Exact name, as it stands in a request.
    pub name: String,
    /// The protocol that serves it.
    pub protocol: Protocol,
    /// Nano-dollars per prompt token that is not audio.
    pub input: u64,
    /// Nano-dollars per audio token of the prompt.
    pub audio: u64,
    /// Nano-dollars per output token, thoughts included.
    pub output: u64,
    /// From more than this many prompt tokens on, `long_input` and `long_output` hold instead. 0: never.
    #[serde(default)]
    pub long_from: u64,
    /// Nano-dollars per prompt token of a long prompt.
    #[serde(default)]
    pub long_input: u64,
    /// Nano-dollars per output token of a long prompt.
    #[serde(default)]
    pub long_output: u64,
    /// Whether it takes `video_url` and `audio_url` parts (OpenAI's protocol), as servers like vLLM do; api.openai.com takes none.
    #[serde(default)]
    pub video: bool,
}

/// Tokens of a prompt, by modality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PromptTokens {
    pub(crate) text: u64,
    pub(crate) image: u64,
    pub(crate) audio: u64,
    pub(crate) video: u64,
    pub(crate) document: u64,
}

impl PromptTokens {
    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.text + self.image + self.audio + self.video + self.document
    }
}

impl Model {
    /// What a call costs in nano-dollars: exact, since every rate is a whole number per token.
    pub(crate) fn cost(&self, prompt: PromptTokens, output: u64) -> u64 {
        let long = self.long_from > 0 && prompt.total() > self.long_from;
        let (input, out) = if long { (self.long_input, self.long_output) } else { (self.input, self.output) };
        let audio = if long && self.audio == self.input { input } else { self.audio };
        (prompt.total() - prompt.audio) * input + prompt.audio * audio + output * out
    }

    /// The Gemini generation: 2 for `gemini-2.5-flash`, 4 for `gemini-4-argon`; 0 for anything else.
    pub(crate) fn gemini_major(&self) -> u32 {
        let digits = self.name.strip_prefix("gemini-").unwrap_or_default();
        digits.split(['.', '-']).next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// Whether OpenAI's rules for reasoning models hold (o-series, gpt-5 and later).
    pub(crate) fn reasons(&self) -> bool {
        let generation = |prefix| {
            let rest = self.name.strip_prefix(prefix)?;
            rest.split(['.', '-']).next()?.parse::<u32>().ok()
        };
        generation("gpt-").is_some_and(|major| major >= 5) || generation("o").is_some()
    }

    /// Whether it hears (OpenAI's protocol; every Gemini model does). Rule: litellm's table, `gpt-audio*`, `gpt-4o-audio*`.
    pub(crate) fn hears(&self) -> bool {
        self.protocol == Protocol::Gemini || self.name.starts_with("gpt-audio") || self.name.starts_with("gpt-4o-audio")
    }
}

/// Name, protocol letter, input, audio, output, long-prompt threshold, its input, its output; nano-dollars per token.
type Row = (&'static str, Protocol, u64, u64, u64, u64, u64, u64);

/// Prices of 2026-11-23 (litellm 1.109.1's table).
const TABLE: [Row; 18] = [
    ("gemini-2.5-flash", Protocol::Gemini, 300, 1_000, 2_500, 0, 0, 0),
    ("gemini-2.5-flash-lite", Protocol::Gemini, 100, 300, 400, 0, 0, 0),
    ("gemini-2.5-pro", Protocol::Gemini, 1_250, 1_250, 10_000, 200_000, 2_500, 15_000),
    ("gemini-3-flash-preview", Protocol::Gemini, 500, 1_000, 3_000, 0, 0, 0),
    ("gemini-3.1-flash-lite", Protocol::Gemini, 250, 500, 1_500, 0, 0, 0),
    ("gemini-3.1-pro-preview", Protocol::Gemini, 2_000, 2_000, 12_000, 200_000, 4_000, 18_000),
    ("gemini-3.5-flash", Protocol::Gemini, 1_500, 1_500, 9_000, 0, 0, 0),
    ("gemini-3.8-flash", Protocol::Gemini, 750, 750, 3_750, 0, 0, 0),
    ("gemini-4-argon", Protocol::Gemini, 2_000, 2_000, 10_000, 0, 0, 0),
    ("gpt-4o", Protocol::Openai, 2_500, 2_500, 10_000, 0, 0, 0),
    ("gpt-4o-mini", Protocol::Openai, 150, 150, 600, 0, 0, 0),
    ("gpt-4o-audio-preview", Protocol::Openai, 2_500, 40_000, 10_000, 0, 0, 0),
    ("gpt-audio", Protocol::Openai, 2_500, 32_000, 10_000, 0, 0, 0),
    ("gpt-audio-mini", Protocol::Openai, 600, 10_000, 2_400, 0, 0, 0),
    ("gpt-5.4-mini", Protocol::Openai, 750, 750, 4_500, 0, 0, 0),
    ("gpt-5.4-nano", Protocol::Openai, 200, 200, 1_250, 0, 0, 0),
    ("gpt-6-luna", Protocol::Openai, 100, 100, 500, 272_000, 200, 500),
    ("o4-mini", Protocol::Openai, 1_100, 1_100, 4_400, 0, 0, 0),
];

/// The built-in models.
pub(crate) fn built_in() -> impl Iterator<Item = Model> {
    TABLE.iter().map(|&(name, protocol, input, audio, output, long_from, long_input, long_output)| Model {
        name: name.to_owned(),
        protocol,
        input,
        audio,
        output,
        long_from,
        long_input,
        long_output,
        video: false,
    })
}

/// The model `name` of `protocol`: a configured one first, else a built-in one.
pub(crate) fn find(extra: &[Model], protocol: Protocol, name: &str) -> Option<Model> {
    let fits = |model: &Model| model.protocol == protocol && model.name == name;
    extra.iter().find(|model| fits(model)).cloned().or_else(|| built_in().find(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Model {
        built_in().find(|model| model.name == name).unwrap()
    }

    #[test]
    fn a_cost_is_exact_and_counts_audio_apart() {
        let prompt = PromptTokens { text: 100, image: 258, audio: 320, ..PromptTokens::default() };
        assert_eq!(model("gemini-2.5-flash").cost(prompt, 40), 358 * 300 + 320 * 1_000 + 40 * 2_500);
    }

    #[test]
    fn a_long_prompt_costs_its_own_rate_from_the_first_token() {
        let prompt = PromptTokens { text: 200_001, ..PromptTokens::default() };
        assert_eq!(model("gemini-2.5-pro").cost(prompt, 1), 200_001 * 2_500 + 15_000);
    }

    #[test]
    fn families_are_told_apart_by_name() {
        assert_eq!(model("gemini-2.5-flash-lite").gemini_major(), 2);
        assert_eq!(model("gemini-4-argon").gemini_major(), 4);
        assert!(model("gpt-6-luna").reasons() && model("gpt-5.4-nano").reasons() && model("o4-mini").reasons());
        assert!(!model("gpt-4o").reasons() && !model("gpt-audio").reasons());
        assert!(model("gpt-audio-mini").hears() && !model("gpt-4o").hears());
    }

    #[test]
    fn a_model_answers_only_in_its_own_protocol() {
        assert!(find(&[], Protocol::Openai, "gemini-2.5-pro").is_none());
        assert!(find(&[], Protocol::Gemini, "gemini-2.5-pro").is_some());
    }
}
