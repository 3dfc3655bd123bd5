//! Every way we know of to make this machine ask what it should not: each is refused with its reason, and nobody is asked.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aurelia::media::{Kind, Library, Limits, Lookup, MediaErrorKind, Settings, Store, Wants};

use super::support::https::{Https, Reply, ca};

/// A listener on loopback that nobody may reach.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn accepted(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

fn library(store: Store) -> (tempfile::TempDir, Library) {
    let dir = tempfile::tempdir().unwrap();
    let library =
        Library::with_store(dir.path().join("cache"), Settings::default(), Wants::default(), Limits::default(), store);
    (dir, library.unwrap())
}

async fn refused(library: &Library, url: &str) -> String {
    let error = library.prepare(url, Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Denied, "{url}: {error}");
    error.message
}

/// URLs with the trap's port where it says PORT, and words of the reason. The allow list has no part in it: all of these
/// hosts are on it as they stand, where that is possible.
const TRICKS: &[(&str, &str)] = &[
    // This machine, by its addresses.
    ("https://127.0.0.1:PORT/a", "loopback"),
    ("https://127.8.9.10:PORT/a", "loopback"),
    ("https://[::1]:PORT/a", "loopback"),
    ("https://0.0.0.0:PORT/a", "this network"),
    ("https://[::]:PORT/a", "no address"),
    ("https://[::ffff:7f00:1]:PORT/a", "IPv4 address in IPv6 form"),
    ("https://[::7f00:1]:PORT/a", "IPv4-compatible"),
    ("https://[64:ff9b::7f00:1]:PORT/a", "NAT64"),
    ("https://[64:ff9b::a9fe:a9fe]:PORT/a", "NAT64"),
    ("https://[2002:7f00:1::]:PORT/a", "6to4"),
    ("https://[2001:0:7f00:1::]:PORT/a", "Teredo"),
    ("https://[2600::5efe:7f00:1]:PORT/a", "ISATAP"),
    // Other spellings of them.
    ("https://127.1:PORT/a", "stands for 127.0.0.1"),
    ("https://127.0.1:PORT/a", "stands for 127.0.0.1"),
    ("https://0x7f.1:PORT/a", "stands for 127.0.0.1"),
    ("https://0x7f000001:PORT/a", "stands for 127.0.0.1"),
    ("https://0x7F.0x0.0x0.0x1:PORT/a", "stands for 127.0.0.1"),
    ("https://2130706433:PORT/a", "stands for 127.0.0.1"),
    ("https://017700000001:PORT/a", "stands for 127.0.0.1"),
    ("https://0177.0.0.1:PORT/a", "stands for 127.0.0.1"),
    ("https://00000177.1:PORT/a", "stands for 127.0.0.1"),
    ("https://127.0.0.1.:PORT/a", "stands for 127.0.0.1"),
    ("https://0:PORT/a", "stands for 0.0.0.0"),
    ("https://[::ffff:127.0.0.1]:PORT/a", "stands for [::ffff:7f00:1]"),
    ("https://[::127.0.0.1]:PORT/a", "stands for [::7f00:1]"),
    ("https://[0:0:0:0:0:0:0:1]:PORT/a", "stands for [::1]"),
    ("https://[0000::0001]:PORT/a", "stands for [::1]"),
    ("https://%31%32%37.0.0.1:PORT/a", "percent codes"),
    ("https://%6cocalhost:PORT/a", "percent codes"),
    ("https://127.0.0.1%00:PORT/a", "percent codes"),
    ("https://[fe80::1%25lo]:PORT/a", "percent codes"),
    ("https://１２７.0.0.1:PORT/a", "no URL may"),
    ("https://①②⑦.0.0.1:PORT/a", "no URL may"),
    ("https://ⓛocalhost:PORT/a", "no URL may"),
    ("https://127。0。0。1:PORT/a", "no URL may"),
    // Its names, and those of inner networks.
    ("https://localhost:PORT/a", "names this machine"),
    ("https://LOCALHOST:PORT/a", "names this machine"),
    ("https://LocalHost:PORT/a", "names this machine"),
    ("https://localhost.:PORT/a", "dot behind"),
    ("https://a.localhost:PORT/a", "names this machine"),
    ("https://metadata.google.internal:PORT/a", "inner networks"),
    ("https://printer.local:PORT/a", "inner networks"),
    ("https://db:PORT/a", "without a dot"),
    // Addresses of inner networks, of clouds and of nobody.
    ("https://10.0.0.1/a", "private network"),
    ("https://172.16.0.1/a", "private network"),
    ("https://172.31.255.255/a", "private network"),
    ("https://192.168.1.1/a", "private network"),
    ("https://100.64.0.1/a", "carrier"),
    ("https://100.100.100.200/latest/meta-data", "carrier"),
    ("https://169.254.169.254/latest/meta-data", "link-local"),
    ("https://2852039166/latest/meta-data", "stands for 169.254.169.254"),
    ("https://[fd00:ec2::254]/latest/meta-data", "private network"),
    ("https://168.63.129.16/a", "metadata"),
    ("https://192.0.0.192/a", "reserved"),
    ("https://192.0.2.1/a", "documentation"),
    ("https://198.18.0.1/a", "benchmarks"),
    ("https://198.51.100.1/a", "documentation"),
    ("https://203.0.113.1/a", "documentation"),
    ("https://224.0.0.1/a", "multicast"),
    ("https://240.0.0.1/a", "reserved"),
    ("https://255.255.255.255/a", "broadcast"),
    ("https://[fc00::1]/a", "private network"),
    ("https://[fe80::1]/a", "link-local"),
    ("https://[fec0::1]/a", "site-local"),
    ("https://[ff02::1]/a", "multicast"),
    ("https://[2001:db8::1]/a", "documentation"),
    ("https://[100::1]/a", "outside of what"),
    // An allowed host in front of another.
    ("https://allowed.example.org@127.0.0.1:PORT/a", "user name"),
    ("https://allowed.example.org:443@127.0.0.1:PORT/a", "user name"),
    ("https://user:word@127.0.0.1:PORT/a", "user name"),
    ("https://127.0.0.1:PORT\\@allowed.example.org/a", "backslash"),
    ("https://127.0.0.1:PORT\\.allowed.example.org/a", "backslash"),
    ("https:\\\\127.0.0.1:PORT/a", "form"),
    ("https:/127.0.0.1:PORT/a", "form"),
    ("https://127.0.0.1:PORT#@allowed.example.org/a", "fragment"),
    ("https://allowed.example.org#@127.0.0.1:PORT/a", "fragment"),
    ("https://127.0.0.1:PORT?@allowed.example.org/a", "loopback"),
    ("https://127.0.0.1:PORT/a#b", "fragment"),
    ("https://127.0.\t0.1:PORT/a", "no URL may"),
    ("https://127.0.0.1\n:PORT/a", "no URL may"),
    ("https://127.0.0.1:PORT/a b", "no URL may"),
    ("https://127.0.0.1:PORT/a\r\nHost: x", "no URL may"),
    ("https://:PORT/a", "no host"),
    ("https:///127.0.0.1:PORT/a", "no host"),
    // Ports that two readers read differently.
    ("https://127.0.0.1:443:PORT/a", ""),
    ("https://127.0.0.1:0PORT/a", "port"),
    ("https://127.0.0.1:+PORT/a", "port"),
    ("https://127.0.0.1:/a", "port"),
    ("https://127.0.0.1:0/a", "port"),
    ("https://127.0.0.1:65536/a", ""),
    // Other schemes.
    ("http://127.0.0.1:PORT/a", "\"http\" is not allowed"),
    ("ftp://127.0.0.1:PORT/a", "\"ftp\" is not allowed"),
    ("gopher://127.0.0.1:PORT/_x", "\"gopher\" is not allowed"),
    ("rtsp://127.0.0.1:PORT/a", "\"rtsp\" is not allowed"),
    ("tcp://127.0.0.1:PORT", "\"tcp\" is not allowed"),
    ("hls+https://127.0.0.1:PORT/a", "\"hls+https\" is not allowed"),
];

