//! The runs that are active, as the shared state has them: looked at once a second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::board::Board;
use crate::price::Nano;
use crate::shared::runs::{Phase, Runs as Registry};

/// Between two looks: what an operator does acts within this and the job that is being taken.
const LOOK: Duration = Duration::from_secs(1);

/// The board, kept up to date.
pub(super) struct Runs {
    registry: Registry,
    pub(super) board: Board,
    /// Of the active runs.
    ceilings: HashMap<String, Nano>,
    due: Instant,
    /// How many runs there were, and whether a failure has been told.
    known: usize,
    told: bool,
}

impl Runs {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, board: Board::default(), ceilings: HashMap::new(), due: Instant::now(), known: 0, told: false }
    }

    /// When it is looked at next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The most money for a run.
    pub(super) fn ceiling(&self, run: &str) -> Option<Nano> {
        self.ceilings.get(run).copied()
    }

    /// Looks when it is time. Nothing is active while nothing is known. Cancel safe.
    pub(super) async fn refresh(&mut self) {
        if Instant::now() < self.due {
            return;
        }
        let runs = match self.registry.list().await {
            Ok(runs) => {
                self.told = false;
                runs
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(%error, "the shared state does not answer; no job is taken until it does");
                }
                self.board.active(std::iter::empty());
                self.due = Instant::now() + LOOK;
                return;
            }
        };
        if runs.is_empty() && self.known > 0 {
            tracing::error!(
                "the shared state was emptied: runs, paid replies, quota windows and money are forgotten; run each run's \
                 producer again, and what was paid for and not yet collected is paid for again"
            );
        }
        self.known = runs.len();
        let active = || runs.iter().filter(|run| run.phase == Phase::Active && !run.collected.complete);
        self.board.active(active().map(|run| (run.name.as_str(), run.lane)));
        self.ceilings = active().filter_map(|run| Some((run.name.clone(), run.ceiling?))).collect();
        self.due = Instant::now() + LOOK;
    }
}
