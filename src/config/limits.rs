//! `[[limits]]`: how fast a provider's models may be asked.
//!
//! A limit is a template: every credential and model that it matches has buckets of its own. The user's entries stand
//! before the defaults, and the first match wins, so that one exception needs no copy of the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use globset::GlobMatcher;
use jiff::tz::TimeZone;

use super::mistake::nearest;
use super::providers::ProviderSection;
use super::read::{Located, Section};
use super::tree::Origin;
use crate::provider::Protocol;

/// The stretch over which a minute's limit may be enforced, where none is given, in seconds.
const SPREAD: f64 = 10.0;

/// Limits of each credential and model that match.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The glob of model names as written.
    pub model: String,
    /// The same, compiled.
    pub matcher: GlobMatcher,
    /// Requests per minute; none: no limit.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute; none: no limit.
    pub tokens_per_minute: Option<u64>,
    /// Requests per day; none: no limit.
    pub requests_per_day: Option<u64>,
    /// The day's quota starts again at this zone's midnight.
    pub day_resets: TimeZone,
    /// Calls in flight at once; none: no limit.
    pub concurrency: Option<u32>,
    /// The shortest stretch over which the provider may enforce its minute's limit.
    pub spread: Duration,
}

impl Limit {
    /// Whether this template is for the model of the provider.
    pub fn matches(&self, provider: &str, model: &str) -> bool {
        self.provider == provider && self.matcher.is_match(model)
    }
}

/// How providers are judged: after a file that could not be read, an unknown one may be defined there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    All,
    Some,
}

pub(super) fn read(root: &mut Section<'_>, providers: &BTreeMap<String, ProviderSection>, known: Known) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    let mut seen: Vec<(String, String, Origin)> = Vec::new();
    for mut section in root.list("limits") {
        let provider = section.text("provider");
        if known == Known::All {
            check_provider(&section, &provider, providers);
        }
        let glob = section.glob("model");
        let limit = (
            section.optional_whole("requests_per_minute", 1..=1_000_000_000),
            section.optional_whole("tokens_per_minute", 1..=1_000_000_000_000),
            section.optional_whole("requests_per_day", 1..=1_000_000_000_000),
            section.optional_whole("concurrency", 1..=1_000_000),
        );
        let day_resets = day_resets(&mut section, providers.get(&provider.value));
        let spread = section.optional_number("spread_seconds", &(0.001..=60.0)).unwrap_or(SPREAD);
        if let Some((model, matcher)) = glob {
            let this = (provider.value.clone(), model.value.clone(), section.origin.clone());
            if let Some((.., first)) = seen.iter().find(|known| same(known, &this)) {
                let message = format!("has the provider and model of {first}, which always wins: remove one");
                section.sink.mistake(&section.path, None, &section.origin, message);
            }
            seen.push(this);
            limits.push(Limit {
                provider: provider.value,
                model: model.value,
                matcher,
                requests_per_minute: limit.0,
                tokens_per_minute: limit.1,
                requests_per_day: limit.2,
                day_resets,
                concurrency: limit.3.and_then(|calls| u32::try_from(calls).ok()),
                spread: Duration::try_from_secs_f64(spread).unwrap_or_default(),
            });
        }
        section.finish();
    }
    limits
}

fn check_provider(section: &Section<'_>, provider: &Located<String>, providers: &BTreeMap<String, ProviderSection>) {
    let key = section.key("provider");
    if providers.contains_key(&provider.value) || section.sink.blames(&key) {
        return;
    }
    let way_out = match nearest(&provider.value, providers.keys().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add [providers.{}], or name one of {:?}", provider.value, providers.keys()),
    };
    let message = format!("is not a configured provider; {way_out}");
    section.sink.mistake(&key, Some(format!("{:?}", provider.value)), &provider.origin, message);
}

fn day_resets(section: &mut Section<'_>, provider: Option<&ProviderSection>) -> TimeZone {
    let name = section.optional_text("day_resets").unwrap_or_else(|| Located {
        // Gemini's daily quota starts again at midnight Pacific time (wire protocol notes 1.8).
        value: match provider.map(|provider| provider.endpoint.protocol) {
            Some(Protocol::Gemini) => "America/Los_Angeles".to_owned(),
            Some(Protocol::Openai) | None => "UTC".to_owned(),
        },
        origin: section.origin.clone(),
    });
    // Also by its rule (POSIX TZ), for midnights that no name stands for.
    TimeZone::get(&name.value).or_else(|_| TimeZone::posix(&name.value)).unwrap_or_else(|_| {
        let key = section.key("day_resets");
        if !section.sink.blames(&key) {
            let message = "is not a known time zone: write a name such as \"UTC\" or \"America/Los_Angeles\", or a rule such as \"JST-9\"";
            section.sink.mistake(&key, Some(format!("{:?}", name.value)), &name.origin, message);
        }
        TimeZone::UTC
    })
}

/// The same provider and glob in the same layer; in another layer it is an override.
fn same(left: &(String, String, Origin), right: &(String, String, Origin)) -> bool {
    let layer = match (&left.2, &right.2) {
        (Origin::File(left, _), Origin::File(right, _)) => left == right,
        (left, right) => left == right,
    };
    layer && left.0 == right.0 && left.1 == right.1
}
