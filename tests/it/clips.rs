//! Clips as a whole: what is made of a source, and how it reaches a provider.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aurelia::demo::clip::{Content, Style};
use aurelia::media::{Clip, Kind, Library, Limits, MediaError, MediaErrorKind, Prepared, Settings, Wants};
use aurelia::recipe::RecipeFile;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Aurelia, Relay, Sent, Sim, Workdir, clips, corpus};

const CLIP_ALONE: Wants = Wants { frames: false, sound: false, clip: true };

/// A library with a cache of its own that makes clips.
struct Bench {
    dir: tempfile::TempDir,
    settings: Settings,
    library: Library,
}

impl Bench {
    fn new(clip_mib: u32, clip_seconds: u32) -> Self {
        Self::wanting(CLIP_ALONE, Settings { clip_mib, clip_seconds, ..Settings::default() })
    }

    fn wanting(wants: Wants, settings: Settings) -> Self {
        Self::within(Limits::default(), wants, settings)
    }

    fn within(limits: Limits, wants: Wants, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(dir.path().join("cache"), settings.clone(), wants, limits);
        Self { dir, settings, library }
    }

    /// Like [`Bench::new`] without limits of size or length, and with this script in place of ffmpeg. `LOG` in it is a
    /// folder, which comes back too: a child that may write no file can still leave links in it.
    fn scripted(script: &str) -> (Self, PathBuf) {
        let mut bench = Self::new(0, 0);
        let log = bench.dir.path().join("starts");
        std::fs::create_dir(&log).unwrap();
        let program = bench.dir.path().join("decoder.sh");
        let script = script.replace("LOG", &format!("'{}'", log.display()));
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let limits = Limits { ffmpeg: program, ..Limits::default() };
        bench.library = Library::new(bench.dir.path().join("cache"), bench.settings.clone(), CLIP_ALONE, limits);
        (bench, log)
    }

    /// The library of the next process.
    fn next(&self) -> Library {
        Library::new(self.dir.path().join("cache"), self.settings.clone(), CLIP_ALONE, Limits::default())
    }

    /// A file made by ffmpeg.
    fn file(&self, name: &str, args: &[&str]) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y"]).args(args).arg(&path);
        assert!(command.status().unwrap().success(), "{args:?}");
        path
    }

    async fn prepare(&self, path: &Path, kind: Kind) -> Result<Arc<Prepared>, MediaError> {
        self.library.prepare(path.to_str().unwrap(), kind).await
    }

    async fn clip(&self, path: &Path, kind: Kind) -> Arc<Clip> {
        self.prepare(path, kind).await.unwrap().clip.clone().unwrap()
    }
}

/// A small clip; made if it is not there.
async fn kept(content: Content, seed: u64, seconds: u32) -> PathBuf {
    let make = move || clips::kept(Style::small(content, seed), seconds);
    tokio::task::spawn_blocking(make).await.unwrap()
}

