//! The broker: who it is, whether work can be done with it, and what its management interface tells where there is one.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Finding, PATIENCE};
use crate::config::{Config, QueueUrl};
use crate::fleet::Fleet;
use crate::provider::http::connections;
use crate::queue::{QueueError, QueueErrorKind, State, banner, canary, declare};

/// RabbitMQ's own `consumer_timeout`, which nothing but its administrator's shell tells.
const CONSUMER_TIMEOUT: Duration = Duration::from_mins(30);
/// The oldest version that the topology was tried with.
const OLDEST: (u32, u32) = (3, 10);

/// What AMQP tells.
pub(super) async fn look(fleet: &Fleet) -> Vec<Finding> {
    let QueueUrl::Broker(address) = &fleet.config.queue.url else { return Vec::new() };
    let mut found = vec![deadline(&fleet.config)];
    match timeout(PATIENCE, banner(address)).await.unwrap_or_else(|_| Err(format!("{address}: no answer"))) {
        Ok(said) => found.push(version(said)),
        Err(why) => {
            found.push(Finding::away("broker", format!("{why}; is it up, and queue.url right?")));
            return found;
        }
    }
    found.push(match connected(fleet).await {
        Err(finding) => finding,
        Ok(()) => rights(fleet).await,
    });
    found
}

fn version(said: Option<(String, String)>) -> Finding {
    let Some((product, version)) = said else {
        return Finding::ok(
            "broker",
            "over TLS the version is not told before the login; RabbitMQ 3.10 or newer is assumed",
        );
    };
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let is_old = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST;
    if product != "RabbitMQ" {
        let message =
            format!("{product} {version} is not RabbitMQ, on whose quorum queues everything rests; use RabbitMQ");
        return Finding::wrong("broker", message);
    }
    if is_old {
        return Finding::wrong("broker", format!("RabbitMQ {version} is too old; use 3.10 or newer"));
    }
    Finding::ok("broker", format!("{product} {version}"))
}

fn deadline(config: &Config) -> Finding {
    let (ours, theirs) = (config.worker.delivery_deadline.as_secs(), CONSUMER_TIMEOUT.as_secs());
    Finding::ok(
        "delivery deadline",
        format!(
            "worker.delivery_deadline_seconds {ours} is below the broker's consumer_timeout, which cannot be asked and is taken to \
             be {theirs} s, its default"
        ),
    )
}

async fn connected(fleet: &Fleet) -> Result<(), Finding> {
    for link in [&fleet.outgoing, &fleet.incoming] {
        let mut state = link.state();
        let stands = timeout(PATIENCE, state.wait_for(|state| !matches!(state, State::Connecting(_)))).await;
        if !matches!(stands, Ok(Ok(_))) {
            let why = match &*link.state().borrow() {
                State::Connecting(why) => why.clone(),
                _ => "it was lost again".to_owned(),
            };
            return Err(refused(&why));
        }
    }
    Ok(())
}

/// Nobody is let in: by whose fault, as far as the words tell.
fn refused(why: &str) -> Finding {
    let words = why.to_ascii_uppercase().replace(['-', '_', ' '], "");
    if ["ACCESSREFUSED", "NOTALLOWED", "VHOST"].iter().any(|word| words.contains(word)) {
        return Finding::wrong("broker rights", format!("{why}; correct user, password and virtual host in queue.url"));
    }
    Finding::away("broker rights", format!("{why}; is it up, and queue.url right?"))
}

