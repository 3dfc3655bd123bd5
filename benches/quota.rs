//! How long a call of a fleet waits for its quota and money at Redis: `cargo bench --bench quota`.
//!
//! A Redis of its own for each way of writing to disk, and several clients with a connection each, as so many workers have. Calls
//! begin at random times whatever became of those before them, reserve through the product's own gate, last a while, and
//! settle; clients that all began at once would measure each other. The limits are twice what is asked, so that what is measured is the round trip and no appointment. Clients and
//! Redis share the cores of the machine.

#[allow(dead_code, reason = "shared with the simulated day")]
#[path = "day/chance.rs"]
mod chance;
#[allow(dead_code, reason = "shared with the other benches")]
mod support;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aurelia::price::Nano;
use aurelia::quota::Limits;
use aurelia::quota::gate::shared::step::Ceilings;
use aurelia::quota::gate::shared::{Clerks, Shared};
use aurelia::quota::gate::{AccountSpec, Gate, Hall};
use aurelia::quota::ledger::End;
use aurelia::shared::Redis;
use chance::Random;
use support::redis::RedisServer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From the reservation to its end, on average.
const CALL: Duration = Duration::from_millis(200);
const TOKENS: u64 = 3_000;
/// The first seconds are not counted: connections are made, and the script is sent.
const WARM_UP: Duration = Duration::from_secs(2);

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What can be changed: `cargo bench --bench quota -- --seconds 5 --rate 500`.
struct Plan {
    /// Counted, of each case.
    seconds: u64,
    /// Calls a second, of all clients together.
    rate: u64,
    clients: u64,
}

fn main() -> ExitCode {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(async { bench(&plan(&arguments)?).await }));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "quota: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn plan(arguments: &[String]) -> Fallible<Plan> {
    let mut plan = Plan { seconds: 30, rate: 2_000, clients: 8 };
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let number: u64 = words.next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--seconds" => plan.seconds = number.max(1),
            "--rate" => plan.rate = number.max(1),
            "--clients" => plan.clients = number.max(1),
            _ => return Err(format!("{word} is none of --seconds, --rate, --clients").into()),
        }
    }
    Ok(plan)
}

async fn bench(plan: &Plan) -> Fallible<()> {
    print(&format!("{} calls a second of {} clients, {} s each\n", plan.rate, plan.clients, plan.seconds));
    print("| appendfsync | calls/s | reserve, ms: p50 | p99 | longest | settle, ms: p50 | p99 | longest |");
    print("|---|---|---|---|---|---|---|---|");
    for appendfsync in ["everysec", "always"] {
        let server = RedisServer::own(appendfsync);
        let (mut reserved, mut settled) = (Vec::new(), Vec::new());
        let mut clients = JoinSet::new();
        for seed in 0..plan.clients {
            let redis = Redis::new(server.url().parse()?, "bench");
            clients.spawn(client(redis, Random(seed), plan.rate, plan.clients, Duration::from_secs(plan.seconds)));
        }
        while let Some(times) = clients.join_next().await {
            for [reserve, settle] in times?? {
                reserved.push(reserve);
                settled.push(settle);
            }
        }
        let done = u64::try_from(reserved.len())?;
        print(&format!(
            "| {appendfsync} | {} | {} | {} |",
            done / plan.seconds,
            quantiles(&mut reserved)?,
            quantiles(&mut settled)?
        ));
        // The clients begin that many, however slow the answers are.
        if done * 100 < plan.rate * plan.seconds * 95 {
            return Err(format!("only {done} calls were made in {} s", plan.seconds).into());
        }
    }
    Ok(())
}

/// One client's share of the calls; for each that is counted, how long it took to reserve and to settle.
async fn client(
    redis: Redis,
    mut random: Random,
    rate: u64,
    clients: u64,
    counted: Duration,
) -> Fallible<Vec<[Duration; 2]>> {
    let most = Some(Nano::HIGHEST_CEILING);
    let ceilings = Ceilings { run: most, day: most, all: most };
    let books = Shared::new(Clerks::new(redis), "bench", ceilings, Duration::from_mins(10));
    let gate = Arc::new(Gate::shared(books, Arc::new(Hall::new(None))));
    let account = Arc::new(account(2 * 60 * rate));
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    let mut next = began;
    loop {
        next += Duration::from_micros(random.gap(1_000_000 * clients / rate));
        if next >= began + WARM_UP + counted {
            break;
        }
        tokio::time::sleep_until(next).await;
        let (gate, account) = (Arc::clone(&gate), Arc::clone(&account));
        let (counts, lasts) = (next >= began + WARM_UP, CALL * 2 * u32::try_from(random.below(1_000))? / 1_000);
        calls.spawn(async move { call(&gate, &account, lasts).await.map(|times| counts.then_some(times)) });
    }
    let mut counted = Vec::new();
    while let Some(times) = calls.join_next().await {
        counted.extend(times??);
    }
    Ok(counted)
}

async fn call(gate: &Gate, account: &AccountSpec, lasts: Duration) -> Fallible<[Duration; 2]> {
    let stop = CancellationToken::new();
    let asked = Instant::now();
    let reserved = gate.reserve(&[account], TOKENS, Nano(2_000_000), &stop).await;
    let (_, reservation) = reserved.map_err(|why| format!("no reservation: {why:?}"))?;
    let reserve = asked.elapsed();
    tokio::time::sleep(lasts).await;
    let ended = Instant::now();
    if !gate.settle_beside(&reservation, TOKENS - 100, Nano(1_500_000), End::Settled).await {
        return Err("a call could not be settled".into());
    }
    Ok([reserve, ended.elapsed()])
}

/// With all limits there are.
fn account(requests_per_minute: u64) -> AccountSpec {
    let limits = Limits {
        requests_per_minute: Some(requests_per_minute),
        tokens_per_minute: Some(requests_per_minute * TOKENS),
        requests_per_day: Some(requests_per_minute * 24 * 60),
        day_resets: jiff::tz::TimeZone::UTC,
        spread_seconds: 10.0,
    };
    AccountSpec { name: "provider/key/model".to_owned(), limits, concurrency: Some(100_000) }
}

/// Median, 99th percentile and longest, in milliseconds.
fn quantiles(times: &mut [Duration]) -> Fallible<String> {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 1_000).min(times.len().saturating_sub(1)));
    let ms = |share| at(share).map(|time| format!("{:.2}", time.as_secs_f64() * 1e3));
    let all: Option<Vec<String>> = [500, 990, 1_000].into_iter().map(ms).collect();
    Ok(all.ok_or("nothing was measured")?.join(" | "))
}
