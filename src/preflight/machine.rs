//! This machine: programs, keys, disk, and what may be read.

use std::path::Path;

use tokio::process::Command;
use tokio::time::timeout;

use super::{Finding, PATIENCE};
use crate::config::Config;
use crate::context;

const MIB: u64 = 1 << 20;

/// All about it.
pub(super) async fn look(config: &Config, cache: &Path) -> Vec<Finding> {
    vec![programs(config).await, keys(config), disk(config, cache), allowed(config)]
}

async fn programs(config: &Config) -> Finding {
    const NAME: &str = "ffmpeg";
    if let Err(why) = context::tools(config) {
        return Finding::wrong(NAME, why);
    }
    let mut said = Vec::new();
    for (key, program) in [("ffmpeg", &config.media.ffmpeg), ("ffprobe", &config.media.ffprobe)] {
        let asked = Command::new(program).arg("-version").kill_on_drop(true).output();
        let why = match timeout(PATIENCE, asked).await {
            Ok(Ok(output)) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                said.push(
                    text.lines().next().unwrap_or_default().split(" Copyright").next().unwrap_or_default().to_owned(),
                );
                continue;
            }
            Ok(Ok(output)) => output.status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        return Finding::wrong(NAME, format!("{program} -version: {why}; install ffmpeg anew, or set media.{key}"));
    }
    Finding::ok(NAME, said.join(", "))
}

fn keys(config: &Config) -> Finding {
    const NAME: &str = "keys";
    let mut with: Vec<String> = Vec::new();
    let mut wanted = Vec::new();
    for (name, provider) in &config.providers {
        match (provider.credentials.len(), provider.key_sources.is_empty()) {
            (0, true) => with.push(format!("{name} (asked without)")),
            (0, false) => wanted.push(format!("{name}: {}", provider.key_sources.join(" or "))),
            (count, _) => with.push(format!("{name} ({count})")),
        }
    }
    if with.is_empty() {
        return Finding::wrong(NAME, format!("no provider has a key; set one of {}", wanted.join("; ")));
    }
    let without = if wanted.is_empty() { String::new() } else { format!("; none for {}", wanted.join("; ")) };
    Finding::ok(NAME, format!("{}{without}", with.join(", ")))
}

fn disk(config: &Config, cache: &Path) -> Finding {
    const NAME: &str = "media cache";
    let shown = cache.display();
    let made = std::fs::create_dir_all(cache).and_then(|()| tempfile::tempfile_in(cache));
    if let Err(error) = made {
        return Finding::wrong(
            NAME,
            format!("{shown} cannot be written: {error}; set media.cache_dir to a folder that can"),
        );
    }
    let free = match rustix::fs::statvfs(cache) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return Finding::warning(NAME, format!("{shown}: its disk cannot be asked for its space: {error}"));
        }
    };
    let (kept, one) = (config.media.keep_free_bytes, config.media.max_output_mib.saturating_mul(MIB));
    let space = format!("{shown} has {} MiB free", free / MIB);
    if free <= kept {
        let message = format!(
            "{space}, and media.keep_free_gib leaves {} MiB to others: no clip can be prepared; make room, or set media.cache_dir",
            kept / MIB
        );
        return Finding::wrong(NAME, message);
    }
    if free - kept < one {
        let message = format!(
            "{space}, of which media.keep_free_gib leaves {} MiB to others: the largest preparation (media.max_output_mib {}) does not \
             fit; make room",
            kept / MIB,
            config.media.max_output_mib
        );
        return Finding::warning(NAME, message);
    }
    Finding::ok(NAME, space)
}

fn allowed(config: &Config) -> Finding {
    const NAME: &str = "sources";
    match config.store.allow.len() {
        0 => Finding::warning(
            NAME,
            "[store] allow is empty, so no clip may be read and every job fails; set it to the prefixes that jobs may name",
        ),
        count => Finding::ok(NAME, format!("[store] allow names {count}")),
    }
}
