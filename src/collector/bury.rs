//! Dead letters of jobs that have a record after all: they are dropped, and count no more.
//!
//! A job may be there twice: one delivery of it ends well, while another's worker dies again and again. Its record counts, and
//! its letter says nothing any more; counted as well, it would make a run complete one job too early.

use std::time::Duration;

use tokio::time::timeout;

use super::dataset::Dataset;
use super::state::Fleet;
use crate::message::JobMessage;
use crate::queue::{DeadLetters, Link, Origin, QueueError, Topology};

/// A look at all dead letters: about a thousand a second.
const LOOK: Duration = Duration::from_secs(30);

/// Drops what has a record; whether nothing had to be dropped. Fails where that cannot be found out now.
pub(super) async fn bury(link: &Link, topology: &Topology, fleet: &mut Fleet, set: &Dataset) -> Result<bool, String> {
    let run = set.known.manifest.run.as_str();
    let away = || "the shared state does not answer".to_owned();
    let dead = fleet.dead(run).await.ok_or_else(away)?;
    let recorded: Vec<&str> =
        dead.iter().filter(|job| set.has(&job.item_id, job.revision)).map(|job| job.id.as_str()).collect();
    if recorded.is_empty() {
        return Ok(true);
    }
    // Before they are counted no more, after which nobody would look for them. One that somebody else looks at just now is left
    // behind, which is harmless.
    let look = timeout(LOOK, drop_letters(link, topology, set)).await;
    let look = look.map_err(|_| format!("the dead letters were not looked through within {} s", LOOK.as_secs()))?;
    let letters = look.map_err(|error| error.to_string())?;
    tracing::info!(run, jobs = recorded.len(), letters, "dead letters dropped whose jobs have a record");
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
        let ours = letter.ours && letter.origin == Origin::Job && letter.run == set.known.manifest.run;
        let job = if ours { JobMessage::decode(&letter.body).ok().map(|message| message.job) } else { None };
        if job.is_some_and(|job| job.run == letter.run && set.has(&job.item_id, job.revision)) {
            // Lost, it is dropped another time or left behind.
            letters.drop_letter(held).await;
            dropped += 1;
        }
    }
    letters.close().await?;
    Ok(dropped)
}
