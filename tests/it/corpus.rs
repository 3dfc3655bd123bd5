//! Corpora as people really have them: bad lines, twins, changes, foreign editors.

use std::fs;

use aurelia::record::Status;
use serde_json::{Value, json};

use crate::support::{Aurelia, Sim, Workdir, corpus};

fn item(id: &str, query: &str) -> Value {
    json!({ "id": id, "video": "clips/0.mp4", "query": format!("{query} [[sim: score=8]]") })
}

#[test]
fn bad_lines_are_reported_by_number_and_reason_and_the_rest_goes_on() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let bad = [
        ("not json", "invalid JSON"),
        ("[1, 2]", "not a JSON object"),
        (r#"{"video": "clips/0.mp4"}"#, "query"),
        (r#"{"query": "What?"}"#, "video"),
        (r#"{"video": "clips/0.mp4", "query": 7}"#, "query"),
        (r#"{"video": "a.mp4", "media": [], "query": "What?"}"#, "media"),
        (r#"{"video": "clips/0.mp4", "query": "What?", "colour": 1}"#, "colour"),
    ];
    let mut text = format!("{}\n\n", item("first", "What rings?"));
    for (line, _) in bad {
        text += &format!("{line}\n");
    }
    text += &item("last", "What sings?").to_string();
    let items = work.write("items.jsonl", text);
    let output = Aurelia::new(&work, &sim).corpus(&items).run().expect(1);
    let summary = output.json();
    assert_eq!(
        (&summary["items"], &summary["rejected"], &summary["written"]),
        (&json!(2), &json!(bad.len()), &json!(2))
    );
    for (n, (line, reason)) in bad.iter().enumerate() {
        let told = summary["rejected_lines"][n].as_str().unwrap();
        assert!(told.starts_with(&format!("line {}: ", n + 3)) && told.contains(reason), "{line}: {told}");
        assert!(output.stderr.contains(told), "{}", output.stderr);
    }
    assert_eq!(work.records().into_keys().collect::<Vec<_>>(), ["first", "last"]);
}

#[test]
fn a_line_that_says_the_same_again_is_counted_and_run_once() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let without_id = json!({ "video": "clips/0.mp4", "query": "What rings? [[sim: score=8]]" });
    let one = item("one", "What rings?");
    let items = work.items("items.jsonl", &[one.clone(), without_id.clone(), one, without_id]);
    let summary = Aurelia::new(&work, &sim).corpus(&items).run().expect(0).json();
    assert_eq!((&summary["items"], &summary["duplicates"], &summary["written"]), (&json!(2), &json!(2), &json!(2)));
    // The same clip and question under two ids is paid once.
    assert_eq!(sim.received(), 3);
}

#[test]
fn an_id_with_two_contents_is_rejected_by_name() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items =
        work.items("items.jsonl", &[item("one", "What rings?"), item("two", "Who?"), item("one", "What sings?")]);
    let summary = Aurelia::new(&work, &sim).corpus(&items).run().expect(1).json();
    assert_eq!((&summary["items"], &summary["rejected"]), (&json!(2), &json!(1)));
    let told = summary["rejected_lines"][0].as_str().unwrap();
    assert!(told.starts_with("line 3: ") && told.contains("\"one\""), "{told}");
    assert!(work.records()["one"].query.contains("What rings?"));
}

#[test]
fn an_item_that_changed_since_is_refused_by_name_and_nothing_is_asked() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &[item("one", "What rings?"), item("two", "Who?")]);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let before = work.records();
    let items = work.items("items.jsonl", &[item("one", "What sings?"), item("two", "Who?"), item("new", "Why?")]);
    let (calls, output) = sim.counted(|| Aurelia::new(&work, &sim).corpus(&items).run().expect(64));
    assert!(output.sentence().contains("\"one\"") && output.sentence().contains("another id"), "{}", output.stderr);
    assert!(!output.stderr.contains("\"two\""));
    assert_eq!((calls, work.records()), (0, before));
}

#[test]
fn a_corpus_that_grew_adds_its_new_items() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &[item("one", "What rings?")]);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let items = work.items("items.jsonl", &[item("zero", "Why?"), item("one", "What rings?")]);
    let (calls, output) = sim.counted(|| Aurelia::new(&work, &sim).corpus(&items).run().expect(0));
    assert_eq!((calls, output.json()["written"].as_u64(), work.records().len()), (3, Some(1), 2));
}

