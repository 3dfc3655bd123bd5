//! `aurelia pause`, `resume`, `cancel`: whether a run's jobs are taken.

use clap::Args;

use super::operator::{ask, reach, run, state_failure, with_fleet};
use super::{ConfigFiles, Failure, print};
use crate::fleet::Fleet;
use crate::queue::depth;
use crate::shared::runs::Phase;

/// Attempts to count what a purge took, which nobody can find out again.
const COUNTS: u32 = 3;

/// Take no more jobs of a run, until it is resumed
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
What runs goes on to its end; nothing is lost, and producers may go on.

Examples:
  aurelia pause spring
  aurelia resume spring")]
pub struct PauseArgs {
    /// The run
    name: String,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Take jobs of a paused run again
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A run that was cancelled can be resumed, too; what was purged does not come back by that.

Examples:
  aurelia resume spring")]
pub struct ResumeArgs {
    /// The run
    name: String,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Take no more jobs of a run, and throw away those that wait at the broker
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
What runs goes on to its end, and paid replies are kept. Jobs that wait for a quota come back to the run's queue when their
wait is over: run the command again to throw these away as well.

Examples:
  aurelia cancel spring
  aurelia status --run spring")]
pub struct CancelArgs {
    /// The run
    name: String,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs `pause`.
pub async fn pause(args: PauseArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        set(fleet, &args.name, Phase::Paused).await?;
        print(&format!("run {}: paused; jobs that run go on to their end\n", args.name));
        Ok(0)
    })
    .await
}

/// Runs `resume`.
pub async fn resume(args: ResumeArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let before = run(fleet, &args.name).await?;
        set(fleet, &args.name, Phase::Active).await?;
        let purged = match before.phase {
            Phase::Cancelled => format!("; the {} jobs that were purged do not come back", before.purged),
            Phase::Active | Phase::Paused => String::new(),
        };
        print(&format!("run {}: active{purged}\n", args.name));
        Ok(0)
    })
    .await
}

/// Runs `cancel`.
pub async fn cancel(args: CancelArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let name = args.name.as_str();
        run(fleet, name).await?;
        // First, so that no worker takes what is to be purged and no phase is set without a broker to purge.
        reach(fleet).await?;
        set(fleet, name, Phase::Cancelled).await?;
        let queue = fleet.topology.run(name).map_err(|error| Failure::setup(error.to_string()))?.name;
        let purged = ask(depth::purge(&fleet.incoming, &queue)).await?.unwrap_or(0);
        count(fleet, name, purged).await?;
        let under_way = fleet.jobs.under_way(name).await.map_err(|error| state_failure(&error))?;
        let parked: u64 = under_way.parked.values().sum();
        let running = under_way.running;
        let mut text = format!("run {name}: cancelled; {purged} jobs purged, {running} running end by themselves\n");
        if parked > 0 {
            text += &format!("{parked} jobs wait and come back to the queue: run this again later to purge them\n");
        }
        print(&text);
        Ok(0)
    })
    .await
}

async fn set(fleet: &Fleet, name: &str, phase: Phase) -> Result<(), Failure> {
    let known = fleet.runs.set_phase(name, phase).await.map_err(|error| state_failure(&error))?;
    if !known {
        run(fleet, name).await?;
    }
    Ok(())
}

async fn count(fleet: &Fleet, name: &str, purged: u64) -> Result<(), Failure> {
    if purged == 0 {
        return Ok(());
    }
    let mut attempt = 1;
    loop {
        match fleet.runs.purged(name, purged).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == COUNTS => {
                let failure = state_failure(&error);
                let message = format!(
                    "{purged} jobs of run {name} were purged, but that could not be counted, so the run will not be complete: {}",
                    failure.message
                );
                return Err(Failure { message, ..failure });
            }
            Err(_) => attempt += 1,
        }
    }
}
