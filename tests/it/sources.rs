//! Sources: one contract for files and servers, and what only servers do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use aurelia::demo::clip::{Content, Style};
use aurelia::media::{
    Allowed, Kind, Library, Limits, MediaError, MediaErrorKind, Prepared, Settings, Stats, Store, Wants,
};
#[cfg(feature = "fleet")]
use aurelia::s3::Connected;
use futures_util::future::join_all;
use tempfile::TempDir;

use super::support::https::{Asked, Https, Reply, Then};
#[cfg(feature = "fleet")]
use super::support::s3::{ACCESS_KEY, Fault, S3, SECRET_KEY};
use super::support::{clips, until};

/// A small clip's bytes.
fn clip(seed: u64) -> Vec<u8> {
    fs::read(clips::kept(Style::small(Content::Full, seed), 1)).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn library(cache: &Path, limits: Limits, store: Store) -> Library {
    Library::with_store(cache.to_owned(), Settings::default(), Wants::default(), limits, store).unwrap()
}

/// A server, a cache, and a library that may ask the one and fills the other.
struct Bench {
    dir: TempDir,
    server: Https,
    library: Library,
}

impl Bench {
    fn new(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(|store| store, handler)
    }

    fn with(change: impl FnOnce(Store) -> Store, handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (dir, server) = (tempfile::tempdir().unwrap(), Https::start(handler));
        let library = library(&dir.path().join("cache"), Limits::default(), change(server.store()));
        Self { dir, server, library }
    }

    /// As another process would find things.
    fn again(&self) -> Library {
        library(&self.cache(""), Limits::default(), self.server.store())
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.dir.path().join("cache").join(name)
    }

    async fn prepare(&self, path: &str) -> Result<Arc<Prepared>, MediaError> {
        self.library.prepare(&self.server.url(path), Kind::Video).await
    }

    async fn refuse(&self, path: &str) -> MediaError {
        let error = self.prepare(path).await.expect_err("a source that is no good");
        assert!(!error.message.contains("sesame"), "{error}");
        error
    }

    fn stats(&self) -> Stats {
        self.library.stats()
    }
}

/// Where a contract's sources are put, and how they are named. A server cuts its first answer of `cut.mp4` short.
struct Backend {
    base: String,
    store: Store,
    /// What it says of what is not there.
    absent: &'static str,
    /// And of what leads out of the prefix.
    upwards: &'static str,
    kept: Kept,
}

/// What holds the sources.
enum Kept {
    Files(TempDir),
    Https(TempDir, Https),
    #[cfg(feature = "fleet")]
    Bucket(S3),
}

impl Backend {
    fn all() -> Vec<Self> {
        vec![
            Self::file(),
            Self::https(),
            #[cfg(feature = "fleet")]
            Self::bucket(),
        ]
    }

    fn file() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("file://{}", dir.path().display());
        let store = Store { allow: allow(&base), ..Store::default() };
        Self { base, store, absent: "no such file", upwards: "[store] allow", kept: Kept::Files(dir) }
    }

    fn https() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let server = Https::start(move |asked| match fs::read(root.join(asked.path.trim_start_matches('/'))) {
            Ok(content) => {
                let reply = Reply::file(asked, &content, &format!("\"{}\"", sha256(&content)));
                let cut = asked.before == 0 && asked.path.ends_with("/cut.mp4");
                if cut { reply.only(content.len() / 2, Then::Cut) } else { reply }
            }
            Err(_) => Reply::status(404),
        });
        let base = server.url("");
        let store = Store { allow: allow(&base), ..server.store() };
        Self { base, store, absent: "no such file", upwards: "[store] allow", kept: Kept::Https(dir, server) }
    }

    #[cfg(feature = "fleet")]
    fn bucket() -> Self {
        let server = S3::with(|asked, _| match (asked.before, asked.name.ends_with("/cut.mp4")) {
            (0, true) => Fault::Cut(2000),
            _ => Fault::None,
        });
        let client = Connected::with_keys(&server.endpoint(), ACCESS_KEY, SECRET_KEY);
        let base = "s3://clips".to_owned();
        let store = Store { allow: allow(&base), s3: Some(client), ..Store::default() };
        Self { base, store, absent: "NoSuchKey", upwards: "upwards", kept: Kept::Bucket(server) }
    }

    fn put(&self, path: &str, content: &[u8]) -> String {
        match &self.kept {
            Kept::Files(dir) | Kept::Https(dir, _) => {
                let file = dir.path().join(path);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            #[cfg(feature = "fleet")]
            Kept::Bucket(server) => drop(server.put(&format!("clips/{path}"), content)),
        }
        format!("{}/{path}", self.base)
    }

    /// Bytes of bodies it has sent; none where nothing is sent.
    fn sent(&self) -> Option<u64> {
        match &self.kept {
            Kept::Files(_) => None,
            Kept::Https(_, server) => Some(server.body_bytes()),
            #[cfg(feature = "fleet")]
            Kept::Bucket(server) => Some(server.body_bytes()),
        }
    }

    fn library(&self, limits: Limits) -> (TempDir, Library) {
        let cache = tempfile::tempdir().unwrap();
        let library = library(cache.path(), limits, self.store.clone());
        (cache, library)
    }
}

