//! What the collector promises, as a child process against a real broker, Redis, directories and a server that speaks S3.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aurelia::collector::manifest::{Manifest, Part};
use aurelia::collector::retry;
use aurelia::collector::sink::Sink;
use aurelia::config::{Config, load};
use aurelia::job::{Again, Item, Job};
use aurelia::journal::key::Sample;
use aurelia::journal::{Canonical, Journal, Redirect};
use aurelia::message::{JobMessage, RecordMessage};
use aurelia::provider::Role;
use aurelia::queue::{DeadLetters, Intake, Link, Publisher, Settled, Topology, declare};
use aurelia::recipe::RecipeFile;
use aurelia::record::{ByTry, ErrorKind, FallbackFor, Record, RecordError, Status};
use aurelia::shared::Redis;
use aurelia::shared::claims::Claims;
use aurelia::shared::runs::{ItemMark, Lane, NewRun, Runs};
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::support::redis::RedisServer;
use super::support::s3::{ACCESS_KEY, S3, SECRET_KEY};
use super::support::{Aurelia, Broker, Running, Workdir, until};

/// A fleet without workers: records are published as workers would.
struct Bench {
    work: Workdir,
    prefix: String,
    redis_url: String,
    runtime: Runtime,
    topology: Topology,
    publisher: Publisher,
    link: Link,
    runs: Runs,
    redis: Redis,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self::with(RedisServer::shared())
    }

    fn with(redis_url: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("collector-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, topology) = (CancellationToken::new(), Topology::new(prefix.clone()));
        let link = runtime.block_on(async {
            let link = Link::open(Broker::shared().parse().unwrap(), "test", &TaskTracker::new(), stop.clone());
            declare(&link, &topology, &[]).await.unwrap();
            link
        });
        let redis = Redis::new(redis_url.parse().unwrap(), prefix.clone());
        let (publisher, runs) = (Publisher::new(link.clone()), Runs::new(redis.clone()));
        Self { work: Workdir::new(), prefix, redis_url, runtime, topology, publisher, link, runs, redis, stop }
    }

    fn collector(&self, config: &str) -> Aurelia<'_> {
        Aurelia::at(&self.work, "http://127.0.0.1:9")
            .program(env!("CARGO_BIN_EXE_aurelia-collector"))
            .config("[collector]\nshard_rows = 100\nshard_idle_seconds = 0.3\n[telemetry]\nlog = \"info\"\n")
            .config(config)
            .env("AURELIA__QUEUE__URL", &Broker::shared())
            .env("AURELIA__QUEUE__PREFIX", &self.prefix)
            .env("AURELIA__SHARED__URL", &self.redis_url)
            .env("AURELIA__SHARED__PREFIX", &self.prefix)
            .env("AURELIA__COLLECTOR__OUTPUT", self.out().to_str().unwrap())
    }

    fn out(&self) -> PathBuf {
        self.work.path("sets")
    }

    /// A run that is sealed with so many items.
    fn run(&self, name: &str, items: usize) {
        let recipe = RecipeFile::builtin().unwrap().with(Some(8), None).unwrap().resolve(|_| true);
        self.runtime.block_on(async {
            let new = NewRun { name, recipe: &recipe, lane: Lane::Normal, ceiling: None };
            self.runs.register(&new).await.unwrap();
            let marks: Vec<_> = (0..items).map(|n| ItemMark::new(&format!("item-{n}"), "content")).collect();
            for marks in marks.chunks(1000) {
                self.runs.confirm(name, marks).await.unwrap();
            }
            self.runs.seal(name, true).await.unwrap();
        });
    }

    fn publish(&self, messages: &[RecordMessage]) {
        let bodies =
            messages.iter().map(|message| (message.record.job_id.clone(), serde_json::to_vec(message).unwrap()));
        self.publish_raw(bodies.collect());
    }

    fn publish_raw(&self, bodies: Vec<(String, Vec<u8>)>) {
        self.runtime.block_on(async {
            let all = bodies.into_iter().map(|(id, body)| {
                let message = self.topology.record(id, body);
                async move { self.publisher.publish(&message).await.unwrap() }
            });
            futures_util::future::join_all(all).await;
        });
    }

    fn set(&self, run: &str) -> Option<Set> {
        let folder = self.out().join(run);
        let files = fs::read_dir(&folder).ok()?.map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        });
        Set::read(files.collect())
    }

    fn until(&self, run: &str, what: &str, is: impl Fn(&Manifest) -> bool) -> Set {
        until(what, || {
            let content = fs::read(self.out().join(run).join("manifest.json")).ok()?;
            is(&serde_json::from_slice(&content).unwrap()).then_some(())
        });
        self.set(run).unwrap()
    }

    /// Messages of a queue that nobody holds.
    fn ready(&self, queue: &str) -> u32 {
        self.runtime.block_on(async {
            let (_connection, channel) = plain().await;
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
        })
    }

    fn config(&self) -> Config {
        let output = ("AURELIA__COLLECTOR__OUTPUT".to_owned(), self.out().display().to_string());
        load(&[], &[output]).unwrap().config
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn plain() -> (Connection, Channel) {
    let connection = Connection::connect(&Broker::shared(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// A data set as a reader finds it.
struct Set {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl Set {
    fn read(files: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        Some(Self { manifest: serde_json::from_slice(files.get("manifest.json")?).unwrap(), files })
    }

    fn lines(&self, part: &Part) -> Vec<String> {
        let content = &self.files[&part.name];
        assert_eq!(
            (content.len() as u64, blake3::hash(content).to_hex().to_string()),
            (part.bytes, part.blake3.clone())
        );
        let text = String::from_utf8(zstd::decode_all(&content[..]).unwrap()).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len() as u64, part.rows, "{}", part.name);
        lines
    }

    fn records(&self) -> Vec<Record> {
        let lines = self.manifest.shards.iter().flat_map(|shard| self.lines(&shard.records));
        lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    /// Each of these jobs once, the manifest's counts theirs, and no file but what the manifest lists.
    #[track_caller]
    fn check(&self, messages: &[RecordMessage]) {
        let records = self.records();
        let ids: BTreeSet<&str> = records.iter().map(|record| record.job_id.as_str()).collect();
        assert_eq!(ids.len(), records.len(), "a job has two records");
        let expected: BTreeSet<&str> = messages.iter().map(|message| message.record.job_id.as_str()).collect();
        assert!(ids == expected, "{} of {} jobs have a record", ids.len(), expected.len());
        let mut latest: BTreeMap<&str, &Record> = BTreeMap::new();
        for record in &records {
            let known = latest.entry(&record.item_id).or_insert(record);
            if record.revision > known.revision {
                *known = record;
            }
        }
        let mut by_status: BTreeMap<Status, u64> = BTreeMap::new();
        for record in latest.values() {
            *by_status.entry(record.status).or_default() += 1;
        }
        let totals = &self.manifest.totals;
        assert_eq!(totals.by_status, by_status);
        assert_eq!((totals.jobs, totals.items), (records.len() as u64, latest.len() as u64));
        assert_eq!(totals.superseded, (records.len() - latest.len()) as u64);
        assert_eq!(totals.cost_nano_usd, records.iter().map(|record| record.cost_nano_usd).sum::<u64>());
        let mut tries = ByTry::default();
        for record in &records {
            tries.add(&record.by_try());
        }
        assert_eq!(totals.tries, tries);
        let mut listed = BTreeSet::from(["manifest.json", ".manifest.lock"]);
        for shard in &self.manifest.shards {
            let parts = [Some(&shard.records), Some(&shard.ids), shard.retry.as_ref(), shard.replies.as_ref()];
            listed.extend(parts.into_iter().flatten().map(|part| part.name.as_str()));
        }
        let strays: Vec<&String> = self.files.keys().filter(|name| !listed.contains(name.as_str())).collect();
        assert!(strays.is_empty(), "no manifest lists {strays:?}");
    }
}

fn job(run: &str, item: &str, revision: u32) -> Job {
    let line = json!({"id": item, "video": "file:///clip.mp4", "query": "Who speaks?"}).to_string();
    Job::new(run, revision, Item::from_line(&line).unwrap())
}

fn message(job: &Job, status: Status, change: impl FnOnce(&mut Record)) -> RecordMessage {
    let mut record: Record = serde_json::from_value(json!({
        "schema_version": 1, "run": job.run, "job_id": job.id(), "item_id": job.item_id, "revision": job.revision,
        "status": status, "query": "Who speaks?", "media": [], "best_try": null, "score": null, "threshold": 8,
        "reasoning_steps": [], "reasoning_answers": [], "final_answer": null, "caption": null, "tries": [],
        "usage": aurelia::provider::Usage::default(), "cost_nano_usd": 7, "recipe_digest": "digest", "error": null,
        "metadata": {"padding": "x".repeat(500)}, "worker": "w", "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    change(&mut record);
    RecordMessage::new(record, job)
}

fn accepted(run: &str, items: std::ops::Range<usize>) -> Vec<RecordMessage> {
    items.map(|n| message(&job(run, &format!("item-{n}"), 0), Status::Accepted, |_| {})).collect()
}

#[test]
fn records_that_come_twice_are_kept_once_and_a_complete_run_ends_it() {
    let bench = Bench::new();
    bench.run("r", 250);
    let messages = accepted("r", 0..250);
    bench.publish(&messages);
    bench.publish(&messages[50..]);
    let output = bench.collector("").args(["--run", "r", "--until-complete", "--json"]).run().expect(0);
    let shown = &output.json()["runs"]["r"];
    assert_eq!(
        (&shown["jobs"], &shown["complete"], &shown["by_status"]["accepted"]),
        (&json!(250), &json!(true), &json!(250))
    );
    let set = bench.set("r").unwrap();
    set.check(&messages);
    assert!(set.manifest.complete && set.manifest.sealed);
    assert_eq!((set.manifest.run.as_str(), set.manifest.recipe_digest.as_str()), ("r", "digest"));
    let written: BTreeSet<String> = set.manifest.shards.iter().flat_map(|shard| set.lines(&shard.records)).collect();
    let expected = messages.iter().map(|message| serde_json::to_string(&message.record).unwrap()).collect();
    assert_eq!(written, expected, "a record is not as the worker wrote it");
    let info = bench.runtime.block_on(bench.runs.get("r")).unwrap().unwrap();
    assert_eq!((info.collected.jobs, info.collected.complete), (250, true));
    // Also when nothing is left to come.
    bench.collector("").args(["--until-complete"]).run().expect(0);
    assert_eq!(bench.ready(&bench.topology.records().name), 0);
}

#[test]
fn a_dead_letter_whose_job_has_a_record_is_dropped_and_does_not_end_its_run_too_early() {
    let bench = Bench::new();
    bench.run("r", 4);
    let messages = accepted("r", 0..4);
    let job_of = |n: usize| job("r", &format!("item-{n}"), 0);
    bench.runtime.block_on(async {
        declare(&bench.link, &bench.topology, &["r"]).await.unwrap();
        let intake = Intake::new(bench.link.clone(), bench.publisher.clone(), bench.topology.clone());
        // One whose other delivery ended well, and one that nobody could work on.
        for job in [job_of(0), job_of(3)] {
            let body = JobMessage::new("digest".to_owned(), job.clone()).encode().unwrap();
            bench.publisher.publish(&bench.topology.job("r", job.id(), body)).await.unwrap();
            let taken = intake.take("r").await.unwrap().unwrap();
            taken.dead("poison", "it took its worker with it").await.unwrap();
            bench.runs.died(&job).await.unwrap();
        }
    });
    bench.publish(&messages[..2]);
    let collector = bench.collector("").args(["--run", "r", "--until-complete"]).spawn();
    // Two records and two dead letters, and yet a job is under way.
    bench.until("r", "two records are there", |manifest| manifest.totals.jobs == 2);
    let dead = || bench.runtime.block_on(bench.runs.get("r")).unwrap().unwrap().dead;
    until("one letter is dropped", || (dead() == 1).then_some(()));
    assert!(!bench.set("r").unwrap().manifest.complete);
    until("and is away", || (bench.ready(&bench.topology.dead().name) == 1).then_some(()));
    bench.publish(&messages[2..3]);
    collector.wait().expect(0);
    bench.set("r").unwrap().check(&messages[..3]);
    assert!(bench.set("r").unwrap().manifest.complete);
    assert_eq!((dead(), bench.ready(&bench.topology.dead().name)), (1, 1));
}

#[test]
fn a_dead_letter_that_somebody_looks_at_does_not_end_its_run_too_early() {
    let bench = Bench::new();
    bench.run("r", 2);
    let messages = accepted("r", 0..2);
    let twice = job("r", "item-0", 0);
    let look = bench.runtime.block_on(async {
        declare(&bench.link, &bench.topology, &["r"]).await.unwrap();
        let intake = Intake::new(bench.link.clone(), bench.publisher.clone(), bench.topology.clone());
        let body = JobMessage::new("digest".to_owned(), twice.clone()).encode().unwrap();
        bench.publisher.publish(&bench.topology.job("r", twice.id(), body)).await.unwrap();
        intake.take("r").await.unwrap().unwrap().dead("poison", "it took its worker with it").await.unwrap();
        bench.runs.died(&twice).await.unwrap();
        let look = DeadLetters::open(&bench.link, &bench.topology).await.unwrap();
        assert!(look.next().await.unwrap().is_some() && look.next().await.unwrap().is_none());
        look
    });
    bench.publish(&messages[..1]);
    let collector = bench.collector("").args(["--run", "r", "--until-complete"]).spawn();
    // A record and a dead letter, and yet a job is under way.
    bench.until("r", "its record is there", |manifest| manifest.totals.jobs == 1);
    let info = || bench.runtime.block_on(bench.runs.get("r")).unwrap().unwrap();
    until("it counts as dead no more", || (info().dead == 0).then_some(()));
    assert!(!info().collected.complete && !bench.set("r").unwrap().manifest.complete);
    bench.publish(&messages[1..]);
    collector.wait().expect(0);
    bench.set("r").unwrap().check(&messages);
    bench.runtime.block_on(look.close()).unwrap();
}

#[test]
fn a_run_that_is_opened_again_counts_no_dead_letter_of_a_job_that_has_a_record() {
    let bench = Bench::new();
    bench.run("r", 1);
    bench.publish(&accepted("r", 0..1));
    bench.collector("").args(["--run", "r", "--until-complete"]).run().expect(0);
    let info = || bench.runtime.block_on(bench.runs.get("r")).unwrap().unwrap();
    assert!(info().collected.complete);
    // As where somebody drops the letter of another delivery of it; its item is done again then.
    bench.runtime.block_on(async {
        bench.runs.died(&job("r", "item-0", 0)).await.unwrap();
        bench.runs.retry("r", &[("item-0", 1)]).await.unwrap();
    });
    let collector = bench.collector("").spawn();
    until("it counts as dead no more", || (info().dead == 0).then_some(()));
    bench.until("r", "it is not complete", |manifest| !manifest.complete);
    assert!(!info().collected.complete, "workers would leave its job alone");
    collector.signal(Signal::TERM);
    collector.wait().expect(0);
}

#[test]
fn a_collector_that_is_killed_again_and_again_keeps_every_record_once() {
    let bench = Bench::new();
    bench.run("r", 2000);
    let messages = accepted("r", 0..2000);
    let rows = "[collector]\nshard_rows = 37\n";
    let (publisher, topology, slowly) = (bench.publisher.clone(), bench.topology.clone(), messages.clone());
    let publishing = bench.runtime.spawn(async move {
        for message in &slowly {
            let message = topology.record(message.record.job_id.clone(), serde_json::to_vec(message).unwrap());
            publisher.publish(&message).await.unwrap();
        }
    });
    for n in 0..8_u64 {
        let written = bench.set("r").map_or(0, |set| set.manifest.totals.jobs);
        let running = bench.collector(rows).spawn();
        bench.until("r", "it writes", |manifest| manifest.totals.jobs > written || written == 2000);
        std::thread::sleep(Duration::from_millis(n * 37 % 90));
        running.kill();
    }
    bench.runtime.block_on(publishing).unwrap();
    bench.collector(rows).args(["--run", "r", "--until-complete"]).run().expect(0);
    bench.set("r").unwrap().check(&messages);
}

#[test]
fn a_second_collector_takes_over_from_one_that_is_killed() {
    let bench = Bench::new();
    bench.run("r", 1000);
    let messages = accepted("r", 0..1000);
    bench.publish(&messages[..500]);
    let first = bench.collector("[collector]\nshard_rows = 50\n").spawn();
    bench.until("r", "the first one writes", |manifest| manifest.totals.jobs > 0);
    let second = bench.collector("[collector]\nshard_rows = 50\n").args(["--run", "r", "--until-complete"]).spawn();
    until("the second one is connected", || second.stderr().contains("connected").then_some(()));
    bench.publish(&messages[500..700]);
    first.kill();
    bench.publish(&messages[700..]);
    second.wait().expect(0);
    bench.set("r").unwrap().check(&messages);
}

#[test]
fn a_shard_that_no_manifest_lists_is_taken_over_and_a_torn_one_is_removed() {
    let bench = Bench::new();
    let messages = accepted("r", 0..30);
    bench.publish(&messages[..10]);
    let run = |rows: u64| {
        let running = bench.collector("").spawn();
        bench.until("r", "it is written", |manifest| manifest.totals.jobs == rows);
        until("it is acknowledged", || (bench.ready(&bench.topology.records().name) == 0).then_some(()));
        running.signal(Signal::TERM);
        running.wait().expect(0);
    };
    run(10);
    let folder = bench.out().join("r");
    let lines = |messages: &[RecordMessage]| -> String {
        messages.iter().map(|message| serde_json::to_string(&message.record).unwrap() + "\n").collect()
    };
    let whole = zstd::encode_all(lines(&messages[5..20]).as_bytes(), 3).unwrap();
    fs::write(folder.join("records-00007.jsonl.zst"), &whole).unwrap();
    fs::write(folder.join("records-00008.jsonl.zst"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("ids-00009.bin"), b"rest").unwrap();
    fs::write(folder.join(".x.tmp"), b"torn").unwrap();
    bench.publish(&messages[20..]);
    run(30);
    bench.set("r").unwrap().check(&messages);
}

#[test]
fn the_latest_revision_counts_and_what_failed_can_be_asked_for_again() {
    let bench = Bench::new();
    let failed = |kind| {
        move |record: &mut Record| {
            record.error = Some(RecordError { kind, message: "m".to_owned(), role: None, try_index: None });
        }
    };
    let again = Job { again: Again { tries: 1, asks: 0 }, ..job("r", "twice", 1) };
    let first = [
        message(&job("r", "good", 0), Status::Accepted, |_| {}),
        message(&job("r", "absent", 0), Status::Failed, failed(ErrorKind::NotFound)),
        message(&job("r", "garbled", 0), Status::Failed, failed(ErrorKind::Unparsable)),
        message(&job("r", "mended", 0), Status::Failed, failed(ErrorKind::NotFound)),
        message(&job("r", "twice", 0), Status::Exhausted, |_| {}),
    ];
    let second =
        [message(&job("r", "mended", 1), Status::Accepted, |_| {}), message(&again, Status::Exhausted, |_| {})];
    let running = bench.collector("").spawn();
    bench.publish(&first);
    bench.until("r", "the first are written", |manifest| manifest.totals.jobs == 5);
    bench.publish(&second);
    let set = bench.until("r", "the second are written", |manifest| manifest.totals.jobs == 7);
    running.signal(Signal::TERM);
    running.wait().expect(0);
    set.check(&[&first[..], &second[..]].concat());
    let config = bench.config();
    let jobs = |statuses: &[Status]| {
        let statuses = statuses.iter().copied().collect();
        let jobs = bench.runtime.block_on(retry::jobs(&config, "r", &statuses)).unwrap();
        let mut jobs: Vec<_> = jobs.into_iter().map(|job| (job.item_id, job.revision, job.again)).collect();
        jobs.sort_by(|a, b| a.0.cmp(&b.0));
        jobs
    };
    let (none, asks, tries) = (Again::default(), Again { tries: 0, asks: 1 }, Again { tries: 2, asks: 0 });
    let named = |name: &str, revision, again| (name.to_owned(), revision, again);
    assert_eq!(jobs(&[Status::Failed]), [named("absent", 1, none), named("garbled", 1, asks)]);
    assert_eq!(jobs(&[Status::Exhausted]), [named("twice", 2, tries)]);
    assert_eq!(jobs(&[Status::Accepted]), []);
}

#[test]
fn what_is_no_record_is_a_dead_letter_and_holds_up_nothing() {
    let bench = Bench::new();
    bench.run("r", 3);
    let messages = accepted("r", 0..3);
    let mut newer = serde_json::to_value(&messages[0]).unwrap();
    newer["version"] = 99.into();
    let mut away = serde_json::to_value(&messages[0]).unwrap();
    away["record"]["run"] = "../../away".into();
    bench.publish(&messages[..1]);
    let bad = [
        ("a", b"\xff{".to_vec()),
        ("b", b"{}".to_vec()),
        ("c", newer.to_string().into()),
        ("d", away.to_string().into()),
    ];
    bench.publish_raw(bad.map(|(id, body)| (id.to_owned(), body)).into());
    bench.publish(&messages[1..]);
    bench.collector("").args(["--run", "r", "--until-complete"]).run().expect(0);
    bench.set("r").unwrap().check(&messages);
    let reasons: BTreeMap<String, String> = bench.runtime.block_on(async {
        let (_connection, channel) = plain().await;
        let dead = bench.topology.dead().name;
        let mut reasons = BTreeMap::new();
        while let Some(got) = channel.basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() {
            let id = got.properties.message_id().as_ref().unwrap().as_str().to_owned();
            let headers = got.properties.headers().clone().unwrap();
            let Some(AMQPValue::LongString(reason)) = headers.inner().get("aurelia-reason") else {
                panic!("{headers:?}")
            };
            reasons.insert(id, String::from_utf8(reason.as_bytes().to_vec()).unwrap());
        }
        reasons
    });
    let expected = [("a", "not_json"), ("b", "not_a_record"), ("c", "newer"), ("d", "bad_run")];
    assert_eq!(reasons, expected.map(|(id, reason)| (id.to_owned(), reason.to_owned())).into());
    assert_eq!(bench.ready(&bench.topology.records().name), 0);
    // Sent back, it is a record again, for a collector that can read it.
    bench.publish_raw(vec![("c".to_owned(), newer.to_string().into())]);
    let collector = bench.collector("").spawn();
    until("it is dead again", || (bench.ready(&bench.topology.dead().name) == 1).then_some(()));
    collector.signal(Signal::TERM);
    collector.wait().expect(0);
    assert_eq!(bench.ready(&bench.topology.records().name), 0);
    bench.runtime.block_on(async {
        let letters = DeadLetters::open(&bench.link, &bench.topology).await.unwrap();
        let held = letters.next().await.unwrap().unwrap();
        assert_eq!(letters.requeue(held, &bench.publisher).await.unwrap(), Settled::Told);
        letters.close().await.unwrap();
    });
    until("it is back", || (bench.ready(&bench.topology.records().name) > 0).then_some(()));
}

/// A record that rests on these replies.
fn resting_on(item: &str, keys: &[&str]) -> RecordMessage {
    let calls: Vec<Value> = keys
        .iter()
        .map(|key| {
            json!({"role": "generator", "ask": 0, "outcome": "used", "provider": "p", "model": "m", "model_version": null,
                   "key": key, "cached": false, "attempts": 1, "finish_reason": "stop",
                   "usage": aurelia::provider::Usage::default(), "cost_nano_usd": 1, "latency_ms": 1})
        })
        .collect();
    let one = json!({"index": 1, "reasoning_steps": [], "reasoning_answers": [], "final_answer": null, "caption": null,
        "score": null, "critique": null, "leak": null, "answer_match": null, "calls": calls});
    message(&job("r", item, 0), Status::Accepted, |record| record.tries = vec![serde_json::from_value(one).unwrap()])
}

#[test]
fn the_replies_of_a_shard_lie_beside_it_also_when_redis_was_down_for_a_while() {
    let mut server = RedisServer::own("always");
    let bench = Bench::with(server.url());
    let keys = ["a", "b", "c"].map(|c| c.repeat(64));
    let place = |key: &str| bench.redis.key(key, "r");
    for key in &keys[..2] {
        let value =
            zstd::encode_all(json!({"text": format!("reply {}", &key[..1])}).to_string().as_bytes(), 3).unwrap();
        let set = redis::cmd("SET").arg(place(key)).arg(value).to_owned();
        bench.runtime.block_on(bench.redis.command::<()>(&set)).unwrap();
    }
    bench.run("r", 2);
    let running = bench.collector("[shared]\nkeep = 1000\n").spawn();
    bench.publish(&[resting_on("item-0", &[&keys[0], &keys[2]])]);
    let set = bench.until("r", "the first is written", |manifest| manifest.totals.jobs == 1);
    assert_eq!(set.manifest.totals.replies_missing, 1);
    let replies = set.lines(set.manifest.shards[0].replies.as_ref().unwrap());
    assert_eq!(replies, [format!(r#"{{"key":"{}","reply":{{"text":"reply a"}}}}"#, keys[0])]);
    until("the journal is told how long to keep it", || {
        let left: i64 = server.say(&["TTL", &place(&keys[0])]).parse().unwrap();
        (900..=1000).contains(&left).then_some(())
    });
    server.kill();
    bench.publish(&[resting_on("item-1", &[&keys[1]])]);
    let set = bench.until("r", "the second is written without Redis", |manifest| manifest.totals.jobs == 2);
    assert!(set.manifest.shards[1].replies.is_none() && !set.manifest.complete);
    server.start();
    let set = bench
        .until("r", "its replies are packed", |manifest| manifest.complete && manifest.shards[1].replies.is_some());
    let replies = set.lines(set.manifest.shards[1].replies.as_ref().unwrap());
    assert_eq!(replies, [format!(r#"{{"key":"{}","reply":{{"text":"reply b"}}}}"#, keys[1])]);
    running.signal(Signal::TERM);
    running.wait().expect(0);
}

#[test]
fn a_redirect_lies_beside_the_reply_that_it_leads_to() {
    let bench = Bench::new();
    let canonical = |model| Canonical::new("i", model, Role::Generator, "item", Sample { item: 0, try_index: 1 });
    let redirect = Redirect::new(&canonical("own"), &canonical("other"), "p");
    let claims = bench.runtime.block_on(async { Claims::new(bench.redis.clone()) });
    let journal = Journal::shared(bench.redis.clone(), claims);
    assert!(bench.runtime.block_on(journal.redirect(&redirect)).unwrap());
    let (from, to) = (redirect.from.to_string(), redirect.to.to_string());
    bench.run("r", 1);
    let running = bench.collector("").spawn();
    let mut record = resting_on("item-0", &[&to]);
    let own = FallbackFor { provider: "q".to_owned(), model: "own".to_owned(), key: from.clone() };
    record.record.tries[0].calls[0].fallback_for = Some(own);
    bench.publish(&[record]);
    let set = bench.until("r", "it is written", |manifest| manifest.complete);
    let replies = set.lines(set.manifest.shards[0].replies.as_ref().unwrap());
    let wanted = json!({"key": format!("{from}:{to}"), "reply": redirect});
    assert_eq!(replies.iter().map(|line| line.parse::<Value>().unwrap()).collect::<Vec<_>>(), [wanted]);
    running.signal(Signal::TERM);
    running.wait().expect(0);
}

fn told<'a>(s3: &S3, collector: Aurelia<'a>) -> Aurelia<'a> {
    collector
        .env("AURELIA__COLLECTOR__OUTPUT", "s3://sets/deep/down")
        .env("AWS_ENDPOINT_URL", &s3.endpoint())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .secret("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
}

fn set_in(s3: &S3, run: &str) -> Option<Set> {
    let folder = format!("deep/down/{run}/");
    let below = s3
        .all("sets")
        .into_iter()
        .filter_map(|(key, content)| Some((key.strip_prefix(&folder)?.to_owned(), content.to_vec())));
    Set::read(below.collect())
}

#[test]
fn a_data_set_in_a_bucket_survives_kills_and_an_outage_of_the_bucket() {
    let (bench, s3) = (Bench::new(), S3::start());
    s3.put("sets/other", b"");
    bench.run("r", 600);
    let messages = accepted("r", 0..600);
    let collector = || told(&s3, bench.collector("[collector]\nshard_rows = 40\n"));
    let jobs = || set_in(&s3, "r").map_or(0, |set| set.manifest.totals.jobs);
    bench.publish(&messages[..300]);
    for n in 0..3_u64 {
        let running = collector().spawn();
        let before = jobs();
        until("it writes", || (jobs() > before || before == 300).then_some(()));
        std::thread::sleep(Duration::from_millis(n * 13));
        running.kill();
    }
    s3.set_away(true);
    let running: Running<'_> = collector().args(["--run", "r", "--until-complete"]).spawn();
    bench.publish(&messages[300..]);
    until("it says what is away", || running.stderr().contains("SlowDown").then_some(()));
    s3.set_away(false);
    running.wait().expect(0);
    set_in(&s3, "r").unwrap().check(&messages);
}

#[test]
fn an_output_that_cannot_be_written_is_waited_for() {
    let bench = Bench::new();
    bench.run("r", 5);
    let messages = accepted("r", 0..5);
    // Where a file is, no folder can be made.
    fs::write(bench.out(), b"in the way").unwrap();
    bench.publish(&messages);
    let running = bench.collector("").args(["--run", "r", "--until-complete"]).spawn();
    until("it says what is wrong", || running.stderr().contains("records cannot be written").then_some(()));
    fs::remove_file(bench.out()).unwrap();
    running.wait().expect(0);
    bench.set("r").unwrap().check(&messages);
}

/// What both kinds of sink promise.
async fn sink_contract(sink: Sink, other: Sink) {
    assert_eq!(sink.manifest("r").await.unwrap(), None);
    assert_eq!(sink.list("r").await.unwrap(), Vec::<String>::new());
    assert_eq!(sink.read("r", "a").await.unwrap(), None);
    sink.remove("r", "a").await.unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        assert!(sink.create("r", name, name.into()).await.unwrap());
        assert!(!other.create("r", name, "other".into()).await.unwrap(), "{name} is created twice");
    }
    assert_eq!(other.read("r", "a").await.unwrap().unwrap(), "a", "what lost has written over it");
    sink.remove("r", "e").await.unwrap();
    let mut names = other.list("r").await.unwrap();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!(sink.list("another").await.unwrap(), Vec::<String>::new());
    let first = sink.swap("r", None, "one".into()).await.unwrap().unwrap();
    assert_eq!(other.swap("r", None, "two".into()).await.unwrap(), None, "there is one already");
    let (content, known) = other.manifest("r").await.unwrap().unwrap();
    assert_eq!((content.as_ref(), &known), (b"one".as_ref(), &first));
    let second = other.swap("r", Some(&known), "two".into()).await.unwrap().unwrap();
    assert_eq!(sink.swap("r", Some(&first), "three".into()).await.unwrap(), None, "it was replaced meanwhile");
    assert!(sink.swap("r", Some(&second), "three".into()).await.unwrap().is_some());
    // Of many who replace one manifest at once, one does.
    let (_, known) = sink.manifest("r").await.unwrap().unwrap();
    let swaps = (0..10).map(|n| {
        let (sink, known) = (if n % 2 == 0 { &sink } else { &other }, &known);
        async move { sink.swap("r", Some(known), format!("of {n}").into()).await.unwrap().is_some() }
    });
    let won = futures_util::future::join_all(swaps).await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract_of_sinks() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("sets").display().to_string();
    let config = load(&[], &[("AURELIA__COLLECTOR__OUTPUT".to_owned(), output)]).unwrap().config;
    sink_contract(Sink::open(&config).await.unwrap(), Sink::open(&config).await.unwrap()).await;
}

#[test]
fn a_bucket_keeps_the_contract_of_sinks() {
    use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
    let s3 = S3::start();
    s3.put("sets/other", b"");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(s3.endpoint())
        .force_path_style(true)
        .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let sink = || Sink::bucket(aws_sdk_s3::Client::from_conf(config.clone()), "sets", "/deep/");
    Runtime::new().unwrap().block_on(sink_contract(sink(), sink()));
}

#[test]
fn two_collectors_at_one_data_set_keep_every_record_once() {
    let bench = Bench::new();
    bench.run("r", 900);
    // As a collector is that was cut off from its broker, and writes what it still holds: here each has a broker's queue of its own.
    let other = Bench::new();
    other.run("r", 900);
    let messages = accepted("r", 0..900);
    let rows = "[collector]\nshard_rows = 20\n";
    bench.publish(&messages[..600]);
    other.publish(&messages[300..]);
    let out = bench.out().display().to_string();
    let both = [
        bench.collector(rows).args(["--run", "r", "--until-complete"]).spawn(),
        other.collector(rows).env("AURELIA__COLLECTOR__OUTPUT", &out).args(["--run", "r", "--until-complete"]).spawn(),
    ];
    let said = both.map(|running| running.wait().expect(0).stderr);
    assert!(said.iter().any(|said| said.contains("another collector wrote the manifest")), "they never met");
    // What lost a number may have left files of it, until the next start.
    let mut set = bench.set("r").unwrap();
    let listed: BTreeSet<String> = set.manifest.shards.iter().map(|shard| shard.records.name.clone()).collect();
    set.files.retain(|name, _| {
        !name.contains("-0") || listed.iter().any(|shard| shard[7..13] == name[name.find("-0").unwrap()..][..6])
    });
    set.check(&messages);
}

#[test]
fn it_tells_what_it_collected_and_is_ready_only_while_its_output_can_be_written() {
    let bench = Bench::new();
    bench.run("r", 10);
    // A file is where the folder of data sets should be.
    fs::write(bench.out(), "").unwrap();
    let running = bench.collector("").spawn();
    let ready = |wanted: u16, missing: Value| {
        until("it is ready or not", || {
            let (status, body) = running.page("/readyz");
            let told: Value = serde_json::from_str(&body).unwrap();
            let names: Vec<&String> = told["missing"].as_object().unwrap().keys().collect();
            (status == wanted && json!(names) == missing).then_some(body)
        })
    };
    println!("{}", ready(503, json!(["output"])));
    assert_eq!(running.page("/healthz").0, 200);
    fs::remove_file(bench.out()).unwrap();
    ready(200, json!([]));
    let messages = accepted("r", 0..10);
    bench.publish(&messages);
    bench.until("r", "the first are written", |manifest| manifest.totals.jobs == 10);
    bench.publish(&messages[..4]);
    bench.publish_raw(vec![("x".to_owned(), b"{".to_vec())]);
    let metrics = until("all is counted", || {
        let metrics = running.page("/metrics").1;
        let all = ["collected_duplicates_total 4", "collected_dead_total 1"];
        all.iter().all(|line| metrics.contains(&format!("aurelia_{line}\n"))).then_some(metrics)
    });
    running.signal(Signal::TERM);
    running.wait().expect(0);
    let set = bench.set("r").unwrap();
    set.check(&messages);
    let is_shard = |name: &str| name != "manifest.json" && name != ".manifest.lock";
    let bytes: usize = set.files.iter().filter(|(name, _)| is_shard(name)).map(|(_, content)| content.len()).sum();
    for line in [
        "collected_records_total{status=\"accepted\"} 10".to_owned(),
        format!("collected_shards_total {}", set.manifest.shards.len()),
        format!("collected_shard_bytes_total {bytes}"),
        "collected_manifest_conflicts_total 0".to_owned(),
        "ready 1".to_owned(),
    ] {
        assert!(metrics.contains(&format!("aurelia_{line}\n")), "{line} is not in\n{metrics}");
    }
}
