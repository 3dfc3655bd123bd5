//! The state that a fleet shares, on a real Redis.

use aurelia::job::{Item, Job};
use aurelia::journal::key::Sample;
use aurelia::journal::{Canonical, Journal, Look, Redirect, Stored};
use aurelia::price::Nano;
use aurelia::provider::{Finish, Reply, Role, Usage};
use aurelia::recipe::{Recipe, RecipeFile};
use aurelia::record::Status;
use aurelia::shared::Redis;
use aurelia::shared::claims::Claims;
use aurelia::shared::jobs::{Jobs, Start, Started, UnderWay};
use aurelia::shared::runs::{DeadJob, Fate, ItemMark, Lane, NewRun, Phase, Registered, Runs};

use serde_json::json;

use crate::support::fleet::Bench;
use crate::support::redis::RedisServer;
use crate::support::{Broker, Sim, Workdir, corpus, until};

fn redis(prefix: &str) -> Redis {
    Redis::new(RedisServer::shared().parse().unwrap(), prefix)
}

fn recipe(threshold: u8) -> Recipe {
    RecipeFile::builtin().unwrap().with(Some(threshold), None).unwrap().resolve(|_| true)
}

#[tokio::test]
async fn a_fleet_redirects_a_request_before_its_reply_or_never_and_only_for_the_fallback_that_was_named() {
    let redis = redis("redirects");
    let (one, other) = [(); 2].map(|()| Journal::shared(redis.clone(), Claims::new(redis.clone()))).into();
    let request = |model| Canonical::new("i", model, Role::Generator, "item", Sample { item: 0, try_index: 1 });
    let to = |model| Redirect::new(&request("own"), &request(model), "p");
    let Look::Claimed(held) = one.look(request("own").key()).await.unwrap() else { panic!() };
    assert!(!other.is_redirected(&to("a")).await.unwrap());
    assert!(one.redirect(&to("a")).await.unwrap() && one.redirect(&to("a")).await.unwrap(), "once or again");
    assert!(other.is_redirected(&to("a")).await.unwrap() && !other.is_redirected(&to("b")).await.unwrap());
    drop(held);
    // Who has no fallback asks and stores as ever; after that nobody else is redirected.
    let Look::Claimed(held) = other.look(request("own").key()).await.unwrap() else { panic!() };
    let (finish, usage) = (Finish::Stop, Usage::default());
    let reply = Reply { text: "own".to_owned(), finish, usage, model_version: None, response_id: None, latency_ms: 1 };
    let stored = Stored { reply, payer: "job".to_owned(), cost: Nano(1), clips: Vec::new() };
    other.store(&held, &request("own"), &stored, None).await.unwrap();
    assert!(!one.redirect(&to("b")).await.unwrap() && !one.is_redirected(&to("b")).await.unwrap());
    assert!(one.is_redirected(&to("a")).await.unwrap());
}

#[tokio::test]
async fn a_run_is_pinned_to_its_recipe_and_registering_it_again_changes_nothing_else() {
    let runs = Runs::new(redis("pinned"));
    let (first, other) = (recipe(7), recipe(8));
    let new = NewRun { name: "r", recipe: &first, lane: Lane::Low, ceiling: None };
    assert_eq!(runs.register(&new).await.unwrap(), Registered::New);
    assert_eq!(runs.register(&NewRun { lane: Lane::High, ..new.clone() }).await.unwrap(), Registered::Known);
    let refused = runs.register(&NewRun { recipe: &other, ..new.clone() }).await.unwrap();
    assert_eq!(refused, Registered::OtherRecipe(first.digest()));
    let info = runs.get("r").await.unwrap().unwrap();
    assert_eq!((info.recipe.as_str(), info.lane, info.phase), (first.digest().as_str(), Lane::High, Phase::Active));
    let json = runs.recipe(&info.recipe).await.unwrap().unwrap();
    assert_eq!(Recipe::from_json(&json).unwrap().digest(), first.digest());
    assert!(runs.set_phase("r", Phase::Paused).await.unwrap() && runs.seal("r", true).await.unwrap());
    assert!(!runs.set_phase("nobody", Phase::Paused).await.unwrap());
    let listed = runs.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|run| (run.name.as_str(), run.phase, run.sealed)).collect::<Vec<_>>(),
        [("r", Phase::Paused, true)]
    );
}

#[tokio::test]
async fn an_item_is_enqueued_once_and_its_id_stands_for_one_content() {
    let runs = Runs::new(redis("items"));
    runs.register(&NewRun { name: "r", recipe: &recipe(8), lane: Lane::Normal, ceiling: None }).await.unwrap();
    let marks: Vec<_> = (0..1000).map(|n| ItemMark::new(&format!("item-{n}"), "content")).collect();
    assert!(runs.claim("r", &marks).await.unwrap().iter().all(|fate| *fate == Fate::New));
    // As after a kill between the claim and the confirm.
    assert!(runs.claim("r", &marks).await.unwrap().iter().all(|fate| *fate == Fate::Unconfirmed));
    assert_eq!(runs.confirm("r", &marks).await.unwrap(), 1000);
    assert_eq!(runs.confirm("r", &marks).await.unwrap(), 0);
    assert!(runs.claim("r", &marks).await.unwrap().iter().all(|fate| *fate == Fate::Known));
    let other = [ItemMark::new("item-1", "something else")];
    assert_eq!(runs.claim("r", &other).await.unwrap(), [Fate::Other]);
    assert_eq!(runs.get("r").await.unwrap().unwrap().jobs(), 1000);
    assert_eq!(runs.retry("r", &[("item-1", 1), ("item-2", 1)]).await.unwrap(), 2);
    assert_eq!(runs.retry("r", &[("item-1", 1), ("item-2", 2)]).await.unwrap(), 1);
    assert_eq!(runs.get("r").await.unwrap().unwrap().jobs(), 1003);
}

