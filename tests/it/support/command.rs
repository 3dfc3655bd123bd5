//! The real binary, as a child process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, Sim, Workdir, promises};

/// The keys that runs have unless a test takes them away.
pub(crate) const GEMINI_KEY: &str = "AIzaSy-harness-gemini-4f1d9c";
pub(crate) const OPENAI_KEY: &str = "sk-harness-openai-77ab02";

/// No limits, waits of milliseconds: a test that is about limits or waits sets them.
const CONFIG: &str = r#"
[worker]
concurrency = 8
[retry]
base_ms = 2
max_ms = 10
backoff_ms = 20
[http]
connect_seconds = 5
first_byte_seconds = 60
[[limits]]
provider = "gemini"
model = "*"
[[limits]]
provider = "openai"
model = "*"
"#;

/// A command line in the making.
pub(crate) struct Aurelia<'a> {
    work: &'a Workdir,
    program: &'static str,
    stdin: Option<PathBuf>,
    command: Vec<OsString>,
    /// A program that starts it, with its arguments; none: it is started itself.
    through: Vec<OsString>,
    configs: Vec<PathBuf>,
    env: Vec<(String, Option<OsString>)>,
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process that is under way; killed when dropped.
pub(crate) struct Running<'a> {
    work: &'a Workdir,
    child: Child,
    logs: [PathBuf; 2],
    began: Instant,
    line: String,
}

impl<'a> Aurelia<'a> {
    /// A command that speaks to `sim`, with both keys.
    pub(crate) fn new(work: &'a Workdir, sim: &Sim) -> Self {
        Self::at(work, &sim.base_url())
    }

    /// A command that speaks to `base_url`, with both keys.
    pub(crate) fn at(work: &'a Workdir, base_url: &str) -> Self {
        let aurelia = Self::bare(work, env!("CARGO_BIN_EXE_aurelia"));
        aurelia
            .config(CONFIG)
            .env("GEMINI_API_KEY", GEMINI_KEY)
            .env("OPENAI_API_KEY", OPENAI_KEY)
            .env("AURELIA__PROVIDERS__GEMINI__BASE_URL", base_url)
            .env("AURELIA__PROVIDERS__OPENAI__BASE_URL", &format!("{base_url}/v1"))
    }

    /// Another program of ours.
    #[cfg(feature = "fleet")]
    pub(crate) fn program(mut self, path: &'static str) -> Self {
        self.program = path;
        self
    }

    /// Another program, with nothing set.
    pub(crate) fn bare(work: &'a Workdir, program: &'static str) -> Self {
        let (command, through, configs, env) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { work, program, stdin: None, command, through, configs, env }
    }

    /// Has it read this file from standard input.
    #[cfg(feature = "fleet")]
    pub(crate) fn stdin(mut self, file: &Path) -> Self {
        self.stdin = Some(file.to_owned());
        self
    }

    /// `run --corpus CORPUS --out out --json`: the usual run.
    pub(crate) fn corpus(self, corpus: &Path) -> Self {
        let out = self.work.out();
        self.arg("run").arg("--corpus").arg(corpus).arg("--out").arg(out).arg("--json")
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable. Values of `*_API_KEY` are secrets from now on.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        if name.ends_with("_API_KEY") && !value.trim().is_empty() {
            return self.secret(name, value);
        }
        self.env.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Sets a variable whose value may be found nowhere.
    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.work.secrets.borrow_mut().insert(value.to_owned());
        self.env.push((name.to_owned(), Some(value.into())));
        self
    }

    /// Takes a variable away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.push((name.to_owned(), None));
        self
    }

    /// Adds a configuration file with this text; it wins over those before it.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        let name = format!("logs/{}.toml", number());
        self.configs.push(self.work.write(&name, toml));
        self
    }

    /// Has it started by another program, which gets its command line as further arguments.
    pub(crate) fn through<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, program: I) -> Self {
        self.through = program.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Has it started so that a write beyond the largest file size allowed is an error and no signal.
    pub(crate) fn told_of_full_disks(mut self) -> Self {
        self.through = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"].map(OsString::from).into();
        self
    }

    /// Has it started once for each of `names`, which stand for `@` in its arguments, and writes to `result` what each
    /// used: exit code, peak memory of its largest process, processor time of all its processes, and time.
    pub(crate) fn measured(mut self, names: &Path, result: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hostile/measure.py");
        self.through =
            ["python3".as_ref(), script.as_ref(), result.as_os_str(), names.as_os_str()].map(OsString::from).into();
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Running<'a> {
        let number = number();
        let logs = ["stdout", "stderr"].map(|name| self.work.path(&format!("logs/{number}.{name}")));
        let [stdout, stderr] = [0, 1].map(|n: usize| Stdio::from(File::create(&logs[n]).unwrap()));
        let stdin = self.stdin.as_ref().map_or_else(Stdio::null, |file| File::open(file).unwrap().into());
        let mut line = self.through.clone();
        line.push(self.program.into());
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        command.env_clear().current_dir(self.work.path("")).stdin(stdin).stdout(stdout).stderr(stderr);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.work.path("home"));
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(&self.command);
        for config in &self.configs {
            command.arg("--config").arg(config);
        }
        let line = format!("{:?}", self.command);
        let child = command.spawn().unwrap();
        Running { work: self.work, child, logs, began: Instant::now(), line }
    }
}

#[cfg(feature = "fleet")]
impl Running<'_> {
    /// A page of a daemon's own server: its status and its body.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let address = super::until("it says where its metrics are", || {
            let said = self.stderr();
            let (_, rest) = said.split_once("metrics and health at http://")?;
            rest.split_once('\n').map(|(address, _)| address.to_owned())
        });
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: daemon\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What a daemon counts under a name, all labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.page("/metrics");
        let counted = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(counted).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Running<'_> {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// What it has said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.logs[1]).unwrap_or_default()
    }

    /// What it has printed so far.
    #[cfg(feature = "fleet")]
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.logs[0]).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; one that does not come is the test's failure.
    pub(crate) fn wait(mut self) -> Output {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(self.began.elapsed() < PATIENCE, "{} does not end; it said: {}", self.line, self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        };
        let [stdout, stderr] = self.logs.each_ref().map(|log| {
            let bytes = fs::read(log).unwrap();
            promises::no_secret(&self.line, &bytes, &self.work.secrets.borrow());
            String::from_utf8(bytes).unwrap()
        });
        Output { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Output {
    /// Itself, if it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON: the summary of `run --json`.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e} in stdout: {}\nstderr: {}", self.stdout, self.stderr))
    }

    /// The one line that it said on standard error, without the program's name.
    #[track_caller]
    pub(crate) fn sentence(&self) -> &str {
        let mut lines = self.stderr.lines().filter(|line| line.starts_with("aurelia: "));
        let line = lines.next().unwrap_or_else(|| panic!("nothing was said: {}", self.stderr));
        assert_eq!(lines.next(), None, "one sentence is enough: {}", self.stderr);
        line.trim_start_matches("aurelia: ")
    }
}

fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
