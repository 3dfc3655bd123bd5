//! Which jobs of a run are started, how often, and which wait for what.
//!
//! A job's count is raised before it runs and dropped when it ends or waits. So a job that was started and neither ended nor
//! waits has taken its worker with it, or its worker was taken from it: it is a [suspect](Started::is_suspect), and after
//! [`MOST_STARTS`] a dead letter. The broker's own count of returns blames every message of a lost connection, this one only
//! what ran. A dead letter is not started at all until it is [sent back](super::runs::Runs::revived).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Redis, Script};
use crate::state::StateError;

/// A job that was started so often without an end is a dead letter.
pub const MOST_STARTS: u64 = 5;

/// Counts of a run.
#[derive(Debug, Clone)]
pub struct Jobs {
    redis: Redis,
}

/// How often a job was started, this time included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started(pub u64);

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It starts.
    Yes(Started),
    /// It was started before without an end, and was not to be started then.
    Suspect,
    /// It is a dead letter, and does not start.
    Dead,
}

impl Started {
    /// Whether it was started before and no end was seen.
    pub fn is_suspect(self) -> bool {
        self.0 >= 2
    }

    /// Whether it has taken enough workers with it.
    pub fn is_poison(self) -> bool {
        self.0 > MOST_STARTS
    }
}

/// What is under way in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Jobs started and not ended.
    pub running: u64,
    /// Jobs that wait, by reason.
    pub parked: BTreeMap<String, u64>,
}

static START: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then
           redis.call('HDEL', KEYS[2], ARGV[1])
           return -1
         end
         if ARGV[2] == 'first' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
         redis.call('HDEL', KEYS[2], ARGV[1])
         return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)",
    )
});
static PARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new("redis.call('HDEL', KEYS[1], ARGV[1]); return redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])")
});
static END: LazyLock<Script> =
    LazyLock::new(|| Script::new("redis.call('HDEL', KEYS[1], ARGV[1]); return redis.call('HDEL', KEYS[2], ARGV[1])"));

impl Jobs {
    /// The counts kept in `redis`.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// How often a job was started before.
    pub async fn started(&self, run: &str, job_id: &str) -> Result<Started, StateError> {
        let count: Option<u64> =
            self.redis.command(redis::cmd("HGET").arg(keys(&self.redis, run).started).arg(job_id)).await?;
        Ok(Started(count.unwrap_or(0)))
    }

    /// A job starts, if it is no suspect.
    pub async fn start_first(&self, run: &str, job_id: &str) -> Result<Start, StateError> {
        self.count(run, job_id, "first").await
    }

    /// A job starts, also as a suspect.
    pub async fn start(&self, run: &str, job_id: &str) -> Result<Start, StateError> {
        self.count(run, job_id, "again").await
    }

    async fn count(&self, run: &str, job_id: &str, which: &str) -> Result<Start, StateError> {
        let Keys { started, parked, dead } = keys(&self.redis, run);
        let step = START.on(&started).key(&parked).key(&dead).arg(job_id).arg(which);
        let times: i64 = self.redis.run(&step).await?;
        Ok(match u64::try_from(times) {
            Ok(0) => Start::Suspect,
            Ok(times) => Start::Yes(Started(times)),
            Err(_) => Start::Dead,
        })
    }

    /// A job waits, for this, before it was started: what it was started before counts on.
    pub async fn wait(&self, run: &str, job_id: &str, reason: &str) -> Result<(), StateError> {
        let parked = keys(&self.redis, run).parked;
        self.redis.command::<u64>(redis::cmd("HSET").arg(parked).arg(job_id).arg(reason)).await.map(|_| ())
    }

    /// A job that was started waits, for this; its start counts no more.
    pub async fn park(&self, run: &str, job_id: &str, reason: &str) -> Result<(), StateError> {
        let Keys { started, parked, .. } = keys(&self.redis, run);
        self.redis.run::<u64>(&PARK.on(&started).key(&parked).arg(job_id).arg(reason)).await.map(|_| ())
    }

    /// A job has ended, or goes back to its queue unharmed.
    pub async fn end(&self, run: &str, job_id: &str) -> Result<(), StateError> {
        let Keys { started, parked, .. } = keys(&self.redis, run);
        self.redis.run::<u64>(&END.on(&started).key(&parked).arg(job_id)).await.map(|_| ())
    }

    /// Nothing of this run counts any more.
    pub async fn clear(&self, run: &str) -> Result<(), StateError> {
        let Keys { started, parked, .. } = keys(&self.redis, run);
        self.redis.command::<u64>(redis::cmd("DEL").arg(started).arg(parked)).await.map(|_| ())
    }

    /// What is under way.
    pub async fn under_way(&self, run: &str) -> Result<UnderWay, StateError> {
        let Keys { started, parked, .. } = keys(&self.redis, run);
        let mut both = redis::pipe();
        both.cmd("HLEN").arg(&started).cmd("HVALS").arg(&parked);
        let (running, reasons): (u64, Vec<String>) = self.redis.pipeline(&both).await?;
        let mut parked = BTreeMap::new();
        for reason in reasons {
            *parked.entry(reason).or_default() += 1;
        }
        Ok(UnderWay { running, parked })
    }
}

/// Where the jobs of a run are, by id.
pub(super) struct Keys {
    pub(super) started: String,
    pub(super) parked: String,
    pub(super) dead: String,
}

pub(super) fn keys(redis: &Redis, run: &str) -> Keys {
    let [started, parked, dead] = ["started", "parked", "dead"].map(|name| redis.key(&format!("run:{run}"), name));
    Keys { started, parked, dead }
}
