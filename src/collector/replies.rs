//! The paid replies that a shard rests on, taken from the journal to lie beside it: `{"key":…,"reply":…}` a line.
//!
//! With them a data set can be rebuilt without the journal and without paying. Once they are in the manifest, the journal is
//! told to keep them only for `shared.keep` longer.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::message::{Head, Row};
use super::shard::{self, Packed};
use crate::shared::Redis;
use crate::state::StateError;

/// Commands under way at once.
const AT_ONCE: usize = 256;
/// No reply is longer.
const LONGEST: u64 = 64 << 20;

/// Replies as the journal has them: key, and compressed JSON. Keys that are not there are left out.
pub(super) async fn fetch(redis: &Redis, keys: &[String]) -> Result<Vec<(String, Vec<u8>)>, StateError> {
    let get = async |key: &String| {
        let value: Option<Vec<u8>> = redis.command(redis::cmd("GET").arg(place(redis, key))).await?;
        Ok::<_, StateError>(value.map(|value| (key.clone(), value)))
    };
    // Each key has a slot of its own in a cluster, so they go one by one, many at once.
    let found: Vec<_> = stream::iter(keys).map(get).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Has the journal keep these only so much longer.
pub(super) async fn expire(redis: &Redis, keys: &[String], keep: Duration) -> Result<(), StateError> {
    let expire = async |key: &String| {
        let command = redis::cmd("EXPIRE").arg(place(redis, key)).arg(keep.as_secs()).to_owned();
        redis.command::<i64>(&command).await.map(|_| ())
    };
    stream::iter(keys).map(expire).buffer_unordered(AT_ONCE).try_collect().await
}

/// Where the journal has a reply, or a redirect.
fn place(redis: &Redis, key: &str) -> String {
    match key.split_once(':') {
        Some((from, to)) => redis.key(from, to),
        None => redis.key(key, "r"),
    }
}

/// The keys of all rows, each once.
pub(super) fn keys(rows: &[Arc<Row>]) -> Vec<String> {
    let mut keys: Vec<String> = rows.iter().flat_map(|row| row.keys.iter().cloned()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The keys of a shard that was written, read from its records.
pub(super) fn keys_of(text: &str) -> Vec<String> {
    let heads = text.lines().filter_map(|line| serde_json::from_str::<Head<'_>>(line).ok());
    let mut keys: Vec<String> = heads.flat_map(|head| head.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A shard's file of replies, if there are any.
pub(super) async fn pack(replies: Vec<(String, Vec<u8>)>) -> Result<Option<Packed>, String> {
    if replies.is_empty() {
        return Ok(None);
    }
    let replies = Arc::new(replies);
    shard::working(move || {
        let lines: Vec<Vec<u8>> = replies.iter().filter_map(|(key, value)| line(key, value)).collect();
        Packed::lines(lines.iter().map(Vec::as_slice)).map(Some)
    })
    .await
}

/// One reply as a line; none: it is not what a journal holds, which is told and counts as missing.
fn line(key: &str, value: &[u8]) -> Option<Vec<u8>> {
    let mut reply = Vec::new();
    let read = zstd::Decoder::new(value).and_then(|decoder| decoder.take(LONGEST).read_to_end(&mut reply));
    let json = read.map_err(|error| error.to_string()).and_then(|_| {
        let raw: Result<&serde_json::value::RawValue, _> = serde_json::from_slice(&reply);
        raw.map(|_| ()).map_err(|error| error.to_string())
    });
    if let Err(error) = json {
        tracing::warn!(key, error, "a reply in the journal cannot be read; it is left out of the data set");
        return None;
    }
    reply.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    let key = serde_json::to_string(key).ok()?;
    Some([br#"{"key":"#, key.as_bytes(), br#","reply":"#, &reply, b"}"].concat())
}

/// The keys in a shard's file of replies.
pub(super) fn packed_keys(text: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        key: std::borrow::Cow<'a, str>,
    }
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line<'_>>(line).ok());
    lines.map(|line| line.key.into_owned()).collect()
}
