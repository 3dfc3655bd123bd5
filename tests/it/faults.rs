//! What goes wrong on the way costs neither a try nor a record its content.

use std::collections::BTreeMap;
use std::time::Duration;

use aurelia::provider::{Role, Usage};
use aurelia::record::{Outcome, Record, Status};
use aurelia::simulator::{Faults, Settings};
use serde_json::json;

use crate::load::{clean, contents, named};
use crate::support::{Aurelia, Sim, Workdir, corpus, until};

/// Deadlines that a stalled answer meets soon; a good answer takes milliseconds.
const SHORT: &str = "[http]\nfirst_byte_seconds = 3\nidle_seconds = 3\ntotal_seconds = 10\n";

fn faulty(kinds: &str, rate: f64, max_consecutive: u64) -> Settings {
    let faults = Faults {
        rate,
        kinds: vec![kinds.to_owned()],
        max_consecutive,
        slow_ms: 200,
        retry_delay_ms: 30,
        ..Faults::default()
    };
    Settings { faults, seed: 3, ..Settings::default() }
}

fn calls(record: &Record) -> impl Iterator<Item = &aurelia::record::RecordCall> {
    record.tries.iter().flat_map(|t| &t.calls)
}

#[test]
fn with_a_fifth_of_calls_lost_on_the_way_the_content_is_that_of_a_run_without_faults() {
    let items = corpus(24, 2);
    let (sim, work) = (Sim::start(faulty("transport", 0.2, 2)), Workdir::with_clips(2));
    let file = work.items("items.jsonl", &items);
    named(Aurelia::new(&work, &sim)).config(SHORT).corpus(&file).args(["--concurrency", "16"]).run().expect(0);
    assert_eq!(contents(&work), clean(&items, 2));
    let stats = sim.stats();
    assert!(stats.faults.len() >= 8, "too few kinds were met: {:?}", stats.faults);
    let attempts: u64 = work.records().values().flat_map(calls).map(|call| u64::from(call.attempts)).sum();
    assert_eq!(attempts, stats.received, "each attempt is on a record");
}

#[test]
fn a_provider_of_which_every_call_fails_is_left_alone_and_tried_by_single_calls() {
    let (sim, work) = (Sim::start(faulty("503", 1.0, 0)), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(40, 1));
    let running = named(Aurelia::new(&work, &sim)).corpus(&file).args(["--concurrency", "32"]).spawn();
    until("most calls have failed", || running.stderr().contains("the account is left alone for 5 s").then_some(()));
    std::thread::sleep(Duration::from_secs(7));
    let received = sim.received();
    assert!(running.stderr().contains("the account is left alone for 10 s"), "it was tried: {}", running.stderr());
    drop(running);
    // The 32 that were under way, those before the ten that told, and the one that tried: not the hundreds of 32 jobs that go on trying.
    println!("{received} calls in 7 s");
    assert!(received <= 32 + 32 + 2, "{received}");
}

/// A record without what a reply of no use adds: its ask, the ordinal of the one after it, and their money.
fn without_asks(mut record: Record) -> Record {
    record.usage = Usage::default();
    record.cost_nano_usd = 0;
    for this in &mut record.tries {
        this.calls.retain(|call| call.outcome == Outcome::Used);
        for call in &mut this.calls {
            (call.ask, call.usage, call.cost_nano_usd) = (0, Usage::default(), 0);
            call.key.clear();
        }
    }
    record
}

#[test]
fn useless_replies_add_asks_and_change_nothing_else() {
    let items = corpus(24, 2);
    let (sim, work) = (Sim::start(faulty("all", 0.2, 2)), Workdir::with_clips(2));
    let file = work.items("items.jsonl", &items);
    named(Aurelia::new(&work, &sim)).config(SHORT).corpus(&file).args(["--concurrency", "16"]).run().expect(0);
    let stripped = |records: BTreeMap<String, Record>| -> BTreeMap<String, Record> {
        records.into_iter().map(|(item, record)| (item, without_asks(record))).collect()
    };
    let found = contents(&work);
    assert_eq!(stripped(found.clone()), stripped(clean(&items, 2)));
    let useless: Vec<_> = found.values().flat_map(calls).filter(|call| call.outcome != Outcome::Used).collect();
    assert!(useless.iter().any(|call| call.role == Role::Evaluator), "no verdict was bad: this shows nothing");
    let cost: u64 = useless.iter().map(|call| call.cost_nano_usd).sum();
    assert!(cost > 0, "a useless reply is paid for as well");
    for this in found.values().flat_map(|record| &record.tries) {
        let mut verdicts = this.calls.iter().filter(|call| call.role == Role::Evaluator);
        assert_eq!(
            verdicts.next_back().map(|call| call.outcome),
            Some(Outcome::Used),
            "a score came from a bad verdict"
        );
    }
}

