//! A role's fallback: asked when the role's own model is away for too long, told in the record, taken again by every replay.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aurelia::provider::Role;
use aurelia::record::{ErrorKind, FallbackFor, Record, RecordCall, Status};
use aurelia::simulator::{Faults, Limit, Settings};
use serde_json::json;

use super::load::{contents, named};
use super::support::{Aurelia, Sim, Workdir, corpus, records, until};

const OWN: &str = "model = \"gemini-3.8-flash\"";
const HELPED: &str = "model = \"gemini-3.8-flash\"\nfallback = { provider = \"openai\", model = \"gpt-4o\" }";
/// What both models can be shown.
const FRAMES: (&str, &str) = ("media = \"frames+audio\"", "media = \"frames\"");
/// A model is given up after a second.
const SOON: &str = "[retry]\nfallback_after_seconds = 1\n";

/// An item fails after two seconds.
const SHORT: &str = "[worker]\njob_deadline_seconds = 2\n[http]\nconnect_seconds = 1\nfirst_byte_seconds = 1\nidle_seconds = 1\ntotal_seconds = 1\n";

/// A provider that is there and answers nothing.
pub(crate) fn down() -> Sim {
    let faults = Faults { rate: 1.0, kinds: vec!["503".to_owned()], max_consecutive: 0, ..Faults::default() };
    Sim::start(Settings { faults, ..Settings::default() })
}

/// The usual recipe; with a fallback for generator and evaluator, or without.
pub(crate) fn recipe(work: &Workdir, name: &str, helped: bool) -> PathBuf {
    let text = fs::read_to_string(work.recipe(name, &[FRAMES, FRAMES])).unwrap();
    work.write(name, if helped { text.replace(OWN, HELPED) } else { text })
}

/// A state that all runs of the folder share.
fn shared(work: &Workdir) -> String {
    format!("embedded:{}", work.path("state.sqlite").display())
}

/// A command at `sim`, whose Gemini side is `gemini`.
fn at<'a>(work: &'a Workdir, sim: &Sim, gemini: &Sim) -> Aurelia<'a> {
    let aurelia = named(Aurelia::new(work, sim)).env("AURELIA__PROVIDERS__GEMINI__BASE_URL", &gemini.base_url());
    aurelia.config(SOON).env("AURELIA__SHARED__URL", &shared(work))
}

/// The usual run.
fn run<'a>(work: &'a Workdir, sim: &Sim, gemini: &Sim, items: &Path, recipe: &Path) -> Aurelia<'a> {
    at(work, sim, gemini).corpus(items).arg("--recipe").arg(recipe)
}

fn calls(record: &Record) -> impl Iterator<Item = &RecordCall> {
    record.tries.iter().flat_map(|t| &t.calls)
}

