//! Integration tests: one binary, so that everything is linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]

mod budget;
mod cache;
mod clips;
#[cfg(feature = "fleet")]
mod collector;
mod corpus;
mod day;
mod ends;
mod fallback;
mod faults;
#[cfg(feature = "fleet")]
mod fleet;
/// The simulation of the bench of that name.
#[path = "../../benches/day/fleet.rs"]
#[allow(dead_code, reason = "shared with the bench")]
mod fleet_on_paper;
mod formats;
#[cfg(feature = "fleet")]
mod health;
mod hostile;
mod limits;
mod load;
mod media;
#[cfg(feature = "fleet")]
mod money;
#[cfg(feature = "fleet")]
mod operations;
#[cfg(feature = "fleet")]
mod pace;
mod parity;
#[cfg(feature = "fleet")]
mod preflight;
#[cfg(feature = "fleet")]
mod producer;
#[cfg(feature = "fleet")]
mod queue;
#[cfg(feature = "fleet")]
mod quota;
mod recost;
mod replay;
mod resources;
#[cfg(feature = "fleet")]
mod retry;
mod run;
#[cfg(feature = "fleet")]
mod s3;
mod setup;
#[cfg(feature = "fleet")]
mod shared;
mod simulator;
mod sources;
mod ssrf;
mod support;
mod uploads;
#[cfg(feature = "fleet")]
mod worker;

/// Nothing that a test waits for takes so long, on the slowest machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(2);
