//! Clips that are uploaded: once, found again after any end, given up in time.

use std::path::{Path, PathBuf};

use aurelia::demo::clip::{Content, Style};
use aurelia::record::{ErrorKind, Record, Status};
use aurelia::simulator::{FileFaults, FileSettings, FileStats, Limit, Scripted, Settings};
use serde_json::{Value, json};

use crate::support::command::GEMINI_KEY;
use crate::support::{Aurelia, Output, Sim, Workdir, client, corpus, records, until};

/// Every clip is uploaded, however small; replies and uploads are shared by all runs of a folder.
const CONFIG: &str = "[providers.gemini]\ninline_mib = 0\n[shared]\nurl = \"embedded:../state.sqlite\"\n";
const SECOND_KEY: &str = "AIzaSy-harness-second-93b1e0";

fn uploading(files: FileSettings) -> Sim {
    Sim::start(Settings { files, ..Settings::default() })
}

fn faulty(fault: &str, times: u64) -> FileSettings {
    let script = vec![Scripted { fault: fault.to_owned(), times }];
    FileSettings { faults: FileFaults { script, ..FileFaults::default() }, ..FileSettings::default() }
}

/// What all projects did, together.
fn stats(sim: &Sim) -> FileStats {
    let mut sum = FileStats::default();
    for one in sim.stats().files.values() {
        sum.started += one.started;
        sum.finalized += one.finalized;
        sum.bytes_received += one.bytes_received;
        sum.bytes_finalized += one.bytes_finalized;
        sum.lists += one.lists;
        sum.gets += one.gets;
        sum.deletes += one.deletes;
        sum.shown += one.shown;
        sum.live_files += one.live_files;
        sum.live_bytes += one.live_bytes;
    }
    sum
}

/// A run of its own output directory, over the shared state.
fn run<'a>(work: &'a Workdir, sim: &Sim, out: &str, items: &[Value]) -> Aurelia<'a> {
    let shown = ("media = \"frames+audio\"", "media = \"video\"");
    let recipe = work.recipe("recipe.toml", &[shown, shown]);
    let file = work.items(&format!("{out}.jsonl"), items);
    let aurelia = Aurelia::new(work, sim).config(CONFIG).env("AURELIA__TELEMETRY__LOG", "debug");
    let aurelia = aurelia.arg("run").arg("--corpus").arg(file).arg("--out").arg(work.path(out)).arg("--json");
    aurelia.arg("--recipe").arg(recipe)
}

/// `n` questions on one clip; other ones for each `name`.
fn questions(name: &str, n: usize, clip: &str) -> Vec<Value> {
    let item =
        |i| json!({ "id": format!("{name}-{i}"), "video": clip, "query": format!("What happens ({name} {i})?") });
    (0..n).map(item).collect()
}

