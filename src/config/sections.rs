//! The plain sections: numbers, durations and words, with their ranges.
//!
//! The ranges keep out what cannot work (no slots, a wait of no time) and what is surely a slip of units; they are no
//! advice.

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::read::Section;
use super::tree::beside;
use crate::price::Nano;
use crate::provider::HttpSettings;

/// Longest duration taken, in seconds: a year.
pub(super) const YEAR: f64 = 31_536_000.0;
pub(super) const MIB: u64 = 1 << 20;
/// RabbitMQ's `consumer_timeout` is 30 min by default and looked at once a minute; a call in flight is not cut by ours.
const BROKER_DEADLINE: Duration = Duration::from_mins(20);

/// How work is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSection {
    /// Items worked on at once.
    pub concurrency: usize,
    /// An item still waiting for its provider after so long fails.
    pub job_deadline: Duration,
    /// A delivery that is still worked on after so long is put back into the queue as a new message.
    pub delivery_deadline: Duration,
    /// From the signal to stop until the end of the process.
    pub grace: Duration,
    /// So many jobs in a row that this machine is to blame for end the worker.
    pub most_faults: u32,
}

/// How failed transport is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySection {
    /// Attempts in a row before a call backs off.
    pub attempts: u32,
    /// The first wait between two attempts.
    pub base: Duration,
    /// The longest wait between two attempts; at least `base`.
    pub max: Duration,
    /// The pause after the attempts are used up.
    pub backoff: Duration,
    /// How long a role's model is away before its fallback is asked, where the recipe names one.
    pub fallback_after: Duration,
}

/// What media children may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSection {
    /// Decoder processes at once; 0: one per core.
    pub decoders: usize,
    /// The whole preparation of one source.
    pub prepare_timeout: Duration,
    /// Probing one source; at most `prepare_timeout`.
    pub probe_timeout: Duration,
    /// Processor seconds of one child.
    pub cpu_seconds: u64,
    /// Address space of one child, in MiB.
    pub memory_mib: u64,
    /// Largest source, in MiB.
    pub max_source_mib: u64,
    /// Most pixels of one frame.
    pub max_pixels: u64,
    /// Longest source.
    pub max_duration: Duration,
    /// Most streams of one source.
    pub max_streams: u32,
    /// Most frames decoded of one source.
    pub max_frames_decoded: u64,
    /// Most output of one preparation, in MiB.
    pub max_output_mib: u64,
    /// Where the cache is; none: in the output directory.
    pub cache_dir: Option<PathBuf>,
    /// Most bytes that the cache keeps; 0: no cap.
    pub cache_bytes: u64,
    /// Bytes of the disk that the cache leaves to others.
    pub keep_free_bytes: u64,
    /// Program name or path.
    pub ffmpeg: String,
    /// Program name or path.
    pub ffprobe: String,
}

