//! Media as a provider sees them: base64 in, a digest and a token count out.
//!
//! Each blob is decoded exactly once; what is checked is what the real endpoints stumble over: bad base64, a type they
//! do not take, bytes that are not what the type says. Sizes come from the headers of the files alone, no decoder runs.
//! What is known of a medium only by its address (a URL, which is never fetched) is counted as a minute of it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD_INDIFFERENT};

use super::draw;
use super::measure::{self, Format, Measured};
use super::models::Model;
use crate::provider::Protocol;

const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD_INDIFFERENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PAD_INDIFFERENT);

/// What a medium is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Audio,
    Video,
    Document,
}

impl Kind {
    /// Its name in statistics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Document => "document",
        }
    }
}

/// One decoded medium of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Medium {
    pub(crate) kind: Kind,
    /// Decoded bytes.
    pub(crate) bytes: u64,
    /// Of the decoded bytes, so that both alphabets and both protocols agree.
    pub(crate) digest: u128,
    pub(crate) tokens: u64,
    /// Of a video: the tokens of its sound, which are counted and billed as audio.
    pub(crate) sound_tokens: u64,
}

/// Why a medium is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadBlob {
    Base64,
    Mime,
    /// The bytes are not what the type says.
    Content(Kind),
}

/// How much a picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Detail {
    Low,
    Medium,
    High,
    #[default]
    Default,
}

/// How a medium is looked at: the detail, and of a video the part and the frames per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Look {
    pub(crate) detail: Detail,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: Option<u64>,
    /// Default: 1.
    pub(crate) fps: Option<f64>,
}

/// What is known of a medium beside its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) bytes: u64,
    pub(crate) digest: u128,
    pub(crate) measured: Measured,
}

/// Decodes and measures one blob for `model`. With `trust` the bytes are not checked against the type.
pub(crate) fn read(model: &Model, mime: &str, base64: &str, look: Look, trust: bool) -> Result<Medium, BadBlob> {
    let kind = match model.protocol {
        Protocol::Gemini => gemini_kind(mime),
        Protocol::Openai => openai_kind(mime),
    };
    decoded(model, kind.ok_or(BadBlob::Mime)?, mime, base64, look, trust)
}

/// The same for a `video_url` or `audio_url` part of a server that takes such parts: any type of that family in a data
/// URL; another URL is not fetched, and stands for itself.
pub(crate) fn read_url(model: &Model, kind: Kind, url: &str, trust: bool) -> Result<Medium, BadBlob> {
    let family = if kind == Kind::Video { "video/" } else { "audio/" };
    let Some(rest) = url.strip_prefix("data:") else {
        let fits = url.starts_with("https://") || url.starts_with("http://");
        return if fits { Ok(addressed(model, kind, url, Look::default())) } else { Err(BadBlob::Mime) };
    };
    let (mime, data) = rest.split_once(";base64,").ok_or(BadBlob::Mime)?;
    if !mime.starts_with(family) {
        return Err(BadBlob::Mime);
    }
    decoded(model, kind, mime, data, Look::default(), trust)
}

/// A medium of which only the address is known.
pub(crate) fn addressed(model: &Model, kind: Kind, url: &str, look: Look) -> Medium {
    let measured = Measured { ms: Some(60_000), ..Measured::default() };
    let known = Known { bytes: 0, digest: draw::digest(&[b"url", url.as_bytes()]), measured };
    weigh(model, kind, known, look)
}

fn decoded(model: &Model, kind: Kind, mime: &str, base64: &str, look: Look, trust: bool) -> Result<Medium, BadBlob> {
    let bytes = decode(model.protocol, base64).ok_or(BadBlob::Base64)?;
    let measured = measure::whole(&bytes);
    if !trust && !is_what_it_says(kind, mime, &measured) {
        return Err(BadBlob::Content(kind));
    }
    let known = Known { bytes: bytes.len() as u64, digest: draw::digest(&[&bytes]), measured };
    Ok(weigh(model, kind, known, look))
}

