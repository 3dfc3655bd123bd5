//! The media cache between processes: one preparation, a cap that holds, kills and full disks that leave nothing wrong.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use aurelia::demo::clip::{Content, Style};
use aurelia::media::{Kind, Library, Limits, MediaErrorKind, Settings, Store, Wants};
use serde_json::{Value, json};

use super::support::https::{Https, Reply, Then};
use super::support::{Aurelia, Output, Sim, Workdir, clips, corpus, until};

fn library(cache: &Path, limits: Limits, store: Store) -> Library {
    Library::with_store(cache.to_owned(), Settings::default(), Wants::default(), limits, store).unwrap()
}

/// One call per item, accepted at once.
fn items(work: &Workdir, name: &str, clips: &[String]) -> PathBuf {
    let item = |(n, clip): (usize, &String)| json!({"id": format!("{n}"), "video": clip, "query": format!("Who ({n})? [[sim: score=9]]")});
    work.items(name, &clips.iter().enumerate().map(item).collect::<Vec<Value>>())
}

/// A run into `out`, with the cache that all runs of this folder share.
fn run<'a>(work: &'a Workdir, sim: &Sim, corpus: &Path, out: &str, config: &str) -> Aurelia<'a> {
    let shared = format!("[media]\ncache_dir = \"{}\"\n{config}", work.path("cache").display());
    let aurelia = Aurelia::new(work, sim).config(&shared).arg("run").arg("--corpus").arg(corpus);
    aurelia.arg("--out").arg(work.path(out)).arg("--json")
}

fn decodes(output: &Output) -> u64 {
    output.json()["decodes"].as_u64().unwrap()
}

/// Bytes as the configuration takes them.
fn gib(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap()) / 1_073_741_824.0
}

/// What lies in a folder; nothing if it is not there.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Bytes of all files below a folder.
fn bytes_below(dir: &Path) -> u64 {
    let below = entries(dir)
        .into_iter()
        .map(|path| if path.is_dir() { bytes_below(&path) } else { path.metadata().map_or(0, |m| m.len()) });
    below.sum()
}

/// An ffmpeg that begins only when the file `gate` is there. Returns the name of the program.
fn waiting_ffmpeg(work: &Workdir) -> String {
    let gate = work.path("gate");
    let script = format!("#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.01; done\nexec ffmpeg \"$@\"\n", gate.display());
    let program = work.write("waiting-ffmpeg", script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

#[test]
fn a_hundred_jobs_on_one_clip_decode_it_once_and_a_second_process_not_at_all() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut hundred = corpus(100, 1);
    for item in &mut hundred {
        item["query"] = format!("{} [[sim: score=9]]", item["query"].as_str().unwrap()).into();
    }
    let file = work.items("items.jsonl", &hundred);
    let sixteen = "[worker]\nconcurrency = 16\n";
    let first = run(&work, &sim, &file, "first", sixteen).run().expect(0);
    let second = run(&work, &sim, &file, "second", sixteen).run().expect(0);
    assert_eq!((decodes(&first), decodes(&second)), (1, 0));
    assert_eq!(first.json()["written"], 100);
}

#[test]
fn two_processes_that_want_one_clip_make_it_ready_once() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = items(&work, "items.jsonl", &["clips/0.mp4".to_owned()]);
    let config = format!("ffmpeg = {:?}\n", waiting_ffmpeg(&work));
    let start = |out: &str| run(&work, &sim, &file, out, &config).env("AURELIA__TELEMETRY__LOG", "debug").spawn();
    let both = [start("first"), start("second")];
    until("one of them waits for the other", || {
        both.iter().any(|run| run.stderr().contains("waiting for it")).then_some(())
    });
    work.write("gate", "");
    let made: u64 = both.into_iter().map(|running| decodes(&running.wait().expect(0))).sum();
    assert_eq!((made, entries(&work.path("cache/making")).len()), (1, 0));
}

