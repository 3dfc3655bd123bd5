//! What the queue promises, against a real broker that is killed, cut off and short of memory.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aurelia::queue::{
    Address, Arrival, Delivery, Intake, Link, Outcome, Publisher, QueueErrorKind, Records, Settled, State, Tag, Tier,
    Topology, declare,
};
use lapin::options::{BasicGetOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::PATIENCE;
use super::support::{Broker, Cable};

/// A broker killed within a second of a queue's making loses it; what a test asks of the queue begins after that.
const SETTLED: Duration = Duration::from_secs(3);

/// Both links of a daemon, and what goes over them.
struct Daemon {
    topology: Topology,
    publish: Link,
    consume: Link,
    publisher: Publisher,
    intake: Intake,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Daemon {
    fn start(url: &str, prefix: &str) -> Self {
        let address: Address = url.parse().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let [publish, consume] =
            ["publish", "consume"].map(|name| Link::open(address.clone(), name, &tasks, stop.clone()));
        let topology = Topology::new(prefix);
        let publisher = Publisher::new(publish.clone());
        let intake = Intake::new(consume.clone(), publisher.clone(), topology.clone());
        Self { topology, publish, consume, publisher, intake, stop, tasks }
    }

    /// One whose topology is declared, with these runs.
    async fn declared(url: &str, prefix: &str, runs: &[&str]) -> Self {
        let daemon = Self::start(url, prefix);
        within(declare(&daemon.publish, &daemon.topology, runs)).await.unwrap();
        daemon
    }

    async fn job(&self, run: &str, id: &str) {
        let message = self.topology.job(run, id, format!("body of {id}"));
        within(self.publisher.publish(&message)).await.unwrap();
    }

    /// The next job; a lost connection is no end of it.
    async fn take(&self, run: &str) -> Delivery {
        let taken = async {
            loop {
                match self.intake.take(run).await {
                    Ok(Some(delivery)) => return delivery,
                    Ok(None) => sleep(Duration::from_millis(20)).await,
                    Err(error) => assert_eq!(error.kind, QueueErrorKind::Unavailable, "{error}"),
                }
            }
        };
        within(taken).await
    }

    async fn take_nothing(&self, run: &str) {
        let taken = within(self.intake.take(run)).await.unwrap();
        assert!(taken.is_none(), "{taken:?}");
    }

    /// Takes and acknowledges until the queue is empty.
    async fn drain(&self, run: &str) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(delivery) = within(self.intake.take(run)).await.unwrap() {
            ids.push(delivery.id.clone());
            assert_eq!(delivery.ack().await, Settled::Told);
        }
        ids
    }

    async fn both(&self, wanted: impl Fn(&State) -> bool + Copy) {
        for link in [&self.publish, &self.consume] {
            within(link.state().wait_for(wanted)).await.unwrap();
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        within(self.tasks.wait()).await;
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it comes in time")
}

fn connected(state: &State) -> bool {
    *state == State::Connected
}

fn connecting(state: &State) -> bool {
    matches!(state, State::Connecting(_))
}

/// The client library without us in between.
async fn plain(url: &str) -> (Connection, Channel) {
    let connection = within(Connection::connect(url, ConnectionProperties::default())).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Messages that are ready in a queue.
async fn ready(channel: &Channel, queue: &str) -> u32 {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap().message_count()
}

fn text(headers: &FieldTable, name: &str) -> String {
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn declaring_twice_changes_nothing_and_tells_what_is_new() {
    let daemon = Daemon::start(&Broker::shared(), "twice");
    let declared = |runs: &'static [&'static str]| declare(&daemon.publish, &daemon.topology, runs);
    let first = within(declared(&["a"])).await.unwrap();
    assert_eq!(first.created.len(), 7, "{first:?}");
    let began = Instant::now();
    assert_eq!(within(declared(&["a"])).await.unwrap().created, Vec::<String>::new());
    println!("declared again in {:?}", began.elapsed());
    let third = within(declared(&["a", "b"])).await.unwrap();
    assert_eq!(third.created, [daemon.topology.run("b").unwrap().name]);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_other_than_described_is_reported_in_the_brokers_words() {
    let url = Broker::shared();
    let topology = Topology::new("other");
    let name = topology.run("a").unwrap().name;
    let (_connection, channel) = plain(&url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), LongString::from("quorum").into());
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    let daemon = Daemon::start(&url, "other");
    let error = within(declare(&daemon.publish, &daemon.topology, &["a"])).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, QueueErrorKind::Topology);
    assert!(error.message.contains(&name) && error.message.contains("inequivalent arg 'x-"), "{error}");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_an_error_and_its_job_is_not_acknowledged() {
    let daemon = Daemon::declared(&Broker::shared(), "unroutable", &["a"]).await;
    // Among many that are routable: none is taken for another.
    let mut sent = JoinSet::new();
    for number in 0..400 {
        let run = if number % 4 == 0 { "nobody" } else { "a" };
        let message = daemon.topology.job(run, format!("{number}"), "x");
        let publisher = daemon.publisher.clone();
        sent.spawn(async move { (run, publisher.publish(&message).await) });
    }
    for (run, result) in within(sent.join_all()).await {
        assert_eq!(result.as_ref().err().map(|e| e.kind), (run == "nobody").then_some(QueueErrorKind::Topology));
    }
    assert_eq!(daemon.drain("a").await.len(), 300);
    // A job whose dead letter reaches no queue stays a job.
    daemon.job("a", "kept").await;
    let (_connection, channel) = plain(&Broker::shared()).await;
    let dead = daemon.topology.dead();
    channel.queue_unbind(dead.name.into(), dead.exchange.into(), "".into(), FieldTable::default()).await.unwrap();
    let error = within(daemon.take("a").await.dead("unreadable", "no JSON")).await.unwrap_err();
    println!("{error}");
    assert_eq!(error.kind, QueueErrorKind::Topology);
    assert!(error.message.contains("312 NO_ROUTE"), "{error}");
    let again = daemon.take("a").await;
    assert_eq!((again.id.as_str(), again.returned), ("kept", 1));
    daemon.take_nothing("a").await;
    drop(again);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_exchange_that_is_gone_costs_no_other_message() {
    let daemon = Daemon::declared(&Broker::shared(), "gone", &["a"]).await;
    let elsewhere = Topology::new("never-declared");
    let mut sent = JoinSet::new();
    for number in 0..60 {
        let topology = if number % 3 == 0 { &elsewhere } else { &daemon.topology };
        let message = topology.job("a", format!("{number}"), "x");
        let publisher = daemon.publisher.clone();
        sent.spawn(async move { (number % 3 == 0, publisher.publish_once(&message).await.unwrap()) });
    }
    for (gone, outcome) in within(sent.join_all()).await {
        match outcome {
            Outcome::Returned(words) if gone => assert!(words.contains("no exchange"), "{words}"),
            outcome => assert_eq!((gone, outcome), (false, Outcome::Confirmed)),
        }
    }
    assert_eq!(daemon.drain("a").await.len(), 40);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_comes_back_to_its_own_run() {
    let daemon = Daemon::declared(&Broker::shared(), "parked", &["a", "b"]).await;
    for run in ["a", "b"] {
        daemon.job(run, &format!("of {run}")).await;
    }
    let began = Instant::now();
    for run in ["a", "b"] {
        let delivery = daemon.take(run).await;
        let settled = within(delivery.park(Tier::TenSeconds, format!("continued {run}"))).await.unwrap();
        assert_eq!(settled, Settled::Told);
        daemon.take_nothing(run).await;
    }
    for run in ["a", "b"] {
        let back = daemon.take(run).await;
        println!("{run}: back after {:?}", began.elapsed());
        assert!(began.elapsed() >= Tier::TenSeconds.wait());
        let found = (back.id.as_str(), back.run.as_str(), back.body.as_slice(), back.parked, back.returned);
        assert_eq!(found, (&*format!("of {run}"), run, format!("continued {run}").as_bytes(), 1, 0));
        back.ack().await;
        daemon.take_nothing(run).await;
    }
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_or_dropped_comes_again() {
    let daemon = Daemon::declared(&Broker::shared(), "back", &["a"]).await;
    daemon.job("a", "it").await;
    assert_eq!(daemon.take("a").await.give_back().await, Settled::Told);
    let again = daemon.take("a").await;
    assert_eq!((again.returned, again.parked), (1, 0));
    drop(again);
    assert_eq!(daemon.take("a").await.returned, 2);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_carry_their_reason_and_history() {
    let url = Broker::shared();
    let daemon = Daemon::declared(&url, "dead", &["a"]).await;
    daemon.job("a", "ill").await;
    within(daemon.take("a").await.park(Tier::TenSeconds, "{")).await.unwrap();
    let delivery = daemon.take("a").await;
    assert_eq!(within(delivery.dead("unreadable", "it ends at byte 1")).await.unwrap(), Settled::Told);
    daemon.take_nothing("a").await;
    let (_connection, channel) = plain(&url).await;
    let queue = daemon.topology.dead().name;
    let letter = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let headers = letter.properties.headers().clone().unwrap();
    assert_eq!(letter.data, b"{");
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "ill");
    let said = ["reason", "detail", "run", "history"].map(|name| text(&headers, &format!("aurelia-{name}")));
    println!("{said:?}");
    let waited = daemon.topology.tier(Tier::TenSeconds).name;
    assert_eq!(said, ["unreadable", "it ends at byte 1", "a", &format!("expired in {waited}, times 1")]);
    assert_eq!(headers.inner().get("aurelia-parked"), Some(&AMQPValue::LongLongInt(1)));
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_through_a_tag_acknowledges_what_it_says() {
    let url = Broker::shared();
    let daemon = Daemon::declared(&url, "through", &[]).await;
    for number in 0..10 {
        within(daemon.publisher.publish(&daemon.topology.record(format!("{number}"), "r"))).await.unwrap();
    }
    let mut records = Records::new(daemon.consume.clone(), &daemon.topology, 100);
    let mut tags = Vec::new();
    for number in 0..10 {
        let (id, tag) = record(&mut records).await;
        assert_eq!(id, number.to_string());
        tags.push(tag);
    }
    assert_eq!(records.ack_through(tags[5]).await, Settled::Told);
    within(records.close()).await;
    let mut next = Records::new(daemon.consume.clone(), &daemon.topology, 100);
    let mut left = Vec::new();
    for _ in 6..10 {
        left.push(record(&mut next).await);
    }
    let ids: Vec<&str> = left.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["6", "7", "8", "9"]);
    assert_eq!(next.ack_through(left[3].1).await, Settled::Told);
    within(next.close()).await;
    let (_connection, channel) = plain(&url).await;
    assert_eq!(ready(&channel, &daemon.topology.records().name).await, 0);
    daemon.end().await;
}

/// The next record; the stream must not be lost meanwhile.
async fn record(records: &mut Records) -> (String, Tag) {
    match within(records.next()).await.unwrap() {
        Arrival::Record(record) => (record.id, record.tag),
        lost @ Arrival::Rebuilt(_) => panic!("{lost:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_queue_is_deleted_says_so_and_goes_on_when_it_is_back() {
    let url = Broker::shared();
    let daemon = Daemon::declared(&url, "deleted", &[]).await;
    within(daemon.publisher.publish(&daemon.topology.record("1", "r"))).await.unwrap();
    let mut records = Records::new(daemon.consume.clone(), &daemon.topology, 100);
    let (_, tag) = record(&mut records).await;
    let (_connection, channel) = plain(&url).await;
    channel.queue_delete(daemon.topology.records().name.into(), QueueDeleteOptions::default()).await.unwrap();
    let lost = within(records.next()).await.unwrap();
    println!("{lost:?}");
    assert!(matches!(lost, Arrival::Rebuilt(_)), "{lost:?}");
    assert_eq!(records.ack_through(tag).await, Settled::Lost);
    assert_eq!(within(records.next()).await.unwrap_err().kind, QueueErrorKind::Topology);
    within(declare(&daemon.publish, &daemon.topology, &[])).await.unwrap();
    within(daemon.publisher.publish(&daemon.topology.record("2", "r"))).await.unwrap();
    assert_eq!(record(&mut records).await.0, "2");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "the broker that may be killed is for one test at a time")]
async fn confirmed_messages_survive_a_kill_of_the_broker_and_everything_comes_back_by_itself() {
    let mut broker = Broker::own();
    let daemon = Daemon::declared(&broker.url(), "killed", &["a"]).await;
    sleep(SETTLED).await;
    daemon.job("a", "held").await;
    let held = daemon.take("a").await;
    let mut records = Records::new(daemon.consume.clone(), &daemon.topology, 100);
    within(daemon.publisher.publish(&daemon.topology.record("r", "r"))).await.unwrap();
    let (_, tag) = record(&mut records).await;

    // Published while the broker goes down and comes up: each of them is confirmed in the end.
    let mut sent = JoinSet::new();
    for number in 0..2000 {
        let message = daemon.topology.job("a", format!("{number}"), "x");
        let publisher = daemon.publisher.clone();
        sent.spawn(async move { publisher.publish(&message).await.unwrap() });
    }
    for _ in 0..500 {
        within(sent.join_next()).await.unwrap().unwrap();
    }
    let killed = Instant::now();
    broker.kill();
    daemon.both(connecting).await;
    println!("not connected {:?} after the kill, {} unconfirmed", killed.elapsed(), sent.len());
    assert!(matches!(within(records.next()).await.unwrap(), Arrival::Rebuilt(_)));
    assert_eq!(records.ack_through(tag).await, Settled::Lost);
    assert_eq!(held.ack().await, Settled::Lost);
    broker.start();
    daemon.both(connected).await;
    println!("connected again {:?} after the kill", killed.elapsed());
    within(sent.join_all()).await;
    println!("all confirmed {:?} after the kill", killed.elapsed());

    let ids = daemon.drain("a").await;
    let unique: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    println!("{} messages of 2001, {} twice", unique.len(), ids.len() - unique.len());
    assert_eq!(unique.len(), 2001);
    assert_eq!(record(&mut records).await.0, "r");
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "the broker that may be killed is for one test at a time")]
async fn what_starts_before_its_broker_waits_and_goes_on() {
    let mut broker = Broker::own();
    broker.kill();
    let daemon = Daemon::start(&broker.url(), "early");
    let mut state = daemon.publish.state();
    within(state.wait_for(|state| matches!(state, State::Connecting(why) if why.contains("refused")))).await.unwrap();
    println!("{:?}", *state.borrow());
    let (topology, link) = (daemon.topology.clone(), daemon.publish.clone());
    let mut declared = JoinSet::new();
    declared.spawn(async move { declare(&link, &topology, &["a"]).await });
    let message = daemon.topology.job("a", "1", "x");
    // Nothing waits for ever once it is told to stop.
    let hasty = Daemon::start(&broker.url(), "early");
    let waits = hasty.publisher.publish(&message);
    let (waited, ()) = tokio::join!(waits, async { hasty.stop.cancel() });
    assert_eq!(waited.unwrap_err().kind, QueueErrorKind::Stopped);
    hasty.end().await;

    broker.start();
    within(declared.join_next()).await.unwrap().unwrap().unwrap();
    daemon.job("a", "1").await;
    assert_eq!(daemon.drain("a").await, ["1"]);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "the broker that may be killed is for one test at a time")]
async fn a_connection_cut_without_a_word_is_noticed_and_rebuilt() {
    let broker = Broker::own();
    let cable = Cable::to(broker.port()).await;
    let daemon = Daemon::declared(&format!("amqp://127.0.0.1:{}", cable.port()), "cut", &["a"]).await;
    daemon.both(connected).await;
    daemon.job("a", "held").await;
    let held = daemon.take("a").await;
    let before = cable.plugged();
    cable.cut();
    let cut = Instant::now();
    // Sent into the dead connection: it is sent again into the next.
    daemon.job("a", "sent").await;
    println!("published again {:?} after the cut", cut.elapsed());
    within(cable.plugged_again(before + 2)).await;
    daemon.both(connected).await;
    println!("rebuilt {:?} after the cut", cut.elapsed());
    assert!(cut.elapsed() < Duration::from_secs(30));
    let sent = daemon.take("a").await;
    assert_eq!(sent.id, "sent");
    assert_eq!(sent.ack().await, Settled::Told);
    // The broker notices by its missing heartbeats, and only then is the held one there again.
    let again = daemon.take("a").await;
    println!("{} is back {:?} after the cut", again.id, cut.elapsed());
    assert_eq!((again.id.as_str(), again.returned), ("held", 1));
    drop(held);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "the broker that may be killed is for one test at a time")]
async fn a_blocked_publisher_waits_and_sends_nothing_twice() {
    let broker = Broker::own();
    let daemon = Daemon::declared(&broker.url(), "blocked", &["a"]).await;
    daemon.job("a", "before").await;
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1"]);
    let mut sent = JoinSet::new();
    for number in 0..200 {
        let message = daemon.topology.job("a", format!("{number}"), "x");
        let publisher = daemon.publisher.clone();
        sent.spawn(async move { publisher.publish(&message).await.unwrap() });
    }
    let mut state = daemon.publish.state();
    let blocked = within(state.wait_for(|state| matches!(state, State::Blocked(_)))).await.unwrap().clone();
    println!("{blocked:?}");
    let began = Instant::now();
    // Jobs are still taken and acknowledged meanwhile, over the other connection.
    assert_eq!(daemon.take("a").await.ack().await, Settled::Told);
    assert_eq!(*daemon.consume.state().borrow(), State::Connected);
    // Longer than any deadline of a publish and of a probe.
    sleep(Duration::from_secs(16)).await;
    assert_eq!(*state.borrow(), blocked);
    let waiting = sent.len();
    broker.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]);
    within(state.wait_for(connected)).await.unwrap();
    within(sent.join_all()).await;
    println!("blocked for {:?}, {waiting} waited", began.elapsed());
    let ids = daemon.drain("a").await;
    assert_eq!(ids.len() + 1, 201, "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len() + 1, 201);
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_silent_costs_one_attempt_of_the_library_and_no_more() {
    use tokio::io::AsyncReadExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let daemon = Daemon::start(&format!("amqp://guest:guest@127.0.0.1:{port}"), "silent");
    let mut accepted = Vec::new();
    while accepted.len() < 10 {
        let (mut stream, _) = within(listener.accept()).await.unwrap();
        let mut hello = [0; 8];
        within(stream.read_exact(&mut hello)).await.unwrap();
        assert_eq!(&hello, b"AMQP\0\0\x09\x01");
        accepted.push(stream);
    }
    // What our own socket asks is closed after its deadline; what the library holds, in a thread of its own, is not.
    let mut left = 0;
    for mut stream in accepted {
        let end = timeout(Duration::from_secs(8), stream.read(&mut [0; 8])).await;
        left += usize::from(end.is_err());
    }
    assert!(left <= 2, "one attempt for each of both links may be left, not {left} of 10");
    let why = daemon.publish.state().borrow().clone();
    assert!(matches!(&why, State::Connecting(_)), "{why:?}");
    daemon.end().await;
}
