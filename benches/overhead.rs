//! What the whole loop costs beside a bare one: `cargo bench --bench overhead`, or `make bench`.
//!
//! A simulator runs as a process of its own. `aurelia run` takes a corpus through it; then this program, started again as
//! a plain sender, sends it the same bodies, byte for byte (the simulator compares them). Both are judged by CPU time
//! per call as the kernel counts it, in turns and in one run: ratios travel between machines, times do not. The
//! preparation of the clip is a cost per clip and not per call, so it has a line of its own and is in the cache before.
//!
//! Ends with a failure when the loop takes more than [`LIMIT`] times the CPU of the bare one.

#![expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]

mod bare;
mod process;
mod simulator;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use aurelia::demo::clip::{self, Content, Size, Style};
use process::{Running, Used};
use serde_json::{Value, json};
use simulator::Simulator;

/// The most that the loop may take, in CPU of the bare one.
const LIMIT: f64 = 2.5;
/// Calls in flight, on both sides.
const CONCURRENCY: usize = 64;
/// Calls of an item that is accepted at its first try.
const CALLS: usize = 3;

type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What can be changed: `cargo bench --bench overhead -- --items 500 --rounds 1 --long 0`.
struct Plan {
    items: usize,
    rounds: usize,
    /// Items of the run whose memory is watched.
    long: usize,
}

fn main() -> ExitCode {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let done = runtime.block_on(async {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["--bare", out, item, recipe, url] => {
                let told = bare::run(Path::new(out), item, Path::new(recipe), url, CONCURRENCY).await?;
                print(&told.to_string());
                Ok(ExitCode::SUCCESS)
            }
            _ => bench(&plan(&arguments)?).await,
        }
    });
    done.unwrap_or_else(|error| failed(&*error))
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> ExitCode {
    drop(writeln!(std::io::stderr(), "overhead: {error}"));
    ExitCode::FAILURE
}

