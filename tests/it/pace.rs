//! A fleet at its provider's limits: all of it used, nothing refused; and a limit that is declared too high is learned.

use std::time::{Duration, Instant};

use aurelia::simulator::{Faults, Latency, Limit, LimitUse, Settings};
use serde_json::{Value, json};

use super::load::exhausting;
use super::support::fleet::Bench;
use super::support::redis::RedisServer;
use super::support::{Broker, Running, Sim, Workdir, corpus, until};

/// Tokens per minute that the simulator allows.
const TOKENS: u64 = 2_000_000;
/// The gate allows its share once in this time, so one such period is like the other.
const PERIOD: Duration = Duration::from_millis(10_190);

/// One use of the limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// What the simulator allows in any minute, and a sixth of it in any ten seconds.
    pub(crate) requests: u64,
    pub(crate) workers: usize,
    /// Workers that are killed while it is measured, one after the other.
    pub(crate) kills: usize,
    /// Requests per minute in the workers' configuration.
    pub(crate) declared: Option<u64>,
    /// Refusals say nothing of the limit.
    pub(crate) bare: bool,
    /// Periods of ten seconds before it is measured, and while.
    pub(crate) before: u32,
    pub(crate) periods: u32,
}

/// What was used while it was measured.
pub(crate) struct Used {
    /// Of the requests that the provider allows.
    pub(crate) share: f64,
    /// Calls refused, of all that were sent.
    pub(crate) refused: f64,
    /// Calls refused from the start on.
    pub(crate) refusals: u64,
    pub(crate) text: String,
}

/// All calls of these items at one account: without a key for the summarizer's provider the generator's model plays it too.
fn enqueue(bench: &Bench, work: &Workdir, sim: &Sim, items: &[Value]) {
    let file = work.items("items.jsonl", items);
    let producer = bench.program(work, sim, env!("CARGO_BIN_EXE_aurelia-producer"));
    // One small picture to a call, so that requests are the limit that binds, and not tokens.
    let shown = ("media = \"frames+audio\"", "media = \"frames\"");
    let recipe = work.recipe("recipe.toml", &[shown, shown, ("max_frames = 5", "max_frames = 1")]);
    let producer = producer.without("OPENAI_API_KEY").args(["--run", "r", "--json", "--recipe"]);
    producer.arg(&recipe).arg(&file).run().expect(0);
}

/// Requests that never end, for workers that die on the way, at one account of a provider that enforces its limits over true
/// sliding windows, fails one call in twenty and answers when it likes.
#[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
pub(crate) fn used(prefix: &str, case: Case) -> Used {
    let limit = |requests, tokens, window_ms| {
        let (model, bare) = ("*".to_owned(), case.bare);
        Limit { model, requests, tokens, window_ms, bare }
    };
    let limits = vec![limit(Some(case.requests), Some(TOKENS), 60_000), limit(Some(case.requests / 6), None, 10_000)];
    let faults = Faults { rate: 0.05, kinds: vec!["503".to_owned()], ..Faults::default() };
    let latency = Latency::Lognormal { p50_ms: 400, p99_ms: 3_000 };
    let (sim, work) = (
        Sim::start(Settings { limits, latency, faults, trust_media: true, ..Settings::default() }),
        Workdir::with_clips(1),
    );
    // Enough work for any time: each item has its 15 calls.
    let minutes = u64::from(case.before + case.periods) / 6 + 1;
    let items = exhausting(usize::try_from(minutes * case.requests / 15).unwrap() + 100);
    let mut bench = Bench::new(prefix);
    enqueue(&bench, &work, &sim, &items);
    let declared = case
        .declared
        .map_or_else(String::new, |n| format!("requests_per_minute = {n}\ntokens_per_minute = {TOKENS}\n"));
    let config = format!(
        "[retry]\nbase_ms = 500\nmax_ms = 60000\n[worker]\nconcurrency = {}\n[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\n{declared}",
        case.requests / 30 / case.workers as u64
    );
    let start = || bench.worker(&work, &sim).without("OPENAI_API_KEY").config(&config).spawn();
    let mut workers: Vec<Running<'_>> = (0..case.workers).map(|_| start()).collect();
    let of_ten_seconds = || sim.stats().limits.into_iter().find(|limit| limit.limit.window_ms == 10_000);
    until("the first call", || of_ten_seconds().filter(|limit| limit.admitted > 0));
    let began = Instant::now();
    let at = |end: Duration| {
        while began.elapsed() < end {
            std::thread::sleep(Duration::from_millis(2).min(end.saturating_sub(began.elapsed())));
        }
        (began.elapsed(), of_ten_seconds().unwrap())
    };
    let from = PERIOD * case.before + Duration::from_secs(1);
    let (from, first) = at(from);
    // What is told of a cut is told by the one worker whose call was refused.
    let (mut told, mut cuts) = (false, 0.0);
    let mut end = |worker: Running<'_>| {
        cuts += worker.metric("aurelia_quota_cuts_total");
        let ended = worker.kill();
        assert_eq!(ended.code, None, "there was not work enough");
        let warnings = ended.stderr.matches("calls are refused: fewer requests per minute are used").count();
        assert!(warnings < 2, "once an hour: {}", ended.stderr);
        told |= warnings > 0;
    };
    for kill in 1..=u32::try_from(case.kills).unwrap() {
        at(from + PERIOD * case.periods * kill / (u32::try_from(case.kills).unwrap() + 1));
        end(workers.remove(0));
        workers.push(start());
    }
    let (to, last) = at(from + PERIOD * case.periods);
    let (stats, seconds) = (sim.stats(), to.as_secs_f64() - from.as_secs_f64());
    workers.into_iter().for_each(&mut end);
    assert_eq!(told, stats.limit_violations > 2, "a limit that turns out lower is told of");
    assert_eq!(told, cuts > 0.0, "and counted");
    let LimitUse { admitted, refused, peak_requests, .. } = last;
    let (calls, refusals) = (admitted - first.admitted, refused - first.refused);
    // No job is lost to a refusal, nor a try: those that are done had all their calls.
    let (done, _) = bench.records(1);
    for message in done.values() {
        let calls: usize = message.record.tries.iter().map(|attempt| attempt.calls.len()).sum();
        assert_eq!(calls, 15, "{:?}", message.record.error);
    }
    let share = calls as f64 / (seconds * case.requests as f64 / 60.0);
    let share_refused = refusals as f64 / (calls + refusals) as f64;
    let text = format!(
        "{calls} calls of {} workers in {seconds:.0} s, {:.2} % of {}/min used, at most {peak_requests} in 10 s, {refusals} refused \
         ({:.2} %); {} refused in all, {} failed with 503",
        case.workers,
        share * 100.0,
        case.requests,
        share_refused * 100.0,
        stats.limit_violations,
        stats.faults.values().sum::<u64>(),
    );
    Used { share, refused: share_refused, refusals: stats.limit_violations, text }
}

