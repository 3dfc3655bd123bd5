//! Whether the place of data sets can be written, for readiness: a small file is written there now and then, and removed.
//!
//! Its own task, as what writes shards may be waiting for just that.

use std::time::Duration;

use tokio::time::sleep;

use super::sink::Sink;
use crate::config::Config;
use crate::health::Health;

/// The name of the check.
pub(super) const OUTPUT: &str = "output";
/// Between two looks: while it can be written, and while it cannot.
const LOOKS: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(2));

/// Looks again and again. Ends when it is dropped.
pub(super) async fn watch(config: Config, health: Health) {
    let mut sink = None;
    loop {
        let found = probe(&config, &mut sink).await;
        let pause = if found.is_ok() { LOOKS.0 } else { LOOKS.1 };
        health.set(OUTPUT, found);
        sleep(pause).await;
    }
}

async fn probe(config: &Config, known: &mut Option<Sink>) -> Result<(), String> {
    let sink = match known {
        Some(sink) => sink,
        None => known.insert(Sink::open(config).await?),
    };
    sink.probe().await
}