#[tokio::test]
async fn what_waits_for_a_decoder_is_made_by_a_process_that_has_one_free() {
    let work = Workdir::with_clips(2);
    let cache = work.path("cache");
    let few = Limits { decoders: 1, ..Limits::default() };
    let busy = library(&cache, Limits { ffmpeg: waiting_ffmpeg(&work).into(), ..few.clone() }, Store::default());
    // Were it to wait for what the busy one has in its queue, it would soon give up.
    let free = Limits { probe_timeout_seconds: 5, prepare_timeout_seconds: 5, ..few };
    let free = library(&cache, free, Store::default());
    let mut calls = tokio::task::JoinSet::new();
    let mut start = |library: &Library, n: u32| {
        let (library, clip) = (library.clone(), work.path(&format!("clips/{n}.mp4")));
        calls.spawn(async move { library.prepare(clip.to_str().unwrap(), Kind::Video).await });
    };
    let soon = || tokio::time::sleep(std::time::Duration::from_millis(2));
    start(&busy, 0);
    while !entries(&cache.join("making")).iter().any(|making| making.join("work").exists()) {
        soon().await;
    }
    start(&busy, 1);
    start(&free, 0);
    while (busy.stats().hashed, free.stats().hashed) != (2, 1) {
        soon().await;
    }
    // Both have come as far as they can: one into its queue, one to where it waits for the other process.
    for _ in 0..50 {
        soon().await;
    }
    assert_eq!(entries(&cache.join("making")).len(), 1, "what has no decoder is not locked");
    let queued = work.path("clips/1.mp4");
    let made = free.prepare(queued.to_str().unwrap(), Kind::Video).await;
    made.expect("who waits for another process keeps no decoder from its own");
    work.write("gate", "");
    while let Some(ended) = calls.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!((busy.stats().decodes, free.stats().decodes), (1, 1));
}

#[test]
fn a_process_killed_while_it_makes_an_entry_lets_the_one_that_waits_make_it() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = items(&work, "items.jsonl", &["clips/0.mp4".to_owned()]);
    let waiting = format!("ffmpeg = {:?}\n", waiting_ffmpeg(&work));
    let killed = run(&work, &sim, &file, "killed", &waiting).spawn();
    let working = || entries(&work.path("cache/making")).iter().any(|making| making.join("work").exists());
    until("an entry is in the making", || working().then_some(()));
    let heir = run(&work, &sim, &file, "heir", "").env("AURELIA__TELEMETRY__LOG", "debug").spawn();
    until("the heir waits", || heir.stderr().contains("waiting for it").then_some(()));
    killed.kill();
    assert_eq!(decodes(&heir.wait().expect(0)), 1);
    assert_eq!(entries(&work.path("cache/making")), Vec::<PathBuf>::new());
    assert_eq!(decodes(&run(&work, &sim, &file, "next", "").run().expect(0)), 0);
    // The killed one's child ends as well.
    work.write("gate", "");
}

#[test]
fn what_a_killed_process_left_is_removed_at_the_next_start_at_once() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    let [first, second] = ["0", "1"].map(|n| items(&work, &format!("{n}.jsonl"), &[format!("clips/{n}.mp4")]));
    let killed = run(&work, &sim, &first, "killed", &format!("ffmpeg = {:?}\n", waiting_ffmpeg(&work))).spawn();
    let making = || entries(&work.path("cache/making"));
    until("an entry is in the making", || making().iter().any(|making| making.join("work").exists()).then_some(()));
    // While it lives, another process leaves it alone.
    run(&work, &sim, &second, "alive", "").run().expect(0);
    assert_eq!(making().len(), 1);
    killed.kill();
    fs::remove_dir_all(work.path("cache/prepared")).unwrap();
    run(&work, &sim, &second, "after", "").run().expect(0);
    assert_eq!(making(), Vec::<PathBuf>::new());
    work.write("gate", "");
}

