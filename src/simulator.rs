//! A stand-in for the paid APIs: the Gemini and OpenAI protocols with quotas, latencies, faults and deterministic answers.
//!
//! It knows only what a provider sees. Which role is asked, which try it is and which item it is about are read from the
//! prompt's text; answers are a function of that text and of the media, so any number of simulators agree, and one that is
//! restarted goes on where it was. It keeps its own books, with its own prices, so that a client's accounts can be
//! checked against somebody else's. Recorded replies were rejected: they answer only what was asked before, and load
//! and chaos tests ask what nobody asked before. What it does remember are uploaded files (digests, never bytes), as the
//! provider does: for as long as it runs.
//!
//! Besides the protocols it answers `GET /stats`, `POST /stats/reset`, `POST /control` (a merge patch of [`Settings`]) and
//! `GET /healthz`. These have no authentication: it is a test tool, and listens on the loopback address by default.

mod answer;
mod blob;
mod books;
mod call;
pub mod cli;
mod directive;
mod draw;
mod fault;
mod files;
mod gemini;
mod line;
mod measure;
mod models;
mod openai;
mod prompt;
mod respond;
mod router;
mod script;
mod settings;
mod shape;
mod window;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use books::Stats;
pub use directive::Style;
pub use files::{FileFaults, FileSettings, FileStats, Projects, Scripted};
pub use models::Model;
pub use settings::{Faults, Flavour, Keys, Latency, Limit, Settings};
pub use window::LimitUse;

use books::Ledger;
use window::Windows;

use crate::provider::Protocol;

/// A running simulator. Dropping it ends it at once, connections included.
pub struct Simulator {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    _ends_with_it: DropGuard,
}

/// What every call sees.
pub(crate) struct Shared {
    /// Settings, with their fault kinds expanded.
    settings: RwLock<(Arc<Settings>, Arc<Vec<fault::Fault>>)>,
    ledger: Ledger,
    files: files::Store,
    started: Instant,
    answers: AtomicU64,
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

impl Simulator {
    /// Listens on `addr` (port 0: any free one) and serves until it is stopped or dropped.
    /// Errors: settings that do not hold (`InvalidInput`), an address that cannot be bound.
    pub async fn start(settings: Settings, addr: SocketAddr) -> io::Result<Self> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        settings.check().map_err(invalid)?;
        let kinds = fault::expand(&settings.faults.kinds).map_err(invalid)?;
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            ledger: Ledger::new(Windows::new(&settings.limits)),
            files: files::Store::new(),
            settings: RwLock::new((Arc::new(settings), Arc::new(kinds))),
            started: Instant::now(),
            answers: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(router::serve(Arc::clone(&shared), listener, stop.clone()));
        Ok(Self { addr, shared, tasks, _ends_with_it: stop.clone().drop_guard(), stop })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://HOST:PORT`, for either protocol; OpenAI clients add `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What was counted since the start or the last reset.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Sets all counts, windows and memories to zero; uploaded files stay.
    pub fn reset_stats(&self) {
        self.shared.reset();
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.shared.settings().as_ref().clone()
    }

    /// Changes settings while it runs. Changed limits begin with empty windows. Errors: settings that do not hold.
    pub fn set(&self, settings: Settings) -> Result<(), String> {
        self.shared.set(settings)
    }

    /// Ends it: connections are cut, and it returns when the last is gone.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Shared {
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// The fault kinds of these settings, expanded; those in force are not expanded again.
    pub(crate) fn kinds(&self, settings: &Settings) -> Arc<Vec<fault::Fault>> {
        let held = self.settings.read().unwrap_or_else(PoisonError::into_inner);
        if held.0.faults.kinds == settings.faults.kinds {
            Arc::clone(&held.1)
        } else {
            Arc::new(fault::expand(&settings.faults.kinds).unwrap_or_default())
        }
    }

    pub(crate) fn set(&self, settings: Settings) -> Result<(), String> {
        settings.check()?;
        let kinds = fault::expand(&settings.faults.kinds)?;
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        if held.0.limits != settings.limits {
            self.ledger.books().windows = Windows::new(&settings.limits);
        }
        *held = (Arc::new(settings), Arc::new(kinds));
        Ok(())
    }

    pub(crate) fn reset(&self) {
        let windows = Windows::new(&self.settings().limits);
        self.ledger.books().reset(windows);
        self.files.reset();
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { files: self.files.stats(self.now_us() / 1_000), ..self.ledger.stats() }
    }

    /// Microseconds since the start.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Headers that come with every answer, refusals included.
    pub(crate) fn request_headers(&self, settings: &Settings, protocol: Protocol) -> Vec<(&'static str, String)> {
        let n = self.answers.fetch_add(1, Ordering::Relaxed);
        match (protocol, settings.openai_flavour) {
            (Protocol::Openai, Flavour::Openai) => vec![
                ("x-request-id", format!("req_{:032x}", draw::digest(&[&n.to_le_bytes()]))),
                ("openai-organization", "org-simulated".to_owned()),
                ("openai-version", "2020-10-01".to_owned()),
            ],
            (Protocol::Openai, Flavour::Vllm) => Vec::new(),
            (Protocol::Gemini, _) => vec![("server", "scaffolding on HTTPServer2".to_owned())],
        }
    }
}
