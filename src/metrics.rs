//! What a program counts, for Prometheus.
//!
//! One struct, made once per process and handed down; there is no global, so that tests count apart and what counts is seen
//! in signatures. Callers need no type of the library.
//!
//! Labels are closed sets: enums, and words that are compiled in (`&'static str`), into which nothing that is read at run time can
//! get. The exception are providers and models, which configuration and recipes name; of these only the first [`MODELS`]
//! pairs have counters of their own, so that a recipe with a slip in it does not fill Prometheus. Ids, URIs, runs and texts
//! are in no label.

mod families;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus::{Encoder as _, Registry, TextEncoder};

use self::families::Families;
use crate::lock::lock;
use crate::media::Stats;
use crate::price::Nano;
use crate::provider::Role;
use crate::quota::Scarce;
use crate::record::{ByTry, Status};

/// Pairs of provider and model that are counted apart; further ones are "other".
pub const MODELS: usize = 100;
/// Longest label; a longer name is "other".
const LONGEST: usize = 128;
const OTHER: &str = "other";
/// What asking may take at a busy store is no wait for a quota.
const ASKING: Duration = Duration::from_millis(50);

/// The counters of a process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    families: Families,
    models: Mutex<BTreeSet<(String, String)>>,
    /// For an appointment, by all calls together, in microseconds.
    waited: AtomicU64,
}

/// How a delivery of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its record is confirmed.
    Acked,
    /// It waits, for this: a word of ours.
    Parked(&'static str),
    /// Its deadline passed, and it goes on in another delivery.
    Continued,
    /// It is a dead letter, for this: a word of ours.
    Dead(&'static str),
    /// It went back to its queue.
    GivenBack,
}

/// What a look into the journal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The reply.
    Hit,
    /// Nothing: it is ours to ask.
    Claimed,
    /// Somebody else is asking.
    Waited,
}

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkName {
    /// Publishes to the broker.
    Publishes,
    /// Consumes from the broker.
    Consumes,
    /// Redis.
    Redis,
}

/// A call that was answered, or not.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The provider's name in the configuration.
    pub provider: &'a str,
    /// The model.
    pub model: &'a str,
    /// The role.
    pub role: Role,
    /// How it ended: a word of ours.
    pub outcome: &'static str,
    /// From sending to its end.
    pub latency: Duration,
    /// Tokens sent, as reported.
    pub input_tokens: u64,
    /// Tokens received, as reported.
    pub output_tokens: u64,
    /// What it cost.
    pub cost: Nano,
}

