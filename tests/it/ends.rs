//! How a job ends: the rows of "Ends", each with the real binary.

use std::collections::HashMap;
use std::sync::Mutex;

use aurelia::demo::clip::{Content, Style};
use aurelia::provider::Role;
use aurelia::recipe::GiveUp;
use aurelia::record::{ErrorKind, Outcome, Record, Status};
use aurelia::simulator::{Faults, Settings};
use serde_json::{Value, json};

use crate::support::command::GEMINI_KEY;
use crate::support::relay::Sent;
use crate::support::{Aurelia, Relay, Sim, Workdir, corpus};

/// A question that orders something of the simulator.
fn ordered(order: &str) -> Value {
    json!({ "id": "one", "video": "clips/0.mp4", "query": format!("What rings? [[sim: {order}]]") })
}

/// The record of one item with this order, and the calls that arrived for it.
fn ends(order: &str, code: i32, config: &str) -> (Record, u64) {
    let sim = Sim::start(Settings {
        faults: Faults { retry_delay_ms: 5, stall_ms: 5_000, slow_ms: 20, ..Faults::default() },
        ..Settings::default()
    });
    let work = Workdir::with_clips(1);
    let items = work.items("items.jsonl", &[ordered(order)]);
    let (calls, _) = sim.counted(|| Aurelia::new(&work, &sim).config(config).corpus(&items).run().expect(code));
    (work.records().remove("one").expect("a record"), calls)
}

/// Outcomes of a role's calls within a try.
fn outcomes(record: &Record, index: usize, role: Role) -> Vec<Outcome> {
    record.tries[index].calls.iter().filter(|call| call.role == role).map(|call| call.outcome).collect()
}

fn scores(record: &Record) -> Vec<Option<u8>> {
    record.tries.iter().map(|t| t.score).collect()
}

/// An error's kind, role and try.
type Blame = (ErrorKind, Option<Role>, Option<u32>);

/// The status, and whose error it is.
fn end(record: &Record) -> (Status, Option<Blame>) {
    (record.status, record.error.as_ref().map(|e| (e.kind, e.role, e.try_index)))
}

#[test]
fn a_score_that_reaches_the_threshold_is_accepted_and_ends_the_loop() {
    let (record, calls) = ends("scores=4/6/9", 0, "");
    assert_eq!(end(&record), (Status::Accepted, None));
    assert_eq!((record.best_try, record.score, record.threshold), (Some(2), Some(6), 6));
    assert_eq!((scores(&record), calls), (vec![Some(4), Some(6)], 6));
    assert_eq!(record.reasoning_steps, record.tries[1].reasoning_steps);
    assert_eq!(record.caption, record.tries[1].caption);
    assert_ne!(record.tries[0].reasoning_steps, record.tries[1].reasoning_steps);
}

#[test]
fn tries_used_up_keep_the_best_try_and_not_the_last() {
    let (record, calls) = ends("scores=3/5/4/2/1", 0, "");
    assert_eq!(end(&record), (Status::Exhausted, None));
    assert_eq!((record.best_try, record.score, record.tries.len(), calls), (Some(2), Some(5), 5, 15));
    assert_eq!(record.reasoning_steps, record.tries[1].reasoning_steps);
    assert_eq!(record.final_answer, record.tries[1].final_answer);
}

#[test]
fn of_equal_scores_the_first_try_is_the_best() {
    let (record, _) = ends("scores=4/5/5/3/5", 0, "");
    assert_eq!((record.status, record.best_try, record.score), (Status::Exhausted, Some(2), Some(5)));
}

#[test]
fn an_unparsable_generator_fails_the_item_and_earlier_scored_tries_stay() {
    let (record, calls) = ends("scores=5/4, fault=prose role=generator take=3", 1, "");
    assert_eq!(end(&record), (Status::Failed, Some((ErrorKind::Unparsable, Some(Role::Generator), Some(3)))));
    assert_eq!((record.best_try, record.score, calls), (Some(1), Some(5), 9));
    assert_eq!(scores(&record), [Some(5), Some(4), None]);
    assert_eq!(outcomes(&record, 2, Role::Generator), [Outcome::Unparsable; 3]);
    assert_eq!((record.tries[2].reasoning_steps.len(), &record.tries[2].caption), (0, &None));
    assert_eq!(record.reasoning_steps, record.tries[0].reasoning_steps);
}