#[test]
fn a_process_killed_in_a_download_leaves_nothing_that_the_next_one_would_use() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let content = fs::read(clips::kept(Style::small(Content::Full, 1), 1)).unwrap();
    let server = Https::start(move |asked| {
        let reply = Reply::file(asked, &content, "\"a\"");
        if asked.before == 0 { reply.only(3000, Then::Stall) } else { reply }
    });
    let file = items(&work, "items.jsonl", &[server.url("/a")]);
    let killed = run(&work, &sim, &file, "out", &server.config()).spawn();
    let came = || entries(&work.path("cache/making")).iter().any(|making| making.join("entry/data").exists());
    until("the download has begun", || (came() && !server.asked().is_empty()).then_some(()));
    killed.kill();
    let output = run(&work, &sim, &file, "out", &server.config()).run().expect(0);
    assert_eq!((decodes(&output), output.json()["downloads"].as_u64(), server.asked().len()), (1, Some(1), 2));
    assert_eq!(entries(&work.path("cache/making")), Vec::<PathBuf>::new());
}

#[test]
fn the_cap_holds_at_every_moment_however_many_processes_fill_the_cache() {
    const CAP: u64 = 400_000;
    let (sim, work) = (Sim::plain(), Workdir::with_clips(10));
    let clips: Vec<String> = (0..10).map(|n| format!("clips/{n}.mp4")).collect();
    let backwards: Vec<String> = clips.iter().rev().cloned().collect();
    let [file, other] = [items(&work, "a.jsonl", &clips), items(&work, "b.jsonl", &backwards)];
    let config = format!("cache_gib = {}\nkeep_free_gib = 0\n", gib(CAP));
    let cache = work.path("cache");
    let over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                // Under the lock under which room is made, so that nothing moves while it is counted.
                let Ok(lock) = File::open(cache.join("in-use")) else { continue };
                lock.lock().unwrap();
                let now = bytes_below(&cache.join("prepared"));
                assert!(now <= CAP, "{now} bytes are kept");
                most = most.max(now);
            }
            most
        });
        let runs = [run(&work, &sim, &file, "a", &config).spawn(), run(&work, &sim, &other, "b", &config).spawn()];
        let limits = Limits { cache_bytes: CAP, keep_free_bytes: 0, ..Limits::default() };
        let here = library(&cache, limits, Store::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for clip in clips.iter().chain(&backwards) {
            runtime.block_on(here.prepare(work.path(clip).to_str().unwrap(), Kind::Video)).unwrap();
        }
        for running in runs {
            running.wait().expect(0);
        }
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert!(most > CAP / 2, "the cache was used: {most}");
    assert!(entries(&cache.join("prepared")).len() < 10 && entries(&cache.join("making")).is_empty());
}

#[test]
fn a_source_in_use_stays_while_others_need_its_room() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let contents: Vec<Vec<u8>> =
        (0..6).map(|seed| fs::read(clips::kept(Style::small(Content::Full, seed), 1)).unwrap()).collect();
    let largest = contents.iter().map(Vec::len).max().unwrap() as u64;
    let server = Https::start(move |asked| {
        let content: usize = asked.path.trim_start_matches('/').parse().unwrap();
        Reply::file(asked, &contents[content], "\"a\"")
    });
    // Room for two sources, and nearly a third.
    let cap = 3 * largest + 20_000;
    let config = format!(
        "cache_gib = {}\nkeep_free_gib = 0\nffmpeg = {:?}\n{}",
        gib(cap),
        waiting_ffmpeg(&work),
        server.config()
    );
    let file = items(&work, "items.jsonl", &[server.url("/0")]);
    let running = run(&work, &sim, &file, "out", &config).spawn();
    let working = || entries(&work.path("cache/making")).iter().any(|making| making.join("work").exists());
    until("it is decoded", || working().then_some(()));
    let used = entries(&work.path("cache/sources"));
    assert_eq!(used.len(), 1);
    let limits = Limits { cache_bytes: cap, keep_free_bytes: 0, ..Limits::default() };
    let others = library(&work.path("cache"), limits, server.store());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for n in 1..6 {
        runtime.block_on(others.prepare(&server.url(&format!("/{n}")), Kind::Video)).unwrap();
        assert!(used[0].join("data").exists(), "after {n} others");
    }
    assert!(entries(&work.path("cache/sources")).len() < 5, "some of them had to go");
    work.write("gate", "");
    running.wait().expect(0);
}

/// Files of a folder that this process has open and that have no name any more.
fn nameless(dir: &Path) -> Vec<PathBuf> {
    let open = entries(Path::new("/proc/self/fd")).into_iter().filter_map(|fd| fs::read_link(fd).ok());
    open.filter(|file| file.starts_with(dir) && file.to_string_lossy().ends_with(" (deleted)")).collect()
}

