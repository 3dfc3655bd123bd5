//! One job, from its item to its record.
//!
//! Media are made ready, the loop runs, the record is put together. A job's own fault ends in its record; what is
//! nobody's fault ends the run instead ([`crate::fault`]) and leaves the job to be run again, which costs nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agent::ask::Asker;
use crate::agent::caller::{Caller, Payer};
use crate::agent::show::{self, Medium};
use crate::fault::{self, Halt};
use crate::job::{Job, MediaKind, MediaRef};
use crate::journal::Canonical;
use crate::media::{Kind, Library, MediaError, Prepared, without_secrets};
use crate::provider::Usage;
use crate::recipe::Recipe;
use crate::record::{Record, RecordCall, RecordClip, RecordMedium, SCHEMA_VERSION};
use crate::refine::{Refined, Unfinished, refine};

/// What every job of a run shares.
#[derive(Debug)]
pub struct Pipeline {
    /// The run's recipe.
    pub recipe: Arc<Recipe>,
    /// Its digest.
    pub recipe_digest: String,
    /// Makes media ready.
    pub library: Library,
    /// Carries asks through.
    pub caller: Caller,
    /// What each provider is called in journal keys.
    pub identities: std::collections::BTreeMap<String, String>,
    /// Who runs it, for the records.
    pub worker: String,
}

/// Until when a job is worked on.
#[derive(Debug, Clone, Copy)]
pub struct Leave<'a> {
    /// How long it waits for its provider.
    pub job_deadline: Duration,
    /// No new call starts after this.
    pub stop: &'a CancellationToken,
}

/// Why a job has no record.
#[derive(Debug)]
pub enum NoRecord {
    /// The run ends.
    Halt(Halt),
    /// Offline: the journal lacks this request.
    Missing(Box<Canonical>),
}

impl Pipeline {
    /// Runs one job to its record.
    ///
    /// Cancel safety: dropped, it loses calls in flight (they count at their worst case) and nothing else.
    pub async fn run(&self, job: &Job, leave: Leave<'_>) -> Result<Record, NoRecord> {
        let started_at = jiff::Timestamp::now();
        let job_id = job.id();
        let prepared = tokio::select! {
            // A child process ends with the future that waits for it.
            () = leave.stop.cancelled() => return Err(NoRecord::Halt(Halt::Stopped)),
            prepared = self.prepare(job) => prepared,
        };
        let outcome = match first_failure(&prepared) {
            Some(error) => {
                let error = fault::of_media(error).map_err(NoRecord::Halt)?;
                Refined::failed(error)
            }
            None => self.refine(job, &job_id, &prepared, leave).await?,
        };
        Ok(self.record(job, job_id, &prepared, outcome, started_at))
    }

    async fn prepare(&self, job: &Job) -> Vec<Result<Arc<Prepared>, MediaError>> {
        let mut prepared = Vec::with_capacity(job.item.media.len());
        for source in &job.item.media {
            prepared.push(self.library.prepare(source.location(), shown_as(source)).await);
        }
        prepared
    }

    async fn refine(
        &self,
        job: &Job,
        job_id: &str,
        prepared: &[Result<Arc<Prepared>, MediaError>],
        leave: Leave<'_>,
    ) -> Result<Refined, NoRecord> {
        let ready = job.item.media.iter().zip(prepared).filter_map(|(source, prepared)| {
            let prepared = Arc::clone(prepared.as_ref().ok()?);
            Some(Medium { source: source.clone(), prepared })
        });
        let media: Vec<Medium> = ready.collect();
        if let Some(error) = show::blind(&self.recipe, &media) {
            return Ok(Refined::failed(error));
        }
        let asker = Asker {
            caller: &self.caller,
            identities: &self.identities,
            job,
            recipe: &self.recipe,
            media: &media,
            payer: Payer { job_id, job_deadline: leave.job_deadline, stop: leave.stop },
            used: Mutex::new(HashSet::new()),
        };
        refine(&asker).await.map_err(|unfinished| match unfinished {
            Unfinished::Halt(halt) => NoRecord::Halt(halt),
            Unfinished::Missing(canonical) => NoRecord::Missing(canonical),
        })
    }

