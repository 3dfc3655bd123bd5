use std::io::Write as _;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::provider::{Protocol, VideoWay};
use crate::simulator::{FileFaults, FileSettings, FileStats, Projects, Scripted, Settings, Simulator};

const KEY: &str = "AIza-very-secret-key-0123456789";
const KIB: u64 = 1024;

fn deadlines() -> HttpSettings {
    HttpSettings {
        connect: Duration::from_secs(20),
        first_byte: Duration::from_secs(20),
        idle: Duration::from_secs(20),
        total: Duration::from_secs(30),
        max_reply_bytes: 1 << 20,
        extra_ca_file: None,
    }
}

fn endpoint(base_url: String) -> Endpoint {
    Endpoint {
        name: "gemini".to_owned(),
        protocol: Protocol::Gemini,
        identity: base_url.clone(),
        base_url,
        api_version: "v1beta".to_owned(),
        video: VideoWay::Upload,
        inline_bytes: 0,
    }
}

/// Impatient, and in chunks of 64 KiB, so that a small file has many.
fn files(base_url: String, key: &str) -> Files {
    let patience = Policy { attempts: 6, base: Duration::from_millis(1), max: Duration::from_millis(4) };
    let made = Files::new(&Client::direct(&deadlines()), &endpoint(base_url), &Credential::new("GEMINI_API_KEY", key));
    Files { chunk: 64 * KIB, ..made.with_patience(patience) }
}

async fn simulator(files: FileSettings) -> Simulator {
    Simulator::start(Settings { files, ..Settings::default() }, ([127, 0, 0, 1], 0).into()).await.unwrap()
}

/// An open file of so many bytes, none of which is where another is.
fn clip(bytes: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let words = bytes.div_ceil(8);
    let noise: Vec<u8> = (0..words).flat_map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()).collect();
    file.write_all(&noise[..usize::try_from(bytes).unwrap()]).unwrap();
    file
}

async fn up(files: &Files, bytes: u64) -> Result<Uploaded, FilesError> {
    files.upload(&clip(bytes), bytes, "video/mp4", "a clip", &CancellationToken::new()).await
}

fn counts(simulator: &Simulator) -> FileStats {
    simulator.stats().files.into_values().next().unwrap_or_default()
}

/// What the simulator's hash of the uploaded file is, and must be.
async fn hashes(simulator: &Simulator, name: &str, bytes: u64) -> (String, String) {
    use base64::Engine as _;
    use sha2::Digest as _;
    use std::os::unix::fs::FileExt as _;

    let mut content = vec![0; usize::try_from(bytes).unwrap()];
    clip(bytes).read_exact_at(&mut content, 0).unwrap();
    let hex: String = sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let files = files(simulator.base_url(), KEY);
    let answer = exchange::bare(&files, Method::GET, &format!("/v1beta/{name}"), &[]).await.unwrap();
    let told = answer.json().unwrap()["sha256Hash"].as_str().unwrap().to_owned();
    (told, base64::engine::general_purpose::STANDARD.encode(hex))
}

