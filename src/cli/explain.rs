//! `aurelia explain-miss ITEM`: which request the journal lacks, and how it differs from the nearest one it has.
//!
//! The item is run against the journal alone, with today's recipe, configuration and files. The first request without a
//! stored reply is what a run would pay for; the stored request of the same role with the most parts in common tells why.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{ConfigFiles, Failure, configure, print, recipe_file, visible};
use crate::context;
use crate::job::Job;
use crate::journal::{Canonical, Exchange, Journal};
use crate::pipeline::{Leave, NoRecord};
use crate::run::directory::state_path;
use crate::run::plan::{Source, lines};
use crate::state::State;

/// Say why an item would be asked again: which part of its request differs from what is stored
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia explain-miss clip-17 --corpus items.jsonl --out data
  aurelia explain-miss clip-17 --corpus items.jsonl --out data --recipe other.toml")]
pub struct ExplainArgs {
    /// The item's id
    item: String,
    /// The corpus it is in
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// The output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The recipe it would be run with [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// As in run
    #[arg(long, alias = "score_threshold", value_name = "1..10")]
    score_threshold: Option<u8>,
    /// As in run
    #[arg(long, alias = "max_tries", value_name = "N")]
    max_tries: Option<u32>,
    #[command(flatten)]
    config: ConfigFiles,
}

/// Runs the command.
pub async fn main(args: ExplainArgs) -> Result<u8, Failure> {
    let config = configure(&args.config)?.config;
    let recipe = recipe_file(args.recipe.as_ref())?
        .with(args.score_threshold, args.max_tries)?
        .resolve(|provider| config.has_key(provider));
    let mut found = None;
    for line in lines(&Source::Corpus(args.corpus.clone()))? {
        if let (_, Ok(item)) = line.map_err(Failure::failed)?
            && item.id() == args.item
        {
            found = Some(item);
            break;
        }
    }
    let item =
        found.ok_or_else(|| Failure::failed(format!("{} has no item {:?}", args.corpus.display(), args.item)))?;
    let path = state_path(&config, &args.out);
    let state = State::open_to_read(&path).map_err(|e| Failure::failed(e.to_string()))?;
    let journal = Journal::new(Arc::new(state));
    let cache = args.out.join(".aurelia").join("media");
    let pipeline =
        context::offline(&config, recipe, journal.clone(), &cache).map_err(|e| Failure::setup(e.to_string()))?;
    let leave = Leave { job_deadline: config.worker.job_deadline, stop: &CancellationToken::new() };
    match pipeline.run(&Job::new("explain", 0, item), leave).await {
        Ok(record) => print(&format!(
            "nothing is missing: {} replays from the journal and ends as {}\n",
            args.item,
            record.status.name()
        )),
        Err(NoRecord::Halt(halt)) => return Err(Failure::failed(halt.to_string())),
        Err(NoRecord::Missing(wanted)) => {
            let stored = journal.exchanges_of(&args.item).await.map_err(|e| Failure::failed(e.to_string()))?;
            print(&visible(&explain(&wanted, &stored)));
        }
    }
    Ok(0)
}

fn explain(wanted: &Canonical, stored: &[Exchange]) -> String {
    let request: Value = serde_json::from_str(&wanted.json()).unwrap_or_default();
    let mut text = format!(
        "the {}'s request (try {}, ask {}) has no stored reply\n",
        wanted.role, wanted.sample.try_index, wanted.ordinal
    );
    let of_role = stored.iter().filter(|e| e.request["role"] == request["role"]);
    let nearest = of_role.map(|e| (differences(&request, &e.request), e)).min_by_key(|(d, _)| d.len());
    let Some((differences, nearest)) = nearest else {
        return text + "nothing is stored for this item and role\n";
    };
    text += &format!("the nearest stored request is {}; it differs in:\n", nearest.key);
    for line in differences {
        text += &format!("  {line}\n");
    }
    text
}

/// One line for each part that differs.
fn differences(now: &Value, then: &Value) -> Vec<String> {
    let (Some(now), Some(then)) = (now.as_object(), then.as_object()) else { return Vec::new() };
    let mut names: Vec<&String> = now.keys().chain(then.keys()).collect();
    names.sort();
    names.dedup();
    let absent = Value::Null;
    names
        .into_iter()
        .filter_map(|name| {
            let (now, then) = (now.get(name).unwrap_or(&absent), then.get(name).unwrap_or(&absent));
            (now != then).then(|| format!("{name}: {}", change(now, then)))
        })
        .collect()
}

fn change(now: &Value, then: &Value) -> String {
    let texts = |value: &Value| -> Option<String> {
        Some(value.as_array()?.iter().map(|v| v.as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n"))
    };
    let all_text = |v: &Value| v.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(Value::is_string));
    if all_text(now)
        && all_text(then)
        && let (Some(now), Some(then)) = (texts(now), texts(then))
    {
        let same = now.chars().zip(then.chars()).take_while(|(a, b)| a == b).count();
        let piece = |text: &str| text.chars().skip(same.saturating_sub(10)).take(50).collect::<String>();
        return format!("from character {same} on: stored {:?}, now {:?}", piece(&then), piece(&now));
    }
    format!("stored {then}, now {now}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_part_that_differs_is_named_with_both_values() {
        let then = json!({"model": "a", "prompt": ["What is it?"], "ordinal": 0});
        let now = json!({"model": "b", "prompt": ["What was it?"], "ordinal": 0});
        let lines = differences(&now, &then);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "model: stored \"a\", now \"b\"");
        assert!(lines[1].starts_with("prompt: from character 5 on"), "{}", lines[1]);
    }
}