#[test]
fn an_unparsable_evaluator_fails_the_item_and_the_unfinished_try_keeps_what_it_has() {
    let (record, calls) = ends("scores=5/9, fault=score_two role=evaluator take=2", 1, "");
    assert_eq!(end(&record), (Status::Failed, Some((ErrorKind::Unparsable, Some(Role::Evaluator), Some(2)))));
    assert_eq!((record.best_try, record.score, calls), (Some(1), Some(5), 8));
    assert_eq!(scores(&record), [Some(5), None]);
    assert!(record.tries[1].caption.is_some() && !record.tries[1].reasoning_steps.is_empty());
    assert_eq!(outcomes(&record, 1, Role::Evaluator), [Outcome::Unparsable; 3]);
}

#[test]
fn an_empty_summary_is_asked_again_and_blocks_the_item_when_it_stays_empty() {
    let (record, calls) = ends("fault=empty role=summarizer", 0, "");
    assert_eq!(end(&record), (Status::Blocked, Some((ErrorKind::Blocked, Some(Role::Summarizer), Some(1)))));
    assert_eq!((record.score, record.best_try, calls), (None, None, 4));
    assert_eq!(outcomes(&record, 0, Role::Summarizer), [Outcome::Blocked; 3]);
}

#[test]
fn a_summary_that_holds_no_caption_is_unparsable() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::start(&sim, |sent, _| (sent.role() == "summarizer").then(|| r#"{"caption": " "}"#.to_owned()));
    let items = work.items("items.jsonl", &corpus(1, 1));
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run().expect(1);
    let record = &work.records()["item-000"];
    assert_eq!(end(record), (Status::Failed, Some((ErrorKind::Unparsable, Some(Role::Summarizer), Some(1)))));
    assert_eq!(outcomes(record, 0, Role::Summarizer), [Outcome::Unparsable; 3]);
    assert!(!record.tries[0].reasoning_steps.is_empty() && record.reasoning_steps.is_empty());
}

#[test]
fn a_block_before_any_score_ends_as_blocked_and_names_role_and_reason() {
    for (fault, reason) in [("safety", "SAFETY"), ("recitation", "RECITATION"), ("blocked", "PROHIBITED_CONTENT")] {
        let (record, calls) = ends(&format!("fault={fault} role=evaluator"), 0, "");
        assert_eq!(end(&record), (Status::Blocked, Some((ErrorKind::Blocked, Some(Role::Evaluator), Some(1)))));
        let message = &record.error.as_ref().unwrap().message;
        assert!(message.contains("evaluator") && message.contains(reason), "{fault}: {message}");
        assert_eq!((scores(&record), calls), (vec![None], 5), "{fault}");
    }
}

#[test]
fn a_block_after_a_score_fails_the_item_and_the_best_try_stays() {
    let (record, _) = ends("scores=3, fault=safety role=generator take=2", 1, "");
    assert_eq!(end(&record), (Status::Failed, Some((ErrorKind::Blocked, Some(Role::Generator), Some(2)))));
    assert_eq!((record.best_try, record.score, scores(&record)), (Some(1), Some(3), vec![Some(3), None]));
    assert_eq!(record.final_answer, record.tries[0].final_answer);
}

#[test]
fn a_block_that_passes_costs_an_ask_and_no_try() {
    let (record, calls) = ends("scores=8, fault=safety role=generator times=2", 0, "");
    assert_eq!((record.status, record.best_try, record.tries.len(), calls), (Status::Accepted, Some(1), 1, 5));
    assert_eq!(outcomes(&record, 0, Role::Generator), [Outcome::Blocked, Outcome::Blocked, Outcome::Used]);
}

/// Maximum outputs that a role was asked with, in order, and its seeds.
fn asked(relay: &Relay, role: &str) -> Vec<u64> {
    relay.sent().iter().filter(|sent| sent.role() == role).map(Sent::max_output).collect()
}

#[test]
fn a_truncated_reply_is_asked_again_with_twice_the_room() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::quiet(&sim);
    let items = work.items("items.jsonl", &[ordered("scores=7, fault=truncated role=generator times=1")]);
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run().expect(0);
    let record = &work.records()["one"];
    assert_eq!((record.status, record.tries.len()), (Status::Accepted, 1));
    assert_eq!(outcomes(record, 0, Role::Generator), [Outcome::Truncated, Outcome::Used]);
    // The recipe's 2048, on top of what the model's thinking takes.
    let rooms = asked(&relay, "generator");
    assert_eq!((rooms.len(), rooms[1] - rooms[0]), (2, 2048));
    assert_eq!(asked(&relay, "evaluator").len(), 1);
}

