//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::cli::{ConfigFiles, Failure};
use crate::price::Nano;
use crate::shared::runs::Lane;

/// What stands for standard input.
pub(super) const STDIN: &str = "-";

/// Enqueue corpora into a run of a fleet; run again, it goes on where it was and adds nothing twice
#[derive(Debug, Clone, Parser)]
#[command(
    name = "aurelia-producer",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  aurelia-producer --run spring items.jsonl more.parquet
  aurelia-producer --run spring --query \"What is heard in {{ stem }}?\" s3://bucket/clips/
  generate | aurelia-producer --run spring -
  aurelia-producer --run spring --dry-run items.csv      count, estimate money, show what is wrong; ask nobody

A corpus is a file of JSON lines (.jsonl; fields as of aurelia run --help), CSV (.csv: a header with the names of the
fields, media and choices as JSON) or Parquet (.parquet: the same columns); \"-\", JSON lines from standard input; or a
prefix of a bucket, whose clips and sounds become items with the question of --query. Unknown columns are refused.
Paths are sent as they are, relative ones made absolute: they have to lead to the clip on the workers, too.

The first Ctrl-C or SIGTERM ends the batch under way and stops; the second stops at once. Either way nothing is lost.

Exit codes: 0 all is enqueued; 1 lines were rejected, or a corpus cannot be read; 2 usage; 64 configuration, or another
recipe than the run's; 75 stopped before the end: run it again."
)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct ProducerArgs {
    /// Name of the run, new or known
    #[arg(long, value_name = "NAME", value_parser = run_name)]
    pub(super) run: String,
    /// Recipe: models, prompts, threshold [default: the built-in one]; a run has one
    #[arg(long, value_name = "FILE")]
    pub(super) recipe: Option<PathBuf>,
    /// Which runs go first where several wait
    #[arg(long, value_name = "LANE", default_value = "normal")]
    pub(super) lane: LaneName,
    /// Most dollars that the run may cost [default: as it was]
    #[arg(long, alias = "budget_usd", value_name = "USD", value_parser = Nano::ceiling)]
    pub(super) budget_usd: Option<Nano>,
    /// Accept a try with this score or above [default: the recipe's]
    #[arg(long, value_name = "1..10", value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(super) threshold: Option<u8>,
    /// Most tries of the loop [default: the recipe's]
    #[arg(long, alias = "max_tries", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) max_tries: Option<u32>,
    /// For a prefix: the question, a template of {{ key }}, {{ name }}, {{ stem }}, {{ bucket }} and {{ uri }}
    #[arg(long, value_name = "TEMPLATE")]
    pub(super) query: Option<String>,
    /// The same, from a file
    #[arg(long, alias = "query_file", value_name = "FILE", conflicts_with = "query")]
    pub(super) query_file: Option<PathBuf>,
    /// Count, estimate calls and money, and show what is wrong; ask neither broker nor Redis
    #[arg(long, alias = "dry_run")]
    pub(super) dry_run: bool,
    /// Where rejected lines go, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(super) rejects: Option<PathBuf>,
    /// Leave the run open: more items will come
    #[arg(long, alias = "no_seal")]
    pub(super) no_seal: bool,
    /// Where it is noted how far the corpora were read [default: the first file's name with .aurelia-RUN]
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// Read the corpora from their start, whatever is noted
    #[arg(long, alias = "from_start")]
    pub(super) from_start: bool,
    /// Print the summary as JSON, and no progress
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) config: ConfigFiles,
    /// What to enqueue
    #[arg(value_name = "CORPUS", required = true)]
    pub(super) corpora: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LaneName {
    High,
    Normal,
    Low,
}

impl From<LaneName> for Lane {
    fn from(name: LaneName) -> Self {
        match name {
            LaneName::High => Self::High,
            LaneName::Normal => Self::Normal,
            LaneName::Low => Self::Low,
        }
    }
}

impl ProducerArgs {
    /// What clap cannot tell.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let is_prefix = |corpus: &String| corpus.starts_with("s3://");
        let asks = self.query.is_some() || self.query_file.is_some();
        match (self.corpora.iter().find(|corpus| is_prefix(corpus)), asks) {
            (Some(prefix), false) => {
                Err(Failure::usage(format!("{prefix} has no question: give --query or --query-file")))
            }
            (None, true) => {
                Err(Failure::usage("--query is for prefixes (s3://BUCKET/PREFIX/); files have their questions"))
            }
            _ if self.corpora.iter().filter(|corpus| *corpus == STDIN).count() > 1 => {
                Err(Failure::usage("standard input (-) is given twice"))
            }
            _ => Ok(()),
        }
    }
}

/// It is part of file names and of names at the broker.
fn run_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 128 && !text.contains('/') && !text.contains(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("a run's name is 1 to 128 printable bytes without /".to_owned()) }
}
