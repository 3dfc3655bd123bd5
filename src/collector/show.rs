//! What is waited for, and what is shown of it at the end.

use tokio::sync::watch;

use super::CollectorArgs;
use super::manifest::Manifest;
use super::writer::{Shown, View};
use crate::cli;

/// Returns when what is waited for is complete. Cancel safe.
pub(super) async fn complete(args: &CollectorArgs, shown: &mut watch::Receiver<View>) {
    let is_complete = |view: &View| {
        let Some(view) = view else { return false };
        if let Some(run) = &args.run {
            return view.get(run).is_some_and(|shown| shown.manifest.complete);
        }
        let mut runs = view.values().filter(|shown| shown.registered).peekable();
        runs.peek().is_some() && runs.all(|shown| shown.manifest.complete)
    };
    if shown.wait_for(is_complete).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What there is at the end.
pub(super) fn show(args: &CollectorArgs, shown: &watch::Receiver<View>) {
    let view = shown.borrow().clone().unwrap_or_default();
    let wanted = |name: &String| args.run.as_ref().is_none_or(|run| run == name);
    if args.json {
        let runs: serde_json::Map<_, _> =
            view.iter().filter(|(name, _)| wanted(name)).map(|(name, run)| (name.clone(), json(run))).collect();
        cli::print(&format!("{}\n", serde_json::json!({ "runs": runs })));
        return;
    }
    for (name, run) in view.iter().filter(|(name, _)| wanted(name)) {
        let Manifest { totals, complete, .. } = &run.manifest;
        let by_status: Vec<String> =
            totals.by_status.iter().map(|(status, count)| format!("{count} {}", status.name())).collect();
        let ended = if *complete { "complete" } else { "not complete" };
        cli::say(&format!(
            "  {}: {} records in {} shards ({}), {ended}\n",
            cli::visible(name),
            totals.jobs,
            run.shards,
            by_status.join(", ")
        ));
    }
}

fn json(run: &Shown) -> serde_json::Value {
    let Manifest { totals, sealed, complete, purged, recipe_digest, .. } = &run.manifest;
    serde_json::json!({
        "jobs": totals.jobs, "items": totals.items, "superseded": totals.superseded, "by_status": totals.by_status,
        "cost_nano_usd": totals.cost_nano_usd, "tries": totals.tries, "replies_missing": totals.replies_missing, "shards": run.shards,
        "sealed": sealed, "complete": complete, "purged": purged, "recipe_digest": recipe_digest,
    })
}
