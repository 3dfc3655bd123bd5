//! The configuration: what it is, where it comes from, and everything that is wrong with it.
//!
//! The default is a file that is compiled in and documents every setting ([`DEFAULT`]); files and environment lie over it
//! key by key. Nothing else in the program reads settings or keys from the environment: `main` hands it in once, so that
//! a test needs no process of its own. Unknown keys are mistakes, and all mistakes are reported at once with their origin:
//! a key that is silently ignored costs a night of wrong limits. A library that merges layers for us was rejected: it
//! guesses types, so that an API key of digits becomes a number, and it stops at the first mistake.
//!
//! A value that a later layer replaces is not judged; only what is in effect is.

mod fleet;
mod keys;
mod limits;
mod mistake;
mod prices;
mod providers;
mod queue;
mod read;
mod sections;
mod show;
mod sink;
mod store;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use fleet::{CollectorSection, Shared};
pub use limits::Limit;
pub use mistake::{Mistake, Mistakes};
pub use prices::prices_of;
pub use providers::ProviderSection;
pub use queue::{QueueSection, QueueUrl};
pub use sections::{BudgetSection, LogFormat, MediaSection, RetrySection, TelemetrySection, WorkerSection};
pub use show::{Format, check, show};
pub use sink::Entry;
pub use tree::Origin;

use crate::media::Store;
use crate::price;
use crate::provider::HttpSettings;
use limits::Known;
use read::Section;
use sink::Sink;
use tree::{Node, Table, Value};

/// The configuration compiled in: every setting, with its reason.
pub const DEFAULT: &str = include_str!("../config/default.toml");
/// The prices compiled in.
pub const PRICES: &str = include_str!("../config/prices.toml");

/// Lists to which a layer adds instead of replacing them.
const PREPENDED: [&str; 2] = ["limits", "prices"];

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// How work is taken.
    pub worker: WorkerSection,
    /// How failed transport is repeated.
    pub retry: RetrySection,
    /// Deadlines and sizes of calls.
    pub http: HttpSettings,
    /// What media children may use.
    pub media: MediaSection,
    /// What sources may be read, and how.
    pub store: Store,
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderSection>,
    /// Limits, in the order in which they are looked up.
    pub limits: Vec<Limit>,
    /// Prices, in the order in which they are looked up.
    pub prices: price::Table,
    /// What may be spent.
    pub budget: BudgetSection,
    /// Where jobs and records wait.
    pub queue: QueueSection,
    /// Where journal, quota and money are kept.
    pub shared: Shared,
    /// What becomes of records.
    pub collector: CollectorSection,
    /// What is logged.
    pub telemetry: TelemetrySection,
}

impl Config {
    /// Whether a provider can be asked: it has a key, or needs none.
    pub fn has_key(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|p| !p.credentials.is_empty() || p.key_sources.is_empty())
    }

    /// The first limit that matches; none: the provider's hints alone slow it down.
    pub fn limit(&self, provider: &str, model: &str) -> Option<&Limit> {
        self.limits.iter().find(|limit| limit.matches(provider, model))
    }
}

/// A valid configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What works, but is probably not meant.
    pub warnings: Vec<String>,
    /// Every effective setting with its origin, for `config show`.
    pub entries: Vec<Entry>,
}

/// Reads the layers: the default, each file in turn, the environment (names and values, as the process has them).
///
/// Errors: everything that is wrong, in all layers.
pub fn load(files: &[PathBuf], env: &[(String, String)]) -> Result<Loaded, Mistakes> {
    let sink = Sink::default();
    let (defaults, dated) = defaults(&sink);
    let mut tree = defaults.clone();
    let known = layer_files(&mut tree, files, &sink);
    let (variables, mistakes) = tree::from_environment(env);
    sink.mistakes.borrow_mut().extend(mistakes);
    for (path, node) in variables {
        tree::set(&mut tree, &path, node, &PREPENDED);
    }
    warn_of_near_variables(env, &defaults, &sink);
    let config = read(tree, &defaults, dated, env, known, &sink);
    let mistakes = sink.mistakes.into_inner();
    if mistakes.is_empty() {
        Ok(Loaded { config, warnings: sink.warnings.into_inner(), entries: sink.entries.into_inner() })
    } else {
        Err(Mistakes(mistakes))
    }
}

/// The compiled-in settings and prices as one layer, and the date of the prices.
fn defaults(sink: &Sink) -> (Table, String) {
    let parse = |text| {
        tree::parse(text, &|_| Origin::Default).unwrap_or_else(|mistakes| {
            sink.mistakes.borrow_mut().extend(mistakes);
            Table::new()
        })
    };
    let (mut settings, mut prices) = (parse(DEFAULT), parse(PRICES));
    if let Some(models) = prices.remove("models") {
        settings.insert("prices".to_owned(), models);
    }
    match prices.remove("dated") {
        Some(Node { value: Value::Text(dated), .. }) => (settings, dated),
        _ => (settings, String::new()),
    }
}

fn layer_files(tree: &mut Table, files: &[PathBuf], sink: &Sink) -> Known {
    let mut known = Known::All;
    for file in files {
        let path: Arc<Path> = file.as_path().into();
        let parsed = match std::fs::read_to_string(file) {
            Ok(text) => tree::parse(&text, &|line| Origin::File(Arc::clone(&path), line)),
            Err(error) => {
                let message = format!("cannot be read: {error}; correct the path given to --config");
                Err(vec![Mistake::new("", None, Origin::File(Arc::clone(&path), 1), message)])
            }
        };
        match parsed {
            Ok(table) => tree::merge(tree, table, &PREPENDED),
            Err(mistakes) => {
                known = Known::Some;
                sink.mistakes.borrow_mut().extend(mistakes);
            }
        }
    }
    known
}

fn read(tree: Table, defaults: &Table, dated: String, env: &[(String, String)], known: Known, sink: &Sink) -> Config {
    let mut root = Section::root(tree, sink);
    let worker = sections::worker(&mut root);
    let retry = sections::retry(&mut root);
    let http = sections::http(&mut root);
    if http.total > worker.job_deadline {
        sink.out_of_order("http.total_seconds", "worker.job_deadline_seconds");
    }
    let media = sections::media(&mut root);
    let store = store::read(&mut root, &retry, &http);
    let providers = providers::read(&mut root, defaults, env);
    let known = if sink.blames("providers") { Known::Some } else { known };
    let limits = limits::read(&mut root, &providers, known);
    let budget = sections::budget(&mut root);
    let queue = queue::read(&mut root);
    let shared = fleet::shared(&mut root);
    let collector = fleet::collector(&mut root);
    let telemetry = sections::telemetry(&mut root);
    let prices = price::Table { dated, models: prices::read(&mut root) };
    root.finish();
    Config { worker, retry, http, media, store, providers, limits, prices, budget, queue, shared, collector, telemetry }
}

/// `AURELIA_WORKER_CONCURRENCY` is most likely a setting with too few underscores.
fn warn_of_near_variables(env: &[(String, String)], defaults: &Table, sink: &Sink) {
    for (name, _) in env {
        let lower = name.to_ascii_lowercase();
        let Some(rest) = lower.strip_prefix("aurelia_").filter(|rest| !rest.starts_with('_')) else {
            continue;
        };
        let section =
            defaults.keys().find(|key| rest.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('_')));
        if let Some(section) = section {
            let section = section.to_ascii_uppercase();
            sink.warning(format!("the variable {name} is not used: settings are spelt AURELIA__{section}__KEY"));
        }
    }
}