#[test]
fn another_recipe_in_the_same_directory_is_refused_and_the_way_out_is_said() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &[item("one", "What rings?")]);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let (calls, output) =
        sim.counted(|| Aurelia::new(&work, &sim).corpus(&items).args(["--score-threshold", "9"]).run().expect(64));
    assert_eq!(calls, 0);
    assert!(output.sentence().contains("recipe") && output.sentence().contains("another --out"), "{}", output.stderr);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
}

#[test]
fn a_key_that_appears_changes_the_recipe_and_that_is_said() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let items = work.items("items.jsonl", &corpus(1, 1));
    Aurelia::new(&work, &sim).without("OPENAI_API_KEY").corpus(&items).run().expect(0);
    let output = Aurelia::new(&work, &sim).corpus(&items).run().expect(64);
    assert!(output.sentence().contains("a key that appeared"), "{}", output.stderr);
    Aurelia::new(&work, &sim).without("OPENAI_API_KEY").corpus(&items).run().expect(0);
}

#[test]
fn relative_paths_are_relative_to_the_corpus_and_others_stay() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    fs::create_dir_all(work.path("deep/er")).unwrap();
    fs::copy(work.path("clips/0.mp4"), work.path("deep/er/own name.mp4")).unwrap();
    let absolute = work.path("clips/0.mp4").display().to_string();
    let item = |id: &str, video: &str| json!({ "id": id, "video": video, "query": "What? [[sim: score=8]]" });
    let items = work.items(
        "deep/er/items.jsonl",
        &[
            item("beside", "own name.mp4"),
            item("above", "../../clips/0.mp4"),
            item("absolute", &absolute),
            item("uri", &format!("file://{absolute}")),
        ],
    );
    let summary = Aurelia::new(&work, &sim).corpus(&items).run().expect(0).json();
    assert_eq!((&summary["records"]["accepted"], &summary["decodes"]), (&json!(4), &json!(1)));
    let records = work.records();
    let digest = |id: &str| records[id].media[0].sha256.clone().unwrap();
    assert!(["above", "absolute", "uri"].iter().all(|id| digest(id) == digest("beside")));
    assert_eq!(records["above"].media[0].uri, "../../clips/0.mp4");
}

#[test]
fn a_corpus_with_a_mark_and_carriage_returns_reads_as_one_without() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let text = format!("\u{feff}{}\r\n\r\n{}\r\n", item("one", "What rings?"), item("two", "Who?"));
    let items = work.write("items.jsonl", text);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let plain = work.items("items.jsonl", &[item("one", "What rings?"), item("two", "Who?")]);
    let (calls, output) = sim.counted(|| Aurelia::new(&work, &sim).corpus(&plain).run().expect(0));
    assert_eq!((calls, output.json()["written"].as_u64(), work.records().len()), (0, Some(0), 2));
}

#[test]
fn a_corpus_that_is_not_there_or_is_a_folder_ends_in_one_sentence_and_leaves_no_output() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    for name in ["absent.jsonl", "clips"] {
        let output = Aurelia::new(&work, &sim).corpus(&work.path(name)).run().expect(64);
        assert!(output.sentence().contains(name), "{}", output.stderr);
    }
    assert!(!work.out().exists());
    assert_eq!(sim.received(), 0);
}

#[test]
fn an_empty_corpus_is_done() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let items = work.write("items.jsonl", "\n \n");
    let summary = Aurelia::new(&work, &sim).corpus(&items).run().expect(0).json();
    assert_eq!((&summary["items"], &summary["written"]), (&json!(0), &json!(0)));
}

#[test]
fn a_sample_of_its_own_makes_an_item_a_draw_of_its_own() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut second = item("second", "What rings?");
    second["sample"] = json!(1);
    let items = work.items("items.jsonl", &[item("first", "What rings?"), second]);
    Aurelia::new(&work, &sim).corpus(&items).run().expect(0);
    let records = work.records();
    let key = |id: &str| records[id].tries[0].calls[0].key.clone();
    assert_ne!(key("first"), key("second"));
    assert!(records.values().all(|r| r.status == Status::Accepted && !r.tries[0].calls[0].cached));
}
