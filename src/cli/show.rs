//! `aurelia show ITEM`: what an item was asked and what came back, as it was; where the files lie that models were shown, and
//! how clips were sent.

mod media;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use self::media::Kept;
use super::{ConfigFiles, Failure, configure, print, visible};
use crate::journal::{Exchange, Journal, Key};
use crate::price::Nano;
use crate::record::Record;
use crate::run::directory::{media_path, state_path};
use crate::run::records::{read_records, records_path};
use crate::state::State;

/// Print an item's record with the prompts and raw replies it rests on
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia show clip-17 --out data
  aurelia show clip-17 --out data --json | jq .exchanges[0].request
  aurelia show item-3f2a... --out answer.json.aurelia      an item of a single clip")]
pub struct ShowArgs {
    /// The item's id, as in its record
    item: String,
    /// The output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigFiles,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn main(args: ShowArgs) -> Result<u8, Failure> {
    let config = configure(&args.config)?.config;
    let path = state_path(&config, &args.out);
    let state = State::open_to_read(&path)
        .map_err(|e| Failure::failed(format!("no state in {}: {e}; is --out right?", args.out.display())))?;
    let journal = Journal::new(Arc::new(state));
    // Beside a single clip's answer there may be one for each recipe: the newest is shown.
    let mut record: Option<Record> = None;
    read_records(&records_path(&args.out), |read| {
        if read.item_id == args.item {
            record = Some(read);
        }
        Ok(None::<()>)
    })
    .map_err(Failure::failed)?;
    let mut exchanges = journal.exchanges_of(&args.item).await.map_err(|e| Failure::failed(e.to_string()))?;
    if let Some(record) = &record {
        add_shared(&journal, record, &mut exchanges).await?;
    }
    if record.is_none() && exchanges.is_empty() {
        return Err(Failure::failed(format!("{} knows no item {:?}", args.out.display(), args.item)));
    }
    let media = record.as_ref().map_or_else(Vec::new, |record| media::kept(&media_path(&config, &args.out), record));
    let text = if args.json {
        as_json(record.as_ref(), &media, &exchanges)
    } else {
        as_text(record.as_ref(), &media, &exchanges)
    };
    print(&text);
    Ok(0)
}

/// Replies that other items paid for and this record uses.
async fn add_shared(journal: &Journal, record: &Record, exchanges: &mut Vec<Exchange>) -> Result<(), Failure> {
    for call in record.tries.iter().flat_map(|t| &t.calls) {
        let Some(key) = Key::from_hex(&call.key) else { continue };
        if exchanges.iter().any(|e| e.key == key) {
            continue;
        }
        exchanges.extend(journal.exchange(key).await.map_err(|e| Failure::failed(e.to_string()))?);
    }
    Ok(())
}

fn as_json(record: Option<&Record>, media: &[Kept], exchanges: &[Exchange]) -> String {
    let exchange = |e: &Exchange| {
        json!({ "key": e.key.to_string(), "request": e.request, "reply": e.stored.reply, "payer": e.stored.payer,
                "cost_nano_usd": e.stored.cost.0, "clips": e.stored.clips })
    };
    let exchanges: Vec<_> = exchanges.iter().map(exchange).collect();
    format!("{}\n", json!({ "record": record, "media": media, "exchanges": exchanges }))
}

fn as_text(record: Option<&Record>, media: &[Kept], exchanges: &[Exchange]) -> String {
    let mut text = record.map_or_else(|| "no record yet\n".to_owned(), head);
    text.extend(media.iter().map(Kept::text));
    for exchange in exchanges {
        let request = &exchange.request;
        let reply = &exchange.stored.reply;
        let field = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
        text += &format!(
            "\n--- {} asks {} (try {}, ask {}), {} ---\n",
            field("role"),
            field("model"),
            request["sample"]["try"],
            request["ordinal"],
            exchange.stored.cost
        );
        for part in request["prompt"].as_array().into_iter().flatten() {
            text += part.as_str().unwrap_or_default();
            text.push('\n');
        }
        let clips: Vec<_> = exchange.stored.clips.iter().map(|clip| clip.name()).collect();
        if !clips.is_empty() {
            text += &format!("--- clips sent by {} ---\n", clips.join(", "));
        }
        text += &format!("--- reply ({:?}, {} ms) ---\n{}\n", reply.finish, reply.latency_ms, reply.text);
    }
    visible(&text)
}

fn head(record: &Record) -> String {
    let score = |score: Option<u8>| score.map_or_else(|| "none".to_owned(), |s| s.to_string());
    let mut text = format!(
        "item {}: {}, score {} (threshold {}), {}\nquestion: {}\nanswer: {}\n",
        record.item_id,
        record.status.name(),
        score(record.score),
        record.threshold,
        Nano(record.cost_nano_usd),
        record.query,
        record.final_answer.as_deref().unwrap_or("none")
    );
    for t in &record.tries {
        text += &format!("try {}: score {}\n", t.index, score(t.score));
        for (n, (step, answer)) in t.reasoning_steps.iter().zip(&t.reasoning_answers).enumerate() {
            text += &format!("  {}. {step}\n     {answer}\n", n + 1);
        }
    }
    if let Some(rule) = record.gave_up {
        text += &format!("given up: after {} tries without a score of {}\n", rule.after_try, rule.below_score);
    }
    if let Some(error) = &record.error {
        text += &format!("error: {}\n", error.message);
    }
    text
}
