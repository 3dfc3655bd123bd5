//! The three roles: what each is asked, what its reply is taken to mean, and how a call is carried through.
//!
//! [`ask`] asks a role until there is a usable reply or its asks are used up; [`caller`] carries one ask through journal,
//! gate and provider. [`prompt`], [`schema`], [`parse`], [`check`] and [`show`] are plain functions.

pub mod ask;
mod breaker;
pub mod caller;
pub mod check;
mod failures;
pub mod handover;
pub mod line;
pub mod meter;
pub mod parse;
pub mod prompt;
pub mod schema;
pub mod show;
