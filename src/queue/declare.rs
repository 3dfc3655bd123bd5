//! Makes the topology at a broker, or finds it made.
//!
//! Where messages go comes before what sends them there: what has waited and finds no queue is tried again only after minutes.
//! Each queue is looked for first, since a declaration does not say whether it made anything, and what is new needs care: a broker
//! killed within a second of making a quorum queue forgets the queue it made last, with the messages it had confirmed for it.
//! So a queue of no use is made last, and two seconds pass before anybody may publish.
//!
//! That a declaration succeeds proves little: old brokers ignore arguments they do not know. That it is refused means that a
//! queue of this name is other than described, and the broker's own words say in what.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};
use tokio::time::sleep;

use super::depth::count;
use super::error::{QueueError, QueueErrorKind};
use super::link::{Link, Session};
use super::publisher::short;
use super::topology::{Argument, Queue, Routing, Topology};
use crate::retry::jitter;

/// Twice what it took for the broker to have a new queue on disk, in every try.
const SETTLE: Duration = Duration::from_secs(2);
/// Longest wait before another attempt.
const AGAIN: Duration = Duration::from_secs(2);

/// What declaring found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The names of the queues that were not there before.
    pub created: Vec<String>,
}

/// Makes exchanges, standing queues and the queues of `runs`, whatever of it is missing. Waits for the broker as long as it
/// takes, and returns when what was made is safe to publish to. Not cancel safe: dropped half-way, call it again before publishing.
///
/// Errors: [`QueueErrorKind::Topology`] with the broker's words where something is other than described,
/// [`QueueErrorKind::Denied`], [`QueueErrorKind::Invalid`], [`QueueErrorKind::Stopped`].
pub async fn declare(link: &Link, topology: &Topology, runs: &[&str]) -> Result<Declared, QueueError> {
    // The runs' queues before the tiers, whose messages they get back.
    let mut queues: Vec<Queue> = runs.iter().map(|run| topology.run(run)).collect::<Result<_, _>>()?;
    queues.extend(topology.standing());
    let mut created = Vec::new();
    loop {
        let session = link.session().await?;
        match once(&session, topology, &queues, &mut created).await {
            Ok(()) => return Ok(Declared { created }),
            Err(error) if error.kind == QueueErrorKind::Unavailable => {
                tracing::warn!(%error, "the topology is not declared yet; trying again");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            biased;
            () = link.stop().cancelled() => return Err(QueueError::stopped()),
            () = sleep(AGAIN.mul_f64(jitter())) => {}
        }
    }
}

/// One attempt; `created` grows over all of them, as what an earlier one made is no less new.
async fn once(
    session: &Session,
    topology: &Topology,
    queues: &[Queue],
    created: &mut Vec<String>,
) -> Result<(), QueueError> {
    let channel = session.channel().await?;
    for (name, routing) in topology.exchanges() {
        exchange(session, &channel, &name, routing).await?;
    }
    for queue in queues {
        if count(session, &queue.name).await?.is_none() && !created.contains(&queue.name) {
            created.push(queue.name.clone());
        }
        make(session, &channel, queue).await?;
        bind(session, &channel, queue).await?;
    }
    if created.is_empty() {
        return Ok(());
    }
    let last = topology.throw_away(&format!("{:08x}", (jitter() * f64::from(u32::MAX)).to_bits() >> 20));
    make(session, &channel, &last).await?;
    let delete = channel.queue_delete(short("queue", &last.name)?, QueueDeleteOptions::default());
    session.answer("deleting a queue of no use", delete).await?;
    tokio::select! {
        biased;
        () = session.over() => Err(QueueError::unavailable("the connection was lost while new queues settled")),
        () = sleep(SETTLE) => Ok(()),
    }
}

async fn exchange(session: &Session, channel: &Channel, name: &str, routing: Routing) -> Result<(), QueueError> {
    let kind = match routing {
        Routing::Direct => ExchangeKind::Direct,
        Routing::Fanout => ExchangeKind::Fanout,
    };
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(short("exchange", name)?, kind, options, FieldTable::default());
    session.answer(&format!("declaring exchange {name}"), declared).await
}

pub(super) async fn make(session: &Session, channel: &Channel, queue: &Queue) -> Result<(), QueueError> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short("queue", &queue.name)?, options, table(queue));
    session.answer(&format!("declaring queue {}", queue.name), declared).await.map(|_| ())
}

async fn bind(session: &Session, channel: &Channel, queue: &Queue) -> Result<(), QueueError> {
    let Queue { name, exchange, key, .. } = queue;
    let (queue, from, key) = (short("queue", name)?, short("exchange", exchange)?, short("key", key)?);
    let bound = channel.queue_bind(queue, from, key, QueueBindOptions::default(), FieldTable::default());
    session.answer(&format!("binding queue {name} to {exchange}"), bound).await
}

fn table(queue: &Queue) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, argument) in &queue.arguments {
        let value = match argument {
            Argument::Text(text) => AMQPValue::from(LongString::from(text.as_str())),
            Argument::Number(number) => AMQPValue::from(*number),
            Argument::Flag(flag) => AMQPValue::from(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}
