//! `--dry-run`: everything is read and checked, nobody is asked but S3 for a listing.
//!
//! Duplicates are told within a batch only: to tell all of them takes the shared state, or memory for every id. What an item
//! costs is estimated as `aurelia run --dry-run` does; lengths are not read.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use serde_json::json;

use super::args::ProducerArgs;
use super::feed::{self, Batch};
use super::offsets::Offsets;
use super::rejects::{Reject, Rejects};
use super::show::Summary;
use crate::agent::line::Line;
use crate::cli::{Failure, estimate, print, print_whole, say};
use crate::config::Config;
use crate::context;
use crate::job::{Item, Job};
use crate::message::JobMessage;
use crate::price::Nano;
use crate::recipe::Recipe;

/// Absent files told one by one.
const TOLD: u64 = 20;

/// What was counted.
struct Count<'a> {
    config: &'a Config,
    recipe: &'a Recipe,
    digest: String,
    /// None: no price can be told, for this reason.
    lines: Result<BTreeMap<(String, String), Line>, String>,
    run: &'a str,
    items: u64,
    absent: u64,
    low: Nano,
    high: Nano,
}

pub(super) async fn run(args: &ProducerArgs, config: &Config, recipe: &Recipe) -> Result<u8, Failure> {
    let none = Offsets::none(args)?;
    let mut rejects = Rejects::open(args.rejects.as_deref(), &none)?;
    let sources = feed::open(args, &config.store, &none).await?;
    let mut batches = std::pin::pin!(feed::start(sources, usize::MAX));
    let mut summary = Summary::new(&args.run, 0);
    let mut count = Count {
        config,
        recipe,
        digest: recipe.digest(),
        lines: context::lines(&keyless(config), recipe).map_err(|halt| halt.to_string()),
        run: &args.run,
        items: 0,
        absent: 0,
        low: Nano::ZERO,
        high: Nano::ZERO,
    };
    while let Some(batch) = batches.next().await {
        let found = count.batch(batch.map_err(Failure::failed)?, &mut summary.duplicates);
        rejects.add(&found)?;
        summary.rejected += found.len() as u64;
    }
    rejects.tell(&summary);
    count.print(args, &summary)?;
    Ok(u8::from(summary.rejected > 0))
}

/// As at the workers, who have the keys.
fn keyless(config: &Config) -> Config {
    let mut config = config.clone();
    for provider in config.providers.values_mut() {
        provider.key_sources.clear();
    }
    config
}

impl Count<'_> {
    fn batch(&mut self, batch: Batch, duplicates: &mut u64) -> Vec<Reject> {
        let (mut rejects, name) = (Vec::new(), batch.name.clone());
        batch.distinct(&mut rejects, duplicates, |number, _, _, item| {
            self.look(&name, number, &item);
            JobMessage::new(self.digest.clone(), Job::new(self.run, 0, item)).encode()?;
            self.items += 1;
            Ok(())
        });
        rejects
    }

    fn look(&mut self, corpus: &str, number: u64, item: &Item) {
        for medium in &item.media {
            // What the workers have is not known here: a file that is absent is told, and is no reason to reject.
            if let Some(problem) = estimate::absent(self.config, medium.location()) {
                self.absent += 1;
                if self.absent <= TOLD {
                    say(&format!("not on this machine: {corpus} line {number}: {problem}\n"));
                }
            }
        }
        if let Ok(lines) = &self.lines {
            let (low, high) = estimate::of_item(lines, self.recipe, item);
            self.low = self.low.saturating_add(low);
            self.high = self.high.saturating_add(high);
        }
    }

    fn print(&self, args: &ProducerArgs, summary: &Summary) -> Result<(), Failure> {
        let fewest = self.items.saturating_mul(3);
        let most = fewest.saturating_mul(u64::from(self.recipe.max_tries));
        let money = self.lines.as_ref().ok();
        if args.json {
            let cost = money.map(|_| json!({ "one_try_each": self.low.0, "all_tries_at_bound": self.high.0 }));
            let object = json!({
                "run": args.run, "items": self.items, "duplicates": summary.duplicates, "rejected": summary.rejected,
                "absent_here": self.absent, "calls": { "one_try_each": fewest, "all_tries": most },
                "cost_nano_usd": cost, "no_cost_why": self.lines.as_ref().err(), "recipe_digest": self.digest,
                "seconds_of_sound_assumed": estimate::SOUND_MS / 1000,
            });
            return print_whole(&format!("{object}\n"));
        }
        let money = match &self.lines {
            Ok(_) => format!(
                "about {} with one try each, at most {} with all tries; lengths are not read: clips and sound are taken as {} s",
                self.low,
                self.high,
                estimate::SOUND_MS / 1000
            ),
            Err(why) => format!("unknown: {why}"),
        };
        print(&format!(
            "  items      {} ({} rejected, {} repeated nearby; those far apart and those enqueued before are not known here)\n  \
             media      {} not on this machine; those of servers are not looked at\n  \
             calls      {fewest} with one try each, at most {most} with all {} tries\n  money      {money}\n",
            self.items, summary.rejected, summary.duplicates, self.absent, self.recipe.max_tries
        ));
        Ok(())
    }
}