/// Counts a medium's tokens.
pub(crate) fn weigh(model: &Model, kind: Kind, known: Known, look: Look) -> Medium {
    let Known { bytes, digest, measured } = known;
    let medium = |tokens, sound_tokens| Medium { kind, bytes, digest, tokens, sound_tokens };
    match kind {
        Kind::Image => medium(image_tokens(model, measured.pixels.unwrap_or((512, 512)), look.detail), 0),
        // Compressed sound at 128 kbit/s, video at 1 Mbit/s: a guess, but the same guess every time.
        Kind::Audio => medium(audio_tokens(model, measured.ms.unwrap_or(bytes / 16)), 0),
        Kind::Video => {
            let whole = measured.ms.unwrap_or(bytes / 125 + 1);
            let shown = look.to_ms.unwrap_or(u64::MAX).min(whole).saturating_sub(look.from_ms);
            let sound = if measured.sound == Some(false) { 0 } else { audio_tokens(model, shown) };
            medium(video_tokens(model, shown, look), sound)
        }
        Kind::Document => medium(258 * (bytes / 100_000 + 1), 0),
    }
}

/// Whether the bytes are of the type they are sent as.
fn is_what_it_says(kind: Kind, mime: &str, measured: &Measured) -> bool {
    let rest = mime.split_once('/').map_or("", |(_, rest)| rest);
    match kind {
        Kind::Image => measured.pixels.is_some() || matches!(rest, "heic" | "heif"),
        Kind::Audio => measured.format.is_some_and(|format| match format {
            // A header without sound in it is no sound.
            Format::Wav => matches!(rest, "wav" | "x-wav" | "wave") && measured.ms.is_some(),
            Format::Mp3 => matches!(rest, "mp3" | "mpeg"),
            Format::Flac => matches!(rest, "flac" | "x-flac"),
            Format::Aac => matches!(rest, "aac" | "x-aac"),
            Format::Ogg => matches!(rest, "ogg" | "opus"),
            Format::Aiff => matches!(rest, "aiff" | "x-aiff"),
            Format::Mp4 => matches!(rest, "m4a" | "mp4" | "x-m4a" | "aac"),
            Format::Matroska => rest == "webm",
            Format::Avi | Format::OtherVideo => false,
        }),
        Kind::Video => {
            matches!(measured.format, Some(Format::Mp4 | Format::Matroska | Format::Avi | Format::OtherVideo))
        }
        Kind::Document => true,
    }
}

/// Gemini takes both alphabets, OpenAI the standard one; both take missing padding.
fn decode(protocol: Protocol, base64: &str) -> Option<Vec<u8>> {
    let url_safe = protocol == Protocol::Gemini && base64.bytes().any(|b| b == b'-' || b == b'_');
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    engine.decode(base64).ok().filter(|bytes| !bytes.is_empty())
}

/// Types Gemini documents, and spellings of them it takes; anything else is refused.
pub(crate) fn gemini_kind(mime: &str) -> Option<Kind> {
    let (family, rest) = mime.split_once('/')?;
    match (family, rest) {
        ("image", "jpeg" | "png" | "webp" | "heic" | "heif") => Some(Kind::Image),
        (
            "audio",
            "wav" | "x-wav" | "mp3" | "mpeg" | "aiff" | "aac" | "x-aac" | "ogg" | "flac" | "x-flac" | "m4a" | "opus",
        ) => Some(Kind::Audio),
        ("video", "mp4" | "mpeg" | "mov" | "quicktime" | "avi" | "x-flv" | "mpg" | "webm" | "wmv" | "3gpp") => {
            Some(Kind::Video)
        }
        ("application", "pdf") => Some(Kind::Document),
        _ => None,
    }
}

/// Types of OpenAI's own parts.
fn openai_kind(mime: &str) -> Option<Kind> {
    match mime.split_once('/')? {
        ("image", "jpeg" | "png" | "webp" | "gif") => Some(Kind::Image),
        ("audio", "wav" | "mp3") => Some(Kind::Audio),
        _ => None,
    }
}

/// Gemini 2: 258 up to 384 px, else 258 per 768 px tile; 3 and later: by resolution. OpenAI: 85 + 170 per 512 px tile.
fn image_tokens(model: &Model, (width, height): (u32, u32), detail: Detail) -> u64 {
    let (width, height) = (u64::from(width), u64::from(height));
    match (model.protocol, model.gemini_major()) {
        (Protocol::Gemini, 3..) => match detail {
            Detail::Low => 280,
            Detail::Medium => 560,
            Detail::High | Detail::Default => 1_120,
        },
        (Protocol::Gemini, _) if detail == Detail::Low => 66,
        (Protocol::Gemini, _) if width <= 384 && height <= 384 => 258,
        (Protocol::Gemini, _) => 258 * width.div_ceil(768) * height.div_ceil(768),
        (Protocol::Openai, _) if detail == Detail::Low => 85,
        (Protocol::Openai, _) => {
            let (width, height) = fit(width, height, width.max(height), 2_048);
            let (width, height) = fit(width, height, width.min(height), 768);
            85 + 170 * width.div_ceil(512) * height.div_ceil(512)
        }
    }
}

