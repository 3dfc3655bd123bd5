//! A fleet's pipelines: what all runs of a worker share, and one pipeline for each run.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{OpenError, library, lines, patience, pipeline, upload_bounds};
use crate::agent::caller::{Caller, Live, Meter};
use crate::agent::handover::Handover;
use crate::config::Config;
use crate::fault::Halt;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::lock::lock;
use crate::media::{Library, Stats};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::price::Nano;
use crate::provider::http::Client;
use crate::quota::gate::shared::{Clerks, Shared, step::Ceilings};
use crate::quota::gate::{Gate, Hall};
use crate::recipe::Recipe;
use crate::shared::claims::Claims;
use crate::upload::Uploads;

/// A longer wait for a quota parks its job.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Between an appointment and the end of its call, beside the call itself.
const SLACK: Duration = Duration::from_mins(2);

/// What all runs of a worker share.
#[derive(Debug)]
pub struct Common {
    config: Config,
    client: Client,
    journal: Journal,
    handover: Handover,
    clerks: Clerks,
    hall: Arc<Hall>,
    metrics: Metrics,
    cache: PathBuf,
    /// By media settings, so that runs that prepare alike share decodes and their bounds.
    libraries: Mutex<HashMap<String, (Library, Stats)>>,
}

impl Common {
    /// Joins what is shared; `cache` is where media are kept. Within a tokio runtime.
    ///
    /// # Errors
    /// Certificates that cannot be used.
    pub async fn open(fleet: &Fleet, metrics: Metrics, cache: PathBuf) -> Result<Self, OpenError> {
        let config = fleet.config.clone();
        let client = Client::new(&config.http).map_err(|message| OpenError::Halt(Halt::Setup(message)))?;
        let (redis, claims) = (fleet.redis.clone(), Claims::new(fleet.redis.clone()));
        let uploads = Uploads::shared(redis.clone(), claims.clone(), client.clone(), upload_bounds(&config)).await?;
        Ok(Self {
            client,
            journal: Journal::shared(redis.clone(), claims),
            handover: Handover::new(uploads),
            clerks: Clerks::new(redis),
            hall: Arc::new(Hall::new(Some(LONGEST_WAIT))),
            metrics,
            cache,
            libraries: Mutex::default(),
            config,
        })
    }

    /// The pipeline of a run; `ceiling` is the run's own.
    ///
    /// # Errors
    /// A role lacks its provider, key or price.
    pub fn pipeline(&self, run: &str, recipe: Recipe, ceiling: Option<Nano>) -> Result<Pipeline, OpenError> {
        let lines = lines(&self.config, &recipe).map_err(OpenError::Halt)?;
        let lease = self.config.http.total + SLACK;
        let ceilings = Ceilings { run: ceiling, day: self.config.budget.per_day, all: self.config.budget.total };
        let books = Shared::new(self.clerks.clone(), run, ceilings, lease);
        let live = Live {
            client: self.client.clone(),
            handover: self.handover.clone(),
            gate: Arc::new(Gate::shared(books, Arc::clone(&self.hall))),
            lines,
            patience: patience(&self.config),
            meter: Meter::new(self.metrics.clone()),
        };
        let library = self.library(&recipe)?;
        Ok(pipeline(&self.config, recipe, Caller::live(self.journal.clone(), live), library))
    }

    fn library(&self, recipe: &Recipe) -> Result<Library, OpenError> {
        let key = format!("{:?} {:?}", recipe.media, recipe.wants());
        let mut libraries = lock(&self.libraries);
        if let Some((known, _)) = libraries.get(&key) {
            return Ok(known.clone());
        }
        let made = library(&self.config, recipe, &self.cache)?;
        libraries.insert(key, (made.clone(), Stats::default()));
        Ok(made)
    }

    /// Counts what media have done since it was last called.
    pub fn count_media(&self) {
        let mut libraries = lock(&self.libraries);
        for (library, before) in libraries.values_mut() {
            let now = library.stats();
            self.metrics.media(before, &now);
            *before = now;
        }
    }
}
