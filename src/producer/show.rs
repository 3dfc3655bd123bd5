//! The progress bar, and the summary at the end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::enqueue::Done;
use super::feed::Source;
use crate::cli::{Failure, print, print_whole};
use crate::shutdown::Shutdown;

const TICK: Duration = Duration::from_millis(200);

/// What was done.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) run: String,
    pub(super) enqueued: u64,
    pub(super) already: u64,
    pub(super) mended: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    pub(super) sealed: bool,
    pub(super) seconds: f64,
}

impl Summary {
    pub(super) fn new(run: &str, rejected: u64) -> Self {
        let run = run.to_owned();
        Self { run, enqueued: 0, already: 0, mended: 0, duplicates: 0, rejected, sealed: false, seconds: 0.0 }
    }

    pub(super) fn add(&mut self, done: &Done) {
        self.enqueued += done.enqueued;
        self.already += done.already;
        self.mended += done.mended;
        self.duplicates += done.duplicates;
        self.rejected += done.rejects.len() as u64;
    }

    /// To standard output.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let Self { run, enqueued, already, mended, duplicates, rejected, sealed, seconds } = self;
        if json {
            let seconds = (seconds * 1000.0).round() / 1000.0;
            let object = json!({
                "run": run, "enqueued": enqueued, "already": already, "mended": mended, "duplicates": duplicates,
                "rejected": rejected, "sealed": sealed, "seconds": seconds,
            });
            return print_whole(&format!("{object}\n"));
        }
        let sealed = if *sealed { "sealed" } else { "open" };
        #[expect(clippy::cast_precision_loss, reason = "for the eye")]
        let rate = *enqueued as f64 / seconds.max(0.001);
        print(&format!(
            "  run        {run}, {sealed}\n  enqueued   {enqueued} in {seconds:.1} s ({rate:.0}/s)\n  \
             already    {already} enqueued before ({mended} of them enqueued again, as their queue was lost)\n  \
             left out   {duplicates} repeated, {rejected} rejected\n"
        ));
        Ok(())
    }
}

/// Bytes read of what there is, where that is known.
pub(super) struct Bar {
    bar: ProgressBar,
    drain: CancellationToken,
}

impl Bar {
    pub(super) fn new(hidden: bool, sources: &[Source], shutdown: &Shutdown) -> Self {
        let total: Option<u64> = sources.iter().map(|source| source.bytes).sum();
        let (bar, template) = match total {
            _ if hidden => (ProgressBar::hidden(), ""),
            Some(total) => (ProgressBar::new(total), "{bar:24} {percent} % eta {eta} {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
        };
        // The templates are constants; were one wrong, the default style would do.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, drain: shutdown.drain.clone() }
    }

    pub(super) fn show(&self, summary: &Summary, bytes: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let handled = summary.enqueued + summary.already;
        #[expect(clippy::cast_precision_loss, reason = "for the eye")]
        let rate = handled as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        let stopping = if self.drain.is_cancelled() { ", stopping" } else { "" };
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{handled} items, {rate:.0}/s, {} rejected{stopping}", summary.rejected));
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
