//! Killed anywhere, run again: nothing is paid for twice, and the records are the same.

use std::fs;

use crate::load::{clean, contents, killed, named};
use crate::support::{Aurelia, Sim, Workdir, corpus};

#[test]
fn a_run_killed_at_any_point_pays_for_nothing_twice_and_ends_the_same() {
    println!("{}", killed(40, 3, 5, 11));
}

#[test]
fn the_journal_alone_gives_every_record_again() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    let items = corpus(8, 2);
    let file = work.items("items.jsonl", &items);
    named(Aurelia::new(&work, &sim)).corpus(&file).run().expect(0);
    let before = contents(&work);
    assert_eq!(before, clean(&items, 2));
    drop(sim);
    fs::remove_file(work.out().join("records.jsonl")).unwrap();
    // Nobody listens there.
    named(Aurelia::at(&work, "http://127.0.0.1:9")).corpus(&file).run().expect(0);
    assert_eq!(contents(&work), before);
    let attempts = work.records().into_values().flat_map(|r| r.tries).flat_map(|t| t.calls).map(|call| call.attempts);
    assert_eq!(attempts.sum::<u32>(), 0);
}

#[test]
fn a_record_torn_by_a_crash_is_written_again_from_the_journal() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(6, 1));
    let run = || Aurelia::new(&work, &sim).corpus(&file).run().expect(0);
    run();
    let (path, before) = (work.out().join("records.jsonl"), contents(&work));
    let text = fs::read_to_string(&path).unwrap();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    // Without its last byte, in the middle of a line, and after a whole line.
    for kept in [text.len() - 1, ends[3] + 20, ends[2] + 1, 0] {
        fs::write(&path, &text[..kept]).unwrap();
        let (calls, _) = sim.counted(run);
        assert_eq!((calls, contents(&work)), (0, before.clone()), "{kept} bytes were left");
    }
}

#[test]
fn a_question_asked_fifty_times_at_once_is_paid_for_once() {
    let settings = aurelia::simulator::Settings {
        latency: aurelia::simulator::Latency::Fixed { ms: 50 },
        ..aurelia::simulator::Settings::default()
    };
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    let item =
        |n| serde_json::json!({"id": format!("{n}"), "video": "clips/0.mp4", "query": "Who? [[sim: scores=3/9]]"});
    let file = work.items("items.jsonl", &(0..50).map(item).collect::<Vec<_>>());
    Aurelia::new(&work, &sim).corpus(&file).args(["--concurrency", "50"]).run().expect(0);
    assert_eq!(sim.answered(), [2, 2, 2], "three calls for each of two tries");
    let records = work.records();
    assert_eq!(records.len(), 50);
    let cost: u64 = records.values().map(|record| record.cost_nano_usd).sum();
    assert_eq!(cost, sim.stats().spend_nano_usd, "each reply's money is in one record");
}
