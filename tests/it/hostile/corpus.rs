//! The bad files, and what each ends as.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use aurelia::demo::clip::{Content, Style};
use serde_json::{Value, json};

use super::bytes::{boxed, ebml, find, inserted, mp4, noise, png_of, replaced, segment, sps, wav, with_sps};
use crate::support::clips;

/// What an item ends as: a record with a score, or an error of this kind whose message holds these words.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Accepted,
    /// One or the other (`invalid_media`), as the decoder happens to see it.
    Either,
    Failed(&'static str, &'static str),
}

pub(super) const FINE: End = End::Accepted;
pub(super) const EITHER: End = End::Either;

pub(super) fn invalid(words: &'static str) -> End {
    End::Failed("invalid_media", words)
}

/// One bad source.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) uri: String,
    pub(super) end: End,
}

impl Case {
    pub(super) fn item(&self) -> Value {
        json!({ "id": self.id, self.kind: self.uri, "query": "What is heard? [[sim: score=8]]" })
    }
}

/// What the files point at and nobody may touch.
pub(super) struct Bait {
    pub(super) file: PathBuf,
    pub(super) url: String,
}

pub(super) struct Corpus {
    dir: PathBuf,
    pub(super) cases: Vec<Case>,
}

/// Makes them all in `dir`, which is `clips` of the corpus file's directory.
pub(super) fn make(dir: &Path, bait: &Bait) -> Corpus {
    let mut corpus = Corpus { dir: dir.to_owned(), cases: Vec::new() };
    let good = Good::make();
    corpus.torn(&good);
    corpus.gigantic(&good);
    corpus.endless(&good);
    corpus.times(&good);
    corpus.pointers(&good, bait);
    corpus.crowds(&good);
    corpus.guises(&good);
    corpus.sounds(&good);
    corpus.shapes(&good);
    corpus.paths(&good);
    corpus
}

/// Good files with damage drawn from seeds: a few bytes changed, a stretch of noise, a piece gone or doubled.
pub(super) fn damaged(dir: &Path, count: u64) -> Corpus {
    let mut corpus = Corpus { dir: dir.to_owned(), cases: Vec::new() };
    let good = Good::make();
    let from = [&good.mp4, &good.front, &good.mkv, &good.live, &good.avi, &good.ts, &good.mp3];
    for seed in 0..count {
        let which = usize::try_from(seed).unwrap() % from.len();
        let (mut bytes, draws) = (from[which].clone(), noise(seed, 64));
        let draw = |n: usize| u32::from_le_bytes(draws[n * 4..n * 4 + 4].try_into().unwrap()) as usize;
        // Half of the damage goes where the structure is.
        let place = |n: usize, length: usize| {
            if draw(n).is_multiple_of(2) { draw(n) / 2 % length.min(2000) } else { draw(n) / 2 % length }
        };
        match seed / 7 % 4 {
            0 => (0..8).for_each(|n| {
                let at = place(n, bytes.len());
                bytes[at] = draws[60 - n];
            }),
            1 => {
                let at = place(0, bytes.len());
                let end = (at + draw(1) % 5000).min(bytes.len());
                bytes[at..end].copy_from_slice(&noise(seed, end - at));
            }
            2 => {
                let at = place(0, bytes.len());
                let end = (at + draw(1) % 20_000).min(bytes.len());
                drop(bytes.drain(at..end));
            }
            _ => {
                let kept = 4 + draw(0) % 60;
                bytes.truncate(kept);
                bytes.extend(noise(seed, 3000));
            }
        }
        corpus.add(if which == 6 { "audio" } else { "video" }, &format!("damaged-{seed}"), &bytes, EITHER);
    }
    corpus
}

/// Files that are as they should be: what the bad ones are made of.
struct Good {
    mp4: Vec<u8>,
    front: Vec<u8>,
    mkv: Vec<u8>,
    live: Vec<u8>,
    avi: Vec<u8>,
    ts: Vec<u8>,
    mp3: Vec<u8>,
    png: Vec<u8>,
}

/// What ffmpeg makes of these arguments.
fn ffmpeg(ending: &str, args: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("made.{ending}"));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-threads", "1"]).args(args.split_ascii_whitespace()).arg("-y").arg(&path);
    assert!(command.status().unwrap().success(), "{args}");
    fs::read(path).unwrap()
}

