//! `aurelia config check|show`.

use clap::{Args, Subcommand};

use super::{ConfigFiles, Failure, configure, print};
use crate::config::{Format, check, show};

/// Look at the configuration: what is set, where, and whether it is right
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  aurelia config check --config fleet.toml     every mistake at once, exit code 64 if there is one
  aurelia config show                          each setting with its origin, secrets hidden
  aurelia config show --json")]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Say what is wrong, all at once
    Check {
        #[command(flatten)]
        files: ConfigFiles,
    },
    /// Print every setting with its origin; secrets are hidden
    Show {
        #[command(flatten)]
        files: ConfigFiles,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub fn main(args: &ConfigArgs) -> Result<u8, Failure> {
    match &args.what {
        What::Check { files } => print(&check(&configure(files)?)),
        What::Show { files, json } => {
            let format = if *json { Format::Json } else { Format::Text };
            print(&show(&configure(files)?, format));
        }
    }
    Ok(0)
}
