//! Limits are kept by the provider's own clock, and used.

use std::time::Duration;

use aurelia::record::{ErrorKind, Status};
use aurelia::simulator::{Faults, Latency, Limit, Settings};
use serde_json::json;

use crate::load::{one_account, rate};
use crate::support::{Sim, Workdir, corpus, until};

fn limited(requests: u64, window_ms: u64, latency_ms: u64) -> Settings {
    let limit = Limit { model: "*".into(), requests: Some(requests), tokens: None, window_ms, bare: false };
    Settings { limits: vec![limit], latency: Latency::Fixed { ms: latency_ms }, ..Settings::default() }
}

fn allowed(limits: &str) -> String {
    format!("[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\n{limits}\n")
}

#[test]
fn a_limit_of_requests_is_never_passed_and_nearly_all_used() {
    println!("{}", rate(3, Latency::Fixed { ms: 300 }, Faults::default()));
}

#[test]
fn a_limit_holds_over_kills_within_its_window() {
    let (sim, work) = (Sim::start(limited(24, 2_000, 300)), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(40, 1));
    let config = allowed("requests_per_minute = 720\nspread_seconds = 2");
    let start = || one_account(&work, &sim).config(&config).corpus(&file).args(["--concurrency", "32"]).spawn();
    for point in [10, 25, 45, 60] {
        let running = start();
        until("some calls arrived", || (sim.received() >= point).then_some(()));
        assert_eq!(running.kill().code, None, "it was over before it was killed");
    }
    start().wait().expect(0);
    let stats = sim.stats();
    assert_eq!((stats.limit_violations, work.records().len()), (0, 40), "{:?}", stats.limits);
}

#[test]
fn no_more_calls_are_under_way_than_an_account_allows() {
    let (sim, work) = (Sim::slow(20), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(12, 1));
    let config = allowed("concurrency = 3");
    one_account(&work, &sim).config(&config).corpus(&file).args(["--concurrency", "12"]).run().expect(0);
    assert_eq!(sim.stats().peak_concurrency, 3);
}

#[test]
fn a_request_larger_than_the_limit_of_tokens_fails_its_item_and_asks_nobody() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(1, 1));
    one_account(&work, &sim).config(&allowed("tokens_per_minute = 100")).corpus(&file).run().expect(1);
    let record = work.records().into_values().next().unwrap();
    let error = record.error.unwrap();
    assert_eq!((record.status, error.kind), (Status::Failed, ErrorKind::Refused));
    assert!(error.message.contains("100 tokens per minute"), "{}", error.message);
    assert_eq!(sim.received(), 0);
}

#[test]
fn a_days_requests_are_counted_over_restarts_and_the_run_says_when_they_come_back() {
    let (sim, work) = (Sim::start(limited(5, 86_400_000, 0)), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(4, 1));
    let config = allowed("requests_per_day = 5");
    // One at a time: a call that waits for its appointment when the run ends is not sent, and the day keeps its place.
    let args = ["--max-wait", "1s", "--concurrency", "1"];
    let run = || one_account(&work, &sim).config(&config).corpus(&file).args(args).run().expect(75);
    for _ in 0..2 {
        let output = run();
        let sentence = output.sentence();
        assert!(sentence.contains("the day's quota is used up until 2"), "{sentence}");
        assert_eq!((sim.received(), sim.stats().limit_violations), (5, 0));
    }
}

#[test]
fn a_days_quota_is_waited_for_without_max_wait_and_the_run_says_until_when() {
    // With a summary as JSON there is no progress bar, and where standard error is no terminal its lines are told all the same.
    for summary in [Some("--json"), None] {
        let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
        let file = work.items("items.jsonl", &corpus(4, 1));
        let running = one_account(&work, &sim).config(&allowed("requests_per_day = 5")).arg("run").args(summary);
        let mut running = running.arg("--corpus").arg(&file).arg("--out").arg(work.out()).spawn();
        until("it waits", || running.stderr().contains("waiting until").then_some(()));
        let said = running.stderr();
        let told: Vec<&str> = said.lines().filter(|line| line.contains("waiting until")).collect();
        let [line] = told[..] else { panic!("one wait is told once: {told:?}") };
        let until = line.strip_prefix("the day's quota is used up; waiting until ").unwrap();
        let until: jiff::Timestamp = until.parse().unwrap();
        let wait = until.duration_since(jiff::Timestamp::now());
        assert!(wait > jiff::SignedDuration::ZERO && wait <= jiff::SignedDuration::from_hours(25), "{wait:?}");
        assert!(!running.is_over());
        assert_eq!(sim.received(), 5);
        running.signal(rustix::process::Signal::TERM);
        running.wait().expect(75);
    }
}

#[test]
fn a_provider_that_asks_for_a_pause_is_not_asked_before_it_is_over() {
    let mut settings = limited(1_000, 1_000, 0);
    settings.faults.retry_delay_ms = 1_500;
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    let item =
        json!({"id": "a", "video": "clips/0.mp4", "query": "Why? [[sim: score=9, fault=429 times=1 role=generator]]"});
    let file = work.items("items.jsonl", &[item]);
    let running = one_account(&work, &sim).corpus(&file).spawn();
    let limit = || sim.stats().limits.first().cloned();
    let refused = until("the refusal", || limit().filter(|limit| limit.admitted == 1)).first_us;
    let next = until("the next call", || limit().filter(|limit| limit.admitted == 2)).last_us;
    running.wait().expect(0);
    let pause = Duration::from_micros(next - refused);
    assert!(pause >= Duration::from_millis(1_500), "{pause:?}");
    assert!(pause < Duration::from_secs(6), "{pause:?}: longer than it was asked for");
    assert_eq!(sim.received(), 4);
}

#[test]
fn a_pause_of_one_account_leaves_the_others_alone() {
    let mut settings = Settings::default();
    settings.faults.retry_delay_ms = 3_000;
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    // The generator's account is paused when each item has its reply; the evaluator's has work to do.
    let recipe = include_str!("../../config/recipes/default.toml");
    let (others, evaluator) = recipe.split_once("[roles.evaluator]").unwrap();
    let recipe = format!("{others}[roles.evaluator]{}", evaluator.replace("gemini-3.8-flash", "gemini-2.5-flash"));
    let recipe = work.write("recipe.toml", recipe);
    let mut items: Vec<_> = (0..4)
        .map(|n| json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": format!("Who ({n})? [[sim: score=9, latency_ms=700]]")}))
        .collect();
    items.push(json!({"id": "paused", "video": "clips/0.mp4",
                      "query": "Why? [[sim: score=9, latency_ms=300, fault=429 times=1 role=generator]]"}));
    let file = work.items("items.jsonl", &items);
    let running = crate::support::Aurelia::new(&work, &sim).corpus(&file).arg("--recipe").arg(&recipe).spawn();
    let done = until("the others have their records", || Some(work.records().len()).filter(|n| *n == 4));
    let stats = sim.stats();
    assert_eq!((done, stats.by_model["gemini-3.8-flash"], stats.by_model["gemini-2.5-flash"]), (4, 5, 4));
    running.wait().expect(0);
    assert_eq!(work.records().len(), 5);
}
