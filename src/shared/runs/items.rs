//! The items of a run, as fingerprints in small hashes.

use std::sync::LazyLock;

use super::{OPEN, Runs};
use crate::shared::Script;
use crate::state::StateError;

/// Hashes of a run's items: with 10^8 items there are about 95 in each, which the server still packs (128 by default).
const BUCKETS: u32 = 1 << 20;

/// An item as it is kept: 84 bits of its id and 64 of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemMark {
    bucket: u32,
    id: [u8; 8],
    content: [u8; 8],
}

/// What becomes of an item that is to be enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not there: publish it, then confirm it.
    New,
    /// It was claimed, and nobody has confirmed it: the same.
    Unconfirmed,
    /// It is enqueued.
    Known,
    /// It was enqueued, and its queue was lost since: the same, but it is counted already.
    Lost,
    /// Its id stands for other content.
    Other,
}

impl ItemMark {
    /// Of an item's id and digest ([`crate::job::Item::digest`]).
    pub fn new(item_id: &str, digest: &str) -> Self {
        let (id, content) = (blake3::hash(item_id.as_bytes()), blake3::hash(digest.as_bytes()));
        let (id, content) = (id.as_bytes(), content.as_bytes());
        let cut = |from: &[u8]| <[u8; 8]>::try_from(from).unwrap_or_default();
        let bucket = u32::from_le_bytes([id[8], id[9], id[10], 0]) % BUCKETS;
        Self { bucket, id: cut(&id[..8]), content: cut(&content[..8]) }
    }
}

static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local now = string.char(49 + (redis.call('HGET', KEYS[1], 'generation') or 0) % 200)
         local fates = {}
         for i = 2, #KEYS do
           local id, content = ARGV[2 * i - 3], ARGV[2 * i - 2]
           local known = redis.call('HGET', KEYS[i], id)
           local fate = 2
           if not known then
             redis.call('HSET', KEYS[i], id, content .. '0')
             fate = 0
           elseif string.sub(known, 1, 8) ~= content then fate = 3
           elseif string.sub(known, 9, 9) == '0' then fate = 1
           elseif string.sub(known, 9, 9) ~= now then fate = 4 end
           fates[i - 1] = fate
         end
         return fates",
    )
});

static CONFIRM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "local now = string.char(49 + (redis.call('HGET', KEYS[1], 'generation') or 0) % 200)
         local fresh = 0
         for i = 2, #KEYS do
           local id, content = ARGV[2 * i - 3], ARGV[2 * i - 2]
           local known = redis.call('HGET', KEYS[i], id)
           if not known or string.sub(known, 1, 8) == content then
             if not known or string.sub(known, 9, 9) == '0' then fresh = fresh + 1 end
             redis.call('HSET', KEYS[i], id, content .. now)
           end
         end
         if fresh > 0 then
           {OPEN}
           redis.call('HINCRBY', KEYS[1], 'enqueued', fresh)
         end
         return fresh",
    ))
});

static RETRY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{OPEN}
         local fresh = 0
         for i = 1, #ARGV, 2 do
           local known = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
           if tonumber(ARGV[i + 1]) > known then
             redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
             fresh = fresh + 1
           end
         end
         if fresh > 0 then redis.call('HINCRBY', KEYS[1], 'retried', fresh) end
         return fresh",
    ))
});

impl Runs {
    /// Claims items before they are published: at most a thousand or so at once.
    pub async fn claim(&self, run: &str, items: &[ItemMark]) -> Result<Vec<Fate>, StateError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let mut step = CLAIM.on(&self.info_key(run));
        for item in items {
            step = step.key(&self.bucket_key(run, item.bucket));
        }
        for item in items {
            step = step.arg(&item.id[..]).arg(&item.content[..]);
        }
        let fates: Vec<u8> = self.redis.run(&step).await?;
        Ok(fates.into_iter().map(fate).collect())
    }

    /// Counts items whose jobs the broker has. Returns how many of them nobody had confirmed before.
    pub async fn confirm(&self, run: &str, items: &[ItemMark]) -> Result<u64, StateError> {
        if items.is_empty() {
            return Ok(0);
        }
        let mut step = CONFIRM.on(&self.info_key(run));
        for item in items {
            step = step.key(&self.bucket_key(run, item.bucket));
        }
        for item in items {
            step = step.arg(&item.id[..]).arg(&item.content[..]);
        }
        self.redis.run(&step).await
    }

    /// Notes that the run's queue is gone with what was in it: every item enqueued before has the fate [`Fate::Lost`] from
    /// now on, until it is enqueued again. To be called BEFORE the queue is made again, so that a crash between the two
    /// does not hide the loss; to call it twice only has jobs published twice, which is harmless.
    pub async fn queue_lost(&self, run: &str) -> Result<(), StateError> {
        let info = self.info_key(run);
        self.redis.command::<i64>(redis::cmd("HINCRBY").arg(info).arg("generation").arg(1)).await.map(|_| ())
    }

    /// Notes that items are asked for again under these revisions, before they are published: the run is not complete any
    /// more, so that its jobs are taken, also while no collector looks. Returns how many of them nobody had noted before.
    pub async fn retry(&self, run: &str, items: &[(&str, u32)]) -> Result<u64, StateError> {
        if items.is_empty() {
            return Ok(0);
        }
        let revisions = self.redis.key(&Self::tag(run), "revisions");
        let mut step = RETRY.on(&self.info_key(run)).key(&revisions);
        for (item, revision) in items {
            step = step.arg(*item).arg(*revision);
        }
        self.redis.run(&step).await
    }

    fn bucket_key(&self, run: &str, bucket: u32) -> String {
        self.redis.key(&Self::tag(run), &format!("i:{bucket:x}"))
    }
}

fn fate(code: u8) -> Fate {
    match code {
        0 => Fate::New,
        1 => Fate::Unconfirmed,
        2 => Fate::Known,
        4 => Fate::Lost,
        _ => Fate::Other,
    }
}