fn allow(base: &str) -> Vec<Allowed> {
    vec![format!("{base}/allowed/").parse().unwrap()]
}

#[test]
fn files_servers_and_buckets_keep_one_contract() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for backend in Backend::all() {
        runtime.block_on(backend.keeps_the_contract());
    }
}

impl Backend {
    async fn keeps_the_contract(&self) {
        let (backend, name) = (self, &self.base);
        let (_cache, library) = backend.library(Limits::default());
        let (one, content) = (backend.put("allowed/one.mp4", &clip(1)), clip(1));
        let copy = backend.put("allowed/deep/copy.mp4", &content);

        // The same bytes are the same source, whatever they are called and however many ask.
        let calls = (0..20).map(|n| library.prepare(if n % 2 == 0 { &one } else { &copy }, Kind::Video));
        let all: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert!(all.iter().all(|prepared| Arc::ptr_eq(prepared, &all[0])), "{name}");
        assert_eq!((&all[0].sha256, all[0].bytes), (&sha256(&content), content.len() as u64), "{name}");
        assert_eq!(library.stats().decodes, 1, "{name}");

        // Each name is fetched once; a body that is cut goes on where it was.
        assert!(backend.sent().is_none_or(|sent| sent == 2 * content.len() as u64), "{name}: {:?}", backend.sent());
        let long = backend.put("allowed/cut.mp4", &clip(3));
        assert_eq!(library.prepare(&long, Kind::Video).await.unwrap().sha256, sha256(&clip(3)), "{name}");
        let most = (2 * content.len() + clip(3).len() + 2 * (16 << 10)) as u64;
        assert!(backend.sent().is_none_or(|sent| sent <= most), "{name}: {:?}", backend.sent());

        // What is no good is refused by its kind.
        let long = backend.put("allowed/long.mp4", &vec![1; 3 << 20]);
        let cases = [
            (format!("{}/allowed/absent.mp4", backend.base), MediaErrorKind::NotFound, backend.absent),
            (backend.put("allowed/empty.mp4", b""), MediaErrorKind::Invalid, "is empty"),
            (backend.put("allowed/text.mp4", b"no clip"), MediaErrorKind::Invalid, "cannot be read"),
            (backend.put("elsewhere/a.mp4", &content), MediaErrorKind::Denied, "[store] allow"),
            (backend.put("allowed2/a.mp4", &content), MediaErrorKind::Denied, "[store] allow"),
            (format!("{}/elsewhere/absent.mp4", backend.base), MediaErrorKind::Denied, "[store] allow"),
            (format!("{}/allowed/../elsewhere/a.mp4", backend.base), MediaErrorKind::Denied, backend.upwards),
            (format!("{}/allowed/%2e%2e/elsewhere/a.mp4", backend.base), MediaErrorKind::Denied, backend.upwards),
        ];
        for (uri, kind, words) in cases {
            let error = library.prepare(&uri, Kind::Video).await.unwrap_err();
            assert_eq!(error.kind, kind, "{name} {uri}: {error}");
            assert!(error.message.contains(words), "{name} {uri}: {error}");
        }
        let (_cache, small) = backend.library(Limits { max_source_mib: 2, ..Limits::default() });
        let error = small.prepare(&long, Kind::Video).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{name}");
        assert!(error.message.contains("has 3 MiB, more than 2 (max_source_mib)"), "{name}: {error}");

        // A content that changes is another source to whoever looks anew.
        backend.put("allowed/one.mp4", &clip(2));
        let (_cache, anew) = backend.library(Limits::default());
        assert_eq!(anew.prepare(&one, Kind::Video).await.unwrap().sha256, sha256(&clip(2)), "{name}");
    }
}

#[tokio::test]
async fn a_download_goes_on_where_it_was_cut_and_sends_no_byte_twice() {
    let content = clip(1);
    let length = content.len();
    let body = content.clone();
    let bench = Bench::new(move |asked| {
        let reply = Reply::file(asked, &body, "\"a\"");
        match (asked.before, asked.path.trim_start_matches('/').parse::<usize>()) {
            (0, Ok(cut)) => reply.only(cut, Then::Cut),
            _ => reply,
        }
    });
    let cuts = [1, 2, 100, 1000, 4095, 4096, 4097, length / 3, length / 2, length - 1000, length - 2, length - 1];
    for cut in cuts {
        let before = (bench.server.body_bytes(), bench.server.asked().len());
        let prepared = bench.prepare(&format!("/{cut}")).await.unwrap();
        assert_eq!(prepared.sha256, sha256(&content), "cut at {cut}");
        assert_eq!(bench.server.body_bytes() - before.0, length as u64, "cut at {cut}");
        let again = bench.server.asked()[before.1 + 1].clone();
        assert_eq!(again.header("range"), Some(&*format!("bytes={cut}-")), "cut at {cut}");
        assert_eq!(again.header("if-range"), Some("\"a\""), "cut at {cut}");
    }
    assert_eq!((bench.stats().downloads, bench.stats().decodes), (cuts.len() as u64, 1));
}

