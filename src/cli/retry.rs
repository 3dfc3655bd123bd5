//! `aurelia retry`: what a run's data set has of these ends is done again, as new revisions of the same items.
//!
//! Revisions are noted before anything is published: a run with more jobs than records is not complete, so workers take
//! its jobs again. Killed in between, the command is run again; job ids are then the same, and nothing is counted twice.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;

use super::operator::{ask, queue_failure, reach, run, state_failure, with_fleet};
use super::{ConfigFiles, Failure, print_whole};
use crate::collector;
use crate::fleet::Fleet;
use crate::job::Job;
use crate::message::JobMessage;
use crate::queue::{Message, declare, ready};
use crate::record::Status;
use crate::shared::runs::{Phase, RunInfo};

/// Jobs noted and published in one go.
const BATCH: usize = 300;
/// Until a queue that is not there is made, and one batch is with the broker.
const MADE: Duration = Duration::from_secs(30);

/// Do again what a run's data set has as failed, blocked or exhausted
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It reads the collector's data set, so collector.output must be set as it is for the collector. Each item goes on with a new
revision, which supersedes the old record once it is collected; until then the command may be run again without harm.

Examples:
  aurelia retry --run spring --status failed
  aurelia retry --run spring --status blocked,exhausted --json")]
pub struct RetryArgs {
    /// The run
    #[arg(long, value_name = "NAME")]
    run: String,
    /// How the items have ended that are done again
    #[arg(long, required = true, value_name = "STATUS", value_delimiter = ',', value_parser = super::run::status)]
    status: Vec<Status>,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs the command.
pub async fn main(args: RetryArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let info = run(fleet, &args.run).await?;
        if info.phase == Phase::Cancelled {
            return Err(Failure::setup(format!(
                "run {:?} is cancelled, and no job of it is taken; resume it first",
                info.name
            )));
        }
        let jobs = jobs(fleet, &info, &args.status).await?;
        let found = jobs.len();
        let new = if found == 0 { 0 } else { enqueue(fleet, &info, jobs).await? };
        let text = if args.json {
            format!("{}\n", serde_json::json!({ "run": info.name, "enqueued": found, "new": new }))
        } else {
            let before = found as u64 - new.min(found as u64);
            let known = if before == 0 { String::new() } else { format!(", {before} of them not for the first time") };
            format!("run {}: {found} jobs are done again{known}\n", super::visible(&info.name))
        };
        print_whole(&text)?;
        Ok(0)
    })
    .await
}

/// What is to be done again. The registry knows how much there should be at least where the collector is done.
async fn jobs(fleet: &Fleet, info: &RunInfo, statuses: &[Status]) -> Result<Vec<Job>, Failure> {
    let output = &fleet.config.collector.output;
    if output.is_empty() {
        return Err(Failure::setup(
            "collector.output is not set: where the run's data set is; set AURELIA__COLLECTOR__OUTPUT as for the collector",
        ));
    }
    let statuses: BTreeSet<Status> = statuses.iter().copied().collect();
    let jobs = collector::retry::jobs(&fleet.config, &info.name, &statuses).await.map_err(Failure::failed)?;
    let collected: u64 = statuses.iter().filter_map(|status| info.collected.by_status.get(status)).sum();
    if jobs.is_empty() && collected > 0 {
        return Err(Failure::setup(format!(
            "{collected} such records of run {:?} were collected, and the data set in {output} has none: is collector.output \
             that of the collector?",
            info.name
        )));
    }
    Ok(jobs)
}

/// Notes and publishes them; returns how many nobody had noted before.
async fn enqueue(fleet: &Fleet, info: &RunInfo, jobs: Vec<Job>) -> Result<u64, Failure> {
    reach(fleet).await?;
    make_queue(fleet, info).await?;
    let (mut new, total, mut done) = (0, jobs.len(), 0);
    for jobs in jobs.chunks(BATCH) {
        let messages = jobs.iter().map(|job| message(fleet, info, job)).collect::<Result<Vec<_>, _>>()?;
        let marks: Vec<(&str, u32)> = jobs.iter().map(|job| (job.item_id.as_str(), job.revision)).collect();
        new += fleet.runs.retry(&info.name, &marks).await.map_err(|error| state_failure(&error))?;
        // Done again before, it may have become a dead letter, which would not be started.
        let ids: Vec<String> = jobs.iter().map(Job::id).collect();
        fleet.runs.revived(&info.name, &ids).await.map_err(|error| state_failure(&error))?;
        match timeout(MADE, fleet.publisher.publish_all(&messages)).await {
            Ok(Ok(())) => done += jobs.len(),
            Ok(Err(error)) => {
                let failure = queue_failure(&error);
                let message = format!("{done} of {total} jobs are enqueued; {}", failure.message);
                return Err(Failure { message, ..failure });
            }
            Err(_) => {
                return Err(Failure::later(format!(
                    "{done} of {total} jobs are enqueued, and the broker has not confirmed more for {} s; run the command again",
                    MADE.as_secs()
                )));
            }
        }
    }
    Ok(new)
}

/// Makes the run's queue, if it is gone. Of a run that was not complete it had jobs in it, which its producer brings again
/// once that is noted.
async fn make_queue(fleet: &Fleet, info: &RunInfo) -> Result<(), Failure> {
    let queue = fleet.topology.run(&info.name).map_err(|error| queue_failure(&error))?.name;
    let there = ask(ready(&fleet.incoming, &queue)).await?.is_some();
    if !there && info.may_be_queued() {
        fleet.runs.queue_lost(&info.name).await.map_err(|error| state_failure(&error))?;
        super::say(&format!(
            "the queue of run {:?} is gone, with what was in it; run its producer again for what is not retried here\n",
            info.name
        ));
    }
    match timeout(MADE, declare(&fleet.outgoing, &fleet.topology, &[info.name.as_str()])).await {
        Ok(declared) => declared.map(drop).map_err(|error| queue_failure(&error)),
        Err(_) => Err(Failure::later(format!(
            "the run's queue cannot be made within {} s; run the command again",
            MADE.as_secs()
        ))),
    }
}

fn message(fleet: &Fleet, info: &RunInfo, job: &Job) -> Result<Message, Failure> {
    let (id, body) = (job.id(), JobMessage::new(info.recipe.clone(), job.clone()).encode());
    let body = body.map_err(|why| Failure::failed(format!("item {:?}: {why}", job.item_id)))?;
    Ok(fleet.topology.job(&info.name, id, body))
}
