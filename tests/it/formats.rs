//! What people really have: codecs, containers, pixel formats and sounds, each made by ffmpeg here, each prepared whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aurelia::media::{AudioFormat, Frame, Kind, Library, Limits, Prepared, Settings, Sound, Wants};
use aurelia::record::Status;
use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::hostile::bytes::mp4;
use crate::support::{Aurelia, Relay, Sim, Workdir};

const X264: &str = "-c:v libx264 -preset ultrafast";
const X265: &str = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=none";
const VP9: &str = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8";
const AV1: &str = "-c:v libsvtav1 -preset 12";
const MPEG4: &str = "-c:v mpeg4";

/// Runs ffmpeg.
fn ffmpeg(args: &str, to: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(args.split_ascii_whitespace()).arg(to);
    let output = command.env("SVT_LOG", "0").output().unwrap();
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes files and prepares them.
struct Bench {
    dir: TempDir,
    settings: Settings,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), settings }
    }

    fn made(&self, name: &str, args: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        ffmpeg(args, &path);
        path
    }

    async fn prepare(&self, path: &Path, kind: Kind) -> Arc<Prepared> {
        let cache = self.dir.path().join("cache");
        let library = Library::new(cache, self.settings.clone(), Wants::default(), Limits::default());
        library.prepare(path.to_str().unwrap(), kind).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn video(&self, name: &str, args: &str) -> Arc<Prepared> {
        let path = self.made(name, args);
        self.prepare(&path, Kind::Video).await
    }
}

fn bytes(blob: &aurelia::provider::Blob) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(&blob.base64).unwrap()
}

/// The colours (red, green, blue) at the four corners of a frame: top left, top right, bottom left, bottom right.
fn corners(frame: &Frame) -> [[u8; 3]; 4] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("frame.jpg");
    fs::write(&path, bytes(&frame.jpeg)).unwrap();
    let raw = dir.path().join("frame.rgb");
    ffmpeg(&format!("-i {} -f rawvideo -pix_fmt rgb24", path.display()), &raw);
    let raw = fs::read(raw).unwrap();
    let (width, height) = (frame.width as usize, frame.height as usize);
    assert_eq!(raw.len(), width * height * 3, "the picture is not of the size that is told");
    // A little inside, as JPEG smears edges.
    [(3, 3), (width - 4, 3), (3, height - 4), (width - 4, height - 4)]
        .map(|(x, y)| raw[(y * width + x) * 3..(y * width + x) * 3 + 3].try_into().unwrap())
}

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255; 3];

/// Near enough to be no other corner's: a small picture of a lossy codec is far from exact.
fn same_colour(found: [u8; 3], wanted: [u8; 3]) -> bool {
    found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) < 80)
}

/// A picture with a colour in each corner, moving noise in the middle, and a tone.
fn source(size: &str, rate: &str, seconds: u32) -> String {
    let corner = |colour: &str, x: &str, y: &str| format!("drawbox=x={x}:y={y}:w=iw/3:h=ih/3:c={colour}:t=fill");
    let boxes = [
        corner("0xff0000", "0", "0"),
        corner("0x00ff00", "iw-iw/3", "0"),
        corner("0x0000ff", "0", "ih-ih/3"),
        corner("0xffffff", "iw-iw/3", "ih-ih/3"),
    ];
    let (picture, boxes) = (format!("testsrc2=s={size}:r={rate}:d={seconds}"), boxes.join(","));
    format!("-f lavfi -i {picture},format=gbrp,{boxes} -f lavfi -i sine=f=440:d={seconds}")
}

/// Codecs and the containers that hold them, with the sound that goes with each.
const PAIRS: [(&str, &str, &str, &[&str]); 5] = [
    ("h264", X264, "-pix_fmt yuv420p", &["mp4", "mkv", "mov", "avi"]),
    ("hevc", X265, "-pix_fmt yuv420p", &["mp4", "mkv", "mov"]),
    ("vp9", VP9, "-pix_fmt yuv420p", &["webm", "mkv", "mp4"]),
    ("av1", AV1, "-pix_fmt yuv420p", &["mp4", "mkv", "webm"]),
    ("mpeg4", MPEG4, "-pix_fmt yuv420p -q:v 3", &["avi", "mp4", "mov", "mkv"]),
];

