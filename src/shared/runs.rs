//! The runs of a fleet: which there are, what they are pinned to, which items they have, and how far they are.
//!
//! A run is pinned to one recipe, kept here by its digest, where workers find it. Items are kept as fingerprints, so that
//! enqueueing a corpus twice adds nothing and an id never stands for two contents: about 22 bytes an item, packed in
//! hashes small enough for the server's compact form. An item is claimed before it is published and confirmed after, so
//! that what a killed producer left between the two is published again, never lost.

mod dead;
mod items;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use dead::DeadJob;
pub use items::{Fate, ItemMark};

use super::jobs::keys;
use super::{Redis, Script};
use crate::price::Nano;
use crate::recipe::Recipe;
use crate::record::{ByTry, Status};
use crate::state::StateError;

/// The registry of runs. Clones share it.
#[derive(Debug, Clone)]
pub struct Runs {
    redis: Redis,
}

/// Which runs go first where several wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Six shares.
    High,
    /// Three shares.
    #[default]
    Normal,
    /// One share.
    Low,
}

/// Whether a run's jobs are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// They are.
    #[default]
    Active,
    /// Not now.
    Paused,
    /// Not any more.
    Cancelled,
}

/// What the collector has of a run: written whole from its manifest, so that it is right however often it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Distinct jobs with a record.
    pub jobs: u64,
    /// Items by the status of their latest record.
    pub by_status: BTreeMap<Status, u64>,
    /// Money in those records, in nano-dollars.
    pub cost_nano_usd: u64,
    /// The tries of all records by their place in the loop.
    #[serde(default)]
    pub tries: ByTry,
    /// Every job has a record, and no more will come.
    pub complete: bool,
}

impl Collected {
    /// Money per accepted item; none: none is accepted.
    pub fn per_accepted(&self) -> Option<Nano> {
        Nano(self.cost_nano_usd).over(self.by_status.get(&Status::Accepted).copied().unwrap_or(0))
    }
}

/// A run as registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInfo {
    /// Its name.
    pub name: String,
    /// The digest of its recipe.
    pub recipe: String,
    /// Its lane.
    pub lane: Lane,
    /// Whether its jobs are taken.
    pub phase: Phase,
    /// All its items are enqueued: no more come.
    pub sealed: bool,
    /// Distinct items enqueued.
    pub enqueued: u64,
    /// Jobs asked for again.
    pub retried: u64,
    /// Jobs purged by a cancel.
    pub purged: u64,
    /// Jobs that are dead letters.
    pub dead: u64,
    /// Most money for it.
    pub ceiling: Option<Nano>,
    /// When it was registered, in seconds since the epoch.
    pub created_at: i64,
    /// How often its queue was lost ([`Runs::queue_lost`]).
    pub generation: u64,
    /// What the collector has.
    pub collected: Collected,
}

impl RunInfo {
    /// Jobs of which a record, a purge or a dead letter is to be expected.
    pub fn jobs(&self) -> u64 {
        self.enqueued + self.retried
    }

    /// Those of which nothing is known yet, where so many have a record. A job that is a dead letter has none, and will have
    /// none unless an operator sends it back.
    pub fn remaining(&self, recorded: u64) -> u64 {
        self.jobs().saturating_sub(recorded + self.purged + self.dead)
    }

    /// Whether its queue, where it is gone, may have had jobs in it.
    pub fn may_be_queued(&self) -> bool {
        self.enqueued > 0 && !self.collected.complete
    }
}

/// What to register.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// Its name: 1 to 128 printable bytes without `/`.
    pub name: &'a str,
    /// Its recipe.
    pub recipe: &'a Recipe,
    /// Its lane.
    pub lane: Lane,
    /// Most money for it; none: as it was.
    pub ceiling: Option<Nano>,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It is new.
    New,
    /// It was there, with this recipe.
    Known,
    /// It was there with another recipe, whose digest this is. Nothing was changed.
    OtherRecipe(String),
}

static REGISTER: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local known = redis.call('HGET', KEYS[1], 'recipe')
         if known and known ~= ARGV[1] then return known end
         redis.call('HSET', KEYS[1], 'recipe', ARGV[1], 'lane', ARGV[2])
         if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'ceiling', ARGV[3]) end
         if known then return 'known' end
         redis.call('HSET', KEYS[1], 'phase', 'active', 'created', redis.call('TIME')[1])
         return 'new'",
    )
});

impl Runs {
    /// The registry kept in `redis`.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Registers a run, and its recipe where workers find it. Registering it again changes its lane and its ceiling only.
    pub async fn register(&self, run: &NewRun<'_>) -> Result<Registered, StateError> {
        let digest = run.recipe.digest();
        // What is found by the run must be there before the run is.
        let keep = redis::cmd("SET").arg(self.recipe_key(&digest)).arg(run.recipe.to_json()).to_owned();
        self.redis.command::<()>(&keep).await?;
        let (info, lane) = (self.info_key(run.name), word(run.lane));
        let ceiling = run.ceiling.map_or_else(String::new, |ceiling| ceiling.0.to_string());
        let answer: String = self.redis.run(&REGISTER.on(&info).arg(&digest).arg(lane).arg(ceiling)).await?;
        // Also for a run that was known: the set is what a crash may have left out.
        self.redis.command::<()>(redis::cmd("SADD").arg(self.set_key()).arg(run.name)).await?;
        Ok(match answer.as_str() {
            "new" => Registered::New,
            "known" => Registered::Known,
            other => Registered::OtherRecipe(other.to_owned()),
        })
    }

