//! The composition root: the one place that knows which backends there are and joins them to a pipeline.
//!
//! Everything a run needs is checked here before anything is paid for: each role has a provider, a key and a price.

#[cfg(feature = "fleet")]
pub mod fleet;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::caller::{Caller, Live, Meter, Patience};
use crate::agent::handover::Handover;
use crate::agent::line::Line;
use crate::config::{Config, Limit};
use crate::fault::Halt;
use crate::journal::Journal;
use crate::media::{AudioFormat, Library, Limits as MediaLimits};
use crate::pipeline::Pipeline;
use crate::price::Nano;
use crate::provider::http::Client;
use crate::provider::{Protocol, Role, VideoWay};
use crate::quota::Limits;
use crate::quota::clock;
use crate::quota::gate::{AccountSpec, Ceilings, Gate};
use crate::quota::ledger::Ledger;
use crate::recipe::Recipe;
use crate::retry::Policy;
use crate::state::{State, StateError};
use crate::upload::{Bounds, Uploads};

/// A run's own settings, beside configuration and recipe.
#[derive(Debug, Clone, Default)]
pub struct RunSettings {
    /// Total money of the run over all its restarts.
    pub ceiling: Option<Nano>,
    /// The longest wait for a quota.
    pub max_wait: Option<Duration>,
}

/// What a run works with.
#[derive(Debug)]
pub struct Context {
    /// Runs jobs.
    pub pipeline: Pipeline,
    /// Quota and money.
    pub gate: Arc<Gate>,
    /// The journal, to look at.
    pub journal: Journal,
}

/// The lines that a recipe's roles and their fallbacks need: provider and model, with key, limits and price.
///
/// # Errors
/// One sentence for the first role that lacks its provider, key or price.
pub fn lines(config: &Config, recipe: &Recipe) -> Result<BTreeMap<(String, String), Line>, Halt> {
    let mut lines = BTreeMap::new();
    for role in Role::ALL {
        let seat = recipe.seat(role);
        for (provider, model) in seat.players() {
            takes(config, recipe, role, provider)?;
            if let Entry::Vacant(free) = lines.entry((provider.to_owned(), model.to_owned())) {
                free.insert(line(config, role, provider, model)?);
            }
        }
    }
    Ok(lines)
}

/// Whether ffmpeg and ffprobe can be started.
///
/// # Errors
/// One sentence that says how to get them.
pub fn tools(config: &Config) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (key, program) in [("ffmpeg", &config.media.ffmpeg), ("ffprobe", &config.media.ffprobe)] {
        let there = if program.contains('/') {
            Path::new(program).is_file()
        } else {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        if !there {
            return Err(format!(
                "{program} is not there; install ffmpeg (Debian: apt-get install ffmpeg), or set media.{key}"
            ));
        }
    }
    Ok(())
}

/// Joins a run's parts.
pub async fn open(
    config: &Config,
    recipe: Recipe,
    state: Arc<State>,
    run: &str,
    media_cache: &Path,
    settings: &RunSettings,
) -> Result<Context, OpenError> {
    let lines = lines(config, &recipe).map_err(OpenError::Halt)?;
    let client = Client::new(&config.http).map_err(|message| OpenError::Halt(Halt::Setup(message)))?;
    let ledger = Ledger::open(Arc::clone(&state), run, clock::now()).await?;
    let ceilings = Ceilings { total: settings.ceiling, per_day: config.budget.per_day };
    let gate = Arc::new(Gate::open(ledger, ceilings, settings.max_wait).await?);
    let journal = Journal::open(Arc::clone(&state)).await?;
    let handover = Handover::new(Uploads::open(Arc::clone(&state), client.clone(), upload_bounds(config)).await?);
    let live =
        Live { client, handover, gate: Arc::clone(&gate), lines, patience: patience(config), meter: Meter::default() };
    let library = library(config, &recipe, media_cache)?;
    let pipeline = pipeline(config, recipe, Caller::live(journal.clone(), live), library);
    Ok(Context { pipeline, gate, journal })
}

/// A pipeline that reads the journal and asks nobody.
///
/// # Errors
/// An `http.extra_ca_file` that cannot be used.
pub fn offline(config: &Config, recipe: Recipe, journal: Journal, media_cache: &Path) -> Result<Pipeline, OpenError> {
    let library = library(config, &recipe, media_cache)?;
    Ok(pipeline(config, recipe, Caller::offline(journal), library))
}

/// Why a run could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys, prices, certificates.
    #[error(transparent)]
    Halt(Halt),
}

fn library(config: &Config, recipe: &Recipe, media_cache: &Path) -> Result<Library, OpenError> {
    let cache = config.media.cache_dir.as_deref().unwrap_or(media_cache).to_owned();
    let (limits, store) = (media_limits(config), config.store.clone());
    Library::with_store(cache, recipe.media.clone(), recipe.wants(), limits, store)
        .map_err(|message| OpenError::Halt(Halt::Setup(message)))
}

