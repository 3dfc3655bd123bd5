//! What of a data set can be asked for again: the jobs beside its shards, under the next revision.

use std::collections::{BTreeSet, HashMap};

use super::index::{self, Index, Item};
use super::known::{Known, text};
use super::manifest::{Shard, Totals};
use super::message::Head;
use super::sink::Sink;
use crate::config::Config;
use crate::job::Job;
use crate::record::{ErrorKind, Status};

/// The jobs of all items of a run whose latest record has one of these statuses, each under the next revision, with what it may
/// use beyond the recipe as `aurelia run --retry` gives it.
///
/// # Errors
/// One sentence: the data set cannot be read.
pub async fn jobs(config: &Config, run: &str, statuses: &BTreeSet<Status>) -> Result<Vec<Job>, String> {
    let sink = Sink::open(config).await?;
    let known = Known::read(&sink, run).await?;
    let (mut latest, mut scratch) = (Index::default(), Totals::default());
    for shard in &known.manifest.shards {
        let ids = super::dataset::ids(&sink, run, shard).await?;
        for (item, mark) in index::decode(&ids) {
            latest.add(None, item, mark, &mut scratch);
        }
    }
    let mut jobs = Vec::new();
    for shard in &known.manifest.shards {
        let wanted = shard.by_status.keys().any(|status| statuses.contains(status));
        if let Some(retry) = shard.retry.as_ref().filter(|_| wanted) {
            let ends = ends(&sink, run, shard).await?;
            for line in text(&sink, run, retry).await?.lines() {
                let job: Job = serde_json::from_str(line)
                    .map_err(|e| format!("{} holds no job ({e})", sink.path(run, &retry.name)))?;
                let item = Item::new(&job.item_id);
                let is_latest = latest
                    .latest(item)
                    .is_some_and(|mark| mark.revision() == job.revision && statuses.contains(&mark.status()));
                if let Some((status, kind)) = ends.get(&(item, job.revision)).filter(|_| is_latest) {
                    jobs.push(Job { revision: job.revision + 1, again: job.again.after(*status, *kind), ..job });
                }
            }
        }
    }
    Ok(jobs)
}

/// How the records of a shard ended.
async fn ends(
    sink: &Sink,
    run: &str,
    shard: &Shard,
) -> Result<HashMap<(Item, u32), (Status, Option<ErrorKind>)>, String> {
    let text = text(sink, run, &shard.records).await?;
    let heads = text.lines().filter_map(|line| serde_json::from_str::<Head<'_>>(line).ok());
    Ok(heads.map(|head| ((Item::new(&head.item_id), head.revision), head.end())).collect())
}
