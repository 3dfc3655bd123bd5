//! Media as a provider sees them: base64 in, a digest and a token count out.
//!
//! Each blob is decoded exactly once; what is checked is what the real endpoints stumble over: bad base64, a type they
//! do not take, bytes that are not what the type says. Sizes come from the headers of the files alone, no decoder runs.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD_INDIFFERENT};

use super::draw;
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

/// One decoded medium of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Medium {
    pub(crate) kind: Kind,
    /// Decoded bytes.
    pub(crate) bytes: u64,
    /// Of the decoded bytes, so that both alphabets and both protocols agree.
    pub(crate) digest: u128,
    pub(crate) tokens: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Low,
    Medium,
    High,
    Default,
}

/// Decodes and measures one blob for `model`. With `trust` the bytes are not checked against the type.
pub(crate) fn read(model: &Model, mime: &str, base64: &str, detail: Detail, trust: bool) -> Result<Medium, BadBlob> {
    let kind = kind_of(model.protocol, mime).ok_or(BadBlob::Mime)?;
    let bytes = decode(model.protocol, base64).ok_or(BadBlob::Base64)?;
    let tokens = match kind {
        Kind::Image => match (image_size(&bytes), trust) {
            (Some(size), _) => image_tokens(model, size, detail),
            (None, true) => image_tokens(model, (512, 512), detail),
            (None, false) if mime.ends_with("heic") || mime.ends_with("heif") => {
                image_tokens(model, (512, 512), detail)
            }
            (None, false) => return Err(BadBlob::Content(kind)),
        },
        Kind::Audio if mime.contains("wav") => match (wav_ms(&bytes), trust) {
            (Some(ms), _) => audio_tokens(model, ms),
            (None, true) => audio_tokens(model, 1_000),
            (None, false) => return Err(BadBlob::Content(kind)),
        },
        // Compressed sound at 128 kbit/s, video at 1 Mbit/s: a guess, but the same guess every time.
        Kind::Audio => audio_tokens(model, bytes.len() as u64 / 16),
        Kind::Video => (bytes.len() as u64 / 125_000 + 1) * if model.gemini_major() >= 3 { 102 } else { 300 },
        Kind::Document => 258 * (bytes.len() as u64 / 100_000 + 1),
    };
    Ok(Medium { kind, bytes: bytes.len() as u64, digest: draw::digest(&[&bytes]), tokens })
}

/// Gemini takes both alphabets, OpenAI the standard one; both take missing padding.
fn decode(protocol: Protocol, base64: &str) -> Option<Vec<u8>> {
    let url_safe = protocol == Protocol::Gemini && base64.bytes().any(|b| b == b'-' || b == b'_');
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    engine.decode(base64).ok().filter(|bytes| !bytes.is_empty())
}

