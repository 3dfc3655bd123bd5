//! The simulator as a child process.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Fallible;
use crate::process::Running;

/// A simulator that answers after a fixed time; stopped when dropped.
pub(crate) struct Simulator {
    /// Where it is.
    pub(crate) url: String,
    client: reqwest::Client,
    _running: Running,
}

impl Simulator {
    /// Starts one on a free port.
    pub(crate) async fn start(latency_ms: u64) -> Fallible<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aurelia-simulator"));
        command.args(["--listen", "127.0.0.1:0", "--trust-media", "--latency", &latency_ms.to_string()]);
        let mut running = Running::start(command.stdout(Stdio::piped()))?;
        let told = running.child().stdout.take().ok_or("no output of the simulator")?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(told).read_line(&mut line).map(|_| line)
        });
        let line = line.await??;
        let url = line.trim().strip_prefix("listening on ").ok_or("the simulator does not say where it is")?;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { url: url.to_owned(), client, _running: running })
    }

    /// Its counts.
    pub(crate) async fn stats(&self) -> Fallible<Value> {
        let bytes = self.client.get(format!("{}/stats", self.url)).send().await?.bytes().await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Counts from zero, and forgets what it saw.
    pub(crate) async fn reset(&self) -> Fallible<()> {
        self.client.post(format!("{}/stats/reset", self.url)).send().await?.error_for_status()?;
        Ok(())
    }
}
