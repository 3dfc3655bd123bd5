//! Which jobs of a run are dead letters: a hash by job, so that each counts once, whatever dies between its letter and its
//! acknowledgement. With what they are of, so that the collector knows which of them have a record after all.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{OPEN, Runs};
use crate::job::Job;
use crate::shared::Script;
use crate::shared::jobs::{Keys, keys};
use crate::shared::script::Step;
use crate::state::StateError;

/// A job that is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadJob {
    /// [`Job::id`].
    pub id: String,
    /// Its item.
    pub item_id: String,
    /// The item's revision.
    pub revision: u32,
}

impl Runs {
    /// A job is a dead letter, and neither started nor waiting any more. One that is told twice counts once.
    pub async fn died(&self, job: &Job) -> Result<(), StateError> {
        static DIE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "redis.call('HDEL', KEYS[1], ARGV[1])
                 redis.call('HDEL', KEYS[2], ARGV[1])
                 return redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])",
            )
        });
        let what = format!("{} {}", job.revision, job.item_id);
        let Keys { started, parked, dead } = keys(&self.redis, &job.run);
        let step = DIE.on(&started).key(&parked).key(&dead).arg(job.id()).arg(what);
        self.redis.run::<u64>(&step).await.map(|_| ())
    }

    /// The jobs of a run that are dead letters.
    pub async fn dead(&self, name: &str) -> Result<Vec<DeadJob>, StateError> {
        let dead: BTreeMap<String, String> =
            self.redis.command(redis::cmd("HGETALL").arg(keys(&self.redis, name).dead)).await?;
        let job = |(id, what): (String, String)| {
            let (revision, item_id) = what.split_once(' ')?;
            Some(DeadJob { id, item_id: item_id.to_owned(), revision: revision.parse().ok()? })
        };
        Ok(dead.into_iter().filter_map(job).collect())
    }

    /// These jobs count as dead no more, since they have records.
    pub async fn buried(&self, name: &str, job_ids: &[&str]) -> Result<(), StateError> {
        let dead = keys(&self.redis, name).dead;
        for some in job_ids.chunks(1000) {
            self.redis.command::<u64>(redis::cmd("HDEL").arg(&dead).arg(some)).await?;
        }
        Ok(())
    }

    /// These jobs are sent again: they count as dead no more, and their run is worked on again. How many of them were dead.
    pub async fn revived(&self, name: &str, job_ids: &[String]) -> Result<u64, StateError> {
        static REVIVE: LazyLock<Script> =
            LazyLock::new(|| Script::new(&format!("{OPEN} return redis.call('HDEL', KEYS[2], unpack(ARGV))")));
        let (info, dead) = (self.info_key(name), keys(&self.redis, name).dead);
        let mut revived = 0;
        for some in job_ids.chunks(1000) {
            let step = some.iter().fold(REVIVE.on(&info).key(&dead), Step::arg);
            revived += self.redis.run::<u64>(&step).await?;
        }
        Ok(revived)
    }
}