/// A job that runs; dropped, it no longer does, and its time is noted.
#[derive(Debug)]
pub struct RunningJob {
    metrics: Metrics,
    began: Instant,
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let families = &self.metrics.inner.families;
        families.running.dec();
        families.job_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Metrics {
    /// New counters, all of them at zero.
    ///
    /// # Errors
    /// Two of them have one name, or one has a name that Prometheus does not take: a fault of this program.
    pub fn new() -> Result<Self, String> {
        let registry = Registry::new();
        let families = Families::register(&registry).map_err(|error| format!("metrics: {error}"))?;
        Ok(Self { inner: Arc::new(Inner { registry, families, models: Mutex::default(), waited: AtomicU64::new(0) }) })
    }

    /// All of them in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.inner.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What all calls together have waited for appointments.
    pub fn quota_waited(&self) -> Duration {
        Duration::from_micros(self.inner.waited.load(Ordering::Relaxed))
    }

    /// How many jobs at once this process allows itself now, and how many it could do if it were as large as needed.
    pub fn slots(&self, now: usize, wanted: usize) {
        let families = &self.inner.families;
        families.slots.set(i64::try_from(now).unwrap_or(i64::MAX));
        families.wanted.set(i64::try_from(wanted).unwrap_or(i64::MAX));
    }

    /// A job starts.
    pub fn job_starts(&self) -> RunningJob {
        self.inner.families.running.inc();
        RunningJob { metrics: self.clone(), began: Instant::now() }
    }

    /// A job's record is confirmed.
    pub fn job_recorded(&self, status: Status, tries: &ByTry) {
        let families = &self.inner.families;
        families.jobs.with_label_values(&[status.name()]).inc();
        for (at, tried) in tries.iter() {
            let place = place(at);
            families.tries.with_label_values(&[place]).inc_by(tried.scored);
            families.accepted.with_label_values(&[place]).inc_by(tried.accepted);
        }
    }

    /// A delivery of a job ended.
    pub fn delivery_ended(&self, end: End) {
        let (end, reason) = match end {
            End::Acked => ("acked", ""),
            End::Parked(reason) => ("parked", reason),
            End::Continued => ("continued", ""),
            End::Dead(reason) => ("dead", reason),
            End::GivenBack => ("given_back", ""),
        };
        self.inner.families.ends.with_label_values(&[end, reason]).inc();
    }

    /// A call ended.
    pub fn call(&self, call: &Call<'_>) {
        let families = &self.inner.families;
        let (provider, model) = self.counted(call.provider, call.model);
        families.calls.with_label_values(&[provider, model, call.role.name(), call.outcome]).inc();
        families.call_seconds.with_label_values(&[provider, model]).observe(call.latency.as_secs_f64());
        families.tokens.with_label_values(&[provider, model, "input"]).inc_by(call.input_tokens);
        families.tokens.with_label_values(&[provider, model, "output"]).inc_by(call.output_tokens);
        families.cost.with_label_values(&[provider, model]).inc_by(dollars(call.cost));
    }

    /// The journal was looked into.
    pub fn journal_look(&self, look: Look) {
        let word = match look {
            Look::Hit => "hit",
            Look::Claimed => "claimed",
            Look::Waited => "waited",
        };
        self.inner.families.looks.with_label_values(&[word]).inc();
    }

    /// A reply was stored.
    pub fn reply_stored(&self) {
        self.inner.families.stores.inc();
    }

    /// A reply came when another was stored.
    pub fn duplicate_reply(&self) {
        self.inner.families.duplicates.inc();
    }

    /// An ask was handed to its fallback.
    pub fn redirected(&self) {
        self.inner.families.redirects.inc();
    }

    /// So many paid replies wait to be stored.
    pub fn replies_held(&self, held: usize) {
        self.inner.families.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// A reservation was given, after this wait for its appointment.
    pub fn reserved(&self, wait: Duration) {
        let micros = u64::try_from(wait.saturating_sub(ASKING).as_micros()).unwrap_or(u64::MAX);
        self.inner.waited.fetch_add(micros, Ordering::Relaxed);
        self.inner.families.reservations.inc();
        self.inner.families.quota_wait.observe(wait.as_secs_f64());
    }

    /// A reservation was refused, for this: a word of ours.
    pub fn refused(&self, reason: &'static str) {
        self.inner.families.refusals.with_label_values(&[reason]).inc();
    }

    /// A limit turned out lower than was known.
    pub fn limit_cut(&self, limit: Scarce) {
        self.inner.families.cuts.with_label_values(&[limit.name()]).inc();
    }

    /// What media have done since `before`.
    pub fn media(&self, before: &Stats, now: &Stats) {
        let work = [
            ("hashed", before.hashed, now.hashed),
            ("probed", before.probes, now.probes),
            ("decoded", before.decodes, now.decodes),
            ("clips", before.clips, now.clips),
            ("found_in_memory", before.memory_hits, now.memory_hits),
            ("found_on_disk", before.disk_hits, now.disk_hits),
            ("downloaded", before.downloads, now.downloads),
            ("unchanged", before.unchanged, now.unchanged),
        ];
        for (what, before, now) in work {
            self.inner.families.media.with_label_values(&[what]).inc_by(now.saturating_sub(before));
        }
        self.inner.families.fetched.inc_by(now.downloaded_bytes.saturating_sub(before.downloaded_bytes));
    }

    /// The broker delivered.
    pub fn delivery_taken(&self) {
        self.inner.families.deliveries.with_label_values(&["taken"]).inc();
    }

    /// So many deliveries were acknowledged.
    pub fn deliveries_acked(&self, count: u64) {
        self.inner.families.deliveries.with_label_values(&["acked"]).inc_by(count);
    }

    /// So many deliveries were lost with their connection, and come again.
    pub fn deliveries_lost(&self, count: u64) {
        self.inner.families.deliveries.with_label_values(&["lost"]).inc_by(count);
    }

    /// A connection was made again.
    pub fn reconnected(&self, link: LinkName) {
        let word = match link {
            LinkName::Publishes => "publishes",
            LinkName::Consumes => "consumes",
            LinkName::Redis => "redis",
        };
        self.inner.families.reconnects.with_label_values(&[word]).inc();
    }

    /// A job's recipe is not registered.
    pub fn recipe_missing(&self) {
        self.inner.families.recipe_missing.inc();
    }

    /// A job panicked.
    pub fn panicked(&self) {
        self.inner.families.panics.inc();
    }

    /// Redis did not do what was asked.
    pub fn redis_failed(&self) {
        self.inner.families.redis_errors.inc();
    }

    /// A shard of these records, of so many bytes in all, is in its data set.
    pub fn shard_written(&self, by_status: &BTreeMap<Status, u64>, bytes: u64) {
        let families = &self.inner.families;
        for (status, count) in by_status {
            families.collected.with_label_values(&[status.name()]).inc_by(*count);
        }
        families.shards.inc();
        families.shard_bytes.inc_by(bytes);
    }

    /// So many records came that were in their data set already.
    pub fn duplicate_records(&self, count: u64) {
        self.inner.families.known.inc_by(count);
    }

    /// So many messages were no records.
    pub fn no_records(&self, count: u64) {
        self.inner.families.no_records.inc_by(count);
    }

    /// Another collector had replaced a manifest.
    pub fn manifest_conflict(&self) {
        self.inner.families.conflicts.inc();
    }

    /// Whether the process can do its work.
    pub fn ready(&self, ready: bool) {
        self.inner.families.ready.set(i64::from(ready));
    }

    /// The labels of a model: its own, or "other" where there are too many.
    fn counted<'a>(&self, provider: &'a str, model: &'a str) -> (&'a str, &'a str) {
        if provider.len() > LONGEST || model.len() > LONGEST {
            return (OTHER, OTHER);
        }
        let mut models = lock(&self.inner.models);
        let pair = (provider.to_owned(), model.to_owned());
        if models.contains(&pair) {
            return (provider, model);
        }
        if models.len() >= MODELS {
            return (OTHER, OTHER);
        }
        models.insert(pair);
        (provider, model)
    }
}

/// The label of a try: there may be a hundred, and the first ones are where the money goes.
fn place(at: usize) -> &'static str {
    match at {
        0 | 1 => "1",
        2 => "2",
        3 => "3",
        4 => "4",
        5 => "5",
        6..=10 => "6-10",
        _ => "11+",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a counter of money is read to a few digits")]
fn dollars(cost: Nano) -> f64 {
    cost.0 as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(model: &str) -> Call<'_> {
        Call {
            provider: "gemini",
            model,
            role: Role::Generator,
            outcome: "ok",
            latency: Duration::from_millis(1500),
            input_tokens: 100,
            output_tokens: 20,
            cost: Nano(2_500_000),
        }
    }

    /// Everything counted once.
    fn counted() -> Metrics {
        let metrics = Metrics::new().unwrap();
        drop(metrics.job_starts());
        metrics.job_recorded(Status::Accepted, &ByTry::of(Status::Accepted, [true; 12].into_iter()));
        let ends = [End::Acked, End::Parked("quota"), End::Continued, End::Dead("not_json"), End::GivenBack];
        for end in ends {
            metrics.delivery_ended(end);
        }
        metrics.call(&call("gemini-2.5-pro"));
        for look in [Look::Hit, Look::Claimed, Look::Waited] {
            metrics.journal_look(look);
        }
        metrics.reply_stored();
        metrics.duplicate_reply();
        metrics.redirected();
        metrics.replies_held(2);
        metrics.reserved(Duration::from_millis(20));
        metrics.refused("budget");
        let now = Stats { decodes: 3, disk_hits: 2, downloaded_bytes: 1000, ..Stats::default() };
        metrics.media(&Stats { decodes: 1, ..Stats::default() }, &now);
        metrics.delivery_taken();
        metrics.deliveries_acked(3);
        metrics.deliveries_lost(1);
        metrics.reconnected(LinkName::Redis);
        metrics.recipe_missing();
        metrics.panicked();
        metrics.redis_failed();
        metrics.ready(true);
        metrics.shard_written(&[(Status::Accepted, 7)].into(), 1234);
        metrics.duplicate_records(2);
        metrics.no_records(1);
        metrics.manifest_conflict();
        metrics
    }

    #[test]
    fn every_metric_is_told_with_its_help_and_each_line_can_be_read() {
        let text = counted().text();
        let mut families = BTreeSet::new();
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.len() > 10 && words.ends_with('.'), "{name}: {words:?}");
                helped.insert(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                families.insert(kind.split_once(' ').unwrap().0.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(name.starts_with("aurelia_"), "{name}");
            }
        }
        assert_eq!(families, helped);
        assert_eq!(families.len(), 34, "{families:?}");
        for wanted in [
            "aurelia_jobs_recorded_total{status=\"accepted\"} 1",
            "aurelia_tries_scored_total{try=\"1\"} 1",
            "aurelia_tries_scored_total{try=\"6-10\"} 5",
            "aurelia_tries_accepted_total{try=\"1\"} 0",
            "aurelia_tries_accepted_total{try=\"11+\"} 1",
            "aurelia_job_deliveries_ended_total{end=\"dead\",reason=\"not_json\"} 1",
            "aurelia_jobs_running 0",
            "aurelia_job_duration_seconds_count 1",
            "aurelia_calls_total{model=\"gemini-2.5-pro\",outcome=\"ok\",provider=\"gemini\",role=\"generator\"} 1",
            "aurelia_call_cost_dollars_total{model=\"gemini-2.5-pro\",provider=\"gemini\"} 0.0025",
            "aurelia_media_sources_total{what=\"decoded\"} 2",
            "aurelia_deliveries_total{event=\"acked\"} 3",
            "aurelia_ready 1",
            "aurelia_collected_records_total{status=\"accepted\"} 7",
            "aurelia_collected_shard_bytes_total 1234",
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted} is not in\n{text}");
        }
    }

    #[test]
    fn however_many_models_there_are_few_are_counted_apart() {
        let metrics = Metrics::new().unwrap();
        for number in 0..10 * MODELS {
            metrics.call(&call(&format!("model-{number}")));
        }
        metrics.call(&call(&"x".repeat(1000)));
        let text = metrics.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("aurelia_calls_total{")).collect();
        assert_eq!(lines.len(), MODELS + 1);
        let rest = 9 * MODELS + 1;
        assert!(lines.contains(&&*format!(
            "aurelia_calls_total{{model=\"other\",outcome=\"ok\",provider=\"other\",role=\"generator\"}} {rest}"
        )));
    }

    #[test]
    fn clones_count_together_and_another_process_would_not() {
        let metrics = Metrics::new().unwrap();
        metrics.clone().panicked();
        assert!(metrics.text().contains("aurelia_panics_total 1"));
        assert!(Metrics::new().unwrap().text().contains("aurelia_panics_total 0"));
    }
}