#[test]
fn a_fleet_uses_its_limit_without_a_refusal_whoever_dies() {
    let case = Case { requests: 300, workers: 3, kills: 1, declared: Some(300), bare: false, before: 3, periods: 2 };
    let used = used("pace-exact", case);
    println!("{}", used.text);
    assert_eq!(used.refusals, 0, "{}", used.text);
    assert!(used.share >= 0.95, "{}", used.text);
}

#[test]
fn a_fleet_learns_a_limit_that_is_declared_too_high_from_refusals_that_say_nothing_of_it() {
    let case = Case { requests: 300, workers: 3, kills: 0, declared: Some(360), bare: true, before: 7, periods: 2 };
    let used = used("pace-learned", case);
    println!("{}", used.text);
    assert!(used.refusals > 0, "there was nothing to learn: {}", used.text);
    assert!(used.share >= 0.9 && used.refused < 0.1, "{}", used.text);
}

/// Seconds since the epoch.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// The rule of a time zone in which a day is over in so many seconds (POSIX TZ).
fn zone(seconds: u64) -> String {
    let today = i64::try_from((now() + seconds) % 86_400).unwrap();
    let (sign, behind) = if today > 43_200 { ("-", 86_400 - today) } else { ("", today) };
    format!("XXX{sign}{}:{:02}:{:02}", behind / 3600, behind / 60 % 60, behind % 60)
}

#[test]
fn a_days_requests_are_used_up_then_jobs_wait_and_go_on_when_it_is_over() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let bench = Bench::new("pace-day");
    enqueue(&bench, &work, &sim, &corpus(10, 1));
    let over = now() + 50;
    let config = format!(
        "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_day = 12\nday_resets = \"{}\"\n",
        zone(over - now())
    );
    let workers: Vec<Running<'_>> =
        (0..2).map(|_| bench.worker(&work, &sim).without("OPENAI_API_KEY").config(&config).spawn()).collect();
    until("the day is used up and jobs wait, without a slot", || {
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        under_way.parked.contains_key("quota").then_some(())
    });
    assert!(now() < over, "the day was over too soon");
    // What was appointed and then sent away gives its place back: nothing is lost of the day.
    until("all of the day is used", || (sim.received() == 12).then_some(()));
    let done = sim.received();
    until("the day is over", || (now() >= over).then_some(()));
    assert_eq!(sim.received(), done, "no call after it");
    until("the next day goes on", || (sim.received() > done).then_some(()));
    assert!(now() > over, "not before a second of the next day is over");
    until("it is used up too", || (sim.received() == 24).then_some(()));
    drop(workers);
}

#[test]
fn a_worker_works_on_no_more_jobs_at_once_than_its_quota_keeps_busy() {
    let limits = vec![Limit { model: "*".into(), requests: Some(120), tokens: None, window_ms: 60_000, bare: false }];
    let settings = Settings { limits, trust_media: true, ..Settings::default() };
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    let bench = Bench::new("pace-slots");
    enqueue(&bench, &work, &sim, &exhausting(100));
    let config =
        "[worker]\nconcurrency = 64\n[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_minute = 120\n";
    let worker = bench.worker(&work, &sim).without("OPENAI_API_KEY").config(config).spawn();
    // Replies come at once: two calls a second keep hardly one job busy.
    until("few are allowed", || (worker.metric("aurelia_slots") < 10.0).then_some(()));
    assert!(worker.metric("aurelia_slots_wanted") < 4.0, "nor would more workers do more");
    assert_eq!(sim.stats().limit_violations, 0);
    worker.kill();
}

