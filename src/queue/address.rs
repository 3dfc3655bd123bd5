//! Where the broker is. The password goes to the broker and is shown nowhere.

use std::fmt;
use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::net::TcpStream;

/// Seconds between two heartbeats: a cut without a word is noticed after twice that, by both sides. With none at all an
/// acknowledgement into a dead connection counts as sent for ever.
const HEARTBEAT: u16 = 10;

/// What a client says first, in version 0-9-1.
pub(super) const HELLO: &[u8] = b"AMQP\0\0\x09\x01";

/// A broker's URL, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    uri: AMQPUri,
}

impl Address {
    /// Whether nobody greets before a handshake.
    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// A connection of our own, beside the client library's.
    pub(super) async fn dial(&self) -> std::io::Result<TcpStream> {
        let authority = &self.uri.authority;
        TcpStream::connect((authority.host.as_str(), authority.port)).await
    }

    /// What the client library connects to.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }
}

impl FromStr for Address {
    type Err = String;

    /// The message does not repeat the text: it may hold a password anywhere.
    fn from_str(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "amqp://USER:PASSWORD@HOST:PORT/VHOST";
        if !text.starts_with("amqp://") && !text.starts_with("amqps://") {
            return Err(format!("names no broker: write {SHAPE}, or amqps:// for TLS"));
        }
        let mut uri: AMQPUri = text.parse().map_err(|_| format!("is not a URL of the form {SHAPE}"))?;
        if uri.vhost.is_empty() {
            return Err(
                "names the virtual host \"\", as it ends in /: leave the / out, or write %2f after it".to_owned()
            );
        }
        if uri.query.heartbeat.is_some_and(|seconds| seconds != HEARTBEAT) {
            return Err(format!("sets heartbeat, which is always {HEARTBEAT}: leave it out"));
        }
        uri.query.heartbeat = Some(HEARTBEAT);
        Ok(Self { uri })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        let vhost = vhost.replace('/', "%2f");
        write!(f, "{scheme}://{}:***@{}:{}/{vhost}", authority.userinfo.username, authority.host, authority.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password_and_has_its_heartbeat() {
        for (text, shown) in [
            ("amqp://me:hush@host:1234/v%2fw", "amqp://me:***@host:1234/v%2fw"),
            ("amqps://me:hush@host", "amqps://me:***@host:5671/%2f"),
            ("amqp://host?heartbeat=10", "amqp://guest:***@host:5672/%2f"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(address.uri().query.heartbeat, Some(10));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for (text, found) in [
            ("redis://me:hush@host", "names no broker"),
            ("amqp://me:hush@host:x", "is not a URL"),
            ("amqp://me:hush@host/", "virtual host"),
            ("amqp://me:hush@host?heartbeat=0", "sets heartbeat"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains(found) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
