//! The progress bar: rate, ETA, accepted share and money; and long waits, told once.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::record::Status;
use crate::run::View;
use crate::shutdown::Shutdown;

const TICK: Duration = Duration::from_millis(200);

/// What is shown of a run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The bar, and long waits.
    Bar,
    /// Long waits.
    WaitsAlone,
}

/// Shows `view` on standard error while `work` runs; only waits, where that is no terminal.
pub async fn watch<T>(view: &View, shutdown: &Shutdown, show: Show, work: impl Future<Output = T>) -> T {
    let bar = match show {
        Show::Bar => ProgressBar::new(0),
        Show::WaitsAlone => ProgressBar::hidden(),
    };
    // The template is a constant; were it wrong, the default style would do.
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {per_sec} eta {eta} {msg}") {
        bar.set_style(style);
    }
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(TICK);
    let (mut told, mut draining) = (None, false);
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = ticks.tick() => {}
        }
        if shutdown.signalled.is_cancelled() && !std::mem::replace(&mut draining, true) {
            tell(&bar, "stopping: calls in flight are finished and stored (Ctrl-C again to stop at once)");
        }
        let waiting = view.gate.get().and_then(|gate| gate.waiting().borrow().clone());
        if waiting != told {
            if let Some(wait) = &waiting {
                tell(&bar, &format!("{}; waiting until {:.0}", wait.why, wait.until));
            }
            told = waiting;
        }
        draw(&bar, view);
    }
}

fn draw(bar: &ProgressBar, view: &View) {
    let (written, wanted, accepted, done) = {
        let tally = view.tally();
        let done: u64 = tally.by_status.values().sum();
        (tally.written, tally.wanted, tally.of(Status::Accepted), done)
    };
    bar.set_length(wanted);
    bar.set_position(written);
    let share = accepted.saturating_mul(100).checked_div(done).unwrap_or(0);
    let spent = view.gate.get().map(|gate| gate.totals().spent).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    let dollars = spent.0 as f64 / 1e9;
    bar.set_message(format!("{share} % accepted, ${dollars:.4}"));
}

fn tell(bar: &ProgressBar, message: &str) {
    if bar.is_hidden() {
        super::say(&format!("{message}\n"));
    } else {
        bar.println(message);
    }
}
