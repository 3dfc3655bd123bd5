//! Redis as the state that a fleet shares: one connection that comes back by itself, and scripts.
//!
//! ```text
//! address    where it is, the password hidden          script   an atomic step, on keys of one hash tag
//! runs       what runs there are, with their items      jobs    which jobs are started, and which wait
//! claims     one of many does a thing, the others wait
//! ```
//!
//! The journal's entries, quota with money, and uploads have their own modules beside their embedded kin
//! ([`crate::journal`], [`crate::quota`], [`crate::upload`]). Everything here fails closed: an error means that nothing is
//! known, and whoever would spend money on it waits.
//!
//! The library's own connection manager is not used: it keeps a connection that no longer answers, for as long as the
//! kernel does. Here a command that has no answer in time ends the connection, and the next command makes a new one.

pub mod address;
pub mod claims;
pub mod jobs;
pub mod runs;
pub mod script;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisFuture, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub use address::Address;
pub use script::{Function, Script};

use crate::retry::jitter;
use crate::state::StateError;

/// Until a connection stands, and for one answer of a script.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);

/// The shared state. Clones share one connection, over which any number of commands are under way.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    prefix: String,
    standing: Mutex<Standing>,
    /// What is told in passing: nobody waits for it.
    passing: TaskTracker,
}

#[derive(Default)]
struct Standing {
    /// The number of the connection, so that one failure does not end the next one's.
    number: u64,
    connection: Option<Connection>,
    /// When the last attempt failed, and why: who waited for it has failed with it.
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({}, {:?})", self.inner.address, self.inner.prefix)
    }
}

impl Redis {
    /// Names below `prefix` at this address. Connects when it is first used.
    pub fn new(address: Address, prefix: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                address,
                prefix: prefix.into(),
                standing: Mutex::default(),
                passing: TaskTracker::new(),
            }),
        }
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// A key in the slot of `tag`, which scripts may use together with others of the same tag. The tag holds no brace.
    pub fn key(&self, tag: &str, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.inner.prefix, tag.replace(['{', '}'], "_"))
    }

    /// One command. Cancel safe: dropped, it may have been carried out.
    ///
    /// # Errors
    /// No connection, no answer in time, or the server's own words.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StateError> {
        let (number, mut connection) = self.connection().await?;
        let answer = timeout(ANSWER, command.query_async(&mut connection)).await;
        self.answered(number, answer).await
    }

    /// Several commands at once, on keys of one slot where the server is a cluster.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn pipeline<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StateError> {
        let (number, mut connection) = self.connection().await?;
        let answer = timeout(ANSWER, commands.query_async(&mut connection)).await;
        self.answered(number, answer).await
    }

    /// Runs a script; see [`Script`]. A server that was started again is given it again.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn run<T: FromRedisValue>(&self, step: &script::Step<'_>) -> Result<T, StateError> {
        step.one_slot().map_err(|why| self.failed(why))?;
        let (number, mut connection) = self.connection().await?;
        let answer = timeout(ANSWER, step.invoke(&mut connection)).await;
        self.answered(number, answer).await
    }

    /// Gives the server a function; see [`Function`], which does it by itself where it is called.
    ///
    /// # Errors
    /// As [`Redis::command`].
    pub async fn load(&self, function: &Function) -> Result<(), StateError> {
        let (number, mut connection) = self.connection().await?;
        let answer = timeout(ANSWER, function.load(&mut connection)).await;
        self.answered(number, answer).await
    }

    /// Does something in passing, which nobody waits for and which is no loss if it is lost. Outside of a runtime it is.
    pub(crate) fn in_passing(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.inner.passing.spawn_on(task, &runtime);
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), StateError> {
        self.command::<String>(&redis::cmd("PING")).await.map(|_| ())
    }

    async fn connection(&self) -> Result<(u64, Connection), StateError> {
        let asked = Instant::now();
        let mut standing = self.inner.standing.lock().await;
        if let Some(connection) = &standing.connection {
            return Ok((standing.number, connection.clone()));
        }
        // Else a queue of callers would each wait for an attempt of their own at a server that is silent.
        if let Some((when, why)) = &standing.failed
            && *when > asked
        {
            return Err(self.failed(why));
        }
        let why = match timeout(CONNECT, connect(&self.inner.address)).await {
            Ok(Ok(connection)) => {
                standing.number += 1;
                standing.connection = Some(connection.clone());
                return Ok((standing.number, connection));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT.as_secs()),
        };
        standing.failed = Some((Instant::now(), why.clone()));
        Err(self.failed(&why))
    }

    async fn answered<T>(
        &self,
        number: u64,
        answer: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, StateError> {
        let (lost, why) = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                // A cluster's own connection finds its nodes again.
                let lost = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
                (lost, error.to_string())
            }
            Err(_) => (true, format!("no answer within {} s", ANSWER.as_secs())),
        };
        if lost {
            let mut standing = self.inner.standing.lock().await;
            if standing.number == number {
                standing.connection = None;
            }
        }
        Err(self.failed(&why))
    }

    fn failed(&self, message: &str) -> StateError {
        StateError::Failed { path: self.inner.address.to_string().into(), message: message.to_owned() }
    }
}

/// A word that nobody else in the fleet has, for what its holder must be known by.
pub(crate) fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = format!("{now} {} {host} {}", std::process::id(), jitter());
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

async fn connect(address: &Address) -> redis::RedisResult<Connection> {
    match address.client()? {
        address::Client::One(client) => {
            // Our own deadlines, which also end the connection.
            let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            Ok(Connection::One(client.get_multiplexed_async_connection_with_config(&config).await?))
        }
        address::Client::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
