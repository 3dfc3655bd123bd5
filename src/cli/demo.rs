//! `aurelia demo`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, print, progress, say, visible};
use crate::demo::Demo;
use crate::price::Nano;
use crate::record::Record;
use crate::run::plan::Source;
use crate::run::records::{read_records, records_path};
use crate::run::{Options, View, run};
use crate::shutdown::Shutdown;

/// Try it: real clips, the whole loop, simulated models; no keys, no money
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia demo
  aurelia demo --dir /tmp/aurelia-demo     run it twice: the second time nothing is asked again")]
pub struct DemoArgs {
    /// Where clips, corpus and records go
    #[arg(long, value_name = "DIR", default_value = "aurelia-demo")]
    dir: PathBuf,
}

/// Runs the command.
pub async fn main(args: DemoArgs) -> Result<u8, Failure> {
    let demo = Demo::prepare(&args.dir, say).await.map_err(Failure::failed)?;
    let options = Options {
        source: Source::Corpus(demo.corpus.clone()),
        out: demo.out.clone(),
        name: Some("demo".to_owned()),
        pinned: true,
        concurrency: 4,
        limit: None,
        retry: std::collections::BTreeSet::default(),
        settings: crate::context::RunSettings { ceiling: Some(Nano(1_000_000_000)), max_wait: None },
    };
    let (shutdown, view) = (Shutdown::default(), View::default());
    let recipe = demo.recipe().map_err(Failure::failed)?;
    let work = run(&demo.config, recipe, &options, &shutdown, &view);
    let summary = tokio::select! {
        listening = shutdown.listen() => {
            return Err(Failure::failed(format!("signals cannot be received: {listening:?}")));
        }
        summary = progress::watch(&view, &shutdown, progress::Show::Bar, work) => summary?,
    };
    let mut text =
        "\nEach item is generated, summarized and judged, and again with feedback until its score reaches 6:\n\n"
            .to_owned();
    read_records(&records_path(&demo.out), |record| {
        text += &line(&record);
        Ok(None::<()>)
    })
    .map_err(Failure::failed)?;
    let stats = demo.simulator.stats();
    text += &format!(
        "\n{}  answered   {} calls by the simulated models, {} of them twice\n",
        summary.table(),
        stats.answered,
        stats.repeats_of_answered
    );
    text += &next_steps(&args, &demo);
    print(&visible(&text));
    Ok(summary.exit_code())
}

fn line(record: &Record) -> String {
    let scores: Vec<String> =
        record.tries.iter().map(|t| t.score.map_or_else(|| "-".to_owned(), |score| score.to_string())).collect();
    let media = record.media.first();
    let shown = media.map_or_else(String::new, |medium| {
        let sound = medium.audio_s.map_or_else(|| "no sound".to_owned(), |s| format!("{s:.1} s of sound"));
        format!("{} frames, {sound}", medium.frames_s.len())
    });
    format!(
        "  {:<14} {:<28} scores {:<20} {:<10} {}\n",
        record.item_id,
        shown,
        scores.join(" > "),
        record.status.name(),
        record.final_answer.as_deref().unwrap_or("")
    )
}

fn next_steps(args: &DemoArgs, demo: &Demo) -> String {
    let (dir, out, corpus) = (args.dir.display(), demo.out.display(), demo.corpus.display());
    format!(
        "
The clips in {dir} are real; the models were simulated, so the answers mean nothing.
  aurelia show scenes-order --out {out}       every prompt and raw reply of an item
  aurelia demo --dir {dir}                    again: nothing is asked or paid twice

With real models:
  export GEMINI_API_KEY=...       (one key is enough; with OPENAI_API_KEY set, gpt-4o-mini writes the captions)
  aurelia run --video-path clip.mp4 --query \"...\" --save-path answer.json
  aurelia run --corpus {corpus} --out data --dry-run       what it would cost
  aurelia run --corpus {corpus} --out data --budget-usd 1
"
    )
}
