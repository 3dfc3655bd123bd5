//! The harness: the real binary as a child process, against a simulator in this process.
//!
//! ```text
//! Sim::start(settings)       both protocols on a free port
//! Workdir::new()             a folder with clips, corpora and outputs; dropped, it checks what every test promises
//! Aurelia::new(&work, &sim)  .corpus(..)  .args(..)  .env(..)  .config(..)  then  .run() -> Output  or  .spawn() -> Running
//! ```
//!
//! Tests are plain functions: the simulator brings its own runtime. The child's environment is empty but for `PATH`, a
//! home, keys and base URLs, so that a developer's keys and proxies neither leak in nor are paid with. Limits are lifted
//! and waits are short; a test that is about them says so in `.config(..)`, which comes later and so wins.

#[cfg(feature = "fleet")]
pub(crate) mod broker;
#[cfg(feature = "fleet")]
pub(crate) mod cable;
pub(crate) mod clips;
pub(crate) mod command;
#[cfg(feature = "fleet")]
pub(crate) mod fleet;
pub(crate) mod https;
pub(crate) mod promises;
pub(crate) mod proxy;
#[cfg(feature = "fleet")]
pub(crate) mod redis;
pub(crate) mod relay;
#[cfg(feature = "fleet")]
pub(crate) mod s3;
pub(crate) mod sim;
pub(crate) mod workdir;

use std::time::{Duration, Instant};

#[cfg(feature = "fleet")]
pub(crate) use broker::Broker;
#[cfg(feature = "fleet")]
pub(crate) use cable::Cable;
pub(crate) use command::{Aurelia, Output, Running};
pub(crate) use relay::{Relay, Sent, client};
pub(crate) use sim::Sim;
pub(crate) use workdir::{Workdir, corpus, records, superseded};

/// Nothing here takes so long; each test binary says how long that is.
pub(crate) const PATIENCE: Duration = super::PATIENCE;

/// Looks again and again until there is something; a test that waits for nothing ends in a panic that says for what.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
