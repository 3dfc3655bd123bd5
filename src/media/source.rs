//! Which file an item means, and whether it may be opened: only what is allowed, only regular files, without ever
//! waiting for one.
//!
//! There is one seam: a URI becomes an open local file and its SHA-256. `file:` opens in place; `https:` and `s3:` are
//! fetched into the cache by `remote` and opened there, and a further protocol is one more [`Origin`]. What is allowed is judged on what
//! was opened (the path behind the handle), not on its name, as a symbolic link can be exchanged in between. openat2's
//! RESOLVE_BENEATH was rejected: it forbids absolute links that stay inside, and old kernels lack it.

mod address;
mod allow;
mod answer;
mod download;
mod index;
mod object;
mod origin;
mod outage;
mod pins;
mod remote;
#[cfg_attr(not(feature = "fleet"), path = "source/s3/absent.rs")]
mod s3;
mod store;
mod way;
mod web;

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

pub use self::allow::Allowed;
pub(crate) use self::allow::Roots;
use self::object::Object;
pub(crate) use self::origin::{Origin, any_remote, refused};
pub(crate) use self::remote::Remote;
#[cfg(feature = "fleet")]
pub use self::s3::Listing;
pub use self::store::{Lookup, Store};
pub(crate) use self::web::WebUrl;
use super::{MediaError, MediaErrorKind};

/// Where the bytes of a URI are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file of this machine.
    Local(PathBuf),
    /// On a server.
    Remote(Origin),
}

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
        return format!("the {} source", scheme.trim_start().chars().take(20).collect::<String>());
    }
    let name = without_pairs(uri).trim_end_matches('/').rsplit('/').next().unwrap_or(uri);
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).take(120).collect();
    if name.is_empty() { "an empty path".to_owned() } else { name }
}

/// What `uri` stands for: a path, that of a `file:` URI with its percent codes decoded, or an https URL or an object of S3.
/// Nothing is opened or asked.
pub(crate) fn locate(uri: &str) -> Result<Place, MediaError> {
    if uri.is_empty() {
        return Err(MediaError::new(MediaErrorKind::NotFound, "names no file"));
    }
    if uri.contains('\0') {
        return Err(MediaError::invalid("holds a zero byte, which no path can"));
    }
    let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, rest)| is_scheme(scheme, rest)) else {
        return Ok(Place::Local(PathBuf::from(uri)));
    };
    if scheme.eq_ignore_ascii_case("https") {
        return WebUrl::read(uri).map(|url| Place::Remote(Origin::Web(url)));
    }
    if scheme.eq_ignore_ascii_case("s3") {
        return Object::read(uri).map(|object| Place::Remote(Origin::Bucket(object)));
    }
    if !scheme.eq_ignore_ascii_case("file") {
        let scheme: String = scheme.to_ascii_lowercase().chars().take(20).collect();
        return Err(MediaError::new(
            MediaErrorKind::Denied,
            format!("the scheme {scheme:?} is not allowed; give a path, a file://, an https:// or an s3:// URI"),
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
    decode_percent(path).map(Place::Local)
}

/// RFC 3986, 3.1. A colon in a plain name (`a:b.mp4`) makes no scheme: what follows must look like a URI, if only like a
/// mistaken one (`https:/host`, `https:\\host`), which is refused as a URI and shown without its query.
fn is_scheme(scheme: &str, rest: &str) -> bool {
    let file = scheme.eq_ignore_ascii_case("file");
    let scheme = scheme.trim_start();
    let known = ["http", "https", "s3"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
        && (known || rest.starts_with('/') || (rest.starts_with('\\') && !file))
}

/// A URI as records show it: without what may be a credential. Of a URL that is its query, its fragment and its user name;
/// a path and a file URI may hold a question mark of their own.
pub fn without_secrets(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, rest)| is_scheme(scheme, rest)) else {
        return without_pairs(uri).to_owned();
    };
    if scheme.eq_ignore_ascii_case("file") {
        return uri.to_owned();
    }
    let slashes = rest.len() - rest.trim_start_matches(['/', '\\']).len();
    let (slashes, rest) = rest.split_at(slashes);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let host_end = rest.find(['/', '\\']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_end);
    // Whatever stands before an @ may be a password, wherever a reader takes the host to end.
    let path = if path.contains('\\') { path.rsplit_once('@').map_or(path, |(_, path)| path) } else { path };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}:{slashes}{host}{path}")
}

