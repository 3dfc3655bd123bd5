//! `[queue]`: where jobs and records wait.
//!
//! The URL may hold a password, so it is shown by what it was understood as, and a wrong one is not shown at all.

use super::read::{Located, Section};

/// Longest prefix: names at a broker have 255 bytes, and a run's name is part of one.
const LONGEST: usize = 64;

/// Where jobs and records wait.
#[derive(Debug, Clone)]
pub struct QueueSection {
    /// Inside the process, or at a broker.
    pub url: QueueUrl,
    /// What names at the broker begin with.
    pub prefix: String,
    /// A producer waits while a run has so many jobs ready.
    pub max_ready: u64,
    /// The broker's management interface, where it has one; used by the preflight alone. It may hold a password.
    pub management_url: Option<secrecy::SecretString>,
}

/// Which queue it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueUrl {
    /// Inside the process.
    Embedded,
    /// RabbitMQ.
    #[cfg(feature = "fleet")]
    Broker(crate::queue::Address),
}

pub(super) fn read(root: &mut Section<'_>) -> QueueSection {
    let mut section = root.section("queue");
    let key = section.key("url");
    let mut url = QueueUrl::Embedded;
    match section.unshown_text("url") {
        None => section.sink.mistake(&key, None, &section.origin, "is missing; set it"),
        Some(Located { value, origin }) => match parse(&value) {
            Ok((parsed, shown)) => {
                url = parsed;
                section.sink.entry(key, format!("{shown:?}"), &origin);
            }
            Err(message) => section.sink.mistake(&key, None, &origin, message),
        },
    }
    let prefix = prefix(&mut section);
    let max_ready = section.whole("max_ready", 1..=1_000_000_000);
    let management_url = management(&mut section);
    section.finish();
    QueueSection { url, prefix, max_ready, management_url }
}

/// What names begin with, of queues and of keys alike.
pub(super) fn prefix(section: &mut Section<'_>) -> String {
    let prefix = section.text("prefix").value;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if prefix.is_empty() || prefix.len() > LONGEST || !prefix.chars().all(plain) {
        let key = section.key("prefix");
        section.sink.conflict(&key, format!("must be 1 to {LONGEST} of letters, digits, \".\", \"_\" and \"-\""));
    }
    prefix
}

fn management(section: &mut Section<'_>) -> Option<secrecy::SecretString> {
    let key = section.key("management_url");
    let Located { value, origin } = section.unshown_text("management_url")?;
    if value.is_empty() {
        section.sink.entry(key, "\"\"".to_owned(), &origin);
        return None;
    }
    if !value.starts_with("http://") && !value.starts_with("https://") {
        section.sink.mistake(&key, None, &origin, "is no URL: write http://USER:PASSWORD@HOST:15672, or \"\" for none");
        return None;
    }
    let host = value.rsplit_once('@').map_or("set", |(_, host)| host);
    section.sink.entry(key, format!("{host:?}"), &origin);
    Some(value.into())
}

/// The queue, and how it is shown.
fn parse(text: &str) -> Result<(QueueUrl, String), String> {
    if text == "embedded:" {
        return Ok((QueueUrl::Embedded, text.to_owned()));
    }
    broker(text).map_err(|error| format!("{error}, or \"embedded:\" for the queue inside the process"))
}

#[cfg(feature = "fleet")]
fn broker(text: &str) -> Result<(QueueUrl, String), String> {
    let address: crate::queue::Address = text.parse()?;
    let shown = address.to_string();
    Ok((QueueUrl::Broker(address), shown))
}

#[cfg(not(feature = "fleet"))]
fn broker(_: &str) -> Result<(QueueUrl, String), String> {
    Err("names a broker, which this program was built without: build it with the feature \"fleet\"".to_owned())
}