/// Declares what stands, and sends a canary through a queue of no use.
async fn rights(fleet: &Fleet) -> Finding {
    let tried = async {
        declare(&fleet.outgoing, &fleet.topology, &[]).await?;
        canary(&fleet.incoming, &fleet.publisher, &fleet.topology).await
    };
    match timeout(PATIENCE, tried).await {
        Ok(Ok(())) => {
            Finding::ok("broker rights", "the topology is declared, and a message went into a queue and came out of it")
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => {
            let why = match &*fleet.outgoing.state().borrow() {
                State::Blocked(why) => format!("the broker takes no messages: {why}; free its disk or memory"),
                _ => format!("no answer within {} s; is the broker overloaded?", PATIENCE.as_secs()),
            };
            Finding::away("broker rights", why)
        }
    }
}

fn failed(error: &QueueError) -> Finding {
    match error.kind {
        QueueErrorKind::Denied => Finding::wrong(
            "broker rights",
            format!(
                "{error}; give the user of queue.url the rights to configure, write and read PREFIX.* (rabbitmqctl set_permissions)"
            ),
        ),
        QueueErrorKind::Topology | QueueErrorKind::Invalid => Finding::wrong(
            "broker rights",
            format!("{error}; delete what is other than described once it is empty, or set another queue.prefix"),
        ),
        QueueErrorKind::Unavailable | QueueErrorKind::Refused | QueueErrorKind::Stopped => {
            Finding::away("broker rights", error.to_string())
        }
    }
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    #[serde(default)]
    mem_alarm: bool,
    #[serde(default)]
    disk_free_alarm: bool,
    #[serde(default = "running")]
    running: bool,
}

fn running() -> bool {
    true
}

/// What the management interface tells: alarms, which AMQP tells only those who publish.
pub(super) async fn management(config: &Config) -> Vec<Finding> {
    const NAME: &str = "broker management";
    let Some(url) = &config.queue.management_url else {
        let message =
            "not asked, as queue.management_url is not set: that no node has an alarm of memory or disk is assumed";
        return vec![Finding::ok(NAME, message)];
    };
    let client = match connections(&config.http, |builder| builder.timeout(PATIENCE)) {
        Ok((client, _)) => client,
        Err(why) => return vec![Finding::wrong(NAME, why)],
    };
    let base = url.expose_secret().trim_end_matches('/');
    let asked = tokio::join!(
        ask::<Overview>(&client, format!("{base}/api/overview")),
        ask::<Vec<Node>>(&client, format!("{base}/api/nodes"))
    );
    match asked {
        (Err(finding), _) | (_, Err(finding)) => vec![finding],
        (Ok(overview), Ok(nodes)) => vec![judge(&overview, &nodes)],
    }
}

fn judge(overview: &Overview, nodes: &[Node]) -> Finding {
    const NAME: &str = "broker management";
    let troubles: Vec<String> = nodes
        .iter()
        .flat_map(|node| {
            let troubles =
                [(node.mem_alarm, "short of memory"), (node.disk_free_alarm, "short of disk"), (!node.running, "down")];
            troubles.into_iter().filter(|(is, _)| *is).map(|(_, what)| format!("node {} is {what}", node.name))
        })
        .collect();
    if troubles.is_empty() {
        let message = format!("RabbitMQ {}, {} nodes, none with an alarm", overview.rabbitmq_version, nodes.len());
        return Finding::ok(NAME, message);
    }
    Finding::away(NAME, format!("{}: nothing can be published until that is mended", troubles.join(", ")))
}

async fn ask<T: serde::de::DeserializeOwned>(client: &reqwest::Client, url: String) -> Result<T, Finding> {
    const NAME: &str = "broker management";
    // The address may hold a password, so what is said has it not.
    let away = |error: reqwest::Error| {
        let why = crate::provider::http::chain(&error.without_url());
        Finding::away(NAME, format!("queue.management_url cannot be asked: {why}; correct it, or leave it empty"))
    };
    let answer = client.get(url).send().await.map_err(away)?;
    let status = answer.status();
    if !status.is_success() {
        let message = format!(
            "queue.management_url answers with status {}; its user needs the tag \"monitoring\", and its path must be the interface's root",
            status.as_u16()
        );
        return Err(Finding::wrong(NAME, message));
    }
    let body = answer.bytes().await.map_err(away)?;
    serde_json::from_slice(&body).map_err(|error| {
        Finding::wrong(
            NAME,
            format!("queue.management_url is not RabbitMQ's management interface ({error}); correct it"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    #[test]
    fn a_broker_is_judged_by_what_it_says_of_itself() {
        let said = |product: &str, number: &str| version(Some((product.to_owned(), number.to_owned()))).level;
        assert_eq!(said("RabbitMQ", "3.10.8"), Level::Ok);
        assert_eq!(said("RabbitMQ", "4.1.0"), Level::Ok);
        assert_eq!(said("RabbitMQ", "3.9.29"), Level::Failed);
        assert_eq!(said("LavinMQ", "4.0.0"), Level::Failed);
    }

    #[test]
    fn an_alarm_of_any_node_is_a_failure_that_passes() {
        let overview: Overview = serde_json::from_str(r#"{"rabbitmq_version":"3.13.7","other":1}"#).unwrap();
        let nodes = |json: &str| judge(&overview, &serde_json::from_str::<Vec<Node>>(json).unwrap());
        assert_eq!(nodes(r#"[{"name":"a"},{"name":"b","mem_alarm":false}]"#).level, Level::Ok);
        let found = nodes(r#"[{"name":"a"},{"name":"b","disk_free_alarm":true}]"#);
        assert_eq!((found.level, found.cause), (Level::Failed, crate::preflight::Cause::Away));
        assert!(found.message.contains("node b is short of disk"), "{}", found.message);
    }

    #[test]
    fn a_login_that_is_refused_is_a_matter_of_configuration() {
        use crate::preflight::Cause;
        assert_eq!(refused("connecting: ACCESS_REFUSED - Login was refused").cause, Cause::Setup);
        assert_eq!(refused("connecting: ACCESS-REFUSED").cause, Cause::Setup);
        assert_eq!(refused("connecting: Connection refused (os error 111)").cause, Cause::Away);
    }
}
