//! An https server that does what a test says, byte for byte, and counts.
//!
//! One thread per connection and one request per connection: what a server sends, where it stops and whether it says
//! goodbye is then in the test's hands alone. Its certificate (localhost, 127.0.0.1) is the one of the unit tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aurelia::media::{Allowed, Store};
use aurelia::retry::Policy;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Sim;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// With its query.
    pub(crate) path: String,
    /// By names in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    /// How often this path was asked for before.
    pub(crate) before: usize,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) then: Then,
}

/// What follows the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// A proper end.
    End,
    /// The connection is closed without a word.
    Cut,
    /// Nothing, until the client goes.
    Stall,
    /// The body again and again, after so long each time, until the client goes.
    Again(Duration),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: vec![("content-length", "0".into())], body: Vec::new(), then: Then::End }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// Sends only the first bytes of the body and then does as told.
    pub(crate) fn only(mut self, bytes: usize, then: Then) -> Self {
        self.body.truncate(bytes);
        self.then = then;
        self
    }

    /// A file as good servers give it: tags, conditions and ranges are heeded.
    pub(crate) fn file(asked: &Asked, content: &[u8], etag: &str) -> Self {
        if asked.header("if-none-match") == Some(etag) {
            return Self::status(304).with("etag", etag);
        }
        let from = asked.header("range").filter(|_| asked.header("if-range").is_none_or(|tag| tag == etag));
        let from = from.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let (status, body) = match from {
            Some(from) if from >= content.len() => return Self::status(416),
            Some(from) => (206, &content[from..]),
            None => (200, content),
        };
        let mut reply = Self { status, headers: Vec::new(), body: body.to_vec(), then: Then::End }
            .with("content-length", body.len().to_string())
            .with("accept-ranges", "bytes");
        if !etag.is_empty() {
            reply = reply.with("etag", etag);
        }
        match from {
            Some(from) => reply.with("content-range", format!("bytes {from}-{}/{}", content.len() - 1, content.len())),
            None => reply,
        }
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    accepted: AtomicU64,
    body_bytes: AtomicU64,
    over: AtomicBool,
}

/// A server that runs.
pub(crate) struct Https {
    port: u16,
    seen: Arc<Seen>,
}

impl Https {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::at(listener, handler)
    }

    pub(crate) fn at(listener: TcpListener, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(Seen::default()));
        let (shared, handler, tls): (_, Arc<Handler>, _) = (Arc::clone(&seen), Arc::new(handler), Arc::new(tls()));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                let (shared, handler, tls) = (Arc::clone(&shared), Arc::clone(&handler), Arc::clone(&tls));
                // A client that goes away ends its connection and nothing else.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, tls, &shared, &*handler)));
            }
        });
        Self { port, seen }
    }

    /// The simulator behind TLS.
    pub(crate) fn before(sim: &Sim) -> Self {
        let place = sim.base_url().trim_start_matches("http://").to_owned();
        Self::start(move |asked| forward(&place, asked).unwrap())
    }

    /// `https://127.0.0.1:PORT` and the path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.host())
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// All requests, in order of arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }

    /// Connections that arrived.
    pub(crate) fn accepted(&self) -> u64 {
        self.seen.accepted.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.seen.body_bytes.load(Ordering::Relaxed)
    }

    /// Settings with which this server, and it alone, may be asked; waits are short, and no outage is waited for.
    pub(crate) fn store(&self) -> Store {
        Store {
            allow: vec![self.url("/").parse::<Allowed>().unwrap()],
            private_hosts: vec![self.host()],
            connect: Duration::from_secs(20),
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            total: Duration::from_mins(1),
            outage: Duration::ZERO,
            policy: Policy { attempts: 4, base: Duration::from_millis(1), max: Duration::from_millis(5) },
            extra_ca_file: Some(ca()),
            ..Store::default()
        }
    }

    /// The same as a configuration file.
    pub(crate) fn config(&self) -> String {
        format!(
            "[http]\nextra_ca_file = \"{}\"\n[store]\nallow = [\"file:///\", \"{}\"]\nprivate_hosts = [\"{}\"]\noutage_seconds = 0\n",
            ca().display(),
            self.url("/"),
            self.host()
        )
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Relaxed);
        // The thread waits for a connection to notice.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Asks a plain server the same.
fn forward(place: &str, asked: &Asked) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(place)?;
    let mut head = format!("POST {} HTTP/1.1\r\n", asked.path);
    for (name, value) in asked.headers.iter().filter(|(name, _)| *name != "connection") {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    stream.write_all(&asked.body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let status = str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    let body = answer.split_off(end);
    let length = body.len().to_string();
    Ok(Reply { status, headers: Vec::new(), body, then: Then::End }
        .with("content-length", length)
        .with("content-type", "application/json"))
}

/// The certificate of the authority that signed the server's.
pub(crate) fn ca() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/provider/http/testdata/ca.pem")
}

fn tls() -> rustls::ServerConfig {
    let pem = include_bytes!("../../../src/provider/http/testdata/localhost.pem");
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn serve(stream: TcpStream, tls: Arc<rustls::ServerConfig>, seen: &Seen, handler: &Handler) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(tls).unwrap(), stream);
    let Some(asked) = read(&mut tls, seen)? else { return Ok(()) };
    let reply = handler(&asked);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    tls.write_all(format!("{head}\r\n").as_bytes())?;
    loop {
        tls.write_all(&reply.body)?;
        tls.flush()?;
        seen.body_bytes.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        match reply.then {
            Then::Cut => return Ok(()),
            Then::Stall => {
                let mut rest = [0; 1];
                return tls.read(&mut rest).map(|_| ());
            }
            Then::Again(pause) => std::thread::sleep(pause),
            Then::End => {
                tls.conn.send_close_notify();
                return tls.flush();
            }
        }
    }
}

fn read(tls: &mut impl Read, seen: &Seen) -> std::io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        if tls.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    tls.read_exact(&mut body)?;
    let mut all = seen.asked.lock().unwrap();
    let asked = Asked { before: all.iter().filter(|asked| asked.path == path).count(), path, headers, body };
    all.push(asked.clone());
    Ok(Some(asked))
}
