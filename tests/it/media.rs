//! Media against the real ffmpeg, on clips made here.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aurelia::demo::clip::{self, Content, Style};
use aurelia::media::{Kind, Library, Limits, MediaError, MediaErrorKind, Prepared, Settings, Wants};
use base64::Engine;
use futures_util::future::{join, join_all};
use tempfile::TempDir;

fn settings() -> Settings {
    Settings::default()
}

/// A directory for sources, and a library with an empty cache beside it.
struct Bench {
    dir: TempDir,
    library: Library,
}

impl Bench {
    fn new() -> Self {
        Self::with(settings(), Limits::default())
    }

    fn with(settings: Settings, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(dir.path().join("cache"), settings, Wants::default(), limits);
        Self { dir, library }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn clip(&self, name: &str, seconds: u32, style: Style) -> PathBuf {
        let path = self.path(name);
        clip::make(&path, seconds, style).await.unwrap();
        path
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    async fn prepare(&self, path: &Path, kind: Kind) -> Result<Arc<Prepared>, MediaError> {
        self.library.prepare(path.to_str().unwrap(), kind).await
    }

    async fn refuse(&self, path: &Path, kind: Kind) -> MediaError {
        self.prepare(path, kind).await.expect_err("a source that is no good")
    }
}

impl Drop for Bench {
    /// Whatever happened: no child process and no half-made cache entry is left.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(processes_in(self.dir.path()), Vec::<String>::new());
        let left = fs::read_dir(self.path("cache/making")).into_iter().flatten().flatten();
        assert_eq!(left.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

/// Processes whose working directory lies under `dir`, dead but unreaped ones excluded: they have none.
fn processes_in(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
            found.push(fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " "));
        }
    }
    found
}

fn small(content: Content, seed: u64) -> Style {
    Style::small(content, seed)
}

/// Runs ffmpeg for a fixture that the clip maker does not make.
fn ffmpeg(args: &[&str], to: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(to);
    assert!(command.status().unwrap().success(), "{args:?}");
}

fn bytes(blob: &aurelia::provider::Blob) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(&blob.base64).unwrap()
}

