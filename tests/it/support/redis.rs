//! A Redis of one's own: a free port, a temporary directory, and no trace left, however the tests end.
//!
//! [`RedisServer::shared`] is one for the whole test binary; tests keep apart by their prefixes. A server of a test's own may be
//! killed and started again over what it had written.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::until;

/// A server, running or not.
pub(crate) struct RedisServer {
    dir: TempDir,
    port: u16,
    appendfsync: &'static str,
    extra: Vec<String>,
    running: Option<(Child, ChildStdin)>,
}

impl RedisServer {
    /// The address of the one that tests share.
    pub(crate) fn shared() -> String {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::own("everysec")).url()
    }

    /// One that may be killed, which keeps what it answered for as `appendfsync` says.
    pub(crate) fn own(appendfsync: &'static str) -> Self {
        Self::with(appendfsync, &[])
    }

    /// One with further arguments.
    pub(crate) fn with(appendfsync: &'static str, extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("aurelia-redis-").tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let extra = extra.iter().map(|word| (*word).to_owned()).collect();
        let mut server = Self { dir, port, appendfsync, extra, running: None };
        server.start();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, and returns when it answers.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        // The server ends when the pipe to this process closes, also if this process is killed.
        let script = "redis-server \"$@\" >\"$0/log\" 2>&1 & server=$!; cat >/dev/null; kill -9 $server; sleep 0.1; rm -rf \"$0\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(self.dir.path())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", self.appendfsync, "--dir"])
            .arg(self.dir.path())
            .args(&self.extra)
            .stdin(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let alive = child.stdin.take().unwrap();
        self.running = Some((child, alive));
        until("redis answers (install it with: tools/need redis-server:redis-server)", || self.answers().then_some(()));
    }

    /// Kills it as a power cut would, but for the page cache.
    pub(crate) fn kill(&mut self) {
        let (mut child, _alive) = self.running.take().expect("it runs");
        // Both of the group: the shell, and the server.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        child.wait().unwrap();
        until("the port is free again", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err().then_some(()));
    }

    /// Says something to it, and gives its answer in the protocol's own words.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut answer = [0; 5];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"+PONG"
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}