fn sound_of(container: &str) -> &'static str {
    match container {
        "webm" => "-c:a libopus",
        "avi" => "-c:a libmp3lame",
        _ => "-c:a aac",
    }
}

fn check_picture(name: &str, prepared: &Prepared, (width, height): (u32, u32)) {
    assert!((2..=5).contains(&prepared.frames.len()), "{name}: {} frames", prepared.frames.len());
    assert!(prepared.frames.is_sorted_by(|a, b| a.at_ms < b.at_ms), "{name}");
    for frame in &prepared.frames {
        assert_eq!((frame.width, frame.height), (width, height), "{name}");
        let found = corners(frame);
        let right = found.iter().zip([RED, GREEN, BLUE, WHITE]).all(|(found, wanted)| same_colour(*found, wanted));
        assert!(right, "{name}: corners are {found:?}");
    }
}

#[tokio::test]
async fn every_codec_is_shown_and_heard_in_every_container() {
    let bench = Bench::new(Settings { max_frames: 3, ..Settings::default() });
    for (codec, encoder, options, containers) in PAIRS {
        // Encoded once, then packed: what differs is how it is read.
        let first = bench
            .made(&format!("{codec}.mkv"), &format!("{} {encoder} {options} -c:a pcm_s16le", source("96x64", "10", 2)));
        for container in containers {
            let name = format!("{codec}-in.{container}");
            let sound = sound_of(container);
            let copy = if *container == "avi" && codec == "h264" { "copy -bsf:v h264_mp4toannexb" } else { "copy" };
            let prepared = bench.video(&name, &format!("-i {} -c:v {copy} {sound}", first.display())).await;
            check_picture(&name, &prepared, (96, 64));
            assert!(prepared.duration_ms.unwrap().abs_diff(2000) < 200, "{name}: {:?}", prepared.duration_ms);
            let sound = prepared.sound.as_ref().unwrap();
            assert!(sound.duration_ms.abs_diff(2000) < 120 && !sound.trimmed, "{name}: {sound:?}");
        }
    }
}

#[tokio::test]
async fn every_kind_of_picture_comes_out_as_it_is_meant() {
    let bench = Bench::new(Settings { max_frames: 3, ..Settings::default() });
    let plain = |size: &str| format!("{} -an", source(size, "10", 2));
    let rows = [
        ("ten-bit.mkv", format!("{} {X265} -pix_fmt yuv420p10le", plain("96x64")), (96, 64)),
        ("ten-bit-vp9.webm", format!("{} {VP9} -profile:v 2 -pix_fmt yuv420p10le", plain("96x64")), (96, 64)),
        ("ten-bit-av1.mp4", format!("{} {AV1} -pix_fmt yuv420p10le", plain("96x64")), (96, 64)),
        ("odd.mp4", format!("{} {X264} -pix_fmt yuv444p", plain("97x61")), (97, 61)),
        ("odd-vp9.webm", format!("{} {VP9} -pix_fmt yuv420p", plain("97x61")), (97, 61)),
        ("alpha.webm", format!("{} {VP9} -auto-alt-ref 0 -pix_fmt yuva420p", plain("96x64")), (96, 64)),
        ("full-range.mp4", format!("{} {X264} -pix_fmt yuvj420p", plain("96x64")), (96, 64)),
        (
            "interlaced.ts",
            format!("{} -c:v mpeg2video -flags +ilme+ildct -top 1 -q:v 2 -r 25", plain("96x64")),
            (96, 64),
        ),
        (
            "interlaced.mp4",
            format!("{} {X264} -flags +ilme+ildct -x264opts tff=1 -pix_fmt yuv420p", plain("96x64")),
            (96, 64),
        ),
        ("rgb.mkv", format!("{} -c:v ffv1 -pix_fmt bgr0", plain("96x64")), (96, 64)),
        ("large.mp4", format!("{} {X264} -pix_fmt yuv420p", plain("1600x800")), (768, 384)),
        ("prores.mov", format!("{} -c:v prores_ks -profile:v 0 -pix_fmt yuv422p10le", plain("96x64")), (96, 64)),
        ("jpeg.avi", format!("{} -c:v mjpeg -q:v 2 -pix_fmt yuvj420p", plain("96x64")), (96, 64)),
    ];
    for (name, args, size) in rows {
        let prepared = bench.video(name, &args).await;
        check_picture(name, &prepared, size);
    }
}

