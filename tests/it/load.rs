//! What is done small in `make test` and in full in `make chaos`: each run asserts what it promises and tells its figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use aurelia::record::Record;
use aurelia::simulator::{Faults, Latency, Limit, LimitUse, Settings};
use serde_json::{Value, json};

use super::support::{Aurelia, Running, Sim, Workdir, corpus, promises, until};

/// Everything on one account: without a key for the summarizer's provider the generator's model plays it too.
pub(crate) fn one_account<'a>(work: &'a Workdir, sim: &Sim) -> Aurelia<'a> {
    Aurelia::new(work, sim).without("OPENAI_API_KEY")
}

/// The same names for providers in journal keys, whichever simulator plays them.
pub(crate) fn named(aurelia: Aurelia<'_>) -> Aurelia<'_> {
    ["GEMINI", "OPENAI"]
        .into_iter()
        .fold(aurelia, |a, provider| a.env(&format!("AURELIA__PROVIDERS__{provider}__IDENTITY"), "https://models:443"))
}

/// The contents of all records: what a replay must reproduce.
pub(crate) fn contents(work: &Workdir) -> BTreeMap<String, Record> {
    work.records().into_iter().map(|(item, record)| (item, record.content())).collect()
}

/// What a run without faults, kills or limits ends as.
pub(crate) fn clean(items: &[Value], clips: u64) -> BTreeMap<String, Record> {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(clips));
    let file = work.items("items.jsonl", items);
    named(Aurelia::new(&work, &sim)).corpus(&file).args(["--concurrency", "16"]).run().expect(0);
    contents(&work)
}

/// The ledger's sums: all money, that of calls without a seen end, and calls that are open.
pub(crate) fn ledger(out: &Path) -> (u64, u64, u64) {
    let state = rusqlite::Connection::open(out.join(".aurelia/state.sqlite")).unwrap();
    let sum = |sql: &str| u64::try_from(state.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()).unwrap();
    let unconfirmed =
        sum("SELECT coalesce(sum(CASE state WHEN 2 THEN cost WHEN 0 THEN bound ELSE 0 END), 0) FROM calls");
    (
        promises::ledger(&out.join(".aurelia/state.sqlite")),
        unconfirmed,
        sum("SELECT count(*) FROM calls WHERE state = 0"),
    )
}

