//! What the whole fleet does on one machine, beside its rivals: `cargo bench --bench fleet`.
//!
//! A broker, a Redis and a model of their own; producer, workers and collector are the real programs. Jobs are of three calls.
//! The rivals' have no media. Ours must: two of the three calls show the smallest picture there is, of one clip that is the same
//! for all and is prepared once. All rates are by the model's clock, from its first request
//! to its last reply; processor time is the kernel's, of each program from then until all records are in the data set.
//!
//! Everything shares the cores of the machine, the model and the rivals' broker too: times do not travel, ratios nearly do.

#![expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]

mod model;
#[allow(dead_code, reason = "shared with the other benches")]
mod process;
mod rivals;

#[allow(dead_code, reason = "shared with the other benches")]
mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aurelia::config::{QueueUrl, load};
use aurelia::demo::clip::{self, Content, Style};
use aurelia::job::job_id;
use aurelia::message::VERSION;
use aurelia::queue::{Link, Publisher, Topology, declare};
use aurelia::recipe::RecipeFile;
use aurelia::shared::Redis;
use aurelia::shared::runs::{ItemMark, Lane, NewRun, Runs};
use futures_util::StreamExt as _;
use model::{Model, Seen};
use process::{Running, Used};
use rivals::Rivals;
use serde_json::{Value, json};
use support::broker::Broker;
use support::redis::RedisServer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Calls of a job that is accepted at its first try.
const CALLS: usize = 3;
/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_mins(3);
/// Bytes of a record for the collector alone.
const RECORD: usize = 4096;

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What can be changed: `cargo bench --bench fleet -- --jobs 500 --rivals 0`.
struct Plan {
    /// Jobs of each case.
    jobs: usize,
    workers: usize,
    /// Lines for the producer alone; 0: left out.
    lines: usize,
    /// Records for the collector alone; 0: left out.
    records: usize,
    /// Rounds of the cases without latency; rivals in turns.
    rounds: usize,
    /// 0: the fleet alone.
    rivals: usize,
}

fn main() -> ExitCode {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_model = words.first() == Some(&"--model");
    let mut builder = if is_model {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = runtime.block_on(async {
        match words[..] {
            ["--model", latency] => model::serve(latency.parse()?).await,
            _ => bench(&plan(&arguments)?).await,
        }
    });
    done.map_or_else(|error| failed(&*error), |()| ExitCode::SUCCESS)
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> ExitCode {
    drop(writeln!(std::io::stderr(), "fleet: {error}"));
    ExitCode::FAILURE
}

/// Bytes of all files under `folder`.
fn size_of(folder: &Path) -> Fallible<f64> {
    let mut bytes = 0.0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() { size_of(&entry.path())? } else { data.len() as f64 };
    }
    Ok(bytes)
}

fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn plan(arguments: &[String]) -> Fallible<Plan> {
    let mut plan = Plan { jobs: 2_000, workers: 2, lines: 200_000, records: 50_000, rounds: 1, rivals: 1 };
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let number = words.next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--jobs" => plan.jobs = number,
            "--workers" => plan.workers = usize::max(number, 1),
            "--lines" => plan.lines = number,
            "--records" => plan.records = number,
            "--rounds" => plan.rounds = usize::max(number, 1),
            "--rivals" => plan.rivals = number,
            _ => {
                let known = "--jobs, --workers, --lines, --records, --rounds, --rivals";
                return Err(format!("{word} is none of {known}").into());
            }
        }
    }
    Ok(plan)
}

/// The servers, and where everything of this run is.
struct Place {
    folder: PathBuf,
    clip: PathBuf,
    broker: String,
    redis: String,
    broker_pid: u32,
    redis_pid: u32,
}

/// How one case of the fleet went.
struct Round {
    seen: Seen,
    jobs: usize,
    in_flight: usize,
    /// CPU seconds.
    worker: f64,
    broker: f64,
    redis: f64,
    model: f64,
    collector: f64,
    /// Peak resident MiB, of all workers together.
    worker_mib: f64,
    broker_mib: f64,
    redis_mib: f64,
    collector_mib: f64,
    /// Bytes of a job: at Redis when it is enqueued, and when it is done; in the data set.
    per_job: [f64; 3],
}