#[tokio::test]
async fn a_download_that_is_cut_all_the_time_ends_as_long_as_it_gets_on() {
    let content = clip(1);
    let (body, piece) = (content.clone(), content.len() / 30);
    // Thirty breaks, and four attempts: those are counted only while nothing comes.
    let bench = Bench::new(move |asked| Reply::file(asked, &body, "\"a\"").only(piece.max(1), Then::Cut));
    assert_eq!(bench.prepare("/a").await.unwrap().sha256, sha256(&content));
    assert!(bench.server.accepted() >= 30, "{}", bench.server.accepted());
    assert_eq!(bench.server.body_bytes(), content.len() as u64);
}

#[tokio::test]
async fn a_download_that_always_begins_again_ends_with_its_attempts() {
    let content = clip(1);
    let bench = Bench::new(move |asked| match &*asked.path {
        "/no-tag" => Reply::file(asked, &content, "").only(2000, Then::Cut),
        "/never-more" if asked.before % 2 == 1 => Reply::status(416),
        _ => Reply::file(asked, &content, "\"a\"").only(2000, Then::Cut),
    });
    for path in ["/no-tag", "/never-more"] {
        let library = bench.again();
        let error = library.prepare(&bench.server.url(path), Kind::Video).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Unavailable, "{path}: {error}");
        assert_eq!(bench.server.asked().iter().filter(|asked| asked.path == path).count(), 4, "{path}");
    }
}

#[tokio::test]
async fn without_a_strong_tag_a_download_begins_again() {
    let content = clip(1);
    for etag in ["W/\"weak\"", ""] {
        let body = content.clone();
        let bench = Bench::new(move |asked| {
            let reply = Reply::file(asked, &body, etag);
            if asked.before == 0 { reply.only(500, Then::Cut) } else { reply }
        });
        assert_eq!(bench.prepare("/a").await.unwrap().sha256, sha256(&content));
        assert!(bench.server.asked().iter().all(|asked| asked.header("range").is_none()), "{etag:?}");
        assert_eq!(bench.server.body_bytes(), 500 + content.len() as u64);
        assert_eq!(bench.again().prepare(&bench.server.url("/a"), Kind::Video).await.unwrap().sha256, sha256(&content));
        assert!(bench.server.asked().iter().all(|asked| asked.header("if-none-match").is_none()), "{etag:?}");
    }
}

#[tokio::test]
async fn a_content_that_changes_between_two_parts_is_never_mixed() {
    let (old, new) = (clip(1), clip(2));
    let (first, second) = (old.clone(), new.clone());
    let bench = Bench::new(move |asked| match (asked.before, &*asked.path) {
        (0, _) => Reply::file(asked, &first, "\"old\"").only(first.len() / 2, Then::Cut),
        // Servers that do not heed If-Range.
        (1, "/other-part") => {
            let mut reply = Reply::file(asked, &second, "\"old\"");
            let last = second.len() - 1;
            reply.headers.retain(|(name, _)| *name != "content-range");
            reply.with("content-range", format!("bytes 7-{last}/{}", second.len()))
        }
        (1, "/new-tag") => {
            let half = first.len() / 2;
            let body = second[half..].to_vec();
            let range = format!("bytes {half}-{}/{}", second.len() - 1, second.len());
            Reply { status: 206, headers: Vec::new(), body, then: Then::End }
                .with("content-length", (second.len() - half).to_string())
                .with("content-range", range)
                .with("etag", "\"new\"")
        }
        (1, "/shorter") => Reply::status(416),
        // One that does.
        _ => Reply::file(asked, &second, "\"new\""),
    });
    for path in ["/honest", "/other-part", "/new-tag", "/shorter"] {
        assert_eq!(bench.prepare(path).await.unwrap().sha256, sha256(&new), "{path}");
    }
}

