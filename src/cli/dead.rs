//! `aurelia dead`: what nobody could work on, and what to do about it.
//!
//! A dead letter is a message that could not be read, a job that took its worker with it or came back again and again, or one that
//! no message can hold. All say something about a program, not about an item, so they are looked at by people and sent back when
//! the program is mended.

mod letters;

use clap::{Args, Subcommand};

use self::letters::{Selection, each, shown, told};
use super::operator::{PATIENCE, ask, queue_failure, reach, run, state_failure, with_fleet};
use super::{ConfigFiles, Failure, print, print_whole, visible};
use crate::fleet::Fleet;
use crate::queue::{DeadLetter, DeadLetters, Settled};

/// Look at dead letters, send them back to their runs, or drop them
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia dead list --run spring
  aurelia dead show JOB_ID                          with its last error and what was published
  aurelia dead requeue --run spring                 when the worker is mended
  aurelia dead drop JOB_ID")]
pub struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum DeadCommand {
    /// Show one a line
    List(ListArgs),
    /// Show one whole, with its last error and what was published
    Show(ShowArgs),
    /// Send them back to their runs, as if they had never been started
    Requeue(ChoiceArgs),
    /// Throw them away: their items will have no record
    Drop(ChoiceArgs),
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// Only those of this run
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Only those that are dead for this, for example poison
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// As one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// Its id, as in `aurelia dead list`
    id: String,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

#[derive(Debug, Clone, Args)]
#[group(id = "choice", required = true, multiple = true, args = ["ids", "run", "reason", "all"])]
struct ChoiceArgs {
    /// Their ids, as in `aurelia dead list`
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Those of this run
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// Those that are dead for this; with --run, both must hold
    #[arg(long, value_name = "WORD")]
    reason: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["ids", "run", "reason"])]
    all: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs the command.
pub async fn main(args: DeadArgs) -> Result<u8, Failure> {
    match args.command {
        DeadCommand::List(args) => list(args).await,
        DeadCommand::Show(args) => show(args).await,
        DeadCommand::Requeue(args) => end(args, What::Requeue).await,
        DeadCommand::Drop(args) => end(args, What::Drop).await,
    }
}

async fn list(args: ListArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let wanted = select(fleet, Vec::new(), args.run, args.reason).await?;
        let mut count = 0_u64;
        each(fleet, &wanted, async |_, held| {
            count += 1;
            let letter = &held.letter;
            let line = if args.json { format!("{}\n", letters::json(letter)) } else { visible(&letters::line(letter)) };
            print_whole(&line)
        })
        .await?;
        if count == 0 && !args.json {
            print("no dead letters\n");
        }
        Ok(0)
    })
    .await
}

async fn show(args: ShowArgs) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let wanted = select(fleet, vec![args.id.clone()], None, None).await?;
        let mut found: Vec<DeadLetter> = Vec::new();
        each(fleet, &wanted, async |_, held| {
            found.push(held.letter);
            Ok(())
        })
        .await?;
        // One id may have died twice; the last one is what there is to know.
        let Some(letter) = found.pop() else {
            return Err(Failure::failed(format!("no dead letter has the id {:?}; see aurelia dead list", args.id)));
        };
        let text = if args.json { format!("{}\n", letters::json_whole(&letter)) } else { visible(&shown(&letter)) };
        print_whole(&text)?;
        Ok(0)
    })
    .await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Requeue,
    Drop,
}

async fn end(args: ChoiceArgs, what: What) -> Result<u8, Failure> {
    with_fleet(&args.config, async |fleet| {
        let ids = args.ids.clone();
        let wanted = select(fleet, args.ids, args.run, args.reason).await?;
        let mut done: Vec<String> = Vec::new();
        let ended = each(fleet, &wanted, async |look, held| {
            let id = held.letter.id.clone();
            match what {
                What::Requeue => requeue(fleet, look, held).await?,
                What::Drop => discard(fleet, look, held).await?,
            }
            done.push(id);
            Ok(())
        })
        .await;
        // Also of what was done before something went wrong.
        let word = if what == What::Requeue { "requeued" } else { "dropped" };
        print_whole(&told(word, done.len(), args.json))?;
        ended?;
        let missed: Vec<&String> = ids.iter().filter(|id| !done.contains(id)).collect();
        if let Some(first) = missed.first() {
            return Err(Failure::failed(format!("no dead letter has the id {first:?}; see aurelia dead list")));
        }
        Ok(0)
    })
    .await
}

async fn requeue(fleet: &Fleet, look: &DeadLetters, held: crate::queue::Held) -> Result<(), Failure> {
    let letter = &held.letter;
    let (run, ours, job) = (letter.run.clone(), letter.ours, letter.job());
    let Some(job) = job else { return settled(ask(look.requeue(held, &fleet.publisher)).await?) };
    // Before it can be started again, which is refused to a dead letter.
    let revived = fleet.runs.revived(&run, &[job.id()]).await.map_err(|error| state_failure(&error))?;
    if !ours {
        // The broker gave it up: its starts count no more. Later, it could be one that is under way.
        fleet.jobs.end(&run, &job.id()).await.map_err(|error| state_failure(&error))?;
    }
    let sent = ask(look.requeue(held, &fleet.publisher)).await;
    if sent.is_err() && revived > 0 {
        // It is dead as before.
        fleet.runs.died(&job).await.map_err(|error| state_failure(&error))?;
    }
    settled(sent?)
}

/// Drops a letter. Its job counts as dead from now on if it did not before: the broker gave it up, or it was to be sent back.
async fn discard(fleet: &Fleet, look: &DeadLetters, held: crate::queue::Held) -> Result<(), Failure> {
    if let Some(job) = held.letter.job() {
        fleet.runs.died(&job).await.map_err(|error| state_failure(&error))?;
    }
    settled(look.drop_letter(held).await)
}

fn settled(settled: Settled) -> Result<(), Failure> {
    match settled {
        Settled::Told => Ok(()),
        Settled::Lost => Err(Failure::later(format!(
            "the broker was lost within {} s; what was not told to it is dead as before: run the command again",
            PATIENCE.as_secs()
        ))),
    }
}

async fn select(
    fleet: &Fleet,
    ids: Vec<String>,
    name: Option<String>,
    reason: Option<String>,
) -> Result<Selection, Failure> {
    if let Some(name) = &name {
        run(fleet, name).await?;
    }
    reach(fleet).await?;
    Ok(Selection { ids, run: name, reason })
}

async fn open(fleet: &Fleet) -> Result<DeadLetters, Failure> {
    ask(DeadLetters::open(&fleet.incoming, &fleet.topology)).await
}

/// The next one; nothing was ever declared: there is none.
async fn next(look: &DeadLetters) -> Result<Option<crate::queue::Held>, Failure> {
    match tokio::time::timeout(PATIENCE, look.next()).await {
        Ok(Ok(held)) => Ok(held),
        Ok(Err(error)) if DeadLetters::is_undeclared(&error) => Ok(None),
        Ok(Err(error)) => Err(queue_failure(&error)),
        Err(_) => Err(Failure::later("the broker does not answer; run the command again")),
    }
}