#[tokio::test]
async fn a_file_goes_up_once_and_is_shown_listed_and_deleted() {
    let simulator = simulator(FileSettings { granularity: 64 * KIB, ..FileSettings::default() }).await;
    let files = files(simulator.base_url(), KEY);
    for size in [1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 1_000 * KIB + 13] {
        simulator.reset_stats();
        let done = up(&files, size).await.unwrap();
        assert_eq!((done.bytes_sent, done.file.bytes), (size, size));
        assert_eq!(done.file.display_name, "a clip");
        assert!(done.file.uri.ends_with(&done.file.name));
        let (told, want) = hashes(&simulator, &done.file.name, size).await;
        assert_eq!(told, want, "{size}");
        assert_eq!(files.get(&done.file.name).await.unwrap().name, done.file.name);
        let counts = counts(&simulator);
        assert_eq!((counts.started, counts.finalized, counts.bytes_received, counts.queries), (1, 1, size, 0));
    }
    let listed = files.list().await.unwrap();
    assert_eq!(listed.len(), 5);
    for file in &listed {
        files.delete(&file.name).await.unwrap();
        files.delete(&file.name).await.unwrap();
        assert_eq!(files.get(&file.name).await, Err(FilesError::Gone));
    }
    assert!(files.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_list_of_several_pages_comes_whole() {
    let simulator = simulator(FileSettings::default()).await;
    let files = files(simulator.base_url(), KEY);
    for n in 0..205 {
        up(&files, n + 1).await.unwrap();
    }
    let listed = files.list().await.unwrap();
    let sizes: Vec<u64> = listed.iter().map(|file| file.bytes).collect();
    assert_eq!(sizes, (1..=205).rev().collect::<Vec<_>>());
    assert_eq!(counts(&simulator).lists, 3);
}

#[tokio::test]
async fn each_fault_is_mended_with_one_file_and_nothing_sent_twice_but_what_was_lost() {
    let size = 700 * KIB + 5;
    let all =
        ["start_503", "start_cut", "chunk_503", "chunk_cut", "session_lost", "final_503", "final_lost", "final_gone"];
    let mut cases: Vec<Vec<&str>> = all.iter().map(|&name| vec![name]).collect();
    cases.extend(all.iter().map(|&name| vec![name, name, name]));
    cases.push(vec!["final_lost", "resource_503"]);
    cases.push(vec!["final_gone", "resource_503", "resource_503"]);
    cases.push(all.to_vec());
    for names in cases {
        let script = names.iter().map(|&name| Scripted { fault: name.to_owned(), times: 1 }).collect();
        let faults = FileFaults { script, ..FileFaults::default() };
        let settings =
            FileSettings { kept_multiple: 4 * KIB, granularity: 64 * KIB, faults, ..FileSettings::default() };
        let simulator = simulator(settings).await;
        let files = files(simulator.base_url(), KEY);
        let done = up(&files, size).await.unwrap_or_else(|error| panic!("{names:?}: {error}"));
        let counts = counts(&simulator);
        assert_eq!((counts.finalized, counts.live_files, counts.bytes_finalized), (1, 1, size), "{names:?}");
        assert_eq!(counts.bytes_received, size + counts.bytes_lost, "{names:?}");
        // A piece that was handed over may never have left, so ours can be a chunk more for each break.
        let most = size + counts.bytes_lost + names.len() as u64 * 64 * KIB;
        assert!((size..=most).contains(&done.bytes_sent), "{names:?}: {} of {size} sent, {counts:?}", done.bytes_sent);
        let met: u64 = simulator.stats().faults.values().sum();
        assert!(met >= 1, "{names:?}");
        simulator.set(Settings::default()).unwrap();
        let (told, want) = hashes(&simulator, &done.file.name, size).await;
        assert_eq!(told, want, "{names:?}");
    }
}

#[tokio::test]
async fn a_session_lost_near_the_end_costs_all_of_it_once_and_no_more() {
    // Slow chunks that take no time are chunks that are all right.
    let script = [("chunk_slow", 35), ("session_lost", 1)];
    let script = script.map(|(fault, times)| Scripted { fault: fault.to_owned(), times }).into();
    let faults = FileFaults { script, slow_ms: 0, ..FileFaults::default() };
    let simulator = simulator(FileSettings { granularity: 64 * KIB, faults, ..FileSettings::default() }).await;
    let done = up(&files(simulator.base_url(), KEY), 40 * 64 * KIB).await.unwrap();
    let counts = counts(&simulator);
    assert_eq!((counts.started, counts.finalized, counts.bytes_lost), (2, 1, 36 * 64 * KIB));
    assert_eq!(done.bytes_sent, counts.bytes_received);
}

#[tokio::test]
async fn cuts_anywhere_by_many_seeds_end_in_the_same_file() {
    let (mut cuts, mut lost) = (0, 0);
    for seed in 0..60 {
        let size = 300 * KIB + seed * 977;
        let kinds = [
            "chunk_cut",
            "chunk_503",
            "start_503",
            "start_cut",
            "final_503",
            "final_lost",
            "final_gone",
            "session_lost",
        ];
        // A lost session costs all it held, so it is rarer than the rest.
        let mut kinds: Vec<String> = kinds.map(str::to_owned).into();
        kinds.extend(vec!["chunk_cut".to_owned(); 8]);
        let faults = FileFaults { rate: 0.5, kinds, max_consecutive: 3, ..FileFaults::default() };
        let kept_multiple = [1, 512, 16 * KIB][usize::try_from(seed % 3).unwrap()];
        let settings = FileSettings { kept_multiple, granularity: 1_024, faults, ..FileSettings::default() };
        let settings = Settings { seed, files: settings, ..Settings::default() };
        let simulator = Simulator::start(settings, ([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut files = files(simulator.base_url(), KEY);
        files.patience.attempts = 30;
        let done = up(&files, size).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let counts = counts(&simulator);
        assert_eq!((counts.finalized, counts.bytes_finalized), (1, size), "seed {seed}");
        assert_eq!(counts.bytes_received, size + counts.bytes_lost, "seed {seed}");
        let (told, want) = hashes(&simulator, &done.file.name, size).await;
        assert_eq!(told, want, "seed {seed}");
        cuts += simulator.stats().faults.values().sum::<u64>();
        lost += counts.bytes_lost;
    }
    assert!(cuts > 200 && lost > 0, "{cuts} faults, {lost} bytes lost");
}

#[tokio::test]
async fn what_a_file_becomes_is_told_and_foreign_files_are_gone() {
    let script = vec![Scripted { fault: "failed".to_owned(), times: 1 }];
    let faults = FileFaults { script, ..FileFaults::default() };
    let projects = Projects([("one", "p"), ("two", "p")].map(|(key, project)| (key.into(), project.into())).into());
    let simulator = simulator(FileSettings { processing_ms: 100, projects, faults, ..FileSettings::default() }).await;
    let one = files(simulator.base_url(), "one");
    let made = up(&one, 5).await.unwrap().file;
    assert_eq!(made.state, FileState::Processing);
    assert_eq!(made.expires_at.unwrap().duration_since(made.created_at.unwrap()).as_hours(), 48);
    let failed = loop {
        let file = one.get(&made.name).await.unwrap();
        if file.state != FileState::Processing {
            break file;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((failed.state, failed.error.is_some()), (FileState::Failed, true));
    assert_eq!(files(simulator.base_url(), "two").get(&made.name).await.unwrap().name, made.name);
    let other = files(simulator.base_url(), "three");
    assert_eq!(other.get(&made.name).await, Err(FilesError::Gone));
    assert_eq!(other.delete(&made.name).await, Ok(()));
    assert!(one.get(&made.name).await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_uploaded_says_why_before_or_after_it_is_sent() {
    let settings = json_settings(&serde_json::json!({
        "files": { "storage_bytes": 1_000 }, "keys": { "revoked": ["old"], "no_billing": ["poor"] },
    }));
    let simulator = Simulator::start(settings, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let files = files(simulator.base_url(), KEY);
    let stop = CancellationToken::new();
    let send = |file: File, bytes: u64, mime: &'static str| {
        let (files, stop) = (files.clone(), stop.clone());
        async move { files.upload(&file, bytes, mime, "x", &stop).await.unwrap_err() }
    };
    let refused = |error: FilesError, words: &str| matches!(error, FilesError::Refused(text) if text.contains(words));
    assert!(refused(send(clip(0), 0, "video/mp4").await, "an empty file"));
    assert!(refused(send(clip(1), MAX_FILE_BYTES + 1, "video/mp4").await, "set clip_mib"));
    assert_eq!(simulator.stats().files.len(), 0, "nothing was sent");
    assert!(refused(send(clip(9), 9, "video/x-unheard").await, "Unsupported MIME type"));
    assert!(refused(send(clip(9), 9, "video/mp4\n").await, "is no type of a file"));
    let short = send(clip(100), 101, "video/mp4").await;
    assert!(matches!(&short, FilesError::Local(text) if text.contains("cannot be read at byte 0")), "{short:?}");
    let full = send(clip(1_001), 1_001, "video/mp4").await;
    assert!(matches!(&full, FilesError::StorageFull { message } if message.contains("file_storage")), "{full:?}");
    for key in ["", "old", "poor"] {
        let error = up(&self::files(simulator.base_url(), key), 9).await.unwrap_err();
        assert!(matches!(error, FilesError::KeyRefused(_)), "{key}: {error:?}");
    }
    stop.cancel();
    assert_eq!(send(clip(9), 9, "video/mp4").await, FilesError::Stopped);
    assert_eq!(counts(&simulator).finalized, 0);
    for name in ["files/", "files/../models/x", "models/x", "files/a?key=1", "files/a/b"] {
        assert!(matches!(files.get(name).await, Err(FilesError::Refused(_))), "{name}");
    }
}

fn json_settings(patch: &serde_json::Value) -> Settings {
    Settings::default().patched(patch).unwrap()
}

#[tokio::test]
async fn an_upload_that_is_told_to_stop_ends_at_once() {
    let script = vec![Scripted { fault: "chunk_slow".to_owned(), times: 1 }];
    let faults = FileFaults { script, slow_ms: 3_600_000, ..FileFaults::default() };
    let simulator = simulator(FileSettings { faults, ..FileSettings::default() }).await;
    let (files, stop) = (files(simulator.base_url(), KEY), CancellationToken::new());
    let file = clip(300 * KIB);
    let stopped = async {
        while simulator.stats().faults.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (done, ()) = tokio::join!(files.upload(&file, 300 * KIB, "video/mp4", "x", &stop), stopped);
    assert_eq!(done, Err(FilesError::Stopped));
}

/// What a server of a test answers to a request: its head, and how many bytes came behind it.
type Reply = dyn Fn(&str, usize) -> String + Send + Sync;

/// A server that answers each request by its head; the heads it saw.
async fn server(reply: Arc<Reply>) -> (String, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (heads, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
    let seen = Arc::clone(&heads);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&reply), Arc::clone(&seen)));
        }
    });
    (base, heads, tasks)
}

async fn serve(mut stream: TcpStream, reply: Arc<Reply>, heads: Arc<Mutex<Vec<String>>>) {
    let mut bytes = Vec::new();
    loop {
        let split = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = split {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                bytes.drain(..end + 4 + length);
                heads.lock().unwrap().push(head.clone());
                if stream.write_all(reply(&head, length).as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

const FILE: &str = r#"{"file": {"name": "files/x", "uri": "https://host.test/v1beta/files/x", "sizeBytes": "200000", "state": "ACTIVE"}}"#;

/// A server that starts uploads at this address, with these further headers, and does `then` with everything else.
async fn uploads(
    url: &'static str,
    headers: &'static str,
    then: impl Fn(&str, usize) -> String + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    server(Arc::new(move |head: &str, length| {
        if head.contains("x-goog-upload-command: start") {
            answer(200, &format!("x-goog-upload-url: {url}\r\nx-goog-upload-status: active\r\n{headers}"), "")
        } else {
            then(head, length)
        }
    }))
    .await
}

#[tokio::test]
async fn the_address_of_an_upload_is_believed_but_for_its_origin() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/there/files?upload_id=SECRET&x=1", elsewhere.local_addr().unwrap());
    let url: &'static str = Box::leak(url.into_boxed_str());
    let (base, heads, _tasks) = uploads(url, "", |_, _| answer(200, "x-goog-upload-status: final\r\n", FILE)).await;
    let mut files = files(format!("{base}/"), KEY);
    files.chunk = upload::CHUNK;
    let done = up(&files, 200_000).await.unwrap();
    assert_eq!(done.file.name, "files/x");
    let heads = heads.lock().unwrap().clone();
    assert!(heads[0].starts_with("post /upload/v1beta/files http/1.1"), "{heads:?}");
    assert!(heads[1].starts_with("post /there/files?upload_id=secret&x=1 http/1.1"), "{heads:?}");
    assert!(
        heads[1].contains("x-goog-upload-command: upload, finalize") && heads[1].contains("content-length: 200000")
    );
    assert!(heads.iter().all(|head| head.contains(&format!("x-goog-api-key: {}", KEY.to_ascii_lowercase()))));
    let mut waiting = std::pin::pin!(elsewhere.accept());
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "nobody came to the other host");
}

#[tokio::test]
async fn a_server_that_lies_is_an_error_and_never_a_file() {
    let active = |received: &str| {
        answer(200, &format!("x-goog-upload-status: active\r\nx-goog-upload-size-received: {received}\r\n"), "")
    };
    let cases: Vec<(&str, &str, &str, Box<Reply>)> = vec![
        ("no address", "", "", Box::new(|_, _| answer(200, "", ""))),
        ("an address of another kind", "file:///etc/passwd", "", Box::new(|_, _| answer(200, "", ""))),
        (
            "steps beyond memory",
            "/u",
            "x-goog-upload-chunk-granularity: 9223372036854775807\r\n",
            Box::new(|_, _| answer(200, "", "")),
        ),
        ("no step", "/u", "x-goog-upload-chunk-granularity: 0\r\n", Box::new(|_, _| answer(200, "", ""))),
        ("an offset beyond the end", "/u", "", Box::new(move |_, _| active("18446744073709551615"))),
        ("an offset that is none", "/u", "", Box::new(move |_, _| active("-1"))),
        ("always the beginning", "/u", "", Box::new(move |_, _| active("0"))),
        ("no standing", "/u", "", Box::new(|_, _| answer(200, "", ""))),
        ("a redirect", "/u", "", Box::new(|_, _| answer(307, "location: http://127.0.0.1:9/x\r\n", ""))),
        ("no HTTP", "/u", "", Box::new(|_, _| "hello there\r\n\r\n".to_owned())),
        ("huge headers", "/u", "", Box::new(|_, _| answer(200, &format!("x-a: {}\r\n", "y".repeat(2 << 20)), ""))),
        (
            "an endless answer",
            "/u",
            "",
            Box::new(|_, _| answer(200, "x-goog-upload-status: active\r\n", &"z".repeat(3 << 20))),
        ),
        (
            "a session always lost",
            "/u",
            "",
            Box::new(
                |head: &str, _| if head.starts_with("get") { answer(200, "", "{}") } else { answer(404, "", "gone") },
            ),
        ),
        (
            "a file of another size",
            "/u",
            "",
            Box::new(|_, _| answer(200, "x-goog-upload-status: final\r\n", &FILE.replace("200000", "7"))),
        ),
        (
            "final, and no file",
            "/u",
            "",
            Box::new(|head: &str, _| {
                if head.starts_with("get /v1beta/files?") {
                    answer(200, "", "{}")
                } else if head.starts_with("get") {
                    answer(
                        403,
                        "",
                        r#"{"error": {"message": "You do not have permission to access the File x or it may not exist."}}"#,
                    )
                } else {
                    answer(200, "x-goog-upload-status: final\r\n", "{}")
                }
            }),
        ),
    ];
    for (name, url, headers, then) in cases {
        let (base, heads, _tasks) =
            uploads(Box::leak(url.to_owned().into_boxed_str()), Box::leak(headers.to_owned().into_boxed_str()), then)
                .await;
        let error = up(&files(base, KEY), 200_000).await.unwrap_err();
        assert!(matches!(error, FilesError::Unavailable(_)), "{name}: {error:?}");
        assert!(!format!("{error:?}").contains(KEY), "{name}");
        let asked = heads.lock().unwrap().len();
        assert!(asked < 80, "{name}: {asked} requests");
    }
}

#[tokio::test]
async fn a_service_that_is_down_is_asked_as_often_as_patience_says() {
    let (base, heads, _tasks) = server(Arc::new(|_: &str, _| answer(503, "", "upload_id=SECRET"))).await;
    let files = files(base, KEY);
    assert!(
        matches!(up(&files, 9).await, Err(FilesError::Unavailable(text)) if text.starts_with("gemini: status 503"))
    );
    assert_eq!(std::mem::take(&mut *heads.lock().unwrap()).len(), 6);
    assert!(matches!(files.get("files/x").await, Err(FilesError::Unavailable(_))));
    assert_eq!(heads.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_list_without_end_is_an_error_and_what_is_no_file_in_it_is_left_out() {
    let count = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&count);
    let endless = move |_: &str, _| {
        let mut count = counting.lock().unwrap();
        *count += 1;
        answer(200, "", &format!(r#"{{"files": [], "nextPageToken": "{count}"}}"#))
    };
    let (base, heads, _tasks) = server(Arc::new(endless)).await;
    assert!(matches!(files(base, KEY).list().await, Err(FilesError::Unavailable(_))));
    assert_eq!(heads.lock().unwrap().len(), 100);
    let page = |token: &'static str| {
        server(Arc::new(move |_: &str, _| {
            let files = r#"[{"name": "files/a", "uri": "u"}, {"name": "models/a", "uri": "u"}, 7]"#;
            answer(200, "", &format!(r#"{{"files": {files}, "nextPageToken": "{token}"}}"#))
        }))
    };
    let (base, heads, _tasks) = page("again").await;
    assert!(matches!(files(base, KEY).list().await, Err(FilesError::Unavailable(_))));
    assert_eq!(heads.lock().unwrap().len(), 2, "a token that comes again leads nowhere");
    let (base, _heads, _tasks) = page("").await;
    let names: Vec<String> = files(base, KEY).list().await.unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["files/a"]);
    let (base, _heads, _tasks) = server(Arc::new(|_: &str, _| answer(200, "", "<html>"))).await;
    assert!(matches!(files(base, KEY).get("files/a").await, Err(FilesError::Unavailable(_))));
}

#[tokio::test]
async fn a_full_store_is_known_by_its_quota_wherever_it_is_named_and_is_not_waited_for() {
    let details = r#""details": [{"violations": [{"quotaMetric": "x.test/file_storage_bytes", "quotaId": "FileStorageBytesPerProject"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "9223372036854775807s"}]"#;
    for body in [
        format!(r#"{{"error": {{"message": "You exceeded your current quota.", {details}}}}}"#),
        r#"{"error": {"message": "Quota exceeded for metric: x.test/file_storage_bytes, limit: 21474836480"}}"#
            .to_owned(),
    ] {
        let (base, heads, _tasks) = server(Arc::new(move |_: &str, _| answer(429, "", &body))).await;
        let error = up(&files(base, KEY), 9).await.unwrap_err();
        assert!(
            matches!(&error, FilesError::StorageFull { message } if message.contains("file_storage_bytes")),
            "{error:?}"
        );
        assert_eq!(heads.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_wrong_address_is_no_empty_list() {
    let (base, _heads, _tasks) = server(Arc::new(|_: &str, _| answer(404, "", "<title>Error 404</title>"))).await;
    let files = files(base, KEY);
    for error in [files.list().await.unwrap_err(), up(&files, 9).await.unwrap_err()] {
        assert!(matches!(&error, FilesError::Unavailable(text) if text.contains("check base_url")), "{error:?}");
    }
}

#[tokio::test]
async fn a_pause_the_service_asks_for_is_handed_on() {
    let (base, heads, _tasks) = server(Arc::new(|_: &str, _| answer(429, "retry-after: 30\r\n", "{}"))).await;
    let found = up(&files(base, KEY), 9).await;
    assert!(
        matches!(found, Err(FilesError::Throttled { retry_after: Some(wait) }) if wait >= Duration::from_secs(30)),
        "{found:?}"
    );
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_service_forgets_again_and_again_is_not_fed_for_ever() {
    // Each second chunk is acknowledged, then everything is forgotten but a little more than before.
    let known = Arc::new(Mutex::new(0_u64));
    let (base, _heads, _tasks) = uploads("/u", "", move |head, _| {
        let mut known = known.lock().unwrap();
        *known += 1;
        let received = if head.contains("x-goog-upload-command: query") { 0 } else { *known };
        answer(200, &format!("x-goog-upload-status: active\r\nx-goog-upload-size-received: {received}\r\n"), "")
    })
    .await;
    let mut files = files(base, KEY);
    files.chunk = 8 << 20;
    let error = up(&files, 16 << 20).await.unwrap_err();
    assert!(
        matches!(&error, FilesError::Unavailable(text) if text.contains("bytes were sent of a file of")),
        "{error:?}"
    );
}

#[tokio::test]
async fn silence_ends_each_stage() {
    // The peer takes connections and never reads or answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut held = JoinSet::new();
    held.spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    let short = HttpSettings { idle: Duration::from_millis(30), first_byte: Duration::from_millis(40), ..deadlines() };
    let made = Files::new(&Client::direct(&short), &endpoint(base), &Credential::new("K", KEY));
    let files =
        made.with_patience(Policy { attempts: 2, base: Duration::from_millis(1), max: Duration::from_millis(1) });
    let error = up(&files, 9).await.unwrap_err();
    assert!(matches!(&error, FilesError::Unavailable(text) if text.contains("first byte deadline")), "{error:?}");
    let url = exchange::address(&files, "/u").unwrap();
    let body = crate::provider::body::Body::new(vec![bytes::Bytes::from(vec![1; 64 << 20])]);
    let error =
        exchange::send(&files, Method::POST, url, reqwest::header::HeaderMap::new(), body, &Arc::default()).await;
    assert!(error.unwrap_err().message.contains("the upload does not move within 0.03 s (idle deadline)"));
}

#[tokio::test]
async fn what_is_shown_holds_no_secret() {
    let files = files("http://127.0.0.1:9/prefix".to_owned(), KEY);
    assert_eq!(format!("{files:?}"), "Files(gemini, GEMINI_API_KEY)");
    assert_eq!(exchange::address(&files, "/v1/files").unwrap().as_str(), "http://127.0.0.1:9/prefix/v1/files");
    let echo = format!("http://127.0.0.1:1/u?upload_id=SECRET {KEY}");
    let (base, _heads, _tasks) = server(Arc::new(move |_: &str, _| answer(400, "", &echo))).await;
    let error = up(&self::files(base, KEY), 9).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(KEY), "{error:?}");
    for base in ["ftp://host", "not an address", ""] {
        let error = up(&self::files(base.to_owned(), KEY), 9).await.unwrap_err();
        assert!(matches!(&error, FilesError::Refused(text) if text.contains("base_url")), "{error:?}");
    }
}
