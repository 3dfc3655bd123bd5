//! The Files API over the wire: uploads step by step, what they become, who may use them, and how they go wrong.

use aurelia::simulator::{FileFaults, FileSettings, FileStats, Projects, Scripted, Settings, Simulator};
use base64::Engine as _;
use serde_json::{Value, json};

use super::client::{Answer, gemini, send};
use super::{FLASH, started, until};

const KIB: usize = 1024;

/// An MP4 of `seconds` with sound by its own account, and so many bytes that mean nothing.
fn mp4(seconds: u32, filler: usize) -> Vec<u8> {
    fn boxed(name: &[u8], payload: &[u8]) -> Vec<u8> {
        [&u32::try_from(payload.len() + 8).unwrap().to_be_bytes()[..], name, payload].concat()
    }
    let mut mvhd = vec![0; 100];
    mvhd[12..16].copy_from_slice(&1_000_u32.to_be_bytes());
    mvhd[16..20].copy_from_slice(&(seconds * 1_000).to_be_bytes());
    let hdlr = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0soun\0\0\0\0");
    let moov = boxed(b"moov", &[boxed(b"mvhd", &mvhd), boxed(b"trak", &boxed(b"mdia", &hdlr))].concat());
    let noise: Vec<u8> = (0..filler).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    [boxed(b"ftyp", b"isom\0\0\0\0"), boxed(b"mdat", &noise), moov].concat()
}

async fn with(files: FileSettings) -> Simulator {
    started(Settings { files, ..Settings::default() }).await
}

fn scripted(names: &[&str]) -> FileSettings {
    let script = names.iter().map(|&name| Scripted { fault: name.to_owned(), times: 1 }).collect();
    FileSettings {
        kept_multiple: 1_024,
        granularity: 1_024,
        faults: FileFaults { script, ..FileFaults::default() },
        ..FileSettings::default()
    }
}

async fn start(simulator: &Simulator, key: &str, size: usize, file: &Value) -> Option<Answer> {
    let headers = format!(
        "x-goog-api-key: {key}\r\nx-goog-upload-protocol: resumable\r\nx-goog-upload-command: start\r\n\
         x-goog-upload-header-content-length: {size}\r\nx-goog-upload-header-content-type: video/mp4\r\n"
    );
    let body = json!({ "file": file }).to_string();
    send(simulator.addr(), "POST", "/upload/v1beta/files", &headers, body.as_bytes()).await
}

/// The path of a new upload.
async fn path(simulator: &Simulator, key: &str, size: usize) -> String {
    let answer = start(simulator, key, size, &json!({ "displayName": "a clip" })).await.unwrap();
    assert_eq!((answer.status, answer.header("x-goog-upload-status")), (200, Some("active")), "{answer:?}");
    assert!(answer.header("x-goog-upload-chunk-granularity").is_some());
    answer.header("x-goog-upload-url").unwrap().strip_prefix(&simulator.base_url()).unwrap().to_owned()
}

async fn command(simulator: &Simulator, path: &str, command: &str, offset: usize, bytes: &[u8]) -> Option<Answer> {
    let headers = format!("x-goog-upload-command: {command}\r\nx-goog-upload-offset: {offset}\r\n");
    send(simulator.addr(), "POST", path, &headers, bytes).await
}

/// How an upload stands.
async fn query(simulator: &Simulator, path: &str) -> (String, usize) {
    let answer = command(simulator, path, "query", 0, b"").await.unwrap();
    let header = |name: &str| answer.header(name).unwrap().to_owned();
    (header("x-goog-upload-status"), header("x-goog-upload-size-received").parse().unwrap())
}

/// Uploads in one piece; the file.
async fn uploaded(simulator: &Simulator, key: &str, bytes: &[u8]) -> Value {
    let path = path(simulator, key, bytes.len()).await;
    let answer = command(simulator, &path, "upload, finalize", 0, bytes).await.unwrap();
    assert_eq!((answer.status, answer.header("x-goog-upload-status")), (200, Some("final")), "{answer:?}");
    answer.json()["file"].clone()
}

