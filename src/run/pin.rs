//! What a directory is pinned to: one run, one recipe, one state.
//!
//! What was paid for one question must not be filed under another, so a directory that was begun otherwise is refused with
//! what to do about it.

use std::fs;
use std::path::Path;

use rusqlite::OptionalExtension;

use super::directory::state_path;
use super::{Options, RunError};
use crate::config::{Config, Shared};
use crate::recipe::Recipe;
use crate::state::State;

/// Checks that a directory, if it is there, was begun with this recipe; changes nothing.
pub async fn pinned_to(config: &Config, out: &Path, recipe: &Recipe) -> Result<(), RunError> {
    let path = state_path(config, out);
    if !path.exists() || !matches!(config.shared, Shared::Output) {
        return Ok(());
    }
    let state = State::open_to_read(&path)?;
    let begun: Option<String> =
        state.read(|c| c.query_row("SELECT recipe_digest FROM runs", [], |r| r.get(0)).optional()).await?;
    match begun {
        Some(begun) if begun != recipe.digest() => Err(other_recipe(out, &begun, &recipe.digest())),
        _ => Ok(()),
    }
}

fn other_recipe(out: &Path, begun: &str, now: &str) -> RunError {
    RunError::Setup(format!(
        "{} was begun with recipe {}, and this one is {}; use another --out, or the recipe it was begun with \
         (a changed threshold, number of tries or model is another recipe; a key that appeared or is gone can change a model)",
        out.display(),
        &begun[..begun.len().min(12)],
        &now[..now.len().min(12)]
    ))
}

/// A directory stays with the state it was begun with: another one knows nothing of what was paid.
pub(super) fn same_state(inner: &Path, shared: &Shared) -> Result<(), RunError> {
    let failed = |e: std::io::Error| RunError::Failed(format!("{}: {e}", inner.display()));
    let now = if let Shared::Embedded(path) = shared {
        std::path::absolute(path).map_err(failed)?.display().to_string()
    } else {
        "in the directory".to_owned()
    };
    let note = inner.join("state-is");
    match fs::read_to_string(&note) {
        Ok(begun) if begun == now => Ok(()),
        Ok(begun) => Err(RunError::Setup(format!(
            "{} was begun with its state {begun}, and it is now {now}; set [shared] url as it was, or use another --out",
            inner.parent().unwrap_or(inner).display()
        ))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => fs::write(&note, now).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

/// The run's name, once run and recipe are known to be those of the directory.
pub(super) async fn pin(
    state: &State,
    place: &str,
    name: String,
    recipe: &Recipe,
    options: &Options,
) -> Result<String, RunError> {
    let (digest, json) = (recipe.digest(), recipe.to_json());
    if !options.pinned {
        return Ok(format!("{name}-{}", &digest[..8]));
    }
    let (place, wanted) = (place.to_owned(), digest.clone());
    let (run, there, pinned) = state
        .call(move |c| {
            let known: Option<(String, String)> = c
                .query_row("SELECT run, recipe_digest FROM runs WHERE directory = ?1", [&place], |r| {
                    Ok((r.get(0)?, r.get(1)?))
                })
                .optional()?;
            if let Some((run, digest)) = known {
                return Ok((run, place, digest));
            }
            c.execute("INSERT OR IGNORE INTO runs VALUES (?1, ?2, ?3, ?4)", (&name, &place, &wanted, &json))?;
            let there = c.query_row("SELECT directory FROM runs WHERE run = ?1", [&name], |r| r.get(0))?;
            Ok((name, if there == place { place } else { there }, wanted))
        })
        .await?;
    let out = options.out.display();
    if there != "." && fs::canonicalize(&options.out).is_ok_and(|own| own.display().to_string() != there) {
        return Err(RunError::Setup(format!(
            "the shared state has a run {run:?} already, of {there}; name this one with --run NAME"
        )));
    }
    if let Some(asked) = options.name.as_ref().filter(|asked| **asked != run) {
        return Err(RunError::Setup(format!("{out} belongs to run {run:?}, not {asked:?}; use another --out")));
    }
    if pinned != digest {
        return Err(other_recipe(&options.out, &pinned, &digest));
    }
    Ok(run)
}

/// What a run is called that was given no name.
pub(super) fn folder_name(path: &Path) -> std::io::Result<String> {
    let full = fs::canonicalize(path)?;
    Ok(full.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned()))
}