#[expect(clippy::await_holding_lock, reason = "nobody else in this process wants the broker")]
async fn bench(plan: &Plan) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let broker = Broker::own();
    let redis = RedisServer::own("everysec");
    let place = Place::make(folder.path(), &broker, &redis).await?;
    let rivals = if plan.rivals == 0 { None } else { Some(Rivals::new(folder.path())?) };

    let mut table = "| case | jobs/s | calls/s | CPU us per call: workers | broker | Redis | collector | model | peak MiB: workers | broker | Redis | collector | reply to next request, ms: p50 | p99 |\n\
                     |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut others = "| rival | jobs/s | calls/s | CPU us per call: its own | its client | broker | Redis | model | peak MiB | ours is |\n\
                      |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut number = 0;
    for (latency, in_flight, compared) in [(0, 64, true), (200, 500, true), (200, 100, false)] {
        let model = Model::start(latency).await?;
        for _ in 0..plan.rounds {
            number += 1;
            let round = place.fleet(&model, &format!("b{number}"), plan.jobs, plan.workers, in_flight).await?;
            let name = format!("{latency} ms, {in_flight} in flight, {} workers", plan.workers);
            table += &round.row(&name)?;
            let [queued, done, set] = round.per_job;
            print(&format!(
                "{name}: bytes per job: {queued:.0} at Redis when enqueued, {done:.0} when done; {set:.0} in the data set"
            ));
            if latency > 0 {
                let used = round.calls_a_second() * latency as f64 / 1e3 / in_flight as f64;
                print(&format!("{name}: {:.1} % of what {in_flight} in flight allow", used * 100.0));
            }
            let Some(rivals) = rivals.as_ref().filter(|_| compared) else { continue };
            let pools =
                if latency == 0 { vec![("prefork", 4), ("gevent", in_flight)] } else { vec![("gevent", in_flight)] };
            for pool in pools {
                others += &place.celery(rivals, &model, plan.jobs, pool, latency, &round)?;
            }
            others += &place.plain(rivals, &model, plan.jobs, in_flight, latency, &round)?;
        }
    }
    print(&table);
    if rivals.is_some() {
        print(&others);
    }
    if plan.lines > 0 {
        print(&place.producer_alone(plan.lines).await?);
        broker.control(&["delete_queue", &Topology::new("alone").run("r")?.name]);
    }
    if plan.records > 0 {
        print(&place.collector_alone(plan.records).await?);
    }
    Ok(())
}

impl Round {
    fn calls_a_second(&self) -> f64 {
        self.seen.calls as f64 / self.seen.seconds
    }

    fn row(&self, name: &str) -> Fallible<String> {
        let calls = self.seen.calls as f64;
        let us = |cpu: f64| cpu / calls * 1e6;
        let mut row = String::new();
        writeln!(
            row,
            "| {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            self.jobs as f64 / self.seen.seconds,
            self.calls_a_second(),
            us(self.worker),
            us(self.broker),
            us(self.redis),
            us(self.collector),
            us(self.model),
            self.worker_mib,
            self.broker_mib,
            self.redis_mib,
            self.collector_mib,
            self.seen.gap_p50,
            self.seen.gap_p99,
        )?;
        print(&format!(
            "{row}  {} calls in {:.1} s, at most {} of {} in flight",
            self.seen.calls, self.seen.seconds, self.seen.peak, self.in_flight
        ));
        Ok(row)
    }
}

impl Place {
    async fn make(folder: &Path, broker: &Broker, redis: &RedisServer) -> Fallible<Self> {
        let clip = folder.join("clip.mp4");
        clip::make(&clip, 1, Style::small(Content::Full, 1)).await?;
        let broker_pid = broker.control(&["eval", "list_to_integer(os:getpid())."]).trim().parse()?;
        let info = redis.say(&["INFO", "server"]);
        let redis_pid = info.lines().find_map(|line| line.trim().strip_prefix("process_id:"));
        let redis_pid = redis_pid.ok_or("Redis tells no process id")?.parse()?;
        let recipe = include_str!("../config/recipes/default.toml")
            .replace("media = \"frames+audio\"", "media = \"frames\"")
            .replace("max_frames = 5", "max_frames = 1")
            .replace("frame_size = 768", "frame_size = 32")
            .replace("provider = \"gemini\"", "provider = \"openai\"")
            .replace("model = \"gemini-3.8-flash\"", "model = \"gpt-4o-mini\"")
            .replace("without_key = \"generator\"\n", "");
        std::fs::write(folder.join("recipe.toml"), recipe)?;
        Ok(Self { folder: folder.to_owned(), clip, broker: broker.url(), redis: redis.url(), broker_pid, redis_pid })
    }

