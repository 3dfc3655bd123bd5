//! `aurelia recost`: what the calls of a data set would cost under other prices.
//!
//! A record says of each call that it paid for what was used and what it cost, so nothing else is read: neither the journal
//! nor the packed replies beside a shard, which say the same of more calls than the data set paid for. Nothing is written.

mod sums;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::sums::{Line, Sums};
use super::set::SetArgs;
use super::table::aligned;
use super::{ConfigFiles, Failure, configure, print_whole, visible};
use crate::config::prices_of;
use crate::price::Nano;

/// Compute what the calls of a data set would cost under other prices
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Prices are those of FILE, then those of the configuration, then the built-in ones; the first that
matches wins. FILE has [[prices]] as the configuration has them. Records are read and never written.

Money is that of the calls in the records; calls whose end was not seen are in none of them. Calls of
servers that report no usage are named and in no sum: no usage is guessed.

Examples:
  aurelia recost data                                 under the prices of today's configuration
  aurelia recost data --prices new.toml               what if
  aurelia recost data --batch                         what if replies could wait for a batch
  aurelia recost --run spring --json | jq .all        a fleet's data set, in collector.output

Exit codes: 0 done, 1 the records cannot be read, 2 usage, 64 configuration, or a model without a price.")]
pub struct RecostArgs {
    #[command(flatten)]
    set: SetArgs,
    /// Prices that come before those of the configuration
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// As if all calls had been sent as the providers' batches
    #[arg(long)]
    batch: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs the command.
pub async fn main(args: RecostArgs) -> Result<u8, Failure> {
    let mut config = configure(&args.config)?.config;
    if let Some(file) = &args.prices {
        let own = prices_of(file).map_err(|mistakes| Failure::setup(mistakes.to_string()))?;
        config.prices.models.splice(0..0, own);
    }
    let mut sums = Sums::new(&config, args.batch);
    args.set.each(&config, |record| sums.add(record)).await?;
    print_whole(&if args.json { format!("{}\n", as_json(&sums)) } else { visible(&as_text(&sums)) })?;
    Ok(0)
}

fn as_json(sums: &Sums<'_>) -> Value {
    let (models, all) = sums.lines();
    let model = |(name, line): (String, &Line)| {
        let mut json = line.json();
        json["without_usage"]["items"] = json!(line.items);
        (name, json)
    };
    let models: serde_json::Map<String, Value> = models.map(model).collect();
    json!({ "records": sums.records, "replayed": sums.replayed, "models": models, "all": all.json() })
}

fn as_text(sums: &Sums<'_>) -> String {
    let (models, all) = sums.lines();
    let models: Vec<(String, &Line)> = models.collect();
    let head = ["model", "calls", "input", "cached", "audio", "output", "recorded", "now", "difference"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(models.iter().map(|(name, line)| row(name, line)));
    rows.push(row("all", &all));
    let mut text = aligned(&rows, 1);
    text +=
        &format!("{} records, which also use {} replies that were paid for elsewhere\n", sums.records, sums.replayed);
    for (name, line) in models.iter().filter(|(_, line)| line.unmeasured > 0) {
        text += &format!(
            "{name}: {} calls have no usage and are in no sum; recorded at {} (items {}{})\n",
            line.unmeasured,
            line.unmeasured_recorded,
            line.items.join(", "),
            if line.unmeasured > line.items.len() as u64 { ", ..." } else { "" }
        );
    }
    text
}

fn row(name: &str, line: &Line) -> [String; 9] {
    let count = |tokens: u64| tokens.to_string();
    [
        name.to_owned(),
        count(line.calls),
        count(line.usage.input_tokens),
        count(line.usage.cached_tokens),
        count(line.usage.audio_tokens),
        count(line.usage.output_tokens),
        line.recorded.to_string(),
        line.now.to_string(),
        signed(line.difference()),
    ]
}

/// With its sign: `+$0.25`, `-$0.10`, `$0.00`.
fn signed(nano: i128) -> String {
    let sign = match nano {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", Nano(u64::try_from(nano.unsigned_abs()).unwrap_or(u64::MAX)))
}
