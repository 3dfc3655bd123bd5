//! The command line of `aurelia`: one file per command, one exit code per kind of end.
//!
//! | code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | something failed: an item, a corpus line, a file |
//! | 2 | the command line is wrong |
//! | 64 | configuration, keys, recipe or directory do not fit |
//! | 75 | stopped before the end, or a server is away; the same command goes on |

#[cfg(feature = "fleet")]
pub mod budget;
pub mod config;
#[cfg(feature = "fleet")]
pub mod control;
#[cfg(feature = "fleet")]
pub mod dead;
pub mod demo;
pub mod estimate;
pub mod explain;
pub mod odds;
#[cfg(feature = "fleet")]
mod operator;
pub mod progress;
pub mod recost;
#[cfg(feature = "fleet")]
pub mod retry;
pub mod run;
mod set;
pub mod show;
#[cfg(feature = "fleet")]
pub mod status;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Loaded, load};
use crate::recipe::RecipeFile;
use crate::run::RunError;
use crate::{recipe, telemetry};

/// Clips and questions in, scored audio-visual reasoning records out.
#[derive(Debug, Parser)]
#[command(
    name = "aurelia",
    version,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "\
Examples:
  aurelia demo                                             try it, without keys or money
  aurelia run --video-path clip.mp4 --query \"Who speaks first?\" --save-path answer.json
  aurelia run --corpus items.jsonl --out data --budget-usd 5
  aurelia config show                                      what is set, and where

Exit codes: 0 done, 1 something failed, 2 usage, 64 configuration or keys, 75 stopped before the end (run it again)."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Demo(demo::DemoArgs),
    Show(show::ShowArgs),
    ExplainMiss(explain::ExplainArgs),
    Recost(recost::RecostArgs),
    Odds(odds::OddsArgs),
    Config(config::ConfigArgs),
    #[cfg(feature = "fleet")]
    Status(status::StatusArgs),
    #[cfg(feature = "fleet")]
    Pause(control::PauseArgs),
    #[cfg(feature = "fleet")]
    Resume(control::ResumeArgs),
    #[cfg(feature = "fleet")]
    Cancel(control::CancelArgs),
    #[cfg(feature = "fleet")]
    Retry(retry::RetryArgs),
    #[cfg(feature = "fleet")]
    Dead(dead::DeadArgs),
    #[cfg(feature = "fleet")]
    Budget(budget::BudgetArgs),
}

/// Options of every command that reads the configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigFiles {
    /// A configuration file; later ones win over earlier ones, the environment (AURELIA__SECTION__KEY) over all
    #[arg(long = "config", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// For standard error.
    pub message: String,
}

impl Failure {
    /// Configuration, keys, recipe: 64.
    pub fn setup(message: impl Into<String>) -> Self {
        Self { code: 64, message: message.into() }
    }

    /// Something failed: 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// A server is away, or the command was stopped: 75.
    pub fn later(message: impl Into<String>) -> Self {
        Self { code: 75, message: message.into() }
    }

    /// The command line: 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let code = match error {
            RunError::Setup(_) => 64,
            RunError::Busy(_) => 75,
            RunError::Failed(_) => 1,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<recipe::RecipeError> for Failure {
    fn from(error: recipe::RecipeError) -> Self {
        Self::setup(error.to_string())
    }
}

/// Parses the command line, runs the command, and maps its end to an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    launch("aurelia", async {
        match cli.command {
            Command::Run(args) => run::main(*args).await,
            Command::Demo(args) => demo::main(args).await,
            Command::Show(args) => show::main(args).await,
            Command::ExplainMiss(args) => explain::main(args).await,
            Command::Recost(args) => recost::main(args).await,
            Command::Odds(args) => odds::main(args).await,
            Command::Config(args) => config::main(&args),
            #[cfg(feature = "fleet")]
            Command::Status(args) => status::main(args).await,
            #[cfg(feature = "fleet")]
            Command::Pause(args) => control::pause(args).await,
            #[cfg(feature = "fleet")]
            Command::Resume(args) => control::resume(args).await,
            #[cfg(feature = "fleet")]
            Command::Cancel(args) => control::cancel(args).await,
            #[cfg(feature = "fleet")]
            Command::Retry(args) => retry::main(args).await,
            #[cfg(feature = "fleet")]
            Command::Dead(args) => dead::main(args).await,
            #[cfg(feature = "fleet")]
            Command::Budget(args) => budget::main(args).await,
        }
    })
}

/// Runs a program to its exit code. `name` begins what it says of its failure.
pub fn launch(name: &str, program: impl Future<Output = Result<u8, Failure>>) -> ExitCode {
    // One thread drives all calls: they wait, and what computes (ffmpeg, hashing, the state) has threads of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(name, Err(Failure::failed(format!("no runtime: {error}")))),
    };
    let result = runtime.block_on(program);
    // A blocking read that a stop left behind must not hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    end(name, result)
}

fn end(name: &str, result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            say(&format!("{name}: {}\n", failure.message));
            ExitCode::from(failure.code)
        }
    }
}

/// Reads the configuration, starts logging, and says what is probably not meant.
pub fn configure(files: &ConfigFiles) -> Result<Loaded, Failure> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let loaded = load(&files.files, &environment).map_err(|mistakes| Failure::setup(mistakes.to_string()))?;
    telemetry::start(&loaded.config.telemetry).map_err(Failure::setup)?;
    for warning in &loaded.warnings {
        say(&format!("warning: {warning}\n"));
    }
    Ok(loaded)
}

/// The recipe of a file, else the default one.
pub fn recipe_file(path: Option<&PathBuf>) -> Result<RecipeFile, Failure> {
    Ok(match path {
        Some(path) => RecipeFile::read(path)?,
        None => RecipeFile::builtin()?,
    })
}

/// To standard output. A reader that went away (`| head`) is no failure of ours.
pub fn print(text: &str) {
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// To standard output, for scripts: what they do not get is a failure. A reader that went away wants no more.
pub fn print_whole(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// To standard error.
pub fn say(text: &str) {
    drop(std::io::stderr().lock().write_all(text.as_bytes()));
}

/// A model's or user's text for a terminal: control characters shown, not obeyed.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
