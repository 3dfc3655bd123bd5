//! Width and height of a picture, by its header.

/// Width and height from a JPEG, PNG, GIF or WebP header.
pub(crate) fn image_size(b: &[u8]) -> Option<(u32, u32)> {
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

    #[test]
    fn a_jpeg_is_measured_by_its_frame_header() {
        let b = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xc0, 0, 17, 8, 1, 0xe0, 2, 0x80, 3];
        assert_eq!(image_size(&b), Some((640, 480)));
        assert_eq!(image_size(&b[..12]), None);
    }
}
