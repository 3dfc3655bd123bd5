//! What others do the same work with: Celery over the same broker and Redis, and a plain asyncio script.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::Fallible;

const REQUIREMENTS: &str = include_str!("rivals/requirements.txt");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rivals");

/// A Python with all that they need; made once per set of versions.
pub(crate) struct Rivals {
    python: PathBuf,
    folder: PathBuf,
}

impl Rivals {
    pub(crate) fn new(folder: &Path) -> Fallible<Self> {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rivals-venv");
        let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
        if !std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
            let requirements = Path::new(SCRIPTS).join("requirements.txt");
            let mut pip = Command::new(&python);
            run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements))?;
            std::fs::write(&stamp, REQUIREMENTS)?;
        }
        Ok(Self { python, folder: folder.to_owned() })
    }

    /// One worker; `extra`: processes whose use is told as well.
    pub(crate) fn celery(
        &self,
        [llm, broker, redis]: [&str; 3],
        jobs: usize,
        (pool, concurrency): (&str, usize),
        extra: &[u32],
    ) -> Fallible<Value> {
        let pids: Vec<String> = extra.iter().map(u32::to_string).collect();
        let mut command = self.script("celery_bench.py");
        command
            .args([&format!("{llm}/v1"), &jobs.to_string(), "--pool", pool])
            .args(["--conc", &concurrency.to_string(), "--pids", &pids.join(",")])
            .env("BENCH_BROKER", broker)
            .env("BENCH_BACKEND", redis)
            // The other client that its script knows keeps a pool which gets slower with its size.
            .env("BENCH_CLIENT", "requests");
        Self::result(&mut command)
    }

    pub(crate) fn plain(&self, llm: &str, jobs: usize, concurrency: usize) -> Fallible<Value> {
        let mut command = self.script("plain_async.py");
        command.args([&format!("{llm}/v1"), &jobs.to_string(), "--conc", &concurrency.to_string()]);
        Self::result(&mut command)
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(Path::new(SCRIPTS).join(name)).current_dir(&self.folder);
        for proxy in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(proxy);
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn result(command: &mut Command) -> Fallible<Value> {
        let output = run(command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        Ok(serde_json::from_str(last).map_err(|error| format!("{error}: {text}"))?)
    }
}

fn run(command: &mut Command) -> Fallible<Output> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{command:?} ends with {}:\n{said}", output.status).into())
}
