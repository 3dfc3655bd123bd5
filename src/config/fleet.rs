//! `[shared]` and `[collector]`: the state, and what becomes of records.

use std::path::PathBuf;
use std::time::Duration;

use super::read::Section;
use super::sections::{MIB, YEAR};
use super::tree::beside;

/// Where journal, quota and money are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// In the run's output directory.
    Output,
    /// In this SQLite file.
    Embedded(PathBuf),
    /// In Redis, for a fleet.
    #[cfg(feature = "fleet")]
    Redis {
        /// Where it is.
        address: crate::shared::Address,
        /// What keys begin with.
        prefix: String,
        /// How long a reply is kept once its record is in the data set.
        keep: Duration,
    },
}

/// What the collector makes of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectorSection {
    /// Where data sets go: a directory, or `s3://bucket/prefix`; empty: not set.
    pub output: String,
    /// Most records of a shard.
    pub shard_rows: u32,
    /// Most bytes of a shard, uncompressed.
    pub shard_bytes: u64,
    /// The longest time a shard is open.
    pub shard_age: Duration,
    /// A shard to which nothing was added for so long is closed.
    pub shard_idle: Duration,
}

pub(super) fn shared(root: &mut Section<'_>) -> Shared {
    let mut section = root.section("shared");
    let key = section.key("url");
    let mut shared = Shared::Output;
    let prefix = super::queue::prefix(&mut section);
    let keep = section.seconds("keep", 0.0..=10.0 * YEAR);
    match section.unshown_text("url") {
        None => section.sink.mistake(&key, None, &section.origin, "is missing; set it"),
        Some(url) => match url.value.strip_prefix("embedded:") {
            Some(path) if !path.is_empty() => {
                section.sink.entry(key, format!("{:?}", url.value), &url.origin);
                shared = Shared::Embedded(beside(&url.origin, path));
            }
            None if url.value.is_empty() => section.sink.entry(key, "\"\"".to_owned(), &url.origin),
            _ => match redis(&url.value, prefix, keep) {
                Ok((redis, shown)) => {
                    section.sink.entry(key, format!("{shown:?}"), &url.origin);
                    shared = redis;
                }
                Err(error) => {
                    let message = format!("{error}, or \"embedded:PATH\", or \"\" for the output directory");
                    section.sink.mistake(&key, None, &url.origin, message);
                }
            },
        },
    }
    section.finish();
    shared
}

#[cfg(feature = "fleet")]
fn redis(url: &str, prefix: String, keep: Duration) -> Result<(Shared, String), String> {
    let address: crate::shared::Address = url.parse()?;
    let shown = address.to_string();
    Ok((Shared::Redis { address, prefix, keep }, shown))
}

#[cfg(not(feature = "fleet"))]
fn redis(_: &str, _: String, _: Duration) -> Result<(Shared, String), String> {
    Err("names a server, which this program was built without: build it with the feature \"fleet\"".to_owned())
}

pub(super) fn collector(root: &mut Section<'_>) -> CollectorSection {
    let mut section = root.section("collector");
    let output = section.text("output");
    let local = !output.value.is_empty() && !output.value.contains("://");
    let collector = CollectorSection {
        output: if local { beside(&output.origin, &output.value).display().to_string() } else { output.value },
        shard_rows: section.whole32("shard_rows", 1..=1_000_000),
        shard_bytes: section.whole("shard_mib", 1..=4096) * MIB,
        shard_age: section.seconds("shard_seconds", 0.1..=600.0),
        shard_idle: section.seconds("shard_idle_seconds", 0.1..=600.0),
    };
    if collector.output.contains("://") && !collector.output.starts_with("s3://") {
        section.sink.conflict("collector.output", "must be a directory, or s3://BUCKET/PREFIX".to_owned());
    }
    section.finish();
    collector
}
