//! `aurelia-simulator`: flags to settings, then serve until the process is told to end.

use std::io::{self, Write as _};
use std::process::ExitCode;

use aurelia::simulator::Simulator;
use aurelia::simulator::cli::Args;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "aurelia-simulator: {error}");
            ExitCode::from(if error.kind() == io::ErrorKind::InvalidInput { 64 } else { 1 })
        }
    }
}

fn run(args: Args) -> io::Result<()> {
    let listen = args.listen;
    let settings = args.into_settings().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let simulator = Simulator::start(settings, listen).await?;
        writeln!(io::stdout(), "listening on {}", simulator.base_url())?;
        io::stdout().flush()?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        simulator.stop().await;
        Ok(())
    })
}
