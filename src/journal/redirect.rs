//! Redirects: requests that were handed to their fallback, for good.
//!
//! A redirect is written before the fallback is asked and only where the request has no reply of its own, in one step with
//! looking for that; whoever may use the fallback looks for the redirect after the reply. So all take the same way, whoever
//! holds a claim or has lost it, and a replay takes it again. It belongs to the pair of requests: a run that shares the
//! request and has no fallback, or another one, neither follows it nor is kept from asking.

use serde::{Deserialize, Serialize};

use super::{Canonical, Key};

/// The way from a request to that of its fallback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// The key of the role's own request.
    pub from: Key,
    /// The key of the same for the fallback, under which the reply is.
    pub to: Key,
    /// The fallback's provider.
    pub provider: String,
    /// Its model.
    pub model: String,
}

impl Redirect {
    /// From `own` to `fallback`, which is asked at `provider`.
    pub fn new(own: &Canonical, fallback: &Canonical, provider: &str) -> Self {
        let (provider, model) = (provider.to_owned(), fallback.model.clone());
        Self { from: own.key(), to: fallback.key(), provider, model }
    }
}
