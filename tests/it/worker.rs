//! What a worker promises, as a child process on real servers.

use std::collections::BTreeSet;

use aurelia::record::Status;
use rustix::process::Signal;

use crate::support::fleet::Bench;
use crate::support::{Sim, Workdir, corpus, until};

#[test]
fn a_worker_turns_jobs_into_records_and_ends_with_0_when_told_to() {
    let (sim, work, mut bench) = (Sim::plain(), Workdir::with_clips(2), Bench::new("worker-plain"));
    bench.enqueue(&work, "r", &corpus(20, 2));
    let worker = bench.worker(&work, &sim).spawn();
    let (records, _) = bench.records(20);
    assert!(records.values().all(|m| matches!(m.record.status, Status::Accepted | Status::Exhausted)));
    assert_eq!(sim.stats().repeats_of_answered, 0);
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn identical_jobs_over_four_workers_ask_each_request_once() {
    let (sim, work, mut bench) = (Sim::slow(50), Workdir::with_clips(1), Bench::new("worker-identical"));
    let items: Vec<_> = (0..50)
        .map(|i| serde_json::json!({"id": format!("i{i}"), "video": "clips/0.mp4", "query": "What is it?"}))
        .collect();
    bench.enqueue(&work, "r", &items);
    let workers: Vec<_> = (0..4).map(|_| bench.worker(&work, &sim).spawn()).collect();
    let (records, _) = bench.records(50);
    let contents: BTreeSet<String> = records.values().map(|m| format!("{:?}", m.record.final_answer)).collect();
    assert_eq!(contents.len(), 1, "all have one answer");
    let calls: u64 = sim.answered().iter().sum();
    let tries = u64::try_from(records.values().next().unwrap().record.tries.len()).unwrap();
    assert_eq!((calls, sim.stats().repeats_of_answered), (tries * 3, 0));
    drop(workers);
}

#[test]
fn a_worker_killed_at_work_loses_nothing_and_pays_nothing_twice_but_calls_in_flight() {
    let (sim, work, mut bench) = (Sim::slow(30), Workdir::with_clips(2), Bench::new("worker-killed"));
    bench.enqueue(&work, "r", &corpus(40, 2));
    let mut in_flight = 0;
    for _ in 0..3 {
        let before = sim.received();
        let worker = bench.worker(&work, &sim).spawn();
        until("it works", || (sim.received() > before + 20).then_some(()));
        worker.kill();
        in_flight += 8;
    }
    let worker = bench.worker(&work, &sim).spawn();
    let (records, _) = bench.records(40);
    assert!(records.values().all(|m| matches!(m.record.status, Status::Accepted | Status::Exhausted)));
    let twice = sim.stats().repeats_of_answered;
    assert!(twice <= in_flight, "{twice} were answered twice, and at most {in_flight} were in flight");
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}
