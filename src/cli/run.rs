//! `aurelia run`.

use std::collections::{BTreeSet, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ConfigFiles, Failure, configure, estimate, print, print_whole, progress, recipe_file, say};
use crate::config::Config;
use crate::context::{self, RunSettings};
use crate::job::Item;
use crate::price::Nano;
use crate::recipe::Recipe;
use crate::record::{Record, Status};
use crate::run::plan::{Plan, Source};
use crate::run::{self, Options, Summary, View, pin, records};
use crate::shutdown::Shutdown;

/// Rejected lines told one by one; `--json` has more of them.
const TOLD: usize = 20;

/// Run one clip, or a corpus, through the loop; run again, it goes on where it was
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["corpus", "query"]), after_help = "\
Examples:
  aurelia run --video-path clip.mp4 --query \"What starts the applause?\" --save-path answer.json
  aurelia run --corpus items.jsonl --out data --budget-usd 20 --concurrency 64
  aurelia run --corpus items.jsonl --out data --dry-run        check everything, estimate calls and money
  aurelia run --corpus items.jsonl --out data --retry failed   ask again for what failed

A corpus is JSON lines: {\"id\"?, \"video\"?, \"audio\"?, \"query\", \"answer\"?, \"choices\"?, \"task\"?, \"sample\"?,
\"media\"?: [{\"name\", \"kind\", \"uri\"}], \"metadata\"?}; relative paths are relative to the corpus file.
Ctrl-C ends the calls in flight, stores them, and stops; twice, it stops at once.

Exit codes: 0 every item accepted, exhausted or blocked; 1 an item failed or a line was rejected; 2 usage;
64 configuration or keys; 75 stopped before the end (signal, budget, quota, lock): run it again.")]
pub struct RunArgs {
    /// Items as JSON lines
    #[arg(long, value_name = "FILE", requires = "out")]
    corpus: Option<PathBuf>,
    /// Where records and state go
    #[arg(long, value_name = "DIR", requires = "corpus")]
    out: Option<PathBuf>,
    /// One clip: its question
    #[arg(long, value_name = "TEXT", requires = "save_path", conflicts_with = "corpus")]
    query: Option<String>,
    /// One clip: the video
    #[arg(long, alias = "video_path", value_name = "FILE", requires = "query", conflicts_with = "corpus")]
    video_path: Option<String>,
    /// One clip: the sound; without it, the video's own
    #[arg(long, alias = "audio_path", value_name = "FILE", requires = "query", conflicts_with = "corpus")]
    audio_path: Option<String>,
    /// One clip: where the answer goes, as one JSON object; its state is kept beside it
    #[arg(long, alias = "save_path", value_name = "FILE", requires = "query", conflicts_with = "corpus")]
    save_path: Option<PathBuf>,
    /// Accept a try with this score or above [default: the recipe's, 6]
    #[arg(long, alias = "score_threshold", value_name = "1..10", value_parser = clap::value_parser!(u8).range(1..=10))]
    score_threshold: Option<u8>,
    /// Most tries of the loop [default: the recipe's, 5]
    #[arg(long, alias = "max_tries", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    max_tries: Option<u32>,
    /// Recipe: models, prompts, threshold [default: the built-in one, config/recipes/default.toml]
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFiles,
    /// Items run at once [default: worker.concurrency, 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: Option<u16>,
    /// Most dollars this output may cost in all, restarts included; never passed [default: budget.total_usd]
    #[arg(long, alias = "budget_usd", value_name = "USD", value_parser = Nano::ceiling)]
    budget_usd: Option<Nano>,
    /// Run at most so many items this time
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Ask again for records with these statuses: failed, blocked, exhausted
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', value_parser = status)]
    retry: Vec<Status>,
    /// Stop instead of waiting longer than this for a quota, for example 90s, 10m or 2h [default: wait]
    #[arg(long, alias = "max_wait", value_name = "TIME", value_parser = duration)]
    max_wait: Option<Duration>,
    /// Name of the run in records [default: the directory's]
    #[arg(long = "run", value_name = "NAME", requires = "corpus")]
    name: Option<String>,
    /// Print the summary as JSON, and no progress
    #[arg(long)]
    json: bool,
    /// Check everything, count, and estimate calls and money; ask nobody and write nothing
    #[arg(long, alias = "dry_run")]
    dry_run: bool,
}

/// Runs the command.
pub async fn main(args: RunArgs) -> Result<u8, Failure> {
    let loaded = configure(&args.config)?;
    let config = loaded.config;
    let recipe = recipe_file(args.recipe.as_ref())?
        .with(args.score_threshold, args.max_tries)?
        .resolve(|provider| config.has_key(provider));
    let options = options(&args, &config)?;
    context::lines(&config, &recipe).map_err(|halt| Failure::setup(halt.to_string()))?;
    if args.dry_run {
        return dry_run(&args, &config, &recipe, &options).await;
    }
    let shutdown = Shutdown::default();
    let view = View::default();
    let summary = tokio::select! {
        biased;
        listening = shutdown.listen() => {
            return Err(Failure::failed(format!("signals cannot be received: {listening:?}")));
        }
        summary = async {
            let work = run::run(&config, recipe, &options, &shutdown, &view);
            let show = if args.json { progress::Show::WaitsAlone } else { progress::Show::Bar };
            progress::watch(&view, &shutdown, show, work).await
        } => summary?,
    };
    tell_rejected(&summary);
    if let Some(halt) = &summary.halt {
        say(&format!("aurelia: {halt}\n"));
    }
    let saved = save(&args, &options, &summary.run)?;
    if args.json {
        print_whole(&format!("{}\n", summary.json()))?;
    } else if !saved {
        print(&summary.table());
    }
    Ok(summary.exit_code())
}

fn tell_rejected(summary: &Summary) {
    for reason in summary.reasons.iter().take(TOLD) {
        say(&format!("rejected {reason}\n"));
    }
    if summary.rejected > TOLD as u64 {
        say(&format!("rejected {} more lines\n", summary.rejected - TOLD as u64));
    }
    if summary.items == 0 {
        say("no line is an item; a corpus is one JSON object per line, see aurelia run --help\n");
    }
}

fn options(args: &RunArgs, config: &Config) -> Result<Options, Failure> {
    let (source, out) = match (&args.corpus, &args.out, &args.query, &args.save_path) {
        (Some(corpus), Some(out), ..) => (Source::Corpus(corpus.clone()), out.clone()),
        (_, _, Some(query), Some(save)) => {
            if save.is_dir() {
                let example = save.join("answer.json");
                let message = format!(
                    "--save-path {} is a folder; name a file, for example {}",
                    save.display(),
                    example.display()
                );
                return Err(Failure::usage(message));
            }
            let mut state = save.as_os_str().to_owned();
            state.push(".aurelia");
            (Source::One(Box::new(one_item(args, query)?)), PathBuf::from(state))
        }
        _ => return Err(Failure::usage("give --corpus and --out, or --query and --save-path")),
    };
    Ok(Options {
        source,
        out,
        name: args.name.clone().or_else(|| args.query.as_ref().map(|_| "clip".to_owned())),
        pinned: args.corpus.is_some(),
        concurrency: args.concurrency.map_or(config.worker.concurrency, usize::from),
        limit: args.limit,
        retry: args.retry.iter().copied().collect::<BTreeSet<_>>(),
        settings: RunSettings { ceiling: args.budget_usd.or(config.budget.total), max_wait: args.max_wait },
    })
}

fn one_item(args: &RunArgs, query: &str) -> Result<Item, Failure> {
    let mut line = json!({ "query": query });
    for (kind, path) in [("video", &args.video_path), ("audio", &args.audio_path)] {
        if let Some(path) = path {
            line[kind] = json!(path);
        }
    }
    if args.video_path.is_none() && args.audio_path.is_none() {
        return Err(Failure::usage("give --video-path, --audio-path or both"));
    }
    Item::from_line(&line.to_string()).map_err(Failure::usage)
}

/// Writes the answer of a single clip. Whether there was one to write.
fn save(args: &RunArgs, options: &Options, run: &str) -> Result<bool, Failure> {
    let (Some(path), Source::One(item)) = (&args.save_path, &options.source) else { return Ok(false) };
    let id = item.id();
    // Another threshold or recipe is a run of its own; of this one the newest counts.
    let mut newest: Option<Record> = None;
    records::read_records(&records::records_path(&options.out), |record| {
        if record.run == run && record.item_id == id {
            newest = Some(record);
        }
        Ok(None::<()>)
    })
    .map_err(Failure::failed)?;
    let Some(record) = newest else { return Ok(false) };
    let answer = json!({
        "query": record.query, "video_path": args.video_path, "audio_path": args.audio_path,
        "status": record.status, "score": record.score, "threshold": record.threshold,
        "reasoning_steps": record.reasoning_steps, "reasoning_answers": record.reasoning_answers,
        "final_answer": record.final_answer, "caption": record.caption,
        "best_try": record.best_try, "tries": record.tries.len(), "error": record.error,
        "cost_nano_usd": record.cost_nano_usd, "recipe_digest": record.recipe_digest, "item_id": record.item_id,
    });
    write_whole(path, &format!("{answer:#}\n")).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    if !args.json {
        print(&told(&record, path));
    }
    Ok(true)
}

fn told(record: &Record, path: &Path) -> String {
    let score = record.score.map_or_else(|| "no score".to_owned(), |s| format!("score {s} of 10"));
    let answer = record.final_answer.as_deref().unwrap_or("none");
    let error = record.error.as_ref().map(|e| format!("  error      {}\n", e.message)).unwrap_or_default();
    super::visible(&format!(
        "  status     {} ({score}, threshold {}, {} tries)\n  answer     {answer}\n{error}  cost       {}\n  saved      {}\n",
        record.status.name(),
        record.threshold,
        record.tries.len(),
        Nano(record.cost_nano_usd),
        path.display()
    ))
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = run::records::readable_by_all().tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

async fn dry_run(args: &RunArgs, config: &Config, recipe: &Recipe, options: &Options) -> Result<u8, Failure> {
    context::tools(config).map_err(Failure::setup)?;
    let taken = if options.pinned {
        pin::pinned_to(config, &options.out, recipe).await?;
        records::items_with_record(&options.out).map_err(Failure::failed)?
    } else {
        HashSet::new()
    };
    let plan = Plan::make(&options.source, None, &CancellationToken::new()).await?;
    let estimate = estimate::of(config, recipe, options, &taken)?;
    for reason in plan.reasons.iter().chain(&estimate.problems).take(TOLD) {
        say(&format!("problem: {reason}\n"));
    }
    if args.json {
        print_whole(&format!("{}\n", estimate.json(&plan, recipe)))?;
    } else {
        print(&estimate.table(&plan, recipe));
    }
    Ok(u8::from(plan.rejected > 0 || estimate.missing > 0))
}

pub(super) fn status(text: &str) -> Result<Status, String> {
    match text {
        "failed" => Ok(Status::Failed),
        "blocked" => Ok(Status::Blocked),
        "exhausted" => Ok(Status::Exhausted),
        _ => Err("say failed, blocked, exhausted, or several with commas".to_owned()),
    }
}

/// `90`, `90s`, `10m`, `2h`, `1d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "say a number of seconds, or one with s, m, h or d".to_owned();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let count: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(count.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_its_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "m", "1w", "-1s", "1.5h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
