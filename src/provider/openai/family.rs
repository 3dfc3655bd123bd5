//! What a model's name says about the fields it takes.
//!
//! OpenAI's reasoning models (o-series, gpt-5 and later) refuse `max_tokens`, `temperature` and `top_p`, and count their
//! reasoning into the maximum. Which `reasoning_effort` each takes differs (OpenAI's API reference: `none` from gpt-5.1 on,
//! `minimal` only for gpt-5, `low` for all but the pro models, which take `high` alone); one that is not taken fails every
//! call of a run, so where a name is unknown `low` is sent, and to pro and chat models nothing.

use crate::provider::Thinking;

/// Room for reasoning where the model decides by itself.
const DEFAULT_ALLOWANCE: u32 = 8192;
/// Room at `low`.
const LOW_ALLOWANCE: u32 = 4096;
/// Room at `minimal`.
const MINIMAL_ALLOWANCE: u32 = 1024;

/// The fields that depend on the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// One of OpenAI's reasoning models.
    pub(super) reasons: bool,
    /// `reasoning_effort`, if one is sent.
    pub(super) effort: Option<&'static str>,
    /// The maximum as it is sent: content and reasoning together.
    pub(super) maximum: u32,
}

/// The plan for a model.
///
/// A model that is neither OpenAI's nor known may think (vLLM serves such), and no field of the protocol limits that: a
/// budget is added to its maximum and nothing else is sent.
pub(super) fn plan(model: &str, thinking: Thinking, max_output: u32) -> Plan {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let name = name.strip_prefix("ft:").unwrap_or(&name);
    let Some(least) = least_effort(name) else {
        let allowance = match thinking {
            Thinking::Budget(tokens) if !never_thinks(name) => tokens,
            _ => 0,
        };
        return Plan { reasons: false, effort: None, maximum: max_output.saturating_add(allowance) };
    };
    let (effort, allowance) = match (thinking, least) {
        (Thinking::Default, _) | (Thinking::Off | Thinking::Budget(0), Effort::Fixed) => (None, DEFAULT_ALLOWANCE),
        (Thinking::Off | Thinking::Budget(0), Effort::None) => (Some("none"), 0),
        (Thinking::Off | Thinking::Budget(0), Effort::Minimal) => (Some("minimal"), MINIMAL_ALLOWANCE),
        (Thinking::Off | Thinking::Budget(0), Effort::Low) => (Some("low"), LOW_ALLOWANCE),
        (Thinking::Budget(tokens), Effort::Fixed) => (None, tokens),
        (Thinking::Budget(tokens @ ..=4096), _) => (Some("low"), tokens),
        (Thinking::Budget(tokens @ ..=16_384), _) => (Some("medium"), tokens),
        (Thinking::Budget(tokens), _) => (Some("high"), tokens),
    };
    Plan { reasons: true, effort, maximum: max_output.saturating_add(allowance) }
}

/// The least effort a reasoning model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    Minimal,
    Low,
    /// It takes no effort but its own.
    Fixed,
}

/// None for a model that is not one of OpenAI's reasoning models.
fn least_effort(name: &str) -> Option<Effort> {
    if let Some(rest) = name.strip_prefix('o') {
        return rest.starts_with(|c: char| c.is_ascii_digit()).then(|| effort_of(name, Effort::Low));
    }
    let version = name.strip_prefix("gpt-")?.split(['-', ':']).next()?;
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next().and_then(Result::ok));
    match (major, minor) {
        (..5, _) => None,
        (5, None | Some(0)) => Some(effort_of(name, Effort::Minimal)),
        (5, Some(_)) => Some(effort_of(name, Effort::None)),
        _ => Some(effort_of(name, Effort::Low)),
    }
}

fn effort_of(name: &str, least: Effort) -> Effort {
    let fixed = ["-pro", "-chat", "o1-mini", "o1-preview"].iter().any(|mark| name.contains(mark));
    let codex = name.contains("-codex");
    match least {
        _ if fixed => Effort::Fixed,
        _ if codex => Effort::Low,
        least => least,
    }
}

/// OpenAI's models before gpt-5.
fn never_thinks(name: &str) -> bool {
    ["gpt-3", "gpt-4", "gpt-audio", "chatgpt-4"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_takes_its_own_fields() {
        use Thinking::{Budget, Default, Off};
        for (model, thinking, reasons, effort, maximum) in [
            ("gpt-4o-mini", Off, false, None, 100),
            ("gpt-4o-mini", Budget(50), false, None, 100),
            ("gpt-4.1", Default, false, None, 100),
            ("gpt-audio-mini", Off, false, None, 100),
            ("ft:gpt-4o:org::id", Off, false, None, 100),
            ("Qwen/Qwen3-VL-8B", Off, false, None, 100),
            ("Qwen/Qwen3-VL-8B", Budget(50), false, None, 150),
            ("openai/gpt-oss-120b", Off, false, None, 100),
            ("olmo-2", Off, false, None, 100),
            ("o3-mini", Off, true, Some("low"), 4196),
            ("o4-mini", Budget(10_000), true, Some("medium"), 10_100),
            ("o1-pro", Off, true, None, 8292),
            ("gpt-5", Off, true, Some("minimal"), 1124),
            ("gpt-5-nano-2025-08-07", Off, true, Some("minimal"), 1124),
            ("gpt-5-pro", Off, true, None, 8292),
            ("gpt-5-chat-latest", Off, true, None, 8292),
            ("gpt-5.1", Off, true, Some("none"), 100),
            ("gpt-5.4-mini", Off, true, Some("none"), 100),
            ("gpt-5.4-mini", Budget(0), true, Some("none"), 100),
            ("gpt-5.4-mini", Default, true, None, 8292),
            ("openai/gpt-5.4-mini", Budget(20_000), true, Some("high"), 20_100),
            ("gpt-6-luna", Off, true, Some("low"), 4196),
            ("gpt-6-luna", Budget(1000), true, Some("low"), 1100),
        ] {
            assert_eq!(plan(model, thinking, 100), Plan { reasons, effort, maximum }, "{model} {thinking:?}");
        }
    }
}
