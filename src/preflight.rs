//! `aurelia-worker --preflight`: what a fleet rests on, looked at before work begins.
//!
//! ```text
//! broker   who it is, the rights to work with it, alarms     redis    version, and whether it keeps what it is told
//! machine  ffmpeg, keys, disk, what may be read
//! ```
//!
//! A finding says what was found and the way out. What cannot be looked at is said, with what is assumed instead: silence
//! would pass for good news. Each look is bounded in time; none is repeated, as somebody waits for the answer.

mod broker;
mod machine;
mod redis;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::cli::{Failure, print_whole, visible};
use crate::config::Config;
use crate::fleet::Fleet;

/// Longest look.
const PATIENCE: Duration = Duration::from_secs(10);

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Ok,
    /// It works, and something may be lost or is not known.
    Warning,
    /// It does not work.
    Failed,
}

/// Who has to act on a failed finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Somebody who sets something right.
    Setup,
    /// A server that is away or in trouble: later.
    Away,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found, and the way out.
    pub message: String,
    #[serde(skip)]
    cause: Cause,
}

impl Finding {
    fn new(name: &'static str, level: Level, cause: Cause, message: impl Into<String>) -> Self {
        Self { name, level, message: message.into(), cause }
    }

    fn ok(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, Cause::Setup, message)
    }

    fn warning(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Level::Warning, Cause::Setup, message)
    }

    /// Something is set wrong.
    fn wrong(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Level::Failed, Cause::Setup, message)
    }

    /// A server is away or in trouble.
    fn away(name: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, Level::Failed, Cause::Away, message)
    }
}

/// Looks at everything, says it, and maps it to an exit code. `cache` is where media would be kept.
pub async fn run(config: Config, cache: &Path, json: bool) -> Result<u8, Failure> {
    let fleet = Fleet::open(config, "aurelia-preflight").map_err(Failure::setup)?;
    let findings = look(&fleet, cache).await;
    fleet.close().await;
    let failed: Vec<&Finding> = findings.iter().filter(|finding| finding.level == Level::Failed).collect();
    let text = if json {
        format!("{}\n", serde_json::json!({ "ok": failed.is_empty(), "findings": findings }))
    } else {
        findings.iter().map(line).collect()
    };
    print_whole(&text)?;
    Ok(if failed.is_empty() {
        0
    } else if failed.iter().any(|finding| finding.cause == Cause::Setup) {
        64
    } else {
        75
    })
}

/// All findings.
async fn look(fleet: &Fleet, cache: &Path) -> Vec<Finding> {
    let (broker, management, redis, machine) = tokio::join!(
        broker::look(fleet),
        broker::management(&fleet.config),
        redis::look(&fleet.redis),
        machine::look(&fleet.config, cache),
    );
    [broker, management, redis, machine].concat()
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Failed => "FAILED",
    };
    format!("{level:<8} {:<22} {}\n", finding.name, visible(&finding.message))
}