fn pipeline(config: &Config, recipe: Recipe, caller: Caller, library: Library) -> Pipeline {
    let identities = config.providers.iter().map(|(name, p)| (name.clone(), p.endpoint.identity.clone()));
    Pipeline {
        recipe_digest: recipe.digest(),
        library,
        recipe: Arc::new(recipe),
        caller,
        identities: identities.collect(),
        worker: worker_name(),
    }
}

/// How failed calls are repeated.
fn patience(config: &Config) -> Patience {
    let retry = &config.retry;
    let policy = Policy { attempts: retry.attempts, base: retry.base, max: retry.max };
    Patience { policy, backoff: retry.backoff, fallback_after: retry.fallback_after }
}

/// Bounds of uploads, by the provider's name.
fn upload_bounds(config: &Config) -> BTreeMap<String, Bounds> {
    config.providers.iter().map(|(name, provider)| (name.clone(), provider.uploads)).collect()
}

/// Whether a role's provider takes what the role is shown. An unknown provider is told elsewhere.
fn takes(config: &Config, recipe: &Recipe, role: Role, name: &str) -> Result<(), Halt> {
    let seat = recipe.seat(role);
    let Some(section) = config.providers.get(name) else { return Ok(()) };
    if seat.media.video() && section.endpoint.video == VideoWay::None {
        return Err(Halt::Setup(format!(
            "the {role} is shown clips as a whole (roles.{role}.media in the recipe), and provider {name:?} takes none; \
             set providers.{name}.video to \"inline\" or \"url\" if its server takes video_url, show it \
             \"frames+audio\", or give the role to another provider"
        )));
    }
    if seat.media.audio()
        && recipe.media.audio_format == AudioFormat::Flac
        && section.endpoint.protocol == Protocol::Openai
    {
        return Err(Halt::Setup(format!(
            "the {role} is played sound as flac (media.audio_format in the recipe), and provider {name:?} takes wav and mp3 \
             only; set audio_format = \"wav\" or \"mp3\""
        )));
    }
    Ok(())
}

fn line(config: &Config, role: Role, provider: &str, model: &str) -> Result<Line, Halt> {
    let section = config.providers.get(provider).ok_or_else(|| {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        Halt::Setup(format!(
            "the {role} asks provider {provider:?}, which is not configured; known are {}; add [providers.{provider}] or change the recipe",
            known.join(", ")
        ))
    })?;
    let price = config.prices.find(section.endpoint.protocol, model).map_err(|e| Halt::Setup(e.to_string()))?;
    let mut credentials = section.credentials.clone();
    if credentials.is_empty() {
        if !section.key_sources.is_empty() {
            return Err(Halt::Setup(format!(
                "the {role} asks provider {provider:?} and there is no key for it; set {}",
                section.key_sources.join(" or ")
            )));
        }
        credentials.push(crate::provider::credentials::Credential::new("none", ""));
    }
    let limit = config.limit(provider, model);
    let account = |credential: crate::provider::credentials::Credential| {
        let spec = account_spec(provider, &credential.label, model, limit);
        (credential, spec)
    };
    Ok(Line::new(section.endpoint.clone(), price.clone(), credentials.into_iter().map(account).collect()))
}

fn account_spec(provider: &str, label: &str, model: &str, limit: Option<&Limit>) -> AccountSpec {
    AccountSpec {
        name: format!("{provider}/{label}/{model}"),
        limits: Limits {
            requests_per_minute: limit.and_then(|l| l.requests_per_minute),
            tokens_per_minute: limit.and_then(|l| l.tokens_per_minute),
            requests_per_day: limit.and_then(|l| l.requests_per_day),
            day_resets: limit.map_or(jiff::tz::TimeZone::UTC, |l| l.day_resets.clone()),
            spread_seconds: limit.map_or(0.0, |l| l.spread.as_secs_f64()),
        },
        concurrency: limit.and_then(|l| l.concurrency),
    }
}

fn media_limits(config: &Config) -> MediaLimits {
    let media = &config.media;
    MediaLimits {
        max_source_mib: media.max_source_mib,
        probe_timeout_seconds: media.probe_timeout.as_secs().max(1),
        prepare_timeout_seconds: media.prepare_timeout.as_secs().max(1),
        cpu_seconds: media.cpu_seconds,
        memory_mib: media.memory_mib,
        max_pixels: media.max_pixels,
        max_duration_seconds: media.max_duration.as_secs(),
        max_streams: media.max_streams,
        max_frames_decoded: media.max_frames_decoded,
        max_output_mib: media.max_output_mib,
        decoders: media.decoders,
        cache_bytes: media.cache_bytes,
        keep_free_bytes: media.keep_free_bytes,
        ffmpeg: (&media.ffmpeg).into(),
        ffprobe: (&media.ffprobe).into(),
    }
}

fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
