//! The records that a command looks at: of one machine's output directory, or of a fleet's data set. They are never written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::config::Config;
use crate::record::Record;
use crate::run::fingerprint;
use crate::run::records::{read_records, records_path, superseded_path};

/// Where records are.
#[derive(Debug, Clone, Args)]
pub(super) struct SetArgs {
    /// The output directory of `aurelia run`, or the folder of a run in a collector's output
    #[cfg_attr(feature = "fleet", arg(value_name = "DIR", required_unless_present = "run"))]
    #[cfg_attr(not(feature = "fleet"), arg(value_name = "DIR", required = true))]
    dir: Option<PathBuf>,
    /// A run whose data set is in collector.output, a directory or s3://BUCKET/PREFIX
    #[cfg(feature = "fleet")]
    #[arg(long, value_name = "NAME", conflicts_with = "dir")]
    run: Option<String>,
}

impl SetArgs {
    /// Calls `visit` with each record once, superseded ones included.
    pub(super) async fn each(
        &self,
        config: &Config,
        mut visit: impl FnMut(&Record) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut visit = |record: &Record| visit(record).err();
        let failure = match &self.dir {
            Some(dir) if records_path(dir).exists() => of_directory(dir, &mut visit),
            Some(dir) => of_folder(dir, &mut visit).await,
            None => self.of_run(config, &mut visit).await,
        };
        match failure? {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    #[cfg(feature = "fleet")]
    async fn of_run(&self, config: &Config, visit: Visit<'_>) -> Result<Option<Failure>, Failure> {
        use crate::collector::{read, sink::Sink};
        let run = self.run.as_deref().unwrap_or_default();
        let sink = Sink::open(config).await.map_err(Failure::setup)?;
        read::records(&sink, run, visit).await.map_err(Failure::failed)
    }

    #[cfg(not(feature = "fleet"))]
    #[expect(clippy::unused_async, reason = "without a fleet there are no runs to name")]
    async fn of_run(&self, _: &Config, _: Visit<'_>) -> Result<Option<Failure>, Failure> {
        Err(Failure::usage("name a directory"))
    }
}

type Visit<'a> = &'a mut dyn FnMut(&Record) -> Option<Failure>;

/// A record may be in both files for as long as a killed `--retry` is not run again: what was moved comes first.
fn of_directory(dir: &Path, visit: Visit<'_>) -> Result<Option<Failure>, Failure> {
    let mut moved = HashSet::new();
    let superseded = read_records(&superseded_path(dir), |record| {
        Ok(if moved.insert(fingerprint(&record.job_id)) { visit(&record) } else { None })
    });
    if let Some(failure) = superseded.map_err(Failure::failed)? {
        return Ok(Some(failure));
    }
    let records = read_records(&records_path(dir), |record| {
        Ok(if moved.contains(&fingerprint(&record.job_id)) { None } else { visit(&record) })
    });
    records.map_err(Failure::failed)
}

#[cfg(feature = "fleet")]
async fn of_folder(dir: &Path, visit: Visit<'_>) -> Result<Option<Failure>, Failure> {
    use crate::collector::{manifest, read, sink::Sink};
    if !dir.join(manifest::NAME).exists() {
        return Err(neither(dir, "records.jsonl nor manifest.json"));
    }
    let at = |error: std::io::Error| Failure::failed(format!("{}: {error}", dir.display()));
    let whole = dir.canonicalize().map_err(at)?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) else {
        return Err(Failure::failed(format!("{} is not the folder of a run", dir.display())));
    };
    read::records(&Sink::directory(parent.to_owned()), name, visit).await.map_err(Failure::failed)
}

#[cfg(not(feature = "fleet"))]
#[expect(clippy::unused_async, reason = "with a fleet it reads shards")]
async fn of_folder(dir: &Path, _: Visit<'_>) -> Result<Option<Failure>, Failure> {
    Err(neither(dir, "records.jsonl, and this aurelia is built without the feature that reads data sets of a fleet"))
}

fn neither(dir: &Path, what: &str) -> Failure {
    Failure::failed(format!("{} has no {what}: name the directory that records were written to", dir.display()))
}
