//! One look at the runs, and what two of them tell together.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::Failure;
use crate::cli::operator::{ask, run, state_failure};
use crate::fleet::Fleet;
use crate::queue::depth;
use crate::record::Status;
use crate::shared::jobs::UnderWay;
use crate::shared::runs::{Phase, RunInfo};

/// Looks that a rate is taken over: of the last minute, about.
const LOOKS: usize = 60;

/// All that is known at a moment.
pub(super) struct Look {
    /// The runs, by name.
    pub(super) runs: Vec<RunLook>,
    /// Records that the collector has not taken.
    pub(super) records_ready: u64,
    /// Dead letters of all runs, as the broker has them.
    pub(super) dead_letters: u64,
}

/// One run.
pub(super) struct RunLook {
    pub(super) info: RunInfo,
    /// Jobs ready at the broker; none: the run has no queue.
    pub(super) ready: Option<u64>,
    pub(super) under_way: UnderWay,
    /// Records a second.
    pub(super) rate: Option<f64>,
    /// Records at earlier looks, the newest last.
    history: VecDeque<(Instant, u64)>,
}

/// Looks once; `last` is the look before, which makes a rate of now out of one since the beginning.
pub(super) async fn look(fleet: &Fleet, name: Option<&str>, last: Option<&Look>) -> Result<Look, Failure> {
    let infos = match name {
        Some(name) => vec![run(fleet, name).await?],
        None => fleet.runs.list().await.map_err(|error| state_failure(&error))?,
    };
    let mut runs = Vec::with_capacity(infos.len());
    for info in infos {
        let before = last.and_then(|last| last.runs.iter().find(|before| before.info.name == info.name));
        runs.push(look_at(fleet, info, before).await?);
    }
    let ready = async |queue: String| ask(depth::ready(&fleet.incoming, &queue)).await.map(|ready| ready.unwrap_or(0));
    Ok(Look {
        runs,
        records_ready: ready(fleet.topology.records().name).await?,
        dead_letters: ready(fleet.topology.dead().name).await?,
    })
}

async fn look_at(fleet: &Fleet, info: RunInfo, before: Option<&RunLook>) -> Result<RunLook, Failure> {
    let queue = fleet.topology.run(&info.name).map_err(|error| Failure::failed(error.to_string()))?.name;
    let ready = ask(depth::ready(&fleet.incoming, &queue)).await?;
    let under_way = fleet.jobs.under_way(&info.name).await.map_err(|error| state_failure(&error))?;
    let mut history = before.map(|before| before.history.clone()).unwrap_or_default();
    let now = (Instant::now(), info.collected.jobs);
    let rate = match history.front() {
        Some(first) => per_second(now.1.saturating_sub(first.1), (now.0 - first.0).as_secs_f64()),
        None => per_second(now.1, since(info.created_at)),
    };
    history.push_back(now);
    if history.len() > LOOKS {
        history.pop_front();
    }
    Ok(RunLook { info, ready, under_way, rate, history })
}

#[expect(clippy::cast_precision_loss, reason = "seconds and counts for people")]
fn since(created_at: i64) -> f64 {
    (jiff::Timestamp::now().as_second() - created_at) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| count as f64 / seconds)
}

impl Look {
    /// Whether every run that is shown has all its records.
    pub(super) fn is_complete(&self) -> bool {
        self.runs.iter().all(|run| run.info.collected.complete)
    }

    /// For scripts: names are kept.
    pub(super) fn json(&self) -> Value {
        let runs: Vec<Value> = self.runs.iter().map(RunLook::json).collect();
        json!({ "runs": runs, "records_ready": self.records_ready, "dead_letters": self.dead_letters })
    }
}

impl RunLook {
    /// Jobs of which a record is still to be expected.
    pub(super) fn remaining(&self) -> u64 {
        self.info.remaining(self.info.collected.jobs)
    }

    /// Seconds until all is done at this rate; none: it does not move, or is done.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a guess for people"
    )]
    pub(super) fn eta(&self) -> Option<u64> {
        let rate = self.rate.filter(|rate| *rate > 0.0)?;
        let moves = self.info.phase == Phase::Active && !self.info.collected.complete;
        moves.then(|| (self.remaining() as f64 / rate).ceil() as u64)
    }

    pub(super) fn of_status(&self, status: Status) -> u64 {
        self.info.collected.by_status.get(&status).copied().unwrap_or(0)
    }

    fn json(&self) -> Value {
        let info = &self.info;
        let statuses = [Status::Accepted, Status::Exhausted, Status::Blocked, Status::Failed, Status::Cancelled];
        let by_status: BTreeMap<&str, u64> =
            statuses.into_iter().map(|status| (status.name(), self.of_status(status))).collect();
        json!({
            "run": info.name,
            "recipe": info.recipe,
            "lane": info.lane,
            "phase": info.phase,
            "sealed": info.sealed,
            "complete": info.collected.complete,
            "created_at": info.created_at,
            "enqueued": info.enqueued,
            "retried": info.retried,
            "jobs": info.jobs(),
            "ready": self.ready,
            "running": self.under_way.running,
            "parked": self.under_way.parked,
            "recorded": info.collected.jobs,
            "by_status": by_status,
            "dead": info.dead,
            "purged": info.purged,
            "remaining": self.remaining(),
            "records_per_second": self.rate,
            "eta_seconds": self.eta(),
            "tries": info.collected.tries,
            "cost_nano_usd": info.collected.cost_nano_usd,
            "nano_usd_per_accepted": info.collected.per_accepted().map(|money| money.0),
            "ceiling_nano_usd": info.ceiling.map(|ceiling| ceiling.0),
        })
    }
}
