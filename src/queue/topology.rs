//! What there is at the broker, as a pure description: names, arguments, and what is bound to what.
//!
//! ```text
//! PREFIX.jobs (direct) --run--> PREFIX.run.RUN.DIGEST      one per run
//! PREFIX.wait.1m (fanout) ----> PREFIX.wait.1m.DIGEST --after its time, with the run as key--> PREFIX.jobs
//! PREFIX.records (fanout) ----> PREFIX.records.DIGEST      one consumer at a time
//! PREFIX.dead (fanout) -------> PREFIX.dead.DIGEST         our own dead letters, and those of the broker
//! ```
//!
//! Every argument is written out and means the same from RabbitMQ 3.10 to 4.x: nothing rests on a default, as those changed
//! from version to version. A queue cannot be declared again with other arguments, so its name holds a digest of them: what is
//! changed here is a new queue beside the old one. Exchanges keep their names.
//!
//! Run queues have no length limit: what comes back from a wait into a full queue would be out of sight for minutes. A
//! delivery limit of -1 was rejected: before 4.0 it means none at all.

use std::fmt;
use std::time::Duration;

use super::error::{QueueError, QueueErrorKind};
use super::publisher::Message;

/// Returns to a queue after which its message is a dead letter: only a backstop, since cuts and restarts count too.
const BACKSTOP: i64 = 200;
/// Where a message must not be lost to any number of returns.
const NEVER: i64 = 1_000_000_000;
/// Names at a broker are at most 255 bytes; the rest is ours.
const LONGEST_RUN: usize = 128;

/// Longest record: with all its tries, it is longer than any job.
const LONGEST_RECORD: usize = 16 << 20;

/// How long a message waits before it comes back to its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// 10 s.
    TenSeconds,
    /// 1 min.
    Minute,
    /// 10 min.
    TenMinutes,
    /// 1 h.
    Hour,
}

impl Tier {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::TenSeconds, Self::Minute, Self::TenMinutes, Self::Hour];

    /// The wait.
    pub fn wait(self) -> Duration {
        Duration::from_secs(match self {
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::TenMinutes => 600,
            Self::Hour => 3600,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::TenSeconds => "10s",
            Self::Minute => "1m",
            Self::TenMinutes => "10m",
            Self::Hour => "1h",
        }
    }
}

/// An argument's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A word.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name, the digest of the arguments included.
    pub name: String,
    /// Its arguments, in the order of their names.
    pub arguments: Vec<(&'static str, Argument)>,
    /// The exchange it is bound to.
    pub exchange: String,
    /// The key it is bound with; empty at a fanout.
    pub key: String,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    /// By equal key.
    Direct,
    /// To all that is bound.
    Fanout,
}

/// The names and arguments under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    prefix: String,
}

impl Topology {
    /// What lies under this prefix.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// A queue of one run's jobs. The run's name is also the routing key, so that what waited finds its way back.
    pub fn run(&self, run: &str) -> Result<Queue, QueueError> {
        if run.is_empty() || run.len() > LONGEST_RUN || run.contains(char::is_control) {
            let message = format!("the run's name {run:?} cannot be a queue's: use 1 to {LONGEST_RUN} printable bytes");
            return Err(QueueError::new(QueueErrorKind::Invalid, message));
        }
        let arguments = [self.dead_letters(), limit(BACKSTOP)].concat();
        Ok(self.queue(&format!("run.{run}"), arguments, self.jobs(), run.to_owned()))
    }

    /// Where messages wait.
    pub fn tier(&self, tier: Tier) -> Queue {
        let milliseconds = i64::try_from(tier.wait().as_millis()).unwrap_or(i64::MAX);
        let arguments = [
            vec![("x-message-ttl", Argument::Number(milliseconds))],
            // Without a routing key of its own: the message keeps the run's.
            reliably_to(self.jobs()),
            limit(NEVER),
        ];
        self.queue(&format!("wait.{}", tier.word()), arguments.concat(), self.wait(tier), String::new())
    }

    /// Where records wait for the collector, of which one at a time is served.
    pub fn records(&self) -> Queue {
        let arguments = [vec![("x-single-active-consumer", Argument::Flag(true))], self.dead_letters(), limit(NEVER)];
        self.queue("records", arguments.concat(), self.records_exchange(), String::new())
    }

    /// Where dead letters lie until somebody looks.
    pub fn dead(&self) -> Queue {
        self.queue("dead", limit(NEVER), self.dead_exchange(), String::new())
    }

    /// A job as it is published; `id` is the same however often it is sent.
    pub fn job(&self, run: &str, id: impl Into<String>, body: impl Into<Vec<u8>>) -> Message {
        Message::new(self.jobs(), run, id, body)
    }

    /// A record as it is published.
    pub fn record(&self, id: impl Into<String>, body: impl Into<Vec<u8>>) -> Message {
        Message::new(self.records_exchange(), "", id, body).up_to(LONGEST_RECORD)
    }

