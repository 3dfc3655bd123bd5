//! The configuration as people and programs read it.
//!
//! One line per setting, in the order of the sections, with its origin as a comment: what is shown can be pasted into
//! a file. Secrets are out of it before it gets here.

use std::fmt::Write;

use serde_json::json;

use super::{Loaded, Origin};

/// How settings are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key = value  # origin`, for people.
    Text,
    /// `{"settings": [{"key", "value", "origin"}], "warnings": [..]}`.
    Json,
}

/// Every effective setting with its origin; ends with a line feed.
pub fn show(loaded: &Loaded, format: Format) -> String {
    match format {
        Format::Text => text(loaded),
        Format::Json => {
            let entry = |entry: &super::Entry| json!({ "key": entry.key, "value": entry.value, "origin": entry.origin.to_string() });
            let settings: Vec<_> = loaded.entries.iter().map(entry).collect();
            format!("{:#}\n", json!({ "settings": settings, "warnings": loaded.warnings }))
        }
    }
}

/// What a check of a valid configuration says; ends with a line feed.
pub fn check(loaded: &Loaded) -> String {
    let changed = loaded.entries.iter().filter(|entry| entry.origin != Origin::Default).count();
    let mut out = format!("the configuration is valid: {} settings, {changed} not the default\n", loaded.entries.len());
    for (name, provider) in &loaded.config.providers {
        let keys: Vec<&str> = provider.credentials.iter().map(|key| key.label.as_str()).collect();
        let keys = match (keys.is_empty(), provider.key_sources.is_empty()) {
            (false, _) => format!("key from {}", keys.join(", ")),
            (true, false) => format!("no key: set {}", provider.key_sources.join(" or ")),
            (true, true) => "asked without a key".to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "provider {name} at {}: {keys}", provider.endpoint.base_url);
    }
    out + &warnings(loaded)
}

fn text(loaded: &Loaded) -> String {
    let lines: Vec<(String, String)> = loaded
        .entries
        .iter()
        .map(|entry| (format!("{} = {}", entry.key, entry.value), entry.origin.to_string()))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 72).max().unwrap_or(0);
    let mut out = String::new();
    for (line, origin) in lines {
        let _ = writeln!(out, "{line:width$}  # {origin}");
    }
    out + &warnings(loaded)
}

fn warnings(loaded: &Loaded) -> String {
    loaded.warnings.iter().fold(String::new(), |out, warning| out + "warning: " + warning + "\n")
}