#[tokio::test]
async fn a_body_without_end_or_with_a_wrong_length_ends_within_its_limits() {
    let bench = Bench::with(
        |store| Store { idle: Duration::from_millis(300), first_byte: Duration::from_secs(20), ..store },
        |asked| {
            let length =
                |length: u64| Reply::status(200).without("content-length").with("content-length", length.to_string());
            let body = |reply: Reply, then| Reply { body: vec![7; 64 << 10], then, ..reply };
            match &*asked.path {
                "/endless" => body(Reply::status(200).without("content-length"), Then::Again(Duration::ZERO)),
                "/huge" => body(length(1 << 60), Then::Again(Duration::ZERO)),
                "/longer-than-sent" => body(length(65 << 10), Then::Cut),
                "/nothing" => length(0),
                "/stalls" => body(length(1 << 20), Then::Stall),
                path => panic!("{path}"),
            }
        },
    );
    let limits = Limits { max_source_mib: 2, ..Limits::default() };
    let store = Store { idle: Duration::from_millis(300), ..bench.server.store() };
    let small = library(&bench.cache(""), limits, store);
    for (path, kind, words) in [
        ("/endless", MediaErrorKind::Invalid, "more than 2 MiB (max_source_mib)"),
        ("/huge", MediaErrorKind::Invalid, "more than 2 (max_source_mib)"),
        ("/longer-than-sent", MediaErrorKind::Unavailable, "the answer is cut"),
        ("/nothing", MediaErrorKind::Invalid, "is empty"),
        ("/stalls", MediaErrorKind::Unavailable, "idle_seconds"),
    ] {
        let error = small.prepare(&bench.server.url(path), Kind::Video).await.unwrap_err();
        assert_eq!(error.kind, kind, "{path}: {error}");
        assert!(error.message.contains(words), "{path}: {error}");
    }
    assert!(small.stats().downloaded_bytes < 4 << 20, "{:?}", small.stats());
    assert!(fs::read_dir(bench.cache("making")).unwrap().next().is_none(), "nothing half is left");
    assert!(!bench.cache("sources").exists());
}

