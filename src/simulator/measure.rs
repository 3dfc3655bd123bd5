//! What can be told of a medium while its bytes go by: what it is, how long it lasts, whether it has sound.
//!
//! An upload may be two gigabytes and is never kept, so everything is read in one pass from bounded windows: the first
//! 64 KiB, 16 KiB behind a leading ID3 tag, the last 64 KiB, and the few boxes of a container that tell its length. Media
//! inside a request go the same way, so that a clip counts the same however it comes. A decoder (ffprobe) was rejected: the
//! simulator must run anywhere, and a hostile clip must not reach a decoder through it.

mod boxes;
mod picture;
mod sound;

use boxes::Walker;
use picture::image_size;

const HEAD: usize = 64 * 1024;
const BODY: usize = 16 * 1024;

/// What the bytes are, by their own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Wav,
    Mp3,
    Flac,
    Aac,
    Ogg,
    Aiff,
    /// ISO base media: mp4, mov, m4a, 3gp.
    Mp4,
    /// Matroska and WebM.
    Matroska,
    Avi,
    /// MPEG program or transport stream, FLV, ASF: known, but of unknown length.
    OtherVideo,
}

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Measured {
    pub(crate) format: Option<Format>,
    /// Length in milliseconds, where the bytes state it or it follows from their rate.
    pub(crate) ms: Option<u64>,
    /// Whether a video has sound; `None`: it does not say.
    pub(crate) sound: Option<bool>,
    /// Of a picture: width and height.
    pub(crate) pixels: Option<(u32, u32)>,
}

/// Watches bytes go by.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    total: u64,
    head: Vec<u8>,
    /// Where the sound begins behind a leading ID3 tag, once that is known.
    body_at: Option<u64>,
    body: Vec<u8>,
    tail: Vec<u8>,
    walker: Option<Walker>,
}

/// Measures bytes that are all there.
pub(crate) fn whole(bytes: &[u8]) -> Measured {
    let mut meter = Meter::default();
    meter.push(bytes);
    Measured { pixels: image_size(bytes), ..meter.measured() }
}

impl Meter {
    /// The next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..room]);
        if self.walker.is_none() && self.head.len() >= 12 {
            let mut walker = Walker::for_head(&self.head);
            walker.push(&self.head[..before]);
            self.walker = Some(walker);
        }
        if let Some(walker) = &mut self.walker {
            walker.push(bytes);
        }
        self.push_body(bytes);
        self.push_tail(bytes);
        self.total += bytes.len() as u64;
    }

    fn push_body(&mut self, bytes: &[u8]) {
        if self.body_at.is_none() && self.head.len() >= 10 {
            self.body_at = Some(sound::id3_length(&self.head));
            // What of the head lies behind the tag came before the place was known.
            let seen = usize::try_from(self.total).unwrap_or(usize::MAX).min(self.head.len());
            let from = usize::try_from(self.body_at.unwrap_or(0)).unwrap_or(usize::MAX).min(seen);
            self.body.extend_from_slice(&self.head[from..seen]);
        }
        let Some(at) = self.body_at else { return };
        let from = usize::try_from(at.saturating_sub(self.total)).unwrap_or(usize::MAX).min(bytes.len());
        let room = BODY.saturating_sub(self.body.len()).min(bytes.len() - from);
        self.body.extend_from_slice(&bytes[from..from + room]);
    }

    fn push_tail(&mut self, bytes: &[u8]) {
        let last = &bytes[bytes.len().saturating_sub(HEAD)..];
        let surplus = (self.tail.len() + last.len()).saturating_sub(HEAD).min(self.tail.len());
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(last);
    }

    /// Bytes seen.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What is known by now.
    pub(crate) fn measured(&self) -> Measured {
        let format = format(&self.head, &self.body);
        let (head, body, total) = (self.head.as_slice(), self.body.as_slice(), self.total);
        let behind_tag = total.saturating_sub(self.body_at.unwrap_or(0));
        let walked = self.walker.as_ref().map(Walker::told).unwrap_or_default();
        let ms = match format {
            Some(Format::Wav) => sound::wav_ms(head, total),
            Some(Format::Mp3) => sound::mp3_ms(body, behind_tag),
            Some(Format::Aac) => sound::aac_ms(body, behind_tag),
            Some(Format::Flac) => sound::flac_ms(body),
            Some(Format::Ogg) => sound::ogg_ms(head, &self.tail),
            Some(Format::Avi) => boxes::avi_ms(head),
            Some(Format::Mp4 | Format::Matroska) => walked.ms,
            Some(Format::Aiff | Format::OtherVideo) | None => None,
        };
        let sound = match format {
            Some(Format::Avi) => Some(head.windows(4).any(|four| four == b"auds")),
            _ => walked.sound,
        };
        Measured { format, ms, sound, pixels: image_size(head) }
    }
}