fn check_wav(wav: &[u8], duration_ms: u64) {
    let word = |at: usize| u32::from_le_bytes(wav[at..at + 4].try_into().unwrap());
    assert_eq!((&wav[..4], &wav[8..16], &wav[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
    assert_eq!((word(4) as usize, word(40) as usize, word(24)), (wav.len() - 8, wav.len() - 44, 16_000));
    assert_eq!(u64::from(word(40)) / 32, duration_ms);
}

#[tokio::test]
async fn a_720p_clip_gives_frames_at_its_cuts_and_its_sound() {
    let bench = Bench::new();
    let path = bench.clip("clip.mp4", 12, Style::new(Content::Full)).await;
    let prepared = bench.prepare(&path, Kind::Video).await.unwrap();
    assert_eq!(prepared.bytes, fs::metadata(&path).unwrap().len());
    assert!(prepared.duration_ms.unwrap().abs_diff(12_000) < 150, "{prepared:?}");
    assert_eq!(prepared.frames.len(), 5);
    assert!(prepared.frames.is_sorted_by_key(|frame| frame.at_ms));
    for cut in [3000, 6000, 9000] {
        assert!(prepared.frames.iter().any(|frame| frame.at_ms.abs_diff(cut) <= 40), "no frame at {cut}: {prepared:?}");
    }
    for frame in &prepared.frames {
        assert_eq!((frame.width, frame.height, frame.jpeg.mime), (768, 432, "image/jpeg"));
        let jpeg = bytes(&frame.jpeg);
        assert!(jpeg.starts_with(&[0xff, 0xd8]) && jpeg.ends_with(&[0xff, 0xd9]));
        assert!(!jpeg.windows(4).any(|window| window == b"Lavc" || window == b"Exif"));
    }
    let sound = prepared.sound.as_ref().unwrap();
    assert!(sound.duration_ms.abs_diff(12_000) < 150 && !sound.trimmed, "{sound:?}");
    check_wav(&bytes(&sound.blob), sound.duration_ms);
}

#[tokio::test]
async fn a_clip_without_sound_gives_frames_only_and_is_no_audio() {
    let bench = Bench::new();
    let path = bench.clip("silent.mp4", 2, small(Content::NoAudio, 1)).await;
    let prepared = bench.prepare(&path, Kind::Video).await.unwrap();
    assert_eq!((prepared.frames.len(), &prepared.sound), (5, &None));
    let error = bench.refuse(&path, Kind::Audio).await;
    assert_eq!(error.kind, MediaErrorKind::Invalid);
    assert_eq!(error.message, "silent.mp4: is named as audio and has no sound, only video (h264)");
}

#[tokio::test]
async fn a_static_clip_gives_samples_at_even_distances() {
    let bench = Bench::new();
    let path = bench.clip("static.mp4", 10, small(Content::Static, 1)).await;
    let prepared = bench.prepare(&path, Kind::Video).await.unwrap();
    let times: Vec<u64> = prepared.frames.iter().map(|frame| frame.at_ms).collect();
    assert_eq!(times, [1000, 3000, 5000, 7000, 9000]);
    let sizes: Vec<_> = prepared.frames.iter().map(|frame| (frame.width, frame.height)).collect();
    assert_eq!(sizes, [(160, 120); 5], "a small clip is not enlarged");
}

#[tokio::test]
async fn sound_alone_gives_no_frames_and_is_trimmed_to_its_limit() {
    let bench = Bench::with(Settings { audio_seconds: 2, ..settings() }, Limits::default());
    for (name, exact) in [("a.wav", true), ("a.m4a", false), ("a.mp3", false)] {
        let long = bench.clip(name, 5, small(Content::AudioOnly, 1)).await;
        let prepared = bench.prepare(&long, Kind::Audio).await.unwrap();
        let sound = prepared.sound.as_ref().unwrap();
        assert!(prepared.frames.is_empty() && sound.trimmed && sound.duration_ms == 2000, "{name}: {sound:?}");
        check_wav(&bytes(&sound.blob), 2000);
        let short = bench.clip(&format!("short-{name}"), 1, small(Content::AudioOnly, 1)).await;
        let sound = bench.prepare(&short, Kind::Audio).await.unwrap().sound.clone().unwrap();
        assert!(!sound.trimmed && (sound.duration_ms == 1000 || !exact), "{name}: {sound:?}");
        assert_eq!(bench.refuse(&short, Kind::Video).await.kind, MediaErrorKind::Invalid);
    }
    let video = bench.clip("v.mp4", 1, small(Content::Full, 1)).await;
    assert!(bench.prepare(&video, Kind::Audio).await.unwrap().frames.is_empty());
    assert_eq!(bench.prepare(&video, Kind::Video).await.unwrap().frames.len(), 5);
}

#[tokio::test]
async fn cover_art_does_not_make_a_song_a_video() {
    let bench = Bench::new();
    let song = bench.clip("plain.mp3", 1, small(Content::AudioOnly, 1)).await;
    let cover = bench.path("cover.mp3");
    let picture = ["-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.1:r=10", "-map", "0:a", "-map", "1:v"];
    let attach = ["-c:a", "copy", "-c:v", "mjpeg", "-frames:v", "1", "-disposition:v", "attached_pic"];
    ffmpeg(&[&["-i", song.to_str().unwrap()], &picture[..], &attach].concat(), &cover);
    let error = bench.refuse(&cover, Kind::Video).await;
    assert_eq!(error.kind, MediaErrorKind::Invalid);
    assert!(error.message.ends_with("only audio (mp3), cover art (mjpeg)"), "{error}");
    assert!(bench.prepare(&cover, Kind::Audio).await.unwrap().sound.is_some());
}

#[tokio::test]
async fn broken_absent_and_foreign_files_end_by_their_kind() {
    use MediaErrorKind::{Denied, Invalid, NotFound};
    let bench = Bench::new();
    let socket = bench.path("socket.mp4");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pipe = bench.path("pipe.mp4");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let link = bench.path("link.mp4");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    let long = bench.path(&"x".repeat(300));
    let text = bench.file("text.mp4", "this is no clip, whatever its name says\n".repeat(50));
    let cases = [
        (bench.file("empty.mp4", ""), Invalid, "is empty"),
        (text.clone(), Invalid, "cannot be read"),
        (bench.file("noise.mp4", blake3_noise(200_000)), Invalid, "cannot be read"),
        (bench.path("absent.mp4"), NotFound, "no such file"),
        (text.join("below.mp4"), NotFound, "no such file"),
        (bench.dir.path().to_owned(), Invalid, "is a directory"),
        (pipe, Denied, "a named pipe"),
        (socket, Denied, "a socket"),
        (PathBuf::from("/dev/zero"), Denied, "a device"),
        (link, Invalid, "symbolic links"),
        (long, Invalid, "cannot be opened"),
    ];
    for (path, kind, words) in cases {
        let error = tokio::time::timeout(Duration::from_secs(20), bench.refuse(&path, Kind::Video)).await.unwrap();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(!error.message.contains(bench.dir.path().to_str().unwrap()), "{error}");
    }
    let error = bench.library.prepare("gs://bucket/key.mp4", Kind::Video).await.unwrap_err();
    assert_eq!((error.kind, error.message.contains("\"gs\"")), (Denied, true), "{error}");
    assert_eq!(bench.library.stats().decodes, 0, "nothing of this is worth a decoder");
}

/// Bytes that look like nothing.
fn blake3_noise(length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

#[tokio::test]
async fn a_clip_that_is_cut_off_is_invalid_in_every_layout() {
    let bench = Bench::new();
    let whole = bench.clip("whole.mp4", 6, small(Content::Full, 2)).await;
    let layouts: [(&str, &[&str]); 5] = [
        ("tail.mp4", &[]),
        ("front.mp4", &["-movflags", "+faststart"]),
        ("cut.mkv", &[]),
        ("cut.avi", &[]),
        ("sound.m4a", &["-vn", "-movflags", "+faststart"]),
    ];
    for (name, options) in layouts {
        let path = bench.path(&format!("whole-{name}"));
        ffmpeg(&[&["-i", whole.to_str().unwrap(), "-c", "copy"], options].concat(), &path);
        let kind = if name == "sound.m4a" { Kind::Audio } else { Kind::Video };
        bench.prepare(&path, kind).await.unwrap_or_else(|error| panic!("the whole {name}: {error}"));
        let content = fs::read(&path).unwrap();
        for percent in [20, 50, 85] {
            let cut = bench.file(&format!("{percent}-{name}"), &content[..content.len() * percent / 100]);
            let error = bench.refuse(&cut, kind).await;
            assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
        }
    }
}

#[tokio::test]
async fn a_clip_damaged_in_the_middle_is_invalid_and_one_bad_byte_is_not() {
    let bench = Bench::new();
    let path = bench.clip("good.mp4", 6, small(Content::Full, 2)).await;
    let content = fs::read(&path).unwrap();
    let mut damaged = content.clone();
    let half = content.len() * 3 / 4;
    damaged[content.len() / 8..half].fill(0);
    let error = bench.refuse(&bench.file("damaged.mp4", damaged), Kind::Video).await;
    assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    let mut scratched = content.clone();
    scratched[content.len() / 2] ^= 0x10;
    bench.prepare(&bench.file("scratched.mp4", scratched), Kind::Video).await.unwrap();
}

#[tokio::test]
async fn names_mean_nothing_to_the_decoder() {
    let bench = Bench::new();
    let clip = bench.clip("plain.mp4", 1, small(Content::Full, 1)).await;
    let content = fs::read(&clip).unwrap();
    let first = bench.prepare(&clip, Kind::Video).await.unwrap();
    for name in ["-i.mp4", "a:b.mp4", "ü ?.mp4", "%d.mp4", "concat:x|y.mp4", "'\";$(id).mp4", "line\nbreak.mp4"] {
        let path = bench.file(name, &content);
        assert!(Arc::ptr_eq(&first, &bench.prepare(&path, Kind::Video).await.unwrap()), "{name}");
    }
    let dir = bench.dir.path().to_str().unwrap();
    for uri in [format!("file://{dir}/%C3%BC%20%3f.mp4"), format!("file://localhost{dir}/a:b.mp4")] {
        assert!(Arc::ptr_eq(&first, &bench.library.prepare(&uri, Kind::Video).await.unwrap()), "{uri}");
    }
    assert_eq!(bench.library.stats().decodes, 1);

    // Also when a file with such a name is the one that is decoded.
    let odd = bench.path("-i ü:%d.mp4");
    fs::rename(bench.clip("other.mp4", 1, small(Content::Full, 2)).await, &odd).unwrap();
    assert_eq!(bench.prepare(&odd, Kind::Video).await.unwrap().frames.len(), 5);
}

#[tokio::test]
async fn a_hundred_callers_share_one_decode() {
    let bench = Bench::new();
    let path = bench.clip("a.mp4", 2, small(Content::Full, 1)).await;
    let copy = bench.file("b.mp4", fs::read(&path).unwrap());
    let calls = (0..100).map(|i| bench.prepare(if i % 2 == 0 { &path } else { &copy }, Kind::Video));
    let all: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert!(all.iter().all(|prepared| Arc::ptr_eq(prepared, &all[0])));
    let stats = bench.library.stats();
    assert_eq!((stats.hashed, stats.probes, stats.decodes), (2, 1, 1));

    let second = Library::new(bench.path("cache"), settings(), Wants::default(), Limits::default());
    let again = second.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap();
    assert_eq!(again, all[0]);
    let stats = second.stats();
    assert_eq!((stats.decodes, stats.probes, stats.disk_hits), (0, 0, 1));
    second.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap();
    assert_eq!((second.stats().memory_hits, second.stats().hashed), (1, 1));
}

#[tokio::test]
async fn a_damaged_cache_entry_is_made_again() {
    let bench = Bench::new();
    let path = bench.clip("a.mp4", 1, small(Content::Full, 1)).await;
    let first = bench.prepare(&path, Kind::Video).await.unwrap();
    let entry = fs::read_dir(bench.path("cache/prepared")).unwrap().next().unwrap().unwrap().path();
    let frame = entry.join("frame-000.jpg");
    let mut jpeg = fs::read(&frame).unwrap();
    jpeg[30] ^= 1;
    let damages: [Box<dyn Fn() + '_>; 4] = [
        Box::new(|| fs::write(&frame, &jpeg).unwrap()),
        Box::new(|| fs::write(&frame, "").unwrap()),
        Box::new(|| fs::remove_file(entry.join("sound.wav")).unwrap()),
        Box::new(|| fs::write(entry.join("manifest.json"), "{").unwrap()),
    ];
    for damage in damages {
        damage();
        let library = Library::new(bench.path("cache"), settings(), Wants::default(), Limits::default());
        let again = library.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap();
        assert_eq!((again, library.stats().decodes), (first.clone(), 1), "the same bytes, decoded again");
    }
}

#[tokio::test]
async fn other_settings_and_changed_content_are_prepared_anew() {
    let bench = Bench::new();
    let path = bench.clip("a.mp4", 1, small(Content::Full, 1)).await;
    let five = bench.prepare(&path, Kind::Video).await.unwrap();
    let two = Library::new(
        bench.path("cache"),
        Settings { max_frames: 2, ..settings() },
        Wants::default(),
        Limits::default(),
    );
    let two = two.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap();
    assert_eq!((five.frames.len(), two.frames.len()), (5, 2));
    clip::make(&path, 1, small(Content::Full, 2)).await.unwrap();
    assert_ne!(bench.prepare(&path, Kind::Video).await.unwrap().sha256, five.sha256);
}

#[tokio::test]
async fn a_broken_clip_is_decoded_once_and_named_by_each_of_its_names() {
    let bench = Bench::new();
    let text = bench.file("one.mp4", "no clip");
    let copy = bench.file("two.mp4", "no clip");
    for (path, name) in [(&text, "one.mp4: "), (&copy, "two.mp4: "), (&text, "one.mp4: ")] {
        assert!(bench.refuse(path, Kind::Video).await.message.starts_with(name));
    }
    assert_eq!(bench.library.stats().probes, 1);
}

#[tokio::test]
async fn a_playlist_under_another_name_opens_nothing() {
    let bench = Bench::new();
    let victim = bench.clip("victim.mkv", 1, small(Content::NoAudio, 1)).await;
    let victim = victim.to_str().unwrap();
    let hls = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{victim}\n#EXT-X-ENDLIST\n");
    let concat = format!("ffconcat version 1.0\nfile {victim}\n");
    let dash = format!("<?xml version=\"1.0\"?><MPD><Period><BaseURL>{victim}</BaseURL></Period></MPD>");
    let sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n".to_owned();
    for (name, script) in [("hls", hls), ("concat", concat), ("dash", dash), ("sdp", sdp)] {
        let error = bench.refuse(&bench.file(&format!("{name}.mp4"), script), Kind::Video).await;
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{name}: {error}");
    }
    assert_eq!(bench.library.stats().decodes, 0);
    bench.prepare(Path::new(victim), Kind::Video).await.unwrap();
}

#[tokio::test]
async fn limits_end_a_preparation_with_their_name_and_leave_no_process() {
    let clip_bench = Bench::new();
    let path = clip_bench.clip("a.mp4", 4, Style::new(Content::NoAudio)).await;
    let default = Limits::default;
    let cases = [
        ("prepare_timeout_seconds", Limits { prepare_timeout_seconds: 0, ..default() }),
        ("probe_timeout_seconds", Limits { probe_timeout_seconds: 0, ..default() }),
        ("max_output_mib", Limits { max_output_mib: 0, ..default() }),
        ("max_source_mib", Limits { max_source_mib: 0, ..default() }),
        ("max_pixels", Limits { max_pixels: 1000, ..default() }),
        ("max_duration_seconds", Limits { max_duration_seconds: 3, ..default() }),
    ];
    for (name, limits) in cases {
        let bench = Bench::with(settings(), limits);
        let error = bench.refuse(&path, Kind::Video).await;
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{name}: {error}");
        assert!(error.message.contains(name), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_decoder_that_wants_too_much_memory_or_time_is_stopped() {
    let bench = Bench::new();
    let huge = bench.path("huge.mkv");
    let source = "color=s=8192x4320:r=2:d=1,format=yuv444p16";
    ffmpeg(&["-f", "lavfi", "-i", source, "-c:v", "ffv1", "-threads", "2"], &huge);
    let memory = Bench::with(settings(), Limits { memory_mib: 448, ..Limits::default() });
    let error = memory.refuse(&huge, Kind::Video).await;
    assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    assert!(error.message.contains("memory_mib"), "{error}");
    bench.prepare(&huge, Kind::Video).await.unwrap();

    let long = bench.path("long.mkv");
    ffmpeg(&["-f", "lavfi", "-i", "testsrc2=s=1920x1080:r=25:d=20", "-c:v", "mpeg4", "-qscale:v", "20"], &long);
    // Five times over: a fast machine decodes one of them in less than the limit.
    let longer = bench.path("longer.mkv");
    ffmpeg(&["-stream_loop", "4", "-i", long.to_str().unwrap(), "-c", "copy"], &longer);
    let endless = Bench::with(settings(), Limits { cpu_seconds: 1, ..Limits::default() });
    let error = endless.refuse(&longer, Kind::Video).await;
    assert!(error.message.contains("cpu_seconds"), "{error}");
}

#[tokio::test]
async fn a_machine_without_ffmpeg_or_room_blames_no_item() {
    let bench = Bench::with(settings(), Limits { ffmpeg: "no-such-ffmpeg".into(), ..Limits::default() });
    let path = bench.clip("a.mp4", 1, small(Content::Full, 1)).await;
    for _ in 0..2 {
        assert_eq!(bench.refuse(&path, Kind::Video).await.kind, MediaErrorKind::Worker);
    }
    assert_eq!(bench.library.stats().decodes, 2, "a fault of the machine is not remembered");
    let file = bench.file("file", "x");
    let library = Library::new(file.join("cache"), settings(), Wants::default(), Limits::default());
    let error = library.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap_err();
    assert_eq!((error.kind, error.kind.record_kind()), (MediaErrorKind::Setup, None));
}

#[tokio::test]
async fn a_dropped_call_ends_its_decoder_and_leaves_others_their_result() {
    let bench = Bench::new();
    let path = bench.path("long.mkv");
    ffmpeg(&["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=40", "-c:v", "mpeg4", "-qscale:v", "20"], &path);
    let mut first = Box::pin(bench.prepare(&path, Kind::Video));
    let mut second = Box::pin(bench.prepare(&path, Kind::Video));
    let mut both = Box::pin(async { join(&mut first, &mut second).await.0 });
    until_decoding(&bench, &mut both).await;
    drop(both);
    drop(first);
    assert_eq!(second.await.unwrap().frames.len(), 5);
    assert_eq!(bench.library.stats().decodes, 1);

    let alone = Bench::new();
    let mut only = Box::pin(alone.prepare(&path, Kind::Video));
    until_decoding(&alone, &mut only).await;
    assert_eq!(processes_in(alone.dir.path()).len(), 1);
    drop(only);
    let start = Instant::now();
    while !processes_in(alone.dir.path()).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the decoder lives on");
        tokio::task::yield_now().await;
    }
}

/// Drives `call` until its ffmpeg is there.
async fn until_decoding(bench: &Bench, call: &mut (impl Future<Output = Result<Arc<Prepared>, MediaError>> + Unpin)) {
    let running = || processes_in(bench.dir.path()).iter().any(|command| command.starts_with("ffmpeg"));
    while !running() {
        assert!(tokio::time::timeout(Duration::from_millis(2), &mut *call).await.is_err(), "it ends too early");
    }
}

/// A clip of a kind that recordings come in, and what it should give.
struct Odd {
    name: &'static str,
    source: &'static str,
    frames: usize,
    size: (u32, u32),
}

const ODD: [Odd; 7] = [
    Odd { name: "one-frame.mp4", source: "testsrc2=s=64x48:r=25:d=0.04", frames: 1, size: (64, 48) },
    Odd { name: "three-frames.mp4", source: "testsrc2=s=64x48:r=25:d=0.12", frames: 3, size: (64, 48) },
    Odd { name: "odd-size.mp4", source: "testsrc=s=161x99:r=10:d=1", frames: 5, size: (161, 99) },
    Odd { name: "tall.mp4", source: "testsrc2=s=400x1600:r=10:d=1", frames: 5, size: (192, 768) },
    Odd { name: "wide-pixels.mp4", source: "testsrc2=s=160x120:r=10:d=1,setsar=2", frames: 5, size: (320, 120) },
    Odd { name: "slides.mp4", source: "testsrc2=s=64x48:r=1/10:d=60", frames: 5, size: (64, 48) },
    Odd { name: "unknown-length.mkv", source: "testsrc2=s=64x48:r=25:d=30", frames: 5, size: (64, 48) },
];

#[tokio::test]
async fn odd_clips_are_prepared_all_the_same() {
    let bench = Bench::new();
    for Odd { name, source, frames, size } in ODD {
        let path = bench.path(name);
        let unknown = name.starts_with("unknown");
        let live: &[&str] = if unknown { &["-live", "1"] } else { &[] };
        let x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"];
        ffmpeg(&[&["-f", "lavfi", "-i", source], &x264[..], live].concat(), &path);
        let prepared = bench.prepare(&path, Kind::Video).await.unwrap();
        assert_eq!(prepared.frames.len(), frames, "{name}");
        assert!(prepared.frames.iter().all(|frame| (frame.width, frame.height) == size), "{name}: {prepared:?}");
        assert_eq!(prepared.duration_ms.is_none(), unknown, "{name}");
    }
    let turned = bench.path("turned.mp4");
    let plain = bench.path("odd-size.mp4");
    ffmpeg(&["-i", plain.to_str().unwrap(), "-c", "copy", "-metadata:s:v", "rotate=90"], &turned);
    let frame = bench.prepare(&turned, Kind::Video).await.unwrap().frames[0].clone();
    assert_eq!((frame.width, frame.height), (99, 161));
}

#[tokio::test]
async fn twenty_distinct_clips_are_each_decoded_once_within_the_slots() {
    let bench = Bench::with(settings(), Limits { decoders: 2, ..Limits::default() });
    let mut paths = Vec::new();
    for seed in 0..20 {
        paths.push(bench.clip(&format!("{seed}.mp4"), 1, small(Content::Full, seed)).await);
    }
    let mut most = 0;
    let mut all = Box::pin(join_all(paths.iter().cycle().take(60).map(|path| bench.prepare(path, Kind::Video))));
    let results = loop {
        if let Ok(results) = tokio::time::timeout(Duration::from_millis(5), &mut all).await {
            break results;
        }
        most = most.max(processes_in(bench.dir.path()).len());
    };
    let digests: HashSet<_> = results.into_iter().map(|result| result.unwrap().sha256.clone()).collect();
    assert_eq!((digests.len(), bench.library.stats().decodes), (20, 20));
    assert!((1..=2).contains(&most), "{most} children at once");
}
