//! Which file an item means, and whether it may be opened: only regular files, without ever waiting for one.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{MediaError, MediaErrorKind};

/// What says that a file is still the one that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    pub(crate) bytes: u64,
    modified_ns: i128,
}

impl Identity {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        }
    }
}

/// The last part of a path or file URI, as messages name it: no directories, no control characters, at most 120
/// characters. Of any other URI only the scheme, as the rest may hold credentials.
pub(crate) fn display_name(uri: &str) -> String {
    if let Some((scheme, _)) = uri.split_once(':').filter(|(scheme, rest)| is_scheme(scheme, rest))
        && !scheme.eq_ignore_ascii_case("file")
    {
        return format!("the {} source", scheme.chars().take(20).collect::<String>());
    }
    let name = uri.trim_end_matches('/').rsplit('/').next().unwrap_or(uri);
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).take(120).collect();
    if name.is_empty() { "an empty path".to_owned() } else { name }
}

/// The path that `uri` stands for: itself, or that of a `file:` URI with its percent codes decoded.
pub(crate) fn locate(uri: &str) -> Result<PathBuf, MediaError> {
    if uri.is_empty() {
        return Err(MediaError::new(MediaErrorKind::NotFound, "names no file"));
    }
    if uri.contains('\0') {
        return Err(MediaError::invalid("holds a zero byte, which no path can"));
    }
    let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, rest)| is_scheme(scheme, rest)) else {
        return Ok(PathBuf::from(uri));
    };
    if !scheme.eq_ignore_ascii_case("file") {
        let scheme: String = scheme.to_ascii_lowercase().chars().take(20).collect();
        return Err(MediaError::new(
            MediaErrorKind::Denied,
            format!("the scheme {scheme:?} is not allowed; give a path or a file:// URI"),
        ));
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => match rest.find('/').map(|at| rest.split_at(at)) {
            Some((host, path)) if host.is_empty() || host.eq_ignore_ascii_case("localhost") => path,
            _ => {
                return Err(MediaError::invalid("a file URI names this machine: file:///path, with three slashes"));
            }
        },
    };
    decode_percent(path)
}

/// RFC 3986, 3.1. A colon in a plain name (`a:b.mp4`) makes no scheme: what follows must look like a URI.
fn is_scheme(scheme: &str, rest: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
        && (rest.starts_with("//") || (scheme.eq_ignore_ascii_case("file") && rest.starts_with('/')))
}

fn decode_percent(path: &str) -> Result<PathBuf, MediaError> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) if high + low > 0 => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            }
            _ => {
                return Err(MediaError::invalid("holds a percent sign that is not the code of a byte; write it %25"));
            }
        }
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

/// Opens a regular file of at most `max_bytes`. Blocking, but never on what the path names: pipes, sockets and devices
/// are refused by their type before they are opened, and without waiting if they are swapped in afterwards.
pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<(File, Identity), MediaError> {
    check_type(&path.metadata().map_err(|error| io_error(&error))?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
        .map_err(|error| io_error(&error))?;
    let metadata = file.metadata().map_err(|error| io_error(&error))?;
    check_type(&metadata)?;
    if metadata.len() == 0 {
        return Err(MediaError::invalid("is empty"));
    }
    if metadata.len() > max_bytes {
        let (mib, most) = (metadata.len().div_ceil(1 << 20), max_bytes >> 20);
        return Err(MediaError::invalid(format!("has {mib} MiB, more than {most} (max_source_mib)")));
    }
    let identity = Identity::of(path, &metadata);
    Ok((file, identity))
}

fn check_type(metadata: &Metadata) -> Result<(), MediaError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(MediaError::invalid("is a directory, not a file"));
    }
    let what = if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(MediaError::new(MediaErrorKind::Denied, format!("is {what}; only regular files are read")))
}

