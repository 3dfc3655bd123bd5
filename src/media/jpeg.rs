//! Cuts ffmpeg's stream of JPEGs apart by its markers (ITU-T T.81, B.1) and reads their sizes.
//!
//! One pipe instead of numbered files keeps the total bounded by one cap and leaves nothing behind.

use std::ops::Range;

/// Where one picture lies in the stream, and its size in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) bytes: Range<usize>,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// The pictures of a stream; none if it is anything but whole JPEGs in a row.
pub(crate) fn split(stream: &[u8]) -> Option<Vec<Picture>> {
    let (mut pictures, mut at) = (Vec::new(), 0);
    while at < stream.len() {
        let picture = first(stream, at)?;
        at = picture.bytes.end;
        pictures.push(picture);
    }
    Some(pictures)
}

fn first(stream: &[u8], start: usize) -> Option<Picture> {
    let mut size = None;
    let mut at = start + 2;
    if stream.get(start..at)? != [0xff, 0xd8] {
        return None;
    }
    loop {
        let [0xff, marker] = *stream.get(at..at + 2)? else {
            return None;
        };
        if marker == 0xd9 {
            let (width, height) = size?;
            return Some(Picture { bytes: start..at + 2, width, height });
        }
        let length = word(stream, at + 2)?;
        if matches!(marker, 0xc0..=0xc2) {
            size = Some((word(stream, at + 7)?, word(stream, at + 5)?));
        }
        at += 2 + length as usize;
        if marker == 0xda {
            at = end_of_scan(stream, at)?;
        }
    }
}

/// The next marker that is neither a stuffed zero nor a restart.
fn end_of_scan(stream: &[u8], from: usize) -> Option<usize> {
    let scan = stream.get(from..)?;
    let end = scan.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff))?;
    Some(from + end)
}

fn word(stream: &[u8], at: usize) -> Option<u32> {
    let bytes = stream.get(at..at + 2)?;
    Some(u32::from(bytes[0]) << 8 | u32::from(bytes[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 28] = [
        0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 9, 0, 16, 1, 1, 0x11, 0, 0xff, 0xda, 0, 4, 1, 1, 7, 0xff, 0, 0xff, 0xd0,
        0xff, 0xd9,
    ];

    #[test]
    fn pictures_in_a_row_are_cut_apart_with_their_sizes() {
        let pictures = split(&[ONE, ONE].concat()).unwrap();
        assert_eq!(pictures.len(), 2);
        assert_eq!(pictures[1], Picture { bytes: 28..56, width: 16, height: 9 });
        assert_eq!(split(&[]), Some(Vec::new()));
    }

    #[test]
    fn anything_cut_or_foreign_is_refused() {
        for cut in 1..ONE.len() {
            assert_eq!(split(&ONE[..cut]), None, "{cut}");
        }
        assert_eq!(split(b"GIF89a"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = split(&[&ONE[..15], &bytes].concat());
        }
    }
}