#[test]
fn a_reply_that_stays_truncated_is_unparsable_and_its_room_grows_only_once() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::quiet(&sim);
    let items = work.items("items.jsonl", &[ordered("fault=truncated role=summarizer")]);
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run().expect(1);
    let record = &work.records()["one"];
    assert_eq!(end(record), (Status::Failed, Some((ErrorKind::Unparsable, Some(Role::Summarizer), Some(1)))));
    assert_eq!(asked(&relay, "summarizer"), [512, 1024, 1024]);
    assert_eq!(sim.answered(), [1, 3, 0]);
}

#[test]
fn each_ask_again_is_sent_with_another_seed() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::quiet(&sim);
    let items = work.items("items.jsonl", &[ordered("fault=prose role=generator")]);
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run().expect(1);
    let mut seeds: Vec<i64> =
        relay.sent().iter().map(|sent| sent.body["generationConfig"]["seed"].as_i64().unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 3);
}

#[test]
fn a_provider_that_is_down_until_the_jobs_deadline_fails_the_item() {
    let (record, calls) = ends(
        "fault=503 role=summarizer",
        1,
        "[worker]\njob_deadline_seconds = 1\n[http]\nconnect_seconds = 1\nfirst_byte_seconds = 1\nidle_seconds = 1\ntotal_seconds = 1\n",
    );
    assert_eq!(end(&record), (Status::Failed, Some((ErrorKind::Provider, Some(Role::Summarizer), Some(1)))));
    assert_eq!((record.tries.len(), outcomes(&record, 0, Role::Summarizer).len()), (1, 0));
    assert!(calls > 7, "it backs off and goes on after its {calls} attempts");
}

#[test]
fn a_request_that_the_provider_refuses_fails_at_once_after_one_attempt() {
    let (record, calls) = ends("fault=400 role=generator", 1, "");
    assert_eq!(end(&record), (Status::Failed, Some((ErrorKind::Refused, Some(Role::Generator), Some(1)))));
    assert_eq!(calls, 1);
}

#[test]
fn a_refused_key_ends_the_run_and_leaves_no_record() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    sim.set(|settings| {
        settings.keys.revoked.insert(GEMINI_KEY.to_owned());
    });
    let items = work.items("items.jsonl", &corpus(10, 2));
    let output = Aurelia::new(&work, &sim).corpus(&items).run().expect(64);
    assert!(output.sentence().contains("GEMINI_API_KEY"), "{}", output.stderr);
    assert!(work.records().is_empty());
    assert_eq!((output.json()["written"].as_u64(), sim.stats().spend_nano_usd), (Some(0), 0));
}

