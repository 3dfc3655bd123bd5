//! Names become addresses once, are judged, and are connected to as they were judged.
//!
//! A client has no resolver of its own but [`Pins`], so a name that changes its mind between check and connection (DNS
//! rebinding) wins nothing. Hosts of one's own (`private_hosts`) have connections of their own, so that no pin of theirs
//! serves another host. Proxies of the environment are not used: a proxy resolves names by itself, and nothing would be
//! judged.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{Reach, refusal};
use super::web::{WebUrl, inside};
use super::{Lookup, Store};
use crate::lock::lock;
use crate::media::MediaError;
use crate::provider::{HttpSettings, http};

/// Connections to servers that are public, and to those of one's own.
#[derive(Debug)]
pub(super) struct Lines {
    public: Line,
    private: Line,
}

/// Connections of one kind of host.
#[derive(Debug)]
struct Line {
    client: reqwest::Client,
    pins: Arc<Pins>,
}

impl Lines {
    /// Errors: an `extra_ca_file` that cannot be used.
    pub(super) fn new(store: &Store) -> Result<Self, String> {
        Ok(Self { public: Line::new(store)?, private: Line::new(store)? })
    }

    /// The connections for a URL, pinned to addresses that are judged. Errors: one of them may not be connected to.
    pub(super) async fn judged(
        &self,
        url: &WebUrl,
        store: &Store,
    ) -> Result<Result<&reqwest::Client, String>, MediaError> {
        let reach = store.reach(url);
        let line = if reach == Reach::Private { &self.private } else { &self.public };
        if url.literal().is_some() {
            return Ok(Ok(&line.client));
        }
        let found = match &store.lookup {
            Lookup::Given(lookup) => lookup(url.host()),
            Lookup::System => match tokio::time::timeout(store.connect, system(url.host(), url.port())).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Ok(Err(format!("its host {} has no address ({error})", url.place()))),
                Err(_) => return Ok(Err(format!("the address of its host {} takes too long to find", url.place()))),
            },
        };
        // One bad address is enough: which of them a connection takes is not ours to say.
        if let Some((address, what)) = found.iter().find_map(|ip| refusal(*ip, reach).map(|what| (*ip, what))) {
            line.pins.forget(url.host());
            return Err(inside(&url.place(), &format!("has the address {address}, which is {what}")));
        }
        if found.is_empty() {
            return Ok(Err(format!("its host {} has no address", url.place())));
        }
        line.pins.set(url.host(), found);
        Ok(Ok(&line.client))
    }
}

async fn system(host: &str, port: u16) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.map(|address| address.ip()).collect())
}

impl Line {
    fn new(store: &Store) -> Result<Self, String> {
        let pins = Arc::new(Pins::default());
        let settings = HttpSettings {
            connect: store.connect,
            first_byte: store.first_byte,
            idle: store.idle,
            total: store.total,
            max_reply_bytes: 0,
            extra_ca_file: store.extra_ca_file.clone(),
        };
        let adjust = |builder: reqwest::ClientBuilder| builder.no_proxy().https_only(true).dns_resolver(pins.clone());
        let (client, _) = http::connections(&settings, adjust)?;
        Ok(Self { client, pins })
    }
}

/// The addresses that names stand for, as they were judged. A client asks here and nowhere else.
#[derive(Debug, Default)]
struct Pins(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Pins {
    fn set(&self, host: &str, addresses: Vec<IpAddr>) {
        lock(&self.0).insert(host.to_owned(), addresses);
    }

    fn forget(&self, host: &str) {
        lock(&self.0).remove(host);
    }
}

impl Resolve for Pins {
    fn resolve(&self, name: Name) -> Resolving {
        let found = lock(&self.0).get(name.as_str()).cloned();
        let answer = match found {
            // The port of the URL takes the place of 0.
            Some(found) => Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs),
            None => Err("no judged address".into()),
        };
        std::future::ready(answer).boxed()
    }
}
