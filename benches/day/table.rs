//! The setting in which the arithmetic was chosen, with the arithmetic that was built.
//!
//! Three half hours each of saturated demand. Stalls stop one of 8 nodes for 2 s, 480 times an hour. The way there varies by
//! more than the core allows for, so what it does to the windows is shown; judged is the same with the way cut to that.

use aurelia::quota::margins;

use crate::fleet::chance::Lognormal;
use crate::fleet::plan::{Mix, Plan, Way};
use crate::fleet::{Fleet, Report, SECOND};
use crate::{Fallible, Percent};

const ROUNDS: u64 = 3;
const N: u64 = 1_200;
const TOKENS: u64 = 2_000_000;
const SMALL: Mix = Mix { small: (500, 4_000), large: 0, large_percent: 0 };
const MIXED: Mix = Mix { small: (3_000, 3_000), large: 30_000, large_percent: 20 };
const LARGE: Mix = Mix { small: (3_000, 3_000), large: 150_000, large_percent: 10 };

/// What is limited.
#[derive(Clone, Copy)]
enum Limited {
    /// Requests, over 60 s and so many.
    Requests(f64),
    /// Tokens of such calls.
    Tokens(Mix),
}

/// Name, what is limited, stalls an hour, and what the study of the design found in 60 s for a window log: violations, use.
const ROWS: [(&str, Limited, u64, &str); 7] = [
    ("requests", Limited::Requests(60.0), 0, "1, 99.2 % (W' = 60.5 s)"),
    ("requests, stalls", Limited::Requests(60.0), 480, "0, 98.6 %"),
    ("requests, also in 10 s", Limited::Requests(10.0), 0, ""),
    ("requests, also in 10 s, stalls", Limited::Requests(10.0), 480, ""),
    ("tokens: 0.5k to 4k", Limited::Tokens(SMALL), 0, "0, 98.9 %"),
    ("tokens: 80 % 3k, 20 % 30k", Limited::Tokens(MIXED), 0, "0, 98.5 %"),
    ("tokens: 90 % 3k, 10 % 150k", Limited::Tokens(LARGE), 0, "0, 96-97 %"),
];

/// Prints it, and fails when a window held too much though the way took no longer than the core allows for.
pub(crate) fn print() -> Fallible<()> {
    crate::print("| | used | violations in any 60 s | in any 10 s | the study | violations with the way cut |");
    crate::print("|---|---|---|---|---|---|");
    let mut broken = 0;
    for (name, limited, stalls, study) in ROWS {
        let reports = simulate(limited, stalls, u64::MAX);
        let (limit, shortest) = match limited {
            Limited::Requests(spread) if spread < 60.0 => (N, 10 * SECOND),
            Limited::Requests(_) => (N, 60 * SECOND),
            Limited::Tokens(_) => (TOKENS, 60 * SECOND),
        };
        let cut: u64 = simulate(limited, stalls, margins::way(shortest)).iter().map(|report| report.violations).sum();
        broken += cut;
        let used = reports.iter().flat_map(|report| report.used).map(|used| used.of(limit)).sum::<u64>() / ROUNDS;
        let of = |window: usize| -> Option<u64> {
            reports.iter().map(|report| report.windows.get(window).map(|window| window.violations)).sum()
        };
        let [long, short] = [of(0), of(1)].map(|count| count.map_or(String::new(), |count| count.to_string()));
        crate::print(&format!("| {name} | {} % | {long} | {short} | {study} | {cut} |", Percent(used)));
    }
    if broken > 0 {
        return Err(format!("{broken} arrivals found a window too full").into());
    }
    Ok(())
}

fn simulate(limited: Limited, freezes_per_hour: u64, longest_way: u64) -> Vec<Report> {
    let plan = |seed| {
        let plan = match limited {
            Limited::Requests(spread) => Plan::saturated(Some(N), None, spread, Mix::LIGHT),
            Limited::Tokens(mix) => Plan::saturated(None, Some(TOKENS), 60.0, mix),
        };
        Plan { seed, freezes_per_hour, way: Way::Lognormal(Lognormal::way().up_to(longest_way)), ..plan }
    };
    (1..=ROUNDS).map(|seed| Fleet::new(plan(seed)).run()).collect()
}