/// Every fault, once before each call that it suits: attempts of each call, asks of each role, and what the bad ask was.
const TABLE: [(&str, u32, [usize; 3], Option<Outcome>); 27] = [
    ("429", 2, [1, 1, 1], None),
    ("429_bare", 2, [1, 1, 1], None),
    ("429_truncated", 2, [1, 1, 1], None),
    ("500", 2, [1, 1, 1], None),
    ("502", 2, [1, 1, 1], None),
    ("503", 2, [1, 1, 1], None),
    ("504", 2, [1, 1, 1], None),
    ("cut_before", 2, [1, 1, 1], None),
    ("cut_after", 2, [1, 1, 1], None),
    ("cut_body", 2, [1, 1, 1], None),
    ("stall", 2, [1, 1, 1], None),
    ("garbage", 2, [1, 1, 1], None),
    ("wrong_length", 2, [1, 1, 1], None),
    ("safety", 1, [2, 2, 2], Some(Outcome::Blocked)),
    ("recitation", 1, [2, 2, 2], Some(Outcome::Blocked)),
    ("blocked", 1, [2, 2, 2], Some(Outcome::Blocked)),
    ("no_candidates", 1, [2, 2, 2], Some(Outcome::Blocked)),
    ("empty", 1, [2, 2, 2], Some(Outcome::Blocked)),
    ("empty_length", 1, [2, 2, 2], Some(Outcome::Truncated)),
    ("truncated", 1, [2, 2, 2], Some(Outcome::Truncated)),
    ("prose", 1, [2, 1, 2], Some(Outcome::Unparsable)),
    ("score_range", 1, [1, 1, 2], Some(Outcome::Unparsable)),
    ("score_fraction", 1, [1, 1, 2], Some(Outcome::Unparsable)),
    ("score_word", 1, [1, 1, 2], Some(Outcome::Unparsable)),
    ("score_two", 1, [1, 1, 2], Some(Outcome::Unparsable)),
    ("unknown_finish", 1, [2, 2, 2], Some(Outcome::Unparsable)),
    // The last one: it is not asked again, so the next fault would be one too many in a row.
    ("slow", 1, [1, 1, 1], None),
];

#[test]
fn each_fault_costs_what_the_table_says() {
    let (sim, work) = (Sim::start(faulty("all", 1.0, 1)), Workdir::with_clips(1));
    let item = json!({"id": "a", "video": "clips/0.mp4", "query": "Why? [[sim: score=9]]"});
    let file = work.items("items.jsonl", &[item]);
    let mut wrong = Vec::new();
    for (fault, attempts, asks, outcome) in TABLE {
        sim.set(|settings| settings.faults.kinds = vec![fault.to_owned()]);
        let out = work.path(fault);
        let args = ["run".as_ref(), "--corpus".as_ref(), file.as_os_str(), "--out".as_ref(), out.as_os_str()];
        named(Aurelia::new(&work, &sim)).config(SHORT).args(args).arg("--json").run().expect(0);
        let record = crate::support::records(&out).remove("a").unwrap();
        let of = |role| calls(&record).filter(|call| call.role == role).collect::<Vec<_>>();
        let roles = Role::ALL.map(of);
        let found_asks = roles.each_ref().map(Vec::len);
        let found_attempts: Vec<u32> = calls(&record).map(|call| call.attempts).collect();
        let bad: Vec<Outcome> = calls(&record).map(|call| call.outcome).filter(|o| *o != Outcome::Used).collect();
        let right = record.status == Status::Accepted
            && (record.tries.len(), record.score) == (1, Some(9))
            && found_asks == asks
            && found_attempts.iter().all(|n| *n == attempts)
            && bad.iter().all(|o| Some(*o) == outcome);
        if !right {
            wrong.push(format!(
                "{fault}: {found_asks:?} asks, {found_attempts:?} attempts, {bad:?}, {:?}",
                record.error
            ));
        }
        let made = sim.stats().faults.get(fault).copied();
        let suited = if attempts > 1 || outcome.is_none() { 3 } else { asks.iter().filter(|n| **n > 1).count() as u64 };
        assert_eq!(made, Some(suited), "{fault} was not met as often as it suits");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