/// Numbers that look random and are the same every time (splitmix64).
fn draws(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |n: u64| {
        let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// `items` items over `clips` clips, killed at `kills` random points: nothing is paid for twice but what was in flight.
pub(crate) fn killed(items: usize, clips: u64, kills: usize, seed: u64) -> String {
    let items = corpus(items, usize::try_from(clips).unwrap());
    let expected = clean(&items, clips);
    let calls = expected.values().flat_map(|record| &record.tries).map(|t| t.calls.len() as u64).sum::<u64>();
    let latency = Latency::Lognormal { p50_ms: 20, p99_ms: 100 };
    let (sim, work) = (Sim::start(Settings { latency, seed, ..Settings::default() }), Workdir::with_clips(clips));
    let file = work.items("items.jsonl", &items);
    let start = || named(Aurelia::new(&work, &sim)).corpus(&file).args(["--concurrency", "8"]).spawn();
    // Not before the first calls, nor so late that the run ends before the kill.
    let mut points: Vec<u64> = draws(seed).take(kills).map(|draw| calls / 20 + draw % (calls * 17 / 20)).collect();
    points.sort_unstable();
    let mut in_flight = 0;
    for point in &points {
        let running = start();
        until("the next point to kill at", || (sim.stats().answered >= *point).then_some(()));
        assert_eq!(running.kill().code, None, "it was over before it was killed");
        // What the process had begun and not seen the end of, by its own ledger.
        in_flight += ledger(&work.out()).2;
    }
    start().wait().expect(0);
    let stats = sim.stats();
    assert!(in_flight > 0, "no kill hit a call: this shows nothing");
    assert!(stats.repeats_of_answered <= in_flight, "{} of {in_flight} repeated", stats.repeats_of_answered);
    assert_eq!(contents(&work), expected);
    let lines = std::fs::read_to_string(work.out().join("records.jsonl")).unwrap().lines().count();
    assert_eq!(lines, items.len(), "one record for each item");
    let (spent, unconfirmed, _) = ledger(&work.out());
    assert!(stats.spend_nano_usd <= spent, "{} spent and {spent} booked", stats.spend_nano_usd);
    format!(
        "{lines} items, {calls} calls, killed at {points:?}: {in_flight} in flight, {} answered twice; \
         {spent} nano-dollars booked, {unconfirmed} of them unconfirmed, {} spent",
        stats.repeats_of_answered, stats.spend_nano_usd
    )
}

/// Items over one clip that are never accepted: each has its 15 calls.
pub(crate) fn exhausting(count: usize) -> Vec<Value> {
    corpus(count, 1)
        .into_iter()
        .map(|item| json!({"id": item["id"], "video": item["video"], "query": format!("{} [[sim: exhaust]]", item["query"])}))
        .collect()
}

/// 64 in flight on 600 requests a minute, which the simulator enforces over any 10 s: none too many, and the rate used.
pub(crate) fn rate(periods: u32, latency: Latency, faults: Faults) -> String {
    let limits = vec![Limit { model: "*".into(), requests: Some(100), tokens: None, window_ms: 10_000, bare: false }];
    let settings = Settings { limits, latency, faults, trust_media: true, ..Settings::default() };
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    // Enough work for any time: each item has its 15 calls.
    let items = exhausting(64 + 5 * periods as usize);
    let file = work.items("items.jsonl", &items);
    let config = "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_minute = 600\n";
    let running = one_account(&work, &sim).config(config).corpus(&file).args(["--concurrency", "64"]).spawn();
    // The gate allows 100 in one window and its margins: after the first of these, one is like the other.
    let period = Duration::from_millis(10_190);
    let used = || sim.stats().limits.first().cloned();
    until("the first call", || used().filter(|limit| limit.admitted > 0));
    let began = Instant::now();
    let at = |end: Duration| {
        let within = Duration::from_millis(2);
        while began.elapsed() < end {
            std::thread::sleep(within.min(end.saturating_sub(began.elapsed())));
        }
        (began.elapsed(), used().unwrap())
    };
    let (from, first) = at(period + Duration::from_secs(1));
    let (to, last) = at(period * (periods + 1) + Duration::from_secs(1));
    assert_eq!(running.kill().code, None, "there was not work enough");
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand")]
    let share = (last.admitted - first.admitted) as f64 / ((to.as_secs_f64() - from.as_secs_f64()) * 10.0);
    let stats = sim.stats();
    assert_eq!(stats.limit_violations, 0, "{:?}", stats.limits);
    assert!(share >= 0.97, "{:.1} % used of {:?}", share * 100.0, stats.limits);
    let LimitUse { admitted, peak_requests, .. } = last;
    format!("{admitted} calls, {:.2} % of 600/min used, at most {peak_requests} in 10 s, 0 refused", share * 100.0)
}

/// 64 in flight and money for a fifth of `items` items: by the provider's books the ceiling is never passed.
pub(crate) fn budget(items: usize) -> String {
    let settings = || Settings { latency: Latency::Fixed { ms: 20 }, trust_media: true, ..Settings::default() };
    let items = corpus(items, 1);
    let (all, work) = (Sim::start(settings()), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &items);
    Aurelia::new(&work, &all).corpus(&file).args(["--concurrency", "64"]).run().expect(0);
    let full = all.stats().spend_nano_usd;
    let (sim, work) = (Sim::start(settings()), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &items);
    let ceiling = full / 5;
    let usd = dollars(ceiling);
    let start = || Aurelia::new(&work, &sim).corpus(&file).args(["--concurrency", "64"]);
    let stopped = start().args(["--budget-usd", &usd]).run().expect(75);
    assert!(stopped.sentence().contains("the budget does not allow the next call"), "{}", stopped.stderr);
    let spent = sim.stats().spend_nano_usd;
    assert!(spent <= ceiling, "{spent} of {ceiling}");
    assert!(spent * 10 >= ceiling * 8, "only {spent} of {ceiling} could be used");
    assert_eq!(ledger(&work.out()), (spent, 0, 0));
    let (calls, _) = sim.counted(|| start().args(["--budget-usd", &usd]).run().expect(75));
    assert!(sim.stats().spend_nano_usd <= ceiling);
    start().run().expect(0);
    assert_eq!(work.records().len(), items.len());
    assert_eq!((sim.stats().spend_nano_usd, ledger(&work.out())), (full, (full, 0, 0)));
    format!(
        "{} items: {spent} of {ceiling} nano-dollars spent, {calls} calls more when run again; {full} in all",
        items.len()
    )
}

/// Nano-dollars as `--budget-usd` takes them.
pub(crate) fn dollars(nano: u64) -> String {
    format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)
}

/// Memory at item `last` is at most 1.2 times that at item `first`.
pub(crate) fn memory(first: u64, last: usize) -> String {
    let (sim, work) = (Sim::start(Settings { trust_media: true, ..Settings::default() }), Workdir::with_clips(1));
    let items: Vec<Value> = (0..last)
        .map(|n| json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": format!("What is it ({n})? [[sim: score=9]]")}))
        .collect();
    let file = work.items("items.jsonl", &items);
    // The loop, without megabytes of pictures in each call.
    let recipe = include_str!("../../config/recipes/default.toml").replace("\"frames+audio\"\n", "\"audio\"\n");
    assert!(!recipe.contains("media = \"frames"));
    let recipe = work.write("recipe.toml", recipe);
    let args = ["--concurrency".as_ref(), "16".as_ref(), "--recipe".as_ref(), recipe.as_os_str()];
    let mut running = Aurelia::new(&work, &sim).corpus(&file).args(args).spawn();
    let item = |sim: &Sim| sim.answered()[2];
    until("the first items", || (item(&sim) >= first || running.is_over()).then_some(()));
    let early = resident(&running);
    let mut late = 0;
    while !running.is_over() {
        if item(&sim) * 100 >= last as u64 * 99 {
            late = resident(&running).max(late);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    running.wait().expect(0);
    assert_eq!(work.records().len(), last);
    assert!(late > 0 && late * 10 <= early * 12, "{early} KiB at item {first}, {late} KiB at item {last}");
    format!("{early} KiB at item {first}, {late} KiB at item {last}")
}

/// Resident memory in KiB; 0 when the process is gone.
fn resident(running: &Running<'_>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
}
