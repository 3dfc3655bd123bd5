//! What a worker promises, as a child process on real servers.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use aurelia::job::{Item, Job};
use aurelia::message::{JobMessage, LONGEST_JOB};
use aurelia::price::Nano;
use aurelia::quota::gate::shared::step::{Books, Money, Of};
use aurelia::recipe::RecipeFile;
use aurelia::record::{ErrorKind, Status};
use aurelia::shared::jobs::{MOST_STARTS, UnderWay};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::fallback::{a_day_of, all_helped, down, recipe, split};
use super::support::fleet::Bench;
use super::support::redis::RedisServer;
use super::support::{Broker, Cable, Running, Sim, Workdir, corpus, until};

/// How often the log of a worker says this of an item.
fn said(worker: &Running<'_>, item: &str, what: &str) -> usize {
    worker.stderr().lines().filter(|line| line.contains(item) && line.contains(what)).count()
}

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

/// Jobs that ask the same over four workers: each distinct request is asked once.
pub(crate) fn identical(prefix: &str, jobs: usize) {
    let (sim, work, mut bench) = (Sim::slow(50), Workdir::with_clips(1), Bench::new(prefix));
    let items: Vec<_> =
        (0..jobs).map(|i| json!({"id": format!("i{i}"), "video": "clips/0.mp4", "query": "What is it?"})).collect();
    bench.enqueue(&work, "r", &items);
    let workers: Vec<_> = (0..4).map(|_| bench.worker(&work, &sim).spawn()).collect();
    let (records, _) = bench.records(jobs);
    let contents: BTreeSet<String> = records.values().map(|m| format!("{:?}", m.record.final_answer)).collect();
    assert_eq!(contents.len(), 1, "all have one answer");
    let calls: u64 = sim.answered().iter().sum();
    let tries = u64::try_from(records.values().next().unwrap().record.tries.len()).unwrap();
    assert_eq!((calls, sim.stats().repeats_of_answered), (tries * 3, 0));
    drop(workers);
}

#[test]
fn identical_jobs_over_four_workers_ask_each_request_once() {
    identical("worker-identical", 50);
}

#[test]
fn workers_whose_model_is_down_pay_the_fallback_once_for_each_request() {
    let (sim, gemini, work, mut bench) = (Sim::slow(50), down(), Workdir::with_clips(1), Bench::new("worker-fallback"));
    let recipe = RecipeFile::read(&recipe(&work, "recipe.toml", true)).unwrap().resolve(|_| true);
    let item = |i| json!({"id": format!("i{i}"), "video": "clips/0.mp4", "query": "What is it?"});
    bench.enqueue_under(&work, "r", &recipe, &(0..20).map(item).collect::<Vec<_>>());
    let worker = || {
        let worker = bench.worker(&work, &sim).config("[retry]\nfallback_after_seconds = 1\n");
        worker.env("AURELIA__PROVIDERS__GEMINI__BASE_URL", &gemini.base_url()).spawn()
    };
    let workers = [worker(), worker(), worker()];
    let (records, _) = bench.records(20);
    for message in records.values() {
        all_helped(&message.record);
    }
    let tries = u64::try_from(records.values().next().unwrap().record.tries.len()).unwrap();
    assert_eq!((sim.answered().iter().sum::<u64>(), sim.stats().repeats_of_answered), (tries * 3, 0));
    assert_eq!(gemini.answered(), [0; 3]);
    drop(workers);
}