/// What may be spent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetSection {
    /// Ceiling over everything; none: no ceiling.
    pub total: Option<Nano>,
    /// Ceiling over a day of UTC; none: no ceiling.
    pub per_day: Option<Nano>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetrySection {
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub log: String,
    /// The shape of a line.
    pub format: LogFormat,
    /// Where a daemon serves its metrics and its health; none: nowhere.
    pub listen: Option<std::net::SocketAddr>,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

pub(super) fn worker(root: &mut Section<'_>) -> WorkerSection {
    let mut section = root.section("worker");
    let worker = WorkerSection {
        concurrency: size(u64::from(section.whole32("concurrency", 1..=100_000))),
        job_deadline: section.seconds("job_deadline_seconds", 1.0..=YEAR),
        delivery_deadline: section.seconds("delivery_deadline_seconds", 1.0..=YEAR),
        grace: section.seconds("grace", 1.0..=86_400.0),
        most_faults: section.whole32("most_faults", 1..=1_000_000),
    };
    if worker.delivery_deadline > BROKER_DEADLINE {
        let message = format!(
            "must be at most {}: after half an hour the broker takes every message of the worker back",
            BROKER_DEADLINE.as_secs()
        );
        section.sink.conflict(&section.key("delivery_deadline_seconds"), message);
    }
    section.finish();
    worker
}

pub(super) fn retry(root: &mut Section<'_>) -> RetrySection {
    let mut section = root.section("retry");
    let retry = RetrySection {
        attempts: section.whole32("attempts", 1..=1000),
        base: Duration::from_millis(section.whole("base_ms", 1..=3_600_000)),
        max: Duration::from_millis(section.whole("max_ms", 1..=86_400_000)),
        backoff: Duration::from_millis(section.whole("backoff_ms", 1..=86_400_000)),
        fallback_after: section.seconds("fallback_after_seconds", 1.0..=YEAR),
    };
    if retry.base > retry.max {
        section.sink.out_of_order("retry.base_ms", "retry.max_ms");
    }
    section.finish();
    retry
}

pub(super) fn http(root: &mut Section<'_>) -> HttpSettings {
    let mut section = root.section("http");
    let mut http = HttpSettings {
        connect: section.seconds("connect_seconds", 0.001..=3600.0),
        first_byte: section.seconds("first_byte_seconds", 0.001..=86_400.0),
        idle: section.seconds("idle_seconds", 0.001..=86_400.0),
        total: section.seconds("total_seconds", 0.001..=86_400.0),
        max_reply_bytes: size(section.whole("max_reply_mib", 1..=1024) * MIB),
        extra_ca_file: None,
    };
    let file = section.text("extra_ca_file");
    if !file.value.is_empty() {
        let path = beside(&file.origin, &file.value);
        if !path.is_file() {
            let message = format!("there is no file {}: correct the path, or leave it empty", path.display());
            section.sink.mistake(&section.key("extra_ca_file"), None, &file.origin, message);
        }
        http.extra_ca_file = Some(path);
    }
    let parts =
        [("connect_seconds", http.connect), ("first_byte_seconds", http.first_byte), ("idle_seconds", http.idle)];
    for (name, _) in parts.into_iter().filter(|(_, part)| *part > http.total) {
        section.sink.out_of_order(&section.key(name), "http.total_seconds");
    }
    section.finish();
    http
}

pub(super) fn media(root: &mut Section<'_>) -> MediaSection {
    let mut section = root.section("media");
    let media = MediaSection {
        decoders: size(u64::from(section.whole32("decoders", 0..=4096))),
        prepare_timeout: section.seconds("prepare_timeout_seconds", 0.1..=YEAR),
        probe_timeout: section.seconds("probe_timeout_seconds", 0.1..=YEAR),
        cpu_seconds: section.whole("cpu_seconds", 1..=31_536_000),
        memory_mib: section.whole("memory_mib", 64..=1_048_576),
        max_source_mib: section.whole("max_source_mib", 1..=16_777_216),
        max_pixels: section.whole("max_pixels", 4096..=1 << 32),
        max_duration: section.seconds("max_duration_seconds", 0.1..=YEAR),
        max_streams: section.whole32("max_streams", 1..=100_000),
        max_frames_decoded: section.whole("max_frames_decoded", 1..=1 << 40),
        max_output_mib: section.whole("max_output_mib", 1..=16_777_216),
        cache_dir: directory(&mut section, "cache_dir"),
        cache_bytes: gib(&mut section, "cache_gib"),
        keep_free_bytes: gib(&mut section, "keep_free_gib"),
        ffmpeg: program(&mut section, "ffmpeg"),
        ffprobe: program(&mut section, "ffprobe"),
    };
    if media.probe_timeout > media.prepare_timeout {
        section.sink.out_of_order("media.probe_timeout_seconds", "media.prepare_timeout_seconds");
    }
    section.finish();
    media
}

/// A path beside where it is written; none if it is empty.
fn directory(section: &mut Section<'_>, name: &'static str) -> Option<PathBuf> {
    let path = section.text(name);
    (!path.value.is_empty()).then(|| beside(&path.origin, &path.value))
}

/// GiB as bytes; fractions are allowed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is far below 2^63 bytes")]
fn gib(section: &mut Section<'_>, name: &'static str) -> u64 {
    (section.required_number(name, &(0.0..=1_048_576.0)) * 1_073_741_824.0) as u64
}

pub(super) fn budget(root: &mut Section<'_>) -> BudgetSection {
    let mut section = root.section("budget");
    let budget =
        BudgetSection { total: dollars(&mut section, "total_usd"), per_day: dollars(&mut section, "per_day_usd") };
    section.finish();
    budget
}

/// An amount; empty: none.
fn dollars(section: &mut Section<'_>, name: &'static str) -> Option<Nano> {
    let text = section.decimal(name).filter(|text| !text.value.trim().is_empty())?;
    match Nano::ceiling(text.value.trim()) {
        Ok(amount) => Some(amount),
        Err(error) => {
            let key = section.key(name);
            section.sink.mistake(&key, Some(text.value), &text.origin, format!("{error}, or \"\" for no ceiling"));
            None
        }
    }
}

pub(super) fn telemetry(root: &mut Section<'_>) -> TelemetrySection {
    let mut section = root.section("telemetry");
    let log = section.text("log");
    if let Err(error) = EnvFilter::builder().parse(&log.value) {
        let message = format!("is not a log filter ({error}): write a level, or target=level pairs");
        section.sink.conflict("telemetry.log", message);
    }
    let format = section.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let listen = section.text("listen");
    let parsed = (!listen.value.is_empty()).then(|| listen.value.parse());
    if let Some(Err(_)) = parsed {
        let message =
            "is not an address: write HOST:PORT with HOST as a number, for example 127.0.0.1:9090, or \"\" for none";
        section.sink.mistake("telemetry.listen", Some(listen.value), &listen.origin, message);
    }
    let listen = parsed.and_then(Result::ok);
    section.finish();
    TelemetrySection { log: log.value, format: format.unwrap_or(LogFormat::Text), listen }
}

fn program(section: &mut Section<'_>, name: &'static str) -> String {
    let program = section.text(name).value;
    if program.trim().is_empty() {
        let key = section.key(name);
        section.sink.conflict(&key, format!("is empty: write {name:?} or a path"));
    }
    program
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