#[tokio::test]
async fn each_deadline_ends_a_slow_server_by_its_name() {
    let short = Duration::from_millis(250);
    let bench = Bench::new(|asked| match &*asked.path {
        "/mute" => {
            std::thread::sleep(Duration::from_secs(2));
            Reply::status(200)
        }
        _ => Reply { body: vec![7], then: Then::Again(Duration::from_millis(10)), ..Reply::status(200) }
            .without("content-length")
            .with("content-length", "1000000"),
    });
    let cases = [
        ("/mute", Store { first_byte: short, ..bench.server.store() }, "first_byte_seconds"),
        ("/trickle", Store { total: short * 4, ..bench.server.store() }, "total_seconds"),
    ];
    for (path, store, words) in cases {
        let library = library(&bench.cache(""), Limits::default(), store);
        let error = library.prepare(&bench.server.url(path), Kind::Video).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Unavailable, "{path}: {error}");
        assert!(error.message.contains(words), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_fails_for_a_while_is_asked_again_and_one_that_refuses_is_not() {
    let content = clip(1);
    let bench = Bench::new(move |asked| {
        let path = asked.path.split('?').next().unwrap();
        match path.trim_start_matches('/').parse::<u16>() {
            Ok(status @ (401 | 403 | 404 | 410 | 400 | 204)) => Reply::status(status),
            Ok(status) if asked.before < 3 => Reply::status(status).with("retry-after", "0"),
            _ if path == "/packed" => Reply::file(asked, &content, "\"a\"").with("content-encoding", "gzip"),
            _ if path == "/broken" => Reply::status(500),
            _ => Reply::file(asked, &content, "\"a\""),
        }
    });
    let sent = |path: &str| bench.server.asked().iter().filter(|asked| asked.path == path).count();
    for status in [408, 429, 500, 502, 503, 504] {
        let path = format!("/{status}");
        bench.prepare(&path).await.unwrap();
        assert_eq!(sent(&path), 4, "{status}");
    }
    for (status, kind) in [
        (401, MediaErrorKind::Denied),
        (403, MediaErrorKind::Denied),
        (404, MediaErrorKind::NotFound),
        (410, MediaErrorKind::NotFound),
        (400, MediaErrorKind::Denied),
        (204, MediaErrorKind::Unavailable),
    ] {
        let path = format!("/{status}?sig=sesame");
        let error = bench.refuse(&path).await;
        assert_eq!((error.kind, sent(&path)), (kind, 1), "{error}");
    }
    let error = bench.refuse("/packed").await;
    assert!(error.kind == MediaErrorKind::Denied && error.message.contains("packed (gzip)"), "{error}");
    assert!(bench.server.asked().iter().all(|asked| asked.header("accept-encoding") == Some("identity")));
    let error = bench.refuse("/broken?sig=sesame").await;
    assert_eq!((error.kind, sent("/broken?sig=sesame")), (MediaErrorKind::Unavailable, 4), "{error}");
    // A host that has just failed is not worth the same patience for each of its sources.
    assert_eq!(bench.refuse("/broken?2").await.kind, MediaErrorKind::Unavailable);
    assert_eq!(sent("/broken?2"), 1);
    bench.prepare("/fine").await.unwrap();
    bench.refuse("/broken?3").await;
    assert_eq!(sent("/broken?3"), 4, "it answers again");
}

#[tokio::test]
async fn a_server_that_is_down_for_longer_than_all_attempts_is_waited_for_once_and_by_all() {
    let (content, refused) = (clip(1), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&refused);
    let patient = |store: Store| Store { outage: Duration::from_mins(2), ..store };
    let bench = Bench::with(patient, move |asked| {
        let down = asked.path != "/absent" && seen.fetch_add(1, Ordering::Relaxed) < 40;
        match &*asked.path {
            "/absent" => Reply::status(404),
            "/gone" => Reply::status(503),
            _ if down => Reply::status(if asked.before % 2 == 0 { 503 } else { 502 }),
            _ => Reply::file(asked, &content, "\"a\""),
        }
    });
    let paths: Vec<String> = (0..6).map(|n| format!("/{n}")).collect();
    for result in join_all(paths.iter().map(|path| bench.prepare(path))).await {
        result.unwrap();
    }
    assert!(refused.load(Ordering::Relaxed) > 40, "attempts of one fetch are 4");
    // What is refused is refused at once, and what never comes back ends, once for all its sources.
    assert_eq!(bench.refuse("/absent").await.kind, MediaErrorKind::NotFound);
    let store = Store { outage: Duration::from_secs(2), ..bench.server.store() };
    let library = library(&bench.cache(""), Limits::default(), store);
    let error = library.prepare(&bench.server.url("/gone"), Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Unavailable, "{error}");
    let sent = || bench.server.asked().iter().filter(|asked| asked.path == "/gone").count();
    let before = sent();
    assert!(before > 4, "{before}");
    library.prepare(&bench.server.url("/gone"), Kind::Video).await.unwrap_err();
    assert_eq!(sent(), before + 1);
}

#[tokio::test]
async fn a_source_that_alone_fails_ends_although_its_server_answers_for_others() {
    let content = clip(1);
    let bench = Bench::with(
        |store| Store { outage: Duration::from_secs(1), ..store },
        move |asked| match &*asked.path {
            "/bad" => Reply::status(503),
            _ => Reply::file(asked, &content, "\"a\""),
        },
    );
    let others = async {
        for n in 0_u64.. {
            bench.prepare(&format!("/{n}")).await.unwrap();
        }
    };
    let first = async {
        tokio::select! {
            error = bench.refuse("/bad") => error.kind,
            () = others => unreachable!("there are always more"),
        }
    };
    let ended = tokio::time::timeout(Duration::from_mins(1), Box::pin(first)).await;
    assert_eq!(ended, Ok(MediaErrorKind::Unavailable));
}

#[tokio::test]
async fn a_server_that_is_not_the_one_it_says_is_not_waited_for() {
    let bench = Bench::new(|_| Reply::status(200));
    let store = Store { outage: Duration::from_hours(1), extra_ca_file: None, ..bench.server.store() };
    let library = library(&bench.cache(""), Limits::default(), store);
    let error = library.prepare(&bench.server.url("/a"), Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_second_process_asks_whether_it_changed_and_downloads_nothing() {
    let (content, tag) = (clip(1), Arc::new(Mutex::new("\"a\"")));
    let (body, current) = (content.clone(), Arc::clone(&tag));
    let bench = Bench::new(move |asked| Reply::file(asked, &body, *current.lock().unwrap()));
    let url = bench.server.url("/a?sig=sesame");
    bench.prepare("/a?sig=sesame").await.unwrap();
    bench.prepare("/a?sig=sesame").await.unwrap();
    assert_eq!(bench.server.asked().len(), 1, "one process asks once");
    let outcome = |stats: Stats| (stats.downloads, stats.unchanged, stats.decodes, stats.disk_hits);

    let second = bench.again();
    assert_eq!(second.prepare(&url, Kind::Video).await.unwrap().sha256, sha256(&content));
    assert_eq!(outcome(second.stats()), (0, 1, 0, 1));
    assert_eq!(bench.server.asked()[1].header("if-none-match"), Some("\"a\""));

    // The prepared entry is enough: the source itself may have gone.
    fs::remove_dir_all(bench.cache("sources")).unwrap();
    let third = bench.again();
    third.prepare(&url, Kind::Video).await.unwrap();
    assert_eq!(outcome(third.stats()), (0, 1, 0, 1));
    // Without either it is fetched again.
    fs::remove_dir_all(bench.cache("prepared")).unwrap();
    let fourth = bench.again();
    fourth.prepare(&url, Kind::Video).await.unwrap();
    assert_eq!(outcome(fourth.stats()), (1, 1, 1, 0));

    // Another kind of preparation reads the kept source, if it is what it was.
    let fifth = bench.again();
    fifth.prepare(&url, Kind::Audio).await.unwrap();
    assert_eq!(outcome(fifth.stats()), (0, 1, 1, 0));
    let kept = bench.cache("sources").join(sha256(&content)).join("data");
    fs::remove_dir_all(bench.cache("prepared")).unwrap();
    let mut damaged = fs::read(&kept).unwrap();
    damaged[100] ^= 1;
    fs::write(&kept, damaged).unwrap();
    let sixth = bench.again();
    assert_eq!(sixth.prepare(&url, Kind::Video).await.unwrap().sha256, sha256(&content));
    assert_eq!(outcome(sixth.stats()), (1, 1, 1, 0), "a damaged source is fetched again, never used");

    *tag.lock().unwrap() = "\"b\"";
    let seventh = bench.again();
    seventh.prepare(&url, Kind::Video).await.unwrap();
    assert_eq!(outcome(seventh.stats()), (1, 0, 0, 1), "a new tag with the same bytes costs a download and no decode");
    no_secret(bench.dir.path(), "sesame");
}

/// No file of a folder holds the word, in its name or in its content.
fn no_secret(dir: &Path, word: &str) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        assert!(!entry.file_name().to_string_lossy().contains(word), "{entry:?}");
        if entry.file_type().unwrap().is_dir() {
            no_secret(&entry.path(), word);
        } else {
            let bytes = fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{entry:?}");
        }
    }
}

#[tokio::test]
async fn all_who_want_a_url_share_one_download() {
    let content = clip(1);
    let bench = Bench::new(move |asked| Reply::file(asked, &content, "\"a\""));
    // Another library is to this one what another process is.
    let other = bench.again();
    let url = bench.server.url("/a");
    let calls = (0..50).map(|n| if n % 2 == 0 { &bench.library } else { &other }.prepare(&url, Kind::Video));
    let all: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(all.iter().all(|prepared| prepared.sha256 == all[0].sha256));
    assert_eq!(bench.server.asked().len(), 1);
    let stats = [bench.stats(), other.stats()];
    assert_eq!(
        stats.iter().map(|stats| (stats.downloads, stats.decodes)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (1, 1)
    );
}

#[tokio::test]
async fn downloads_at_once_are_bounded() {
    let (content, gate) = (clip(1), Arc::new((Mutex::new((0, 0)), Condvar::new())));
    let shared = Arc::clone(&gate);
    let bench = Bench::with(
        |store| Store { downloads: 2, ..store },
        move |asked| {
            let (counts, changed) = &*shared;
            let mut now = counts.lock().unwrap();
            now.0 += 1;
            now.1 = now.1.max(now.0);
            changed.notify_all();
            // Each waits until it is one of two, so that two are seen if two are allowed, and three if three are.
            while now.1 < 2 {
                now = changed.wait(now).unwrap();
            }
            now.0 -= 1;
            Reply::file(asked, &content, "\"a\"")
        },
    );
    let paths: Vec<String> = (0..8).map(|n| format!("/{n}")).collect();
    for result in join_all(paths.iter().map(|path| bench.prepare(path))).await {
        result.unwrap();
    }
    assert_eq!((gate.0.lock().unwrap().1, bench.stats().downloads, bench.stats().decodes), (2, 8, 1));
}

#[tokio::test]
async fn a_download_has_its_whole_time_once_its_turn_has_come() {
    let (content, total) = (clip(1), Duration::from_secs(3));
    let bench = Bench::with(
        |store| Store { downloads: 1, total, first_byte: total, ..store },
        move |asked| {
            std::thread::sleep(total / 3);
            Reply::file(asked, &content, "\"a\"")
        },
    );
    // One after the other they take twice as long.
    let paths: Vec<String> = (0..6).map(|n| format!("/{n}")).collect();
    for result in join_all(paths.iter().map(|path| bench.prepare(path))).await {
        result.unwrap();
    }
    assert_eq!((bench.stats().downloads, bench.server.asked().len()), (6, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_nobody_waits_for_leaves_nothing() {
    let (begun, content) = (Arc::new(AtomicUsize::new(0)), clip(1));
    let seen = Arc::clone(&begun);
    let bench = Bench::new(move |asked| {
        let reply = Reply::file(asked, &content, "\"a\"");
        if seen.fetch_add(1, Ordering::Relaxed) == 0 { reply.only(1000, Then::Stall) } else { reply }
    });
    let mut call = Box::pin(bench.prepare("/a"));
    while begun.load(Ordering::Relaxed) == 0 {
        assert!(tokio::time::timeout(Duration::from_millis(2), &mut call).await.is_err());
    }
    drop(call);
    // A file that is just being made ends on a thread of its own.
    until("nothing is left", || fs::read_dir(bench.cache("making")).unwrap().next().is_none().then_some(()));
    bench.prepare("/a").await.unwrap();
}

mod runs {
    use serde_json::json;

    use super::*;
    use crate::support::https::ca;
    use crate::support::proxy::Proxy;
    use crate::support::{Aurelia, Sim, Workdir};
    use aurelia::record::{ErrorKind, Status};

    #[test]
    fn a_corpus_on_a_server_runs_and_shows_no_query() {
        let (sim, work) = (Sim::plain(), Workdir::new());
        let content = clip(1);
        let server = Https::start(move |asked| match asked.header("range") {
            _ if asked.path.starts_with("/absent") => Reply::status(404),
            _ => Reply::file(asked, &content, "\"a\""),
        });
        let item =
            |id: &str, uri: String| json!({"id": id, "video": uri, "query": format!("Who ({id})? [[sim: score=9]]")});
        let items = [
            item("a", server.url("/clips/a.mp4?X-Amz-Signature=open-sesame")),
            item("b", server.url("/clips/a.mp4?X-Amz-Signature=open-sesame")),
            item("absent", server.url("/absent.mp4?X-Amz-Signature=open-sesame")),
            item("elsewhere", "https://elsewhere.example.org/a.mp4?X-Amz-Signature=open-sesame".to_owned()),
            item("tricky", "https:\\\\elsewhere.example.org/a.mp4?X-Amz-Signature=open-sesame".to_owned()),
        ];
        let file = work.items("items.jsonl", &items);
        let run =
            || Aurelia::new(&work, &sim).config(&server.config()).corpus(&file).env("AURELIA__TELEMETRY__LOG", "trace");
        let output = run().run().expect(1);
        let records = work.records();
        assert_eq!(records["a"].status, Status::Accepted);
        assert_eq!(records["a"].media[0].uri, server.url("/clips/a.mp4"));
        let kinds = ["absent", "elsewhere"].map(|id| records[id].error.as_ref().unwrap().kind);
        assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::Denied]);
        assert_eq!(server.asked().len(), 2, "one download, one absent");
        no_secret(&work.out(), "open-sesame");
        assert!(!output.stderr.contains("open-sesame") && !output.stdout.contains("open-sesame"), "{}", output.stderr);
        assert!(!output.stderr.contains("Who (a)?"), "nor a question: {}", output.stderr);
    }

    /// A run whose models and whose clip are behind TLS, and who was asked of proxy and servers.
    struct Abroad {
        work: Workdir,
        models: Https,
        clips: Https,
        proxy: Proxy,
        _sim: Sim,
    }

    impl Abroad {
        fn new() -> Self {
            let (sim, content) = (Sim::plain(), clip(1));
            let clips = Https::start(move |asked| Reply::file(asked, &content, "\"a\""));
            let models = Https::before(&sim);
            let proxy = Proxy::to(models.port());
            Self { work: Workdir::new(), models, clips, proxy, _sim: sim }
        }

        /// The models at these origins, and nothing said of certificates and proxies.
        fn run(&self, [gemini, openai]: [&str; 2]) -> Aurelia<'_> {
            let config = self.clips.config();
            let (_, store) = config.split_once("[store]").unwrap();
            let item = json!({"id": "a", "video": self.clips.url("/a.mp4"), "query": "Who? [[sim: score=9]]"});
            let file = self.work.items("items.jsonl", &[item]);
            let aurelia = Aurelia::at(&self.work, gemini).config(&format!("[store]{store}")).corpus(&file);
            aurelia.env("AURELIA__PROVIDERS__OPENAI__BASE_URL", &format!("{openai}/v1"))
        }

        /// Runs it to its end, from nothing.
        fn ends(&self, aurelia: Aurelia<'_>, code: i32) {
            drop(fs::remove_dir_all(self.work.out()));
            aurelia.run().expect(code);
        }
    }

    #[test]
    fn models_are_asked_through_the_proxy_unless_no_proxy_names_them_and_sources_are_fetched_without_it() {
        let abroad = Abroad::new();
        let (proxy, ca) = (abroad.proxy.url(), ca().display().to_string());
        // Nobody listens there: only the proxy leads to the models.
        let afar = ["https://localhost:9", "https://127.0.0.1:9"];
        let through = |origins| abroad.run(origins).env("SSL_CERT_FILE", &ca).env("HTTPS_PROXY", &proxy);
        let went = || abroad.proxy.asked().into_iter().collect::<BTreeSet<_>>();
        abroad.ends(through(afar), 0);
        assert_eq!(went(), afar.map(|origin| origin.trim_start_matches("https://").to_owned()).into());
        assert_eq!(abroad.clips.asked().len(), 1);

        // The port of the models is in no proxy's way now.
        let here = abroad.models.url("");
        let before = abroad.models.accepted();
        abroad.ends(through([afar[0], &here]).env("NO_PROXY", "127.0.0.1"), 0);
        assert_eq!(went(), ["localhost:9".to_owned()].into());
        assert!(abroad.models.accepted() > before);
        assert_eq!(abroad.clips.asked().len(), 2);
    }

    #[test]
    fn certificates_are_those_of_ssl_cert_file_and_of_extra_ca_file() {
        let abroad = Abroad::new();
        let (here, ca) = (abroad.models.url(""), ca().display().to_string());
        let run = || abroad.run([&here, &here]);
        // Whoever signed them is unknown to this machine.
        abroad.ends(run(), 1);
        let error = abroad.work.records()["a"].error.clone().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{}", error.message);
        abroad.ends(run().env("SSL_CERT_FILE", &ca), 0);
        abroad.ends(run().config(&format!("[http]\nextra_ca_file = \"{ca}\"\n")), 0);
        assert_eq!(abroad.clips.asked().len(), 2);
    }

    /// A port that nobody listens on, until somebody does, and the settings for a server there.
    fn nobody() -> (std::net::SocketAddr, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let server = Https::start(|_| Reply::status(500));
        (place, server.config().replace(&server.host(), &place.to_string()))
    }

    #[test]
    fn a_run_waits_for_a_server_that_nobody_listens_at_yet() {
        let (sim, work) = (Sim::plain(), Workdir::new());
        let (place, config) = nobody();
        let config = config.replace("outage_seconds = 0", "outage_seconds = 100");
        let item = |n: u32| json!({"id": n.to_string(), "video": format!("https://{place}/{n}.mp4"), "query": "Who? [[sim: score=9]]"});
        let file = work.items("items.jsonl", &[item(0), item(1)]);
        let running = Aurelia::new(&work, &sim).config(&config).corpus(&file).spawn();
        until("it says what it waits for", || running.stderr().contains("a source server is down").then_some(()));
        let server = until("the port is free again", || std::net::TcpListener::bind(place).ok());
        let content = clip(1);
        let server = Https::at(server, move |asked| Reply::file(asked, &content, "\"a\""));
        running.wait().expect(0);
        assert!(work.records().values().all(|record| record.status == Status::Accepted));
        assert_eq!(server.asked().len(), 2);
    }

    #[test]
    fn a_server_that_is_down_fails_its_items_and_no_others_until_it_is_asked_again() {
        let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
        let (place, config) = nobody();
        let item =
            |id: String, uri: String| json!({"id": id, "video": uri, "query": format!("Who ({id})? [[sim: score=9]]")});
        let down = (0..3).map(|n| item(format!("down-{n}"), format!("https://{place}/{n}.mp4")));
        let here = (0..3).map(|n| item(format!("here-{n}"), "clips/0.mp4".to_owned()));
        let items: Vec<_> = down.chain(here).collect();
        let file = work.items("items.jsonl", &items);
        let run = || Aurelia::new(&work, &sim).config(&config).corpus(&file);
        run().run().expect(1);
        let statuses: BTreeSet<_> =
            work.records().into_iter().map(|(id, record)| (id, record.status == Status::Accepted)).collect();
        let expected = (0..3).flat_map(|n| [(format!("down-{n}"), false), (format!("here-{n}"), true)]);
        assert_eq!(statuses, expected.collect());
        let error = work.records()["down-0"].error.clone().unwrap();
        assert_eq!(error.kind, ErrorKind::Unavailable, "{}", error.message);

        let content = clip(1);
        let server = until("the port is free again", || std::net::TcpListener::bind(place).ok());
        let server = Https::at(server, move |asked| Reply::file(asked, &content, "\"a\""));
        run().args(["--retry", "failed"]).run().expect(0);
        assert!(work.records().values().all(|record| record.status == Status::Accepted));
        assert_eq!(server.asked().len(), 3);
    }

    #[test]
    fn a_provider_that_fetches_clips_itself_is_never_told_the_address_of_a_private_host() {
        let flavour = aurelia::simulator::Flavour::Vllm;
        let settings = aurelia::simulator::Settings { openai_flavour: flavour, ..Default::default() };
        let (sim, work) = (Sim::start(settings), Workdir::new());
        let relay = crate::support::Relay::quiet(&sim);
        let (content, body) = (clip(1), clip(1));
        let server = Https::start(move |asked| Reply::file(asked, &body, "\"a\""));
        let seat =
            ("provider = \"gemini\"\nmodel = \"gemini-3.8-flash\"", "provider = \"openai\"\nmodel = \"qwen-vl\"");
        let shown = ("media = \"frames+audio\"", "media = \"video\"");
        let other = ("model = \"gpt-4o-mini\"", "model = \"qwen-vl\"");
        let recipe = work.recipe("recipe.toml", &[seat, seat, shown, shown, other]);
        let free = "[[prices]]\nprovider = \"openai\"\nmodel = \"qwen-vl\"\ninput = 0\noutput = 0\n";
        let uri = server.url("/clips/a.mp4?X-Amz-Signature=open-sesame");
        let item = json!({"id": "a", "video": uri, "query": "Who? [[sim: score=9]]"});
        let file = work.items("items.jsonl", &[item]);
        let run = |inline_mib: u32| {
            let video = format!("[providers.openai]\nvideo = \"url\"\ninline_mib = {inline_mib}\n");
            let aurelia = Aurelia::at(&work, &relay.base_url()).config(&server.config()).config(free).config(&video);
            aurelia.corpus(&file).arg("--recipe").arg(&recipe).run()
        };
        // It does not fit into a request, and there is no other way: said with the setting.
        run(0).expect(1);
        let error = work.records()["a"].error.clone().unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidMedia);
        assert!(error.message.contains("[store] private_hosts"), "{}", error.message);
        assert_eq!(relay.sent().len(), 0);
        fs::remove_dir_all(work.out()).unwrap();
        // It fits, and goes inside.
        run(12).expect(0);
        let bodies: Vec<String> = relay.sent().iter().map(|sent| sent.body.to_string()).collect();
        assert_eq!(bodies.len(), 3);
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &content);
        assert_eq!(bodies.iter().filter(|body| body.contains(&base64)).count(), 2);
        for body in &bodies {
            assert!(!body.contains("https:") && !body.contains(&server.host()) && !body.contains("sesame"));
        }
    }
}