/// By the magic bytes; `body` begins behind a leading ID3 tag.
fn format(head: &[u8], body: &[u8]) -> Option<Format> {
    let at = |from: usize, magic: &[u8]| head.get(from..from + magic.len()) == Some(magic);
    let tagged = at(0, b"ID3");
    Some(match () {
        () if at(0, b"RIFF") && at(8, b"WAVE") => Format::Wav,
        () if at(0, b"RIFF") && at(8, b"AVI ") => Format::Avi,
        () if body.starts_with(b"fLaC") => Format::Flac,
        () if at(0, b"OggS") => Format::Ogg,
        () if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) => Format::Aiff,
        () if at(4, b"ftyp") || at(4, b"moov") || at(4, b"mdat") || at(4, b"wide") => Format::Mp4,
        () if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) => Format::Matroska,
        () if sound::is_aac(body) => Format::Aac,
        () if tagged || sound::is_mp3(body) => Format::Mp3,
        () if at(0, &[0, 0, 1, 0xba])
            || at(0, &[0, 0, 1, 0xb3])
            || at(0, b"FLV")
            || at(0, &[0x30, 0x26, 0xb2, 0x75]) =>
        {
            Format::OtherVideo
        }
        () if at(0, &[0x47]) && at(188, &[0x47]) => Format::OtherVideo,
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box with its payload.
    fn boxed(name: &[u8], payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len() + 8).unwrap();
        [&size.to_be_bytes()[..], name, payload].concat()
    }

    fn mp4(moov_first: bool, sound: bool) -> Vec<u8> {
        let mut mvhd = vec![0; 100];
        mvhd[12..16].copy_from_slice(&600_u32.to_be_bytes());
        mvhd[16..20].copy_from_slice(&(600_u32 * 7 + 300).to_be_bytes());
        let handler = |kind: &[u8]| {
            let hdlr = boxed(b"hdlr", &[&[0; 8][..], kind, &[0; 12]].concat());
            boxed(b"trak", &boxed(b"mdia", &hdlr))
        };
        let mut moov = [boxed(b"mvhd", &mvhd), handler(b"vide")].concat();
        if sound {
            moov.extend(handler(b"soun"));
        }
        let (moov, mdat) = (boxed(b"moov", &moov), boxed(b"mdat", &vec![7; 200_000]));
        let ftyp = boxed(b"ftyp", b"isom\0\0\0\0");
        if moov_first { [ftyp, moov, mdat].concat() } else { [ftyp, mdat, moov].concat() }
    }

    fn webm() -> Vec<u8> {
        let element = |id: &[u8], payload: &[u8]| {
            [
                id,
                &[0x40 | u8::try_from(payload.len() >> 8).unwrap(), u8::try_from(payload.len() & 255).unwrap()],
                payload,
            ]
            .concat()
        };
        let duration = element(&[0x44, 0x89], &4_250.0_f64.to_be_bytes());
        let scale = element(&[0x2a, 0xd7, 0xb1], &[0x0f, 0x42, 0x40]);
        let info = element(&[0x15, 0x49, 0xa9, 0x66], &[scale, duration].concat());
        let track = element(&[0xae], &element(&[0x83], &[2]));
        let tracks = element(&[0x16, 0x54, 0xae, 0x6b], &track);
        // The segment's length is unknown, as a live muxer leaves it.
        let segment = [&[0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &info, &tracks];
        [element(&[0x1a, 0x45, 0xdf, 0xa3], &[0; 20]), segment.concat()].concat()
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Measured {
        let mut meter = Meter::default();
        bytes.chunks(size).for_each(|piece| meter.push(piece));
        assert_eq!(meter.total(), bytes.len() as u64);
        meter.measured()
    }

    #[test]
    fn a_container_tells_its_length_and_sound_wherever_its_boxes_are() {
        for (bytes, format, ms, sound) in [
            (mp4(true, true), Format::Mp4, 7_500, true),
            (mp4(false, false), Format::Mp4, 7_500, false),
            (webm(), Format::Matroska, 4_250, true),
        ] {
            for size in [1, 7, 4_096, bytes.len()] {
                let found = in_pieces(&bytes, size);
                assert_eq!((found.format, found.ms, found.sound), (Some(format), Some(ms), Some(sound)), "{size}");
            }
        }
    }

    #[test]
    fn sound_is_measured_the_same_in_any_pieces() {
        let mp3_frame = [&[0xff, 0xfb, 0x90, 0x00][..], &[0; 413]].concat();
        let mut tagged = b"ID3\x04\0\0\0\x06\x00\x00".to_vec();
        tagged.resize(10 + 6 * 16_384, 1);
        tagged.extend(mp3_frame.repeat(200));
        // 8 s of 44.1 kHz stereo in STREAMINFO.
        let mut flac = b"fLaC\0\0\0\x22".to_vec();
        flac.extend([0; 10]);
        flac.extend([0x0a, 0xc4, 0x42, 0xf0]);
        flac.extend((44_100_u32 * 8).to_be_bytes());
        flac.extend([0; 16]);
        let adts = [&[0xff, 0xf1, 0x50, 0x80, 0x19, 0x1f, 0xfc][..], &[0; 193]].concat().repeat(100);
        let mut ogg = b"OggS\0\x02".to_vec();
        ogg.resize(28, 0);
        ogg.extend(b"OpusHead\x01\x02\0\0");
        ogg.resize(100_000, 0);
        ogg.extend(b"OggS\0\x04");
        ogg.extend((48_000_u64 * 3).to_le_bytes());
        for (bytes, format, ms) in [
            (tagged, Format::Mp3, 200 * 417 * 8 / 128),
            (flac, Format::Flac, 8_000),
            (adts, Format::Aac, 100 * 1_024 * 1_000 / 44_100),
            (ogg, Format::Ogg, 3_000),
        ] {
            for size in [1, 11, 5_000, bytes.len()] {
                let found = in_pieces(&bytes, size);
                assert_eq!((found.format, found.ms), (Some(format), Some(ms)), "{size}");
            }
        }
    }

    #[test]
    fn broken_containers_and_noise_state_nothing() {
        let mut endless = boxed(b"ftyp", b"isom");
        endless.extend([0, 0, 0, 3, b'm', b'o', b'o', b'v']);
        assert_eq!(whole(&endless).ms, None);
        for bytes in
            [&b""[..], b"RIFF", b"hello there, this is a text", &[0x1a, 0x45, 0xdf, 0xa3, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert_eq!(whole(bytes).ms, None);
        }
        assert_eq!(whole(b"hello there, this is a text").format, None);
    }
}
