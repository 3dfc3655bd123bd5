//! What a call costs, exactly and at most.
//!
//! Money is integer nano-dollars, summed in 128 bits and rounded up once per call, so that no order of additions changes
//! a bill and no rounding favours us. Prices are a dated table compiled in (`config/prices.toml`), with the user's own
//! entries before it; the first match wins. A model that is in neither is refused: a budget that rests on a guess
//! protects nobody, and a free one protects nobody either. Where a provider's counters leave room (which of the cached
//! tokens were sound?), the dearer reading is taken, so that the ledger never shows less than the invoice. Floating
//! dollars were rejected: they cannot be compared with a ceiling.

mod estimate;
#[cfg(test)]
mod goldens;
mod nano;

use globset::GlobMatcher;

pub use estimate::ImageRule;
pub use nano::{Nano, ParseNanoError};

use crate::provider::{Protocol, Usage};

/// The tokens that a price is for: rates are nano-dollars per this many tokens.
const PER_TOKENS: u128 = 1_000_000;

/// Nano-dollars per million tokens, by kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Input that is neither cached nor sound.
    pub input: u64,
    /// Input served from the provider's cache; never above `input`.
    pub cached_input: u64,
    /// Sound; never below `input`.
    pub audio_input: u64,
    /// Output, thinking included.
    pub output: u64,
}

/// Rates of long prompts: all tokens of a call whose input is longer than the edge are billed at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// The tier begins with the token after this one.
    pub above_input_tokens: u64,
    /// What its calls cost.
    pub rates: Rates,
}

/// The price of one model or family of models.
#[derive(Debug, Clone)]
pub struct Price {
    /// The protocol that the model is asked by.
    pub protocol: Protocol,
    /// The glob of model names as written, for messages.
    pub model: String,
    /// The same, compiled.
    pub matcher: GlobMatcher,
    /// Rates of a call below every tier.
    pub rates: Rates,
    /// Rates of longer prompts, edges ascending.
    pub tiers: Vec<Tier>,
    /// What a call through the provider's batch API costs, in percent of the same call made directly.
    pub batch_percent: u32,
    /// How an image is counted.
    pub image: ImageRule,
    /// How sound is counted.
    pub audio_tokens_per_second: u32,
    /// How the pictures of a clip are counted; its sound is counted as sound.
    pub video_tokens_per_second: u32,
    /// Most output tokens of the model, thinking included, where known.
    pub max_output: Option<u32>,
}

/// All prices, in the order in which they are looked up.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The day the compiled-in prices were read, `YYYY-MM-DD`.
    pub dated: String,
    /// The user's entries, then the compiled-in ones.
    pub models: Vec<Price>,
}

/// A model without a price; the message says how to give it one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no price is known for model {model:?} asked by the {} protocol: add it to the configuration as \
     [[prices]] provider = \"{}\", model = {model:?}, input = N, output = N \
     (nano-dollars per million tokens; 0 for a model that costs nothing)",
    protocol_name(*protocol), protocol_name(*protocol)
)]
pub struct UnknownModel {
    /// The protocol that was asked for.
    pub protocol: Protocol,
    /// The model that was asked for.
    pub model: String,
}

/// The name of a protocol in prices and configuration.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Gemini => "gemini",
        Protocol::Openai => "openai",
    }
}

impl Table {
    /// The first price whose protocol and glob match. Errors: the model has none.
    pub fn find(&self, protocol: Protocol, model: &str) -> Result<&Price, UnknownModel> {
        self.models
            .iter()
            .find(|price| price.protocol == protocol && price.matcher.is_match(model))
            .ok_or_else(|| UnknownModel { protocol, model: model.to_owned() })
    }
}

impl Price {
    /// What a call with this usage costs, rounded up once.
    ///
    /// Sound is always billed at its full rate: no provider says how much of the cached input was sound, and as sound is
    /// never cheaper than text, the discount is worth least when the cached tokens are text first. Counters that
    /// contradict each other (more cached or sound tokens than input, more thinking than output) are read as parts left
    /// out of the total, and billed beside it.
    pub fn cost(&self, usage: &Usage) -> Nano {
        Nano::from_u128(self.sum(usage).div_ceil(PER_TOKENS))
    }

    /// The same for a call made through the provider's batch API.
    pub fn cost_batch(&self, usage: &Usage) -> Nano {
        let percent = self.sum(usage).saturating_mul(u128::from(self.batch_percent));
        Nano::from_u128(percent.div_ceil(PER_TOKENS * 100))
    }