/// Types each API documents; anything else is refused.
fn kind_of(protocol: Protocol, mime: &str) -> Option<Kind> {
    let (family, rest) = mime.split_once('/')?;
    match (protocol, family) {
        (_, "image") if matches!(rest, "jpeg" | "png" | "webp") => Some(Kind::Image),
        (Protocol::Gemini, "image") if matches!(rest, "heic" | "heif") => Some(Kind::Image),
        (Protocol::Openai, "image") if rest == "gif" => Some(Kind::Image),
        (_, "audio") if matches!(rest, "wav" | "mp3") => Some(Kind::Audio),
        (Protocol::Gemini, "audio") => {
            matches!(rest, "x-wav" | "mpeg" | "aiff" | "aac" | "ogg" | "flac" | "m4a" | "opus").then_some(Kind::Audio)
        }
        (Protocol::Gemini, "video") => {
            matches!(rest, "mp4" | "mpeg" | "mov" | "quicktime" | "avi" | "x-flv" | "mpg" | "webm" | "wmv" | "3gpp")
                .then_some(Kind::Video)
        }
        (Protocol::Gemini, "application") if rest == "pdf" => Some(Kind::Document),
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

/// Width and height from a JPEG, PNG, GIF or WebP header.
fn image_size(b: &[u8]) -> Option<(u32, u32)> {
    let size = if b.starts_with(&[0xff, 0xd8]) {
        jpeg_size(b)?
    } else if b.starts_with(b"\x89PNG\r\n\x1a\n") {
        (be32(b, 16)?, be32(b, 20)?)
    } else if b.starts_with(b"GIF8") {
        (le16(b, 6)?, le16(b, 8)?)
    } else if b.starts_with(b"RIFF") && b.get(8..12)? == b"WEBP" {
        match b.get(12..16)? {
            b"VP8X" => (le24(b, 24)? + 1, le24(b, 27)? + 1),
            b"VP8L" => {
                let packed = le32(b, 21)?;
                ((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1)
            }
            _ => (le16(b, 26)? & 0x3fff, le16(b, 28)? & 0x3fff),
        }
    } else {
        return None;
    };
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// Walks the segments up to the frame header (SOF0..SOF15 but DHT, JPG and DAC).
fn jpeg_size(b: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *b.get(at)? != 0xff {
            return None;
        }
        let marker = *b.get(at + 1)?;
        match marker {
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => return Some((be16(b, at + 7)?, be16(b, at + 5)?)),
            _ => at += 2 + usize::try_from(be16(b, at + 2)?).ok()?,
        }
    }
}

/// Milliseconds of a RIFF/WAVE file by its byte rate; a streamed header (size unknown) counts what is there.
fn wav_ms(b: &[u8]) -> Option<u64> {
    if !(b.starts_with(b"RIFF") && b.get(8..12)? == b"WAVE") {
        return None;
    }
    let (mut at, mut rate) = (12, 0);
    loop {
        let (name, size) = (b.get(at..at + 4)?, usize::try_from(le32(b, at + 4)?).ok()?);
        match name {
            b"fmt " => rate = u64::from(le32(b, at + 16)?),
            b"data" => {
                let there = size.min(b.len().saturating_sub(at + 8)) as u64;
                return (rate > 0).then(|| there * 1_000 / rate);
            }
            _ => {}
        }
        at = at.checked_add(8)?.checked_add(size)?.checked_add(size % 2)?;
    }
}

fn be16(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?)))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn le16(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?)))
}

fn le24(b: &[u8], at: usize) -> Option<u32> {
    Some(le16(b, at)? | u32::from(*b.get(at + 2)?) << 16)
}

fn le32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
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

    fn tokens(model: &str, mime: &str, bytes: &[u8], detail: Detail) -> u64 {
        let model = models::built_in().find(|m| m.name == model).unwrap();
        read(&model, mime, &STANDARD.encode(bytes), detail, false).unwrap().tokens
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
    fn a_jpeg_is_measured_by_its_frame_header() {
        let b = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc0, 0, 17, 8, 1, 0xe0, 2, 0x80, 3];
        assert_eq!(image_size(&b), Some((640, 480)));
        assert_eq!(image_size(&b[..12]), None);
    }

    #[test]
    fn both_alphabets_give_the_same_digest_and_bad_text_is_refused() {
        let gemini = models::built_in().find(|m| m.name == "gemini-2.5-flash").unwrap();
        let mut bytes = png(8, 8);
        bytes.extend([0xfb, 0xff, 0xfe]);
        let standard = read(&gemini, "image/png", &STANDARD.encode(&bytes), Detail::Default, false).unwrap();
        let url_safe = read(&gemini, "image/png", &URL_SAFE.encode(&bytes), Detail::Default, false).unwrap();
        assert_eq!(standard, url_safe);
        assert_eq!(read(&gemini, "image/png", "not base64!", Detail::Default, true), Err(BadBlob::Base64));
        assert_eq!(read(&gemini, "image/bmp", "AAAA", Detail::Default, true), Err(BadBlob::Mime));
        let refused = read(&gemini, "image/png", "AAAA", Detail::Default, false);
        assert_eq!(refused, Err(BadBlob::Content(Kind::Image)));
    }
}
