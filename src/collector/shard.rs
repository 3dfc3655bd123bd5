//! The content of a shard's files: made of rows, and read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::index;
use super::manifest::Part;
use super::message::Row;
use crate::record::Status;

/// zstd's default: a fifth of the size at 300 MB/s.
const LEVEL: i32 = 3;

/// A file in the making.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) content: Bytes,
    pub(super) rows: u64,
    blake3: String,
}

/// A shard in the making.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) records: Packed,
    pub(super) ids: Packed,
    pub(super) retry: Option<Packed>,
    pub(super) by_status: BTreeMap<Status, u64>,
    pub(super) cost_nano_usd: u64,
}

impl Packed {
    fn new(content: Vec<u8>, rows: usize) -> Self {
        let blake3 = blake3::hash(&content).to_hex().to_string();
        Self { content: content.into(), rows: rows as u64, blake3 }
    }

    /// Lines without their ends, compressed. Blocking.
    pub(super) fn lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let why = |error: std::io::Error| format!("a shard cannot be compressed: {error}");
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).map_err(why)?;
        let mut rows = 0;
        for line in lines {
            rows += 1;
            std::io::Write::write_all(&mut encoder, line).map_err(why)?;
            std::io::Write::write_all(&mut encoder, b"\n").map_err(why)?;
        }
        Ok(Self::new(encoder.finish().map_err(why)?, rows))
    }

    pub(super) fn part(&self, name: String) -> Part {
        Part { name, rows: self.rows, bytes: self.content.len() as u64, blake3: self.blake3.clone() }
    }
}

/// Makes a shard. Its rows are of one run.
pub(super) async fn make(rows: Arc<Vec<Arc<Row>>>) -> Result<Made, String> {
    working(move || {
        let jobs: Vec<&[u8]> = rows.iter().filter_map(|row| row.job()).collect();
        let retry = if jobs.is_empty() { None } else { Some(Packed::lines(jobs.into_iter())?) };
        let mut by_status = BTreeMap::new();
        for row in rows.iter() {
            *by_status.entry(row.mark.status()).or_default() += 1;
        }
        Ok(Made {
            records: Packed::lines(rows.iter().map(|row| row.line()))?,
            ids: Packed::new(index::encode(rows.iter().map(|row| (row.item, row.mark))), rows.len()),
            retry,
            by_status,
            cost_nano_usd: rows.iter().map(|row| row.cost_nano_usd).fold(0, u64::saturating_add),
        })
    })
    .await
}

/// The text of a compressed file; an error: it is not whole.
pub(super) async fn text(content: Bytes) -> Result<String, String> {
    working(move || {
        let text = zstd::decode_all(&content[..]).map_err(|error| format!("it is not whole ({error})"))?;
        String::from_utf8(text).map_err(|error| error.to_string())
    })
    .await
}

/// Whether a file is what the manifest says.
pub(super) async fn is_whole(part: &Part, content: &Bytes) -> bool {
    let (expected, content) = (part.blake3.clone(), content.clone());
    working(move || Ok(blake3::hash(&content).to_hex().as_str() == expected)).await.unwrap_or(false)
}

/// Computes on a thread of its own.
pub(super) async fn working<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