#[test]
fn a_day_that_is_used_up_sends_a_fleet_to_the_fallback() {
    let (sim, work, mut bench) = (Sim::plain(), Workdir::with_clips(2), Bench::new("worker-fallback-day"));
    sim.set(|settings| settings.limits = vec![a_day_of(4)]);
    let recipe = RecipeFile::read(&recipe(&work, "recipe.toml", true)).unwrap().resolve(|_| true);
    bench.enqueue_under(&work, "r", &recipe, &corpus(10, 2));
    let workers = [(); 2].map(|()| bench.worker(&work, &sim).spawn());
    let (records, _) = bench.records(10);
    let (own, helped) = split(records.values().map(|message| &message.record));
    assert!(own == 4 && helped > 10, "{own} of its own, {helped} of its fallback");
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

#[test]
fn a_job_longer_than_its_delivery_goes_on_in_others_and_its_neighbours_are_not_redelivered() {
    let (sim, work, mut bench) = (Sim::plain(), Workdir::with_clips(1), Bench::new("worker-deadline"));
    let mut items = corpus(10, 1);
    items.push(json!({"id": "long", "video": "clips/0.mp4",
                      "query": "What is heard? [[sim: exhaust]] [[sim: latency_ms=1400]]"}));
    bench.enqueue(&work, "r", &items);
    let config = "[worker]\ndelivery_deadline_seconds = 4\n[telemetry]\nlog = \"info\"\n";
    let worker = bench.worker(&work, &sim).config(config).spawn();
    let (records, came) = bench.records(11);
    assert_eq!((records["long"].record.status, came), (Status::Exhausted, 11));
    let continued = said(&worker, "long", "put back");
    assert!(continued >= 2, "it took {continued} further deliveries");
    for item in &items[..10] {
        let item = item["id"].as_str().unwrap();
        assert_eq!((said(&worker, item, "done"), said(&worker, item, "put back")), (1, 0), "{item}");
    }
    assert_eq!(sim.stats().repeats_of_answered, 0, "a call in flight is not cut by the deadline");
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn a_job_that_has_no_room_for_its_time_is_a_dead_letter_when_it_should_be_put_back() {
    let (sim, work, bench) = (Sim::plain(), Workdir::with_clips(1), Bench::new("worker-no-room"));
    let recipe = bench.enqueue(&work, "r", &[]);
    let clip = work.path("clips/0.mp4").display().to_string();
    let message = |room: usize| {
        let item = json!({"id": "long", "video": clip, "query": "What is heard? [[sim: latency_ms=2500]]",
                          "metadata": {"padding": "x".repeat(room)}});
        let job = Job::new("r", 0, Item::from_line(&item.to_string()).unwrap());
        let mut message = JobMessage::new(recipe.digest(), job);
        // A digit more from now on.
        message.worked_seconds = 9;
        message
    };
    let least = message(0).encode().unwrap().len();
    let message = message(LONGEST_JOB - least);
    let body = message.encode().unwrap();
    assert_eq!(body.len(), LONGEST_JOB);
    bench.raw("r", &message.job.id(), &body);
    let worker = bench.worker(&work, &sim).config("[worker]\ndelivery_deadline_seconds = 2\n").spawn();
    let dead = bench.fleet.topology.dead().name;
    let letters = until("it is a dead letter", || Some(bench.drain(&dead)).filter(|letters| !letters.is_empty()));
    assert_eq!((letters.len(), letters[0].0.as_str()), (1, message.job.id().as_str()));
    assert!(letters[0].1.contains("too_long") && letters[0].1.contains("more than 65536"), "{letters:?}");
    until("it counts as dead", || {
        let info = bench.block_on(bench.fleet.runs.get("r")).unwrap().unwrap();
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        (info.dead == 1 && under_way == UnderWay::default()).then_some(())
    });
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn a_job_that_kills_its_worker_is_a_dead_letter_after_five_starts_and_none_of_its_neighbours_is() {
    poison("worker-poison", 30);
}

/// A job that kills its worker, among so many others.
pub(crate) fn poison(prefix: &str, neighbours: usize) {
    let (sim, work, mut bench) = (Sim::plain(), Workdir::with_clips(1), Bench::new(prefix));
    // The clip is a program's standard input.
    let [ffmpeg, probe] = ["ffmpeg", "ffprobe"].map(|program| {
        let kill = "case $(readlink /proc/$$/fd/0) in *killer*) kill -9 $PPID;; esac";
        let path = work.write(&format!("killing-{program}"), format!("#!/bin/sh\n{kill}\nexec {program} \"$@\"\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    });
    work.clip("killer.mp4", aurelia::demo::clip::Style::small(aurelia::demo::clip::Content::Full, 77), 1);
    let mut items = corpus(neighbours, 1);
    items.insert(3, json!({"id": "killer", "video": "clips/killer.mp4", "query": "What happens?"}));
    bench.enqueue(&work, "r", &items);
    let config = format!("[media]\nffmpeg = \"{}\"\nffprobe = \"{}\"\n", ffmpeg.display(), probe.display());
    let mut deaths = 0;
    let dead = bench.fleet.topology.dead().name;
    let worker = || bench.worker(&work, &sim).config(&config).spawn();
    let mut running = worker();
    let letters = until("the job is a dead letter", || {
        if running.is_over() {
            deaths += 1;
            running = worker();
        }
        let letters = bench.drain(&dead);
        (!letters.is_empty()).then_some(letters)
    });
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].1.contains("poison"), "{letters:?}");
    assert_eq!(deaths, 5);
    let (records, _) = bench.records(neighbours);
    assert!(!records.contains_key("killer"));
    assert_eq!(bench.block_on(bench.fleet.runs.get("r")).unwrap().unwrap().dead, 1);
    let nothing = UnderWay::default();
    until("nothing is under way", || {
        (bench.block_on(bench.fleet.jobs.under_way("r")).unwrap() == nothing).then_some(())
    });
}

/// A worker dies before it says this to Redis, and another one goes on; the run has this many jobs that died with their workers.
fn killed_before(prefix: &str, words: &'static str, dead: u64) {
    let redis = RedisServer::own("always");
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), prefix);
    let cable = sim.runtime().block_on(Cable::to(redis.port()));
    cable.darken_at(words);
    let items = corpus(1, 1);
    let job = Job::new("r", 0, Item::from_line(&items[0].to_string()).unwrap()).id();
    for _ in 0..dead * MOST_STARTS {
        bench.block_on(bench.fleet.jobs.start("r", &job)).unwrap();
    }
    let through = format!("redis://127.0.0.1:{}", cable.port());
    let worker = bench.worker(&work, &sim).env("AURELIA__SHARED__URL", &through).spawn();
    bench.enqueue(&work, "r", &items);
    until("it would count the end", || cable.is_dark().then_some(()));
    worker.kill();
    let next = bench.worker(&work, &sim).spawn();
    let queue = bench.fleet.topology.dead().name;
    if dead == 0 {
        // One was sent already.
        assert!(bench.records(1).0.contains_key("item-000"));
    }
    let nothing = UnderWay::default();
    until("nothing is under way", || {
        let info = bench.block_on(bench.fleet.runs.get("r")).unwrap().unwrap();
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        (under_way == nothing && info.dead == dead).then_some(())
    });
    next.signal(Signal::TERM);
    next.wait().expect(0);
    let letters = bench.drain(&queue);
    assert_eq!(letters.len() as u64, dead * 2, "{letters:?}");
    assert!(letters.iter().all(|(id, _)| *id == job), "{letters:?}");
    assert_eq!(sim.stats().repeats_of_answered, 0);
}

#[test]
fn a_worker_killed_at_the_end_of_a_job_leaves_nothing_under_way_and_no_dead_letter_uncounted() {
    // A script is sent whole to a server that has not seen it.
    killed_before("worker-ended", "return redis.call('HDEL', KEYS[2], ARGV[1])", 0);
    killed_before("worker-died", "0 item-000", 1);
}

#[test]
fn without_the_shared_state_no_call_is_made_and_with_it_again_the_jobs_go_on() {
    let mut redis = RedisServer::own("always");
    let (sim, work) = (Sim::slow(20), Workdir::with_clips(2));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), "worker-no-redis");
    bench.enqueue(&work, "r", &corpus(60, 2));
    let worker = bench.worker(&work, &sim).spawn();
    until("it works", || (sim.received() > 30).then_some(()));
    redis.kill();
    // What was in flight ends; nothing follows.
    until("nothing is in flight", || (sim.stats().in_flight == 0).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    let before = sim.received();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(sim.received(), before, "a call was made that nobody counts");
    redis.start();
    let (records, _) = bench.records(60);
    assert_eq!(records.len(), 60);
    assert_eq!(sim.stats().repeats_of_answered, 0, "replies that came meanwhile are kept until they can be stored");
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn a_reply_that_cannot_be_stored_before_the_worker_has_to_stop_travels_with_its_job() {
    let mut redis = RedisServer::own("always");
    let (sim, work) = (Sim::slow(1500), Workdir::with_clips(1));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), "worker-carried");
    bench.enqueue(&work, "r", &corpus(4, 1));
    let worker = bench.worker(&work, &sim).spawn();
    until("calls are in flight", || (sim.stats().in_flight == 4).then_some(()));
    redis.kill();
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
    redis.start();
    sim.set(|settings| settings.latency = aurelia::simulator::Latency::Fixed { ms: 1 });
    let worker = bench.worker(&work, &sim).spawn();
    bench.records(4);
    assert_eq!(sim.stats().repeats_of_answered, 0, "what was paid for was stored first");
    drop(worker);
}

#[test]
fn an_outage_of_redis_longer_than_a_delivery_is_no_fault_of_the_worker() {
    let mut redis = RedisServer::own("always");
    let (sim, work) = (Sim::slow(700), Workdir::with_clips(1));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), "worker-outage");
    bench.enqueue(&work, "r", &corpus(6, 1));
    let config = "[worker]\ndelivery_deadline_seconds = 2\nmost_faults = 2\n";
    let mut worker = bench.worker(&work, &sim).config(config).spawn();
    until("calls are in flight", || (sim.stats().in_flight == 6).then_some(()));
    redis.kill();
    std::thread::sleep(Duration::from_secs(8));
    assert!(!worker.is_over(), "{}", worker.stderr());
    redis.start();
    bench.records(6);
    assert_eq!(sim.stats().repeats_of_answered, 0, "replies travel with their jobs until they can be stored");
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn while_redis_takes_no_writes_jobs_wait_at_the_broker_and_are_not_given_back() {
    let redis = RedisServer::own("everysec");
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut bench = Bench::over(&Broker::shared(), &redis.url(), "worker-read-only");
    bench.enqueue(&work, "r", &corpus(4, 1));
    // As when it is a replica, or cannot save. Too little memory would be another matter: a script that has removed something
    // may go on writing then.
    assert_eq!(redis.say(&["CONFIG", "SET", "min-replicas-to-write", "1"]), "OK");
    let worker = bench.worker(&work, &sim).config("[telemetry]\nlog = \"info\"\n").spawn();
    until("all of them wait", || (said(&worker, "reason=\"state\"", "waits") >= 4).then_some(()));
    assert_eq!((sim.received(), said(&worker, "", "given back")), (0, 0));
    assert_eq!(redis.say(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
    bench.records(4);
    drop(worker);
}

#[test]
fn jobs_wait_at_the_broker_for_another_day_or_more_money_and_hold_no_slot() {
    for (name, reason, most, config) in [
        ("quota", "quota", 2, "[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\nrequests_per_day = 2\n"),
        ("total", "budget", 0, "[budget]\ntotal_usd = \"0.000001\"\n"),
        ("day", "budget", 0, "[budget]\nper_day_usd = \"0.000001\"\n"),
    ] {
        let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
        let bench = Bench::new(&format!("worker-waits-{name}"));
        // More jobs than slots: those that wait have made room for the others.
        bench.enqueue(&work, "r", &corpus(20, 1));
        let worker = bench.worker(&work, &sim).config(config).spawn();
        until("all jobs wait", || {
            let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
            (under_way.running == 0 && under_way.parked == [(reason.to_owned(), 20)].into()).then_some(())
        });
        // The summarizer is another provider's, whose day is not limited.
        let models = sim.stats().by_model;
        let limited: u64 = models.iter().filter(|(name, _)| name.starts_with("gemini")).map(|(_, calls)| calls).sum();
        assert_eq!(limited, most, "{name}: {models:?}");
        drop(worker);
    }
}

#[test]
fn a_worker_started_before_its_servers_waits_for_them() {
    let (mut redis, mut broker) = (RedisServer::own("everysec"), Broker::own());
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let mut bench = Bench::over(&broker.url(), &redis.url(), "worker-early");
    bench.enqueue(&work, "r", &corpus(5, 1));
    std::thread::sleep(Duration::from_secs(3));
    redis.kill();
    broker.kill();
    let mut worker = bench.worker(&work, &sim).spawn();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!worker.is_over(), "{}", worker.stderr());
    broker.start();
    std::thread::sleep(Duration::from_secs(1));
    redis.start();
    bench.records(5);
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
}

#[test]
fn a_worker_told_to_stop_under_load_ends_in_time_and_nothing_is_asked_again() {
    let (sim, work, mut bench) = (Sim::slow(300), Workdir::with_clips(2), Bench::new("worker-term"));
    bench.enqueue(&work, "r", &corpus(40, 2));
    let worker = bench.worker(&work, &sim).spawn();
    until("it works", || (sim.stats().in_flight >= 8).then_some(()));
    let began = Instant::now();
    worker.signal(Signal::TERM);
    worker.wait().expect(0);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let worker = bench.worker(&work, &sim).spawn();
    bench.records(40);
    assert_eq!(sim.stats().repeats_of_answered, 0);
    drop(worker);
}

#[test]
fn a_call_that_outlasts_the_grace_is_cut_and_its_job_comes_again_with_nothing_held_against_it() {
    let (sim, work, mut bench) = (Sim::slow(3_600_000), Workdir::with_clips(1), Bench::new("worker-grace"));
    bench.enqueue(&work, "r", &corpus(3, 1));
    let worker = bench.worker(&work, &sim).config("[worker]\ngrace = 4\n").spawn();
    until("calls are in flight", || (sim.stats().in_flight == 3).then_some(()));
    let began = Instant::now();
    worker.signal(Signal::TERM);
    let output = worker.wait().expect(0);
    // The call would take an hour, and by default the grace is 25 s.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(
        output.stderr.contains("some jobs did not stop in time; they go back to their queues"),
        "{}",
        output.stderr
    );
    // It took no worker with it: stopped with one worker after the other it would be a dead letter in the end.
    assert_eq!(bench.block_on(bench.fleet.jobs.under_way("r")).unwrap(), UnderWay::default());
    // What the cut calls may cost is neither free nor forgotten.
    let books = Books::new(bench.fleet.redis.clone());
    let held = |money: Money| money.reserved.saturating_add(money.unconfirmed);
    assert!(held(bench.block_on(books.money(Of::Run("r"))).unwrap()) > Nano::ZERO);

    sim.set(|settings| settings.latency = aurelia::simulator::Latency::Fixed { ms: 1 });
    let worker = bench.worker(&work, &sim).spawn();
    let (records, came) = bench.records(3);
    assert!(records.values().all(|m| matches!(m.record.status, Status::Accepted | Status::Exhausted)));
    assert_eq!((came, sim.stats().repeats_of_answered), (3, 0));
    drop(worker);
}

