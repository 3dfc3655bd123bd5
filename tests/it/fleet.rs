//! The whole fleet: producers, workers, a collector, and everything that can happen to them.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use aurelia::demo::clip::{Content, Style};
use aurelia::record::Status;
use aurelia::shared::jobs::UnderWay;
use aurelia::simulator::{Latency, Settings};
use serde_json::{Value, json};

use super::support::fleet::{Bench, data_set};
use super::support::redis::RedisServer;
use super::support::s3::S3;
use super::support::{Aurelia, Broker, Cable, PATIENCE, Running, Sim, Workdir, clips, until};

/// How often what happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) workers: usize,
    pub(crate) brokers: usize,
    pub(crate) redis: usize,
    pub(crate) buckets: usize,
    pub(crate) cuts: usize,
    pub(crate) collectors: usize,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Worker,
    Broker,
    Redis,
    Bucket,
    Cut,
    Collector,
}

const RUN: &str = "chaos";
const WORKERS: usize = 3;
/// Jobs of one worker at once.
const CONCURRENCY: u64 = 8;

/// A generator of numbers: all that a schedule of faults needs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn shuffled<T: Copy>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            all.swap(end, usize::try_from(self.below(end as u64 + 1)).unwrap());
        }
    }
}

/// A program whose connections all go over cables: to the broker, Redis, the model and the bucket.
fn cabled<'a>(command: Aurelia<'a>, cables: &[Cable; 4]) -> Aurelia<'a> {
    command
        .env("AURELIA__QUEUE__URL", &format!("amqp://guest:guest@127.0.0.1:{}", cables[0].port()))
        .env("AURELIA__SHARED__URL", &format!("redis://127.0.0.1:{}", cables[1].port()))
        .env("AURELIA__PROVIDERS__GEMINI__BASE_URL", &format!("http://127.0.0.1:{}", cables[2].port()))
        .env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{}", cables[3].port()))
}

