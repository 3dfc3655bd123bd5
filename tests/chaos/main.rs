//! The full sizes of what `make test` does small; `make chaos` runs them one after the other and shows their figures.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]
#![allow(
    dead_code,
    unused_imports,
    reason = "the harness is that of the integration tests, and not all of it is needed"
)]

use std::time::Instant;

use aurelia::simulator::{Faults, Latency, Limit, LimitUse, Settings};
use serde_json::json;

#[path = "../it"]
mod it {
    /// The largest of them takes minutes.
    const PATIENCE: std::time::Duration = std::time::Duration::from_mins(30);

    pub(crate) mod fallback;
    #[cfg(feature = "fleet")]
    pub(crate) mod fleet;
    pub(crate) mod load;
    #[cfg(feature = "fleet")]
    pub(crate) mod money;
    #[cfg(feature = "fleet")]
    pub(crate) mod pace;
    #[cfg(feature = "fleet")]
    pub(crate) mod quota;
    pub(crate) mod support;
    #[cfg(feature = "fleet")]
    pub(crate) mod worker;
}

use it::load::{self, one_account};
use it::support::{Aurelia, Sim, Workdir, corpus, until};

#[test]
fn two_hundred_items_killed_at_twenty_points() {
    println!("{}", load::killed(200, 5, 20, 2026));
}

#[test]
fn a_thousand_items_decode_each_of_their_twenty_clips_once() {
    println!("{}", decoded(1_000, 20));
}

#[test]
fn money_for_a_hundred_of_five_hundred_items() {
    println!("{}", load::budget(500));
}

#[test]
fn memory_at_item_ten_thousand_is_that_at_item_one_thousand() {
    println!("{}", load::memory(1_000, 10_000));
}

#[test]
fn five_minutes_at_the_limit() {
    println!("{}", load::rate(29, Latency::Fixed { ms: 300 }, Faults::default()));
}

#[test]
fn five_minutes_at_the_limit_with_outages_and_jitter() {
    let faults = Faults { rate: 0.05, kinds: vec!["503".to_owned()], ..Faults::default() };
    println!("{}", load::rate(29, Latency::Lognormal { p50_ms: 500, p99_ms: 4_000 }, faults));
}

#[test]
fn two_minutes_at_a_limit_of_tokens() {
    println!("{}", tokens());
}

#[cfg(feature = "fleet")]
#[test]
fn two_thousand_jobs_of_a_fleet_to_which_everything_happens() {
    let faults = it::fleet::Faults { workers: 30, brokers: 3, redis: 3, buckets: 3, cuts: 10, collectors: 5 };
    println!("{}", it::fleet::chaos("chaos-full", 2_000, faults, 2026));
}

#[cfg(feature = "fleet")]
#[test]
fn five_hundred_identical_jobs_over_four_workers() {
    it::worker::identical("chaos-identical", 500);
}

#[cfg(feature = "fleet")]
#[test]
fn a_job_that_kills_its_worker_among_a_hundred_others() {
    it::worker::poison("chaos-poison", 100);
}

#[cfg(feature = "fleet")]
#[test]
fn a_thousand_jobs_on_twenty_clips_of_a_bucket() {
    println!("{}", it::fleet::shared_clips("chaos-clips", 1_000, 20, 3));
}

#[cfg(feature = "fleet")]
#[test]
fn a_worker_cut_from_its_broker_for_a_minute() {
    it::fleet::cut_off("chaos-cut", 200, std::time::Duration::from_mins(1));
}

#[cfg(feature = "fleet")]
#[test]
fn a_run_of_a_hundred_thousand_jobs_is_paused_resumed_and_cancelled() {
    println!("{}", it::fleet::control("chaos-control", 100_000));
}

#[cfg(feature = "fleet")]
#[test]
fn half_the_money_of_two_thousand_jobs_with_two_hundred_in_flight_and_five_workers_killed() {
    println!("{}", it::money::ceiling("chaos-money", 2_000, 67, 5));
}

#[cfg(feature = "fleet")]
#[test]
fn five_minutes_of_eight_workers_at_the_limit_of_which_two_are_killed() {
    let case = it::pace::Case {
        requests: 1_200,
        workers: 8,
        kills: 2,
        declared: Some(1_200),
        bare: false,
        before: 6,
        periods: 29,
    };
    let used = it::pace::used("chaos-pace", case);
    println!("{}", used.text);
    assert!(used.refusals == 0 && used.share >= 0.98, "{}", used.text);
}

#[cfg(feature = "fleet")]
#[test]
fn minutes_five_to_ten_at_a_limit_that_is_declared_a_fifth_too_high() {
    for (prefix, bare) in [("chaos-bare", true), ("chaos-named", false)] {
        let case = it::pace::Case {
            requests: 1_200,
            workers: 8,
            kills: 2,
            declared: Some(1_440),
            bare,
            before: 29,
            periods: 29,
        };
        let used = it::pace::used(prefix, case);
        println!("{}", used.text);
        assert!(used.refused < 0.01 && used.share >= 0.95, "{}", used.text);
    }
}

#[cfg(feature = "fleet")]
#[test]
fn a_hundred_thousand_histories_of_the_script_and_the_model() {
    it::quota::histories("chaos-histories", 100_000);
}

/// Each clip is decoded once, however many items show it.
fn decoded(items: usize, clips: u64) -> String {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(clips));
    let file = work.items("items.jsonl", &corpus(items, usize::try_from(clips).unwrap()));
    let summary = Aurelia::new(&work, &sim).corpus(&file).args(["--concurrency", "32"]).run().expect(0).json();
    assert_eq!(
        (summary["written"].as_u64(), summary["decodes"].as_u64()),
        (Some(items as u64), Some(clips)),
        "{summary}"
    );
    format!("{items} items over {clips} clips in {} s", summary["seconds"])
}

/// A limit of 12 calls' tokens a minute, enforced over any minute, used for two minutes and a kill in between.
fn tokens() -> String {
    let (probe, work) = (Sim::plain(), Workdir::with_clips(1));
    let one = work.items("one.jsonl", &[json!({"video": "clips/0.mp4", "query": "What? [[sim: score=9]]"})]);
    one_account(&work, &probe).corpus(&one).run().expect(0);
    let stats = probe.stats();
    let limit = 12 * stats.prompt_tokens.div_ceil(stats.answered);
    let limits = vec![Limit { model: "*".into(), requests: None, tokens: Some(limit), window_ms: 60_000, bare: false }];
    let (sim, work) = (Sim::start(Settings { limits, ..Settings::default() }), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(30, 1));
    let config = format!("[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\ntokens_per_minute = {limit}\n");
    let start = || one_account(&work, &sim).config(&config).corpus(&file).args(["--concurrency", "8"]).spawn();
    for seconds in [20, 100] {
        let (running, began) = (start(), Instant::now());
        until("enough of the minutes went by", || (began.elapsed().as_secs() >= seconds).then_some(()));
        assert_eq!(running.kill().code, None, "there was not work enough");
    }
    let stats = sim.stats();
    assert_eq!(stats.limit_violations, 0, "{:?}", stats.limits);
    let LimitUse { tokens, peak_tokens, utilisation, .. } = &stats.limits[0];
    format!("{tokens} tokens, at most {peak_tokens} of {limit} in a minute, {utilisation:?} used, 0 refused")
}