impl Good {
    fn make() -> Self {
        let clip = clips::kept(Style::small(Content::Full, 77), 2);
        let copy = |ending: &str, options: &str| ffmpeg(ending, &format!("-i {} {options}", clip.display()));
        Self {
            mp4: fs::read(&clip).unwrap(),
            front: copy("mp4", "-c copy -movflags +faststart"),
            mkv: copy("mkv", "-c copy"),
            live: copy("mkv", "-c copy -live 1"),
            avi: copy("avi", "-c:v mpeg4 -c:a libmp3lame"),
            ts: copy("ts", "-c copy"),
            mp3: copy("mp3", "-vn"),
            png: ffmpeg("png", "-f lavfi -i testsrc=s=300x300 -frames:v 1"),
        }
    }
}

impl Corpus {
    fn add(&mut self, kind: &'static str, name: &str, bytes: &[u8], end: End) {
        fs::write(self.dir.join(name), bytes).unwrap();
        self.at(kind, name, &format!("clips/{name}"), end);
    }

    fn video(&mut self, name: &str, bytes: &[u8], end: End) {
        self.add("video", name, bytes, end);
    }

    fn at(&mut self, kind: &'static str, id: &str, uri: &str, end: End) {
        self.cases.push(Case { id: id.to_owned(), kind, uri: uri.to_owned(), end });
    }

    /// Empty, cut off, without a frame.
    fn torn(&mut self, good: &Good) {
        self.video("empty.mp4", b"", invalid("is empty"));
        let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
        self.video("cut-tail.mp4", &half(&good.mp4), invalid("moov atom not found"));
        self.video("cut-front.mp4", &half(&good.front), invalid("cut off"));
        self.video("cut.mkv", &half(&good.mkv), invalid("cut off"));
        self.video("cut.avi", &half(&good.avi), invalid("cut off"));
        // A transport stream states no length: half of one is a shorter one.
        self.video("cut.ts", &half(&good.ts), FINE);
        self.video("header-only.mp4", &good.mp4[..40], invalid("moov atom not found"));
        self.video("header-only.mkv", &good.mkv[..40], invalid(""));
        for (name, muxer) in [("no-frames.mp4", "mp4"), ("no-frames.mkv", "mkv"), ("no-frames.avi", "avi")] {
            self.video(name, &ffmpeg(muxer, "-f lavfi -i testsrc=s=64x64 -frames:v 0 -c:v mpeg4"), invalid(""));
        }
        let no_data = mp4(&good.mp4, &["mdat"], &mut Vec::clear);
        self.video("no-data.mp4", &no_data, invalid(""));
        let no_table = mp4(&good.mp4, &["moov", "trak", "mdia", "minf", "stbl"], &mut Vec::clear);
        self.video("no-table.mp4", &no_table, invalid(""));
        self.add("audio", "no-samples.wav", &wav(1, 16_000, 0, b""), invalid(""));
    }

    /// Pictures of 30,000 x 30,000 in a few bytes, told by the container, by the codec, or by both.
    fn gigantic(&mut self, good: &Good) {
        let dir = tempfile::tempdir().unwrap();
        let png = dir.path().join("a.png");
        fs::write(&png, &good.png).unwrap();
        let packed = ffmpeg("mkv", &format!("-i {} -c copy", png.display()));
        let told = replaced(
            &replaced(&packed, &[0xb0, 0x82, 1, 44], &[0xb0, 0x82, 0x75, 0x30]),
            &[0xba, 0x82, 1, 44],
            &[0xba, 0x82, 0x75, 0x30],
        );
        self.video("huge-png.mkv", &png_of(&told, 30_000), invalid("picture size"));
        self.video("big-png-hidden.mkv", &png_of(&packed, 12_000), invalid("max_pixels"));
        self.video("huge-png-hidden.mkv", &png_of(&packed, 30_000), invalid(""));
        self.video("huge-png-2g.mkv", &png_of(&packed, 0x7fff_ffff), invalid(""));
        let jpeg = ffmpeg("avi", "-f lavfi -i testsrc=s=304x304:r=5:d=1 -c:v mjpeg");
        let side = |old: u16, new: u16| {
            replaced(
                &jpeg,
                &[&old.to_be_bytes()[..], &old.to_be_bytes()].concat(),
                &[&new.to_be_bytes()[..], &new.to_be_bytes()].concat(),
            )
        };
        self.video("huge-jpeg.avi", &side(304, 30_000), invalid(""));
        let stsd = ["moov", "trak", "mdia", "minf", "stbl", "stsd", "avc1", "avcC"];
        let told = mp4(&good.mp4, &stsd, &mut |body| with_sps(body, &sps(30_000 / 16)));
        self.video("huge-h264.mp4", &told, invalid("Picture size 30000x30000"));
        let told = mp4(&good.mp4, &stsd, &mut |body| with_sps(body, &sps(12_000 / 16)));
        self.video("big-h264.mp4", &told, invalid("max_pixels"));
        let told = mp4(&good.mp4, &stsd, &mut |body| with_sps(body, &sps(1 << 26)));
        self.video("absurd-h264.mp4", &told, invalid(""));
    }

