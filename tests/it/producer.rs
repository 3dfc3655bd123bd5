//! What `aurelia-producer` promises, as a child process against a real broker and a real Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aurelia::message::JobMessage;
use aurelia::queue::Topology;
use aurelia::shared::Redis;
use aurelia::shared::runs::{Lane, RunInfo, Runs};
use lapin::options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::support::redis::RedisServer;
use super::support::s3::S3;
use super::support::{Aurelia, Broker, Output, Running, Workdir, until};

const RUN: &str = "spring";

/// A fleet under a prefix of its own, without workers.
struct Bench {
    work: Workdir,
    prefix: &'static str,
    redis: String,
    runtime: Runtime,
    channel: Channel,
    connection: Connection,
}

impl Bench {
    fn new(prefix: &'static str) -> Self {
        Self::with(prefix, RedisServer::shared())
    }

    fn with(prefix: &'static str, redis: String) -> Self {
        let runtime = Runtime::new().unwrap();
        let url = Broker::shared();
        let connect = Connection::connect(&url, ConnectionProperties::default());
        let connection = runtime.block_on(connect).unwrap();
        let channel = runtime.block_on(connection.create_channel()).unwrap();
        Self { work: Workdir::new(), prefix, redis, runtime, channel, connection }
    }

    fn producer(&self) -> Aurelia<'_> {
        Aurelia::bare(&self.work, env!("CARGO_BIN_EXE_aurelia-producer"))
            .env("AURELIA__QUEUE__URL", &Broker::shared())
            .env("AURELIA__QUEUE__PREFIX", self.prefix)
            .env("AURELIA__SHARED__URL", &self.redis)
            .env("AURELIA__SHARED__PREFIX", self.prefix)
            .args(["--run", RUN, "--json"])
    }

    /// Enqueues a corpus to its end.
    #[track_caller]
    fn enqueue(&self, corpus: &Path) -> Value {
        self.producer().arg(corpus).run().expect(0).json()
    }

    /// A corpus of `n` items, `item-0` on.
    fn corpus(&self, name: &str, n: usize) -> std::path::PathBuf {
        let mut text = String::new();
        for i in 0..n {
            writeln!(text, "{}", item(&format!("item-{i}"))).unwrap();
        }
        self.work.write(name, text)
    }

    fn runs(&self) -> Runs {
        Runs::new(Redis::new(self.redis.parse().unwrap(), self.prefix))
    }

    fn info(&self) -> Option<RunInfo> {
        self.runtime.block_on(self.runs().get(RUN)).unwrap()
    }

    fn enqueued(&self) -> u64 {
        self.info().map_or(0, |info| info.enqueued)
    }

    fn queue(&self) -> String {
        Topology::new(self.prefix).run(RUN).unwrap().name
    }

    /// Messages that are ready; none: no queue.
    fn ready(&self) -> Option<u32> {
        let channel = self.runtime.block_on(self.connection.create_channel()).unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = channel.queue_declare(self.queue().into(), options, FieldTable::default());
        self.runtime.block_on(asked).ok().map(|queue| queue.message_count())
    }

    fn delete_queue(&self) {
        let delete = self.channel.queue_delete(self.queue().into(), QueueDeleteOptions::default());
        self.runtime.block_on(delete).unwrap();
    }

    /// Takes so many messages off the queue, or all that are there.
    fn take(&self, most: usize) -> Vec<JobMessage> {
        let options = BasicGetOptions { no_ack: true };
        let mut all = Vec::new();
        while all.len() < most {
            let got = self.runtime.block_on(self.channel.basic_get(self.queue().into(), options)).unwrap();
            let Some(got) = got else { break };
            let message = JobMessage::decode(&got.delivery.data).unwrap();
            let id = got.delivery.properties.message_id().clone().unwrap();
            assert_eq!(id.as_str(), message.job.id(), "the message is known by its job");
            all.push(message);
        }
        all
    }

    fn drain(&self) -> Vec<JobMessage> {
        self.take(usize::MAX)
    }

    /// The queue has each of `n` items of [`Bench::corpus`], and how many messages that were.
    #[track_caller]
    fn has_each_of(&self, n: usize) -> usize {
        let drained = self.drain();
        let found: BTreeSet<String> = drained.iter().map(|message| message.job.item_id.clone()).collect();
        let wanted: BTreeSet<String> = (0..n).map(|i| format!("item-{i}")).collect();
        let missing: Vec<_> = wanted.difference(&found).take(5).collect();
        assert!(missing.is_empty() && found.len() == n, "{} of {n}, without {missing:?}", found.len());
        drained.len()
    }
}

