//! What a call may cost before it is made.
//!
//! Two estimates, since they fail in opposite directions. Money needs an upper bound: text at one token per byte (no
//! byte-level tokenizer makes more), media by the model family's own rule, no cache discount, the dearest tier that the
//! counts can reach. Tokens per minute need what is likely: a bound would leave most of the quota unused. Asking the
//! provider to count was rejected: it is one more call for every call, and OpenAI has no such endpoint.

use super::{Nano, PER_TOKENS, Price, Rates, weigh};
use crate::provider::{Part, Request};

/// What the frame around a message (its role, its marks) may cost beyond its text.
const MARGIN_PER_MESSAGE: u64 = 64;
/// What the marks around one part may cost beyond its content.
const MARGIN_PER_PART: u64 = 16;
/// What the marks of time around one second of a clip may cost. Gemini counts about 10 (documented 300 per second in all,
/// of which 258 and 32 are frame and sound).
const MARGIN_PER_SECOND: u64 = 16;
/// Bytes of text in a token, on average (Gemini and OpenAI documentation: about 4 characters).
const BYTES_PER_TOKEN: u64 = 4;

/// How a model family counts the tokens of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageRule {
    /// The same for every image. Gemini 3 and later: 1120 at the default resolution.
    Fixed {
        /// Tokens per image.
        tokens: u64,
    },
    /// Gemini 2.x: one tile if both sides are at most 384 pixels, else tiles. The documentation has two readings, tiles
    /// of 768x768 and a crop unit of two thirds of the shorter side (256 to 768 pixels); the larger count is taken.
    GeminiTiles {
        /// Tokens per tile.
        tokens: u64,
    },
    /// OpenAI (gpt-4o family, high detail): shrunk to fit 2048x2048, then to a shorter side of 768; never enlarged; a
    /// base and so much for each tile of 512x512.
    OpenaiTiles {
        /// Tokens per image.
        base: u64,
        /// Tokens per tile.
        tokens: u64,
    },
    /// OpenAI (small models since 4.1): patches of 32x32, shrunk until there are at most so many, times a factor.
    Patches {
        /// The factor in percent.
        percent: u64,
        /// Most patches of an image.
        most: u64,
    },
}

impl ImageRule {
    /// Most tokens of an image of this size in pixels.
    pub fn tokens(self, width: u32, height: u32) -> u64 {
        let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
        match self {
            Self::Fixed { tokens } => tokens,
            Self::GeminiTiles { tokens } if width <= 384 && height <= 384 => tokens,
            Self::GeminiTiles { tokens } => {
                let unit = (width.min(height) * 2 / 3).clamp(256, 768);
                tiles(width, height, 768).max(tiles(width, height, unit)).saturating_mul(tokens)
            }
            Self::OpenaiTiles { base, tokens } => {
                let (width, height) = shrink(width, height, width.max(height), 2048);
                let (width, height) = shrink(width, height, width.min(height), 768);
                tiles(width, height, 512).saturating_mul(tokens).saturating_add(base)
            }
            Self::Patches { percent, most } => tiles(width, height, 32).min(most).saturating_mul(percent).div_ceil(100),
        }
    }
}

impl Price {
    /// The most this call can cost, when at most `max_billed_output` tokens of output (thinking included) are billed.
    ///
    /// Holds as long as a token is at least one byte of text and media are counted by the price's own rules; never below
    /// [`Price::cost`] of any usage within those counts.
    pub fn upper_bound(&self, request: &Request, max_billed_output: u32) -> Nano {
        let counts = self.most_tokens(request);
        let dearest = self.dearest_rates(counts.other.saturating_add(counts.audio));
        let sum = weigh(counts.other, dearest.input)
            .saturating_add(weigh(counts.audio, dearest.audio_input))
            .saturating_add(weigh(u64::from(max_billed_output), dearest.output));
        Nano::from_u128(sum.div_ceil(PER_TOKENS))
    }

    /// The input tokens this call is likely to have, rounded up: text at four bytes per token, media by the price's
    /// rules. Output is not included: for a provider that counts it (OpenAI), the caller adds the maximum it asks for.
    pub fn expected_tokens(&self, request: &Request) -> u64 {
        text_bytes(request)
            .div_ceil(BYTES_PER_TOKEN)
            .saturating_add(self.image_tokens(request))
            .saturating_add(self.video_tokens(request, 0))
            .saturating_add(self.audio_tokens(request))
    }

    fn most_tokens(&self, request: &Request) -> MostTokens {
        let messages = 1 + u64::from(request.system.is_some()) + u64::from(request.schema.is_some());
        let parts = u64::try_from(request.parts.len()).unwrap_or(u64::MAX);
        let margin = messages * MARGIN_PER_MESSAGE + parts.saturating_mul(MARGIN_PER_PART);
        MostTokens {
            other: text_bytes(request)
                .saturating_add(self.image_tokens(request))
                .saturating_add(self.video_tokens(request, MARGIN_PER_SECOND))
                .saturating_add(margin),
            audio: self.audio_tokens(request),
        }
    }

