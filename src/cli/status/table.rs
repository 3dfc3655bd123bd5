//! The table for people.

use super::look::{Look, RunLook};
use crate::cli::table::aligned;
use crate::price::Nano;
use crate::record::Status;
use crate::shared::runs::{Lane, Phase};

const HEAD: [&str; 15] = [
    "run",
    "lane",
    "phase",
    "enqueued",
    "ready",
    "running",
    "parked",
    "accepted",
    "exhausted",
    "blocked",
    "failed",
    "dead",
    "purged",
    "money",
    "eta",
];

/// The table, with a line on what it does not show by run.
pub(super) fn table(look: &Look) -> String {
    if look.runs.is_empty() {
        return "no runs; a producer registers them: aurelia-producer --run NAME CORPUS\n".to_owned();
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(look.runs.iter().map(row));
    let mut text = aligned(&rows, 3);
    for run in &look.runs {
        if let Some(money) = run.info.collected.per_accepted() {
            let tries = run.info.collected.tries.phrase();
            let tries = if tries.is_empty() { tries } else { format!("; accepted {tries}") };
            text += &format!("{}: {money} per accepted record{tries}\n", run.info.name);
        }
        let parked: Vec<String> =
            run.under_way.parked.iter().map(|(reason, count)| format!("{count} for {reason}")).collect();
        if !parked.is_empty() {
            text += &format!("{}: parked: {}\n", run.info.name, parked.join(", "));
        }
    }
    if look.records_ready > 0 {
        text += &format!("{} records wait for the collector\n", look.records_ready);
    }
    if look.dead_letters > 0 {
        text += &format!("{} dead letters: aurelia dead list\n", look.dead_letters);
    }
    text
}

fn row(run: &RunLook) -> [String; 15] {
    let info = &run.info;
    let lane = match info.lane {
        Lane::High => "high",
        Lane::Normal => "normal",
        Lane::Low => "low",
    };
    let status = |status| run.of_status(status).to_string();
    let parked: u64 = run.under_way.parked.values().sum();
    [
        info.name.clone(),
        lane.to_owned(),
        phase(run).to_owned(),
        format!("{}{}", info.jobs(), if info.sealed { "" } else { "+" }),
        run.ready.map_or_else(|| "no queue".to_owned(), |ready| ready.to_string()),
        run.under_way.running.to_string(),
        parked.to_string(),
        status(Status::Accepted),
        status(Status::Exhausted),
        status(Status::Blocked),
        status(Status::Failed),
        info.dead.to_string(),
        info.purged.to_string(),
        Nano(info.collected.cost_nano_usd).to_string(),
        run.eta().map_or_else(|| "-".to_owned(), duration),
    ]
}

fn phase(run: &RunLook) -> &'static str {
    match (run.info.phase, run.info.collected.complete) {
        (Phase::Cancelled, _) => "cancelled",
        (_, true) => "complete",
        (Phase::Paused, _) => "paused",
        (Phase::Active, _) => "active",
    }
}

/// Two units are enough.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units() {
        for (seconds, shown) in [(7, "7s"), (61, "1m 1s"), (3700, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(duration(seconds), shown);
        }
    }
}
