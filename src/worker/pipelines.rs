//! The pipeline of each run, made when its first job comes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::context::OpenError;
use crate::context::fleet::Common;
use crate::fault::Halt;
use crate::pipeline::Pipeline;
use crate::price::Nano;
use crate::recipe::Recipe;
use crate::shared::runs::Runs;
use crate::state::StateError;

/// So many are kept: each holds a recipe and little else.
const KEPT: usize = 64;

/// Pipelines by run and recipe.
pub(super) struct Pipelines {
    runs: Runs,
    common: Common,
    made: Mutex<HashMap<Name, Arc<Pipeline>>>,
}

/// Run, recipe digest, ceiling.
type Name = (String, String, Option<Nano>);

/// Why a job has no pipeline.
pub(super) enum NoPipeline {
    /// Nobody has registered this recipe since the shared state was last emptied.
    NoRecipe,
    /// The shared state.
    State(StateError),
    /// Configuration, keys, prices of this worker.
    Halt(Halt),
}

impl Pipelines {
    pub(super) fn new(runs: Runs, common: Common) -> Self {
        Self { runs, common, made: Mutex::default() }
    }

    /// See [`Common::count_media`].
    pub(super) fn count_media(&self) {
        self.common.count_media();
    }

    /// The pipeline of a job of this run, which may cost as much as `ceiling`, with this recipe.
    pub(super) async fn of(&self, run: &str, digest: &str, ceiling: Option<Nano>) -> Result<Arc<Pipeline>, NoPipeline> {
        let name = (run.to_owned(), digest.to_owned(), ceiling);
        let mut made = self.made.lock().await;
        if let Some(known) = made.get(&name) {
            return Ok(Arc::clone(known));
        }
        let json = self.runs.recipe(digest).await.map_err(NoPipeline::State)?.ok_or(NoPipeline::NoRecipe)?;
        let recipe = Recipe::from_json(&json)
            .map_err(|e| NoPipeline::Halt(Halt::Setup(format!("recipe {digest} of run {run:?}: {e}"))))?;
        let pipeline = self.common.pipeline(run, recipe, ceiling).map_err(|error| match error {
            OpenError::State(error) => NoPipeline::State(error),
            OpenError::Halt(halt) => NoPipeline::Halt(halt),
        })?;
        if made.len() >= KEPT {
            made.clear();
        }
        let pipeline = Arc::new(pipeline);
        made.insert(name, Arc::clone(&pipeline));
        Ok(pipeline)
    }
}
