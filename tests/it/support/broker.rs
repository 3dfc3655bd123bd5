//! A RabbitMQ of one's own: free ports, a temporary directory, and no trace left, however the tests end.
//!
//! [`Broker::shared`] is one for the whole test binary; tests keep apart by their prefixes. [`Broker::own`] is for tests that
//! kill it, one test at a time, since two cores carry no more. Both are started when they are first asked for.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::until;

/// Debian's scripts; its programs in /usr/sbin change to another user first.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// A broker, running or not.
pub(crate) struct Broker {
    dir: TempDir,
    port: u16,
    dist_port: u16,
    epmd_port: u16,
    node: String,
    running: Option<Child>,
    _epmd: Warden,
}

/// Ends a process group and removes a directory when this process is gone, also if it was killed.
struct Warden {
    child: Child,
    _alive: ChildStdin,
}

impl Broker {
    /// The address of the one that tests share.
    pub(crate) fn shared() -> String {
        static SHARED: OnceLock<Mutex<Broker>> = OnceLock::new();
        lock(SHARED.get_or_init(|| Mutex::new(Self::started()))).url()
    }

    /// The one that may be killed; it runs, whatever the test before did to it.
    pub(crate) fn own() -> MutexGuard<'static, Self> {
        static OWN: OnceLock<Mutex<Broker>> = OnceLock::new();
        let mut own = lock(OWN.get_or_init(|| Mutex::new(Self::started())));
        if own.running.is_none() {
            own.start();
        }
        own
    }

    fn started() -> Self {
        let dir = tempfile::Builder::new().prefix("aurelia-broker-").tempdir().unwrap();
        let [port, dist_port, epmd_port] = free_ports();
        let node = format!("aurelia-{port}@localhost");
        fs::write(dir.path().join("rabbitmq.conf"), CONFIG).unwrap();
        fs::write(dir.path().join("plugins"), "[].\n").unwrap();
        fs::write(dir.path().join("env"), "").unwrap();
        let epmd = Warden::start(dir.path(), epmd_port);
        let mut broker = Self { dir, port, dist_port, epmd_port, node, running: None, _epmd: epmd };
        broker.start();
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it, and returns when it takes connections.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "the broker runs already");
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("console")).unwrap();
        let mut command = self.script("rabbitmq-server");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let child =
            command.spawn().expect("rabbitmq-server is installed; run: tools/need rabbitmq-server:rabbitmq-server");
        // For the warden, which has to know it even if this process is killed.
        fs::write(self.dir.path().join("group"), child.id().to_string()).unwrap();
        self.running = Some(child);
        until("the broker takes connections", || self.greets().then_some(()));
    }

    /// Kills it as a power cut would, but for the page cache.
    pub(crate) fn kill(&mut self) {
        let mut child = self.running.take().expect("the broker runs");
        end(&child);
        child.wait().unwrap();
    }

    /// Tells the node something with rabbitmqctl, and gives what it says.
    pub(crate) fn control(&self, args: &[&str]) -> String {
        let output = self.script("rabbitmqctl").arg("-q").args(args).output().unwrap();
        assert!(output.status.success(), "rabbitmqctl {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn script(&self, name: &str) -> Command {
        let dir = self.dir.path();
        let mut command = Command::new(Path::new(SCRIPTS).join(name));
        command
            .env_clear()
            .current_dir(dir)
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", dir)
            .env("LANG", "C.UTF-8")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("data"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("env"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            // Else its schedulers spin while they wait, on cores that others need (RabbitMQ's "Runtime Tuning").
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none +sbwtdio none");
        command
    }

    /// Whether it speaks the protocol: the port alone is open earlier.
    fn greets(&self) -> bool {
        use std::io::Read as _;
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // A frame of method on channel 0 is the broker's first word.
        let mut first = [0; 3];
        stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read_exact(&mut first).is_ok() && first == [1, 0, 0]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.kill();
        }
    }
}

/// Small memory for the log, and no plugin, web page or limit of the machine in the way.
const CONFIG: &str = "\
loopback_users.guest = true
raft.wal_max_size_bytes = 16000000
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 2GB
log.file.level = warning
log.console = false
cluster_name = aurelia
";

impl Warden {
    /// Runs the node's name service, and ends it and the broker when the pipe to this process closes.
    fn start(dir: &Path, port: u16) -> Self {
        let script = "epmd -address 127.0.0.1 -port \"$1\" >/dev/null 2>&1 & epmd=$!\n\
                      cat >/dev/null\n\
                      kill -9 $epmd; [ -f \"$0/group\" ] && kill -9 -\"$(cat \"$0/group\")\" 2>/dev/null\n\
                      sleep 0.1; rm -rf \"$0\"";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .arg(dir)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let alive = child.stdin.take().unwrap();
        until("the node's name service listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Self { child, _alive: alive }
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        end(&self.child);
        drop(self.child.wait());
    }
}

fn end(child: &Child) {
    // It may be gone already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// Three at once, so that they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [0; 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that failed has told why; the broker is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
