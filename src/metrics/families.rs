//! The counters themselves: names, help texts, labels, buckets.

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};

/// What all names begin with.
pub(super) const PREFIX: &str = "aurelia";

/// Jobs wait for models: seconds to an hour.
const JOB_SECONDS: [f64; 11] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 900.0, 3600.0];
/// Models that think answer after minutes, simulated ones after milliseconds.
const CALL_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
const WAIT_SECONDS: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) jobs: IntCounterVec,
    pub(super) tries: IntCounterVec,
    pub(super) accepted: IntCounterVec,
    pub(super) ends: IntCounterVec,
    pub(super) running: IntGauge,
    pub(super) slots: IntGauge,
    pub(super) wanted: IntGauge,
    pub(super) job_seconds: Histogram,
    pub(super) calls: IntCounterVec,
    pub(super) call_seconds: HistogramVec,
    pub(super) tokens: IntCounterVec,
    pub(super) cost: CounterVec,
    pub(super) looks: IntCounterVec,
    pub(super) stores: IntCounter,
    pub(super) duplicates: IntCounter,
    pub(super) redirects: IntCounter,
    pub(super) held: IntGauge,
    pub(super) quota_wait: Histogram,
    pub(super) reservations: IntCounter,
    pub(super) refusals: IntCounterVec,
    pub(super) cuts: IntCounterVec,
    pub(super) media: IntCounterVec,
    pub(super) fetched: IntCounter,
    pub(super) deliveries: IntCounterVec,
    pub(super) reconnects: IntCounterVec,
    pub(super) recipe_missing: IntCounter,
    pub(super) panics: IntCounter,
    pub(super) redis_errors: IntCounter,
    pub(super) ready: IntGauge,
    pub(super) collected: IntCounterVec,
    pub(super) known: IntCounter,
    pub(super) shards: IntCounter,
    pub(super) shard_bytes: IntCounter,
    pub(super) no_records: IntCounter,
    pub(super) conflicts: IntCounter,
}

impl Families {
    /// Makes and registers all of them.
    #[rustfmt::skip]
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let add = Adder(registry);
        let model = ["provider", "model"];
        Ok(Self {
            jobs: add.counters("jobs_recorded_total", "Jobs that ended in a record, by its status.", &["status"])?,
            tries: add.counters("tries_scored_total", "Tries that were scored, in confirmed records, by their place in the loop.",
                &["try"])?,
            accepted: add.counters("tries_accepted_total",
                "Tries that were accepted, in confirmed records, by their place in the loop.", &["try"])?,
            ends: add.counters("job_deliveries_ended_total",
                "Deliveries of jobs that ended, by how (acked, parked, continued, dead, given_back) and why.", &["end", "reason"])?,
            running: add.gauge("jobs_running", "Jobs this process works on now.")?,
            slots: add.gauge("slots", "Jobs this process works on at once at most: worker.concurrency, or what the quota keeps busy.")?,
            wanted: add.gauge("slots_wanted",
                "Jobs at once that ready work and quota would keep busy here; above worker.concurrency: more workers would do more.")?,
            job_seconds: add.histogram("job_duration_seconds", "From a job's start to the end of its delivery.", &JOB_SECONDS)?,
            calls: add.counters("calls_total", "Calls of models that were sent, by provider, model, role and outcome.",
                &["provider", "model", "role", "outcome"])?,
            call_seconds: add.histograms("call_duration_seconds", "From sending a call until its whole reply is there.",
                &model, &CALL_SECONDS)?,
            tokens: add.counters("call_tokens_total", "Tokens that providers reported, by kind (input, output).",
                &["provider", "model", "kind"])?,
            cost: add.floats("call_cost_dollars_total", "Money spent on calls, in dollars.", &model)?,
            looks: add.counters("journal_looks_total",
                "Looks for a reply in the journal, by outcome (hit, claimed, waited).", &["outcome"])?,
            stores: add.counter("journal_stores_total", "Replies stored in the journal.")?,
            duplicates: add.counter("journal_duplicate_stores_total",
                "Replies that came when another was stored already: paid for twice.")?,
            redirects: add.counter("journal_redirects_total", "Asks that were handed to their fallback.")?,
            held: add.gauge("journal_held_replies", "Paid replies that wait to be stored; while there are any, no call is made.")?,
            quota_wait: add.histogram("quota_wait_seconds", "Waits for an appointment with a provider.", &WAIT_SECONDS)?,
            reservations: add.counter("quota_reservations_total", "Reservations of requests, tokens and money that were given.")?,
            refusals: add.counters("quota_refusals_total", "Reservations that were refused, by reason.", &["reason"])?,
            cuts: add.counters("quota_cuts_total",
                "Times that a provider's refusals showed a limit to be lower than was known, by limit (requests, tokens).", &["limit"])?,
            media: add.counters("media_sources_total", "Sources, by what was done with them (hashed, probed, decoded, clips, \
                found_in_memory, found_on_disk, downloaded, unchanged).", &["what"])?,
            fetched: add.counter("media_fetched_bytes_total", "Bytes of sources fetched.")?,
            deliveries: add.counters("deliveries_total", "Deliveries by the broker, by what became of them (taken, acked, lost).",
                &["event"])?,
            reconnects: add.counters("reconnects_total", "Connections that were made again, by link.", &["link"])?,
            recipe_missing: add.counter("recipe_missing_total",
                "Jobs that wait as their recipe is not registered: run the producer again.")?,
            panics: add.counter("panics_total", "Jobs that panicked. Each is a fault of this program.")?,
            redis_errors: add.counter("redis_errors_total", "Commands that Redis did not answer, or answered with an error.")?,
            ready: add.gauge("ready", "1 while the process can do its work, else 0; /readyz says what is missing.")?,
            collected: add.counters("collected_records_total", "Records written to data sets, by status.", &["status"])?,
            known: add.counter("collected_duplicates_total", "Records that came and were in their data set already.")?,
            shards: add.counter("collected_shards_total", "Shards written.")?,
            shard_bytes: add.counter("collected_shard_bytes_total", "Bytes of shards with what lies beside them, as written.")?,
            no_records: add.counter("collected_dead_total", "Messages that were no records and became dead letters.")?,
            conflicts: add.counter("collected_manifest_conflicts_total",
                "Manifests that another collector had replaced meanwhile; it was read anew.")?,
        })
    }
}

struct Adder<'a>(&'a Registry);

impl Adder<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> prometheus::Result<C> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.add(IntCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(opts(name, help), labels))
    }

    fn floats(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        self.add(CounterVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::with_opts(opts(name, help)))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.add(Histogram::with_opts(buckets_of(name, help, buckets)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<HistogramVec> {
        self.add(HistogramVec::new(buckets_of(name, help, buckets), labels))
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(PREFIX)
}

fn buckets_of(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(PREFIX).buckets(buckets.to_vec())
}
