//! What has arrived and is not yet handed to the writer.
//!
//! All runs share one batch, and it is closed for all of them at once: records are acknowledged up to a tag, so the oldest
//! record that is not durable holds up all after it, whichever run they are of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::Row;
use crate::config::CollectorSection;
use crate::queue::{Message, Record, Tag, Topology};

/// Most records of a batch: three of them (open, waiting, being written) are as many as a consumer may hold, 65,535.
const MOST_ROWS: u32 = 21_845;

/// Records of the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) rows: Vec<Arc<Row>>,
    /// Of what can be read by nobody.
    pub(super) dead: Vec<Message>,
    /// The last of them; none: it is empty.
    pub(super) tag: Option<Tag>,
    bytes: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// When a batch is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    rows: usize,
    bytes: u64,
    age: Duration,
    idle: Duration,
}

impl Bounds {
    pub(super) fn new(section: &CollectorSection) -> Self {
        Self {
            rows: section.shard_rows.min(MOST_ROWS) as usize,
            bytes: section.shard_bytes,
            age: section.shard_age,
            idle: section.shard_idle,
        }
    }

    /// How many records may be unacknowledged: those of three batches.
    pub(super) fn prefetch(&self) -> u16 {
        u16::try_from(self.rows * 3).unwrap_or(u16::MAX)
    }
}

impl Batch {
    /// Takes a record in; what is none becomes a dead letter.
    pub(super) fn take_in(&mut self, record: Record, topology: &Topology) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.tag = Some(record.tag);
        self.bytes += record.body.len() as u64;
        let Record { body, id, tag } = record;
        match Row::read(body) {
            Ok(row) => self.rows.push(Arc::new(row)),
            Err((body, dead)) => {
                tracing::warn!(
                    id,
                    reason = dead.reason,
                    detail = dead.detail,
                    "a message is no record; it is a dead letter"
                );
                let record = Record { body, id, tag };
                self.dead.push(record.dead(topology, "", dead.reason, &dead.detail));
            }
        }
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self, bounds: &Bounds) -> bool {
        self.rows.len() + self.dead.len() >= bounds.rows || self.bytes >= bounds.bytes
    }

    /// When it is closed though it is not full; none: it is empty.
    pub(super) fn due(&self, bounds: &Bounds) -> Option<Instant> {
        Some((self.first? + bounds.age).min(self.last? + bounds.idle))
    }
}
