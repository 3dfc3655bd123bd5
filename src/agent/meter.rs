//! What calls are counted with: the metrics of a daemon, and nothing in a program that serves none.

use std::time::Duration;

use crate::price::Nano;
use crate::provider::{CallErrorKind, Role, Usage};
use crate::quota::Scarce;

/// Counts calls. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    #[cfg(feature = "fleet")]
    metrics: Option<crate::metrics::Metrics>,
}

/// One call that has ended.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "fleet"), expect(dead_code, reason = "a program without metrics counts nothing"))]
pub(super) struct Ended<'a> {
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
    pub(super) role: Role,
    pub(super) failure: Option<CallErrorKind>,
    pub(super) took: Duration,
    pub(super) usage: Usage,
    pub(super) cost: Nano,
}

#[cfg(feature = "fleet")]
impl Meter {
    /// Counts here.
    pub fn new(metrics: crate::metrics::Metrics) -> Self {
        Self { metrics: Some(metrics) }
    }

    pub(super) fn looked(&self, found: crate::metrics::Look) {
        self.with(|metrics| metrics.journal_look(found));
    }

    pub(super) fn hit(&self) {
        self.looked(crate::metrics::Look::Hit);
    }

    pub(super) fn claimed(&self) {
        self.looked(crate::metrics::Look::Claimed);
    }

    pub(super) fn waited(&self) {
        self.looked(crate::metrics::Look::Waited);
    }

    pub(super) fn reserved(&self, wait: Duration) {
        self.with(|metrics| metrics.reserved(wait));
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.with(|metrics| metrics.refused(reason));
    }

    pub(super) fn cut(&self, limit: Scarce) {
        self.with(|metrics| metrics.limit_cut(limit));
    }

    pub(super) fn stored(&self, first: bool) {
        self.with(|metrics| if first { metrics.reply_stored() } else { metrics.duplicate_reply() });
    }

    pub(super) fn redirected(&self) {
        self.with(crate::metrics::Metrics::redirected);
    }

    pub(super) fn held(&self, replies: usize) {
        self.with(|metrics| metrics.replies_held(replies));
    }

    pub(super) fn ended(&self, call: &Ended<'_>) {
        let outcome = match call.failure {
            None => "ok",
            Some(CallErrorKind::Throttled) => "throttled",
            Some(CallErrorKind::DayExhausted) => "day_exhausted",
            Some(CallErrorKind::Unavailable) => "unavailable",
            Some(CallErrorKind::Refused) => "refused",
            Some(CallErrorKind::KeyRefused) => "key_refused",
            Some(CallErrorKind::ModelUnknown) => "model_unknown",
            Some(CallErrorKind::FileGone | CallErrorKind::FileNotReady) => "file",
        };
        let Ended { provider, model, role, took, usage, cost, .. } = *call;
        let (input_tokens, output_tokens) = (usage.input_tokens, usage.output_tokens + usage.thinking_tokens);
        let latency = took;
        let call = crate::metrics::Call { provider, model, role, outcome, latency, input_tokens, output_tokens, cost };
        self.with(|metrics| metrics.call(&call));
    }

    fn with(&self, count: impl FnOnce(&crate::metrics::Metrics)) {
        if let Some(metrics) = &self.metrics {
            count(metrics);
        }
    }
}

#[cfg(not(feature = "fleet"))]
#[expect(clippy::unused_self, reason = "a program without metrics counts nothing")]
impl Meter {
    pub(super) fn hit(&self) {}
    pub(super) fn claimed(&self) {}
    pub(super) fn waited(&self) {}
    pub(super) fn reserved(&self, _: Duration) {}
    pub(super) fn refused(&self, _: &'static str) {}
    pub(super) fn cut(&self, _: Scarce) {}
    pub(super) fn stored(&self, _: bool) {}
    pub(super) fn redirected(&self) {}
    pub(super) fn held(&self, _: usize) {}
    pub(super) fn ended(&self, _: &Ended<'_>) {}
}
