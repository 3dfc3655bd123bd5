//! How long a call of a fleet waits for its quota and money at Redis: `cargo bench --bench quota`.
//!
//! A Redis of its own for each way of writing to disk, and several clients with a thread, a clock and a connection each, as so
//! many workers have. Calls begin at random times whatever became of those before them, reserve through the product's own
//! gate, last a while, and settle; clients that all began at once would measure each other. The limits are twice what is asked,
//! so that what is measured is the round trip and no appointment. Clients and Redis share the cores of the machine: the first
//! row has a bare `PING` where the others have their steps, which is what the machine itself takes.

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
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From the reservation to its end, on average.
const CALL: Duration = Duration::from_millis(200);
const TOKENS: u64 = 3_000;
/// The first seconds are not counted: connections are made, and the script is sent.
const WARM_UP: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let done = plan(&arguments).and_then(|plan| bench(&plan));
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

/// What a call asks before and after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Whether the server is there.
    Pings,
    /// To reserve, and to settle.
    Steps,
}

fn bench(plan: &Plan) -> Fallible<()> {
    print(&format!("{} calls a second of {} clients, {} s each\n", plan.rate, plan.clients, plan.seconds));
    print(
        "| appendfsync | calls/s | before, ms: p50 | p99 | longest | after, ms: p50 | p99 | longest | function, us a call | calls |",
    );
    print("|---|---|---|---|---|---|---|---|---|---|");
    for (appendfsync, asks) in [("everysec", Asks::Pings), ("everysec", Asks::Steps), ("always", Asks::Steps)] {
        let server = RedisServer::own(appendfsync);
        let (mut before, mut after): (Vec<_>, Vec<_>) = every_client(plan, asks, &server.url())?.into_iter().unzip();
        let name = if asks == Asks::Pings { "`PING`" } else { appendfsync };
        let done = u64::try_from(before.len())?;
        let (before, after) = (quantiles(&mut before)?, quantiles(&mut after)?);
        print(&format!("| {name} | {} | {before} | {after} | {} |", done / plan.seconds, function(&server)));
        // The clients begin that many, however slow the answers are.
        if done * 100 < plan.rate * plan.seconds * 95 {
            return Err(format!("only {done} calls were made in {} s", plan.seconds).into());
        }
    }
    Ok(())
}

/// What the server says of the function: how long a call of it takes, and how many there were.
fn function(server: &RedisServer) -> String {
    let stats = server.say(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall:")).unwrap_or_default();
    let field = |name: &str| line.split(',').find_map(|field| field.strip_prefix(name)).unwrap_or("-").to_owned();
    format!("{} | {}", field("usec_per_call="), field("calls="))
}

/// How long each call that is counted waited before it and after it.
fn every_client(plan: &Plan, asks: Asks, url: &str) -> Fallible<Vec<(Duration, Duration)>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|seed| {
                scope.spawn(move || {
                    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                    let redis = Redis::new(url.parse()?, "bench");
                    runtime.block_on(client(redis, Random(seed), plan, asks))
                })
            })
            .collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

/// One client's share of the calls.
async fn client(redis: Redis, mut random: Random, plan: &Plan, asks: Asks) -> Fallible<Vec<(Duration, Duration)>> {
    let most = Some(Nano::HIGHEST_CEILING);
    let ceilings = Ceilings { run: most, day: most, all: most };
    let books = Shared::new(Clerks::new(redis.clone()), "bench", ceilings, Duration::from_mins(10));
    let gate = Arc::new(Gate::shared(books, Arc::new(Hall::new(None))));
    let account = Arc::new(account(2 * 60 * plan.rate));
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    let mut next = began;
    loop {
        next += Duration::from_micros(random.gap(1_000_000 * plan.clients / plan.rate));
        if next >= began + WARM_UP + Duration::from_secs(plan.seconds) {
            break;
        }
        tokio::time::sleep_until(next).await;
        let (gate, account, redis) = (Arc::clone(&gate), Arc::clone(&account), redis.clone());
        let (counts, lasts) = (next >= began + WARM_UP, CALL * 2 * u32::try_from(random.below(1_000))? / 1_000);
        calls.spawn(async move {
            let times = match asks {
                Asks::Pings => pings(&redis, lasts).await,
                Asks::Steps => steps(&gate, &account, lasts).await,
            };
            times.map(|times| counts.then_some(times))
        });
    }
    let mut counted = Vec::new();
    while let Some(times) = calls.join_next().await {
        counted.extend(times??);
    }
    Ok(counted)
}

async fn pings(redis: &Redis, lasts: Duration) -> Fallible<(Duration, Duration)> {
    let asked = Instant::now();
    redis.ping().await?;
    let before = asked.elapsed();
    tokio::time::sleep(lasts).await;
    let ended = Instant::now();
    redis.ping().await?;
    Ok((before, ended.elapsed()))
}

async fn steps(gate: &Gate, account: &AccountSpec, lasts: Duration) -> Fallible<(Duration, Duration)> {
    let stop = CancellationToken::new();
    let asked = Instant::now();
    let reserved = gate.reserve(&[account], TOKENS, Nano(2_000_000), &stop).await;
    let (_, reservation) = reserved.map_err(|why| format!("no reservation: {why:?}"))?;
    let before = asked.elapsed();
    tokio::time::sleep(lasts).await;
    let ended = Instant::now();
    if !gate.settle_beside(&reservation, TOKENS - 100, Nano(1_500_000), End::Settled).await {
        return Err("a call could not be settled".into());
    }
    Ok((before, ended.elapsed()))
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