fn bytes_of(clip: &Clip) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut clip.open().unwrap(), &mut bytes).unwrap();
    assert_eq!((bytes.len() as u64, hex(&bytes)), (clip.bytes, clip.sha256.to_string()));
    bytes
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What ffprobe finds: codecs in order, and the length in seconds.
fn probed(bytes: &[u8]) -> (Vec<String>, f64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clip");
    std::fs::write(&path, bytes).unwrap();
    let args = ["-v", "error", "-show_entries", "format=duration:stream=codec_name", "-of", "json"];
    let output = Command::new("ffprobe").args(args).arg(&path).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let codecs = report["streams"].as_array().unwrap().iter().map(|s| s["codec_name"].as_str().unwrap().to_owned());
    (codecs.collect(), report["format"]["duration"].as_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_clip_that_providers_take_goes_as_it_is_and_is_neither_decoded_nor_copied() {
    let bench = Bench::new(0, 0);
    let path = kept(Content::Full, 1, 2).await;
    let calls = (0..100).map(|_| bench.clip(&path, Kind::Video));
    let found = join_all(calls).await;
    let source = std::fs::read(&path).unwrap();
    for clip in &found {
        assert_eq!((&*clip.sha256, clip.mime, clip.sound), (&*hex(&source), "video/mp4", true));
        assert!((2000..2200).contains(&clip.duration_ms), "{}", clip.duration_ms);
        assert_eq!((clip.trimmed, clip.smaller), (false, false));
    }
    assert_eq!(bytes_of(&found[0]), source);
    let stats = bench.library.stats();
    assert_eq!((stats.hashed, stats.clips, stats.decodes), (1, 1, 0));
    let prepared = bench.prepare(&path, Kind::Video).await.unwrap();
    assert!(prepared.frames.is_empty() && prepared.sound.is_none());
    assert_eq!(bench.next().prepare(path.to_str().unwrap(), Kind::Video).await.unwrap().clip, prepared.clip);
}

#[tokio::test]
async fn other_containers_are_copied_into_an_mp4_and_other_codecs_encoded_once_for_all_processes() {
    let bench = Bench::new(0, 0);
    let source = kept(Content::Full, 2, 2).await;
    let source = source.to_str().unwrap();
    for (name, args, codecs) in [
        ("a.mkv", vec!["-i", source, "-c", "copy"], ["h264", "aac"]),
        ("a.ts", vec!["-i", source, "-c", "copy"], ["h264", "aac"]),
        ("a.ogv.mkv", vec!["-i", source, "-c:v", "wmv2", "-c:a", "wmav2"], ["h264", "aac"]),
    ] {
        let path = bench.file(name, &args);
        let clip = bench.clip(&path, Kind::Video).await;
        let (found, length) = probed(&bytes_of(&clip));
        assert_eq!(
            (clip.mime, clip.smaller, found),
            ("video/mp4", false, codecs.map(str::to_owned).to_vec()),
            "{name}"
        );
        assert!((length - 2.0).abs() < 0.3, "{name}: {length}");
        let next = bench.next();
        let again = next.prepare(path.to_str().unwrap(), Kind::Video).await.unwrap().clip.clone().unwrap();
        assert_eq!((&again.sha256, next.stats().clips), (&clip.sha256, 0), "{name}");
    }
    for (name, args, mime) in [
        ("a.webm", vec!["-i", source, "-c:v", "libvpx", "-an"], "video/webm"),
        ("a.avi", vec!["-i", source, "-c:v", "mpeg4", "-c:a", "mp3"], "video/avi"),
        ("a.mov", vec!["-i", source, "-c", "copy"], "video/mov"),
        ("a.flv", vec!["-i", source, "-c", "copy", "-bsf:a", "aac_adtstoasc"], "video/x-flv"),
    ] {
        let path = bench.file(name, &args);
        let clip = bench.clip(&path, Kind::Video).await;
        assert_eq!((clip.mime, &*clip.sha256), (mime, &*hex(&std::fs::read(&path).unwrap())), "{name}");
    }
}

#[tokio::test]
async fn a_clip_whose_item_names_another_sound_is_silent() {
    let bench = Bench::new(0, 0);
    let path = kept(Content::Full, 3, 2).await;
    let (heard, silent) = (bench.clip(&path, Kind::Video).await, bench.clip(&path, Kind::Silent).await);
    assert_eq!((heard.sound, silent.sound), (true, false));
    assert_ne!(heard.sha256, silent.sha256);
    assert_eq!(probed(&bytes_of(&silent)).0, ["h264"]);
    let without = kept(Content::NoAudio, 3, 2).await;
    let clip = bench.clip(&without, Kind::Silent).await;
    assert_eq!(*clip.sha256, hex(&std::fs::read(without).unwrap()), "there is nothing to take out");
}

#[tokio::test]
async fn a_clip_is_cut_and_made_smaller_as_the_recipe_says_or_refused_by_the_setting() {
    let noise = "nullsrc=s=640x360:r=25:d=4,geq=random(1)*255:128:128";
    let bench = Bench::new(1, 3);
    let path = bench.file("noise.mp4", &["-f", "lavfi", "-i", noise, "-preset", "ultrafast", "-crf", "23"]);
    assert!(std::fs::metadata(&path).unwrap().len() > 4 << 20);
    let clip = bench.clip(&path, Kind::Video).await;
    assert!((2 << 18..=1 << 20).contains(&clip.bytes), "{} bytes", clip.bytes);
    assert!((2900..3300).contains(&clip.duration_ms), "{} ms", clip.duration_ms);
    assert_eq!((clip.trimmed, clip.smaller), (true, true));
    assert!((probed(&bytes_of(&clip)).1 - 3.0).abs() < 0.3);

    let cut = Bench::new(0, 2);
    let clip = cut.clip(&kept(Content::Full, 4, 5).await, Kind::Video).await;
    assert!((1900..2600).contains(&clip.duration_ms), "{} ms", clip.duration_ms);
    assert_eq!((clip.trimmed, clip.smaller), (true, false));

    let long = "nullsrc=s=160x120:r=1:d=1800,geq=random(1)*255:128:128";
    let path = bench.file("long.mp4", &["-f", "lavfi", "-i", long, "-preset", "ultrafast", "-crf", "23"]);
    let error = Bench::new(1, 0).prepare(&path, Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Invalid);
    assert!(error.message.starts_with("long.mp4: cannot be made as small as 1 MiB (clip_mib)"), "{error}");
}

#[tokio::test]
async fn frames_sound_and_clip_come_from_one_decode() {
    let bench = Bench::wanting(Wants { frames: true, sound: true, clip: true }, Settings::default());
    let path = kept(Content::Full, 5, 2).await;
    let heard = bench.prepare(&path, Kind::Video).await.unwrap();
    let silent = bench.prepare(&path, Kind::Silent).await.unwrap();
    assert_eq!((heard.frames.len(), &heard.frames, &heard.sound), (5, &silent.frames, &silent.sound));
    assert_ne!(heard.clip, silent.clip);
    assert_eq!((bench.library.stats().decodes, bench.library.stats().clips), (1, 2));
}

#[tokio::test]
async fn a_broken_clip_is_refused_before_it_is_handed_to_anybody() {
    let bench = Bench::new(0, 0);
    let path = bench.dir.path().join("a.mp4");
    std::fs::write(&path, "no film").unwrap();
    assert_eq!(bench.prepare(&path, Kind::Video).await.unwrap_err().kind, MediaErrorKind::Invalid);
    let wav = kept(Content::AudioOnly, 1, 1).await;
    assert_eq!(bench.prepare(&wav, Kind::Video).await.unwrap_err().kind, MediaErrorKind::Invalid);
}

/// The first half of a file.
fn half(path: &Path) -> PathBuf {
    let bytes = std::fs::read(path).unwrap();
    let half = path.with_file_name(format!("half-{}", path.file_name().unwrap().to_str().unwrap()));
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    half
}

#[tokio::test]
async fn a_clip_that_is_cut_off_is_refused_before_anybody_is_shown_it() {
    let bench = Bench::new(0, 0);
    let source = kept(Content::Full, 6, 6).await;
    let source = source.to_str().unwrap();
    let copy = ["-i", source, "-c", "copy"];
    for (name, args) in [
        ("front.mp4", [&copy[..], &["-movflags", "+faststart"]].concat()),
        ("parts.mp4", [&copy[..], &["-movflags", "+frag_keyframe+empty_moov"]].concat()),
        ("a.mov", [&copy[..], &["-movflags", "+faststart"]].concat()),
        ("a.mkv", copy.to_vec()),
        ("a.flv", copy.to_vec()),
        ("a.webm", vec!["-i", source, "-c:v", "libvpx", "-c:a", "libvorbis"]),
    ] {
        let path = bench.file(name, &args);
        assert!(bench.clip(&path, Kind::Video).await.duration_ms >= 5900, "{name}");
        let error = bench.prepare(&half(&path), Kind::Video).await.expect_err(name);
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{name}: {error}");
        assert!(error.message.contains("is cut off or damaged"), "{name}: {error}");
        println!("{error}");
    }
    // A picture that ends before the sound is whole where the file says so.
    let short = bench.file("short.mp4", &[&copy[..], &["-t", "2", "-an"]].concat());
    let uneven = ["-i", short.to_str().unwrap(), "-i", source, "-map", "0:v", "-map", "1:a", "-c", "copy"];
    let uneven = bench.file("uneven.mp4", &[&uneven[..], &["-movflags", "+faststart"]].concat());
    bench.prepare(&uneven, Kind::Video).await.expect("a short picture");
    // Of these ffmpeg believes no end that is not there: half of one is a shorter one, as it is for key frames.
    for (name, args) in [("a.ts", &copy[..]), ("a.avi", &["-i", source, "-c:v", "mpeg4", "-c:a", "mp3"])] {
        let shorter = half(&bench.file(name, args));
        assert!((2000..4500).contains(&bench.clip(&shorter, Kind::Video).await.duration_ms), "{name}");
        let frames = Bench::wanting(Wants::default(), Settings::default());
        frames.prepare(&shorter, Kind::Video).await.expect(name);
    }
}

#[tokio::test]
async fn a_clip_is_read_under_the_bounds_of_every_decoder() {
    let bounds = "*'-format_whitelist mov,'*'-codec_whitelist h264,'*'-max_streams 256 '*'-max_pixels '*";
    let judge = format!("case \"$*\" in {bounds}) judged=bound;; *) judged=loose;; esac; ln -s $judged LOG/$$");
    let (bench, log) = Bench::scripted(&format!("{judge}; exec ffmpeg \"$@\""));
    let source = kept(Content::Full, 7, 2).await;
    let path = bench.file("a.mkv", &["-i", source.to_str().unwrap(), "-c:v", "wmv2", "-c:a", "wmav2"]);
    bench.clip(&path, Kind::Video).await;
    let starts: Vec<PathBuf> =
        std::fs::read_dir(log).unwrap().map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap()).collect();
    assert!(starts.len() >= 3 && starts.iter().all(|start| start == Path::new("bound")), "{starts:?}");
    let few = Limits { max_frames_decoded: 10, ..Limits::default() };
    let bench = Bench::within(few, CLIP_ALONE, Settings { clip_mib: 0, clip_seconds: 0, ..Settings::default() });
    let error = bench.prepare(&source, Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Invalid, "{error}");
    assert!(error.message.contains("has more than 10 frames (max_frames_decoded)"), "{error}");
}

#[tokio::test]
async fn a_decoder_killed_once_while_a_clip_is_made_starts_again_and_one_killed_twice_is_its_items_fault() {
    let times =
        |most: u32| format!("ln -s x LOG/$$; [ $(ls LOG | wc -l) -gt {most} ] || kill -9 $$; exec ffmpeg \"$@\"");
    let source = kept(Content::Full, 8, 2).await;
    let (bench, _) = Bench::scripted(&times(1));
    assert_eq!(bench.clip(&source, Kind::Video).await.mime, "video/mp4");
    let (bench, log) = Bench::scripted(&times(2));
    let error = bench.prepare(&source, Kind::Video).await.unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Killed, "{error}");
    bench.prepare(&source, Kind::Video).await.unwrap_err();
    assert_eq!(std::fs::read_dir(log).unwrap().count(), 2, "it is known by then");
}