    fn record(
        &self,
        job: &Job,
        job_id: String,
        prepared: &[Result<Arc<Prepared>, MediaError>],
        outcome: Refined,
        started_at: jiff::Timestamp,
    ) -> Record {
        let best = outcome.best.and_then(|best| outcome.tries.get(best));
        let calls = || outcome.tries.iter().flat_map(|t| &t.calls);
        let media =
            job.item.media.iter().zip(prepared).map(|(source, prepared)| medium(source, prepared.as_ref().ok()));
        Record {
            schema_version: SCHEMA_VERSION,
            run: job.run.clone(),
            job_id,
            item_id: job.item_id.clone(),
            revision: job.revision,
            status: outcome.status,
            query: job.item.query.clone(),
            task: job.item.task.clone(),
            media: media.collect(),
            best_try: best.map(|t| t.index),
            score: best.and_then(|t| t.score),
            threshold: self.recipe.threshold,
            reasoning_steps: best.map(|t| t.reasoning_steps.clone()).unwrap_or_default(),
            reasoning_answers: best.map(|t| t.reasoning_answers.clone()).unwrap_or_default(),
            final_answer: best.and_then(|t| t.final_answer.clone()),
            caption: best.and_then(|t| t.caption.clone()),
            usage: total_usage(calls()),
            cost_nano_usd: calls().map(|call| call.cost_nano_usd).sum(),
            recipe_digest: self.recipe_digest.clone(),
            error: outcome.error,
            gave_up: outcome.gave_up,
            metadata: job.item.metadata.clone(),
            worker: self.worker.clone(),
            started_at,
            finished_at: jiff::Timestamp::now(),
            tries: outcome.tries,
        }
    }
}

/// A run-ending failure first: a job is not blamed for one medium while this machine cannot read another.
fn first_failure(prepared: &[Result<Arc<Prepared>, MediaError>]) -> Option<&MediaError> {
    let failures = || prepared.iter().filter_map(|p| p.as_ref().err());
    failures().find(|error| fault::of_media(error).is_err()).or_else(|| failures().next())
}

fn medium(source: &MediaRef, prepared: Option<&Arc<Prepared>>) -> RecordMedium {
    let sound = prepared.and_then(|p| p.sound.as_ref());
    RecordMedium {
        name: source.name.clone(),
        kind: kind(source.kind).name().to_owned(),
        uri: without_secrets(&source.uri),
        sha256: prepared.map(|p| p.sha256.clone()),
        bytes: prepared.map(|p| p.bytes),
        duration_s: prepared.and_then(|p| p.duration_ms).map(seconds),
        frames_s: prepared.map(|p| p.frames.iter().map(|f| seconds(f.at_ms)).collect()).unwrap_or_default(),
        audio_s: sound.map(|sound| seconds(sound.duration_ms)),
        audio_trimmed: sound.is_some_and(|sound| sound.trimmed),
        clip: prepared.and_then(|p| p.clip.as_deref()).map(|clip| RecordClip {
            bytes: clip.bytes,
            duration_s: seconds(clip.duration_ms),
            trimmed: clip.trimmed,
            smaller: clip.smaller,
            sound: clip.sound,
        }),
    }
}

fn total_usage<'a>(calls: impl Iterator<Item = &'a RecordCall>) -> Usage {
    calls.fold(Usage::default(), |sum, call| sum.plus(call.usage))
}

fn kind(kind: MediaKind) -> Kind {
    match kind {
        MediaKind::Video => Kind::Video,
        MediaKind::Audio => Kind::Audio,
    }
}

/// Which preparation a medium needs: a clip goes without its sound where the item names another.
fn shown_as(source: &MediaRef) -> Kind {
    match (source.kind, source.own_track) {
        (MediaKind::Video, false) => Kind::Silent,
        (other, _) => kind(other),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a length in milliseconds is far below 2^52")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