/// Scales down so that `side` is at most `limit`.
fn fit(width: u64, height: u64, side: u64, limit: u64) -> (u64, u64) {
    if side <= limit { (width, height) } else { ((width * limit / side).max(1), (height * limit / side).max(1)) }
}

/// Gemini: 32 tokens per second; OpenAI: 10 per second.
fn audio_tokens(model: &Model, ms: u64) -> u64 {
    let per_second = if model.protocol == Protocol::Gemini { 32 } else { 10 };
    (ms * per_second).div_ceil(1_000).max(1)
}

/// Gemini per sampled frame: 258, or 66 at low detail; from 3 on 70, or 280 at high. Others: as a small picture a second.
fn video_tokens(model: &Model, ms: u64, look: Look) -> u64 {
    let per_frame = match (model.protocol, model.gemini_major(), look.detail) {
        (Protocol::Gemini, 3.., Detail::High) => 280,
        (Protocol::Gemini, 3.., _) => 70,
        (Protocol::Gemini, _, Detail::Low) => 66,
        (Protocol::Gemini, _, _) => 258,
        (Protocol::Openai, _, _) => 85,
    };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float-to-int cast saturates, and a count of frames is small"
    )]
    let frames = look.fps.map_or(ms.div_ceil(1_000), |fps| (ms as f64 / 1_000.0 * fps).ceil() as u64);
    per_frame * frames.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::models;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut b = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        b.extend(width.to_be_bytes());
        b.extend(height.to_be_bytes());
        b
    }

    fn wav(seconds: u32) -> Vec<u8> {
        let data = 32_000 * seconds;
        let mut b = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        b.extend(16_000u32.to_le_bytes());
        b.extend(32_000u32.to_le_bytes());
        b.extend([2, 0, 16, 0]);
        b.extend(b"data");
        b.extend(data.to_le_bytes());
        b.resize(b.len() + data as usize, 0);
        b
    }

    fn model(name: &str) -> Model {
        models::built_in().find(|m| m.name == name).unwrap()
    }

    fn tokens(name: &str, mime: &str, bytes: &[u8], detail: Detail) -> u64 {
        let look = Look { detail, ..Look::default() };
        read(&model(name), mime, &STANDARD.encode(bytes), look, false).unwrap().tokens
    }

    #[test]
    fn pictures_count_by_tiles_or_by_resolution() {
        for (model, size, detail, want) in [
            ("gemini-2.5-flash", (384, 384), Detail::Default, 258),
            ("gemini-2.5-flash", (768, 432), Detail::Default, 258),
            ("gemini-2.5-flash", (1_920, 1_080), Detail::Default, 258 * 6),
            ("gemini-3.8-flash", (64, 64), Detail::Default, 1_120),
            ("gemini-3.8-flash", (64, 64), Detail::Low, 280),
            ("gpt-4o", (512, 512), Detail::Default, 255),
            ("gpt-4o", (4_096, 8_192), Detail::Default, 85 + 170 * 6),
            ("gpt-4o", (4_096, 8_192), Detail::Low, 85),
        ] {
            assert_eq!(tokens(model, "image/png", &png(size.0, size.1), detail), want, "{model} {size:?} {detail:?}");
        }
    }

    #[test]
    fn sound_counts_by_the_second() {
        assert_eq!(tokens("gemini-2.5-flash", "audio/wav", &wav(3), Detail::Default), 96);
        assert_eq!(tokens("gpt-audio", "audio/wav", &wav(3), Detail::Default), 30);
    }

    #[test]
    fn both_alphabets_give_the_same_digest_and_bad_text_is_refused() {
        let gemini = model("gemini-2.5-flash");
        let mut bytes = png(8, 8);
        bytes.extend([0xfb, 0xff, 0xfe]);
        let standard = read(&gemini, "image/png", &STANDARD.encode(&bytes), Look::default(), false).unwrap();
        let url_safe = read(&gemini, "image/png", &URL_SAFE.encode(&bytes), Look::default(), false).unwrap();
        assert_eq!(standard, url_safe);
        assert_eq!(read(&gemini, "image/png", "not base64!", Look::default(), true), Err(BadBlob::Base64));
        assert_eq!(read(&gemini, "image/bmp", "AAAA", Look::default(), true), Err(BadBlob::Mime));
        let refused = read(&gemini, "image/png", "AAAA", Look::default(), false);
        assert_eq!(refused, Err(BadBlob::Content(Kind::Image)));
    }

    #[test]
    fn a_video_counts_by_its_second_and_its_sound_apart() {
        let known =
            |ms, sound| Known { bytes: 1_000_000, digest: 1, measured: Measured { ms, sound, ..Measured::default() } };
        let part = Look { from_ms: 2_000, to_ms: Some(5_000), fps: Some(2.0), ..Look::default() };
        let with = |detail| Look { detail, ..Look::default() };
        for (name, known, look, frames, sound) in [
            ("gemini-2.5-flash", known(Some(10_000), Some(true)), Look::default(), 2_580, 320),
            ("gemini-2.5-flash", known(Some(10_000), Some(false)), with(Detail::Low), 660, 0),
            ("gemini-2.5-flash", known(Some(10_000), None), part, 258 * 6, 96),
            ("gemini-3.8-flash", known(Some(9_001), Some(true)), Look::default(), 700, 289),
            ("gemini-3.8-flash", known(Some(10_000), Some(false)), with(Detail::High), 2_800, 0),
            ("gemini-2.5-flash", known(None, Some(false)), Look::default(), 258 * 9, 0),
        ] {
            let medium = weigh(&model(name), Kind::Video, known, look);
            assert_eq!((medium.tokens, medium.sound_tokens), (frames, sound), "{name} {known:?} {look:?}");
        }
    }

    #[test]
    fn sound_must_be_what_its_type_says() {
        let frame = [&[0xff, 0xfb, 0x90, 0x00][..], &[0; 413]].concat();
        let flac = b"fLaC\0\0\0\x22 and so on, for more than a block of it".to_vec();
        for (mime, bytes, taken) in [
            ("audio/mpeg", &frame, true),
            ("audio/mp3", &frame, true),
            ("audio/flac", &frame, false),
            ("audio/flac", &flac, true),
            ("audio/x-flac", &flac, true),
            ("audio/aac", &flac, false),
            ("audio/ogg", &b"OggS and so on".to_vec(), true),
            ("audio/mp3", &b"no sound at all".to_vec(), false),
            ("video/mp4", &b"\0\0\0\x10ftypisom\0\0\0\0".to_vec(), true),
            ("video/mp4", &frame, false),
        ] {
            let found = read(&model("gemini-2.5-flash"), mime, &STANDARD.encode(bytes), Look::default(), false);
            assert_eq!(found.is_ok(), taken, "{mime}: {found:?}");
        }
        let found = read(&model("gpt-audio"), "audio/flac", &STANDARD.encode(&flac), Look::default(), false);
        assert_eq!(found, Err(BadBlob::Mime));
    }

    #[test]
    fn a_url_is_never_fetched_and_stands_for_itself() {
        let (model, mp4) = (model("gpt-4o"), STANDARD.encode(b"\0\0\0\x10ftypisom\0\0\0\0"));
        let at = |kind, url: &str| read_url(&model, kind, url, false);
        let one = at(Kind::Video, "https://host.test/a.mp4").unwrap();
        assert_eq!((one.bytes, one.tokens, one.sound_tokens), (0, 85 * 60, 600));
        assert_ne!(one.digest, at(Kind::Video, "https://host.test/b.mp4").unwrap().digest);
        assert_eq!(at(Kind::Video, &format!("data:video/mp4;base64,{mp4}")).unwrap().bytes, 16);
        assert_eq!(at(Kind::Audio, &format!("data:video/mp4;base64,{mp4}")), Err(BadBlob::Mime));
        assert_eq!(at(Kind::Video, "file:///etc/passwd"), Err(BadBlob::Mime));
        assert_eq!(at(Kind::Video, "data:video/mp4;base64,AAAA"), Err(BadBlob::Content(Kind::Video)));
    }
}