/// The default recipe with both roles that look shown `media`, and other changes.
fn recipe(work: &Workdir, media: &str, more: &[(&str, &str)]) -> PathBuf {
    let shown = format!("media = {media:?}");
    let mut changes = vec![("media = \"frames+audio\"", shown.as_str()); 2];
    changes.extend(more);
    work.recipe("recipe.toml", &changes)
}

/// The clips inside the requests that a relay saw: type and bytes.
fn inside(relay: &Relay) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for sent in relay.sent() {
        for part in sent.body["contents"][0]["parts"].as_array().into_iter().flatten() {
            let data = &part["inlineData"];
            if let Some(mime) = data["mimeType"].as_str().filter(|mime| mime.starts_with("video/")) {
                found.push((mime.to_owned(), STANDARD.decode(data["data"].as_str().unwrap()).unwrap()));
            }
        }
    }
    found
}

#[test]
fn a_small_clip_goes_inside_the_requests_and_the_record_says_what_was_shown() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let relay = Relay::quiet(&sim);
    let recipe = recipe(&work, "video", &[]);
    let file = work.items("items.jsonl", &corpus(3, 1));
    Aurelia::at(&work, &relay.base_url()).corpus(&file).arg("--recipe").arg(&recipe).run().expect(0);
    let source = std::fs::read(work.path("clips/0.mp4")).unwrap();
    let shown = inside(&relay);
    assert!(shown.len() >= 6, "{}", shown.len());
    assert!(shown.iter().all(|(mime, bytes)| mime == "video/mp4" && *bytes == source));
    for record in work.records().values() {
        let medium = &record.media[0];
        let clip = medium.clip.as_ref().unwrap();
        assert_eq!((clip.bytes, clip.trimmed, clip.smaller, clip.sound), (source.len() as u64, false, false, true));
        assert!((0.9..1.3).contains(&clip.duration_s) && medium.frames_s.is_empty() && medium.audio_s.is_none());
    }
    // The journal holds all of it: a second run asks nothing.
    std::fs::remove_file(work.out().join("records.jsonl")).unwrap();
    let again = || Aurelia::at(&work, &relay.base_url()).corpus(&file).arg("--recipe").arg(&recipe).run().expect(0);
    assert_eq!(sim.counted(again).0, 0);
}

