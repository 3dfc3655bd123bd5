//! `aurelia odds`: how often jobs of a data set were accepted after so many tries with such a best score, and which rules of a
//! recipe (`give_up`) follow from it.

mod states;

use clap::Args;
use serde_json::{Value, json};

use self::states::States;
use super::set::SetArgs;
use super::table::aligned;
use super::{ConfigFiles, Failure, configure, print_whole};
use crate::recipe::GiveUp;

/// Measure how often jobs were accepted later, by tries and best score: what to write as give_up into a recipe
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Each line: of the jobs with so many tries behind them, this best score and no accept, how many were
accepted later, and what their later tries cost. The last line goes into the next run's recipe as it
is. Records of jobs that were asked for again, failed or were given up are left out.

Examples:
  aurelia odds data
  aurelia odds --run spring --stop-below 0.02 --least 200
  aurelia odds data --json | jq .give_up

Exit codes: 0 done, 1 the records cannot be read, 2 usage, 64 configuration.")]
pub struct OddsArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Give jobs up whose chance of a later accept is below this
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    stop_below: f64,
    /// Judge no chance by fewer jobs
    #[arg(long, value_name = "JOBS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    least: u64,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err("say a share above 0 and below 1, for example 0.05".to_owned())
    }
}

/// Runs the command.
pub async fn main(args: OddsArgs) -> Result<u8, Failure> {
    let config = configure(&args.config)?.config;
    let mut states = States::default();
    args.set
        .each(&config, |record| {
            states.add(record);
            Ok(())
        })
        .await?;
    let rules = states.rules(args.stop_below, args.least);
    let text = if args.json { format!("{}\n", as_json(&states, &rules)) } else { as_text(&states, &rules, &args) };
    print_whole(&text)?;
    Ok(0)
}

fn as_json(states: &States, rules: &[GiveUp]) -> Value {
    let state = |((tries, best), odds): (&(u32, u8), &states::Odds)| {
        json!({
            "after_try": tries, "best_score": best, "jobs": odds.jobs, "accepted_later": odds.accepted,
            "share": odds.share(), "later_nano_usd": odds.later.0,
        })
    };
    let odds: Vec<Value> = states.odds.iter().map(state).collect();
    json!({ "records": states.records, "left_out": states.left_out, "states": odds, "give_up": rules })
}

fn as_text(states: &States, rules: &[GiveUp], args: &OddsArgs) -> String {
    let head = ["after try", "best score", "jobs", "accepted later", "share", "later tries cost"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(states.odds.iter().map(|((tries, best), odds)| {
        let share = format!("{:.1} %", odds.share() * 100.0);
        [
            tries.to_string(),
            best.to_string(),
            odds.jobs.to_string(),
            odds.accepted.to_string(),
            share,
            odds.later.to_string(),
        ]
    }));
    let mut text = aligned(&rows, 0);
    text += &format!("{} records, {} left out\n", states.records, states.left_out);
    if rules.is_empty() {
        let (least, share) = (args.least, args.stop_below * 100.0);
        text +=
            &format!("nothing to give up: no best score of at least {least} jobs had a chance below {share:.1} %\n");
    } else {
        let rule = |rule: &GiveUp| format!("{{ after_try = {}, below_score = {} }}", rule.after_try, rule.below_score);
        let rules: Vec<String> = rules.iter().map(rule).collect();
        text += &format!("give_up = [{}]\n", rules.join(", "));
    }
    text
}
