//! What the commands that look after a fleet work with: its broker and its Redis, within a bounded time.
//!
//! A daemon waits for its servers as long as it takes; a command that somebody waits for does not.

use std::time::Duration;

use tokio::time::timeout;

use super::{ConfigFiles, Failure, configure};
use crate::fleet::Fleet;
use crate::queue::{QueueError, QueueErrorKind, State};
use crate::shared::runs::RunInfo;
use crate::state::StateError;

/// Longest wait for the broker.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// Opens what a command works with.
pub(super) fn open(files: &ConfigFiles) -> Result<Fleet, Failure> {
    let config = configure(files)?.config;
    Fleet::open(config, "aurelia").map_err(Failure::setup)
}

/// Runs a command on the fleet, and says good-bye to the broker whatever came of it.
pub(super) async fn with_fleet<T>(
    files: &ConfigFiles,
    command: impl AsyncFnOnce(&Fleet) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let fleet = open(files)?;
    let result = command(&fleet).await;
    fleet.close().await;
    result
}

/// Waits until the broker is there.
pub(super) async fn reach(fleet: &Fleet) -> Result<(), Failure> {
    for link in [&fleet.outgoing, &fleet.incoming] {
        let mut state = link.state();
        let connected = timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Connecting(_)))).await;
        if !matches!(connected, Ok(Ok(_))) {
            let why = match &*link.state().borrow() {
                State::Connecting(why) => why.clone(),
                _ => "it was lost again".to_owned(),
            };
            return Err(away(why));
        }
    }
    Ok(())
}

/// Asks the broker for something; no answer in time is an end with 75.
pub(super) async fn ask<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, Failure> {
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| queue_failure(&error)),
        Err(_) => Err(away(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

fn away(why: impl std::fmt::Display) -> Failure {
    Failure::later(format!("the broker cannot be asked: {why}; is it up, and queue.url right?"))
}

/// What an error of the broker means to whoever waits for a command.
pub(super) fn queue_failure(error: &QueueError) -> Failure {
    match error.kind {
        QueueErrorKind::Unavailable | QueueErrorKind::Stopped | QueueErrorKind::Refused => away(error),
        QueueErrorKind::Denied => Failure::setup(format!("{error}; the user of queue.url lacks the right")),
        QueueErrorKind::Topology | QueueErrorKind::Invalid => Failure::failed(error.to_string()),
    }
}

/// What an error of Redis means to whoever waits for a command.
pub(super) fn state_failure(error: &StateError) -> Failure {
    Failure::later(format!("Redis cannot be asked: {error}; is it up, and shared.url right?"))
}

/// The run of this name; there is none: those there are.
pub(super) async fn run(fleet: &Fleet, name: &str) -> Result<RunInfo, Failure> {
    if let Some(run) = fleet.runs.get(name).await.map_err(|error| state_failure(&error))? {
        return Ok(run);
    }
    let known = fleet.runs.list().await.map_err(|error| state_failure(&error))?;
    let names: Vec<&str> = known.iter().map(|run| run.name.as_str()).collect();
    let known = if names.is_empty() { "there are none".to_owned() } else { format!("known are: {}", names.join(", ")) };
    Err(Failure::setup(format!("there is no run {name:?}; {known} (shared.prefix {:?})", fleet.redis.prefix())))
}
