//! A disk that is full, and memory that stays flat.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::load::{memory, one_account};
use crate::support::{Running, Sim, Workdir, until};

/// From now on a file of this process may have so many bytes: what a full disk is to it, and for it alone.
fn limit_files(running: &Running<'_>, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(running.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_full_disk_stops_all_calls_and_with_space_the_run_goes_on_without_paying_twice() {
    let (sim, work) = (Sim::slow(60), Workdir::with_clips(1));
    // None of them ends while the disk is full: each has its 15 calls.
    let items: Vec<_> = (0..8)
        .map(|n| json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": format!("Who ({n})? [[sim: exhaust]]")}))
        .collect();
    let file = work.items("items.jsonl", &items);
    let running = one_account(&work, &sim).told_of_full_disks().corpus(&file).spawn();
    until("a third of the calls", || (sim.stats().answered >= 40).then_some(()));
    let log = work.out().join(".aurelia/state.sqlite-wal");
    limit_files(&running, Some(fs::metadata(log).unwrap().len()));
    let held = || running.stderr().matches("cannot be stored").count();
    until("a reply cannot be stored", || (held() > 0).then_some(()));
    until("calls in flight have ended", || (sim.stats().in_flight == 0).then_some(()));
    let (received, tries) = (sim.received(), held());
    until("every reply was tried again, twice", || (held() >= tries + 16).then_some(()));
    assert_eq!(sim.received(), received, "a call started while replies could not be stored");
    assert_eq!(work.records().len(), 0);
    limit_files(&running, None);
    running.wait().expect(0);
    let stats = sim.stats();
    assert_eq!((work.records().len(), stats.received, stats.repeats_of_answered), (8, 8 * 15, 0));
}

#[test]
fn records_that_cannot_be_written_stop_the_run_and_the_next_one_completes() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let metadata = json!({"text": "m".repeat(60_000)});
    let items: Vec<_> = (0..150)
        .map(|n| {
            let query = format!("Who ({n})? [[sim: score=9]]");
            json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": query, "metadata": metadata})
        })
        .collect();
    let file = work.items("items.jsonl", &items);
    let running = one_account(&work, &sim).told_of_full_disks().corpus(&file).spawn();
    // Room for the state, which begins its log again at 4 MB, and for about a hundred records.
    limit_files(&running, Some(6 << 20));
    let output = running.wait().expect(75);
    assert!(output.sentence().contains("records.jsonl: File too large"), "{}", output.stderr);
    let written = work.records().len();
    assert!((50..150).contains(&written), "{written}");
    one_account(&work, &sim).corpus(&file).run().expect(0);
    assert_eq!((work.records().len(), sim.stats().repeats_of_answered, sim.received()), (150, 0, 450));
}

#[test]
fn memory_at_item_two_thousand_is_that_at_item_four_hundred() {
    println!("{}", memory(400, 2_000));
}