#[tokio::test]
async fn a_made_clip_in_use_stays_and_one_that_nobody_uses_is_held_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    // In a container of which an mp4 is made.
    let sources: Vec<PathBuf> = (0..6_u64)
        .map(|seed| {
            let (from, to) =
                (clips::kept(Style::small(Content::Full, seed), 1), dir.path().join(format!("{seed}.mkv")));
            let copy = ["-nostdin", "-v", "error", "-i", from.to_str().unwrap(), "-c", "copy", to.to_str().unwrap()];
            assert!(Command::new("ffmpeg").args(copy).status().unwrap().success());
            to
        })
        .collect();
    let largest = sources.iter().map(|source| source.metadata().unwrap().len()).max().unwrap();
    let limits = Limits { cache_bytes: 3 * largest + 40_000, keep_free_bytes: 0, ..Limits::default() };
    let wants = Wants { frames: false, sound: false, clip: true };
    let settings = Settings { clip_mib: 0, clip_seconds: 0, ..Settings::default() };
    let library = Library::new(cache.clone(), settings, wants, limits);
    let prepare = |n: usize| library.prepare(sources[n].to_str().unwrap(), Kind::Video);

    let held = prepare(0).await.unwrap();
    let entry = entries(&cache.join("prepared")).remove(0);
    for n in 1..6 {
        prepare(n).await.unwrap();
        assert!(entry.join("clip.mp4").exists(), "in use, after {n} others");
    }
    assert!(entries(&cache.join("prepared")).len() < 6, "some of them had to go");
    assert_eq!(nameless(&cache), Vec::<PathBuf>::new());
    // It is still the one that is shared.
    assert_eq!(prepare(0).await.unwrap().clip, held.clip);
    assert_eq!(library.stats().clips, 6);

    drop(held);
    for n in 1..6 {
        prepare(n).await.unwrap();
    }
    assert!(!entry.exists(), "nobody uses it any more");
    assert_eq!(nameless(&cache), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_source_that_no_cache_can_hold_is_named_with_its_limit() {
    let server = Https::start(|asked| Reply::file(asked, &vec![7; 3 << 20], "\"a\""));
    let dir = tempfile::tempdir().unwrap();
    let small = library(dir.path(), Limits { cache_bytes: 2 << 20, ..Limits::default() }, server.store());
    let error = small.prepare(&server.url("/a"), Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    assert!(error.message.contains("the media cache holds 2 (media.cache_gib)"), "{error}");
    assert_eq!(small.stats().downloaded_bytes, 0);
}

#[tokio::test]
async fn a_clip_that_finds_no_room_is_prepared_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clip = clips::kept(Style::small(Content::Full, 1), 1);
    for _ in 0..2 {
        let tiny = library(dir.path(), Limits { cache_bytes: 20_000, ..Limits::default() }, Store::default());
        assert_eq!(tiny.prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap().frames.len(), 5);
        assert_eq!(tiny.stats().decodes, 1);
        assert!(entries(&dir.path().join("prepared")).is_empty() && entries(&dir.path().join("making")).is_empty());
    }
}

#[tokio::test]
async fn an_entry_damaged_in_any_file_is_made_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let clip = clips::kept(Style::small(Content::Full, 1), 1);
    let open = || library(dir.path(), Limits::default(), Store::default());
    let whole = open().prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap();
    let entry = entries(&dir.path().join("prepared")).remove(0);
    for file in entries(&entry) {
        let content = fs::read(&file).unwrap();
        for damaged in
            [Vec::new(), content[..content.len() - 1].to_vec(), vec![0; content.len()], [&content[..], b"x"].concat()]
        {
            fs::write(&file, damaged).unwrap();
            let library = open();
            let again = library.prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap();
            assert_eq!((&again, library.stats().decodes), (&whole, 1), "{}", file.display());
            let library = open();
            library.prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap();
            assert_eq!(library.stats().decodes, 0, "{} is whole again", file.display());
        }
    }
    // An entry that is a file, or the link of somebody who wishes ill, is no entry.
    fs::remove_dir_all(&entry).unwrap();
    std::os::unix::fs::symlink("/etc", &entry).unwrap();
    let library = open();
    library.prepare(clip.to_str().unwrap(), Kind::Video).await.unwrap();
    assert_eq!(library.stats().decodes, 1);
    assert!(entries(&entry).iter().any(|file| file.ends_with("manifest.json")) && Path::new("/etc/passwd").exists());
}