    /// One of our programs, with its log in `NAME.log`.
    fn program(&self, path: &str, prefix: &str, name: &str, config: &str) -> Fallible<Command> {
        let file = self.folder.join(format!("{prefix}-{name}.toml"));
        std::fs::write(&file, config)?;
        let mut command = Command::new(path);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OPENAI_API_KEY", "bench")
            .env("AURELIA__QUEUE__URL", &self.broker)
            .env("AURELIA__QUEUE__PREFIX", prefix)
            .env("AURELIA__SHARED__URL", &self.redis)
            .env("AURELIA__SHARED__PREFIX", prefix)
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.log(prefix, name))?);
        Ok(command)
    }

    fn log(&self, prefix: &str, name: &str) -> PathBuf {
        self.folder.join(format!("{prefix}-{name}.log"))
    }

    /// Its end, or what it said.
    async fn ended(
        &self,
        mut command: Command,
        log: &Path,
        look: impl AsyncFnMut(f64) -> Fallible<()>,
    ) -> Fallible<Used> {
        let used = Running::start(&mut command)?.finish(look).await;
        Ok(used.map_err(|error| {
            format!(
                "{}: {error}\n{}",
                command.get_program().display(),
                std::fs::read_to_string(log).unwrap_or_default()
            )
        })?)
    }

    /// Enqueues so many items into the run `r`.
    async fn produce(&self, prefix: &str, items: usize) -> Fallible<Used> {
        let corpus = self.folder.join(format!("{prefix}.jsonl"));
        let line =
            |n| json!({"id": format!("item-{n:07}"), "video": self.clip, "query": model::question(n)}).to_string();
        std::fs::write(&corpus, (0..items).map(|n| line(n) + "\n").collect::<String>())?;
        let mut producer = self.program(env!("CARGO_BIN_EXE_aurelia-producer"), prefix, "producer", "")?;
        producer.args(["--run", "r", "--json", "--recipe"]).arg(self.folder.join("recipe.toml")).arg(corpus);
        self.ended(producer, &self.log(prefix, "producer"), async |_| Ok(())).await
    }

    fn collector(&self, prefix: &str) -> Fallible<Command> {
        let config = format!(
            "[collector]\nshard_idle_seconds = 1\noutput = {:?}\n",
            self.folder.join(format!("{prefix}-sets")).display().to_string()
        );
        let mut command = self.program(env!("CARGO_BIN_EXE_aurelia-collector"), prefix, "collector", &config)?;
        command.args(["--run", "r", "--until-complete", "--json"]);
        Ok(command)
    }

    /// All jobs from their queue into a data set.
    async fn fleet(
        &self,
        model: &Model,
        prefix: &str,
        jobs: usize,
        workers: usize,
        in_flight: usize,
    ) -> Fallible<Round> {
        let empty = self.stored().await?;
        self.produce(prefix, jobs).await?;
        let queued = self.stored().await?;
        model.reset().await?;
        let servers = [self.broker_pid, self.redis_pid, model.pid];
        let before = servers.map(cpu_of);
        let config = format!(
            "[providers.openai]\nbase_url = \"{}/v1\"\n[[limits]]\nprovider = \"openai\"\nmodel = \"*\"\n\
             [store]\nallow = [\"file://{}\"]\n[media]\ncache_dir = {:?}\n[worker]\nconcurrency = {}\n",
            model.url,
            self.folder.display(),
            self.folder.join("cache").display().to_string(),
            in_flight.div_ceil(workers),
        );
        let mut running = Vec::new();
        for n in 0..workers {
            let name = format!("worker{n}");
            let mut command = self.program(env!("CARGO_BIN_EXE_aurelia-worker"), prefix, &name, &config)?;
            running.push(Running::start(&mut command)?);
        }
        let pids: Vec<u32> = running.iter_mut().map(|worker| worker.child().id()).collect();
        let began = Instant::now();
        let look = async |_| {
            if began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.log(prefix, "worker0")).unwrap_or_default();
                return Err(
                    format!("the run is not complete after {PATIENCE:?}: {:?}\n{log}", model.seen().await?).into()
                );
            }
            Ok(())
        };
        let collector = self.ended(self.collector(prefix)?, &self.log(prefix, "collector"), look).await?;
        let after = servers.map(cpu_of);
        let done = self.stored().await?;
        let set = size_of(&self.folder.join(format!("{prefix}-sets")))?;
        let per_job = [queued - empty, done - empty, set].map(|bytes| bytes / jobs as f64);
        let [broker, redis, of_model] = [0, 1, 2].map(|n: usize| after[n] - before[n]);
        let seen = model.seen().await?;
        if seen.calls != jobs * CALLS {
            return Err(format!("{} calls for {jobs} jobs, not {CALLS} each", seen.calls).into());
        }
        Ok(Round {
            seen,
            jobs,
            in_flight,
            worker: pids.iter().copied().map(cpu_of).sum(),
            broker,
            redis,
            model: of_model,
            collector: collector.cpu,
            worker_mib: pids.iter().copied().map(peak_of).sum(),
            broker_mib: peak_of(self.broker_pid),
            redis_mib: peak_of(self.redis_pid),
            collector_mib: collector.peak_mib,
            per_job,
        })
    }

    /// Bytes that Redis keeps, its own needs left out.
    async fn stored(&self) -> Fallible<f64> {
        let redis = Redis::new(self.redis.parse()?, "bench");
        let info: String = redis.command(redis::cmd("INFO").arg("memory")).await?;
        let stored = info.lines().find_map(|line| line.trim().strip_prefix("used_memory_dataset:"));
        Ok(stored.ok_or("Redis tells no size of what it keeps")?.parse()?)
    }

    fn celery(
        &self,
        rivals: &Rivals,
        model: &Model,
        jobs: usize,
        pool: (&str, usize),
        latency: u64,
        ours: &Round,
    ) -> Fallible<String> {
        let servers = [self.broker_pid, self.redis_pid, model.pid];
        // A database of its own, which it empties.
        let redis = format!("{}/1", self.redis);
        let told = rivals.celery([&model.url, &self.broker, &redis], jobs, pool, &servers)?;
        let calls = (jobs * CALLS) as f64;
        let per_call = |name: &str| told[name].as_f64().unwrap_or(f64::NAN) * 1e3 / CALLS as f64;
        let extra = servers.map(|pid| told["extra_cpu_s"][pid.to_string()].as_f64().unwrap_or(f64::NAN) / calls * 1e6);
        self.rival(
            &format!("Celery, {} {}, {latency} ms", pool.0, pool.1),
            &told,
            &[per_call("worker_cpu_ms_job"), per_call("client_cpu_ms_job"), extra[0], extra[1], extra[2]],
            "worker_peak_pss_mib",
            ours,
        )
    }

    fn plain(
        &self,
        rivals: &Rivals,
        model: &Model,
        jobs: usize,
        in_flight: usize,
        latency: u64,
        ours: &Round,
    ) -> Fallible<String> {
        let before = cpu_of(model.pid);
        let told = rivals.plain(&model.url, jobs, in_flight)?;
        let calls = (jobs * CALLS) as f64;
        let us = |cpu: f64| cpu / calls * 1e6;
        let own = us(told["cpu_s"].as_f64().unwrap_or(f64::NAN));
        let of_model = us(cpu_of(model.pid) - before);
        let name = format!("asyncio script (aiohttp), {in_flight} in flight, {latency} ms");
        self.rival(&name, &told, &[own, 0.0, 0.0, 0.0, of_model], "maxrss_mib", ours)
    }

    #[expect(clippy::unused_self, reason = "beside those who call it")]
    fn rival(&self, name: &str, told: &Value, cpu: &[f64], peak: &str, ours: &Round) -> Fallible<String> {
        let number = |name: &str| told[name].as_f64().ok_or_else(|| format!("{name} is missing: {told}"));
        let cpu: String = cpu.iter().map(|us| format!(" {us:.0} |")).collect();
        let (jobs, calls) = (number("jobs_s")?, number("calls_s")?);
        let row = format!(
            "| {name} | {jobs:.0} | {calls:.0} |{cpu} {:.0} | {:.2} times as fast |\n",
            number(peak)?,
            ours.calls_a_second() / calls
        );
        print(&row);
        Ok(row)
    }

    async fn producer_alone(&self, lines: usize) -> Fallible<String> {
        let before = [self.broker_pid, self.redis_pid].map(cpu_of);
        let used = self.produce("alone", lines).await?;
        let after = [self.broker_pid, self.redis_pid].map(cpu_of);
        let us = |cpu: f64| cpu / lines as f64 * 1e6;
        Ok(format!(
            "Producer, {lines} lines: {:.0} jobs/s ({:.1} s); CPU per job {:.0} us, broker {:.0} us, Redis {:.0} us; {:.0} MiB\n",
            lines as f64 / used.seconds,
            used.seconds,
            us(used.cpu),
            us(after[0] - before[0]),
            us(after[1] - before[1]),
            used.peak_mib,
        ))
    }

    /// Records that wait in their queue, into a data set.
    async fn collector_alone(&self, records: usize) -> Fallible<String> {
        let prefix = "records";
        let env: Vec<(String, String)> = [("AURELIA__QUEUE__URL", &self.broker), ("AURELIA__SHARED__URL", &self.redis)]
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .into();
        let config = load(&[], &env)?.config;
        let QueueUrl::Broker(broker) = config.queue.url else { return Err("no broker".into()) };
        let (stop, tasks, topology) = (CancellationToken::new(), TaskTracker::new(), Topology::new(prefix));
        let link = Link::open(broker, "bench".to_owned(), &tasks, stop.clone());
        declare(&link, &topology, &[]).await?;
        let runs = Runs::new(Redis::new(self.redis.parse()?, prefix));
        let recipe = RecipeFile::builtin()?.resolve(|_| true);
        runs.register(&NewRun { name: "r", recipe: &recipe, lane: Lane::Normal, ceiling: None }).await?;
        let item = |n: usize| format!("item-{n:07}");
        for some in (0..records).map(|n| ItemMark::new(&item(n), "content")).collect::<Vec<_>>().chunks(1000) {
            runs.confirm("r", some).await?;
        }
        runs.seal("r", true).await?;
        let publisher = Publisher::new(link);
        let mut sent = futures_util::stream::iter(0..records)
            .map(|n| {
                let message = topology.record(job_id("r", &item(n), 0), record(&item(n), &recipe.digest()));
                let publisher = publisher.clone();
                async move { publisher.publish(&message).await }
            })
            .buffer_unordered(128);
        while let Some(sent) = sent.next().await {
            sent?;
        }
        stop.cancel();
        let before = [self.broker_pid, self.redis_pid].map(cpu_of);
        let used = self.ended(self.collector(prefix)?, &self.log(prefix, "collector"), async |_| Ok(())).await?;
        let after = [self.broker_pid, self.redis_pid].map(cpu_of);
        let us = |cpu: f64| cpu / records as f64 * 1e6;
        Ok(format!(
            "Collector, {records} records of {RECORD} bytes that waited: {:.0} records/s ({:.1} s); CPU per record {:.0} us, broker {:.0} us, Redis {:.0} us; {:.0} MiB\n",
            records as f64 / used.seconds,
            used.seconds,
            us(used.cpu),
            us(after[0] - before[0]),
            us(after[1] - before[1]),
            used.peak_mib,
        ))
    }
}

