//! `aurelia budget show|set`: what a fleet has spent, and what it may spend.
//!
//! Three ceilings: of a run, of a day, of all. Those of a day and of all come from each worker's configuration unless they are
//! set here, for the whole fleet and at once.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::operator::{run, state_failure, with_fleet};
use super::table::aligned;
use super::{ConfigFiles, Failure, print};
use crate::fleet::Fleet;
use crate::price::Nano;
use crate::quota::gate::shared::step::{Books, Money, Of};
use crate::state::StateError;

/// Show what a fleet has spent, and set what it may spend
#[derive(Debug, Clone, Args)]
pub struct BudgetArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    Show(ShowArgs),
    Set(SetArgs),
}

/// Show what all runs, this day and each run have cost, and their ceilings
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Under way: calls that have no end yet, at the most they can cost. Unconfirmed: calls whose end was not seen, at their worst
case; they are part of what is spent. A day goes from midnight to midnight UTC.

Examples:
  aurelia budget show
  aurelia budget show --json | jq '.runs[] | {run, spent_nano_usd}'")]
struct ShowArgs {
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Set how much may be spent: by a run, on a day, in all
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It holds for the whole fleet and at once: no call starts that could pass it. \"none\" takes a ceiling away; that of a day and
of all is what each worker's configuration says then. Jobs that wait for money come back within ten minutes.

Examples:
  aurelia budget set --run spring 250
  aurelia budget set --per-day 40
  aurelia budget set --total 1200.50
  aurelia budget set --per-day none")]
struct SetArgs {
    /// Of this run
    #[arg(long, value_name = "NAME", required_unless_present_any = ["per_day", "total"], conflicts_with_all = ["per_day", "total"])]
    run: Option<String>,
    /// Of each day
    #[arg(long, conflicts_with = "total")]
    per_day: bool,
    /// Of all runs together
    #[arg(long)]
    total: bool,
    /// Dollars, for example 12.50, or "none"
    #[arg(value_name = "USD", value_parser = ceiling)]
    amount: Amount,
    #[command(flatten)]
    config: ConfigFiles,
}

#[derive(Debug, Clone, Copy)]
struct Amount(Option<Nano>);

fn ceiling(text: &str) -> Result<Amount, String> {
    if text == "none" { Ok(Amount(None)) } else { Nano::ceiling(text).map(|amount| Amount(Some(amount))) }
}

/// Runs the command.
pub async fn main(args: BudgetArgs) -> Result<u8, Failure> {
    match args.command {
        Command::Show(args) => with_fleet(&args.config, async |fleet| show(fleet, args.json).await).await,
        Command::Set(args) => with_fleet(&args.config, async |fleet| set(fleet, &args).await).await,
    }
}

/// One line of what is shown.
struct Line {
    name: String,
    money: Money,
    ceiling: Option<Nano>,
}

impl Line {
    fn json(&self) -> Value {
        json!({
            "calls": self.money.calls, "spent_nano_usd": self.money.spent, "under_way_nano_usd": self.money.reserved,
            "unconfirmed_nano_usd": self.money.unconfirmed, "ceiling_nano_usd": self.ceiling,
        })
    }

    fn cells(&self) -> [String; 6] {
        let ceiling = self.ceiling.map_or_else(|| "none".to_owned(), |ceiling| ceiling.to_string());
        let Money { calls, spent, reserved, unconfirmed } = self.money;
        let name = super::visible(&self.name);
        [name, calls.to_string(), spent.to_string(), reserved.to_string(), unconfirmed.to_string(), ceiling]
    }
}

async fn show(fleet: &Fleet, as_json: bool) -> Result<u8, Failure> {
    let books = Books::new(fleet.redis.clone());
    let failed = |error: StateError| state_failure(&error);
    let (per_day, total) = books.set_ceilings().await.map_err(failed)?;
    let budget = &fleet.config.budget;
    let line = async |name: &str, of: Of<'_>, ceiling: Option<Nano>| {
        books.money(of).await.map(|money| Line { name: name.to_owned(), money, ceiling }).map_err(failed)
    };
    let all = line("all", Of::All, total.or(budget.total)).await?;
    let today = line("today", Of::Day, per_day.or(budget.per_day)).await?;
    let mut runs = Vec::new();
    for run in fleet.runs.list().await.map_err(failed)? {
        runs.push(line(&run.name, Of::Run(&run.name), run.ceiling).await?);
    }
    if as_json {
        let of_run = |line: &Line| {
            let mut run = line.json();
            run["run"] = line.name.as_str().into();
            run
        };
        let runs: Vec<Value> = runs.iter().map(of_run).collect();
        print(&format!("{}\n", json!({"all": all.json(), "today": today.json(), "runs": runs})));
        return Ok(0);
    }
    let head = ["", "calls", "spent", "under way", "unconfirmed", "ceiling"].map(str::to_owned);
    let rows: Vec<[String; 6]> =
        std::iter::once(head).chain([&all, &today].into_iter().chain(&runs).map(Line::cells)).collect();
    print(&aligned(&rows, 1));
    Ok(0)
}

async fn set(fleet: &Fleet, args: &SetArgs) -> Result<u8, Failure> {
    let (books, Amount(ceiling)) = (Books::new(fleet.redis.clone()), args.amount);
    let (whose, set) = match &args.run {
        Some(name) => {
            run(fleet, name).await?;
            // Where jobs find it that are taken from now on, and where those find it that run.
            let set = async {
                fleet.runs.set_ceiling(name, ceiling).await?;
                books.set_run(name, ceiling).await
            };
            (format!("run {name}"), set.await)
        }
        None if args.per_day => ("each day".to_owned(), books.set_per_day(ceiling).await),
        None => ("all runs together".to_owned(), books.set_total(ceiling).await),
    };
    set.map_err(|error| state_failure(&error))?;
    let ceiling = ceiling.map_or_else(|| "no ceiling set".to_owned(), |ceiling| format!("at most {ceiling}"));
    print(&format!("{whose}: {ceiling}\n"));
    Ok(0)
}