    /// What seems to have no end.
    fn endless(&mut self, good: &Good) {
        self.video("loop.ts", &good.ts.repeat(400), invalid("max_"));
        let mut claims = good.mp3.clone();
        let at = claims.windows(4).position(|w| w == b"Xing" || w == b"Info").unwrap();
        claims[at + 8..at + 12].fill(0xff);
        self.add("audio", "billion-seconds.mp3", &claims, invalid("max_duration_seconds"));
        self.add("audio", "four-gigabytes.wav", &wav(1, 16_000, u32::MAX - 36, &noise(1, 32_000)), FINE);
        let duration = find(&good.mkv, &[0x44, 0x89, 0x88]);
        let mut long = good.mkv.clone();
        long[duration + 3..duration + 11].copy_from_slice(&1e15_f64.to_be_bytes());
        self.video("long-by-header.mkv", &long, invalid("max_duration_seconds"));
        long[duration + 3..duration + 11].copy_from_slice(&f64::NAN.to_be_bytes());
        self.video("nan-by-header.mkv", &long, FINE);
        let rapid = ffmpeg(
            "mp4",
            "-f lavfi -i color=s=16x16:r=1000000 -frames:v 6000 -c:v libx264 -preset ultrafast -video_track_timescale 1000000",
        );
        self.video("million-fps.mp4", &rapid, invalid("max_frames_decoded"));
    }

