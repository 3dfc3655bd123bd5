//! What the collector asks of Redis: journal and registry. None of it is waited for: records are written without it, and what
//! could not be asked or told is asked or told later.

use std::time::Duration;

use super::replies;
use super::trouble::Trouble;
use crate::shared::Redis;
use crate::shared::jobs::Jobs;
use crate::shared::runs::{Collected, DeadJob, RunInfo, Runs};
use crate::state::StateError;

/// The shared state, there or not.
#[derive(Debug)]
pub(super) struct Fleet {
    redis: Redis,
    runs: Runs,
    keep: Duration,
    trouble: Trouble,
}

impl Fleet {
    pub(super) fn new(redis: Redis, keep: Duration) -> Self {
        let what = "Redis does not answer; shards are written without their replies, which are packed later";
        Self { runs: Runs::new(redis.clone()), redis, keep, trouble: Trouble::new(what) }
    }

    /// What is registered of a run; none: nothing, or nobody answers.
    pub(super) async fn info(&mut self, run: &str) -> Option<RunInfo> {
        self.trouble.may_try().then_some(())?;
        let answer = self.runs.get(run).await;
        self.noted(answer).flatten()
    }

    /// All runs.
    pub(super) async fn list(&mut self) -> Option<Vec<RunInfo>> {
        self.trouble.may_try().then_some(())?;
        let answer = self.runs.list().await;
        self.noted(answer)
    }

    /// Tells the registry what is collected of a run.
    pub(super) async fn tell(&mut self, info: &RunInfo, collected: &Collected) {
        let answer = self.runs.set_collected(&info.name, collected).await;
        self.noted(answer);
        if collected.complete {
            // Every job has its end: what still counts as started is what could not be told at the time.
            let answer = Jobs::new(self.redis.clone()).clear(&info.name).await;
            self.noted(answer);
        }
    }

    /// The jobs of a run that are dead letters; none: nobody answers.
    pub(super) async fn dead(&mut self, run: &str) -> Option<Vec<DeadJob>> {
        let answer = self.runs.dead(run).await;
        self.noted(answer)
    }

    /// These jobs of a run count as dead no more; false: nobody answers.
    pub(super) async fn bury(&mut self, run: &str, jobs: &[&str]) -> bool {
        let answer = self.runs.buried(run, jobs).await;
        self.noted(answer).is_some()
    }

    /// The replies of these keys that the journal has.
    pub(super) async fn replies(&mut self, keys: &[String]) -> Option<Vec<(String, Vec<u8>)>> {
        if keys.is_empty() {
            return Some(Vec::new());
        }
        self.trouble.may_try().then_some(())?;
        let answer = replies::fetch(&self.redis, keys).await;
        self.noted(answer)
    }

    /// Has the journal keep these only so much longer; false: nobody answers.
    pub(super) async fn expire(&mut self, keys: &[String]) -> bool {
        let answer = replies::expire(&self.redis, keys, self.keep).await;
        self.noted(answer).is_some()
    }

    fn noted<T>(&mut self, answer: Result<T, StateError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.trouble.over();
                Some(answer)
            }
            Err(error) => {
                self.trouble.failed(&error.to_string());
                None
            }
        }
    }
}
