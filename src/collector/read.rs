//! The records of a data set, one after another, as its manifest lists them.

use super::manifest::{Manifest, NAME};
use super::shard;
use super::sink::Sink;
use crate::record::Record;

/// Calls `visit` with each record of a run's data set, superseded ones included, until it returns something. One shard is in
/// memory at a time.
///
/// # Errors
/// One sentence: there is no data set, or a file of it is not what was written.
pub async fn records<T>(
    sink: &Sink,
    run: &str,
    visit: &mut dyn FnMut(&Record) -> Option<T>,
) -> Result<Option<T>, String> {
    let path = sink.path(run, NAME);
    let found = sink.manifest(run).await?;
    let (content, _) = found.ok_or_else(|| format!("there is no {path}, so there is no data set"))?;
    let manifest = Manifest::read(&path, &content)?;
    for part in manifest.shards.iter().map(|shard| &shard.records) {
        let path = sink.path(run, &part.name);
        let put_back = |what: &str| format!("{path} {what}; put it back as it was");
        let content = sink.read(run, &part.name).await?;
        let content = content.ok_or_else(|| put_back("is gone, and the manifest lists it"))?;
        if !shard::is_whole(part, &content).await {
            return Err(put_back("is not what the manifest lists"));
        }
        let text = shard::text(content).await.map_err(|error| format!("{path}: {error}"))?;
        for (number, line) in text.lines().enumerate() {
            let record = serde_json::from_str(line)
                .map_err(|error| format!("{path} line {} is not a record ({error})", number + 1))?;
            if let Some(found) = visit(&record) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