/// A path that ends in what looks like a URL's query is a URL that was cut or mistyped (`//host/a?signature=...`).
fn without_pairs(path: &str) -> &str {
    path.split_once('?').filter(|(_, query)| query.contains('=')).map_or(path, |(path, _)| path)
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

/// Opens a regular file of at most `max_bytes` in one of the roots. Blocking, but never on what the path names: pipes,
/// sockets and devices are refused by their type before they are opened, and without waiting if they are swapped in
/// afterwards.
pub(crate) fn open(path: &Path, roots: &Roots, max_bytes: u64) -> Result<(File, Identity), MediaError> {
    let metadata = path.metadata();
    roots.check(path)?;
    check_type(&metadata.map_err(|error| io_error(&error))?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed())
        .open(path)
        .map_err(|error| io_error(&error))?;
    if *roots != Roots::All {
        // What counts is where the opened file is, wherever the path leads by now.
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let opened = opened.map_err(|error| MediaError::worker(format!("cannot look at /proc/self/fd: {error}")))?;
        if !roots.hold(&opened) {
            return Err(outside());
        }
    }
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

fn outside() -> MediaError {
    MediaError::new(
        MediaErrorKind::Denied,
        "lies outside of the directories that may be read; add its own as \"file:///DIRECTORY/\" to [store] allow",
    )
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
    let mut again = false;
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
            // A network file system may recover.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && !again => again = true,
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

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// What every other file would meet as well.
const EXHAUSTED: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];

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
        _ if EXHAUSTED.iter().any(|errno| Errno::from_io_error(error) == Some(*errno)) => MediaErrorKind::Worker,
        // A bad sector, a network drive that went away: this file's trouble, which may pass.
        _ => MediaErrorKind::Unavailable,
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
            assert_eq!(locate(uri), Ok(Place::Local(PathBuf::from(path))), "{uri}");
        }
    }

    #[test]
    fn what_names_no_local_file_is_refused_by_kind() {
        use MediaErrorKind::{Denied, Invalid, NotFound};
        for (uri, kind) in [
            ("", NotFound),
            ("http://example.org/a.mp4", Denied),
            ("https://user@example.org/a.mp4", Denied),
            ("S3:bucket/a.mp4", Denied),
            ("s3://bucket/", Denied),
            ("https:/example.org/a.mp4", Denied),
            ("https:\\\\example.org\\a.mp4", Denied),
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
        let (file, identity) = open(&path, &Roots::All, 3).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash(&file, &identity).unwrap(), expected);
        assert!(open(&path, &Roots::All, 2).unwrap_err().message.contains("max_source_mib"));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("growing");
        std::fs::write(&path, "abc").unwrap();
        let (file, identity) = open(&path, &Roots::All, 100).unwrap();
        std::fs::write(&path, "abcdef").unwrap();
        assert_eq!(hash(&file, &identity).unwrap_err().kind, MediaErrorKind::Invalid);
    }

    #[test]
    fn an_error_of_one_file_is_not_this_machines() {
        let kind = |errno: Errno| io_error(&io::Error::from(errno)).kind;
        for errno in [Errno::IO, Errno::STALE, Errno::TIMEDOUT, Errno::REMOTEIO, Errno::HOSTDOWN, Errno::NOTCONN] {
            assert_eq!(kind(errno), MediaErrorKind::Unavailable, "{errno}");
        }
        for errno in EXHAUSTED {
            assert_eq!(kind(errno), MediaErrorKind::Worker, "{errno}");
        }
        assert_eq!([Errno::ACCESS, Errno::NOENT].map(kind), [MediaErrorKind::Denied, MediaErrorKind::NotFound]);
    }

    #[test]
    fn only_files_inside_the_roots_are_opened_however_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("in/deep")).unwrap();
        std::fs::create_dir(at("out")).unwrap();
        for name in ["in/a", "in/deep/b", "out/secret"] {
            std::fs::write(at(name), name).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("deep/b", "in/inside");
        link("../out/secret", "in/relative");
        link(at("out/secret").to_str().unwrap(), "in/absolute");
        link("../out", "in/folder");
        link("../in", "out/back");
        let roots = Roots::These(vec![at("in")]);
        let kind = |name: &str| open(&at(name), &roots, 100).map(|_| ()).map_err(|error| error.kind);
        for inside in ["in/a", "in/inside", "in/deep/../a", "in/folder/back/a", "out/../in/a", "out/back/a"] {
            assert_eq!(kind(inside), Ok(()), "{inside}");
        }
        for outside in [
            "out/secret",
            "out/absent",
            "in/relative",
            "in/absolute",
            "in/folder/secret",
            "in/folder/absent",
            "in/../out/secret",
            "in/absent/../../out/absent",
            "innocent",
            "in/deep/../../out/secret",
        ] {
            assert_eq!(kind(outside), Err(MediaErrorKind::Denied), "{outside}");
        }
        assert_eq!(kind("in/absent"), Err(MediaErrorKind::NotFound));
        assert_eq!(open(&at("in/a"), &Roots::These(vec![]), 100).unwrap_err().kind, MediaErrorKind::Denied);
    }

    #[test]
    fn a_link_that_is_swapped_while_it_is_opened_never_leads_outside() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["in", "out"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("a"), name).unwrap();
            std::os::unix::fs::symlink(at(name), at(&format!("to-{name}"))).unwrap();
        }
        std::fs::rename(at("to-in"), at("in/link")).unwrap();
        let roots = Roots::These(vec![at("in")]);
        let over = AtomicBool::new(false);
        let (mut read, mut refused, mut wrong) = (0, 0, None);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The two links change places, so that the path is there at all times.
                while !over.load(Ordering::Relaxed) {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    let here = rustix::fs::CWD;
                    rustix::fs::renameat_with(here, at("to-out"), here, at("in/link"), exchange).unwrap();
                }
            });
            while wrong.is_none() && (read < 4_000 || refused < 4_000) {
                match open(&at("in/link/a"), &roots, 100) {
                    Ok((mut file, _)) => {
                        let mut text = String::new();
                        file.read_to_string(&mut text).unwrap();
                        wrong = (text != "in").then_some(text);
                        read += 1;
                    }
                    Err(error) => {
                        wrong = (error.kind != MediaErrorKind::Denied).then_some(error.message);
                        refused += 1;
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(wrong, None);
    }

    #[test]
    fn a_presigned_url_keeps_its_path_and_loses_its_secrets() {
        for (uri, shown) in [
            ("https://host/a.mp4?X-Amz-Signature=abc#f", "https://host/a.mp4"),
            ("https://user:pass@host/a.mp4", "https://host/a.mp4"),
            ("HTTPS://host?sig=abc", "HTTPS://host"),
            ("https:/host/a.mp4?sig=abc", "https:/host/a.mp4"),
            ("https:\\\\user:pass@host\\a.mp4?sig=abc", "https:\\\\host\\a.mp4"),
            ("https://host\\user:pass@other/a?sig=abc", "https://hostother/a"),
            (" https://host/a.mp4?sig=abc", " https://host/a.mp4"),
            ("https:host/a.mp4?sig=abc", "https:host/a.mp4"),
            ("//host/a.mp4?sig=abc", "//host/a.mp4"),
            ("s3://bucket/a b.mp4", "s3://bucket/a b.mp4"),
            ("clips/why?.mp4", "clips/why?.mp4"),
            ("c:\\why?.mp4", "c:\\why?.mp4"),
            ("file:///clips/why?.mp4", "file:///clips/why?.mp4"),
        ] {
            assert_eq!(without_secrets(uri), shown);
            assert!(!display_name(uri).contains("abc") && !display_name(uri).contains("pass"), "{uri}");
        }
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