    /// The rates of a call with so many input tokens.
    pub fn rates_for(&self, input_tokens: u64) -> Rates {
        self.tiers
            .iter()
            .rev()
            .find(|tier| input_tokens > tier.above_input_tokens)
            .map_or(self.rates, |tier| tier.rates)
    }

    /// Tokens times rates, not yet divided by the million that the rates are for.
    fn sum(&self, usage: &Usage) -> u128 {
        let billed = Billed::of(usage);
        let rates = self.rates_for(billed.input_tokens());
        weigh(billed.fresh, rates.input)
            .saturating_add(weigh(billed.cached, rates.cached_input))
            .saturating_add(weigh(billed.audio, rates.audio_input))
            .saturating_add(weigh(billed.output, rates.output))
    }
}

/// A usage split into what has a rate of its own.
struct Billed {
    fresh: u64,
    cached: u64,
    audio: u64,
    output: u64,
}

impl Billed {
    fn of(usage: &Usage) -> Self {
        let output = if usage.thinking_tokens > usage.output_tokens {
            usage.output_tokens.saturating_add(usage.thinking_tokens)
        } else {
            usage.output_tokens
        };
        let (cached, audio) = (usage.cached_tokens, usage.audio_tokens);
        if cached > usage.input_tokens || audio > usage.input_tokens {
            return Self { fresh: usage.input_tokens, cached, audio, output };
        }
        let text = usage.input_tokens - audio;
        let cached = cached.min(text);
        Self { fresh: text - cached, cached, audio, output }
    }

    fn input_tokens(&self) -> u64 {
        self.fresh.saturating_add(self.cached).saturating_add(self.audio)
    }
}

