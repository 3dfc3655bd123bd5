//! Logs: to standard error, quiet by default, never with media, prompts or keys.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetrySection};

/// The client of the broker logs whole messages that come back unroutable, and as errors what is told to its caller anyway.
const HUSHED: &str = "lapin";

/// Starts logging for the process. A second call changes nothing.
///
/// # Errors
/// The filter is not one.
pub fn start(settings: &TelemetrySection) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| format!("telemetry.log {:?}: {e}", settings.log))?;
    let filter = if settings.log.contains(HUSHED) { filter } else { hush(filter)? };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match settings.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    Ok(())
}

fn hush(filter: EnvFilter) -> Result<EnvFilter, String> {
    let off = format!("{HUSHED}=off").parse().map_err(|e| format!("{HUSHED}=off: {e}"))?;
    Ok(filter.add_directive(off))
}