#[test]
fn each_bad_message_or_address_has_the_end_that_is_right_for_it() {
    let (sim, work, mut bench) = (Sim::plain(), Workdir::with_clips(1), Bench::new("worker-bad"));
    let clip = |uri: &str| json!({"id": uri, "video": uri, "query": "What happens?"});
    let traversal = format!("file://{}/../home/secret.mp4", work.path("clips").display());
    let denied = ["s3://elsewhere/clip.mp4", "file:///etc/passwd", &traversal, "https://169.254.169.254/clip.mp4"];
    let mut items: Vec<Value> = denied.iter().map(|uri| clip(uri)).collect();
    items.push(json!({"id": "missing", "video": "clips/none.mp4", "query": "What happens?"}));
    items.push(json!({"id": "good", "video": "clips/0.mp4", "query": "What happens?"}));
    let recipe = bench.enqueue(&work, "r", &items);
    let whole = json!({"version": 1, "recipe": recipe.digest(), "enqueued_at": 0, "job":
        {"run": "r", "item_id": "x", "revision": 0, "item": {"id": "x", "video": "/x.mp4", "query": "What?"}}});
    let with = |path: &str, value: Value| {
        let mut message = whole.clone();
        *message.pointer_mut(path).unwrap() = value;
        message.to_string()
    };
    let long = format!("{}{}", whole, " ".repeat(LONGEST_JOB));
    let bad = [
        ("not json", "{".to_owned(), "not_json"),
        ("no job", "{}".to_owned(), "not_a_job"),
        ("too long", long, "too_long"),
        ("too old", with("/version", 0.into()), "too_old"),
        ("no question", with("/job/item/query", "".into()), "not_a_job"),
        ("other run", with("/job/run", "other".into()), "wrong_run"),
    ];
    for (id, body, _) in &bad {
        bench.raw("r", id, body.as_bytes());
    }
    bench.raw("r", "newer", with("/version", 2.into()).as_bytes());
    bench.raw("r", "no recipe", with("/recipe", "0".repeat(64).into()).as_bytes());
    let worker = bench.worker(&work, &sim).spawn();
    let (records, _) = bench.records(items.len());
    for uri in denied {
        let error = records[uri].record.error.as_ref().unwrap();
        assert_eq!((records[uri].record.status, error.kind), (Status::Failed, ErrorKind::Denied), "{uri}");
    }
    assert_eq!(records["missing"].record.error.as_ref().unwrap().kind, ErrorKind::NotFound);
    assert!(records["good"].record.error.is_none());
    let dead = bench.fleet.topology.dead().name;
    let mut letters = Vec::new();
    until("the dead letters are there", || {
        letters.extend(bench.drain(&dead));
        (letters.len() >= bad.len()).then_some(())
    });
    for (id, _, reason) in &bad {
        let found = letters.iter().filter(|(letter, headers)| letter == id && headers.contains(reason)).count();
        assert_eq!(found, 1, "{id} is {reason}: {letters:?}");
    }
    // A message that a newer worker will read, and a job whose recipe its producer will bring again, wait.
    let parked = until("a job waits for its recipe", || {
        let under_way = bench.block_on(bench.fleet.jobs.under_way("r")).unwrap();
        (!under_way.parked.is_empty()).then_some(under_way.parked)
    });
    assert_eq!(parked, [("recipe".to_owned(), 1)].into());
    assert_eq!(letters.len(), bad.len(), "{letters:?}");
    drop(worker);
}
