//! The commands that look after a fleet, as child processes on a real broker and a real Redis.

use std::time::{Duration, Instant};

use aurelia::config::load;
use aurelia::fleet::Fleet;
use aurelia::job::{Item, Job};
use aurelia::message::JobMessage;
use aurelia::queue::{Delivery, Intake, Settled, declare};
use aurelia::recipe::{Recipe, RecipeFile};
use aurelia::record::{ByTry, Status};
use aurelia::shared::jobs::Started;
use aurelia::shared::runs::{Collected, ItemMark, Lane, NewRun, Phase};
use futures_util::{StreamExt as _, stream};
use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::support::redis::RedisServer;
use super::support::{Aurelia, Broker, Output, Running, Workdir, until};

/// A fleet of one test, and what it is asked with.
struct Yard {
    runtime: Runtime,
    fleet: Fleet,
    work: Workdir,
    environment: Vec<(String, String)>,
}

fn recipe() -> Recipe {
    RecipeFile::builtin().unwrap().resolve(|_| true)
}

fn environment(broker: &str, redis: &str, prefix: &str) -> Vec<(String, String)> {
    let set = |name: &str, value: &str| (format!("AURELIA__{name}"), value.to_owned());
    vec![
        set("QUEUE__URL", broker),
        set("QUEUE__PREFIX", prefix),
        set("SHARED__URL", redis),
        set("SHARED__PREFIX", prefix),
    ]
}

fn job(run: &str, number: usize) -> Job {
    let line = format!(r#"{{"id":"item-{number}","video":"file:///a.mp4","query":"What happens ({number})?"}}"#);
    Job::new(run, 0, Item::from_line(&line).unwrap())
}

impl Yard {
    /// One with these runs, registered and declared.
    fn with(prefix: &str, runs: &[&str]) -> Self {
        let environment = environment(&Broker::shared(), &RedisServer::shared(), prefix);
        let runtime = Runtime::new().unwrap();
        let config = load(&[], &environment).unwrap().config;
        let fleet = runtime.block_on(async {
            let fleet = Fleet::open(config, "test").unwrap();
            for name in runs {
                let new = NewRun { name, recipe: &recipe(), lane: Lane::Normal, ceiling: None };
                fleet.runs.register(&new).await.unwrap();
            }
            declare(&fleet.outgoing, &fleet.topology, runs).await.unwrap();
            fleet
        });
        Self { runtime, fleet, work: Workdir::new(), environment }
    }

    /// Enqueues jobs as a producer does, and gives their ids.
    fn enqueue(&self, run: &str, count: usize) -> Vec<String> {
        self.runtime.block_on(async {
            let jobs: Vec<Job> = (0..count).map(|number| job(run, number)).collect();
            let marks: Vec<_> = jobs.iter().map(|job| ItemMark::new(&job.item_id, &job.item.digest())).collect();
            let publish = |job: &Job| {
                let body = JobMessage::new(recipe().digest(), job.clone()).encode().unwrap();
                let message = self.fleet.topology.job(run, job.id(), body);
                async move { self.fleet.publisher.publish(&message).await.unwrap() }
            };
            stream::iter(jobs.iter().map(publish)).buffer_unordered(128).collect::<Vec<()>>().await;
            for marks in marks.chunks(1000) {
                self.fleet.runs.confirm(run, marks).await.unwrap();
            }
            jobs.iter().map(Job::id).collect()
        })
    }

    async fn take(&self, run: &str) -> Option<Delivery> {
        let fleet = &self.fleet;
        let intake = Intake::new(fleet.incoming.clone(), fleet.publisher.clone(), fleet.topology.clone());
        intake.take(run).await.unwrap()
    }

    /// Makes the next job of a run a dead letter, as a worker does.
    fn kill_one(&self, run: &str, reason: &str) -> String {
        self.runtime.block_on(async {
            let delivery = self.take(run).await.expect("there is a job");
            let (id, body) = (delivery.id.clone(), delivery.body.clone());
            self.fleet.jobs.start(run, &id).await.unwrap();
            assert_eq!(delivery.dead(reason, "it took its worker with it\nfive times").await.unwrap(), Settled::Told);
            self.fleet.runs.died(&JobMessage::decode(&body).unwrap().job).await.unwrap();
            id
        })
    }

    fn spawn(&self, line: &[&str]) -> Running<'_> {
        let command = Aurelia::at(&self.work, "http://127.0.0.1:9").args(line);
        self.environment.iter().fold(command, |command, (name, value)| command.env(name, value)).spawn()
    }

    #[track_caller]
    fn ask(&self, code: i32, line: &[&str]) -> Output {
        self.spawn(line).wait().expect(code)
    }

    fn dead_ids(&self) -> Vec<String> {
        let listed = self.ask(0, &["dead", "list", "--json"]).stdout;
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        listed.lines().map(id).collect()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.runtime.block_on(self.fleet.close());
    }
}

