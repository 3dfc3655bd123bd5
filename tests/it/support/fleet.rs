//! A fleet for one test: a broker and a Redis, names of its own at both, and the programs as child processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use aurelia::collector::manifest::Manifest;
use aurelia::config;
use aurelia::fleet::Fleet;
use aurelia::job::{Item, Job};
use aurelia::message::{JobMessage, RecordMessage};
use aurelia::queue::{Arrival, Records, declare};
use aurelia::recipe::{Recipe, RecipeFile};
use aurelia::record::Record;
use aurelia::shared::runs::{ItemMark, Lane, NewRun};
use lapin::options::BasicGetOptions;
use lapin::types::AMQPValue;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::redis::RedisServer;
use super::{Aurelia, Broker, PATIENCE, Sim, Workdir};

/// Our own part in the fleet, to look at it and to hand it jobs.
pub(crate) struct Bench {
    pub(crate) fleet: Fleet,
    records: Option<Records>,
    urls: [String; 2],
    prefix: String,
    // Last: the links end within it.
    runtime: Runtime,
}

impl Bench {
    /// Over the servers that tests share.
    pub(crate) fn new(prefix: &str) -> Self {
        Self::over(&Broker::shared(), &RedisServer::shared(), prefix)
    }

    /// Over these servers.
    pub(crate) fn over(broker: &str, redis: &str, prefix: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let env: Vec<(String, String)> = [
            ("AURELIA__QUEUE__URL", broker),
            ("AURELIA__QUEUE__PREFIX", prefix),
            ("AURELIA__SHARED__URL", redis),
            ("AURELIA__SHARED__PREFIX", prefix),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let config = config::load(&[], &env).unwrap().config;
        let fleet = {
            let _within = runtime.enter();
            Fleet::open(config, "test").unwrap()
        };
        Self { fleet, records: None, urls: [broker, redis].map(str::to_owned), prefix: prefix.to_owned(), runtime }
    }

    pub(crate) fn block_on<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, what).await.expect("it comes in time") })
    }

    /// One of our programs, with this fleet's servers.
    pub(crate) fn program<'a>(&self, work: &'a Workdir, sim: &Sim, path: &'static str) -> Aurelia<'a> {
        let [broker, redis] = &self.urls;
        Aurelia::new(work, sim)
            .program(path)
            .env("AURELIA__QUEUE__URL", broker)
            .env("AURELIA__QUEUE__PREFIX", &self.prefix)
            .env("AURELIA__SHARED__URL", redis)
            .env("AURELIA__SHARED__PREFIX", &self.prefix)
    }

    /// A worker that may read the test's folder.
    pub(crate) fn worker<'a>(&self, work: &'a Workdir, sim: &Sim) -> Aurelia<'a> {
        let allow = format!("[store]\nallow = [\"file://{}\"]\n", work.path("clips").display());
        self.program(work, sim, env!("CARGO_BIN_EXE_aurelia-worker")).config(&allow)
    }

    /// Registers a run with the default recipe and enqueues these items.
    pub(crate) fn enqueue(&self, work: &Workdir, run: &str, items: &[Value]) -> Recipe {
        let recipe = RecipeFile::builtin().unwrap().resolve(|_| true);
        self.enqueue_under(work, run, &recipe, items);
        recipe
    }

    /// The same under a recipe of the test's own.
    pub(crate) fn enqueue_under(&self, work: &Workdir, run: &str, recipe: &Recipe, items: &[Value]) {
        self.block_on(async {
            declare(&self.fleet.outgoing, &self.fleet.topology, &[run]).await.unwrap();
            let new = NewRun { name: run, recipe, lane: Lane::Normal, ceiling: None };
            self.fleet.runs.register(&new).await.unwrap();
            for item in items {
                let job = Job::new(run, 0, item_of(work, item));
                let mark = [ItemMark::new(&job.item_id, &job.item.digest())];
                self.fleet.runs.claim(run, &mark).await.unwrap();
                self.publish(recipe, job).await;
                self.fleet.runs.confirm(run, &mark).await.unwrap();
            }
            self.fleet.runs.seal(run, true).await.unwrap();
        });
    }

    /// Puts a message as it is into the queue of a run.
    pub(crate) fn raw(&self, run: &str, id: &str, body: &[u8]) {
        let message = self.fleet.topology.job(run, id, body);
        self.block_on(self.fleet.publisher.publish(&message)).unwrap();
    }

    /// Messages that are ready in a queue, taken off it with their headers as text.
    pub(crate) fn drain(&self, queue: &str) -> Vec<(String, String)> {
        self.block_on(async {
            let connection = Connection::connect(&self.urls[0], ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            let mut all = Vec::new();
            while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
                let id = message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
                let headers = message.properties.headers().clone().unwrap_or_default();
                let text = |value: &AMQPValue| match value {
                    AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
                    other => format!("{other:?}"),
                };
                let lines = headers.inner().iter().map(|(name, value)| format!("{name}: {}\n", text(value)));
                all.push((id, lines.collect()));
            }
            connection.close(200, "bye".into()).await.unwrap();
            all
        })
    }

    async fn publish(&self, recipe: &Recipe, job: Job) {
        let (run, id) = (job.run.clone(), job.id());
        let body = JobMessage::new(recipe.digest(), job).encode().unwrap();
        self.fleet.publisher.publish(&self.fleet.topology.job(&run, id, body)).await.unwrap();
    }

    /// The records that come until there are `jobs` distinct ones, by item, with how many came in all.
    pub(crate) fn records(&mut self, jobs: usize) -> (BTreeMap<String, RecordMessage>, usize) {
        let (fleet, began) = (&self.fleet, Instant::now());
        let records = self.records.take();
        let mut records = records.unwrap_or_else(|| Records::new(fleet.incoming.clone(), &fleet.topology, 1000));
        let (mut found, mut came) = (BTreeMap::new(), 0);
        while found.len() < jobs {
            let next = self.block_on(async { tokio::time::timeout(Duration::from_secs(1), records.next()).await });
            assert!(began.elapsed() < PATIENCE, "{} of {jobs} records came", found.len());
            let Ok(Ok(Arrival::Record(record))) = next else { continue };
            let message: RecordMessage = serde_json::from_slice(&record.body).unwrap();
            found.insert(message.record.item_id.clone(), message);
            came += 1;
            self.block_on(records.ack_through(record.tag));
        }
        self.records = Some(records);
        (found, came)
    }
}

/// An item of a corpus, its clips named from the root.
fn item_of(work: &Workdir, item: &Value) -> Item {
    let mut item = item.clone();
    for key in ["video", "audio"] {
        if let Some(path) = item.get(key).and_then(Value::as_str).filter(|path| !path.contains("://")) {
            item[key] = work.path(path).display().to_string().into();
        }
    }
    Item::from_line(&item.to_string()).unwrap()
}

/// The manifest of a data set and its records, in the order of its shards, which hold as many as it says.
pub(crate) fn data_set(folder: &Path) -> (Manifest, Vec<Record>) {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let mut records = Vec::new();
    for shard in &manifest.shards {
        let text = zstd::decode_all(&fs::read(folder.join(&shard.records.name)).unwrap()[..]).unwrap();
        let before = records.len();
        records
            .extend(str::from_utf8(&text).unwrap().lines().map(|line| serde_json::from_str::<Record>(line).unwrap()));
        assert_eq!((records.len() - before) as u64, shard.records.rows, "{shard:?}");
    }
    (manifest, records)
}