/// Every call of generator and evaluator is the fallback's and says so, and those of the summarizer are as ever.
pub(crate) fn all_helped(record: &Record) {
    for call in calls(record) {
        match (call.role, &call.fallback_for) {
            (Role::Summarizer, None) => assert_eq!(call.model, "gpt-4o-mini"),
            (Role::Generator | Role::Evaluator, Some(FallbackFor { provider, model, key })) => {
                assert_eq!((&*call.provider, &*call.model), ("openai", "gpt-4o"));
                assert_eq!((&**provider, &**model), ("gemini", "gemini-3.8-flash"));
                assert_ne!(*key, call.key);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// So many requests to Gemini's models are answered, and then a daily quota is used up.
pub(crate) fn a_day_of(requests: u64) -> Limit {
    let model = "gemini-*".to_owned();
    Limit { model, requests: Some(requests), tokens: None, window_ms: 86_400_000, bare: false }
}

/// Calls that Gemini answered, and those that its fallback did.
pub(crate) fn split<'a>(records: impl Iterator<Item = &'a Record>) -> (usize, usize) {
    let all: Vec<&RecordCall> = records.flat_map(calls).collect();
    let count = |is: fn(&RecordCall) -> bool| all.iter().filter(|call| is(call)).count();
    (count(|call| call.provider == "gemini"), count(|call| call.fallback_for.is_some()))
}

#[test]
fn the_fallback_answers_while_the_roles_own_model_is_down_and_every_replay_takes_its_way_again() {
    let (sim, gemini, work) = (Sim::plain(), down(), Workdir::with_clips(2));
    let (items, recipe) = (work.items("items.jsonl", &corpus(6, 2)), recipe(&work, "recipe.toml", true));
    let output = run(&work, &sim, &gemini, &items, &recipe).run().expect(0);
    let first = contents(&work);
    assert_eq!(first.len(), 6);
    first.values().for_each(all_helped);
    let spent: u64 = first.values().map(|record| record.cost_nano_usd).sum();
    assert_eq!((spent, gemini.stats().spend_nano_usd), (sim.stats().spend_nano_usd, 0), "at the fallback's price");
    let told = output.stderr.lines().filter(|line| line.contains("gemini is away for too long")).count();
    let redirected = first.values().flat_map(calls).filter(|call| call.fallback_for.is_some()).count();
    assert!(told >= 1 && told * 4 <= redirected, "once a second, however many calls: {}", output.stderr);

    // Its own model is back: what went the other way stays there, and nobody is asked.
    let written = work.out().join("records.jsonl");
    fs::remove_file(&written).unwrap();
    let back = Sim::plain();
    let (asked, _) = sim.counted(|| run(&work, &sim, &back, &items, &recipe).run().expect(0));
    assert_eq!((asked, back.received()), (0, 0));
    assert_eq!(contents(&work), first);
    let explain = |recipe: &Path| {
        let aurelia = at(&work, &sim, &back).args(["explain-miss", "item-000", "--corpus"]).arg(&items);
        aurelia.arg("--out").arg(work.out()).arg("--recipe").arg(recipe).run().expect(0).stdout
    };
    assert!(explain(&recipe).contains("nothing is missing"));

    // A recipe without it is not answered by it.
    let alone = super::fallback::recipe(&work, "alone.toml", false);
    assert!(explain(&alone).starts_with("the generator's request (try 1, ask 0) has no stored reply"));
    let out = work.path("alone");
    let elsewhere = at(&work, &sim, &back).args(["run", "--run", "alone", "--corpus"]).arg(&items);
    elsewhere.arg("--recipe").arg(&alone).arg("--out").arg(&out).run().expect(0);
    let others = records(&out);
    assert!(others.len() == 6 && others.values().flat_map(calls).all(|call| call.fallback_for.is_none()));
    assert_eq!(back.answered()[0], sim.answered()[0], "each question of a generator is asked once more");
    // And what it stored since under the same requests changes nothing for the first.
    fs::remove_file(&written).unwrap();
    let (asked, _) = back.counted(|| run(&work, &sim, &back, &items, &recipe).run().expect(0));
    assert_eq!((asked, contents(&work)), (0, first));
}

#[test]
fn a_model_that_is_back_is_asked_again() {
    // Slow, so that the run outlasts the 5 s for which an account is left alone.
    let (sim, gemini, work) = (Sim::slow(300), down(), Workdir::with_clips(2));
    let (items, recipe) = (work.items("items.jsonl", &corpus(60, 2)), recipe(&work, "recipe.toml", true));
    let running = run(&work, &sim, &gemini, &items, &recipe).spawn();
    until("the fallback answers", || (sim.answered()[0] > 0).then_some(()));
    gemini.set(|settings| settings.faults.rate = 0.0);
    running.wait().expect(0);
    let records = work.records();
    let (own, helped) = split(records.values());
    assert!(records.len() == 60 && helped > 0 && own > 0, "{own} of its own, {helped} of its fallback");
}

#[test]
fn a_day_that_is_used_up_is_not_waited_for_where_there_is_a_fallback() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    sim.set(|settings| settings.limits = vec![a_day_of(4)]);
    let (items, recipe) = (work.items("items.jsonl", &corpus(8, 2)), recipe(&work, "recipe.toml", true));
    run(&work, &sim, &sim, &items, &recipe).args(["--max-wait", "5s"]).run().expect(0);
    let records = contents(&work);
    assert_eq!(records.len(), 8);
    let (own, helped) = split(records.values());
    assert!(own == 4 && helped > 8, "{own} of its own, {helped} of its fallback");
}

/// A provider that refuses every call as too many for a minute, and asks for such a pause each time.
fn throttled(pause_ms: u64) -> Sim {
    let kinds = vec!["429".to_owned()];
    let faults = Faults { rate: 1.0, kinds, max_consecutive: 0, retry_delay_ms: pause_ms, ..Faults::default() };
    Sim::start(Settings { faults, ..Settings::default() })
}

#[test]
fn refusals_by_the_minute_are_waited_out_however_many_come_and_not_put_to_the_fallback() {
    let (sim, gemini, work) = (Sim::plain(), throttled(100), Workdir::with_clips(2));
    let (items, recipe) = (work.items("items.jsonl", &corpus(4, 2)), recipe(&work, "recipe.toml", true));
    let mut running = run(&work, &sim, &gemini, &items, &recipe).spawn();
    let refused = || gemini.stats().faults.get("429").copied().unwrap_or(0);
    until("the first refusal", || (refused() > 0).then_some(()));
    // The model is given up after a second, if this were an absence: it answers nobody for three times as long.
    let began = Instant::now();
    until("it was refused for long enough", || {
        assert!(!running.is_over(), "{}", running.stderr());
        (began.elapsed() > Duration::from_secs(3) && refused() > 6).then_some(())
    });
    gemini.set(|settings| settings.faults.rate = 0.0);
    let output = running.wait().expect(0);
    let records = contents(&work);
    let (own, helped) = split(records.values());
    assert!(records.len() == 4 && own >= 8 && helped == 0, "{own} of its own, {helped} of its fallback");
    assert!(!output.stderr.contains("is away for too long"), "{}", output.stderr);
}

#[test]
fn one_pause_that_is_longer_than_the_patience_with_a_model_is_an_absence() {
    let (sim, gemini, work) = (Sim::plain(), throttled(60_000), Workdir::with_clips(2));
    let (items, recipe) = (work.items("items.jsonl", &corpus(4, 2)), recipe(&work, "recipe.toml", true));
    run(&work, &sim, &gemini, &items, &recipe).args(["--max-wait", "5s"]).run().expect(0);
    let records = contents(&work);
    assert_eq!(records.len(), 4);
    records.values().for_each(all_helped);
}

#[test]
fn without_a_fallback_an_outage_is_waited_for_and_fails_the_item_as_ever() {
    let (sim, gemini, work) = (Sim::plain(), down(), Workdir::with_clips(1));
    let (items, recipe) = (work.items("items.jsonl", &corpus(1, 1)), recipe(&work, "recipe.toml", false));
    run(&work, &sim, &gemini, &items, &recipe).config(SHORT).run().expect(1);
    let record = &work.records()["item-000"];
    assert_eq!((record.status, record.error.as_ref().map(|e| e.kind)), (Status::Failed, Some(ErrorKind::Provider)));
    assert_eq!(sim.received(), 0);
    let text = fs::read_to_string(work.out().join("records.jsonl")).unwrap();
    assert!(!text.contains("fallback"), "{text}");
}

#[test]
fn a_request_that_is_refused_or_blocked_is_not_put_to_the_fallback() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let item = |fault: &str| json!({"id": fault, "video": "clips/0.mp4", "query": format!("What? [[sim: fault={fault} role=generator]]")});
    let items = work.items("items.jsonl", &[item("400"), item("safety")]);
    run(&work, &sim, &sim, &items, &recipe(&work, "recipe.toml", true)).run().expect(1);
    let records = work.records();
    let end = |id: &str| (records[id].status, records[id].error.as_ref().map(|e| e.kind));
    assert_eq!(end("400"), (Status::Failed, Some(ErrorKind::Refused)));
    assert_eq!(end("safety"), (Status::Blocked, Some(ErrorKind::Blocked)));
    assert!(records.values().flat_map(calls).all(|call| call.provider == "gemini"));
}

#[test]
fn an_address_at_which_nothing_answers_is_a_mistake_and_no_outage() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(1, 1));
    let nowhere = run(&work, &sim, &sim, &items, &recipe(&work, "recipe.toml", true))
        .env("AURELIA__PROVIDERS__GEMINI__BASE_URL", "http://127.0.0.1:9");
    let output = nowhere.run().expect(64);
    assert!(output.sentence().contains("check providers.gemini.base_url"), "{}", output.stderr);
    assert_eq!(sim.received(), 0);
}

#[test]
fn a_fallback_needs_its_key_before_anything_is_paid_for() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(1, 1));
    let lacking = run(&work, &sim, &sim, &items, &recipe(&work, "recipe.toml", true)).without("OPENAI_API_KEY");
    let output = lacking.run().expect(64);
    assert!(output.sentence().contains("OPENAI_API_KEY"), "{}", output.stderr);
    // And its price.
    let text = fs::read_to_string(recipe(&work, "recipe.toml", true)).unwrap();
    let unpriced = work.write("unpriced.toml", text.replace("\"gpt-4o\"", "\"gpt-99-zirkon\""));
    let output = run(&work, &sim, &sim, &items, &unpriced).run().expect(64);
    assert!(output.stderr.contains("gpt-99-zirkon") && output.stderr.contains("price"), "{}", output.stderr);
    assert_eq!(sim.received(), 0);
}