#[test]
fn a_store_that_lost_its_tail_holds_an_account_until_every_window_is_over() {
    let limits = vec![Limit { model: "*".into(), requests: Some(300), tokens: None, window_ms: 60_000, bare: false }];
    let latency = Latency::Fixed { ms: 100 };
    let (sim, work) =
        (Sim::start(Settings { limits, latency, trust_media: true, ..Settings::default() }), Workdir::with_clips(1));
    let redis = RedisServer::own("everysec");
    let bench = Bench::over(&Broker::shared(), &redis.url(), "pace-lost");
    enqueue(&bench, &work, &sim, &corpus(200, 1));
    let config = "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_minute = 300\n";
    let workers: Vec<Running<'_>> =
        (0..2).map(|_| bench.worker(&work, &sim).without("OPENAI_API_KEY").config(config).spawn()).collect();
    until("calls are made", || (sim.received() > 20).then_some(()));
    let all = redis.say(&["KEYS", "*{quota}:*"]);
    let kept: Vec<&str> = all.lines().collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    let earlier = |key: &str| format!("earlier:{key}");
    assert!(kept.iter().all(|key| redis.say(&["COPY", key, &earlier(key)]) == "1"));
    until("more calls are made", || (sim.received() > 40).then_some(()));
    assert!(kept.iter().all(|key| redis.say(&["COPY", &earlier(key), key, "REPLACE"]) == "1"));
    until("a worker says so", || {
        workers.iter().any(|worker| worker.stderr().contains("Redis has lost what was sent last")).then_some(())
    });
    // What had its appointment goes; then nothing, where ten seconds have room for fifty.
    std::thread::sleep(Duration::from_secs(2));
    let received = sim.received();
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(sim.received(), received);
    let paused = "for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
                      if string.find(field, 'account:gemini', 1, true) then
                          local _, _, paused = struct.unpack('<ddd', redis.call('HGET', KEYS[1], field))
                          return string.format('%d', paused)
                      end
                  end";
    let books = kept.iter().find(|key| key.ends_with(":books")).unwrap();
    let paused: u64 = redis.say(&["EVAL", paused, "1", books]).parse().unwrap();
    let held = paused / 1_000_000 - now();
    assert!((44..62).contains(&held), "until the minute is over: {held} s");
    // An empty store knows nothing of that; those who sent do.
    assert!(kept.iter().all(|key| redis.say(&["DEL", key]) == "1"));
    std::thread::sleep(Duration::from_secs(3));
    let stats = sim.stats();
    assert_eq!((stats.limit_violations, stats.received), (0, received), "{:?}", stats.limits);
    drop(workers);
}

/// Items with a name in common, each with a question of its own.
fn named(prefix: &str, count: usize) -> Vec<Value> {
    let item = |item: Value| json!({"id": format!("{prefix}-{}", item["id"]), "video": item["video"], "query": format!("{prefix}: {}", item["query"])});
    corpus(count, 1).into_iter().map(item).collect()
}

#[test]
fn runs_share_the_slots_by_the_weights_of_their_lanes() {
    let (sim, work) = (Sim::slow(20), Workdir::with_clips(1));
    let mut bench = Bench::new("pace-lanes");
    for lane in ["high", "low"] {
        let file = work.items(&format!("{lane}.jsonl"), &named(lane, 120));
        let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
        producer.args(["--run", lane, "--lane", lane, "--json"]).arg(&file).run().expect(0);
    }
    let worker = bench.worker(&work, &sim).spawn();
    let (done, _) = bench.records(105);
    let high = done.keys().filter(|item| item.starts_with("high")).count();
    println!("{high} of the first 105 jobs are of the high lane");
    // Six to one; jobs that began together end in any order.
    assert!((82..=98).contains(&high), "{high} of 105");
    worker.kill();
}

#[test]
fn the_jobs_of_a_small_run_wait_no_longer_than_their_share_beside_a_hundred_times_more() {
    let (sim, work) = (Sim::slow(50), Workdir::with_clips(1));
    let mut bench = Bench::new("pace-shares");
    bench.enqueue(&work, "large", &named("large", 400));
    let worker = bench.worker(&work, &sim).spawn();
    let (begun, _) = bench.records(20);
    assert!(begun.keys().all(|item| item.starts_with("large")));
    bench.enqueue(&work, "small", &named("small", 4));
    let (mut small, mut large) = (0, 0);
    while small < 4 {
        let (found, _) = bench.records(1);
        if found.keys().all(|item| item.starts_with("small")) { small += 1 } else { large += 1 }
    }
    // Eight jobs were under way and what was done until the small run was seen is not counted: then every second slot is its own.
    println!("{large} jobs of the large run ended before the last of four of the small one");
    assert!(large <= 100, "{large} jobs of the large run ended first");
    drop(worker);
}
