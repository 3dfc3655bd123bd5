//! What a simulator can be told: one plain struct, the same in code, over HTTP and on the command line.
//!
//! A change while it runs is a JSON merge patch (RFC 7396) over the settings in force, checked as a whole before it
//! holds, so a half-valid change changes nothing. A rate is a limit per window rather than per minute, because providers
//! enforce a minute's rate over shorter windows, and that is what a client must survive.

use std::collections::BTreeSet;
use std::fmt;

use globset::Glob;
use serde::{Deserialize, Serialize};

use super::directive::Style;
use super::draw;
use super::fault;
use super::files::FileSettings;
use super::models::Model;

/// One millisecond-counted day: limits this long or longer answer as daily quotas do.
pub(crate) const DAY_MS: u64 = 86_400_000;

/// Everything a simulator can be told. The default answers at once, without limits or faults.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Of fault and latency draws; answers do not depend on it.
    pub seed: u64,
    /// How the OpenAI side behaves.
    pub openai_flavour: Flavour,
    /// Time to answer a generation call.
    pub latency: Latency,
    /// Quotas, each per key and model. Empty: none.
    pub limits: Vec<Limit>,
    /// What goes wrong.
    pub faults: Faults,
    /// Which keys are refused.
    pub keys: Keys,
    /// Models beyond the built-in ones, with their prices.
    pub models: Vec<Model>,
    /// How JSON replies are dressed, where the item does not say.
    pub style: Style,
    /// Take media bytes for what their type says, unchecked (base64 is always checked).
    pub trust_media: bool,
    /// Uploads and files of the Gemini side.
    pub files: FileSettings,
}

/// How the OpenAI side behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// As api.openai.com.
    #[default]
    Openai,
    /// As a vLLM server: any model, unknown fields and `response_format` ignored, integer error codes, no rate headers.
    Vllm,
}

/// Distribution of the time to answer, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    Fixed {
        /// Milliseconds.
        ms: u64,
    },
    /// Even between two bounds.
    Uniform {
        /// Least, milliseconds.
        min_ms: u64,
        /// Most, milliseconds.
        max_ms: u64,
    },
    /// A long tail.
    Lognormal {
        /// Median, milliseconds.
        p50_ms: u64,
        /// 99th percentile, milliseconds.
        p99_ms: u64,
    },
}

impl Default for Latency {
    fn default() -> Self {
        Self::Fixed { ms: 0 }
    }
}

impl Latency {
    /// The `n`th draw for `id`, in milliseconds, at most an hour.
    pub(crate) fn draw(self, id: u128, n: u64) -> u64 {
        match self {
            Self::Fixed { ms } => ms,
            Self::Uniform { min_ms, max_ms } => min_ms + draw::bits(id, "latency", n) % (max_ms - min_ms + 1),
            Self::Lognormal { p50_ms, p99_ms } => {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^52")]
                let (p50, p99) = (p50_ms.max(1) as f64, p99_ms.max(1) as f64);
                // 2.3263 is the 99th percentile of the standard normal distribution.
                let sigma = (p99 / p50).ln() / 2.3263;
                let ms = (p50 * (sigma * draw::normal(id, "latency", n)).exp()).clamp(0.0, 3_600_000.0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped just above")]
                let ms = ms as u64;
                ms
            }
        }
    }
}

/// A quota over a sliding window, counted per key and model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Glob over model names.
    #[serde(default = "any_model")]
    pub model: String,
    /// Requests per window; absent: not limited.
    #[serde(default)]
    pub requests: Option<u64>,
    /// Tokens per window (Gemini: prompt; OpenAI: prompt and the maximum output asked for); absent: not limited.
    #[serde(default)]
    pub tokens: Option<u64>,
    /// Length of the window in milliseconds. A day or more answers as a daily quota.
    #[serde(default = "a_minute")]
    pub window_ms: u64,
    /// Refusals do not say which limit was met, nor for how long.
    #[serde(default)]
    pub bare: bool,
}

fn any_model() -> String {
    "*".to_owned()
}

fn a_minute() -> u64 {
    60_000
}

/// What goes wrong, how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Share of calls hit, 0 to 1.
    pub rate: f64,
    /// Names and groups (`transport`, `reply`, `all`), drawn evenly; a name listed twice is drawn twice as often.
    pub kinds: Vec<String>,
    /// At most this many drawn faults in a row on one request; 0: no bound.
    pub max_consecutive: u64,
    /// How long a stalled answer takes, in milliseconds.
    pub stall_ms: u64,
    /// How long a slow body takes, in milliseconds.
    pub slow_ms: u64,
    /// The delay a 429 fault asks for, in milliseconds.
    pub retry_delay_ms: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rate: 0.0,
            kinds: vec!["all".to_owned()],
            max_consecutive: 2,
            stall_ms: 120_000,
            slow_ms: 2_000,
            retry_delay_ms: 1_681,
        }
    }
}