#[test]
fn a_run_is_paused_resumed_and_cancelled_with_its_ten_thousand_jobs() {
    let yard = Yard::with("ops-cancel", &["r", "other"]);
    yard.enqueue("r", 10_000);
    yard.enqueue("other", 3);
    let phase = || yard.runtime.block_on(yard.fleet.runs.get("r")).unwrap().unwrap().phase;
    let said = yard.ask(0, &["pause", "r"]).stdout;
    assert!(said.starts_with("run r: paused"), "{said}");
    assert_eq!(phase(), Phase::Paused);
    yard.ask(0, &["resume", "r"]);
    assert_eq!(phase(), Phase::Active);
    // One runs and one waits: neither is at the broker to be purged.
    let running = yard.runtime.block_on(yard.take("r")).unwrap();
    yard.runtime.block_on(async {
        yard.fleet.jobs.start("r", &running.id).await.unwrap();
        yard.fleet.jobs.park("r", "waits", "quota").await.unwrap();
    });
    let began = Instant::now();
    let said = yard.ask(0, &["cancel", "r"]).stdout;
    println!("cancelled in {:?}: {said}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(said.contains("9999 jobs purged, 1 running end by themselves"), "{said}");
    assert!(said.contains("1 jobs wait and come back"), "{said}");
    assert_eq!(phase(), Phase::Cancelled);
    // What came back is purged by the same command.
    assert_eq!(yard.runtime.block_on(running.give_back()), Settled::Told);
    let again = until("the job is back", || {
        let said = yard.ask(0, &["cancel", "r"]).stdout;
        said.contains("1 jobs purged").then_some(said)
    });
    println!("{again}");
    let status = yard.ask(0, &["status", "--json"]).json();
    assert_eq!((&status["runs"][1]["run"], &status["runs"][1]["purged"]), (&"r".into(), &10_000.into()), "{status}");
    assert_eq!((&status["runs"][0]["ready"], &status["runs"][0]["phase"]), (&3.into(), &"active".into()), "{status}");
}

#[test]
fn status_tells_all_that_is_known_of_a_run_for_people_and_for_scripts() {
    let yard = Yard::with("ops-status", &["r"]);
    yard.enqueue("r", 20);
    yard.kill_one("r", "poison");
    yard.runtime.block_on(async {
        yard.fleet.jobs.end("r", "x").await.unwrap();
        // The dead one runs no more.
        for running in ["running", "running, too"] {
            yard.fleet.jobs.start("r", running).await.unwrap();
        }
        yard.fleet.jobs.park("r", "a", "quota").await.unwrap();
        yard.fleet.jobs.park("r", "b", "budget").await.unwrap();
        yard.fleet.runs.seal("r", true).await.unwrap();
        let by_status = [(Status::Accepted, 3), (Status::Failed, 1)].into();
        let mut tries = ByTry::of(Status::Accepted, [true, true].into_iter());
        tries.add(&ByTry::of(Status::Failed, [true].into_iter()));
        let collected = Collected { jobs: 4, by_status, cost_nano_usd: 1_500_000_000, tries, complete: false };
        yard.fleet.runs.set_collected("r", &collected).await.unwrap();
    });
    let status = yard.ask(0, &["status", "--run", "r", "--json"]).json();
    println!("{status}");
    let run = &status["runs"][0];
    for (name, value) in [
        ("enqueued", serde_json::json!(20)),
        ("ready", 19.into()),
        ("running", 2.into()),
        ("parked", serde_json::json!({ "budget": 1, "quota": 1 })),
        ("by_status", serde_json::json!({ "accepted": 3, "exhausted": 0, "blocked": 0, "failed": 1, "cancelled": 0 })),
        ("recorded", 4.into()),
        ("dead", 1.into()),
        ("purged", 0.into()),
        ("remaining", 15.into()),
        ("sealed", true.into()),
        ("complete", false.into()),
        ("lane", "normal".into()),
        ("phase", "active".into()),
        ("cost_nano_usd", 1_500_000_000.into()),
        ("nano_usd_per_accepted", 500_000_000.into()),
        ("tries", serde_json::json!([{ "scored": 2, "accepted": 0 }, { "scored": 1, "accepted": 1 }])),
        ("ceiling_nano_usd", serde_json::Value::Null),
    ] {
        assert_eq!(run[name], value, "{name}: {status}");
    }
    assert_eq!(status["dead_letters"], 1);
    let table = yard.ask(0, &["status"]).stdout;
    println!("{table}");
    assert!(table.lines().any(|line| line.starts_with("r ") && line.contains("$1.50")), "{table}");
    let money = "r: $0.50 per accepted record; accepted 0 of 2 at try 1, 1 of 1 at try 2";
    assert!(table.lines().any(|line| line == money), "{table}");
    assert!(table.contains("r: parked: 1 for budget, 1 for quota"), "{table}");
    assert!(table.contains("1 dead letters: aurelia dead list"), "{table}");
}

#[test]
fn status_waits_for_a_run_to_be_complete_and_says_so_when_it_is_stopped_before() {
    let yard = Yard::with("ops-wait", &["r"]);
    let mut waiting = yard.spawn(&["status", "--run", "r", "--wait"]);
    let stopped = yard.spawn(&["status", "--run", "r", "--wait", "--watch", "--json"]);
    until("it has looked", || (!stopped.stdout().is_empty()).then_some(()));
    stopped.signal(Signal::TERM);
    stopped.wait().expect(75);
    assert!(!waiting.is_over());
    let collected = Collected { complete: true, ..Collected::default() };
    yard.runtime.block_on(yard.fleet.runs.set_collected("r", &collected)).unwrap();
    let shown = waiting.wait().expect(0).stdout;
    assert!(shown.contains("complete"), "{shown}");
}

#[test]
fn dead_letters_are_listed_shown_requeued_and_dropped() {
    let yard = Yard::with("ops-dead", &["r", "s"]);
    yard.enqueue("r", 3);
    yard.enqueue("s", 1);
    let poisons = [yard.kill_one("r", "poison"), yard.kill_one("r", "poison")];
    let (unread, other) = (yard.kill_one("r", "not_json"), yard.kill_one("s", "poison"));
    let all = yard.dead_ids();
    assert_eq!(all, [&poisons[..], &[unread.clone(), other.clone()]].concat());
    // A look takes nothing away.
    assert_eq!(yard.dead_ids().len(), 4);
    let listed = yard.ask(0, &["dead", "list", "--run", "r", "--reason", "poison"]).stdout;
    println!("{listed}");
    assert_eq!(listed.lines().count(), 2);
    let shown = yard.ask(0, &["dead", "show", &poisons[0]]).stdout;
    println!("{shown}");
    assert!(
        shown.contains("reason: poison") && shown.contains("five times") && shown.contains("What happens"),
        "{shown}"
    );
    let shown = yard.ask(0, &["dead", "show", &unread, "--json"]).json();
    assert_eq!((&shown["run"], &shown["body"]["job"]["run"]), (&"r".into(), &"r".into()), "{shown}");
    yard.ask(1, &["dead", "show", "nobody"]);
    yard.ask(2, &["dead", "drop"]);
    yard.ask(2, &["dead", "drop", "--all", "--run", "r"]);
    assert_eq!(yard.ask(0, &["dead", "requeue", "--run", "r", "--reason", "poison"]).stdout, "2 requeued\n");
    yard.runtime.block_on(async {
        for id in &poisons {
            assert_eq!(yard.fleet.jobs.started("r", id).await.unwrap(), Started(0), "it starts anew");
        }
        let back = yard.take("r").await.unwrap();
        assert!(poisons.contains(&back.id) && back.parked == 0);
        assert_eq!(JobMessage::decode(&back.body).unwrap().job.id(), back.id);
        assert_eq!(yard.fleet.runs.get("r").await.unwrap().unwrap().dead, 1);
    });
    assert_eq!(yard.ask(0, &["dead", "drop", &unread, "--json"]).json()["dropped"], 1);
    assert_eq!(yard.dead_ids(), [other]);
    assert!(yard.ask(1, &["dead", "drop", &unread]).sentence().contains("no dead letter"));
    assert_eq!(yard.ask(0, &["dead", "drop", "--all"]).stdout, "1 dropped\n");
    assert_eq!(yard.ask(0, &["dead", "list"]).stdout, "no dead letters\n");
}

#[test]
fn a_dead_letter_that_cannot_be_sent_back_counts_on_and_one_of_the_broker_counts_once_it_is_dropped() {
    let yard = Yard::with("ops-letters", &["r"]);
    yard.enqueue("r", 1);
    let killed = yard.kill_one("r", "poison");
    let dead = || yard.runtime.block_on(yard.fleet.runs.get("r")).unwrap().unwrap().dead;
    let plain = yard.runtime.block_on(async {
        let connection = Connection::connect(&Broker::shared(), ConnectionProperties::default()).await.unwrap();
        let queue = yard.fleet.topology.run("r").unwrap().name;
        let channel = connection.create_channel().await.unwrap();
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        connection
    });
    yard.ask(1, &["dead", "requeue", &killed]);
    assert_eq!((dead(), yard.dead_ids()), (1, vec![killed.clone()]));
    yard.runtime.block_on(declare(&yard.fleet.outgoing, &yard.fleet.topology, &["r"])).unwrap();
    let given_up = job("r", 7);
    yard.runtime.block_on(async {
        let channel = plain.create_channel().await.unwrap();
        let body = JobMessage::new(recipe().digest(), given_up.clone()).encode().unwrap();
        let named = BasicProperties::default().with_message_id(given_up.id().into());
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("ops-letters.dead".into(), "r".into(), options, &body, named);
        sent.await.unwrap().await.unwrap();
        plain.close(200, "bye".into()).await.unwrap();
    });
    until("it is there", || (yard.dead_ids().len() == 2).then_some(()));
    assert_eq!(dead(), 1);
    yard.ask(0, &["dead", "drop", &given_up.id()]);
    assert_eq!(dead(), 2);
    yard.ask(0, &["dead", "requeue", &killed]);
    assert_eq!((dead(), yard.dead_ids()), (1, vec![]));
}

#[test]
fn of_two_letters_of_a_job_the_second_one_sent_back_does_not_forget_that_the_job_has_started() {
    let yard = Yard::with("ops-letters-twice", &["r"]);
    yard.enqueue("r", 1);
    let id = yard.kill_one("r", "poison");
    yard.enqueue("r", 1);
    assert_eq!(yard.kill_one("r", "dead_before"), id);
    let runs = &yard.fleet.runs;
    assert_eq!(yard.runtime.block_on(runs.get("r")).unwrap().unwrap().dead, 1);
    // As after the first one of them: sent back, and started by a worker.
    yard.runtime.block_on(async {
        runs.revived("r", std::slice::from_ref(&id)).await.unwrap();
        yard.fleet.jobs.end("r", &id).await.unwrap();
        yard.fleet.jobs.start("r", &id).await.unwrap();
    });
    assert_eq!(yard.ask(0, &["dead", "requeue", &id]).stdout, "2 requeued\n");
    assert_eq!(yard.runtime.block_on(yard.fleet.jobs.started("r", &id)).unwrap(), Started(1));
}

#[test]
fn an_unknown_run_is_told_with_the_known_ones() {
    let yard = Yard::with("ops-unknown", &["spring", "winter"]);
    for line in [
        &["pause", "sprung"][..],
        &["resume", "sprung"],
        &["cancel", "sprung"],
        &["status", "--run", "sprung"],
        &["dead", "list", "--run", "sprung"],
    ] {
        let said = yard.ask(64, line);
        assert!(said.sentence().contains("no run \"sprung\"; known are: spring, winter"), "{}", said.stderr);
    }
    assert_eq!(yard.runtime.block_on(yard.fleet.runs.list()).unwrap().len(), 2, "nothing was made of a slip");
}

#[test]
fn servers_that_are_away_end_a_command_soon_with_75() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (nobody, work) = (free(), Workdir::new());
    let (broker, redis) = (Broker::shared(), RedisServer::shared());
    let away = [format!("amqp://guest:guest@127.0.0.1:{nobody}"), format!("redis://127.0.0.1:{nobody}")];
    for (broker, redis, line, who) in [
        (away[0].as_str(), redis.as_str(), &["status"][..], "the broker cannot be asked"),
        (&away[0], &redis, &["dead", "list"], "the broker cannot be asked"),
        (&broker, &away[1], &["pause", "r"], "Redis cannot be asked"),
        (&broker, &away[1], &["status"], "Redis cannot be asked"),
    ] {
        let began = Instant::now();
        let command = Aurelia::at(&work, "http://127.0.0.1:9").args(line);
        let set = environment(broker, redis, "ops-away");
        let said = set.iter().fold(command, |command, (name, value)| command.env(name, value)).run().expect(75);
        println!("{line:?} after {:?}: {}", began.elapsed(), said.sentence());
        assert!(said.sentence().starts_with(who) && !said.stderr.contains("guest:guest"), "{}", said.stderr);
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    }
    // One machine has neither.
    let said = Aurelia::at(&work, "http://127.0.0.1:9").args(["status"]).run().expect(64);
    assert!(said.sentence().contains("queue.url names no broker"), "{}", said.stderr);
}