#[test]
fn throttling_outages_cuts_and_timeouts_cost_neither_an_ask_nor_a_try() {
    let faults = [
        "429",
        "429_bare",
        "500",
        "502",
        "503",
        "504",
        "cut_before",
        "cut_after",
        "cut_body",
        "stall",
        "garbage",
        "wrong_length",
    ];
    let sim = Sim::start(Settings {
        faults: Faults { retry_delay_ms: 5, stall_ms: 30_000, ..Faults::default() },
        ..Settings::default()
    });
    let work = Workdir::with_clips(1);
    let items: Vec<Value> = faults
        .iter()
        .map(|fault| {
            let order = format!("scores=3/7, fault={fault} role=generator times=1, fault={fault} role=summarizer times=1, fault={fault} role=evaluator times=1");
            json!({ "id": fault, "video": "clips/0.mp4", "query": format!("What rings? [[sim: {order}]]") })
        })
        .collect();
    let corpus = work.items("items.jsonl", &items);
    let config =
        "[http]\nfirst_byte_seconds = 1\nidle_seconds = 1\n[retry]\nattempts = 6\n[worker]\nconcurrency = 16\n";
    Aurelia::new(&work, &sim).config(config).corpus(&corpus).run().expect(0);
    let records = work.records();
    for fault in faults {
        let record = &records[fault];
        assert_eq!((record.status, scores(record)), (Status::Accepted, vec![Some(3), Some(7)]), "{fault}");
        let calls: Vec<_> = record.tries.iter().flat_map(|t| &t.calls).collect();
        assert!(calls.iter().all(|call| call.ask == 0 && call.outcome == Outcome::Used), "{fault}: {calls:?}");
        let attempts: u32 = calls.iter().map(|call| call.attempts).sum();
        assert!(attempts > 6, "{fault} was never met: {attempts} attempts");
    }
}

#[test]
fn media_that_cannot_be_used_fail_with_their_kind_and_the_others_finish() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let whole = std::fs::read(work.path("clips/0.mp4")).unwrap();
    work.write("clips/empty.mp4", "");
    work.write("clips/truncated.mp4", &whole[..whole.len() / 2]);
    work.write("clips/text.mp4", "this is no clip\n".repeat(100));
    work.clip("sound.blob", Style::small(Content::AudioOnly, 1), 1);
    let item = |id: &str, video: &str| json!({ "id": id, "video": video, "query": "What rings? [[sim: score=8]]" });
    let items = work.items(
        "items.jsonl",
        &[
            item("absent", "clips/absent.mp4"),
            item("folder", "clips"),
            item("empty", "clips/empty.mp4"),
            item("truncated", "clips/truncated.mp4"),
            item("text", "clips/text.mp4"),
            item("sound as video", "clips/sound.blob"),
            item("web", "https://example.invalid/a.mp4"),
            item("good", "clips/0.mp4"),
        ],
    );
    let output = Aurelia::new(&work, &sim).corpus(&items).run().expect(1);
    assert_eq!(output.json()["records"], json!({ "accepted": 1, "exhausted": 0, "blocked": 0, "failed": 7 }));
    let records = work.records();
    for (id, kind) in [
        ("absent", ErrorKind::NotFound),
        ("folder", ErrorKind::InvalidMedia),
        ("empty", ErrorKind::InvalidMedia),
        ("truncated", ErrorKind::InvalidMedia),
        ("text", ErrorKind::InvalidMedia),
        ("sound as video", ErrorKind::InvalidMedia),
        ("web", ErrorKind::Denied),
    ] {
        assert_eq!(end(&records[id]), (Status::Failed, Some((kind, None, None))), "{id}: {:?}", records[id].error);
        assert!(records[id].tries.is_empty());
    }
    assert_eq!((records["good"].status, sim.received()), (Status::Accepted, 3));
}

/// Verdicts that hold no score.
const NO_SCORE: [&str; 18] = [
    "",
    "7.5",
    "0",
    "11",
    "-1",
    "[7, 1]",
    "null",
    "high",
    r#"{"score": 7.5}"#,
    r#"{"score": 0}"#,
    r#"{"score": 11}"#,
    r#"{"score": -1}"#,
    r#"{"score": [7, 1]}"#,
    r#"{"score": "high"}"#,
    r#"{"score": null}"#,
    r#"{"score": 4} or rather {"score": 8}"#,
    r#"{"critique": "good"}"#,
    "It matches well.",
];

/// Verdicts that are a 7.
const SEVEN: [&str; 8] = [
    "7",
    "7.0",
    "\"7\"",
    "7/10",
    r#"{"score": 7}"#,
    r#"{"score": "7/10"}"#,
    "```json\n{\"score\": 7}\n```",
    "I would say {\"score\": 7}, as the bell is missing.",
];

