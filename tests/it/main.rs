//! Integration tests: one binary, so that everything is linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]

mod budget;
mod cache;
mod clips;
mod corpus;
mod ends;
mod faults;
mod formats;
#[cfg(feature = "fleet")]
mod health;
mod hostile;
mod limits;
mod load;
mod media;
#[cfg(feature = "fleet")]
mod operations;
mod parity;
#[cfg(feature = "fleet")]
mod queue;
mod replay;
mod resources;
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

/// Nothing that a test waits for takes so long, on the slowest machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(2);
