//! `aurelia status`: how far the runs of a fleet are.
//!
//! Three places know of it: the registry what was enqueued and collected, the broker what is ready, the counts of started jobs
//! what runs and waits. They are asked one after the other, so the figures of a moment need not add up.

mod look;
mod table;

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use self::look::{Look, look};
use super::operator::{reach, with_fleet};
use super::{ConfigFiles, Failure, print_whole, say, visible};
use crate::fleet::Fleet;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two tables.
const SHOW: Duration = Duration::from_secs(2);

/// Show how far the runs are: jobs ready, running, waiting and done, money, and when they will be complete
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia status                          all runs
  aurelia status --run spring --watch     one run, shown again every two seconds
  aurelia status --run spring --wait      returns 0 when it is complete, 75 when stopped before
  aurelia status --json | jq '.runs[] | {run, ready, eta_seconds}'")]
pub struct StatusArgs {
    /// Only this run
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Show it again and again
    #[arg(long)]
    watch: bool,
    /// Return when it is complete: the run, or all of them
    #[arg(long)]
    wait: bool,
    /// As one JSON object; with --watch one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs the command.
pub async fn main(args: StatusArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        tokio::select! {
            biased;
            listened = fleet.shutdown.listen() => listened.map(|()| 75).map_err(|e| Failure::failed(format!("signals: {e}"))),
            () = fleet.shutdown.signalled.cancelled() => Ok(if args.wait { 75 } else { 0 }),
            shown = show(fleet, &args) => shown,
        }
    })
    .await
}

async fn show(fleet: &Fleet, args: &StatusArgs) -> Result<u8, Failure> {
    reach(fleet).await?;
    let mut last = look(fleet, args.run.as_deref(), None).await?;
    let mut shown: Option<Instant> = None;
    loop {
        let done = args.wait && last.is_complete();
        if !args.wait || args.watch || done {
            let due = shown.is_none_or(|shown| shown.elapsed() >= SHOW);
            if due || done {
                tell(&last, args)?;
                shown = Some(Instant::now());
            }
        }
        if done || !(args.watch || args.wait) {
            return Ok(0);
        }
        last = next(fleet, args, last).await?;
    }
}

/// The next look that succeeds: what fails on the way is said, and waited out.
async fn next(fleet: &Fleet, args: &StatusArgs, last: Look) -> Result<Look, Failure> {
    let mut told = false;
    loop {
        sleep(AGAIN).await;
        match look(fleet, args.run.as_deref(), Some(&last)).await {
            Ok(next) => return Ok(next),
            Err(failure) if failure.code != 75 => return Err(failure),
            Err(failure) if !told => {
                say(&format!("aurelia: {}; looking again\n", failure.message));
                told = true;
            }
            Err(_) => {}
        }
    }
}

fn tell(look: &Look, args: &StatusArgs) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if args.json {
        return print_whole(&format!("{}\n", look.json()));
    }
    let clear = if args.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
    let gap = if args.watch && clear.is_empty() { "\n" } else { "" };
    print_whole(&format!("{clear}{}{gap}", visible(&table::table(look))))
}