/// Jobs over three workers, while all this happens at random times. Every job has one record, no request was answered twice but
/// those in flight at a fault, and no message is left anywhere.
#[expect(clippy::too_many_lines, reason = "one story, told from its start to its end")]
pub(crate) fn chaos(prefix: &str, jobs: usize, faults: Faults, seed: u64) -> String {
    let settings = Settings { latency: Latency::Fixed { ms: 150 }, ..Settings::default() };
    let (sim, work, s3) = (Sim::start(settings), Workdir::new(), S3::start());
    let (mut broker, mut redis) = (Broker::own(), RedisServer::own("always"));
    let cable = |port: u16| sim.runtime().block_on(Cable::to(port));
    let model: u16 = sim.base_url().rsplit(':').next().unwrap().parse().unwrap();
    let bucket: u16 = s3.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    let cables = [cable(broker.port()), cable(redis.port()), cable(model), cable(bucket)];
    let bench = Bench::over(&broker.url(), &redis.url(), prefix);
    for seed in 0..4 {
        s3.put(&format!("clips/{seed}.mp4"), &fs::read(clips::kept(Style::small(Content::Full, seed), 1)).unwrap());
    }
    let items: Vec<Value> = (0..jobs)
        .map(|i| {
            json!({"id": format!("item-{i:04}"), "video": format!("s3://clips/{}.mp4", i % 4),
                        "query": format!("What is heard first ({i})?")})
        })
        .collect();
    let corpus = work.items("items.jsonl", &items);
    let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
    producer.args(["--run", RUN, "--json"]).arg(&corpus).run().expect(0);
    let worker = || {
        let config = "[store]\nallow = [\"s3://clips/\"]\noutage_seconds = 600\nfirst_byte_seconds = 5\nidle_seconds = 5\n[retry]\nbackoff_ms = 200\n";
        let command = s3.told(bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-worker")), "s3://clips/");
        cabled(command.config(config), &cables).spawn()
    };
    let sets = work.path("sets");
    let collector = || {
        let command = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-collector"));
        let command = cabled(command, &cables).env("AURELIA__COLLECTOR__OUTPUT", sets.to_str().unwrap());
        let config = "[collector]\nshard_rows = 50\nshard_idle_seconds = 1\nshard_seconds = 5\n";
        command.config(config).args(["--run", RUN, "--until-complete"]).spawn()
    };
    let mut workers: Vec<Running<'_>> = (0..WORKERS).map(|_| worker()).collect();
    let mut collecting = collector();
    let mut dice = Dice(seed);
    let counts = [
        (Fault::Worker, faults.workers),
        (Fault::Broker, faults.brokers),
        (Fault::Redis, faults.redis),
        (Fault::Bucket, faults.buckets),
        (Fault::Cut, faults.cuts),
        (Fault::Collector, faults.collectors),
    ];
    let mut all: Vec<Fault> = counts.iter().flat_map(|(fault, n)| std::iter::repeat_n(*fault, *n)).collect();
    dice.shuffled(&mut all);
    // No broker is killed so soon after its queues were made.
    std::thread::sleep(Duration::from_secs(3));
    let (began, mut in_flight, mut happened) = (Instant::now(), 0, BTreeMap::new());
    for fault in all {
        std::thread::sleep(Duration::from_millis(300 + dice.below(1200)));
        *happened.entry(format!("{fault:?}")).or_insert(0) += 1;
        match fault {
            Fault::Worker => {
                let which = usize::try_from(dice.below(WORKERS as u64)).unwrap();
                in_flight += CONCURRENCY.min(sim.stats().in_flight);
                workers.swap_remove(which).kill();
                workers.push(worker());
            }
            Fault::Broker => {
                broker.kill();
                std::thread::sleep(Duration::from_millis(dice.below(1000)));
                broker.start();
            }
            Fault::Redis => {
                redis.kill();
                std::thread::sleep(Duration::from_millis(dice.below(2000)));
                redis.start();
            }
            Fault::Bucket => {
                cables[3].darken();
                std::thread::sleep(Duration::from_millis(500 + dice.below(1500)));
                cables[3].mend();
            }
            Fault::Cut => {
                in_flight += sim.stats().in_flight;
                cables.iter().for_each(Cable::sever);
            }
            Fault::Collector => {
                if !collecting.is_over() {
                    collecting.kill();
                    collecting = collector();
                }
            }
        }
    }
    let faults_took = began.elapsed();
    let ended = Instant::now();
    while !collecting.is_over() {
        let progress = || bench.block_on(bench.fleet.runs.get(RUN));
        let words = || workers.iter().map(Running::stderr).collect::<String>();
        assert!(ended.elapsed() < PATIENCE, "{:?}\n{}\n{}", progress(), collecting.stderr(), words());
        std::thread::sleep(Duration::from_millis(50));
    }
    collecting.wait().expect(0);
    let (manifest, records) = data_set(&sets.join(RUN));
    let mut by_job: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &records {
        *by_job.entry(&record.job_id).or_default() += 1;
        assert!(matches!(record.status, Status::Accepted | Status::Exhausted), "{:?}", record.error);
    }
    assert_eq!((by_job.len(), records.len()), (jobs, jobs), "every job has one record");
    assert_eq!((manifest.sealed, manifest.complete), (true, true), "{manifest:?}");
    let twice = sim.stats().repeats_of_answered;
    assert!(twice <= in_flight, "{twice} requests were answered twice, and {in_flight} were in flight at faults");
    // What came twice is worked off too; then nothing is left anywhere.
    let topology = &bench.fleet.topology;
    let queue = topology.run(RUN).unwrap().name;
    let ready = |queue: &str| bench.block_on(aurelia::queue::ready(&bench.fleet.outgoing, queue)).unwrap();
    let quiet = Instant::now();
    loop {
        let under_way = bench.block_on(bench.fleet.jobs.under_way(RUN));
        if ready(&queue) == Some(0) && under_way.as_ref().is_ok_and(|all| *all == UnderWay::default()) {
            break;
        }
        assert!(quiet.elapsed() < PATIENCE, "{:?} ready, {under_way:?}", ready(&queue));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(ready(&topology.dead().name), Some(0), "no job is dead");
    drop(workers);
    let memory = redis.say(&["INFO", "memory"]);
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory_dataset:")).unwrap().trim().to_owned();
    let used = used.parse::<usize>().unwrap() / jobs;
    format!(
        "{jobs} jobs over {WORKERS} workers, {used} bytes of Redis a job, one record each: {happened:?} in {:.0} s, done after {:.0} s; {twice} requests \
         answered twice, {in_flight} in flight at kills and cuts",
        faults_took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    )
}

#[test]
fn a_fleet_to_which_everything_happens_has_one_record_of_each_job() {
    let faults = Faults { workers: 3, brokers: 1, redis: 1, buckets: 1, cuts: 1, collectors: 1 };
    println!("{}", chaos("fleet-chaos", 200, faults, 4));
}

/// Workers that share clips of a bucket: each fetches each clip once, and together they upload each once.
pub(crate) fn shared_clips(prefix: &str, jobs: usize, clips: u64, workers: u64) -> String {
    let (sim, work, s3) = (Sim::slow(20), Workdir::new(), S3::start());
    let mut bench = Bench::new(prefix);
    let mut size = 0;
    for seed in 0..clips {
        let clip = fs::read(clips::kept(Style::small(Content::Full, seed), 1)).unwrap();
        size += clip.len() as u64;
        s3.put(&format!("clips/{seed}.mp4"), &clip);
    }
    let shown = ("media = \"frames+audio\"", "media = \"video\"");
    let recipe = work.recipe("recipe.toml", &[shown, shown]);
    let item = |i| json!({"id": format!("i{i}"), "video": format!("s3://clips/{}.mp4", i as u64 % clips), "query": format!("What ({i})?")});
    let corpus = work.items("items.jsonl", &(0..jobs).map(item).collect::<Vec<_>>());
    let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
    producer.args(["--run", RUN, "--json", "--recipe"]).arg(&recipe).arg(&corpus).run().expect(0);
    let running: Vec<_> = (0..workers)
        .map(|number| {
            let command = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-worker"));
            let cache = format!("[media]\ncache_dir = \"{}\"\n", work.path(&format!("cache-{number}")).display());
            s3.told(command, "s3://clips/").config(&cache).config("[providers.gemini]\ninline_mib = 0\n").spawn()
        })
        .collect();
    let (records, _) = bench.records(jobs);
    assert!(records.values().all(|m| matches!(m.record.status, Status::Accepted | Status::Exhausted)));
    let files = sim.stats().files;
    let uploads: u64 = files.values().map(|project| project.finalized).sum();
    assert_eq!(uploads, clips, "each clip is uploaded once");
    let read = s3.body_bytes();
    assert!(read * 100 <= size * workers * 105, "{read} bytes were read of {size} by {workers} workers");
    assert_eq!(sim.stats().repeats_of_answered, 0);
    drop(running);
    format!(
        "{jobs} jobs on {clips} clips over {workers} workers: {uploads} uploads, {read} bytes read of {size} a worker"
    )
}

#[test]
fn workers_fetch_each_clip_of_a_bucket_once_and_upload_it_once_together() {
    println!("{}", shared_clips("fleet-clips", 60, 4, 2));
}

/// A worker whose connection to the broker goes dead without a word, for so long.
pub(crate) fn cut_off(prefix: &str, jobs: usize, cut: Duration) {
    let (sim, work) = (Sim::slow(100), Workdir::with_clips(2));
    let url = Broker::shared();
    let port = url.rsplit(':').next().unwrap().parse().unwrap();
    let cable = sim.runtime().block_on(Cable::to(port));
    let mut bench = Bench::new(prefix);
    let through = format!("amqp://guest:guest@127.0.0.1:{}", cable.port());
    let worker = bench.worker(&work, &sim).env("AURELIA__QUEUE__URL", &through).spawn();
    bench.enqueue(&work, RUN, &super::support::corpus(jobs, 2));
    until("it works", || (sim.received() > 5 && worker.page("/readyz").0 == 200).then_some(()));
    cable.darken();
    let began = Instant::now();
    until("it is not ready", || (worker.page("/readyz").0 == 503).then_some(()));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(worker.page("/healthz").0, 200, "it is not to be restarted");
    std::thread::sleep(cut.saturating_sub(began.elapsed()));
    cable.mend();
    until("it is ready again", || (worker.page("/readyz").0 == 200).then_some(()));
    let (records, _) = bench.records(jobs);
    // Counted once the broker has confirmed a record, which may be seen before.
    let tries: usize = records.values().map(|message| message.record.tries.len()).sum();
    let accepted = records.values().filter(|message| message.record.status == Status::Accepted).count();
    until("tries are counted", || {
        let reached = |name: &str, least: usize| worker.metric(name) >= f64::from(u32::try_from(least).unwrap());
        (reached("aurelia_tries_scored_total", tries) && reached("aurelia_tries_accepted_total", accepted))
            .then_some(())
    });
    assert!(worker.metric("aurelia_reconnects_total") >= 1.0);
    // A job that was under way at the cut may have been done twice; what it had paid for was read.
    assert_eq!(sim.stats().repeats_of_answered, 0);
}

#[test]
fn a_worker_cut_from_its_broker_without_a_word_is_not_ready_and_comes_back_by_itself() {
    cut_off("fleet-cut", 60, Duration::from_secs(6));
}

#[test]
fn daemons_started_before_their_broker_redis_and_bucket_wait_and_go_on_when_these_come() {
    let (sim, work, s3) = (Sim::plain(), Workdir::new(), S3::start());
    let (mut broker, mut redis) = (Broker::own(), RedisServer::own("everysec"));
    let cable = sim.runtime().block_on(Cable::to(s3.endpoint().rsplit(':').next().unwrap().parse().unwrap()));
    s3.put("clips/0.mp4", &fs::read(clips::kept(Style::small(Content::Full, 0), 1)).unwrap());
    // Else there is no such bucket.
    s3.put("sets/empty", b"");
    let bench = Bench::over(&broker.url(), &redis.url(), "fleet-early");
    let item = |i| json!({"id": format!("i{i}"), "video": "s3://clips/0.mp4", "query": format!("What ({i})?")});
    let corpus = work.items("items.jsonl", &(0..5).map(item).collect::<Vec<_>>());
    let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
    producer.args(["--run", RUN, "--json"]).arg(&corpus).run().expect(0);
    // Queues that were just made could be lost with their broker.
    std::thread::sleep(Duration::from_secs(3));
    broker.kill();
    redis.kill();
    cable.darken();
    let through = format!("http://127.0.0.1:{}", cable.port());
    let daemon = |path| {
        let command = s3.told(bench.program(&work, &sim, path), "s3://clips/").env("AWS_ENDPOINT_URL", &through);
        let store = "[store]\noutage_seconds = 600\nfirst_byte_seconds = 2\n[collector]\nshard_idle_seconds = 1\n";
        command.config(store).env("AURELIA__COLLECTOR__OUTPUT", "s3://sets/all")
    };
    let worker = daemon(env!("CARGO_BIN_EXE_aurelia-worker")).spawn();
    let collector = daemon(env!("CARGO_BIN_EXE_aurelia-collector")).args(["--run", RUN, "--until-complete"]).spawn();
    for running in [&worker, &collector] {
        until("it is there and not ready", || (running.page("/readyz").0 == 503).then_some(()));
        assert_eq!(running.page("/healthz").0, 200);
    }
    broker.start();
    redis.start();
    until("nothing but its bucket is away", || {
        let (status, text) = collector.page("/readyz");
        let said: Value = serde_json::from_str(&text).ok()?;
        (status == 503 && said["missing"].as_object()?.keys().eq(["output"])).then_some(())
    });
    cable.mend();
    until("it is ready", || (worker.page("/readyz").0 == 200).then_some(()));
    let began = Instant::now();
    let mut collector = collector;
    while !collector.is_over() {
        assert!(began.elapsed() < PATIENCE, "{}\n{}", worker.stderr(), collector.stderr());
        std::thread::sleep(Duration::from_millis(50));
    }
    collector.wait().expect(0);
    let manifest = &s3.all("sets")["all/chaos/manifest.json"];
    let manifest: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!((&manifest["jobs"], &manifest["complete"]), (&json!(5), &json!(true)), "{manifest}");
    drop(worker);
}

#[test]
fn when_redis_was_flushed_a_worker_says_what_is_lost_and_the_producer_run_again_mends_it() {
    let mut redis = RedisServer::own("everysec");
    let (sim, work) = (Sim::slow(50), Workdir::with_clips(2));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), "fleet-flushed");
    let items: Vec<Value> = super::support::corpus(30, 2)
        .into_iter()
        .map(|mut item| {
            item["video"] = work.path(item["video"].as_str().unwrap()).display().to_string().into();
            item
        })
        .collect();
    let corpus = work.items("items.jsonl", &items);
    let produce = |bench: &Bench| {
        let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
        producer.args(["--run", RUN, "--json"]).arg(&corpus).run().expect(0);
    };
    produce(&bench);
    let worker = bench.worker(&work, &sim).spawn();
    until("it works", || (sim.received() > 20).then_some(()));
    assert_eq!(redis.say(&["FLUSHALL"]), "OK");
    until("it says what is lost", || worker.stderr().contains("the shared state was emptied").then_some(()));
    produce(&bench);
    let (records, _) = bench.records(30);
    assert_eq!(records.len(), 30);
    let info = bench.block_on(bench.fleet.runs.get(RUN)).unwrap().unwrap();
    assert_eq!((info.enqueued, info.sealed), (30, true));
    drop(worker);
    redis.kill();
}