    fn image_tokens(&self, request: &Request) -> u64 {
        let tokens = |part: &Part| match part {
            Part::Image { width, height, .. } => self.image.tokens(*width, *height),
            Part::Text(_) | Part::Audio { .. } | Part::Video { .. } => 0,
        };
        request.parts.iter().map(tokens).fold(0, u64::saturating_add)
    }

    /// The pictures of whole clips, with so many tokens of marks around each second of them. A frame is taken at the
    /// beginning of each second, and may be taken at the end.
    fn video_tokens(&self, request: &Request, marks: u64) -> u64 {
        let tokens = |part: &Part| match part {
            Part::Video { duration_ms, .. } => {
                let each = u64::from(self.video_tokens_per_second).saturating_add(marks);
                (duration_ms.div_ceil(1000) + 1).saturating_mul(each)
            }
            Part::Text(_) | Part::Image { .. } | Part::Audio { .. } => 0,
        };
        request.parts.iter().map(tokens).fold(0, u64::saturating_add)
    }

    fn audio_tokens(&self, request: &Request) -> u64 {
        let tokens = |part: &Part| match part {
            Part::Audio { duration_ms, .. } | Part::Video { duration_ms, sound: true, .. } => {
                duration_ms.div_ceil(1000).saturating_mul(u64::from(self.audio_tokens_per_second))
            }
            Part::Text(_) | Part::Image { .. } | Part::Video { .. } => 0,
        };
        request.parts.iter().map(tokens).fold(0, u64::saturating_add)
    }

    /// For each kind of token the highest rate among the tiers that so many tokens can reach: fewer may come, and a
    /// higher tier need not be dearer.
    fn dearest_rates(&self, input_tokens: u64) -> Rates {
        let reached = self.tiers.iter().filter(|tier| input_tokens > tier.above_input_tokens);
        reached.fold(self.rates, |dearest, tier| Rates {
            input: dearest.input.max(tier.rates.input),
            cached_input: dearest.cached_input.max(tier.rates.cached_input),
            audio_input: dearest.audio_input.max(tier.rates.audio_input),
            output: dearest.output.max(tier.rates.output),
        })
    }
}

/// Upper bounds of the input tokens of a call.
struct MostTokens {
    /// Text, images and the pictures of clips.
    other: u64,
    audio: u64,
}

/// Bytes of all the text that is sent: parts, system instruction and schema.
fn text_bytes(request: &Request) -> u64 {
    let part = |part: &Part| match part {
        Part::Text(text) => text.len(),
        Part::Image { .. } | Part::Audio { .. } | Part::Video { .. } => 0,
    };
    let parts = request.parts.iter().map(part).fold(0, usize::saturating_add);
    let system = request.system.as_ref().map_or(0, String::len);
    let schema = request.schema.as_ref().map_or(0, |schema| schema.name.len() + schema.schema.to_string().len());
    u64::try_from(parts.saturating_add(system).saturating_add(schema)).unwrap_or(u64::MAX)
}

fn tiles(width: u64, height: u64, side: u64) -> u64 {
    width.div_ceil(side).saturating_mul(height.div_ceil(side))
}