fn weigh(tokens: u64, rate: u64) -> u128 {
    u128::from(tokens) * u128::from(rate)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn builtin() -> Table {
        crate::config::load(&[], &[]).unwrap().config.prices
    }

    fn usage(input: u64, cached: u64, audio: u64, output: u64) -> Usage {
        Usage {
            input_tokens: input,
            cached_tokens: cached,
            audio_tokens: audio,
            output_tokens: output,
            thinking_tokens: 0,
        }
    }

    fn cost(protocol: Protocol, model: &str, usage: Usage) -> u64 {
        builtin().find(protocol, model).unwrap().cost(&usage).0
    }

    #[test]
    fn hand_computed_bills_come_out_to_the_nano() {
        use Protocol::{Gemini, Openai};
        let cases = [
            // 1000 * 0.30/M + 100 * 2.50/M
            (Gemini, "gemini-2.5-flash", usage(1000, 0, 0, 100), 300_000 + 250_000),
            // 600 text + 400 sound at 1.00/M
            (Gemini, "gemini-2.5-flash", usage(1000, 0, 400, 0), 180_000 + 400_000),
            // 300 fresh, 300 cached at 0.03/M, 400 sound
            (Gemini, "gemini-2.5-flash", usage(1000, 300, 400, 0), 90_000 + 9_000 + 400_000),
            // Some of the cached tokens must be sound; they get no discount.
            (Gemini, "gemini-2.5-flash", usage(1000, 900, 400, 0), 600 * 30 + 400_000),
            (Gemini, "gemini-2.5-flash-lite", usage(10, 0, 0, 1), 1000 + 400),
            // The edge of the tier belongs to the lower one.
            (Gemini, "gemini-2.5-pro", usage(200_000, 0, 0, 1), 250_000_000 + 10_000),
            (Gemini, "gemini-2.5-pro", usage(200_001, 0, 0, 1), 500_002_500 + 15_000),
            (Gemini, "gemini-3.1-pro-preview", usage(300_000, 100_000, 0, 10), 800_000_000 + 40_000_000 + 180_000),
            // 0.15/M * 7 = 1050 nano exactly; 0.075/M of 1 cached token = 75.
            (Openai, "gpt-4o-mini", usage(7, 0, 0, 0), 1050),
            (Openai, "gpt-4o-mini", usage(1, 1, 0, 0), 75),
            (Openai, "gpt-audio", usage(100, 0, 60, 2), 40 * 2500 + 60 * 32_000 + 2 * 10_000),
            (Openai, "gpt-6-luna", usage(272_001, 0, 0, 0), 272_001 * 200),
        ];
        for (protocol, model, usage, nano) in cases {
            assert_eq!(cost(protocol, model, usage), nano, "{model} {usage:?}");
        }
    }

    #[test]
    fn thinking_is_part_of_the_output_and_not_billed_twice() {
        let thought = Usage { thinking_tokens: 90, ..usage(0, 0, 0, 100) };
        assert_eq!(cost(Protocol::Gemini, "gemini-2.5-flash", thought), 250_000);
        let impossible = Usage { thinking_tokens: 90, ..usage(0, 0, 0, 10) };
        assert_eq!(cost(Protocol::Gemini, "gemini-2.5-flash", impossible), 250_000);
    }

    #[test]
    fn a_bill_is_rounded_up_once_not_per_kind_of_token() {
        let mut price = builtin().find(Protocol::Gemini, "gemini-2.5-flash").unwrap().clone();
        price.rates = Rates { input: 400_000, cached_input: 300_000, audio_input: 400_000, output: 400_000 };
        price.tiers.clear();
        // 0.4 + 0.3 + 0.4 + 0.4 = 1.5 nano
        assert_eq!(price.cost(&usage(3, 1, 1, 1)), Nano(2));
        // 0.75 nano
        assert_eq!(price.cost_batch(&usage(3, 1, 1, 1)), Nano(1));
    }

    #[test]
    fn a_batch_costs_half_where_the_provider_says_so() {
        let table = builtin();
        let flash = table.find(Protocol::Gemini, "gemini-2.5-flash").unwrap();
        assert_eq!(flash.cost_batch(&usage(1000, 0, 0, 100)), Nano(275_000));
        let audio = table.find(Protocol::Openai, "gpt-audio").unwrap();
        assert_eq!(audio.cost_batch(&usage(100, 0, 0, 0)), audio.cost(&usage(100, 0, 0, 0)));
    }

    #[test]
    fn counters_that_contradict_each_other_never_lower_the_bill() {
        for odd in [usage(10, 500, 0, 0), usage(10, 0, 500, 0), usage(10, 500, 500, 0), usage(0, 5, 5, 0)] {
            let plain = cost(Protocol::Gemini, "gemini-2.5-flash", usage(odd.input_tokens, 0, 0, 0));
            assert!(cost(Protocol::Gemini, "gemini-2.5-flash", odd) > plain, "{odd:?}");
        }
        let most = usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(cost(Protocol::Gemini, "gemini-4-argon", most), u64::MAX);
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_way_out() {
        let table = builtin();
        for (protocol, model) in [
            (Protocol::Gemini, "gemini-1.5-pro-latest"),
            (Protocol::Gemini, "gpt-4o"),
            (Protocol::Openai, "gpt-4o-2024-05-13"),
            (Protocol::Gemini, "gemini-2.5-flash-image"),
            (Protocol::Gemini, "gemini-2.5-flash-preview-tts"),
            (Protocol::Openai, ""),
        ] {
            let message = table.find(protocol, model).unwrap_err().to_string();
            assert!(message.contains("[[prices]]") && message.contains(model), "{message}");
        }
    }

    #[test]
    fn flash_lite_is_not_caught_by_the_glob_of_flash() {
        let table = builtin();
        let input = |model| table.find(Protocol::Gemini, model).unwrap().rates.input;
        assert_eq!(input("gemini-2.5-flash-lite"), 100_000_000);
        assert_eq!(input("gemini-2.5-flash-lite-preview-09-2025"), 100_000_000);
        assert_eq!(input("gemini-2.5-flash"), 300_000_000);
        assert_eq!(input("gemini-2.5-flash-preview-09-2025"), 300_000_000);
        assert_eq!(input("gemini-2.5-flash-001"), 300_000_000);
    }

    #[test]
    fn every_model_of_the_default_recipe_and_every_known_one_has_a_price() {
        let table = builtin();
        for model in [
            "gemini-2.5-pro",
            "gemini-3-flash-preview",
            "gemini-3.1-flash-lite",
            "gemini-3.1-pro-preview",
            "gemini-3.5-flash",
            "gemini-3.8-flash",
            "gemini-4-argon",
        ] {
            assert!(table.find(Protocol::Gemini, model).is_ok(), "{model}");
        }
        for model in [
            "gpt-4o",
            "gpt-4o-2024-11-20",
            "gpt-4o-mini",
            "gpt-4o-mini-2024-07-18",
            "gpt-audio",
            "gpt-audio-mini",
            "gpt-5.4-mini",
            "gpt-5.4-nano",
            "gpt-5.4-mini-2026-03-17",
            "gpt-6-luna",
        ] {
            assert!(table.find(Protocol::Openai, model).is_ok(), "{model}");
        }
        assert_eq!(table.dated.len(), "2026-11-23".len());
    }
}