fn print(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn plan(arguments: &[String]) -> Fallible<Plan> {
    let mut plan = Plan { items: 2_000, rounds: 3, long: 10_000 };
    let mut words = arguments.iter().filter(|word| *word != "--bench");
    while let Some(word) = words.next() {
        let number = words.next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{word} needs a number"))?;
        match word.as_str() {
            "--items" => plan.items = number,
            "--rounds" => plan.rounds = number,
            "--long" => plan.long = number,
            _ => return Err(format!("{word} is none of --items, --rounds, --long").into()),
        }
    }
    Ok(plan)
}

/// One kind of load.
struct Case {
    name: &'static str,
    size: Size,
    latency_ms: u64,
    media: &'static str,
}

const CASES: [Case; 6] = [
    Case { name: "720p clip, 10 s, instant model", size: Size::Hd, latency_ms: 0, media: "frames+audio" },
    Case { name: "720p clip, 10 s, 50 ms", size: Size::Hd, latency_ms: 50, media: "frames+audio" },
    Case { name: "160x120, 2 s, instant model", size: Size::Small, latency_ms: 0, media: "frames+audio" },
    Case { name: "160x120, 2 s, 50 ms", size: Size::Small, latency_ms: 50, media: "frames+audio" },
    Case { name: "one 160x120 frame, instant model", size: Size::Small, latency_ms: 0, media: "frames" },
    Case { name: "one 160x120 frame, 50 ms", size: Size::Small, latency_ms: 50, media: "frames" },
];
/// Bodies of a real clip are larger: fewer items do.
const HD_SHARE: usize = 2;

/// Where everything of this run is, and what does not change between cases.
struct Place {
    folder: PathBuf,
    clip: PathBuf,
}

async fn bench(plan: &Plan) -> Fallible<ExitCode> {
    let folder = tempfile::tempdir()?;
    let place = Place::make(&folder.path().join("small"), 2, Style::small(Content::Full, 1), plan.items).await?;
    let hd_items = (plan.items / HD_SHARE).max(1);
    let hd = Place::make(&folder.path().join("hd"), 10, Style::new(Content::Full), hd_items).await?;
    let mut table = "| load | KiB/call | CPU per call: loop | bare | ratio | calls/s: loop | bare | peak RSS: loop | bare | commits/call |\n\
                     |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let (mut worst, mut real): (f64, f64) = (0.0, 0.0);
    for case in &CASES {
        let (place, items) = match case.size {
            Size::Hd => (&hd, hd_items),
            Size::Small => (&place, plan.items),
        };
        let mut rounds = Vec::new();
        for round in 0..plan.rounds.max(1) {
            rounds.push(one_round(place, case, round, items).await?);
        }
        let median = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let ratio = median(|r| r.whole.cpu / r.bare.cpu);
        worst = worst.max(ratio);
        if matches!(case.size, Size::Hd) {
            real = real.max(ratio);
        }
        let calls = (items * CALLS) as f64;
        writeln!(
            table,
            "| {} | {:.1} | {:.0} us | {:.0} us | {ratio:.2} | {:.0} | {:.0} | {:.0} MiB | {:.0} MiB | {:.2} |",
            case.name,
            median(|r| r.kib),
            median(|r| r.whole.cpu) / calls * 1e6,
            median(|r| r.bare.cpu) / calls * 1e6,
            calls / median(|r| r.whole.seconds),
            calls / median(|r| r.bare.seconds),
            median(|r| r.whole.peak_mib),
            median(|r| r.bare.peak_mib),
            median(|r| r.commits),
        )?;
    }
    print(&table);
    print(&preparation(&place).await?);
    if plan.long > 0 {
        print(&memory(&place, plan.long).await?);
    }
    print(&format!("ratio with a real clip: {real:.2}, allowed {LIMIT}; the worst of all: {worst:.2}"));
    Ok(if real > LIMIT { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One turn of both sides.
struct Round {
    whole: Used,
    bare: Used,
    kib: f64,
    commits: f64,
}

async fn one_round(place: &Place, case: &Case, round: usize, items: usize) -> Fallible<Round> {
    let simulator = Simulator::start(case.latency_ms).await?;
    let out = place.folder.join(format!("out-{}-{}-{round}", case.media, case.latency_ms));
    place.warm(&out, case.media, &simulator).await?;
    simulator.reset().await?;
    let (whole, commits) = place.whole(&out, "items.jsonl", case.media, &simulator, async |_| Ok(())).await?;
    let calls = items * CALLS;
    let stats = simulator.stats().await?;
    expect("answered by the loop", &stats["answered"], calls)?;
    let bare = place.bare(&out, case.media, &simulator).await?;
    let again = simulator.stats().await?;
    expect("answered by both", &again["answered"], 2 * calls)?;
    expect("bodies that were the same", &again["repeats_of_answered"], calls)?;
    std::fs::remove_dir_all(&out)?;
    let calls = calls as f64;
    let kib = stats["body_bytes"].as_f64().unwrap_or(0.0) / calls / 1024.0;
    Ok(Round { whole, bare, kib, commits: commits / calls })
}

fn expect(what: &str, found: &Value, wanted: usize) -> Fallible<()> {
    if found.as_u64() == Some(wanted as u64) { Ok(()) } else { Err(format!("{what}: {found}, not {wanted}").into()) }
}

/// The clip's own cost, once.
async fn preparation(place: &Place) -> Fallible<String> {
    let simulator = Simulator::start(0).await?;
    let mut used = [Used::default(); 2];
    for used in &mut used {
        // The second time the clip is in the cache: the difference is its preparation.
        let out = place.folder.join("preparation");
        std::fs::remove_file(out.join("records.jsonl")).ok();
        *used = place.whole(&out, "one.jsonl", "frames+audio", &simulator, async |_| Ok(())).await?.0;
    }
    let [first, second] = used.map(|used| (used.cpu + used.children_cpu) * 1e3);
    Ok(format!(
        "Preparing the clip (2 s, 160x120, with sound), once: {:.0} ms of CPU. Start and end of the program, in the figures above: {second:.0} ms.\n",
        first - second
    ))
}

/// Resident memory while a long run goes on.
async fn memory(place: &Place, items: usize) -> Fallible<String> {
    place.corpus("long.jsonl", items)?;
    let simulator = Simulator::start(0).await?;
    let out = place.folder.join("long");
    place.warm(&out, "frames", &simulator).await?;
    simulator.reset().await?;
    let marks = [items / 10, items / 2, items * 9 / 10];
    let mut seen = Vec::new();
    let look = async |mib: f64| {
        let calls = simulator.stats().await?["answered"].as_f64().unwrap_or(0.0);
        if marks.get(seen.len()).is_some_and(|mark| calls >= (mark * CALLS) as f64) {
            seen.push(mib);
        }
        Ok(())
    };
    place.whole(&out, "long.jsonl", "frames", &simulator, look).await?;
    let shown: Vec<String> =
        marks.iter().zip(&seen).map(|(items, mib)| format!("{mib:.1} MiB at item {items}")).collect();
    Ok(format!("Resident memory of the loop in one run of {items} items: {}.\n", shown.join(", ")))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Place {
    async fn make(folder: &Path, seconds: u32, style: Style, items: usize) -> Fallible<Self> {
        std::fs::create_dir_all(folder)?;
        let place = Self { folder: folder.to_owned(), clip: folder.join("clip.mp4") };
        clip::make(&place.clip, seconds, style).await?;
        place.corpus("one.jsonl", 1)?;
        place.corpus("items.jsonl", items)?;
        Ok(place)
    }

    fn item(&self, number: usize) -> String {
        let query = format!("What is heard while the picture changes for the time number {number}? [[sim: scores=9]]");
        json!({"id": format!("item-{number:06}"), "video": self.clip, "query": query}).to_string()
    }

    fn corpus(&self, name: &str, items: usize) -> Fallible<()> {
        let lines: String = (0..items).map(|number| self.item(number) + "\n").collect();
        Ok(std::fs::write(self.folder.join(name), lines)?)
    }

    fn recipe(&self, media: &str) -> Fallible<PathBuf> {
        let path = self.folder.join(format!("recipe-{media}.toml"));
        let mut text = include_str!("../config/recipes/default.toml")
            .replace("media = \"frames+audio\"", &format!("media = {media:?}"));
        if media == "frames" {
            // The smallest body there is: what is not sending weighs most beside it.
            text = text.replace("max_frames = 5", "max_frames = 1");
        }
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Fills the media cache of an output directory that is not begun yet.
    async fn warm(&self, out: &Path, media: &str, simulator: &Simulator) -> Fallible<()> {
        let other = self.folder.join("warm");
        self.whole(&other, "one.jsonl", media, simulator, async |_| Ok(())).await?;
        std::fs::create_dir_all(out.join(".aurelia"))?;
        std::fs::rename(other.join(".aurelia/media"), out.join(".aurelia/media"))?;
        Ok(std::fs::remove_dir_all(other)?)
    }

    /// `aurelia run`, and how many transactions its state made.
    async fn whole(
        &self,
        out: &Path,
        corpus: &str,
        media: &str,
        simulator: &Simulator,
        look: impl AsyncFnMut(f64) -> Fallible<()>,
    ) -> Fallible<(Used, f64)> {
        let config = self.folder.join("config.toml");
        let text = format!(
            "[providers.gemini]\nbase_url = \"{}\"\n\n[[limits]]\nprovider = \"gemini\"\nmodel = \"*\"\n",
            simulator.url
        );
        std::fs::write(&config, text)?;
        let log = self.folder.join("log.txt");
        let mut command = Command::new(env!("CARGO_BIN_EXE_aurelia"));
        command
            .args(["run", "--json", "--concurrency", &CONCURRENCY.to_string(), "--corpus"])
            .arg(self.folder.join(corpus))
            .arg("--out")
            .arg(out)
            .arg("--config")
            .arg(config)
            .arg("--recipe")
            .arg(self.recipe(media)?)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GEMINI_API_KEY", "bench")
            .env("AURELIA__TELEMETRY__LOG", "warn,aurelia::state=debug")
            .env("AURELIA__TELEMETRY__FORMAT", "json")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?);
        let used = Running::start(&mut command)?.finish(look).await;
        let log = std::fs::read_to_string(log)?;
        let used = used.map_err(|error| format!("aurelia run: {error}\n{log}"))?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let commits = lines.filter_map(|line| line["fields"]["commits"].as_f64()).sum();
        Ok((used, commits))
    }

    /// The bare sender over what the run in `out` sent.
    async fn bare(&self, out: &Path, media: &str, simulator: &Simulator) -> Fallible<Used> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(out).arg(self.item(0)).arg(self.recipe(media)?).arg(&simulator.url);
        let mut running = Running::start(command.stdout(Stdio::piped()))?;
        let told = running.child().stdout.take();
        let used = running.finish(async |_| Ok(())).await?;
        let told: Value = serde_json::from_reader(told.ok_or("no output of the bare sender")?)?;
        let number = |name: &str| told[name].as_f64().ok_or_else(|| format!("the bare sender tells no {name}"));
        Ok(Used { cpu: number("cpu")?, seconds: number("seconds")?, ..used })
    }
}
