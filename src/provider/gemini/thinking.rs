//! How much a model may think, in the terms of its family, and what that makes of the maximum output.
//!
//! Gemini counts thoughts into `maxOutputTokens`: a maximum meant for the content alone comes back as `MAX_TOKENS` with no
//! text at all. So what is sent is the content's maximum plus an allowance for thoughts; the sum is also the most that
//! can be billed, and replies cost what they use, not what they may. Families, from the API's documentation on thinking:
//! 2.5 takes a budget (Flash 0..=24576, Flash-Lite 0 or 512..=24576, Pro 128..=32768, never off), 3 and later a level; 2.0 and
//! older, and other models on this API, do not think and refuse the field.

use serde_json::{Value, json};

use crate::provider::Thinking;

/// Most output tokens of a model that thinks (2.5 and later).
const LONGEST_OUTPUT: u32 = 65_536;
/// Room for thoughts where the model decides by itself; its automatic budget is about that.
const DEFAULT_ALLOWANCE: u32 = 8192;
/// `MINIMAL` is not off: for hard prompts a model may still think a little.
const MINIMAL_ALLOWANCE: u32 = 1024;
/// Room for thoughts at `LOW`.
const LOW_ALLOWANCE: u32 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Does not think.
    Plain,
    /// 2.5: a budget between these, with or without 0.
    Budget { least: u32, most: u32, off: bool, by_default: bool },
    /// 3 and later: a level; `MINIMAL` only where the family is known to take it.
    Level { minimal: bool },
}

/// `thinkingConfig`, if one is sent, and `maxOutputTokens` as it is sent: content and thinking together.
pub fn thinking_plan(model: &str, thinking: Thinking, max_output: u32) -> (Option<Value>, u32) {
    let thinking = if thinking == Thinking::Budget(0) { Thinking::Off } else { thinking };
    let (config, allowance) = match (family(model), thinking) {
        (Family::Plain, _) => return (None, max_output),
        (Family::Budget { by_default, .. }, Thinking::Default) => {
            (None, if by_default { DEFAULT_ALLOWANCE } else { 0 })
        }
        (Family::Budget { off: true, .. }, Thinking::Off) => budget(0),
        (Family::Budget { least, .. }, Thinking::Off) => budget(least),
        (Family::Budget { least, most, .. }, Thinking::Budget(tokens)) => budget(tokens.clamp(least, most)),
        (Family::Level { .. }, Thinking::Default) => (None, DEFAULT_ALLOWANCE),
        (Family::Level { minimal: true }, Thinking::Off) => level("MINIMAL", MINIMAL_ALLOWANCE),
        (Family::Level { minimal: false }, Thinking::Off) => level("LOW", LOW_ALLOWANCE),
        (Family::Level { .. }, Thinking::Budget(tokens)) => {
            level(if tokens <= LOW_ALLOWANCE { "LOW" } else { "HIGH" }, tokens)
        }
    };
    (config, max_output.saturating_add(allowance).min(LONGEST_OUTPUT.max(max_output)))
}

fn budget(tokens: u32) -> (Option<Value>, u32) {
    (Some(json!({ "thinkingBudget": tokens })), tokens)
}

fn level(name: &str, allowance: u32) -> (Option<Value>, u32) {
    (Some(json!({ "thinkingLevel": name })), allowance)
}

/// Unknown names of the Gemini family (`gemini-flash-latest`) are taken for the current generation.
///
/// `MINIMAL` is documented for 3 Flash and for Flash-Lite from 3.1 on; the Pro models and later Flash models list `LOW` as
/// their least. Every model takes `LOW`, and a level that is not taken fails each call of a run, so doubt means `LOW`.
fn family(model: &str) -> Family {
    let name = model.rsplit('/').next().unwrap_or(model).to_ascii_lowercase();
    let Some(rest) = name.strip_prefix("gemini-") else {
        return Family::Plain;
    };
    let version = rest.split('-').next().unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let lite = rest.contains("flash-lite");
    match (version, major) {
        ("2.5", _) if lite => Family::Budget { least: 512, most: 24_576, off: true, by_default: false },
        ("2.5", _) if rest.contains("flash") => Family::Budget { least: 1, most: 24_576, off: true, by_default: true },
        ("2.5", _) => Family::Budget { least: 128, most: 32_768, off: false, by_default: true },
        (_, Some(0..=2)) => Family::Plain,
        _ => Family::Level { minimal: (lite && major == Some(3)) || rest.starts_with("3-flash") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_thinks_in_its_own_terms_and_the_maximum_leaves_room_for_it() {
        use Thinking::{Budget, Default, Off};
        let budget = |tokens: u32| Some(json!({"thinkingBudget": tokens}));
        let level = |name: &str| Some(json!({"thinkingLevel": name}));
        for (model, thinking, config, maximum) in [
            ("gemini-2.5-flash", Off, budget(0), 1000),
            ("gemini-2.5-flash", Default, None, 9192),
            ("gemini-2.5-flash", Budget(2000), budget(2000), 3000),
            ("gemini-2.5-flash", Budget(100_000), budget(24_576), 25_576),
            ("gemini-2.5-flash", Budget(0), budget(0), 1000),
            ("gemini-2.5-flash-lite", Off, budget(0), 1000),
            ("gemini-2.5-flash-lite", Default, None, 1000),
            ("gemini-2.5-flash-lite", Budget(10), budget(512), 1512),
            ("gemini-2.5-pro", Off, budget(128), 1128),
            ("gemini-2.5-pro", Budget(1), budget(128), 1128),
            ("models/gemini-2.5-pro", Default, None, 9192),
            ("gemini-3-flash-preview", Off, level("MINIMAL"), 2024),
            ("gemini-3.1-flash-lite", Off, level("MINIMAL"), 2024),
            ("gemini-3.8-flash", Off, level("LOW"), 5096),
            ("gemini-3.1-pro-preview", Off, level("LOW"), 5096),
            ("gemini-4-argon", Off, level("LOW"), 5096),
            ("gemini-flash-latest", Off, level("LOW"), 5096),
            ("gemini-3.8-flash", Default, None, 9192),
            ("gemini-3.8-flash", Budget(2000), level("LOW"), 3000),
            ("gemini-3.8-flash", Budget(20_000), level("HIGH"), 21_000),
            ("gemini-3.8-flash", Budget(u32::MAX), level("HIGH"), 65_536),
            ("gemini-2.0-flash", Off, None, 1000),
            ("gemini-1.5-pro-latest", Budget(5000), None, 1000),
            ("gemma-3-27b-it", Default, None, 1000),
        ] {
            assert_eq!(thinking_plan(model, thinking, 1000), (config, maximum), "{model} {thinking:?}");
        }
    }

    #[test]
    fn a_content_maximum_beyond_the_models_own_is_sent_as_it_is() {
        assert_eq!(thinking_plan("gemini-3.8-flash", Thinking::Default, 70_000).1, 70_000);
        assert_eq!(thinking_plan("gemini-3.8-flash", Thinking::Default, u32::MAX).1, u32::MAX);
    }
}