    /// The exchanges, in the order in which they are declared.
    pub(super) fn exchanges(&self) -> Vec<(String, Routing)> {
        let waits = Tier::ALL.map(|tier| (self.wait(tier), Routing::Fanout));
        let mut all = vec![
            (self.dead_exchange(), Routing::Fanout),
            (self.jobs(), Routing::Direct),
            (self.records_exchange(), Routing::Fanout),
        ];
        all.extend(waits);
        all
    }

    /// The queues that are there whatever runs there are; where others dead-letter to comes first.
    pub(super) fn standing(&self) -> Vec<Queue> {
        let mut all = vec![self.dead(), self.records()];
        all.extend(Tier::ALL.map(|tier| self.tier(tier)));
        all
    }

    /// A queue of no use but that it was made last (see [`super::declare`]).
    pub(super) fn throw_away(&self, unique: &str) -> Queue {
        let minute = ("x-expires", Argument::Number(60_000));
        self.queue(&format!("settle.{unique}"), vec![minute], String::new(), String::new())
    }

    pub(super) fn wait(&self, tier: Tier) -> String {
        format!("{}.wait.{}", self.prefix, tier.word())
    }

    pub(super) fn dead_exchange(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    fn jobs(&self) -> String {
        format!("{}.jobs", self.prefix)
    }

    fn records_exchange(&self) -> String {
        format!("{}.records", self.prefix)
    }

    fn dead_letters(&self) -> Vec<(&'static str, Argument)> {
        reliably_to(self.dead_exchange())
    }

    fn queue(&self, name: &str, mut arguments: Vec<(&'static str, Argument)>, exchange: String, key: String) -> Queue {
        arguments.push(("x-queue-type", Argument::Text("quorum".to_owned())));
        arguments.sort_by_key(|(name, _)| *name);
        let text: String = arguments.iter().map(|(name, argument)| format!("{name}={argument}\n")).collect();
        let digest = blake3::hash(text.as_bytes()).to_hex();
        Queue { name: format!("{}.{name}.{}", self.prefix, &digest[..8]), arguments, exchange, key }
    }
}

/// Dead-letters so that nothing is lost between two queues, for which the broker wants both other words.
fn reliably_to(exchange: String) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-dead-letter-exchange", Argument::Text(exchange)),
        ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
    ]
}

fn limit(returns: i64) -> Vec<(&'static str, Argument)> {
    vec![("x-delivery-limit", Argument::Number(returns))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(queue: &Queue) -> String {
        queue.arguments.iter().map(|(name, argument)| format!("{name}={argument} ")).collect()
    }

    #[test]
    fn the_topology_is_what_brokers_have() {
        let topology = Topology::new("p");
        let run = topology.run("spring").unwrap();
        let quorum = "x-queue-type=quorum ";
        for (queue, name, arguments, bound) in [
            (
                run,
                "p.run.spring.a0205bcb",
                "x-dead-letter-exchange=p.dead x-dead-letter-strategy=at-least-once x-delivery-limit=200 \
                 x-overflow=reject-publish x-queue-type=quorum ",
                ("p.jobs", "spring"),
            ),
            (
                topology.tier(Tier::TenSeconds),
                "p.wait.10s.d11aa4d3",
                "x-dead-letter-exchange=p.jobs x-dead-letter-strategy=at-least-once x-delivery-limit=1000000000 \
                 x-message-ttl=10000 x-overflow=reject-publish x-queue-type=quorum ",
                ("p.wait.10s", ""),
            ),
            (
                topology.records(),
                "p.records.14ca7cc5",
                "x-dead-letter-exchange=p.dead x-dead-letter-strategy=at-least-once x-delivery-limit=1000000000 \
                 x-overflow=reject-publish x-queue-type=quorum x-single-active-consumer=true ",
                ("p.records", ""),
            ),
            (topology.dead(), "p.dead.cd2f0029", &format!("x-delivery-limit=1000000000 {quorum}"), ("p.dead", "")),
        ] {
            assert_eq!((queue.name.as_str(), shown(&queue).as_str()), (name, arguments));
            assert_eq!((queue.exchange.as_str(), queue.key.as_str()), bound);
        }
    }

    #[test]
    fn other_arguments_are_another_queue_and_every_key_has_its_own() {
        let topology = Topology::new("p");
        let [short, long] = [Tier::TenSeconds, Tier::Hour].map(|tier| topology.tier(tier).name);
        assert_ne!(short.rsplit_once('.').unwrap().1, long.rsplit_once('.').unwrap().1);
        assert_ne!(topology.run("a").unwrap().name, topology.run("b").unwrap().name);
        assert_ne!(topology.run("a").unwrap().name, Topology::new("q").run("a").unwrap().name);
    }

    #[test]
    fn a_name_that_no_queue_can_have_is_refused() {
        let topology = Topology::new("p");
        for run in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(topology.run(run).unwrap_err().kind, QueueErrorKind::Invalid, "{run:?}");
        }
    }
}
