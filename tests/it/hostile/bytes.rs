//! Bad bytes, made by hand: just enough of MP4, Matroska, WAV, PNG and H.264 to say what no encoder would.

/// The boxes of an MP4 rewritten: `change` gets the content of every box at `path`, and the sizes above follow.
pub(crate) fn mp4(bytes: &[u8], path: &[&str], change: &mut dyn FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (this, next) = rest.split_at(size.clamp(8, rest.len()));
        let (name, mut body) = (&this[4..8], this[8..].to_vec());
        if name == path[0].as_bytes() {
            if path.len() == 1 {
                change(&mut body);
            } else {
                // What stands before the boxes inside.
                let head = match path[0] {
                    "stsd" | "dref" => 8,
                    "avc1" => 78,
                    _ => 0,
                };
                let inner = mp4(&body[head..], &path[1..], change);
                body.truncate(head);
                body.extend(inner);
            }
        }
        out.extend(boxed(name, &body));
        rest = next;
    }
    out
}

/// One MP4 box.
pub(super) fn boxed(name: &[u8], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).unwrap();
    [&size.to_be_bytes()[..], name, body].concat()
}

/// One Matroska element.
pub(super) fn ebml(id: &[u8], body: &[u8]) -> Vec<u8> {
    let size = (1_u64 << 56 | body.len() as u64).to_be_bytes();
    [id, &size, body].concat()
}

/// The start of a Matroska file whose segment has no end of its own.
pub(super) fn segment(content: &[u8]) -> Vec<u8> {
    let head = ebml(&[0x1a, 0x45, 0xdf, 0xa3], &ebml(&[0x42, 0x82], b"matroska"));
    let endless = [0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    [&head[..], &endless, content].concat()
}

/// A live Matroska file with more at the start of its segment.
pub(super) fn inserted(live: &[u8], more: &[u8]) -> Vec<u8> {
    let at = find(live, &[0x18, 0x53, 0x80, 0x67]) + 12;
    [&live[..at], more, &live[at..]].concat()
}

/// Where `what` begins; a fixture without it is a mistake.
pub(super) fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|window| window == what).unwrap_or_else(|| panic!("no {what:x?} there"))
}

/// The same bytes with every `from` made `to`, of the same length.
pub(super) fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let (mut out, mut found) = (bytes.to_vec(), 0);
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            out[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "no {from:x?} there");
    out
}

/// A WAV header that claims what it likes, and its data.
pub(super) fn wav(channels: u16, rate: u32, claimed: u32, data: &[u8]) -> Vec<u8> {
    let block = channels.saturating_mul(2);
    let mut out = b"RIFF".to_vec();
    out.extend(claimed.saturating_add(36).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.wrapping_mul(block.into()).to_le_bytes());
    out.extend(block.to_le_bytes());
    out.extend(b"\x10\0data");
    out.extend(claimed.to_le_bytes());
    out.extend(data);
    out
}

/// Makes every PNG inside say that it is `side` pixels high and wide, with a checksum that fits.
pub(super) fn png_of(bytes: &[u8], side: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in (0..bytes.len() - 21).filter(|&at| &bytes[at..at + 4] == b"IHDR") {
        out[at + 4..at + 8].copy_from_slice(&side.to_be_bytes());
        out[at + 8..at + 12].copy_from_slice(&side.to_be_bytes());
        let sum = crc32(&out[at..at + 17]);
        out[at + 17..at + 21].copy_from_slice(&sum.to_be_bytes());
    }
    out
}

/// As PNG has it (ISO 15948, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

/// A sequence parameter set of H.264 baseline for a picture of so many macroblocks (16 x 16) a side.
pub(super) fn sps(blocks: u32) -> Vec<u8> {
    let mut bits = String::new();
    let code = |value: u32| {
        let width = (32 - (value + 1).leading_zeros()) as usize;
        format!("{:0>1$b}", value + 1, 2 * width - 1)
    };
    // Identity, frame number bits, order by frame number, one reference.
    bits += &[code(0), code(0), code(2), code(1)].concat();
    bits += "0";
    bits += &[code(blocks - 1), code(blocks - 1)].concat();
    // Frames only, direct 8x8, no cropping, no more; the end.
    bits += "11001";
    while !bits.len().is_multiple_of(8) {
        bits += "0";
    }
    let coded = (0..bits.len()).step_by(8).map(|at| u8::from_str_radix(&bits[at..at + 8], 2).unwrap());
    [0x67, 66, 0, 62].into_iter().chain(coded).collect()
}

/// The decoder configuration of an MP4 with another sequence parameter set.
pub(super) fn with_sps(configuration: &mut Vec<u8>, sps: &[u8]) {
    let old = usize::from(u16::from_be_bytes([configuration[6], configuration[7]]));
    let length = u16::try_from(sps.len()).unwrap().to_be_bytes();
    configuration.splice(6..8 + old, length.into_iter().chain(sps.iter().copied()));
}

/// Bytes without a meaning, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// How often `what` is there.
pub(super) fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}
