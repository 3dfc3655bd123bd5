//! `--dry-run`: what a run would ask for and cost, before a cent is spent.
//!
//! The money is a range: each item once through the loop with average replies, and every item through all its tries at
//! the bound that is reserved for its calls. Lengths of clips are not read, as that takes a decoder or a download for each;
//! clips and sound are taken to last a minute, and where they are shown it is said that longer ones cost more. Whether files are there is looked at.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::agent::line::Line;
use crate::cli::Failure;
use crate::config::Config;
use crate::context;
use crate::job::{Item, MediaKind};
use crate::price::{Nano, Price};
use crate::provider::{Blob, Params, Part, Request, Role, Usage, VideoFrom};
use crate::recipe::Recipe;
use crate::run::Options;
use crate::run::plan::{Fingerprint, Plan, lines};

/// What clips and sound are taken to last.
pub(crate) const SOUND_MS: u64 = 60_000;
/// What a prompt is taken to hold beside question and media, in bytes.
const PROMPT_BYTES: usize = 3000;
/// Of its maximum, what a reply is taken to use.
const REPLY_SHARE: u64 = 4;

/// The estimate.
#[derive(Debug, Default)]
pub struct Estimate {
    /// Every item once through the loop.
    pub low: Nano,
    /// Every item through all tries, each call at its bound.
    pub high: Nano,
    /// Items that would be run.
    pub pending: u64,
    /// Items that have a record.
    pub done: u64,
    /// Media that are not there.
    pub missing: u64,
    /// The first of them.
    pub problems: Vec<String>,
}

/// Estimates a run of these items.
///
/// Items in `taken` have a record and cost nothing.
pub fn of(
    config: &Config,
    recipe: &Recipe,
    options: &Options,
    taken: &HashSet<Fingerprint>,
) -> Result<Estimate, Failure> {
    let lines_of = context::lines(config, recipe).map_err(|halt| Failure::setup(halt.to_string()))?;
    let mut estimate = Estimate::default();
    let (mut seen, mut checked) = (HashSet::new(), HashSet::new());
    for line in lines(&options.source)? {
        let (number, Ok(item)) = line.map_err(Failure::failed)? else { continue };
        if !seen.insert(crate::run::fingerprint(&item.id())) {
            continue;
        }
        for medium in &item.media {
            let location = medium.location();
            if checked.insert(location.to_owned())
                && let Some(problem) = absent(config, location)
            {
                estimate.missing += 1;
                if estimate.problems.len() < 100 {
                    estimate.problems.push(format!("line {number}: {problem}"));
                }
            }
        }
        if taken.contains(&crate::run::fingerprint(&item.id())) {
            estimate.done += 1;
            continue;
        }
        if options.limit.is_some_and(|limit| estimate.pending >= limit) {
            continue;
        }
        estimate.pending += 1;
        let (low, high) = of_item(&lines_of, recipe, &item);
        estimate.low = estimate.low.saturating_add(low);
        estimate.high = estimate.high.saturating_add(high);
    }
    Ok(estimate)
}

/// What one item costs: once through the loop with average replies, and through all tries at the bound.
pub fn of_item(lines: &BTreeMap<(String, String), Line>, recipe: &Recipe, item: &Item) -> (Nano, Nano) {
    let (mut low, mut high) = (Nano::ZERO, Nano::ZERO);
    for role in Role::ALL {
        let seat = recipe.seat(role);
        let asked = |(provider, model): (&str, &str)| {
            let line = lines.get(&(provider.to_owned(), model.to_owned()))?;
            let request = Request { model: model.to_owned(), ..request(recipe, role, item) };
            let max_output = line.endpoint.protocol.max_billed_output(&request);
            Some((likely(&line.price, &request), line.price.upper_bound(&request, max_output)))
        };
        let costs: Vec<(Nano, Nano)> = seat.players().filter_map(asked).collect();
        low = low.saturating_add(costs.first().map_or(Nano::ZERO, |(likely, _)| *likely));
        high = high.saturating_add(costs.iter().map(|(_, bound)| *bound).max().unwrap_or(Nano::ZERO));
    }
    (low, Nano(high.0.saturating_mul(u64::from(recipe.max_tries))))
}

impl Estimate {
    fn calls(&self, recipe: &Recipe) -> (u64, u64) {
        let fewest = self.pending.saturating_mul(3);
        (fewest, fewest.saturating_mul(u64::from(recipe.max_tries)))
    }

