//! A day of a large fleet on paper, with the real arithmetic of quota under a virtual clock: `cargo bench --bench day`.
//!
//! `--hours 1 --workers 1000` for a smaller one; `--table` for the setting in which the design was chosen. Ends with a failure
//! when a window of the provider held more than it may, when a call that was owed is never answered, or when less than
//! [`LEAST`] of the limit that binds was used while somebody waited for it.
//!
//! The arithmetic knows accounts and no runs, so fairness is that between workers.

#[path = "day/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "shared with the other benches")]
mod process;
#[path = "day/table.rs"]
mod table;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use fleet::plan::{Mix, Plan};
use fleet::{Fleet, Report, SECOND};
use process::cpu_of_this_process;

/// In thousandths of a percent.
const LEAST: u64 = 98_000;

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

enum What {
    Day { workers: usize, hours: u64 },
    Table,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = what(&arguments).and_then(|what| match what {
        What::Day { workers, hours } => day(workers, hours),
        What::Table => table::print(),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "day: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn what(arguments: &[String]) -> Fallible<What> {
    let (mut workers, mut hours) = (10_000, 24);
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).filter(|&n: &u64| n > 0);
        match word.as_str() {
            "--table" => return Ok(What::Table),
            "--hours" => hours = number().ok_or("--hours needs a number")?,
            "--workers" => workers = number().ok_or("--workers needs a number")?,
            _ => return Err(format!("{word} is none of --hours, --workers, --table").into()),
        }
    }
    // Three calls a minute for each, of which a sixth must be whole. With fewer, one large call is several percent of the limit
    // on tokens, and what waits for it costs that much.
    if workers % 2 > 0 || workers < 100 {
        return Err("--workers needs an even number from 100 on".into());
    }
    Ok(What::Day { workers: usize::try_from(workers)?, hours })
}

fn day(workers: usize, hours: u64) -> Fallible<()> {
    let light = Mix::LIGHT;
    // Tokens bind in one half hour of six, requests in the others.
    let plan = Plan::day(workers, 60 * hours, vec![light, light, Mix::HEAVY, light, light, light]);
    let limits = [plan.limits.requests_per_minute, plan.limits.tokens_per_minute].map(|limit| limit.unwrap_or(1));
    let (began, cpu) = (Instant::now(), cpu_of_this_process());
    let report = Fleet::new(plan).run();
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_of_this_process() - cpu);
    let [requests, tokens] = limits;
    print(&format!("{workers} workers, {hours} h, {requests} requests and {tokens} tokens a minute\n"));
    print(&rows(&report, limits)?);
    print(&format!("{seconds:.1} s, of which {cpu:.1} s CPU"));
    judge(&report, limits)
}

fn rows(report: &Report, limits: [u64; 2]) -> Fallible<String> {
    let mut rows = "| | |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: &str| writeln!(rows, "| {name} | {value} |");
    row("calls owed, answered", &format!("{}, {}", report.produced, report.answered))?;
    let lasted = report.lasted / (60 * SECOND);
    row("all answered after", &format!("{} h {} min", lasted / 60, lasted % 60))?;
    row("requests that arrived", &report.calls.to_string())?;
    row("nodes that crashed, that froze", &format!("{}, {}", report.crashes, report.freezes))?;
    row("hiccups of the provider", &report.hiccups.to_string())?;
    row("appointments missed and given back", &report.missed.to_string())?;
    row("told to come back", &report.turned_away.to_string())?;
    for (name, used, limit) in [("requests", report.used[0], limits[0]), ("tokens", report.used[1], limits[1])] {
        let hours = Percent(used.seconds * 10 / 36);
        row(&format!("used while {name} bind"), &format!("{} % in {hours} h with demand", Percent(used.of(limit))))?;
    }
    for (index, window) in report.windows.iter().enumerate() {
        let what = if index + 1 == report.windows.len() { "tokens" } else { "requests" };
        let name = format!("{what} in any {} s: most, allowed, violations", window.stretch / SECOND);
        row(&name, &format!("{}, {}, {}", window.peak, window.limit, window.violations))?;
    }
    let [half, most] = [500, 990].map(|share| Seconds(report.waits.thousandths(share)));
    row("asking to appointment: p50, p99, max", &format!("{half}, {most}, {} s", Seconds(report.waits.longest)))?;
    let fair = report.fairness;
    row("calls of a worker: Jain's index, slowest tenth", &format!("{:.4}, {:.3}", fair.jain, fair.slowest_tenth))?;
    Ok(rows)
}

/// What must not be.
fn judge(report: &Report, limits: [u64; 2]) -> Fallible<()> {
    if report.violations > 0 {
        return Err(format!("{} arrivals found a window of the provider too full", report.violations).into());
    }
    if report.answered != report.produced {
        return Err(format!("{} calls are never answered", report.produced - report.answered).into());
    }
    let least = report.used.iter().zip(limits).filter(|(used, _)| used.seconds > 0).map(|(used, n)| used.of(n)).min();
    match least {
        None => Err("there was never demand for a whole second".into()),
        Some(least) if least < LEAST => Err(format!("only {} % of a limit was used", Percent(least)).into()),
        Some(_) => Ok(()),
    }
}

/// Thousandths, as a decimal number.
struct Percent(u64);

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1_000, self.0 % 1_000 / 10)
    }
}

/// Microseconds, as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / SECOND, self.0 % SECOND / 10_000)
    }
}