#[tokio::test]
async fn a_job_that_neither_ended_nor_waits_becomes_a_suspect_and_then_poison() {
    let jobs = Jobs::new(redis("started"));
    let start = async || match jobs.start("r", "a").await.unwrap() {
        Start::Yes(started) => started,
        other => panic!("{other:?}"),
    };
    assert!(!start().await.is_suspect());
    assert!(start().await.is_suspect());
    jobs.park("r", "a", "quota").await.unwrap();
    let parked = UnderWay { running: 0, parked: [("quota".to_owned(), 1)].into() };
    assert_eq!(jobs.under_way("r").await.unwrap(), parked);
    for _ in 0..5 {
        assert!(!start().await.is_poison());
    }
    assert!(start().await.is_poison());
    assert_eq!(jobs.under_way("r").await.unwrap(), UnderWay { running: 1, parked: [].into() });
    jobs.end("r", "a").await.unwrap();
    assert_eq!(jobs.started("r", "a").await.unwrap(), Started(0));
}

#[tokio::test]
async fn a_dead_letter_counts_once_and_is_not_started_until_it_is_sent_back() {
    let redis = redis("letters");
    let (jobs, runs) = (Jobs::new(redis.clone()), Runs::new(redis));
    let run = NewRun { name: "r", recipe: &recipe(8), lane: Lane::Normal, ceiling: None };
    runs.register(&run).await.unwrap();
    let job = |id: &str| {
        let item = json!({"id": id, "video": "/v.mp4", "query": "What happens?"});
        Job::new("r", 3, Item::from_line(&item.to_string()).unwrap())
    };
    let (a, b) = (job("a"), job("b \"quoted\""));
    let dead = async || runs.get("r").await.unwrap().unwrap().dead;
    for job in [&a, &a, &b] {
        runs.died(job).await.unwrap();
    }
    assert_eq!(dead().await, 2);
    let mut found = runs.dead("r").await.unwrap();
    found.sort_by(|one, other| one.item_id.cmp(&other.item_id));
    let as_dead = |job: &Job| DeadJob { id: job.id(), item_id: job.item_id.clone(), revision: 3 };
    assert_eq!(found, [as_dead(&a), as_dead(&b)]);
    assert_eq!(jobs.start_first("r", &a.id()).await.unwrap(), Start::Dead);
    assert_eq!(jobs.start("r", &a.id()).await.unwrap(), Start::Dead);
    assert_eq!(jobs.under_way("r").await.unwrap(), UnderWay::default());
    assert_eq!(runs.revived("r", &[a.id()]).await.unwrap(), 1);
    assert_eq!((runs.revived("r", &[a.id()]).await.unwrap(), dead().await), (0, 1));
    assert_eq!(jobs.start_first("r", &a.id()).await.unwrap(), Start::Yes(Started(1)));
    assert_eq!(jobs.start_first("r", &a.id()).await.unwrap(), Start::Suspect);
    runs.buried("r", &[&a.id(), &b.id()]).await.unwrap();
    assert_eq!(dead().await, 0);
}

/// Three servers that are a cluster.
fn cluster() -> (Vec<RedisServer>, String) {
    let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let nodes: Vec<_> = (0..3).map(|_| RedisServer::with("everysec", &cluster)).collect();
    let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(places.iter().map(String::as_str));
    create.push("--cluster-yes");
    let said = nodes[0].say(&create);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    until("the nodes know each other", || {
        nodes.iter().all(|node| node.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).then_some(())
    });
    (nodes, format!("redis-cluster://{}", places.join(",")))
}

#[test]
fn a_fleet_works_over_a_cluster_of_three_as_each_script_touches_one_slot() {
    let (nodes, url) = cluster();
    let (sim, work) = (Sim::plain(), Workdir::with_clips(2));
    let mut bench = Bench::over(&Broker::shared(), &url, "cluster");
    bench.enqueue(&work, "r", &corpus(12, 2));
    let shown = "[providers.gemini]\ninline_mib = 0\n";
    let workers: Vec<_> = (0..2).map(|_| bench.worker(&work, &sim).config(shown).spawn()).collect();
    let (records, _) = bench.records(12);
    assert!(records.values().all(|m| matches!(m.record.status, Status::Accepted | Status::Exhausted)));
    assert_eq!(sim.stats().repeats_of_answered, 0);
    let keys: Vec<u64> = nodes.iter().map(|node| node.say(&["DBSIZE"]).parse().unwrap()).collect();
    assert!(keys.iter().all(|keys| *keys > 0), "every node has some: {keys:?}");
    drop(workers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_started_again_is_used_again_with_its_scripts() {
    let mut server = RedisServer::own("always");
    let redis = Redis::new(server.url().parse().unwrap(), "again");
    let jobs = Jobs::new(redis.clone());
    jobs.start("r", "a").await.unwrap();
    server.kill();
    assert!(jobs.start("r", "a").await.is_err(), "nobody is there to count");
    server.start();
    let mut tries = 0;
    let started = loop {
        match jobs.start("r", "a").await {
            Ok(started) => break started,
            Err(error) if tries > 20 => panic!("{error}"),
            Err(_) => tries += 1,
        }
    };
    assert_eq!(started, Start::Yes(Started(2)), "what was answered is kept");
}