fn item(id: &str) -> Value {
    json!({"id": id, "video": "s3://clips/a.mp4", "query": format!("Who is it ({id})?")})
}

#[track_caller]
fn counts(summary: &Value, wanted: [(&str, u64); 4]) {
    for (name, count) in wanted {
        assert_eq!(summary[name], count, "{name} of {summary}");
    }
}

/// Waits until it has enqueued this many, and not all.
fn enqueued(bench: &Bench, running: &mut Running<'_>, least: u64) {
    until("some is enqueued", || {
        let enough = bench.enqueued() >= least;
        assert!(enough || !running.is_over(), "it ended too soon: {}", running.stderr());
        enough.then_some(())
    });
}

#[test]
fn each_format_becomes_the_same_jobs_and_a_second_time_adds_nothing() {
    let bench = Bench::new("prod-formats");
    let lines = [
        json!({"id": "l1", "video": "clips/a.mp4", "query": "Who?", "answer": ["x", "y"], "choices": ["x", "z"], "sample": 2,
               "metadata": {"n": 1}}),
        json!({"id": "l2", "media": [{"name": "v", "kind": "video", "uri": "s3://b/k.mp4"}], "query": "What?"}),
    ];
    let jsonl = bench.work.items("items.jsonl", &lines);
    let csv = bench.work.write(
        "items.csv",
        "\u{feff}id,video,media,query,answer,choices,sample,metadata\r\n\
         c1,clips/a.mp4,,\"Who,\nthen?\",\"[\"\"x\"\",\"\"y\"\"]\",\"[\"\"x\"\",\"\"z\"\"]\",2,\"{\"\"n\"\":1}\"\r\n\
         c2,,\"[{\"\"name\"\":\"\"v\"\",\"\"kind\"\":\"\"video\"\",\"\"uri\"\":\"\"s3://b/k.mp4\"\"}]\",What?,,,,\r\n",
    );
    let parquet = bench.work.path("items.parquet");
    parquet_file(&parquet, 3, 4);
    let all = || bench.producer().args(["--budget-usd", "200"]).arg(&jsonl).arg(&csv).arg(&parquet);
    let summary = all().run().expect(0).json();
    counts(&summary, [("enqueued", 16), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
    assert_eq!((&summary["run"], &summary["sealed"]), (&json!(RUN), &json!(true)));
    let jobs: BTreeMap<String, JobMessage> =
        bench.drain().into_iter().map(|message| (message.job.item_id.clone(), message)).collect();
    assert_eq!(jobs.len(), 16);
    for (one, other) in [("l1", "c1"), ("l2", "c2")] {
        let (one, other) = (&jobs[one].job.item, &jobs[other].job.item);
        assert_eq!((&one.media, &one.answers, &one.choices), (&other.media, &other.answers, &other.choices));
        assert_eq!((one.sample, &one.metadata), (other.sample, &other.metadata));
    }
    assert_eq!(jobs["c1"].job.item.query, "Who,\nthen?");
    let row = &jobs["p7"].job.item;
    assert_eq!((row.query.as_str(), row.sample), ("Row 7?", 7));
    assert_eq!(row.choices.as_deref().unwrap(), ["x7", "y"]);
    assert_eq!(Path::new(row.media[0].location()), bench.work.path("clips/7.mp4"));
    let info = bench.info().unwrap();
    assert_eq!((info.enqueued, info.sealed, info.lane), (16, true, Lane::Normal));
    assert_eq!(info.ceiling.map(|ceiling| ceiling.0), Some(200_000_000_000));
    assert!(jobs.values().all(|message| message.recipe == info.recipe));

    // By the offsets, and without them.
    counts(&all().run().expect(0).json(), [("enqueued", 0), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
    let again = all().arg("--from-start").run().expect(0).json();
    counts(&again, [("enqueued", 0), ("already", 16), ("duplicates", 0), ("rejected", 0)]);
    assert_eq!((bench.drain().len(), bench.enqueued()), (0, 16));
}

/// `groups` row groups of `rows` rows, `p0` on: texts, a number, and a list.
fn parquet_file(path: &Path, groups: usize, rows: usize) {
    let schema = "message items { required binary id (UTF8); required binary video (UTF8); required binary query (UTF8);
        optional int32 sample; optional group choices (LIST) { repeated group list { required binary element (UTF8); } } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
    for group in 0..groups {
        let numbers: Vec<usize> = (group * rows..(group + 1) * rows).collect();
        let texts = |text: &dyn Fn(usize) -> String| -> Vec<ByteArray> {
            numbers.iter().map(|n| ByteArray::from(text(*n).into_bytes())).collect()
        };
        let columns =
            [texts(&|n| format!("p{n}")), texts(&|n| format!("clips/{n}.mp4")), texts(&|n| format!("Row {n}?"))];
        let mut columns = columns.into_iter();
        let mut row_group = writer.next_row_group().unwrap();
        let mut list = false;
        while let Some(mut column) = row_group.next_column().unwrap() {
            match column.untyped() {
                ColumnWriter::Int32ColumnWriter(writer) => {
                    let values: Vec<i32> = numbers.iter().map(|n| i32::try_from(*n).unwrap()).collect();
                    writer.write_batch(&values, Some(&vec![1; rows]), None).unwrap();
                    list = true;
                }
                ColumnWriter::ByteArrayColumnWriter(writer) if list => {
                    let pair =
                        |n: &usize| [format!("x{n}"), "y".to_owned()].map(|text| ByteArray::from(text.into_bytes()));
                    let values: Vec<ByteArray> = numbers.iter().flat_map(pair).collect();
                    let repeated: Vec<i16> = numbers.iter().flat_map(|_| [0, 1]).collect();
                    writer.write_batch(&values, Some(&vec![2; 2 * rows]), Some(&repeated)).unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(writer) => {
                    writer.write_batch(&columns.next().unwrap(), None, None).unwrap();
                }
                _ => panic!("no such column"),
            }
            column.close().unwrap();
        }
        row_group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn a_killed_producer_goes_on_where_it_was() {
    let bench = Bench::new("prod-killed");
    let corpus = bench.corpus("items.jsonl", 30_000);
    for least in [1, 6_000, 14_000] {
        let mut running = bench.producer().arg(&corpus).spawn();
        enqueued(&bench, &mut running, least);
        assert_eq!(running.kill().code, None);
        assert!(!bench.info().unwrap().sealed);
    }
    let before = bench.enqueued();
    let summary = bench.enqueue(&corpus);
    assert!(before < 30_000, "the kills came too late to show anything");
    assert!(summary["already"].as_u64().unwrap() < before, "it did not read all of it again: {summary}");
    assert_eq!(bench.enqueued(), 30_000);
    assert!(bench.info().unwrap().sealed);
    let messages = bench.has_each_of(30_000);
    println!("{messages} messages for 30000 jobs after 3 kills");
}

#[test]
fn two_producers_at_once_of_which_one_is_killed_lose_and_double_nothing() {
    let bench = Bench::new("prod-two");
    let corpus = bench.corpus("items.jsonl", 20_000);
    let state = |name: &str| bench.work.path(name);
    let mut one = bench.producer().arg(&corpus).arg("--state").arg(state("one")).spawn();
    let two = bench.producer().arg(&corpus).arg("--state").arg(state("two")).spawn();
    enqueued(&bench, &mut one, 3_000);
    assert_eq!(one.kill().code, None);
    two.wait().expect(0);
    assert_eq!(bench.enqueued(), 20_000);
    let messages = bench.has_each_of(20_000);
    println!("{messages} messages for 20000 jobs");
}

#[test]
fn a_second_recipe_is_refused_and_changes_nothing() {
    let bench = Bench::new("prod-recipe");
    let corpus = bench.corpus("items.jsonl", 3);
    bench.enqueue(&corpus);
    let refused = bench.producer().args(["--threshold", "9"]).arg(&corpus).run().expect(64);
    assert!(refused.stderr.contains("one recipe") && refused.stderr.contains("--run"), "{}", refused.stderr);
    assert_eq!(bench.has_each_of(3), 3);
}

fn rejects(bench: &Bench, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(bench.work.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rejected_lines_are_named_with_number_and_reason_and_not_forgotten() {
    let bench = Bench::new("prod-rejects");
    bench.enqueue(&bench.work.items("first.jsonl", &[item("a")]));
    let changed = json!({"id": "a", "video": "s3://clips/a.mp4", "query": "Another question?"});
    let long = json!({"id": "long", "video": "s3://clips/a.mp4", "query": "q".repeat(32_000),
                      "metadata": "m".repeat(40_000)});
    let twice = json!({"id": "b", "video": "s3://clips/b.mp4", "query": "Who else?"});
    let lines = format!("{}\nnot json\n{changed}\n{}\n{long}\n{}\n{twice}\n", item("b"), item("b"), item("c"));
    let corpus = bench.work.write("second.jsonl", lines);
    let run = || bench.producer().args(["--rejects", "rejects.jsonl"]).arg(&corpus).run().expect(1);
    let output = run();
    counts(&output.json(), [("enqueued", 2), ("already", 0), ("duplicates", 1), ("rejected", 4)]);
    assert_eq!(output.json()["sealed"], true);
    let told = rejects(&bench, "rejects.jsonl");
    let found = |line: u64| {
        let reject = told.iter().find(|reject| reject["line"] == line).unwrap_or_else(|| panic!("{line}: {told:?}"));
        (reject["reason"].as_str().unwrap().to_owned(), reject["text"].clone())
    };
    assert_eq!(found(2), ("invalid JSON at column 2: expected ident".to_owned(), json!("not json")));
    assert!(found(3).0.contains("id \"a\" stands for other content"), "{told:?}");
    assert!(found(5).0.contains("shorten"), "{told:?}");
    assert!(found(7).0.contains("id \"b\" was used before"), "{told:?}");
    assert_eq!(told.len(), 4);
    assert!(output.stderr.contains("line 3: id \"a\""), "{}", output.stderr);

    // Nothing is read again, and the file still has them.
    counts(&run().json(), [("enqueued", 0), ("already", 0), ("duplicates", 0), ("rejected", 4)]);
    assert_eq!(rejects(&bench, "rejects.jsonl"), told);
    // Without the file they are found again.
    fs::remove_file(bench.work.path("rejects.jsonl")).unwrap();
    counts(&run().json(), [("enqueued", 0), ("already", 2), ("duplicates", 1), ("rejected", 4)]);
    assert_eq!(rejects(&bench, "rejects.jsonl").len(), 4);
    assert_eq!(bench.enqueued(), 3);
}

#[test]
fn a_full_queue_is_waited_for() {
    let bench = Bench::new("prod-full");
    let corpus = bench.corpus("items.jsonl", 1_000);
    let running = bench.producer().env("AURELIA__QUEUE__MAX_READY", "100").arg(&corpus).spawn();
    let mut taken = 0;
    while taken < 1_000 {
        until("the queue is full, or all is in it", || {
            let ready = bench.ready().unwrap_or(0) as usize;
            assert!(ready <= 100, "{ready} are ready");
            (ready == 100 || taken + ready == 1_000).then_some(())
        });
        taken += bench.take(100).len();
    }
    counts(&running.wait().expect(0).json(), [("enqueued", 1_000), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
}

#[test]
fn a_signal_ends_the_batch_under_way_and_the_same_command_goes_on() {
    let bench = Bench::new("prod-signal");
    let corpus = bench.corpus("items.jsonl", 30_000);
    for signal in [Signal::TERM, Signal::INT] {
        let before = bench.enqueued();
        let mut running = bench.producer().arg(&corpus).spawn();
        enqueued(&bench, &mut running, before + 2_000);
        running.signal(signal);
        let output = running.wait().expect(75);
        assert!(output.stderr.contains("the same command goes on"), "{}", output.stderr);
        assert_eq!(output.json()["sealed"], false);
        assert!(bench.enqueued() < 30_000, "the signal came too late to show anything");
    }
    let before = bench.enqueued();
    let summary = bench.enqueue(&corpus);
    counts(&summary, [("enqueued", 30_000 - before), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
    assert_eq!(bench.has_each_of(30_000), 30_000, "nothing was left between claim and confirm");
}

#[test]
fn a_second_signal_ends_a_wait_at_once() {
    let bench = Bench::new("prod-twice");
    let corpus = bench.corpus("items.jsonl", 1_000);
    let mut running = bench.producer().env("AURELIA__QUEUE__MAX_READY", "100").arg(&corpus).spawn();
    enqueued(&bench, &mut running, 100);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    running.wait().expect(75);
    bench.drain();
    bench.enqueue(&corpus);
    assert_eq!(bench.enqueued(), 1_000);
}

#[test]
fn after_redis_was_flushed_the_same_command_enqueues_all_again() {
    let server = RedisServer::own("everysec");
    let bench = Bench::with("prod-flushed", server.url());
    let corpus = bench.corpus("items.jsonl", 1_200);
    bench.enqueue(&corpus);
    bench.drain();
    assert_eq!(server.say(&["FLUSHALL"]), "OK");
    counts(&bench.enqueue(&corpus), [("enqueued", 1_200), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
    assert_eq!((bench.has_each_of(1_200), bench.enqueued()), (1_200, 1_200));
    assert!(bench.info().unwrap().sealed);
}

#[test]
fn a_queue_that_was_lost_is_made_again_and_refilled_without_counting_twice() {
    let bench = Bench::new("prod-lost");
    let corpus = bench.corpus("items.jsonl", 1_200);
    bench.enqueue(&corpus);
    bench.delete_queue();
    let output = bench.producer().arg(&corpus).run().expect(0);
    assert!(output.stderr.contains("is gone, with what was in it of 1200 items"), "{}", output.stderr);
    counts(&output.json(), [("enqueued", 0), ("already", 1_200), ("mended", 1_200), ("rejected", 0)]);
    assert_eq!((bench.has_each_of(1_200), bench.enqueued()), (1_200, 1_200));

    // A refill that is killed is gone on with, although the queue is there again.
    bench.delete_queue();
    let running = bench.producer().arg(&corpus).env("AURELIA__QUEUE__MAX_READY", "300").spawn();
    until("a part of it is there", || (bench.ready() == Some(300)).then_some(()));
    running.kill();
    bench.enqueue(&corpus);
    bench.has_each_of(1_200);
    assert_eq!(bench.enqueued(), 1_200);
    counts(&bench.enqueue(&corpus), [("enqueued", 0), ("already", 0), ("mended", 0), ("rejected", 0)]);
}

#[test]
fn more_items_for_a_sealed_run_open_it_until_they_are_in() {
    let bench = Bench::new("prod-sealed");
    bench.enqueue(&bench.corpus("items.jsonl", 3));
    assert!(bench.info().unwrap().sealed);
    let more = bench.work.items("more.jsonl", &[item("more")]);
    let summary = bench.producer().arg("--no-seal").arg(&more).run().expect(0).json();
    assert_eq!((&summary["sealed"], bench.info().unwrap().sealed), (&json!(false), false));
    bench.enqueue(&more);
    assert!(bench.info().unwrap().sealed);
    assert_eq!(bench.enqueued(), 4);
}

#[test]
fn a_prefix_becomes_an_item_for_each_clip_and_sound() {
    let bench = Bench::new("prod-prefix");
    let s3 = S3::start();
    for n in 0..20 {
        s3.put(&format!("clips/deep/{n:02}.mp4"), b"clip");
    }
    for name in ["clips/deep/a ü+%20.wav", "clips/deep/notes.txt", "clips/other/x.mp4"] {
        s3.put(name, b"x");
    }
    let run = |prefix: &str| {
        let command = bench.producer().args(["--query", "What is heard in {{ stem }}?"]).arg(prefix);
        s3.told(command, "s3://clips/").run()
    };
    let summary = run("s3://clips/deep/").expect(0).json();
    counts(&summary, [("enqueued", 21), ("already", 0), ("duplicates", 0), ("rejected", 0)]);
    counts(
        &run("s3://clips/deep/").expect(0).json(),
        [("enqueued", 0), ("already", 21), ("duplicates", 0), ("rejected", 0)],
    );
    let jobs: BTreeMap<String, JobMessage> =
        bench.drain().into_iter().map(|message| (message.job.item_id.clone(), message)).collect();
    let sound = &jobs["deep/a ü+%20.wav"].job.item;
    assert_eq!((sound.media[0].name.as_str(), sound.media[0].uri.as_str()), ("audio", "s3://clips/deep/a ü+%20.wav"));
    let clip = &jobs["deep/07.mp4"].job.item;
    assert_eq!((clip.media[0].name.as_str(), clip.query.as_str()), ("video", "What is heard in 07?"));
    let output = s3.told(bench.producer(), "s3://clips/").arg("s3://clips/deep/").run().expect(2);
    assert!(output.stderr.contains("--query"), "{}", output.stderr);
}

/// A producer that has no server to ask.
fn alone(work: &Workdir) -> Aurelia<'_> {
    Aurelia::bare(work, env!("CARGO_BIN_EXE_aurelia-producer")).args(["--run", RUN, "--json", "--dry-run"])
}

#[test]
fn a_dry_run_needs_no_server_and_counts_and_estimates() {
    let work = Workdir::new();
    let text = format!("{}\n{}\nnot json\n{}\n", item("a"), item("b"), item("a"));
    let corpus = work.write("items.jsonl", text);
    let output = alone(&work)
        .env("AURELIA__QUEUE__URL", "amqp://127.0.0.1:1")
        .env("AURELIA__SHARED__URL", "redis://127.0.0.1:1")
        .arg(&corpus)
        .run()
        .expect(1);
    let found = output.json();
    assert_eq!((&found["items"], &found["rejected"], &found["duplicates"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(found["calls"]["one_try_each"], 6);
    let money = |name: &str| found["cost_nano_usd"][name].as_u64().unwrap();
    assert!(money("one_try_each") > 0 && money("one_try_each") < money("all_tries_at_bound"), "{found}");
    assert!(output.stderr.contains("line 3: invalid JSON"), "{}", output.stderr);
    assert_eq!(fs::read_dir(work.path("")).unwrap().count(), 4, "nothing but clips, home, logs and the corpus");
}

#[test]
fn corpora_that_cannot_be_read_are_told_by_name() {
    let work = Workdir::new();
    work.write("wrong.csv", "video,qeury\na.mp4,x\n");
    work.write("open.csv", format!("video,query\na.mp4,\"x{}", "y".repeat(3 << 20)));
    work.write("items.xml", "<a/>");
    work.write("broken.parquet", "PAR1");
    for (corpus, found) in [
        ("wrong.csv", "unknown column [\"qeury\"]"),
        ("open.csv", "a quote may not be closed"),
        ("items.xml", ".jsonl, .csv or .parquet"),
        ("broken.parquet", "broken.parquet"),
        ("absent.jsonl", "absent.jsonl cannot be read"),
    ] {
        let output = alone(&work).arg(corpus).run().expect(1);
        assert!(output.stderr.contains(found) && output.stderr.contains(corpus), "{corpus}: {}", output.stderr);
    }
}

/// The largest memory that a process had, in KiB.
fn peak(running: &Running<'_>) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn memory_does_not_grow_with_the_corpus() {
    let work = Workdir::new();
    let lines: String = (0..10_000).map(|n| format!("{}\n", item(&format!("item-{n}")))).collect();
    let peak_of = |times: usize| {
        let file = work.path("many.jsonl");
        let mut out = fs::File::create(&file).unwrap();
        for _ in 0..times {
            std::io::Write::write_all(&mut out, lines.as_bytes()).unwrap();
        }
        let mut running = alone(&work).stdin(&file).arg("-").spawn();
        let mut most = 0;
        while !running.is_over() {
            most = most.max(peak(&running).unwrap_or(0));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let output: Output = running.wait().expect(0);
        assert_eq!(output.json()["items"], times as u64 * 10_000);
        most
    };
    let (small, large) = (peak_of(2), peak_of(30));
    println!("peak memory: {small} KiB for 20,000 lines, {large} KiB for 300,000");
    assert!(small > 0 && large < small + 4 * 1024, "{small} KiB for 20,000 lines, {large} KiB for 300,000");
}