/// Pausing, resuming and cancelling a run of so many jobs, each of which acts within 5 s.
pub(crate) fn control(prefix: &str, jobs: usize) -> String {
    let (sim, work, bench) = (Sim::slow(20), Workdir::with_clips(1), Bench::new(prefix));
    let clip = work.path("clips/0.mp4").display().to_string();
    let item = |i| json!({"id": format!("i{i}"), "video": clip, "query": format!("What ({i})?")});
    let corpus = work.items("items.jsonl", &(0..jobs).map(item).collect::<Vec<_>>());
    let began = Instant::now();
    let producer = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia-producer"));
    producer.args(["--run", RUN, "--json"]).arg(&corpus).run().expect(0);
    let enqueued = began.elapsed();
    let worker = bench.worker(&work, &sim).spawn();
    let operator = |command: &str| {
        let aurelia = bench.program(&work, &sim, env!("CARGO_BIN_EXE_aurelia"));
        aurelia.args([command, RUN]).run().expect(0);
    };
    let calls = || until("calls are made", || (sim.stats().in_flight > 0).then_some(()));
    let mut times = Vec::new();
    let mut within = |what: &str, done: &dyn Fn()| {
        let began = Instant::now();
        operator(what);
        done();
        assert!(began.elapsed() < Duration::from_secs(5), "{what} took {:?}", began.elapsed());
        times.push(format!("{what} {:.1} s", began.elapsed().as_secs_f64()));
    };
    calls();
    // Jobs under way end; then nothing is asked.
    let quiet = || {
        until("nothing is asked", || {
            let before = sim.received();
            std::thread::sleep(Duration::from_millis(500));
            (sim.received() == before).then_some(())
        });
    };
    within("pause", &quiet);
    within("resume", &calls);
    let queue = bench.fleet.topology.run(RUN).unwrap().name;
    within("cancel", &|| {
        let ready = bench.block_on(aurelia::queue::ready(&bench.fleet.outgoing, &queue)).unwrap();
        assert_eq!(ready, Some(0));
    });
    let info = bench.block_on(bench.fleet.runs.get(RUN)).unwrap().unwrap();
    assert!(info.purged > 0 && info.purged <= jobs as u64, "{info:?}");
    drop(worker);
    format!("{jobs} jobs enqueued in {:.1} s; {}", enqueued.as_secs_f64(), times.join(", "))
}

#[test]
fn a_run_is_paused_resumed_and_cancelled_within_five_seconds() {
    println!("{}", control("fleet-control", 10_000));
}