/// The SHA-256 of an open file in lower-case hex. Blocking. Fails if the file changes meanwhile.
pub(crate) fn hash(file: &File, identity: &Identity) -> Result<String, MediaError> {
    let (mut reader, mut hasher, mut buffer, mut total) = (file, Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                total += read as u64;
                if total > identity.bytes {
                    return Err(changed());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(&error)),
        }
    }
    if total != identity.bytes {
        return Err(changed());
    }
    unchanged(file, identity)?;
    Ok(hex(&hasher.finalize()))
}

/// Fails if the open file is no longer the one of `identity`.
pub(crate) fn unchanged(file: &File, identity: &Identity) -> Result<(), MediaError> {
    let metadata = file.metadata().map_err(|error| io_error(&error))?;
    if Identity::of(&identity.path, &metadata) == *identity { Ok(()) } else { Err(changed()) }
}

fn changed() -> MediaError {
    MediaError::invalid("changes while it is read")
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn io_error(error: &io::Error) -> MediaError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            return MediaError::new(MediaErrorKind::NotFound, "there is no such file");
        }
        io::ErrorKind::PermissionDenied => MediaErrorKind::Denied,
        _ if Errno::from_io_error(error) == Some(Errno::LOOP) => MediaErrorKind::Invalid,
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory => {
            MediaErrorKind::Invalid
        }
        _ => MediaErrorKind::Worker,
    };
    MediaError::new(kind, format!("cannot be opened or read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_uris_name_files() {
        for (uri, path) in [
            ("a.mp4", "a.mp4"),
            ("-i.mp4", "-i.mp4"),
            ("a:b.mp4", "a:b.mp4"),
            ("c:/x.mp4", "c:/x.mp4"),
            ("dir/100%.mp4", "dir/100%.mp4"),
            ("file:///a%20b/%C3%BC%3F.mp4", "/a b/ü?.mp4"),
            ("FILE://localhost/a.mp4", "/a.mp4"),
            ("file:/a.mp4", "/a.mp4"),
            ("file:///a?b#c.mp4", "/a?b#c.mp4"),
        ] {
            assert_eq!(locate(uri), Ok(PathBuf::from(path)), "{uri}");
        }
    }

    #[test]
    fn what_names_no_local_file_is_refused_by_kind() {
        use MediaErrorKind::{Denied, Invalid, NotFound};
        for (uri, kind) in [
            ("", NotFound),
            ("https://example.org/a.mp4", Denied),
            ("S3://bucket/a.mp4", Denied),
            ("concat://a|b", Denied),
            ("file://elsewhere/a.mp4", Invalid),
            ("file://", Invalid),
            ("file:///a%2", Invalid),
            ("file:///a%zz", Invalid),
            ("file:///a%00", Invalid),
            ("file:///a%+1", Invalid),
            ("a\0b", Invalid),
        ] {
            assert_eq!(locate(uri).unwrap_err().kind, kind, "{uri:?}");
        }
    }

    #[test]
    fn the_digest_is_sha256_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let (file, identity) = open(&path, 3).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&file, &identity).unwrap(), expected);
        assert!(open(&path, 2).unwrap_err().message.contains("max_source_mib"));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("growing");
        std::fs::write(&path, "abc").unwrap();
        let (file, identity) = open(&path, 100).unwrap();
        std::fs::write(&path, "abcdef").unwrap();
        assert_eq!(hash(&file, &identity).unwrap_err().kind, MediaErrorKind::Invalid);
    }

    #[test]
    fn a_name_in_a_message_is_short_and_has_no_directories() {
        assert_eq!(display_name("/secret/place/a.mp4"), "a.mp4");
        assert_eq!(display_name("/dir/"), "dir");
        assert_eq!(display_name("https://user:word@host/a.mp4?signature=secret"), "the https source");
        assert_eq!(display_name("a\u{1b}[31m.mp4"), "a?[31m.mp4");
        assert_eq!(display_name(&"x".repeat(500)).len(), 120);
    }
}
