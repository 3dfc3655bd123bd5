//! What every program of a fleet stands on: the broker, the shared state, and the signals to stop.
//!
//! Nothing here waits for a server to be there: a program starts before its broker and its Redis, is not ready, and goes
//! on when they come. Publishing and consuming have a connection each ([`crate::queue`]).

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, QueueUrl, Shared};
use crate::queue::{Link, Publisher, Topology};
use crate::shared::Redis;
use crate::shared::jobs::Jobs;
use crate::shared::runs::Runs;
use crate::shutdown::Shutdown;

/// One program's part in a fleet.
#[derive(Debug)]
pub struct Fleet {
    /// The configuration.
    pub config: Config,
    /// The shared state.
    pub redis: Redis,
    /// What runs there are.
    pub runs: Runs,
    /// What is under way in them.
    pub jobs: Jobs,
    /// Names and arguments at the broker.
    pub topology: Topology,
    /// What is published over.
    pub outgoing: Link,
    /// What is consumed over.
    pub incoming: Link,
    /// Publishes over [`Fleet::outgoing`].
    pub publisher: Publisher,
    /// The signals.
    pub shutdown: Shutdown,
    tasks: TaskTracker,
    close: CancellationToken,
}

impl Fleet {
    /// Opens what a program works with; `name` is shown by the broker. Within a tokio runtime.
    ///
    /// # Errors
    /// One sentence: the configuration names no broker or no Redis.
    pub fn open(config: Config, name: &str) -> Result<Self, String> {
        let QueueUrl::Broker(broker) = &config.queue.url else {
            return Err(
                "queue.url names no broker; set AURELIA__QUEUE__URL=amqp://USER:PASSWORD@HOST:PORT/VHOST (for one machine \
                 without a broker there is `aurelia run`)"
                    .to_owned(),
            );
        };
        let Shared::Redis { address, prefix, .. } = &config.shared else {
            return Err("shared.url names no Redis, which the programs of a fleet share; set \
                 AURELIA__SHARED__URL=redis://:PASSWORD@HOST:PORT/DB"
                .to_owned());
        };
        let (tasks, close) = (TaskTracker::new(), CancellationToken::new());
        let link = |way: &str| Link::open(broker.clone(), format!("{name} {way}"), &tasks, close.clone());
        let (outgoing, incoming) = (link("publishes"), link("consumes"));
        let redis = Redis::new(address.clone(), prefix.clone());
        Ok(Self {
            runs: Runs::new(redis.clone()),
            jobs: Jobs::new(redis.clone()),
            redis,
            topology: Topology::new(config.queue.prefix.clone()),
            publisher: Publisher::new(outgoing.clone()),
            outgoing,
            incoming,
            shutdown: Shutdown::default(),
            tasks,
            close,
            config,
        })
    }

    /// What runs until the fleet is closed, and is waited for then.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Told when the fleet is closed.
    pub fn closing(&self) -> CancellationToken {
        self.close.clone()
    }

    /// Says good-bye to the broker. What is not acknowledged goes back to its queue.
    pub async fn close(&self) {
        self.close.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
