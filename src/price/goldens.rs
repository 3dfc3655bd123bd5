//! Bills computed by hand from what the providers publish.
//!
//! Neither provider publishes a worked bill in dollars for one of these models. What their documentation does print are
//! counters of example replies (context caching at Google, prompt caching at OpenAI), token counts of media, and the price
//! of each kind of token; here the ones are multiplied by the others on paper, a summand per kind. One dollar per million
//! tokens is 1,000 nano-dollars per token.

use super::tests::builtin;
use crate::provider::Protocol::{self, Gemini, Openai};
use crate::provider::Usage;

/// A bill as it is sent directly, and as a batch.
type Bill = (Protocol, &'static str, Usage, u64, u64);

fn usage(input_tokens: u64, cached_tokens: u64, audio_tokens: u64, output_tokens: u64) -> Usage {
    Usage { input_tokens, cached_tokens, audio_tokens, output_tokens, thinking_tokens: 0 }
}

#[track_caller]
fn holds(bills: &[Bill]) {
    let table = builtin();
    for (protocol, model, usage, direct, batch) in bills {
        let price = table.find(*protocol, model).unwrap();
        assert_eq!(price.cost(usage).0, *direct, "{model} {usage:?}");
        assert_eq!(price.cost_batch(usage).0, *batch, "{model} {usage:?} as a batch");
    }
}

#[test]
fn cached_input_is_billed_as_published_for_the_documented_replies() {
    // "prompt_tokens": 2006, "cached_tokens": 1920, "completion_tokens": 300 (OpenAI, prompt caching).
    let openai = usage(2006, 1920, 0, 300);
    // prompt_token_count: 696219, cached_content_token_count: 696190, candidates_token_count: 214 (Google, context caching).
    let google = usage(696_219, 696_190, 0, 214);
    holds(&[
        // 86 at $2.50, 1920 at $1.25, 300 at $10.00
        (Openai, "gpt-4o", openai, 215_000 + 2_400_000 + 3_000_000, 2_807_500),
        // 86 at $0.15, 1920 at $0.075, 300 at $0.60
        (Openai, "gpt-4o-mini", openai, 12_900 + 144_000 + 180_000, 168_450),
        // 29 at $0.30, 696190 at $0.03, 214 at $2.50
        (Gemini, "gemini-2.5-flash", google, 8_700 + 20_885_700 + 535_000, 10_714_700),
        // 29 at $0.75, 696190 at $0.075, 214 at $3.75
        (Gemini, "gemini-3.8-flash", google, 21_750 + 52_214_250 + 802_500, 26_519_250),
    ]);
}

#[test]
fn a_long_prompt_is_billed_at_its_tier_as_a_whole_cached_part_and_output_included() {
    let google = usage(696_219, 696_190, 0, 214);
    holds(&[
        // 29 at $2.50, 696190 at $0.25, 214 at $15.00
        (Gemini, "gemini-2.5-pro", google, 72_500 + 174_047_500 + 3_210_000, 88_665_000),
        // 29 at $4.00, 696190 at $0.40, 214 at $18.00
        (Gemini, "gemini-3.1-pro-preview", google, 116_000 + 278_476_000 + 3_852_000, 141_222_000),
        // The last prompt of the lower tier, and the first of the upper one: $1.25 and $10.00, then $2.50 and $15.00.
        (Gemini, "gemini-2.5-pro", usage(200_000, 0, 0, 1000), 250_000_000 + 10_000_000, 130_000_000),
        (Gemini, "gemini-2.5-pro", usage(200_001, 0, 0, 1000), 500_002_500 + 15_000_000, 257_501_250),
    ]);
}

#[test]
fn a_minute_of_sound_is_billed_at_the_rate_of_sound() {
    // 32 tokens a second, so 1,920 a minute (Google, audio); with a question of 80 tokens and an answer of 100.
    let minute = usage(2000, 0, 1920, 100);
    holds(&[
        // 80 at $0.30, 1920 at $1.00, 100 at $2.50
        (Gemini, "gemini-2.5-flash", minute, 24_000 + 1_920_000 + 250_000, 1_097_000),
        // 80 at $0.10, 1920 at $0.30, 100 at $0.40
        (Gemini, "gemini-2.5-flash-lite", minute, 8_000 + 576_000 + 40_000, 312_000),
        // 80 at $0.25, 1920 at $0.50, 100 at $1.50
        (Gemini, "gemini-3.1-flash-lite", minute, 20_000 + 960_000 + 150_000, 565_000),
        // 80 at $0.50, 1920 at $1.00, 100 at $3.00
        (Gemini, "gemini-3-flash-preview", minute, 40_000 + 1_920_000 + 300_000, 1_130_000),
        // Sound at the price of text: 2000 at $1.25, 100 at $10.00
        (Gemini, "gemini-2.5-pro", minute, 2_500_000 + 1_000_000, 1_750_000),
        // 80 at $2.50, 1920 at $32.00, 100 at $10.00; no batch
        (Openai, "gpt-audio", minute, 200_000 + 61_440_000 + 1_000_000, 62_640_000),
    ]);
}
