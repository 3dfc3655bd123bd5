//! Files made to break, exhaust or betray whoever reads them. Each ends as its own typed error, or as a record where it is
//! fine after all; none costs more than the limits, none touches anything but itself, and good clips beside it finish.

pub(crate) mod bytes;
mod corpus;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aurelia::demo::clip::{Content, Style};
use aurelia::record::{ErrorKind, Record, Status};
use rustix::fs::inotify;
use serde_json::{Value, json};

use self::corpus::{Bait, Case, End, FINE, invalid};
use crate::support::{Aurelia, Sim, Workdir, records, until};

const CPU_SECONDS: u32 = 15;
const MEMORY_MIB: u32 = 1024;
const PREPARE_SECONDS: u32 = 40;
const PROBE_SECONDS: u32 = 20;

/// Limits that a hostile file soon meets and a good one never.
fn limits() -> String {
    format!(
        "[media]\nmax_source_mib = 64\nprobe_timeout_seconds = {PROBE_SECONDS}\nprepare_timeout_seconds = {PREPARE_SECONDS}\n\
         cpu_seconds = {CPU_SECONDS}\nmemory_mib = {MEMORY_MIB}\nmax_frames_decoded = 5000\nmax_duration_seconds = 3600\n"
    )
}

/// A file and a server that hostile files point at, and who has seen them.
struct Canary {
    bait: Bait,
    opened: OwnedFd,
    server: TcpListener,
}

impl Canary {
    fn new(work: &Workdir) -> Self {
        let file = work.clip("canary.mp4", Style::small(Content::Full, 99), 1);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let url = format!("http://{}/canary.mp4", server.local_addr().unwrap());
        let opened = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&opened, &file, inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS).unwrap();
        Self { bait: Bait { file, url }, opened, server }
    }

    fn opened(&self) -> bool {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        inotify::Reader::new(&self.opened, &mut buffer).next().is_ok()
    }

    /// A look and a call are seen.
    fn would_notice(&self) {
        drop(fs::read(&self.bait.file).unwrap());
        assert!(self.opened());
        drop(TcpStream::connect(self.server.local_addr().unwrap()).unwrap());
        assert!(self.asked());
    }

    fn asked(&self) -> bool {
        self.server.accept().is_ok()
    }
}

/// A clip that grows a byte each time somebody looks away.
struct Growing {
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl Growing {
    fn start(path: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        let stopped = Arc::clone(&stop);
        let write = move || {
            while !stopped.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        };
        Self { stop, writer: Some(std::thread::spawn(write)) }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.writer.take().map(JoinHandle::join));
    }
}

/// What is wrong with how a case ended; nothing if it ended as it should.
fn wrong(case: &Case, record: Option<&Record>) -> Option<String> {
    let Some(record) = record else { return Some(format!("{}: no record", case.id)) };
    let right = match (case.end, &record.error) {
        (End::Accepted | End::Either, None) => record.status == Status::Accepted,
        (End::Either, Some(error)) => error.kind == ErrorKind::InvalidMedia,
        (End::Failed(kind, words), Some(error)) => {
            record.status == Status::Failed && error.kind.name() == kind && error.message.contains(words)
        }
        _ => false,
    };
    (!right).then(|| format!("{}: {:?} {:?}, not {:?}", case.id, record.status, record.error, case.end))
}

/// Takes away what is too long to be searched for keys.
fn forget(work: &Workdir) {
    for name in ["sparse.mp4", "hollow.mp4"] {
        fs::remove_file(work.path("clips").join(name)).unwrap();
    }
}

/// Command lines of the processes that stand somewhere under the run's output directory, as decoders do.
fn children(work: &Workdir) -> Vec<String> {
    let root = work.out();
    let under = |entry: &fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&root));
    let line = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
    fs::read_dir("/proc").unwrap().flatten().filter(under).map(line).collect()
}

/// No child lives on, nothing half-made is left, and nobody panicked.
fn clean(work: &Workdir, stderr: &str) {
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(children(work), Vec::<String>::new(), "they live on");
    for entry in fs::read_dir(work.out().join(".aurelia/media")).into_iter().flatten().flatten() {
        assert!(!entry.file_name().to_string_lossy().starts_with('.'), "{entry:?} is left");
    }
}