/// Items `case-NNN`, one for each text; captions carry the case on to the judge.
fn cases(count: usize) -> Vec<Value> {
    let case = |n| json!({ "id": format!("case-{n:03}"), "video": "clips/0.mp4", "query": format!("What rings in case-{n:03}?") });
    (0..count).map(case).collect()
}

fn case(sent: &Sent, tag: &str) -> usize {
    let text = sent.tag(tag).unwrap().as_str().unwrap().to_owned();
    text[text.find("case-").unwrap() + 5..][..3].parse().unwrap()
}

#[test]
fn a_verdict_without_a_score_is_never_a_score_a_try_or_an_accept() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::start(&sim, |sent, _| match sent.role() {
        "summarizer" => Some(format!("A bell in case-{:03}.", case(sent, "question"))),
        "evaluator" => Some(NO_SCORE[case(sent, "caption")].to_owned()),
        _ => None,
    });
    let items = work.items("items.jsonl", &cases(NO_SCORE.len()));
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run();
    let records = work.records();
    assert_eq!(records.len(), NO_SCORE.len());
    for (n, verdict) in NO_SCORE.iter().enumerate() {
        let record = &records[&format!("case-{n:03}")];
        // An empty reply counts as blocked.
        let (status, kind) = match *verdict {
            "" => (Status::Blocked, ErrorKind::Blocked),
            _ => (Status::Failed, ErrorKind::Unparsable),
        };
        assert_eq!(end(record), (status, Some((kind, Some(Role::Evaluator), Some(1)))), "{verdict}");
        assert_eq!((record.score, record.best_try, scores(record)), (None, None, vec![None]), "{verdict}");
        assert_eq!(outcomes(record, 0, Role::Evaluator).len(), 3, "{verdict}");
    }
}

#[test]
fn a_bad_verdict_costs_an_ask_and_the_good_one_after_it_counts() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let asked: Mutex<HashMap<usize, usize>> = Mutex::default();
    let relay = Relay::start(&sim, move |sent, _| match sent.role() {
        "summarizer" => Some(format!("A bell in case-{:03}.", case(sent, "question"))),
        "evaluator" => {
            let n = case(sent, "caption");
            let mut asked = asked.lock().unwrap();
            let before = asked.entry(n).or_default();
            *before += 1;
            Some(if *before == 1 { NO_SCORE[n] } else { SEVEN[n % SEVEN.len()] }.to_owned())
        }
        _ => None,
    });
    let items = work.items("items.jsonl", &cases(NO_SCORE.len()));
    Aurelia::at(&work, &relay.base_url()).corpus(&items).run().expect(0);
    let records = work.records();
    for (n, verdict) in NO_SCORE.iter().enumerate() {
        let record = &records[&format!("case-{n:03}")];
        assert_eq!(
            (record.status, record.best_try, scores(record)),
            (Status::Accepted, Some(1), vec![Some(7)]),
            "{verdict}"
        );
        let spoilt = if verdict.is_empty() { Outcome::Blocked } else { Outcome::Unparsable };
        assert_eq!(outcomes(record, 0, Role::Evaluator), [spoilt, Outcome::Used], "{verdict}");
    }
}

/// The usual recipe with a rule by which jobs are given up after two tries below 3.
const GIVES_UP: (&str, &str) =
    ("answer_gate = false", "answer_gate = false\ngive_up = [{ after_try = 2, below_score = 3 }]");

