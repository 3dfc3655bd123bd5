//! The command line of `aurelia-worker`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::work;
use crate::cli::{ConfigFiles, Failure, configure, launch, say};
use crate::config::{Config, Loaded, Origin};
use crate::context;
use crate::fleet::Fleet;
use crate::preflight;

/// Take jobs from the queue, work on them, publish their records; stateless, any number of them side by side
#[derive(Debug, Parser)]
#[command(
    name = "aurelia-worker",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  AURELIA__QUEUE__URL=amqp://... AURELIA__SHARED__URL=redis://... GEMINI_API_KEY=... aurelia-worker
  aurelia-worker --config fleet.toml --concurrency 64
  aurelia-worker --preflight                                   is everything as it must be?

It reads only what [store] allow names, and by default nothing. It waits for broker, Redis and S3 as long as it takes.
SIGTERM: calls in flight end and are stored, what is not done goes back, and it ends within [worker] grace.

Exit codes: 0 stopped by a signal; 1 this machine failed one job after the other; 2 usage; 64 configuration or keys;\n75 (only --preflight) a server is away."
)]
struct Args {
    #[command(flatten)]
    config: ConfigFiles,
    /// Jobs worked on at once [default: worker.concurrency]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: Option<u32>,
    /// Look whether broker, Redis, programs, keys and disk are as a worker needs them, say so, and end
    #[arg(long)]
    preflight: bool,
    /// With --preflight: as one JSON object
    #[arg(long, requires = "preflight")]
    json: bool,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    launch("aurelia-worker", run(args))
}

async fn run(args: Args) -> Result<u8, Failure> {
    let loaded = configure(&args.config)?;
    let config = only_what_is_allowed(loaded);
    if args.preflight {
        let cache = cache(&config)?;
        return preflight::run(config, &cache, args.json).await;
    }
    context::tools(&config).map_err(Failure::setup)?;
    let cache = cache(&config)?;
    let concurrency = args.concurrency.map_or(config.worker.concurrency, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let fleet = Fleet::open(config, "aurelia-worker").map_err(Failure::setup)?;
    let shutdown = fleet.shutdown.clone();
    tokio::select! {
        ended = Box::pin(work(fleet, cache, concurrency)) => ended,
        signals = shutdown.listen() => Err(Failure::failed(format!("no signal can be heard: {:?}", signals.err()))),
    }
}

/// A worker reads what its operator has named: the default, every file of the machine, is for one's own.
fn only_what_is_allowed(loaded: Loaded) -> Config {
    let named = |entry: &crate::config::Entry| entry.key.starts_with("store.allow") && entry.origin != Origin::Default;
    let any = loaded.entries.iter().any(named);
    let mut config = loaded.config;
    if !any {
        config.store.allow.clear();
        say(
            "aurelia-worker: [store] allow is not set, so no clip may be read; set it to the prefixes that jobs may name\n",
        );
    }
    config
}

/// Where media are kept between jobs.
fn cache(config: &Config) -> Result<PathBuf, Failure> {
    if let Some(set) = &config.media.cache_dir {
        return Ok(set.clone());
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("aurelia").join("media"))
        .ok_or_else(|| Failure::setup("there is no home directory to keep media in: set media.cache_dir"))
}