/// Which keys are refused; any other that is not empty is accepted.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// Answered as keys that are not valid (any more).
    pub revoked: BTreeSet<String>,
    /// Answered as keys whose project has no billing.
    pub no_billing: BTreeSet<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} revoked, {} without billing)", self.revoked.len(), self.no_billing.len())
    }
}

impl Settings {
    /// These settings with a JSON merge patch (RFC 7396) over them. Errors: unknown fields, values out of range.
    pub fn patched(&self, patch: &serde_json::Value) -> Result<Self, String> {
        let mut value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        merge(&mut value, patch);
        let settings: Self =
            serde_json::from_value(value).map_err(|error| format!("settings are not valid: {error}"))?;
        settings.check()?;
        Ok(settings)
    }

    /// Checks what the types cannot say. Errors name the setting, the value and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.faults.rate) {
            return Err(format!("faults.rate {} is not between 0 and 1", self.faults.rate));
        }
        fault::expand(&self.faults.kinds)?;
        self.files.check()?;
        match self.latency {
            Latency::Uniform { min_ms, max_ms } if min_ms > max_ms || max_ms > 3_600_000 => {
                return Err(format!("latency {min_ms}..{max_ms} ms is not a range within an hour"));
            }
            Latency::Lognormal { p50_ms, p99_ms } if p50_ms > p99_ms => {
                return Err(format!("latency p50 {p50_ms} ms is above its p99 {p99_ms} ms"));
            }
            _ => {}
        }
        for limit in &self.limits {
            Glob::new(&limit.model).map_err(|error| format!("limit model {:?} is no glob: {error}", limit.model))?;
            if limit.window_ms == 0 || limit.requests == Some(0) || limit.tokens == Some(0) {
                return Err(format!("limit on {:?} has a 0; leave out what is not limited", limit.model));
            }
        }
        Ok(())
    }
}

/// RFC 7396, but enums with one member (a latency) are replaced whole.
fn merge(target: &mut serde_json::Value, patch: &serde_json::Value) {
    let (Some(members), Some(changes)) = (target.as_object_mut(), patch.as_object()) else {
        *target = patch.clone();
        return;
    };
    for (key, change) in changes {
        if change.is_null() {
            members.remove(key);
        } else if key == "latency" {
            members.insert(key.clone(), change.clone());
        } else {
            merge(members.entry(key.clone()).or_insert(serde_json::Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_null_restores_the_default() {
        let first = Settings::default()
            .patched(&json!({"faults": {"rate": 0.5}, "latency": {"uniform": {"min_ms": 1, "max_ms": 2}}}));
        let first = first.unwrap();
        assert!((first.faults.rate - 0.5).abs() < f64::EPSILON);
        assert_eq!(first.faults.max_consecutive, 2);
        let second = first.patched(&json!({"faults": null, "latency": {"fixed": {"ms": 3}}})).unwrap();
        assert_eq!(second, Settings { latency: Latency::Fixed { ms: 3 }, ..Settings::default() });
    }

    #[test]
    fn a_wrong_patch_is_refused_whole() {
        for patch in [
            json!({"fault": {}}),
            json!({"faults": {"rate": 2}}),
            json!({"faults": {"kinds": ["nope"]}}),
            json!({"limits": [{"model": "*", "requests": 0}]}),
            json!({"limits": [{"model": "[", "requests": 1}]}),
            json!({"latency": {"uniform": {"min_ms": 5, "max_ms": 2}}}),
            json!({"files": {"life": 1}}),
            json!({"files": {"granularity": 0}}),
            json!({"files": {"faults": {"rate": -1}}}),
            json!({"files": {"faults": {"script": [{"fault": "nope"}]}}}),
        ] {
            assert!(Settings::default().patched(&patch).is_err(), "{patch}");
        }
    }

    #[test]
    fn a_lognormal_latency_has_its_median_and_tail() {
        let latency = Latency::Lognormal { p50_ms: 100, p99_ms: 1_000 };
        let mut draws: Vec<u64> = (0..5_000).map(|n| latency.draw(3, n)).collect();
        draws.sort_unstable();
        assert!((90..110).contains(&draws[2_500]), "median {}", draws[2_500]);
        assert!((750..1_350).contains(&draws[4_950]), "p99 {}", draws[4_950]);
    }

    #[test]
    fn keys_are_not_shown_in_debug_output() {
        let settings =
            Settings { keys: Keys { revoked: ["secret-key".into()].into(), ..Keys::default() }, ..Settings::default() };
        let settings = settings.patched(&json!({"files": {"projects": {"secret-key": "one"}}})).unwrap();
        assert!(!format!("{settings:?}").contains("secret-key"));
    }
}
