//! A simulator with a runtime of its own.

use std::net::{Ipv4Addr, SocketAddr};

use aurelia::simulator::{Settings, Simulator, Stats};
use tokio::runtime::Runtime;

/// A simulator in this process.
pub(crate) struct Sim {
    // Dropped in this order: the simulator's tasks end within the runtime.
    simulator: Simulator,
    runtime: Runtime,
}

impl Sim {
    pub(crate) fn start(settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = runtime.block_on(Simulator::start(settings, anywhere)).unwrap();
        Self { simulator, runtime }
    }

    /// One that answers at once, without limits or faults.
    pub(crate) fn plain() -> Self {
        Self::start(Settings::default())
    }

    /// One that answers after so many milliseconds: slow enough to be caught in the act.
    pub(crate) fn slow(ms: u64) -> Self {
        Self::start(Settings { latency: aurelia::simulator::Latency::Fixed { ms }, ..Settings::default() })
    }

    pub(crate) fn base_url(&self) -> String {
        self.simulator.base_url()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.simulator.stats()
    }

    /// Calls that arrived so far.
    pub(crate) fn received(&self) -> u64 {
        self.stats().received
    }

    /// Calls by role that were answered whole so far: generator, summarizer, evaluator.
    pub(crate) fn answered(&self) -> [u64; 3] {
        let by_role = self.stats().answered_by_role;
        ["generator", "summarizer", "evaluator"].map(|role| by_role.get(role).copied().unwrap_or(0))
    }

    /// How many calls `work` makes arrive.
    pub(crate) fn counted<T>(&self, work: impl FnOnce() -> T) -> (u64, T) {
        let before = self.received();
        let result = work();
        (self.received() - before, result)
    }

    /// Changes settings while it runs.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.simulator.settings();
        change(&mut settings);
        self.simulator.set(settings).unwrap();
    }

    /// The runtime, for what a test serves itself.
    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}