/// Starts a command where `cache` is a disk of a few MiB: on a file system of its own if this user may mount one, else with a
/// largest file size, which fills up as well.
fn on_small_disk(cache: &Path, kib: u32) -> Vec<String> {
    fs::create_dir_all(cache).unwrap();
    let mount = format!("mount -t tmpfs -o size={kib}k tmpfs '{}'", cache.display());
    let alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"];
    let may = |script: &str| {
        Command::new(alone[0]).args(&alone[1..]).arg(script).status().is_ok_and(|status| status.success())
    };
    if may(&mount) {
        let script = format!("{mount} && exec \"$@\"");
        alone.iter().map(|word| (*word).to_owned()).chain([script, "sh".to_owned()]).collect::<Vec<_>>()
    } else {
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kib * 2);
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

#[test]
fn a_disk_that_is_full_of_old_entries_makes_room_for_new_ones() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(10));
    let clips: Vec<String> = (0..10).map(|n| format!("clips/{n}.mp4")).collect();
    let file = items(&work, "items.jsonl", &clips);
    // Ten entries take twice as much.
    let small = on_small_disk(&work.path("cache"), 700);
    let output = run(&work, &sim, &file, "out", "keep_free_gib = 0\n[worker]\nconcurrency = 1\n")
        .through(&small)
        .run()
        .expect(0);
    assert_eq!((decodes(&output), &output.json()["records"]["accepted"]), (10, &json!(10)));
}

#[test]
fn a_full_disk_is_named_with_what_is_needed_and_blames_no_item() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let server = Https::start(|asked| Reply::file(asked, &vec![7; 6 << 20], "\"a\""));
    let file = items(&work, "items.jsonl", &[server.url("/a")]);
    let cache = work.path("cache");
    let small = on_small_disk(&cache, 3 << 10);
    let config = format!("keep_free_gib = 0\n{}", server.config());
    let output = run(&work, &sim, &file, "out", &config).through(&small).run().expect(75);
    let said = output.json()["stopped"].as_str().unwrap().to_owned();
    for words in [cache.to_str().unwrap(), "has no room", "bytes are needed and", "are free"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(super::support::records(&work.path("out")).is_empty(), "nobody is blamed");
    // With room it goes on, and what was left half is gone.
    let output = run(&work, &sim, &file, "out", &config).run().expect(1);
    assert_eq!(output.json()["failed_by_kind"]["invalid_media"], 1, "it is no clip, after all");
    assert!(entries(&cache.join("making")).is_empty());
}

#[test]
fn a_cache_directory_that_cannot_be_written_to_ends_with_64_and_names_itself_and_its_setting() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    // Nobody can make a directory in a file, whoever runs this.
    let cache = work.write("cache", "no directory");
    let server = Https::start(|asked| Reply::file(asked, b"content", "\"a\""));
    for (out, source) in [("local", "clips/0.mp4".to_owned()), ("remote", server.url("/a"))] {
        let file = items(&work, "items.jsonl", &[source]);
        let output = run(&work, &sim, &file, out, &server.config()).run().expect(64);
        let said = output.json()["stopped"].as_str().unwrap().to_owned();
        for words in [cache.to_str().unwrap(), "cannot be written to", "set media.cache_dir"] {
            assert!(said.contains(words), "{said}");
        }
        assert!(super::support::records(&work.path(out)).is_empty(), "nobody is blamed");
    }
    assert_eq!(sim.received(), 0);
    fs::remove_file(cache).unwrap();
    let file = items(&work, "items.jsonl", &["clips/0.mp4".to_owned()]);
    run(&work, &sim, &file, "again", "").run().expect(0);
}