#[test]
fn every_hostile_file_ends_as_it_should_and_good_neighbours_finish() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let canary = Canary::new(&work);
    let mut cases = corpus::make(&work.path("clips"), &canary.bait).cases;
    let growing = work.clip("growing.mp4", Style::small(Content::Full, 98), 2);
    cases.push(Case {
        id: "growing".into(),
        kind: "video",
        uri: "clips/growing.mp4".into(),
        end: invalid("changes while it is read"),
    });
    for seed in 0..20_u16 {
        work.clip(&format!("good-{seed}.mp4"), Style::small(Content::Full, seed.into()), 1);
        let uri = format!("clips/good-{seed}.mp4");
        // Among the others, not after them.
        let at = (usize::from(seed) * 7).min(cases.len());
        cases.insert(at, Case { id: format!("good-{seed}"), kind: "video", uri, end: FINE });
    }
    // Making them has read it.
    while canary.opened() {}
    let items: Vec<Value> = cases.iter().map(Case::item).collect();
    let file = work.items("items.jsonl", &items);
    let growing = Growing::start(&growing);
    let output = Aurelia::new(&work, &sim).config(&limits()).corpus(&file).run();
    drop(growing);
    let records = work.records();
    let wrong: Vec<String> = cases.iter().filter_map(|case| wrong(case, records.get(&case.id))).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}\n{}", wrong.len(), cases.len(), wrong.join("\n"), output.stderr);
    assert_eq!((output.code, records.len()), (Some(1), cases.len()), "{}", output.stderr);
    assert!(!canary.opened(), "a file pointed at another, and that was opened");
    assert!(!canary.asked(), "a file pointed at a server, and that was asked");
    canary.would_notice();
    clean(&work, &output.stderr);
    forget(&work);
    let told = records.values().filter_map(|record| record.error.as_ref());
    for error in told {
        assert!(!error.message.contains(work.path("").to_str().unwrap()), "{error:?}");
        assert!(!error.message.contains("@ 0x"), "an address is another each time: {error:?}");
        assert!(error.message.len() < 400 && !error.message.contains(char::is_control), "{error:?}");
    }
}

/// What one case used: exit code, MiB of its largest process, processor seconds of all, seconds.
#[derive(Debug, serde::Deserialize)]
struct Used {
    code: i32,
    peak_mib: f64,
    cpu_seconds: f64,
    seconds: f64,
}

#[test]
fn no_hostile_file_costs_more_than_its_limits() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let canary = Canary::new(&work);
    let cases = corpus::make(&work.path("clips"), &canary.bait).cases;
    for (n, case) in cases.iter().enumerate() {
        work.items(&format!("items-{n}.jsonl"), &[case.item()]);
    }
    let names: Vec<String> = (0..cases.len()).map(|n| n.to_string()).collect();
    let names = work.write("names.json", serde_json::to_string(&names).unwrap());
    let result = work.path("result.json");
    let args = ["run", "--corpus", "items-@.jsonl", "--out", "out-@", "--json"];
    Aurelia::new(&work, &sim).config(&limits()).args(args).measured(&names, &result).run().expect(0);
    let used: BTreeMap<usize, Used> = serde_json::from_slice(&fs::read(result).unwrap()).unwrap();
    let mut table: Vec<(&Case, &Used)> = cases.iter().enumerate().map(|(n, case)| (case, &used[&n])).collect();
    for (n, case) in cases.iter().enumerate() {
        let records = records(&work.path(&format!("out-{n}")));
        assert_eq!(wrong(case, records.get(&case.id)), None);
    }
    for (case, used) in &table {
        assert!((0..=1).contains(&used.code), "{}: {used:?}", case.id);
        assert!(used.peak_mib < f64::from(MEMORY_MIB), "{}: {used:?}", case.id);
        // ffprobe and ffmpeg each, and what our own process needs.
        assert!(used.cpu_seconds < f64::from(2 * CPU_SECONDS + 1), "{}: {used:?}", case.id);
        assert!(used.seconds < f64::from(PROBE_SECONDS + PREPARE_SECONDS), "{}: {used:?}", case.id);
    }
    for (what, of) in [
        ("memory", (|used| used.peak_mib) as fn(&Used) -> f64),
        ("processor", |used| used.cpu_seconds),
        ("time", |used| used.seconds),
    ] {
        table.sort_by(|a, b| of(b.1).total_cmp(&of(a.1)));
        for (case, used) in table.iter().take(5) {
            println!(
                "most {what}: {:20} {:6.1} MiB {:5.2} s of CPU {:5.2} s",
                case.id, used.peak_mib, used.cpu_seconds, used.seconds
            );
        }
    }
    forget(&work);
}

