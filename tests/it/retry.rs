//! `aurelia retry`, over a whole fleet: producer, worker, collector, as child processes on real servers.

use std::collections::BTreeMap;
use std::fs;

use aurelia::job::{Item, Job};
use aurelia::queue::ready;
use aurelia::record::{Record, Status};
use aurelia::shared::runs::RunInfo;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::fleet::{Bench, data_set};
use super::support::{Aurelia, Sim, Workdir, corpus, until};

const RUN: &str = "spring";

/// A fleet over one folder.
struct Yard {
    bench: Bench,
    sim: Sim,
    work: Workdir,
}

impl Yard {
    fn new(prefix: &str) -> Self {
        Self { bench: Bench::new(prefix), sim: Sim::plain(), work: Workdir::with_clips(2) }
    }

    fn program(&self, path: &'static str) -> Aurelia<'_> {
        let sets = self.work.path("sets").display().to_string();
        self.bench.program(&self.work, &self.sim, path).env("AURELIA__COLLECTOR__OUTPUT", &sets)
    }

    fn produce(&self, items: &[Value]) {
        let corpus = self.work.items("corpus.jsonl", items);
        self.program(env!("CARGO_BIN_EXE_aurelia-producer")).args(["--run", RUN]).arg(corpus).run().expect(0);
    }

    /// Works and collects until the run is complete; returns what the collector shows of it.
    fn complete(&self) -> Value {
        let worker = self.bench.worker(&self.work, &self.sim).spawn();
        let shown = self.collect();
        worker.signal(Signal::TERM);
        worker.wait().expect(0);
        shown
    }

    /// Works until so many records wait for a collector.
    fn work(&self, records: u64) {
        let worker = self.bench.worker(&self.work, &self.sim).spawn();
        let (fleet, queue) = (&self.bench.fleet, self.bench.fleet.topology.records().name);
        until("the records are there", || {
            (self.bench.block_on(ready(&fleet.outgoing, &queue)).unwrap() == Some(records)).then_some(())
        });
        worker.signal(Signal::TERM);
        worker.wait().expect(0);
    }

    fn collect(&self) -> Value {
        let collector = self.program(env!("CARGO_BIN_EXE_aurelia-collector"));
        let collector = collector.config("[collector]\nshard_rows = 8\nshard_idle_seconds = 0.3\n");
        let output = collector.args(["--run", RUN, "--until-complete", "--json"]).run().expect(0);
        output.json()["runs"][RUN].clone()
    }

    fn retry(&self, code: i32, statuses: &str) -> super::support::Output {
        let retry = self.program(env!("CARGO_BIN_EXE_aurelia"));
        retry.args(["retry", "--run", RUN, "--json", "--status", statuses]).run().expect(code)
    }

    fn info(&self) -> RunInfo {
        self.bench.block_on(self.bench.fleet.runs.get(RUN)).unwrap().unwrap()
    }

    /// Every record of the data set, by item and revision.
    fn records(&self) -> BTreeMap<(String, u32), Record> {
        let (_, all) = data_set(&self.work.path("sets").join(RUN));
        let mut records = BTreeMap::new();
        for record in all {
            let twin = records.insert((record.item_id.clone(), record.revision), record);
            assert!(twin.is_none(), "a job has two records");
        }
        records
    }
}

#[test]
fn what_failed_is_done_again_and_nothing_else_though_the_command_is_run_twice() {
    let yard = Yard::new("retry-failed");
    let mut items = corpus(20, 2);
    for (number, item) in items.iter_mut().enumerate() {
        let missing = number % 5 == 0;
        let name =
            if missing { format!("clips/late-{number}.mp4") } else { item["video"].as_str().unwrap().to_owned() };
        item["video"] = yard.work.path(&name).display().to_string().into();
    }
    yard.produce(&items);
    let shown = yard.complete();
    assert_eq!((&shown["jobs"], &shown["by_status"]["failed"]), (&json!(20), &json!(4)), "{shown}");
    let before = yard.records();
    assert!(yard.info().collected.complete);

    // Nothing is asked for again that did not end so.
    assert_eq!(yard.retry(0, "blocked").json(), json!({ "run": RUN, "enqueued": 0, "new": 0 }));
    assert_eq!((yard.info().retried, yard.info().collected.complete), (0, true));
    assert_eq!(yard.retry(0, "failed").json(), json!({ "run": RUN, "enqueued": 4, "new": 4 }));
    // One of them becomes a dead letter: done again all the same.
    let dead = Job::new(RUN, 1, Item::from_line(&items[0].to_string()).unwrap());
    yard.bench.block_on(yard.bench.fleet.runs.died(&dead)).unwrap();
    assert_eq!(yard.info().dead, 1);
    assert_eq!(yard.retry(0, "failed,blocked").json(), json!({ "run": RUN, "enqueued": 4, "new": 0 }));
    let info = yard.info();
    assert_eq!(info.dead, 0);
    assert_eq!((info.jobs(), info.retried, info.sealed), (24, 4, true));
    assert!(!info.collected.complete, "workers would leave it alone");
    assert_eq!(info.collected.by_status[&Status::Failed], 4, "what is collected is as it was");

    for number in [0, 5, 10, 15] {
        fs::copy(yard.work.path("clips/0.mp4"), yard.work.path(&format!("clips/late-{number}.mp4"))).unwrap();
    }
    let (received, shown) = yard.sim.counted(|| yard.complete());
    assert_eq!((&shown["jobs"], &shown["items"], &shown["superseded"]), (&json!(24), &json!(20), &json!(4)), "{shown}");
    let ends = shown["by_status"].as_object().unwrap();
    assert!(ends.keys().all(|status| status == "accepted" || status == "exhausted"), "{shown}");
    assert_eq!(ends.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 20, "{shown}");
    assert_eq!(shown["complete"], true, "{shown}");
    let after = yard.records();
    let fresh: Vec<&Record> =
        after.iter().filter(|(key, _)| !before.contains_key(key)).map(|(_, record)| record).collect();
    let ids: Vec<(&str, u32)> = fresh.iter().map(|record| (record.item_id.as_str(), record.revision)).collect();
    assert_eq!(ids, [("item-000", 1), ("item-005", 1), ("item-010", 1), ("item-015", 1)]);
    let calls: usize = fresh.iter().flat_map(|record| &record.tries).map(|attempt| attempt.calls.len()).sum();
    assert!(calls >= 4, "{calls}");
    assert_eq!(received, calls as u64, "a call was made that is not of what failed");
    let untouched = before.iter().all(|(key, record)| after[key] == *record);
    assert!(untouched, "a record that was there is another now");
    assert!(yard.info().collected.complete);
    assert_eq!(yard.retry(0, "failed").json()["enqueued"], 0);
}

#[test]
fn a_retry_that_cannot_work_says_what_is_missing() {
    let yard = Yard::new("retry-wrong");
    let said = yard.retry(64, "failed");
    assert!(said.sentence().contains("there is no run \"spring\""), "{}", said.stderr);
    let items: Vec<Value> = vec![json!({"id": "a", "video": "/nowhere/a.mp4", "query": "What happens?"})];
    yard.produce(&items);
    assert_eq!(yard.complete()["by_status"]["failed"], 1);
    let retry = |output: &str| {
        let retry = yard.program(env!("CARGO_BIN_EXE_aurelia")).env("AURELIA__COLLECTOR__OUTPUT", output);
        retry.args(["retry", "--run", RUN, "--status", "failed"]).run().expect(64)
    };
    let said = retry("");
    assert!(said.sentence().contains("collector.output is not set"), "{}", said.stderr);
    let said = retry(&yard.work.path("elsewhere").display().to_string());
    assert!(said.sentence().contains("has none: is collector.output that of the collector?"), "{}", said.stderr);
    yard.retry(2, "accepted");
    yard.program(env!("CARGO_BIN_EXE_aurelia")).args(["cancel", RUN]).run().expect(0);
    let said = yard.retry(64, "failed");
    assert!(said.sentence().contains("is cancelled"), "{}", said.stderr);
    assert_eq!(yard.info().retried, 0);
}

#[test]
fn what_was_blocked_is_asked_once_more_and_what_failed_is_left_alone() {
    let yard = Yard::new("retry-blocked");
    let mut items = corpus(6, 2);
    for (number, item) in items.iter_mut().enumerate() {
        let clip = if number == 1 { "clips/none.mp4" } else { item["video"].as_str().unwrap() };
        item["video"] = yard.work.path(clip).display().to_string().into();
    }
    // Blocked as often as a role is asked, and not after that.
    for number in [0, 3] {
        let query = items[number]["query"].as_str().unwrap();
        items[number]["query"] = format!("{query} [[sim: fault=safety role=generator take=1 times=3]]").into();
    }
    yard.produce(&items);
    // All of them at once, so that what failed lies beside what was blocked.
    yard.work(6);
    let shown = yard.collect();
    assert_eq!((&shown["by_status"]["blocked"], &shown["by_status"]["failed"]), (&json!(2), &json!(1)), "{shown}");
    let before = yard.records();
    assert_eq!(yard.sim.stats().faults["safety"], 6);

    assert_eq!(yard.retry(0, "blocked").json(), json!({ "run": RUN, "enqueued": 2, "new": 2 }));
    assert_eq!(yard.retry(0, "blocked").json(), json!({ "run": RUN, "enqueued": 2, "new": 0 }));
    let (received, shown) = yard.sim.counted(|| yard.complete());
    let by_status = &shown["by_status"];
    assert_eq!((&shown["jobs"], &shown["superseded"]), (&json!(8), &json!(2)), "{shown}");
    assert_eq!((&by_status["failed"], by_status.get("blocked")), (&json!(1), None), "{shown}");
    let after = yard.records();
    let fresh: Vec<(&str, u32)> =
        after.keys().filter(|key| !before.contains_key(key)).map(|(item, revision)| (&**item, *revision)).collect();
    assert_eq!(fresh, [("item-000", 1), ("item-003", 1)]);
    assert!(before.iter().all(|(key, record)| after[key] == *record), "a record that was there is another now");
    // What was blocked is not asked again: the asks go on where they had ended.
    assert_eq!((yard.sim.stats().faults["safety"], yard.sim.stats().repeats_of_answered), (6, 0));
    let tries = fresh.iter().flat_map(|(item, revision)| &after[&((*item).to_owned(), *revision)].tries);
    let paid = tries.flat_map(|attempt| &attempt.calls).filter(|call| !call.cached).count();
    assert_eq!(received, paid as u64, "a call was made that is not of what was blocked");
    assert_eq!(yard.retry(0, "blocked").json()["enqueued"], 0);
}
