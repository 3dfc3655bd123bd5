//! Aurelia turns clips and questions into scored audio-visual reasoning records.
//!
//! The one idea: the reply cache is the journal. What the loop asks next depends only on the job, its recipe and the
//! replies so far, and every reply that was paid for is stored under the hash of its request before it is used. So a
//! job killed anywhere is run again from its start, and what it had paid for is read instead of asked.
//!
//! The modules, in reading order (scrolling down is drilling down):

// What is asked, how, and what comes out.
pub mod corpus;
pub mod job;
pub mod message;
pub mod recipe;
pub mod record;

// From records to a data set.
#[cfg(feature = "fleet")]
pub mod collector;

// One job's way: run -> pipeline -> media, refine -> agent.
pub mod run;
#[cfg(feature = "fleet")]
pub mod worker;

pub mod pipeline;

pub mod refine;

pub mod media;

pub mod agent;

// What a call rests on.
pub mod fault;
pub mod journal;
mod lock;
pub mod price;
pub mod provider;
#[cfg(feature = "fleet")]
pub mod queue;
pub mod quota;
pub mod retry;
#[cfg(feature = "fleet")]
pub mod s3;
#[cfg(feature = "fleet")]
pub mod shared;
pub mod state;
pub mod upload;

// The process.
pub mod cli;
pub mod config;
pub mod context;
#[cfg(feature = "fleet")]
pub mod fleet;
#[cfg(feature = "fleet")]
pub mod health;
#[cfg(feature = "fleet")]
pub mod metrics;
#[cfg(feature = "fleet")]
pub mod preflight;
#[cfg(feature = "fleet")]
pub mod producer;
pub mod shutdown;
pub mod telemetry;

// For trying it out and for tests.
pub mod demo;
pub mod simulator;