#[tokio::test]
async fn a_turned_clip_comes_out_upright() {
    let bench = Bench::new(Settings { max_frames: 2, ..Settings::default() });
    let flat = bench.made("flat.mp4", &format!("{} {X264} -pix_fmt yuv420p -an", source("96x64", "10", 1)));
    let flat = fs::read(flat).unwrap();
    // The matrix of the track (ISO 14496-12, 8.3.2), as telephones write it for so many degrees with the clock, and the
    // corners then: top left, top right, bottom left, bottom right.
    for (degrees, matrix, size, wanted) in [
        (90, [0, 1, -1, 0], (64, 96), [BLUE, RED, WHITE, GREEN]),
        (180, [-1, 0, 0, -1], (96, 64), [WHITE, BLUE, GREEN, RED]),
        (270, [0, -1, 1, 0], (64, 96), [GREEN, WHITE, RED, BLUE]),
    ] {
        let [a, b, c, d] = matrix.map(|part: i32| part << 16);
        let words = [a, b, 0, c, d, 0, 0, 0, 1 << 30].map(i32::to_be_bytes);
        let turned = mp4(&flat, &["moov", "trak", "tkhd"], &mut |body| body[40..76].copy_from_slice(&words.concat()));
        let path = bench.dir.path().join(format!("{degrees}.mp4"));
        fs::write(&path, turned).unwrap();
        for frame in &bench.prepare(&path, Kind::Video).await.frames {
            assert_eq!((frame.width, frame.height), size, "{degrees}");
            let found = corners(frame);
            let right = found.iter().zip(wanted).all(|(found, wanted)| same_colour(*found, wanted));
            assert!(right, "{degrees}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_variable_frame_rate_keeps_its_times() {
    let bench = Bench::new(Settings { max_frames: 5, ..Settings::default() });
    // Ten frames in the first second, then one each second.
    let drop = "-vf select='lt(t,1)+not(mod(n,10))' -fps_mode vfr";
    for container in ["mp4", "mkv"] {
        let args = format!("{} {drop} {X264} -pix_fmt yuv420p -an", source("96x64", "10", 8));
        let prepared = bench.video(&format!("variable.{container}"), &args).await;
        check_picture(container, &prepared, (96, 64));
        for frame in &prepared.frames {
            let second = frame.at_ms.div_euclid(1000) * 1000;
            assert!(frame.at_ms < 1000 || frame.at_ms.abs_diff(second) < 30, "{container}: a frame at {}", frame.at_ms);
        }
        let last = prepared.frames.last().unwrap().at_ms;
        assert!(last >= 4000, "{container}: the last frame is at {last}, although there are later ones");
    }
}

/// The samples of a sound, as any player has them.
fn samples(sound: &Sound, rate: u32) -> Vec<i16> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sound");
    fs::write(&path, bytes(&sound.blob)).unwrap();
    let raw = dir.path().join("sound.pcm");
    ffmpeg(&format!("-i {} -ac 1 -ar {rate} -f s16le", path.display()), &raw);
    fs::read(raw).unwrap().chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// How often a sound crosses zero in a second: twice its pitch.
fn pitch(samples: &[i16], rate: u32) -> f64 {
    let inner = &samples[samples.len() / 4..samples.len() * 3 / 4];
    let crossings = inner.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    f64::from(u32::try_from(crossings).unwrap())
        / 2.0
        / (f64::from(u32::try_from(inner.len()).unwrap()) / f64::from(rate))
}

#[tokio::test]
async fn every_sound_format_is_heard_as_it_is() {
    let tone = "-f lavfi -i sine=f=440:r=44100:d=2";
    let rows = [
        ("a.wav", tone.to_owned()),
        ("a.mp3", format!("{tone} -c:a libmp3lame")),
        ("a.m4a", format!("{tone} -c:a aac")),
        ("a.flac", format!("{tone} -c:a flac")),
        ("vorbis.ogg", format!("{tone} -c:a libvorbis")),
        ("opus.ogg", format!("{tone} -c:a libopus")),
        ("a.opus", format!("{tone} -c:a libopus")),
        ("a.aac", format!("{tone} -c:a aac -f adts")),
        ("alac.m4a", format!("{tone} -c:a alac")),
        ("a.mka", format!("{tone} -c:a libopus")),
        ("a.wma", format!("{tone} -c:a wmav2")),
        ("a.aiff", tone.to_owned()),
        ("24-bit.wav", format!("{tone} -c:a pcm_s24le -ar 96000")),
        ("float.wav", format!("{tone} -c:a pcm_f32le")),
        ("mu-law.wav", format!("{tone} -c:a pcm_mulaw -ar 8000")),
        ("telephone.wav", format!("{tone} -c:a pcm_alaw -ar 8000")),
        ("surround.flac", format!("{tone} -c:a flac -ac 6")),
        ("surround.wav", format!("{tone} -ac 8")),
        ("48k.mp3", format!("{tone} -c:a libmp3lame -ar 48000 -ac 2")),
        ("8k.mp3", format!("{tone} -c:a libmp3lame -ar 8000")),
        ("clip.mp4", format!("-f lavfi -i testsrc2=s=64x64:r=10:d=2 {tone} {X264} -c:a aac")),
    ];
    for format in [AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3] {
        let bench = Bench::new(Settings { audio_format: format, ..Settings::default() });
        for (name, args) in rows.iter().take(if format == AudioFormat::Wav { rows.len() } else { 5 }) {
            let path = bench.made(name, args);
            let prepared = bench.prepare(&path, Kind::Audio).await;
            let sound = prepared.sound.as_ref().unwrap();
            assert_eq!((sound.blob.mime, prepared.frames.len(), sound.trimmed), (format.mime(), 0, false), "{name}");
            assert!(sound.duration_ms.abs_diff(2000) <= 130, "{name}: {} ms", sound.duration_ms);
            let samples = samples(sound, 16_000);
            let ms = samples.len() as u64 / 16;
            assert!(ms.abs_diff(sound.duration_ms) <= 2, "{name}: {} ms are {ms} ms", sound.duration_ms);
            let pitch = pitch(&samples, 16_000);
            assert!((pitch - 440.0).abs() < 3.0, "{name}: a tone of {pitch} Hz");
        }
    }
}

#[tokio::test]
async fn sound_is_cut_and_kept_on_disk_in_its_format() {
    for format in [AudioFormat::Wav, AudioFormat::Flac, AudioFormat::Mp3] {
        let bench = Bench::new(Settings { audio_format: format, audio_seconds: 2, ..Settings::default() });
        let path = bench.made("long.wav", "-f lavfi -i sine=f=440:d=5");
        let first = bench.prepare(&path, Kind::Audio).await;
        let sound = first.sound.as_ref().unwrap();
        assert_eq!((sound.duration_ms, sound.trimmed, sound.blob.mime), (2000, true, format.mime()));
        assert_eq!(samples(sound, 16_000).len(), 32_000);
        assert_eq!(bench.prepare(&path, Kind::Audio).await, first, "the same again, from the disk");
        let files = find(&bench.dir.path().join("cache"), &format!("sound.{}", format.name()));
        assert_eq!(files.len(), 1, "{}", format.name());
        assert_eq!(fs::read(&files[0]).unwrap(), bytes(&sound.blob));
    }
}

/// Files of this name anywhere under `dir`.
fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let inside = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => find(&entry.path(), name),
        _ if entry.file_name().to_str() == Some(name) => vec![entry.path()],
        _ => Vec::new(),
    };
    fs::read_dir(dir).unwrap().flatten().flat_map(inside).collect()
}

/// The labels and MIME types of media in the order in which a request to Gemini shows them.
fn shown(body: &Value) -> Vec<String> {
    let parts = body["contents"][0]["parts"].as_array().unwrap();
    let label = |part: &Value| match (part["text"].as_str(), part["inlineData"]["mimeType"].as_str()) {
        (Some(text), _) if text.starts_with("Sound") || text.starts_with("Video") => {
            Some(text.split(',').next().unwrap_or_default().to_owned())
        }
        (None, Some(mime)) => Some(mime.to_owned()),
        _ => None,
    };
    let mut all: Vec<String> = parts.iter().filter_map(label).collect();
    all.dedup();
    all
}

#[test]
fn one_video_and_four_sounds_are_shown_by_name_and_in_order() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::quiet(&sim);
    let mut media = vec![json!({ "name": "scene", "kind": "video", "uri": "clips/0.mp4", "own_track": false })];
    for (n, seconds) in [(1, 1), (2, 2), (3, 3), (4, 1)] {
        let name = format!("music-{n}.wav");
        ffmpeg(&format!("-f lavfi -i sine=f={}:d={seconds}", 300 + n * 100), &work.path("clips").join(&name));
        media.push(json!({ "name": format!("music-{n}"), "kind": "audio", "uri": format!("clips/{name}") }));
    }
    let query = "Which music fits the scene? [[sim: score=8]]";
    let items = work.items(
        "items.jsonl",
        &[
            json!({ "id": "match", "media": media, "query": query }),
            // The shorthand: a clip with a sound of its own beside it, which is a video as well.
            json!({ "id": "pair", "video": "clips/0.mp4", "audio": "clips/0.mp4", "query": query }),
        ],
    );
    let recipe = work.recipe(
        "recipe.toml",
        &[("audio_format = \"wav\"", "audio_format = \"mp3\""), ("audio_seconds = 600", "audio_seconds = 2")],
    );
    Aurelia::at(&work, &relay.base_url()).corpus(&items).arg("--recipe").arg(&recipe).run().expect(0);
    let records = work.records();
    let record = &records["match"];
    assert_eq!(record.status, Status::Accepted);
    let told: Vec<_> = record
        .media
        .iter()
        .map(|medium| {
            (medium.name.as_str(), medium.kind.as_str(), medium.audio_s.map(f64::round), medium.audio_trimmed)
        })
        .collect();
    assert_eq!(told[0].0, "scene");
    assert_eq!(
        told[1..],
        [
            ("music-1", "audio", Some(1.0), false),
            ("music-2", "audio", Some(2.0), false),
            ("music-3", "audio", Some(2.0), true),
            ("music-4", "audio", Some(1.0), false)
        ]
    );
    let pair: Vec<_> =
        records["pair"].media.iter().map(|medium| (medium.name.as_str(), medium.kind.as_str())).collect();
    assert_eq!(pair, [("video", "video"), ("audio", "audio")]);
    let requests: Vec<Vec<String>> =
        relay.sent().iter().filter(|sent| sent.role() == "generator").map(|sent| shown(&sent.body)).collect();
    let sounds = (1..=4).flat_map(|n| [format!("Sound \"music-{n}\""), "audio/mpeg".to_owned()]);
    let expected: Vec<String> =
        ["Video \"scene\"".to_owned(), "image/jpeg".to_owned()].into_iter().chain(sounds).collect();
    assert!(requests.contains(&expected), "{requests:?}");
    let expected = ["Video \"video\"", "image/jpeg", "Sound \"audio\"", "audio/mpeg"].map(str::to_owned).to_vec();
    assert!(requests.contains(&expected), "{requests:?}");
}