    /// One object.
    pub fn json(&self, plan: &Plan, recipe: &Recipe) -> serde_json::Value {
        let (fewest, most) = self.calls(recipe);
        json!({
            "items": plan.items, "pending": self.pending, "done": self.done, "rejected": plan.rejected, "duplicates": plan.duplicates, "missing_media": self.missing,
            "problems": plan.reasons.iter().chain(&self.problems).collect::<Vec<_>>(),
            "calls": { "one_try_each": fewest, "all_tries": most },
            "cost_nano_usd": { "one_try_each": self.low.0, "all_tries_at_bound": self.high.0 },
            "recipe_digest": recipe.digest(), "recipe": serde_json::from_str::<serde_json::Value>(&recipe.to_json()).ok(), "seconds_of_sound_assumed": SOUND_MS / 1000,
        })
    }

    /// What the money rests on, where a role is shown what has a length.
    fn assumed(recipe: &Recipe) -> String {
        let lasts = |role: &Role| recipe.seat(*role).media.audio() || recipe.seat(*role).media.video();
        if !Role::ALL.iter().any(lasts) {
            return String::new();
        }
        let seconds = SOUND_MS / 1000;
        format!(
            "             lengths are not read: clips and sound are taken as {seconds} s, and longer ones cost more than this\n"
        )
    }

    /// A table for people.
    pub fn table(&self, plan: &Plan, recipe: &Recipe) -> String {
        let (fewest, most) = self.calls(recipe);
        let assumed = Self::assumed(recipe);
        let seats: String = Role::ALL
            .iter()
            .map(|role| {
                format!("  {:<10} {} ({})\n", role.name(), recipe.seat(*role).model, recipe.seat(*role).provider)
            })
            .collect();
        format!(
            "  items      {}, {} to run, {} with a record ({} lines rejected, {} repeated, {} media missing)\n{seats}  recipe     {}\n  \
             calls      {fewest} with one try each, at most {most} with all {} tries\n  \
             money      about {} with one try each, at most {} with all tries; replies asked for again left out\n{assumed}",
            plan.items,
            self.pending,
            self.done,
            plan.rejected,
            plan.duplicates,
            self.missing,
            &recipe.digest()[..12],
            recipe.max_tries,
            self.low,
            self.high,
        )
    }
}

fn likely(price: &Price, request: &Request) -> Nano {
    let heard = |part: &Part| match part {
        Part::Audio { duration_ms, .. } | Part::Video { duration_ms, sound: true, .. } => duration_ms.div_ceil(1000),
        Part::Text(_) | Part::Image { .. } | Part::Video { .. } => 0,
    };
    let input = price.expected_tokens(request);
    let audio = request.parts.iter().map(heard).sum::<u64>() * u64::from(price.audio_tokens_per_second);
    let output = u64::from(request.params.max_output_tokens) / REPLY_SHARE;
    price.cost(&Usage {
        input_tokens: input,
        audio_tokens: audio.min(input),
        output_tokens: output,
        ..Usage::default()
    })
}

/// A request of the size that this role's would have.
fn request(recipe: &Recipe, role: Role, item: &Item) -> Request {
    let seat = recipe.seat(role);
    let blob = |mime| Blob { mime, base64: Bytes::new() };
    let mut parts = Vec::new();
    for medium in &item.media {
        if seat.media.frames() && medium.kind == MediaKind::Video {
            let side = recipe.media.frame_size;
            let image = || Part::Image { blob: blob("image/jpeg"), width: side, height: side };
            parts.extend((0..recipe.media.max_frames).map(|_| image()));
        }
        let whole = seat.media.video() && medium.kind == MediaKind::Video;
        if whole {
            let most = match u64::from(recipe.media.clip_seconds) * 1000 {
                0 => u64::MAX,
                most => most,
            };
            let (from, mime) = (VideoFrom::Inline(Bytes::new()), "video/mp4");
            parts.push(Part::Video { from, mime, duration_ms: SOUND_MS.min(most), sound: medium.own_track });
        }
        if seat.media.audio() && !whole && medium.own_track {
            let duration_ms = SOUND_MS.min(u64::from(recipe.media.audio_seconds) * 1000);
            parts.push(Part::Audio { blob: blob("audio/wav"), duration_ms });
        }
    }
    parts.push(Part::Text("x".repeat(PROMPT_BYTES + item.query.len())));
    Request {
        role,
        model: seat.model.clone(),
        system: seat.system.clone(),
        parts: Arc::from(parts),
        params: Params {
            temperature: seat.temperature,
            top_p: seat.top_p,
            max_output_tokens: seat.max_output_tokens,
            thinking: seat.thinking,
            seed: recipe.seed,
        },
        schema: None,
    }
}

pub(crate) fn absent(config: &Config, location: &str) -> Option<String> {
    let path = match config.store.local_path(location) {
        Ok(Some(path)) => path,
        // What a server has is looked at when it is fetched.
        Ok(None) => return None,
        Err(error) => return Some(error.to_string()),
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => None,
        Ok(_) => Some(format!("{} is not a file", path.display())),
        Err(error) => Some(format!("{}: {error}", path.display())),
    }
}
