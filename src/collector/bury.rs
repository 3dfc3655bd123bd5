//! Dead letters of jobs that have a record after all: they are dropped, and count no more.
//!
//! A job may be there twice: one delivery of it ends well, while another's worker dies again and again. Its record counts, and
//! its letter says nothing any more; counted as well, it would make a run complete one job too early.

use std::time::Duration;

use tokio::time::timeout;

use super::dataset::Dataset;
use super::state::Fleet;
use crate::message::JobMessage;
use crate::queue::{DeadLetters, Link, Origin, QueueError, Settled, Topology};

/// A look at all dead letters: about a thousand a second.
const LOOK: Duration = Duration::from_secs(30);

/// Drops what has a record; whether nothing had to be dropped. Fails where that cannot be found out now.
pub(super) async fn bury(link: &Link, topology: &Topology, fleet: &mut Fleet, set: &Dataset) -> Result<bool, String> {
    let run = set.known.manifest.run.as_str();
    let look = timeout(LOOK, looked(link, topology, set)).await;
    let look = look.map_err(|_| format!("the dead letters were not looked through within {} s", LOOK.as_secs()))?;
    let (letters, recorded) = look.map_err(|error| error.to_string())?;
    if recorded.is_empty() {
        return Ok(true);
    }
    // Counted first, each once: a letter that is left behind is harmless, a count that is too high is not.
    let ids: Vec<&str> = recorded.iter().map(|held| held.letter.id.as_str()).collect();
    if !fleet.bury(run, &ids).await {
        return Err("the shared state does not answer, so dead letters are not counted".to_owned());
    }
    tracing::info!(run, letters = recorded.len(), "dead letters dropped whose jobs have a record");
    for held in recorded {
        if letters.drop_letter(held).await == Settled::Lost {
            return Err("the broker was lost while dead letters were dropped".to_owned());
        }
    }
    letters.close().await.map_err(|error| error.to_string())?;
    Ok(false)
}

/// The letters of jobs that have a record; the others are held, too, until the look is closed or dropped.
async fn looked(
    link: &Link,
    topology: &Topology,
    set: &Dataset,
) -> Result<(DeadLetters, Vec<crate::queue::Held>), QueueError> {
    let letters = DeadLetters::open(link, topology).await?;
    let mut recorded = Vec::new();
    while let Some(held) = letters.next().await? {
        let letter = &held.letter;
        let ours = letter.ours && letter.origin == Origin::Job && letter.run == set.known.manifest.run;
        let job = if ours { JobMessage::decode(&letter.body).ok().map(|message| message.job) } else { None };
        if job.is_some_and(|job| job.run == letter.run && set.has(&job.item_id, job.revision)) {
            recorded.push(held);
        }
    }
    Ok((letters, recorded))
}
