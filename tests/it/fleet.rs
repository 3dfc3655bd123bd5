//! The whole fleet: producers, workers, a collector, and everything that can happen to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use aurelia::demo::clip::{Content, Style};
use aurelia::record::{Record, Status};
use aurelia::shared::jobs::UnderWay;
use aurelia::simulator::{Latency, Settings};
use serde_json::{Value, json};

use super::support::fleet::Bench;
use super::support::redis::RedisServer;
use super::support::s3::S3;
use super::support::{Aurelia, Broker, Cable, PATIENCE, Running, Sim, Workdir, clips};

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

/// The records of a data set, in the order of its manifest, which says that there are as many.
pub(crate) fn data_set(folder: &Path) -> (Value, Vec<Record>) {
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let mut records = Vec::new();
    for shard in manifest["shards"].as_array().unwrap() {
        let packed = fs::read(folder.join(shard["name"].as_str().unwrap())).unwrap();
        let text = String::from_utf8(zstd::stream::decode_all(packed.as_slice()).unwrap()).unwrap();
        let before = records.len();
        records.extend(text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap()));
        assert_eq!((records.len() - before) as u64, shard["rows"].as_u64().unwrap(), "{shard}");
    }
    (manifest, records)
}

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
    assert_eq!((manifest["sealed"].as_bool(), manifest["complete"].as_bool()), (Some(true), Some(true)), "{manifest}");
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
    format!(
        "{jobs} jobs over {WORKERS} workers, one record each: {happened:?} in {:.0} s, done after {:.0} s; {twice} requests \
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
