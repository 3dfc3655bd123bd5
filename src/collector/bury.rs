//! Dead letters of jobs that have a record after all: they are dropped, and count no more.
//!
//! A job may be there twice: one delivery of it ends well, while another's worker dies again and again. Its record counts, and
//! its letter says nothing any more; counted as well, it would make a run complete one job too early.

use std::time::Duration;

use tokio::time::timeout;

use super::dataset::Dataset;
use super::state::Fleet;
use crate::queue::{DeadLetters, Link, QueueError, Topology};
use crate::shared::runs::RunInfo;

/// A look at all dead letters: about a thousand a second.
const LOOK: Duration = Duration::from_secs(30);

/// Drops what has a record; whether nothing had to be dropped, and the dead are as many as `info` says. Fails where that cannot be
/// found out now.
pub(super) async fn bury(
    link: &Link,
    topology: &Topology,
    fleet: &mut Fleet,
    set: &Dataset,
    info: &RunInfo,
) -> Result<bool, String> {
    let run = info.name.as_str();
    let away = || "the shared state does not answer".to_owned();
    let dead = fleet.dead(run).await.ok_or_else(away)?;
    let recorded: Vec<&str> =
        dead.iter().filter(|job| set.has(&job.item_id, job.revision)).map(|job| job.id.as_str()).collect();
    if recorded.is_empty() {
        return Ok(dead.len() as u64 == info.dead);
    }
    // Before they are counted no more, after which nobody would look for them. A letter that is left behind, since somebody else
    // looks at it or there are too many, is harmless.
    match timeout(LOOK, drop_letters(link, topology, set)).await {
        Ok(Ok(letters)) => {
            tracing::info!(run, jobs = recorded.len(), letters, "dead letters dropped whose jobs have a record");
        }
        Ok(Err(error)) => tracing::warn!(run, %error, "letters are left behind of jobs that have a record"),
        Err(_) => tracing::warn!(run, seconds = LOOK.as_secs(), "there are too many dead letters to look through"),
    }
    fleet.bury(run, &recorded).await.then_some(false).ok_or_else(away)
}

/// Drops the letters of jobs that have a record; how many. The others go back.
async fn drop_letters(link: &Link, topology: &Topology, set: &Dataset) -> Result<usize, QueueError> {
    let letters = DeadLetters::open(link, topology).await?;
    let mut dropped = 0;
    loop {
        let held = match letters.next().await {
            Ok(Some(held)) => held,
            Ok(None) => break,
            // The queue was lost with all of them.
            Err(error) if DeadLetters::is_undeclared(&error) => return Ok(dropped),
            Err(error) => return Err(error),
        };
        let letter = &held.letter;
        let ours = letter.ours && letter.run == set.known.manifest.run;
        if ours && letter.job().is_some_and(|job| set.has(&job.item_id, job.revision)) {
            // Lost, it is dropped another time or left behind.
            letters.drop_letter(held).await;
            dropped += 1;
        }
    }
    letters.close().await?;
    Ok(dropped)
}