#[tokio::test]
async fn every_trick_is_refused_with_its_reason_and_nobody_is_asked() {
    let trap = Trap::set();
    let mut allow = Vec::new();
    for (url, _) in TRICKS {
        let url = url.replace("PORT", &trap.port().to_string());
        let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
        allow.extend(format!("{host}/").parse());
    }
    assert!(allow.len() > 40, "{} hosts are on the list", allow.len());
    let looked_up = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looked_up);
    let lookup = Lookup::Given(Arc::new(move |_: &str| {
        count.fetch_add(1, Ordering::Relaxed);
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]
    }));
    let (_dir, library) = library(Store { allow, lookup, extra_ca_file: Some(ca()), ..Store::default() });
    for (url, words) in TRICKS {
        let url = url.replace("PORT", &trap.port().to_string());
        let message = refused(&library, &url).await;
        assert!(message.contains(words), "{url}: {message}");
    }
    assert_eq!((trap.accepted(), looked_up.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_not_even_looked_up() {
    let trap = Trap::set();
    let lookup = Lookup::Given(Arc::new(|host: &str| panic!("{host} is looked up")));
    let allow = vec!["https://allowed.example.org/corpus/".parse().unwrap()];
    let (_dir, library) = library(Store { allow, lookup, ..Store::default() });
    let port = trap.port();
    for url in [
        format!("https://127.0.0.1:{port}/a"),
        "https://other.example.org/corpus/a".to_owned(),
        "https://allowed.example.org:8443/corpus/a".to_owned(),
        "https://allowed.example.org/elsewhere".to_owned(),
        "https://allowed.example.org/corpus2/a".to_owned(),
        "https://allowed.example.org/corpus/../elsewhere".to_owned(),
        "https://allowed.example.org/corpus/%2e%2e/elsewhere".to_owned(),
        "https://allowed.example.org.evil.example/corpus/a".to_owned(),
        "https://evil-allowed.example.org/corpus/a".to_owned(),
    ] {
        let message = refused(&library, &url).await;
        assert!(message.contains("[store] allow"), "{url}: {message}");
    }
    for url in
        ["https://allowed.example.org/corpus/%2e%2e%2felsewhere", "https://allowed.example.org/corpus/..%5celsewhere"]
    {
        assert!(refused(&library, url).await.contains("upwards"), "{url}");
    }
    let (_dir, none) = self::library(Store::default());
    assert!(refused(&none, "https://allowed.example.org/a").await.contains("[store] allow"));
    assert_eq!(trap.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_resolves_inside_is_refused_even_beside_a_public_address() {
    let trap = Trap::set();
    let inside: &[(&[&str], &str)] = &[
        (&["127.0.0.1"], "loopback"),
        (&["::1"], "loopback"),
        (&["1.1.1.1", "127.0.0.1"], "loopback"),
        (&["169.254.169.254", "1.1.1.1"], "link-local"),
        (&["10.0.0.5"], "private"),
        (&["::ffff:127.0.0.1"], "IPv4 address in IPv6 form"),
        (&["64:ff9b::7f00:1"], "NAT64"),
        (&["fd00::1"], "private"),
        (&["0.0.0.0"], "this network"),
    ];
    for (addresses, words) in inside {
        let given: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let allow = vec![format!("https://media.example.org:{}/", trap.port()).parse().unwrap()];
        let lookup = Lookup::Given(Arc::new(move |_: &str| given.clone()));
        let (_dir, library) = library(Store { allow, lookup, ..Store::default() });
        let message = refused(&library, &format!("https://media.example.org:{}/a?sig=sesame", trap.port())).await;
        assert!(message.contains(words) && message.contains("private_hosts"), "{addresses:?}: {message}");
        assert!(!message.contains("sesame"), "{message}");
    }
    assert_eq!(trap.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_after_the_check_wins_nothing() {
    // The first answer is a host that may be asked, all later ones are this machine's metadata service.
    let server = Https::start(|asked| match asked.before {
        // Each break needs another connection, and with it another chance to be led astray.
        0..3 => Reply::file(asked, &[7; 3000], "\"a\"").only(1000, super::support::https::Then::Cut),
        _ => Reply::file(asked, &[7; 3000], "\"a\""),
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let lookup = Lookup::Given(Arc::new(move |_: &str| match count.fetch_add(1, Ordering::Relaxed) {
        0 => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        _ => vec![IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))],
    }));
    // The certificate's name, so that the connection stands; private hosts may be anything but link-local.
    let place = format!("localhost:{}", server.port());
    let allow = vec![format!("https://{place}/").parse().unwrap()];
    let (_dir, library) = library(Store { allow, private_hosts: vec![place.clone()], lookup, ..server.store() });
    let error = library.prepare(&format!("https://{place}/a"), Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Invalid, "it came whole and is no clip: {error}");
    assert_eq!((asked.load(Ordering::Relaxed), server.accepted()), (1, 3), "one look-up for all its connections");
    let message = refused(&library, &format!("https://{place}/b")).await;
    assert!(message.contains("169.254.169.254"), "{message}");
    assert_eq!((asked.load(Ordering::Relaxed), server.accepted()), (2, 3));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let trap = Trap::set();
    let target = format!("https://127.0.0.1:{}/inner?token=sesame", trap.port());
    let server = Https::start(move |asked| {
        let status = asked.path.trim_start_matches('/').parse().unwrap();
        Reply::status(status).with("location", target.clone())
    });
    let mut store = server.store();
    store.allow.push(format!("https://127.0.0.1:{}/", trap.port()).parse().unwrap());
    let (_dir, library) = library(store);
    for status in [301, 302, 303, 307, 308] {
        let message = refused(&library, &server.url(&format!("/{status}"))).await;
        assert!(message.contains("redirects are not followed") && !message.contains("sesame"), "{message}");
    }
    assert_eq!((server.accepted(), trap.accepted()), (5, 0));
}

#[tokio::test]
async fn a_server_without_a_trusted_certificate_is_sent_nothing() {
    let server = Https::start(|_| panic!("a request arrived"));
    let (_dir, library) = library(Store { extra_ca_file: None, ..server.store() });
    let error = library.prepare(&server.url("/a?sig=sesame"), Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("certificate") && !error.message.contains("sesame"), "{error}");
    assert_eq!(server.asked().len(), 0);
}