    /// The JSON of a recipe ([`Recipe::to_json`]); none: nobody has registered it since the state was last emptied.
    pub async fn recipe(&self, digest: &str) -> Result<Option<String>, StateError> {
        self.redis.command(redis::cmd("GET").arg(self.recipe_key(digest))).await
    }

    /// All runs, by name.
    pub async fn list(&self) -> Result<Vec<RunInfo>, StateError> {
        let mut names: Vec<String> = self.redis.command(redis::cmd("SMEMBERS").arg(self.set_key())).await?;
        names.sort();
        let mut runs = Vec::with_capacity(names.len());
        for name in names {
            runs.extend(self.get(&name).await?);
        }
        Ok(runs)
    }

    /// One run.
    pub async fn get(&self, name: &str) -> Result<Option<RunInfo>, StateError> {
        let mut both = redis::pipe();
        both.cmd("HGETALL").arg(self.info_key(name)).cmd("HLEN").arg(keys(&self.redis, name).dead);
        let (fields, dead): (BTreeMap<String, String>, u64) = self.redis.pipeline(&both).await?;
        Ok(info(name, &fields, dead))
    }

    /// Takes its jobs, or does not. Returns whether there is such a run.
    pub async fn set_phase(&self, name: &str, phase: Phase) -> Result<bool, StateError> {
        self.set(name, "phase", word(phase)).await
    }

    /// All items of a run are enqueued, or more will come.
    pub async fn seal(&self, name: &str, sealed: bool) -> Result<bool, StateError> {
        self.set(name, "sealed", if sealed { "1" } else { "0" }.to_owned()).await
    }

    /// Most money for a run; workers heed it within a second.
    pub async fn set_ceiling(&self, name: &str, ceiling: Option<Nano>) -> Result<bool, StateError> {
        self.set(name, "ceiling", ceiling.map_or_else(String::new, |ceiling| ceiling.0.to_string())).await
    }

    /// What the collector has of a run.
    pub async fn set_collected(&self, name: &str, collected: &Collected) -> Result<bool, StateError> {
        self.set(name, "collected", serde_json::to_string(collected).unwrap_or_default()).await
    }

    /// So many jobs of a run were purged.
    pub async fn purged(&self, name: &str, by: u64) -> Result<(), StateError> {
        let info = self.info_key(name);
        self.redis.command::<i64>(redis::cmd("HINCRBY").arg(info).arg("purged").arg(by)).await.map(|_| ())
    }

    async fn set(&self, name: &str, field: &str, value: String) -> Result<bool, StateError> {
        static SET: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
                 redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
                 return 1",
            )
        });
        let info = self.info_key(name);
        self.redis.run::<u64>(&SET.on(&info).arg(field).arg(value)).await.map(|set| set == 1)
    }

    fn tag(name: &str) -> String {
        format!("run:{name}")
    }

    fn info_key(&self, name: &str) -> String {
        self.redis.key(&Self::tag(name), "info")
    }

    fn set_key(&self) -> String {
        format!("{}:runs", self.redis.prefix())
    }

    fn recipe_key(&self, digest: &str) -> String {
        format!("{}:recipe:{digest}", self.redis.prefix())
    }
}

/// The part of a script on a run's `info` that opens the run again: the collector had all of it, and workers left it alone.
const OPEN: &str = "local collected = redis.call('HGET', KEYS[1], 'collected')
         if collected then
           local open = string.gsub(collected, '\"complete\":true', '\"complete\":false')
           redis.call('HSET', KEYS[1], 'collected', open)
         end";

/// A word of ours as it is written in JSON, without the quotes.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn read<T: serde::de::DeserializeOwned + Default>(text: Option<&String>) -> T {
    text.and_then(|text| serde_json::from_value(text.as_str().into()).ok()).unwrap_or_default()
}

fn info(name: &str, fields: &BTreeMap<String, String>, dead: u64) -> Option<RunInfo> {
    let number = |field: &str| fields.get(field).and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(RunInfo {
        name: name.to_owned(),
        recipe: fields.get("recipe")?.clone(),
        lane: read(fields.get("lane")),
        phase: read(fields.get("phase")),
        sealed: fields.get("sealed").is_some_and(|sealed| sealed == "1"),
        enqueued: number("enqueued"),
        retried: number("retried"),
        purged: number("purged"),
        dead,
        ceiling: fields.get("ceiling").and_then(|text| text.parse().ok()).map(Nano),
        created_at: fields.get("created").and_then(|text| text.parse().ok()).unwrap_or(0),
        generation: number("generation"),
        collected: fields.get("collected").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
    })
}