/// Both sides scaled down, and rounded up, so that `measure` becomes `target`; unchanged if it is not above.
fn shrink(width: u64, height: u64, measure: u64, target: u64) -> (u64, u64) {
    if measure <= target {
        return (width, height);
    }
    ((width * target).div_ceil(measure), (height * target).div_ceil(measure))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::tests::builtin;
    use super::*;
    use crate::provider::{Blob, Params, Protocol, Role, Schema, Thinking, Usage, VideoFrom};

    fn blob() -> Blob {
        Blob { mime: "image/jpeg", base64: Bytes::from_static(b"AA==") }
    }

    fn image(width: u32, height: u32) -> Part {
        Part::Image { blob: blob(), width, height }
    }

    fn audio(duration_ms: u64) -> Part {
        Part::Audio { blob: blob(), duration_ms }
    }

    fn video(duration_ms: u64, sound: bool) -> Part {
        Part::Video { from: VideoFrom::Inline(Bytes::new()), mime: "video/mp4", duration_ms, sound }
    }

    fn request(parts: Vec<Part>) -> Request {
        Request {
            role: Role::Generator,
            model: "m".into(),
            system: None,
            parts: parts.into(),
            params: Params { temperature: None, top_p: None, max_output_tokens: 100, thinking: Thinking::Off, seed: 1 },
            schema: None,
        }
    }

    fn gemini(model: &str) -> Price {
        builtin().find(Protocol::Gemini, model).unwrap().clone()
    }

    #[test]
    fn images_are_counted_by_the_rule_of_their_family() {
        let gemini_2 = ImageRule::GeminiTiles { tokens: 258 };
        let gpt_4o = ImageRule::OpenaiTiles { base: 85, tokens: 170 };
        let mini = ImageRule::Patches { percent: 162, most: 1536 };
        for (rule, width, height, tokens) in [
            (gemini_2, 384, 384, 258),
            (gemini_2, 0, 0, 258),
            // A crop unit of 256: 2 x 2 tiles, above the single one of 768.
            (gemini_2, 385, 384, 4 * 258),
            // The documentation's example: a crop unit of 360.
            (gemini_2, 960, 540, 6 * 258),
            (gemini_2, 768, 768, 4 * 258),
            (gemini_2, 7680, 7680, 100 * 258),
            (ImageRule::Fixed { tokens: 1120 }, 9000, 1, 1120),
            (gpt_4o, 512, 512, 255),
            (gpt_4o, 1024, 1024, 765),
            (gpt_4o, 2048, 4096, 1105),
            (gpt_4o, 128, 64, 255),
            (mini, 1024, 1024, 1659),
            (mini, 9000, 9000, 2489),
            (gpt_4o, u32::MAX, u32::MAX, 85 + 4 * 170),
        ] {
            assert_eq!(rule.tokens(width, height), tokens, "{rule:?} {width}x{height}");
        }
        assert!(gemini_2.tokens(u32::MAX, u32::MAX) > 1_000_000);
    }

    #[test]
    fn the_expected_size_is_rounded_up_and_counts_every_part() {
        let price = gemini("gemini-3.8-flash");
        assert_eq!(price.expected_tokens(&request(vec![Part::Text("12345".into())])), 2);
        assert_eq!(price.expected_tokens(&request(vec![image(10, 10), audio(1001)])), 1120 + 64);
        let mut whole = request(vec![]);
        whole.system = Some("1234".into());
        whole.schema = Some(Schema { name: "ab", schema: serde_json::json!({}) });
        assert_eq!(price.expected_tokens(&whole), 2);
    }

    #[test]
    fn the_bound_of_a_known_call_is_the_sum_of_its_parts() {
        let price = gemini("gemini-2.5-flash");
        let bound = price.upper_bound(&request(vec![image(384, 384), audio(1500), Part::Text("é".into())]), 1000);
        let other = 258 + 2 + 64 + 3 * 16;
        assert_eq!(bound, Nano(other * 300 + 64 * 1000 + 1000 * 2500));
    }

    #[test]
    fn a_clip_is_counted_by_its_seconds_and_its_sound_at_the_rate_of_sound() {
        let (two, three) = (gemini("gemini-2.5-flash"), gemini("gemini-3.8-flash"));
        for (price, duration_ms, sound, tokens) in [
            (&two, 60_000, true, 61 * 258 + 60 * 32),
            (&two, 59_001, false, 61 * 258),
            (&three, 60_000, true, 61 * 70 + 60 * 32),
            (&three, 0, true, 70),
        ] {
            assert_eq!(
                price.expected_tokens(&request(vec![video(duration_ms, sound)])),
                tokens,
                "{duration_ms} {sound}"
            );
        }
        let bound = two.upper_bound(&request(vec![video(9500, true)]), 0);
        assert_eq!(bound, Nano((11 * (258 + 16) + 64 + 16) * 300 + 10 * 32 * 1000));
    }

    #[test]
    fn the_bound_takes_the_highest_tier_that_its_counts_can_reach() {
        let price = gemini("gemini-2.5-pro");
        let text = |bytes: usize| request(vec![Part::Text("a".repeat(bytes))]);
        assert_eq!(price.upper_bound(&text(200_000 - 80), 1), Nano(200_000 * 1250 + 10_000));
        assert_eq!(price.upper_bound(&text(200_001 - 80), 1), Nano(200_001 * 2500 + 15_000));
    }

    proptest! {
        #[test]
        fn no_usage_within_the_counts_costs_more_than_the_bound(
            which in 0_usize..64,
            text in 0_usize..300_000,
            sides in proptest::collection::vec((1_u32..4000, 1_u32..4000), 0..4),
            sound_ms in 0_u64..9_000_000,
            clip in (0_u64..9_000_000, proptest::bool::ANY),
            output in 0_u32..70_000,
            shares in (0.0_f64..=1.0, 0.0_f64..=1.0, 0.0_f64..=1.0, 0.0_f64..=1.0),
        ) {
            let table = builtin_cached();
            let price = &table.models[which % table.models.len()];
            let mut parts: Vec<Part> = sides.into_iter().map(|(width, height)| image(width, height)).collect();
            parts.push(audio(sound_ms));
            parts.push(video(clip.0, clip.1));
            parts.push(Part::Text("x".repeat(text)));
            let request = request(parts);
            let most = price.most_tokens(&request);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a test value")]
            let share = |whole: u64, share: f64| ((whole as f64 * share) as u64).min(whole);
            let audio_tokens = share(most.audio, shares.0);
            let input_tokens = audio_tokens + share(most.other, shares.1);
            let usage = Usage {
                input_tokens,
                cached_tokens: share(input_tokens, shares.2),
                audio_tokens,
                output_tokens: share(u64::from(output), shares.3),
                thinking_tokens: 0,
            };
            prop_assert!(price.cost(&usage) <= price.upper_bound(&request, output), "{} {:?}", price.model, usage);
            prop_assert!(price.expected_tokens(&request) <= most.other + most.audio);
        }
    }

    fn builtin_cached() -> &'static super::super::Table {
        static TABLE: std::sync::LazyLock<super::super::Table> = std::sync::LazyLock::new(builtin);
        &TABLE
    }
}
