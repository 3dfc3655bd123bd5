//! Objects of S3, by the official client: credentials, signatures and addresses are its matter, patience is ours.
//!
//! The client has no retries, no time limits and no watch over slow streams of its own: attempts, deadlines and outages are
//! those of every other source, and two budgets on top of each other would multiply. Only GET is used, also to ask whether
//! an object changed: a refused HEAD has no body and so does not say why. Nothing is built or asked before the first
//! object is wanted.

mod client;
mod fault;
mod list;

pub(super) use self::client::{Buckets, Client, Stream};
pub use self::list::Listing;

/// Why this build cannot fetch from S3.
pub(super) const LACKS: Option<&str> = None;