#[test]
fn a_clip_beside_an_audio_is_shown_without_its_sound_and_the_audio_is_played() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.clip("other.wav", Style::small(Content::AudioOnly, 9), 1);
    let relay = Relay::quiet(&sim);
    let item =
        |audio: Value| json!({ "id": audio.to_string(), "video": "clips/0.mp4", "audio": audio, "query": "Who?" });
    let file = work.items("items.jsonl", &[item(json!("clips/other.wav")), item(Value::Null)]);
    let recipe = recipe(&work, "video+audio", &[]);
    Aurelia::at(&work, &relay.base_url()).corpus(&file).arg("--recipe").arg(recipe).run().expect(0);
    let codecs: BTreeSet<Vec<String>> = inside(&relay).iter().map(|(_, bytes)| probed(bytes).0).collect();
    assert_eq!(codecs, [vec!["h264".to_owned()], vec!["h264".to_owned(), "aac".to_owned()]].into());
    let sounds = |sent: &Sent| {
        let parts = sent.body["contents"][0]["parts"].as_array().cloned().unwrap_or_default();
        parts.iter().filter(|part| part["inlineData"]["mimeType"] == "audio/wav").count()
    };
    let played: BTreeSet<usize> = relay.sent().iter().filter(|sent| sent.role() != "summarizer").map(sounds).collect();
    assert_eq!(played, [0, 1].into());
}

