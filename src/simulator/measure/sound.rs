//! How long sound lasts, by its own headers: RIFF byte rates, MPEG frame headers, FLAC's STREAMINFO, Ogg's last granule.

/// Bytes of a leading ID3v2 tag, its header and footer included; 0: there is none.
pub(super) fn id3_length(head: &[u8]) -> u64 {
    let [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] = *head else { return 0 };
    let size = [a, b, c, d].iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
    10 + size + if flags & 0x10 == 0 { 0 } else { 10 }
}

/// Milliseconds of a RIFF/WAVE file by its byte rate; a streamed header (size unknown) counts what is there.
pub(super) fn wav_ms(head: &[u8], total: u64) -> Option<u64> {
    let le32 = |at: usize| Some(u64::from(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)));
    let (mut at, mut rate) = (12_usize, 0);
    loop {
        let (name, size) = (head.get(at..at + 4)?, le32(at + 4)?);
        match name {
            b"fmt " => rate = le32(at + 16)?,
            b"data" => {
                let there = size.min(total.saturating_sub(at as u64 + 8));
                return (rate > 0).then(|| there * 1_000 / rate);
            }
            _ => {}
        }
        at = usize::try_from((at as u64 + 8).checked_add(size)?.checked_add(size % 2)?).ok()?;
    }
}

/// Kilobits per second and samples per second of an MPEG audio frame header (layer I to III).
fn mpeg_frame(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    const FIRST: [[u64; 15]; 3] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ];
    const SECOND: [u64; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
    const RATES: [u64; 3] = [44_100, 48_000, 32_000];
    let [0xff, second, third, ..] = *bytes else { return None };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    if second & 0xe0 != 0xe0 || version == 1 || layer == 0 {
        return None;
    }
    let (layer, at) = (3 - usize::from(layer), usize::from(third >> 4));
    let kbits = *if version == 3 { FIRST[layer].get(at)? } else { SECOND.get(at)? };
    let rate = *RATES.get(usize::from(third >> 2 & 3))?;
    let halvings = match version {
        3 => 0,
        2 => 1,
        _ => 2,
    };
    let samples = match (layer, version) {
        (0, _) => 384,
        (2, 0 | 2) => 576,
        _ => 1_152,
    };
    (kbits > 0).then_some((kbits, rate >> halvings, samples))
}

pub(super) fn is_mp3(body: &[u8]) -> bool {
    mpeg_frame(body).is_some()
}

/// By the frame count of a Xing or Info header, else as if the bit rate never changed.
pub(super) fn mp3_ms(body: &[u8], bytes: u64) -> Option<u64> {
    let (kbits, rate, samples) = mpeg_frame(body)?;
    let window = &body[..body.len().min(64)];
    let xing = window.windows(4).position(|four| four == b"Xing" || four == b"Info");
    let frames = xing.and_then(|at| {
        let flags = u32::from_be_bytes(body.get(at + 4..at + 8)?.try_into().ok()?);
        let frames = u32::from_be_bytes(body.get(at + 8..at + 12)?.try_into().ok()?);
        (flags & 1 == 1 && frames > 0).then_some(u64::from(frames))
    });
    Some(frames.map_or(bytes * 8 / kbits, |frames| frames * samples * 1_000 / rate))
}

/// Length and samples per second of an ADTS frame.
fn adts_frame(bytes: &[u8]) -> Option<(u64, u64)> {
    const RATES: [u64; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let [0xff, second, third, fourth, fifth, sixth, ..] = *bytes else { return None };
    if second & 0xf6 != 0xf0 {
        return None;
    }
    let length = u64::from(fourth & 3) << 11 | u64::from(fifth) << 3 | u64::from(sixth >> 5);
    let rate = *RATES.get(usize::from(third >> 2 & 15))?;
    (length >= 7).then_some((length, rate))
}

pub(super) fn is_aac(body: &[u8]) -> bool {
    adts_frame(body).is_some() || body.starts_with(b"ADIF")
}

/// As if all frames were as long as those in the window; 1,024 samples each.
pub(super) fn aac_ms(body: &[u8], bytes: u64) -> Option<u64> {
    let (mut at, mut frames, mut rate) = (0_u64, 0_u64, 0);
    while let Some((length, found)) = usize::try_from(at).ok().and_then(|at| adts_frame(body.get(at..)?)) {
        (at, frames, rate) = (at + length, frames + 1, found);
    }
    if frames == 0 {
        return None;
    }
    Some(bytes * frames / at * 1_024 * 1_000 / rate)
}

/// Samples over their rate, from the block every file begins with.
pub(super) fn flac_ms(body: &[u8]) -> Option<u64> {
    let info = body.get(18..26)?;
    let packed = info.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    let (rate, samples) = (packed >> 44, packed & 0xf_ffff_ffff);
    (rate > 0 && samples > 0).then(|| samples * 1_000 / rate)
}

/// The last page's granule position over the rate: 48 kHz for Opus, stated for Vorbis.
pub(super) fn ogg_ms(head: &[u8], tail: &[u8]) -> Option<u64> {
    let start = &head[..head.len().min(512)];
    let find = |what: &[u8]| start.windows(what.len()).position(|window| window == what);
    let rate = if find(b"OpusHead").is_some() {
        48_000
    } else {
        let at = find(b"\x01vorbis")? + 12;
        u64::from(u32::from_le_bytes(start.get(at..at + 4)?.try_into().ok()?))
    };
    let last = tail.windows(4).rposition(|four| four == b"OggS")?;
    let granule = u64::from_le_bytes(tail.get(last + 6..last + 14)?.try_into().ok()?);
    (rate > 0 && granule > 0 && granule < 1 << 48).then(|| granule * 1_000 / rate)
}
