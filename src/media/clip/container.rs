//! What a clip is in, by its first bytes: a name may say anything.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::super::MediaError;

pub(super) fn head(file: &File) -> Result<Vec<u8>, MediaError> {
    let mut head = vec![0; 64];
    let mut read = 0;
    while read < head.len() {
        match file.read_at(&mut head[read..], read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MediaError::worker(format!("cannot read a source: {error}"))),
        }
    }
    head.truncate(read);
    Ok(head)
}

/// The type under which providers take a container, by its first bytes: those of Gemini's list of video formats
/// (mp4, mpeg, mov, avi, x-flv, mpg, webm, wmv, 3gpp). A name says nothing, and is not looked at.
pub(super) fn of(head: &[u8]) -> Option<&'static str> {
    let at = |from: usize, bytes: &[u8]| head.get(from..from + bytes.len()) == Some(bytes);
    let holds = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
    if at(4, b"ftyp") {
        return Some(match head.get(8..11) {
            Some(b"qt ") => "video/mov",
            Some(b"3gp" | b"3g2") => "video/3gpp",
            _ => "video/mp4",
        });
    }
    // Films from before the brands.
    if [b"moov", b"mdat", b"wide"].iter().any(|atom| at(4, *atom)) {
        return Some("video/mov");
    }
    if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        return holds(b"webm").then_some("video/webm");
    }
    if at(0, b"RIFF") && at(8, b"AVI ") {
        return Some("video/avi");
    }
    if at(0, b"FLV") {
        return Some("video/x-flv");
    }
    if at(0, &[0, 0, 1, 0xba]) {
        return Some("video/mpeg");
    }
    at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]).then_some("video/wmv")
}

/// The same text as a constant, for what is read from a manifest.
pub(super) fn known_mime(text: &str) -> Option<&'static str> {
    const KNOWN: [&str; 8] =
        ["video/mp4", "video/mov", "video/3gpp", "video/webm", "video/avi", "video/x-flv", "video/mpeg", "video/wmv"];
    KNOWN.into_iter().find(|known| *known == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_first_bytes() {
        for (head, mime) in [
            (&b"\0\0\0\x20ftypisom\0\0\0\0"[..], Some("video/mp4")),
            (b"\0\0\0\x20ftypqt  \0\0\0\0", Some("video/mov")),
            (b"\0\0\0\x20ftyp3gp4\0\0\0\0", Some("video/3gpp")),
            (b"\0\0\0\x08wide\0\0\0\0mdat", Some("video/mov")),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm", Some("video/webm")),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x88matroska", None),
            (b"RIFF\x10\0\0\0AVI LIST", Some("video/avi")),
            (b"RIFF\x10\0\0\0WAVEfmt ", None),
            (b"FLV\x01\x05", Some("video/x-flv")),
            (b"\0\0\x01\xba\x44", Some("video/mpeg")),
            (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Some("video/wmv")),
            (b"G\x40\0\x10", None),
            (b"#EXTM3U\n", None),
            (b"", None),
        ] {
            assert_eq!(of(head), mime, "{head:?}");
            assert!(mime.is_none_or(|mime| known_mime(mime) == Some(mime)), "{mime:?}");
        }
    }
}