/// A record's message: what the collector reads of it, and text that does not repeat. Its replies are not in the journal.
fn record(item: &str, recipe: &str) -> Vec<u8> {
    let call = |role: &str| {
        let key = blake3::hash(format!("{item} {role}").as_bytes()).to_hex();
        json!({"role": role, "key": key.as_str(), "cost_nano_usd": 1000, "latency_ms": 200})
    };
    let calls: Vec<Value> = ["generator", "summarizer", "evaluator"].map(call).into();
    let mut message = json!({"version": VERSION, "record": {
        "schema_version": 1, "run": "r", "job_id": job_id("r", item, 0), "item_id": item, "revision": 0, "status": "accepted",
        "cost_nano_usd": 3000, "recipe_digest": recipe, "tries": [{"index": 1, "score": 9, "calls": calls}], "caption": "",
    }});
    let mut text = vec![0; (RECORD.saturating_sub(message.to_string().len()) / 2).max(1)];
    let mut hasher = blake3::Hasher::new();
    hasher.update(item.as_bytes()).finalize_xof().fill(&mut text);
    // Half as dense as random bytes: what text compresses to.
    message["record"]["caption"] = text.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    message.to_string().into_bytes()
}

/// CPU seconds of a process and its ended children; 0 when it is gone.
fn cpu_of(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / process::TICKS
}

/// Most resident MiB so far.
fn peak_of(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    process::mib(&status, "VmHWM:").unwrap_or(0.0)
}