async fn resource(simulator: &Simulator, method: &str, key: &str, path: &str) -> Answer {
    send(simulator.addr(), method, path, &format!("x-goog-api-key: {key}\r\n"), b"").await.unwrap()
}

fn shows(uri: &str) -> Value {
    json!({ "contents": [{ "parts": [
        { "fileData": { "mimeType": "video/mp4", "fileUri": uri } }, { "text": "<question>\"Why?\"</question>" } ] }] })
}

fn counts(simulator: &Simulator) -> FileStats {
    let files = simulator.stats().files;
    assert_eq!(files.len(), 1, "{files:?}");
    files.into_values().next().unwrap()
}

#[tokio::test]
async fn a_file_comes_in_chunks_and_is_asked_for_listed_and_deleted() {
    let simulator = with(FileSettings { granularity: 1_024, ..FileSettings::default() }).await;
    let clip = mp4(12, 300 * KIB);
    let path = path(&simulator, "k", clip.len()).await;
    for (at, chunk) in clip.chunks(128 * KIB).enumerate() {
        let last = (at + 1) * 128 * KIB >= clip.len();
        let words = if last { "upload, finalize" } else { "upload" };
        let answer = command(&simulator, &path, words, at * 128 * KIB, chunk).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        if last {
            let file = &answer.json()["file"];
            let name = file["name"].as_str().unwrap().to_owned();
            assert_eq!(file["uri"], format!("{}/v1beta/{name}", simulator.base_url()));
            assert_eq!((&file["state"], &file["source"]), (&json!("ACTIVE"), &json!("UPLOADED")));
            assert_eq!((&file["displayName"], &file["mimeType"]), (&json!("a clip"), &json!("video/mp4")));
            assert_eq!(file["sizeBytes"], clip.len().to_string());
            assert_eq!(file["videoMetadata"]["videoDuration"], "12s");
            let life = |name: &str| file[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            assert_eq!(life("expirationTime").duration_since(life("createTime")).as_hours(), 48);
            let got = resource(&simulator, "GET", "k", &format!("/v1beta/{name}")).await;
            assert_eq!(&got.json(), file);
            let listed = resource(&simulator, "GET", "k", "/v1beta/files?pageSize=5").await.json();
            assert_eq!(listed["files"][0]["name"], name);
            assert_eq!(query(&simulator, &path).await, ("final".to_owned(), clip.len()));
            for status in [200, 403] {
                let deleted = resource(&simulator, "DELETE", "k", &format!("/v1beta/{name}")).await;
                assert_eq!(deleted.status, status);
            }
        } else {
            assert_eq!(answer.header("x-goog-upload-status"), Some("active"));
            assert_eq!(query(&simulator, &path).await, ("active".to_owned(), (at + 1) * 128 * KIB));
        }
    }
    assert_eq!(resource(&simulator, "GET", "k", "/v1beta/files").await.json(), json!({}));
    let (size, chunks) = (clip.len() as u64, clip.len().div_ceil(128 * KIB) as u64);
    let want = FileStats {
        started: 1,
        finalized: 1,
        bytes_received: size,
        bytes_finalized: size,
        queries: chunks,
        gets: 1,
        lists: 2,
        deletes: 1,
        ..FileStats::default()
    };
    assert_eq!(counts(&simulator), want);
}

#[tokio::test]
async fn a_clip_counts_and_is_answered_the_same_inside_the_request_and_by_its_file() {
    let simulator = started(Settings::default()).await;
    let clip = mp4(12, 3_000);
    let file = uploaded(&simulator, "k", &clip).await;
    let by_file = gemini(simulator.addr(), FLASH, "k", &shows(file["uri"].as_str().unwrap())).await.unwrap();
    let mut inline = shows("");
    let data = base64::engine::general_purpose::STANDARD.encode(&clip);
    inline["contents"][0]["parts"][0] = json!({ "inlineData": { "mimeType": "video/mp4", "data": data } });
    let inside = gemini(simulator.addr(), FLASH, "k", &inline).await.unwrap();
    assert_eq!((by_file.status, by_file.gemini_text()), (200, inside.gemini_text()), "{by_file:?}");
    let details = by_file.json()["usageMetadata"]["promptTokensDetails"].clone();
    assert_eq!(details, inside.json()["usageMetadata"]["promptTokensDetails"]);
    let of = |name: &str| {
        details.as_array().unwrap().iter().find(|part| part["modality"] == name).unwrap()["tokenCount"].clone()
    };
    assert_eq!((of("VIDEO"), of("AUDIO")), (json!(12 * 258), json!(12 * 32)));
    let other = uploaded(&simulator, "k", &mp4(12, 3_001)).await;
    let answer = gemini(simulator.addr(), FLASH, "k", &shows(other["uri"].as_str().unwrap())).await.unwrap();
    assert_ne!(answer.gemini_text(), by_file.gemini_text(), "another clip, another scene");
    let mut part = shows(file["uri"].as_str().unwrap());
    part["contents"][0]["parts"][0]["videoMetadata"] = json!({ "startOffset": "2s", "endOffset": "5s", "fps": 2 });
    let answer = gemini(simulator.addr(), FLASH, "k", &part).await.unwrap().json();
    let tokens = answer["usageMetadata"]["promptTokenCount"].as_u64().unwrap();
    assert_eq!(tokens, 3 * (2 * 258 + 32) + 7, "three seconds at two frames, and the text");
    let stats = simulator.stats();
    assert_eq!((stats.parts_shown["video"], stats.media_bytes), (4, (3 * clip.len() + clip.len() + 1) as u64));
    assert_eq!(counts(&simulator).shown, 3);
}

#[tokio::test]
async fn real_files_count_by_the_length_they_state() {
    let folder = tempfile::tempdir().unwrap();
    let picture = ["-f", "lavfi", "-i", "testsrc=s=160x120:r=10:d=3"];
    let sound = ["-f", "lavfi", "-i", "sine=d=3"];
    // Name, further arguments, type, tokens of the picture. What states no length is counted by its bytes: no figure.
    let cases: [(&str, &[&str], &str, Option<u64>); 14] = [
        ("a.mp4", &[], "video/mp4", Some(3)),
        ("fragments.mp4", &["-movflags", "frag_keyframe+empty_moov+delay_moov"], "video/mp4", None),
        ("a.mov", &[], "video/quicktime", Some(3)),
        ("a.webm", &["-deadline", "realtime"], "video/webm", Some(3)),
        ("a.avi", &[], "video/avi", Some(3)),
        ("a.mpg", &["-r", "25"], "video/mpeg", None),
        ("a.wav", &[], "audio/wav", Some(0)),
        ("a.mp3", &[], "audio/mpeg", Some(0)),
        ("steady.mp3", &["-b:a", "64k", "-write_xing", "0"], "audio/mp3", Some(0)),
        ("a.flac", &[], "audio/flac", Some(0)),
        ("a.aac", &[], "audio/aac", Some(0)),
        ("a.ogg", &["-c:a", "libvorbis"], "audio/ogg", Some(0)),
        ("a.opus", &[], "audio/ogg", Some(0)),
        ("a.m4a", &[], "audio/m4a", Some(0)),
    ];
    let simulator = started(Settings::default()).await;
    for (name, arguments, mime, frames) in cases {
        let path = folder.path().join(name);
        let mut ffmpeg = tokio::process::Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-y"]).args(if mime.starts_with("video") { &picture[..] } else { &[] });
        let made = ffmpeg.args(sound).args(arguments).arg(&path).output().await.unwrap();
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        let data = base64::engine::general_purpose::STANDARD.encode(std::fs::read(&path).unwrap());
        let body = json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": mime, "data": data } }] }] });
        let path = format!("/v1beta/models/{FLASH}:countTokens");
        let answer = send(simulator.addr(), "POST", &path, "x-goog-api-key: k\r\n", body.to_string().as_bytes()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let counts = answer.json();
        let of = |kind: &str| {
            let details = counts["promptTokensDetails"].as_array().unwrap();
            details.iter().find(|part| part["modality"] == kind).map_or(0, |part| part["tokenCount"].as_u64().unwrap())
        };
        if let Some(frames) = frames {
            // Encoders pad: a last frame may reach into the next second, sound a tenth of one.
            assert!((258 * frames..=258 * (frames + u64::from(frames > 0))).contains(&of("VIDEO")), "{name}: {counts}");
            assert!((92..=100).contains(&of("AUDIO")), "{name}: {counts}");
        } else {
            assert!(of("VIDEO") >= 258, "{name}: {counts}");
        }
    }
}

#[tokio::test]
async fn files_belong_to_a_project_and_nobody_else_sees_them() {
    let projects = [("one", "p"), ("two", "p"), ("three", "q")];
    let projects = Projects(projects.map(|(key, project)| (key.to_owned(), project.to_owned())).into());
    let simulator = with(FileSettings { projects, ..FileSettings::default() }).await;
    let file = uploaded(&simulator, "one", &mp4(3, 100)).await;
    let (name, uri) = (file["name"].as_str().unwrap(), file["uri"].as_str().unwrap());
    let id = name.strip_prefix("files/").unwrap();
    let words = format!("You do not have permission to access the File {id} or it may not exist.");
    for (key, status) in [("one", 200), ("two", 200), ("three", 403), ("four", 403)] {
        assert_eq!(resource(&simulator, "GET", key, &format!("/v1beta/{name}")).await.status, status, "{key}");
        let used = gemini(simulator.addr(), FLASH, key, &shows(uri)).await.unwrap();
        assert_eq!(used.status, status, "{key}");
        if status == 403 {
            let error = used.json()["error"].clone();
            assert_eq!((&error["status"], &error["message"]), (&json!("PERMISSION_DENIED"), &json!(words)));
        }
    }
    assert_eq!(resource(&simulator, "GET", "three", "/v1beta/files").await.json(), json!({}));
    assert_eq!(resource(&simulator, "DELETE", "three", &format!("/v1beta/{name}")).await.status, 403);
    let files = simulator.stats().files;
    assert_eq!((files["p"].live_files, files["q"].live_files), (1, 0));
}

#[tokio::test]
async fn a_video_is_processed_first_and_using_it_early_is_refused() {
    let simulator = with(FileSettings { processing_ms: 150, ..FileSettings::default() }).await;
    let file = uploaded(&simulator, "k", &mp4(3, 100)).await;
    assert_eq!((&file["state"], file.get("videoMetadata")), (&json!("PROCESSING"), None));
    let (name, uri) = (file["name"].as_str().unwrap(), file["uri"].as_str().unwrap());
    let early = gemini(simulator.addr(), FLASH, "k", &shows(uri)).await.unwrap();
    let id = name.strip_prefix("files/").unwrap();
    let error = &early.json()["error"];
    assert_eq!((early.status, &error["status"]), (400, &json!("FAILED_PRECONDITION")));
    assert_eq!(error["message"], format!("The File {id} is not in an ACTIVE state and usage is not allowed."));
    let begun = std::time::Instant::now();
    while resource(&simulator, "GET", "k", &format!("/v1beta/{name}")).await.json()["state"] != "ACTIVE" {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(gemini(simulator.addr(), FLASH, "k", &shows(uri)).await.unwrap().status, 200);
    let no_video = uploaded(&simulator, "k", b"this is no video at all").await;
    let path = format!("/v1beta/{}", no_video["name"].as_str().unwrap());
    while resource(&simulator, "GET", "k", &path).await.json()["state"] == "PROCESSING" {
        tokio::task::yield_now().await;
    }
    let failed = resource(&simulator, "GET", "k", &path).await.json();
    assert_eq!((&failed["state"], failed["error"]["code"].is_u64()), (&json!("FAILED"), true));
}

#[tokio::test]
async fn what_cannot_be_uploaded_is_refused_in_words() {
    let simulator = with(FileSettings { granularity: 1_024, storage_bytes: 10_000, ..FileSettings::default() }).await;
    let none = start(&simulator, "", 5, &json!({})).await.unwrap();
    assert_eq!((none.status, none.json()["error"]["status"].clone()), (403, json!("PERMISSION_DENIED")));
    assert_eq!(start(&simulator, "k", 2_147_483_649, &json!({})).await.unwrap().status, 400);
    let full = start(&simulator, "k", 10_001, &json!({})).await.unwrap();
    assert_eq!(full.status, 429);
    let quota = &full.json()["error"]["details"][0]["violations"][0];
    assert_eq!(quota["quotaMetric"], "generativelanguage.googleapis.com/file_storage_bytes");
    assert_eq!((&quota["quotaId"], &quota["quotaValue"]), (&json!("FileStorageBytesPerProject"), &json!("10000")));
    let path = path(&simulator, "k", 3_000).await;
    let bytes = vec![1; 3_000];
    for (words, offset, chunk, said) in [
        ("upload", 0, &bytes[..1_000], "no multiple of 1024"),
        ("upload", 1_024, &bytes[..1_024], "but 0 bytes were received"),
        ("upload, finalize", 0, &bytes[..2_000], "ends at 2000 bytes"),
        ("upload, finalize", 0, &vec![1; 3_001][..], "more than the 3000 bytes"),
        ("download", 0, &bytes[..0], "Invalid upload command"),
    ] {
        let answer = command(&simulator, &path, words, offset, chunk).await.unwrap();
        assert!(answer.status == 400 && answer.text().contains(said), "{words}: {answer:?}");
    }
    assert_eq!(query(&simulator, &path).await, ("active".to_owned(), 0));
    assert_eq!(command(&simulator, &path, "cancel", 0, b"").await.unwrap().status, 200);
    let over = command(&simulator, &path, "upload, finalize", 0, &bytes).await.unwrap();
    assert!(over.status == 400 && over.text().contains("already been terminated"), "{over:?}");
    let unknown = command(&simulator, "/upload/v1beta/files?upload_id=x", "query", 0, b"").await.unwrap();
    assert_eq!(unknown.status, 404);
    let named = json!({ "name": "files/mine" });
    let first = start(&simulator, "k", 100, &named).await.unwrap();
    let url = first.header("x-goog-upload-url").unwrap().strip_prefix(&simulator.base_url()).unwrap().to_owned();
    assert_eq!(
        command(&simulator, &url, "upload, finalize", 0, &[1; 100]).await.unwrap().json()["file"]["name"],
        "files/mine"
    );
    assert_eq!(start(&simulator, "k", 100, &named).await.unwrap().status, 409);
    // What is being uploaded counts against the store only when it is a file.
    let (a, b) = (self::path(&simulator, "k", 6_000).await, self::path(&simulator, "k", 6_000).await);
    assert_eq!(command(&simulator, &a, "upload, finalize", 0, &[2; 6_000]).await.unwrap().status, 200);
    assert_eq!(command(&simulator, &b, "upload, finalize", 0, &[3; 6_000]).await.unwrap().status, 429);
}

#[tokio::test]
async fn a_list_comes_in_pages_newest_first() {
    let simulator = started(Settings::default()).await;
    let mut names = Vec::new();
    for n in 0..5 {
        names.insert(0, uploaded(&simulator, "k", &mp4(1, 100 + n)).await["name"].clone());
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = resource(&simulator, "GET", "k", &format!("/v1/files?pageSize=2&pageToken={token}")).await.json();
        seen.extend(page["files"].as_array().unwrap().iter().map(|file| file["name"].clone()));
        match page["nextPageToken"].as_str() {
            Some(next) => next.clone_into(&mut token),
            None => break,
        }
    }
    assert_eq!(seen, names);
    assert_eq!(resource(&simulator, "GET", "k", "/v1/files?pageToken=nope").await.status, 400);
}

#[tokio::test]
async fn each_fault_of_an_upload_leaves_it_as_a_client_would_find_it() {
    let clip = mp4(3, 20_000);
    let size = clip.len();
    let part = 8 * 1_024;
    for name in ["chunk_cut", "chunk_503"] {
        let mut files = scripted(&[name]);
        files.faults.cut_at_bytes = Some(5_000);
        let simulator = with(files).await;
        let path = path(&simulator, "k", size).await;
        let answer = command(&simulator, &path, "upload", 0, &clip[..part]).await;
        assert_eq!(answer.map(|answer| answer.status), (name == "chunk_503").then_some(503), "{name}");
        assert_eq!(
            query(&simulator, &path).await,
            ("active".to_owned(), 4 * 1_024),
            "{name}: whole kibibytes are kept"
        );
        let rest = command(&simulator, &path, "upload, finalize", 4 * 1_024, &clip[4 * 1_024..]).await.unwrap();
        assert_eq!(rest.status, 200, "{name}");
        assert_eq!(simulator.stats().faults[name], 1);
        let counts = counts(&simulator);
        assert!(counts.bytes_lost > 0, "{name}");
        assert_eq!(counts.bytes_received, size as u64 + counts.bytes_lost, "{name}: what was lost is counted too");
        assert_eq!(counts.bytes_finalized, size as u64);
    }
    let simulator = with(scripted(&["start_503", "start_cut", "session_lost", "final_503", "final_lost"])).await;
    assert_eq!(start(&simulator, "k", size, &json!({})).await.unwrap().status, 503);
    assert_eq!(start(&simulator, "k", size, &json!({})).await, None);
    let lost = path(&simulator, "k", size).await;
    assert_eq!(command(&simulator, &lost, "upload", 0, &clip[..part]).await.unwrap().status, 404);
    assert_eq!(command(&simulator, &lost, "query", 0, b"").await.unwrap().status, 404);
    let path = path(&simulator, "k", size).await;
    assert_eq!(command(&simulator, &path, "upload, finalize", 0, &clip).await.unwrap().status, 503);
    assert_eq!(query(&simulator, &path).await, ("active".to_owned(), size));
    assert_eq!(command(&simulator, &path, "finalize", size, b"").await, None, "final_lost");
    assert_eq!(query(&simulator, &path).await, ("final".to_owned(), size));
    let stats = until(&simulator, |stats| stats.files.values().any(|files| files.finalized == 1)).await;
    assert_eq!(stats.files.values().next().unwrap().live_files, 1);
    let simulator = with(scripted(&["final_gone"])).await;
    let path = self::path(&simulator, "k", size).await;
    assert_eq!(command(&simulator, &path, "upload, finalize", 0, &clip).await, None);
    assert_eq!(command(&simulator, &path, "query", 0, b"").await.unwrap().status, 404);
    assert_eq!(counts(&simulator).live_files, 1);
}

#[tokio::test]
async fn files_can_fail_expire_and_vanish() {
    let simulator = with(scripted(&["failed", "expires_soon", "vanished", "resource_503"])).await;
    let file = |at: usize| mp4(3, 100 + at);
    let failed = uploaded(&simulator, "k", &file(0)).await;
    assert_eq!(failed["state"], "FAILED");
    let expired = uploaded(&simulator, "k", &file(1)).await;
    assert_eq!(resource(&simulator, "GET", "k", "/v1beta/files").await.status, 503);
    let path = format!("/v1beta/{}", expired["name"].as_str().unwrap());
    let begun = std::time::Instant::now();
    while resource(&simulator, "GET", "k", &path).await.status == 200 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    let vanished = uploaded(&simulator, "k", &file(2)).await;
    let uri = vanished["uri"].as_str().unwrap();
    assert_eq!(gemini(simulator.addr(), FLASH, "k", &shows(uri)).await.unwrap().status, 403);
    let again = uploaded(&simulator, "k", &file(2)).await;
    assert_eq!(gemini(simulator.addr(), FLASH, "k", &shows(again["uri"].as_str().unwrap())).await.unwrap().status, 200);
    let faults = simulator.stats().faults;
    assert!(["failed", "expires_soon", "vanished"].iter().all(|name| faults[*name] == 1), "{faults:?}");
}

#[tokio::test]
async fn a_cut_upload_is_hashed_as_if_it_had_come_whole() {
    let mut files = FileSettings { kept_multiple: 1, granularity: 1, ..FileSettings::default() };
    files.faults.kinds = vec!["chunk_cut".to_owned(), "chunk_503".to_owned()];
    files.faults.rate = 0.7;
    let simulator = with(files).await;
    let clip = mp4(5, 400 * KIB);
    let path = path(&simulator, "k", clip.len()).await;
    let (mut at, mut tries) = (0, 0);
    let file = loop {
        let answer = command(&simulator, &path, "upload, finalize", at, &clip[at..]).await;
        if let Some(answer) = answer.filter(|answer| answer.status == 200) {
            break answer.json()["file"].clone();
        }
        (_, at) = query(&simulator, &path).await;
        tries += 1;
    };
    assert!(tries > 0, "no fault was met");
    simulator.set(Settings::default()).unwrap();
    let whole = uploaded(&simulator, "k", &clip).await;
    assert_eq!(file["sha256Hash"], whole["sha256Hash"]);
    let mut texts = Vec::new();
    for file in [&file, &whole] {
        let answer = gemini(simulator.addr(), FLASH, "k", &shows(file["uri"].as_str().unwrap())).await.unwrap();
        texts.push(answer.gemini_text());
    }
    assert_eq!(texts[0], texts[1]);
}

#[tokio::test]
async fn only_servers_that_take_videos_are_sent_any() {
    use aurelia::simulator::Flavour;

    use super::client::openai;

    let clip = base64::engine::general_purpose::STANDARD.encode(mp4(4, 100));
    let ask = |model: &str, kind: &str, url: &str| {
        let part = json!({ "type": kind, kind: { "url": url } });
        json!({ "model": model, "messages": [{ "role": "user", "content": [part] }] })
    };
    let data = format!("data:video/mp4;base64,{clip}");
    let mine = json!([{ "name": "mine", "protocol": "openai", "input": 1, "audio": 1, "output": 1, "video": true }]);
    let settings = Settings::default().patched(&json!({ "models": mine })).unwrap();
    let simulator = started(settings).await;
    let refused = openai(simulator.addr(), "k", &ask("gpt-4o", "video_url", &data)).await.unwrap();
    let words =
        "Invalid value: 'video_url'. Supported values are: 'text', 'image_url', 'input_audio', 'file', and 'refusal'.";
    assert_eq!((refused.status, &refused.json()["error"]["message"]), (400, &json!(words)));
    let flac = json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "flac" } });
    let flac = json!({ "model": "gpt-audio", "messages": [{ "role": "user", "content": [flac] }] });
    let refused = openai(simulator.addr(), "k", &flac).await.unwrap();
    let words = "Invalid value: 'flac'. Supported values are: 'wav', and 'mp3'.";
    assert_eq!((refused.status, &refused.json()["error"]["message"]), (400, &json!(words)));
    let vllm = started(Settings { openai_flavour: Flavour::Vllm, ..Settings::default() }).await;
    for (simulator, model) in [(&simulator, "mine"), (&vllm, "org/any-7b")] {
        for (kind, url) in [
            ("video_url", data.as_str()),
            ("video_url", "https://host.test/a.mp4"),
            ("audio_url", "https://host.test/a.flac"),
        ] {
            let answer = openai(simulator.addr(), "k", &ask(model, kind, url)).await.unwrap();
            assert_eq!(answer.status, 200, "{model} {kind}: {answer:?}");
        }
        let bad = openai(simulator.addr(), "k", &ask(model, "video_url", "file:///etc/passwd")).await.unwrap();
        assert_eq!(bad.status, 400, "{model}");
        assert_eq!(simulator.stats().parts_shown, [("audio".to_owned(), 1), ("video".to_owned(), 2)].into());
    }
}
