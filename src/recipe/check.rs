//! The ranges of a recipe's values and the sense of its combinations, for files and stored recipes alike.

use std::ops::RangeInclusive;

use super::{GiveUp, MediaMode, Recipe, Seat, TemplateKind};
use crate::media::Settings;
use crate::provider::{Role, Thinking};

const MAX_SYSTEM: usize = 32 * 1024;

/// Everything that is wrong, by key.
pub(super) fn all(recipe: &Recipe) -> Vec<String> {
    let mut problems = numbers(recipe.threshold, recipe.max_tries, recipe.max_asks, &recipe.media);
    problems.extend(give_up(&recipe.give_up));
    for role in Role::ALL {
        seat(role, recipe.seat(role), &mut problems);
    }
    problems
}

/// What is wrong with the numbers outside the seats.
pub(super) fn numbers(threshold: u8, max_tries: u32, max_asks: u32, media: &Settings) -> Vec<String> {
    let rows: [(&str, u32, RangeInclusive<u32>); 9] = [
        ("threshold", threshold.into(), 1..=10),
        ("max_tries", max_tries, 1..=100),
        ("max_asks", max_asks, 1..=20),
        ("media.max_frames", media.max_frames, 1..=256),
        ("media.frame_size", media.frame_size, 32..=8192),
        ("media.audio_rate", media.audio_rate, 8_000..=48_000),
        ("media.audio_seconds", media.audio_seconds, 1..=86_400),
        ("media.clip_mib", media.clip_mib, 0..=2048),
        ("media.clip_seconds", media.clip_seconds, 0..=86_400),
    ];
    let wrong = rows.into_iter().filter(|(_, value, range)| !range.contains(value));
    let wrong = wrong.map(|(key, value, range)| format!("{key} is {value}, not {} to {}", range.start(), range.end()));
    wrong.chain(media.problem()).collect()
}

/// What is wrong with the rules by which jobs are given up.
pub(super) fn give_up(rules: &[GiveUp]) -> Vec<String> {
    let number = |(at, rule): (usize, &GiveUp)| {
        let rows: [(&str, u32, RangeInclusive<u32>); 2] =
            [("after_try", rule.after_try, 1..=100), ("below_score", rule.below_score.into(), 2..=10)];
        let wrong = rows.into_iter().filter(|(_, value, range)| !range.contains(value));
        let said = wrong.map(|(key, value, range)| {
            format!("give_up[{at}].{key} is {value}, not {} to {}", range.start(), range.end())
        });
        said.collect::<Vec<_>>()
    };
    rules.iter().enumerate().flat_map(number).collect()
}

/// What is wrong with one seat.
pub(super) fn seat(role: Role, seat: &Seat, problems: &mut Vec<String>) {
    let at = format!("roles.{role}");
    let mut wrong = |problem: String| problems.push(format!("{at}.{problem}"));
    for ((provider, model), at) in seat.players().zip(["", "fallback."]) {
        player(provider, model, |problem| wrong(format!("{at}{problem}")));
    }
    let mut players = seat.players();
    if players.next() == players.next() {
        wrong("fallback is the role's own model".into());
    }
    if !(1..=65_536).contains(&seat.max_output_tokens) {
        wrong(format!("max_output_tokens is {}, not 1 to 65536", seat.max_output_tokens));
    }
    if let Thinking::Budget(budget) = seat.thinking
        && !(1..=65_536).contains(&budget)
    {
        wrong(format!("thinking.budget is {budget}, not 1 to 65536; \"off\" turns it off"));
    }
    if seat.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        wrong(format!("temperature is {}, not 0 to 2", seat.temperature.unwrap_or_default()));
    }
    if seat.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
        wrong(format!("top_p is {}, not above 0 and at most 1", seat.top_p.unwrap_or_default()));
    }
    if let Some(system) = &seat.system
        && (system.trim().is_empty() || system.len() > MAX_SYSTEM || system.contains('\0'))
    {
        wrong(format!("system is blank, holds NUL or has more than {MAX_SYSTEM} bytes"));
    }
    match (role, seat.media) {
        (Role::Generator | Role::Evaluator, MediaMode::None) => {
            wrong(format!("media is \"none\", but the {role} has to see or hear the clip"));
        }
        (Role::Summarizer, mode) if mode != MediaMode::None => {
            wrong("media is not \"none\", but the summarizer writes from the reasoning alone".into());
        }
        _ => {}
    }
    templates(role, seat, &mut wrong);
}

fn player(provider: &str, model: &str, mut wrong: impl FnMut(String)) {
    let name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if provider.is_empty() || provider.len() > 64 || !provider.chars().all(name) {
        wrong(format!("provider is {provider:?}, not 1 to 64 of A-Z a-z 0-9 _ . -"));
    }
    if model.is_empty() || model.len() > 256 || model.contains(|c: char| c.is_control() || c.is_whitespace()) {
        wrong(format!("model is {model:?}, not 1 to 256 characters without white space"));
    }
}

fn templates(role: Role, seat: &Seat, wrong: &mut impl FnMut(String)) {
    let kind = match role {
        Role::Generator => TemplateKind::Generator,
        Role::Summarizer => TemplateKind::Summarizer,
        Role::Evaluator => TemplateKind::Evaluator,
    };
    if let Err(problem) = seat.prompt.check(kind) {
        wrong(format!("prompt: {problem}"));
    }
    match (role, &seat.feedback_prompt) {
        (Role::Generator, Some(feedback)) => {
            if let Err(problem) = feedback.check(TemplateKind::Feedback) {
                wrong(format!("feedback_prompt: {problem}"));
            }
        }
        (Role::Generator, None) => wrong("feedback_prompt is missing".into()),
        (_, Some(_)) => wrong("feedback_prompt is given, but only the generator has one".into()),
        (_, None) => {}
    }
}