/// Every record of an output directory, with no handle in any.
fn ended(work: &Workdir, out: &str) -> Vec<Record> {
    let text = std::fs::read_to_string(work.path(out).join("records.jsonl")).unwrap();
    assert!(!text.contains("files/"), "a record names an uploaded file");
    // What a clip costs is within what was reserved for it.
    let sql = "SELECT count(*) FROM calls WHERE cost > bound";
    assert_eq!(state(work).query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    records(&work.path(out)).into_values().collect()
}

#[track_caller]
fn all_done(records: &[Record], n: usize) {
    assert_eq!(records.len(), n);
    for record in records {
        assert!(matches!(record.status, Status::Accepted | Status::Exhausted), "{:?}", record.error);
        // No failure of a file has cost an ask.
        assert!(record.tries.iter().flat_map(|t| &t.calls).all(|call| call.ask == 0));
    }
}

fn size(work: &Workdir, clip: &str) -> u64 {
    std::fs::metadata(work.path(clip)).unwrap().len()
}

fn state(work: &Workdir) -> rusqlite::Connection {
    rusqlite::Connection::open(work.path("state.sqlite")).unwrap()
}

#[test]
fn a_hundred_jobs_on_one_clip_upload_it_once_and_a_second_process_uses_the_same_file() {
    let (sim, work) =
        (uploading(FileSettings { processing_ms: 300, ..FileSettings::default() }), Workdir::with_clips(1));
    run(&work, &sim, "one", &questions("one", 100, "clips/0.mp4")).args(["--concurrency", "16"]).run().expect(0);
    all_done(&ended(&work, "one"), 100);
    let first = stats(&sim);
    let bytes = size(&work, "clips/0.mp4");
    assert_eq!((first.started, first.finalized, first.bytes_received), (1, 1, bytes));
    assert!(first.shown >= 200 && first.lists == 0, "{first:?}");
    // A copy under another name is the same clip.
    std::fs::copy(work.path("clips/0.mp4"), work.path("clips/copy.mp4")).unwrap();
    run(&work, &sim, "two", &questions("two", 5, "clips/copy.mp4")).run().expect(0);
    all_done(&ended(&work, "two"), 5);
    let second = stats(&sim);
    assert_eq!((second.started, second.gets), (1, first.gets));
    // Nothing that is hashed or shown names a handle.
    let requests: i64 = state(&work)
        .query_row(
            "SELECT count(*) FROM replies WHERE request LIKE '%files/%' OR request LIKE '%http%files%'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(requests, 0);
}

#[test]
fn a_run_killed_while_it_uploads_or_waits_sends_nothing_twice_that_had_arrived() {
    // In the middle of the bytes: what was not finished is sent again.
    let slow = FileSettings {
        faults: FileFaults { slow_ms: 600_000, ..faulty("chunk_slow", 1).faults },
        ..FileSettings::default()
    };
    let (sim, work) = (uploading(slow), Workdir::with_clips(1));
    let items = questions("k", 4, "clips/0.mp4");
    let running = run(&work, &sim, "k", &items).spawn();
    // Its first bytes are on their way: killed before, the next run would meet the slow chunk.
    until("the upload is under way", || sim.stats().faults.contains_key("chunk_slow").then_some(()));
    running.kill();
    run(&work, &sim, "k", &items).run().expect(0);
    all_done(&ended(&work, "k"), 4);
    let found = stats(&sim);
    assert_eq!((found.finalized, found.lists, found.live_files), (1, 1, 1), "{found:?}");
    assert!(found.bytes_received <= 2 * size(&work, "clips/0.mp4"));

    // While it is processed.
    let (sim, work) =
        (uploading(FileSettings { processing_ms: 2_000, ..FileSettings::default() }), Workdir::with_clips(1));
    let running = run(&work, &sim, "k", &items).spawn();
    until("the file is there", || (stats(&sim).gets >= 1).then_some(()));
    running.kill();
    run(&work, &sim, "k", &items).run().expect(0);
    all_done(&ended(&work, "k"), 4);
    let found = stats(&sim);
    assert_eq!((found.started, found.finalized, found.lists), (1, 1, 0), "{found:?}");

    // When it had arrived and nobody knew: the row is as it was before the upload.
    let running = run(&work, &sim, "l", &questions("l", 1, "clips/0.mp4")).run().expect(0);
    drop(running);
    state(&work).execute("UPDATE uploads SET phase = 0, name = NULL, uri = NULL, expires_at = NULL", []).unwrap();
    run(&work, &sim, "m", &questions("m", 2, "clips/0.mp4")).run().expect(0);
    all_done(&ended(&work, "m"), 2);
    let found = stats(&sim);
    assert_eq!((found.started, found.lists), (1, 1), "{found:?}");
}

#[test]
fn a_file_that_is_over_foreign_or_gone_is_uploaded_again() {
    let (sim, work) = (uploading(FileSettings::default()), Workdir::with_clips(1));
    let go = |name: &str, key: &str| {
        run(&work, &sim, name, &questions(name, 4, "clips/0.mp4")).env("GEMINI_API_KEY", key).run().expect(0);
        all_done(&ended(&work, name), 4);
        stats(&sim).finalized
    };
    assert_eq!(go("a", GEMINI_KEY), 1);
    // Five minutes before its end it is not used any more.
    let sql = "UPDATE uploads SET expires_at = unixepoch() + 300, since = unixepoch() - 172500";
    assert_eq!(state(&work).execute(sql, []).unwrap(), 1);
    assert_eq!(go("b", GEMINI_KEY), 2);
    // Another project's key under the same name.
    assert_eq!(go("c", SECOND_KEY), 3);
    // It vanishes while it is in use.
    sim.set(|settings| settings.files = faulty("vanished", 1));
    assert_eq!(go("d", SECOND_KEY), 4);
    // It vanishes whenever it is used: no run hangs on it.
    sim.set(|settings| settings.files = faulty("vanished", 1_000));
    let output = run(&work, &sim, "e", &questions("e", 2, "clips/0.mp4")).env("GEMINI_API_KEY", SECOND_KEY).run();
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    for record in ended(&work, "e") {
        assert_eq!(record.error.unwrap().kind, ErrorKind::Provider);
    }
}

#[test]
fn a_clip_that_the_provider_cannot_process_fails_its_items_and_no_others() {
    let (sim, work) = (uploading(faulty("failed", 1)), Workdir::with_clips(2));
    let items = [questions("bad", 6, "clips/0.mp4"), questions("good", 6, "clips/1.mp4")].concat();
    // One after the other, so that the first clip meets the fault.
    let output = run(&work, &sim, "out", &items).args(["--concurrency", "1"]).run();
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let (bad, good): (Vec<_>, Vec<_>) = ended(&work, "out").into_iter().partition(|r| r.item_id.starts_with("bad"));
    all_done(&good, 6);
    for record in &bad {
        let error = record.error.as_ref().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidMedia);
        assert!(error.message.starts_with("gemini cannot process the clip: "), "{}", error.message);
    }
    assert_eq!((bad.len(), stats(&sim).finalized, stats(&sim).live_files), (6, 2, 1));
}

#[test]
fn a_file_that_is_processed_for_long_is_waited_for_until_its_deadline() {
    let long = |ms| {
        let faults = FileFaults { long_processing_ms: ms, ..faulty("long_processing", 1).faults };
        FileSettings { faults, ..FileSettings::default() }
    };
    let (sim, work) = (uploading(long(1_500)), Workdir::with_clips(1));
    run(&work, &sim, "a", &questions("a", 8, "clips/0.mp4")).run().expect(0);
    all_done(&ended(&work, "a"), 8);
    assert_eq!(stats(&sim).started, 1);
    assert!((2..=8).contains(&stats(&sim).gets), "all wait with one: {:?}", stats(&sim));

    let (sim, work) = (uploading(long(600_000)), Workdir::with_clips(1));
    let short = "[providers.gemini]\nupload_deadline_seconds = 1\n";
    let late = |name: &str| run(&work, &sim, name, &questions(name, 3, "clips/0.mp4")).config(short).run().expect(1);
    late("a");
    late("b");
    for record in ended(&work, "a").into_iter().chain(ended(&work, "b")) {
        let error = record.error.unwrap();
        assert!(error.kind == ErrorKind::Provider && error.message.contains("upload_deadline_seconds"), "{error:?}");
    }
    assert_eq!((stats(&sim).started, stats(&sim).shown), (1, 0));
}

#[test]
fn a_file_that_is_used_too_early_is_waited_for_and_costs_no_ask() {
    let (sim, work) =
        (uploading(FileSettings { processing_ms: 2_500, ..FileSettings::default() }), Workdir::with_clips(1));
    let running = run(&work, &sim, "a", &questions("a", 3, "clips/0.mp4")).spawn();
    until("the file is known", || {
        let rows = std::fs::exists(work.path("state.sqlite")).unwrap().then(|| state(&work))?;
        let known = rows.query_row("SELECT count(*) FROM uploads WHERE uri IS NOT NULL", [], |r| r.get::<_, i64>(0));
        (known.ok()? == 1).then_some(())
    });
    running.kill();
    assert_eq!(state(&work).execute("UPDATE uploads SET phase = 2", []).unwrap(), 1);
    run(&work, &sim, "a", &questions("a", 3, "clips/0.mp4")).run().expect(0);
    let records = ended(&work, "a");
    all_done(&records, 3);
    assert!(records.iter().any(|r| r.tries[0].calls[0].attempts > 1), "nobody was too early");
    assert_eq!(stats(&sim).started, 1);
}

#[test]
fn of_two_credentials_one_uploads_and_the_other_one_when_the_first_is_refused() {
    let (sim, work) =
        (uploading(FileSettings { processing_ms: 200, ..FileSettings::default() }), Workdir::with_clips(1));
    let go = |name: &str| {
        let aurelia = run(&work, &sim, name, &questions(name, 12, "clips/0.mp4")).config(BOTH);
        aurelia.env("SECOND_API_KEY", SECOND_KEY).run().expect(0);
        all_done(&ended(&work, name), 12);
    };
    go("a");
    assert_eq!((stats(&sim).started, sim.stats().files.values().filter(|s| s.started > 0).count()), (1, 1));
    let owner: String = state(&work).query_row("SELECT credential FROM uploads", [], |r| r.get(0)).unwrap();
    let key = if owner.contains("SECOND") { SECOND_KEY } else { GEMINI_KEY };
    sim.set(|settings| {
        settings.keys.revoked.insert(key.to_owned());
    });
    go("b");
    assert_eq!((stats(&sim).started, sim.stats().files.values().filter(|s| s.finalized == 1).count()), (2, 2));
}

const BOTH: &str = "[providers.gemini]\napi_key_env = [\"GEMINI_API_KEY\", \"SECOND_API_KEY\"]\n";

/// Items that are accepted at their first try; a directive more for the first one.
fn accepted(n: usize, first: &str) -> Vec<Value> {
    let mut items = questions("q", n, "clips/0.mp4");
    for (n, item) in items.iter_mut().enumerate() {
        let more = if n == 0 { first } else { "" };
        item["query"] = json!(format!("What happens ({n})? [[sim: score=9{more}]]"));
    }
    items
}

#[test]
fn calls_that_wait_for_a_key_that_is_away_for_long_go_to_another_and_upload_their_clip_there_once() {
    // A day of ten calls: the eleventh finds the first key used up while others wait for their turn with it.
    let day = Limit { model: "gemini*".into(), requests: Some(15), tokens: None, window_ms: 86_400_000, bare: false };
    let sim = Sim::start(Settings { limits: vec![day], ..Settings::default() });
    let work = Workdir::with_clips(1);
    let one_by_one = "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nconcurrency = 1\n";
    let aurelia = run(&work, &sim, "a", &accepted(12, "")).config(BOTH).config(one_by_one);
    aurelia.env("SECOND_API_KEY", SECOND_KEY).args(["--max-wait", "1s"]).run().expect(0);
    all_done(&ended(&work, "a"), 12);
    let uploads: Vec<u64> = sim.stats().files.values().map(|files| files.started).filter(|n| *n > 0).collect();
    assert_eq!(uploads, [1, 1]);
}

#[test]
fn a_key_that_is_away_for_a_moment_is_waited_for_and_nothing_is_uploaded_for_another() {
    let mut settings = Settings::default();
    settings.faults.retry_delay_ms = 2_500;
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    let items = accepted(6, ", fault=429 times=1 role=generator");
    run(&work, &sim, "a", &items).config(BOTH).env("SECOND_API_KEY", SECOND_KEY).run().expect(0);
    let records = ended(&work, "a");
    all_done(&records, 6);
    assert!(records.iter().any(|r| r.tries[0].calls[0].attempts == 2), "nobody was asked to wait");
    assert_eq!(stats(&sim).started, 1);
}

#[test]
fn a_file_that_ends_while_its_call_waits_is_uploaded_again_before_the_call_is_sent() {
    let mut settings =
        Settings { files: FileSettings { life_ms: 4_000, ..FileSettings::default() }, ..Settings::default() };
    settings.faults.retry_delay_ms = 5_000;
    let (sim, work) = (Sim::start(settings), Workdir::with_clips(1));
    run(&work, &sim, "a", &accepted(1, ", fault=429 times=2 role=generator")).run().expect(0);
    let records = ended(&work, "a");
    all_done(&records, 1);
    // Two refusals and the reply; no request for a file that is not there any more.
    assert_eq!(records[0].tries[0].calls[0].attempts, 3);
    assert_eq!(stats(&sim).started, 3);
}

#[test]
fn time_in_which_the_service_cannot_be_seen_is_no_time_of_processing() {
    let files = FileSettings { processing_ms: 300, ..faulty("resource_503", 6) };
    let (sim, work) = (uploading(files), Workdir::with_clips(1));
    let short = "[providers.gemini]\nupload_deadline_seconds = 1\n";
    run(&work, &sim, "a", &questions("a", 3, "clips/0.mp4")).config(short).run().expect(0);
    all_done(&ended(&work, "a"), 3);
    assert_eq!(stats(&sim).started, 1);
    // It is bounded as outages are.
    let (sim, work) =
        (uploading(FileSettings { processing_ms: 300, ..faulty("resource_503", 1 << 40) }), Workdir::with_clips(1));
    let outage = "[worker]\njob_deadline_seconds = 2\n[http]\nconnect_seconds = 2\nfirst_byte_seconds = 2\n\
                  idle_seconds = 2\ntotal_seconds = 2\n";
    run(&work, &sim, "b", &questions("b", 2, "clips/0.mp4")).config(outage).run().expect(1);
    for record in ended(&work, "b") {
        let error = record.error.unwrap();
        assert!(error.kind == ErrorKind::Provider && error.message.contains("503"), "{error:?}");
    }
}

#[test]
fn of_several_clips_of_a_request_only_the_one_that_is_gone_is_uploaded_again() {
    let (sim, work) = (uploading(FileSettings::default()), Workdir::with_clips(3));
    let video = |n: u32| json!({ "name": format!("v{n}"), "kind": "video", "uri": format!("clips/{n}.mp4") });
    let go = |name: &str| {
        let item = |i| {
            json!({ "id": format!("{name}-{i}"), "media": [video(0), video(1), video(2)],
                               "query": format!("Which one ({name} {i})? [[sim: score=9]]") })
        };
        let items: Vec<Value> = (0..4).map(item).collect();
        run(&work, &sim, name, &items).run().expect(0);
        all_done(&ended(&work, name), 4);
        stats(&sim).finalized
    };
    assert_eq!(go("a"), 3);
    let names = || -> Vec<String> {
        let state = state(&work);
        let mut names = state.prepare("SELECT name FROM uploads ORDER BY sha256").unwrap();
        names.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
    };
    let before = names();
    sim.runtime().block_on(async {
        let url = format!("{}/v1beta/{}", sim.base_url(), before[1]);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let deleted = client.delete(url).header("x-goog-api-key", GEMINI_KEY).send().await.unwrap();
        assert!(deleted.status().is_success());
    });
    assert_eq!(go("b"), 4);
    let changed: Vec<bool> = names().iter().zip(&before).map(|(after, before)| after != before).collect();
    assert_eq!(changed, [false, true, false]);
}

/// Three different clips, and room for any two of them.
fn three(work: &Workdir) -> (Vec<Value>, u64) {
    let sizes = (0..3).map(|n| {
        let path = work.clip(&format!("{n}.mp4"), Style::small(Content::Full, 40 + n), 2);
        std::fs::metadata(path).unwrap().len()
    });
    let sizes: Vec<u64> = sizes.collect();
    (corpus(9, 3), sizes.iter().sum::<u64>() - sizes.iter().min().unwrap() / 2)
}

#[test]
fn where_two_of_three_clips_fit_the_one_that_nobody_needs_goes_and_every_job_ends() {
    for (name, at_once, by_us) in [("server", "1", false), ("ours", "1", true), ("crowd", "3", false)] {
        let work = Workdir::new();
        let (items, room) = three(&work);
        let kept = FileSettings { storage_bytes: if by_us { 1 << 40 } else { room }, ..FileSettings::default() };
        let sim = uploading(kept);
        #[expect(clippy::cast_precision_loss, reason = "a few kilobytes")]
        let gb = room as f64 / 1e9;
        let ours = format!("[providers.gemini]\nstorage_gb = {gb}\n");
        let mut aurelia = run(&work, &sim, name, &items).args(["--concurrency", at_once]);
        if by_us {
            aurelia = aurelia.config(&ours);
        }
        aurelia.run().expect(0);
        all_done(&ended(&work, name), 9);
        let found = stats(&sim);
        assert!(found.deletes >= 1 && found.live_bytes <= room, "{name}: {found:?}");
        assert_eq!(found.live_files, found.finalized - found.deletes, "{name}: {found:?}");
    }
}

/// Uploads a file as others with our key do; its name.
fn put(sim: &Sim, bytes: Vec<u8>) -> String {
    let client = client();
    let start = client
        .post(format!("{}/upload/v1beta/files", sim.base_url()))
        .header("x-goog-api-key", GEMINI_KEY)
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", bytes.len())
        .header("x-goog-upload-header-content-type", "video/mp4")
        .body(json!({ "file": { "displayName": "holiday" } }).to_string());
    let body = sim.runtime().block_on(async {
        let started = start.send().await.unwrap();
        let url = started.headers()["x-goog-upload-url"].to_str().unwrap();
        let send = client.post(url).header("x-goog-upload-command", "upload, finalize");
        send.header("x-goog-upload-offset", 0).body(bytes).send().await.unwrap().bytes().await.unwrap()
    });
    serde_json::from_slice::<Value>(&body).unwrap()["file"]["name"].as_str().unwrap().to_owned()
}

/// Whether this file is in the store.
fn is_kept(sim: &Sim, name: &str) -> bool {
    let get = client().get(format!("{}/v1beta/{name}", sim.base_url())).header("x-goog-api-key", GEMINI_KEY);
    sim.runtime().block_on(get.send()).unwrap().status().is_success()
}

#[test]
fn files_that_others_have_put_into_a_full_store_are_let_alone() {
    let work = Workdir::new();
    let (items, room) = three(&work);
    let sim = uploading(FileSettings { storage_bytes: 1 << 40, ..FileSettings::default() });
    // One is the very clip that is run, one of a run with another state.
    let clip = std::fs::read(work.path("clips/0.mp4")).unwrap();
    let mut others = vec![put(&sim, clip.clone()), put(&sim, clip)];
    let other = "[shared]\nurl = \"\"\n";
    run(&work, &sim, "other", &questions("other", 1, "clips/1.mp4")).config(other).run().expect(0);
    let state = rusqlite::Connection::open(work.path("other/.aurelia/state.sqlite")).unwrap();
    others.push(state.query_row("SELECT name FROM uploads", [], |row| row.get(0)).unwrap());
    drop(state);

    let taken = stats(&sim).live_bytes;
    sim.set(|settings| settings.files.storage_bytes = taken + room);
    run(&work, &sim, "ours", &items).args(["--concurrency", "1"]).run().expect(0);
    all_done(&ended(&work, "ours"), 9);
    let found = stats(&sim);
    assert!(found.deletes >= 1 && found.live_bytes <= taken + room, "nothing had to go: {found:?}");
    for name in &others {
        assert!(is_kept(&sim, name), "{name} is gone: {found:?}");
    }
}

#[test]
fn a_store_filled_by_others_is_waited_for_and_told_once() {
    let work = Workdir::with_clips(1);
    let sim = uploading(FileSettings { storage_bytes: 10, ..FileSettings::default() });
    let mut running = run(&work, &sim, "a", &questions("a", 6, "clips/0.mp4")).spawn();
    let told = |text: &str| text.matches("the file store of").filter(|_| true).count();
    until("it is told", || running.stderr().contains("is full, and no file in it is ours").then_some(()));
    assert!(!running.is_over());
    sim.set(|settings| settings.files = FileSettings::default());
    let output: Output = running.wait().expect(0);
    all_done(&ended(&work, "a"), 6);
    let warned = output.stderr.lines().filter(|line| line.contains("WARN") && told(line) > 0).count();
    assert!((1..=3).contains(&warned), "{}", output.stderr);
}

#[test]
fn uploads_survive_breaks_and_outages_and_lost_answers() {
    for fault in
        ["start_503", "start_cut", "chunk_503", "chunk_cut", "final_503", "final_lost", "final_gone", "resource_503"]
    {
        let mut files = faulty(fault, 2);
        (files.processing_ms, files.kept_multiple) = (300, 1_024);
        let (sim, work) = (uploading(files), Workdir::with_clips(1));
        run(&work, &sim, "a", &questions("a", 3, "clips/0.mp4")).run().expect(0);
        all_done(&ended(&work, "a"), 3);
        let found = stats(&sim);
        assert_eq!(found.finalized, 1, "{fault}: {found:?}");
    }
}

#[test]
fn a_compatible_server_is_given_a_video_url_with_the_clip() {
    let work = Workdir::with_clips(1);
    let sim = Sim::start(Settings { openai_flavour: aurelia::simulator::Flavour::Vllm, ..Settings::default() });
    let relay = crate::support::Relay::quiet(&sim);
    let shown = ("media = \"frames+audio\"", "media = \"video\"");
    let model = ("provider = \"gemini\"\nmodel = \"gemini-3.8-flash\"", "provider = \"openai\"\nmodel = \"qwen-vl\"");
    let other = ("model = \"gpt-4o-mini\"", "model = \"qwen-vl\"");
    let recipe: PathBuf = work.recipe("recipe.toml", &[model, model, shown, shown, other]);
    let file = work.items("items.jsonl", &corpus(2, 1));
    let config = "[providers.openai]\nvideo = \"inline\"\n[[prices]]\nprovider = \"openai\"\nmodel = \"qwen-vl\"\ninput = 0\noutput = 0\n";
    let aurelia = Aurelia::at(&work, &relay.base_url()).config(config).corpus(&file);
    aurelia.arg("--recipe").arg(&recipe).run().expect(0);
    all_done(&work.records().into_values().collect::<Vec<_>>(), 2);
    let seen: Vec<String> = relay.sent().iter().filter(|sent| sent.role() != "summarizer").map(url_of).collect();
    assert!(seen.len() >= 4);
    assert!(seen.iter().all(|url| *url == data_url(&work.path("clips/0.mp4"))));
}

fn url_of(sent: &crate::support::Sent) -> String {
    let parts = sent.body["messages"].as_array().unwrap().iter().filter_map(|m| m["content"].as_array().cloned());
    let url = parts.flatten().find_map(|part| part["video_url"]["url"].as_str().map(str::to_owned));
    url.unwrap_or_default()
}

fn data_url(path: &Path) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(std::fs::read(path).unwrap());
    format!("data:video/mp4;base64,{base64}")
}