#[test]
fn a_job_without_hope_is_given_up_by_the_recipes_rule_and_says_which() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let recipe = work.recipe("recipe.toml", &[GIVES_UP]);
    let item = |id: &str, scores: &str| json!({ "id": id, "video": "clips/0.mp4", "query": format!("What rings ({id})? [[sim: scores={scores}]]") });
    let items = [item("hopeless", "2/1/2/8"), item("hopeful", "1/3/2/8"), item("late", "2/2/2/2/2/2/9")];
    let items = work.items("items.jsonl", &items);
    let run = || Aurelia::new(&work, &sim).corpus(&items).arg("--recipe").arg(&recipe);
    let summary = run().run().expect(0).json();
    assert_eq!((&summary["records"]["exhausted"], &summary["given_up"]), (&json!(2), &json!(2)));
    let first = work.records();
    let rule = GiveUp { after_try: 2, below_score: 3 };
    let end = |id: &str| (first[id].status, first[id].best_try, first[id].tries.len(), first[id].gave_up);
    assert_eq!(end("hopeless"), (Status::Exhausted, Some(1), 2, Some(rule)));
    assert_eq!(end("hopeful"), (Status::Accepted, Some(4), 4, None));
    assert_eq!(first["hopeless"].error, None);

    let shown = Aurelia::new(&work, &sim).args(["show", "hopeless", "--out"]).arg(work.out()).run().expect(0).stdout;
    assert!(shown.contains("given up: after 2 tries without a score of 3\n"), "{shown}");

    // Replay, with nobody to ask: the same end, and it still says why.
    std::fs::remove_file(work.out().join("records.jsonl")).unwrap();
    let (calls, _) = sim.counted(|| run().run().expect(0));
    let again = work.records();
    assert_eq!((calls, again.len()), (0, 3));
    for (id, record) in &again {
        assert_eq!(record.content(), first[id].content(), "{id}");
    }

    // Who asks for its tries once more has them.
    run().args(["--retry", "exhausted"]).run().expect(0);
    let retried = work.records();
    assert_eq!((retried["hopeless"].status, retried["hopeless"].best_try), (Status::Accepted, Some(4)));
    assert_eq!(
        (retried["late"].status, retried["late"].tries.len(), retried["late"].gave_up),
        (Status::Accepted, 7, None)
    );
}

#[test]
fn the_odds_of_a_run_are_the_rules_that_the_next_recipe_takes() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let item = |n: usize, scores: &str| json!({ "id": format!("{n}"), "video": "clips/0.mp4", "query": format!("What ({n})? [[sim: scores={scores}]]") });
    let mut items: Vec<Value> = (0..4).map(|n| item(n, "1/2/2/2/2")).collect();
    items.extend((4..8).map(|n| item(n, "2/4/5/6")));
    let corpus = work.items("items.jsonl", &items);
    Aurelia::new(&work, &sim).corpus(&corpus).run().expect(0);
    let odds = |args: &[&str]| Aurelia::new(&work, &sim).arg("odds").arg(work.out()).args(args).run().expect(0);
    let json = odds(&["--least", "4", "--json"]).json();
    assert_eq!((&json["records"], &json["left_out"]), (&json!(8), &json!(0)));
    let rules = json!([{ "after_try": 1, "below_score": 2 }, { "after_try": 2, "below_score": 3 }]);
    assert_eq!(json["give_up"], rules);
    let later = |record: &Record, tries: usize| -> u64 {
        record.tries[tries..].iter().flat_map(|t| &t.calls).map(|call| call.cost_nano_usd).sum()
    };
    let cost: u64 = work.records().values().filter(|r| r.status == Status::Exhausted).map(|r| later(r, 2)).sum();
    let state =
        json["states"].as_array().unwrap().iter().find(|s| s["after_try"] == 2 && s["best_score"] == 2).unwrap();
    assert_eq!(
        (&state["jobs"], &state["accepted_later"], &state["later_nano_usd"]),
        (&json!(4), &json!(0), &json!(cost))
    );
    let text = odds(&["--least", "4"]).stdout;
    println!("{text}");
    let line = text.lines().last().unwrap();
    assert_eq!(line, "give_up = [{ after_try = 1, below_score = 2 }, { after_try = 2, below_score = 3 }]");
    assert!(odds(&[]).stdout.contains("nothing to give up"), "eight jobs are too few by default");

    // As it is, into the recipe of the next run.
    let recipe = work.recipe("next.toml", &[("answer_gate = false", &format!("answer_gate = false\n{line}"))]);
    let out = work.path("next");
    let next = Aurelia::new(&work, &sim).args(["run", "--json", "--corpus"]).arg(&corpus).arg("--out").arg(&out);
    next.arg("--recipe").arg(&recipe).run().expect(0);
    let tries: Vec<usize> = crate::support::records(&out).values().map(|record| record.tries.len()).collect();
    assert_eq!(tries, [1, 1, 1, 1, 4, 4, 4, 4]);
}