    /// Times that run backwards, overflow or are not there.
    fn times(&mut self, good: &Good) {
        let stbl = |name: &'static str| ["moov", "trak", "mdia", "minf", "stbl", name];
        let stts = |delta: u32| {
            mp4(&good.mp4, &stbl("stts"), &mut |body| {
                let entries = body.len() / 8;
                for entry in 1..entries {
                    body[entry * 8 + 4..entry * 8 + 8].copy_from_slice(&delta.to_be_bytes());
                }
            })
        };
        self.video("all-at-once.mp4", &stts(0), EITHER);
        self.video("backwards.mp4", &stts(u32::MAX - 1000), EITHER);
        self.video("giant-steps.mp4", &stts(0x7fff_ffff), EITHER);
        let offsets = mp4(&good.mp4, &stbl("ctts"), &mut |body| {
            for entry in 1..body.len() / 8 {
                body[entry * 8 + 4..entry * 8 + 8].copy_from_slice(&0x8000_0000_u32.to_be_bytes());
            }
        });
        self.video("offsets.mp4", &offsets, EITHER);
        let scale = mp4(&good.mp4, &["moov", "trak", "mdia", "mdhd"], &mut |body| body[12..16].fill(0));
        self.video("no-time-scale.mp4", &scale, EITHER);
        let cluster = find(&good.live, &[0x1f, 0x43, 0xb6, 0x75]);
        let at = cluster + find(&good.live[cluster..], &[0xe7]);
        let late =
            [&good.live[..at], &[0xe7, 0x88, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &good.live[at + 3..]]
                .concat();
        self.video("end-of-time.mkv", &late, EITHER);
        let zero_scale =
            replaced(&good.mkv, &[0x2a, 0xd7, 0xb1, 0x83, 0x0f, 0x42, 0x40], &[0x2a, 0xd7, 0xb1, 0x83, 0, 0, 0]);
        self.video("no-time-scale.mkv", &zero_scale, EITHER);
    }

    /// What points elsewhere: at a file, at a server, at itself.
    fn pointers(&mut self, good: &Good, bait: &Bait) {
        for (what, target) in [("file", bait.file.to_str().unwrap()), ("url", &bait.url), ("passwd", "/etc/passwd")] {
            let scripts = [
                (
                    "hls",
                    format!(
                        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"{target}\"\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
                    ),
                    invalid("playlist"),
                ),
                ("concat", format!("ffconcat version 1.0\nfile '{target}'\n"), invalid("playlist")),
                (
                    "dash",
                    format!(
                        "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\"><Period><AdaptationSet><Representation id=\"1\" mimeType=\"video/mp4\"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
                    ),
                    invalid(""),
                ),
                (
                    "sdp",
                    format!(
                        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={target}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
                    ),
                    invalid("playlist"),
                ),
                ("m3u", format!("{target}\n"), invalid("")),
                ("pls", format!("[playlist]\nFile1={target}\n"), invalid("")),
                (
                    "xspf",
                    format!(
                        "<playlist xmlns=\"http://xspf.org/ns/0/\"><trackList><track><location>{target}</location></track></trackList></playlist>"
                    ),
                    invalid(""),
                ),
                ("asx", format!("<asx version=\"3.0\"><entry><ref href=\"{target}\"/></entry></asx>"), invalid("")),
                (
                    "svg",
                    format!(
                        "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"9\" height=\"9\"><image xlink:href=\"{target}\" width=\"9\" height=\"9\"/></svg>"
                    ),
                    invalid(""),
                ),
            ];
            for (script, text, end) in scripts {
                self.video(&format!("{script}-{what}.mp4"), text.as_bytes(), end);
            }
            let reference = boxed(
                b"rdrf",
                &[&[0, 0, 0, 0], &b"url "[..], &u32::try_from(target.len()).unwrap().to_be_bytes(), target.as_bytes()]
                    .concat(),
            );
            let movie =
                [boxed(b"ftyp", b"qt  \0\0\0\0qt  "), boxed(b"moov", &boxed(b"rmra", &boxed(b"rmda", &reference)))]
                    .concat();
            self.video(&format!("reference-movie-{what}.mov"), &movie, invalid(""));
            let elsewhere = |kind: &[u8], location: &[u8]| {
                let entry = boxed(kind, &[&[0, 0, 0, 0], location].concat());
                mp4(&good.mp4, &["moov", "trak", "mdia", "minf", "dinf", "dref"], &mut |body| {
                    body.truncate(8);
                    body.extend(&entry);
                })
            };
            // The first is read as if its data were its own, which they are; the second not at all.
            self.video(&format!("data-url-{what}.mov"), &elsewhere(b"url ", target.as_bytes()), FINE);
            self.video(&format!("data-alias-{what}.mov"), &elsewhere(b"alis", &alias(target)), invalid(""));
            let font = format!(
                "[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,{target}\n"
            );
            let subtitles =
                ebml(&[0x16, 0x54, 0xae, 0x6b], &track(3, 17, "S_TEXT/ASS", &ebml(&[0x63, 0xa2], font.as_bytes())));
            self.video(&format!("subtitles-only-{what}.mkv"), &segment(&subtitles), invalid("subtitle"));
            let attached = ebml(&[0x19, 0x41, 0xa4, 0x69], &attachment(target, b"font", 1));
            self.video(&format!("attachment-{what}.mkv"), &inserted(&good.live, &attached), FINE);
        }
    }

    /// Too many of something.
    fn crowds(&mut self, good: &Good) {
        let crowd = |one: &dyn Fn(u64) -> Vec<u8>| (1..=10_000).flat_map(one).collect::<Vec<u8>>();
        // Those beyond the limit are left out.
        let attachments = ebml(&[0x19, 0x41, 0xa4, 0x69], &crowd(&|n| attachment(&format!("{n}.ttf"), b"font", n)));
        self.video("attachments.mkv", &inserted(&good.live, &attachments), FINE);
        let tracks = ebml(&[0x16, 0x54, 0xae, 0x6b], &crowd(&|n| track(n, 2, "A_PCM/INT/LIT", b"")));
        let block = [0x81, 0, 0, 0x80, 1, 2, 3, 4];
        let cluster = ebml(&[0x1f, 0x43, 0xb6, 0x75], &[ebml(&[0xe7], &[0]), ebml(&[0xa3], &block)].concat());
        self.video("tracks.mkv", &segment(&[tracks, cluster].concat()), invalid("max_streams"));
        let mut again = Vec::new();
        mp4(&good.mp4, &["moov", "trak"], &mut |body| again.extend(boxed(b"trak", body)));
        let traks = mp4(&good.mp4, &["moov"], &mut |body| body.extend(again.repeat(500)));
        self.video("traks.mp4", &traks, invalid("max_streams"));
        let nested = |depth: u32, inner: Vec<u8>, id: &[u8]| (0..depth).fold(inner, |inner, _| ebml(id, &inner));
        let chapters = ebml(&[0x10, 0x43, 0xa7, 0x70], &ebml(&[0x45, 0xb9], &nested(2000, Vec::new(), &[0xb6])));
        self.video("deep-chapters.mkv", &inserted(&good.live, &chapters), FINE);
        let tags = ebml(&[0x12, 0x54, 0xc3, 0x67], &ebml(&[0x73, 0x73], &nested(2000, Vec::new(), &[0x67, 0xc8])));
        self.video("deep-tags.mkv", &inserted(&good.live, &tags), FINE);
        let deep =
            (0..20_000).fold(Vec::new(), |inner, _| if inner.len() < 160_000 { boxed(b"moov", &inner) } else { inner });
        self.video("deep-boxes.mp4", &[boxed(b"ftyp", b"isom\0\0\0\0isom"), deep].concat(), invalid(""));
    }

    /// What is not what it seems.
    fn guises(&mut self, good: &Good) {
        let zip = [b"PK\x03\x04".to_vec(), noise(2, 400), b"PK\x05\x06".to_vec(), vec![0; 18]].concat();
        self.video("mp4-and-zip.mp4", &[&good.mp4[..], &zip].concat(), FINE);
        self.video("zip-and-mp4.mp4", &[&zip[..], &good.mp4].concat(), invalid(""));
        self.video("data-after.mp4", &[&good.mp4[..], &noise(3, 1 << 20)].concat(), FINE);
        self.video("data-after.mkv", &[&good.mkv[..], &noise(4, 1 << 20)].concat(), FINE);
        let page = b"<html><script>alert(1)</script></html>\n";
        self.add("audio", "html-and-mp3.mp3", &[&page[..], &good.mp3].concat(), FINE);
        let tone = [&wav(1, 16_000, 16_000, &[0; 16_000])[..], b"%PDF-1.7\n%%EOF\n"].concat();
        self.add("audio", "wav-and-pdf.wav", &tone, FINE);
        self.video("mkv-as.mp4", &good.mkv, FINE);
        self.video("mp4-as.txt", &good.mp4, FINE);
        self.video("png-as.mp4", &good.png, invalid(""));
        self.video("text-as.mp4", &page.repeat(30), invalid(""));
        for program in ["gzip", "bzip2"] {
            let zeros = self.dir.join("zeros");
            File::create(&zeros).unwrap().set_len(32 << 20).unwrap();
            let packed = Command::new(program).arg("-c").arg(&zeros).output().unwrap().stdout;
            fs::remove_file(zeros).unwrap();
            assert!(packed.len() > 40, "{program} packs nothing");
            self.video(&format!("{program}-bomb.mp4"), &packed, invalid(""));
        }
        let dir = tempfile::tempdir().unwrap();
        let (png, mp3) = (dir.path().join("cover.png"), dir.path().join("song.mp3"));
        fs::write(&png, &good.png).unwrap();
        fs::write(&mp3, &good.mp3).unwrap();
        let (png, mp3) = (png.display(), mp3.display());
        let cover = ffmpeg("mp4", &format!("-i {png} -c copy -disposition:v attached_pic"));
        self.video("cover-only.mp4", &cover, invalid("no moving picture, only cover art (png)"));
        let song = ffmpeg("mp3", &format!("-i {mp3} -i {png} -map 0 -map 1 -c copy -disposition:v attached_pic"));
        self.video("song-with-cover.mp3", &song, invalid("cover art (png)"));
        self.add("audio", "song-with-cover-as-audio.mp3", &song, FINE);
        self.add("audio", "clip-as-audio.mp4", &good.mp4, FINE);
        let strange = replaced(&ffmpeg("mkv", "-f lavfi -i testsrc=s=64x64:r=5:d=1 -c:v ffv1"), b"FFV1", b"XXXX");
        self.video("unknown-codec.mkv", &strange, invalid(""));
        // Words that are read as a fault of this machine would end the run.
        let words = b"x\nNo space left on device\nulimit: y\nToo many open files\n";
        let head = [ebml(&[0x42, 0x86], &[9]), ebml(&[0x42, 0xf7], &[9]), ebml(&[0x42, 0x82], words)].concat();
        self.video(
            "a-full-disk.mkv",
            &[ebml(&[0x1a, 0x45, 0xdf, 0xa3], &head), good.mkv[40..].to_vec()].concat(),
            invalid(""),
        );
        let picture = [ebml(&[0xb0], &[0xff; 4]), ebml(&[0xba], &[0xff; 4])].concat();
        let negative = track(1, 1, "V_NONE", &ebml(&[0xe0], &picture));
        let block = ebml(
            &[0x1f, 0x43, 0xb6, 0x75],
            &[ebml(&[0xe7], &[0]), ebml(&[0xa3], &[0x81, 0, 0, 0x80, 1, 2, 3])].concat(),
        );
        self.video(
            "negative-size.mkv",
            &segment(&[ebml(&[0x16, 0x54, 0xae, 0x6b], &negative), block].concat()),
            invalid("no moving picture"),
        );
        let text = ffmpeg("avi", "-f lavfi -i testsrc=s=64x64:r=5:d=1 -c:v ffv1");
        self.video(
            "rare-codec.avi",
            &replaced(&text, b"FFV1", b"CSCD"),
            invalid("none of the codecs that are decoded"),
        );
    }

    /// Sounds that no ear hears.
    fn sounds(&mut self, good: &Good) {
        let data = noise(5, 51_000);
        self.add("audio", "255-channels.wav", &wav(255, 16_000, 51_000, &data), invalid(""));
        self.add("audio", "no-channels.wav", &wav(0, 16_000, 51_000, &data), invalid(""));
        self.add("audio", "1-hz.wav", &wav(1, 1, 2_000, &data[..2_000]), FINE);
        self.add("audio", "4-ghz.wav", &wav(1, u32::MAX, 51_000, &data), invalid(""));
        self.add("audio", "no-rate.wav", &wav(1, 0, 51_000, &data), invalid(""));
        self.add("audio", "silence.wav", &wav(1, 8_000, 16_000, &[0; 16_000]), FINE);
        self.add("audio", "one-sample.wav", &wav(1, 16_000, 2, &data[..2]), FINE);
        // At a third of the rate nothing is left of it.
        self.add("audio", "a-third.wav", &wav(1, 48_000, 2, &data[..2]), invalid("no sound that can be decoded"));
        self.add("audio", "noise-as.mp3", &[&good.mp3[..400], &noise(6, 60_000)].concat(), invalid(""));
    }

    /// Turned, stretched and narrow pictures.
    fn shapes(&mut self, good: &Good) {
        let turned = mp4(&good.mp4, &["moov", "trak", "tkhd"], &mut |body| body[40..76].copy_from_slice(&noise(7, 36)));
        self.video("turned-absurdly.mp4", &turned, FINE);
        for (name, shape) in [
            ("flat.mp4", [65_535_u32, 1]),
            ("thin.mp4", [1, 65_535]),
            ("infinite.mp4", [0x7fff_ffff, 1]),
            ("no-shape.mp4", [0, 0]),
        ] {
            let ratio = boxed(b"pasp", &[shape[0].to_be_bytes(), shape[1].to_be_bytes()].concat());
            let stsd = ["moov", "trak", "mdia", "minf", "stbl", "stsd", "avc1", "avcC"];
            let path = &stsd[..7];
            let squeezed = mp4(
                &mp4(&good.mp4, &[path, &["pasp"]].concat(), &mut |body| *body = ratio[8..].to_vec()),
                path,
                &mut |body| {
                    if crate::hostile::bytes::count(body, b"pasp") == 0 {
                        body.extend(&ratio);
                    }
                },
            );
            self.video(name, &squeezed, FINE);
        }
        for size in ["1x1", "1x4096", "4096x1", "16x1", "3x7"] {
            let args = format!("-f lavfi -i testsrc=s={size}:r=5:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv444p");
            self.video(&format!("{size}.mp4"), &ffmpeg("mp4", &args), FINE);
        }
    }

    /// What is no file, or a file with a name.
    fn paths(&mut self, good: &Good) {
        use End::Failed;
        let sparse = File::create(self.dir.join("sparse.mp4")).unwrap();
        sparse.set_len(10 << 30).unwrap();
        self.at("video", "sparse", "clips/sparse.mp4", invalid("max_source_mib"));
        fs::write(self.dir.join("hollow.mp4"), &good.mp4).unwrap();
        File::options().write(true).open(self.dir.join("hollow.mp4")).unwrap().set_len(60 << 20).unwrap();
        self.at("video", "hollow", "clips/hollow.mp4", FINE);
        assert!(Command::new("mkfifo").arg(self.dir.join("pipe.mp4")).status().unwrap().success());
        self.at("video", "pipe", "clips/pipe.mp4", Failed("denied", "named pipe"));
        self.at("video", "zero", "/dev/zero", Failed("denied", "a device"));
        self.at("video", "directory", "clips", invalid("is a directory"));
        for (name, target) in [("loop.mp4", "loop.mp4"), ("nowhere.mp4", "nothing"), ("zero.mp4", "/dev/zero")] {
            std::os::unix::fs::symlink(target, self.dir.join(name)).unwrap();
        }
        self.at("video", "link-loop", "clips/loop.mp4", invalid("symbolic links"));
        self.at("video", "link-nowhere", "clips/nowhere.mp4", Failed("not_found", "no such file"));
        self.at("video", "link-zero", "clips/zero.mp4", Failed("denied", "a device"));
        self.at("video", "absent", "clips/absent.mp4", Failed("not_found", "no such file"));
        self.at("video", "kernel", "/proc/version", invalid("is empty"));
        let beside = self.dir.parent().unwrap().to_owned();
        for (n, name) in ["-i", "file:x", "concat:a|b", "pipe:0", "%d.mp4", "a\nb.mp4", "img%03d.png", "x;y`z$(w).mp4"]
            .iter()
            .enumerate()
        {
            fs::write(beside.join(name), &good.mp4).unwrap();
            let escaped = format!("file://{}/{}", beside.display(), name.replace('%', "%25").replace('\n', "%0A"));
            self.at("video", &format!("name-{n}"), if name.contains('\n') { &escaped } else { name }, FINE);
        }
    }
}

/// An alias record (Inside Macintosh: Files, 4) for an absolute path, as old QuickTime files have them.
fn alias(target: &str) -> Vec<u8> {
    let name = |text: &[u8], room: usize| {
        let mut field = vec![u8::try_from(text.len()).unwrap()];
        field.extend(text);
        field.resize(room + 1, 0);
        field
    };
    let path = target.replace('/', ":");
    let mut out = vec![0; 10];
    out.extend(name(b"disk", 27));
    out.extend([0; 12]);
    out.extend(name(b"canary", 63));
    out.extend([0; 16]);
    out.extend([0, 1, 0, 1]);
    out.extend([0; 16]);
    out.extend([0, 2]);
    out.extend(u16::try_from(path.len()).unwrap().to_be_bytes());
    out.extend(path.as_bytes());
    out.resize(out.len() + out.len() % 2, 0);
    out.extend([0xff, 0xff, 0, 0]);
    out
}

/// A track of a Matroska file, with more elements in it; kind 1 is a picture, 2 sound, 17 subtitles.
fn track(number: u64, kind: u8, codec: &str, more: &[u8]) -> Vec<u8> {
    let number = number.to_be_bytes();
    let head = [ebml(&[0xd7], &number), ebml(&[0x73, 0xc5], &number), ebml(&[0x83], &[kind])].concat();
    ebml(&[0xae], &[&head[..], &ebml(&[0x86], codec.as_bytes()), more].concat())
}

/// An attachment of a Matroska file.
fn attachment(name: &str, data: &[u8], number: u64) -> Vec<u8> {
    let parts = [
        ebml(&[0x46, 0x6e], name.as_bytes()),
        ebml(&[0x46, 0x60], b"application/x-truetype-font"),
        ebml(&[0x46, 0x5c], data),
        ebml(&[0x46, 0xae], &number.to_be_bytes()),
    ];
    ebml(&[0x61, 0xa7], &parts.concat())
}