#[test]
fn what_a_provider_does_not_take_is_said_before_anything_is_paid() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(1, 1));
    let openai =
        [("provider = \"gemini\"\nmodel = \"gemini-3.8-flash\"", "provider = \"openai\"\nmodel = \"gpt-4o-mini\"")];
    let shown = recipe(&work, "video", &openai);
    let output = Aurelia::new(&work, &sim).corpus(&file).arg("--recipe").arg(shown).run().expect(64);
    let sentence = output.sentence();
    assert!(
        sentence.contains("the generator is shown clips as a whole") && sentence.contains("providers.openai.video"),
        "{sentence}"
    );
    let flac = [openai[0], ("audio_format = \"wav\"", "audio_format = \"flac\"")];
    let heard = work.recipe("heard.toml", &flac);
    let output = Aurelia::new(&work, &sim).corpus(&file).arg("--recipe").arg(heard).run().expect(64);
    assert!(output.sentence().contains("provider \"openai\" takes wav and mp3 only"), "{}", output.stderr);
    let shown = recipe(&work, "video", &[]);
    let none = "[providers.gemini]\nvideo = \"inline\"\ninline_mib = 0\n";
    Aurelia::new(&work, &sim).config(none).corpus(&file).arg("--recipe").arg(shown).run().expect(1);
    let error = work.records().into_values().next().unwrap().error.unwrap();
    assert_eq!(error.kind.name(), "invalid_media");
    assert!(error.message.contains("media.clip_mib"), "{}", error.message);
    assert_eq!(sim.received(), 0);
}

#[test]
fn a_role_that_would_be_shown_nothing_of_an_item_fails_it_unasked_with_the_way_out() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    work.clip("sound.wav", Style::small(Content::AudioOnly, 9), 1);
    work.clip("mute.mp4", Style::small(Content::NoAudio, 9), 1);
    let sound = json!({ "id": "sound", "audio": "clips/sound.wav", "query": "Who? [[sim: score=9]]" });
    let clip = json!({ "id": "clip", "video": "clips/0.mp4", "query": "Where? [[sim: score=9]]" });
    let mute = json!({ "id": "mute", "video": "clips/mute.mp4", "query": "What? [[sim: score=9]]" });
    for (media, blind, lacks, more) in [
        ("video", "sound", "no video", "\"video+audio\""),
        ("frames", "sound", "no video", "\"frames+audio\""),
        ("audio", "mute", "no sound", "\"frames+audio\""),
    ] {
        let file = work.items("items.jsonl", &[sound.clone(), clip.clone(), mute.clone()]);
        let aurelia = Aurelia::new(&work, &sim).corpus(&file).arg("--recipe").arg(recipe(&work, media, &[]));
        let (calls, _) = sim.counted(|| aurelia.run().expect(1));
        let records = work.records();
        let error = records[blind].error.clone().unwrap();
        assert_eq!((error.kind.name(), error.role.unwrap().name()), ("invalid_media", "generator"), "{media}");
        let says = |words: &str| error.message.contains(words);
        assert!(says("roles.generator.media") && says(lacks) && says(more), "{}", error.message);
        let others = records.values().filter(|record| record.error.is_none()).count();
        assert_eq!((others, calls), (2, 6), "{media}: the others are asked about, three calls each");
        std::fs::remove_dir_all(work.out()).unwrap();
    }
    let file = work.items("items.jsonl", &[sound, clip]);
    let both = recipe(&work, "video+audio", &[]);
    Aurelia::new(&work, &sim).corpus(&file).arg("--recipe").arg(both).run().expect(0);
}