#[test]
fn random_damage_ends_as_an_error_of_its_item_or_not_at_all() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let cases = corpus::damaged(&work.path("clips"), 98).cases;
    let items: Vec<Value> = cases.iter().map(Case::item).collect();
    let file = work.items("items.jsonl", &items);
    let output = Aurelia::new(&work, &sim).config(&limits()).corpus(&file).run().expect(1);
    let records = work.records();
    let wrong: Vec<String> = cases.iter().filter_map(|case| wrong(case, records.get(&case.id))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let accepted = records.values().filter(|record| record.status == Status::Accepted).count();
    assert!((10..88).contains(&accepted), "{accepted} of 98 are fine: the damage is too little or too much");
    clean(&work, &output.stderr);
}

/// A program in place of ffmpeg.
fn script(work: &Workdir, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = work.write("decoder.sh", format!("#!/bin/sh\n{text}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("[media]\nffmpeg = {:?}\n", path.to_str().unwrap())
}

#[test]
fn a_decoder_killed_once_starts_again_and_one_killed_twice_is_its_items_fault() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    let item = |id: &str, clip: &str| json!({ "id": id, "video": clip, "query": "Who? [[sim: score=8]]" });
    let items = [item("one", "clips/0.mp4"), item("same", "clips/0.mp4"), item("two", "clips/1.mp4")];
    let file = work.items("items.jsonl", &items);
    let starts = work.path("starts");
    let count = format!("echo x >> {}", starts.display());
    let killed = script(&work, &format!("{count}; kill -9 $$"));
    Aurelia::new(&work, &sim).config(&killed).corpus(&file).run().expect(1);
    for (id, record) in work.records() {
        let error = record.error.unwrap();
        assert_eq!((record.status, error.kind), (Status::Failed, ErrorKind::InvalidMedia), "{id}");
        assert!(error.message.contains("was killed while it read it"), "{}", error.message);
    }
    assert_eq!((sim.received(), fs::read_to_string(&starts).unwrap().lines().count()), (0, 4), "two clips, twice each");

    let once = format!("{count}; [ $(wc -l < {}) -gt 5 ] || kill -9 $$; exec ffmpeg \"$@\"", starts.display());
    let file = work.items("items.jsonl", &items[..1]);
    let out = work.path("again");
    let once = script(&work, &once);
    let args = ["run".as_ref(), "--corpus".as_ref(), file.as_os_str(), "--out".as_ref(), out.as_os_str()];
    Aurelia::new(&work, &sim).config(&once).args(args).run().expect(0);
    assert_eq!(records(&out)["one"].status, Status::Accepted);
    assert_eq!(fs::read_to_string(&starts).unwrap().lines().count(), 6);
}

#[test]
fn a_run_that_is_killed_leaves_no_decoder_behind() {
    let (sim, work) = (Sim::plain(), Workdir::new());
    let long = work.path("clips/long.mkv");
    let source = ["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=60", "-c:v", "mpeg4", "-qscale:v", "20"];
    let made = Command::new("ffmpeg").args(["-nostdin", "-v", "error"]).args(source).arg(&long).status().unwrap();
    assert!(made.success());
    let items = work.items("items.jsonl", &[json!({ "id": "long", "video": "clips/long.mkv", "query": "Who?" })]);
    let running = Aurelia::new(&work, &sim).corpus(&items).spawn();
    until("it decodes", || children(&work).iter().any(|line| line.starts_with("ffmpeg")).then_some(()));
    running.kill();
    let began = std::time::Instant::now();
    until("its decoder has ended", || children(&work).is_empty().then_some(()));
    println!("the decoder ended {:?} after its parent", began.elapsed());
}
