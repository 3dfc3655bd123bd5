//! Where Redis is. The password goes to the server and is shown nowhere.

use std::fmt;
use std::str::FromStr;

use redis::IntoConnectionInfo as _;
use redis::cluster::ClusterClient;
use redis::io::tcp::TcpSettings;

/// A server's URL, or those of some nodes of a cluster, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    urls: Vec<String>,
    cluster: bool,
}

pub(super) enum Client {
    One(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
}

const SHAPE: &str = "redis://:PASSWORD@HOST:PORT/DB";

impl Address {
    pub(super) fn client(&self) -> redis::RedisResult<Client> {
        // Without this a step that is sent while another one's answer is on its way waits for that answer.
        let at_once = TcpSettings::default().set_nodelay(true);
        if self.cluster {
            let nodes: redis::RedisResult<Vec<_>> =
                self.urls.iter().map(|url| url.as_str().into_connection_info()).collect();
            let builder = ClusterClient::builder(nodes?).tcp_settings(at_once);
            let builder = builder.connection_timeout(super::CONNECT).response_timeout(super::ANSWER);
            return Ok(Client::Cluster(Box::new(builder.build()?)));
        }
        let info = self.urls[0].as_str().into_connection_info()?.set_tcp_settings(at_once);
        Ok(Client::One(Box::new(redis::Client::open(info)?)))
    }
}

impl FromStr for Address {
    type Err = String;

    /// The message does not repeat the text: it may hold a password anywhere.
    fn from_str(text: &str) -> Result<Self, String> {
        let cluster = text.starts_with("redis-cluster://") || text.starts_with("rediss-cluster://");
        if !cluster && !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err(format!(
                "names no Redis: write {SHAPE}, rediss:// for TLS, or redis-cluster://HOST:PORT,HOST:PORT"
            ));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let scheme = scheme.trim_end_matches("-cluster");
        let nodes: Vec<&str> = if cluster { rest.split(',').collect() } else { vec![rest] };
        let login = nodes[0].rsplit_once('@').map(|(login, _)| format!("{login}@")).unwrap_or_default();
        let url = |node: &&str| {
            let login = if node.contains('@') { "" } else { login.as_str() };
            format!("{scheme}://{login}{node}")
        };
        let urls: Vec<String> = nodes.iter().map(url).collect();
        for url in &urls {
            url.as_str().into_connection_info().map_err(|_| format!("is not a URL of the form {SHAPE}"))?;
        }
        Ok(Self { urls, cluster })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |url: &String| {
            let rest = url.split_once("://").map_or("", |(_, rest)| rest);
            let (login, place) = rest.rsplit_once('@').map_or(("", rest), |(_, place)| ("***@", place));
            let place = place.split('?').next().unwrap_or_default();
            format!("{login}{place}")
        };
        let scheme = self.urls[0].split(':').next().unwrap_or_default();
        let kind = if self.cluster { "-cluster" } else { "" };
        write!(f, "{scheme}{kind}://{}", self.urls.iter().map(hidden).collect::<Vec<_>>().join(","))
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
    fn a_password_is_shown_nowhere() {
        for (text, shown) in [
            ("redis://:s3cret@10.0.0.1:6379/2", "redis://***@10.0.0.1:6379/2"),
            ("rediss://user:s3cret@host:6380", "rediss://***@host:6380"),
            ("redis-cluster://:s3cret@a:1,b:2", "redis-cluster://***@a:1,***@b:2"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for bad in ["http://:s3cret@host", "redis://:s3cret@host:notaport", "s3cret"] {
            assert!(!bad.parse::<Address>().unwrap_err().contains("s3cret"));
        }
    }
}