#[test]
fn show_tells_where_prepared_files_lie_and_how_a_clip_was_sent() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let item = json!({ "id": "a", "video": "clips/0.mp4", "query": "Who? [[sim: score=9]]" });
    let file = work.items("items.jsonl", &[item]);
    let recipe = recipe(&work, "video", &[]);
    let upload = "[providers.gemini]\ninline_mib = 0\n";
    let places = |sent: &str, config: &str| {
        Aurelia::new(&work, &sim).config(config).corpus(&file).arg("--recipe").arg(&recipe).run().expect(0);
        let show = || Aurelia::new(&work, &sim).config(config).args(["show", "a", "--out", "out"]);
        let text = show().run().expect(0).stdout;
        assert_eq!(text.matches(&format!("--- clips sent by {sent} ---")).count(), 2, "{text}");
        let told = show().arg("--json").run().expect(0).json();
        let by = |role: &str| {
            let all = told["exchanges"].as_array().unwrap();
            all.iter().find(|exchange| exchange["request"]["role"] == role).unwrap()["clips"].clone()
        };
        assert_eq!((by("generator"), by("summarizer"), by("evaluator")), (json!([sent]), json!([]), json!([sent])));
        let places = told["media"][0]["prepared"].as_array().unwrap().clone();
        for place in &places {
            let place = place.as_str().unwrap();
            assert!(work.path("").join(place).is_dir() && text.contains(place), "{place}\n{text}");
        }
        std::fs::remove_dir_all(work.out()).unwrap();
        places.len()
    };
    assert_eq!(places("inline", ""), 1);
    assert_eq!(places("upload", upload), 1);
    // Frames lie there as pictures.
    Aurelia::new(&work, &sim).corpus(&file).run().expect(0);
    let told = Aurelia::new(&work, &sim).args(["show", "a", "--out", "out", "--json"]).run().expect(0).json();
    let frames = work.path("").join(told["media"][0]["prepared"][0].as_str().unwrap());
    let pictures =
        std::fs::read_dir(frames).unwrap().flatten().filter(|e| e.path().extension() == Some("jpg".as_ref()));
    assert_eq!(pictures.count(), 5);
    std::fs::remove_dir_all(work.out().join(".aurelia/media")).unwrap();
    let text = Aurelia::new(&work, &sim).args(["show", "a", "--out", "out"]).run().expect(0).stdout;
    assert!(text.contains("nothing of it is kept in out/.aurelia/media now"), "{text}");
}

#[test]
fn a_dry_run_counts_the_seconds_of_clips() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(1, 1));
    let cost = |recipe: &Path| {
        let run = Aurelia::new(&work, &sim).corpus(&file).arg("--dry-run").arg("--recipe").arg(recipe).run().expect(0);
        run.json()["cost_nano_usd"].clone()
    };
    let whole = cost(&recipe(&work, "video", &[]));
    let cut = cost(&recipe(&work, "video", &[("clip_seconds = 0", "clip_seconds = 1")]));
    assert_ne!(whole, cut);
}

#[test]
fn a_dry_run_says_that_its_most_is_for_clips_of_a_minute() {
    let (sim, work) = (Sim::plain(), Workdir::with_clips(1));
    let file = work.items("items.jsonl", &corpus(1, 1));
    let out = work.out();
    let args = [OsStr::new("run"), "--corpus".as_ref(), file.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let told = |recipe: &Path| {
        let dry = Aurelia::new(&work, &sim).args(args).arg("--dry-run").arg("--recipe").arg(recipe);
        dry.run().expect(0).stdout
    };
    for media in ["video", "frames+audio"] {
        let told = told(&recipe(&work, media, &[]));
        assert!(told.contains("taken as 60 s, and longer ones cost more than this"), "{media}: {told}");
    }
    assert!(!told(&recipe(&work, "frames", &[])).contains("longer ones"), "pictures have no length");
}

#[test]
fn the_recipe_for_clips_is_a_recipe() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes/video.toml");
    let recipe = RecipeFile::read(&path).unwrap().resolve(|_| true);
    assert_eq!(recipe.wants(), Wants { sound: true, ..CLIP_ALONE });
}
