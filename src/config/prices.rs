//! `[[prices]]`: the user's own prices, before those compiled in.
//!
//! Both have one shape and are read by the same code. The ranges uphold what [`crate::price`] rests on: cached input is
//! never dearer than input, sound never cheaper.

use std::path::Path;
use std::sync::Arc;

use super::mistake::{Mistake, Mistakes};
use super::read::Section;
use super::sink::Sink;
use super::tree::{self, Origin};
use crate::price::{ImageRule, Price, Rates, Tier};
use crate::provider::Protocol;

/// Highest rate taken: a million dollars per million tokens.
const MOST: u64 = 1_000_000_000_000_000;
/// Tokens of sound per second where none are given: Gemini's rate, above OpenAI's.
const AUDIO_TOKENS_PER_SECOND: u64 = 32;
/// Tokens of a clip's pictures per second where none are given, for kind "gemini": one frame per second of 258 (2.x;
/// later ones take fewer).
const GEMINI_VIDEO_TOKENS_PER_SECOND: u64 = 258;
/// The same for kind "openai": two frames per second of 768 patches, the defaults of qwen-vl-utils, which are above those of
/// other open models known to us.
const OPENAI_VIDEO_TOKENS_PER_SECOND: u64 = 1536;

/// The words for protocols in providers and prices.
pub(super) const PROTOCOLS: [(&str, Protocol); 2] = [("gemini", Protocol::Gemini), ("openai", Protocol::Openai)];

#[derive(Clone, Copy)]
enum Rule {
    Fixed,
    GeminiTiles,
    OpenaiTiles,
    Patches,
}

/// Reads a file that has `[[prices]]` as the configuration has them, and nothing else.
///
/// # Errors
/// Everything that is wrong with it; a file without prices too.
pub fn prices_of(path: &Path) -> Result<Vec<Price>, Mistakes> {
    let file: Arc<Path> = path.into();
    let origin = |line| Origin::File(Arc::clone(&file), line);
    let whole = |message: String| Mistakes(vec![Mistake::new("", None, origin(1), message)]);
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let sink = Sink::default();
    let mut root = Section::root(tree::parse(&text, &origin).map_err(Mistakes)?, &sink);
    let prices = read(&mut root);
    root.finish();
    match sink.mistakes.into_inner() {
        mistakes if !mistakes.is_empty() => Err(Mistakes(mistakes)),
        _ if prices.is_empty() => Err(whole("has no prices: write [[prices]] before each".to_owned())),
        _ => Ok(prices),
    }
}

pub(super) fn read(root: &mut Section<'_>) -> Vec<Price> {
    root.list("prices").into_iter().filter_map(price).collect()
}

fn price(mut section: Section<'_>) -> Option<Price> {
    let protocol = section.choice("provider", &PROTOCOLS);
    let glob = section.glob("model");
    let rates = rates(&mut section);
    let tiers = tiers(&mut section);
    let batch = section.optional_whole("batch_percent", 1..=100).unwrap_or(100);
    let audio = section.optional_whole("audio_tokens_per_second", 1..=100_000).unwrap_or(AUDIO_TOKENS_PER_SECOND);
    let cautious_video = match protocol {
        Some(Protocol::Openai) => OPENAI_VIDEO_TOKENS_PER_SECOND,
        _ => GEMINI_VIDEO_TOKENS_PER_SECOND,
    };
    let video = section.optional_whole("video_tokens_per_second", 1..=1_000_000).unwrap_or(cautious_video);
    let max_output = section.optional_whole("max_output", 1..=u64::from(u32::MAX));
    let image = match section.optional_section("image") {
        Some(section) => image(section),
        None => Some(cautious(protocol.unwrap_or(Protocol::Gemini))),
    };
    section.finish();
    let (model, matcher) = glob?;
    Some(Price {
        protocol: protocol?,
        model: model.value,
        matcher,
        rates,
        tiers,
        batch_percent: narrow(batch),
        image: image?,
        audio_tokens_per_second: narrow(audio),
        video_tokens_per_second: narrow(video),
        max_output: max_output.map(narrow),
    })
}

fn rates(section: &mut Section<'_>) -> Rates {
    let input = section.whole("input", 0..=MOST);
    let cached = section.optional_whole("cached_input", 0..=MOST).unwrap_or(input);
    let audio = section.optional_whole("audio_input", 0..=MOST).unwrap_or(input);
    let output = section.whole("output", 0..=MOST);
    let judged = !section.sink.blames(&section.key("input"));
    if judged && cached > input {
        let message = format!("is above input ({input}): cached input never costs more");
        section.sink.mistake(&section.key("cached_input"), Some(cached.to_string()), &section.origin, message);
    }
    if judged && audio < input && !section.sink.blames(&section.key("audio_input")) {
        let message = format!("is below input ({input}): a bill could come out too low; leave it out, or correct it");
        section.sink.mistake(&section.key("audio_input"), Some(audio.to_string()), &section.origin, message);
    }
    Rates { input, cached_input: cached, audio_input: audio, output }
}

fn tiers(section: &mut Section<'_>) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for mut section in section.list("tiers") {
        let above_input_tokens = section.whole("above_input_tokens", 1..=MOST);
        if tiers.last().is_some_and(|last| last.above_input_tokens >= above_input_tokens) {
            let message = "is not above the tier before it: sort the tiers by their edges";
            let value = Some(above_input_tokens.to_string());
            section.sink.mistake(&section.key("above_input_tokens"), value, &section.origin, message);
        }
        tiers.push(Tier { above_input_tokens, rates: rates(&mut section) });
        section.finish();
    }
    tiers
}

fn image(mut section: Section<'_>) -> Option<ImageRule> {
    let rule = section.choice(
        "rule",
        &[
            ("fixed", Rule::Fixed),
            ("gemini-tiles", Rule::GeminiTiles),
            ("openai-tiles", Rule::OpenaiTiles),
            ("patches", Rule::Patches),
        ],
    )?;
    let image = match rule {
        Rule::Fixed => ImageRule::Fixed { tokens: section.whole("tokens", 0..=10_000_000) },
        Rule::GeminiTiles => ImageRule::GeminiTiles { tokens: section.whole("tokens", 0..=10_000_000) },
        Rule::OpenaiTiles => ImageRule::OpenaiTiles {
            base: section.whole("base", 0..=10_000_000),
            tokens: section.whole("tokens", 0..=10_000_000),
        },
        Rule::Patches => ImageRule::Patches {
            percent: section.whole("percent", 1..=100_000),
            most: section.whole("most", 1..=1_000_000),
        },
    };
    section.finish();
    Some(image)
}

/// The rule of a model that states none: above the known ones of its protocol for frames of a usual shape.
fn cautious(protocol: Protocol) -> ImageRule {
    match protocol {
        Protocol::Gemini => ImageRule::Fixed { tokens: 6 * 258 },
        Protocol::Openai => ImageRule::Patches { percent: 246, most: 2500 },
    }
}

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
